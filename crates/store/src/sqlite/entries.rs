//! Entries of the ledger, wherever they are kept: in a run's journal or in the tenant's ledger. Both tables hold them in
//! the same columns.

use super::{
    blobs::{self, Stored, joined},
    cx::Cx,
    fault::Outcome,
    runs::{money, nanos},
    words::{self, ledger_state, read_budget, read_class, read_kind, read_ledger_state, read_why},
};
use crate::{Payload, Place, seal::Owner};
use outlast_engine::run::{Entry, IfUnknown};
use outlast_model::{
    Wall,
    run::{EffectClass, LedgerState, StepKind},
};
use rusqlite::{OptionalExtension, Row as SqlRow, ToSql, params};
use std::sync::Arc;

/// Which of the two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shelf {
    Steps,
    Effects,
}

/// What [`Kept::read`] reads.
macro_rules! entry_columns {
    () => {
        "kind, name, undoes, divergences, state, class, fingerprint, budget, attempt, forgiven, unclear, epoch, by_run, \
         by_step, fenced, held_until, deadline, not_before, first_at, budget_from, spent, why, approved, escalation, \
         begun_at, ended_at, bytes, payload IS NOT NULL, decision IS NOT NULL"
    };
}

pub(super) use entry_columns;

/// How many columns those are.
pub(super) const WIDTH: usize = 29;

macro_rules! changed {
    () => {
        "divergences = ?2, state = ?3, fingerprint = ?4, attempt = ?5, forgiven = ?6, unclear = ?7, epoch = ?8, \
         by_run = ?9, by_step = ?10, fenced = ?11, held_until = ?12, deadline = ?13, not_before = ?14, first_at = ?15, \
         budget_from = ?16, spent = ?17, why = ?18, approved = ?19, escalation = ?20, ended_at = ?21, look_at = ?22, \
         bytes = ?23"
    };
}

macro_rules! inserted {
    ($table:literal, $first:literal) => {
        concat!(
            "INSERT INTO ",
            $table,
            " (",
            $first,
            ", kind, name, undoes, divergences, state, class, fingerprint, budget, attempt, forgiven, unclear, epoch, \
             by_run, by_step, fenced, held_until, deadline, not_before, first_at, budget_from, spent, why, approved, \
             escalation, begun_at, ended_at, look_at, bytes, payload, payload_blob, input, input_blob, undo, undo_blob) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, \
             ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35, ?36, ?37)"
        )
    };
}

/// The statements of one table.
struct Sql {
    find: &'static str,
    insert: &'static str,
    update: &'static str,
    end: &'static str,
}

const STEPS: Sql = Sql {
    find: concat!("SELECT step, effect, ", entry_columns!(), " FROM steps WHERE run = ?1 AND key = ?2"),
    insert: inserted!("steps", "run, sequence, key"),
    update: concat!("UPDATE steps SET ", changed!(), " WHERE step = ?1"),
    end: concat!("UPDATE steps SET ", changed!(), ", payload = ?24, payload_blob = ?25 WHERE step = ?1"),
};

const EFFECTS: Sql = Sql {
    find: concat!(
        "SELECT effect, NULL, ",
        entry_columns!(),
        " FROM effects WHERE tenant = ?1 AND scope = ?2 AND key = ?3"
    ),
    insert: inserted!("effects", "tenant, scope, key"),
    update: concat!("UPDATE effects SET ", changed!(), " WHERE effect = ?1"),
    end: concat!("UPDATE effects SET ", changed!(), ", payload = ?24, payload_blob = ?25 WHERE effect = ?1"),
};

impl Shelf {
    pub(super) fn of(place: &Place) -> Shelf {
        match place {
            Place::Step { .. } => Shelf::Steps,
            Place::Effect { .. } => Shelf::Effects,
        }
    }

    const fn sql(self) -> &'static Sql {
        match self {
            Shelf::Steps => &STEPS,
            Shelf::Effects => &EFFECTS,
        }
    }

    pub(super) const fn table(self) -> &'static str {
        match self {
            Shelf::Steps => "steps",
            Shelf::Effects => "effects",
        }
    }

    /// A row's payload in one of its columns.
    const fn column(self, column: Column) -> &'static str {
        match (self, column) {
            (Shelf::Steps, Column::Payload) => "SELECT payload, payload_blob FROM steps WHERE step = ?1",
            (Shelf::Steps, Column::Input) => "SELECT input, input_blob FROM steps WHERE step = ?1",
            (Shelf::Steps, Column::Undo) => "SELECT undo, undo_blob FROM steps WHERE step = ?1",
            (Shelf::Steps, Column::Decision) => "SELECT decision, decision_blob FROM steps WHERE step = ?1",
            (Shelf::Effects, Column::Payload) => "SELECT payload, payload_blob FROM effects WHERE effect = ?1",
            (Shelf::Effects, Column::Input) => "SELECT input, input_blob FROM effects WHERE effect = ?1",
            (Shelf::Effects, Column::Undo) => "SELECT undo, undo_blob FROM effects WHERE effect = ?1",
            (Shelf::Effects, Column::Decision) => "SELECT decision, decision_blob FROM effects WHERE effect = ?1",
        }
    }

    const fn set_column(self, column: Column) -> &'static str {
        match (self, column) {
            (Shelf::Steps, Column::Payload) => "UPDATE steps SET payload = ?2, payload_blob = ?3 WHERE step = ?1",
            (Shelf::Steps, Column::Input) => "UPDATE steps SET input = ?2, input_blob = ?3 WHERE step = ?1",
            (Shelf::Steps, Column::Undo) => "UPDATE steps SET undo = ?2, undo_blob = ?3 WHERE step = ?1",
            (Shelf::Steps, Column::Decision) => "UPDATE steps SET decision = ?2, decision_blob = ?3 WHERE step = ?1",
            (Shelf::Effects, Column::Payload) => "UPDATE effects SET payload = ?2, payload_blob = ?3 WHERE effect = ?1",
            (Shelf::Effects, Column::Input) => "UPDATE effects SET input = ?2, input_blob = ?3 WHERE effect = ?1",
            (Shelf::Effects, Column::Undo) => "UPDATE effects SET undo = ?2, undo_blob = ?3 WHERE effect = ?1",
            (Shelf::Effects, Column::Decision) => {
                "UPDATE effects SET decision = ?2, decision_blob = ?3 WHERE effect = ?1"
            }
        }
    }
}

/// Which of an entry's payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Payload,
    Input,
    Undo,
    Decision,
}

impl Column {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Column::Payload => "payload",
            Column::Input => "input",
            Column::Undo => "undo",
            Column::Decision => "decision",
        }
    }
}

/// An entry as it is kept, its payloads apart.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// Its row; none until it is first written.
    pub(super) row: Option<i64>,
    pub(super) entry: Entry,
    pub(super) kind: StepKind,
    pub(super) name: Arc<str>,
    pub(super) undoes: Option<Arc<str>>,
    pub(super) divergences: u32,
    /// The run, and its step, that the last attempt was begun for. A step of a journal is its own run's.
    pub(super) by_run: Option<i64>,
    pub(super) by_step: Option<Arc<str>>,
    /// The last attempt was begun with the claim of that run, and not with one of its own.
    pub(super) fenced: bool,
    pub(super) escalation: Option<Arc<str>>,
    pub(super) begun_at: Wall,
    pub(super) ended_at: Option<Wall>,
    /// Of its payloads.
    pub(super) bytes: i64,
    pub(super) has_payload: bool,
    pub(super) has_decision: bool,
}

/// What stands under a key of a journal.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Own(Box<Kept>),
    /// It is kept in the tenant's ledger, in this row.
    Ledger(i64),
}

impl Kept {
    /// From [`entry_columns`], the first of them at `first`.
    pub(super) fn read(cx: Cx<'_>, row: &SqlRow<'_>, id: i64, first: usize) -> Outcome<Kept> {
        let at = |column: usize| first + column;
        let wall = |column: usize| row.get(at(column)).map(Wall);
        let text = |column: usize| -> rusqlite::Result<Option<Arc<str>>> {
            Ok(row.get::<_, Option<String>>(at(column))?.map(Arc::from))
        };
        let word = |column: usize| -> Outcome<Option<&str>> {
            row.get_ref(at(column))?.as_str_or_null().map_err(|_| words::unreadable(cx, "word"))
        };
        let entry = Entry {
            class: read_class(cx, word(5)?)?,
            state: read_ledger_state(cx, row.get(at(4))?)?,
            fingerprint: row.get(at(6))?,
            budget: read_budget(cx, word(7)?)?,
            attempt: row.get(at(8))?,
            forgiven: row.get(at(9))?,
            unclear: row.get(at(10))?,
            epoch: row.get(at(11))?,
            held_until: wall(15)?,
            deadline: wall(16)?,
            not_before: wall(17)?,
            first_at: wall(18)?,
            budget_from: wall(19)?,
            spent: money(row.get(at(20))?),
            why: text(21)?.map(|why| read_why(cx, &why)).transpose()?,
            approved: row.get(at(22))?,
        };
        Ok(Kept {
            row: Some(id),
            entry,
            kind: read_kind(cx, &row.get::<_, String>(at(0))?)?,
            name: row.get::<_, String>(at(1))?.into(),
            undoes: text(2)?,
            divergences: row.get(at(3))?,
            by_run: row.get(at(12))?,
            by_step: text(13)?,
            fenced: row.get(at(14))?,
            escalation: text(23)?,
            begun_at: wall(24)?,
            ended_at: row.get::<_, Option<i64>>(at(25))?.map(Wall),
            bytes: row.get(at(26))?,
            has_payload: row.get(at(27))?,
            has_decision: row.get(at(28))?,
        })
    }

    pub(super) fn is_done(&self) -> bool {
        self.entry.state == LedgerState::Done
    }

    /// From when on somebody has to look after it, unless its holder does: an effect with a claim of its own whose
    /// outcome nobody may come to know.
    fn look_at(&self) -> Option<i64> {
        if self.fenced {
            return None;
        }
        let since = self.unattended_since()?;
        match self.entry.class {
            EffectClass::Pure | EffectClass::Tx => None,
            EffectClass::Keyed { key_ttl, .. } => {
                let ttl = i64::try_from(key_ttl.as_millis()).unwrap_or(i64::MAX);
                Some(since.0.max(self.entry.first_at.0.saturating_add(ttl)))
            }
            EffectClass::Verify { .. } | EffectClass::Once => Some(since.0),
        }
    }

    /// From when on nobody holds it, where its outcome is open.
    pub(super) fn unattended_since(&self) -> Option<Wall> {
        match self.entry.state {
            LedgerState::Intent | LedgerState::Verifying => Some(self.entry.held_until),
            LedgerState::Unknown => Some(self.entry.not_before),
            LedgerState::Done | LedgerState::FailedFinal | LedgerState::Absent | LedgerState::Parked => None,
        }
    }

    /// Whether nothing but a repetition is to be done about it: nobody else has to look.
    pub(super) fn is_repeated(&self, now: Wall) -> bool {
        self.entry.if_unknown(now) == IfUnknown::Repeat
    }
}

/// Whose entry it is, for the sealing of its payloads.
#[derive(Clone, Debug)]
pub(super) struct Owned {
    shelf: Shelf,
    tenant: Arc<str>,
    id: String,
}

impl Owned {
    pub(super) fn new(place: &Place) -> Owned {
        match place {
            Place::Step { run, key } => {
                Owned { shelf: Shelf::Steps, tenant: run.tenant.as_str().into(), id: joined(run.id.as_str(), key) }
            }
            Place::Effect { tenant, scope, key } => {
                Owned { shelf: Shelf::Effects, tenant: tenant.as_str().into(), id: joined(scope, key) }
            }
        }
    }

    pub(super) fn of(&self, column: Column) -> Owner<'_> {
        Owner { table: self.shelf.table(), tenant: &self.tenant, id: &self.id, column: column.name() }
    }
}

/// What stands under a key of a run's journal.
pub(super) fn step(cx: Cx<'_>, run: i64, key: &str) -> Outcome<Option<Step>> {
    let mut find = cx.db.prepare_cached(STEPS.find)?;
    let mut rows = find.query(params![run, key])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    if let Some(effect) = row.get::<_, Option<i64>>(1)? {
        return Ok(Some(Step::Ledger(effect)));
    }
    Ok(Some(Step::Own(Box::new(Kept::read(cx, row, row.get(0)?, 2)?))))
}

/// What stands in a tenant's ledger, whether or not it is still known.
pub(super) fn effect(cx: Cx<'_>, tenant: &str, scope: &str, key: &str) -> Outcome<Option<Kept>> {
    let mut find = cx.db.prepare_cached(EFFECTS.find)?;
    let mut rows = find.query([tenant, scope, key])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(Kept::read(cx, row, row.get(0)?, 2)?))
}

/// One of an entry's payloads; none if it has none.
pub(super) fn payload(cx: Cx<'_>, place: &Place, row: i64, column: Column) -> Outcome<Option<Payload>> {
    let mut find = cx.db.prepare_cached(Shelf::of(place).column(column))?;
    let stored = find.query_row([row], |row| Stored::read(row, 0)).optional()?.unwrap_or_default();
    blobs::open(cx, Owned::new(place).of(column), stored)
}

/// Puts one of an entry's payloads in place of what was there. The bytes are counted: [`save`] what this leaves.
pub(super) fn put_payload(
    cx: Cx<'_>,
    place: &Place,
    kept: &mut Kept,
    column: Column,
    payload: &Payload,
) -> Outcome<()> {
    let Some(row) = kept.row else { return Ok(()) };
    let before = self::payload(cx, place, row, column)?.map_or(0, |before| before.len());
    let stored = match column {
        Column::Payload | Column::Input => blobs::keep_some(cx, Owned::new(place).of(column), payload)?,
        Column::Undo | Column::Decision => blobs::keep(cx, Owned::new(place).of(column), payload)?,
    };
    cx.db.prepare_cached(Shelf::of(place).set_column(column))?.execute(params![row, stored.inline, stored.blob])?;
    kept.bytes += payload.len() as i64 - before as i64;
    Ok(())
}

/// Drops all of an entry's payloads. Their bytes are no longer counted: [`save`] what this leaves.
pub(super) fn drop_payloads(cx: Cx<'_>, place: &Place, kept: &mut Kept) -> Outcome<()> {
    let Some(row) = kept.row else { return Ok(()) };
    for column in [Column::Payload, Column::Input, Column::Undo, Column::Decision] {
        let nothing: (i64, Option<Vec<u8>>, Option<i64>) = (row, None, None);
        cx.db.prepare_cached(Shelf::of(place).set_column(column))?.execute(nothing)?;
    }
    (kept.bytes, kept.has_payload, kept.has_decision) = (0, false, false);
    Ok(())
}

/// A new entry's payloads.
#[derive(Debug, Default)]
pub(super) struct First<'a> {
    pub(super) payload: Option<&'a Payload>,
    pub(super) input: Option<&'a Payload>,
    pub(super) undo: Option<&'a Payload>,
}

/// Where a new entry's row goes.
#[derive(Debug)]
pub(super) enum Slot<'a> {
    Step { run: i64, sequence: i64, key: &'a str },
    Effect { tenant: &'a str, scope: &'a str, key: &'a str },
}

/// Writes a new entry. Its bytes are counted by this.
pub(super) fn insert(cx: Cx<'_>, place: &Place, slot: &Slot<'_>, kept: &mut Kept, first: &First<'_>) -> Outcome<()> {
    let owned = Owned::new(place);
    let keep = |column, payload: Option<&Payload>| match payload {
        Some(payload) => blobs::keep(cx, owned.of(column), payload),
        None => Ok(Stored::default()),
    };
    let some = |payload: Option<&'_ Payload>| payload.is_some_and(|payload| !payload.is_empty());
    let payload = keep(Column::Payload, first.payload.filter(|_| some(first.payload)))?;
    let input = keep(Column::Input, first.input.filter(|_| some(first.input)))?;
    let undo = keep(Column::Undo, first.undo)?;
    kept.bytes = [first.payload, first.input, first.undo].iter().flatten().map(|payload| payload.len() as i64).sum();
    let (one, two, three): (&dyn ToSql, &dyn ToSql, &dyn ToSql) = match slot {
        Slot::Step { run, sequence, key } => (run, sequence, key),
        Slot::Effect { tenant, scope, key } => (tenant, scope, key),
    };
    let entry = &kept.entry;
    cx.db.prepare_cached(Shelf::of(place).sql().insert)?.execute(params![
        one,
        two,
        three,
        kept.kind.name(),
        kept.name,
        kept.undoes,
        kept.divergences,
        ledger_state(entry.state),
        words::class(entry.class),
        entry.fingerprint,
        words::budget(&entry.budget),
        entry.attempt,
        entry.forgiven,
        entry.unclear,
        entry.epoch,
        kept.by_run,
        kept.by_step,
        kept.fenced,
        entry.held_until.0,
        entry.deadline.0,
        entry.not_before.0,
        entry.first_at.0,
        entry.budget_from.0,
        nanos(entry.spent),
        entry.why.map(outlast_model::run::EscalationKind::name),
        entry.approved,
        kept.escalation,
        kept.begun_at.0,
        kept.ended_at.map(|at| at.0),
        kept.look_at(),
        kept.bytes,
        payload.inline,
        payload.blob,
        input.inline,
        input.blob,
        undo.inline,
        undo.blob,
    ])?;
    kept.row = Some(cx.db.last_insert_rowid());
    Ok(())
}

/// Writes an entry back, with a new end or error if one is given. It has a row.
pub(super) fn save(cx: Cx<'_>, place: &Place, kept: &mut Kept, end: Option<&Payload>) -> Outcome<()> {
    let stored = match end {
        Some(end) => {
            let before = match (kept.has_payload, kept.row) {
                (true, Some(row)) => payload(cx, place, row, Column::Payload)?.map_or(0, |before| before.len()),
                (_, _) => 0,
            };
            kept.bytes += end.len() as i64 - before as i64;
            Some(blobs::keep_some(cx, Owned::new(place).of(Column::Payload), end)?)
        }
        None => None,
    };
    let sql = Shelf::of(place).sql();
    let entry = &kept.entry;
    let (state, why) = (ledger_state(entry.state), entry.why.map(outlast_model::run::EscalationKind::name));
    let (spent, ended_at, look_at) = (nanos(entry.spent), kept.ended_at.map(|at| at.0), kept.look_at());
    let mut values: Vec<&dyn ToSql> = vec![
        &kept.row,
        &kept.divergences,
        &state,
        &entry.fingerprint,
        &entry.attempt,
        &entry.forgiven,
        &entry.unclear,
        &entry.epoch,
        &kept.by_run,
        &kept.by_step,
        &kept.fenced,
        &entry.held_until.0,
        &entry.deadline.0,
        &entry.not_before.0,
        &entry.first_at.0,
        &entry.budget_from.0,
        &spent,
        &why,
        &entry.approved,
        &kept.escalation,
        &ended_at,
        &look_at,
        &kept.bytes,
    ];
    match &stored {
        Some(stored) => {
            values.extend([&stored.inline as &dyn ToSql, &stored.blob]);
            cx.db.prepare_cached(sql.end)?.execute(values.as_slice())?;
        }
        None => {
            cx.db.prepare_cached(sql.update)?.execute(values.as_slice())?;
        }
    }
    Ok(())
}
