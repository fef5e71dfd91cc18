//! What holds a workflow's run within its bounds: deadline, money, version, cancellation, a person's choice of target.

mod common;

use common::{
    Act, Upstream,
    desk::{Deal, Desk, QUICK, Shop, memory, workflow},
    model, rig, says, until,
    upstream::{Request, Step, completion, json_reply},
};
use outlast_model::{
    Usd,
    run::{EscalationKind, RunState, Verb},
};
use outlast_store::{Fenced, MigrateRun, RunStore};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;

async fn echo() -> Shop {
    Shop::open(|tool, _, _| Deal::Answers(json!({ "tool": tool }))).await
}

fn call(name: &str, more: &str) -> String {
    format!("name = \"{name}\"\nkind = \"tool\"\ntool = \"{name}\"\n{more}")
}

const NAP: &str = "name = \"nap\"\nkind = \"wait\"\nfor = \"300ms\"";

#[tokio::test]
async fn past_its_deadline_a_run_does_nothing_new_but_undoes_what_it_did() {
    let shop = echo().await;
    let pay = call("pay", "undo = { tool = \"refund\" }");
    let toml = shop.tool("pay", "keyed", "")
        + &shop.tool("refund", "keyed", "")
        + &shop.tool("more", "pure", "")
        + &workflow("w", "", &[&pay, NAP, &call("more", "")]);
    let desk = Desk::open(&toml).await;
    let run = desk.start_with("w", json!({}), |start| start.deadline = Some(Duration::from_millis(250))).await;
    let (state, error) = desk.end(&run).await;
    assert_eq!((state, &error["code"]), (RunState::Failed, &json!("run_overdue")));
    // On a machine that is slow enough it is late before it has begun.
    let called = shop.called();
    assert!(called.is_empty() || called == ["pay", "refund"], "{called:?}");
}

#[tokio::test]
async fn a_run_stops_where_its_money_is_spent() {
    // It says more than anybody could have expected.
    let mut dear = completion("Dear.");
    dear["usage"] = json!({ "prompt_tokens": 10, "completion_tokens": 100_000, "total_tokens": 100_010 });
    let model = Upstream::answering(dear).await;
    let ask = |name: &str| format!("name = \"{name}\"\nkind = \"model\"\nroute = \"main\"\nprompt = \"Well?\"");
    let toml = rig::provider("a", "openai-compatible", &model.url(), "")
        + "[routes.main]\ntargets = [\"a/m\"]\n[targets.\"a/m\"]\nprice = { input = 1.0, output = 1.0 }\n"
        + &workflow("w", "", &[&ask("one"), &ask("two")]);
    let desk = Desk::open(&toml).await;
    let run = desk.start_with("w", json!({}), |start| start.cost_max = Some(Usd::from_dollars(0.05))).await;
    let (state, error) = desk.end(&run).await;
    assert_eq!((state, &error["code"]), (RunState::Failed, &json!("run_over_budget")), "{error}");
    assert_eq!((model.seen().len(), desk.view(&run).await.spent), (1, Usd::from_dollars(0.10001)));
    // What is left does not pay for even a short answer: a person may write one instead.
    let run = desk.start_with("w", json!({}), |start| start.cost_max = Some(Usd::from_nanos(100))).await;
    assert_eq!(desk.parked(&run).await.0, EscalationKind::Exhausted);
    assert_eq!(model.seen().len(), 1);
}

#[tokio::test]
async fn a_run_keeps_its_version_when_the_config_has_another_and_goes_on_when_it_is_moved() {
    let (shop, store) = (echo().await, memory());
    let wait = "name = \"go\"\nkind = \"wait\"\nsignals = [\"go\"]";
    let tools = shop.tool("old", "pure", "") + &shop.tool("new", "pure", "");
    let before =
        tools.clone() + &workflow("w", "", &[&call("old", ""), wait, &call("more", "").replace("more", "old2")]);
    let before = before.replace("tool = \"old2\"", "tool = \"old\"").replace("[tools.new]", "[tools.unused]");
    let after = tools + &workflow("w", "", &[&call("old", ""), wait, &call("new", "")]);
    let after = after.replace("version = \"1\"", "version = \"2\"");
    let desk = Desk::over(&before, store.clone()).await;
    let run = desk.start("w", json!({})).await;
    desk.until(&run, RunState::Waiting).await;
    assert!(desk.rig.gateway.stop().await);
    let desk = Desk::over(&after, store).await;
    desk.signal(&run, "go", json!(null)).await;
    let newer = desk.start_as("w", "2", json!({})).await;
    desk.until(&newer, RunState::Waiting).await;
    assert_eq!(desk.view(&run).await.state, RunState::Ready, "nobody does it in another version");
    let migrate = MigrateRun { run: run.clone(), version: "2".into(), by: "anna".into() };
    assert_eq!(desk.store.migrate_run(migrate).await.unwrap(), Fenced::Held);
    assert_eq!(desk.done(&run).await, json!({ "tool": "new" }));
    assert_eq!(shop.called(), ["old", "old", "new"], "a step that was done under its name stays done");
}

#[tokio::test]
async fn a_run_that_is_cancelled_during_a_turn_calls_no_tool_after_it() {
    let go = Arc::new(Notify::new());
    let waits = go.clone();
    let model = Upstream::start(move |_: &Request| {
        let mut reply = completion("");
        let function = json!({ "name": "look", "arguments": "{}" });
        reply["choices"][0]["message"] = json!({
            "role": "assistant", "content": null, "tool_calls": [{ "id": "c", "type": "function", "function": function }],
        });
        reply["choices"][0]["finish_reason"] = "tool_calls".into();
        vec![Step::Await(waits.clone()), Step::Send(json_reply(&reply))]
    })
    .await;
    let shop = echo().await;
    let agent = "name = \"agent\"\nkind = \"agent\"\nroute = \"main\"\nprompt = \"Look.\"\ntools = [\"look\"]";
    let toml = rig::provider("a", "openai-compatible", &model.url(), "")
        + "[routes.main]\ntargets = [\"a/m\"]\n"
        + &shop.tool("look", "once", "")
        + &workflow("w", "", &[agent]);
    let desk = Desk::open(&toml).await;
    let run = desk.start("w", json!({})).await;
    until("the turn to be asked", || model.seen().len() == 1).await;
    desk.cancel(&run).await;
    go.notify_one();
    assert_eq!(desk.end(&run).await.0, RunState::Cancelled);
    assert!(shop.called().is_empty());
}

#[tokio::test]
async fn a_person_chooses_who_answers_when_nobody_of_the_route_does() {
    let (down, up) = (model(|_| Act::Fails(500)).await, model(|_| says("Here.")).await);
    let ask = format!("name = \"ask\"\nkind = \"model\"\nroute = \"main\"\nprompt = \"Well?\"\n{QUICK}");
    let toml = rig::two(&down.url(), &up.url()).replace("[\"a/m\", \"b/m\"]", "[\"a/m\"]")
        + "[routes.other]\ntargets = [\"b/m\"]\n"
        + &workflow("w", "", &[&ask]);
    let desk = Desk::open(&toml).await;
    let run = desk.start("w", json!({})).await;
    let (kind, question, _) = desk.parked(&run).await;
    assert_eq!(kind, EscalationKind::Exhausted, "{question}");
    desk.decide(&run, Verb::Choose, None, json!({ "target": "b/m" })).await;
    assert_eq!(desk.done(&run).await, json!("Here."));
    assert_eq!(up.seen().len(), 1);
}
