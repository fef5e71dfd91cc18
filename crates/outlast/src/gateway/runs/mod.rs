//! Durable runs over HTTP: the worker protocol of `docs/worker-protocol.md`, and what looks after it.
//!
//! Read in the order of a run: [`api`] (start, list, look, end), [`claim`] (who advances it), [`steps`] (begin, end),
//! [`waits`] (signals and timers), [`workers`], [`supervisor`] (who does what, and what is late), [`upkeep`] (numbers and
//! alerts). [`read`] is how a body is read, [`view`] what is shown. What decides is the store's, by `outlast_engine::run`.

mod drive;
#[expect(dead_code, reason = "claims wait with it, as soon as they are served")]
mod hints;

pub(super) use drive::Executors;

use hints::Hints;
use outlast_store::RunRef;
use std::sync::Arc;

/// What concerns runs in this process; part of [`super::Shared`].
#[derive(Default)]
pub(crate) struct Runs {
    hints: Arc<Hints>,
}

impl Runs {
    /// There may be a run to be claimed in this queue: said after whatever makes one ready. A hint only: a claim that
    /// waits asks the store again about every second.
    pub(crate) fn nudge(&self, queue: &str) {
        self.hints.nudge(queue);
    }

    /// The run has ended: whoever waits for its result looks.
    pub(crate) fn ended(&self, run: &RunRef) {
        self.hints.nudge_all(&ending(run));
    }
}

/// What those who wait for a run's end listen to. No queue is called so.
fn ending(run: &RunRef) -> Arc<str> {
    format!("\n{}/{}", run.tenant, run.id).into()
}
