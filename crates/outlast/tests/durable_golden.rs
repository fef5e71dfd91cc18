//! Golden tasks: each target is asked for an answer with known properties, and it counts as nobody's traffic.

mod common;

use common::{
    Rig, plan,
    rig::{fake, provider},
    until,
};
use outlast_model::record::{CallRecord, Role};

#[tokio::test]
async fn each_target_that_may_be_asked_is_held_to_the_task_and_nobodys_traffic_is_counted() {
    let (good, bad, shy) = (fake("alpha").await, fake("beta").await, fake("gamma").await);
    good.set_fault("*", plan("say:The%20capital%20is%20Paris.")).unwrap();
    bad.set_fault("*", plan("say:The%20capital%20is%20Lyon.")).unwrap();
    let asked = |name: &str, url: &str| provider(name, "openai-compatible", url, "").replace("probes = false", "");
    let config = asked("good", &good.url())
        + &asked("bad", &bad.url())
        + &provider("shy", "openai-compatible", &shy.url(), "")
        + "[routes.main]\ntargets = [\"good/m\", \"bad/m\", \"shy/m\"]\n"
        + "[golden.capital]\nroute = \"main\"\nevery = \"1m\"\ninput = \"What is the capital of France?\"\n"
        + "must_include = [\"Paris\"]\nmust_not = [\"Lyon\"]\n";
    let rig = Rig::start(&config).await;
    let counted = |metrics: &str, line: &str| metrics.contains(&format!("outlast_golden_total{{result=\"{line}\"}} 1"));
    until("both verdicts", || {
        let metrics = rig.metrics();
        counted(&metrics, "passed") && counted(&metrics, "failed")
    })
    .await;
    let records: Vec<CallRecord> =
        rig.gateway.telemetry().latest(8).iter().map(|recorded| recorded.call.clone()).collect();
    assert_eq!(records.len(), 2, "{records:?}");
    for record in &records {
        let parent = record.parent.as_ref().expect("no client made it");
        assert_eq!((parent.role, parent.request_id.as_str()), (Role::Golden, "capital"));
        assert_eq!(record.route.as_str(), "golden:capital");
    }
    assert!(records.iter().any(|record| record.served_by.as_ref().is_some_and(|target| target.as_str() == "good/m")));
    assert_eq!(shy.log().len(), 0, "where probes are off, golden tasks are");
    let metrics = rig.metrics();
    assert!(!metrics.contains("outlast_calls_total{"), "no traffic: {metrics}");
}

#[tokio::test]
async fn a_target_that_gives_no_answer_has_no_verdict() {
    let down = fake("alpha").await;
    down.set_fault("*", plan("503")).unwrap();
    let config = provider("a", "openai-compatible", &down.url(), "").replace("probes = false", "")
        + "[routes.main]\ntargets = [\"a/m\"]\n"
        + "[golden.capital]\nroute = \"main\"\nevery = \"1m\"\ninput = \"What?\"\nmust_include = [\"Paris\"]\n";
    let rig = Rig::start(&config).await;
    until("no verdict", || rig.metrics().contains("outlast_golden_total{result=\"unanswered\"} 1")).await;
    assert!(rig.metrics().contains("outlast_golden_total{result=\"failed\"} 0"));
}
