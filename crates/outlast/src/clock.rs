//! The one place that reads a clock, waits for one or asks for entropy. Everything else is handed a [`Clock`] and takes
//! its timers from here; everything below this crate is handed numbers.

use outlast_model::{Mono, RequestId, RunId, Wall};
use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
pub(crate) use tokio::time::{Instant, MissedTickBehavior, Sleep, interval, sleep, sleep_until, timeout};

/// Monotonic time, wall time and entropy. Cheap to clone; `mono` costs one clock read.
///
/// Monotonic time follows tokio's clock, so a test with paused time controls it.
#[derive(Clone, Debug)]
pub struct Clock {
    origin: Instant,
    entropy: Arc<AtomicU64>,
}

impl Clock {
    /// A clock that begins now, its entropy seeded by the operating system.
    pub fn start() -> Self {
        // The standard library asks the system for its hash keys. A cryptographic generator would first gather noise of
        // its own for some 40 ms; these numbers are no secrets. The time sets processes apart where the system has none.
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u64(wall_nanos());
        Self::seeded(hasher.finish())
    }

    /// A clock that begins now and draws the same numbers in the same order for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Clock { origin: Instant::now(), entropy: Arc::new(AtomicU64::new(seed)) }
    }

    /// Time since this clock began.
    pub fn mono(&self) -> Mono {
        Mono::from_nanos(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// The instant of `at`, for tokio's timers. [`Mono::FAR`] becomes some thirty years from the beginning.
    pub fn instant(&self, at: Mono) -> Instant {
        const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
        self.origin + at.since(Mono::ZERO).min(FAR)
    }

    /// Milliseconds since the Unix epoch, as the system's clock has it. It may jump; nothing is decided by it.
    pub fn wall(&self) -> Wall {
        Wall(i64::try_from(wall_nanos() / 1_000_000).unwrap_or(i64::MAX))
    }

    /// 64 bits, distinct from all others of this clock. For ids and the engine's seeds, not for secrets.
    ///
    /// Source: SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014), whose output
    /// is a bijection of its counter; one atomic addition makes it shareable.
    pub fn seed(&self) -> u64 {
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.entropy.fetch_add(GAMMA, Ordering::Relaxed).wrapping_add(GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 32 hexadecimal digits that nobody can guess, from the system's own entropy: for ids that are also the right to
    /// ask, and for tokens. `None` when the system has none to give.
    pub fn secret(&self) -> Option<String> {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).ok()?;
        Some(format!("{:032x}", u128::from_be_bytes(bytes)))
    }

    /// A new request id: `req_` and a version 7 UUID without hyphens, so that ids sort by time.
    pub fn request_id(&self) -> RequestId {
        let mut text = [0; 36];
        text[..4].copy_from_slice(b"req_");
        self.uuid().simple().encode_lower(&mut text[4..]);
        RequestId::new(str::from_utf8(&text).unwrap_or_default())
    }

    /// A new run's id: `run_` and a version 7 UUID without hyphens, so that ids sort by time.
    pub fn run_id(&self) -> RunId {
        RunId::new(format!("run_{}", self.uuid().simple()))
    }

    fn uuid(&self) -> uuid::Uuid {
        let [high, low] = [self.seed(), self.seed()];
        let mut random = [0; 10];
        random[..8].copy_from_slice(&high.to_le_bytes());
        random[8..].copy_from_slice(&low.to_le_bytes()[..2]);
        let millis = u64::try_from(self.wall().0).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }
}

/// Parks a thread that has no runtime until it is unparked or the time is up.
pub(crate) fn park(at_most: Duration) {
    std::thread::park_timeout(at_most);
}

/// Now, for measuring how long something of the host's own has lasted. Decisions take [`Clock::mono`].
pub(crate) fn now() -> Instant {
    Instant::now()
}

fn wall_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn request_ids_are_distinct_version_7_uuids() {
        let clock = Clock::seeded(7);
        let ids: Vec<RequestId> = (0..1000).map(|_| clock.request_id()).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 1000);
        for id in &ids {
            let uuid = uuid::Uuid::try_parse(id.as_str().strip_prefix("req_").unwrap()).unwrap();
            assert_eq!(uuid.get_version_num(), 7);
            assert_eq!(id.as_str().len(), 36);
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_numbers() {
        let draw = |seed| {
            let clock = Clock::seeded(seed);
            [clock.seed(), clock.seed(), clock.seed()]
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn a_time_far_away_is_still_an_instant() {
        let clock = Clock::start();
        assert!(clock.instant(Mono::FAR) > clock.instant(Mono::from_millis(1)));
        assert_eq!(clock.instant(Mono::from_millis(5)) - clock.instant(Mono::ZERO), Duration::from_millis(5));
    }
}
