//! What a call may cost is enforced while it runs.

mod common;

use common::{
    Ask, Rig, Step, Upstream, model, rig, says,
    upstream::{STREAM_HEAD, say},
};
use outlast_model::{
    Failure, Usd,
    record::{Outcome, WhyLeftOut},
};
use serde_json::json;
use std::time::Duration;

/// Two targets of these prices per million tokens, and a cap of one cent.
fn capped(a: &Upstream, b: &Upstream, prices: [&str; 2], more: &str) -> String {
    let price = |target: &str, price: &str| match price {
        "" => String::new(),
        price => format!("[targets.\"{target}\"]\nprice = {{ input = 0.0, output = {price} }}\n"),
    };
    rig::two(&a.url(), &b.url()).replace("[routes.main]", "[routes.main]\ntier = \"cent\"")
        + &format!("[tiers.cent]\nattempts = 3\ncost_max_usd = 0.01\n{more}")
        + &price("a/m", prices[0])
        + &price("b/m", prices[1])
}

#[tokio::test]
async fn the_output_limit_is_clamped_to_the_money_that_is_left() {
    let a = model(|_| says("short")).await;
    // A cent buys 500 tokens at $20 a million.
    let rig = Rig::start(&capped(&a, &a, ["20.0", "20.0"], "")).await;
    for ask in [
        Ask::chat("main", "hi").with("max_tokens", json!(4000)),
        Ask::message("main", "hi").with("max_tokens", json!(4000)),
    ] {
        rig.ask(ask).await.assert_answered();
    }
    for request in a.seen() {
        let body = request.json();
        let limit = body["max_tokens"].as_u64().or(body["max_completion_tokens"].as_u64());
        assert!(limit.is_some_and(|limit| (400..=500).contains(&limit)), "{body}");
    }
}

#[tokio::test]
async fn a_target_that_is_too_dear_or_of_unknown_price_is_left_out_with_the_reason() {
    let (a, b) = (model(|_| says("dear")).await, model(|_| says("unknown")).await);
    let rig = Rig::start(&capped(&a, &b, ["1000.0", ""], "")).await;
    let reply = rig.ask(Ask::chat("main", "hi")).await;
    assert_eq!((reply.status(), reply.json()["error"]["code"].as_str()), (400, Some("cost_spike")), "{}", reply.text());
    assert!(a.seen().is_empty() && b.seen().is_empty());
    let record = rig.record(reply.request_id()).await;
    assert!(matches!(record.left_out[0].why, WhyLeftOut::OverBudget { .. }), "{:?}", record.left_out);
    assert_eq!(record.left_out[1].why, WhyLeftOut::PriceUnknown);
}

#[tokio::test]
async fn a_stream_that_runs_away_is_cut_and_settled() {
    let a = Upstream::start(|_| {
        let event = say("many more words than anybody has paid for, again and again and again ");
        let begin = STREAM_HEAD.to_owned() + &event;
        vec![Step::Send(begin.into_bytes()), Step::Repeat(event.into_bytes(), Duration::from_millis(1))]
    })
    .await;
    let rig = Rig::start(&capped(&a, &a, ["20.0", "20.0"], "").replace("attempts = 3", "attempts = 1")).await;
    for ask in [Ask::chat("main", "go on").streamed(), Ask::message("main", "go on").streamed()] {
        let reply = rig.ask(ask).await;
        assert!(!reply.says_it_is_complete() && reply.error_event().is_some(), "{}", reply.text());
        let record = rig.record(reply.request_id()).await;
        assert_eq!(record.outcome, Outcome::Interrupted(Failure::CostSpike));
        // No more than the cap and what is in flight beyond a reservation: a quarter, by estimate.
        assert!(record.cost <= Usd::from_nanos(13_000_000), "{}", record.cost);
    }
}

#[tokio::test]
async fn all_attempts_together_stay_under_the_cap() {
    let bad = || model(|_| says("not what is wanted"));
    let (a, b) = (bad().await, bad().await);
    let contract = "[contracts.strict]\nmust_include = [\"wanted!\"]\n";
    let config = capped(&a, &b, ["900.0", "900.0"], contract)
        .replace("tier = \"cent\"", "tier = \"cent\"\ncontract = \"strict\"");
    let rig = Rig::start(&config).await;
    // 5 tokens at $900 a million are $0.0045: two fit with a limit of 5, a third does not.
    let reply = rig.ask(Ask::chat("main", "hi").with("max_tokens", json!(5))).await;
    assert_ne!(reply.status(), 200);
    let record = rig.record(reply.request_id()).await;
    assert_eq!((record.attempts.len(), record.cost), (2, Usd::from_nanos(9_000_000)));
}

#[tokio::test]
async fn the_client_may_set_a_lower_budget_of_its_own() {
    let a = model(|_| says("short")).await;
    let rig = Rig::start(&capped(&a, &a, ["20.0", "20.0"], "")).await;
    let budget = |usd: f64| Ask::chat("main", "hi").with("outlast", json!({ "budget_usd": usd }));
    rig.ask(budget(0.004)).await.assert_answered();
    let body = a.seen()[0].json();
    assert!(body.get("outlast").is_none(), "it is for Outlast only");
    let limit = body["max_tokens"].as_u64().or(body["max_completion_tokens"].as_u64()).unwrap();
    assert!((100..=200).contains(&limit), "{body}");
    let reply = rig.ask(budget(0.0001)).await;
    assert_eq!(reply.json()["error"]["code"].as_str(), Some("cost_spike"), "{}", reply.text());
}
