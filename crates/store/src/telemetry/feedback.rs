//! What callers thought of their calls.

use outlast_model::{RequestId, RouteId, TargetId, Wall};
use rusqlite::{OptionalExtension, Row, Transaction, params};

/// A caller's rating of one call.
#[derive(Clone, Debug, PartialEq)]
pub struct Feedback {
    /// The rated call.
    pub request_id: RequestId,
    /// A hash of the caller's key; empty where callers have none.
    pub tenant_hash: Box<str>,
    /// When it was rated.
    pub time: Wall,
    /// The call's route.
    pub route: RouteId,
    /// Which target answered, if one did.
    pub target: Option<TargetId>,
    /// 0 is as bad and 1 as good as can be.
    pub score: f64,
    /// The caller's words, sealed by whoever hands them over: no payload stands in this file in the clear.
    pub comment: Option<Vec<u8>>,
}

pub(super) fn insert(batch: &Transaction<'_>, rating: &Feedback) -> rusqlite::Result<()> {
    batch
        .prepare_cached("INSERT OR REPLACE INTO feedback VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![
            rating.request_id.as_str(),
            &*rating.tenant_hash,
            rating.time.0,
            rating.route.as_str(),
            rating.target.as_ref().map(|target| target.as_str()),
            rating.score,
            rating.comment,
        ])
        .map(drop)
}

pub(super) fn of_call(db: &rusqlite::Connection, request_id: &str, tenant: &str) -> rusqlite::Result<Option<Feedback>> {
    db.prepare_cached("SELECT * FROM feedback WHERE request_id = ?1 AND tenant_hash = ?2")?
        .query_row([request_id, tenant], read)
        .optional()
}

fn read(row: &Row<'_>) -> rusqlite::Result<Feedback> {
    Ok(Feedback {
        request_id: row.get::<_, String>(0)?.as_str().into(),
        tenant_hash: row.get::<_, String>(1)?.into(),
        time: Wall(row.get(2)?),
        route: row.get::<_, String>(3)?.as_str().into(),
        target: row.get::<_, Option<String>>(4)?.map(TargetId::new),
        score: row.get(5)?,
        comment: row.get(6)?,
    })
}
