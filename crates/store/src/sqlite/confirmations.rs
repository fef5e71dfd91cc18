//! Questions to users.

use super::{
    cx::{Cx, Kind},
    fault::Outcome,
};
use crate::{AskConfirmation, Asked, StoreError, TakeConfirmation, Taken};
use outlast_model::RouteId;
use rusqlite::{OptionalExtension, params};

struct Row {
    tenant: String,
    fingerprint: Vec<u8>,
    route: String,
    expires_at: i64,
}

/// The question, if it is still told from one that never was.
fn find(cx: Cx<'_>, token_hash: &[u8; 32]) -> Outcome<Option<Row>> {
    let mut find = cx
        .db
        .prepare_cached("SELECT tenant, fingerprint, route, expires_at FROM confirmations WHERE token_hash = ?1")?;
    let row = find.query_row([token_hash], |row| {
        Ok(Row { tenant: row.get(0)?, fingerprint: row.get(1)?, route: row.get(2)?, expires_at: row.get(3)? })
    });
    let gone_since = cx.before(cx.limits.expired_keep);
    Ok(row.optional()?.filter(|row| row.expires_at > gone_since))
}

pub(super) fn ask(cx: Cx<'_>, command: &AskConfirmation) -> Outcome<Asked> {
    let AskConfirmation { token_hash, tenant, fingerprint, route, expires_in } = command;
    if let Some(row) = find(cx, token_hash)? {
        let repeated = row.tenant == tenant.as_str() && row.fingerprint == fingerprint;
        return if repeated { Ok(Asked) } else { Err(StoreError::Taken { what: "question" }.into()) };
    }
    if cx.over(Kind::Confirmations, tenant.as_str(), 0)?.is_some() {
        purge(cx, &mut u32::MAX.clone())?;
    }
    if let Some(of_tenant) = cx.over(Kind::Confirmations, tenant.as_str(), 0)? {
        return Err(Kind::Confirmations.too_many(of_tenant).into());
    }
    remove(cx, token_hash)?;
    cx.db.prepare_cached("INSERT INTO confirmations VALUES (?1, ?2, ?3, ?4, ?5, 0)")?.execute(params![
        token_hash,
        tenant.as_str(),
        fingerprint,
        route.as_str(),
        cx.after(*expires_in)
    ])?;
    Ok(Asked)
}

pub(super) fn take(cx: Cx<'_>, command: &TakeConfirmation) -> Outcome<Taken> {
    let Some(row) = find(cx, &command.token_hash)? else { return Ok(Taken::Unknown) };
    if row.tenant != command.tenant.as_str() || row.fingerprint != command.fingerprint {
        return Ok(Taken::Mismatch);
    }
    if row.expires_at <= cx.now.0 {
        return Ok(Taken::Expired);
    }
    remove(cx, &command.token_hash)?;
    Ok(Taken::Yes { route: RouteId::new(row.route) })
}

fn remove(cx: Cx<'_>, token_hash: &[u8; 32]) -> Outcome<()> {
    cx.db.prepare_cached("DELETE FROM confirmations WHERE token_hash = ?1")?.execute([token_hash])?;
    Ok(())
}

pub(super) fn purge(cx: Cx<'_>, left: &mut u32) -> Outcome<()> {
    let gone = cx
        .db
        .prepare_cached(
            "DELETE FROM confirmations WHERE token_hash IN (SELECT token_hash FROM confirmations WHERE expires_at <= ?1
             ORDER BY expires_at, token_hash LIMIT ?2)",
        )?
        .execute(params![cx.before(cx.limits.expired_keep), *left])?;
    *left -= gone as u32;
    Ok(())
}
