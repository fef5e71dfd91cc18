//! `Idempotency-Key`: a call is executed once, whoever asks again gets the same end, and nothing goes on unprotected.

mod common;

use common::{
    Ask, Reply, Rig, Server, Step, Upstream,
    faulty_store::FaultyStore,
    guarded, plan,
    rig::{env, fake, provider},
    until, until_some,
    upstream::{STREAM_HEAD, completion, finish, json_reply, say},
};
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::sync::Notify;

const DIALECTS: [&str; 2] = ["openai", "anthropic"];

fn keyed(dialect: &str, text: &str, key: &str) -> Ask {
    Ask::either(dialect, "main", text).header("idempotency-key", key)
}

fn one(url: &str) -> String {
    provider("a", "openai-compatible", url, "") + "[routes.main]\ntargets = [\"a/m\"]\n"
}

fn assert_replayed(again: &Reply, first: &Reply) {
    assert_eq!(again.header("x-outlast-replayed"), Some("true"), "{:?} {}", again.head, again.text());
    assert_eq!(again.status(), first.status());
    assert_eq!(again.request_id(), first.request_id(), "it is the first call's answer");
    assert_eq!(again.header("x-outlast-cost-usd"), Some("0.000000000"), "and is not paid for again");
    assert_eq!(again.header("x-outlast-attempts"), Some("0"));
}

#[tokio::test]
async fn the_same_request_with_the_same_key_is_answered_once_and_replayed_byte_for_byte() {
    let a = fake("alpha").await;
    let rig = Rig::start(&one(&a.url())).await;
    for dialect in DIALECTS {
        let before = a.log().len();
        let first = rig.ask(keyed(dialect, "hello", dialect)).await;
        first.assert_answered();
        assert_eq!(first.header("x-outlast-replayed"), None);
        let again = rig.ask(keyed(dialect, "hello", dialect)).await;
        assert_replayed(&again, &first);
        assert_eq!(again.body, first.body);
        assert_eq!(a.log().len() - before, 1, "the model was asked once");
        let new = rig.ask(keyed(dialect, "hello", &format!("new {dialect}"))).await;
        assert_eq!((new.status(), new.header("x-outlast-replayed")), (200, None));
    }
    let metrics = rig.metrics();
    assert!(metrics.contains(r#"outlast_idempotency_total{result="replayed"} 2"#), "{metrics}");
}

#[tokio::test]
async fn a_stream_is_replayed_as_a_stream_or_whole_and_a_whole_reply_as_a_stream() {
    let a = fake("alpha").await;
    let rig = Rig::start(&one(&a.url())).await;
    for dialect in DIALECTS {
        for streamed_first in [true, false] {
            let key = format!("{dialect} {streamed_first}");
            let streamed = |is: bool| keyed(dialect, "hello", &key).with("stream", json!(is));
            let before = a.log().len();
            let first = rig.ask(streamed(streamed_first)).await;
            first.assert_answered();
            for now in [true, false] {
                let again = rig.ask(streamed(now)).await;
                again.assert_answered();
                assert_replayed(&again, &first);
                assert_eq!((again.is_stream(), again.said()), (now, first.said()), "{key}, now {now}");
            }
            assert_eq!(a.log().len() - before, 1, "{key}");
        }
    }
}

#[tokio::test]
async fn another_request_under_a_used_key_is_refused_and_spelling_does_not_make_another() {
    let a = fake("alpha").await;
    let rig = Rig::start(&one(&a.url())).await;
    for dialect in DIALECTS {
        rig.ask(keyed(dialect, "hello", dialect)).await.assert_answered();
        let changed = rig.ask(keyed(dialect, "good bye", dialect)).await;
        assert_eq!(changed.status(), 422, "{}", changed.text());
        assert_eq!(changed.header("x-should-retry"), Some("false"));
        if dialect == "openai" {
            assert_eq!(changed.json()["error"]["code"], "idempotency_key_reused");
            let spelled = r#"{ "messages": [{ "content": "hello", "role": "user" }], "model": "main" }"#;
            let respelled =
                rig.ask(Ask::post("/v1/chat/completions", spelled).header("idempotency-key", dialect)).await;
            assert_eq!(respelled.header("x-outlast-replayed"), Some("true"), "{}", respelled.text());
        }
    }
    assert_eq!(a.log().len(), 2);
}

#[tokio::test]
async fn while_the_first_is_being_answered_a_second_is_told_to_come_back_and_then_gets_its_answer() {
    let go = Arc::new(Notify::new());
    let slow = {
        let go = go.clone();
        Upstream::start(move |_| vec![Step::Await(go.clone()), Step::Send(json_reply(&completion("done")))]).await
    };
    let rig = Rig::start(&one(&slow.url())).await;
    let address = rig.address();
    let first = tokio::spawn(async move { keyed("openai", "hello", "k").send(address).await });
    until("the first to be asked", || slow.seen().len() == 1).await;
    let second = rig.ask(keyed("openai", "hello", "k")).await;
    assert_eq!(second.status(), 409, "{}", second.text());
    assert_eq!(second.header("x-should-retry"), Some("true"), "the SDKs come back by themselves");
    assert!(second.header("retry-after").is_some());
    go.notify_one();
    let first = guarded("the first answer", first).await.unwrap();
    first.assert_answered();
    assert_replayed(&rig.ask(keyed("openai", "hello", "k")).await, &first);
    assert_eq!(slow.seen().len(), 1);
}

#[tokio::test]
async fn a_failure_of_the_providers_frees_the_key_and_what_would_fail_again_is_replayed() {
    let a = fake("alpha").await;
    let rig = Rig::start(&one(&a.url())).await;
    for dialect in DIALECTS {
        a.set_fault("*", plan("500")).unwrap();
        let failed = rig.ask(keyed(dialect, "hello", dialect)).await;
        assert!(failed.status() >= 500, "{}", failed.text());
        a.heal().unwrap();
        let served = rig.ask(keyed(dialect, "hello", dialect)).await;
        served.assert_answered();
        assert_eq!(served.header("x-outlast-replayed"), None, "it was executed");

        a.set_fault("*", plan("content-filter")).unwrap();
        let own = format!("{dialect} blocked");
        let first = rig.ask(keyed(dialect, "hello", &own)).await;
        assert_eq!(first.status(), 400, "{}", first.text());
        a.heal().unwrap();
        let again = rig.ask(keyed(dialect, "hello", &own)).await;
        assert_replayed(&again, &first);
        assert_eq!(again.body, first.body);
    }
}

#[tokio::test]
async fn two_callers_with_the_same_key_do_not_meet() {
    let a = fake("alpha").await;
    let keys = "[server]\nkeys = [\"${CALLER_ONE}\", \"${CALLER_TWO}\"]\n";
    let rig = Rig::start(&(one(&a.url()) + keys)).await;
    let ask = |caller: &str, text: &str| keyed("openai", text, "same").bearer(&env(caller).unwrap());
    let mine = rig.ask(ask("CALLER_ONE", "mine")).await;
    mine.assert_answered();
    let theirs = rig.ask(ask("CALLER_TWO", "theirs")).await;
    theirs.assert_answered();
    assert_eq!(theirs.header("x-outlast-replayed"), None);
    assert_replayed(&rig.ask(ask("CALLER_ONE", "mine")).await, &mine);
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_key() {
    let stuck = Upstream::start(|request| match request.body.windows(6).any(|window| window == b"\"stuck") {
        true => vec![Step::Send([STREAM_HEAD, &say("half")].concat().into_bytes()), Step::Hang],
        false => vec![Step::Send([STREAM_HEAD, &say("whole"), &finish()].concat().into_bytes())],
    })
    .await;
    let rig = Rig::start(&one(&stuck.url())).await;
    let ask = keyed("openai", "stuck", "k").streamed();
    let (_, mut conn) = ask.open(rig.address()).await;
    conn.piece().await.expect("it has begun");
    let busy = rig.ask(ask).await;
    assert_eq!(busy.status(), 409);
    drop(conn);
    until("the provider to be left", || stuck.left() == 1).await;
    // Another request may now have the key: it stands for nothing.
    let other = keyed("openai", "other", "k").streamed();
    let reply = until_some("the key to be free", async || {
        Some(rig.ask(other.clone()).await).filter(|reply| reply.status() == 200)
    })
    .await;
    assert_eq!(reply.said(), "whole");
}

#[tokio::test]
async fn what_cannot_be_a_key_or_cannot_be_replayed_is_refused() {
    let a = fake("alpha").await;
    let rig = Rig::start(&one(&a.url())).await;
    for key in ["", &"k".repeat(256)] {
        let refused = rig.ask(keyed("openai", "hello", key)).await;
        assert_eq!(refused.status(), 400, "{}", refused.text());
        assert!(refused.text().contains("idempotency-key"), "{}", refused.text());
    }
    let several = keyed("openai", "hello", "k").streamed().with("n", json!(2));
    assert_eq!(rig.ask(several).await.status(), 400);
    assert_eq!(a.log().len(), 0);
}

/// A store file whose payloads are sealed.
const FILE: &str = "[store]\nfile = \"store.db\"\ndata_key = \"${DATA_KEY}\"\n";

#[tokio::test]
async fn a_call_whose_process_was_killed_is_executed_again_and_its_end_survives_the_next_kill() {
    let hangs = Arc::new(AtomicBool::new(true));
    let provider = {
        let hangs = hangs.clone();
        Upstream::start(move |_| match hangs.load(Ordering::Relaxed) {
            true => vec![Step::Hang],
            false => vec![Step::Send(json_reply(&completion("done")))],
        })
        .await
    };
    let config = one(&provider.url()) + FILE;
    let server = Server::start(&config).await;
    let ask = keyed("openai", "hello", "k");
    let (address, first) = (server.address, ask.clone());
    let first = tokio::spawn(async move { first.try_send(address).await });
    until("the first to be asked", || provider.seen().len() == 1).await;
    let server = server.kill_and_restart(&config).await;
    assert!(guarded("the first client to be cut off", first).await.unwrap().is_none());

    hangs.store(false, Ordering::Relaxed);
    // Whether the dead process still lives nobody knows before its lease has run out.
    let busy = ask.send(server.address).await;
    assert_eq!(busy.status(), 409, "{}", busy.text());
    let served = until_some("the lease to run out", async || {
        Some(ask.send(server.address).await).filter(|reply| reply.status() != 409)
    })
    .await;
    served.assert_answered();
    assert_eq!((served.header("x-outlast-replayed"), provider.seen().len()), (None, 2));

    let server = server.kill_and_restart(&config).await;
    let again = ask.send(server.address).await;
    assert_replayed(&again, &served);
    assert_eq!((again.body, provider.seen().len()), (served.body, 2));
    let file = std::fs::read(server.folder.path().join("store.db")).unwrap();
    let wal = std::fs::read(server.folder.path().join("store.db-wal")).unwrap_or_default();
    assert!(![file, wal].concat().windows(4).any(|four| four == b"done"), "the reply is sealed");
}

#[tokio::test]
async fn without_a_store_to_write_to_nothing_goes_on_unprotected() {
    let a = fake("alpha").await;
    let store = Arc::new(FaultyStore::default());
    let rig = Rig::start_on(&one(&a.url()), store.clone()).await;
    store.break_down();
    for dialect in DIALECTS {
        let refused = rig.ask(keyed(dialect, "hello", dialect)).await;
        assert_eq!(refused.status(), 503, "{}", refused.text());
        rig.ask(Ask::either(dialect, "main", "hello")).await.assert_answered();
    }
    assert_eq!(a.log().len(), 2, "only those without a key were asked");
    let metrics = rig.ask(Ask::get("/metrics")).await.text();
    for line in [
        "outlast_store_errors_total{reason=\"read_only\"}",
        "outlast_store_up 0",
        "outlast_shed_total{reason=\"store\"} 2",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    store.heal();
    rig.ask(keyed("openai", "hello", "openai")).await.assert_answered();
}

#[tokio::test]
async fn an_end_that_cannot_be_kept_is_not_shown() {
    let go = Arc::new(Notify::new());
    let slow = {
        let go = go.clone();
        Upstream::start(move |_| vec![Step::Await(go.clone()), Step::Send(json_reply(&completion("precious words")))])
            .await
    };
    let store = Arc::new(FaultyStore::default());
    let rig = Rig::start_on(&one(&slow.url()), store.clone()).await;
    let address = rig.address();
    let first = tokio::spawn(async move { keyed("openai", "hello", "k").send(address).await });
    until("it to be asked", || slow.seen().len() == 1).await;
    store.break_down();
    go.notify_one();
    let refused = guarded("its end", first).await.unwrap();
    assert_eq!(refused.status(), 503, "{}", refused.text());
    assert!(!refused.text().contains("precious"));
}
