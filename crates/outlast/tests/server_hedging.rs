//! Races between providers of different dialects, and races that the first attempt wins.

mod common;

use common::{
    Ask, Rig, plan,
    rig::{fake, provider, two_fakes},
};
use outlast::fake::Fake;
use outlast_model::record::{AttemptReason, Decision};

const RACED: &str = "[tiers.raced]\nattempts = 3\nhedge = { budget = 1.0 }\n[routes.main]\ntier = \"raced\"";

/// A gateway whose targets are known to be quick: the usual speed is known after twenty replies of a kind.
async fn taught(config: &str, ask: impl Fn() -> Ask) -> Rig {
    let rig = Rig::start(&config.replace("[routes.main]", RACED)).await;
    for _ in 0..25 {
        rig.ask(ask()).await.assert_answered();
    }
    rig
}

async fn race(rig: &Rig, ask: Ask, slow: &Fake) {
    slow.set_fault("*", plan("hang")).unwrap();
    let reply = rig.ask(ask).await;
    reply.assert_answered();
    assert!(reply.said().contains("beta"), "{}", reply.text());
    assert_eq!(reply.header("x-outlast-target"), Some("b/m"));
    let record = rig.record(reply.request_id()).await;
    let decided: Vec<_> = record.attempts.iter().map(|attempt| (attempt.reason, attempt.decision)).collect();
    assert_eq!(decided, [(AttemptReason::First, Decision::Outrun), (AttemptReason::Hedge, Decision::Deliver)]);
    assert!(record.attempts.iter().all(|attempt| attempt.failure.is_none()), "nobody failed: {record:?}");
    // The loser's connection is closed, not left to run on.
    slow.quiet().await;
}

#[tokio::test]
async fn a_whole_reply_is_raced_in_both_dialects() {
    let (a, b) = (fake("alpha").await, fake("beta").await);
    let config = provider("a", "openai-compatible", &a.url(), "")
        + &provider("b", "anthropic", &b.url(), "api_key = \"k\"")
        + "[routes.main]\ntargets = [\"a/m\", \"b/m\"]\n";
    for dialect in ["openai", "anthropic"] {
        a.heal().unwrap();
        let ask = || Ask::either(dialect, "main", "hello");
        let rig = taught(&config, ask).await;
        race(&rig, ask(), &a).await;
    }
}

#[tokio::test]
async fn the_first_attempt_that_wins_its_race_is_the_one_the_head_names() {
    let (a, b, config) = two_fakes().await;
    let ask = || Ask::chat("main", "hello").streamed();
    let rig = taught(&config, ask).await;
    a.set_fault("*", plan("latency:400ms")).unwrap();
    b.set_fault("*", plan("hang")).unwrap();
    let reply = rig.ask(ask()).await;
    reply.assert_answered();
    assert_eq!((reply.header("x-outlast-target"), reply.header("x-outlast-attempts")), (Some("a/m"), Some("2")));
    b.quiet().await;
}
