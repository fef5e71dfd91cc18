//! Escalations: work handed to a person. It waits; it never disappears undecided.
//!
//! One belongs to a request that the gateway could not answer, or to a step, an effect or a run that waits for it. It is
//! decided once, by somebody who names what they were shown; what waits goes on in the same transaction.

use crate::{AuditEntry, Epoch, IfParked, Payload, Place, RunRef};
use outlast_model::{
    Failure, RequestId, RouteId, RunId, TenantId, Wall,
    run::{EscalationKind, Verb},
};
use std::{sync::Arc, time::Duration};

/// Open an escalation of a request that no path could answer. Repeated with the same id it opens nothing new.
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
    /// An answer is wanted by then. None: it waits.
    pub answer_within: Option<Duration>,
}

/// It is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// False if it was open, or even decided, before.
    pub first: bool,
}

/// What comes to wait for a person, as the command that parks it says: the escalation is opened in that transaction.
#[derive(Clone, Copy, Debug)]
pub struct Parking<'a> {
    /// Whose work it is.
    pub tenant: &'a TenantId,
    /// The run that waits.
    pub run: Option<&'a RunId>,
    /// The step of its journal that waits; none if the run as a whole does.
    pub step: Option<&'a str>,
    /// Scope and key of the effect that waits, when it is kept in the tenant's ledger.
    pub effect: Option<(&'a str, &'a str)>,
    /// Why.
    pub kind: EscalationKind,
    /// The entry's; of a run as a whole, zeros.
    pub fingerprint: [u8; 32],
    /// The entry's attempts begun; of a run as a whole, its claims without progress.
    pub attempts: u32,
    /// What the person is asked.
    pub asked: &'a IfParked,
}

/// What an escalation came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A request to the gateway.
    Call {
        /// The route that could not answer.
        route: RouteId,
        /// The request.
        request_id: RequestId,
        /// Why it came.
        failure: Failure,
    },
    /// A run, one of its steps, or an effect.
    Work {
        /// The run that waits; none waits for an effect of no run.
        run: Option<RunId>,
        /// The step of its journal; none if the run as a whole waits.
        step: Option<Arc<str>>,
        /// Scope and key in the tenant's ledger, when the step is kept there.
        effect: Option<(Arc<str>, Arc<str>)>,
    },
}

/// Which escalations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EscalationFilter {
    /// Of this tenant; of all.
    pub tenant: Option<TenantId>,
    /// Only those still open.
    pub open_only: bool,
    /// Of this kind; of any.
    pub kind: Option<EscalationKind>,
    /// Of the run of this name; of anything.
    pub run: Option<RunId>,
    /// Only open ones that should have been answered by now.
    pub overdue_only: bool,
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
    /// Why it waits, which says what can be decided.
    pub kind: EscalationKind,
    /// What it came from.
    pub origin: Origin,
    /// As it was opened.
    pub question: Arc<str>,
    /// The hash of all that a person is shown and that is not theirs to change: a decision names it.
    pub shown: [u8; 32],
    /// How many levels have heard of it. None before it was first looked at.
    pub level: Option<u32>,
    /// When it was opened.
    pub opened_at: Wall,
    /// An answer is wanted by then.
    pub answer_by: Option<Wall>,
    /// When it was decided, and how; none if it is open.
    pub decided: Option<(Wall, Verb)>,
}

/// One escalation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Escalation {
    /// What the list shows of it.
    pub summary: EscalationSummary,
    /// The fingerprint of what waits; zeros where nothing has one.
    pub fingerprint: [u8; 32],
    /// How often it had been tried when it was opened.
    pub attempts: u32,
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
    /// How.
    pub verb: Verb,
    /// What else they said. The store does not read it.
    pub decision: Payload,
}

/// Decide an escalation, and let what waits for it go on: one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecideEscalation {
    /// The escalation.
    pub id: Arc<str>,
    /// Who decides.
    pub by: Arc<str>,
    /// How.
    pub verb: Verb,
    /// [`EscalationSummary::shown`] of what they were shown.
    pub shown: [u8; 32],
    /// The result or the error that the step is to have. None: what it has stays.
    pub result: Option<Payload>,
    /// All they said. Kept on the step, too, and given along when it is tried. The store does not read it.
    pub decision: Payload,
}

/// Whether a decision stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decided {
    /// It does; also when the same person repeats the same decision.
    Stands,
    /// Another one came first, which stands.
    Already(Decision),
    /// They were shown something else.
    Changed,
    /// It is not among the choices of its kind.
    NotOffered,
    /// There is no such escalation.
    Unknown,
}

/// Claim open escalations that somebody has to hear of now: new ones, and those whose time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueEscalations {
    /// How long the claims stand.
    pub lease: Duration,
    /// At most so many; at most 100 are given.
    pub limit: u32,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueEscalation {
    /// As it stands.
    pub escalation: EscalationSummary,
    /// The claim: [`EscalationMoved`] names it.
    pub epoch: Epoch,
}

/// Who hears of an escalation now, and when it is looked at again. The notices are kept in the same transaction. The same
/// again is [`crate::Fenced::Held`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EscalationMoved {
    /// Which.
    pub id: Arc<str>,
    /// The claim.
    pub epoch: Epoch,
    /// How many levels have heard of it then.
    pub level: u32,
    /// What they hear.
    pub about: About,
    /// Who: names of the config's channels.
    pub notify: Vec<Arc<str>>,
    /// When it is looked at again; none: not before it is decided.
    pub next_in: Option<Duration>,
}

/// What a notice says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// It waits for a person.
    Opened,
    /// It still does.
    Reminder,
    /// It still does, and those who were asked first have not answered.
    NextLevel,
    /// Somebody decided.
    Decided,
}

impl About {
    /// The name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            About::Opened => "opened",
            About::Reminder => "reminder",
            About::NextLevel => "next_level",
            About::Decided => "decided",
        }
    }
}

impl Origin {
    /// Where the entry is kept that waits; none of a request, and of a run that waits as a whole.
    pub fn place(&self, tenant: &TenantId) -> Option<Place> {
        let Origin::Work { run, step, effect } = self else { return None };
        match (effect, run, step) {
            (Some((scope, key)), _, _) => {
                Some(Place::Effect { tenant: tenant.clone(), scope: scope.clone(), key: key.clone() })
            }
            (None, Some(run), Some(step)) => {
                let run = RunRef { tenant: tenant.clone(), id: run.clone() };
                Some(Place::Step { run, key: step.clone() })
            }
            (None, _, _) => None,
        }
    }

    /// Whether it came from the run of this name.
    pub(crate) fn is_of(&self, name: &RunId) -> bool {
        match self {
            Origin::Work { run, .. } => run.as_ref() == Some(name),
            Origin::Call { .. } => false,
        }
    }

    /// The run that waits.
    pub fn run(&self, tenant: &TenantId) -> Option<RunRef> {
        match self {
            Origin::Work { run: Some(run), .. } => Some(RunRef { tenant: tenant.clone(), id: run.clone() }),
            Origin::Work { run: None, .. } | Origin::Call { .. } => None,
        }
    }
}

impl Parking<'_> {
    pub(crate) fn origin(&self) -> Origin {
        Origin::Work {
            run: self.run.cloned(),
            step: self.step.map(Arc::from),
            effect: self.effect.map(|(scope, key)| (scope.into(), key.into())),
        }
    }

    pub(crate) fn shown(&self) -> [u8; 32] {
        let IfParked { id, question, context, answer_within: _ } = self.asked;
        shown(id, self.kind, question, context, &self.fingerprint, self.attempts)
    }
}

impl OpenEscalation {
    pub(crate) fn shown(&self) -> [u8; 32] {
        shown(&self.id, EscalationKind::Call, &self.question, &self.payload, &[0; 32], 0)
    }
}

/// The hash of what a person is shown. Lengths in front, so that no two read the same.
fn shown(
    id: &str,
    kind: EscalationKind,
    question: &str,
    context: &Payload,
    fingerprint: &[u8; 32],
    attempts: u32,
) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("outlast 2026-11-21 what a person is shown of an escalation");
    for part in [id.as_bytes(), kind.name().as_bytes(), question.as_bytes(), context.as_bytes()] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.update(fingerprint);
    hasher.update(&attempts.to_le_bytes());
    *hasher.finalize().as_bytes()
}

/// What the audit log says of a decision: what it was about, and the hashes of what was shown and of what was said.
pub(crate) fn audited(escalation: &EscalationSummary, by: &Arc<str>, verb: Verb, decision: &Payload) -> AuditEntry {
    let mut details = serde_json::json!({
        "kind": escalation.kind.name(),
        "shown": blake3::Hash::from_bytes(escalation.shown).to_hex().as_str(),
        "said": blake3::hash(decision.as_bytes()).to_hex().as_str(),
    });
    match &escalation.origin {
        Origin::Call { route, request_id, failure: _ } => {
            details["route"] = route.as_str().into();
            details["request_id"] = request_id.as_str().into();
        }
        Origin::Work { run, step, effect } => {
            details["run"] = run.as_ref().map(RunId::as_str).into();
            details["step"] = step.as_deref().into();
            details["effect"] = effect.as_ref().map(|(scope, key)| format!("{scope}/{key}")).into();
        }
    }
    AuditEntry {
        who: by.clone(),
        what: format!("escalation.{verb}").into(),
        subject: escalation.id.clone(),
        tenant: escalation.tenant.clone(),
        details: details.to_string().into(),
    }
}
