//! What must never happen, each with everything set up that could make it happen.

use crate::{
    common::{Ask, Conn, Reply, Rig, plan, rig, until},
    table::{notes, tools},
};
use outlast::fake::Fake;
use outlast_model::{
    Failure, Gate,
    record::{Outcome, WhyLeftOut},
};
use serde_json::json;

const SCHEMA: &str = "schema = { type = \"object\", required = [\"summary\", \"risk\", \"next_action\"], \
     additionalProperties = false, properties = { summary = { type = \"string\" }, risk = { type = \"string\" }, \
     next_action = { type = \"string\" } } }\n";
const STORE: &str = "[store]\nfile = \"store.db\"\nplaintext_payloads = true\n";

/// Fakes `a`, `b` (which speaks the other dialect) and `c`, and a gateway with a route `main` of these targets.
async fn world(targets: &str, route: &str, more: &str) -> ([Fake; 3], Rig) {
    let fakes = [rig::fake("alpha").await, rig::fake("beta").await, rig::fake("gamma").await];
    let kinds = ["openai-compatible", "anthropic", "openai-compatible"];
    let providers: String = ["a", "b", "c"]
        .iter()
        .zip(kinds)
        .zip(&fakes)
        .map(|((name, kind), fake)| rig::provider(name, kind, &fake.url(), ""))
        .collect();
    let config = format!(
        "{providers}[routes.all]\ntargets = [\"a/m\", \"b/m\", \"c/m\"]\n[routes.main]\ntargets = {targets}\n{route}\n{more}"
    );
    let rig = Rig::start(&config).await;
    (fakes, rig)
}

fn every_way(text: &str) -> Vec<Ask> {
    let both = |dialect: &str| [Ask::either(dialect, "main", text), Ask::either(dialect, "main", text).streamed()];
    ["openai", "anthropic"].map(both).concat()
}

fn set(fake: &Fake, fault: &str) {
    fake.set_fault("*", plan(fault)).unwrap();
}

#[tokio::test]
async fn a_backup_that_says_message_and_priority_where_summary_risk_and_next_action_are_due_never_reaches_the_client() {
    let contract = format!("[contracts.triage]\n{SCHEMA}");
    for (targets, saved) in [("[\"a/m\", \"b/m\"]", false), ("[\"a/m\", \"b/m\", \"c/m\"]", true)] {
        for ask in every_way("The order is late.") {
            let ([a, b, _c], rig) = world(targets, "contract = \"triage\"", &contract).await;
            set(&a, "503");
            set(&b, "say:{\"message\":\"zzz late\"%2C\"priority\":\"zzz low\"}");
            let reply = rig.ask(ask).await;
            // Not in a good reply, not in an error, not in a comment of the stream.
            assert!(!reply.text().contains("zzz") && !reply.text().contains("priority"), "{}", reply.text());
            let record = rig.record(reply.request_id()).await;
            let drifted = record.attempts.iter().find(|attempt| attempt.target.as_str() == "b/m").unwrap();
            assert_eq!(drifted.problems[0].gate, Some(Gate::Drift));
            if saved {
                reply.assert_answered();
                let said: serde_json::Value = serde_json::from_str(&reply.said()).unwrap();
                assert!(said["summary"].is_string() && said["risk"].is_string() && said["next_action"].is_string());
                assert_eq!((reply.header("x-outlast-target"), reply.header("x-outlast-degraded")), (Some("c/m"), None));
            } else {
                assert!(reply.status() >= 500 && reply.json()["error"]["type"].is_string(), "{}", reply.text());
                assert!(matches!(record.outcome, Outcome::Failed(_)), "{:?}", record.outcome);
            }
        }
    }
}

#[tokio::test]
async fn a_target_without_tools_turns_a_write_into_a_plan_and_runs_nothing() {
    let policy = "[contracts.acting]\ntools = { primary = \"full\", fallback = \"plan-only\", read_only = [\"lookup_order\"] }\n\
                  [targets.\"b/m\"]\ncapabilities = { tools = false }\n";
    let ([a, b, _c], rig) = world("[\"a/m\", \"b/m\"]", "contract = \"acting\"", policy).await;
    set(&a, "503:first=4");
    for dialect in ["openai", "anthropic"] {
        for streamed in [false, true] {
            let ask = Ask::either(dialect, "main", "Refund it: tool:refund_order").with("tools", tools(dialect));
            let reply = rig.ask(ask.with("stream", json!(streamed))).await;
            reply.assert_answered();
            assert_eq!(reply.header("x-outlast-tool-mode"), Some("plan-only"));
            assert_eq!(reply.header("x-outlast-degraded"), Some("tools"));
            // An SDK finds nothing to run.
            let text = reply.text();
            assert!(!text.contains("\"tool_calls\":[{") && !text.contains("tool_use"), "{text}");
            assert!(reply.said().contains("Not done: refund_order"), "{}", reply.said());
            let intent = &notes(&reply)["plan"][0];
            assert_eq!((&intent["tool"], &intent["approval"]), (&json!("refund_order"), &json!("required")));
            assert!(intent["arguments"]["order"].is_string(), "{intent}");
        }
    }
    assert!(b.log().iter().all(|seen| seen.tools == 0), "it was offered no tools");
}

#[tokio::test]
async fn a_judge_outage_does_not_pass_bad_answers() {
    let judged = "[contracts.sure]\nconfidence = { from = \"judge\", route = \"judge\", min = 0.7, timeout = \"300ms\" }\n\
                  [routes.judge]\ntargets = [\"c/m\"]\ntier = \"none\"\n";
    let verdict = "say:{\"score\":0.1%2C\"reason\":\"wrong\"}";
    for outage in ["503", "hang", "cut:after=1,how=close", "say:9/10", "say:{\"score\":9}", "refusal", "empty", verdict]
    {
        for ask in every_way("How late is it?") {
            let ([a, b, c], rig) = world("[\"a/m\", \"b/m\"]", "contract = \"sure\"", judged).await;
            set(&a, "say:zzz%20a%20bad%20answer");
            set(&b, "say:zzz%20another%20bad%20answer");
            set(&c, outage);
            let reply = rig.ask(ask).await;
            assert!(reply.status() >= 500, "{outage}: {}", reply.text());
            assert!(!reply.text().contains("zzz"), "{outage}: {}", reply.text());
            let record = rig.record(reply.request_id()).await;
            let expected = if outage == verdict { Failure::Quality } else { Failure::ToolFailed };
            let first = record.first_failure();
            assert_eq!(first, Some(expected), "{outage}");
            let others = usize::from(outage == verdict);
            assert_eq!(b.log().len(), others, "{outage}: another target would meet the same outage");
        }
    }
}

#[tokio::test]
async fn a_safety_block_is_never_rerouted_repaired_raced_voted_on_again_queued_or_answered_by_anybody_else() {
    let eager = "backstops = [\"cache\", \"faq\", \"queue\"]\ncontract = \"triage\"\ntier = \"t\"";
    let prepared = "[backstops.faq]\nkind = \"rules\"\nrules = [{ when = \"true\", \
                    reply = '{\"summary\":\"prepared\",\"risk\":\"low\",\"next_action\":\"wait\"}' }]\n";
    let contract = format!("[contracts.triage]\n{SCHEMA}repair = 1\nrefusal = \"reroute\"\n");
    let votes = "votes = { ahead = 2, samples = 5 }";
    for (tier, most) in [("attempts = 5\nhedge = { budget = 1.0 }", 1), (votes, 2)] {
        for ask in every_way("Tell me.") {
            let more = format!("{contract}{prepared}[tiers.t]\n{tier}\n{STORE}");
            let (fakes, rig) = world("[\"a/m\", \"b/m\", \"c/m\"]", eager, &more).await;
            // A good answer to the same is in the cache.
            rig.ask(ask.clone()).await.assert_answered();
            let metric = "outlast_cache_stored_total{result=\"kept\"} 1";
            until("it to be kept", || rig.metrics().contains(metric)).await;
            for fake in &fakes {
                fake.clear_log();
                set(fake, "content-filter");
            }
            let reply = rig.ask(ask).await;
            assert_eq!(reply.status(), 400, "{}", reply.text());
            assert_eq!(reply.header("x-should-retry"), Some("false"));
            assert!(!reply.text().contains("prepared") && !reply.text().contains("next_action"), "{}", reply.text());
            let record = rig.record(reply.request_id()).await;
            assert_eq!((record.outcome, record.backstop), (Outcome::Failed(Failure::SafetyBlock), None));
            assert_eq!((record.degraded, record.served_by), (false, None));
            for fake in &fakes {
                fake.quiet().await;
            }
            let calls: usize = fakes.iter().map(|fake| fake.log().len()).sum();
            assert!(calls <= most, "{calls} calls, where {most} were out already");
            assert!(rig.metrics().contains("outlast_queue_waiting 0"), "nothing was queued");
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_settled_and_so_is_what_it_caused() {
    for ask in every_way("Hello") {
        for fault in ["hang", "hang:after-headers", "drip:gap=5s"] {
            let ([a, b, _c], rig) = world("[\"a/m\", \"b/m\"]", "", "").await;
            set(&a, fault);
            let mut conn = Conn::open(rig.address()).await;
            conn.write(&ask.bytes()).await.unwrap();
            until("the model to be asked", || a.count() == 1).await;
            drop(conn);
            crate::common::guarded("the upstream call to be cancelled", a.until(|stats| stats.clients_left == 1)).await;
            let record = rig.latest_of(1).await;
            assert_eq!((record.outcome, record.attempts.len()), (Outcome::Cancelled, 1), "{fault}");
            assert_eq!(b.count(), 0, "nobody is asked for a client that is gone");
            assert!(rig.metrics().contains("outlast_calls_in_flight 0"), "{}", rig.metrics());
        }
    }
}

#[tokio::test]
async fn an_account_out_of_money_and_a_rejected_key_are_not_asked_again_until_they_may_serve() {
    for fault in ["quota", "auth"] {
        let ([a, b, _c], rig) = world("[\"a/m\", \"b/m\"]", "", "").await;
        set(&a, fault);
        for ask in every_way("Hello") {
            let reply: Reply = rig.ask(ask).await;
            reply.assert_answered();
            assert_eq!(reply.header("x-outlast-target"), Some("b/m"));
        }
        assert_eq!((a.count(), b.count()), (1, 4), "{fault}");
        let record = rig.latest_of(4).await;
        assert!(record.left_out.iter().any(|left| left.why == WhyLeftOut::NoKey), "{:?}", record.left_out);
    }
}
