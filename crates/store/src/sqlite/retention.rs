//! What becomes of runs and effects after their end: their payloads go first, then all that is known of them. Nothing
//! that is not over is touched.

use super::{cx::Cx, fault::Outcome};
use crate::StartRun;
use rusqlite::params;

/// At most so many steps are written or removed in one sweep, as this holds up the writer.
pub(super) const STEPS: usize = 10_000;

/// Removes runs that are no longer known, then payloads that are no longer kept. `steps`: how many may be written.
pub(super) fn purge_runs(cx: Cx<'_>, left: &mut u32, steps: &mut usize) -> Outcome<()> {
    for run in due(cx, GONE, cx.before(cx.limits.key_keep), *left)? {
        if !remove(cx, run, steps)? {
            return Ok(());
        }
        *left -= 1;
    }
    for run in due(cx, BARE, cx.before(cx.limits.payload_keep), *left)? {
        if !drop_payloads(cx, run, steps)? {
            return Ok(());
        }
        *left -= 1;
    }
    Ok(())
}

pub(super) const GONE: &str =
    "SELECT run FROM runs WHERE ended_at IS NOT NULL AND ended_at <= ?1 ORDER BY ended_at, run LIMIT ?2";
pub(super) const BARE: &str = "SELECT run FROM runs INDEXED BY runs_to_drop
    WHERE ended_at IS NOT NULL AND bytes > 0 AND ended_at <= ?1 ORDER BY ended_at, run LIMIT ?2";

fn due(cx: Cx<'_>, sql: &str, until: i64, limit: u32) -> Outcome<Vec<i64>> {
    let mut find = cx.db.prepare_cached(sql)?;
    let found = find.query_map(params![until, limit], |row| row.get(0))?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

/// False if a part of it is left for the next time.
fn remove(cx: Cx<'_>, run: i64, steps: &mut usize) -> Outcome<bool> {
    let sql = "DELETE FROM steps WHERE step IN (SELECT step FROM steps WHERE run = ?1 LIMIT ?2)";
    if !some(cx, sql, run, steps)? {
        return Ok(false);
    }
    for sql in [
        "DELETE FROM inbox WHERE run = ?1",
        "DELETE FROM run_payloads WHERE slot IN (2 * ?1, 2 * ?1 + 1)",
        "DELETE FROM runs WHERE run = ?1",
    ] {
        cx.db.prepare_cached(sql)?.execute([run])?;
    }
    Ok(true)
}

/// False if a part of them is left for the next time.
fn drop_payloads(cx: Cx<'_>, run: i64, steps: &mut usize) -> Outcome<bool> {
    let sql = "UPDATE steps SET bytes = 0, payload = NULL, payload_blob = NULL, input = NULL, input_blob = NULL,
            undo = NULL, undo_blob = NULL, decision = NULL, decision_blob = NULL
        WHERE step IN (SELECT step FROM steps WHERE run = ?1
            AND (bytes > 0 OR undo IS NOT NULL OR decision IS NOT NULL) LIMIT ?2)";
    if !some(cx, sql, run, steps)? {
        return Ok(false);
    }
    for sql in [
        "UPDATE inbox SET bytes = 0, payload = NULL, payload_blob = NULL WHERE run = ?1 AND given = 0",
        "DELETE FROM run_payloads WHERE slot IN (2 * ?1, 2 * ?1 + 1)",
        "UPDATE runs SET bytes = 0 WHERE run = ?1",
    ] {
        cx.db.prepare_cached(sql)?.execute([run])?;
    }
    Ok(true)
}

/// Carries a statement out on as many steps as may be. False if those were all that may, so that there may be more.
fn some(cx: Cx<'_>, sql: &str, run: i64, steps: &mut usize) -> Outcome<bool> {
    let limit = i64::try_from(*steps).unwrap_or(i64::MAX);
    let done = cx.db.prepare_cached(sql)?.execute(params![run, limit])?;
    *steps -= done;
    Ok(*steps > 0)
}

/// Makes place for a run whose name, or whose key, was that of one that is no longer known.
pub(super) fn forget(cx: Cx<'_>, command: &StartRun) -> Outcome<()> {
    let (tenant, id) = (command.run.tenant.as_str(), command.run.id.as_str());
    let mut find = cx.db.prepare_cached("SELECT run FROM runs WHERE tenant = ?1 AND id = ?2")?;
    let found: Vec<i64> = find.query_map([tenant, id], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    for run in found {
        remove(cx, run, &mut usize::MAX.clone())?;
    }
    if let Some((key, _)) = &command.key {
        cx.db
            .prepare_cached("UPDATE runs SET key = NULL, key_hash = NULL WHERE tenant = ?1 AND key = ?2")?
            .execute(params![tenant, key])?;
    }
    Ok(())
}

/// Removes entries that are no longer known, then payloads that are no longer kept. What a run that is not over points
/// to is kept as long as it.
pub(super) fn purge_effects(cx: Cx<'_>, left: &mut u32) -> Outcome<()> {
    let gone = cx.db.prepare_cached(GONE_EFFECTS)?.execute(params![cx.before(cx.limits.key_keep), *left])?;
    *left -= gone as u32;
    let bare = cx.db.prepare_cached(BARE_EFFECTS)?.execute(params![cx.before(cx.limits.payload_keep), *left])?;
    *left -= bare as u32;
    Ok(())
}

macro_rules! over {
    () => {
        "ended_at IS NOT NULL AND ended_at <= ?1 AND NOT EXISTS (SELECT 1 FROM steps JOIN runs USING (run)
             WHERE steps.effect = effects.effect AND coalesce(runs.ended_at > ?1, 1))
         ORDER BY ended_at, effect LIMIT ?2"
    };
}

pub(super) const GONE_EFFECTS: &str =
    concat!("DELETE FROM effects WHERE effect IN (SELECT effect FROM effects WHERE ", over!(), ")");
pub(super) const BARE_EFFECTS: &str = concat!(
    "UPDATE effects SET bytes = 0, payload = NULL, payload_blob = NULL, input = NULL, input_blob = NULL,
         undo = NULL, undo_blob = NULL, decision = NULL, decision_blob = NULL
     WHERE effect IN (SELECT effect FROM effects INDEXED BY effects_to_drop WHERE bytes > 0 AND ",
    over!(),
    ")"
);
