//! What waits for a person.

use super::{
    SqliteStore, audit,
    cx::Cx,
    effects,
    escalations::{self, Waits},
    fault::Outcome,
    notices,
};
use crate::{
    Answer, AuditFilter, AuditPage, AuditVerified, DecideEscalation, Decided, DueEscalation, DueEscalations,
    DueNotices, Escalation, EscalationFilter, EscalationMoved, EscalationPage, EscalationSummary, Fenced, Notice,
    Noticed, OpenEscalation, Opened, Page, PeopleStore, Retried, RetryNotice,
};
use outlast_engine::run::{Resolution, escalate};
use std::sync::Arc;

impl PeopleStore for SqliteStore {
    fn open_escalation(&self, command: OpenEscalation) -> Answer<Opened> {
        self.write(command.payload.len(), move |cx| escalations::open(cx, &command))
    }

    fn escalations(&self, filter: EscalationFilter, page: Page) -> Answer<EscalationPage> {
        self.readers.ask(move |cx| escalations::list(cx, &filter, page))
    }

    fn escalation(&self, id: Arc<str>) -> Answer<Option<Escalation>> {
        self.readers.ask(move |cx| escalations::get(cx, &id))
    }

    fn decide_escalation(&self, command: DecideEscalation) -> Answer<Decided> {
        let bytes = command.decision.len() + command.result.as_ref().map_or(0, |result| result.len());
        self.write(bytes, move |cx| decide(cx, &command))
    }

    fn due_escalations(&self, command: DueEscalations) -> Answer<Vec<DueEscalation>> {
        self.write(0, move |cx| escalations::due(cx, &command))
    }

    fn escalation_moved(&self, command: EscalationMoved) -> Answer<Fenced> {
        self.write(0, move |cx| escalations::moved(cx, &command))
    }

    fn due_notices(&self, command: DueNotices) -> Answer<Vec<Notice>> {
        self.write(0, move |cx| notices::due(cx, &command))
    }

    fn noticed(&self, command: Noticed) -> Answer<Fenced> {
        self.write(0, move |cx| notices::noticed(cx, &command))
    }

    fn retry_notice(&self, command: RetryNotice) -> Answer<Retried> {
        self.write(0, move |cx| notices::retry(cx, &command))
    }

    fn audit(&self, filter: AuditFilter, page: Page) -> Answer<AuditPage> {
        self.readers.ask(move |cx| audit::list(cx, &filter, page))
    }

    fn verify_audit(&self) -> Answer<AuditVerified> {
        self.work(|db, around| super::readers::read(db, around, audit::verify))
    }
}

/// A person decides.
fn decide(cx: Cx<'_>, command: &DecideEscalation) -> Outcome<Decided> {
    let waits = match escalations::weigh(cx, command)? {
        Ok(waits) => waits,
        Err(decided) => return Ok(decided),
    };
    go_on(cx, &waits, command)?;
    let DecideEscalation { id, by, verb, decision, .. } = command;
    escalations::close(cx, id, by, *verb, decision)?;
    Ok(Decided::Stands)
}

/// Lets what waits hear the decision.
fn go_on(cx: Cx<'_>, waits: &Waits, command: &DecideEscalation) -> Outcome<()> {
    let EscalationSummary { id, tenant, origin, .. } = &waits.escalation;
    let place = origin.place(tenant);
    let resolve =
        |resolution| effects::resolve(cx, place.as_ref(), id, resolution, command.result.as_ref(), &command.decision);
    match waits.comes_to {
        escalate::Decided::Answer => Ok(()),
        escalate::Decided::Step(resolution) => resolve(resolution),
        // No entry waits: the run does.
        escalate::Decided::WakeRun => resolve(Resolution::Try),
        escalate::Decided::CancelRun => {
            resolve(Resolution::Failed)?;
            origin.run(tenant).map_or(Ok(()), |run| effects::cancel_now(cx, &run))
        }
    }
}
