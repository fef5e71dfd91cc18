//! The command line as the shell sees it: exit codes, and what goes to which stream.

use std::process::{Command, Output};

/// Runs the binary with an environment of its own, in an empty folder.
fn outlast(args: &[&str], env: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
    command.args(args).env_clear().envs(env.iter().copied()).current_dir(folder.path()).output().unwrap()
}

fn example(name: &str) -> String {
    format!("{}/../../examples/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn broken(name: &str) -> String {
    format!("{}/tests/broken/{name}", env!("CARGO_MANIFEST_DIR"))
}

const KEY: (&str, &str) = ("OPENAI_API_KEY", "sk-0123456789abcdef");

#[test]
fn exit_codes_are_those_of_the_documentation() {
    let (minimal, open) = (example("minimal.toml"), broken("open.toml"));
    for (args, code) in [
        (vec!["check", "--config", &minimal], 0),
        (vec!["check", "--json", "--config", &minimal], 0),
        (vec!["check", "--config", &open], 78),
        (vec!["check", "--config", "nowhere.toml"], 78),
        (vec!["explain", "chat", "--config", &minimal], 0),
        (vec!["explain", "caht", "--config", &minimal], 1),
        (vec!["explain", "chat", "--config", &open], 78),
        (vec!["explain"], 2),
        (vec!["chek"], 2),
        (vec!["schema"], 0),
        (vec!["--help"], 0),
        (vec!["--version"], 0),
        (vec!["import", "litellm", "nowhere.yaml"], 66),
        (vec!["import", "litellm", &minimal], 1),
        (vec!["drill", "sim", "--scenario", "1", "--rate", "0.5", "--at-least", "0.5"], 0),
        (vec!["drill", "sim", "--scenario", "1", "--rate", "0.5", "--json"], 0),
        (vec!["drill", "sim", "--scenario", "99"], 2),
        (vec!["drill", "sim", "--rate", "0"], 2),
    ] {
        let output = outlast(&args, &[KEY]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert_eq!(
            output.stdout.is_empty(),
            code != 0,
            "{args:?} answers on standard output, complains on standard error"
        );
    }
}

#[test]
fn check_without_a_file_and_without_a_key_says_what_to_set() {
    let output = outlast(&["check"], &[]);
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("no API key of a known vendor is set") && said.contains("OPENAI_API_KEY"), "{said}");
}

#[test]
fn check_as_json_is_whole_for_good_and_for_broken_configs() {
    let good = outlast(&["check", "--json", "--config", &example("minimal.toml")], &[KEY]);
    let good: serde_json::Value = serde_json::from_slice(&good.stdout).unwrap();
    assert_eq!((&good["ok"], &good["routes"][0]["route"]), (&true.into(), &"chat".into()));

    let broken = outlast(&["check", "--json", "--config", &broken("open.toml")], &[KEY]);
    assert_eq!(broken.status.code(), Some(78));
    let broken: serde_json::Value = serde_json::from_slice(&broken.stdout).unwrap();
    let error = &broken["errors"][0];
    assert_eq!((&error["line"], &error["path"]), (&3.into(), &"server.listen".into()));
    assert!(error["remedy"].as_str().unwrap().starts_with("Add `keys`"), "{error}");
}

#[test]
fn a_file_in_the_working_folder_is_found_and_a_variable_names_another() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(example("minimal.toml"), folder.path().join("outlast.toml")).unwrap();
    let run = |env: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
        let output = command.arg("check").env_clear().envs(env.iter().copied()).current_dir(folder.path()).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    assert!(run(&[KEY]).starts_with("outlast.toml: 1 provider, 2 targets, 1 route\n"));
    let local = example("local-fallback.toml");
    let said = run(&[("ANTHROPIC_API_KEY", "sk-ant-0123456789"), ("OUTLAST_CONFIG", &local)]);
    assert!(said.contains("local-fallback.toml: 2 providers"), "{said}");
}

#[test]
fn an_import_prints_a_config_and_keeps_its_complaints_apart() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = folder.path().join("config.yaml");
    let text = "model_list:\n- model_name: a\n  litellm_params: {model: openai/gpt-5.2, rpm: 3}\n\
                - model_name: b\n  litellm_params: {model: bedrock/x}\n";
    std::fs::write(&yaml, text).unwrap();
    let output = outlast(&["import", "litellm", yaml.to_str().unwrap()], &[]);
    assert_eq!(output.status.code(), Some(0));
    let (config, notes) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(notes.contains("model_list[1]: left out: bedrock") && notes.contains("rpm"), "{notes}");
    let toml = folder.path().join("outlast.toml");
    std::fs::write(&toml, config).unwrap();
    assert_eq!(outlast(&["check", "--config", toml.to_str().unwrap()], &[KEY]).status.code(), Some(0));
}

#[test]
fn the_environments_config_can_be_saved_and_passes_check() {
    let output = outlast(&["check", "--from-env"], &[KEY, ("GROQ_API_KEY", "gsk-0123456789abcdef")]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("api_key = \"${GROQ_API_KEY}\"") && !text.contains("gsk-"), "{text}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outlast.toml");
    std::fs::write(&file, text).unwrap();
    let env = [KEY, ("GROQ_API_KEY", "gsk-0123456789abcdef")];
    assert_eq!(outlast(&["check", "--config", file.to_str().unwrap()], &env).status.code(), Some(0));
}

#[test]
fn a_simulation_is_a_table_and_a_score_below_the_bar_is_a_failure_that_names_it() {
    let output = outlast(&["drill", "sim", "--scenario", "1", "--rate", "0.5", "--at-least", "1.1"], &[]);
    assert_eq!(output.status.code(), Some(1));
    let (table, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(table.contains("A answers 503") && table.contains("suite "), "{table}");
    assert!(said.contains("below the bar: 1 at 0.5 rps"), "{said}");
}

#[test]
fn explain_counts_what_comparing_texts_would_cost() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outlast.toml");
    let text = "[providers.a]\nkind = \"openai-compatible\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
        [targets.\"a/m\"]\nprice = { input = 1.0, output = 10.0 }\n\
        [tiers.v]\nattempts = 1\nvotes = { ahead = 2, samples = 3, judge = { route = \"compare\" } }\n\
        [routes.main]\ntargets = [\"a/m\"]\ntier = \"v\"\n[routes.compare]\ntargets = [\"a/m\"]\n";
    std::fs::write(&file, text).unwrap();
    let told = outlast(&["explain", "main", "--json", "--config", file.to_str().unwrap()], &[]);
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    let price = &told["price"];
    // Three votes of $0.004, and three pairs of texts at $0.0022.
    assert_eq!(price["comparison_usd"], serde_json::json!(0.0022), "{told}");
    assert_eq!(price["worst_usd"], serde_json::json!(0.0186), "{told}");
}
