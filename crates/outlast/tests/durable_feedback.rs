//! What callers think of their calls: joined to the record, kept in the telemetry file, each caller's own.

mod common;

use common::{
    Ask, Rig,
    rig::{env, two_fakes},
    until_some,
};
use outlast_store::telemetry::TelemetryReader;
use serde_json::{Value, json};

fn feedback(body: Value) -> Ask {
    Ask::post("/v1/feedback", body.to_string())
}

fn key(name: &str) -> String {
    env(name).unwrap()
}

#[tokio::test]
async fn a_rating_is_joined_to_the_call_in_both_dialects_and_a_second_one_replaces_it() {
    let (_a, _b, config) = two_fakes().await;
    let rig = Rig::start(&(config + "[telemetry]\nfile = \"calls.db\"\nlog = \"off\"\n")).await;
    for dialect in ["openai", "anthropic"] {
        let call = rig.ask(Ask::either(dialect, "main", "hello")).await;
        call.assert_answered();
        let id = call.request_id().to_owned();
        let rated = rig.ask(feedback(json!({ "request_id": id, "rating": "good" }))).await;
        assert_eq!(rated.status(), 200, "{}", rated.text());
        assert_eq!((&rated.json()["target"], &rated.json()["score"]), (&json!("a/m"), &json!(1.0)));
        let again = rig.ask(feedback(json!({ "request_id": id, "score": 0.25 }))).await;
        assert_eq!(again.status(), 200, "{}", again.text());

        let file = rig.folder.path().join("calls.db");
        let kept = until_some("the second rating in the file", async || {
            TelemetryReader::open(&file).ok()?.feedback(&id, "").ok()?.filter(|rating| rating.score < 0.5)
        })
        .await;
        assert_eq!((kept.route.as_str(), kept.target.as_ref().map(|id| id.as_str())), ("main", Some("a/m")));
    }
    let metrics = rig.metrics();
    for line in [r#"outlast_feedback_total{rating="good"} 2"#, r#"outlast_feedback_total{rating="bad"} 2"#] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn nobody_rates_another_callers_call_or_one_that_is_not_on_record() {
    let (_a, _b, config) = two_fakes().await;
    let keys = "[server]\nkeys = [\"${CALLER_ONE}\", \"${CALLER_TWO}\"]\n";
    let rig = Rig::start(&(config + keys)).await;
    let call = rig.ask(Ask::chat("main", "hello").bearer(&key("CALLER_ONE"))).await;
    call.assert_answered();
    let mine = feedback(json!({ "request_id": call.request_id(), "rating": "bad" }));
    assert_eq!(rig.ask(mine.clone()).await.status(), 401);
    assert_eq!(rig.ask(mine.clone().bearer(&key("CALLER_TWO"))).await.status(), 404, "as good as unknown");
    assert_eq!(rig.ask(mine.bearer(&key("CALLER_ONE"))).await.status(), 200);
    let unknown = feedback(json!({ "request_id": "req_nobody", "rating": "bad" })).bearer(&key("CALLER_ONE"));
    assert_eq!(rig.ask(unknown).await.status(), 404);
}

#[tokio::test]
async fn what_is_no_feedback_is_refused_with_what_is_wrong() {
    let (_a, _b, config) = two_fakes().await;
    let rig = Rig::start(&config).await;
    for (body, says) in [
        (json!({ "request_id": "r" }), "rating"),
        (json!({ "request_id": "r", "score": 7 }), "0 to 1"),
        (json!({ "request_id": "r", "rating": "good", "mood": "fine" }), "mood"),
        (json!({ "request_id": "r", "rating": "good", "comment": "x".repeat(5000) }), "comment"),
    ] {
        let refused = rig.ask(feedback(body.clone())).await;
        assert_eq!(refused.status(), 400, "{body}");
        assert!(refused.text().contains(says), "{}", refused.text());
    }
    assert_eq!(rig.ask(Ask::get("/v1/feedback")).await.status(), 405);
}
