//! What the checks found in a complete reply. The wire finds, the engine judges.

use crate::{
    Failure, Usd,
    policy::{Fix, ToolMode},
    record::SchemaStatus,
};
use serde::{Deserialize, Serialize};

/// One thing wrong with a reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Its class.
    pub failure: Failure,
    /// The gate of the contract it failed at; absent for what no contract needs to forbid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
    /// What exactly, for the lineage: a path in the schema, a rule's name. Never payload text.
    pub what: Box<str>,
}

impl Problem {
    /// A problem of this class.
    pub fn new(failure: Failure, what: impl Into<Box<str>>) -> Self {
        Problem { failure, gate: None, what: what.into() }
    }

    /// A problem at this gate.
    pub fn at(gate: Gate, what: impl Into<Box<str>>) -> Self {
        Problem { failure: gate.failure(), gate: Some(gate), what: what.into() }
    }
}

/// A gate of a contract: which of its promises a reply can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// The text is not JSON, or required fields are missing or of the wrong form.
    Schema,
    /// Valid JSON of another shape: required fields are missing where unknown ones stand.
    Drift,
    /// A citation is missing, or names no source that was supplied.
    Citation,
    /// A phrase that has to be there is not.
    MustInclude,
    /// A phrase that must not be there is.
    MustNot,
    /// Another language.
    Language,
    /// Too short or too long.
    Length,
    /// Text that repeats itself.
    Duplicate,
    /// An expression is not true.
    Expression,
    /// The reply claims an action that did not happen: tools were withheld.
    Claim,
    /// Less sure than it has to be, or of unknown confidence.
    Confidence,
    /// A validator of the operator's own said no.
    Validator,
    /// A judge or validator gave no verdict. It passes nothing, and another reply would meet the same.
    Unjudged,
}

impl Gate {
    /// What breaking it is called.
    pub const fn failure(self) -> Failure {
        match self {
            Gate::Schema | Gate::Drift => Failure::SchemaError,
            Gate::Citation
            | Gate::MustInclude
            | Gate::MustNot
            | Gate::Language
            | Gate::Length
            | Gate::Duplicate
            | Gate::Expression
            | Gate::Claim
            | Gate::Confidence
            | Gate::Validator => Failure::Quality,
            Gate::Unjudged => Failure::ToolFailed,
        }
    }

    /// The name used in records, metrics and docs.
    pub const fn name(self) -> &'static str {
        match self {
            Gate::Schema => "schema",
            Gate::Drift => "drift",
            Gate::Citation => "citation",
            Gate::MustInclude => "must_include",
            Gate::MustNot => "must_not",
            Gate::Language => "language",
            Gate::Length => "length",
            Gate::Duplicate => "duplicate",
            Gate::Expression => "expression",
            Gate::Claim => "claim",
            Gate::Confidence => "confidence",
            Gate::Validator => "validator",
            Gate::Unjudged => "unjudged",
        }
    }
}

/// Everything the checks found in one complete reply. No problem means it may be delivered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    /// What is wrong, worst first or in any order.
    pub problems: Vec<Problem>,
    /// How its structure was judged.
    pub schema: SchemaStatus,
    /// The syntactic repairs it took to get this far; the host holds the repaired reply.
    pub fixes: Vec<Fix>,
    /// It breaks only the full schema: it keeps the contract's degraded one and every other gate.
    pub keeps_degraded: bool,
    /// How sure it is, 0 to 1, if anybody said.
    pub confidence: Option<f64>,
    /// It had to name sources.
    pub cites: bool,
    /// What judges and validators cost.
    pub cost: Usd,
}

impl Findings {
    /// Nothing is wrong and no structure was demanded.
    pub const CLEAN: Findings = Findings {
        problems: Vec::new(),
        schema: SchemaStatus::None,
        fixes: Vec::new(),
        keeps_degraded: false,
        confidence: None,
        cites: false,
        cost: Usd::ZERO,
    };
}

/// How a request is to be put to one target. The engine decides it, the wire performs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brief {
    /// What the model may do with tools.
    pub tool_mode: ToolMode,
    /// The output limit of each choice, where the money left allows less than the request asks for.
    pub max_output_tokens: Option<u32>,
    /// The input is to be shortened to so many tokens, by the wire's own estimate.
    pub shorten_to: Option<u32>,
    /// The model is to mend its own reply.
    pub mend: Option<Mend>,
}

impl Brief {
    /// Nothing beyond what the request and the target's dialect ask for.
    pub fn is_plain(&self) -> bool {
        *self == Brief::default()
    }
}

/// A model repair: the broken reply goes back with what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mend {
    /// The attempt whose reply is to be mended.
    pub attempt: u8,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}
