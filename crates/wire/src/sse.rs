//! Splits a byte stream into server-sent events without copying them.
//!
//! Lines end in LF, CRLF or CR, an empty line ends an event, and chunks may be cut anywhere. An event that lies in
//! one chunk is a slice of it; one that does not is put together once. A CR at the very end of a chunk waits for the
//! next chunk, which may begin with its LF.

use bytes::{Bytes, BytesMut};
use memchr::memchr2;
use std::{borrow::Cow, ops::Range};

/// The longest event. A longer one is a broken stream: nobody streams four megabytes in one step.
pub const EVENT_LEN_MAX: usize = 4 << 20;

/// An event is longer than [`EVENT_LEN_MAX`].
#[derive(Debug)]
pub(crate) struct TooLong;

/// Cuts chunks into events.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    /// Where events are cut from now.
    chunk: Bytes,
    at: usize,
    /// The beginning of an event whose end has not come yet, and how far it has been looked through for that end.
    carry: BytesMut,
    looked: Looked,
}

/// How far an unfinished event has been looked through. Without it a long line that comes in small chunks would be
/// searched from its start with each of them.
#[derive(Clone, Copy, Debug, Default)]
struct Looked {
    /// Where its open line starts.
    line: usize,
    /// Up to where that line has no end.
    until: usize,
}

/// One event within [`Splitter::chunk`]. Spans are of the chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    /// All of it, the empty line included.
    pub(crate) span: Range<usize>,
    /// The value of its `event` field; empty if it has none.
    pub(crate) event: Range<usize>,
    /// The value of its only `data` field, or of the first of several.
    data: Range<usize>,
    /// How many `data` fields it has.
    data_lines: u32,
}

impl Frame {
    /// Whether there is more to it than comments and field names.
    pub(crate) fn has_data(&self) -> bool {
        self.data_lines > 0
    }

    /// The event's data; `None` if it has none (a comment, a keep-alive).
    pub(crate) fn data<'a>(&self, chunk: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        match self.data_lines {
            0 => None,
            1 => Some(Cow::Borrowed(&chunk[self.data.clone()])),
            _ => {
                let mut joined = Vec::with_capacity(self.span.len());
                let mut lines = Lines::new(&chunk[..self.span.end], self.span.start);
                while let Some((line, _)) = lines.next() {
                    if let Some((name, value)) = field(chunk, line)
                        && name == b"data"
                    {
                        if !joined.is_empty() {
                            joined.push(b'\n');
                        }
                        joined.extend_from_slice(&chunk[value]);
                    }
                }
                Some(Cow::Owned(joined))
            }
        }
    }
}

impl Splitter {
    /// Takes the next chunk. All frames of the one before must have been taken out.
    pub(crate) fn push(&mut self, chunk: Bytes) -> Result<(), TooLong> {
        debug_assert!(self.at >= self.chunk.len(), "the chunk before was not read to its end");
        if self.carry.is_empty() {
            self.chunk = chunk;
            self.at = 0;
            return Ok(());
        }
        self.carry.extend_from_slice(&chunk);
        self.looked = match look_on(&self.carry, self.looked) {
            None => {
                self.chunk = self.carry.split().freeze();
                self.at = 0;
                Looked::default()
            }
            Some(looked) => looked,
        };
        if self.carry.len() > EVENT_LEN_MAX {
            return Err(TooLong);
        }
        Ok(())
    }

    /// The chunk that frames point into.
    pub(crate) fn chunk(&self) -> &Bytes {
        &self.chunk
    }

    /// The next whole event, if there is one.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, TooLong> {
        let mut frame = Frame::default();
        let mut lines = Lines::new(&self.chunk, self.at);
        while let Some((line, end)) = lines.next() {
            if line.is_empty() {
                if end - self.at > EVENT_LEN_MAX {
                    return Err(TooLong);
                }
                frame.span = self.at..end;
                self.at = end;
                return Ok(Some(frame));
            }
            note(&mut frame, &self.chunk, line);
        }
        if self.at < self.chunk.len() {
            self.carry.extend_from_slice(&self.chunk[self.at..]);
            self.at = self.chunk.len();
            self.looked = Looked::default();
            if self.carry.len() > EVENT_LEN_MAX {
                return Err(TooLong);
            }
        }
        Ok(None)
    }

    /// The stream ended. What is left without its empty line is given as a last event, completed by the line ends it
    /// lacks; many servers forget them after the last event.
    pub(crate) fn end(&mut self) -> Option<Frame> {
        if self.carry.is_empty() {
            return None;
        }
        let mut last = self.carry.split();
        let line_open = !matches!(last.last(), Some(b'\n' | b'\r'));
        last.extend_from_slice(if line_open { b"\n\n" } else { b"\n" });
        self.chunk = last.freeze();
        self.at = 0;
        self.next().ok().flatten()
    }
}

/// Notes what one line says.
fn note(frame: &mut Frame, chunk: &[u8], line: Range<usize>) {
    match field(chunk, line) {
        Some((b"data", value)) => {
            if frame.data_lines == 0 {
                frame.data = value;
            }
            frame.data_lines += 1;
        }
        Some((b"event", value)) => frame.event = value,
        Some(_) | None => {}
    }
}

/// A line's field name and the span of its value. Comments have an empty name.
fn field(chunk: &[u8], line: Range<usize>) -> Option<(&[u8], Range<usize>)> {
    let bytes = &chunk[line.clone()];
    let colon = bytes.iter().take(8).position(|&byte| byte == b':')?;
    let value = line.start + colon + 1;
    let value = if chunk.get(value) == Some(&b' ') && value < line.end { value + 1 } else { value };
    Some((&bytes[..colon], value..line.end))
}

/// Looks for the end of the first event; if there is none, tells where to look on.
fn look_on(bytes: &[u8], from: Looked) -> Option<Looked> {
    let mut lines = Lines { bytes, at: from.line, unsearched: from.until };
    while let Some((line, _)) = lines.next() {
        if line.is_empty() {
            return None;
        }
    }
    // A CR at the very end is an end of line only once the next byte is known.
    let until = bytes.len() - usize::from(bytes.ends_with(b"\r"));
    Some(Looked { line: lines.at, until: until.max(lines.at) })
}

/// Lines that are surely whole.
struct Lines<'a> {
    bytes: &'a [u8],
    /// Where the next line starts.
    at: usize,
    /// Before this it has no end.
    unsearched: usize,
}

impl<'a> Lines<'a> {
    fn new(bytes: &'a [u8], at: usize) -> Self {
        Lines { bytes, at, unsearched: at }
    }

    /// The next line without its end, and where the line after it starts.
    fn next(&mut self) -> Option<(Range<usize>, usize)> {
        let end = self.unsearched + memchr2(b'\n', b'\r', self.bytes.get(self.unsearched..)?)?;
        let next = match (self.bytes[end], self.bytes.get(end + 1)) {
            (b'\r', Some(b'\n')) => end + 2,
            (b'\r', None) => return None,
            _ => end + 1,
        };
        let start = std::mem::replace(&mut self.at, next);
        self.unsearched = next;
        Some((start..end, next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Event = (Vec<u8>, Option<Vec<u8>>);

    fn events(chunks: impl IntoIterator<Item = Vec<u8>>) -> (Vec<Event>, Vec<u8>) {
        let mut splitter = Splitter::default();
        let (mut found, mut raw) = (Vec::new(), Vec::new());
        let mut take = |chunk: &Bytes, frame: &Frame| {
            raw.extend_from_slice(&chunk[frame.span.clone()]);
            found.push((chunk[frame.event.clone()].to_vec(), frame.data(chunk).map(Cow::into_owned)));
        };
        for chunk in chunks {
            splitter.push(chunk.into()).unwrap();
            while let Some(frame) = splitter.next().unwrap() {
                take(splitter.chunk(), &frame);
            }
        }
        if let Some(frame) = splitter.end() {
            take(splitter.chunk(), &frame);
        }
        (found, raw)
    }

    #[test]
    fn every_line_end_and_comments_are_understood() {
        let stream = ": hi\n\nevent: a\r\ndata: 1\r\n\r\ndata:2\rdata: 3\r\rid: 7\n\nevent:b\ndata\n\ndata: [DONE]";
        let (found, raw) = events([stream.into()]);
        let text =
            |event: &str, data: Option<&str>| (event.as_bytes().to_vec(), data.map(|data| data.as_bytes().to_vec()));
        assert_eq!(
            found,
            [
                text("", None),
                text("a", Some("1")),
                text("", Some("2\n3")),
                text("", None),
                text("b", None),
                text("", Some("[DONE]"))
            ]
        );
        assert_eq!(raw, [stream.as_bytes(), b"\n\n"].concat());
    }

    #[test]
    fn an_endless_event_is_cut_off() {
        let mut splitter = Splitter::default();
        let mut pushed = 0;
        let failed = (0..).any(|_| {
            pushed += 1 << 16;
            splitter.push(vec![b'x'; 1 << 16].into()).and_then(|()| splitter.next()).is_err()
        });
        assert!(failed && pushed <= EVENT_LEN_MAX + (1 << 17));
    }

    proptest! {
        #[test]
        fn events_are_the_same_wherever_the_chunks_are_cut(
            parts in prop::collection::vec(prop::sample::select(vec!["data: a", "data:b", "event: x", ": c", "\n", "\r\n", "\r", "\n\n", "zz"]), 0..40),
            cuts in prop::collection::vec(1usize..9, 1..40),
        ) {
            let stream = parts.concat().into_bytes();
            let whole = events([stream.clone()]);
            let mut chunks = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (chunk, later) = rest.split_at((*cut).min(rest.len()));
                chunks.push(chunk.to_vec());
                rest = later;
            }
            prop_assert_eq!(events(chunks), whole);
        }

        #[test]
        fn arbitrary_bytes_never_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..9)) {
            events(chunks);
        }
    }
}
