//! The durable queue: what nobody can answer now is kept, answered once a target is healthy, and loses nothing to a
//! kill.

mod common;

use aws_lc_rs::hmac;
use common::{
    Ask, Reply, Rig, Server, Step, Upstream, plan,
    rig::{env, fake, provider},
    until, until_some,
    upstream::{Request, STREAM_HEAD, completion, finish, json_reply, say},
};
use outlast_model::record::{Outcome, Role};
use serde_json::json;
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
};

const DIALECTS: [&str; 2] = ["openai", "anthropic"];
const STORE: &str = "[store]\nfile = \"store.db\"\ndata_key = \"${DATA_KEY}\"\n";

/// A route over one target whose breaker lets a trial through soon.
fn config(url: &str, more: &str) -> String {
    provider("a", "openai-compatible", url, "")
        + "[routes.main]\ntargets = [\"a/m\"]\nbackstops = [\"queue\"]\n"
        + "[health]\nopen_base = \"1s\"\nrestore_over = \"1s\"\n"
        + STORE
        + more
}

/// What a queued request was told: where to look.
fn poll_url(queued: &Reply) -> String {
    assert_eq!(queued.status(), 202, "{}", queued.text());
    assert_eq!(queued.header("x-outlast-degraded"), Some("immediacy"));
    assert!(queued.header("retry-after").is_some());
    let told = match queued.is_stream() {
        false => queued.json()["outlast"].clone(),
        true => {
            queued.events().iter().map(|event| event.json()["outlast"].clone()).find(|told| told.is_object()).unwrap()
        }
    };
    assert_eq!(told["saved"], json!(true), "{told}");
    assert!(told["queue"]["id"].as_str().is_some_and(|id| id.starts_with("q_")), "{told}");
    assert!(!queued.said().is_empty(), "the notice is the text: {}", queued.text());
    let url = told["queue"]["poll_url"].as_str().expect("a URL").to_owned();
    assert_eq!(queued.header("location"), Some(url.as_str()));
    url
}

/// The end of a queued request, once it has one.
async fn end(address: SocketAddr, url: &str) -> Reply {
    until_some("the queued request to end", async || {
        Some(Ask::get(url).send(address).await).filter(|reply| reply.status() != 202)
    })
    .await
}

/// What the user said last, from an OpenAI body.
fn asked(request: &Request) -> String {
    let messages = request.json()["messages"].clone();
    let last = messages.as_array().and_then(|all| all.last()).expect("a message").clone();
    let content = &last["content"];
    content.as_str().or(content[0]["text"].as_str()).unwrap_or_default().to_owned()
}

/// How a provider is doing.
#[derive(Clone, Copy)]
enum Mood {
    Down,
    Hangs,
    Up,
}

/// The provider's mood, for the test to set.
#[derive(Clone)]
struct Mode(Arc<Mutex<Mood>>);

impl Mode {
    fn set(&self, mood: Mood) {
        *self.0.lock().unwrap() = mood;
    }

    fn get(&self) -> Mood {
        *self.0.lock().unwrap()
    }
}

/// A provider whose mode the test sets. When up it repeats what it was told.
async fn moody() -> (Upstream, Mode) {
    let mode = Mode(Arc::new(Mutex::new(Mood::Down)));
    let upstream = {
        let mode = mode.clone();
        Upstream::start(move |request| match mode.get() {
            Mood::Down => {
                vec![Step::Send(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_vec())]
            }
            Mood::Hangs => vec![Step::Hang],
            Mood::Up => {
                let text = format!("re: {}", asked(request));
                vec![Step::Send(match request.json()["stream"] == true {
                    true => [STREAM_HEAD, &say(&text), &finish()].concat().into_bytes(),
                    false => json_reply(&completion(&text)),
                })]
            }
        })
        .await
    };
    (upstream, mode)
}

#[tokio::test]
async fn a_request_nobody_can_answer_is_kept_and_answered_when_somebody_can_in_its_own_dialect() {
    let (_upstream, mode, rig) = {
        let (upstream, mode) = moody().await;
        let rig = Rig::start(&config(&upstream.url(), "")).await;
        (upstream, mode, rig)
    };
    let mut queued = Vec::new();
    for dialect in DIALECTS {
        for streamed in [false, true] {
            let text = format!("{dialect} {streamed}");
            let state = json!({ "state": { "step": "draft" } });
            let ask = Ask::either(dialect, "main", &text).with("stream", json!(streamed)).with("outlast", state);
            let reply = rig.ask(ask).await;
            assert_eq!(reply.is_stream(), streamed);
            let record = rig.record(reply.request_id()).await;
            assert_eq!(record.outcome, Outcome::Deferred);
            queued.push((dialect, text, poll_url(&reply), record));
        }
    }
    let waiting = rig.ask(Ask::get(&queued[0].2)).await;
    assert_eq!(waiting.status(), 202, "{}", waiting.text());
    assert!(
        ["waiting", "running"].iter().any(|state| waiting.json()["queue"]["state"] == **state),
        "{}",
        waiting.text()
    );

    mode.set(Mood::Up);
    for (dialect, text, url, asked) in queued {
        let answer = end(rig.address(), &url).await;
        assert_eq!((answer.status(), answer.said()), (200, format!("re: {text}")), "{}", answer.text());
        assert_eq!(answer.json()["type"] == "message", dialect == "anthropic");
        assert_eq!(answer.header("x-outlast-target"), Some("a/m"));
        let record = rig.record(answer.request_id()).await;
        let parent = record.parent.expect("it was asked on the client's behalf");
        assert_eq!((parent.role, parent.request_id), (Role::Queue, asked.request_id));
        assert_eq!(record.workflow_step.as_deref(), Some("draft"), "the state went along");
        assert_eq!(rig.ask(Ask::get(&url)).await.body, answer.body, "it can be fetched again");
    }
    let metrics = rig.ask(Ask::get("/metrics")).await.text();
    assert!(metrics.contains("outlast_queue_total{event=\"done\"} 4"), "{metrics}");
    assert!(metrics.contains("outlast_queue_waiting 0"), "{metrics}");
}

#[tokio::test]
async fn a_kill_while_requests_wait_or_are_being_answered_loses_none_and_each_ends_once() {
    let (upstream, mode) = moody().await;
    let config = config(&upstream.url(), "");
    let server = Server::start(&config).await;
    let mut queued = Vec::new();
    for n in 0..6 {
        let text = format!("question {n}");
        let reply = Ask::either(DIALECTS[n % 2], "main", &text).send(server.address).await;
        queued.push((text, poll_url(&reply)));
    }
    mode.set(Mood::Hangs);
    let before = upstream.seen().len();
    let server = server.kill_and_restart(&config).await;
    until("one to be asked again", || upstream.seen().len() > before).await;
    let server = server.kill_and_restart(&config).await;

    mode.set(Mood::Up);
    let mut answers = Vec::new();
    for (text, url) in &queued {
        // What the dead processes had claimed is taken up when their leases have run out.
        let answer = tokio::time::timeout(std::time::Duration::from_secs(40), async {
            loop {
                let reply = Ask::get(url).send(server.address).await;
                if reply.status() != 202 {
                    return reply;
                }
                tokio::task::yield_now().await;
            }
        });
        let answer = answer.await.expect("it ends");
        assert_eq!((answer.status(), answer.said()), (200, format!("re: {text}")), "{}", answer.text());
        answers.push((url, answer.body));
    }
    let server = server.kill_and_restart(&config).await;
    let metrics = Ask::get("/metrics").send(server.address).await.text();
    assert!(metrics.contains("outlast_queue_waiting 0") && metrics.contains("outlast_queue_running 0"), "{metrics}");
    for (url, body) in answers {
        assert_eq!(Ask::get(url).send(server.address).await.body, body, "its end stays what it was");
    }
    let answered = upstream.seen().len();
    until_some("nothing to be asked again", async || (upstream.seen().len() == answered).then_some(())).await;
}

#[tokio::test]
async fn a_process_told_to_stop_gives_back_what_it_had_claimed() {
    let (upstream, mode) = moody().await;
    let config = config(&upstream.url(), "[server]\ndrain_timeout = \"1s\"\n");
    let server = Server::start(&config).await;
    let reply = Ask::chat("main", "hello").send(server.address).await;
    let url = poll_url(&reply);
    mode.set(Mood::Hangs);
    let before = upstream.seen().len();
    until("it to be asked again", || upstream.seen().len() > before).await;
    let mut server = server;
    server.signal("TERM");
    server.exit().await;
    mode.set(Mood::Up);
    let folder = std::mem::replace(&mut server.folder, tempfile::tempdir().unwrap());
    let began = std::time::Instant::now();
    let server = Server::start_in(folder, &config).await;
    assert_eq!(end(server.address, &url).await.said(), "re: hello");
    assert!(began.elapsed() < std::time::Duration::from_secs(8), "no lease had to run out: {:?}", began.elapsed());
}

#[tokio::test]
async fn the_most_urgent_is_asked_first() {
    let (upstream, mode) = moody().await;
    // Opened by calls of a route that does not queue, the breaker keeps everything waiting.
    let more = "[routes.plain]\ntargets = [\"a/m\"]\n";
    let config = config(&upstream.url(), more).replace("open_base = \"1s\"", "open_base = \"3s\"");
    let rig = Rig::start(&config).await;
    until_some("the breaker to open", async || {
        rig.ask(Ask::chat("plain", "hello")).await;
        let targets = rig.ask(Ask::get("/v1/targets")).await.json();
        (targets["targets"][0]["state"] == "open").then_some(())
    })
    .await;
    let mut urls = Vec::new();
    for priority in ["low", "normal", "high", "critical"] {
        let queued = rig.ask(Ask::chat("main", priority).header("x-outlast-priority", priority)).await;
        urls.push(poll_url(&queued));
    }
    mode.set(Mood::Up);
    let before = upstream.seen().len();
    for url in urls {
        assert_eq!(end(rig.address(), &url).await.status(), 200);
    }
    assert_eq!(asked(&upstream.seen()[before]), "critical");
    let refused = rig.ask(Ask::chat("main", "hello").header("x-outlast-priority", "now")).await;
    assert_eq!(refused.status(), 400, "{}", refused.text());
}

#[tokio::test]
async fn a_request_that_is_not_answered_in_time_says_so_and_is_asked_no_more() {
    let a = fake("alpha").await;
    let more = "[backstops.soon]\nkind = \"queue\"\nexpires = \"1s\"\n";
    let config = config(&a.url(), more).replace("[\"queue\"]", "[\"soon\"]");
    let rig = Rig::start(&config).await;
    a.set_fault("*", plan("503")).unwrap();
    for dialect in DIALECTS {
        let queued = rig.ask(Ask::either(dialect, "main", "hello")).await;
        let expired = end(rig.address(), &poll_url(&queued)).await;
        assert_eq!(expired.status(), 410, "{}", expired.text());
        assert_eq!(expired.header("x-should-retry"), Some("false"));
        assert!(expired.text().contains("Send it again"), "{}", expired.text());
    }
}

#[tokio::test]
async fn what_the_request_itself_is_at_fault_for_ends_in_its_error() {
    let a = fake("alpha").await;
    let rig = Rig::start(&config(&a.url(), "")).await;
    a.set_fault("*", plan("503")).unwrap();
    let queued = rig.ask(Ask::chat("main", "hello")).await;
    let url = poll_url(&queued);
    a.set_fault("*", plan("content-filter")).unwrap();
    let failed = end(rig.address(), &url).await;
    assert_eq!(failed.status(), 400, "{}", failed.text());
    assert_eq!(failed.json()["error"]["code"], "content_filter");
    assert_eq!(failed.header("x-should-retry"), Some("false"));
}

#[tokio::test]
async fn a_queued_request_is_its_callers_alone() {
    let a = fake("alpha").await;
    let keys = "[server]\nkeys = [\"${CALLER_ONE}\", \"${CALLER_TWO}\"]\n";
    let rig = Rig::start(&config(&a.url(), keys)).await;
    a.set_fault("*", plan("503")).unwrap();
    let one = env("CALLER_ONE").unwrap();
    let url = poll_url(&rig.ask(Ask::chat("main", "hello").bearer(&one)).await);
    assert_eq!(rig.ask(Ask::get(&url)).await.status(), 401);
    assert_eq!(rig.ask(Ask::get(&url).bearer(&env("CALLER_TWO").unwrap())).await.status(), 404);
    assert_eq!(rig.ask(Ask::get("/v1/queue/q_made_up").bearer(&one)).await.status(), 404);
    assert_eq!(rig.ask(Ask::get(&url).bearer(&one)).await.status(), 202);
}

#[tokio::test]
async fn the_end_is_announced_by_a_signed_post_that_is_repeated_until_it_arrives() {
    let (upstream, mode) = moody().await;
    let deaf = Arc::new(AtomicU8::new(2));
    let receiver = {
        let deaf = deaf.clone();
        Upstream::start(move |_| {
            let status = match deaf.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
                Ok(_) => "503 Service Unavailable",
                Err(_) => "200 OK",
            };
            vec![Step::Send(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").into_bytes())]
        })
        .await
    };
    let more = format!(
        "[backstops.tell]\nkind = \"queue\"\nwebhook = {{ url = \"{}/hook\", secret = \"${{ALERT_SECRET}}\" }}\n",
        receiver.url()
    );
    let config = config(&upstream.url(), &more).replace("[\"queue\"]", "[\"tell\"]");
    let rig = Rig::start(&config).await;
    let url = poll_url(&rig.ask(Ask::chat("main", "hello")).await);
    mode.set(Mood::Up);
    until("three tries of the announcement", || receiver.seen().len() == 3).await;
    let secret = hmac::Key::new(hmac::HMAC_SHA256, env("ALERT_SECRET").unwrap().as_bytes());
    for post in receiver.seen() {
        let told = post.json();
        assert_eq!((&told["kind"], &told["poll_url"]), (&json!("queue.done"), &json!(url)));
        assert_eq!(json!(url), format!("/v1/queue/{}", told["id"].as_str().unwrap()), "tries are told by the id");
        assert!(!String::from_utf8_lossy(&post.body).contains("hello"), "no payload");
        let signature = post.header("x-outlast-signature").and_then(|value| value.strip_prefix("v1=")).unwrap();
        let signature: Vec<u8> =
            (0..signature.len()).step_by(2).map(|at| u8::from_str_radix(&signature[at..at + 2], 16).unwrap()).collect();
        let signed = [post.header("x-outlast-timestamp").unwrap().as_bytes(), b".", &post.body].concat();
        hmac::verify(&secret, &signed, &signature).expect("signed with the backstop's secret");
    }
    let delivered = "outlast_queue_webhooks_total{result=\"delivered\"} 1";
    until("the delivery to be noted", || rig.metrics().contains(delivered)).await;
}

#[tokio::test]
async fn under_an_idempotency_key_a_request_is_queued_once() {
    let a = fake("alpha").await;
    let rig = Rig::start(&config(&a.url(), "")).await;
    a.set_fault("*", plan("503")).unwrap();
    for dialect in DIALECTS {
        for streamed in [false, true] {
            let key = format!("{dialect} {streamed}");
            let ask = Ask::either(dialect, "main", "hello").header("idempotency-key", &key);
            let first = poll_url(&rig.ask(ask.clone().with("stream", json!(streamed))).await);
            for now in [streamed, !streamed] {
                let again = rig.ask(ask.clone().with("stream", json!(now))).await;
                assert_eq!(again.header("x-outlast-replayed"), Some("true"), "{}", again.text());
                assert_eq!((poll_url(&again), again.is_stream()), (first.clone(), now), "{key}, now {now}");
            }
        }
    }
    let metrics = rig.ask(Ask::get("/metrics")).await.text();
    assert!(metrics.contains("outlast_queue_total{event=\"queued\"} 4"), "{metrics}");
}
