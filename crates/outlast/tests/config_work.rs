//! What the config makes of tools, workflows and people, and how it is drawn.

use anstream::adapter::strip_str;
use outlast::{
    cli::explain::{ToolExplanation, WorkflowExplanation},
    config::{Config, ConfigErrors, KeyHash, McpTransport, NotifyKind, Reload, SmtpTls, StepTexts, Unanswered},
};
use outlast_model::{
    policy::{ApprovalPolicy, Goto, HttpMethod, StepSpec, ToolKind, VerifyBy},
    run::{EffectClass, Exhausted},
};
use outlast_wire::template::Facts;
use serde_json::json;
use std::{path::Path, time::Duration};

fn env(name: &str) -> Option<String> {
    let value = match name {
        "OUTLAST_DATA_KEY" => "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        "PROVIDER_URL" => "http://127.0.0.1:9100/v1",
        "REFUND_DOWNSTREAM" => "http://127.0.0.1:9200",
        "REVIEWER_KEY" => "reviewer-0123456789abcdef",
        "BERTA_KEY" => "berta-0123456789abcdef",
        "PAY_TOKEN" | "ANNA_KEY" | "SMTP_PASSWORD" => "token-0123456789abcdef",
        "SLACK_WEBHOOK" => "https://hooks.slack.example.com/T1/B1",
        "SHOP_TOKEN" => "shop-token-0123456789",
        "SLACK" => "https://hooks.slack.example.com/T0/B0",
        "SECRET" => "secret-0123456789abcdef",
        "SMTP" => "smtps://me@example.com:p@ss:word@smtp.example.com",
        _ => return None,
    };
    Some(value.to_owned())
}

fn load(text: &str) -> Result<Config, ConfigErrors> {
    Config::from_text(text, "outlast.toml", Path::new("/etc/outlast"), &env)
}

fn good(text: &str) -> Config {
    load(text).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A config that has what every workflow needs, and this.
fn with(text: &str) -> String {
    format!(
        r#"
        [providers.models]
        kind = "openai-compatible"
        base_url = "http://127.0.0.1:9100/v1"
        [targets."models/m"]
        price = {{ input = 1.0, output = 4.0 }}
        [routes.talk]
        targets = ["models/m"]
        [store]
        file = "store.db"
        data_key = "${{OUTLAST_DATA_KEY}}"
        [reviewers.anna]
        key = "${{REVIEWER_KEY}}"
        email = "anna@example.com"
        {text}
        "#
    )
}

fn refund() -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let text = std::fs::read_to_string(path.join("refund.toml")).unwrap();
    Config::from_text(&text, "refund.toml", &path, &env).unwrap_or_else(|errors| panic!("{errors}"))
}

/// `UPDATE=1` writes what is printed today; read the difference before committing it.
fn is_printed(name: &str, printed: &str) {
    let snapshot = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/printed/{name}.txt"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&snapshot, printed).unwrap();
    }
    assert_eq!(printed, std::fs::read_to_string(&snapshot).unwrap_or_default(), "{name}");
}

#[test]
fn explain_draws_the_refund_and_says_what_its_tools_promise() {
    let config = refund();
    let drawn = WorkflowExplanation::of(&config, "refund").unwrap();
    is_printed("workflow-refund", &strip_str(&drawn.text()).to_string());
    let json = drawn.json();
    assert_eq!(json["steps"][1]["next"][0], json!({ "to": "end", "when": "if not steps.decide.refund" }));
    assert_eq!(json["undone"][0]["step"], "mail", "effects are undone in reverse");
    for name in ["lookup_order", "reverse_charge", "send_email"] {
        let told = ToolExplanation::of(&config, name).unwrap();
        is_printed(&format!("tool-{name}"), &told.text());
        assert_eq!(told.json()["workflows"], json!(["refund"]));
    }
    assert!(WorkflowExplanation::of(&config, "refunds").is_none() && ToolExplanation::of(&config, "refund").is_none());
}

#[test]
fn tools_arrive_with_their_defaults_around_them() {
    let config = good(&with(
        r#"
        [mcp.git]
        command = ["npx", "server-github"]
        env = { GITHUB_TOKEN = "${SHOP_TOKEN}" }
        [mcp.far]
        url = "https://mcp.example.com/mcp"
        headers = { authorization = "Bearer ${SHOP_TOKEN}" }
        [tools.find]
        kind = "http"
        url = "https://shop.example.com/find?token=${SHOP_TOKEN}"
        method = "GET"
        effect = "pure"
        [tools.pay]
        kind = "http"
        url = "https://shop.example.com/pay"
        headers = { authorization = "Bearer ${SHOP_TOKEN}" }
        key_header = "X-Request-Id"
        effect = "verify"
        quiet_period = "1m"
        verify = { tool = "find", input = { id = "{{ key }}" }, done = "response.found", result = "response.payment" }
        alternatives = ["pay_elsewhere"]
        retry = { attempts = 2, exhausted = "fail" }
        [tools.pay_elsewhere]
        kind = "worker"
        queue = "payments"
        effect = "verify"
        verify = { url = "https://shop.example.com/found", done = "response" }
        [tools.issue]
        kind = "mcp"
        server = "git"
        effect = "once"
        approval = "always"
        [tools.search]
        kind = "mcp"
        server = "far"
        tool = "search_code"
        effect = "pure"
        "#,
    ));
    let pay = config.tool("pay").unwrap();
    let key_header = "x-request-id".into();
    assert_eq!(pay.spec.kind, ToolKind::Http { method: HttpMethod::Post, key_header });
    assert_eq!(pay.spec.class, EffectClass::Verify { quiet_period: Duration::from_secs(60) });
    assert_eq!((pay.spec.timeout, pay.spec.read_only), (Duration::from_secs(30), false));
    assert_eq!((pay.spec.retry.attempts, pay.spec.retry.exhausted), (2, Exhausted::Fail));
    assert_eq!(pay.spec.verify.as_ref().unwrap().by, VerifyBy::Tool("find".into()));
    let facts = Facts::of(&json!({ "key": "ol-1", "arguments": {}, "response": { "found": true, "payment": 7 } }));
    let hook = pay.verify.as_ref().unwrap();
    assert_eq!(hook.input.as_ref().unwrap().fill(&facts), Ok(json!({ "id": "ol-1" })));
    assert_eq!(hook.done.holds_of(&facts), Ok(true));
    assert_eq!(hook.result.as_ref().unwrap().value(&facts), Ok(json!(7)));
    let elsewhere = config.tool("pay_elsewhere").unwrap();
    assert!(elsewhere.verify.as_ref().unwrap().http.is_some());
    let find = config.tool("find").unwrap();
    assert!(find.spec.read_only && find.http.as_ref().unwrap().url.query().unwrap().contains("token"));
    let issue = config.tool("issue").unwrap();
    assert_eq!(issue.spec.approval, ApprovalPolicy::Always);
    assert_eq!(issue.spec.kind, ToolKind::Mcp { server: "git".into(), tool: "issue".into() });
    let McpTransport::Command { program, args, env } = &config.mcp["git"].transport else { panic!("a program") };
    assert_eq!((&**program, args.len(), env.len()), ("npx", 1, 1));
    let shown = format!("{config:?}");
    for secret in ["SHOP_TOKEN", "REVIEWER_KEY", "OUTLAST_DATA_KEY"] {
        assert!(!shown.contains(&self::env(secret).unwrap()), "Debug shows {secret}");
    }
    assert_eq!(config.warnings, []);
}

#[test]
fn people_and_the_ways_to_tell_them_arrive() {
    let config = good(&with(
        r#"
        [server]
        public_url = "https://outlast.example.com/"
        [reviewers.berta]
        key = "${BERTA_KEY}"
        [notify.hook]
        kind = "webhook"
        url = "https://hooks.example.com/a"
        secret = "${SECRET}"
        [notify.chat]
        kind = "slack"
        url = "${SLACK}"
        [notify.mail]
        kind = "email"
        smtp = "${SMTP}"
        from = "outlast@example.com"
        [escalations]
        answer_within = "2d"
        remind_every = "1h"
        unanswered = "deny"
        levels = [{ notify = ["hook", "chat"], reviewers = ["anna"] }, { after = "4h", notify = ["chat"] }]
        "#,
    ));
    let key = |name| KeyHash::of(&env(name).unwrap());
    assert_eq!(config.reviewer(&key("BERTA_KEY")).map(|who| &*who.name), Some("berta"));
    assert!(config.reviewer(&key("SECRET")).is_none());
    let NotifyKind::Email { smtp, to, .. } = &config.notify["mail"].kind else { panic!("a mail") };
    assert_eq!((&*smtp.host, smtp.port, smtp.tls), ("smtp.example.com", 465, SmtpTls::Implicit));
    let (user, password) = smtp.login.as_ref().unwrap();
    assert_eq!((&**user, password.expose(), to.len()), ("me@example.com", "p@ss:word", 0));
    assert_eq!(config.escalations.levels.iter().map(|level| level.after.as_secs()).collect::<Vec<_>>(), [0, 14_400]);
    assert_eq!(config.escalations.unanswered, Unanswered::Deny);
    assert_eq!(config.server.public_url.as_ref().unwrap().to_string(), "https://outlast.example.com");
    assert!(!format!("{config:?}").contains("p@ss"), "Debug shows a password");
}

#[test]
fn a_loop_ends_and_every_step_in_it_may_be_come_to_often_enough() {
    let config = good(&with(
        r#"
        [workflows.poll]
        version = "1"
        [[workflows.poll.steps]]
        name = "ask"
        kind = "model"
        route = "talk"
        messages = [{ role = "system", content = "Be brief." }, { role = "user", content = "{{ input.text }}" }]
        [[workflows.poll.steps]]
        name = "pause"
        kind = "wait"
        for = "10m"
        max_visits = 5
        next = [{ when = "'again' in steps.ask", to = "ask" }, { when = "'no' in steps.ask", to = "fail" }]
        [[workflows.poll.steps]]
        name = "person"
        kind = "human"
        question = "Is {{ steps.ask }} right?"
        context = { answer = "{{ steps.ask }}" }
        "#,
    ));
    let plan = config.workflow("poll").unwrap();
    let visits: Vec<u32> = plan.spec.steps.iter().map(|step| step.max_visits).collect();
    assert_eq!(visits, [6, 5, 1], "5 rounds, and the way in");
    let next: Vec<Goto> = plan.spec.steps[1].next.iter().map(|branch| branch.to).collect();
    assert_eq!(next, [Goto::Step(0), Goto::Fail]);
    assert_eq!(plan.spec.steps[1].spec, StepSpec::Wait { signals: vec![], timer: Some(Duration::from_secs(600)) });
    let StepTexts::Model(messages) = &plan.steps[0].texts else { panic!("a model") };
    assert_eq!(messages.iter().map(|(role, _)| *role).collect::<Vec<_>>(), ["system", "user"]);
    assert_eq!(&*plan.spec.queue(), "outlast:poll");
    assert_eq!(config.warnings, []);
}

#[test]
fn what_works_and_is_probably_not_meant_is_a_warning() {
    let text = with(
        r#"
        [targets."models/free"]
        context_window = 1000
        [routes.free]
        targets = ["models/free"]
        [tools.push]
        kind = "http"
        url = "http://shop.example.com/push"
        method = "GET"
        effect = "once"
        [workflows.w]
        version = "1"
        cost_max_usd = 1.0
        output = "{{ steps.perhaps.id }}"
        [[workflows.w.steps]]
        name = "perhaps"
        kind = "tool"
        tool = "push"
        when = "input.push"
        [[workflows.w.steps]]
        name = "same"
        kind = "tool"
        tool = "push"
        when = "input.push"
        input = { id = "{{ steps.perhaps.id }}" }
        [[workflows.w.steps]]
        name = "asks_first"
        kind = "tool"
        tool = "push"
        input = { id = "{{ steps.perhaps.id | default(none) }}", all = "{{ steps.perhaps }}" }
        [[workflows.w.steps]]
        name = "talk"
        kind = "model"
        route = "free"
        prompt = "{{ steps.same.id }}"
        "#,
    );
    let config = good(
        &text
            .replace("[reviewers.anna]", "[telemetry]")
            .replace("key = \"${REVIEWER_KEY}\"", "")
            .replace("email = \"anna@example.com\"", ""),
    );
    let warnings: Vec<&str> = config.warnings.iter().map(|warning| &**warning).collect();
    for part in [
        "may repeat a GET",
        "clear text",
        "there is no reviewer: add [reviewers.NAME]",
        "workflows.w.output: step \"perhaps\" may have been left out",
        "workflows.w.steps[3].prompt: step \"same\" may have been left out",
        "the price of models/free is unknown",
    ] {
        assert!(warnings.iter().any(|warning| warning.contains(part)), "{part}: {warnings:#?}");
    }
    assert_eq!(warnings.len(), 6, "{warnings:#?}");
}

#[test]
fn a_change_under_the_same_version_is_told_and_a_comment_is_no_change() {
    let workflow = |version: &str, prompt: &str, comment: &str| {
        good(&with(&format!(
            r#"
            [workflows.w]
            {comment}
            version = "{version}"
            deadline = "2d"
            [[workflows.w.steps]]
            name = "ask"
            kind = "model"
            prompt = "{prompt}"
            route = "talk"
            "#
        )))
    };
    let running = workflow("1", "Hello", "");
    let same = Reload::of(&running, workflow("1", "Hello", "# the greeting")).unwrap();
    assert!(same.changes.is_empty() && same.config.warnings.is_empty(), "{}", same.changes);
    let changed = Reload::of(&running, workflow("1", "Good day", "")).unwrap();
    assert_eq!(changed.changes.to_string(), "~1 workflow (w)");
    let told = changed.config.warnings.join("\n");
    assert!(told.contains("workflow \"w\" has changed and is still version 1"), "{told}");
    let bumped = Reload::of(&running, workflow("2", "Good day", "")).unwrap();
    assert_eq!((bumped.changes.to_string(), bumped.config.warnings.len()), ("~1 workflow (w)".to_owned(), 0));
}

/// `UPDATE=1` prints the drawing into the page.
#[test]
fn the_example_of_the_page_loads_and_is_drawn_there() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/workflow-config.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let example = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let config = good(&with(example).replace("[routes.talk]", "[routes.writer]"));
    assert_eq!(config.warnings, []);
    let drawn = WorkflowExplanation::of(&config, "leave").unwrap().text();
    let (start, end) = ("<!-- drawn from the example above -->\n", "<!-- end of the drawing -->");
    let (before, rest) = page.split_once(start).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    let printed = format!("{before}{start}\n```text\n{}```\n\n{end}{after}", strip_str(&drawn));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &printed).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap() == printed,
        "docs/workflow-config.md is out of date; run with UPDATE=1"
    );
}

#[test]
fn the_examples_of_the_reference_load_as_they_stand() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/config.md")).unwrap();
    let blocks = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let ours: Vec<&str> = blocks.filter(|block| block.contains("[tools.") || block.contains("[reviewers.")).collect();
    let text = with(&ours.join("\n")).replacen("[reviewers.anna]", "[reviewers.berta]", 1);
    let config = good(&text);
    assert_eq!((ours.len(), config.reviewers.len(), config.notify.len()), (2, 2, 2));
    assert_eq!(config.warnings, []);
}

#[test]
fn a_step_may_have_a_contract_and_a_tier_of_its_own() {
    let text = |step: &str| {
        with(&format!(
            r#"
            [contracts.verdict]
            schema = {{ type = "object", required = ["yes"], properties = {{ yes = {{ type = "boolean" }} }} }}
            [workflows.w]
            version = "1"
            output = "{{{{ steps.ask.yes }}}}"
            [[workflows.w.steps]]
            name = "ask"
            kind = "model"
            prompt = "Yes?"
            {step}
            "#
        ))
    };
    for base in ["talk", "models/m"] {
        let config = good(&text(&format!("route = \"{base}\"\ncontract = \"verdict\"\ntier = \"critical\"")).replace(
            "[routes.talk]\n        targets = [\"models/m\"]",
            "[tiers.critical]\n        distinct_providers = 1\n        [routes.talk]\n        targets = [\"models/m\"]",
        ));
        let StepSpec::Model { route } = &config.workflow("w").unwrap().spec.steps[0].spec else { panic!("a model") };
        let own = config.route(route.as_str()).unwrap();
        assert_eq!((&*own.contract.name, &*own.tier.name, own.targets.len()), ("verdict", "critical", 1), "{base}");
        assert!(config.gates(route).wants_json(), "its contract is compiled");
        assert_eq!(&*config.route(base).unwrap().contract.name, "default", "the route itself is as it was");
        assert_eq!(config.did_you_mean(route.as_str()), None, "no client is told of it");
        assert!(
            strip_str(&WorkflowExplanation::of(&config, "w").unwrap().text()).to_string().contains("contract verdict")
        );
    }
    let errors = load(&text("route = \"talk\"\ncontract = \"verdikt\"\ntier = \"standard\"")).unwrap_err().to_string();
    for part in
        ["there is no contract \"verdikt\". Did you mean \"verdict\"?", "it changes nothing: the route has this tier"]
    {
        assert!(errors.contains(part), "{part}: {errors}");
    }
}
