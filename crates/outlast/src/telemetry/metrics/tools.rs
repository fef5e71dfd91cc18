//! What is counted of tools. Names come from the config only.

use super::Exposition;
use outlast_model::ToolName;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The upper bounds of an attempt's duration, in seconds.
const BOUNDS: [f64; 10] = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Where a tool's breaker stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToolState {
    /// It is asked.
    #[default]
    Closed,
    /// It is not asked.
    Open,
    /// One attempt may try it.
    HalfOpen,
}

impl ToolState {
    const ALL: [(ToolState, &'static str); 3] =
        [(ToolState::Closed, "closed"), (ToolState::Open, "open"), (ToolState::HalfOpen, "half_open")];
}

/// Tools, by name.
#[derive(Debug, Default)]
pub struct ToolMetrics(Mutex<BTreeMap<ToolName, Seen>>);

#[derive(Debug, Default)]
struct Seen {
    calls: BTreeMap<&'static str, u64>,
    attempts: BTreeMap<&'static str, u64>,
    verified: BTreeMap<&'static str, u64>,
    /// Attempts by duration; one more than there are bounds.
    took: [u64; BOUNDS.len() + 1],
    took_sum: f64,
    state: ToolState,
}

impl ToolMetrics {
    /// Counts a call by what became of it.
    pub fn call(&self, tool: &ToolName, result: &'static str) {
        self.of(tool, |seen| *seen.calls.entry(result).or_default() += 1);
    }

    /// Counts an attempt by its outcome, with how long it took.
    pub fn attempt(&self, tool: &ToolName, outcome: &'static str, took: Duration) {
        let secs = took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| secs <= *bound).unwrap_or(BOUNDS.len());
        self.of(tool, |seen| {
            *seen.attempts.entry(outcome).or_default() += 1;
            seen.took[bucket] += 1;
            seen.took_sum += secs;
        });
    }

    /// Counts an effect of unknown outcome that was looked into in the background.
    pub fn verified(&self, tool: &ToolName, outcome: &'static str) {
        self.of(tool, |seen| *seen.verified.entry(outcome).or_default() += 1);
    }

    /// Where its breaker stands.
    pub fn state(&self, tool: &ToolName, state: ToolState) {
        self.of(tool, |seen| seen.state = state);
    }

    fn of(&self, tool: &ToolName, count: impl FnOnce(&mut Seen)) {
        let mut tools = self.lock();
        match tools.get_mut(tool) {
            Some(seen) => count(seen),
            None => count(tools.entry(tool.clone()).or_default()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ToolName, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn expose(out: &mut Exposition, tools: &ToolMetrics) {
    let tools = tools.lock();
    let mut counts = |name, help, label: &str, of: fn(&Seen) -> &BTreeMap<&'static str, u64>| {
        out.counter(name, help);
        for (tool, seen) in tools.iter() {
            for (value, count) in of(seen) {
                out.sample(&[("tool", tool.as_str()), (label, value)], count);
            }
        }
    };
    counts("outlast_tool_calls_total", "Calls of tools, by what became of them.", "result", |seen| &seen.calls);
    counts("outlast_tool_attempts_total", "Attempts at tools, by outcome.", "outcome", |seen| &seen.attempts);
    counts("outlast_tool_verified_total", "Unknown effects looked into in the background.", "outcome", |seen| {
        &seen.verified
    });
    out.histogram("outlast_tool_attempt_seconds", "How long attempts at tools took.");
    for (tool, seen) in tools.iter() {
        out.buckets(&[("tool", tool.as_str())], &BOUNDS, &seen.took, seen.took_sum);
    }
    out.gauge("outlast_tool_breaker", "1 for the state of a tool's breaker, as of its last attempt.");
    for (tool, seen) in tools.iter() {
        for (state, name) in ToolState::ALL {
            out.sample(&[("tool", tool.as_str()), ("state", name)], u8::from(seen.state == state));
        }
    }
}
