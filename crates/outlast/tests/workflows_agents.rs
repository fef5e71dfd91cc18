//! Agents that the server runs by itself: models that call tools, every turn written down before its tools are called.

mod common;

use common::{
    Act, Upstream,
    desk::{Deal, Desk, QUICK, Shop, memory, workflow},
    model, rig, says, until,
    upstream::{Request, Step, completion, json_reply},
};
use outlast_model::run::{EscalationKind, LedgerState, RunState, Verb};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Notify;

/// How many tool results the conversation holds.
fn heard(body: &Value) -> Vec<String> {
    let messages = body["messages"].as_array().cloned().unwrap_or_default();
    let results = messages.into_iter().filter(|message| message["role"] == "tool");
    results.map(|message| message["content"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Searches, then books what it found, then says so.
fn traveller(body: &Value) -> Act {
    match heard(body).len() {
        0 => Act::Calls("search", json!({ "to": "Rome" })),
        1 => Act::Calls("book", json!({ "flight": "F1" })),
        _ => says("You fly with F1."),
    }
}

fn config(model: &Upstream, shop: &Shop, more: &str) -> String {
    let agent = format!(
        "name = \"travel\"\nkind = \"agent\"\nroute = \"main\"\ninstructions = \"You book flights.\"\n\
         prompt = \"To {{{{ input.to }}}}.\"\ntools = [\"search\", \"book\"]\n{more}"
    );
    rig::provider("a", "openai-compatible", &model.url(), "")
        + "[routes.main]\ntargets = [\"a/m\"]\ntier = \"none\"\n"
        + &shop.tool("search", "pure", "input = { type = \"object\", required = [\"to\"] }")
        + &shop.tool("book", "once", "description = \"Books a flight.\"")
        + &workflow("trip", "", &[&agent])
}

async fn airline() -> Shop {
    Shop::open(|tool, _, _| Deal::Answers(json!({ "tool": tool, "flight": "F1" }))).await
}

#[tokio::test]
async fn an_agent_calls_its_tools_and_every_turn_is_in_the_journal() {
    let (model, shop) = (model(traveller).await, airline().await);
    let desk = Desk::open(&config(&model, &shop, "")).await;
    let run = desk.start("trip", json!({ "to": "Rome" })).await;
    assert_eq!(desk.done(&run).await, json!("You fly with F1."));
    assert_eq!(shop.calls("search"), [json!({ "to": "Rome" })]);
    assert_eq!(shop.calls("book"), [json!({ "flight": "F1" })]);
    let keys: Vec<String> = desk.steps(&run).await.into_iter().map(|(key, _)| key).collect();
    // The model gives both of its calls the same id: they are two calls all the same.
    let turns =
        ["travel/turn/1", "travel/tool/call_1", "travel/turn/2", "travel/tool/call_1~2", "travel/turn/3", "travel"];
    assert_eq!(keys, turns);
    let asked = model.seen();
    let first = asked[0].json();
    assert_eq!(first["messages"][0], json!({ "role": "system", "content": "You book flights." }));
    assert_eq!(first["messages"][1], json!({ "role": "user", "content": "To Rome." }));
    assert_eq!(first["tools"][1]["function"]["name"], json!("book"));
    assert_eq!(first["tools"][1]["function"]["description"], json!("Books a flight."));
    assert_eq!(heard(&asked[2].json())[1], json!({ "tool": "book", "flight": "F1" }).to_string());
}

#[tokio::test]
async fn a_server_that_stops_gives_the_run_back_and_the_next_one_pays_for_no_turn_twice() {
    let go = Arc::new(Notify::new());
    let waits = go.clone();
    let model = Upstream::start(move |request: &Request| {
        let body = request.json();
        let reply = |act: Act| match act {
            Act::Says(text) => completion(&text),
            Act::Calls(tool, arguments) => {
                let mut reply = completion("");
                let function = json!({ "name": tool, "arguments": arguments.to_string() });
                reply["choices"][0]["message"] = json!({
                    "role": "assistant", "content": null,
                    "tool_calls": [{ "id": "c", "type": "function", "function": function }],
                });
                reply["choices"][0]["finish_reason"] = "tool_calls".into();
                reply
            }
            other @ (Act::Blocks | Act::Fails(_) | Act::Hangs) => panic!("{other:?}"),
        };
        let answer = Step::Send(json_reply(&reply(traveller(&body))));
        match heard(&body).len() {
            1 => vec![Step::Await(waits.clone()), answer],
            _ => vec![answer],
        }
    })
    .await;
    let (shop, store) = (airline().await, memory());
    let toml = config(&model, &shop, "");
    let desk = Desk::over(&toml, store.clone()).await;
    let run = desk.start("trip", json!({ "to": "Rome" })).await;
    until("the second turn to be asked", || model.seen().len() == 2).await;
    let stopping = tokio::spawn(desk.rig.gateway.stop());
    // It says that it stops before it waits for anything.
    tokio::task::yield_now().await;
    go.notify_one();
    assert!(stopping.await.unwrap(), "what was under way finished");
    assert_eq!(shop.called(), ["search"], "the turn is written down, and what follows it is left to the next");
    let desk = Desk::over(&toml, store).await;
    assert_eq!(desk.done(&run).await, json!("You fly with F1."));
    assert_eq!((model.seen().len(), shop.called()), (3, vec!["search".to_owned(), "book".to_owned()]));
}

#[tokio::test]
async fn a_tool_that_waits_for_approval_costs_no_turn() {
    let (model, shop) = (model(traveller).await, airline().await);
    let toml = config(&model, &shop, "").replace("description =", "approval = \"always\"\ndescription =");
    let desk = Desk::open(&toml).await;
    let run = desk.start("trip", json!({ "to": "Rome" })).await;
    assert_eq!(desk.parked(&run).await.0, EscalationKind::Approval);
    assert_eq!(shop.called(), ["search"]);
    desk.decide(&run, Verb::Deny, Some(json!({ "message": "Too dear." })), json!({})).await;
    assert_eq!(desk.done(&run).await, json!("You fly with F1."));
    assert_eq!((model.seen().len(), shop.called().len()), (3, 1));
    assert!(heard(&model.seen()[2].json())[1].contains("Too dear."), "the model hears that it was denied");
}

#[tokio::test]
async fn what_the_model_gets_wrong_it_is_told_and_what_is_long_is_cut_and_marked() {
    let model = model(|body| match heard(body).len() {
        0 => Act::Calls("search", json!({ "from": "here" })),
        1 => Act::Calls("search", json!({ "to": "Rome" })),
        _ => says("Well."),
    })
    .await;
    let shop = Shop::open(|_, _, _| Deal::Answers(json!("x".repeat(100_000)))).await;
    let desk = Desk::open(&config(&model, &shop, "")).await;
    let run = desk.start("trip", json!({ "to": "Rome" })).await;
    assert_eq!(desk.done(&run).await, json!("Well."));
    let heard = heard(&model.seen()[2].json());
    assert!(heard[0].contains("break its schema"), "{}", heard[0]);
    assert!(heard[1].len() < 33_000 && heard[1].ends_with("[cut: 100000 bytes in all]"), "{}", heard[1].len());
    assert_eq!(shop.called().len(), 1);
}

#[tokio::test]
async fn an_agent_that_has_had_its_turns_waits_for_a_person_who_may_grant_more() {
    let model = model(|body| match heard(body).len() {
        3 => says("Found."),
        _ => Act::Calls("search", json!({ "to": "Rome" })),
    })
    .await;
    let shop = airline().await;
    let desk = Desk::open(&config(&model, &shop, "max_turns = 2")).await;
    let run = desk.start("trip", json!({ "to": "Rome" })).await;
    let (kind, question, _) = desk.parked(&run).await;
    assert_eq!((kind, model.seen().len()), (EscalationKind::Exhausted, 2));
    assert!(question.contains("`max_turns`"), "{question}");
    desk.decide(&run, Verb::Retry, None, json!({})).await;
    assert_eq!(desk.done(&run).await, json!("Found."));
    assert_eq!((model.seen().len(), shop.called().len()), (4, 3), "what was done is not done again");
}

#[tokio::test]
async fn a_model_that_is_away_for_a_while_costs_the_run_nothing_but_time() {
    let tries = std::sync::atomic::AtomicUsize::new(0);
    let model = model(move |body| match tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
        1 | 2 => Act::Fails(500),
        _ => traveller(body),
    })
    .await;
    let shop = airline().await;
    let quick = "retry = { attempts = 5, base = \"10ms\", cap = \"50ms\" }";
    let desk = Desk::open(&config(&model, &shop, quick)).await;
    let run = desk.start("trip", json!({ "to": "Rome" })).await;
    assert_eq!(desk.done(&run).await, json!("You fly with F1."));
    assert_eq!(shop.called(), ["search", "book"]);
    assert!(desk.steps(&run).await.iter().all(|(_, state)| *state == LedgerState::Done));
}

#[tokio::test]
async fn an_unsure_answer_is_shown_to_a_person_who_approves_or_writes_another() {
    let sure = |confidence: f64| json!({ "yes": true, "confidence": confidence }).to_string();
    let model = model(move |_| says(&sure(0.2))).await;
    let schema = "schema = { type = \"object\", required = [\"yes\", \"confidence\"], properties = { yes = { type = \
                  \"boolean\" }, confidence = { type = \"number\" } } }";
    let toml = rig::provider("a", "openai-compatible", &model.url(), "")
        + "[routes.main]\ntargets = [\"a/m\"]\n"
        + &format!("[contracts.sure]\n{schema}\nconfidence = {{ from = \"confidence\", min = 0.7 }}\n")
        + &workflow(
            "judge",
            "",
            &[&format!(
                "name = \"decide\"\nkind = \"model\"\nroute = \"main\"\ncontract = \"sure\"\nprompt = \"Is it?\"\n{QUICK}"
            )],
        );
    let desk = Desk::open(&toml).await;
    let run = desk.start("judge", json!({})).await;
    let (kind, _, context) = desk.parked(&run).await;
    assert_eq!((kind, &context["answer"]["confidence"]), (EscalationKind::LowConfidence, &json!(0.2)), "{context}");
    desk.decide(&run, Verb::Approve, None, json!({})).await;
    assert_eq!(desk.done(&run).await, json!({ "yes": true, "confidence": 0.2 }));
    let run = desk.start("judge", json!({})).await;
    desk.parked(&run).await;
    desk.decide(&run, Verb::Edit, Some(json!({ "yes": false, "confidence": 1 })), json!({})).await;
    assert_eq!(desk.done(&run).await["yes"], json!(false));
    let run = desk.start("judge", json!({})).await;
    desk.parked(&run).await;
    desk.cancel(&run).await;
    assert_eq!(desk.end(&run).await.0, RunState::Cancelled);
}
