//! The audit log.

use super::{cx::Cx, fault::Outcome};
use crate::{AuditEntry, AuditFilter, AuditPage, AuditVerified, Audited, Cursor, Page, StoreError};
use outlast_model::{TenantId, Wall};
use rusqlite::{OptionalExtension, Row as SqlRow, params};

const COLUMNS: &str = "number, at, who, what, subject, tenant, details, hash";

/// Adds an entry, in the transaction that does what it tells of.
pub(super) fn append(cx: Cx<'_>, entry: &AuditEntry) -> Outcome<()> {
    entry.fits()?;
    let mut last = cx.db.prepare_cached("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1")?;
    let last: Option<(i64, [u8; 32])> = last.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let (number, before) = last.map_or((1, [0; 32]), |(number, hash)| (number + 1, hash));
    // None is ever removed: its number says how many there are.
    if number.unsigned_abs() > cx.limits.audit {
        return Err(StoreError::LimitReached { what: "audit entries", of_tenant: false }.into());
    }
    let hash = Audited::chained(&before, number, cx.now, entry);
    let AuditEntry { who, what, subject, tenant, details } = entry;
    cx.db
        .prepare_cached(&format!("INSERT INTO audit ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"))?
        .execute(params![number, cx.now.0, who, what, subject, tenant.as_str(), details, hash])?;
    Ok(())
}

fn read(row: &SqlRow<'_>) -> rusqlite::Result<Audited> {
    let text = |column: usize| row.get::<_, String>(column);
    Ok(Audited {
        number: row.get(0)?,
        at: Wall(row.get(1)?),
        entry: AuditEntry {
            who: text(2)?.into(),
            what: text(3)?.into(),
            subject: text(4)?.into(),
            tenant: TenantId::new(text(5)?),
            details: text(6)?.into(),
        },
        hash: row.get(7)?,
    })
}

pub(super) fn list(cx: Cx<'_>, filter: &AuditFilter, page: Page) -> Outcome<AuditPage> {
    let size = page.size.clamp(1, Page::LARGEST);
    let before = page.after.map_or(i64::MAX, |Cursor(after)| after);
    let mut sql = format!("WITH unused AS (SELECT ?2, ?3) SELECT {COLUMNS} FROM audit WHERE number < ?1");
    if filter.who.is_some() {
        sql.push_str(" AND who = ?2");
    }
    if filter.subject.is_some() {
        sql.push_str(" AND subject = ?3");
    }
    sql.push_str(" ORDER BY number DESC LIMIT ?4");
    let mut entries: Vec<Audited> = cx
        .db
        .prepare_cached(&sql)?
        .query_map(params![before, filter.who, filter.subject, size + 1], read)?
        .collect::<rusqlite::Result<_>>()?;
    let more = entries.len() > size as usize;
    entries.truncate(size as usize);
    let next = entries.last().filter(|_| more).map(|last| Cursor(last.number));
    Ok(AuditPage { entries, next })
}

pub(super) fn verify(cx: Cx<'_>) -> Outcome<AuditVerified> {
    let mut verified = AuditVerified::default();
    let mut rows = cx.db.prepare(&format!("SELECT {COLUMNS} FROM audit ORDER BY number"))?;
    for row in rows.query_map([], read)? {
        let number = verified.entries as i64 + 1;
        // What cannot be read is not what was written either.
        let Ok(Audited { number: found, at, entry, hash }) = row else {
            verified.broken = Some((number, "it cannot be read".into()));
            return Ok(verified);
        };
        if found != number {
            verified.broken = Some((number, "it is missing".into()));
            return Ok(verified);
        }
        if Audited::chained(&verified.head, number, at, &entry) != hash {
            verified.broken = Some((number, "it is not what was written".into()));
            return Ok(verified);
        }
        verified.entries += 1;
        verified.head = hash;
    }
    let mut given = cx.db.prepare("SELECT seq FROM sqlite_sequence WHERE name = 'audit'")?;
    let given: i64 = given.query_row([], |row| row.get(0)).optional()?.unwrap_or(0);
    if given > verified.entries as i64 {
        verified.broken = Some((verified.entries as i64 + 1, "it is missing".into()));
    }
    Ok(verified)
}
