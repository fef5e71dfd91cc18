//! Tools: called once where the world lets us promise it, and never guessed about where it does not.
//!
//! Read in the order of a call: [`serve`] (`POST /v1/tools/{name}`), [`mod@perform`] (what is asked, whether it may be, how
//! long it is tried), [`approval`] (what a person is asked), [`ledger`] (intent and outcome, around one attempt),
//! [`attempt`] (which tool, with what, and what its answer means), then how it is reached: [`http`], [`mcp`],
//! [`worker`]. [`health`] keeps from asking what is down; [`verify`] finds out what became of what nobody answered.
//! `docs/tools.md` says what is promised.

mod approval;
mod attempt;
mod health;
mod http;
mod ledger;
mod mcp;
mod perform;
mod serve;
mod verify;
mod worker;

pub(crate) use perform::perform;
pub(super) use serve::answer;
pub(super) use verify::look_after;

use crate::config::Config;
use ::http::HeaderValue;
use outlast_engine::run::MayNotBegin;
use outlast_model::{
    TenantId, ToolName,
    policy::ToolMode,
    run::{EscalationKind, RetryBudget},
};
use outlast_store::{Epoch, Payload, Place, RunRef, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{future::Future, sync::Arc, time::Duration};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};

/// Attempts at tools under way at one time. At the limit a call is told to come again shortly; nothing is begun.
const AT_ONCE_MAX: u32 = 1024;

/// What tools need beyond one call; part of [`super::Shared`].
pub(crate) struct Tools {
    health: health::Health,
    mcp: mcp::Servers,
    /// Attempts run here, not where the client's connection lives: a client that leaves cancels nothing that was sent.
    runtime: Handle,
    room: Arc<Semaphore>,
}

impl Tools {
    /// On the current runtime.
    pub(super) fn new(seed: u64) -> Self {
        let room = Arc::new(Semaphore::new(AT_ONCE_MAX as usize));
        Tools { health: health::Health::new(seed), mcp: mcp::Servers::default(), runtime: Handle::current(), room }
    }

    /// Another config is in force: MCP servers that are not in it as they were are let go.
    pub(super) fn configure(&self, config: &Config) {
        self.mcp.keep(&config.mcp);
    }

    /// Room for one more attempt.
    fn room(&self) -> Option<OwnedSemaphorePermit> {
        self.room.clone().try_acquire_owned().ok()
    }

    /// Does work that nobody's leaving cancels. `permit` is given back at its end.
    fn go<T: Send + 'static>(
        &self,
        permit: OwnedSemaphorePermit,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.runtime.spawn(async move {
            let done = work.await;
            drop(permit);
            done
        })
    }

    /// Waits for the attempts under way, at most `patience`; what is left is cut, and its outcome is unknown. Then MCP
    /// servers are let go.
    pub(super) async fn finish(&self, patience: Duration) {
        let _ = crate::clock::timeout(patience, self.room.acquire_many(AT_ONCE_MAX)).await;
        self.mcp.keep(&std::collections::BTreeMap::new());
    }
}

/// A tool to be called.
#[derive(Clone, Debug)]
pub(crate) struct ToolCall {
    /// On whose behalf.
    pub(crate) tenant: TenantId,
    /// Which, as the config names it.
    pub(crate) tool: ToolName,
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
        tool: Option<ToolName>,
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

impl Performed {
    /// For metrics.
    fn name(&self) -> &'static str {
        match self {
            Performed::Done { replayed: true, .. } | Performed::Failed { replayed: true, .. } => "replayed",
            Performed::Done { .. } => "done",
            Performed::Failed { .. } => "failed",
            Performed::Parked { .. } => "parked",
            Performed::Wait { unknown: true, .. } => "unknown",
            Performed::Wait { .. } => "waits",
            Performed::InFlight { .. } => "in_flight",
            Performed::Mismatch => "mismatch",
            Performed::Refused(_) | Performed::NoRun => "refused",
            Performed::Denied(_) => "denied",
            Performed::Down(_) => "store",
        }
    }
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ToolError {
    /// What happened, in a sentence.
    pub(crate) message: String,
    /// The class of failure: `tool_failed`, or what a worker named.
    #[serde(default = "tool_failed")]
    pub(crate) failure: Arc<str>,
    /// What it was: `http_404`, `timeout`, `unreachable`, `result_schema`, `tool_error`... `docs/tools.md` has the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<Arc<str>>,
    /// The tool that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tool: Option<ToolName>,
    /// What the tool itself said: JSON or text, shortened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) said: Option<Value>,
}

impl ToolError {
    fn new(code: &str, message: impl Into<String>) -> Self {
        ToolError { message: message.into(), failure: tool_failed(), code: Some(code.into()), tool: None, said: None }
    }

    /// With what the tool itself said: JSON if it is, else text, shortened.
    fn saying(mut self, said: &[u8]) -> Self {
        self.said = (!said.is_empty()).then(|| shortened(said));
        self
    }

    fn of(mut self, tool: &ToolName) -> Self {
        self.tool.get_or_insert_with(|| tool.clone());
        self
    }

    /// As it is kept.
    fn kept(&self) -> Payload {
        Payload::from(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads one that was kept, by a tool's call or by a program's own step.
    pub(crate) fn read(kept: &[u8]) -> Self {
        serde_json::from_slice(kept).unwrap_or_else(|_| ToolError::new("error", "It failed.").saying(kept))
    }
}

/// How much of a tool's own words an error keeps.
const SAID_MAX: usize = 8 << 10;

fn shortened(said: &[u8]) -> Value {
    match serde_json::from_slice(said) {
        Ok(value) if said.len() <= SAID_MAX => value,
        Ok(_) | Err(_) => String::from_utf8_lossy(&said[..said.len().min(SAID_MAX)]).into_owned().into(),
    }
}

fn tool_failed() -> Arc<str> {
    "tool_failed".into()
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
