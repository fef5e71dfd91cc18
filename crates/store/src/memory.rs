//! The store that lives as long as its process: the model that other back ends are compared with.
//!
//! One lock, one map per kind of row, every rule spelled out once and plainly. Bounded like any other by
//! [`Limits`]; what it keeps is gone with the process.

mod audit;
mod cache;
mod calls;
mod confirmations;
mod deliveries;
mod effects;
mod escalations;
mod inbox;
mod journal;
mod notices;
mod people;
mod queue;
mod run_store;
mod runs;
mod steps;
mod tally;
mod workers;

use crate::{
    Answer, AskConfirmation, Asked, BackedUp, BeginCall, Begun, Checked, ClaimQueued, ClaimedItem, Clock,
    CompleteQueued, Delivered, Delivery, DueDeliveries, EndCall, Enqueue, Enqueued, Epoch, FailQueued, Fenced, Limits,
    Payload, QueuedView, Recall, ReleaseQueued, Remember, Remembered, RenewCall, RenewQueued, Retried, RetryDelivery,
    Store, StoreError, StoreHealth, Swept, TakeConfirmation, Taken,
};
use outlast_model::{TenantId, Wall, run::RunState};
use std::{
    future,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Facts kept in memory.
#[derive(Debug)]
pub struct MemoryStore {
    limits: Limits,
    clock: Arc<dyn Clock>,
    facts: Mutex<Facts>,
}

/// Everything that is kept.
#[derive(Clone, Debug, Default)]
struct Facts {
    epochs: Epochs,
    calls: calls::Calls,
    queue: queue::Queue,
    deliveries: deliveries::Deliveries,
    cache: cache::Cache,
    escalations: escalations::Escalations,
    confirmations: confirmations::Confirmations,
    runs: runs::Runs,
    effects: effects::Effects,
    workers: workers::Workers,
}

/// The source of claims' numbers.
#[derive(Clone, Debug, Default)]
struct Epochs(i64);

impl Epochs {
    fn next(&mut self) -> Epoch {
        self.0 += 1;
        Epoch(self.0)
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        MemoryStore { limits, clock, facts: Mutex::default() }
    }

    /// Carries out one command under the lock.
    fn transact<T: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Facts, &Limits, Wall) -> Result<T, StoreError>,
    ) -> Answer<T> {
        // A panic inside a command is a bug, and the next commands' answers would tell; the rows are still rows.
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let result = command(&mut facts, &self.limits, self.clock.now());
        Box::pin(future::ready(result))
    }
}

impl Store for MemoryStore {
    fn begin_call(&self, command: BeginCall) -> Answer<Begun> {
        self.transact(|facts, limits, now| facts.calls.begin(command, &mut facts.epochs, limits, now))
    }

    fn renew_call(&self, command: RenewCall) -> Answer<Fenced> {
        self.transact(|facts, _, now| Ok(facts.calls.renew(&command, now)))
    }

    fn end_call(&self, command: EndCall) -> Answer<Fenced> {
        self.transact(|facts, limits, now| facts.calls.end(command, limits, now))
    }

    fn enqueue(&self, command: Enqueue) -> Answer<Enqueued> {
        self.transact(|facts, limits, now| facts.queue.enqueue(command, &mut facts.deliveries, limits, now))
    }

    fn claim_queued(&self, command: ClaimQueued) -> Answer<Option<ClaimedItem>> {
        self.transact(|facts, _, now| Ok(facts.queue.claim(&command, &mut facts.epochs, now)))
    }

    fn renew_queued(&self, command: RenewQueued) -> Answer<Fenced> {
        self.transact(|facts, _, now| Ok(facts.queue.renew(&command, now)))
    }

    fn complete_queued(&self, command: CompleteQueued) -> Answer<Fenced> {
        let CompleteQueued { id, epoch, reply } = command;
        self.finish(id, epoch, queue::End::Done, reply)
    }

    fn fail_queued(&self, command: FailQueued) -> Answer<Fenced> {
        let FailQueued { id, epoch, payload } = command;
        self.finish(id, epoch, queue::End::Failed, payload)
    }

    fn release_queued(&self, command: ReleaseQueued) -> Answer<Fenced> {
        self.transact(|facts, _, now| Ok(facts.queue.release(&command, now)))
    }

    fn queued(&self, tenant: TenantId, id: Arc<str>) -> Answer<Option<QueuedView>> {
        self.transact(|facts, limits, now| Ok(facts.queue.view(&tenant, &id, limits, now)))
    }

    fn remember(&self, command: Remember) -> Answer<()> {
        self.transact(|facts, limits, now| facts.cache.remember(command, limits, now))
    }

    fn recall(&self, question: Recall) -> Answer<Option<Remembered>> {
        self.transact(|facts, _, now| Ok(facts.cache.recall(question, now)))
    }

    fn ask_confirmation(&self, command: AskConfirmation) -> Answer<Asked> {
        self.transact(|facts, limits, now| facts.confirmations.ask(command, limits, now))
    }

    fn take_confirmation(&self, command: TakeConfirmation) -> Answer<Taken> {
        self.transact(|facts, limits, now| Ok(facts.confirmations.take(&command, limits, now)))
    }

    fn due_deliveries(&self, command: DueDeliveries) -> Answer<Vec<Delivery>> {
        self.transact(|facts, limits, now| {
            Ok(facts.deliveries.due(&command, &facts.queue, &mut facts.epochs, limits, now))
        })
    }

    fn delivered(&self, command: Delivered) -> Answer<Fenced> {
        self.transact(|facts, _, _| Ok(facts.deliveries.delivered(&command)))
    }

    fn retry_delivery(&self, command: RetryDelivery) -> Answer<Retried> {
        self.transact(|facts, limits, now| Ok(facts.deliveries.retry(&command, limits, now)))
    }

    fn sweep(&self, limit: u32) -> Answer<Swept> {
        self.transact(|facts, limits, now| Ok(facts.sweep(limit, limits, now)))
    }

    fn health(&self) -> Answer<StoreHealth> {
        self.transact(|facts, limits, now| Ok(facts.health(limits, now)))
    }

    fn backup(&self, _: PathBuf) -> Answer<BackedUp> {
        Box::pin(future::ready(Err(StoreError::Unsupported { what: "be copied: it lives in memory" })))
    }

    fn check(&self) -> Answer<Checked> {
        self.transact(|_, _, _| Ok(Checked::default()))
    }
}

impl MemoryStore {
    fn finish(&self, id: Arc<str>, epoch: Epoch, end: queue::End, payload: Payload) -> Answer<Fenced> {
        self.transact(|facts, limits, now| {
            facts.queue.finish(&id, epoch, end, payload, &mut facts.deliveries, limits, now)
        })
    }
}

impl Facts {
    /// What is due goes in this order, each kind the longest expired first.
    fn sweep(&mut self, limit: u32, limits: &Limits, now: Wall) -> Swept {
        let mut left = limit.max(1);
        let before = left;
        self.queue.expire(&mut left, &mut self.deliveries, now);
        let expired = before - left;
        self.queue.purge(&mut left, &mut self.deliveries, limits, now);
        self.calls.purge(&mut left, now);
        self.cache.purge(&mut left, now);
        self.confirmations.purge(&mut left, limits, now);
        self.escalations.purge(&mut left, limits, now);
        self.runs.purge(&mut left, limits, now);
        self.effects.purge(&mut left, &self.runs, limits, now);
        self.workers.purge(&mut left, limits, now);
        Swept { expired: expired.into(), removed: (before - expired - left).into(), more: left == 0 }
    }

    fn health(&self, limits: &Limits, now: Wall) -> StoreHealth {
        let queue = self.queue.depth(now);
        let (notices_pending, notices_given_up) = self.escalations.notices.counts(limits, now);
        let (deliveries_pending, deliveries_given_up) = self.deliveries.counts(limits, now);
        StoreHealth {
            backend: "memory",
            writable: true,
            calls: self.calls.len(),
            queue_waiting: queue.waiting,
            queue_running: queue.running,
            queue_oldest: queue.oldest.map(|oldest| age(oldest, now)),
            cached: self.cache.len(),
            escalations_open: self.escalations.open_count(),
            deliveries_pending,
            deliveries_given_up,
            notices_pending,
            notices_given_up,
            runs: self.runs.len(),
            runs_ready: self.runs.in_state(&[RunState::Ready]),
            runs_running: self.runs.in_state(&[RunState::Running]),
            runs_waiting: self.runs.in_state(&[RunState::Waiting]),
            runs_parked: self.runs.in_state(&[RunState::Parked, RunState::Quarantined]),
            effects: self.effects.len(),
            ..StoreHealth::default()
        }
    }
}

/// `duration` after `now`, in whole milliseconds.
fn after(now: Wall, duration: Duration) -> Wall {
    Wall(now.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
}

/// How long ago `then` was; nothing if the clock went back.
fn age(then: Wall, now: Wall) -> Duration {
    Duration::from_millis(u64::try_from(now.0.saturating_sub(then.0)).unwrap_or(0))
}

/// A payload that is larger than any may be.
fn fits(payload: &Payload, limits: &Limits) -> Result<(), StoreError> {
    let bytes = payload.len() as u64;
    if bytes > limits.payload_bytes {
        return Err(StoreError::TooLarge { bytes, limit: limits.payload_bytes });
    }
    Ok(())
}
