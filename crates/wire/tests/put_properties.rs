//! Whatever a request says and however it is put: what is not edited stays, and nothing panics.

use outlast_model::{
    Brief, Gate, Mend, Problem,
    policy::{Ability, Contract, Dialect, Keep, Permissions, Schema, StreamContract, ToolMode},
};
use outlast_wire::{Adapt, Inbound, Put};
use proptest::prelude::*;
use serde_json::Value;

const O: Dialect = Dialect::OpenaiChat;
const A: Dialect = Dialect::Anthropic;

fn contract() -> Contract {
    Contract::plain("c", StreamContract::Buffer)
}

/// A body of fields that nobody knows, in an order that nobody chose, with the known ones among them.
fn bodies() -> impl Strategy<Value = Vec<(String, String)>> {
    let unknown = (
        "[a-z]{3,8}",
        prop_oneof![
            "[1-9][0-9]{0,8}",
            "\"[a-z\\\\n ,{}]{0,9}\"".prop_map(|text| text.replace('\\', "\\\\")),
            Just("[1, {\"a\" : 2.50}]".to_owned())
        ],
    );
    let known = |name: &'static str, value: &'static str| Just((name.to_owned(), value.to_owned()));
    (
        prop::collection::vec(unknown, 0..5),
        known("outlast", r#"{ "sources":["a"], "confirm" : "t"}"#),
        known("max_tokens", "900"),
        any::<bool>(),
    )
        .prop_flat_map(|(mut fields, outlast, limit, limited)| {
            fields.retain(|(name, _)| {
                !["model", "messages", "outlast", "max_tokens", "stream", "tools"].contains(&name.as_str())
            });
            fields.sort();
            fields.dedup_by(|one, other| one.0 == other.0);
            fields.extend([
                ("model".to_owned(), "\"route\"".to_owned()),
                ("messages".to_owned(), r#"[ {"role":"user","content":"caf\u00e9"} ]"#.to_owned()),
                outlast,
            ]);
            fields.extend(limited.then_some(limit));
            Just(fields).prop_shuffle()
        })
}

proptest! {
    #[test]
    fn every_field_that_is_not_edited_stays_byte_for_byte(fields in bodies(), space in "[ \n]{0,2}", from in prop::sample::select(vec![O, A])) {
        let body = |fields: &[(String, String)]| {
            let all: Vec<String> = fields.iter().map(|(name, value)| format!("{space}\"{name}\"{space}:{space}{value}{space}")).collect();
            format!("{{{}}}", all.join(","))
        };
        let brief = Brief { max_output_tokens: Some(100), ..Brief::default() };
        let contract = contract();
        let put = Put { brief: &brief, contract: &contract, ..Put::plain() };
        let inbound = Inbound::parse(from, body(&fields).into()).unwrap();
        let to = Adapt { dialect: from, model: "other", max_output: None, ask_usage: false, put };
        let sent = String::from_utf8(inbound.adapt(&to).unwrap().body.concat()).unwrap();
        serde_json::from_str::<Value>(&sent).unwrap();
        let limited = fields.iter().any(|(name, _)| name == "max_tokens");
        let expected: Vec<(String, String)> = fields
            .iter()
            .filter(|(name, _)| name != "outlast")
            .map(|(name, value)| match name.as_str() {
                "model" => (name.clone(), "\"other\"".to_owned()),
                "max_tokens" => (name.clone(), "100".to_owned()),
                _ => (name.clone(), value.clone()),
            })
            .collect();
        let squeezed = |text: &str| text.replace([' ', '\n'], "");
        let added = if limited { String::new() } else { ",\"max_tokens\":100".to_owned() };
        prop_assert_eq!(squeezed(&sent), squeezed(&body(&expected)).trim_end_matches('}').to_owned() + &added + "}");
        for (name, value) in &expected {
            prop_assert!(sent.contains(&format!("\"{name}\"{space}:{space}{value}")), "{} in {}", name, sent);
        }
        let plain = Adapt { put: Put::plain(), model: "route", ..to };
        let sent = inbound.adapt(&plain).unwrap();
        prop_assert!(!sent.adapted);
    }

    #[test]
    fn spoiled_requests_put_in_any_way_never_panic_and_stay_requests(
        which in 0..BODIES.len(),
        spoils in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(b"\"\\{}[]:,0n \xff".to_vec())), 0..4),
        (to, tool_mode, limit, shorten_to, mends) in (prop::sample::select(vec![O, A]), modes(), prop::option::of(0..9000u32), prop::option::of(0..400u32), any::<bool>()),
        (native_schema, can_call_tools) in (abilities(), abilities()),
        (has_schema, permitted, keeps) in (any::<bool>(), any::<bool>(), any::<bool>()),
    ) {
        let (dialect, text) = BODIES[which];
        let mut bytes = text.as_bytes().to_vec();
        let spoiled = !spoils.is_empty();
        for (at, byte) in spoils {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let Ok(inbound) = Inbound::parse(dialect, bytes.into()) else { return Ok(()) };
        let mend = mends.then(|| Mend { attempt: 0, problems: vec![Problem::at(Gate::Schema, "x")] });
        let brief = Brief { tool_mode, max_output_tokens: limit, shorten_to, mend };
        let mut contract = contract();
        contract.checks.schema = has_schema.then(|| Schema { source: "s".into(), json: r#"{"type":"object"}"#.into() }.into());
        contract.permissions = Permissions { tools: permitted.then(|| vec!["search".into()]), ..Permissions::default() };
        contract.keeps.extend(keeps.then_some(Keep::ToolResults));
        let put = Put { brief: &brief, contract: &contract, native_schema, can_call_tools, mend: Some("{}") };
        let adapted = inbound.adapt(&Adapt { dialect: to, model: "m", max_output: None, ask_usage: true, put });
        let offer = inbound.offer(&brief, &contract);
        let _ = (inbound.fingerprint(), inbound.outlast().is_ok(), inbound.last_user_text(), inbound.needs());
        if let Ok(adapted) = adapted {
            let body = adapted.body.concat();
            let whole = serde_json::from_slice::<Value>(&body);
            if !spoiled {
                let whole = whole.unwrap();
                prop_assert!(Inbound::parse(to, body.clone().into()).is_ok());
                prop_assert_eq!(whole.get("outlast"), None);
                // What is withheld is offered nowhere.
                let tools = whole.get("tools").map(Value::to_string).unwrap_or_default();
                for name in &offer.withheld {
                    prop_assert!(!tools.contains(&format!("\"{name}\"")), "{} in {}", name, tools);
                }
            }
        }
    }
}

fn modes() -> impl Strategy<Value = ToolMode> {
    prop::sample::select(vec![ToolMode::Full, ToolMode::PlanOnly, ToolMode::ReadOnly, ToolMode::None])
}

fn abilities() -> impl Strategy<Value = Ability> {
    prop::sample::select(vec![Ability::Yes, Ability::No, Ability::Unknown])
}

/// Requests with everything in them that may be changed.
const BODIES: [(Dialect, &str); 3] = [
    (
        O,
        r#"{"outlast":{"sources":["a"]},"model":"r","stream":true,"max_tokens":90,"n":2,"response_format":{"type":"text"},"tools":[{"type":"function","function":{"name":"search"}},{"type":"function","function":{"name":"refund"}},{"type":"web_search"}],"tool_choice":{"type":"function","function":{"name":"refund"}},"parallel_tool_calls":true,"messages":[{"role":"system","content":"s"},{"role":"user","content":"one"},{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"search","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c","content":"two"},{"role":"user","content":"three"}]}"#,
    ),
    (
        A,
        r#"{"model":"r","max_tokens":9000,"system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}],"thinking":{"type":"enabled","budget_tokens":4000},"output_config":{"effort":"low"},"tools":[{"name":"search","input_schema":{"type":"object"}},{"name":"refund","input_schema":{"type":"object"}},{"type":"web_search_20250305","name":"web_search"}],"tool_choice":{"type":"tool","name":"refund"},"mcp_servers":[{"name":"x"}],"messages":[{"role":"user","content":"one"},{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":""},{"type":"tool_use","id":"c","name":"search","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"c","content":"two","is_error":true}]},{"role":"user","content":"three"}],"outlast":{"state":{"step":"x"}}}"#,
    ),
    (
        O,
        r#"{"model":"r","functions":[{"name":"search"},{"name":"refund"}],"function_call":{"name":"refund"},"web_search_options":{},"messages":[{"role":"developer","content":[{"type":"text","text":"s"}]},{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x"}}]},{"role":"assistant","content":"","function_call":{"name":"search","arguments":"{}"}},{"role":"user","content":"three"}]}"#,
    ),
];
