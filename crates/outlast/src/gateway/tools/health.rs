//! Whether a tool is worth asking: a breaker of its own for each.
//!
//! Consecutive faults open it: attempts that surely failed at the tool (it could not be reached, it answered with a 5xx
//! or not at all) and answers that took most of the timeout. A refusal of the request, a 4xx or a 429, is none. Open, it
//! is not asked; after a pause, which doubles with every failed try, one attempt tries it, and its answer closes it or
//! opens it again. The state is this process's own and survives a reload.

use crate::telemetry::ToolState;
use outlast_model::{Mono, ToolName};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Faults in a row that open a breaker. Few, since each of them keeps somebody waiting, and more than one call's usual
/// tries, so that one bad request does not take a tool away from all others.
const FAULTS_MAX: u32 = 5;
/// The first pause; it doubles.
const PAUSE: Duration = Duration::from_secs(5);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// An answer that took more of its timeout than this counts as a fault.
const SLOW: f64 = 0.9;

/// Every tool's breaker.
pub(super) struct Health {
    breakers: Mutex<BTreeMap<ToolName, Breaker>>,
    seed: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Breaker {
    /// Faults in a row.
    faults: u32,
    /// Times it opened without an answer between.
    trips: u32,
    /// Not asked before.
    open_until: Option<Mono>,
    /// One attempt tries it, and may for so long.
    trying_until: Option<Mono>,
}

/// How an attempt speaks for a tool's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// It answered.
    Answered,
    /// It is at fault.
    Fault,
    /// Says nothing about it.
    Nothing,
}

impl Sign {
    /// An answer that took so long of what it may.
    pub(super) fn answered(took: Duration, timeout: Duration) -> Self {
        if took >= timeout.mul_f64(SLOW) { Sign::Fault } else { Sign::Answered }
    }
}

impl Health {
    pub(super) fn new(seed: u64) -> Self {
        Health { breakers: Mutex::default(), seed }
    }

    /// Whether it may be asked now; else after how long. Says yes to one attempt of a pause that is over, which has
    /// `timeout` to tell with [`Health::note`].
    pub(super) fn admit(&self, tool: &ToolName, timeout: Duration, now: Mono) -> Result<(), Duration> {
        let mut breakers = self.lock();
        let Some(breaker) = breakers.get_mut(tool) else { return Ok(()) };
        let closed = breaker.closed_in(now)?;
        if !closed {
            breaker.trying_until = Some(now + timeout);
        }
        Ok(())
    }

    /// As [`Health::admit`], without taking the try.
    pub(super) fn is_open(&self, tool: &ToolName, now: Mono) -> Option<Duration> {
        self.lock().get(tool)?.closed_in(now).err()
    }

    /// What an attempt came to. For how long the breaker opened, if it was this that opened it.
    pub(super) fn note(&self, tool: &ToolName, sign: Sign, now: Mono) -> Option<Duration> {
        let mut breakers = self.lock();
        match sign {
            Sign::Answered => {
                breakers.remove(tool);
            }
            Sign::Nothing => {
                if let Some(breaker) = breakers.get_mut(tool) {
                    breaker.trying_until = None;
                }
            }
            Sign::Fault => {
                let breaker = breakers.entry(tool.clone()).or_default();
                breaker.faults += 1;
                breaker.trying_until = None;
                // What was on its way when it opened says nothing new.
                let is_open = breaker.open_until.is_some_and(|until| until > now);
                if breaker.faults >= FAULTS_MAX && !is_open {
                    let pause = pause(breaker.trips, self.seed);
                    breaker.open_until = Some(now + pause);
                    breaker.trips += 1;
                    return Some(pause);
                }
            }
        }
        None
    }

    /// For the metrics.
    pub(super) fn state(&self, tool: &ToolName, now: Mono) -> ToolState {
        match self.lock().get(tool) {
            None | Some(Breaker { open_until: None, .. }) => ToolState::Closed,
            Some(Breaker { open_until: Some(until), .. }) if *until > now => ToolState::Open,
            Some(_) => ToolState::HalfOpen,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ToolName, Breaker>> {
        self.breakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Breaker {
    /// Whether it is closed, or open and due for a try; else how long not.
    fn closed_in(&self, now: Mono) -> Result<bool, Duration> {
        let Some(open) = self.open_until else { return Ok(true) };
        let until = self.trying_until.map_or(open, |trying| trying.max(open));
        if until > now { Err(until.since(now)) } else { Ok(false) }
    }
}

/// Up to a quarter longer than its step, so that processes that saw the same outage do not come back together.
fn pause(trips: u32, seed: u64) -> Duration {
    let step = PAUSE.saturating_mul(1 << trips.min(8)).min(PAUSE_MAX);
    step.mul_f64(1.0 + (seed % 1000) as f64 / 4000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);

    fn at(secs: u64) -> Mono {
        Mono::from_millis(secs * 1000)
    }

    #[test]
    fn faults_in_a_row_open_it_and_one_answer_between_them_does_not() {
        let health = Health::new(0);
        let tool = ToolName::new("t");
        for _ in 0..FAULTS_MAX - 1 {
            health.note(&tool, Sign::Fault, at(0));
        }
        health.note(&tool, Sign::Answered, at(0));
        for _ in 0..FAULTS_MAX - 1 {
            health.note(&tool, Sign::Fault, at(0));
        }
        assert_eq!(health.admit(&tool, TIMEOUT, at(0)), Ok(()));
        assert_eq!(health.note(&tool, Sign::Fault, at(0)), Some(PAUSE));
        assert_eq!(health.admit(&tool, TIMEOUT, at(1)), Err(Duration::from_secs(4)));
        assert_eq!(health.state(&tool, at(1)), ToolState::Open);
    }

    #[test]
    fn after_the_pause_one_attempt_tries_it_and_its_end_decides() {
        let health = Health::new(0);
        let tool = ToolName::new("t");
        let opened: Vec<_> = (0..FAULTS_MAX).filter_map(|_| health.note(&tool, Sign::Fault, at(0))).collect();
        assert_eq!(opened, [PAUSE]);
        assert_eq!(health.admit(&tool, TIMEOUT, at(5)), Ok(()), "one tries");
        assert!(health.admit(&tool, TIMEOUT, at(5)).is_err(), "and only one");
        health.note(&tool, Sign::Fault, at(5));
        assert_eq!(health.is_open(&tool, at(5)), Some(Duration::from_secs(10)), "the pause doubles");
        assert_eq!(health.admit(&tool, TIMEOUT, at(15)), Ok(()));
        assert_eq!(health.admit(&tool, TIMEOUT, at(17)), Ok(()), "a try that never told is not waited for");
        health.note(&tool, Sign::Answered, at(17));
        assert_eq!((health.is_open(&tool, at(17)), health.state(&tool, at(17))), (None, ToolState::Closed));
    }

    #[test]
    fn a_slow_answer_is_a_fault() {
        assert_eq!(Sign::answered(Duration::from_millis(950), TIMEOUT), Sign::Fault);
        assert_eq!(Sign::answered(Duration::from_millis(500), TIMEOUT), Sign::Answered);
    }
}
