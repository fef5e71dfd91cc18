//! Anthropic messages on the wire: events, whole replies, errors and headers.

use super::{
    answer::{Answer, Content, Piece},
    frames::{Frames, Part, deepen, push_deep, push_json},
    problem::Problem,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use outlast_model::turn::Finish;
use serde_json::{Value, json};
use std::time::Duration;

/// What every reply to one request shares.
pub(super) struct Reply<'a> {
    pub(super) id: &'a str,
    pub(super) model: &'a str,
}

/// The signature of a thinking block. The real one is opaque too.
const SIGNATURE: &str = "RmFrZSBzaWduYXR1cmU=";

impl Reply<'_> {
    /// A streamed reply.
    pub(super) fn stream(&self, answer: &Answer) -> Frames {
        let mut frames = Frames::new(1024 + answer.content.pieces() * 160);
        let mut message = self.head();
        message["content"] = json!([]);
        message["stop_reason"] = Value::Null;
        message["stop_sequence"] = Value::Null;
        message["usage"] = usage(answer, 1);
        frames.push(Part::Frame, |out| {
            out.extend_from_slice(b"event: message_start\ndata: {\"type\":\"message_start\",");
            push_deep(out, answer.deep);
            out.extend_from_slice(b"\"message\":");
            push_json(out, &message);
            out.extend_from_slice(b"}\n\n");
        });
        let mut index = 0;
        if !answer.reasoning.is_empty() {
            self.open(&mut frames, index, &json!({"type": "thinking", "thinking": "", "signature": ""}));
            for piece in &answer.reasoning {
                self.delta(&mut frames, Part::Output, index, "thinking_delta", "thinking", piece);
            }
            self.delta(&mut frames, Part::Frame, index, "signature_delta", "signature", &SIGNATURE.into());
            self.close(&mut frames, index, true);
            index += 1;
        }
        match &answer.content {
            Content::Text(pieces) => {
                self.open(&mut frames, index, &json!({"type": "text", "text": ""}));
                for piece in pieces {
                    self.delta(&mut frames, Part::Output, index, "text_delta", "text", piece);
                }
                self.close(&mut frames, index, answer.finish.is_some());
            }
            Content::Tools(calls) => {
                for (at, call) in calls.iter().enumerate() {
                    let start = json!({"type": "tool_use", "id": self.call_id(at), "name": call.name, "input": {}});
                    self.open(&mut frames, index, &start);
                    for piece in &call.arguments {
                        self.delta(&mut frames, Part::ToolOutput, index, "input_json_delta", "partial_json", piece);
                    }
                    self.close(&mut frames, index, answer.finish.is_some());
                    index += 1;
                }
            }
            Content::Refusal(_) | Content::Nothing => {}
        }
        if let Some(finish) = answer.finish {
            let mut delta = json!({"type": "message_delta",
                "delta": {"stop_reason": finish_name(finish), "stop_sequence": null}});
            delta["usage"] = usage(answer, answer.output_tokens);
            event(&mut frames, Part::Finish, "message_delta", &delta);
        }
        event(&mut frames, Part::Last, "message_stop", &json!({"type": "message_stop"}));
        frames
    }

    /// A whole reply.
    pub(super) fn whole(&self, answer: &Answer) -> Vec<u8> {
        let mut content: Vec<Value> = Vec::new();
        if !answer.reasoning.is_empty() {
            content.push(json!({"type": "thinking", "thinking": answer.reasoning.concat(), "signature": SIGNATURE}));
        }
        match &answer.content {
            Content::Text(pieces) => content.push(json!({"type": "text", "text": pieces.concat()})),
            Content::Tools(calls) => {
                for (at, call) in calls.iter().enumerate() {
                    let input = input(&call.arguments.concat(), answer.finish);
                    content
                        .push(json!({"type": "tool_use", "id": self.call_id(at), "name": call.name, "input": input}));
                }
            }
            Content::Refusal(_) | Content::Nothing => {}
        }
        let mut reply = self.head();
        reply["content"] = Value::Array(content);
        reply["stop_reason"] = json!(answer.finish.map(finish_name));
        reply["stop_sequence"] = Value::Null;
        reply["usage"] = usage(answer, answer.output_tokens);
        let mut body = Vec::with_capacity(1024);
        push_json(&mut body, &reply);
        deepen(&mut body, answer.deep);
        body
    }

    fn head(&self) -> Value {
        json!({"model": self.model, "id": self.id, "type": "message", "role": "assistant"})
    }

    fn open(&self, frames: &mut Frames, index: usize, block: &Value) {
        let start = json!({"type": "content_block_start", "index": index, "content_block": block});
        event(frames, Part::Frame, "content_block_start", &start);
        if index == 0 {
            frames.push(Part::Frame, |out| out.extend_from_slice(b"event: ping\ndata: {\"type\": \"ping\"}\n\n"));
        }
    }

    /// The last block's end belongs to what a stream without its end is missing.
    fn close(&self, frames: &mut Frames, index: usize, ends: bool) {
        if ends {
            event(frames, Part::Frame, "content_block_stop", &json!({"type": "content_block_stop", "index": index}));
        }
    }

    /// One delta. Written by hand: a bench asks for millions.
    fn delta(&self, frames: &mut Frames, part: Part, index: usize, kind: &str, field: &str, piece: &Piece) {
        frames.push(part, |out| {
            out.extend_from_slice(b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":");
            out.extend_from_slice(index.to_string().as_bytes());
            out.extend_from_slice(b",\"delta\":{\"type\":\"");
            out.extend_from_slice(kind.as_bytes());
            out.extend_from_slice(b"\",\"");
            out.extend_from_slice(field.as_bytes());
            out.extend_from_slice(b"\":");
            push_json(out, piece);
            out.extend_from_slice(b"}}\n\n");
        });
    }

    fn call_id(&self, index: usize) -> String {
        format!("toolu_{}_{index}", self.id.rsplit('_').next().unwrap_or_default())
    }
}

fn event(frames: &mut Frames, part: Part, name: &str, data: &Value) {
    frames.push(part, |out| {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\ndata: ");
        push_json(out, data);
        out.extend_from_slice(b"\n\n");
    });
}

/// A whole reply holds arguments as an object. Cut ones come as `{}`, and those that never were JSON as text.
fn input(arguments: &str, finish: Option<Finish>) -> Value {
    match serde_json::from_str(arguments) {
        Ok(input) => input,
        Err(_) if finish == Some(Finish::Length) => json!({}),
        Err(_) => Value::String(arguments.to_owned()),
    }
}

fn finish_name(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::Other => "end_turn",
        Finish::Length => "max_tokens",
        Finish::ToolCalls => "tool_use",
        Finish::Refusal | Finish::ContentFilter => "refusal",
    }
}

/// Anthropic counts cached input apart from `input_tokens`.
fn usage(answer: &Answer, output_tokens: u32) -> Value {
    json!({
        "input_tokens": answer.input_tokens - answer.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": answer.cached_tokens,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output_tokens,
        "service_tier": "standard",
    })
}

/// Status and body of an error.
pub(super) fn error(problem: &Problem, model: &str, request_id: &str) -> (u16, Vec<u8>) {
    let (status, kind, message): (u16, &str, String) = match problem {
        Problem::RateLimited { .. } => (
            429,
            "rate_limit_error",
            "This request would exceed your account's rate limit. Please try again later.".into(),
        ),
        Problem::Overloaded { status, .. } => (*status, "overloaded_error", "Overloaded".into()),
        Problem::Server { status, .. } => (*status, "api_error", "Internal server error".into()),
        Problem::ContextExceeded => {
            (400, "invalid_request_error", "prompt is too long: 208310 tokens > 200000 maximum".into())
        }
        Problem::Auth => (401, "authentication_error", "invalid x-api-key".into()),
        Problem::Quota => (
            400,
            "invalid_request_error",
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits.".into(),
        ),
        Problem::Region => (
            403,
            "permission_error",
            "Your API key does not have permission to use the specified resource.".into(),
        ),
        Problem::NoModel => (404, "not_found_error", format!("model: {model}")),
        Problem::NoTools => (400, "invalid_request_error", format!("tools: '{model}' does not support tool use")),
        Problem::ContentFilter => (400, "invalid_request_error", "Output blocked by content filtering policy".into()),
        Problem::TooLarge => (413, "request_too_large", "Request exceeds the maximum size".into()),
        Problem::NoSuchPath(_) => (404, "not_found_error", "Not found".into()),
        Problem::Mistake(mistake) => (400, "invalid_request_error", mistake.message.clone()),
    };
    let body = json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id});
    (status, body.to_string().into_bytes())
}

/// The headers a real reply carries, except its type and length. `reset` is the time a limit is lifted, in RFC 3339.
pub(super) fn headers(request_id: &str, retry_after: Option<Duration>, reset: &str) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(12);
    let mut put = |name: &'static str, value: HeaderValue| headers.insert(HeaderName::from_static(name), value);
    put("request-id", HeaderValue::from_str(request_id).unwrap_or(HeaderValue::from_static("req_fake")));
    put("anthropic-organization-id", HeaderValue::from_static("00000000-0000-4000-8000-00000000fa4e"));
    put("anthropic-ratelimit-requests-limit", HeaderValue::from_static("500"));
    let remaining = if retry_after.is_some() { "0" } else { "499" };
    put("anthropic-ratelimit-requests-remaining", HeaderValue::from_static(remaining));
    if let Ok(reset) = HeaderValue::from_str(reset) {
        put("anthropic-ratelimit-requests-reset", reset);
    }
    if let Some(wait) = retry_after {
        put("retry-after", HeaderValue::from(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).div_ceil(1000)));
    }
    headers
}

/// An error inside a stream that began as a success.
pub(super) fn error_frame(problem: &Problem, model: &str, request_id: &str) -> Vec<u8> {
    let (_, body) = error(problem, model, request_id);
    [b"event: error\ndata: ".as_slice(), &body, b"\n\n"].concat()
}

/// An event that is cut off inside its JSON, but framed as an event.
pub(super) const MALFORMED: &[u8] =
    b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_de\n\n";
