//! THE loop of a run that the server itself carries out, the twin of a call's: performs the flow's actions and feeds it
//! what happened, until the run ends, waits, or is given back.
//!
//! Read in the order of a run's journey: [`executors`] (which runs, how many at once), this file (the loop), [`facts`]
//! (what the journal knows), then what each kind of step does: [`model`], [`agent`], [`tool`], [`human`], [`wait`], and
//! [`undo`] when a run fails or is cancelled. [`journal`] is how a step is begun and ended.

mod agent;
mod executors;
mod facts;
mod human;
mod journal;
mod keeper;
mod model;
mod tool;
mod undo;
mod wait;

pub(in super::super) use executors::Executors;

use super::super::{Shared, live::Live};
use crate::{clock, config::WorkflowPlan, failpoint};
use facts::Facts;
use keeper::{Keeper, Said};
use outlast_engine::run::flow::{Action, Cause, End, Event, Flow, Outcome, Plan};
use outlast_model::{Mono, Usd, run::RunState};
use outlast_store::{ClaimedRun, Epoch, Fenced, FinishRun, Payload, ReleaseRun, RunRef};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// One claimed run being driven. Dropped before its end it gives the run back.
struct Drive {
    shared: Arc<Shared>,
    live: Arc<Live>,
    plan: Arc<WorkflowPlan>,
    run: RunRef,
    queue: Arc<str>,
    epoch: Epoch,
    lease: Duration,
    /// What the run may still spend, as it was claimed.
    budget: Option<Usd>,
    deadline: Option<outlast_model::Wall>,
    facts: Facts,
    flow: Flow,
    keeper: Keeper,
    /// What went wrong last, for the run's error.
    trouble: Option<Value>,
    output: Value,
    /// The claim is over, one way or another.
    over: bool,
}

impl Drive {
    /// Takes up a claimed run. `None` where its journal cannot be had: the lease runs out, and it is claimed anew.
    async fn new(
        shared: &Arc<Shared>,
        live: &Arc<Live>,
        plan: Arc<WorkflowPlan>,
        claimed: ClaimedRun,
        keeper: Keeper,
    ) -> Option<Drive> {
        let ClaimedRun { run: view, epoch, input, journal } = claimed;
        let facts = Facts::load(shared, &plan, &view, &input, journal).await?;
        let shape = Arc::new(Plan::from(&*plan.spec));
        let flow = Flow::new(&shape, facts.known(), view.cancelling);
        Some(Drive {
            shared: shared.clone(),
            live: live.clone(),
            plan,
            queue: view.queue.clone(),
            epoch,
            lease: live.config.runs.lease,
            budget: view.cost_max.map(|most| journal::less(most, view.spent)),
            deadline: view.deadline,
            run: view.run,
            facts,
            flow,
            keeper,
            trouble: None,
            output: Value::Null,
            over: false,
        })
    }

    /// Drives it until the claim is over.
    async fn run(mut self) {
        loop {
            let event = match (self.flow.poll_action(), self.flow.poll_timeout()) {
                (Some(action), _) => match self.perform(action).await {
                    Some(event) => event,
                    None => break,
                },
                (None, Some(until)) => self.pause(until).await,
                (None, None) => break,
            };
            // What was said meanwhile comes first: it decides what follows.
            for said in self.keeper.news() {
                self.feed(heard(said));
            }
            self.feed(event);
        }
        self.over = true;
    }

    fn feed(&mut self, event: Event) {
        self.flow.handle(event, self.shared.clock.mono());
    }

    /// Waits with the run held, unless there is news.
    async fn pause(&mut self, until: Mono) -> Event {
        let until = self.shared.clock.instant(until);
        tokio::select! {
            biased;
            said = self.keeper.hear() => heard(said),
            () = clock::sleep_until(until) => Event::Tick,
        }
    }

    /// Does what the flow asks for; `None` ends it.
    async fn perform(&mut self, action: Action) -> Option<Event> {
        Some(match action {
            Action::Test { step, branch } => Event::Tested(self.test(step, branch)),
            Action::Recall { step, key } => match self.recall(step, &key).await {
                true => Event::Recalled,
                false => Event::Lost,
            },
            Action::Perform { step, key } => Event::Ended(self.step(step, key).await),
            Action::Settle { key } => Event::Ended(self.settle(key).await),
            Action::Undo { key, of } => Event::Ended(self.undo(key, of).await),
            Action::Conclude => Event::Tested(Some(self.conclude())),
            Action::Release { after } => {
                self.release(after).await;
                return None;
            }
            Action::Finish(end) => {
                self.finish(end).await;
                return None;
            }
            Action::Leave => return None,
        })
    }

    /// Whether a condition holds.
    fn test(&mut self, step: usize, branch: Option<usize>) -> Option<bool> {
        let plan = self.plan.clone();
        let texts = plan.steps.get(step)?;
        let condition = match branch {
            None => texts.when.as_ref(),
            Some(branch) => texts.branches.get(branch)?.as_ref(),
        };
        let holds = match condition {
            None => Ok(true),
            Some(condition) => condition.holds_of(self.facts.get()),
        };
        match holds {
            Ok(holds) => {
                if branch.is_none() && !holds {
                    self.facts.skipped(step);
                }
                Some(holds)
            }
            Err(why) => {
                let setting = if branch.is_some() { "next" } else { "when" };
                self.unmakeable(step, setting, &why);
                None
            }
        }
    }

    /// Takes a recorded result into the facts. False where it cannot be had.
    async fn recall(&mut self, step: usize, key: &Arc<str>) -> bool {
        let shared = self.shared.clone();
        match self.facts.recorded(&shared, &self.run, key).await {
            Some(result) => {
                self.facts.done(step, result);
                true
            }
            None => false,
        }
    }

    /// Does a step.
    async fn step(&mut self, step: usize, key: Arc<str>) -> Outcome {
        use crate::config::StepTexts;
        let plan = self.plan.clone();
        let (Some(spec), Some(texts)) = (plan.spec.steps.get(step), plan.steps.get(step)) else {
            return Outcome::Template;
        };
        let ended = match &texts.texts {
            StepTexts::Model(messages) => self.model(step, spec, messages, &key).await,
            StepTexts::Tool(input) => self.tool(step, spec, texts, input, &key).await,
            StepTexts::Agent { instructions, prompt } => {
                self.agent(step, spec, instructions.as_ref(), prompt, &key).await
            }
            StepTexts::Human { question, context } => self.human(step, spec, question, context.as_ref(), &key).await,
            StepTexts::Wait => self.wait(spec, &key).await,
        };
        match ended {
            Ok(result) => {
                self.facts.done(step, result);
                Outcome::Done
            }
            Err(outcome) => outcome,
        }
    }

    /// Makes what the run results in. False where it cannot be made.
    fn conclude(&mut self) -> bool {
        let plan = self.plan.clone();
        match plan.output.as_ref().map(|output| output.fill(self.facts.get())) {
            None => {
                self.output = self.facts.last();
                true
            }
            Some(Ok(output)) => {
                self.output = output;
                true
            }
            Some(Err(why)) => {
                let message = format!("The run's output cannot be made: {why}.");
                self.trouble = Some(json!({ "code": "output", "message": message }));
                false
            }
        }
    }

    /// A text of the workflow cannot be filled in from these facts.
    fn unmakeable(&mut self, step: usize, setting: &str, why: &str) {
        let name = self.plan.spec.steps.get(step).map_or("", |step| step.name.as_str());
        let message = format!("`{setting}` of step `{name}` cannot be evaluated: {why}.");
        self.trouble = Some(json!({ "code": "template", "step": name, "message": message }));
    }

    async fn release(&self, after: Duration) {
        let release = ReleaseRun { run: self.run.clone(), epoch: self.epoch, after };
        let released = self.sure(|| self.shared.store.release_run(release.clone())).await;
        if matches!(released, Ok(Fenced::Held)) && after.is_zero() {
            self.shared.runs.nudge(&self.queue);
        }
    }

    async fn finish(&mut self, end: End) {
        let (state, output) = match end {
            End::Done => (RunState::Done, self.output.take()),
            End::Cancelled => {
                (RunState::Cancelled, json!({ "code": "cancelled", "message": "The run was cancelled." }))
            }
            End::Failed(cause) => (RunState::Failed, self.error(cause)),
        };
        let finish = FinishRun { run: self.run.clone(), epoch: Some(self.epoch), state, output: payload(&output) };
        let finished = self.sure(|| self.shared.store.finish_run(finish.clone())).await;
        if matches!(finished, Ok(Fenced::Held)) {
            failpoint::pass("run.finished");
            self.shared.runs.ended(&self.run);
        }
    }

    /// The run's error, as whoever asks for its result is told.
    fn error(&mut self, cause: Cause) -> Value {
        let name = |step: usize| self.plan.spec.steps.get(step).map_or("", |step| step.name.as_str());
        let told = |code: &str, step: &str, message: String| json!({ "code": code, "step": step, "message": message });
        match cause {
            Cause::Step(key) => {
                let recorded = self.trouble.take().or_else(|| self.facts.error(&key)).unwrap_or(Value::Null);
                let why = recorded["message"].as_str().map(str::to_owned).unwrap_or_default();
                let mut error = told("step_failed", &key, format!("Step `{key}` failed. {why}").trim_end().to_owned());
                if !recorded.is_null() {
                    error["cause"] = recorded;
                }
                error
            }
            Cause::Branch(step) => {
                let name = name(step);
                told("failed", name, format!("Step `{name}` led to failure, as the workflow says."))
            }
            Cause::Template(step) => {
                let name = name(step).to_owned();
                let unknown = || told("template", &name, format!("Step `{name}` cannot be evaluated."));
                self.trouble.take().unwrap_or_else(unknown)
            }
            Cause::Output => {
                let unknown = || json!({ "code": "output", "message": "The run's output cannot be made." });
                self.trouble.take().unwrap_or_else(unknown)
            }
            Cause::Mismatch(key) => {
                let message = format!("The key of step `{key}` stands for something else.");
                told("step_mismatch", &key, message)
            }
            Cause::Visits(step) => {
                let name = name(step);
                told("max_visits", name, format!("The run came to step `{name}` more often than `max_visits` allows."))
            }
            Cause::Overdue => json!({ "code": "run_overdue", "message": "The run's deadline passed before its end." }),
            Cause::OverBudget => {
                json!({ "code": "run_over_budget", "message": "The run spent its `cost_max_usd` before its end." })
            }
        }
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        if !self.over {
            // Handed over by the call itself; if it is lost, the lease runs out.
            let release = ReleaseRun { run: self.run.clone(), epoch: self.epoch, after: Duration::ZERO };
            drop(self.shared.store.release_run(release));
        }
    }
}

fn heard(said: Said) -> Event {
    match said {
        Said::Cancel => Event::Cancel,
        Said::Lost => Event::Lost,
        Said::Drain => Event::Drain,
    }
}

/// As it is kept.
fn payload(value: &Value) -> Payload {
    Payload::from(serde_json::to_vec(value).unwrap_or_default())
}

/// What was kept. Nothing reads as nothing.
fn opened(payload: &Payload) -> Value {
    serde_json::from_slice(payload.as_bytes()).unwrap_or(Value::Null)
}
