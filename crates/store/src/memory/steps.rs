//! Steps: the two commands that every entry of the ledger goes through, wherever it is kept.

use super::{
    Facts, after, fits,
    journal::{Kept, Row},
};
use crate::{
    BeginStep, EndStep, Epoch, Fenced, IfParked, Limits, Parking, Payload, Place, RenewStep, RunRef, StepBegun,
    StepEnded, StoreError,
};
use outlast_engine::run::{Answer, Ask, Entry, Event, Head, transition};
use outlast_model::{
    Usd, Wall,
    run::{EscalationKind, LedgerState},
};
use std::{sync::Arc, time::Duration};

impl BeginStep {
    /// The run it belongs to, and its key there.
    pub(super) fn run(&self) -> Option<(RunRef, Arc<str>)> {
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
            let epoch = command.epoch.or(command.fence).map(|epoch| epoch.0);
            if let Err(why) = head.may_ask(epoch, entry, command.undoes.is_some(), now) {
                return Ok(StepBegun::Refused(why));
            }
            if let Some(Epoch(epoch)) = command.epoch {
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
}

impl Kept {
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
