//! Alerts against a receiver on the loopback.

use super::*;
use crate::{
    config::SecretKey,
    telemetry::{LogFormat, TelemetryOptions},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use outlast_model::TargetId;
use std::{
    convert::Infallible,
    io::{self, Write},
    process::{Command, Stdio},
};
use tokio::net::TcpListener;

const QUICK: Patience = Patience { tries: 3, backoff: Duration::from_millis(1), timeout: Duration::from_secs(20) };
const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn an_alert_is_delivered_signed_and_logged() {
    let mut receiver = Receiver::start([200]).await;
    let (alerts, log) = start(&receiver.config(&AlertEvent::ALL), QUICK);
    alerts.raise(opened("openai/small"));
    let post = receiver.next().await;

    let body: serde_json::Value = serde_json::from_slice(&post.body).unwrap();
    assert_eq!((&body["kind"], &body["subject"]), (&"breaker_opened".into(), &"openai/small".into()));
    assert!(body["message"].as_str().unwrap().contains("overloaded"));
    assert_eq!(post.signature, expected_signature("shh", &post.timestamp, &post.body));
    assert!(alerts.shutdown(LONG).await && alerts.0.telemetry.shutdown(LONG));
    let log = log.text();
    assert!(log.contains("breaker_opened") && !log.contains("shh") && !log.contains("token-in-path"), "{log}");
}

/// The example of `docs/observability.md` is run as it stands there.
#[tokio::test]
async fn the_documented_verification_accepts_our_signature_and_no_other() {
    let docs = include_str!("../../../../docs/observability.md");
    let example = docs.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let mut receiver = Receiver::start([200]).await;
    let (alerts, _) = start(&receiver.config(&AlertEvent::ALL), QUICK);
    alerts.raise(opened("openai/small"));
    let post = receiver.next().await;

    let verdict = |timestamp: &str, signature: &str| -> Option<String> {
        let script = format!(
            "{example}\nimport sys\nprint(verify(b'shh', {timestamp:?}, {signature:?}, sys.stdin.buffer.read()))"
        );
        let mut python =
            Command::new("python3").args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        python.stdin.take().unwrap().write_all(&post.body).unwrap();
        Some(String::from_utf8(python.wait_with_output().unwrap().stdout).unwrap().trim().to_owned())
    };
    let Some(genuine) = verdict(&post.timestamp, &post.signature) else {
        eprintln!("skipped: no python3 here");
        return;
    };
    assert_eq!(genuine, "True");
    assert_eq!(verdict("1700000000", &post.signature).unwrap(), "False", "an old delivery played again");
    let forged = format!("v1={}", "0".repeat(64));
    assert_eq!(verdict(&post.timestamp, &forged).unwrap(), "False");
}

#[tokio::test]
async fn a_receiver_that_fails_is_tried_again_with_the_same_id() {
    let mut receiver = Receiver::start([500, 503, 200]).await;
    let (alerts, _) = start(&receiver.config(&AlertEvent::ALL), QUICK);
    alerts.raise(opened("openai/small"));
    let posts = [receiver.next().await, receiver.next().await, receiver.next().await];
    assert!(posts.iter().all(|post| post.body == posts[0].body));
    assert!(alerts.shutdown(LONG).await);
    assert_eq!(alerts.0.desk.metrics.alerts_delivered.get(), 1);
}

#[tokio::test]
async fn a_receiver_that_refuses_or_keeps_failing_is_given_up_and_the_next_alert_goes_on() {
    let mut receiver = Receiver::start([401, 500, 500, 500, 200]).await;
    let (alerts, log) = start(&receiver.config(&AlertEvent::ALL), QUICK);
    for target in ["a/refused", "b/failing", "c/delivered"] {
        alerts.raise(opened(target));
    }
    let mut posts = Vec::new();
    for _ in 0..5 {
        posts.push(receiver.next().await.subject());
    }
    assert_eq!(posts, ["a/refused", "b/failing", "b/failing", "b/failing", "c/delivered"]);
    assert!(alerts.shutdown(LONG).await);
    assert_eq!(alerts.0.desk.metrics.alerts_dropped.get(), 2);
    assert!(alerts.0.telemetry.shutdown(LONG));
    assert_eq!(log.text().matches("alert_undelivered").count(), 2);
    assert!(!log.text().contains("token-in-path"));
}

#[tokio::test]
async fn a_repetition_is_told_once_and_a_change_at_once() {
    let mut receiver = Receiver::start([200; 8]).await;
    let (alerts, log) = start(&receiver.config(&AlertEvent::ALL), QUICK);
    let closed =
        || Alert { kind: AlertKind::BreakerClosed, subject: "openai/small".into(), message: "It serves again.".into() };
    for _ in 0..10 {
        alerts.raise(opened("openai/small"));
    }
    alerts.raise(opened("openai/large"));
    alerts.raise(closed());
    alerts.raise(opened("openai/small"));
    let mut told = Vec::new();
    for _ in 0..4 {
        let post = receiver.next().await;
        told.push((post.kind(), post.subject()));
    }
    let expected = [
        ("breaker_opened", "openai/small"),
        ("breaker_opened", "openai/large"),
        ("breaker_closed", "openai/small"),
        ("breaker_opened", "openai/small"),
    ];
    assert_eq!(told, expected.map(|(kind, subject)| (kind.to_owned(), subject.to_owned())));
    assert!(alerts.shutdown(LONG).await && alerts.0.telemetry.shutdown(LONG));
    assert_eq!(log.text().lines().count(), 4, "{}", log.text());
}

#[test]
fn a_repetition_is_told_again_after_a_while_with_its_count() {
    let mut state = State { config: config::Alerts::default(), told: BTreeMap::new() };
    let alert = Alert::from(opened("openai/small"));
    assert_eq!(state.tell(&alert, Mono::ZERO), Some(0));
    for second in 1..300 {
        assert_eq!(state.tell(&alert, Mono::from_millis(second * 1000)), None);
    }
    assert_eq!(state.tell(&alert, Mono::from_millis(300_000)), Some(299));
    assert_eq!(state.tell(&alert, Mono::from_millis(300_001)), None);
}

#[tokio::test]
async fn only_the_kinds_asked_for_are_sent_and_without_a_webhook_none() {
    let mut receiver = Receiver::start([200; 4]).await;
    let (alerts, log) = start(&receiver.config(&[AlertEvent::Quota]), QUICK);
    alerts.raise(opened("openai/small"));
    alerts.raise(outlast_engine::Alert::KeyOut { provider: "openai".into(), key: 0, cause: Failure::QuotaExhausted });
    assert_eq!(receiver.next().await.subject(), "openai key 1");
    alerts.configure(&config::Alerts::default());
    alerts.raise(outlast_engine::Alert::KeyBack { provider: "openai".into(), key: 0 });
    assert!(alerts.shutdown(LONG).await && alerts.0.telemetry.shutdown(LONG));
    assert_eq!(alerts.0.desk.metrics.alerts_delivered.get(), 1);
    assert_eq!(log.text().lines().count(), 3, "the log is always told");
}

#[test]
fn a_drop_of_quality_says_what_was_seen_and_what_would_be_fine() {
    let dropped = |route: Option<&str>, signal| {
        Alert::from(outlast_engine::Alert::QualityDropped {
            target: "openai/small".into(),
            route: route.map(Into::into),
            signal,
            observed: 31,
            bad: 7,
            baseline: 0.05,
        })
    };
    let alert = dropped(Some("answers"), Signal::Citation);
    assert_eq!((alert.kind.name(), alert.subject.as_str()), ("quality_dropped", "openai/small on answers (citation)"));
    assert_eq!(
        alert.message,
        "openai/small on answers ranks after the healthy targets: 7 of its last 31 replies did not name their sources, \
         where up to 5 % would be fine."
    );
    let alert = dropped(None, Signal::Golden);
    assert!(
        alert.message.starts_with("openai/small ranks after the healthy targets: 7 of its last 31 golden tasks failed")
    );
    assert!(alert.kind.wanted(&[AlertEvent::Quality]) && !alert.kind.wanted(&[AlertEvent::Breaker]));
}

#[tokio::test]
async fn more_alerts_than_the_queue_holds_are_logged_and_counted() {
    // This receiver never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let webhook = format!("http://{}/", silent.local_addr().unwrap()).parse().ok();
    let config = config::Alerts { webhook, secret: None, events: AlertEvent::ALL.to_vec() };
    let (alerts, log) = start(&config, QUICK);
    for n in 0..QUEUE_MAX + 40 {
        alerts.raise(opened(&format!("openai/{n}")));
    }
    assert!(alerts.0.desk.metrics.alerts_dropped.get() >= 39);
    assert!(!alerts.shutdown(Duration::from_millis(1)).await);
    assert!(alerts.0.telemetry.shutdown(LONG));
    assert_eq!(log.text().matches("breaker_opened").count(), QUEUE_MAX + 40);
}

fn opened(target: &str) -> outlast_engine::Alert {
    outlast_engine::Alert::BreakerOpened { target: TargetId::from(target), cause: Failure::Overloaded }
}

fn start(config: &config::Alerts, patience: Patience) -> (Alerts, Log) {
    let log = Log::default();
    let clock = Clock::seeded(1);
    let options =
        TelemetryOptions { log: LogFormat { human: false, calls: true, events: true }, ..TelemetryOptions::default() };
    let telemetry = Telemetry::start_with(options, clock.clone(), Box::new(log.clone())).unwrap();
    (Alerts::start_with(config, telemetry, clock, patience), log)
}

/// The definition in one piece; the example in the docs is the independent witness.
fn expected_signature(secret: &str, timestamp: &str, body: &[u8]) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
    let tag = aws_lc_rs::hmac::sign(&key, &[timestamp.as_bytes(), b".", body].concat());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("v1={hex}")
}

/// One POST as it arrived.
struct Post {
    timestamp: String,
    signature: String,
    body: Bytes,
}

impl Post {
    fn field(&self, name: &str) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        body[name].as_str().unwrap().to_owned()
    }

    fn kind(&self) -> String {
        self.field("kind")
    }

    fn subject(&self) -> String {
        self.field("subject")
    }
}

/// A receiver that answers with the given statuses, one after the other, and hands over what it got.
struct Receiver {
    address: std::net::SocketAddr,
    posts: mpsc::Receiver<Post>,
}

impl Receiver {
    async fn start(statuses: impl IntoIterator<Item = u16>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, posts) = mpsc::channel(64);
        let statuses: Arc<Mutex<Vec<u16>>> = Arc::new(Mutex::new(statuses.into_iter().collect()));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (sender, statuses) = (sender.clone(), Arc::clone(&statuses));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (sender, statuses) = (sender.clone(), Arc::clone(&statuses));
                    async move {
                        let header = |name| request.headers()[name].to_str().unwrap().to_owned();
                        let (timestamp, signature) = (header("x-outlast-timestamp"), header("x-outlast-signature"));
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        sender.send(Post { timestamp, signature, body }).await.unwrap();
                        let status = statuses.lock().unwrap().remove(0);
                        let mut reply = Response::new(Full::new(Bytes::new()));
                        *reply.status_mut() = StatusCode::from_u16(status).unwrap();
                        Ok::<_, Infallible>(reply)
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Receiver { address, posts }
    }

    fn config(&self, events: &[AlertEvent]) -> config::Alerts {
        config::Alerts {
            webhook: format!("http://{}/token-in-path", self.address).parse().ok(),
            secret: Some(SecretKey::new("shh")),
            events: events.to_vec(),
        }
    }

    async fn next(&mut self) -> Post {
        tokio::time::timeout(LONG, self.posts.recv()).await.expect("a delivery").unwrap()
    }
}

/// A log that can be read back.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
