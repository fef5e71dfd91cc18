//! A model repair: the broken reply goes back with what is wrong with it, after the same conversation.

use outlast_model::{
    Failure, Mend,
    turn::{Extra, Part, Role, Turn},
};

/// The most characters of one violation. They are this crate's own words, and a schema's paths may be long.
const PROBLEM_CHARS_MAX: usize = 300;
/// The most violations named.
const PROBLEMS_MAX: usize = 8;

/// What the model is told: the violations by rule and place, and what to answer.
pub(crate) fn demand(mend: &Mend) -> String {
    let mut text = String::from("Your last reply cannot be used. It breaks these rules:\n");
    for problem in mend.problems.iter().take(PROBLEMS_MAX) {
        let rule = problem.gate.map_or(problem.failure.class(), |gate| gate.name());
        let what: String = problem.what.chars().take(PROBLEM_CHARS_MAX).collect();
        text += &format!("- {rule}: {what}\n");
    }
    text += "Answer the same request again so that every rule is kept. Use only what this conversation already says: the \
             same facts and the same sources, nothing added. Give the corrected answer and nothing else: no apology, no \
             comment";
    let is_structure = mend.problems.iter().any(|problem| problem.failure == Failure::SchemaError);
    text + if is_structure { ", no code fence." } else { "." }
}

/// The turns that come after the conversation: the broken reply, unless it has no text, and the demand.
pub(crate) fn turns(broken: &str, demand: String) -> Vec<Turn> {
    let turn = |role, text: Box<str>| Turn {
        role,
        parts: vec![Part::Text { text, extra: Extra::default() }],
        extra: Extra::default(),
    };
    let mut turns = Vec::with_capacity(2);
    if !broken.trim().is_empty() {
        turns.push(turn(Role::Assistant, broken.into()));
    }
    turns.push(turn(Role::User, demand.into()));
    turns
}
