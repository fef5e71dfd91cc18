//! Replies that somebody else is asked about: a judge's route, and validators over HTTP.

mod common;

use common::{Act, Ask, Rig, Upstream, model, rig, says, upstream::Step};
use outlast_model::{
    Failure, Gate, Usd,
    record::{Decision, Outcome, Role},
};
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Two models, and one that judges; the price of its verdicts is known.
fn judged(a: &Upstream, b: &Upstream, judge: &Upstream, confidence: &str, more: &str) -> String {
    rig::two(&a.url(), &b.url()).replace("[routes.main]", "[routes.main]\ncontract = \"sure\"")
        + &rig::provider("j", "openai-compatible", &judge.url(), "")
        + &format!(
            "[routes.judge]\ntargets = [\"j/judge\"]\ntier = \"none\"\n\
             [targets.\"j/judge\"]\nprice = {{ input = 1.0, output = 2.0 }}\n\
             [contracts.sure]\nconfidence = {{ from = \"judge\", route = \"judge\", min = 0.7{confidence} }}\n{more}"
        )
}

/// Says how good an answer is by the words in it.
fn verdict(question: &Value) -> Act {
    let asked = question["messages"][1]["content"].as_str().unwrap_or_default();
    let score = if asked.contains("good answer") { 0.9 } else { 0.2 };
    says(&json!({ "score": score, "reason": "because" }).to_string())
}

#[tokio::test]
async fn a_judge_passes_the_good_and_sends_the_bad_to_the_next_target() {
    let (a, b) = (model(|_| says("a bad answer")).await, model(|_| says("a good answer")).await);
    let judge = model(verdict).await;
    let rig = Rig::start(&judged(&a, &b, &judge, "", "")).await;
    for dialect in ["openai", "anthropic"] {
        for ask in [Ask::either(dialect, "main", "hello"), Ask::either(dialect, "main", "hello").streamed()] {
            let reply = rig.ask(ask).await;
            reply.assert_answered();
            assert_eq!((reply.said().as_str(), reply.header("x-outlast-target")), ("a good answer", Some("b/m")));
            assert_eq!(reply.header("x-outlast-degraded"), None);
            let record = rig.record(reply.request_id()).await;
            assert_eq!(record.confidence, Some(0.9));
            assert_eq!(record.attempts[0].failure.as_ref().map(|report| report.failure), Some(Failure::Quality));
            assert_eq!(record.attempts[0].problems[0].gate, Some(Gate::Confidence));
        }
    }
    assert_eq!(judge.seen().len(), 8, "each reply is judged once");
}

#[tokio::test]
async fn a_verdict_is_a_call_of_its_own_that_the_judged_one_pays_for() {
    let a = model(|_| says("a good answer")).await;
    let judge = model(verdict).await;
    let rig = Rig::start(&judged(&a, &a, &judge, "", "")).await;
    let reply = rig.ask(Ask::chat("main", "hello").header("x-outlast-trace", "full")).await;
    reply.assert_answered();
    assert_eq!(reply.json()["outlast"]["confidence"], 0.9);
    let mut records = vec![rig.record(reply.request_id()).await];
    let telemetry = rig.gateway.telemetry();
    let latest = telemetry.latest(10);
    records.extend(latest.iter().map(|recorded| recorded.call.clone()).filter(|call| call.parent.is_some()));
    let [main, verdict] = records.as_slice() else { panic!("{records:?}") };
    let parent = verdict.parent.as_ref().unwrap();
    assert_eq!((parent.role, &parent.request_id), (Role::Judge, &main.request_id));
    assert_eq!(verdict.cost, Usd::from_nanos(10 * 1000 + 5 * 2000));
    assert_eq!(main.cost, verdict.cost, "the models themselves have no price here");
}

#[tokio::test]
async fn a_judge_that_is_down_or_babbles_passes_nothing_and_nobody_else_is_asked() {
    for broken in [Act::Fails(500), says("9/10, would answer again"), says("{\"score\": 7}")] {
        let (a, b) = (model(|_| says("a good answer")).await, model(|_| says("a good answer")).await);
        let judge = model(move |_| broken.clone()).await;
        let rig = Rig::start(&judged(&a, &b, &judge, "", "")).await;
        let reply = rig.ask(Ask::chat("main", "hello")).await;
        assert_eq!((reply.status(), reply.json()["error"]["code"].as_str()), (502, Some("tool_failed")));
        assert!(!reply.text().contains("good answer"));
        assert!(b.seen().is_empty(), "another target would meet the same outage");
        let record = rig.record(reply.request_id()).await;
        assert_eq!(record.attempts[0].problems[0].gate, Some(Gate::Unjudged));
    }
}

#[tokio::test]
async fn a_judge_that_hangs_is_given_up_and_its_call_is_cancelled() {
    let a = model(|_| says("a good answer")).await;
    let judge = model(|_| Act::Hangs).await;
    let rig = Rig::start(&judged(&a, &a, &judge, ", timeout = \"150ms\"", "")).await;
    let reply = rig.ask(Ask::chat("main", "hello")).await;
    assert_eq!(reply.status(), 502, "{}", reply.text());
    common::until("the judge's exchange to be dropped", || judge.left() == 1).await;
}

#[tokio::test]
async fn a_client_that_leaves_while_its_reply_is_judged_cancels_the_judge() {
    let a = model(|_| says("a good answer")).await;
    let judge = model(|_| Act::Hangs).await;
    let rig = Rig::start(&judged(&a, &a, &judge, "", "")).await;
    let ask = Ask::chat("main", "hello");
    let mut conn = common::Conn::open(rig.address()).await;
    conn.write(&ask.bytes()).await.unwrap();
    common::until("the judge to be asked", || judge.seen().len() == 1).await;
    drop(conn);
    common::until("the judge's exchange to be dropped", || judge.left() == 1).await;
    let latest = common::until_some("both records", async || {
        let latest = rig.gateway.telemetry().latest(5);
        (latest.len() == 2).then_some(latest)
    })
    .await;
    for recorded in latest {
        assert_eq!(recorded.call.outcome, Outcome::Cancelled);
    }
}

#[tokio::test]
async fn a_judge_never_spends_more_than_its_call_has_left() {
    let a = model(|_| says("a good answer")).await;
    let judge = model(verdict).await;
    // A verdict of 400 tokens at $2 a million is $0.0008; there is less than a least useful answer's worth.
    let rig = Rig::start(&judged(&a, &a, &judge, ", cost_max_usd = 0.00001", "")).await;
    let reply = rig.ask(Ask::chat("main", "hello")).await;
    assert_eq!((reply.status(), reply.json()["error"]["code"].as_str()), (502, Some("tool_failed")));
    assert!(judge.seen().is_empty());
}

/// A validator that answers what the test says.
async fn validator(answer: impl Fn(&Value) -> Vec<u8> + Send + Sync + 'static) -> Upstream {
    Upstream::start(move |request| vec![Step::Send(answer(&request.json()))]).await
}

fn json_answer(value: &Value) -> Vec<u8> {
    common::upstream::json_reply(value)
}

fn validated(a: &Upstream, b: &Upstream, validator: &Upstream) -> String {
    rig::two(&a.url(), &b.url()).replace("[routes.main]", "[routes.main]\ncontract = \"checked\"")
        + &format!(
            "[contracts.checked]\nvalidators = {{ prices = {{ url = \"{}/check\", timeout = \"300ms\" }} }}\n",
            validator.url()
        )
}

#[tokio::test]
async fn a_validator_is_given_the_request_and_the_reply_and_its_no_counts() {
    let (a, b) = (model(|_| says("It costs 5.")).await, model(|_| says("It costs 7.")).await);
    let validator = validator(|question| {
        let right = question["reply"]["text"] == "It costs 7.";
        json_answer(&json!({ "ok": right, "problems": ["wrong_price", "The reply says 5 where 7 is due."] }))
    })
    .await;
    let rig = Rig::start(&validated(&a, &b, &validator)).await;
    for ask in [Ask::chat("main", "How much?"), Ask::message("main", "How much?").streamed()] {
        let reply = rig.ask(ask).await;
        reply.assert_answered();
        assert_eq!(reply.said(), "It costs 7.");
        let record = rig.record(reply.request_id()).await;
        let problem = &record.attempts[0].problems[0];
        assert_eq!((problem.gate, &*problem.what), (Some(Gate::Validator), "prices: wrong_price"));
        assert_eq!(record.attempts[0].decision, Decision::Reroute);
    }
    let asked = validator.seen()[0].json();
    assert_eq!((&asked["validator"], &asked["route"]), (&json!("prices"), &json!("main")));
    assert_eq!(asked["request"]["messages"][0]["content"], "How much?");
}

#[tokio::test]
async fn a_validator_without_a_verdict_passes_nothing() {
    let redirect = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".to_vec();
    let huge = json_answer(&json!({ "ok": true, "padding": "x".repeat(100_000) }));
    for answer in [redirect, huge, json_answer(&json!({ "ok": "yes" })), json_answer(&json!([true])), Vec::new()] {
        let a = model(|_| says("It costs 5.")).await;
        let validator = validator(move |_| answer.clone()).await;
        let rig = Rig::start(&validated(&a, &a, &validator)).await;
        let reply = rig.ask(Ask::chat("main", "How much?")).await;
        assert_eq!((reply.status(), reply.json()["error"]["code"].as_str()), (502, Some("tool_failed")));
        assert_eq!(a.seen().len(), 1);
    }
}

#[tokio::test]
async fn the_judge_is_asked_only_about_what_passed_everything_else() {
    let asked = Arc::new(AtomicUsize::new(0));
    let a = model(|_| says("a good answer")).await;
    let judge = model(verdict).await;
    let validator = validator({
        let asked = asked.clone();
        move |_| json_answer(&json!({ "ok": asked.fetch_add(1, Ordering::SeqCst) > 0 }))
    })
    .await;
    let more = format!("validators = {{ v = {{ url = \"{}/\" }} }}\n", validator.url());
    let rig = Rig::start(&judged(&a, &a, &judge, "", &more)).await;
    rig.ask(Ask::chat("main", "hello")).await.assert_answered();
    assert_eq!((asked.load(Ordering::SeqCst), judge.seen().len()), (2, 1));
}
