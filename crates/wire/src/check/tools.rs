//! What the request demands of its reply, and whether its tool calls are such as it may have.

use super::{Asked, Found};
use crate::Answer;
use outlast_model::{
    Failure,
    policy::{ToolMode, ToolPolicy},
    turn::{Finish, OutputFormat},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{borrow::Cow, sync::Arc};

/// What the request demands of its reply.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand<'a> {
    pub(super) output: &'a OutputFormat,
    /// The JSON of `tools` and of OpenAI's older `functions`. Read only when a tool was called.
    pub(super) tools: [Option<&'a str>; 2],
    /// The JSON of `tool_choice`.
    pub(super) tool_choice: Option<&'a str>,
    /// It has stop sequences, so that a reply may rightly end before its first word.
    pub(super) stops: bool,
    /// What the model may do with tools.
    pub(super) mode: ToolMode,
    /// Which of them only read.
    pub(super) policy: Option<&'a ToolPolicy>,
    /// The only ones it may call at all.
    pub(super) permitted: Option<&'a [Arc<str>]>,
}

impl<'a> Demand<'a> {
    pub(super) fn of(asked: &Asked<'a>) -> Self {
        let (inbound, contract) = (asked.inbound, asked.gates.contract());
        let given = |name| inbound.value(name).filter(|value| !matches!(*value, "null" | "[]" | "\"\""));
        Demand {
            output: inbound.output(),
            tools: [given("tools"), given("functions")],
            // A choice that named a withheld tool was not sent.
            tool_choice: given("tool_choice").filter(|_| {
                contract.permissions.tools.is_none() || !inbound.offer(asked.brief, contract).choice_dropped
            }),
            stops: given("stop").or_else(|| given("stop_sequences")).is_some(),
            mode: asked.brief.tool_mode,
            policy: contract.tools.as_ref(),
            permitted: contract.permissions.tools.as_deref(),
        }
    }

    pub(super) fn is_structured(&self) -> bool {
        match self.output {
            OutputFormat::Text | OutputFormat::Opaque(_) => false,
            OutputFormat::Json | OutputFormat::JsonSchema { .. } => true,
        }
    }

    /// The schema the request demands.
    pub(super) fn schema(&self) -> Option<&'a RawValue> {
        match self.output {
            OutputFormat::JsonSchema { schema, .. } => Some(schema),
            OutputFormat::Text | OutputFormat::Json | OutputFormat::Opaque(_) => None,
        }
    }

    /// The names of the tools that the model may call, or plan to.
    pub(super) fn offered(&self) -> Vec<Box<str>> {
        let names = Offered::read(self.tools).names.into_iter();
        names.filter(|name| self.is_let(name)).map(Box::from).collect()
    }

    /// The names of the tools that the mode withholds from the model.
    pub(super) fn withheld(&self) -> Vec<Cow<'a, str>> {
        Offered::read(self.tools).names.into_iter().filter(|name| !self.mode_calls(name)).collect()
    }

    fn is_let(&self, name: &str) -> bool {
        let permitted = self.permitted.is_none_or(|list| list.iter().any(|tool| **tool == *name));
        permitted && (self.mode == ToolMode::PlanOnly || self.mode_calls(name))
    }

    fn mode_calls(&self, name: &str) -> bool {
        match self.mode {
            ToolMode::Full => true,
            ToolMode::ReadOnly => self.policy.is_some_and(|policy| policy.read_only.iter().any(|tool| **tool == *name)),
            ToolMode::PlanOnly | ToolMode::None => false,
        }
    }

    /// Judges a choice's tool calls, and whether one had to come.
    pub(super) fn judge_calls(&self, answer: &Answer, found: &mut Found) {
        if answer.tool_calls.is_empty() {
            let stopped_early = matches!(answer.finish, Some(Finish::Length));
            // With tools withheld an answer in words is what is left.
            if self.mode == ToolMode::Full && self.must_call() && !answer.opaque && !stopped_early {
                found.add(Failure::ToolMismatch, "tool_choice: a tool call was required, none came");
            }
            return;
        }
        if answer.finish == Some(Finish::Length) {
            // Whole JSON or not: the limit may have cut the last call's arguments, and they are for acting on.
            return found.add(Failure::Truncated, "the output limit was reached in a tool call");
        }
        let offered = Offered::read(self.tools);
        // A tool without a name is the provider's own: it is not among those a contract lets through by name.
        let open = offered.open && self.mode == ToolMode::Full && self.permitted.is_none();
        for (at, (name, arguments)) in answer.tool_calls.iter().enumerate() {
            let known = offered.names.iter().any(|offered| *offered == **name);
            if !open && !known {
                found.add(Failure::ToolMismatch, format!("tool_calls[{at}]: not an offered tool"));
            } else if !open && !self.is_let(name) {
                found.add(Failure::ToolMismatch, format!("tool_calls[{at}]: the tool {name} is withheld"));
            } else if !is_object(arguments) {
                found.add(Failure::ToolMismatch, format!("tool_calls[{at}]: the arguments are no JSON object"));
            }
        }
    }

    /// Whether the model had to call a tool: `required`, `any`, or one by name.
    fn must_call(&self) -> bool {
        #[derive(Deserialize)]
        struct Choice {
            r#type: Box<str>,
        }
        match self.tool_choice {
            None => false,
            Some("\"required\"" | "\"any\"") => true,
            Some(choice) => serde_json::from_str::<Choice>(choice)
                .is_ok_and(|choice| matches!(&*choice.r#type, "any" | "tool" | "function")),
        }
    }
}

/// The tools a request offers, by name.
struct Offered<'a> {
    names: Vec<Cow<'a, str>>,
    /// A list is there that cannot be read, or a tool in it has no name (the provider's own): any name may come.
    open: bool,
}

impl<'a> Offered<'a> {
    fn read(lists: [Option<&'a str>; 2]) -> Self {
        #[derive(Deserialize)]
        struct Tool<'a> {
            #[serde(borrow)]
            name: Option<Cow<'a, str>>,
            #[serde(borrow)]
            function: Option<Named<'a>>,
            #[serde(borrow)]
            custom: Option<Named<'a>>,
        }
        #[derive(Deserialize)]
        struct Named<'a> {
            #[serde(borrow)]
            name: Cow<'a, str>,
        }
        let mut offered = Offered { names: Vec::new(), open: false };
        for list in lists.into_iter().flatten() {
            let Ok(tools) = serde_json::from_str::<Vec<Tool<'a>>>(list) else {
                offered.open = true;
                continue;
            };
            for tool in tools {
                let inner = tool.function.or(tool.custom).map(|inner| inner.name);
                match inner.or(tool.name) {
                    Some(name) => offered.names.push(name),
                    None => offered.open = true,
                }
            }
        }
        offered
    }
}

fn is_object(text: &str) -> bool {
    text.trim_start().starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}
