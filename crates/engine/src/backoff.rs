//! How long to wait before asking again.

use std::time::Duration;

/// The first ceiling of a retry on the same target.
const BASE: Duration = Duration::from_millis(250);
/// The highest.
const CAP: Duration = Duration::from_secs(8);

/// Full jitter in `[0, min(cap, base x 2^(n-1))]` before the `n`th retry (1-based).
/// Source: AWS Architecture Blog, "Exponential Backoff and Jitter".
pub(crate) fn full_jitter(rng: &mut fastrand::Rng, base: Duration, cap: Duration, n: u32) -> Duration {
    let ceiling = base.saturating_mul(1 << n.saturating_sub(1).min(20)).min(cap);
    ceiling.mul_f64(rng.f64())
}

/// The wait before the `n`th retry on the same target: full jitter from 0.25 s to 8 s. A server's Retry-After wins if
/// it is longer.
pub(crate) fn before_retry(rng: &mut fastrand::Rng, n: u32, retry_after: Option<Duration>) -> Duration {
    full_jitter(rng, BASE, CAP, n).max(retry_after.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_fills_its_range_and_never_leaves_it() {
        let mut rng = fastrand::Rng::with_seed(1);
        for n in 1..12 {
            let ceiling = BASE.saturating_mul(1 << (n - 1)).min(CAP);
            let waits: Vec<_> = (0..2000).map(|_| before_retry(&mut rng, n, None)).collect();
            assert!(waits.iter().all(|wait| *wait <= ceiling));
            assert!(waits.iter().any(|wait| *wait < ceiling / 10) && waits.iter().any(|wait| *wait > ceiling * 9 / 10));
        }
    }

    #[test]
    fn a_longer_retry_after_wins() {
        let mut rng = fastrand::Rng::with_seed(1);
        assert_eq!(before_retry(&mut rng, 1, Some(Duration::from_secs(2))), Duration::from_secs(2));
    }
}
