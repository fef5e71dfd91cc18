//! Steps of runs, and effects: what was meant, what was done, what nobody knows.
//!
//! Every step of a run is an entry of its journal, under a key of its own. A step that changes the world under a business
//! key is an entry of the tenant's ledger too: another run, or a program without one, that names the same key gets the
//! same end. Where an entry stands is decided by [`outlast_engine::run::transition`] alone.

use crate::{Epoch, IfParked, Payload, RunRef};
use outlast_engine::run::{Ended, MayNotBegin};
use outlast_model::{
    TenantId, Usd, Wall,
    run::{EffectClass, EscalationKind, LedgerState, RetryBudget, StepKind},
};
use std::{sync::Arc, time::Duration};

/// Where an entry of the ledger is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// In a run's journal.
    Step {
        /// Of which run.
        run: RunRef,
        /// Under which key.
        key: Arc<str>,
    },
    /// In a tenant's ledger.
    Effect {
        /// Whose.
        tenant: TenantId,
        /// What the key belongs to: a tool's name, or what the author says.
        scope: Arc<str>,
        /// The key.
        key: Arc<str>,
    },
}

/// Begin a step, or learn what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeginStep {
    /// Where it is kept.
    pub place: Place,
    /// The run it belongs to, when it is kept in the ledger: its journal then points to it, under this key.
    pub journal: Option<(RunRef, Arc<str>)>,
    /// The run's claim. None: the entry has a claim of its own, renewed with [`RenewStep`].
    pub epoch: Option<Epoch>,
    /// With a claim of its own: the run's claim that must stand as well, in the same transaction.
    pub fence: Option<Epoch>,
    /// How long a claim of its own stands; with `epoch`, the run's lease is renewed by as much.
    pub lease: Duration,
    /// For people.
    pub kind: StepKind,
    /// For people: the route or tool, or what the author calls it.
    pub name: Arc<str>,
    /// What a repetition would do.
    pub class: EffectClass,
    /// The hash of what is asked.
    pub fingerprint: [u8; 32],
    /// What is asked, kept for whoever verifies, decides or undoes. May be empty.
    pub input: Payload,
    /// How often it may be tried.
    pub budget: RetryBudget,
    /// Nothing of this attempt happens later than this from now.
    pub call_deadline: Duration,
    /// A person must agree first.
    pub needs_approval: bool,
    /// A changed pure step is a mismatch too.
    pub strict: bool,
    /// What undoes it, kept with the intent. The store does not read it.
    pub undo: Option<Payload>,
    /// It undoes this step: it may begin in a run that is cancelled.
    pub undoes: Option<Arc<str>>,
    /// If it has to wait for a person.
    pub if_parked: IfParked,
}

/// What became of the step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepBegun {
    /// Do it, and end it with these.
    Execute {
        /// The attempt's number, 1 for the first.
        attempt: u32,
        /// The claim: the run's, or the entry's own.
        epoch: Epoch,
        /// Nothing of it may be sent later.
        deadline: Wall,
        /// What a person decided about it last, if one did: other arguments, another tool.
        decision: Option<Payload>,
    },
    /// Ask the receiver whether it was done, and end the question with these.
    Verify {
        /// The attempt that is asked about.
        attempt: u32,
        /// The claim.
        epoch: Epoch,
        /// The input it was begun with.
        input: Payload,
    },
    /// It was done.
    Done {
        /// Its result.
        result: Payload,
        /// It was asked for in other words then.
        diverged: bool,
    },
    /// It failed for good.
    Failed {
        /// Its error; none where its budget was spent without one.
        error: Option<Payload>,
        /// It was asked for in other words then.
        diverged: bool,
    },
    /// Not yet.
    Wait {
        /// How long.
        after: Duration,
        /// Its outcome is unknown, and it is to be verified then.
        unknown: bool,
    },
    /// Somebody is at it.
    InFlight {
        /// How long that claim stands unless it is renewed.
        after: Duration,
    },
    /// It waits for a person, and so does its run: the run's claim is over.
    Parked {
        /// Why.
        why: EscalationKind,
        /// The escalation.
        escalation: Arc<str>,
    },
    /// The key stands for something else.
    Mismatch,
    /// The run says no.
    Refused(MayNotBegin),
    /// There is no such run.
    NoRun,
}

/// Keep an entry's own claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewStep {
    /// Which.
    pub place: Place,
    /// The claim.
    pub epoch: Epoch,
    /// How long it stands from now.
    pub lease: Duration,
}

/// End an attempt or a verification. The same end again changes nothing, and is answered alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndStep {
    /// Which.
    pub place: Place,
    /// The claim.
    pub epoch: Epoch,
    /// The attempt's number.
    pub attempt: u32,
    /// How it ended.
    pub ended: Ended,
    /// The result or the error. Kept as the entry's end if it is one, else as its last error.
    pub payload: Payload,
    /// What it cost. Counted for the run, too.
    pub cost: Usd,
    /// With a run's claim: its lease is renewed by as much.
    pub lease: Duration,
    /// If it comes to wait for a person.
    pub if_parked: IfParked,
}

/// What the end came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepEnded {
    /// Its result stands.
    Done,
    /// Its error stands.
    Failed,
    /// It may be tried again after this.
    Again {
        /// How long.
        after: Duration,
    },
    /// Its outcome is unknown; begin it again after this to verify or repeat it, as its class says.
    Unknown {
        /// How long.
        after: Duration,
    },
    /// It waits for a person, and so does its run.
    Parked {
        /// Why.
        why: EscalationKind,
        /// The escalation.
        escalation: Arc<str>,
    },
    /// The attempt is somebody else's by now. Nothing was changed.
    Stale,
}

/// A step as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepView {
    /// Its place in the journal; 0 for an entry without one.
    pub sequence: i64,
    /// Its key.
    pub key: Arc<str>,
    /// Where it is kept if not in the journal: scope and key in the tenant's ledger.
    pub effect: Option<(Arc<str>, Arc<str>)>,
    /// For people.
    pub kind: StepKind,
    /// For people.
    pub name: Arc<str>,
    /// What a repetition would do.
    pub class: EffectClass,
    /// Where it stands.
    pub state: LedgerState,
    /// The hash of what is asked.
    pub fingerprint: [u8; 32],
    /// Attempts begun.
    pub attempts: u32,
    /// Verifications that came to nothing.
    pub unclear: u32,
    /// Of a wait that a signal ended: the signal's name. One that its timer ended has none.
    pub signal: Option<Arc<str>>,
    /// Why it is parked.
    pub why: Option<EscalationKind>,
    /// The claim of the last attempt.
    pub epoch: Epoch,
    /// When it was first asked for.
    pub begun_at: Wall,
    /// When it ended for good.
    pub ended_at: Option<Wall>,
    /// It is not tried, or asked about, before.
    pub not_before: Option<Wall>,
    /// What was spent on it.
    pub spent: Usd,
    /// The result, the error, or the last error. Empty once it is no longer kept.
    pub payload: Payload,
    /// What was asked.
    pub input: Payload,
    /// What undoes it.
    pub undo: Option<Payload>,
    /// It undoes this step.
    pub undoes: Option<Arc<str>>,
    /// A person's decision about it, the last one.
    pub decision: Option<Payload>,
    /// It was asked for in other words, so often.
    pub divergences: u32,
}

/// Claim entries with claims of their own whose holder is gone or whose outcome is unknown, and that can be looked into
/// now. What needs no look, such as an unknown effect of class `once`, is parked by this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimUnknown {
    /// How long the claims stand.
    pub lease: Duration,
    /// At most so many; at most 100 are given.
    pub limit: u32,
    /// One for each entry that may come to wait for a person; entries beyond them are left for the next time.
    pub if_parked: Vec<IfParked>,
}

/// An entry to be verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownEffect {
    /// Which.
    pub place: Place,
    /// The claim.
    pub epoch: Epoch,
    /// The attempt that is asked about.
    pub attempt: u32,
    /// The tool's name.
    pub name: Arc<str>,
    /// What was asked.
    pub input: Payload,
}
