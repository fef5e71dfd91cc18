//! Starting runs and looking at them.

use super::{
    super::idempotency,
    Cx, Denial, ReplyBody, ending, no_run,
    read::{self, Fields, Query, bad},
    view,
    waits::{Patience, TooMany},
};
use crate::config::WorkflowPlan;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use hyper::body::Incoming;
use outlast_model::{
    RunId,
    policy::{Priority, Workflow},
    run::RunState,
};
use outlast_store::{Cursor, JournalPage, Page, Payload, Place, RunEnd, RunFilter, RunRef, RunView, StartRun, Started};
use outlast_wire::error::Refused;
use serde::Serialize;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// Marks what was done before.
const REPLAYED: HeaderName = HeaderName::from_static("x-outlast-replayed");
/// Where runs go that name no queue.
const QUEUE: &str = "default";
/// Entries of one page of a list, if the request does not say.
const PAGE: u32 = 50;
/// Of a journal.
const JOURNAL_PAGE: u32 = 100;

/// `POST /v1/runs`.
pub(super) async fn start(cx: &Cx, headers: &HeaderMap, body: Incoming) -> Result<Response<ReplyBody>, Denial> {
    let known = [
        "id",
        "workflow",
        "version",
        "queue",
        "input",
        "priority",
        "after_s",
        "deadline_s",
        "cost_max_usd",
        "unclaimed",
    ];
    let (fields, _held) = Fields::of(&cx.shared, &cx.live, headers, body, &known).await?;
    let key = match headers.get(&idempotency::KEY) {
        None => None,
        Some(key) => Some((idempotency::readable(key)?, fields.whole()?)),
    };
    let workflow = fields.must_name("workflow")?;
    let mut command = StartRun {
        run: RunRef { tenant: cx.asker.tenant.clone(), id: named_or_new(cx, &fields)? },
        key,
        queue: queue(&fields)?,
        version: fields.name("version")?.unwrap_or_else(|| "1".into()),
        priority: priority(&fields)?,
        after: fields.long("after_s")?.unwrap_or_default(),
        deadline: fields.long("deadline_s")?,
        cost_max: fields.usd("cost_max_usd")?,
        unclaimed: fields.flag("unclaimed")?,
        input: fields.payload("input")?.unwrap_or_else(|| Payload::new("null")),
        workflow,
    };
    if let Some(plan) = cx.live.config.workflow(&command.workflow) {
        of_the_config(plan, &fields, &mut command)?;
    }
    let (queue, mut run) = (command.queue.clone(), command.run.clone());
    let status = match cx.stored(cx.shared.store.start_run(command)).await? {
        Started::New => StatusCode::CREATED,
        Started::Before(id) => {
            run.id = id;
            StatusCode::OK
        }
        Started::Mismatch => {
            let message =
                "This id or Idempotency-Key stands for a run that was started differently. Give a new run a new one.";
            return Err(Denial::new(Refused::KeyReused, message));
        }
    };
    cx.shared.runs.nudge(&queue);
    if status == StatusCode::CREATED {
        cx.shared.telemetry.metrics().runs.started.add(1);
    }
    let mut response = cx.answer(status, &view::run(&cx.view(&run).await?, cx.asker.is_operator));
    if status == StatusCode::OK {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

fn named_or_new(cx: &Cx, fields: &Fields) -> Result<RunId, Denial> {
    let what = "1 to 128 of the characters A-Z a-z 0-9 . _ : -";
    match fields.maybe::<String>("id", what)? {
        None => Ok(cx.shared.clock.run_id()),
        Some(id) => read::run_id(&id).ok_or_else(|| bad("id", format!("`id` must be {what}."))),
    }
}

fn queue(fields: &Fields) -> Result<Arc<str>, Denial> {
    let queue = fields.name("queue")?.unwrap_or_else(|| QUEUE.into());
    reserved(&queue, "queue").map(|()| queue)
}

/// Refuses what is the server's own.
pub(super) fn reserved(queue: &str, field: &'static str) -> Result<(), Denial> {
    if !queue.starts_with(Workflow::QUEUE_PREFIX) {
        return Ok(());
    }
    let message = format!(
        "Queues whose names begin with `{}` belong to the server, which runs the workflows of its config itself. Choose another name.",
        Workflow::QUEUE_PREFIX
    );
    Err(bad(field, message))
}

fn priority(fields: &Fields) -> Result<Priority, Denial> {
    let what = "critical, high, normal or low";
    let Some(name) = fields.maybe::<String>("priority", what)? else { return Ok(Priority::Normal) };
    name.parse().map_err(|_| bad("priority", format!("`priority` must be {what}.")))
}

/// A workflow of the config is run by the server, in the version the config has now.
fn of_the_config(plan: &Arc<WorkflowPlan>, fields: &Fields, command: &mut StartRun) -> Result<(), Denial> {
    let spec = &plan.spec;
    if fields.has("queue") {
        return Err(bad(
            "queue",
            format!("`{}` is a workflow of the config: the server runs it. Leave `queue` out.", spec.name),
        ));
    }
    if fields.flag("unclaimed")? {
        return Err(bad("unclaimed", "A workflow of the config is run by the server: leave `unclaimed` out."));
    }
    if fields.has("version") && command.version != spec.version {
        let message = format!("The config has version {} of `{}`: name that one, or none.", spec.version, spec.name);
        return Err(bad("version", message));
    }
    if let Some(schema) = &plan.input {
        let input: Value = serde_json::from_slice(command.input.as_bytes()).unwrap_or_default();
        schema.keeps(&input).map_err(|problems| {
            bad("input", format!("`input` does not fit the workflow's schema: {}.", problems.join("; ")))
        })?;
    }
    command.queue = spec.queue();
    command.version = spec.version.clone();
    command.deadline = soonest(command.deadline, spec.deadline);
    command.cost_max = soonest(command.cost_max, spec.cost_max);
    Ok(())
}

/// The stricter of two bounds.
fn soonest<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl Cx {
    /// A run of the asker's.
    pub(super) async fn view(&self, run: &RunRef) -> Result<RunView, Denial> {
        self.stored(self.shared.store.run(run.clone())).await?.ok_or_else(no_run)
    }
}

/// `GET /v1/runs`: the newest first.
pub(super) async fn list(cx: &Cx, query: &Query) -> Result<Response<ReplyBody>, Denial> {
    let state = match query.text("state") {
        None => None,
        Some(name) => {
            let found = RunState::ALL.into_iter().find(|state| state.name() == name);
            let names: Vec<&str> = RunState::ALL.iter().map(|state| state.name()).collect();
            Some(found.ok_or_else(|| bad("state", format!("`state` must be one of {}.", names.join(", "))))?)
        }
    };
    let filter = RunFilter {
        tenant: (!cx.asker.sees_all).then(|| cx.asker.tenant.clone()),
        state,
        queue: query.text("queue").map(Arc::from),
        workflow: query.text("workflow").map(Arc::from),
    };
    let size = query.number("limit", 1, Page::LARGEST.into())?.and_then(|size| u32::try_from(size).ok());
    let after = query.number("after", 0, i64::MAX.unsigned_abs())?.and_then(|after| i64::try_from(after).ok());
    let page = Page { after: after.map(Cursor), size: size.unwrap_or(PAGE) };
    let page = cx.stored(cx.shared.store.runs(filter, page)).await?;
    let runs: Vec<Value> = page.runs.iter().map(|run| view::run(run, cx.asker.is_operator)).collect();
    Ok(cx.ok(&json!({ "runs": runs, "next": page.next.map(|cursor| cursor.0) })))
}

/// `GET /v1/runs/{id}`, with its input.
pub(super) async fn show(cx: &Cx, id: &RunId) -> Result<Response<ReplyBody>, Denial> {
    #[derive(Serialize)]
    struct Shown<'a> {
        #[serde(flatten)]
        run: Value,
        input: view::Json<'a>,
    }
    let run = cx.run(id);
    let found = cx.view(&run).await?;
    let input = cx.stored(cx.shared.store.run_input(run)).await?.unwrap_or_default();
    Ok(cx.ok(&Shown { run: view::run(&found, cx.asker.is_operator), input: view::Json(&input) }))
}

/// `GET /v1/runs/{id}/journal`: in the order the steps were first begun.
pub(super) async fn journal(cx: &Cx, id: &RunId, query: &Query) -> Result<Response<ReplyBody>, Denial> {
    let after = query.number("after", 0, i64::MAX.unsigned_abs())?.and_then(|after| i64::try_from(after).ok());
    let limit = query.number("limit", 1, JournalPage::LARGEST.into())?.and_then(|limit| u32::try_from(limit).ok());
    let run = cx.run(id);
    let page =
        cx.stored(cx.shared.store.journal(run.clone(), after.unwrap_or(0), limit.unwrap_or(JOURNAL_PAGE))).await?;
    if page.steps.is_empty() {
        cx.view(&run).await?;
    }
    Ok(cx.ok(&view::journal(&page)))
}

/// `GET /v1/runs/{id}/steps/{key}`.
pub(super) async fn step(cx: &Cx, id: &RunId, key: &Arc<str>) -> Result<Response<ReplyBody>, Denial> {
    let run = cx.run(id);
    let place = Place::Step { run: run.clone(), key: key.clone() };
    match cx.stored(cx.shared.store.step(place)).await? {
        Some(step) => Ok(cx.ok(&view::step(&step))),
        None => {
            cx.view(&run).await?;
            Err(Denial::new(Refused::NoSuchRun, "This run has no such step."))
        }
    }
}

/// `GET /v1/runs/{id}/result`: waits for it if it is asked to.
pub(super) async fn result(cx: &Cx, id: &RunId, query: &Query) -> Result<Response<ReplyBody>, Denial> {
    let wait = Duration::from_secs(query.number("wait_s", 0, 60)?.unwrap_or(0));
    let run = cx.run(id);
    let mut patience = match Patience::begin(&cx.shared, &[ending(&run)], wait) {
        Ok(patience) => patience,
        Err(TooMany) => Patience::none(&cx.shared),
    };
    loop {
        if let Some(end) = cx.stored(cx.shared.store.run_end(run.clone())).await? {
            return Ok(cx.ok(&ended(&end)));
        }
        let found = cx.view(&run).await?;
        if !patience.goes_on().await {
            let mut response = cx.answer(StatusCode::ACCEPTED, &view::run(&found, cx.asker.is_operator));
            response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
            return Ok(response);
        }
    }
}

fn ended(end: &RunEnd) -> impl Serialize + '_ {
    #[derive(Serialize)]
    struct Shown<'a> {
        state: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        output: Option<view::Json<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<view::Json<'a>>,
        /// Its payload is not kept any more.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        purged: bool,
    }
    let (is_done, payload) = (end.state == RunState::Done, view::Json(&end.output));
    let (output, error) = if is_done { (Some(payload), None) } else { (None, Some(payload)) };
    Shown { state: end.state.name(), output, error, purged: end.output.is_empty() }
}
