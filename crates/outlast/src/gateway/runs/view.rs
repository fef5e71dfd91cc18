//! What is shown of runs, steps and workers. Payloads go out byte for byte as they came in.

use super::super::store::shown;
use outlast_model::{
    Wall,
    run::{EffectClass, LedgerState},
};
use outlast_store::{Accepts, JournalPage, Payload, RunView, StepView, WorkerView};
use serde::{Serialize, Serializer};
use serde_json::{Value, json, value::RawValue};
use std::{sync::Arc, time::Duration};

/// A payload as the JSON it is; `null` if there is none.
pub(super) struct Json<'a>(pub(super) &'a Payload);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serde_json::from_slice::<&RawValue>(self.0.as_bytes()) {
            Ok(raw) => raw.serialize(serializer),
            Err(_) => serializer.serialize_none(),
        }
    }
}

pub(super) fn at(time: Wall) -> String {
    shown(time, Duration::ZERO)
}

fn maybe_at(time: Option<Wall>) -> Option<String> {
    time.map(at)
}

/// A run. The tenant is for the operator.
pub(super) fn run(run: &RunView, with_tenant: bool) -> Value {
    let mut shown = json!({
        "id": run.run.id,
        "workflow": run.workflow,
        "version": run.version,
        "queue": run.queue,
        "priority": run.priority.as_str(),
        "state": run.state.name(),
        "epoch": run.epoch.0,
        "worker": run.worker,
        "lease_until": maybe_at(run.lease_until),
        "due": maybe_at(run.due),
        "cancelling": run.cancelling,
        "unclaimed": run.unclaimed,
        "barren_claims": run.barren,
        "waits_at": run.waits_at,
        "waits_for": run.waits_for,
        "parked": run.parked.as_ref().map(|(why, escalation)| parked(why.name(), escalation)),
        "steps": run.steps,
        "last_step": run.last_step,
        "spent_usd": run.spent,
        "cost_max_usd": run.cost_max,
        "deadline": maybe_at(run.deadline),
        "created_at": at(run.created_at),
        "updated_at": at(run.updated_at),
        "ended_at": maybe_at(run.ended_at),
    });
    if with_tenant {
        shown["tenant"] = json!(run.run.tenant);
    }
    shown
}

/// Why something waits for a person, and where that person finds it.
pub(super) fn parked(why: &str, escalation: &Arc<str>) -> Value {
    json!({ "why": why, "escalation": escalation_link(escalation) })
}

pub(super) fn escalation_link(id: &Arc<str>) -> Value {
    json!({ "id": id, "url": format!("/v1/escalations/{id}") })
}

/// A step of a journal.
#[derive(Serialize)]
pub(super) struct Step<'a> {
    sequence: i64,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<Value>,
    kind: &'static str,
    name: &'a str,
    class: EffectClass,
    state: &'static str,
    fingerprint: String,
    attempts: u32,
    unclear: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
    epoch: i64,
    begun_at: String,
    ended_at: Option<String>,
    not_before: Option<String>,
    spent_usd: f64,
    input: Json<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<Json<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Json<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<Json<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Json<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    undo: Option<Json<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    undoes: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Json<'a>>,
    divergences: u32,
}

pub(super) fn step(step: &StepView) -> Step<'_> {
    let kept = (!step.payload.is_empty()).then_some(Json(&step.payload));
    let mut shown = Step {
        sequence: step.sequence,
        key: &step.key,
        effect: step.effect.as_ref().map(|(scope, key)| json!({ "scope": scope, "key": key })),
        kind: step.kind.name(),
        name: &step.name,
        class: step.class,
        state: step.state.name(),
        fingerprint: hex(&step.fingerprint),
        attempts: step.attempts,
        unclear: step.unclear,
        why: step.why.map(|why| why.name()),
        epoch: step.epoch.0,
        begun_at: at(step.begun_at),
        ended_at: maybe_at(step.ended_at),
        not_before: maybe_at(step.not_before),
        spent_usd: step.spent.as_dollars(),
        input: Json(&step.input),
        ok: None,
        error: None,
        last_error: None,
        output: None,
        undo: step.undo.as_ref().map(Json),
        undoes: step.undoes.as_deref(),
        decision: step.decision.as_ref().map(Json),
        divergences: step.divergences,
    };
    match step.state {
        LedgerState::Done => shown.ok = Some(Json(&step.payload)),
        LedgerState::FailedFinal => shown.error = kept,
        // What a person has to look at first is an answer; anything else that is kept is the last error.
        LedgerState::Parked if step.why.is_some_and(is_review) => shown.output = kept,
        LedgerState::Intent
        | LedgerState::Unknown
        | LedgerState::Verifying
        | LedgerState::Absent
        | LedgerState::Parked => shown.last_error = kept,
    }
    shown
}

fn is_review(why: outlast_model::run::EscalationKind) -> bool {
    use outlast_model::run::EscalationKind as K;
    match why {
        K::LowConfidence | K::Human => true,
        K::Call | K::Approval | K::UnknownEffect | K::Exhausted | K::Poison | K::Compensation => false,
    }
}

/// Part of a journal.
#[derive(Serialize)]
pub(super) struct Journal<'a> {
    steps: Vec<Step<'a>>,
    next: Option<i64>,
}

pub(super) fn journal(page: &JournalPage) -> Journal<'_> {
    Journal { steps: page.steps.iter().map(step).collect(), next: page.next }
}

/// A worker.
pub(super) fn worker(worker: &WorkerView, state: &str, with_tenant: bool) -> Value {
    let holds = worker.holds.iter().map(|(run, step)| json!({ "run": run.id, "step": step }));
    let mut shown = json!({
        "id": worker.worker,
        "label": worker.label,
        "state": state,
        "queues": worker.queues,
        "accepts": accepts(&worker.accepts),
        "standby": worker.standby,
        "since": at(worker.since),
        "seen_at": at(worker.seen_at),
        "holds": holds.collect::<Vec<_>>(),
    });
    if with_tenant {
        shown["tenant"] = json!(worker.tenant);
    }
    shown
}

fn accepts(accepts: &[Accepts]) -> Value {
    let each = accepts.iter().map(|accepts| (accepts.workflow.to_string(), json!(accepts.versions)));
    Value::Object(each.collect())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
