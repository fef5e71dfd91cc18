//! The front door under odd and hostile clients: every limit holds, says so clearly, and harms nobody else.

mod common;

use common::{
    Ask, Conn, Rig, Server, Upstream, guarded, plan,
    rig::{self, fake, provider, two_fakes},
    until, until_some,
    upstream::completion,
};
use serde_json::json;
use std::time::Duration;

/// A route over one fake, with these lines in `[server]`.
async fn with_server(lines: &str) -> (outlast::fake::Fake, Rig) {
    let a = fake("alpha").await;
    let config = provider("a", "openai-compatible", &a.url(), "")
        + &format!("[routes.main]\ntargets = [\"a/m\"]\n[server]\n{lines}\n");
    let rig = Rig::start(&config).await;
    (a, rig)
}

async fn assert_alive(rig: &Rig) {
    rig.ask(Ask::chat("main", "still there?")).await.assert_answered();
}

#[tokio::test]
async fn a_body_of_ten_megabytes_is_carried_whole_and_one_over_the_limit_is_refused() {
    for dialect in ["openai", "anthropic"] {
        let (a, rig) = with_server("max_body = \"11MB\"").await;
        let reply = rig.ask(Ask::either(dialect, "main", &"x".repeat(10_000_000))).await;
        reply.assert_answered();
        assert!(a.log()[0].bytes_in >= 10_000_000);
        let reply = rig.ask(Ask::either(dialect, "main", &"x".repeat(11_000_000))).await;
        assert_eq!(reply.status(), 413, "{}", reply.text());
        assert!(reply.json()["error"]["message"].as_str().unwrap().contains("11000000"), "{}", reply.text());
        assert_eq!(a.count(), 1);
        assert_alive(&rig).await;
    }
}

#[tokio::test]
async fn a_client_that_asks_before_sending_too_much_is_spared_from_sending_it() {
    let (_a, rig) = with_server("max_body = \"1MB\"").await;
    let mut conn = Conn::open(rig.address()).await;
    let head =
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2000000\r\n\r\n";
    conn.write(head).await.unwrap();
    assert_eq!(conn.head().await.unwrap().status, 413);
}

#[tokio::test]
async fn a_chunked_body_is_read_and_bounded_like_any_other() {
    let (a, rig) = with_server("max_body = \"1MB\"").await;
    let body = json!({ "model": "main", "messages": [{ "role": "user", "content": "in pieces" }] }).to_string();
    let mut conn = Conn::open(rig.address()).await;
    conn.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    for piece in body.as_bytes().chunks(7) {
        conn.write(format!("{:x}\r\n", piece.len()).as_bytes()).await.unwrap();
        conn.write(&[piece, b"\r\n"].concat()).await.unwrap();
    }
    conn.write(b"0\r\n\r\n").await.unwrap();
    assert_eq!(conn.head().await.unwrap().status, 200);
    assert_eq!(a.count(), 1);

    let mut conn = Conn::open(rig.address()).await;
    conn.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    let piece = [format!("{:x}\r\n", 64 << 10).into_bytes(), vec![b' '; 64 << 10], b"\r\n".to_vec()].concat();
    for _ in 0..20 {
        conn.write(&piece).await.unwrap();
    }
    conn.write(b"0\r\n\r\n").await.unwrap();
    assert_eq!(conn.head().await.unwrap().status, 413);
    assert_alive(&rig).await;
}

#[tokio::test]
async fn expect_100_continue_is_honoured() {
    let (_a, rig) = with_server("").await;
    let body = json!({ "model": "main", "messages": [{ "role": "user", "content": "patient" }] }).to_string();
    let mut conn = Conn::open(rig.address()).await;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    conn.write(head.as_bytes()).await.unwrap();
    assert_eq!(conn.head().await.unwrap().status, 100);
    conn.write(body.as_bytes()).await.unwrap();
    assert_eq!(conn.head().await.unwrap().status, 200);
}

#[tokio::test]
async fn slow_heads_are_dropped_in_time_however_steadily_they_drip() {
    let (_a, rig) = with_server("header_timeout = \"300ms\"").await;
    let mut silent = Conn::open(rig.address()).await;
    let mut half = Conn::open(rig.address()).await;
    half.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-half").await.unwrap();
    let dripping = async {
        let mut conn = Conn::open(rig.address()).await;
        conn.write(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
        while conn.write(b"x: y\r\n").await.is_ok() {
            // The pace of a slow client.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (_, end, ()) = guarded("all three to be dropped", async {
        tokio::join!(silent.until_closed(), half.until_closed(), dripping)
    })
    .await;
    let end = String::from_utf8_lossy(&end).into_owned();
    assert!(end.is_empty() || end.starts_with("HTTP/1.1 408"), "{end}");
    assert_alive(&rig).await;
}

#[tokio::test]
async fn a_connection_that_waits_between_requests_is_not_a_slow_head() {
    let (_a, rig) = with_server("header_timeout = \"10s\"").await;
    let mut conn = Conn::open(rig.address()).await;
    for _ in 0..3 {
        Ask::chat("main", "again").send_over(&mut conn).await.unwrap().assert_answered();
    }
}

#[tokio::test]
async fn slow_bodies_are_dropped_in_time_with_an_answer() {
    let (a, rig) = with_server("body_timeout = \"300ms\"").await;
    for head in ["content-length: 1000", "transfer-encoding: chunked"] {
        let mut conn = Conn::open(rig.address()).await;
        let head = format!("POST /v1/messages HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n");
        conn.write(head.as_bytes()).await.unwrap();
        let answer = conn.head().await.expect("an honest answer");
        assert_eq!(answer.status, 408);
        let (body, _) = conn.body().await;
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["type"], "error", "in the caller's dialect: {body}");
        conn.until_closed().await;
    }
    assert_eq!(a.count(), 0);
    assert_alive(&rig).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_nobodys_call() {
    let (a, rig) = with_server("").await;
    let mut conn = Conn::open(rig.address()).await;
    conn.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{\"mod").await.unwrap();
    drop(conn);
    assert_alive(&rig).await;
    assert_eq!(a.count(), 1, "only the second");
}

#[tokio::test]
async fn deeply_nested_requests_are_refused_in_the_callers_dialect() {
    let (a, rig) = with_server("").await;
    for (path, depth) in [("/v1/chat/completions", 1_000), ("/v1/messages", 1_000), ("/v1/chat/completions", 500_000)] {
        let nest = "[".repeat(depth) + &"]".repeat(depth);
        let body = format!(
            r#"{{"model":"main","max_tokens":9,"messages":[{{"role":"user","content":"x"}}],"metadata":{nest}}}"#
        );
        let reply = rig.ask(Ask::post(path, body)).await;
        assert_eq!(reply.status(), 400, "{path} {depth}: {}", reply.text());
        assert!(reply.json()["error"]["message"].is_string());
    }
    assert_eq!(a.count(), 0);
    assert_alive(&rig).await;
}

#[tokio::test]
async fn bodies_that_are_no_request_are_refused_with_a_reason() {
    let (a, rig) = with_server("").await;
    for body in [
        "",
        "not json",
        "[]",
        "\"text\"",
        "{}",
        "{\"messages\":[]}",
        "{\"model\":7,\"messages\":[]}",
        "{\"model\":\"main\",\"model\":\"other\",\"messages\":[]}",
        "{\"model\":\"main\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"stream\":\"perhaps\"}",
        "{\"model\":\"main\",\"messages\":[",
    ] {
        for path in ["/v1/chat/completions", "/v1/messages"] {
            let reply = rig.ask(Ask::post(path, body)).await;
            assert_eq!(reply.status(), 400, "{path} {body:?}: {}", reply.text());
            assert!(reply.json()["error"]["message"].as_str().is_some_and(|why| !why.is_empty()));
            assert_eq!(reply.header("x-should-retry"), Some("false"));
        }
    }
    let reply = rig.ask(Ask::post("/v1/chat/completions", [&b"{\"model\":\"\xff\xfe\"}"[..]].concat())).await;
    assert_eq!(reply.status(), 400, "{}", reply.text());
    assert_eq!(a.count(), 0);
}

#[tokio::test]
async fn an_unknown_model_is_404_in_both_dialects_and_is_not_remembered() {
    let (_a, rig) = with_server("").await;
    let reply = rig.ask(Ask::chat("no-such-model-7731", "hello")).await;
    assert_eq!(reply.status(), 404, "{}", reply.text());
    assert_eq!(reply.json()["error"]["code"], "model_not_found", "{}", reply.text());
    let reply = rig.ask(Ask::message("no-such-model-7731", "hello")).await;
    assert_eq!(reply.status(), 404, "{}", reply.text());
    assert_eq!(reply.json()["error"]["type"], "not_found_error", "{}", reply.text());
    assert!(!rig.metrics().contains("no-such-model-7731"), "a client cannot make this process remember a name");
}

#[tokio::test]
async fn huge_heads_and_garbage_are_refused_and_harm_nobody() {
    let (_a, rig) = with_server("").await;
    let huge = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx-huge: {}\r\n\r\n", "h".repeat(1 << 20)).into_bytes();
    let many: String = (0..500).map(|n| format!("x-{n}: y\r\n")).collect();
    let many = format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{many}\r\n").into_bytes();
    for (what, bytes) in [
        ("a huge header", huge),
        ("many headers", many),
        ("TLS on a plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on\r\n\r\n".to_vec()),
        ("no HTTP at all", b"HELO example.org\r\n\r\n".to_vec()),
        ("a NUL", b"GET /\0 HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
        (
            "two lengths",
            b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_vec(),
        ),
    ] {
        let mut conn = Conn::open(rig.address()).await;
        let _ = conn.write(&bytes).await;
        if let Some(head) = conn.head().await {
            assert!((400..500).contains(&head.status), "{what}: {}", head.status);
        }
        conn.until_closed().await;
        assert_alive(&rig).await;
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (_a, rig) = with_server("").await;
    let asks = [Ask::get("/healthz"), Ask::chat("main", "hello"), Ask::get("/no/such"), Ask::get("/v1/models")];
    let mut conn = Conn::open(rig.address()).await;
    conn.write(&asks.iter().flat_map(Ask::bytes).collect::<Vec<u8>>()).await.unwrap();
    let mut statuses = Vec::new();
    for _ in asks {
        statuses.push(conn.head().await.unwrap().status);
        conn.body().await;
    }
    assert_eq!(statuses, [200, 200, 404, 200]);
}

#[tokio::test]
async fn methods_and_paths_that_are_not_served_are_told_apart() {
    let (_a, rig) = with_server("").await;
    for (ask, status) in [
        (Ask::get("/healthz"), 200),
        (Ask::get("/healthz").method("HEAD"), 200),
        (Ask::get("/readyz"), 200),
        (Ask::get("/v1/models"), 200),
        (Ask::get("/v1/models/main"), 200),
        (Ask::get("/v1/models/a%2Fm"), 200),
        (Ask::get("/v1/models/no-such"), 404),
        (Ask::get("/v1/chat/completions"), 405),
        (Ask::get("/v1/messages"), 405),
        (Ask::get("/healthz").method("DELETE"), 405),
        (Ask::post("/v1/models", "{}"), 405),
        (Ask::get("/"), 404),
        (Ask::get("/v2/chat/completions"), 404),
        (Ask::get("/v1/requests/no-such-id"), 404),
    ] {
        let reply = rig.ask(ask.clone()).await;
        assert_eq!(reply.status(), status, "{ask:?}: {}", reply.text());
        assert!(reply.header("x-outlast-request-id").is_some());
        if status >= 400 {
            assert!(reply.json()["error"]["message"].is_string(), "{}", reply.text());
        }
    }
    let reply = rig.ask(Ask::get("/v1/chat/completions").method("HEAD")).await;
    assert_eq!(reply.status(), 405);
    let models = rig.ask(Ask::get("/v1/models")).await.json();
    let names: Vec<&str> = models["data"].as_array().unwrap().iter().filter_map(|m| m["id"].as_str()).collect();
    assert_eq!(names, ["main", "a/m"]);
    let models = rig.ask(Ask::get("/v1/models").header("anthropic-version", "2023-06-01")).await.json();
    assert_eq!(models["data"][0]["type"], "model");
    assert_eq!(models["first_id"], "main");
}

#[tokio::test]
async fn connections_over_the_cap_get_an_honest_503_and_places_become_free_again() {
    let (_a, rig) = with_server("max_connections = 5").await;
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut conn = Conn::open(rig.address()).await;
        assert_eq!(Ask::get("/healthz").send_over(&mut conn).await.unwrap().status(), 200);
        held.push(conn);
    }
    let mut refused = Conn::open(rig.address()).await;
    let head = refused.head().await.expect("an answer, though nothing was asked");
    assert_eq!((head.status, head.header("x-should-retry")), (503, Some("true")));
    assert!(head.header("retry-after").is_some());
    let (body, end) = refused.body().await;
    assert_eq!(end, common::conn::BodyEnd::Whole, "its length is what it says");
    let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert!(body["error"]["message"].is_string());
    for conn in &mut held {
        assert_eq!(Ask::get("/healthz").send_over(conn).await.unwrap().status(), 200, "the others go on");
    }
    held.pop();
    until_some("a place to become free", async || {
        Ask::get("/healthz").try_send(rig.address()).await.filter(|reply| reply.status() == 200)
    })
    .await;
    let refused = metric(&rig, "outlast_connections_total{result=\"refused\"}");
    assert!(refused >= 1, "{}", rig.metrics());
    drop(held);
    until("the gauge to come back", || metric(&rig, "outlast_connections") == 0).await;
}

/// The value of a metric's series.
fn metric(rig: &Rig, series: &str) -> i64 {
    let metrics = rig.metrics();
    let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {series} in {metrics}"))
}

#[tokio::test]
async fn calls_over_the_limit_in_flight_are_shed_with_a_time_to_come_back() {
    let (a, rig) = with_server("max_in_flight = 2").await;
    a.set_fault("*", plan("hang")).unwrap();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut conn = Conn::open(rig.address()).await;
        conn.write(&Ask::chat("main", "hold").bytes()).await.unwrap();
        held.push(conn);
    }
    until("both are in flight", || a.count() == 2).await;
    let reply = rig.ask(Ask::chat("main", "one more")).await;
    assert_eq!(reply.status(), 503, "{}", reply.text());
    assert_eq!(reply.header("x-should-retry"), Some("true"));
    assert!(reply.header("retry-after").is_some());
    assert_eq!(a.count(), 2, "nobody was asked for it");
    assert_eq!(metric(&rig, "outlast_shed_total{reason=\"overload\"}"), 1);
    assert_eq!(metric(&rig, "outlast_calls_in_flight"), 2);
    drop(held);
    until("the gauge to come back", || metric(&rig, "outlast_calls_in_flight") == 0).await;
}

#[tokio::test]
async fn a_large_request_to_a_gateway_that_stops_reads_its_503() {
    let (_a, rig) = with_server("").await;
    let (mut first, mut second) = (Conn::open(rig.address()).await, Conn::open(rig.address()).await);
    for conn in [&mut first, &mut second] {
        assert_eq!(Ask::get("/readyz").send_over(conn).await.unwrap().status(), 200);
    }
    let stopping = tokio::spawn(rig.gateway.stop());
    until_some("the gateway to say that it stops", async || {
        let reply = Ask::get("/readyz").send_over(&mut first).await?;
        (reply.status() == 503).then_some(())
    })
    .await;
    let reply = Ask::chat("main", &"x".repeat(3_000_000)).send_over(&mut second).await.expect("an answer");
    assert_eq!((reply.status(), reply.header("x-should-retry")), (503, Some("true")));
    assert!(guarded("the stop", stopping).await.unwrap(), "nothing was in flight");
}

#[tokio::test]
async fn a_reply_without_a_length_and_one_that_is_too_long_are_dealt_with() {
    let body = completion("until the connection ends").to_string();
    let bare = Upstream::start(move |_| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";
        vec![common::Step::Send((head.to_owned() + &body).into_bytes()), common::Step::Close]
    })
    .await;
    let endless = Upstream::start(|_| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
        let piece = format!("{:x}\r\n{}\r\n", 1 << 20, " ".repeat(1 << 20)).into_bytes();
        vec![common::Step::Send(head.into()), common::Step::Repeat(piece, Duration::ZERO)]
    })
    .await;
    let rig = Rig::start(&rig::two(&endless.url(), &bare.url())).await;
    let reply = rig.ask(Ask::chat("main", "hello")).await;
    reply.assert_answered();
    assert_eq!(reply.header("x-outlast-target"), Some("b/m"));
    assert_eq!(rig.record(reply.request_id()).await.first_failure(), Some(outlast_model::Failure::MalformedReply));
    assert!(endless.bytes_sent() < 100 << 20, "it was not read for ever: {}", endless.bytes_sent());
    until("the endless one is let go", || endless.left() == 1).await;
}

#[tokio::test]
async fn a_provider_that_answers_garbage_is_passed_over() {
    let garbage =
        Upstream::start(|_| vec![common::Step::Send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec()), common::Step::Close])
            .await;
    let b = fake("beta").await;
    let rig = Rig::start(&rig::two(&garbage.url(), &b.url())).await;
    let reply = rig.ask(Ask::chat("main", "hello")).await;
    reply.assert_answered();
    assert_eq!(rig.record(reply.request_id()).await.first_failure(), Some(outlast_model::Failure::MalformedReply));
}

#[tokio::test]
async fn a_provider_that_refuses_connections_is_passed_over() {
    let (a, _b, config) = two_fakes().await;
    let rig = Rig::start(&config).await;
    a.set_fault("*", plan("refuse-connections")).unwrap();
    for streamed in [false, true] {
        let reply = rig.ask(Ask::chat("main", "hello").with("stream", json!(streamed))).await;
        reply.assert_answered();
        assert_eq!(reply.header("x-outlast-fallback-reason"), Some("connection"));
    }
}

/// The most memory that 512 MiB of bodies may take: themselves, what their growing wastes, the process.
const RESIDENT_MAX: u64 = 700 << 20;

#[tokio::test]
async fn many_large_bodies_at_once_are_held_up_to_the_limit_and_then_refused_with_a_time_to_come_back() {
    let a = fake("alpha").await;
    let config = provider("a", "openai-compatible", &a.url(), "") + "[routes.main]\ntargets = [\"a/m\"]\n";
    let server = Server::start(&config).await;
    // 512 MiB are held at most: 17 bodies of nearly 31.5 MB, none of them whole yet, leave little more than 1 MB.
    let part = [
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 32000000\r\n\r\n".to_vec(),
        vec![b' '; 31_500_000],
    ]
    .concat();
    let mut senders = Vec::new();
    for _ in 0..17 {
        let mut conn = Conn::open(server.address).await;
        conn.write(&part).await.unwrap();
        senders.push(conn);
    }
    let large = Ask::chat("main", &"x".repeat(5_000_000));
    let refused = until_some("a refusal, once all that was sent has been read", async || {
        let reply = large.send(server.address).await;
        (reply.status() != 200).then_some(reply)
    })
    .await;
    assert_eq!((refused.status(), refused.header("x-should-retry")), (503, Some("true")), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    let resident = server.resident();
    eprintln!("{} MiB resident while 512 MiB of bodies are held", resident >> 20);
    assert!(resident < RESIDENT_MAX, "{} MiB", resident >> 20);
    Ask::chat("main", "a small one still fits").send(server.address).await.assert_answered();

    drop(senders.pop());
    until_some("the room to be free again", async || {
        Some(large.send(server.address).await).filter(|reply| reply.status() == 200)
    })
    .await;
}

#[tokio::test]
async fn mutilated_requests_get_an_answer_each_and_break_nothing() {
    let (_a, rig) = with_server("").await;
    let tool = json!({"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}});
    let schema =
        json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "required": ["a"]}}});
    let openai = json!({
        "model": "main", "stream": true, "stream_options": {"include_usage": true}, "max_tokens": 64, "temperature": 0.5,
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": [
            {"type": "text", "text": "caf\u{e9}"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]}],
        "tools": [{"type": "function", "function": tool}], "response_format": schema,
    });
    let anthropic = json!({
        "model": "main", "max_tokens": 64, "system": [{"type": "text", "text": "be brief"}], "stream": false,
        "messages": [{"role": "user", "content": "use the tool"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "x"}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "seen"}]}],
        "tools": [{"name": "look", "input_schema": {"type": "object"}}], "tool_choice": {"type": "auto"},
    });
    let mut random = fastrand::Rng::with_seed(11);
    let mut conn = Conn::open(rig.address()).await;
    let mut answered = 0;
    for (path, body) in [("/v1/chat/completions", &openai), ("/v1/messages", &anthropic)] {
        let body = body.to_string().into_bytes();
        for _ in 0..400 {
            let ask = Ask::post(path, common::mutilated(&body, &mut random, b"{}[]\",:\\0n-eE.\x00\xff"));
            let reply = ask.send_over(&mut conn).await.unwrap_or_else(|| panic!("no answer to {ask:?}"));
            // 502: the output limit became so small that the demanded structure cannot be whole.
            assert!(matches!(reply.status(), 200 | 400 | 404 | 502), "{} to {ask:?}: {}", reply.status(), reply.text());
            assert!(reply.status() == 200 || reply.json()["error"]["message"].is_string());
            answered += usize::from(reply.status() == 200);
        }
    }
    assert!(answered > 50, "{answered} of 800 were still requests");
    assert_alive(&rig).await;
}
