//! Reviewers, and what waits for them.

use super::{
    Ask, Reply, Rig,
    rig::env,
    runs::{Api, config},
};
use serde_json::{Value, json};

/// A config with two reviewers and a store in a file.
pub(crate) fn reviewed(more: &str) -> String {
    config(
        "[store]\nfile = \"store.db\"\nplaintext_payloads = true\n[reviewers.anna]\nkey = \"${ANNA_KEY}\"\nemail = \"anna@example.com\"\n[reviewers.bob]\nkey = \"${BOB_KEY}\"\n",
    ) + more
}

/// What a reviewer of this key is shown.
pub(crate) async fn seen_by(rig: &Rig, key: &str, id: &str) -> Value {
    let reply = rig.ask(Ask::get(&format!("/v1/escalations/{id}")).bearer(&env(key).unwrap())).await;
    assert_eq!(reply.status(), 200, "{}", reply.text());
    reply.json()
}

/// Decides with a reviewer's key, about what is waiting unless `said` names another `shown`.
pub(crate) async fn decide(rig: &Rig, key: &str, id: &str, said: Value) -> Reply {
    let mut body = json!({ "shown": seen_by(rig, key, id).await["shown"] });
    body.as_object_mut().unwrap().extend(said.as_object().cloned().unwrap_or_default());
    let ask = Ask::post(&format!("/v1/escalations/{id}/decide"), body.to_string());
    rig.ask(ask.bearer(&env(key).unwrap())).await
}

/// Starts a run, claims it and begins a step that comes to wait for an approval: the run and the escalation.
pub(crate) async fn waits_for_approval(rig: &Rig, input: Value) -> (String, String) {
    let api = Api::of(rig);
    let run = api.start(json!({ "workflow": "refund" })).await;
    let claim = api.claim("worker", json!({})).await.expect("the run");
    let body = json!({ "class": "once", "input": input, "needs_approval": true, "question": "Refund it?" });
    let parked = claim.begin("refund", body).await.json();
    assert_eq!((&parked["do"], &parked["why"]), (&json!("parked"), &json!("approval")), "{parked}");
    (run, parked["escalation"]["id"].as_str().expect("an escalation").to_owned())
}
