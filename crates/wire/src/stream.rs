//! Streamed replies.

use crate::{Answer, Inbound};
use bytes::Bytes;
use outlast_model::{
    FailureReport,
    policy::Dialect,
    turn::{Finish, Usage},
};

/// Some of a stream, ready for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// In the client's dialect; whole frames. May be empty: then only the kind matters.
    pub bytes: Bytes,
    /// What it means for the call.
    pub kind: PieceKind,
}

/// What a piece means for the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceKind {
    /// Not semantic: the role chunk, `message_start`, comments, pings.
    Preamble,
    /// Semantic output.
    Output {
        /// Estimated tokens in it; at least 1.
        tokens: u32,
    },
    /// Output has come that is not shown yet, because a tool call in it is not whole. Bytes are empty.
    Held,
    /// The end: finish reason, usage, `[DONE]`. Withheld until the reply has been checked.
    Terminal,
}

/// How a stream ended that ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEnd {
    /// What it consumed.
    pub usage: Usage,
    /// Why it ended.
    pub finish: Option<Finish>,
}

/// Reads one upstream stream and makes the client's of it.
#[derive(Debug)]
pub struct StreamReader {}

impl StreamReader {
    /// A reader for one attempt. `strip_usage` as [`crate::Adapted`] says; `collect`: keep the text for
    /// `check::stream` (needed only when the output must be validated; see [`StreamReader::answers`]).
    pub fn new(_upstream: Dialect, _client: &Inbound, _strip_usage: bool, _collect: bool) -> Self {
        unimplemented!("the reader is in the next commit")
    }

    /// Takes the next chunk of the response body, cut anywhere, and appends what the client may get of it.
    /// # Errors
    /// `malformed_reply`, `tool_mismatch`, or what an error event in the stream is classified as. The reader is
    /// spent then; [`StreamReader::usage`] still tells what is known.
    pub fn push(&mut self, _chunk: Bytes, _out: &mut Vec<Piece>) -> Result<(), FailureReport> {
        unimplemented!("the reader is in the next commit")
    }

    /// The body ended.
    /// # Errors
    /// `stream_interrupted` when the reply was not whole, `empty` when nothing had come at all.
    pub fn end(&mut self, _out: &mut Vec<Piece>) -> Result<StreamEnd, FailureReport> {
        unimplemented!("the reader is in the next commit")
    }

    /// The dialect's terminal mark has been seen: nothing more will come, the host need not wait for the end of the body.
    pub fn terminal_seen(&self) -> bool {
        unimplemented!("the reader is in the next commit")
    }

    /// What has been consumed, as far as known; estimated from what was seen when the provider has not said.
    pub fn usage(&self) -> Usage {
        unimplemented!("the reader is in the next commit")
    }

    /// Why the reply ended, once that is known.
    pub fn finish(&self) -> Option<Finish> {
        unimplemented!("the reader is in the next commit")
    }

    /// What the reply said, per choice. Texts are empty unless the reader collects.
    pub fn answers(&self) -> &[Answer] {
        unimplemented!("the reader is in the next commit")
    }

    /// Text was left out of [`StreamReader::answers`] because it passed the limit.
    pub fn overflowed(&self) -> bool {
        unimplemented!("the reader is in the next commit")
    }
}
