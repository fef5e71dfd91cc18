//! From an HTTP request to an answer: which endpoint, who asks, what of the body. A model call goes on
//! to [`super::drive`].

use super::{
    Shared, admin,
    body::{Out, Outlet, ReplyBody},
    confirm,
    drive::{Driver, Facts},
    escalations, feedback,
    idempotency::{self, Entry},
    intake::{self, Unread},
    journal,
    live::Live,
    queue, reply_head, runs, tools,
};
use crate::{
    config::KeyHash,
    telemetry::{TraceContext, client_text},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use outlast_engine::{Ask, RetryAdvice};
use outlast_model::{
    RequestId, TargetId,
    policy::{Dialect, Keep, Priority, Ranking, Route},
    record::{GaveUp, WorkflowState},
};
use outlast_wire::{
    Inbound, RequestError,
    error::{self, Refused},
};
use std::{convert::Infallible, future::poll_fn, sync::Arc, task::Poll, time::Duration};

/// Names of headers that are read, ready to be looked up.
mod named {
    use http::HeaderName;

    pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
    pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
    pub(super) const TASK: HeaderName = HeaderName::from_static("x-outlast-task");
    pub(super) const STEP: HeaderName = HeaderName::from_static("x-outlast-step");
    pub(super) const TRACE: HeaderName = HeaderName::from_static("x-outlast-trace");
    pub(super) const DEADLINE: HeaderName = HeaderName::from_static("x-outlast-deadline-ms");
    pub(super) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
    pub(super) const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");
    pub(super) const ANTHROPIC_BETA: HeaderName = HeaderName::from_static("anthropic-beta");
    pub(super) const OPENAI_BETA: HeaderName = HeaderName::from_static("openai-beta");
}

/// Headers that a target of the client's own dialect is given as they came.
const PASSED: [HeaderName; 3] = [named::ANTHROPIC_VERSION, named::ANTHROPIC_BETA, named::OPENAI_BETA];

/// Why a request gets no further.
pub(super) struct Denial {
    why: Refused,
    message: String,
    param: Option<&'static str>,
    retry: RetryAdvice,
}

impl Denial {
    pub(super) fn new(why: Refused, message: impl Into<String>) -> Self {
        Denial { why, message: message.into(), param: None, retry: RetryAdvice::default() }
    }

    /// The field at fault.
    pub(super) fn about(self, param: &'static str) -> Self {
        Denial { param: Some(param), ..self }
    }

    pub(super) fn retry_after(self, after: Duration) -> Self {
        Denial { retry: RetryAdvice { should_retry: true, retry_after: Some(after) }, ..self }
    }
}

/// Who asks: the hash of a valid key, or nobody in particular where none is needed.
pub(super) struct Caller(pub(super) Option<KeyHash>);

/// Answers one request.
pub(super) async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<ReplyBody>, Infallible> {
    let dialect = spoken(request.uri().path(), request.headers());
    let request_id = shared.clock.request_id();
    // A connection keeps the room of its largest request's future for as long as it lives: what is rare or long is boxed.
    let answered = match (request.method(), request.uri().path()) {
        (&Method::POST, "/v1/chat/completions") => call(&shared, Dialect::OpenaiChat, &request_id, request).await,
        (&Method::POST, "/v1/messages") => call(&shared, Dialect::Anthropic, &request_id, request).await,
        (&Method::POST, "/v1/feedback") => Box::pin(feedback::answer(&shared, &request_id, request)).await,
        (_, path) if path == "/v1/tools" || path.starts_with("/v1/tools/") => {
            Box::pin(tools::answer(&shared, &request_id, request)).await
        }
        (_, path) if runs::serves(path) => Box::pin(runs::answer(&shared, &request_id, request)).await,
        (_, path) if path.starts_with("/v1/escalations") || path.starts_with("/v1/audit") => {
            Box::pin(escalations::answer(&shared, &request_id, request)).await
        }
        _ => admin::answer(&shared, &request_id, request).await,
    };
    Ok(answered.unwrap_or_else(|denial| refusal(&shared, dialect, &request_id, denial).map(ReplyBody::from)))
}

/// The dialect errors are told in: of the path, else of the client's headers.
pub(super) fn spoken(path: &str, headers: &HeaderMap) -> Dialect {
    if path.starts_with("/v1/messages") || headers.contains_key(&named::ANTHROPIC_VERSION) {
        Dialect::Anthropic
    } else {
        Dialect::OpenaiChat
    }
}

/// The typed error of a request that gets no further.
pub(super) fn refusal(shared: &Shared, dialect: Dialect, id: &RequestId, denial: Denial) -> Response<Bytes> {
    count(shared, denial.why);
    let reply = error::refused(dialect, denial.why, &denial.message, denial.param, id.as_str());
    let mut response = Response::new(reply.body);
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::BAD_REQUEST);
    *response.headers_mut() = reply_head::common(id, 0);
    reply_head::advise(response.headers_mut(), denial.retry);
    match denial.why {
        // What is left of the request on the connection is not worth reading.
        Refused::TooLarge | Refused::TooSlow | Refused::Draining => {
            response.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("close"));
        }
        Refused::BadRequest
        | Refused::Unauthorized
        | Refused::Forbidden
        | Refused::NoSuchModel
        | Refused::NoSuchPath
        | Refused::WrongMethod
        | Refused::Busy
        | Refused::KeyReused
        | Refused::KeyInFlight
        | Refused::Unconfirmed
        | Refused::Expired
        | Refused::StoreDown
        | Refused::LeaseLost
        | Refused::StepInFlight
        | Refused::StepNotYet
        | Refused::StepMismatch
        | Refused::RunCancelled
        | Refused::RunOverdue
        | Refused::RunOverBudget
        | Refused::RunOver
        | Refused::RunHeld
        | Refused::NoSuchRun
        | Refused::SignalsFull
        | Refused::AlreadyDecided
        | Refused::Changed
        | Refused::NotOffered
        | Refused::Internal => {}
    }
    response
}

fn count(shared: &Shared, why: Refused) {
    let metrics = shared.telemetry.metrics();
    match why {
        Refused::Unauthorized | Refused::Forbidden => metrics.requests_unauthorized.add(1),
        Refused::Busy => metrics.shed_overload.add(1),
        Refused::Draining => metrics.shed_draining.add(1),
        Refused::StoreDown => metrics.shed_store.add(1),
        Refused::BadRequest
        | Refused::TooLarge
        | Refused::TooSlow
        | Refused::NoSuchModel
        | Refused::NoSuchPath
        | Refused::WrongMethod
        | Refused::KeyReused
        | Refused::KeyInFlight
        | Refused::Unconfirmed
        | Refused::Expired
        | Refused::NoSuchRun
        | Refused::SignalsFull
        | Refused::AlreadyDecided
        | Refused::Changed
        | Refused::NotOffered
        | Refused::Internal => metrics.requests_rejected.add(1),
        // Answers of the protocol of runs, counted there.
        Refused::LeaseLost
        | Refused::StepInFlight
        | Refused::StepNotYet
        | Refused::StepMismatch
        | Refused::RunCancelled
        | Refused::RunOverdue
        | Refused::RunOverBudget
        | Refused::RunOver
        | Refused::RunHeld => {}
    }
}

/// A model call: who asks, what, of whom; then the drive loop until there is a head to answer with.
async fn call(
    shared: &Arc<Shared>,
    dialect: Dialect,
    request_id: &RequestId,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Denial> {
    let (head, body) = request.into_parts();
    if shared.draining() {
        intake::discard(&head.headers, body).await;
        let denial = Denial::new(Refused::Draining, "This gateway is shutting down. Retry; another one will answer.");
        return Err(denial.retry_after(Duration::from_secs(1)));
    }
    let live = shared.live();
    let caller = match caller(&live, &head.headers) {
        Ok(caller) => caller,
        Err(denial) => {
            intake::discard(&head.headers, body).await;
            return Err(denial);
        }
    };
    let (body, held) = intake::read(shared, &live.config.server, &head.headers, body).await.map_err(unread)?;
    let inbound = Inbound::parse(dialect, body).map_err(unreadable)?;
    let started = shared.clock.wall();
    let inbound = Arc::new(inbound.received_at(u64::try_from(started.0 / 1000).unwrap_or_default()));
    let asked = live.route(inbound.model()).ok_or_else(|| no_route(&live, inbound.model()))?.clone();
    let state = state(&inbound, &head.headers, asked.route())?;
    let deadline = deadline(&head.headers)?;
    let mut facts = facts(shared, request_id, &head.headers, caller, asked.route(), state);
    facts.priority = queue::priority(&head.headers)?;
    let (path, tenant) = (head.uri.path(), facts.tenant_hash.as_deref());
    let entry = if head.headers.contains_key(&journal::RUN) {
        Some(Box::pin(journal::enter(shared, tenant, &head.headers, path, &inbound)).await?)
    } else if let Some(key) = head.headers.get(&idempotency::KEY) {
        Some(idempotency::enter(shared, tenant, key, path, &inbound).await?)
    } else {
        None
    };
    let ticket = match entry {
        None => None,
        Some(Entry::Go(ticket)) => Some(ticket),
        Some(Entry::Answer(response)) => return Ok(response),
    };
    // A yes to an earlier question: another route answers.
    let route = match confirm::take(shared, &head.headers, facts.tenant_hash.as_deref(), &inbound).await? {
        None => asked,
        Some(instead) => {
            let route = live.route(instead.as_str()).ok_or_else(|| no_route(&live, instead.as_str()))?.clone();
            facts.primary = primary(route.route());
            facts.gave_up = Some(GaveUp::Route { route: instead });
            route
        }
    };
    let (id, seed) = (shared.next_call_id(), shared.clock.seed());
    let ask = Ask { id, route: route.bound.clone(), needs: inbound.needs(), deadline, seed };
    // Boxed on its own: the future that runs it would otherwise hold it twice over, and be moved whole.
    let mut driver = Box::new(Driver::new(shared.clone(), live, route, ask, inbound, facts));
    driver.hold(ticket);
    let outlet = Outlet::new();
    let driving = Box::pin({
        let outlet = outlet.clone();
        async move {
            driver.run(&outlet).await;
            drop(held);
        }
    });
    Ok(head_of(driving, outlet).await)
}

/// What the headers tell of a call.
fn facts(
    shared: &Shared,
    request_id: &RequestId,
    headers: &HeaderMap,
    caller: Caller,
    route: &Route,
    state: Option<WorkflowState>,
) -> Facts {
    let trace = TraceContext::accept(text(headers, &named::TRACEPARENT), &shared.clock);
    let tracestate = trace.tracestate(text(headers, &named::TRACESTATE));
    Facts {
        request_id: request_id.clone(),
        trace,
        tracestate: tracestate.and_then(|state| http::HeaderValue::from_str(state).ok()),
        task_id: text(headers, &named::TASK).and_then(client_text),
        run: journal::named(headers),
        workflow_step: state.as_ref().and_then(|state| client_text(state.step.as_deref()?)),
        tenant_hash: caller.0.map(|key| key.short()),
        started: shared.clock.wall(),
        primary: primary(route),
        trace_full: text(headers, &named::TRACE) == Some("full"),
        passed: passed(headers),
        state,
        priority: Priority::default(),
        gave_up: None,
        parent: None,
        depth: 0,
    }
}

/// Drives a call until it has a head, and makes the rest of it the body.
async fn head_of(mut driving: super::body::Driving, outlet: Outlet<Out>) -> Response<ReplyBody> {
    let first = poll_fn(|cx| {
        let driven = driving.as_mut().poll(cx);
        match (outlet.take(), driven) {
            (Some(out), _) => Poll::Ready(Some(out)),
            (None, Poll::Ready(())) => Poll::Ready(None),
            (None, Poll::Pending) => Poll::Pending,
        }
    })
    .await;
    match first {
        Some(Out::Whole(response)) => response.map(ReplyBody::from),
        Some(Out::Head(head)) => Response::from_parts(head, ReplyBody::Driven { driving, outlet }),
        // The driver always begins with one of the two.
        Some(Out::Data(_)) | None => {
            let mut response = Response::new(ReplyBody::Whole(None));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

/// Checks the caller's key, wherever the SDKs put it.
pub(super) fn caller(live: &Live, headers: &HeaderMap) -> Result<Caller, Denial> {
    let server = &live.config.server;
    let key = presented_key(headers);
    // Where no key is asked for, whatever the client sent says nothing about who it is.
    let hash = key.filter(|_| !server.keys.is_empty()).map(KeyHash::of);
    if !server.admits(hash.as_ref()) {
        let message = match key {
            Some(_) => "This key is not one of this gateway's. Check the API key your client is configured with.",
            None => "No API key was sent. Send one as `Authorization: Bearer KEY` or `x-api-key: KEY`.",
        };
        return Err(Denial::new(Refused::Unauthorized, message));
    }
    if hash.is_none() && of_a_foreign_page(headers) {
        let message = "A web page of another site may not use a gateway that asks for no key. Set `server.keys`.";
        return Err(Denial::new(Refused::Forbidden, message));
    }
    Ok(Caller(hash))
}

/// Whether a web page of another site made a browser ask. A page needs nobody's leave to send a request to this machine,
/// only to read the answer, and a request alone costs money. Desktop apps have origins of other schemes.
pub(super) fn of_a_foreign_page(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let Ok(origin) = origin.to_str() else { return true };
    let Some((scheme, _)) = origin.split_once("://") else { return true };
    if !matches!(scheme, "http" | "https") {
        return false;
    }
    let uri = origin.parse::<http::Uri>().ok();
    let host = uri.as_ref().and_then(http::Uri::host).unwrap_or_default().trim_matches(['[', ']']);
    let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    !here
}

/// The key a client sent: Anthropic's SDKs may use either header.
pub(super) fn presented_key(headers: &HeaderMap) -> Option<&str> {
    let bearer = text(headers, &header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    text(headers, &named::API_KEY).or(bearer)
}

fn no_route(live: &Live, name: &str) -> Denial {
    let shown: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
    let named: Vec<&str> = live.config.routes.keys().map(|id| id.as_str()).take(8).collect();
    let known = if named.is_empty() { String::new() } else { format!(" Routes: {}.", named.join(", ")) };
    Denial {
        param: Some("model"),
        ..Denial::new(
            Refused::NoSuchModel,
            format!("`{shown}` is neither a route nor a target of this gateway.{known} GET /v1/models lists all."),
        )
    }
}

pub(super) fn unread(unread: Unread) -> Denial {
    match unread {
        Unread::TooLarge { limit } => Denial::new(
            Refused::TooLarge,
            format!(
                "The request body is larger than this gateway's limit of {limit} bytes. Send less, or raise `server.max_body_bytes`."
            ),
        ),
        Unread::TooSlow => Denial::new(Refused::TooSlow, "The request body did not arrive in time. Send it again."),
        Unread::Broken => Denial::new(Refused::BadRequest, "The request body ended before it was complete."),
        Unread::NoRoom => {
            let denial = Denial::new(Refused::Busy, "Too many large requests are being read. Retry shortly.");
            denial.retry_after(Duration::from_secs(1))
        }
    }
}

/// The target that ranks first as long as it is healthy; where weights, latency or cost rank, there is none.
pub(super) fn primary(route: &Route) -> Option<TargetId> {
    let first = route.targets.first().filter(|_| route.ranking == Ranking::Order);
    first.map(|first| first.target.clone())
}

pub(super) fn deadline(headers: &HeaderMap) -> Result<Option<Duration>, Denial> {
    let Some(value) = text(headers, &named::DEADLINE) else { return Ok(None) };
    match value.trim().parse::<u64>() {
        Ok(millis) if millis > 0 => Ok(Some(Duration::from_millis(millis))),
        Ok(_) | Err(_) => Err(Denial::new(
            Refused::BadRequest,
            "Header `x-outlast-deadline-ms` must be a whole number of milliseconds above zero.",
        )),
    }
}

/// Where the workflow stands, as the request says; `x-outlast-step` says the same as `outlast.state.step`.
fn state(inbound: &Inbound, headers: &HeaderMap, route: &Route) -> Result<Option<WorkflowState>, Denial> {
    let told = inbound.outlast().map_err(unreadable)?;
    let mut state = told.state.clone();
    if let Some(step) = text(headers, &named::STEP).and_then(client_text) {
        state.get_or_insert_default().step.get_or_insert(step);
    }
    let known = state.as_ref();
    let is_missing = |keep: &&Keep| match keep {
        Keep::Step => known.is_none_or(|state| state.step.is_none()),
        Keep::RetryCount => known.is_none_or(|state| state.retry_count.is_none()),
        Keep::BudgetUsed => known.is_none_or(|state| state.budget_used.is_none()),
        // Kept by what is sent, not by what is told.
        Keep::ToolResults => false,
    };
    let missing: Vec<String> =
        route.contract.keeps.iter().filter(is_missing).map(|keep| format!("`outlast.state.{}`", keep.name())).collect();
    if missing.is_empty() {
        return Ok(state);
    }
    let message = format!("This route keeps the workflow's state: send {} with the request.", missing.join(", "));
    Err(Denial { param: Some("outlast.state"), ..Denial::new(Refused::BadRequest, message) })
}

pub(super) fn unreadable(error: RequestError) -> Denial {
    Denial { param: error.param, ..Denial::new(Refused::BadRequest, error.message) }
}

fn passed(headers: &HeaderMap) -> Vec<(HeaderName, http::HeaderValue)> {
    let known = PASSED.into_iter().filter_map(|name| headers.get(&name).cloned().map(|value| (name, value)));
    known.collect()
}

/// A header's value, if it is readable text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
