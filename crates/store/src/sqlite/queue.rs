//! Queued requests.
//!
//! At any instant an unended row (state 0 or 1) is expired if `expires_at` and `lease_until` are past, waits if only
//! `lease_until` is, and runs otherwise; whether a sweep has looked at it makes no difference to any answer.

use super::{
    cx::{Cx, Kind},
    deliveries,
    fault::Outcome,
};
use crate::{
    ClaimQueued, ClaimedItem, CompleteQueued, Enqueue, Enqueued, Epoch, FailQueued, Fenced, Payload, QueueState,
    QueuedView, ReleaseQueued, RenewQueued, StoreError, seal::Owner,
};
use outlast_model::{RouteId, TenantId, Wall, policy::Priority};
use rusqlite::{OptionalExtension, Row as SqlRow, params};
use std::sync::Arc;

// SQLite's planner knows nothing of how rows are spread and would rather sort all that has not expired than walk the
// order they are claimed in: those statements name their index.

const WAITING: i64 = 0;
const RUNNING: i64 = 1;
pub(super) const DONE: i64 = 2;
pub(super) const FAILED: i64 = 3;
const EXPIRED: i64 = 4;

/// A row without its payload.
struct Row {
    sequence: i64,
    tenant: String,
    route: String,
    priority: i64,
    webhook: Option<String>,
    enqueued_at: i64,
    expires_at: i64,
    attempts: u32,
    epoch: i64,
    state: i64,
    lease_until: i64,
    ended_at: Option<i64>,
}

impl Row {
    const COLUMNS: &str = "sequence, tenant, route, priority, webhook, enqueued_at, expires_at, attempts, epoch, state, \
                           lease_until, ended_at";

    fn read(row: &SqlRow<'_>) -> rusqlite::Result<Self> {
        Ok(Row {
            sequence: row.get(0)?,
            tenant: row.get(1)?,
            route: row.get(2)?,
            priority: row.get(3)?,
            webhook: row.get(4)?,
            enqueued_at: row.get(5)?,
            expires_at: row.get(6)?,
            attempts: row.get(7)?,
            epoch: row.get(8)?,
            state: row.get(9)?,
            lease_until: row.get(10)?,
            ended_at: row.get(11)?,
        })
    }

    fn open(&self) -> bool {
        self.state <= RUNNING
    }

    /// When it ended or, whether or not a sweep has said so, expired.
    fn ended(&self, now: Wall) -> Option<(i64, i64)> {
        if let Some(at) = self.ended_at {
            return Some((self.state, at));
        }
        let expired_at = self.expires_at.max(self.lease_until);
        (expired_at <= now.0).then_some((EXPIRED, expired_at))
    }

    fn waits(&self, now: Wall) -> bool {
        self.open() && self.lease_until <= now.0 && self.ended(now).is_none()
    }
}

fn owner<'a>(tenant: &'a str, id: &'a str) -> Owner<'a> {
    Owner { table: "queue", tenant, id, column: "payload" }
}

/// The row, if it can still be fetched.
fn find(cx: Cx<'_>, id: &str) -> Outcome<Option<Row>> {
    let sql = format!("SELECT {} FROM queue WHERE id = ?1", Row::COLUMNS);
    let row = cx.db.prepare_cached(&sql)?.query_row([id], Row::read).optional()?;
    let gone_since = cx.before(cx.limits.finished_keep);
    Ok(row.filter(|row| row.ended(cx.now).is_none_or(|(_, at)| at > gone_since)))
}

pub(super) fn enqueue(cx: Cx<'_>, command: &Enqueue) -> Outcome<Enqueued> {
    let Enqueue { id, tenant, route, priority, payload, expires_in, webhook } = command;
    cx.fits(payload.len())?;
    if let Some(row) = find(cx, id)? {
        if row.tenant != tenant.as_str() {
            return Err(StoreError::Taken { what: "queued request" }.into());
        }
        return Ok(Enqueued::Queued { position: position(cx, &row)? });
    }
    if cx.over(Kind::Queue, tenant.as_str(), payload.len())?.is_some() {
        purge(cx, &mut u32::MAX.clone())?;
    }
    if let Some(of_tenant) = cx.over(Kind::Queue, tenant.as_str(), payload.len())? {
        return Ok(Enqueued::Full { of_tenant });
    }
    remove(cx, id)?;
    let sealed = cx.sealer.seal(owner(tenant.as_str(), id), payload.as_bytes());
    cx.db
        .prepare_cached(
            "INSERT INTO queue (id, tenant, route, priority, webhook, enqueued_at, expires_at, attempts, epoch, state,
             not_before, lease_until, bytes, payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 0, 0, ?6, 0, ?8, ?9)",
        )?
        .execute(params![
            id,
            tenant.as_str(),
            route.as_str(),
            priority.index() as i64,
            webhook.as_deref(),
            cx.now.0,
            cx.after(*expires_in),
            payload.len() as i64,
            sealed,
        ])?;
    let position = match find(cx, id)? {
        Some(row) => position(cx, &row)?,
        None => 0,
    };
    Ok(Enqueued::Queued { position })
}

/// 1 for the next one, 0 if it does not wait.
fn position(cx: Cx<'_>, row: &Row) -> Outcome<u64> {
    if !row.waits(cx.now) {
        return Ok(0);
    }
    let before: i64 = cx
        .db
        .prepare_cached(
            "SELECT count(*) FROM (SELECT 1 FROM queue INDEXED BY queue_in_order WHERE state <= 1 AND (priority, sequence) < (?1, ?2)
             AND lease_until <= ?3 AND expires_at > ?3 LIMIT ?4)",
        )?
        .query_row(params![row.priority, row.sequence, cx.now.0, Enqueued::COUNTED as i64 - 1], |row| row.get(0))?;
    Ok(before.unsigned_abs() + 1)
}

pub(super) fn claim(cx: Cx<'_>, command: &ClaimQueued) -> Outcome<Option<ClaimedItem>> {
    let routes: Vec<&str> = command.routes.iter().map(RouteId::as_str).collect();
    let routes = serde_json::to_string(&routes).unwrap_or_default();
    let next: Option<i64> = cx
        .db
        .prepare_cached(
            "SELECT sequence FROM queue INDEXED BY queue_in_order WHERE state <= 1 AND lease_until <= ?1 AND expires_at > ?1 AND not_before <= ?1
             AND route IN (SELECT value FROM json_each(?2)) ORDER BY priority, sequence LIMIT 1",
        )?
        .query_row(params![cx.now.0, routes], |row| row.get(0))
        .optional()?;
    let Some(sequence) = next else { return Ok(None) };
    let epoch = cx.next_epoch()?;
    let (id, priority, row, stored): (String, i64, Row, Option<Vec<u8>>) = cx
        .db
        .prepare_cached(&format!(
            "UPDATE queue SET state = 1, lease_until = ?1, not_before = 0, epoch = ?2, worker = ?3,
             attempts = attempts + 1 WHERE sequence = ?4 RETURNING {}, id, payload",
            Row::COLUMNS
        ))?
        .query_row(params![cx.after(command.lease), epoch.0, &*command.worker, sequence], |row| {
            Ok((row.get(12)?, row.get(3)?, Row::read(row)?, row.get(13)?))
        })?;
    let payload = cx.open(owner(&row.tenant, &id), stored)?;
    let rank = usize::try_from(priority).unwrap_or(usize::MAX);
    Ok(Some(ClaimedItem {
        id: id.into(),
        tenant: TenantId::new(row.tenant),
        route: RouteId::new(row.route),
        priority: Priority::ALL.get(rank).copied().unwrap_or_default(),
        epoch,
        attempts: row.attempts,
        payload,
        enqueued_at: Wall(row.enqueued_at),
        expires_at: Wall(row.expires_at),
    }))
}

pub(super) fn renew(cx: Cx<'_>, command: &RenewQueued) -> Outcome<Fenced> {
    let RenewQueued { id, epoch, lease } = command;
    let changed = cx
        .db
        .prepare_cached(
            "UPDATE queue SET lease_until = ?1 WHERE id = ?2 AND epoch = ?3 AND state = 1
             AND (expires_at > ?4 OR lease_until > ?4)",
        )?
        .execute(params![cx.after(*lease), id, epoch.0, cx.now.0])?;
    Ok(if changed > 0 { Fenced::Held } else { Fenced::Lost })
}

pub(super) fn complete(cx: Cx<'_>, command: &CompleteQueued) -> Outcome<Fenced> {
    finish(cx, &command.id, command.epoch, DONE, &command.reply)
}

pub(super) fn fail(cx: Cx<'_>, command: &FailQueued) -> Outcome<Fenced> {
    finish(cx, &command.id, command.epoch, FAILED, &command.payload)
}

fn finish(cx: Cx<'_>, id: &Arc<str>, epoch: Epoch, end: i64, payload: &Payload) -> Outcome<Fenced> {
    cx.fits(payload.len())?;
    let Some(row) = find(cx, id)?.filter(|row| row.epoch == epoch.0) else {
        return Ok(Fenced::Lost);
    };
    match row.ended(cx.now) {
        Some((was, _)) => return Ok(if was == end { Fenced::Held } else { Fenced::Lost }),
        None if row.state != RUNNING => return Ok(Fenced::Lost),
        None => {}
    }
    let sealed = cx.sealer.seal(owner(&row.tenant, id), payload.as_bytes());
    cx.db
        .prepare_cached(
            "UPDATE queue SET state = ?1, lease_until = 0, ended_at = ?2, bytes = ?3, payload = ?4 WHERE sequence = ?5",
        )?
        .execute(params![end, cx.now.0, payload.len() as i64, sealed, row.sequence])?;
    deliveries::announce(cx, id, &row.tenant, row.webhook.as_deref())?;
    Ok(Fenced::Held)
}

pub(super) fn release(cx: Cx<'_>, command: &ReleaseQueued) -> Outcome<Fenced> {
    let row = find(cx, &command.id)?.filter(|row| row.epoch == command.epoch.0 && row.ended(cx.now).is_none());
    let Some(row) = row else { return Ok(Fenced::Lost) };
    if row.state == RUNNING {
        cx.db
            .prepare_cached("UPDATE queue SET state = ?1, lease_until = 0, not_before = ?2 WHERE sequence = ?3")?
            .execute([WAITING, cx.after(command.after), row.sequence])?;
    }
    Ok(Fenced::Held)
}

pub(super) fn view(cx: Cx<'_>, tenant: &TenantId, id: &str) -> Outcome<Option<QueuedView>> {
    let Some(row) = find(cx, id)?.filter(|row| row.tenant == tenant.as_str()) else { return Ok(None) };
    let state = match row.ended(cx.now) {
        Some((DONE, _)) => QueueState::Done(payload(cx, &row, id)?),
        Some((FAILED, _)) => QueueState::Failed(payload(cx, &row, id)?),
        Some(_) => QueueState::Expired,
        None if row.waits(cx.now) => QueueState::Waiting { position: position(cx, &row)? },
        None => QueueState::Running,
    };
    Ok(Some(QueuedView {
        state,
        route: RouteId::new(row.route),
        enqueued_at: Wall(row.enqueued_at),
        expires_at: Wall(row.expires_at),
        attempts: row.attempts,
    }))
}

fn payload(cx: Cx<'_>, row: &Row, id: &str) -> Outcome<Payload> {
    let mut find = cx.db.prepare_cached("SELECT payload FROM queue WHERE sequence = ?1")?;
    let stored = find.query_row([row.sequence], |row| row.get(0))?;
    cx.open(owner(&row.tenant, id), stored)
}

/// What an ended request's client gets, by its id: for the delivery that tells of it. None if it expired.
pub(super) fn ending(cx: Cx<'_>, tenant: &str, id: &str) -> Outcome<(i64, Option<Payload>)> {
    let mut find = cx.db.prepare_cached("SELECT state, payload FROM queue WHERE id = ?1")?;
    let (state, stored): (i64, Option<Vec<u8>>) = find.query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let payload = match state {
        DONE | FAILED => Some(cx.open(owner(tenant, id), stored)?),
        _ => None,
    };
    Ok((state, payload))
}

/// Says of what has expired that it has: the request is forgotten and the webhook hears of it.
pub(super) fn expire(cx: Cx<'_>, left: &mut u32) -> Outcome<()> {
    type Due = (i64, String, String, Option<String>, i64);
    let due: Vec<Due> = cx
        .db
        .prepare_cached(
            "SELECT sequence, id, tenant, webhook, max(expires_at, lease_until) FROM queue
             WHERE state <= 1 AND expires_at <= ?1 AND lease_until <= ?1 ORDER BY expires_at, sequence LIMIT ?2",
        )?
        .query_map(params![cx.now.0, *left], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for (sequence, id, tenant, webhook, at) in due {
        cx.db
            .prepare_cached(
                "UPDATE queue SET state = ?1, lease_until = 0, ended_at = ?2, bytes = 0, payload = NULL
                 WHERE sequence = ?3",
            )?
            .execute([EXPIRED, at, sequence])?;
        deliveries::announce(cx, &id, &tenant, webhook.as_deref())?;
        *left -= 1;
    }
    Ok(())
}

/// Removes what can no longer be fetched and has nothing left to deliver.
pub(super) fn purge(cx: Cx<'_>, left: &mut u32) -> Outcome<()> {
    let due: Vec<String> = cx
        .db
        .prepare_cached(
            "SELECT id FROM queue WHERE state >= 2 AND ended_at <= ?1 AND NOT EXISTS (
                 SELECT 1 FROM deliveries WHERE deliveries.id = queue.id AND NOT (attempts >= ?2 AND lease_until <= ?3))
             ORDER BY ended_at, sequence LIMIT ?4",
        )?
        .query_map(params![cx.before(cx.limits.finished_keep), cx.limits.delivery_attempts, cx.now.0, *left], |row| {
            row.get(0)
        })?
        .collect::<rusqlite::Result<_>>()?;
    for id in due {
        remove(cx, &id)?;
        *left -= 1;
    }
    Ok(())
}

fn remove(cx: Cx<'_>, id: &str) -> Outcome<()> {
    cx.db.prepare_cached("DELETE FROM queue WHERE id = ?1")?.execute([id])?;
    cx.db.prepare_cached("DELETE FROM deliveries WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// How many wait, how many run, and since when the oldest waits.
pub(super) fn depth(cx: Cx<'_>) -> Outcome<(u64, u64, Option<i64>)> {
    let mut depth = cx.db.prepare_cached(
        "SELECT count(*) FILTER (WHERE lease_until <= ?1), count(*) FILTER (WHERE lease_until > ?1),
             min(enqueued_at) FILTER (WHERE lease_until <= ?1)
         FROM queue INDEXED BY queue_in_order WHERE state <= 1 AND (expires_at > ?1 OR lease_until > ?1)",
    )?;
    let (waiting, running, oldest): (i64, i64, Option<i64>) =
        depth.query_row([cx.now.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok((waiting.unsigned_abs(), running.unsigned_abs(), oldest))
}
