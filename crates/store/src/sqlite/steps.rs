//! The two commands that every entry of the ledger goes through, wherever it is kept: begin and end.
//!
//! What is decided is the engine's. Here it is read, asked and written back, in as few statements as that takes: a step
//! of a run is two reads and three writes to begin and as many to end, the triggers that count bytes apart.

use super::{
    cx::Cx,
    effects,
    entries::{self, Column, First, Kept, Slot, Step},
    escalations,
    fault::Outcome,
    runs::{self, Row},
};
use crate::{
    BeginStep, EndStep, Epoch, Fenced, IfParked, Parking, Payload, Place, RenewStep, RunRef, StepBegun, StepEnded,
    StoreError,
};
use outlast_engine::run::{Answer, Ask, Entry, Event, transition};
use outlast_model::{
    Usd, Wall,
    run::{EscalationKind, LedgerState},
};
use rusqlite::params;
use std::{sync::Arc, time::Duration};

/// The run a step belongs to, its row, and the step's key there.
struct Of<'a> {
    name: &'a RunRef,
    key: &'a Arc<str>,
    row: Row,
    /// The key is in the journal.
    known: bool,
}

/// The run that a step belongs to, and its key there.
fn of(command: &BeginStep) -> Option<(&RunRef, &Arc<str>)> {
    match &command.place {
        Place::Step { run, key } => Some((run, key)),
        Place::Effect { .. } => command.journal.as_ref().map(|(run, key)| (run, key)),
    }
}

pub(super) fn begin(cx: Cx<'_>, command: &BeginStep) -> Outcome<StepBegun> {
    cx.fits(command.input.len())?;
    if let Some(undo) = &command.undo {
        cx.fits(undo.len())?;
    }
    let (mut of, stands) = match self::of(command) {
        Some((name, key)) => {
            let Some(row) = runs::find(cx, name)? else { return Ok(StepBegun::NoRun) };
            let stands = entries::step(cx, row.run, key)?;
            (Some(Of { name, key, row, known: stands.is_some() }), stands)
        }
        None => (None, None),
    };
    let (known, elsewhere) = known(cx, command, stands)?;
    if let Some(Of { row, known: known_step, .. }) = &mut of {
        let epoch = command.epoch.or(command.fence).map(|epoch| epoch.0);
        let entry = known.as_ref().map(|kept| &kept.entry);
        if let Err(why) = row.head.may_ask(epoch, entry, command.undoes.is_some(), cx.now) {
            return Ok(StepBegun::Refused(why));
        }
        if elsewhere {
            return Ok(StepBegun::Mismatch);
        }
        if let Some(Epoch(epoch)) = command.epoch {
            let _ = row.head.beat(epoch, command.lease, cx.now);
        }
        if !*known_step && row.steps.unsigned_abs() >= cx.limits.steps {
            return Err(StoreError::LimitReached { what: "steps of this run", of_tenant: false }.into());
        }
    }
    if let (Place::Effect { tenant, scope, key }, None) = (&command.place, &known) {
        let bytes = command.input.len() + command.undo.as_ref().map_or(0, Payload::len);
        effects::make_room(cx, tenant.as_str(), scope, key, bytes)?;
    }
    ask(cx, command, of, known)
}

/// The entry that is asked for, if there is one; and whether the step stands in the journal for another place.
fn known(cx: Cx<'_>, command: &BeginStep, stands: Option<Step>) -> Outcome<(Option<Kept>, bool)> {
    match (&command.place, stands) {
        (Place::Step { .. }, None) => Ok((None, false)),
        (Place::Step { .. }, Some(Step::Own(kept))) => Ok((Some(*kept), false)),
        (Place::Step { .. }, Some(Step::Ledger(_))) => Ok((None, true)),
        (Place::Effect { tenant, scope, key }, stands) => {
            let known = effects::known(cx, tenant.as_str(), scope, key)?.map(|(kept, _)| kept);
            let elsewhere = match stands {
                None => false,
                Some(Step::Own(_)) => true,
                Some(Step::Ledger(row)) => known.as_ref().is_none_or(|kept| kept.row != Some(row)),
            };
            Ok((known, elsewhere))
        }
    }
}

/// Asks the ledger, and carries out what it says.
fn ask(cx: Cx<'_>, command: &BeginStep, of: Option<Of<'_>>, known: Option<Kept>) -> Outcome<StepBegun> {
    let (epoch, held_until) = match (command.epoch, &of) {
        (Some(epoch), Some(of)) => (epoch, of.row.head.lease_until),
        (Some(_) | None, _) => (cx.next_epoch()?, Wall(cx.after(command.lease))),
    };
    let mut ask = Ask {
        class: command.class,
        fingerprint: command.fingerprint,
        budget: command.budget,
        epoch: epoch.0,
        held_until,
        deadline: Wall(cx.after(command.call_deadline)),
        needs_approval: command.needs_approval,
        strict: command.strict,
        takes_over: None,
    };
    let mut kept = known.unwrap_or_else(|| first(command, of.as_ref(), Entry::new(&ask, cx.now), cx.now));
    ask.takes_over = look_for_holder(cx, &mut kept, of.as_ref())?;
    let bare = kept.row.is_some() && kept.bytes > 0 && effects::is_bare(cx, command, &kept)?;
    let (before, bytes) = (kept.entry.clone(), kept.bytes);
    let was = (kept.by_run, kept.by_step.clone(), kept.fenced, kept.divergences, kept.ended_at);
    let answer = transition(&mut kept.entry, Event::Begin(ask), cx.now);
    match answer {
        Answer::Execute { .. } | Answer::Verify { .. } => {
            kept.by_run = of.as_ref().map(|of| of.row.run);
            kept.by_step = by_step(&command.place, of.as_ref());
            kept.fenced = of.is_some() && command.epoch.is_some();
        }
        Answer::Replay { diverged } => {
            kept.divergences += u32::from(diverged);
            kept.ended_at = kept.ended_at.or(Some(cx.now));
        }
        Answer::Parked { why, newly } => {
            let by = of.as_ref().map(|of| (of.name, &**of.key));
            park(cx, &command.place, by, &mut kept, why, newly, &command.if_parked)?;
        }
        Answer::Wait { .. } | Answer::InFlight { .. } | Answer::Mismatch | Answer::Recorded | Answer::Stale => {}
    }
    let now_is = (kept.by_run, kept.by_step.clone(), kept.fenced, kept.divergences, kept.ended_at);
    if bare && answer != Answer::Mismatch {
        // What is told as no longer kept is not kept.
        entries::drop_payloads(cx, &command.place, &mut kept)?;
    }
    let changed = bare || kept.entry != before || now_is != was || matches!(answer, Answer::Parked { .. });
    write_begun(cx, command, of, &mut kept, (&before, bytes), (answer, changed))?;
    begun(cx, command, &kept, answer)
}

fn by_step(place: &Place, of: Option<&Of<'_>>) -> Option<Arc<str>> {
    match place {
        // It is the step itself.
        Place::Step { .. } => None,
        Place::Effect { .. } => of.map(|of| of.key.clone()),
    }
}

/// An entry that was never asked for.
fn first(command: &BeginStep, of: Option<&Of<'_>>, entry: Entry, now: Wall) -> Kept {
    Kept {
        row: None,
        entry,
        kind: command.kind,
        name: command.name.clone(),
        undoes: command.undoes.clone(),
        divergences: 0,
        by_run: of.map(|of| of.row.run),
        by_step: by_step(&command.place, of),
        fenced: command.epoch.is_some(),
        escalation: None,
        begun_at: now,
        ended_at: None,
        bytes: 0,
        has_payload: false,
        has_decision: false,
    }
}

/// What is known here of whoever began the last attempt with a run's claim: it may have been renewed since, or be
/// somebody else's by now. Says since when it is known to be gone, if it is.
fn look_for_holder(cx: Cx<'_>, kept: &mut Kept, of: Option<&Of<'_>>) -> Outcome<Option<Wall>> {
    let Some(run) = kept.by_run.filter(|_| kept.fenced && kept.row.is_some()) else { return Ok(None) };
    let found;
    let row = match of {
        Some(of) if of.row.run == run => &of.row,
        Some(_) | None => {
            found = runs::by_row(cx, run)?;
            match &found {
                Some((_, row)) => row,
                None => return Ok(Some(cx.now)),
            }
        }
    };
    if row.head.is_held_by(kept.entry.epoch) {
        let _ = kept.entry.renew(kept.entry.epoch, row.head.lease_until);
        return Ok(None);
    }
    Ok(Some(row.since))
}

/// Writes down what the beginning of a step came to: the entry, its place in the journal, the run.
fn write_begun(
    cx: Cx<'_>,
    command: &BeginStep,
    of: Option<Of<'_>>,
    kept: &mut Kept,
    (before, bytes): (&Entry, i64),
    (answer, changed): (Answer, bool),
) -> Outcome<()> {
    let enters = match answer {
        Answer::Execute { .. } | Answer::Verify { .. } | Answer::Replay { .. } | Answer::Parked { .. } => true,
        Answer::Wait { .. } | Answer::InFlight { .. } | Answer::Mismatch | Answer::Recorded | Answer::Stale => false,
    };
    let mut of = of;
    match (kept.row, &command.place) {
        (Some(_), _) => {
            let executes = matches!(answer, Answer::Execute { .. });
            if executes && kept.entry.fingerprint != before.fingerprint {
                entries::put_payload(cx, &command.place, kept, Column::Input, &command.input)?;
            }
            if changed {
                entries::save(cx, &command.place, kept, None)?;
            }
        }
        (None, Place::Step { key, .. }) => {
            if let Some(of) = &of {
                let slot = Slot::Step { run: of.row.run, sequence: of.row.steps + 1, key };
                insert(cx, command, &slot, kept)?;
            }
        }
        (None, Place::Effect { tenant, scope, key }) => {
            let slot = Slot::Effect { tenant: tenant.as_str(), scope, key };
            insert(cx, command, &slot, kept)?;
        }
    }
    let Some(of) = &mut of else { return Ok(()) };
    if enters && !of.known {
        if let (Place::Effect { .. }, Some(effect)) = (&command.place, kept.row) {
            point(cx, of, effect, kept)?;
        }
        of.row.steps += 1;
        of.row.head.progressed(Usd::ZERO);
    }
    if let Place::Step { .. } = &command.place {
        of.row.bytes += kept.bytes - bytes;
    }
    if enters {
        of.row.last_step = Some(of.key.clone());
    }
    match (answer, &kept.escalation) {
        (Answer::Parked { why, .. }, Some(escalation)) => {
            let head = of.row.head;
            of.row.park(cx, head, of.key, why, escalation);
        }
        (_, _) => of.row.touch(cx),
    }
    of.row.clone().save(cx)
}

fn insert(cx: Cx<'_>, command: &BeginStep, slot: &Slot<'_>, kept: &mut Kept) -> Outcome<()> {
    let first = First { payload: None, input: Some(&command.input), undo: command.undo.as_ref() };
    entries::insert(cx, &command.place, slot, kept, &first)
}

/// The journal's row of a step that is kept in the tenant's ledger.
fn point(cx: Cx<'_>, of: &Of<'_>, effect: i64, kept: &Kept) -> Outcome<()> {
    cx.db
        .prepare_cached(
            "INSERT INTO steps (run, sequence, key, effect, kind, name, divergences, state, fingerprint, attempt,
                 forgiven, unclear, epoch, fenced, held_until, deadline, not_before, first_at, budget_from, spent,
                 approved, begun_at, bytes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, 0, x'', 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, ?7, 0)",
        )?
        .execute(params![of.row.run, of.row.steps + 1, of.key, effect, kept.kind.name(), kept.name, cx.now.0])?;
    Ok(())
}

/// The answer to whoever asked.
fn begun(cx: Cx<'_>, command: &BeginStep, kept: &Kept, answer: Answer) -> Outcome<StepBegun> {
    let payload = |column| match kept.row {
        Some(row) => entries::payload(cx, &command.place, row, column),
        None => Ok(None),
    };
    Ok(match answer {
        Answer::Execute { attempt } => StepBegun::Execute {
            attempt,
            epoch: Epoch(kept.entry.epoch),
            deadline: kept.entry.deadline,
            decision: if kept.has_decision { payload(Column::Decision)? } else { None },
        },
        Answer::Verify { attempt } => StepBegun::Verify {
            attempt,
            epoch: Epoch(kept.entry.epoch),
            input: payload(Column::Input)?.unwrap_or_default(),
        },
        Answer::Replay { diverged } => {
            let end = payload(Column::Payload)?;
            match kept.is_done() {
                true => StepBegun::Done { result: end.unwrap_or_default(), diverged },
                false => StepBegun::Failed { error: end.filter(|error| !error.is_empty()), diverged },
            }
        }
        Answer::Parked { why, .. } => {
            StepBegun::Parked { why, escalation: kept.escalation.clone().unwrap_or_default() }
        }
        Answer::Wait { until } => {
            StepBegun::Wait { after: between(cx.now, until), unknown: kept.entry.state == LedgerState::Unknown }
        }
        Answer::InFlight { until } => StepBegun::InFlight { after: between(cx.now, until) },
        Answer::Mismatch | Answer::Recorded | Answer::Stale => StepBegun::Mismatch,
    })
}

/// The escalation of an entry that waits for a person: opened, if it comes to wait just now.
pub(super) fn park(
    cx: Cx<'_>,
    place: &Place,
    by: Option<(&RunRef, &str)>,
    kept: &mut Kept,
    why: EscalationKind,
    newly: bool,
    asked: &IfParked,
) -> Outcome<()> {
    if !newly && kept.escalation.is_some() {
        return Ok(());
    }
    let (tenant, effect) = match place {
        Place::Step { run, .. } => (&run.tenant, None),
        Place::Effect { tenant, scope, key } => (tenant, Some((&**scope, &**key))),
    };
    let parking = Parking {
        tenant,
        run: by.map(|(run, _)| &run.id),
        step: by.map(|(_, step)| step),
        effect,
        kind: why,
        fingerprint: kept.entry.fingerprint,
        attempts: kept.entry.attempt,
        asked,
    };
    kept.escalation = Some(escalations::open_parked(cx, &parking)?);
    Ok(())
}

/// An entry, and the run it is in or that its last attempt was begun for.
type Found = (Kept, Option<(RunRef, Row)>);

/// The entry that is kept at a place, if it is still known, with the run it is in or that its last attempt was begun
/// for.
pub(super) fn find(cx: Cx<'_>, place: &Place) -> Outcome<Option<Found>> {
    match place {
        Place::Step { run, key } => {
            let Some(row) = runs::find(cx, run)? else { return Ok(None) };
            match entries::step(cx, row.run, key)? {
                Some(Step::Own(kept)) => Ok(Some((*kept, Some((run.clone(), row))))),
                Some(Step::Ledger(_)) | None => Ok(None),
            }
        }
        Place::Effect { tenant, scope, key } => {
            let Some((kept, _)) = effects::known(cx, tenant.as_str(), scope, key)? else { return Ok(None) };
            let of = match kept.by_run {
                Some(run) => runs::by_row(cx, run)?,
                None => None,
            };
            Ok(Some((kept, of)))
        }
    }
}

pub(super) fn renew(cx: Cx<'_>, command: &RenewStep) -> Outcome<Fenced> {
    let RenewStep { place, epoch, lease } = command;
    let Some((mut kept, _)) = find(cx, place)?.filter(|(kept, _)| !kept.fenced) else { return Ok(Fenced::Lost) };
    if !kept.entry.renew(epoch.0, Wall(cx.after(*lease))) {
        return Ok(Fenced::Lost);
    }
    entries::save(cx, place, &mut kept, None)?;
    Ok(Fenced::Held)
}

pub(super) fn end(cx: Cx<'_>, command: &EndStep) -> Outcome<StepEnded> {
    let EndStep { place, epoch, attempt, ended, payload, cost, lease, if_parked } = command;
    cx.fits(payload.len())?;
    let Some((mut kept, of)) = find(cx, place)? else { return Ok(StepEnded::Stale) };
    let before = kept.entry.clone();
    let bytes = kept.bytes;
    let event = Event::End { epoch: epoch.0, attempt: *attempt, ended: *ended, cost: *cost };
    let answer = transition(&mut kept.entry, event, cx.now);
    let step = kept.step_of(place);
    match answer {
        Answer::Stale => return Ok(StepEnded::Stale),
        Answer::Parked { why, newly } => {
            let by = of.as_ref().zip(step.as_ref()).map(|((run, _), step)| (run, &**step));
            park(cx, place, by, &mut kept, why, newly, if_parked)?;
        }
        Answer::Execute { .. }
        | Answer::Verify { .. }
        | Answer::Replay { .. }
        | Answer::Wait { .. }
        | Answer::InFlight { .. }
        | Answer::Mismatch
        | Answer::Recorded => {}
    }
    let changed = kept.entry != before;
    if changed {
        kept.ended_at = kept.entry.state.is_final().then_some(cx.now);
        entries::save(cx, place, &mut kept, Some(payload))?;
    }
    let come_to = come_to(cx, &kept);
    if let Some((_, mut row)) = of {
        if let Place::Step { .. } = place {
            row.bytes += kept.bytes - bytes;
        }
        if let Some(step) = step {
            let mut head = row.head;
            let _ = head.beat(epoch.0, *lease, cx.now);
            if changed {
                head.progressed(*cost);
            }
            match &come_to {
                StepEnded::Parked { why, escalation } if changed => row.park(cx, head, &step, *why, escalation),
                StepEnded::Parked { .. }
                | StepEnded::Done
                | StepEnded::Failed
                | StepEnded::Again { .. }
                | StepEnded::Unknown { .. }
                | StepEnded::Stale => row.moved(cx, head),
            }
        }
        row.save(cx)?;
    }
    Ok(come_to)
}

/// What an end that was taken came to.
fn come_to(cx: Cx<'_>, kept: &Kept) -> StepEnded {
    match kept.entry.state {
        LedgerState::Done => StepEnded::Done,
        LedgerState::FailedFinal => StepEnded::Failed,
        LedgerState::Absent => StepEnded::Again { after: between(cx.now, kept.entry.not_before) },
        LedgerState::Unknown | LedgerState::Intent | LedgerState::Verifying => {
            StepEnded::Unknown { after: between(cx.now, kept.entry.not_before) }
        }
        LedgerState::Parked => match (kept.entry.why, &kept.escalation) {
            (Some(why), Some(escalation)) => StepEnded::Parked { why, escalation: escalation.clone() },
            (_, _) => StepEnded::Stale,
        },
    }
}

impl Kept {
    /// The step, of the run that the last attempt was begun for, that waits for it. A wait is nobody's attempt.
    pub(super) fn step_of(&self, place: &Place) -> Option<Arc<str>> {
        self.by_run?;
        match place {
            Place::Step { key, .. } => Some(key.clone()),
            Place::Effect { .. } => self.by_step.clone(),
        }
    }
}

/// How long it is from now until then; nothing if that has passed.
pub(super) fn between(now: Wall, then: Wall) -> Duration {
    Duration::from_millis(u64::try_from(then.0.saturating_sub(now.0)).unwrap_or(0))
}
