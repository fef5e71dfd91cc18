//! A host that feeds events in any order, twice, or about attempts and backstops that never were: the call never panics,
//! settles once, and does nothing after that.

mod world;

use outlast_engine::*;
use outlast_model::{Failure, FailureReport, Findings, Gate, Mono, Problem, Usd, policy::*, turn::Usage};
use proptest::prelude::*;
use std::{sync::Arc, time::Duration};
use world::*;

fn any_event(rng: &mut fastrand::Rng) -> Event {
    let attempt = rng.u8(..4);
    let at = rng.usize(..3);
    let usage = Usage { input_tokens: rng.u32(..2_000), output_tokens: rng.u32(..2_000), ..Usage::default() };
    let spent = Spent { usage, bytes_out: 1, bytes_in: 1 };
    let problems = (0..rng.usize(..3))
        .map(|_| match rng.u8(..3) {
            0 => Problem::at(Gate::Schema, "any"),
            1 => Problem::at(Gate::Unjudged, "any"),
            _ => Problem::new(Failure::ALL[rng.usize(..Failure::ALL.len())], "any"),
        })
        .collect();
    let cost = Usd::from_nanos(rng.u64(..10_000_000));
    let findings = Findings { problems, keeps_degraded: rng.bool(), cost, ..Findings::CLEAN };
    let report = FailureReport::of(Failure::ALL[rng.usize(..Failure::ALL.len())]);
    match rng.u8(..15) {
        0 => Event::Admit,
        1 | 2 => Event::Headers { attempt },
        3 | 4 => Event::Output { attempt, tokens: rng.u32(..3_000), releasable: rng.bool() },
        5 => Event::Ended { attempt, finish: None, spent },
        6 => Event::Failed { attempt, report, spent },
        7 | 8 => Event::Checked { attempt, findings },
        9 => Event::Aborted { attempt, spent },
        10 => Event::Backstopped { at, outcome: said(findings) },
        11 => Event::Backstopped { at, outcome: if rng.bool() { deferred() } else { Backstopped::Declined } },
        12 => Event::Woken,
        13 if rng.u8(..4) == 0 => Event::ClientGone,
        _ => Event::Tick,
    }
}

/// Enough plain calls that the targets' usual speed is known, without which nobody is raced.
fn warm_up(fleet: &mut Fleet, route: &BoundRoute) {
    for id in 100..160 {
        let ask = Ask { id: CallId(id), route: route.clone(), needs: stream(), deadline: None, seed: id };
        let mut call = Call::new(ask, Mono::ZERO);
        let spent = Spent::default();
        let findings = Findings::CLEAN;
        for (event, when) in [
            (Event::Admit, 0.0),
            (Event::Output { attempt: 0, tokens: 1, releasable: true }, 0.1),
            (Event::Ended { attempt: 0, finish: None, spent }, 0.2),
            (Event::Checked { attempt: 0, findings }, 0.2),
        ] {
            call.handle(fleet, event, at(when));
            while call.poll_action().is_some() {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn events_in_any_order_never_panic_and_a_call_settles_at_most_once(seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let tools = ToolPolicy { primary: ToolMode::Full, fallback: ToolMode::PlanOnly, read_only: Vec::new() };
        let contract = Contract {
            repair: Repair { model: true, ..Repair::default() },
            refusal: RefusalPolicy::Review,
            shorten: Some(Shorten::DropOldestTurns),
            tools: Some(tools),
            ..if rng.bool() { gated() } else { Contract::plain("any", StreamContract::CRITICAL) }
        };
        let usual = tier(4, Duration::from_secs(20));
        let cost_max = rng.bool().then(|| Usd::from_nanos(10_000_000));
        let hedge = rng.bool().then_some(Hedge { budget: 1.0 });
        let route = Route {
            backstops: vec![a_static(), an_escalation(), a_queue()],
            tier: Arc::new(Tier { cost_max, hedge, ..(*usual).clone() }),
            ..under(contract, &["a/m", "b/m"])
        };
        let mut fleet = Fleet::new(HealthPolicy::default(), seed);
        fleet.install(HealthPolicy::default(), &[target("a/m"), target("b/m")], Mono::ZERO);
        let route = fleet.bind(&route);
        warm_up(&mut fleet, &route);
        let needs = Needs { tools: rng.bool(), ..if rng.bool() { stream() } else { whole() } };
        let mut call = Call::new(Ask { id: CallId(1), route, needs, deadline: None, seed }, at(1.0));
        let (mut now, mut settled) = (at(1.0), 0);
        for _ in 0..120 {
            now = now + ms(rng.u64(..400));
            call.handle(&mut fleet, any_event(&mut rng), now);
            while let Some(action) = call.poll_action() {
                prop_assert_eq!(settled, 0, "{:?} after the settlement", action);
                settled += usize::from(matches!(action, Action::Settle(_)));
            }
            prop_assert!(settled == 0 || call.poll_timeout().is_none());
        }
    }
}
