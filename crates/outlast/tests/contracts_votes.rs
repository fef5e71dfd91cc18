//! Calls that are decided by votes.

mod common;

use common::{Act, Ask, Rig, Upstream, model, rig, says};
use outlast_model::{
    Failure, Usd,
    record::{Agreement, GaveUp, Outcome},
};
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A route `main` over these models, whose tier votes.
fn voting(models: &[&Upstream], votes: &str, more: &str) -> String {
    let providers: String = models
        .iter()
        .enumerate()
        .map(|(at, model)| rig::provider(&format!("p{at}"), "openai-compatible", &model.url(), ""))
        .collect();
    let targets: Vec<String> = (0..models.len()).map(|at| format!("\"p{at}/m\"")).collect();
    let targets = targets.join(", ");
    format!(
        "{providers}[routes.main]\ntargets = [{targets}]\ntier = \"vote\"\n\
         [tiers.vote]\nattempts = 1\nvotes = {{ {votes} }}\n{more}"
    )
}

/// A model that gives these answers in turn, the last one for ever.
async fn in_turn(answers: &[&str]) -> Upstream {
    let answers: Vec<String> = answers.iter().map(ToString::to_string).collect();
    let next = AtomicUsize::new(0);
    model(move |_| says(&answers[next.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1)])).await
}

#[tokio::test]
async fn two_targets_that_agree_at_once_settle_it() {
    let (a, b, c) = (in_turn(&["Paris."]).await, in_turn(&["paris"]).await, in_turn(&["Lyon"]).await);
    let rig = Rig::start(&voting(&[&a, &b, &c], "ahead = 2, samples = 5", "")).await;
    for dialect in ["openai", "anthropic"] {
        for ask in [Ask::either(dialect, "main", "capital?"), Ask::either(dialect, "main", "capital?").streamed()] {
            let reply = rig.ask(ask.header("x-outlast-trace", "full")).await;
            reply.assert_answered();
            assert_eq!(reply.header("x-outlast-attempts"), Some("2"));
            let record = rig.record(reply.request_id()).await;
            assert_eq!(record.agreement, Some(Agreement { votes_for: 2, votes: 2, dropped: 0 }));
            assert_eq!((record.outcome, record.attempts.len(), record.degraded), (Outcome::Answered, 2, false));
        }
    }
    assert!(c.seen().is_empty(), "nobody asks a third where two have decided");
}

#[tokio::test]
async fn a_dissenter_is_outvoted_and_the_reply_says_how_it_went() {
    let (a, b, c) = (in_turn(&["Lyon"]).await, in_turn(&["Paris"]).await, in_turn(&["Paris"]).await);
    let d = in_turn(&["Paris"]).await;
    let rig = Rig::start(&voting(&[&a, &b, &c, &d], "ahead = 2, samples = 5", "")).await;
    let reply = rig.ask(Ask::chat("main", "capital?").header("x-outlast-trace", "full")).await;
    reply.assert_answered();
    assert_eq!(reply.said(), "Paris");
    let agreement = reply.json()["outlast"]["agreement"].clone();
    assert_eq!(
        (&agreement["votes_for"], &agreement["votes"], &agreement["dropped"]),
        (&json!(3), &json!(4), &json!(0))
    );
    assert!(agreement["meaning"].as_str().unwrap().contains("no proof"), "{agreement}");
    let record = rig.record(reply.request_id()).await;
    let asked: Vec<&str> = record.attempts.iter().map(|attempt| attempt.target.as_str()).collect();
    assert_eq!(asked.len(), 4);
    assert!(record.served_by.unwrap().as_str() != "p0/m");
    assert_eq!(rig.gateway.telemetry().latest(10).len(), 1, "votes are part of one record");
}

#[tokio::test]
async fn json_answers_agree_field_by_field() {
    let answer = |price: f64, note: &str| json!({ "city": "Paris", "price": price, "note": note }).to_string();
    let a = in_turn(&[&answer(10.0, "cheap")]).await;
    let b = in_turn(&[&answer(10.004, "a bargain")]).await;
    let votes = "ahead = 2, samples = 3, fields = { price = { number = 0.01 }, note = \"ignore\" }";
    let rig = Rig::start(&voting(&[&a, &b], votes, "")).await;
    let reply = rig.ask(Ask::chat("main", "price?").header("x-outlast-trace", "full")).await;
    reply.assert_answered();
    assert_eq!(reply.json()["outlast"]["agreement"]["votes_for"], 2);
    let said: Value = serde_json::from_str(&reply.said()).unwrap();
    assert!(said["note"] == "cheap" || said["note"] == "a bargain", "one whole answer, never a mix: {said}");
}

#[tokio::test]
async fn votes_that_stay_divided_end_in_an_error_or_in_a_marked_majority() {
    let models = async || {
        let models = [in_turn(&["one"]).await, in_turn(&["two"]).await, in_turn(&["one"]).await];
        (models, in_turn(&["three"]).await)
    };
    let ([a, b, c], d) = models().await;
    let rig = Rig::start(&voting(&[&a, &b, &c, &d], "ahead = 2, samples = 4", "")).await;
    let reply = rig.ask(Ask::chat("main", "?")).await;
    assert_eq!((reply.status(), reply.json()["error"]["code"].as_str()), (502, Some("quality")));
    let record = rig.record(reply.request_id()).await;
    assert_eq!((record.outcome, record.attempts.len()), (Outcome::Failed(Failure::Exhausted), 4));

    let ([a, b, c], d) = models().await;
    let rules = "ahead = 2, samples = 4, disagreement = \"majority\"";
    let rig = Rig::start(&voting(&[&a, &b, &c, &d], rules, "")).await;
    let reply = rig.ask(Ask::chat("main", "?")).await;
    reply.assert_answered();
    assert_eq!((reply.said().as_str(), reply.header("x-outlast-degraded")), ("one", Some("agreement")));
    let notice = reply.json()["outlast"]["notice"].as_str().unwrap().to_owned();
    assert!(notice.contains("did not agree"), "{notice}");
    assert_eq!(rig.record(reply.request_id()).await.gave_up, [GaveUp::Agreement]);
}

#[tokio::test]
async fn a_share_of_votes_is_a_confidence_and_may_be_too_low() {
    let rules = "ahead = 2, samples = 5";
    let sure = |min: f64| format!("[contracts.sure]\nconfidence = {{ from = \"votes\", min = {min} }}\n");
    for (min, answered) in [(0.7, true), (0.8, false)] {
        let (a, b, c) = (in_turn(&["Lyon"]).await, in_turn(&["Paris"]).await, in_turn(&["Paris"]).await);
        let d = in_turn(&["Paris"]).await;
        let config = voting(&[&a, &b, &c, &d], rules, &sure(min))
            .replace("tier = \"vote\"\n", "tier = \"vote\"\ncontract = \"sure\"\n");
        let rig = Rig::start(&config).await;
        let reply = rig.ask(Ask::chat("main", "capital?")).await;
        assert_eq!(reply.status() == 200, answered, "{}", reply.text());
        if answered {
            assert_eq!(rig.record(reply.request_id()).await.confidence, Some(0.75));
        }
    }
}

#[tokio::test]
async fn a_target_that_fails_or_is_malformed_costs_a_vote_and_not_the_call() {
    let (a, b) = (model(|_| Act::Fails(500)).await, in_turn(&["{\"x\": 1}"]).await);
    let (c, d) = (in_turn(&["no JSON"]).await, in_turn(&["{\"x\": 1}"]).await);
    let rig = Rig::start(&voting(&[&a, &b, &c, &d], "ahead = 2, samples = 5, fields = { x = \"exact\" }", "")).await;
    let reply = rig.ask(Ask::chat("main", "?").header("x-outlast-trace", "full")).await;
    reply.assert_answered();
    let agreement = reply.json()["outlast"]["agreement"].clone();
    assert_eq!((&agreement["votes_for"], &agreement["dropped"]), (&json!(2), &json!(2)), "{agreement}");
}

#[tokio::test]
async fn when_nobody_can_vote_the_client_is_told_why() {
    let (a, b) = (model(|_| Act::Fails(500)).await, model(|_| Act::Fails(500)).await);
    let rig = Rig::start(&voting(&[&a, &b], "ahead = 2, samples = 3", "")).await;
    let reply = rig.ask(Ask::message("main", "?")).await;
    assert_eq!((reply.status(), reply.json()["error"]["type"].as_str()), (502, Some("api_error")), "{}", reply.text());
}

#[tokio::test]
async fn a_safety_block_ends_a_vote_and_reaches_no_backstop() {
    let asked = Arc::new(AtomicUsize::new(0));
    let blocks = || {
        let asked = asked.clone();
        model(move |_| {
            asked.fetch_add(1, Ordering::SeqCst);
            Act::Blocks
        })
    };
    let (a, b, c) = (blocks().await, blocks().await, blocks().await);
    let more = "[backstops.sorry]\nkind = \"static\"\nreply = \"Sorry.\"\n";
    let config = voting(&[&a, &b, &c], "ahead = 2, samples = 5", more)
        .replace("tier = \"vote\"\n", "tier = \"vote\"\nbackstops = [\"sorry\"]\n");
    let rig = Rig::start(&config).await;
    let reply = rig.ask(Ask::chat("main", "?")).await;
    assert_eq!((reply.status(), reply.json()["error"]["code"].as_str()), (400, Some("content_filter")));
    assert!(asked.load(Ordering::SeqCst) <= 2, "only the votes that were out already");
}

#[tokio::test]
async fn samples_come_from_one_target_and_the_money_is_shared_among_them() {
    let a = in_turn(&["Paris", "Lyon", "Paris", "Paris"]).await;
    let more = "[targets.\"p0/m\"]\nprice = { input = 1.0, output = 10.0 }\n";
    let config = voting(&[&a], "ahead = 2, samples = 5, spread = \"samples\"", more)
        .replace("attempts = 1\n", "attempts = 1\ncost_max_usd = 0.01\n");
    let rig = Rig::start(&config).await;
    let reply = rig.ask(Ask::chat("main", "capital?")).await;
    reply.assert_answered();
    let limits: Vec<u64> = a
        .seen()
        .iter()
        .map(|request| {
            request.json()["max_tokens"].as_u64().or(request.json()["max_completion_tokens"].as_u64()).unwrap()
        })
        .collect();
    // A fifth of a cent's worth of output at $10 a million for the first of five.
    assert!(limits[0] <= 200, "{limits:?}");
    let record = rig.record(reply.request_id()).await;
    assert!(record.cost < Usd::from_nanos(10_000_000));
    assert_eq!(record.attempts.len(), 4);
}

#[tokio::test]
async fn a_client_that_leaves_cancels_every_vote_and_they_are_in_its_record() {
    let (a, b) = (model(|_| Act::Hangs).await, model(|_| Act::Hangs).await);
    let rig = Rig::start(&voting(&[&a, &b], "ahead = 2, samples = 3", "")).await;
    let mut conn = common::Conn::open(rig.address()).await;
    conn.write(&Ask::chat("main", "?").bytes()).await.unwrap();
    common::until("both to be asked", || a.seen().len() == 1 && b.seen().len() == 1).await;
    drop(conn);
    common::until("both to be left", || a.left() == 1 && b.left() == 1).await;
    let record = rig.latest_of(1).await;
    assert_eq!((record.outcome, record.attempts.len()), (Outcome::Cancelled, 2));
}

/// The tier's judge of other words.
const JUDGED: &str = "ahead = 2, samples = 3, judge = { route = \"compare\" }";

fn compare(judge: &Upstream) -> String {
    rig::provider("judge", "openai-compatible", &judge.url(), "") + "[routes.compare]\ntargets = [\"judge/m\"]\n"
}

#[tokio::test]
async fn a_judge_says_which_texts_mean_the_same_in_other_words() {
    let (a, b) = (in_turn(&["It is Paris."]).await, in_turn(&["The capital is Paris, of course."]).await);
    let judge = in_turn(&[r#"{"same": true, "reason": "both name Paris"}"#]).await;
    let rig = Rig::start(&voting(&[&a, &b], JUDGED, &compare(&judge))).await;
    let reply = rig.ask(Ask::chat("main", "capital?").header("x-outlast-trace", "full")).await;
    reply.assert_answered();
    assert_eq!(reply.said(), "It is Paris.");
    let agreement = &reply.json()["outlast"]["agreement"];
    assert_eq!((&agreement["votes_for"], &agreement["votes"]), (&json!(2), &json!(2)));
    let asked = judge.seen();
    assert_eq!(asked.len(), 1);
    let question = asked[0].json().to_string();
    assert!(question.contains("It is Paris.") && question.contains("of course"), "{question}");
    // The same words need nobody to compare them.
    let (a, b) = (in_turn(&["Paris"]).await, in_turn(&["paris!"]).await);
    let rig = Rig::start(&voting(&[&a, &b], JUDGED, &compare(&judge))).await;
    rig.ask(Ask::chat("main", "capital?")).await.assert_answered();
    assert_eq!(judge.seen().len(), 1);
}

#[tokio::test]
async fn texts_that_no_judge_calls_the_same_stay_different() {
    for verdict in [r#"{"same": false, "reason": "no"}"#, "They are the same.", r#"{"score": 1}"#] {
        let (a, b) = (in_turn(&["It is Paris."]).await, in_turn(&["It is Lyon."]).await);
        let judge = in_turn(&[verdict]).await;
        let votes = JUDGED.replace("samples = 3", "samples = 2");
        let rig = Rig::start(&voting(&[&a, &b], &votes, &compare(&judge))).await;
        let reply = rig.ask(Ask::chat("main", "capital?")).await;
        assert_eq!(reply.status(), 502, "{verdict}: {}", reply.text());
        assert_eq!(reply.json()["error"]["code"], "quality", "{verdict}");
        assert!(!reply.text().contains("Paris") && !reply.text().contains("Lyon"));
    }
}
