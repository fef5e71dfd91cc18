//! From a complete reply to what is wrong with it. The same checks whichever target answered, streamed or not.
//!
//! First what no contract needs to say: a content filter's stop is a safety block, a refusal in its own field is a
//! refusal, a reply with nothing in it is empty, tool calls name offered tools with an object for arguments, JSON that
//! the request demands is whole, unambiguous (no field twice) and keeps the request's schema. Then the contract's
//! gates, in [`gates`]. Between tool calls, and beside a plan, the text owes nothing yet: then only forbidden phrases
//! and claims are looked for.
//!
//! A JSON reply that breaks only in its syntax may be repaired by the fixes the contract lists; what comes of it is
//! judged from the start. A text where JSON is due and that opens like a refusal is one, and broken JSON as well: even
//! a contract that delivers refusals cannot deliver it as what was demanded.
//!
//! A finding names rules, tools the client offered and places in a schema of the client's or the operator's. It never
//! holds a word of the reply: findings are kept in the lineage, replies are not.

mod claims;
mod duplicates;
mod evidence;
mod gates;
mod language;
mod phrases;
mod prose;
mod refusal;
mod schema;
mod tools;
mod work;

pub(crate) use language::{KNOWN, of_code as language_of};
pub(crate) use phrases::Phrase;
pub(crate) use schema::Compiled;

use crate::{
    Answer, Inbound, StreamReader,
    compose::Said,
    contract::Gates,
    plan::{self, Intent},
    repair::{self, Repaired},
    reply::Reply,
    strict::{self, NotJson},
};
use outlast_model::{
    Brief, Failure, Findings, Gate, Problem,
    policy::{Fix, RefusalPolicy, ToolMode},
    record::SchemaStatus,
    turn::{Finish, OutputFormat},
};
use serde_json::Value;
use tools::Demand;

/// The most problems of one kind (one failure at one gate) listed of one reply. More of them would decide nothing else.
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
    /// What is to be delivered where it differs from what came: a repaired text, what a plan says beside its intents.
    pub instead: Option<Said>,
    /// The tool calls that were not made; never empty.
    pub plan: Option<Vec<Intent>>,
}

/// Checks a whole reply.
pub fn reply(asked: &Asked<'_>, reply: &Reply) -> Checked {
    judge(asked, &reply.answers, reply.overflowed, || reply.said())
}

/// Checks a stream that has ended well. A demand for JSON, a contract's gates, its policy for refusals and every tool
/// mode below the full one judge the text: the reader has to have collected it.
pub fn stream(asked: &Asked<'_>, stream: &StreamReader) -> Checked {
    judge(asked, stream.answers(), stream.overflowed(), || stream.said())
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
    judge(asked, &[answer], false, || said.clone())
}

/// What was found, choice by choice.
#[derive(Debug, Default)]
struct Found {
    findings: Findings,
    /// Put before every finding when there are several choices.
    place: String,
    /// Something else is wrong than that the contract's full schema is broken.
    beyond_full_schema: bool,
}

impl Found {
    fn at(place: &str) -> Found {
        Found { place: place.to_owned(), ..Found::default() }
    }

    fn add(&mut self, failure: Failure, what: impl AsRef<str>) {
        self.push(Problem::new(failure, format!("{}{}", self.place, what.as_ref())));
    }

    fn gate(&mut self, gate: Gate, what: impl AsRef<str>) {
        self.push(Problem::at(gate, format!("{}{}", self.place, what.as_ref())));
    }

    fn push(&mut self, problem: Problem) {
        self.beyond_full_schema |= !matches!(problem.gate, Some(Gate::Schema | Gate::Drift));
        let problems = &mut self.findings.problems;
        let is_alike = |other: &&Problem| (other.failure, other.gate) == (problem.failure, problem.gate);
        if problems.iter().filter(is_alike).count() < PROBLEMS_MAX {
            problems.push(problem);
        }
    }

    fn is_clean(&self) -> bool {
        self.findings.problems.is_empty()
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
        if rank(status) > rank(self.findings.schema) {
            self.findings.schema = status;
        }
    }

    /// Takes in what was found in one choice.
    fn merge(&mut self, other: Found) {
        let mut its = other.findings;
        its.problems.drain(..).for_each(|problem| self.push(problem));
        self.structure(its.schema);
        let mine = &mut self.findings;
        for fix in its.fixes {
            if !mine.fixes.contains(&fix) {
                mine.fixes.push(fix);
            }
        }
        mine.keeps_degraded |= its.keeps_degraded;
        // The least sure choice stands for the reply.
        mine.confidence = [mine.confidence, its.confidence].into_iter().flatten().reduce(f64::min);
        mine.cites |= its.cites;
    }
}

/// What is to be delivered of a choice, where it differs from what came.
#[derive(Debug, Default)]
struct Instead {
    text: Option<String>,
    plan: Vec<Intent>,
}

fn judge(asked: &Asked<'_>, answers: &[Answer], overflowed: bool, original: impl FnOnce() -> Said) -> Checked {
    judge_by(&Demand::of(asked), asked, answers, overflowed, original)
}

fn judge_by(
    demand: &Demand<'_>,
    asked: &Asked<'_>,
    answers: &[Answer],
    overflowed: bool,
    original: impl FnOnce() -> Said,
) -> Checked {
    let mut found = Found::default();
    let mut instead = Instead::default();
    if answers.is_empty() {
        found.add(Failure::Empty, "no choices");
    }
    for (at, answer) in answers.iter().enumerate() {
        let alone = answers.len() == 1;
        let place = if alone { String::new() } else { format!("choices[{at}]: ") };
        let mut one = Found::at(&place);
        instead = Choice { asked, demand, answer, overflowed, alone }.judge(&mut one);
        found.merge(one);
    }
    let Instead { text, plan } = instead;
    let instead = (text.is_some() || !plan.is_empty()).then(|| {
        let mut said = original();
        if let Some(text) = text {
            said.text = text;
        }
        if !plan.is_empty() {
            said.tool_calls.clear();
            said.finish = Finish::Stop;
        }
        said
    });
    Checked { findings: found.findings, instead, plan: (!plan.is_empty()).then_some(plan) }
}

/// One choice of a reply, and what it is held to.
struct Choice<'a> {
    asked: &'a Asked<'a>,
    demand: &'a Demand<'a>,
    answer: &'a Answer,
    /// Text was left out of the answer.
    overflowed: bool,
    /// It is the only one: another reply can take its place.
    alone: bool,
}

impl Choice<'_> {
    fn judge(&self, found: &mut Found) -> Instead {
        let answer = self.answer;
        if answer.finish == Some(Finish::ContentFilter) {
            found.add(Failure::SafetyBlock, "finish reason: content filter");
            return Instead::default();
        }
        if !answer.refusal.is_empty() || answer.finish == Some(Finish::Refusal) {
            found.add(Failure::Refusal, "the model declined");
            return Instead::default();
        }
        self.demand.judge_calls(answer, found);
        if !found.is_clean() {
            return Instead::default();
        }
        let said_nothing = !answer.spoke && answer.tool_calls.is_empty() && !answer.opaque;
        let stopped = self.demand.stops && answer.finish == Some(Finish::Stop);
        if said_nothing && answer.finish != Some(Finish::Length) && !stopped {
            found.add(Failure::Empty, "no text, no tool call");
            return Instead::default();
        }
        if self.asked.brief.tool_mode == ToolMode::PlanOnly
            && let Some((text, plan)) = self.plan(found)
        {
            if plan.is_empty() {
                let repaired = self.judge_text(&text, found);
                return Instead { text: Some(repaired.unwrap_or(text)), plan };
            }
            gates::judge_aside(self, &text, found);
            return Instead { text: Some(text), plan };
        }
        if !answer.tool_calls.is_empty() {
            gates::judge_aside(self, &answer.text, found);
            return Instead::default();
        }
        Instead { text: self.judge_text(&answer.text, found), plan: Vec::new() }
    }

    /// The plan in a reply that could only plan, with what it says beside it. `None`: it plans nothing.
    fn plan(&self, found: &mut Found) -> Option<(String, Vec<Intent>)> {
        let sources = self.asked.inbound.outlast().map(|object| object.sources.as_slice()).unwrap_or_default();
        let answer = self.answer;
        if !answer.tool_calls.is_empty() {
            let calls = answer.tool_calls.iter().map(|(name, arguments)| (name.as_str(), arguments.as_str()));
            let plan = plan::of_calls(calls, &answer.text, sources).filter(|_| self.alone);
            if plan.is_none() {
                found.add(Failure::ToolMismatch, "the tool calls cannot be read as one plan");
            }
            return plan.map(|plan| (answer.text.clone(), plan));
        }
        let names = self.demand.offer().map(|offer| offer.offered).unwrap_or_default();
        let plan = plan::of_text(&answer.text, &names, sources).or_else(|| {
            let fixes = &self.asked.gates.contract().repair.fixes;
            let repaired = repair::repair(&answer.text, fixes, false)?;
            plan::of_text(&repaired.text, &names, sources).inspect(|_| found.findings.fixes.extend(repaired.fixes))
        });
        let owes_json = self.demand.is_structured() || self.asked.gates.wants_json();
        if plan.is_none() && !owes_json && looks_like_a_plan(&answer.text) {
            found.add(Failure::SchemaError, "the plan cannot be read");
        }
        plan.filter(|_| self.alone)
    }

    /// Judges a text that owes everything. What is to be delivered instead: the text, repaired.
    fn judge_text(&self, text: &str, found: &mut Found) -> Option<String> {
        let asked = self.asked;
        let json_due = (self.demand.is_structured() && !self.answer.opaque) || asked.gates.wants_json();
        if !json_due {
            if asked.gates.is_plain() && asked.brief.tool_mode == ToolMode::Full {
                return None;
            }
            if self.overflowed {
                found.gate(Gate::Length, "the reply is too long to be checked");
            } else if asked.gates.contract().refusal != RefusalPolicy::Deliver && refusal::opens(text) {
                found.add(Failure::Refusal, "the text opens with a refusal");
            } else {
                gates::judge(self, text, None, found);
            }
            return None;
        }
        if self.overflowed {
            self.not_json("the reply is too long to be checked", found);
            return None;
        }
        let why = match strict::parse(text) {
            Ok(value) => {
                self.judge_json(text, &value, found);
                return None;
            }
            Err(why) => why,
        };
        if let Some((repaired, judged)) = self.repaired(text, why, &found.place) {
            found.merge(judged);
            return Some(repaired);
        }
        // A reason only that provider knows (a paused turn, say) is not the model's own end either.
        let cut = matches!(self.answer.finish, Some(Finish::Length | Finish::Other));
        match why {
            NotJson::Twice => self.not_json("an object names a field twice: it is ambiguous", found),
            NotJson::At { .. } if cut => {
                found.structure(SchemaStatus::Invalid);
                found.add(Failure::Truncated, "ended inside required JSON");
            }
            NotJson::At { .. } if refusal::opens(text) => {
                found.add(Failure::Refusal, "the text opens with a refusal where JSON is due");
                self.not_json("the text is not JSON but a refusal", found);
            }
            NotJson::At { line, column } => {
                self.not_json(&format!("the text is not JSON (line {line}, column {column})"), found);
            }
        }
        None
    }

    /// The text after syntactic repairs and what is found in it then.
    fn repaired(&self, text: &str, why: NotJson, place: &str) -> Option<(String, Found)> {
        let fixes = &self.asked.gates.contract().repair.fixes;
        if fixes.is_empty() || !self.alone || why == NotJson::Twice {
            return None;
        }
        let ended_by_itself = self.answer.finish == Some(Finish::Stop);
        let Repaired { text, fixes } = repair::repair(text, fixes, ended_by_itself)?;
        let value = strict::parse(&text).ok()?;
        let mut judged = Found::at(place);
        self.judge_json(&text, &value, &mut judged);
        // Only a schema can tell that nothing required was cut off.
        let has_schema = self.asked.gates.schema.is_some() || self.demand.schema().is_some();
        if fixes.contains(&Fix::Closers) && !(has_schema && judged.findings.schema == SchemaStatus::Valid) {
            return None;
        }
        judged.findings.fixes = fixes;
        Some((text, judged))
    }

    /// Judges a document: by the request's demand, then by the contract.
    fn judge_json(&self, text: &str, value: &Value, found: &mut Found) {
        match self.demand.output {
            OutputFormat::Json if !value.is_object() && !value.is_array() && !self.answer.opaque => {
                found.structure(SchemaStatus::Invalid);
                found.add(Failure::SchemaError, "the text is neither a JSON object nor a list");
            }
            OutputFormat::Json | OutputFormat::JsonSchema { .. } if self.answer.opaque => {}
            OutputFormat::Json => found.structure(SchemaStatus::Valid),
            OutputFormat::JsonSchema { schema, .. } => match schema::validate(schema.get(), value) {
                schema::Verdict::Valid => found.structure(SchemaStatus::Valid),
                schema::Verdict::Unverified => found.structure(SchemaStatus::Unverified),
                schema::Verdict::Invalid(violations) => {
                    found.structure(SchemaStatus::Invalid);
                    violations.iter().for_each(|violation| found.add(Failure::SchemaError, &violation.place));
                }
            },
            OutputFormat::Text | OutputFormat::Opaque(_) => {}
        }
        gates::judge(self, text, Some(value), found);
    }

    /// A text where JSON is due.
    fn not_json(&self, what: &str, found: &mut Found) {
        found.structure(SchemaStatus::Invalid);
        if self.asked.gates.wants_json() {
            found.gate(Gate::Schema, what);
        } else {
            found.add(Failure::SchemaError, what);
        }
    }
}

/// A text that was to be a plan and is not quite one.
fn looks_like_a_plan(text: &str) -> bool {
    text.trim_start().starts_with(['{', '`']) && text.contains("\"plan\"")
}

#[cfg(test)]
mod tests;
