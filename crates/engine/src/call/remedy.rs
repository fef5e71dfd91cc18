//! What a failed attempt leads to: mend, another target, the same one, a wait, a person, or the end.

use super::{
    Call, Stage, Then as AfterWait, Wait,
    attempt::{Step, micros},
    plan::{Choice, Want},
    validate::Broken,
};
use crate::{
    backoff,
    budget::Price,
    fleet::{Fleet, Standing},
};
use outlast_model::{
    Failure, FailureReport, Mend, Mono,
    failure::{Blame, ConnectionFault, Deadline, SameTarget, Then},
    policy::{AfterRepair, RefusalPolicy, SafetyPolicy},
    record::{AttemptReason, Decision},
};
use std::time::Duration;

/// A wait no longer than this is short enough to retry the same target though another could be asked...
const SHORT_WAIT: Duration = Duration::from_secs(2);
/// ...if it is also no more than so much of what is left of the deadline.
const SHORT_PART: u32 = 10;
/// With nobody else to ask: a longer wait, of no more than so much of what is left.
const LONG_WAIT: Duration = Duration::from_secs(30);
const LONG_PART: u32 = 4;
/// Less evidence than this before the failure: the target was blameless.
const BLAMELESS_BELOW: f64 = 0.5;

/// What a failure leads to.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// The same target is asked to mend its reply.
    Mend,
    /// A candidate, now.
    Move { at: usize, trial: Option<AttemptReason> },
    /// The same one, after a wait.
    Repeat(Duration),
    /// Whoever can be asked later.
    Wait(Mono),
    /// The client sees this failure.
    Return,
    /// The client has seen output: it sees this failure at its end.
    Interrupt,
    /// A person sees it, where the route has one.
    Review,
    /// The client sees this failure, though other paths may be left.
    Stop,
    /// No path is left.
    GiveUp,
}

impl Call {
    /// The exchange in flight failed, or its reply did: evidence, the record, and what comes next.
    pub(super) fn attempt_failed(&mut self, fleet: &mut Fleet, report: FailureReport, broken: Broken, now: Mono) {
        let Some(flight) = &self.flight else { return };
        let (at, ix) = (flight.at, flight.ix);
        let answered = self.stage == Stage::Checking;
        let blameless = fleet.target(ix).breaker.evidence(now) < BLAMELESS_BELOW;
        self.give_evidence(fleet, &report, answered, now);
        self.exclude(fleet, at, &report);
        if self.run_on(fleet, &report, now) {
            return;
        }
        let next =
            if self.committed { Next::Interrupt } else { self.next_after(fleet, at, &report, broken, blameless, now) };
        self.follow(fleet, at, next, report, broken, now);
    }

    /// Takes the candidate, or only its key, out of this call's choice, and learns what to look for in the next one.
    fn exclude(&mut self, fleet: &Fleet, at: usize, report: &FailureReport) {
        let Some(flight) = &self.flight else { return };
        let (ix, key, output_limit) = (flight.ix, flight.key, flight.output_limit);
        let remedy = report.failure.remedy();
        let candidate = &mut self.candidates[at];
        candidate.tried = true;
        match remedy.blame {
            Blame::Schedule | Blame::KeyOut => {
                // Another key of the same provider comes before another target, if it may be used.
                candidate.used_keys |= 1 << key;
                candidate.tried = false;
            }
            Blame::None | Blame::Fault | Blame::TargetOut | Blame::Quality => {}
        }
        if provider_wide(report.failure) {
            let provider = candidate.provider;
            self.shunned.push(provider);
        }
        match remedy.then {
            Then::RerouteLarger if candidate.shorten_to.is_none() => {
                candidate.exceeded = true;
                let window = fleet.target(ix).spec.context_window;
                self.larger_than = self.larger_than.max(window.unwrap_or(self.needs.input_tokens));
            }
            Then::RerouteStructured => self.want = Some(Want::Structured),
            Then::RerouteTools => {
                self.want = Some(Want::Tools);
                self.lower_tool_mode(at);
            }
            Then::Reroute
            | Then::RerouteLarger
            | Then::IfContractAllows
            | Then::ReturnReason
            | Then::StreamContract
            | Then::Backstop
            | Then::Settle => {}
        }
        if report.failure == Failure::CostSpike {
            self.want = Some(Want::Cheap);
        }
        if let (Failure::Truncated, Some(limit)) = (report.failure, output_limit) {
            self.longer_than = self.longer_than.max(limit);
        }
    }

    /// The same target may be asked once more in the policy's lesser mode, after those that can do more.
    fn lower_tool_mode(&mut self, at: usize) {
        let Some(policy) = &self.route.route().contract.tools else { return };
        let candidate = &mut self.candidates[at];
        if self.needs.tools && policy.fallback > candidate.mode {
            candidate.mode = policy.fallback;
            candidate.tried = false;
            candidate.again = true;
        }
    }

    fn next_after(
        &mut self,
        fleet: &mut Fleet,
        at: usize,
        report: &FailureReport,
        broken: Broken,
        blameless: bool,
        now: Mono,
    ) -> Next {
        let contract = self.route.route().contract.clone();
        match report.failure.remedy().then {
            Then::ReturnReason => match contract.safety {
                SafetyPolicy::Review if report.failure == Failure::SafetyBlock => Next::Review,
                SafetyPolicy::Review | SafetyPolicy::Return => Next::Return,
            },
            Then::IfContractAllows => match contract.refusal {
                RefusalPolicy::Deliver => Next::Return,
                RefusalPolicy::Review => Next::Review,
                RefusalPolicy::Reroute => self.way_on(fleet, at, report, blameless, now),
            },
            Then::Backstop | Then::Settle => Next::GiveUp,
            Then::Reroute
            | Then::RerouteLarger
            | Then::RerouteStructured
            | Then::RerouteTools
            | Then::StreamContract => {
                if broken.mendable && self.may_mend(fleet, at, now) {
                    return Next::Mend;
                }
                let mended = self.flight.as_ref().is_some_and(|flight| flight.mends);
                match contract.repair.then {
                    AfterRepair::Review if broken.mendable || mended => Next::Review,
                    AfterRepair::Stop if broken.mendable || mended => Next::Stop,
                    AfterRepair::Reroute | AfterRepair::Review | AfterRepair::Stop => {
                        self.way_on(fleet, at, report, blameless, now)
                    }
                }
            }
        }
    }

    /// Whether the target may be asked to mend its reply: once per call, within every budget, and in time.
    fn may_mend(&mut self, fleet: &mut Fleet, at: usize, now: Mono) -> bool {
        let Some(flight) = &self.flight else { return false };
        if self.mended || !self.route.route().contract.repair.model || self.attempts_spent() {
            return false;
        }
        let output = self.attempts[usize::from(flight.attempt)].usage.output_tokens;
        let candidate = &self.candidates[at];
        let place = candidate.place;
        let known = fleet.target(place.ix).latency(&self.needs).known_p50(self.needs.input_tokens);
        if known.is_some_and(|p50| p50 > now.until(self.deadline)) || self.quote(at, Some(output), fleet).is_err() {
            return false;
        }
        let standing = fleet.standing(place, candidate.used_keys, self.chance, now);
        match standing {
            Standing::Healthy | Standing::Demoted | Standing::Undrawn => {
                fleet.spend(place.budget, Price::SameTarget, now)
            }
            Standing::Trial | Standing::Open | Standing::Limited(_) | Standing::NoKey | Standing::Denied => false,
        }
    }

    pub(super) fn attempts_spent(&self) -> bool {
        self.attempts.len() >= usize::from(self.route.route().tier.attempts)
    }

    /// Who could answer instead.
    fn way_on(&mut self, fleet: &mut Fleet, at: usize, report: &FailureReport, blameless: bool, now: Mono) -> Next {
        if self.attempts_spent() {
            return Next::GiveUp;
        }
        let choice = self.choose(fleet, now);
        if let Some(wait) = self.repeat_after(fleet, at, report, blameless, choice, now) {
            return Next::Repeat(wait);
        }
        match choice {
            Choice::Ask { .. } => self.paid_move(fleet, at, choice, now),
            Choice::Wait(until) if self.patient(until, now) => Next::Wait(until),
            Choice::Wait(_) | Choice::Nobody => {
                if let Some(until) = self.wait_for_schedule(fleet, at, report, now) {
                    return Next::Wait(until);
                }
                if !self.shorten(fleet) {
                    return Next::GiveUp;
                }
                let choice = self.choose(fleet, now);
                self.paid_move(fleet, at, choice, now)
            }
        }
    }

    /// A move is paid for by the target that is left. Leaving an open one is what the plan would have done: free.
    fn paid_move(&mut self, fleet: &mut Fleet, from: usize, choice: Choice, now: Mono) -> Next {
        let Choice::Ask { at, trial } = choice else { return Next::GiveUp };
        let left = self.candidates[from].place;
        let free = at != from && !fleet.target(left.ix).breaker.serving();
        let price = if at == from && self.candidates[at].again { Price::SameTarget } else { Price::Move };
        if free || fleet.spend(left.budget, price, now) { Next::Move { at, trial } } else { Next::GiveUp }
    }

    /// How long to wait before the call's one retry on the same target; `None` when it gets none.
    fn repeat_after(
        &mut self,
        fleet: &mut Fleet,
        at: usize,
        report: &FailureReport,
        blameless: bool,
        choice: Choice,
        now: Mono,
    ) -> Option<Duration> {
        let flight = self.flight.as_ref()?;
        let same_target = report.failure.remedy().same_target;
        let place = self.candidates[at].place;
        // An empty reply is empty whatever came with it; any other is worth no retry once it had begun.
        let had_output = flight.first_output.is_some() && same_target != SameTarget::First;
        let serving = fleet.target(place.ix).breaker.serving();
        if self.repeated || had_output || same_target == SameTarget::Never || !serving {
            return None;
        }
        let alone = !matches!(choice, Choice::Ask { trial: None, .. });
        // It never takes the place of another target that serves.
        let attempts_left = usize::from(self.route.route().tier.attempts) - self.attempts.len();
        if self.others_serving(fleet) >= attempts_left || self.quote(at, None, fleet).is_err() {
            return None;
        }
        let wait = backoff::before_retry(&mut self.rng, 1, report.retry_after);
        let left = now.until(self.deadline);
        let short = wait <= SHORT_WAIT.min(left / SHORT_PART);
        let bearable = wait <= LONG_WAIT.min(left / LONG_PART);
        let worth_it = match same_target {
            SameTarget::Never => false,
            SameTarget::IfAlone => alone && bearable,
            SameTarget::IfLone => (alone && bearable) || (blameless && short),
            SameTarget::First => short,
        };
        (worth_it && fleet.spend(place.budget, Price::SameTarget, now)).then_some(wait)
    }

    /// Nobody else: a 429 whose schedule is over soon is worth the call's one repetition.
    fn wait_for_schedule(&mut self, fleet: &mut Fleet, at: usize, report: &FailureReport, now: Mono) -> Option<Mono> {
        if report.failure.remedy().blame != Blame::Schedule || self.repeated {
            return None;
        }
        let candidate = &mut self.candidates[at];
        (candidate.used_keys, candidate.again) = (0, true);
        match self.choose(fleet, now) {
            Choice::Wait(until) if self.patient(until, now) => Some(until),
            Choice::Wait(_) | Choice::Ask { .. } | Choice::Nobody => None,
        }
    }

    /// Does what was decided.
    fn follow(&mut self, fleet: &mut Fleet, from: usize, next: Next, report: FailureReport, broken: Broken, now: Mono) {
        let Some(attempt) = self.flight.as_ref().map(|flight| flight.attempt) else { return };
        match next {
            Next::Mend => {
                let problems = self.attempts[usize::from(attempt)].problems.clone();
                self.leave_attempt(fleet, attempt, report, broken, Decision::Repair, now);
                let mend = Some(Mend { attempt, problems });
                self.start(Step { at: from, reason: AttemptReason::Repair, trial: false, mend }, fleet, now);
            }
            Next::Move { at, trial } => {
                self.leave_attempt(fleet, attempt, report, broken, Decision::Reroute, now);
                self.start(self.step(at, AttemptReason::Reroute, trial), fleet, now);
            }
            Next::Repeat(wait) => {
                self.candidates[from].tried = false;
                self.repeated = true;
                self.leave_attempt(fleet, attempt, report, broken, Decision::RetrySame, now);
                self.stage = Stage::Waiting(Wait { until: now + wait, then: AfterWait::Repeat(from) });
            }
            Next::Wait(until) => {
                // In line before the exchange's permit is given back: it may be its own turn.
                self.wait(until, fleet, now);
                self.leave_attempt(fleet, attempt, report, broken, Decision::Wait, now);
            }
            Next::Return => {
                self.close_attempt(fleet, report.clone(), Decision::ReturnReason, now);
                self.reject(fleet, report, Some(attempt), now);
            }
            Next::Interrupt => {
                self.close_attempt(fleet, report.clone(), Decision::Interrupt, now);
                self.reject(fleet, report, None, now);
            }
            Next::Review => self.end_badly(fleet, attempt, &report, broken, now, |call, fleet| {
                call.review(fleet, report.clone(), attempt, now);
            }),
            Next::Stop => self.end_badly(fleet, attempt, &report, broken, now, |call, fleet| {
                call.reject(fleet, report.clone(), None, now);
            }),
            Next::GiveUp => {
                self.end_badly(fleet, attempt, &report, broken, now, |call, fleet| call.give_up(fleet, now));
            }
        }
    }

    /// No path is left: a reply that keeps the degraded schema is better than what would come then.
    fn end_badly(
        &mut self,
        fleet: &mut Fleet,
        attempt: u8,
        report: &FailureReport,
        broken: Broken,
        now: Mono,
        otherwise: impl FnOnce(&mut Call, &mut Fleet),
    ) {
        if broken.keeps_degraded && self.kept.is_none() {
            self.deliver_degraded(fleet, attempt, now);
            return;
        }
        self.close_attempt(fleet, report.clone(), Decision::GiveUp, now);
        if self.kept.is_some() {
            self.deliver_kept(fleet, now);
        } else {
            otherwise(self, fleet);
        }
    }

    /// Closes an attempt that another one follows, and keeps its reply if that may still be served.
    fn leave_attempt(
        &mut self,
        fleet: &mut Fleet,
        attempt: u8,
        report: FailureReport,
        broken: Broken,
        decision: Decision,
        now: Mono,
    ) {
        let decision = if self.keep(attempt, broken) { Decision::Keep } else { decision };
        self.close_attempt(fleet, report, decision, now);
    }

    /// Somebody else could be asked at once, and may be.
    pub(super) fn somebody_else(&mut self, fleet: &mut Fleet, now: Mono) -> bool {
        let Some(at) = self.flight.as_ref().map(|flight| flight.at) else { return false };
        if self.attempts_spent() {
            return false;
        }
        let was_tried = std::mem::replace(&mut self.candidates[at].tried, true);
        let choice = self.choose(fleet, now);
        self.candidates[at].tried = was_tried;
        matches!(choice, Choice::Ask { trial: None, .. })
    }

    /// Writes an attempt's end down and takes it off its target. The other one of a race, if there is one, is in hand
    /// then.
    pub(super) fn close_attempt(&mut self, fleet: &mut Fleet, report: FailureReport, decision: Decision, now: Mono) {
        let Some(flight) = self.flight.take() else { return };
        self.flight = self.rival.take().map(|rival| *rival);
        fleet.end(flight.ix, self.id, false, now);
        let record = &mut self.attempts[usize::from(flight.attempt)];
        if record.took_us == 0 {
            record.took_us = micros(now.since(flight.started));
        }
        record.decision = decision;
        if self.first_failure.is_none() {
            self.first_failure = Some((flight.attempt, report.clone()));
        }
        record.failure = Some(report);
    }
}

/// Failures that the other targets of the same provider very likely share.
fn provider_wide(failure: Failure) -> bool {
    matches!(
        failure,
        Failure::Connection(ConnectionFault::Refused | ConnectionFault::Tls | ConnectionFault::Dns)
            | Failure::Timeout(Deadline::Connect)
            | Failure::Overloaded
            | Failure::Auth
            | Failure::QuotaExhausted
    )
}
