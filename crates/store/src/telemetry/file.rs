//! The writer's side: open, write, keep the size bounded.

use super::{
    Counters,
    feedback::{self, Feedback},
    schema::{self, Head, SCHEMA_VERSION},
};
use outlast_model::{Wall, record::CallRecord};
use rusqlite::{Connection, ErrorCode, Transaction, params};
use std::{
    ffi::OsString,
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// How much is kept. Both limits hold; the older rows go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Calls older than this are deleted.
    pub calls_age: Duration,
    /// At most so many calls.
    pub calls_max: u64,
    /// Counters older than this are deleted.
    pub counters_age: Duration,
}

impl Default for Retention {
    /// 30 days or 200,000 calls (some 200 MB); a year and a month of counters, so that a year can be compared.
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Retention { calls_age: 30 * DAY, calls_max: 200_000, counters_age: 396 * DAY }
    }
}

/// What opening the file found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// There was none.
    Fresh,
    /// An earlier process's, in order.
    Existing,
    /// A damaged one, which now lies elsewhere; a new one was begun.
    Replaced {
        /// Where the damaged file is now.
        moved_to: PathBuf,
        /// What was wrong with it.
        why: String,
    },
}

/// Why the file cannot be used.
#[derive(Debug)]
pub enum OpenError {
    /// A later build wrote it.
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
    },
    /// Another program's database.
    Foreign(PathBuf),
    /// The directory or the file cannot be made, read or moved.
    Io(PathBuf, io::Error),
    /// SQLite refuses, for a reason other than damage: locked, read-only, full.
    Sqlite(PathBuf, rusqlite::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Newer { path, found } => write!(
                f,
                "{}: written by a newer Outlast (schema {found}; this one knows {SCHEMA_VERSION}). Upgrade Outlast, or \
                 name another telemetry file.",
                path.display()
            ),
            OpenError::Foreign(path) => {
                write!(f, "{}: another program's database. Name another telemetry file.", path.display())
            }
            OpenError::Io(path, error) => write!(f, "{}: {error}", path.display()),
            OpenError::Sqlite(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {}

/// Why a batch was not written. Nothing of it was.
#[derive(Debug)]
pub enum WriteError {
    /// The file is damaged: [`TelemetryFile::replace`] it.
    Corrupt(String),
    /// Anything else: full, locked, gone. Worth another try later.
    Refused(String),
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::Corrupt(why) => write!(f, "the telemetry file is damaged: {why}"),
            WriteError::Refused(why) => write!(f, "the telemetry file cannot be written: {why}"),
        }
    }
}

impl std::error::Error for WriteError {}

impl From<rusqlite::Error> for WriteError {
    fn from(error: rusqlite::Error) -> Self {
        if is_damage(&error) { WriteError::Corrupt(error.to_string()) } else { WriteError::Refused(error.to_string()) }
    }
}

/// The open file. One thread owns it and is its only writer.
#[derive(Debug)]
pub struct TelemetryFile {
    db: Connection,
    path: PathBuf,
    retention: Retention,
}

impl TelemetryFile {
    /// Opens the file, making it and its directory as needed. `now` names a damaged file that is set aside.
    ///
    /// # Errors
    /// [`OpenError`]; damage alone is not an error but [`Opened::Replaced`].
    pub fn open(path: &Path, retention: Retention, now: Wall) -> Result<(Self, Opened), OpenError> {
        let existed = path.exists();
        match Self::try_open(path, retention)? {
            Ok(file) => Ok((file, if existed { Opened::Existing } else { Opened::Fresh })),
            Err(why) => {
                let moved_to = set_aside(path, now)?;
                match Self::try_open(path, retention)? {
                    Ok(file) => Ok((file, Opened::Replaced { moved_to, why })),
                    Err(why) => Err(OpenError::Io(path.into(), io::Error::other(why))),
                }
            }
        }
    }

    /// The inner error is damage, in words.
    fn try_open(path: &Path, retention: Retention) -> Result<Result<Self, String>, OpenError> {
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            fs::create_dir_all(directory).map_err(|error| OpenError::Io(directory.into(), error))?;
        }
        match Self::connect(path).and_then(|db| Ok((schema::head(&db)?, db))) {
            Ok((Head::Known, db)) => match first_fault(&db, path) {
                Ok(None) => Ok(Ok(TelemetryFile { db, path: path.into(), retention })),
                Ok(Some(fault)) => Ok(Err(fault)),
                Err(error) => damage_or(path, error),
            },
            Ok((Head::Blank, db)) => match create(&db) {
                Ok(()) => Ok(Ok(TelemetryFile { db, path: path.into(), retention })),
                Err(error) => damage_or(path, error),
            },
            Ok((Head::Older(version), db)) => match db.execute_batch(&schema::migrate(version)) {
                Ok(()) => Ok(Ok(TelemetryFile { db, path: path.into(), retention })),
                Err(error) => damage_or(path, error),
            },
            Ok((Head::Newer(found), _)) => Err(OpenError::Newer { path: path.into(), found }),
            Ok((Head::Foreign, _)) => Err(OpenError::Foreign(path.into())),
            Ok((Head::Inconsistent(why), _)) => Ok(Err(why)),
            Err(error) => damage_or(path, error),
        }
    }

    /// NORMAL loses nothing when this process dies; a power cut may cost the commits since the last checkpoint.
    fn connect(path: &Path) -> rusqlite::Result<Connection> {
        let db = Connection::open(path)?;
        db.busy_timeout(Duration::from_millis(250))?;
        db.set_prepared_statement_cache_capacity(16);
        db.execute_batch(
            "PRAGMA synchronous = NORMAL; PRAGMA cache_size = -1024; PRAGMA journal_size_limit = 8388608;
             PRAGMA temp_store = MEMORY;",
        )?;
        Ok(db)
    }

    /// Writes calls and counters in one transaction. A call already written (a batch tried twice) is left as it is.
    ///
    /// # Errors
    /// [`WriteError`]; nothing of the batch was written then, and it may be given again.
    pub fn write_batch<'a>(
        &mut self,
        calls: impl IntoIterator<Item = &'a CallRecord>,
        counters: &Counters,
    ) -> Result<(), WriteError> {
        let batch = self.db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        for call in calls {
            insert_call(&batch, call)?;
        }
        insert_counters(&batch, counters)?;
        Ok(batch.commit()?)
    }

    /// Writes ratings in one transaction. A caller's second rating of a call replaces the first.
    ///
    /// # Errors
    /// [`WriteError`]; nothing of the batch was written then, and it may be given again.
    pub fn write_feedback<'a>(&mut self, ratings: impl IntoIterator<Item = &'a Feedback>) -> Result<(), WriteError> {
        let batch = self.db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        for rating in ratings {
            feedback::insert(&batch, rating)?;
        }
        Ok(batch.commit()?)
    }

    /// Deletes what is past its retention, at most some thousand rows at a time, and returns how many rows went. More
    /// are due if it returns more than zero.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn retain(&mut self, now: Wall) -> Result<u64, WriteError> {
        const SLICE: i64 = 4096;
        let before = |age: Duration| now.0.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let batch = self.db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let old = batch
            .prepare_cached("DELETE FROM calls WHERE id IN (SELECT id FROM calls WHERE time_ms < ?1 LIMIT ?2)")?
            .execute([before(self.retention.calls_age), SLICE])?;
        // Rows are deleted oldest first, so that the span of ids is an upper bound of their number.
        let over = batch
            .prepare_cached(
                "DELETE FROM calls WHERE id IN (SELECT id FROM calls ORDER BY id LIMIT
                 max(0, min(?2, (SELECT coalesce(max(id) - min(id) + 1, 0) FROM calls) - ?1)))",
            )?
            .execute([i64::try_from(self.retention.calls_max).unwrap_or(i64::MAX), SLICE])?;
        let stale = batch
            .prepare_cached("DELETE FROM counters WHERE minute < ?1")?
            .execute([before(self.retention.counters_age).div_euclid(60_000)])?;
        let unrated = batch
            .prepare_cached(
                "DELETE FROM feedback WHERE (request_id, tenant_hash) IN
                 (SELECT request_id, tenant_hash FROM feedback WHERE time_ms < ?1 LIMIT ?2)",
            )?
            .execute([before(self.retention.calls_age), SLICE])?;
        batch.commit()?;
        let gone = old + over + stale + unrated;
        if gone > 0 {
            // It gives one page back at each step, so it has to be stepped to its end.
            let mut vacuum = self.db.prepare("PRAGMA incremental_vacuum(4096)")?;
            let mut pages = vacuum.query([])?;
            while pages.next()?.is_some() {}
        }
        Ok(gone as u64)
    }

    /// Sets this damaged file aside and begins a new one in its place.
    ///
    /// # Errors
    /// [`OpenError`]; the damaged file may have been moved by then, and telemetry has no file any more.
    pub fn replace(self, why: String, now: Wall) -> Result<(Self, Opened), OpenError> {
        let TelemetryFile { db, path, retention } = self;
        drop(db);
        let moved_to = set_aside(&path, now)?;
        let (file, _) = Self::open(&path, retention, now)?;
        Ok((file, Opened::Replaced { moved_to, why }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn create(db: &Connection) -> rusqlite::Result<()> {
    // The journal mode and the vacuum mode cannot change inside a transaction.
    db.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;")?;
    db.execute_batch(&schema::migrate(0))
}

/// A whole check where it is quick; a large file is taken at its head's word, and damage further in shows when it is
/// met.
fn first_fault(db: &Connection, path: &Path) -> rusqlite::Result<Option<String>> {
    const CHECKED_BYTES_MAX: u64 = 8 << 20;
    if fs::metadata(path).map_or(0, |file| file.len()) > CHECKED_BYTES_MAX {
        return Ok(None);
    }
    let verdict: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok((verdict != "ok").then_some(verdict))
}

fn damage_or<T>(path: &Path, error: rusqlite::Error) -> Result<Result<T, String>, OpenError> {
    if is_damage(&error) { Ok(Err(error.to_string())) } else { Err(OpenError::Sqlite(path.into(), error)) }
}

pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Renames the file and its journal; a name already taken gets a number.
fn set_aside(path: &Path, now: Wall) -> Result<PathBuf, OpenError> {
    let with = |suffix: &str| {
        let mut name = OsString::from(path);
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = (0..)
        .map(|n| if n == 0 { format!(".damaged-{}", now.0) } else { format!(".damaged-{}-{n}", now.0) })
        .find(|suffix| !with(suffix).exists())
        .unwrap_or_default();
    for journal in ["-wal", "-shm"] {
        let from = with(journal);
        if from.exists() {
            fs::rename(&from, with(&format!("{aside}{journal}"))).map_err(|error| OpenError::Io(from, error))?;
        }
    }
    let moved_to = with(&aside);
    fs::rename(path, &moved_to).map_err(|error| OpenError::Io(path.into(), error))?;
    Ok(moved_to)
}

fn insert_call(batch: &Transaction<'_>, call: &CallRecord) -> Result<(), WriteError> {
    let record = serde_json::to_string(call).map_err(|error| WriteError::Refused(error.to_string()))?;
    batch
        .prepare_cached(
            "INSERT OR IGNORE INTO calls (request_id, time_ms, route, outcome, failure, first_failure, served_by,
             degraded, attempts, latency_us, cost_nanos, trace_id, task_id, tenant_hash, record)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        )?
        .execute(params![
            call.request_id.as_str(),
            call.started.0,
            call.route.as_str(),
            call.outcome.name(),
            call.outcome.failure().map(|failure| failure.to_string()),
            call.first_failure().map(|failure| failure.to_string()),
            call.served_by.as_ref().map(|target| target.as_str()),
            call.degraded,
            i64::try_from(call.attempts.len()).unwrap_or(i64::MAX),
            signed(call.latency_us),
            signed(call.cost.as_nanos()),
            &*call.trace_id,
            call.task_id.as_deref(),
            call.tenant_hash.as_deref(),
            record,
        ])?;
    Ok(())
}

fn insert_counters(batch: &Transaction<'_>, counters: &Counters) -> Result<(), WriteError> {
    let mut statement = batch.prepare_cached(
        "INSERT INTO counters VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
         ON CONFLICT DO UPDATE SET calls = calls + ?5, attempts = attempts + ?6, failovers = failovers + ?7,
         wasted_calls = wasted_calls + ?8, degraded = degraded + ?9, input_tokens = input_tokens + ?10,
         output_tokens = output_tokens + ?11, cost_nanos = cost_nanos + ?12, wasted_nanos = wasted_nanos + ?13,
         latency_us = latency_us + ?14",
    )?;
    for (key, counts) in counters.iter() {
        let [calls, attempts, failovers, wasted, degraded, input, output, cost, wasted_cost, latency] =
            counts.fields().map(signed);
        statement.execute(params![
            key.minute,
            key.route.as_str(),
            key.target.as_ref().map_or("", |target| target.as_str()),
            key.outcome,
            calls,
            attempts,
            failovers,
            wasted,
            degraded,
            input,
            output,
            cost,
            wasted_cost,
            latency
        ])?;
    }
    Ok(())
}

/// SQLite's integers are signed.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
