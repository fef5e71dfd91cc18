//! Who may call a tool, with what, and who stands in for it.

mod common;

use common::{
    Ask, DONE, Does, Downstream, Reply,
    downstream::{nowhere, rig, tool},
    until,
};
use outlast_model::run::EscalationKind;
use serde_json::{Value, json};

fn ask(name: &str, arguments: &Value) -> Ask {
    Ask::post(&format!("/v1/tools/{name}"), arguments.to_string())
}

fn keyed(name: &str, key: &str) -> Ask {
    ask(name, &json!({ "order": "o-1" })).header("idempotency-key", key)
}

#[track_caller]
fn assert_answered(reply: &Reply, by: &str) {
    assert_eq!((reply.status(), reply.header("x-outlast-tool")), (200, Some(by)), "{}", reply.text());
}

#[tokio::test]
async fn an_effects_alternative_takes_over_what_surely_did_not_happen_under_the_same_key() {
    let downstream = Downstream::start([("/a", vec![Does::Says(503, "{}")]), ("/b", vec![DONE])]).await;
    for effect in ["tx", "keyed", "once"] {
        let down = nowhere().await;
        let toml = tool("away", &down, effect, "alternatives = [\"b\"]")
            + &tool("busy", &downstream.url("/a"), effect, "alternatives = [\"b\"]")
            + &tool("b", &downstream.url("/b"), effect, "");
        let rig = rig(&toml).await;
        assert_answered(&rig.ask(keyed("away", effect)).await, "b");
        let before = downstream.seen("/b").len();
        assert_answered(&rig.ask(keyed("busy", effect)).await, "b");
        let (a, b) = (downstream.seen("/a"), downstream.seen("/b"));
        let key = |request: &common::upstream::Request| request.header("idempotency-key").unwrap().to_owned();
        assert_eq!(b.len(), before + 1);
        assert_eq!(key(a.last().unwrap()), key(b.last().unwrap()), "{effect}");
        let again = rig.ask(keyed("busy", effect)).await;
        assert_eq!((again.status(), again.header("x-outlast-replayed")), (200, Some("true")));
    }
}

#[tokio::test]
async fn an_effect_that_may_have_happened_never_goes_to_an_alternative() {
    let acts = vec![Does::Breaks, Does::Says(503, "{}")];
    let downstream = Downstream::start([("/a", acts), ("/b", vec![DONE])]).await;
    let toml = tool("a", &downstream.url("/a"), "keyed", "alternatives = [\"b\"]")
        + &tool("b", &downstream.url("/b"), "keyed", "");
    let rig = rig(&toml).await;
    let reply = rig.ask(keyed("a", "k")).await;
    assert_eq!((reply.status(), reply.json()["parked"].clone()), (202, json!("unknown_effect")), "{}", reply.text());
    assert_eq!((downstream.seen("/a").len(), downstream.seen("/b").len()), (3, 0));
}

#[tokio::test]
async fn what_changes_nothing_is_asked_of_the_next_at_once_and_a_refusal_is_an_answer() {
    let acts = vec![Does::Hangs, Does::Garbage, Does::Says(500, "{}"), Does::Says(404, r#"{"error": "no order"}"#)];
    let downstream = Downstream::start([("/a", acts), ("/b", vec![DONE])]).await;
    let toml = tool("a", &downstream.url("/a"), "pure", "timeout = \"200ms\"\nalternatives = [\"b\"]")
        + &tool("b", &downstream.url("/b"), "pure", "");
    let rig = rig(&toml).await;
    for key in ["hangs", "garbage", "broken"] {
        let reply = rig.ask(keyed("a", key)).await;
        assert_answered(&reply, "b");
        assert_eq!(reply.header("x-outlast-attempts"), Some("1"), "{key}: both within one attempt");
    }
    let refused = rig.ask(ask("a", &json!({ "order": "o-1" }))).await;
    assert_eq!(refused.status(), 502, "{}", refused.text());
    assert_eq!(refused.json()["error"]["tool_error"]["code"], "http_404");
    assert_eq!(refused.json()["error"]["tool_error"]["said"], json!({ "error": "no order" }));
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    assert_eq!((downstream.seen("/a").len(), downstream.seen("/b").len()), (4, 3));
}

#[tokio::test]
async fn a_tool_that_keeps_failing_is_not_asked_for_a_while_and_what_is_known_is_still_told() {
    let well = vec![DONE, Does::Says(503, "{}")];
    let downstream = Downstream::start([("/a", well), ("/b", vec![DONE]), ("/c", vec![Does::Says(500, "{}")])]).await;
    let once = "retry = { attempts = 1, exhausted = \"fail\" }";
    let toml = tool("a", &downstream.url("/a"), "tx", once)
        + &tool("c", &downstream.url("/c"), "pure", &format!("alternatives = [\"b\"]\n{once}"))
        + &tool("b", &downstream.url("/b"), "pure", "");
    let rig = rig(&toml).await;
    assert_answered(&rig.ask(keyed("a", "done")).await, "a");
    for n in 0..5 {
        assert_eq!(rig.ask(keyed("a", &format!("k{n}"))).await.status(), 502);
    }
    let resting = rig.ask(keyed("a", "later").header("x-outlast-deadline-ms", "100")).await;
    assert_eq!((resting.status(), resting.header("x-should-retry")), (503, Some("true")), "{}", resting.text());
    assert_eq!(resting.json()["error"]["tool_error"]["code"], "breaker_open");
    assert!(resting.header("retry-after").is_some());
    assert_eq!(rig.ask(keyed("a", "done")).await.header("x-outlast-replayed"), Some("true"));
    assert_eq!(downstream.seen("/a").len(), 6, "nothing was sent while it rested");
    assert!(rig.metrics().contains(r#"outlast_tool_breaker{tool="a",state="open"} 1"#), "{}", rig.metrics());

    for _ in 0..8 {
        assert_answered(&rig.ask(ask("c", &json!({}))).await, "b");
    }
    assert_eq!((downstream.seen("/c").len(), downstream.seen("/b").len()), (5, 8), "the other is asked at once");
}

#[tokio::test]
async fn arguments_are_judged_before_anything_is_written_down() {
    let downstream = Downstream::start([("/pay", vec![DONE])]).await;
    let schema = r#"input = { type = "object", required = ["amount"], properties = { amount = { type = "number" } } }"#;
    let rig = rig(&tool("pay", &downstream.url("/pay"), "once", schema)).await;
    for bad in [json!({}), json!({ "amount": "SECRET" }), json!([1])] {
        let reply = rig.ask(ask("pay", &bad).header("idempotency-key", "k")).await;
        assert_eq!((reply.status(), reply.json()["error"]["code"].clone()), (400, json!("bad_request")));
        assert!(reply.text().contains("schema") && !reply.text().contains("SECRET"), "{}", reply.text());
    }
    let unread = rig.ask(Ask::post("/v1/tools/pay", "{").header("idempotency-key", "k")).await;
    assert_eq!(unread.status(), 400);
    assert_eq!(downstream.seen("/pay").len(), 0);
    let good = rig.ask(ask("pay", &json!({ "amount": 5 })).header("idempotency-key", "k")).await;
    assert_answered(&good, "pay");
}

#[tokio::test]
async fn an_effect_with_a_bad_result_goes_to_a_person_and_is_not_done_again() {
    let bad = Does::Says(200, r#"{"id": 7}"#);
    let acts = vec![bad.clone(), Does::Says(200, r#"{"id": "re_1"}"#)];
    let downstream = Downstream::start([("/pay", acts.clone()), ("/find", acts)]).await;
    let schema = r#"output = { type = "object", required = ["id"], properties = { id = { type = "string" } } }"#;
    let toml =
        tool("pay", &downstream.url("/pay"), "keyed", schema) + &tool("find", &downstream.url("/find"), "pure", schema);
    let rig = rig(&toml).await;
    for _ in 0..2 {
        let reply = rig.ask(keyed("pay", "k")).await;
        assert_eq!((reply.status(), reply.json()["parked"].clone()), (202, json!("unknown_effect")));
    }
    assert_eq!(downstream.seen("/pay").len(), 1);
    let found = rig.ask(keyed("find", "k")).await;
    assert_eq!((found.status(), found.json()), (200, json!({ "id": "re_1" })), "what changes nothing is asked again");
}

#[tokio::test]
async fn a_tool_mode_lets_through_what_it_allows_and_nothing_else() {
    let downstream = Downstream::start([("/a", vec![DONE])]).await;
    let toml = tool("find", &downstream.url("/a"), "pure", "") + &tool("pay", &downstream.url("/a"), "once", "");
    let rig = rig(&toml).await;
    for (mode, find, pay) in
        [("full", 200, 200), ("read-only", 200, 403), ("plan-only", 403, 403), ("none", 403, 403), ("odd", 400, 400)]
    {
        for (tool, expected) in [("find", find), ("pay", pay)] {
            let reply = rig.ask(keyed(tool, mode).header("x-outlast-tool-mode", mode)).await;
            assert_eq!(reply.status(), expected, "{tool} in {mode}: {}", reply.text());
        }
    }
    assert_eq!(downstream.seen("/a").len(), 3);
}

#[tokio::test]
async fn an_effect_needs_a_name_and_a_pure_call_needs_none() {
    let downstream = Downstream::start([("/a", vec![DONE])]).await;
    let toml = tool("find", &downstream.url("/a"), "pure", "method = \"GET\"")
        + &tool("pay", &downstream.url("/a"), "keyed", "");
    let rig = rig(&toml).await;
    let nameless = rig.ask(ask("pay", &json!({}))).await;
    assert_eq!(nameless.status(), 400, "{}", nameless.text());
    assert!(nameless.text().contains("Idempotency-Key"));
    assert_eq!(rig.ask(ask("find", &json!({ "name": "Ann & Co" }))).await.status(), 200);
    assert!(downstream.seen("/a")[0].head.starts_with("GET /a?name=Ann%20%26%20Co HTTP"));
    assert_eq!(rig.ask(ask("nothing", &json!({}))).await.status(), 404);
    let listed = rig.ask(Ask::get("/v1/tools")).await.json();
    let names: Vec<&Value> = listed["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
    assert_eq!(names, ["find", "pay"]);
    assert_eq!((&listed["tools"][0]["read_only"], &listed["tools"][1]["class"]), (&json!(true), &json!("keyed")));
    assert_eq!(rig.ask(Ask::get("/v1/tools/pay")).await.json()["kind"], "http");
    assert_eq!(rig.ask(Ask::get("/v1/tools/pay").method("DELETE")).await.status(), 405);
}

#[tokio::test]
async fn a_person_is_asked_first_where_the_policy_says_so() {
    let downstream = Downstream::start([("/pay", vec![DONE])]).await;
    let rig =
        rig(&tool("pay", &downstream.url("/pay"), "once", "approval = { when = \"arguments.amount > 100\" }")).await;
    let pay = |amount: Value, key: &str| ask("pay", &amount).header("idempotency-key", key);
    let amount = |amount: u32| json!({ "amount": amount });
    assert_answered(&rig.ask(pay(amount(50), "small")).await, "pay");
    // What cannot be told is the person's to say.
    for (arguments, key) in [(amount(200), "large"), (json!({}), "odd")] {
        let asked = rig.ask(pay(arguments.clone(), key)).await;
        assert_eq!((asked.status(), asked.json()["parked"].clone()), (202, json!(EscalationKind::Approval.name())));
        let again = rig.ask(pay(arguments, key)).await;
        assert_eq!(again.json()["escalation"], asked.json()["escalation"], "it is asked once");
    }
    let changed = rig.ask(pay(amount(300), "large")).await;
    assert_eq!(changed.status(), 422, "what was asked is what is decided about");
    assert_eq!(downstream.seen("/pay").len(), 1);
}

#[tokio::test]
async fn a_runs_call_is_a_step_of_its_journal_and_its_business_key_holds_for_every_run() {
    let downstream = Downstream::start([("/pay", vec![DONE]), ("/find", vec![DONE])]).await;
    let toml = tool("pay", &downstream.url("/pay"), "once", "") + &tool("find", &downstream.url("/find"), "pure", "");
    let rig = rig(&toml).await;
    let step =
        |run: &str, step: &str| ask("pay", &json!({})).header("x-outlast-run", run).header("x-outlast-step", step);
    assert_answered(&rig.ask(step("r1", "refund")).await, "pay");
    assert_eq!(rig.ask(step("r1", "refund")).await.header("x-outlast-replayed"), Some("true"));
    assert_answered(&rig.ask(step("r2", "refund")).await, "pay");
    assert_eq!(downstream.seen("/pay").len(), 2, "a step's key is its run's own");
    let by_order = |run: &str| ask("pay", &json!({})).header("x-outlast-run", run).header("idempotency-key", "o-1");
    assert_answered(&rig.ask(by_order("r1")).await, "pay");
    let other = rig.ask(by_order("r2")).await;
    assert_eq!((other.status(), other.header("x-outlast-replayed")), (200, Some("true")), "{}", other.text());
    assert_eq!(downstream.seen("/pay").len(), 3);
    let fenced = rig.ask(step("r1", "more").header("x-outlast-epoch", "99")).await;
    assert_eq!((fenced.status(), fenced.json()["error"]["code"].clone()), (410, json!("lease_lost")));
    assert_eq!(rig.ask(step("a/b", "x")).await.status(), 400);
    // What changes nothing and is not named is asked anew each time.
    for _ in 0..2 {
        assert_eq!(rig.ask(ask("find", &json!({})).header("x-outlast-run", "r1")).await.status(), 200);
    }
    assert_eq!(downstream.seen("/find").len(), 2);
    until("it to be counted", || rig.metrics().contains(r#"outlast_tool_calls_total{tool="pay",result="done"} 3"#))
        .await;
}
