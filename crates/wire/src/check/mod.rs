//! From a complete reply to what is wrong with it. The same checks whichever target answered, streamed or not.
//!
//! A finding names rules, tools the client offered and places in the client's own schema. It never holds a word of
//! the reply: findings are kept in the lineage, replies are not.

mod schema;

use crate::{Answer, Inbound, StreamReader, compose::Said, contract::Gates, plan::Intent, reply::Reply};
use outlast_model::{
    Brief, Failure, Findings, Problem,
    record::SchemaStatus,
    turn::{Finish, OutputFormat},
};
use schema::Verdict;
use serde::Deserialize;
use serde_json::Value;

/// The most problems listed of one reply. More of them would decide nothing else.
pub const PROBLEMS_MAX: usize = 8;

/// What a reply is held to.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The request as it came in.
    pub inbound: &'a Inbound,
    /// The contract of its route.
    pub gates: &'a Gates,
    /// How the request was put to the target.
    pub brief: &'a Brief,
}

/// What came of checking a reply.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// What was found.
    pub findings: Findings,
    /// What is to be delivered where it differs from what came: a repaired text, a plan.
    pub instead: Option<Said>,
    /// The tool calls that were not made.
    pub plan: Option<Vec<Intent>>,
}

/// Checks a whole reply.
pub fn reply(asked: &Asked<'_>, reply: &Reply) -> Checked {
    checked(judge(&Demand::of(asked.inbound), &reply.answers, false))
}

/// Checks a stream that has ended well.
pub fn stream(asked: &Asked<'_>, stream: &StreamReader) -> Checked {
    checked(judge(&Demand::of(asked.inbound), stream.answers(), stream.overflowed()))
}

/// Checks a reply that came from no target, or not just now: a backstop's, a stored one, a vote.
pub fn said(asked: &Asked<'_>, said: &Said) -> Checked {
    let answer = Answer {
        spoke: said.text.contains(|letter: char| !letter.is_whitespace()),
        text: said.text.clone(),
        tool_calls: said.tool_calls.iter().map(|call| (call.name.clone(), call.arguments.clone())).collect(),
        finish: Some(said.finish),
        ..Answer::default()
    };
    checked(judge(&Demand::of(asked.inbound), &[answer], false))
}

fn checked(findings: Findings) -> Checked {
    Checked { findings, instead: None, plan: None }
}

/// What the request demands of its reply.
#[derive(Clone, Copy, Debug)]
struct Demand<'a> {
    output: &'a OutputFormat,
    /// The JSON of `tools` and of OpenAI's older `functions`. Read only when a tool was called.
    tools: [Option<&'a str>; 2],
    /// The JSON of `tool_choice`.
    tool_choice: Option<&'a str>,
    /// It has stop sequences, so that a reply may rightly end before its first word.
    stops: bool,
}

impl<'a> Demand<'a> {
    fn of(asked: &'a Inbound) -> Self {
        let given = |name| asked.value(name).filter(|value| !matches!(*value, "null" | "[]" | "\"\""));
        Demand {
            output: asked.output(),
            tools: [given("tools"), given("functions")],
            tool_choice: given("tool_choice"),
            stops: given("stop").or_else(|| given("stop_sequences")).is_some(),
        }
    }

    fn is_structured(&self) -> bool {
        match self.output {
            OutputFormat::Text | OutputFormat::Opaque(_) => false,
            OutputFormat::Json | OutputFormat::JsonSchema { .. } => true,
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

/// What was found, choice by choice.
struct Found {
    problems: Vec<Problem>,
    schema: SchemaStatus,
    /// Put before every finding when there are several choices.
    place: String,
}

impl Found {
    fn add(&mut self, failure: Failure, what: impl AsRef<str>) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem::new(failure, format!("{}{}", self.place, what.as_ref())));
        }
    }

    /// The worst of all choices stands for the reply.
    fn structure(&mut self, status: SchemaStatus) {
        const fn rank(status: SchemaStatus) -> u8 {
            match status {
                SchemaStatus::None => 0,
                SchemaStatus::Valid => 1,
                SchemaStatus::Unverified => 2,
                SchemaStatus::Invalid => 3,
            }
        }
        if rank(status) > rank(self.schema) {
            self.schema = status;
        }
    }
}

fn judge(demand: &Demand<'_>, answers: &[Answer], overflowed: bool) -> Findings {
    let mut found = Found { problems: Vec::new(), schema: SchemaStatus::None, place: String::new() };
    if answers.is_empty() {
        found.add(Failure::Empty, "no choices");
    }
    for (at, answer) in answers.iter().enumerate() {
        if answers.len() > 1 {
            found.place = format!("choices[{at}]: ");
        }
        judge_one(demand, answer, overflowed, &mut found);
    }
    Findings { problems: found.problems, schema: found.schema, ..Findings::CLEAN }
}

fn judge_one(demand: &Demand<'_>, answer: &Answer, overflowed: bool, found: &mut Found) {
    let before = found.problems.len();
    if answer.finish == Some(Finish::ContentFilter) {
        return found.add(Failure::SafetyBlock, "finish reason: content filter");
    }
    if !answer.refusal.is_empty() || answer.finish == Some(Finish::Refusal) {
        return found.add(Failure::Refusal, "the model declined");
    }
    tools(demand, answer, found);
    if found.problems.len() > before {
        return;
    }
    let said_nothing = !answer.spoke && answer.tool_calls.is_empty() && !answer.opaque;
    if said_nothing && answer.finish != Some(Finish::Length) && !(demand.stops && answer.finish == Some(Finish::Stop)) {
        return found.add(Failure::Empty, "no text, no tool call");
    }
    // Between tool calls the model owes no structure yet.
    if demand.is_structured() && answer.tool_calls.is_empty() && !answer.opaque {
        structure(demand.output, answer, overflowed, found);
    }
}

fn tools(demand: &Demand<'_>, answer: &Answer, found: &mut Found) {
    if answer.tool_calls.is_empty() {
        let stopped_early = matches!(answer.finish, Some(Finish::Length));
        if demand.must_call() && !answer.opaque && !stopped_early {
            found.add(Failure::ToolMismatch, "tool_choice: a tool call was required, none came");
        }
        return;
    }
    if answer.finish == Some(Finish::Length) {
        // Whole JSON or not: the limit may have cut the last call's arguments, and they are for acting on.
        return found.add(Failure::Truncated, "the output limit was reached in a tool call");
    }
    let offered = Offered::read(demand.tools);
    for (at, (name, arguments)) in answer.tool_calls.iter().enumerate() {
        if !offered.includes(name) {
            found.add(Failure::ToolMismatch, format!("tool_calls[{at}]: not an offered tool"));
        } else if !is_object(arguments) {
            found.add(Failure::ToolMismatch, format!("tool_calls[{at}]: the arguments are no JSON object"));
        }
    }
}

/// The tools a request offers, by name.
struct Offered<'a> {
    names: Vec<std::borrow::Cow<'a, str>>,
    /// A list is there that cannot be read, or a tool in it has no name (the provider's own): any name may come.
    open: bool,
}

impl<'a> Offered<'a> {
    fn read(lists: [Option<&'a str>; 2]) -> Self {
        #[derive(Deserialize)]
        struct Tool<'a> {
            #[serde(borrow)]
            name: Option<std::borrow::Cow<'a, str>>,
            #[serde(borrow)]
            function: Option<Named<'a>>,
            #[serde(borrow)]
            custom: Option<Named<'a>>,
        }
        #[derive(Deserialize)]
        struct Named<'a> {
            #[serde(borrow)]
            name: std::borrow::Cow<'a, str>,
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

fn structure(output: &OutputFormat, answer: &Answer, overflowed: bool, found: &mut Found) {
    // A reason only that provider knows (a paused turn, say) is not the model's own end either.
    let cut = matches!(answer.finish, Some(Finish::Length | Finish::Other));
    if overflowed {
        found.structure(SchemaStatus::Invalid);
        return found.add(Failure::SchemaError, "the reply is too long to be checked");
    }
    let value = match serde_json::from_str::<Value>(&answer.text) {
        Ok(value) if value.is_object() || value.is_array() || matches!(output, OutputFormat::JsonSchema { .. }) => {
            value
        }
        Ok(_) => {
            found.structure(SchemaStatus::Invalid);
            return found.add(Failure::SchemaError, "the text is neither a JSON object nor a list");
        }
        Err(_) if cut => {
            found.structure(SchemaStatus::Invalid);
            return found.add(Failure::Truncated, "ended inside required JSON");
        }
        Err(error) => {
            found.structure(SchemaStatus::Invalid);
            let (line, column) = (error.line(), error.column());
            return found.add(Failure::SchemaError, format!("the text is not JSON (line {line}, column {column})"));
        }
    };
    let OutputFormat::JsonSchema { schema, .. } = output else { return found.structure(SchemaStatus::Valid) };
    match schema::validate(schema.get(), &value) {
        Verdict::Valid => found.structure(SchemaStatus::Valid),
        Verdict::Unverified => found.structure(SchemaStatus::Unverified),
        Verdict::Invalid(places) => {
            found.structure(SchemaStatus::Invalid);
            places.iter().for_each(|place| found.add(Failure::SchemaError, place));
        }
    }
}

fn is_object(text: &str) -> bool {
    text.trim_start().starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests;
