//! The webhook outbox.
//!
//! A row is given up if it was tried too often and nobody is trying.

use super::{
    cx::Cx,
    fault::Outcome,
    queue::{self, DONE},
};
use crate::{Delivered, Delivery, DueDeliveries, Fenced, Occasion, Retried, RetryDelivery};
use outlast_model::{TenantId, Wall};
use rusqlite::{OptionalExtension, params};

/// At most so many are given at once.
const AT_ONCE: u32 = 100;

/// An item ended: its webhook, if it has one, is to hear of it. In the transaction that ends it.
pub(super) fn announce(cx: Cx<'_>, id: &str, tenant: &str, webhook: Option<&str>) -> Outcome<()> {
    let Some(webhook) = webhook else { return Ok(()) };
    cx.db
        .prepare_cached(
            "INSERT INTO deliveries (id, tenant, webhook, at, attempts, epoch, claimed, not_before, lease_until)
             VALUES (?1, ?2, ?3, ?4, 0, 0, 0, ?4, 0)",
        )?
        .execute(params![id, tenant, webhook, cx.now.0])?;
    Ok(())
}

pub(super) fn due(cx: Cx<'_>, command: &DueDeliveries) -> Outcome<Vec<Delivery>> {
    type Due = (String, String, String, i64, u32);
    let due: Vec<Due> = cx
        .db
        .prepare_cached(
            "SELECT id, tenant, webhook, at, attempts FROM deliveries
             WHERE lease_until <= ?1 AND not_before <= ?1 AND attempts < ?2 ORDER BY sequence LIMIT ?3",
        )?
        .query_map(params![cx.now.0, cx.limits.delivery_attempts, command.limit.min(AT_ONCE)], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut deliveries = Vec::with_capacity(due.len());
    for (id, tenant, webhook, at, attempts) in due {
        let epoch = cx.next_epoch()?;
        cx.db
            .prepare_cached(
                "UPDATE deliveries SET attempts = attempts + 1, epoch = ?1, worker = ?2, claimed = 1, not_before = 0,
                 lease_until = ?3 WHERE id = ?4",
            )?
            .execute(params![epoch.0, &*command.worker, cx.after(command.lease), id])?;
        let occasion = match queue::ending(cx, &tenant, &id)? {
            (DONE, Some(reply)) => Occasion::Done(reply),
            (_, Some(payload)) => Occasion::Failed(payload),
            (_, None) => Occasion::Expired,
        };
        deliveries.push(Delivery {
            id: id.into(),
            tenant: TenantId::new(tenant),
            webhook: webhook.into(),
            occasion,
            at: Wall(at),
            epoch,
            attempts: attempts + 1,
        });
    }
    Ok(deliveries)
}

pub(super) fn delivered(cx: Cx<'_>, command: &Delivered) -> Outcome<Fenced> {
    let gone = cx
        .db
        .prepare_cached("DELETE FROM deliveries WHERE id = ?1 AND epoch = ?2 AND claimed = 1")?
        .execute(params![command.id, command.epoch.0])?;
    Ok(if gone > 0 { Fenced::Held } else { Fenced::Lost })
}

pub(super) fn retry(cx: Cx<'_>, command: &RetryDelivery) -> Outcome<Retried> {
    cx.db
        .prepare_cached(
            "UPDATE deliveries SET claimed = 0, lease_until = 0, not_before = ?1
             WHERE id = ?2 AND epoch = ?3 AND claimed = 1",
        )?
        .execute(params![cx.after(command.after), command.id, command.epoch.0])?;
    let attempts: Option<u32> = cx
        .db
        .prepare_cached("SELECT attempts FROM deliveries WHERE id = ?1 AND epoch = ?2")?
        .query_row(params![command.id, command.epoch.0], |row| row.get(0))
        .optional()?;
    Ok(match attempts {
        Some(attempts) if attempts >= cx.limits.delivery_attempts => Retried::GivenUp,
        Some(_) => Retried::Later,
        None => Retried::Lost,
    })
}

/// How many are pending, and how many given up.
pub(super) fn counts(cx: Cx<'_>) -> Outcome<(u64, u64)> {
    let mut counts = cx.db.prepare_cached(
        "SELECT count(*), count(*) FILTER (WHERE attempts >= ?1 AND lease_until <= ?2) FROM deliveries",
    )?;
    let (all, given_up): (i64, i64) =
        counts.query_row(params![cx.limits.delivery_attempts, cx.now.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(((all - given_up).unsigned_abs(), given_up.unsigned_abs()))
}
