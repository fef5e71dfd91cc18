//! An agent on a server that dies: at every kind of place, each on a disk of its own.

mod common;

use common::{
    Act, Server, Upstream, desk,
    desk::{Deal, Shop, workflow},
    guarded, model, rig,
    runs::Api,
    says, until_some,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn results(body: &Value) -> usize {
    let messages = body["messages"].as_array().map_or(&[][..], Vec::as_slice);
    messages.iter().filter(|message| message["role"] == "tool").count()
}

/// Three turns, two tools.
async fn traveller() -> Upstream {
    model(|body| match results(body) {
        0 => Act::Calls("search", json!({ "to": "Rome" })),
        1 => Act::Calls("book", json!({ "flight": "F1" })),
        _ => says("You fly with F1."),
    })
    .await
}

fn config(model: &Upstream, shop: &Shop, class: &str) -> String {
    let agent = "name = \"travel\"\nkind = \"agent\"\nroute = \"main\"\nprompt = \"To {{ input.to }}.\"\n\
                 tools = [\"search\", \"book\"]";
    let quick = |tool: String| tool.replace("timeout = \"5s\"", "timeout = \"1s\"");
    let toml = rig::provider("a", "openai-compatible", &model.url(), "")
        + "[routes.main]\ntargets = [\"a/m\"]\ntier = \"none\"\n[runs]\nlease = \"5s\"\n"
        + &quick(shop.tool("search", "pure", ""))
        + &quick(shop.tool("book", class, ""))
        + &workflow("trip", "", &[agent]);
    desk::whole(&toml)
}

/// What was left after a server died once and another one went on.
struct Left {
    run: Value,
    turns: usize,
    booked: Vec<String>,
}

/// Runs the agent on a server that dies there, then on one that lives.
async fn die_at(failpoint: &str, class: &str) -> Left {
    let (model, shop) = (traveller().await, Shop::open(|_, _, _| Deal::Answers(json!({ "flight": "F1" }))).await);
    let toml = config(&model, &shop, class);
    let server = Server::start_failing(tempfile::tempdir().unwrap(), &toml, failpoint).await;
    let start = json!({ "workflow": "trip", "id": "trip-1", "input": { "to": "Rome" } });
    // It may die before it has answered: the same start again is the same run.
    let begun = common::Ask::post("/v1/runs", start.to_string()).try_send(server.address).await;
    assert!(begun.is_none_or(|reply| reply.status() == 201));
    let server = guarded(failpoint, server.died_and_restart(&toml)).await;
    let api = Api::at(server.address);
    assert!([200, 201].contains(&api.post("/v1/runs", start).await.status()));
    let run = until_some(&format!("the run to go on after {failpoint}"), async || {
        let run = api.get("/v1/runs/trip-1").await.json();
        (run["state"] == "done" || run["state"] == "parked").then_some(run)
    })
    .await;
    Left { run, turns: model.seen().len(), booked: shop.keys("book") }
}

async fn goes_on_after(failpoint: &str) {
    let Left { run, turns, booked } = die_at(failpoint, "keyed").await;
    assert_eq!(run["state"], json!("done"), "{failpoint}: {run}");
    assert_eq!(turns, 3, "{failpoint}: no turn is paid for twice");
    let keys: BTreeSet<&String> = booked.iter().collect();
    assert_eq!(keys.len(), 1, "{failpoint}: booked under one key");
    let again = usize::from(failpoint == "tool.sent:2");
    assert_eq!(booked.len(), 1 + again, "{failpoint}: only what was sent and not written down is sent again");
}

#[tokio::test]
async fn an_agent_goes_on_when_its_server_dies_before_it_did_anything() {
    goes_on_after("run.claimed:1").await;
}

#[tokio::test]
async fn an_agent_goes_on_when_its_server_dies_after_an_intent() {
    tokio::join!(goes_on_after("ledger.intent:1"), goes_on_after("ledger.intent:4"));
}

#[tokio::test]
async fn an_agent_goes_on_when_its_server_dies_after_a_tool_was_called() {
    tokio::join!(goes_on_after("tool.sent:1"), goes_on_after("tool.sent:2"));
}

#[tokio::test]
async fn an_agent_goes_on_when_its_server_dies_after_something_was_written_down() {
    tokio::join!(goes_on_after("journal.reply:2"), goes_on_after("ledger.outcome:4"), goes_on_after("run.finished:1"));
}

#[tokio::test]
async fn what_may_have_been_booked_is_not_booked_again_where_nobody_can_tell() {
    let Left { run, turns, booked } = die_at("tool.sent:2", "once").await;
    assert_eq!((run["state"].clone(), turns, booked.len()), (json!("parked"), 2, 1), "{run}");
}
