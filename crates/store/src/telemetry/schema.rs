//! The schema, its version and the checks made before a file is trusted.

use rusqlite::{Connection, OptionalExtension};

/// The version this build writes. A file with a higher one is refused.
pub const SCHEMA_VERSION: i64 = MIGRATIONS.len() as i64;

/// "OutL": marks the file as ours, so that another program's database is never taken for a damaged one of ours.
pub(super) const APPLICATION_ID: i64 = 0x4f75_744c;

/// The statements that make version 1, those that make version 2 of it, and so on. The checksum of each is stored
/// beside its version: a file whose checksum differs was made by a build that is not this version, whatever it claims.
/// What has been released is never edited.
pub(super) const MIGRATIONS: [&str; 2] = [CREATE, FEEDBACK];

const FEEDBACK: &str = "
CREATE TABLE feedback (
    request_id TEXT NOT NULL,
    tenant_hash TEXT NOT NULL,
    time_ms INTEGER NOT NULL,
    route TEXT NOT NULL,
    target TEXT,
    score REAL NOT NULL,
    comment BLOB,
    PRIMARY KEY (request_id, tenant_hash)
) WITHOUT ROWID;
CREATE INDEX feedback_by_time ON feedback (time_ms);
";

const CREATE: &str = "
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
    /// Ours, made by an earlier build: the later migrations are due.
    Older(i64),
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
    for at in 1..=version {
        let stored = db
            .query_row("SELECT checksum FROM schema_meta WHERE version = ?1", [at], |row| row.get::<_, String>(0))
            .optional()?;
        let expected = checksum(at);
        match stored {
            Some(stored) if stored == expected => {}
            Some(stored) => {
                return Ok(Head::Inconsistent(format!(
                    "schema checksum {stored} of version {at}, expected {expected}"
                )));
            }
            None => return Ok(Head::Inconsistent(format!("no schema_meta row for version {at}"))),
        }
    }
    Ok(if version == SCHEMA_VERSION { Head::Known } else { Head::Older(version) })
}

/// The statements that bring a file from `version` (0: blank) to the latest, one transaction.
pub(super) fn migrate(version: i64) -> String {
    let due = (version + 1..).zip(&MIGRATIONS[usize::try_from(version).unwrap_or(0).min(MIGRATIONS.len())..]);
    let steps = due.map(|(version, statements)| {
        let checksum = checksum(version);
        format!(
            "{statements} INSERT INTO schema_meta VALUES
             ({version}, '{checksum}', CAST(unixepoch('subsec') * 1000 AS INTEGER));"
        )
    });
    let steps: String = steps.collect();
    format!(
        "BEGIN IMMEDIATE; {steps} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};
         COMMIT;"
    )
}

/// FNV-1a over a version's statements: it guards against mistakes, not against forgery.
fn checksum(version: i64) -> String {
    let statements = usize::try_from(version - 1).ok().and_then(|at| MIGRATIONS.get(at)).unwrap_or(&"");
    let hash = statements
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}
