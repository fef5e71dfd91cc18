//! What is tried when every path is spent: the route's backstops, in order.

use super::{
    Shared,
    live::{Live, LiveRoute},
};
use outlast_model::{
    FailureReport, RequestId,
    policy::Backstop,
    record::{GaveUp, WorkflowState},
};
use outlast_wire::{Inbound, compose::Said};
use serde_json::Value;
use std::{sync::Arc, time::Duration};

/// The call that a backstop works for.
#[derive(Clone)]
pub(super) struct Cx {
    pub(super) shared: Arc<Shared>,
    pub(super) live: Arc<Live>,
    pub(super) route: Arc<LiveRoute>,
    pub(super) inbound: Arc<Inbound>,
    pub(super) request_id: RequestId,
    /// The hash of the caller's key.
    pub(super) tenant: Option<Box<str>>,
    pub(super) state: Option<WorkflowState>,
    /// Of how many calls it is on behalf.
    pub(super) depth: u8,
}

/// What a backstop came to.
pub(super) enum Ended {
    /// It has a reply, which is checked like any other.
    Said { said: Said, gave_up: GaveUp },
    /// The answer comes later, or from a person.
    Deferred(Deferral),
    /// It has nothing to give; why, for the log.
    Declined(&'static str),
}

/// What a client is told whose answer comes later: a 202, or a stream's end where its head was sent.
pub(super) struct Deferral {
    /// A valid reply that says so.
    pub(super) said: Said,
    /// Members of the `outlast` object: `queue`, `escalation` or `confirm`.
    pub(super) facts: Value,
    /// Where to look for the answer: `Location`. A question to the user has none: the client asks again.
    pub(super) location: Option<String>,
    /// When to look first: `Retry-After`.
    pub(super) retry_after: Option<Duration>,
    pub(super) gave_up: GaveUp,
}

/// Runs a backstop. Dropping the future leaves nothing half done.
pub(super) async fn run(_cx: &Cx, _backstop: &Backstop, _cause: &FailureReport) -> Ended {
    Ended::Declined("not built")
}
