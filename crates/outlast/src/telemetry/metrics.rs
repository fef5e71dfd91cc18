//! Numbers for `GET /metrics`, in the Prometheus text format.
//!
//! What belongs to a call is counted when telemetry takes it off its queue, under one lock for many calls; what others
//! keep up (calls in flight, connections) are atomics. Labels come from the config only, never from a client: a name
//! that is not configured counts as `other`.
//!
//! Names follow the OpenTelemetry GenAI conventions (in development) where they have one: towards vendors this
//! process is a client (`gen_ai_client_*`), towards callers a server (`gen_ai_server_*`).

mod durable;
mod exposition;
mod promises;
mod runs;
mod series;
#[cfg(test)]
mod tests;
mod tools;

use super::process::Process;
use crate::clock::Clock;
pub use durable::{DurableMetrics, IdempotencyMetrics, StoreMetrics};
use exposition::Exposition;
use outlast_engine::{SignalView, TargetState, TargetView};
use outlast_model::{RouteId, TargetId, Wall};
pub use runs::{QueueSeen, RunMetrics, Seen};
pub(super) use series::Series;
use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicI64, AtomicU64, Ordering},
};
pub use tools::{ToolMetrics, ToolState};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that comes and goes.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Sets it.
    pub fn set(&self, n: i64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything counted in this process.
#[derive(Debug)]
pub struct Metrics {
    /// Calls admitted and not yet settled.
    pub calls_in_flight: Gauge,
    /// Client connections open now.
    pub connections: Gauge,
    /// Client connections accepted.
    pub connections_accepted: Counter,
    /// Client connections refused at the cap.
    pub connections_refused: Counter,
    /// Requests shed because too many calls were in flight.
    pub shed_overload: Counter,
    /// Requests refused because the process is draining.
    pub shed_draining: Counter,
    /// Requests refused because the durable store could not be written.
    pub shed_store: Counter,
    /// Requests refused before they became calls: malformed, unknown route, too large.
    pub requests_rejected: Counter,
    /// Requests without a valid key.
    pub requests_unauthorized: Counter,
    /// Ratings of a half or more.
    pub feedback_good: Counter,
    /// Ratings of less.
    pub feedback_bad: Counter,
    /// Config reloads applied.
    pub reloads_applied: Counter,
    /// Config reloads refused.
    pub reloads_refused: Counter,
    /// Alerts delivered to the webhook.
    pub alerts_delivered: Counter,
    /// Alerts given up: the queue was full or the webhook kept failing.
    pub alerts_dropped: Counter,
    /// Log lines lost: the writer could not keep up, or the log is gone.
    pub lines_dropped: Counter,
    /// Lineage records not written to the file because it refused them for too long.
    pub lineage_dropped: Counter,
    /// Errors of the telemetry file.
    pub file_errors: Counter,
    /// The store.
    pub store: StoreMetrics,
    /// Calls with an `Idempotency-Key`.
    pub idempotency: IdempotencyMetrics,
    /// Model calls that are steps of runs.
    pub journal: IdempotencyMetrics,
    /// What else lives in the store.
    pub durable: DurableMetrics,
    /// Tools.
    pub tools: ToolMetrics,
    /// Durable runs.
    pub runs: RunMetrics,
    series: Mutex<Series>,
    started: Wall,
}

/// The states a breaker can be in, as labels.
const BREAKER_STATES: [&str; 5] = ["closed", "open", "half_open", "restoring", "retired"];

impl Metrics {
    pub(super) fn new(clock: &Clock) -> Self {
        Metrics {
            calls_in_flight: Gauge::default(),
            connections: Gauge::default(),
            connections_accepted: Counter::default(),
            connections_refused: Counter::default(),
            shed_overload: Counter::default(),
            shed_draining: Counter::default(),
            shed_store: Counter::default(),
            requests_rejected: Counter::default(),
            requests_unauthorized: Counter::default(),
            feedback_good: Counter::default(),
            feedback_bad: Counter::default(),
            reloads_applied: Counter::default(),
            reloads_refused: Counter::default(),
            alerts_delivered: Counter::default(),
            alerts_dropped: Counter::default(),
            lines_dropped: Counter::default(),
            lineage_dropped: Counter::default(),
            file_errors: Counter::default(),
            store: StoreMetrics::default(),
            idempotency: IdempotencyMetrics::default(),
            journal: IdempotencyMetrics::default(),
            durable: DurableMetrics::default(),
            tools: ToolMetrics::default(),
            runs: RunMetrics::default(),
            series: Mutex::new(Series::default()),
            started: clock.wall(),
        }
    }

    /// Declares the routes and targets of a config just loaded, which are the only label values from now on. Counters
    /// of names that stay go on; those of names that went are kept while there are not too many.
    pub fn install<'a>(
        &self,
        routes: impl IntoIterator<Item = &'a RouteId>,
        targets: impl IntoIterator<Item = &'a TargetId>,
    ) {
        self.series().install(routes, targets);
    }

    pub(super) fn series(&self) -> MutexGuard<'_, Series> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The whole exposition.
    pub(super) fn expose(&self, targets: &[TargetView]) -> String {
        let mut out = Exposition::default();
        self.series().expose(&mut out);
        expose_targets(&mut out, targets);
        self.expose_own(&mut out);
        durable::expose(&mut out, &self.store, &self.idempotency, &self.durable);
        durable::expose_journal(&mut out, &self.journal);
        tools::expose(&mut out, &self.tools);
        runs::expose(&mut out, &self.runs);
        expose_process(&mut out, &Process::look(), self.started);
        out.finish()
    }

    fn expose_own(&self, out: &mut Exposition) {
        out.gauge("outlast_calls_in_flight", "Calls admitted and not yet settled.");
        out.sample(&[], self.calls_in_flight.get());
        out.gauge("outlast_connections", "Client connections open now.");
        out.sample(&[], self.connections.get());
        out.counter("outlast_connections_total", "Client connections by what became of them.");
        out.sample(&[("result", "accepted")], self.connections_accepted.get());
        out.sample(&[("result", "refused")], self.connections_refused.get());
        out.counter("outlast_shed_total", "Requests refused because this process could not take them.");
        out.sample(&[("reason", "overload")], self.shed_overload.get());
        out.sample(&[("reason", "draining")], self.shed_draining.get());
        out.sample(&[("reason", "store")], self.shed_store.get());
        out.counter("outlast_rejected_total", "Requests refused before they became calls.");
        out.sample(&[("reason", "request")], self.requests_rejected.get());
        out.sample(&[("reason", "key")], self.requests_unauthorized.get());
        out.counter("outlast_feedback_total", "Callers' ratings of their calls.");
        out.sample(&[("rating", "good")], self.feedback_good.get());
        out.sample(&[("rating", "bad")], self.feedback_bad.get());
        out.counter("outlast_reloads_total", "Config reloads.");
        out.sample(&[("result", "applied")], self.reloads_applied.get());
        out.sample(&[("result", "refused")], self.reloads_refused.get());
        out.counter("outlast_alerts_total", "Alerts for the webhook.");
        out.sample(&[("result", "delivered")], self.alerts_delivered.get());
        out.sample(&[("result", "dropped")], self.alerts_dropped.get());
        out.counter("outlast_telemetry_dropped_total", "Telemetry lost because it could not be written in time.");
        out.sample(&[("what", "log_line")], self.lines_dropped.get());
        out.sample(&[("what", "lineage")], self.lineage_dropped.get());
        out.counter("outlast_telemetry_file_errors_total", "Errors of the telemetry file.");
        out.sample(&[], self.file_errors.get());
        out.gauge("outlast_build_info", "Always 1; the labels tell the build.");
        out.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    }
}

fn state_and_share(state: TargetState) -> (&'static str, f64) {
    match state {
        TargetState::Closed => ("closed", 1.0),
        TargetState::Open => ("open", 0.0),
        TargetState::HalfOpen => ("half_open", 0.0),
        TargetState::Restoring { share } => ("restoring", share),
        TargetState::Retired => ("retired", 0.0),
    }
}

fn expose_targets(out: &mut Exposition, targets: &[TargetView]) {
    if targets.is_empty() {
        return;
    }
    out.gauge("outlast_breaker_state", "1 for the state a target's breaker is in, 0 for the others.");
    for target in targets {
        for state in BREAKER_STATES {
            let labels = [("target", target.id.as_str()), ("state", state)];
            out.sample(&labels, u8::from(state_and_share(target.state).0 == state));
        }
    }
    let mut each = |name, help, value: fn(&TargetView) -> f64| {
        out.gauge(name, help);
        for target in targets {
            out.sample(&[("target", target.id.as_str())], value(target));
        }
    };
    each("outlast_breaker_evidence", "The CUSUM of a target; its breaker opens at the configured threshold.", |t| {
        t.evidence
    });
    each("outlast_target_share", "The share of its calls a target may take.", |t| state_and_share(t.state).1);
    each("outlast_target_demoted", "1 for a target ranked after the healthy ones.", |t| f64::from(u8::from(t.demoted)));
    each("outlast_target_in_flight", "Attempts in flight on a target.", |t| f64::from(t.in_flight));
    each("outlast_target_overdue", "Attempts in flight for longer than they should be.", |t| f64::from(t.overdue));
    each("outlast_target_limited_seconds", "How long rate limits still keep every key of a target away.", |t| {
        t.limited_for.unwrap_or_default().as_secs_f64()
    });
    each("outlast_target_keys_out", "Keys of a target that were rejected or are out of money.", |t| {
        t.keys_out.len() as f64
    });
    expose_quality(out, targets);
    out.counter("outlast_probes_total", "Probes sent to a target.");
    for target in targets {
        out.sample(&[("target", target.id.as_str())], target.probes);
    }
}

/// The route is empty for golden tasks, which speak for the whole target.
fn expose_quality(out: &mut Exposition, targets: &[TargetView]) {
    let mut each = |name, help, value: fn(&SignalView) -> f64| {
        out.gauge(name, help);
        for target in targets {
            for (route, signal) in target.quality.signals() {
                let route = route.map_or("", RouteId::as_str);
                let labels = [("target", target.id.as_str()), ("route", route), ("signal", signal.signal.name())];
                out.sample(&labels, value(signal));
            }
        }
    };
    if targets.iter().all(|target| target.quality.signals().next().is_none()) {
        return;
    }
    each("outlast_quality_rate", "The share of bad ones among about the last 200 observations.", |s| s.rate);
    each("outlast_quality_baseline", "The highest such share that is still fine.", |s| s.baseline);
    each("outlast_quality_alarm", "1 while the signal ranks the target after the healthy ones.", |s| {
        f64::from(u8::from(s.alarm.is_some()))
    });
}

fn expose_process(out: &mut Exposition, process: &Process, started: Wall) {
    let mut maybe = |name, help, value: Option<u64>| {
        if let Some(value) = value {
            out.gauge(name, help);
            out.sample(&[], value);
        }
    };
    maybe("process_resident_memory_bytes", "Resident memory.", process.resident_bytes);
    maybe("process_virtual_memory_bytes", "Virtual memory.", process.virtual_bytes);
    maybe("process_open_fds", "Open file descriptors.", process.open_fds);
    maybe("process_max_fds", "The limit of open file descriptors.", process.max_fds);
    if let Some(secs) = process.cpu_secs {
        out.counter("process_cpu_seconds_total", "CPU time, user and system.");
        out.sample(&[], secs);
    }
    out.gauge("process_start_time_seconds", "When this process began, in Unix time.");
    out.sample(&[], started.0 as f64 / 1000.0);
}
