//! The rules that hold for every call on any seed. Most of them are in `world`, which watches every action; here are the
//! random worlds. A failing case prints the command that replays it.

mod world;

use outlast_engine::*;
use outlast_model::{
    Failure, FailureReport, Findings, Gate, Problem,
    failure::{ConnectionFault, Deadline},
    policy::*,
    record::{AttemptReason, Decision, GaveUp, Outcome},
};
use proptest::prelude::*;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
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

/// What a contract may say, at random: any of it, none of it, all of it.
fn random_contract(rng: &mut fastrand::Rng) -> Contract {
    let stream = [StreamContract::Buffer, StreamContract::Fail, StreamContract::CRITICAL][rng.usize(..3)];
    let plain = if rng.bool() { gated() } else { Contract::plain("random", stream) };
    let mode = |rng: &mut fastrand::Rng| {
        [ToolMode::Full, ToolMode::PlanOnly, ToolMode::ReadOnly, ToolMode::None][rng.usize(..4)]
    };
    let some = |rng: &mut fastrand::Rng| rng.u8(..3) == 0;
    let permissions = Permissions {
        regions: some(rng).then(|| vec!["eu".into()]),
        providers: some(rng).then(|| vec!["a".into(), "b".into()]),
        tools: None,
    };
    Contract {
        refusal: [RefusalPolicy::Deliver, RefusalPolicy::Reroute, RefusalPolicy::Review][rng.usize(..3)],
        safety: [SafetyPolicy::Return, SafetyPolicy::Review][rng.usize(..2)],
        tools: rng.bool().then(|| ToolPolicy { primary: mode(rng), fallback: mode(rng), read_only: Vec::new() }),
        needs: ContractNeeds { context: some(rng).then_some(9_000), tools: some(rng), images: some(rng) },
        permissions: if some(rng) { permissions } else { Permissions::default() },
        repair: Repair {
            fixes: Vec::new(),
            model: rng.bool(),
            then: [AfterRepair::Reroute, AfterRepair::Review, AfterRepair::Stop][rng.usize(..3)],
        },
        shorten: rng.bool().then_some(Shorten::DropOldestTurns),
        ..plain
    }
}

fn random_target(id: &str, rng: &mut fastrand::Rng) -> TargetSpec {
    let ability = |rng: &mut fastrand::Rng| [Ability::Yes, Ability::Yes, Ability::No, Ability::Unknown][rng.usize(..4)];
    TargetSpec {
        probes: rng.bool(),
        keys: rng.u8(1..4),
        region: [None, Some("eu".into()), Some("us".into())][rng.usize(..3)].clone(),
        capabilities: Capabilities { tools: ability(rng), images: ability(rng), json_schema: ability(rng) },
        context_window: [None, Some(8_000), Some(20_000), Some(200_000)][rng.usize(..4)],
        max_output: [None, Some(40), Some(4_000)][rng.usize(..3)],
        price: [
            None,
            Some(outlast_model::Price::per_million(0.1, 0.4, None, None)),
            Some(outlast_model::Price::per_million(3.0, 15.0, None, None)),
        ][rng.usize(..3)],
        ..target(id)
    }
}

/// Any sentence of backstops, and how each behaves: it answers well, badly, never, late, with a promise, or not at all.
fn random_backstops(rng: &mut fastrand::Rng) -> Vec<Arc<Backstop>> {
    let kinds = [a_static, a_cache, a_queue, an_escalation, a_question, a_failure];
    (0..rng.usize(..4)).map(|_| kinds[rng.usize(..kinds.len())]()).collect()
}

fn random_backstop(rng: &mut fastrand::Rng, kind: BackstopName) -> Option<(Duration, Backstopped)> {
    let defers = matches!(kind, BackstopName::Queue | BackstopName::Escalate | BackstopName::Confirm);
    let outcome = match rng.u8(..5) {
        0 => return None,
        1 => Backstopped::Declined,
        2 => said(found(Failure::Quality)),
        _ if defers => deferred(),
        _ => said(Findings::CLEAN),
    };
    Some((ms(rng.u64(..3000)), outcome))
}

/// Everything that can be found in a reply, at random.
fn random_findings(rng: &mut fastrand::Rng) -> Findings {
    const GATES: [Gate; 13] = [
        Gate::Schema,
        Gate::Drift,
        Gate::Citation,
        Gate::MustInclude,
        Gate::MustNot,
        Gate::Language,
        Gate::Length,
        Gate::Duplicate,
        Gate::Expression,
        Gate::Claim,
        Gate::Confidence,
        Gate::Validator,
        Gate::Unjudged,
    ];
    let mostly = [13, 2][rng.usize(..2)];
    let problems: Vec<_> = (0..rng.usize(..3)).map(|_| Problem::at(GATES[rng.usize(..mostly)], "random")).collect();
    let keeps_degraded = problems.iter().all(|it| it.failure == Failure::SchemaError) && !problems.is_empty();
    Findings {
        keeps_degraded: keeps_degraded && rng.bool(),
        confidence: rng.bool().then(|| rng.f64()),
        cost: outlast_model::Usd::from_nanos(rng.u64(..3) * 400_000),
        problems,
        ..Findings::CLEAN
    }
}

fn random_world(seed: u64, phases: usize, faults: &'static [Failure]) -> World {
    let mut rng = fastrand::Rng::with_seed(seed);
    let count = rng.usize(1..5);
    let names = ["a/1", "a/2", "b/1", "c/1"];
    // Half of the worlds are plain: outages alone.
    let plain = rng.bool();
    let targets: Vec<_> = names[..count]
        .iter()
        .map(|id| match plain {
            true => TargetSpec { probes: rng.bool(), keys: rng.u8(1..4), ..target(id) },
            false => random_target(id, &mut rng),
        })
        .collect();
    let mut listed = route(&names[..count]);
    let usual = tier(rng.u8(1..5), Duration::from_secs(rng.u64(2..90)));
    let cost_max = (!plain && rng.bool()).then(|| outlast_model::Usd::from_nanos(rng.u64(100_000..80_000_000)));
    let hedge = (rng.u8(..3) == 0).then(|| Hedge { budget: [0.05, 1.0][rng.usize(..2)] });
    listed.tier = Arc::new(Tier { cost_max, hedge, ..(*usual).clone() });
    listed.ranking = [Ranking::Order, Ranking::Weight, Ranking::Latency, Ranking::Cost][rng.usize(..4)];
    let stream = [StreamContract::Buffer, StreamContract::Fail, StreamContract::CRITICAL][rng.usize(..3)];
    let refusal = if rng.bool() { RefusalPolicy::Reroute } else { RefusalPolicy::Deliver };
    listed.contract = Arc::new(match plain {
        true => Contract { refusal, ..Contract::plain("random", stream) },
        false => random_contract(&mut rng),
    });
    listed.backstops = if plain { Vec::new() } else { random_backstops(&mut rng) };
    let kinds: Vec<_> = listed.backstops.iter().map(|it| it.kind.name()).collect();
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
    let judging = if plain || rng.bool() { Duration::ZERO } else { ms(rng.u64(1..9000)) };
    let blameless = faults.len() == BLAMELESS.len();
    let mut world = World::seeded(seed, policy, &targets, listed, move |q, rng| {
        let hit = phases.iter().find(|phase| {
            names[phase.target] == q.target.as_str()
                && (at(phase.from)..at(phase.until)).contains(&q.now)
                && rng.f64() < phase.rate
        });
        match hit {
            Some(phase) => phase.how.clone(),
            None if !plain && !blameless && rng.u8(..20) == 0 => {
                Script::RunAway { first: ms(rng.u64(50..900)), gap: ms(rng.u64(1..50)) }
            }
            None if !plain && rng.u8(..3) == 0 => answer(ms(rng.u64(50..900)), random_findings(rng)),
            None => answer(ms(rng.u64(50..900)), Findings::CLEAN),
        }
    });
    world.judging = judging;
    world.with_backstops(move |at, _| random_backstop(&mut rng, kinds[at]))
}

fn fill(world: &mut World, seed: u64, calls: u64) {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0xa11);
    // Requests of one size, whose usual speed is soon known; or of all sizes.
    let longest = [900, 30_000][rng.usize(..2)];
    for _ in 0..calls {
        let when = rng.f64() * 150.0;
        let output = if rng.u8(..8) == 0 { OutputNeed::Json } else { OutputNeed::Text };
        let needs = Needs {
            stream: rng.bool(),
            output,
            tools: rng.u8(..3) == 0,
            images: rng.u8(..8) == 0,
            provider_effects: rng.u8(..8) == 0,
            input_tokens: rng.u32(1..longest),
            max_output_tokens: rng.bool().then(|| rng.u32(1..200)),
            more_choices: if rng.u8(..6) == 0 { rng.u32(1..4) } else { 0 },
            budget: (rng.u8(..6) == 0).then(|| outlast_model::Usd::from_nanos(rng.u64(10_000..50_000_000))),
            ..Needs::default()
        };
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
        Outcome::Cancelled => 3,
        Outcome::Deferred => 4,
    };
    let mut seen = [0; 5];
    for seed in 0..30 {
        let world = run(seed, 6, 100, &FAULTS);
        world.calls.iter().for_each(|call| seen[ended(&call.settled.as_ref().unwrap().outcome)] += 1);
    }
    assert!(seen.iter().all(|count| *count > 5), "the random worlds reach every ending: {seen:?}");
}

#[test]
fn the_random_worlds_reach_every_corner_of_a_contract() {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in 0..200 {
        for call in run(seed, 6, 60, &FAULTS).calls {
            let settled = call.settled.expect("every call settles");
            let left_out = settled.left_out.iter().map(|left| left.why.name());
            let gave_up = settled.gave_up.iter().map(GaveUp::name);
            let decided = settled.attempts.iter().filter_map(|attempt| match attempt.decision {
                Decision::Repair => Some("repair"),
                Decision::Keep => Some("keep"),
                Decision::Outrun => Some("outrun"),
                Decision::Deliver
                | Decision::Reroute
                | Decision::RetrySame
                | Decision::Wait
                | Decision::ReturnReason
                | Decision::GiveUp
                | Decision::Interrupt
                | Decision::Cancel => None,
            });
            let reasons = settled.attempts.iter().filter_map(|attempt| match attempt.reason {
                AttemptReason::Repair => Some("mend"),
                AttemptReason::Shorten => Some("shorten"),
                AttemptReason::Hedge => Some("hedge"),
                AttemptReason::First
                | AttemptReason::Reroute
                | AttemptReason::SameTarget
                | AttemptReason::HalfOpenTrial
                | AttemptReason::Trickle
                | AttemptReason::AfterWait => None,
            });
            let spikes = settled.attempts.iter().filter_map(|attempt| attempt.failure.as_ref());
            let spikes = spikes.map(|report| report.failure.class());
            let ends = settled.backstop.iter().map(|used| used.kind.as_str());
            let kept = matches!(call.delivered, Some((Source::Kept(_), _))).then_some("kept was served");
            let corners = left_out.chain(gave_up).chain(decided).chain(reasons).chain(spikes).chain(ends).chain(kept);
            corners.for_each(|corner| *seen.entry(corner).or_default() += 1);
        }
    }
    for corner in [
        "not_permitted",
        "price_unknown",
        "over_budget",
        "context_too_small",
        "no_tools",
        "tools",
        "schema",
        "input",
        "model",
        "immediacy",
        "repair",
        "keep",
        "mend",
        "shorten",
        "hedge",
        "outrun",
        "cost_spike",
        "static",
        "cache",
        "queue",
        "escalate",
        "confirm",
        "kept was served",
        "tool_failed",
        "refusal",
    ] {
        assert!(seen.get(corner).is_some_and(|count| *count > 3), "{corner}: {seen:?}");
    }
}
