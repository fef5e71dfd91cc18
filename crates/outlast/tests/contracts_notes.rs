//! What a client tells Outlast, and what it is told beside its reply.

mod common;

use common::{Act, Ask, Rig, Upstream, model, rig, says};
use outlast_model::record::WorkflowState;
use serde_json::json;

fn on(a: &Upstream, route: &str, more: &str) -> String {
    rig::two(&a.url(), &a.url()).replace("[routes.main]", &format!("[routes.main]\n{route}")) + more
}

#[tokio::test]
async fn a_mistake_in_the_outlast_object_is_a_400_that_names_it() {
    let a = model(|_| says("fine")).await;
    let rig = Rig::start(&on(&a, "", "")).await;
    for (object, named) in [
        (json!({ "budget": 1 }), "budget"),
        (json!({ "state": { "setp": "x" } }), "setp"),
        (json!({ "state": { "retry_count": -1 } }), "retry_count"),
        (json!({ "sources": [{ "no_id": 1 }] }), "sources"),
        (json!([1]), "outlast"),
    ] {
        for ask in [Ask::chat("main", "hi"), Ask::message("main", "hi")] {
            let reply = rig.ask(ask.with("outlast", object.clone())).await;
            assert_eq!(reply.status(), 400, "{object}");
            assert!(reply.json()["error"]["message"].as_str().unwrap().contains(named), "{}", reply.text());
        }
    }
    assert!(a.seen().is_empty());
}

#[tokio::test]
async fn state_that_a_contract_keeps_is_demanded_recorded_and_given_back() {
    let a = model(|_| says("fine")).await;
    let more = "[contracts.flow]\nkeeps = [\"step\", \"retry_count\", \"budget_used_usd\"]\n\
                [targets.\"a/m\"]\nprice = { input = 100.0, output = 200.0 }\n";
    let rig = Rig::start(&on(&a, "contract = \"flow\"", more)).await;
    let missing = rig.ask(Ask::chat("main", "hi").header("x-outlast-step", "draft")).await;
    let message = missing.json()["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(missing.status(), 400);
    assert!(message.contains("outlast.state.retry_count") && !message.contains("outlast.state.step"), "{message}");
    let state = json!({ "step": "draft", "retry_count": 2, "budget_used_usd": 0.5 });
    let ask = Ask::chat("main", "hi").with("outlast", json!({ "state": state }));
    let reply = rig.ask(ask.header("x-outlast-trace", "full")).await;
    reply.assert_answered();
    // 10 tokens in at $100 a million and 5 out at $200.
    assert_eq!(
        reply.json()["outlast"]["state"],
        json!({ "step": "draft", "retry_count": 2, "budget_used_usd": 0.502 })
    );
    let record = rig.record(reply.request_id()).await;
    assert_eq!(record.workflow_step.as_deref(), Some("draft"));
    assert!(matches!(record.state, Some(WorkflowState { retry_count: Some(2), .. })));
    assert!(a.seen()[0].json().get("outlast").is_none());
}

#[tokio::test]
async fn an_error_names_the_routes_own_next_step_and_the_sdks_still_read_it() {
    let down = model(|_| Act::Fails(503)).await;
    let more = "[backstops.desk]\nkind = \"fail\"\nnext = \"Call the desk about {{ request.model }}.\"\n";
    let rig = Rig::start(&on(&down, "backstops = [\"desk\"]", more)).await;
    let reply = rig.ask(Ask::chat("main", "hi")).await;
    let error = reply.json()["error"].clone();
    assert!(error["message"].as_str().unwrap().ends_with("Call the desk about main."), "{error}");
    assert_eq!((&error["code"], reply.json().as_object().unwrap().len()), (&json!("overloaded"), 1));
    let traced = rig.ask(Ask::message("main", "hi").header("x-outlast-trace", "full")).await;
    assert_eq!(traced.json()["type"], "error");
    assert_eq!(traced.json()["outlast"]["next"], "Call the desk about main.", "{}", traced.text());
}

#[tokio::test]
async fn why_the_tier_was_chosen_is_on_record() {
    let a = model(|_| says("fine")).await;
    let route = "tier = \"critical\"\nrisk = \"a wrong answer is worse than none\"";
    let rig = Rig::start(&on(&a, route, "")).await;
    let reply = rig.ask(Ask::chat("main", "hi")).await;
    let record = rig.record(reply.request_id()).await;
    assert_eq!(record.tier.as_deref(), Some("critical"));
    assert_eq!(record.risk.as_deref(), Some("a wrong answer is worse than none"));
}

#[tokio::test]
async fn a_full_reply_on_a_contract_with_gates_is_byte_for_byte_the_targets() {
    let a = model(|_| says("A fine answer.")).await;
    let rig = Rig::start(&on(&a, "contract = \"fine\"", "[contracts.fine]\nmust_include = [\"fine\"]\n")).await;
    let reply = rig.ask(Ask::chat("main", "hi")).await;
    assert_eq!(reply.text(), common::upstream::completion("A fine answer.").to_string());
}
