//! Every labelled failure of the recorded corpus gets its class. The corpus is not part of this project: it is
//! found by `OUTLAST_CORPUS`, by default `../shared/data` beside the workspace, and without it the test says so.
//!
//! A row that is a success by its status goes the way it goes in service: the two dialects spoken here through
//! `reply` or `StreamReader` and `check` (for a client that demands JSON, so that a cut counts), the others by what
//! those are made of: error objects by `classify::in_band`, words for the end of a reply by `classify::finish` and
//! `classify::broken_finish`.

use bytes::Bytes;
use outlast_model::{Brief, Failure, Wall, policy::Dialect, turn::Finish};
use outlast_wire::{Inbound, StreamReader, check, classify, contract::Gates, reply};
use serde_json::Value;
use std::{collections::BTreeMap, path::PathBuf};

/// Rows whose label we hold to be wrong, as `provider|status|part of the body`, each with the reason.
const DISPUTED: &[(&str, &str, &str)] = &[];

#[test]
fn every_recorded_failure_gets_its_class() {
    let Some(rows) = corpus("errors.jsonl") else { return };
    let (mut right, mut not_ours, mut wrong) = (0, 0, Vec::new());
    for row in &rows {
        let expected = allowed(row);
        match class_of(row) {
            None => not_ours += 1,
            Some(class) if expected.contains(&class) => right += 1,
            Some(class) => wrong.push((row, class)),
        }
    }
    let undisputed: Vec<_> = wrong.iter().filter(|(row, _)| !is_disputed(row)).collect();
    println!("{right} right, {} wrong, {not_ours} faults without a body, of {}", wrong.len(), rows.len());
    assert!(
        undisputed.is_empty(),
        "{}",
        undisputed.iter().map(|(row, class)| format!("got {class}: {row}\n")).collect::<String>()
    );
}

/// The class this crate gives the row; absent for faults that never have a body (a refused connection, a reset).
fn class_of(row: &Value) -> Option<&'static str> {
    let status = u16::try_from(row["status"].as_u64()?).unwrap();
    let body = match (&row["body"], &row["text"]) {
        (Value::Null, Value::String(text)) => text.clone(),
        (Value::String(text), _) => text.clone(),
        (body, _) => body.to_string(),
    };
    if status >= 300 {
        let headers: BTreeMap<String, String> =
            serde_json::from_value::<BTreeMap<String, Value>>(row["headers"].clone())
                .unwrap_or_default()
                .into_iter()
                .map(|(name, value)| (name.to_lowercase(), value.as_str().map_or(value.to_string(), str::to_owned)))
                .collect();
        let header = |name: &str| headers.get(name).map(String::as_str);
        return Some(classify::response(status, header, body.as_bytes(), Wall(1_772_049_722_000)).failure.class());
    }
    let spoken = match row["api"].as_str() {
        Some("openai-chat") => Some(Dialect::OpenaiChat),
        Some("anthropic-messages") => Some(Dialect::Anthropic),
        _ => None,
    };
    if let Some(dialect) = spoken {
        return Some(spoken_class(dialect, row["stream"] == true, body.into()));
    }
    Some(payloads(&body).iter().find_map(|payload| in_success(payload)).unwrap_or("answered"))
}

/// The class the readers and the checks give a success, for a client that demands JSON.
fn spoken_class(dialect: Dialect, stream: bool, body: Bytes) -> &'static str {
    let asked = match dialect {
        Dialect::OpenaiChat => {
            r#"{"model":"m","messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_object"}}"#
        }
        Dialect::Anthropic => {
            r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}],"output_config":{"format":{"type":"json_schema","schema":{}}}}"#
        }
    };
    let asked = Inbound::parse(dialect, Bytes::from_static(asked.as_bytes())).unwrap();
    let demand = check::Asked { inbound: &asked, gates: Gates::none(), brief: &Brief::default() };
    let found = if stream {
        let mut reader = StreamReader::new(dialect, &asked, false, true);
        let mut out = Vec::new();
        reader
            .push(body, &mut out)
            .and_then(|()| reader.end(&mut out))
            .map(|_| check::stream(&demand, &reader).findings)
    } else {
        reply::read(dialect, &asked, body).map(|reply| check::reply(&demand, &reply).findings)
    };
    match found {
        Err(report) => report.failure.class(),
        Ok(findings) => findings.problems.first().map_or("answered", |problem| problem.failure.class()),
    }
}

/// The JSON documents of a body: itself, a stream's `data` lines, or an event stream's frames.
fn payloads(body: &str) -> Vec<Value> {
    if let Ok(value) = serde_json::from_str::<Value>(body) {
        return value.as_array().cloned().unwrap_or_else(|| vec![value]);
    }
    body.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data:")?.trim()).ok()).collect()
}

/// What a success says went wrong.
fn in_success(payload: &Value) -> Option<&'static str> {
    if let Some(kind) = payload["headers"].get(":exception-type") {
        let error = serde_json::json!({"error": {"code": kind, "message": payload["payload"]["message"]}});
        return Some(classify::in_band(error.to_string().as_bytes()).failure.class());
    }
    let has_error = payload.get("error").is_some_and(|error| !error.is_null())
        || payload.pointer("/response/error").is_some_and(|error| !error.is_null());
    if has_error {
        return Some(classify::in_band(payload.to_string().as_bytes()).failure.class());
    }
    let text = payload.to_string();
    let refused = ["/choices/0/message/refusal", "/choices/0/delta/refusal", "/refusal", "/output/0/content/0/refusal"]
        .iter()
        .any(|path| payload.pointer(path).is_some_and(Value::is_string));
    if refused {
        return Some(Failure::Refusal.class());
    }
    let words = [
        "/choices/0/finish_reason",
        "/stop_reason",
        "/delta/stop_reason",
        "/candidates/0/finishReason",
        "/stopReason",
        "/payload/stopReason",
        "/done_reason",
        "/incomplete_details/reason",
        "/response/incomplete_details/reason",
    ];
    if payload.pointer("/promptFeedback/blockReason").is_some() {
        return Some(Failure::SafetyBlock.class());
    }
    let word = words.iter().find_map(|path| payload.pointer(path)?.as_str())?;
    if let Some(failure) = classify::broken_finish(word) {
        return Some(failure.class());
    }
    match classify::finish(word) {
        Finish::Length => Some(Failure::Truncated.class()),
        Finish::ContentFilter => Some(Failure::SafetyBlock.class()),
        Finish::Refusal => Some(Failure::Refusal.class()),
        // A server-tool loop that paused: not whole, and nothing is wrong with it.
        Finish::Other if word == "pause_turn" => Some(Failure::Truncated.class()),
        Finish::Stop | Finish::ToolCalls | Finish::Other => {
            text.contains("\"guardrail\"").then_some(Failure::SafetyBlock.class())
        }
    }
}

fn allowed(row: &Value) -> Vec<&str> {
    let also = row["also_ok"].as_array().into_iter().flatten().filter_map(Value::as_str);
    row["expected_class"].as_str().into_iter().chain(also).collect()
}

fn is_disputed(row: &Value) -> bool {
    DISPUTED.iter().any(|(provider, part, _why)| row["provider"] == *provider && row.to_string().contains(part))
}

fn corpus(name: &str) -> Option<Vec<Value>> {
    let folder = std::env::var_os("OUTLAST_CORPUS")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"));
    let path = folder.join(name);
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: no corpus at {}; set OUTLAST_CORPUS", path.display());
        return None;
    };
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}
