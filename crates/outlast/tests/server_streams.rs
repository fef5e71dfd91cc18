//! Streams: what a client sees when a provider fails before, around and after the commit point, and what happens when
//! the client itself leaves.

mod common;

use common::{
    Ask, Rig, Upstream,
    conn::BodyEnd,
    plan,
    rig::{fake, provider, two_fakes},
    until,
    upstream::{STREAM_HEAD, Step, chunk, finish, say},
};
use outlast::fake::Ending;
use outlast_model::{
    Failure,
    failure::ConnectionFault,
    record::{Decision, Outcome, SchemaStatus},
};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn an_error_in_the_first_events_of_a_stream_is_never_seen() {
    for (kind, dialect) in [("openai-compatible", "openai"), ("anthropic", "anthropic")] {
        let (a, b) = (fake("alpha").await, fake("beta").await);
        let config = provider("a", kind, &a.url(), "api_key = \"k\"")
            + &provider("b", kind, &b.url(), "api_key = \"k\"")
            + "[routes.main]\ntargets = [\"a/m\", \"b/m\"]\n";
        let rig = Rig::start(&config).await;
        for fault in ["error-event:after=0", "malformed-chunk:after=0", "reset:after-headers"] {
            a.set_fault("*", plan(&format!("{fault}{}=1", joint(fault)))).unwrap();
            let reply = rig.ask(Ask::either(dialect, "main", "hello").streamed()).await;
            reply.assert_answered();
            assert!(!reply.text().contains("alpha"), "{fault}: {}", reply.text());
            assert_eq!(reply.header("x-outlast-target"), Some("b/m"), "{fault}");
            assert_eq!(reply.header("x-outlast-attempts"), Some("2"), "{fault}");
            let record = rig.record(reply.request_id()).await;
            let reason = record.first_failure().expect("the first attempt failed").class();
            assert_eq!(reply.header("x-outlast-fallback-reason"), Some(reason), "{fault}");
            assert_eq!(record.outcome, Outcome::Answered);
        }
    }
}

/// What joins a plan's arguments to a fault's text.
fn joint(fault: &str) -> &'static str {
    if fault.contains(':') { ",first" } else { ":first" }
}

#[tokio::test]
async fn a_stream_cut_after_the_commit_point_ends_in_a_typed_error_and_never_as_if_it_were_whole() {
    for dialect in ["openai", "anthropic"] {
        let (a, b, config) = two_fakes().await;
        let rig = Rig::start(&config).await;
        for how in ["eof", "close", "reset"] {
            a.set_fault("*", plan(&format!("cut:after=5,how={how}"))).unwrap();
            let reply = rig.ask(Ask::either(dialect, "main", "hello").streamed()).await;
            assert_eq!(reply.status(), 200);
            assert!(reply.said().contains("alpha"), "what came before the cut was shown: {}", reply.text());
            assert!(!reply.says_it_is_complete(), "{how}: {}", reply.text());
            let error = reply.error_event().unwrap_or_else(|| panic!("{how}: no error event in {}", reply.text()));
            assert!(error["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
            assert_eq!(reply.events().last().map(|event| event.json()), Some(error), "nothing follows the error");
            assert_eq!(reply.end, BodyEnd::Whole, "the connection itself is in order");
            let record = rig.record(reply.request_id()).await;
            assert!(
                matches!(
                    record.outcome,
                    Outcome::Interrupted(Failure::StreamInterrupted | Failure::Connection(ConnectionFault::Reset))
                ),
                "{how}: {:?}",
                record.outcome
            );
            assert_eq!(record.attempts.len(), 1);
            assert_eq!(record.attempts[0].decision, Decision::Interrupt);
            assert!(record.attempts[0].usage.output_tokens > 0, "what was shown is counted: {record:?}");
        }
        assert_eq!(b.count(), 0, "after the commit point nobody else is asked");
    }
}

#[tokio::test]
async fn a_stream_without_its_terminal_event_is_not_presented_as_complete() {
    let (a, _b, config) = two_fakes().await;
    let rig = Rig::start(&config).await;
    a.set_fault("*", plan("no-terminal")).unwrap();
    for dialect in ["openai", "anthropic"] {
        let reply = rig.ask(Ask::either(dialect, "main", "hello").streamed()).await;
        assert!(!reply.says_it_is_complete(), "{}", reply.text());
        assert!(reply.error_event().is_some(), "{}", reply.text());
    }
}

#[tokio::test]
async fn hold_saves_a_stream_that_is_cut_within_the_held_tokens_and_no_later() {
    let (a, b, config) = two_fakes().await;
    let held = "[contracts.held]\nstream = \"hold\"\nhold = { tokens = 20, after = \"10s\" }\n";
    let config = config.replace("[routes.main]", &format!("{held}[routes.main]\ncontract = \"held\""));
    let config = config.replace("a/m\"", "a/m~chunks=200\"");
    let rig = Rig::start(&config).await;

    a.set_fault("*", plan("cut:after=2,how=reset")).unwrap();
    let reply = rig.ask(Ask::chat("main", "hello").streamed()).await;
    reply.assert_answered();
    assert!(!reply.text().contains("alpha"), "{}", reply.text());
    assert_eq!(b.count(), 1);

    a.set_fault("*", plan("cut:after=150,how=reset")).unwrap();
    let reply = rig.ask(Ask::chat("main", "hello").streamed()).await;
    assert!(reply.error_event().is_some() && !reply.says_it_is_complete(), "{}", reply.text());
    assert_eq!(b.count(), 1);

    a.heal().unwrap();
    let reply = rig.ask(Ask::chat("main", "hello").streamed()).await;
    reply.assert_answered();
    assert!(reply.said().contains("alpha"));
}

#[tokio::test]
async fn hold_releases_after_its_time_though_few_tokens_have_come() {
    let upstream =
        Upstream::start(|_| vec![Step::Send((STREAM_HEAD.to_owned() + &say("early")).into_bytes()), Step::Hang]).await;
    let config = provider("a", "openai-compatible", &upstream.url(), "")
        + "[contracts.held]\nstream = \"hold\"\nhold = { tokens = 500, after = \"200ms\" }\n"
        + "[routes.main]\ntargets = [\"a/m\"]\ncontract = \"held\"\n";
    let rig = Rig::start(&config).await;
    let (head, mut conn) = Ask::chat("main", "hello").streamed().open(rig.address()).await;
    assert_eq!(head.status, 200);
    let piece = conn.piece().await.expect("the held token, while the stream goes on");
    assert!(String::from_utf8_lossy(&piece).contains("early"));
}

#[tokio::test]
async fn a_stream_that_must_keep_a_schema_never_shows_an_invalid_reply() {
    for fault in ["invalid-json", "schema-drift", "truncated", "cut:after=1,how=reset"] {
        let (a, b, config) = two_fakes().await;
        let rig = Rig::start(&config).await;
        a.set_fault("*", plan(fault)).unwrap();
        let reply = rig.ask(Ask::chat("main", "where?").with_schema().streamed()).await;
        reply.assert_answered();
        assert_eq!(reply.header("x-outlast-target"), Some("b/m"), "{fault}");
        let place: serde_json::Value = serde_json::from_str(&reply.said()).expect("one whole JSON document");
        assert!(place["city"].is_string(), "{fault}: {place}");
        assert_eq!(rig.record(reply.request_id()).await.schema_status, SchemaStatus::Valid);

        b.set_fault("*", plan(fault)).unwrap();
        let reply = rig.ask(Ask::chat("main", "where?").with_schema().streamed()).await;
        assert!(reply.status() >= 400, "{fault}: nothing was shown, so the status tells: {}", reply.text());
        assert!(reply.json()["error"]["message"].is_string());
        assert_eq!(reply.header("x-should-retry"), Some("false"), "the paths are spent");
        assert!(!matches!(rig.record(reply.request_id()).await.outcome, Outcome::Answered));
    }
}

#[tokio::test]
async fn a_client_that_leaves_mid_stream_cancels_upstream_and_its_call_is_settled_with_its_cost() {
    let a = fake("alpha").await;
    let config = provider("a", "openai-compatible", &a.url(), "")
        + "[targets.\"a/m~chunks=5000~gap=10ms\"]\nprice = { input = 1000.0, output = 1000.0 }\n"
        + "[routes.main]\ntargets = [\"a/m~chunks=5000~gap=10ms\"]\n";
    let rig = Rig::start(&config).await;
    let (head, mut conn) = Ask::chat("main", "hello").streamed().open(rig.address()).await;
    assert_eq!(head.status, 200);
    conn.piece().await.expect("the stream has begun");
    drop(conn);
    until("the provider sees the client leave", || a.log().first().is_some_and(|s| s.ending == Ending::ClientLeft))
        .await;
    let record = rig.record(head.header("x-outlast-request-id").unwrap()).await;
    assert_eq!(record.outcome, Outcome::Cancelled);
    assert_eq!(record.attempts[0].decision, Decision::Cancel);
    assert!(record.cost.as_nanos() > 0, "what was consumed is paid for: {record:?}");
    assert_eq!(rig.gateway.targets()[0].in_flight, 0);
    assert_eq!(rig.gateway.targets()[0].faults, 0, "the target had no part in it");
}

#[tokio::test]
async fn a_client_that_leaves_before_the_head_cancels_upstream_and_its_call_is_settled() {
    let (a, b, config) = two_fakes().await;
    let rig = Rig::start(&config).await;
    a.set_fault("*", plan("hang")).unwrap();
    for streamed in [false, true] {
        a.clear_log();
        let ask = Ask::chat("main", "hello").with("stream", json!(streamed));
        let mut conn = common::Conn::open(rig.address()).await;
        conn.write(&ask.bytes()).await.unwrap();
        until("the provider has the call", || a.count() == 1).await;
        drop(conn);
        until("the provider sees the client leave", || a.log()[0].ending == Ending::ClientLeft).await;
        let record = rig.latest_of(1 + usize::from(streamed)).await;
        assert_eq!(record.outcome, Outcome::Cancelled);
        assert_eq!(record.attempts.len(), 1);
    }
    assert_eq!(b.count(), 0, "nobody is asked on behalf of a client that left");
}

#[tokio::test]
async fn tokens_reach_the_client_as_they_come() {
    let (go, upstream) = {
        let go = std::sync::Arc::new(tokio::sync::Notify::new());
        let waits = go.clone();
        let script = move |_: &common::upstream::Request| {
            let begin = STREAM_HEAD.to_owned() + &say("one");
            let end = say("two") + &finish();
            vec![Step::Send(begin.into_bytes()), Step::Await(waits.clone()), Step::Send(end.into_bytes())]
        };
        (go, Upstream::start(script).await)
    };
    let config = provider("a", "openai-compatible", &upstream.url(), "") + "[routes.main]\ntargets = [\"a/m\"]\n";
    let rig = Rig::start(&config).await;
    let (_, mut conn) = Ask::chat("main", "hello").streamed().open(rig.address()).await;
    let first = conn.piece().await.unwrap();
    assert!(String::from_utf8_lossy(&first).contains("one"));
    go.notify_one();
    let (rest, end) = conn.body().await;
    assert!(String::from_utf8_lossy(&rest).contains("two") && end == BodyEnd::Whole);
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_provider_back_and_not_the_memory() {
    let event = chunk(&format!(
        "data: {}\n\n",
        json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{"index": 0, "delta": {"content": "x".repeat(64 << 10)}, "finish_reason": null}]})
    ));
    let upstream = Upstream::start(move |_| {
        vec![Step::Send(STREAM_HEAD.into()), Step::Repeat(event.clone().into_bytes(), Duration::ZERO)]
    })
    .await;
    let config = provider("a", "openai-compatible", &upstream.url(), "") + "[routes.main]\ntargets = [\"a/m\"]\n";
    let rig = Rig::start(&config).await;
    let (head, conn) = Ask::chat("main", "hello").streamed().open(rig.address()).await;
    assert_eq!(head.status, 200);
    // The provider's writes stop when every buffer between it and the client is full.
    let mut before = 0;
    let stalled = common::until_some("the provider to be held back", async || {
        // Between two looks: being held back shows only over time.
        tokio::time::sleep(Duration::from_millis(150)).await;
        let sent = upstream.bytes_sent();
        let still = sent > 0 && sent == before;
        before = sent;
        still.then_some(sent)
    });
    let stalled = stalled.await;
    assert!(stalled < 64 << 20, "{stalled} bytes are buffered for a client that does not read");
    drop(conn);
    until("the provider is let go", || upstream.left() == 1).await;
    assert_eq!(rig.latest_of(1).await.outcome, Outcome::Cancelled);
}

#[tokio::test]
async fn long_lines_pass_up_to_the_limit_and_beyond_it_the_next_target_answers() {
    for dialect in ["openai", "anthropic"] {
        let (a, _b, config) = two_fakes().await;
        let rig = Rig::start(&config).await;
        a.set_fault("*", plan("huge-line:bytes=1MB")).unwrap();
        let reply = rig.ask(Ask::either(dialect, "main", "hello").streamed()).await;
        reply.assert_answered();
        assert!(reply.said().len() >= 1_000_000, "{dialect}: {}", reply.said().len());
        assert_eq!(reply.header("x-outlast-target"), Some("a/m"));

        a.set_fault("*", plan("huge-line:bytes=8MB")).unwrap();
        let reply = rig.ask(Ask::either(dialect, "main", "hello").streamed()).await;
        reply.assert_answered();
        assert_eq!(reply.header("x-outlast-target"), Some("b/m"));
        assert_eq!(rig.record(reply.request_id()).await.first_failure(), Some(Failure::MalformedReply));
    }
}

#[tokio::test]
async fn deeply_nested_replies_harm_nobody() {
    for (dialect, streamed) in [("openai", false), ("openai", true), ("anthropic", false), ("anthropic", true)] {
        let (a, _b, config) = two_fakes().await;
        let rig = Rig::start(&config).await;
        for depth in [1_000, 100_000] {
            a.set_fault("*", plan(&format!("deep-json:depth={depth}"))).unwrap();
            let reply = rig.ask(Ask::either(dialect, "main", "hello").with("stream", json!(streamed))).await;
            // An unknown field of the same dialect may go through as it came; what matters is that nothing breaks.
            assert_eq!((reply.status(), reply.end), (200, BodyEnd::Whole), "{depth}");
            assert!(reply.text().contains("alpha") || reply.text().contains("beta"), "{depth}: {}", reply.text());
            assert!(!streamed || reply.says_it_is_complete(), "{depth}");
        }
    }
}

#[tokio::test]
async fn an_empty_reply_is_asked_for_once_more_and_then_elsewhere() {
    for (streamed, fault) in [(false, "empty"), (true, "empty"), (true, "empty:body")] {
        let (a, b, config) = two_fakes().await;
        let rig = Rig::start(&config).await;
        a.set_fault("*", plan(&format!("{fault}{}=1", joint(fault)))).unwrap();
        let ask = Ask::chat("main", "hello").with("stream", json!(streamed));
        let reply = rig.ask(ask.clone()).await;
        reply.assert_answered();
        assert_eq!(reply.header("x-outlast-fallback-reason"), Some("empty"));
        let record = rig.record(reply.request_id()).await;
        let asked: Vec<&str> = record.attempts.iter().map(|attempt| attempt.target.as_str()).collect();
        assert_eq!(asked, ["a/m", "a/m"]);
        a.set_fault("*", plan(fault)).unwrap();
        let reply = rig.ask(ask).await;
        reply.assert_answered();
        assert_eq!(reply.header("x-outlast-target"), Some("b/m"));
        assert_eq!(b.count(), 1);
    }
}

#[tokio::test]
async fn a_provider_that_answers_a_stream_request_with_an_error_in_plain_json_is_found_out() {
    let (a, _b, config) = two_fakes().await;
    let rig = Rig::start(&config).await;
    a.set_fault("*", plan("error-in-200")).unwrap();
    for streamed in [false, true] {
        let reply = rig.ask(Ask::chat("main", "hello").with("stream", json!(streamed))).await;
        reply.assert_answered();
        assert_eq!(reply.header("x-outlast-target"), Some("b/m"));
    }
}

#[tokio::test]
async fn with_one_target_a_failure_before_the_commit_point_is_an_http_error_with_its_status() {
    let a = fake("alpha").await;
    let config =
        provider("a", "openai-compatible", &a.url(), "") + "[routes.main]\ntargets = [\"a/m\"]\ntier = \"none\"\n";
    let rig = Rig::start(&config).await;
    a.set_fault("*", plan("error-event:after=0")).unwrap();
    for dialect in ["openai", "anthropic"] {
        let reply = rig.ask(Ask::either(dialect, "main", "hello").streamed()).await;
        assert!((500..=529).contains(&reply.status()), "{} {}", reply.status(), reply.text());
        assert!(!reply.is_stream());
        assert!(reply.json()["error"]["message"].is_string(), "{}", reply.text());
        assert_eq!(reply.header("x-should-retry"), Some("false"));
    }
}
