//! Signals, timers, cancellation: what a run waits for, and what stops it.

mod common;

use common::{
    Rig,
    runs::{Api, config, refused},
    until_some,
};
use serde_json::json;

async fn api() -> (Rig, Api) {
    let rig = Rig::start(&config("")).await;
    let api = Api::of(&rig);
    (rig, api)
}

async fn signal(api: &Api, id: &str, name: &str, dedupe: &str, payload: serde_json::Value) -> common::Reply {
    api.post(&format!("/v1/runs/{id}/signals"), json!({ "name": name, "id": dedupe, "payload": payload })).await
}

#[tokio::test]
async fn a_signal_is_taken_whether_it_comes_before_the_wait_or_after_and_once_however_often_it_is_sent() {
    let (_rig, api) = api().await;
    let id = api.start(json!({ "workflow": "w" })).await;
    assert_eq!(signal(&api, &id, "paid", "s-1", json!({ "by": "card" })).await.json(), json!({ "first": true }));
    assert_eq!(signal(&api, &id, "paid", "s-1", json!({ "by": "card" })).await.json(), json!({ "first": false }));
    let claim = api.claim("w-1", json!({})).await.unwrap();
    let early = claim.post("wait", json!({ "key": "payment", "signals": ["refunded", "paid"] })).await.json();
    assert_eq!(early, json!({ "do": "go", "signal": { "name": "paid", "payload": { "by": "card" } } }));

    let late = json!({ "key": "second", "signals": ["paid"] });
    assert_eq!(claim.post("wait", late.clone()).await.json(), json!({ "do": "parked" }));
    let run = api.get(&format!("/v1/runs/{id}")).await.json();
    assert_eq!(
        (&run["state"], &run["waits_at"], &run["waits_for"]),
        (&json!("waiting"), &json!("second"), &json!(["paid"]))
    );
    assert_eq!(claim.heartbeat(5.0).await.status(), 410, "the lease is dropped");
    assert!(api.claim("w-2", json!({})).await.is_none());
    // Its own repetition wakes nobody; another signal does.
    signal(&api, &id, "paid", "s-1", json!(1)).await;
    signal(&api, &id, "other", "s-2", json!(1)).await;
    assert!(api.claim("w-2", json!({})).await.is_none());
    signal(&api, &id, "paid", "s-3", json!(3)).await;
    let claim = api.claim("w-2", json!({})).await.expect("it is awake");
    for _ in 0..2 {
        let waited = claim.post("wait", late.clone()).await.json();
        assert_eq!(waited, json!({ "do": "go", "signal": { "name": "paid", "payload": 3 } }));
    }
}

#[tokio::test]
async fn a_wait_under_the_key_of_another_step_is_a_mismatch() {
    let (_rig, api) = api().await;
    api.start(json!({ "workflow": "w" })).await;
    let claim = api.claim("w-1", json!({})).await.unwrap();
    claim.step("a", json!(1)).await;
    let wait = claim.post("wait", json!({ "key": "a", "signals": ["x"] })).await;
    assert_eq!(refused(&wait), (422, "step_mismatch".into()));
}

#[tokio::test]
async fn a_timer_wakes_a_run_that_waits() {
    let (_rig, api) = api().await;
    let id = api.start(json!({ "workflow": "w" })).await;
    let claim = api.claim("w-1", json!({})).await.unwrap();
    let past = json!({ "key": "past", "until": "2020-01-01T00:00:00Z" });
    assert_eq!(claim.post("wait", past).await.json(), json!({ "do": "go", "timer": true }));
    let soon = json!({ "key": "nap", "signals": ["wake"], "timer_s": 0.3 });
    assert_eq!(claim.post("wait", soon.clone()).await.json(), json!({ "do": "parked" }));
    // A worker that waits is given it when the timer is due.
    let body = json!({ "worker": "w-2", "queues": ["default"], "wait_s": 20 });
    let given = api.post("/v1/claim", body).await;
    assert_eq!((given.status(), given.json()["run"]["id"].as_str()), (200, Some(&*id)));
    let again = json!({ "epoch": given.json()["epoch"], "key": "nap", "signals": ["wake"], "timer_s": 3600 });
    let waited = api.post(&format!("/v1/runs/{id}/wait"), again).await.json();
    assert_eq!(waited, json!({ "do": "go", "timer": true }), "the first timer stands");
}

#[tokio::test]
async fn a_run_that_is_over_takes_no_signals_and_one_that_is_full_says_so() {
    let (_rig, api) = api().await;
    let id = api.start(json!({ "workflow": "w" })).await;
    for n in 0..1000 {
        assert_eq!(signal(&api, &id, "s", &n.to_string(), json!(n)).await.status(), 202);
    }
    let full = signal(&api, &id, "s", "one more", json!(0)).await;
    assert_eq!(refused(&full), (429, "too_many_signals".into()));
    assert!(full.header("retry-after").is_some());
    assert_eq!(signal(&api, &id, "s", "7", json!(7)).await.json(), json!({ "first": false }));
    let claim = api.claim("w-1", json!({})).await.unwrap();
    claim.post("finish", json!({ "ok": 1 })).await;
    assert_eq!(refused(&signal(&api, &id, "s", "late", json!(0)).await), (409, "run_over".into()));
    assert_eq!(refused(&signal(&api, "none", "s", "x", json!(0)).await), (404, "no_such_run".into()));
}

#[tokio::test]
async fn a_run_nobody_works_on_is_cancelled_at_once() {
    let (_rig, api) = api().await;
    let id = api.start(json!({ "workflow": "w" })).await;
    for _ in 0..2 {
        let cancelled = api.post(&format!("/v1/runs/{id}/cancel"), json!({})).await;
        assert_eq!((cancelled.status(), cancelled.json()), (202, json!({ "state": "cancelled" })));
    }
    assert!(api.claim("w-1", json!({})).await.is_none());
    let result = api.get(&format!("/v1/runs/{id}/result")).await;
    assert_eq!((result.status(), &result.json()["state"]), (200, &json!("cancelled")));
    assert_eq!(refused(&api.post("/v1/runs/none/cancel", json!({})).await), (404, "no_such_run".into()));
}

#[tokio::test]
async fn the_holder_of_a_cancelled_run_hears_it_undoes_and_ends_it() {
    let (_rig, api) = api().await;
    let id = api.start(json!({ "workflow": "w" })).await;
    let claim = api.claim("w-1", json!({})).await.unwrap();
    claim.execute("book", json!({ "class": "tx", "undo": { "tool": "unbook" } })).await;
    let asked = api.post(&format!("/v1/runs/{id}/cancel"), json!({})).await;
    assert_eq!(asked.json(), json!({ "state": "asked" }));
    assert_eq!(claim.heartbeat(30.0).await.json(), json!({ "lease": "cancel" }));
    // What is in flight is still written down; nothing new begins but what undoes.
    assert_eq!(claim.end("book", json!({ "attempt": 1, "ok": "b-1" })).await.json(), json!({ "step": "done" }));
    assert_eq!(refused(&claim.begin("more", json!({})).await), (409, "run_cancelled".into()));
    assert_eq!(claim.execute("unbook", json!({ "class": "tx", "undoes": "book" })).await, 1);
    claim.end("unbook", json!({ "attempt": 1, "ok": true })).await;
    let steps = api.get(&format!("/v1/runs/{id}/journal")).await.json()["steps"].clone();
    assert_eq!(
        (&steps[0]["undo"], &steps[1]["undoes"], &steps[1]["kind"]),
        (&json!({ "tool": "unbook" }), &json!("book"), &json!("undo"))
    );
    assert_eq!(claim.post("finish", json!({ "cancelled": true })).await.json(), json!({ "state": "cancelled" }));
}

#[tokio::test]
async fn whoever_waits_for_a_result_is_told_when_there_is_one() {
    let (_rig, api) = api().await;
    let id = api.start(json!({ "workflow": "w" })).await;
    let claim = api.claim("w-1", json!({})).await.unwrap();
    let waiting = {
        let (api, path) = (api.clone(), format!("/v1/runs/{id}/result?wait_s=20"));
        tokio::spawn(async move { api.get(&path).await })
    };
    let error = json!({ "message": "no such order", "failure": "tool_failed" });
    claim.post("finish", json!({ "error": error })).await;
    let result = common::guarded("the result", waiting).await.unwrap();
    assert_eq!((result.status(), result.json()), (200, json!({ "state": "failed", "error": error })));
    let none = api.get(&format!("/v1/runs/{id}/result?wait_s=61")).await;
    assert_eq!(none.status(), 400);
}

#[tokio::test]
async fn a_wake_up_reaches_a_waiting_worker_through_a_signal() {
    let (_rig, api) = api().await;
    let id = api.start(json!({ "workflow": "w" })).await;
    let claim = api.claim("w-1", json!({})).await.unwrap();
    claim.post("wait", json!({ "key": "k", "signals": ["go"] })).await;
    let waiting = {
        let api = api.clone();
        let body = json!({ "worker": "w-2", "queues": ["default"], "wait_s": 20 });
        tokio::spawn(async move { api.post("/v1/claim", body).await })
    };
    until_some("the worker to wait", async || {
        (api.get("/v1/workers").await.json()["workers"].as_array().unwrap().len() == 2).then_some(())
    })
    .await;
    signal(&api, &id, "go", "1", json!(null)).await;
    let given = common::guarded("the claim", waiting).await.unwrap();
    assert_eq!(given.json()["run"]["id"], json!(id));
}
