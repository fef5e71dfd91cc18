//! How a run ends, is given back, cancelled or moved to another version.

use super::{
    super::body::ReplyBody,
    Cx, Denial, lost, no_run,
    read::{Fields, SaidError, bad},
};
use crate::failpoint;
use http::{HeaderMap, Response, StatusCode};
use hyper::body::Incoming;
use outlast_model::{RunId, run::RunState};
use outlast_store::{CancelRun, Cancelling, Fenced, FinishRun, MigrateRun, Payload, ReleaseRun, RunRef};
use outlast_wire::error::Refused;
use serde_json::json;

/// `POST /v1/runs/{id}/finish`.
pub(super) async fn finish(
    cx: &Cx,
    id: &RunId,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Response<ReplyBody>, Denial> {
    let known = ["epoch", "ok", "error", "cancelled"];
    let (fields, _held) = Fields::of(&cx.shared, &cx.live, headers, body, &known).await?;
    let (state, output) = how(&fields)?;
    let run = cx.run(id);
    let command = FinishRun { run: run.clone(), epoch: fields.epoch()?, state, output };
    match cx.stored(cx.shared.store.finish_run(command)).await? {
        Fenced::Held => {}
        Fenced::Lost => return Err(lost_or_none(cx, &run).await),
    }
    failpoint::pass("run.finished");
    cx.shared.runs.ended(&run);
    cx.shared.telemetry.metrics().runs.finished(state);
    Ok(cx.ok(&json!({ "state": state.name() })))
}

fn how(fields: &Fields) -> Result<(RunState, Payload), Denial> {
    let cancelled = fields.flag("cancelled")?;
    match (fields.has("ok"), fields.has("error"), cancelled) {
        (true, false, false) => Ok((RunState::Done, fields.payload("ok")?.unwrap_or_default())),
        (false, true, false) => {
            // Its form is held to; the bytes are kept.
            let _: Option<SaidError> = fields.nested("error")?;
            Ok((RunState::Failed, fields.payload("error")?.unwrap_or_default()))
        }
        (false, false, true) => Ok((RunState::Cancelled, Payload::new("null"))),
        _ => Err(bad("ok", "Say how it ended with one of `ok` (its result), `error` and `cancelled` (true).")),
    }
}

async fn lost_or_none(cx: &Cx, run: &RunRef) -> Denial {
    match cx.view(run).await {
        Ok(_) => lost(),
        Err(denial) => denial,
    }
}

/// `POST /v1/runs/{id}/release`.
pub(super) async fn release(
    cx: &Cx,
    id: &RunId,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Response<ReplyBody>, Denial> {
    let (fields, _held) = Fields::of(&cx.shared, &cx.live, headers, body, &["epoch", "after_s"]).await?;
    let run = cx.run(id);
    let after = fields.long("after_s")?.unwrap_or_default();
    let command = ReleaseRun { run: run.clone(), epoch: fields.must_epoch()?, after };
    match cx.stored(cx.shared.store.release_run(command)).await? {
        Fenced::Held => {}
        Fenced::Lost => return Err(lost_or_none(cx, &run).await),
    }
    if after.is_zero() {
        cx.nudge_for(&run).await;
    }
    Ok(cx.ok(&json!({ "state": RunState::Ready.name() })))
}

/// `POST /v1/runs/{id}/cancel`.
pub(super) async fn cancel(
    cx: &Cx,
    id: &RunId,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Response<ReplyBody>, Denial> {
    let (_, _held) = Fields::of(&cx.shared, &cx.live, headers, body, &[]).await?;
    let run = cx.run(id);
    let command = CancelRun { run: run.clone(), by: cx.asker.name() };
    let state = match cx.stored(cx.shared.store.cancel_run(command)).await? {
        Cancelling::Cancelled => RunState::Cancelled.name(),
        Cancelling::Asked => "asked",
        Cancelling::Over(state) => state.name(),
        Cancelling::Unknown => return Err(no_run()),
    };
    cx.nudge_for(&run).await;
    Ok(cx.answer(StatusCode::ACCEPTED, &json!({ "state": state })))
}

/// `POST /v1/runs/{id}/migrate`: for the operator.
pub(super) async fn migrate(
    cx: &Cx,
    id: &RunId,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Response<ReplyBody>, Denial> {
    if let (false, Err(denial)) = (cx.asker.is_operator, super::operator(&cx.live, headers)) {
        super::super::intake::discard(headers, body).await;
        return Err(denial);
    }
    let (fields, _held) = Fields::of(&cx.shared, &cx.live, headers, body, &["version"]).await?;
    let run = cx.run(id);
    let command = MigrateRun { run: run.clone(), version: fields.must_name("version")?, by: cx.asker.name() };
    match cx.stored(cx.shared.store.migrate_run(command)).await? {
        Fenced::Held => {}
        Fenced::Lost => {
            let found = cx.view(&run).await?;
            let message = match found.state.is_final() {
                true => return Err(Denial::new(Refused::RunOver, "The run has ended; it keeps the version it had.")),
                false => "Somebody holds the run. Drain its worker, or wait until its lease ends, and migrate it then.",
            };
            return Err(Denial::new(Refused::RunHeld, message));
        }
    }
    cx.nudge_for(&run).await;
    let found = cx.view(&run).await?;
    Ok(cx.ok(&super::view::run(&found, true)))
}
