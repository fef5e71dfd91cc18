//! One hub form for requests, replies and stream deltas, whatever the dialect.

use serde::{Deserialize, Serialize};

/// What a reply consumed, as the provider reported it or as estimated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// All input tokens, cached ones included.
    pub input_tokens: u32,
    /// All output tokens, reasoning included.
    pub output_tokens: u32,
    /// Of the input, read from the provider's cache.
    pub cache_read_tokens: u32,
    /// Of the input, written to the provider's cache.
    pub cache_write_tokens: u32,
    /// Of the output, spent on reasoning.
    pub reasoning_tokens: u32,
    /// True when the numbers are our estimate, not the provider's word.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
}

/// Why a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model was done, or met a stop sequence.
    Stop,
    /// The output limit was reached.
    Length,
    /// The model wants tools run.
    ToolCalls,
    /// A content filter cut or withheld the reply.
    ContentFilter,
    /// The model declined.
    Refusal,
    /// A reason only that provider knows; passed on as it is.
    Other,
}
