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

#[tokio::test]
async fn starting_twice_starts_one_run_and_another_run_under_the_same_name_is_refused() {
    let (rig, api) = api().await;
    let body = json!({ "id": "order-7", "workflow": "refund", "input": { "b": 1, "a": 2 } });
    assert_eq!(api.post("/v1/runs", body.clone()).await.status(), 201);
    let again = api.post("/v1/runs", body).await;
    assert_eq!((again.status(), again.header("x-outlast-replayed")), (200, Some("true")));
    assert_eq!(again.json()["id"], "order-7");
    let other = api.post("/v1/runs", json!({ "id": "order-7", "workflow": "another" })).await;
    assert_eq!(refused(&other), (422, "idempotency_key_reused".into()));

    let keyed = |body: &str| Ask::post("/v1/runs", body.to_owned()).header("idempotency-key", "k-1");
    let first = keyed(r#"{"workflow":"refund","input":{"b":1,"a":2}}"#).send(rig.address()).await;
    let same = keyed(r#"{ "input": {"a":2.0, "b":1}, "workflow":"refund" }"#).send(rig.address()).await;
    assert_eq!((first.status(), same.status()), (201, 200));
    assert_eq!(first.json()["id"], same.json()["id"]);
    let other = keyed(r#"{"workflow":"refund","input":{"b":1,"a":3}}"#).send(rig.address()).await;
    assert_eq!(refused(&other), (422, "idempotency_key_reused".into()));
    let runs = api.get("/v1/runs?limit=10").await.json();
    assert_eq!(runs["runs"].as_array().unwrap().len(), 2);
    assert_eq!(api.get("/v1/runs?state=done").await.json(), json!({ "runs": [], "next": null }));
    assert_eq!(api.get("/v1/runs?state=over").await.status(), 400);
}

#[tokio::test]
async fn a_lost_acknowledgement_is_said_again_and_changes_nothing() {
    let (_rig, api) = api().await;
    api.start(json!({ "workflow": "w" })).await;
    let claim = api.claim("w-1", json!({})).await.unwrap();
    let once = json!({ "class": "once", "input": { "to": "anna" } });
    let (first, again) = (claim.begin("mail", once.clone()).await.json(), claim.begin("mail", once).await.json());
    assert_eq!((&first["do"], &first["attempt"]), (&json!("execute"), &json!(1)));
    assert_eq!(
        (&again["do"], &again["attempt"], &again["idempotency_key"]),
        (&json!("execute"), &json!(1), &first["idempotency_key"])
    );
    for _ in 0..2 {
        let ended = claim.end("mail", json!({ "attempt": 1, "ok": "sent", "cost_usd": 0.5 })).await;
        assert_eq!((ended.status(), ended.json()), (200, json!({ "step": "done" })));
    }
    claim.execute("flaky", json!({})).await;
    for _ in 0..2 {
        let error = json!({ "attempt": 1, "error": { "message": "busy", "sent": false, "retry_after_s": 3600 } });
        let ended = claim.end("flaky", error).await.json();
        assert_eq!(ended["step"], "again", "{ended}");
        assert!(ended["after_ms"].as_i64().is_some_and(|after| after > 3_500_000), "{ended}");
    }
    claim.execute("final", json!({})).await;
    for _ in 0..2 {
        let error = json!({ "attempt": 1, "error": { "message": "no such order", "final": true } });
        assert_eq!(claim.end("final", error).await.json(), json!({ "step": "failed" }));
    }
    let replayed = claim.begin("final", json!({})).await.json();
    assert_eq!(replayed["error"]["message"], "no such order");
    for _ in 0..2 {
        let signal = json!({ "name": "paid", "id": "s-1", "payload": 7 });
        let reply = api.post(&format!("/v1/runs/{}/signals", claim.id), signal).await;
        assert_eq!(reply.status(), 202);
        let waited = claim.post("wait", json!({ "key": "payment", "signals": ["paid"] })).await;
        assert_eq!(waited.json(), json!({ "do": "go", "signal": { "name": "paid", "payload": 7 } }));
    }
    let shown = api.get(&format!("/v1/runs/{}", claim.id)).await.json();
    assert_eq!(shown["spent_usd"], 0.5);
    for _ in 0..2 {
        assert_eq!(claim.post("finish", json!({ "ok": null })).await.json(), json!({ "state": "done" }));
    }
    let other = claim.post("finish", json!({ "error": { "message": "no" } })).await;
    assert_eq!(refused(&other), (410, "lease_lost".into()));
    let result = api.get(&format!("/v1/runs/{}/result", claim.id)).await.json();
    assert_eq!(result, json!({ "state": "done", "output": null }));
}

#[tokio::test]
async fn an_error_without_proof_is_an_unknown_outcome_and_is_treated_as_its_class_says() {
    let (_rig, api) = api().await;
    api.start(json!({ "workflow": "w" })).await;
    let claim = api.claim("w-1", json!({})).await.unwrap();
    let vague = json!({ "attempt": 1, "error": { "message": "connection reset" } });

    claim.execute("look", json!({ "class": "pure" })).await;
    assert_eq!(claim.end("look", vague.clone()).await.json()["step"], "again");
    let wait = claim.begin("look", json!({ "class": "pure" })).await;
    assert_eq!(refused(&wait), (409, "step_not_yet".into()));
    assert!(wait.header("retry-after").is_some());

    let keyed = json!({ "class": { "keyed": { "key_ttl_ms": 3_600_000 } }, "retry": { "base_ms": 10, "cap_ms": 20 } });
    claim.execute("charge", keyed.clone()).await;
    assert_eq!(claim.end("charge", vague.clone()).await.json()["step"], "unknown");
    let again = common::until_some("the key to be sent again", async || {
        Some(claim.begin("charge", keyed.clone()).await).filter(|reply| reply.status() == 200)
    })
    .await;
    assert_eq!((&again.json()["do"], &again.json()["attempt"]), (&json!("execute"), &json!(2)));

    let verify = json!({ "class": { "verify": { "quiet_period_ms": 1 } }, "input": { "n": 1 } });
    claim.execute("book", verify.clone()).await;
    assert_eq!(
        claim.end("book", json!({ "attempt": 1, "unknown": { "message": "timeout" } })).await.json()["step"],
        "unknown"
    );
    let ask = common::until_some("the quiet period to pass", async || {
        Some(claim.begin("book", verify.clone()).await).filter(|reply| reply.status() == 200)
    })
    .await;
    assert_eq!((&ask.json()["do"], &ask.json()["input"]), (&json!("verify"), &json!({ "n": 1 })));
    assert_eq!(claim.end("book", json!({ "attempt": 1, "absent": true })).await.json()["step"], "again");
    assert_eq!(claim.execute("book", verify).await, 2);

    claim.execute("mail", json!({ "class": "once" })).await;
    for _ in 0..2 {
        let parked = claim.end("mail", vague.clone()).await.json();
        assert_eq!((&parked["step"], &parked["why"]), (&json!("parked"), &json!("unknown_effect")), "{parked}");
        assert!(parked["escalation"]["url"].as_str().is_some_and(|url| url.starts_with("/v1/escalations/esc_")));
    }
    assert_eq!(claim.heartbeat(5.0).await.json()["lease"], "lost");
    let run = api.get(&format!("/v1/runs/{}", claim.id)).await.json();
    assert_eq!((&run["state"], &run["parked"]["why"]), (&json!("parked"), &json!("unknown_effect")));
    assert_eq!(refused(&claim.begin("next", json!({})).await), (410, "lease_lost".into()));
}

#[tokio::test]
async fn what_was_asked_in_other_words_is_refused_for_effects_and_marked_for_the_rest() {
    let (_rig, api) = api().await;
    api.start(json!({ "workflow": "w" })).await;
    let claim = api.claim("w-1", json!({})).await.unwrap();
    for (key, class) in [("pure", json!("pure")), ("tx", json!("tx"))] {
        claim.execute(key, json!({ "class": class, "input": { "a": 1 } })).await;
        claim.end(key, json!({ "attempt": 1, "ok": key })).await;
    }
    let other = claim.begin("pure", json!({ "input": { "a": 2 } })).await.json();
    assert_eq!(other, json!({ "do": "replay", "ok": "pure", "diverged": true }));
    let strict = claim.begin("pure", json!({ "input": { "a": 2 }, "strict": true })).await;
    assert_eq!(refused(&strict), (422, "step_mismatch".into()));
    let other = claim.begin("tx", json!({ "class": "tx", "input": { "a": 2 } })).await;
    assert_eq!(refused(&other), (422, "step_mismatch".into()));
    let spelled = claim.begin("tx", json!({ "class": "tx", "input": { "a": 1.0 } })).await.json();
    assert_eq!((&spelled["do"], &spelled["diverged"]), (&json!("replay"), &json!(false)));
}

#[tokio::test]
async fn a_business_key_gives_every_run_the_same_end() {
    let (_rig, api) = api().await;
    let effect = json!({ "class": "once", "scope": "refund", "key": "order-7", "input": { "amount": 5 } });
    api.start(json!({ "workflow": "w" })).await;
    let one = api.claim("w-1", json!({})).await.unwrap();
    one.execute("pay", effect.clone()).await;
    let half = one.end("pay", json!({ "attempt": 1, "ok": "re_1", "scope": "refund" })).await;
    assert_eq!(half.status(), 400, "{}", half.text());
    let done = one.end("pay", json!({ "attempt": 1, "ok": "re_1", "scope": "refund", "key": "order-7" })).await;
    assert_eq!(done.json(), json!({ "step": "done" }));

    api.start(json!({ "workflow": "w" })).await;
    let two = api.claim("w-1", json!({})).await.unwrap();
    let replayed = two.begin("refund-it", effect).await.json();
    assert_eq!(replayed, json!({ "do": "replay", "ok": "re_1", "diverged": false }));
    let changed = json!({ "class": "once", "scope": "refund", "key": "order-7", "input": { "amount": 6 } });
    assert_eq!(refused(&two.begin("refund-more", changed).await), (422, "step_mismatch".into()));
    let step = api.get(&format!("/v1/runs/{}/steps/refund-it", two.id)).await.json();
    assert_eq!((&step["effect"], &step["ok"]), (&json!({ "scope": "refund", "key": "order-7" }), &json!("re_1")));
}

#[tokio::test]
async fn an_approval_parks_the_run_and_says_where_a_person_finds_it() {
    let (_rig, api) = api().await;
    api.start(json!({ "workflow": "w" })).await;
    let claim = api.claim("w-1", json!({})).await.unwrap();
    let ask = json!({ "class": "once", "needs_approval": true, "question": "Refund 500?", "input": { "amount": 500 } });
    let (first, again) = (claim.begin("pay", ask.clone()).await.json(), claim.begin("pay", ask).await);
    assert_eq!((&first["do"], &first["why"]), (&json!("parked"), &json!("approval")), "{first}");
    let id = first["escalation"]["id"].as_str().unwrap();
    assert_eq!(first["escalation"]["url"], format!("/v1/escalations/{id}"));
    // Its claim is over; whoever claims the run next, once it is decided, begins the step again.
    assert_eq!(refused(&again), (410, "lease_lost".into()));
    let run = api.get(&format!("/v1/runs/{}", claim.id)).await.json();
    assert_eq!(
        (&run["state"], &run["waits_at"], &run["parked"]["escalation"]["id"]),
        (&json!("parked"), &json!("pay"), &json!(id))
    );
    assert!(api.claim("w-2", json!({})).await.is_none());
}

#[tokio::test]
async fn an_answer_that_a_person_has_to_see_parks_the_run_with_it() {
    let (_rig, api) = api().await;
    api.start(json!({ "workflow": "w" })).await;
    let claim = api.claim("w-1", json!({})).await.unwrap();
    claim.execute("draft", json!({})).await;
    let review = json!({ "attempt": 1, "review": { "why": "low_confidence", "output": { "text": "maybe" } } });
    for _ in 0..2 {
        let parked = claim.end("draft", review.clone()).await.json();
        assert_eq!((&parked["step"], &parked["why"]), (&json!("parked"), &json!("low_confidence")), "{parked}");
    }
    let step = api.get(&format!("/v1/runs/{}/steps/draft", claim.id)).await.json();
    assert_eq!((&step["state"], &step["output"]), (&json!("parked"), &json!({ "text": "maybe" })));
}

#[tokio::test]
async fn a_program_without_a_claim_journals_to_a_run_of_its_own() {
    let (_rig, api) = api().await;
    let id = api.start(json!({ "workflow": "script", "unclaimed": true })).await;
    assert!(api.claim("w-1", json!({})).await.is_none(), "nobody is given it");
    let path = |what: &str| format!("/v1/runs/{id}/{what}");
    let begun = api.post(&path("steps/tool/x/1/begin"), json!({ "class": "once" })).await.json();
    let epoch = begun["epoch"].as_i64().expect("a claim of the step's own");
    let other = api.post(&path("steps/tool%2Fx%2F1/begin"), json!({ "class": "once" })).await;
    assert_eq!(refused(&other), (409, "step_in_flight".into()));
    let ended = api.post(&path("steps/tool/x/1/end"), json!({ "epoch": epoch, "attempt": 1, "ok": 1 })).await;
    assert_eq!(ended.json(), json!({ "step": "done" }));
    assert_eq!(api.get(&path("steps/tool/x/1")).await.json()["key"], "tool/x/1");
    assert_eq!(api.post(&path("finish"), json!({ "ok": 1 })).await.json(), json!({ "state": "done" }));
    let claimed = api.start(json!({ "workflow": "w" })).await;
    let finish = api.post(&format!("/v1/runs/{claimed}/finish"), json!({ "ok": 1 })).await;
    assert_eq!(refused(&finish), (410, "lease_lost".into()), "a run that workers claim ends with a claim");
}

#[tokio::test]
async fn a_runs_bounds_are_kept() {
    let (_rig, api) = api().await;
    api.start(json!({ "workflow": "w", "cost_max_usd": 1.0 })).await;
    let claim = api.claim("w-1", json!({})).await.unwrap();
    claim.execute("a", json!({})).await;
    claim.end("a", json!({ "attempt": 1, "ok": 1, "cost_usd": 1.0 })).await;
    let refusal = claim.begin("b", json!({})).await;
    assert_eq!(refused(&refusal), (409, "run_over_budget".into()));
    assert_eq!(refusal.header("x-should-retry"), Some("false"));
    assert_eq!(claim.execute("undo-a", json!({ "undoes": "a" })).await, 1);
    claim.post("finish", json!({ "error": { "message": "out of money" } })).await;

    api.start(json!({ "workflow": "w", "deadline_s": 0 })).await;
    let claim = api.claim("w-1", json!({})).await.unwrap();
    assert_eq!(refused(&claim.begin("a", json!({})).await), (409, "run_overdue".into()));
}

#[tokio::test]
async fn a_payload_beyond_the_limit_is_refused() {
    let (_rig, api) = api().await;
    let large = "x".repeat(9 << 20);
    let reply = api.post("/v1/runs", json!({ "workflow": "w", "input": large })).await;
    assert_eq!(refused(&reply), (413, "request_too_large".into()));
}
