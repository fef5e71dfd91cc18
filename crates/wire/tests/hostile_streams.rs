//! Streams that providers, proxies and attackers could send. Whatever comes: no panic, bounded memory, nothing
//! half-received shown as a call, and no reply without its end presented as whole.

use bytes::Bytes;
use outlast_model::{
    Failure, FailureReport,
    policy::Dialect,
    turn::{Finish, Usage},
};
use outlast_wire::{Inbound, Piece, PieceKind, StreamEnd, StreamReader};
use proptest::prelude::*;
use std::path::PathBuf;

const DIALECTS: [Dialect; 2] = Dialect::ALL;

/// A text reply and a tool call, whole, in each dialect.
fn good(dialect: Dialect) -> String {
    match dialect {
        Dialect::OpenaiChat => openai(&[
            r#"{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}"#,
            r#"{"index":0,"delta":{"content":"Héllo"},"finish_reason":null}"#,
            r#"{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":""}}]},"finish_reason":null}"#,
            r#"{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":"}}]},"finish_reason":null}"#,
            r#"{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]},"finish_reason":null}"#,
            r#"{"index":0,"delta":{},"finish_reason":"tool_calls"}"#,
        ]),
        Dialect::Anthropic => anthropic(&[
            r#"{"type":"message_start","message":{"id":"m","type":"message","role":"assistant","model":"x","content":[],"stop_reason":null,"usage":{"input_tokens":5,"output_tokens":1}}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Héllo"}}"#,
            r#"{"type":"content_block_stop","index":0}"#,
            r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"c1","name":"f","input":{}}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"a\":"}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"1}"}}"#,
            r#"{"type":"content_block_stop","index":1}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":9}}"#,
            r#"{"type":"message_stop"}"#,
        ]),
    }
}

#[test]
fn what_came_before_a_cut_is_counted_though_the_provider_has_accounted_only_for_the_input() {
    let whole = good(Dialect::Anthropic);
    let end = whole.find("event: message_delta").unwrap();
    let cut = Run::of(Dialect::Anthropic, Dialect::OpenaiChat, [&whole.as_bytes()[..end]]).usage;
    assert!(cut.estimated && cut.input_tokens == 5 && cut.output_tokens > 2, "{cut:?}");
    let all = Run::of(Dialect::Anthropic, Dialect::OpenaiChat, [whole.as_bytes()]).usage;
    assert!(!all.estimated && all.output_tokens == 9, "{all:?}");
}

#[test]
fn no_cut_of_a_stream_is_presented_as_whole() {
    for upstream in DIALECTS {
        for client in DIALECTS {
            let stream = good(upstream);
            // OpenAI's finish reason is an end of its own: some servers forget `[DONE]`.
            let whole_from = match upstream {
                Dialect::OpenaiChat => stream.find("\"tool_calls\"}").unwrap(),
                Dialect::Anthropic => stream.find("\"message_stop\"").unwrap(),
            };
            for cut in 0..stream.len() {
                let run = Run::of(upstream, client, [&stream.as_bytes()[..cut]]);
                match &run.end {
                    Ok(end) => {
                        assert!(cut > whole_from, "{upstream:?} cut at {cut} was presented as whole");
                        assert_eq!(end.finish, Some(Finish::ToolCalls));
                    }
                    Err(report) => {
                        let expected = [Failure::StreamInterrupted, Failure::Empty];
                        assert!(expected.contains(&report.failure), "{upstream:?} cut at {cut}: {report:?}");
                        assert!(!run.text(PieceKind::Terminal).contains("[DONE]"), "{upstream:?} cut at {cut}");
                        assert!(!run.text(PieceKind::Terminal).contains("\"message_stop\"}"));
                    }
                }
            }
        }
    }
}

#[test]
fn nothing_of_a_tool_call_is_shown_before_it_is_whole() {
    for upstream in DIALECTS {
        for client in DIALECTS {
            let stream = good(upstream);
            let last = stream.rfind("1}").unwrap();
            let run = Run::of(upstream, client, [&stream.as_bytes()[..last]]);
            let shown = run.shown();
            assert!(shown.contains("llo"), "{shown}");
            assert!(!shown.contains("\"f\"") && !shown.contains("\\\"a"), "{upstream:?} to {client:?}: {shown}");
            assert!(
                run.pieces.iter().any(|piece| piece.kind == PieceKind::Held),
                "the call must know that output came"
            );
        }
    }
}

#[test]
fn a_same_dialect_stream_comes_out_byte_for_byte_however_it_is_cut() {
    for dialect in DIALECTS {
        let stream = good(dialect);
        for size in [1, 2, 3, 7, 64, stream.len()] {
            let run = Run::of(dialect, dialect, stream.as_bytes().chunks(size));
            assert_eq!(run.end.unwrap().finish, Some(Finish::ToolCalls));
            let out: Vec<u8> = run.pieces.iter().flat_map(|piece| piece.bytes.to_vec()).collect();
            assert_eq!(String::from_utf8(out).unwrap(), stream, "in chunks of {size}");
        }
    }
}

#[test]
fn a_megabyte_line_passes_and_an_endless_one_ends_the_stream() {
    for dialect in DIALECTS {
        let long = "x".repeat(1 << 20);
        let stream = good(dialect).replace("Héllo", &long);
        for client in DIALECTS {
            let run = Run::of(dialect, client, stream.as_bytes().chunks(16));
            assert!(run.end.is_ok(), "{:?}", run.end);
            assert!(run.shown().contains(&long));
        }
        let endless = "data: ".to_owned() + &"x".repeat(5 << 20);
        let run = Run::of(dialect, dialect, endless.as_bytes().chunks(65_536));
        assert_eq!(run.end.unwrap_err().failure, Failure::MalformedReply);
    }
}

#[test]
fn deep_nesting_neither_overflows_nor_passes_for_a_reply() {
    for levels in [100, 200, 100_000] {
        let deep = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let unknown =
            openai(&[&format!(r#"{{"index":0,"delta":{{"content":"a","x":{deep}}},"finish_reason":"stop"}}"#)]);
        let known = openai(&[&format!(r#"{{"index":0,"delta":{{"content":{deep}}},"finish_reason":"stop"}}"#)]);
        let objects = format!("{}1{}", "{\\\"a\\\":".repeat(levels), "}".repeat(levels));
        let arguments = openai(&[&format!(
            r#"{{"index":0,"delta":{{"tool_calls":[{{"index":0,"id":"c","function":{{"name":"f","arguments":"{objects}"}}}}]}},"finish_reason":"tool_calls"}}"#
        )]);
        for stream in [unknown, known, arguments] {
            for client in DIALECTS {
                let run = Run::of(Dialect::OpenaiChat, client, [stream.as_bytes()]);
                if let Err(report) = run.end {
                    assert!(matches!(report.failure, Failure::MalformedReply | Failure::ToolMismatch), "{report:?}");
                }
            }
        }
        let block = anthropic(&[&format!(
            r#"{{"type":"content_block_start","index":0,"content_block":{{"type":"tool_use","id":"c","name":"f","input":{deep}}}}}"#
        )]);
        assert!(Run::of(Dialect::Anthropic, Dialect::OpenaiChat, [block.as_bytes()]).end.is_err());
    }
}

#[test]
fn interleaved_tool_calls_come_out_whole_and_in_order() {
    let call = |index: u32, head: &str, arguments: &str| {
        format!(
            r#"{{"index":0,"delta":{{"tool_calls":[{{"index":{index},{head}"function":{{"arguments":"{arguments}"{}}}}}]}},"finish_reason":null}}"#,
            if head.is_empty() { "" } else { r#","name":"f""# }
        )
    };
    let stream = openai(&[
        &call(0, r#""id":"a","#, ""),
        &call(1, r#""id":"b","#, ""),
        &call(0, "", r#"{\"x\":"#),
        &call(1, "", r#"{\"y\":"#),
        &call(0, "", "1}"),
        &call(1, "", "2}"),
        r#"{"index":0,"delta":{},"finish_reason":"tool_calls"}"#,
    ]);
    for client in DIALECTS {
        let run = Run::of(Dialect::OpenaiChat, client, stream.as_bytes().chunks(5));
        assert_eq!(run.end.as_ref().unwrap().finish, Some(Finish::ToolCalls));
        let calls = [("f".to_owned(), r#"{"x":1}"#.to_owned()), ("f".to_owned(), r#"{"y":2}"#.to_owned())];
        assert_eq!(run.calls, calls, "{client:?}");
    }
}

#[test]
fn a_tool_call_that_cannot_be_whole_is_never_shown() {
    let call = |arguments: &str, finish: &str| {
        openai(&[
            r#"{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"pay","arguments":""}}]},"finish_reason":null}"#,
            &format!(
                r#"{{"index":0,"delta":{{"tool_calls":[{{"index":0,"function":{{"arguments":"{arguments}"}}}}]}},"finish_reason":null}}"#
            ),
            &format!(r#"{{"index":0,"delta":{{}},"finish_reason":"{finish}"}}"#),
        ])
    };
    for (arguments, finish, expected) in [
        (r#"{\"usd\":"#, "length", Failure::Truncated),
        (r#"{\"usd\":"#, "tool_calls", Failure::ToolMismatch),
        (r#"{\"usd\":1}}"#, "tool_calls", Failure::ToolMismatch),
        (r#"{\"usd\":"#, "content_filter", Failure::SafetyBlock),
    ] {
        for client in DIALECTS {
            let run = Run::of(Dialect::OpenaiChat, client, [call(arguments, finish).as_bytes()]);
            assert_eq!(run.end.as_ref().unwrap_err().failure, expected, "{arguments} {finish}");
            assert!(!run.shown().contains("pay"), "{}", run.shown());
        }
    }
}

#[test]
fn an_error_is_an_error_wherever_it_stands() {
    let finish = r#"{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}"#;
    let after_finish = openai(&[finish])
        .replace("data: [DONE]", "data: {\"error\":{\"message\":\"Overloaded\",\"code\":529}}\n\ndata: [DONE]");
    let first = "data: {\"error\":{\"message\":\"x\",\"code\":\"insufficient_quota\"}}\n\n".to_owned();
    let named = "event: error\ndata: {\"error\":{\"message\":\"x\",\"code\":\"tool_use_failed\"}}\n\n".to_owned();
    let plain = "event: error\ndata: server is overloaded\n\n".to_owned();
    let with_choice = openai(&[
        r#"{"index":0,"delta":{"content":""},"finish_reason":"error","error":{"code":429,"message":"slow down"}}"#,
    ]);
    for (stream, expected) in [
        (after_finish, Failure::Overloaded),
        (first, Failure::QuotaExhausted),
        (named, Failure::ToolMismatch),
        (plain, Failure::Overloaded),
        (with_choice, Failure::RateLimited),
    ] {
        let run = Run::of(Dialect::OpenaiChat, Dialect::OpenaiChat, [stream.as_bytes()]);
        assert_eq!(run.end.unwrap_err().failure, expected, "{stream}");
    }
    let anthropic = good(Dialect::Anthropic).replace(
        "event: message_delta",
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\nevent: message_delta",
    );
    let run = Run::of(Dialect::Anthropic, Dialect::OpenaiChat, [anthropic.as_bytes()]);
    assert_eq!(run.end.unwrap_err().failure, Failure::Overloaded);
}

#[test]
fn a_flood_of_comments_is_no_output_and_costs_no_memory() {
    let flood = ": OPENROUTER PROCESSING\n\n".repeat(50_000);
    for client in DIALECTS {
        let run = Run::of(Dialect::OpenaiChat, client, flood.as_bytes().chunks(16_384));
        assert!(run.pieces.iter().all(|piece| piece.kind == PieceKind::Preamble));
        assert_eq!(run.end.unwrap_err().failure, Failure::Empty);
    }
}

#[test]
fn odd_but_harmless_chunks_do_not_fail_a_stream() {
    for odd in [
        r#"{"choices":null}"#,
        r#"{"choices":[]}"#,
        r#"{"id":"x"}"#,
        r#"{"choices":[{"index":0,"delta":null,"finish_reason":null}]}"#,
        r#"{"choices":[{"delta":{"content":null,"tool_calls":null,"refusal":null,"reasoning":7},"finish_reason":""}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":"\u0000"},"finish_reason":null}]}"#,
        r#"{"choices":[],"usage":null,"error":null}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":-1,"completion_tokens":1e99,"total_tokens":"many"}}"#,
    ] {
        let stream = good(Dialect::OpenaiChat).replacen("data: ", &format!("data: {odd}\n\ndata: "), 1);
        for client in DIALECTS {
            let run = Run::of(Dialect::OpenaiChat, client, [stream.as_bytes()]);
            assert!(run.end.is_ok(), "{odd} to {client:?}: {:?}", run.end);
        }
    }
    let unknown = good(Dialect::Anthropic).replacen(
        "event: content_block_start",
        "event: vibes\ndata: {\"type\":\"vibes\",\"delta\":7}\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\nevent: content_block_start",
        1,
    );
    for client in DIALECTS {
        let run = Run::of(Dialect::Anthropic, client, [unknown.as_bytes()]);
        assert!(run.end.is_ok(), "{client:?}: {:?}", run.end);
    }
}

#[test]
fn what_is_not_json_or_not_utf8_is_malformed() {
    for broken in [
        &b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\xff\xfe\"}}]}\n\n"[..],
        b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\x00\"}}]}\n\n",
        b"data: hello\n\n",
        b"data: [1\n\n",
        b"data: {\"choices\":\"none\"}\n\n",
    ] {
        let run = Run::of(Dialect::OpenaiChat, Dialect::OpenaiChat, [broken]);
        assert_eq!(run.end.unwrap_err().failure, Failure::MalformedReply, "{}", String::from_utf8_lossy(broken));
    }
}

#[test]
fn a_second_finish_and_whatever_follows_the_end_change_nothing() {
    let stream = openai(&[
        r#"{"index":0,"delta":{"content":"a"},"finish_reason":null}"#,
        r#"{"index":0,"delta":{},"finish_reason":"stop"}"#,
        r#"{"index":0,"delta":{},"finish_reason":"stop"}"#,
    ]) + "data: {\"error\":{\"message\":\"too late\"}}\n\ndata: [DONE]\n\n";
    for client in DIALECTS {
        let run = Run::of(Dialect::OpenaiChat, client, [stream.as_bytes()]);
        assert_eq!(run.end.as_ref().unwrap().finish, Some(Finish::Stop));
        let all: String = run.pieces.iter().map(|piece| String::from_utf8_lossy(&piece.bytes).into_owned()).collect();
        assert!(!all.contains("too late") && all.matches("[DONE]").count() <= 1, "{all}");
    }
}

#[test]
fn absurd_indices_allocate_nothing() {
    let tool = openai(&[
        r#"{"index":0,"delta":{"tool_calls":[{"index":4294967295,"id":"c","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}"#,
    ]);
    assert!(Run::of(Dialect::OpenaiChat, Dialect::Anthropic, [tool.as_bytes()]).end.is_ok());
    let choice = openai(&[r#"{"index":4294967295,"delta":{"content":"a"},"finish_reason":"stop"}"#]);
    assert!(Run::of(Dialect::OpenaiChat, Dialect::OpenaiChat, [choice.as_bytes()]).end.is_err());
    let many: Vec<String> = (0..5000)
        .map(|index| format!(r#"{{"index":0,"delta":{{"tool_calls":[{{"index":{index},"id":"c","function":{{"name":"f","arguments":"{{"}}}}]}},"finish_reason":null}}"#))
        .collect();
    let many = openai(&many.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(Run::of(Dialect::OpenaiChat, Dialect::OpenaiChat, [many.as_bytes()]).end.is_err());
}

#[test]
fn no_cut_of_a_recorded_stream_is_presented_as_whole() {
    let folder = std::env::var_os("OUTLAST_CORPUS")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"));
    let path = folder.join("exchanges.jsonl");
    let Ok(corpus) = std::fs::read_to_string(&path) else {
        println!("skipped: no corpus at {}; set OUTLAST_CORPUS", path.display());
        return;
    };
    let mut cuts = 0;
    for line in corpus.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let upstream = match row["api"].as_str() {
            Some("openai-chat") => Dialect::OpenaiChat,
            Some("anthropic-messages") => Dialect::Anthropic,
            _ => continue,
        };
        let Some(stream) = row["response"]["text"].as_str().filter(|_| row["stream"] == true) else { continue };
        for client in DIALECTS {
            if Run::of(upstream, client, [stream.as_bytes()]).end.is_err() {
                continue;
            }
            for tenth in 0..10 {
                let cut = &stream.as_bytes()[..stream.len() * tenth / 10];
                let ended = String::from_utf8_lossy(cut).contains(match upstream {
                    Dialect::OpenaiChat => "\"finish_reason\":\"",
                    Dialect::Anthropic => "\"message_stop\"",
                });
                let run = Run::of(upstream, client, [cut]);
                assert!(ended || run.end.is_err(), "{} cut at {tenth}/10 was presented as whole", row["id"]);
                cuts += 1;
            }
        }
    }
    println!("{cuts} cuts");
    assert!(cuts > 500, "the corpus has streams");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn damaged_streams_never_panic_and_cuts_of_chunks_do_not_matter(
        upstream in prop::sample::select(DIALECTS.to_vec()),
        client in prop::sample::select(DIALECTS.to_vec()),
        damage in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![Just(None), any::<u8>().prop_map(Some)]), 0..4),
        size in 1usize..200,
    ) {
        let mut stream = good(upstream).into_bytes();
        for (at, with) in damage {
            let at = at.index(stream.len());
            match with {
                Some(byte) => stream[at] = byte,
                None => { stream.remove(at); }
            }
        }
        let whole = Run::of(upstream, client, [&stream[..]]);
        let parts = Run::of(upstream, client, stream.chunks(size));
        let (one, other) = (whole.end.map_err(|report| report.failure), parts.end.map_err(|report| report.failure));
        prop_assert_eq!(one, other);
        let bytes = |pieces: &[Piece]| pieces.iter().flat_map(|piece| piece.bytes.to_vec()).collect::<Vec<_>>();
        prop_assert_eq!(bytes(&whole.pieces), bytes(&parts.pieces));
    }
}

/// What came of one stream.
struct Run {
    pieces: Vec<Piece>,
    end: Result<StreamEnd, FailureReport>,
    calls: Vec<(String, String)>,
    usage: Usage,
}

impl Run {
    fn of<'a>(upstream: Dialect, client: Dialect, chunks: impl IntoIterator<Item = &'a [u8]>) -> Run {
        let asked = r#"{"model":"m","max_tokens":99,"stream":true,"messages":[{"role":"user","content":"x"}]}"#;
        let asked = Inbound::parse(client, Bytes::from_static(asked.as_bytes())).unwrap();
        let mut reader = StreamReader::new(upstream, &asked, false, true);
        let mut pieces = Vec::new();
        let pushed = chunks.into_iter().try_for_each(|chunk| reader.push(Bytes::copy_from_slice(chunk), &mut pieces));
        let end = pushed.and_then(|()| reader.end(&mut pieces));
        let calls = reader.answers().iter().flat_map(|answer| answer.tool_calls.clone()).collect();
        Run { pieces, end, calls, usage: reader.usage() }
    }

    fn text(&self, kind: PieceKind) -> String {
        let of_kind = self.pieces.iter().filter(|piece| piece.kind == kind);
        of_kind.map(|piece| String::from_utf8_lossy(&piece.bytes).into_owned()).collect()
    }

    /// Everything a client sees before the reply has been checked.
    fn shown(&self) -> String {
        let early = self.pieces.iter().filter(|piece| piece.kind != PieceKind::Terminal);
        early.map(|piece| String::from_utf8_lossy(&piece.bytes).into_owned()).collect()
    }
}

fn openai(choices: &[&str]) -> String {
    let chunk = |choice: &&str| {
        format!(
            "data: {{\"id\":\"r\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{choice}]}}\n\n"
        )
    };
    choices.iter().map(chunk).collect::<String>() + "data: [DONE]\n\n"
}

fn anthropic(events: &[&str]) -> String {
    let event = |event: &&str| {
        let kind = event.split('"').nth(3).unwrap();
        format!("event: {kind}\ndata: {event}\n\n")
    };
    events.iter().map(event).collect()
}
