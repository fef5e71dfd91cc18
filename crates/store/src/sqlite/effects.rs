//! Effects: the tenants' ledgers, what is done about an outcome nobody knows, and what a person's decision does.

use super::{
    cx::{Cx, Kind},
    entries::{self, Column, Kept},
    fault::{Fault, Outcome},
    journal, retention, runs,
    steps::{self, park},
};
use crate::{BeginStep, ClaimUnknown, Payload, Place, RunRef, UnknownEffect};
use outlast_engine::run::{Answer, Ask, Event, Resolution, transition};
use outlast_model::{RunId, TenantId, Wall};
use rusqlite::{OptionalExtension, params};

/// At most so many are claimed at once.
const AT_ONCE: usize = 100;
/// At most so many are looked at for it.
const LOOKED_AT: i64 = 1_000;

/// How far it is on its way out, of what is kept only to be looked up: it has ended, and so have all runs that point to
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeping {
    Whole,
    Bare,
    Gone,
}

fn kept_for(cx: Cx<'_>, kept: &Kept) -> Outcome<Keeping> {
    let Some(ended) = kept.ended_at.filter(|at| at.0 <= cx.before(cx.limits.payload_keep)) else {
        return Ok(Keeping::Whole);
    };
    let mut last = cx.db.prepare_cached(
        "SELECT max(coalesce(runs.ended_at, 9223372036854775807)) FROM steps JOIN runs USING (run)
         WHERE steps.effect = ?1",
    )?;
    let last: Option<i64> = last.query_row([kept.row], |row| row.get(0))?;
    let since = last.map_or(ended.0, |last| last.max(ended.0));
    Ok(match since {
        since if since <= cx.before(cx.limits.key_keep) => Keeping::Gone,
        since if since <= cx.before(cx.limits.payload_keep) => Keeping::Bare,
        _ => Keeping::Whole,
    })
}

/// The entry that is kept in the ledger there, if it is still known; and whether its payloads are no longer kept.
pub(super) fn known(cx: Cx<'_>, tenant: &str, scope: &str, key: &str) -> Outcome<Option<(Kept, bool)>> {
    let Some(kept) = entries::effect(cx, tenant, scope, key)? else { return Ok(None) };
    Ok(match kept_for(cx, &kept)? {
        Keeping::Gone => None,
        Keeping::Bare => Some((kept, true)),
        Keeping::Whole => Some((kept, false)),
    })
}

/// Whether its payloads are no longer kept.
pub(super) fn is_kept_bare(cx: Cx<'_>, kept: &Kept) -> Outcome<bool> {
    Ok(kept_for(cx, kept)? != Keeping::Whole)
}

/// Whether the payloads of what a step stands for are no longer kept.
pub(super) fn is_bare(cx: Cx<'_>, command: &BeginStep, kept: &Kept) -> Outcome<bool> {
    match &command.place {
        Place::Step { run, .. } => match kept.ended_at {
            // Its run ended later than it did.
            Some(at) if at.0 <= cx.before(cx.limits.payload_keep) => {
                Ok(runs::find(cx, run)?.is_none_or(|row| row.is_bare(cx)))
            }
            Some(_) | None => Ok(false),
        },
        Place::Effect { .. } => is_kept_bare(cx, kept),
    }
}

/// Room for one more, in place of what is no longer known under the same name.
pub(super) fn make_room(cx: Cx<'_>, tenant: &str, scope: &str, key: &str, bytes: usize) -> Outcome<()> {
    cx.db
        .prepare_cached("DELETE FROM effects WHERE tenant = ?1 AND scope = ?2 AND key = ?3")?
        .execute([tenant, scope, key])?;
    if cx.over(Kind::Effects, tenant, bytes)?.is_some() {
        retention::purge_effects(cx, &mut u32::MAX.clone())?;
    }
    match cx.over(Kind::Effects, tenant, bytes)? {
        Some(of_tenant) => Err(Fault::Refused(Kind::Effects.too_many(of_tenant))),
        None => Ok(()),
    }
}

/// Looks after entries with claims of their own, those due longest first.
pub(super) fn claim_unknown(cx: Cx<'_>, command: &ClaimUnknown) -> Outcome<Vec<UnknownEffect>> {
    let mut asked = command.if_parked.iter();
    let mut given = Vec::new();
    for (_, place) in unattended(cx)? {
        if given.len() >= AT_ONCE.min(command.limit as usize) {
            break;
        }
        let Some((mut kept, of)) = steps::find(cx, &place)? else { continue };
        if kept.is_repeated(cx.now) {
            continue;
        }
        match transition(&mut kept.entry, Event::Lapse, cx.now) {
            Answer::Parked { why, newly } => {
                let Some(asked) = asked.next() else { continue };
                let step = kept.step_of(&place);
                let by = of.as_ref().zip(step.as_ref()).map(|((run, _), step)| (run, &**step));
                park(cx, &place, by, &mut kept, why, newly, asked)?;
                entries::save(cx, &place, &mut kept, None)?;
                if let (Some((_, mut row)), Some(step), Some(escalation)) = (of, step, &kept.escalation) {
                    let head = row.head;
                    row.park(cx, head, &step, why, escalation);
                    row.save(cx)?;
                }
            }
            Answer::Recorded => {
                if let Some(attempt) = verify(cx, command, &mut kept)? {
                    let row = kept.row.unwrap_or_default();
                    let input = entries::payload(cx, &place, row, Column::Input)?.unwrap_or_default();
                    let (epoch, name) = (crate::Epoch(kept.entry.epoch), kept.name.clone());
                    given.push(UnknownEffect { place: place.clone(), epoch, attempt, name, input });
                }
                entries::save(cx, &place, &mut kept, None)?;
            }
            Answer::Wait { .. } => entries::save(cx, &place, &mut kept, None)?,
            Answer::Execute { .. }
            | Answer::Verify { .. }
            | Answer::Replay { .. }
            | Answer::InFlight { .. }
            | Answer::Mismatch
            | Answer::Stale => {}
        }
    }
    Ok(given)
}

fn verify(cx: Cx<'_>, command: &ClaimUnknown, kept: &mut Kept) -> Outcome<Option<u32>> {
    let until = Wall(cx.after(command.lease));
    let ask = Ask {
        class: kept.entry.class,
        fingerprint: kept.entry.fingerprint,
        budget: kept.entry.budget,
        epoch: cx.next_epoch()?.0,
        held_until: until,
        deadline: until,
        needs_approval: false,
        strict: false,
        takes_over: None,
    };
    Ok(match transition(&mut kept.entry, Event::Begin(ask), cx.now) {
        Answer::Verify { attempt } => Some(attempt),
        Answer::Execute { .. }
        | Answer::Replay { .. }
        | Answer::Wait { .. }
        | Answer::InFlight { .. }
        | Answer::Parked { .. }
        | Answer::Mismatch
        | Answer::Recorded
        | Answer::Stale => None,
    })
}

pub(super) const STEPS_TO_LOOK_AT: &str = "SELECT tenant, id, steps.key,
    CASE steps.state WHEN 3 THEN not_before ELSE held_until END FROM steps JOIN runs USING (run)
    WHERE look_at <= ?1 ORDER BY look_at, step LIMIT ?2";
pub(super) const EFFECTS_TO_LOOK_AT: &str = "SELECT tenant, scope, key,
    CASE state WHEN 3 THEN not_before ELSE held_until END FROM effects WHERE look_at <= ?1
    ORDER BY look_at, effect LIMIT ?2";

/// Entries with claims of their own that nobody holds, and since when they could be looked into.
fn unattended(cx: Cx<'_>) -> Outcome<Vec<(Wall, Place)>> {
    let parts = |row: &rusqlite::Row<'_>| -> rusqlite::Result<(String, String, String, i64)> {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    };
    let mut found = Vec::new();
    let mut steps = cx.db.prepare_cached(STEPS_TO_LOOK_AT)?;
    for step in steps.query_map(params![cx.now.0, LOOKED_AT], parts)? {
        let (tenant, id, key, since) = step?;
        let run = RunRef { tenant: TenantId::new(tenant), id: RunId::new(id) };
        found.push((Wall(since), Place::Step { run, key: key.into() }));
    }
    let mut effects = cx.db.prepare_cached(EFFECTS_TO_LOOK_AT)?;
    for effect in effects.query_map(params![cx.now.0, LOOKED_AT], parts)? {
        let (tenant, scope, key, since) = effect?;
        let tenant = TenantId::new(tenant);
        found.push((Wall(since), Place::Effect { tenant, scope: scope.into(), key: key.into() }));
    }
    found.sort();
    Ok(found)
}

/// A person decided about what waits under this escalation: the entry hears it, and every run that waits for it goes on.
pub(super) fn resolve(
    cx: Cx<'_>,
    place: Option<&Place>,
    escalation: &str,
    resolution: Resolution,
    result: Option<&Payload>,
    decision: &Payload,
) -> Outcome<()> {
    settle(cx, place, escalation, resolution, result, decision)?;
    wake(cx, escalation)
}

/// A person wants it not to happen, and its run not to go on. Other runs that wait for the same effect do.
pub(super) fn cancel_parked(
    cx: Cx<'_>,
    place: Option<&Place>,
    escalation: &str,
    run: Option<&RunRef>,
    decision: &Payload,
) -> Outcome<()> {
    settle(cx, place, escalation, Resolution::Failed, None, decision)?;
    if let Some(run) = run {
        cancel_now(cx, run)?;
    }
    wake(cx, escalation)
}

/// Cancels a run as it stands.
pub(super) fn cancel_now(cx: Cx<'_>, run: &RunRef) -> Outcome<()> {
    let Some(mut row) = runs::find(cx, run)? else { return Ok(()) };
    let has_undo = journal::has_undo(cx, row.run)?;
    let mut head = row.head;
    head.cancel(has_undo, cx.now);
    row.moved(cx, head);
    row.save(cx)
}

fn settle(
    cx: Cx<'_>,
    place: Option<&Place>,
    escalation: &str,
    resolution: Resolution,
    result: Option<&Payload>,
    decision: &Payload,
) -> Outcome<()> {
    let Some(place) = place else { return Ok(()) };
    let Some((mut kept, of)) = steps::find(cx, place)? else { return Ok(()) };
    if kept.escalation.as_deref() != Some(escalation)
        || transition(&mut kept.entry, Event::Decide(resolution), cx.now) != Answer::Recorded
    {
        return Ok(());
    }
    let bytes = kept.bytes;
    kept.escalation = None;
    kept.ended_at = kept.entry.state.is_final().then_some(cx.now);
    entries::put_payload(cx, place, &mut kept, Column::Decision, decision)?;
    entries::save(cx, place, &mut kept, result)?;
    if let (Place::Step { .. }, Some((_, mut row))) = (place, of) {
        row.bytes += kept.bytes - bytes;
        row.save(cx)?;
    }
    Ok(())
}

/// Lets every run go on that waits under this escalation.
pub(super) fn wake(cx: Cx<'_>, escalation: &str) -> Outcome<()> {
    let runs: Vec<i64> = cx
        .db
        .prepare_cached("SELECT run FROM runs WHERE escalation = ?1")?
        .query_map([escalation], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for run in runs {
        let Some((_, mut row)) = runs::by_row(cx, run)? else { continue };
        let has_undo = journal::has_undo(cx, run)?;
        row.woken(cx, has_undo);
        row.save(cx)?;
    }
    Ok(())
}

/// What an entry of the ledger is called.
pub(super) fn place(cx: Cx<'_>, effect: i64) -> Outcome<Option<Place>> {
    let mut find = cx.db.prepare_cached("SELECT tenant, scope, key FROM effects WHERE effect = ?1")?;
    let found = find.query_row([effect], |row| {
        let (tenant, scope, key): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(Place::Effect { tenant: TenantId::new(tenant), scope: scope.into(), key: key.into() })
    });
    Ok(found.optional()?)
}
