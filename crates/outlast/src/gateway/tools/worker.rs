//! A tool that a worker does: a run on the tool's queue, started once under the effect's key, whose end is the result.
//! Asking again, after a timeout or a crash, finds the same run.

use super::{
    super::Shared,
    ToolError,
    attempt::{Errand, Outcome},
};
use crate::clock;
use outlast_engine::run::Proof;
use outlast_model::{RunId, policy::Priority, run::RunState};
use outlast_store::{Payload, RunEnd, RunRef, StartRun, Started, StoreError};
use std::{sync::Arc, time::Duration};

/// How often the run's end is looked for at first; the pauses grow to [`LOOK_MAX`].
const LOOK: Duration = Duration::from_millis(20);
/// The longest pause between two looks.
const LOOK_MAX: Duration = Duration::from_millis(500);

/// Hands the call to a worker and waits for its end.
pub(super) async fn call(shared: &Arc<Shared>, errand: &Errand<'_>, queue: &Arc<str>) -> Outcome {
    let name = &errand.tool.spec.name;
    // Without a key nothing is written down of the call, and nobody finds its run again.
    let id = match errand.key {
        Some(key) => RunId::new(key),
        None => RunId::new(shared.clock.request_id().as_str().replacen("req_", "run_", 1)),
    };
    let run = RunRef { tenant: errand.tenant.clone(), id };
    let start = StartRun {
        run: run.clone(),
        key: None,
        queue: queue.clone(),
        workflow: format!("tool:{name}").into(),
        version: "1".into(),
        priority: Priority::default(),
        after: Duration::ZERO,
        deadline: None,
        cost_max: None,
        unclaimed: false,
        input: Payload::from(serde_json::to_vec(errand.arguments).unwrap_or_default()),
    };
    match shared.stored(shared.store.start_run(start)).await {
        Ok(Started::New) => shared.runs.nudge(queue),
        Ok(Started::Before(_)) => {}
        Ok(Started::Mismatch) => {
            let message = "A run of this call's key does something else: the tool's queue has changed.";
            return Outcome::refused(ToolError::new("changed", message));
        }
        Err(error) => return unstarted(&error),
    }
    match clock::timeout(errand.timeout, ended(shared, &run)).await {
        Ok(end) => outcome(&end),
        Err(_) => Outcome::Unknown(ToolError::new("timeout", "No worker has finished it in time.")),
    }
}

/// Nothing was started, unless the store is not sure.
fn unstarted(error: &StoreError) -> Outcome {
    let told = ToolError::new("unreachable", "The call could not be handed to a worker.");
    match error {
        StoreError::Unknown { .. } | StoreError::Unavailable { .. } => Outcome::Unknown(told),
        StoreError::TooLarge { .. } => Outcome::refused(told),
        StoreError::Full { .. }
        | StoreError::LimitReached { .. }
        | StoreError::ReadOnly { .. }
        | StoreError::Corrupt { .. }
        | StoreError::TooNew { .. }
        | StoreError::Foreign { .. }
        | StoreError::KeyMissing { .. }
        | StoreError::NotSealed { .. }
        | StoreError::Busy { .. }
        | StoreError::Overloaded { .. }
        | StoreError::Taken { .. }
        | StoreError::Unsupported { .. }
        | StoreError::Closed => Outcome::away(told),
    }
}

async fn ended(shared: &Shared, run: &RunRef) -> RunEnd {
    let mut pause = LOOK;
    loop {
        if let Ok(Some(end)) = shared.stored(shared.store.run_end(run.clone())).await {
            return end;
        }
        clock::sleep(pause).await;
        pause = (pause * 2).min(LOOK_MAX);
    }
}

fn outcome(end: &RunEnd) -> Outcome {
    match end.state {
        RunState::Done => match serde_json::from_slice(end.output.as_bytes()) {
            Ok(result) => Outcome::Done(result),
            Err(_) if end.output.is_empty() => Outcome::Done(serde_json::Value::Null),
            Err(_) => Outcome::Unknown(ToolError::new("undecodable", "The worker's result is not JSON.")),
        },
        RunState::Failed => Outcome::Failed {
            error: ToolError { tool: None, ..ToolError::read(end.output.as_bytes()) },
            proof: Proof::Final,
            fault: false,
        },
        RunState::Cancelled => Outcome::refused(ToolError::new("cancelled", "The worker's run was cancelled.")),
        // No end.
        RunState::Ready | RunState::Running | RunState::Waiting | RunState::Parked | RunState::Quarantined => {
            Outcome::Unknown(ToolError::new("timeout", "No worker has finished it in time."))
        }
    }
}
