//! Escalations: work handed to a person. It waits; it never disappears undecided.

use crate::Payload;
use outlast_model::{Failure, RequestId, RouteId, TenantId, Wall};
use std::sync::Arc;

/// Open an escalation. Repeated with the same id it opens nothing new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenEscalation {
    /// The caller's, random: whoever knows it and is the tenant may ask for it.
    pub id: Arc<str>,
    /// Whose it is.
    pub tenant: TenantId,
    /// The route that could not answer.
    pub route: RouteId,
    /// The request it came from.
    pub request_id: RequestId,
    /// Why it came.
    pub failure: Failure,
    /// What the person is asked. May quote the request, so it is kept like a payload.
    pub question: Arc<str>,
    /// What the person needs: the request, the attempts, the state.
    pub payload: Payload,
}

/// It is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// False if it was open, or even decided, before.
    pub first: bool,
}

/// Which escalations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EscalationFilter {
    /// Of this tenant; of all.
    pub tenant: Option<TenantId>,
    /// Only those still open.
    pub open_only: bool,
}

/// Where a page of a list begins: after the last entry of the page before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(pub i64);

/// Which part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// [`EscalationPage::next`] of the page before; the beginning.
    pub after: Option<Cursor>,
    /// At most so many entries; at most 200 are given.
    pub size: u32,
}

impl Page {
    /// More are never given at once.
    pub const LARGEST: u32 = 200;
}

/// Part of the list of escalations, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EscalationPage {
    /// The entries.
    pub escalations: Vec<EscalationSummary>,
    /// Where the next page begins, if there is one.
    pub next: Option<Cursor>,
}

/// An escalation in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EscalationSummary {
    /// As it was opened.
    pub id: Arc<str>,
    /// As it was opened.
    pub tenant: TenantId,
    /// As it was opened.
    pub route: RouteId,
    /// As it was opened.
    pub request_id: RequestId,
    /// As it was opened.
    pub failure: Failure,
    /// As it was opened.
    pub question: Arc<str>,
    /// When it was opened.
    pub opened_at: Wall,
    /// When it was decided; none if it is open.
    pub decided_at: Option<Wall>,
}

/// One escalation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Escalation {
    /// What the list shows of it.
    pub summary: EscalationSummary,
    /// As it was opened.
    pub payload: Payload,
    /// Where it stands.
    pub state: EscalationState,
}

/// Where an escalation stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EscalationState {
    /// It waits for a person.
    Open,
    /// A person decided.
    Decided(Decision),
}

/// What a person decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Who.
    pub by: Arc<str>,
    /// When.
    pub at: Wall,
    /// What. The store does not read it.
    pub decision: Payload,
}

/// Decide an escalation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecideEscalation {
    /// The escalation.
    pub id: Arc<str>,
    /// Who decides.
    pub by: Arc<str>,
    /// What. The store does not read it.
    pub decision: Payload,
}

/// Whether a decision stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decided {
    /// It does; also when the same person repeats the same decision.
    Stands,
    /// Another one came first, which stands.
    Already(Decision),
    /// There is no such escalation.
    Unknown,
}
