//! What is counted in one run, of the engine and of the oracle beside it.

use super::{
    capacity,
    model::Question,
    report::{Golden, Run, quantile},
    scenario::{Asked, Foretold, ONSET, Scenario},
    world::FRAME,
};
use outlast_engine::{Alert, Settlement};
use outlast_model::Mono;
use std::time::Duration;

/// Sizes by which the oracle knows when a silent call is overdue, as the engine does.
const SIZES: [u32; 4] = [1_000, 4_000, 16_000, u32::MAX];

pub(super) struct Tally {
    scenario: Scenario,
    seed: u64,
    requests: u64,
    since_onset: u64,
    answered: u64,
    upstream: u64,
    /// Times to first token of the answered, in seconds.
    firsts: Vec<f32>,
    wasted_nanos: u64,
    /// Of the answers, those that are as good as they look.
    right: u64,
    /// Attempts of A in the fault until its breaker opened; where golden tasks have to tell, those.
    asked_until_open: u64,
    /// Golden tasks of targets that are as good as ever...
    well: u64,
    /// ...and alarms about such targets.
    false_alarms: u64,
    opened: Option<Mono>,
    /// The last time A's breaker closed, after the fault.
    closed: Option<Mono>,
    /// The arrival of the last request lost after the fault.
    last_lost: Option<Mono>,
    oracle_firsts: Vec<f32>,
    oracle_upstream: u64,
    oracle_right: u64,
    /// Healthy times to first token before the onset, by size.
    seen: [Vec<f32>; SIZES.len()],
    overdue: Option<[Duration; SIZES.len()]>,
    arrivals: Vec<Mono>,
    hash: u64,
}

impl Tally {
    pub(super) fn new(scenario: Scenario, seed: u64) -> Self {
        Tally {
            scenario,
            seed,
            requests: 0,
            since_onset: 0,
            answered: 0,
            upstream: 0,
            firsts: Vec::new(),
            wasted_nanos: 0,
            right: 0,
            asked_until_open: 0,
            well: 0,
            false_alarms: 0,
            opened: None,
            closed: None,
            last_lost: None,
            oracle_firsts: Vec::new(),
            oracle_upstream: 0,
            oracle_right: 0,
            seen: Default::default(),
            overdue: None,
            arrivals: Vec::new(),
            hash: FRAME,
        }
    }

    /// A request comes; the oracle answers it on the spot.
    pub(super) fn arrived(&mut self, number: u64, question: Question, now: Mono) {
        self.requests += 1;
        if self.scenario == Scenario::CapacityDip {
            self.arrivals.push(now);
            return;
        }
        let size = SIZES.iter().position(|limit| question.input_tokens < *limit).unwrap_or(SIZES.len() - 1);
        let overdue = self.overdue(now)[size];
        let asked = Asked { request: number, question, now };
        let Foretold { first, calls, right } = self.scenario.oracle(asked, self.since_onset, self.seed, overdue);
        if now < ONSET {
            self.seen[size].push(first.as_secs_f32());
        } else {
            self.since_onset += 1;
        }
        self.oracle_firsts.push(first.as_secs_f32());
        self.oracle_upstream += u64::from(calls);
        self.oracle_right += u64::from(right);
    }

    /// Until when even the oracle waits on a silent target: three times the p99 it saw before the onset, 4 to 30 s.
    fn overdue(&mut self, now: Mono) -> [Duration; SIZES.len()] {
        const UNKNOWN: [Duration; SIZES.len()] = [Duration::from_secs(12); SIZES.len()];
        if now < ONSET {
            return UNKNOWN;
        }
        let seen = &mut self.seen;
        *self.overdue.get_or_insert_with(|| {
            let mut limits = UNKNOWN;
            for (limit, seen) in limits.iter_mut().zip(seen) {
                if seen.len() >= 20 {
                    *limit = Duration::from_secs_f64(3.0 * quantile(seen, 0.99))
                        .clamp(Duration::from_secs(4), Duration::from_secs(30));
                }
            }
            limits
        })
    }

    pub(super) fn asked(&mut self, target: usize, now: Mono) {
        self.upstream += 1;
        if self.scenario.golden_every().is_none() {
            self.until_open(target, now);
        }
    }

    fn until_open(&mut self, target: usize, now: Mono) {
        if target == 0 && self.scenario.in_fault(now) && self.opened.is_none() {
            self.asked_until_open += 1;
        }
    }

    /// A target was given a golden task.
    pub(super) fn golden(&mut self, target: usize, now: Mono) {
        self.until_open(target, now);
        self.well += u64::from(target != 0 || !self.scenario.in_fault(now));
    }

    pub(super) fn answered(&mut self, arrived: Mono, first: Mono, right: bool, now: Mono) {
        if now <= arrived + self.scenario.deadline() {
            self.answered += 1;
            self.right += u64::from(right);
            self.firsts.push(first.since(arrived).as_secs_f32());
        } else {
            self.lost(arrived);
        }
    }

    pub(super) fn lost(&mut self, arrived: Mono) {
        if arrived >= ONSET + self.scenario.lasts() {
            self.last_lost = Some(self.last_lost.map_or(arrived, |last| last.max(arrived)));
        }
    }

    pub(super) fn settled(&mut self, settlement: &Settlement, id: u64) {
        self.wasted_nanos += settlement.wasted.as_nanos();
        self.trace(Mono::from_nanos(settlement.latency_us), id);
    }

    pub(super) fn alerted(&mut self, alert: &Alert, now: Mono) {
        match alert {
            Alert::BreakerOpened { target, .. } if target.as_str().starts_with("a/") && now >= ONSET => {
                self.opened.get_or_insert(now);
            }
            Alert::BreakerClosed { target, .. } if target.as_str().starts_with("a/") && now >= ONSET => {
                self.closed = Some(now);
            }
            Alert::QualityDropped { target, .. }
                if target.as_str().starts_with("a/") && self.scenario.in_fault(now) =>
            {
                self.opened.get_or_insert(now);
            }
            Alert::QualityDropped { .. } => self.false_alarms += 1,
            Alert::QualityBack { target, .. } if target.as_str().starts_with("a/") && now >= ONSET => {
                self.closed = Some(now);
            }
            Alert::BreakerOpened { .. }
            | Alert::BreakerClosed { .. }
            | Alert::ProviderSuspect { .. }
            | Alert::KeyOut { .. }
            | Alert::KeyBack { .. }
            | Alert::AccessDenied { .. }
            | Alert::QualityBack { .. } => {}
        }
    }

    /// Mixes a moment into the trace's hash (FNV-1a over words).
    pub(super) fn trace(&mut self, now: Mono, what: u64) {
        for word in [now.as_nanos(), what] {
            self.hash = (self.hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
    }

    pub(super) fn finish(mut self, per_sec: f64) -> Run {
        let requests = self.requests.max(1) as f64;
        if self.scenario == Scenario::CapacityDip {
            let waits = capacity::oracle(self.scenario, self.seed, per_sec, &self.arrivals);
            self.oracle_firsts = waits.iter().map(Duration::as_secs_f32).collect();
            self.oracle_upstream = self.requests;
            self.oracle_right = self.oracle_firsts.len() as u64;
        }
        let healed = ONSET + self.scenario.lasts();
        let since = |from: Mono, moment: Option<Mono>| moment.map(|at| at.since(from).as_secs_f64());
        let recovered = match self.scenario {
            Scenario::CapacityDip => Some(since(healed, self.last_lost).unwrap_or(0.0)),
            Scenario::Refusing
            | Scenario::Hanging
            | Scenario::Quarter
            | Scenario::Tenth
            | Scenario::SilentLoss
            | Scenario::LargeSilentLoss
            | Scenario::Hedging => since(healed, self.closed.filter(|at| *at >= healed)),
        };
        Run {
            scenario: self.scenario,
            title: self.scenario.title(),
            seed: self.seed,
            per_sec,
            requests: self.requests,
            goodput: self.right as f64 / requests,
            goodput_oracle: self.oracle_right as f64 / requests,
            calls: self.upstream as f64 / requests,
            calls_oracle: self.oracle_upstream as f64 / requests,
            first_p50_secs: quantile(&mut self.firsts, 0.5),
            first_p99_secs: quantile(&mut self.firsts, 0.99),
            first_p99_oracle_secs: quantile(&mut self.oracle_firsts, 0.99),
            wasted_usd: self.wasted_nanos as f64 / 1e9,
            detected_secs: since(ONSET, self.opened),
            detected_calls: self.opened.map(|_| self.asked_until_open),
            recovered_secs: recovered,
            golden: self.scenario.golden_every().map(|_| Golden { well: self.well, false_alarms: self.false_alarms }),
            trace: format!("{:016x}", self.hash),
            firsts: [self.firsts, self.oracle_firsts],
        }
    }
}
