//! The last good reply to the same request of the same caller.
//!
//! Kept are full, validated replies of routes that have a `cache` backstop: of one choice, ended by themselves, without
//! tool calls. A tool call is no answer: given again it would be carried out again.

use super::{
    Shared,
    backstops::{Cx, Ended},
    store::tenant,
};
use outlast_model::{
    policy::{BackstopKind, Route},
    record::GaveUp,
    turn::{Finish, Usage},
};
use outlast_store::{Payload, Recall, Remember};
use outlast_wire::compose::Said;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

/// Replies on their way to the store. Further ones are not kept, and that is counted: no client waits for this.
const ON_THE_WAY_MAX: u32 = 64;

/// How many are on their way; part of [`Shared`].
pub(super) type OnTheWay = AtomicU32;

/// Keeps a good reply, if the route has use for it. Returns at once.
pub(super) fn remember(cx: &Cx, said: &Said) {
    let Some(keep) = keeps(cx.route.route()).filter(|_| is_answer(said) && cx.inbound.choices() == 1) else { return };
    let shared = &cx.shared;
    if shared.caching.fetch_add(1, Ordering::Relaxed) >= ON_THE_WAY_MAX {
        shared.caching.fetch_sub(1, Ordering::Relaxed);
        shared.telemetry.metrics().durable.forgotten.add(1);
        return;
    }
    let payload = Payload::from(serde_json::to_vec(said).unwrap_or_default());
    let remember = Remember {
        tenant: tenant(cx.tenant.as_deref()),
        route: cx.route.id().clone(),
        fingerprint: cx.inbound.fingerprint(),
        payload,
        keep,
    };
    tokio::spawn(kept(shared.clone(), remember));
}

async fn kept(shared: Arc<Shared>, remember: Remember) {
    let kept = shared.stored(shared.store.remember(remember)).await;
    shared.caching.fetch_sub(1, Ordering::Relaxed);
    let durable = &shared.telemetry.metrics().durable;
    if kept.is_ok() { &durable.remembered } else { &durable.forgotten }.add(1);
}

/// Whether a route has use for kept replies.
pub(super) fn has(route: &Route) -> bool {
    keeps(route).is_some()
}

/// How long the route's replies are kept: as long as any of its `cache` backstops would give them.
fn keeps(route: &Route) -> Option<Duration> {
    let age = |kind: &BackstopKind| match kind {
        BackstopKind::Cache { max_age } => Some(*max_age),
        BackstopKind::Static { .. }
        | BackstopKind::Rules(_)
        | BackstopKind::Queue { .. }
        | BackstopKind::Confirm { .. }
        | BackstopKind::Escalate { .. }
        | BackstopKind::Fail { .. } => None,
    };
    route.backstops.iter().filter_map(|backstop| age(&backstop.kind)).max()
}

fn is_answer(said: &Said) -> bool {
    said.tool_calls.is_empty() && said.finish == Finish::Stop && !said.text.trim().is_empty()
}

/// The backstop.
pub(super) async fn recall(cx: &Cx, max_age: Duration) -> Ended {
    let recall = Recall {
        tenant: tenant(cx.tenant.as_deref()),
        route: cx.route.id().clone(),
        fingerprint: cx.inbound.fingerprint(),
        max_age,
    };
    match cx.shared.stored(cx.shared.store.recall(recall)).await {
        Ok(Some(kept)) => match serde_json::from_slice::<Said>(kept.payload.as_bytes()) {
            // It was paid for when it was new.
            Ok(said) => Ended::Said {
                said: Said { usage: Usage::default(), ..said },
                gave_up: GaveUp::Freshness { age_s: kept.age.as_secs() },
            },
            Err(_) => Ended::Declined("what was kept cannot be read"),
        },
        Ok(None) => Ended::Declined("no reply to this request is kept, or it is too old"),
        Err(_) => Ended::Declined("the store does not answer"),
    }
}
