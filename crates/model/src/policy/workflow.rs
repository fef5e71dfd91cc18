//! Workflows that the server runs by itself: their steps and where each one leads.
//!
//! What a step says or sends is filled in by the host from templates. Here is what decides: which step comes when, what
//! it may cost, what undoes it. Positions in `steps` are valid by construction, and every run of a workflow ends.

use super::{Schema, Sla};
use crate::{
    RouteId, Usd,
    id::{StepName, ToolName, WorkflowName},
    run::{EffectClass, RetryBudget},
};
use std::{sync::Arc, time::Duration};

/// One workflow, judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Workflow {
    /// Its name: of `[workflows.NAME]`, and what a run is started with.
    pub name: WorkflowName,
    /// Its version: a run keeps the one it was started with.
    pub version: Arc<str>,
    /// BLAKE3 of what it does, in a canonical form: comments and order of keys do not count.
    pub hash: [u8; 32],
    /// What a run's input has to be.
    pub input: Option<Arc<Schema>>,
    /// Nothing begins later than this after a run's start.
    pub deadline: Option<Duration>,
    /// Nothing begins once a run has spent so much.
    pub cost_max: Option<Usd>,
    /// The steps, in the order of the file; the first is where a run begins. At least one.
    pub steps: Vec<WorkflowStep>,
    /// Whether a run's result is made from a template; otherwise it is the result of its last step.
    pub has_output: bool,
}

impl Workflow {
    /// The queue on which the server claims its runs. No worker may ask for it.
    pub fn queue(&self) -> Arc<str> {
        format!("{}{}", Workflow::QUEUE_PREFIX, self.name).into()
    }

    /// What the names of the server's own queues begin with.
    pub const QUEUE_PREFIX: &'static str = "outlast:";

    /// The position of the step of that name.
    pub fn step(&self, name: &str) -> Option<usize> {
        self.steps.iter().position(|step| step.name.as_str() == name)
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkflowStep {
    /// Its name: in the journal, and in `steps.NAME` of later templates.
    pub name: StepName,
    /// What it does.
    pub spec: StepSpec,
    /// The expression that has to be true for it to be done; otherwise it is skipped and `steps.NAME` is none.
    pub when: Option<Arc<str>>,
    /// Where it leads, in order: the first branch that holds is taken. If none does, or there is none, the next step in
    /// the file follows, and after the last the run ends.
    pub next: Vec<Branch>,
    /// How often a run may come to it: 1, unless it is in a loop. A run that comes to it once more fails.
    pub max_visits: u32,
    /// What happens in the world when it is done twice: the tool's class for a tool, else `pure`.
    pub class: EffectClass,
    /// How often, how long and for how much it is tried, and whether a person decides when that is spent.
    pub retry: RetryBudget,
    /// What undoes it, when the run fails or is cancelled after it.
    pub undo: Option<Undo>,
    /// What a wrong or missing result costs, in the author's words.
    pub risk: Option<Arc<str>>,
    /// What is promised for it.
    pub sla: Option<Sla>,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum StepSpec {
    /// Asks a model. Its result is the reply: JSON if the route's contract demands it, else text.
    Model {
        /// By this route, with its contract and tier.
        route: RouteId,
    },
    /// Calls a tool. Its result is the tool's.
    Tool {
        /// Which.
        tool: ToolName,
        /// Whether the effect has a business key from a template, which holds across runs.
        keyed: bool,
    },
    /// A model calls tools until it is done. Its result is the last reply.
    Agent {
        /// The model's route, with its contract and tier.
        route: RouteId,
        /// What it may call.
        tools: Vec<ToolName>,
        /// The most model calls.
        max_turns: u32,
        /// It stops once it has spent so much.
        cost_max: Option<Usd>,
    },
    /// Asks a person. Its result is what the person approved or wrote; the context, if it was approved as it stands.
    Human,
    /// Waits. Its result says what came: `{ "signal": .., "payload": .. }` or `{ "timer": true }`.
    Wait {
        /// For one of these signals.
        signals: Vec<Arc<str>>,
        /// At most, or for exactly, so long.
        timer: Option<Duration>,
    },
}

impl StepSpec {
    /// The kind's name in config and docs.
    pub const fn name(&self) -> &'static str {
        match self {
            StepSpec::Model { .. } => "model",
            StepSpec::Tool { .. } => "tool",
            StepSpec::Agent { .. } => "agent",
            StepSpec::Human => "human",
            StepSpec::Wait { .. } => "wait",
        }
    }
}

/// One way on from a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The expression that has to be true; none: always.
    pub when: Option<Arc<str>>,
    /// Where it leads.
    pub to: Goto,
}

/// Where a branch leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Goto {
    /// To the step in this position.
    Step(usize),
    /// The run ends well.
    End,
    /// The run fails: what can be undone is undone.
    Fail,
}

/// What undoes a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undo {
    /// The tool that does.
    pub tool: ToolName,
    /// Whether it has a business key from a template.
    pub keyed: bool,
}
