//! Copies of the file: made while it is in use, checked before they count, put back only in place of a closed one.

use super::{
    fault::{Fault, Outcome},
    migrate::{self, Head},
    open::{self, OWNER_ONLY, beside, lock_path, log_path, refused, uri},
};
use crate::{BackedUp, StoreError};
use rusqlite::{Connection, OpenFlags, backup::Backup};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Copies what `source` sees into a new file, checks the copy, and gives it its name only then.
pub(super) fn back_up(source: &Connection, path: &Path) -> Result<BackedUp, StoreError> {
    let place: Arc<str> = path.display().to_string().into();
    if path.exists() {
        return Err(StoreError::Taken { what: "file" });
    }
    let part = beside(path, ".part");
    let made = copy(source, &part, &place, |_| Ok(())).and_then(|()| put(&part, path, &place));
    if let Err(error) = made {
        // What is half made is of no use to anybody.
        let _ = fs::remove_file(&part);
        return Err(error);
    }
    let bytes = fs::metadata(path).map_err(|error| refused(&error, &place))?.len();
    Ok(BackedUp { path: path.into(), bytes })
}

/// A store was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Where the file that was there before is now, if there was one.
    pub set_aside: Option<PathBuf>,
}

/// The epochs of a restored store go on so far after those of the backup that no claim made since has one of them.
const EPOCHS_SINCE: i64 = 1 << 40;

/// Verifies a backup and puts it in place of a closed store. The file that was there is set aside, not deleted.
/// What was committed since the backup is not in the restored store.
///
/// # Errors
/// [`StoreError::Busy`] if any process has the store open; [`StoreError::Corrupt`], [`StoreError::Foreign`] or
/// [`StoreError::TooNew`] of the backup, before anything was touched.
pub fn restore(backup: &Path, store: &Path) -> Result<Restored, StoreError> {
    let place: Arc<str> = store.display().to_string().into();
    let source = verified(backup)?;
    if let Some(directory) = store.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::create_dir_all(directory).map_err(|error| refused(&error, &place))?;
    }
    let lock = open::create(&lock_path(store)).map_err(|error| refused(&error, &place))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::Busy { place }),
        Err(TryLockError::Error(error)) => return Err(refused(&error, &place)),
    }
    let part = beside(store, ".restoring");
    let restored = copy(&source, &part, &place, |db| {
        db.execute("UPDATE epochs SET last = last + ?1", [EPOCHS_SINCE])?;
        Ok(())
    })
    .and_then(|()| replace(&part, store, &place));
    if restored.is_err() {
        let _ = fs::remove_file(&part);
    }
    restored
}

fn verified(backup: &Path) -> Result<Connection, StoreError> {
    let place: Arc<str> = backup.display().to_string().into();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let check = || -> Outcome<Connection> {
        let db = Connection::open_with_flags(uri(backup, "mode=ro"), flags)?;
        match migrate::head(&db, &place)? {
            Head::Ours(_) => {}
            Head::Blank => return Err(StoreError::Foreign { place: place.clone() }.into()),
        }
        whole(&db, &place)?;
        Ok(db)
    };
    check().map_err(|fault| fault.into_store_error(&place))
}

fn whole(db: &Connection, place: &Arc<str>) -> Outcome<()> {
    let found: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(StoreError::Corrupt { place: place.clone(), why: found.into() }.into());
    }
    Ok(())
}

/// Copies a database into a new file for its owner alone, applies `change`, checks it and brings it to the disk.
fn copy(
    source: &Connection,
    target: &Path,
    place: &Arc<str>,
    change: impl FnOnce(&Connection) -> Outcome<()>,
) -> Result<(), StoreError> {
    // A rest of an earlier attempt that was cut short.
    match fs::remove_file(target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(&error, place)),
        Ok(()) | Err(_) => {}
    }
    let made = OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(target);
    let file = made.map_err(|error| refused(&error, place))?;
    let fill = || -> Outcome<()> {
        let mut db = Connection::open(target)?;
        // All pages in one read transaction: the writer goes on beside it, and the copy is of one instant.
        Backup::new(source, &mut db)?.step(-1)?;
        // A single file, which can be read from anywhere.
        db.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get::<_, String>(0))?;
        change(&db)?;
        whole(&db, place)?;
        db.close().map_err(|(_, error)| Fault::Sql(error))
    };
    fill().map_err(|fault| fault.into_store_error(place))?;
    file.sync_all().map_err(|error| refused(&error, place))
}

fn put(part: &Path, path: &Path, place: &Arc<str>) -> Result<(), StoreError> {
    fs::rename(part, path).and_then(|()| sync_directory(path)).map_err(|error| refused(&error, place))
}

/// The old file keeps its name until the new one takes it in one step, so that a crash leaves the one or the other.
fn replace(part: &Path, store: &Path, place: &Arc<str>) -> Result<Restored, StoreError> {
    let swap = || -> io::Result<Option<PathBuf>> {
        let set_aside = if store.exists() { Some(set_aside(store)?) } else { None };
        // A log of the old file must never meet the new one. Its copy lies aside.
        for rest in [log_path(store), beside(store, "-shm")] {
            match fs::remove_file(rest) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        fs::rename(part, store)?;
        sync_directory(store)?;
        Ok(set_aside)
    };
    let set_aside = swap().map_err(|error| refused(&error, place))?;
    Ok(Restored { set_aside })
}

/// Gives the file, and its log, a second name under the first free number.
fn set_aside(store: &Path) -> io::Result<PathBuf> {
    let free = (1..).map(|number: u32| beside(store, &format!(".before-restore-{number}"))).find(|name| !name.exists());
    let name = free.unwrap_or_else(|| beside(store, ".before-restore"));
    for (from, to) in [(store.to_path_buf(), name.clone()), (log_path(store), log_path(&name))] {
        if from.exists() && fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to)?;
        }
    }
    Ok(name)
}

/// A new name lasts only once its directory is on the disk.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}
