//! Answers queued requests: a few at a time, the most urgent first, on routes that have somebody to answer.

use super::{
    super::{
        Shared,
        inner::{self, Answered, Inner},
        live::{Live, LiveRoute},
    },
    payload::{Asked, Finished},
    webhook,
};
use crate::clock;
use outlast_model::{Failure, RouteId, policy::BackstopKind, record::Role};
use outlast_store::{ClaimQueued, ClaimedItem, CompleteQueued, FailQueued, Fenced, ReleaseQueued, RenewQueued};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Notify, task::JoinSet};

/// Requests being answered at one time: the queue takes what live traffic leaves.
const AT_ONCE: usize = 4;
/// How long a claim stands unless it is renewed: what a dead process had claimed is taken up after this.
const LEASE: Duration = Duration::from_secs(10);
/// How often the queue is looked at when nothing wakes the worker; what another process queued is found by this.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The wait after a first failed try; it doubles with each, up to [`BACKOFF_MAX`].
const BACKOFF: Duration = Duration::from_secs(1);
/// The longest wait between two tries of one request.
const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// A request that the models answer badly so often is not answered by another try: it fails with its last failure. An
/// outage ends no request; one that nobody can answer in time expires.
const TRIES_MAX: u32 = 12;

/// What wakes the worker; part of [`Shared`].
#[derive(Default)]
pub(in super::super) struct Queue {
    moved: Notify,
    pub(super) ended: Notify,
}

impl Queue {
    /// Something was queued, or a target came back.
    pub(in super::super) fn wake(&self) {
        self.moved.notify_one();
    }
}

/// The worker's tasks.
pub(in super::super) struct Workers {
    answering: tokio::task::JoinHandle<()>,
    announcing: tokio::task::JoinHandle<()>,
}

impl Workers {
    /// Starts them on the current runtime.
    pub(in super::super) fn start(shared: &Arc<Shared>) -> Self {
        // Random per process, so that a restarted one is not taken for the one that died.
        let worker: Arc<str> = shared.clock.request_id().as_str().into();
        Workers {
            answering: tokio::spawn(answer(shared.clone(), worker.clone())),
            announcing: tokio::spawn(webhook::announce(shared.clone(), worker)),
        }
    }

    /// Of a process that is draining, so that nothing more is claimed: what is being answered has until `patience` is
    /// over, then it is given back.
    pub(in super::super) async fn finish(self, patience: Duration) {
        self.announcing.abort();
        let mut answering = self.answering;
        if clock::timeout(patience, &mut answering).await.is_err() {
            // Every job gives its claim back as it is dropped.
            answering.abort();
            let _ = answering.await;
        }
    }
}

async fn answer(shared: Arc<Shared>, worker: Arc<str>) {
    let mut jobs = JoinSet::new();
    loop {
        while jobs.len() < AT_ONCE && !shared.draining() {
            let Some(job) = claim(&shared, &worker).await else { break };
            jobs.spawn(job.run());
            // It begins before the next one is claimed: of a target on trial it takes the only place.
            tokio::task::yield_now().await;
        }
        if shared.draining() {
            while jobs.join_next().await.is_some() {}
            return;
        }
        // Jittered: processes that share a store do not all ask at once.
        let jitter = Duration::from_millis(shared.clock.seed() % 500);
        tokio::select! {
            Some(_) = jobs.join_next() => {}
            () = shared.queue.moved.notified() => {}
            () = clock::sleep(LOOK_EVERY + jitter), if jobs.len() < AT_ONCE => {}
        }
    }
}

/// Claims the next request that could be answered now.
async fn claim(shared: &Arc<Shared>, worker: &Arc<str>) -> Option<Job> {
    let live = shared.live();
    let routes = answerable(shared, &live);
    if routes.is_empty() {
        return None;
    }
    let claim = ClaimQueued { worker: worker.clone(), routes, lease: LEASE };
    let item = shared.stored(shared.store.claim_queued(claim)).await.ok().flatten()?;
    Some(Job { shared: shared.clone(), live, item, given_back: false })
}

/// The routes with a `queue` backstop that have a target to ask now.
fn answerable(shared: &Shared, live: &Live) -> Vec<RouteId> {
    let queues = |route: &&Arc<LiveRoute>| {
        route.route().backstops.iter().any(|backstop| matches!(backstop.kind, BackstopKind::Queue { .. }))
    };
    let now = shared.clock.mono();
    let routes: Vec<&Arc<LiveRoute>> = live.named_routes().filter(queues).collect();
    if routes.is_empty() {
        return Vec::new();
    }
    shared.with_fleet(|fleet| {
        let ready = routes.iter().filter(|route| fleet.ready(&route.bound, now));
        ready.map(|route| route.id().clone()).collect()
    })
}

/// A claimed request. Dropped before its end it gives the claim back.
struct Job {
    shared: Arc<Shared>,
    live: Arc<Live>,
    item: ClaimedItem,
    given_back: bool,
}

impl Job {
    async fn run(mut self) {
        let answering = async {
            let asked = Asked::open(&self.item.payload)?;
            let secs = u64::try_from(self.shared.clock.wall().0 / 1000).unwrap_or_default();
            let inbound = Arc::new(asked.inbound(secs)?);
            let route = self.live.route(self.item.route.as_str())?.clone();
            let inner = Inner {
                route,
                inbound: inbound.clone(),
                budget: None,
                deadline: None,
                role: Role::Queue,
                parent: asked.request_id.clone(),
                run: None,
                tenant: asked.tenant.clone(),
                state: asked.state.clone(),
                passed: asked.passed(),
                depth: 1,
            };
            let answered = inner::ask(&self.shared, &self.live, inner).await;
            Some((inbound, answered))
        };
        let answered = tokio::select! {
            answered = answering => answered,
            // Somebody else has it: whatever comes of this try is nobody's.
            () = lost(&self.shared, &self.item) => {
                self.given_back = true;
                return;
            }
        };
        self.given_back = true;
        match answered {
            Some((inbound, answered)) => self.end(&inbound, &answered).await,
            // Its route is gone, or it cannot be read any more: another config may know it again.
            None => self.release(BACKOFF_MAX).await,
        }
    }

    async fn end(&self, inbound: &outlast_wire::Inbound, answered: &Answered) {
        let Job { shared, item, .. } = self;
        let (id, epoch) = (item.id.clone(), item.epoch);
        let durable = &shared.telemetry.metrics().durable;
        let route = self.live.route(item.route.as_str());
        let noted = |route: &&Arc<LiveRoute>| self.live.config.server.body_notes && route.route().contract.body_notes;
        let gates = route.filter(noted).map(|route| &*route.gates);
        let finished = || Finished::of(inbound, answered, gates).sealed();
        let ended = match &answered.result {
            Ok(_) => {
                let complete = CompleteQueued { id, epoch, reply: finished() };
                let held = written(shared, || shared.store.complete_queued(complete.clone())).await;
                (held, &durable.queue_done)
            }
            Err(report) if is_final(report.failure, item.attempts) => {
                let fail = FailQueued { id, epoch, payload: finished() };
                (written(shared, || shared.store.fail_queued(fail.clone())).await, &durable.queue_failed)
            }
            Err(_) => return self.release(backoff(item.attempts)).await,
        };
        if let (true, counter) = ended {
            counter.add(1);
            shared.queue.ended.notify_one();
        }
    }

    async fn release(&self, after: Duration) {
        let release = self.releasing(after);
        if written(&self.shared, || self.shared.store.release_queued(release.clone())).await {
            self.shared.telemetry.metrics().durable.queue_released.add(1);
        }
    }

    fn releasing(&self, after: Duration) -> ReleaseQueued {
        ReleaseQueued { id: self.item.id.clone(), epoch: self.item.epoch, after }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.given_back {
            // Handed over by the call itself; if it is lost, the lease runs out.
            drop(self.shared.store.release_queued(self.releasing(Duration::ZERO)));
        }
    }
}

/// Writes an end, more than once if the store is not sure: every command is safe to repeat. True if the claim stood.
async fn written(shared: &Shared, command: impl Fn() -> outlast_store::Answer<Fenced>) -> bool {
    for _ in 0..3 {
        match shared.stored(command()).await {
            Ok(Fenced::Held) => return true,
            Ok(Fenced::Lost) => return false,
            // What stays unwritten is asked again when the lease has run out.
            Err(_) => clock::sleep(BACKOFF).await,
        }
    }
    false
}

/// Keeps the claim until it is lost.
async fn lost(shared: &Shared, item: &ClaimedItem) {
    loop {
        clock::sleep(LEASE / 3).await;
        let renew = RenewQueued { id: item.id.clone(), epoch: item.epoch, lease: LEASE };
        if let Ok(Fenced::Lost) = shared.stored(shared.store.renew_queued(renew)).await {
            return;
        }
    }
}

/// Whether no later try is worth it: the request itself is at fault, a policy stops it, or models have answered and
/// answered badly often enough.
fn is_final(failure: Failure, tries: u32) -> bool {
    match failure {
        Failure::InvalidRequest | Failure::SafetyBlock | Failure::ContextExceeded | Failure::Unsupported => true,
        Failure::Empty
        | Failure::SchemaError
        | Failure::Truncated
        | Failure::Refusal
        | Failure::ToolMismatch
        | Failure::Quality
        | Failure::CostSpike => tries >= TRIES_MAX,
        Failure::Timeout(_)
        | Failure::Connection(_)
        | Failure::ServerError
        | Failure::Overloaded
        | Failure::RateLimited
        | Failure::QuotaExhausted
        | Failure::Auth
        | Failure::MalformedReply
        | Failure::AccessDenied
        | Failure::StreamInterrupted
        | Failure::Cancelled
        | Failure::ToolFailed
        | Failure::Exhausted => false,
    }
}

fn backoff(tries: u32) -> Duration {
    BACKOFF.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_ends_no_request_and_what_a_later_try_could_not_change_is_final() {
        for failure in [Failure::InvalidRequest, Failure::SafetyBlock, Failure::ContextExceeded] {
            assert!(is_final(failure, 1), "{failure}");
        }
        for failure in [Failure::Overloaded, Failure::Exhausted, Failure::ToolFailed, Failure::RateLimited] {
            assert!(!is_final(failure, 1000), "{failure}");
        }
        assert!(!is_final(Failure::Quality, TRIES_MAX - 1) && is_final(Failure::Quality, TRIES_MAX));
    }

    #[test]
    fn tries_come_less_and_less_often() {
        let waits: Vec<u64> = [1, 2, 5, 12].into_iter().map(|tries| backoff(tries).as_secs()).collect();
        assert_eq!(waits, [1, 2, 16, 300]);
    }
}
