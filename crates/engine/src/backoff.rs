//! How long to wait before asking again.

use std::time::Duration;

/// Full jitter in `[0, min(cap, base x 2^(n-1))]` before the `n`th retry (1-based).
/// Source: AWS Architecture Blog, "Exponential Backoff and Jitter".
pub(crate) fn full_jitter(rng: &mut fastrand::Rng, base: Duration, cap: Duration, n: u32) -> Duration {
    let ceiling = base.saturating_mul(1 << n.saturating_sub(1).min(20)).min(cap);
    ceiling.mul_f64(rng.f64())
}
