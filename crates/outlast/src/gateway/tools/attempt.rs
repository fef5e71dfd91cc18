//! One attempt: which tool, with what, and what its answer means.

use super::{
    super::{Shared, live::Live},
    ToolError,
    health::Sign,
    http, worker,
};
use crate::{config::Tool, telemetry::LogEvent};
use ::http::HeaderValue;
use outlast_engine::run::Proof;
use outlast_model::{TenantId, ToolName, policy::ToolKind, run::EffectClass};
use serde_json::Value;
use std::{sync::Arc, time::Duration};

/// What is to be sent.
pub(super) struct Errand<'a> {
    /// On whose behalf.
    pub(super) tenant: &'a TenantId,
    /// To whom.
    pub(super) tool: &'a Tool,
    /// The class of the entry it is sent for: an alternative is sent under that of the first.
    pub(super) class: EffectClass,
    /// What.
    pub(super) arguments: &'a Value,
    /// The receiver's key; none of a pure call that is not written down.
    pub(super) key: Option<&'a str>,
    /// The claim.
    pub(super) epoch: Option<i64>,
    /// The attempt's number.
    pub(super) attempt: u32,
    /// How long it may take.
    pub(super) timeout: Duration,
    /// The trace it belongs to.
    pub(super) traceparent: Option<&'a HeaderValue>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// It took place, and this is its result.
    Done(Value),
    /// It surely did not take place.
    Failed {
        /// Why.
        error: ToolError,
        /// Whether it would fail again.
        proof: Proof,
        /// Whether that speaks against the tool.
        fault: bool,
    },
    /// It may have taken place. Speaks against the tool.
    Unknown(ToolError),
}

impl Outcome {
    /// The request was refused, and would be again.
    pub(super) fn refused(error: ToolError) -> Self {
        Outcome::Failed { error, proof: Proof::Final, fault: false }
    }

    /// The tool was not there. It may be later.
    pub(super) fn away(error: ToolError) -> Self {
        Outcome::Failed { error, proof: Proof::Again { after: Duration::ZERO }, fault: true }
    }

    /// A result, or a refusal that every other tool of its kind would have to give as well.
    pub(super) fn is_an_answer(&self) -> bool {
        match self {
            Outcome::Done(_) | Outcome::Failed { proof: Proof::Final, .. } => true,
            Outcome::Failed { proof: Proof::Again { .. }, .. } | Outcome::Unknown(_) => false,
        }
    }

    /// With the tool's name in its error.
    pub(super) fn named(self, tool: &ToolName) -> Self {
        match self {
            Outcome::Done(_) => self,
            Outcome::Failed { error, proof, fault } => Outcome::Failed { error: error.of(tool), proof, fault },
            Outcome::Unknown(error) => Outcome::Unknown(error.of(tool)),
        }
    }

    fn sign(&self, took: Duration, timeout: Duration) -> Sign {
        match self {
            Outcome::Done(_) => Sign::answered(took, timeout),
            Outcome::Failed { fault: true, .. } | Outcome::Unknown(_) => Sign::Fault,
            Outcome::Failed { fault: false, proof: Proof::Final, .. } => Sign::Answered,
            Outcome::Failed { fault: false, proof: Proof::Again { .. }, .. } => Sign::Nothing,
        }
    }

    /// For metrics and the log.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Outcome::Done(_) => "done",
            Outcome::Failed { proof: Proof::Final, .. } => "refused",
            Outcome::Failed { proof: Proof::Again { .. }, .. } => "unavailable",
            Outcome::Unknown(_) => "unknown",
        }
    }
}

/// Sends it, once, and notes what that says of the tool's health.
pub(super) async fn send(shared: &Arc<Shared>, live: &Live, errand: &Errand<'_>) -> Outcome {
    let begun = shared.clock.mono();
    let outcome = match &errand.tool.spec.kind {
        ToolKind::Http { method, key_header } => match &errand.tool.http {
            Some(at) => http::call(errand, at, *method, key_header).await,
            None => Outcome::refused(ToolError::new("config", "The tool has no address.")),
        },
        ToolKind::Mcp { server, tool } => match live.config.mcp.get(server) {
            Some(server) => shared.tools.mcp.call(shared, server, tool, errand).await,
            None => Outcome::refused(ToolError::new("config", "The tool's MCP server is not configured.")),
        },
        ToolKind::Worker { queue } => worker::call(shared, errand, queue).await,
    };
    let now = shared.clock.mono();
    let took = now.since(begun);
    let name = &errand.tool.spec.name;
    let sign = match errand.tool.spec.kind {
        // How long a worker takes is its own affair, and its queue's.
        ToolKind::Worker { .. } => Sign::Nothing,
        ToolKind::Http { .. } | ToolKind::Mcp { .. } => outcome.sign(took, errand.timeout),
    };
    if let Some(pause) = shared.tools.health.note(name, sign, now) {
        let event = LogEvent::warn("tool_breaker_opened", "a tool failed too often in a row and is not asked for now");
        let event = event.with("tool", name.to_string()).with("outcome", outcome.name());
        shared.telemetry.event(event.with("pause_ms", u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)));
    }
    let metrics = &shared.telemetry.metrics().tools;
    metrics.attempt(name, outcome.name(), took);
    metrics.state(name, shared.tools.health.state(name, now));
    outcome
}
