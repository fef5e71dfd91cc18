//! Workflows that the server runs by itself: steps in order, branches, loops, retries, people, signals and timers.

mod common;

use common::{
    desk::{Deal, Desk, QUICK, Shop, workflow},
    model, rig, says, until,
};
use outlast_model::run::{EscalationKind, LedgerState, RunState, Verb};
use serde_json::{Value, json};

/// The shop's tools, each of which answers with what it was given.
async fn echo() -> Shop {
    Shop::open(|tool, arguments, nth| Deal::Answers(json!({ "tool": tool, "given": arguments, "nth": nth }))).await
}

#[tokio::test]
async fn steps_are_done_in_order_each_with_what_came_before() {
    let shop = echo().await;
    let model = model(|body| {
        let asked = body["messages"][1]["content"].as_str().unwrap_or_default().to_owned();
        says(&format!("You said: {asked}"))
    })
    .await;
    let toml = rig::provider("a", "openai-compatible", &model.url(), "")
        + "[routes.main]\ntargets = [\"a/m\"]\n"
        + &shop.tool("look", "pure", "")
        + &shop.tool("pay", "keyed", "")
        + &workflow(
            "order",
            "output = { paid = \"{{ steps.pay.given.amount }}\", said = \"{{ steps.ask }}\", run = \"{{ run.workflow }}\" }",
            &[
                "name = \"look\"\nkind = \"tool\"\ntool = \"look\"\ninput = { id = \"{{ input.id }}\", n = 3 }",
                "name = \"ask\"\nkind = \"model\"\nroute = \"main\"\n\
                 messages = [{ role = \"system\", content = \"Be brief.\" }, { role = \"user\", content = \"{{ steps.look.given.id }}\" }]",
                "name = \"pay\"\nkind = \"tool\"\ntool = \"pay\"\ninput = { amount = \"{{ steps.look.given.n * 2 }}\", note = \"{{ steps.ask }}\" }",
            ],
        );
    let desk = Desk::open(&toml).await;
    let run = desk.start("order", json!({ "id": "o-1" })).await;
    assert_eq!(desk.done(&run).await, json!({ "paid": 6, "said": "You said: o-1", "run": "order" }));
    assert_eq!(shop.called(), ["look", "pay"]);
    assert_eq!(shop.calls("pay"), [json!({ "amount": 6, "note": "You said: o-1" })]);
    assert!(shop.keys("pay")[0].starts_with("ol-"));
    let done = |key: &str| (key.to_owned(), LedgerState::Done);
    assert_eq!(desk.steps(&run).await, [done("look"), done("ask"), done("pay")]);
    let record = desk.rig.latest_of(1).await;
    assert_eq!((record.run.as_ref(), record.workflow_step.as_deref()), (Some(&run.id), Some("ask")));
}

#[tokio::test]
async fn a_condition_skips_a_step_and_a_branch_leads_elsewhere() {
    let shop = echo().await;
    let toml = shop.tool("small", "pure", "")
        + &shop.tool("big", "pure", "")
        + &shop.tool("extra", "pure", "")
        + &workflow(
            "sort",
            "",
            &[
                "name = \"extra\"\nkind = \"tool\"\ntool = \"extra\"\nwhen = \"input.extra\"\n\
                 next = [{ when = \"input.n > 10\", to = \"big\" }, { to = \"small\" }]",
                "name = \"small\"\nkind = \"tool\"\ntool = \"small\"\nnext = [{ to = \"end\" }]",
                "name = \"big\"\nkind = \"tool\"\ntool = \"big\"\nnext = [{ when = \"input.n > 100\", to = \"fail\" }]",
            ],
        );
    let desk = Desk::open(&toml).await;
    for (input, called) in [
        (json!({ "extra": true, "n": 1 }), vec!["extra", "small"]),
        (json!({ "extra": true, "n": 11 }), vec!["extra", "big"]),
        (json!({ "extra": false, "n": 11 }), vec!["small"]),
    ] {
        let before = shop.called().len();
        let run = desk.start("sort", input.clone()).await;
        let output = desk.done(&run).await;
        assert_eq!(shop.called()[before..], called, "{input}");
        assert_eq!(output["tool"], json!(called.last()), "the result of the last step is the run's");
    }
    let run = desk.start("sort", json!({ "extra": true, "n": 101 })).await;
    let (state, error) = desk.end(&run).await;
    assert_eq!((state, &error["code"], &error["step"]), (RunState::Failed, &json!("failed"), &json!("big")));
}

#[tokio::test]
async fn a_loop_goes_round_under_new_keys_and_not_for_ever() {
    let shop = echo().await;
    let step = "name = \"look\"\nkind = \"tool\"\ntool = \"look\"\nmax_visits = 4\n\
                next = [{ when = \"steps.look.nth < input.until\", to = \"look\" }]";
    let toml = shop.tool("look", "pure", "") + &workflow("poll", "", &[step]);
    let desk = Desk::open(&toml).await;
    let run = desk.start("poll", json!({ "until": 2 })).await;
    assert_eq!(desk.done(&run).await["nth"], json!(2));
    let keys: Vec<String> = desk.steps(&run).await.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["look", "look#2", "look#3"]);
    let run = desk.start("poll", json!({ "until": 100 })).await;
    let (state, error) = desk.end(&run).await;
    assert_eq!((state, &error["code"]), (RunState::Failed, &json!("max_visits")));
    assert_eq!(shop.called().len(), 3 + 4);
}

#[tokio::test]
async fn a_step_is_retried_then_a_person_decides_and_the_run_goes_on() {
    let shop = Shop::open(|_, _, _| Deal::Refuses(503)).await;
    let steps = [
        format!("name = \"look\"\nkind = \"tool\"\ntool = \"look\"\n{QUICK}"),
        format!("name = \"more\"\nkind = \"tool\"\ntool = \"more\"\n{QUICK}"),
    ];
    let toml =
        shop.tool("look", "pure", "") + &shop.tool("more", "keyed", "") + &workflow("w", "", &[&steps[0], &steps[1]]);
    let desk = Desk::open(&toml).await;
    let run = desk.start("w", json!({})).await;
    let (kind, _, _) = desk.parked(&run).await;
    assert_eq!((kind, shop.called().len()), (EscalationKind::Exhausted, 3));
    desk.decide(&run, Verb::Skip, Some(Value::Null), json!({})).await;
    assert_eq!(desk.parked(&run).await.0, EscalationKind::Exhausted, "the next step fails, too");
    desk.decide(&run, Verb::Edit, Some(json!("by hand")), json!({ "output": "by hand" })).await;
    assert_eq!(desk.done(&run).await, json!("by hand"));
}

#[tokio::test]
async fn an_approval_is_asked_for_above_a_limit_and_may_change_what_is_done() {
    let shop = echo().await;
    let toml = shop.tool("pay", "keyed", "approval = { when = \"arguments.amount > 100\" }\n")
        + &workflow(
            "pay",
            "",
            &["name = \"pay\"\nkind = \"tool\"\ntool = \"pay\"\ninput = { amount = \"{{ input.amount }}\" }"],
        );
    let desk = Desk::open(&toml).await;
    let run = desk.start("pay", json!({ "amount": 100 })).await;
    assert_eq!(desk.done(&run).await["given"], json!({ "amount": 100 }));
    let run = desk.start("pay", json!({ "amount": 101 })).await;
    assert_eq!(desk.parked(&run).await.0, EscalationKind::Approval);
    assert_eq!(shop.called().len(), 1, "nothing was sent");
    desk.decide(&run, Verb::Edit, None, json!({ "arguments": { "amount": 50 } })).await;
    assert_eq!(desk.done(&run).await["given"], json!({ "amount": 50 }));
    let run = desk.start("pay", json!({ "amount": 500 })).await;
    desk.parked(&run).await;
    desk.decide(&run, Verb::Deny, Some(json!({ "message": "Denied by anna." })), json!({})).await;
    let (state, error) = desk.end(&run).await;
    assert_eq!((state, &error["code"], shop.called().len()), (RunState::Failed, &json!("step_failed"), 2));
    assert!(error["message"].as_str().is_some_and(|why| why.contains("Denied by anna.")), "{error}");
}

#[tokio::test]
async fn a_person_is_asked_and_their_answer_is_the_steps_result() {
    let toml = workflow(
        "ask",
        "",
        &[
            "name = \"check\"\nkind = \"human\"\nquestion = \"Is {{ input.name }} right?\"\ncontext = { name = \"{{ input.name }}\" }",
        ],
    );
    let desk = Desk::open(&toml).await;
    let run = desk.start("ask", json!({ "name": "Ann" })).await;
    let (kind, question, context) = desk.parked(&run).await;
    assert_eq!((kind, question.as_str()), (EscalationKind::Human, "Is Ann right?"));
    assert_eq!(context["context"], json!({ "name": "Ann" }));
    desk.decide(&run, Verb::Approve, None, json!({})).await;
    assert_eq!(desk.done(&run).await, json!({ "name": "Ann" }));
    let run = desk.start("ask", json!({ "name": "Bob" })).await;
    desk.parked(&run).await;
    desk.decide(&run, Verb::Edit, Some(json!({ "name": "Rob" })), json!({})).await;
    assert_eq!(desk.done(&run).await, json!({ "name": "Rob" }));
}

#[tokio::test]
async fn a_wait_ends_with_a_signal_or_its_timer_and_holds_no_lease() {
    let toml =
        workflow("w", "", &["name = \"paid\"\nkind = \"wait\"\nsignals = [\"paid\", \"late\"]\ntimeout = \"60s\""])
            + &workflow("t", "", &["name = \"nap\"\nkind = \"wait\"\nfor = \"50ms\""]);
    let desk = Desk::open(&toml).await;
    let run = desk.start("w", json!({})).await;
    assert_eq!(desk.until(&run, RunState::Waiting).await.lease_until, None);
    desk.signal(&run, "other", json!(0)).await;
    assert_eq!(desk.view(&run).await.state, RunState::Waiting);
    let early = desk.start("w", json!({})).await;
    desk.signal(&run, "paid", json!({ "n": 1 })).await;
    assert_eq!(desk.done(&run).await, json!({ "signal": "paid", "payload": { "n": 1 } }));
    desk.signal(&early, "late", json!("x")).await;
    assert_eq!(desk.done(&early).await, json!({ "signal": "late", "payload": "x" }));
    let run = desk.start("t", json!({})).await;
    assert_eq!(desk.done(&run).await, json!({ "timer": true }));
}

#[tokio::test]
async fn a_text_that_cannot_be_evaluated_fails_the_run_and_says_which() {
    let shop = echo().await;
    let toml = shop.tool("look", "pure", "")
        + &workflow(
            "w",
            "",
            &["name = \"look\"\nkind = \"tool\"\ntool = \"look\"\ninput = { x = \"{{ input.missing }}\" }"],
        );
    let desk = Desk::open(&toml).await;
    let run = desk.start("w", json!({})).await;
    let (state, error) = desk.end(&run).await;
    assert_eq!((state, &error["code"], &error["step"]), (RunState::Failed, &json!("template"), &json!("look")));
    assert!(shop.called().is_empty());
}

#[tokio::test]
async fn a_run_of_another_version_is_left_alone_until_it_is_moved() {
    let shop = echo().await;
    let toml =
        shop.tool("look", "pure", "") + &workflow("w", "", &["name = \"look\"\nkind = \"tool\"\ntool = \"look\""]);
    let desk = Desk::open(&toml).await;
    let old = desk.start_as("w", "0", json!({})).await;
    let new = desk.start("w", json!({})).await;
    desk.done(&new).await;
    assert_eq!(desk.view(&old).await.state, RunState::Ready);
    let migrate = outlast_store::MigrateRun { run: old.clone(), version: "1".into(), by: "anna".into() };
    let moved = outlast_store::RunStore::migrate_run(&*desk.store, migrate).await.unwrap();
    assert_eq!(moved, outlast_store::Fenced::Held);
    desk.done(&old).await;
    until("both to have called", || shop.called().len() == 2).await;
}
