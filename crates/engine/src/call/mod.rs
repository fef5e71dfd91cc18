//! One request, from admission to settlement.

use crate::fleet::{BoundRoute, Fleet, TargetIx};
use outlast_model::{
    FailureReport, Findings, Mono, TargetId, Usd,
    policy::{Needs, Timeouts},
    record::{AttemptRecord, LeftOut, Outcome, SchemaStatus},
    turn::{Finish, Usage},
};
use std::{collections::VecDeque, time::Duration};

/// Names a call within this process. The host gives it; the fleet uses it to wake calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// One request, as the engine needs to know it.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Unique among the calls alive in this process.
    pub id: CallId,
    /// The route it named, bound by [`Fleet::bind`].
    pub route: BoundRoute,
    /// What it needs of a target.
    pub needs: Needs,
    /// The client's own deadline, from admission on; the tier's holds if it is shorter.
    pub deadline: Option<Duration>,
    /// For jitter and draws. The same seed and events give the same trace.
    pub seed: u64,
}

/// What happened, as the host tells it. Events about an attempt that is no longer the current one are ignored,
/// [`Event::Aborted`] excepted.
#[derive(Clone, Debug)]
pub enum Event {
    /// The first event.
    Admit,
    /// The head of a successful response arrived.
    Headers {
        /// Of which attempt.
        attempt: u8,
    },
    /// Semantic output arrived. For a reply that is not streamed: part of the body did (`tokens: 0`).
    Output {
        /// Of which attempt.
        attempt: u8,
        /// How many tokens, by estimate.
        tokens: u32,
        /// False while what came cannot be shown yet: a tool call that is not whole.
        releasable: bool,
    },
    /// The whole reply arrived, its terminal event included.
    Ended {
        /// Of which attempt.
        attempt: u8,
        /// Why the model stopped.
        finish: Option<Finish>,
        /// What it took.
        spent: Spent,
    },
    /// The attempt failed. The host reports what it or the wire saw: any HTTP error, a broken connection, a connect
    /// timeout, an undecodable or cut reply. The other deadlines are the engine's.
    Failed {
        /// Of which attempt.
        attempt: u8,
        /// How.
        report: FailureReport,
        /// What it took until then.
        spent: Spent,
    },
    /// The answer to [`Action::Check`].
    Checked {
        /// Of which attempt.
        attempt: u8,
        /// What was found.
        findings: Findings,
    },
    /// The answer to [`Action::Abort`], owed at once: the exchange is closed.
    Aborted {
        /// Of which attempt.
        attempt: u8,
        /// What it took until then.
        spent: Spent,
    },
    /// The client went away.
    ClientGone,
    /// The fleet named this call in [`FleetAction::Wake`](crate::FleetAction::Wake).
    Woken,
    /// The time of [`Call::poll_timeout`] has come.
    Tick,
}

/// What one attempt took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Tokens, as reported or estimated.
    pub usage: Usage,
    /// Bytes of the request body sent.
    pub bytes_out: u64,
    /// Bytes of the response body read.
    pub bytes_in: u64,
}

/// What the host must do, in order.
#[derive(Debug)]
pub enum Action {
    /// Ask this target.
    Start {
        /// Names the attempt: 0, 1, 2...
        attempt: u8,
        /// Whom.
        target: TargetIx,
        /// Whom, by name.
        target_id: TargetId,
        /// With which of the provider's keys.
        key: u8,
        /// Already cut to what is left of the call's deadline. The host enforces `connect` alone.
        timeouts: Timeouts,
    },
    /// Drop that exchange now and answer [`Event::Aborted`].
    Abort {
        /// Which.
        attempt: u8,
    },
    /// Check the complete reply and answer [`Event::Checked`].
    Check {
        /// Which.
        attempt: u8,
    },
    /// The commit point: show the client what has come of this attempt, and from now on whatever comes as it comes.
    /// The terminal part waits for [`Action::Deliver`].
    Release {
        /// Which.
        attempt: u8,
    },
    /// The reply is complete and passed: give it, or the rest of it, to the client.
    Deliver {
        /// The proof that it passed.
        validated: Validated,
    },
    /// Give the client an error.
    Reject {
        /// What it is told. [`Failure::Exhausted`](outlast_model::Failure::Exhausted) when every path was spent.
        failure: FailureReport,
        /// The first real failure behind it, when `failure` is not that itself.
        cause: Option<FailureReport>,
        /// The attempt whose error body is the client's to read (its own fault), if there is one.
        attempt: Option<u8>,
        /// What its SDK should do.
        retry: RetryAdvice,
        /// The client has already seen output: end the stream with a typed error event, never with a terminal one.
        after_commit: bool,
    },
    /// The last action of every call, exactly once: what to write down.
    Settle(Box<Settlement>),
}

/// What the client's SDK is told about retrying.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryAdvice {
    /// `x-should-retry`. False once the engine has spent the paths itself, true when it shed the call.
    pub should_retry: bool,
    /// `retry-after`.
    pub retry_after: Option<Duration>,
}

/// The proof that a complete reply passed its checks.
#[derive(Debug)]
pub struct Validated {
    attempt: u8,
    degraded: bool,
}

impl Validated {
    /// The attempt whose reply passed.
    pub fn attempt(&self) -> u8 {
        self.attempt
    }

    /// It is less than the full contract, and must be marked so.
    pub fn degraded(&self) -> bool {
        self.degraded
    }
}

/// All of the call's record that the engine knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Settlement {
    /// From admission until now, in microseconds.
    pub latency_us: u64,
    /// Until the client's first output, in microseconds.
    pub first_output_us: Option<u64>,
    /// The targets that fitted, best first, as planned on admission.
    pub planned: Vec<TargetId>,
    /// The targets that did not, each with its reason.
    pub left_out: Vec<LeftOut>,
    /// Every try, in order.
    pub attempts: Vec<AttemptRecord>,
    /// How it ended.
    pub outcome: Outcome,
    /// Which target answered.
    pub served_by: Option<TargetId>,
    /// Served, but less than the contract.
    pub degraded: bool,
    /// How the reply's structure was judged.
    pub schema_status: SchemaStatus,
    /// Everything that was paid for, failed attempts included.
    pub cost: Usd,
    /// Of that, what bought nothing.
    pub wasted: Usd,
}

/// One request in the making.
#[derive(Debug)]
pub struct Call {
    ask: Ask,
    deadline: Mono,
    actions: VecDeque<Action>,
}

impl Call {
    /// A call that came in `now`. Feed [`Event::Admit`] next.
    pub fn new(ask: Ask, now: Mono) -> Call {
        let deadline = now + ask.deadline.unwrap_or(Duration::MAX).min(ask.route.route().tier.deadline);
        Call { ask, deadline, actions: VecDeque::with_capacity(4) }
    }

    /// Takes one event. Drain [`Call::poll_action`] afterwards.
    pub fn handle(&mut self, _fleet: &mut Fleet, _event: Event, _now: Mono) {
        let _ = &self.ask;
    }

    /// The next thing to do; `None` when there is nothing more for now.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to feed [`Event::Tick`], at the latest.
    pub fn poll_timeout(&self) -> Option<Mono> {
        Some(self.deadline)
    }
}
