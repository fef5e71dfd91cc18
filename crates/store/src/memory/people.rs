//! What waits for a person.

use super::{Facts, MemoryStore, escalations::Waits};
use crate::{
    Answer, AuditFilter, AuditPage, AuditVerified, DecideEscalation, Decided, DueEscalation, DueEscalations,
    DueNotices, Escalation, EscalationFilter, EscalationMoved, EscalationPage, EscalationSummary, Fenced, Limits,
    Notice, Noticed, OpenEscalation, Opened, Page, PeopleStore, Retried, RetryNotice, StoreError,
};
use outlast_engine::run::{Resolution, escalate};
use outlast_model::Wall;
use std::sync::Arc;

impl PeopleStore for MemoryStore {
    fn open_escalation(&self, command: OpenEscalation) -> Answer<Opened> {
        self.transact(|facts, limits, now| facts.escalations.open(command, limits, now))
    }

    fn escalations(&self, filter: EscalationFilter, page: Page) -> Answer<EscalationPage> {
        self.transact(|facts, limits, now| Ok(facts.escalations.list(&filter, page, limits, now)))
    }

    fn escalation(&self, id: Arc<str>) -> Answer<Option<Escalation>> {
        self.transact(|facts, limits, now| Ok(facts.escalations.get(&id, limits, now)))
    }

    fn decide_escalation(&self, command: DecideEscalation) -> Answer<Decided> {
        self.transact(|facts, limits, now| facts.decide(command, limits, now))
    }

    fn due_escalations(&self, command: DueEscalations) -> Answer<Vec<DueEscalation>> {
        self.transact(|facts, _, now| Ok(facts.escalations.due(&command, &mut facts.epochs, now)))
    }

    fn escalation_moved(&self, command: EscalationMoved) -> Answer<Fenced> {
        self.transact(|facts, _, now| Ok(facts.escalations.moved(&command, now)))
    }

    fn due_notices(&self, command: DueNotices) -> Answer<Vec<Notice>> {
        self.transact(|facts, limits, now| Ok(facts.escalations.due_notices(&command, &mut facts.epochs, limits, now)))
    }

    fn noticed(&self, command: Noticed) -> Answer<Fenced> {
        self.transact(|facts, _, _| Ok(facts.escalations.notices.noticed(&command)))
    }

    fn retry_notice(&self, command: RetryNotice) -> Answer<Retried> {
        self.transact(|facts, limits, now| Ok(facts.escalations.notices.retry(&command, limits, now)))
    }

    fn audit(&self, filter: AuditFilter, page: Page) -> Answer<AuditPage> {
        self.transact(|facts, _, _| Ok(facts.escalations.audit.list(&filter, page)))
    }

    fn verify_audit(&self) -> Answer<AuditVerified> {
        self.transact(|facts, _, _| Ok(facts.escalations.audit.verify()))
    }
}

impl Facts {
    /// A person decides. What can fail comes first: nothing is half decided.
    fn decide(&mut self, command: DecideEscalation, limits: &Limits, now: Wall) -> Result<Decided, StoreError> {
        let waits = match self.escalations.weigh(&command, limits, now)? {
            Ok(waits) => waits,
            Err(decided) => return Ok(decided),
        };
        self.go_on(&waits, &command, limits, now);
        let DecideEscalation { id, by, verb, decision, .. } = command;
        self.escalations.close(&id, &by, verb, decision, limits, now)?;
        Ok(Decided::Stands)
    }

    /// Lets what waits hear the decision.
    fn go_on(&mut self, waits: &Waits, command: &DecideEscalation, limits: &Limits, now: Wall) {
        let EscalationSummary { id, tenant, origin, .. } = &waits.escalation;
        let place = origin.place(tenant);
        let mut resolve = |resolution| {
            let (result, decision) = (command.result.clone(), command.decision.clone());
            self.resolve(place.as_ref(), id, resolution, result, decision, limits, now);
        };
        match waits.comes_to {
            escalate::Decided::Answer => {}
            escalate::Decided::Step(resolution) => resolve(resolution),
            // No entry waits: the run does.
            escalate::Decided::WakeRun => resolve(Resolution::Try),
            escalate::Decided::CancelRun => {
                resolve(Resolution::Failed);
                if let Some(run) = origin.run(tenant) {
                    self.cancel_now(&run, now);
                }
            }
        }
    }
}
