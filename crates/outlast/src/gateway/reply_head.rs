//! Response heads and the `outlast` object: what the client is told beside the reply.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header, response::Parts};
use outlast_engine::RetryAdvice;
use outlast_model::{
    Brief, Failure, RequestId, TargetId, Usd,
    policy::ToolMode,
    record::{CallRecord, GaveUp},
};
use std::time::Duration;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-outlast-request-id");
const TARGET: HeaderName = HeaderName::from_static("x-outlast-target");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-outlast-attempts");
const FALLBACK_REASON: HeaderName = HeaderName::from_static("x-outlast-fallback-reason");
const DEGRADED: HeaderName = HeaderName::from_static("x-outlast-degraded");
const TOOL_MODE: HeaderName = HeaderName::from_static("x-outlast-tool-mode");
const COST: HeaderName = HeaderName::from_static("x-outlast-cost-usd");
/// What OpenAI's SDKs read as the request's id.
const OPENAI_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What Anthropic's SDKs read as the request's id.
const ANTHROPIC_ID: HeaderName = HeaderName::from_static("request-id");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// What is known of a call while it goes on: enough for a stream's head.
#[derive(Default)]
pub(super) struct Told {
    /// Attempts begun.
    attempts: u8,
    /// The last one's target, or that of the one that is shown.
    target: Option<TargetId>,
    /// The attempt before and its target: in a race it may be the one that is shown.
    earlier: Option<(u8, TargetId)>,
    /// Why there was more than one.
    fallback_reason: Option<Failure>,
    /// What the last one can do with tools.
    tool_mode: ToolMode,
    /// What its request is without already.
    gave_up: Vec<&'static str>,
}

impl Told {
    /// An attempt has begun. `full_tools`: what the model could do with tools at best.
    pub(super) fn begin(
        &mut self,
        attempt: u8,
        target: TargetId,
        fallback_reason: Option<Failure>,
        brief: &Brief,
        full_tools: ToolMode,
    ) {
        self.attempts = attempt.saturating_add(1);
        self.earlier = self.target.replace(target).map(|earlier| (attempt.saturating_sub(1), earlier));
        self.fallback_reason = fallback_reason;
        self.tool_mode = brief.tool_mode;
        self.gave_up.clear();
        if brief.tool_mode > full_tools {
            self.gave_up.push("tools");
        }
        if brief.shorten_to.is_some() {
            self.gave_up.push("input");
        }
    }

    /// The client is shown what this attempt says. Two that race differ in their target only.
    pub(super) fn show(&mut self, attempt: u8) {
        if let Some((_, target)) = self.earlier.take_if(|(earlier, _)| *earlier == attempt) {
            self.target = Some(target);
        }
    }
}

/// The head of a stream, as far as things are known at its commit point.
pub(super) fn stream(id: &RequestId, told: &Told) -> Parts {
    let (mut head, ()) = Response::new(()).into_parts();
    head.headers = common(id, told.attempts);
    streams(&mut head.headers);
    set(&mut head.headers, TARGET, told.target.as_ref().map(TargetId::as_str));
    set(&mut head.headers, FALLBACK_REASON, told.fallback_reason.map(Failure::class));
    if told.tool_mode != ToolMode::Full {
        head.headers.insert(TOOL_MODE, HeaderValue::from_static(told.tool_mode.name()));
    }
    if !told.gave_up.is_empty() {
        set(&mut head.headers, DEGRADED, Some(&told.gave_up.join(",")));
    }
    head
}

/// The head of a stream of which everything is known: it was held back until now.
pub(super) fn whole_stream(record: &CallRecord, status: StatusCode) -> Parts {
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = status;
    head.headers = settled(record);
    streams(&mut head.headers);
    head
}

fn streams(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
}

/// A whole reply.
pub(super) fn whole(record: &CallRecord, status: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = settled(record);
    response
}

/// Says where and when a deferred answer is to be had.
pub(super) fn promise(headers: &mut HeaderMap, location: Option<&str>, retry_after: Option<Duration>) {
    set(headers, header::LOCATION, location);
    if let Some(after) = retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_millis().div_ceil(1000) as u64));
    }
}

/// A typed error.
pub(super) fn error(record: &CallRecord, status: StatusCode, retry: RetryAdvice, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = settled(record);
    advise(response.headers_mut(), retry);
    response
}

/// Tells the client's SDK whether to try again, and when.
pub(super) fn advise(headers: &mut HeaderMap, retry: RetryAdvice) {
    headers.insert(SHOULD_RETRY, HeaderValue::from_static(if retry.should_retry { "true" } else { "false" }));
    if let Some(after) = retry.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_millis().div_ceil(1000) as u64));
        headers.insert(HeaderName::from_static("retry-after-ms"), HeaderValue::from(after.as_millis() as u64));
    }
}

/// The headers of every answer: JSON, and the request's id in all its spellings.
pub(super) fn common(id: &RequestId, attempts: u8) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(OPENAI_ID, id.clone());
        headers.insert(ANTHROPIC_ID, id.clone());
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(ATTEMPTS, HeaderValue::from(u16::from(attempts)));
    headers.insert(TOOL_MODE, HeaderValue::from_static("full"));
    headers
}

fn settled(record: &CallRecord) -> HeaderMap {
    let mut headers = common(&record.request_id, u8::try_from(record.attempts.len()).unwrap_or(u8::MAX));
    set(&mut headers, TARGET, record.served_by.as_ref().map(TargetId::as_str));
    set(&mut headers, FALLBACK_REASON, record.first_failure().map(Failure::class));
    if record.degraded {
        let names: Vec<&str> = record.gave_up.iter().map(GaveUp::name).collect();
        set(&mut headers, DEGRADED, Some(&names.join(",")));
    }
    if record.tool_mode != ToolMode::Full {
        headers.insert(TOOL_MODE, HeaderValue::from_static(record.tool_mode.name()));
    }
    if let Some(cost) = known_cost(record) {
        set(&mut headers, COST, Some(&nanos(cost)));
    }
    headers
}

/// The cost, unless the price of something that was used is unknown.
fn known_cost(record: &CallRecord) -> Option<Usd> {
    record.cost_is_known().then_some(record.cost)
}

/// All nine decimals: a small model's call costs less than a millionth of a dollar.
fn nanos(cost: Usd) -> String {
    format!("{}.{:09}", cost.as_nanos() / 1_000_000_000, cost.as_nanos() % 1_000_000_000)
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: Option<&str>) {
    if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
        headers.insert(name, value);
    }
}
