//! How the words of runs and steps stand in rows: states as small numbers, the rest as JSON.

use super::{
    cx::Cx,
    fault::{Fault, Outcome},
};
use crate::{Accepts, StoreError};
use outlast_model::{
    policy::Priority,
    run::{EffectClass, EscalationKind, LedgerState, RetryBudget, RunState, StepKind},
};
use std::sync::Arc;

/// A row says something that this build never wrote.
pub(super) fn unreadable(cx: Cx<'_>, what: &str) -> Fault {
    let why = format!("the {what} of a row cannot be read").into();
    Fault::Store(StoreError::Corrupt { place: cx.place.clone(), why })
}

fn place_in<T: PartialEq>(all: &[T], one: &T) -> i64 {
    all.iter().position(|other| other == one).unwrap_or_default() as i64
}

fn at<T: Copy>(cx: Cx<'_>, all: &[T], number: i64, what: &str) -> Outcome<T> {
    usize::try_from(number).ok().and_then(|at| all.get(at)).copied().ok_or_else(|| unreadable(cx, what))
}

pub(super) fn run_state(state: RunState) -> i64 {
    place_in(&RunState::ALL, &state)
}

pub(super) fn read_run_state(cx: Cx<'_>, number: i64) -> Outcome<RunState> {
    at(cx, &RunState::ALL, number, "state")
}

pub(super) fn ledger_state(state: LedgerState) -> i64 {
    place_in(&LedgerState::ALL, &state)
}

pub(super) fn read_ledger_state(cx: Cx<'_>, number: i64) -> Outcome<LedgerState> {
    at(cx, &LedgerState::ALL, number, "state")
}

pub(super) fn read_priority(cx: Cx<'_>, number: i64) -> Outcome<Priority> {
    at(cx, &Priority::ALL, number, "priority")
}

/// Nothing for pure steps, which most are: then no word has to be made or read.
pub(super) fn class(class: EffectClass) -> Option<String> {
    (class != EffectClass::Pure).then(|| serde_json::to_string(&class).unwrap_or_default())
}

pub(super) fn read_class(cx: Cx<'_>, text: Option<&str>) -> Outcome<EffectClass> {
    text.map_or(Ok(EffectClass::Pure), |text| serde_json::from_str(text).map_err(|_| unreadable(cx, "class")))
}

/// Nothing for the usual budget.
pub(super) fn budget(budget: &RetryBudget) -> Option<String> {
    (*budget != RetryBudget::default()).then(|| serde_json::to_string(budget).unwrap_or_default())
}

pub(super) fn read_budget(cx: Cx<'_>, text: Option<&str>) -> Outcome<RetryBudget> {
    text.map_or_else(
        || Ok(RetryBudget::default()),
        |text| serde_json::from_str(text).map_err(|_| unreadable(cx, "budget")),
    )
}

pub(super) fn read_kind(cx: Cx<'_>, text: &str) -> Outcome<StepKind> {
    let kinds = [StepKind::Code, StepKind::Model, StepKind::Tool, StepKind::Human, StepKind::Wait, StepKind::Undo];
    kinds.into_iter().find(|kind| kind.name() == text).ok_or_else(|| unreadable(cx, "kind"))
}

pub(super) fn read_why(cx: Cx<'_>, text: &str) -> Outcome<EscalationKind> {
    let quoted = format!("\"{text}\"");
    serde_json::from_str(&quoted).map_err(|_| unreadable(cx, "reason"))
}

pub(super) fn names(names: &[Arc<str>]) -> String {
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    serde_json::to_string(&names).unwrap_or_default()
}

pub(super) fn read_names(cx: Cx<'_>, text: &str) -> Outcome<Vec<Arc<str>>> {
    let names: Vec<String> = serde_json::from_str(text).map_err(|_| unreadable(cx, "list of names"))?;
    Ok(names.into_iter().map(Arc::from).collect())
}

pub(super) fn accepts(accepts: &[Accepts]) -> String {
    let pairs: Vec<(&str, Vec<&str>)> =
        accepts.iter().map(|one| (&*one.workflow, one.versions.iter().map(|version| &**version).collect())).collect();
    serde_json::to_string(&pairs).unwrap_or_default()
}

pub(super) fn read_accepts(cx: Cx<'_>, text: &str) -> Outcome<Vec<Accepts>> {
    let pairs: Vec<(String, Vec<String>)> =
        serde_json::from_str(text).map_err(|_| unreadable(cx, "list of workflows"))?;
    let accepts = pairs.into_iter().map(|(workflow, versions)| Accepts {
        workflow: workflow.into(),
        versions: versions.into_iter().map(Arc::from).collect(),
    });
    Ok(accepts.collect())
}
