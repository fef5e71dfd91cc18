//! One request: read it, choose its fault, answer it or break.

use super::{
    Shared, admin,
    answer::{Answer, Content},
    anthropic,
    asked::Asked,
    choose::Wish,
    log::{Ending, OpenCall, Seen},
    openai,
    problem::Problem,
    rules,
    script::{self, Broken, Pace, Play, Raw},
    server::Line,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use outlast_drill::{Fault, fault::Position};
use outlast_model::policy::Dialect;
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// The largest request body, as a real provider has a limit too.
const BODY_BYTES_MAX: usize = 64 << 20;

/// The largest reply it makes, about.
const REPLY_BYTES_MAX: u32 = 256 << 20;
/// A chunk of a stream, about.
const CHUNK_BYTES: u32 = 256;

pub(super) async fn serve(
    shared: Arc<Shared>,
    line: Arc<Line>,
    request: Request<Incoming>,
) -> Result<Response<Play>, Broken> {
    let path = request.uri().path();
    if path.starts_with("/fake/") {
        return Ok(admin::serve(&shared, request).await);
    }
    let is_post = request.method() == Method::POST;
    let dialect = match path {
        _ if !is_post => None,
        _ if path.ends_with("/chat/completions") => Some(Dialect::OpenaiChat),
        _ if path.ends_with("/messages") => Some(Dialect::Anthropic),
        _ => None,
    };
    match dialect {
        Some(dialect) => call(shared, line, dialect, request).await,
        None if path.ends_with("/messages/count_tokens") && is_post => Ok(count_tokens(request).await),
        None if path.ends_with("/models") => Ok(models(&shared, request.headers())),
        None => {
            let problem = Problem::NoSuchPath(path.to_owned());
            let (status, body) = openai::error(&problem, "");
            Ok(plain(status, HeaderMap::new(), Play::bytes(body)))
        }
    }
}

/// A model call.
async fn call(
    shared: Arc<Shared>,
    line: Arc<Line>,
    dialect: Dialect,
    request: Request<Incoming>,
) -> Result<Response<Play>, Broken> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Problem::TooLarge),
        Err(_) => return Err(Broken),
    };
    let bytes = body.as_ref().map(Bytes::clone).unwrap_or_default();
    let asked = body.and_then(|body| Asked::read(dialect, &body).map_err(Problem::Mistake));
    let asked = asked.and_then(|asked| match shared.config.strict {
        true => rules::check(dialect, &bytes).map(|()| asked).map_err(Problem::Mistake),
        false => Ok(asked),
    });
    let open = begin(&shared, dialect, &head, &bytes, asked.as_ref().ok());
    let turn = Turn { shared, line, dialect, name: Name::new(dialect, open.id), open: open.call };
    let asked = match asked {
        Ok(asked) => asked,
        Err(problem) => return Ok(turn.fail(&problem, "")),
    };
    if let Some(problem) = turn.gate(&head.headers, open.in_flight) {
        return Ok(turn.fail(&problem, &asked.model.name));
    }
    let fault = match turn.choose(&head.headers, &asked) {
        Ok(fault) => fault,
        Err(problem) => return Ok(turn.fail(&problem, &asked.model.name)),
    };
    turn.play(&asked, fault.as_ref()).await
}

struct Begun {
    call: OpenCall,
    id: u64,
    in_flight: u64,
}

fn begin(
    shared: &Arc<Shared>,
    dialect: Dialect,
    head: &http::request::Parts,
    body: &Bytes,
    asked: Option<&Asked>,
) -> Begun {
    let mut log = shared.log();
    let id = shared.next_id();
    let stream = asked.is_some_and(|asked| asked.stream);
    let seen = log.keeps_entries().then(|| Seen {
        id,
        at_ms: shared.clock.mono().as_nanos() / 1_000_000,
        path: head.uri.path().to_owned(),
        dialect,
        model: asked.map(|asked| asked.model.whole.clone()).unwrap_or_default(),
        stream,
        output_limit: asked.and_then(|asked| asked.output_limit),
        tools: asked.map_or(0, |asked| asked.tools.len()),
        structured: asked.is_some_and(|asked| asked.format.is_some()),
        headers: of_interest(&head.headers),
        body_hash: blake3::hash(body).to_hex()[..16].to_owned(),
        bytes_in: body.len() as u64,
        fault: None,
        status: None,
        bytes_out: 0,
        input_tokens: 0,
        output_tokens: 0,
        ending: Ending::Open,
    });
    let in_flight = log.begin(stream, body.len() as u64, seen);
    drop(log);
    shared.call_counted();
    Begun { call: OpenCall::new(Arc::clone(shared), id), id, in_flight }
}

/// The headers worth a look, with keys cut to the start of their hash.
fn of_interest(headers: &HeaderMap) -> BTreeMap<String, String> {
    const KEPT: [&str; 9] = [
        "traceparent",
        "tracestate",
        "user-agent",
        "accept",
        "anthropic-version",
        "anthropic-beta",
        "idempotency-key",
        "x-stainless-retry-count",
        "x-fake-fault",
    ];
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut kept: BTreeMap<String, String> =
        KEPT.iter().filter_map(|name| Some(((*name).to_owned(), text(name)?))).collect();
    if let Some(key) = key_of(headers) {
        kept.insert("key".into(), super::key_hash(key));
    }
    kept
}

fn key_of(headers: &HeaderMap) -> Option<&str> {
    let bearer = || headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ");
    ["x-api-key", "api-key"].iter().find_map(|name| headers.get(*name)?.to_str().ok()).or_else(bearer)
}

/// The ids of one reply.
struct Name {
    reply: String,
    request: String,
}

impl Name {
    fn new(dialect: Dialect, id: u64) -> Self {
        let prefix = match dialect {
            Dialect::OpenaiChat => "chatcmpl-",
            Dialect::Anthropic => "msg_",
        };
        Name { reply: format!("{prefix}fake{id:012x}"), request: format!("req_fake{id:012x}") }
    }
}

/// One call being answered.
struct Turn {
    shared: Arc<Shared>,
    line: Arc<Line>,
    dialect: Dialect,
    name: Name,
    open: OpenCall,
}

impl Turn {
    /// Keys and capacity, which need no fault to refuse a call.
    fn gate(&self, headers: &HeaderMap, in_flight: u64) -> Option<Problem> {
        let config = &self.shared.config;
        if !config.keys.is_empty() && !key_of(headers).is_some_and(|key| config.keys.iter().any(|known| known == key)) {
            return Some(Problem::Auth);
        }
        let is_full = config.capacity.is_some_and(|capacity| in_flight > u64::from(capacity));
        is_full.then_some(Problem::RateLimited { retry_after: None })
    }

    fn choose(&self, headers: &HeaderMap, asked: &Asked) -> Result<Option<Fault>, Problem> {
        let wrong = |message: String| Problem::Mistake(super::asked::Mistake { message, param: None });
        let wish = match headers.get("x-fake-fault") {
            None => None,
            Some(value) => {
                Some(Wish::read(value.to_str().unwrap_or_default()).map_err(|error| wrong(error.to_string()))?)
            }
        };
        let wish = wish.as_ref().or(asked.model.wish.as_ref());
        let fault = self.shared.rules.choose(wish, &asked.model, self.shared.uptime());
        if fault == Some(Fault::RefuseConnections) {
            return Err(wrong("refuse-connections is for the whole fake: set it with POST /fake/faults".into()));
        }
        let size = match &fault {
            Some(Fault::HugeLine { bytes }) => *bytes,
            Some(Fault::DeepJson { depth }) => *depth,
            Some(_) | None => asked.model.chunks.unwrap_or(0).saturating_mul(CHUNK_BYTES),
        };
        if size > REPLY_BYTES_MAX {
            return Err(wrong(format!("that would be a reply of more than {REPLY_BYTES_MAX} bytes")));
        }
        Ok(fault)
    }

    async fn play(self, asked: &Asked, fault: Option<&Fault>) -> Result<Response<Play>, Broken> {
        if let Some(fault) = fault {
            self.open.got_fault(fault.to_string());
        }
        let config = &self.shared.config;
        let latency = if let Some(Fault::Latency(time)) = fault { *time } else { config.latency };
        if !latency.is_zero() {
            crate::clock::sleep(latency).await;
        }
        match fault {
            Some(Fault::Hang(Position::BeforeHeaders)) => std::future::pending().await,
            Some(Fault::Reset(Position::BeforeHeaders)) => {
                self.line.reset_when_closed();
                let mut turn = self;
                turn.open.all_sent();
                return Err(Broken);
            }
            Some(_) | None => {}
        }
        let is_anthropic = self.dialect == Dialect::Anthropic;
        if let Some(problem) = fault.and_then(|fault| Problem::of(fault, !asked.tools.is_empty(), is_anthropic)) {
            return Ok(self.fail(&problem, &asked.model.name));
        }
        let in_200 = matches!(fault, Some(Fault::ErrorIn200))
            || (!asked.stream && matches!(fault, Some(Fault::ErrorEvent { .. })));
        if in_200 {
            return Ok(self.error_in_200(fault, &asked.model.name));
        }
        Ok(self.answer(asked, fault))
    }

    fn answer(self, asked: &Asked, fault: Option<&Fault>) -> Response<Play> {
        let config = &self.shared.config;
        let answer = Answer::of(asked, &config.name, config.chunks, fault);
        let pace = Pace { first: config.first_token, gap: asked.model.gap.unwrap_or(config.token_gap) };
        let error = match fault {
            Some(Fault::ErrorEvent { .. }) => self.error_frame(&asked.model.name),
            Some(_) | None => Vec::new(),
        };
        let (reply, model) = (self.name.reply.as_str(), asked.model.name.as_str());
        let created = self.shared.clock.wall().0 / 1000;
        let as_openai = openai::Reply { id: reply, model, created, include_usage: asked.include_usage };
        let as_anthropic = anthropic::Reply { id: reply, model };
        let mut headers = self.headers(None);
        let (steps, length) = if asked.stream {
            let (frames, malformed) = match self.dialect {
                Dialect::OpenaiChat => (as_openai.stream(&answer), openai::MALFORMED),
                Dialect::Anthropic => (as_anthropic.stream(&answer), anthropic::MALFORMED),
            };
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            (script::streamed(frames, fault, pace, Raw { error: &error, malformed }), None)
        } else {
            let body = match self.dialect {
                Dialect::OpenaiChat => as_openai.whole(&answer),
                Dialect::Anthropic => as_anthropic.whole(&answer),
            };
            let parts = match &answer.content {
                Content::Nothing => 1,
                Content::Text(_) | Content::Tools(_) | Content::Refusal(_) => answer.output_tokens.max(1),
            };
            // A control character is no JSON wherever it stands.
            let raw = Raw { error: &error, malformed: b"\x01{" };
            script::whole(Bytes::from(body), parts, fault, pace, raw)
        };
        self.open.answers(200);
        self.open.counts(answer.input_tokens, answer.output_tokens);
        respond(200, headers, Play::script(steps, length, self.line, self.open))
    }

    fn error_in_200(self, fault: Option<&Fault>, model: &str) -> Response<Play> {
        let problem = match fault {
            Some(Fault::ErrorEvent { .. }) => overloaded(),
            Some(_) | None => Problem::Server { status: 500, retry_after: None },
        };
        let (_, body) = self.error(&problem, model);
        let headers = self.headers(None);
        self.open.answers(200);
        plain(200, headers, Play::bytes(body).noted(self.open))
    }

    fn fail(self, problem: &Problem, model: &str) -> Response<Play> {
        let (status, body) = self.error(problem, model);
        self.open.answers(status);
        if problem.is_a_proxys() {
            let page = format!("<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>\r\n");
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
            return respond(status, headers, Play::bytes(page).noted(self.open));
        }
        let mut headers = self.headers(problem.retry_after());
        if matches!(problem, Problem::RateLimited { retry_after: None }) {
            // The hard case: a 429 that says nothing about when to come back.
            let says_when = |name: &str| name.contains("ratelimit") || name.contains("retry");
            let silent: Vec<_> = headers.keys().filter(|name| says_when(name.as_str())).cloned().collect();
            silent.iter().for_each(|name| drop(headers.remove(name)));
        }
        plain(status, headers, Play::bytes(body).noted(self.open))
    }

    fn error(&self, problem: &Problem, model: &str) -> (u16, Vec<u8>) {
        match self.dialect {
            Dialect::OpenaiChat => openai::error(problem, model),
            Dialect::Anthropic => anthropic::error(problem, model, &self.name.request),
        }
    }

    fn error_frame(&self, model: &str) -> Vec<u8> {
        match self.dialect {
            Dialect::OpenaiChat => openai::error_frame(&overloaded(), model),
            Dialect::Anthropic => anthropic::error_frame(&overloaded(), model, &self.name.request),
        }
    }

    fn headers(&self, retry_after: Option<Duration>) -> HeaderMap {
        match self.dialect {
            Dialect::OpenaiChat => openai::headers(&self.name.request, retry_after),
            Dialect::Anthropic => {
                let wait = retry_after.unwrap_or(Duration::from_secs(1));
                let millis = self.shared.clock.wall().0.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(0));
                let reset = jiff::Timestamp::from_second(millis / 1000).unwrap_or_default();
                anthropic::headers(&self.name.request, retry_after, &reset.to_string())
            }
        }
    }
}

fn overloaded() -> Problem {
    Problem::Overloaded { status: 529, retry_after: None }
}

fn respond(status: u16, headers: HeaderMap, body: Play) -> Response<Play> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = headers;
    response.headers_mut().entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    response
}

/// A JSON reply.
pub(super) fn plain(status: u16, mut headers: HeaderMap, body: Play) -> Response<Play> {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    respond(status, headers, body)
}

async fn count_tokens(request: Request<Incoming>) -> Response<Play> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    let bytes = body.map(|body| body.to_bytes().len()).unwrap_or_default();
    plain(200, HeaderMap::new(), Play::bytes(json!({"input_tokens": (bytes / 4).max(1)}).to_string()))
}

/// The model list, in Anthropic's shape for those who send its version header.
fn models(shared: &Shared, headers: &HeaderMap) -> Response<Play> {
    let names = &shared.config.models;
    let body = if headers.contains_key("anthropic-version") {
        let data = names.iter().map(
            |name| json!({"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}),
        );
        json!({"data": data.collect::<Vec<_>>(), "has_more": false, "first_id": names.first(), "last_id": names.last()})
    } else {
        let data = names.iter().map(
            |name| json!({"id": name, "object": "model", "created": 1_767_225_600, "owned_by": shared.config.name}),
        );
        json!({"object": "list", "data": data.collect::<Vec<_>>()})
    };
    plain(200, HeaderMap::new(), Play::bytes(body.to_string()))
}
