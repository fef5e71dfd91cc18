//! Less than the contract, marked: a narrower schema, a shorter input, a template's reply, an earlier answer, a question.

mod common;

use common::{Act, Ask, Reply, Rig, Upstream, model, rig, says};
use outlast_model::{
    policy::BackstopName,
    record::{Decision, GaveUp, Outcome},
};
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

fn on(a: &Upstream, b: &Upstream, route: &str, more: &str) -> String {
    rig::two(&a.url(), &b.url()).replace("[routes.main]", &format!("[routes.main]\n{route}")) + more
}

fn asks() -> [Ask; 4] {
    ["openai", "anthropic"]
        .map(|dialect| [Ask::either(dialect, "main", "hi"), Ask::either(dialect, "main", "hi").streamed()])
        .concat()
        .try_into()
        .unwrap()
}

fn notes(reply: &Reply) -> Value {
    if !reply.is_stream() {
        return reply.json()["outlast"].clone();
    }
    let events: Vec<Value> = reply.events().iter().map(common::Event::json).collect();
    events.iter().find(|event| event["outlast"].is_object()).map(|event| event["outlast"].clone()).unwrap_or_default()
}

const NARROWER: &str = "contract = \"triage\"";
const TRIAGE: &str = "[contracts.triage]\n\
    schema = { type = \"object\", required = [\"summary\", \"risk\"], properties = { summary = { type = \"string\" } } }\n\
    degraded = { schema = { type = \"object\", required = [\"summary\"], properties = { summary = { type = \"string\" } } } }\n";

#[tokio::test]
async fn a_reply_that_keeps_the_degraded_schema_waits_for_a_better_one() {
    let a = model(|_| says(r#"{"summary":"late"}"#)).await;
    let b = model(|_| says(r#"{"summary":"late","risk":"low"}"#)).await;
    let rig = Rig::start(&on(&a, &b, NARROWER, TRIAGE)).await;
    for ask in asks() {
        let reply = rig.ask(ask).await;
        reply.assert_answered();
        assert_eq!(reply.said(), r#"{"summary":"late","risk":"low"}"#);
        assert_eq!(reply.header("x-outlast-degraded"), None);
        let record = rig.record(reply.request_id()).await;
        assert_eq!(record.attempts[0].decision, Decision::Keep);
    }
}

#[tokio::test]
async fn when_nothing_better_comes_it_is_served_and_marked() {
    let (a, b) = (model(|_| says(r#"{"summary":"late"}"#)).await, model(|_| Act::Fails(500)).await);
    let rig = Rig::start(&on(&a, &b, NARROWER, TRIAGE)).await;
    for ask in asks() {
        let reply = rig.ask(ask).await;
        reply.assert_answered();
        assert_eq!(
            (reply.said().as_str(), reply.header("x-outlast-degraded")),
            (r#"{"summary":"late"}"#, Some("schema"))
        );
        assert_eq!(reply.header("x-outlast-target"), Some("a/m"));
        let notes = notes(&reply);
        assert_eq!((&notes["gave_up"], &notes["degraded"]), (&json!(["schema"]), &json!(true)));
        assert!(notes["notice"].as_str().unwrap().contains("Some details are left out"), "{notes}");
        assert_eq!(rig.record(reply.request_id()).await.gave_up, [GaveUp::Schema]);
    }
}

const SORRY: &str = "[backstops.sorry]\nkind = \"static\"\nreply = \"We are on {{ route }} and will be back.\"\n";

#[tokio::test]
async fn a_template_answers_when_every_target_is_down() {
    let down = model(|_| Act::Fails(503)).await;
    let rig = Rig::start(&on(&down, &down, "backstops = [\"sorry\"]", SORRY)).await;
    for ask in asks() {
        let reply = rig.ask(ask).await;
        reply.assert_answered();
        assert_eq!(reply.said(), "We are on main and will be back.");
        assert_eq!((reply.header("x-outlast-degraded"), reply.header("x-outlast-target")), (Some("model"), None));
        assert_eq!(notes(&reply)["backstop"], "static");
        let record = rig.record(reply.request_id()).await;
        assert_eq!((record.outcome, record.backstop.unwrap().kind), (Outcome::Answered, BackstopName::Static));
    }
}

#[tokio::test]
async fn a_templates_reply_is_held_to_the_same_gates() {
    let down = model(|_| Act::Fails(503)).await;
    let rules =
        "[backstops.maybe]\nkind = \"rules\"\nrules = [{ when = \"'hi' in text\", reply = \"{{ text }} there\" }]\n";
    let more = format!("{rules}[contracts.polite]\nmust_not = [\"hi there\"]\n");
    let rig = Rig::start(&on(&down, &down, "backstops = [\"maybe\"]\ncontract = \"polite\"", &more)).await;
    let reply = rig.ask(Ask::chat("main", "hi")).await;
    assert_ne!(reply.status(), 200, "{}", reply.text());
    assert!(!reply.text().contains("hi there"));
    let reply = rig.ask(Ask::chat("main", "oh, hi")).await;
    assert_eq!(reply.status(), 503, "it breaks the gate as well: {}", reply.text());
}

#[tokio::test]
async fn a_safety_block_is_not_answered_by_a_backstop() {
    let (a, b) = (model(|_| Act::Blocks).await, model(|_| says("fine")).await);
    let rig = Rig::start(&on(&a, &b, "backstops = [\"sorry\"]", SORRY)).await;
    let reply = rig.ask(Ask::chat("main", "hi")).await;
    assert_eq!((reply.status(), reply.json()["error"]["code"].as_str()), (400, Some("content_filter")));
    assert!(b.seen().is_empty());
}

#[tokio::test]
async fn an_earlier_answer_is_given_with_its_age() {
    let up = Arc::new(AtomicBool::new(true));
    let a = model({
        let up = up.clone();
        move |_| if up.load(Ordering::SeqCst) { says("Paris") } else { Act::Fails(503) }
    })
    .await;
    let rig = Rig::start(&on(&a, &a, "backstops = [\"cache\"]", "")).await;
    rig.ask(Ask::chat("main", "capital?")).await.assert_answered();
    up.store(false, Ordering::SeqCst);
    // It is kept beside the reply, not before it.
    let reply = common::until_some("the kept answer", async || {
        let reply = rig.ask(Ask::chat("main", "capital?").streamed()).await;
        (reply.status() == 200).then_some(reply)
    })
    .await;
    assert_eq!((reply.said().as_str(), reply.header("x-outlast-degraded")), ("Paris", Some("freshness")));
    assert!(notes(&reply)["notice"].as_str().unwrap().contains("earlier answer"), "{}", reply.text());
    let other = rig.ask(Ask::chat("main", "another question")).await;
    assert_eq!(other.status(), 503, "{}", other.text());
}

const STORE: &str = "[store]\nfile = \"store.db\"\nplaintext_payloads = true\n";

#[tokio::test]
async fn a_queued_request_is_a_202_that_says_where_to_look_in_both_dialects() {
    let down = model(|_| Act::Fails(503)).await;
    let rig = Rig::start(&on(&down, &down, "backstops = [\"queue\"]", STORE)).await;
    for ask in asks() {
        let reply = rig.ask(ask).await;
        assert_eq!(reply.status(), 202, "{}", reply.text());
        assert_eq!(reply.header("x-outlast-degraded"), Some("immediacy"));
        let notes = notes(&reply);
        assert_eq!(notes["queue"]["poll_url"].as_str(), reply.header("location"), "{notes}");
        assert_eq!((&notes["saved"], &notes["complete"]), (&json!(true), &json!(false)));
        assert!(reply.header("retry-after").is_some());
        assert!(reply.said().contains("Your request is saved."), "{}", reply.said());
        let record = rig.record(reply.request_id()).await;
        assert_eq!(record.outcome, Outcome::Deferred);
    }
}

#[tokio::test]
async fn a_yes_to_a_question_is_answered_by_the_other_route_and_marked() {
    let (down, other) = (model(|_| Act::Fails(503)).await, model(|_| says("short and cheap")).await);
    let more =
        "[backstops.ask]\nkind = \"confirm\"\nquestion = \"Shall a simpler assistant answer?\"\nroute = \"simple\"\n"
            .to_owned()
            + &rig::provider("c", "openai-compatible", &other.url(), "")
            + "[routes.simple]\ntargets = [\"c/m\"]\n";
    let rig = Rig::start(&on(&down, &down, "backstops = [\"ask\"]", &more)).await;
    let question = rig.ask(Ask::chat("main", "hi")).await;
    question.assert_answered();
    assert_eq!(question.said(), "Shall a simpler assistant answer?");
    let token = notes(&question)["confirm"]["token"].as_str().expect("a token").to_owned();
    let reply = rig.ask(Ask::chat("main", "hi").with("outlast", json!({ "confirm": token }))).await;
    reply.assert_answered();
    assert_eq!((reply.said().as_str(), reply.header("x-outlast-degraded")), ("short and cheap", Some("route")));
    let again = rig.ask(Ask::chat("main", "hi").with("outlast", json!({ "confirm": token }))).await;
    assert!((400..500).contains(&again.status()), "a token works once: {}", again.text());
}

#[tokio::test]
async fn where_bodies_carry_no_notes_a_promise_says_itself_what_the_client_needs() {
    let down = model(|_| Act::Fails(503)).await;
    let contract = &format!("[contracts.strict]\nbody_notes = false\n{STORE}");
    let rig = Rig::start(&on(&down, &down, "backstops = [\"queue\"]\ncontract = \"strict\"", contract)).await;
    let reply = rig.ask(Ask::chat("main", "hi")).await;
    assert!(reply.status() == 202 && notes(&reply).is_null(), "{}", reply.text());
    let said: Value = serde_json::from_str(&reply.said()).unwrap();
    assert_eq!(said["queue"]["poll_url"].as_str(), reply.header("location"));
}

#[tokio::test]
async fn the_oldest_turns_go_first_when_no_target_takes_all_of_it() {
    let a = model(|_| says("fine")).await;
    let more = "[contracts.brief]\nshorten = \"drop-oldest-turns\"\n\
                [targets.\"a/m\"]\ncontext_window = 2000\nmax_output = 200\n\
                [targets.\"b/m\"]\ncontext_window = 2000\nmax_output = 200\n";
    let rig = Rig::start(&on(&a, &a, "contract = \"brief\"", more)).await;
    let long = "word ".repeat(3000);
    let messages = json!([
        { "role": "user", "content": format!("the oldest turn {long}") },
        { "role": "assistant", "content": "I see." },
        { "role": "user", "content": "the last turn" },
    ]);
    for ask in
        [Ask::chat("main", "").with("messages", messages.clone()), Ask::message("main", "").with("messages", messages)]
    {
        let reply = rig.ask(ask.with("max_tokens", json!(100))).await;
        reply.assert_answered();
        assert_eq!(reply.header("x-outlast-degraded"), Some("input"), "{}", reply.text());
        assert!(notes(&reply)["notice"].as_str().unwrap().contains("oldest part"));
    }
    for request in a.seen() {
        let sent = request.json()["messages"].to_string();
        assert!(sent.contains("the last turn") && !sent.contains("the oldest turn"), "{sent:.300}");
    }
}
