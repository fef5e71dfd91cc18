//! A request as it came in.

use bytes::Bytes;
use outlast_model::{
    policy::{Dialect, Needs},
    turn::OutputFormat,
};

/// A client's request, read once at its top level. Immutable, cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Inbound {
    dialect: Dialect,
    body: Bytes,
}

/// Why a request cannot be read. The client's fault: an `invalid_request`, HTTP 400.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestError {
    /// What, where, why and what to do, in one line. Holds field names and positions, never values.
    pub message: String,
    /// The field at fault, if one is.
    pub param: Option<&'static str>,
}

/// What an adaptation is for.
#[derive(Clone, Copy, Debug)]
pub struct Adapt<'a> {
    /// What the target speaks.
    pub dialect: Dialect,
    /// The target's name of the model.
    pub model: &'a str,
    /// The most output tokens the target can write, if known. Anthropic demands a limit; see `docs/crossings.md`.
    pub max_output: Option<u32>,
    /// Whether `stream_options.include_usage` may be added to an OpenAI stream. False for servers that reject it.
    pub ask_usage: bool,
}

/// A request ready for a target.
#[derive(Clone, Debug)]
pub struct Adapted {
    /// The body, in order. Same dialect: slices of the client's body around the edits.
    pub body: Vec<Bytes>,
    /// More than splicing was done: what the target rejects may be our doing.
    pub adapted: bool,
    /// The usage chunk was not asked for by the client: give this to [`crate::StreamReader::new`].
    pub strip_usage: bool,
}

impl Adapted {
    /// The body's length, for `content-length`.
    pub fn len(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }

    /// True when there is no body; it never is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What this request says that the target's dialect cannot. Never sent; the plan leaves such targets out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// Names of [`crate::crossing`]'s features.
    pub features: Vec<&'static str>,
}

impl Inbound {
    /// Reads a request's top level.
    /// # Errors
    /// When it is not one JSON object with a `model` and `messages`, nests too deep, or says a field twice.
    pub fn parse(dialect: Dialect, body: Bytes) -> Result<Inbound, RequestError> {
        Ok(Inbound { dialect, body })
    }

    /// Notes when the request came, in seconds since the Unix epoch; replies that must carry a time carry this one.
    pub fn received_at(self, _unix_secs: u64) -> Self {
        self
    }

    /// What the client speaks.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The body as it came.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// What the client named as `model`.
    pub fn model(&self) -> &str {
        unimplemented!("the reader is in the next commit")
    }

    /// Whether the client wants a stream.
    pub fn stream(&self) -> bool {
        unimplemented!("the reader is in the next commit")
    }

    /// How many choices it asks for; OpenAI's `n`.
    pub fn choices(&self) -> u32 {
        unimplemented!("the reader is in the next commit")
    }

    /// The structure it demands of the reply's text.
    pub fn output(&self) -> &OutputFormat {
        unimplemented!("the reader is in the next commit")
    }

    /// What it needs of a target.
    pub fn needs(&self) -> Needs {
        unimplemented!("the reader is in the next commit")
    }

    /// Makes it ready for a target.
    /// # Errors
    /// When the target's dialect cannot say what this request says.
    pub fn adapt(&self, _to: &Adapt<'_>) -> Result<Adapted, Unsupported> {
        unimplemented!("the reader is in the next commit")
    }
}
