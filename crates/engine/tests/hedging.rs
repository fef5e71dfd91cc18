//! Racing a slow first output: when, against whom, who wins, and what it may cost.

mod world;

use outlast_engine::*;
use outlast_model::{
    Failure, Findings, Usd,
    policy::*,
    record::{AttemptReason, AttemptRecord, Decision, Outcome},
};
use std::{sync::Arc, time::Duration};
use world::*;

/// Calls that teach the fleet how fast its targets usually are: 300 ms, and 350 at p95 by the histogram's steps.
const TAUGHT: usize = 40;
/// Then the call that is looked at.
const THEN: f64 = 100.0;

fn hedged(targets: &[&str], attempts: u8, budget: f64) -> Route {
    let usual = tier(attempts, Duration::from_secs(60));
    Route { tier: Arc::new(Tier { hedge: Some(Hedge { budget }), ..(*usual).clone() }), ..route(targets) }
}

/// After all targets have been taught, `then` says how the looked-at call's exchanges go.
fn taught(route: Route, then: impl Fn(&str) -> Script + 'static) -> World {
    taught_on(&[target("a/m"), target("b/m"), target("c/m")], HealthPolicy::default(), route, then)
}

fn taught_on(
    targets: &[TargetSpec],
    policy: HealthPolicy,
    route: Route,
    then: impl Fn(&str) -> Script + 'static,
) -> World {
    let mut world = World::seeded(1, policy, targets, route, move |question, _| match question.now < at(THEN) {
        true => ok(),
        false => then(question.target.as_str()),
    });
    world.arrive_steadily(2.0, 1.0, 1.0 + TAUGHT as f64 / 4.0, &stream());
    world.arrive_steadily(2.0, 30.0, 30.0 + TAUGHT as f64 / 4.0, &whole());
    world.run_until(at(THEN));
    world
}

/// The one call that arrives now.
fn ask(world: &mut World, needs: Needs) -> &Seen {
    world.arrive(world.now, needs);
    world.run_until(world.now + Duration::from_secs(90));
    world.calls.last().unwrap()
}

fn asked(call: &Seen) -> Vec<&str> {
    call.starts.iter().map(|(_, target, _)| target.as_str()).collect()
}

fn attempts(call: &Seen) -> &[AttemptRecord] {
    &call.settled.as_ref().expect("the call has settled").attempts
}

fn slow(after: Duration) -> Script {
    answer(after, Findings::CLEAN)
}

#[test]
fn a_first_output_later_than_the_p95_is_raced_and_the_first_to_speak_wins() {
    let mut world = taught(hedged(&["a/m", "b/m"], 3, 0.05), |target| match target {
        "a/m" => slow(ms(5_000)),
        _ => ok(),
    });
    let call = ask(&mut world, stream());
    assert_eq!(asked(call), ["a/m", "b/m"]);
    let waited = call.starts[0].0.until(call.starts[1].0);
    assert!((ms(300)..ms(400)).contains(&waited), "{waited:?}");
    assert_eq!(call.delivered.unwrap().0, Source::Attempt(1));
    let first = call.released.unwrap().1;
    assert!(call.starts[0].0.until(first) < ms(700), "nobody waits for the slow one");
    let [outrun, hedge] = attempts(call) else { panic!("two attempts") };
    assert_eq!((outrun.decision, &outrun.failure), (Decision::Outrun, &None));
    assert_eq!((hedge.reason, hedge.decision), (AttemptReason::Hedge, Decision::Deliver));
    let settled = call.settled.as_ref().unwrap();
    assert_eq!((settled.outcome, settled.served_by.as_ref().unwrap().as_str()), (Outcome::Answered, "b/m"));
    assert!(outrun.cost.unwrap() > Usd::ZERO && settled.wasted == outrun.cost.unwrap(), "the loser is billed");
}

#[test]
fn the_first_attempt_wins_its_race_if_it_speaks_first() {
    let mut world = taught(hedged(&["a/m", "b/m"], 3, 0.05), |target| match target {
        "a/m" => slow(ms(500)),
        _ => slow(ms(5_000)),
    });
    let call = ask(&mut world, stream());
    assert_eq!((asked(call), call.delivered.unwrap().0), (vec!["a/m", "b/m"], Source::Attempt(0)));
    let decisions: Vec<_> = attempts(call).iter().map(|attempt| attempt.decision).collect();
    assert_eq!(decisions, [Decision::Deliver, Decision::Outrun]);
}

#[test]
fn of_whole_replies_the_first_complete_one_wins() {
    let mut world = taught(hedged(&["a/m", "b/m"], 3, 0.05), |target| match target {
        "a/m" => slow(ms(30_000)),
        _ => ok(),
    });
    let call = ask(&mut world, whole());
    assert_eq!((asked(call), call.delivered.unwrap().0), (vec!["a/m", "b/m"], Source::Attempt(1)));
}

#[test]
fn off_is_the_default_and_what_the_provider_does_itself_is_never_done_twice() {
    let slow_a = |target: &str| if target == "a/m" { slow(ms(3_000)) } else { ok() };
    let mut world = taught(route(&["a/m", "b/m"]), slow_a);
    assert_eq!(asked(ask(&mut world, stream())), ["a/m"]);
    let mut world = taught(hedged(&["a/m", "b/m"], 3, 0.05), slow_a);
    assert_eq!(asked(ask(&mut world, Needs { provider_effects: true, ..stream() })), ["a/m"]);
    assert_eq!(asked(ask(&mut world, stream())), ["a/m", "b/m"]);
}

#[test]
fn nothing_is_raced_before_it_is_known_what_is_slow() {
    let targets = [target("a/m"), target("b/m")];
    let mut world =
        World::new(&targets, hedged(&["a/m", "b/m"], 3, 1.0), |question, _| match question.target.as_str() {
            "a/m" => slow(ms(3_000)),
            _ => ok(),
        });
    world.arrive_steadily(0.2, 1.0, 80.0, &stream());
    world.run_until(at(100.0));
    assert_eq!(world.asked("b/m"), 0);
}

#[test]
fn another_provider_races_before_another_model_of_the_same_one() {
    let targets = [target("a/m"), target("a/n"), target("b/m")];
    let mut world =
        taught_on(&targets, HealthPolicy::default(), hedged(&["a/m", "a/n", "b/m"], 3, 0.05), |target| match target {
            "a/m" => slow(ms(5_000)),
            _ => ok(),
        });
    assert_eq!(asked(ask(&mut world, stream())), ["a/m", "b/m"]);
}

#[test]
fn a_target_that_is_not_well_races_nobody() {
    let sick = |target: &str| match target {
        "a/m" => slow(ms(3_000)),
        _ => fail(Failure::ServerError),
    };
    let mut world = taught(hedged(&["a/m", "b/m"], 4, 1.0), sick);
    let raced: Vec<_> = (0..3).map(|_| asked(ask(&mut world, stream())).len()).collect();
    assert_eq!(raced, [2, 2, 1], "two faults are evidence of 5, and 4 is the most that is let race");
}

#[test]
fn a_crowded_gateway_asks_nobody_twice() {
    let policy = HealthPolicy { max_in_flight: 10, ..HealthPolicy::default() };
    let targets = [target("a/m"), target("b/m")];
    let mut world = taught_on(&targets, policy, hedged(&["a/m", "b/m"], 3, 1.0), |target| match target {
        "a/m" => slow(ms(3_000)),
        _ => slow(ms(2_500)),
    });
    (0..9).for_each(|_| world.arrive(at(THEN), stream()));
    world.run_until(at(THEN + 20.0));
    assert_eq!(world.asked("b/m"), 0, "nine of ten places are taken");
    (0..8).for_each(|_| world.arrive(at(THEN + 20.0), stream()));
    world.run_until(at(THEN + 40.0));
    assert!(world.asked("b/m") > 0);
}

#[test]
fn hedges_stay_within_their_share_of_the_calls() {
    let mut world = taught(hedged(&["a/m", "b/m"], 3, 0.05), |target| match target {
        "a/m" => slow(ms(800)),
        _ => ok(),
    });
    let before = world.calls.len();
    world.arrive_steadily(2.0, THEN, THEN + 100.0, &stream());
    world.run_until(at(THEN + 120.0));
    let all = (before + 200) as f64;
    let raced = world.calls.iter().filter(|call| call.raced.is_some()).count() as f64;
    // Every call would like to be raced, until it is known that 800 ms are usual now.
    assert!((3.0..=0.05 * all).contains(&raced), "{raced} of {all}");
}

#[test]
fn a_hedge_is_an_attempt_and_one_attempt_is_never_raced() {
    let mut world = taught(hedged(&["a/m", "b/m"], 1, 1.0), |_| slow(ms(3_000)));
    assert_eq!(asked(ask(&mut world, stream())), ["a/m"]);
    let mut world = taught(hedged(&["a/m", "b/m", "c/m"], 2, 1.0), |target| match target {
        "a/m" => fail_after(ms(600), Failure::ServerError, None),
        "b/m" => fail_after(ms(900), Failure::ServerError, None),
        _ => ok(),
    });
    let call = ask(&mut world, stream());
    assert_eq!(asked(call), ["a/m", "b/m"]);
    assert_eq!(call.rejected.as_ref().unwrap().0.failure, Failure::Exhausted);
}

#[test]
fn the_failure_of_one_leaves_the_other_running() {
    for (a, b, winner) in [
        (slow(ms(1_500)), 0, Source::Attempt(0)),
        (fail_after(ms(600), Failure::Overloaded, None), 1_200, Source::Attempt(1)),
    ] {
        let b = if b == 0 { fail(Failure::ServerError) } else { slow(ms(b)) };
        let mut world = taught(hedged(&["a/m", "b/m", "c/m"], 3, 0.05), move |target| match target {
            "a/m" => a.clone(),
            "b/m" => b.clone(),
            _ => ok(),
        });
        let call = ask(&mut world, stream());
        assert_eq!((asked(call), call.delivered.unwrap().0), (vec!["a/m", "b/m"], winner), "nobody else is asked");
        let lost = attempts(call).iter().find(|attempt| attempt.decision != Decision::Deliver).unwrap();
        assert_eq!(lost.decision, Decision::Reroute);
        assert!(lost.failure.is_some());
    }
}

#[test]
fn when_both_fail_the_next_target_is_asked() {
    let mut world = taught(hedged(&["a/m", "b/m", "c/m"], 3, 0.05), |target| match target {
        "a/m" => fail_after(ms(600), Failure::ServerError, None),
        "b/m" => fail_after(ms(400), Failure::Overloaded, None),
        _ => ok(),
    });
    let call = ask(&mut world, stream());
    assert_eq!((asked(call), call.delivered.unwrap().0), (vec!["a/m", "b/m", "c/m"], Source::Attempt(2)));
}

#[test]
fn a_policy_reason_ends_the_race_for_both() {
    for failure in [Failure::SafetyBlock, Failure::InvalidRequest] {
        let mut world = taught(hedged(&["a/m", "b/m"], 3, 0.05), move |target| match target {
            "a/m" => slow(ms(2_000)),
            _ => fail_after(ms(100), failure, None),
        });
        let call = ask(&mut world, stream());
        assert!(call.delivered.is_none(), "{failure}: it is not to be got round");
        assert_eq!(call.rejected.as_ref().unwrap().0.failure, failure);
        assert_eq!(attempts(call)[0].decision, Decision::Outrun);
    }
}

#[test]
fn money_is_reserved_for_both_or_nobody_is_raced() {
    let slow_a = |target: &str| if target == "a/m" { slow(ms(3_000)) } else { ok() };
    let capped = |nanos| {
        let usual = hedged(&["a/m", "b/m"], 3, 1.0);
        Route { tier: Arc::new(Tier { cost_max: Some(Usd::from_nanos(nanos)), ..(*usual.tier).clone() }), ..usual }
    };
    // 100 tokens in and 100 out cost 1,800,000; with 64 out, the least, 1,260,000.
    let needs = || Needs { max_output_tokens: Some(100), ..stream() };
    let mut world = taught(capped(3_000_000), slow_a);
    assert_eq!(asked(ask(&mut world, needs())), ["a/m"]);
    let mut world = taught(capped(3_100_000), slow_a);
    let call = ask(&mut world, needs());
    assert_eq!(asked(call), ["a/m", "b/m"]);
    assert_eq!(call.briefs[1].max_output_tokens, Some(66), "what is left pays for so many");
    let mut world = taught(capped(3_600_000), slow_a);
    assert!(ask(&mut world, needs()).briefs[1].is_plain());
}

#[test]
fn a_client_that_leaves_and_a_deadline_that_passes_close_both() {
    let mut world = taught(hedged(&["a/m", "b/m"], 3, 1.0), |_| Script::Hang);
    world.arrive_briefly(at(THEN), stream(), ms(1_000));
    world.run_until(at(THEN + 5.0));
    let call = world.calls.last().unwrap();
    assert_eq!((asked(call).len(), call.settled.as_ref().unwrap().outcome), (2, Outcome::Cancelled));
    assert!(attempts(call).iter().all(|attempt| attempt.decision == Decision::Cancel));
    let mut world = taught(hedged(&["a/m", "b/m"], 2, 1.0), |_| Script::Hang);
    let call = ask(&mut world, stream());
    assert!(asked(call).len() == 2 && call.rejected.is_some());
}

#[test]
fn what_was_outrun_is_learnt_as_slow_and_not_forgotten() {
    let mut world = taught(hedged(&["a/m", "b/m"], 3, 1.0), |target| match target {
        "a/m" => slow(ms(4_000)),
        _ => ok(),
    });
    let p95 = |world: &World| world.state("a/m").first_output.unwrap()[1];
    assert!(p95(&world) < ms(400));
    world.arrive_steadily(2.0, THEN, THEN + 4.0, &stream());
    world.run_until(at(THEN + 10.0));
    assert!(p95(&world) > ms(500), "{:?}", p95(&world));
}

#[test]
fn a_hang_is_still_found_out_though_its_calls_are_raced() {
    let mut world = taught(hedged(&["a/m", "b/m"], 3, 0.05), |target| match target {
        "a/m" => Script::Hang,
        _ => ok(),
    });
    world.arrive_steadily(1.0, THEN, THEN + 60.0, &stream());
    world.run_until(at(THEN + 100.0));
    let a = world.state("a/m");
    assert!(a.demoted || a.state != TargetState::Closed, "{a:?}");
    assert_eq!(world.answered(), world.calls.len());
    assert!(world.calls.iter().all(|call| call.delivered.unwrap().1 <= call.starts[0].0 + Duration::from_secs(10)));
}
