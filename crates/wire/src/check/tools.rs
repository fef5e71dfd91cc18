//! What the request demands of its reply, and whether its tool calls are such as it may have.

use super::{Asked, Found};
use crate::{Answer, tools::Offer};
use outlast_model::{
    Failure,
    policy::ToolMode,
    turn::{Finish, OutputFormat},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

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
    /// The tools may not all be what the request offers: the mode or the contract withholds some. Read like `tools`.
    pub(super) restricted: Option<&'a Asked<'a>>,
}

impl<'a> Demand<'a> {
    pub(super) fn of(asked: &'a Asked<'a>) -> Self {
        let inbound = asked.inbound;
        let contract = asked.gates.contract();
        let restricted = asked.brief.tool_mode != ToolMode::Full || contract.permissions.tools.is_some();
        let given = |name| inbound.value(name).filter(|value| !matches!(*value, "null" | "[]" | "\"\""));
        Demand {
            output: inbound.output(),
            tools: [given("tools"), given("functions")],
            tool_choice: given("tool_choice"),
            stops: given("stop").or_else(|| given("stop_sequences")).is_some(),
            restricted: restricted.then_some(asked),
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

    /// What the model got to see of the tools; `None`: all that the request offers.
    pub(super) fn offer(&self) -> Option<Offer> {
        self.restricted.map(|asked| asked.inbound.offer(asked.brief, asked.gates.contract()))
    }

    /// Judges a choice's tool calls, and whether one had to come.
    pub(super) fn judge_calls(&self, answer: &Answer, found: &mut Found) {
        if answer.tool_calls.is_empty() {
            let stopped_early = matches!(answer.finish, Some(Finish::Length));
            if !answer.opaque && !stopped_early && self.must_call() && !self.may_answer_in_words() {
                found.add(Failure::ToolMismatch, "tool_choice: a tool call was required, none came");
            }
            return;
        }
        if answer.finish == Some(Finish::Length) {
            // Whole JSON or not: the limit may have cut the last call's arguments, and they are for acting on.
            return found.add(Failure::Truncated, "the output limit was reached in a tool call");
        }
        let (offered, offer) = (Offered::read(self.tools), self.offer());
        for (at, (name, arguments)) in answer.tool_calls.iter().enumerate() {
            let is_named = |names: &[Box<str>]| names.iter().any(|one| **one == **name);
            if offer.as_ref().is_some_and(|offer| is_named(&offer.withheld)) {
                found.add(Failure::ToolMismatch, format!("tool_calls[{at}]: the tool {name} is withheld"));
            } else if !offer.as_ref().map_or_else(|| offered.includes(name), |offer| is_named(&offer.offered)) {
                found.add(Failure::ToolMismatch, format!("tool_calls[{at}]: not an offered tool"));
            } else if !is_object(arguments) {
                found.add(Failure::ToolMismatch, format!("tool_calls[{at}]: the arguments are no JSON object"));
            }
        }
    }

    /// Though the request says that a tool has to be called: where it can only be planned, or the demand was dropped
    /// with the tool it named.
    fn may_answer_in_words(&self) -> bool {
        let plans = |asked: &Asked<'_>| asked.brief.tool_mode == ToolMode::PlanOnly;
        self.restricted.is_some_and(plans) || self.offer().is_some_and(|offer| offer.choice_dropped)
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

    fn includes(&self, name: &str) -> bool {
        self.open || self.names.iter().any(|offered| offered == name)
    }
}

fn is_object(text: &str) -> bool {
    text.trim_start().starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}
