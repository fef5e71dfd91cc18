//! Claims, heartbeats, cancelling, and pinning to another version: who may advance a run, and where to.

use super::{
    audit,
    cx::Cx,
    effects, entries, escalations,
    fault::{Fault, Outcome},
    inbox, journal, ready, run_views,
    runs::{self, Part, Row},
    workers,
};
use crate::{
    AuditEntry, BeatRun, Beaten, CancelRun, Cancelling, ClaimRun, ClaimedRun, Epoch, Fenced, IfParked, JournalPage,
    MigrateRun, Parking, Payload, Place, RunRef,
};
use outlast_engine::run::{Beat, Claimed, Head};
use outlast_model::{
    Wall,
    policy::Priority,
    run::{EscalationKind, RunState, Verb},
};
use std::sync::Arc;

/// Those that a claim may take from: a lane, and whether only what somebody lost there.
type Lanes = Vec<(i64, bool)>;

pub(super) fn claim(cx: Cx<'_>, command: &ClaimRun) -> Outcome<Option<ClaimedRun>> {
    if workers::claims(cx, command)? {
        return Ok(None);
    }
    let lanes = lanes(cx, command)?;
    for priority in 0..Priority::ALL.len() as i64 {
        let mut after = None;
        while let Some(next) = first(cx, &lanes, priority, after)? {
            after = Some(next);
            let Some((name, row)) = runs::by_row(cx, next.1)? else { continue };
            let mut head = row.head;
            let epoch = cx.next_epoch()?;
            match head.claim(epoch.0, command.lease, cx.now) {
                Claimed::NotDue => {}
                Claimed::Poison => quarantine(cx, &name, row, head, &command.if_parked)?,
                Claimed::Granted => return granted(cx, name, row, head, command).map(Some),
            }
        }
    }
    Ok(None)
}

/// The lanes of the queues and versions that are asked for.
fn lanes(cx: Cx<'_>, command: &ClaimRun) -> Outcome<Lanes> {
    let ClaimRun { tenant, worker, queues, accepts, standby, .. } = command;
    let mut lanes = Lanes::new();
    for (at, queue) in queues.iter().enumerate() {
        if queues[..at].contains(queue) {
            continue;
        }
        let mut find = cx.db.prepare_cached(if tenant.is_some() { LANES_OF_TENANT } else { LANES })?;
        let mut rows = match tenant {
            Some(tenant) => find.query([&**queue, tenant.as_str()])?,
            None => find.query([queue])?,
        };
        let mut attended: Vec<(String, bool)> = Vec::new();
        while let Some(row) = rows.next()? {
            let (lane, of): (i64, String) = (row.get(0)?, row.get(1)?);
            let (workflow, version): (String, String) = (row.get(2)?, row.get(3)?);
            let fits = |versions: &[Arc<str>]| versions.is_empty() || versions.iter().any(|one| **one == *version);
            let accepted = accepts.iter().any(|one| *one.workflow == *workflow && fits(&one.versions));
            if !accepts.is_empty() && !accepted {
                continue;
            }
            let only_lost = match attended.iter().find(|(tenant, _)| *tenant == of) {
                _ if !standby => false,
                Some((_, attended)) => *attended,
                None => {
                    let found = workers::attend(cx, &of, queue, worker)?;
                    attended.push((of, found));
                    found
                }
            };
            lanes.push((lane, only_lost));
        }
    }
    Ok(lanes)
}

pub(super) const LANES: &str = "SELECT lane, tenant, workflow, version FROM lanes WHERE queue = ?1";
pub(super) const LANES_OF_TENANT: &str =
    "SELECT lane, tenant, workflow, version FROM lanes WHERE queue = ?1 AND tenant = ?2";

/// The run of these lanes that has been due longest, after this one.
fn first(cx: Cx<'_>, lanes: &Lanes, priority: i64, after: Option<(Wall, i64)>) -> Outcome<Option<(Wall, i64)>> {
    let mut found: Option<(Wall, i64)> = None;
    for (lane, only_lost) in lanes {
        for held in [true, false] {
            if *only_lost && !held {
                continue;
            }
            let next = ready::first(cx, (*lane, held, priority), after)?;
            found = match (found, next) {
                (Some(found), Some(next)) => Some(found.min(next)),
                (found, next) => found.or(next),
            };
        }
    }
    Ok(found)
}

fn granted(cx: Cx<'_>, name: RunRef, mut row: Row, head: Head, command: &ClaimRun) -> Outcome<ClaimedRun> {
    inbox::timer_went_off(cx, &name, &mut row)?;
    row.moved(cx, head);
    row.worker = Some((*command.worker).into());
    let epoch = Epoch(head.epoch);
    row.clone().save(cx)?;
    let limit = command.journal.min(JournalPage::LARGEST);
    let journal = journal::page_of(cx, &name, &row, 0, limit)?;
    let input = runs::payload(cx, &name, row.run, Part::Input)?;
    let run = run_views::of(cx, &name, &row)?;
    Ok(ClaimedRun { run, epoch, input, journal })
}

/// Hands a poisonous run to a person. Where there is no room for another question, or the one that was given for it is
/// used up, it stays as it is and is looked at again by the next claim.
fn quarantine(cx: Cx<'_>, name: &RunRef, mut row: Row, head: Head, asked: &IfParked) -> Outcome<()> {
    let parking = Parking {
        tenant: &name.tenant,
        run: Some(&name.id),
        step: None,
        effect: None,
        kind: EscalationKind::Poison,
        fingerprint: [0; 32],
        attempts: head.barren,
        asked,
    };
    match escalations::open_parked(cx, &parking) {
        Ok(escalation) => {
            row.moved(cx, head);
            row.waits_at = None;
            row.parked = Some((EscalationKind::Poison, escalation));
            row.save(cx)
        }
        Err(Fault::Store(error)) if error.of_command() => Ok(()),
        Err(fault) => Err(fault),
    }
}

pub(super) fn beat(cx: Cx<'_>, command: &BeatRun) -> Outcome<Beaten> {
    let BeatRun { run, epoch, lease } = command;
    let Some(mut row) = runs::find(cx, run)? else { return Ok(Beaten::Lost) };
    let beat = row.head.beat(epoch.0, *lease, cx.now);
    if beat == Beat::Lost {
        return Ok(Beaten::Lost);
    }
    let draining = match &row.worker {
        Some(worker) => workers::beats(cx, worker)?,
        None => false,
    };
    row.save(cx)?;
    Ok(match beat {
        Beat::Cancel => Beaten::Cancel,
        Beat::Held if draining => Beaten::Drain,
        Beat::Held | Beat::Lost => Beaten::Held,
    })
}

/// Cancels a run. What waits for a person only as part of it is closed; what may have happened is decided first.
pub(super) fn cancel(cx: Cx<'_>, command: &CancelRun) -> Outcome<Cancelling> {
    let CancelRun { run, by } = command;
    let Some(mut row) = runs::find(cx, run)? else { return Ok(Cancelling::Unknown) };
    if row.head.state.is_final() {
        return Ok(Cancelling::Over(row.head.state));
    }
    if row.head.cancelling {
        return Ok(Cancelling::Asked);
    }
    audit::append(cx, &audited("run.cancel", run, by, "{}"))?;
    match row.parked.clone() {
        Some((EscalationKind::UnknownEffect, _)) => {
            row.head.cancelling = true;
            row.touch(cx);
            row.save(cx)?;
        }
        Some((_, escalation)) => {
            let place = waits_where(cx, run, &row)?;
            escalations::close(cx, &escalation, by, Verb::Cancel, &Payload::default())?;
            effects::cancel_parked(cx, place.as_ref(), &escalation, Some(run), &Payload::default())?;
        }
        None => effects::cancel_now(cx, run)?,
    }
    let cancelled = runs::find(cx, run)?.is_some_and(|row| row.head.state == RunState::Cancelled);
    Ok(if cancelled { Cancelling::Cancelled } else { Cancelling::Asked })
}

/// Where the entry is kept that a run waits for.
fn waits_where(cx: Cx<'_>, name: &RunRef, row: &Row) -> Outcome<Option<Place>> {
    let Some(key) = &row.waits_at else { return Ok(None) };
    Ok(match entries::step(cx, row.run, key)? {
        Some(entries::Step::Own(_)) => Some(Place::Step { run: name.clone(), key: key.as_str().into() }),
        Some(entries::Step::Ledger(effect)) => effects::place(cx, effect)?,
        None => None,
    })
}

pub(super) fn migrate(cx: Cx<'_>, command: &MigrateRun) -> Outcome<Fenced> {
    let MigrateRun { run, version, by } = command;
    let Some(mut row) = runs::find(cx, run)? else { return Ok(Fenced::Lost) };
    let mut head = row.head;
    let held = head.state == RunState::Running && head.lease_until > cx.now;
    if held || head.state.is_final() {
        return Ok(Fenced::Lost);
    }
    let (queue, workflow, from): (String, String, String) = cx
        .db
        .prepare_cached("SELECT queue, workflow, version FROM lanes WHERE lane = ?1")?
        .query_row([row.lane], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    if *from == **version {
        return Ok(Fenced::Held);
    }
    let details = serde_json::json!({ "from": from, "to": version.as_ref() }).to_string();
    audit::append(cx, &audited("run.migrate", run, by, &details))?;
    if head.state == RunState::Running {
        // Whoever held it may come back, and must not go on in the version before.
        head.release(std::time::Duration::ZERO, cx.now);
    }
    row.moved(cx, head);
    row.lane = runs::lane(cx, run.tenant.as_str(), &queue, &workflow, version)?;
    row.save(cx)?;
    Ok(Fenced::Held)
}

fn audited(what: &str, run: &RunRef, by: &Arc<str>, details: &str) -> AuditEntry {
    AuditEntry {
        who: by.clone(),
        what: what.into(),
        subject: run.id.as_str().into(),
        tenant: run.tenant.clone(),
        details: details.into(),
    }
}
