//! Workers: who is there, and what waits for them.

use super::{
    cx::Cx,
    fault::Outcome,
    words::{accepts, names, read_accepts, read_names, run_state},
};
use crate::{ClaimRun, DrainWorker, QueueDepth, RunRef, SeeWorker, StoreError, WorkerView};
use outlast_model::{RunId, TenantId, Wall, run::RunState};
use rusqlite::{OptionalExtension, params};
use std::{collections::BTreeMap, sync::Arc};

/// A worker that was seen no later than this is forgotten.
fn forgotten(cx: Cx<'_>) -> i64 {
    cx.before(cx.limits.worker_gone.saturating_mul(WorkerView::KEPT))
}

pub(super) fn see(cx: Cx<'_>, command: &SeeWorker) -> Outcome<()> {
    let SeeWorker { tenant, worker, label, queues, accepts: can, standby } = command;
    let tenant = tenant.as_ref().map(TenantId::as_str);
    let mut find = cx.db.prepare_cached("SELECT tenant, seen_at > ?2 FROM workers WHERE worker = ?1")?;
    let known: Option<(Option<String>, bool)> =
        find.query_row(params![worker, forgotten(cx)], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    match &known {
        Some((theirs, true)) if theirs.as_deref() != tenant => {
            return Err(StoreError::Taken { what: "worker" }.into());
        }
        Some((_, true)) => {}
        Some((_, false)) => {
            cx.db.prepare_cached("DELETE FROM workers WHERE worker = ?1")?.execute([worker])?;
        }
        None => make_room(cx)?,
    }
    cx.db
        .prepare_cached(
            "INSERT INTO workers VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, ?7)
             ON CONFLICT DO UPDATE SET label = excluded.label, queues = excluded.queues, accepts = excluded.accepts,
                 standby = excluded.standby, seen_at = excluded.seen_at",
        )?
        .execute(params![worker, tenant, label, names(queues), accepts(can), standby, cx.now.0])?;
    Ok(())
}

fn make_room(cx: Cx<'_>) -> Outcome<()> {
    let mut count = cx.db.prepare_cached("SELECT count(*) FROM workers")?;
    let full = |count: i64| count.unsigned_abs() as usize >= WorkerView::MOST;
    if full(count.query_row([], |row| row.get(0))?) {
        purge(cx, &mut u32::MAX.clone())?;
        if full(count.query_row([], |row| row.get(0))?) {
            return Err(StoreError::LimitReached { what: "workers", of_tenant: false }.into());
        }
    }
    Ok(())
}

/// A worker claims, and is seen by that. True if it is to claim nothing more.
pub(super) fn claims(cx: Cx<'_>, command: &ClaimRun) -> Outcome<bool> {
    let ClaimRun { tenant, worker, queues, accepts, standby, .. } = command;
    let mut find = cx.db.prepare_cached("SELECT label FROM workers WHERE worker = ?1 AND seen_at > ?2")?;
    let label: Option<String> = find.query_row(params![worker, forgotten(cx)], |row| row.get(0)).optional()?;
    see(
        cx,
        &SeeWorker {
            tenant: tenant.clone(),
            worker: worker.clone(),
            label: label.map_or_else(|| worker.clone(), Arc::from),
            queues: queues.clone(),
            accepts: accepts.clone(),
            standby: *standby,
        },
    )?;
    let mut draining = cx.db.prepare_cached("SELECT draining FROM workers WHERE worker = ?1")?;
    Ok(draining.query_row([worker], |row| row.get(0))?)
}

/// A worker keeps a lease, and is seen by that. True if it is to claim nothing more.
pub(super) fn beats(cx: Cx<'_>, worker: &str) -> Outcome<bool> {
    let mut seen = cx
        .db
        .prepare_cached("UPDATE workers SET seen_at = ?2 WHERE worker = ?1 AND seen_at > ?3 RETURNING draining")?;
    let draining = seen.query_row(params![worker, cx.now.0, forgotten(cx)], |row| row.get(0)).optional()?;
    Ok(draining.unwrap_or(false))
}

/// Whether another worker, one that does not only step in, has lately been seen at this queue.
pub(super) fn attend(cx: Cx<'_>, tenant: &str, queue: &str, but: &str) -> Outcome<bool> {
    let mut find = cx.db.prepare_cached(
        "SELECT 1 FROM workers WHERE seen_at > ?1 AND worker <> ?2 AND standby = 0 AND draining = 0
         AND (tenant IS NULL OR tenant = ?3) AND ?4 IN (SELECT value FROM json_each(queues))",
    )?;
    Ok(find.exists(params![cx.before(cx.limits.worker_gone), but, tenant, queue])?)
}

pub(super) fn drain(cx: Cx<'_>, command: &DrainWorker) -> Outcome<bool> {
    let DrainWorker { tenant, worker, gone } = command;
    let tenant = tenant.as_ref().map(TenantId::as_str);
    let sql = match gone {
        true => "DELETE FROM workers WHERE worker = ?1 AND seen_at > ?2 AND (?3 IS NULL OR tenant = ?3)",
        false => "UPDATE workers SET draining = 1 WHERE worker = ?1 AND seen_at > ?2 AND (?3 IS NULL OR tenant = ?3)",
    };
    Ok(cx.db.prepare_cached(sql)?.execute(params![worker, forgotten(cx), tenant])? > 0)
}

pub(super) fn purge(cx: Cx<'_>, left: &mut u32) -> Outcome<()> {
    let gone = cx
        .db
        .prepare_cached(
            "DELETE FROM workers WHERE worker IN (SELECT worker FROM workers WHERE seen_at <= ?1
             ORDER BY seen_at, worker LIMIT ?2)",
        )?
        .execute(params![forgotten(cx), *left])?;
    *left -= gone as u32;
    Ok(())
}

pub(super) fn views(cx: Cx<'_>) -> Outcome<Vec<WorkerView>> {
    let mut find = cx.db.prepare_cached(
        "SELECT worker, tenant, label, queues, accepts, standby, draining, since, seen_at FROM workers WHERE seen_at > ?1
         ORDER BY seen_at DESC, worker LIMIT ?2",
    )?;
    let mut rows = find.query(params![forgotten(cx), WorkerView::AT_ONCE as i64])?;
    let mut views = Vec::new();
    while let Some(row) = rows.next()? {
        let worker: Arc<str> = row.get::<_, String>(0)?.into();
        views.push(WorkerView {
            tenant: row.get::<_, Option<String>>(1)?.map(TenantId::new),
            label: row.get::<_, String>(2)?.into(),
            queues: read_names(cx, &row.get::<_, String>(3)?)?,
            accepts: read_accepts(cx, &row.get::<_, String>(4)?)?,
            standby: row.get(5)?,
            draining: row.get(6)?,
            since: Wall(row.get(7)?),
            seen_at: Wall(row.get(8)?),
            holds: held(cx, &worker)?,
            worker,
        });
    }
    Ok(views)
}

/// The runs that a worker holds, with the step each is at.
fn held(cx: Cx<'_>, worker: &str) -> Outcome<Vec<(RunRef, Option<Arc<str>>)>> {
    let mut find = cx.db.prepare_cached(
        "SELECT tenant, id, last_step FROM runs WHERE state = 1 AND worker = ?1 AND lease_until > ?2
         ORDER BY tenant, id LIMIT ?3",
    )?;
    let rows = find.query_map(params![worker, cx.now.0, WorkerView::HOLDS as i64], |row| {
        let (tenant, id): (String, String) = (row.get(0)?, row.get(1)?);
        let step = row.get::<_, Option<String>>(2)?.map(Arc::from);
        Ok((RunRef { tenant: TenantId::new(tenant), id: RunId::new(id) }, step))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

type Lane = (String, String, String);

/// What waits where: the live runs of each lane by their states, and of those how many are due.
pub(super) fn depths(cx: Cx<'_>) -> Outcome<Vec<QueueDepth>> {
    let mut depths: BTreeMap<Lane, QueueDepth> = BTreeMap::new();
    let mut count = |sql: &str, of: fn(&mut QueueDepth, i64, u64, Option<i64>)| -> Outcome<()> {
        let mut find = cx.db.prepare_cached(sql)?;
        let mut rows = find.query([cx.now.0])?;
        while let Some(row) = rows.next()? {
            let lane: Lane = (row.get(0)?, row.get(1)?, row.get(2)?);
            let depth = depths.entry(lane).or_insert_with_key(|(queue, workflow, version)| QueueDepth {
                queue: queue.as_str().into(),
                workflow: workflow.as_str().into(),
                version: version.as_str().into(),
                due: 0,
                oldest_due: None,
                running: 0,
                lost: 0,
                waiting: 0,
                parked: 0,
            });
            of(depth, row.get(3)?, row.get::<_, i64>(4)?.unsigned_abs(), row.get(5)?);
        }
        Ok(())
    };
    count(LIVE, |depth, state, runs, _| match state {
        RUNNING => depth.running += runs,
        WAITING => depth.waiting += runs,
        PARKED | QUARANTINED => depth.parked += runs,
        _ => {}
    })?;
    count(DUE, |depth, state, runs, oldest| {
        depth.due += runs;
        depth.oldest_due = depth.oldest_due.into_iter().chain(oldest.map(Wall)).min();
        match state {
            RUNNING => {
                depth.lost += runs;
                depth.running -= runs;
            }
            WAITING => depth.waiting -= runs,
            _ => {}
        }
    })?;
    Ok(depths.into_values().take(QueueDepth::AT_ONCE).collect())
}

const RUNNING: i64 = 1;
const WAITING: i64 = 2;
const PARKED: i64 = 3;
const QUARANTINED: i64 = 4;

const LIVE: &str = "SELECT queue, workflow, version, state, sum(found), NULL FROM (
        SELECT lane, state, count(*) AS found FROM runs WHERE state <= 4 AND unclaimed = 0 AND ?1 IS NOT NULL
        GROUP BY lane, state) JOIN lanes USING (lane)
    GROUP BY queue, workflow, version, state";
const DUE: &str = "SELECT queue, workflow, version, state, count(*), min(claimable_from)
    FROM ready JOIN runs USING (run) JOIN lanes ON lanes.lane = ready.lane WHERE claimable_from <= ?1
    GROUP BY queue, workflow, version, state";

/// How many live runs there are in each of these.
pub(super) fn counts(cx: Cx<'_>) -> Outcome<[u64; 5]> {
    let mut counts = [0; 5];
    let states = [RunState::Ready, RunState::Running, RunState::Waiting, RunState::Parked, RunState::Quarantined];
    for (count, state) in counts.iter_mut().zip(states) {
        let mut find = cx.db.prepare_cached("SELECT count(*) FROM runs WHERE state = ?1")?;
        *count = find.query_row([run_state(state)], |row| row.get::<_, i64>(0))?.unsigned_abs();
    }
    Ok(counts)
}
