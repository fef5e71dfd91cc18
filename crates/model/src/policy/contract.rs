//! Contracts: what must stay true whichever target answers. DESIGN section 8.

use super::Ability;
use crate::{RouteId, Usd};
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc, time::Duration};

/// What must stay true whichever target answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Contract {
    /// Its name.
    pub name: Arc<str>,
    /// What a stream promises. Where the whole reply has to be checked it is always `buffer`.
    pub stream: StreamContract,
    /// What happens to a refusal.
    pub refusal: RefusalPolicy,
    /// What happens to a safety block. It never reaches another model.
    pub safety: SafetyPolicy,
    /// What every target must be able to take in, whatever the single request needs.
    pub needs: ContractNeeds,
    /// Where the request may go and what the model may call.
    pub permissions: Permissions,
    /// The workflow state that every path has to keep.
    pub keeps: Vec<Keep>,
    /// What the reply itself shows to be kept or broken.
    pub checks: Checks,
    /// How sure the reply has to be.
    pub confidence: Option<Confidence>,
    /// Validators of the operator's own, asked over HTTP once everything else has passed.
    pub validators: Vec<HttpValidator>,
    /// How a reply that breaks the contract may be mended.
    pub repair: Repair,
    /// What the model may do with tools; absent: whatever the request offers, on targets that can call tools.
    pub tools: Option<ToolPolicy>,
    /// How the input may be made to fit when no target takes all of it.
    pub shorten: Option<Shorten>,
    /// The narrower schema that may be served, marked, when no path keeps the full one.
    pub degraded_schema: Option<Arc<Schema>>,
    /// The template of what an end user is told when something was given up.
    pub notice: Option<Arc<str>>,
    /// Whether bodies may carry what the client did not ask for: the `outlast` object. Headers always speak.
    pub body_notes: bool,
}

impl Contract {
    /// The contract of routes that name none: whatever the request itself demands, and nothing more.
    pub fn plain(name: &str, stream: StreamContract) -> Self {
        Contract {
            name: name.into(),
            stream,
            refusal: RefusalPolicy::Deliver,
            safety: SafetyPolicy::Return,
            needs: ContractNeeds::default(),
            permissions: Permissions::default(),
            keeps: Vec::new(),
            checks: Checks::default(),
            confidence: None,
            validators: Vec::new(),
            repair: Repair::default(),
            tools: None,
            shorten: None,
            degraded_schema: None,
            notice: None,
            body_notes: true,
        }
    }

    /// Whether it can only be judged on the whole reply, so that streams of it are buffered.
    pub fn judges_whole_replies(&self) -> bool {
        !self.checks.is_empty() || self.confidence.is_some() || !self.validators.is_empty()
    }
}

/// What happens to a refusal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RefusalPolicy {
    /// It is the reply.
    #[default]
    Deliver,
    /// The next target is asked.
    Reroute,
    /// It goes to a person: the route's `escalate` backstop.
    Review,
}

/// What happens to a safety block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SafetyPolicy {
    /// The client gets the reason.
    #[default]
    Return,
    /// It goes to a person: the route's `escalate` backstop.
    Review,
}

/// What every target of a route must be able to take in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContractNeeds {
    /// The least context window, in tokens.
    pub context: Option<u32>,
    /// Function tools.
    pub tools: bool,
    /// Images.
    pub images: bool,
}

/// Where a request may go and what the model may call. Absent means anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// The regions it may be sent to. A target of unstated region is not one of them.
    pub regions: Option<Vec<Arc<str>>>,
    /// The providers it may be sent to.
    pub providers: Option<Vec<Arc<str>>>,
    /// The tools the model may call; others are not offered to it, in any mode.
    pub tools: Option<Vec<Arc<str>>>,
}

/// A piece of workflow state that no path may lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The step: `outlast.state.step`, or the header `x-outlast-step`.
    Step,
    /// Earlier tool calls and their results: no shortening drops them, and a dialect that cannot carry one is not used.
    ToolResults,
    /// How often the step has been tried: `outlast.state.retry_count`.
    RetryCount,
    /// What the workflow has spent: `outlast.state.budget_used_usd`.
    BudgetUsed,
}

impl Keep {
    /// The name used in config, in `outlast.state` and in errors.
    pub const fn name(self) -> &'static str {
        match self {
            Keep::Step => "step",
            Keep::ToolResults => "tool_results",
            Keep::RetryCount => "retry_count",
            Keep::BudgetUsed => "budget_used_usd",
        }
    }
}

/// What can be judged from the reply and the request alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checks {
    /// The schema the text has to keep, as JSON.
    pub schema: Option<Arc<Schema>>,
    /// The sources it has to name.
    pub evidence: Option<Evidence>,
    /// Phrases that have to be in the text; case and white space do not count.
    pub must_include: Vec<Arc<str>>,
    /// Phrases that must not be in it.
    pub must_not: Vec<Arc<str>>,
    /// The language of the text, as ISO 639-1: `en`, `de`.
    pub language: Option<Arc<str>>,
    /// How long the text may be.
    pub length: Option<Length>,
    /// Whether text that repeats itself fails.
    pub reject_duplicates: bool,
    /// Expressions that have to be true.
    pub expressions: Vec<Expression>,
}

impl Checks {
    /// Nothing is checked.
    pub fn is_empty(&self) -> bool {
        *self == Checks::default()
    }
}

/// A JSON Schema of the config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// Where it came from: a file, or the setting it was written in.
    pub source: Arc<str>,
    /// Its JSON text; it has been compiled once.
    pub json: Arc<str>,
}

/// Which sources a reply has to name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The path in the request's body where the sources are: a list of ids, or of objects with an `id`.
    pub sources: Arc<str>,
    /// The path in the reply's JSON where it names them; absent: marks like `[id]` in the text.
    pub citations: Option<Arc<str>>,
    /// The fewest distinct sources to be named.
    pub min: u32,
}

/// How long a text may be, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// At least.
    pub min: Option<u32>,
    /// At most.
    pub max: Option<u32>,
}

/// An expression over `reply` (the parsed JSON, or the text), `text` and `request` that has to be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    /// Names it in findings.
    pub name: Arc<str>,
    /// The expression.
    pub expression: Arc<str>,
}

/// How sure a reply has to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Confidence {
    /// Who says how sure it is.
    pub from: ConfidenceFrom,
    /// The least that passes, 0 to 1.
    pub min: f64,
}

/// Who says how sure a reply is.
#[derive(Clone, Debug, PartialEq)]
pub enum ConfidenceFrom {
    /// The reply itself: the path of a number from 0 to 1 in its JSON.
    Field(Arc<str>),
    /// The share of votes it won; the tier votes.
    Votes,
    /// Another model.
    Judge(Judge),
}

/// A judge: a route that is asked how good a reply is. A judge that gives no verdict passes nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Judge {
    /// The route that judges; its own contract and tier hold.
    pub route: RouteId,
    /// What it is to look for, put before the question.
    pub instructions: Option<Arc<str>>,
    /// The most one verdict may cost.
    pub cost_max: Option<Usd>,
    /// The longest it may take.
    pub timeout: Duration,
}

/// A validator of the operator's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpValidator {
    /// Names it in findings.
    pub name: Arc<str>,
    /// Gets a POST with the request and the reply; answers `{"ok": bool, "problems": ["..."]}`.
    pub url: Arc<str>,
    /// The longest it may take. A validator that gives no verdict passes nothing.
    pub timeout: Duration,
}

/// How a reply that breaks the contract may be mended, before another target is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// The syntactic repairs allowed.
    pub fixes: Vec<Fix>,
    /// Whether the model may be asked once to mend its own reply: same target, same evidence, the violations named.
    pub model: bool,
    /// What comes when that did not help.
    pub then: AfterRepair,
}

impl Default for Repair {
    fn default() -> Self {
        Repair { fixes: Vec::new(), model: false, then: AfterRepair::Reroute }
    }
}

/// A syntactic repair: bounded, listed, and judged like any reply afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fix {
    /// A code fence around the JSON is taken off.
    Fences,
    /// Commas before a closing bracket are taken out.
    TrailingCommas,
    /// Missing closing brackets are added, when nothing the schema requires is missing and no value was cut.
    Closers,
}

impl Fix {
    /// Every one, in the order they are tried.
    pub const ALL: [Fix; 3] = [Fix::Fences, Fix::TrailingCommas, Fix::Closers];

    /// The name used in config and records.
    pub const fn name(self) -> &'static str {
        match self {
            Fix::Fences => "fences",
            Fix::TrailingCommas => "trailing_commas",
            Fix::Closers => "closers",
        }
    }
}

/// What comes when repair did not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterRepair {
    /// The next target.
    Reroute,
    /// A person: the route's `escalate` backstop.
    Review,
    /// A typed error, at once.
    Stop,
}

/// What the model may do with tools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToolMode {
    /// Call them.
    #[default]
    Full,
    /// Say what it would call: the intent comes back as data, and nothing is run.
    PlanOnly,
    /// Call those that only read.
    ReadOnly,
    /// Nothing.
    None,
}

impl ToolMode {
    /// The name used in config, headers and records.
    pub const fn name(self) -> &'static str {
        match self {
            ToolMode::Full => "full",
            ToolMode::PlanOnly => "plan-only",
            ToolMode::ReadOnly => "read-only",
            ToolMode::None => "none",
        }
    }
}

impl fmt::Display for ToolMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the model may do with tools, by where the target stands in the route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolPolicy {
    /// On the route's first target.
    pub primary: ToolMode,
    /// On every other.
    pub fallback: ToolMode,
    /// The tools that only read; all others write.
    pub read_only: Vec<Arc<str>>,
}

impl ToolPolicy {
    /// The mode for a target: the policy's where its abilities allow that, else the most of what they do allow and the
    /// policy's fallback permits. `None`: it cannot serve a request that offers tools.
    pub fn mode(&self, primary: bool, can_call_tools: Ability) -> Option<ToolMode> {
        let wanted = if primary { self.primary } else { self.fallback };
        let needs_tools = |mode| matches!(mode, ToolMode::Full | ToolMode::ReadOnly);
        match can_call_tools {
            Ability::Yes | Ability::Unknown => Some(wanted),
            Ability::No if !needs_tools(wanted) => Some(wanted),
            Ability::No => (!needs_tools(self.fallback)).then_some(self.fallback),
        }
    }
}

/// How the input may be made to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shorten {
    /// The oldest turns go first; instructions, the last user turn and what [`Keep::ToolResults`] protects stay.
    DropOldestTurns,
}

/// What a stream promises about failures after it began. DESIGN section 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamContract {
    /// Nothing is shown before the whole reply has been validated.
    Buffer,
    /// The first tokens are held back: until so many have come, or so long after the first.
    Hold {
        /// Release at this many tokens...
        tokens: u32,
        /// ...or this long after the first one, whichever ends first.
        after: Duration,
    },
    /// Shown from the first output on; a later cut ends in a typed error event.
    Fail,
}

impl StreamContract {
    /// The hold of the `critical` tier: 32 tokens or 500 ms.
    pub const CRITICAL: StreamContract = StreamContract::Hold { tokens: 32, after: Duration::from_millis(500) };

    /// The name used in config and docs.
    pub const fn name(self) -> &'static str {
        match self {
            StreamContract::Buffer => "buffer",
            StreamContract::Hold { .. } => "hold",
            StreamContract::Fail => "fail",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_without_tools_serves_only_in_a_mode_that_calls_none() {
        use ToolMode as T;
        let mode = |primary, fallback, first, ability| {
            ToolPolicy { primary, fallback, read_only: Vec::new() }.mode(first, ability)
        };
        for (primary, fallback, first, ability, expected) in [
            (T::Full, T::PlanOnly, true, Ability::Yes, Some(T::Full)),
            (T::Full, T::PlanOnly, false, Ability::Yes, Some(T::PlanOnly)),
            (T::Full, T::PlanOnly, true, Ability::No, Some(T::PlanOnly)),
            (T::Full, T::Full, true, Ability::No, None),
            (T::Full, T::ReadOnly, false, Ability::Unknown, Some(T::ReadOnly)),
            (T::Full, T::ReadOnly, false, Ability::No, None),
            (T::None, T::None, true, Ability::No, Some(T::None)),
        ] {
            assert_eq!(mode(primary, fallback, first, ability), expected, "{primary} {fallback} {first} {ability:?}");
        }
    }
}
