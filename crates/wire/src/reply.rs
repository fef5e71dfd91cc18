//! Whole replies.

use crate::Inbound;
use bytes::Bytes;
use outlast_model::{
    FailureReport,
    policy::Dialect,
    turn::{Finish, Usage},
};

/// What a reply said, for the checks. One per choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The text, all text parts joined.
    pub text: String,
    /// How the model declined, in its own field.
    pub refusal: String,
    /// There was reasoning.
    pub reasoned: bool,
    /// The tool calls: name and arguments (JSON text that has been parsed once).
    pub tool_calls: Vec<(String, String)>,
    /// There was output this form has no word for: audio, a server tool's result...
    pub opaque: bool,
    /// Why it ended.
    pub finish: Option<Finish>,
}

/// A whole reply, ready for the client.
#[derive(Clone, Debug)]
pub struct Reply {
    /// In the client's dialect; same dialect: as it came.
    pub body: Bytes,
    /// What it consumed; estimated when the provider does not say.
    pub usage: Usage,
    /// Why it ended.
    pub finish: Option<Finish>,
    /// What it said.
    pub answers: Vec<Answer>,
}

/// Reads the body of a 2xx response that is not a stream.
/// # Errors
/// `malformed_reply` when it is not a reply of that dialect, `tool_mismatch` when a tool call's arguments are not
/// JSON, or what the error inside it is classified as.
pub fn read(_upstream: Dialect, _client: &Inbound, _body: Bytes) -> Result<Reply, FailureReport> {
    unimplemented!("the reader is in the next commit")
}
