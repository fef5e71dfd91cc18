//! Tools: called once where the world lets us promise it, and never guessed about where it does not.
//!
//! Read in the order of a call: [`serve`] (`POST /v1/tools/{name}`), [`perform`] (what is asked, whether it may be).

#![allow(dead_code)] // What is written here is called by what comes next.

mod perform;
mod serve;

pub(crate) use perform::perform;
pub(super) use serve::answer;

use http::HeaderValue;
use outlast_engine::run::MayNotBegin;
use outlast_model::{
    TenantId,
    policy::ToolMode,
    run::{EscalationKind, RetryBudget},
};
use outlast_store::{Epoch, Payload, Place, RunRef, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{sync::Arc, time::Duration};

/// A tool to be called.
#[derive(Clone, Debug)]
pub(crate) struct ToolCall {
    /// On whose behalf.
    pub(crate) tenant: TenantId,
    /// Which, as the config names it.
    pub(crate) tool: Arc<str>,
    /// With what.
    pub(crate) arguments: Value,
    /// Where it is written down.
    pub(crate) by: By,
    /// What may be done with tools here.
    pub(crate) mode: ToolMode,
    /// How often it may be tried, where that is not left to the tool.
    pub(crate) retry: Option<RetryBudget>,
    /// What undoes it, kept with the intent.
    pub(crate) undo: Option<Payload>,
    /// It undoes the step of this key: it is a step of kind `undo`, and may run in a run that is cancelled.
    pub(crate) undoes: Option<Arc<str>>,
    /// How long it may pause in all for tries that come later; a longer pause is answered with [`Performed::Wait`].
    pub(crate) patience: Duration,
    /// The trace it belongs to, as the tool is told.
    pub(crate) traceparent: Option<HeaderValue>,
}

/// Where a tool's call is written down.
#[derive(Clone, Debug)]
pub(crate) enum By {
    /// Nowhere, if it has no key and its tool is pure; else in the tenant's ledger, under the tool's name and this key.
    Standalone {
        /// The caller's `Idempotency-Key`.
        key: Option<Arc<str>>,
    },
    /// As a step of a run.
    Step {
        /// Of which.
        run: RunRef,
        /// Under which key of its journal.
        key: Arc<str>,
        /// The run's claim, if it is claimed: nothing begins without it.
        epoch: Option<Epoch>,
        /// The business key: the effect is then kept in the tenant's ledger, under the tool's name and this, and another
        /// run that names the same gets the same end.
        business: Option<Arc<str>>,
    },
}

/// What became of a call.
#[derive(Clone, Debug)]
pub(crate) enum Performed {
    /// It took place.
    Done {
        /// Its result: JSON, as it is kept.
        result: Payload,
        /// It had taken place before.
        replayed: bool,
        /// Who did it, the call itself or an alternative; none of what is replayed.
        tool: Option<Arc<str>>,
        /// Attempts of this call; 0 of what is replayed.
        attempts: u32,
    },
    /// It failed for good.
    Failed {
        /// Its error.
        error: ToolError,
        /// It had failed before.
        replayed: bool,
    },
    /// It waits for a person, and so does its run.
    Parked {
        /// Why.
        why: EscalationKind,
        /// The escalation.
        escalation: Arc<str>,
    },
    /// Not yet: call it again, the same, after this.
    Wait {
        /// How long.
        after: Duration,
        /// Its outcome is unknown, and is looked into then. Else it surely has not happened.
        unknown: bool,
        /// The last error, if it is known here.
        error: Option<ToolError>,
    },
    /// Somebody is at it.
    InFlight {
        /// How long that claim stands unless it is renewed.
        after: Duration,
    },
    /// The key stands for something else.
    Mismatch,
    /// The run says no.
    Refused(MayNotBegin),
    /// There is no such run.
    NoRun,
    /// It may not be called, or not so. Nothing was written down.
    Denied(Denied),
    /// The store cannot be used. Nothing was sent that is not written down.
    Down(StoreError),
}

/// Why a call goes no further than its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// There is no such tool.
    NoSuchTool,
    /// The tool mode forbids it.
    Mode(ToolMode),
    /// Its arguments break the tool's schema: where, in the schema's words.
    Arguments(Vec<String>),
    /// It changes the world, and nothing names it.
    NoKey,
}

/// Why a tool failed. Kept as a step's error, and shown to whoever called it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ToolError {
    /// What happened, in a sentence.
    pub(crate) message: String,
    /// Always `tool_failed`.
    #[serde(default)]
    pub(crate) failure: String,
    /// What kind of failure: `status_404`, `timeout`, `refused`, `schema`, `tool_error`...
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) code: String,
    /// The tool that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tool: Option<Arc<str>>,
    /// What the tool itself said: JSON or text, shortened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) said: Option<Value>,
}

/// The key that a receiver is given for an entry: the same for all its attempts and for alternatives.
pub(crate) fn idempotency_key(place: &Place) -> String {
    let (tenant, scope, key) = match place {
        Place::Step { run, key } => (&run.tenant, run.id.as_str(), key),
        Place::Effect { tenant, scope, key } => (tenant, &**scope, key),
    };
    let mut hash = blake3::Hasher::new();
    // Lengths keep apart what would read the same joined.
    for part in [tenant.as_str(), scope, key] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    format!("ol-{}", &hash.finalize().to_hex()[..32])
}
