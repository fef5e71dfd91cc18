//! Quality over time: what demotes a target, where, for how long, and what a person is told. And what targets teach
//! about tokens.

mod world;

use outlast_engine::*;
use outlast_model::{Failure, Findings, Gate, Problem, policy::*, record::WhyLeftOut};
use world::*;

fn json() -> Needs {
    Needs { output: OutputNeed::JsonSchema, ..stream() }
}

/// Two targets; the first one's replies are found to be like this.
fn world_of(findings: impl Fn(&Question, &mut fastrand::Rng) -> Findings + 'static) -> World {
    World::new(&[target("a/m"), target("b/m")], route(&["a/m", "b/m"]), move |question, rng| {
        match question.target.as_str() {
            "a/m" => answer(ms(300), findings(question, rng)),
            _ => ok(),
        }
    })
}

fn alarms(world: &World, id: &str) -> Vec<(Option<String>, Signal)> {
    let quality = world.state(id).quality;
    let alarming = quality.signals().filter(|(_, seen)| seen.alarm.is_some());
    alarming.map(|(route, seen)| (route.map(ToString::to_string), seen.signal)).collect()
}

fn quality_alerts(world: &World) -> Vec<&Alert> {
    let of_quality = |alert: &&Alert| matches!(alert, Alert::QualityDropped { .. } | Alert::QualityBack { .. });
    world.alerts.iter().map(|(_, alert)| alert).filter(of_quality).collect()
}

fn golden(world: &mut World, id: &str, passed: bool) {
    let target = world.state(id).target;
    world.tell(FleetEvent::Golden { target, passed });
}

#[test]
fn each_signal_has_its_own_detector_and_tells_what_it_saw() {
    let citation = || Problem::at(Gate::Citation, "missing");
    let cases: [(Findings, Signal); 5] = [
        (found(Failure::SchemaError), Signal::Schema),
        (found(Failure::Refusal), Signal::Refusal),
        (found(Failure::Empty), Signal::Empty),
        (Findings { problems: vec![citation()], cites: true, ..Findings::CLEAN }, Signal::Citation),
        (Findings { problems: vec![Problem::at(Gate::MustNot, "rule")], ..Findings::CLEAN }, Signal::Gate),
    ];
    for (findings, signal) in cases {
        let mut world = world_of(move |_, _| findings.clone());
        world.arrive_steadily(1.0, 1.0, 30.0, &json());
        world.run_until(at(40.0));
        assert_eq!(alarms(&world, "a/m"), [(Some("route".to_owned()), signal)]);
        assert_eq!(world.state("a/m").state, TargetState::Closed, "{signal:?} opens no breaker");
        let told = Alert::QualityDropped {
            target: "a/m".into(),
            route: Some("route".into()),
            signal,
            observed: 5,
            bad: 5,
            baseline: 0.05,
        };
        assert_eq!(quality_alerts(&world), [&told]);
        assert!(world.asked("b/m") > 20, "{signal:?}: the traffic has moved");
    }
}

#[test]
fn a_target_that_always_needed_repairs_is_as_it_ever_was_and_one_that_begins_to_is_not() {
    let mended = || Findings { fixes: vec![Fix::Fences], ..Findings::CLEAN };
    let mut world = world_of(move |_, _| mended());
    world.arrive_steadily(2.0, 1.0, 500.0, &json());
    world.run_until(at(510.0));
    assert!(alarms(&world, "a/m").is_empty() && world.asked("b/m") == 0);
    let mut world = world_of(move |question, _| if question.now < at(300.0) { Findings::CLEAN } else { mended() });
    world.arrive_steadily(2.0, 1.0, 310.0, &json());
    world.run_until(at(320.0));
    assert_eq!(alarms(&world, "a/m"), [(Some("route".to_owned()), Signal::Repair)]);
}

#[test]
fn a_demoted_target_still_answers_when_nobody_better_can() {
    let behaviour = |question: &Question, _: &mut fastrand::Rng| match question.target.as_str() {
        "a/m" if question.now < at(20.0) => bad(Failure::SchemaError),
        "b/m" if question.now > at(30.0) => fail(Failure::Overloaded),
        _ => ok(),
    };
    let mut world = World::new(&[target("a/m"), target("b/m")], route(&["a/m", "b/m"]), behaviour);
    world.arrive_steadily(1.0, 1.0, 100.0, &json());
    world.run_until(at(200.0));
    assert_eq!(world.answered(), world.calls.len());
    assert!(world.asked("a/m") > 40);
}

#[test]
fn a_bad_route_says_nothing_about_another_one_and_golden_tasks_speak_for_all() {
    let mut world = world_of(|_, _| found(Failure::SchemaError));
    world.arrive_steadily(1.0, 1.0, 20.0, &json());
    world.run_until(at(20.0));
    assert_eq!(alarms(&world, "a/m").len(), 1);
    let mut other = route(&["a/m", "b/m"]);
    other.id = "other".into();
    world.rebind(&other);
    let before = world.asked("a/m");
    world.arrive(at(21.0), stream());
    world.run_until(at(25.0));
    assert_eq!(world.asked("a/m"), before + 1);
    assert!(!world.state("a/m").demoted);
    (0..5).for_each(|_| golden(&mut world, "a/m", false));
    assert!(world.state("a/m").demoted, "golden tasks speak for the whole target");
    world.arrive(at(26.0), stream());
    world.run_until(at(30.0));
    assert_eq!(world.asked("a/m"), before + 1);
    assert!(alarms(&world, "a/m").contains(&(None, Signal::Golden)));
}

#[test]
fn a_loss_of_10_and_of_15_points_demotes_within_the_median_number_of_golden_tasks() {
    for (rate, most) in [(0.15, 56), (0.20, 35)] {
        let mut tasks: Vec<u32> = (0..101)
            .map(|seed| {
                let mut world = world_of(|_, _| Findings::CLEAN);
                let mut rng = fastrand::Rng::with_seed(seed);
                let mut until = |world: &mut World, rate: f64, most: u32| {
                    (1..=most).find(|_| {
                        golden(world, "a/m", rng.f64() >= rate);
                        world.state("a/m").demoted
                    })
                };
                // A false alarm before the loss is another run's business.
                if until(&mut world, 0.05, 150).is_some() { most } else { until(&mut world, rate, 5_000).unwrap() }
            })
            .collect();
        tasks.sort_unstable();
        assert!(tasks[50] <= most, "{} tasks at {rate}", tasks[50]);
    }
}

#[test]
fn users_ratings_demote_on_their_route_and_ratings_of_strangers_do_nothing() {
    let mut world = world_of(|_, _| Findings::CLEAN);
    let rating =
        |route: &str, target: &str, good| FleetEvent::Feedback { route: route.into(), target: target.into(), good };
    for _ in 0..50 {
        world.tell(rating("nowhere", "a/m", false));
        world.tell(rating("route", "who/knows", false));
    }
    assert!(alarms(&world, "a/m").is_empty());
    // Users complain more readily than they praise: one in five is nothing yet.
    (0..100).for_each(|i| world.tell(rating("route", "a/m", i % 5 != 0)));
    assert!(alarms(&world, "a/m").is_empty());
    (0..12).for_each(|_| world.tell(rating("route", "a/m", false)));
    assert_eq!(alarms(&world, "a/m"), [(Some("route".to_owned()), Signal::Feedback)]);
    world.arrive(at(1.0), stream());
    world.run_until(at(5.0));
    assert_eq!((world.asked("a/m"), world.asked("b/m")), (0, 1));
}

#[test]
fn a_demoted_target_is_tried_again_after_a_quiet_time_and_goes_sooner_if_it_is_still_bad() {
    let mut world = world_of(|_, _| found(Failure::SchemaError));
    world.arrive_steadily(0.2, 1.0, 1_500.0, &json());
    world.run_until(at(620.0));
    assert_eq!(world.asked("a/m"), 5);
    world.run_until(at(1_500.0));
    assert_eq!(world.asked("a/m"), 8, "ten minutes later three more");
    let turns: Vec<bool> =
        quality_alerts(&world).iter().map(|alert| matches!(alert, Alert::QualityDropped { .. })).collect();
    assert_eq!(turns, [true, false, true], "the next trial is twenty minutes away");
}

#[test]
fn a_healed_target_has_its_place_back_and_nobody_flaps() {
    let mut world = world_of(|question, _| match question.now < at(60.0) {
        true => found(Failure::SchemaError),
        false => Findings::CLEAN,
    });
    world.arrive_steadily(1.0, 1.0, 2_000.0, &json());
    world.run_until(at(2_000.0));
    assert!(world.asked("a/m") > 1_300, "{}", world.asked("a/m"));
    assert_eq!(quality_alerts(&world).len(), 2);
    assert!(alarms(&world, "a/m").is_empty());
}

#[test]
fn golden_tasks_bring_a_target_back_that_nobody_asks_any_more() {
    let mut world = world_of(|_, _| Findings::CLEAN);
    (0..5).for_each(|_| golden(&mut world, "a/m", false));
    assert!(world.state("a/m").demoted);
    let passes = (1..200).find(|_| {
        golden(&mut world, "a/m", true);
        !world.state("a/m").demoted
    });
    assert!((20..=80).contains(&passes.unwrap()), "{passes:?}");
    assert!(matches!(quality_alerts(&world).last(), Some(Alert::QualityBack { route: None, .. })));
}

#[test]
fn a_route_is_ready_while_one_of_its_targets_may_be_asked() {
    let behaviour = |question: &Question, _: &mut fastrand::Rng| match question.target.as_str() {
        "a/m" => fail(Failure::Overloaded),
        _ => fail_after(ms(50), Failure::RateLimited, Some(ms(60_000))),
    };
    let mut world = World::new(&[target("a/m"), target("b/m")], route(&["a/m", "b/m"]), behaviour);
    assert!(world.fleet.ready(&world.route, world.now));
    world.arrive_steadily(2.0, 1.0, 4.0, &stream());
    world.run_until(at(5.0));
    assert!(!world.fleet.ready(&world.route, world.now), "one is open, the other on a schedule");
    assert!(world.fleet.ready(&world.route, at(70.0)), "the schedule is over");
}

#[test]
fn a_route_is_ready_when_its_only_target_waits_for_a_live_call_to_try_it() {
    let down = |_: &Question, _: &mut fastrand::Rng| fail(Failure::Overloaded);
    let unprobed = TargetSpec { probes: false, ..target("a/m") };
    let mut world = World::new(&[unprobed], route(&["a/m"]), down);
    world.arrive_steadily(2.0, 1.0, 4.0, &stream());
    world.run_until(at(5.0));
    assert_eq!(world.state("a/m").state, TargetState::Open);
    assert!(!world.fleet.ready(&world.route, world.now));
    world.run_until(at(120.0));
    assert_eq!(world.state("a/m").state, TargetState::HalfOpen);
    assert!(world.fleet.ready(&world.route, world.now), "nobody else would find out");
}

#[test]
fn a_prompt_that_will_not_fit_is_known_before_it_is_sent_once_the_target_has_reported() {
    let small = TargetSpec { context_window: Some(10_000), ..target("small/m") };
    let large = TargetSpec { context_window: Some(100_000), ..target("large/m") };
    let behaviour = |question: &Question, _: &mut fastrand::Rng| match question.target.as_str() {
        "small/m" if question.earlier == 0 || question.now > at(30.0) => fail(Failure::ContextExceeded),
        _ => ok(),
    };
    let mut world = World::new(&[small, large], route(&["small/m", "large/m"]), behaviour);
    // Targets count ten tokens where the estimate says seven.
    world.token_scale = 1.0 / 0.7;
    let oversized = || Needs { input_tokens: 8_000, ..stream() };
    world.arrive(at(1.0), oversized());
    world.arrive_steadily(1.0, 2.0, 12.0, &Needs { input_tokens: 2_000, ..stream() });
    world.arrive(at(40.0), oversized());
    world.run_until(at(60.0));
    let asked = |call: usize| world.calls[call].starts.iter().map(|(_, t, _)| t.as_str()).collect::<Vec<_>>();
    assert_eq!(asked(0), ["small/m", "large/m"], "the raw estimate fits");
    let last = world.calls.len() - 1;
    assert_eq!(asked(last), ["large/m"], "the corrected one does not");
    let [left_out] = world.settled(last).left_out.as_slice() else { panic!("one is left out") };
    let WhyLeftOut::ContextTooSmall { window: 10_000, needed } = left_out.why else { panic!("{left_out:?}") };
    assert!((11_000..=11_500).contains(&needed), "{needed}");
}
