//! OpenAI chat completions on the wire: chunks, whole replies, errors and headers.

use super::{
    answer::{Answer, Content, Piece},
    frames::{Frames, Part, push_json},
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
    /// Unix time, in seconds.
    pub(super) created: i64,
    pub(super) include_usage: bool,
}

impl Reply<'_> {
    /// A streamed reply.
    pub(super) fn stream(&self, answer: &Answer) -> Frames {
        let mut frames = Frames::new(64 + answer.content.pieces() * 320);
        let refuses = matches!(answer.content, Content::Refusal(_));
        let first = if refuses {
            r#"{"role":"assistant","content":null,"refusal":""}"#
        } else {
            r#"{"role":"assistant","content":"","refusal":null}"#
        };
        self.chunk(&mut frames, Part::Frame, None, answer.deep, |out| out.extend_from_slice(first.as_bytes()));
        for piece in &answer.reasoning {
            self.text(&mut frames, "reasoning_content", piece);
        }
        match &answer.content {
            Content::Text(pieces) => pieces.iter().for_each(|piece| self.text(&mut frames, "content", piece)),
            Content::Refusal(pieces) => pieces.iter().for_each(|piece| self.text(&mut frames, "refusal", piece)),
            Content::Tools(calls) => {
                for (index, call) in calls.iter().enumerate() {
                    self.chunk(&mut frames, Part::Frame, None, None, |out| {
                        let start = json!({"tool_calls": [{"index": index, "id": self.call_id(index), "type": "function",
                            "function": {"name": call.name, "arguments": ""}}]});
                        push_json(out, &start);
                    });
                    for piece in &call.arguments {
                        self.chunk(&mut frames, Part::ToolOutput, None, None, |out| {
                            push_json(
                                out,
                                &json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}),
                            );
                        });
                    }
                }
            }
            Content::Nothing => {}
        }
        if let Some(finish) = answer.finish {
            self.chunk(&mut frames, Part::Finish, Some(finish), None, |out| out.extend_from_slice(b"{}"));
        }
        if self.include_usage {
            let mut last = self.head("chat.completion.chunk");
            last["choices"] = json!([]);
            last["usage"] = usage(answer);
            frames.push(Part::Finish, |out| {
                out.extend_from_slice(b"data: ");
                push_json(out, &last);
                out.extend_from_slice(b"\n\n");
            });
        }
        frames.push(Part::Last, |out| out.extend_from_slice(b"data: [DONE]\n\n"));
        frames
    }

    /// A whole reply.
    pub(super) fn whole(&self, answer: &Answer) -> Vec<u8> {
        let mut message = json!({"role": "assistant", "content": null, "refusal": null, "annotations": []});
        if !answer.reasoning.is_empty() {
            message["reasoning_content"] = json!(answer.reasoning.concat());
        }
        match &answer.content {
            Content::Text(pieces) => message["content"] = json!(pieces.concat()),
            Content::Refusal(pieces) => message["refusal"] = json!(pieces.concat()),
            Content::Nothing => message["content"] = json!(""),
            Content::Tools(calls) => {
                let calls = calls.iter().enumerate().map(|(index, call)| {
                    json!({"id": self.call_id(index), "type": "function",
                        "function": {"name": call.name, "arguments": call.arguments.concat()}})
                });
                message["tool_calls"] = calls.collect();
            }
        }
        let mut reply = self.head("chat.completion");
        reply["choices"] = json!([{"index": 0, "message": message, "logprobs": null, "finish_reason": answer.finish.map(finish_name)}]);
        reply["usage"] = usage(answer);
        let mut body = Vec::with_capacity(1024);
        push_json(&mut body, &reply);
        super::frames::deepen(&mut body, answer.deep);
        body
    }

    fn head(&self, object: &str) -> Value {
        json!({"id": self.id, "object": object, "created": self.created, "model": self.model,
            "service_tier": "default", "system_fingerprint": "fp_fake"})
    }

    fn text(&self, frames: &mut Frames, field: &str, piece: &Piece) {
        self.chunk(frames, Part::Output, None, None, |out| {
            out.extend_from_slice(b"{\"");
            out.extend_from_slice(field.as_bytes());
            out.extend_from_slice(b"\":");
            push_json(out, piece);
            out.push(b'}');
        });
    }

    /// One chunk. Written by hand: a bench asks for millions.
    fn chunk(
        &self,
        frames: &mut Frames,
        part: Part,
        finish: Option<Finish>,
        deep: Option<u32>,
        delta: impl FnOnce(&mut Vec<u8>),
    ) {
        frames.push(part, |out| {
            out.extend_from_slice(b"data: {\"id\":\"");
            out.extend_from_slice(self.id.as_bytes());
            out.extend_from_slice(b"\",\"object\":\"chat.completion.chunk\",\"created\":");
            out.extend_from_slice(self.created.to_string().as_bytes());
            out.extend_from_slice(b",\"model\":");
            push_json(out, self.model);
            out.extend_from_slice(b",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_fake\",");
            super::frames::push_deep(out, deep);
            out.extend_from_slice(b"\"choices\":[{\"index\":0,\"delta\":");
            delta(out);
            out.extend_from_slice(b",\"logprobs\":null,\"finish_reason\":");
            push_json(out, &finish.map(finish_name));
            out.extend_from_slice(if self.include_usage { b"}],\"usage\":null}\n\n" } else { b"}]}\n\n" });
        });
    }

    fn call_id(&self, index: usize) -> String {
        format!("call_{}_{index}", self.id.rsplit('-').next().unwrap_or_default())
    }
}

fn finish_name(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::Refusal | Finish::Other => "stop",
        Finish::Length => "length",
        Finish::ToolCalls => "tool_calls",
        Finish::ContentFilter => "content_filter",
    }
}

fn usage(answer: &Answer) -> Value {
    json!({
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": answer.input_tokens.saturating_add(answer.output_tokens),
        "prompt_tokens_details": {"cached_tokens": answer.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": answer.reasoning.len(), "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
    })
}

/// Status and body of an error.
pub(super) fn error(problem: &Problem, model: &str) -> (u16, Vec<u8>) {
    let (status, kind, code, message): (u16, &str, Option<&str>, String) = match problem {
        Problem::RateLimited { .. } => (
            429,
            "requests",
            Some("rate_limit_exceeded"),
            format!("Rate limit reached for {model} in organization org-fake on requests per min (RPM): Limit 500, Used 500, Requested 1."),
        ),
        Problem::Overloaded { status, .. } => (
            *status,
            "service_unavailable_error",
            Some("server_is_overloaded"),
            "The engine is currently overloaded, please try again later.".into(),
        ),
        Problem::Server { status, .. } => (
            *status,
            "server_error",
            Some("server_error"),
            "The server had an error while processing your request. Sorry about that!".into(),
        ),
        Problem::ContextExceeded => (
            400,
            "invalid_request_error",
            Some("context_length_exceeded"),
            "This model's maximum context length is 128000 tokens. However, your messages resulted in 130004 tokens. Please reduce the length of the messages.".into(),
        ),
        Problem::Auth => (
            401,
            "invalid_request_error",
            Some("invalid_api_key"),
            "Incorrect API key provided: sk-f****ake. You can find your API key at https://platform.openai.com/account/api-keys.".into(),
        ),
        Problem::Quota => (
            429,
            "insufficient_quota",
            Some("insufficient_quota"),
            "You exceeded your current quota, please check your plan and billing details.".into(),
        ),
        Problem::Region => (
            403,
            "request_forbidden",
            Some("unsupported_country_region_territory"),
            "Country, region, or territory not supported".into(),
        ),
        Problem::NoModel => (
            404,
            "invalid_request_error",
            Some("model_not_found"),
            format!("The model `{model}` does not exist or you do not have access to it."),
        ),
        Problem::NoTools => (
            400,
            "invalid_request_error",
            None,
            format!("{model} does not support tools"),
        ),
        Problem::ContentFilter => (
            400,
            "invalid_request_error",
            Some("content_policy_violation"),
            "Your request was rejected as a result of our safety system.".into(),
        ),
        Problem::TooLarge => (413, "invalid_request_error", None, "The request body is too large.".into()),
        Problem::NoSuchPath(path) => (404, "invalid_request_error", Some("unknown_url"), format!("Invalid URL (POST {path})")),
        Problem::Mistake(mistake) => (400, "invalid_request_error", None, mistake.message.clone()),
    };
    let param = match problem {
        Problem::ContextExceeded => Some("messages"),
        Problem::NoTools => Some("tools"),
        Problem::Mistake(mistake) => mistake.param,
        Problem::RateLimited { .. }
        | Problem::Overloaded { .. }
        | Problem::Server { .. }
        | Problem::Auth
        | Problem::Quota
        | Problem::Region
        | Problem::NoModel
        | Problem::ContentFilter
        | Problem::TooLarge
        | Problem::NoSuchPath(_) => None,
    };
    let body = json!({"error": {"message": message, "type": kind, "param": param, "code": code}});
    (status, body.to_string().into_bytes())
}

/// The headers a real reply carries, except its type and length.
pub(super) fn headers(request_id: &str, retry_after: Option<Duration>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(12);
    let mut put = |name: &'static str, value: HeaderValue| headers.insert(HeaderName::from_static(name), value);
    put("x-request-id", HeaderValue::from_str(request_id).unwrap_or(HeaderValue::from_static("req_fake")));
    put("openai-version", HeaderValue::from_static("2020-10-01"));
    put("openai-processing-ms", HeaderValue::from_static("1"));
    put("x-ratelimit-limit-requests", HeaderValue::from_static("500"));
    put("x-ratelimit-limit-tokens", HeaderValue::from_static("200000"));
    match retry_after {
        None => {
            put("x-ratelimit-remaining-requests", HeaderValue::from_static("499"));
            put("x-ratelimit-reset-requests", HeaderValue::from_static("120ms"));
        }
        Some(wait) => {
            put("x-ratelimit-remaining-requests", HeaderValue::from_static("0"));
            let reset = HeaderValue::from_str(&format!("{}s", wait.as_secs_f64()));
            put("x-ratelimit-reset-requests", reset.unwrap_or(HeaderValue::from_static("1s")));
            let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            put("retry-after-ms", HeaderValue::from(millis));
            put("retry-after", HeaderValue::from(millis.div_ceil(1000)));
        }
    }
    headers
}

/// An error inside a stream that began as a success.
pub(super) fn error_frame(problem: &Problem, model: &str) -> Vec<u8> {
    let (_, body) = error(problem, model);
    [b"data: ".as_slice(), &body, b"\n\n"].concat()
}

/// A chunk that is cut off inside its JSON, but framed as an event.
pub(super) const MALFORMED: &[u8] =
    b"data: {\"id\":\"chatcmpl-broken\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hal\n\n";
