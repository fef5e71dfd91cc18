//! How a step of a driven run is begun and ended: what was done is not done again, what is done is written down.

use super::{Drive, opened, payload};
use crate::{clock, failpoint};
use outlast_engine::run::{Ended, MayNotBegin, flow::Outcome};
use outlast_model::{
    Usd,
    policy::WorkflowStep,
    run::{EffectClass, RetryBudget, StepKind},
};
use outlast_store::{Answer, BeginStep, EndStep, Epoch, IfParked, Payload, Place, StepBegun, StepEnded, StoreError};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// How often a command is given to a store that does not answer. After that the run is left: its lease runs out.
const TRIES: u32 = 4;
/// The wait between two of them.
const BETWEEN: Duration = Duration::from_millis(250);

/// A step that is to be done.
pub(super) struct Attempt {
    pub(super) key: Arc<str>,
    pub(super) number: u32,
    pub(super) epoch: Epoch,
    /// What a person decided about it last.
    pub(super) decision: Option<Value>,
}

/// A step as it is to be begun, beside what all steps of the run have in common.
pub(super) struct Begin<'a> {
    pub(super) key: &'a Arc<str>,
    pub(super) kind: StepKind,
    pub(super) name: &'a str,
    pub(super) fingerprint: [u8; 32],
    pub(super) input: Payload,
    pub(super) budget: RetryBudget,
    pub(super) call_deadline: Duration,
    pub(super) undo: Option<Payload>,
    /// It undoes the step of this key.
    pub(super) undoes: Option<&'a Arc<str>>,
}

/// What a person is asked if it comes to that.
pub(super) struct Question {
    pub(super) text: String,
    /// What they need beside the journal.
    pub(super) context: Value,
}

impl Drive {
    /// Begins a step that changes nothing in the world.
    ///
    /// # Errors
    /// What became of it, where it is not to be done now.
    pub(super) async fn begin(
        &mut self,
        step: Begin<'_>,
        question: &Question,
    ) -> Result<Attempt, Result<Value, Outcome>> {
        let Some(if_parked) = self.if_parked(question) else { return Err(Err(lost())) };
        let command = BeginStep {
            place: Place::Step { run: self.run.clone(), key: step.key.clone() },
            journal: None,
            epoch: Some(self.epoch),
            fence: None,
            lease: self.lease,
            kind: step.kind,
            name: step.name.into(),
            class: EffectClass::Pure,
            fingerprint: step.fingerprint,
            input: step.input,
            budget: step.budget,
            call_deadline: step.call_deadline,
            needs_approval: false,
            strict: false,
            undo: step.undo,
            undoes: step.undoes.cloned(),
            if_parked,
        };
        let begun = match self.sure(|| self.shared.store.begin_step(command.clone())).await {
            Ok(begun) => begun,
            Err(error) => return Err(Err(self.refused(step.key, &error))),
        };
        Err(match begun {
            StepBegun::Execute { attempt, epoch, deadline: _, decision } => {
                failpoint::pass("ledger.intent");
                let decision = decision.as_ref().map(opened);
                return Ok(Attempt { key: step.key.clone(), number: attempt, epoch, decision });
            }
            StepBegun::Done { result, diverged: _ } => Ok(opened(&result)),
            StepBegun::Failed { error, diverged: _ } => {
                self.trouble = error.as_ref().map(opened);
                Err(Outcome::Failed)
            }
            StepBegun::Wait { after, unknown: false } => Err(Outcome::Again(after)),
            StepBegun::Wait { after, unknown: true } | StepBegun::InFlight { after } => Err(Outcome::Unknown(after)),
            StepBegun::Parked { .. } => Err(Outcome::Parked),
            StepBegun::Mismatch => Err(Outcome::Mismatch),
            StepBegun::Refused(why) => Err(Outcome::Refused(why)),
            // What changes nothing is never asked about, and the run was there when it was claimed.
            StepBegun::Verify { .. } | StepBegun::NoRun => Err(lost()),
        })
    }

    /// Ends an attempt.
    ///
    /// # Errors
    /// What became of the step, where its result does not stand now.
    pub(super) async fn end(
        &mut self,
        attempt: &Attempt,
        ended: Ended,
        result: Value,
        cost: Usd,
        question: &Question,
    ) -> Result<Value, Outcome> {
        let Some(if_parked) = self.if_parked(question) else { return Err(lost()) };
        let command = EndStep {
            place: Place::Step { run: self.run.clone(), key: attempt.key.clone() },
            epoch: attempt.epoch,
            attempt: attempt.number,
            ended,
            payload: payload(&result),
            cost,
            lease: self.lease,
            if_parked,
        };
        let ended = match self.sure(|| self.shared.store.end_step(command.clone())).await {
            Ok(ended) => ended,
            Err(error) => return Err(self.refused(&attempt.key, &error)),
        };
        failpoint::pass("ledger.outcome");
        self.budget = self.budget.map(|left| less(left, cost));
        match ended {
            StepEnded::Done => Ok(result),
            StepEnded::Failed => {
                self.trouble = Some(result);
                Err(Outcome::Failed)
            }
            StepEnded::Again { after } => Err(Outcome::Again(after)),
            StepEnded::Unknown { after } => Err(Outcome::Unknown(after)),
            StepEnded::Parked { .. } => Err(Outcome::Parked),
            StepEnded::Stale => Err(lost()),
        }
    }

    /// What is told if a person has to decide; none where the system gives no entropy for its id.
    pub(super) fn if_parked(&self, question: &Question) -> Option<IfParked> {
        Some(IfParked {
            id: format!("esc_{}", self.shared.clock.secret()?).into(),
            question: question.text.as_str().into(),
            context: payload(&question.context),
            answer_within: self.live.config.escalations.answer_within,
        })
    }

    /// The question of a step that cannot go on by itself.
    pub(super) fn question(&self, step: &WorkflowStep, text: String) -> Question {
        let spec = &self.plan.spec;
        let context = json!({
            "run": self.run.id,
            "workflow": spec.name,
            "version": spec.version,
            "step": step.name,
            "risk": step.risk,
        });
        Question { text, context }
    }

    /// Gives a command to the store until it answers, for a while: every command is safe to repeat.
    pub(super) async fn sure<T>(&self, command: impl Fn() -> Answer<T>) -> Result<T, StoreError> {
        let mut tries = 1;
        loop {
            match self.shared.stored(command()).await {
                Err(error) if !error.of_command() && tries < TRIES => {
                    tries += 1;
                    clock::sleep(BETWEEN).await;
                }
                answer => return answer,
            }
        }
    }

    /// The store takes the command for good or not at all: the run fails, or is left to its lease.
    fn refused(&mut self, key: &Arc<str>, error: &StoreError) -> Outcome {
        if !error.of_command() {
            return lost();
        }
        let message = format!("Step `{key}` cannot be written down: {error}.");
        self.trouble = Some(json!({ "code": "store", "step": key, "message": message }));
        Outcome::Template
    }
}

/// What is left.
pub(super) fn less(left: Usd, spent: Usd) -> Usd {
    Usd::from_nanos(left.as_nanos().saturating_sub(spent.as_nanos()))
}

/// Leave the run alone.
pub(super) fn lost() -> Outcome {
    Outcome::Refused(MayNotBegin::Lost)
}
