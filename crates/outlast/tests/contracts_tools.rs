//! What becomes of tools where a target cannot have them: plans, look-ups, nothing; and never a claim that is not true.

mod common;

use common::{Act, Ask, Reply, Rig, Upstream, model, rig, says};
use outlast_model::{
    Gate,
    policy::ToolMode,
    record::{GaveUp, Outcome},
};
use serde_json::{Value, json};

/// A primary that is down and can call tools, and a second target that answers as given.
async fn degraded(contract: &str, abilities: &str, b: &Upstream) -> (Upstream, Rig) {
    let a = model(|_| Act::Fails(503)).await;
    let config = rig::two(&a.url(), &b.url()).replace("[routes.main]", "[routes.main]\ncontract = \"acting\"")
        + &format!("[contracts.acting]\n{contract}\n[targets.\"b/m\"]\n{abilities}\n");
    let rig = Rig::start(&config).await;
    (a, rig)
}

const PLAN_ONLY: &str = "tools = { primary = \"full\", fallback = \"plan-only\", read_only = [\"lookup_order\"] }";
const NO_TOOLS: &str = "capabilities = { tools = false }";

/// The request with two tools, in either dialect.
fn ask(dialect: &str) -> Ask {
    let schema = json!({ "type": "object", "properties": { "order": { "type": "string" } }, "required": ["order"] });
    let names = ["lookup_order", "refund_order"];
    let tools: Vec<Value> = match dialect {
        "openai" => names
            .iter()
            .map(|name| json!({ "type": "function", "function": { "name": name, "parameters": schema } }))
            .collect(),
        _ => names.iter().map(|name| json!({ "name": name, "input_schema": schema })).collect(),
    };
    Ask::either(dialect, "main", "Refund order 7, please.").with("tools", json!(tools))
}

/// The `outlast` object, wherever it is.
fn notes(reply: &Reply) -> Value {
    if !reply.is_stream() {
        return reply.json()["outlast"].clone();
    }
    let events: Vec<Value> = reply.events().iter().map(common::Event::json).collect();
    events.iter().find(|event| event["outlast"].is_object()).map(|event| event["outlast"].clone()).unwrap_or_default()
}

fn assert_planned(reply: &Reply) {
    reply.assert_answered();
    assert_eq!(reply.header("x-outlast-tool-mode"), Some("plan-only"));
    assert_eq!(reply.header("x-outlast-degraded"), Some("tools"));
    assert!(!reply.text().contains("tool_calls\":[{") && !reply.text().contains("tool_use"), "{}", reply.text());
    assert!(reply.said().contains("refund_order"), "the notice names what was not done: {}", reply.said());
    let notes = notes(reply);
    let intent = &notes["plan"][0];
    assert_eq!((&intent["tool"], &intent["approval"]), (&json!("refund_order"), &json!("required")), "{notes}");
    assert_eq!(intent["arguments"], json!({ "order": "7" }));
    assert_eq!((&notes["gave_up"], &notes["tool_mode"]), (&json!(["tools"]), &json!("plan-only")));
    assert_eq!(notes["saved"], false);
}

#[tokio::test]
async fn a_target_that_could_call_tools_plans_instead_where_the_contract_says_so() {
    let b = model(|_| Act::Calls("refund_order", json!({ "order": "7" }))).await;
    let (_a, rig) = degraded(PLAN_ONLY, "", &b).await;
    for dialect in ["openai", "anthropic"] {
        for ask in [ask(dialect), ask(dialect).streamed()] {
            let reply = rig.ask(ask).await;
            assert_planned(&reply);
            let record = rig.record(reply.request_id()).await;
            assert_eq!(record.gave_up, [GaveUp::Tools { mode: ToolMode::PlanOnly }]);
            assert_eq!(record.tool_mode, ToolMode::PlanOnly);
        }
    }
}

#[tokio::test]
async fn a_target_without_tools_turns_a_write_into_a_plan() {
    let plan = json!({
        "text": "I can prepare the refund.",
        "plan": [{ "tool": "refund_order", "arguments": { "order": "7" }, "reason": "the user asked", "evidence": [] }],
    });
    let b = model(move |_| says(&plan.to_string())).await;
    let (_a, rig) = degraded(PLAN_ONLY, NO_TOOLS, &b).await;
    for dialect in ["openai", "anthropic"] {
        for ask in [ask(dialect), ask(dialect).streamed()] {
            assert_planned(&rig.ask(ask).await);
        }
    }
    for request in b.seen() {
        assert!(request.json().get("tools").is_none(), "it was never offered tools");
    }
}

#[tokio::test]
async fn where_bodies_carry_no_notes_the_plan_is_in_the_text() {
    let b = model(|_| Act::Calls("refund_order", json!({ "order": "7" }))).await;
    let (_a, rig) = degraded(&format!("{PLAN_ONLY}\nbody_notes = false"), "", &b).await;
    for ask in [ask("openai"), ask("anthropic").streamed()] {
        let reply = rig.ask(ask).await;
        reply.assert_answered();
        let said: Value = serde_json::from_str(&reply.said()).unwrap_or_else(|_| panic!("{}", reply.said()));
        assert_eq!(said["plan"][0]["tool"], "refund_order");
        assert!(said["notice"].as_str().unwrap().contains("refund_order"));
        assert!(notes(&reply).is_null());
        assert_eq!(reply.header("x-outlast-degraded"), Some("tools"));
    }
}

#[tokio::test]
async fn a_plain_answer_in_plan_only_is_an_answer_and_marked() {
    let b = model(|_| says("Orders are refunded within 14 days.")).await;
    let (_a, rig) = degraded(PLAN_ONLY, "", &b).await;
    let reply = rig.ask(ask("openai")).await;
    reply.assert_answered();
    assert_eq!(reply.said(), "Orders are refunded within 14 days.");
    assert_eq!(reply.header("x-outlast-degraded"), Some("tools"));
    assert!(notes(&reply)["plan"].is_null());
}

#[tokio::test]
async fn in_read_only_write_tools_are_absent_and_calling_one_is_no_answer() {
    let contract = PLAN_ONLY.replace("plan-only", "read-only");
    let b = model(|_| Act::Calls("lookup_order", json!({ "order": "7" }))).await;
    let (_a, rig) = degraded(&contract, "", &b).await;
    let reply = rig.ask(ask("openai")).await;
    assert_eq!(reply.header("x-outlast-tool-mode"), Some("read-only"), "{}", reply.text());
    assert_eq!(reply.json()["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "lookup_order");
    let offered = b.seen()[0].json()["tools"].clone();
    assert_eq!(offered.as_array().unwrap().len(), 1);
    assert_eq!(offered[0]["function"]["name"], "lookup_order");

    let b = model(|_| Act::Calls("refund_order", json!({ "order": "7" }))).await;
    let (_a, rig) = degraded(&contract, "", &b).await;
    let reply = rig.ask(ask("anthropic").streamed()).await;
    assert_ne!(reply.status(), 200, "a write call is never released: {}", reply.text());
    assert!(!reply.text().contains("tool_use"));
}

#[tokio::test]
async fn a_reply_that_claims_a_withheld_action_is_no_answer() {
    let b = model(|_| says("I have refunded the order, as promised.")).await;
    let (_a, rig) = degraded(PLAN_ONLY, "", &b).await;
    let reply = rig.ask(ask("openai")).await;
    assert_ne!(reply.status(), 200, "{}", reply.text());
    let record = rig.record(reply.request_id()).await;
    assert!(matches!(record.outcome, Outcome::Failed(_)));
    assert_eq!(record.attempts[1].problems[0].gate, Some(Gate::Claim));
}

#[tokio::test]
async fn the_notice_is_the_contracts_own_and_still_names_what_was_not_done() {
    let notice = "notice = \"I can still help, but live actions are limited. {{ saved }} {{ next }}\"";
    let b = model(|_| Act::Calls("refund_order", json!({ "order": "7" }))).await;
    let (_a, rig) = degraded(&format!("{PLAN_ONLY}\n{notice}"), "", &b).await;
    let reply = rig.ask(ask("openai")).await;
    let said = reply.said();
    assert!(said.starts_with("I can still help, but live actions are limited. Nothing was changed."), "{said}");
    assert!(said.contains("refund_order"), "{said}");
    assert_eq!(notes(&reply)["notice"].as_str(), Some(said.as_str()));
}

#[tokio::test]
async fn the_primary_with_all_its_tools_is_not_touched() {
    let a = model(|_| Act::Calls("refund_order", json!({ "order": "7" }))).await;
    let config = rig::two(&a.url(), &a.url()).replace("[routes.main]", "[routes.main]\ncontract = \"acting\"")
        + &format!("[contracts.acting]\n{PLAN_ONLY}\n");
    let rig = Rig::start(&config).await;
    let reply = rig.ask(ask("openai")).await;
    assert_eq!((reply.header("x-outlast-tool-mode"), reply.header("x-outlast-degraded")), (Some("full"), None));
    assert_eq!(reply.json()["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "refund_order");
}
