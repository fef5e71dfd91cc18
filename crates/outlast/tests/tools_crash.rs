//! A server that is killed between intent and outcome: what a call with the same key comes to afterwards.

mod common;

use common::{
    Ask, DONE, Does, Downstream, Reply, Server,
    downstream::{around, tool},
    guarded,
};
use serde_json::json;
use std::net::SocketAddr;

const CLASSES: [&str; 5] = ["pure", "tx", "keyed", "verify", "once"];

async fn downstream(found: &'static str) -> Downstream {
    let find = ("/find".to_owned(), vec![Does::Says(200, found)]);
    let pay = CLASSES.map(|class| (format!("/{class}"), vec![DONE]));
    Downstream::acting([find].into_iter().chain(pay).collect()).await
}

fn config(downstream: &Downstream, class: &str) -> String {
    let verify = match class {
        "verify" => {
            let url = downstream.url("/find");
            format!("quiet_period = \"50ms\"\nverify = {{ url = \"{url}\", done = \"response.found\" }}")
        }
        _ => String::new(),
    };
    let more = format!("timeout = \"500ms\"\n{verify}");
    around(&tool("pay", &downstream.url(&format!("/{class}")), class, &more))
}

fn call() -> Ask {
    Ask::post("/v1/tools/pay", r#"{"order": "o-1"}"#).header("idempotency-key", "k")
}

/// Asks until it is told something else than to come again.
async fn end(address: SocketAddr) -> Reply {
    let asking = async {
        loop {
            let reply = call().send(address).await;
            if reply.status() != 409 {
                return reply;
            }
            tokio::task::yield_now().await;
        }
    };
    guarded("the call's end", asking).await
}

/// Dies at a failpoint, comes back, and says how the call ends and how often the receiver saw it.
async fn killed_at(failpoint: &str, class: &str, found: &'static str) -> (u16, usize, bool) {
    let downstream = downstream(found).await;
    let toml = config(&downstream, class);
    let server = Server::start_failing(tempfile::tempdir().unwrap(), &toml, &format!("{failpoint}:1")).await;
    assert!(call().try_send(server.address).await.is_none(), "it died before it answered");
    let server = server.died_and_restart(&toml).await;
    let reply = end(server.address).await;
    let keys = downstream.keys(&format!("/{class}"));
    assert!(keys.len() <= 1, "{keys:?}");
    if reply.status() == 202 {
        assert_eq!(reply.json()["parked"], "unknown_effect");
    } else {
        assert_eq!(reply.json()["ok"].as_bool().or(reply.json()["found"].as_bool()), Some(true), "{}", reply.text());
    }
    (reply.status(), keys.values().sum(), reply.header("x-outlast-replayed") == Some("true"))
}

const ABSENT: &str = r#"{"found": false}"#;
const FOUND: &str = r#"{"found": true}"#;

#[tokio::test]
async fn killed_after_the_intent_nothing_was_sent_and_nobody_guesses_that() {
    let ends = CLASSES.map(|class| killed_at("ledger.intent", class, ABSENT));
    let [pure, tx, keyed, verify, once] = ends;
    let (pure, tx, keyed, verify, once) = tokio::join!(pure, tx, keyed, verify, once);
    assert_eq!([pure, tx, keyed], [(200, 1, false); 3]);
    assert_eq!(verify, (200, 1, false), "it was asked about, and then done");
    assert_eq!(once, (202, 0, false), "a person is asked: to Outlast it may have been sent");
}

#[tokio::test]
async fn killed_after_the_sending_each_class_does_what_it_promises() {
    let ends = CLASSES.map(|class| killed_at("tool.sent", class, FOUND));
    let [pure, tx, keyed, verify, once] = ends;
    let (pure, tx, keyed, verify, once) = tokio::join!(pure, tx, keyed, verify, once);
    assert_eq!([pure, tx, keyed], [(200, 2, false); 3], "sent again, under the same key");
    assert_eq!((verify.0, verify.1), (200, 1), "found by asking");
    assert_eq!(once, (202, 1, false));
}

#[tokio::test]
async fn killed_after_the_outcome_it_is_replayed() {
    let ends = CLASSES.map(|class| killed_at("ledger.outcome", class, ABSENT));
    let [pure, tx, keyed, verify, once] = ends;
    let (pure, tx, keyed, verify, once) = tokio::join!(pure, tx, keyed, verify, once);
    assert_eq!([pure, tx, keyed, verify, once], [(200, 1, true); 5]);
}

#[tokio::test]
async fn killed_between_a_tool_and_its_alternative_nobody_is_asked_twice() {
    // The first is busy. Its alternative takes over, and the server dies when that has answered.
    let scripts = [("/a", vec![Does::Says(503, "{}"), DONE]), ("/b", vec![DONE])];
    let downstream = Downstream::start(scripts).await;
    let toml = around(
        &(tool("pay", &downstream.url("/a"), "keyed", "timeout = \"500ms\"\nalternatives = [\"b\"]")
            + &tool("b", &downstream.url("/b"), "keyed", "timeout = \"500ms\"")),
    );
    let server = Server::start_failing(tempfile::tempdir().unwrap(), &toml, "tool.sent:2").await;
    assert!(call().try_send(server.address).await.is_none(), "it died before it answered");
    let server = server.died_and_restart(&toml).await;
    let reply = end(server.address).await;
    assert_eq!((reply.status(), reply.header("x-outlast-tool")), (200, Some("b")), "{}", reply.text());
    assert_eq!(reply.json(), json!({ "ok": true }));
    assert_eq!((downstream.seen("/a").len(), downstream.seen("/b").len()), (1, 2));
    assert_eq!(downstream.keys("/b").len(), 1, "the same key, which it deduplicates");
}
