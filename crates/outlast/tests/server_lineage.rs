//! What is told of a call: the record, the log line, the trace, the `outlast` object, and what the bodies keep.

mod common;

use common::{
    Ask, Reply, Rig, Server, Upstream, plan,
    rig::{fake, field, provider, two, two_fakes},
    upstream::{STREAM_HEAD, Step, completion, finish, say},
};
use outlast_model::record::{AttemptReason, CallRecord, Decision, Outcome};
use serde_json::{Value, json};

async fn lineage(rig: &Rig, reply: &Reply) -> CallRecord {
    rig.record(reply.request_id()).await;
    let shown = rig.ask(Ask::get(&format!("/v1/requests/{}", reply.request_id()))).await;
    assert_eq!(shown.status(), 200, "{}", shown.text());
    serde_json::from_slice(&shown.body).expect("what is shown is the record")
}

#[tokio::test]
async fn a_record_tells_every_attempt_with_its_reason_failure_size_time_and_decision() {
    let (a, _b, config) = two_fakes().await;
    let prices = "[targets.\"b/m\"]\nprice = { input = 100.0, output = 100.0 }\n";
    let rig = Rig::start(&(config + prices)).await;
    a.set_fault("*", plan("503")).unwrap();
    let ask = Ask::chat("main", "hello").header("x-outlast-task", "t-1").header("x-outlast-step", "draft");
    let reply = rig.ask(ask).await;
    reply.assert_answered();
    let record = lineage(&rig, &reply).await;
    assert_eq!(record.route.as_str(), "main");
    assert_eq!((record.task_id.as_deref(), record.workflow_step.as_deref()), (Some("t-1"), Some("draft")));
    assert_eq!(record.outcome, Outcome::Answered);
    assert_eq!(record.planned.iter().map(|id| id.as_str()).collect::<Vec<_>>(), ["a/m", "b/m"]);
    let [first, second] = &record.attempts[..] else { panic!("{record:?}") };
    assert_eq!((first.reason, first.decision), (AttemptReason::First, Decision::Reroute));
    assert_eq!(first.failure.as_ref().map(|report| report.failure.class()), Some("overloaded"));
    assert_eq!((second.reason, second.decision), (AttemptReason::Reroute, Decision::Deliver));
    assert_eq!(second.failure, None);
    for attempt in [first, second] {
        assert!(attempt.bytes_out > 0 && attempt.bytes_in > 0 && attempt.took_us > 0, "{attempt:?}");
    }
    assert!(second.usage.input_tokens > 0 && second.usage.output_tokens > 0 && !second.usage.estimated);
    assert!(second.started_us >= first.started_us + first.took_us, "one after the other");
    assert!(record.cost.as_nanos() > 0);
    assert!(record.latency_us >= second.started_us + second.took_us);
    assert_eq!(record.served_by.as_ref().map(|id| id.as_str()), Some("b/m"));
    assert_eq!(reply.header("x-outlast-fallback-reason"), Some("overloaded"));
    assert_eq!(reply.header("x-request-id"), Some(reply.request_id()), "OpenAI's SDKs read this one");
    assert_eq!(reply.header("request-id"), Some(reply.request_id()), "Anthropic's this one");
}

#[tokio::test]
async fn a_record_is_found_in_memory_and_after_a_restart_in_the_file() {
    let (a, _b, config) = two_fakes().await;
    let config = config + "[telemetry]\nfile = \"calls.db\"\nsample = 0.0\nlog = \"off\"\n";
    let rig = Rig::start(&config).await;
    let plain = rig.ask(Ask::chat("main", "hello")).await;
    a.set_fault("*", plan("503")).unwrap();
    let rerouted = rig.ask(Ask::chat("main", "hello")).await;
    let (in_memory, _) = (lineage(&rig, &rerouted).await, lineage(&rig, &plain).await);
    let rig = rig.restart(&config).await;
    let shown = rig.ask(Ask::get(&format!("/v1/requests/{}", rerouted.request_id()))).await;
    assert_eq!(shown.status(), 200, "{}", shown.text());
    let in_file: CallRecord = serde_json::from_slice(&shown.body).unwrap();
    assert_eq!(in_file, in_memory, "a rerouted call is kept whole");
    let shown = rig.ask(Ask::get(&format!("/v1/requests/{}", plain.request_id()))).await;
    assert_eq!(shown.status(), 404, "of plain successes this config keeps none");
}

#[tokio::test]
async fn what_was_recorded_a_second_ago_survives_a_kill() {
    let (a, b) = (fake("alpha").await, fake("beta").await);
    let config = two(&a.url(), &b.url()) + "[telemetry]\nfile = \"calls.db\"\n";
    let mut server = Server::start(&config).await;
    a.set_fault("*", plan("503")).unwrap();
    let reply = Ask::chat("main", "hello").send(server.address).await;
    reply.assert_answered();
    // Not a wait for something: at most a second may be lost, so what is older must be there.
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    server.signal("KILL");
    server.exit().await;
    let folder = std::mem::replace(&mut server.folder, tempfile::tempdir().unwrap());
    let server = Server::start_in(folder, &config).await;
    let shown = Ask::get(&format!("/v1/requests/{}", reply.request_id())).send(server.address).await;
    assert_eq!(shown.status(), 200, "{}", shown.text());
}

#[tokio::test]
async fn the_log_line_of_a_call_has_every_field() {
    let (a, b) = (fake("alpha").await, fake("beta").await);
    let config = two(&a.url(), &b.url())
        + "[server]\nkeys = [\"${CALLER_ONE}\"]\n[targets.\"b/m\"]\nprice = { input = 100.0, output = 100.0 }\n";
    let server = Server::start(&config).await;
    a.set_fault("*", plan("503")).unwrap();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let ask = Ask::chat("main", "where?")
        .with_schema()
        .header("x-api-key", &common::rig::env("CALLER_ONE").unwrap())
        .header("x-outlast-task", "t-1")
        .header("x-outlast-step", "draft")
        .header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"));
    let reply = ask.send(server.address).await;
    reply.assert_answered();
    let line = server.until_events("call", 1).await.remove(0);
    for (name, value) in [
        ("request_id", reply.request_id()),
        ("trace_id", trace),
        ("task_id", "t-1"),
        ("workflow_step", "draft"),
        ("route", "main"),
        ("primary_target", "a/m"),
        ("failure", "overloaded"),
        ("fallback_target", "b/m"),
        ("tool_mode", "full"),
        ("schema_status", "valid"),
        ("quality_gate", "passed"),
        ("degraded", "false"),
        ("attempts", "2"),
        ("level", "warn"),
        ("outcome", "answered"),
        ("status", "200"),
    ] {
        assert_eq!(field(&line, name), value, "{name} in {line}");
    }
    for name in ["schema_version", "source_ids"] {
        assert!(line.get(name).is_some(), "{name} in {line}");
    }
    assert!(line["latency_ms"].as_f64().is_some_and(|ms| ms > 0.0) && line["cost_usd"].as_f64() > Some(0.0), "{line}");
    let tenant = field(&line, "tenant_hash");
    assert_eq!(tenant.len(), 12, "{line}");
    assert!(line["ts"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
}

#[tokio::test]
async fn a_trace_goes_on_upstream_with_a_span_of_its_own_for_each_attempt() {
    let failing = Upstream::start(|_| {
        vec![Step::Send(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_vec())]
    })
    .await;
    let good = Upstream::answering(completion("fine")).await;
    let rig = Rig::start(&two(&failing.url(), &good.url())).await;
    let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let traced = Ask::chat("main", "hello").header("traceparent", &format!("00-{trace}-{span}-01"));
    let reply = rig.ask(traced.header("tracestate", "vendor=1")).await;
    reply.assert_answered();
    let asked = [failing.seen().remove(0), good.seen().remove(0)];
    let mut spans = Vec::new();
    for request in &asked {
        let parts: Vec<&str> = request.header("traceparent").expect("passed on").split('-').collect();
        assert_eq!((parts[0], parts[1], parts[3]), ("00", trace, "01"));
        assert_eq!(request.header("tracestate"), Some("vendor=1"));
        spans.push(parts[2].to_owned());
    }
    assert!(spans[0] != spans[1] && spans.iter().all(|new| new != span), "{spans:?}");
    assert_eq!(&*rig.record(reply.request_id()).await.trace_id, trace);

    // A state without its trace says nothing.
    let reply = rig.ask(Ask::chat("main", "hello").header("tracestate", "vendor=2")).await;
    let request = good.seen().remove(1);
    assert_eq!(request.header("tracestate"), None);
    let trace_id = rig.record(reply.request_id()).await.trace_id.clone();
    assert!(request.header("traceparent").unwrap().contains(&*trace_id), "a trace of our own");
}

#[tokio::test]
async fn the_outlast_object_comes_when_asked_and_only_then() {
    for dialect in ["openai", "anthropic"] {
        for streamed in [false, true] {
            let (a, _b, config) = two_fakes().await;
            let rig = Rig::start(&config).await;
            a.set_fault("*", plan("503")).unwrap();
            let ask = Ask::either(dialect, "main", "hello").with("stream", json!(streamed));
            let reply = rig.ask(ask.clone()).await;
            reply.assert_answered();
            assert!(!reply.text().contains("\"outlast\""), "{dialect}: {}", reply.text());

            let reply = rig.ask(ask.header("x-outlast-trace", "full")).await;
            reply.assert_answered();
            let notes = if streamed {
                let told: Vec<Value> = reply.events().iter().map(|event| event.json()["outlast"].clone()).collect();
                let told: Vec<&Value> = told.iter().filter(|notes| notes.is_object()).collect();
                assert_eq!(told.len(), 1, "on one event of the end: {}", reply.text());
                told[0].clone()
            } else {
                reply.json()["outlast"].clone()
            };
            assert_eq!(notes["request_id"], reply.request_id(), "{dialect} {streamed}: {notes}");
            assert_eq!((&notes["target"], &notes["complete"]), (&json!("b/m"), &json!(true)));
            assert_eq!(notes["fallback_reason"], "overloaded");
            assert_eq!(notes["attempts"].as_array().map(Vec::len), Some(2));
        }
    }
}

#[tokio::test]
async fn body_notes_off_keeps_bodies_untouched_though_asked() {
    let (a, _b, config) = two_fakes().await;
    let rig = Rig::start(&(config + "[server]\nbody_notes = false\n")).await;
    a.set_fault("*", plan("503")).unwrap();
    for streamed in [false, true] {
        let ask = Ask::chat("main", "hello").with("stream", json!(streamed)).header("x-outlast-trace", "full");
        let reply = rig.ask(ask).await;
        reply.assert_answered();
        assert!(!reply.text().contains("\"outlast\""), "{}", reply.text());
        assert!(reply.header("x-outlast-request-id").is_some(), "the headers still tell");
    }
}

/// A body with odd spacing, unknown fields, duplicate keys deep inside, big numbers and escapes.
const ODD: &str = "{ \"zzz\" : [1, 2.50, 1e400, 123456789012345678901234567890 ],\n\t\"model\":\"main\" ,\"messages\":[{\"role\":\"user\",\
\"content\":\"caf\\u00e9 \\ud83d\\ude00 \\/ \"}], \"x_unknown\":{\"a\":1,\"a\":2,\"model\":\"not this one\"},\"temperature\":0.70 }";

#[tokio::test]
async fn a_same_dialect_request_goes_through_byte_for_byte_but_for_the_model() {
    let upstream = Upstream::answering(completion("fine")).await;
    let config =
        provider("a", "openai-compatible", &upstream.url(), "") + "[routes.main]\ntargets = [\"a/real-model\"]\n";
    let rig = Rig::start(&config).await;
    let reply = rig.ask(Ask::post("/v1/chat/completions", ODD).header("content-type", "application/json")).await;
    reply.assert_answered();
    let sent = upstream.seen().remove(0);
    let expected = ODD.replacen("\"main\"", "\"real-model\"", 1);
    assert_eq!(String::from_utf8_lossy(&sent.body), expected);
    assert!(sent.head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{}", sent.head);
    assert_eq!(sent.header("content-length"), Some(expected.len().to_string().as_str()));
}

#[tokio::test]
async fn a_same_dialect_reply_comes_back_byte_for_byte() {
    let odd = "{ \"id\":\"x\",\"object\":\"chat.completion\",\"created\":1, \"model\":\"real\",\n \"choices\":[{\"index\":0,\"message\":\
{\"role\":\"assistant\",\"content\":\"caf\\u00e9\",\"x_new\":[1e400]},\"finish_reason\":\"stop\",\"logprobs\":null}],\"usage\":\
{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5,\"x_detail\":{}}, \"service_tier\" : \"default\" }";
    let upstream = Upstream::start(move |_| {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-vendor: secret\r\ncontent-length: {}\r\n\r\n",
            odd.len()
        );
        vec![Step::Send((head + odd).into_bytes())]
    })
    .await;
    let config = provider("a", "openai-compatible", &upstream.url(), "") + "[routes.main]\ntargets = [\"a/real\"]\n";
    let rig = Rig::start(&config).await;
    let reply = rig.ask(Ask::chat("main", "hello")).await;
    assert_eq!(reply.text(), odd);
    let record = rig.record(reply.request_id()).await;
    assert_eq!((record.attempts[0].usage.input_tokens, record.attempts[0].usage.output_tokens), (3, 2));
    assert_eq!(record.attempts[0].bytes_in, odd.len() as u64);
}

#[tokio::test]
async fn a_same_dialect_stream_comes_back_byte_for_byte_however_it_is_cut_up() {
    let usage = "{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"real\",\"choices\":[],\"usage\":\
{\"prompt_tokens\":7,\"completion_tokens\":9,\"total_tokens\":16}}";
    let text = |content: &str, more: &str| {
        format!(
            "data: {{\"id\":\"c\", \"x_odd\":[ 1 ],\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"real\",\"choices\":[{{\"index\":0,\
\"delta\":{{{content}}},\"finish_reason\":{more}}}]}}\n\n"
        )
    };
    let shown = text("\"role\":\"assistant\",\"content\":\"\"", "null")
        + &text("\"content\":\"caf\\u00e9 \"", "null")
        + &text("\"content\":\"\u{1f600}!\"", "null")
        + &text("", "\"stop\"");
    let whole = format!("{shown}data: {usage}\n\ndata: [DONE]\n\n");
    for size in [1, 3, 7, 64, 4096] {
        let whole = whole.clone();
        let upstream = Upstream::start(move |_| {
            let mut bytes = STREAM_HEAD.as_bytes().to_vec();
            for piece in whole.as_bytes().chunks(size) {
                bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                bytes.extend_from_slice(piece);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            vec![Step::Send(bytes)]
        })
        .await;
        let config =
            provider("a", "openai-compatible", &upstream.url(), "") + "[routes.main]\ntargets = [\"a/real\"]\n";
        let rig = Rig::start(&config).await;
        // The usage chunk was asked for by the gateway, not by the client: it is counted and stripped.
        let reply = rig.ask(Ask::chat("main", "hello").streamed()).await;
        assert_eq!(reply.text(), format!("{shown}data: [DONE]\n\n"), "in pieces of {size}");
        assert_eq!(upstream.seen()[0].json()["stream_options"]["include_usage"], true);
        let record = rig.record(reply.request_id()).await;
        let usage = record.attempts[0].usage;
        assert_eq!((usage.input_tokens, usage.output_tokens, usage.estimated), (7, 9, false));
        // Asked for by the client, it stays.
        let ask = Ask::chat("main", "hello").streamed().with("stream_options", json!({ "include_usage": true }));
        let reply = rig.ask(ask).await;
        assert_eq!(reply.text(), format!("{shown}data: {}\n\ndata: [DONE]\n\n", &whole_usage(&shown, &reply.text())));
    }
}

/// The usage event between the text and the end of a stream.
fn whole_usage(shown: &str, stream: &str) -> String {
    let rest = stream.strip_prefix(shown).expect("the text is untouched");
    let usage = rest.strip_prefix("data: ").and_then(|rest| rest.split_once("\n\n")).expect("a usage event").0;
    assert_eq!(serde_json::from_str::<Value>(usage).unwrap()["usage"]["total_tokens"], 16);
    usage.to_owned()
}

#[tokio::test]
async fn an_anthropic_request_and_reply_go_through_byte_for_byte_too() {
    let odd = "{\"id\":\"msg_1\", \"type\":\"message\",\"role\":\"assistant\",\"model\":\"real\",\"content\":[ {\"type\":\"text\",\"text\":\"fine\"} ],\
\"stop_reason\":\"end_turn\",\"stop_sequence\":null,\"x_new\":1e400,\"usage\":{\"input_tokens\":4,\"output_tokens\":2}}";
    let upstream = Upstream::start(move |_| {
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", odd.len());
        vec![Step::Send((head + odd).into_bytes())]
    })
    .await;
    let config = provider("a", "anthropic", &upstream.url(), "api_key = \"${KEY_ZERO}\"")
        + "[routes.main]\ntargets = [\"a/real\"]\n";
    let rig = Rig::start(&config).await;
    let body = "{ \"model\":\"main\", \"max_tokens\":9,\"x_odd\":[ 1.0 ],\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}] }";
    let ask = Ask::post("/v1/messages", body).header("anthropic-version", "2023-06-01");
    let reply = rig.ask(ask.header("anthropic-beta", "some-beta-1").header("x-api-key", "the-clients-own")).await;
    assert_eq!(reply.text(), odd);
    let sent = upstream.seen().remove(0);
    assert_eq!(String::from_utf8_lossy(&sent.body), body.replacen("\"main\"", "\"real\"", 1));
    assert_eq!(sent.header("anthropic-version"), Some("2023-06-01"));
    assert_eq!(sent.header("anthropic-beta"), Some("some-beta-1"));
    assert_eq!(sent.header("x-api-key"), Some("sk-upstream-zero-0123456789"), "its own key, never the client's");
    assert!(!sent.head.contains("the-clients-own"));
}

#[tokio::test]
async fn the_providers_own_error_reaches_the_client_untouched_when_the_fault_is_the_clients() {
    let error = "{\"error\" : {\"message\":\"temperature is out of range\",\"type\":\"invalid_request_error\",\"param\":\"temperature\",\
\"code\":\"integer_above_max_value\", \"x_new\":1}}";
    let upstream = Upstream::start(move |_| {
        let head = format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            error.len()
        );
        vec![Step::Send((head + error).into_bytes())]
    })
    .await;
    let b = fake("beta").await;
    let rig = Rig::start(&two(&upstream.url(), &b.url())).await;
    for streamed in [false, true] {
        let reply =
            rig.ask(Ask::chat("main", "hello").with("temperature", json!(9)).with("stream", json!(streamed))).await;
        assert_eq!((reply.status(), reply.text().as_str()), (400, error));
        assert_eq!(reply.header("x-should-retry"), Some("false"));
    }
    assert_eq!(b.count(), 0, "it would be refused everywhere");
    assert_eq!(rig.gateway.targets()[0].faults, 0, "and nobody is to blame");
}

#[tokio::test]
async fn a_stream_and_its_usage_survive_a_crossing() {
    // A client of Anthropic's dialect, a provider of OpenAI's.
    let upstream = Upstream::start(|_| {
        vec![Step::Send((STREAM_HEAD.to_owned() + &say("one ") + &say("two") + &finish()).into_bytes())]
    })
    .await;
    let config = provider("a", "openai-compatible", &upstream.url(), "") + "[routes.main]\ntargets = [\"a/real\"]\n";
    let rig = Rig::start(&config).await;
    let reply = rig.ask(Ask::message("main", "hello").streamed()).await;
    reply.assert_answered();
    assert_eq!(reply.said(), "one two");
    let names: Vec<String> = reply.events().into_iter().filter_map(|event| event.name).collect();
    assert_eq!(names.first().map(String::as_str), Some("message_start"));
    assert_eq!(names.last().map(String::as_str), Some("message_stop"));
    let record = rig.record(reply.request_id()).await;
    assert!(
        record.attempts[0].usage.estimated && record.attempts[0].usage.output_tokens > 0,
        "the provider did not say"
    );
}
