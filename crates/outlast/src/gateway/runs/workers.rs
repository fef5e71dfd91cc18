//! Workers: who is there, who is told to stop claiming, who is gone.

use super::{super::body::ReplyBody, Cx, Denial, claim::accepts, read::Fields, view};
use http::{HeaderMap, Response, StatusCode};
use hyper::body::Incoming;
use outlast_model::Wall;
use outlast_store::{DrainWorker, SeeWorker, WorkerView};
use outlast_wire::error::Refused;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// Queues that one worker names.
const QUEUES_MAX: usize = 32;
/// A worker that was not seen for so long is shown as gone: more than twice the longest wait of a claim.
pub(super) const GONE_AFTER: Duration = Duration::from_secs(150);

/// `POST /v1/workers`: a worker says that it is there. A claim says so too.
pub(super) async fn register(cx: &Cx, headers: &HeaderMap, body: Incoming) -> Result<Response<ReplyBody>, Denial> {
    let known = ["worker", "label", "queues", "accepts", "standby"];
    let (fields, _held) = Fields::of(&cx.shared, &cx.live, headers, body, &known).await?;
    let worker = fields.must_name("worker")?;
    let queues = fields.names("queues", QUEUES_MAX)?;
    queues.iter().try_for_each(|queue| super::api::reserved(queue, "queues"))?;
    let command = SeeWorker {
        tenant: Some(cx.asker.tenant.clone()),
        label: fields.name("label")?.unwrap_or_else(|| worker.clone()),
        queues,
        accepts: accepts(&fields)?,
        standby: fields.flag("standby")?,
        worker: worker.clone(),
    };
    cx.stored(cx.shared.store.see_worker(command)).await?;
    Ok(cx.ok(&json!({ "worker": worker })))
}

/// `POST /v1/workers/{id}/drain`, `DELETE /v1/workers/{id}`.
pub(super) async fn drain(cx: &Cx, worker: Arc<str>, gone: bool) -> Result<Response<ReplyBody>, Denial> {
    let tenant = (!cx.asker.sees_all).then(|| cx.asker.tenant.clone());
    let command = DrainWorker { tenant, worker: worker.clone(), gone };
    if !cx.stored(cx.shared.store.drain_worker(command)).await? {
        return Err(Denial::new(Refused::NoSuchRun, "You have no such worker, or it was forgotten."));
    }
    let state = if gone { "gone" } else { "draining" };
    Ok(cx.answer(StatusCode::OK, &json!({ "worker": worker, "state": state })))
}

/// `GET /v1/workers`: those seen last first.
pub(super) async fn list(cx: &Cx) -> Result<Response<ReplyBody>, Denial> {
    let workers = cx.stored(cx.shared.store.workers()).await?;
    let now = cx.stored(cx.shared.store.now()).await?;
    let own = |worker: &&WorkerView| cx.asker.sees_all || worker.tenant.as_ref() == Some(&cx.asker.tenant);
    let shown = workers.iter().filter(own).map(|worker| view::worker(worker, state(worker, now), cx.asker.is_operator));
    Ok(cx.ok(&json!({ "workers": shown.collect::<Vec<Value>>() })))
}

/// How a worker is doing.
pub(super) fn state(worker: &WorkerView, now: Wall) -> &'static str {
    let unseen = Duration::from_millis(u64::try_from(now.0.saturating_sub(worker.seen_at.0)).unwrap_or(0));
    if unseen > GONE_AFTER {
        "gone"
    } else if worker.draining {
        "draining"
    } else if !worker.holds.is_empty() {
        "busy"
    } else if worker.standby {
        "standby"
    } else {
        "idle"
    }
}
