//! What contracts and budgets make of a request on its way to a provider, and what comes of it for the client.

mod common;

use common::{Act, Ask, Reply, Rig, Upstream, model, rig, says};
use serde_json::{Value, json};

const DIALECTS: [&str; 2] = ["openai", "anthropic"];

/// A route `main` of one target with these settings, under contract `c` with those.
fn config(upstream: &Upstream, target: &str, contract: &str, more: &str) -> String {
    rig::provider("a", "openai-compatible", &upstream.url(), "")
        + &format!(
            "[routes.main]\ntargets = [\"a/m\"]\ncontract = \"c\"\ntier = \"t\"\n\
             [targets.\"a/m\"]\n{target}\n[contracts.c]\n{contract}\n[tiers.t]\n{more}\n"
        )
}

fn ways(dialect: &str, text: &str) -> [Ask; 2] {
    [Ask::either(dialect, "main", text), Ask::either(dialect, "main", text).streamed()]
}

fn with_tools(ask: Ask, dialect: &str) -> Ask {
    let names = ["lookup_order", "refund_order"];
    let parameters = json!({"type": "object", "properties": {"order_id": {"type": "integer"}}});
    let tools: Value = names
        .iter()
        .map(|name| match dialect {
            "openai" => json!({"type": "function", "function": {"name": name, "parameters": parameters}}),
            _ => json!({"name": name, "input_schema": parameters}),
        })
        .collect();
    ask.with("tools", tools)
}

fn notes(reply: &Reply) -> Value {
    if reply.is_stream() {
        let events = reply.events();
        let noted = events.iter().map(|event| event.json()).find(|event| event["outlast"].is_object());
        return noted.unwrap_or_else(|| panic!("{}", reply.text()))["outlast"].clone();
    }
    reply.json()["outlast"].clone()
}

#[tokio::test]
async fn the_outlast_object_stays_here_and_what_is_wrong_in_it_is_told() {
    let upstream = model(|_| says("hello")).await;
    let rig = Rig::start(&config(&upstream, "", "", "")).await;
    let outlast = json!({"sources": ["a"], "state": {"step": "one"}, "budget_usd": null});
    for dialect in DIALECTS {
        for ask in ways(dialect, "hi") {
            rig.ask(ask.with("outlast", outlast.clone())).await.assert_answered();
        }
        let wrong = Ask::either(dialect, "main", "hi").with("outlast", json!({"budget": 1}));
        let reply = rig.ask(wrong).await;
        assert_eq!(reply.status(), 400);
        assert!(reply.text().contains("`outlast.budget` is unknown"), "{}", reply.text());
    }
    assert_eq!(upstream.seen().len(), 4);
    assert!(upstream.seen().iter().all(|request| request.json().get("outlast").is_none()));
}

#[tokio::test]
async fn the_output_limit_is_lowered_to_the_money_left() {
    let upstream = model(|_| says("hello")).await;
    let target = "price = { input = 1.0, output = 10.0 }";
    let rig = Rig::start(&config(&upstream, target, "", "cost_max_usd = 0.01")).await;
    for dialect in DIALECTS {
        for ask in ways(dialect, "hi") {
            rig.ask(ask.with("max_tokens", json!(50_000))).await.assert_answered();
        }
        let thrifty = Ask::either(dialect, "main", "hi").with("outlast", json!({"budget_usd": 0.002}));
        rig.ask(thrifty.with("max_tokens", json!(50_000))).await.assert_answered();
    }
    for (at, request) in upstream.seen().iter().enumerate() {
        // A cent buys 1,000 tokens, a fifth of it 200, less what the input takes.
        let most = if at % 3 == 2 { 200 } else { 1000 };
        let limit = request.json()["max_tokens"].as_u64().unwrap();
        assert!(limit <= most && limit > most - 20, "{limit}");
    }
}

#[tokio::test]
async fn a_target_without_tools_turns_a_write_into_a_plan() {
    let form = json!({
        "text": "I can refund it.",
        "plan": [{"tool": "refund_order", "arguments": {"order_id": 17}, "reason": "It was lost.", "evidence": ["doc-1"]}],
    });
    let upstream = model(move |_| says(&form.to_string())).await;
    let tools = "tools = { primary = \"full\", fallback = \"plan-only\" }";
    let rig = Rig::start(&config(&upstream, "capabilities = { tools = false }", tools, "")).await;
    planned(&rig).await;
    for request in upstream.seen() {
        let body = request.json();
        assert!(body.get("tools").is_none() && body.get("tool_choice").is_none());
        let system = body["messages"][0]["content"].as_str().unwrap();
        assert!(system.contains("- refund_order") && system.contains("\"plan\""), "{system}");
    }
}

#[tokio::test]
async fn what_a_model_with_tools_would_call_comes_back_as_a_plan_too() {
    let upstream = model(|_| Act::Calls("refund_order", json!({"order_id": 17}))).await;
    let tools = "tools = { primary = \"plan-only\", fallback = \"plan-only\" }";
    let rig = Rig::start(&config(&upstream, "capabilities = { tools = true }", tools, "")).await;
    planned(&rig).await;
    assert!(upstream.seen().iter().all(|request| request.json()["tools"].as_array().unwrap().len() == 2));
}

/// Whoever asks gets words and a plan, and nothing that an SDK would run.
async fn planned(rig: &Rig) {
    for dialect in DIALECTS {
        for ask in ways(dialect, "My order 17 is lost.") {
            let reply = rig.ask(with_tools(ask, dialect).with("outlast", json!({"sources": ["doc-1"]}))).await;
            reply.assert_answered();
            assert_eq!(reply.header("x-outlast-tool-mode"), Some("plan-only"));
            let text = reply.text();
            assert!(!text.contains("\"tool_calls\"") && !text.contains("tool_use"), "{text}");
            assert!(reply.said().contains("Not done: refund_order (order_id: 17)."), "{}", reply.said());
            let plan = &notes(&reply)["plan"][0];
            assert_eq!((&plan["tool"], &plan["arguments"]), (&json!("refund_order"), &json!({"order_id": 17})));
            assert_eq!(plan["approval"], "required");
        }
    }
}

#[tokio::test]
async fn in_read_only_mode_write_tools_are_absent_and_never_released() {
    let upstream = model(|_| Act::Calls("refund_order", json!({"order_id": 17}))).await;
    let tools = "tools = { primary = \"read-only\", fallback = \"none\", read_only = [\"lookup_order\"] }";
    let rig = Rig::start(&config(&upstream, "capabilities = { tools = true }", tools, "")).await;
    for dialect in DIALECTS {
        for ask in ways(dialect, "My order 17 is lost.") {
            // The model calls what it was not offered: that is nobody's answer.
            let reply = rig.ask(with_tools(ask, dialect)).await;
            assert_ne!(reply.status(), 200, "{}", reply.text());
            assert!(!reply.text().contains("refund_order"));
        }
    }
    for request in upstream.seen() {
        let body = request.json();
        let offered = body["tools"]
            .as_array()
            .map(|tools| tools.iter().map(|tool| &tool["function"]["name"]).collect::<Vec<_>>());
        assert!(offered.is_none_or(|names| names == [&json!("lookup_order")]), "{body}");
    }
}

#[tokio::test]
async fn a_model_mends_its_own_reply_and_is_told_what_was_wrong() {
    let upstream = model(|body| match body["messages"].as_array().unwrap().len() {
        1 => says(r#"{"message":"x","priority":1}"#),
        _ => says(r#"{"summary":"x"}"#),
    })
    .await;
    let contract = "schema = { type = \"object\", required = [\"summary\"], properties = { summary = { type = \"string\" } } }\nrepair = 1";
    let rig = Rig::start(&config(&upstream, "capabilities = { json_schema = true }", contract, "")).await;
    for dialect in DIALECTS {
        for ask in ways(dialect, "hi") {
            let reply = rig.ask(ask).await;
            reply.assert_answered();
            assert_eq!(reply.said(), r#"{"summary":"x"}"#);
            assert_eq!(reply.header("x-outlast-attempts"), Some("2"));
        }
    }
    for pair in upstream.seen().chunks(2) {
        let (first, second) = (pair[0].json(), pair[1].json());
        assert_eq!(first["response_format"]["json_schema"]["schema"]["required"], json!(["summary"]));
        assert_eq!(second["messages"][0], first["messages"][0], "the same evidence");
        assert_eq!(second["messages"][1], json!({"role": "assistant", "content": r#"{"message":"x","priority":1}"#}));
        let demand = second["messages"][2]["content"].as_str().unwrap();
        assert!(demand.contains("summary") && !demand.contains("priority"), "names the rule, not the reply: {demand}");
    }
}

#[tokio::test]
async fn a_conversation_too_long_for_every_target_loses_its_oldest_rounds_and_says_so() {
    let upstream = model(|_| says("hello")).await;
    let rig = Rig::start(&config(&upstream, "context_window = 1000", "shorten = \"drop-oldest-turns\"", "")).await;
    let turn = |role: &str, text: String| json!({"role": role, "content": text});
    let mut messages = Vec::new();
    for round in 0..8 {
        messages.extend([
            turn("user", format!("question {round} {}", "word ".repeat(200))),
            turn("assistant", "Yes.".into()),
        ]);
    }
    messages.push(turn("user", "the last question".into()));
    for dialect in DIALECTS {
        for ask in ways(dialect, "") {
            let reply = rig.ask(ask.with("messages", json!(messages)).with("max_tokens", json!(100))).await;
            reply.assert_answered();
            assert_eq!(reply.header("x-outlast-degraded"), Some("input"));
        }
    }
    for request in upstream.seen() {
        let text = request.json()["messages"].to_string();
        assert!(!text.contains("question 0") && text.contains("question 7") && text.contains("the last question"));
    }
}
