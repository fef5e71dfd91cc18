//! What a client of one dialect sees of a provider of the other, and what the provider sees of the client.

use bytes::Bytes;
use insta::assert_snapshot;
use outlast_model::{
    Failure,
    policy::{Dialect, OutputNeed},
    turn::Finish,
};
use outlast_wire::{Adapt, Inbound, Piece, PieceKind, Put, StreamReader, reply};
use proptest::prelude::*;
use serde_json::Value;

const O: Dialect = Dialect::OpenaiChat;
const A: Dialect = Dialect::Anthropic;

fn inbound(dialect: Dialect, body: &str) -> Inbound {
    Inbound::parse(dialect, body.to_owned().into()).unwrap().received_at(1_790_000_000)
}

/// The request as the target gets it, one field per line.
fn crossed(from: Dialect, to: Dialect, body: &str) -> String {
    let adapt = Adapt { dialect: to, model: "target-model", max_output: None, ask_usage: true, put: Put::plain() };
    match inbound(from, body).adapt(&adapt) {
        Ok(adapted) => {
            assert!(adapted.adapted);
            let fields: serde_json::Map<String, Value> = serde_json::from_slice(&adapted.body.concat()).unwrap();
            let lines = fields.iter().flat_map(|(name, value)| match value.as_array() {
                Some(items) if name == "messages" => items.iter().map(|item| format!("- {item}")).collect(),
                Some(_) | None => vec![format!("{name}: {value}")],
            });
            lines.collect::<Vec<_>>().join("\n")
        }
        Err(unsupported) => format!("cannot carry {:?}", unsupported.features),
    }
}

fn stream(upstream: Dialect, client: &Inbound, text: &str) -> (String, Result<Option<Finish>, Failure>, Vec<Piece>) {
    let mut reader = StreamReader::new(upstream, client, false, false);
    let mut pieces = Vec::new();
    let result = reader.push(Bytes::copy_from_slice(text.as_bytes()), &mut pieces);
    let result = result.and_then(|()| reader.end(&mut pieces)).map(|end| end.finish).map_err(|report| report.failure);
    let shown = pieces.iter().flat_map(|piece| piece.bytes.to_vec()).collect();
    (String::from_utf8(shown).unwrap(), result, pieces)
}

#[test]
fn an_openai_conversation_with_tools_reaches_anthropic() {
    let body = r#"{
        "model": "route", "stream": true, "temperature": 1.4, "top_p": 0.9, "stop": "END", "user": "u1", "seed": 7,
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Weather here?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]},
            {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
                {"id": "functions.weather:0", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Bern\"}"}},
                {"id": "call_2", "type": "function", "function": {"name": "time", "arguments": ""}}]},
            {"role": "tool", "tool_call_id": "functions.weather:0", "content": "rain"},
            {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "noon"}]},
            {"role": "user", "content": "So?"}
        ],
        "tools": [{"type": "function", "function": {"name": "weather", "description": "d", "strict": true, "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}},
            {"type": "function", "function": {"name": "time"}}],
        "tool_choice": "required", "parallel_tool_calls": false
    }"#;
    assert_snapshot!(crossed(O, A, body), @r#"
    model: "target-model"
    max_tokens: 8192
    - {"role":"user","content":[{"type":"text","text":"Weather here?"},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}},{"type":"image","source":{"type":"url","url":"https://example.org/a.png"}}]}
    - {"role":"assistant","content":[{"type":"tool_use","id":"functions_weather_0","name":"weather","input":{"city":"Bern"}},{"type":"tool_use","id":"call_2","name":"time","input":{}}]}
    - {"role":"user","content":[{"type":"tool_result","tool_use_id":"functions_weather_0","content":"rain"},{"type":"tool_result","tool_use_id":"call_2","content":"noon"},{"type":"text","text":"So?"}]}
    system: "Be brief."
    temperature: 1.0
    stop_sequences: ["END"]
    tools: [{"name":"weather","description":"d","input_schema":{"type":"object","properties":{"city":{"type":"string"}}}},{"name":"time","input_schema":{"type":"object","properties":{}}}]
    tool_choice: {"type":"any","disable_parallel_tool_use":true}
    stream: true
    metadata: {"user_id":"u1"}
    "#);
    let needs = inbound(O, body).needs();
    assert!(needs.tools && needs.images && needs.stream && needs.cannot_carry == [vec![], Vec::<&str>::new()]);
}

#[test]
fn structured_output_reaches_the_other_vendor_natively() {
    let openai = r#"{"model": "r", "messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 100,
        "response_format": {"type": "json_schema", "json_schema": {"name": "city", "strict": true, "schema":
            {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n"], "additionalProperties": false}}}}"#;
    assert_snapshot!(crossed(O, A, openai), @r#"
    model: "target-model"
    max_tokens: 100
    - {"role":"user","content":"x"}
    output_config: {"format":{"type":"json_schema","schema":{"type":"object","properties":{"n":{"type":"integer","description":"{minimum: 1}"}},"required":["n"],"additionalProperties":false}}}
    "#);
    assert_eq!(inbound(O, openai).needs().output, OutputNeed::JsonSchema);
    let json = r#"{"model": "r", "messages": [{"role": "user", "content": "x as JSON"}], "response_format": {"type": "json_object"}}"#;
    assert_snapshot!(crossed(O, A, json), @r#"
    model: "target-model"
    max_tokens: 8192
    - {"role":"user","content":"x as JSON"}
    system: "Reply with one JSON value and nothing else: no code fence, no comment."
    "#);
    let anthropic = r#"{"model": "r", "max_tokens": 50, "messages": [{"role": "user", "content": "x"}],
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema":
            {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false}}}}"#;
    assert_snapshot!(crossed(A, O, anthropic), @r#"
    model: "target-model"
    - {"role":"user","content":"x"}
    max_tokens: 50
    response_format: {"type":"json_schema","json_schema":{"name":"output","schema":{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"],"additionalProperties":false},"strict":true}}
    "#);
    assert_eq!(inbound(A, anthropic).needs().output, OutputNeed::JsonSchema);
}

#[test]
fn an_anthropic_conversation_with_tools_reaches_openai() {
    let body = r#"{
        "model": "route", "max_tokens": 300, "stream": true, "stop_sequences": ["END"], "metadata": {"user_id": "u1"},
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "Be kind."}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Weather here?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}]},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s1"}, {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Bern"}},
                {"type": "tool_use", "id": "t2", "name": "time", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "rain"}]},
                {"type": "tool_result", "tool_use_id": "t2", "content": "no clock", "is_error": true}, {"type": "text", "text": "So?"}]}
        ],
        "tools": [{"name": "weather", "description": "d", "input_schema": {"type": "object"}}, {"name": "time", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": true}
    }"#;
    assert_snapshot!(crossed(A, O, body), @r#"
    model: "target-model"
    - {"role":"system","content":"Be brief.\n\nBe kind."}
    - {"role":"user","content":[{"type":"text","text":"Weather here?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}
    - {"role":"assistant","content":"Let me see.","tool_calls":[{"id":"t1","type":"function","function":{"name":"weather","arguments":"{\"city\": \"Bern\"}"}},{"id":"t2","type":"function","function":{"name":"time","arguments":"{}"}}]}
    - {"role":"tool","tool_call_id":"t1","content":"rain"}
    - {"role":"tool","tool_call_id":"t2","content":"Error: no clock"}
    - {"role":"user","content":"So?"}
    max_tokens: 300
    stop: ["END"]
    tools: [{"type":"function","function":{"name":"weather","description":"d","parameters":{"type":"object"}}},{"type":"function","function":{"name":"time","parameters":{"type":"object"}}}]
    tool_choice: {"type":"function","function":{"name":"weather"}}
    parallel_tool_calls: false
    user: "u1"
    stream: true
    stream_options: {"include_usage":true}
    "#);
    let adapt = Adapt { dialect: O, model: "openai/gpt-5.2", max_output: None, ask_usage: false, put: Put::plain() };
    let body = inbound(A, body).adapt(&adapt).unwrap().body.concat();
    let text = String::from_utf8(body).unwrap();
    assert!(text.contains(r#""max_completion_tokens":300"#) && !text.contains("stream_options"));
}

#[test]
fn what_cannot_be_carried_is_named_and_not_sent() {
    let ask =
        |extra: &str| format!(r#"{{"model":"r","max_tokens":1,{extra}"messages":[{{"role":"user","content":"x"}}]}}"#);
    let say = |messages: &str| format!(r#"{{"model":"r","max_tokens":1,"messages":{messages}}}"#);
    for (from, body, features) in [
        (O, ask(r#""n":2,"#), vec!["several_choices"]),
        (O, ask(r#""logprobs":true,"top_logprobs":3,"#), vec!["logprobs"]),
        (O, ask(r#""logit_bias":{"1":2},"#), vec!["logit_bias"]),
        (O, ask(r#""web_search_options":{},"made_up":1,"#), vec!["server_tools", "unknown_field"]),
        (O, ask(r#""modalities":["text","audio"],"audio":{},"#), vec!["audio"]),
        (O, ask(r#""tools":[{"type":"custom","custom":{"name":"x"}}],"#), vec!["custom_tools"]),
        (O, ask(r#""response_format":{"type":"grammar"},"#), vec!["output_grammar"]),
        (O, say(r#"[{"role":"user","content":[{"type":"input_audio","input_audio":{}}]}]"#), vec!["audio"]),
        (O, say(r#"[{"role":"user","content":[{"type":"file","file":{}}]}]"#), vec!["documents"]),
        (O, say(r#"[{"role":"user","content":"x"},{"role":"assistant","content":"y"}]"#), vec!["prefill"]),
        (O, say(r#"[{"role":"function","name":"f","content":"y"}]"#), vec!["unreadable"]),
        (A, ask(r#""tools":[{"type":"web_search_20250305","name":"web_search"}],"#), vec!["server_tools"]),
        (A, ask(r#""mcp_servers":[{"type":"url"}],"inference_geo":"us","#), vec!["data_residency", "server_tools"]),
        (A, say(r#"[{"role":"user","content":[{"type":"document","source":{}}]}]"#), vec!["documents"]),
        (
            A,
            say(r#"[{"role":"user","content":[{"type":"image","source":{"type":"file","file_id":"f"}}]}]"#),
            vec!["stored_files"],
        ),
        (A, say(r#"[{"role":"user","content":"x"},{"role":"assistant","content":"{"}]"#), vec!["prefill"]),
    ] {
        let to = if from == O { A } else { O };
        let inbound = inbound(from, &body);
        assert_eq!(inbound.needs().cannot_carry[to.index()], features, "{body}");
        assert_eq!(inbound.needs().cannot_carry[from.index()], Vec::<&str>::new());
        assert_eq!(crossed(from, to, &body), format!("cannot carry {features:?}"));
    }
}

const OPENAI_TOOLS: &str = concat!(
    r#"data: {"id":"c1","object":"chat.completion.chunk","created":5,"model":"gpt","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
    "\n\n",
    ": keep-alive\n\n",
    r#"data: {"id":"c1","choices":[{"index":0,"delta":{"reasoning_content":"hm"},"finish_reason":null}]}"#,
    "\n\n",
    r#"data: {"id":"c1","choices":[{"index":0,"delta":{"content":"Let me see."},"finish_reason":null}]}"#,
    "\n\n",
    r#"data: {"id":"c1","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"weather","arguments":""}}]},"finish_reason":null}]}"#,
    "\n\n",
    r#"data: {"id":"c1","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"city\":"}}]},"finish_reason":null}]}"#,
    "\n\n",
    r#"data: {"id":"c1","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\"Bern\"}"}}]},"finish_reason":null}]}"#,
    "\n\n",
    r#"data: {"id":"c1","choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"call_2","type":"function","function":{"name":"time","arguments":""}}]},"finish_reason":null}]}"#,
    "\n\n",
    r#"data: {"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#,
    "\n\n",
    r#"data: {"id":"c1","choices":[],"usage":{"prompt_tokens":30,"completion_tokens":12,"total_tokens":42,"prompt_tokens_details":{"cached_tokens":10}}}"#,
    "\n\n",
    "data: [DONE]\n\n",
);

const ANTHROPIC_TOOLS: &str = concat!(
    "event: message_start\n",
    r#"data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude","content":[],"stop_reason":null,"usage":{"input_tokens":20,"cache_read_input_tokens":10,"output_tokens":1}}}"#,
    "\n\n",
    "event: content_block_start\n",
    r#"data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
    "\n\n",
    "event: content_block_delta\n",
    r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}"#,
    "\n\n",
    "event: content_block_delta\n",
    r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"s"}}"#,
    "\n\n",
    "event: content_block_stop\n",
    r#"data: {"type":"content_block_stop","index":0}"#,
    "\n\n",
    "event: ping\n",
    r#"data: {"type":"ping"}"#,
    "\n\n",
    "event: content_block_start\n",
    r#"data: {"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}"#,
    "\n\n",
    "event: content_block_delta\n",
    r#"data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Let me see."}}"#,
    "\n\n",
    "event: content_block_stop\n",
    r#"data: {"type":"content_block_stop","index":1}"#,
    "\n\n",
    "event: content_block_start\n",
    r#"data: {"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"t1","name":"weather","input":{}}}"#,
    "\n\n",
    "event: content_block_delta\n",
    r#"data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"city\":"}}"#,
    "\n\n",
    "event: content_block_delta\n",
    r#"data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"\"Bern\"}"}}"#,
    "\n\n",
    "event: content_block_stop\n",
    r#"data: {"type":"content_block_stop","index":2}"#,
    "\n\n",
    "event: content_block_start\n",
    r#"data: {"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"t2","name":"time","input":{}}}"#,
    "\n\n",
    "event: content_block_stop\n",
    r#"data: {"type":"content_block_stop","index":3}"#,
    "\n\n",
    "event: message_delta\n",
    r#"data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":12}}"#,
    "\n\n",
    "event: message_stop\n",
    r#"data: {"type":"message_stop"}"#,
    "\n\n",
);

fn asks(dialect: Dialect, extra: &str) -> Inbound {
    inbound(
        dialect,
        &format!(r#"{{"model":"r","max_tokens":9,"stream":true,{extra}"messages":[{{"role":"user","content":"x"}}]}}"#),
    )
}

#[test]
fn an_openai_stream_with_parallel_tool_calls_reaches_an_anthropic_client() {
    let (shown, result, _) = stream(O, &asks(A, r#""thinking":{"type":"adaptive"},"#), OPENAI_TOOLS);
    assert_eq!(result, Ok(Some(Finish::ToolCalls)));
    assert_snapshot!(shown, @r#"
    event: message_start
    data: {"type":"message_start","message":{"id":"c1","type":"message","role":"assistant","model":"gpt","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":29,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0}}}

    : keep-alive

    event: content_block_start
    data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}

    event: content_block_delta
    data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}

    event: content_block_stop
    data: {"type":"content_block_stop","index":0}

    event: content_block_start
    data: {"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}

    event: content_block_delta
    data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Let me see."}}

    event: content_block_stop
    data: {"type":"content_block_stop","index":1}

    event: content_block_start
    data: {"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"call_1","name":"weather","input":{}}}

    event: content_block_delta
    data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"city\":\"Bern\"}"}}

    event: content_block_stop
    data: {"type":"content_block_stop","index":2}

    event: content_block_start
    data: {"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"call_2","name":"time","input":{}}}

    event: content_block_delta
    data: {"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"{}"}}

    event: content_block_stop
    data: {"type":"content_block_stop","index":3}

    event: message_delta
    data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"input_tokens":20,"cache_creation_input_tokens":0,"cache_read_input_tokens":10,"output_tokens":12}}

    event: message_stop
    data: {"type":"message_stop"}
    "#);
    let (shown, ..) = stream(O, &asks(A, ""), OPENAI_TOOLS);
    assert!(!shown.contains("thinking"), "a client that did not ask for thoughts gets none");
}

#[test]
fn an_anthropic_stream_with_parallel_tool_calls_reaches_an_openai_client() {
    let (shown, result, _) = stream(A, &asks(O, r#""stream_options":{"include_usage":true},"#), ANTHROPIC_TOOLS);
    assert_eq!(result, Ok(Some(Finish::ToolCalls)));
    assert_snapshot!(shown, @r#"
    data: {"id":"msg_1","object":"chat.completion.chunk","created":1790000000,"model":"claude","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}

    data: {"id":"msg_1","object":"chat.completion.chunk","created":1790000000,"model":"claude","choices":[{"index":0,"delta":{"reasoning_content":"hm"},"finish_reason":null}]}

    data: {"id":"msg_1","object":"chat.completion.chunk","created":1790000000,"model":"claude","choices":[{"index":0,"delta":{"content":"Let me see."},"finish_reason":null}]}

    data: {"id":"msg_1","object":"chat.completion.chunk","created":1790000000,"model":"claude","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t1","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Bern\"}"}}]},"finish_reason":null}]}

    data: {"id":"msg_1","object":"chat.completion.chunk","created":1790000000,"model":"claude","choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"t2","type":"function","function":{"name":"time","arguments":"{}"}}]},"finish_reason":null}]}

    data: {"id":"msg_1","object":"chat.completion.chunk","created":1790000000,"model":"claude","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}

    data: {"id":"msg_1","object":"chat.completion.chunk","created":1790000000,"model":"claude","choices":[],"usage":{"prompt_tokens":30,"completion_tokens":12,"total_tokens":42,"prompt_tokens_details":{"cached_tokens":10}}}

    data: [DONE]
    "#);
    let (shown, ..) = stream(A, &asks(O, ""), ANTHROPIC_TOOLS);
    assert!(!shown.contains("usage"), "a client that did not ask for usage gets none");
}

#[test]
fn whole_replies_cross_in_both_directions() {
    let openai = r#"{"id":"c1","object":"chat.completion","created":5,"model":"gpt","choices":[{"index":0,"message":{"role":"assistant","content":"Let me see.","reasoning_content":"hm","tool_calls":[{"id":"call_1","type":"function","function":{"name":"time","arguments":""}}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":30,"completion_tokens":12,"total_tokens":42,"prompt_tokens_details":{"cached_tokens":10}}}"#;
    let read = |upstream, client: &Inbound, body: &str| {
        String::from_utf8(reply::read(upstream, client, body.to_owned().into()).unwrap().body.to_vec()).unwrap()
    };
    assert_snapshot!(read(O, &asks(A, ""), openai), @r#"{"id":"c1","type":"message","role":"assistant","model":"gpt","content":[{"type":"text","text":"Let me see."},{"type":"tool_use","id":"call_1","name":"time","input":{}}],"stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":20,"cache_creation_input_tokens":0,"cache_read_input_tokens":10,"output_tokens":12}}"#);
    let anthropic = r#"{"id":"msg_1","type":"message","role":"assistant","model":"claude","content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"Let me see."},{"type":"tool_use","id":"t1","name":"time","input":{}}],"stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":20,"cache_read_input_tokens":10,"cache_creation_input_tokens":0,"output_tokens":12}}"#;
    assert_snapshot!(read(A, &asks(O, ""), anthropic), @r#"{"id":"msg_1","object":"chat.completion","created":1790000000,"model":"claude","choices":[{"index":0,"message":{"role":"assistant","content":"Let me see.","refusal":null,"reasoning_content":"hm","tool_calls":[{"id":"t1","type":"function","function":{"name":"time","arguments":"{}"}}]},"logprobs":null,"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":30,"completion_tokens":12,"total_tokens":42,"prompt_tokens_details":{"cached_tokens":10}}}"#);
    let refusal = r#"{"id":"c1","model":"gpt","choices":[{"index":0,"message":{"role":"assistant","content":null,"refusal":"I will not."},"finish_reason":"stop"}]}"#;
    assert_snapshot!(read(O, &asks(A, ""), refusal), @r#"{"id":"c1","type":"message","role":"assistant","model":"gpt","content":[{"type":"text","text":"I will not."}],"stop_reason":"refusal","stop_sequence":null,"usage":{"input_tokens":22,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":3}}"#);
    assert_eq!(reply::read(O, &asks(O, ""), refusal.into()).unwrap().finish, Some(Finish::Refusal));
}

#[test]
fn same_dialect_tool_calls_are_held_until_they_are_whole() {
    let client = asks(O, "");
    let mut reader = StreamReader::new(O, &client, false, false);
    let mut seen = Vec::new();
    for frame in OPENAI_TOOLS.split_inclusive("\n\n") {
        let mut pieces = Vec::new();
        reader.push(frame.as_bytes().into(), &mut pieces).unwrap();
        seen.push(
            pieces.iter().map(|piece| format!("{:?} {}", piece.kind, piece.bytes.len())).collect::<Vec<_>>().join(", "),
        );
    }
    assert_snapshot!(seen.join("\n"), @r#"
    Preamble 165
    Preamble 14
    Output { tokens: 1 } 99
    Output { tokens: 3 } 98
    Held 0
    Held 0
    Held 0
    Output { tokens: 4 } 455, Held 0
    Output { tokens: 1 } 175, Terminal 83
    Terminal 147
    Terminal 14
    "#);
    assert!(reader.terminal_seen());
    let (shown, ..) = stream(O, &client, OPENAI_TOOLS);
    assert_eq!(shown, OPENAI_TOOLS);
    let (shown, ..) = stream(A, &asks(A, ""), ANTHROPIC_TOOLS);
    assert_eq!(shown, ANTHROPIC_TOOLS);
}

#[test]
fn a_stream_cut_anywhere_is_never_taken_for_whole() {
    for (upstream, text) in [(O, OPENAI_TOOLS), (A, ANTHROPIC_TOOLS)] {
        for client in [asks(O, ""), asks(A, "")] {
            let finished = text.find(r#""tool_calls"}]}"#).map_or(text.len() - 3, |at| at + 15);
            for at in (0..finished).filter(|at| text.is_char_boundary(*at)) {
                let (shown, result, pieces) = stream(upstream, &client, &text[..at]);
                assert!(matches!(result, Err(Failure::StreamInterrupted | Failure::Empty)), "{at}: {result:?}");
                assert!(!shown.contains("[DONE]") && !shown.contains("message_stop"));
                assert!(pieces.iter().all(|piece| piece.kind != PieceKind::Terminal) || upstream == A);
            }
        }
    }
}

#[test]
fn broken_tool_arguments_never_leave() {
    let cut = OPENAI_TOOLS.replace(r#"\"Bern\"}"#, r#"\"Be"#);
    let length = cut.replace(r#""finish_reason":"tool_calls""#, r#""finish_reason":"length""#);
    for client in [asks(O, ""), asks(A, "")] {
        let (shown, result, _) = stream(O, &client, &cut);
        assert_eq!(result, Err(Failure::ToolMismatch));
        assert!(!shown.contains("weather") && !shown.contains("Bern"));
        assert_eq!(stream(O, &client, &length).1, Err(Failure::Truncated));
    }
    let cut = ANTHROPIC_TOOLS.replace(r#"\"Bern\"}"#, r#"\"Be"#);
    assert_eq!(stream(A, &asks(A, ""), &cut).1, Err(Failure::ToolMismatch));
    let length = cut.replace(r#""stop_reason":"tool_use""#, r#""stop_reason":"max_tokens""#);
    for client in [asks(O, ""), asks(A, "")] {
        let (shown, result, _) = stream(A, &client, &length);
        assert_eq!(result, Err(Failure::Truncated), "its blocks end as if they were whole");
        assert!(!shown.contains("Be"));
    }
    let whole = r#"{"id":"c1","model":"gpt","choices":[{"index":0,"message":{"content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\""}}]},"finish_reason":"tool_calls"}]}"#;
    assert_eq!(reply::read(O, &asks(O, ""), whole.into()).unwrap_err().failure, Failure::ToolMismatch);
}

#[test]
fn errors_inside_streams_are_failures_of_their_class() {
    let start = OPENAI_TOOLS.split_inclusive("\n\n").next().unwrap();
    for (upstream, text, failure) in [
        (O, format!("{start}data: {{\"error\":{{\"message\":\"Rate limit reached\",\"code\":429}}}}\n\n"), Failure::RateLimited),
        (A, "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n".into(), Failure::Overloaded),
        (O, format!("{start}data: {{not json\n\n"), Failure::MalformedReply),
        (O, format!("{start}data: [DONE]\n\n"), Failure::StreamInterrupted),
        (O, String::new(), Failure::Empty),
        (O, ": only comments\n\n".into(), Failure::Empty),
        (O, r#"{"error":{"message":"Incorrect API key provided","code":"invalid_api_key"}}"#.into(), Failure::Auth),
        (A, "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"x\"}}".into(), Failure::ServerError),
    ] {
        assert_eq!(stream(upstream, &asks(O, ""), &text).1, Err(failure), "{text}");
    }
}

#[test]
fn a_forgotten_done_is_added_and_an_unasked_usage_chunk_taken_out() {
    let text = OPENAI_TOOLS.replace("data: [DONE]\n\n", "");
    let client = asks(O, "");
    assert_eq!(stream(O, &client, &text).0, OPENAI_TOOLS);
    assert_eq!(stream(O, &client, &format!("{text}data: [DO")).0, OPENAI_TOOLS);
    let mut reader = StreamReader::new(O, &client, true, false);
    let mut pieces = Vec::new();
    reader.push(OPENAI_TOOLS.into(), &mut pieces).unwrap();
    let usage = reader.end(&mut pieces).unwrap().usage;
    assert_eq!(
        (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.estimated),
        (30, 12, 10, false)
    );
    let shown = pieces.iter().flat_map(|piece| piece.bytes.to_vec()).collect::<Vec<_>>();
    let without =
        OPENAI_TOOLS.split_inclusive("\n\n").filter(|frame| !frame.contains("prompt_tokens")).collect::<String>();
    assert_eq!(String::from_utf8(shown).unwrap(), without);
}

#[test]
fn the_same_dialect_gets_the_clients_own_bytes_but_for_the_listed_edits() {
    let body = "{ \"stream\" :true,\"made_up\" : [1,  2.50],\"model\": \"route\" , \"messages\":[{\"role\":\"user\",\"content\":\"caf\\u00e9\"}] }\n";
    let to = Adapt { dialect: O, model: "gpt \"5\"", max_output: None, ask_usage: true, put: Put::plain() };
    let adapted = inbound(O, body).adapt(&to).unwrap();
    assert!(!adapted.adapted && adapted.strip_usage);
    assert_snapshot!(String::from_utf8(adapted.body.concat()).unwrap(), @r#"{ "stream" :true,"made_up" : [1,  2.50],"model": "gpt \"5\"" , "messages":[{"role":"user","content":"caf\u00e9"}] ,"stream_options":{"include_usage":true}}"#);
    let asked = body.replace(
        "\"made_up\"",
        "\"stream_options\":{\"include_usage\":false,\"include_obfuscation\": false},\"made_up\"",
    );
    let adapted = inbound(O, &asked).adapt(&to).unwrap();
    assert!(adapted.strip_usage);
    assert!(
        String::from_utf8(adapted.body.concat())
            .unwrap()
            .contains(r#""stream_options":{"include_usage":true,"include_obfuscation":false}"#)
    );
    let same = inbound(O, body).adapt(&Adapt { model: "route", ask_usage: false, ..to }).unwrap();
    assert!(!same.strip_usage);
    assert_eq!(same.body.concat(), body.as_bytes());
}

#[test]
fn thoughts_that_outlast_made_of_another_vendors_do_not_go_to_anthropic() {
    let body = r#"{"model":"r","max_tokens":9,"thinking":{"type":"adaptive"},"messages":[{"role":"user","content":"x"},{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":""},{"type":"text","text":"y"}]},{"role":"user","content":"z"}]}"#;
    assert_snapshot!(crossed(A, A, body), @r#"
    model: "target-model"
    max_tokens: 9
    thinking: {"type":"adaptive"}
    - {"role":"user","content":"x"}
    - {"role":"assistant","content":[{"type":"text","text":"y"}]}
    - {"role":"user","content":"z"}
    "#);
    let signed = body.replace(r#""signature":"""#, r#""signature":"abc""#);
    let adapted = inbound(A, &signed)
        .adapt(&Adapt { dialect: A, model: "r", max_output: None, ask_usage: false, put: Put::plain() })
        .unwrap();
    assert_eq!(adapted.body.concat(), signed.as_bytes());
}

#[test]
fn requests_that_cannot_be_read_say_why_and_what_to_do() {
    let refused = |body: &str| Inbound::parse(O, body.to_owned().into()).unwrap_err().to_string();
    let answers = [
        "",
        "[]",
        "{\"model\":\"m\"",
        "{}",
        r#"{"model":"m"}"#,
        r#"{"model":7,"messages":[{}]}"#,
        r#"{"model":"m","messages":[]}"#,
        r#"{"model":"m","stream":"yes","messages":[{}]}"#,
        r#"{"model":"m","model":"n","messages":[{}]}"#,
        r#"{"mod\u0065l":"m"}"#,
    ]
    .map(refused)
    .join("\n");
    assert_snapshot!(answers, @r#"
    The request body cannot be read: at byte 0 it is not a JSON object. Send one JSON object, nested at most 128 deep.
    The request body cannot be read: at byte 0 it is not a JSON object. Send one JSON object, nested at most 128 deep.
    The request body cannot be read: at byte 12 a `,` or `}` is missing. Send one JSON object, nested at most 128 deep.
    `model` is missing. Name a route or a `provider/model`; GET /v1/models lists them.
    `messages` is missing. Give the conversation as a list of messages.
    `model` must be a non-empty string: the name of a route or of a target.
    `messages` must be a list with at least one message.
    `stream` must be true or false.
    `model` is given twice, so it is ambiguous which one counts. Give it once.
    The request body cannot be read: at byte 14 a top-level field's name is escaped. Send one JSON object, nested at most 128 deep.
    "#);
}

#[test]
fn a_request_too_deep_is_refused_in_any_place() {
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":{deep}}}]}}"#);
    assert!(Inbound::parse(O, body.into()).unwrap_err().message.contains("deeper than 128"));
    let nested = |levels: usize| {
        format!(
            r#"{{"model":"m","max_tokens":1,"messages":[{{"role":"user","content":[{{"type":"file","x":{}{}}}]}}]}}"#,
            "[".repeat(levels),
            "]".repeat(levels)
        )
    };
    for levels in [1, 60, 120] {
        for (from, to) in [(O, A), (A, O)] {
            assert!(crossed(from, to, &nested(levels)).starts_with("cannot carry"));
        }
    }
}

/// Bodies of every shape this file knows, to be spoiled.
fn bodies() -> Vec<(Dialect, String)> {
    let source = include_str!("crossings.rs");
    let mut found = Vec::new();
    for text in source.split("r#\"").skip(1).filter_map(|rest| rest.split_once("\"#").map(|(text, _)| text)) {
        for dialect in Dialect::ALL {
            if Inbound::parse(dialect, text.into()).is_ok() {
                found.push((dialect, text.to_owned()));
            }
        }
    }
    assert!(found.len() > 10);
    found
}

proptest! {
    #[test]
    fn spoiled_requests_never_panic_and_are_refused_or_adapted_as_needs_says(
        which in any::<prop::sample::Index>(),
        spoils in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(b"\"\\{}[]:,0n \xff".to_vec())), 0..4),
    ) {
        let bodies = bodies();
        let (dialect, text) = which.get(&bodies);
        let mut bytes = text.clone().into_bytes();
        for (at, byte) in spoils {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(inbound) = Inbound::parse(*dialect, bytes.into()) {
            let needs = inbound.needs();
            inbound.output();
            for to in Dialect::ALL {
                let adapted = inbound.adapt(&Adapt { dialect: to, model: "m", max_output: None, ask_usage: true, put: Put::plain() });
                let carried = needs.cannot_carry[to.index()].is_empty();
                prop_assert!(carried || adapted.is_err());
                if let Ok(adapted) = adapted && to != *dialect {
                    serde_json::from_slice::<Value>(&adapted.body.concat()).unwrap();
                }
            }
        }
    }

    #[test]
    fn spoiled_replies_and_streams_never_panic(
        upstream in prop::sample::select(Dialect::ALL.to_vec()),
        client in prop::sample::select(Dialect::ALL.to_vec()),
        spoils in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(b"\"\\{}[]:,0n \n\xff".to_vec())), 0..6),
        size in 1usize..300,
    ) {
        let text = if upstream == O { OPENAI_TOOLS } else { ANTHROPIC_TOOLS };
        let mut bytes = text.as_bytes().to_vec();
        for (at, byte) in spoils {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let mut reader = StreamReader::new(upstream, &asks(client, ""), true, true);
        let mut out = Vec::new();
        if bytes.chunks(size).all(|chunk| reader.push(Bytes::copy_from_slice(chunk), &mut out).is_ok()) {
            let _ = reader.end(&mut out);
        }
        let _ = reply::read(upstream, &asks(client, ""), bytes.into());
    }
}
