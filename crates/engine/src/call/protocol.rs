//! What the host and a call say to each other.

use super::Validated;
use crate::fleet::{BoundRoute, TargetIx};
use outlast_model::{
    Brief, Failure, FailureReport, Findings, TargetId, Usd,
    policy::{Needs, Timeouts, ToolMode},
    record::{AttemptRecord, BackstopUse, GaveUp, LeftOut, Outcome, SchemaStatus},
    turn::{Finish, Usage},
};
use std::time::Duration;

/// Names a call within this process. The host gives it; the fleet uses it to wake calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// One request, as the engine needs to know it.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Unique among the calls alive in this process.
    pub id: CallId,
    /// The route it named, bound by [`Fleet::bind`](crate::Fleet::bind).
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
    /// The answer to [`Action::Backstop`].
    Backstopped {
        /// Which, by its place in the route.
        at: usize,
        /// What it came to.
        outcome: Backstopped,
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
    /// The time of [`Call::poll_timeout`](super::Call::poll_timeout) has come.
    Tick,
}

/// What a backstop came to.
#[derive(Clone, Debug)]
pub enum Backstopped {
    /// It has a reply.
    Said {
        /// What the same checks found in it that judge every reply.
        findings: Findings,
        /// What such a reply is without.
        gave_up: GaveUp,
    },
    /// It keeps the request, or hands it to somebody: the answer comes later. It holds the 202 until
    /// [`Action::Defer`].
    Deferred {
        /// What the client goes without.
        gave_up: GaveUp,
    },
    /// It has nothing to give: no rule held, nothing fresh enough was kept, the store is down.
    Declined,
}

/// Where a reply comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The exchange of this attempt, which has just ended.
    Attempt(u8),
    /// The reply of this attempt that was kept by [`Action::Keep`].
    Kept(u8),
    /// The route's backstop of this number.
    Backstop(usize),
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
        /// The call's first failure, which is why this is not the first attempt.
        fallback_reason: Option<Failure>,
        /// How the request is to be put to it. The reply that `brief.mend` names is still held by the host when this
        /// action is performed: as the exchange that has just ended, or as the kept one.
        brief: Brief,
    },
    /// Drop that exchange now and answer [`Event::Aborted`].
    Abort {
        /// Which.
        attempt: u8,
    },
    /// Check the complete reply and answer [`Event::Checked`], once validators and judges have answered too. An
    /// [`Action::Abort`] may come first.
    Check {
        /// Which.
        attempt: u8,
        /// What judges may spend on it; absent when there is no cap.
        budget: Option<Usd>,
    },
    /// Hold on to that attempt's checked reply, beside whatever is asked next: an [`Action::Deliver`] may name it. Only
    /// one is held at a time.
    Keep {
        /// Which.
        attempt: u8,
    },
    /// Run the route's backstop of this number and answer [`Event::Backstopped`]. One that is still running when another
    /// action comes has taken too long: drop it.
    Backstop {
        /// Its place in the route.
        at: usize,
        /// Why it has come to this.
        cause: FailureReport,
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
    /// Give the client what the backstop prepared: not an answer, but where and when there will be one.
    Defer {
        /// The backstop's place in the route.
        at: usize,
    },
    /// Give the client an error.
    Reject {
        /// What it is told. `Failure::Exhausted` when every path was spent.
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
    /// Which target answered; nobody did when a backstop gave the reply.
    pub served_by: Option<TargetId>,
    /// Something was given up.
    pub degraded: bool,
    /// What was given up.
    pub gave_up: Vec<GaveUp>,
    /// What the model could do with tools in the reply that was served.
    pub tool_mode: ToolMode,
    /// The backstop that ended the call, if one did.
    pub backstop: Option<BackstopUse>,
    /// How sure the reply is, 0 to 1, if anybody said.
    pub confidence: Option<f64>,
    /// How the reply's structure was judged.
    pub schema_status: SchemaStatus,
    /// Everything that was paid for, failed attempts and judges included.
    pub cost: Usd,
    /// Of that, what bought nothing.
    pub wasted: Usd,
}
