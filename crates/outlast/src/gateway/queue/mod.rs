//! The durable queue: a request that nobody can answer now is kept, answered when a target is healthy, and fetched by
//! its caller. [`work`] answers, [`webhook`] announces.
//!
//! A queued request is answered once, whatever dies in between: its end is written in one transaction that only the
//! holder of the claim can make. The model itself may be asked again after a crash.

mod payload;
mod webhook;
mod work;

pub(super) use work::{Queue, Workers};

use super::{
    Shared,
    backstops::{Cx, Deferral, Ended},
    body::ReplyBody,
    live::Live,
    serve::{Denial, caller},
    store::{down, shown, tenant},
};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use outlast_model::{RequestId, policy::Priority, record::GaveUp};
use outlast_store::{Enqueue, Enqueued, QueueState, QueuedView};
use outlast_wire::error::Refused;
use payload::{Asked, Finished};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// When a client may look for the first time, and again.
const LOOK_AFTER: Duration = Duration::from_secs(5);
/// Its place in the order: `x-outlast-priority`.
pub(super) const PRIORITY: http::HeaderName = http::HeaderName::from_static("x-outlast-priority");

/// The priority a client asked for.
///
/// # Errors
/// When it is none of the four.
pub(super) fn priority(headers: &HeaderMap) -> Result<Priority, Denial> {
    let Some(value) = headers.get(&PRIORITY) else { return Ok(Priority::Normal) };
    let named = value.to_str().ok().and_then(|value| value.trim().parse().ok());
    named.ok_or_else(|| {
        let message = "Header `x-outlast-priority` must be critical, high, normal or low.";
        Denial::new(Refused::BadRequest, message)
    })
}

/// The backstop.
pub(super) async fn enqueue(cx: &Cx, expires: Duration, webhook: Option<Arc<str>>) -> Ended {
    let Some(secret) = cx.shared.clock.secret() else { return Ended::Declined("the system gives no entropy") };
    let id = format!("q_{secret}");
    let queued = Enqueue {
        id: id.as_str().into(),
        tenant: tenant(cx.tenant.as_deref()),
        route: cx.route.id().clone(),
        priority: cx.priority,
        payload: Asked::of(cx).sealed(),
        expires_in: expires,
        webhook,
    };
    match cx.shared.stored(cx.shared.store.enqueue(queued)).await {
        Ok(Enqueued::Queued { position }) => {
            cx.shared.telemetry.metrics().durable.queued.add(1);
            cx.shared.queue.wake();
            let poll_url = poll_url(&id);
            let expires_at = shown(cx.shared.clock.wall(), expires);
            let facts = json!({ "id": id, "poll_url": poll_url, "expires_at": expires_at, "position": position });
            Ended::Deferred(Deferral {
                // The text is the notice: the contract may word it.
                said: cx.say(""),
                facts: json!({ "queue": facts }),
                location: Some(poll_url),
                retry_after: Some(LOOK_AFTER),
                gave_up: GaveUp::Immediacy,
            })
        }
        Ok(Enqueued::Full { of_tenant: true }) => Ended::Declined("the caller's share of the queue is full"),
        Ok(Enqueued::Full { of_tenant: false }) => Ended::Declined("the queue is full"),
        Err(_) => Ended::Declined("the store does not answer"),
    }
}

fn poll_url(id: &str) -> String {
    format!("/v1/queue/{id}")
}

/// `GET /v1/queue/{id}`: for the caller whose request it is.
pub(super) async fn show(
    shared: &Shared,
    live: &Live,
    headers: &HeaderMap,
    request_id: &RequestId,
    id: &str,
) -> Result<Response<ReplyBody>, Denial> {
    let caller = caller(live, headers)?.0.map(|key| key.short());
    let found = shared.store.queued(tenant(caller.as_deref()), id.into());
    let found = shared.stored(found).await.map_err(|error| down(&error))?;
    // Another caller's request is as good as unknown.
    let missing = || Denial::new(Refused::NoSuchPath, "No such request is queued, or its end is no longer kept.");
    let view = found.ok_or_else(missing)?;
    match &view.state {
        QueueState::Waiting { position } => Ok(waits(request_id, id, &view, "waiting", Some(*position))),
        QueueState::Running => Ok(waits(request_id, id, &view, "running", None)),
        QueueState::Done(payload) | QueueState::Failed(payload) => Finished::open(payload)
            .map(Finished::respond)
            .ok_or_else(|| Denial::new(Refused::Internal, "What was kept of this request cannot be read.")),
        QueueState::Expired => {
            let message = "This request was not answered in time. Nothing was done. Send it again if it still matters.";
            Err(Denial::new(Refused::Expired, message))
        }
    }
}

fn waits(
    request_id: &RequestId,
    id: &str,
    view: &QueuedView,
    state: &str,
    position: Option<u64>,
) -> Response<ReplyBody> {
    let mut queue = json!({
        "id": id,
        "state": state,
        "poll_url": poll_url(id),
        "route": view.route,
        "enqueued_at": shown(view.enqueued_at, Duration::ZERO),
        "expires_at": shown(view.expires_at, Duration::ZERO),
        "tries": view.attempts,
    });
    if let Some(position) = position {
        queue["position"] = Value::from(position);
    }
    let answer = super::admin::Answer::json(StatusCode::ACCEPTED, json!({ "queue": queue }));
    let mut response = answer.respond(request_id);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(LOOK_AFTER.as_secs()));
    response
}
