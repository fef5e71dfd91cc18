//! Is a target alive? One token tells.

use crate::classify;
use bytes::Bytes;
use outlast_model::{Failure, FailureReport, Wall, policy::Dialect};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

/// The smallest generation a target can be asked for, not streamed.
pub fn body(dialect: Dialect, model: &str) -> Bytes {
    let messages = json!([{"role": "user", "content": "Reply with OK."}]);
    let body = match dialect {
        // OpenAI's reasoning models know only the newer name, and most other servers only the older.
        Dialect::OpenaiChat if thinks(model) => {
            json!({"model": model, "messages": messages, "max_completion_tokens": 16})
        }
        Dialect::OpenaiChat | Dialect::Anthropic => json!({"model": model, "messages": messages, "max_tokens": 1}),
    };
    body.to_string().into()
}

/// Judges a probe's response. A 200 counts as alive even when its text is empty or cut: with so small a limit a
/// reasoning model has nothing to show. So does a rejection of the probe itself (a limit too small for that model, a
/// field it does not know): the target read the request, knew the model and took the key.
/// # Errors
/// What else the response is classified as.
pub fn judge<'h>(
    dialect: Dialect,
    status: u16,
    header: impl Fn(&str) -> Option<&'h str>,
    body: &[u8],
    now: Wall,
) -> Result<(), FailureReport> {
    if (200..300).contains(&status) && is_reply(dialect, body) {
        return Ok(());
    }
    let report = classify::response(status, header, body, now);
    let rejected = report.failure == Failure::InvalidRequest && (400..500).contains(&status);
    if rejected { Ok(()) } else { Err(report) }
}

/// OpenAI's models that think before they write, under any relay's prefix.
fn thinks(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    ["o1", "o3", "o4", "gpt-5"].iter().any(|family| name.starts_with(family))
}

/// It has the reply's own member, and no error.
fn is_reply(dialect: Dialect, body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Top<'a> {
        #[serde(borrow)]
        choices: Option<&'a RawValue>,
        #[serde(borrow)]
        content: Option<&'a RawValue>,
        #[serde(borrow)]
        error: Option<&'a RawValue>,
    }
    let Ok(top) = serde_json::from_slice::<Top<'_>>(body) else { return false };
    let member = match dialect {
        Dialect::OpenaiChat => top.choices,
        Dialect::Anthropic => top.content,
    };
    top.error.is_none() && member.is_some_and(|member| member.get().starts_with('['))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(dialect: Dialect, status: u16, body: &str) -> Option<&'static str> {
        judge(dialect, status, |_| None, body.as_bytes(), Wall(0)).err().map(|report| report.failure.class())
    }

    #[test]
    fn a_reasoning_model_that_ran_out_of_one_token_is_alive() {
        let openai = Dialect::OpenaiChat;
        assert_eq!(
            judged(openai, 200, r#"{"choices":[{"message":{"content":""},"finish_reason":"length"}],"error":null}"#),
            None
        );
        assert_eq!(
            judged(
                openai,
                200,
                r#"{"choices":[{"message":{"content":null,"reasoning":"Hm"},"finish_reason":"length"}]}"#
            ),
            None
        );
        assert_eq!(
            judged(Dialect::Anthropic, 200, r#"{"type":"message","content":[],"stop_reason":"max_tokens"}"#),
            None
        );
        let too_small = r#"{"error":{"message":"Could not finish the message because max_tokens or model output limit was reached.","type":"invalid_request_error","param":null,"code":null}}"#;
        assert_eq!(judged(openai, 400, too_small), None);
    }

    #[test]
    fn an_error_in_any_dress_is_not_life() {
        let openai = Dialect::OpenaiChat;
        assert_eq!(
            judged(openai, 200, r#"{"error":{"code":502,"message":"Provider returned error"}}"#),
            Some("server_error")
        );
        assert_eq!(judged(openai, 200, r#"{"choices":null}"#), Some("malformed_reply"));
        assert_eq!(judged(openai, 200, "<html>login</html>"), Some("malformed_reply"));
        assert_eq!(judged(openai, 200, ""), Some("empty"));
        assert_eq!(judged(openai, 503, ""), Some("overloaded"));
        assert_eq!(judged(openai, 400, r#"{"error":{"message":"Model Not Exist"}}"#), Some("access_denied"));
        assert_eq!(judged(Dialect::Anthropic, 401, "{}"), Some("auth"));
    }

    #[test]
    fn the_output_limit_has_the_name_the_model_knows() {
        for (model, field) in [
            ("gpt-4o", "max_tokens"),
            ("gpt-5.2", "max_completion_tokens"),
            ("openai/o3-mini", "max_completion_tokens"),
            ("llama-3", "max_tokens"),
        ] {
            let body: serde_json::Value = serde_json::from_slice(&body(Dialect::OpenaiChat, model)).unwrap();
            assert!(body[field].is_u64() && body["model"] == model, "{model}");
        }
    }
}
