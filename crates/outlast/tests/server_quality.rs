//! Quality over time: a target whose replies break is ranked down on that route, the operator sees why, and a person is
//! told.

mod common;

use common::{Ask, Rig, plan, rig::two_fakes};
use serde_json::Value;

/// The signals of a target, as `GET /v1/targets` shows them.
async fn quality(rig: &Rig, target: &str) -> Value {
    let targets = rig.ask(Ask::get("/v1/targets")).await.json();
    let found = targets["targets"].as_array().unwrap().iter().find(|view| view["target"] == target);
    found.expect("the target is listed")["quality"].clone()
}

#[tokio::test]
async fn a_target_that_breaks_schemas_is_asked_last_on_that_route_and_the_operator_sees_why() {
    let (a, b, config) = two_fakes().await;
    let config = config + "[routes.other]\ntargets = [\"a/m\", \"b/m\"]\n";
    let rig = Rig::start(&config).await;
    a.set_fault("*", plan("schema-drift")).unwrap();
    for _ in 0..12 {
        rig.ask(Ask::chat("main", "hello").with_schema()).await.assert_answered();
    }
    assert_eq!((a.count(), b.count()), (5, 12), "five replies tell");
    let seen = quality(&rig, "a/m").await;
    assert!(seen["golden"].is_null(), "{seen}");
    let [on_main] = seen["routes"].as_array().unwrap().as_slice() else { panic!("{seen}") };
    assert_eq!(on_main["route"], "main");
    let signal = |name: &str| on_main["signals"].as_array().unwrap().iter().find(|it| it["signal"] == name).unwrap();
    let schema = signal("schema");
    assert_eq!((&schema["alarm"]["observed"], &schema["alarm"]["bad"]), (&5.into(), &5.into()), "{schema}");
    assert_eq!((schema["rate"].as_f64(), schema["baseline"].as_f64()), (Some(1.0), Some(0.05)));
    assert!(signal("refusal")["alarm"].is_null());

    let metrics = rig.metrics();
    for line in [
        "outlast_quality_alarm{target=\"a/m\",route=\"main\",signal=\"schema\"} 1",
        "outlast_quality_rate{target=\"a/m\",route=\"main\",signal=\"schema\"} 1",
        "outlast_quality_alarm{target=\"b/m\",route=\"main\",signal=\"schema\"} 0",
        "outlast_target_demoted{target=\"a/m\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }

    a.heal().unwrap();
    let reply = rig.ask(Ask::chat("other", "hello")).await;
    assert_eq!(reply.header("x-outlast-target"), Some("a/m"), "another route does not mind");
    b.set_fault("*", plan("503")).unwrap();
    let reply = rig.ask(Ask::chat("main", "hello").with_schema()).await;
    reply.assert_answered();
    assert_eq!(reply.header("x-outlast-target"), Some("a/m"), "ranked down is not dropped");
}
