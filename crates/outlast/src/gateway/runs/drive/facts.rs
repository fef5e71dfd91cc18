//! What templates and expressions of a run read, and what its journal knows.

use super::{super::super::Shared, opened};
use crate::config::WorkflowPlan;
use outlast_engine::run::flow::{Known, UNDO};
use outlast_model::run::{LedgerState, StepKind};
use outlast_store::{JournalPage, Payload, Place, RunRef, RunView, StepView};
use outlast_wire::template;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// Bytes of recorded results that are kept while the journal is read. What is beyond is fetched when it is needed.
const RESULTS_BYTES_MAX: usize = 4 << 20;

/// The facts of one claimed run.
pub(super) struct Facts {
    /// `input`, `steps`, `run`.
    value: Value,
    /// As templates read them; made when they are next read.
    made: Option<template::Facts>,
    names: Vec<Arc<str>>,
    journal: BTreeMap<Arc<str>, Entry>,
    last: Value,
}

/// What is kept of a step of the journal.
struct Entry {
    known: Known,
    attempts: u32,
    /// Its result, if there was room.
    result: Option<Value>,
    error: Option<Value>,
}

impl Facts {
    /// Reads the whole journal, page by page. `None` where the store does not answer.
    pub(super) async fn load(
        shared: &Shared,
        plan: &WorkflowPlan,
        view: &RunView,
        input: &Payload,
        first: JournalPage,
    ) -> Option<Facts> {
        let names: Vec<Arc<str>> = plan.spec.steps.iter().map(|step| step.name.as_str().into()).collect();
        let mut journal = BTreeMap::new();
        let mut room = RESULTS_BYTES_MAX;
        let mut page = first;
        loop {
            for view in page.steps {
                let entry = Entry::of(view, &mut room);
                journal.insert(entry.known.key.clone(), entry);
            }
            let Some(after) = page.next else { break };
            let asked = shared.store.journal(view.run.clone(), after, JournalPage::LARGEST);
            page = shared.stored(asked).await.ok()?;
        }
        // A step that was not done, or not yet, reads as nothing.
        let steps: Map<String, Value> = names.iter().map(|name| (name.to_string(), Value::Null)).collect();
        let value = json!({
            "input": opened(input),
            "steps": steps,
            "run": { "id": view.run.id, "workflow": view.workflow, "version": view.version },
        });
        Some(Facts { value, made: None, names, journal, last: Value::Null })
    }

    /// What the flow has to know of the journal.
    pub(super) fn known(&self) -> Vec<Known> {
        self.journal.values().map(|entry| entry.known.clone()).collect()
    }

    /// For templates and expressions.
    pub(super) fn get(&mut self) -> &template::Facts {
        let value = &self.value;
        self.made.get_or_insert_with(|| template::Facts::of(value))
    }

    /// The facts as they are for the undoing of a step: with the result that step had.
    pub(super) fn with(&self, key: &str, result: Value) -> template::Facts {
        let mut value = self.value.clone();
        let name = key.split('#').next().unwrap_or(key);
        value["steps"][name] = result;
        template::Facts::of(&value)
    }

    /// A step has this result.
    pub(super) fn done(&mut self, step: usize, result: Value) {
        if let Some(name) = self.names.get(step) {
            self.last.clone_from(&result);
            self.value["steps"][&**name] = result;
            self.made = None;
        }
    }

    /// A step is not done this time.
    pub(super) fn skipped(&mut self, step: usize) {
        if let Some(name) = self.names.get(step) {
            self.value["steps"][&**name] = Value::Null;
            self.made = None;
        }
    }

    /// The result of the step done last.
    pub(super) fn last(&self) -> Value {
        self.last.clone()
    }

    /// The recorded result of a step that is done; `None` where the store does not answer.
    pub(super) async fn recorded(&mut self, shared: &Shared, run: &RunRef, key: &Arc<str>) -> Option<Value> {
        if let Some(result) = self.journal.get_mut(key).and_then(|entry| entry.result.take()) {
            return Some(result);
        }
        let place = Place::Step { run: run.clone(), key: key.clone() };
        let view = shared.stored(shared.store.step(place)).await.ok()??;
        Some(result_of(&view))
    }

    /// The recorded error of a step that failed for good.
    pub(super) fn error(&self, key: &str) -> Option<Value> {
        self.journal.get(key)?.error.clone()
    }

    /// How often a step was begun before this claim.
    pub(super) fn attempts(&self, key: &str) -> u32 {
        self.journal.get(key).map_or(0, |entry| entry.attempts)
    }
}

impl Entry {
    fn of(view: StepView, room: &mut usize) -> Entry {
        // What an agent's turns and tools came to is read where its loop is taken up again, if it is.
        let of_agent = view.key.contains('/') && !view.key.starts_with(UNDO);
        let fits = !of_agent && view.payload.len() <= *room;
        let error = (view.state == LedgerState::FailedFinal).then(|| opened(&view.payload)).filter(|it| !it.is_null());
        let result = (view.state == LedgerState::Done && fits).then(|| {
            *room -= view.payload.len();
            result_of(&view)
        });
        let known = Known {
            key: view.key.clone(),
            state: view.state,
            effect: view.class.is_effect(),
            // A workflow does one step after the other: they are complete in the order they were begun.
            order: view.sequence,
            undoable: view.undo.is_some(),
        };
        Entry { known, attempts: view.attempts, result, error }
    }
}

/// What a step that is done came to.
fn result_of(view: &StepView) -> Value {
    match (view.kind, &view.signal) {
        (StepKind::Wait, Some(name)) => signalled(name, &view.payload),
        (StepKind::Wait, None) => timed_out(),
        (StepKind::Code | StepKind::Model | StepKind::Tool | StepKind::Human | StepKind::Undo, _) => {
            opened(&view.payload)
        }
    }
}

/// The result of a wait that a signal ended.
pub(super) fn signalled(name: &str, payload: &Payload) -> Value {
    json!({ "signal": name, "payload": opened(payload) })
}

/// The result of a wait that its timer ended.
pub(super) fn timed_out() -> Value {
    json!({ "timer": true })
}
