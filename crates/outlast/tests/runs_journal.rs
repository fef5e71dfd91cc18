//! `x-outlast-run`: a program that is run again from the top goes on where it died, and pays for nothing twice.

mod common;

use common::{
    Ask, Reply, Rig, Server, Step, Upstream,
    faulty_store::FaultyStore,
    guarded, plan,
    rig::{env, fake, provider},
    until, until_some,
    upstream::{STREAM_HEAD, chunk, completion, finish, json_reply, say},
};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Notify;

const DIALECTS: [&str; 2] = ["openai", "anthropic"];

fn step(dialect: &str, text: &str, run: &str) -> Ask {
    Ask::either(dialect, "main", text).header("x-outlast-run", run)
}

fn one(url: &str) -> String {
    provider("a", "openai-compatible", url, "") + "[routes.main]\ntargets = [\"a/m\"]\n"
}

fn is_replay(reply: &Reply) -> bool {
    reply.header("x-outlast-replayed") == Some("true")
}

#[tokio::test]
async fn the_same_program_run_twice_asks_no_model_twice() {
    let a = fake("alpha").await;
    let rig = Rig::start(&one(&a.url())).await;
    for dialect in DIALECTS {
        for streamed in [false, true] {
            let run = format!("nightly:{dialect}.{streamed}");
            let program = async || {
                let mut replies = Vec::new();
                for question in ["plan it", "do it", "sum it up"] {
                    let ask = step(dialect, question, &run).with("stream", json!(streamed));
                    let reply = rig.ask(ask).await;
                    reply.assert_answered();
                    replies.push(reply);
                }
                replies
            };
            let before = a.log().len();
            let first = program().await;
            assert_eq!(a.log().len() - before, 3);
            assert!(first.iter().all(|reply| !is_replay(reply)));
            let second = program().await;
            assert_eq!(a.log().len() - before, 3, "the second time is free");
            for (again, first) in second.iter().zip(&first) {
                assert!(is_replay(again), "{:?}", again.head);
                assert_eq!(again.header("x-outlast-cost-usd"), Some("0.000000000"));
                assert!(again.header("x-outlast-step-key").is_some_and(|key| key.starts_with("llm/")));
                assert_eq!((again.said(), again.request_id()), (first.said(), first.request_id()));
            }
        }
    }
    let metrics = rig.metrics();
    assert!(metrics.contains(r#"outlast_journal_calls_total{result="replayed"} 12"#), "{metrics}");
    let record = rig.record(rig.ask(step("openai", "new", "other")).await.request_id()).await;
    assert_eq!(record.run.as_ref().map(|run| run.as_str()), Some("other"), "its lineage names the run");
}

#[tokio::test]
async fn another_run_another_caller_and_another_occurrence_are_asked_anew() {
    let a = fake("alpha").await;
    let keys = "[server]\nkeys = [\"${CALLER_ONE}\", \"${CALLER_TWO}\"]\n";
    let rig = Rig::start(&(one(&a.url()) + keys)).await;
    let ask = |caller: &str, run: &str| step("openai", "toss a coin", run).bearer(&env(caller).unwrap());
    rig.ask(ask("CALLER_ONE", "r")).await.assert_answered();
    for new in [
        ask("CALLER_TWO", "r"),
        ask("CALLER_ONE", "r2"),
        ask("CALLER_ONE", "r").header("x-outlast-occurrence", "2"),
        ask("CALLER_ONE", "r").header("x-outlast-step", "coin"),
    ] {
        assert!(!is_replay(&rig.ask(new).await));
    }
    assert!(is_replay(&rig.ask(ask("CALLER_ONE", "r").header("x-outlast-occurrence", "2")).await));
    assert_eq!(a.log().len(), 5);
}

#[tokio::test]
async fn a_named_step_asked_in_other_words_is_replayed_and_marked_or_refused_where_that_is_asked_for() {
    let a = fake("alpha").await;
    let rig = Rig::start(&one(&a.url())).await;
    let named = |text: &str| step("openai", text, "r").header("x-outlast-step", "draft");
    let first = rig.ask(named("write it")).await;
    let other = rig.ask(named("write it, please")).await;
    assert!(is_replay(&other));
    assert_eq!((other.header("x-outlast-diverged"), other.said()), (Some("true"), first.said()));
    assert_eq!(rig.ask(named("write it")).await.header("x-outlast-diverged"), None);
    let strict = rig.ask(named("write something else").header("x-outlast-strict", "true")).await;
    assert_eq!(strict.status(), 422, "{}", strict.text());
    assert_eq!(a.log().len(), 1);
}

#[tokio::test]
async fn an_outage_is_not_written_down_and_what_would_fail_again_is() {
    let a = fake("alpha").await;
    let rig = Rig::start(&one(&a.url())).await;
    for dialect in DIALECTS {
        a.set_fault("*", plan("500")).unwrap();
        assert!(rig.ask(step(dialect, "hello", dialect)).await.status() >= 500);
        a.heal().unwrap();
        let served = rig.ask(step(dialect, "hello", dialect)).await;
        served.assert_answered();
        assert!(!is_replay(&served));
        a.set_fault("*", plan("content-filter")).unwrap();
        let first = rig.ask(step(dialect, "blocked", dialect)).await;
        assert_eq!(first.status(), 400, "{}", first.text());
        a.heal().unwrap();
        let again = rig.ask(step(dialect, "blocked", dialect)).await;
        assert_eq!((is_replay(&again), again.status(), &again.body), (true, 400, &first.body));
    }
}

#[tokio::test]
async fn while_a_step_is_being_answered_its_twin_is_told_to_come_back() {
    let go = Arc::new(Notify::new());
    let slow = {
        let go = go.clone();
        Upstream::start(move |_| vec![Step::Await(go.clone()), Step::Send(json_reply(&completion("done")))]).await
    };
    let rig = Rig::start(&one(&slow.url())).await;
    let address = rig.address();
    let first = tokio::spawn(async move { step("openai", "hello", "r").send(address).await });
    until("the first to be asked", || slow.seen().len() == 1).await;
    let twin = rig.ask(step("openai", "hello", "r")).await;
    assert_eq!((twin.status(), twin.header("x-should-retry")), (409, Some("true")), "{}", twin.text());
    assert!(twin.header("retry-after").is_some());
    go.notify_one();
    guarded("the first answer", first).await.unwrap().assert_answered();
    assert!(is_replay(&rig.ask(step("openai", "hello", "r")).await));
    assert_eq!(slow.seen().len(), 1);
}

/// A frame of a tool call, whole.
fn call(id: &str) -> String {
    let function = json!({ "name": "refund", "arguments": "{\"order\":1}" });
    let delta = json!({ "tool_calls": [{ "index": 0, "id": id, "type": "function", "function": function }] });
    let value = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{ "index": 0, "delta": delta, "finish_reason": null }],
    });
    chunk(&format!("data: {value}\n\n"))
}

fn with_tools(ask: Ask) -> Ask {
    let function = json!({ "name": "refund", "parameters": { "type": "object" } });
    ask.streamed().with("tools", json!([{ "type": "function", "function": function }]))
}

#[tokio::test]
async fn an_agent_sees_the_text_at_once_and_the_tool_calls_only_once_they_are_written_down() {
    for store_fails in [false, true] {
        let go = Arc::new(Notify::new());
        let model = {
            let go = go.clone();
            Upstream::start(move |_| {
                let head = [STREAM_HEAD, &say("let me see")].concat();
                let rest = [call("call_7"), say("that is all"), finish()].concat();
                vec![Step::Send(head.into_bytes()), Step::Await(go.clone()), Step::Send(rest.into_bytes())]
            })
            .await
        };
        let store = Arc::new(FaultyStore::default());
        let rig = Rig::start_on(&one(&model.url()), store.clone()).await;
        let ask = with_tools(step("openai", "refund it", "r"));
        let (_, mut conn) = ask.open(rig.address()).await;
        let begun = String::from_utf8(conn.piece().await.unwrap()).unwrap();
        assert!(begun.contains("let me see"), "text flows: {begun}");
        if store_fails {
            store.break_down();
        }
        go.notify_one();
        let mut rest = String::new();
        while let Ok(piece) = conn.piece().await {
            rest += &String::from_utf8(piece).unwrap();
        }
        assert_eq!(rest.contains("call_7"), !store_fails, "{rest}");
        assert_eq!(rest.contains("[DONE]"), !store_fails, "{rest}");
        if !store_fails {
            let again = rig.ask(ask).await;
            assert!(is_replay(&again) && again.text().contains("call_7"), "the same id ever after: {}", again.text());
        }
    }
}

#[tokio::test]
async fn an_answer_that_was_written_down_survives_a_kill_before_the_agent_saw_it() {
    let model = Upstream::answering(completion("done")).await;
    let config = one(&model.url()) + "[store]\nfile = \"store.db\"\ndata_key = \"${DATA_KEY}\"\n";
    let dying = Server::start_failing(tempfile::tempdir().unwrap(), &config, "journal.reply:1").await;
    let ask = step("openai", "hello", "r");
    assert!(ask.try_send(dying.address).await.is_none(), "it dies before it can say so");
    let server = dying.died_and_restart(&config).await;
    let again = ask.send(server.address).await;
    again.assert_answered();
    assert!(is_replay(&again));
    assert_eq!(model.seen().len(), 1, "and the model is not paid for twice");
    let file = std::fs::read(server.folder.path().join("store.db")).unwrap();
    let log = std::fs::read(server.folder.path().join("store.db-wal")).unwrap_or_default();
    assert!(![file, log].concat().windows(6).any(|six| six == b"\"done\""), "the answer is sealed");
}

#[tokio::test]
async fn a_call_whose_process_was_killed_is_asked_again_once_its_lease_is_over() {
    let model = Upstream::start(|request| match request.header("x-hang") {
        _ if request.json()["messages"][0]["content"] == "stuck" => vec![Step::Hang],
        _ => vec![Step::Send(json_reply(&completion("done")))],
    })
    .await;
    let config = one(&model.url()) + "[store]\nfile = \"store.db\"\nplaintext_payloads = true\n";
    let server = Server::start(&config).await;
    let (address, stuck) = (server.address, step("openai", "stuck", "r").header("x-outlast-step", "s"));
    let first = tokio::spawn(async move { stuck.try_send(address).await });
    until("it to be asked", || model.seen().len() == 1).await;
    let server = server.kill_and_restart(&config).await;
    assert!(guarded("the client to be cut off", first).await.unwrap().is_none());
    let ask = step("openai", "go on", "r").header("x-outlast-step", "s");
    let served = until_some("the lease to run out", async || {
        Some(ask.send(server.address).await).filter(|reply| reply.status() != 409)
    })
    .await;
    served.assert_answered();
    assert!(!is_replay(&served), "nothing had been written down");
}

#[tokio::test]
async fn a_promise_of_a_later_answer_is_no_result_of_a_step() {
    let a = fake("alpha").await;
    let store = "[store]\nfile = \"store.db\"\nplaintext_payloads = true\n";
    let routes = "[routes.main]\ntargets = [\"a/m\"]\nbackstops = [\"apology\"]\n[backstops.apology]\nkind = \"escalate\"\nquestion = \"Who knows?\"\n";
    let rig = Rig::start(&(provider("a", "openai-compatible", &a.url(), "") + routes + store)).await;
    a.set_fault("*", plan("503")).unwrap();
    let promised = rig.ask(step("openai", "hello", "r")).await;
    assert_eq!(promised.status(), 202, "{}", promised.text());
    a.heal().unwrap();
    let served = until_some("the target to serve again", async || {
        Some(rig.ask(step("openai", "hello", "r")).await).filter(|reply| reply.status() == 200)
    })
    .await;
    assert!(!is_replay(&served), "the agent gets an answer, not the promise of one");
}

#[tokio::test]
async fn what_cannot_name_a_run_or_a_step_is_refused_before_anybody_is_asked() {
    let a = fake("alpha").await;
    let rig = Rig::start(&one(&a.url())).await;
    let long = "s".repeat(300);
    for (header, value) in [
        ("x-outlast-run", "a/b"),
        ("x-outlast-run", ""),
        ("x-outlast-epoch", "x"),
        ("x-outlast-occurrence", "0"),
        ("x-outlast-step", long.as_str()),
    ] {
        let ask = Ask::chat("main", "hello");
        let ask = if header == "x-outlast-run" { ask } else { ask.header("x-outlast-run", "r") };
        let refused = rig.ask(ask.header(header, value)).await;
        assert_eq!(refused.status(), 400, "{header}: {value:?}: {}", refused.text());
        let error: Value = refused.json();
        assert!(error["error"]["message"].as_str().unwrap().contains(header), "{error}");
    }
    let foreign = rig.ask(step("openai", "hello", "r").header("x-outlast-epoch", "7")).await;
    assert_eq!(foreign.status(), 404, "a claim of a run that was never started: {}", foreign.text());
    assert_eq!(a.log().len(), 0);
}
