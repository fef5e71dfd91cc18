//! The readers' side: a read-only connection, which never waits for the writer.

use super::{
    Counts,
    feedback::{self, Feedback},
};
use outlast_model::{
    Wall,
    record::{CALL_RECORD_VERSION, CallRecord},
};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
use std::{path::Path, time::Duration};

/// Which calls to look for; what is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallFilter {
    /// Admitted at or after.
    pub since: Option<Wall>,
    /// Admitted before.
    pub before: Option<Wall>,
    /// Of this route.
    pub route: Option<String>,
    /// `answered`, `failed`, `interrupted` or `cancelled`.
    pub outcome: Option<String>,
    /// Answered by this target.
    pub served_by: Option<String>,
    /// Of this task.
    pub task_id: Option<String>,
    /// Only those that were not plain: failed, rerouted or degraded.
    pub troubled: bool,
}

/// One counter as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterRow {
    /// Minutes since the Unix epoch.
    pub minute: i64,
    /// The route.
    pub route: String,
    /// The target that answered or was asked last; empty if none was.
    pub target: String,
    /// How the calls ended.
    pub outcome: String,
    /// The counts.
    pub counts: Counts,
}

/// A read-only connection to a telemetry file.
#[derive(Debug)]
pub struct TelemetryReader {
    db: Connection,
}

impl TelemetryReader {
    /// The most calls one query returns, whatever it asks for.
    pub const LIMIT_MAX: u32 = 1000;

    /// Opens an existing file for reading.
    ///
    /// # Errors
    /// What SQLite says: missing, damaged, not ours.
    pub fn open(path: &Path) -> rusqlite::Result<Self> {
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        db.busy_timeout(Duration::from_millis(250))?;
        db.execute_batch("PRAGMA cache_size = -512;")?;
        Ok(TelemetryReader { db })
    }

    /// The lineage of one call, if it was kept.
    ///
    /// # Errors
    /// What SQLite says, or that a newer build wrote the record.
    pub fn get(&self, request_id: &str) -> rusqlite::Result<Option<CallRecord>> {
        self.db
            .prepare_cached("SELECT record FROM calls WHERE request_id = ?1")?
            .query_row([request_id], record)
            .optional()
    }

    /// The latest calls that pass the filter, newest first; at most [`Self::LIMIT_MAX`].
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn recent(&self, filter: &CallFilter, limit: u32) -> rusqlite::Result<Vec<CallRecord>> {
        let mut statement = self.db.prepare_cached(
            "SELECT record FROM calls WHERE time_ms >= coalesce(?1, time_ms) AND time_ms < coalesce(?2, time_ms + 1)
             AND route = coalesce(?3, route) AND outcome = coalesce(?4, outcome)
             AND (?5 IS NULL OR served_by = ?5) AND (?6 IS NULL OR task_id = ?6)
             AND (NOT ?7 OR outcome <> 'answered' OR attempts <> 1 OR degraded)
             ORDER BY time_ms DESC, id DESC LIMIT ?8",
        )?;
        let rows = statement.query_map(
            params![
                filter.since.map(|time| time.0),
                filter.before.map(|time| time.0),
                filter.route,
                filter.outcome,
                filter.served_by,
                filter.task_id,
                filter.troubled,
                limit.min(Self::LIMIT_MAX),
            ],
            record,
        )?;
        rows.collect()
    }

    /// A caller's rating of a call, if there is one. `tenant` is empty where callers have no key.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn feedback(&self, request_id: &str, tenant: &str) -> rusqlite::Result<Option<Feedback>> {
        feedback::of_call(&self.db, request_id, tenant)
    }

    /// The counters of the minutes from `since` on, oldest first.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn counters(&self, since: Wall) -> rusqlite::Result<Vec<CounterRow>> {
        let mut statement = self.db.prepare_cached("SELECT * FROM counters WHERE minute >= ?1")?;
        let rows = statement.query_map([since.0.div_euclid(60_000)], |row| {
            let mut counts = Counts::default();
            for (n, field) in counts.fields_mut().into_iter().enumerate() {
                *field = row.get::<_, i64>(n + 4)?.unsigned_abs();
            }
            Ok(CounterRow {
                minute: row.get(0)?,
                route: row.get(1)?,
                target: row.get(2)?,
                outcome: row.get(3)?,
                counts,
            })
        })?;
        rows.collect()
    }
}

fn record(row: &Row<'_>) -> rusqlite::Result<CallRecord> {
    let refuse = |error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error)
    };
    let call: CallRecord = serde_json::from_str(row.get_ref(0)?.as_str()?).map_err(|error| refuse(error.into()))?;
    if call.version > CALL_RECORD_VERSION {
        return Err(refuse(format!("written by a newer Outlast (record version {})", call.version).into()));
    }
    Ok(call)
}
