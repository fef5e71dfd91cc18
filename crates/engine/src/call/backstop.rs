//! The deterministic end of a route, when no path is left.
//!
//! A reply that keeps the contract's degraded schema comes first, if one was kept. Then the route's backstops, in order:
//! one that has a reply is judged like any target, one that defers ends the call with a promise, and when all have
//! declined the client gets the error it would have got without them. A backstop is immediate, so it may run past the
//! call's deadline by [`GRACE`].

use super::{Action, Backstopped, Call, RetryAdvice, Source, Stage};
use crate::fleet::Fleet;
use outlast_model::{
    Failure, FailureReport, Mono,
    policy::{Backstop, BackstopKind},
    record::Outcome,
};
use std::{sync::Arc, time::Duration};

/// How long a backstop may take beyond the call's deadline. One that takes longer has declined.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// What the client is told when nothing else can be given.
#[derive(Clone, Debug)]
pub(super) struct Last {
    pub(super) failure: FailureReport,
    pub(super) cause: Option<FailureReport>,
    pub(super) attempt: Option<u8>,
    pub(super) retry: RetryAdvice,
    /// Only the person of the first `escalate` backstop is asked.
    pub(super) review: bool,
}

impl Last {
    /// What it comes down to.
    fn cause(&self) -> &FailureReport {
        self.cause.as_ref().unwrap_or(&self.failure)
    }
}

impl Call {
    /// No path is left, and nothing is in flight.
    pub(super) fn fall_back(&mut self, fleet: &mut Fleet, last: Last, now: Mono) {
        if self.kept.is_some() {
            self.deliver_kept(fleet, now);
            return;
        }
        let review = last.review;
        self.last = Some(Box::new(last));
        let first = if review { self.backstops().position(|it| escalates(it)) } else { Some(0) };
        self.next_backstop(fleet, first, now);
    }

    fn backstops(&self) -> impl Iterator<Item = &Arc<Backstop>> {
        self.route.route().backstops.iter()
    }

    /// Runs the first backstop from this one on that can help.
    fn next_backstop(&mut self, fleet: &mut Fleet, from: Option<usize>, now: Mono) {
        let Some(cause) = self.last.as_ref().map(|last| last.cause().clone()) else { return };
        let at = from.and_then(|from| {
            let helps = |it: &Arc<Backstop>| !queues(it) || self.time_heals(cause.failure);
            self.backstops().enumerate().skip(from).find(|(_, it)| helps(it)).map(|(at, it)| (at, it.clone()))
        });
        match at {
            Some((at, backstop)) if !fails(&backstop) => {
                self.stage = Stage::Backstop(at);
                self.backstop_until = self.deadline.max(now + GRACE);
                self.actions.push_back(Action::Backstop { at, cause });
            }
            Some(_) | None => self.reject_at_last(fleet, now),
        }
    }

    /// Whether a later time could bring what this one could not: somebody fits, and is only unwell.
    fn time_heals(&self, cause: Failure) -> bool {
        let misfit = matches!(cause, Failure::ContextExceeded | Failure::Unsupported);
        let elsewhere = self.candidates.is_empty() && self.left_out.is_empty();
        !misfit && (elsewhere || !self.candidates.is_empty())
    }

    /// The answer to [`Action::Backstop`].
    pub(super) fn backstopped(&mut self, fleet: &mut Fleet, at: usize, outcome: Backstopped, now: Mono) {
        match outcome {
            Backstopped::Said { findings, gave_up } => {
                self.spend.judging(Source::Backstop(at), findings.cost);
                if !self.deliver_backstop(fleet, at, &findings, gave_up, now) {
                    self.backstop_declined(fleet, at, now);
                }
            }
            Backstopped::Deferred { gave_up } => {
                self.actions.push_back(Action::Defer { at });
                self.conclude(fleet, Outcome::Deferred, Some(Source::Backstop(at)), vec![gave_up], now);
            }
            Backstopped::Declined => self.backstop_declined(fleet, at, now),
        }
    }

    /// The next one; none for a call that only a person was to see.
    pub(super) fn backstop_declined(&mut self, fleet: &mut Fleet, at: usize, now: Mono) {
        let review = self.last.as_ref().is_some_and(|last| last.review);
        self.next_backstop(fleet, (!review).then_some(at + 1), now);
    }

    fn reject_at_last(&mut self, fleet: &mut Fleet, now: Mono) {
        let Some(last) = self.last.take() else { return };
        let Last { failure, cause, attempt, retry, review: _ } = *last;
        let outcome = Outcome::Failed(failure.failure);
        self.actions.push_back(Action::Reject { failure, cause, attempt, retry, after_commit: false });
        self.conclude(fleet, outcome, None, Vec::new(), now);
    }
}

fn escalates(backstop: &Backstop) -> bool {
    matches!(backstop.kind, BackstopKind::Escalate { .. })
}

fn queues(backstop: &Backstop) -> bool {
    matches!(backstop.kind, BackstopKind::Queue { .. })
}

fn fails(backstop: &Backstop) -> bool {
    matches!(backstop.kind, BackstopKind::Fail { .. })
}
