//! Tests on recorded exchanges with real providers. They are other people's data and not part of the project: the
//! folder is named by `OUTLAST_CORPUS`, and without it these tests say so and pass.

use crate::{Adapt, Answer, Inbound, Piece, PieceKind, Put, StreamReader, anthropic, openai_chat, reply};
use bytes::Bytes;
use outlast_model::{
    Failure, FailureReport,
    policy::Dialect,
    turn::{Finish, Usage},
};
use serde_json::{Map, Value, json};

/// One recorded exchange in a dialect we speak.
struct Exchange {
    id: String,
    dialect: Dialect,
    request: Option<String>,
    body: Option<String>,
    stream: Option<String>,
}

fn exchanges() -> Vec<Exchange> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data").to_owned();
    let folder = std::env::var("OUTLAST_CORPUS").unwrap_or(default);
    let Ok(lines) = std::fs::read_to_string(format!("{folder}/exchanges.jsonl")) else {
        println!("skipped: no recorded exchanges at {folder}; set OUTLAST_CORPUS");
        return Vec::new();
    };
    let mut found = Vec::new();
    for line in lines.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let dialect = match row["api"].as_str() {
            Some("openai-chat") => Dialect::OpenaiChat,
            Some("anthropic-messages") => Dialect::Anthropic,
            _ => continue,
        };
        let text = |value: &Value| value.is_object().then(|| value.to_string());
        let stream = row["response"]["text"].as_str().filter(|_| row["stream"] == true).map(|text| {
            // Recorders trim the end.
            let text = text.trim_end_matches(['\n', '\r']);
            let end = if text.contains("\r\n") { "\r\n\r\n" } else { "\n\n" };
            format!("{text}{end}")
        });
        found.push(Exchange {
            id: row["id"].as_str().unwrap().to_owned(),
            dialect,
            request: text(&row["request"]["body"]),
            body: text(&row["response"]["body"]),
            stream,
        });
    }
    assert!(found.len() > 100);
    found
}

fn other(dialect: Dialect) -> Dialect {
    match dialect {
        Dialect::OpenaiChat => Dialect::Anthropic,
        Dialect::Anthropic => Dialect::OpenaiChat,
    }
}

/// The client as recorded if it can be, else a plain one that wants to see everything.
fn client(exchange: &Exchange) -> Inbound {
    let recorded = exchange.request.clone().and_then(|body| Inbound::parse(exchange.dialect, body.into()).ok());
    recorded.unwrap_or_else(|| plain(exchange.dialect))
}

fn plain(dialect: Dialect) -> Inbound {
    let body = json!({
        "model": "m", "stream": true, "max_tokens": 9, "stream_options": {"include_usage": true}, "thinking": {"type": "adaptive"},
        "messages": [{"role": "user", "content": "hi"}],
    });
    Inbound::parse(dialect, body.to_string().into()).unwrap()
}

struct Heard {
    bytes: Vec<u8>,
    result: Result<(), FailureReport>,
    answers: Vec<Answer>,
    usage: Usage,
    finish: Option<Finish>,
    pieces: Vec<Piece>,
}

/// Reads a stream in chunks of these sizes, cyclically.
fn hear(upstream: Dialect, client: &Inbound, stream: &[u8], sizes: &[usize]) -> Heard {
    let mut reader = StreamReader::new(upstream, client, false, true);
    let mut pieces = Vec::new();
    let mut rest = stream;
    let mut result = Ok(());
    for size in sizes.iter().cycle() {
        if rest.is_empty() || result.is_err() {
            break;
        }
        let (chunk, later) = rest.split_at((*size).min(rest.len()));
        rest = later;
        result = reader.push(Bytes::copy_from_slice(chunk), &mut pieces);
    }
    let result = result.and_then(|()| reader.end(&mut pieces).map(|_| ()));
    Heard {
        bytes: pieces.iter().flat_map(|piece| piece.bytes.to_vec()).collect(),
        result,
        answers: reader.answers().to_vec(),
        usage: reader.usage(),
        finish: reader.finish(),
        pieces,
    }
}

#[test]
fn recorded_requests_survive_the_hub_form() {
    let mut read = 0;
    for exchange in exchanges() {
        let Some(body) = &exchange.request else { continue };
        let Ok(inbound) = Inbound::parse(exchange.dialect, body.clone().into()) else {
            println!("{} refused: {}", exchange.id, Inbound::parse(exchange.dialect, body.clone().into()).unwrap_err());
            continue;
        };
        let hub = inbound.hub().unwrap_or_else(|error| panic!("{}: {error:?} {body}", exchange.id));
        let adapt = Adapt {
            dialect: exchange.dialect,
            model: inbound.model(),
            max_output: None,
            ask_usage: false,
            put: Put::plain(),
        };
        let again = match exchange.dialect {
            Dialect::OpenaiChat => openai_chat::encode_request(hub, &adapt),
            Dialect::Anthropic => anthropic::encode_request(hub, &adapt),
        };
        let before = normal(&serde_json::from_str(body).unwrap());
        let after = normal(&serde_json::from_slice(&again).unwrap());
        assert_eq!(after, before, "{}", exchange.id);
        // Spliced, nothing but the model's name differs.
        let spliced = inbound.adapt(&Adapt { model: "other", ..adapt }).unwrap();
        assert!(!spliced.adapted);
        let renamed: Value = serde_json::from_slice(&spliced.body.concat()).unwrap();
        let mut expected: Value = serde_json::from_str(body).unwrap();
        expected["model"] = "other".into();
        assert_eq!(renamed, expected, "{}", exchange.id);
        // Crossing either is refused with reasons or yields a request that the other dialect reads.
        let to = Adapt {
            dialect: other(exchange.dialect),
            model: "other",
            max_output: None,
            ask_usage: true,
            put: Put::plain(),
        };
        match inbound.adapt(&to) {
            Ok(adapted) => {
                let crossed = Inbound::parse(to.dialect, adapted.body.concat().into()).unwrap();
                crossed.hub().unwrap_or_else(|error| panic!("{}: {error:?}", exchange.id));
                assert_eq!(inbound.needs().cannot_carry[to.dialect.index()], Vec::<&str>::new());
            }
            Err(unsupported) => {
                assert_eq!(inbound.needs().cannot_carry[to.dialect.index()], unsupported.features, "{}", exchange.id);
            }
        }
        read += 1;
    }
    println!("{read} requests");
}

#[test]
fn recorded_replies_pass_untouched_and_cross_without_loss() {
    let mut read = 0;
    for exchange in exchanges() {
        let Some(body) = exchange.body.clone().filter(|_| exchange.stream.is_none()) else { continue };
        let reply = match reply::read(exchange.dialect, &client(&exchange), body.clone().into()) {
            Ok(reply) => reply,
            Err(report) => {
                println!("{} {}", exchange.id, report.failure);
                continue;
            }
        };
        assert_eq!(reply.body, body.as_bytes());
        read += 1;
        if reply.answers.iter().any(|answer| answer.opaque) || reply.answers.len() > 1 {
            continue;
        }
        let there = plain(other(exchange.dialect));
        let crossed = reply::read(exchange.dialect, &there, body.into()).unwrap();
        let again = reply::read(there.dialect(), &there, crossed.body.clone()).unwrap();
        same_answers(&exchange.id, &reply.answers, &again.answers);
        same_usage(&exchange.id, reply.usage, again.usage);
    }
    println!("{read} replies");
}

#[test]
fn recorded_streams_pass_untouched_wherever_their_chunks_are_cut() {
    let mut cut_short = 0;
    for (at, exchange) in exchanges().into_iter().enumerate() {
        let Some(stream) = &exchange.stream else { continue };
        let client = client(&exchange);
        let whole = hear(exchange.dialect, &client, stream.as_bytes(), &[usize::MAX]);
        let sizes: Vec<usize> = (1..20).map(|step| 1 + (at * 31 + step * step * 17) % 97).collect();
        let cut = hear(exchange.dialect, &client, stream.as_bytes(), &sizes);
        assert_eq!(cut.bytes, whole.bytes, "{}", exchange.id);
        assert_eq!(
            (&cut.result, &cut.answers, cut.usage),
            (&whole.result, &whole.answers, whole.usage),
            "{}",
            exchange.id
        );
        match &whole.result {
            Ok(()) => {
                let added = if whole.bytes.len() > stream.len() { "data: [DONE]\n\n" } else { "" };
                assert_eq!(String::from_utf8_lossy(&whole.bytes), format!("{stream}{added}"), "{}", exchange.id);
                assert!(whole.pieces.iter().any(|piece| piece.kind == PieceKind::Terminal));
            }
            Err(report) => {
                cut_short += 1;
                println!("{} {} {:?}", exchange.id, report.failure, report.code);
                let known = [
                    Failure::StreamInterrupted,
                    Failure::InvalidRequest,
                    Failure::MalformedReply,
                    Failure::ToolMismatch,
                    Failure::Truncated,
                ];
                assert!(known.contains(&report.failure), "{} {}", exchange.id, report.failure);
            }
        }
    }
    println!("{cut_short} not whole");
    assert!(cut_short <= 7);
}

#[test]
fn recorded_streams_cross_without_loss() {
    let mut crossed = 0;
    for exchange in exchanges() {
        let Some(stream) = &exchange.stream else { continue };
        let here = hear(exchange.dialect, &plain(exchange.dialect), stream.as_bytes(), &[usize::MAX]);
        if here.result.is_err() || here.answers.len() > 1 || here.answers.iter().any(|answer| answer.opaque) {
            continue;
        }
        let there = plain(other(exchange.dialect));
        let over = hear(exchange.dialect, &there, stream.as_bytes(), &[61]);
        assert_eq!(over.result, Ok(()), "{}", exchange.id);
        let again = hear(there.dialect(), &there, &over.bytes, &[usize::MAX]);
        assert_eq!(again.result, Ok(()), "{}: {}", exchange.id, String::from_utf8_lossy(&over.bytes));
        same_answers(&exchange.id, &here.answers, &again.answers);
        same_usage(&exchange.id, here.usage, again.usage);
        assert_eq!(over.finish, here.finish);
        crossed += 1;
    }
    println!("{crossed} streams");
}

fn same_answers(id: &str, before: &[Answer], after: &[Answer]) {
    assert_eq!(after.len(), before.len(), "{id}");
    for (before, after) in before.iter().zip(after) {
        // The other dialect tells a refusal as text.
        let said = |answer: &Answer| format!("{}{}", answer.text, answer.refusal);
        assert_eq!(said(after), said(before), "{id}");
        assert_eq!(after.tool_calls.len(), before.tool_calls.len(), "{id}");
        for ((name, arguments), (name_after, arguments_after)) in before.tool_calls.iter().zip(&after.tool_calls) {
            let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            assert_eq!((name_after, value(arguments_after)), (name, value(arguments)), "{id}");
        }
        let finish = match before.finish {
            Some(Finish::Stop | Finish::Other) | None if !before.tool_calls.is_empty() => Finish::ToolCalls,
            Some(Finish::Stop | Finish::Other) | None => Finish::Stop,
            Some(Finish::Refusal | Finish::ContentFilter) => match after.finish {
                Some(Finish::ContentFilter) => Finish::ContentFilter,
                _ => Finish::Refusal,
            },
            Some(finish @ (Finish::Length | Finish::ToolCalls)) => finish,
        };
        assert_eq!(after.finish, Some(finish), "{id}");
    }
}

fn same_usage(id: &str, before: Usage, after: Usage) {
    let counts = |usage: Usage| (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens);
    assert_eq!(counts(after), counts(before), "{id}");
}

/// A request in one canonical form, so that two ways to say the same are equal.
fn normal(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut out = Map::new();
            for (name, value) in fields {
                let value = normal(value);
                let (name, value) = match (name.as_str(), value) {
                    (_, Value::Null) => continue,
                    ("stream", Value::Bool(false)) => continue,
                    ("tools" | "tool_calls" | "stop" | "stop_sequences", Value::Array(list)) if list.is_empty() => {
                        continue;
                    }
                    ("content", Value::Array(list)) if list.is_empty() => continue,
                    ("refusal" | "reasoning" | "reasoning_content", Value::String(text)) if text.is_empty() => continue,
                    ("content" | "system", Value::String(text)) => {
                        (name.as_str(), json!([{"type": "text", "text": text}]))
                    }
                    ("tool_choice", Value::String(word)) if word == "any" => ("tool_choice", "required".into()),
                    ("response_format", value) if value["type"] == "text" => continue,
                    ("json_schema", Value::Object(fields)) if !fields.contains_key("name") => {
                        let mut named = fields.clone();
                        named.insert("name".into(), "output".into());
                        ("json_schema", normal(&Value::Object(named)))
                    }
                    ("stop", Value::String(text)) => ("stop", json!([text])),
                    ("image_url", Value::String(url)) => ("image_url", json!({ "url": url })),
                    ("max_completion_tokens", value) => ("max_tokens", value),
                    ("reasoning", value @ Value::String(_)) => ("reasoning_content", value),
                    ("arguments", Value::String(text)) if text.is_empty() => ("arguments", "{}".into()),
                    ("is_error", Value::Bool(false)) => continue,
                    (name, value) => (name, value),
                };
                out.insert(name.to_owned(), value);
            }
            if out.contains_key("function") && !out.contains_key("type") {
                out.insert("type".into(), "function".into());
            }
            let mut sorted: Vec<_> = out.into_iter().collect();
            sorted.sort_by(|one, two| one.0.cmp(&two.0));
            Value::Object(sorted.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(normal).collect()),
        Value::Number(number) => json!(number.as_f64()),
        Value::Null | Value::Bool(_) | Value::String(_) => value.clone(),
    }
}
