//! Whatever is in the file: what loads is whole, what does not is told with a place, and nothing panics.

use outlast::config::Config;
use outlast_model::policy::{BackstopKind, StreamContract};
use proptest::prelude::*;
use std::{collections::BTreeSet, fmt::Write, path::Path};

fn env(name: &str) -> Option<String> {
    name.starts_with("SET").then(|| format!("value-of-{name}-0123456789"))
}

/// What the examples ask for, so that what is damaged is their text.
fn everything(name: &str) -> Option<String> {
    match name {
        "PROVIDER_URL" | "REFUND_DOWNSTREAM" => Some("http://127.0.0.1:9100".to_owned()),
        "OUTLAST_DATA_KEY" => Some("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=".to_owned()),
        name => Some(format!("value-of-{name}-0123456789")),
    }
}

/// Mostly good, now and then not: a file of a dozen choices should still load about half the time.
fn mostly<T: Clone + std::fmt::Debug + 'static>(good: Vec<T>, bad: Vec<T>) -> impl Strategy<Value = T> {
    prop_oneof![24 => prop::sample::select(good), 1 => prop::sample::select(bad)]
}

/// Words that make references meet, or miss.
fn provider() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["openai", "anthropic", "gpu", "gpu2"])
}

fn target() -> impl Strategy<Value = String> {
    let model = prop::sample::select(vec!["gpt-5.2", "claude-sonnet-5", "llama", "org/model"]);
    prop_oneof![
        40 => (provider(), model).prop_map(|(provider, model)| format!("{provider}/{model}")),
        1 => Just("nobody/model".to_owned()),
        1 => Just("no-slash".to_owned()),
    ]
}

fn maybe(name: &'static str, good: &[&'static str], bad: &[&'static str]) -> impl Strategy<Value = String> {
    prop::option::weighted(0.4, mostly(good.to_vec(), bad.to_vec())).prop_map(move |value| match value {
        Some(value) => format!("{name} = {value}\n"),
        None => String::new(),
    })
}

prop_compose! {
    fn route()(
        name in mostly(vec!["chat", "fast", "gpt-5.2"], vec!["openai/gpt-5.2", "a b"]),
        targets in prop::collection::btree_set(target(), 1..6),
        twice in prop::bool::weighted(0.04),
        tier in maybe("tier", &["\"basic\"", "\"critical\"", "\"mine\""], &["\"lost\""]),
        contract in maybe("contract", &["\"careful\"", "\"rag\"", "\"chat\""], &["\"lost\""]),
        backstops in maybe("backstops", &["[\"cache\", \"fail\"]", "[\"sorry\"]"], &["[\"fail\", \"cache\"]", "[\"queue\"]"]),
        ranking in maybe("ranking", &["\"order\"", "\"weight\"", "\"cost\""], &["\"speed\""]),
    ) -> (String, String) {
        let repeated = targets.iter().take(usize::from(twice));
        let targets: Vec<String> = targets.iter().chain(repeated).map(|target| format!("{target:?}")).collect();
        (name.to_owned(), format!("[routes.{name:?}]\ntargets = [{}]\n{tier}{contract}{backstops}{ranking}", targets.join(", ")))
    }
}

prop_compose! {
    fn file()(
        direct in maybe("direct", &["\"named\"", "\"catalogue\"", "\"off\""], &["\"on\""]),
        providers in prop_oneof![
            4 => Just(BTreeSet::from(["openai", "anthropic", "gpu", "gpu2"])),
            1 => prop::collection::btree_set(provider(), 1..5),
        ],
        key in mostly(vec!["SET_A", "SET_B"], vec!["MISSING"]),
        overlays in prop::collection::btree_set(target(), 0..6),
        routes in prop::collection::vec(route(), 1..5),
        odd in prop::bool::weighted(0.04),
    ) -> String {
        let mut text = format!("[server]\n{direct}");
        for provider in providers {
            let kind = if provider.starts_with("gpu") { "openai-compatible" } else { provider };
            let _ = write!(text, "[providers.{provider}]\nkind = \"{kind}\"\napi_key = \"${{{key}}}\"\n");
            if provider.starts_with("gpu") {
                let _ = writeln!(text, "base_url = \"http://{provider}:8000/v1\"");
            }
        }
        for overlay in overlays {
            let _ = write!(text, "[targets.{overlay:?}]\ncontext_window = 4096\n");
        }
        let mut names = BTreeSet::new();
        for (_, route) in routes.iter().filter(|(name, _)| names.insert(name.clone())) {
            text.push_str(route);
        }
        if text.contains("\"mine\"") != odd {
            text.push_str("[tiers.mine]\nattempts = 2\nvotes = {}\n");
        }
        if text.contains("\"careful\"") != odd {
            text.push_str("[contracts.careful]\nstream = \"buffer\"\n");
        }
        if text.contains("\"sorry\"") {
            text.push_str("[backstops.sorry]\nkind = \"static\"\nreply = \"Later, {{ request.user }}.\"\n");
        }
        text
    }
}

fn whole(config: &Config) {
    for provider in &config.providers {
        assert_eq!(config.provider(provider.id.as_str()), Some(provider));
    }
    for target in &config.targets {
        assert_eq!(config.target(target.id.as_str()), Some(target));
        let provider = config.provider_of(&target.id).expect("every target has its provider");
        assert_eq!((&target.provider, usize::from(target.keys)), (&provider.id, provider.keys.len().max(1)));
    }
    for (id, route) in &config.routes {
        assert_eq!(config.route(id.as_str()), Some(route));
        assert!(!route.targets.is_empty());
        let unique: BTreeSet<&str> = route.targets.iter().map(|entry| entry.target.as_str()).collect();
        assert_eq!(unique.len(), route.targets.len());
        let providers: BTreeSet<&str> = route.targets.iter().map(|entry| entry.target.provider()).collect();
        assert!(providers.len() >= usize::from(route.tier.distinct_providers));
        assert!(route.targets.iter().all(|entry| config.target(entry.target.as_str()).is_some()), "{id} dangles");
        assert_eq!(config.gates(id).contract(), &route.contract, "{id} is judged by its own contract");
        let judged = route.contract.judges_whole_replies() || route.tier.votes.is_some();
        assert!(!judged || route.contract.stream == StreamContract::Buffer, "{id} shows what is still to be judged");
        let ends = route.backstops.iter().position(|end| matches!(end.kind, BackstopKind::Fail { .. }));
        assert!(ends.is_none_or(|at| at + 1 == route.backstops.len()), "{id} goes on after its end");
        let hidden = config.target(id.as_str()).is_some();
        assert!(!hidden, "{id} hides a target");
    }
    let reachable = |provider: &str| config.targets.iter().any(|target| target.provider.as_str() == provider);
    assert!(config.providers.iter().all(|provider| reachable(provider.id.as_str())));
    assert!(config.route("nobody/model").is_none() && config.route("").is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_loads_has_no_dangling_reference_and_what_does_not_is_told_with_its_place(text in file()) {
        match Config::from_text(&text, "outlast.toml", Path::new(""), &env) {
            Ok(config) => whole(&config),
            Err(errors) => {
                prop_assert!(!errors.0.is_empty());
                let lines = u32::try_from(text.lines().count()).unwrap();
                for error in &errors.0 {
                    prop_assert!(error.line.is_none_or(|line| (1..=lines).contains(&line)), "{error}\n{text}");
                    prop_assert!(!error.what.is_empty() && !error.remedy.is_empty());
                    prop_assert!(!error.to_string().contains("value-of-"), "{error}");
                }
            }
        }
    }

    #[test]
    fn no_damage_to_a_file_makes_the_reader_panic(at in 0usize..5000, bytes in prop::collection::vec(any::<char>(), 0..6), cut in 0usize..40) {
        for text in [
            include_str!("../../../examples/two-vendors.toml"),
            include_str!("../../../examples/support-contract.toml"),
            include_str!("../../../examples/refund.toml"),
        ] {
            let boundary = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            let (start, end) = (boundary(at), boundary(at + cut));
            let damaged = format!("{}{}{}", &text[..start], bytes.iter().collect::<String>(), &text[end..]);
            let _ = Config::from_text(&damaged, "outlast.toml", Path::new("../../examples"), &everything);
        }
    }
}

#[test]
fn the_generator_makes_good_files_as_well_as_bad_ones() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let mut good = 0;
    for _ in 0..100 {
        let text = file().new_tree(&mut runner).unwrap().current();
        good += usize::from(Config::from_text(&text, "outlast.toml", Path::new(""), &env).is_ok());
    }
    assert!((10..90).contains(&good), "{good} of 100 load");
}
