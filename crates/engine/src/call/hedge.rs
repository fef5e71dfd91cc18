//! Racing: an exchange whose first output is later than nineteen in twenty of its target's gets a rival.
//!
//! Off unless the tier says so. The rival is another target, of another provider if possible, that would answer no worse,
//! and is well: hedging must not push a target over. Who speaks first wins, and the other is closed at once; of replies
//! that are not streamed, the first complete one wins. While both run neither's failure is the call's. What it adds is
//! bounded by a share of the route's calls, by the retry budget of the target that is slow, by the tier's attempts and by
//! the money, which is reserved for both.
//!
//! Of the two exchanges one is *in hand*, `flight`, and the other waits as `rival`: an event of the other's changes hands
//! first.

use super::{
    Call, Stage,
    attempt::{Flight, Step, micros},
};
use crate::fleet::Fleet;
use outlast_model::{
    Failure, FailureReport, Mono,
    failure::Then,
    record::{AttemptReason, Decision},
};
use std::time::Duration;

/// Nobody feels a shorter wait.
const LEAST: Duration = Duration::from_millis(50);

impl Call {
    /// When the first attempt on this target is to be raced; never, if it may not be.
    pub(super) fn hedge_at(&self, ix: usize, fleet: &Fleet, now: Mono) -> Mono {
        // What the provider itself does in the world would be done twice.
        if self.route.route().tier.hedge.is_none() || self.needs.provider_effects || !self.attempts.is_empty() {
            return Mono::FAR;
        }
        let known = fleet.target(ix).latency(&self.needs).known_p95(self.needs.input_tokens);
        known.map_or(Mono::FAR, |p95| now + p95.max(LEAST))
    }

    /// The attempts in flight.
    pub(super) fn racing(&self) -> [Option<u8>; 2] {
        [self.flight.as_ref(), self.rival.as_deref()].map(|flight| flight.map(|flight| flight.attempt))
    }

    /// Takes the exchange of this attempt in hand. False: it is not in flight.
    pub(super) fn take_up(&mut self, attempt: u8) -> bool {
        if self.rival.as_ref().is_some_and(|rival| rival.attempt == attempt)
            && let (Some(flight), Some(rival)) = (&mut self.flight, &mut self.rival)
        {
            std::mem::swap(flight, rival);
        }
        self.flight.as_ref().is_some_and(|flight| flight.attempt == attempt)
    }

    /// Something is due for each exchange in flight, as long as it is.
    pub(super) fn for_each_flight(&mut self, mut act: impl FnMut(&mut Call)) {
        for attempt in self.racing().into_iter().flatten() {
            if self.stage == Stage::Live && self.take_up(attempt) {
                act(self);
            }
        }
    }

    /// The first output of the exchange in hand is late: somebody else is asked beside it, if anybody may be. It has this
    /// one chance.
    pub(super) fn hedge(&mut self, fleet: &mut Fleet, now: Mono) {
        let Some(flight) = self.flight.as_mut().filter(|flight| now >= flight.hedge_at) else { return };
        flight.hedge_at = Mono::FAR;
        let from = flight.at;
        if flight.first_output.is_some() || self.attempts_spent() || fleet.crowded() {
            return;
        }
        let Some(at) = self.rival_of(from, fleet, now) else { return };
        if fleet.spend_hedge(&self.route, self.candidates[from].place.budget, now) {
            self.rival = self.flight.take().map(Box::new);
            self.start(Step { at, reason: AttemptReason::Hedge, trial: false, mend: None }, fleet, now);
        }
    }

    /// The exchange in hand has spoken: the other one has lost.
    pub(super) fn win(&mut self, fleet: &mut Fleet, now: Mono) {
        if let Some(loser) = self.rival.take() {
            fleet.outrun(loser.ix, &self.needs, now.since(loser.started), now);
            self.retire(&loser, fleet, now);
        }
    }

    fn retire(&mut self, loser: &Flight, fleet: &mut Fleet, now: Mono) {
        self.abort(loser.attempt);
        fleet.end(loser.ix, self.id, false, now);
        let record = &mut self.attempts[usize::from(loser.attempt)];
        record.took_us = micros(now.since(loser.started));
        record.decision = Decision::Outrun;
    }

    /// The exchange in hand failed while another one runs: that is then the call's. False: there is none, or no other
    /// target could change it.
    pub(super) fn run_on(&mut self, fleet: &mut Fleet, report: &FailureReport, now: Mono) -> bool {
        if self.rival.is_none() {
            return false;
        }
        if is_final(report.failure) {
            self.win(fleet, now);
            return false;
        }
        self.close_attempt(fleet, report.clone(), Decision::Reroute, now);
        true
    }
}

/// The client's own doing or a policy reason: racing on would be a way round it.
fn is_final(failure: Failure) -> bool {
    match failure.remedy().then {
        Then::ReturnReason | Then::Backstop | Then::Settle => true,
        Then::Reroute
        | Then::RerouteLarger
        | Then::RerouteStructured
        | Then::RerouteTools
        | Then::IfContractAllows
        | Then::StreamContract => false,
    }
}
