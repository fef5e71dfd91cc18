//! Intent, effect, outcome: one entry of the ledger, as the host begins and ends it.
//!
//! An attempt has a claim of its own, also in a run that is claimed: two hosts that one worker asks twice must not both
//! take the second begin for a repetition of the first whose answer was lost. The run's own claim is a fence: checked in the
//! same transaction, and not renewed, so that a holder that dies in the middle of a long call does not keep the run.

use super::{super::Shared, ToolError, approval::Asking, attempt::Outcome};
use crate::{clock, failpoint};
use outlast_engine::run::{Ended, Proof};
use outlast_model::{
    ToolName, Usd,
    run::{EffectClass, EscalationKind, RetryBudget, StepKind},
};
use outlast_store::{
    BeginStep, EndStep, Epoch, Payload, Place, RenewStep, RunRef, StepBegun, StepEnded, StepView, StoreError,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    sync::Arc,
    task::Poll,
    time::Duration,
};

/// The longest a claim stands unless it is renewed: what a process that died was at is taken up after this.
const LEASE_MAX: Duration = Duration::from_secs(10);
/// What an attempt may take beyond its timeout, the writing of its outcome included.
const MARGIN: Duration = Duration::from_secs(2);
/// How often an outcome is tried to be written while the store does not answer, a second apart.
const WRITES_MAX: u32 = 30;

/// An entry that is to be done.
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) journal: Option<(RunRef, Arc<str>)>,
    /// The run's claim, checked in the transaction that begins anything.
    pub(super) fence: Option<(RunRef, Epoch)>,
    pub(super) kind: StepKind,
    pub(super) tool: ToolName,
    pub(super) class: EffectClass,
    pub(super) fingerprint: [u8; 32],
    pub(super) arguments: Value,
    pub(super) budget: RetryBudget,
    /// How long one attempt takes at most.
    pub(super) timeout: Duration,
    pub(super) needs_approval: bool,
    pub(super) undo: Option<Payload>,
    pub(super) undoes: Option<Arc<str>>,
    pub(super) asking: Asking,
}

/// What an entry keeps of what was asked: for whoever verifies, decides or undoes.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    /// The tool that is called. Names the entry as one of a tool.
    pub(super) tool: ToolName,
    /// With what.
    pub(super) arguments: Value,
}

/// Who is asked next, kept with an entry's last error: it is written before anything is sent there, so that who was asked
/// last is known whenever a process dies.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Pointer {
    pub(super) next: ToolName,
    /// The hash of the person's decision that held then; a later one counts for more.
    #[serde(default)]
    under: Option<Arc<str>>,
}

#[derive(Serialize, Deserialize)]
struct LastError {
    #[serde(flatten)]
    error: ToolError,
    #[serde(flatten)]
    pointer: Option<Pointer>,
}

/// What a person decided about an entry, as far as an attempt heeds it.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Decision {
    /// Other arguments.
    #[serde(default)]
    pub(super) arguments: Option<Value>,
    /// Another tool.
    #[serde(default)]
    pub(super) tool: Option<ToolName>,
    #[serde(skip)]
    hash: Option<Arc<str>>,
}

impl Decision {
    pub(super) fn read(kept: Option<&Payload>) -> Self {
        let Some(kept) = kept else { return Decision::default() };
        let hash = blake3::hash(kept.as_bytes()).to_hex()[..16].into();
        let read: Decision = serde_json::from_slice(kept.as_bytes()).unwrap_or_default();
        Decision { hash: Some(hash), ..read }
    }

    /// Who is asked: whoever was named last, by the person or by the attempt before.
    pub(super) fn whom(&self, last: Option<Pointer>, first: &ToolName) -> ToolName {
        match last.filter(|pointer| pointer.under == self.hash) {
            Some(pointer) => pointer.next,
            None => self.tool.clone().unwrap_or_else(|| first.clone()),
        }
    }

    pub(super) fn then(&self, next: ToolName) -> Pointer {
        Pointer { next, under: self.hash.clone() }
    }
}

/// Who was to be asked next when the entry's last error was written.
pub(super) fn pointer(view: &StepView) -> Option<Pointer> {
    serde_json::from_slice::<LastError>(view.payload.as_bytes()).ok()?.pointer
}

/// How an attempt ends in the ledger.
pub(super) struct End {
    pub(super) ended: Ended,
    pub(super) payload: Payload,
    /// What a person is told, if this leads to one.
    pub(super) question: Option<&'static str>,
}

impl End {
    /// Of an outcome whose result keeps its schema; `next` is asked if it is tried again.
    pub(super) fn of(outcome: &Outcome, next: Pointer) -> Self {
        let (ended, payload) = match outcome {
            Outcome::Done(result) => (Ended::Done, Payload::from(serde_json::to_vec(result).unwrap_or_default())),
            Outcome::Failed { error, proof: Proof::Final, .. } => (Ended::Failed(Proof::Final), error.kept()),
            Outcome::Failed { error, proof: proof @ Proof::Again { .. }, .. } => {
                (Ended::Failed(*proof), last(error, next))
            }
            Outcome::Unknown(error) => (Ended::Unknown, last(error, next)),
        };
        End { ended, payload, question: None }
    }

    /// Of the undoing of a step: what could not be undone is for a person, whatever its budget says.
    pub(super) fn of_undo(self, is_last: bool) -> Self {
        let given_up = match self.ended {
            Ended::Failed(Proof::Final) => true,
            Ended::Failed(Proof::Again { .. }) => is_last,
            Ended::Done | Ended::Unknown | Ended::Review(_) => false,
        };
        if !given_up {
            return self;
        }
        let question = "What the run did has to be undone, and its tool could not. Try again, undo it by hand and say \
                        that it happened, or leave it as it is?";
        End { ended: Ended::Review(EscalationKind::Compensation), question: Some(question), ..self }
    }

    /// It took place, and its result is not what it has to be: a person looks at it. It is not done again.
    pub(super) fn review(result: &Value) -> Self {
        let payload = Payload::from(serde_json::to_vec(result).unwrap_or_default());
        let question = "It answered that it took place, but its result breaks its schema. What is the result?";
        End { ended: Ended::Review(EscalationKind::UnknownEffect), payload, question: Some(question) }
    }
}

fn last(error: &ToolError, next: Pointer) -> Payload {
    let kept = LastError { error: error.clone(), pointer: Some(next) };
    Payload::from(serde_json::to_vec(&kept).unwrap_or_default())
}

/// The claim of an attempt or a verification.
#[derive(Clone, Copy)]
pub(super) struct Claim {
    pub(super) epoch: Epoch,
    pub(super) attempt: u32,
}

impl Entry {
    pub(super) fn key(&self) -> String {
        super::idempotency_key(&self.place)
    }

    /// How long its claims stand.
    pub(super) fn lease(&self) -> Duration {
        // Past its deadline nothing of an attempt happens: there is no claim to be kept longer.
        LEASE_MAX.min(self.timeout + MARGIN)
    }

    /// Writes the intent down, or learns what became of it.
    pub(super) async fn begin(&self, shared: &Shared) -> Result<StepBegun, StoreError> {
        let kept = Kept { tool: self.tool.clone(), arguments: self.arguments.clone() };
        let begin = BeginStep {
            place: self.place.clone(),
            journal: self.journal.clone(),
            epoch: None,
            fence: self.fence.as_ref().map(|(_, epoch)| *epoch),
            lease: self.lease(),
            kind: self.kind,
            name: self.tool.as_str().into(),
            class: self.class,
            fingerprint: self.fingerprint,
            input: Payload::from(serde_json::to_vec(&kept).unwrap_or_default()),
            budget: self.budget,
            call_deadline: self.timeout + MARGIN,
            needs_approval: self.needs_approval,
            strict: false,
            undo: self.undo.clone(),
            undoes: self.undoes.clone(),
            if_parked: self.asking.if_parked(shared, self.needs_approval.then_some(MAY_IT)),
        };
        let begun = shared.stored(shared.store.begin_step(begin)).await?;
        if let StepBegun::Execute { .. } | StepBegun::Verify { .. } = begun {
            failpoint::pass("ledger.intent");
        }
        Ok(begun)
    }

    /// The entry as it stands.
    pub(super) async fn view(&self, shared: &Shared) -> Result<Option<StepView>, StoreError> {
        shared.stored(shared.store.step(self.place.clone())).await
    }

    /// Writes an outcome down. It is tried again while the store does not answer: what took place must not be forgotten.
    pub(super) async fn end(&self, shared: &Shared, claim: Claim, end: End) -> Result<StepEnded, StoreError> {
        let ended = end_place(shared, &self.place, claim, end, self.lease(), &self.asking).await;
        failpoint::pass("ledger.outcome");
        ended
    }

    /// Does work while the claim is renewed. Lost, the work goes on: what was sent cannot be called back.
    pub(super) async fn holding<T>(&self, shared: &Shared, claim: Claim, work: impl Future<Output = T>) -> T {
        let lease = self.lease();
        let renewing = async {
            loop {
                clock::sleep(lease / 3).await;
                let renew = RenewStep { place: self.place.clone(), epoch: claim.epoch, lease };
                let _ = shared.stored(shared.store.renew_step(renew)).await;
            }
        };
        let mut renewing = std::pin::pin!(renewing);
        let mut work = std::pin::pin!(work);
        poll_fn(|cx| {
            let _: Poll<Infallible> = renewing.as_mut().poll(cx);
            work.as_mut().poll(cx)
        })
        .await
    }
}

const MAY_IT: &str = "May this tool be called with these arguments?";

/// Ends an attempt or a verification of an entry.
pub(super) async fn end_place(
    shared: &Shared,
    place: &Place,
    claim: Claim,
    end: End,
    lease: Duration,
    asking: &Asking,
) -> Result<StepEnded, StoreError> {
    let command = EndStep {
        place: place.clone(),
        epoch: claim.epoch,
        attempt: claim.attempt,
        ended: end.ended,
        payload: end.payload,
        cost: Usd::ZERO,
        lease,
        if_parked: asking.if_parked(shared, end.question),
    };
    let mut writes = 0;
    loop {
        writes += 1;
        match shared.stored(shared.store.end_step(command.clone())).await {
            Err(error) if error.passes() && writes < WRITES_MAX => clock::sleep(Duration::from_secs(1)).await,
            ended => return ended,
        }
    }
}
