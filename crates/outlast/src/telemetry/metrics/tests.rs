//! The exposition is read back by a strict parser of the text format.

use crate::{
    clock::Clock,
    telemetry::{
        LogFields, Telemetry,
        fixture::{Log, failed, options, plain, rerouted},
    },
};
use outlast_engine::{Fleet, TargetState, TargetView};
use outlast_model::{
    Gate, Mono, Problem, RouteId, TargetId,
    policy::{BackstopName, Capabilities, Dialect, Fix, HealthPolicy, TargetSpec, Timeouts},
    record::{Agreement, AttemptReason, BackstopUse, GaveUp, Outcome},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

#[test]
fn the_exposition_is_valid_and_says_what_happened() {
    let telemetry = Telemetry::start_with(options(), Clock::seeded(1), Box::new(Log::default())).unwrap();
    let targets = [TargetId::from("openai/small"), TargetId::from("anthropic/large")];
    telemetry.metrics().install(&[RouteId::from("support")], &targets);
    for call in [plain("req_1"), plain("req_2"), rerouted("req_3"), failed("req_4")] {
        telemetry.record(call, LogFields { status: 200, ..LogFields::default() });
    }
    telemetry.metrics().calls_in_flight.add(3);
    let samples = parse(&telemetry.expose(&[]));

    let expected = [
        ("outlast_calls_total{outcome=answered,route=support,target=openai/small}", 2.0),
        ("outlast_calls_total{outcome=answered,route=support,target=anthropic/large}", 1.0),
        ("outlast_calls_total{outcome=failed,route=support,target=openai/small}", 1.0),
        ("outlast_failovers_total{route=support}", 1.0),
        ("outlast_attempts_total{target=openai/small}", 4.0),
        ("outlast_wasted_calls_total{target=openai/small}", 2.0),
        ("outlast_wasted_calls_total{target=anthropic/large}", 0.0),
        ("outlast_failures_total{detail=first_token,failure=timeout,target=openai/small}", 1.0),
        ("outlast_failures_total{detail=,failure=overloaded,target=openai/small}", 1.0),
        ("outlast_calls_in_flight{}", 3.0),
        (
            "gen_ai_server_request_duration_seconds_count{error_type=,gen_ai_operation_name=chat,\
             gen_ai_provider_name=outlast,gen_ai_request_model=support}",
            3.0,
        ),
        (
            "gen_ai_client_operation_duration_seconds_bucket{error_type=,gen_ai_operation_name=chat,\
             gen_ai_provider_name=openai,gen_ai_request_model=small,le=1.28}",
            2.0,
        ),
        (
            "gen_ai_client_token_usage_sum{gen_ai_operation_name=chat,gen_ai_provider_name=openai,\
             gen_ai_request_model=small,gen_ai_token_type=output}",
            80.0,
        ),
    ];
    for (series, value) in expected {
        assert_eq!(samples.get(series), Some(&value), "{series}");
    }
    for process in ["process_resident_memory_bytes{}", "process_cpu_seconds_total{}", "process_open_fds{}"] {
        assert_eq!(samples.contains_key(process), cfg!(target_os = "linux"), "{process}");
    }
}

#[test]
fn what_contracts_did_to_calls_is_counted_by_bounded_names() {
    let telemetry = Telemetry::start_with(options(), Clock::seeded(1), Box::new(Log::default())).unwrap();
    let targets = [TargetId::from("openai/small"), TargetId::from("anthropic/large")];
    telemetry.metrics().install(&[RouteId::from("support")], &targets);
    let mut repaired = rerouted("req_1");
    repaired.attempts[0].problems = vec![Problem::at(Gate::Drift, "field"), Problem::at(Gate::Citation, "none")];
    repaired.attempts[1].reason = AttemptReason::Repair;
    repaired.attempts[1].fixes = vec![Fix::Fences];
    repaired.agreement = Some(Agreement { votes_for: 2, votes: 3, dropped: 1 });
    (repaired.degraded, repaired.gave_up) = (true, vec![GaveUp::Schema, GaveUp::Input]);
    let mut queued = plain("req_2");
    (queued.outcome, queued.served_by) = (Outcome::Deferred, None);
    queued.backstop = Some(BackstopUse { name: "later".into(), kind: BackstopName::Queue });
    (queued.degraded, queued.gave_up) = (true, vec![GaveUp::Immediacy]);
    for call in [repaired, queued] {
        telemetry.record(call, LogFields::default());
    }
    let samples = parse(&telemetry.expose(&[]));
    for (series, value) in [
        ("outlast_gave_up_total{route=support,what=schema}", 1.0),
        ("outlast_gave_up_total{route=support,what=immediacy}", 1.0),
        ("outlast_degraded_total{route=support}", 2.0),
        ("outlast_backstops_total{kind=queue,route=support}", 1.0),
        ("outlast_votes_total{result=for,route=support}", 2.0),
        ("outlast_votes_total{result=against,route=support}", 1.0),
        ("outlast_votes_total{result=dropped,route=support}", 1.0),
        ("outlast_gate_failures_total{gate=drift,target=openai/small}", 1.0),
        ("outlast_repairs_total{kind=fences,result=served,target=anthropic/large}", 1.0),
        ("outlast_repairs_total{kind=model,result=served,target=anthropic/large}", 1.0),
        ("outlast_calls_total{outcome=deferred,route=support,target=openai/small}", 1.0),
    ] {
        assert_eq!(samples.get(series), Some(&value), "{series}");
    }
}

#[test]
fn a_targets_breaker_shows_as_one_of_its_states_with_its_share() {
    let telemetry = Telemetry::start_with(options(), Clock::seeded(1), Box::new(Log::default())).unwrap();
    let states = [
        (TargetState::Closed, "closed", 1.0),
        (TargetState::Open, "open", 0.0),
        (TargetState::HalfOpen, "half_open", 0.0),
        (TargetState::Restoring { share: 0.05 }, "restoring", 0.05),
    ];
    for (state, name, share) in states {
        let mut views = views();
        views[0].state = state;
        views[0].keys_out = vec![0, 1];
        views[0].limited_for = Some(Duration::from_millis(1500));
        let samples = parse(&telemetry.expose(&views));
        for label in ["closed", "open", "half_open", "restoring", "retired"] {
            let series = format!("outlast_breaker_state{{state={label},target=openai/small}}");
            assert_eq!(samples[&series], f64::from(u8::from(label == name)), "{series} while {name}");
        }
        assert_eq!(samples["outlast_target_share{target=openai/small}"], share);
        assert_eq!(samples["outlast_target_keys_out{target=openai/small}"], 2.0);
        assert_eq!(samples["outlast_target_limited_seconds{target=openai/small}"], 1.5);
    }
}

/// One target, as a new fleet sees it.
fn views() -> Vec<TargetView> {
    let second = Duration::from_secs(1);
    let timeouts = Timeouts { connect: second, header: second, first_token: second, idle: second, total: second };
    let target = TargetSpec {
        id: "openai/small".into(),
        provider: "openai".into(),
        region: None,
        dialect: Dialect::OpenaiChat,
        capabilities: Capabilities::default(),
        context_window: None,
        max_output: None,
        price: None,
        timeouts,
        keys: 2,
        probes: false,
    };
    let mut fleet = Fleet::new(HealthPolicy::default(), 1);
    fleet.install(HealthPolicy::default(), &[target], Mono::ZERO);
    fleet.view(Mono::ZERO)
}

#[test]
fn names_that_are_not_configured_share_one_label() {
    let telemetry = Telemetry::start_with(options(), Clock::seeded(1), Box::new(Log::default())).unwrap();
    for n in 0..500 {
        let mut call = plain(&format!("req_{n}"));
        call.route = RouteId::new(format!("made up \"{n}\"\n"));
        telemetry.record(call, LogFields::default());
    }
    let text = telemetry.expose(&[]);
    assert!(!text.contains("made up"));
    let samples = parse(&text);
    assert_eq!(samples["outlast_calls_total{outcome=answered,route=other,target=other}"], 500.0);
}

#[test]
fn a_target_named_as_a_route_is_a_label_of_its_own() {
    let telemetry = Telemetry::start_with(options(), Clock::seeded(1), Box::new(Log::default())).unwrap();
    telemetry.metrics().install(&[], &[TargetId::from("openai/small")]);
    telemetry.record(
        outlast_model::record::CallRecord { route: "openai/small".into(), ..plain("req_1") },
        LogFields::default(),
    );
    let samples = parse(&telemetry.expose(&[]));
    assert_eq!(samples["outlast_calls_total{outcome=answered,route=openai/small,target=openai/small}"], 1.0);
}

#[test]
fn counters_survive_a_reload_and_departed_names_do_not_pile_up() {
    let telemetry = Telemetry::start_with(options(), Clock::seeded(1), Box::new(Log::default())).unwrap();
    let targets = [TargetId::from("openai/small")];
    telemetry.metrics().install(&[RouteId::from("support")], &targets);
    telemetry.record(plain("req_1"), LogFields::default());
    for generation in 0..5000 {
        let routes = [RouteId::new(format!("route-{generation}")), RouteId::from("support")];
        telemetry.metrics().install(&routes, &targets);
    }
    let samples = parse(&telemetry.expose(&[]));
    assert_eq!(samples["outlast_attempts_total{target=openai/small}"], 1.0);
    let routes = samples.keys().filter(|series| series.starts_with("outlast_failovers_total")).count();
    assert!(routes < 2000, "{routes}");
}

#[test]
fn label_values_are_escaped() {
    let telemetry = Telemetry::start_with(options(), Clock::seeded(1), Box::new(Log::default())).unwrap();
    let odd = RouteId::from("a \"b\" \\ c\nd");
    telemetry.metrics().install(std::slice::from_ref(&odd), &[]);
    let samples = parse(&telemetry.expose(&[]));
    assert!(samples.contains_key("outlast_failovers_total{route=a \"b\" \\ c\nd}"));
}

/// Reads the text format and refuses whatever Prometheus or its linter would: samples before their head, families in
/// pieces, repeated series, bad names, bad escapes, counters not named so, histograms that do not add up.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut families = BTreeSet::new();
    let (mut family, mut kind) = (String::new(), String::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("# HELP ") {
            let (name, help) = head.split_once(' ').unwrap();
            assert!(families.insert(name.to_owned()), "{name} comes in pieces");
            assert!(is_name(name) && !help.is_empty(), "{line}");
            (family, kind) = (name.to_owned(), String::new());
        } else if let Some(head) = line.strip_prefix("# TYPE ") {
            let (name, of) = head.split_once(' ').unwrap();
            assert_eq!((name, kind.as_str()), (family.as_str(), ""), "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&of), "{line}");
            assert_eq!(of == "counter", name.ends_with("_total"), "{line}");
            kind = of.to_owned();
        } else {
            let (name, labels, value) = sample(line);
            let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("{line} is not of {family}"));
            let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{line}");
            assert_eq!(suffix == "_bucket", labels.contains_key("le"), "{line}");
            assert!(kind == "gauge" || value >= 0.0, "{line}");
            let labels: Vec<_> = labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
            let series = format!("{name}{{{}}}", labels.join(","));
            assert!(samples.insert(series, value).is_none(), "{line} is repeated");
        }
    }
    check_histograms(text);
    samples
}

fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let name: String = line.chars().take_while(|c| *c != '{' && *c != ' ').collect();
    assert!(is_name(&name), "{line}");
    let mut rest = &line[name.len()..];
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap();
            assert!(is_name(label) && !label.contains(':'), "{line}");
            let (mut value, mut chars) = (String::new(), after.char_indices());
            let end = loop {
                match chars.next().unwrap_or_else(|| panic!("{line} has no end")) {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match chars.next().unwrap().1 {
                        'n' => '\n',
                        c @ ('\\' | '"') => c,
                        c => panic!("{line} has a bad escape {c}"),
                    }),
                    (_, c) => value.push(c),
                }
            };
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
            rest = &after[end + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').unwrap();
    }
    let value = rest.strip_prefix(' ').unwrap().parse().unwrap_or_else(|_| panic!("{line}"));
    (name, labels, value)
}

fn check_histograms(text: &str) {
    let mut below: Option<(f64, f64)> = None;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels, value) = sample(line);
        if let Some(bound) = labels.get("le") {
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
            if let Some((last_bound, last)) = below {
                assert!(bound > last_bound && value >= last, "{line}");
            }
            below = Some((bound, value));
        } else if let (Some((bound, all)), true) = (below, name.ends_with("_count")) {
            assert!(bound.is_infinite() && all == value, "{line}");
            below = None;
        }
    }
    assert!(below.is_none());
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}
