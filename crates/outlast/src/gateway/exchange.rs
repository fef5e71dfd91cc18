//! One attempt on the wire: the request that was sent and what has come back of it. Polled by the
//! drive loop, dropped to abort.

use super::{
    Shared,
    body::Pieces,
    live::Target,
    pool::{Reply, SendError},
    upstream::{self, Sending, media_type},
};
use crate::clock;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Body;
use outlast_engine::Spent;
use outlast_model::{
    Brief, Failure, FailureReport, Findings, Problem,
    policy::ToolMode,
    turn::{Finish, OutputFormat, Usage},
};
use outlast_wire::{
    Inbound, Piece, PieceKind, Put, StreamReader, check, classify, compose::Said, contract::Gates, plan::Intent, reply,
};
use std::{future::poll_fn, pin::Pin, sync::Arc, task::ready, time::Duration};

/// The longest error body that is read; what is longer is classified by its beginning.
const ERROR_BODY_MAX: usize = 64 << 10;
/// The longest whole reply, and the most of a stream that is held before it is released. Past it the attempt
/// fails as `malformed_reply`.
const REPLY_MAX: usize = 32 << 20;
/// How long a connection may take to end its body after the terminal event, to be used again.
const TAIL_PATIENCE: Duration = Duration::from_millis(20);

/// What the drive loop learns from an exchange.
pub(super) enum Seen {
    /// The head of a successful response.
    Headers,
    /// Output, or the first sign of it.
    Output { tokens: u32, releasable: bool },
    /// The whole reply.
    Ended { finish: Option<Finish> },
    /// A failure.
    Failed(FailureReport),
}

/// What is to be sent, beside the request itself.
pub(super) struct Order {
    /// The attempt's number in the call.
    pub(super) attempt: u8,
    /// With which of the provider's keys.
    pub(super) key: u8,
    /// Headers beside the target's own.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// How it is to be put.
    pub(super) brief: Brief,
    /// The reply that is to be mended.
    pub(super) mend: Option<String>,
    /// Whether a stream's text is needed once it is whole.
    pub(super) collect: bool,
    /// Whether a stream's tool calls are withheld until its end is written down.
    pub(super) withhold_tools: bool,
}

/// One attempt on the wire.
pub(super) struct Exchange {
    /// Its number in the call.
    pub(super) attempt: u8,
    target: Arc<Target>,
    inbound: Arc<Inbound>,
    shared: Arc<Shared>,
    adapted: bool,
    strip_usage: bool,
    brief: Brief,
    collect: bool,
    withhold_tools: bool,
    phase: Phase,
    bytes_out: u64,
    bytes_in: u64,
    pieces: Vec<Piece>,
    /// What the client may have before the terminal part, not yet taken.
    ready: Vec<Bytes>,
    ready_bytes: usize,
    /// What comes between that and the terminal part, from the first tool call on, where tool calls are withheld.
    withheld: Vec<Bytes>,
    terminal: Vec<Bytes>,
    reply: Option<reply::Reply>,
    /// What is delivered in the reply's place: it was repaired, or its tool calls became a plan.
    instead: Option<Box<Said>>,
    plan: Option<Vec<Intent>>,
    /// The provider's own error, for a client whose fault it was.
    refused: Option<(StatusCode, Bytes)>,
}

enum Phase {
    Sending(Sending),
    Refused {
        head: http::response::Parts,
        body: Reply,
        read: BytesMut,
    },
    Whole {
        body: Reply,
        read: Gather,
    },
    Stream {
        body: Reply,
        reader: Box<StreamReader>,
    },
    /// Nothing more happens. The reader of a stream stays: it knows the usage. The body of one that ended well stays for
    /// [`Exchange::finish_body`].
    Done {
        reader: Option<Box<StreamReader>>,
        body: Option<Reply>,
    },
}

/// Collects a body; a body of one frame is never copied.
#[derive(Default)]
struct Gather {
    first: Bytes,
    more: BytesMut,
}

impl Gather {
    fn push(&mut self, chunk: Bytes) {
        if self.first.is_empty() {
            self.first = chunk;
        } else {
            self.more.extend_from_slice(&chunk);
        }
    }

    fn len(&self) -> usize {
        self.first.len() + self.more.len()
    }

    fn finish(self) -> Bytes {
        if self.more.is_empty() {
            return self.first;
        }
        let mut whole = BytesMut::with_capacity(self.len());
        whole.extend_from_slice(&self.first);
        whole.extend_from_slice(&self.more);
        whole.freeze()
    }
}

impl Exchange {
    /// Adapts the request and sends it.
    ///
    /// # Errors
    /// `unsupported` when the target's dialect cannot say it. The plan leaves such targets out, so this is rare.
    pub(super) fn start(
        shared: Arc<Shared>,
        target: Arc<Target>,
        inbound: Arc<Inbound>,
        gates: &Gates,
        order: Order,
    ) -> Result<Self, FailureReport> {
        let Order { attempt, key, headers, brief, mend, collect, withhold_tools } = order;
        let capabilities = &target.spec.capabilities;
        let put = Put {
            brief: &brief,
            contract: gates.contract(),
            native_schema: capabilities.json_schema,
            can_call_tools: capabilities.tools,
            mend: mend.as_deref(),
        };
        let adapted = inbound.adapt(&target.adapt(put)).map_err(|lost| FailureReport::of(lost.failure()))?;
        let body = Pieces::of(adapted.body);
        let bytes_out = body.len();
        let sending = target.endpoint.send(key, headers, body);
        let collect = collect || brief.tool_mode != ToolMode::Full || !matches!(inbound.output(), OutputFormat::Text);
        Ok(Exchange {
            attempt,
            target,
            inbound,
            shared,
            adapted: adapted.adapted,
            strip_usage: adapted.strip_usage,
            brief,
            collect,
            withhold_tools,
            phase: Phase::Sending(sending),
            bytes_out,
            bytes_in: 0,
            pieces: Vec::new(),
            ready: Vec::new(),
            ready_bytes: 0,
            withheld: Vec::new(),
            terminal: Vec::new(),
            reply: None,
            instead: None,
            plan: None,
            refused: None,
        })
    }

    /// Waits for the next thing to happen. Safe to drop and call again.
    pub(super) async fn next(&mut self) -> Seen {
        loop {
            let step = match &mut self.phase {
                Phase::Sending(sending) => {
                    let sent = sending.await;
                    self.head(sent)
                }
                Phase::Refused { body, .. } => {
                    let frame = frame(body).await;
                    self.refused_part(frame)
                }
                Phase::Whole { body, .. } => {
                    let frame = frame(body).await;
                    self.whole_part(frame)
                }
                Phase::Stream { body, .. } => {
                    let frame = frame(body).await;
                    self.stream_part(frame)
                }
                Phase::Done { .. } => std::future::pending().await,
            };
            if let Some(seen) = step {
                return seen;
            }
        }
    }

    fn head(&mut self, sent: Result<Response<Reply>, SendError>) -> Option<Seen> {
        let (head, body) = match sent {
            Ok(response) => response.into_parts(),
            Err(error) => return Some(self.fail(upstream::report(&error))),
        };
        if !head.status.is_success() {
            self.phase = Phase::Refused { head, body, read: BytesMut::new() };
            return None;
        }
        // A provider that answers a stream request with plain JSON means an error or does not stream; the wire tells.
        if self.inbound.stream() && media_type(&head.headers) != "application/json" {
            let dialect = self.target.spec.dialect;
            let reader = Box::new(StreamReader::new(dialect, &self.inbound, self.strip_usage, self.collect));
            self.phase = Phase::Stream { body, reader };
        } else {
            self.phase = Phase::Whole { body, read: Gather::default() };
        }
        Some(Seen::Headers)
    }

    fn refused_part(&mut self, frame: Option<Result<Bytes, FailureReport>>) -> Option<Seen> {
        let Phase::Refused { head, read, .. } = &mut self.phase else { return None };
        // A broken error body is still an error: its status speaks.
        if let Some(Ok(bytes)) = frame {
            self.bytes_in += bytes.len() as u64;
            let room = ERROR_BODY_MAX - read.len();
            read.extend_from_slice(&bytes[..bytes.len().min(room)]);
            if read.len() < ERROR_BODY_MAX {
                return None;
            }
        }
        let mut report = self.shared.classify(head.status, &head.headers, read);
        if self.adapted {
            report = classify::of_adapted(report);
        } else if report.failure == Failure::InvalidRequest {
            report = classify::of_unproven(report, read, &self.inbound.needs(), &self.target.spec.capabilities);
        }
        self.refused = Some((head.status, std::mem::take(read).freeze()));
        Some(self.fail(report))
    }

    fn whole_part(&mut self, frame: Option<Result<Bytes, FailureReport>>) -> Option<Seen> {
        let Phase::Whole { body, read } = &mut self.phase else { return None };
        match frame {
            Some(Ok(bytes)) => {
                self.bytes_in += bytes.len() as u64;
                read.push(bytes);
                if read.len() > REPLY_MAX {
                    return Some(self.fail(FailureReport::of(Failure::MalformedReply)));
                }
                if !body.is_end_stream() {
                    return Some(Seen::Output { tokens: 0, releasable: false });
                }
            }
            Some(Err(report)) => return Some(self.fail(report)),
            None => {}
        }
        let whole = std::mem::take(read).finish();
        Some(match reply::read(self.target.spec.dialect, &self.inbound, whole) {
            // Plain JSON for a client that asked for a stream: only an error would have been acceptable.
            Ok(_) if self.inbound.stream() => self.fail(FailureReport::of(Failure::MalformedReply)),
            Ok(reply) => {
                let finish = reply.finish;
                self.reply = Some(reply);
                self.close();
                Seen::Ended { finish }
            }
            Err(report) => self.fail(report),
        })
    }

    fn stream_part(&mut self, frame: Option<Result<Bytes, FailureReport>>) -> Option<Seen> {
        let Phase::Stream { reader, .. } = &mut self.phase else { return None };
        match frame {
            Some(Ok(bytes)) => {
                self.bytes_in += bytes.len() as u64;
                let pushed = reader.push(bytes, &mut self.pieces);
                let ended = reader.terminal_seen();
                let output = self.sort_pieces();
                match pushed {
                    Err(report) => Some(self.fail(report)),
                    Ok(()) if self.ready_bytes > REPLY_MAX => {
                        Some(self.fail(FailureReport::of(Failure::MalformedReply)))
                    }
                    Ok(()) if ended => self.stream_end(),
                    Ok(()) => output,
                }
            }
            Some(Err(report)) => {
                // What broke after the first output is a stream's failure, not the connection's.
                let began = self.bytes_in > 0 && report.failure != Failure::MalformedReply;
                Some(self.fail(if began { FailureReport::of(Failure::StreamInterrupted) } else { report }))
            }
            None => self.stream_end(),
        }
    }

    fn stream_end(&mut self) -> Option<Seen> {
        // The engine may decide to go on after this; the exchange has said all it will.
        let done = Phase::Done { reader: None, body: None };
        let Phase::Stream { body, mut reader } = std::mem::replace(&mut self.phase, done) else { return None };
        let ended = reader.end(&mut self.pieces);
        self.phase = Phase::Done { reader: Some(reader), body: Some(body) };
        let _ = self.sort_pieces();
        Some(match ended {
            Ok(end) => Seen::Ended { finish: end.finish },
            Err(report) => self.fail(report),
        })
    }

    /// Sorts what the reader made of a chunk into what is ready and what is terminal.
    fn sort_pieces(&mut self) -> Option<Seen> {
        let mut seen = None;
        let withheld = self.withhold_tools && (!self.withheld.is_empty() || self.calls_tools());
        for piece in self.pieces.drain(..) {
            match piece.kind {
                PieceKind::Preamble => {}
                PieceKind::Output { tokens: new } => {
                    let so_far = match seen {
                        Some(Seen::Output { tokens, .. }) => tokens,
                        Some(Seen::Headers | Seen::Ended { .. } | Seen::Failed(_)) | None => 0,
                    };
                    seen = Some(Seen::Output { tokens: so_far + new, releasable: !withheld });
                }
                PieceKind::Held => {
                    seen = seen.or(Some(Seen::Output { tokens: 0, releasable: false }));
                }
                PieceKind::Terminal => {
                    self.terminal.push(piece.bytes);
                    continue;
                }
            }
            if !piece.bytes.is_empty() {
                self.ready_bytes += piece.bytes.len();
                if withheld { &mut self.withheld } else { &mut self.ready }.push(piece.bytes);
            }
        }
        seen
    }

    /// Whether the stream has called a tool, as far as it has come.
    fn calls_tools(&self) -> bool {
        match &self.phase {
            Phase::Stream { reader, .. } | Phase::Done { reader: Some(reader), .. } => {
                reader.answers().iter().any(|answer| !answer.tool_calls.is_empty())
            }
            Phase::Sending(_) | Phase::Refused { .. } | Phase::Whole { .. } | Phase::Done { reader: None, .. } => false,
        }
    }

    fn fail(&mut self, report: FailureReport) -> Seen {
        self.close();
        Seen::Failed(report)
    }

    /// Ends the exchange and drops its connection; what a stream's reader knows is kept.
    fn close(&mut self) {
        let reader = match std::mem::replace(&mut self.phase, Phase::Done { reader: None, body: None }) {
            Phase::Stream { reader, .. } => Some(reader),
            Phase::Done { reader, .. } => reader,
            Phase::Sending(_) | Phase::Refused { .. } | Phase::Whole { .. } => None,
        };
        self.phase = Phase::Done { reader, body: None };
    }

    /// Whether it has said all it will.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Done { .. })
    }

    /// Takes what the client may have now, as one run of bytes.
    pub(super) fn take_ready(&mut self) -> Bytes {
        self.ready_bytes = self.withheld.iter().map(Bytes::len).sum();
        join(&mut self.ready)
    }

    /// Takes all that the client may have before the terminal part, once the end is written down.
    pub(super) fn take_rest(&mut self) -> Bytes {
        self.ready_bytes = 0;
        self.ready.append(&mut self.withheld);
        join(&mut self.ready)
    }

    /// Takes the end of a stream.
    pub(super) fn take_terminal(&mut self) -> Bytes {
        join(&mut self.terminal)
    }

    /// Takes the provider's own error, if the client can read it: it speaks the client's dialect.
    pub(super) fn take_refused(&mut self) -> Option<(StatusCode, Bytes)> {
        let readable = self.target.spec.dialect == self.inbound.dialect();
        let (status, body) = self.refused.take().filter(|(_, body)| !body.is_empty() && readable)?;
        // Some servers say 500 to what the client did wrong; its SDK would send the same again.
        Some((if status.is_client_error() { status } else { StatusCode::BAD_REQUEST }, body))
    }

    /// Takes the whole reply, if it was not a stream.
    pub(super) fn take_reply(&mut self) -> Option<Bytes> {
        self.reply.take().map(|reply| reply.body)
    }

    /// Takes what is to be delivered in the reply's place, if anything is.
    pub(super) fn take_instead(&mut self) -> Option<Box<Said>> {
        self.instead.take()
    }

    /// The tool calls that were asked for and not made.
    pub(super) fn plan(&self) -> &[Intent] {
        self.plan.as_deref().unwrap_or_default()
    }

    /// Takes them.
    pub(super) fn take_plan(&mut self) -> Option<Vec<Intent>> {
        self.plan.take()
    }

    /// Runs the checks on the complete reply.
    pub(super) fn check(&mut self, gates: &Gates) -> Findings {
        let asked = check::Asked { inbound: &self.inbound, gates, brief: &self.brief };
        let checked = match (&self.reply, &self.phase) {
            (Some(reply), _) => check::reply(&asked, reply),
            (None, Phase::Stream { reader, .. } | Phase::Done { reader: Some(reader), .. }) => {
                check::stream(&asked, reader)
            }
            (
                None,
                Phase::Sending(_) | Phase::Refused { .. } | Phase::Whole { .. } | Phase::Done { reader: None, .. },
            ) => return unreadable(),
        };
        self.instead = checked.instead.map(Box::new);
        self.plan = checked.plan;
        checked.findings
    }

    /// What the complete reply says, or what is to be delivered in its place.
    pub(super) fn said(&self) -> Option<Said> {
        match (&self.instead, &self.reply, &self.phase) {
            (Some(instead), _, _) => Some(Said::clone(instead)),
            (None, Some(reply), _) => Some(reply.said()),
            (None, None, Phase::Stream { reader, .. } | Phase::Done { reader: Some(reader), .. }) => {
                Some(reader.said())
            }
            (
                None,
                None,
                Phase::Sending(_) | Phase::Refused { .. } | Phase::Whole { .. } | Phase::Done { reader: None, .. },
            ) => None,
        }
    }

    /// What the attempt has taken until now.
    pub(super) fn spent(&self) -> Spent {
        let usage = match (&self.reply, &self.phase) {
            (Some(reply), _) => reply.usage,
            (None, Phase::Stream { reader, .. } | Phase::Done { reader: Some(reader), .. }) => reader.usage(),
            (
                None,
                Phase::Sending(_) | Phase::Refused { .. } | Phase::Whole { .. } | Phase::Done { reader: None, .. },
            ) => Usage::default(),
        };
        Spent { usage, bytes_out: self.bytes_out, bytes_in: self.bytes_in }
    }

    /// Reads the end of a finished stream's body, so that its connection can be used again.
    pub(super) async fn finish_body(self) {
        if let Phase::Done { body: Some(mut body), .. } = self.phase {
            let rest = async { while let Some(Ok(_)) = frame(&mut body).await {} };
            // A provider that keeps the body open costs a new connection, nothing more.
            let _ = clock::timeout(TAIL_PATIENCE, rest).await;
        }
    }
}

/// Nothing passes that cannot be looked at.
pub(super) fn unreadable() -> Findings {
    let problem = Problem::new(Failure::MalformedReply, "there is no reply to check");
    Findings { problems: vec![problem], ..Findings::CLEAN }
}

fn join(pieces: &mut Vec<Bytes>) -> Bytes {
    match pieces.len() {
        0 => Bytes::new(),
        1 => pieces.pop().unwrap_or_default(),
        _ => {
            let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
            pieces.drain(..).for_each(|piece| whole.extend_from_slice(&piece));
            whole.freeze()
        }
    }
}

/// The next data of a body; trailers are skipped.
async fn frame(body: &mut Reply) -> Option<Result<Bytes, FailureReport>> {
    poll_fn(|cx| {
        loop {
            return match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                None => std::task::Poll::Ready(None),
                Some(Err(error)) => std::task::Poll::Ready(Some(Err(upstream::report(&error)))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => std::task::Poll::Ready(Some(Ok(data))),
                    Err(_) => continue,
                },
            };
        }
    })
    .await
}

impl Shared {
    fn classify(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> FailureReport {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        classify::response(status.as_u16(), header, body, self.clock.wall())
    }
}
