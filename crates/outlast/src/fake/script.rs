//! What goes over the wire, step by step, and the HTTP body that plays it.

use super::{
    frames::{Frames, Part},
    log::OpenCall,
    server::Line,
};
use crate::clock::Sleep;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use outlast_drill::{
    Fault,
    fault::{CutAt, CutHow, Position},
};
use std::{
    collections::VecDeque,
    fmt,
    future::Future as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// One step of a body.
#[derive(Debug)]
pub(super) enum Step {
    Send(Bytes),
    Wait(Duration),
    /// Nothing more, until the client leaves.
    Hang,
    /// A TCP reset.
    Reset,
    /// A TCP close with the body incomplete.
    Close,
}

/// How fast output comes without any fault.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// Before the first output.
    pub(super) first: Duration,
    /// Between two outputs.
    pub(super) gap: Duration,
}

/// What a fault does at one place of a reply.
struct Break {
    /// Before the output that follows this many, or before the end.
    after: u32,
    steps: Vec<Step>,
    /// Nothing of the reply follows.
    stop: bool,
}

impl Break {
    /// `tool_outputs`: how many outputs of the reply are parts of tool calls.
    fn of(fault: &Fault, outputs: u32, tool_outputs: u32, raw: Raw<'_>) -> Option<Break> {
        let stop =
            |after: u32, step: Option<Step>| Some(Break { after, steps: step.into_iter().collect(), stop: true });
        match fault {
            Fault::Cut { at, how } => {
                let inside = if tool_outputs > 0 { outputs - tool_outputs + tool_outputs / 2 } else { outputs / 2 };
                let after = match at {
                    CutAt::Chunk(after) => *after,
                    CutAt::InsideTool => inside,
                };
                stop(
                    after,
                    match how {
                        CutHow::Reset => Some(Step::Reset),
                        CutHow::Close => Some(Step::Close),
                        CutHow::Eof => None,
                    },
                )
            }
            Fault::Hang(Position::AfterHeaders) => stop(0, Some(Step::Hang)),
            Fault::Reset(Position::AfterHeaders) => stop(0, Some(Step::Reset)),
            Fault::Stall { after } => stop(*after, Some(Step::Hang)),
            Fault::ErrorEvent { after } => stop(*after, Some(Step::Send(Bytes::copy_from_slice(raw.error)))),
            Fault::Empty { body: true } => stop(0, None),
            Fault::MalformedChunk { after } => {
                Some(Break { after: *after, steps: vec![Step::Send(Bytes::from_static(raw.malformed))], stop: false })
            }
            Fault::FirstToken(wait) => Some(Break { after: 0, steps: vec![Step::Wait(*wait)], stop: false }),
            Fault::Latency(_)
            | Fault::Hang(Position::BeforeHeaders)
            | Fault::RateLimit { .. }
            | Fault::Status { .. }
            | Fault::Reset(Position::BeforeHeaders)
            | Fault::Drip { .. }
            | Fault::NoTerminal { .. }
            | Fault::ErrorIn200
            | Fault::Empty { body: false }
            | Fault::InvalidJson
            | Fault::SchemaDrift
            | Fault::Refusal
            | Fault::ContentFilter
            | Fault::ContextExceeded
            | Fault::Truncated
            | Fault::Auth
            | Fault::Quota
            | Fault::AccessDenied(_)
            | Fault::UnsupportedTools
            | Fault::BadToolArgs
            | Fault::HugeLine { .. }
            | Fault::DeepJson { .. }
            | Fault::Say(_)
            | Fault::JsonSlip(_)
            | Fault::Wrong
            | Fault::Verbose { .. }
            | Fault::RefuseConnections => None,
        }
    }

    /// Not even the framing before the first output is sent.
    fn is_at_the_head(fault: Option<&Fault>) -> bool {
        matches!(
            fault,
            Some(
                Fault::Hang(Position::AfterHeaders)
                    | Fault::Reset(Position::AfterHeaders)
                    | Fault::Empty { body: true }
            )
        )
    }
}

/// Bytes of the dialect that faults put into a reply.
#[derive(Clone, Copy)]
pub(super) struct Raw<'a> {
    /// An error, as the stream reports it.
    pub(super) error: &'a [u8],
    /// A chunk that is no JSON.
    pub(super) malformed: &'static [u8],
}

/// The script of a streamed reply.
pub(super) fn streamed(frames: Frames, fault: Option<&Fault>, pace: Pace, raw: Raw<'_>) -> VecDeque<Step> {
    let outputs = frames.outputs(Part::is_output);
    let tool_outputs = frames.outputs(|part| part == Part::ToolOutput);
    let mut breaks = fault.and_then(|fault| Break::of(fault, outputs, tool_outputs, raw));
    let gap = if let Some(Fault::Drip { gap }) = fault { *gap } else { pace.gap };
    let mut steps = VecDeque::new();
    let mut sent = 0;
    for (part, frame) in frames.cut() {
        let here = part.is_output() || matches!(part, Part::Finish | Part::Last) || Break::is_at_the_head(fault);
        if here && let Some(broken) = breaks.take_if(|broken| sent >= broken.after || !part.is_output()) {
            steps.extend(broken.steps);
            if broken.stop {
                return steps;
            }
        }
        match part {
            Part::Output | Part::ToolOutput => {
                let wait = if sent == 0 { pace.first } else { gap };
                if !wait.is_zero() {
                    steps.push_back(Step::Wait(wait));
                }
                sent += 1;
            }
            Part::Last if matches!(fault, Some(Fault::NoTerminal { .. })) => continue,
            Part::Frame | Part::Finish | Part::Last => {}
        }
        steps.push_back(Step::Send(frame));
    }
    steps
}

/// The script of a whole reply taken as `parts` equal parts, and the length its head promises.
pub(super) fn whole(
    body: Bytes,
    parts: u32,
    fault: Option<&Fault>,
    pace: Pace,
    raw: Raw<'_>,
) -> (VecDeque<Step>, Option<u64>) {
    let mut steps = VecDeque::new();
    if !pace.first.is_zero() {
        steps.push_back(Step::Wait(pace.first));
    }
    if let Some(Fault::Drip { gap }) = fault {
        let size = body.len().div_ceil(usize::try_from(parts).unwrap_or(1).max(1)).max(1);
        for part in 0..body.len().div_ceil(size) {
            steps.push_back(Step::Send(body.slice(part * size..body.len().min((part + 1) * size))));
            steps.push_back(Step::Wait(*gap));
        }
        steps.pop_back();
        return (steps, Some(body.len() as u64));
    }
    let Some(broken) = fault.and_then(|fault| Break::of(fault, parts, 0, raw)) else {
        let length = body.len() as u64;
        steps.push_back(Step::Send(body));
        return (steps, Some(length));
    };
    let at =
        body.len() * usize::try_from(broken.after.min(parts)).unwrap_or(0) / usize::try_from(parts).unwrap_or(1).max(1);
    let at = at.min(body.len().saturating_sub(1));
    let (head, tail) = (body.slice(..at), body.slice(at..));
    if !head.is_empty() {
        steps.push_back(Step::Send(head));
    }
    let promised = (body.len() + if broken.stop { 0 } else { sent_bytes(&broken.steps) }) as u64;
    // A body that ends early but properly cannot have promised a length.
    let length = if broken.stop && broken.steps.is_empty() { None } else { Some(promised) };
    steps.extend(broken.steps);
    if !broken.stop {
        steps.push_back(Step::Send(tail));
    }
    (steps, length)
}

fn sent_bytes(steps: &[Step]) -> usize {
    let bytes = |step: &Step| match step {
        Step::Send(bytes) => bytes.len(),
        Step::Wait(_) | Step::Hang | Step::Reset | Step::Close => 0,
    };
    steps.iter().map(bytes).sum()
}

/// Ends the connection without a proper end of the message.
#[derive(Debug)]
pub(super) struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the fault breaks the connection here")
    }
}

impl std::error::Error for Broken {}

/// Plays a script. Each `Send` is flushed before the next step, as tokens come singly from a real provider.
pub(super) struct Play {
    steps: VecDeque<Step>,
    length: Option<u64>,
    sleep: Option<Pin<Box<Sleep>>>,
    flushed: bool,
    line: Option<Arc<Line>>,
    call: Option<OpenCall>,
}

impl Play {
    /// Sends `bytes` and ends.
    pub(super) fn bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let length = Some(bytes.len() as u64);
        Play { steps: VecDeque::from([Step::Send(bytes)]), length, sleep: None, flushed: true, line: None, call: None }
    }

    /// Plays a script on a connection, noting in the call's log entry how it ended.
    pub(super) fn script(steps: VecDeque<Step>, length: Option<u64>, line: Arc<Line>, call: OpenCall) -> Self {
        // A break right after the head must not take the head with it.
        let flushed = !matches!(steps.front(), Some(Step::Reset | Step::Close));
        Play { steps, length, sleep: None, flushed, line: Some(line), call: Some(call) }
    }

    /// Notes in `call` how it ended.
    pub(super) fn noted(mut self, call: OpenCall) -> Self {
        self.call = Some(call);
        self
    }
}

impl Body for Play {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        loop {
            if !this.flushed && !this.steps.is_empty() {
                // Pending makes hyper flush what it holds; the wake-up brings it back at once.
                this.flushed = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match this.steps.front() {
                None => return Poll::Ready(None),
                Some(Step::Send(_)) => {
                    let Some(Step::Send(bytes)) = this.steps.pop_front() else { return Poll::Ready(None) };
                    this.flushed = false;
                    if let Some(call) = &mut this.call {
                        call.sent(bytes.len());
                    }
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Step::Wait(time)) => {
                    let sleep = this.sleep.get_or_insert_with(|| Box::pin(crate::clock::sleep(*time)));
                    std::task::ready!(sleep.as_mut().poll(cx));
                    this.sleep = None;
                    this.steps.pop_front();
                }
                Some(Step::Hang) => return Poll::Pending,
                Some(Step::Reset | Step::Close) => {
                    if let (Some(Step::Reset), Some(line)) = (this.steps.front(), &this.line) {
                        line.reset_when_closed();
                    }
                    this.steps.clear();
                    return Poll::Ready(Some(Err(Broken)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Play {
    fn drop(&mut self) {
        if let Some(call) = &mut self.call
            && self.steps.is_empty()
        {
            call.all_sent();
        }
    }
}
