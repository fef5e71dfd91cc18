//! Sweeps, health and the full check.

use super::{
    audit, cache, calls, confirmations,
    cx::{Cx, Kind},
    deliveries, escalations,
    fault::Outcome,
    migrate::SCHEMA_VERSION,
    notices, queue, retention, run_checks, workers,
};
use crate::{Checked, StoreHealth, Swept, seal::Owner};
use rusqlite::types::ValueRef;

/// What is due goes in this order, each kind the longest expired first.
pub(super) fn sweep(cx: Cx<'_>, limit: u32) -> Outcome<Swept> {
    let before = limit.max(1);
    let mut left = before;
    queue::expire(cx, &mut left)?;
    let expired = before - left;
    queue::purge(cx, &mut left)?;
    calls::purge(cx, &mut left)?;
    cache::purge(cx, &mut left)?;
    confirmations::purge(cx, &mut left)?;
    escalations::purge(cx, &mut left)?;
    let mut steps = retention::STEPS;
    retention::purge_runs(cx, &mut left, &mut steps)?;
    retention::purge_effects(cx, &mut left)?;
    workers::purge(cx, &mut left)?;
    give_back(cx)?;
    let more = left == 0 || steps == 0;
    Ok(Swept { expired: expired.into(), removed: (before - expired - left).into(), more })
}

/// Free pages that a file keeps for what comes next: a megabyte.
const RESERVE: i64 = 256;

/// Gives free pages back to the disk, a megabyte at a time, as this holds up the writer.
fn give_back(cx: Cx<'_>) -> Outcome<()> {
    let free: i64 = cx.db.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
    if free > RESERVE {
        // It frees one page at each step.
        let mut vacuum = cx.db.prepare_cached("PRAGMA incremental_vacuum(256)")?;
        let mut pages = vacuum.query([])?;
        while pages.next()?.is_some() {}
    }
    Ok(())
}

/// Everything that the file itself knows of its health.
pub(super) fn health(cx: Cx<'_>) -> Outcome<StoreHealth> {
    let (queue_waiting, queue_running, oldest) = queue::depth(cx)?;
    let (notices_pending, notices_given_up) = notices::counts(cx)?;
    let (deliveries_pending, deliveries_given_up) = deliveries::counts(cx)?;
    let [runs_ready, runs_running, runs_waiting, runs_parked, runs_quarantined] = workers::counts(cx)?;
    Ok(StoreHealth {
        backend: "sqlite",
        schema: SCHEMA_VERSION,
        sealed: cx.sealer.seals(),
        calls: cx.rows(Kind::Calls)?,
        queue_waiting,
        queue_running,
        queue_oldest: oldest.map(|oldest| cx.age(oldest)),
        cached: cx.rows(Kind::Cache)?,
        escalations_open: escalations::open_count(cx)?,
        deliveries_pending,
        deliveries_given_up,
        notices_pending,
        notices_given_up,
        runs: cx.rows(Kind::Runs)?,
        runs_ready,
        runs_running,
        runs_waiting,
        runs_parked: runs_parked + runs_quarantined,
        effects: cx.rows(Kind::Effects)?,
        ..StoreHealth::default()
    })
}

/// More faults than this are not told apart.
const FAULTS: usize = 100;

/// Every page, every count, every payload.
pub(super) fn check(cx: Cx<'_>) -> Outcome<Checked> {
    let mut checked = Checked::default();
    let mut pages = cx.db.prepare(&format!("PRAGMA integrity_check({FAULTS})"))?;
    for fault in pages.query_map([], |row| row.get::<_, String>(0))? {
        let fault = fault?;
        if fault != "ok" {
            checked.faults.push(fault.into());
        }
    }
    for kind in Kind::ALL {
        counts(cx, kind, &mut checked)?;
    }
    for (sql, table, column) in PAYLOADS {
        payloads(cx, sql, (table, column), &mut checked)?;
    }
    run_checks::check(cx, &mut checked)?;
    if let Some((number, why)) = audit::verify(cx)?.broken {
        checked.faults.push(format!("entry {number} of the audit log: {why}").into());
    }
    checked.faults.truncate(FAULTS);
    Ok(checked)
}

fn counts(cx: Cx<'_>, kind: Kind, checked: &mut Checked) -> Outcome<()> {
    let name = kind.name();
    let differ: bool = cx.db.query_row(
        &format!(
            "SELECT (SELECT count(*) || '/' || coalesce(sum(bytes), 0) FROM {name})
                 <> (SELECT rows || '/' || bytes FROM totals WHERE kind = '{name}')
             OR EXISTS (SELECT tenant, count(*), sum(bytes) FROM {name} GROUP BY tenant
                 EXCEPT SELECT tenant, rows, bytes FROM shares WHERE kind = '{name}')"
        ),
        [],
        |row| row.get(0),
    )?;
    if differ {
        checked.faults.push(format!("the counts of {name} are not what is there").into());
    }
    Ok(())
}

/// Where payloads are: tenant, the row's id (of the cache in two parts), payload.
const PAYLOADS: &[(&str, &str, &str)] = &[
    ("SELECT tenant, key, NULL, payload FROM calls WHERE payload IS NOT NULL", "calls", "payload"),
    ("SELECT tenant, id, NULL, payload FROM queue WHERE payload IS NOT NULL", "queue", "payload"),
    ("SELECT tenant, route, fingerprint, payload FROM cache", "cache", "payload"),
    ("SELECT tenant, id, NULL, question FROM escalations", "escalations", "question"),
    ("SELECT tenant, id, NULL, payload FROM escalations", "escalations", "payload"),
    ("SELECT tenant, id, NULL, decision FROM escalations WHERE decision IS NOT NULL", "escalations", "decision"),
];

fn payloads(
    cx: Cx<'_>,
    sql: &str,
    (table, column): (&'static str, &'static str),
    checked: &mut Checked,
) -> Outcome<()> {
    let mut rows = cx.db.prepare(sql)?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        let (tenant, mut id): (String, String) = (row.get(0)?, row.get(1)?);
        if let ValueRef::Blob(fingerprint) = row.get_ref(2)? {
            id = cache::id_of(id, fingerprint).unwrap_or_default();
        }
        checked.rows += 1;
        let owner = Owner { table, tenant: &tenant, id: &id, column };
        if let Err(error) = cx.sealer.open(cx.place, owner, row.get(3)?)
            && checked.faults.len() < FAULTS
        {
            checked.faults.push(error.to_string().into());
        }
    }
    Ok(())
}
