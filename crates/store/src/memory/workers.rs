//! Workers: who is there, and what waits for them.

use super::{Facts, after, runs::Runs};
use crate::{Accepts, ClaimRun, DrainWorker, Limits, QueueDepth, RunRef, SeeWorker, StoreError, WorkerView};
use outlast_model::{TenantId, Wall, run::RunState};
use std::{cmp::Reverse, collections::BTreeMap, sync::Arc, time::Duration};

#[derive(Clone, Debug, Default)]
pub(super) struct Workers {
    rows: BTreeMap<Arc<str>, Row>,
}

#[derive(Clone, Debug)]
struct Row {
    tenant: Option<TenantId>,
    label: Arc<str>,
    queues: Vec<Arc<str>>,
    accepts: Vec<Accepts>,
    standby: bool,
    draining: bool,
    since: Wall,
    seen_at: Wall,
}

impl Row {
    fn gone(&self, limits: &Limits, now: Wall) -> bool {
        after(self.seen_at, forgotten(limits)) <= now
    }
}

/// How long after it was last seen a worker is forgotten.
fn forgotten(limits: &Limits) -> Duration {
    limits.worker_gone.saturating_mul(WorkerView::KEPT)
}

impl Workers {
    pub(super) fn see(&mut self, command: SeeWorker, limits: &Limits, now: Wall) -> Result<(), StoreError> {
        let SeeWorker { tenant, worker, label, queues, accepts, standby } = command;
        let known = self.rows.get(&worker).filter(|row| !row.gone(limits, now));
        if known.is_some_and(|row| row.tenant != tenant) {
            return Err(StoreError::Taken { what: "worker" });
        }
        let (since, draining) = known.map_or((now, false), |row| (row.since, row.draining));
        if known.is_none() && self.rows.len() >= WorkerView::MOST {
            self.purge(&mut u32::MAX.clone(), limits, now);
        }
        if !self.rows.contains_key(&worker) && self.rows.len() >= WorkerView::MOST {
            return Err(StoreError::LimitReached { what: "workers", of_tenant: false });
        }
        self.rows.insert(worker, Row { tenant, label, queues, accepts, standby, draining, since, seen_at: now });
        Ok(())
    }

    /// A worker claims, and is seen by that. True if it is to claim nothing more.
    pub(super) fn claims(&mut self, command: &ClaimRun, limits: &Limits, now: Wall) -> Result<bool, StoreError> {
        let ClaimRun { tenant, worker, queues, accepts, standby, .. } = command;
        let known = self.rows.get(worker).filter(|row| !row.gone(limits, now));
        let label = known.map_or_else(|| worker.clone(), |row| row.label.clone());
        let (tenant, worker) = (tenant.clone(), worker.clone());
        let (queues, accepts) = (queues.clone(), accepts.clone());
        let seen = SeeWorker { tenant, worker: worker.clone(), label, queues, accepts, standby: *standby };
        self.see(seen, limits, now)?;
        Ok(self.rows.get(&worker).is_some_and(|row| row.draining))
    }

    /// A worker keeps a lease, and is seen by that. True if it is to claim nothing more.
    pub(super) fn beats(&mut self, worker: &str, limits: &Limits, now: Wall) -> bool {
        let Some(row) = self.rows.get_mut(worker).filter(|row| !row.gone(limits, now)) else { return false };
        row.seen_at = now;
        row.draining
    }

    /// Whether another worker, one that does not only step in, has lately been seen at this queue.
    pub(super) fn attend(&self, tenant: &TenantId, queue: &Arc<str>, but: &str, limits: &Limits, now: Wall) -> bool {
        self.rows.iter().any(|(worker, row)| {
            **worker != *but
                && !row.standby
                && !row.draining
                && after(row.seen_at, limits.worker_gone) > now
                && row.queues.contains(queue)
                && row.tenant.as_ref().is_none_or(|of| of == tenant)
        })
    }

    pub(super) fn drain(&mut self, command: &DrainWorker, limits: &Limits, now: Wall) -> bool {
        let DrainWorker { tenant, worker, gone } = command;
        let theirs = |row: &&mut Row| tenant.is_none() || row.tenant == *tenant;
        let Some(row) = self.rows.get_mut(worker).filter(|row| !row.gone(limits, now)).filter(theirs) else {
            return false;
        };
        row.draining = true;
        if *gone {
            self.rows.remove(worker);
        }
        true
    }

    pub(super) fn purge(&mut self, left: &mut u32, limits: &Limits, now: Wall) {
        let mut due: Vec<_> = self.rows.iter().filter(|(_, row)| row.gone(limits, now)).collect();
        due.sort_by_key(|(worker, row)| (row.seen_at, *worker));
        let due: Vec<_> = due.into_iter().take(*left as usize).map(|(worker, _)| worker.clone()).collect();
        for worker in due {
            *left -= 1;
            self.rows.remove(&worker);
        }
    }

    fn views(&self, runs: &Runs, limits: &Limits, now: Wall) -> Vec<WorkerView> {
        let mut rows: Vec<_> = self.rows.iter().filter(|(_, row)| !row.gone(limits, now)).collect();
        rows.sort_by_key(|(worker, row)| (Reverse(row.seen_at), *worker));
        let view = |(worker, row): (&Arc<str>, &Row)| WorkerView {
            tenant: row.tenant.clone(),
            worker: worker.clone(),
            label: row.label.clone(),
            queues: row.queues.clone(),
            accepts: row.accepts.clone(),
            standby: row.standby,
            draining: row.draining,
            since: row.since,
            seen_at: row.seen_at,
            holds: held(runs, worker, now),
        };
        rows.into_iter().take(WorkerView::AT_ONCE).map(view).collect()
    }
}

/// The runs that a worker holds, with the step each is at.
fn held(runs: &Runs, worker: &Arc<str>, now: Wall) -> Vec<(RunRef, Option<Arc<str>>)> {
    runs.all()
        .filter(|(_, row)| row.head.lease_until > now && row.worker() == Some(worker))
        .take(WorkerView::HOLDS)
        .map(|(run, row)| (run.clone(), row.last_step.clone()))
        .collect()
}

impl Facts {
    pub(super) fn worker_views(&self, limits: &Limits, now: Wall) -> Vec<WorkerView> {
        self.workers.views(&self.runs, limits, now)
    }

    pub(super) fn depths(&self, now: Wall) -> Vec<QueueDepth> {
        let mut depths: BTreeMap<_, QueueDepth> = BTreeMap::new();
        for (_, row) in self.runs.all() {
            if row.head.state.is_final() || row.is_unclaimed() {
                continue;
            }
            let (queue, workflow, version) = row.queue();
            let depth = depths.entry(row.queue()).or_insert_with(|| QueueDepth {
                queue: queue.clone(),
                workflow: workflow.clone(),
                version: version.clone(),
                due: 0,
                oldest_due: None,
                running: 0,
                lost: 0,
                waiting: 0,
                parked: 0,
            });
            let due = row.claimable_from().filter(|from| *from <= now);
            if let Some(from) = due {
                depth.due += 1;
                depth.oldest_due = Some(depth.oldest_due.map_or(from, |oldest| oldest.min(from)));
            }
            let count = match row.head.state {
                RunState::Running if due.is_some() => &mut depth.lost,
                RunState::Running => &mut depth.running,
                RunState::Waiting if due.is_none() => &mut depth.waiting,
                RunState::Parked | RunState::Quarantined => &mut depth.parked,
                RunState::Ready | RunState::Waiting | RunState::Done | RunState::Failed | RunState::Cancelled => {
                    continue;
                }
            };
            *count += 1;
        }
        depths.into_values().take(QueueDepth::AT_ONCE).collect()
    }
}
