//! The worker protocol, call by call: what each answers, and that each may be said again.

mod common;

use common::{
    Ask, Rig,
    runs::{Api, config, refused},
};
use serde_json::json;

async fn api() -> (Rig, Api) {
    let rig = Rig::start(&config("")).await;
    let api = Api::of(&rig);
    (rig, api)
}

#[tokio::test]
async fn a_run_goes_from_its_start_to_its_result() {
    let (_rig, api) = api().await;
    let started = api.post("/v1/runs", json!({ "workflow": "refund", "input": { "order": 7, "n": 1.50 } })).await;
    assert_eq!(started.status(), 201, "{}", started.text());
    let run = started.json();
    let id = run["id"].as_str().unwrap();
    assert!(id.starts_with("run_"), "{id}");
    assert_eq!((&run["state"], &run["queue"], &run["version"]), (&json!("ready"), &json!("default"), &json!("1")));
    assert_eq!(api.get(&format!("/v1/runs/{id}/result")).await.status(), 202);

    let claim = api.claim("w-1", json!({ "lease_s": 20 })).await.expect("a run");
    assert_eq!((claim.id.as_str(), &claim.told["lease_s"]), (id, &json!(20.0)));
    assert_eq!(claim.told["input"], json!({ "order": 7, "n": 1.50 }));
    assert_eq!(claim.told["run"]["state"], "running");
    assert!(api.claim("w-2", json!({})).await.is_none(), "it is held");
    assert_eq!(claim.heartbeat(20.0).await.json(), json!({ "lease": "held" }));

    let begun = claim.begin("order", json!({ "class": "pure", "input": { "id": 7 }, "timeout_s": 30 })).await;
    let told = begun.json();
    assert_eq!((&told["do"], &told["attempt"], &told["epoch"]), (&json!("execute"), &json!(1), &json!(claim.epoch)));
    assert!(told["idempotency_key"].as_str().is_some_and(|key| key.starts_with("ol-") && key.len() == 35), "{told}");
    assert!((25_000..=30_000).contains(&told["deadline_ms"].as_i64().unwrap()), "{told}");
    let ended = claim.end("order", json!({ "attempt": 1, "ok": { "total": 20.10 }, "cost_usd": 0.25 })).await;
    assert_eq!(ended.json(), json!({ "step": "done" }));

    let replayed = claim.begin("order", json!({ "input": { "id": 7 } })).await.json();
    assert_eq!(replayed, json!({ "do": "replay", "ok": { "total": 20.10 }, "diverged": false }));
    let journal = api.get(&format!("/v1/runs/{id}/journal")).await.json();
    assert_eq!(journal["steps"][0]["key"], "order");
    assert_eq!((&journal["steps"][0]["state"], &journal["next"]), (&json!("done"), &json!(null)));
    let step = api.get(&format!("/v1/runs/{id}/steps/order")).await.json();
    assert_eq!((&step["ok"], &step["spent_usd"]), (&json!({ "total": 20.10 }), &json!(0.25)));

    let finished = claim.post("finish", json!({ "ok": "refunded" })).await;
    assert_eq!(finished.json(), json!({ "state": "done" }));
    let result = api.get(&format!("/v1/runs/{id}/result")).await;
    assert_eq!((result.status(), result.json()), (200, json!({ "state": "done", "output": "refunded" })));
    let shown = api.get(&format!("/v1/runs/{id}")).await.json();
    assert_eq!((&shown["state"], &shown["spent_usd"], &shown["steps"]), (&json!("done"), &json!(0.25), &json!(1)));
    assert_eq!(shown["input"]["order"], 7);
}

#[tokio::test]
async fn a_path_a_field_or_a_method_that_is_wrong_is_named() {
    let (_rig, api) = api().await;
    for (path, body, says) in [
        ("/v1/runs", json!({ "workflow": "w", "inptu": 1 }), "`inptu`"),
        ("/v1/runs", json!({}), "`workflow` is missing"),
        ("/v1/runs", json!({ "workflow": "w", "id": "a b" }), "`id` must be"),
        ("/v1/runs", json!({ "workflow": "w", "queue": "outlast:refund" }), "belong to the server"),
        ("/v1/runs", json!({ "workflow": "w", "priority": "urgent" }), "`priority` must be critical"),
        ("/v1/runs", json!({ "workflow": "w", "after_s": "soon" }), "`after_s` must be a number"),
        ("/v1/claim", json!({ "worker": "w" }), "`queues` is missing"),
        ("/v1/claim", json!({ "worker": "w", "queues": ["q"], "wait_s": 61 }), "`wait_s` must be"),
        ("/v1/claim", json!({ "worker": "w", "queues": ["outlast:x"] }), "belong to the server"),
        ("/v1/runs/r/steps/a/begin", json!({ "class": "twice" }), "`class` must be \"pure\""),
        ("/v1/runs/r/steps/a/begin", json!({ "key": "k" }), "`key` needs a `scope`"),
        ("/v1/runs/r/steps/a/begin", json!({ "retry": { "attempts": 0 } }), "at least 1"),
        ("/v1/runs/r/steps/a/begin", json!({ "retry": { "atempts": 1 } }), "`atempts`"),
        ("/v1/runs/r/steps/a/begin", json!({ "fingerprint": "abc" }), "64 hexadecimal digits"),
        ("/v1/runs/r/steps/a/end", json!({ "epoch": 1, "attempt": 1 }), "Say how it ended"),
        ("/v1/runs/r/steps/a/end", json!({ "epoch": 1, "attempt": 1, "ok": 1, "error": {} }), "Say how it ended"),
        ("/v1/runs/r/wait", json!({ "epoch": 1, "key": "k" }), "Wait for something"),
        ("/v1/runs/r/wait", json!({ "epoch": 1, "key": "k", "until": "tomorrow" }), "`until` must be a time"),
        ("/v1/runs/r/heartbeat", json!({}), "`epoch` is missing"),
        ("/v1/runs/r/finish", json!({ "epoch": 1 }), "Say how it ended"),
    ] {
        let reply = api.post(path, body.clone()).await;
        let message = reply.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!(reply.status(), 400, "{path} {body}: {message}");
        assert!(message.contains(says), "{path} {body}: {message}");
    }
    assert_eq!(refused(&api.get("/v1/claim").await), (405, "method_not_allowed".into()));
    assert_eq!(refused(&api.get("/v1/runs/r/elsewhere").await), (404, "not_found".into()));
    let deep = format!(r#"{{"workflow":"w","input":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    assert_eq!(api.ask(Ask::post("/v1/runs", deep)).send(_rig.address()).await.status(), 400);
    for path in ["/v1/runs/none", "/v1/runs/none/journal", "/v1/runs/none/result", "/v1/runs/none/steps/a"] {
        assert_eq!(refused(&api.get(path).await), (404, "no_such_run".into()), "{path}");
    }
}
