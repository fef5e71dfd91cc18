//! The five deadlines of an attempt and the deadline of the call: each gives its failure its name, and the client its
//! answer in time.

mod common;

use common::{
    Ask, Rig, Upstream, plan,
    rig::{fake, provider, two_fakes},
};
use outlast::fake::{Ending, Fake};
use outlast_model::{
    Failure,
    failure::Deadline,
    record::{CallRecord, Decision, Outcome},
};
use serde_json::json;
use std::{net::SocketAddr, time::Duration};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// What a busy machine may add to a deadline of some hundred milliseconds.
const SLACK: Duration = Duration::from_secs(3);

/// A route `main` over `a`, whose deadlines are given, and `b`.
async fn impatient(timeouts: &str) -> (Fake, Fake, Rig) {
    let (a, b) = (fake("alpha").await, fake("beta").await);
    let config = provider("a", "openai-compatible", &a.url(), &format!("timeouts = {{ {timeouts} }}"))
        + &provider("b", "openai-compatible", &b.url(), "")
        + "[routes.main]\ntargets = [\"a/m\", \"b/m\"]\n";
    let rig = Rig::start(&config).await;
    (a, b, rig)
}

/// The call was answered by `b` after `a` ran into this deadline of 300 ms, and not much later.
fn assert_rerouted(record: &CallRecord, deadline: Deadline) {
    assert_eq!(record.outcome, Outcome::Answered, "{record:?}");
    assert_eq!(record.first_failure(), Some(Failure::Timeout(deadline)));
    assert_eq!(record.attempts.len(), 2, "a silent target is not asked twice");
    assert_eq!(record.attempts[0].decision, Decision::Reroute);
    let took = Duration::from_micros(record.attempts[0].took_us);
    assert!(took >= Duration::from_millis(250) && took < SLACK, "{took:?}");
}

#[tokio::test]
async fn a_provider_without_a_response_head_runs_into_the_header_deadline() {
    let (a, _b, rig) = impatient("header = \"300ms\"").await;
    a.set_fault("*", plan("hang")).unwrap();
    for streamed in [false, true] {
        let reply = rig.ask(Ask::chat("main", "hello").with("stream", json!(streamed))).await;
        reply.assert_answered();
        assert_eq!(reply.header("x-outlast-fallback-reason"), Some("timeout"));
        assert_rerouted(&rig.record(reply.request_id()).await, Deadline::Header);
    }
    a.quiet().await;
    assert!(a.log().iter().all(|seen| seen.ending == Ending::ClientLeft), "the silent exchange is dropped");
}

#[tokio::test]
async fn a_stream_without_output_runs_into_the_first_token_deadline() {
    let (a, _b, rig) = impatient("first_token = \"300ms\"").await;
    a.set_fault("*", plan("hang:after-headers")).unwrap();
    let reply = rig.ask(Ask::chat("main", "hello").streamed()).await;
    reply.assert_answered();
    assert_rerouted(&rig.record(reply.request_id()).await, Deadline::FirstToken);
}

#[tokio::test]
async fn a_body_that_stops_runs_into_the_idle_deadline() {
    let (a, _b, rig) = impatient("idle = \"300ms\"").await;
    a.set_fault("*", plan("stall:after=2")).unwrap();
    let reply = rig.ask(Ask::chat("main", "hello")).await;
    reply.assert_answered();
    assert_rerouted(&rig.record(reply.request_id()).await, Deadline::Idle);
}

#[tokio::test]
async fn a_stream_that_stalls_after_its_first_output_ends_in_a_typed_error_within_the_idle_deadline() {
    let (a, b, rig) = impatient("idle = \"300ms\"").await;
    a.set_fault("*", plan("stall:after=2")).unwrap();
    let reply = rig.ask(Ask::chat("main", "hello").streamed()).await;
    assert!(reply.error_event().is_some() && !reply.says_it_is_complete(), "{}", reply.text());
    let record = rig.record(reply.request_id()).await;
    assert_eq!(record.outcome, Outcome::Interrupted(Failure::Timeout(Deadline::Idle)));
    assert!(Duration::from_micros(record.latency_us) < SLACK);
    assert_eq!(b.count(), 0);
}

#[tokio::test]
async fn a_reply_that_drips_for_ever_runs_into_the_total_deadline() {
    let (a, _b, rig) =
        impatient("header = \"200ms\", first_token = \"200ms\", idle = \"200ms\", total = \"300ms\"").await;
    a.set_fault("*", plan("drip:gap=60ms")).unwrap();
    let reply = rig.ask(Ask::chat("main", "hello")).await;
    reply.assert_answered();
    assert_rerouted(&rig.record(reply.request_id()).await, Deadline::Total);
}

/// A listener whose queue is full: the kernel drops further connection requests.
async fn unreachable() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        queued.push(stream);
        assert!(queued.len() < 64, "the queue never fills");
    }
    (address, listener, queued)
}

#[tokio::test]
async fn a_provider_that_does_not_accept_runs_into_the_connect_deadline() {
    let (address, _listener, _queued) = unreachable().await;
    let b = fake("beta").await;
    let config = provider("a", "openai-compatible", &format!("http://{address}"), "timeouts = { connect = \"300ms\" }")
        + &provider("b", "openai-compatible", &b.url(), "")
        + "[routes.main]\ntargets = [\"a/m\", \"b/m\"]\n";
    let rig = Rig::start(&config).await;
    for streamed in [false, true] {
        let reply = rig.ask(Ask::chat("main", "hello").with("stream", json!(streamed))).await;
        reply.assert_answered();
        let record = rig.record(reply.request_id()).await;
        assert_eq!(record.first_failure(), Some(Failure::Timeout(Deadline::Connect)));
        assert!(Duration::from_micros(record.latency_us) < SLACK);
        assert_eq!(record.attempts.last().unwrap().target.as_str(), "b/m");
    }
}

#[tokio::test]
async fn the_callers_deadline_ends_the_call_whatever_the_targets_do() {
    for fault in ["hang", "hang:after-headers", "drip:gap=100ms"] {
        let (a, b, config) = two_fakes().await;
        let rig = Rig::start(&config).await;
        for provider in [&a, &b] {
            provider.set_fault("*", plan(fault)).unwrap();
        }
        let ask = Ask::chat("main", "hello").header("x-outlast-deadline-ms", "400");
        let reply = rig.ask(ask).await;
        assert_eq!(reply.status(), 504, "{fault}: {}", reply.text());
        assert_eq!(reply.header("x-should-retry"), Some("false"));
        let record = rig.record(reply.request_id()).await;
        assert!(
            matches!(record.outcome, Outcome::Failed(Failure::Timeout(Deadline::Total) | Failure::Exhausted)),
            "{fault}: {:?}",
            record.outcome
        );
        let took = Duration::from_micros(record.latency_us);
        assert!(took >= Duration::from_millis(350) && took < SLACK, "{fault}: {took:?}");
        for provider in [&a, &b] {
            provider.quiet().await;
        }
    }
}

#[tokio::test]
async fn a_stream_that_has_begun_ends_in_a_typed_error_at_the_callers_deadline() {
    let (a, _b, config) = two_fakes().await;
    let rig = Rig::start(&config).await;
    a.set_fault("*", plan("stall:after=3")).unwrap();
    for dialect in ["openai", "anthropic"] {
        let ask = Ask::either(dialect, "main", "hello").streamed().header("x-outlast-deadline-ms", "400");
        let reply = rig.ask(ask).await;
        assert!(reply.error_event().is_some() && !reply.says_it_is_complete(), "{}", reply.text());
        let record = rig.record(reply.request_id()).await;
        assert_eq!(record.outcome, Outcome::Interrupted(Failure::Timeout(Deadline::Total)));
        assert!(Duration::from_micros(record.latency_us) < SLACK);
    }
}

#[tokio::test]
async fn the_tiers_deadline_holds_where_the_caller_names_none_or_a_longer_one() {
    let (a, b, config) = two_fakes().await;
    let config = config
        .replace("[routes.main]", "[tiers.hasty]\nattempts = 2\ndeadline = \"400ms\"\n[routes.main]\ntier = \"hasty\"");
    let rig = Rig::start(&config).await;
    for provider in [&a, &b] {
        provider.set_fault("*", plan("hang")).unwrap();
    }
    let plain = Ask::chat("main", "hello");
    for ask in [plain.clone(), plain.header("x-outlast-deadline-ms", "60000")] {
        let reply = rig.ask(ask).await;
        assert_eq!(reply.status(), 504, "{}", reply.text());
        let took = Duration::from_micros(rig.record(reply.request_id()).await.latency_us);
        assert!(took >= Duration::from_millis(350) && took < SLACK, "{took:?}");
    }
}

#[tokio::test]
async fn a_deadline_that_is_no_number_is_the_clients_mistake() {
    let (_a, _b, config) = two_fakes().await;
    let rig = Rig::start(&config).await;
    for value in ["soon", "0", "-5", "1.5", ""] {
        let reply = rig.ask(Ask::chat("main", "hello").header("x-outlast-deadline-ms", value)).await;
        assert_eq!(reply.status(), 400, "{value:?}: {}", reply.text());
        assert!(reply.text().contains("x-outlast-deadline-ms"));
    }
}

#[tokio::test]
async fn a_client_slow_to_read_is_not_held_against_the_target() {
    // The client reads nothing for longer than the idle deadline; the target has sent all it had.
    let body: String = (0..40).map(|_| common::upstream::say(&"x".repeat(64 << 10))).collect();
    let whole = common::upstream::STREAM_HEAD.to_owned() + &body + &common::upstream::finish();
    let upstream = Upstream::start(move |_| vec![common::Step::Send(whole.clone().into_bytes())]).await;
    let config = provider("a", "openai-compatible", &upstream.url(), "timeouts = { idle = \"100ms\" }")
        + "[routes.main]\ntargets = [\"a/m\"]\n";
    let rig = Rig::start(&config).await;
    let (head, mut conn) = Ask::chat("main", "hello").streamed().open(rig.address()).await;
    // Not a wait for something: the pause is what is tested.
    tokio::time::sleep(Duration::from_millis(400)).await;
    let (body, _) = conn.body().await;
    assert!(String::from_utf8_lossy(&body).contains("[DONE]"), "the reply is whole");
    assert_eq!(rig.record(head.header("x-outlast-request-id").unwrap()).await.outcome, Outcome::Answered);
}
