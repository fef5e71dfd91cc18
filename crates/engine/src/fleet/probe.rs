//! When the fleet itself asks a target for one token: idle targets, suspects, and the half-open.
//!
//! Traffic replaces probes: a healthy target is probed only when nobody has heard of it for a while. An open target is
//! probed at the suspects' pace however long its breaker stays open for live calls, and again half a second after a
//! success, so that it is back within seconds of healing. One probe per target is in flight at most.

use super::{
    Fleet, FleetAction, TargetIx,
    breaker::State,
    target::{KEY_TRIAL, KeyState},
};
use outlast_model::{
    Failure, FailureReport, Mono,
    failure::{Blame, Deadline},
};
use std::time::Duration;

/// After a passed trial, the next one follows soon.
const AFTER_PASS: Duration = Duration::from_millis(500);
/// What the host gets beyond the probe's own time limit before the probe is written off.
const GRACE: Duration = Duration::from_secs(5);
/// Evidence from which a target that still serves is suspect: about one fault.
const SUSPECT_FROM: f64 = 2.0;

/// The probes of one target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probing {
    /// Not before then.
    pub(crate) at: Mono,
    /// When anybody last heard of the target.
    pub(crate) heard: Mono,
    flying: Option<Flying>,
}

#[derive(Clone, Copy, Debug)]
struct Flying {
    key: u8,
    sent: Mono,
    deadline: Mono,
}

impl Probing {
    pub(crate) fn first(at: Mono, now: Mono) -> Self {
        Probing { at, heard: now, flying: None }
    }

    fn deadline(&self) -> Option<Mono> {
        self.flying.map(|flying| flying.deadline)
    }
}

impl Fleet {
    /// Spreads a period by a fifth either way.
    pub(crate) fn spread(&mut self, period: Duration) -> Duration {
        period.mul_f64(0.8 + 0.4 * self.rng.f64())
    }

    /// Brings the next probe of a target forward to `at`.
    pub(crate) fn probe_by(&mut self, ix: usize, at: Mono) {
        let target = &mut self.targets[ix];
        if target.spec.probes {
            target.probing.at = target.probing.at.min(at);
            self.schedule(at);
        }
    }

    /// The suspects' pace, from now on.
    pub(crate) fn probe_as_suspect(&mut self, ix: usize, now: Mono) {
        let period = self.spread(self.policy.probe_suspect);
        self.probe_by(ix, now + period);
    }

    /// Writes off and sends what is due for one target.
    pub(crate) fn tick_probes(&mut self, ix: usize, now: Mono) {
        let target = &self.targets[ix];
        if !target.spec.probes || target.retired {
            return;
        }
        if target.probing.deadline().is_some_and(|deadline| deadline <= now) {
            let report = FailureReport::of(Failure::Timeout(Deadline::FirstToken));
            self.probed(ix, None, Err(report), now);
        }
        if self.targets[ix].probing.flying.is_some() || self.targets[ix].probing.at > now {
            return;
        }
        match self.probe_wanted(ix, now) {
            Ok(key) => self.send_probe(ix, key, now),
            Err(later) => self.targets[ix].probing.at = later,
        }
    }

    /// With which key a probe is to be sent now, or when to look again.
    fn probe_wanted(&mut self, ix: usize, now: Mono) -> Result<u8, Mono> {
        let suspect_period = self.spread(self.policy.probe_suspect);
        let idle_period = self.spread(self.policy.probe_idle);
        if let Some(key) = self.key_to_try(ix, now) {
            return Ok(key);
        }
        let target = &mut self.targets[ix];
        if target.denied_until > now {
            return Err(target.denied_until);
        }
        if target.breaker.serving() {
            let suspect = target.breaker.evidence(now) >= SUSPECT_FROM;
            let due = target.probing.heard + if suspect { suspect_period } else { idle_period };
            if due > now {
                return Err(due);
            }
        }
        self.pick_key(ix, 0, now).map_err(|unready| match unready {
            super::Unready::Limited(at) => at.max(now + AFTER_PASS),
            super::Unready::NoKey => now + suspect_period,
        })
    }

    /// A key of its provider that has been out long enough to be tried again.
    fn key_to_try(&self, ix: usize, now: Mono) -> Option<u8> {
        let target = &self.targets[ix];
        let keys = &self.providers[target.provider].keys;
        let ripe = keys.iter().take(target.limiters.len()).position(|key| match key {
            KeyState::Good => false,
            KeyState::Out { until, .. } => *until <= now,
        })?;
        u8::try_from(ripe).ok()
    }

    fn send_probe(&mut self, ix: usize, key: u8, now: Mono) {
        let idle_period = self.spread(self.policy.probe_idle);
        let target = &mut self.targets[ix];
        let timeout = target.first_output.overdue_after(0);
        let deadline = now + timeout + GRACE;
        target.probing.flying = Some(Flying { key, sent: now, deadline });
        target.probing.at = now + idle_period;
        target.counts.probes += 1;
        target.limiters[usize::from(key)].sent(now);
        if let Some(KeyState::Out { until, .. }) = self.providers[target.provider].keys.get_mut(usize::from(key)) {
            *until = now + KEY_TRIAL;
        }
        let target_id = target.spec.id.clone();
        self.schedule(deadline);
        self.actions.push_back(FleetAction::Probe { target: TargetIx::of(ix), target_id, key, timeout });
    }

    /// A probe came back. `key`: as the host says; `None` when it was written off. An answer to a probe that was
    /// written off already is ignored.
    pub(crate) fn probed(&mut self, ix: usize, key: Option<u8>, result: Result<Duration, FailureReport>, now: Mono) {
        let Some(flying) = self.targets.get(ix).and_then(|target| target.probing.flying) else { return };
        if key.is_some_and(|key| key != flying.key) {
            return;
        }
        self.targets[ix].probing.flying = None;
        match result {
            Ok(first_output) => {
                self.judge_speed(ix, None, first_output, now);
                self.probe_passed(ix, flying, now);
            }
            Err(report) => self.probe_failed(ix, flying, &report, now),
        }
    }

    fn probe_failed(&mut self, ix: usize, flying: Flying, report: &FailureReport, now: Mono) {
        let silent = matches!(report.failure, Failure::Timeout(_));
        match report.failure.remedy().blame {
            // Shutting down says nothing about the target.
            Blame::None if report.failure == Failure::Cancelled => self.probe_as_suspect(ix, now),
            // It answered: what it thinks of our one-token question says nothing about its health.
            Blame::None | Blame::Quality if !silent => self.probe_passed(ix, flying, now),
            Blame::Fault | Blame::None | Blame::Quality => {
                let trial = !self.targets[ix].breaker.serving();
                self.fault(ix, trial, report.failure, report.retry_after, now);
                if trial {
                    self.probe_as_suspect(ix, now);
                }
            }
            Blame::Schedule => {
                self.rate_limited(ix, flying.key, flying.sent, report.retry_after, now);
                self.probe_as_suspect(ix, now);
            }
            Blame::KeyOut => self.key_out(ix, flying.key, report.failure, flying.sent, now),
            Blame::TargetOut => self.deny(ix, now),
        }
    }

    fn probe_passed(&mut self, ix: usize, flying: Flying, now: Mono) {
        let trial = !self.targets[ix].breaker.serving();
        self.key_passed(ix, flying.key, flying.sent, now);
        self.success(ix, trial, now);
    }

    /// When one target's probes next need a tick.
    pub(crate) fn probe_due(&self, ix: usize) -> Option<Mono> {
        let target = &self.targets[ix];
        if !target.spec.probes || target.retired {
            return None;
        }
        target.probing.deadline().or(Some(target.probing.at))
    }

    /// What a shift of the breaker means for its probes.
    pub(crate) fn probe_after_shift(&mut self, ix: usize, now: Mono) {
        match self.targets[ix].breaker.state() {
            State::Open { until } => {
                // A Retry-After floor is respected by probes too; the doubling is for live calls only.
                let period = self.spread(self.policy.probe_suspect);
                let at = (now + period).min(until).max(self.targets[ix].breaker.asked_until());
                self.targets[ix].probing.at = Mono::FAR;
                self.probe_by(ix, at);
            }
            State::HalfOpen if self.targets[ix].breaker.passed() > 0 => self.probe_by(ix, now + AFTER_PASS),
            State::HalfOpen => self.probe_by(ix, now),
            State::Closed | State::Restoring(_) => self.probe_as_suspect(ix, now),
        }
    }
}
