//! What every back end has to pass.
//!
//! - [`compare`] drives a back end and the memory model with the same random history (several tenants and workers,
//!   clock jumps, leases that run out, commands repeated, stale epochs, crashes) and compares every answer; a difference
//!   comes back with the shortest history found that still shows it.
//! - [`SCENARIOS`] are the promises one by one, in words.
//!
//! Both are driven by the caller's runtime and need no test framework, so that a back end can be held to them anywhere.

mod durable;
mod history;
mod people;
mod people_scenarios;
mod run_scenarios;
mod runs;
mod scenarios;
mod see;
mod step_scenarios;
mod steps;

pub use history::{CacheOp, CallOp, ConfirmOp, Op, OutboxOp, QueueOp, Theme, history};
pub use people::EscalationOp;
pub use people_scenarios::PEOPLE_SCENARIOS;
pub use run_scenarios::RUN_SCENARIOS;
pub use runs::{RunOp, Starts, WorkerOp};
pub use scenarios::{Bench, Check, SCENARIOS, Scenario};
pub use see::Seen;
pub use step_scenarios::STEP_SCENARIOS;
pub use steps::{Begins, By, StepOp};

use crate::{Bound, Clock, Limits, MemoryStore, Room, Store};
use outlast_model::Wall;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows some time in 2027.
    pub fn start() -> Arc<Self> {
        Arc::new(ManualClock(AtomicI64::new(1_800_000_000_000)))
    }

    /// Moves it, backwards too.
    pub fn advance(&self, millis: i64) {
        self.0.fetch_add(millis, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Wall {
        Wall(self.0.load(Ordering::Relaxed))
    }
}

/// A back end that can be begun anew and can crash.
pub trait Subject {
    /// A fresh, empty store.
    fn fresh(&mut self, limits: Limits, clock: Arc<dyn Clock>) -> Box<dyn Store>;
    /// The same store after its process died and came back: everything answered must be there.
    fn reopen(&mut self, store: Box<dyn Store>) -> Box<dyn Store>;
}

/// Limits so narrow that histories meet all of them.
pub const NARROW: Limits = Limits {
    payload_bytes: 64,
    calls: narrow(6, 4, 128, 96),
    queue: narrow(8, 5, 300, 200),
    cache: narrow(5, 3, 120, 80),
    escalations: narrow(5, 3, 300, 200),
    audit: 40,
    confirmations: narrow(4, 3, 64, 64),
    finished_keep: Duration::from_millis(5_000),
    decided_keep: Duration::from_millis(8_000),
    expired_keep: Duration::from_millis(3_000),
    delivery_attempts: 3,
    runs: narrow(7, 5, 2_000, 1_500),
    effects: narrow(6, 4, 400, 300),
    signals: 3,
    steps: 12,
    inline_bytes: 32,
    worker_gone: Duration::from_millis(2_000),
    payload_keep: Duration::from_millis(5_000),
    key_keep: Duration::from_millis(20_000),
};

impl Theme {
    /// So narrow that histories of it meet all of them.
    const fn limits(self) -> Limits {
        match self {
            Theme::Gateway => NARROW,
            // What waits for a person must not be refused too often to be decided.
            Theme::Runs => Limits { escalations: narrow(12, 9, 300, 250), audit: 80, signals: 2, ..NARROW },
        }
    }
}

const fn narrow(rows: u64, share: u64, bytes: u64, share_bytes: u64) -> Room {
    Room { whole: Bound { rows, bytes }, tenant: Bound { rows: share, bytes: share_bytes } }
}

/// A back end and the model answered differently.
#[derive(Debug)]
pub struct Divergence {
    /// The history's seed.
    pub seed: u64,
    /// The shortest history found that shows a difference; the last command is where it shows.
    pub history: Vec<Op>,
    /// What the model answers to the last command.
    pub model: Seen,
    /// What the back end answers.
    pub subject: Seen,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, after {} commands:", self.seed, self.history.len())?;
        for op in &self.history {
            writeln!(f, "    {op:?}")?;
        }
        writeln!(f, "model:   {:?}", self.model)?;
        write!(f, "subject: {:?}", self.subject)
    }
}

impl std::error::Error for Divergence {}

/// Drives `subject` and the model with the history of `seed` and compares every answer.
///
/// # Errors
/// [`Divergence`] at the first difference, its history made as short as a few hundred more runs can.
pub async fn compare(subject: &mut dyn Subject, theme: Theme, seed: u64, length: usize) -> Result<(), Box<Divergence>> {
    let Some(mut found) = first_difference(subject, theme, seed, length).await else { return Ok(()) };
    let mut runs = 0;
    let mut chunk = found.history.len() / 2;
    while chunk > 0 && runs < 400 {
        let mut start = 0;
        let mut shorter = false;
        while start + chunk < found.history.len() && runs < 400 {
            let mut without = found.history.clone();
            without.drain(start..start + chunk);
            runs += 1;
            match difference(subject, &without, theme, seed).await {
                Some(smaller) => (found, shorter) = (smaller, true),
                None => start += chunk,
            }
        }
        if !shorter {
            chunk /= 2;
        }
    }
    Err(found)
}

/// As [`compare`], but the history is not made shorter.
pub async fn first_difference(
    subject: &mut dyn Subject,
    theme: Theme,
    seed: u64,
    length: usize,
) -> Option<Box<Divergence>> {
    difference(subject, &history(theme, seed, length), theme, seed).await
}

/// What the model answers to the history of a seed: to see that histories meet what they are to meet.
pub async fn answers(theme: Theme, seed: u64, length: usize) -> Vec<Seen> {
    let clock = ManualClock::start();
    let mut model = see::Player::new(Box::new(MemoryStore::new(theme.limits(), clock.clone())));
    let mut answers = Vec::with_capacity(length);
    for op in history(theme, seed, length) {
        if let Op::Advance { millis } = op {
            clock.advance(millis);
        }
        answers.push(model.play(&op).await);
    }
    answers
}

async fn difference(subject: &mut dyn Subject, ops: &[Op], theme: Theme, seed: u64) -> Option<Box<Divergence>> {
    let (clock, model_clock) = (ManualClock::start(), ManualClock::start());
    let mut tested = see::Player::new(subject.fresh(theme.limits(), clock.clone()));
    let mut model = see::Player::new(Box::new(MemoryStore::new(theme.limits(), model_clock.clone())));
    for (at, op) in ops.iter().enumerate() {
        if let Op::Advance { millis } = op {
            clock.advance(*millis);
            model_clock.advance(*millis);
        }
        if *op == Op::Crash {
            tested.reopen(subject);
        }
        let (expected, seen) = (model.play(op).await, tested.play(op).await);
        if expected != seen {
            let history = ops[..=at].to_vec();
            return Some(Box::new(Divergence { seed, history, model: expected, subject: seen }));
        }
    }
    None
}
