//! The deterministic ends of a route: in which order, judged how, and never for what is not theirs.

mod world;

use outlast_engine::*;
use outlast_model::{
    Failure, FailureReport, Mono,
    failure::Deadline,
    policy::*,
    record::{BackstopUse, GaveUp, Outcome},
    turn::Usage,
};
use std::{sync::Arc, time::Duration};
use world::*;

type Answer = Option<(Duration, Backstopped)>;

/// One call to one target, with these backstops and what they come to.
fn ask(
    backstops: Vec<Arc<Backstop>>,
    needs: Needs,
    script: Script,
    answers: impl Fn(usize) -> Answer + 'static,
) -> World {
    let route = Route { backstops, tier: tier(2, Duration::from_secs(20)), ..route(&["a/m"]) };
    let mut world =
        World::new(&[target("a/m")], route, move |_, _| script.clone()).with_backstops(move |at, _| answers(at));
    world.arrive(at(1.0), needs);
    world.run_until(at(200.0));
    assert!(world.all_settled());
    world
}

fn now(outcome: Backstopped) -> Answer {
    Some((ms(5), outcome))
}

fn clean() -> Backstopped {
    said(outlast_model::Findings::CLEAN)
}

fn run(world: &World) -> Vec<usize> {
    world.calls[0].backstops.iter().map(|(at, _)| *at).collect()
}

#[test]
fn when_every_path_is_spent_the_first_backstop_with_a_good_reply_answers_and_it_is_marked() {
    let backstops = vec![a_cache(), a_static(), a_queue()];
    let world = ask(backstops, stream(), fail(Failure::MalformedReply), |at| match at {
        0 => now(Backstopped::Declined),
        _ => now(clean()),
    });
    let settled = world.settled(0);
    assert_eq!(run(&world), [0, 1]);
    assert_eq!(world.calls[0].delivered.unwrap().0, Source::Backstop(1));
    assert_eq!((settled.outcome, settled.degraded), (Outcome::Answered, true));
    assert_eq!(settled.gave_up, [GaveUp::Model]);
    assert_eq!(settled.backstop, Some(BackstopUse { name: "static".into(), kind: BackstopName::Static }));
    assert_eq!((settled.served_by.clone(), settled.wasted), (None, settled.cost));
    assert_eq!(world.calls[0].backstops[0].1.failure, Failure::MalformedReply, "they hear why");
}

#[test]
fn a_backstops_reply_is_held_to_the_contract_like_any_other() {
    let backstops = vec![a_cache(), a_static()];
    let world = ask(backstops.clone(), stream(), fail(Failure::ServerError), |at| match at {
        0 => now(said(found(Failure::Quality))),
        _ => now(clean()),
    });
    assert_eq!(world.calls[0].delivered.unwrap().0, Source::Backstop(1));
    let world = ask(backstops, stream(), fail(Failure::ServerError), |_| now(said(found(Failure::SchemaError))));
    let (failure, cause, ..) = world.calls[0].rejected.clone().unwrap();
    assert_eq!((failure.failure, cause.unwrap().failure), (Failure::Exhausted, Failure::ServerError));
    assert_eq!(world.settled(0).backstop, None);
}

#[test]
fn a_backstop_that_defers_ends_the_call_with_a_promise() {
    let world = ask(vec![a_queue(), a_static()], whole(), fail(Failure::Overloaded), |_| now(deferred()));
    let settled = world.settled(0);
    assert_eq!((world.calls[0].deferred, settled.outcome), (Some(0), Outcome::Deferred));
    assert_eq!(settled.gave_up, [GaveUp::Immediacy]);
    assert_eq!(settled.backstop.as_ref().unwrap().kind, BackstopName::Queue);
    assert_eq!(settled.served_by, None);
}

#[test]
fn a_fail_backstop_ends_the_list() {
    let world = ask(vec![a_cache(), a_failure(), a_static()], whole(), fail(Failure::Overloaded), |at| match at {
        0 => now(Backstopped::Declined),
        _ => now(clean()),
    });
    assert_eq!(run(&world), [0], "fail is the host's typed error, and nothing comes after it");
    assert_eq!(world.settled(0).outcome, Outcome::Failed(Failure::Exhausted));
}

#[test]
fn a_backstop_that_has_answered_may_not_answer_again_nor_one_that_is_over() {
    let route = Route { backstops: vec![a_cache(), a_static()], ..route(&["a/m"]) };
    let mut fleet = Fleet::new(HealthPolicy::default(), 1);
    fleet.install(HealthPolicy::default(), &[target("a/m")], Mono::ZERO);
    let route = fleet.bind(&route);
    let ask = Ask { id: CallId(1), route, needs: whole(), deadline: None, seed: 1 };
    let mut call = Call::ended_elsewhere(ask, FailureReport::of(Failure::Quality), Vec::new(), Mono::ZERO);
    let mut feed = |event: Event| {
        call.handle(&mut fleet, event, at(1.0));
        let actions: Vec<_> = std::iter::from_fn(|| call.poll_action()).collect();
        actions
            .iter()
            .map(|action| format!("{action:?}").split([' ', '(']).next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let event = |at| Event::Backstopped { at, outcome: Backstopped::Declined };
    assert_eq!(feed(Event::Admit), ["Backstop"]);
    assert!(feed(event(1)).is_empty() && feed(event(7)).is_empty(), "not its turn");
    assert_eq!(feed(event(0)), ["Backstop"]);
    assert!(feed(event(0)).is_empty(), "it has declined already");
    assert_eq!(feed(Event::Backstopped { at: 1, outcome: clean() }), ["Deliver", "Settle"]);
    assert!(feed(event(1)).is_empty() && feed(Event::Tick).is_empty() && feed(Event::ClientGone).is_empty());
}

#[test]
fn a_call_whose_votes_failed_goes_to_the_backstops_with_its_cause_and_its_attempts() {
    let mut world = World::new(&[target("a/m")], route(&["a/m"]), |_, _| bad(Failure::Quality));
    world.arrive(at(1.0), whole());
    world.run_until(at(30.0));
    let attempts = world.settled(0).attempts.clone();
    let cost = world.settled(0).cost;
    let route = Route { backstops: vec![a_static()], ..route(&["a/m"]) };
    let ask = Ask { id: CallId(9), route: world.fleet.bind(&route), needs: whole(), deadline: None, seed: 1 };
    let mut call = Call::ended_elsewhere(ask, FailureReport::of(Failure::Quality), attempts, at(30.0));
    call.handle(&mut world.fleet, Event::Admit, at(30.0));
    let Some(Action::Backstop { at: 0, cause }) = call.poll_action() else { panic!("a backstop first") };
    assert_eq!(cause.failure, Failure::Quality);
    call.handle(&mut world.fleet, Event::Backstopped { at: 0, outcome: Backstopped::Declined }, at(30.0));
    let Some(Action::Reject { failure, cause, .. }) = call.poll_action() else { panic!("an error then") };
    assert_eq!((failure.failure, cause.unwrap().failure), (Failure::Exhausted, Failure::Quality));
    let Some(Action::Settle(settlement)) = call.poll_action() else { panic!("and a settlement") };
    assert_eq!((settlement.attempts.len(), settlement.cost), (1, cost));
}

#[test]
fn the_deadline_leaves_a_backstop_two_seconds_and_the_next_one_two_more() {
    let late = |secs: u64| Some((Duration::from_secs(secs), clean()));
    let ask = |answer: Answer| {
        ask(vec![a_cache(), a_static()], stream(), Script::Hang, move |at| match at {
            0 => answer.clone(),
            _ => now(clean()),
        })
    };
    let world = ask(late(1));
    assert_eq!(world.calls[0].delivered, Some((Source::Backstop(0), at(22.0))));
    for never in [late(5), None] {
        let world = ask(never);
        assert_eq!(world.calls[0].delivered, Some((Source::Backstop(1), at(23.005))));
    }
    let world = self::ask(vec![a_cache()], stream(), Script::Hang, |_| None);
    assert_eq!(world.settled(0).outcome, Outcome::Failed(Failure::Timeout(Deadline::Total)));
    assert_eq!(world.calls[0].rejected.as_ref().unwrap().4, at(23.0));
}

#[test]
fn before_the_deadline_a_backstop_has_as_long_as_the_call() {
    let slow = |_| Some((Duration::from_secs(10), clean()));
    let world = ask(vec![a_cache()], stream(), fail(Failure::MalformedReply), slow);
    assert!(world.calls[0].delivered.is_some());
}

#[test]
fn no_backstop_answers_for_the_clients_own_fault_a_safety_block_or_a_stream_that_was_seen() {
    let cut =
        Script::Cut { first: ms(100), tokens: 5, gap: ms(20), report: FailureReport::of(Failure::StreamInterrupted) };
    for (script, outcome) in [
        (fail(Failure::InvalidRequest), Outcome::Failed(Failure::InvalidRequest)),
        (fail(Failure::SafetyBlock), Outcome::Failed(Failure::SafetyBlock)),
        (fail(Failure::Refusal), Outcome::Failed(Failure::Refusal)),
        (cut, Outcome::Interrupted(Failure::StreamInterrupted)),
    ] {
        let world = ask(vec![a_cache(), an_escalation()], stream(), script, |_| now(clean()));
        assert_eq!((world.settled(0).outcome, run(&world)), (outcome, vec![]));
    }
}

#[test]
fn no_backstop_answers_for_a_full_house() {
    let policy = HealthPolicy { max_in_flight: 1, ..HealthPolicy::default() };
    let route = Route { backstops: vec![a_static()], ..route(&["a/m"]) };
    let mut world = World::seeded(1, policy, &[target("a/m")], route, |_, _| ok());
    (0..2).for_each(|_| world.arrive(at(1.0), stream()));
    world.run_until(at(60.0));
    assert!(world.calls[1].rejected.as_ref().unwrap().2.should_retry);
    assert!(world.calls[1].backstops.is_empty());
}

#[test]
fn a_client_that_leaves_while_a_backstop_runs_settles_the_bill_and_a_late_answer_is_ignored() {
    let route = Route { backstops: vec![a_queue()], ..route(&["a/m"]) };
    let mut world = World::new(&[target("a/m")], route, |_, _| fail(Failure::MalformedReply))
        .with_backstops(|_, _| Some((Duration::from_secs(3), deferred())));
    world.arrive_briefly(at(1.0), whole(), Duration::from_secs(2));
    world.run_until(at(60.0));
    assert_eq!(world.settled(0).outcome, Outcome::Cancelled);
    assert_eq!(world.settled(0).attempts.len(), 1);
    let used = Usage { input_tokens: 100, ..Usage::default() };
    assert_eq!(world.settled(0).attempts[0].usage, used);
}

#[test]
fn a_queue_is_skipped_for_what_time_does_not_heal() {
    let small = TargetSpec { context_window: Some(1_000), ..target("a/m") };
    let route = Route { backstops: vec![a_queue(), an_escalation()], ..route(&["a/m"]) };
    let mut world = World::new(&[small], route.clone(), |_, _| ok()).with_backstops(|_, _| Some((ms(5), deferred())));
    world.arrive(at(1.0), Needs { input_tokens: 5_000, ..whole() });
    world.run_until(at(60.0));
    assert_eq!(world.calls[0].deferred, Some(1), "no later time makes its window larger");
    let mut world = World::new(&[target("a/m")], route, |_, _| fail(Failure::Auth))
        .with_backstops(|_, _| Some((ms(5), deferred())));
    world.arrive(at(1.0), whole());
    world.run_until(at(60.0));
    assert_eq!(world.calls[0].deferred, Some(0), "a rejected key may be replaced");
}

#[test]
fn tools_and_judges_that_are_down_lead_to_the_backstops_at_once() {
    let mut world = World::new(
        &[target("a/m"), target("b/m")],
        Route { backstops: vec![a_static()], ..under(gated(), &["a/m", "b/m"]) },
        |_, _| bad(Failure::ToolFailed),
    )
    .with_backstops(|_, _| Some((ms(5), clean())));
    world.arrive(at(1.0), whole());
    world.run_until(at(60.0));
    assert_eq!(world.calls[0].starts.len(), 1);
    assert_eq!(world.calls[0].delivered.unwrap().0, Source::Backstop(0));
}

#[test]
fn a_slow_judge_is_given_up_at_the_deadline_and_its_exchange_dropped() {
    let route =
        Route { backstops: vec![a_static()], tier: tier(2, Duration::from_secs(5)), ..under(gated(), &["a/m"]) };
    let mut world = World::new(&[target("a/m")], route, |_, _| ok()).with_backstops(|_, _| Some((ms(5), clean())));
    world.judging = Duration::from_secs(60);
    world.arrive(at(1.0), whole());
    world.arrive_briefly(at(20.0), whole(), Duration::from_secs(2));
    world.run_until(at(100.0));
    assert_eq!(world.calls[0].delivered, Some((Source::Backstop(0), at(6.005))), "nothing passes unjudged");
    assert_eq!(world.settled(1).outcome, Outcome::Cancelled);
}
