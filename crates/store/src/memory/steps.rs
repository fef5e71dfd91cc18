//! Steps: a run's journal, and the two commands that every entry of the ledger goes through, wherever it is kept.

use super::{Facts, after, fits};
use crate::{
    BeginStep, EndStep, Epoch, Fenced, IfParked, JournalPage, Limits, Parking, Payload, Place, RenewStep, RunRef,
    StepBegun, StepEnded, StepView, StoreError,
};
use outlast_engine::run::{Answer, Ask, Entry, Event, Head, transition};
use outlast_model::{
    Usd, Wall,
    run::{EffectClass, EscalationKind, LedgerState, RetryBudget, StepKind},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// A run's steps, in the order they were first begun.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal {
    rows: Vec<(Arc<str>, Row)>,
    by_key: BTreeMap<Arc<str>, usize>,
    bytes: usize,
}

/// A step of a journal.
#[derive(Clone, Debug)]
pub(super) enum Row {
    /// It is kept here.
    Own(Box<Kept>),
    /// It is kept in the tenant's ledger, under this scope and key.
    Ledger(Arc<str>, Arc<str>),
}

/// An entry of the ledger, and what is kept beside what decides about it.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) entry: Entry,
    pub(super) kind: StepKind,
    pub(super) name: Arc<str>,
    /// The run, and its step, that the last attempt was begun for.
    pub(super) by: Option<(RunRef, Arc<str>)>,
    /// The last attempt was begun with the claim of that run, and not with one of its own.
    pub(super) fenced: bool,
    pub(super) input: Payload,
    pub(super) undo: Option<Payload>,
    pub(super) undoes: Option<Arc<str>>,
    /// The result, the error, or the last error.
    pub(super) payload: Payload,
    pub(super) decision: Option<Payload>,
    /// Of a wait that a signal ended: its name.
    pub(super) signal: Option<Arc<str>>,
    /// Of a wait: when it ends without one.
    pub(super) timer: Option<Wall>,
    pub(super) escalation: Option<Arc<str>>,
    divergences: u32,
    begun_at: Wall,
    pub(super) ended_at: Option<Wall>,
}

impl Row {
    pub(super) fn own(&self) -> Option<&Kept> {
        match self {
            Row::Own(kept) => Some(kept),
            Row::Ledger(..) => None,
        }
    }

    fn bytes(&self) -> usize {
        self.own().map_or(0, Kept::bytes)
    }
}

impl Journal {
    pub(super) fn len(&self) -> u64 {
        self.rows.len() as u64
    }

    /// Of payload, in the steps that are kept here.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, key: &str) -> Option<&Row> {
        self.by_key.get(key).map(|at| &self.rows[*at].1)
    }

    /// Adds a step, or changes it where it stands.
    pub(super) fn put(&mut self, key: &Arc<str>, row: Row) {
        self.bytes += row.bytes();
        match self.by_key.get(key) {
            Some(at) => self.bytes -= std::mem::replace(&mut self.rows[*at].1, row).bytes(),
            None => {
                self.by_key.insert(key.clone(), self.rows.len());
                self.rows.push((key.clone(), row));
            }
        }
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&Arc<str>, &Row)> {
        self.rows.iter().map(|(key, row)| (key, row))
    }

    pub(super) fn owned(&self) -> impl Iterator<Item = (&Arc<str>, &Kept)> {
        self.rows().filter_map(|(key, row)| Some((key, row.own()?)))
    }

    pub(super) fn drop_payloads(&mut self) {
        for (_, row) in &mut self.rows {
            match row {
                Row::Own(kept) => kept.drop_payloads(),
                Row::Ledger(..) => {}
            }
        }
        self.bytes = 0;
    }
}

impl Kept {
    fn new(command: &BeginStep, entry: Entry, now: Wall) -> Kept {
        Kept {
            entry,
            kind: command.kind,
            name: command.name.clone(),
            by: command.run(),
            fenced: command.epoch.is_some() && command.run().is_some(),
            input: command.input.clone(),
            undo: command.undo.clone(),
            undoes: command.undoes.clone(),
            payload: Payload::default(),
            decision: None,
            signal: None,
            timer: None,
            escalation: None,
            divergences: 0,
            begun_at: now,
            ended_at: None,
        }
    }

    /// A wait, begun with this claim. What it is asked with does not count: its first timer stands.
    pub(super) fn wait(epoch: Epoch, timer: Option<Wall>, now: Wall) -> Kept {
        let ask = Ask {
            class: EffectClass::Pure,
            fingerprint: [0; 32],
            budget: RetryBudget::default(),
            epoch: epoch.0,
            held_until: now,
            deadline: now,
            needs_approval: false,
            strict: false,
            takes_over: None,
        };
        let mut entry = Entry::new(&ask, now);
        let _ = transition(&mut entry, Event::Begin(ask), now);
        Kept {
            entry,
            kind: StepKind::Wait,
            name: "wait".into(),
            by: None,
            fenced: true,
            input: Payload::default(),
            undo: None,
            undoes: None,
            payload: Payload::default(),
            decision: None,
            signal: None,
            timer,
            escalation: None,
            divergences: 0,
            begun_at: now,
            ended_at: None,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let maybe = |payload: &Option<Payload>| payload.as_ref().map_or(0, Payload::len);
        self.input.len() + self.payload.len() + maybe(&self.undo) + maybe(&self.decision)
    }

    pub(super) fn drop_payloads(&mut self) {
        (self.input, self.payload) = (Payload::default(), Payload::default());
        (self.undo, self.decision) = (None, None);
    }

    pub(super) fn view(&self, sequence: i64, key: &Arc<str>, effect: Option<(Arc<str>, Arc<str>)>) -> StepView {
        let entry = &self.entry;
        let waits = match entry.state {
            LedgerState::Unknown | LedgerState::Absent => true,
            LedgerState::Intent
            | LedgerState::Done
            | LedgerState::FailedFinal
            | LedgerState::Verifying
            | LedgerState::Parked => false,
        };
        StepView {
            sequence,
            key: key.clone(),
            effect,
            kind: self.kind,
            name: self.name.clone(),
            class: entry.class,
            state: entry.state,
            fingerprint: entry.fingerprint,
            attempts: entry.attempt,
            unclear: entry.unclear,
            signal: self.signal.clone(),
            why: entry.why,
            epoch: Epoch(entry.epoch),
            begun_at: self.begun_at,
            ended_at: self.ended_at,
            not_before: waits.then_some(entry.not_before),
            spent: entry.spent,
            payload: self.payload.clone(),
            input: self.input.clone(),
            undo: self.undo.clone(),
            undoes: self.undoes.clone(),
            decision: self.decision.clone(),
            divergences: self.divergences,
        }
    }
}

impl BeginStep {
    /// The run it belongs to, and its key there.
    fn run(&self) -> Option<(RunRef, Arc<str>)> {
        match &self.place {
            Place::Step { run, key } => Some((run.clone(), key.clone())),
            Place::Effect { .. } => self.journal.clone(),
        }
    }
}

impl Facts {
    /// The entry that is kept there.
    pub(super) fn kept(&self, place: &Place, limits: &Limits, now: Wall) -> Option<Kept> {
        match place {
            Place::Step { run, key } => {
                let row = self.runs.get(run, limits, now)?;
                let mut kept = row.journal.get(key)?.own()?.clone();
                if row.is_bare(limits, now) {
                    kept.drop_payloads();
                }
                Some(kept)
            }
            Place::Effect { .. } => self.effect(place, limits, now),
        }
    }

    pub(super) fn keep(&mut self, place: &Place, kept: Kept) {
        match place {
            Place::Step { run, key } => {
                self.runs.change(run, |row| row.journal.put(key, Row::Own(Box::new(kept))));
            }
            Place::Effect { .. } => self.effects.put(place, kept),
        }
    }

    /// The step is in the journal already, but kept elsewhere.
    fn stands_elsewhere(&self, command: &BeginStep, limits: &Limits, now: Wall) -> bool {
        let Some((run, step)) = command.run() else { return false };
        let row = self.runs.get(&run, limits, now).and_then(|row| row.journal.get(&step));
        match (row, &command.place) {
            (None, _) | (Some(Row::Own(_)), Place::Step { .. }) => false,
            (Some(Row::Ledger(scope, key)), Place::Effect { scope: asked, key: under, .. }) => {
                (scope, key) != (asked, under)
            }
            (Some(Row::Own(_)), Place::Effect { .. }) | (Some(Row::Ledger(..)), Place::Step { .. }) => true,
        }
    }

    /// What is known here of whoever began the last attempt with a run's claim: it may have been renewed since, or be
    /// somebody else's by now. Says since when it is known to be gone, if it is.
    pub(super) fn look_for_holder(&self, kept: &mut Kept, limits: &Limits, now: Wall) -> Option<Wall> {
        let (run, _) = kept.by.as_ref().filter(|_| kept.fenced)?;
        let Some(row) = self.runs.get(run, limits, now) else { return Some(now) };
        if row.head.is_held_by(kept.entry.epoch) {
            let _ = kept.entry.renew(kept.entry.epoch, row.head.lease_until);
            return None;
        }
        Some(row.since())
    }

    pub(super) fn begin_step(
        &mut self,
        command: BeginStep,
        limits: &Limits,
        now: Wall,
    ) -> Result<StepBegun, StoreError> {
        fits(&command.input, limits)?;
        if let Some(undo) = &command.undo {
            fits(undo, limits)?;
        }
        let of = command.run();
        let mut head = match &of {
            Some((run, _)) => match self.runs.get(run, limits, now) {
                Some(row) => Some(row.head),
                None => return Ok(StepBegun::NoRun),
            },
            None => None,
        };
        let known = self.kept(&command.place, limits, now);
        let entry = known.as_ref().map(|kept| &kept.entry);
        if let Some(head) = &mut head {
            let epoch = command.epoch.map(|epoch| epoch.0);
            if let Err(why) = head.may_ask(epoch, entry, command.undoes.is_some(), now) {
                return Ok(StepBegun::Refused(why));
            }
            if let Some(epoch) = epoch {
                let _ = head.beat(epoch, command.lease, now);
            }
        }
        if self.stands_elsewhere(&command, limits, now) {
            return Ok(StepBegun::Mismatch);
        }
        self.room_for(&command, of.as_ref(), known.is_none(), limits, now)?;
        self.begin(&command, of, head, known, limits, now)
    }

    /// Whether there is room for what the command would add.
    fn room_for(
        &mut self,
        command: &BeginStep,
        of: Option<&(RunRef, Arc<str>)>,
        is_new: bool,
        limits: &Limits,
        now: Wall,
    ) -> Result<(), StoreError> {
        let row = of.and_then(|(run, step)| Some((self.runs.get(run, limits, now)?, step)));
        if row.is_some_and(|(row, step)| row.journal.get(step).is_none() && row.journal.len() >= limits.steps) {
            return Err(StoreError::LimitReached { what: "steps of this run", of_tenant: false });
        }
        match &command.place {
            Place::Effect { .. } if is_new => {
                let bytes = command.input.len() + command.undo.as_ref().map_or(0, Payload::len);
                self.room_for_effect(&command.place, bytes, limits, now)
            }
            Place::Effect { .. } | Place::Step { .. } => Ok(()),
        }
    }

    /// Asks the ledger, and carries out what it says.
    fn begin(
        &mut self,
        command: &BeginStep,
        of: Option<(RunRef, Arc<str>)>,
        head: Option<Head>,
        known: Option<Kept>,
        limits: &Limits,
        now: Wall,
    ) -> Result<StepBegun, StoreError> {
        let (epoch, held_until) = match (command.epoch, head) {
            (Some(epoch), Some(head)) => (epoch, head.lease_until),
            (Some(_) | None, _) => (self.epochs.next(), after(now, command.lease)),
        };
        let mut ask = Ask {
            class: command.class,
            fingerprint: command.fingerprint,
            budget: command.budget,
            epoch: epoch.0,
            held_until,
            deadline: after(now, command.call_deadline),
            needs_approval: command.needs_approval,
            strict: command.strict,
            takes_over: None,
        };
        let mut kept = known.unwrap_or_else(|| Kept::new(command, Entry::new(&ask, now), now));
        ask.takes_over = self.look_for_holder(&mut kept, limits, now);
        let before = kept.entry.fingerprint;
        let answer = transition(&mut kept.entry, Event::Begin(ask), now);
        let (begun, enters) = match answer {
            Answer::Execute { attempt } => {
                (kept.by, kept.fenced) = (of.clone(), of.is_some() && command.epoch.is_some());
                if kept.entry.fingerprint != before {
                    kept.input = command.input.clone();
                }
                let (deadline, decision) = (kept.entry.deadline, kept.decision.clone());
                (StepBegun::Execute { attempt, epoch: Epoch(kept.entry.epoch), deadline, decision }, true)
            }
            Answer::Verify { attempt } => {
                (kept.by, kept.fenced) = (of.clone(), of.is_some() && command.epoch.is_some());
                let (epoch, input) = (Epoch(kept.entry.epoch), kept.input.clone());
                (StepBegun::Verify { attempt, epoch, input }, true)
            }
            Answer::Replay { diverged } => {
                kept.divergences += u32::from(diverged);
                (kept.replay(diverged, now), true)
            }
            Answer::Parked { why, newly } => {
                let escalation =
                    self.parked(&command.place, of.as_ref(), &mut kept, why, newly, &command.if_parked, limits, now)?;
                (StepBegun::Parked { why, escalation }, true)
            }
            Answer::Wait { until } => {
                let unknown = kept.entry.state == LedgerState::Unknown;
                (StepBegun::Wait { after: between(now, until), unknown }, false)
            }
            Answer::InFlight { until } => (StepBegun::InFlight { after: between(now, until) }, false),
            Answer::Mismatch | Answer::Recorded | Answer::Stale => (StepBegun::Mismatch, false),
        };
        self.begun(command, of, head, kept, &begun, enters, now);
        Ok(begun)
    }

    /// Writes down what the beginning of a step came to: the entry, its place in the journal, the run.
    #[expect(clippy::too_many_arguments, reason = "it is all of this at once")]
    fn begun(
        &mut self,
        command: &BeginStep,
        of: Option<(RunRef, Arc<str>)>,
        head: Option<Head>,
        kept: Kept,
        begun: &StepBegun,
        enters: bool,
        now: Wall,
    ) {
        let is_new = of.as_ref().is_some_and(|(run, step)| !self.runs.has_step(run, step));
        if *begun != StepBegun::Mismatch {
            self.keep(&command.place, kept);
        }
        let (Some((run, step)), Some(mut head)) = (of, head) else { return };
        if let (Place::Effect { scope, key, .. }, true) = (&command.place, enters) {
            self.effects.pointed_at(&command.place, &run, &step);
            self.runs.change(&run, |row| row.journal.put(&step, Row::Ledger(scope.clone(), key.clone())));
        }
        if enters && is_new {
            head.progressed(Usd::ZERO);
        }
        self.runs.change(&run, |row| {
            if enters {
                row.last_step = Some(step.clone());
            }
            match begun {
                StepBegun::Parked { why, escalation } => row.park(head, &step, *why, escalation, now),
                StepBegun::Execute { .. }
                | StepBegun::Verify { .. }
                | StepBegun::Done { .. }
                | StepBegun::Failed { .. }
                | StepBegun::Wait { .. }
                | StepBegun::InFlight { .. }
                | StepBegun::Mismatch
                | StepBegun::Refused(_)
                | StepBegun::NoRun => row.moved(head, now),
            }
        });
    }

    /// The escalation of an entry that waits for a person: opened, if it comes to wait just now.
    #[expect(clippy::too_many_arguments, reason = "it is all of this at once")]
    pub(super) fn parked(
        &mut self,
        place: &Place,
        of: Option<&(RunRef, Arc<str>)>,
        kept: &mut Kept,
        why: EscalationKind,
        newly: bool,
        asked: &IfParked,
        limits: &Limits,
        now: Wall,
    ) -> Result<Arc<str>, StoreError> {
        if let (false, Some(escalation)) = (newly, &kept.escalation) {
            return Ok(escalation.clone());
        }
        let (tenant, effect) = match place {
            Place::Step { run, .. } => (&run.tenant, None),
            Place::Effect { tenant, scope, key } => (tenant, Some((&**scope, &**key))),
        };
        let parking = Parking {
            tenant,
            run: of.map(|(run, _)| &run.id),
            step: of.map(|(_, step)| &**step),
            effect,
            kind: why,
            fingerprint: kept.entry.fingerprint,
            attempts: kept.entry.attempt,
            asked,
        };
        let escalation = self.escalations.open_parked(parking, limits, now)?;
        kept.escalation = Some(escalation.clone());
        Ok(escalation)
    }

    pub(super) fn renew_step(&mut self, command: &RenewStep, limits: &Limits, now: Wall) -> Fenced {
        let RenewStep { place, epoch, lease } = command;
        let Some(mut kept) = self.kept(place, limits, now).filter(|kept| !kept.fenced) else { return Fenced::Lost };
        if !kept.entry.renew(epoch.0, after(now, *lease)) {
            return Fenced::Lost;
        }
        self.keep(place, kept);
        Fenced::Held
    }

    pub(super) fn end_step(&mut self, command: EndStep, limits: &Limits, now: Wall) -> Result<StepEnded, StoreError> {
        let EndStep { place, epoch, attempt, ended, payload, cost, lease, if_parked } = command;
        fits(&payload, limits)?;
        let Some(mut kept) = self.kept(&place, limits, now) else { return Ok(StepEnded::Stale) };
        let before = kept.entry.clone();
        let of = kept.by.clone();
        let event = Event::End { epoch: epoch.0, attempt, ended, cost };
        let answer = transition(&mut kept.entry, event, now);
        let come_to = match answer {
            Answer::Stale => return Ok(StepEnded::Stale),
            Answer::Parked { why, newly } => {
                let escalation = self.parked(&place, of.as_ref(), &mut kept, why, newly, &if_parked, limits, now)?;
                StepEnded::Parked { why, escalation }
            }
            Answer::Execute { .. }
            | Answer::Verify { .. }
            | Answer::Replay { .. }
            | Answer::Wait { .. }
            | Answer::InFlight { .. }
            | Answer::Mismatch
            | Answer::Recorded => kept.ended(now),
        };
        let changed = kept.entry != before;
        if changed {
            kept.payload = payload;
            kept.ended_at = kept.entry.state.is_final().then_some(now);
        }
        if changed {
            self.keep(&place, kept);
        }
        if let Some((run, step)) = of {
            self.runs.change(&run, |row| {
                let mut head = row.head;
                let _ = head.beat(epoch.0, lease, now);
                if changed {
                    head.progressed(cost);
                }
                match &come_to {
                    StepEnded::Parked { why, escalation } if changed => row.park(head, &step, *why, escalation, now),
                    StepEnded::Parked { .. }
                    | StepEnded::Done
                    | StepEnded::Failed
                    | StepEnded::Again { .. }
                    | StepEnded::Unknown { .. }
                    | StepEnded::Stale => row.moved(head, now),
                }
            });
        }
        Ok(come_to)
    }

    pub(super) fn step(&self, place: &Place, limits: &Limits, now: Wall) -> Option<StepView> {
        match place {
            Place::Step { run, key } => {
                let at = self.runs.get(run, limits, now)?.journal.by_key.get(key)?;
                self.journal(run, *at as i64, 1, limits, now).steps.pop()
            }
            Place::Effect { scope, key, .. } => {
                Some(self.kept(place, limits, now)?.view(0, key, Some((scope.clone(), key.clone()))))
            }
        }
    }

    pub(super) fn journal(&self, run: &RunRef, after: i64, limit: u32, limits: &Limits, now: Wall) -> JournalPage {
        let Some(row) = self.runs.get(run, limits, now) else { return JournalPage::default() };
        let mut page = JournalPage::default();
        let mut bytes = 0;
        let first = usize::try_from(after).unwrap_or(0);
        for (at, (key, _)) in row.journal.rows.iter().enumerate().skip(first) {
            let Some(view) = self.in_journal(run, at as i64 + 1, key, limits, now) else { continue };
            let more = [view.payload.len(), view.input.len()];
            let maybe = [&view.undo, &view.decision].map(|payload| payload.as_ref().map_or(0, Payload::len));
            bytes += more.into_iter().chain(maybe).sum::<usize>() as u64;
            let full = page.steps.len() >= limit.min(JournalPage::LARGEST) as usize;
            if full || (bytes > JournalPage::BYTES && !page.steps.is_empty()) {
                page.next = Some(at as i64);
                break;
            }
            page.steps.push(view);
        }
        page
    }

    /// A step as its run's journal shows it. What another run did under the same key is not this one's to undo.
    fn in_journal(&self, run: &RunRef, sequence: i64, step: &Arc<str>, limits: &Limits, now: Wall) -> Option<StepView> {
        match self.runs.get(run, limits, now)?.journal.get(step)? {
            Row::Own(_) => {
                let place = Place::Step { run: run.clone(), key: step.clone() };
                Some(self.kept(&place, limits, now)?.view(sequence, step, None))
            }
            Row::Ledger(scope, key) => {
                let (scope, key) = (scope.clone(), key.clone());
                let place = Place::Effect { tenant: run.tenant.clone(), scope: scope.clone(), key: key.clone() };
                let kept = self.kept(&place, limits, now)?;
                let theirs = kept.is_by(run);
                let view = kept.view(sequence, step, Some((scope, key)));
                Some(if theirs { view } else { StepView { undo: None, undoes: None, ..view } })
            }
        }
    }

    /// Whether anything of the run has to be undone, or may have to be.
    pub(super) fn has_undo(&self, run: &RunRef) -> bool {
        let Some(row) = self.runs.row(run) else { return false };
        let kept: Vec<(&Arc<str>, &Kept)> = row
            .journal
            .rows()
            .filter_map(|(step, row)| {
                let kept = match row {
                    Row::Own(kept) => kept,
                    Row::Ledger(scope, key) => {
                        self.effects.at(&run.tenant, scope, key).filter(|kept| kept.is_by(run))?
                    }
                };
                Some((step, kept))
            })
            .collect();
        let undone: Vec<_> =
            kept.iter().filter(|(_, kept)| kept.is_done()).filter_map(|(_, kept)| kept.undoes.as_ref()).collect();
        kept.iter().any(|(step, kept)| {
            kept.entry.is_unresolved() || (kept.is_done() && kept.undo.is_some() && !undone.contains(step))
        })
    }
}

impl Kept {
    fn is_done(&self) -> bool {
        self.entry.state == LedgerState::Done
    }

    fn is_by(&self, run: &RunRef) -> bool {
        self.by.as_ref().is_some_and(|(by, _)| by == run)
    }

    /// How it ended. It may have come to its end just now, because its budget is spent.
    fn replay(&mut self, diverged: bool, now: Wall) -> StepBegun {
        self.ended_at = self.ended_at.or(Some(now));
        if self.is_done() {
            return StepBegun::Done { result: self.payload.clone(), diverged };
        }
        let error = Some(self.payload.clone()).filter(|error| !error.is_empty());
        StepBegun::Failed { error, diverged }
    }

    /// What an end that was taken came to.
    fn ended(&self, now: Wall) -> StepEnded {
        match self.entry.state {
            LedgerState::Done => StepEnded::Done,
            LedgerState::FailedFinal => StepEnded::Failed,
            LedgerState::Absent => StepEnded::Again { after: between(now, self.entry.not_before) },
            LedgerState::Unknown | LedgerState::Intent | LedgerState::Verifying => {
                StepEnded::Unknown { after: between(now, self.entry.not_before) }
            }
            LedgerState::Parked => match (&self.entry.why, &self.escalation) {
                (Some(why), Some(escalation)) => StepEnded::Parked { why: *why, escalation: escalation.clone() },
                (_, _) => StepEnded::Stale,
            },
        }
    }
}

/// How long it is from now until then; nothing if that has passed.
fn between(now: Wall, then: Wall) -> Duration {
    Duration::from_millis(u64::try_from(then.0.saturating_sub(now.0)).unwrap_or(0))
}
