//! A server that is killed, at the worst moments: nothing that was acknowledged is lost, nothing is done twice.

mod common;

use common::{
    Server,
    runs::{Api, config},
};
use serde_json::json;

const STORE: &str = "[store]\nfile = \"store.db\"\ndata_key = \"${DATA_KEY}\"\n";

#[tokio::test]
async fn a_kill_between_begin_and_end_loses_nothing_and_the_claim_goes_on() {
    let server = Server::start(&config(STORE)).await;
    let api = Api::at(server.address);
    let id = api.start(json!({ "id": "r", "workflow": "w", "input": { "n": 1 } })).await;
    let claim = api.claim("w-1", json!({ "lease_s": 600 })).await.unwrap();
    claim.step("one", json!({ "total": 20.10 })).await;
    claim.execute("two", json!({ "class": "once", "lease_s": 600 })).await;

    let server = server.kill_and_restart(&config(STORE)).await;
    let api = Api::at(server.address);
    let again = api.post("/v1/runs", json!({ "id": "r", "workflow": "w", "input": { "n": 1 } })).await;
    assert_eq!(again.status(), 200, "{}", again.text());
    let claim = claim.at(&api);
    assert_eq!(claim.heartbeat(600.0).await.json(), json!({ "lease": "held" }), "the server has no memory of its own");
    // Its acknowledgement may have been lost: the same begin, the same attempt.
    assert_eq!(claim.execute("two", json!({ "class": "once", "lease_s": 600 })).await, 1);
    assert_eq!(claim.end("two", json!({ "attempt": 1, "ok": "sent" })).await.json(), json!({ "step": "done" }));

    let server = server.kill_and_restart(&config(STORE)).await;
    let api = Api::at(server.address);
    let claim = claim.at(&api);
    assert_eq!(claim.begin("one", json!({})).await.json()["ok"], json!({ "total": 20.10 }));
    assert_eq!(claim.begin("two", json!({ "class": "once" })).await.json()["ok"], "sent");
    claim.post("finish", json!({ "ok": "all" })).await;
    let server = server.kill_and_restart(&config(STORE)).await;
    let result = Api::at(server.address).get(&format!("/v1/runs/{id}/result")).await.json();
    assert_eq!(result, json!({ "state": "done", "output": "all" }));
}

#[tokio::test]
async fn signals_timers_and_waits_outlive_the_server() {
    let server = Server::start(&config(STORE)).await;
    let api = Api::at(server.address);
    let id = api.start(json!({ "workflow": "w" })).await;
    let claim = api.claim("w-1", json!({})).await.unwrap();
    assert_eq!(claim.post("wait", json!({ "key": "k", "signals": ["go"] })).await.json()["do"], "parked");
    let server = server.kill_and_restart(&config(STORE)).await;
    let api = Api::at(server.address);
    assert!(api.claim("w-2", json!({})).await.is_none());
    let signal = json!({ "name": "go", "id": "1", "payload": [1, 2] });
    assert_eq!(api.post(&format!("/v1/runs/{id}/signals"), signal.clone()).await.json(), json!({ "first": true }));
    let server = server.kill_and_restart(&config(STORE)).await;
    let api = Api::at(server.address);
    assert_eq!(api.post(&format!("/v1/runs/{id}/signals"), signal).await.json(), json!({ "first": false }));
    let claim = api.claim("w-2", json!({})).await.expect("it is awake");
    let waited = claim.post("wait", json!({ "key": "k", "signals": ["go"] })).await.json();
    assert_eq!(waited, json!({ "do": "go", "signal": { "name": "go", "payload": [1, 2] } }));
}
