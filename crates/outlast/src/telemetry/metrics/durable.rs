//! What is counted of the store and of what lives in it.

use super::{Counter, Exposition};
use outlast_store::StoreHealth;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The store's troubles, and how it was when it was last asked.
#[derive(Debug, Default)]
pub struct StoreMetrics(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// By the error's name.
    troubles: BTreeMap<&'static str, u64>,
    health: Option<StoreHealth>,
}

impl StoreMetrics {
    /// Counts a command that was not carried out, by the error's name.
    pub fn trouble(&self, name: &'static str) {
        *self.lock().troubles.entry(name).or_default() += 1;
    }

    /// How the store is now; none if it does not say.
    pub fn is(&self, health: Option<StoreHealth>) {
        self.lock().health = health;
    }

    /// How it was when it was last asked; none if it did not say.
    pub fn health(&self) -> Option<StoreHealth> {
        self.lock().health.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls with an `Idempotency-Key`, by what became of them.
#[derive(Debug, Default)]
pub struct IdempotencyMetrics {
    /// Nobody had asked before.
    pub executed: Counter,
    /// The kept end was given again.
    pub replayed: Counter,
    /// The first one was still being answered.
    pub in_flight: Counter,
    /// The key stood for another request.
    pub mismatched: Counter,
}

/// What else lives in the store.
#[derive(Debug, Default)]
pub struct DurableMetrics {
    /// Good replies kept.
    pub remembered: Counter,
    /// Good replies not kept, because too many were on their way or the store refused.
    pub forgotten: Counter,
    /// Requests queued.
    pub queued: Counter,
    /// Queued requests answered.
    pub queue_done: Counter,
    /// Queued requests that failed for good.
    pub queue_failed: Counter,
    /// Queued requests given back for a later try.
    pub queue_released: Counter,
    /// Webhooks delivered.
    pub webhooks_delivered: Counter,
    /// Tries of a webhook that did not arrive.
    pub webhooks_failed: Counter,
    /// Notices of escalations sent.
    pub notices_sent: Counter,
    /// Tries of a notice that did not arrive.
    pub notices_failed: Counter,
    /// Golden tasks a target passed.
    pub golden_passed: Counter,
    /// Golden tasks a target failed.
    pub golden_failed: Counter,
    /// Golden tasks a target gave no answer to.
    pub golden_unanswered: Counter,
}

/// Model calls that are steps of runs.
pub(super) fn expose_journal(out: &mut Exposition, journal: &IdempotencyMetrics) {
    out.counter("outlast_journal_calls_total", "Model calls that are steps of runs, by what became of them.");
    out.sample(&[("result", "executed")], journal.executed.get());
    out.sample(&[("result", "replayed")], journal.replayed.get());
    out.sample(&[("result", "in_flight")], journal.in_flight.get());
    out.sample(&[("result", "mismatched")], journal.mismatched.get());
}

pub(super) fn expose(
    out: &mut Exposition,
    store: &StoreMetrics,
    idempotency: &IdempotencyMetrics,
    durable: &DurableMetrics,
) {
    out.counter("outlast_idempotency_total", "Calls with an Idempotency-Key, by what became of them.");
    out.sample(&[("result", "executed")], idempotency.executed.get());
    out.sample(&[("result", "replayed")], idempotency.replayed.get());
    out.sample(&[("result", "in_flight")], idempotency.in_flight.get());
    out.sample(&[("result", "mismatched")], idempotency.mismatched.get());
    out.counter("outlast_cache_stored_total", "Good replies for the cache backstop, by whether they were kept.");
    out.sample(&[("result", "kept")], durable.remembered.get());
    out.sample(&[("result", "dropped")], durable.forgotten.get());
    out.counter("outlast_queue_total", "Requests in the durable queue, by what happened to them.");
    out.sample(&[("event", "queued")], durable.queued.get());
    out.sample(&[("event", "done")], durable.queue_done.get());
    out.sample(&[("event", "failed")], durable.queue_failed.get());
    out.sample(&[("event", "released")], durable.queue_released.get());
    out.counter("outlast_queue_webhooks_total", "Tries to announce the end of a queued request.");
    out.sample(&[("result", "delivered")], durable.webhooks_delivered.get());
    out.sample(&[("result", "failed")], durable.webhooks_failed.get());
    out.counter("outlast_notices_total", "Tries to tell somebody of an escalation.");
    out.sample(&[("result", "sent")], durable.notices_sent.get());
    out.sample(&[("result", "failed")], durable.notices_failed.get());
    out.counter("outlast_golden_total", "Answers of targets to golden tasks.");
    out.sample(&[("result", "passed")], durable.golden_passed.get());
    out.sample(&[("result", "failed")], durable.golden_failed.get());
    out.sample(&[("result", "unanswered")], durable.golden_unanswered.get());
    expose_store(out, &store.lock());
}

fn expose_store(out: &mut Exposition, seen: &Seen) {
    out.counter("outlast_store_errors_total", "Commands that the store did not carry out, by reason.");
    for (name, count) in &seen.troubles {
        out.sample(&[("reason", name)], count);
    }
    out.gauge("outlast_store_up", "1 if the store answered when it was last asked and can be written.");
    out.sample(&[], u8::from(seen.health.as_ref().is_some_and(|health| health.writable)));
    let Some(health) = &seen.health else { return };
    let mut gauge = |name, help, value: f64| {
        out.gauge(name, help);
        out.sample(&[], value);
    };
    gauge("outlast_store_bytes", "What the store takes on disk; 0 in memory.", health.disk_bytes as f64);
    gauge("outlast_store_waiting_commands", "Commands waiting for the store's writer.", health.waiting_commands as f64);
    gauge("outlast_queue_waiting", "Queued requests that wait.", health.queue_waiting as f64);
    gauge("outlast_queue_running", "Queued requests that are being answered.", health.queue_running as f64);
    let oldest = health.queue_oldest.unwrap_or_default().as_secs_f64();
    gauge("outlast_queue_oldest_seconds", "How long the oldest waiting request has waited; 0 if none waits.", oldest);
    gauge("outlast_idempotency_keys", "Idempotency keys that are kept.", health.calls as f64);
    gauge("outlast_cache_entries", "Good replies that are kept.", health.cached as f64);
    gauge("outlast_notices_pending", "Notices of escalations to be sent.", health.notices_pending as f64);
    gauge("outlast_notices_given_up", "Notices that nobody took.", health.notices_given_up as f64);
    gauge("outlast_escalations_open", "Escalations that wait for a person.", health.escalations_open as f64);
    gauge("outlast_queue_webhooks_pending", "Webhooks to be delivered.", health.deliveries_pending as f64);
    gauge(
        "outlast_queue_webhooks_given_up",
        "Webhooks given up, of requests still kept.",
        health.deliveries_given_up as f64,
    );
}
