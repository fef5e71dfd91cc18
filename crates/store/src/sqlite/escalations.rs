//! Escalations.

use super::{
    cx::{Cx, Kind},
    fault::{Fault, Outcome},
};
use crate::{
    Cursor, DecideEscalation, Decided, Decision, Escalation, EscalationFilter, EscalationPage, EscalationState,
    EscalationSummary, OpenEscalation, Opened, Origin, Page, Parking, Payload, StoreError, seal::Owner,
};
use outlast_model::{
    Failure, RequestId, RouteId, TenantId, Wall,
    run::{EscalationKind, Verb},
};
use rusqlite::{OptionalExtension, Row as SqlRow, params};
use std::sync::Arc;

/// A row; its payload and decision are fetched apart.
struct Row {
    sequence: i64,
    id: String,
    tenant: String,
    route: String,
    request_id: String,
    failure: String,
    opened_at: i64,
    decided_at: Option<i64>,
    decided_by: Option<String>,
    question: Vec<u8>,
}

impl Row {
    const COLUMNS: &str =
        "sequence, id, tenant, route, request_id, failure, opened_at, decided_at, decided_by, question";

    fn read(row: &SqlRow<'_>) -> rusqlite::Result<Self> {
        Ok(Row {
            sequence: row.get(0)?,
            id: row.get(1)?,
            tenant: row.get(2)?,
            route: row.get(3)?,
            request_id: row.get(4)?,
            failure: row.get(5)?,
            opened_at: row.get(6)?,
            decided_at: row.get(7)?,
            decided_by: row.get(8)?,
            question: row.get(9)?,
        })
    }

    fn owner(&self, column: &'static str) -> Owner<'_> {
        owner(&self.tenant, &self.id, column)
    }

    fn summary(self, cx: Cx<'_>) -> Outcome<EscalationSummary> {
        let damaged = |what: &str| {
            let why = format!("the {what} of an escalation cannot be read").into();
            Fault::Store(StoreError::Corrupt { place: cx.place.clone(), why })
        };
        let question = cx.open(self.owner("question"), Some(self.question.clone()))?;
        let question = std::str::from_utf8(question.as_bytes()).map_err(|_| damaged("question"))?;
        let failure: Failure = serde_json::from_str(&self.failure).map_err(|_| damaged("failure"))?;
        Ok(EscalationSummary {
            question: question.into(),
            origin: Origin::Call {
                route: RouteId::new(self.route),
                request_id: RequestId::new(self.request_id),
                failure,
            },
            id: self.id.into(),
            tenant: TenantId::new(self.tenant),
            kind: EscalationKind::Call,
            shown: [0; 32],
            level: None,
            opened_at: Wall(self.opened_at),
            answer_by: None,
            decided: self.decided_at.map(|at| (Wall(at), Verb::Edit)),
        })
    }

    fn decision(&self, cx: Cx<'_>) -> Outcome<Option<Decision>> {
        let Some(at) = self.decided_at else { return Ok(None) };
        let mut find = cx.db.prepare_cached("SELECT decision FROM escalations WHERE sequence = ?1")?;
        let stored = find.query_row([self.sequence], |row| row.get(0))?;
        let decision = cx.open(self.owner("decision"), stored)?;
        let by = self.decided_by.as_deref().unwrap_or_default().into();
        Ok(Some(Decision { by, at: Wall(at), verb: Verb::Edit, decision }))
    }
}

fn owner<'a>(tenant: &'a str, id: &'a str, column: &'static str) -> Owner<'a> {
    Owner { table: "escalations", tenant, id, column }
}

/// The row, if it is still kept.
fn find(cx: Cx<'_>, id: &str) -> Outcome<Option<Row>> {
    let sql = format!("SELECT {} FROM escalations WHERE id = ?1", Row::COLUMNS);
    let row = cx.db.prepare_cached(&sql)?.query_row([id], Row::read).optional()?;
    let gone_since = cx.before(cx.limits.decided_keep);
    Ok(row.filter(|row| row.decided_at.is_none_or(|at| at > gone_since)))
}

pub(super) fn open(cx: Cx<'_>, command: &OpenEscalation) -> Outcome<Opened> {
    let OpenEscalation { id, tenant, route, request_id, failure, question, payload, answer_within: _ } = command;
    cx.fits(payload.len())?;
    cx.fits(question.len())?;
    if let Some(row) = find(cx, id)? {
        if row.tenant != tenant.as_str() {
            return Err(StoreError::Taken { what: "escalation" }.into());
        }
        return Ok(Opened { first: false });
    }
    let bytes = question.len() + payload.len();
    if cx.over(Kind::Escalations, tenant.as_str(), bytes)?.is_some() {
        purge(cx, &mut u32::MAX.clone())?;
    }
    if let Some(of_tenant) = cx.over(Kind::Escalations, tenant.as_str(), bytes)? {
        return Err(Kind::Escalations.too_many(of_tenant).into());
    }
    cx.db.prepare_cached("DELETE FROM escalations WHERE id = ?1")?.execute([id])?;
    let seal = |column, payload: &[u8]| cx.sealer.seal(owner(tenant.as_str(), id, column), payload);
    cx.db
        .prepare_cached(
            "INSERT INTO escalations (id, tenant, route, request_id, failure, opened_at, bytes, question, payload)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            id,
            tenant.as_str(),
            route.as_str(),
            request_id.as_str(),
            serde_json::to_string(failure).unwrap_or_default(),
            cx.now.0,
            bytes as i64,
            seal("question", question.as_bytes()),
            seal("payload", payload.as_bytes()),
        ])?;
    Ok(Opened { first: true })
}

pub(super) fn list(cx: Cx<'_>, filter: &EscalationFilter, page: Page) -> Outcome<EscalationPage> {
    let size = page.size.clamp(1, Page::LARGEST);
    let before = page.after.map_or(i64::MAX, |Cursor(after)| after);
    let gone_since = cx.before(cx.limits.decided_keep);
    let mut sql = format!("SELECT {} FROM escalations WHERE sequence < ?1", Row::COLUMNS);
    sql.push_str(if filter.open_only { " AND decided_at IS NULL" } else { " AND coalesce(decided_at > ?2, 1)" });
    if filter.tenant.is_some() {
        sql.push_str(" AND tenant = ?3");
    }
    sql.push_str(" ORDER BY sequence DESC LIMIT ?4");
    let tenant = filter.tenant.as_ref().map(TenantId::as_str);
    // Every parameter is bound, also where the list does not ask for it.
    let rows: Vec<Row> = cx
        .db
        .prepare_cached(&format!("WITH unused AS (SELECT ?2, ?3) {sql}"))?
        .query_map(params![before, gone_since, tenant, size + 1], Row::read)?
        .collect::<rusqlite::Result<_>>()?;
    let more = rows.len() > size as usize;
    let rows: Vec<Row> = rows.into_iter().take(size as usize).collect();
    let next = rows.last().filter(|_| more).map(|row| Cursor(row.sequence));
    let escalations = rows.into_iter().map(|row| row.summary(cx)).collect::<Outcome<_>>()?;
    Ok(EscalationPage { escalations, next })
}

pub(super) fn get(cx: Cx<'_>, id: &str) -> Outcome<Option<Escalation>> {
    let Some(row) = find(cx, id)? else { return Ok(None) };
    let mut stored = cx.db.prepare_cached("SELECT payload FROM escalations WHERE sequence = ?1")?;
    let stored = stored.query_row([row.sequence], |row| row.get(0))?;
    let payload = cx.open(row.owner("payload"), stored)?;
    let state = row.decision(cx)?.map_or(EscalationState::Open, EscalationState::Decided);
    Ok(Some(Escalation { summary: row.summary(cx)?, fingerprint: [0; 32], attempts: 0, payload, state }))
}

pub(super) fn decide(cx: Cx<'_>, command: &DecideEscalation) -> Outcome<Decided> {
    let DecideEscalation { id, by, decision, .. } = command;
    cx.fits(decision.len())?;
    let Some(row) = find(cx, id)? else { return Ok(Decided::Unknown) };
    if let Some(first) = row.decision(cx)? {
        let repeated = first.by == *by && first.decision == *decision;
        return Ok(if repeated { Decided::Stands } else { Decided::Already(first) });
    }
    let sealed = cx.sealer.seal(row.owner("decision"), decision.as_bytes());
    cx.db
        .prepare_cached(
            "UPDATE escalations SET decided_at = ?1, decided_by = ?2, decision = ?3, bytes = bytes + ?4
             WHERE sequence = ?5",
        )?
        .execute(params![cx.now.0, &**by, sealed, decision.len() as i64, row.sequence])?;
    Ok(Decided::Stands)
}

pub(super) fn purge(cx: Cx<'_>, left: &mut u32) -> Outcome<()> {
    let gone = cx
        .db
        .prepare_cached(
            "DELETE FROM escalations WHERE sequence IN (SELECT sequence FROM escalations
             WHERE decided_at IS NOT NULL AND decided_at <= ?1 ORDER BY decided_at, sequence LIMIT ?2)",
        )?
        .execute(params![cx.before(cx.limits.decided_keep), *left])?;
    *left -= gone as u32;
    Ok(())
}

pub(super) fn open_count(cx: Cx<'_>) -> Outcome<u64> {
    let mut count = cx.db.prepare_cached("SELECT count(*) FROM escalations WHERE decided_at IS NULL")?;
    Ok(count.query_row([], |row| row.get::<_, i64>(0))?.unsigned_abs())
}

/// Opens the escalation of what comes to wait for a person, in the transaction that parks it.
pub(super) fn open_parked(_: Cx<'_>, _: &Parking<'_>) -> Outcome<Arc<str>> {
    Err(StoreError::Unsupported { what: "park yet" }.into())
}

/// Writes down the decision of an open escalation: the log has it, and those who were told hear of it. In the
/// transaction that lets what waits go on, or that ends it.
pub(super) fn close(_: Cx<'_>, _id: &str, _by: &str, _: Verb, _decision: &Payload) -> Outcome<()> {
    Err(StoreError::Unsupported { what: "close yet" }.into())
}
