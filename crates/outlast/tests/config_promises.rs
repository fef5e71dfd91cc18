//! What the config makes of contracts, tiers, backstops, the store and golden tasks that are good, and what it says of
//! those that only go wrong together.

use outlast::config::{Config, ConfigErrors, Reloader, Sealing};
use outlast_model::policy::{
    AfterRepair, Agree, BackstopKind, ConfidenceFrom, Contract, Disagreement, Evidence, Fix, HttpValidator, Judge,
    Keep, Length, RefusalPolicy, SafetyPolicy, Shorten, StreamContract, ToolMode, VoteSpread,
};
use outlast_model::{RouteId, Usd};
use std::{path::Path, time::Duration};

const DATA_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

fn env(name: &str) -> Option<String> {
    let value = match name {
        "KEY" => "sk-0123456789abcdef",
        "DATA_KEY" => DATA_KEY,
        "OLD_DATA_KEY" => "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA",
        "HOOK_SECRET" => "hook-0123456789abcdef",
        _ => return None,
    };
    Some(value.to_owned())
}

const PROVIDERS: &str = r#"
    [providers.openai]
    kind = "openai"
    api_key = "${KEY}"
    region = "us"
    [providers.anthropic]
    kind = "anthropic"
    api_key = "${KEY}"
    region = "eu"
    [targets."anthropic/claude-haiku-4-5"]
    probes = false
"#;

fn load(text: &str) -> Result<Config, ConfigErrors> {
    Config::from_text(&format!("{PROVIDERS}{text}"), "outlast.toml", Path::new("/etc/outlast"), &env)
}

fn good(text: &str) -> Config {
    load(text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn errors(text: &str) -> String {
    load(text).map(|_| ()).unwrap_err().to_string()
}

fn contract<'c>(config: &'c Config, route: &str) -> &'c Contract {
    &config.route(route).unwrap().contract
}

#[test]
fn a_contract_arrives_as_it_is_written() {
    let config = good(
        r#"
        [routes.support]
        targets = ["openai/gpt-5.2", "anthropic/claude-sonnet-5"]
        contract = "support"
        risk = "a wrong answer is worse than none"
        sla = { availability = 0.999, p95 = "8s" }
        backstops = ["person"]
        [routes.judge]
        targets = ["anthropic/claude-haiku-4-5"]
        [backstops.person]
        kind = "escalate"
        question = "What now, {{ route }}?"
        [store]
        file = "store.db"
        plaintext_payloads = true
        [contracts.support]
        schema = { type = "object", required = ["answer"], properties = { answer = { type = "string" }, from = { type = "array", items = { type = "string" } } } }
        evidence = { sources = "outlast.sources", citations = "from", min = 2 }
        must_include = ["Dear customer"]
        must_not = ["guarantee"]
        language = "de"
        length = { min = 10, max = 500 }
        duplicates = "reject"
        expressions = { calm = "'!' not in text", short = "reply.answer | length < 400" }
        confidence = { from = "judge", route = "judge", instructions = "Is it kind?", cost_max_usd = 0.002, timeout = "9s", min = 0.8 }
        validators = { policy = { url = "https://judge.example.com/check?tenant=1", timeout = "2s" } }
        needs = { context = 100000, tools = true }
        permissions = { regions = ["eu", "us"], providers = ["openai", "anthropic"], tools = ["search", "refund"] }
        keeps = ["step", "tool_results", "retry_count", "budget_used_usd"]
        repair = { fixes = ["closers", "fences"], model = true, then = "review" }
        tools = { primary = "full", fallback = "read-only", read_only = ["search"] }
        shorten = "drop-oldest-turns"
        degraded = { schema = { type = "object" } }
        notice = "{{ saved }} {{ next }}"
        body_notes = false
        refusal = "review"
        safety = "review"
        "#,
    );
    let route = config.route("support").unwrap();
    assert_eq!(route.risk.as_deref(), Some("a wrong answer is worse than none"));
    assert_eq!(route.sla.unwrap().p95, Some(Duration::from_secs(8)));
    let contract = contract(&config, "support");
    let checks = &contract.checks;
    assert_eq!(checks.schema.as_ref().unwrap().source.as_ref(), "contracts.support.schema");
    let evidence = Evidence { sources: "outlast.sources".into(), citations: Some("from".into()), min: 2 };
    assert_eq!(checks.evidence, Some(evidence));
    assert_eq!((checks.must_include[0].as_ref(), checks.must_not[0].as_ref()), ("Dear customer", "guarantee"));
    assert_eq!((checks.language.as_deref(), checks.reject_duplicates), (Some("de"), true));
    assert_eq!(checks.length, Some(Length { min: Some(10), max: Some(500) }));
    assert_eq!(checks.expressions.iter().map(|rule| rule.name.as_ref()).collect::<Vec<_>>(), ["calm", "short"]);
    let judge = Judge {
        route: RouteId::from("judge"),
        instructions: Some("Is it kind?".into()),
        cost_max: Some(Usd::from_dollars(0.002)),
        timeout: Duration::from_secs(9),
    };
    assert_eq!(contract.confidence.as_ref().unwrap().from, ConfidenceFrom::Judge(judge));
    let url = "https://judge.example.com/check?tenant=1".into();
    let validator = HttpValidator { name: "policy".into(), url, timeout: Duration::from_secs(2) };
    assert_eq!(contract.validators, [validator]);
    assert_eq!((contract.needs.context, contract.needs.tools, contract.needs.images), (Some(100_000), true, false));
    assert_eq!(contract.permissions.tools.as_ref().unwrap().len(), 2);
    assert_eq!(contract.keeps, [Keep::Step, Keep::ToolResults, Keep::RetryCount, Keep::BudgetUsed]);
    assert_eq!(contract.repair.fixes, [Fix::Fences, Fix::Closers], "in the order in which they are tried");
    assert_eq!((contract.repair.model, contract.repair.then), (true, AfterRepair::Review));
    let tools = contract.tools.as_ref().unwrap();
    assert_eq!((tools.primary, tools.fallback), (ToolMode::Full, ToolMode::ReadOnly));
    assert_eq!((contract.shorten, contract.body_notes), (Some(Shorten::DropOldestTurns), false));
    assert!(contract.degraded_schema.is_some() && contract.notice.is_some());
    assert_eq!((contract.refusal, contract.safety), (RefusalPolicy::Review, SafetyPolicy::Review));
    assert_eq!(contract.stream, StreamContract::Buffer, "the whole reply is judged");
    let gates = config.gates(&route.id);
    assert_eq!(gates.contract(), &route.contract);
    assert!(config.gates(&RouteId::from("openai/gpt-5.2")).contract().checks.is_empty(), "a target by itself is plain");
}

#[test]
fn a_tier_arrives_as_it_is_written() {
    let config = good(
        r#"
        [routes.dear]
        targets = ["openai/gpt-5.2", "anthropic/claude-sonnet-5"]
        tier = "dear"
        contract = "sure"
        [routes.raced]
        targets = ["openai/gpt-5.2", "anthropic/claude-sonnet-5"]
        tier = "raced"
        [contracts.sure]
        confidence = { from = "votes", min = 0.6 }
        [tiers.dear]
        cost_max_usd = 0.05
        hedge = { budget = 0.1 }
        exhausted = ["cache", "fail"]
        [tiers.dear.votes]
        ahead = 1
        samples = 3
        spread = "samples"
        disagreement = "majority"
        fields = { price = { number = 0.01 }, name = "text", note = "ignore", id = "exact", tags = "set", items = { set = "sku" } }
        [tiers.raced]
        hedge = true
        "#,
    );
    let tier = &config.route("dear").unwrap().tier;
    assert_eq!((tier.cost_max, tier.hedge.unwrap().budget), (Some(Usd::from_dollars(0.05)), 0.1));
    let votes = tier.votes.as_ref().unwrap();
    assert_eq!((votes.ahead, votes.samples, votes.spread), (1, 3, VoteSpread::Samples));
    assert_eq!(votes.disagreement, Disagreement::Majority);
    let rule = |path: &str| votes.fields.iter().find(|rule| &*rule.path == path).unwrap().agree.clone();
    assert_eq!((rule("price"), rule("name"), rule("note")), (Agree::Number(0.01), Agree::Text, Agree::Ignore));
    assert_eq!(
        (rule("id"), rule("tags"), rule("items")),
        (Agree::Exact, Agree::Set(None), Agree::Set(Some("sku".into())))
    );
    let ends: Vec<&str> = config.route("dear").unwrap().backstops.iter().map(|end| &*end.name).collect();
    assert_eq!(ends, ["cache", "fail"], "those of the tier");
    assert_eq!(contract(&config, "dear").stream, StreamContract::Buffer, "nothing is shown before the vote");
    assert_eq!(config.route("raced").unwrap().tier.hedge.unwrap().budget, 0.05);
    assert!(config.route("raced").unwrap().backstops.is_empty());
}

#[test]
fn backstops_arrive_in_the_routes_order_with_their_secrets_kept_apart() {
    let config = good(
        r#"
        [routes.chat]
        targets = ["openai/gpt-5.2"]
        backstops = ["hours", "cache", "slower", "later", "queue"]
        [routes.slow]
        targets = ["anthropic/claude-sonnet-5"]
        [store]
        file = "store.db"
        data_keys = ["${DATA_KEY}", "${OLD_DATA_KEY}"]
        [backstops.hours]
        kind = "rules"
        rules = [{ when = "'open' in text", reply = "We open at nine, {{ request.user }}." }]
        [backstops.slower]
        kind = "confirm"
        question = "Ask a slower model?"
        route = "slow"
        [backstops.later]
        kind = "queue"
        expires = "2h"
        webhook = { url = "https://example.com/done", secret = "${HOOK_SECRET}" }
        "#,
    );
    let kinds: Vec<&str> = config.route("chat").unwrap().backstops.iter().map(|end| end.kind.name().as_str()).collect();
    assert_eq!(kinds, ["rules", "cache", "confirm", "queue", "queue"]);
    let expiry = |at: usize| match config.route("chat").unwrap().backstops[at].kind {
        BackstopKind::Queue { expires, .. } | BackstopKind::Confirm { expires, .. } => expires,
        BackstopKind::Static { .. }
        | BackstopKind::Rules(_)
        | BackstopKind::Cache { .. }
        | BackstopKind::Escalate { .. }
        | BackstopKind::Fail { .. } => panic!("{at} has no expiry"),
    };
    assert_eq!(
        (expiry(2), expiry(3), expiry(4)),
        (Duration::from_secs(900), Duration::from_secs(7200), Duration::from_secs(86_400))
    );
    assert_eq!(config.webhook_secret("later").unwrap().expose(), "hook-0123456789abcdef");
    assert!(config.webhook_secret("queue").is_none());
    let store = config.store.as_ref().unwrap();
    assert_eq!(store.file, Path::new("/etc/outlast/store.db"));
    let Sealing::Keys(keys) = &store.sealing else { panic!("{store:?}") };
    assert_eq!(keys[0].expose(), b"0123456789abcdef0123456789abcdef");
    assert_eq!(keys[1].expose(), b"fedcba9876543210fedcba9876543210", "the padding may be missing");
    let shown = format!("{config:?}");
    assert!(!shown.contains("hook-01") && !shown.contains("48, 49, 50") && !shown.contains(DATA_KEY), "{shown}");
}

#[test]
fn a_golden_task_becomes_a_request_and_a_contract_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("task.json"),
        r#"{ "name": "refunds", "route": "support", "input": [{ "role": "user", "content": "How long?" }],
             "fixtures": { "sources": [{ "id": "policy-7" }] }, "must_include": ["30 days"], "must_not": ["never"],
             "requires_citation": true, "schema": { "type": "object" }, "max_latency_ms": 9000, "degraded_ok": false }"#,
    )
    .unwrap();
    let text = format!(
        "{PROVIDERS}{}",
        r#"
        [routes.support]
        targets = ["openai/gpt-5.2"]
        contract = "agent"
        [contracts.agent]
        must_not = ["As an AI"]
        repair = 1
        [golden.filed]
        file = "task.json"
        every = "1m"
        [golden.written]
        route = "support"
        input = "What is 2 + 2?"
        must_include = ["4"]
        "#
    );
    let config =
        Config::from_text(&text, "outlast.toml", folder.path(), &env).unwrap_or_else(|errors| panic!("{errors}"));
    let [filed, written] = config.golden.as_slice() else { panic!("{:?}", config.golden) };
    assert_eq!((filed.every, written.every), (Duration::from_secs(60), Duration::from_secs(900)));
    let body: serde_json::Value = serde_json::from_str(&filed.body).unwrap();
    assert_eq!(body["model"], "support");
    assert_eq!(body["messages"][0]["content"], "How long?");
    assert_eq!(body["outlast"]["sources"][0]["id"], "policy-7");
    assert_eq!(body["outlast"]["state"]["step"], "golden", "the route's contract asks every request for its step");
    let checks = &filed.gates.contract().checks;
    assert!(checks.schema.is_some() && checks.evidence.as_ref().unwrap().citations.is_none());
    assert_eq!((checks.must_include[0].as_ref(), checks.must_not[1].as_ref()), ("30 days", "never"));
    let checks = &written.gates.contract().checks;
    assert_eq!(checks.must_not[0].as_ref(), "As an AI", "the route's own checks hold as well");
    assert!(checks.evidence.is_none() && !written.gates.contract().repair.model);
}

#[test]
fn what_only_goes_wrong_together_is_told_with_its_place() {
    let route = "[routes.chat]\ntargets = [\"openai/gpt-5.2\", \"anthropic/claude-sonnet-5\"]\n";
    for (text, said) in [
        (
            "tier = \"v\"\ncontract = \"c\"\n[tiers.v]\nvotes = {}\n[contracts.c]\nstream = \"hold\"\n",
            "routes.chat.tier: tier \"v\" votes, and no stream can be shown before the vote",
        ),
        (
            "tier = \"v\"\n[tiers.v]\nvotes = { ahead = 3, samples = 2 }\n",
            "tiers.v.votes.ahead: no answer can lead by 3 of 2 votes",
        ),
        (
            "contract = \"c\"\n[contracts.c]\nrefusal = \"review\"\n",
            "routes.chat.contract: contract \"c\" says refusal = \"review\", and no backstop hands it to a person",
        ),
        (
            "tier = \"critical\"\ncontract = \"c\"\n[contracts.c]\npermissions = { regions = [\"eu\"] }\n",
            "routes.chat.tier: tier \"critical\" needs 2 providers, found 1 (anthropic)",
        ),
        (
            "backstops = [\"escalate\"]\n",
            "routes.chat.backstops[0]: \"escalate\" keeps what must outlive the process, and there is no [store]",
        ),
        (
            "tier = \"t\"\n[tiers.t]\nexhausted = \"queue\"\n",
            "tiers.t.exhausted: \"queue\" keeps what must outlive the process, and there is no [store]",
        ),
        (
            "tier = \"t\"\n[tiers.t]\nexhausted = [\"cache\", \"quue\"]\n",
            "tiers.t.exhausted[1]: there is no backstop \"quue\". Did you mean \"queue\"?",
        ),
        (
            "backstops = [\"b\"]\n[backstops.c]\nkind = \"fail\"\n[backstops.b]\nkind = \"fail\"\n",
            "backstops.c: it never takes effect: no route ends in it",
        ),
        (
            "contract = \"c\"\n[contracts.c]\nexpressions = { a = \"text | lenght > 3\" }\n",
            "contracts.c.expressions.a: it cannot be used: there is no such filter: `lenght`",
        ),
        (
            "contract = \"c\"\n[contracts.c]\nconfidence = { from = \"judge\", route = \"openai/gpt-5.2\", min = 0.5 }\n",
            "contracts.c.confidence.route: there is no route \"openai/gpt-5.2\"",
        ),
        (
            "backstops = [\"b\"]\n[backstops.b]\nkind = \"static\"\nreply = \"{{ text | uper }}\"\n",
            "backstops.b.reply: it is no usable template: there is no such filter: `uper`",
        ),
        (
            "[store]\nfile = \"x.db\"\n",
            "store: the store holds prompts and answers, and it is not said how they are protected",
        ),
        (
            "[store]\nfile = \"x.db\"\ndata_key = \"${DATA_KEY}\"\nplaintext_payloads = true\n",
            "store.plaintext_payloads: payloads are either encrypted or in plain text, and there is a data key",
        ),
        ("contract = \"ragg\"\n", "there is no contract \"ragg\". Did you mean \"rag\"?"),
    ] {
        let told = errors(&format!("{route}{text}"));
        assert!(told.contains(said), "{text}\n{told}");
    }
    let told = errors("[routes.chat]\ntargets = [\"openai/gpt-5.2\"]\n[store]\nfile = \"x.db\"\n");
    assert!(told.contains("head -c 32 /dev/urandom | base64"), "the remedy names how a key is made: {told}");
}

/// The page names them.
#[test]
fn the_filters_and_tests_that_the_page_names_are_there() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/config.md")).unwrap();
    let list = page.split("nothing beyond their values: ").nth(1).unwrap().split(" and their kin").next().unwrap();
    let names: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        let said = ["x | NAME", "x is NAME", "x is NAME('y')", "x NAME ['y']", "x | NAME('y')", "x | NAME('y', 'z')"].map(|form| {
            let expression = form.replace("NAME", name).replace('x', "text");
            errors(&format!(
                "[routes.chat]\ntargets = [\"openai/gpt-5.2\"]\ncontract = \"c\"\n[contracts.c]\nexpressions = {{ e = \"{expression}\" }}\n[store]\n"
            ))
        });
        assert!(said.iter().any(|said| !said.contains("contracts.c")), "{name}: {said:?}");
    }
}

#[test]
fn targets_that_a_contract_or_a_cap_leaves_out_are_named() {
    let config = good(
        r#"
        [providers.gpu1]
        kind = "openai-compatible"
        base_url = "http://127.0.0.1:8000/v1"
        region = "eu"
        [routes.chat]
        targets = ["openai/gpt-5.2", "anthropic/claude-sonnet-5", "gpu1/llama-3-8b"]
        contract = "c"
        tier = "t"
        [contracts.c]
        permissions = { regions = ["eu"] }
        validators = { far = { url = "http://judge.example.com/check" } }
        [tiers.t]
        cost_max_usd = 0.01
        "#,
    );
    let warnings = config.warnings.join("\n");
    for part in [
        "leaves out targets of this route: openai/gpt-5.2 is in region us, not in eu",
        "the price of gpu1/llama-3-8b is unknown, so it is left out",
        "requests and replies travel to it in clear text",
    ] {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
    let explanation = outlast::cli::explain::Explanation::of(&config, "chat").unwrap();
    let price = &explanation.json()["price"];
    assert_eq!(price["first_attempt_usd"], 0.005, "of the first target that may be asked");
    assert_eq!(price["left_out"][0]["target"], "gpu1/llama-3-8b");
    assert_eq!(price["cap_usd"], 0.01);
    let text = explanation.text();
    assert!(text.contains("not permitted") && text.contains("far: judge.example.com says yes within 5s"), "{text}");
    assert!(!text.contains("/check"), "a validator's path may be a secret: {text}");
}

#[test]
fn the_price_of_a_tier_counts_votes_races_and_verdicts_under_its_cap() {
    let text = |cap: &str| {
        format!(
            r#"
            [routes.dear]
            targets = ["openai/gpt-5.2", "anthropic/claude-sonnet-5"]
            tier = "dear"
            contract = "sure"
            [routes.judge]
            targets = ["anthropic/claude-haiku-4-5"]
            [contracts.sure]
            confidence = {{ from = "judge", route = "judge", cost_max_usd = 0.001, min = 0.6 }}
            [tiers.dear]
            hedge = true
            votes = {{ samples = 4 }}
            {cap}
            "#
        )
    };
    let price = |cap: &str| {
        let config = good(&text(cap));
        outlast::cli::explain::Explanation::of(&config, "dear").unwrap().json()["price"].clone()
    };
    let free = price("");
    // gpt-5.2: 1000 x 1.75 + 300 x 14 = 5,950 millionths of a dollar; claude-sonnet-5: 1000 x 2 + 300 x 10 = 5,000.
    assert_eq!(free["first_attempt_usd"], 0.005_95);
    assert_eq!(free["votes"]["least_usd"], 0.010_95, "two that agree");
    assert_eq!(free["votes"]["most_usd"], 0.021_9);
    assert_eq!(free["hedge"]["usd"], 0.005);
    assert_eq!(free["verdict_usd"], 0.001, "capped by the judge's own limit");
    assert!(free["worst_usd"].as_f64().unwrap() > 0.0219);
    assert_eq!(price("cost_max_usd = 0.02")["worst_usd"], 0.02);
}

#[test]
fn a_reload_carries_the_store_over_and_refuses_what_would_need_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outlast.toml");
    let write = |text: &str| std::fs::write(&path, format!("{PROVIDERS}{text}")).unwrap();
    let chat = "[routes.chat]\ntargets = [\"openai/gpt-5.2\"]\n";
    let store = |file: &str| format!("[store]\nfile = \"{file}\"\ndata_key = \"${{DATA_KEY}}\"\n");

    write(&format!("{chat}{}", store("a.db")));
    let running = Config::load(&path, &env).unwrap();
    let mut reloader = Reloader::new(&path, &running);
    write(&format!("{chat}backstops = [\"queue\"]\n{}", store("b.db")));
    let reload = reloader.reload(&running, &env).unwrap();
    assert_eq!(reload.changes.to_string(), "~1 route (chat); ~store (needs a restart: store)");
    assert_eq!(reload.config.store, running.store, "the store stays where it is");

    write(chat);
    let without = Config::load(&path, &env).unwrap();
    write(&format!("{chat}backstops = [\"queue\"]\n{}", store("a.db")));
    let told = reloader.reload(&without, &env).unwrap_err().to_string();
    assert!(told.contains("route \"chat\" ends in \"queue\", which needs the store"), "{told}");
}

#[test]
fn a_schema_beside_the_config_is_watched_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outlast.toml");
    let schema = folder.path().join("answer.json");
    let text =
        "[routes.chat]\ntargets = [\"openai/gpt-5.2\"]\ncontract = \"c\"\n[contracts.c]\nschema = \"answer.json\"\n";
    std::fs::write(&path, format!("{PROVIDERS}{text}")).unwrap();
    std::fs::write(&schema, r#"{ "type": "object" }"#).unwrap();
    let running = Config::load(&path, &env).unwrap();
    let mut reloader = Reloader::new(&path, &running);
    assert!(!reloader.is_changed());

    std::fs::write(&schema, r#"{ "type": "object", "required": ["answer"] }"#).unwrap();
    assert!(reloader.is_changed());
    assert_eq!(reloader.reload(&running, &env).unwrap().changes.to_string(), "~1 route (chat)");
    std::fs::write(&schema, "{").unwrap();
    assert!(reloader.is_changed());
    let told = reloader.reload(&running, &env).unwrap_err().to_string();
    assert!(told.contains("\"answer.json\" is not JSON"), "{told}");
    assert!(!reloader.is_changed(), "a bad file is told once");
}

/// The page writes every preset out; what it writes makes the same contract.
#[test]
fn every_preset_is_what_its_page_says() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/config.md")).unwrap();
    for preset in ["chat", "extraction", "rag", "agent"] {
        let heading = format!("[contracts.my-{preset}]\n");
        let start = page.find(&heading).unwrap_or_else(|| panic!("docs/config.md does not write out {preset}"));
        let settings = page[start..].split("```").next().unwrap();
        let text = format!(
            "[routes.written]\ntargets = [\"openai/gpt-5.2\"]\ncontract = \"my-{preset}\"\n\
             [routes.named]\ntargets = [\"openai/gpt-5.2\"]\ncontract = \"{preset}\"\n\
             [routes.started]\ntargets = [\"openai/gpt-5.2\"]\ncontract = \"mine\"\n[contracts.mine]\npreset = \"{preset}\"\n{settings}"
        );
        let config = good(&text);
        let of = |route: &str| {
            let mut contract = contract(&config, route).clone();
            contract.name = "".into();
            if let Some(schema) = &mut contract.checks.schema {
                *schema = outlast_model::policy::Schema { source: "".into(), json: schema.json.clone() }.into();
            }
            contract
        };
        assert_eq!(of("written"), of("named"), "{preset}");
        assert_eq!(of("started"), of("named"), "{preset}");
    }
}

#[test]
fn a_contracts_own_settings_come_over_its_preset() {
    let config = good(
        r#"
        [routes.chat]
        targets = ["openai/gpt-5.2"]
        contract = "mine"
        [routes.docs]
        targets = ["openai/gpt-5.2"]
        contract = "rag"
        [contracts.mine]
        preset = "chat"
        shorten = "never"
        refusal = "reroute"
        [contracts.rag]
        evidence = { sources = "outlast.sources", citations = "sources" }
        "#,
    );
    let mine = contract(&config, "chat");
    assert_eq!((mine.shorten, mine.refusal), (None, RefusalPolicy::Reroute));
    assert!(mine.notice.is_some(), "the rest is the preset's");
    assert_eq!(
        mine.stream,
        StreamContract::Buffer,
        "a refusal is known at its end, and this contract wants it elsewhere"
    );
    let docs = contract(&config, "docs");
    assert!(docs.repair.model, "a contract with a preset's name changes that preset");
    assert_eq!(docs.checks.evidence.as_ref().unwrap().citations.as_deref(), Some("sources"));
}
