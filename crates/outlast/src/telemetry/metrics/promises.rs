//! What is counted of contracts, tiers and backstops: what replies were without, what they broke, what mended them.

use super::exposition::Exposition;
use outlast_model::{
    Gate, RouteId, TargetId,
    policy::BackstopName,
    record::{AttemptReason, AttemptRecord, CallRecord, Decision, GaveUp},
};
use std::collections::BTreeMap;

/// Of the calls of one route.
#[derive(Debug, Default)]
pub(super) struct RoutePromises {
    gave_up: BTreeMap<&'static str, u64>,
    backstops: BTreeMap<BackstopName, u64>,
    votes: BTreeMap<&'static str, u64>,
}

/// Of the attempts on one target.
#[derive(Debug, Default)]
pub(super) struct TargetPromises {
    gates: BTreeMap<Gate, u64>,
    repairs: BTreeMap<(&'static str, &'static str), u64>,
}

impl RoutePromises {
    pub(super) fn observe(&mut self, call: &CallRecord) {
        for what in call.gave_up.iter().map(GaveUp::name).filter(|_| call.degraded) {
            *self.gave_up.entry(what).or_default() += 1;
        }
        if let Some(backstop) = &call.backstop {
            *self.backstops.entry(backstop.kind).or_default() += 1;
        }
        if let Some(agreement) = &call.agreement {
            let against = agreement.votes.saturating_sub(agreement.votes_for);
            for (result, count) in [("for", agreement.votes_for), ("against", against), ("dropped", agreement.dropped)]
            {
                *self.votes.entry(result).or_default() += u64::from(count);
            }
        }
    }
}

impl TargetPromises {
    pub(super) fn observe(&mut self, attempt: &AttemptRecord) {
        for gate in attempt.problems.iter().filter_map(|problem| problem.gate) {
            *self.gates.entry(gate).or_default() += 1;
        }
        let result = if attempt.decision == Decision::Deliver { "served" } else { "in_vain" };
        let by_model = (attempt.reason == AttemptReason::Repair).then_some("model");
        for kind in attempt.fixes.iter().map(|fix| fix.name()).chain(by_model) {
            *self.repairs.entry((kind, result)).or_default() += 1;
        }
    }
}

/// Writes all of them.
pub(super) fn expose<'a>(
    out: &mut Exposition,
    routes: impl Iterator<Item = (&'a RouteId, &'a RoutePromises)> + Clone,
    targets: impl Iterator<Item = (&'a TargetId, &'a TargetPromises)> + Clone,
) {
    out.counter("outlast_gave_up_total", "Degraded calls, by what they were served without.");
    for (route, seen) in routes.clone() {
        for (what, count) in &seen.gave_up {
            out.sample(&[("route", route.as_str()), ("what", what)], count);
        }
    }
    out.counter("outlast_backstops_total", "Calls that a backstop ended, by its kind.");
    for (route, seen) in routes.clone() {
        for (kind, count) in &seen.backstops {
            out.sample(&[("route", route.as_str()), ("kind", kind.as_str())], count);
        }
    }
    out.counter("outlast_votes_total", "Votes, by whether they were for the answer that was served.");
    for (route, seen) in routes {
        for (result, count) in &seen.votes {
            out.sample(&[("route", route.as_str()), ("result", result)], count);
        }
    }
    out.counter("outlast_gate_failures_total", "What replies broke of their contracts.");
    for (target, seen) in targets.clone() {
        for (gate, count) in &seen.gates {
            out.sample(&[("target", target.as_str()), ("gate", gate.name())], count);
        }
    }
    out.counter("outlast_repairs_total", "Replies that were mended, by how, and whether they were served then.");
    for (target, seen) in targets {
        for ((kind, result), count) in &seen.repairs {
            out.sample(&[("target", target.as_str()), ("kind", kind), ("result", result)], count);
        }
    }
}
