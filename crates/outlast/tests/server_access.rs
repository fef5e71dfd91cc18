//! Who may do what, and that no secret and no payload ever shows.

mod common;

use aws_lc_rs::hmac;
use common::{
    Ask, Rig, Server, Upstream, plan,
    rig::{self, env, fake, provider, two_fakes},
    until, until_some,
};
use outlast::{
    config::{Changes, Config, ConfigErrors, Reload},
    fake::{Fake, FakeConfig, key_hash},
    gateway::{ConfigSource, Gateway, StartOptions},
};
use outlast_model::{Failure, record::AttemptReason};
use serde_json::json;

const KEYS: &str = "[server]\nkeys = [\"${CALLER_ONE}\", \"${CALLER_TWO}\"]\nadmin_token = \"${ADMIN_TOKEN}\"\n";

fn secret(name: &str) -> String {
    env(name).unwrap()
}

async fn guarded_rig() -> (Fake, Rig) {
    let (a, _b, config) = two_fakes().await;
    let rig = Rig::start(&(config + KEYS)).await;
    (a, rig)
}

#[tokio::test]
async fn a_key_opens_by_either_header_and_without_one_each_dialect_says_401() {
    let (a, rig) = guarded_rig().await;
    let key = secret("CALLER_ONE");
    for dialect in ["openai", "anthropic"] {
        let ask = Ask::either(dialect, "main", "hello");
        rig.ask(ask.clone().bearer(&key)).await.assert_answered();
        rig.ask(ask.clone().header("Authorization", &format!("bearer {key}"))).await.assert_answered();
        rig.ask(ask.clone().header("x-api-key", &key)).await.assert_answered();
    }
    let calls = a.count();
    for denied in [
        Ask::chat("main", "hello"),
        Ask::chat("main", "hello").bearer("sk-wrong"),
        Ask::chat("main", "hello").header("x-api-key", ""),
        Ask::chat("main", "hello").header("authorization", &format!("Basic {key}")),
        Ask::chat("main", "hello").bearer(&secret("ADMIN_TOKEN")),
        Ask::chat("no-such-route", "hello"),
        Ask::get("/v1/models"),
        Ask::get("/v1/models/main"),
    ] {
        let reply = rig.ask(denied.clone()).await;
        assert_eq!(reply.status(), 401, "{denied:?}: {}", reply.text());
        assert_eq!(reply.json()["error"]["code"], "invalid_api_key", "{}", reply.text());
        assert_eq!(reply.header("x-should-retry"), Some("false"));
    }
    for denied in [Ask::message("main", "hello"), Ask::message("main", "hello").header("x-api-key", "sk-wrong")] {
        let reply = rig.ask(denied).await;
        assert_eq!(reply.status(), 401);
        assert_eq!(reply.json()["type"], "error");
        assert_eq!(reply.json()["error"]["type"], "authentication_error", "{}", reply.text());
    }
    assert_eq!(a.count(), calls, "nobody is asked for a caller without a key");
    assert_eq!(rig.ask(Ask::get("/healthz")).await.status(), 200, "health is for everybody");
    assert_eq!(rig.ask(Ask::get("/readyz")).await.status(), 200);
}

#[tokio::test]
async fn a_web_page_of_another_site_cannot_spend_the_money_of_a_gateway_without_keys() {
    let (a, _b, config) = two_fakes().await;
    let rig = Rig::start(&config).await;
    // What a browser sends for a page without asking anybody: no JSON content type, no headers of its own.
    for origin in ["https://evil.example", "http://localhost.evil.example", "null", "http://192.0.2.7:8080"] {
        let ask = Ask::chat("main", "hello").header("origin", origin);
        assert_eq!(rig.ask(ask).await.status(), 403, "{origin}");
        assert_eq!(rig.ask(Ask::post("/v1/reload", "").header("origin", origin)).await.status(), 403, "{origin}");
    }
    assert_eq!(a.count(), 0);
    for origin in ["http://localhost:3000", "http://127.0.0.1:8080", "http://[::1]:5173", "vscode-webview://abc"] {
        rig.ask(Ask::chat("main", "hello").header("origin", origin)).await.assert_answered();
    }
    let (_a, with_keys) = guarded_rig().await;
    let ask = Ask::chat("main", "hello").header("origin", "https://app.example").bearer(&secret("CALLER_ONE"));
    with_keys.ask(ask).await.assert_answered();
}

#[tokio::test]
async fn a_large_request_without_a_key_reads_its_401_all_the_same() {
    let (_a, rig) = guarded_rig().await;
    let reply = rig.ask(Ask::chat("main", &"x".repeat(3_000_000))).await;
    assert_eq!(reply.status(), 401);
}

#[tokio::test]
async fn the_operators_endpoints_need_the_admin_token() {
    let (_a, rig) = guarded_rig().await;
    for path in ["/metrics", "/v1/targets"] {
        assert_eq!(rig.ask(Ask::get(path)).await.status(), 401, "{path}");
        assert_eq!(rig.ask(Ask::get(path).bearer("wrong")).await.status(), 401, "{path}");
        assert_eq!(rig.ask(Ask::get(path).bearer(&secret("CALLER_ONE"))).await.status(), 401, "{path}");
        assert_eq!(rig.ask(Ask::get(path).bearer(&secret("ADMIN_TOKEN"))).await.status(), 200, "{path}");
    }
    assert_eq!(rig.ask(Ask::post("/v1/reload", "")).await.status(), 401);
    assert_eq!(rig.ask(Ask::get("/v1/reload").bearer(&secret("ADMIN_TOKEN"))).await.status(), 405);
    let targets = rig.ask(Ask::get("/v1/targets").bearer(&secret("ADMIN_TOKEN"))).await.json();
    assert_eq!(targets["targets"][0]["target"], "a/m");
    assert_eq!(targets["targets"][0]["state"], "closed");
}

#[tokio::test]
async fn without_a_token_the_operators_endpoints_are_open_on_loopback_and_closed_beyond() {
    let (_a, _b, config) = two_fakes().await;
    let rig = Rig::start(&config).await;
    for path in ["/metrics", "/v1/targets"] {
        assert_eq!(rig.ask(Ask::get(path)).await.status(), 200, "{path}");
    }

    /// A config that says it listens for other machines, so that the test need not.
    struct Elsewhere(String);
    impl ConfigSource for Elsewhere {
        fn is_changed(&self) -> bool {
            true
        }
        fn reload(&mut self, _: &Config) -> Result<Reload, ConfigErrors> {
            let mut config = Config::from_text(&self.0, "outlast.toml", std::path::Path::new("."), &env)?;
            config.server.listen = "192.0.2.1:8080".parse().unwrap();
            Ok(Reload { config, changes: Changes::default() })
        }
    }
    let text = rig::complete(&config);
    let start = Config::from_text(&text, "outlast.toml", std::path::Path::new("."), &env).unwrap();
    let source: Box<dyn ConfigSource> = Box::new(Elsewhere(text));
    let gateway =
        Gateway::start(start, StartOptions { source: Some(source), ..StartOptions::default() }).await.unwrap();
    gateway.reload().await.expect("it reloads");
    for path in ["/metrics", "/v1/targets"] {
        let reply = Ask::get(path).send(gateway.address()).await;
        assert_eq!(reply.status(), 403, "{path}");
        assert!(reply.text().contains("server.admin_token"), "{}", reply.text());
    }
    Ask::chat("main", "hello").send(gateway.address()).await.assert_answered();
}

#[tokio::test]
async fn a_caller_reads_its_own_lineage_and_nobody_elses() {
    for admin_token in [true, false] {
        let (_a, _b, config) = two_fakes().await;
        let keys = if admin_token { KEYS } else { "[server]\nkeys = [\"${CALLER_ONE}\", \"${CALLER_TWO}\"]\n" };
        let rig = Rig::start(&(config + keys)).await;
        let reply = rig.ask(Ask::chat("main", "mine").bearer(&secret("CALLER_ONE"))).await;
        let path = format!("/v1/requests/{}", reply.request_id());
        rig.record(reply.request_id()).await;
        let own = rig.ask(Ask::get(&path).bearer(&secret("CALLER_ONE"))).await;
        assert_eq!(own.status(), 200, "{}", own.text());
        assert_eq!(own.json()["request_id"], reply.request_id());
        let others = rig.ask(Ask::get(&path).bearer(&secret("CALLER_TWO"))).await;
        assert_eq!(others.status(), 404, "as if there were none: {}", others.text());
        assert_eq!(rig.ask(Ask::get(&path)).await.status(), 401, "admin token: {admin_token}");
        assert_eq!(rig.ask(Ask::get(&path).bearer("wrong")).await.status(), 401);
        if admin_token {
            assert_eq!(rig.ask(Ask::get(&path).bearer(&secret("ADMIN_TOKEN"))).await.status(), 200);
        }
    }
}

#[tokio::test]
async fn a_config_that_listens_beyond_loopback_without_keys_is_refused_unless_asked_for() {
    let (_a, _b, config) = two_fakes().await;
    let judge = |server: &str| Config::from_text(&(config.clone() + server), "outlast.toml", ".".as_ref(), &env);
    let refused =
        judge("[server]\nlisten = \"0.0.0.0:8080\"\n").expect_err("everybody could spend the operator's money");
    assert!(refused.to_string().contains("allow_open"), "{refused}");
    assert!(judge("[server]\nlisten = \"0.0.0.0:8080\"\nallow_open = true\n").is_ok());
    assert!(judge("[server]\nlisten = \"0.0.0.0:8080\"\nkeys = [\"${CALLER_ONE}\"]\n").is_ok());
}

/// A provider with two keys, of which the fake takes only the second.
async fn two_keys(accepted: &[&str]) -> (Fake, String) {
    let keys = accepted.iter().map(|name| secret(name)).collect();
    let a = Fake::start(FakeConfig { keys, ..FakeConfig::named("alpha") }).await.unwrap();
    let config = provider("a", "openai-compatible", &a.url(), "api_keys = [\"${KEY_ZERO}\", \"${KEY_ONE}\"]")
        + "[routes.main]\ntargets = [\"a/m\"]\n";
    (a, config)
}

#[tokio::test]
async fn a_rejected_key_is_left_out_at_once_and_a_signed_alert_is_raised() {
    let (a, config) = two_keys(&["KEY_ONE"]).await;
    let receiver = Upstream::answering(json!({})).await;
    let config = config + &format!("[alerts]\nwebhook = \"{}/hook\"\nsecret = \"${{ALERT_SECRET}}\"\n", receiver.url());
    let rig = Rig::start(&config).await;
    let reply = rig.ask(Ask::chat("main", "hello")).await;
    reply.assert_answered();
    let record = rig.record(reply.request_id()).await;
    let keys: Vec<u8> = record.attempts.iter().map(|attempt| attempt.key).collect();
    assert_eq!(keys, [0, 1]);
    assert_eq!(record.first_failure(), Some(Failure::Auth));
    let hashes: Vec<String> = a.log().iter().map(|seen| seen.headers["key"].clone()).collect();
    assert_eq!(hashes, [key_hash(&secret("KEY_ZERO")), key_hash(&secret("KEY_ONE"))]);
    for _ in 0..3 {
        let reply = rig.ask(Ask::chat("main", "again")).await;
        assert_eq!(reply.header("x-outlast-attempts"), Some("1"), "the rejected key is not tried again");
    }
    assert_eq!(rig.gateway.targets()[0].keys_out, [0]);
    assert_eq!(rig.gateway.targets()[0].faults, 0, "a key is no fault of the target's");

    until("the alert", || !receiver.seen().is_empty()).await;
    let alert = receiver.seen().remove(0);
    assert!(alert.head.starts_with("POST /hook "));
    let body = alert.json();
    assert_eq!(body["kind"], "key_rejected", "{body}");
    assert!(body["subject"].as_str().unwrap().starts_with("a "), "{body}");
    let timestamp = alert.header("x-outlast-timestamp").unwrap();
    let signed = [timestamp.as_bytes(), b".", &alert.body].concat();
    let signature = alert.header("x-outlast-signature").and_then(|value| value.strip_prefix("v1=")).unwrap();
    let signature: Vec<u8> =
        (0..signature.len()).step_by(2).map(|at| u8::from_str_radix(&signature[at..at + 2], 16).unwrap()).collect();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret("ALERT_SECRET").as_bytes());
    hmac::verify(&key, &signed, &signature).expect("it is signed with the secret");
    assert_eq!(receiver.seen().len(), 1, "told once");
}

#[tokio::test]
async fn a_key_on_a_429_schedule_gives_way_to_the_next_at_once() {
    let (a, config) = two_keys(&["KEY_ZERO", "KEY_ONE"]).await;
    let rig = Rig::start(&config).await;
    a.set_fault("*", plan("429:retry-after=30,first=1")).unwrap();
    let reply = rig.ask(Ask::chat("main", "hello")).await;
    reply.assert_answered();
    let record = rig.record(reply.request_id()).await;
    let keys: Vec<u8> = record.attempts.iter().map(|attempt| attempt.key).collect();
    assert_eq!(keys, [0, 1]);
    assert_eq!(record.first_failure(), Some(Failure::RateLimited));
    for _ in 0..5 {
        let reply = rig.ask(Ask::chat("main", "again")).await;
        let record = rig.record(reply.request_id()).await;
        assert_eq!(record.attempts.iter().map(|attempt| attempt.key).collect::<Vec<_>>(), [1], "its schedule is kept");
    }
    assert_eq!(rig.gateway.targets()[0].faults, 0, "a 429 is never a fault");
}

#[tokio::test]
async fn when_every_key_is_on_a_schedule_the_next_target_answers_and_alone_the_caller_learns_when() {
    let (a, config) = two_keys(&["KEY_ZERO", "KEY_ONE"]).await;
    let b = fake("beta").await;
    let both = provider("b", "openai-compatible", &b.url(), "") + "[routes.both]\ntargets = [\"a/m\", \"b/m\"]\n";
    let rig = Rig::start(&(config + &both)).await;
    a.set_fault("*", plan("429:retry-after=300")).unwrap();
    let reply = rig.ask(Ask::chat("both", "hello")).await;
    reply.assert_answered();
    assert_eq!(reply.header("x-outlast-target"), Some("b/m"));
    let asked = a.count();
    let reply = rig.ask(Ask::chat("both", "hello")).await;
    assert_eq!(reply.header("x-outlast-attempts"), Some("1"));
    assert_eq!(rig.record(reply.request_id()).await.attempts[0].reason, AttemptReason::First);
    let reply = rig.ask(Ask::chat("main", "hello")).await;
    assert_eq!(reply.status(), 429, "{}", reply.text());
    assert!(reply.header("retry-after").is_some(), "{:?}", reply.head);
    assert_eq!(a.count(), asked, "a schedule is kept");
}

#[tokio::test]
async fn no_key_prompt_or_answer_shows_in_the_log_the_metrics_the_lineage_or_the_file() {
    let (prompt, task) = ("the-prompt-zanzibar", "task-42");
    let (a, config) = two_keys(&["KEY_ONE"]).await;
    let b = Fake::start(FakeConfig::named("answer-quagga")).await.unwrap();
    let config = config.replace("[\"a/m\"]", "[\"a/m\", \"b/m\"]")
        + &provider("b", "openai-compatible", &b.url(), "headers = { x-private = \"${ALERT_SECRET}\" }")
        + KEYS
        + "[telemetry]\nfile = \"calls.db\"\nsample = 1.0\n";
    let mut server = Server::start(&config).await;
    let key = secret("CALLER_ONE");
    let mut outputs = String::new();
    for fault in
        ["none", "500", "auth", "cut:after=3,how=reset", "malformed-chunk:after=1", "refusal", "context-exceeded"]
    {
        if fault != "none" {
            a.set_fault("*", plan(fault)).unwrap();
        }
        for dialect in ["openai", "anthropic"] {
            for streamed in [false, true] {
                let ask = Ask::either(dialect, "main", prompt).with("stream", json!(streamed));
                let ask =
                    ask.header("x-outlast-task", task).header("x-outlast-trace", "full").header("x-api-key", &key);
                let reply = ask.send(server.address).await;
                let path = format!("/v1/requests/{}", reply.request_id());
                let lineage = until_some("its lineage", async || {
                    let reply = Ask::get(&path).bearer(&key).send(server.address).await;
                    (reply.status() == 200).then(|| reply.text())
                });
                outputs += &lineage.await;
            }
        }
    }
    // Requests that get no further leave traces, too.
    Ask::chat("main", prompt).bearer("sk-wrong-caller-0123456789").send(server.address).await;
    Ask::chat("no-such-route", prompt).bearer(&key).send(server.address).await;
    Ask::post("/v1/chat/completions", format!("{{\"model\":\"main\",\"messages\":\"{prompt}"))
        .bearer(&key)
        .send(server.address)
        .await;
    outputs += &Ask::get("/metrics").bearer(&secret("ADMIN_TOKEN")).send(server.address).await.text();
    outputs += &Ask::get("/v1/targets").bearer(&secret("ADMIN_TOKEN")).send(server.address).await.text();
    server.signal("TERM");
    assert!(server.exit().await.success());
    assert!(server.events("call").len() >= 28, "{}", server.log_text());
    outputs += &server.log_text();
    for file in std::fs::read_dir(server.folder.path()).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            outputs += &String::from_utf8_lossy(&std::fs::read(path).unwrap());
        }
    }
    assert!(outputs.contains(task), "the grep looks where the calls are");
    let secrets = ["CALLER_ONE", "CALLER_TWO", "ADMIN_TOKEN", "KEY_ZERO", "KEY_ONE", "ALERT_SECRET"].map(secret);
    let payloads = [prompt.to_owned(), "answer-quagga".to_owned(), "sk-wrong-caller".to_owned()];
    for hidden in secrets.iter().chain(&payloads) {
        let found = outputs.find(hidden.as_str());
        let around = found.map(|at| &outputs[at.saturating_sub(200)..(at + 60).min(outputs.len())]);
        assert_eq!(around, None, "{hidden} shows");
    }
}
