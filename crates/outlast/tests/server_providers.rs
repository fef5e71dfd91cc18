//! Providers with odd manners: the gateway takes what it can, and passes over the rest.

mod common;

use common::{
    Ask, Rig, Upstream,
    conn::BodyEnd,
    plan,
    rig::{fake, provider, two, two_fakes},
    until,
    upstream::{LAST_CHUNK, STREAM_HEAD, Step, chunk, completion, finish, json_reply, say},
};
use outlast::fake::{Fake, FakeConfig};
use outlast_model::record::Outcome;
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::task::JoinSet;

fn alone(url: &str) -> String {
    provider("a", "openai-compatible", url, "") + "[routes.main]\ntargets = [\"a/m\"]\n"
}

#[tokio::test]
async fn connections_to_a_provider_are_used_again_after_streams_and_whole_replies() {
    let a = fake("alpha").await;
    let config = alone(&a.url());
    let rig = Rig::start(&config).await;
    let mut conn = common::Conn::open(rig.address()).await;
    for turn in 0..20 {
        let ask = Ask::chat("main", "hello").with("stream", json!(turn % 2 == 0));
        ask.send_over(&mut conn).await.unwrap().assert_answered();
    }
    assert!(a.stats().connections <= 3, "{} connections for 20 calls one after the other", a.stats().connections);
}

#[tokio::test]
async fn a_provider_that_closes_after_each_reply_without_saying_so_costs_no_failed_attempt() {
    let upstream = Upstream::start(|_| vec![Step::Send(json_reply(&completion("fine"))), Step::Close]).await;
    let rig = Rig::start(&alone(&upstream.url())).await;
    for _ in 0..20 {
        let reply = rig.ask(Ask::chat("main", "hello")).await;
        reply.assert_answered();
        let record = rig.record(reply.request_id()).await;
        assert!(record.is_plain(), "{record:?}");
    }
    assert_eq!(upstream.seen().len(), 20, "no request was sent twice");
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_key() {
    let thief = Upstream::answering(completion("stolen")).await;
    let location = thief.url();
    let a = Upstream::start(move |_| {
        let head = format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}/v1/chat/completions\r\n");
        vec![Step::Send((head + "content-length: 0\r\n\r\n").into_bytes())]
    })
    .await;
    let b = fake("beta").await;
    let rig = Rig::start(&two(&a.url(), &b.url())).await;
    let reply = rig.ask(Ask::chat("main", "hello")).await;
    reply.assert_answered();
    assert_eq!(reply.header("x-outlast-target"), Some("b/m"));
    assert!(thief.seen().is_empty());
}

#[tokio::test]
async fn an_interim_response_is_skipped() {
    let upstream = Upstream::start(|_| {
        let interim = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n".to_vec();
        vec![Step::Send([interim, json_reply(&completion("fine"))].concat())]
    })
    .await;
    let rig = Rig::start(&alone(&upstream.url())).await;
    rig.ask(Ask::chat("main", "hello")).await.assert_answered();
}

#[tokio::test]
async fn an_error_page_in_html_is_classified_and_never_shown() {
    let page = "<html><body><h1>504 Gateway Time-out</h1>the-vendors-proxy</body></html>";
    let upstream = Upstream::start(move |_| {
        let head = format!(
            "HTTP/1.1 504 Gateway Time-out\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n",
            page.len()
        );
        vec![Step::Send((head + page).into_bytes())]
    })
    .await;
    let config = alone(&upstream.url()).replace("targets =", "tier = \"none\"\ntargets =");
    let rig = Rig::start(&config).await;
    for dialect in ["openai", "anthropic"] {
        let reply = rig.ask(Ask::either(dialect, "main", "hello")).await;
        assert!(reply.status() >= 500, "{}", reply.text());
        assert!(reply.json()["error"]["message"].is_string(), "in the caller's dialect: {}", reply.text());
        assert!(!reply.text().contains("the-vendors-proxy"));
    }
}

#[tokio::test]
async fn an_answer_that_comes_before_the_request_was_read_is_taken() {
    // The provider refuses a large request by its head and closes.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let refusing = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 512];
            let _ = stream.read(&mut head).await;
            let body = "{\"error\":{\"message\":\"too large\",\"type\":\"invalid_request_error\",\"code\":null}}";
            let reply = format!(
                "HTTP/1.1 413 Payload Too Large\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(reply.as_bytes()).await;
            // What is still on its way is read, as a polite server does.
            let mut rest = vec![0; 1 << 16];
            while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
        }
    });
    let b = fake("beta").await;
    let rig = Rig::start(&two(&url, &b.url())).await;
    let reply = rig.ask(Ask::chat("main", &"x".repeat(2_000_000))).await;
    let record = rig.record(reply.request_id()).await;
    assert_eq!(record.attempts[0].failure.as_ref().and_then(|report| report.status), Some(413), "{record:?}");
    refusing.abort();
}

#[tokio::test]
async fn events_with_comments_odd_line_ends_and_several_data_lines_are_read() {
    let delta = |text: &str| {
        json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]})
    };
    let events = format!(
        ": a comment\r\n\r\ndata: {}\r\n\r\n:\n\nevent: message\nid: 7\nretry: 100\ndata:{}\n\ndata: {}\r\rdata: [DONE]\n\n",
        delta("one "),
        delta("two "),
        json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{"index": 0, "delta": {"content": "three"}, "finish_reason": "stop"}]}),
    );
    let upstream = Upstream::start(move |_| {
        let pieces: String =
            events.as_bytes().chunks(5).map(|piece| chunk(std::str::from_utf8(piece).unwrap())).collect();
        vec![Step::Send((STREAM_HEAD.to_owned() + &pieces + LAST_CHUNK).into_bytes())]
    })
    .await;
    let rig = Rig::start(&alone(&upstream.url())).await;
    let reply = rig.ask(Ask::message("main", "hello").streamed()).await;
    reply.assert_answered();
    assert_eq!(reply.said(), "one two three");
    let reply = rig.ask(Ask::chat("main", "hello").streamed()).await;
    assert!(reply.text().contains("[DONE]") && reply.error_event().is_none(), "{}", reply.text());
}

#[tokio::test]
async fn a_stream_is_complete_at_its_terminal_event_though_the_connection_stays_open() {
    let body = STREAM_HEAD.to_owned() + &say("fine") + finish().strip_suffix(LAST_CHUNK).unwrap();
    let upstream = Upstream::start(move |_| vec![Step::Send(body.clone().into_bytes()), Step::Hang]).await;
    let rig = Rig::start(&alone(&upstream.url())).await;
    for dialect in ["openai", "anthropic"] {
        let reply = rig.ask(Ask::either(dialect, "main", "hello").streamed()).await;
        reply.assert_answered();
        let record = rig.record(reply.request_id()).await;
        assert!(record.is_plain() && record.latency_us < 5_000_000, "{record:?}");
    }
    until("both connections are let go", || upstream.left() == 2).await;
}

#[tokio::test]
async fn a_stream_whose_client_waits_long_is_kept_alive_and_ends_well_or_in_an_error_event() {
    let a = Fake::start(FakeConfig::named("alpha")).await.unwrap();
    let config = provider("a", "openai-compatible", &a.url(), "timeouts = { header = \"11s\" }")
        + "[routes.slow]\ntargets = [\"a/m~latency:10500ms\"]\ntier = \"none\"\n"
        + "[routes.never]\ntargets = [\"a/m~hang\"]\ntier = \"none\"\n";
    let rig = Rig::start(&config).await;
    let slow = Ask::chat("slow", "where?").with_schema().streamed();
    let never = Ask::message("never", "hello").streamed();
    let (slow, never) = tokio::join!(rig.ask(slow), rig.ask(never));
    assert!(slow.text().starts_with(": keep-alive\n\n"), "{}", slow.text());
    slow.assert_answered();
    let place: serde_json::Value = serde_json::from_str(&slow.said()).unwrap();
    assert!(place["city"].is_string());

    assert_eq!((never.status(), never.end), (200, BodyEnd::Whole), "the status line was given with the comment");
    assert!(never.text().starts_with(": keep-alive\n\n"), "{}", never.text());
    assert_eq!(never.error_event().map(|error| error["type"].clone()), Some(json!("error")));
    assert!(!never.says_it_is_complete());
    let outcome = rig.record(never.request_id()).await.outcome;
    assert!(matches!(outcome, Outcome::Failed(_)), "nothing of an answer was shown: {outcome:?}");
}

#[tokio::test]
async fn mutilated_replies_end_in_an_answer_or_an_error_and_break_nothing() {
    let tool_call = json!({"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{\"at\":1}"}});
    let delta = |delta: serde_json::Value, finish: serde_json::Value| {
        json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
    };
    let stream: String = [
        delta(json!({"role": "assistant", "content": "caf\u{e9}"}), json!(null)),
        delta(json!({"content": " and more"}), json!(null)),
        delta(json!({"tool_calls": [tool_call]}), json!(null)),
        delta(json!({}), json!("tool_calls")),
        json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [],
            "usage": {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16}}),
    ]
    .iter()
    .map(|event| format!("data: {event}\n\n"))
    .collect::<String>()
        + "data: [DONE]\n\n";
    let whole = completion("caf\u{e9} and more").to_string();
    let random = std::sync::Mutex::new(fastrand::Rng::with_seed(13));
    let upstream = Upstream::start(move |request| {
        let streamed = request.json()["stream"] == true;
        let (kind, body) = if streamed { ("text/event-stream", &stream) } else { ("application/json", &whole) };
        let body = common::mutilated(body.as_bytes(), &mut random.lock().unwrap(), b"{}[]\",:\\0n-eE.\r\n\xff");
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len());
        vec![Step::Send([head.into_bytes(), body].concat())]
    })
    .await;
    let config = alone(&upstream.url()) + "[telemetry]\nlog = \"off\"\nring = 8192\n[health]\nopen_at = 1000\n";
    let rig = Rig::start(&config.replace("targets =", "tier = \"none\"\ntargets =")).await;
    let mut conn = common::Conn::open(rig.address()).await;
    let mut complete = 0;
    for turn in 0..600 {
        let dialect = if turn % 2 == 0 { "openai" } else { "anthropic" };
        let tools = match dialect {
            "openai" => json!([{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]),
            _ => json!([{"name": "look", "input_schema": {"type": "object"}}]),
        };
        let ask = Ask::either(dialect, "main", "hello").with("stream", json!(turn % 4 < 2)).with("tools", tools);
        let reply = ask.send_over(&mut conn).await.expect("an answer");
        assert_eq!(reply.end, BodyEnd::Whole);
        if reply.is_stream() {
            let (ended, failed) = (reply.says_it_is_complete(), reply.error_event().is_some());
            assert!(ended != failed, "complete: {ended}, failed: {failed}: {}", reply.text());
            complete += usize::from(ended);
        } else if reply.status() == 200 {
            complete += 1;
        } else {
            assert!(reply.json()["error"]["message"].is_string(), "{}", reply.text());
        }
    }
    assert!((50..550).contains(&complete), "{complete} of 600 were still whole");
    assert_eq!(rig.gateway.targets()[0].in_flight, 0);
    assert_eq!(upstream.seen().len(), 600, "no call was tried twice");
}

/// Every call that is admitted settles once, whatever the providers and the clients do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_storm_of_faults_and_leaving_clients_every_call_settles_once() {
    let (a, b, config) = two_fakes().await;
    let config = config.replace("a/m\"", "a/m~gap=2ms\"")
        + "[tiers.tight]\nattempts = 3\ndeadline = \"2s\"\n[telemetry]\nlog = \"off\"\nring = 8192\n";
    let config = config.replace("targets = [\"a/m~", "tier = \"tight\"\ntargets = [\"a/m~");
    let rig = Rig::start(&config).await;
    let mut globs = String::new();
    for fault in
        ["hang", "reset:after-headers", "cut:after=3,how=eof", "500", "stall:after=2", "429", "malformed-chunk:after=1"]
    {
        let joint = if fault.contains(':') { ',' } else { ':' };
        let rare = plan(&format!("{fault}{joint}share=0.06"));
        // A rule of its own for each: the newest that bites wins.
        globs += "*";
        a.set_fault(&globs, rare.clone()).unwrap();
        b.set_fault(&globs, rare).unwrap();
    }
    let address = rig.address();
    let asked = AtomicUsize::new(0);
    let mut random = fastrand::Rng::with_seed(7);
    let mut clients = JoinSet::new();
    for _ in 0..300 {
        let (number, leaves) = (asked.fetch_add(1, Ordering::Relaxed), random.u64(0..4) == 0);
        let patience = Duration::from_millis(random.u64(0..60));
        clients.spawn(async move {
            let dialect = if number.is_multiple_of(2) { "openai" } else { "anthropic" };
            let ask = Ask::either(dialect, "main", "hello").with("stream", json!(number % 3 != 0));
            let ask = if number % 7 == 0 && dialect == "openai" { ask.with_schema() } else { ask };
            if leaves {
                // It reads for a while, then goes without a word.
                let _ = tokio::time::timeout(patience, ask.send(address)).await;
                return;
            }
            let reply = ask.send(address).await;
            assert_eq!(reply.end, BodyEnd::Whole);
            let whole = reply.status() == 200 && !reply.is_stream();
            let told = reply.status() >= 400 || reply.error_event().is_some();
            assert!(told || whole || reply.says_it_is_complete(), "neither an answer nor an error: {}", reply.text());
            assert!(!(reply.says_it_is_complete() && told), "both an answer and an error: {}", reply.text());
        });
        if number % 10 == 0 {
            tokio::task::yield_now().await;
        }
    }
    common::guarded("the clients", clients.join_all()).await;
    let in_flight = || rig.gateway.telemetry().metrics().calls_in_flight.get();
    until("all calls to settle", || in_flight() == 0).await;
    for provider in [&a, &b] {
        common::guarded("the providers to be let go", provider.quiet()).await;
    }
    let records = rig.gateway.telemetry().latest(1000);
    let mut seen = BTreeMap::new();
    for record in &records {
        *seen.entry(record.call.request_id.to_string()).or_insert(0) += 1;
        let same_target = record.call.attempts.windows(2).filter(|pair| pair[0].target == pair[1].target).count();
        assert!(same_target <= 1, "{record:?}");
        assert!(record.call.attempts.len() <= 3);
    }
    assert!(seen.values().all(|times| *times == 1), "each once");
    assert!(records.len() <= 300 && records.len() > 200, "{} of 300; some left before they were read", records.len());
    assert!(rig.gateway.targets().iter().all(|target| target.in_flight == 0), "{:?}", rig.gateway.targets());
}
