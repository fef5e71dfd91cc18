//! What is counted of calls and attempts, per route and per target.

use super::{
    exposition::Exposition,
    promises::{self, RoutePromises, TargetPromises},
};
use outlast_model::{
    Failure, RouteId, TargetId,
    record::{AttemptReason, AttemptRecord, CallRecord, Outcome, Role},
};
use std::collections::BTreeMap;

/// Names kept after they left the config; beyond it the departed are forgotten.
const DEPARTED_MAX: usize = 1024;
/// The label of a name that is not in the config.
const OTHER: &str = "other";
/// The value of `gen_ai.operation.name`.
const CHAT: (&str, &str) = ("gen_ai_operation_name", "chat");

/// Seconds, as the GenAI conventions advise.
const SECONDS: [f64; 14] = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
/// Tokens, as the GenAI conventions advise.
const TOKENS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// A histogram of 14 bounds.
#[derive(Clone, Debug, Default)]
struct Histogram {
    counts: [u64; 15],
    sum: f64,
}

impl Histogram {
    fn observe(&mut self, bounds: &[f64; 14], value: f64) {
        self.counts[bounds.partition_point(|bound| *bound < value)] += 1;
        self.sum += value;
    }

    fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }
}

/// The calls of one route.
#[derive(Debug, Default)]
struct RouteSeries {
    /// Per target that answered or was asked last: calls by [`outcome_index`].
    calls: BTreeMap<Option<TargetId>, [u64; OUTCOMES.len()]>,
    failovers: u64,
    degraded: u64,
    wasted_nanos: u64,
    duration: [Histogram; OUTCOMES.len()],
    first_token: Histogram,
    promises: RoutePromises,
}

/// The attempts on one target.
#[derive(Debug, Default)]
struct TargetSeries {
    attempts: u64,
    hedges: u64,
    wasted: u64,
    /// By the failure's text, `timeout:first_token`.
    failures: BTreeMap<Failure, u64>,
    duration_ok: Histogram,
    duration_failed: BTreeMap<&'static str, Histogram>,
    first_chunk: Histogram,
    input_tokens: Histogram,
    output_tokens: Histogram,
    cost_nanos: u64,
    promises: TargetPromises,
}

/// All of them. Bounded by the config: routes x targets x outcomes.
#[derive(Debug, Default)]
pub(in crate::telemetry) struct Series {
    routes: BTreeMap<RouteId, RouteSeries>,
    targets: BTreeMap<TargetId, TargetSeries>,
}

impl Series {
    pub(super) fn install<'a>(
        &mut self,
        routes: impl IntoIterator<Item = &'a RouteId>,
        targets: impl IntoIterator<Item = &'a TargetId>,
    ) {
        let (routes, targets): (Vec<_>, Vec<_>) = (routes.into_iter().collect(), targets.into_iter().collect());
        if self.routes.len() > routes.len() + DEPARTED_MAX {
            self.routes.retain(|route, _| routes.contains(&route));
        }
        if self.targets.len() > targets.len() + DEPARTED_MAX {
            self.targets.retain(|target, _| targets.contains(&target));
        }
        for route in routes {
            self.routes.entry(route.clone()).or_default();
        }
        for target in targets {
            self.targets.entry(target.clone()).or_default();
        }
    }

    /// Counts a settled call and returns the route it was counted under. A golden task is nobody's traffic: only its
    /// attempts are counted, of its target.
    pub(in crate::telemetry) fn observe(&mut self, call: &CallRecord) -> Option<RouteId> {
        for attempt in &call.attempts {
            known(&mut self.targets, &attempt.target).1.observe(attempt, call.stream);
        }
        if call.parent.as_ref().is_some_and(|parent| parent.role == Role::Golden) {
            return None;
        }
        let target = call.last_target().map(|target| known(&mut self.targets, target).0);
        self.admit_direct(&call.route);
        let (name, route) = known(&mut self.routes, &call.route);
        let outcome = outcome_index(call.outcome);
        route.calls.entry(target).or_default()[outcome] += 1;
        route.failovers += u64::from(call.failed_over());
        route.degraded += u64::from(call.degraded);
        route.wasted_nanos += call.wasted.as_nanos();
        route.promises.observe(call);
        route.duration[outcome].observe(&SECONDS, call.latency_us as f64 / 1e6);
        if let (true, Some(micros)) = (call.stream, call.first_output_us) {
            route.first_token.observe(&SECONDS, micros as f64 / 1e6);
        }
        Some(name)
    }

    /// A target's own name works as a route, too; it gets a series of its own with its first call.
    fn admit_direct(&mut self, route: &RouteId) {
        if !self.routes.contains_key(route) && self.targets.contains_key(&TargetId::from(route.as_str())) {
            self.routes.entry(route.clone()).or_default();
        }
    }

    pub(super) fn expose(&self, out: &mut Exposition) {
        self.expose_calls(out);
        self.expose_attempts(out);
        let routes = self.routes.iter().map(|(route, series)| (route, &series.promises));
        let targets = self.targets.iter().map(|(target, series)| (target, &series.promises));
        promises::expose(out, routes, targets);
        self.expose_as_server(out);
        self.expose_as_client(out);
    }

    fn expose_calls(&self, out: &mut Exposition) {
        out.counter("outlast_calls_total", "Settled calls, by the target that answered or was asked last.");
        for (route, series) in &self.routes {
            for (target, counts) in &series.calls {
                let target = target.as_ref().map_or("none", TargetId::as_str);
                for (outcome, count) in OUTCOMES.iter().zip(counts) {
                    if *count > 0 {
                        out.sample(&[("route", route.as_str()), ("target", target), ("outcome", outcome)], count);
                    }
                }
            }
        }
        let mut each = |name, help, value: fn(&RouteSeries) -> f64| {
            out.counter(name, help);
            for (route, series) in &self.routes {
                out.sample(&[("route", route.as_str())], value(series));
            }
        };
        each("outlast_failovers_total", "Calls answered by another target than the first one asked.", |route| {
            route.failovers as f64
        });
        each("outlast_degraded_total", "Calls served with less than their contract.", |route| route.degraded as f64);
        each("outlast_wasted_usd_total", "Dollars paid for attempts that bought nothing.", |route| {
            route.wasted_nanos as f64 / 1e9
        });
    }

    fn expose_attempts(&self, out: &mut Exposition) {
        let mut each = |name, help, value: fn(&TargetSeries) -> f64| {
            out.counter(name, help);
            for (target, series) in &self.targets {
                out.sample(&[("target", target.as_str())], value(series));
            }
        };
        each("outlast_attempts_total", "Upstream calls made for clients.", |target| target.attempts as f64);
        each("outlast_hedges_total", "Upstream calls made to race a slow one.", |target| target.hedges as f64);
        each("outlast_wasted_calls_total", "Upstream calls that bought nothing.", |target| target.wasted as f64);
        each("outlast_cost_usd_total", "Dollars spent.", |target| target.cost_nanos as f64 / 1e9);
        out.counter("outlast_failures_total", "Attempts that failed, by class and detail.");
        for (target, series) in &self.targets {
            for (failure, count) in &series.failures {
                let detail = failure.detail().unwrap_or_default();
                let labels = [("target", target.as_str()), ("failure", failure.class()), ("detail", detail)];
                out.sample(&labels, count);
            }
        }
    }

    fn expose_as_server(&self, out: &mut Exposition) {
        out.histogram("gen_ai_server_request_duration_seconds", "From admission to settlement, per route.");
        for (route, series) in &self.routes {
            for (outcome, histogram) in OUTCOMES.iter().zip(&series.duration) {
                let error = if *outcome == "answered" { "" } else { outcome };
                let labels = as_server(route, ("error_type", error));
                if !histogram.is_empty() {
                    out.buckets(&labels, &SECONDS, &histogram.counts, histogram.sum);
                }
            }
        }
        out.histogram("gen_ai_server_time_to_first_token_seconds", "Until the client's first output of a stream.");
        for (route, series) in &self.routes {
            if !series.first_token.is_empty() {
                let labels = as_server(route, ("error_type", ""));
                out.buckets(&labels, &SECONDS, &series.first_token.counts, series.first_token.sum);
            }
        }
    }

    fn expose_as_client(&self, out: &mut Exposition) {
        out.histogram("gen_ai_client_operation_duration_seconds", "One attempt on a target, to its end.");
        for (target, series) in &self.targets {
            let histograms = [("", &series.duration_ok)];
            let failed = series.duration_failed.iter().map(|(class, histogram)| (*class, histogram));
            for (error, histogram) in histograms.into_iter().chain(failed) {
                if !histogram.is_empty() {
                    let labels = as_client(target, ("error_type", error));
                    out.buckets(&labels, &SECONDS, &histogram.counts, histogram.sum);
                }
            }
        }
        out.histogram(
            "gen_ai_client_operation_time_to_first_chunk_seconds",
            "Until a target's first semantic output of a stream.",
        );
        for (target, series) in &self.targets {
            if !series.first_chunk.is_empty() {
                let labels = as_client(target, ("error_type", ""));
                out.buckets(&labels, &SECONDS, &series.first_chunk.counts, series.first_chunk.sum);
            }
        }
        out.histogram("gen_ai_client_token_usage", "Tokens of one attempt, as reported or estimated.");
        for (target, series) in &self.targets {
            for (kind, histogram) in [("input", &series.input_tokens), ("output", &series.output_tokens)] {
                if !histogram.is_empty() {
                    let labels = as_client(target, ("gen_ai_token_type", kind));
                    out.buckets(&labels, &TOKENS, &histogram.counts, histogram.sum);
                }
            }
        }
    }
}

impl TargetSeries {
    fn observe(&mut self, attempt: &AttemptRecord, stream: bool) {
        let secs = attempt.took_us as f64 / 1e6;
        self.attempts += 1;
        self.hedges += u64::from(attempt.reason == AttemptReason::Hedge);
        self.promises.observe(attempt);
        self.wasted += u64::from(attempt.decision.is_waste());
        match &attempt.failure {
            None => self.duration_ok.observe(&SECONDS, secs),
            Some(report) => {
                *self.failures.entry(report.failure).or_default() += 1;
                self.duration_failed.entry(report.failure.class()).or_default().observe(&SECONDS, secs);
            }
        }
        if let (true, Some(micros)) = (stream, attempt.first_output_us) {
            self.first_chunk.observe(&SECONDS, micros as f64 / 1e6);
        }
        let usage = &attempt.usage;
        if usage.input_tokens > 0 || usage.output_tokens > 0 {
            self.input_tokens.observe(&TOKENS, f64::from(usage.input_tokens));
            self.output_tokens.observe(&TOKENS, f64::from(usage.output_tokens));
        }
        self.cost_nanos += attempt.cost.unwrap_or_default().as_nanos();
    }
}

/// The names of outcomes, in the order of [`outcome_index`].
const OUTCOMES: [&str; 5] = ["answered", "failed", "interrupted", "cancelled", "deferred"];

fn outcome_index(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Answered => 0,
        Outcome::Failed(_) => 1,
        Outcome::Interrupted(_) => 2,
        Outcome::Cancelled => 3,
        Outcome::Deferred => 4,
    }
}

fn as_server<'a>(route: &'a RouteId, last: (&'a str, &'a str)) -> [(&'a str, &'a str); 4] {
    [CHAT, ("gen_ai_provider_name", "outlast"), ("gen_ai_request_model", route.as_str()), last]
}

fn as_client<'a>(target: &'a TargetId, last: (&'a str, &'a str)) -> [(&'a str, &'a str); 4] {
    [CHAT, ("gen_ai_provider_name", target.provider()), ("gen_ai_request_model", target.model()), last]
}

/// The series of a configured name, or of all others.
fn known<'a, K: Ord + Clone + for<'b> From<&'b str>, V: Default>(
    map: &'a mut BTreeMap<K, V>,
    name: &K,
) -> (K, &'a mut V) {
    let name = if map.contains_key(name) { name.clone() } else { K::from(OTHER) };
    (name.clone(), map.entry(name).or_default())
}
