//! Journals: a run's steps, what is kept of each, and how they are shown.

use super::Facts;
use crate::{BeginStep, Epoch, JournalPage, Limits, Payload, Place, RunRef, StepView};
use outlast_engine::run::{Ask, Entry, Event, transition};
use outlast_model::{
    Wall,
    run::{EffectClass, LedgerState, RetryBudget, StepKind},
};
use std::{collections::BTreeMap, sync::Arc};

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
    pub(super) divergences: u32,
    pub(super) begun_at: Wall,
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
    pub(super) fn new(command: &BeginStep, entry: Entry, now: Wall) -> Kept {
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

impl Facts {
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
    pub(super) fn is_done(&self) -> bool {
        self.entry.state == LedgerState::Done
    }

    pub(super) fn is_by(&self, run: &RunRef) -> bool {
        self.by.as_ref().is_some_and(|(by, _)| by == run)
    }
}
