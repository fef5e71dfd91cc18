//! A model that says what the test wants, whole or as a stream, in OpenAI's dialect.

use super::upstream::{Request, STREAM_HEAD, Step, Upstream, chunk, completion, finish, json_reply, say};
use serde_json::{Value, json};

/// What it does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Answers with this text.
    Says(String),
    /// Calls this tool.
    Calls(&'static str, Value),
    /// Stops for a content filter.
    Blocks,
    /// Answers with this status and an error.
    Fails(u16),
    /// Never answers.
    Hangs,
}

/// Answers with this text.
pub(crate) fn says(text: &str) -> Act {
    Act::Says(text.into())
}

/// Starts one; the script is given the request's body.
pub(crate) async fn model(script: impl Fn(&Value) -> Act + Send + Sync + 'static) -> Upstream {
    Upstream::start(move |request: &Request| {
        let body = request.json();
        perform(script(&body), body["stream"] == true)
    })
    .await
}

fn perform(act: Act, streamed: bool) -> Vec<Step> {
    let text = match act {
        Act::Says(text) if streamed => {
            let half = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
            let (first, second) = text.split_at(half);
            STREAM_HEAD.to_owned() + &say(first) + &say(second) + &finish()
        }
        Act::Says(text) => return vec![Step::Send(json_reply(&completion(&text)))],
        Act::Calls(tool, arguments) => {
            let call = json!({
                "id": "call_1", "type": "function", "index": 0,
                "function": { "name": tool, "arguments": arguments.to_string() },
            });
            if !streamed {
                let mut reply = completion("");
                reply["choices"][0]["message"] = json!({ "role": "assistant", "content": null, "tool_calls": [call] });
                reply["choices"][0]["finish_reason"] = "tool_calls".into();
                return vec![Step::Send(json_reply(&reply))];
            }
            let delta = |delta: Value, finish: Value| {
                let event = json!({
                    "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
                    "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }],
                });
                chunk(&format!("data: {event}\n\n"))
            };
            let call = delta(json!({ "role": "assistant", "tool_calls": [call] }), Value::Null);
            let end = delta(json!({}), "tool_calls".into());
            STREAM_HEAD.to_owned() + &call + &end + &chunk("data: [DONE]\n\n") + super::upstream::LAST_CHUNK
        }
        Act::Blocks => {
            let mut reply = completion("");
            reply["choices"][0]["finish_reason"] = "content_filter".into();
            return vec![Step::Send(json_reply(&reply))];
        }
        Act::Fails(status) => {
            let body = json!({ "error": { "message": "no", "type": "server_error", "code": null } }).to_string();
            format!(
                "HTTP/1.1 {status} Bad\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
        }
        Act::Hangs => return vec![Step::Hang],
    };
    vec![Step::Send(text.into_bytes())]
}
