//! The one fault vocabulary: what tests, drills, the fake provider and live injection can break.
//!
//! A fault has one short text form, `name[:argument,argument...]`, such as `cut:after=5,how=reset`;
//! JSON carries the same text. [`Fault::facts`] is the table of what each does on the wire and of the
//! [`Failure`] it must be classified to; `docs/faults.md` shows it to users and a test keeps them equal.

mod plan;
mod text;

pub use plan::FaultPlan;
pub use text::{ParseFaultError, parse_time};

use Bites as B;
use outlast_model::{
    Failure,
    failure::{ConnectionFault, Deadline},
};
use std::{borrow::Cow, time::Duration};

/// Something injected between a client and a good answer.
///
/// Where a fault speaks of chunks, a streamed reply counts its semantic outputs (text or tool-argument
/// deltas), and a whole reply is sent as if cut into as many equal parts as the stream would have had.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The response head comes this much later.
    Latency(Duration),
    /// The response head comes at once, the first output this much later.
    FirstToken(Duration),
    /// Silence, with the connection held open until the other side leaves.
    Hang(Position),
    /// 429, with or without a Retry-After.
    RateLimit {
        /// How long the provider asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// A 5xx status with the dialect's error envelope.
    Status {
        /// 500 to 599; 529 is Anthropic's "overloaded".
        status: u16,
        /// How long the provider asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// A TCP reset.
    Reset(Position),
    /// The reply breaks off in the middle.
    Cut {
        /// Where.
        at: CutAt,
        /// In which manner.
        how: CutHow,
    },
    /// Silence in the middle of a reply, with the connection held open.
    Stall {
        /// After this many chunks.
        after: u32,
    },
    /// Every chunk comes this long after the one before.
    Drip {
        /// Between two chunks.
        gap: Duration,
    },
    /// One chunk is not JSON; what follows it is whole.
    MalformedChunk {
        /// After this many good chunks.
        after: u32,
    },
    /// All output is sent, then the body ends properly without saying why the model stopped.
    NoTerminal {
        /// The reason is given, and only the dialect's very last marker (`[DONE]`, `message_stop`) is missing.
        after_finish: bool,
    },
    /// The provider reports overload inside a stream that began as a success.
    ErrorEvent {
        /// After this many good chunks.
        after: u32,
    },
    /// Status 200 with an error envelope for a body.
    ErrorIn200,
    /// A success with nothing in it.
    Empty {
        /// Not even a body: zero bytes.
        body: bool,
    },
    /// Text where structured output was demanded.
    InvalidJson,
    /// Valid JSON with other field names than the schema demands.
    SchemaDrift,
    /// The model declines.
    Refusal,
    /// A content filter withholds the reply.
    ContentFilter,
    /// The prompt does not fit.
    ContextExceeded,
    /// The output limit is reached in the middle of the reply.
    Truncated,
    /// The key is rejected.
    Auth,
    /// The account is out of money.
    Quota,
    /// The account may not use this.
    AccessDenied(Denied),
    /// The model cannot call tools and says so.
    UnsupportedTools,
    /// A tool is called with arguments that are not JSON, or no object.
    BadToolArgs,
    /// One output of this size, on one line.
    HugeLine {
        /// Size of the text, in bytes.
        bytes: u32,
    },
    /// An unknown field nested this deep in the first chunk or in the body.
    DeepJson {
        /// Levels of arrays.
        depth: u32,
    },
    /// The text is exactly this, whatever was asked: another language, a false citation, a claim, a loop...
    Say(Cow<'static, str>),
    /// A good structured reply with a slip of form that changes no value.
    JsonSlip(Slip),
    /// Fluent, well-formed and wrong: the quality drop that no status shows.
    Wrong,
    /// So many times the usual output.
    Verbose {
        /// How many times.
        times: u32,
    },
    /// Nothing listens: a new connection is refused, open ones are reset. Bites a whole provider, not one model.
    RefuseConnections,
}

/// Before or after the response head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Position {
    /// The request was read, nothing is answered.
    BeforeHeaders,
    /// The status line and headers were sent, nothing of the body.
    AfterHeaders,
}

/// Where a reply breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CutAt {
    /// After this many chunks.
    Chunk(u32),
    /// In the middle of a tool call's arguments; a tool is called if any is offered.
    InsideTool,
}

/// How a reply breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CutHow {
    /// TCP reset.
    Reset,
    /// TCP close, the HTTP body visibly incomplete.
    Close,
    /// The HTTP body ends properly, as if the reply were whole.
    Eof,
}

/// A slip of form in structured output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slip {
    /// A code fence around it.
    Fences,
    /// A comma before each closing bracket.
    TrailingCommas,
    /// The last closing brackets are missing.
    Closers,
}

/// Why access is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denied {
    /// 403: the region, or the account's policy.
    Region,
    /// 404: no such model for this account.
    Model,
}

/// When a fault does harm. Where it does not bite, the reply is a good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bites {
    /// Every call.
    Always,
    /// Only calls that offer tools.
    WithTools,
    /// Only calls that demand structured output.
    WithSchema,
    /// Only streams.
    Streams,
    /// Only calls whose output has a required form: tools or structured output.
    WithForm,
    /// Only when it lasts longer than the deadline that watches for it.
    PastDeadline,
    /// Only past the reader's size or depth limit.
    PastLimit,
    /// Only under a contract that has a gate, or a cap, for it.
    UnderContract,
    /// Only for a reader that wants the very last marker even after a finish reason; most do not.
    StrictReaders,
}

/// One row of the vocabulary's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The text form, with capitals for what the user fills in.
    pub form: &'static str,
    /// What happens on the wire.
    pub wire: &'static str,
    /// When it does harm.
    pub bites: Bites,
    /// What a streamed reply is classified to: the most exact class first, then those also right.
    pub streamed: &'static [Failure],
    /// The same for a reply that is not streamed.
    pub whole: &'static [Failure],
}

impl Fault {
    /// One of every form, small enough to run in tests. The argument values are examples.
    pub const EXAMPLES: [Fault; 50] = [
        Fault::Latency(Duration::from_secs(2)),
        Fault::FirstToken(Duration::from_secs(3)),
        Fault::Hang(Position::BeforeHeaders),
        Fault::Hang(Position::AfterHeaders),
        Fault::RateLimit { retry_after: None },
        Fault::RateLimit { retry_after: Some(Duration::from_secs(5)) },
        Fault::Status { status: 500, retry_after: None },
        Fault::Status { status: 502, retry_after: None },
        Fault::Status { status: 503, retry_after: None },
        Fault::Status { status: 503, retry_after: Some(Duration::from_secs(1)) },
        Fault::Status { status: 529, retry_after: None },
        Fault::Reset(Position::BeforeHeaders),
        Fault::Reset(Position::AfterHeaders),
        Fault::Cut { at: CutAt::Chunk(5), how: CutHow::Reset },
        Fault::Cut { at: CutAt::Chunk(5), how: CutHow::Close },
        Fault::Cut { at: CutAt::Chunk(5), how: CutHow::Eof },
        Fault::Cut { at: CutAt::InsideTool, how: CutHow::Reset },
        Fault::Cut { at: CutAt::InsideTool, how: CutHow::Eof },
        Fault::Stall { after: 5 },
        Fault::Drip { gap: Duration::from_secs(3) },
        Fault::MalformedChunk { after: 3 },
        Fault::MalformedChunk { after: 0 },
        Fault::NoTerminal { after_finish: false },
        Fault::NoTerminal { after_finish: true },
        Fault::ErrorEvent { after: 0 },
        Fault::ErrorEvent { after: 2 },
        Fault::ErrorIn200,
        Fault::Empty { body: false },
        Fault::Empty { body: true },
        Fault::InvalidJson,
        Fault::SchemaDrift,
        Fault::Refusal,
        Fault::ContentFilter,
        Fault::ContextExceeded,
        Fault::Truncated,
        Fault::Auth,
        Fault::Quota,
        Fault::AccessDenied(Denied::Region),
        Fault::AccessDenied(Denied::Model),
        Fault::UnsupportedTools,
        Fault::BadToolArgs,
        Fault::HugeLine { bytes: 1_000_000 },
        Fault::DeepJson { depth: 1_000 },
        Fault::Say(Cow::Borrowed("I have refunded the order, as promised.")),
        Fault::JsonSlip(Slip::Fences),
        Fault::JsonSlip(Slip::TrailingCommas),
        Fault::JsonSlip(Slip::Closers),
        Fault::Wrong,
        Fault::Verbose { times: 20 },
        Fault::RefuseConnections,
    ];

    /// What it does on the wire and the failure it must be classified to.
    pub const fn facts(&self) -> Facts {
        use Failure as F;
        const RESET: Failure = Failure::Connection(ConnectionFault::Reset);
        const fn row(
            form: &'static str,
            bites: Bites,
            streamed: &'static [Failure],
            whole: &'static [Failure],
            wire: &'static str,
        ) -> Facts {
            Facts { form, wire, bites, streamed, whole }
        }
        /// A fault that a stream and a whole reply show alike.
        const fn both(form: &'static str, bites: Bites, failures: &'static [Failure], wire: &'static str) -> Facts {
            row(form, bites, failures, failures, wire)
        }
        match self {
            Fault::Latency(_) => both(
                "latency:TIME",
                B::PastDeadline,
                &[F::Timeout(Deadline::Header), F::Timeout(Deadline::Total)],
                "The response head comes TIME later, then a good reply.",
            ),
            Fault::FirstToken(_) => row(
                "first-token:TIME",
                B::PastDeadline,
                &[F::Timeout(Deadline::FirstToken), F::Timeout(Deadline::Total)],
                &[F::Timeout(Deadline::FirstToken), F::Timeout(Deadline::Idle), F::Timeout(Deadline::Total)],
                "The response head comes at once, the first output TIME later, then a good reply.",
            ),
            Fault::Hang(Position::BeforeHeaders) => both(
                "hang",
                B::Always,
                &[F::Timeout(Deadline::Header), F::Timeout(Deadline::Total)],
                "The request is read, nothing is ever answered, the connection stays open.",
            ),
            Fault::Hang(Position::AfterHeaders) => row(
                "hang:after-headers",
                B::Always,
                &[F::Timeout(Deadline::FirstToken), F::Timeout(Deadline::Total)],
                &[F::Timeout(Deadline::FirstToken), F::Timeout(Deadline::Idle), F::Timeout(Deadline::Total)],
                "The response head, then nothing; the connection stays open.",
            ),
            Fault::RateLimit { .. } => both(
                "429[:retry-after=TIME]",
                B::Always,
                &[F::RateLimited],
                "429 with the dialect's rate-limit envelope; `retry-after` and the remaining-quota headers only if TIME is given.",
            ),
            Fault::Status { status: 503 | 529, .. } => both(
                "503[:retry-after=TIME], 529",
                B::Always,
                &[F::Overloaded],
                "That status with the dialect's overload envelope.",
            ),
            Fault::Status { .. } => both(
                "500, 502, ... 599[:retry-after=TIME]",
                B::Always,
                &[F::ServerError, F::Overloaded, F::Timeout(Deadline::Header)],
                "That status with the dialect's server-error envelope (502 and 504: a proxy's HTML page).",
            ),
            Fault::Reset(Position::BeforeHeaders) => {
                both("reset:before-headers", B::Always, &[RESET], "The request is read, then a TCP reset.")
            }
            Fault::Reset(Position::AfterHeaders) => both(
                "reset:after-headers",
                B::Always,
                &[F::StreamInterrupted, RESET],
                "The response head, then a TCP reset.",
            ),
            Fault::Cut { how: CutHow::Eof, .. } => row(
                "cut:after=N,how=eof; cut:inside-tool,how=eof",
                B::Always,
                &[F::StreamInterrupted, F::ToolMismatch],
                &[F::MalformedReply, F::Empty],
                "N chunks (or half a tool call's arguments), then the HTTP body ends properly, without any terminal event; a whole reply is half its JSON.",
            ),
            Fault::Cut { how: CutHow::Reset | CutHow::Close, .. } => both(
                "cut:after=N,how=reset|close; cut:inside-tool,how=reset|close",
                B::Always,
                &[F::StreamInterrupted, RESET],
                "N chunks (or half a tool call's arguments), then a TCP reset, or a TCP close with the HTTP body incomplete.",
            ),
            Fault::Stall { .. } => row(
                "stall:after=N",
                B::Always,
                &[F::Timeout(Deadline::Idle), F::Timeout(Deadline::FirstToken), F::Timeout(Deadline::Total)],
                &[F::Timeout(Deadline::Idle), F::Timeout(Deadline::FirstToken), F::Timeout(Deadline::Total)],
                "N chunks, then nothing; the connection stays open.",
            ),
            Fault::Drip { .. } => row(
                "drip:gap=TIME",
                B::PastDeadline,
                &[F::Timeout(Deadline::FirstToken), F::Timeout(Deadline::Idle), F::Timeout(Deadline::Total)],
                &[F::Timeout(Deadline::FirstToken), F::Timeout(Deadline::Idle), F::Timeout(Deadline::Total)],
                "A good reply, each chunk TIME after the one before.",
            ),
            Fault::MalformedChunk { .. } => both(
                "malformed-chunk:after=N",
                B::Always,
                &[F::MalformedReply],
                "N good chunks, then one that is not JSON, then the rest; a whole reply is broken JSON at that place.",
            ),
            Fault::NoTerminal { after_finish: false } => row(
                "no-terminal",
                B::Streams,
                &[F::StreamInterrupted],
                &[],
                "All output, then the body ends properly without finish reason or last marker. A whole reply is good.",
            ),
            Fault::NoTerminal { after_finish: true } => row(
                "no-terminal:after-finish",
                B::StrictReaders,
                &[F::StreamInterrupted],
                &[],
                "All output and the finish reason; only `[DONE]` (`message_stop`) is missing. A whole reply is good.",
            ),
            Fault::ErrorEvent { .. } => both(
                "error-event:after=N",
                B::Always,
                &[F::Overloaded, F::StreamInterrupted],
                "A 200 stream with N good chunks, then the dialect's error event (overloaded). A whole reply: the error envelope under a 200.",
            ),
            Fault::ErrorIn200 => both(
                "error-in-200",
                B::Always,
                &[F::ServerError],
                "Status 200, content type JSON, the dialect's server-error envelope for a body, streamed or not.",
            ),
            Fault::Empty { body: false } => {
                both("empty", B::Always, &[F::Empty], "A well-formed reply with no output and a normal finish reason.")
            }
            Fault::Empty { body: true } => row(
                "empty:body",
                B::Always,
                &[F::Empty, F::StreamInterrupted, F::MalformedReply],
                &[F::Empty, F::MalformedReply],
                "Status 200 and zero bytes of body.",
            ),
            Fault::InvalidJson => both(
                "invalid-json",
                B::WithSchema,
                &[F::SchemaError],
                "Prose with a broken JSON object where structured output was demanded.",
            ),
            Fault::SchemaDrift => both(
                "schema-drift",
                B::WithSchema,
                &[F::SchemaError],
                "A valid JSON object whose field names the schema does not know.",
            ),
            Fault::Refusal => both(
                "refusal",
                B::Always,
                &[F::Refusal],
                "OpenAI: `refusal` set, content null, finish `stop`. Anthropic: `stop_reason` `refusal`.",
            ),
            Fault::ContentFilter => both(
                "content-filter",
                B::Always,
                &[F::SafetyBlock],
                "OpenAI: a 200 with finish reason `content_filter` and no content. Anthropic: 400, output blocked by content filtering policy.",
            ),
            Fault::ContextExceeded => both(
                "context-exceeded",
                B::Always,
                &[F::ContextExceeded],
                "400: `context_length_exceeded`, or `prompt is too long`.",
            ),
            Fault::Truncated => both(
                "truncated",
                B::WithForm,
                &[F::Truncated],
                "Half the output, finish reason `length` (`max_tokens`).",
            ),
            Fault::Auth => both("auth", B::Always, &[F::Auth], "401: `invalid_api_key`, or `authentication_error`."),
            Fault::Quota => both(
                "quota",
                B::Always,
                &[F::QuotaExhausted],
                "OpenAI: 429 `insufficient_quota`. Anthropic: 400, credit balance too low.",
            ),
            Fault::AccessDenied(Denied::Region) => both(
                "access-denied:region",
                B::Always,
                &[F::AccessDenied],
                "403: country not supported, or `permission_error`.",
            ),
            Fault::AccessDenied(Denied::Model) => both(
                "access-denied:model",
                B::Always,
                &[F::AccessDenied],
                "404: `model_not_found`, or `not_found_error`.",
            ),
            Fault::UnsupportedTools => {
                both("unsupported-tools", B::WithTools, &[F::ToolMismatch], "400: the model does not support tools.")
            }
            Fault::BadToolArgs => both(
                "bad-tool-args",
                B::WithTools,
                &[F::ToolMismatch],
                "A complete tool call whose arguments are not JSON (a whole Anthropic reply: not an object).",
            ),
            Fault::HugeLine { .. } => both(
                "huge-line:bytes=SIZE",
                B::PastLimit,
                &[F::MalformedReply],
                "A good reply whose first output is SIZE bytes of text on one line.",
            ),
            Fault::DeepJson { .. } => both(
                "deep-json:depth=N",
                B::PastLimit,
                &[F::MalformedReply],
                "A good reply with an unknown field nested N arrays deep in its first chunk or body.",
            ),
            Fault::Say(_) => both(
                "say:TEXT",
                B::UnderContract,
                &[F::Quality, F::SchemaError, F::Refusal],
                "A good reply whose text is exactly TEXT, percent-encoded (`%20` for a space, `%2C` for a comma).",
            ),
            Fault::JsonSlip(_) => both(
                "json-slip:fences|trailing-commas|closers",
                B::WithSchema,
                &[F::SchemaError],
                "A good structured reply with one slip of form that changes no value: a code fence around it, commas before closing brackets, or the last brackets missing.",
            ),
            Fault::Wrong => both(
                "wrong",
                B::UnderContract,
                &[F::Quality],
                "A fluent, well-formed reply that is wrong: other words, every free value another one. With `share=0.1` a quality drop.",
            ),
            Fault::Verbose { .. } => both(
                "verbose:times=N",
                B::UnderContract,
                &[F::CostSpike, F::Quality],
                "A good reply followed by N times its length of filler, whatever its output limit says; structured output is followed by blanks.",
            ),
            Fault::RefuseConnections => both(
                "refuse-connections",
                B::Always,
                &[F::Connection(ConnectionFault::Refused), RESET],
                "The listening socket is closed and open connections are reset; for the whole provider, by admin call, library or command line only.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_always_bites_names_its_failure_streamed_and_whole() {
        for fault in Fault::EXAMPLES {
            let facts = fault.facts();
            if facts.bites == Bites::Always {
                assert!(!facts.streamed.is_empty() && !facts.whole.is_empty(), "{fault}");
            }
            assert!(facts.wire.ends_with('.'), "{fault}");
        }
    }

    #[test]
    fn the_documented_table_is_the_one_in_the_code() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/faults.md")).unwrap();
        let (_, table) = page.split_once("## The vocabulary").unwrap();
        let documented: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
        let mut rows: Vec<String> = Vec::new();
        for fault in Fault::EXAMPLES {
            let row = table_row(&fault);
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        assert!(documented == rows, "docs/faults.md differs; the rows should be:\n{}", rows.join("\n"));
    }

    fn table_row(fault: &Fault) -> String {
        let facts = fault.facts();
        let classes = |failures: &[Failure]| match failures {
            [] => "none".to_owned(),
            _ => failures.iter().map(|failure| format!("`{failure}`")).collect::<Vec<_>>().join(", "),
        };
        let streamed = classes(facts.streamed);
        let failure = if facts.streamed == facts.whole {
            streamed
        } else {
            format!("streamed: {streamed}; whole: {}", classes(facts.whole))
        };
        let bites = match facts.bites {
            Bites::Always => "always",
            Bites::WithTools => "calls that offer tools",
            Bites::WithSchema => "calls that demand structured output",
            Bites::Streams => "streams",
            Bites::WithForm => "calls that offer tools or demand structured output",
            Bites::PastDeadline => "past the deadline",
            Bites::PastLimit => "past the reader's limits",
            Bites::UnderContract => "under a contract or cap that forbids it",
            Bites::StrictReaders => "readers that insist on the last marker",
        };
        let form = facts.form.replace('|', "\\|");
        format!("| `{form}` | {} | {bites} | {failure} |", facts.wire)
    }
}
