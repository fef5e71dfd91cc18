//! Signals and timers: what a run is told, and what it waits for.

use super::{
    blobs::{self, Stored, joined},
    cx::Cx,
    entries::{self, Column, First, Kept, Slot, Step},
    fault::Outcome,
    runs::{self, Row},
    words::{names, read_names},
};
use crate::{Payload, Place, RunRef, SignalRun, Signalled, StoreError, Until, WaitRun, Waited, seal::Owner};
use outlast_engine::run::{Ask, Ended, Entry, Event, MayNotBegin, transition};
use outlast_model::{
    Usd, Wall,
    run::{EffectClass, LedgerState, RetryBudget, RunState, StepKind},
};
use rusqlite::{OptionalExtension, params};
use std::sync::Arc;

/// What ended a wait.
#[derive(Clone, Debug)]
enum Came {
    Signal { name: Arc<str>, payload: Payload },
    Timer,
}

fn owner<'a>(tenant: &'a str, id: &'a str) -> Owner<'a> {
    Owner { table: "inbox", tenant, id, column: "payload" }
}

pub(super) fn wait(cx: Cx<'_>, command: &WaitRun) -> Outcome<Waited> {
    let WaitRun { run: name, epoch, key, signals, timer } = command;
    let Some(mut row) = runs::find(cx, name)? else { return Ok(Waited::Refused(MayNotBegin::Lost)) };
    let waits_here = row.waits_at.as_deref() == Some(&**key);
    if row.head.state == RunState::Waiting && row.head.epoch == epoch.0 && waits_here {
        // Said once more.
        return Ok(Waited::Parked);
    }
    let known = entries::step(cx, row.run, key)?;
    let entry = match &known {
        Some(Step::Own(kept)) => Some(&kept.entry),
        Some(Step::Ledger(_)) | None => None,
    };
    if let Err(why) = row.head.may_ask(Some(epoch.0), entry, false, cx.now) {
        return Ok(Waited::Refused(why));
    }
    let place = Place::Step { run: name.clone(), key: key.clone() };
    let mut kept = match known {
        Some(Step::Own(kept)) if kept.kind != StepKind::Wait => return Ok(Waited::Mismatch),
        Some(Step::Ledger(_)) => return Ok(Waited::Mismatch),
        Some(Step::Own(kept)) if kept.entry.state == LedgerState::Done => return replay(cx, &place, &kept),
        Some(Step::Own(kept)) => *kept,
        None => begin(cx, &place, &mut row, command, *timer)?,
    };
    row.last_step = Some(key.clone());
    row.touch(cx);
    if let Some(came) = take(cx, name, &mut row, signals)? {
        let waited = over(cx, &place, &mut row, &mut kept, came)?;
        row.save(cx)?;
        return Ok(waited);
    }
    let timer = self::timer(cx, &kept)?;
    if timer.is_some_and(|timer| timer <= cx.now) {
        let waited = over(cx, &place, &mut row, &mut kept, Came::Timer)?;
        row.save(cx)?;
        return Ok(waited);
    }
    row.waits(cx, timer, key, signals);
    row.save(cx)?;
    Ok(Waited::Parked)
}

/// A wait that is new. What it is asked with does not count: its first timer stands.
fn begin(cx: Cx<'_>, place: &Place, row: &mut Row, command: &WaitRun, timer: Option<Until>) -> Outcome<Kept> {
    if row.steps as u64 >= cx.limits.steps {
        return Err(StoreError::LimitReached { what: "steps of this run", of_tenant: false }.into());
    }
    let ask = Ask {
        class: EffectClass::Pure,
        fingerprint: [0; 32],
        budget: RetryBudget::default(),
        epoch: command.epoch.0,
        held_until: cx.now,
        deadline: cx.now,
        needs_approval: false,
        strict: false,
        takes_over: None,
    };
    let mut entry = Entry::new(&ask, cx.now);
    let _ = transition(&mut entry, Event::Begin(ask), cx.now);
    let mut kept = Kept {
        row: None,
        entry,
        kind: StepKind::Wait,
        name: "wait".into(),
        undoes: None,
        divergences: 0,
        by_run: None,
        by_step: None,
        fenced: true,
        escalation: None,
        begun_at: cx.now,
        ended_at: None,
        bytes: 0,
        has_payload: false,
        has_decision: false,
    };
    let slot = Slot::Step { run: row.run, sequence: row.steps + 1, key: &command.key };
    entries::insert(cx, place, &slot, &mut kept, &First::default())?;
    let timer = timer.map(|timer| match timer {
        Until::In(duration) => cx.after(duration),
        Until::At(at) => at.0,
    });
    if timer.is_some() {
        cx.db.prepare_cached("UPDATE steps SET timer = ?2 WHERE step = ?1")?.execute(params![kept.row, timer])?;
    }
    row.steps += 1;
    row.head.progressed(Usd::ZERO);
    Ok(kept)
}

fn timer(cx: Cx<'_>, kept: &Kept) -> Outcome<Option<Wall>> {
    let mut find = cx.db.prepare_cached("SELECT timer FROM steps WHERE step = ?1")?;
    Ok(find.query_row([kept.row], |row| row.get::<_, Option<i64>>(0))?.map(Wall))
}

/// How a wait that is over ended.
fn replay(cx: Cx<'_>, place: &Place, kept: &Kept) -> Outcome<Waited> {
    let mut find = cx.db.prepare_cached("SELECT signal FROM steps WHERE step = ?1")?;
    let signal: Option<String> = find.query_row([kept.row], |row| row.get(0))?;
    let Some(name) = signal else { return Ok(Waited::Timer) };
    let payload = entries::payload(cx, place, kept.row.unwrap_or_default(), Column::Payload)?;
    Ok(Waited::Signal { name: name.into(), payload: payload.unwrap_or_default() })
}

/// Writes the end of a wait down.
fn over(cx: Cx<'_>, place: &Place, row: &mut Row, kept: &mut Kept, came: Came) -> Outcome<Waited> {
    let (epoch, attempt) = (kept.entry.epoch, kept.entry.attempt);
    let end = Event::End { epoch, attempt, ended: Ended::Done, cost: Usd::ZERO };
    let _ = transition(&mut kept.entry, end, cx.now);
    kept.ended_at = Some(cx.now);
    let bytes = kept.bytes;
    let waited = match came {
        Came::Signal { name, payload } => {
            entries::save(cx, place, kept, Some(&payload))?;
            cx.db.prepare_cached("UPDATE steps SET signal = ?2 WHERE step = ?1")?.execute(params![kept.row, name])?;
            Waited::Signal { name, payload }
        }
        Came::Timer => {
            entries::save(cx, place, kept, None)?;
            Waited::Timer
        }
    };
    row.bytes += kept.bytes - bytes;
    row.head.progressed(Usd::ZERO);
    row.touch(cx);
    Ok(waited)
}

/// It is claimed because its timer went off: that is what ended its wait.
pub(super) fn timer_went_off(cx: Cx<'_>, name: &RunRef, row: &mut Row) -> Outcome<()> {
    let Some(key) = row.waits_at.clone().filter(|_| row.head.state == RunState::Waiting) else { return Ok(()) };
    end_wait(cx, name, row, &key, Came::Timer)
}

fn end_wait(cx: Cx<'_>, name: &RunRef, row: &mut Row, key: &str, came: Came) -> Outcome<()> {
    if let Some(Step::Own(mut kept)) = entries::step(cx, row.run, key)? {
        let place = Place::Step { run: name.clone(), key: key.into() };
        over(cx, &place, row, &mut kept, came)?;
    }
    Ok(())
}

/// The first signal of one of these names that came, which is used up by this.
fn take(cx: Cx<'_>, name: &RunRef, row: &mut Row, signals: &[Arc<str>]) -> Outcome<Option<Came>> {
    if signals.is_empty() {
        return Ok(None);
    }
    let mut find = cx.db.prepare_cached(
        "SELECT signal, dedupe, name, bytes, payload, payload_blob FROM inbox
         WHERE run = ?1 AND given = 0 AND name IN (SELECT value FROM json_each(?2)) ORDER BY signal LIMIT 1",
    )?;
    type Found = (i64, String, String, i64, Stored);
    let found: Option<Found> = find
        .query_row(params![row.run, names(signals)], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, Stored::read(row, 4)?))
        })
        .optional()?;
    let Some((signal, dedupe, of, bytes, stored)) = found else { return Ok(None) };
    let id = joined(name.id.as_str(), &dedupe);
    let payload = blobs::open(cx, owner(name.tenant.as_str(), &id), stored)?.unwrap_or_default();
    cx.db
        .prepare_cached("UPDATE inbox SET given = 1, bytes = 0, payload = NULL, payload_blob = NULL WHERE signal = ?1")?
        .execute([signal])?;
    row.bytes -= bytes;
    Ok(Some(Came::Signal { name: of.into(), payload }))
}

pub(super) fn signal(cx: Cx<'_>, command: &SignalRun) -> Outcome<Signalled> {
    let SignalRun { run: name, dedupe, name: signal, payload } = command;
    cx.fits(payload.len())?;
    let Some(mut row) = runs::find(cx, name)? else { return Ok(Signalled::Unknown) };
    let mut before = cx.db.prepare_cached("SELECT 1 FROM inbox WHERE run = ?1 AND dedupe = ?2")?;
    if before.exists(params![row.run, dedupe])? {
        return Ok(Signalled::Before);
    }
    if row.head.state.is_final() {
        return Ok(Signalled::Over);
    }
    let waited_for = match row.waits_for.as_deref() {
        Some(text) => read_names(cx, text)?.contains(signal),
        None => false,
    };
    let waits_at = row.waits_at.clone().filter(|_| waited_for);
    row.touch(cx);
    match waits_at {
        Some(key) => {
            keep(cx, name, &row, command, true)?;
            let came = Came::Signal { name: signal.clone(), payload: payload.clone() };
            end_wait(cx, name, &mut row, &key, came)?;
            row.woken(cx, false);
        }
        None => {
            let mut waiting = cx.db.prepare_cached("SELECT count(*) FROM inbox WHERE run = ?1 AND given = 0")?;
            let waiting: i64 = waiting.query_row([row.run], |row| row.get(0))?;
            if waiting >= i64::from(cx.limits.signals) {
                return Ok(Signalled::Full);
            }
            keep(cx, name, &row, command, false)?;
            row.bytes += payload.len() as i64;
        }
    }
    row.save(cx)?;
    Ok(Signalled::Accepted)
}

/// Keeps a signal, or, of one that is given on at once, that it came.
fn keep(cx: Cx<'_>, name: &RunRef, row: &Row, command: &SignalRun, given: bool) -> Outcome<()> {
    let SignalRun { dedupe, name: signal, payload, .. } = command;
    let id = joined(name.id.as_str(), dedupe);
    let (stored, bytes) = match given {
        true => (Stored::default(), 0),
        false => (blobs::keep_some(cx, owner(name.tenant.as_str(), &id), payload)?, payload.len()),
    };
    cx.db
        .prepare_cached(
            "INSERT INTO inbox (run, dedupe, name, given, bytes, payload, payload_blob)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![row.run, dedupe, signal, given, bytes as i64, stored.inline, stored.blob])?;
    Ok(())
}
