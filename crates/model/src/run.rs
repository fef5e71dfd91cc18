//! Durable runs: their states, their steps' classes of effect, what a person may decide.
//!
//! The semantics are those of `docs/runs.md`.

use crate::Usd;
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// What happens in the world when a step is done twice, and therefore what may be done when nobody knows whether it was
/// done once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectClass {
    /// Nothing: done again freely. Model calls, look-ups.
    Pure,
    /// It commits in the same database transaction as a row with our key, so that a second one finds the first.
    /// Exactly once.
    Tx,
    /// The receiver keeps our key and answers a repetition with the first result. Exactly once, for as long as it keeps
    /// the key; later the outcome is verified, where that can be done, or left to a person.
    Keyed {
        /// How long the receiver keeps a key.
        #[serde(with = "millis", rename = "key_ttl_ms")]
        key_ttl: Duration,
        /// How long after the last moment it may still happen the receiver is asked, once the key is too old.
        #[serde(default, skip_serializing_if = "Option::is_none", with = "maybe_millis", rename = "verify_ms")]
        verify: Option<Duration>,
    },
    /// The receiver can be asked whether it happened. Bounded, not exactly once: what was sent before the question may
    /// arrive after the answer.
    Verify {
        /// How long after the last moment it may still happen the receiver is asked.
        #[serde(with = "millis", rename = "quiet_period_ms")]
        quiet_period: Duration,
    },
    /// Nobody can tell. At most once: a person decides.
    Once,
}

impl EffectClass {
    /// The class's name in config, API and docs.
    pub const fn name(self) -> &'static str {
        match self {
            EffectClass::Pure => "pure",
            EffectClass::Tx => "tx",
            EffectClass::Keyed { .. } => "keyed",
            EffectClass::Verify { .. } => "verify",
            EffectClass::Once => "once",
        }
    }

    /// Whether doing it twice changes the world.
    pub const fn is_effect(self) -> bool {
        match self {
            EffectClass::Pure => false,
            EffectClass::Tx | EffectClass::Keyed { .. } | EffectClass::Verify { .. } | EffectClass::Once => true,
        }
    }
}

/// Where an effect, or any other step, stands in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LedgerState {
    /// Written down before anything was sent: an attempt is under way, or its holder is gone.
    Intent,
    /// It took place, and this is its result, forever.
    Done,
    /// It failed for good, and this is its error, forever.
    FailedFinal,
    /// It may have taken place.
    Unknown,
    /// Somebody asks the receiver whether it took place.
    Verifying,
    /// It is known not to have taken place; it may be tried.
    Absent,
    /// It waits for a person.
    Parked,
}

impl LedgerState {
    /// Every state.
    pub const ALL: [LedgerState; 7] = [
        LedgerState::Intent,
        LedgerState::Done,
        LedgerState::FailedFinal,
        LedgerState::Unknown,
        LedgerState::Verifying,
        LedgerState::Absent,
        LedgerState::Parked,
    ];

    /// The state's name in API and docs.
    pub const fn name(self) -> &'static str {
        match self {
            LedgerState::Intent => "intent",
            LedgerState::Done => "done",
            LedgerState::FailedFinal => "failed_final",
            LedgerState::Unknown => "unknown",
            LedgerState::Verifying => "verifying",
            LedgerState::Absent => "absent",
            LedgerState::Parked => "parked",
        }
    }

    /// Whether it never changes again.
    pub const fn is_final(self) -> bool {
        match self {
            LedgerState::Done | LedgerState::FailedFinal => true,
            LedgerState::Intent
            | LedgerState::Unknown
            | LedgerState::Verifying
            | LedgerState::Absent
            | LedgerState::Parked => false,
        }
    }
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It can be claimed.
    Ready,
    /// Somebody holds its lease, or held it and is gone.
    Running,
    /// It waits for a timer or a signal and holds no lease.
    Waiting,
    /// It waits for a person and holds no lease.
    Parked,
    /// It was claimed too often without getting any further; a person decides.
    Quarantined,
    /// It ended with a result.
    Done,
    /// It ended with an error.
    Failed,
    /// It was cancelled, and what had to be undone is undone.
    Cancelled,
}

impl RunState {
    /// Every state.
    pub const ALL: [RunState; 8] = [
        RunState::Ready,
        RunState::Running,
        RunState::Waiting,
        RunState::Parked,
        RunState::Quarantined,
        RunState::Done,
        RunState::Failed,
        RunState::Cancelled,
    ];

    /// The state's name in API and docs.
    pub const fn name(self) -> &'static str {
        match self {
            RunState::Ready => "ready",
            RunState::Running => "running",
            RunState::Waiting => "waiting",
            RunState::Parked => "parked",
            RunState::Quarantined => "quarantined",
            RunState::Done => "done",
            RunState::Failed => "failed",
            RunState::Cancelled => "cancelled",
        }
    }

    /// Whether it never changes again.
    pub const fn is_final(self) -> bool {
        match self {
            RunState::Done | RunState::Failed | RunState::Cancelled => true,
            RunState::Ready | RunState::Running | RunState::Waiting | RunState::Parked | RunState::Quarantined => false,
        }
    }
}

/// What a step is, for people and for what may journal it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// Code of a worker's own.
    Code,
    /// A call of a model.
    Model,
    /// A call of a tool.
    Tool,
    /// A question to a person.
    Human,
    /// A wait for a timer or a signal.
    Wait,
    /// The undoing of an earlier step.
    Undo,
}

impl StepKind {
    /// The kind's name in API and docs.
    pub const fn name(self) -> &'static str {
        match self {
            StepKind::Code => "code",
            StepKind::Model => "model",
            StepKind::Tool => "tool",
            StepKind::Human => "human",
            StepKind::Wait => "wait",
            StepKind::Undo => "undo",
        }
    }
}

/// How often, how long and for how much one step is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryBudget {
    /// The most attempts, the first included; at least 1.
    pub attempts: u32,
    /// No attempt begins later than this after the first.
    #[serde(with = "maybe_millis", rename = "within_ms", skip_serializing_if = "Option::is_none")]
    pub within: Option<Duration>,
    /// No attempt begins once so much has been spent on the step.
    #[serde(rename = "cost_max_usd", skip_serializing_if = "Option::is_none")]
    pub cost_max: Option<Usd>,
    /// The wait before the second attempt; it doubles with each, with jitter.
    #[serde(with = "millis", rename = "base_ms")]
    pub base: Duration,
    /// The longest wait between two attempts.
    #[serde(with = "millis", rename = "cap_ms")]
    pub cap: Duration,
    /// What becomes of the step when nothing of this is left.
    pub exhausted: Exhausted,
}

impl Default for RetryBudget {
    /// Four attempts, 1 s to 60 s apart, then a person.
    fn default() -> Self {
        RetryBudget {
            attempts: 4,
            within: None,
            cost_max: None,
            base: Duration::from_secs(1),
            cap: Duration::from_secs(60),
            exhausted: Exhausted::Escalate,
        }
    }
}

/// What becomes of a step whose budget is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exhausted {
    /// A person decides.
    #[default]
    Escalate,
    /// It has failed.
    Fail,
}

/// Why work waits for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EscalationKind {
    /// A request to the gateway that no path could answer.
    Call,
    /// It must not happen before a person agrees.
    Approval,
    /// It may have happened, and nobody can tell.
    UnknownEffect,
    /// Every attempt its budget allows has failed.
    Exhausted,
    /// The answer is less sure than it has to be, or broke its contract.
    LowConfidence,
    /// Workers die of it, or give it back, without getting any further.
    Poison,
    /// A step of the workflow that asks a person.
    Human,
    /// What had to be undone could not be undone.
    Compensation,
}

impl EscalationKind {
    /// Every kind.
    pub const ALL: [EscalationKind; 8] = [
        EscalationKind::Call,
        EscalationKind::Approval,
        EscalationKind::UnknownEffect,
        EscalationKind::Exhausted,
        EscalationKind::LowConfidence,
        EscalationKind::Poison,
        EscalationKind::Human,
        EscalationKind::Compensation,
    ];

    /// The kind's name in API and docs.
    pub const fn name(self) -> &'static str {
        match self {
            EscalationKind::Call => "call",
            EscalationKind::Approval => "approval",
            EscalationKind::UnknownEffect => "unknown_effect",
            EscalationKind::Exhausted => "exhausted",
            EscalationKind::LowConfidence => "low_confidence",
            EscalationKind::Poison => "poison",
            EscalationKind::Human => "human",
            EscalationKind::Compensation => "compensation",
        }
    }

    /// What may be decided, the safest first. What is not here would guess, or has nothing to act on.
    pub const fn choices(self) -> &'static [Verb] {
        match self {
            EscalationKind::Call => &[Verb::Edit, Verb::Cancel],
            EscalationKind::Approval => &[Verb::Approve, Verb::Edit, Verb::Deny, Verb::Skip, Verb::Cancel],
            EscalationKind::UnknownEffect => &[Verb::Happened, Verb::DidNot, Verb::Skip, Verb::Cancel],
            EscalationKind::Exhausted => &[Verb::Retry, Verb::Choose, Verb::Edit, Verb::Skip, Verb::Cancel],
            EscalationKind::LowConfidence => {
                &[Verb::Approve, Verb::Edit, Verb::Retry, Verb::Choose, Verb::Deny, Verb::Skip, Verb::Cancel]
            }
            EscalationKind::Poison => &[Verb::Retry, Verb::Cancel],
            EscalationKind::Human => &[Verb::Approve, Verb::Edit, Verb::Deny, Verb::Skip, Verb::Cancel],
            EscalationKind::Compensation => &[Verb::Retry, Verb::Happened, Verb::Skip],
        }
    }
}

/// What a person decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// As it was shown: it may happen, or it is the answer.
    Approve,
    /// As the person changed it: other arguments for what is to happen, or another output.
    Edit,
    /// It must not happen.
    Deny,
    /// Once more, with a fresh budget.
    Retry,
    /// Once more, with the target or tool the person names.
    Choose,
    /// It did happen, and this is its result.
    Happened,
    /// It did not happen: it may be tried.
    DidNot,
    /// Go on without it.
    Skip,
    /// End the run.
    Cancel,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Verb; 9] = [
        Verb::Approve,
        Verb::Edit,
        Verb::Deny,
        Verb::Retry,
        Verb::Choose,
        Verb::Happened,
        Verb::DidNot,
        Verb::Skip,
        Verb::Cancel,
    ];

    /// The verb's name in API, CLI and docs.
    pub const fn name(self) -> &'static str {
        match self {
            Verb::Approve => "approve",
            Verb::Edit => "edit",
            Verb::Deny => "deny",
            Verb::Retry => "retry",
            Verb::Choose => "choose",
            Verb::Happened => "happened",
            Verb::DidNot => "did_not",
            Verb::Skip => "skip",
            Verb::Cancel => "cancel",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Durations as whole milliseconds.
mod millis {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

/// Durations that may be absent, as whole milliseconds.
mod maybe_millis {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::millis::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}
