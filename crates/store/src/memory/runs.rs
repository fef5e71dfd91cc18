//! Runs: who may advance one, and where it stands.

use super::{
    Facts, after, fits,
    inbox::Inbox,
    journal::{Journal, Row as Step},
    tally::Tally,
    workers::Workers,
};
use crate::{
    AuditEntry, BeatRun, Beaten, CancelRun, Cancelling, ClaimRun, ClaimedRun, Cursor, Epoch, Fenced, FinishRun,
    IfParked, JournalPage, Limits, MigrateRun, Page, Parking, Payload, Place, ReleaseRun, RunEnd, RunFilter, RunPage,
    RunRef, RunView, StartRun, Started, StoreError,
};
use outlast_engine::run::{Beat, Claimed, Head};
use outlast_model::{
    TenantId, Wall,
    run::{EscalationKind, RunState, Verb},
};
use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

#[derive(Clone, Debug, Default)]
pub(super) struct Runs {
    rows: BTreeMap<RunRef, Run>,
    keys: BTreeMap<(TenantId, Arc<str>), RunRef>,
    tally: Tally,
    sequence: i64,
}

#[derive(Clone, Debug)]
pub(super) struct Run {
    sequence: i64,
    /// As it was started; its input empty once it is no longer kept.
    started: StartRun,
    /// The hash of the input, which outlives it.
    input_hash: [u8; 32],
    /// As it was started, or migrated to.
    version: Arc<str>,
    pub(super) head: Head,
    /// When it came to its state, or to its claim.
    since: Wall,
    worker: Option<Arc<str>>,
    pub(super) waits_at: Option<Arc<str>>,
    pub(super) waits_for: Vec<Arc<str>>,
    pub(super) parked: Option<(EscalationKind, Arc<str>)>,
    pub(super) last_step: Option<Arc<str>>,
    pub(super) journal: Journal,
    pub(super) inbox: Inbox,
    output: Payload,
    created_at: Wall,
    pub(super) updated_at: Wall,
    ended_at: Option<Wall>,
}

impl Run {
    /// It ended so long ago that nothing of it is known any more.
    fn gone(&self, limits: &Limits, now: Wall) -> bool {
        self.ended_at.is_some_and(|at| after(at, limits.key_keep) <= now)
    }

    /// It ended so long ago that its payloads are no longer kept.
    pub(super) fn is_bare(&self, limits: &Limits, now: Wall) -> bool {
        self.ended_at.is_some_and(|at| after(at, limits.payload_keep) <= now)
    }

    pub(super) fn ended_at(&self) -> Option<Wall> {
        self.ended_at
    }

    /// When it came to its state, or to its claim.
    pub(super) fn since(&self) -> Wall {
        self.since
    }

    fn bytes(&self) -> usize {
        self.started.input.len() + self.output.len() + self.journal.bytes() + self.inbox.bytes()
    }

    /// Takes up what was decided about it.
    pub(super) fn moved(&mut self, head: Head, now: Wall) {
        if (head.state, head.epoch) != (self.head.state, self.head.epoch) {
            self.since = now;
        }
        if head.state.is_final() && self.ended_at.is_none() {
            self.ended_at = Some(now);
        }
        if head.state != RunState::Waiting {
            self.waits_for.clear();
        }
        match head.state {
            RunState::Waiting | RunState::Parked | RunState::Quarantined => {}
            RunState::Ready | RunState::Running | RunState::Done | RunState::Failed | RunState::Cancelled => {
                self.waits_at = None;
                self.parked = None;
            }
        }
        self.head = head;
        self.updated_at = now;
    }

    /// It waits for a person, unless it does already, or is over. Its claim is.
    pub(super) fn park(
        &mut self,
        mut head: Head,
        at: &Arc<str>,
        why: EscalationKind,
        escalation: &Arc<str>,
        now: Wall,
    ) {
        match head.state {
            RunState::Ready | RunState::Running | RunState::Waiting => {
                head.park();
                self.moved(head, now);
                self.waits_at = Some(at.clone());
                self.parked = Some((why, escalation.clone()));
            }
            RunState::Parked | RunState::Quarantined | RunState::Done | RunState::Failed | RunState::Cancelled => {
                self.moved(head, now);
            }
        }
    }

    /// What it waited for is there. One that is to be cancelled goes on only to undo.
    pub(super) fn woken(&mut self, has_undo: bool, now: Wall) {
        let mut head = self.head;
        if head.cancelling {
            head.cancel(has_undo, now);
        } else {
            head.wake(now);
        }
        self.moved(head, now);
    }

    fn view(&self) -> RunView {
        let StartRun { run, queue, workflow, priority, unclaimed, .. } = &self.started;
        let Head { state, epoch, lease_until, due, barren, cancelling, deadline, spent, cost_max } = self.head;
        RunView {
            run: run.clone(),
            queue: queue.clone(),
            workflow: workflow.clone(),
            version: self.version.clone(),
            priority: *priority,
            unclaimed: *unclaimed,
            state,
            since: self.since,
            epoch: Epoch(epoch),
            worker: self.worker.clone(),
            lease_until: (state == RunState::Running).then_some(lease_until),
            due: due.filter(|_| !unclaimed),
            cancelling,
            barren,
            waits_at: self.waits_at.clone(),
            waits_for: self.waits_for.clone(),
            parked: self.parked.clone(),
            steps: self.journal.len(),
            last_step: self.last_step.clone(),
            spent,
            cost_max,
            deadline,
            created_at: self.created_at,
            updated_at: self.updated_at,
            ended_at: self.ended_at,
        }
    }
}

impl Runs {
    pub(super) fn get(&self, run: &RunRef, limits: &Limits, now: Wall) -> Option<&Run> {
        self.rows.get(run).filter(|row| !row.gone(limits, now))
    }

    /// The run, to be changed; what it comes to is counted.
    pub(super) fn change<T>(&mut self, run: &RunRef, change: impl FnOnce(&mut Run) -> T) -> Option<T> {
        let row = self.rows.get_mut(run)?;
        let before = row.bytes();
        let changed = change(row);
        self.tally.resize(&run.tenant, before, row.bytes());
        Some(changed)
    }

    pub(super) fn row(&self, run: &RunRef) -> Option<&Run> {
        self.rows.get(run)
    }

    pub(super) fn has_step(&self, run: &RunRef, step: &str) -> bool {
        self.rows.get(run).is_some_and(|row| row.journal.get(step).is_some())
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&RunRef, &Run)> {
        self.rows.iter()
    }

    pub(super) fn len(&self) -> u64 {
        self.tally.rows()
    }

    pub(super) fn in_state(&self, states: &[RunState]) -> u64 {
        self.rows.values().filter(|row| states.contains(&row.head.state)).count() as u64
    }

    pub(super) fn start(&mut self, command: StartRun, limits: &Limits, now: Wall) -> Result<Started, StoreError> {
        fits(&command.input, limits)?;
        let input_hash = *blake3::hash(command.input.as_bytes()).as_bytes();
        if let Some(before) = self.started_before(&command, &input_hash, limits, now) {
            return Ok(before);
        }
        let tenant = command.run.tenant.clone();
        if self.tally.over(&tenant, command.input.len(), &limits.runs).is_some() {
            self.purge(&mut u32::MAX.clone(), limits, now);
        }
        if let Some(over) = self.tally.over(&tenant, command.input.len(), &limits.runs) {
            return Err(StoreError::LimitReached { what: "runs", of_tenant: over.of_tenant() });
        }
        self.remove(&command.run);
        self.sequence += 1;
        let deadline = command.deadline.map(|deadline| after(now, deadline));
        if let Some((key, _)) = &command.key {
            self.keys.insert((tenant.clone(), key.clone()), command.run.clone());
        }
        self.tally.add(&tenant, command.input.len());
        let row = Run {
            sequence: self.sequence,
            input_hash,
            version: command.version.clone(),
            head: Head::new(after(now, command.after), deadline, command.cost_max),
            since: now,
            worker: None,
            waits_at: None,
            waits_for: Vec::new(),
            parked: None,
            last_step: None,
            journal: Journal::default(),
            inbox: Inbox::default(),
            output: Payload::default(),
            created_at: now,
            updated_at: now,
            ended_at: None,
            started: command,
        };
        self.rows.insert(row.started.run.clone(), row);
        Ok(Started::New)
    }

    /// By its key first; then by its id, where a repetition without a key has to ask for the same work.
    fn started_before(&self, command: &StartRun, input: &[u8; 32], limits: &Limits, now: Wall) -> Option<Started> {
        let StartRun { run, key, queue, workflow, unclaimed, .. } = command;
        if let Some((key, hash)) = key
            && let Some(of) = self.keys.get(&(run.tenant.clone(), key.clone()))
            && let Some(row) = self.get(of, limits, now)
        {
            let same = row.started.key.as_ref().is_some_and(|(_, first)| first == hash);
            return Some(if same { Started::Before(of.id.clone()) } else { Started::Mismatch });
        }
        let row = self.get(run, limits, now)?;
        let first = &row.started;
        let same = key.is_none()
            && (&first.queue, &first.workflow, first.unclaimed, &row.input_hash)
                == (queue, workflow, *unclaimed, input);
        Some(if same { Started::Before(run.id.clone()) } else { Started::Mismatch })
    }

    pub(super) fn release(&mut self, command: &ReleaseRun, limits: &Limits, now: Wall) -> Fenced {
        let ReleaseRun { run, epoch, after } = command;
        let Some(mut head) = self.get(run, limits, now).map(|row| row.head) else { return Fenced::Lost };
        if head.is_held_by(epoch.0) {
            head.release(*after, now);
            self.change(run, |row| row.moved(head, now));
            return Fenced::Held;
        }
        // Said once more, before anybody claimed it.
        if head.state == RunState::Ready && head.epoch == epoch.0 { Fenced::Held } else { Fenced::Lost }
    }

    pub(super) fn finish(&mut self, command: FinishRun, limits: &Limits, now: Wall) -> Result<Fenced, StoreError> {
        let FinishRun { run, epoch, state, output } = command;
        fits(&output, limits)?;
        if !state.is_final() {
            return Err(StoreError::Unsupported { what: "end a run in a state that is not an end" });
        }
        let Some(row) = self.get(&run, limits, now) else { return Ok(Fenced::Lost) };
        let mut head = row.head;
        let (theirs, held) = match epoch {
            Some(Epoch(epoch)) => (head.epoch == epoch, head.is_held_by(epoch)),
            None => (row.started.unclaimed, row.started.unclaimed && !head.state.is_final()),
        };
        if held {
            head.finish(state);
            self.change(&run, |row| {
                row.moved(head, now);
                row.output = output;
            });
            return Ok(Fenced::Held);
        }
        let again = theirs && head.state == state && row.output(limits, now) == output;
        Ok(if again { Fenced::Held } else { Fenced::Lost })
    }

    pub(super) fn view(&self, run: &RunRef, limits: &Limits, now: Wall) -> Option<RunView> {
        self.get(run, limits, now).map(Run::view)
    }

    pub(super) fn input(&self, run: &RunRef, limits: &Limits, now: Wall) -> Option<Payload> {
        let row = self.get(run, limits, now).filter(|row| !row.is_bare(limits, now))?;
        Some(row.started.input.clone())
    }

    pub(super) fn end(&self, run: &RunRef, limits: &Limits, now: Wall) -> Option<RunEnd> {
        let row = self.get(run, limits, now).filter(|row| row.head.state.is_final())?;
        Some(RunEnd { state: row.head.state, output: row.output(limits, now) })
    }

    pub(super) fn list(&self, filter: &RunFilter, page: Page, limits: &Limits, now: Wall) -> RunPage {
        let RunFilter { tenant, state, queue, workflow } = filter;
        let mut rows: Vec<_> = self
            .rows
            .values()
            .filter(|row| !row.gone(limits, now))
            .filter(|row| tenant.as_ref().is_none_or(|tenant| row.started.run.tenant == *tenant))
            .filter(|row| state.is_none_or(|state| row.head.state == state))
            .filter(|row| queue.as_ref().is_none_or(|queue| row.started.queue == *queue))
            .filter(|row| workflow.as_ref().is_none_or(|workflow| row.started.workflow == *workflow))
            .filter(|row| page.after.is_none_or(|Cursor(after)| row.sequence < after))
            .collect();
        rows.sort_by_key(|row| Reverse(row.sequence));
        let size = page.size.clamp(1, Page::LARGEST) as usize;
        let next = (rows.len() > size).then(|| Cursor(rows[size - 1].sequence));
        RunPage { runs: rows.into_iter().take(size).map(Run::view).collect(), next }
    }

    /// Removes runs that are no longer known, then payloads that are no longer kept.
    pub(super) fn purge(&mut self, left: &mut u32, limits: &Limits, now: Wall) {
        let mut due: Vec<_> = self.rows.values().filter(|row| row.gone(limits, now)).collect();
        due.sort_by_key(|row| (row.ended_at, row.sequence));
        let due: Vec<_> = due.into_iter().take(*left as usize).map(|row| row.started.run.clone()).collect();
        for run in due {
            *left -= 1;
            self.remove(&run);
        }
        let mut due: Vec<_> = self.rows.values().filter(|row| row.is_bare(limits, now) && row.bytes() > 0).collect();
        due.sort_by_key(|row| (row.ended_at, row.sequence));
        let due: Vec<_> = due.into_iter().take(*left as usize).map(|row| row.started.run.clone()).collect();
        for run in due {
            *left -= 1;
            self.change(&run, |row| {
                row.started.input = Payload::default();
                row.output = Payload::default();
                row.journal.drop_payloads();
                row.inbox.drop_payloads();
            });
        }
    }

    fn remove(&mut self, run: &RunRef) {
        let Some(row) = self.rows.remove(run) else { return };
        self.tally.remove(&run.tenant, row.bytes());
        if let Some((key, _)) = &row.started.key {
            self.keys.remove(&(run.tenant.clone(), key.clone()));
        }
    }

    /// Every run that could be claimed by this command, the most urgent first, then the one that has been due longest.
    fn claimable(&self, command: &ClaimRun, workers: &Workers, limits: &Limits, now: Wall) -> Vec<RunRef> {
        let ClaimRun { tenant, worker, queues, accepts, standby, .. } = command;
        let mut due: Vec<_> = self
            .rows
            .values()
            .filter_map(|row| Some((row, row.claimable_from().filter(|from| *from <= now)?)))
            .filter(|(row, _)| tenant.as_ref().is_none_or(|tenant| row.started.run.tenant == *tenant))
            .filter(|(row, _)| queues.contains(&row.started.queue))
            .filter(|(row, _)| {
                let fits = |versions: &[Arc<str>]| versions.is_empty() || versions.contains(&row.version);
                let accepted = accepts.iter().any(|one| one.workflow == row.started.workflow && fits(&one.versions));
                accepts.is_empty() || accepted
            })
            .filter(|(row, _)| {
                let lost = row.head.state == RunState::Running;
                let StartRun { run, queue, .. } = &row.started;
                !standby || lost || !workers.attend(&run.tenant, queue, worker, limits, now)
            })
            .collect();
        due.sort_by_key(|(row, from)| (row.started.priority, *from, row.sequence));
        due.into_iter().map(|(row, _)| row.started.run.clone()).collect()
    }
}

impl Run {
    fn output(&self, limits: &Limits, now: Wall) -> Payload {
        if self.is_bare(limits, now) { Payload::default() } else { self.output.clone() }
    }

    /// From when on a worker can claim it, if nothing else happens.
    pub(super) fn claimable_from(&self) -> Option<Wall> {
        self.head.claimable_from().filter(|_| !self.started.unclaimed)
    }

    pub(super) fn queue(&self) -> (&Arc<str>, &Arc<str>, &Arc<str>) {
        (&self.started.queue, &self.started.workflow, &self.version)
    }

    pub(super) fn is_unclaimed(&self) -> bool {
        self.started.unclaimed
    }

    /// Where the entry is kept that it waits at.
    fn waits_where(&self) -> Option<Place> {
        let (run, key) = (self.started.run.clone(), self.waits_at.clone()?);
        Some(match self.journal.get(&key)? {
            Step::Own(_) => Place::Step { run, key },
            Step::Ledger(scope, key) => Place::Effect { tenant: run.tenant, scope: scope.clone(), key: key.clone() },
        })
    }

    pub(super) fn worker(&self) -> Option<&Arc<str>> {
        self.worker.as_ref().filter(|_| self.head.state == RunState::Running)
    }
}

impl Facts {
    pub(super) fn claim_run(
        &mut self,
        command: &ClaimRun,
        limits: &Limits,
        now: Wall,
    ) -> Result<Option<ClaimedRun>, StoreError> {
        if self.workers.claims(command, limits, now)? {
            return Ok(None);
        }
        for run in self.runs.claimable(command, &self.workers, limits, now) {
            let Some(mut head) = self.runs.get(&run, limits, now).map(|row| row.head) else { continue };
            let epoch = self.epochs.next();
            match head.claim(epoch.0, command.lease, now) {
                Claimed::NotDue => {}
                Claimed::Poison => self.quarantine(&run, head, &command.if_parked, limits, now),
                Claimed::Granted => return Ok(self.granted(&run, head, command, limits, now)),
            }
        }
        Ok(None)
    }

    fn granted(
        &mut self,
        run: &RunRef,
        head: Head,
        command: &ClaimRun,
        limits: &Limits,
        now: Wall,
    ) -> Option<ClaimedRun> {
        self.runs.change(run, |row| {
            row.timer_went_off(now);
            row.moved(head, now);
            row.worker = Some(command.worker.clone());
        });
        let journal = self.journal(run, 0, command.journal.min(JournalPage::LARGEST), limits, now);
        let row = self.runs.get(run, limits, now)?;
        let (epoch, input) = (Epoch(head.epoch), row.started.input.clone());
        Some(ClaimedRun { run: row.view(), epoch, input, journal })
    }

    /// Hands a poisonous run to a person. Where there is no room for another question, or the one that was given for it
    /// is used up, it stays as it is and is looked at again by the next claim.
    fn quarantine(&mut self, run: &RunRef, head: Head, asked: &IfParked, limits: &Limits, now: Wall) {
        let parking = Parking {
            tenant: &run.tenant,
            run: Some(&run.id),
            step: None,
            effect: None,
            kind: EscalationKind::Poison,
            fingerprint: [0; 32],
            attempts: head.barren,
            asked,
        };
        if let Ok(escalation) = self.escalations.open_parked(parking, limits, now) {
            self.runs.change(run, |row| {
                row.moved(head, now);
                row.waits_at = None;
                row.parked = Some((EscalationKind::Poison, escalation));
            });
        }
    }

    pub(super) fn beat_run(&mut self, command: &BeatRun, limits: &Limits, now: Wall) -> Beaten {
        let BeatRun { run, epoch, lease } = command;
        let Some(mut head) = self.runs.get(run, limits, now).map(|row| row.head) else { return Beaten::Lost };
        let beat = head.beat(epoch.0, *lease, now);
        if beat == Beat::Lost {
            return Beaten::Lost;
        }
        let worker = self.runs.change(run, |row| {
            row.head = head;
            row.worker.clone()
        });
        let draining = worker.flatten().is_some_and(|worker| self.workers.beats(&worker, limits, now));
        match beat {
            Beat::Cancel => Beaten::Cancel,
            Beat::Held if draining => Beaten::Drain,
            Beat::Held | Beat::Lost => Beaten::Held,
        }
    }

    /// Cancels a run. What waits for a person only as part of it is closed; what may have happened is decided first.
    pub(super) fn cancel_run(
        &mut self,
        command: &CancelRun,
        limits: &Limits,
        now: Wall,
    ) -> Result<Cancelling, StoreError> {
        let CancelRun { run, by } = command;
        let Some(row) = self.runs.get(run, limits, now) else { return Ok(Cancelling::Unknown) };
        if row.head.state.is_final() {
            return Ok(Cancelling::Over(row.head.state));
        }
        if row.head.cancelling {
            return Ok(Cancelling::Asked);
        }
        let (parked, place) = (row.parked.clone(), row.waits_where());
        // What can fail comes first: nothing is half cancelled.
        let closes = parked.as_ref().is_some_and(|(why, _)| *why != EscalationKind::UnknownEffect);
        self.escalations.audit.has_room_for(if closes { 2 } else { 1 }, limits)?;
        self.escalations.audit.append(audited("run.cancel", run, by, "{}"), limits, now)?;
        match parked {
            Some((EscalationKind::UnknownEffect, _)) => {
                self.runs.change(run, |row| {
                    row.head.cancelling = true;
                    row.updated_at = now;
                });
            }
            Some((_, escalation)) => {
                self.escalations.close(&escalation, by, Verb::Cancel, Payload::default(), limits, now)?;
                self.cancel_parked(place.as_ref(), &escalation, Some(run), Payload::default(), limits, now);
            }
            None => self.cancel_now(run, now),
        }
        let cancelled = self.runs.get(run, limits, now).is_some_and(|row| row.head.state == RunState::Cancelled);
        Ok(if cancelled { Cancelling::Cancelled } else { Cancelling::Asked })
    }

    pub(super) fn cancel_now(&mut self, run: &RunRef, now: Wall) {
        let has_undo = self.has_undo(run);
        self.runs.change(run, |row| {
            let mut head = row.head;
            head.cancel(has_undo, now);
            row.moved(head, now);
        });
    }

    pub(super) fn migrate_run(
        &mut self,
        command: &MigrateRun,
        limits: &Limits,
        now: Wall,
    ) -> Result<Fenced, StoreError> {
        let MigrateRun { run, version, by } = command;
        let Some(row) = self.runs.get(run, limits, now) else { return Ok(Fenced::Lost) };
        let mut head = row.head;
        let held = head.state == RunState::Running && head.lease_until > now;
        if held || head.state.is_final() {
            return Ok(Fenced::Lost);
        }
        if row.version == *version {
            return Ok(Fenced::Held);
        }
        let details = serde_json::json!({ "from": row.version.as_ref(), "to": version.as_ref() }).to_string();
        self.escalations.audit.append(audited("run.migrate", run, by, &details), limits, now)?;
        if head.state == RunState::Running {
            // Whoever held it may come back, and must not go on in the version before.
            head.release(std::time::Duration::ZERO, now);
        }
        self.runs.change(run, |row| {
            row.moved(head, now);
            row.version = version.clone();
        });
        Ok(Fenced::Held)
    }
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
