//! The gates of a contract, on replies as they come: in both dialects, streamed and whole, from either to either.

use bytes::Bytes;
use outlast_model::{
    Brief, Failure, Gate,
    policy::{
        Checks, Confidence, ConfidenceFrom, Contract, Dialect, Evidence, Expression, Fix, Length, Permissions,
        RefusalPolicy, Repair, Schema, StreamContract, ToolMode, ToolPolicy,
    },
    record::SchemaStatus,
    turn::Finish,
};
use outlast_wire::{
    Inbound, StreamReader,
    check::{self, Asked, Checked},
    compose::Said,
    contract::Gates,
    reply,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;

const SUPPORT: &str = r#"{"type":"object","properties":{"summary":{"type":"string"},"risk":{"enum":["low","high"]},
    "next_action":{"type":"string"}},"required":["summary","risk","next_action"]}"#;

/// A question and the contract its answer is held to.
struct Case {
    contract: Contract,
    request: Value,
    tools: &'static [&'static str],
    mode: ToolMode,
}

fn case() -> Case {
    Case {
        contract: Contract::plain("support", StreamContract::Buffer),
        request: json!({}),
        tools: &[],
        mode: ToolMode::Full,
    }
}

fn checks(checks: Checks) -> Case {
    Case { contract: Contract { checks, ..case().contract }, ..case() }
}

fn schema(json: &str) -> Option<Arc<Schema>> {
    Some(Arc::new(Schema { source: "support.json".into(), json: json.into() }))
}

/// What a target answers.
#[derive(Clone, Default)]
struct Answer<'a> {
    text: &'a str,
    calls: &'a [(&'a str, &'a str)],
    cut: bool,
}

fn says(text: &str) -> Answer<'_> {
    Answer { text, ..Answer::default() }
}

impl Case {
    fn inbound(&self, dialect: Dialect, stream: bool) -> Inbound {
        let mut body =
            json!({"model": "support", "stream": stream, "messages": [{"role": "user", "content": "Help."}]});
        if dialect == Dialect::Anthropic {
            body["max_tokens"] = 900.into();
        }
        if !self.tools.is_empty() {
            let tool = |name: &&str| match dialect {
                Dialect::OpenaiChat => {
                    json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}})
                }
                Dialect::Anthropic => json!({"name": name, "input_schema": {"type": "object"}}),
            };
            body["tools"] = self.tools.iter().map(tool).collect();
        }
        for (name, value) in self.request.as_object().unwrap() {
            body[name] = value.clone();
        }
        Inbound::parse(dialect, body.to_string().into()).unwrap()
    }

    /// Checks an answer from every target to every client, streamed and whole; it has to come out the same.
    fn check(&self, answer: &Answer<'_>) -> Checked {
        let gates = Gates::compile(&Arc::new(self.contract.clone())).unwrap();
        let brief = Brief { tool_mode: self.mode, ..Brief::default() };
        let mut results: Vec<(String, Checked)> = Vec::new();
        for client in Dialect::ALL {
            for upstream in Dialect::ALL {
                for stream in [false, true] {
                    let inbound = self.inbound(client, stream);
                    let asked = Asked { inbound: &inbound, gates: &gates, brief: &brief };
                    let checked = if stream {
                        let mut reader = StreamReader::new(upstream, &inbound, false, true);
                        let mut pieces = Vec::new();
                        reader.push(Bytes::from(streamed(upstream, answer)), &mut pieces).unwrap();
                        reader.end(&mut pieces).unwrap();
                        check::stream(&asked, &reader)
                    } else {
                        let read = reply::read(upstream, &inbound, whole(upstream, answer).into()).unwrap();
                        check::reply(&asked, &read)
                    };
                    results.push((format!("{upstream:?} to {client:?}, stream: {stream}"), checked));
                }
            }
        }
        let first = results[0].1.clone();
        for (which, checked) in &results {
            assert_eq!(checked.findings, first.findings, "{which}");
            assert_eq!(checked.plan, first.plan, "{which}");
            let text = |checked: &Checked| checked.instead.as_ref().map(|said| (said.text.clone(), said.finish));
            assert_eq!(text(checked), text(&first), "{which}");
        }
        first
    }

    /// The gates and failures an answer breaks.
    fn breaks(&self, answer: &Answer<'_>) -> Vec<Result<Gate, Failure>> {
        let problems = self.check(answer).findings.problems;
        for problem in &problems {
            assert!(!problem.what.contains("SECRET"), "payload in a finding: {}", problem.what);
        }
        problems.iter().map(|problem| problem.gate.ok_or(problem.failure)).collect()
    }

    /// Each text with the gate it breaks, or none.
    fn table(&self, rows: &[(&str, Option<Gate>)]) {
        for (text, gate) in rows {
            let expected: Vec<_> = gate.iter().map(|gate| Ok(*gate)).collect();
            assert_eq!(self.breaks(&says(text)), expected, "{text}");
        }
    }
}

fn whole(dialect: Dialect, answer: &Answer<'_>) -> String {
    match dialect {
        Dialect::OpenaiChat => {
            let calls: Vec<Value> = answer.calls.iter().enumerate().map(|(n, (name, arguments))| {
                json!({"id": format!("c{n}"), "type": "function", "function": {"name": name, "arguments": arguments}})
            }).collect();
            let mut message = json!({"role": "assistant", "content": answer.text});
            if !calls.is_empty() {
                message["tool_calls"] = calls.into();
            }
            json!({"id": "r1", "object": "chat.completion", "created": 1, "model": "m",
                "choices": [{"index": 0, "message": message, "finish_reason": finish(dialect, answer)}],
                "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}})
            .to_string()
        }
        Dialect::Anthropic => {
            let mut content = Vec::new();
            if !answer.text.is_empty() {
                content.push(json!({"type": "text", "text": answer.text}));
            }
            content.extend(answer.calls.iter().enumerate().map(|(n, (name, arguments))| {
                json!({"type": "tool_use", "id": format!("c{n}"), "name": name, "input": serde_json::from_str::<Value>(arguments).unwrap()})
            }));
            json!({"id": "r1", "type": "message", "role": "assistant", "model": "m", "content": content,
                "stop_reason": finish(dialect, answer), "stop_sequence": null,
                "usage": {"input_tokens": 5, "output_tokens": 7}})
            .to_string()
        }
    }
}

fn streamed(dialect: Dialect, answer: &Answer<'_>) -> String {
    let mut events = Vec::new();
    let half = (answer.text.len() / 2..).find(|at| answer.text.is_char_boundary(*at)).unwrap();
    let halves = [&answer.text[..half], &answer.text[half..]];
    match dialect {
        Dialect::OpenaiChat => {
            let chunk = |delta: Value, finish: Value| {
                json!({"id": "r1", "object": "chat.completion.chunk", "created": 1, "model": "m",
                    "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
            };
            events.push(chunk(json!({"role": "assistant", "content": ""}), Value::Null));
            events.extend(halves.iter().map(|half| chunk(json!({"content": half}), Value::Null)));
            for (n, (name, arguments)) in answer.calls.iter().enumerate() {
                let call = json!({"index": n, "id": format!("c{n}"), "type": "function", "function": {"name": name, "arguments": arguments}});
                events.push(chunk(json!({"tool_calls": [call]}), Value::Null));
            }
            events.push(chunk(json!({}), finish(dialect, answer).into()));
            events
                .push(json!({"id": "r1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [],
                "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}}));
            let frames: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
            frames + "data: [DONE]\n\n"
        }
        Dialect::Anthropic => {
            events.push(json!({"type": "message_start", "message": {"id": "r1", "type": "message", "role": "assistant",
                "model": "m", "content": [], "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 5, "output_tokens": 1}}}));
            let mut index = 0;
            if !answer.text.is_empty() {
                events.push(
                    json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
                );
                events.extend(halves.iter().map(|half| {
                    json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": half}})
                }));
                events.push(json!({"type": "content_block_stop", "index": 0}));
                index = 1;
            }
            for (n, (name, arguments)) in answer.calls.iter().enumerate() {
                let index = index + n;
                events.push(json!({"type": "content_block_start", "index": index,
                    "content_block": {"type": "tool_use", "id": format!("c{n}"), "name": name, "input": {}}}));
                events.push(json!({"type": "content_block_delta", "index": index,
                    "delta": {"type": "input_json_delta", "partial_json": arguments}}));
                events.push(json!({"type": "content_block_stop", "index": index}));
            }
            events.push(json!({"type": "message_delta", "delta": {"stop_reason": finish(dialect, answer), "stop_sequence": null},
                "usage": {"output_tokens": 7}}));
            events.push(json!({"type": "message_stop"}));
            let frame = |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap());
            events.iter().map(frame).collect()
        }
    }
}

fn finish(dialect: Dialect, answer: &Answer<'_>) -> &'static str {
    match (dialect, answer.cut, answer.calls.is_empty()) {
        (Dialect::OpenaiChat, true, _) => "length",
        (Dialect::OpenaiChat, false, true) => "stop",
        (Dialect::OpenaiChat, false, false) => "tool_calls",
        (Dialect::Anthropic, true, _) => "max_tokens",
        (Dialect::Anthropic, false, true) => "end_turn",
        (Dialect::Anthropic, false, false) => "tool_use",
    }
}

#[test]
fn the_contracts_schema_is_kept_or_the_finding_says_where_not() {
    let case = checks(Checks { schema: schema(SUPPORT), ..Checks::default() });
    case.table(&[
        (r#"{"summary":"s","risk":"low","next_action":"n"}"#, None),
        (r#"{"summary":"SECRET","risk":"SECRET","next_action":"n"}"#, Some(Gate::Schema)),
        (r#"{"summary":"s","risk":"low"}"#, Some(Gate::Schema)),
        ("SECRET words", Some(Gate::Schema)),
        (r#"{"summary":"s","summary":"t","risk":"low","next_action":"n"}"#, Some(Gate::Schema)),
        (r#"{"summary":"s","risk":"low","next_action":"n"} {"SECRET":1}"#, Some(Gate::Schema)),
        ("```json\n{\"summary\":\"s\",\"risk\":\"low\",\"next_action\":\"n\"}\n```", Some(Gate::Schema)),
    ]);
    let valid = case.check(&says(r#"{"summary":"s","risk":"low","next_action":"n"}"#));
    assert_eq!((valid.findings.schema, valid.instead), (SchemaStatus::Valid, None));
}

#[test]
fn drift_is_told_apart_and_names_what_is_missing_and_no_stranger() {
    let case = checks(Checks { schema: schema(SUPPORT), ..Checks::default() });
    let drifted = case.check(&says(r#"{"message":"SECRET","priority":"SECRET","risk":"low"}"#));
    assert_eq!(drifted.findings.problems.len(), 1, "{:?}", drifted.findings);
    let problem = &drifted.findings.problems[0];
    assert_eq!((problem.gate, problem.failure), (Some(Gate::Drift), Failure::SchemaError));
    assert_eq!(&*problem.what, "schema: missing where other fields stand: summary, next_action");
    assert_eq!(drifted.findings.schema, SchemaStatus::Invalid);
}

#[test]
fn the_degraded_schema_counts_only_when_nothing_else_is_wrong() {
    let narrow = r#"{"type":"object","properties":{"summary":{"type":"string"}},"required":["summary"]}"#;
    let mut case = checks(Checks { schema: schema(SUPPORT), must_not: vec!["guarantee".into()], ..Checks::default() });
    case.contract.degraded_schema = schema(narrow);
    for (text, keeps) in [
        (r#"{"summary":"s"}"#, true),
        (r#"{"summary":"s","message":"m"}"#, true),
        (r#"{"summary":"we guarantee it"}"#, false),
        (r#"{"message":"s"}"#, false),
        (r#"{"summary":"s","risk":"low","next_action":"n"}"#, false),
        ("{", false),
    ] {
        assert_eq!(case.check(&says(text)).findings.keeps_degraded, keeps, "{text}");
    }
    // However many ways there are in which the full schema is broken: what else is wrong is not lost among them.
    let many = (0..20).fold(json!({"type": "object", "required": []}), |mut schema, n| {
        schema["required"].as_array_mut().unwrap().push(format!("field{n}").into());
        schema
    });
    let mut wide = checks(Checks { schema: schema(&many.to_string()), ..case.contract.checks.clone() });
    wide.contract.degraded_schema = case.contract.degraded_schema.clone();
    assert!(wide.check(&says(r#"{"summary":"s"}"#)).findings.keeps_degraded);
    let broken = wide.check(&says(r#"{"summary":"we guarantee it"}"#)).findings;
    assert!(!broken.keeps_degraded && broken.problems.iter().any(|problem| problem.gate == Some(Gate::MustNot)));
    // What the client itself demands is not the contract's to give up.
    case.request = json!({});
    let inbound = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema",
        "json_schema":{"name":"a","schema":{"type":"object","required":["id"]}}}}"#;
    let inbound = Inbound::parse(Dialect::OpenaiChat, inbound.into()).unwrap();
    let gates = Gates::compile(&Arc::new(case.contract.clone())).unwrap();
    let asked = Asked { inbound: &inbound, gates: &gates, brief: &Brief::default() };
    let found = check::said(&asked, &Said::text("1", "m", r#"{"summary":"s"}"#)).findings;
    assert!(!found.keeps_degraded);
    assert!(found.problems.iter().any(|problem| problem.gate.is_none() && problem.failure == Failure::SchemaError));
}

#[test]
fn citations_name_given_sources() {
    let evidence = |citations: Option<&str>| Evidence {
        sources: "outlast.sources".into(),
        citations: citations.map(Into::into),
        min: 1,
    };
    let mut case = checks(Checks { evidence: Some(evidence(Some("citations"))), ..Checks::default() });
    case.request = json!({"outlast": {"sources": [{"id": "doc-1"}, "doc-2"]}});
    case.table(&[
        (r#"{"answer":"a","citations":["doc-2"]}"#, None),
        (r#"{"answer":"a","citations":["doc-2","SECRET"]}"#, Some(Gate::Citation)),
        (r#"{"answer":"a","citations":[]}"#, Some(Gate::Citation)),
        (r#"{"answer":"a"}"#, Some(Gate::Citation)),
    ]);
    assert!(case.check(&says(r#"{"citations":["doc-1"]}"#)).findings.cites);
    let mut marks = checks(Checks { evidence: Some(evidence(None)), ..Checks::default() });
    marks.request = case.request.clone();
    marks.table(&[
        ("It is so [doc-1], and so [doc-2].", None),
        ("It is so [doc-3].", Some(Gate::Citation)),
        ("It is so.", Some(Gate::Citation)),
    ]);
    marks.request = json!({});
    marks.table(&[("It is so [doc-1].", Some(Gate::Citation))]);
}

#[test]
fn phrases_length_language_and_duplicates() {
    let phrases = checks(Checks {
        must_include: vec!["reply within two days".into()],
        must_not: vec!["guarantee".into()],
        ..Checks::default()
    });
    phrases.table(&[
        ("You get a Reply  within\ntwo days.", None),
        ("Soon.", Some(Gate::MustInclude)),
        ("We GUARANTEE a reply within two days.", Some(Gate::MustNot)),
    ]);
    let length = checks(Checks { length: Some(Length { min: Some(3), max: Some(5) }), ..Checks::default() });
    length.table(&[(" äöü ", None), ("ab", Some(Gate::Length)), ("abcdef", Some(Gate::Length))]);
    let german = checks(Checks { language: Some("de".into()), ..Checks::default() });
    german.table(&[
        (
            "Ihr Paket ist unterwegs und kommt voraussichtlich morgen Nachmittag bei Ihnen an, spätestens am Freitag.",
            None,
        ),
        (
            "Your parcel is on its way and will probably reach you tomorrow afternoon, on Friday at the latest.",
            Some(Gate::Language),
        ),
        ("OK.", None),
    ]);
    let distinct = checks(Checks { reject_duplicates: true, ..Checks::default() });
    let stuck = "I will look into the matter of your missing parcel. ".repeat(9);
    distinct.table(&[("I will look into it.", None), (&stuck, Some(Gate::Duplicate))]);
}

#[test]
fn expressions_have_to_be_true_and_able_to_be() {
    let rule = |name: &str, expression: &str| Expression { name: name.into(), expression: expression.into() };
    let case = checks(Checks {
        schema: schema(r#"{"type":"object"}"#),
        expressions: vec![
            rule("sum", "reply.total == reply.items|sum"),
            rule("short", "text|length < 200 and request.model == 'support'"),
        ],
        ..Checks::default()
    });
    case.table(&[
        (r#"{"total":3,"items":[1,2]}"#, None),
        (r#"{"total":4,"items":[1,2]}"#, Some(Gate::Expression)),
        (r#"{"total":4}"#, Some(Gate::Expression)),
        (r#"{"total":4,"items":["SECRET"]}"#, Some(Gate::Expression)),
    ]);
    let problem = &case.check(&says(r#"{"total":4}"#)).findings.problems[0];
    assert_eq!(&*problem.what, "expression sum: it reads something that is not there");
    let words = checks(Checks { expressions: vec![rule("polite", "'please' in reply|lower")], ..Checks::default() });
    words.table(&[("Please wait.", None), ("Wait.", Some(Gate::Expression))]);
}

#[test]
fn confidence_is_a_number_in_its_field_and_high_enough() {
    let mut case = case();
    case.contract.confidence = Some(Confidence { from: ConfidenceFrom::Field("meta.sure".into()), min: 0.7 });
    case.table(&[
        (r#"{"meta":{"sure":0.7}}"#, None),
        (r#"{"meta":{"sure":0.69}}"#, Some(Gate::Confidence)),
        (r#"{"meta":{"sure":7}}"#, Some(Gate::Confidence)),
        (r#"{"meta":{"sure":"0.9"}}"#, Some(Gate::Confidence)),
        (r#"{"meta":{}}"#, Some(Gate::Confidence)),
    ]);
    assert_eq!(case.check(&says(r#"{"meta":{"sure":0.69}}"#)).findings.confidence, Some(0.69));
}

#[test]
fn syntax_is_repaired_as_far_as_the_contract_lets_it_and_judged_again() {
    let mut case = checks(Checks { schema: schema(SUPPORT), ..Checks::default() });
    let good = r#"{"summary":"s","risk":"low","next_action":"n"}"#;
    case.contract.repair = Repair { fixes: Fix::ALL.to_vec(), ..Repair::default() };
    for (text, repaired, fixes) in [
        (format!("```json\n{good}\n```"), good, &[Fix::Fences][..]),
        (good.replace("\"n\"}", "\"n\",}"), good, &[Fix::TrailingCommas]),
        (good.replace('}', ""), good, &[Fix::Closers]),
    ] {
        let checked = case.check(&says(&text));
        assert_eq!((checked.findings.problems.len(), &*checked.findings.fixes), (0, fixes), "{text}");
        let said = checked.instead.unwrap();
        assert_eq!((said.text.as_str(), said.finish, said.usage.output_tokens), (repaired, Finish::Stop, 7));
    }
    for text in [
        // Something required was cut off, the limit cut it, a value is cut, a field stands twice, or prose stands around.
        r#"{"summary":"s","risk":"low""#,
        r#"{"summary":"s","risk":"low","next_action":"n"#,
        r#"{"summary":"s","summary":"t","risk":"low","next_action":"n",}"#,
        "Sure! {\"summary\":\"s\",\"risk\":\"low\",\"next_action\":\"n\"}",
        "```json\n{\"summary\":\"s\",\"summary\":\"s\",\"risk\":\"low\",\"next_action\":\"n\"}\n```",
    ] {
        let checked = case.check(&says(text));
        assert!(!checked.findings.problems.is_empty() && checked.findings.fixes.is_empty(), "{text}");
        assert_eq!(checked.instead, None, "{text}");
    }
    let cut = Answer { cut: true, ..says(r#"{"summary":"s","risk":"low","next_action":"n""#) };
    assert_eq!(case.breaks(&cut), [Err(Failure::Truncated)]);
    // A repaired reply passes every other gate or none.
    case.contract.checks.must_not = vec!["low".into()];
    assert_eq!(case.breaks(&says(&format!("```\n{good}\n```"))), [Ok(Gate::MustNot)]);
}

#[test]
fn closing_brackets_needs_a_schema_to_say_that_nothing_is_missing() {
    let mut case = checks(Checks {
        evidence: Some(Evidence { sources: "outlast.sources".into(), citations: Some("cites".into()), min: 1 }),
        ..Checks::default()
    });
    case.request = json!({"outlast": {"sources": ["a"]}});
    case.contract.repair = Repair { fixes: Fix::ALL.to_vec(), ..Repair::default() };
    assert_eq!(case.breaks(&says(r#"{"cites":["a"]"#)), [Ok(Gate::Schema)]);
    assert_eq!(case.breaks(&says(r#"{"cites":["a",]}"#)), []);
}

#[test]
fn a_refusal_in_words_is_no_broken_json_and_is_looked_for_where_it_matters() {
    let no = "I'm sorry, but I can't help with that.";
    let mut json = checks(Checks { schema: schema(SUPPORT), ..Checks::default() });
    for policy in [RefusalPolicy::Deliver, RefusalPolicy::Reroute, RefusalPolicy::Review] {
        json.contract.refusal = policy;
        assert_eq!(json.breaks(&says(no)), [Err(Failure::Refusal), Ok(Gate::Schema)], "delivered it breaks the client");
    }
    let mut text = case();
    assert_eq!(text.breaks(&says(no)), []);
    text.contract.refusal = RefusalPolicy::Review;
    assert_eq!(text.breaks(&says(no)), [Err(Failure::Refusal)]);
    assert_eq!(text.breaks(&says("I'm sorry to hear that. It comes tomorrow.")), []);
}

#[test]
fn a_withheld_tool_is_neither_called_nor_said_to_have_been() {
    let mut case = case();
    case.tools = &["lookup_order", "refund_order"];
    let policy =
        ToolPolicy { primary: ToolMode::Full, fallback: ToolMode::ReadOnly, read_only: vec!["lookup_order".into()] };
    case.contract.tools = Some(policy);
    case.mode = ToolMode::ReadOnly;
    let calls = |calls| Answer { calls, ..Answer::default() };
    assert_eq!(case.breaks(&calls(&[("lookup_order", "{}")])), []);
    assert_eq!(case.breaks(&calls(&[("refund_order", "{}")])), [Err(Failure::ToolMismatch)]);
    case.table(&[
        ("I looked up your order; a refund needs approval.", None),
        ("I have refunded your order.", Some(Gate::Claim)),
    ]);
    let both = Answer { text: "I have refunded it.", calls: &[("lookup_order", "{}")], cut: false };
    assert_eq!(case.breaks(&both), [Ok(Gate::Claim)], "beside a call too");
    case.mode = ToolMode::Full;
    case.table(&[("I have refunded your order.", None)]);
    case.contract.permissions = Permissions { tools: Some(vec!["lookup_order".into()]), ..Permissions::default() };
    assert_eq!(case.breaks(&calls(&[("refund_order", "{}")])), [Err(Failure::ToolMismatch)]);
}

#[test]
fn in_plan_only_mode_calls_come_back_as_data() {
    let mut case = checks(Checks { schema: schema(SUPPORT), must_not: vec!["guarantee".into()], ..Checks::default() });
    case.tools = &["refund_order"];
    case.mode = ToolMode::PlanOnly;
    case.request = json!({"outlast": {"sources": ["doc-1"]}});
    let call = Answer { text: "It was late [doc-1].", calls: &[("refund_order", r#"{"id":"A-1"}"#)], cut: false };
    let checked = case.check(&call);
    assert_eq!(checked.findings.problems, [], "a plan owes no schema");
    let plan = checked.plan.unwrap();
    assert_eq!(
        (plan[0].tool.as_str(), &plan[0].arguments, plan[0].approval),
        ("refund_order", &json!({"id": "A-1"}), "required")
    );
    assert_eq!(plan[0].evidence, ["doc-1"]);
    let said = checked.instead.unwrap();
    assert_eq!((said.tool_calls.len(), said.finish), (0, Finish::Stop));
    // On a target that cannot call tools the plan is written out.
    let written = r#"{"text":"It was late.","plan":[{"tool":"refund_order","arguments":{"id":"A-1"},"reason":"late","evidence":["doc-1"]}]}"#;
    let checked = case.check(&says(written));
    assert_eq!(checked.findings.problems, []);
    assert_eq!((checked.instead.unwrap().text.as_str(), checked.plan.unwrap().len()), ("It was late.", 1));
    // Beside a plan nothing may be claimed or promised.
    assert_eq!(
        case.breaks(&Answer { text: "I have refunded it, guaranteed.", ..call.clone() }),
        [Ok(Gate::MustNot), Ok(Gate::Claim)]
    );
    let unknown = Answer { calls: &[("delete_order", "{}")], ..call };
    assert_eq!(case.breaks(&unknown), [Err(Failure::ToolMismatch)]);
    // Without a plan the text owes everything.
    assert_eq!(case.breaks(&says(r#"{"text":"Just words.","plan":[]}"#)), [Ok(Gate::Schema)]);
}

#[test]
fn several_choices_are_judged_each_and_none_is_repaired() {
    let mut case = checks(Checks { schema: schema(SUPPORT), ..Checks::default() });
    case.contract.repair = Repair { fixes: Fix::ALL.to_vec(), ..Repair::default() };
    case.request = json!({"n": 2});
    let inbound = case.inbound(Dialect::OpenaiChat, false);
    let good = r#"{"summary":"s","risk":"low","next_action":"n"}"#;
    let choice = |n: u8, text: &str| json!({"index": n, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"});
    let body = json!({"id": "r", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [choice(0, good), choice(1, &format!("```\n{good}\n```"))]});
    let read = reply::read(Dialect::OpenaiChat, &inbound, body.to_string().into()).unwrap();
    let gates = Gates::compile(&Arc::new(case.contract.clone())).unwrap();
    let checked = check::reply(&Asked { inbound: &inbound, gates: &gates, brief: &Brief::default() }, &read);
    assert!(checked.findings.problems[0].what.starts_with("choices[1]: "), "{:?}", checked.findings);
    assert_eq!((checked.findings.problems.len(), checked.instead), (1, None));
}

/// All the gates at once.
fn strict() -> Case {
    let mut case = checks(Checks {
        schema: schema(SUPPORT),
        evidence: Some(Evidence { sources: "outlast.sources".into(), citations: None, min: 1 }),
        must_include: vec!["a".into()],
        must_not: vec!["zzz".into()],
        language: Some("en".into()),
        length: Some(Length { min: Some(2), max: Some(1000) }),
        reject_duplicates: true,
        expressions: vec![Expression { name: "e".into(), expression: "text|length > 1".into() }],
    });
    case.contract.repair = Repair { fixes: Fix::ALL.to_vec(), ..Repair::default() };
    case.contract.refusal = RefusalPolicy::Reroute;
    case.tools = &["refund_order", "send_email"];
    case.request = json!({"outlast": {"sources": ["doc-1", "ä"]}});
    case
}

proptest! {
    #[test]
    fn no_text_makes_the_gates_panic(
        text in prop_oneof![
            ".{0,120}",
            "[\\[\\]`~{}\",:.,;!?|>#*\\-\n doc1äé—’“”。é日本語]{0,160}",
            "((I|we|I've|have|not|refunded|sent|,|and|been|now|—|’|É|ß|\\.|\\?) ?){0,40}",
            "(I’m sorry|but|,|;|—|I can’t|help|ÿ|do that|\\.| ){0,20}",
        ],
        json: bool,
        mode in prop_oneof![Just(ToolMode::Full), Just(ToolMode::PlanOnly), Just(ToolMode::ReadOnly), Just(ToolMode::None)],
    ) {
        let mut case = strict();
        if !json {
            case.contract.checks.schema = None;
        }
        let gates = Gates::compile(&Arc::new(case.contract.clone())).unwrap();
        let inbound = case.inbound(Dialect::OpenaiChat, false);
        let brief = Brief { tool_mode: mode, ..Brief::default() };
        let asked = Asked { inbound: &inbound, gates: &gates, brief: &brief };
        for text in [text.clone(), format!("```json\n{text}"), json!({"summary": text}).to_string()] {
            let once = check::said(&asked, &Said::text("1", "m", text.clone()));
            prop_assert_eq!(&once, &check::said(&asked, &Said::text("1", "m", text)), "judged the same again");
        }
    }

    /// Whatever was cut off: with the schema satisfied, all that is delivered stands as it stood in the original.
    #[test]
    fn a_reply_cut_anywhere_is_never_delivered_as_another(cut in 0..200usize, action in "[a-z\\]},:\"]{0,12}", extra in any::<i32>()) {
        let mut case = checks(Checks { schema: schema(SUPPORT), ..Checks::default() });
        case.contract.repair = Repair { fixes: Fix::ALL.to_vec(), ..Repair::default() };
        let original = json!({"summary": "s", "risk": "low", "next_action": action, "more": {"n": extra, "list": [1, {"a": true}, 2]}});
        let text = original.to_string();
        let cut = cut.min(text.len());
        let gates = Gates::compile(&Arc::new(case.contract.clone())).unwrap();
        let inbound = case.inbound(Dialect::OpenaiChat, false);
        let asked = Asked { inbound: &inbound, gates: &gates, brief: &Brief::default() };
        let checked = check::said(&asked, &Said::text("1", "m", &text[..cut]));
        if checked.findings.problems.is_empty() {
            let delivered = checked.instead.map_or_else(|| text[..cut].to_owned(), |said| said.text);
            let delivered: Value = serde_json::from_str(&delivered).unwrap();
            for name in ["summary", "risk", "next_action"] {
                prop_assert_eq!(&delivered[name], &original[name]);
            }
            let n = &delivered["more"]["n"];
            prop_assert!(n.is_null() || *n == original["more"]["n"], "{}", delivered);
        }
    }
}

#[test]
fn a_megabyte_and_a_deep_document_are_judged_like_any_other() {
    let mut case = checks(Checks {
        schema: schema(r#"{"type":"object"}"#),
        must_not: vec!["x".repeat(1000).into(), "a a a a a b".into()],
        language: Some("en".into()),
        reject_duplicates: true,
        length: Some(Length { min: None, max: Some(100) }),
        ..Checks::default()
    });
    case.contract.repair = Repair { fixes: Fix::ALL.to_vec(), ..Repair::default() };
    let gates = Gates::compile(&Arc::new(case.contract.clone())).unwrap();
    let inbound = case.inbound(Dialect::OpenaiChat, false);
    let brief = Brief { tool_mode: ToolMode::None, ..Brief::default() };
    let asked = Asked { inbound: &inbound, gates: &gates, brief: &brief };
    let deep = format!("{}{}", "{\"a\":".repeat(50_000), "}".repeat(50_000));
    for text in
        [deep, "[".repeat(1 << 20), "a ".repeat(1 << 19), format!("{{\"t\":\"{}\"}}", "I sent ".repeat(1 << 17))]
    {
        assert!(!check::said(&asked, &Said::text("1", "m", text)).findings.problems.is_empty());
    }
}
