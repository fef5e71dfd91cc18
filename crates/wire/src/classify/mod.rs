//! From what a provider said (status, headers, body) to the failure it was.
//!
//! Three things are believed, in this order: a code the provider defines for exactly one thing ([`codes`]), what
//! its message says about the request ([`phrases`]: too long, no tools, no money...), and the status. Some codes
//! are shared by different things (`invalid_request_error`, `rate_limit_exceeded`), so they come after the message.
//! Neither vendor nor dialect is asked for: gateways relay each other's bodies in every envelope, so the words
//! decide.
//!
//! `docs/errors.md` describes the classes for users.

mod codes;
mod phrases;
mod said;
mod wait;

use outlast_model::{
    Failure, FailureReport, Wall,
    failure::{Blame, ConnectionFault, Deadline},
    policy::{Ability, Capabilities, Needs},
    turn::Finish,
};
use said::{Form, Said};

pub use wait::RETRY_AFTER_MAX;

/// Classifies a response that is not a success: any status outside 2xx, or a 2xx whose body is an error.
///
/// `header` looks a header up by its lower-case name. `body` may be cut anywhere, empty, or not JSON at all.
/// `now` is only used to turn dates (an HTTP date in `Retry-After`, an RFC 3339 reset) into waits.
pub fn response<'h>(status: u16, header: impl Fn(&str) -> Option<&'h str>, body: &[u8], now: Wall) -> FailureReport {
    let mut said = Said::read(body);
    if let Some(kind) = header("x-amzn-errortype") {
        said.add_kind(kind);
    }
    let failure = match status {
        200..300 => in_success(&said),
        _ => decide(&said, Some(status)),
    };
    FailureReport { retry_after: wait::asked(failure, header, &said, now), ..report(failure, Some(status), &said) }
}

/// Classifies what is known to be an error inside a success: the `data` of an error event, or a chunk or whole body
/// that has an `error` member.
pub fn in_band(payload: &[u8]) -> FailureReport {
    let said = Said::read(payload);
    let failure = decide(&said, said.status);
    FailureReport { retry_after: wait::said(failure, &said), ..report(failure, said.status, &said) }
}

/// What a report becomes when more than splicing was done to the request: the rejection may then be Outlast's
/// doing, so it is not the client's fault.
pub fn of_adapted(report: FailureReport) -> FailureReport {
    if report.failure == Failure::InvalidRequest {
        FailureReport { failure: Failure::Unsupported, ..report }
    } else {
        report
    }
}

/// What a rejection becomes when the body says that the target cannot see images and nobody had vouched that it
/// can: not the client's fault, and another target may well take it.
pub fn of_unproven(report: FailureReport, body: &[u8], needs: &Needs, can: &Capabilities) -> FailureReport {
    let guessed = needs.images && can.images == Ability::Unknown;
    let unable = guessed && phrases::unable_input(&Said::read(body)).is_some();
    if unable { of_adapted(report) } else { report }
}

/// Reads any vendor's word for why a reply ended: `finish_reason`, `stop_reason`, `finishReason`, `done_reason`...
pub fn finish(word: &str) -> Finish {
    match said::normal(word).as_str() {
        "stop" | "endturn" | "stopsequence" | "eos" | "eostoken" | "complete" | "completed" | "finished" => {
            Finish::Stop
        }
        "length" | "maxtokens" | "maxoutputtokens" | "modellength" | "modelcontextwindowexceeded" => Finish::Length,
        "toolcalls" | "tooluse" | "functioncall" | "toolcall" => Finish::ToolCalls,
        "contentfilter"
        | "contentfiltered"
        | "safety"
        | "prohibitedcontent"
        | "blocklist"
        | "recitation"
        | "spii"
        | "guardrailintervened"
        | "imagesafety"
        | "modelarmor"
        | "sensitive" => Finish::ContentFilter,
        "refusal" => Finish::Refusal,
        _ => Finish::Other,
    }
}

/// What went wrong, if the word for why a reply ended says that something did. A length stop is no failure by
/// itself; [`crate::check`] decides that.
pub fn broken_finish(word: &str) -> Option<Failure> {
    match said::normal(word).as_str() {
        "error" | "errortoxic" => Some(Failure::ServerError),
        "insufficientsystemresource" => Some(Failure::Overloaded),
        "abort" | "cancelled" | "networkerror" => Some(Failure::StreamInterrupted),
        "malformedfunctioncall" | "unexpectedtoolcall" | "toomanytoolcalls" => Some(Failure::ToolMismatch),
        "malformedresponse" | "missingthoughtsignature" => Some(Failure::MalformedReply),
        "language" => Some(Failure::InvalidRequest),
        _ => None,
    }
}

fn report(failure: Failure, status: Option<u16>, said: &Said) -> FailureReport {
    FailureReport { failure, status, code: said.code(), retry_after: None }
}

/// A 2xx that is not a reply.
fn in_success(said: &Said) -> Failure {
    match said.form {
        Form::Empty => Failure::Empty,
        Form::Text | Form::Html => Failure::MalformedReply,
        Form::Json if said.is_error() => decide(said, said.status),
        Form::Json => Failure::MalformedReply,
    }
}

/// Code, message, status: the first that is sure decides. `status` is absent for an error inside a stream that
/// names none.
fn decide(said: &Said, status: Option<u16>) -> Failure {
    // Relays answer 500 or 502 and keep the true status inside.
    let status = match (status, said.status) {
        (Some(500..), Some(inner @ (401 | 402 | 429 | 529))) => Some(inner),
        _ => status,
    };
    match status {
        Some(401) => return Failure::Auth,
        Some(402) => return Failure::QuotaExhausted,
        _ => {}
    }
    if let Some(sure) = codes::sure(said) {
        // Whatever else it says: a 429 never counts as a fault.
        let fault = sure.remedy().blame == Blame::Fault;
        return if status == Some(429) && fault { Failure::RateLimited } else { sure };
    }
    if status == Some(429) || (said.form == Form::Json && codes::is_rate_limit(said)) {
        return phrases::rate_limit(said);
    }
    by_message(said, status).or_else(|| codes::likely(said)).unwrap_or_else(|| by_status(status))
}

/// What the message tells that the status does not. Only words of an API's error are read, never a web page's.
fn by_message(said: &Said, status: Option<u16>) -> Option<Failure> {
    if said.form == Form::Html || said.form == Form::Empty {
        return None;
    }
    match status {
        // A server error's prose is about the server, except where servers answer 500 for what they cannot do.
        Some(500..) => phrases::ability(said)
            .or_else(|| phrases::too_long(said))
            .or_else(|| phrases::unable_input(said))
            .or_else(|| phrases::overloaded(said)),
        // A moderation's message may well say that no credits were charged.
        Some(403) => {
            phrases::unsafe_content(said).or_else(|| phrases::no_money(said)).or_else(|| phrases::bad_key(said))
        }
        Some(404 | 405 | 410) => phrases::ability(said).or_else(|| phrases::other_resource(said)),
        Some(_) | None => phrases::no_money(said)
            .or_else(|| phrases::bad_key(said))
            .or_else(|| phrases::unsafe_content(said))
            .or_else(|| phrases::too_long(said))
            .or_else(|| phrases::ability(said))
            .or_else(|| phrases::tool_definition(said))
            .or_else(|| phrases::no_model(said))
            .or_else(|| phrases::no_region(said))
            .or_else(|| status.is_none().then(|| phrases::overloaded(said)).flatten()),
    }
}

/// The last resort, and the whole truth for bodies that say nothing.
fn by_status(status: Option<u16>) -> Failure {
    match status {
        Some(401 | 407) => Failure::Auth,
        Some(402) => Failure::QuotaExhausted,
        // A wrong base URL answers 404 or 405: the target is out until the config changes, and a person is told.
        Some(403 | 404 | 405 | 410 | 451) => Failure::AccessDenied,
        Some(408) => Failure::Timeout(Deadline::Header),
        Some(413) => Failure::ContextExceeded,
        Some(429) => Failure::RateLimited,
        // 498 is one vendor's word for "no capacity in this tier"; 425 means the same thing about a replay.
        Some(425 | 498) => Failure::Overloaded,
        // Conflicts, failed dependencies and "client closed request" from a client that did not close it.
        Some(409 | 424 | 499) => Failure::ServerError,
        Some(400..500) => Failure::InvalidRequest,
        Some(501) => Failure::Unsupported,
        Some(503 | 529) => Failure::Overloaded,
        Some(504 | 524 | 598 | 599) => Failure::Timeout(Deadline::Header),
        // Cloudflare's view of an origin: it is down, does not answer, has no route, no good certificate, no name.
        Some(521..=523) => Failure::Connection(ConnectionFault::Refused),
        Some(525 | 526) => Failure::Connection(ConnectionFault::Tls),
        Some(530) => Failure::Connection(ConnectionFault::Dns),
        Some(500..) | None => Failure::ServerError,
        // Informational, redirecting or unknown: not an API's answer.
        Some(_) => Failure::MalformedReply,
    }
}

#[cfg(test)]
mod tests;
