//! A workflow that the server itself carries out: which step is next, when to wait, when to give the run back, what to
//! undo, how it ends.
//!
//! It walks the workflow from its first step each time the run is claimed. What the journal knows is recalled, not done
//! again: conditions are put to the facts as they were then, so the walk comes to where the last one stopped. One thing
//! is asked for at a time, and answered before the next is.
//!
//! It never sees a payload. Conditions are evaluated, inputs made and steps done by whoever drives it, who answers with
//! truth values and outcomes.

use super::MayNotBegin;
use outlast_model::{
    Mono,
    policy::{Goto, Workflow, WorkflowStep},
    run::LedgerState,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// A wait up to this is waited out with the run held; before a longer one it is given back.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// A run that can neither settle nor undo what it has to comes back at once, and in vain: that makes it poison, and a
/// person looks at it.
const PERPLEXED: Duration = Duration::ZERO;
/// What the key of an undo begins with; the key of what it undoes follows.
pub const UNDO: &str = "undo/";

/// The shape of a workflow: all of it that decides what is next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The steps, in the order they are written. At least one.
    pub steps: Vec<PlanStep>,
}

/// A step's place in the shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanStep {
    /// Its name, unique in the workflow: the key of its first visit.
    pub name: Arc<str>,
    /// It is only done if a condition holds.
    pub conditional: bool,
    /// Where it leads: the first that holds. If none does, to the step written after it.
    pub next: Vec<PlanBranch>,
    /// What it did can be undone.
    pub undo: bool,
    /// The run fails when it comes here once more often. At least 1.
    pub max_visits: u32,
}

/// One way on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanBranch {
    /// Only if a condition holds.
    pub conditional: bool,
    /// Whereto.
    pub to: To,
}

/// Where a branch leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// To the step at this place.
    Step(usize),
    /// To the end: the run is done.
    End,
    /// The run has failed: what was done is undone.
    Fail,
}

/// A step that the journal knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its key.
    pub key: Arc<str>,
    /// Where it stands.
    pub state: LedgerState,
    /// Doing it twice changes the world.
    pub effect: bool,
    /// Its place in the order of completion; where it is not complete, of beginning.
    pub order: i64,
    /// What undoes it was written down with it.
    pub undoable: bool,
}

impl From<&Workflow> for Plan {
    fn from(workflow: &Workflow) -> Plan {
        let to = |to| match to {
            Goto::Step(at) => To::Step(at),
            Goto::End => To::End,
            Goto::Fail => To::Fail,
        };
        let step = |step: &WorkflowStep| PlanStep {
            name: step.name.as_str().into(),
            conditional: step.when.is_some(),
            next: step.next.iter().map(|one| PlanBranch { conditional: one.when.is_some(), to: to(one.to) }).collect(),
            undo: step.undo.is_some(),
            max_visits: step.max_visits,
        };
        Plan { steps: workflow.steps.iter().map(step).collect() }
    }
}

/// What is to be done. Each is answered by one [`Event`], except the last three: with them the flow is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Say whether a condition holds: the step's own, or that of one of its branches. [`Event::Tested`]. Where a step's
    /// own does not hold, the facts say that it was skipped.
    Test {
        /// Which step.
        step: usize,
        /// Which of its branches; none: its own condition.
        branch: Option<usize>,
    },
    /// Take the recorded result into the facts. [`Event::Recalled`].
    Recall {
        /// Which step.
        step: usize,
        /// Its key.
        key: Arc<str>,
    },
    /// Begin the step, do it, end it. [`Event::Ended`].
    Perform {
        /// Which step.
        step: usize,
        /// Its key.
        key: Arc<str>,
    },
    /// Find out what became of an effect that may have taken place; the run does nothing new. [`Event::Ended`].
    Settle {
        /// Its key.
        key: Arc<str>,
    },
    /// Undo what a step did. [`Event::Ended`].
    Undo {
        /// The undo's own key.
        key: Arc<str>,
        /// The key of what is undone.
        of: Arc<str>,
    },
    /// Make what the run results in. [`Event::Tested`], false where it cannot be made.
    Conclude,
    /// Give the run back.
    Release {
        /// Nobody claims it before this has passed.
        after: Duration,
    },
    /// End the run.
    Finish(End),
    /// The claim is over, or the run waits for something: leave it.
    Leave,
}

/// How a run ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With its output.
    Done,
    /// With an error.
    Failed(Cause),
    /// As it was told to.
    Cancelled,
}

/// Why a run fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A step failed for good.
    Step(Arc<str>),
    /// A branch of this step leads to failure.
    Branch(usize),
    /// A template or an expression of this step cannot be evaluated.
    Template(usize),
    /// What it results in cannot be made.
    Output,
    /// The step's key stands for something else.
    Mismatch(Arc<str>),
    /// It came to this step too often.
    Visits(usize),
    /// Its deadline has passed.
    Overdue,
    /// Its money is spent.
    OverBudget,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Whether a condition holds; none: it cannot be evaluated.
    Tested(Option<bool>),
    /// A recorded result is among the facts.
    Recalled,
    /// What was asked to be done, or tried, ended.
    Ended(Outcome),
    /// The time [`Flow::poll_timeout`] named is there.
    Tick,
    /// The run is to be cancelled.
    Cancel,
    /// The claim is somebody else's. Nothing more is to be done.
    Lost,
    /// The process is on its way out: the run is to be given back.
    Drain,
}

/// How a step, a settling or an undo ended, for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its result stands.
    Done,
    /// It failed for good.
    Failed,
    /// It did not take place, and may be tried after this.
    Again(Duration),
    /// It may have taken place, or somebody is at it. To be begun again after this.
    Unknown(Duration),
    /// It waits: for a person, a signal or a timer. The claim is over.
    Parked,
    /// The key stands for something else.
    Mismatch,
    /// Its input cannot be made.
    Template,
    /// It may not begin.
    Refused(MayNotBegin),
}

/// What is under way or waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Work {
    Step { step: usize, key: Arc<str> },
    Settle { key: Arc<str> },
    Undo { key: Arc<str>, of: Arc<str> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    Testing { step: usize, branch: Option<usize> },
    Recalling { step: usize },
    Concluding,
    Working(Work),
    Pausing { work: Work, until: Mono },
    Over,
}

/// One claim of a run, carried through its workflow.
#[derive(Clone, Debug)]
pub struct Flow {
    plan: Arc<Plan>,
    known: BTreeMap<Arc<str>, Known>,
    /// The place in the order of completion of what completes next.
    next_order: i64,
    visits: Vec<u32>,
    at: At,
    /// Nothing new is done: it ends like this, once what was done is undone.
    winding_up: Option<End>,
    cancelling: bool,
    draining: bool,
    action: Option<Action>,
}

impl Flow {
    /// A claimed run of this plan, with what its journal knows.
    pub fn new(plan: &Arc<Plan>, journal: impl IntoIterator<Item = Known>, cancelling: bool) -> Flow {
        let known: BTreeMap<Arc<str>, Known> = journal.into_iter().map(|known| (known.key.clone(), known)).collect();
        let mut flow = Flow {
            plan: plan.clone(),
            next_order: known.values().map(|known| known.order).max().map_or(0, |last| last.saturating_add(1)),
            known,
            visits: vec![0; plan.steps.len()],
            at: At::Over,
            winding_up: None,
            cancelling,
            draining: false,
            action: None,
        };
        flow.arrive(0);
        flow
    }

    /// What is to be done now, if anything is.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.action.take()
    }

    /// When [`Event::Tick`] is due.
    pub fn poll_timeout(&self) -> Option<Mono> {
        match self.at {
            At::Pausing { until, .. } => Some(until),
            At::Testing { .. } | At::Recalling { .. } | At::Concluding | At::Working(_) | At::Over => None,
        }
    }

    /// Takes in what happened. What does not fit where the flow stands changes nothing.
    pub fn handle(&mut self, event: Event, now: Mono) {
        match (self.at.clone(), event) {
            (At::Over, _) => {}
            (_, Event::Lost) => self.over(Action::Leave),
            (At::Testing { step, branch }, Event::Tested(holds)) => self.tested(step, branch, holds),
            (At::Recalling { step }, Event::Recalled) => self.leave(step, 0),
            (At::Concluding, Event::Tested(Some(true))) => self.over(Action::Finish(End::Done)),
            (At::Concluding, Event::Tested(Some(false) | None)) => self.wind_up(End::Failed(Cause::Output)),
            (At::Working(work), Event::Ended(outcome)) => self.ended(work, outcome, now),
            (At::Pausing { work, until }, Event::Tick) if until <= now => self.work(work),
            (At::Pausing { work, .. }, Event::Cancel) => {
                self.cancelling = true;
                match work {
                    Work::Step { .. } => self.wind_up(End::Cancelled),
                    Work::Settle { .. } | Work::Undo { .. } => {}
                }
            }
            (At::Pausing { until, .. }, Event::Drain) => self.over(Action::Release { after: until.since(now) }),
            (At::Testing { .. } | At::Recalling { .. } | At::Concluding | At::Working(_), Event::Cancel) => {
                self.cancelling = true;
            }
            (At::Testing { .. } | At::Recalling { .. } | At::Concluding | At::Working(_), Event::Drain) => {
                self.draining = true;
            }
            (
                At::Testing { .. } | At::Recalling { .. } | At::Concluding | At::Working(_) | At::Pausing { .. },
                Event::Tested(_) | Event::Recalled | Event::Ended(_) | Event::Tick,
            ) => {}
        }
    }

    /// At a step's door.
    fn arrive(&mut self, step: usize) {
        let (Some(plan), Some(visits)) = (self.plan.steps.get(step), self.visits.get_mut(step)) else {
            return self.ask(At::Concluding, Action::Conclude);
        };
        *visits = visits.saturating_add(1);
        if *visits > plan.max_visits {
            return self.wind_up(End::Failed(Cause::Visits(step)));
        }
        if plan.conditional {
            return self.ask(At::Testing { step, branch: None }, Action::Test { step, branch: None });
        }
        self.enter(step);
    }

    /// Through it: what is recorded is recalled, all else is done.
    fn enter(&mut self, step: usize) {
        let key = self.key(step);
        match self.known.get(&key).map(|known| known.state) {
            Some(LedgerState::Done) => self.ask(At::Recalling { step }, Action::Recall { step, key }),
            Some(LedgerState::FailedFinal) => self.wind_up(End::Failed(Cause::Step(key))),
            Some(
                LedgerState::Intent
                | LedgerState::Unknown
                | LedgerState::Verifying
                | LedgerState::Absent
                | LedgerState::Parked,
            )
            | None => {
                if self.cancelling {
                    return self.wind_up(End::Cancelled);
                }
                self.work(Work::Step { step, key });
            }
        }
    }

    /// On from a step that is done: the first branch that holds, from this one on.
    fn leave(&mut self, step: usize, from: usize) {
        let branch = self.plan.steps.get(step).and_then(|plan| plan.next.get(from).copied());
        match branch {
            None => self.arrive(step + 1),
            Some(PlanBranch { conditional: true, .. }) => {
                let branch = Some(from);
                self.ask(At::Testing { step, branch }, Action::Test { step, branch });
            }
            Some(PlanBranch { conditional: false, to }) => self.go(step, to),
        }
    }

    fn go(&mut self, from: usize, to: To) {
        match to {
            To::Step(step) => self.arrive(step),
            To::End => self.ask(At::Concluding, Action::Conclude),
            To::Fail => self.wind_up(End::Failed(Cause::Branch(from))),
        }
    }

    fn tested(&mut self, step: usize, branch: Option<usize>, holds: Option<bool>) {
        match (branch, holds) {
            (_, None) => self.wind_up(End::Failed(Cause::Template(step))),
            (None, Some(true)) => self.enter(step),
            // What is skipped leads nowhere of its own.
            (None, Some(false)) => self.arrive(step + 1),
            (Some(branch), Some(false)) => self.leave(step, branch + 1),
            (Some(branch), Some(true)) => {
                match self.plan.steps.get(step).and_then(|plan| plan.next.get(branch).copied()) {
                    Some(PlanBranch { to, .. }) => self.go(step, to),
                    None => self.arrive(step + 1),
                }
            }
        }
    }

    fn ended(&mut self, work: Work, outcome: Outcome, now: Mono) {
        match (&work, outcome) {
            (_, Outcome::Parked | Outcome::Refused(MayNotBegin::Lost)) => self.over(Action::Leave),
            (_, Outcome::Done) => self.done(work),
            (Work::Step { key, .. }, Outcome::Failed) => {
                let cause = Cause::Step(key.clone());
                self.record(&work, LedgerState::FailedFinal);
                self.wind_up(End::Failed(cause));
            }
            (Work::Settle { .. } | Work::Undo { .. }, Outcome::Failed) => {
                self.record(&work, LedgerState::FailedFinal);
                self.wind_on();
            }
            // It is known not to have taken place: that is all there was to find out.
            (Work::Settle { .. }, Outcome::Again(_)) => {
                self.record(&work, LedgerState::Absent);
                self.wind_on();
            }
            (Work::Step { .. }, Outcome::Again(_) | Outcome::Unknown(_)) if self.cancelling => {
                self.record(&work, unsettled(outcome));
                self.wind_up(End::Cancelled);
            }
            (_, Outcome::Again(after) | Outcome::Unknown(after)) => {
                self.record(&work, unsettled(outcome));
                self.pause(work, after, now);
            }
            (Work::Step { step, .. }, Outcome::Template) => self.wind_up(End::Failed(Cause::Template(*step))),
            (Work::Step { key, .. }, Outcome::Mismatch) => {
                let cause = Cause::Mismatch(key.clone());
                self.wind_up(End::Failed(cause));
            }
            (Work::Step { .. }, Outcome::Refused(MayNotBegin::Cancelled)) => {
                self.cancelling = true;
                self.wind_up(End::Cancelled);
            }
            (Work::Step { .. }, Outcome::Refused(MayNotBegin::Overdue)) => self.wind_up(End::Failed(Cause::Overdue)),
            (Work::Step { .. }, Outcome::Refused(MayNotBegin::OverBudget)) => {
                self.wind_up(End::Failed(Cause::OverBudget));
            }
            (
                Work::Settle { .. } | Work::Undo { .. },
                Outcome::Template
                | Outcome::Mismatch
                | Outcome::Refused(MayNotBegin::Cancelled | MayNotBegin::Overdue | MayNotBegin::OverBudget),
            ) => self.over(Action::Release { after: PERPLEXED }),
        }
    }

    fn done(&mut self, work: Work) {
        self.record(&work, LedgerState::Done);
        match work {
            Work::Step { .. } if self.draining => self.over(Action::Release { after: Duration::ZERO }),
            Work::Step { step, .. } => self.leave(step, 0),
            Work::Settle { .. } | Work::Undo { .. } => self.wind_on(),
        }
    }

    fn pause(&mut self, work: Work, after: Duration, now: Mono) {
        if self.draining || after > PATIENCE {
            return self.over(Action::Release { after });
        }
        self.at = At::Pausing { work, until: now + after };
    }

    /// From here on nothing new is done.
    fn wind_up(&mut self, end: End) {
        self.winding_up = Some(end);
        self.wind_on();
    }

    /// First what may have taken place is settled, in the order it was begun; then what took place is undone, the last
    /// first; then the run ends.
    fn wind_on(&mut self) {
        if self.draining {
            return self.over(Action::Release { after: Duration::ZERO });
        }
        let next = self.to_settle().or_else(|| self.to_undo());
        match next {
            Some(work) => self.work(work),
            None => {
                let end = self.winding_up.take().unwrap_or(End::Cancelled);
                self.over(Action::Finish(end));
            }
        }
    }

    fn to_settle(&self) -> Option<Work> {
        let open = |known: &&Known| known.effect && is_open(known.state) && !known.key.starts_with(UNDO);
        let first = self.known.values().filter(open).min_by_key(|known| known.order)?;
        Some(Work::Settle { key: first.key.clone() })
    }

    fn to_undo(&self) -> Option<Work> {
        let last = self.known.values().filter(|known| self.is_to_be_undone(known)).max_by_key(|known| known.order)?;
        Some(Work::Undo { key: format!("{UNDO}{}", last.key).into(), of: last.key.clone() })
    }

    fn is_to_be_undone(&self, known: &Known) -> bool {
        let undo = || self.known.get(format!("{UNDO}{}", known.key).as_str());
        known.undoable && known.state == LedgerState::Done && !undo().is_some_and(|undo| undo.state.is_final())
    }

    fn work(&mut self, work: Work) {
        let action = match &work {
            Work::Step { step, key } => Action::Perform { step: *step, key: key.clone() },
            Work::Settle { key } => Action::Settle { key: key.clone() },
            Work::Undo { key, of } => Action::Undo { key: key.clone(), of: of.clone() },
        };
        // Between two steps is where a run is given back.
        if self.draining {
            return self.over(Action::Release { after: Duration::ZERO });
        }
        self.ask(At::Working(work), action);
    }

    fn record(&mut self, work: &Work, state: LedgerState) {
        let (key, undoable) = match work {
            Work::Step { step, key } => (key, self.plan.steps.get(*step).is_some_and(|plan| plan.undo)),
            Work::Settle { key } => (key, self.known.get(key).is_some_and(|known| known.undoable)),
            Work::Undo { key, .. } => (key, false),
        };
        let order = self.next_order;
        self.next_order = order.saturating_add(1);
        // What is not known yet may be an effect: settling what is none costs a look at the journal.
        let effect = self.known.get(key).is_none_or(|known| known.effect);
        let known = Known { key: key.clone(), state, effect, order, undoable };
        self.known.insert(key.clone(), known);
    }

    fn ask(&mut self, at: At, action: Action) {
        self.at = at;
        self.action = Some(action);
    }

    fn over(&mut self, action: Action) {
        self.ask(At::Over, action);
    }

    /// The key of the visit that this step has now.
    fn key(&self, step: usize) -> Arc<str> {
        let name = self.plan.steps.get(step).map_or("", |plan| &plan.name);
        match self.visits.get(step) {
            Some(visits @ 2..) => format!("{name}#{visits}").into(),
            Some(_) | None => name.into(),
        }
    }
}

/// What an attempt that did not end for good leaves behind.
fn unsettled(outcome: Outcome) -> LedgerState {
    match outcome {
        Outcome::Unknown(_) => LedgerState::Unknown,
        Outcome::Again(_)
        | Outcome::Done
        | Outcome::Failed
        | Outcome::Parked
        | Outcome::Mismatch
        | Outcome::Template
        | Outcome::Refused(_) => LedgerState::Absent,
    }
}

/// It may have taken place, and nobody has said yet.
fn is_open(state: LedgerState) -> bool {
    match state {
        LedgerState::Intent | LedgerState::Unknown | LedgerState::Verifying => true,
        LedgerState::Done | LedgerState::FailedFinal | LedgerState::Absent | LedgerState::Parked => false,
    }
}
