//! Idempotent calls.

use super::{
    cx::{Cx, Kind},
    fault::Outcome,
};
use crate::{BeginCall, Begun, CallEnd, EndCall, Epoch, Fenced, Payload, RenewCall, seal::Owner};
use outlast_model::Wall;
use rusqlite::{OptionalExtension, params};

const RUNNING: i64 = 0;
const DONE: i64 = 1;
const FAILED: i64 = 2;

/// A row without its payload.
struct Row {
    fingerprint: Vec<u8>,
    epoch: i64,
    state: i64,
    lease_until: i64,
    expires_at: i64,
}

impl Row {
    /// The key is no longer kept, and nobody is at it.
    fn gone(&self, now: Wall) -> bool {
        self.expires_at <= now.0 && self.lease_until <= now.0
    }
}

fn owner<'a>(tenant: &'a str, key: &'a str) -> Owner<'a> {
    Owner { table: "calls", tenant, id: key, column: "payload" }
}

fn find(cx: Cx<'_>, tenant: &str, key: &str) -> Outcome<Option<Row>> {
    let mut find = cx.db.prepare_cached(
        "SELECT fingerprint, epoch, state, lease_until, expires_at FROM calls WHERE tenant = ?1 AND key = ?2",
    )?;
    let row = find.query_row([tenant, key], |row| {
        Ok(Row {
            fingerprint: row.get(0)?,
            epoch: row.get(1)?,
            state: row.get(2)?,
            lease_until: row.get(3)?,
            expires_at: row.get(4)?,
        })
    });
    Ok(row.optional()?.filter(|row| !row.gone(cx.now)))
}

pub(super) fn begin(cx: Cx<'_>, command: &BeginCall) -> Outcome<Begun> {
    let BeginCall { tenant, key, fingerprint, lease, keep } = command;
    match find(cx, tenant.as_str(), key)? {
        Some(row) if row.fingerprint != fingerprint => return Ok(Begun::Mismatch),
        Some(row) if row.state != RUNNING => return Ok(Begun::Replay(reply(cx, tenant.as_str(), key)?)),
        Some(row) if row.lease_until > cx.now.0 => {
            let left = row.lease_until.saturating_sub(cx.now.0).unsigned_abs();
            return Ok(Begun::InFlight { retry_after: std::time::Duration::from_millis(left) });
        }
        Some(_) => {}
        None => {
            make_room(cx, tenant.as_str())?;
            remove(cx, tenant.as_str(), key)?;
        }
    }
    let epoch = cx.next_epoch()?;
    cx.db
        .prepare_cached(
            "INSERT INTO calls (tenant, key, fingerprint, epoch, state, lease_until, expires_at, bytes)
             VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6, 0)
             ON CONFLICT DO UPDATE SET epoch = excluded.epoch, lease_until = excluded.lease_until,
                 expires_at = excluded.expires_at",
        )?
        .execute(params![tenant.as_str(), key, fingerprint, epoch.0, cx.after(*lease), cx.after(*keep)])?;
    Ok(Begun::Execute { epoch })
}

fn reply(cx: Cx<'_>, tenant: &str, key: &str) -> Outcome<Payload> {
    let mut find = cx.db.prepare_cached("SELECT payload FROM calls WHERE tenant = ?1 AND key = ?2")?;
    let stored = find.query_row([tenant, key], |row| row.get(0))?;
    cx.open(owner(tenant, key), stored)
}

/// Keys no longer kept are swept only when the room is needed.
fn make_room(cx: Cx<'_>, tenant: &str) -> Outcome<()> {
    if cx.over(Kind::Calls, tenant, 0)?.is_some() {
        purge(cx, &mut u32::MAX.clone())?;
    }
    match cx.over(Kind::Calls, tenant, 0)? {
        Some(of_tenant) => Err(Kind::Calls.too_many(of_tenant).into()),
        None => Ok(()),
    }
}

pub(super) fn renew(cx: Cx<'_>, command: &RenewCall) -> Outcome<Fenced> {
    let RenewCall { tenant, key, epoch, lease } = command;
    let changed = cx
        .db
        .prepare_cached(
            "UPDATE calls SET lease_until = ?1 WHERE tenant = ?2 AND key = ?3 AND epoch = ?4 AND state = 0
                 AND (expires_at > ?5 OR lease_until > ?5)",
        )?
        .execute(params![cx.after(*lease), tenant.as_str(), key, epoch.0, cx.now.0])?;
    Ok(held(changed > 0))
}

pub(super) fn end(cx: Cx<'_>, command: &EndCall) -> Outcome<Fenced> {
    let EndCall { tenant, key, epoch: Epoch(epoch), end } = command;
    let (tenant, key) = (tenant.as_str(), &**key);
    let kept = match end {
        CallEnd::Done(payload) => Some((DONE, payload)),
        CallEnd::Failed(payload) => Some((FAILED, payload)),
        CallEnd::Released => None,
    };
    if let Some((_, payload)) = kept {
        cx.fits(payload.len())?;
    }
    let Some(row) = find(cx, tenant, key)?.filter(|row| row.epoch == *epoch) else {
        return Ok(Fenced::Lost);
    };
    match kept {
        Some((state, payload)) if row.state == RUNNING => {
            let sealed = cx.sealer.seal(owner(tenant, key), payload.as_bytes());
            cx.db
                .prepare_cached(
                    "UPDATE calls SET state = ?1, lease_until = 0, bytes = ?2, payload = ?3
                     WHERE tenant = ?4 AND key = ?5",
                )?
                .execute(params![state, payload.len() as i64, sealed, tenant, key])?;
            Ok(Fenced::Held)
        }
        Some((state, _)) => Ok(held(row.state == state)),
        None if row.state == RUNNING => {
            remove(cx, tenant, key)?;
            Ok(Fenced::Held)
        }
        None => Ok(Fenced::Lost),
    }
}

fn remove(cx: Cx<'_>, tenant: &str, key: &str) -> Outcome<()> {
    cx.db.prepare_cached("DELETE FROM calls WHERE tenant = ?1 AND key = ?2")?.execute([tenant, key])?;
    Ok(())
}

pub(super) fn purge(cx: Cx<'_>, left: &mut u32) -> Outcome<()> {
    let gone = cx
        .db
        .prepare_cached(
            "DELETE FROM calls WHERE rowid IN (SELECT rowid FROM calls WHERE expires_at <= ?1 AND lease_until <= ?1
             ORDER BY expires_at, tenant, key LIMIT ?2)",
        )?
        .execute(params![cx.now.0, *left])?;
    *left -= gone as u32;
    Ok(())
}

fn held(holds: bool) -> Fenced {
    if holds { Fenced::Held } else { Fenced::Lost }
}
