//! Plans: what a model would do with tools, as data.

use serde::Serialize;
use serde_json::Value;

/// A tool call that was not made.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Intent {
    /// The tool.
    pub tool: String,
    /// Its arguments.
    pub arguments: Value,
    /// Why, in the model's words.
    pub reason: Option<String>,
    /// What has to happen first: always `required`.
    pub approval: &'static str,
    /// The ids of the sources it rests on.
    pub evidence: Vec<String>,
}
