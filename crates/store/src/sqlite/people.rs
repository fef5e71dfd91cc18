//! What waits for a person.

use super::{SqliteStore, escalations};
use crate::{
    Answer, AuditFilter, AuditPage, AuditVerified, DecideEscalation, Decided, DueEscalation, DueEscalations,
    DueNotices, Escalation, EscalationFilter, EscalationMoved, EscalationPage, Fenced, Notice, Noticed, OpenEscalation,
    Opened, Page, PeopleStore, Retried, RetryNotice, StoreError,
};
use std::{future, sync::Arc};

fn not_yet<T: Send + 'static>() -> Answer<T> {
    Box::pin(future::ready(Err(StoreError::Unsupported { what: "do that yet" })))
}

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
        self.write(command.decision.len(), move |cx| escalations::decide(cx, &command))
    }

    fn due_escalations(&self, _: DueEscalations) -> Answer<Vec<DueEscalation>> {
        not_yet()
    }

    fn escalation_moved(&self, _: EscalationMoved) -> Answer<Fenced> {
        not_yet()
    }

    fn due_notices(&self, _: DueNotices) -> Answer<Vec<Notice>> {
        not_yet()
    }

    fn noticed(&self, _: Noticed) -> Answer<Fenced> {
        not_yet()
    }

    fn retry_notice(&self, _: RetryNotice) -> Answer<Retried> {
        not_yet()
    }

    fn audit(&self, _: AuditFilter, _: Page) -> Answer<AuditPage> {
        not_yet()
    }

    fn verify_audit(&self) -> Answer<AuditVerified> {
        not_yet()
    }
}
