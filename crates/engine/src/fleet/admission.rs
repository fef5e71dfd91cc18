//! How many calls are in the process, and which of them wait for a target.

use super::{BoundRoute, Fleet};
use crate::call::CallId;
use outlast_model::Mono;
use std::time::Duration;

/// Parked calls let through at once, and again every [`WAKE_EVERY`], when a target recovers: a hundred a second, so that
/// the waiting do not trample what has just stood up.
const WAKE_BATCH: usize = 10;
const WAKE_EVERY: Duration = Duration::from_millis(100);
/// The least time between two trickled calls to a target whose breaker is open, so that fast failures stay a trickle.
const TRICKLE_EVERY: Duration = Duration::from_secs(1);
/// A shed call is told to come back after one to two seconds.
const SHED_FOR: Duration = Duration::from_secs(1);

/// The calls in the process.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    in_flight: u32,
    next_ticket: u64,
}

impl Fleet {
    /// Lets a call in, or says after what time it may come again.
    pub(crate) fn admit(&mut self) -> Result<(), Duration> {
        if self.admission.in_flight >= self.policy.max_in_flight {
            return Err(SHED_FOR.mul_f64(1.0 + self.rng.f64()));
        }
        self.admission.in_flight += 1;
        Ok(())
    }

    /// So many calls are in flight that none is to be asked twice: four in five of those there is room for.
    pub(crate) fn crowded(&self) -> bool {
        u64::from(self.admission.in_flight) * 5 > u64::from(self.policy.max_in_flight) * 4
    }

    /// An admitted call is settled.
    pub(crate) fn leave(&mut self) {
        self.admission.in_flight -= 1;
    }

    /// Puts a call in line for these targets. Answers its ticket.
    pub(crate) fn park(&mut self, call: CallId, targets: impl Iterator<Item = usize>) -> u64 {
        let ticket = self.admission.next_ticket;
        self.admission.next_ticket += 1;
        targets.for_each(|ix| {
            self.targets[ix].parked.insert(ticket, call);
        });
        ticket
    }

    pub(crate) fn unpark(&mut self, ticket: u64, targets: impl Iterator<Item = usize>) {
        targets.for_each(|ix| {
            self.targets[ix].parked.remove(&ticket);
        });
    }

    /// A trickled call came back and the breaker is still open: the next one waits a moment.
    pub(crate) fn trickle_again(&mut self, ix: usize, now: Mono) {
        self.targets[ix].wake_at = now + TRICKLE_EVERY;
        self.schedule(now + TRICKLE_EVERY);
    }

    /// Whether an open target may be given a call for want of anything better.
    pub(crate) fn trickle_free(&self, ix: usize, now: Mono) -> bool {
        let target = &self.targets[ix];
        target.breaker.permit_free(now) && (target.wake_at == Mono::FAR || target.wake_at <= now)
    }

    /// Wakes those in line: all of them batch by batch while the target serves, one while it does not.
    pub(crate) fn wake_parked(&mut self, ix: usize, now: Mono) {
        let target = &mut self.targets[ix];
        let batch = if target.breaker.serving() { WAKE_BATCH } else { 1 };
        for _ in 0..batch {
            let Some((_, call)) = target.parked.pop_first() else { break };
            self.actions.push_back(super::FleetAction::Wake(call));
        }
        if target.breaker.serving() && !target.parked.is_empty() {
            target.wake_at = now + WAKE_EVERY;
            self.schedule(now + WAKE_EVERY);
        } else {
            target.wake_at = Mono::FAR;
        }
    }

    /// Whether some target of the route could be asked now: its breaker serves, or waits for a live call to try it, one of
    /// its keys may be used, and nobody denies it. A queued request is worth trying then.
    pub fn ready(&self, route: &BoundRoute, now: Mono) -> bool {
        route.bound().iter().any(|place| self.askable(place.ix, now))
    }

    fn askable(&self, ix: usize, now: Mono) -> bool {
        let target = self.target(ix);
        let keys = &self.providers[target.provider].keys;
        let usable = |key: usize| keys.get(key).is_none_or(|state| state.usable(target.spec.probes, now));
        let mut limiters = target.limiters.iter().enumerate();
        let key_free = limiters.any(|(key, limiter)| usable(key) && limiter.scheduled_at() <= now);
        let open = target.breaker.serving() || target.wants_live_trial(now);
        !target.retired && open && target.denied_until <= now && key_free
    }
}
