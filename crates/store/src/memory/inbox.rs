//! Signals and timers: what a run is told, and what it waits for.

use super::{
    Facts, after, fits,
    journal::{Kept, Row},
    runs::Run,
};
use crate::{Limits, Payload, SignalRun, Signalled, StoreError, Until, WaitRun, Waited};
use outlast_engine::run::{Ended, Event, MayNotBegin, transition};
use outlast_model::{
    Usd, Wall,
    run::{LedgerState, RunState, StepKind},
};
use std::{collections::BTreeSet, sync::Arc};

/// What a run was told.
#[derive(Clone, Debug, Default)]
pub(super) struct Inbox {
    /// By their senders' marks, those that are used up too.
    seen: BTreeSet<Arc<str>>,
    /// Those that nobody has waited for yet, in the order they came.
    kept: Vec<Signal>,
}

#[derive(Clone, Debug)]
struct Signal {
    name: Arc<str>,
    payload: Payload,
}

impl Inbox {
    pub(super) fn bytes(&self) -> usize {
        self.kept.iter().map(|signal| signal.payload.len()).sum()
    }

    pub(super) fn drop_payloads(&mut self) {
        for signal in &mut self.kept {
            signal.payload = Payload::default();
        }
    }

    /// The first one with one of these names, which is used up by this.
    fn take(&mut self, names: &[Arc<str>]) -> Option<Signal> {
        let at = self.kept.iter().position(|signal| names.contains(&signal.name))?;
        Some(self.kept.remove(at))
    }
}

/// What ended a wait.
enum Came {
    Signal(Signal),
    Timer,
}

impl Run {
    /// Writes the end of a wait down.
    fn waited(&mut self, key: &Arc<str>, came: Came, now: Wall) -> Waited {
        let Some(mut kept) = self.journal.get(key).and_then(Row::own).cloned() else { return Waited::Parked };
        let (epoch, attempt) = (kept.entry.epoch, kept.entry.attempt);
        let _ = transition(&mut kept.entry, Event::End { epoch, attempt, ended: Ended::Done, cost: Usd::ZERO }, now);
        kept.ended_at = Some(now);
        if let Came::Signal(Signal { name, payload }) = came {
            kept.signal = Some(name);
            kept.payload = payload;
        }
        let waited = kept.waited();
        self.journal.put(key, Row::Own(Box::new(kept)));
        self.head.progressed(Usd::ZERO);
        self.updated_at = now;
        waited
    }

    /// It is claimed because its timer went off: that is what ended its wait.
    pub(super) fn timer_went_off(&mut self, now: Wall) {
        if self.head.state == RunState::Waiting
            && let Some(key) = self.waits_at.clone()
        {
            self.waited(&key, Came::Timer, now);
        }
    }
}

impl Kept {
    /// How a wait that is over ended.
    fn waited(&self) -> Waited {
        match &self.signal {
            Some(name) => Waited::Signal { name: name.clone(), payload: self.payload.clone() },
            None => Waited::Timer,
        }
    }
}

impl Facts {
    pub(super) fn wait_run(&mut self, command: WaitRun, limits: &Limits, now: Wall) -> Result<Waited, StoreError> {
        let WaitRun { run, epoch, key, signals, timer } = command;
        let Some(row) = self.runs.get(&run, limits, now) else { return Ok(Waited::Refused(MayNotBegin::Lost)) };
        let known = row.journal.get(&key);
        if row.head.state == RunState::Waiting && row.head.epoch == epoch.0 && row.waits_at.as_ref() == Some(&key) {
            // Said once more.
            return Ok(Waited::Parked);
        }
        let entry = known.and_then(|row| row.own()).map(|kept| &kept.entry);
        if let Err(why) = row.head.may_ask(Some(epoch.0), entry, false, now) {
            return Ok(Waited::Refused(why));
        }
        match known.map(|row| row.own()) {
            Some(Some(kept)) if kept.kind != StepKind::Wait => return Ok(Waited::Mismatch),
            Some(None) => return Ok(Waited::Mismatch),
            Some(Some(kept)) if kept.entry.state == LedgerState::Done => return Ok(kept.waited()),
            Some(Some(_)) => {}
            None if row.journal.len() >= limits.steps => {
                return Err(StoreError::LimitReached { what: "steps of this run", of_tenant: false });
            }
            None => {}
        }
        let timer = timer.map(|timer| match timer {
            Until::In(duration) => after(now, duration),
            Until::At(at) => at,
        });
        let waited = self.runs.change(&run, |row| {
            if row.journal.get(&key).is_none() {
                row.journal.put(&key, Row::Own(Box::new(Kept::wait(epoch, timer, now))));
                row.head.progressed(Usd::ZERO);
            }
            row.last_step = Some(key.clone());
            row.updated_at = now;
            if let Some(signal) = row.inbox.take(&signals) {
                return row.waited(&key, Came::Signal(signal), now);
            }
            let timer = row.journal.get(&key).and_then(Row::own).and_then(|kept| kept.timer);
            if timer.is_some_and(|timer| timer <= now) {
                return row.waited(&key, Came::Timer, now);
            }
            let mut head = row.head;
            head.wait(timer);
            row.moved(head, now);
            row.waits_at = Some(key);
            row.waits_for = signals;
            Waited::Parked
        });
        Ok(waited.unwrap_or(Waited::Refused(MayNotBegin::Lost)))
    }

    pub(super) fn signal_run(
        &mut self,
        command: SignalRun,
        limits: &Limits,
        now: Wall,
    ) -> Result<Signalled, StoreError> {
        let SignalRun { run, dedupe, name, payload } = command;
        fits(&payload, limits)?;
        let Some(row) = self.runs.get(&run, limits, now) else { return Ok(Signalled::Unknown) };
        if row.inbox.seen.contains(&dedupe) {
            return Ok(Signalled::Before);
        }
        if row.head.state.is_final() {
            return Ok(Signalled::Over);
        }
        let waits_at = row.waits_at.clone().filter(|_| row.waits_for.contains(&name));
        if waits_at.is_none() && row.inbox.kept.len() >= limits.signals as usize {
            return Ok(Signalled::Full);
        }
        self.runs.change(&run, |row| {
            row.inbox.seen.insert(dedupe);
            row.updated_at = now;
            let signal = Signal { name, payload };
            match waits_at {
                Some(key) => {
                    row.waited(&key, Came::Signal(signal), now);
                    row.woken(false, now);
                }
                None => row.inbox.kept.push(signal),
            }
        });
        Ok(Signalled::Accepted)
    }
}
