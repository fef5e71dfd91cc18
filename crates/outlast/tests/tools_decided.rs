//! What a person decides about a tool's call is what becomes of it.

mod common;

use common::{
    Ask, DONE, Does, Downstream, Reply, Rig,
    downstream::{nowhere, rig, tool},
};
use serde_json::{Value, json};

const KEY: &str = "reviewer-key-0123456789";

fn reviewer() -> String {
    format!("[reviewers.anna]\nkey = \"blake3:{}\"\n", blake3::hash(KEY.as_bytes()).to_hex())
}

fn call(name: &str, key: &str) -> Ask {
    Ask::post(&format!("/v1/tools/{name}"), r#"{"amount": 200}"#).header("idempotency-key", key)
}

/// Decides about the escalation that a parked call named.
async fn decide(rig: &Rig, parked: &Reply, mut decision: Value) -> Reply {
    assert_eq!(parked.status(), 202, "{}", parked.text());
    let url = parked.json()["escalation"]["url"].as_str().unwrap().to_owned();
    decision["shown"] = rig.ask(Ask::get(&url).bearer(KEY)).await.json()["shown"].clone();
    let decided = rig.ask(Ask::post(&format!("{url}/decide"), decision.to_string()).bearer(KEY)).await;
    assert_eq!(decided.status(), 200, "{}", decided.text());
    decided
}

#[tokio::test]
async fn an_approved_call_is_made_as_it_was_asked_or_as_the_person_changed_it_and_a_denied_one_is_not() {
    let downstream = Downstream::start([("/pay", vec![DONE])]).await;
    let toml = tool("pay", &downstream.url("/pay"), "once", "approval = \"always\"") + &reviewer();
    let rig = rig(&toml).await;
    decide(&rig, &rig.ask(call("pay", "as-is")).await, json!({ "verb": "approve" })).await;
    let approved = rig.ask(call("pay", "as-is")).await;
    assert_eq!((approved.status(), approved.header("x-outlast-replayed")), (200, None), "{}", approved.text());
    let edit = json!({ "verb": "edit", "arguments": { "amount": 90 } });
    decide(&rig, &rig.ask(call("pay", "changed")).await, edit).await;
    assert_eq!(rig.ask(call("pay", "changed")).await.status(), 200);
    decide(&rig, &rig.ask(call("pay", "denied")).await, json!({ "verb": "deny" })).await;
    let denied = rig.ask(call("pay", "denied")).await;
    assert_eq!((denied.status(), denied.header("x-outlast-replayed")), (502, Some("true")), "{}", denied.text());
    let sent: Vec<Value> = downstream.seen("/pay").iter().map(|request| request.json()["amount"].clone()).collect();
    assert_eq!(sent, [200, 90]);
}

#[tokio::test]
async fn what_a_person_knows_of_an_unknown_effect_is_its_end_or_lets_it_be_done() {
    let acts = vec![Does::Breaks, Does::Breaks, DONE];
    let downstream = Downstream::start([("/pay", acts)]).await;
    let rig = rig(&(tool("pay", &downstream.url("/pay"), "once", "") + &reviewer())).await;
    let happened = json!({ "verb": "happened", "result": { "id": "re_1" } });
    decide(&rig, &rig.ask(call("pay", "happened")).await, happened).await;
    let known = rig.ask(call("pay", "happened")).await;
    assert_eq!((known.status(), known.json()), (200, json!({ "id": "re_1" })), "{}", known.text());
    assert_eq!(known.header("x-outlast-replayed"), Some("true"));
    decide(&rig, &rig.ask(call("pay", "did-not")).await, json!({ "verb": "did_not" })).await;
    let done = rig.ask(call("pay", "did-not")).await;
    assert_eq!((done.status(), done.json()), (200, json!({ "ok": true })), "{}", done.text());
    assert_eq!(downstream.seen("/pay").len(), 3);
}

#[tokio::test]
async fn a_person_may_name_another_tool_for_what_could_not_be_done() {
    let downstream = Downstream::start([("/b", vec![Does::Says(503, "{}"), DONE])]).await;
    let toml = tool("a", &nowhere().await, "keyed", "") + &tool("b", &downstream.url("/b"), "keyed", "") + &reviewer();
    let rig = rig(&toml).await;
    decide(&rig, &rig.ask(call("a", "k")).await, json!({ "verb": "choose", "tool": "b" })).await;
    let done = rig.ask(call("a", "k")).await;
    assert_eq!((done.status(), done.header("x-outlast-tool")), (200, Some("b")), "{}", done.text());
    assert_eq!(downstream.keys("/b").len(), 1, "it stays with the tool that was named");
}
