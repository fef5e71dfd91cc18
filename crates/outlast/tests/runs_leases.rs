//! Who may advance a run: leases, epochs, workers that come and go.

mod common;

use common::{
    Ask, Conn, Rig, guarded,
    runs::{Api, Claim, config, refused},
    until_some,
};
use serde_json::{Value, json};

async fn api() -> (Rig, Api) {
    let rig = Rig::start(&config("")).await;
    let api = Api::of(&rig);
    (rig, api)
}

/// Claims with a lease of a second.
async fn brief(api: &Api, worker: &str) -> Claim {
    api.claim(worker, json!({ "lease_s": 1 })).await.expect("a run")
}

/// The run, claimed by another worker once the lease has run out.
async fn taken_over(api: &Api, worker: &str) -> Claim {
    until_some("the lease to run out", async || api.claim(worker, json!({})).await).await
}

#[tokio::test]
async fn a_worker_that_is_gone_is_replaced_from_the_last_checkpoint() {
    let (_rig, api) = api().await;
    api.start(json!({ "workflow": "w", "input": { "n": 1 } })).await;
    let dead = brief(&api, "w-1").await;
    dead.execute("one", json!({ "lease_s": 1 })).await;
    dead.end("one", json!({ "attempt": 1, "ok": "first", "lease_s": 1 })).await;
    dead.execute("two", json!({ "class": "pure", "lease_s": 1 })).await;

    let since = std::time::Instant::now();
    // Another worker waits: it is given the run within the lease and a second.
    let body = json!({ "worker": "w-2", "queues": ["default"], "wait_s": 20 });
    let given = api.post("/v1/claim", body).await;
    assert_eq!(given.status(), 200);
    assert!(since.elapsed() < std::time::Duration::from_secs(6), "{:?}", since.elapsed());
    let told = given.json();
    assert!(told["epoch"].as_i64() > Some(dead.epoch));
    let steps = told["journal"]["steps"].as_array().unwrap();
    let seen: Vec<(&Value, &Value)> = steps.iter().map(|step| (&step["key"], &step["state"])).collect();
    assert_eq!(seen, [(&json!("one"), &json!("done")), (&json!("two"), &json!("intent"))]);
    assert_eq!(told["input"], json!({ "n": 1 }));
}

#[tokio::test]
async fn who_lost_the_lease_may_begin_nothing_and_end_only_what_nobody_began_anew() {
    let (_rig, api) = api().await;
    api.start(json!({ "workflow": "w" })).await;
    let zombie = brief(&api, "w-1").await;
    zombie.execute("kept", json!({ "lease_s": 1 })).await;
    zombie.execute("taken", json!({ "lease_s": 1 })).await;
    let heir = taken_over(&api, "w-2").await;

    for _ in 0..2 {
        let beat = zombie.heartbeat(1.0).await;
        assert_eq!((beat.status(), &beat.json()["lease"]), (410, &json!("lost")));
        assert_eq!(refused(&beat), (410, "lease_lost".into()));
    }
    assert_eq!(refused(&zombie.begin("more", json!({})).await), (410, "lease_lost".into()));
    assert_eq!(refused(&zombie.post("wait", json!({ "key": "k", "timer_s": 1 })).await), (410, "lease_lost".into()));
    assert_eq!(refused(&zombie.post("release", json!({})).await), (410, "lease_lost".into()));
    assert_eq!(refused(&zombie.post("finish", json!({ "ok": 1 })).await), (410, "lease_lost".into()));

    assert_eq!(heir.execute("taken", json!({})).await, 2);
    assert_eq!(refused(&zombie.end("taken", json!({ "attempt": 1, "ok": "old" })).await), (410, "lease_lost".into()));
    // True and not contradicted: it did happen.
    assert_eq!(zombie.end("kept", json!({ "attempt": 1, "ok": "late" })).await.json(), json!({ "step": "done" }));
    assert_eq!(heir.begin("kept", json!({})).await.json()["ok"], "late");
    assert_eq!(heir.end("taken", json!({ "attempt": 2, "ok": "new" })).await.json(), json!({ "step": "done" }));
    assert_eq!(heir.post("finish", json!({ "ok": 1 })).await.status(), 200);
}

#[tokio::test]
async fn a_step_that_the_lost_worker_may_have_done_is_parked_if_nobody_can_tell() {
    let (_rig, api) = api().await;
    api.start(json!({ "workflow": "w" })).await;
    let dead = brief(&api, "w-1").await;
    dead.execute("mail", json!({ "class": "once", "lease_s": 1, "timeout_s": 0.5 })).await;
    let heir = taken_over(&api, "w-2").await;
    // Nobody is asked before the attempt's time is over: until then it may still say how it ended.
    let parked = until_some("the attempt's time to be over", async || {
        Some(heir.begin("mail", json!({ "class": "once" })).await).filter(|reply| reply.status() != 409)
    })
    .await
    .json();
    assert_eq!((&parked["do"], &parked["why"]), (&json!("parked"), &json!("unknown_effect")), "{parked}");
    // The mail had gone out after all, and the one who sent it says so: too late, a person decides now.
    assert_eq!(refused(&dead.end("mail", json!({ "attempt": 1, "ok": "sent" })).await), (410, "lease_lost".into()));
}

#[tokio::test]
async fn heartbeats_and_steps_keep_the_lease() {
    let (_rig, api) = api().await;
    api.start(json!({ "workflow": "w" })).await;
    let claim = brief(&api, "w-1").await;
    assert_eq!(claim.heartbeat(60.0).await.json()["lease"], "held");
    let run = api.get(&format!("/v1/runs/{}", claim.id)).await.json();
    let left = |run: &Value| {
        let until: jiff::Timestamp = run["lease_until"].as_str().unwrap().parse().unwrap();
        until.duration_since(jiff::Timestamp::now()).as_secs()
    };
    assert!((50..=60).contains(&left(&run)), "{run}");
    claim.execute("a", json!({ "lease_s": 300 })).await;
    let run = api.get(&format!("/v1/runs/{}", claim.id)).await.json();
    assert!((290..=300).contains(&left(&run)), "{run}");
    assert_eq!((&run["worker"], &run["last_step"]), (&json!("w-1"), &json!("a")));
}

#[tokio::test]
async fn a_claim_that_waits_is_given_the_run_that_is_started_meanwhile() {
    let (rig, api) = api().await;
    let waiting: Vec<_> = (0..3)
        .map(|n| {
            let body = json!({ "worker": format!("w-{n}"), "queues": ["default", "more"], "wait_s": 20 });
            let (api, body) = (api.clone(), body);
            tokio::spawn(async move { api.post("/v1/claim", body).await })
        })
        .collect();
    let workers = async || {
        let workers = api.get("/v1/workers").await.json();
        (workers["workers"].as_array().unwrap().len() == 3).then_some(())
    };
    until_some("three workers to wait", workers).await;
    for n in 0..3 {
        api.start(
            json!({ "workflow": "w", "id": format!("run-{n}"), "queue": if n == 1 { "more" } else { "default" } }),
        )
        .await;
    }
    let mut given = Vec::new();
    for claim in waiting {
        let reply = guarded("the claim", claim).await.unwrap();
        given.push(reply.json()["run"]["id"].as_str().unwrap().to_owned());
    }
    given.sort();
    assert_eq!(given, ["run-0", "run-1", "run-2"]);
    assert!(rig.metrics().contains("outlast_runs_total{event=\"claimed\"} 3"), "{}", rig.metrics());
}

#[tokio::test]
async fn a_run_claimed_for_a_client_that_is_gone_is_given_to_the_next() {
    let (rig, api) = api().await;
    let body = json!({ "worker": "gone", "queues": ["default"], "wait_s": 20, "lease_s": 600 });
    let mut conn = Conn::open(rig.address()).await;
    conn.write(&Ask::post("/v1/claim", body.to_string()).bytes()).await.unwrap();
    until_some("the worker to wait", async || {
        let workers = api.get("/v1/workers").await.json();
        (workers["workers"][0]["id"] == "gone").then_some(())
    })
    .await;
    drop(conn);
    api.start(json!({ "workflow": "w" })).await;
    let claim = until_some("the run", async || api.claim("w-2", json!({})).await).await;
    assert!(claim.epoch > 0);
}

#[tokio::test]
async fn a_worker_that_drains_is_told_with_its_heartbeat_and_given_nothing_more() {
    let (_rig, api) = api().await;
    api.start(json!({ "workflow": "w" })).await;
    let claim = api.claim("w-1", json!({ "label": "blue" })).await.unwrap();
    let workers = api.get("/v1/workers").await.json();
    let worker = &workers["workers"][0];
    assert_eq!((&worker["id"], &worker["label"], &worker["state"]), (&json!("w-1"), &json!("blue"), &json!("busy")));
    assert_eq!(worker["holds"][0]["run"], json!(claim.id));
    for _ in 0..2 {
        assert_eq!(api.post("/v1/workers/w-1/drain", json!({})).await.json()["state"], "draining");
        assert_eq!(claim.heartbeat(30.0).await.json(), json!({ "lease": "drain" }));
    }
    api.start(json!({ "workflow": "w" })).await;
    assert!(api.claim("w-1", json!({})).await.is_none(), "it drains");
    claim.step("last", json!(1)).await;
    assert_eq!(claim.post("release", json!({})).await.status(), 200);
    assert!(api.claim("w-2", json!({})).await.is_some());
    let gone = api.ask(Ask::get("/v1/workers/w-1").method("DELETE")).send(_rig.address()).await;
    assert_eq!((gone.status(), gone.json()["state"].clone()), (200, json!("gone")));
    let unknown = api.post("/v1/workers/nobody/drain", json!({})).await;
    assert_eq!(refused(&unknown), (404, "no_such_run".into()));
}

#[tokio::test]
async fn a_standby_worker_steps_in_for_one_that_was_lost_and_not_before() {
    let (_rig, api) = api().await;
    let standby = json!({ "standby": true });
    // Somebody works on the queue.
    assert!(api.claim("w-1", json!({})).await.is_none());
    api.start(json!({ "workflow": "w" })).await;
    assert!(api.claim("reserve", standby.clone()).await.is_none(), "the queue has its worker");
    let lost = brief(&api, "w-1").await;
    let heir = until_some("the lease to run out", async || api.claim("reserve", standby.clone()).await).await;
    assert_eq!(heir.id, lost.id);
    let workers = api.get("/v1/workers").await.json();
    let reserve = workers["workers"].as_array().unwrap().iter().find(|worker| worker["id"] == "reserve").unwrap();
    assert_eq!(reserve["standby"], true);
}

#[tokio::test]
async fn a_run_keeps_its_version_until_it_is_migrated() {
    let (_rig, api) = api().await;
    let id = api.start(json!({ "workflow": "refund", "version": "2" })).await;
    let old = json!({ "accepts": { "refund": ["1"], "other": [] } });
    assert!(api.claim("w-1", old.clone()).await.is_none(), "it is of version 2");
    let new = api.claim("w-2", json!({ "accepts": { "refund": ["2"] } })).await.unwrap();
    let held = api.post(&format!("/v1/runs/{id}/migrate"), json!({ "version": "1" })).await;
    assert_eq!(refused(&held), (409, "run_held".into()));
    new.post("release", json!({})).await;
    let migrated = api.post(&format!("/v1/runs/{id}/migrate"), json!({ "version": "1" })).await;
    assert_eq!((migrated.status(), &migrated.json()["version"]), (200, &json!("1")));
    let claim = api.claim("w-1", old).await.unwrap();
    assert_eq!(claim.told["run"]["version"], "1");
    claim.post("finish", json!({ "ok": 1 })).await;
    let over = api.post(&format!("/v1/runs/{id}/migrate"), json!({ "version": "3" })).await;
    assert_eq!(refused(&over), (409, "run_over".into()));
}

#[tokio::test]
async fn a_run_that_nobody_gets_further_goes_to_a_person() {
    let (rig, api) = api().await;
    let id = api.start(json!({ "workflow": "w" })).await;
    for _ in 0..5 {
        let claim = api.claim("w-1", json!({})).await.expect("the run");
        assert_eq!(claim.post("release", json!({})).await.json(), json!({ "state": "ready" }));
    }
    assert!(api.claim("w-1", json!({})).await.is_none());
    let run = api.get(&format!("/v1/runs/{id}")).await.json();
    assert_eq!((&run["state"], &run["parked"]["why"]), (&json!("quarantined"), &json!("poison")));
    until_some("the numbers", async || rig.metrics().contains("outlast_runs_quarantined 1").then_some(())).await;
}

#[tokio::test]
async fn priority_and_age_decide_who_is_next() {
    let (_rig, api) = api().await;
    for (id, priority) in [("low", "low"), ("first", "normal"), ("second", "normal"), ("urgent", "critical")] {
        api.start(json!({ "workflow": "w", "id": id, "priority": priority })).await;
    }
    api.start(json!({ "workflow": "w", "id": "later", "priority": "critical", "after_s": 3600 })).await;
    for id in ["urgent", "first", "second", "low"] {
        assert_eq!(api.claim("w-1", json!({})).await.expect("a run").id, id);
    }
    assert!(api.claim("w-1", json!({})).await.is_none());
}

#[tokio::test]
async fn a_server_that_stops_answers_the_claims_that_wait() {
    let (rig, api) = api().await;
    let waiting = {
        let api = api.clone();
        let body = json!({ "worker": "w-1", "queues": ["default"], "wait_s": 60 });
        tokio::spawn(async move { api.post("/v1/claim", body).await })
    };
    until_some("the worker to wait", async || {
        (api.get("/v1/workers").await.json()["workers"][0]["id"] == "w-1").then_some(())
    })
    .await;
    let Rig { gateway, folder } = rig;
    assert!(guarded("the end", gateway.stop()).await);
    assert_eq!(guarded("the claim", waiting).await.unwrap().status(), 204);
    drop(folder);
}
