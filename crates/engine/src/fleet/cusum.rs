//! The detector behind every judgement of a target: a one-sided CUSUM of Bernoulli trials.
//!
//! It adds the log-likelihood ratio of "now it fails at rate p1" against "it fails at its usual rate p0", never falls
//! below zero, and tells at a threshold. It is minimax-optimal in delay at a fixed rate of false alarms (Lorden,
//! Moustakides), needs no minimum volume, and sees an outage of a quarter of the calls in 17 of them, which rules on
//! consecutive failures never do.

use outlast_model::Mono;
use std::time::Duration;

/// Evidence that fades with time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cusum {
    sum: f64,
    at: Mono,
}

impl Cusum {
    /// The sum now, having halved with every `half_life` since it last changed.
    pub(crate) fn value(&self, half_life: Duration, now: Mono) -> f64 {
        if self.sum == 0.0 {
            return 0.0;
        }
        self.sum * (-now.since(self.at).as_secs_f64() / half_life.as_secs_f64()).exp2()
    }

    /// Adds, within `[0, cap]`. Answers the new sum.
    pub(crate) fn add(&mut self, delta: f64, cap: f64, half_life: Duration, now: Mono) -> f64 {
        if self.sum > 0.0 || delta > 0.0 {
            self.sum = (self.value(half_life, now) + delta).clamp(0.0, cap);
            self.at = now;
        }
        self.sum
    }

    pub(crate) fn set(&mut self, sum: f64, now: Mono) {
        *self = Cusum { sum, at: now };
    }
}

/// What one fault and one success weigh.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights {
    /// `ln(p1 / p0)`.
    pub(crate) fault: f64,
    /// `ln((1 - p1) / (1 - p0))`, negative.
    pub(crate) success: f64,
}

impl Weights {
    pub(crate) fn of(p0: f64, p1: f64) -> Self {
        Weights { fault: (p1 / p0).ln(), success: ((1.0 - p1) / (1.0 - p0)).ln() }
    }
}

/// The usual error rate of a target, learnt slowly, so that an ordinary outage cannot teach it that failing is usual.
#[derive(Clone, Debug)]
pub(crate) struct Baseline {
    requests: f64,
    faults: f64,
    weights: Weights,
    renew_in: u32,
}

/// The prior: half a percent, worth a thousand requests. A 10 % outage moves p0 from .02 to .025 before it is seen.
const PRIOR_REQUESTS: f64 = 1000.0;
const PRIOR_RATE: f64 = 0.005;
/// Beyond so many requests the older half counts half.
const MEMORY: f64 = 20_000.0;
const RENEW_EVERY: u32 = 64;

impl Default for Baseline {
    fn default() -> Self {
        let mut baseline = Baseline {
            requests: PRIOR_REQUESTS,
            faults: PRIOR_REQUESTS * PRIOR_RATE,
            weights: Weights::of(0.02, 0.25),
            renew_in: RENEW_EVERY,
        };
        baseline.renew();
        baseline
    }
}

impl Baseline {
    pub(crate) fn weights(&self) -> Weights {
        self.weights
    }

    pub(crate) fn learn(&mut self, fault: bool) {
        self.requests += 1.0;
        self.faults += f64::from(u8::from(fault));
        if self.requests > MEMORY {
            self.requests /= 2.0;
            self.faults /= 2.0;
        }
        self.renew_in -= 1;
        if self.renew_in == 0 {
            self.renew();
        }
    }

    /// `p0 = clamp(2 x the usual rate, .02, .10)`, `p1 = max(.25, 4 p0)`.
    fn renew(&mut self) {
        let p0 = (2.0 * self.faults / self.requests).clamp(0.02, 0.10);
        self.weights = Weights::of(p0, (4.0 * p0).max(0.25));
        self.renew_in = RENEW_EVERY;
    }
}

/// What is judged softly: it demotes a target in the ranking and never opens its breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Soft {
    /// A first output (or whole reply) of more than three times the usual.
    Slow,
    /// 429s that persist although the schedule was obeyed.
    Limited,
}

const SOFT_KINDS: usize = 2;
/// Soft evidence fades faster than faults: a demoted target sees little traffic that could clear it.
const SOFT_HALF_LIFE: Duration = Duration::from_secs(120);
const DEMOTE_AT: f64 = 8.0;
const PROMOTE_BELOW: f64 = 4.0;
const SOFT_CAP: f64 = 10.0;

/// The soft detectors of one target.
#[derive(Clone, Debug, Default)]
pub(crate) struct SoftDetectors {
    sums: [Cusum; SOFT_KINDS],
    latched: [bool; SOFT_KINDS],
}

impl Soft {
    const fn index(self) -> usize {
        match self {
            Soft::Slow => 0,
            Soft::Limited => 1,
        }
    }

    /// Usual and alarming rates: one answer in twenty may be limited, a third may not. One in twelve is slow by three times
    /// the median in a healthy mix, four in ten are not.
    fn weights(self) -> Weights {
        const USUAL: Weights = Weights { fault: 1.791_759, success: -0.305_382 };
        const SLOW: Weights = Weights { fault: 1.609_438, success: -0.427_444 };
        match self {
            Soft::Limited => USUAL,
            Soft::Slow => SLOW,
        }
    }
}

impl SoftDetectors {
    /// Counts one trial. `weight` is 1, or less for weaker evidence.
    pub(crate) fn count(&mut self, kind: Soft, bad: bool, weight: f64, now: Mono) {
        let at = kind.index();
        let weights = kind.weights();
        let delta = if bad { weights.fault * weight } else { weights.success };
        if self.sums[at].add(delta, SOFT_CAP, SOFT_HALF_LIFE, now) >= DEMOTE_AT {
            self.latched[at] = true;
        }
    }

    /// Any of them told and has not faded to half since.
    pub(crate) fn demoted(&self, now: Mono) -> bool {
        self.latched.contains(&true)
            && self
                .sums
                .iter()
                .zip(&self.latched)
                .any(|(sum, latched)| *latched && sum.value(SOFT_HALF_LIFE, now) >= PROMOTE_BELOW)
    }

    /// Forgets latches whose evidence has faded.
    pub(crate) fn tidy(&mut self, now: Mono) {
        for (sum, latched) in self.sums.iter().zip(&mut self.latched) {
            *latched = *latched && sum.value(SOFT_HALF_LIFE, now) >= PROMOTE_BELOW;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_weights_are_those_of_their_rates() {
        for (kind, p0, p1) in [(Soft::Limited, 0.05, 0.30), (Soft::Slow, 0.08, 0.40)] {
            let (is, should) = (kind.weights(), Weights::of(p0, p1));
            assert!((is.fault - should.fault).abs() < 1e-5 && (is.success - should.success).abs() < 1e-5, "{kind:?}");
        }
    }

    #[test]
    fn a_target_is_demoted_by_limits_in_a_row_and_promoted_as_they_fade() {
        let mut soft = SoftDetectors::default();
        (0..4).for_each(|_| soft.count(Soft::Limited, true, 1.0, Mono::ZERO));
        assert!(!soft.demoted(Mono::ZERO));
        soft.count(Soft::Limited, true, 1.0, Mono::ZERO);
        assert!(soft.demoted(Mono::ZERO));
        assert!(soft.demoted(Mono::from_millis(100_000)));
        assert!(!soft.demoted(Mono::from_millis(170_000)));
    }

    #[test]
    fn a_usual_error_rate_of_5_percent_raises_the_bar_and_an_outage_of_100_requests_does_not() {
        let mut baseline = Baseline::default();
        (0..100).for_each(|i| baseline.learn(i % 4 == 0));
        assert!(baseline.weights().fault > 1.6, "{:?}", baseline.weights());
        let mut baseline = Baseline::default();
        (0..20_000).for_each(|i| baseline.learn(i % 20 == 0));
        assert!((baseline.weights().fault - (0.4f64 / 0.1).ln()).abs() < 0.2, "{:?}", baseline.weights());
    }
}
