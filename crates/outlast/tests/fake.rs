//! The fake provider, byte by byte: what each fault does on the wire, in both dialects, streamed and not.

mod support;

use outlast::fake::{Ending, Fake, FakeConfig, key_hash};
use outlast_drill::{Fault, FaultPlan, fault::Bites};
use outlast_model::policy::Dialect;
use serde_json::{Value, json};
use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};
use support::{Close, Reply, receive};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const BOTH: [Dialect; 2] = Dialect::ALL;

#[tokio::test]
async fn a_good_stream_has_every_part_the_vendor_sends() {
    let fake = Fake::start(FakeConfig::named("alpha")).await.unwrap();
    let reply =
        ask(&fake, Dialect::OpenaiChat, "none", json!({"stream": true, "stream_options": {"include_usage": true}}))
            .await;
    assert_eq!(reply.headers["content-type"], "text/event-stream; charset=utf-8");
    let events = reply.events();
    assert_eq!(events.first().unwrap().1["choices"][0]["delta"]["role"], "assistant");
    let text: String = events.iter().filter_map(|(_, data)| data["choices"][0]["delta"]["content"].as_str()).collect();
    assert!(text.starts_with("alpha answers as m: heard \"Hello\"."), "{text}");
    let n = events.len();
    assert_eq!(events[n - 3].1["choices"][0]["finish_reason"], "stop");
    assert_eq!(
        (&events[n - 2].1["choices"], events[n - 2].1["usage"]["completion_tokens"].as_u64()),
        (&json!([]), Some(16))
    );
    assert_eq!(events[n - 1].1, json!("[DONE]"));
    assert!(events[..n - 2].iter().all(|(_, data)| data["usage"].is_null()), "usage is null until the end");

    let reply = ask(&fake, Dialect::Anthropic, "none", json!({"stream": true})).await;
    let names: Vec<String> = reply.events().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names[..3], ["message_start", "content_block_start", "ping"]);
    assert_eq!(names[names.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    let delta = &reply.events()[names.len() - 2].1;
    assert_eq!(
        (delta["delta"]["stop_reason"].as_str(), delta["usage"]["output_tokens"].as_u64()),
        (Some("end_turn"), Some(16))
    );
}

#[tokio::test]
async fn a_good_whole_reply_has_the_vendors_shape_and_usage() {
    let fake = Fake::start(FakeConfig::named("alpha")).await.unwrap();
    let long = "word ".repeat(2000);
    let more = json!({"messages": [{"role": "user", "content": long}]});
    let openai = ask(&fake, Dialect::OpenaiChat, "none", more.clone()).await.json();
    assert_eq!(openai["object"], "chat.completion");
    assert_eq!(openai["choices"][0]["finish_reason"], "stop");
    let (prompt, cached) = (
        openai["usage"]["prompt_tokens"].as_u64().unwrap(),
        &openai["usage"]["prompt_tokens_details"]["cached_tokens"],
    );
    assert!(prompt > 2000 && *cached == prompt / 2 / 128 * 128, "{openai}");
    let anthropic = ask(&fake, Dialect::Anthropic, "none", more).await.json();
    assert_eq!((&anthropic["type"], &anthropic["stop_reason"]), (&json!("message"), &json!("end_turn")));
    assert!(anthropic["usage"]["cache_read_input_tokens"].as_u64().unwrap() > 500, "{anthropic}");
}

#[tokio::test]
async fn an_output_limit_ends_the_reply_with_a_length_stop() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    let openai = ask(&fake, Dialect::OpenaiChat, "none", json!({"max_completion_tokens": 1})).await.json();
    assert_eq!(
        (&openai["choices"][0]["finish_reason"], &openai["usage"]["completion_tokens"]),
        (&json!("length"), &json!(1))
    );
    let anthropic = ask(&fake, Dialect::Anthropic, "none", json!({"max_tokens": 1})).await.json();
    assert_eq!((&anthropic["stop_reason"], &anthropic["usage"]["output_tokens"]), (&json!("max_tokens"), &json!(1)));
}

#[tokio::test]
async fn a_models_suffix_sets_the_number_of_chunks() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    for dialect in BOTH {
        let body = json!({"stream": true, "model": "m~chunks=64", "max_tokens": 100});
        let reply = ask(&fake, dialect, "none", body).await;
        assert_eq!(outputs(dialect, &reply), 64);
    }
}

#[tokio::test]
async fn tools_are_called_when_forced_named_or_invited_and_results_are_answered_in_text() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    for dialect in BOTH {
        for stream in [false, true] {
            let named =
                json!({"stream": stream, "messages": [{"role": "user", "content": "tool:weather and tool:clock"}]});
            let reply = ask(&fake, dialect, "none", with_tools(dialect, named)).await;
            let calls = tool_calls(dialect, stream, &reply);
            assert_eq!(
                calls,
                [("weather".into(), json!({"city": "text"})), ("clock".into(), json!({}))],
                "{dialect:?} {stream}"
            );

            let forced = match dialect {
                Dialect::OpenaiChat => {
                    json!({"stream": stream, "tool_choice": {"type": "function", "function": {"name": "clock"}}})
                }
                Dialect::Anthropic => json!({"stream": stream, "tool_choice": {"type": "tool", "name": "clock"}}),
            };
            let reply = ask(&fake, dialect, "none", with_tools(dialect, forced)).await;
            assert_eq!(tool_calls(dialect, stream, &reply), [("clock".into(), json!({}))], "{dialect:?} {stream}");

            let results = json!({"stream": stream, "messages": tool_results(dialect)});
            let reply = ask(&fake, dialect, "none", with_tools(dialect, results)).await;
            assert!(tool_calls(dialect, stream, &reply).is_empty());
            assert!(reply.text().contains("sunny"), "{}", reply.text());
        }
    }
}

#[tokio::test]
async fn structured_output_keeps_the_schema_it_was_given() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    let schema = schema();
    for dialect in BOTH {
        let reply = ask(&fake, dialect, "none", structured(dialect, false)).await.json();
        let text = match dialect {
            Dialect::OpenaiChat => reply["choices"][0]["message"]["content"].as_str(),
            Dialect::Anthropic => reply["content"][0]["text"].as_str(),
        };
        assert!(jsonschema::is_valid(&schema, &serde_json::from_str(text.unwrap()).unwrap()), "{reply}");
    }
}

#[tokio::test]
async fn a_reasoning_model_reasons_before_it_answers() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    let openai = ask(&fake, Dialect::OpenaiChat, "none", json!({"model": "fake-reason"})).await.json();
    assert!(openai["choices"][0]["message"]["reasoning_content"].is_string(), "{openai}");
    assert!(openai["usage"]["completion_tokens_details"]["reasoning_tokens"].as_u64().unwrap() > 0, "{openai}");
    let anthropic = ask(&fake, Dialect::Anthropic, "none", json!({"model": "fake-reason"})).await.json();
    assert_eq!(
        (&anthropic["content"][0]["type"], &anthropic["content"][1]["type"]),
        (&json!("thinking"), &json!("text"))
    );
}

#[tokio::test]
async fn error_statuses_come_in_the_dialects_own_envelope() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    for (fault, openai, anthropic) in [
        ("429", (429, "rate_limit_exceeded"), (429, "rate_limit_error")),
        ("500", (500, "server_error"), (500, "api_error")),
        ("503", (503, "server_is_overloaded"), (503, "overloaded_error")),
        ("529", (529, "server_is_overloaded"), (529, "overloaded_error")),
        ("context-exceeded", (400, "context_length_exceeded"), (400, "invalid_request_error")),
        ("auth", (401, "invalid_api_key"), (401, "authentication_error")),
        ("quota", (429, "insufficient_quota"), (400, "invalid_request_error")),
        ("access-denied:region", (403, "unsupported_country_region_territory"), (403, "permission_error")),
        ("access-denied:model", (404, "model_not_found"), (404, "not_found_error")),
    ] {
        for stream in [false, true] {
            let reply = ask(&fake, Dialect::OpenaiChat, fault, json!({"stream": stream})).await;
            assert_eq!((reply.status, reply.json()["error"]["code"].as_str()), (openai.0, Some(openai.1)), "{fault}");
            assert!(reply.headers["x-request-id"].starts_with("req_"));
            let reply = ask(&fake, Dialect::Anthropic, fault, json!({"stream": stream})).await;
            let body = reply.json();
            assert_eq!((reply.status, body["error"]["type"].as_str()), (anthropic.0, Some(anthropic.1)), "{fault}");
            assert_eq!(
                (&body["type"], body["request_id"].as_str()),
                (&json!("error"), Some(reply.headers["request-id"].as_str()))
            );
        }
    }
}

#[tokio::test]
async fn a_429_says_when_to_come_back_only_if_told_to() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    for dialect in BOTH {
        let silent = ask(&fake, dialect, "429", json!({})).await;
        assert!(
            !silent.headers.keys().any(|name| name.contains("retry") || name.contains("ratelimit")),
            "{:?}",
            silent.headers
        );
        let says = ask(&fake, dialect, "429:retry-after=1500ms", json!({})).await;
        assert_eq!(says.headers["retry-after"], "2");
        let remaining = match dialect {
            Dialect::OpenaiChat => "x-ratelimit-remaining-requests",
            Dialect::Anthropic => "anthropic-ratelimit-requests-remaining",
        };
        assert_eq!(says.headers[remaining], "0");
    }
    assert_eq!(ask(&fake, Dialect::OpenaiChat, "503:retry-after=1", json!({})).await.headers["retry-after"], "1");
}

#[tokio::test]
async fn a_bad_gateway_answers_with_a_proxys_page() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    let reply = ask(&fake, Dialect::OpenaiChat, "502", json!({})).await;
    assert_eq!((reply.status, reply.headers["content-type"].as_str()), (502, "text/html"));
}

#[tokio::test]
async fn a_reset_is_a_tcp_reset_before_or_after_the_head() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    for dialect in BOTH {
        for stream in [false, true] {
            let reply = ask(&fake, dialect, "reset:before-headers", json!({"stream": stream})).await;
            assert_eq!((reply.status, reply.close), (0, Close::Reset));
            let reply = ask(&fake, dialect, "reset:after-headers", json!({"stream": stream})).await;
            assert_eq!((reply.status, reply.body.len(), reply.close), (200, 0, Close::Reset));
        }
    }
}

#[tokio::test]
async fn a_cut_leaves_so_many_chunks_and_ends_in_its_own_manner() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    for dialect in BOTH {
        for (how, close) in [("reset", Close::Reset), ("close", Close::Fin), ("eof", Close::None)] {
            let fault = format!("cut:after=5,how={how}");
            let streamed = ask(&fake, dialect, &fault, json!({"stream": true})).await;
            assert_eq!((outputs(dialect, &streamed), streamed.close), (5, close), "{dialect:?} {fault}");
            assert_eq!(streamed.complete, close == Close::None);
            assert!(!has_terminal(dialect, &streamed), "{dialect:?} {fault}");

            let whole = ask(&fake, dialect, &fault, json!({})).await;
            assert_eq!((whole.close, whole.complete), (close, close == Close::None), "{dialect:?} {fault}");
            assert!(
                !whole.body.is_empty() && serde_json::from_slice::<Value>(&whole.body).is_err(),
                "{dialect:?} {fault}"
            );
        }
    }
}

#[tokio::test]
async fn a_cut_beyond_the_end_still_keeps_the_terminal_event_back() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    for dialect in BOTH {
        let streamed = ask(&fake, dialect, "cut:after=9999,how=eof", json!({"stream": true})).await;
        assert_eq!((outputs(dialect, &streamed), has_terminal(dialect, &streamed)), (16, false));
        let whole = ask(&fake, dialect, "cut:after=9999,how=reset", json!({})).await;
        assert_eq!((whole.complete, whole.close), (false, Close::Reset));
    }
}

#[tokio::test]
async fn a_cut_inside_a_tool_leaves_half_of_its_arguments() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    for dialect in BOTH {
        let body = with_tools(dialect, json!({"stream": true}));
        let reply = ask(&fake, dialect, "cut:inside-tool,how=eof", body).await;
        let arguments = tool_arguments(dialect, &reply);
        assert!(arguments.starts_with('{') && serde_json::from_str::<Value>(&arguments).is_err(), "{arguments}");
        assert!(reply.complete && !has_terminal(dialect, &reply));
    }
}

#[tokio::test]
async fn a_hang_or_stall_lasts_until_the_client_leaves() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    for dialect in BOTH {
        for stream in [false, true] {
            for (fault, status) in [("hang", None), ("hang:after-headers", Some(200)), ("stall:after=5", Some(200))] {
                fake.clear_log();
                let mut client = send(&fake, dialect, fault, json!({"stream": stream})).await;
                fake.until(|stats| stats.calls == 1).await;
                if status.is_some() {
                    assert!(client.read_u8().await.unwrap() == b'H', "the head comes");
                }
                assert_eq!(fake.log()[0].ending, Ending::Open, "{fault}");
                drop(client);
                fake.quiet().await;
                let seen = fake.log().remove(0);
                assert_eq!((seen.ending, seen.status), (Ending::ClientLeft, status), "{dialect:?} {stream} {fault}");
                assert_eq!(seen.bytes_out > 0, fault.starts_with("stall"), "{dialect:?} {stream} {fault}");
            }
        }
    }
}

#[tokio::test]
async fn slow_faults_take_their_time_and_then_answer_well() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    for dialect in BOTH {
        for stream in [false, true] {
            for (fault, least) in [("latency:30ms", 30), ("first-token:30ms", 30), ("drip:gap=3ms", 45)] {
                let start = Instant::now();
                let reply = ask(&fake, dialect, fault, json!({"stream": stream})).await;
                assert!(start.elapsed() >= Duration::from_millis(least), "{dialect:?} {stream} {fault}");
                assert_good(dialect, stream, &reply);
            }
        }
    }
}

#[tokio::test]
async fn a_malformed_chunk_is_framed_well_and_is_no_json() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    for dialect in BOTH {
        for after in [0, 3] {
            let fault = format!("malformed-chunk:after={after}");
            let streamed = ask(&fake, dialect, &fault, json!({"stream": true})).await;
            let broken = raw_data(&streamed)
                .iter()
                .filter(|data| *data != "[DONE]" && serde_json::from_str::<Value>(data).is_err())
                .count();
            assert_eq!((broken, outputs(dialect, &streamed), streamed.complete), (1, 16, true), "{dialect:?} {fault}");
            let whole = ask(&fake, dialect, &fault, json!({})).await;
            assert!(whole.complete && serde_json::from_slice::<Value>(&whole.body).is_err(), "{dialect:?} {fault}");
        }
    }
}

#[tokio::test]
async fn a_missing_terminal_leaves_all_output_and_a_proper_end_of_the_body() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    for dialect in BOTH {
        let streamed = ask(&fake, dialect, "no-terminal", json!({"stream": true})).await;
        assert_eq!((outputs(dialect, &streamed), streamed.complete), (16, true));
        let finishes = |reply: &Reply| {
            reply.text().contains("\"stop_reason\":\"end_turn\"") || reply.text().contains("\"finish_reason\":\"stop\"")
        };
        assert!(!has_terminal(dialect, &streamed) && !finishes(&streamed), "{}", streamed.text());
        let late = ask(&fake, dialect, "no-terminal:after-finish", json!({"stream": true})).await;
        assert!(!has_terminal(dialect, &late) && finishes(&late), "{}", late.text());
        assert_good(dialect, false, &ask(&fake, dialect, "no-terminal", json!({})).await);
    }
}

#[tokio::test]
async fn errors_hide_inside_a_success() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    for dialect in BOTH {
        let kind = match dialect {
            Dialect::OpenaiChat => "service_unavailable_error",
            Dialect::Anthropic => "overloaded_error",
        };
        for after in [0, 2] {
            let reply = ask(&fake, dialect, &format!("error-event:after={after}"), json!({"stream": true})).await;
            let (name, last) = reply.events().pop().unwrap();
            assert_eq!(
                (reply.status, outputs(dialect, &reply), last["error"]["type"].as_str()),
                (200, after, Some(kind))
            );
            assert!(dialect == Dialect::OpenaiChat || name == "error");
        }
        for stream in [false, true] {
            let reply = ask(&fake, dialect, "error-in-200", json!({"stream": stream})).await;
            assert_eq!((reply.status, reply.headers["content-type"].as_str()), (200, "application/json"));
            assert!(reply.json()["error"]["message"].is_string());
        }
    }
}

#[tokio::test]
async fn an_empty_answer_is_well_formed_and_an_empty_body_is_nothing() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    for dialect in BOTH {
        for stream in [false, true] {
            let reply = ask(&fake, dialect, "empty", json!({"stream": stream})).await;
            assert_eq!(outputs(dialect, &reply), 0);
            assert!(!stream || has_terminal(dialect, &reply));
            let reply = ask(&fake, dialect, "empty:body", json!({"stream": stream})).await;
            assert_eq!((reply.status, reply.body.len(), reply.complete), (200, 0, true), "{dialect:?} {stream}");
        }
    }
}

#[tokio::test]
async fn structured_output_breaks_in_syntax_in_names_or_in_the_middle() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    for dialect in BOTH {
        let text = |reply: Value| match dialect {
            Dialect::OpenaiChat => reply["choices"][0]["message"]["content"].as_str().unwrap().to_owned(),
            Dialect::Anthropic => reply["content"][0]["text"].as_str().unwrap().to_owned(),
        };
        let broken = text(ask(&fake, dialect, "invalid-json", structured(dialect, false)).await.json());
        assert!(serde_json::from_str::<Value>(&broken).is_err(), "{broken}");
        let drifted = text(ask(&fake, dialect, "schema-drift", structured(dialect, false)).await.json());
        assert!(!jsonschema::is_valid(&schema(), &serde_json::from_str(&drifted).unwrap()), "{drifted}");
        let cut = ask(&fake, dialect, "truncated", structured(dialect, false)).await;
        assert!(cut.text().contains("\"length\"") || cut.text().contains("\"max_tokens\""), "{}", cut.text());
        assert!(serde_json::from_str::<Value>(&text(cut.json())).is_err());
    }
}

#[tokio::test]
async fn refusals_and_filters_look_as_each_vendor_shows_them() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    let refused = ask(&fake, Dialect::OpenaiChat, "refusal", json!({})).await.json();
    assert!(
        refused["choices"][0]["message"]["refusal"].is_string() && refused["choices"][0]["finish_reason"] == "stop"
    );
    assert!(
        ask(&fake, Dialect::OpenaiChat, "refusal", json!({"stream": true}))
            .await
            .text()
            .contains("\"delta\":{\"refusal\":\"I'm\"}")
    );
    assert_eq!(ask(&fake, Dialect::Anthropic, "refusal", json!({})).await.json()["stop_reason"], "refusal");
    let filtered = ask(&fake, Dialect::OpenaiChat, "content-filter", json!({})).await.json();
    assert_eq!(filtered["choices"][0]["finish_reason"], "content_filter");
    let filtered = ask(&fake, Dialect::Anthropic, "content-filter", json!({})).await;
    assert_eq!(
        (filtered.status, filtered.json()["error"]["message"].as_str()),
        (400, Some("Output blocked by content filtering policy"))
    );
}

#[tokio::test]
async fn tool_faults_bite_only_calls_that_offer_tools() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    for dialect in BOTH {
        for stream in [false, true] {
            for fault in ["unsupported-tools", "bad-tool-args"] {
                assert_good(dialect, stream, &ask(&fake, dialect, fault, json!({"stream": stream})).await);
            }
            let offered = || with_tools(dialect, json!({"stream": stream}));
            assert_eq!(ask(&fake, dialect, "unsupported-tools", offered()).await.status, 400);
        }
        let bad = ask(&fake, dialect, "bad-tool-args", with_tools(dialect, json!({"stream": true}))).await;
        assert!(serde_json::from_str::<Value>(&tool_arguments(dialect, &bad)).is_err() && has_terminal(dialect, &bad));
    }
    let whole = ask(&fake, Dialect::Anthropic, "bad-tool-args", with_tools(Dialect::Anthropic, json!({}))).await.json();
    assert!(whole["content"][0]["input"].is_string(), "{whole}");
}

#[tokio::test]
async fn huge_lines_and_deep_json_are_as_large_as_asked() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    for dialect in BOTH {
        for stream in [false, true] {
            let huge = ask(&fake, dialect, "huge-line:bytes=1MB", json!({"stream": stream})).await;
            assert!(huge.text().lines().any(|line| line.len() > 1_000_000));
            assert_good(dialect, stream, &huge);
            let deep = ask(&fake, dialect, "deep-json:depth=5000", json!({"stream": stream})).await;
            assert!(deep.text().contains(&"[".repeat(5000)));
        }
    }
}

#[tokio::test]
async fn refused_connections_are_refused_and_open_ones_reset_until_healed() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    let mut open = send(&fake, Dialect::OpenaiChat, "hang", json!({})).await;
    fake.until(|stats| stats.calls == 1).await;
    fake.set_fault("*", Some(FaultPlan::always(Fault::RefuseConnections))).unwrap();
    assert_eq!(open.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(TcpStream::connect(fake.addr()).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    fake.heal().unwrap();
    assert_good(Dialect::OpenaiChat, false, &ask(&fake, Dialect::OpenaiChat, "none", json!({})).await);
    let partial = FaultPlan { share: 0.5, ..FaultPlan::always(Fault::RefuseConnections) };
    assert!(fake.set_fault("*", Some(partial)).is_err(), "the kernel draws no lots");
}

#[tokio::test]
async fn a_refusal_with_an_end_heals_itself() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    let set = admin(&fake, "POST", "/fake/faults", &json!({"plan": "refuse-connections:until=40ms"}).to_string()).await;
    // The admin call's own connection is open when the port closes, so its answer may be lost with it.
    assert!(set.is_none_or(|set| set["refuses_connections"] == true));
    loop {
        match TcpStream::connect(fake.addr()).await {
            Ok(_) => break,
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn faults_are_set_listed_and_lifted_while_it_runs() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    admin(&fake, "POST", "/fake/faults", &json!({"model": "gpt-*", "plan": "503:first=1"}).to_string()).await;
    let ask_model = async |model: &str| ask_plainly(&fake, Dialect::OpenaiChat, json!({"model": model})).await.status;
    assert_eq!([ask_model("other").await, ask_model("gpt-5").await, ask_model("gpt-5").await], [200, 503, 200]);
    let listed = admin(&fake, "GET", "/fake/faults", "").await.unwrap();
    assert_eq!(listed["faults"], json!([{"model": "gpt-*", "plan": "503:first=1", "bitten": 1}]));
    let lifted = admin(&fake, "DELETE", "/fake/faults?model=gpt-%2A", "").await.unwrap();
    assert_eq!(lifted["faults"], json!([]));
    let wrong = admin(&fake, "POST", "/fake/faults", &json!({"plan": "explode"}).to_string()).await.unwrap();
    assert!(wrong["error"].as_str().unwrap().contains("unknown fault `explode`"), "{wrong}");
}

#[tokio::test]
async fn the_models_name_chooses_a_fault_and_the_header_goes_first() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    let model = json!({"model": "gpt-x~429"});
    assert_eq!(ask_plainly(&fake, Dialect::OpenaiChat, model.clone()).await.status, 429);
    assert_eq!(ask(&fake, Dialect::OpenaiChat, "500", model).await.status, 500);
    for wrong in
        ["gpt-x~nonsense", "gpt-x~chunks=4000000000", "gpt-x~huge-line:bytes=4000MB", "gpt-x~refuse-connections"]
    {
        let reply = ask_plainly(&fake, Dialect::OpenaiChat, json!({"model": wrong})).await;
        assert_eq!(reply.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn the_log_shows_what_came_without_prompts_or_keys() {
    let fake = Fake::start(FakeConfig { log: 2, ..FakeConfig::default() }).await.unwrap();
    for _ in 0..3 {
        ask(&fake, Dialect::Anthropic, "cut:after=1,how=eof", json!({"stream": true})).await;
    }
    fake.quiet().await;
    let log = fake.log();
    assert_eq!((log.len(), fake.count()), (2, 3), "bounded, and still counted");
    let seen = &log[1];
    assert_eq!(
        (seen.model.as_str(), seen.dialect, seen.stream, seen.status),
        ("m", Dialect::Anthropic, true, Some(200))
    );
    assert_eq!((seen.fault.as_deref(), seen.ending), (Some("cut:after=1,how=eof"), Ending::Sent));
    assert_eq!(seen.headers["key"], key_hash("sk-test"));
    assert_eq!(seen.headers["traceparent"], TRACEPARENT);
    let shown = admin(&fake, "GET", "/fake/log", "").await.unwrap().to_string();
    assert!(!shown.contains("Hello") && !shown.contains("sk-test"), "{shown}");
    assert_eq!(admin(&fake, "GET", "/fake/stats", "").await.unwrap()["faults"]["cut:after=1,how=eof"], 3);
    admin(&fake, "POST", "/fake/reset", "").await;
    assert_eq!((fake.count(), fake.log().len()), (0, 0));
}

#[tokio::test]
async fn keys_and_capacity_are_enforced_when_configured() {
    let keyed = Fake::start(FakeConfig { keys: vec!["sk-other".into()], ..FakeConfig::default() }).await.unwrap();
    assert_eq!(ask(&keyed, Dialect::OpenaiChat, "none", json!({})).await.status, 401);
    let narrow = Fake::start(FakeConfig { capacity: Some(1), ..FakeConfig::default() }).await.unwrap();
    let held = send(&narrow, Dialect::OpenaiChat, "hang", json!({})).await;
    narrow.until(|stats| stats.calls == 1).await;
    assert_eq!(ask(&narrow, Dialect::OpenaiChat, "none", json!({})).await.status, 429);
    drop(held);
    narrow.until(|stats| stats.clients_left == 1).await;
    assert_eq!(ask(&narrow, Dialect::OpenaiChat, "none", json!({})).await.status, 200);
}

/// What the slips of form and the quiet faults look like, told by what a reader would make of them.
#[tokio::test]
async fn quiet_faults_are_well_formed_and_bend_only_what_they_say() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    let schema = json!({"type": "object", "required": ["summary", "total"], "properties": {
        "summary": {"type": "string"}, "total": {"type": "number"}}});
    let format = |dialect| match dialect {
        Dialect::OpenaiChat => {
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}})
        }
        Dialect::Anthropic => json!({"output_config": {"format": {"type": "json_schema", "schema": schema}}}),
    };
    let text = |dialect, reply: &Reply| match dialect {
        Dialect::OpenaiChat => reply.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned(),
        Dialect::Anthropic => reply.json()["content"][0]["text"].as_str().unwrap().to_owned(),
    };
    for dialect in BOTH {
        let good = text(dialect, &ask(&fake, dialect, "none", format(dialect)).await);
        assert!(serde_json::from_str::<Value>(&good).unwrap()["summary"].is_string());
        let fenced = text(dialect, &ask(&fake, dialect, "json-slip:fences", format(dialect)).await);
        assert_eq!(fenced, format!("```json\n{good}\n```"));
        let commas = text(dialect, &ask(&fake, dialect, "json-slip:trailing-commas", format(dialect)).await);
        assert_eq!(commas, good.replace('}', ",}"));
        let open = text(dialect, &ask(&fake, dialect, "json-slip:closers", format(dialect)).await);
        assert_eq!(format!("{open}}}"), good);
        let wrong = text(dialect, &ask(&fake, dialect, "wrong", format(dialect)).await);
        assert!(wrong != good && serde_json::from_str::<Value>(&wrong).unwrap()["summary"].is_string(), "{wrong}");
        let said = text(dialect, &ask(&fake, dialect, "say:No%2C%20never.", json!({})).await);
        assert_eq!(said, "No, never.");
        let plain = text(dialect, &ask(&fake, dialect, "none", json!({"max_tokens": 400})).await);
        let verbose = text(dialect, &ask(&fake, dialect, "verbose:times=50", json!({"max_tokens": 400})).await);
        assert!(verbose.starts_with(&plain) && verbose.split(' ').count() > 1_000, "{} words", verbose.len());
    }
}

#[tokio::test]
async fn models_are_listed_in_both_shapes() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    let list = admin(&fake, "GET", "/v1/models", "").await.unwrap();
    assert_eq!((&list["object"], &list["data"][0]["id"]), (&json!("list"), &json!("fake-large")));
}

/// Every example runs in every setting and leaves the fake able to answer well: no panic, no stuck connection.
#[tokio::test]
async fn after_any_fault_the_next_call_is_answered_well() {
    let fake = Fake::start(FakeConfig::default()).await.unwrap();
    for fault in Fault::EXAMPLES {
        let waits = matches!(fault, Fault::Hang(_) | Fault::Stall { .. }) || fault.facts().bites == Bites::PastDeadline;
        if waits || fault == Fault::RefuseConnections {
            continue;
        }
        for dialect in BOTH {
            for stream in [false, true] {
                ask(&fake, dialect, &fault.to_string(), with_tools(dialect, json!({"stream": stream}))).await;
                assert_good(dialect, stream, &ask(&fake, dialect, "none", json!({"stream": stream})).await);
            }
        }
    }
    fake.quiet().await;
    fake.shutdown().await;
}

// ---- A client that hides nothing --------------------------------------------------------------------------------

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Guards a test against a server that hangs where it should not.
pub const GUARD: Duration = Duration::from_secs(20);

async fn ask(fake: &Fake, dialect: Dialect, fault: &str, more: Value) -> Reply {
    let client = send(fake, dialect, fault, more).await;
    tokio::time::timeout(GUARD, receive(client)).await.unwrap_or_else(|_| panic!("{fault} hangs"))
}

/// Without the header that chooses a fault.
async fn ask_plainly(fake: &Fake, dialect: Dialect, more: Value) -> Reply {
    ask(fake, dialect, "", more).await
}

async fn send(fake: &Fake, dialect: Dialect, fault: &str, more: Value) -> TcpStream {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hello"}]});
    if dialect == Dialect::Anthropic {
        body["max_tokens"] = json!(1000);
    }
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let body = body.to_string();
    let path = match dialect {
        Dialect::OpenaiChat => "/v1/chat/completions",
        Dialect::Anthropic => "/v1/messages",
    };
    let fault = if fault.is_empty() { String::new() } else { format!("x-fake-fault: {fault}\r\n") };
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: fake\r\nauthorization: Bearer sk-test\r\ntraceparent: {TRACEPARENT}\r\n{fault}content-length: {}\r\n\r\n",
        body.len()
    );
    let mut client = TcpStream::connect(fake.addr()).await.unwrap();
    client.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.unwrap();
    client
}

/// One call of anything but a model; `None` when the connection broke.
async fn admin(fake: &Fake, method: &str, path: &str, body: &str) -> Option<Value> {
    let mut client = TcpStream::connect(fake.addr()).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: fake\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    client.write_all(request.as_bytes()).await.unwrap();
    let reply = tokio::time::timeout(GUARD, receive(client)).await.unwrap();
    reply.complete.then(|| reply.json())
}

fn raw_data(reply: &Reply) -> Vec<String> {
    reply.text().lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
}

fn outputs(dialect: Dialect, reply: &Reply) -> usize {
    let is_output = |data: &Value| match dialect {
        Dialect::OpenaiChat => data["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty()),
        Dialect::Anthropic => data["type"] == "content_block_delta" && data["delta"]["text"].is_string(),
    };
    reply.events().iter().filter(|(_, data)| is_output(data)).count()
}

fn has_terminal(dialect: Dialect, reply: &Reply) -> bool {
    match dialect {
        Dialect::OpenaiChat => reply.text().contains("data: [DONE]"),
        Dialect::Anthropic => reply.text().contains("event: message_stop"),
    }
}

fn assert_good(dialect: Dialect, stream: bool, reply: &Reply) {
    assert!(reply.status == 200 && reply.complete, "{reply:?}");
    if stream {
        assert!(has_terminal(dialect, reply) && outputs(dialect, reply) == 16, "{}", reply.text());
    } else {
        reply.json();
    }
}

fn with_tools(dialect: Dialect, mut body: Value) -> Value {
    let weather = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    let tools = [("weather", weather), ("clock", json!({"type": "object", "properties": {}}))];
    let tools = tools.into_iter().map(|(name, schema)| match dialect {
        Dialect::OpenaiChat => json!({"type": "function", "function": {"name": name, "parameters": schema}}),
        Dialect::Anthropic => json!({"name": name, "input_schema": schema}),
    });
    body["tools"] = tools.collect();
    body
}

fn tool_results(dialect: Dialect) -> Value {
    match dialect {
        Dialect::OpenaiChat => json!([
            {"role": "user", "content": "tool:weather"},
            {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "a", "content": "sunny"}]),
        Dialect::Anthropic => json!([
            {"role": "user", "content": "tool:weather"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "weather", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "sunny"}]}]),
    }
}

fn tool_calls(dialect: Dialect, stream: bool, reply: &Reply) -> Vec<(String, Value)> {
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    if !stream {
        let body = reply.json();
        return match dialect {
            Dialect::OpenaiChat => {
                let calls = body["choices"][0]["message"]["tool_calls"].as_array().cloned().unwrap_or_default();
                let call = |call: &Value| {
                    (
                        call["function"]["name"].as_str().unwrap().into(),
                        parse(call["function"]["arguments"].as_str().unwrap()),
                    )
                };
                calls.iter().map(call).collect()
            }
            Dialect::Anthropic => {
                let blocks = body["content"].as_array().unwrap().iter().filter(|block| block["type"] == "tool_use");
                blocks.map(|block| (block["name"].as_str().unwrap().into(), block["input"].clone())).collect()
            }
        };
    }
    let mut calls: Vec<(String, String)> = Vec::new();
    for (_, data) in reply.events() {
        let (name, piece) = match dialect {
            Dialect::OpenaiChat => {
                let function = &data["choices"][0]["delta"]["tool_calls"][0]["function"];
                (function["name"].clone(), function["arguments"].clone())
            }
            Dialect::Anthropic => (data["content_block"]["name"].clone(), data["delta"]["partial_json"].clone()),
        };
        if let Some(name) = name.as_str() {
            calls.push((name.into(), String::new()));
        }
        if let Some(piece) = piece.as_str() {
            calls.last_mut().unwrap().1.push_str(piece);
        }
    }
    calls.into_iter().map(|(name, arguments)| (name, parse(&arguments))).collect()
}

/// The argument text of all streamed tool calls, joined.
fn tool_arguments(dialect: Dialect, reply: &Reply) -> String {
    let piece = |data: &Value| match dialect {
        Dialect::OpenaiChat => {
            data["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"].as_str().map(str::to_owned)
        }
        Dialect::Anthropic => data["delta"]["partial_json"].as_str().map(str::to_owned),
    };
    reply.events().iter().filter_map(|(_, data)| piece(data)).collect()
}

fn schema() -> Value {
    json!({"type": "object", "properties": {"answer": {"type": "string"}, "confidence": {"type": "number", "minimum": 0, "maximum": 1}},
        "required": ["answer", "confidence"], "additionalProperties": false})
}

fn structured(dialect: Dialect, stream: bool) -> Value {
    match dialect {
        Dialect::OpenaiChat => {
            json!({"stream": stream, "response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": true, "schema": schema()}}})
        }
        Dialect::Anthropic => {
            json!({"stream": stream, "output_config": {"format": {"type": "json_schema", "schema": schema()}}})
        }
    }
}
