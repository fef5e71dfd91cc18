//! The `escalate` backstop: a request is handed to a person with its context, and stays until somebody decides.

mod common;

use common::{
    Ask, Reply, Rig, plan,
    rig::{env, fake, provider},
};
use outlast::fake::Fake;
use serde_json::{Value, json};

const DIALECTS: [&str; 2] = ["openai", "anthropic"];

fn config(a: &Fake, more: &str) -> String {
    provider("a", "openai-compatible", &a.url(), "")
        + "[routes.main]\ntargets = [\"a/m\"]\nbackstops = [\"person\"]\n"
        + "[backstops.person]\nkind = \"escalate\"\nquestion = \"What shall we answer to: {{ text }}\"\n"
        + "[store]\nfile = \"store.db\"\nplaintext_payloads = true\n"
        + more
}

fn told(reply: &Reply) -> Value {
    assert_eq!(reply.status(), 202, "{}", reply.text());
    assert_eq!(reply.header("x-outlast-degraded"), Some("immediacy"));
    match reply.is_stream() {
        false => reply.json()["outlast"].clone(),
        true => {
            reply.events().iter().map(|event| event.json()["outlast"].clone()).find(|told| told.is_object()).unwrap()
        }
    }
}

#[tokio::test]
async fn a_person_gets_the_question_the_request_its_state_and_its_lineage_also_after_a_restart() {
    let a = fake("alpha").await;
    let config = config(&a, "");
    let rig = Rig::start(&config).await;
    a.set_fault("*", plan("503")).unwrap();
    let mut opened = Vec::new();
    for dialect in DIALECTS {
        for streamed in [false, true] {
            let state = json!({ "state": { "step": "answer", "retry_count": 2 } });
            let ask =
                Ask::either(dialect, "main", "where is it?").with("outlast", state).with("stream", json!(streamed));
            let reply = rig.ask(ask).await;
            let escalation = &told(&reply)["escalation"];
            assert_eq!(reply.header("location"), escalation["poll_url"].as_str());
            opened.push((reply.request_id().to_owned(), escalation["poll_url"].as_str().unwrap().to_owned()));
        }
    }
    let rig = rig.restart(&config).await;
    for (request_id, url) in &opened {
        let shown = rig.ask(Ask::get(url)).await.json();
        assert_eq!(shown["question"], "What shall we answer to: where is it?", "{shown}");
        assert_eq!((&shown["state"], &shown["request_id"]), (&json!("open"), &json!(request_id)));
        assert_eq!((&shown["route"], &shown["failure"]), (&json!("main"), &json!("overloaded")), "{shown}");
        assert_eq!(shown["context"]["request"]["messages"][0]["role"], "user");
        assert_eq!(shown["context"]["state"], json!({ "step": "answer", "retry_count": 2 }));
    }
    let first = rig.ask(Ask::get("/v1/escalations?open=true&limit=3")).await.json();
    let page = |list: &Value| list["escalations"].as_array().unwrap().len();
    assert_eq!(page(&first), 3);
    let after = first["next"].as_str().expect("there is more");
    let rest = rig.ask(Ask::get(&format!("/v1/escalations?limit=3&after={after}"))).await.json();
    assert_eq!((page(&rest), &rest["next"]), (1, &Value::Null));
    assert_eq!(rig.ask(Ask::get("/v1/escalations?limit=0")).await.status(), 400);
}

#[tokio::test]
async fn an_escalation_is_shown_to_its_caller_and_to_the_operator_only() {
    let a = fake("alpha").await;
    let keys = "[server]\nkeys = [\"${CALLER_ONE}\", \"${CALLER_TWO}\"]\nadmin_token = \"${ADMIN_TOKEN}\"\n";
    let rig = Rig::start(&config(&a, keys)).await;
    a.set_fault("*", plan("503")).unwrap();
    let key = |name| env(name).unwrap();
    let reply = rig.ask(Ask::chat("main", "hello").bearer(&key("CALLER_ONE"))).await;
    let url = told(&reply)["escalation"]["poll_url"].as_str().unwrap().to_owned();
    let show = |name| Ask::get(&url).bearer(&key(name));
    let mine = rig.ask(show("CALLER_ONE")).await;
    assert_eq!(mine.status(), 200, "{}", mine.text());
    assert!(mine.json().get("context").is_none() && mine.json().get("tenant").is_none(), "{}", mine.text());
    assert_eq!(rig.ask(show("CALLER_TWO")).await.status(), 404);
    assert_eq!(rig.ask(Ask::get(&url)).await.status(), 401);
    let whole = rig.ask(show("ADMIN_TOKEN")).await.json();
    assert_eq!(whole["context"]["request"]["model"], "main", "{whole}");
    let list = Ask::get("/v1/escalations");
    assert_eq!(rig.ask(list.clone().bearer(&key("CALLER_ONE"))).await.status(), 401);
    let listed = rig.ask(list.bearer(&key("ADMIN_TOKEN"))).await.json();
    assert_eq!(listed["escalations"].as_array().unwrap().len(), 1);
    assert_eq!(rig.ask(Ask::get("/v1/escalations/esc_made_up").bearer(&key("ADMIN_TOKEN"))).await.status(), 404);
}
