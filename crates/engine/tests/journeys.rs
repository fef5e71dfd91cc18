//! What becomes of calls when their targets misbehave, as tables of events and times.

mod world;

use outlast_engine::*;
use outlast_model::{
    Failure, FailureReport, Findings, Mono,
    failure::{ConnectionFault, Deadline},
    policy::*,
    record::{AttemptReason, Decision, Outcome, WhyLeftOut},
};
use std::{sync::Arc, time::Duration};
use world::*;

/// One call over two targets; the primary behaves as scripted, the second is well.
fn one_call(needs: Needs, primary: impl Fn(&Question) -> Script + 'static) -> World {
    one_call_on(route(&["a/m", "b/m"]), needs, primary)
}

fn one_call_on(route: Route, needs: Needs, primary: impl Fn(&Question) -> Script + 'static) -> World {
    let targets = [target("a/m"), target("b/m")];
    let mut world = World::new(&targets, route, move |q, _| if q.target.as_str() == "a/m" { primary(q) } else { ok() });
    world.arrive(at(1.0), needs);
    world.run_until(at(120.0));
    assert!(world.all_settled());
    world
}

fn path(world: &World, call: usize) -> Vec<(String, AttemptReason, Decision)> {
    let attempts = &world.settled(call).attempts;
    attempts.iter().map(|a| (a.target.to_string(), a.reason, a.decision)).collect()
}

#[test]
fn a_plain_stream_is_released_at_its_first_output_and_delivered_at_its_end() {
    let world = one_call(stream(), |_| ok());
    let seen = &world.calls[0];
    assert_eq!(seen.released, Some((0, at(1.3))));
    assert_eq!(seen.delivered, Some((Source::Attempt(0), at(1.4))));
    let settled = world.settled(0);
    assert_eq!(settled.outcome, Outcome::Answered);
    assert_eq!(settled.served_by.as_ref().unwrap().as_str(), "a/m");
    assert_eq!((settled.first_output_us, settled.latency_us), (Some(300_000), 400_000));
    assert_eq!(settled.planned.len(), 2);
    assert_eq!(settled.wasted.as_nanos(), 0);
    // 100 x $3 and 5 x $15 a million
    assert_eq!(settled.cost.as_nanos(), 300_000 + 75_000);
}

#[test]
fn each_failure_leads_where_the_table_says() {
    use {AttemptReason as R, Decision as D};
    let reroute = |first: D| vec![("a/m", R::First, first), ("b/m", R::Reroute, D::Deliver)];
    let returned = |d: D| vec![("a/m", R::First, d)];
    let retried =
        vec![("a/m", R::First, D::RetrySame), ("a/m", R::SameTarget, D::Reroute), ("b/m", R::Reroute, D::Deliver)];
    let table = [
        (Failure::Timeout(Deadline::Connect), reroute(D::Reroute)),
        (Failure::Timeout(Deadline::Header), reroute(D::Reroute)),
        (Failure::Timeout(Deadline::FirstToken), reroute(D::Reroute)),
        (Failure::Connection(ConnectionFault::Refused), reroute(D::Reroute)),
        (Failure::Connection(ConnectionFault::Dns), reroute(D::Reroute)),
        (Failure::Connection(ConnectionFault::Reset), retried.clone()),
        (Failure::ServerError, retried.clone()),
        (Failure::Overloaded, reroute(D::Reroute)),
        (Failure::RateLimited, reroute(D::Reroute)),
        (Failure::QuotaExhausted, reroute(D::Reroute)),
        (Failure::Auth, reroute(D::Reroute)),
        (Failure::ContextExceeded, reroute(D::Reroute)),
        (Failure::MalformedReply, reroute(D::Reroute)),
        (Failure::Empty, retried),
        (Failure::SchemaError, reroute(D::Reroute)),
        (Failure::Truncated, reroute(D::Reroute)),
        (Failure::ToolMismatch, reroute(D::Reroute)),
        (Failure::Quality, reroute(D::Reroute)),
        (Failure::AccessDenied, reroute(D::Reroute)),
        (Failure::StreamInterrupted, reroute(D::Reroute)),
        (Failure::Unsupported, reroute(D::Reroute)),
        (Failure::Refusal, returned(D::ReturnReason)),
        (Failure::SafetyBlock, returned(D::ReturnReason)),
        (Failure::InvalidRequest, returned(D::ReturnReason)),
    ];
    for needs in [stream(), whole()] {
        for (failure, expected) in &table {
            let failure = *failure;
            let world = one_call(needs.clone(), move |_| fail(failure));
            let got = path(&world, 0);
            let got: Vec<_> = got.iter().map(|(t, r, d)| (t.as_str(), *r, *d)).collect();
            assert_eq!(&got, expected, "{failure}, stream: {}", needs.stream);
        }
    }
}

#[test]
fn a_found_problem_leads_where_the_table_says_and_only_a_lone_refusal_is_the_reply() {
    let whole_json = Needs { output: OutputNeed::JsonSchema, ..stream() };
    for (failure, targets) in [
        (Failure::SchemaError, vec!["a/m", "b/m"]),
        (Failure::Truncated, vec!["a/m", "b/m"]),
        (Failure::ToolMismatch, vec!["a/m", "b/m"]),
        (Failure::Empty, vec!["a/m", "a/m", "b/m"]),
        (Failure::SafetyBlock, vec!["a/m"]),
        (Failure::Refusal, vec!["a/m"]),
    ] {
        let world = one_call(whole_json.clone(), move |_| bad(failure));
        let asked: Vec<_> = world.calls[0].starts.iter().map(|(_, target, _)| target.as_str()).collect();
        assert_eq!(asked, targets, "{failure}");
        assert_eq!(world.calls[0].delivered.is_some(), failure != Failure::SafetyBlock, "{failure}");
        assert!(world.calls[0].released.is_none(), "JSON is buffered whole");
    }
}

#[test]
fn a_refusal_moves_on_only_if_the_contract_says_so_and_is_given_if_everybody_refuses() {
    let mut lenient = route(&["a/m", "b/m"]);
    lenient.contract =
        Arc::new(Contract { refusal: RefusalPolicy::Reroute, ..Contract::plain("x", StreamContract::Fail) });
    let world = one_call_on(lenient.clone(), whole(), |_| bad(Failure::Refusal));
    assert_eq!(world.settled(0).served_by.as_ref().unwrap().as_str(), "b/m");
    let targets = [target("a/m"), target("b/m")];
    let mut world = World::new(&targets, lenient, |_, _| bad(Failure::Refusal));
    world.arrive(at(1.0), whole());
    world.run_until(at(60.0));
    assert_eq!(world.calls[0].delivered.unwrap().0, Source::Attempt(1), "the last refusal is the reply");
}

#[test]
fn a_server_error_of_a_target_that_was_blamed_before_moves_on_at_once() {
    let targets = [target("a/m"), target("b/m")];
    let mut world = World::new(&targets, route(&["a/m", "b/m"]), |q, _| {
        if q.target.as_str() == "a/m" { fail(Failure::ServerError) } else { ok() }
    });
    world.arrive(at(1.0), stream());
    world.arrive(at(3.0), stream());
    world.run_until(at(60.0));
    assert_eq!(world.calls[0].starts.len(), 3, "one retry while it was blameless");
    assert_eq!(world.calls[1].starts.len(), 2, "none after that");
}

#[test]
fn a_retry_after_of_two_seconds_is_waited_for_and_of_three_is_not() {
    for (secs, targets) in [(2, vec!["a/m", "a/m"]), (3, vec!["a/m", "b/m"])] {
        let world = one_call(stream(), move |q| match q.earlier {
            0 => fail_after(ms(50), Failure::ServerError, Some(Duration::from_secs(secs))),
            _ => ok(),
        });
        let asked: Vec<_> = world.calls[0].starts.iter().map(|(_, target, _)| target.as_str()).collect();
        assert_eq!(asked, targets, "{secs} s");
    }
}

#[test]
fn a_cut_before_the_commit_point_is_silent_and_after_it_a_typed_error() {
    let cut = |_: &Question| Script::Cut {
        first: ms(100),
        tokens: 10,
        gap: ms(20),
        report: FailureReport::of(Failure::StreamInterrupted),
    };
    for (contract, interrupted) in [
        (StreamContract::Fail, true),
        (StreamContract::Hold { tokens: 8, after: ms(500) }, true),
        (StreamContract::Hold { tokens: 80, after: ms(150) }, true),
        (StreamContract::Hold { tokens: 32, after: ms(500) }, false),
        (StreamContract::Buffer, false),
    ] {
        let mut held = route(&["a/m", "b/m"]);
        held.contract = Arc::new(Contract::plain("x", contract));
        let world = one_call_on(held, stream(), cut);
        let outcome = world.settled(0).outcome;
        if interrupted {
            assert_eq!(outcome, Outcome::Interrupted(Failure::StreamInterrupted), "{contract:?}");
            assert_eq!(world.calls[0].starts.len(), 1);
        } else {
            assert_eq!(outcome, Outcome::Answered, "{contract:?}");
            assert_eq!(world.calls[0].starts.len(), 2);
        }
    }
}

#[test]
fn a_hold_ends_at_its_tokens_or_its_time_whichever_comes_first() {
    for (tokens, after, released) in [(3, ms(500), 1.34), (50, ms(30), 1.33), (500, ms(500), 1.4)] {
        let mut held = route(&["a/m"]);
        let stream_contract = StreamContract::Hold { tokens, after };
        held.contract = Arc::new(Contract::plain("x", stream_contract));
        let world = one_call_on(held, stream(), |_| ok());
        match world.calls[0].released {
            Some((_, when)) => assert_eq!(when, at(released)),
            None => assert_eq!(world.calls[0].delivered.unwrap().1, at(released), "shorter than the hold"),
        }
    }
}

#[test]
fn the_five_deadlines_end_an_attempt_and_the_calls_own_ends_the_call() {
    let silent_after = |first: u64, tokens: u32| Script::Answer {
        first: ms(first),
        tokens,
        gap: Duration::from_secs(200),
        findings: Findings::CLEAN,
    };
    let lone = || {
        let mut lone = route(&["a/m"]);
        lone.tier = tier(1, Duration::from_secs(100));
        lone
    };
    let world = one_call_on(lone(), stream(), |_| Script::Hang);
    assert_eq!(world.calls[0].rejected.as_ref().unwrap().4, at(46.0), "first token after 45 s");
    let world = one_call_on(lone(), whole(), |_| Script::Hang);
    assert_eq!(world.calls[0].rejected.as_ref().unwrap().4, at(61.0), "header after 60 s");
    let world = one_call_on(lone(), stream(), move |_| silent_after(1000, 2));
    let (_, _, _, after_commit, when) = world.calls[0].rejected.clone().unwrap();
    assert_eq!((after_commit, when), (true, at(32.0)), "idle for 30 s after the first output");
    let mut short = lone();
    short.tier = tier(1, Duration::from_secs(20));
    let world = one_call_on(short, stream(), |_| Script::Hang);
    assert_eq!(world.settled(0).outcome, Outcome::Failed(Failure::Timeout(Deadline::Total)));
    assert_eq!(world.calls[0].rejected.as_ref().unwrap().4, at(21.0));
}

#[test]
fn every_path_spent_names_the_first_cause_and_tells_the_sdk_not_to_retry() {
    let targets = [target("a/m"), target("b/m")];
    let mut world = World::new(&targets, route(&["a/m", "b/m"]), |q, _| match q.target.as_str() {
        "a/m" => fail(Failure::Overloaded),
        _ => fail(Failure::MalformedReply),
    });
    world.arrive(at(1.0), whole());
    world.run_until(at(60.0));
    let (failure, cause, retry, ..) = world.calls[0].rejected.clone().unwrap();
    assert_eq!(failure.failure, Failure::Exhausted);
    assert_eq!(cause.unwrap().failure, Failure::Overloaded);
    assert!(!retry.should_retry);
    assert_eq!(world.settled(0).outcome, Outcome::Failed(Failure::Exhausted));
    assert_eq!(world.settled(0).wasted, world.settled(0).cost);
}

#[test]
fn a_full_house_sheds_with_a_time_to_come_back_and_settles() {
    let policy = HealthPolicy { max_in_flight: 2, ..HealthPolicy::default() };
    let mut world = World::seeded(1, policy, &[target("a/m")], route(&["a/m"]), |_, _| ok());
    (0..3).for_each(|_| world.arrive(at(1.0), stream()));
    world.arrive(at(5.0), stream());
    world.run_until(at(60.0));
    let (failure, _, retry, ..) = world.calls[2].rejected.clone().unwrap();
    assert_eq!(failure.failure, Failure::Overloaded);
    assert!(retry.should_retry && retry.retry_after.is_some());
    assert!(world.settled(2).attempts.is_empty());
    assert!(world.calls[3].delivered.is_some(), "the places are free again");
}

#[test]
fn a_client_that_leaves_closes_the_exchange_and_moves_no_breaker() {
    let mut world = World::new(&[target("a/m")], route(&["a/m"]), |_, _| Script::Hang);
    for call in 0..20 {
        world.arrive(at(1.0 + call as f64), stream());
        world.client_leaves(at(3.0 + call as f64), call);
    }
    world.run_until(at(60.0));
    assert!(world.calls.iter().all(|seen| seen.settled.as_ref().unwrap().outcome == Outcome::Cancelled));
    let view = world.state("a/m");
    assert_eq!((view.state, view.evidence, view.in_flight), (TargetState::Closed, 0.0, 0));
    let attempt = &world.settled(0).attempts[0];
    assert_eq!((attempt.decision, attempt.usage.input_tokens), (Decision::Cancel, 100), "the bill is settled");
}

#[test]
fn the_clients_own_errors_and_429s_never_move_a_breaker() {
    for failure in [Failure::InvalidRequest, Failure::ContextExceeded, Failure::Unsupported, Failure::RateLimited] {
        let mut world = World::new(&[target("a/m")], route(&["a/m"]), move |_, _| fail(failure));
        world.arrive_steadily(2.0, 1.0, 100.0, &whole());
        world.run_until(at(200.0));
        let view = world.state("a/m");
        assert_eq!((view.state, view.evidence), (TargetState::Closed, 0.0), "{failure}");
    }
}

#[test]
fn a_target_is_left_out_with_its_reason() {
    let incapable = TargetSpec {
        capabilities: Capabilities { tools: Ability::No, ..target("a/m").capabilities },
        ..target("tools/no")
    };
    let unsure = TargetSpec { capabilities: Capabilities::default(), ..target("tools/unknown") };
    let small = TargetSpec { context_window: Some(1000), ..target("small/m") };
    let terse = TargetSpec { max_output: Some(100), ..target("terse/m") };
    let targets = [incapable, unsure, small, terse, target("sure/m")];
    let names: Vec<_> = targets.iter().map(|target| target.id.to_string()).collect();
    let listed: Vec<_> = names.iter().map(String::as_str).collect();
    let mut world = World::new(&targets, route(&listed), |_, _| ok());
    world.arrive(at(1.0), Needs { tools: true, input_tokens: 900, max_output_tokens: Some(200), ..stream() });
    world.run_until(at(20.0));
    let settled = world.settled(0);
    let planned: Vec<_> = settled.planned.iter().map(|id| id.as_str()).collect();
    assert_eq!(planned, ["sure/m", "tools/unknown"], "unknown abilities come after sure ones");
    let why: Vec<_> = settled.left_out.iter().map(|left| (left.target.as_str(), left.why.clone())).collect();
    assert_eq!(
        why,
        [
            ("tools/no", WhyLeftOut::NoTools),
            ("small/m", WhyLeftOut::ContextTooSmall { window: 1000, needed: 1100 }),
            ("terse/m", WhyLeftOut::OutputTooLong { limit: 100, wanted: 200 }),
        ]
    );
}

#[test]
fn a_prompt_too_long_goes_only_to_larger_or_unknown_windows() {
    let sized = |id: &str, window| TargetSpec { context_window: window, ..target(id) };
    let targets = [sized("a/m", Some(8000)), sized("b/m", Some(8000)), sized("c/m", Some(32_000))];
    let mut world = World::new(&targets, route(&["a/m", "b/m", "c/m"]), |q, _| match q.target.as_str() {
        "c/m" => ok(),
        _ => fail(Failure::ContextExceeded),
    });
    world.arrive(at(1.0), whole());
    world.run_until(at(20.0));
    let asked: Vec<_> = world.calls[0].starts.iter().map(|(_, target, _)| target.as_str()).collect();
    assert_eq!(asked, ["a/m", "c/m"]);
}

#[test]
fn ranking_by_latency_cost_and_weight_orders_equals() {
    let cheap = TargetSpec { price: Some(outlast_model::Price::per_million(0.3, 1.2, None, None)), ..target("b/m") };
    let targets = [target("a/m"), cheap, TargetSpec { price: None, ..target("c/m") }];
    let ranked = |ranking: Ranking| {
        let mut ranked = route(&["c/m", "a/m", "b/m"]);
        ranked.ranking = ranking;
        ranked.targets[1].weight = 3;
        let mut world = World::new(&targets, ranked, |q, _| match q.target.as_str() {
            "b/m" => answer(ms(200), Findings::CLEAN),
            _ => answer(ms(900), Findings::CLEAN),
        });
        world.arrive_steadily(5.0, 1.0, 400.0, &stream());
        world.run_until(at(420.0));
        world
    };
    let world = ranked(Ranking::Cost);
    assert_eq!(world.settled(0).planned.iter().map(|id| id.as_str()).collect::<Vec<_>>(), ["b/m", "a/m", "c/m"]);
    let world = ranked(Ranking::Weight);
    let share = world.asked("a/m") as f64 / world.calls.len() as f64;
    assert!((0.55..0.65).contains(&share), "three fifths: {share}");
}

#[test]
fn a_poison_request_is_not_held_against_its_targets_but_an_outage_of_both_is() {
    let poison_at = at(50.0);
    let targets = [target("a/m"), target("b/m")];
    let mut world = World::new(&targets, route(&["a/m", "b/m"]), move |q, _| {
        if q.now >= poison_at && q.now < poison_at + ms(900) { fail(Failure::MalformedReply) } else { ok() }
    });
    world.arrive_steadily(1.0, 1.0, 100.0, &stream());
    world.run_until(at(51.5));
    assert_eq!((world.state("a/m").evidence, world.state("b/m").evidence), (0.0, 0.0));
    let mut world = World::new(&targets, route(&["a/m", "b/m"]), |_, _| fail(Failure::MalformedReply));
    world.arrive_steadily(1.0, 1.0, 20.0, &stream());
    world.run_until(at(30.0));
    assert!([world.state("a/m"), world.state("b/m")].iter().all(|view| view.state != TargetState::Closed));
}

#[test]
fn the_skipped_last_attempt_is_one_that_is_known_to_run_out_of_time() {
    let mut hurried = route(&["a/m", "b/m"]);
    hurried.tier = tier(3, Duration::from_secs(5));
    // After the first attempt 2 s are left. That a fallback nobody has measured might take longer is no reason to give up.
    for (measured, attempts) in [(true, 1), (false, 2)] {
        let script = |q: &Question, _: &mut _| match q.target.as_str() {
            "a/m" => fail_after(ms(3000), Failure::MalformedReply, None),
            _ => answer(ms(4000), Findings::CLEAN),
        };
        let mut world = World::new(&[target("a/m"), target("b/m")], route(&["b/m"]), script);
        if measured {
            world.arrive_steadily(1.0, 1.0, 41.0, &whole());
        }
        world.run_until(at(60.0));
        let call = world.calls.len();
        world.rebind(&hurried);
        world.arrive(at(70.0), whole());
        world.run_until(at(120.0));
        assert_eq!(world.calls[call].starts.len(), attempts, "measured: {measured}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let run = |seed| {
        let targets = [probed("a/m"), probed("b/m")];
        let mut world = World::seeded(seed, HealthPolicy::default(), &targets, route(&["a/m", "b/m"]), |_, rng| {
            if rng.f64() < 0.3 { fail(Failure::ServerError) } else { ok() }
        });
        world.arrive_steadily(5.0, 1.0, 60.0, &stream());
        world.run_until(Mono::ZERO + Duration::from_secs(120));
        world.trace
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
