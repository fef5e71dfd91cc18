//! What becomes of a fleet when targets fail for a while: detection, what is wasted, and the way back.

mod world;

use outlast_engine::*;
use outlast_model::{Failure, Mono, policy::*, record::Outcome};
use std::time::Duration;
use world::*;

/// The primary behaves so in `[from, until)`, everybody else is well.
fn outage(targets: &[TargetSpec], from: f64, until: f64, script: impl Fn() -> Script + 'static) -> World {
    let names: Vec<_> = targets.iter().map(|target| target.id.to_string()).collect();
    let listed: Vec<_> = names.iter().map(String::as_str).collect();
    World::new(targets, route(&listed), move |q, _| {
        let out = (at(from)..at(until)).contains(&q.now);
        if q.target.as_str() == "a/m" && out { script() } else { ok() }
    })
}

fn wasted(world: &World) -> usize {
    world.calls.iter().map(|seen| seen.starts.len() - 1).sum()
}

#[test]
fn a_total_outage_of_fast_failures_wastes_4_calls_and_those_in_flight() {
    for per_sec in [0.5, 5.0, 50.0] {
        let mut world = outage(&[probed("a/m"), target("b/m")], 60.0, 360.0, || fail(Failure::Overloaded));
        world.arrive_steadily(per_sec, 1.0, 359.0, &stream());
        world.run_until(at(420.0));
        assert_eq!(world.answered(), world.calls.len());
        let in_flight = (per_sec * 0.05).ceil() as usize;
        assert!(wasted(&world) <= 4 + in_flight, "{per_sec} rps: {}", wasted(&world));
    }
}

#[test]
fn a_hang_wastes_no_more_than_the_calls_of_the_overdue_time_and_4() {
    for (needs, overdue) in [(stream(), 4.0), (whole(), 4.0)] {
        let mut world = outage(&[probed("a/m"), target("b/m")], 60.0, 360.0, || Script::Hang);
        world.arrive_steadily(50.0, 1.0, 350.0, &needs);
        world.run_until(at(420.0));
        assert_eq!(world.answered(), world.calls.len());
        assert!(wasted(&world) as f64 <= 50.0 * overdue + 4.0, "{}", wasted(&world));
        // 3 x p99 of 0.3 s is less than the least D of 4 s; the trip comes with the fourth overdue call.
        let slowest = world.calls.iter().map(|seen| seen.settled.as_ref().unwrap().latency_us).max().unwrap();
        assert!(slowest < 4_700_000, "rerouted at once when overdue: {slowest} us");
    }
}

#[test]
fn calls_overdue_when_the_breaker_opens_are_rerouted_at_once() {
    // Three hang, and wait as overdue; then a fast failure opens the breaker.
    let mut world =
        World::new(&[target("a/m"), target("b/m")], route(&["a/m", "b/m"]), |q, _| match q.target.as_str() {
            "a/m" if q.now < at(10.0) => Script::Hang,
            "a/m" => fail(Failure::Overloaded),
            _ => ok(),
        });
    (0..3).for_each(|i| world.arrive(at(1.0 + f64::from(i)), stream()));
    world.arrive(at(20.0), stream());
    world.run_until(at(20.04));
    assert_eq!(world.state("a/m").overdue, 3);
    assert_eq!(world.asked("b/m"), 0);
    world.run_until(at(20.06));
    assert_eq!(world.asked("b/m"), 4);
    world.run_until(at(25.0));
    assert_eq!(world.answered(), 4);
}

#[test]
fn an_overdue_call_that_answers_late_takes_its_evidence_back() {
    let mut world = World::new(&[target("a/m"), target("b/m")], route(&["a/m", "b/m"]), |q, _| {
        answer(if q.earlier < 3 { Duration::from_secs(20) } else { ms(300) }, outlast_model::Findings::CLEAN)
    });
    (0..3).for_each(|i| world.arrive(at(1.0 + f64::from(i)), stream()));
    world.run_until(at(16.0));
    assert!(world.state("a/m").evidence > 7.0);
    world.run_until(at(30.0));
    assert!(world.state("a/m").evidence < 0.01, "{}", world.state("a/m").evidence);
    assert_eq!(world.answered(), 3);
}

#[test]
fn a_stalled_stream_is_evidence_after_5_s() {
    let mut world = World::new(&[target("a/m"), target("b/m")], route(&["a/m", "b/m"]), |_, _| Script::Answer {
        first: ms(300),
        tokens: 3,
        gap: Duration::from_secs(8),
        findings: outlast_model::Findings::CLEAN,
    });
    world.arrive(at(1.0), stream());
    world.run_until(at(6.2));
    assert_eq!(world.state("a/m").evidence, 0.0);
    world.run_until(at(6.4));
    assert!(world.state("a/m").evidence > 2.0);
    world.run_until(at(9.4));
    assert!(world.state("a/m").evidence < 0.01, "it was a pause");
    world.run_until(at(60.0));
    assert!(world.state("a/m").evidence < 0.01);
    assert_eq!(world.answered(), 1);
}

#[test]
fn while_it_is_open_one_probe_at_a_time_tries_it_and_no_call_does() {
    let mut world =
        outage(&[probed("a/m"), target("b/m")], 60.0, 360.0, || fail_after(ms(900), Failure::ServerError, None));
    world.arrive_steadily(20.0, 1.0, 350.0, &stream());
    world.run_until(at(70.0));
    let asked = world.asked("a/m");
    let probes = world.probes.len();
    world.run_until(at(350.0));
    assert_eq!(world.asked("a/m"), asked);
    let sent = world.probes.len() - probes;
    assert!((20..=45).contains(&sent), "a probe every 10 s, and one at each end of an open time: {sent}");
    assert!(world.probes.windows(2).all(|pair| pair[1].0.since(pair[0].0) >= ms(900)), "one at a time");
}

#[test]
fn the_primary_is_back_within_seconds_of_healing_and_gradually() {
    let healed = 360.0;
    let mut world = outage(&[probed("a/m"), target("b/m")], 60.0, healed, || fail(Failure::Overloaded));
    world.arrive_steadily(50.0, 1.0, 480.0, &stream());
    world.run_until(at(500.0));
    let share = |from: f64, until: f64| {
        let starts = world.calls.iter().flat_map(|seen| seen.starts.first());
        let (all, primary) = starts
            .filter(|(when, ..)| (at(from)..at(until)).contains(when))
            .fold((0.0, 0.0), |(all, primary), (_, target, _)| {
                (all + 1.0, primary + f64::from(u8::from(target.as_str() == "a/m")))
            });
        primary / all
    };
    assert!(share(healed, healed + 20.0) > 0.0, "back within 20 s");
    let first = world
        .calls
        .iter()
        .flat_map(|seen| &seen.starts)
        .find(|(when, target, _)| *when > at(healed) && target.as_str() == "a/m");
    let back = first.unwrap().0.since(at(healed));
    assert!(back < Duration::from_secs(17), "{back:?}");
    let from = healed + back.as_secs_f64();
    let ramp: Vec<_> = (0..5).map(|i| share(from + 10.0 * f64::from(i), from + 10.0 * f64::from(i + 1))).collect();
    assert!(ramp.windows(2).all(|pair| pair[0] < pair[1]), "{ramp:?}");
    assert!(ramp[0] < 0.3 && share(from + 55.0, from + 60.0) == 1.0, "{ramp:?}");
    assert_eq!(world.state("a/m").state, TargetState::Closed);
    let told: Vec<_> = world.alerts.iter().map(|(_, alert)| alert.clone()).collect();
    assert!(matches!(told.as_slice(), [Alert::BreakerOpened { .. }, Alert::BreakerClosed { .. }]), "{told:?}");
}

#[test]
fn without_probes_one_live_call_with_a_fallback_tries_it_at_the_end_of_each_open_time() {
    let mut world = outage(&[target("a/m"), target("b/m")], 60.0, 200.0, || fail(Failure::ServerError));
    world.arrive_steadily(20.0, 1.0, 400.0, &stream());
    world.run_until(at(420.0));
    assert_eq!(world.answered(), world.calls.len());
    // The trip, then trials at about 5, 15, 35, 75 s after it.
    assert!(wasted(&world) <= 6 + 6, "{}", wasted(&world));
    assert_eq!(world.state("a/m").state, TargetState::Closed, "and it is back");
}

#[test]
fn a_partial_outage_of_a_quarter_is_left_within_30_calls() {
    let mut world = World::new(&[probed("a/m"), target("b/m")], route(&["a/m", "b/m"]), |q, rng| {
        let out = q.now >= at(60.0) && q.target.as_str() == "a/m";
        if out && rng.f64() < 0.25 { fail(Failure::ServerError) } else { ok() }
    });
    world.arrive_steadily(10.0, 1.0, 300.0, &stream());
    world.run_until(at(330.0));
    assert_eq!(world.answered(), world.calls.len());
    let opened = world.alerts.iter().find(|(_, alert)| matches!(alert, Alert::BreakerOpened { .. })).unwrap().0;
    let until_then =
        world.calls.iter().flat_map(|seen| &seen.starts).filter(|(when, ..)| (at(60.0)..opened).contains(when));
    assert!(until_then.count() <= 45, "opened {opened:?}");
    let in_outage = world.calls.len() as f64 * 240.0 / 300.0;
    assert!((wasted(&world) as f64) < 0.02 * in_outage, "{} of {in_outage}", wasted(&world));
}

#[test]
fn with_everything_down_a_trickle_goes_through_and_the_others_wait_and_are_answered_on_recovery() {
    let mut world = World::new(&[probed("a/m")], route(&["a/m"]), |q, _| {
        if (at(10.0)..at(30.0)).contains(&q.now) { fail(Failure::Overloaded) } else { ok() }
    });
    world.arrive_steadily(5.0, 1.0, 60.0, &stream());
    world.run_until(at(12.0));
    let before = world.asked("a/m");
    world.run_until(at(30.0));
    let trickled = world.asked("a/m") - before;
    assert!((10..=19).contains(&trickled), "about one a second: {trickled}");
    world.run_until(at(120.0));
    assert!(world.all_settled());
    let lost = world.calls.len() - world.answered();
    // A trickled call is spent on what it met, and there is one a second; everybody else was kept waiting, not lost.
    assert!(lost <= trickled + 10, "{lost} lost of {}", world.calls.len());
}

#[test]
fn waiting_ends_with_patience_and_is_told_as_exhausted() {
    let mut world = World::new(&[target("a/m")], route(&["a/m"]), |_, _| Script::Hang);
    world.arrive_steadily(1.0, 1.0, 40.0, &stream());
    world.run_until(at(200.0));
    assert!(world.all_settled() && world.answered() == 0);
    let parked = world.calls.iter().filter(|seen| seen.starts.is_empty());
    for seen in parked {
        let settled = seen.settled.as_ref().unwrap();
        assert_eq!(settled.outcome, Outcome::Failed(Failure::Exhausted));
        assert!(settled.latency_us <= 30_000_000);
    }
    assert_eq!(world.state("a/m").in_flight, 0);
}

#[test]
fn max_ejected_calls_the_least_blamed_back() {
    let policy = HealthPolicy { max_ejected: 0.5, ..HealthPolicy::default() };
    let mut world = World::seeded(1, policy, &[target("a/m"), target("b/m")], route(&["a/m", "b/m"]), |q, rng| {
        if q.target.as_str() == "a/m" || rng.f64() < 0.6 { fail(Failure::Overloaded) } else { ok() }
    });
    world.arrive_steadily(10.0, 1.0, 60.0, &stream());
    world.run_until(at(200.0));
    let late: Vec<_> =
        world.calls.iter().filter(|seen| seen.starts.first().is_some_and(|(when, ..)| *when > at(30.0))).collect();
    assert!(late.len() > 250, "they are asked, not parked: {}", late.len());
}

#[test]
fn a_provider_whose_targets_fall_together_is_suspect_as_a_whole() {
    let targets = [target("a/1"), target("a/2"), target("a/3"), target("b/m")];
    let mut listed = route(&["a/1", "a/2", "a/3", "b/m"]);
    listed.tier = tier(4, Duration::from_secs(60));
    let mut world = World::new(&targets, listed, |q, _| match q.target.as_str() {
        "a/1" | "a/2" => fail(Failure::MalformedReply),
        _ => ok(),
    });
    world.arrive_steadily(2.0, 1.0, 30.0, &stream());
    world.run_until(at(31.0));
    assert!(world.alerts.iter().any(|(_, alert)| matches!(alert, Alert::ProviderSuspect { .. })));
    let planned: Vec<_> =
        world.calls.last().unwrap().settled.as_ref().unwrap().planned.iter().map(|id| id.as_str()).collect();
    assert_eq!(planned, ["b/m", "a/3"]);
}

#[test]
fn a_429_uses_the_providers_other_key_first_and_obeys_the_schedule() {
    let keyed = TargetSpec { keys: 2, ..target("a/m") };
    let mut world = World::new(&[keyed, target("b/m")], route(&["a/m", "b/m"]), |q, _| {
        let limited = q.target.as_str() == "a/m" && q.key == 0 && q.now < at(20.0);
        if limited { fail_after(ms(50), Failure::RateLimited, Some(Duration::from_secs(10))) } else { ok() }
    });
    world.arrive_steadily(1.0, 1.0, 9.0, &stream());
    world.run_until(at(30.0));
    let keys: Vec<_> = world.calls[0].starts.iter().map(|(_, target, key)| (target.as_str(), *key)).collect();
    assert_eq!(keys, [("a/m", 0), ("a/m", 1)]);
    assert!(world.calls[1..].iter().all(|seen| seen.starts.len() == 1 && seen.starts[0].2 == 1));
    assert_eq!(world.state("a/m").evidence, 0.0);
}

#[test]
fn a_lone_target_on_a_short_schedule_is_waited_for_and_on_a_long_one_told() {
    for (secs, answered) in [(5, true), (50, false)] {
        let mut world = World::new(&[target("a/m")], route(&["a/m"]), move |q, _| match q.earlier {
            0 => fail_after(ms(50), Failure::RateLimited, Some(Duration::from_secs(secs))),
            _ => ok(),
        });
        world.arrive(at(1.0), stream());
        world.arrive(at(2.0), stream());
        world.run_until(at(120.0));
        assert_eq!(world.answered(), if answered { 2 } else { 0 }, "{secs} s");
        if !answered {
            let (_, cause, retry, ..) = world.calls[1].rejected.clone().unwrap();
            assert_eq!(cause.unwrap().failure, Failure::RateLimited);
            assert!(retry.should_retry && retry.retry_after.is_some_and(|after| after > Duration::from_secs(45)));
        }
    }
}

#[test]
fn a_rejected_key_is_out_for_all_of_the_providers_targets_until_a_probe_passes() {
    let keyed = |id: &str| TargetSpec { keys: 2, ..probed(id) };
    let mut world = World::new(&[keyed("a/1"), keyed("a/2")], route(&["a/1", "a/2"]), |q, _| {
        if q.key == 0 && q.now < at(150.0) { fail(Failure::Auth) } else { ok() }
    });
    world.arrive_steadily(1.0, 1.0, 100.0, &stream());
    world.run_until(at(101.0));
    assert_eq!(world.answered(), world.calls.len());
    assert_eq!(wasted(&world), 1, "one call met it");
    assert_eq!(world.state("a/2").keys_out, [0]);
    let out = world.alerts.iter().filter(|(_, alert)| matches!(alert, Alert::KeyOut { key: 0, .. })).count();
    assert_eq!(out, 1);
    world.run_until(at(400.0));
    assert!(world.state("a/1").keys_out.is_empty());
    assert!(world.alerts.iter().any(|(_, alert)| matches!(alert, Alert::KeyBack { key: 0, .. })));
}

#[test]
fn without_probes_a_key_that_was_out_is_tried_by_one_call_at_a_time() {
    let mut world =
        World::new(&[target("a/m"), target("b/m")], route(&["a/m", "b/m"]), |q, _| match q.target.as_str() {
            "a/m" if q.now < at(200.0) => fail_after(ms(500), Failure::QuotaExhausted, None),
            _ => ok(),
        });
    world.arrive_steadily(10.0, 1.0, 500.0, &stream());
    world.run_until(at(520.0));
    assert_eq!(world.answered(), world.calls.len());
    // Those in flight together when it struck, and a trial after 60 s and after 120 s more.
    assert!(wasted(&world) <= 6 + 2, "{}", wasted(&world));
    assert!(world.state("a/m").keys_out.is_empty());
    assert_eq!(world.state("a/m").evidence, 0.0);
}

#[test]
fn a_denied_model_is_left_alone_and_told_once() {
    let mut world =
        World::new(&[target("a/m"), target("b/m")], route(&["a/m", "b/m"]), |q, _| match q.target.as_str() {
            "a/m" => fail(Failure::AccessDenied),
            _ => ok(),
        });
    world.arrive_steadily(2.0, 1.0, 300.0, &stream());
    world.run_until(at(320.0));
    assert_eq!(world.asked("a/m"), 1);
    assert_eq!(world.alerts.len(), 1);
    assert!(world.state("a/m").access_denied);
}

#[test]
fn bad_replies_demote_a_target_but_never_open_its_breaker() {
    let targets = [target("a/m"), target("b/m")];
    let mut world = World::new(&targets, route(&["a/m", "b/m"]), |q, _| match q.target.as_str() {
        "a/m" => bad(Failure::SchemaError),
        _ => ok(),
    });
    world.arrive_steadily(1.0, 1.0, 30.0, &Needs { output: OutputNeed::JsonSchema, ..stream() });
    world.run_until(at(31.0));
    let view = world.state("a/m");
    assert!(!view.demoted && view.state == TargetState::Closed && view.evidence == 0.0);
    let (route, schema) = view.quality.signals().find(|(_, seen)| seen.signal == Signal::Schema).unwrap();
    let alarm = schema.alarm.as_ref().expect("structure that breaks every time is an alarm");
    assert_eq!((route.unwrap().as_str(), alarm.observed, alarm.bad), ("route", 5, 5));
    assert_eq!(world.asked("a/m"), 5);
    let planned: Vec<_> =
        world.calls.last().unwrap().settled.as_ref().unwrap().planned.iter().map(|id| id.as_str()).collect();
    assert_eq!(planned, ["b/m", "a/m"]);
}

#[test]
fn a_target_that_turns_slow_is_demoted() {
    let mut world = World::new(&[target("a/m"), target("b/m")], route(&["a/m", "b/m"]), |q, _| {
        let slow = q.now >= at(100.0) && q.target.as_str() == "a/m";
        answer(if slow { ms(2400) } else { ms(400) }, outlast_model::Findings::CLEAN)
    });
    world.arrive_steadily(2.0, 1.0, 120.0, &stream());
    world.run_until(at(121.0));
    assert!(world.state("a/m").demoted && world.state("a/m").state == TargetState::Closed);
}

#[test]
fn a_reload_keeps_health_gives_new_targets_a_slot_and_retires_the_missing() {
    let mut world = outage(&[target("a/m"), target("b/m")], 1.0, 100.0, || fail(Failure::Overloaded));
    world.arrive_steadily(2.0, 1.0, 10.0, &stream());
    world.run_until(at(4.0));
    assert_ne!(world.state("a/m").state, TargetState::Closed);
    let now = world.now;
    world.fleet.install(HealthPolicy::default(), &[target("a/m"), target("c/m")], now);
    world.rebind(&route(&["a/m", "c/m"]));
    world.run_until(at(20.0));
    assert_ne!(world.state("a/m").state, TargetState::Closed, "its health is kept");
    assert!(world.asked("c/m") > 8);
    let shown: Vec<_> = world.fleet.view(world.now).into_iter().map(|view| view.id.to_string()).collect();
    assert_eq!(shown, ["a/m", "c/m"]);
    assert_eq!(world.answered(), world.calls.len());
}

#[test]
fn an_idle_target_is_probed_every_minute_and_a_busy_one_not_at_all() {
    let mut world = World::new(&[probed("a/m"), probed("b/m")], route(&["a/m"]), |_, _| ok());
    world.arrive_steadily(1.0, 1.0, 600.0, &stream());
    world.run_until(Mono::ZERO + Duration::from_secs(600));
    let count = |id: &str| world.probes.iter().filter(|(_, target)| target.as_str() == id).count();
    assert_eq!(count("a/m"), 0);
    assert!((8..=13).contains(&count("b/m")), "{}", count("b/m"));
}

#[test]
fn a_call_that_becomes_late_while_the_breaker_is_open_leaves_without_becoming_overdue() {
    let mut world =
        World::new(&[target("a/m"), target("b/m")], route(&["a/m", "b/m"]), |q, _| match q.target.as_str() {
            "a/m" if q.earlier == 0 => Script::Hang,
            "a/m" => fail(Failure::Overloaded),
            _ => ok(),
        });
    (0..5).for_each(|i| world.arrive(at(1.0 + f64::from(i) / 10.0), stream()));
    world.run_until(at(20.0));
    assert_eq!(world.answered(), 5);
    // Late at the prior's p99 of 4 s; it would be overdue at 12 s.
    let (left, ..) = world.calls[0].starts[1];
    assert_eq!(left, at(5.0));
}

#[test]
fn with_nobody_answered_since_the_first_overdue_call_speaks_for_the_late_ones() {
    let mut world = outage(&[target("a/m"), target("b/m")], 1.0, 100.0, || Script::Hang);
    world.arrive_steadily(1.0, 1.0, 60.0, &stream());
    world.run_until(at(13.1));
    assert_eq!(world.state("a/m").state, TargetState::Open, "at the first overdue call, not at the fourth");
    world.run_until(at(80.0));
    assert_eq!(world.answered(), world.calls.len());
}
