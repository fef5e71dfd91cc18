//! What the texts of a workflow may ask for: the input, the results of steps that have run, the run itself.

use super::{
    contracts::only_facts,
    flow::Flow,
    read::{At, Log, Place, did_you_mean},
    schemas,
    work_file::StepFile,
    workflows::Known,
};
use outlast_model::policy::{Schema, StepSpec, WorkflowStep};
use std::collections::BTreeSet;

/// What texts may look at.
const FACTS: [&str; 3] = ["input", "steps", "run"];
/// What is known of a run.
const RUN_FACTS: [&str; 3] = ["id", "workflow", "version"];

/// What one text reads.
pub(super) struct Reads {
    names: Vec<String>,
    source: String,
    place: Place,
    /// It is evaluated after the step, so the step's own result is there.
    after: bool,
}

impl Reads {
    /// Of a text that has been compiled.
    pub(super) fn of(names: &[String], source: &str, place: &Place, after: bool) -> Reads {
        Reads { names: names.to_vec(), source: source.to_owned(), place: place.clone(), after }
    }

    /// Whether it says what to do about a result that is not there: `steps.NAME` is none then.
    fn asks_first(&self) -> bool {
        ["defined", "default", "none"].iter().any(|word| self.source.contains(word))
    }
}

/// A workflow whose texts are judged.
pub(super) struct Facts<'a> {
    pub(super) flow: &'a Flow,
    pub(super) names: &'a [&'a str],
    pub(super) written: &'a [At<StepFile>],
    pub(super) specs: &'a [WorkflowStep],
    pub(super) input: Option<&'a Schema>,
    pub(super) known: Known<'a>,
}

impl Facts<'_> {
    /// Judges what a text of the step in this position reads.
    pub(super) fn judge(&self, reads: &Reads, at: usize, log: &mut Log) {
        only_facts(&reads.names, &FACTS, &reads.place, log);
        self.input_and_run(reads, log);
        for (step, path) in self.steps_read(reads, log) {
            let own = step == at;
            if own && !reads.after && !self.flow.is_in_loop(at) {
                let what = format!("it asks for its own result, steps.{}, before there is one", self.names[at]);
                log.error(&reads.place, what, "Move it to a later step");
                continue;
            }
            if !own && !self.flow.may_precede(step, at) {
                let what = format!("step \"{}\" never runs before this one", self.names[step]);
                log.error(&reads.place, what, "Move one of the two, or ask for another step");
                continue;
            }
            let is_there = (own && reads.after) || self.surely_ran(step, at) || reads.asks_first();
            if path.is_some() && !is_there {
                self.may_be_missing(step, reads, log);
            }
            self.path_is_there(step, path, reads, log);
        }
    }

    /// Judges what the workflow's output reads.
    pub(super) fn judge_output(&self, reads: &Reads, log: &mut Log) {
        only_facts(&reads.names, &FACTS, &reads.place, log);
        self.input_and_run(reads, log);
        let end = self.written.len();
        for (step, path) in self.steps_read(reads, log) {
            if !self.flow.may_precede(step, end) {
                let what = format!("no run that ends well comes through step \"{}\"", self.names[step]);
                log.error(&reads.place, what, "Ask for another step");
                continue;
            }
            let sure = self.specs[step].when.is_none() && self.flow.always_precedes(step, end);
            if path.is_some() && !sure && !reads.asks_first() {
                self.may_be_missing(step, reads, log);
            }
            self.path_is_there(step, path, reads, log);
        }
    }

    fn input_and_run(&self, reads: &Reads, log: &mut Log) {
        for path in reads.names.iter().filter_map(|name| name.strip_prefix("input.")) {
            if let Some(schema) = self.input
                && schemas::lacks(schema, path)
            {
                let what = format!("the input's schema has no place for `{path}`");
                log.error(&reads.place, what, format_args!("Correct it, or add it to {}", schema.source));
            }
        }
        for name in reads.names.iter().filter_map(|name| name.strip_prefix("run.")) {
            let name = name.split('.').next().unwrap_or(name);
            if !RUN_FACTS.contains(&name) {
                let remedy = match did_you_mean(name, RUN_FACTS.into_iter()) {
                    Some(near) => format!("Did you mean `run.{near}`?"),
                    None => format!("Known of a run: {}", RUN_FACTS.join(", ")),
                };
                log.error(&reads.place, format_args!("`run.{name}` is not known"), remedy);
            }
        }
    }

    /// The steps a text names, and where in their results it looks.
    fn steps_read<'r>(&self, reads: &'r Reads, log: &mut Log) -> Vec<(usize, Option<&'r str>)> {
        let mut read = BTreeSet::new();
        for name in reads.names.iter().filter_map(|name| name.strip_prefix("steps.")) {
            let (step, path) = name.split_once('.').map_or((name, None), |(step, path)| (step, Some(path)));
            match self.names.iter().position(|known| *known == step) {
                Some(at) => {
                    read.insert((at, path));
                }
                None => {
                    let remedy = match did_you_mean(step, self.names.iter().copied()) {
                        Some(near) => format!("Did you mean `steps.{near}`?"),
                        None => format!("The steps are {}", self.names.join(", ")),
                    };
                    log.error(&reads.place, format_args!("there is no step \"{step}\""), remedy);
                }
            }
        }
        read.into_iter().collect()
    }

    /// Whether a step has a result whenever a run comes to another one. Two steps with the same condition are done, or
    /// skipped, together.
    fn surely_ran(&self, step: usize, at: usize) -> bool {
        let (first, second) = (&self.specs[step].when, &self.specs[at].when);
        (first.is_none() || first == second) && self.flow.always_precedes(step, at)
    }

    fn may_be_missing(&self, step: usize, reads: &Reads, log: &mut Log) {
        let name = self.names[step];
        let what = format!(
            "step \"{name}\" may have been left out by then, so that `steps.{name}` is none and the run fails here; \
             `steps.{name} is none` tells, and `| default(..)` helps out"
        );
        log.warn(&reads.place, what);
    }

    /// A result that keeps its schema has no place for some paths.
    fn path_is_there(&self, step: usize, path: Option<&str>, reads: &Reads, log: &mut Log) {
        let Some(path) = path else { return };
        let schema = match &self.specs[step].spec {
            StepSpec::Model { route } | StepSpec::Agent { route, .. } => {
                let route = self.known.route(route.as_str());
                if route.is_some_and(|route| !self.known.gives_json(route)) {
                    let what = format!("the result of \"{}\" is a text: its contract has no schema", self.names[step]);
                    log.error(&reads.place, what, "Give its route a contract with a `schema`");
                }
                route.and_then(|route| route.contract.checks.schema.clone())
            }
            StepSpec::Tool { tool, .. } => self.known.tools.get(tool).and_then(|tool| tool.spec.output.clone()),
            StepSpec::Human => None,
            StepSpec::Wait { .. } => {
                let known = ["signal", "payload", "timer"];
                let first = path.split('.').next().unwrap_or(path);
                if !known.contains(&first) {
                    let what = format!("the result of a wait has no `{first}`");
                    log.error(&reads.place, what, format_args!("It has {}", known.join(", ")));
                }
                None
            }
        };
        if let Some(schema) = schema.filter(|schema| schemas::lacks(schema, path)) {
            let what = format!("the result of \"{}\" has no place for `{path}`", self.names[step]);
            log.error(&reads.place, what, format_args!("Correct it, or add it to {}", schema.source));
        }
    }
}
