//! Streamed replies: upstream frames in, the client's frames out.
//!
//! Same dialect: a frame is glanced at and forwarded byte for byte. Other dialect: its deltas go to the client's
//! encoder. Either way a tool call is held back until its arguments are whole JSON, and what is shown is told apart
//! from what only announces or ends a reply, so that the host can find the commit point and withhold the end.

use crate::{
    Answer, Inbound, anthropic, classify, compose, openai_chat, reply,
    said::{Said, Seen, ToolSlot},
    sse::{Frame, Splitter, TooLong},
};
use bytes::{Bytes, BytesMut};
use outlast_model::{
    Failure, FailureReport, Wall,
    policy::Dialect,
    turn::{Delta, Finish, Usage},
};
use std::ops::Range;

/// The most bytes of frames held back while a tool call is not whole. More is a `malformed_reply`.
pub const HELD_BYTES_MAX: usize = 8 << 20;

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

/// Why a frame cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// It cannot be decoded, or is too long.
    Malformed,
    /// A tool call's arguments are not JSON.
    Tool,
    /// The output limit cut a tool call's arguments.
    Truncated,
    /// A content filter cut a tool call's arguments.
    Filtered,
    /// The provider reports an error in it.
    ErrorInside,
    /// The finish reason itself is a failure.
    Ended(Failure),
    /// The terminal mark came before the reply was whole.
    Unfinished,
}

impl From<TooLong> for Broken {
    fn from(_: TooLong) -> Self {
        Broken::Malformed
    }
}

/// Reads one upstream stream and makes the client's of it.
#[derive(Debug)]
pub struct StreamReader {
    upstream: Dialect,
    /// The client did not ask for the usage chunk that we asked the provider for.
    strip_usage: bool,
    splitter: Splitter,
    decoder: Decoder,
    /// Present when the stream crosses.
    encoder: Option<Encoder>,
    said: Said,
    /// Same dialect: frames held back while a tool call is not whole, and the tokens in them.
    held: BytesMut,
    held_tokens: u32,
    input_estimate: u32,
    /// Something has been read that is not a comment.
    begun: bool,
    ended: bool,
}

#[derive(Debug)]
enum Decoder {
    OpenaiChat(openai_chat::Decoder),
    Anthropic(anthropic::Decoder),
}

#[derive(Debug)]
enum Encoder {
    OpenaiChat(openai_chat::Encoder),
    Anthropic(anthropic::Encoder),
}

/// What comes out of one push: neighbours of one kind go out as one piece.
struct Run<'a> {
    chunk: Bytes,
    /// Same dialect: frames of the chunk. Crossing: frames of our own.
    span: Range<usize>,
    written: Vec<u8>,
    kind: Option<PieceKind>,
    /// Something was held back.
    held: bool,
    out: &'a mut Vec<Piece>,
}

impl StreamReader {
    /// A reader for one attempt. `strip_usage` as [`crate::Adapted`] says; `collect`: keep the text for
    /// `check::stream` (needed only when the output must be validated; see [`StreamReader::answers`]).
    pub fn new(upstream: Dialect, client: &Inbound, strip_usage: bool, collect: bool) -> Self {
        let crosses = upstream != client.dialect();
        StreamReader {
            upstream,
            strip_usage,
            splitter: Splitter::default(),
            decoder: match upstream {
                Dialect::OpenaiChat => Decoder::OpenaiChat(openai_chat::Decoder::new(crosses || collect)),
                Dialect::Anthropic => Decoder::Anthropic(anthropic::Decoder::default()),
            },
            encoder: crosses.then(|| match client.dialect() {
                Dialect::OpenaiChat => Encoder::OpenaiChat(openai_chat::Encoder::new(client)),
                Dialect::Anthropic => Encoder::Anthropic(anthropic::Encoder::new(client)),
            }),
            said: Said::new(client.choices(), collect),
            held: BytesMut::new(),
            held_tokens: 0,
            input_estimate: client.input_tokens(),
            begun: false,
            ended: false,
        }
    }

    /// Takes the next chunk of the response body, cut anywhere, and appends what the client may get of it.
    /// # Errors
    /// `malformed_reply`; `tool_mismatch` when a tool call's arguments are not JSON (`truncated` when the output limit
    /// cut them); `stream_interrupted` when the terminal mark comes too early; or what an error event in the stream is
    /// classified as. The reader is spent then; [`StreamReader::usage`] still tells what is known, and pieces appended
    /// before the error are good.
    pub fn push(&mut self, chunk: Bytes, out: &mut Vec<Piece>) -> Result<(), FailureReport> {
        if self.ended {
            // What follows the terminal mark is not the reply's.
            return Ok(());
        }
        self.splitter.push(chunk).map_err(|_| FailureReport::of(Failure::MalformedReply))?;
        let mut run = Run::new(self.splitter.chunk().clone(), out);
        let result = loop {
            match self.splitter.next() {
                Ok(Some(frame)) => match self.frame(&frame, &mut run) {
                    Ok(()) if self.ended => break Ok(()),
                    Ok(()) => {}
                    Err(broken) => break Err(self.report(broken, &frame, &run.chunk)),
                },
                Ok(None) => break Ok(()),
                Err(TooLong) => break Err(FailureReport::of(Failure::MalformedReply)),
            }
        };
        run.finish();
        result
    }

    /// The body ended.
    /// # Errors
    /// `stream_interrupted` when the reply was not whole, `empty` when nothing had come at all; and as
    /// [`StreamReader::push`] for what was left in the buffer.
    pub fn end(&mut self, out: &mut Vec<Piece>) -> Result<StreamEnd, FailureReport> {
        if !self.ended
            && let Some(frame) = self.splitter.end()
        {
            self.last_frame(&frame, out)?;
        }
        if !self.ended {
            // Some OpenAI-compatible servers forget `[DONE]`; a finish reason for every choice is as good.
            let whole = self.upstream == Dialect::OpenaiChat && self.said.all_finished();
            if !whole {
                return Err(self.cut());
            }
            self.ended = true;
            let bytes = match self.encoder {
                None => Bytes::from_static(b"data: [DONE]\n\n"),
                Some(_) => self.closing(),
            };
            out.push(Piece { bytes, kind: PieceKind::Terminal });
        }
        Ok(StreamEnd { usage: self.usage(), finish: self.finish() })
    }

    /// What was left in the buffer when the body ended.
    fn last_frame(&mut self, frame: &Frame, out: &mut Vec<Piece>) -> Result<(), FailureReport> {
        let chunk = self.splitter.chunk().clone();
        if !frame.has_data() {
            let rest = chunk[frame.span.clone()].trim_ascii();
            if !self.begun && rest.starts_with(b"{") {
                // Not a stream at all: some servers answer an error with 200, whatever was asked for.
                return Err(classify::response(200, |_| None, rest, Wall::default()));
            }
            return Ok(());
        }
        let mut run = Run::new(chunk.clone(), out);
        let result = self.frame(frame, &mut run);
        run.held = false;
        run.finish();
        match result {
            // Half a frame is what a cut looks like; whether the reply was whole before it is seen next.
            Ok(()) | Err(Broken::Malformed) => Ok(()),
            Err(broken) => Err(self.report(broken, frame, &chunk)),
        }
    }

    /// The dialect's terminal mark has been seen: nothing more will come, the host need not wait for the end of the
    /// body (but must still call [`StreamReader::end`]).
    pub fn terminal_seen(&self) -> bool {
        self.ended
    }

    /// What has been consumed, as far as known; estimated from what was seen when the provider has not said.
    pub fn usage(&self) -> Usage {
        self.said.usage(self.input_estimate)
    }

    /// Why the reply ended, once that is known. A refusal in its own field counts as one.
    pub fn finish(&self) -> Option<Finish> {
        self.said.finish()
    }

    /// What the reply said, per choice. Texts are empty unless the reader collects; tool calls are always there.
    pub fn answers(&self) -> &[Answer] {
        self.said.answers()
    }

    /// What its first choice said, in no dialect. Text, id and model are there only if the reader collects.
    pub fn said(&self) -> compose::Said {
        self.said.told(self.usage())
    }

    /// Text was left out of [`StreamReader::answers`] because it passed [`crate::COLLECT_BYTES_MAX`].
    pub fn overflowed(&self) -> bool {
        self.said.overflowed()
    }

    fn cut(&self) -> FailureReport {
        FailureReport::of(if self.begun { Failure::StreamInterrupted } else { Failure::Empty })
    }

    fn report(&self, broken: Broken, frame: &Frame, chunk: &[u8]) -> FailureReport {
        match broken {
            Broken::Unfinished => self.cut(),
            Broken::Malformed
            | Broken::Tool
            | Broken::Truncated
            | Broken::Filtered
            | Broken::Ended(_)
            | Broken::ErrorInside => reply::report(broken, &frame.data(chunk).unwrap_or_default()),
        }
    }

    fn frame(&mut self, frame: &Frame, run: &mut Run<'_>) -> Result<(), Broken> {
        let Some(data) = frame.data(&run.chunk) else {
            // A comment or a keep-alive, legal in every dialect. It keeps its place.
            return self.forward(frame, &Seen::default(), run);
        };
        if run.chunk[frame.event.clone()] == *b"error" {
            return Err(Broken::ErrorInside);
        }
        let data = std::str::from_utf8(&data).map_err(|_| Broken::Malformed)?;
        let mut seen = Seen::default();
        let mut written = Vec::new();
        let said = &mut self.said;
        match &mut self.encoder {
            None => self.decoder.decode(data, |choice, delta| said.note(choice, &delta, &mut seen, |_| {}))?,
            Some(encoder) => {
                let mut shown = false;
                self.decoder.decode(data, |choice, delta| {
                    said.note(choice, &delta, &mut seen, |call| {
                        shown = true;
                        encoder.tool_call(call, &mut written);
                    })?;
                    encoder.delta(&delta, &mut written);
                    Ok(())
                })?;
                seen.output |= shown;
            }
        }
        self.begun = true;
        self.said.counted(&seen);
        if seen.done && !self.said.whole() {
            return Err(Broken::Unfinished);
        }
        if self.encoder.is_none() {
            return self.forward(frame, &seen, run);
        }
        run.write(written, &seen);
        run.held |= self.said.open_tools() > 0;
        if seen.done {
            self.ended = true;
            let bytes = self.closing();
            run.piece(bytes, PieceKind::Terminal);
        }
        Ok(())
    }

    /// Crossing: the frames that end the reply.
    fn closing(&mut self) -> Bytes {
        let (usage, finish) = (self.usage(), self.finish());
        let mut bytes = Vec::new();
        match &mut self.encoder {
            Some(Encoder::OpenaiChat(encoder)) => encoder.close(&usage, finish, &mut bytes),
            Some(Encoder::Anthropic(encoder)) => encoder.close(&usage, finish, &mut bytes),
            None => {}
        }
        bytes.into()
    }

    /// Same dialect: forwards, holds back or strips a frame.
    fn forward(&mut self, frame: &Frame, seen: &Seen, run: &mut Run<'_>) -> Result<(), Broken> {
        let open = self.said.open_tools();
        if open == seen.opened {
            // No call from before this frame is open any more.
            self.release(run);
        }
        if self.said.all_finished() || seen.done {
            self.release(run);
            self.ended |= seen.done;
            if seen.output {
                // Output and end in one frame: the call must know of the first, the client must wait for the second.
                run.piece(Bytes::new(), PieceKind::Output { tokens: seen.tokens.max(1) });
            }
            let strip = self.strip_usage && seen.usage && !seen.finish && !seen.output;
            if !strip {
                run.add(frame, PieceKind::Terminal);
            }
            return Ok(());
        }
        if self.strip_usage && seen.usage && self.decoder.bare() {
            return Ok(());
        }
        if open > 0 {
            if self.held.len() + frame.span.len() > HELD_BYTES_MAX {
                return Err(Broken::Malformed);
            }
            self.held.extend_from_slice(&run.chunk[frame.span.clone()]);
            self.held_tokens = self.held_tokens.saturating_add(seen.tokens);
            run.held = true;
            return Ok(());
        }
        run.add(frame, seen.kind());
        Ok(())
    }

    fn release(&mut self, run: &mut Run<'_>) {
        if !self.held.is_empty() {
            run.piece(self.held.split().freeze(), PieceKind::Output { tokens: self.held_tokens.max(1) });
            self.held_tokens = 0;
            run.held = false;
        }
    }
}

impl Decoder {
    /// The last frame was there for its usage only.
    fn bare(&self) -> bool {
        match self {
            Decoder::OpenaiChat(decoder) => decoder.bare,
            Decoder::Anthropic(_) => false,
        }
    }

    fn decode<'a>(
        &mut self,
        data: &'a str,
        sink: impl FnMut(u32, Delta<'a>) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        match self {
            Decoder::OpenaiChat(decoder) => decoder.decode(data, sink),
            Decoder::Anthropic(decoder) => decoder.decode(data, sink),
        }
    }
}

impl Encoder {
    fn delta(&mut self, delta: &Delta<'_>, out: &mut Vec<u8>) {
        match self {
            Encoder::OpenaiChat(encoder) => encoder.delta(delta, out),
            Encoder::Anthropic(encoder) => encoder.delta(delta, out),
        }
    }

    fn tool_call(&mut self, call: &ToolSlot, out: &mut Vec<u8>) {
        match self {
            Encoder::OpenaiChat(encoder) => encoder.tool_call(call, out),
            Encoder::Anthropic(encoder) => encoder.tool_call(call, out),
        }
    }
}

impl Seen {
    fn kind(&self) -> PieceKind {
        if self.output { PieceKind::Output { tokens: self.tokens.max(1) } } else { PieceKind::Preamble }
    }
}

impl<'a> Run<'a> {
    fn new(chunk: Bytes, out: &'a mut Vec<Piece>) -> Self {
        Run { chunk, span: 0..0, written: Vec::new(), kind: None, held: false, out }
    }

    /// A frame of the chunk, as it is.
    fn add(&mut self, frame: &Frame, kind: PieceKind) {
        if self.span.end == frame.span.start && self.joins(kind) {
            self.span.end = frame.span.end;
        } else {
            self.flush();
            self.span = frame.span.clone();
            self.kind = Some(kind);
        }
    }

    /// Frames of our own.
    fn write(&mut self, bytes: Vec<u8>, seen: &Seen) {
        if bytes.is_empty() {
            return;
        }
        let kind = seen.kind();
        if self.joins(kind) {
            self.written.extend_from_slice(&bytes);
        } else {
            self.flush();
            self.written = bytes;
            self.kind = Some(kind);
        }
    }

    /// Whether a piece of this kind may be put to the one before; if so its tokens are added.
    fn joins(&mut self, kind: PieceKind) -> bool {
        match (&mut self.kind, kind) {
            (Some(PieceKind::Output { tokens }), PieceKind::Output { tokens: more }) => {
                *tokens = tokens.saturating_add(more);
                true
            }
            (Some(one), other) => *one == other,
            (None, _) => false,
        }
    }

    fn piece(&mut self, bytes: Bytes, kind: PieceKind) {
        self.flush();
        self.out.push(Piece { bytes, kind });
    }

    fn flush(&mut self) {
        let Some(kind) = self.kind.take() else { return };
        let bytes = if self.written.is_empty() {
            self.chunk.slice(std::mem::take(&mut self.span))
        } else {
            std::mem::take(&mut self.written).into()
        };
        self.out.push(Piece { bytes, kind });
    }

    fn finish(mut self) {
        self.flush();
        if self.held {
            self.out.push(Piece { bytes: Bytes::new(), kind: PieceKind::Held });
        }
    }
}
