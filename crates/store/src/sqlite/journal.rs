//! Reading journals: in pages, a step at a time, and as what may have to be undone.

use super::{
    blobs::{self, Stored},
    cx::Cx,
    effects,
    entries::{Column, Kept, Owned, WIDTH, entry_columns},
    fault::Outcome,
    runs::{self, Row},
};
use crate::{Epoch, JournalPage, Payload, Place, RunRef, StepView};
use outlast_model::run::LedgerState;
use rusqlite::{Row as SqlRow, params};
use std::sync::Arc;

macro_rules! columns {
    () => {
        concat!(
            entry_columns!(),
            ", payload, payload_blob, input, input_blob, undo, undo_blob, decision, decision_blob"
        )
    };
}

/// Where the columns begin that [`Kept::read`] reads.
const ENTRY: usize = 5;

pub(super) const PAGE: &str = concat!(
    "SELECT step, key, sequence, effect, signal, ",
    columns!(),
    " FROM steps WHERE run = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3"
);
const ONE: &str =
    concat!("SELECT step, key, sequence, effect, signal, ", columns!(), " FROM steps WHERE run = ?1 AND key = ?2");
const EFFECT: &str =
    concat!("SELECT effect, key, 0, NULL, NULL, ", columns!(), ", tenant, scope FROM effects WHERE effect = ?1");

/// A run's journal after the entry of that number.
pub(super) fn page(cx: Cx<'_>, name: &RunRef, after: i64, limit: u32) -> Outcome<JournalPage> {
    let Some(row) = runs::find(cx, name)? else { return Ok(JournalPage::default()) };
    page_of(cx, name, &row, after, limit)
}

pub(super) fn page_of(cx: Cx<'_>, name: &RunRef, run: &Row, after: i64, limit: u32) -> Outcome<JournalPage> {
    let limit = limit.min(JournalPage::LARGEST) as usize;
    let mut page = JournalPage::default();
    let mut bytes = 0;
    let mut find = cx.db.prepare_cached(PAGE)?;
    let mut rows = find.query(params![run.run, after, limit as i64 + 1])?;
    while let Some(row) = rows.next()? {
        let sequence: i64 = row.get(2)?;
        if page.steps.len() >= limit {
            page.next = Some(sequence - 1);
            break;
        }
        let Some(view) = view(cx, name, run, row)? else { continue };
        bytes += size(&view);
        if bytes > JournalPage::BYTES && !page.steps.is_empty() {
            page.next = Some(sequence - 1);
            break;
        }
        page.steps.push(view);
    }
    Ok(page)
}

fn size(view: &StepView) -> u64 {
    let maybe = |payload: &Option<Payload>| payload.as_ref().map_or(0, Payload::len);
    (view.payload.len() + view.input.len() + maybe(&view.undo) + maybe(&view.decision)) as u64
}

/// One step or effect.
pub(super) fn step(cx: Cx<'_>, place: &Place) -> Outcome<Option<StepView>> {
    match place {
        Place::Step { run: name, key } => {
            let Some(run) = runs::find(cx, name)? else { return Ok(None) };
            let mut find = cx.db.prepare_cached(ONE)?;
            let mut rows = find.query(params![run.run, key])?;
            match rows.next()? {
                Some(row) => view(cx, name, &run, row),
                None => Ok(None),
            }
        }
        Place::Effect { tenant, scope, key } => {
            let Some((kept, bare)) = effects::known(cx, tenant.as_str(), scope, key)? else { return Ok(None) };
            let Some(row) = kept.row else { return Ok(None) };
            effect(cx, row, bare).map(|found| found.map(|(view, _)| view))
        }
    }
}

/// A step as its run's journal shows it. What another run did under the same key is not this one's to undo.
fn view(cx: Cx<'_>, name: &RunRef, run: &Row, row: &SqlRow<'_>) -> Outcome<Option<StepView>> {
    let (key, sequence): (Arc<str>, i64) = (row.get::<_, String>(1)?.into(), row.get(2)?);
    if let Some(at) = row.get::<_, Option<i64>>(3)? {
        let Some((view, by)) = effect(cx, at, false)? else { return Ok(None) };
        let theirs = by == Some(run.run);
        let (undo, undoes) = if theirs { (view.undo, view.undoes) } else { (None, None) };
        return Ok(Some(StepView { key, sequence, undo, undoes, ..view }));
    }
    let place = Place::Step { run: name.clone(), key: key.clone() };
    let kept = Kept::read(cx, row, row.get(0)?, ENTRY)?;
    let signal = row.get::<_, Option<String>>(4)?.map(Arc::from);
    let payloads = if run.is_bare(cx) { Payloads::default() } else { Payloads::read(cx, &place, row)? };
    Ok(Some(shown(kept, payloads, (sequence, key, None, signal))))
}

/// An effect as it is shown, and the run that its last attempt was begun for. `bare` where that is known already.
fn effect(cx: Cx<'_>, at: i64, bare: bool) -> Outcome<Option<(StepView, Option<i64>)>> {
    let mut find = cx.db.prepare_cached(EFFECT)?;
    let mut rows = find.query([at])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let kept = Kept::read(cx, row, at, ENTRY)?;
    let key: Arc<str> = row.get::<_, String>(1)?.into();
    let (tenant, scope) = (row.get::<_, String>(ENTRY + WIDTH + 8)?, row.get::<_, String>(ENTRY + WIDTH + 9)?);
    let scope: Arc<str> = scope.into();
    let place = Place::Effect { tenant: outlast_model::TenantId::new(tenant), scope: scope.clone(), key: key.clone() };
    let bare = bare || effects::is_kept_bare(cx, &kept)?;
    let payloads = if bare { Payloads::default() } else { Payloads::read(cx, &place, row)? };
    let by = kept.by_run;
    Ok(Some((shown(kept, payloads, (0, key.clone(), Some((scope, key)), None)), by)))
}

/// An entry's payloads.
#[derive(Debug, Default)]
struct Payloads {
    payload: Payload,
    input: Payload,
    undo: Option<Payload>,
    decision: Option<Payload>,
}

impl Payloads {
    fn read(cx: Cx<'_>, place: &Place, row: &SqlRow<'_>) -> Outcome<Payloads> {
        let owned = Owned::new(place);
        let open = |column: Column, at: usize| -> Outcome<Option<Payload>> {
            blobs::open(cx, owned.of(column), Stored::read(row, ENTRY + WIDTH + at)?)
        };
        Ok(Payloads {
            payload: open(Column::Payload, 0)?.unwrap_or_default(),
            input: open(Column::Input, 2)?.unwrap_or_default(),
            undo: open(Column::Undo, 4)?,
            decision: open(Column::Decision, 6)?,
        })
    }
}

type Named = (i64, Arc<str>, Option<(Arc<str>, Arc<str>)>, Option<Arc<str>>);

fn shown(kept: Kept, payloads: Payloads, (sequence, key, effect, signal): Named) -> StepView {
    let entry = &kept.entry;
    let waits = match entry.state {
        LedgerState::Unknown | LedgerState::Absent => true,
        LedgerState::Intent
        | LedgerState::Done
        | LedgerState::FailedFinal
        | LedgerState::Verifying
        | LedgerState::Parked => false,
    };
    let Payloads { payload, input, undo, decision } = payloads;
    StepView {
        sequence,
        key,
        effect,
        kind: kept.kind,
        name: kept.name,
        class: entry.class,
        state: entry.state,
        fingerprint: entry.fingerprint,
        attempts: entry.attempt,
        unclear: entry.unclear,
        signal,
        why: entry.why,
        epoch: Epoch(entry.epoch),
        begun_at: kept.begun_at,
        ended_at: kept.ended_at,
        not_before: waits.then_some(entry.not_before),
        spent: entry.spent,
        payload,
        input,
        undo,
        undoes: kept.undoes,
        decision,
        divergences: kept.divergences,
    }
}

/// Those that may have taken place.
const OPEN: &str = concat!(
    "SELECT step, ",
    entry_columns!(),
    " FROM steps WHERE run = ?1 AND effect IS NULL AND state IN (0, 3, 4, 6)"
);
const OPEN_EFFECTS: &str = concat!(
    "SELECT effect, ",
    entry_columns!(),
    " FROM effects WHERE by_run = ?1 AND state IN (0, 3, 4, 6) AND effect IN (SELECT effect FROM steps WHERE run = ?1)"
);
/// Those that took place, and can be undone, and are not.
const NOT_UNDONE: &str = "WITH own AS MATERIALIZED (
        SELECT key, undoes, undo IS NOT NULL AS can FROM steps WHERE run = ?1 AND effect IS NULL AND state = 1
        UNION ALL
        SELECT steps.key, effects.undoes, effects.undo IS NOT NULL
        FROM steps JOIN effects USING (effect) WHERE run = ?1 AND effects.by_run = ?1 AND effects.state = 1)
    SELECT 1 FROM own WHERE can AND key NOT IN (SELECT undoes FROM own WHERE undoes IS NOT NULL)";

/// Whether anything of the run has to be undone, or may have to be.
pub(super) fn has_undo(cx: Cx<'_>, run: i64) -> Outcome<bool> {
    for sql in [OPEN, OPEN_EFFECTS] {
        let mut open = cx.db.prepare_cached(sql)?;
        let mut rows = open.query([run])?;
        while let Some(row) = rows.next()? {
            if Kept::read(cx, row, row.get(0)?, 1)?.entry.is_unresolved() {
                return Ok(true);
            }
        }
    }
    Ok(cx.db.prepare_cached(NOT_UNDONE)?.exists([run])?)
}
