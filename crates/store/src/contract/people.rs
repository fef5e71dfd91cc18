//! The part of the contract that people need: escalations, who hears of them, and the audit log.

use super::{Answer, Fenced};
use crate::{
    AuditFilter, AuditPage, AuditVerified, DecideEscalation, Decided, DueEscalation, DueEscalations, DueNotices,
    Escalation, EscalationFilter, EscalationMoved, EscalationPage, Notice, Noticed, OpenEscalation, Opened, Page,
    Retried, RetryNotice,
};
use std::sync::Arc;

/// What waits for a person. The rules that hold for every command are those of [the contract](super).
pub trait PeopleStore {
    /// Opens an escalation of a request. Those of runs, steps and effects are opened by the commands that park them.
    ///
    /// # Errors
    /// [`crate::StoreError::LimitReached`] when there is no room for another one.
    fn open_escalation(&self, command: OpenEscalation) -> Answer<Opened>;
    /// Escalations, the newest first.
    fn escalations(&self, filter: EscalationFilter, page: Page) -> Answer<EscalationPage>;
    /// One escalation, with its payload.
    fn escalation(&self, id: Arc<str>) -> Answer<Option<Escalation>>;
    /// Decides an escalation: what waits for it goes on, the audit log has it, and those who were told hear of it. The
    /// first decision stands.
    fn decide_escalation(&self, command: DecideEscalation) -> Answer<Decided>;
    /// Claims open escalations that somebody has to hear of now, those that have been due longest first.
    fn due_escalations(&self, command: DueEscalations) -> Answer<Vec<DueEscalation>>;
    /// Says who hears of one. Lost when it was decided meanwhile, or is somebody else's.
    fn escalation_moved(&self, command: EscalationMoved) -> Answer<Fenced>;

    /// Claims notices that are due, the oldest first.
    fn due_notices(&self, command: DueNotices) -> Answer<Vec<Notice>>;
    /// A notice arrived.
    fn noticed(&self, command: Noticed) -> Answer<Fenced>;
    /// A notice did not arrive.
    fn retry_notice(&self, command: RetryNotice) -> Answer<Retried>;

    /// Entries of the audit log, the newest first.
    fn audit(&self, filter: AuditFilter, page: Page) -> Answer<AuditPage>;
    /// Reads the whole audit log and says whether it is what was written. Slow on a long one.
    fn verify_audit(&self) -> Answer<AuditVerified>;
}
