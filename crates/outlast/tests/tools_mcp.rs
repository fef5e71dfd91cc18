//! Tools on MCP servers: a program that speaks over its standard input and output, and one behind a URL.

mod common;

use common::{
    Ask, Reply, Rig, Step, Upstream,
    downstream::{RETRY, answer, rig},
    upstream::{Request, STREAM_HEAD},
};
use serde_json::{Value, json};
use std::{
    io::{BufRead, Write},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Says who is to be the server: this test's own binary, started once more by the gateway.
const CHILD: &str = "OUTLAST_TEST_MCP_SERVER";

/// Does nothing, unless the gateway has started it: then it is an MCP server. It answers by the name of the tool, and
/// writes down every call in the file that [`CHILD`] names.
#[test]
fn the_server_that_the_gateway_starts() {
    let Ok(log) = std::env::var(CHILD) else { return };
    assert!(std::env::var("CARGO_MANIFEST_DIR").is_err(), "it inherits nothing");
    let mut out = std::io::stdout().lock();
    // The test runner has written something before: the protocol begins with a line of its own.
    let mut say = |message: &Value| writeln!(out, "\n{message}").and_then(|()| out.flush()).unwrap();
    for line in std::io::stdin().lock().lines() {
        let message: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let Some(id) = message.get("id") else { continue };
        let method = message["method"].as_str().unwrap_or_default();
        if method == "tools/call" {
            let mut log = std::fs::OpenOptions::new().append(true).create(true).open(&log).unwrap();
            writeln!(log, "{}", message["params"]).unwrap();
        }
        match scripted(method, &message["params"]) {
            Some(Ok(result)) => {
                // A server may ask, too.
                say(&json!({ "jsonrpc": "2.0", "id": 7000, "method": "ping" }));
                say(&json!({ "jsonrpc": "2.0", "id": id, "result": result }));
            }
            Some(Err(error)) => say(&json!({ "jsonrpc": "2.0", "id": id, "error": error })),
            None if message["params"]["name"] == "die" => std::process::exit(3),
            None => {}
        }
    }
    std::process::exit(0);
}

/// What the servers of these tests answer. Nothing: no answer at all.
fn scripted(method: &str, params: &Value) -> Option<Result<Value, Value>> {
    let text = |text: &str| json!({ "type": "text", "text": text });
    Some(match method {
        "initialize" => Ok(json!({
            "protocolVersion": params["protocolVersion"], "capabilities": { "tools": {} },
            "serverInfo": { "name": "scripted", "version": "1" },
        })),
        "tools/list" if params["cursor"].is_null() => Ok(json!({
            "tools": [{ "name": "add", "description": "Adds two numbers.", "inputSchema": { "type": "object" } }],
            "nextCursor": "2",
        })),
        "tools/list" => {
            let named = ["fail", "die", "hang", "refuse", "crash"].map(|name| json!({ "name": name }));
            Ok(json!({ "tools": named }))
        }
        "tools/call" => match params["name"].as_str().unwrap_or_default() {
            "add" => {
                let sum = params["arguments"]["a"].as_i64().unwrap() + params["arguments"]["b"].as_i64().unwrap();
                Ok(json!({ "content": [text(&sum.to_string())], "structuredContent": { "sum": sum } }))
            }
            "fail" => Ok(json!({ "content": [text("no such order")], "isError": true })),
            "refuse" => Err(json!({ "code": -32602, "message": "bad arguments" })),
            "crash" => Err(json!({ "code": -32603, "message": "internal" })),
            _ => return None,
        },
        _ => Err(json!({ "code": -32601, "message": "no such method" })),
    })
}

fn tools(effect: &str) -> String {
    let mut toml = String::new();
    for name in ["add", "fail", "die", "hang", "refuse", "crash", "absent"] {
        toml += &format!(
            "[tools.{name}]\nkind = \"mcp\"\nserver = \"one\"\neffect = \"{effect}\"\ntimeout = \"1500ms\"\n{RETRY}\n"
        );
    }
    toml
}

async fn stdio(folder: &Path, effect: &str) -> Rig {
    let program = std::env::current_exe().unwrap();
    let command = json!([program, "--exact", "the_server_that_the_gateway_starts", "--nocapture"]);
    let log = json!(folder.join("calls"));
    rig(&format!("[mcp.one]\ncommand = {command}\nenv = {{ {CHILD} = {log} }}\n{}", tools(effect))).await
}

/// What the server was called with.
fn calls(folder: &Path) -> Vec<Value> {
    let log = std::fs::read_to_string(folder.join("calls")).unwrap_or_default();
    log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn call(name: &str, arguments: &Value) -> Ask {
    Ask::post(&format!("/v1/tools/{name}"), arguments.to_string()).header("idempotency-key", name)
}

fn code(reply: &Reply) -> Value {
    reply.json()["error"]["tool_error"]["code"].clone()
}

/// What both kinds of server have in common.
async fn assert_spoken(rig: &Rig) {
    let sum = rig.ask(call("add", &json!({ "a": 2, "b": 3 }))).await;
    assert_eq!((sum.status(), sum.json()), (200, json!({ "sum": 5 })), "{}", sum.text());
    let failed = rig.ask(call("fail", &json!({}))).await;
    assert_eq!((failed.status(), code(&failed)), (502, json!("tool_error")), "{}", failed.text());
    assert_eq!(failed.json()["error"]["tool_error"]["said"], "no such order");
    assert_eq!(rig.ask(call("fail", &json!({}))).await.header("x-outlast-replayed"), Some("true"), "it is final");
    let refused = rig.ask(call("refuse", &json!({}))).await;
    assert_eq!((refused.status(), code(&refused)), (502, json!("rpc_-32602")), "{}", refused.text());
    let absent = rig.ask(call("absent", &json!({}))).await;
    assert_eq!((absent.status(), code(&absent)), (502, json!("no_such_tool")), "{}", absent.text());
    for unclear in ["crash", "hang"] {
        let reply = rig.ask(call(unclear, &json!({}))).await;
        assert_eq!((reply.status(), reply.json()["parked"].clone()), (202, json!("unknown_effect")), "{unclear}");
    }
    let told = rig.ask(Ask::get("/v1/tools/add")).await.json();
    assert_eq!((&told["kind"], &told["description"]), (&json!("mcp"), &json!("Adds two numbers.")));
}

#[tokio::test]
async fn a_program_is_started_and_called_and_its_words_mean_what_the_protocol_says() {
    let folder = tempfile::tempdir().unwrap();
    let rig = stdio(folder.path(), "once").await;
    assert_spoken(&rig).await;
    let called = calls(folder.path());
    let names: Vec<&Value> = called.iter().map(|params| &params["name"]).collect();
    assert_eq!(names, ["add", "fail", "refuse", "crash", "hang"], "each of them once");
    assert!(called[0]["_meta"]["outlast/idempotency-key"].as_str().unwrap().starts_with("ol-"));
    assert_eq!(called[0]["_meta"]["outlast/attempt"], 1);
}

#[tokio::test]
async fn a_call_whose_server_died_is_unknown_and_the_next_call_starts_another() {
    let folder = tempfile::tempdir().unwrap();
    let rig = stdio(folder.path(), "once").await;
    let died = rig.ask(call("die", &json!({}))).await;
    assert_eq!((died.status(), died.json()["parked"].clone()), (202, json!("unknown_effect")), "{}", died.text());
    let sum = rig.ask(call("add", &json!({ "a": 1, "b": 1 }))).await;
    assert_eq!((sum.status(), sum.json()), (200, json!({ "sum": 2 })), "{}", sum.text());
    let names: Vec<Value> = calls(folder.path()).into_iter().map(|mut params| params["name"].take()).collect();
    assert_eq!(names, ["die", "add"]);
}

#[tokio::test]
async fn a_program_that_cannot_be_started_was_not_called() {
    let toml = format!("[mcp.one]\ncommand = [\"/nowhere/at-all\"]\n{}", tools("pure"));
    let rig = rig(&toml).await;
    let reply = rig.ask(Ask::post("/v1/tools/add", "{}").header("x-outlast-deadline-ms", "1")).await;
    assert_eq!((reply.status(), code(&reply)), (503, json!("unreachable")), "{}", reply.text());
}

/// An MCP server behind a URL. The session it gives first is forgotten after the first call.
async fn remote(streams: bool) -> Upstream {
    let sessions = AtomicUsize::new(0);
    Upstream::start(move |request: &Request| {
        let message = request.json();
        let method = message["method"].as_str().unwrap_or_default();
        if message.get("id").is_none() {
            return vec![Step::Send(answer(202, "application/json", ""))];
        }
        let session = match method {
            "initialize" => sessions.fetch_add(1, Ordering::Relaxed) + 1,
            _ => request.header("mcp-session-id").and_then(|id| id.parse().ok()).unwrap_or_default(),
        };
        let forgotten = session == 1 && method == "tools/call" && message["params"]["name"] == "fail";
        if forgotten {
            return vec![Step::Send(answer(404, "application/json", r#"{"error": "no such session"}"#))];
        }
        let body = match scripted(method, &message["params"]) {
            Some(Ok(result)) => json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }),
            Some(Err(error)) => json!({ "jsonrpc": "2.0", "id": message["id"], "error": error }),
            None => return vec![Step::Hang],
        };
        let head = |media: &str, length: usize| {
            format!("HTTP/1.1 200 OK\r\nmcp-session-id: {session}\r\ncontent-type: {media}\r\ncontent-length: {length}\r\n\r\n")
        };
        let body = match streams {
            false => body.to_string(),
            true => format!(": hello\n\nevent: message\ndata: {{\"method\":\"notifications/x\"}}\n\nevent: message\ndata: {body}\n\n"),
        };
        let media = if streams { "text/event-stream" } else { "application/json" };
        vec![Step::Send((head(media, body.len()) + &body).into_bytes())]
    })
    .await
}

#[tokio::test]
async fn a_server_behind_a_url_is_spoken_to_in_json_and_in_streams_and_a_forgotten_session_is_begun_anew() {
    for streams in [false, true] {
        let server = remote(streams).await;
        let rig = rig(&format!("[mcp.one]\nurl = \"{}/mcp\"\n{}", server.url(), tools("once"))).await;
        assert_spoken(&rig).await;
        let seen = server.seen();
        let of = |method: &str| seen.iter().filter(|request| request.json()["method"] == method).count();
        assert_eq!((of("initialize"), of("notifications/initialized"), of("tools/list")), (2, 2, 4));
        let added = seen.iter().find(|request| request.json()["params"]["name"] == "add").unwrap();
        assert_eq!(added.header("mcp-session-id"), Some("1"));
        assert_eq!(added.header("mcp-protocol-version"), Some("2025-06-18"));
        assert_eq!(added.header("accept"), Some("application/json, text/event-stream"));
        assert!(added.header("idempotency-key").unwrap().starts_with("ol-"));
        let failing = seen.iter().filter(|request| request.json()["params"]["name"] == "fail");
        let sessions: Vec<_> = failing.map(|request| request.header("mcp-session-id").unwrap()).collect();
        assert_eq!(sessions, ["1", "2"]);
    }
}

#[tokio::test]
async fn a_stream_that_ends_without_the_answer_leaves_an_effect_unknown() {
    let server = Upstream::start(|request: &Request| {
        let message = request.json();
        match (message.get("id"), message["method"].as_str().unwrap_or_default()) {
            (None, _) => vec![Step::Send(answer(202, "application/json", ""))],
            (Some(_), "tools/call") => {
                let comment = common::upstream::chunk(": working\n\n");
                vec![Step::Send((STREAM_HEAD.to_owned() + &comment).into_bytes()), Step::Close]
            }
            (Some(id), method) => {
                let result = scripted(method, &message["params"]).unwrap().unwrap();
                let body = json!({ "jsonrpc": "2.0", "id": id, "result": result });
                vec![Step::Send(answer(200, "application/json", &body.to_string()))]
            }
        }
    });
    let server = server.await;
    let rig = rig(&format!("[mcp.one]\nurl = \"{}\"\n{}", server.url(), tools("once"))).await;
    let reply = rig.ask(call("add", &json!({ "a": 1, "b": 1 }))).await;
    assert_eq!((reply.status(), reply.json()["parked"].clone()), (202, json!("unknown_effect")), "{}", reply.text());
}
