//! Replies in no dialect: what a backstop says, what a store keeps, what a repair changed.

use outlast_model::turn::{Finish, Usage};
use serde::{Deserialize, Serialize};

/// A whole reply of one choice, in no dialect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// The provider's id of it.
    pub id: String,
    /// The model that answered, in the provider's words.
    pub model: String,
    /// The text, all text parts joined.
    pub text: String,
    /// The tools it calls.
    pub tool_calls: Vec<Called>,
    /// Why it ended.
    pub finish: Finish,
    /// What it consumed.
    pub usage: Usage,
}

/// A tool call of a [`Said`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Called {
    /// Pairs it with its result.
    pub id: String,
    /// The tool.
    pub name: String,
    /// The arguments as JSON text.
    pub arguments: String,
}
