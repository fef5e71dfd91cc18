//! The rules that hold for every call on any seed. Most of them are in `world`, which watches every action; here are the
//! random worlds. A failing case prints the command that replays it.

mod world;

use outlast_engine::*;
use outlast_model::{
    Failure, FailureReport, Findings,
    failure::{ConnectionFault, Deadline},
    policy::*,
    record::Outcome,
};
use proptest::prelude::*;
use std::{sync::Arc, time::Duration};
use world::*;

/// What a target can be hit by.
const FAULTS: [Failure; 24] = [
    Failure::Timeout(Deadline::Connect),
    Failure::Timeout(Deadline::FirstToken),
    Failure::Connection(ConnectionFault::Refused),
    Failure::Connection(ConnectionFault::Reset),
    Failure::Connection(ConnectionFault::Tls),
    Failure::Connection(ConnectionFault::Dns),
    Failure::ServerError,
    Failure::Overloaded,
    Failure::RateLimited,
    Failure::QuotaExhausted,
    Failure::Auth,
    Failure::ContextExceeded,
    Failure::MalformedReply,
    Failure::Empty,
    Failure::SchemaError,
    Failure::Truncated,
    Failure::Refusal,
    Failure::SafetyBlock,
    Failure::ToolMismatch,
    Failure::Quality,
    Failure::AccessDenied,
    Failure::StreamInterrupted,
    Failure::Unsupported,
    Failure::InvalidRequest,
];

/// What only clients and schedules do.
const BLAMELESS: [Failure; 4] =
    [Failure::RateLimited, Failure::InvalidRequest, Failure::ContextExceeded, Failure::Unsupported];

/// A stretch of time in which a target fails in one way, so often.
#[derive(Clone, Debug)]
struct Phase {
    target: usize,
    from: f64,
    until: f64,
    rate: f64,
    how: Script,
}

fn random_script(rng: &mut fastrand::Rng, faults: &[Failure]) -> Script {
    let failure = faults[rng.usize(..faults.len())];
    let retry_after = rng.bool().then(|| Duration::from_secs(rng.u64(0..40)));
    let report = FailureReport { retry_after, ..FailureReport::of(failure) };
    match rng.u8(0..6) {
        0 if faults.len() > BLAMELESS.len() => Script::Hang,
        1 if faults.len() > BLAMELESS.len() => {
            Script::Cut { first: ms(rng.u64(50..3000)), tokens: rng.u32(0..60), gap: ms(rng.u64(1..200)), report }
        }
        2 if faults.len() > BLAMELESS.len() => answer(ms(rng.u64(10..8000)), found(failure)),
        _ => fail_after(ms(rng.u64(1..if faults.len() > BLAMELESS.len() { 5000 } else { 900 })), failure, retry_after),
    }
}

fn random_world(seed: u64, phases: usize, faults: &'static [Failure]) -> World {
    let mut rng = fastrand::Rng::with_seed(seed);
    let count = rng.usize(1..5);
    let names = ["a/1", "a/2", "b/1", "c/1"];
    let targets: Vec<_> =
        names[..count].iter().map(|id| TargetSpec { probes: rng.bool(), keys: rng.u8(1..4), ..target(id) }).collect();
    let mut listed = route(&names[..count]);
    listed.tier = tier(rng.u8(1..5), Duration::from_secs(rng.u64(2..90)));
    listed.ranking = [Ranking::Order, Ranking::Weight, Ranking::Latency, Ranking::Cost][rng.usize(..4)];
    let stream = [StreamContract::Buffer, StreamContract::Fail, StreamContract::CRITICAL][rng.usize(..3)];
    listed.contract = {
        let refusal = if rng.bool() { RefusalPolicy::Reroute } else { RefusalPolicy::Deliver };
        Arc::new(Contract { refusal, ..Contract::plain("random", stream) })
    };
    let phases: Vec<_> = (0..phases)
        .map(|_| {
            let from = rng.f64() * 100.0;
            let until = from + rng.f64() * 80.0;
            let rate = [0.05, 0.25, 1.0][rng.usize(..3)];
            Phase { target: rng.usize(..count), from, until, rate, how: random_script(&mut rng, faults) }
        })
        .collect();
    let policy = HealthPolicy {
        max_ejected: [0.5, 1.0][rng.usize(..2)],
        max_in_flight: [8, 4096][rng.usize(..2)],
        ..HealthPolicy::default()
    };
    World::seeded(seed, policy, &targets, listed, move |q, rng| {
        let hit = phases.iter().find(|phase| {
            names[phase.target] == q.target.as_str()
                && (at(phase.from)..at(phase.until)).contains(&q.now)
                && rng.f64() < phase.rate
        });
        hit.map_or_else(|| answer(ms(rng.u64(50..900)), Findings::CLEAN), |phase| phase.how.clone())
    })
}

fn fill(world: &mut World, seed: u64, calls: u64) {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0xa11);
    for _ in 0..calls {
        let when = rng.f64() * 150.0;
        let output = if rng.u8(..8) == 0 { OutputNeed::Json } else { OutputNeed::Text };
        let needs = Needs { stream: rng.bool(), output, input_tokens: rng.u32(1..30_000), ..Needs::default() };
        if rng.u8(..10) == 0 {
            world.arrive_briefly(at(when), needs, ms(rng.u64(0..20_000)));
        } else {
            world.arrive(at(when), needs);
        }
    }
}

fn run(seed: u64, phases: usize, calls: u64, faults: &'static [Failure]) -> World {
    struct Replay(u64, usize, u64);
    impl Drop for Replay {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let Replay(seed, phases, calls) = self;
                eprintln!(
                    "replay: OUTLAST_CASE={seed},{phases},{calls} cargo test -p outlast-engine --test invariants replay"
                );
            }
        }
    }
    let _replay = Replay(seed, phases, calls);
    let mut world = random_world(seed, phases, faults);
    fill(&mut world, seed, calls);
    world.run_until(at(400.0));
    assert!(world.all_settled(), "every call settles");
    for view in world.fleet.view(world.now) {
        assert_eq!((view.in_flight, view.overdue), (0, 0), "{}: nothing is left in flight", view.id);
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: std::env::var("OUTLAST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(60), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_rule_holds_for_every_call_in_any_outage(seed: u64, phases in 0usize..8, calls in 1u64..150) {
        run(seed, phases, calls, &FAULTS);
    }

    #[test]
    fn no_breaker_moves_for_429s_client_errors_and_clients_that_leave(seed: u64, phases in 1usize..8) {
        let world = run(seed, phases, 100, &BLAMELESS);
        for view in world.fleet.view(world.now) {
            prop_assert_eq!((view.state, view.faults), (TargetState::Closed, 0));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_trace(seed: u64) {
        let (one, two) = (run(seed, 5, 60, &FAULTS), run(seed, 5, 60, &FAULTS));
        prop_assert_eq!(one.trace, two.trace);
    }

    #[test]
    fn with_one_healthy_target_and_attempts_to_spare_every_call_is_answered(seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let script = [
            fail(Failure::ServerError),
            fail(Failure::Overloaded),
            fail(Failure::Auth),
            fail(Failure::RateLimited),
            fail(Failure::Connection(ConnectionFault::Refused)),
            fail(Failure::MalformedReply),
        ][rng.usize(..6)].clone();
        let mut world = World::seeded(seed, HealthPolicy::default(), &[target("a/m"), probed("b/m"), target("c/m")],
            route(&["a/m", "b/m", "c/m"]),
            move |q, _| if q.target.as_str() == "c/m" { ok() } else { script.clone() });
        for _ in 0..80 {
            let needs = Needs { stream: rng.bool(), input_tokens: 100, ..Needs::default() };
            world.arrive(at(1.0 + rng.f64() * 60.0), needs);
        }
        world.run_until(at(200.0));
        let lost: Vec<_> = world.calls.iter().filter(|seen| seen.delivered.is_none()).collect();
        prop_assert!(lost.is_empty(), "{:?}", lost.first().map(|seen| &seen.settled));
    }
}

/// Replays one case: `OUTLAST_CASE=seed,phases,calls`.
#[test]
fn replay_one_case() {
    let Ok(case) = std::env::var("OUTLAST_CASE") else { return };
    let parts: Vec<u64> = case.split(',').map(|part| part.parse().expect("seed,phases,calls")).collect();
    let world = run(parts[0], parts[1] as usize, parts[2], &FAULTS);
    println!("{}", world.trace.join("\n"));
}

#[test]
fn no_outcome_is_unheard_of() {
    let ended = |outcome: &Outcome| match outcome {
        Outcome::Answered => 0,
        Outcome::Failed(_) => 1,
        Outcome::Interrupted(_) => 2,
        Outcome::Cancelled | Outcome::Deferred => 3,
    };
    let mut seen = [0; 4];
    for seed in 0..30 {
        let world = run(seed, 6, 100, &FAULTS);
        world.calls.iter().for_each(|call| seen[ended(&call.settled.as_ref().unwrap().outcome)] += 1);
    }
    assert!(seen.iter().all(|count| *count > 5), "the random worlds reach every ending: {seen:?}");
}
