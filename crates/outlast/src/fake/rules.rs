//! What each vendor refuses with a 400 though it is well-formed JSON. A fake that takes anything would hide what a
//! crossing between dialects gets wrong.
//!
//! Source: the vendors' references and recorded 400s, 2026. The wording is theirs where it was recorded.

use super::asked::Mistake;
use outlast_model::policy::Dialect;
use serde_json::{Map, Value};

const ANTHROPIC_FIELDS: [&str; 23] = [
    "model",
    "messages",
    "max_tokens",
    "metadata",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
    "service_tier",
    "container",
    "context_management",
    "mcp_servers",
    "output_config",
    "output_format",
    "inference_geo",
    "cache_control",
    "betas",
    "speed",
];

const OPENAI_TOOL_NAME_MAX: usize = 64;
const ANTHROPIC_TOOL_NAME_MAX: usize = 128;
const OPENAI_CALL_ID_MAX: usize = 40;
const OPENAI_STOPS_MAX: usize = 4;
const THINKING_TOKENS_MIN: u64 = 1024;

type Rule = Result<(), Mistake>;

fn refuse(param: &'static str, message: impl Into<String>) -> Rule {
    Err(Mistake { message: message.into(), param: Some(param) })
}

/// Holds a request to the vendor's rules.
///
/// # Errors
/// The first breach.
pub(super) fn check(dialect: Dialect, body: &[u8]) -> Rule {
    // What is no object has been refused before.
    let Ok(Value::Object(request)) = serde_json::from_slice(body) else { return Ok(()) };
    match dialect {
        Dialect::OpenaiChat => openai(&request),
        Dialect::Anthropic => anthropic(&request),
    }
}

fn list<'a>(value: Option<&'a Value>) -> impl Iterator<Item = (usize, &'a Value)> + use<'a> {
    value.and_then(Value::as_array).into_iter().flatten().enumerate()
}

fn is_name(name: Option<&str>, length_max: usize) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    name.is_some_and(|name| !name.is_empty() && name.len() <= length_max && name.chars().all(legal))
}

fn openai(request: &Map<String, Value>) -> Rule {
    let get = |name: &str| request.get(name).filter(|value| !value.is_null());
    if get("stream_options").is_some() && get("stream") != Some(&Value::Bool(true)) {
        return refuse("stream_options", "The 'stream_options' parameter is only allowed when 'stream' is enabled.");
    }
    if get("max_tokens").is_some() && get("max_completion_tokens").is_some() {
        let message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.";
        return refuse("max_tokens", message);
    }
    if let Some(temperature) = get("temperature").and_then(Value::as_f64)
        && !(0.0..=2.0).contains(&temperature)
    {
        return refuse(
            "temperature",
            format!("Invalid 'temperature': expected a value from 0 to 2, but got {temperature} instead."),
        );
    }
    let stops = list(get("stop")).count();
    if stops > OPENAI_STOPS_MAX {
        return refuse(
            "stop",
            format!(
                "Invalid 'stop': array too long. Expected an array with maximum length 4, but got an array with length {stops} instead."
            ),
        );
    }
    openai_tools(request)?;
    openai_format(get("response_format"))?;
    list(get("messages")).try_for_each(|(at, message)| openai_message(at, message))
}

fn openai_tools(request: &Map<String, Value>) -> Rule {
    let tools = request.get("tools").filter(|tools| !tools.is_null());
    match tools.and_then(Value::as_array) {
        Some(tools) if tools.is_empty() => {
            return refuse(
                "tools",
                "Invalid 'tools': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            );
        }
        None if request.get("tool_choice").is_some_and(|choice| !choice.is_null()) => {
            return refuse(
                "tool_choice",
                "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.",
            );
        }
        None if request.get("parallel_tool_calls").is_some_and(|choice| !choice.is_null()) => {
            return refuse(
                "parallel_tool_calls",
                "Invalid value for 'parallel_tool_calls': 'parallel_tool_calls' is only allowed when 'tools' are specified.",
            );
        }
        Some(_) | None => {}
    }
    for (at, tool) in list(tools).filter(|(_, tool)| tool["type"] == "function") {
        if !is_name(tool["function"]["name"].as_str(), OPENAI_TOOL_NAME_MAX) {
            return refuse(
                "tools",
                format!(
                    "Invalid 'tools[{at}].function.name': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
                ),
            );
        }
    }
    Ok(())
}

fn openai_format(format: Option<&Value>) -> Rule {
    let Some(schema) = format.map(|format| &format["json_schema"]).filter(|schema| schema["strict"] == true) else {
        return Ok(());
    };
    match open_object(&schema["schema"]) {
        true => refuse(
            "response_format",
            "Invalid schema for response_format: In context=(), 'additionalProperties' is required to be supplied and to be false.",
        ),
        false => Ok(()),
    }
}

/// Whether the schema has an object that allows unnamed fields, which strict structured output does not.
fn open_object(schema: &Value) -> bool {
    let is_open = schema["type"] == "object" && schema["additionalProperties"] != false;
    let below = [&schema["properties"], &schema["$defs"]];
    let mut below = below.into_iter().filter_map(Value::as_object).flat_map(|fields| fields.values());
    is_open || below.any(open_object) || (schema["items"].is_object() && open_object(&schema["items"]))
}

fn openai_message(at: usize, message: &Value) -> Rule {
    let calls = message.get("tool_calls").filter(|calls| !calls.is_null());
    if message["content"].is_null() && calls.is_none() && message["role"] != "assistant" {
        return refuse("messages", format!("Invalid value for 'messages[{at}].content': expected a string, got null."));
    }
    let ids = list(calls).map(|(_, call)| &call["id"]).chain(message.get("tool_call_id"));
    for id in ids {
        if id.as_str().is_none_or(|id| id.is_empty() || id.len() > OPENAI_CALL_ID_MAX) {
            return refuse(
                "messages",
                format!(
                    "Invalid 'messages[{at}].tool_calls[0].id': expected a string with maximum length {OPENAI_CALL_ID_MAX}."
                ),
            );
        }
    }
    for (_, call) in list(calls).filter(|(_, call)| call["type"] == "function") {
        if !call["function"]["arguments"].is_string() {
            return refuse(
                "messages",
                format!("Invalid type for 'messages[{at}].tool_calls[0].function.arguments': expected a string."),
            );
        }
    }
    Ok(())
}

fn anthropic(request: &Map<String, Value>) -> Rule {
    if let Some(unknown) = request.keys().find(|field| !ANTHROPIC_FIELDS.contains(&field.as_str())) {
        return refuse("", format!("{unknown}: Extra inputs are not permitted"));
    }
    let temperature = request.get("temperature").and_then(Value::as_f64);
    if temperature.is_some_and(|temperature| !(0.0..=1.0).contains(&temperature)) {
        return refuse("temperature", "temperature: range: 0..1");
    }
    for (_, stop) in list(request.get("stop_sequences")) {
        if stop.as_str().is_none_or(|stop| stop.trim().is_empty()) {
            return refuse("stop_sequences", "stop_sequences: each stop sequence must contain non-whitespace");
        }
    }
    anthropic_thinking(request, temperature)?;
    for (at, tool) in list(request.get("tools")) {
        anthropic_tool(at, tool)?;
    }
    let messages = request.get("messages");
    let last = list(messages).count().saturating_sub(1);
    list(messages).try_for_each(|(at, message)| anthropic_message(at, at == last, message))
}

fn anthropic_thinking(request: &Map<String, Value>, temperature: Option<f64>) -> Rule {
    let Some(thinking) = request.get("thinking").filter(|thinking| thinking["type"] == "enabled") else {
        return Ok(());
    };
    let budget = thinking["budget_tokens"].as_u64().unwrap_or(0);
    let limit = request.get("max_tokens").and_then(Value::as_u64).unwrap_or(0);
    if budget < THINKING_TOKENS_MIN {
        return refuse("thinking", "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024");
    }
    if limit <= budget {
        return refuse("thinking", "`max_tokens` must be greater than `thinking.budget_tokens`.");
    }
    if temperature.is_some_and(|temperature| temperature != 1.0) {
        return refuse("temperature", "`temperature` may only be set to 1 when thinking is enabled.");
    }
    match request.get("tool_choice").and_then(|choice| choice["type"].as_str()) {
        Some("any" | "tool") => refuse("thinking", "Thinking may not be enabled when tool_choice forces tool use."),
        Some(_) | None => Ok(()),
    }
}

fn anthropic_tool(at: usize, tool: &Value) -> Rule {
    if tool["type"].as_str().is_some_and(|kind| kind != "custom") {
        return Ok(());
    }
    if !is_name(tool["name"].as_str(), ANTHROPIC_TOOL_NAME_MAX) {
        return refuse(
            "tools",
            format!("tools.{at}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"),
        );
    }
    match tool["input_schema"]["type"].as_str() {
        Some("object") => Ok(()),
        Some(_) => refuse("tools", format!("tools.{at}.custom.input_schema.type: Input should be 'object'")),
        None => refuse("tools", format!("tools.{at}.custom.input_schema.type: Field required")),
    }
}

fn anthropic_message(at: usize, is_last: bool, message: &Value) -> Rule {
    let role = message["role"].as_str().unwrap_or_default();
    if !matches!(role, "user" | "assistant") {
        return refuse(
            "messages",
            format!(
                "messages: Unexpected role \"{role}\". The Messages API accepts a top-level `system` parameter, not \"system\" as an input message role."
            ),
        );
    }
    let is_empty = match &message["content"] {
        Value::String(text) => text.is_empty(),
        Value::Array(blocks) => blocks.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => true,
    };
    if is_empty && !(is_last && role == "assistant") {
        return refuse(
            "messages",
            format!(
                "messages.{at}: all messages must have non-empty content except for the optional final assistant message"
            ),
        );
    }
    list(message.get("content")).try_for_each(|(block_at, block)| anthropic_block(at, block_at, block))
}

fn anthropic_block(at: usize, block_at: usize, block: &Value) -> Rule {
    let place = format!("messages.{at}.content.{block_at}");
    match block["type"].as_str() {
        Some("text") if block["text"].as_str().is_none_or(str::is_empty) => {
            refuse("messages", "messages: text content blocks must be non-empty")
        }
        Some("tool_use") if !block["input"].is_object() => {
            refuse("messages", format!("{place}.tool_use.input: Input should be a valid dictionary"))
        }
        Some("tool_use") if !is_name(block["id"].as_str(), usize::MAX) => {
            refuse("messages", format!("{place}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"))
        }
        Some("thinking") if block["signature"].as_str().is_none_or(str::is_empty) => {
            refuse("messages", format!("{place}: Invalid `signature` in `thinking` block"))
        }
        Some("image") if !block["source"].is_object() => {
            refuse("messages", format!("{place}.image.source: Field required"))
        }
        Some("image_url" | "input_text" | "function") | None => {
            refuse("messages", format!("{place}: Input tag found using 'type' does not match any of the expected tags"))
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What the vendors took, they would take again: the rules refuse none of the recorded requests that were answered.
    #[test]
    fn no_recorded_request_that_was_answered_is_refused() {
        let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data");
        let folder = std::env::var("OUTLAST_CORPUS").unwrap_or_else(|_| default.into());
        let Ok(text) = std::fs::read_to_string(format!("{folder}/exchanges.jsonl")) else {
            println!("skipped: no recorded exchanges at {folder}; set OUTLAST_CORPUS");
            return;
        };
        let (mut held, mut refused) = (0, Vec::new());
        for line in text.lines() {
            let exchange: Value = serde_json::from_str(line).unwrap();
            let dialect = match (exchange["api"].as_str(), exchange["provider"].as_str()) {
                (Some("openai-chat"), Some("openai" | "azure")) => Dialect::OpenaiChat,
                (Some("anthropic-messages"), Some("anthropic")) => Dialect::Anthropic,
                _ => continue,
            };
            let body = &exchange["request"]["body"];
            if exchange["response"]["status"] == 200 && body.is_object() {
                held += 1;
                if let Err(mistake) = check(dialect, body.to_string().as_bytes()) {
                    refused.push(format!("{} {}: {}", exchange["id"], exchange["source_path"], mistake.message));
                }
            }
        }
        assert!(held > 50 && refused.is_empty(), "{} of {held}:\n{}", refused.len(), refused.join("\n"));
    }

    #[test]
    fn what_a_careless_crossing_would_send_is_refused() {
        let user = json!([{"role": "user", "content": "x"}]);
        for (dialect, extra, says) in [
            (Dialect::Anthropic, json!({"stream_options": {}}), "stream_options: Extra inputs"),
            (Dialect::Anthropic, json!({"temperature": 1.4}), "range: 0..1"),
            (Dialect::Anthropic, json!({"messages": [{"role": "system", "content": "x"}]}), "Unexpected role"),
            (Dialect::Anthropic, json!({"messages": [{"role": "user", "content": ""}]}), "non-empty"),
            (Dialect::Anthropic, json!({"tools": [{"name": "f", "input_schema": {}}]}), "Field required"),
            (Dialect::Anthropic, json!({"thinking": {"type": "enabled", "budget_tokens": 4000}}), "must be greater"),
            (
                Dialect::Anthropic,
                json!({"messages": [{"role": "assistant", "content": [{"type": "thinking", "thinking": "x", "signature": ""}]}]}),
                "Invalid `signature`",
            ),
            (Dialect::OpenaiChat, json!({"stream_options": {"include_usage": true}}), "only allowed when 'stream'"),
            (Dialect::OpenaiChat, json!({"stop": ["a", "b", "c", "d", "e"]}), "maximum length 4"),
            (Dialect::OpenaiChat, json!({"tool_choice": "auto"}), "only allowed when 'tools'"),
            (Dialect::OpenaiChat, json!({"tools": []}), "empty array"),
            (Dialect::OpenaiChat, json!({"max_tokens": 1, "max_completion_tokens": 1}), "at the same time"),
        ] {
            let mut request = json!({"model": "m", "messages": user});
            if dialect == Dialect::Anthropic {
                request["max_tokens"] = json!(2000);
            }
            request.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let mistake = check(dialect, request.to_string().as_bytes()).unwrap_err();
            assert!(mistake.message.contains(says), "{}", mistake.message);
        }
    }
}
