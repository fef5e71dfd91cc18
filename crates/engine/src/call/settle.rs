//! What a failure leads to, and how a call ends: once, with everything it took.

use super::{Action, Call, RetryAdvice, Settlement, Spent, Stage, Then as AfterWait, Told, Wait, plan::Choice};
use super::{attempt::Flight, attempt::micros};
use crate::{backoff, budget::Price, fleet::Fleet, fleet::ReplyQuality};
use outlast_model::{
    Failure, FailureReport, Mono, Usd,
    failure::{Blame, ConnectionFault, Deadline, SameTarget, Then},
    record::{AttemptReason, Decision, Outcome},
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

/// How a call ended, until its last abort is answered.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    outcome: Outcome,
    /// The attempt that was delivered.
    served_by: Option<u8>,
    latency_us: u64,
}

/// What a failure leads to.
enum Next {
    /// Another candidate, now.
    Move {
        at: usize,
        trial: Option<AttemptReason>,
    },
    /// The same one, after a wait.
    Repeat(Duration),
    /// Whoever can be asked later.
    Wait(Mono),
    GiveUp,
}

impl Call {
    /// The exchange in flight failed: evidence, the record, and what comes next.
    pub(super) fn attempt_failed(&mut self, fleet: &mut Fleet, report: FailureReport, now: Mono) {
        let Some(flight) = &self.flight else { return };
        let (at, ix, attempt) = (flight.at, flight.ix, flight.attempt);
        let answered = self.stage == Stage::Checking;
        let blameless = fleet.target(ix).breaker.evidence(now) < BLAMELESS_BELOW;
        self.give_evidence(fleet, &report, answered, now);
        self.exclude(fleet, at, &report);
        let remedy = report.failure.remedy();
        if self.committed {
            self.close_attempt(fleet, report.clone(), Decision::Interrupt, now);
            self.reject(fleet, report, None, now);
            return;
        }
        match remedy.then {
            Then::ReturnReason => {
                self.close_attempt(fleet, report.clone(), Decision::ReturnReason, now);
                self.reject(fleet, report, Some(attempt), now);
            }
            Then::IfContractAllows if !self.reroutes_refusals() => {
                self.close_attempt(fleet, report.clone(), Decision::ReturnReason, now);
                self.reject(fleet, report, Some(attempt), now);
            }
            Then::Backstop | Then::Settle => {
                self.close_attempt(fleet, report, Decision::GiveUp, now);
                self.give_up(fleet, now);
            }
            Then::Reroute
            | Then::RerouteLarger
            | Then::RerouteStructured
            | Then::RerouteTools
            | Then::IfContractAllows
            | Then::StreamContract => {
                let next = self.next_after(fleet, at, &report, blameless, now);
                self.follow(fleet, at, next, report, now);
            }
        }
    }

    /// What the failure says about the target, its key or nobody.
    fn give_evidence(&mut self, fleet: &mut Fleet, report: &FailureReport, answered: bool, now: Mono) {
        let Some(flight) = &self.flight else { return };
        let (ix, key, sent, trial) = (flight.ix, flight.key, flight.started, flight.trial);
        if report.status.is_some() && report.failure.remedy().blame != Blame::Fault {
            self.absolve(fleet, ix, now);
        }
        let Some(flight) = &self.flight else { return };
        match report.failure.remedy().blame {
            Blame::Fault if fair(flight, report.failure, fleet, now) => {
                self.tell_fault(fleet, ix, trial, report, now);
            }
            Blame::Schedule => fleet.rate_limited(ix, key, sent, report.retry_after, now),
            Blame::KeyOut => fleet.key_out(ix, key, report.failure, sent, now),
            Blame::TargetOut => fleet.deny(ix, now),
            // It answered, if badly: alive.
            Blame::Quality => {
                if !answered {
                    let place = self.candidates[flight.at].place;
                    fleet.note_reply(place, ReplyQuality::of_failure(report.failure), now);
                }
                self.tell_success(fleet, now);
            }
            // A complete reply, or an error that only a working target gives; but what the client did moves no breaker.
            Blame::None if answered || report.status.is_some() => {
                if !client_side(report.failure) {
                    self.tell_success(fleet, now);
                }
                fleet.key_passed(ix, key, sent, now);
            }
            Blame::Fault | Blame::None => {}
        }
    }

    /// A fault, once per target; and if it is the same on a second target, the request is to blame.
    fn tell_fault(&mut self, fleet: &mut Fleet, ix: usize, trial: bool, report: &FailureReport, now: Mono) {
        if let Some(told) = self.told.iter_mut().find(|told| told.ix == ix) {
            told.suspicion = false;
            return;
        }
        let receipt = fleet.fault(ix, trial, report.failure, report.retry_after, now);
        self.told.push(Told { ix, failure: report.failure, receipt: Some(receipt), suspicion: false });
        let alike = |told: &Told| told.failure == report.failure;
        if may_be_the_request(report.failure) && self.told.iter().filter(|told| alike(told)).count() == 2 {
            for (ix, receipt) in
                self.told.iter().filter(|told| alike(told)).filter_map(|told| Some((told.ix, told.receipt?)))
            {
                fleet.forgive(ix, receipt, now);
            }
        }
    }

    /// A success, unless this call has already held something else against the target.
    fn tell_success(&mut self, fleet: &mut Fleet, now: Mono) {
        let Some(flight) = &self.flight else { return };
        let (ix, trial) = (flight.ix, flight.trial);
        self.absolve(fleet, ix, now);
        if !self.told.iter().any(|told| told.ix == ix) {
            fleet.success(ix, trial, now);
        }
    }

    /// It was only late: the suspicion is taken back.
    pub(super) fn absolve(&mut self, fleet: &mut Fleet, ix: usize, now: Mono) {
        let at = self.told.iter().position(|told| told.ix == ix && told.suspicion);
        if let Some(receipt) = at.and_then(|at| self.told.swap_remove(at).receipt) {
            fleet.take_back(ix, receipt, now);
        }
    }

    /// Takes the candidate, or only its key, out of this call's choice.
    fn exclude(&mut self, fleet: &Fleet, at: usize, report: &FailureReport) {
        let Some(flight) = &self.flight else { return };
        let blame = report.failure.remedy().blame;
        let candidate = &mut self.candidates[at];
        candidate.tried = true;
        match blame {
            Blame::Schedule | Blame::KeyOut => {
                // Another key of the same provider comes before another target, if it may be used.
                candidate.used_keys |= 1 << flight.key;
                candidate.tried = false;
            }
            Blame::None | Blame::Fault | Blame::TargetOut | Blame::Quality => {}
        }
        if provider_wide(report.failure) {
            let provider = candidate.provider;
            self.shunned.push(provider);
        }
        if report.failure.remedy().then == Then::RerouteLarger {
            let window = fleet.target(flight.ix).spec.context_window;
            self.larger_than = self.larger_than.max(window.unwrap_or(self.needs.input_tokens));
        }
    }

    /// What comes after a failure that is not the client's to see.
    fn next_after(&mut self, fleet: &mut Fleet, at: usize, report: &FailureReport, blameless: bool, now: Mono) -> Next {
        if self.attempts.len() >= usize::from(self.route.route().tier.attempts) {
            return Next::GiveUp;
        }
        let choice = self.choose(fleet, now);
        if let Some(wait) = self.repeat_after(fleet, at, report, blameless, choice, now) {
            return Next::Repeat(wait);
        }
        let (ix, budget) = (self.candidates[at].place.ix, self.candidates[at].place.budget);
        match choice {
            Choice::Ask { at, trial } => {
                // Leaving an open target is what the plan would have done: free.
                let free = !fleet.target(ix).breaker.serving();
                if free || fleet.spend(budget, Price::Move, now) { Next::Move { at, trial } } else { Next::GiveUp }
            }
            Choice::Wait(until) => Next::Wait(until),
            Choice::Nobody => self.wait_for_schedule(fleet, at, report, now),
        }
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
        if self.others_serving(fleet) >= attempts_left {
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
    fn wait_for_schedule(&mut self, fleet: &mut Fleet, at: usize, report: &FailureReport, now: Mono) -> Next {
        if report.failure.remedy().blame != Blame::Schedule || self.repeated {
            return Next::GiveUp;
        }
        let candidate = &mut self.candidates[at];
        (candidate.used_keys, candidate.again) = (0, true);
        match self.choose(fleet, now) {
            Choice::Wait(until) => Next::Wait(until),
            Choice::Ask { .. } | Choice::Nobody => Next::GiveUp,
        }
    }

    /// Does what was decided.
    fn follow(&mut self, fleet: &mut Fleet, from: usize, next: Next, report: FailureReport, now: Mono) {
        match next {
            Next::Move { at, trial } => {
                self.close_attempt(fleet, report, Decision::Reroute, now);
                self.start(at, trial.unwrap_or(AttemptReason::Reroute), trial, fleet, now);
            }
            Next::Repeat(wait) => {
                self.candidates[from].tried = false;
                self.repeated = true;
                self.close_attempt(fleet, report, Decision::RetrySame, now);
                self.stage = Stage::Waiting(Wait { until: now + wait, then: AfterWait::Repeat(from) });
            }
            Next::Wait(until) if self.wait(until, fleet, now) => {
                self.close_attempt(fleet, report, Decision::Wait, now);
            }
            Next::Wait(_) | Next::GiveUp => {
                self.close_attempt(fleet, report, Decision::GiveUp, now);
                self.give_up(fleet, now);
            }
        }
    }

    /// Somebody else could be asked at once, and may be.
    pub(super) fn somebody_else(&mut self, fleet: &mut Fleet, now: Mono) -> bool {
        let Some(at) = self.flight.as_ref().map(|flight| flight.at) else { return false };
        if self.attempts.len() >= usize::from(self.route.route().tier.attempts) {
            return false;
        }
        let was_tried = std::mem::replace(&mut self.candidates[at].tried, true);
        let choice = self.choose(fleet, now);
        self.candidates[at].tried = was_tried;
        matches!(choice, Choice::Ask { trial: None, .. })
    }

    /// Writes an attempt's end down and takes it off its target.
    pub(super) fn close_attempt(&mut self, fleet: &mut Fleet, report: FailureReport, decision: Decision, now: Mono) {
        let Some(flight) = self.flight.take() else { return };
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

    /// The reply was delivered.
    pub(super) fn answered(&mut self, fleet: &mut Fleet, attempt: u8, now: Mono) {
        self.tell_success(fleet, now);
        if let Some(flight) = self.flight.take() {
            fleet.end(flight.ix, self.id, true, now);
        }
        self.conclude(fleet, Outcome::Answered, Some(attempt), now);
    }

    /// No path is left.
    pub(super) fn give_up(&mut self, fleet: &mut Fleet, now: Mono) {
        let cause = self.first_failure.clone();
        // The prompt that fits nowhere is the client's to shorten: it may read what the provider said.
        let attempt =
            cause.as_ref().filter(|(_, report)| report.failure == Failure::ContextExceeded).map(|(at, _)| *at);
        let shed = cause.is_none();
        let cause = cause.map(|(_, report)| report).or_else(|| self.why_nobody());
        let limited = cause.as_ref().is_some_and(|report| report.failure == Failure::RateLimited);
        let retry_after = match &cause {
            Some(report) if report.failure == Failure::RateLimited => report.retry_after.or(self.ready_in(fleet, now)),
            Some(report) => report.retry_after,
            None => None,
        };
        let status = cause.as_ref().and_then(|report| report.status);
        let failure = FailureReport { status, retry_after, ..FailureReport::of(Failure::Exhausted) };
        // Nothing was tried because everything is on a known schedule: coming back then is the right thing to do.
        let retry = RetryAdvice { should_retry: shed && limited, retry_after };
        self.actions.push_back(Action::Reject { failure, cause, attempt, retry, after_commit: false });
        self.conclude(fleet, Outcome::Failed(Failure::Exhausted), None, now);
    }

    /// Until the first of its targets may be asked again.
    fn ready_in(&self, fleet: &Fleet, now: Mono) -> Option<Duration> {
        let ready = |at: usize| fleet.target(at).limiters.iter().map(|limiter| limiter.scheduled_at()).min();
        self.candidates.iter().filter_map(|candidate| ready(candidate.place.ix)).min().map(|at| now.until(at))
    }

    /// A failure that the client is to see as it is.
    fn reject(&mut self, fleet: &mut Fleet, report: FailureReport, attempt: Option<u8>, now: Mono) {
        let outcome =
            if self.committed { Outcome::Interrupted(report.failure) } else { Outcome::Failed(report.failure) };
        let cause = self.first_failure.as_ref().map(|(_, first)| first).filter(|first| **first != report).cloned();
        let retry = RetryAdvice { should_retry: false, retry_after: report.retry_after };
        self.actions.push_back(Action::Reject { failure: report, cause, attempt, retry, after_commit: self.committed });
        self.conclude(fleet, outcome, None, now);
    }

    /// The call's own deadline has passed.
    pub(super) fn out_of_time(&mut self, fleet: &mut Fleet, now: Mono) {
        let report = FailureReport::of(Failure::Timeout(Deadline::Total));
        self.leave_line(fleet);
        if let Some(flight) = &self.flight {
            let (attempt, ix, trial) = (flight.attempt, flight.ix, flight.trial);
            let silent = flight.first_output.is_none() && self.stage == Stage::Live;
            if self.stage == Stage::Live {
                self.abort(attempt);
            }
            // A target that stays silent longer than nearly all its replies took is told, though the client's deadline
            // came first: a hang must not hide behind short deadlines.
            let timeout = Failure::Timeout(if self.needs.stream { Deadline::FirstToken } else { Deadline::Header });
            if silent && self.flight.as_ref().is_some_and(|flight| fair(flight, timeout, fleet, now)) {
                self.tell_fault(fleet, ix, trial, &FailureReport::of(timeout), now);
            }
            let decision = if self.committed { Decision::Interrupt } else { Decision::GiveUp };
            self.close_attempt(fleet, report.clone(), decision, now);
        }
        self.reject(fleet, report, None, now);
    }

    /// The client left: its exchange is closed, and only the bill remains.
    pub(super) fn client_gone(&mut self, fleet: &mut Fleet, now: Mono) {
        match self.stage {
            Stage::Over | Stage::Settled => return,
            Stage::New | Stage::Live | Stage::Checking | Stage::Waiting(_) => {}
        }
        self.leave_line(fleet);
        if let Some(flight) = &self.flight {
            let attempt = flight.attempt;
            if self.stage == Stage::Live {
                self.abort(attempt);
            }
            self.close_attempt(fleet, FailureReport::of(Failure::Cancelled), Decision::Cancel, now);
        }
        self.conclude(fleet, Outcome::Cancelled, None, now);
    }

    /// The answer to an abort.
    pub(super) fn aborted(&mut self, fleet: &mut Fleet, attempt: u8, spent: Spent) {
        if self.owed == 0 || usize::from(attempt) >= self.attempts.len() {
            return;
        }
        self.owed -= 1;
        self.spent(fleet, attempt, spent);
        self.settle();
    }

    /// Everything is decided; the settlement follows the last abort's answer.
    pub(super) fn conclude(&mut self, fleet: &mut Fleet, outcome: Outcome, served_by: Option<u8>, now: Mono) {
        if self.stage != Stage::New {
            fleet.leave();
        }
        self.stage = Stage::Over;
        self.ending = Some(Ending { outcome, served_by, latency_us: micros(now.since(self.started)) });
        self.settle();
    }

    fn settle(&mut self) {
        if self.owed > 0 || self.stage != Stage::Over {
            return;
        }
        let Some(Ending { outcome, served_by, latency_us }) = self.ending.take() else { return };
        self.stage = Stage::Settled;
        let served = served_by.map(usize::from);
        let attempts = std::mem::take(&mut self.attempts);
        let cost_of = |which: &dyn Fn(usize) -> bool| -> Usd {
            attempts.iter().enumerate().filter(|(at, _)| which(*at)).filter_map(|(_, attempt)| attempt.cost).sum()
        };
        self.actions.push_back(Action::Settle(Box::new(Settlement {
            latency_us,
            first_output_us: self.first_output.map(|at| micros(at.since(self.started))),
            planned: std::mem::take(&mut self.planned),
            left_out: std::mem::take(&mut self.left_out),
            outcome,
            served_by: served.map(|at| attempts[at].target.clone()),
            degraded: false,
            gave_up: Vec::new(),
            tool_mode: served.map_or_else(Default::default, |at| attempts[at].tool_mode),
            backstop: None,
            confidence: None,
            schema_status: self.schema,
            cost: cost_of(&|_| true),
            wasted: cost_of(&|at| served != Some(at)),
            attempts,
        })));
    }
}

/// Whether passing a deadline says something about the target: not when the client's own deadline cut it shorter than
/// nearly all of the target's replies take. Everything but a timeout does.
fn fair(flight: &Flight, failure: Failure, fleet: &Fleet, now: Mono) -> bool {
    let Failure::Timeout(deadline) = failure else { return true };
    let target = fleet.target(flight.ix);
    let limits = &target.spec.timeouts;
    let configured = match deadline {
        Deadline::Connect => limits.connect,
        Deadline::Header => limits.header,
        Deadline::FirstToken => limits.first_token,
        Deadline::Idle => limits.idle,
        Deadline::Total => limits.total,
    };
    let since = if deadline == Deadline::Idle { flight.last } else { flight.started };
    let latency = if flight.streamed { &target.first_output } else { &target.whole_reply };
    now.since(since) >= configured.min(latency.p99(flight.input_tokens))
}

/// Failures that a request can bring about wherever it goes.
fn may_be_the_request(failure: Failure) -> bool {
    matches!(
        failure,
        Failure::ServerError
            | Failure::MalformedReply
            | Failure::StreamInterrupted
            | Failure::Connection(ConnectionFault::Reset)
            | Failure::Timeout(Deadline::Header | Deadline::FirstToken | Deadline::Idle)
    )
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

/// The client's own doing: it moves no breaker, not even towards health.
fn client_side(failure: Failure) -> bool {
    matches!(failure, Failure::InvalidRequest | Failure::Cancelled | Failure::ContextExceeded | Failure::Unsupported)
}
