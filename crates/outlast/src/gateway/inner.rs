//! Calls on behalf of others: a judge, a vote, a queued request, a golden task. Complete calls, with failover, gates and
//! a record of their own; only nobody's connection hangs on them.

use super::{
    Shared,
    drive::{Driver, Facts},
    live::{Live, LiveRoute},
    serve::primary,
};
use crate::telemetry::TraceContext;
use http::{HeaderName, HeaderValue};
use outlast_engine::{Ask, BoundRoute};
use outlast_model::{
    FailureReport, RequestId, RunId, Usd,
    policy::Priority,
    record::{CallRecord, Parent, Role, WorkflowState},
};
use outlast_wire::{Inbound, compose::Said, plan::Intent};
use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

/// How deep calls may be nested: a judge's route may itself have a judge, whose route has one. Config rejects loops;
/// this holds even so.
pub(super) const DEPTH_MAX: u8 = 3;

/// A call on behalf of another.
pub(super) struct Inner {
    /// Whom to ask.
    pub(super) route: Arc<LiveRoute>,
    /// What.
    pub(super) inbound: Arc<Inbound>,
    /// The most it may cost; the tier's cap holds if it is lower.
    pub(super) budget: Option<Usd>,
    /// The longest it may take; the tier's deadline holds if it is shorter.
    pub(super) deadline: Option<Duration>,
    /// What for.
    pub(super) role: Role,
    /// On whose behalf.
    pub(super) parent: RequestId,
    /// The run it is a step of, or on behalf of.
    pub(super) run: Option<RunId>,
    /// The hash of the key of whoever is behind it.
    pub(super) tenant: Option<Box<str>>,
    /// The workflow state that came with it.
    pub(super) state: Option<WorkflowState>,
    /// Headers that same-dialect targets are given too.
    pub(super) passed: Vec<(HeaderName, HeaderValue)>,
    /// Of how many calls it is on behalf; at least 1.
    pub(super) depth: u8,
}

/// How a call on behalf of another ended.
pub(super) struct Answered {
    /// The validated reply, or why there is none. What a degraded one is without is in the record.
    pub(super) result: Result<Said, FailureReport>,
    /// The last reply that was judged, and not good enough.
    pub(super) refused: Option<Said>,
    /// The actions in the reply that were not taken.
    pub(super) plan: Vec<Intent>,
    /// Its lineage. It has been kept already, except a vote's, which becomes part of its election's.
    pub(super) record: Box<CallRecord>,
}

/// A call under way. Dropping it cancels the call, which settles it.
pub(super) type Asking = Pin<Box<dyn Future<Output = Answered> + Send>>;

/// The records of an election's votes, those cut short included.
pub(super) type Records = Arc<Mutex<Vec<CallRecord>>>;

/// Makes a call on behalf of another. It always buffers, and has no backstop: whoever asks decides what comes then.
pub(super) fn ask(shared: &Arc<Shared>, live: &Arc<Live>, inner: Inner) -> Asking {
    let bound = inner.route.inner.clone();
    let mut driver = Box::new(driver(shared, live, inner, bound));
    Box::pin(async move { driver.answer().await })
}

/// Asks for one vote: on this binding of the route, its record to be added to these.
pub(super) fn vote(
    shared: &Arc<Shared>,
    live: &Arc<Live>,
    inner: Inner,
    bound: BoundRoute,
    records: Records,
) -> Asking {
    let mut driver = Box::new(driver(shared, live, inner, bound));
    driver.collect_in(records);
    Box::pin(async move { driver.answer().await })
}

fn driver(shared: &Arc<Shared>, live: &Arc<Live>, inner: Inner, bound: BoundRoute) -> Driver {
    let Inner { route, inbound, budget, deadline, role, parent, run, tenant, state, passed, depth } = inner;
    let mut needs = inbound.needs();
    needs.budget = [needs.budget, budget].into_iter().flatten().min();
    let ask = Ask { id: shared.next_call_id(), route: bound, needs, deadline, seed: shared.clock.seed() };
    let request_id = match role {
        // Its record becomes part of the election's; whoever judges it is to find that.
        Role::Vote => parent.clone(),
        Role::Judge | Role::Queue | Role::Golden | Role::Step => shared.clock.request_id(),
    };
    let facts = Facts {
        request_id,
        trace: TraceContext::accept(None, &shared.clock),
        tracestate: None,
        task_id: None,
        run,
        workflow_step: state.as_ref().and_then(|state| state.step.clone()),
        tenant_hash: tenant,
        started: shared.clock.wall(),
        primary: primary(route.route()),
        trace_full: false,
        passed,
        priority: Priority::default(),
        state,
        gave_up: None,
        parent: Some(Parent { request_id: parent, role }),
        depth,
    };
    Driver::new(Arc::clone(shared), Arc::clone(live), route, ask, inbound, facts)
}
