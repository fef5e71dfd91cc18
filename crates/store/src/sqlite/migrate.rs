//! The schema's versions. Forward only, one transaction each, every step checked against what this build knows.

use crate::StoreError;
use outlast_model::Wall;
use rusqlite::{Connection, OptionalExtension, params};
use std::sync::Arc;

use super::fault::{Fault, Outcome};

/// "OutS": marks the file as ours.
pub(super) const APPLICATION_ID: i64 = 0x4f75_7453;

/// Every version's statements, the first version first. A released one is never edited: its checksum stands in files.
const STEPS: &[&str] =
    &[include_str!("migrations/0001.sql"), include_str!("migrations/0002.sql"), include_str!("migrations/0003.sql")];

/// The version this build writes. A file with a higher one is refused.
pub const SCHEMA_VERSION: i64 = STEPS.len() as i64;

const LEDGER: &str =
    "CREATE TABLE migrations (version INTEGER PRIMARY KEY, checksum TEXT NOT NULL, applied_at INTEGER NOT
    NULL) STRICT;";

/// What a look at a file's head says about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Nothing in it yet.
    Blank,
    /// Ours, of this version or an older one.
    Ours(i64),
}

/// Reads the marks of an open database and holds its steps against this build's.
///
/// # Errors
/// [`StoreError::Foreign`], [`StoreError::TooNew`], [`StoreError::Corrupt`] of steps that are not what they were.
pub(super) fn head(db: &Connection, place: &Arc<str>) -> Outcome<Head> {
    head_of(db, place, STEPS)
}

fn head_of(db: &Connection, place: &Arc<str>, steps: &[&str]) -> Outcome<Head> {
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let application: i64 = db.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if tables == 0 && matches!(application, 0 | APPLICATION_ID) {
        return Ok(Head::Blank);
    }
    if application != APPLICATION_ID {
        return Err(Fault::Store(StoreError::Foreign { place: place.clone() }));
    }
    let found: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let known = steps.len() as i64;
    if found > known {
        return Err(Fault::Store(StoreError::TooNew { place: place.clone(), found, known }));
    }
    for (version, step) in (1..=found).zip(steps) {
        let stored: Option<String> = db
            .query_row("SELECT checksum FROM migrations WHERE version = ?1", [version], |row| row.get(0))
            .optional()?;
        if stored.as_deref() != Some(&checksum(step)) {
            let why = format!("step {version} of its schema is not the one this build knows").into();
            return Err(Fault::Store(StoreError::Corrupt { place: place.clone(), why }));
        }
    }
    Ok(Head::Ours(found))
}

/// Takes the file to this build's version. Another process may be doing the same: whoever has the write lock looks
/// again at what is left to do.
pub(super) fn migrate(db: &mut Connection, place: &Arc<str>, now: Wall) -> Outcome<()> {
    migrate_by(db, place, now, STEPS)
}

fn migrate_by(db: &mut Connection, place: &Arc<str>, now: Wall, steps: &[&str]) -> Outcome<()> {
    loop {
        let step = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let done = match head_of(&step, place, steps)? {
            Head::Blank => {
                step.execute_batch(LEDGER)?;
                step.pragma_update(None, "application_id", APPLICATION_ID)?;
                0
            }
            Head::Ours(version) => version,
        };
        let Some(sql) = usize::try_from(done).ok().and_then(|done| steps.get(done)) else {
            return Ok(());
        };
        step.execute_batch(sql)?;
        step.execute("INSERT INTO migrations VALUES (?1, ?2, ?3)", params![done + 1, checksum(sql), now.0])?;
        step.pragma_update(None, "user_version", done + 1)?;
        step.commit()?;
    }
}

fn checksum(sql: &str) -> String {
    blake3::hash(sql.as_bytes()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "CREATE TABLE a (x INTEGER); INSERT INTO a VALUES (1);";
    const SECOND: &str = "ALTER TABLE a ADD COLUMN y INTEGER DEFAULT 2;";

    fn place() -> Arc<str> {
        "store.db".into()
    }

    fn made_with(steps: &[&str]) -> Connection {
        let mut db = Connection::open_in_memory().unwrap();
        migrate_by(&mut db, &place(), Wall(7), steps).unwrap();
        db
    }

    fn refusal(outcome: Outcome<()>) -> StoreError {
        outcome.unwrap_err().into_store_error(&place())
    }

    #[test]
    fn an_older_file_is_taken_forward_and_keeps_its_rows() {
        let mut db = made_with(&[FIRST]);
        migrate_by(&mut db, &place(), Wall(8), &[FIRST, SECOND]).unwrap();
        let row: (i64, i64) = db.query_row("SELECT x, y FROM a", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(row, (1, 2));
        assert_eq!(head_of(&db, &place(), &[FIRST, SECOND]).unwrap(), Head::Ours(2));
        migrate_by(&mut db, &place(), Wall(9), &[FIRST, SECOND]).unwrap();
    }

    #[test]
    fn a_newer_file_is_refused() {
        let mut db = made_with(&[FIRST, SECOND]);
        let error = refusal(migrate_by(&mut db, &place(), Wall(8), &[FIRST]));
        assert_eq!(error, StoreError::TooNew { place: place(), found: 2, known: 1 });
    }

    #[test]
    fn a_step_that_was_edited_is_refused() {
        let mut db = made_with(&[FIRST]);
        let error = refusal(migrate_by(&mut db, &place(), Wall(8), &[SECOND]));
        assert!(error.to_string().contains("step 1 of its schema"), "{error}");
    }

    #[test]
    fn a_step_that_fails_leaves_the_version_before() {
        let mut db = made_with(&[FIRST]);
        let broken = "CREATE TABLE b (x INTEGER); CREATE TABLE a (x INTEGER);";
        assert!(migrate_by(&mut db, &place(), Wall(8), &[FIRST, broken]).is_err());
        assert_eq!(head_of(&db, &place(), &[FIRST]).unwrap(), Head::Ours(1));
        let b: i64 = db.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'b'", [], |row| row.get(0)).unwrap();
        assert_eq!(b, 0);
    }

    #[test]
    fn another_programs_file_is_refused() {
        let mut db = Connection::open_in_memory().unwrap();
        db.execute_batch("CREATE TABLE theirs (x INTEGER)").unwrap();
        let error = refusal(migrate_by(&mut db, &place(), Wall(8), STEPS));
        assert_eq!(error, StoreError::Foreign { place: place() });
    }
}
