//! What is counted of durable runs.

use super::{Counter, Exposition};
use outlast_model::run::RunState;
use outlast_store::{StepBegun, StepEnded};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Runs, their steps and their workers.
#[derive(Debug, Default)]
pub struct RunMetrics {
    /// Started.
    pub started: Counter,
    /// Claimed by workers.
    pub claimed: Counter,
    /// Claimed for a worker that was gone before it was told, and given back.
    pub untold: Counter,
    /// Heartbeats that came too late.
    pub lost: Counter,
    /// Waits that gave a run up until something comes.
    pub waits: Counter,
    /// Signals, repetitions apart.
    pub signals: Counter,
    ended: [Counter; 3],
    begins: [Counter; 10],
    ends: [Counter; 6],
    seen: Mutex<Seen>,
}

/// How things stood when the store was last asked.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// By queue, the names beyond [`Seen::QUEUES_MAX`] together.
    pub queues: BTreeMap<String, QueueSeen>,
    /// Workers by state.
    pub workers: BTreeMap<&'static str, u64>,
    /// Runs that are poison and wait for a person; at most 200 are counted.
    pub quarantined: u64,
}

impl Seen {
    /// Names come from clients: no more than these become labels.
    pub const QUEUES_MAX: usize = 50;
}

/// One queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueSeen {
    /// Could be claimed now.
    pub due: u64,
    /// How long the oldest of them could have been, in seconds.
    pub oldest_due_s: f64,
    /// Held.
    pub running: u64,
    /// Their holder's lease ran out.
    pub lost: u64,
    /// Wait for a timer or a signal.
    pub waiting: u64,
    /// Wait for a person.
    pub parked: u64,
}

const ENDED: [&str; 3] = ["done", "failed", "cancelled"];
const BEGINS: [&str; 10] =
    ["execute", "verify", "replay", "replay_error", "wait", "in_flight", "parked", "mismatch", "refused", "no_run"];
const ENDS: [&str; 6] = ["done", "failed", "again", "unknown", "parked", "stale"];

impl RunMetrics {
    /// A run ended so.
    pub fn finished(&self, state: RunState) {
        if let Some(at) = ENDED.iter().position(|name| *name == state.name()) {
            self.ended[at].add(1);
        }
    }

    /// A step was begun, with this answer.
    pub fn begun(&self, answer: &StepBegun) {
        let at = match answer {
            StepBegun::Execute { .. } => 0,
            StepBegun::Verify { .. } => 1,
            StepBegun::Done { .. } => 2,
            StepBegun::Failed { .. } => 3,
            StepBegun::Wait { .. } => 4,
            StepBegun::InFlight { .. } => 5,
            StepBegun::Parked { .. } => 6,
            StepBegun::Mismatch => 7,
            StepBegun::Refused(_) => 8,
            StepBegun::NoRun => 9,
        };
        self.begins[at].add(1);
    }

    /// An attempt or a verification ended, and this came of it.
    pub fn step_ended(&self, answer: &StepEnded) {
        let at = match answer {
            StepEnded::Done => 0,
            StepEnded::Failed => 1,
            StepEnded::Again { .. } => 2,
            StepEnded::Unknown { .. } => 3,
            StepEnded::Parked { .. } => 4,
            StepEnded::Stale => 5,
        };
        self.ends[at].add(1);
    }

    /// How things stand.
    pub fn are(&self, seen: Seen) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }
}

pub(super) fn expose(out: &mut Exposition, runs: &RunMetrics) {
    out.counter("outlast_runs_total", "Durable runs, by what happened to them in this process.");
    out.sample(&[("event", "started")], runs.started.get());
    out.sample(&[("event", "claimed")], runs.claimed.get());
    out.sample(&[("event", "claim_undelivered")], runs.untold.get());
    for (name, counter) in ENDED.iter().zip(&runs.ended) {
        out.sample(&[("event", name)], counter.get());
    }
    out.counter("outlast_run_steps_begun_total", "Begins of steps over HTTP, by the answer.");
    for (name, counter) in BEGINS.iter().zip(&runs.begins) {
        out.sample(&[("answer", name)], counter.get());
    }
    out.counter("outlast_run_steps_ended_total", "Ends of steps over HTTP, by what they came to.");
    for (name, counter) in ENDS.iter().zip(&runs.ends) {
        out.sample(&[("result", name)], counter.get());
    }
    out.counter("outlast_run_waits_total", "Waits that gave a run up until a signal or a timer comes.");
    out.sample(&[], runs.waits.get());
    out.counter("outlast_run_signals_total", "Signals taken, repetitions apart.");
    out.sample(&[], runs.signals.get());
    out.counter("outlast_run_leases_lost_total", "Heartbeats of claims that were somebody else's by then.");
    out.sample(&[], runs.lost.get());
    expose_seen(out, &runs.seen.lock().unwrap_or_else(PoisonError::into_inner));
}

fn expose_seen(out: &mut Exposition, seen: &Seen) {
    let mut each = |name, help, value: fn(&QueueSeen) -> f64| {
        out.gauge(name, help);
        for (queue, depth) in &seen.queues {
            out.sample(&[("queue", queue)], value(depth));
        }
    };
    if !seen.queues.is_empty() {
        each("outlast_runs_due", "Runs that could be claimed.", |depth| depth.due as f64);
        each("outlast_runs_oldest_due_seconds", "How long the oldest of them could have been.", |d| d.oldest_due_s);
        each("outlast_runs_running", "Runs that are held.", |depth| depth.running as f64);
        each("outlast_runs_lost", "Runs whose holder's lease ran out, not claimed again yet.", |d| d.lost as f64);
        each("outlast_runs_waiting", "Runs that wait for a timer or a signal.", |depth| depth.waiting as f64);
        each("outlast_runs_parked", "Runs that wait for a person.", |depth| depth.parked as f64);
    }
    out.gauge("outlast_runs_quarantined", "Poison runs that wait for a person, counted up to 200.");
    out.sample(&[], seen.quarantined);
    out.gauge("outlast_workers", "Workers, by state.");
    for (state, count) in &seen.workers {
        out.sample(&[("state", state)], count);
    }
}
