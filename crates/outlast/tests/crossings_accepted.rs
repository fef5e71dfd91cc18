//! What Outlast makes of requests for an upstream of the other dialect is something that the vendor would take: every
//! recorded request, and conversations that move between vendors as failovers move them.

mod support;

use outlast::{
    config::Config,
    fake::{Fake, FakeConfig},
    gateway::{Gateway, StartOptions},
};
use outlast_model::{
    Brief, Gate, Mend, Problem,
    policy::{Ability, Contract, Dialect, Schema, StreamContract, ToolMode},
};
use outlast_wire::{Adapt, Inbound, Put};
use serde_json::{Value, json};
use std::{net::SocketAddr, path::Path};
use support::{Reply, receive};
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// A recorded request in a dialect that a client may speak.
struct Recorded {
    id: String,
    dialect: Dialect,
    body: Value,
}

#[tokio::test]
async fn what_crosses_to_the_other_dialect_is_what_its_vendor_takes() {
    let Some(recorded) = recorded() else { return };
    let upstream = Fake::start(FakeConfig::named("upstream")).await.unwrap();
    let gateway = gateway(upstream.addr()).await;
    let (mut crossed, mut left_out, mut refused) = (0, 0, Vec::new());
    for request in &recorded {
        upstream.clear_log();
        let reply = ask(gateway.address(), request).await;
        let seen = upstream.log();
        match seen.first() {
            Some(call) if call.status == Some(200) && reply.status == 200 => crossed += 1,
            Some(call) => refused.push(format!(
                "{} upstream {:?}, client {} {}",
                request.id,
                call.status,
                reply.status,
                reply.text()
            )),
            // It needs what the other dialect cannot carry, and was not sent there.
            None => left_out += 1,
        }
    }
    println!("{crossed} crossed, {left_out} were not sent");
    assert!(refused.is_empty(), "{} of {}:\n{}", refused.len(), recorded.len(), refused.join("\n"));
    assert!(crossed > recorded.len() / 2, "only {crossed} of {} crossed", recorded.len());
}

/// What the engine decides and a contract wants changes requests of the client's dialect too.
#[tokio::test]
async fn what_a_brief_and_a_contract_make_of_requests_is_what_the_vendor_takes() {
    let Some(recorded) = recorded() else { return };
    let upstream = Fake::start(FakeConfig::named("upstream")).await.unwrap();
    let (mut sent, mut refused) = (0, Vec::new());
    for (at, request) in recorded.iter().enumerate() {
        // Each request in one of the ways; all of them would take a minute.
        let way = Way::ALL[at % Way::ALL.len()];
        for dialect in Dialect::ALL {
            let mut body = request.body.clone();
            body["model"] = json!("m-reason");
            body["outlast"] = json!({"sources": ["doc-1"]});
            let inbound = Inbound::parse(request.dialect, body.to_string().into()).unwrap();
            let Some(plain) = adapted(&inbound, dialect, &Brief::default(), None) else { continue };
            let Some(put) = way.put(&inbound, dialect) else { continue };
            // What the vendor takes as it came, it takes as it was put.
            if post(upstream.addr(), dialect, &plain).await.status == 200 {
                let reply = post(upstream.addr(), dialect, &put).await;
                sent += 1;
                if reply.status != 200 {
                    refused.push(format!("{} {dialect:?} {way:?}: {} for {}", request.id, reply.text(), put));
                }
            }
            upstream.clear_log();
        }
    }
    println!("{sent} sent");
    assert!(refused.is_empty(), "{} of {sent}:\n{}", refused.len(), refused.join("\n"));
    assert!(sent > recorded.len() / 2, "only {sent} were sent");
}

/// A way in which requests are put.
#[derive(Clone, Copy, Debug)]
enum Way {
    Clamped,
    Planned,
    ReadOnly,
    WithoutTools,
    WithSchema,
    WithSchemaInWords,
    Mended,
    Shortened,
}

impl Way {
    const ALL: [Way; 8] = [
        Way::Clamped,
        Way::Planned,
        Way::ReadOnly,
        Way::WithoutTools,
        Way::WithSchema,
        Way::WithSchemaInWords,
        Way::Mended,
        Way::Shortened,
    ];

    fn put(self, inbound: &Inbound, dialect: Dialect) -> Option<String> {
        let mode = |tool_mode| Brief { tool_mode, ..Brief::default() };
        let problems = vec![Problem::at(Gate::Schema, "/a is missing")];
        let half = inbound.input_tokens() / 2;
        let (brief, native) = match self {
            Way::Clamped => (Brief { max_output_tokens: Some(1500), ..Brief::default() }, None),
            Way::Planned => (mode(ToolMode::PlanOnly), Some(Ability::No)),
            Way::ReadOnly => (mode(ToolMode::ReadOnly), None),
            Way::WithoutTools => (mode(ToolMode::None), None),
            Way::WithSchema => (Brief::default(), Some(Ability::Yes)),
            Way::WithSchemaInWords => (Brief::default(), Some(Ability::Unknown)),
            Way::Mended => (Brief { mend: Some(Mend { attempt: 0, problems }), ..Brief::default() }, None),
            Way::Shortened => (Brief { shorten_to: Some(half), ..Brief::default() }, None),
        };
        adapted(inbound, dialect, &brief, native)
    }
}

/// The body for a target of this dialect, if it can carry the request. `native`: how well the target keeps a schema that
/// the contract has; it can call tools as well as that.
fn adapted(inbound: &Inbound, dialect: Dialect, brief: &Brief, native: Option<Ability>) -> Option<String> {
    let mut contract = Contract::plain("c", StreamContract::Buffer);
    contract.checks.schema = native.filter(|native| *native != Ability::No).map(|_| {
        let json =
            r#"{"type":"object","properties":{"a":{"type":"string"}},"required":["a"],"additionalProperties":false}"#;
        Schema { source: "s.json".into(), json: json.into() }.into()
    });
    let ability = native.unwrap_or_default();
    let put = Put { brief, contract: &contract, native_schema: ability, can_call_tools: ability, mend: Some("{}") };
    let to = Adapt { dialect, model: "m-reason", max_output: Some(64_000), ask_usage: true, put };
    inbound.adapt(&to).ok().map(|adapted| String::from_utf8(adapted.body.concat()).unwrap())
}

/// An agent's conversation with thoughts and parallel tool calls, each turn answered by the other vendor than the one
/// before: what one vendor said must be history that the other takes.
#[tokio::test]
async fn a_conversation_that_moves_between_vendors_with_every_turn_is_taken_by_both() {
    let upstream = Fake::start(FakeConfig::named("upstream")).await.unwrap();
    let gateway = gateway(upstream.addr()).await;
    for dialect in Dialect::ALL {
        let mut messages: Vec<Value> = vec![json!({"role": "user", "content": "tool:look tool:count"})];
        for turn in 0..8 {
            let route = ["from-openai", "from-anthropic"][turn % 2];
            let body = json!({"messages": messages, "max_tokens": 3000, "tools": tools(dialect)});
            let body = thoughtful(dialect, body);
            let reply = ask_on(gateway.address(), dialect, route, body).await;
            assert_eq!(reply.status, 200, "{dialect:?} turn {turn}: {} after {}", reply.text(), json!(messages));
            let (said, results) = next_turn(dialect, &reply.json());
            messages.push(said);
            match results.is_empty() {
                true => messages.push(json!({"role": "user", "content": "And again: tool:count tool:look"})),
                false => messages.extend(results),
            }
        }
        let calls = upstream.log();
        assert!(
            calls.iter().any(|call| call.dialect == Dialect::OpenaiChat)
                && calls.iter().any(|call| call.dialect == Dialect::Anthropic)
        );
        upstream.clear_log();
    }
}

/// A call that wants thoughts shown, where the dialect has a word for it.
fn thoughtful(dialect: Dialect, mut body: Value) -> Value {
    match dialect {
        Dialect::OpenaiChat => body["reasoning_effort"] = json!("low"),
        Dialect::Anthropic => body["thinking"] = json!({"type": "enabled", "budget_tokens": 1024}),
    }
    body
}

fn tools(dialect: Dialect) -> Value {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let tools = [("look", schema), ("count", json!({"type": "object", "properties": {}}))].into_iter();
    let tool = |(name, schema)| match dialect {
        Dialect::OpenaiChat => json!({"type": "function", "function": {"name": name, "parameters": schema}}),
        Dialect::Anthropic => json!({"name": name, "input_schema": schema}),
    };
    tools.map(tool).collect()
}

/// The assistant's message as a client keeps it, and the messages with the results of its tool calls.
fn next_turn(dialect: Dialect, reply: &Value) -> (Value, Vec<Value>) {
    match dialect {
        Dialect::OpenaiChat => {
            let said = reply["choices"][0]["message"].clone();
            let calls = said["tool_calls"].as_array().cloned().unwrap_or_default();
            let result = |call: &Value| json!({"role": "tool", "tool_call_id": call["id"], "content": "done"});
            (said, calls.iter().map(result).collect())
        }
        Dialect::Anthropic => {
            let said = json!({"role": "assistant", "content": reply["content"]});
            let calls = reply["content"].as_array().unwrap().iter().filter(|block| block["type"] == "tool_use");
            let results: Vec<Value> = calls
                .map(|call| json!({"type": "tool_result", "tool_use_id": call["id"], "content": "done"}))
                .collect();
            let message = json!({"role": "user", "content": results});
            (said, if results.is_empty() { Vec::new() } else { vec![message] })
        }
    }
}

/// `None` where the recordings are not at hand.
fn recorded() -> Option<Vec<Recorded>> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data");
    let folder = std::env::var("OUTLAST_CORPUS").unwrap_or_else(|_| default.into());
    let Ok(text) = std::fs::read_to_string(format!("{folder}/exchanges.jsonl")) else {
        println!("skipped: no recorded exchanges at {folder}; set OUTLAST_CORPUS");
        return None;
    };
    let exchanges = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let wanted = exchanges.filter_map(|exchange| {
        let dialect = match exchange["api"].as_str() {
            Some("openai-chat") => Dialect::OpenaiChat,
            Some("anthropic-messages") => Dialect::Anthropic,
            _ => return None,
        };
        let body = exchange["request"]["body"].clone();
        let is_good = exchange["response"]["status"] == 200 && body["messages"].is_array();
        is_good.then(|| Recorded { id: exchange["id"].to_string(), dialect, body })
    });
    Some(wanted.collect())
}

async fn gateway(upstream: SocketAddr) -> Gateway {
    let mut config = String::from("[server]\nlisten = \"127.0.0.1:0\"\n[telemetry]\nlog = \"off\"\n");
    for (kind, route) in [("anthropic", "from-openai"), ("openai-compatible", "from-anthropic")] {
        config += &format!(
            r#"
[providers.{kind}]
kind = "{kind}"
base_url = "http://{upstream}/v1"
api_key = "sk-upstream"
probes = false
[targets."{kind}/m-reason"]
capabilities = {{ tools = true, images = true, json_schema = true }}
[routes.{route}]
targets = ["{kind}/m-reason"]
tier = "none"
"#
        );
    }
    let config = Config::from_text(&config, "crossings.toml", Path::new(""), &|_| None)
        .unwrap_or_else(|errors| panic!("{errors}"));
    Gateway::start(config, StartOptions { workers: Some(1), ..StartOptions::default() })
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

async fn ask(address: SocketAddr, request: &Recorded) -> Reply {
    let route = match request.dialect {
        Dialect::OpenaiChat => "from-openai",
        Dialect::Anthropic => "from-anthropic",
    };
    let mut body = request.body.clone();
    // A recorded limit that cut the recorded reply would cut this one too.
    for limit in ["max_tokens", "max_completion_tokens"] {
        if let Some(tokens) = body[limit].as_u64() {
            body[limit] = json!(tokens.max(1000));
        }
    }
    ask_on(address, request.dialect, route, body).await
}

async fn ask_on(address: SocketAddr, dialect: Dialect, route: &str, mut body: Value) -> Reply {
    body["model"] = json!(route);
    post(address, dialect, &body.to_string()).await
}

async fn post(address: SocketAddr, dialect: Dialect, body: &str) -> Reply {
    let path = match dialect {
        Dialect::OpenaiChat => "/v1/chat/completions",
        Dialect::Anthropic => "/v1/messages",
    };
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: gateway\r\nanthropic-version: 2023-06-01\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.unwrap();
    receive(client).await
}
