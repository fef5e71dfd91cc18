//! A step that calls a tool. The ledger is the tools layer's; here its arguments are made and its end is understood.

use super::{super::super::tools, Drive, journal::lost, opened, payload};
use crate::config::StepPlan;
use outlast_engine::run::flow::Outcome;
use outlast_model::policy::{StepSpec, ToolMode, WorkflowStep};
use outlast_store::Payload;
use outlast_wire::Shape;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tools::{By, Performed, ToolCall};

impl Drive {
    /// Its result is the tool's.
    ///
    /// # Errors
    /// What became of it, where it is not done.
    pub(super) async fn tool(
        &mut self,
        at: usize,
        spec: &WorkflowStep,
        texts: &StepPlan,
        input: &Shape,
        key: &Arc<str>,
    ) -> Result<Value, Outcome> {
        let StepSpec::Tool { tool, keyed: _ } = &spec.spec else { return Err(Outcome::Template) };
        let arguments = input.fill(self.facts.get()).map_err(|why| {
            self.unmakeable(at, "input", &why);
            Outcome::Template
        })?;
        let business = match texts.key.as_ref().map(|key| key.render_facts(self.facts.get())) {
            None => None,
            Some(Ok(business)) => Some(business.into()),
            Some(Err(why)) => {
                self.unmakeable(at, "key", &why);
                return Err(Outcome::Template);
            }
        };
        let call = ToolCall {
            retry: Some(spec.retry),
            undo: spec.undo.as_ref().map(|undo| undone_by(undo.tool.as_str())),
            ..self.call(tool.as_str(), arguments, key, business)
        };
        self.called(call).await
    }

    /// A call of a tool as a step of this run.
    pub(super) fn call(&self, tool: &str, arguments: Value, key: &Arc<str>, business: Option<Arc<str>>) -> ToolCall {
        let by = By::Step { run: self.run.clone(), key: key.clone(), epoch: Some(self.epoch), business };
        ToolCall {
            tenant: self.run.tenant.clone(),
            tool: tool.into(),
            arguments,
            by,
            mode: ToolMode::Full,
            retry: None,
            undo: None,
            undoes: None,
            // Pauses are the flow's: it knows when to give the run back.
            patience: Duration::ZERO,
            traceparent: None,
        }
    }

    /// Calls it, and says what became of it.
    ///
    /// # Errors
    /// Where there is no result.
    pub(super) async fn called(&mut self, call: ToolCall) -> Result<Value, Outcome> {
        let name = call.tool.clone();
        let (shared, live) = (self.shared.clone(), self.live.clone());
        match tools::perform(&shared, &live, call).await {
            Performed::Done { result, .. } => Ok(opened(&result)),
            Performed::Failed { error, replayed: _ } => {
                self.trouble = serde_json::to_value(&error).ok();
                Err(Outcome::Failed)
            }
            Performed::Parked { .. } => Err(Outcome::Parked),
            Performed::Wait { after, unknown: false, error: _ } => Err(Outcome::Again(after)),
            Performed::Wait { after, unknown: true, error: _ } | Performed::InFlight { after } => {
                Err(Outcome::Unknown(after))
            }
            Performed::Mismatch => Err(Outcome::Mismatch),
            Performed::Refused(why) => Err(Outcome::Refused(why)),
            Performed::NoRun | Performed::Down(_) => Err(lost()),
            Performed::Denied(denied) => {
                let message = format!("Tool `{name}` was not called: {}.", in_words(&denied));
                self.trouble = Some(json!({ "code": "tool_denied", "message": message }));
                Err(Outcome::Template)
            }
        }
    }
}

/// What is written down with an intent: which tool undoes it. With what, is made when it comes to that.
fn undone_by(tool: &str) -> Payload {
    payload(&json!({ "tool": tool }))
}

/// Why a call went no further than its arguments.
pub(super) fn in_words(denied: &tools::Denied) -> String {
    match denied {
        tools::Denied::NoSuchTool => "there is no such tool".into(),
        tools::Denied::Mode(mode) => format!("tool mode `{}` forbids it", mode.name()),
        tools::Denied::Arguments(problems) => format!("its arguments break its schema ({})", problems.join("; ")),
        tools::Denied::NoKey => "it changes the world and has no key".into(),
    }
}
