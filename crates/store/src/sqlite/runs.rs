//! Runs: where one stands, and what moves it.

use super::{
    blobs,
    cx::{Cx, Kind},
    fault::{Fault, Outcome},
    ready::{self, Turn},
    retention,
    words::{names, read_run_state, read_why, run_state},
};
use crate::{Fenced, FinishRun, Payload, ReleaseRun, RunRef, StartRun, Started, StoreError, seal::Owner};
use outlast_engine::run::Head;
use outlast_model::{
    RunId, TenantId, Usd, Wall,
    run::{EscalationKind, RunState},
};
use rusqlite::{OptionalExtension, params};
use std::sync::Arc;

/// A run's row, as a command reads it, changes it and writes it back. What never changes after its start is read by
/// [`super::run_views`] alone.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) run: i64,
    pub(super) lane: i64,
    pub(super) priority: i64,
    pub(super) unclaimed: bool,
    pub(super) head: Head,
    /// When it came to its state, or to its claim.
    pub(super) since: Wall,
    pub(super) worker: Option<String>,
    pub(super) waits_at: Option<String>,
    /// A JSON array.
    pub(super) waits_for: Option<String>,
    pub(super) parked: Option<(EscalationKind, Arc<str>)>,
    pub(super) steps: i64,
    pub(super) last_step: Option<Arc<str>>,
    pub(super) bytes: i64,
    updated_at: Wall,
    pub(super) ended_at: Option<Wall>,
    /// Its place among those to be claimed, as it was read.
    turn: Option<Turn>,
}

pub(super) const COLUMNS: &str = "run, lane, priority, unclaimed, state, epoch, lease_until, since, due, barren, cancelling, \
    spent, bytes, steps, updated_at, ended_at, deadline, cost_max, worker, waits_at, waits_for, parked, escalation, last_step";

/// How many columns those are.
pub(super) const WIDTH: usize = 24;

const FIND: &str = "SELECT run, lane, priority, unclaimed, state, epoch, lease_until, since, due, barren, cancelling,
    spent, bytes, steps, updated_at, ended_at, deadline, cost_max, worker, waits_at, waits_for, parked, escalation, last_step
    FROM runs WHERE tenant = ?1 AND id = ?2";

impl Row {
    /// From [`COLUMNS`].
    pub(super) fn read(cx: Cx<'_>, row: &rusqlite::Row<'_>) -> Outcome<Row> {
        let head = Head {
            state: read_run_state(cx, row.get(4)?)?,
            epoch: row.get(5)?,
            lease_until: Wall(row.get(6)?),
            due: row.get::<_, Option<i64>>(8)?.map(Wall),
            barren: row.get(9)?,
            cancelling: row.get(10)?,
            deadline: row.get::<_, Option<i64>>(16)?.map(Wall),
            spent: money(row.get(11)?),
            cost_max: row.get::<_, Option<i64>>(17)?.map(money),
        };
        let (why, escalation): (Option<String>, Option<String>) = (row.get(21)?, row.get(22)?);
        let parked = match (why, escalation) {
            (Some(why), Some(escalation)) => Some((read_why(cx, &why)?, escalation.into())),
            (_, _) => None,
        };
        let (lane, priority, unclaimed) = (row.get(1)?, row.get(2)?, row.get(3)?);
        Ok(Row {
            run: row.get(0)?,
            lane,
            priority,
            unclaimed,
            turn: Turn::of(&head, lane, priority, unclaimed),
            head,
            since: Wall(row.get(7)?),
            bytes: row.get(12)?,
            steps: row.get(13)?,
            updated_at: Wall(row.get(14)?),
            ended_at: row.get::<_, Option<i64>>(15)?.map(Wall),
            worker: row.get(18)?,
            waits_at: row.get(19)?,
            waits_for: row.get(20)?,
            parked,
            last_step: row.get::<_, Option<String>>(23)?.map(Arc::from),
        })
    }

    pub(super) fn updated_at(&self) -> Wall {
        self.updated_at
    }

    /// It ended so long ago that nothing of it is known any more.
    fn is_gone(&self, cx: Cx<'_>) -> bool {
        self.ended_at.is_some_and(|at| at.0 <= cx.before(cx.limits.key_keep))
    }

    /// It ended so long ago that its payloads are no longer kept.
    pub(super) fn is_bare(&self, cx: Cx<'_>) -> bool {
        self.ended_at.is_some_and(|at| at.0 <= cx.before(cx.limits.payload_keep))
    }

    /// Takes up what was decided about it.
    pub(super) fn moved(&mut self, cx: Cx<'_>, head: Head) {
        if (head.state, head.epoch) != (self.head.state, self.head.epoch) {
            self.since = cx.now;
        }
        if head.state.is_final() && self.ended_at.is_none() {
            self.ended_at = Some(cx.now);
        }
        if head.state != RunState::Waiting {
            self.waits_for = None;
        }
        match head.state {
            RunState::Waiting | RunState::Parked | RunState::Quarantined => {}
            RunState::Ready | RunState::Running | RunState::Done | RunState::Failed | RunState::Cancelled => {
                self.waits_at = None;
                self.parked = None;
            }
        }
        self.head = head;
        self.touch(cx);
    }

    /// Something was written to it.
    pub(super) fn touch(&mut self, cx: Cx<'_>) {
        self.updated_at = cx.now;
    }

    /// It waits for a person, unless it does already, or is over. Its claim is.
    pub(super) fn park(&mut self, cx: Cx<'_>, mut head: Head, at: &str, why: EscalationKind, escalation: &Arc<str>) {
        match head.state {
            RunState::Ready | RunState::Running | RunState::Waiting => {
                head.park();
                self.moved(cx, head);
                self.waits_at = Some(at.into());
                self.parked = Some((why, escalation.clone()));
            }
            RunState::Parked | RunState::Quarantined | RunState::Done | RunState::Failed | RunState::Cancelled => {
                self.moved(cx, head);
            }
        }
    }

    /// What it waited for is there. One that is to be cancelled goes on only to undo.
    pub(super) fn woken(&mut self, cx: Cx<'_>, has_undo: bool) {
        let mut head = self.head;
        if head.cancelling {
            head.cancel(has_undo, cx.now);
        } else {
            head.wake(cx.now);
        }
        self.moved(cx, head);
    }

    /// It waits for one of these signals, or its timer.
    pub(super) fn waits(&mut self, cx: Cx<'_>, timer: Option<Wall>, at: &str, signals: &[Arc<str>]) {
        let mut head = self.head;
        head.wait(timer);
        self.moved(cx, head);
        self.waits_at = Some(at.into());
        self.waits_for = Some(names(signals));
    }

    /// Writes it back, and moves its place among those to be claimed.
    pub(super) fn save(mut self, cx: Cx<'_>) -> Outcome<()> {
        let head = &self.head;
        let turn = Turn::of(head, self.lane, self.priority, self.unclaimed);
        ready::turn(cx, self.run, self.turn.take(), turn)?;
        let (parked, escalation) = match &self.parked {
            Some((why, escalation)) => (Some(why.name()), Some(&**escalation)),
            None => (None, None),
        };
        cx.db
            .prepare_cached(
                "UPDATE runs SET lane = ?2, state = ?3, epoch = ?4, lease_until = ?5, since = ?6, due = ?7, barren = ?8,
                 cancelling = ?9, spent = ?10, bytes = ?11, steps = ?12, updated_at = ?13, ended_at = ?14, worker = ?15,
                 waits_at = ?16, waits_for = ?17, parked = ?18, escalation = ?19, last_step = ?20 WHERE run = ?1",
            )?
            .execute(params![
                self.run,
                self.lane,
                run_state(head.state),
                head.epoch,
                head.lease_until.0,
                self.since.0,
                head.due.map(|due| due.0),
                head.barren,
                head.cancelling,
                nanos(head.spent),
                self.bytes,
                self.steps,
                self.updated_at.0,
                self.ended_at.map(|at| at.0),
                self.worker,
                self.waits_at,
                self.waits_for,
                parked,
                escalation,
                self.last_step,
            ])?;
        Ok(())
    }
}

/// The run, if it is still known.
pub(super) fn find(cx: Cx<'_>, run: &RunRef) -> Outcome<Option<Row>> {
    let mut find = cx.db.prepare_cached(FIND)?;
    let mut rows = find.query([run.tenant.as_str(), run.id.as_str()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let row = Row::read(cx, row)?;
    Ok(Some(row).filter(|row| !row.is_gone(cx)))
}

/// The run of this row, if it is still known, and its name.
pub(super) fn by_row(cx: Cx<'_>, run: i64) -> Outcome<Option<(RunRef, Row)>> {
    let mut find = cx.db.prepare_cached("SELECT tenant, id FROM runs WHERE run = ?1")?;
    let name = find.query_row([run], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).optional()?;
    let Some((tenant, id)) = name else { return Ok(None) };
    let name = RunRef { tenant: TenantId::new(tenant), id: RunId::new(id) };
    Ok(self::find(cx, &name)?.map(|row| (name, row)))
}

pub(super) fn money(nanos: i64) -> Usd {
    Usd::from_nanos(nanos.unsigned_abs())
}

pub(super) fn nanos(usd: Usd) -> i64 {
    i64::try_from(usd.as_nanos()).unwrap_or(i64::MAX)
}

/// What a run works on, or what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Input,
    Output,
}

impl Part {
    fn slot(self, run: i64) -> i64 {
        match self {
            Part::Input => 2 * run,
            Part::Output => 2 * run + 1,
        }
    }

    fn owner<'a>(self, tenant: &'a str, id: &'a str) -> Owner<'a> {
        let column = match self {
            Part::Input => "input",
            Part::Output => "output",
        };
        Owner { table: "run_payloads", tenant, id, column }
    }
}

/// A payload of a run's own; empty if there is none.
pub(super) fn payload(cx: Cx<'_>, name: &RunRef, run: i64, part: Part) -> Outcome<Payload> {
    let mut find = cx.db.prepare_cached("SELECT payload, payload_blob FROM run_payloads WHERE slot = ?1")?;
    let stored = find.query_row([part.slot(run)], |row| blobs::Stored::read(row, 0)).optional()?.unwrap_or_default();
    Ok(blobs::open(cx, part.owner(name.tenant.as_str(), name.id.as_str()), stored)?.unwrap_or_default())
}

fn keep_payload(cx: Cx<'_>, name: &RunRef, run: i64, part: Part, payload: &Payload) -> Outcome<()> {
    if payload.is_empty() {
        return Ok(());
    }
    let kept = blobs::keep(cx, part.owner(name.tenant.as_str(), name.id.as_str()), payload)?;
    cx.db
        .prepare_cached("INSERT INTO run_payloads (slot, run, payload, payload_blob) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![part.slot(run), run, kept.inline, kept.blob])?;
    Ok(())
}

pub(super) fn start(cx: Cx<'_>, command: &StartRun) -> Outcome<Started> {
    let bytes = command.input.len();
    cx.fits(bytes)?;
    let input_hash = *blake3::hash(command.input.as_bytes()).as_bytes();
    if let Some(before) = started_before(cx, command, &input_hash)? {
        return Ok(before);
    }
    let tenant = command.run.tenant.as_str();
    if cx.over(Kind::Runs, tenant, bytes)?.is_some() {
        retention::purge_runs(cx, &mut u32::MAX.clone(), &mut usize::MAX.clone())?;
    }
    if let Some(of_tenant) = cx.over(Kind::Runs, tenant, bytes)? {
        return Err(Fault::Refused(Kind::Runs.too_many(of_tenant)));
    }
    retention::forget(cx, command)?;
    let StartRun { run: name, queue, workflow, version, priority, after, deadline, cost_max, unclaimed, .. } = command;
    let head = Head::new(Wall(cx.after(*after)), deadline.map(|deadline| Wall(cx.after(deadline))), *cost_max);
    let lane = lane(cx, tenant, queue, workflow, version)?;
    let priority = priority.index() as i64;
    cx.db
        .prepare_cached(
            "INSERT INTO runs (tenant, id, lane, priority, unclaimed, state, epoch, lease_until, since, due, barren,
                 cancelling, spent, bytes, steps, updated_at, created_at, deadline, cost_max, input_hash, key, key_hash)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, 0, ?7, ?8, 0, 0, 0, ?9, 0, ?7, ?7, ?10, ?11, ?12, ?13, ?14)",
        )?
        .execute(params![
            tenant,
            name.id.as_str(),
            lane,
            priority,
            unclaimed,
            run_state(head.state),
            cx.now.0,
            head.due.map(|due| due.0),
            bytes as i64,
            head.deadline.map(|deadline| deadline.0),
            head.cost_max.map(nanos),
            input_hash,
            command.key.as_ref().map(|(key, _)| &**key),
            command.key.as_ref().map(|(_, hash)| hash),
        ])?;
    let run = cx.db.last_insert_rowid();
    keep_payload(cx, name, run, Part::Input, &command.input)?;
    ready::turn(cx, run, None, Turn::of(&head, lane, priority, *unclaimed))?;
    Ok(Started::New)
}

/// By its key first; then by its id, where a repetition without a key has to ask for the same work.
fn started_before(cx: Cx<'_>, command: &StartRun, input_hash: &[u8; 32]) -> Outcome<Option<Started>> {
    let StartRun { run, key, queue, workflow, unclaimed, .. } = command;
    let gone_since = cx.before(cx.limits.key_keep);
    if let Some((key, hash)) = key {
        let mut find = cx.db.prepare_cached(
            "SELECT id, key_hash FROM runs WHERE tenant = ?1 AND key = ?2 AND coalesce(ended_at > ?3, 1)",
        )?;
        let first: Option<(String, Vec<u8>)> = find
            .query_row(params![run.tenant.as_str(), key, gone_since], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        if let Some((id, first)) = first {
            return Ok(Some(if first == hash { Started::Before(RunId::new(id)) } else { Started::Mismatch }));
        }
    }
    let mut find = cx.db.prepare_cached(
        "SELECT queue = ?3 AND workflow = ?4 AND unclaimed = ?5 AND input_hash = ?6
         FROM runs JOIN lanes USING (lane) WHERE runs.tenant = ?1 AND id = ?2 AND coalesce(ended_at > ?7, 1)",
    )?;
    let same: Option<bool> = find
        .query_row(
            params![run.tenant.as_str(), run.id.as_str(), queue, workflow, unclaimed, input_hash, gone_since],
            |row| row.get(0),
        )
        .optional()?;
    Ok(same.map(|same| if same && key.is_none() { Started::Before(run.id.clone()) } else { Started::Mismatch }))
}

/// The lane of these, made if there is none.
pub(super) fn lane(cx: Cx<'_>, tenant: &str, queue: &str, workflow: &str, version: &str) -> Outcome<i64> {
    let mut find = cx
        .db
        .prepare_cached("SELECT lane FROM lanes WHERE tenant = ?1 AND queue = ?2 AND workflow = ?3 AND version = ?4")?;
    if let Some(lane) = find.query_row([tenant, queue, workflow, version], |row| row.get(0)).optional()? {
        return Ok(lane);
    }
    cx.db
        .prepare_cached("INSERT INTO lanes (tenant, queue, workflow, version, runs) VALUES (?1, ?2, ?3, ?4, 0)")?
        .execute([tenant, queue, workflow, version])?;
    Ok(cx.db.last_insert_rowid())
}

pub(super) fn release(cx: Cx<'_>, command: &ReleaseRun) -> Outcome<Fenced> {
    let ReleaseRun { run, epoch, after } = command;
    let Some(mut row) = find(cx, run)? else { return Ok(Fenced::Lost) };
    let mut head = row.head;
    if head.is_held_by(epoch.0) {
        head.release(*after, cx.now);
        row.moved(cx, head);
        row.save(cx)?;
        return Ok(Fenced::Held);
    }
    // Said once more, before anybody claimed it.
    let again = head.state == RunState::Ready && head.epoch == epoch.0;
    Ok(if again { Fenced::Held } else { Fenced::Lost })
}

pub(super) fn finish(cx: Cx<'_>, command: &FinishRun) -> Outcome<Fenced> {
    let FinishRun { run: name, epoch, state, output } = command;
    cx.fits(output.len())?;
    if !state.is_final() {
        return Err(StoreError::Unsupported { what: "end a run in a state that is not an end" }.into());
    }
    let Some(mut row) = find(cx, name)? else { return Ok(Fenced::Lost) };
    let mut head = row.head;
    let (theirs, held) = match epoch {
        Some(epoch) => (head.epoch == epoch.0, head.is_held_by(epoch.0)),
        None => (row.unclaimed, row.unclaimed && !head.state.is_final()),
    };
    if held {
        head.finish(*state);
        row.moved(cx, head);
        row.bytes += output.len() as i64;
        keep_payload(cx, name, row.run, Part::Output, output)?;
        row.save(cx)?;
        return Ok(Fenced::Held);
    }
    let again = theirs && head.state == *state && self::output(cx, name, &row)? == *output;
    Ok(if again { Fenced::Held } else { Fenced::Lost })
}

/// Its result or error; empty once it is no longer kept.
pub(super) fn output(cx: Cx<'_>, name: &RunRef, row: &Row) -> Outcome<Payload> {
    if row.is_bare(cx) { Ok(Payload::default()) } else { payload(cx, name, row.run, Part::Output) }
}
