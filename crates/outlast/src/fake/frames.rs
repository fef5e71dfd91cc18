//! A streamed reply, rendered once into one buffer and cut into its frames.

use bytes::Bytes;
use serde::Serialize;

/// What a frame means to whoever cuts the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Framing: the role, a block's start or end, a ping.
    Frame,
    /// Semantic output.
    Output,
    /// Semantic output that is part of a tool call.
    ToolOutput,
    /// Why it ended, and usage.
    Finish,
    /// The dialect's very last marker.
    Last,
}

impl Part {
    pub(super) fn is_output(self) -> bool {
        matches!(self, Part::Output | Part::ToolOutput)
    }
}

/// The frames of one stream.
pub(super) struct Frames {
    bytes: Vec<u8>,
    ends: Vec<(Part, usize)>,
}

impl Frames {
    pub(super) fn new(capacity_bytes: usize) -> Self {
        Frames { bytes: Vec::with_capacity(capacity_bytes), ends: Vec::with_capacity(32) }
    }

    pub(super) fn push(&mut self, part: Part, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push((part, self.bytes.len()));
    }

    /// The frames in order, all views of one buffer.
    pub(super) fn cut(self) -> impl Iterator<Item = (Part, Bytes)> {
        let mut bytes = Bytes::from(self.bytes);
        let mut start = 0;
        self.ends.into_iter().map(move |(part, end)| {
            let frame = bytes.split_to(end - start);
            start = end;
            (part, frame)
        })
    }

    pub(super) fn outputs(&self, wanted: impl Fn(Part) -> bool) -> u32 {
        u32::try_from(self.ends.iter().filter(|(part, _)| wanted(*part)).count()).unwrap_or(u32::MAX)
    }
}

/// Appends a value as JSON. Writing to memory cannot fail for the values used here: text, numbers and `Value`s.
pub(super) fn push_json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let start = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
}

/// Appends the unknown, deeply nested field, with the comma after it.
pub(super) fn push_deep(out: &mut Vec<u8>, depth: Option<u32>) {
    let Some(depth) = depth.and_then(|depth| usize::try_from(depth).ok()) else { return };
    out.extend_from_slice(b"\"x_deep\":");
    out.resize(out.len() + depth, b'[');
    out.resize(out.len() + depth, b']');
    out.push(b',');
}

/// Puts the deeply nested field first into a JSON object.
pub(super) fn deepen(body: &mut Vec<u8>, depth: Option<u32>) {
    if depth.is_some() && body.first() == Some(&b'{') {
        let mut deep = vec![b'{'];
        push_deep(&mut deep, depth);
        deep.extend_from_slice(&body[1..]);
        *body = deep;
    }
}
