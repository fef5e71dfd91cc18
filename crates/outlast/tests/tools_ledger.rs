//! Tools by HTTP: what each class of effect promises for each way in which a call can end.

mod common;

use common::{
    Ask, DONE, Does, Downstream, Reply, Rig,
    downstream::{around, nowhere, rig, tool},
    guarded, until,
};
use serde_json::json;
use std::{collections::HashMap, sync::Arc};
use tokio::sync::Notify;

fn call(name: &str, key: &str) -> Ask {
    Ask::post(&format!("/v1/tools/{name}"), r#"{"order": "o-1"}"#).header("idempotency-key", key)
}

fn hook(url: &str) -> String {
    format!("quiet_period = \"50ms\"\nverify = {{ url = \"{url}\", done = \"response.found\", result = \"response\" }}")
}

/// What a call came to in the end: its status, and how often the receiver saw it.
fn came_to(reply: &Reply, downstream: &Downstream, path: &str) -> (u16, usize) {
    let keys = downstream.keys(path);
    assert!(keys.len() <= 1, "{path}: one key for all attempts: {keys:?}");
    (reply.status(), keys.values().sum())
}

const CLASSES: [&str; 5] = ["pure", "tx", "keyed", "verify", "once"];

/// The table of `docs/tools.md`: a call whose first attempt ends so, and whose receiver is well afterwards and knows
/// nothing of it when it is asked.
#[tokio::test]
async fn every_class_meets_every_outcome_as_its_promise_says() {
    // Ends as, then for each class: the status of the call, and how often it was sent.
    let repeated = [(200, 2); 5];
    let refused = [(502, 1); 5];
    let unclear = [(200, 2), (200, 2), (200, 2), (200, 2), (202, 1)];
    let table = [
        ("well", DONE, [(200, 1); 5]),
        ("busy", Does::Says(503, "{}"), repeated),
        ("limited", Does::Says(429, "{}"), repeated),
        ("early", Does::Says(425, "{}"), repeated),
        ("denied", Does::Says(403, "{}"), refused),
        ("missing", Does::Says(404, "{}"), refused),
        ("moved", Does::Says(307, "{}"), refused),
        ("bad", Does::Says(422, r#"{"error": "no"}"#), refused),
        ("conflict", Does::Says(409, "{}"), [(502, 1), (200, 2), (200, 2), (502, 1), (502, 1)]),
        ("broken", Does::Says(500, "{}"), unclear),
        ("gone", Does::Says(502, "{}"), unclear),
        ("reset", Does::Breaks, unclear),
        ("silent", Does::Hangs, unclear),
        ("garbage", Does::Garbage, unclear),
    ];
    let mut scripts = HashMap::from([("/find".to_owned(), vec![Does::Says(200, r#"{"found": false}"#)])]);
    for (name, act, _) in &table {
        for class in CLASSES {
            scripts.insert(format!("/{class}/{name}"), vec![act.clone(), DONE]);
        }
    }
    let downstream = Downstream::acting(scripts).await;
    let mut toml = String::new();
    for (name, _, _) in &table {
        for class in CLASSES {
            let verify = if class == "verify" { hook(&downstream.url("/find")) } else { String::new() };
            let url = downstream.url(&format!("/{class}/{name}"));
            toml += &tool(&format!("{class}_{name}"), &url, class, &format!("timeout = \"300ms\"\n{verify}"));
        }
    }
    let rig = rig(&toml).await;
    for (name, _, expected) in table {
        for (class, expected) in CLASSES.into_iter().zip(expected) {
            let (tool, path) = (format!("{class}_{name}"), format!("/{class}/{name}"));
            let reply = rig.ask(call(&tool, "k")).await;
            assert_eq!(came_to(&reply, &downstream, &path), expected, "{tool}: {}", reply.text());
            // The same again is the same again, and nothing is sent.
            let again = rig.ask(call(&tool, "k")).await;
            assert_eq!(came_to(&again, &downstream, &path), expected, "{tool}, again: {}", again.text());
            if reply.status() != 202 {
                assert_eq!(again.header("x-outlast-replayed"), Some("true"), "{tool}: {}", again.text());
                let other = Ask::post(&format!("/v1/tools/{tool}"), r#"{"order": "o-2"}"#);
                let other = rig.ask(other.header("idempotency-key", "k")).await;
                // A pure call in other words is answered as it was, an effect's key stands for one thing.
                assert_eq!(other.status(), if class == "pure" { reply.status() } else { 422 }, "{tool}");
            } else {
                assert_eq!(reply.json()["parked"], "unknown_effect");
                assert_eq!(again.json()["escalation"], reply.json()["escalation"]);
            }
        }
    }
}

#[tokio::test]
async fn a_receiver_is_told_the_same_key_and_which_attempt_it_is_and_redirects_are_not_followed() {
    let downstream = Downstream::start([("/pay", vec![Does::Says(503, "{}"), DONE])]).await;
    let rig = rig(&tool("pay", &downstream.url("/pay"), "keyed", "headers = { x-shop = \"7\" }")).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let reply = rig.ask(call("pay", "k").header("traceparent", trace)).await;
    assert_eq!((reply.status(), reply.json()), (200, json!({ "ok": true })), "{}", reply.text());
    assert_eq!((reply.header("x-outlast-tool"), reply.header("x-outlast-attempts")), (Some("pay"), Some("2")));
    let seen = downstream.seen("/pay");
    assert_eq!(seen[0].json(), json!({ "order": "o-1" }));
    assert_eq!(seen[0].header("x-shop"), Some("7"));
    assert_eq!(seen[0].header("traceparent"), Some(trace));
    let key = seen[0].header("idempotency-key").unwrap();
    assert!(key.starts_with("ol-") && key.len() == 35, "{key}");
    assert_eq!(seen[1].header("idempotency-key"), Some(key));
    let attempts: Vec<_> = seen.iter().map(|request| request.header("x-outlast-attempt").unwrap()).collect();
    assert_eq!(attempts, ["1", "2"]);
    let epochs: Vec<i64> =
        seen.iter().map(|request| request.header("x-outlast-epoch").unwrap().parse().unwrap()).collect();
    assert!(epochs[0] < epochs[1], "{epochs:?}: a later claim is fenced by a higher number");
}

#[tokio::test]
async fn what_took_place_is_found_by_asking_and_is_not_sent_again() {
    let found = Does::Says(200, r#"{"found": true, "id": "re_1"}"#);
    let downstream = Downstream::start([("/pay", vec![Does::Breaks, DONE]), ("/find", vec![found])]).await;
    let toml = tool("pay", &downstream.url("/pay"), "verify", &hook(&downstream.url("/find")));
    let rig = rig(&toml).await;
    let reply = rig.ask(call("pay", "k")).await;
    assert_eq!((reply.status(), reply.json()["id"].clone()), (200, json!("re_1")), "{}", reply.text());
    assert_eq!(downstream.seen("/pay").len(), 1);
    let asked = &downstream.seen("/find")[0];
    let key = downstream.keys("/pay").into_keys().next().unwrap();
    assert_eq!(asked.json(), json!({ "key": key, "arguments": { "order": "o-1" } }));
}

#[tokio::test]
async fn an_effect_that_nobody_can_tell_of_is_parked_after_three_questions() {
    let downstream = Downstream::start([("/pay", vec![Does::Breaks]), ("/find", vec![Does::Says(500, "{}")])]).await;
    let rig = rig(&tool("pay", &downstream.url("/pay"), "verify", &hook(&downstream.url("/find")))).await;
    let reply = rig.ask(call("pay", "k")).await;
    assert_eq!((reply.status(), reply.json()["parked"].clone()), (202, json!("unknown_effect")), "{}", reply.text());
    assert_eq!((downstream.seen("/pay").len(), downstream.seen("/find").len()), (1, 3));
    let escalation = reply.json()["escalation"]["id"].as_str().unwrap().to_owned();
    let shown = rig.ask(Ask::get(&format!("/v1/escalations/{escalation}"))).await;
    assert_eq!(shown.status(), 200, "{}", shown.text());
    assert!(shown.text().contains("o-1"), "the person sees what was asked: {}", shown.text());
}

#[tokio::test]
async fn an_effect_of_unknown_outcome_is_looked_into_when_nobody_asks_for_it_any_more() {
    let found = Does::Says(200, r#"{"found": true}"#);
    let downstream = Downstream::start([("/pay", vec![Does::Breaks]), ("/find", vec![found])]).await;
    let rig = rig(&tool("pay", &downstream.url("/pay"), "verify", &hook(&downstream.url("/find")))).await;
    let reply = rig.ask(call("pay", "k").header("x-outlast-deadline-ms", "1")).await;
    assert_eq!((reply.status(), reply.json()["error"]["code"].clone()), (409, json!("step_not_yet")));
    assert!(reply.header("retry-after").is_some());
    until("the receiver to be asked", || !downstream.seen("/find").is_empty()).await;
    let verified = r#"outlast_tool_verified_total{tool="pay",outcome="done"} 1"#;
    until("the answer to be written down", || rig.metrics().contains(verified)).await;
    let again = rig.ask(call("pay", "k")).await;
    assert_eq!((again.status(), again.header("x-outlast-replayed")), (200, Some("true")), "{}", again.text());
    assert_eq!((downstream.seen("/pay").len(), downstream.seen("/find").len()), (1, 1));
}

#[tokio::test]
async fn what_cannot_be_reached_was_not_sent_and_goes_to_a_person_or_fails_as_its_budget_says() {
    let url = nowhere().await;
    let retry = |exhausted: &str| {
        format!(r#"retry = {{ attempts = 2, base = "10ms", cap = "20ms", exhausted = "{exhausted}" }}"#)
    };
    let toml = tool("asks", &url, "once", &retry("escalate")) + &tool("fails", &url, "once", &retry("fail"));
    let rig = rig(&toml).await;
    let asked = rig.ask(call("asks", "k")).await;
    assert_eq!((asked.status(), asked.json()["parked"].clone()), (202, json!("exhausted")), "{}", asked.text());
    let failed = rig.ask(call("fails", "k")).await;
    assert_eq!((failed.status(), failed.json()["error"]["code"].clone()), (502, json!("tool_failed")));
    assert_eq!(failed.json()["error"]["tool_error"]["code"], "unreachable");
    let again = rig.ask(call("fails", "k")).await;
    assert_eq!((again.status(), again.header("x-outlast-replayed")), (502, Some("true")));
}

#[tokio::test]
async fn that_a_later_attempt_was_refused_does_not_prove_that_an_earlier_one_did_nothing() {
    let acts = vec![Does::Breaks, Does::Says(403, "{}")];
    let downstream = Downstream::start([("/pay", acts)]).await;
    let rig = rig(&tool("pay", &downstream.url("/pay"), "keyed", "")).await;
    let reply = rig.ask(call("pay", "k")).await;
    assert_eq!((reply.status(), reply.json()["parked"].clone()), (202, json!("unknown_effect")), "{}", reply.text());
    assert_eq!(downstream.seen("/pay").len(), 3, "it was tried as often as its budget allows");
}

#[tokio::test]
async fn while_one_is_at_it_others_wait_and_a_caller_that_leaves_cancels_nothing() {
    let go = Arc::new(Notify::new());
    let downstream = Downstream::start([("/pay", vec![Does::Awaits(go.clone())])]).await;
    let rig = rig(&tool("pay", &downstream.url("/pay"), "once", "")).await;
    let address = rig.address();
    let first = tokio::spawn(async move { call("pay", "k").try_send(address).await });
    until("the first to be sent", || downstream.seen("/pay").len() == 1).await;
    let second = rig.ask(call("pay", "k")).await;
    assert_eq!((second.status(), second.json()["error"]["code"].clone()), (409, json!("idempotency_key_in_flight")));
    assert!(second.header("retry-after").is_some());
    first.abort();
    let _ = first.await;
    go.notify_one();
    let reply = guarded("the outcome to be written down", async {
        loop {
            let reply = rig.ask(call("pay", "k")).await;
            if reply.status() != 409 {
                return reply;
            }
        }
    });
    let reply = reply.await;
    assert_eq!((reply.status(), reply.header("x-outlast-replayed")), (200, Some("true")), "{}", reply.text());
    assert_eq!(downstream.seen("/pay").len(), 1);
}

#[tokio::test]
async fn a_stopping_server_writes_down_what_its_callers_left_behind() {
    let go = Arc::new(Notify::new());
    let downstream = Downstream::start([("/pay", vec![Does::Awaits(go.clone())])]).await;
    let toml = around(&tool("pay", &downstream.url("/pay"), "once", ""));
    let rig = Rig::start(&toml).await;
    let address = rig.address();
    let first = tokio::spawn(async move { call("pay", "k").try_send(address).await });
    until("it to be sent", || downstream.seen("/pay").len() == 1).await;
    first.abort();
    let _ = first.await;
    let restarting = tokio::spawn(async move { rig.restart(&toml).await });
    go.notify_one();
    let rig = guarded("the restart", restarting).await.unwrap();
    let reply = rig.ask(call("pay", "k")).await;
    assert_eq!((reply.status(), reply.header("x-outlast-replayed")), (200, Some("true")), "{}", reply.text());
    assert_eq!(downstream.seen("/pay").len(), 1);
}
