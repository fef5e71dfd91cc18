//! How a call ends: once, with everything it took.

use super::{
    Action, Call, RetryAdvice, Settlement, Source, Spent, Stage, attempt::micros, backstop::Last, evidence::fair,
};
use crate::fleet::Fleet;
use outlast_model::{
    Failure, FailureReport, Mono, Usd,
    failure::Deadline,
    policy::ToolMode,
    record::{BackstopUse, Decision, GaveUp, Outcome},
};
use std::time::Duration;

/// How a call ended, until its last abort is answered.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    outcome: Outcome,
    /// Whose reply was delivered, or the backstop that deferred it.
    source: Option<Source>,
    gave_up: Vec<GaveUp>,
    latency_us: u64,
}

impl Call {
    /// The reply was delivered: its exchange is over.
    pub(super) fn leave_target(&mut self, fleet: &mut Fleet, now: Mono) {
        if let Some(flight) = self.flight.take() {
            fleet.end(flight.ix, self.id, true, now);
        }
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
        self.fall_back(fleet, Last { failure, cause, attempt, retry, review: false }, now);
    }

    /// A person is to see this, or the client does.
    pub(super) fn review(&mut self, fleet: &mut Fleet, report: FailureReport, attempt: u8, now: Mono) {
        let retry = RetryAdvice { should_retry: false, retry_after: report.retry_after };
        let cause = self.earlier_failure(&report);
        self.fall_back(fleet, Last { failure: report, cause, attempt: Some(attempt), retry, review: true }, now);
    }

    /// The call's first failure, if it was another one than this.
    fn earlier_failure(&self, report: &FailureReport) -> Option<FailureReport> {
        self.first_failure.as_ref().map(|(_, first)| first).filter(|first| *first != report).cloned()
    }

    /// Until the first of its targets may be asked again.
    fn ready_in(&self, fleet: &Fleet, now: Mono) -> Option<Duration> {
        let ready = |at: usize| fleet.target(at).limiters.iter().map(|limiter| limiter.scheduled_at()).min();
        self.candidates.iter().filter_map(|candidate| ready(candidate.place.ix)).min().map(|at| now.until(at))
    }

    /// A failure that the client is to see as it is.
    pub(super) fn reject(&mut self, fleet: &mut Fleet, report: FailureReport, attempt: Option<u8>, now: Mono) {
        let outcome =
            if self.committed { Outcome::Interrupted(report.failure) } else { Outcome::Failed(report.failure) };
        let cause = self.earlier_failure(&report);
        let retry = RetryAdvice { should_retry: false, retry_after: report.retry_after };
        self.actions.push_back(Action::Reject { failure: report, cause, attempt, retry, after_commit: self.committed });
        self.conclude(fleet, outcome, None, Vec::new(), now);
    }

    /// The call's own deadline has passed: what was kept, or a backstop, may still answer, unless the client has seen
    /// output.
    pub(super) fn out_of_time(&mut self, fleet: &mut Fleet, now: Mono) {
        let report = FailureReport::of(Failure::Timeout(Deadline::Total));
        self.leave_line(fleet);
        while let Some(flight) = &self.flight {
            let (attempt, ix, trial) = (flight.attempt, flight.ix, flight.trial);
            let silent = flight.first_output.is_none() && self.stage == Stage::Live;
            self.abort(attempt);
            // A target that stays silent longer than nearly all its replies took is told, though the client's deadline
            // came first: a hang must not hide behind short deadlines.
            let timeout = Failure::Timeout(if self.needs.stream { Deadline::FirstToken } else { Deadline::Header });
            if silent && self.flight.as_ref().is_some_and(|flight| fair(flight, timeout, fleet, now)) {
                self.tell_fault(fleet, ix, trial, &FailureReport::of(timeout), now);
            }
            let decision = if self.committed { Decision::Interrupt } else { Decision::GiveUp };
            self.close_attempt(fleet, report.clone(), decision, now);
        }
        if self.committed {
            self.reject(fleet, report, None, now);
            return;
        }
        let cause = self.earlier_failure(&report);
        let retry = RetryAdvice { should_retry: false, retry_after: None };
        self.fall_back(fleet, Last { failure: report, cause, attempt: None, retry, review: false }, now);
    }

    /// The client left: its exchange is closed, and only the bill remains.
    pub(super) fn client_gone(&mut self, fleet: &mut Fleet, now: Mono) {
        match self.stage {
            Stage::Over | Stage::Settled => return,
            Stage::New | Stage::Live | Stage::Checking | Stage::Waiting(_) | Stage::Backstop(_) => {}
        }
        self.leave_line(fleet);
        while let Some(flight) = &self.flight {
            let attempt = flight.attempt;
            self.abort(attempt);
            self.close_attempt(fleet, FailureReport::of(Failure::Cancelled), Decision::Cancel, now);
        }
        self.conclude(fleet, Outcome::Cancelled, None, Vec::new(), now);
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
    pub(super) fn conclude(
        &mut self,
        fleet: &mut Fleet,
        outcome: Outcome,
        source: Option<Source>,
        gave_up: Vec<GaveUp>,
        now: Mono,
    ) {
        if self.stage != Stage::New {
            fleet.leave();
        }
        self.stage = Stage::Over;
        self.ending = Some(Ending { outcome, source, gave_up, latency_us: micros(now.since(self.started)) });
        self.settle();
    }

    fn settle(&mut self) {
        if self.owed > 0 || self.stage != Stage::Over {
            return;
        }
        let Some(Ending { outcome, source, gave_up, latency_us }) = self.ending.take() else { return };
        self.stage = Stage::Settled;
        let (served, backstop) = match source {
            Some(Source::Attempt(attempt) | Source::Kept(attempt)) => (Some(usize::from(attempt)), None),
            Some(Source::Backstop(at)) => (None, self.route.route().backstops.get(at)),
            None => (None, None),
        };
        let backstop = backstop.map(|it| BackstopUse { name: it.name.clone(), kind: it.kind.name() });
        let attempts = std::mem::take(&mut self.attempts);
        let cost_of = |which: &dyn Fn(usize) -> bool| -> Usd {
            attempts.iter().enumerate().filter(|(at, _)| which(*at)).filter_map(|(_, attempt)| attempt.cost).sum()
        };
        let tool_mode = match (served, &backstop) {
            (Some(at), _) => attempts[at].tool_mode,
            // A template calls nothing.
            (None, Some(_)) if self.needs.tools => ToolMode::None,
            (None, Some(_) | None) => ToolMode::Full,
        };
        let useful = |of: Source| match of {
            Source::Attempt(attempt) | Source::Kept(attempt) => served == Some(usize::from(attempt)),
            Source::Backstop(_) => source == Some(of),
        };
        self.actions.push_back(Action::Settle(Box::new(Settlement {
            latency_us,
            first_output_us: self.first_output.map(|at| micros(at.since(self.started))),
            planned: std::mem::take(&mut self.planned),
            left_out: std::mem::take(&mut self.left_out),
            outcome,
            served_by: served.map(|at| attempts[at].target.clone()),
            degraded: !gave_up.is_empty(),
            gave_up,
            tool_mode,
            backstop,
            confidence: self.confidence,
            schema_status: self.schema,
            cost: cost_of(&|_| true) + self.spend.judging_of(|_| true),
            wasted: cost_of(&|at| served != Some(at)) + self.spend.judging_of(|of| !useful(of)),
            attempts,
        })));
    }
}
