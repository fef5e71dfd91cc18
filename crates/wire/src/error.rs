//! What the client is told when there is no reply, in its own dialect, in the form on which the official SDKs raise
//! the exception their users catch. The table is `docs/errors.md`; a test holds the two together.
//!
//! Two rules shape it. A fault of the gateway's own account (key, money, permission) is a 5xx: the caller's key is
//! good, and a 401 or 402 would send them looking in the wrong place. And what would fail again the same way is
//! never a status that SDKs retry unasked, unless only an operator can change it: then `x-should-retry: false`,
//! which the host sends, stops them. No failure is a 409.

use bytes::Bytes;
use outlast_model::{Failure, FailureReport, failure::Deadline, policy::Dialect, turn::Usage};
use serde_json::{Value, json};
use std::{borrow::Cow, time::Duration};

/// An error response: what to send with `content-type: application/json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorReply {
    /// HTTP status.
    pub status: u16,
    /// JSON in the client's dialect.
    pub body: Bytes,
}

/// What the gateway itself refuses, before any target is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The body is not a request of this dialect.
    BadRequest,
    /// No key, or a wrong one.
    Unauthorized,
    /// The key may not do this.
    Forbidden,
    /// No route has that name.
    NoSuchModel,
    /// Nothing is served at this path.
    NoSuchPath,
    /// The path is served, but not with this method.
    WrongMethod,
    /// The body is larger than the limit.
    TooLarge,
    /// The request was not sent in time.
    TooSlow,
    /// Too many calls are in flight.
    Busy,
    /// The gateway is shutting down.
    Draining,
    /// An `Idempotency-Key` came again with another request.
    KeyReused,
    /// The first request of an `Idempotency-Key` is still being answered.
    KeyInFlight,
    /// A confirmation is unknown, used, or of another request.
    Unconfirmed,
    /// What was to be fetched or confirmed has expired.
    Expired,
    /// The durable store cannot be used, and the request may not go on without it.
    StoreDown,
    /// The claim on a run or a step is somebody else's by now, or over.
    LeaseLost,
    /// Somebody is at this step.
    StepInFlight,
    /// This step must not be tried, or looked into, before some time has passed.
    StepNotYet,
    /// The step's key stands for something else.
    StepMismatch,
    /// The run is to be cancelled: nothing new begins in it.
    RunCancelled,
    /// The run's deadline has passed: nothing new begins in it.
    RunOverdue,
    /// The run's money is spent: nothing new begins in it.
    RunOverBudget,
    /// The run has ended.
    RunOver,
    /// Somebody holds the run, and this needs it free.
    RunHeld,
    /// The caller has no such run, step or worker.
    NoSuchRun,
    /// Too many signals of one run wait for it.
    SignalsFull,
    /// A person has decided already.
    AlreadyDecided,
    /// What waits is not what the person was shown.
    Changed,
    /// It cannot be decided so.
    NotOffered,
    /// A bug; it is logged under the request id.
    Internal,
}

impl Refused {
    /// Every kind, for tables and tests.
    pub const ALL: [Refused; 30] = [
        Refused::BadRequest,
        Refused::Unauthorized,
        Refused::Forbidden,
        Refused::NoSuchModel,
        Refused::NoSuchPath,
        Refused::WrongMethod,
        Refused::TooLarge,
        Refused::TooSlow,
        Refused::Busy,
        Refused::Draining,
        Refused::KeyReused,
        Refused::KeyInFlight,
        Refused::Unconfirmed,
        Refused::Expired,
        Refused::StoreDown,
        Refused::LeaseLost,
        Refused::StepInFlight,
        Refused::StepNotYet,
        Refused::StepMismatch,
        Refused::RunCancelled,
        Refused::RunOverdue,
        Refused::RunOverBudget,
        Refused::RunOver,
        Refused::RunHeld,
        Refused::NoSuchRun,
        Refused::SignalsFull,
        Refused::AlreadyDecided,
        Refused::Changed,
        Refused::NotOffered,
        Refused::Internal,
    ];
}

/// How an error looks from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Face {
    status: u16,
    /// Differs from `status` only for overload, which has a status of its own in the Anthropic dialect.
    anthropic_status: u16,
    openai_type: &'static str,
    code: &'static str,
    anthropic_type: &'static str,
}

const fn face(status: u16, openai_type: &'static str, code: &'static str, anthropic_type: &'static str) -> Face {
    Face { status, anthropic_status: status, openai_type, code, anthropic_type }
}

/// Something behind the gateway failed.
const fn behind(status: u16, code: &'static str) -> Face {
    face(status, "server_error", code, "api_error")
}

/// The request cannot be answered as it is.
const fn request(status: u16, code: &'static str) -> Face {
    face(status, "invalid_request_error", code, "invalid_request_error")
}

const fn overload(code: &'static str) -> Face {
    Face { anthropic_status: 529, ..face(503, "server_error", code, "overloaded_error") }
}

fn face_of(report: &FailureReport) -> Face {
    match report.failure {
        Failure::Timeout(_) => face(504, "server_error", "timeout", "timeout_error"),
        Failure::Connection(_) => behind(502, "connection"),
        Failure::ServerError => behind(502, "server_error"),
        Failure::Overloaded => overload("overloaded"),
        Failure::RateLimited => face(429, "rate_limit_error", "rate_limit_exceeded", "rate_limit_error"),
        Failure::QuotaExhausted => behind(503, "quota_exhausted"),
        Failure::Auth => behind(503, "auth"),
        Failure::AccessDenied => behind(503, "access_denied"),
        Failure::ContextExceeded => request(400, "context_length_exceeded"),
        Failure::MalformedReply => behind(502, "malformed_reply"),
        Failure::Empty => behind(502, "empty"),
        Failure::SchemaError => behind(502, "schema_error"),
        Failure::Truncated => behind(502, "truncated"),
        Failure::Refusal => request(400, "refusal"),
        Failure::SafetyBlock => request(400, "content_filter"),
        // The tools themselves were rejected, or a model made a bad call: the first is in the request.
        Failure::ToolMismatch if report.status.is_some_and(|status| (400..500).contains(&status)) => {
            request(400, "tool_mismatch")
        }
        Failure::ToolMismatch => behind(502, "tool_mismatch"),
        Failure::Quality => behind(502, "quality"),
        Failure::CostSpike => request(400, "cost_spike"),
        Failure::StreamInterrupted => behind(502, "stream_interrupted"),
        Failure::Unsupported => request(400, "unsupported"),
        Failure::InvalidRequest => match report.status {
            Some(413) => face(413, "invalid_request_error", "invalid_request", "request_too_large"),
            Some(404) => face(404, "invalid_request_error", "invalid_request", "not_found_error"),
            Some(422) => request(422, "invalid_request"),
            Some(_) | None => request(400, "invalid_request"),
        },
        Failure::Cancelled => behind(499, "cancelled"),
        Failure::ToolFailed => behind(502, "tool_failed"),
        Failure::Exhausted => behind(503, "exhausted"),
    }
}

const fn face_of_refusal(why: Refused) -> Face {
    match why {
        Refused::BadRequest => request(400, "bad_request"),
        Refused::Unauthorized => face(401, "invalid_request_error", "invalid_api_key", "authentication_error"),
        Refused::Forbidden => face(403, "invalid_request_error", "forbidden", "permission_error"),
        Refused::NoSuchModel => face(404, "invalid_request_error", "model_not_found", "not_found_error"),
        Refused::NoSuchPath => face(404, "invalid_request_error", "not_found", "not_found_error"),
        Refused::WrongMethod => request(405, "method_not_allowed"),
        Refused::TooLarge => face(413, "invalid_request_error", "request_too_large", "request_too_large"),
        Refused::TooSlow => face(408, "invalid_request_error", "request_timeout", "timeout_error"),
        Refused::Busy => overload("busy"),
        Refused::Draining => overload("draining"),
        Refused::KeyReused => request(422, "idempotency_key_reused"),
        // The one 409 a model's client meets: the SDKs retry it unasked, and a retry is what gets the first request's answer.
        Refused::KeyInFlight => request(409, "idempotency_key_in_flight"),
        Refused::Unconfirmed => request(422, "confirmation_invalid"),
        Refused::Expired => request(410, "expired"),
        Refused::StoreDown => behind(503, "store_unavailable"),
        Refused::LeaseLost => request(410, "lease_lost"),
        Refused::StepInFlight => request(409, "step_in_flight"),
        Refused::StepNotYet => request(409, "step_not_yet"),
        Refused::StepMismatch => request(422, "step_mismatch"),
        Refused::RunCancelled => request(409, "run_cancelled"),
        Refused::RunOverdue => request(409, "run_overdue"),
        Refused::RunOverBudget => request(409, "run_over_budget"),
        Refused::RunOver => request(409, "run_over"),
        Refused::RunHeld => request(409, "run_held"),
        Refused::NoSuchRun => face(404, "invalid_request_error", "no_such_run", "not_found_error"),
        Refused::SignalsFull => face(429, "rate_limit_error", "too_many_signals", "rate_limit_error"),
        Refused::AlreadyDecided => request(409, "already_decided"),
        Refused::Changed => request(409, "changed"),
        Refused::NotOffered => request(422, "not_offered"),
        Refused::Internal => behind(500, "internal"),
    }
}

/// What to say about a failure: what happened and a safe next step. Names no vendor and repeats nothing of the
/// upstream's text.
pub fn message(report: &FailureReport, retry_after: Option<Duration>) -> Cow<'static, str> {
    let said = match report.failure {
        Failure::Timeout(Deadline::Total) => {
            "The request's time was up before a model had answered. Retry; a shorter prompt or a smaller output limit answers sooner."
        }
        Failure::Timeout(Deadline::Connect | Deadline::Header | Deadline::FirstToken | Deadline::Idle) => {
            "The models of this route did not answer in time. Retry in a moment."
        }
        Failure::Connection(_) => "The models of this route could not be reached. Retry in a moment.",
        Failure::ServerError => "The models of this route failed on this request. Retry in a moment.",
        Failure::Overloaded => "The models of this route are overloaded. Retry later.",
        Failure::RateLimited => "The models of this route are at their rate limit. Retry later.",
        Failure::QuotaExhausted => {
            "The gateway's accounts for this route are out of quota. Your key is fine; the operator must act."
        }
        Failure::Auth => {
            "The gateway's credentials for this route were rejected. Your key is fine; the operator must act."
        }
        Failure::AccessDenied => {
            "The gateway's accounts may not use the models of this route. Your key is fine; the operator must act."
        }
        Failure::ContextExceeded => {
            "prompt is too long: it exceeds the maximum context length of every model this route may use. Shorten it, or use a route with a larger context window."
        }
        Failure::MalformedReply => "A model's reply could not be read. Nothing of it was used. Retry in a moment.",
        Failure::Empty => "The models of this route answered with nothing. Retry, or rephrase the request.",
        Failure::SchemaError => {
            "No reply kept the required structure. Nothing of it was used. Simplify the schema, or use a route with a stronger model."
        }
        Failure::Truncated => {
            "The reply hit its output limit inside required structure. Raise the output limit, or ask for less."
        }
        Failure::Refusal => "The model declined this request. Rephrase it if it is legitimate.",
        Failure::SafetyBlock => {
            "A content policy blocked this request. It is not tried on another model. Change the content."
        }
        Failure::ToolMismatch => {
            "The models of this route cannot use these tools as defined, or called them with bad arguments. No tool was run. Check the tools' schemas."
        }
        Failure::Quality => "No reply passed this route's quality gates. Nothing of it was used.",
        Failure::CostSpike => {
            "This request would cost more than the route allows. Shorten it, or lower the output limit."
        }
        Failure::StreamInterrupted => {
            "The reply was cut off before its end. What has arrived is incomplete; do not use it as an answer. Retry the request."
        }
        Failure::Unsupported => {
            "No model of this route can take this request as it is. Use fewer special features, or another route."
        }
        Failure::InvalidRequest => "The request is not valid. Correct it; a retry would fail the same way.",
        Failure::Cancelled => "The request was cancelled.",
        Failure::ToolFailed => {
            "What this answer depends on is not available, so nothing unchecked is given. Retry later."
        }
        Failure::Exhausted => {
            "Every model of this route was tried or is out of service. Nothing was lost; retry later."
        }
    };
    match retry_after {
        Some(wait) => format!("{said} It may work again in {} s.", wait.as_secs_f64().ceil() as u64).into(),
        None => said.into(),
    }
}

/// The error response for a failed call. `message` is [`message`]'s or a better one.
pub fn body(dialect: Dialect, report: &FailureReport, message: &str, request_id: &str) -> ErrorReply {
    let face = face_of(report);
    // The client's own fault keeps the provider's code: it names the field or the rule.
    let code = match (&report.code, report.failure) {
        (Some(code), Failure::InvalidRequest) => code,
        _ => face.code,
    };
    reply(dialect, face, code, message, None, request_id)
}

/// The error response for what the gateway itself refuses. `param` names the field at fault.
pub fn refused(dialect: Dialect, why: Refused, message: &str, param: Option<&str>, request_id: &str) -> ErrorReply {
    let face = face_of_refusal(why);
    reply(dialect, face, face.code, message, param, request_id)
}

/// The typed error event that ends a stream which had begun: the official SDKs raise on it. Nothing follows it, no
/// `[DONE]` and no `message_stop`.
pub fn event(
    dialect: Dialect,
    report: &FailureReport,
    message: &str,
    request_id: &str,
    usage: Option<&Usage>,
) -> Bytes {
    let face = face_of(report);
    let mut event = object(dialect, face, face.code, message, None, request_id);
    if let Some(usage) = usage {
        event["usage"] = partial_usage(dialect, usage);
    }
    match dialect {
        Dialect::OpenaiChat => {
            event["request_id"] = request_id.into();
            format!("data: {event}\n\n").into()
        }
        Dialect::Anthropic => format!("event: error\ndata: {event}\n\n").into(),
    }
}

fn reply(dialect: Dialect, face: Face, code: &str, message: &str, param: Option<&str>, request_id: &str) -> ErrorReply {
    let status = match dialect {
        Dialect::OpenaiChat => face.status,
        Dialect::Anthropic => face.anthropic_status,
    };
    ErrorReply { status, body: object(dialect, face, code, message, param, request_id).to_string().into() }
}

fn object(dialect: Dialect, face: Face, code: &str, message: &str, param: Option<&str>, request_id: &str) -> Value {
    match dialect {
        Dialect::OpenaiChat => {
            json!({"error": {"message": message, "type": face.openai_type, "param": param, "code": code}})
        }
        Dialect::Anthropic => json!({
            "type": "error",
            "error": {"type": face.anthropic_type, "message": message},
            "request_id": request_id,
        }),
    }
}

/// What was consumed before the end, in the dialect's words; estimates are labelled so.
fn partial_usage(dialect: Dialect, usage: &Usage) -> Value {
    let mut said = match dialect {
        Dialect::OpenaiChat => json!({
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": u64::from(usage.input_tokens) + u64::from(usage.output_tokens),
        }),
        Dialect::Anthropic => json!({
            "input_tokens": usage
                .input_tokens
                .saturating_sub(usage.cache_read_tokens)
                .saturating_sub(usage.cache_write_tokens),
            "cache_read_input_tokens": usage.cache_read_tokens,
            "cache_creation_input_tokens": usage.cache_write_tokens,
            "output_tokens": usage.output_tokens,
        }),
    };
    if usage.estimated {
        said["estimated"] = true.into();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn each_dialect_gets_the_body_its_sdk_reads() {
        let report = FailureReport::of(Failure::ContextExceeded);
        let openai = body(Dialect::OpenaiChat, &report, "too long", "req_1");
        assert_eq!(openai.status, 400);
        assert_eq!(
            value(&openai.body),
            json!({"error": {"message": "too long", "type": "invalid_request_error", "param": null, "code": "context_length_exceeded"}})
        );
        let anthropic = body(Dialect::Anthropic, &FailureReport::of(Failure::Overloaded), "busy", "req_1");
        assert_eq!(anthropic.status, 529);
        assert_eq!(
            value(&anthropic.body),
            json!({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}, "request_id": "req_1"})
        );
        let refusal = refused(Dialect::OpenaiChat, Refused::NoSuchModel, "no route `x`", Some("model"), "req_1");
        assert_eq!((refusal.status, value(&refusal.body)["error"]["param"].clone()), (404, "model".into()));
    }

    #[test]
    fn an_error_event_is_what_the_sdks_raise_on_and_carries_partial_usage() {
        let report = FailureReport::of(Failure::StreamInterrupted);
        let usage =
            Usage { input_tokens: 10, output_tokens: 3, cache_read_tokens: 4, estimated: true, ..Usage::default() };
        let openai = event(Dialect::OpenaiChat, &report, "cut\n\nhere", "req_1", Some(&usage));
        let text = std::str::from_utf8(&openai).unwrap();
        let data = value(text.strip_prefix("data: ").unwrap().as_bytes());
        assert!(data["error"]["message"] == "cut\n\nhere" && text.matches("\n\n").count() == 1);
        assert_eq!(
            data["usage"],
            json!({"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13, "estimated": true})
        );
        let anthropic = event(Dialect::Anthropic, &report, "cut", "req_1", Some(&usage));
        let text = std::str::from_utf8(&anthropic).unwrap();
        let data = value(text.strip_prefix("event: error\ndata: ").unwrap().as_bytes());
        assert_eq!((&data["type"], &data["error"]["type"]), (&json!("error"), &json!("api_error")));
        assert_eq!((&data["usage"]["input_tokens"], &data["usage"]["output_tokens"]), (&json!(6), &json!(3)));
        for bytes in [openai, anthropic] {
            assert!(!bytes.windows(6).any(|six| six == b"[DONE]"));
        }
    }

    #[test]
    fn a_fault_of_the_gateways_own_accounts_never_blames_the_callers_key() {
        for failure in [Failure::Auth, Failure::QuotaExhausted, Failure::AccessDenied] {
            let report = FailureReport { status: Some(401), ..FailureReport::of(failure) };
            assert_eq!(body(Dialect::OpenaiChat, &report, "m", "r").status, 503, "{failure}");
        }
    }

    #[test]
    fn no_failure_is_a_409_and_what_only_the_client_can_mend_is_a_plain_4xx() {
        for failure in Failure::ALL {
            for status in [None, Some(409), Some(429), Some(500)] {
                let report = FailureReport { status, ..FailureReport::of(failure) };
                for dialect in Dialect::ALL {
                    assert_ne!(body(dialect, &report, "m", "r").status, 409, "{failure}");
                }
            }
        }
        for failure in [Failure::InvalidRequest, Failure::SafetyBlock, Failure::ContextExceeded, Failure::Unsupported] {
            let report = FailureReport { status: Some(409), ..FailureReport::of(failure) };
            assert_eq!(body(Dialect::OpenaiChat, &report, "m", "r").status, 400, "{failure}");
        }
    }

    #[test]
    fn messages_name_no_vendor_and_say_when_to_come_back() {
        for failure in Failure::ALL {
            let said = message(&FailureReport::of(failure), None).to_lowercase();
            assert!(said.len() > 20 && said.ends_with('.'), "{failure}: {said}");
            for vendor in ["openai", "anthropic", "claude", "gpt", "gemini", "azure", "bedrock"] {
                assert!(!said.contains(vendor), "{failure}: {said}");
            }
        }
        let said = message(&FailureReport::of(Failure::RateLimited), Some(Duration::from_millis(1200)));
        assert!(said.ends_with("in 2 s."), "{said}");
    }

    #[test]
    fn the_documented_table_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors.md");
        let docs = std::fs::read_to_string(path).unwrap();
        let row = |name: &str, face: Face| {
            let status = match face.anthropic_status == face.status {
                true => face.status.to_string(),
                false => format!("{} / {}", face.status, face.anthropic_status),
            };
            format!("| `{name}` | {status} | `{}` | `{}` | `{}` |", face.openai_type, face.code, face.anthropic_type)
        };
        for failure in Failure::ALL {
            let row = row(failure.class(), face_of(&FailureReport::of(failure)));
            assert!(docs.contains(&row), "docs/errors.md lacks: {row}");
        }
        for why in Refused::ALL {
            let face = face_of_refusal(why);
            let row = row(face.code, face);
            assert!(docs.contains(&row), "docs/errors.md lacks: {row}");
        }
    }
}
