//! What is kept of a call. No payload, no key: names, numbers, classes and decisions only.

use crate::{
    Failure, FailureReport, Problem, RequestId, RouteId, RunId, TargetId, Usd, Wall,
    policy::{BackstopName, Dialect, Fix, ToolMode},
    turn::{Finish, Usage},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The version of [`CallRecord`]'s form. Readers refuse a newer one.
pub const CALL_RECORD_VERSION: u16 = 2;

/// The lineage of one call: every attempt, and why each next thing was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallRecord {
    /// [`CALL_RECORD_VERSION`] when written.
    pub version: u16,
    /// The call.
    pub request_id: RequestId,
    /// From the client's `traceparent`, or our own. 32 hexadecimal digits.
    pub trace_id: Box<str>,
    /// From `x-outlast-task`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<Box<str>>,
    /// The run it is a step of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// A hash of the caller's key, never the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_hash: Option<Box<str>>,
    /// From `x-outlast-step`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_step: Option<Box<str>>,
    /// What the client named.
    pub route: RouteId,
    /// What the client spoke.
    pub dialect: Dialect,
    /// It asked for a stream.
    pub stream: bool,
    /// When it was admitted.
    pub started: Wall,
    /// From admission to settlement, in microseconds.
    pub latency_us: u64,
    /// Until the client's first output, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_output_us: Option<u64>,
    /// The targets that fitted, best first, as planned on admission.
    pub planned: Vec<TargetId>,
    /// The targets that did not, each with its reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// Every try, in order.
    pub attempts: Vec<AttemptRecord>,
    /// How it ended.
    pub outcome: Outcome,
    /// Which target answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_by: Option<TargetId>,
    /// Served, but less than the contract.
    pub degraded: bool,
    /// What was given up, if anything was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gave_up: Vec<GaveUp>,
    /// What the model could do with tools in the reply that was served.
    #[serde(default)]
    pub tool_mode: ToolMode,
    /// The backstop that ended the call, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backstop: Option<BackstopUse>,
    /// How sure the reply is, 0 to 1, if anybody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// How the votes went, if there was a vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<Agreement>,
    /// The tier that was spent from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Arc<str>>,
    /// Why that tier was chosen, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk: Option<Arc<str>>,
    /// The workflow state the client sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<WorkflowState>,
    /// The call on whose behalf this one was made, and for what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// How the reply's structure was judged.
    pub schema_status: SchemaStatus,
    /// Everything that was paid for, failed attempts included.
    pub cost: Usd,
    /// Of that, what bought nothing.
    pub wasted: Usd,
}

impl CallRecord {
    /// Plain: answered in full by the first attempt. Plain calls are sampled, all others are kept whole.
    pub fn is_plain(&self) -> bool {
        self.outcome == Outcome::Answered && self.attempts.len() == 1 && !self.degraded
    }

    /// The first failure, which is why there was a fallback.
    pub fn first_failure(&self) -> Option<Failure> {
        self.attempts.iter().find_map(|attempt| attempt.failure.as_ref()).map(|report| report.failure)
    }

    /// The target that answered, or the last one asked if none did.
    pub fn last_target(&self) -> Option<&TargetId> {
        self.served_by.as_ref().or_else(|| self.attempts.last().map(|attempt| &attempt.target))
    }

    /// Answered by another target than the one asked first, which had failed: a lost race is no failure.
    pub fn failed_over(&self) -> bool {
        matches!((&self.served_by, self.attempts.first()), (Some(served), Some(first))
            if *served != first.target && first.decision != Decision::Outrun)
    }

    /// Upstream calls that bought nothing: every attempt that was neither delivered, nor cancelled by the client, nor
    /// the client's own fault.
    pub fn wasted_calls(&self) -> usize {
        self.attempts.iter().filter(|attempt| attempt.decision.is_waste()).count()
    }

    /// The sum of what is known of a cost is that cost only when every attempt that consumed tokens has a price: an
    /// unknown price is not a price of nothing.
    pub fn cost_is_known(&self) -> bool {
        let consumed = |usage: &Usage| usage.input_tokens > 0 || usage.output_tokens > 0;
        self.attempts.iter().all(|attempt| attempt.cost.is_some() || !consumed(&attempt.usage))
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ended", content = "failure")]
pub enum Outcome {
    /// A validated reply was delivered.
    Answered,
    /// The client got a typed error instead of a reply.
    Failed(Failure),
    /// The client got a typed error event inside a stream that had begun.
    Interrupted(Failure),
    /// The client left first.
    Cancelled,
    /// Neither answered nor refused: it was queued, handed to a person, or the user was asked. The backstop tells.
    Deferred,
}

impl Outcome {
    /// The name used in logs, metrics and the telemetry file.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::Failed(_) => "failed",
            Outcome::Interrupted(_) => "interrupted",
            Outcome::Cancelled => "cancelled",
            Outcome::Deferred => "deferred",
        }
    }

    /// What the client was told went wrong.
    pub const fn failure(self) -> Option<Failure> {
        match self {
            Outcome::Failed(failure) | Outcome::Interrupted(failure) => Some(failure),
            Outcome::Answered | Outcome::Cancelled | Outcome::Deferred => None,
        }
    }
}

/// Something a degraded reply is without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum GaveUp {
    /// The model could not act as asked: plan-only, read-only or no tools.
    Tools {
        /// What it could do.
        mode: ToolMode,
    },
    /// The full schema: the contract's degraded one is kept.
    Schema,
    /// A part of the input: the oldest turns were dropped.
    Input,
    /// Freshness: an earlier answer is given again.
    Freshness {
        /// How old it is, in seconds.
        age_s: u64,
    },
    /// A model's answer: a template or rule gave the reply.
    Model,
    /// Agreement: the votes were divided.
    Agreement,
    /// The route that was asked for: with the user's consent another one answered.
    Route {
        /// Which.
        route: RouteId,
    },
    /// An answer now: it comes later, or a person gives it.
    Immediacy,
}

impl GaveUp {
    /// The word used in `x-outlast-degraded` and in the `outlast` object.
    pub const fn name(&self) -> &'static str {
        match self {
            GaveUp::Tools { .. } => "tools",
            GaveUp::Schema => "schema",
            GaveUp::Input => "input",
            GaveUp::Freshness { .. } => "freshness",
            GaveUp::Model => "model",
            GaveUp::Agreement => "agreement",
            GaveUp::Route { .. } => "route",
            GaveUp::Immediacy => "immediacy",
        }
    }
}

/// A backstop that was used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackstopUse {
    /// Its name in the config.
    pub name: Arc<str>,
    /// What it does.
    pub kind: BackstopName,
}

/// How a vote went. Agreement is no proof: models share mistakes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// Votes for the answer that was served.
    pub votes_for: u8,
    /// Valid votes.
    pub votes: u8,
    /// Replies dropped before the vote because they broke the contract or never came.
    pub dropped: u8,
}

/// The workflow state a client sends with a request: `outlast.state`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowState {
    /// The step's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Box<str>>,
    /// How often the step has been tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_count: Option<u32>,
    /// What the workflow has spent before this call.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "budget_used_usd")]
    pub budget_used: Option<Usd>,
}

/// The call on whose behalf another one was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Which.
    pub request_id: RequestId,
    /// For what.
    pub role: Role,
}

/// What a call that no client made is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// To judge another call's reply.
    Judge,
    /// To cast a vote.
    Vote,
    /// To answer a queued request.
    Queue,
    /// To answer a golden task.
    Golden,
    /// To do a step of a run.
    Step,
}

impl Role {
    /// The name used in logs; the same as in records.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Judge => "judge",
            Role::Vote => "vote",
            Role::Queue => "queue",
            Role::Golden => "golden",
            Role::Step => "step",
        }
    }
}

/// Whether the reply kept its structure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SchemaStatus {
    /// None was demanded.
    #[default]
    None,
    /// It was kept.
    Valid,
    /// It was not.
    Invalid,
    /// Demanded by a schema that cannot be checked here (it does not compile, points elsewhere or is too large): only
    /// the JSON's syntax was judged.
    Unverified,
}

/// One try of a call on one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// On which target.
    pub target: TargetId,
    /// With which of the provider's keys, by position.
    pub key: u8,
    /// Why this target, now.
    pub reason: AttemptReason,
    /// Start, in microseconds after admission.
    pub started_us: u64,
    /// First semantic output, in microseconds after the attempt's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_output_us: Option<u64>,
    /// End, in microseconds after the attempt's start.
    pub took_us: u64,
    /// What went wrong, if anything did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureReport>,
    /// Everything the checks found in its reply.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// The syntactic repairs its reply took.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixes: Vec<Fix>,
    /// What the model could do with tools.
    #[serde(default)]
    pub tool_mode: ToolMode,
    /// The input was shortened for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shortened: bool,
    /// Why the model stopped, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish: Option<Finish>,
    /// Bytes of the request body sent.
    pub bytes_out: u64,
    /// Bytes of the response body read.
    pub bytes_in: u64,
    /// What it consumed.
    pub usage: Usage,
    /// What it cost; absent when the price is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Usd>,
    /// What was decided when it ended.
    pub decision: Decision,
}

/// Why an attempt was made on its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptReason {
    /// It ranked first.
    First,
    /// It ranked next after a failure.
    Reroute,
    /// The call's one retry on the same target.
    SameTarget,
    /// Its breaker is half-open and this call tries it.
    HalfOpenTrial,
    /// Every breaker is open; this one has the least against it.
    Trickle,
    /// It had to wait for a schedule or a permit first.
    AfterWait,
    /// It is to mend its own reply.
    Repair,
    /// The attempt before was slow to speak, and this one races it.
    Hedge,
    /// The input was shortened to fit it.
    Shorten,
}

/// What was decided when an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Its reply was validated and delivered.
    Deliver,
    /// Another target is asked.
    Reroute,
    /// The same target is asked once more.
    RetrySame,
    /// The call waits for a schedule, a permit or a recovery.
    Wait,
    /// The failure is the client's to see: its own fault, or a policy reason.
    ReturnReason,
    /// No path was left.
    GiveUp,
    /// The stream had begun: it ended in a typed error event.
    Interrupt,
    /// The client left.
    Cancel,
    /// The same target is asked to mend its reply.
    Repair,
    /// It lost the race: the attempt that raced it spoke first.
    Outrun,
    /// Another attempt follows, but its reply keeps the degraded schema and may still be served.
    Keep,
}

impl Decision {
    /// The attempt it ended bought nothing, and the client had no part in that.
    pub const fn is_waste(self) -> bool {
        match self {
            Decision::Reroute
            | Decision::RetrySame
            | Decision::Wait
            | Decision::GiveUp
            | Decision::Interrupt
            | Decision::Repair
            | Decision::Outrun
            | Decision::Keep => true,
            Decision::Deliver | Decision::ReturnReason | Decision::Cancel => false,
        }
    }
}

impl WhyLeftOut {
    /// The name used in logs; the same as in records.
    pub const fn name(&self) -> &'static str {
        match self {
            WhyLeftOut::NoTools => "no_tools",
            WhyLeftOut::NoImages => "no_images",
            WhyLeftOut::NoSchema => "no_schema",
            WhyLeftOut::ContextTooSmall { .. } => "context_too_small",
            WhyLeftOut::OutputTooLong { .. } => "output_too_long",
            WhyLeftOut::CannotCarry(_) => "cannot_carry",
            WhyLeftOut::BreakerOpen => "breaker_open",
            WhyLeftOut::Restoring => "restoring",
            WhyLeftOut::RateLimited => "rate_limited",
            WhyLeftOut::NoKey => "no_key",
            WhyLeftOut::AccessDenied => "access_denied",
            WhyLeftOut::OverBudget { .. } => "over_budget",
            WhyLeftOut::PriceUnknown => "price_unknown",
            WhyLeftOut::NotPermitted(_) => "not_permitted",
        }
    }
}

/// A target that was not planned, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Which.
    pub target: TargetId,
    /// Why.
    pub why: WhyLeftOut,
}

/// Why a target was left out of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyLeftOut {
    /// It cannot call tools.
    NoTools,
    /// It cannot see images.
    NoImages,
    /// It cannot hold its output to a schema.
    NoSchema,
    /// The prompt and the wanted output do not fit.
    ContextTooSmall {
        /// Tokens it takes.
        window: u32,
        /// Tokens this request needs, by estimate.
        needed: u32,
    },
    /// The wanted output is longer than it can write.
    OutputTooLong {
        /// Tokens it can write.
        limit: u32,
        /// Tokens wanted.
        wanted: u32,
    },
    /// Its dialect cannot say something this request says.
    CannotCarry(Vec<Arc<str>>),
    /// Its breaker is open.
    BreakerOpen,
    /// It is being restored and this call did not draw a place in its share.
    Restoring,
    /// Every key is on a 429 schedule.
    RateLimited,
    /// Every key is out: rejected or out of money.
    NoKey,
    /// The provider denies this model to this account.
    AccessDenied,
    /// Even its shortest useful answer costs more than is left.
    OverBudget {
        /// What it would cost.
        needed: Usd,
        /// What is left.
        left: Usd,
    },
    /// There is a cost cap and nobody knows what it charges.
    PriceUnknown,
    /// The contract does not let the request go there: `region` or `provider`.
    NotPermitted(Arc<str>),
}
