//! The schema, its version and the checks made before a file is trusted.

use rusqlite::{Connection, OptionalExtension};

/// The version this build writes. A file with a higher one is refused.
pub const SCHEMA_VERSION: i64 = 1;

/// "OutL": marks the file as ours, so that another program's database is never taken for a damaged one of ours.
pub(super) const APPLICATION_ID: i64 = 0x4f75_744c;

/// Every statement that makes version 1. Its checksum is stored beside the version: a file whose checksum differs was
/// made by a build that is not this version, whatever it claims.
pub(super) const CREATE: &str = "
CREATE TABLE schema_meta (
    version INTEGER NOT NULL,
    checksum TEXT NOT NULL,
    created_ms INTEGER NOT NULL
);
CREATE TABLE calls (
    id INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL UNIQUE,
    time_ms INTEGER NOT NULL,
    route TEXT NOT NULL,
    outcome TEXT NOT NULL,
    failure TEXT,
    first_failure TEXT,
    served_by TEXT,
    degraded INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    latency_us INTEGER NOT NULL,
    cost_nanos INTEGER NOT NULL,
    trace_id TEXT NOT NULL,
    task_id TEXT,
    tenant_hash TEXT,
    record TEXT NOT NULL
);
CREATE INDEX calls_by_time ON calls (time_ms);
CREATE INDEX calls_by_route ON calls (route, time_ms);
CREATE INDEX calls_by_outcome ON calls (outcome, time_ms);
CREATE INDEX calls_by_server ON calls (served_by, time_ms);
CREATE INDEX calls_by_task ON calls (task_id, time_ms) WHERE task_id IS NOT NULL;
CREATE TABLE counters (
    minute INTEGER NOT NULL,
    route TEXT NOT NULL,
    target TEXT NOT NULL,
    outcome TEXT NOT NULL,
    calls INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    failovers INTEGER NOT NULL,
    wasted_calls INTEGER NOT NULL,
    degraded INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cost_nanos INTEGER NOT NULL,
    wasted_nanos INTEGER NOT NULL,
    latency_us INTEGER NOT NULL,
    PRIMARY KEY (minute, route, target, outcome)
) WITHOUT ROWID;
";

/// What a look at a file's head says about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Nothing in it yet.
    Blank,
    /// Ours, of this version.
    Known,
    /// Ours, made by a later build.
    Newer(i64),
    /// Another program's.
    Foreign,
    /// Ours by its mark, but its schema is not what the version says.
    Inconsistent(String),
}

/// Reads the marks of an open database.
///
/// # Errors
/// Whatever SQLite says of a file it cannot read; a damaged header shows here.
pub(super) fn head(db: &Connection) -> rusqlite::Result<Head> {
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let application: i64 = db.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if tables == 0 && matches!(application, 0 | APPLICATION_ID) {
        return Ok(Head::Blank);
    }
    if application != APPLICATION_ID {
        return Ok(Head::Foreign);
    }
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > SCHEMA_VERSION {
        return Ok(Head::Newer(version));
    }
    let stored =
        db.query_row("SELECT checksum FROM schema_meta WHERE version = ?1", [version], |row| row.get::<_, String>(0));
    match stored.optional()? {
        Some(stored) if stored == checksum() => Ok(Head::Known),
        Some(stored) => Ok(Head::Inconsistent(format!("schema checksum {stored}, expected {}", checksum()))),
        None => Ok(Head::Inconsistent(format!("no schema_meta row for version {version}"))),
    }
}

/// FNV-1a over [`CREATE`]: it guards against mistakes, not against forgery.
pub(super) fn checksum() -> String {
    let hash = CREATE
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}
