//! A step that waits: the run is given up until a signal or the timer is there.

use super::{
    Drive,
    facts::{signalled, timed_out},
    journal::lost,
};
use crate::failpoint;
use outlast_engine::run::flow::Outcome;
use outlast_model::policy::{StepSpec, WorkflowStep};
use outlast_store::{Until, WaitRun, Waited};
use serde_json::Value;
use std::sync::Arc;

impl Drive {
    /// # Errors
    /// What became of it, where it is not over yet.
    pub(super) async fn wait(&mut self, spec: &WorkflowStep, key: &Arc<str>) -> Result<Value, Outcome> {
        let StepSpec::Wait { signals, timer } = &spec.spec else { return Err(Outcome::Template) };
        let command = WaitRun {
            run: self.run.clone(),
            epoch: self.epoch,
            key: key.clone(),
            signals: signals.clone(),
            timer: timer.map(Until::In),
        };
        match self.sure(|| self.shared.store.wait_run(command.clone())).await {
            Ok(Waited::Signal { name, payload }) => Ok(signalled(&name, &payload)),
            Ok(Waited::Timer) => Ok(timed_out()),
            Ok(Waited::Parked) => {
                failpoint::pass("run.waits");
                Err(Outcome::Parked)
            }
            Ok(Waited::Mismatch) => Err(Outcome::Mismatch),
            Ok(Waited::Refused(why)) => Err(Outcome::Refused(why)),
            Err(_) => Err(lost()),
        }
    }
}
