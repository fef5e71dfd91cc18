//! `[runs]`, and what durable work asks of the rest of the config: a store, and somebody who decides.

use super::{
    RunsConfig, Tool,
    file::File,
    read::{Log, Place},
    work_words::StepChoice,
};
use outlast_model::{
    ToolName,
    run::{EffectClass, Exhausted},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// A shorter lease is lost to any pause of the process; so short a one is for tests.
const LEASE_MIN: Duration = Duration::from_secs(1);
/// A longer one leaves work lying after a crash.
const LEASE_MAX: Duration = Duration::from_secs(600);
/// Each is a task and a run's journal in memory.
const EXECUTORS_MAX: u32 = 4096;

/// Judges the section.
pub(super) fn judge(file: &File, log: &mut Log) -> RunsConfig {
    let mut runs = RunsConfig::default();
    let Some(section) = &file.runs else { return runs };
    if file.workflows.as_ref().is_none_or(|all| all.value.is_empty()) && !log.has_error_under("workflows") {
        let what = "it never takes effect: there is no workflow the server could run";
        log.error(&section.place, what, "Add [workflows.NAME], or remove it");
    }
    if let Some(executors) = &section.value.executors {
        runs.executors = executors.value;
        if executors.value > EXECUTORS_MAX {
            let what = format!("more than {EXECUTORS_MAX} at once are too many for one process");
            log.error(&executors.place, what, "Lower it, or start more servers on the same store");
        }
    }
    if let Some(lease) = &section.value.lease {
        runs.lease = lease.value.0;
        if !(LEASE_MIN..=LEASE_MAX).contains(&runs.lease) {
            let what = format!("{} is out of range", super::show_duration(runs.lease));
            log.error(&lease.place, what, "Write 1s to 10m: so long a run waits after its holder died");
        }
    }
    runs
}

/// What must not be forgotten needs a store; what may have to wait for a person needs a person.
pub(super) fn durable(file: &File, tools: &BTreeMap<ToolName, Arc<Tool>>, log: &mut Log) {
    needs_store(file, tools, log);
    let nobody = file.reviewers.as_ref().is_none_or(|all| all.value.is_empty()) && !log.has_error_under("reviewers");
    if let Some((place, why)) = first_that_waits(file, tools).filter(|_| nobody) {
        log.warn(place, format_args!("{why}, and there is no reviewer: add [reviewers.NAME]"));
    }
}

/// Told once, where the first of them stands.
fn needs_store(file: &File, tools: &BTreeMap<ToolName, Arc<Tool>>, log: &mut Log) {
    if file.store.is_some() || log.has_error_under("store") {
        return;
    }
    let acts = |name: &&String| {
        let tool = tools.get(name.as_str());
        tool.is_some_and(|tool| tool.spec.class.is_effect() || tool.spec.approval.may_ask())
    };
    let tools = file.tools.iter().flat_map(|all| &all.value).filter(|(name, _)| acts(name));
    let tools = tools.map(|(name, at)| (&at.place, format!("whether `{name}` was called")));
    let runs = file.workflows.iter().flat_map(|all| &all.value);
    let runs = runs.map(|(name, at)| (&at.place, format!("where runs of \"{name}\" stand")));
    if let Some((place, what)) = tools.chain(runs).min_by_key(|(place, _)| place.offset) {
        let what = format!("{what} must outlive the process, and there is no [store]");
        let remedy = "Add [store] with file = \"outlast-store.db\" and data_key = \"${OUTLAST_DATA_KEY}\"";
        log.error(place, what, remedy);
    }
}

/// What waits for a person, the surest first.
fn first_that_waits<'f>(file: &'f File, tools: &BTreeMap<ToolName, Arc<Tool>>) -> Option<(&'f Place, String)> {
    let steps = file.workflows.iter().flat_map(|all| all.value.values());
    let steps = steps.flat_map(|workflow| &workflow.value.file.steps).flat_map(|steps| &steps.value);
    let human = |step: &&super::read::At<super::work_file::StepFile>| {
        step.value.kind.as_ref().is_some_and(|kind| kind.value == StepChoice::Human)
    };
    if let Some(step) = steps.clone().find(human) {
        return Some((&step.place, "a person is asked here".to_owned()));
    }
    let all = file.tools.iter().flat_map(|all| &all.value);
    let judged = all.filter_map(|(name, written)| Some((&written.place, tools.get(name.as_str())?)));
    let waits = judged.filter_map(|(place, tool)| {
        let name = &tool.spec.name;
        let why = match (tool.spec.class, tool.spec.retry.exhausted) {
            _ if tool.spec.approval.may_ask() => format!("`{name}` waits for a person's approval"),
            (EffectClass::Once | EffectClass::Verify { .. }, _) => {
                format!("when nobody can tell whether `{name}` happened, a person decides")
            }
            (EffectClass::Tx | EffectClass::Keyed { .. }, Exhausted::Escalate) => {
                format!("when every attempt of `{name}` failed, a person decides")
            }
            (EffectClass::Pure, _) | (EffectClass::Tx | EffectClass::Keyed { .. }, Exhausted::Fail) => return None,
        };
        Some((place, why))
    });
    waits.min_by_key(|(place, _)| place.offset)
}
