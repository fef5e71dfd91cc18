//! Errors as the vendors mean them; each dialect gives them its own status, envelope and headers.

use super::asked::Mistake;
use outlast_drill::{Fault, fault::Denied};
use std::time::Duration;

/// What an error reply says.
#[derive(Debug, PartialEq)]
pub(super) enum Problem {
    RateLimited { retry_after: Option<Duration> },
    Overloaded { status: u16, retry_after: Option<Duration> },
    Server { status: u16, retry_after: Option<Duration> },
    ContextExceeded,
    Auth,
    Quota,
    Region,
    NoModel,
    NoTools,
    ContentFilter,
    TooLarge,
    NoSuchPath(String),
    Mistake(Mistake),
}

impl Problem {
    /// The problem that a fault answers with at once, if it is one of that kind.
    pub(super) fn of(fault: &Fault, offers_tools: bool, is_anthropic: bool) -> Option<Problem> {
        match fault {
            Fault::RateLimit { retry_after } => Some(Problem::RateLimited { retry_after: *retry_after }),
            Fault::Status { status: status @ (503 | 529), retry_after } => {
                Some(Problem::Overloaded { status: *status, retry_after: *retry_after })
            }
            Fault::Status { status, retry_after } => {
                Some(Problem::Server { status: *status, retry_after: *retry_after })
            }
            Fault::ContextExceeded => Some(Problem::ContextExceeded),
            Fault::Auth => Some(Problem::Auth),
            Fault::Quota => Some(Problem::Quota),
            Fault::AccessDenied(Denied::Region) => Some(Problem::Region),
            Fault::AccessDenied(Denied::Model) => Some(Problem::NoModel),
            Fault::UnsupportedTools => offers_tools.then_some(Problem::NoTools),
            Fault::ContentFilter => is_anthropic.then_some(Problem::ContentFilter),
            Fault::Latency(_)
            | Fault::FirstToken(_)
            | Fault::Hang(_)
            | Fault::Reset(_)
            | Fault::Cut { .. }
            | Fault::Stall { .. }
            | Fault::Drip { .. }
            | Fault::MalformedChunk { .. }
            | Fault::NoTerminal { .. }
            | Fault::ErrorEvent { .. }
            | Fault::ErrorIn200
            | Fault::Empty { .. }
            | Fault::InvalidJson
            | Fault::SchemaDrift
            | Fault::Refusal
            | Fault::Truncated
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

    /// What the reply's `retry-after` says.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Problem::RateLimited { retry_after }
            | Problem::Overloaded { retry_after, .. }
            | Problem::Server { retry_after, .. } => *retry_after,
            Problem::ContextExceeded
            | Problem::Auth
            | Problem::Quota
            | Problem::Region
            | Problem::NoModel
            | Problem::NoTools
            | Problem::ContentFilter
            | Problem::TooLarge
            | Problem::NoSuchPath(_)
            | Problem::Mistake(_) => None,
        }
    }

    /// A proxy in front of the provider answers with its own page instead of the provider's envelope.
    pub(super) fn is_a_proxys(&self) -> bool {
        matches!(self, Problem::Server { status: 502 | 504, .. })
    }
}
