//! Playing a history on one store and seeing its answers in a form that two stores' can be compared in.

use super::{
    Op, Subject,
    history::{CacheOp, CallOp, ConfirmOp, OutboxOp, QueueOp},
    people::{self, EscalationOp},
    runs, steps,
};
use crate::{
    AskConfirmation, AuditPage, AuditVerified, Beaten, BeginCall, Begun, CallEnd, Cancelling, ClaimQueued, ClaimedItem,
    ClaimedRun, CompleteQueued, Decided, Delivered, Delivery, DueDeliveries, DueEscalation, EndCall, Enqueue, Enqueued,
    Epoch, Escalation, EscalationSummary, FailQueued, Fenced, Notice, Opened, Payload, QueueDepth, QueuedView, Recall,
    ReleaseQueued, Remember, Remembered, RenewCall, RenewQueued, Retried, RetryDelivery, RunEnd, RunView, Signalled,
    Started, StepBegun, StepEnded, StepView, Store, StoreError, StoreHealth, Swept, TakeConfirmation, Taken,
    UnknownEffect, Waited, WorkerView,
};
use outlast_model::{RouteId, TenantId, policy::Priority};
use std::sync::Arc;

/// An answer, without what may differ between back ends: the epochs' numbers, the back end's own figures.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is the answer of its name")]
pub enum Seen {
    Nothing,
    Begun(Begun),
    Fenced(Fenced),
    Enqueued(Enqueued),
    Claimed(Option<ClaimedItem>),
    Queued(Option<QueuedView>),
    Remembered,
    Recalled(Option<Remembered>),
    Opened(Opened),
    Escalations(Vec<EscalationSummary>),
    Escalation(Option<Box<Escalation>>),
    Decided(Decided),
    Overdue(Vec<DueEscalation>),
    Notices(Vec<Notice>),
    Audit(AuditPage),
    Verified(AuditVerified),
    Asked,
    Taken(Taken),
    Due(Vec<Delivery>),
    Retried(Retried),
    Swept(Swept),
    Health(StoreHealth),
    Started(Started),
    ClaimedRun(Option<Box<ClaimedRun>>),
    Beaten(Beaten),
    Waited(Waited),
    Signalled(Signalled),
    Cancelling(Cancelling),
    Run(Option<Box<RunView>>),
    RunPayloads(Option<Payload>, Option<RunEnd>),
    Runs(Vec<RunView>),
    Journal(Vec<StepView>),
    StepBegun(Box<StepBegun>),
    StepEnded(StepEnded),
    Step(Option<Box<StepView>>),
    UnknownEffects(Vec<UnknownEffect>),
    DecidedAbout(Arc<str>, Decided),
    Drained(bool),
    Workers(Vec<WorkerView>),
    Depths(Vec<QueueDepth>),
    Failed(&'static str, Option<bool>),
    /// An epoch that is not later than all before it.
    StaleEpoch,
}

/// One store and the claims made on it so far.
pub(super) struct Player {
    /// None only while it reopens.
    store: Option<Box<dyn Store>>,
    calls: Vec<(TenantId, Arc<str>, Epoch)>,
    items: Vec<(Arc<str>, Epoch)>,
    deliveries: Vec<(Arc<str>, Epoch)>,
    people: people::Claims,
    runs: runs::Claims,
    attempts: steps::Attempts,
    /// How many commands there were.
    commands: u32,
    last_epoch: Epoch,
}

impl Player {
    pub(super) fn new(store: Box<dyn Store>) -> Self {
        let (calls, items, deliveries) = (Vec::new(), Vec::new(), Vec::new());
        let (people, runs, attempts) = (people::Claims::default(), runs::Claims::default(), steps::Attempts::default());
        let (store, commands, last_epoch) = (Some(store), 0, Epoch(0));
        Player { store, calls, items, deliveries, people, runs, attempts, commands, last_epoch }
    }

    pub(super) fn reopen(&mut self, subject: &mut dyn Subject) {
        self.store = self.store.take().map(|store| subject.reopen(store));
    }

    pub(super) async fn play(&mut self, op: &Op) -> Seen {
        let Some(store) = self.store.take() else { return Seen::Nothing };
        let seen = self.carry_out(&*store, op).await;
        self.store = Some(store);
        seen.unwrap_or_else(|error| failed(&error))
    }

    async fn carry_out(&mut self, store: &dyn Store, op: &Op) -> Result<Seen, StoreError> {
        self.commands += 1;
        match op {
            Op::Advance { .. } | Op::Crash => Ok(Seen::Nothing),
            Op::Call(op) => self.call(store, op).await,
            Op::Queue(op) => self.queue(store, op).await,
            Op::Outbox(op) => self.outbox(store, op).await,
            Op::Cache(op) => cache(store, op).await,
            Op::Escalation(op) => self.people(store, op).await,
            Op::Confirm(op) => confirm(store, op).await,
            Op::Run(op) => {
                let (seen, drawn) = self.runs.play(store, op, self.commands).await?;
                Ok(match drawn {
                    Some(epoch) => self.unless_stale(epoch, seen),
                    None => seen,
                })
            }
            Op::Step(op) => {
                let (mut seen, drawn) = self.attempts.play(store, &self.runs, op, self.commands).await?;
                for epoch in drawn {
                    seen = self.unless_stale(epoch, seen);
                }
                Ok(seen)
            }
            Op::Worker(op) => runs::work(store, op).await,
            Op::Sweep { limit } => Ok(Seen::Swept(store.sweep(*limit).await?)),
            Op::Health => {
                let health = store.health().await?;
                let (backend, schema, sealed, disk_bytes, waiting_commands) = ("", 0, false, 0, 0);
                Ok(Seen::Health(StoreHealth { backend, schema, sealed, disk_bytes, waiting_commands, ..health }))
            }
        }
    }

    async fn call(&mut self, store: &dyn Store, op: &CallOp) -> Result<Seen, StoreError> {
        match op {
            CallOp::Begin { tenant: who, key, fingerprint, lease, keep } => {
                let (tenant, key, fingerprint) = (tenant(*who), name("key", *key), [*fingerprint; 32]);
                let claim = (tenant.clone(), key.clone());
                let command = BeginCall { tenant, key, fingerprint, lease: *lease, keep: *keep };
                let mut begun = store.begin_call(command).await?;
                let Begun::Execute { epoch } = &mut begun else { return Ok(Seen::Begun(begun)) };
                let epoch = std::mem::replace(epoch, Epoch(0));
                self.calls.push((claim.0, claim.1, epoch));
                Ok(self.unless_stale(epoch, Seen::Begun(begun)))
            }
            CallOp::Renew { claim, lease } => {
                let Some((tenant, key, epoch)) = ago(&self.calls, *claim) else { return Ok(Seen::Nothing) };
                Ok(Seen::Fenced(store.renew_call(RenewCall { tenant, key, epoch, lease: *lease }).await?))
            }
            CallOp::End { claim, end, size } => {
                let Some((tenant, key, epoch)) = ago(&self.calls, *claim) else { return Ok(Seen::Nothing) };
                let end = match end {
                    0 => CallEnd::Released,
                    1 => CallEnd::Failed(payload(*size)),
                    _ => CallEnd::Done(payload(*size)),
                };
                Ok(Seen::Fenced(store.end_call(EndCall { tenant, key, epoch, end }).await?))
            }
        }
    }

    async fn queue(&mut self, store: &dyn Store, op: &QueueOp) -> Result<Seen, StoreError> {
        match op {
            QueueOp::Enqueue { .. } => enqueue(store, op).await,
            QueueOp::Claim { routes, lease } => {
                let routes = routes.iter().copied().map(route).collect();
                let command = ClaimQueued { worker: "worker".into(), routes, lease: *lease };
                let mut claimed = store.claim_queued(command).await?;
                let Some(item) = &mut claimed else { return Ok(Seen::Claimed(None)) };
                let epoch = std::mem::replace(&mut item.epoch, Epoch(0));
                self.items.push((item.id.clone(), epoch));
                Ok(self.unless_stale(epoch, Seen::Claimed(claimed)))
            }
            QueueOp::Renew { claim, lease } => {
                let Some((id, epoch)) = ago(&self.items, *claim) else { return Ok(Seen::Nothing) };
                Ok(Seen::Fenced(store.renew_queued(RenewQueued { id, epoch, lease: *lease }).await?))
            }
            QueueOp::Complete { claim, size } => {
                let Some((id, epoch)) = ago(&self.items, *claim) else { return Ok(Seen::Nothing) };
                let reply = payload(*size);
                Ok(Seen::Fenced(store.complete_queued(CompleteQueued { id, epoch, reply }).await?))
            }
            QueueOp::Fail { claim, size } => {
                let Some((id, epoch)) = ago(&self.items, *claim) else { return Ok(Seen::Nothing) };
                let payload = payload(*size);
                Ok(Seen::Fenced(store.fail_queued(FailQueued { id, epoch, payload }).await?))
            }
            QueueOp::Release { claim, after } => {
                let Some((id, epoch)) = ago(&self.items, *claim) else { return Ok(Seen::Nothing) };
                Ok(Seen::Fenced(store.release_queued(ReleaseQueued { id, epoch, after: *after }).await?))
            }
            QueueOp::View { tenant: who, id } => Ok(Seen::Queued(store.queued(tenant(*who), name("q", *id)).await?)),
        }
    }

    async fn outbox(&mut self, store: &dyn Store, op: &OutboxOp) -> Result<Seen, StoreError> {
        match op {
            OutboxOp::Due { lease, limit } => {
                let command = DueDeliveries { worker: "worker".into(), lease: *lease, limit: *limit };
                let mut due = store.due_deliveries(command).await?;
                for delivery in &mut due {
                    let epoch = std::mem::replace(&mut delivery.epoch, Epoch(0));
                    self.deliveries.push((delivery.id.clone(), epoch));
                    if self.unless_stale(epoch, Seen::Nothing) == Seen::StaleEpoch {
                        return Ok(Seen::StaleEpoch);
                    }
                }
                Ok(Seen::Due(due))
            }
            OutboxOp::Delivered { claim } => {
                let Some((id, epoch)) = ago(&self.deliveries, *claim) else { return Ok(Seen::Nothing) };
                Ok(Seen::Fenced(store.delivered(Delivered { id, epoch }).await?))
            }
            OutboxOp::Retry { claim, after } => {
                let Some((id, epoch)) = ago(&self.deliveries, *claim) else { return Ok(Seen::Nothing) };
                Ok(Seen::Retried(store.retry_delivery(RetryDelivery { id, epoch, after: *after }).await?))
            }
        }
    }

    async fn people(&mut self, store: &dyn Store, op: &EscalationOp) -> Result<Seen, StoreError> {
        let (mut seen, drawn) = self.people.play(store, op).await?;
        for epoch in drawn {
            seen = self.unless_stale(epoch, seen);
        }
        Ok(seen)
    }

    fn unless_stale(&mut self, epoch: Epoch, seen: Seen) -> Seen {
        if epoch <= self.last_epoch {
            return Seen::StaleEpoch;
        }
        self.last_epoch = epoch;
        seen
    }
}

async fn enqueue(store: &dyn Store, op: &QueueOp) -> Result<Seen, StoreError> {
    let QueueOp::Enqueue { tenant: who, id, route: to, priority, size, expires_in, webhook } = op else {
        return Ok(Seen::Nothing);
    };
    let command = Enqueue {
        id: name("q", *id),
        tenant: tenant(*who),
        route: route(*to),
        priority: Priority::ALL[usize::from(*priority) % 4],
        payload: payload(*size),
        expires_in: *expires_in,
        webhook: webhook.then(|| "later".into()),
    };
    Ok(Seen::Enqueued(store.enqueue(command).await?))
}

async fn cache(store: &dyn Store, op: &CacheOp) -> Result<Seen, StoreError> {
    match op {
        CacheOp::Remember { tenant: who, route: to, fingerprint, size, keep } => {
            let (tenant, route, fingerprint) = (tenant(*who), route(*to), [*fingerprint; 32]);
            store.remember(Remember { tenant, route, fingerprint, payload: payload(*size), keep: *keep }).await?;
            Ok(Seen::Remembered)
        }
        CacheOp::Recall { tenant: who, route: to, fingerprint, max_age } => {
            let (tenant, route, fingerprint) = (tenant(*who), route(*to), [*fingerprint; 32]);
            Ok(Seen::Recalled(store.recall(Recall { tenant, route, fingerprint, max_age: *max_age }).await?))
        }
    }
}

async fn confirm(store: &dyn Store, op: &ConfirmOp) -> Result<Seen, StoreError> {
    match op {
        ConfirmOp::Ask { token, tenant: who, fingerprint, expires_in } => {
            let (token_hash, fingerprint) = ([*token; 32], [*fingerprint; 32]);
            let (tenant, expires_in) = (tenant(*who), *expires_in);
            let command = AskConfirmation { token_hash, tenant, fingerprint, route: route(*token), expires_in };
            store.ask_confirmation(command).await?;
            Ok(Seen::Asked)
        }
        ConfirmOp::Take { token, tenant: who, fingerprint } => {
            let (token_hash, fingerprint) = ([*token; 32], [*fingerprint; 32]);
            let command = TakeConfirmation { token_hash, tenant: tenant(*who), fingerprint };
            Ok(Seen::Taken(store.take_confirmation(command).await?))
        }
    }
}

fn failed(error: &StoreError) -> Seen {
    let share = if let StoreError::LimitReached { of_tenant, .. } = error { Some(*of_tenant) } else { None };
    Seen::Failed(error.name(), share)
}

/// The claim made so many claims ago.
pub(super) fn ago<T: Clone>(claims: &[T], ago: u8) -> Option<T> {
    claims.iter().rev().nth(usize::from(ago)).cloned()
}

pub(super) fn tenant(number: u8) -> TenantId {
    TenantId::new(&*name("tenant", number))
}

pub(super) fn route(number: u8) -> RouteId {
    RouteId::new(&*name("route", number))
}

pub(super) fn name(what: &str, number: u8) -> Arc<str> {
    format!("{what}-{number}").into()
}

pub(super) fn payload(size: u8) -> Payload {
    Payload::from((0..size).map(|byte| byte.wrapping_mul(7).wrapping_add(size)).collect::<Vec<u8>>())
}
