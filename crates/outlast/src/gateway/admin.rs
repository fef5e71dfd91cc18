//! Everything that is not a model call: health, metrics, lineage, the list of models, the operator's view.

use super::live::Live;
use super::{
    Shared,
    body::ReplyBody,
    queue, reply_head,
    serve::{Denial, caller, of_a_foreign_page, presented_key, text},
    store,
};
use crate::config::KeyHash;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use outlast_engine::{QualityView, SignalView, TargetState};
use outlast_model::RequestId;
use outlast_wire::error::Refused;
use serde_json::{Value, json};
use std::sync::Arc;

/// Answers a request that is not a model call.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    request_id: &RequestId,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Denial> {
    let live = shared.live();
    let path = request.uri().path();
    let headers = request.headers();
    let served = match path {
        "/healthz" => Served::Get(Answer::json(StatusCode::OK, json!({ "status": "ok" }))),
        "/readyz" => Served::Get(ready(shared, &live)),
        "/v1/models" => {
            caller(&live, headers)?;
            Served::Get(Answer::json(StatusCode::OK, models(&live, headers)))
        }
        "/metrics" => {
            operator(&live, headers)?;
            store::refresh(shared).await;
            Served::Get(Answer::text(shared.telemetry.expose(&shared.view())))
        }
        "/v1/targets" => {
            operator(&live, headers)?;
            Served::Get(Answer::json(StatusCode::OK, targets(shared)))
        }
        "/v1/reload" => {
            operator(&live, headers)?;
            Served::Post
        }
        "/v1/chat/completions" | "/v1/messages" | "/v1/feedback" => {
            return Err(Denial::new(Refused::WrongMethod, format!("{path} takes POST.")));
        }
        _ => match under(path) {
            Some(Under::Request(id)) => Served::Get(lineage(shared, &live, headers, id).await?),
            Some(Under::Model(name)) => {
                caller(&live, headers)?;
                Served::Get(Answer::json(StatusCode::OK, model(&live, headers, name)?))
            }
            Some(Under::Queued(id)) => match request.method() {
                &Method::GET | &Method::HEAD => return queue::show(shared, &live, headers, request_id, id).await,
                _ => return Err(Denial::new(Refused::WrongMethod, format!("{path} takes GET."))),
            },
            None => {
                let message = format!("Nothing is served at {}.", path.chars().take(120).collect::<String>());
                return Err(Denial::new(Refused::NoSuchPath, message));
            }
        },
    };
    match (served, request.method()) {
        (Served::Get(answer), &Method::GET | &Method::HEAD) => Ok(answer.respond(request_id)),
        (Served::Post, &Method::POST) => Ok(reload(shared).await.respond(request_id)),
        (Served::Get(_), _) => Err(Denial::new(Refused::WrongMethod, format!("{path} takes GET."))),
        (Served::Post, _) => Err(Denial::new(Refused::WrongMethod, format!("{path} takes POST."))),
    }
}

/// Something with a name of its own.
enum Under<'a> {
    Request(&'a str),
    Model(&'a str),
    Queued(&'a str),
}

fn under(path: &str) -> Option<Under<'_>> {
    let (kind, name) = path.strip_prefix("/v1/")?.split_once('/')?;
    match kind {
        "requests" => Some(Under::Request(name)),
        "models" => Some(Under::Model(name)),
        "queue" => Some(Under::Queued(name)),
        _ => None,
    }
}

/// By which method a path is served.
enum Served {
    Get(Answer),
    Post,
}

pub(super) struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
}

impl Answer {
    pub(super) fn json(status: StatusCode, value: Value) -> Self {
        Answer { status, content_type: "application/json", body: value.to_string().into() }
    }

    fn text(text: String) -> Self {
        Answer { status: StatusCode::OK, content_type: "text/plain; version=0.0.4; charset=utf-8", body: text.into() }
    }

    pub(super) fn respond(self, request_id: &RequestId) -> Response<ReplyBody> {
        let mut response = Response::new(ReplyBody::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = reply_head::common(request_id, 0);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        response
    }
}

/// Checks the admin token. Without one configured, these endpoints are open on loopback and closed elsewhere.
pub(super) fn operator(live: &Live, headers: &HeaderMap) -> Result<(), Denial> {
    let server = &live.config.server;
    let Some(token) = &server.admin_token else {
        if server.listen.ip().is_loopback() && !of_a_foreign_page(headers) {
            return Ok(());
        }
        let message = "Admin endpoints are closed: set `server.admin_token` in the config to open them.";
        return Err(Denial::new(Refused::Forbidden, message));
    };
    match presented_key(headers) {
        Some(presented) if KeyHash::of(presented).same(token) => Ok(()),
        Some(_) | None => {
            let message = "This endpoint needs the admin token, as `Authorization: Bearer TOKEN`.";
            Err(Denial::new(Refused::Unauthorized, message))
        }
    }
}

/// Ready: not draining, and at least one target may be asked.
fn ready(shared: &Shared, live: &Live) -> Answer {
    if shared.draining() {
        return Answer::json(StatusCode::SERVICE_UNAVAILABLE, json!({ "status": "draining" }));
    }
    let targets = live.config.targets.len();
    // Without its store the gateway still answers whatever does not have to be written down first.
    let store = match shared.telemetry.metrics().store.health() {
        Some(health) => {
            json!({ "backend": health.backend, "writable": health.writable, "queued": health.queue_waiting })
        }
        None => json!({ "writable": false }),
    };
    Answer::json(StatusCode::OK, json!({ "status": "ready", "targets": targets, "store": store }))
}

/// The routes and targets a client may name, in the shape of the dialect it speaks.
fn models(live: &Live, headers: &HeaderMap) -> Value {
    let names = live.route_names();
    if text(headers, &http::HeaderName::from_static("anthropic-version")).is_none() {
        let data: Vec<Value> = names.iter().map(|name| openai_model(name)).collect();
        return json!({ "object": "list", "data": data });
    }
    let data: Vec<Value> = names.iter().map(|name| anthropic_model(name)).collect();
    json!({ "data": data, "has_more": false, "first_id": names.first(), "last_id": names.last() })
}

fn model(live: &Live, headers: &HeaderMap, name: &str) -> Result<Value, Denial> {
    let name = name.replace("%2F", "/").replace("%2f", "/");
    match live.route(&name) {
        Some(_) if text(headers, &http::HeaderName::from_static("anthropic-version")).is_some() => {
            Ok(anthropic_model(&name))
        }
        Some(_) => Ok(openai_model(&name)),
        None => Err(Denial::new(Refused::NoSuchModel, "No route or target has that name. GET /v1/models lists all.")),
    }
}

fn openai_model(name: &str) -> Value {
    json!({ "id": name, "object": "model", "created": 0, "owned_by": "outlast" })
}

fn anthropic_model(name: &str) -> Value {
    json!({ "type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z" })
}

/// A call's lineage: for the caller whose call it was, and for the operator.
async fn lineage(shared: &Shared, live: &Live, headers: &HeaderMap, id: &str) -> Result<Answer, Denial> {
    // Being on this machine makes nobody the operator where callers are told apart.
    let anonymous = live.config.server.admin_token.is_none() && !live.config.server.keys.is_empty();
    let asker = match operator(live, headers) {
        Ok(()) if !anonymous => None,
        Ok(()) | Err(_) => Some(caller(live, headers)?.0.map(|key| key.short())),
    };
    let missing = || Denial::new(Refused::NoSuchPath, "No such request is on record, or it is no longer kept.");
    let found = match shared.telemetry.lookup(id).await {
        Ok(found) => found.ok_or_else(missing)?,
        Err(_) => return Err(Denial::new(Refused::Internal, "The telemetry file cannot be read; the log says why.")),
    };
    // Another caller's call is as good as unknown.
    if asker.is_some_and(|asker| asker != found.tenant_hash) {
        return Err(missing());
    }
    let body = serde_json::to_vec(&found).unwrap_or_default();
    Ok(Answer { status: StatusCode::OK, content_type: "application/json", body: body.into() })
}

/// The operator's view of every target.
fn targets(shared: &Shared) -> Value {
    let millis = |duration: std::time::Duration| duration.as_secs_f64() * 1e3;
    let targets: Vec<Value> = shared
        .view()
        .iter()
        .map(|view| {
            json!({
                "target": view.id,
                "state": state(view.state),
                "share": share(view.state),
                "evidence": view.evidence,
                "demoted": view.demoted,
                "quality": quality(&view.quality),
                "reopens_in_ms": view.reopens_in.map(millis),
                "limited_for_ms": view.limited_for.map(millis),
                "keys_out": view.keys_out,
                "access_denied": view.access_denied,
                "in_flight": view.in_flight,
                "overdue": view.overdue,
                "first_output_ms": view.first_output.map(|quantiles| quantiles.map(millis)),
                "whole_reply_ms": view.whole_reply.map(|quantiles| quantiles.map(millis)),
                "attempts": view.attempts,
                "answered": view.answered,
                "faults": view.faults,
                "rate_limits": view.rate_limits,
                "probes": view.probes,
            })
        })
        .collect();
    json!({ "targets": targets })
}

async fn reload(shared: &Arc<Shared>) -> Answer {
    match shared.reload(false).await {
        Some(Err(errors)) => {
            Answer::json(StatusCode::UNPROCESSABLE_ENTITY, json!({ "reloaded": false, "errors": errors }))
        }
        Some(Ok(changes)) => Answer::json(StatusCode::OK, json!({ "reloaded": true, "changes": changes.to_string() })),
        None => Answer::json(StatusCode::OK, json!({ "reloaded": false })),
    }
}

/// What has been observed of a target's quality, and why it is ranked down if it is.
fn quality(view: &QualityView) -> Value {
    let signal = |view: &SignalView| {
        json!({
            "signal": view.signal.name(),
            "observed": view.observed,
            "rate": view.rate,
            "baseline": view.baseline,
            "evidence": view.evidence,
            "alarm_at": view.alarm_at,
            "alarm": view.alarm.as_ref().map(|alarm| json!({
                "since_s": alarm.since.as_secs(),
                "observed": alarm.observed,
                "bad": alarm.bad,
                "baseline": alarm.baseline,
            })),
        })
    };
    let routes = view
        .routes
        .iter()
        .map(|on| json!({ "route": on.route, "signals": on.signals.iter().map(signal).collect::<Vec<_>>() }));
    json!({ "golden": view.golden.as_ref().map(signal), "routes": routes.collect::<Vec<_>>() })
}

/// A breaker state's name.
fn state(state: TargetState) -> &'static str {
    match state {
        TargetState::Closed => "closed",
        TargetState::Open => "open",
        TargetState::HalfOpen => "half_open",
        TargetState::Restoring { .. } => "restoring",
        TargetState::Retired => "retired",
    }
}

fn share(state: TargetState) -> f64 {
    match state {
        TargetState::Closed => 1.0,
        TargetState::Restoring { share } => share,
        TargetState::Open | TargetState::HalfOpen | TargetState::Retired => 0.0,
    }
}
