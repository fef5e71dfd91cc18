//! Tools that a worker does: a run that is started once, and whose end is the result.

mod common;

use common::{
    Ask, Reply,
    downstream::{RETRY, rig},
    guarded,
};
use serde_json::{Value, json};
use std::net::SocketAddr;

const TOOL: &str = "[tools.ship]\nkind = \"worker\"\nqueue = \"tools\"\neffect = \"once\"\n";

fn call(key: &str) -> Ask {
    Ask::post("/v1/tools/ship", r#"{"order": "o-1"}"#).header("idempotency-key", key)
}

/// What a worker in any language sends.
async fn post(address: SocketAddr, path: &str, body: &Value) -> Reply {
    Ask::post(path, body.to_string()).send(address).await
}

async fn claim(address: SocketAddr) -> Value {
    let claim = json!({ "worker": "w1", "queues": ["tools"], "accepts": { "tool:ship": [] }, "wait_s": 20 });
    let claimed = post(address, "/v1/claim", &claim).await;
    assert_eq!(claimed.status(), 200, "{}", claimed.text());
    claimed.json()
}

async fn finish(address: SocketAddr, claimed: &Value, end: Value) {
    let mut end = end;
    end["epoch"] = claimed["epoch"].clone();
    let path = format!("/v1/runs/{}/finish", claimed["run"]["id"].as_str().unwrap());
    let finished = post(address, &path, &end).await;
    assert_eq!(finished.status(), 200, "{}", finished.text());
}

#[tokio::test]
async fn a_worker_claims_the_call_as_a_run_and_its_end_is_the_result() {
    let rig = rig(&format!("{TOOL}{RETRY}\n")).await;
    let address = rig.address();
    let calling = tokio::spawn(async move { call("k").send(address).await });
    let claimed = claim(address).await;
    assert_eq!((&claimed["run"]["workflow"], &claimed["input"]), (&json!("tool:ship"), &json!({ "order": "o-1" })));
    assert!(claimed["run"]["id"].as_str().unwrap().starts_with("ol-"), "its id is the effect's key");
    finish(address, &claimed, json!({ "ok": { "parcel": 7 } })).await;
    let reply = guarded("the call", calling).await.unwrap();
    assert_eq!((reply.status(), reply.json()), (200, json!({ "parcel": 7 })), "{}", reply.text());
    assert_eq!(rig.ask(call("k")).await.header("x-outlast-replayed"), Some("true"));

    let failing = tokio::spawn(async move { call("k2").send(address).await });
    finish(address, &claim(address).await, json!({ "error": { "message": "no such parcel" } })).await;
    let failed = guarded("the call", failing).await.unwrap();
    assert_eq!((failed.status(), failed.json()["error"]["code"].clone()), (502, json!("tool_failed")));
    assert_eq!(failed.json()["error"]["message"], "no such parcel");
}

#[tokio::test]
async fn a_call_that_no_worker_ends_in_time_is_found_again_and_not_started_twice() {
    let rig = rig(&format!("{TOOL}timeout = \"300ms\"\n{RETRY}\n")).await;
    let address = rig.address();
    let late = rig.ask(call("k").header("x-outlast-deadline-ms", "1")).await;
    assert_eq!((late.status(), late.json()["error"]["code"].clone()), (409, json!("step_not_yet")), "{}", late.text());
    let claimed = claim(address).await;
    finish(address, &claimed, json!({ "ok": "shipped" })).await;
    let found = rig.ask(call("k")).await;
    assert_eq!((found.status(), found.json()), (200, json!("shipped")), "{}", found.text());
    let runs = rig.ask(Ask::get("/v1/runs?queue=tools")).await.json();
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(1), "{runs}");
}

#[tokio::test]
async fn a_call_that_no_worker_ends_at_all_goes_to_a_person() {
    let rig = rig(&format!("{TOOL}timeout = \"100ms\"\n{RETRY}\n")).await;
    let reply = rig.ask(call("k")).await;
    assert_eq!((reply.status(), reply.json()["parked"].clone()), (202, json!("unknown_effect")), "{}", reply.text());
}
