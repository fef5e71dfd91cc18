//! The `cache`, `static` and `rules` backstops: what is given when no model answers, and that it is marked.

mod common;

use common::{
    Ask, Reply, Rig, plan,
    rig::{env, fake, provider},
    until,
};
use outlast::fake::Fake;
use outlast_model::record::{GaveUp, Outcome};
use serde_json::json;

const DIALECTS: [&str; 2] = ["openai", "anthropic"];

fn config(a: &Fake, backstops: &str, more: &str) -> String {
    provider("a", "openai-compatible", &a.url(), "")
        + &format!("[routes.main]\ntargets = [\"a/m\"]\nbackstops = {backstops}\n{more}")
}

async fn kept(rig: &Rig, count: usize) {
    let line = format!("outlast_cache_stored_total{{result=\"kept\"}} {count}");
    until("the reply to be kept", || rig.metrics().contains(&line)).await;
}

/// A degraded reply that gave up this, in headers and in the body.
fn assert_marked(reply: &Reply, what: &str) {
    assert_eq!(reply.status(), 200, "{}", reply.text());
    assert_eq!(reply.header("x-outlast-degraded"), Some(what), "{:?}", reply.head);
    let told = match reply.is_stream() {
        false => reply.json()["outlast"].clone(),
        true => {
            reply.events().iter().map(|event| event.json()["outlast"].clone()).find(|told| told.is_object()).unwrap()
        }
    };
    assert_eq!(told["gave_up"], json!([what]), "{told}");
    assert_eq!(told["degraded"], json!(true));
    assert!(told["notice"].as_str().is_some_and(|notice| !notice.is_empty()), "{told}");
}

#[tokio::test]
async fn the_last_good_reply_is_given_again_marked_with_its_age_streamed_or_not() {
    let a = fake("alpha").await;
    let rig = Rig::start(&config(&a, "[\"cache\"]", "")).await;
    for (n, dialect) in DIALECTS.into_iter().enumerate() {
        let ask = Ask::either(dialect, "main", "what is it?");
        let good = rig.ask(ask.clone()).await;
        good.assert_answered();
        kept(&rig, n + 1).await;
        a.set_fault("*", plan("503")).unwrap();
        for streamed in [false, true] {
            let again = rig.ask(ask.clone().with("stream", json!(streamed))).await;
            assert_marked(&again, "freshness");
            assert_eq!((again.is_stream(), again.said()), (streamed, good.said()));
            let record = rig.record(again.request_id()).await;
            assert_eq!(record.outcome, Outcome::Answered);
            assert!(matches!(record.gave_up[..], [GaveUp::Freshness { .. }]), "{:?}", record.gave_up);
            assert_eq!(record.backstop.map(|backstop| backstop.name.to_string()).as_deref(), Some("cache"));
        }
        let other = rig.ask(Ask::either(dialect, "main", "something else")).await;
        assert!(other.status() >= 500, "no reply to that is kept: {}", other.text());
        a.heal().unwrap();
    }
}

#[tokio::test]
async fn nobody_gets_another_callers_reply() {
    let a = fake("alpha").await;
    let keys = "[server]\nkeys = [\"${CALLER_ONE}\", \"${CALLER_TWO}\"]\n";
    let rig = Rig::start(&config(&a, "[\"cache\"]", keys)).await;
    let ask = |caller: &str| Ask::chat("main", "hello").bearer(&env(caller).unwrap());
    rig.ask(ask("CALLER_ONE")).await.assert_answered();
    kept(&rig, 1).await;
    a.set_fault("*", plan("503")).unwrap();
    assert!(rig.ask(ask("CALLER_TWO")).await.status() >= 500);
    assert_marked(&rig.ask(ask("CALLER_ONE")).await, "freshness");
}

#[tokio::test]
async fn what_is_no_whole_answer_is_not_kept() {
    let a = fake("alpha").await;
    let rig = Rig::start(&config(&a, "[\"cache\"]", "")).await;
    let tool = json!([{ "type": "function", "function": { "name": "pay", "parameters": { "type": "object" } } }]);
    let acting = Ask::chat("main", "use the tool").with("tools", tool);
    let called = rig.ask(acting.clone()).await;
    assert_eq!(called.status(), 200, "{}", called.text());
    assert!(called.text().contains("tool_calls"), "{}", called.text());
    let cut = Ask::chat("main", "be brief");
    a.set_fault("*", plan("truncated")).unwrap();
    rig.ask(cut.clone()).await;
    a.set_fault("*", plan("503")).unwrap();
    for ask in [acting, cut] {
        assert!(rig.ask(ask).await.status() >= 500);
    }
    assert!(rig.metrics().contains("outlast_cache_stored_total{result=\"kept\"} 0"));
}

#[tokio::test]
async fn an_old_reply_is_not_given() {
    let a = fake("alpha").await;
    let more = "[backstops.fresh]\nkind = \"cache\"\nmax_age = \"1s\"\n";
    let rig = Rig::start(&config(&a, "[\"fresh\"]", more)).await;
    let ask = Ask::chat("main", "hello");
    rig.ask(ask.clone()).await.assert_answered();
    kept(&rig, 1).await;
    a.set_fault("*", plan("503")).unwrap();
    common::until_some("the reply to be too old", async || {
        Some(rig.ask(ask.clone()).await.status()).filter(|status| *status >= 500)
    })
    .await;
}

#[tokio::test]
async fn the_first_rule_that_fits_gives_its_reply_and_else_the_static_one_does() {
    let a = fake("alpha").await;
    let more = r#"
[backstops.faq]
kind = "rules"
rules = [
  { when = "'refund' in text", reply = "Refunds take {{ 3 + 2 }} days." },
  { when = "request.user is defined", reply = "Known user." },
]
[backstops.sorry]
kind = "static"
reply = "We cannot answer on {{ request.model }} now."
"#;
    let rig = Rig::start(&config(&a, "[\"faq\", \"sorry\"]", more)).await;
    a.set_fault("*", plan("503")).unwrap();
    for dialect in DIALECTS {
        for (text, says) in
            [("where is my refund?", "Refunds take 5 days."), ("hello", "We cannot answer on main now.")]
        {
            for streamed in [false, true] {
                let reply = rig.ask(Ask::either(dialect, "main", text).with("stream", json!(streamed))).await;
                assert_marked(&reply, "model");
                assert_eq!(reply.said(), says);
                assert_eq!(reply.is_stream(), streamed);
            }
        }
    }
}

#[tokio::test]
async fn a_fixed_reply_that_breaks_the_contract_is_not_given() {
    let a = fake("alpha").await;
    let more = r#"contract = "polite"
[contracts.polite]
must_include = ["please"]
[backstops.rude]
kind = "rules"
rules = [{ when = "true", reply = "{{ text }}" }]
"#;
    let rig = Rig::start(&config(&a, "[\"rude\"]", more)).await;
    a.set_fault("*", plan("503")).unwrap();
    let refused = rig.ask(Ask::chat("main", "go away")).await;
    assert!(refused.status() >= 500, "{}", refused.text());
    assert!(!refused.text().contains("go away"), "{}", refused.text());
    let given = rig.ask(Ask::chat("main", "go away, please")).await;
    assert_marked(&given, "model");
}
