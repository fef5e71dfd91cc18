//! The `confirm` backstop: the user is asked before another route answers, and a yes is good for one request, once.

mod common;

use common::{
    Ask, Reply, Rig, plan,
    rig::{env, fake, provider},
};
use outlast::fake::Fake;
use outlast_model::record::{GaveUp, Outcome};
use serde_json::{Value, json};

const DIALECTS: [&str; 2] = ["openai", "anthropic"];

async fn rig(more: &str) -> (Fake, Fake, Rig) {
    let (a, b) = (fake("alpha").await, fake("beta").await);
    let config = provider("a", "openai-compatible", &a.url(), "")
        + &provider("b", "openai-compatible", &b.url(), "")
        + "[routes.main]\ntargets = [\"a/m\"]\nbackstops = [\"ask\"]\n"
        + "[routes.small]\ntargets = [\"b/m\"]\n"
        + "[backstops.ask]\nkind = \"confirm\"\nquestion = \"A smaller model could answer. Go on?\"\nroute = \"small\"\n"
        + more;
    let rig = Rig::start(&config).await;
    a.set_fault("*", plan("503")).unwrap();
    (a, b, rig)
}

fn told(reply: &Reply) -> Value {
    match reply.is_stream() {
        false => reply.json()["outlast"].clone(),
        true => {
            reply.events().iter().map(|event| event.json()["outlast"].clone()).find(|told| told.is_object()).unwrap()
        }
    }
}

fn token(question: &Reply) -> String {
    assert_eq!(question.status(), 200, "{}", question.text());
    assert_eq!(question.said(), "A smaller model could answer. Go on?");
    let confirm = &told(question)["confirm"];
    assert_eq!(confirm["route"], "small");
    assert!(confirm["expires_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{confirm}");
    confirm["token"].as_str().expect("a token").to_owned()
}

#[tokio::test]
async fn a_yes_lets_the_named_route_answer_marked_and_works_once() {
    let (_a, b, rig) = rig("").await;
    for dialect in DIALECTS {
        for streamed in [false, true] {
            let ask = Ask::either(dialect, "main", "hello").with("stream", json!(streamed));
            let before = b.log().len();
            let question = rig.ask(ask.clone()).await;
            let token = token(&question);
            let record = rig.record(question.request_id()).await;
            assert_eq!(record.outcome, Outcome::Deferred);
            assert_eq!(b.log().len(), before, "nobody was asked yet");

            let yes = ask.clone().with("outlast", json!({ "confirm": token }));
            let answered = rig.ask(yes.clone()).await;
            answered.assert_answered();
            assert_eq!(answered.header("x-outlast-target"), Some("b/m"));
            assert_eq!(told(&answered)["gave_up"], json!(["route"]));
            let record = rig.record(answered.request_id()).await;
            assert!(matches!(&record.gave_up[..], [GaveUp::Route { route }] if route.as_str() == "small"));
            assert!(record.degraded);

            let again = rig.ask(yes).await;
            assert_eq!(again.status(), 422, "{}", again.text());
            assert_eq!(again.header("x-should-retry"), Some("false"));
        }
    }
}

#[tokio::test]
async fn a_token_in_the_header_is_as_good_and_none_fits_another_request_or_caller() {
    let keys = "[server]\nkeys = [\"${CALLER_ONE}\", \"${CALLER_TWO}\"]\n";
    let (_a, _b, rig) = rig(keys).await;
    let ask = |caller: &str, text: &str| Ask::chat("main", text).bearer(&env(caller).unwrap());
    let token = token(&rig.ask(ask("CALLER_ONE", "hello")).await);
    let with = |ask: Ask| ask.header("x-outlast-confirm", &token);
    for (caller, text) in [("CALLER_ONE", "something else"), ("CALLER_TWO", "hello")] {
        let refused = rig.ask(with(ask(caller, text))).await;
        assert_eq!(refused.status(), 422, "{}", refused.text());
        assert_eq!(refused.json()["error"]["code"], "confirmation_invalid");
    }
    let answered = rig.ask(with(ask("CALLER_ONE", "hello"))).await;
    answered.assert_answered();
    assert_eq!(answered.header("x-outlast-target"), Some("b/m"));
    let made_up = rig.ask(ask("CALLER_ONE", "hello").header("x-outlast-confirm", "made-up")).await;
    assert_eq!(made_up.status(), 422);
}

#[tokio::test]
async fn a_late_yes_is_told_so() {
    let (a, b) = (fake("alpha").await, fake("beta").await);
    let config = provider("a", "openai-compatible", &a.url(), "")
        + &provider("b", "openai-compatible", &b.url(), "")
        + "[routes.main]\ntargets = [\"a/m\"]\nbackstops = [\"ask\"]\n[routes.small]\ntargets = [\"b/m\"]\n"
        + "[backstops.ask]\nkind = \"confirm\"\nquestion = \"A smaller model could answer. Go on?\"\nroute = \"small\"\n"
        + "expires = \"1s\"\n";
    let rig = Rig::start(&config).await;
    a.set_fault("*", plan("503")).unwrap();
    for dialect in DIALECTS {
        let ask = Ask::either(dialect, "main", "hello");
        let token = token(&rig.ask(ask.clone()).await);
        // Not a wait for something: the yes has to come after its time.
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        let late = rig.ask(ask.with("outlast", json!({ "confirm": token }))).await;
        assert_eq!(late.status(), 410, "{}", late.text());
        assert_eq!(late.header("x-should-retry"), Some("false"));
    }
    assert_eq!(b.log().len(), 0);
}

#[tokio::test]
async fn a_question_does_not_use_up_an_idempotency_key() {
    let (_a, _b, rig) = rig("").await;
    let ask = Ask::chat("main", "hello").header("idempotency-key", "k");
    let token = token(&rig.ask(ask.clone()).await);
    let yes = ask.with("outlast", json!({ "confirm": token }));
    let answered = rig.ask(yes.clone()).await;
    answered.assert_answered();
    let again = rig.ask(yes).await;
    assert_eq!(again.header("x-outlast-replayed"), Some("true"), "{}", again.text());
    assert_eq!(again.body, answered.body);
    assert_eq!(again.header("x-outlast-degraded"), Some("route"), "still marked");
}
