//! `POST /v1/tools/{name}`: the ledger for any program. `GET /v1/tools`: what may be called.

use super::{
    super::{
        Shared,
        body::ReplyBody,
        idempotency, intake, journal,
        live::Live,
        reply_head,
        serve::{Denial, caller, deadline, text, unread},
        store::{down, tenant},
    },
    By, Denied, Performed, ToolCall, ToolError, perform,
};
use crate::config::Tool;
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use hyper::body::Incoming;
use outlast_engine::RetryAdvice;
use outlast_model::{
    Failure, FailureReport, RequestId, TenantId,
    policy::{Dialect, ToolMode},
    run::EscalationKind,
};
use outlast_store::RunRef;
use outlast_wire::error::{self, Refused};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

const PREFIX: &str = "/v1/tools";
const STEP: HeaderName = HeaderName::from_static("x-outlast-step");
const MODE: HeaderName = HeaderName::from_static("x-outlast-tool-mode");
const REPLAYED: HeaderName = HeaderName::from_static("x-outlast-replayed");
const TOOL: HeaderName = HeaderName::from_static("x-outlast-tool");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-outlast-attempts");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// How long a call may pause for later tries, unless `x-outlast-deadline-ms` says otherwise: below the minute after
/// which common clients give up.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest key of a step, in bytes.
const STEP_MAX: usize = 256;
/// The longest wait a second caller is told while the first is being answered.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// When to ask for a person's decision for the first time.
const LOOK_AFTER: Duration = Duration::from_secs(30);

/// Answers whatever is asked under `/v1/tools`.
pub(in super::super) async fn answer(
    shared: &Arc<Shared>,
    request_id: &RequestId,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Denial> {
    let (head, body) = request.into_parts();
    let live = shared.live();
    let known = match caller(&live, &head.headers) {
        Ok(caller) => caller,
        Err(denial) => {
            intake::discard(&head.headers, body).await;
            return Err(denial);
        }
    };
    let path = head.uri.path();
    let name = path[PREFIX.len()..].trim_start_matches('/');
    match (&head.method, name) {
        (&Method::GET | &Method::HEAD, "") => Ok(respond(request_id, StatusCode::OK, list(shared, &live))),
        (&Method::GET | &Method::HEAD, name) => match live.config.tool(name) {
            Some(tool) => Ok(respond(request_id, StatusCode::OK, shown(shared, tool))),
            None => Err(no_tool()),
        },
        (&Method::POST, name) if !name.is_empty() => {
            if shared.draining() {
                intake::discard(&head.headers, body).await;
                let message = "This gateway is shutting down. Retry; another one will answer.";
                return Err(Denial::new(Refused::Draining, message).retry_after(Duration::from_secs(1)));
            }
            let (body, held) = intake::read(shared, &live.config.server, &head.headers, body).await.map_err(unread)?;
            let tenant = tenant(known.0.map(|key| key.short()).as_deref());
            let call = call(tenant, name, &head.headers, &body)?;
            let answered = begun(shared, &live, call, request_id).await;
            drop(held);
            answered
        }
        _ => Err(Denial::new(Refused::WrongMethod, format!("{PREFIX} takes GET, {PREFIX}/NAME takes GET and POST."))),
    }
}

/// What the request asks for.
fn call(tenant: TenantId, name: &str, headers: &HeaderMap, body: &Bytes) -> Result<ToolCall, Denial> {
    let arguments = if body.trim_ascii().is_empty() { Ok(json!({})) } else { serde_json::from_slice(body) };
    let arguments =
        arguments.map_err(|_| Denial::new(Refused::BadRequest, "The body is not JSON. Send the tool's arguments."))?;
    let key = headers.get(&idempotency::KEY).map(idempotency::readable).transpose()?;
    let mode = match text(headers, &MODE) {
        None => ToolMode::Full,
        Some(named) => mode(named).ok_or_else(|| {
            let message = "Header `x-outlast-tool-mode` must be `full`, `read-only`, `plan-only` or `none`.";
            Denial::new(Refused::BadRequest, message)
        })?,
    };
    let by = match headers.contains_key(&journal::RUN) {
        true => step(tenant.clone(), name, headers, key)?,
        false => By::Standalone { key },
    };
    Ok(ToolCall {
        tenant,
        tool: name.into(),
        arguments,
        by,
        mode,
        retry: None,
        undo: None,
        undoes: None,
        patience: deadline(headers)?.unwrap_or(PATIENCE),
        traceparent: headers.get(&TRACEPARENT).cloned(),
    })
}

fn mode(named: &str) -> Option<ToolMode> {
    let all = [ToolMode::Full, ToolMode::ReadOnly, ToolMode::PlanOnly, ToolMode::None];
    all.into_iter().find(|mode| mode.name() == named.trim())
}

/// A step of the run the headers name; of a run's call that has neither key nor step nothing is written down.
fn step(tenant: TenantId, name: &str, headers: &HeaderMap, key: Option<Arc<str>>) -> Result<By, Denial> {
    let run = RunRef { tenant, id: journal::run_id(headers)? };
    let epoch = journal::epoch(headers)?;
    let step = match (text(headers, &STEP).map(percent_decoded), &key) {
        (Some(step), _) => step,
        (None, Some(key)) => Some(format!("tool/{name}/{key}")),
        (None, None) => return Ok(By::Standalone { key: None }),
    };
    let step = step.filter(|step| (1..=STEP_MAX).contains(&step.len()) && !step.chars().any(char::is_control));
    let message = format!("Header `x-outlast-step` must be 1 to {STEP_MAX} bytes without control characters.");
    let step = step.ok_or_else(|| Denial::new(Refused::BadRequest, message))?;
    Ok(By::Step { run, key: step.into(), epoch, business: key })
}

/// A header carries ASCII: what a key has beyond it is percent-encoded there, as it is in paths.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.trim().as_bytes();
    while let [first, later @ ..] = rest {
        let digits = later.get(..2).and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        match (first, digits) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &later[2..];
            }
            (b'%', None) => return None,
            (byte, _) => {
                bytes.push(*byte);
                rest = later;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

/// Calls it; a program's run that nobody has begun is begun by its first step.
async fn begun(
    shared: &Arc<Shared>,
    live: &Arc<Live>,
    call: ToolCall,
    id: &RequestId,
) -> Result<Response<ReplyBody>, Denial> {
    let unbegun = match &call.by {
        By::Step { run, epoch: None, .. } => Some((run.clone(), call.clone())),
        By::Step { epoch: Some(_), .. } | By::Standalone { .. } => None,
    };
    let mut performed = perform(shared, live, call).await;
    if let (Performed::NoRun, Some((run, call))) = (&performed, unbegun) {
        journal::start(shared, &run).await?;
        performed = perform(shared, live, call).await;
    }
    told(performed, id)
}

fn told(performed: Performed, id: &RequestId) -> Result<Response<ReplyBody>, Denial> {
    match performed {
        Performed::Done { result, .. } if result.is_empty() => {
            let message = "It took place under this key, and its result is no longer kept.";
            Err(Denial::new(Refused::Expired, message))
        }
        Performed::Done { result, replayed, tool, attempts } => {
            let mut response = Response::new(ReplyBody::from(result.into_bytes()));
            *response.headers_mut() = reply_head::common(id, 0);
            let headers = response.headers_mut();
            headers.insert(ATTEMPTS, HeaderValue::from(attempts));
            if let Some(tool) = tool.and_then(|tool| HeaderValue::from_str(tool.as_str()).ok()) {
                headers.insert(TOOL, tool);
            }
            mark(headers, replayed);
            Ok(response)
        }
        Performed::Failed { error, replayed } => {
            let mut response = failed(id, StatusCode::BAD_GATEWAY, &error, RetryAdvice::default());
            mark(response.headers_mut(), replayed);
            Ok(response)
        }
        Performed::Parked { why, escalation } => Ok(parked(id, why, &escalation)),
        Performed::Wait { after, unknown: false, error } => {
            let resting = || ToolError::new("not_yet", "The tool cannot be called now.");
            let advice = RetryAdvice { should_retry: true, retry_after: Some(after) };
            Ok(failed(id, StatusCode::SERVICE_UNAVAILABLE, &error.unwrap_or_else(resting), advice))
        }
        Performed::Wait { after, unknown: true, .. } => {
            let message = "It may have taken place, and nobody has said so. Call it again with the same key: then it is looked into.";
            Err(Denial::new(Refused::StepNotYet, message).retry_after(after))
        }
        Performed::InFlight { after } => {
            let message = "The first call with this key is still under way. Retry to get its result.";
            let wait = after.clamp(Duration::from_millis(500), WAIT_MAX);
            Err(Denial::new(Refused::KeyInFlight, message).retry_after(wait))
        }
        Performed::Mismatch => {
            let message = "This key was used for another call. Send a new key with a new call.";
            Err(Denial::new(Refused::KeyReused, message))
        }
        Performed::Refused(why) => Err(journal::refused(why)),
        Performed::NoRun => Err(Denial::new(Refused::NoSuchRun, "There is no such run.")),
        Performed::Denied(denied) => Err(denial(denied)),
        Performed::Down(error) => Err(down(&error)),
    }
}

fn mark(headers: &mut HeaderMap, replayed: bool) {
    if replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
}

fn parked(id: &RequestId, why: EscalationKind, escalation: &str) -> Response<ReplyBody> {
    let url = format!("/v1/escalations/{escalation}");
    let body = json!({
        "parked": why.name(),
        "escalation": { "id": escalation, "url": url },
        "poll_url": url,
    });
    let mut response = respond(id, StatusCode::ACCEPTED, body);
    reply_head::promise(response.headers_mut(), Some(&url), Some(LOOK_AFTER));
    response
}

/// A typed error with what the tool said.
fn failed(id: &RequestId, status: StatusCode, tool: &ToolError, advice: RetryAdvice) -> Response<ReplyBody> {
    let report = FailureReport::of(Failure::ToolFailed);
    let reply = error::body(Dialect::OpenaiChat, &report, &tool.message, id.as_str());
    let mut body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    body["error"]["tool_error"] = serde_json::to_value(tool).unwrap_or_default();
    let mut response = respond(id, status, body);
    reply_head::advise(response.headers_mut(), advice);
    response
}

fn denial(denied: Denied) -> Denial {
    match denied {
        Denied::NoSuchTool => no_tool(),
        Denied::Mode(mode) => {
            Denial::new(Refused::Forbidden, format!("Tool mode `{mode}` does not allow this tool. Nothing was called."))
        }
        Denied::Arguments(problems) => {
            let message =
                format!("The arguments break the tool's schema: {}. Nothing was called.", problems.join("; "));
            Denial::new(Refused::BadRequest, message)
        }
        Denied::NoKey => {
            let message = "This tool changes the world, or waits for a person: name the call with `Idempotency-Key`, or with `x-outlast-run` and `x-outlast-step`. Nothing was called.";
            Denial::new(Refused::BadRequest, message)
        }
    }
}

fn no_tool() -> Denial {
    Denial::new(Refused::NoSuchPath, "No tool has that name. GET /v1/tools lists all.")
}

fn list(shared: &Shared, live: &Live) -> Value {
    let tools: Vec<Value> = live.config.tools.values().map(|tool| shown(shared, tool)).collect();
    json!({ "tools": tools })
}

/// A tool, for callers: what it does, what it takes and gives, what calling it twice would do.
fn shown(shared: &Shared, tool: &Tool) -> Value {
    let spec = &tool.spec;
    let schema = |schema: &Option<Arc<outlast_model::policy::Schema>>| {
        schema.as_ref().and_then(|schema| serde_json::from_str::<Value>(&schema.json).ok())
    };
    let told = shared.tools.mcp.told(&spec.kind);
    json!({
        "name": spec.name,
        "description": spec.description.as_deref().or(told.as_ref().and_then(|told| told.description.as_deref())),
        "kind": spec.kind.name(),
        "class": spec.class.name(),
        "read_only": spec.read_only || !spec.class.is_effect(),
        "needs_approval": spec.approval.may_ask(),
        "input_schema": schema(&spec.input).or_else(|| told.as_ref().and_then(|told| told.input.clone())),
        "output_schema": schema(&spec.output),
        "timeout_ms": u64::try_from(spec.timeout.as_millis()).unwrap_or(u64::MAX),
    })
}

fn respond(id: &RequestId, status: StatusCode, body: Value) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::from(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    *response.headers_mut() = reply_head::common(id, 0);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
