//! Whose runs they are: callers see their own, the operator sees all, and what is late.

mod common;

use common::{
    Ask, Rig,
    rig::env,
    runs::{Api, config, refused},
    until_some,
};
use serde_json::{Value, json};

const KEYS: &str = "[server]\nkeys = [\"${CALLER_ONE}\", \"${CALLER_TWO}\"]\nadmin_token = \"${ADMIN_TOKEN}\"\n";

struct Three {
    _rig: Rig,
    nobody: Api,
    one: Api,
    two: Api,
    operator: Api,
}

async fn three() -> Three {
    let rig = Rig::start(&config(KEYS)).await;
    let nobody = Api::of(&rig);
    let of = |name: &str| nobody.with_key(&env(name).unwrap());
    let (one, two, operator) = (of("CALLER_ONE"), of("CALLER_TWO"), of("ADMIN_TOKEN"));
    Three { _rig: rig, nobody, one, two, operator }
}

#[tokio::test]
async fn a_caller_sees_touches_and_claims_its_own_runs_only() {
    let all = three().await;
    assert_eq!(all.nobody.get("/v1/runs").await.status(), 401);
    assert_eq!(all.nobody.post("/v1/claim", json!({ "worker": "w", "queues": ["default"] })).await.status(), 401);
    for api in [&all.one, &all.two] {
        api.start(json!({ "workflow": "w", "id": "same-name" })).await;
    }
    all.one.start(json!({ "workflow": "w", "id": "only-one" })).await;
    let listed = |runs: Value| -> Vec<String> {
        let runs = runs["runs"].as_array().unwrap().clone();
        runs.iter().map(|run| run["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(listed(all.two.get("/v1/runs").await.json()), ["same-name"]);
    let (claim, other) = (all.two.claim("w-2", json!({})).await.unwrap(), all.two.claim("w-2", json!({})).await);
    assert!(claim.id == "same-name" && other.is_none(), "the others are of another caller");

    for path in ["", "/journal", "/result", "/steps/a"] {
        let reply = all.two.get(&format!("/v1/runs/only-one{path}")).await;
        assert_eq!(refused(&reply), (404, "no_such_run".into()), "GET {path}");
    }
    let epoch = json!(1);
    for (path, body) in [
        ("heartbeat", json!({ "epoch": epoch })),
        ("steps/a/begin", json!({ "epoch": epoch })),
        ("steps/a/end", json!({ "epoch": epoch, "attempt": 1, "ok": 1 })),
        ("wait", json!({ "epoch": epoch, "key": "k", "timer_s": 1 })),
        ("signals", json!({ "name": "n", "id": "1" })),
        ("finish", json!({ "epoch": epoch, "ok": 1 })),
        ("release", json!({ "epoch": epoch })),
        ("cancel", json!({})),
    ] {
        let reply = all.two.post(&format!("/v1/runs/only-one/{path}"), body).await;
        assert_eq!(refused(&reply), (404, "no_such_run".into()), "{path}");
    }
    let run = all.one.get("/v1/runs/only-one").await.json();
    assert_eq!((&run["state"], run.get("tenant")), (&json!("ready"), None));
    assert_eq!(all.one.get("/v1/workers").await.json(), json!({ "workers": [] }));
    assert_eq!(refused(&all.one.get("/v1/runs?tenant=x").await), (403, "forbidden".into()));
}

#[tokio::test]
async fn the_operator_sees_all_and_names_the_tenant_of_what_it_touches() {
    let all = three().await;
    all.one.start(json!({ "workflow": "w", "id": "r" })).await;
    let claim = all.one.claim("w-1", json!({})).await.unwrap();
    let runs = all.operator.get("/v1/runs").await.json();
    let tenant = runs["runs"][0]["tenant"].as_str().expect("the operator is told whose").to_owned();
    assert_eq!(refused(&all.operator.get("/v1/runs/r").await), (404, "no_such_run".into()));
    let named = format!("/v1/runs/r?tenant={tenant}");
    assert_eq!(all.operator.get(&named).await.json()["state"], "running");
    assert_eq!(all.operator.get("/v1/workers").await.json()["workers"][0]["id"], "w-1");

    let migrate = json!({ "version": "2" });
    assert_eq!(all.one.post("/v1/runs/r/migrate", migrate.clone()).await.status(), 401, "it is the operator's");
    claim.post("release", json!({})).await;
    let path = format!("/v1/runs/r/migrate?tenant={tenant}");
    assert_eq!(all.operator.post(&path, migrate).await.json()["version"], "2");
    assert_eq!(all.one.get("/v1/supervisor").await.status(), 401);
    let path = format!("/v1/runs/r/cancel?tenant={tenant}");
    assert_eq!(all.operator.post(&path, json!({})).await.json(), json!({ "state": "cancelled" }));
    let drained = all.operator.post("/v1/workers/w-1/drain", json!({})).await;
    assert_eq!(drained.json()["state"], "draining");
}

#[tokio::test]
async fn the_supervisor_says_who_does_what_and_what_is_late() {
    let rig = Rig::start(&config("")).await;
    let api = Api::of(&rig);
    api.start(json!({ "workflow": "busy", "id": "busy" })).await;
    let claim = api.claim("w-1", json!({ "accepts": { "busy": ["1"] } })).await.unwrap();
    claim.execute("order", json!({})).await;
    api.start(json!({ "workflow": "busy", "id": "old", "version": "0" })).await;
    api.start(json!({ "workflow": "w", "id": "nobody", "queue": "empty" })).await;
    api.start(json!({ "workflow": "w", "id": "late", "queue": "empty", "deadline_s": 0 })).await;
    api.start(json!({ "workflow": "w", "id": "gone", "queue": "short" })).await;
    api.claim("w-2", json!({ "queues": ["short"], "lease_s": 1 })).await.unwrap();

    let seen = until_some("the lease to run out", async || {
        let seen = api.get("/v1/supervisor").await.json();
        (seen["overdue"]["leases"][0]["id"] == "gone").then_some(seen)
    })
    .await;
    let worker = seen["workers"].as_array().unwrap().iter().find(|worker| worker["id"] == "w-1").unwrap();
    assert_eq!((&worker["state"], &worker["holds"]), (&json!("busy"), &json!([{ "run": "busy", "step": "order" }])));
    assert_eq!(seen["overdue"]["deadlines"][0]["id"], "late");
    assert_eq!(seen["overdue"]["unattended"], json!(["empty"]));
    let unaccepted = &seen["overdue"]["unaccepted"][0];
    assert_eq!((&unaccepted["workflow"], &unaccepted["version"]), (&json!("busy"), &json!("0")), "{seen}");
    let queue = seen["queues"].as_array().unwrap().iter().find(|row| row["queue"] == "empty").unwrap();
    assert_eq!((&queue["due"], &queue["workers"]), (&json!(2), &json!([])));
    assert_eq!(seen["complete"], true);
}

#[tokio::test]
async fn work_that_nobody_takes_is_an_alert() {
    let server = common::Server::start(&config("")).await;
    let api = Api::at(server.address);
    api.start(json!({ "workflow": "w", "queue": "empty" })).await;
    api.start(json!({ "workflow": "w", "version": "9" })).await;
    assert!(api.claim("w-1", json!({ "accepts": { "w": ["1"] } })).await.is_none());
    let alerts = server.until_events("queue_unattended", 1).await;
    assert_eq!(alerts[0]["subject"], "empty");
    let alerts = server.until_events("version_unaccepted", 1).await;
    assert_eq!(alerts[0]["subject"], "w 9 of queue default");
    let metrics = Ask::get("/metrics").send(server.address).await.text();
    assert!(metrics.contains("outlast_runs_due{queue=\"empty\"} 1"), "{metrics}");
    assert!(metrics.contains("outlast_workers{state=\"idle\"} 1"), "{metrics}");
}
