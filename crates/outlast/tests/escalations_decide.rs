//! Deciding: what each choice does to the work that waits, and that there is one decision only, about what was shown.

mod common;

use common::{
    Ask, Rig,
    people::{decide, reviewed, seen_by, waits_for_approval},
    plan,
    rig::{env, fake, provider},
    runs::{Api, Claim, refused},
};
use serde_json::{Value, json};

async fn claimed(rig: &Rig) -> Claim {
    Api::of(rig).claim("another", json!({})).await.expect("the run goes on")
}

async fn state(rig: &Rig, run: &str) -> Value {
    Api::of(rig).get(&format!("/v1/runs/{run}")).await.json()["state"].clone()
}

/// A run at a step that ended so, and waits: the run and the escalation.
async fn parked(rig: &Rig, begin: Value, end: Value) -> (String, String) {
    let api = Api::of(rig);
    let run = api.start(json!({ "workflow": "w" })).await;
    let claim = api.claim("worker", json!({})).await.expect("the run");
    let attempt = claim.execute("step", begin).await;
    let mut body = end;
    body["attempt"] = json!(attempt);
    let told = claim.end("step", body).await.json();
    assert_eq!(told["step"], "parked", "{told}");
    (run, told["escalation"]["id"].as_str().expect("an escalation").to_owned())
}

async fn unknown(rig: &Rig) -> (String, String) {
    parked(rig, json!({ "class": "once", "input": { "to": "a" } }), json!({ "unknown": { "message": "reset" } })).await
}

async fn doubtful(rig: &Rig) -> (String, String) {
    let review = json!({ "review": { "why": "low_confidence", "output": { "label": "maybe" } } });
    parked(rig, json!({ "input": 1 }), review).await
}

async fn exhausted(rig: &Rig) -> (String, String) {
    let begin = json!({ "input": 1, "retry": { "attempts": 1 } });
    parked(rig, begin, json!({ "error": { "message": "down" } })).await
}

async fn fine(rig: &Rig, id: &str, said: Value) -> Value {
    let reply = decide(rig, "ANNA_KEY", id, said).await;
    assert_eq!(reply.status(), 200, "{}", reply.text());
    reply.json()
}

#[tokio::test]
async fn an_approved_step_is_done_and_the_worker_is_told_what_was_decided() {
    let rig = Rig::start(&reviewed("")).await;
    let (run, id) = waits_for_approval(&rig, json!({ "amount": 500 })).await;
    assert_eq!(state(&rig, &run).await, "parked");
    let shown = seen_by(&rig, "ANNA_KEY", &id).await;
    assert_eq!((&shown["question"], &shown["kind"]), (&json!("Refund it?"), &json!("approval")), "{shown}");
    assert_eq!(shown["choices"], json!(["approve", "edit", "deny", "skip", "cancel"]));
    assert_eq!(shown["lineage"]["effect"]["input"], json!({ "amount": 500 }), "{shown}");
    assert_eq!(shown["lineage"]["run"]["id"], json!(run));
    let decided = fine(&rig, &id, json!({ "verb": "approve", "note": "It is owed." })).await;
    assert_eq!((&decided["state"], &decided["decision"]["by"]), (&json!("decided"), &json!("anna")), "{decided}");
    let begin = json!({ "class": "once", "input": { "amount": 500 }, "needs_approval": true });
    let told = claimed(&rig).await.begin("refund", begin).await.json();
    assert_eq!((&told["do"], &told["attempt"]), (&json!("execute"), &json!(1)), "{told}");
    assert_eq!(told["decision"], json!({ "verb": "approve", "note": "It is owed." }));
}

#[tokio::test]
async fn an_edited_approval_is_done_with_other_arguments_and_a_denied_one_is_not_done() {
    let rig = Rig::start(&reviewed("")).await;
    let begin = json!({ "class": "once", "input": { "amount": 500 }, "needs_approval": true });
    let (_, id) = waits_for_approval(&rig, json!({ "amount": 500 })).await;
    fine(&rig, &id, json!({ "verb": "edit", "arguments": { "amount": 50 } })).await;
    let claim = claimed(&rig).await;
    let told = claim.begin("refund", begin.clone()).await.json();
    assert_eq!(told["decision"]["arguments"], json!({ "amount": 50 }), "{told}");
    claim.end("refund", json!({ "attempt": told["attempt"], "ok": 50 })).await;
    claim.post("finish", json!({ "ok": null })).await;

    let (run, id) = waits_for_approval(&rig, json!({ "amount": 500 })).await;
    fine(&rig, &id, json!({ "verb": "deny" })).await;
    let told = claimed(&rig).await.begin("refund", begin).await.json();
    assert_eq!((&told["do"], &told["error"]["code"]), (&json!("replay"), &json!("denied")), "{told}");
    assert_eq!(state(&rig, &run).await, "running");
}

#[tokio::test]
async fn a_cancelled_approval_ends_its_run_and_a_skipped_one_goes_on_without_it() {
    let rig = Rig::start(&reviewed("")).await;
    let (run, id) = waits_for_approval(&rig, json!(1)).await;
    fine(&rig, &id, json!({ "verb": "cancel" })).await;
    assert_eq!(state(&rig, &run).await, "cancelled");
    let (_, id) = waits_for_approval(&rig, json!(1)).await;
    fine(&rig, &id, json!({ "verb": "skip" })).await;
    let told =
        claimed(&rig).await.begin("refund", json!({ "class": "once", "input": 1, "needs_approval": true })).await;
    assert_eq!(told.json(), json!({ "do": "replay", "ok": null, "diverged": false }));
}

#[tokio::test]
async fn an_effect_that_happened_has_the_result_it_is_given_and_one_that_did_not_is_tried_again() {
    let rig = Rig::start(&reviewed("")).await;
    let begin = || json!({ "class": "once", "input": { "to": "a" } });
    let (_, id) = unknown(&rig).await;
    assert_eq!(refused(&decide(&rig, "ANNA_KEY", &id, json!({ "verb": "happened" })).await).0, 400);
    fine(&rig, &id, json!({ "verb": "happened", "result": { "message_id": "m-1" } })).await;
    let claim = claimed(&rig).await;
    let told = claim.begin("step", begin()).await.json();
    assert_eq!(told, json!({ "do": "replay", "ok": { "message_id": "m-1" }, "diverged": false }));
    claim.post("finish", json!({ "ok": null })).await;

    let (_, id) = unknown(&rig).await;
    fine(&rig, &id, json!({ "verb": "did_not" })).await;
    let told = claimed(&rig).await.begin("step", begin()).await.json();
    assert_eq!((&told["do"], &told["attempt"]), (&json!("execute"), &json!(2)), "{told}");
}

#[tokio::test]
async fn a_doubtful_answer_stands_as_it_is_or_as_it_was_edited_or_is_asked_for_again() {
    let rig = Rig::start(&reviewed("")).await;
    for (said, expected) in [
        (json!({ "verb": "approve" }), json!({ "do": "replay", "ok": { "label": "maybe" }, "diverged": false })),
        (
            json!({ "verb": "edit", "output": { "label": "yes" } }),
            json!({ "do": "replay", "ok": { "label": "yes" }, "diverged": false }),
        ),
    ] {
        let (_, id) = doubtful(&rig).await;
        assert_eq!(seen_by(&rig, "ANNA_KEY", &id).await["lineage"]["effect"]["output"]["label"], "maybe");
        fine(&rig, &id, said).await;
        let claim = claimed(&rig).await;
        assert_eq!(claim.begin("step", json!({ "input": 1 })).await.json(), expected);
        claim.post("finish", json!({ "ok": null })).await;
    }
    let (_, id) = doubtful(&rig).await;
    let nowhere = decide(&rig, "ANNA_KEY", &id, json!({ "verb": "choose", "target": "a/none" })).await;
    assert_eq!(nowhere.status(), 400, "{}", nowhere.text());
    fine(&rig, &id, json!({ "verb": "choose", "target": "a/m" })).await;
    let told = claimed(&rig).await.begin("step", json!({ "input": 1 })).await.json();
    assert_eq!((&told["do"], &told["decision"]["target"]), (&json!("execute"), &json!("a/m")), "{told}");
}

#[tokio::test]
async fn a_spent_budget_is_renewed_by_retry_and_a_poisonous_run_can_be_claimed_again() {
    let rig = Rig::start(&reviewed("")).await;
    let (_, id) = exhausted(&rig).await;
    fine(&rig, &id, json!({ "verb": "retry" })).await;
    let claim = claimed(&rig).await;
    assert_eq!(claim.execute("step", json!({ "input": 1, "retry": { "attempts": 1 } })).await, 2);
    claim.post("finish", json!({ "ok": null })).await;

    let api = Api::of(&rig);
    let run = api.start(json!({ "workflow": "w" })).await;
    while let Some(claim) = api.claim("worker", json!({})).await {
        claim.post("release", json!({})).await;
    }
    assert_eq!(state(&rig, &run).await, "quarantined");
    let list = Ask::get(&format!("/v1/escalations?kind=poison&run={run}")).bearer(&env("BOB_KEY").unwrap());
    let list = rig.ask(list).await.json();
    let id = list["escalations"][0]["id"].as_str().expect("one").to_owned();
    fine(&rig, &id, json!({ "verb": "retry" })).await;
    assert_eq!(claimed(&rig).await.id, run);
}

#[tokio::test]
async fn of_two_reviewers_at_once_one_decides_and_the_other_is_told_what() {
    let rig = Rig::start(&reviewed("")).await;
    let (_, id) = waits_for_approval(&rig, json!(1)).await;
    let (anna, bob) = tokio::join!(
        decide(&rig, "ANNA_KEY", &id, json!({ "verb": "approve" })),
        decide(&rig, "BOB_KEY", &id, json!({ "verb": "deny" })),
    );
    let (first, second, by) = if anna.status() == 200 { (anna, bob, "anna") } else { (bob, anna, "bob") };
    assert_eq!((first.status(), second.status()), (200, 409), "{}", second.text());
    assert_eq!(refused(&second), (409, "already_decided".to_owned()));
    assert_eq!(second.json()["decision"]["by"], by);
    let key = if by == "anna" { "ANNA_KEY" } else { "BOB_KEY" };
    let verb = first.json()["verb"].clone();
    assert_eq!(decide(&rig, key, &id, json!({ "verb": verb })).await.status(), 200, "said once more");
}

#[tokio::test]
async fn a_decision_is_refused_that_is_not_a_reviewers_or_not_offered_or_about_something_else() {
    let rig = Rig::start(&reviewed("[server]\nkeys = [\"${CALLER_ONE}\"]\nadmin_token = \"${ADMIN_TOKEN}\"\n")).await;
    let api = Api::of(&rig).with_key(&env("CALLER_ONE").unwrap());
    api.start(json!({ "workflow": "w" })).await;
    let claim = api.claim("worker", json!({})).await.expect("the run");
    let parked = claim.begin("s", json!({ "class": "once", "needs_approval": true })).await.json();
    let id = parked["escalation"]["id"].as_str().unwrap();
    let url = format!("/v1/escalations/{id}/decide");
    let shown = seen_by(&rig, "ANNA_KEY", id).await["shown"].clone();
    let body = json!({ "verb": "approve", "shown": shown }).to_string();
    for (key, status) in [("CALLER_ONE", 403), ("ADMIN_TOKEN", 403)] {
        assert_eq!(rig.ask(Ask::post(&url, body.clone()).bearer(&env(key).unwrap())).await.status(), status, "{key}");
    }
    assert_eq!(rig.ask(Ask::post(&url, body)).await.status(), 401);
    let stale = json!({ "verb": "approve", "shown": "00".repeat(32) });
    assert_eq!(refused(&decide(&rig, "ANNA_KEY", id, stale).await), (409, "changed".to_owned()));
    let guess = json!({ "verb": "happened", "result": 1 });
    assert_eq!(refused(&decide(&rig, "ANNA_KEY", id, guess).await), (422, "not_offered".to_owned()));
    let more = json!({ "verb": "approve", "output": 1 });
    assert_eq!(decide(&rig, "ANNA_KEY", id, more).await.status(), 400);
    let mine = api.get(&format!("/v1/escalations/{id}")).await.json();
    assert_eq!((&mine["state"], mine.get("context"), mine.get("shown")), (&json!("open"), None, None), "{mine}");
    assert_eq!(api.get("/v1/audit").await.status(), 401);
}

#[tokio::test]
async fn a_person_answers_a_request_and_its_client_gets_the_answer_in_its_dialect() {
    let a = fake("alpha").await;
    let config = provider("a", "openai-compatible", &a.url(), "")
        + "[routes.main]\ntargets = [\"a/m\"]\nbackstops = [\"person\"]\n"
        + "[backstops.person]\nkind = \"escalate\"\nquestion = \"What shall we say?\"\n"
        + "[store]\nfile = \"store.db\"\nplaintext_payloads = true\n"
        + "[reviewers.anna]\nkey = \"${ANNA_KEY}\"\n[server]\nkeys = [\"${CALLER_ONE}\"]\n";
    let rig = Rig::start(&config).await;
    a.set_fault("*", plan("503")).unwrap();
    let key = env("CALLER_ONE").unwrap();
    let deferred = rig.ask(Ask::chat("main", "where is it?").bearer(&key)).await.json();
    let id = deferred["outlast"]["escalation"]["id"].as_str().expect("an escalation").to_owned();
    fine(&rig, &id, json!({ "verb": "edit", "output": "It is in the post." })).await;
    let shown = rig.ask(Ask::get(&format!("/v1/escalations/{id}")).bearer(&key)).await.json();
    assert_eq!(shown["reply"]["choices"][0]["message"]["content"], "It is in the post.", "{shown}");
    let anthropic = Ask::get(&format!("/v1/escalations/{id}")).bearer(&key).header("anthropic-version", "2023-06-01");
    let shown = rig.ask(anthropic).await.json();
    assert_eq!(shown["reply"]["content"][0]["text"], "It is in the post.", "{shown}");
}

#[tokio::test]
async fn every_decision_stands_in_the_audit_log() {
    let rig = Rig::start(&reviewed("")).await;
    let (run, id) = waits_for_approval(&rig, json!({ "iban": "DE02" })).await;
    fine(&rig, &id, json!({ "verb": "deny", "note": "Not ours." })).await;
    let log = rig.ask(Ask::get(&format!("/v1/audit?subject={id}"))).await;
    let entry = &log.json()["entries"][0];
    assert_eq!((&entry["who"], &entry["what"]), (&json!("anna"), &json!("escalation.deny")), "{entry}");
    assert_eq!(entry["details"]["run"], json!(run));
    assert!(!log.text().contains("DE02") && !log.text().contains("Not ours"), "no payload: {}", log.text());
    let verified = rig.ask(Ask::get("/v1/audit/verify")).await.json();
    assert_eq!(
        (&verified["entries"], &verified["broken"], &verified["head"]),
        (&json!(1), &Value::Null, &entry["hash"])
    );
}
