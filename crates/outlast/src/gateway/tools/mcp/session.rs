//! What is said to an MCP server: JSON-RPC, as the Model Context Protocol has it.
//! Source: modelcontextprotocol.io, specification of 2025-06-18: lifecycle, tools.

use super::{
    super::{
        ToolError,
        attempt::{Errand, Outcome},
        http,
    },
    Told, Tools,
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// What is asked for.
pub(super) const VERSION: &str = "2025-06-18";
/// What is understood of a server that answers with another one: calls of tools are the same in all of them.
const KNOWN: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
/// The most pages of a server's list that are read; tools beyond them are not there.
pub(super) const PAGES_MAX: usize = 20;

/// A server's tools.
pub(super) type Listed = Arc<Tools>;

/// Why a call has no result.
pub(super) enum Lost {
    /// It did not leave.
    Unsent(String),
    /// It did not leave: the server keeps ending, and is started again after this.
    Resting(Duration),
    /// It was refused.
    Refused(ToolError),
    /// The exchange that carried it failed.
    Http(http::Lost),
    /// Its HTTP answer says enough.
    Answered(Box<Outcome>),
    /// The server ended after it was sent.
    Died,
    /// It was sent, and there is no answer in time.
    Late,
}

pub(super) fn request(id: u64, method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

pub(super) fn notification(method: &str) -> Value {
    json!({ "jsonrpc": "2.0", "method": method })
}

pub(super) fn initialize_params() -> Value {
    json!({
        "protocolVersion": VERSION,
        "capabilities": {},
        "clientInfo": { "name": "outlast", "version": env!("CARGO_PKG_VERSION") },
    })
}

/// The version both speak.
///
/// # Errors
/// There is none.
pub(super) fn agreed(initialized: &Value) -> Result<String, String> {
    let version = initialized["protocolVersion"].as_str().unwrap_or_default();
    if KNOWN.contains(&version) {
        Ok(version.to_owned())
    } else {
        Err("it speaks no version that is known here".into())
    }
}

pub(super) fn list_params(cursor: Option<&str>) -> Value {
    match cursor {
        Some(cursor) => json!({ "cursor": cursor }),
        None => json!({}),
    }
}

/// Takes a page of the list in; where the next one begins.
pub(super) fn take_page(page: &Value, into: &mut Tools) -> Option<String> {
    for tool in page["tools"].as_array().into_iter().flatten() {
        if let Some(name) = tool["name"].as_str() {
            let told = Told {
                description: tool["description"].as_str().map(str::to_owned),
                input: tool.get("inputSchema").filter(|schema| schema.is_object()).cloned(),
            };
            into.insert(name.to_owned(), told);
        }
    }
    page["nextCursor"].as_str().map(str::to_owned)
}

/// A call of a tool. A server that knows how finds in `_meta` what HTTP tools get as headers.
pub(super) fn call_params(tool: &str, errand: &Errand<'_>) -> Value {
    let mut meta = json!({});
    if let Some(key) = errand.key {
        meta["outlast/idempotency-key"] = key.into();
        meta["outlast/epoch"] = errand.epoch.into();
        meta["outlast/attempt"] = errand.attempt.into();
    }
    if let Some(trace) = errand.traceparent.and_then(|trace| trace.to_str().ok()) {
        meta["traceparent"] = trace.into();
    }
    json!({ "name": tool, "arguments": errand.arguments, "_meta": meta })
}

/// What a JSON-RPC error proves: what the request itself made impossible did not happen; of anything else nobody knows.
pub(super) fn refused(error: &Value) -> Lost {
    let code = error["code"].as_i64().unwrap_or_default();
    let told = ToolError::new(&format!("rpc_{code}"), "The MCP server refused the call.")
        .saying(error["message"].as_str().unwrap_or_default().as_bytes());
    match code {
        -32700 | -32600 | -32601 | -32602 => Lost::Refused(told),
        _ => Lost::Answered(Box::new(Outcome::Unknown(told))),
    }
}

/// What a result says: the tool's own error is final, and its text is kept.
pub(super) fn outcome(result: &Value) -> Outcome {
    let content = result["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    if result["isError"].as_bool() == Some(true) {
        let texts: Vec<&str> = content.iter().filter_map(|block| block["text"].as_str()).collect();
        return Outcome::refused(
            ToolError::new("tool_error", "The tool answered with an error.").saying(texts.join("\n").as_bytes()),
        );
    }
    if let Some(structured) = result.get("structuredContent").filter(|structured| !structured.is_null()) {
        return Outcome::Done(structured.clone());
    }
    match content {
        [] => Outcome::Done(Value::Null),
        [block] if block["type"] == "text" => Outcome::Done(of_text(block["text"].as_str().unwrap_or_default())),
        blocks => Outcome::Done(Value::Array(blocks.to_vec())),
    }
}

/// A text that is a JSON object or array is that; any other is a text.
fn of_text(text: &str) -> Value {
    match serde_json::from_str::<Value>(text) {
        Ok(value @ (Value::Object(_) | Value::Array(_))) => value,
        Ok(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) | Err(_) => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_its_structure_or_its_text_and_an_error_is_final_with_its_text() {
        let done = |result: Value| match outcome(&result) {
            Outcome::Done(value) => value,
            Outcome::Failed { error, .. } | Outcome::Unknown(error) => panic!("{error:?}"),
        };
        let text = |text: &str| json!({ "type": "text", "text": text });
        assert_eq!(done(json!({ "content": [text("{}")], "structuredContent": { "a": 1 } })), json!({ "a": 1 }));
        assert_eq!(done(json!({ "content": [text("hello")] })), json!("hello"));
        assert_eq!(done(json!({ "content": [text("7")] })), json!("7"), "a number in a text stays a text");
        assert_eq!(done(json!({ "content": [text("[1, 2]")] })), json!([1, 2]));
        assert_eq!(done(json!({ "content": [] })), Value::Null);
        let failed = outcome(&json!({ "isError": true, "content": [text("no such order")] }));
        let Outcome::Failed { error, proof: outlast_engine::run::Proof::Final, fault: false } = failed else {
            panic!("{failed:?}");
        };
        assert_eq!(error.said, Some(json!("no such order")));
    }
}
