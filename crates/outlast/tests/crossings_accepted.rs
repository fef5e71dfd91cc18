//! Every recorded request, sent through the gateway to an upstream of the other dialect: what Outlast makes of it is
//! something that the vendor would take.

mod support;

use outlast::{
    config::Config,
    fake::{Fake, FakeConfig},
    gateway::{Gateway, StartOptions},
};
use outlast_model::policy::Dialect;
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
[targets."{kind}/m"]
capabilities = {{ tools = true, images = true, json_schema = true }}
[routes.{route}]
targets = ["{kind}/m"]
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
    let (path, route) = match request.dialect {
        Dialect::OpenaiChat => ("/v1/chat/completions", "from-openai"),
        Dialect::Anthropic => ("/v1/messages", "from-anthropic"),
    };
    let mut body = request.body.clone();
    body["model"] = json!(route);
    // A recorded limit that cut the recorded reply would cut this one too.
    for limit in ["max_tokens", "max_completion_tokens"] {
        if let Some(tokens) = body[limit].as_u64() {
            body[limit] = json!(tokens.max(1000));
        }
    }
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: gateway\r\nanthropic-version: 2023-06-01\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.unwrap();
    receive(client).await
}
