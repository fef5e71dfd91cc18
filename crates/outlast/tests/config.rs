//! What the config reader says of broken files, and what it makes of good ones.

use outlast::config::{AlertEvent, Config, ConfigErrors, KeyHash, Reloader};
use outlast_model::{
    Price,
    policy::{Ability, Capabilities, StreamContract},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// The environment of these tests.
fn env(name: &str) -> Option<String> {
    let value = match name {
        "OPENAI_API_KEY" => "sk-openai-0123456789abcdef",
        "ANTHROPIC_API_KEY" => "sk-ant-0123456789abcdef",
        "TEAM_KEY" => "team-key-0123456789abcdef",
        "OUTLAST_ADMIN_TOKEN" => "admin-0123456789abcdef",
        "ALERT_WEBHOOK" => "https://hooks.example.com/T0/B0",
        "ALERT_SECRET" => "alert-0123456789abcdef",
        "OUTLAST_DATA_KEY" => "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        "DATA_KEY_SHORT" => "MDEyMzQ1Njc4OWFiY2RlZg==",
        "PROVIDER_URL" => "http://127.0.0.1:9100/v1",
        "REFUND_DOWNSTREAM" => "http://127.0.0.1:9200",
        "REVIEWER_KEY" => "reviewer-0123456789abcdef",
        "BAD_KEY" => "key\nwith a line break",
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

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    assert!(!files.is_empty());
    files
}

/// `UPDATE=1 cargo test -p outlast --test config` writes what is said today; read the difference before committing it.
#[test]
fn every_broken_file_is_told_all_its_errors_with_line_and_remedy() {
    for path in files("tests/broken", "toml") {
        let text = std::fs::read_to_string(&path).unwrap();
        let errors = match load(&text) {
            Ok(_) => panic!("{} was accepted", path.display()),
            Err(errors) => format!("{errors}\n"),
        };
        let expected = path.with_extension("errors");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&expected, &errors).unwrap();
        }
        let expected = std::fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(errors, expected, "{}", path.display());
        for name in ["OPENAI_API_KEY", "TEAM_KEY", "BAD_KEY", "ALERT_SECRET", "OUTLAST_DATA_KEY", "DATA_KEY_SHORT"] {
            assert!(!errors.contains(&env(name).unwrap()), "an error shows {name}");
        }
    }
}

#[test]
fn settings_arrive_with_their_defaults_around_them() {
    let config = good(
        r#"
        [server]
        listen = "0.0.0.0:9000"
        keys = ["${TEAM_KEY}", "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"]
        admin_token = "${OUTLAST_ADMIN_TOKEN}"
        max_body = "10MB"
        max_in_flight = 100
        tls = { cert = "tls/cert.pem", key = "/abs/key.pem" }
        [providers.openai]
        kind = "openai"
        api_keys = ["${OPENAI_API_KEY}", "${TEAM_KEY}"]
        headers = { "OpenAI-Organization" = "org-1" }
        timeouts = { total = "30s", idle = "5s" }
        [providers.gpu1]
        kind = "openai-compatible"
        base_url = "http://gpu1:8000/v1/"
        region = "eu"
        probes = false
        [targets."gpu1/llama-3-8b"]
        capabilities = { tools = true, images = false }
        context_window = 8192
        price = { input = 0.1, output = 0.2 }
        timeouts = { first_token = "2s" }
        [targets."openai/gpt-5.2"]
        probes = false
        [routes.chat]
        targets = [{ target = "openai/gpt-5.2", weight = 3 }, "gpu1/llama-3-8b"]
        ranking = "weight"
        tier = "critical"
        [health]
        open_base = "400s"
        [alerts]
        webhook = "${ALERT_WEBHOOK}"
        secret = "${ALERT_SECRET}"
        events = ["quota", "auth"]
        [telemetry]
        file = "outlast.db"
        "#,
    );
    assert_eq!(config.server.listen.to_string(), "0.0.0.0:9000");
    let admits = |key: &str| config.server.admits(Some(&KeyHash::of(key)));
    assert!(admits(&env("TEAM_KEY").unwrap()) && admits(""));
    assert!(!config.server.admits(None) && !admits("other"));
    assert_eq!(config.server.tls.as_ref().unwrap().cert, Path::new("/etc/outlast/tls/cert.pem"));
    assert_eq!(config.server.tls.as_ref().unwrap().key, Path::new("/abs/key.pem"));
    assert_eq!((config.server.max_body_bytes, config.health.max_in_flight), (10_000_000, 100));
    assert_eq!(config.health.open_cap, config.health.open_base, "the default cap is never below the base");
    assert_eq!(config.telemetry.file.as_deref(), Some(Path::new("/etc/outlast/outlast.db")));
    assert_eq!(config.alerts.events, [AlertEvent::Auth, AlertEvent::Quota]);

    let openai = config.provider("openai").unwrap();
    assert_eq!(openai.base_url.join("/chat/completions"), "https://api.openai.com/v1/chat/completions");
    assert_eq!(openai.key(1).unwrap().expose(), env("TEAM_KEY").unwrap());
    let gpt = config.target("openai/gpt-5.2").unwrap();
    assert_eq!((gpt.keys, gpt.probes, gpt.timeouts.total), (2, false, Duration::from_secs(30)));
    assert_eq!(gpt.timeouts.header, Duration::from_secs(30), "an inherited deadline is clipped to the total");
    assert_eq!(gpt.capabilities.json_schema, Ability::Yes);
    assert!(gpt.price.is_some() && gpt.context_window.is_some());

    let llama = config.target("gpu1/llama-3-8b").unwrap();
    assert_eq!((llama.keys, llama.probes, llama.region.as_deref()), (1, false, Some("eu")));
    assert_eq!(llama.price, Some(Price::per_million(0.1, 0.2, None, None)));
    assert_eq!(llama.capabilities, Capabilities { tools: Ability::Yes, images: Ability::No, ..Default::default() });
    assert_eq!(llama.timeouts.first_token, Duration::from_secs(2));

    let chat = config.route("chat").unwrap();
    assert_eq!(chat.targets.iter().map(|target| target.weight).collect::<Vec<_>>(), [3, 1]);
    assert_eq!(chat.contract.stream, StreamContract::CRITICAL, "hold is on in the critical tier");
}

#[test]
fn a_target_works_as_a_route_of_one_and_an_unknown_name_is_no_route() {
    let config = good(
        r#"
        [providers.openai]
        kind = "openai"
        api_key = "${OPENAI_API_KEY}"
        [providers.azure]
        kind = "openai-compatible"
        base_url = "https://me.openai.azure.com/openai/v1"
        api_key = "${TEAM_KEY}"
        [routes.chat]
        targets = ["openai/gpt-5.2", "azure/gpt-5.2", "openai/gpt-5-mini"]
        "#,
    );
    for (name, served_by) in [
        ("chat", Some("openai/gpt-5.2")),
        ("azure/gpt-5.2", Some("azure/gpt-5.2")),
        ("gpt-5-mini", Some("openai/gpt-5-mini")),
        ("gpt-5.2", None),
        ("openai/gpt-4o", None),
        ("", None),
    ] {
        let first = config.route(name).map(|route| route.targets[0].target.as_str());
        assert_eq!(first, served_by, "{name}");
    }
    for (name, meant) in
        [("chatt", Some("chat")), ("openai/gpt-5.-mini", Some("openai/gpt-5-mini")), ("mistral-large", None)]
    {
        assert_eq!(config.did_you_mean(name), meant, "{name}");
    }
}

#[test]
fn a_file_that_is_no_text_or_too_long_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outlast.toml");
    for (bytes, why) in
        [(vec![b'#', 0xff], "it is not UTF-8 text"), (vec![b'#'; (4 << 20) + 1], "it is longer than 4 MiB")]
    {
        std::fs::write(&path, bytes).unwrap();
        let error = Config::load(&path, &env).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn direct_may_open_the_catalogue_without_probing_it_or_be_shut() {
    let text = |direct: &str| {
        format!(
            "[server]\ndirect = \"{direct}\"\n[providers.openai]\nkind = \"openai\"\napi_key = \"${{OPENAI_API_KEY}}\"\n\
             [routes.chat]\ntargets = [\"openai/gpt-5.2\"]\n"
        )
    };
    let open = good(&text("catalogue"));
    assert!(open.route("openai/gpt-4o").is_some() && open.route("gpt-4o-mini").is_some());
    assert!(!open.target("openai/gpt-4o").unwrap().probes && open.target("openai/gpt-5.2").unwrap().probes);
    let shut = good(&text("off"));
    assert!(shut.route("openai/gpt-5.2").is_none() && shut.route("chat").is_some());
}

#[test]
fn a_provider_that_nothing_reaches_is_an_error() {
    let errors =
        load("[providers.lonely]\nkind = \"openai-compatible\"\nbase_url = \"http://gpu1:8000/v1\"\n").unwrap_err();
    let text = errors.to_string();
    assert!(text.starts_with("outlast.toml:1 providers.lonely: nothing can reach this provider"), "{text}");
}

#[test]
fn what_works_but_is_probably_not_meant_is_a_warning() {
    let config = good(
        r#"
        [providers.openai]
        kind = "openai"
        api_key = "sk-a-key-in-the-file-itself"
        [providers.far]
        kind = "openai-compatible"
        base_url = "http://far.example.com/v1"
        api_key = "${TEAM_KEY}"
        [routes.chat]
        targets = ["openai/gpt-5.22", "far/model"]
        ranking = "cost"
        "#,
    );
    let warnings = config.warnings.join("\n");
    for part in
        ["seen by whoever sees the file", "clear text", "did you mean \"gpt-5.2\"", "the price of far/model is unknown"]
    {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
    assert!(!warnings.contains("sk-a-key"), "{warnings}");
    assert!(!format!("{config:?}").contains("sk-a-key"), "Debug shows a key");
}

#[test]
fn the_environment_alone_makes_a_gateway() {
    let only = |names: &'static [(&'static str, &'static str)]| {
        move |name: &str| names.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    };
    let none = Config::from_env(&only(&[])).unwrap_err().to_string();
    assert!(none.starts_with("environment: there is no config file") && none.contains("OPENAI_API_KEY"), "{none}");
    let no_model = Config::from_env(&only(&[("OLLAMA_HOST", "localhost")])).unwrap_err().to_string();
    assert!(no_model.contains("Set OLLAMA_MODEL"), "{no_model}");

    let two = only(&[
        ("OPENAI_API_KEY", "sk-0123456789abcdef"),
        ("ANTHROPIC_API_KEY", "sk-ant-0123456789"),
        ("OLLAMA_HOST", "0.0.0.0"),
        ("OLLAMA_MODEL", "llama3.2:3b"),
        ("GROQ_API_KEY", " "),
    ]);
    let config = Config::from_env(&two).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.warnings, [], "what Outlast writes itself needs no warning");
    let targets = |route: &str| -> Vec<String> {
        config.route(route).unwrap().targets.iter().map(|target| target.target.to_string()).collect()
    };
    assert_eq!(targets("default"), ["openai/gpt-6.1-terra", "anthropic/claude-sonnet-5-5", "ollama/llama3.2:3b"]);
    assert_eq!(targets("fast")[0], "openai/gpt-6-luna");
    assert_eq!(targets("gpt-4o"), ["openai/gpt-4o"]);
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");

    let every_vendor = |name: &str| name.ends_with("_API_KEY").then(|| format!("key-of-{name}-0123456789"));
    let config = Config::from_env(&every_vendor).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.providers.len(), 9);
    assert!(config.targets.len() < 400, "{} targets", config.targets.len());
    assert!(!config.server.keys.is_empty(), "OUTLAST_API_KEY closes the gateway");
    assert!(config.route("openrouter/openai/gpt-6-luna").is_some() && config.route("openrouter/x-ai/grok-3").is_none());
    assert!(config.warnings.iter().any(|warning| warning.contains("openrouter")), "{:?}", config.warnings);
}

#[test]
fn listening_beyond_loopback_from_the_environment_needs_a_key() {
    let env = |name: &str| match name {
        "OPENAI_API_KEY" => Some("sk-0123456789abcdef".to_owned()),
        "OUTLAST_LISTEN" => Some("0.0.0.0:8080".to_owned()),
        _ => None,
    };
    let error = Config::from_env(&env).unwrap_err().to_string();
    assert!(error.contains("callers need no key"), "{error}");
}

#[test]
fn every_example_passes_check_and_the_editors_schema() {
    let schema = outlast::config::schema();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for path in files("../../examples", "toml") {
        let config = Config::load(&path, &env).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(config.warnings, [expected_warning(&path)].into_iter().flatten().collect::<Vec<_>>());
        let text = std::fs::read_to_string(&path).unwrap();
        let json = serde_json::to_value(toml::from_str::<toml::Value>(&text).unwrap()).unwrap();
        let problems: Vec<String> = validator.iter_errors(&json).map(|problem| problem.to_string()).collect();
        assert!(problems.is_empty(), "{}: {problems:?}", path.display());
    }
}

/// The one example that listens on every address says what it needs in front of it.
fn expected_warning(path: &Path) -> Option<Box<str>> {
    path.ends_with("two-vendors.toml").then(|| {
        let what = "callers' keys travel in clear text unless something in front of it speaks TLS";
        format!("{}:8 server.listen: {what}.", path.display()).into()
    })
}

#[test]
fn the_editors_schema_refuses_what_the_reader_refuses_by_its_form() {
    let schema = outlast::config::schema();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for name in ["names", "types"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/broken/{name}.toml"));
        let text = std::fs::read_to_string(path).unwrap();
        let json = serde_json::to_value(toml::from_str::<toml::Value>(&text).unwrap()).unwrap();
        let problems = validator.iter_errors(&json).map(|problem| problem.instance_path().to_string());
        let problems: std::collections::BTreeSet<String> = problems.collect();
        let expected: &[&str] = match name {
            "names" => &["", "/contracts/support/stream", "/providers/gpu1/kind", "/providers/openai", "/routes/chat"],
            _ => &["/server/listen", "/server/keys", "/server/max_connections", "/server/max_body", "/routes/chat"],
        };
        for place in expected {
            assert!(problems.contains(*place), "{name}: {place} is not among {problems:?}");
        }
    }
}

#[test]
fn check_and_explain_print_what_the_config_amounts_to() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    for (file, route) in [
        ("two-vendors.toml", "support-answer"),
        ("two-vendors.toml", "quick"),
        ("local-fallback.toml", "assistant"),
        ("minimal.toml", "gpt-5.2"),
        ("support-contract.toml", "support"),
    ] {
        let text = std::fs::read_to_string(path.join(file)).unwrap();
        let config = Config::from_text(&text, file, &path, &env).unwrap();
        let explanation = outlast::cli::explain::Explanation::of(&config, route).unwrap();
        let printed =
            format!("{}\n{}", outlast::cli::check::summary(&config), without_the_engines_tables(&explanation.text()));
        let printed = printed.replace(&format!("{}/", path.display()), "");
        let snapshot = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/printed/{route}.txt"));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(snapshot.parent().unwrap()).unwrap();
            std::fs::write(&snapshot, &printed).unwrap();
        }
        assert_eq!(printed, std::fs::read_to_string(&snapshot).unwrap_or_default(), "{route}");
        let json = explanation.json();
        assert_eq!(json["targets"].as_array().unwrap().len(), config.route(route).unwrap().targets.len());
        assert_eq!(json["failures"].as_array().unwrap().len(), 31);
    }
}

/// The remedy and crossing tables are the engine's and the wire's own; their pages hold them, not this snapshot.
fn without_the_engines_tables(text: &str) -> String {
    let (before, table) = text.split_once("What each failure leads to\n").unwrap();
    assert!(table.contains("\n safety_block         returned to the client at once, on no other target\n"), "{table}");
    let warnings = table.split_once("\nWarnings\n").map(|(_, warnings)| format!("Warnings\n{warnings}"));
    let lines = before.lines().filter(|line| !line.starts_with("    "));
    lines.map(|line| format!("{line}\n")).collect::<String>() + &warnings.unwrap_or_default()
}

#[test]
fn a_reload_says_what_changed_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outlast.toml");
    let text = |targets: &str, listen: &str| {
        format!(
            "[server]\nlisten = \"{listen}\"\n[providers.openai]\nkind = \"openai\"\napi_key = \"${{OPENAI_API_KEY}}\"\n\
             [routes.chat]\ntargets = [{targets}]\n"
        )
    };
    std::fs::write(&path, text("\"openai/gpt-5.2\"", "127.0.0.1:1000")).unwrap();
    let mut running = Config::load(&path, &env).unwrap();
    let mut reloader = Reloader::new(&path, &running);
    assert!(!reloader.is_changed());

    std::fs::write(&path, text("\"openai/gpt-5.2\", \"openai/gpt-5-mini\"", "127.0.0.1:2000")).unwrap();
    assert!(reloader.is_changed());
    let reload = reloader.reload(&running, &env).unwrap();
    let changes = "+1 target (openai/gpt-5-mini); ~1 route (chat); ~server (needs a restart: server.listen)";
    assert_eq!(reload.changes.to_string(), changes);
    assert_eq!(reload.config.server.listen, running.server.listen, "the listener stays where it is");
    running = reload.config;

    std::fs::write(&path, text("\"nobody/gpt-5.2\"", "127.0.0.1:1000")).unwrap();
    assert!(reloader.is_changed());
    let errors = reloader.reload(&running, &env).unwrap_err().to_string();
    assert!(errors.contains("there is no provider \"nobody\""), "{errors}");
    assert!(!reloader.is_changed(), "a bad file is told once");

    std::fs::write(&path, text("\"openai/gpt-5-mini\", \"openai/gpt-5.2\"", "127.0.0.1:1000") + "# a comment\n")
        .unwrap();
    assert_eq!(reloader.reload(&running, &env).unwrap().changes.to_string(), "~1 route (chat)");
    let mut keyed =
        good(&text("\"openai/gpt-5.2\"", "127.0.0.1:1000").replace("[server]", "[server]\nkeys = [\"${TEAM_KEY}\"]"));
    keyed.listen_on(([0, 0, 0, 0], 1000).into()).unwrap();
    let opened = reloader.reload(&keyed, &env).unwrap_err().to_string();
    assert!(opened.contains("callers need no key"), "a reload must not open a gateway to everybody: {opened}");
    std::fs::remove_file(&path).unwrap();
    assert!(!reloader.is_changed(), "a file that is being replaced is not judged");
    assert!(reloader.reload(&running, &env).unwrap_err().to_string().contains("cannot be read"));
}

/// `UPDATE=1` prints the settings into the page.
#[test]
fn the_reference_lists_every_setting() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/config.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (start, end) =
        ("<!-- settings: printed from crates/outlast/src/config/file.rs -->\n", "<!-- end of settings -->");
    let (before, rest) = page.split_once(start).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    let printed = format!("{before}{start}\n{}{end}{after}", settings(&outlast::config::schema()));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &printed).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap() == printed,
        "docs/config.md is not what the config reads; run with UPDATE=1"
    );
}

fn settings(schema: &serde_json::Value) -> String {
    let mut text = String::from("## Every setting\n");
    for (name, section) in schema["properties"].as_object().unwrap() {
        let named = section["additionalProperties"].is_object();
        let heading = if named { format!("[{name}.NAME]") } else { format!("[{name}]") };
        let heading = if name == "targets" { "[targets.\"PROVIDER/MODEL\"]".to_owned() } else { heading };
        text += &format!(
            "\n### `{heading}`\n\n{}\n\n| setting | is | says |\n|---|---|---|\n",
            section["description"].as_str().unwrap()
        );
        rows(schema, inside(schema, section).unwrap().1, "", &mut text);
    }
    text + "\n"
}

/// The definition that a schema leads to.
fn resolve<'s>(schema: &'s serde_json::Value, at: &'s serde_json::Value) -> &'s serde_json::Value {
    let reference = at["$ref"].as_str().or_else(|| at["allOf"][0]["$ref"].as_str());
    match reference {
        Some(reference) => &schema["definitions"][reference.rsplit('/').next().unwrap()],
        None => at,
    }
}

/// The settings inside a setting, and how their names begin there: through lists, tables by name, and choices of forms.
fn inside<'s>(schema: &'s serde_json::Value, at: &'s serde_json::Value) -> Option<(String, &'s serde_json::Value)> {
    let at = resolve(schema, at);
    if at["properties"].is_object() {
        return Some((".".to_owned(), at));
    }
    if let Some(forms) = at["anyOf"].as_array() {
        return forms.iter().find_map(|form| inside(schema, form));
    }
    for (within, mark) in [("additionalProperties", ".NAME"), ("items", "[]")] {
        if at[within].is_object() {
            let (prefix, found) = inside(schema, &at[within])?;
            return Some((format!("{mark}{prefix}"), found));
        }
    }
    None
}

/// What a setting is, in a word or two.
fn kind(schema: &serde_json::Value, setting: &serde_json::Value) -> String {
    let target = resolve(schema, setting);
    let pattern = |at: &serde_json::Value, part: &str| at["pattern"].as_str().is_some_and(|p| p.contains(part));
    let words = target["oneOf"].as_array().into_iter().flatten().filter_map(|word| word["const"].as_str());
    let words: Vec<String> = words.map(|word| format!("`\"{word}\"`")).collect();
    match target["type"].as_str() {
        _ if !words.is_empty() => words.join(", "),
        _ if pattern(target, "ms") => "duration".into(),
        _ if target["anyOf"].as_array().is_some_and(|forms| forms.iter().any(|form| pattern(form, "[iI]"))) => {
            "size".into()
        }
        _ if target["anyOf"].is_array() => {
            let forms = target["anyOf"].as_array().unwrap().iter().map(|form| kind(schema, form));
            let mut forms: Vec<String> = forms.collect();
            forms.reverse();
            forms.join(" or ")
        }
        _ if target["enum"].is_array() => "0, 1".into(),
        Some("string") => "text".into(),
        Some("integer") => "whole number".into(),
        Some("array") => "list".into(),
        Some("object") => "table".into(),
        Some(other) => other.to_owned(),
        None => "any value".to_owned(),
    }
}

fn rows(schema: &serde_json::Value, at: &serde_json::Value, prefix: &str, text: &mut String) {
    for (name, setting) in at["properties"].as_object().unwrap() {
        let says = setting["description"].as_str().unwrap();
        *text += &format!("| `{prefix}{name}` | {} | {says} |\n", kind(schema, setting));
        if let Some((mark, found)) = inside(schema, setting) {
            rows(schema, found, &format!("{prefix}{name}{mark}"), text);
        }
    }
}

#[test]
fn every_default_has_its_reason_and_its_value() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/defaults.md")).unwrap();
    let reference = settings(&outlast::config::schema());
    let mut section = "";
    let mut missing = Vec::new();
    for line in reference.lines() {
        if let Some(heading) = line.strip_prefix("### `[") {
            section = heading.split(['.', ']']).next().unwrap();
        }
        let setting = line.strip_prefix("| `").and_then(|row| row.split('`').next());
        let default = line.split(" Default: ").nth(1).map(|rest| rest.trim_end_matches(" |").trim_end_matches('.'));
        // What is inherited has its reason where it comes from.
        let (Some(setting), Some(default)) = (setting, default.filter(|default| !default.starts_with("the "))) else {
            continue;
        };
        let row = format!("| `{section}.{setting}` | {default} |");
        if section != "targets" && !page.contains(&row) {
            missing.push(row);
        }
    }
    assert!(missing.is_empty(), "docs/defaults.md lacks:\n{}", missing.join("\n"));
}
