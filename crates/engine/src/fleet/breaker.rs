//! A target's circuit breaker: closed is serving, open is not asked, half-open is on trial, restoring serves a share.
//!
//! ```text
//!            evidence >= open_at                 time is up, or a probe passed
//!   Closed ----------------------> Open{until} ------------------------------> HalfOpen
//!     ^                              ^   ^  a trial failed: twice as long         |
//!     |                              |   +----------------------------------------+ enough trials passed
//!     |  share = 1                   | evidence >= open_at                        v
//!     +------------------------------+---------------------------------------- Restoring{share}
//! ```
//!
//! The open time doubles with every opening and bounds how often *live* calls are risked. One-token probes go on
//! meanwhile, so that a healed target is back within seconds however long it was out; the more often it fooled us, the
//! more probes in a row it has to pass.

use super::cusum::{Baseline, Cusum};
use crate::call::CallId;
use outlast_model::{Mono, policy::HealthPolicy};
use std::time::Duration;

const HALF_LIFE: Duration = Duration::from_secs(600);
/// Each open period is spread by a fifth either way, so that gateways do not probe in step.
const JITTER: f64 = 0.2;
/// A Retry-After beyond this is cut.
const BELIEVED_AT_MOST: Duration = Duration::from_secs(900);
/// Where a restored target starts, and what failures do to it. How fast it grows is the policy's.
const FIRST_SHARE: f64 = 0.05;
const SHRINK: f64 = 0.5;
const LEAST_SHARE: f64 = 0.01;
const TOLERATED: f64 = 0.05;
/// Below this demand so many successes close it: the ramp would see nobody.
const QUIET_PER_SEC: f64 = 0.1;
const QUIET_PASSES: u32 = 3;
/// Trials that must pass in a row: two, and more after the third opening.
const PASSES: u32 = 2;
const PASSES_AT_MOST: u32 = 8;

/// The breaker of one target.
#[derive(Clone, Debug, Default)]
pub(crate) struct Breaker {
    evidence: Cusum,
    baseline: Baseline,
    state: State,
    /// Openings in a row, forgiven one by one.
    level: u32,
    /// Trials passed in a row.
    passed: u32,
    closed_at: Mono,
    /// The first opening of this outage.
    out_since: Mono,
    /// Counts openings and restorations, so that old evidence is not taken back from new sums.
    era: u32,
    /// Nobody is to ask before then, probes included: a 503's Retry-After.
    asked_until: Mono,
    /// The one live call that may try it.
    permit: Option<Permit>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum State {
    #[default]
    Closed,
    Open {
        until: Mono,
    },
    HalfOpen,
    Restoring(Ramp),
}

#[derive(Clone, Copy, Debug)]
struct Permit {
    holder: CallId,
    deadline: Mono,
}

/// A share that grows with time and shrinks with failures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ramp {
    base: f64,
    growth_per_sec: f64,
    since: Mono,
    entered: Mono,
    passed: u32,
    failed: u32,
    in_a_row: u32,
    demand: u32,
}

impl Ramp {
    fn new(now: Mono, restore_over: Duration) -> Self {
        let growth_per_sec = (1.0 - FIRST_SHARE) / restore_over.as_secs_f64().max(1e-3);
        Ramp {
            base: FIRST_SHARE,
            growth_per_sec,
            since: now,
            entered: now,
            passed: 0,
            failed: 0,
            in_a_row: 0,
            demand: 0,
        }
    }

    pub(crate) fn share(&self, now: Mono) -> f64 {
        (self.base + self.growth_per_sec * now.since(self.since).as_secs_f64()).min(1.0)
    }

    fn full_at(&self) -> Mono {
        self.since + Duration::from_secs_f64((1.0 - self.base) / self.growth_per_sec)
    }

    fn fail(&mut self, now: Mono) {
        self.failed += 1;
        self.in_a_row = 0;
        if f64::from(self.failed) > TOLERATED * f64::from(self.passed + self.failed) {
            self.base = (self.share(now) * SHRINK).max(LEAST_SHARE);
            self.since = now;
            (self.passed, self.failed) = (0, 0);
        }
    }

    fn pass(&mut self) {
        self.passed += 1;
        self.in_a_row += 1;
    }

    fn complete(&self, now: Mono) -> bool {
        let quiet = f64::from(self.demand) < QUIET_PER_SEC * now.since(self.entered).as_secs_f64();
        now >= self.full_at() || (quiet && self.in_a_row >= QUIET_PASSES)
    }
}

/// Evidence that was given, to be taken back if it turns out wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receipt {
    weight: f64,
    era: u32,
}

impl Receipt {
    /// One receipt for both; opening in between does not matter to [`Breaker::take_back`].
    pub(crate) fn and(self, other: Receipt) -> Receipt {
        Receipt { weight: self.weight + other.weight, era: self.era }
    }
}

/// What an event did to the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Shift {
    Same,
    Opened,
    HalfOpened,
    Restoring,
    Closed,
}

impl Breaker {
    pub(crate) fn state(&self) -> State {
        self.state
    }

    pub(crate) fn evidence(&self, now: Mono) -> f64 {
        self.evidence.value(HALF_LIFE, now)
    }

    pub(crate) fn out_since(&self) -> Mono {
        self.out_since
    }

    pub(crate) fn asked_until(&self) -> Mono {
        self.asked_until
    }

    /// Trials passed in a row since it opened.
    pub(crate) fn passed(&self) -> u32 {
        self.passed
    }

    /// Neither open nor half-open: calls may be planned on it.
    pub(crate) fn serving(&self) -> bool {
        match self.state {
            State::Closed | State::Restoring(_) => true,
            State::Open { .. } | State::HalfOpen => false,
        }
    }

    /// A call asks for a place; false only while restoring and not drawn.
    pub(crate) fn draw(&mut self, chance: f64, now: Mono) -> bool {
        match &mut self.state {
            State::Restoring(ramp) => {
                ramp.demand = ramp.demand.saturating_add(1);
                chance < ramp.share(now)
            }
            State::Closed => true,
            State::Open { .. } | State::HalfOpen => false,
        }
    }

    /// Nobody tries it now.
    pub(crate) fn permit_free(&self, now: Mono) -> bool {
        self.permit.is_none_or(|permit| permit.deadline <= now)
    }

    pub(crate) fn take_permit(&mut self, holder: CallId, deadline: Mono) {
        self.permit = Some(Permit { holder, deadline });
    }

    /// Gives the permit back, if this call still holds it.
    pub(crate) fn return_permit(&mut self, holder: CallId) -> bool {
        let held = self.permit.is_some_and(|permit| permit.holder == holder);
        if held {
            self.permit = None;
        }
        held
    }

    /// A fault. `trial`: of the one call or probe that tries it.
    pub(crate) fn fault(
        &mut self,
        trial: bool,
        retry_after: Option<Duration>,
        now: Mono,
        policy: &HealthPolicy,
        rng: &mut fastrand::Rng,
    ) -> (Receipt, Shift) {
        let weight = self.baseline.weights().fault;
        let sum = self.evidence.add(weight, 2.0 * policy.open_at, HALF_LIFE, now);
        let receipt = Receipt { weight, era: self.era };
        if let Some(asked) = retry_after {
            self.asked_until = self.asked_until.max(now + asked.min(BELIEVED_AT_MOST));
        }
        let opens = match &mut self.state {
            State::Closed => {
                self.baseline.learn(true);
                sum >= policy.open_at
            }
            State::Restoring(ramp) => {
                ramp.fail(now);
                sum >= policy.open_at
            }
            State::HalfOpen => trial,
            State::Open { until } => {
                *until = (*until).max(self.asked_until);
                false
            }
        };
        if trial {
            self.passed = 0;
        }
        if opens {
            self.open(now, policy, rng);
        }
        (receipt, if opens { Shift::Opened } else { Shift::Same })
    }

    fn open(&mut self, now: Mono, policy: &HealthPolicy, rng: &mut fastrand::Rng) {
        if let State::Closed = self.state {
            let forgiven = now.since(self.closed_at).as_nanos() / policy.forgive_every.as_nanos().max(1);
            self.level = self.level.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX));
            self.out_since = now;
        }
        self.level = (self.level + 1).min(32);
        let period = policy.open_base.saturating_mul(1 << (self.level - 1).min(20)).min(policy.open_cap);
        let period = period.mul_f64(1.0 + JITTER * (2.0 * rng.f64() - 1.0)).min(policy.open_cap);
        self.state = State::Open { until: (now + period).max(self.asked_until) };
        self.passed = 0;
        self.era += 1;
    }

    /// A success. `trial`: of the one call or probe that tries it.
    pub(crate) fn success(&mut self, trial: bool, now: Mono, policy: &HealthPolicy) -> Shift {
        let weight = self.baseline.weights().success;
        match &mut self.state {
            State::Closed => {
                self.baseline.learn(false);
                self.evidence.add(weight, f64::MAX, HALF_LIFE, now);
                Shift::Same
            }
            State::Restoring(ramp) => {
                ramp.pass();
                self.evidence.add(weight, f64::MAX, HALF_LIFE, now);
                self.advance(now)
            }
            // Calls that left before it opened say nothing about now.
            State::Open { .. } | State::HalfOpen if !trial => Shift::Same,
            State::Open { .. } | State::HalfOpen => {
                self.passed += 1;
                if self.passed >= self.level.clamp(PASSES, PASSES_AT_MOST) {
                    self.restore(now, policy);
                    Shift::Restoring
                } else {
                    self.state = State::HalfOpen;
                    Shift::HalfOpened
                }
            }
        }
    }

    fn restore(&mut self, now: Mono, policy: &HealthPolicy) {
        self.state = State::Restoring(Ramp::new(now, policy.restore_over));
        // Half-way to opening again: two faults send it back.
        self.evidence.set(policy.open_at / 2.0, now);
        self.era += 1;
        self.permit = None;
    }

    /// Takes evidence back: the call succeeded late, or the request was to blame.
    pub(crate) fn take_back(&mut self, receipt: Receipt, now: Mono, policy: &HealthPolicy) -> Shift {
        // Opening starts an era too, and what opened it may still be taken back.
        let mine = receipt.era == self.era || (receipt.era + 1 == self.era && !self.serving());
        if !mine {
            return Shift::Same;
        }
        let left = self.evidence.add(-receipt.weight, f64::MAX, HALF_LIFE, now);
        match self.state {
            State::Open { .. } if left < policy.open_at / 2.0 => {
                self.state = State::HalfOpen;
                Shift::HalfOpened
            }
            State::Open { .. } | State::HalfOpen | State::Closed | State::Restoring(_) => Shift::Same,
        }
    }

    /// What time alone changes.
    pub(crate) fn advance(&mut self, now: Mono) -> Shift {
        match self.state {
            State::Open { until } if until <= now => {
                self.state = State::HalfOpen;
                Shift::HalfOpened
            }
            State::Restoring(ramp) if ramp.complete(now) => {
                self.state = State::Closed;
                self.closed_at = now;
                Shift::Closed
            }
            State::Open { .. } | State::Restoring(_) | State::Closed | State::HalfOpen => Shift::Same,
        }
    }

    /// When [`Breaker::advance`] next has something to do.
    pub(crate) fn due(&self) -> Option<Mono> {
        match self.state {
            State::Open { until } => Some(until),
            State::Restoring(ramp) => Some(ramp.full_at()),
            State::Closed | State::HalfOpen => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: f64) -> Mono {
        Mono::ZERO + Duration::from_secs_f64(secs)
    }

    fn policy() -> HealthPolicy {
        HealthPolicy::default()
    }

    struct Bench {
        breaker: Breaker,
        rng: fastrand::Rng,
    }

    impl Bench {
        fn new(seed: u64) -> Self {
            Bench { breaker: Breaker::default(), rng: fastrand::Rng::with_seed(seed) }
        }

        fn fault(&mut self, at: Mono) -> Shift {
            self.breaker.fault(true, None, at, &policy(), &mut self.rng).1
        }

        fn pass(&mut self, at: Mono) -> Shift {
            self.breaker.success(true, at, &policy())
        }

        /// How long it stays open, having been opened at `at` by faults.
        fn open_for(&mut self, at: Mono) -> f64 {
            while self.fault(at) != Shift::Opened {}
            self.breaker.due().unwrap().since(at).as_secs_f64()
        }

        /// Requests until it opens, of which `rate` fail; `None` if it does not within `limit`.
        fn trips_after(&mut self, rate: f64, per_sec: f64, limit: u32) -> Option<u32> {
            let mut now = Mono::ZERO;
            (1..=limit).find(|_| {
                now = now + gap(&mut self.rng, per_sec);
                let fails = self.rng.f64() < rate;
                if fails { self.fault(now) == Shift::Opened } else { self.pass(now) == Shift::Opened }
            })
        }
    }

    /// Gamma renewal with a coefficient of variation of 2 (shape 1/4), by Marsaglia and Tsang.
    fn gap(rng: &mut fastrand::Rng, per_sec: f64) -> Duration {
        let shape = 0.25f64;
        let (d, boost) = (shape + 1.0 - 1.0 / 3.0, rng.f64().max(1e-12).powf(1.0 / shape));
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let normal = (-2.0 * rng.f64().max(1e-12).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos();
            let v = (1.0 + c * normal).powi(3);
            if v > 0.0 && rng.f64().max(1e-12).ln() < 0.5 * normal * normal + d - d * v + d * v.ln() {
                return Duration::from_secs_f64((d * v * boost / shape / per_sec).min(1e6));
            }
        }
    }

    fn median_trip(rate: f64, per_sec: f64) -> u32 {
        let mut trips: Vec<u32> =
            (0..301).map(|seed| Bench::new(seed).trips_after(rate, per_sec, 4000).unwrap_or(4001)).collect();
        trips.sort_unstable();
        trips[150]
    }

    #[test]
    fn a_total_outage_opens_it_in_4_requests_a_quarter_in_17_and_a_tenth_in_87_at_any_usual_rate() {
        for per_sec in [0.5, 5.0, 50.0] {
            assert_eq!(median_trip(1.0, per_sec), 4);
            let quarter = median_trip(0.25, per_sec);
            assert!((14..=19).contains(&quarter), "25 %: {quarter} at {per_sec} rps");
            let tenth = median_trip(0.10, per_sec);
            assert!((55..=100).contains(&tenth), "10 %: {tenth} at {per_sec} rps");
        }
    }

    #[test]
    fn usual_errors_hardly_ever_open_it() {
        for (rate, at_most) in [(0.005, 1), (0.02, 40)] {
            let mut bench = Bench::new(3);
            let mut trips = 0;
            let mut now = Mono::ZERO;
            for _ in 0..1_000_000 {
                now = now + Duration::from_millis(200);
                let shift = if bench.rng.f64() < rate { bench.fault(now) } else { bench.pass(now) };
                if shift == Shift::Opened {
                    trips += 1;
                    bench.breaker.state = State::Closed;
                    bench.breaker.evidence.set(0.0, now);
                }
            }
            assert!(trips <= at_most, "{trips} false trips in a million at {rate}");
        }
    }

    #[test]
    fn the_open_time_doubles_from_5_s_to_300_s_and_ten_healthy_minutes_take_a_doubling_back() {
        let mut bench = Bench::new(5);
        let mut now = secs(1.0);
        for expected in [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0] {
            let open = bench.open_for(now);
            assert!(open >= expected * 0.8 - 1e-6 && open <= (expected * 1.2f64).min(300.0), "{open} for {expected}");
            now = bench.breaker.due().unwrap();
            assert_eq!(bench.breaker.advance(now), Shift::HalfOpened);
        }
        bench.breaker.state = State::Closed;
        bench.breaker.closed_at = now;
        bench.breaker.level = 3;
        let open = bench.open_for(now + Duration::from_secs(1300));
        assert!((8.0..=12.0).contains(&open), "two of three forgiven: {open}");
    }

    #[test]
    fn a_retry_after_of_a_503_floors_the_open_time() {
        let mut bench = Bench::new(5);
        let mut last = Shift::Same;
        while last != Shift::Opened {
            last = bench.breaker.fault(false, Some(Duration::from_secs(42)), secs(1.0), &policy(), &mut bench.rng).1;
        }
        assert_eq!(bench.breaker.due(), Some(secs(43.0)));
    }

    #[test]
    fn two_passes_restore_it_to_5_percent_which_grows_by_2_percent_a_second_until_it_closes() {
        let mut bench = Bench::new(5);
        bench.open_for(secs(1.0));
        assert_eq!(bench.pass(secs(3.0)), Shift::HalfOpened);
        assert_eq!(bench.pass(secs(4.0)), Shift::Restoring);
        let State::Restoring(ramp) = bench.breaker.state() else { panic!("not restoring") };
        assert!((ramp.share(secs(4.0)) - 0.05).abs() < 1e-9 && (ramp.share(secs(14.0)) - 0.25).abs() < 1e-9);
        assert_eq!(bench.breaker.advance(secs(51.0)), Shift::Same);
        assert_eq!(bench.breaker.advance(secs(51.6)), Shift::Closed);
    }

    #[test]
    fn failures_while_restoring_halve_the_share_and_two_close_together_open_it_again() {
        let mut bench = Bench::new(5);
        bench.open_for(secs(1.0));
        let _ = (bench.pass(secs(3.0)), bench.pass(secs(4.0)));
        for _ in 0..15 {
            bench.breaker.draw(0.0, secs(20.0));
            let _ = bench.pass(secs(20.0));
        }
        assert_eq!(bench.fault(secs(20.0)), Shift::Same);
        let State::Restoring(ramp) = bench.breaker.state() else { panic!("not restoring") };
        assert!((ramp.share(secs(20.0)) - 0.185).abs() < 1e-9, "{}", ramp.share(secs(20.0)));
        let openings = (0..4).filter(|_| bench.fault(secs(21.0)) == Shift::Opened).count();
        assert_eq!(openings, 1);
    }

    #[test]
    fn a_target_that_often_fooled_us_must_pass_more_trials() {
        let mut bench = Bench::new(5);
        let mut now = secs(1.0);
        for _ in 0..5 {
            bench.open_for(now);
            now = bench.breaker.due().unwrap();
            assert_eq!(bench.breaker.advance(now), Shift::HalfOpened);
        }
        let passes = (1..20).find(|_| bench.pass(now) == Shift::Restoring);
        assert_eq!(passes, Some(5));
    }

    #[test]
    fn evidence_that_is_taken_back_leaves_nothing_and_an_opening_made_of_it_is_tried_at_once() {
        let mut bench = Bench::new(5);
        let receipts: Vec<_> =
            (0..4).map(|_| bench.breaker.fault(false, None, secs(1.0), &policy(), &mut bench.rng).0).collect();
        assert!(!bench.breaker.serving());
        let shifts: Vec<_> =
            receipts.into_iter().map(|receipt| bench.breaker.take_back(receipt, secs(2.0), &policy())).collect();
        assert!(shifts.contains(&Shift::HalfOpened));
        assert!(bench.breaker.evidence(secs(2.0)) < 0.1);
    }

    #[test]
    fn a_permit_returns_after_its_deadline_though_its_holder_hangs() {
        let mut breaker = Breaker::default();
        breaker.take_permit(CallId(1), secs(10.0));
        assert!(!breaker.permit_free(secs(9.0)));
        assert!(breaker.permit_free(secs(10.0)));
        breaker.take_permit(CallId(2), secs(20.0));
        assert!(!breaker.return_permit(CallId(1)), "the late first holder cannot free the second's");
        assert!(!breaker.permit_free(secs(11.0)));
    }
}
