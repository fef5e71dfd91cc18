//! Two kinds of time that cannot be mixed: monotonic for decisions, wall for records.

use serde::{Deserialize, Serialize};
use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// Nanoseconds since this process (or this simulation) began. Decisions use nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mono(u64);

impl Mono {
    /// The beginning.
    pub const ZERO: Mono = Mono(0);
    /// Later than any deadline.
    pub const FAR: Mono = Mono(u64::MAX);

    /// From nanoseconds since the beginning.
    pub const fn from_nanos(nanos: u64) -> Self {
        Mono(nanos)
    }

    /// From milliseconds since the beginning.
    pub const fn from_millis(millis: u64) -> Self {
        Mono(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the beginning.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Seconds since the beginning.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// Time from `earlier` until now; zero if `earlier` is later.
    pub const fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Time left until `deadline`; zero once it has passed.
    pub const fn until(self, deadline: Mono) -> Duration {
        deadline.since(self)
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;

    /// Saturates at [`Mono::FAR`].
    fn add(self, delay: Duration) -> Mono {
        Mono(self.0.saturating_add(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Mono {
    type Output = Mono;

    /// Saturates at [`Mono::ZERO`].
    fn sub(self, delay: Duration) -> Mono {
        Mono(self.0.saturating_sub(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Milliseconds since the Unix epoch. For records and people, never for decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Wall(pub i64);
