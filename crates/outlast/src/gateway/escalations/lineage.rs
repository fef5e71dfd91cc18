//! All that led to an escalation: the run and its journal, the effect's state, what was decided before.

use super::super::store::shown;
use super::view::{decision, hex, json_of};
use outlast_model::{Wall, run::LedgerState};
use outlast_store::{
    EscalationFilter, EscalationState, EscalationSummary, Page, Payload, RunView, StepView, Store, StoreError,
};
use serde_json::{Value, json};
use std::time::Duration;

/// The most steps and the most earlier escalations that are shown: the run's own endpoints have the rest.
const STEPS: u32 = 200;
const EARLIER: u32 = 20;
/// The longest payload that is shown within the journal, in bytes.
const INLINE: usize = 16 * 1024;

fn at(time: Wall) -> String {
    shown(time, Duration::ZERO)
}

/// What there is: `null` where nothing is, or is kept no longer.
///
/// # Errors
/// The store's.
pub(crate) async fn lineage(store: &dyn Store, escalation: &EscalationSummary) -> Result<Value, StoreError> {
    let tenant = &escalation.tenant;
    let effect = match escalation.origin.place(tenant) {
        Some(place) => store.step(place).await?,
        None => None,
    };
    let mut lineage = json!({ "effect": effect.as_ref().map(whole_step), "run": null, "journal": null, "earlier": [] });
    let Some(run) = escalation.origin.run(tenant) else { return Ok(lineage) };
    let Some(view) = store.run(run.clone()).await? else { return Ok(lineage) };
    // The end of a long journal says more than its beginning.
    let after = i64::try_from(view.steps.saturating_sub(u64::from(STEPS))).unwrap_or(0);
    let journal = store.journal(run.clone(), after, STEPS).await?;
    lineage["run"] = run_json(&view);
    lineage["journal"] = journal.steps.iter().map(step).collect();
    lineage["journal_begins_after"] = json!(after);
    let filter = EscalationFilter { tenant: Some(tenant.clone()), run: Some(run.id), ..EscalationFilter::default() };
    let page = store.escalations(filter, Page { after: None, size: EARLIER }).await?;
    let mut earlier = Vec::new();
    for other in page.escalations.iter().filter(|other| other.id != escalation.id) {
        let found = store.escalation(other.id.clone()).await?;
        let decided = found.and_then(|found| match found.state {
            EscalationState::Decided(first) => Some(decision(&first)),
            EscalationState::Open => None,
        });
        earlier.push(json!({
            "id": other.id,
            "kind": other.kind,
            "question": other.question,
            "opened_at": at(other.opened_at),
            "decision": decided,
        }));
    }
    lineage["earlier"] = Value::Array(earlier);
    Ok(lineage)
}

fn run_json(run: &RunView) -> Value {
    json!({
        "id": run.run.id,
        "workflow": run.workflow,
        "version": run.version,
        "queue": run.queue,
        "state": run.state,
        "cancelling": run.cancelling,
        "waits_at": run.waits_at,
        "steps": run.steps,
        "last_step": run.last_step,
        "spent_usd": run.spent,
        "deadline": run.deadline.map(at),
        "created_at": at(run.created_at),
        "updated_at": at(run.updated_at),
        "ended_at": run.ended_at.map(at),
    })
}

/// A step among others: large payloads are left out.
fn step(step: &StepView) -> Value {
    step_json(step, |payload| if payload.len() > INLINE { json!({ "bytes": payload.len() }) } else { json_of(payload) })
}

/// The step it is about.
fn whole_step(step: &StepView) -> Value {
    step_json(step, json_of)
}

fn step_json(step: &StepView, show: impl Fn(&Payload) -> Value) -> Value {
    let mut shown = json!({
        "key": step.key,
        "kind": step.kind,
        "name": step.name,
        "class": step.class,
        "state": step.state,
        "why": step.why,
        "fingerprint": hex(&step.fingerprint),
        "attempts": step.attempts,
        "verifications": step.unclear,
        "begun_at": at(step.begun_at),
        "ended_at": step.ended_at.map(at),
        "spent_usd": step.spent,
        "input": show(&step.input),
    });
    let name = match step.state {
        LedgerState::Done => "result",
        LedgerState::FailedFinal => "error",
        LedgerState::Parked => "output",
        LedgerState::Intent | LedgerState::Unknown | LedgerState::Verifying | LedgerState::Absent => "last_error",
    };
    if !step.payload.is_empty() {
        shown[name] = show(&step.payload);
    }
    if let Some(decision) = &step.decision {
        shown["decision"] = show(decision);
    }
    shown
}
