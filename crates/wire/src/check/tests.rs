use super::*;
use outlast_model::policy::Dialect;
use serde_json::value::to_raw_value;

const TEXT: OutputFormat = OutputFormat::Text;

fn plain(output: &OutputFormat) -> Demand<'_> {
    Demand { output, tools: [None; 2], tool_choice: None, stops: false, restricted: None }
}

/// Judges by these demands and no contract.
fn judge(demand: &Demand<'_>, answers: &[Answer], overflowed: bool) -> Findings {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
    let inbound = Inbound::parse(Dialect::OpenaiChat, body.into()).unwrap();
    let asked = Asked { inbound: &inbound, gates: Gates::none(), brief: &Brief::default() };
    let checked = judge_by(demand, &asked, answers, overflowed, || unreachable!("nothing is repaired"));
    checked.findings
}

fn said(text: &str, finish: Finish) -> Answer {
    Answer { text: text.into(), spoke: !text.trim().is_empty(), finish: Some(finish), ..Answer::default() }
}

fn calling(name: &str, arguments: &str) -> Answer {
    Answer { tool_calls: vec![(name.into(), arguments.into())], finish: Some(Finish::ToolCalls), ..Answer::default() }
}

fn failures(demand: &Demand<'_>, answer: Answer) -> Vec<Failure> {
    judge(demand, &[answer], false).problems.into_iter().map(|problem| problem.failure).collect()
}

fn schema(text: &str) -> OutputFormat {
    OutputFormat::JsonSchema {
        name: None,
        description: None,
        schema: to_raw_value(&serde_json::from_str::<Value>(text).unwrap()).unwrap(),
        strict: None,
        extra: Default::default(),
    }
}

#[test]
fn a_plain_answer_is_clean_and_a_length_stop_of_plain_text_is_the_clients_own_limit() {
    assert_eq!(judge(&plain(&TEXT), &[said("Hello", Finish::Stop)], false), Findings::CLEAN);
    assert_eq!(judge(&plain(&TEXT), &[said("Hel", Finish::Length)], false), Findings::CLEAN);
    assert_eq!(failures(&plain(&TEXT), said("", Finish::Length)), []);
}

#[test]
fn a_reply_with_nothing_in_it_is_empty_unless_a_stop_sequence_could_have_ended_it() {
    for text in ["", " \n\t"] {
        assert_eq!(failures(&plain(&TEXT), said(text, Finish::Stop)), [Failure::Empty]);
    }
    let reasoned = Answer { reasoned: true, ..said("", Finish::Stop) };
    assert_eq!(failures(&plain(&TEXT), reasoned), [Failure::Empty], "a thought is no answer");
    assert_eq!(failures(&Demand { stops: true, ..plain(&TEXT) }, said("", Finish::Stop)), []);
    assert_eq!(failures(&plain(&TEXT), Answer { opaque: true, ..said("", Finish::Stop) }), []);
    assert_eq!(judge(&plain(&TEXT), &[], false).problems[0].failure, Failure::Empty);
}

#[test]
fn a_stream_that_kept_no_text_is_judged_by_whether_it_spoke() {
    let answer = Answer { spoke: true, finish: Some(Finish::Stop), ..Answer::default() };
    assert_eq!(failures(&plain(&TEXT), answer), []);
}

#[test]
fn refusals_and_filters_that_look_like_success_are_found_before_anything_else() {
    let json = schema(r#"{"type":"object"}"#);
    let refusal = Answer { refusal: "I can't.".into(), ..said("", Finish::Stop) };
    assert_eq!(failures(&plain(&json), refusal), [Failure::Refusal]);
    assert_eq!(failures(&plain(&TEXT), said("I can't", Finish::Refusal)), [Failure::Refusal]);
    assert_eq!(failures(&plain(&json), said("{", Finish::ContentFilter)), [Failure::SafetyBlock]);
}

#[test]
fn required_json_is_parsed_and_a_length_stop_inside_it_is_truncation() {
    let json = OutputFormat::Json;
    assert_eq!(judge(&plain(&json), &[said("{\"a\":1}", Finish::Stop)], false).schema, SchemaStatus::Valid);
    assert_eq!(failures(&plain(&json), said("```json\n{}\n```", Finish::Stop)), [Failure::SchemaError]);
    assert_eq!(failures(&plain(&json), said("\"words\"", Finish::Stop)), [Failure::SchemaError]);
    assert_eq!(failures(&plain(&json), said("{\"a\":", Finish::Length)), [Failure::Truncated]);
    assert_eq!(failures(&plain(&json), said("", Finish::Length)), [Failure::Truncated]);
    assert_eq!(failures(&plain(&json), said("{\"a\":", Finish::Other)), [Failure::Truncated], "a paused turn");
    let whole = judge(&plain(&json), &[said("{\"a\":1}", Finish::Length)], false);
    assert_eq!((whole.problems.len(), whole.schema), (0, SchemaStatus::Valid), "whole after all");
}

#[test]
fn a_schema_is_kept_broken_or_cannot_be_judged() {
    let number = schema(r#"{"type":"object","properties":{"n":{"type":"number"}},"required":["n"]}"#);
    assert_eq!(judge(&plain(&number), &[said("{\"n\":1}", Finish::Stop)], false).schema, SchemaStatus::Valid);
    let broken = judge(&plain(&number), &[said("{\"n\":\"SECRET\"}", Finish::Stop)], false);
    assert_eq!((broken.problems[0].failure, broken.schema), (Failure::SchemaError, SchemaStatus::Invalid));
    assert!(!format!("{broken:?}").contains("SECRET"));
    let elsewhere = schema(r#"{"$ref":"https://example.com/x.json"}"#);
    let unverified = judge(&plain(&elsewhere), &[said("{}", Finish::Stop)], false);
    assert_eq!((unverified.problems.len(), unverified.schema), (0, SchemaStatus::Unverified));
    assert_eq!(failures(&plain(&elsewhere), said("{", Finish::Stop)), [Failure::SchemaError], "syntax is still judged");
    let long = judge(&plain(&number), &[said("{", Finish::Stop)], true);
    assert_eq!(long.problems[0].failure, Failure::SchemaError);
}

#[test]
fn between_tool_calls_no_structure_is_owed() {
    let number = schema(r#"{"type":"object"}"#);
    let demand = Demand { tools: [Some(r#"[{"name":"f"}]"#), None], ..plain(&number) };
    let findings = judge(&demand, &[calling("f", "{}")], false);
    assert_eq!((findings.problems.len(), findings.schema), (0, SchemaStatus::None));
}

#[test]
fn a_tool_call_names_an_offered_tool_and_has_an_object_for_arguments() {
    let openai = r#"[{"type":"function","function":{"name":"lookup","parameters":{}}},{"type":"custom","custom":{"name":"sql"}}]"#;
    for (tools, name, arguments, good) in [
        (openai, "lookup", "{\"id\":1}", true),
        (openai, "sql", "{}", true),
        (openai, "look_up", "{}", false),
        (openai, "lookup", "[1]", false),
        (openai, "lookup", "{\"id\":", false),
        (r#"[{"name":"lookup","input_schema":{}}]"#, "lookup", "{}", true),
        (r#"[{"name":"lookup","input_schema":{}}]"#, "delete", "{}", false),
        (r#"[{"type":"web_search"}]"#, "whatever", "{}", true),
        ("7", "whatever", "{}", true),
    ] {
        let demand = Demand { tools: [Some(tools), None], ..plain(&TEXT) };
        let expected: &[Failure] = if good { &[] } else { &[Failure::ToolMismatch] };
        assert_eq!(failures(&demand, calling(name, arguments)), expected, "{tools} {name} {arguments}");
    }
    assert_eq!(failures(&plain(&TEXT), calling("lookup", "{}")), [Failure::ToolMismatch], "none was offered");
}

#[test]
fn a_tool_call_at_the_output_limit_is_never_acted_on() {
    let tools = r#"[{"type":"function","function":{"name":"lookup"}}]"#;
    let demand = Demand { tools: [Some(tools), None], ..plain(&TEXT) };
    for arguments in ["{}", r#"{"id":"A-1"}"#] {
        let cut = Answer { finish: Some(Finish::Length), ..calling("lookup", arguments) };
        assert_eq!(failures(&demand, cut), [Failure::Truncated], "{arguments}");
    }
}

#[test]
fn a_tool_call_that_was_required_must_come() {
    for (choice, must) in [
        ("\"required\"", true),
        ("\"auto\"", false),
        ("\"none\"", false),
        (r#"{"type":"function","function":{"name":"f"}}"#, true),
        (r#"{"type":"any"}"#, true),
        (r#"{"type":"tool","name":"f"}"#, true),
        (r#"{"type":"auto"}"#, false),
        (r#"{"type":"allowed_tools"}"#, false),
    ] {
        let demand = Demand { tool_choice: Some(choice), ..plain(&TEXT) };
        let expected: &[Failure] = if must { &[Failure::ToolMismatch] } else { &[] };
        assert_eq!(failures(&demand, said("No, I'd rather talk.", Finish::Stop)), expected, "{choice}");
        assert_eq!(failures(&demand, said("cut off", Finish::Length)), []);
    }
}

#[test]
fn each_choice_is_judged_and_named() {
    let json = OutputFormat::Json;
    let findings = judge(&plain(&json), &[said("{}", Finish::Stop), said("{", Finish::Stop)], false);
    assert_eq!((findings.problems.len(), findings.schema), (1, SchemaStatus::Invalid));
    assert!(findings.problems[0].what.starts_with("choices[1]: "), "{:?}", findings.problems);
}
