//! Escalations.

use super::{
    audit,
    cx::{Cx, Kind},
    fault::{Fault, Outcome},
    notices,
};
use crate::{
    Cursor, DecideEscalation, Decided, Decision, DueEscalation, DueEscalations, Escalation, EscalationFilter,
    EscalationMoved, EscalationPage, EscalationState, EscalationSummary, Fenced, IfParked, OpenEscalation, Opened,
    Origin, Page, Parking, Payload, StoreError, command::escalations::audited, seal::Owner,
};
use outlast_engine::run::{escalate, resolve};
use outlast_model::{
    Failure, RequestId, RouteId, RunId, TenantId, Wall,
    run::{EscalationKind, Verb},
};
use rusqlite::{OptionalExtension, Row as SqlRow, params};
use std::sync::Arc;

/// At most so many are given at once.
const AT_ONCE: u32 = 100;

/// A row; its payload and decision are fetched apart.
struct Row {
    sequence: i64,
    id: String,
    tenant: String,
    kind: String,
    /// Route, request and failure.
    call: [Option<String>; 3],
    /// Run, step, scope and key.
    work: [Option<String>; 4],
    fingerprint: [u8; 32],
    attempts: u32,
    shown: [u8; 32],
    opened_at: i64,
    answer_by: Option<i64>,
    level: Option<u32>,
    decided_at: Option<i64>,
    decided_by: Option<String>,
    verb: Option<String>,
    question: Vec<u8>,
}

impl Row {
    const COLUMNS: &str = "sequence, id, tenant, kind, route, request_id, failure, run, step, scope, key, fingerprint, \
                           attempts, shown, opened_at, answer_by, level, decided_at, decided_by, verb, question";

    fn read(row: &SqlRow<'_>) -> rusqlite::Result<Self> {
        Ok(Row {
            sequence: row.get(0)?,
            id: row.get(1)?,
            tenant: row.get(2)?,
            kind: row.get(3)?,
            call: [row.get(4)?, row.get(5)?, row.get(6)?],
            work: [row.get(7)?, row.get(8)?, row.get(9)?, row.get(10)?],
            fingerprint: row.get(11)?,
            attempts: row.get(12)?,
            shown: row.get(13)?,
            opened_at: row.get(14)?,
            answer_by: row.get(15)?,
            level: row.get(16)?,
            decided_at: row.get(17)?,
            decided_by: row.get(18)?,
            verb: row.get(19)?,
            question: row.get(20)?,
        })
    }

    fn owner(&self, column: &'static str) -> Owner<'_> {
        owner(&self.tenant, &self.id, column)
    }

    fn summary(&self, cx: Cx<'_>) -> Outcome<EscalationSummary> {
        let question = cx.open(self.owner("question"), Some(self.question.clone()))?;
        let question = std::str::from_utf8(question.as_bytes()).map_err(|_| damaged(cx, "question"))?;
        let decided = match (self.decided_at, self.verb(cx)?) {
            (Some(at), Some(verb)) => Some((Wall(at), verb)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(damaged(cx, "decision")),
        };
        Ok(EscalationSummary {
            question: question.into(),
            id: self.id.as_str().into(),
            tenant: TenantId::new(self.tenant.as_str()),
            kind: kind(&self.kind).ok_or_else(|| damaged(cx, "kind"))?,
            origin: self.origin(cx)?,
            shown: self.shown,
            level: self.level,
            opened_at: Wall(self.opened_at),
            answer_by: self.answer_by.map(Wall),
            decided,
        })
    }

    fn origin(&self, cx: Cx<'_>) -> Outcome<Origin> {
        let arc = |text: &Option<String>| text.as_deref().map(Arc::from);
        let [run, step, scope, key] = &self.work;
        let [Some(route), Some(request), Some(failure)] = &self.call else {
            let effect = arc(scope).zip(arc(key));
            return Ok(Origin::Work { run: run.as_deref().map(RunId::new), step: arc(step), effect });
        };
        let failure: Failure = serde_json::from_str(failure).map_err(|_| damaged(cx, "failure"))?;
        Ok(Origin::Call { route: RouteId::new(route.as_str()), request_id: RequestId::new(request.as_str()), failure })
    }

    fn verb(&self, cx: Cx<'_>) -> Outcome<Option<Verb>> {
        let find = |name: &str| Verb::ALL.into_iter().find(|verb| verb.name() == name);
        self.verb.as_deref().map(|name| find(name).ok_or_else(|| damaged(cx, "verb"))).transpose()
    }

    fn decision(&self, cx: Cx<'_>) -> Outcome<Option<Decision>> {
        let (Some(at), Some(verb)) = (self.decided_at, self.verb(cx)?) else { return Ok(None) };
        let mut find = cx.db.prepare_cached("SELECT decision FROM escalations WHERE sequence = ?1")?;
        let stored = find.query_row([self.sequence], |row| row.get(0))?;
        let decision = cx.open(self.owner("decision"), stored)?;
        let by = self.decided_by.as_deref().unwrap_or_default().into();
        Ok(Some(Decision { by, at: Wall(at), verb, decision }))
    }
}

fn damaged(cx: Cx<'_>, what: &str) -> Fault {
    let why = format!("the {what} of an escalation cannot be read").into();
    Fault::Store(StoreError::Corrupt { place: cx.place.clone(), why })
}

fn kind(name: &str) -> Option<EscalationKind> {
    EscalationKind::ALL.into_iter().find(|kind| kind.name() == name)
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
    let OpenEscalation { id, tenant, route, request_id, failure, question, payload, answer_within } = command;
    cx.fits(payload.len())?;
    cx.fits(question.len())?;
    if let Some(row) = find(cx, id)? {
        if row.tenant != tenant.as_str() {
            return Err(StoreError::Taken { what: "escalation" }.into());
        }
        return Ok(Opened { first: false });
    }
    let origin = Origin::Call { route: route.clone(), request_id: request_id.clone(), failure: *failure };
    let shown = command.shown();
    let opening = Opening {
        id,
        tenant,
        kind: EscalationKind::Call,
        origin: &origin,
        fingerprint: [0; 32],
        attempts: 0,
        shown,
        answer_by: answer_within.map(|within| cx.after(within)),
        question,
        payload,
    };
    opening.insert(cx)?;
    Ok(Opened { first: true })
}

/// Opens the escalation of what comes to wait for a person, in the transaction that parks it.
pub(super) fn open_parked(cx: Cx<'_>, parking: &Parking<'_>) -> Outcome<Arc<str>> {
    let IfParked { id, question, context, answer_within } = parking.asked;
    cx.fits(context.len())?;
    cx.fits(question.len())?;
    if find(cx, id)?.is_some() {
        return Err(StoreError::Taken { what: "escalation" }.into());
    }
    let opening = Opening {
        id,
        tenant: parking.tenant,
        kind: parking.kind,
        origin: &parking.origin(),
        fingerprint: parking.fingerprint,
        attempts: parking.attempts,
        shown: parking.shown(),
        answer_by: answer_within.map(|within| cx.after(within)),
        question,
        payload: context,
    };
    opening.insert(cx)?;
    Ok(id.clone())
}

/// A row to be.
struct Opening<'a> {
    id: &'a str,
    tenant: &'a TenantId,
    kind: EscalationKind,
    origin: &'a Origin,
    fingerprint: [u8; 32],
    attempts: u32,
    shown: [u8; 32],
    answer_by: Option<i64>,
    question: &'a str,
    payload: &'a Payload,
}

impl Opening<'_> {
    fn insert(self, cx: Cx<'_>) -> Outcome<()> {
        let tenant = self.tenant.as_str();
        let bytes = self.question.len() + self.payload.len();
        if cx.over(Kind::Escalations, tenant, bytes)?.is_some() {
            purge(cx, &mut u32::MAX.clone())?;
        }
        if let Some(of_tenant) = cx.over(Kind::Escalations, tenant, bytes)? {
            return Err(Kind::Escalations.too_many(of_tenant).into());
        }
        cx.db.prepare_cached("DELETE FROM escalations WHERE id = ?1")?.execute([self.id])?;
        let (call, work) = parts(self.origin);
        let ([route, request_id, failure], [run, step, scope, key]) = (call, work);
        let seal = |column, payload: &[u8]| cx.sealer.seal(owner(tenant, self.id, column), payload);
        cx.db
            .prepare_cached(
                "INSERT INTO escalations (id, tenant, kind, route, request_id, failure, run, step, scope, key,
                 fingerprint, attempts, shown, opened_at, answer_by, next_at, watch_epoch, watch_until, bytes, question,
                 payload)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?14, 0, 0, ?16, ?17, ?18)",
            )?
            .execute(params![
                self.id,
                tenant,
                self.kind.name(),
                route,
                request_id,
                failure,
                run,
                step,
                scope,
                key,
                self.fingerprint,
                self.attempts,
                self.shown,
                cx.now.0,
                self.answer_by,
                bytes as i64,
                seal("question", self.question.as_bytes()),
                seal("payload", self.payload.as_bytes()),
            ])?;
        Ok(())
    }
}

/// Route, request and failure of a request; run, step, scope and key of work.
fn parts(origin: &Origin) -> ([Option<String>; 3], [Option<&str>; 4]) {
    match origin {
        Origin::Call { route, request_id, failure } => {
            let failure = serde_json::to_string(failure).unwrap_or_default();
            ([Some(route.as_str().into()), Some(request_id.as_str().into()), Some(failure)], [None; 4])
        }
        Origin::Work { run, step, effect } => {
            let (scope, key) = effect.as_ref().map(|(scope, key)| (&**scope, &**key)).unzip();
            ([None, None, None], [run.as_ref().map(RunId::as_str), step.as_deref(), scope, key])
        }
    }
}

pub(super) fn list(cx: Cx<'_>, filter: &EscalationFilter, page: Page) -> Outcome<EscalationPage> {
    let EscalationFilter { tenant, open_only, kind, run, overdue_only } = filter;
    let size = page.size.clamp(1, Page::LARGEST);
    let before = page.after.map_or(i64::MAX, |Cursor(after)| after);
    let gone_since = cx.before(cx.limits.decided_keep);
    let mut sql = format!("SELECT {} FROM escalations WHERE sequence < ?1", Row::COLUMNS);
    let open_only = *open_only || *overdue_only;
    sql.push_str(if open_only { " AND decided_at IS NULL" } else { " AND coalesce(decided_at > ?2, 1)" });
    for (asked, condition) in [
        (tenant.is_some(), " AND tenant = ?3"),
        (kind.is_some(), " AND kind = ?5"),
        (run.is_some(), " AND run = ?6"),
        (*overdue_only, " AND answer_by <= ?7"),
    ] {
        if asked {
            sql.push_str(condition);
        }
    }
    sql.push_str(" ORDER BY sequence DESC LIMIT ?4");
    let tenant = tenant.as_ref().map(TenantId::as_str);
    let (kind, run) = (kind.map(EscalationKind::name), run.as_ref().map(RunId::as_str));
    // Every parameter is bound, also where the list does not ask for it.
    let rows: Vec<Row> = cx
        .db
        .prepare_cached(&format!("WITH unused AS (SELECT ?2, ?3, ?5, ?6, ?7) {sql}"))?
        .query_map(params![before, gone_since, tenant, size + 1, kind, run, cx.now.0], Row::read)?
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
    let (fingerprint, attempts) = (row.fingerprint, row.attempts);
    Ok(Some(Escalation { summary: row.summary(cx)?, fingerprint, attempts, payload, state }))
}

/// What a notice tells of it, and who decided.
pub(super) fn noticed(cx: Cx<'_>, id: &str) -> Outcome<Option<(EscalationSummary, Option<Arc<str>>)>> {
    let Some(row) = find(cx, id)? else { return Ok(None) };
    Ok(Some((row.summary(cx)?, row.decided_by.as_deref().map(Arc::from))))
}

/// What waits for a decision that can be made.
pub(super) struct Waits {
    pub(super) escalation: EscalationSummary,
    pub(super) comes_to: escalate::Decided,
}

/// Whether a decision can be made, and what it comes to. Changes nothing.
pub(super) fn weigh(cx: Cx<'_>, command: &DecideEscalation) -> Outcome<Result<Waits, Decided>> {
    let DecideEscalation { id, by, verb, shown, result, decision } = command;
    cx.fits(decision.len())?;
    if let Some(result) = result {
        cx.fits(result.len())?;
    }
    let Some(row) = find(cx, id)? else { return Ok(Err(Decided::Unknown)) };
    if let Some(first) = row.decision(cx)? {
        let repeated = first.by == *by && first.verb == *verb && first.decision == *decision;
        return Ok(Err(if repeated { Decided::Stands } else { Decided::Already(first) }));
    }
    if row.shown != *shown {
        return Ok(Err(Decided::Changed));
    }
    let escalation = row.summary(cx)?;
    let Some(comes_to) = resolve(escalation.kind, *verb) else { return Ok(Err(Decided::NotOffered)) };
    Ok(Ok(Waits { escalation, comes_to }))
}

/// Writes down the decision of an open escalation: the log has it, and those who were told hear of it. In the
/// transaction that lets what waits go on, or that ends it. Does nothing if it was decided before.
pub(super) fn close(cx: Cx<'_>, id: &str, by: &Arc<str>, verb: Verb, decision: &Payload) -> Outcome<()> {
    let Some(row) = find(cx, id)?.filter(|row| row.decided_at.is_none()) else { return Ok(()) };
    audit::append(cx, &audited(&row.summary(cx)?, by, verb, decision))?;
    let sealed = cx.sealer.seal(row.owner("decision"), decision.as_bytes());
    cx.db
        .prepare_cached(
            "UPDATE escalations SET decided_at = ?1, decided_by = ?2, verb = ?3, decision = ?4, bytes = bytes + ?5
             WHERE sequence = ?6",
        )?
        .execute(params![cx.now.0, by, verb.name(), sealed, decision.len() as i64, row.sequence])?;
    notices::decided(cx, id)
}

pub(super) fn due(cx: Cx<'_>, command: &DueEscalations) -> Outcome<Vec<DueEscalation>> {
    let sql = format!(
        "SELECT {} FROM escalations WHERE decided_at IS NULL AND next_at <= ?1 AND watch_until <= ?1
         ORDER BY next_at, sequence LIMIT ?2",
        Row::COLUMNS
    );
    let rows: Vec<Row> = cx
        .db
        .prepare_cached(&sql)?
        .query_map(params![cx.now.0, command.limit.min(AT_ONCE)], Row::read)?
        .collect::<rusqlite::Result<_>>()?;
    let mut due = Vec::with_capacity(rows.len());
    for row in rows {
        let epoch = cx.next_epoch()?;
        cx.db
            .prepare_cached("UPDATE escalations SET watch_epoch = ?1, watch_until = ?2 WHERE sequence = ?3")?
            .execute(params![epoch.0, cx.after(command.lease), row.sequence])?;
        due.push(DueEscalation { escalation: row.summary(cx)?, epoch });
    }
    Ok(due)
}

pub(super) fn moved(cx: Cx<'_>, command: &EscalationMoved) -> Outcome<Fenced> {
    let EscalationMoved { id, epoch, level, about, notify, next_in } = command;
    let watched: Option<(i64, i64)> = cx
        .db
        .prepare_cached(
            "SELECT sequence, watch_until FROM escalations WHERE id = ?1 AND watch_epoch = ?2 AND decided_at IS NULL",
        )?
        .query_row(params![id, epoch.0], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match watched {
        None => return Ok(Fenced::Lost),
        // Said once more.
        Some((_, 0)) => return Ok(Fenced::Held),
        Some((sequence, _)) => {
            cx.db
                .prepare_cached("UPDATE escalations SET watch_until = 0, level = ?1, next_at = ?2 WHERE sequence = ?3")?
                .execute(params![level, next_in.map(|next| cx.after(next)), sequence])?;
        }
    }
    notify.iter().try_for_each(|channel| notices::put(cx, id, channel, *about))?;
    Ok(Fenced::Held)
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
