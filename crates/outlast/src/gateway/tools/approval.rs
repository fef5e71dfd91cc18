//! Whether a person has to agree, and what a person is asked.

use super::super::Shared;
use crate::config::Tool;
use outlast_model::{ToolName, policy::ApprovalPolicy};
use outlast_store::{IfParked, Payload};
use outlast_wire::template::Facts;
use serde_json::{Value, json};
use std::time::Duration;

/// Whether a person has to agree before the tool is called with these arguments.
pub(super) fn needed(tool: &Tool, arguments: &Value) -> bool {
    match (&tool.spec.approval, &tool.approval) {
        (ApprovalPolicy::Never, _) => false,
        (ApprovalPolicy::Always, _) | (ApprovalPolicy::When(_), None) => true,
        // What cannot be told is a person's to say.
        (ApprovalPolicy::When(_), Some(when)) => {
            when.holds_of(&Facts::of(&json!({ "arguments": arguments }))).unwrap_or(true)
        }
    }
}

/// What a person is asked if a call comes to need one.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    tool: ToolName,
    context: Payload,
    answer_within: Option<Duration>,
}

impl Asking {
    pub(super) fn about(tool: &Tool, arguments: &Value, key: &str, answer_within: Option<Duration>) -> Self {
        let context = json!({
            "tool": tool.spec.name,
            "description": tool.spec.description,
            "class": tool.spec.class.name(),
            "idempotency_key": key,
            "arguments": arguments,
        });
        let context = Payload::from(serde_json::to_vec(&context).unwrap_or_default());
        Asking { tool: tool.spec.name.clone(), context, answer_within }
    }

    /// About an entry of which only the name is known here.
    pub(super) fn of_name(tool: ToolName, answer_within: Option<Duration>) -> Self {
        Asking { tool, context: Payload::from(b"{}".to_vec()), answer_within }
    }

    /// Under a fresh id. The question is a general one unless one is given.
    pub(super) fn if_parked(&self, shared: &Shared, question: Option<&str>) -> IfParked {
        let general = "A call of this tool cannot be brought to an end without a person. What becomes of it?";
        let question = format!("{}: {}", self.tool, question.unwrap_or(general));
        // Without entropy the id can be guessed by whoever knows the time; it still names one escalation only.
        let id = shared.clock.secret().unwrap_or_else(|| shared.clock.request_id().as_str().to_owned());
        IfParked {
            id: format!("esc_{id}").into(),
            question: question.into(),
            context: self.context.clone(),
            answer_within: self.answer_within,
        }
    }
}
