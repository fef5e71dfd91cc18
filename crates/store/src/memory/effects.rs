//! Effects: the tenants' ledgers, what is done about an outcome nobody knows, and what a person's decision does.

use super::{
    Facts, after,
    journal::{Kept, Row as Step},
    runs::Runs,
    tally::Tally,
};
use crate::{ClaimUnknown, Limits, Payload, Place, RunRef, StoreError, UnknownEffect};
use outlast_engine::run::{Answer, Ask, Event, IfUnknown, Resolution, transition};
use outlast_model::{TenantId, Wall, run::LedgerState};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// At most so many are claimed at once.
const AT_ONCE: usize = 100;

#[derive(Clone, Debug, Default)]
pub(super) struct Effects {
    rows: BTreeMap<Key, Row>,
    tally: Tally,
}

type Key = (TenantId, Arc<str>, Arc<str>);

#[derive(Clone, Debug)]
struct Row {
    kept: Kept,
    /// The journals that point to it, by run and step.
    journals: BTreeSet<(RunRef, Arc<str>)>,
}

fn key(place: &Place) -> Option<Key> {
    match place {
        Place::Effect { tenant, scope, key } => Some((tenant.clone(), scope.clone(), key.clone())),
        Place::Step { .. } => None,
    }
}

fn place((tenant, scope, key): &Key) -> Place {
    Place::Effect { tenant: tenant.clone(), scope: scope.clone(), key: key.clone() }
}

impl Row {
    /// Since when it is only kept to be looked up: it has ended, and so have all runs that point to it.
    fn over_since(&self, (_, scope, key): &Key, runs: &Runs) -> Option<Wall> {
        let mut since = self.kept.ended_at?;
        for (run, step) in &self.journals {
            let Some(row) = runs.row(run) else { continue };
            let points = row.journal.get(step).is_some_and(|step| match step {
                Step::Ledger(of, under) => (of, under) == (scope, key),
                Step::Own(_) => false,
            });
            if points {
                since = since.max(row.ended_at()?);
            }
        }
        Some(since)
    }
}

impl Effects {
    pub(super) fn len(&self) -> u64 {
        self.tally.rows()
    }

    pub(super) fn put(&mut self, at: &Place, kept: Kept) {
        let Some(key) = key(at) else { return };
        let bytes = kept.bytes();
        match self.rows.get_mut(&key) {
            Some(row) => {
                self.tally.resize(&key.0, row.kept.bytes(), bytes);
                row.kept = kept;
            }
            None => {
                self.tally.add(&key.0, bytes);
                self.rows.insert(key, Row { kept, journals: BTreeSet::new() });
            }
        }
    }

    /// A run's journal points to it.
    pub(super) fn pointed_at(&mut self, at: &Place, run: &RunRef, step: &Arc<str>) {
        if let Some(row) = key(at).and_then(|key| self.rows.get_mut(&key)) {
            row.journals.insert((run.clone(), step.clone()));
        }
    }

    pub(super) fn at(&self, tenant: &TenantId, scope: &Arc<str>, key: &Arc<str>) -> Option<&Kept> {
        self.rows.get(&(tenant.clone(), scope.clone(), key.clone())).map(|row| &row.kept)
    }

    pub(super) fn kept(&self) -> impl Iterator<Item = (Place, &Kept)> {
        self.rows.iter().map(|(key, row)| (place(key), &row.kept))
    }

    /// Removes entries that are no longer known, then payloads that are no longer kept.
    pub(super) fn purge(&mut self, left: &mut u32, runs: &Runs, limits: &Limits, now: Wall) {
        let mut over: Vec<(Wall, Key)> =
            self.rows.iter().filter_map(|(key, row)| Some((row.over_since(key, runs)?, key.clone()))).collect();
        over.sort();
        for (since, key) in &over {
            if *left > 0 && after(*since, limits.key_keep) <= now {
                *left -= 1;
                self.remove(key);
            }
        }
        for (since, key) in &over {
            let Some(row) = self.rows.get_mut(key).filter(|row| row.kept.bytes() > 0) else { continue };
            if *left > 0 && after(*since, limits.payload_keep) <= now {
                *left -= 1;
                self.tally.resize(&key.0, row.kept.bytes(), 0);
                row.kept.drop_payloads();
            }
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(row) = self.rows.remove(key) {
            self.tally.remove(&key.0, row.kept.bytes());
        }
    }
}

impl Facts {
    /// The entry that is kept in the ledger there.
    pub(super) fn effect(&self, at: &Place, limits: &Limits, now: Wall) -> Option<Kept> {
        let key = key(at)?;
        let row = self.effects.rows.get(&key)?;
        let mut kept = row.kept.clone();
        if let Some(since) = row.over_since(&key, &self.runs) {
            if after(since, limits.key_keep) <= now {
                return None;
            }
            if after(since, limits.payload_keep) <= now {
                kept.drop_payloads();
            }
        }
        Some(kept)
    }

    pub(super) fn room_for_effect(
        &mut self,
        at: &Place,
        bytes: usize,
        limits: &Limits,
        now: Wall,
    ) -> Result<(), StoreError> {
        let Some(key) = key(at) else { return Ok(()) };
        // What is there of it is no longer known.
        self.effects.remove(&key);
        if self.effects.tally.over(&key.0, bytes, &limits.effects).is_some() {
            self.effects.purge(&mut u32::MAX.clone(), &self.runs, limits, now);
        }
        match self.effects.tally.over(&key.0, bytes, &limits.effects) {
            Some(over) => Err(StoreError::LimitReached { what: "effects", of_tenant: over.of_tenant() }),
            None => Ok(()),
        }
    }

    /// Looks after entries with claims of their own, those due longest first.
    pub(super) fn claim_unknown(
        &mut self,
        command: &ClaimUnknown,
        limits: &Limits,
        now: Wall,
    ) -> Result<Vec<UnknownEffect>, StoreError> {
        let mut asked = command.if_parked.iter();
        let mut given = Vec::new();
        for (_, place) in self.unattended(now) {
            if given.len() >= AT_ONCE.min(command.limit as usize) {
                break;
            }
            let Some(mut kept) = self.kept(&place, limits, now) else { continue };
            let answer = match kept.entry.if_unknown(now) {
                IfUnknown::Repeat => continue,
                IfUnknown::Person | IfUnknown::Verify { .. } => transition(&mut kept.entry, Event::Lapse, now),
            };
            match answer {
                Answer::Parked { why, newly } => {
                    let Some(asked) = asked.next() else { continue };
                    let of = kept.by.clone();
                    let escalation = self.parked(&place, of.as_ref(), &mut kept, why, newly, asked, limits, now)?;
                    self.keep(&place, kept);
                    if let Some((run, step)) = of {
                        self.runs.change(&run, |row| row.park(row.head, &step, why, &escalation, now));
                    }
                }
                Answer::Recorded => {
                    let epoch = self.epochs.next();
                    let ask = Ask {
                        class: kept.entry.class,
                        fingerprint: kept.entry.fingerprint,
                        budget: kept.entry.budget,
                        epoch: epoch.0,
                        held_until: after(now, command.lease),
                        deadline: after(now, command.lease),
                        needs_approval: false,
                        strict: false,
                        takes_over: None,
                    };
                    if let Answer::Verify { attempt } = transition(&mut kept.entry, Event::Begin(ask), now) {
                        let (name, input) = (kept.name.clone(), kept.input.clone());
                        given.push(UnknownEffect { place: place.clone(), epoch, attempt, name, input });
                    }
                    self.keep(&place, kept);
                }
                Answer::Wait { .. } => self.keep(&place, kept),
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

    /// Entries with claims of their own that nobody holds, and since when they could be looked into.
    fn unattended(&self, now: Wall) -> Vec<(Wall, Place)> {
        let steps = self.runs.all().flat_map(|(run, row)| {
            let place = |(key, kept)| (Place::Step { run: RunRef::clone(run), key: Arc::clone(key) }, kept);
            row.journal.owned().map(place)
        });
        let mut found: Vec<_> = steps
            .chain(self.effects.kept())
            .filter(|(_, kept)| !kept.fenced)
            .filter_map(|(place, kept)| {
                let since = match kept.entry.state {
                    LedgerState::Intent | LedgerState::Verifying => kept.entry.held_until,
                    LedgerState::Unknown => kept.entry.not_before,
                    LedgerState::Done | LedgerState::FailedFinal | LedgerState::Absent | LedgerState::Parked => {
                        return None;
                    }
                };
                (since <= now).then_some((since, place))
            })
            .collect();
        found.sort();
        found
    }

    /// A person decided about what waits under this escalation: the entry hears it, and every run that waits for it
    /// goes on.
    #[expect(clippy::too_many_arguments, reason = "a decision is all of this at once")]
    pub(super) fn resolve(
        &mut self,
        place: Option<&Place>,
        escalation: &Arc<str>,
        resolution: Resolution,
        result: Option<Payload>,
        decision: Payload,
        limits: &Limits,
        now: Wall,
    ) {
        self.settle(place, escalation, resolution, result, decision, limits, now);
        self.wake(escalation, now);
    }

    /// A person wants it not to happen, and its run not to go on. Other runs that wait for the same effect do.
    pub(super) fn cancel_parked(
        &mut self,
        place: Option<&Place>,
        escalation: &Arc<str>,
        run: Option<&RunRef>,
        decision: Payload,
        limits: &Limits,
        now: Wall,
    ) {
        self.settle(place, escalation, Resolution::Failed, None, decision, limits, now);
        if let Some(run) = run {
            self.cancel_now(run, now);
        }
        self.wake(escalation, now);
    }

    #[expect(clippy::too_many_arguments, reason = "a decision is all of this at once")]
    fn settle(
        &mut self,
        place: Option<&Place>,
        escalation: &Arc<str>,
        resolution: Resolution,
        result: Option<Payload>,
        decision: Payload,
        limits: &Limits,
        now: Wall,
    ) {
        let Some(place) = place else { return };
        let Some(mut kept) = self.kept(place, limits, now) else { return };
        if kept.escalation.as_ref() != Some(escalation)
            || transition(&mut kept.entry, Event::Decide(resolution), now) != Answer::Recorded
        {
            return;
        }
        kept.escalation = None;
        kept.ended_at = kept.entry.state.is_final().then_some(now);
        kept.decision = Some(decision);
        if let Some(result) = result {
            kept.payload = result;
        }
        self.keep(place, kept);
    }

    /// Lets every run go on that waits under this escalation.
    pub(super) fn wake(&mut self, escalation: &Arc<str>, now: Wall) {
        let waiting = |row: &super::runs::Run| row.parked.as_ref().is_some_and(|(_, id)| id == escalation);
        let runs: Vec<_> = self.runs.all().filter(|(_, row)| waiting(row)).map(|(run, _)| run.clone()).collect();
        for run in runs {
            let has_undo = self.has_undo(&run);
            self.runs.change(&run, |row| row.woken(has_undo, now));
        }
    }
}
