//! Good replies.

use super::{
    cx::{Cx, Kind},
    fault::Outcome,
};
use crate::{Recall, Remember, Remembered, seal::Owner};
use outlast_model::RouteId;
use rusqlite::{OptionalExtension, params};

/// A reply is bound to its question as well as to its tenant and route.
fn id(route: &RouteId, fingerprint: &[u8; 32]) -> String {
    let question: String = fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{question} {route}")
}

pub(super) fn owner<'a>(tenant: &'a str, id: &'a str) -> Owner<'a> {
    Owner { table: "cache", tenant, id, column: "payload" }
}

pub(super) fn id_of(route: String, fingerprint: &[u8]) -> Option<String> {
    Some(id(&RouteId::new(route), fingerprint.try_into().ok()?))
}

pub(super) fn remember(cx: Cx<'_>, command: &Remember) -> Outcome<()> {
    let Remember { tenant, route, fingerprint, payload, keep } = command;
    let bytes = payload.len();
    cx.fits(bytes)?;
    // What does not fit an empty cache would empty it for nothing.
    let room = cx.limits.cache;
    for (bound, of_tenant) in [(room.tenant, true), (room.whole, false)] {
        if bound.rows < 1 || bound.bytes < bytes as u64 {
            return Err(Kind::Cache.too_many(of_tenant).into());
        }
    }
    cx.db
        .prepare_cached("DELETE FROM cache WHERE tenant = ?1 AND route = ?2 AND fingerprint = ?3")?
        .execute(params![tenant.as_str(), route.as_str(), fingerprint])?;
    while let Some(of_tenant) = cx.over(Kind::Cache, tenant.as_str(), bytes)? {
        let oldest = match of_tenant {
            true => "DELETE FROM cache WHERE sequence = (SELECT min(sequence) FROM cache WHERE tenant = ?1)",
            false => "DELETE FROM cache WHERE sequence = (SELECT min(sequence) FROM cache WHERE ?1 IS NOT NULL)",
        };
        if cx.db.prepare_cached(oldest)?.execute([tenant.as_str()])? == 0 {
            break;
        }
    }
    let id = id(route, fingerprint);
    let sealed = cx.sealer.seal(owner(tenant.as_str(), &id), payload.as_bytes());
    cx.db
        .prepare_cached(
            "INSERT INTO cache (tenant, route, fingerprint, stored_at, expires_at, bytes, payload)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            tenant.as_str(),
            route.as_str(),
            fingerprint,
            cx.now.0,
            cx.after(*keep),
            bytes as i64,
            sealed
        ])?;
    Ok(())
}

pub(super) fn recall(cx: Cx<'_>, question: &Recall) -> Outcome<Option<Remembered>> {
    let Recall { tenant, route, fingerprint, max_age } = question;
    let stored: Option<(i64, Vec<u8>)> = cx
        .db
        .prepare_cached(
            "SELECT stored_at, payload FROM cache WHERE tenant = ?1 AND route = ?2 AND fingerprint = ?3
             AND expires_at > ?4",
        )?
        .query_row(params![tenant.as_str(), route.as_str(), fingerprint, cx.now.0], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let Some((stored_at, stored)) = stored else { return Ok(None) };
    let age = cx.age(stored_at);
    if age > *max_age {
        return Ok(None);
    }
    let payload = cx.open(owner(tenant.as_str(), &id(route, fingerprint)), Some(stored))?;
    Ok(Some(Remembered { payload, age }))
}

pub(super) fn purge(cx: Cx<'_>, left: &mut u32) -> Outcome<()> {
    let gone = cx
        .db
        .prepare_cached(
            "DELETE FROM cache WHERE sequence IN (SELECT sequence FROM cache WHERE expires_at <= ?1
             ORDER BY expires_at, sequence LIMIT ?2)",
        )?
        .execute(params![cx.now.0, *left])?;
    *left -= gone as u32;
    Ok(())
}
