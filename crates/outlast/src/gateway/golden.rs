//! Golden tasks: inputs with checkable properties that every target of a route is asked again and again. A target that
//! begins to fail them is demoted by the fleet, before users notice.
//!
//! A golden task is a call on behalf of nobody: it costs money, has a record, and counts as nobody's traffic. A target
//! that gives no answer at all says nothing about quality; that is the breakers' affair.

use super::{
    Shared,
    inner::{self, Inner},
    live::{Live, LiveRoute},
};
use crate::{clock, config::GoldenTask};
use bytes::Bytes;
use outlast_engine::{FleetEvent, TargetIx};
use outlast_model::{Failure, Mono, TargetId, failure::Blame, policy::Dialect, record::Role};
use outlast_wire::Inbound;
use std::{collections::HashMap, sync::Arc, time::Duration};

/// How often the config in force is compared with what is due; a reload is noticed after this.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A target that has not answered by then has given no answer: the others wait behind it.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first round after a start comes within this, spread over it.
const FIRST_WITHIN: Duration = Duration::from_secs(5);

/// A golden task on one of its route's targets, ready to be asked.
pub(crate) struct Trial {
    task: Arc<GoldenTask>,
    target: TargetId,
    ix: TargetIx,
    /// The target alone, held to the task's contract.
    route: Arc<LiveRoute>,
}

impl Trial {
    /// Of a task and a route of this one target.
    pub(super) fn new(task: Arc<GoldenTask>, target: TargetId, route: Arc<LiveRoute>) -> Option<Self> {
        let ix = route.bound.targets().next()?;
        Some(Trial { task, target, ix, route })
    }
}

/// Runs until it is aborted: one task at a time, so that goldens never crowd out traffic.
pub(super) async fn watch(shared: Arc<Shared>) {
    let mut due: HashMap<(Arc<str>, TargetId), Mono> = HashMap::new();
    loop {
        let live = shared.live();
        let now = shared.clock.mono();
        let known = |trial: &Trial| (trial.task.name.clone(), trial.target.clone());
        due.retain(|key, _| live.golden.iter().any(|trial| known(trial) == *key));
        let mut next = now + LOOK_EVERY;
        for trial in &live.golden {
            let first = trial.task.every.min(FIRST_WITHIN);
            let at = due.entry(known(trial)).or_insert_with(|| now + share(first, shared.clock.seed()));
            if *at <= now {
                // Jittered by a tenth: rounds of many processes do not fall together.
                let every = trial.task.every;
                *at = now + every.mul_f64(0.9) + share(every.mul_f64(0.2), shared.clock.seed());
                run(&shared, &live, trial).await;
            }
            next = next.min(*at);
        }
        clock::sleep_until(shared.clock.instant(next)).await;
    }
}

/// Some part of a time, drawn evenly.
fn share(of: Duration, seed: u64) -> Duration {
    of.mul_f64((seed >> 11) as f64 / (1u64 << 53) as f64)
}

async fn run(shared: &Arc<Shared>, live: &Arc<Live>, trial: &Trial) {
    let secs = u64::try_from(shared.clock.wall().0 / 1000).unwrap_or_default();
    let body = Bytes::copy_from_slice(trial.task.body.as_bytes());
    let Ok(inbound) = Inbound::parse(Dialect::OpenaiChat, body) else { return };
    let inner = Inner {
        route: trial.route.clone(),
        inbound: Arc::new(inbound.received_at(secs)),
        budget: None,
        deadline: Some(PATIENCE),
        role: Role::Golden,
        // It is on behalf of nobody: its own record is where the story ends.
        parent: trial.task.name.as_ref().into(),
        run: None,
        tenant: None,
        state: None,
        passed: Vec::new(),
        depth: 1,
    };
    let answered = inner::ask(shared, live, inner).await;
    let durable = &shared.telemetry.metrics().durable;
    let passed = match &answered.result {
        Ok(_) => {
            durable.golden_passed.add(1);
            true
        }
        Err(report) if is_a_verdict(report.failure) => {
            durable.golden_failed.add(1);
            false
        }
        Err(_) => return durable.golden_unanswered.add(1),
    };
    let now = shared.clock.mono();
    shared.with_fleet(|fleet| fleet.handle(FleetEvent::Golden { target: trial.ix, passed }, now));
}

/// Whether the failure is about what was answered, not about whether anything was.
fn is_a_verdict(failure: Failure) -> bool {
    failure == Failure::Truncated || failure == Failure::SafetyBlock || failure.remedy().blame == Blame::Quality
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_no_verdict_and_a_bad_answer_is() {
        for failure in [Failure::Quality, Failure::SchemaError, Failure::Refusal, Failure::Empty, Failure::Truncated] {
            assert!(is_a_verdict(failure), "{failure}");
        }
        for failure in [Failure::Overloaded, Failure::RateLimited, Failure::Exhausted, Failure::CostSpike] {
            assert!(!is_a_verdict(failure), "{failure}");
        }
    }

    #[test]
    fn a_share_lies_within_the_whole() {
        let whole = Duration::from_secs(10);
        assert_eq!(share(whole, 0), Duration::ZERO);
        assert!(share(whole, u64::MAX) <= whole && share(whole, u64::MAX) > whole.mul_f64(0.99));
    }
}
