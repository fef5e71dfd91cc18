//! Replies that break their contract and are mended, once: by listed fixes, then by the model itself.

mod common;

use common::{Ask, Rig, Upstream, model, rig, says};
use outlast_model::{
    Failure, Gate,
    policy::Fix,
    record::{AttemptReason, Decision, SchemaStatus},
};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};

const SCHEMA: &str = "schema = { type = \"object\", required = [\"summary\", \"risk\", \"next_action\"], \
                      additionalProperties = false, properties = { summary = { type = \"string\" }, \
                      risk = { type = \"string\" }, next_action = { type = \"string\" } } }";
const GOOD: &str = r#"{"summary":"late","risk":"low","next_action":"wait"}"#;

fn contract(a: &Upstream, b: &Upstream, more: &str) -> String {
    rig::two(&a.url(), &b.url()).replace("[routes.main]", "[routes.main]\ncontract = \"triage\"")
        + &format!("[contracts.triage]\n{SCHEMA}\n{more}\n")
}

fn asks() -> [Ask; 4] {
    ["openai", "anthropic"]
        .map(|dialect| [Ask::either(dialect, "main", "hi"), Ask::either(dialect, "main", "hi").streamed()])
        .concat()
        .try_into()
        .unwrap()
}

/// Says these in turn, the last one for ever.
async fn in_turn(answers: Vec<String>) -> Upstream {
    let next = AtomicUsize::new(0);
    model(move |_| says(&answers[next.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1)])).await
}

#[tokio::test]
async fn a_slip_of_form_is_mended_and_the_repaired_text_is_what_the_client_gets() {
    let slips = [
        (format!("```json\n{GOOD}\n```"), Fix::Fences),
        (GOOD.replace('}', ",}"), Fix::TrailingCommas),
        (GOOD.trim_end_matches('}').to_owned(), Fix::Closers),
    ];
    for (slip, fix) in slips {
        let a = model(move |_| says(&slip)).await;
        let rig = Rig::start(&contract(&a, &a, "repair = 1")).await;
        for ask in asks() {
            let reply = rig.ask(ask).await;
            reply.assert_answered();
            assert_eq!(serde_json::from_str::<Value>(&reply.said()).ok(), serde_json::from_str(GOOD).ok(), "{fix:?}");
            assert_eq!(reply.header("x-outlast-degraded"), None);
            let record = rig.record(reply.request_id()).await;
            assert_eq!((record.attempts.len(), &*record.attempts[0].fixes), (1, &[fix][..]));
            assert_eq!(record.schema_status, SchemaStatus::Valid);
        }
    }
}

#[tokio::test]
async fn a_fix_that_is_not_listed_is_not_made() {
    let a = model(|_| says(&format!("```json\n{GOOD}\n```"))).await;
    let rig = Rig::start(&contract(&a, &a, "repair = { fixes = [\"closers\"], model = false }")).await;
    let reply = rig.ask(Ask::chat("main", "hi")).await;
    assert_eq!((reply.status(), reply.json()["error"]["code"].as_str()), (502, Some("schema_error")));
}

#[tokio::test]
async fn the_model_is_asked_once_to_mend_its_own_reply_with_what_is_wrong_named() {
    let broken = r#"{"summary":"late","risk":5}"#;
    for ask in asks() {
        let a = in_turn(vec![broken.into(), GOOD.into()]).await;
        let b = model(|_| says(GOOD)).await;
        let rig = Rig::start(&contract(&a, &b, "repair = 1")).await;
        let reply = rig.ask(ask).await;
        reply.assert_answered();
        assert_eq!((reply.said().as_str(), reply.header("x-outlast-target")), (GOOD, Some("a/m")));
        let seen = a.seen();
        assert_eq!((seen.len(), b.seen().len()), (2, 0));
        let second = seen[1].json()["messages"].to_string();
        assert!(second.contains("summary") && second.contains("next_action"), "{second}");
        assert!(second.contains("late"), "its own reply goes back to it: {second}");
        let record = rig.record(reply.request_id()).await;
        let steps: Vec<_> = record.attempts.iter().map(|attempt| (attempt.reason, attempt.decision)).collect();
        assert_eq!(steps, [(AttemptReason::First, Decision::Repair), (AttemptReason::Repair, Decision::Deliver)]);
    }
}

#[tokio::test]
async fn a_model_that_cannot_mend_it_gives_way_to_the_next_target_or_to_an_error() {
    let broken = || model(|_| says(r#"{"summary":"late"}"#));
    let (a, b) = (broken().await, model(|_| says(GOOD)).await);
    let rig = Rig::start(&contract(&a, &b, "repair = 1")).await;
    let reply = rig.ask(Ask::chat("main", "hi")).await;
    reply.assert_answered();
    assert_eq!((reply.header("x-outlast-target"), a.seen().len()), (Some("b/m"), 2));

    let (a, b) = (broken().await, model(|_| says(GOOD)).await);
    let rig = Rig::start(&contract(&a, &b, "repair = { then = \"stop\" }")).await;
    let reply = rig.ask(Ask::chat("main", "hi")).await;
    assert_eq!((reply.status(), reply.json()["error"]["code"].as_str()), (502, Some("schema_error")));
    assert_eq!((a.seen().len(), b.seen().len()), (2, 0));
}

#[tokio::test]
async fn a_backup_that_answers_in_other_words_never_reaches_the_client() {
    let drift = json!({ "message": "the order is late", "priority": "low" }).to_string();
    let backup = drift.clone();
    let (a, b) = (model(|_| common::Act::Fails(503)).await, model(move |_| says(&backup)).await);
    let rig = Rig::start(&contract(&a, &b, "")).await;
    for ask in asks() {
        let reply = rig.ask(ask).await;
        assert_ne!(reply.status(), 200, "{}", reply.text());
        assert!(!reply.text().contains("priority"), "{}", reply.text());
        let record = rig.record(reply.request_id()).await;
        let last = record.attempts.last().unwrap();
        assert_eq!(last.problems[0].gate, Some(Gate::Drift), "{:?}", last.problems);
        assert_eq!(last.failure.as_ref().map(|report| report.failure), Some(Failure::SchemaError));
    }
}

#[tokio::test]
async fn ambiguous_output_never_passes() {
    for text in
        [format!("{GOOD}{GOOD}"), GOOD.replace("\"risk\"", "\"risk\":\"high\",\"risk\""), format!("Sure! {GOOD}")]
    {
        let a = model(move |_| says(&text)).await;
        let rig = Rig::start(&contract(&a, &a, "repair = { model = false }")).await;
        let reply = rig.ask(Ask::chat("main", "hi")).await;
        assert_ne!(reply.status(), 200, "{}", reply.text());
    }
}
