//! What a brief and a contract change of a request, for each pair of dialects, and what they leave alone.

use insta::assert_snapshot;
use outlast_model::{
    Brief, Failure, Gate, Mend, Problem,
    policy::{Ability, Contract, Dialect, Keep, Permissions, Schema, StreamContract, ToolMode, ToolPolicy},
};
use outlast_wire::{
    Adapt, Adapted, Inbound, Put, Unsupported,
    check::{self, Asked},
    compose::{self, Said},
    contract::Gates,
    plan, reply,
};
use serde_json::{Value, json};
use std::sync::Arc;

const O: Dialect = Dialect::OpenaiChat;
const A: Dialect = Dialect::Anthropic;
const PAIRS: [(Dialect, Dialect); 4] = [(O, O), (O, A), (A, A), (A, O)];

fn inbound(dialect: Dialect, body: &Value) -> Inbound {
    Inbound::parse(dialect, body.to_string().into()).unwrap()
}

fn contract() -> Contract {
    Contract::plain("c", StreamContract::Buffer)
}

fn with_schema() -> Contract {
    let json = r#"{"type":"object","properties":{"summary":{"type":"string"}},"required":["summary"],"additionalProperties":false}"#;
    let mut contract = contract();
    contract.checks.schema = Some(Schema { source: "s.json".into(), json: json.into() }.into());
    contract
}

fn with_tools(read_only: &[&str]) -> Contract {
    let read_only = read_only.iter().map(|name| (*name).into()).collect();
    let tools = Some(ToolPolicy { primary: ToolMode::Full, fallback: ToolMode::PlanOnly, read_only });
    Contract { tools, ..contract() }
}

fn mode(tool_mode: ToolMode) -> Brief {
    Brief { tool_mode, ..Brief::default() }
}

/// How a request is put to a target of some ability.
struct Case<'a> {
    brief: &'a Brief,
    contract: &'a Contract,
    native_schema: Ability,
    can_call_tools: Ability,
    mend: Option<&'a str>,
}

impl<'a> Case<'a> {
    fn of(brief: &'a Brief, contract: &'a Contract) -> Self {
        let (native_schema, can_call_tools) = (Ability::Unknown, Ability::Unknown);
        Case { brief, contract, native_schema, can_call_tools, mend: None }
    }

    fn adapt(&self, from: Dialect, to: Dialect, body: &Value) -> Result<Adapted, Unsupported> {
        let Case { brief, contract, native_schema, can_call_tools, mend } = *self;
        let put = Put { brief, contract, native_schema, can_call_tools, mend };
        let to = Adapt { dialect: to, model: "gpt-target", max_output: Some(4096), ask_usage: false, put };
        inbound(from, body).adapt(&to)
    }

    fn put(&self, from: Dialect, to: Dialect, body: &Value) -> Value {
        let adapted = self.adapt(from, to, body).unwrap();
        assert!(adapted.adapted);
        let body = adapted.body.concat();
        Inbound::parse(to, body.clone().into()).unwrap();
        serde_json::from_slice(&body).unwrap()
    }
}

/// A conversation with tools in either dialect: `search` and `refund`, a call of `search` and its result.
fn with_traffic(dialect: Dialect) -> Value {
    let user = |text: &str| json!({"role": "user", "content": text});
    match dialect {
        O => json!({"model": "route", "tools": [function("search"), function("refund")], "messages": [
            {"role": "system", "content": "Be kind."},
            user("Where is order 17?"),
            {"role": "assistant", "content": "Looking.", "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "search", "arguments": "{\"id\":17}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "lost"},
            user("Refund it.")]}),
        A => json!({"model": "route", "max_tokens": 900, "system": "Be kind.",
            "tools": [function_a("search"), function_a("refund")], "messages": [
            user("Where is order 17?"),
            {"role": "assistant", "content": [{"type": "text", "text": "Looking."},
                {"type": "tool_use", "id": "c1", "name": "search", "input": {"id": 17}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "lost"}]},
            user("Refund it.")]}),
    }
}

fn function(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {"id": {"type": "integer"}}}}})
}

fn function_a(name: &str) -> Value {
    json!({"name": name, "input_schema": {"type": "object", "properties": {"id": {"type": "integer"}}}})
}

fn tool_names(body: &Value) -> Vec<&str> {
    let tools = body["tools"].as_array().into_iter().flatten();
    tools
        .filter_map(|tool| tool["function"]["name"].as_str().or(tool["name"].as_str()).or(tool["type"].as_str()))
        .collect()
}

fn system_of(body: &Value) -> &str {
    body["system"].as_str().or(body["messages"][0]["content"].as_str()).unwrap_or_default()
}

fn line_per_message(body: &Value) -> String {
    let system = body.get("system").map(|system| format!("system: {system}\n")).unwrap_or_default();
    let messages = body["messages"].as_array().unwrap().iter().map(|message| format!("- {message}"));
    format!("{system}{}", messages.collect::<Vec<_>>().join("\n"))
}

#[test]
fn the_outlast_object_goes_nowhere() {
    let outlast = json!({"sources": ["a"], "confirm": "T"});
    let (brief, contract) = (Brief::default(), contract());
    for (from, to) in PAIRS {
        let mut body = with_traffic(from);
        body["outlast"] = outlast.clone();
        let case = Case::of(&brief, &contract);
        let adapted = case.adapt(from, to, &body).unwrap();
        let sent: Value = serde_json::from_slice(&adapted.body.concat()).unwrap();
        assert_eq!(sent.get("outlast"), None, "{from:?} {to:?}");
        // Taking it out is not our doing, as far as a refusal goes.
        assert_eq!(adapted.adapted, from != to);
        let without: Value =
            serde_json::from_slice(&case.adapt(from, to, &with_traffic(from)).unwrap().body.concat()).unwrap();
        assert_eq!(sent, without);
        assert_eq!(inbound(from, &body).needs().cannot_carry[to.index()], Vec::<&str>::new());
    }
}

#[test]
fn the_output_limit_is_lowered_under_the_name_it_has_and_never_raised() {
    let contract = contract();
    for (from, to, said, limit, expected) in [
        (O, O, json!({"max_tokens": 500}), 100, json!({"max_tokens": 100})),
        (O, O, json!({"max_tokens": 50}), 100, json!({"max_tokens": 50})),
        (O, O, json!({"max_completion_tokens": 500}), 100, json!({"max_completion_tokens": 100})),
        (
            O,
            O,
            json!({"max_completion_tokens": 500, "max_tokens": 90}),
            100,
            json!({"max_completion_tokens": 100, "max_tokens": 90}),
        ),
        (O, O, json!({"max_tokens": 5e2}), 100, json!({"max_tokens": 100})),
        (O, O, json!({"max_tokens": null}), 100, json!({"max_tokens": null, "max_completion_tokens": 100})),
        (O, O, json!({}), 100, json!({"max_completion_tokens": 100})),
        (O, O, json!({}), 9000, json!({"max_completion_tokens": 4096})),
        (O, O, json!({"n": 4, "max_tokens": 500}), 100, json!({"max_tokens": 100})),
        (O, A, json!({"max_completion_tokens": 500}), 100, json!({"max_tokens": 100})),
        (O, A, json!({}), 100, json!({"max_tokens": 100})),
        (O, A, json!({}), 9000, json!({"max_tokens": 4096})),
        (A, A, json!({"max_tokens": 500}), 100, json!({"max_tokens": 100})),
        (A, A, json!({"max_tokens": 50}), 100, json!({"max_tokens": 50})),
        (A, O, json!({"max_tokens": 500}), 100, json!({"max_completion_tokens": 100})),
        // The thinking budget has to stay below the limit and at or above 1,024.
        (
            A,
            A,
            json!({"max_tokens": 9000, "thinking": {"type": "enabled", "budget_tokens": 8000}}),
            4000,
            json!({"max_tokens": 4000, "thinking": {"type": "enabled", "budget_tokens": 2000}}),
        ),
        (
            A,
            A,
            json!({"max_tokens": 9000, "thinking": {"type": "enabled", "budget_tokens": 8000}}),
            400,
            json!({"max_tokens": 400}),
        ),
        (
            A,
            A,
            json!({"max_tokens": 9000, "thinking": {"type": "enabled", "budget_tokens": 1024}}),
            4000,
            json!({"max_tokens": 4000, "thinking": {"type": "enabled", "budget_tokens": 1024}}),
        ),
    ] {
        let mut body = json!({"model": "route", "messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
        let brief = Brief { max_output_tokens: Some(limit), ..Brief::default() };
        let adapted = Case::of(&brief, &contract).adapt(from, to, &body).unwrap();
        let mut sent: Value = serde_json::from_slice(&adapted.body.concat()).unwrap();
        for name in ["model", "messages", "n"] {
            sent.as_object_mut().unwrap().remove(name);
        }
        assert_eq!(sent, expected, "{from:?} {to:?} {said}");
        assert_eq!(
            adapted.adapted,
            from != to || expected != said && body.get("n").is_none() || body.get("n").is_some()
        );
    }
}

#[test]
fn a_mode_withholds_tools_and_the_choice_that_names_them() {
    let contract = with_tools(&["search"]);
    for (from, to) in PAIRS {
        for (mode_, expected) in [
            (ToolMode::Full, vec!["search", "refund"]),
            (ToolMode::PlanOnly, vec!["search", "refund"]),
            (ToolMode::ReadOnly, vec!["search"]),
            (ToolMode::None, vec![]),
        ] {
            let mut body = with_traffic(from);
            body["tool_choice"] = match from {
                O => json!({"type": "function", "function": {"name": "refund"}}),
                A => json!({"type": "tool", "name": "refund", "disable_parallel_tool_use": true}),
            };
            if from == O {
                body["parallel_tool_calls"] = json!(false);
            }
            let brief = mode(mode_);
            let case = Case { can_call_tools: Ability::Yes, ..Case::of(&brief, &contract) };
            let adapted = case.adapt(from, to, &body).unwrap();
            let sent: Value = serde_json::from_slice(&adapted.body.concat()).unwrap();
            assert_eq!(tool_names(&sent), expected, "{from:?} {to:?} {mode_}");
            let choice = sent.get("tool_choice").map(Value::to_string).unwrap_or_default();
            assert_eq!(choice.contains("refund"), expected.contains(&"refund"), "{choice}");
            assert_eq!(adapted.adapted, from != to || expected.len() < 2);
            // One call at a time is still what was asked for; without tools nothing may speak of it.
            let one_at_a_time = sent.get("parallel_tool_calls") == Some(&json!(false))
                || choice.contains("disable_parallel_tool_use\":true");
            assert_eq!(one_at_a_time, !expected.is_empty(), "{from:?} {to:?} {mode_} {sent}");
        }
    }
}

#[test]
fn permissions_withhold_tools_in_every_mode_and_a_choice_among_the_kept_stays() {
    let permissions = Permissions { tools: Some(vec!["search".into()]), ..Permissions::default() };
    let contract = Contract { permissions, ..contract() };
    let brief = Brief::default();
    for (from, to) in PAIRS {
        let mut body = with_traffic(from);
        body["tool_choice"] = match from {
            O => json!({"type": "function", "function": {"name": "search"}}),
            A => json!({"type": "tool", "name": "search"}),
        };
        let sent = Case::of(&brief, &contract).put(from, to, &body);
        assert_eq!(tool_names(&sent), ["search"]);
        assert!(sent["tool_choice"].to_string().contains("search"));
        let offer = inbound(from, &body).offer(&brief, &contract);
        assert_eq!(
            (&*offer.offered, &*offer.withheld, offer.choice_dropped),
            (&["search".into()][..], &["refund".into()][..], false)
        );
    }
}

#[test]
fn a_choice_that_was_not_sent_is_not_held_against_the_reply() {
    let permissions = Permissions { tools: Some(vec!["search".into()]), ..Permissions::default() };
    let gates = Gates::compile(&Arc::new(Contract { permissions, ..contract() })).unwrap();
    let brief = Brief::default();
    for (name, problems) in [("refund", 0), ("search", 1)] {
        let mut body = with_traffic(O);
        body["tool_choice"] = json!({"type": "function", "function": {"name": name}});
        let inbound = inbound(O, &body);
        let checked =
            check::said(&Asked { inbound: &inbound, gates: &gates, brief: &brief }, &Said::text("1", "m", "No."));
        assert_eq!(checked.findings.problems.len(), problems, "{name}: {:?}", checked.findings.problems);
    }
}

#[test]
fn a_plan_in_words_comes_back_as_a_plan() {
    let contract = with_tools(&[]);
    let gates = Gates::compile(&Arc::new(contract.clone())).unwrap();
    let brief = mode(ToolMode::PlanOnly);
    for (from, to) in PAIRS {
        let mut body = with_traffic(from);
        body["outlast"] = json!({"sources": ["doc-1"]});
        let client = inbound(from, &body);
        let case = Case { can_call_tools: Ability::No, ..Case::of(&brief, &contract) };
        let target = inbound(to, &case.put(from, to, &body));
        let form = r#"{"text":"I can plan it.","plan":[{"tool":"refund","arguments":{"id":17},"reason":"asked","evidence":["doc-1"]}]}"#;
        let answer = compose::whole(&target, &Said::text("1", "m", form));
        let reply = reply::read(to, &client, answer).unwrap();
        let checked = check::reply(&Asked { inbound: &client, gates: &gates, brief: &brief }, &reply);
        assert_eq!(checked.findings.problems, []);
        let plan = checked.plan.unwrap();
        assert_eq!(
            (plan[0].tool.as_str(), &plan[0].arguments, &plan[0].evidence[..]),
            ("refund", &json!({"id": 17}), &["doc-1".to_owned()][..])
        );
        assert_eq!(plan::not_done(&plan), "Not done: refund (id: 17).");
    }
}

#[test]
fn a_tool_whose_name_is_no_sure_thing_is_withheld() {
    let contract = with_tools(&["search"]);
    for tools in [
        r#"[{"type":"function","function":{"name":"search","name":"refund"}}]"#,
        r#"[{"type":"function","function":{"name":"search"},"function":{"name":"refund"}}]"#,
        r#"[{"type":"function","name":"search","name":"refund"}]"#,
        r#"[{"type":"function","function":{"name":7}}]"#,
        r#"[{"type":"function","function":{"name":"search","x":1.2.3}}]"#,
        r#"{"name":"search"}"#,
        "7",
    ] {
        let body = format!(r#"{{"model":"r","messages":[{{"role":"user","content":"x"}}],"tools":{tools}}}"#);
        let inbound = Inbound::parse(O, body.into()).unwrap();
        let brief = mode(ToolMode::ReadOnly);
        let put = Put { brief: &brief, contract: &contract, can_call_tools: Ability::Yes, ..Put::plain() };
        let to = Adapt { dialect: O, model: "m", max_output: None, ask_usage: false, put };
        let sent = String::from_utf8(inbound.adapt(&to).unwrap().body.concat()).unwrap();
        assert!(!sent.contains("tools"), "{sent}");
    }
}

#[test]
fn what_the_provider_runs_is_withheld_unless_it_is_listed() {
    let openai = json!({"model": "r", "messages": [{"role": "user", "content": "x"}], "web_search_options": {},
        "tools": [function("refund"), {"type": "web_search"}, {"type": "custom", "custom": {"name": "shell"}}],
        "functions": [{"name": "old"}], "function_call": {"name": "old"}});
    let anthropic = json!({"model": "r", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}], "container": "c",
        "mcp_servers": [{"type": "url", "url": "https://x", "name": "x"}],
        "tools": [function_a("refund"), {"type": "web_search_20250305", "name": "web_search"}, {"type": "bash_20250124", "name": "bash"}]});
    for (dialect, body, mode_, read_only, tools, fields) in [
        (
            O,
            &openai,
            ToolMode::Full,
            "",
            vec!["refund", "web_search", "custom"],
            vec!["web_search_options", "functions"],
        ),
        (O, &openai, ToolMode::PlanOnly, "", vec!["refund", "custom"], vec!["functions"]),
        (O, &openai, ToolMode::ReadOnly, "web_search", vec!["web_search"], vec![]),
        (O, &openai, ToolMode::ReadOnly, "web_search_options", vec![], vec!["web_search_options"]),
        (O, &openai, ToolMode::ReadOnly, "old", vec![], vec!["functions"]),
        (O, &openai, ToolMode::None, "old", vec![], vec![]),
        (A, &anthropic, ToolMode::Full, "", vec!["refund", "web_search", "bash"], vec!["mcp_servers", "container"]),
        (A, &anthropic, ToolMode::PlanOnly, "", vec!["refund", "bash"], vec![]),
        (A, &anthropic, ToolMode::ReadOnly, "web_search", vec!["web_search"], vec!["container"]),
        (A, &anthropic, ToolMode::ReadOnly, "mcp_servers", vec![], vec!["mcp_servers", "container"]),
        (A, &anthropic, ToolMode::None, "", vec![], vec![]),
    ] {
        let (brief, contract) = (mode(mode_), with_tools(&[read_only]));
        let case = Case { can_call_tools: Ability::Yes, ..Case::of(&brief, &contract) };
        let adapted = case.adapt(dialect, dialect, body).unwrap();
        let sent: Value = serde_json::from_slice(&adapted.body.concat()).unwrap();
        assert_eq!(tool_names(&sent), tools, "{dialect:?} {mode_} {read_only}");
        let left: Vec<&str> = ["web_search_options", "functions", "mcp_servers", "container"]
            .into_iter()
            .filter(|name| sent.get(name).is_some())
            .collect();
        assert_eq!(left, fields, "{dialect:?} {mode_} {read_only}");
        assert_eq!(sent.get("function_call").is_some(), left.contains(&"functions"));
    }
    assert!(inbound(O, &openai).needs().provider_effects);
    assert!(inbound(A, &anthropic).needs().provider_effects);
    for dialect in Dialect::ALL {
        assert!(!inbound(dialect, &with_traffic(dialect)).needs().provider_effects);
    }
    let own_tools = json!({"model": "r", "messages": [{}], "tools": [{"type": "bash_20250124", "name": "bash"}]});
    assert!(!inbound(A, &own_tools).needs().provider_effects);
}

#[test]
fn a_target_without_tools_is_asked_for_a_plan_in_words() {
    let contract = with_tools(&[]);
    let brief = mode(ToolMode::PlanOnly);
    let case = Case { can_call_tools: Ability::No, native_schema: Ability::Yes, ..Case::of(&brief, &contract) };
    for (from, to) in PAIRS {
        let sent = case.put(from, to, &with_traffic(from));
        assert_eq!(tool_names(&sent), Vec::<&str>::new());
        assert!(sent.get("tool_choice").is_none());
        assert!(system_of(&sent).starts_with("Be kind.\n\n"), "{sent}");
        assert!(system_of(&sent).contains("- refund\n  Arguments, as a JSON Schema: {"));
        assert!(system_of(&sent).contains(r#"{"text": "#));
        assert_eq!(sent.get("response_format"), (to == O).then(|| json!({"type": "json_object"})).as_ref());
        let talk = sent["messages"].as_array().unwrap().iter().filter(|message| message["role"] != "system");
        let roles: Vec<&str> = talk.clone().map(|message| message["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["user", "assistant", "user"], "{from:?} {to:?}");
        let said: Vec<&str> = talk.map(|message| message["content"].as_str().unwrap()).collect();
        assert_eq!(said[1], "Looking.\n[Called search with {\"id\":17}]");
        assert_eq!(said[2], "[search returned: lost]\nRefund it.");
    }
    assert_snapshot!(system_of(&case.put(O, O, &with_traffic(O))), @r#"
    Be kind.

    You cannot act yourself here. Where an action is needed, plan it: name the action and its arguments, and it is decided on later. Nothing you plan has been done, so never say or suggest that it has.

    Actions you can plan:
    - search
      Arguments, as a JSON Schema: {"type":"object","properties":{"id":{"type":"integer"}}}
    - refund
      Arguments, as a JSON Schema: {"type":"object","properties":{"id":{"type":"integer"}}}

    Lines in square brackets in this conversation record actions that were done before, and their results.

    Reply with one JSON object and nothing else, no code fence and no comment:
    {"text": "what you tell the user", "plan": [{"tool": "an action's name", "arguments": {}, "reason": "why it is needed", "evidence": ["ids of the sources it rests on"]}]}
    When no action is needed, `plan` is [].
    "#);
}

#[test]
fn where_turns_are_written_anew_the_other_fields_stay_byte_for_byte() {
    let body = r#"{ "made_up" : [1,  2.50],"stream":true, "stream_options": {"include_obfuscation" :false,"include_usage":true},"model":"gpt-target", "max_completion_tokens" : 1000, "messages":[{"role":"user","content":"x","name":"n"}]}"#;
    let (brief, contract) = (Brief::default(), with_schema());
    let put = Put { brief: &brief, contract: &contract, ..Put::plain() };
    let inbound = Inbound::parse(O, body.into()).unwrap();
    let to = Adapt { dialect: O, model: "gpt-target", max_output: None, ask_usage: true, put };
    let sent = String::from_utf8(inbound.adapt(&to).unwrap().body.concat()).unwrap();
    let (before, _) = body.split_once(r#"[{"role""#).unwrap();
    assert!(sent.starts_with(before), "{sent}");
    assert!(sent.ends_with(r#",{"role":"user","content":"x","name":"n"}]}"#), "{sent}");
}

#[test]
fn a_plan_in_words_keeps_what_the_request_demands_of_the_answer() {
    let brief = mode(ToolMode::PlanOnly);
    let contract = with_tools(&[]);
    let case = Case { can_call_tools: Ability::No, ..Case::of(&brief, &contract) };
    for (from, to) in PAIRS {
        let mut body = with_traffic(from);
        let schema = json!({"type": "object", "title": "Asked"});
        match from {
            O => {
                body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
            }
            A => body["output_config"] = json!({"effort": "low", "format": {"type": "json_schema", "schema": schema}}),
        }
        let sent = case.put(from, to, &body);
        assert!(sent.get("response_format").is_none());
        assert!(!sent["output_config"].to_string().contains("schema"));
        assert!(system_of(&sent).ends_with(r#"{"type":"object","title":"Asked"}"#), "{sent}");
    }
}

#[test]
fn earlier_calls_become_text_where_no_tool_is_sent_and_only_there() {
    let contract = with_tools(&["search"]);
    for (from, to) in PAIRS {
        for (mode_, ability, expected) in [
            (ToolMode::Full, Ability::Yes, false),
            (ToolMode::ReadOnly, Ability::Yes, false),
            (ToolMode::PlanOnly, Ability::Yes, false),
            (ToolMode::PlanOnly, Ability::No, true),
            (ToolMode::None, Ability::No, true),
            (ToolMode::None, Ability::Yes, false),
            // Nobody knows, and it may just have refused tools.
            (ToolMode::PlanOnly, Ability::Unknown, true),
            (ToolMode::None, Ability::Unknown, true),
            (ToolMode::ReadOnly, Ability::Unknown, false),
        ] {
            let brief = mode(mode_);
            let case = Case { can_call_tools: ability, ..Case::of(&brief, &contract) };
            let adapted = case.adapt(from, to, &with_traffic(from)).unwrap();
            let text = String::from_utf8(adapted.body.concat()).unwrap();
            let has_traffic = text.contains("tool_calls") || text.contains("tool_use");
            assert_eq!(!has_traffic, expected, "{from:?} {to:?} {mode_} {ability:?} {text}");
        }
    }
}

#[test]
fn a_schema_of_the_contract_is_demanded_natively_or_in_words() {
    let (brief, contract) = (Brief::default(), with_schema());
    let plain = json!({"model": "r", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]});
    for (from, to) in PAIRS {
        let native = Case { native_schema: Ability::Yes, ..Case::of(&brief, &contract) };
        let sent = native.put(from, to, &plain);
        let demanded = match to {
            O => &sent["response_format"]["json_schema"]["schema"],
            A => &sent["output_config"]["format"]["schema"],
        };
        assert_eq!(demanded["required"], json!(["summary"]), "{sent}");
        assert_eq!(sent["messages"], plain["messages"]);
        if to == O {
            assert_eq!(sent["response_format"]["json_schema"]["strict"], json!(true));
        }
        for native_schema in [Ability::No, Ability::Unknown] {
            let sent = Case { native_schema, ..Case::of(&brief, &contract) }.put(from, to, &plain);
            assert!(sent.get("response_format").is_none() && sent.get("output_config").is_none());
            assert!(system_of(&sent).starts_with("Reply with one JSON value"), "{sent}");
            assert!(system_of(&sent).contains("\"required\":[\"summary\"]"));
            let sent = Case::of(&brief, &contract).put(from, to, &with_traffic(from));
            assert!(system_of(&sent).starts_with("Be kind.\n\nWhen you give an answer rather than call a tool, reply"));
            assert_eq!(tool_names(&sent), ["search", "refund"]);
        }
    }
}

#[test]
fn what_the_client_demands_itself_stays_as_it_is() {
    let (brief, contract) = (Brief::default(), with_schema());
    let own = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}});
    let body = json!({"model": "gpt-target", "messages": [{"role": "user", "content": "hi"}], "response_format": own});
    let case = Case { native_schema: Ability::Yes, ..Case::of(&brief, &contract) };
    let adapted = case.adapt(O, O, &body).unwrap();
    assert_eq!(adapted.body.concat(), body.to_string().as_bytes());
    assert!(!adapted.adapted);
    let body = json!({"model": "r", "messages": [{"role": "user", "content": "hi"}], "response_format": {"type": "json_object"}});
    let sent = case.put(O, O, &body);
    assert_eq!(sent["response_format"], json!({"type": "json_object"}));
    assert!(system_of(&sent).contains("\"required\":[\"summary\"]"));
    let body = json!({"model": "r", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], "output_config": {"effort": "low"}});
    let sent = case.put(A, A, &body);
    assert_eq!(
        (&sent["output_config"]["effort"], sent["output_config"]["format"]["type"].as_str()),
        (&json!("low"), Some("json_schema"))
    );
}

#[test]
fn a_broken_reply_goes_back_with_its_violations_after_the_same_conversation() {
    let mend = Mend {
        attempt: 0,
        problems: vec![
            Problem::at(Gate::Schema, "/summary is missing"),
            Problem::at(Gate::Citation, "no source is cited"),
        ],
    };
    let brief = Brief { mend: Some(mend), ..Brief::default() };
    let contract = contract();
    let case = Case { mend: Some("{\"sum\": 1}"), ..Case::of(&brief, &contract) };
    for (from, to) in PAIRS {
        let plain = Brief::default();
        let before = Case::of(&plain, &contract).adapt(from, to, &with_traffic(from)).unwrap();
        let before: Value = serde_json::from_slice(&before.body.concat()).unwrap();
        let sent = case.put(from, to, &with_traffic(from));
        let (first, last) = sent["messages"].as_array().unwrap().split_at(before["messages"].as_array().unwrap().len());
        assert_eq!(first, before["messages"].as_array().unwrap());
        assert_eq!(last[0], json!({"role": "assistant", "content": "{\"sum\": 1}"}));
        assert_eq!(last[1]["role"], "user");
        assert_eq!(sent["tools"], before["tools"]);
    }
    let silent = Case { mend: Some(" "), ..Case::of(&brief, &contract) };
    let sent = silent.put(O, O, &json!({"model": "r", "messages": [{"role": "user", "content": "hi"}]}));
    assert_snapshot!(line_per_message(&sent), @r#"
    - {"role":"user","content":"hi"}
    - {"role":"user","content":"Your last reply cannot be used. It breaks these rules:\n- schema: /summary is missing\n- citation: no source is cited\nAnswer the same request again so that every rule is kept. Use only what this conversation already says: the same facts and the same sources, nothing added. Give the corrected answer and nothing else: no apology, no comment, no code fence."}
    "#);
}

/// Five rounds, the second with a tool call; each user turn is about 100 tokens long.
fn long(dialect: Dialect) -> Value {
    let mut body = with_traffic(dialect);
    let traffic: Vec<Value> =
        body["messages"].as_array().unwrap().iter().filter(|message| message["role"] != "system").cloned().collect();
    let long = |nth: usize| json!({"role": "user", "content": format!("{nth} {}", "word ".repeat(80))});
    let answer = |nth: usize| json!({"role": "assistant", "content": format!("answer {nth}")});
    let mut messages: Vec<Value> =
        body["messages"].as_array().unwrap().iter().filter(|message| message["role"] == "system").cloned().collect();
    messages.extend([long(1), answer(1)]);
    messages.extend(traffic[..3].to_vec());
    messages.extend([
        answer(2),
        long(3),
        answer(3),
        long(4),
        answer(4),
        json!({"role": "user", "content": "the last question"}),
    ]);
    body["messages"] = messages.into();
    body
}

#[test]
fn the_oldest_rounds_go_first_and_no_result_loses_its_call() {
    for (from, to) in PAIRS {
        let whole = inbound(from, &long(from)).input_tokens();
        let texts = |cut: u32, keeps: Vec<Keep>| {
            let brief = Brief { shorten_to: Some(whole - cut), ..Brief::default() };
            let contract = Contract { keeps, ..contract() };
            let adapted = Case::of(&brief, &contract).adapt(from, to, &long(from));
            adapted.map(|adapted| {
                let sent: Value = serde_json::from_slice(&adapted.body.concat()).unwrap();
                let text = sent.to_string();
                assert!(text.contains("Be kind.") && text.contains("the last question"));
                assert_eq!(text.contains("Looking."), text.contains("lost"), "a call without its result: {text}");
                let first =
                    sent["messages"].as_array().unwrap().iter().find(|message| message["role"] != "system").unwrap();
                assert_eq!(first["role"], "user", "{text}");
                let estimate = inbound(to, &sent).input_tokens();
                // The model's name is longer by a token or two.
                assert!(from != to || estimate <= whole - cut + 2, "{estimate} of {}", whole - cut);
                ["answer 1", "Looking.", "answer 3", "answer 4"].map(|needle| text.contains(needle))
            })
        };
        assert_eq!(texts(0, vec![]), Ok([true, true, true, true]));
        assert_eq!(texts(50, vec![]), Ok([false, true, true, true]));
        assert_eq!(texts(150, vec![]), Ok([false, false, true, true]), "{from:?} {to:?}");
        assert_eq!(texts(150, vec![Keep::ToolResults]), Ok([false, true, false, true]));
        assert_eq!(texts(380, vec![]), Ok([false, false, false, false]));
        let cannot = Unsupported { features: vec!["shorten"] };
        assert_eq!(cannot.failure(), Failure::ContextExceeded);
        assert_eq!(texts(whole - 10, vec![]), Err(cannot));
    }
}
