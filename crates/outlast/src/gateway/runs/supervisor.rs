//! Who does what, since when, and what is late.

use super::{
    super::{Shared, admin::operator, body::ReplyBody, serve::Denial, store},
    Cx, view,
    workers::state,
};
use http::{HeaderMap, Response};
use outlast_model::{Wall, run::RunState};
use outlast_store::{EscalationFilter, Page, QueueDepth, RunFilter, RunView, StoreError, WorkerView};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};

/// Runs of one kind that are looked at. What is left out is said.
const LOOK_AT: u32 = 1000;
/// Late runs that are named.
const NAMED_MAX: usize = 100;

/// How things stand.
pub(super) struct Standing {
    pub(super) now: Wall,
    pub(super) workers: Vec<WorkerView>,
    pub(super) depths: Vec<QueueDepth>,
}

impl Standing {
    pub(super) async fn look(shared: &Shared) -> Result<Standing, StoreError> {
        Ok(Standing {
            now: shared.stored(shared.store.now()).await?,
            workers: shared.stored(shared.store.workers()).await?,
            depths: shared.stored(shared.store.depths()).await?,
        })
    }

    /// Workers that are there and claim from this queue.
    fn of_queue<'a>(&'a self, queue: &'a str) -> impl Iterator<Item = &'a WorkerView> {
        self.workers.iter().filter(move |worker| {
            let there = !matches!(state(worker, self.now), "gone" | "draining");
            there && worker.queues.iter().any(|claimed| &**claimed == queue)
        })
    }

    /// Queues with runs that could be claimed, and nobody there to claim them.
    pub(super) fn unattended(&self) -> BTreeSet<&str> {
        let due = self.depths.iter().filter(|depth| depth.due + depth.lost > 0);
        due.map(|depth| &*depth.queue).filter(|queue| self.of_queue(queue).next().is_none()).collect()
    }

    /// Workflows and versions with runs that could be claimed, in queues whose workers accept none of them.
    pub(super) fn unaccepted(&self) -> impl Iterator<Item = &QueueDepth> {
        let unattended = self.unattended();
        self.depths.iter().filter(move |depth| {
            let accepts = |worker: &WorkerView| {
                worker.accepts.is_empty()
                    || worker.accepts.iter().any(|accepts| {
                        let fits = accepts.versions.is_empty() || accepts.versions.contains(&depth.version);
                        accepts.workflow == depth.workflow && fits
                    })
            };
            depth.due + depth.lost > 0
                && !unattended.contains(&*depth.queue)
                && !self.of_queue(&depth.queue).any(accepts)
        })
    }
}

/// `GET /v1/supervisor`: for the operator.
pub(super) async fn show(cx: &Cx, headers: &HeaderMap) -> Result<Response<ReplyBody>, Denial> {
    operator(&cx.live, headers)?;
    let down = |error: StoreError| store::down(&error);
    let standing = Standing::look(&cx.shared).await.map_err(down)?;
    let (running, more_running) = looked_at(&cx.shared, RunState::Running).await.map_err(down)?;
    let (ready, more_ready) = looked_at(&cx.shared, RunState::Ready).await.map_err(down)?;
    let (waiting, more_waiting) = looked_at(&cx.shared, RunState::Waiting).await.map_err(down)?;
    let (poison, _) = looked_at(&cx.shared, RunState::Quarantined).await.map_err(down)?;
    let now = standing.now;
    let past = |time: Option<Wall>| time.is_some_and(|time| time < now);
    let named = |runs: &mut dyn Iterator<Item = &RunView>| -> Vec<Value> {
        runs.take(NAMED_MAX).map(|run| view::run(run, true)).collect()
    };
    let alive = || running.iter().chain(&ready).chain(&waiting);
    let late_escalations = escalations(&cx.shared, now).await.map_err(down)?;
    Ok(cx.ok(&json!({
        "now": view::at(now),
        "workers": standing.workers.iter().map(|one| view::worker(one, state(one, now), true)).collect::<Vec<_>>(),
        "queues": standing.depths.iter().map(|depth| queue(depth, &standing)).collect::<Vec<_>>(),
        "overdue": {
            "leases": named(&mut running.iter().filter(|run| past(run.lease_until))),
            "deadlines": named(&mut alive().filter(|run| past(run.deadline))),
            "timers": named(&mut waiting.iter().filter(|run| past(run.due))),
            "unaccepted": standing.unaccepted().map(|depth| queue(depth, &standing)).collect::<Vec<_>>(),
            "unattended": standing.unattended(),
            "escalations": late_escalations,
        },
        "quarantined": named(&mut poison.iter()),
        "complete": !(more_running || more_ready || more_waiting),
    })))
}

/// The newest runs in a state, and whether there are more than were looked at.
pub(super) async fn looked_at(shared: &Arc<Shared>, state: RunState) -> Result<(Vec<RunView>, bool), StoreError> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let filter = RunFilter { state: Some(state), ..RunFilter::default() };
        let page = shared.stored(shared.store.runs(filter, Page { after, size: Page::LARGEST })).await?;
        found.extend(page.runs);
        after = page.next;
        if after.is_none() || found.len() >= LOOK_AT as usize {
            return Ok((found, after.is_some()));
        }
    }
}

fn queue(depth: &QueueDepth, standing: &Standing) -> Value {
    let workers: Vec<&str> = standing.of_queue(&depth.queue).map(|worker| &*worker.worker).take(NAMED_MAX).collect();
    json!({
        "queue": depth.queue,
        "workflow": depth.workflow,
        "version": depth.version,
        "due": depth.due,
        "oldest_due": depth.oldest_due.map(view::at),
        "running": depth.running,
        "lost": depth.lost,
        "waiting": depth.waiting,
        "parked": depth.parked,
        "workers": workers,
    })
}

/// Escalations that should have been answered by now.
async fn escalations(shared: &Arc<Shared>, now: Wall) -> Result<Vec<Value>, StoreError> {
    let filter = EscalationFilter { open_only: true, overdue_only: true, ..EscalationFilter::default() };
    let page = shared.stored(shared.store.escalations(filter, Page { after: None, size: 100 })).await?;
    let late = page.escalations.iter().filter(|one| one.answer_by.is_none_or(|by| by <= now));
    Ok(late
        .map(|one| {
            json!({
                "id": one.id,
                "kind": one.kind.name(),
                "opened_at": view::at(one.opened_at),
                "answer_by": one.answer_by.map(view::at),
                "level": one.level,
            })
        })
        .collect())
}
