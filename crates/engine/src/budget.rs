//! The retry budget: what keeps retries from becoming the outage.
//!
//! A token bucket per route and target. The target that failed pays: its own first attempts earn what leaving it
//! costs, so a target that fails a quarter of its calls can just afford the moves, and a total outage cannot turn every
//! call into two. Leaving a target whose breaker is open is free, because that is where the call would have been
//! planned in the first place had it come later.

use outlast_model::Mono;

/// What a first attempt earns.
const EARN: f64 = 0.1;
/// The most that can be saved.
const BURST: f64 = 10.0;
/// What time alone earns, per second: one retry in ten seconds however little traffic there is.
const FLOOR_PER_SEC: f64 = 0.1;

/// What an extra attempt costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Price {
    /// The same target again: the load it is failing under grows.
    SameTarget,
    /// Another healthy target: the load moves.
    Move,
    /// Another healthy target beside the first: the load grows there.
    Hedge,
}

impl Price {
    const fn tokens(self) -> f64 {
        match self {
            Price::SameTarget | Price::Hedge => 1.0,
            Price::Move => 0.3,
        }
    }
}

/// One bucket.
#[derive(Clone, Debug)]
pub(crate) struct RetryBudget {
    tokens: f64,
    at: Mono,
}

impl RetryBudget {
    /// A full bucket.
    pub(crate) fn new(now: Mono) -> Self {
        RetryBudget { tokens: BURST, at: now }
    }

    /// A first attempt was made.
    pub(crate) fn earn(&mut self) {
        self.tokens = (self.tokens + EARN).min(BURST);
    }

    /// Takes the price, or nothing and says no.
    pub(crate) fn spend(&mut self, price: Price, now: Mono) -> bool {
        self.tokens = (self.tokens + now.since(self.at).as_secs_f64() * FLOOR_PER_SEC).min(BURST);
        self.at = now;
        let affordable = self.tokens >= price.tokens();
        if affordable {
            self.tokens -= price.tokens();
        }
        affordable
    }
}

/// The hedges of one route: a share of its calls, saved up for when they are needed together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HedgeBudget {
    tokens: f64,
}

impl HedgeBudget {
    /// A call was made, of which this share may be hedged.
    pub(crate) fn earn(&mut self, share: f64) {
        self.tokens = (self.tokens + share).min(BURST);
    }

    pub(crate) fn affords(&self) -> bool {
        self.tokens >= 1.0
    }

    pub(crate) fn spend(&mut self) -> bool {
        let affordable = self.affords();
        if affordable {
            self.tokens -= 1.0;
        }
        affordable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_is_ten_retries_and_then_one_in_ten_seconds() {
        let mut budget = RetryBudget::new(Mono::ZERO);
        let granted = (0..30).filter(|_| budget.spend(Price::SameTarget, Mono::ZERO)).count();
        assert_eq!(granted, 10);
        let later = Mono::ZERO + Duration::from_millis(10_001);
        assert!(budget.spend(Price::SameTarget, later));
        assert!(!budget.spend(Price::SameTarget, later));
    }

    #[test]
    fn hedges_never_exceed_their_share_of_the_calls() {
        let mut hedges = HedgeBudget::default();
        let mut sent = 0;
        for call in 1..=1_000 {
            hedges.earn(0.05);
            sent += u32::from(hedges.spend());
            assert!(f64::from(sent) <= 0.05 * f64::from(call) + 1e-9);
        }
        assert!((49..=50).contains(&sent), "{sent}");
    }

    #[test]
    fn ten_first_attempts_earn_one_retry_or_three_moves() {
        let mut budget = RetryBudget::new(Mono::ZERO);
        while budget.spend(Price::Move, Mono::ZERO) {}
        (0..10).for_each(|_| budget.earn());
        let granted = (0..10).filter(|_| budget.spend(Price::Move, Mono::ZERO)).count();
        assert!((3..=4).contains(&granted), "{granted}");
    }
}
