//! Opening the file: its permissions, its lock, its head, its soundness, its keys.

use super::{
    fault::{Outcome, of_sqlite},
    migrate::{self, Head, SCHEMA_VERSION},
};
use crate::{Sealer, StoreError, seal::Owner};
use outlast_model::Wall;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Nobody but the owner.
pub(super) const OWNER_ONLY: u32 = 0o600;

/// A file that is open, sound and ours.
pub(super) struct Opened {
    /// Shared by everybody who has the store open; a restore needs it alone.
    pub(super) lock: Option<File>,
    /// None if the store only reads.
    pub(super) writer: Option<Connection>,
    pub(super) readers: Vec<Connection>,
}

/// What opening needs to know.
pub(super) struct Opening<'a> {
    pub(super) path: &'a Path,
    pub(super) place: &'a Arc<str>,
    pub(super) sealer: &'a Sealer,
    pub(super) now: Wall,
    pub(super) busy: Duration,
    pub(super) max_bytes: Option<u64>,
    pub(super) readers: usize,
}

impl Opening<'_> {
    /// For writing and reading, making the file and its directory as needed.
    pub(super) fn write(&self) -> Result<Opened, StoreError> {
        if let Some(directory) = self.path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            fs::create_dir_all(directory).map_err(|error| self.refused(&error))?;
        }
        let lock = create(&lock_path(self.path)).map_err(|error| self.refused(&error))?;
        share(&lock, self.place)?;
        create(self.path).map_err(|error| self.refused(&error))?;
        let mut db = Connection::open(self.path).map_err(|error| of_sqlite(&error, self.place))?;
        self.prepare_writer(&mut db).map_err(|fault| fault.into_store_error(self.place))?;
        let readers = (0..self.readers).map(|_| self.reader(false)).collect::<Result<_, _>>()?;
        Ok(Opened { lock: Some(lock), writer: Some(db), readers })
    }

    fn prepare_writer(&self, db: &mut Connection) -> Outcome<()> {
        db.busy_timeout(self.busy)?;
        db.set_prepared_statement_cache_capacity(192);
        // Before anything is written to a file that is not ours.
        migrate::head(db, self.place)?;
        db.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -4096;")?;
        let mode: String = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            let why = format!("its file system allows no write-ahead log (SQLite uses {mode:?})").into();
            return Err(StoreError::Unavailable { place: self.place.clone(), why }.into());
        }
        // FULL: a commit is on the disk before it is answered. The log is cut back after a burst.
        db.execute_batch("PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 16777216;")?;
        migrate::migrate(db, self.place, self.now)?;
        self.sound(db)?;
        if let Some(bytes) = self.max_bytes {
            let page: i64 = db.query_row("PRAGMA page_size", [], |row| row.get(0))?;
            let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
            db.pragma_update(None, "max_page_count", pages.max(1))?;
        }
        self.seal(db)
    }

    /// Without a writer: nothing is made, moved forward or sealed anew.
    pub(super) fn read(&self) -> Result<Opened, StoreError> {
        let lock = match File::open(lock_path(self.path)) {
            Ok(lock) => {
                share(&lock, self.place)?;
                Some(lock)
            }
            Err(_) => None,
        };
        let readers: Vec<_> = (0..self.readers).map(|_| self.reader(true)).collect::<Result<_, _>>()?;
        if let Some(db) = readers.first() {
            self.inspect(db).map_err(|fault| fault.into_store_error(self.place))?;
        }
        Ok(Opened { lock, writer: None, readers })
    }

    fn inspect(&self, db: &Connection) -> Outcome<()> {
        match migrate::head(db, self.place)? {
            Head::Ours(SCHEMA_VERSION) => {}
            // It needs a step that cannot be taken.
            Head::Ours(_) | Head::Blank => return Err(StoreError::ReadOnly { place: self.place.clone() }.into()),
        }
        self.sound(db)?;
        self.sealed_as_now(db).map(drop)
    }

    fn reader(&self, alone: bool) -> Result<Connection, StoreError> {
        connect_reader(self.path, self.place, self.busy, alone)
    }

    /// Damage is never repaired or set aside by itself: these are the facts that must not be lost.
    fn sound(&self, db: &Connection) -> Outcome<()> {
        let found: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            return Err(StoreError::Corrupt { place: self.place.clone(), why: found.into() }.into());
        }
        Ok(())
    }

    /// Notes at the first opening whether payloads are sealed, and holds every later one to it. The canary, sealed with
    /// the newest key, shows a missing key now and not at the first row.
    fn seal(&self, db: &mut Connection) -> Outcome<()> {
        let noted = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let sealing: &[u8] = if self.sealer.seals() { SEALED } else { PLAINTEXT };
        if !self.sealed_as_now(&noted)? {
            noted.execute("INSERT INTO meta VALUES ('sealing', ?1)", [sealing])?;
        } else if meta(&noted, "canary")?.as_deref().and_then(crate::seal::key_id) == self.sealer.key_id() {
            return Ok(());
        }
        noted.execute(
            "INSERT OR REPLACE INTO meta VALUES ('canary', ?1)",
            params![self.sealer.seal(CANARY, b"canary")],
        )?;
        noted.commit()?;
        Ok(())
    }

    /// False if nothing is noted yet.
    fn sealed_as_now(&self, db: &Connection) -> Outcome<bool> {
        let place = || self.place.clone();
        match (meta(db, "sealing")?.as_deref(), self.sealer.seals()) {
            (None, _) => return Ok(false),
            (Some(PLAINTEXT), true) => return Err(StoreError::NotSealed { place: place() }.into()),
            (Some(SEALED), false) => {
                return Err(
                    StoreError::KeyMissing { place: place(), key: sealed_with(meta(db, "canary")?).into() }.into()
                );
            }
            (Some(SEALED | PLAINTEXT), _) => {}
            (Some(_), _) => {
                let why = "it does not say whether payloads are sealed".into();
                return Err(StoreError::Corrupt { place: place(), why }.into());
            }
        }
        if let Some(canary) = meta(db, "canary")? {
            self.sealer.open(self.place, CANARY, canary)?;
        }
        Ok(true)
    }

    /// What the system says of a file or a directory.
    fn refused(&self, error: &io::Error) -> StoreError {
        refused(error, self.place)
    }
}

const SEALED: &[u8] = b"sealed";
const PLAINTEXT: &[u8] = b"plaintext";
const CANARY: Owner<'static> = Owner { table: "meta", tenant: "", id: "canary", column: "value" };

fn meta(db: &Connection, name: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    db.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0)).optional()
}

/// The key that a canary was sealed with.
fn sealed_with(canary: Option<Vec<u8>>) -> String {
    let id = canary.as_deref().and_then(crate::seal::key_id);
    id.unwrap_or_else(|| "unknown".into())
}

/// A connection that cannot write. `alone`: no writer of ours is beside it.
pub(super) fn connect_reader(
    path: &Path,
    place: &Arc<str>,
    busy: Duration,
    alone: bool,
) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connect = |query: &str| -> rusqlite::Result<Connection> {
        let db = Connection::open_with_flags(uri(path, query), flags)?;
        db.busy_timeout(busy)?;
        db.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -1024; PRAGMA temp_store = MEMORY;")?;
        db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?;
        Ok(db)
    };
    let db = match connect("mode=ro") {
        // Where neither the log's index can be made nor a log is left, nobody writes and the file stands alone.
        Err(_) if alone && !log_path(path).exists() => connect("mode=ro&immutable=1"),
        other => other,
    };
    db.map_err(|error| of_sqlite(&error, place))
}

/// What the system says of a file or a directory, in the store's words.
pub(super) fn refused(error: &io::Error, place: &Arc<str>) -> StoreError {
    let place = place.clone();
    let is = |kinds: &[io::ErrorKind]| kinds.contains(&error.kind());
    if is(&[io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem]) {
        StoreError::ReadOnly { place }
    } else if is(&[io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded]) {
        StoreError::Full { place }
    } else {
        StoreError::Unavailable { place, why: error.to_string().into() }
    }
}

/// Makes the file for its owner alone, unless it is there; either way it must be writable. SQLite gives its log and
/// the log's index the same permissions.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(OWNER_ONLY).open(path)
}

fn share(lock: &File, place: &Arc<str>) -> Result<(), StoreError> {
    match lock.try_lock_shared() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(StoreError::Busy { place: place.clone() }),
        Err(TryLockError::Error(error)) => Err(refused(&error, place)),
    }
}

/// The file whose lock tells that the store is open. A lock on the database itself would disturb SQLite's own: closing
/// any handle of a file drops a process's POSIX locks on it.
pub(super) fn lock_path(path: &Path) -> PathBuf {
    beside(path, "-lock")
}

/// SQLite's write-ahead log.
pub(super) fn log_path(path: &Path) -> PathBuf {
    beside(path, "-wal")
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// The path as SQLite's URI: all but plain characters escaped.
pub(super) fn uri(path: &Path, query: &str) -> String {
    use std::{fmt::Write, os::unix::ffi::OsStrExt};
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let mut uri = String::from("file:");
    for byte in absolute.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => uri.push(char::from(*byte)),
            _ => {
                // Writing to a string cannot fail.
                let _ = write!(uri, "%{byte:02X}");
            }
        }
    }
    uri.push('?');
    uri.push_str(query);
    uri
}
