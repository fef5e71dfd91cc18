//! The telemetry file: one SQLite database that one thread writes and any number of processes may read.
//!
//! It keeps the lineage of every call that failed, was rerouted or degraded, a sample of the plain ones, and counters
//! of all calls per minute, route, target and outcome. Its size is bounded by age and by rows. A file that turns out
//! to be damaged is set aside under another name, never deleted, and a new one is begun.

mod feedback;
mod file;
mod read;
mod schema;

pub use rusqlite::Error as ReadError;

pub use feedback::Feedback;
pub use file::{OpenError, Opened, Retention, TelemetryFile, WriteError};
pub use read::{CallFilter, CounterRow, TelemetryReader};
pub use schema::SCHEMA_VERSION;

use outlast_model::{RouteId, TargetId, Wall, record::CallRecord};
use std::collections::BTreeMap;

/// What is counted of all calls of one minute, route, target and outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls settled.
    pub calls: u64,
    /// Attempts made for them.
    pub attempts: u64,
    /// Calls answered by another target than the first one asked.
    pub failovers: u64,
    /// Attempts that bought nothing.
    pub wasted_calls: u64,
    /// Calls served with less than their contract.
    pub degraded: u64,
    /// Tokens in, over all attempts.
    pub input_tokens: u64,
    /// Tokens out, over all attempts.
    pub output_tokens: u64,
    /// What all attempts cost, in nano-dollars.
    pub cost_nanos: u64,
    /// Of that, what bought nothing.
    pub wasted_nanos: u64,
    /// The calls' latencies added up, in microseconds.
    pub latency_us: u64,
}

impl Counts {
    fn of(call: &CallRecord) -> Self {
        let tokens = |pick: fn(&outlast_model::turn::Usage) -> u32| {
            call.attempts.iter().map(|attempt| u64::from(pick(&attempt.usage))).sum()
        };
        Counts {
            calls: 1,
            attempts: call.attempts.len() as u64,
            failovers: u64::from(call.failed_over()),
            wasted_calls: call.wasted_calls() as u64,
            degraded: u64::from(call.degraded),
            input_tokens: tokens(|usage| usage.input_tokens),
            output_tokens: tokens(|usage| usage.output_tokens),
            cost_nanos: call.cost.as_nanos(),
            wasted_nanos: call.wasted.as_nanos(),
            latency_us: call.latency_us,
        }
    }

    fn add(&mut self, other: &Counts) {
        for (mine, more) in self.fields_mut().into_iter().zip(other.fields()) {
            *mine = mine.saturating_add(more);
        }
    }

    fn fields(&self) -> [u64; 10] {
        let Counts { calls, attempts, failovers, wasted_calls, degraded, .. } = *self;
        let Counts { input_tokens, output_tokens, cost_nanos, wasted_nanos, latency_us, .. } = *self;
        [
            calls,
            attempts,
            failovers,
            wasted_calls,
            degraded,
            input_tokens,
            output_tokens,
            cost_nanos,
            wasted_nanos,
            latency_us,
        ]
    }

    fn fields_mut(&mut self) -> [&mut u64; 10] {
        [
            &mut self.calls,
            &mut self.attempts,
            &mut self.failovers,
            &mut self.wasted_calls,
            &mut self.degraded,
            &mut self.input_tokens,
            &mut self.output_tokens,
            &mut self.cost_nanos,
            &mut self.wasted_nanos,
            &mut self.latency_us,
        ]
    }
}

/// Which counter a call belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CounterKey {
    /// Minutes since the Unix epoch, of the call's admission.
    pub minute: i64,
    /// What the client named.
    pub route: RouteId,
    /// Which target answered, or was asked last; none if none was asked.
    pub target: Option<TargetId>,
    /// [`outlast_model::record::Outcome::name`].
    pub outcome: &'static str,
}

/// Counts not yet written. Exact: every call is added once, sampled or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<CounterKey, Counts>);

impl Counters {
    /// Counts one settled call under `route`: the call's own, or a common name for routes that are not configured, so
    /// that clients cannot make counters.
    pub fn add(&mut self, route: RouteId, call: &CallRecord) {
        let key = CounterKey {
            minute: minute_of(call.started),
            route,
            target: call.last_target().cloned(),
            outcome: call.outcome.name(),
        };
        self.0.entry(key).or_default().add(&Counts::of(call));
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: Counters) {
        for (key, counts) in other.0 {
            self.0.entry(key).or_default().add(&counts);
        }
    }

    /// True if nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many distinct counters it holds.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Every counter, in order of minute, route, target, outcome.
    pub fn iter(&self) -> impl Iterator<Item = (&CounterKey, &Counts)> {
        self.0.iter()
    }
}

fn minute_of(time: Wall) -> i64 {
    time.0.div_euclid(60_000)
}
