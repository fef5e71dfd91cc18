//! What can go wrong, and what is done about it. The remedy table is data: a new class does not
//! compile until it has a row.

use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt, time::Duration};

/// The class of what went wrong. DESIGN section 5; `docs/errors.md` describes each for users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// One of the five deadlines passed.
    Timeout(Deadline),
    /// The connection could not be made or broke before the response head.
    Connection(ConnectionFault),
    /// 5xx that is not known to be overload.
    ServerError,
    /// 503, 529 and their kin: the provider says it is too busy.
    Overloaded,
    /// 429: a schedule, not a fault.
    RateLimited,
    /// The account is out of money or of a long-term quota.
    QuotaExhausted,
    /// The credential is missing, wrong or revoked.
    Auth,
    /// The prompt does not fit the model.
    ContextExceeded,
    /// A body or stream that cannot be decoded.
    MalformedReply,
    /// A success with nothing in it.
    Empty,
    /// Required structure is missing or invalid.
    SchemaError,
    /// A length stop inside required output.
    Truncated,
    /// The model declined.
    Refusal,
    /// A content filter or policy stopped it.
    SafetyBlock,
    /// The target cannot call tools, or called one with arguments that do not parse.
    ToolMismatch,
    /// The reply failed a quality gate.
    Quality,
    /// The estimate or the usage is over the cap.
    CostSpike,
    /// Region, model or policy forbids this target.
    AccessDenied,
    /// Cut after the first output.
    StreamInterrupted,
    /// The target rejects what Outlast adapted for it.
    Unsupported,
    /// The client's own fault.
    InvalidRequest,
    /// The client went away.
    Cancelled,
    /// A tool failed or is down.
    ToolFailed,
    /// Every path is spent.
    Exhausted,
}

/// Which deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deadline {
    /// Until the connection stood.
    Connect,
    /// Until the response head.
    Header,
    /// Until the first semantic output.
    FirstToken,
    /// Between two outputs.
    Idle,
    /// For the whole call.
    Total,
}

/// How the connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnectionFault {
    /// Nothing listens there, or the network says no.
    Refused,
    /// It stood, then broke before the response head.
    Reset,
    /// The handshake failed.
    Tls,
    /// The name did not resolve, or resolved to a forbidden address.
    Dns,
}

impl Failure {
    /// Every class, each deadline and connection fault apart, for tables and tests.
    pub const ALL: [Failure; 31] = [
        Failure::Timeout(Deadline::Connect),
        Failure::Timeout(Deadline::Header),
        Failure::Timeout(Deadline::FirstToken),
        Failure::Timeout(Deadline::Idle),
        Failure::Timeout(Deadline::Total),
        Failure::Connection(ConnectionFault::Refused),
        Failure::Connection(ConnectionFault::Reset),
        Failure::Connection(ConnectionFault::Tls),
        Failure::Connection(ConnectionFault::Dns),
        Failure::ServerError,
        Failure::Overloaded,
        Failure::RateLimited,
        Failure::QuotaExhausted,
        Failure::Auth,
        Failure::ContextExceeded,
        Failure::MalformedReply,
        Failure::Empty,
        Failure::SchemaError,
        Failure::Truncated,
        Failure::Refusal,
        Failure::SafetyBlock,
        Failure::ToolMismatch,
        Failure::Quality,
        Failure::CostSpike,
        Failure::AccessDenied,
        Failure::StreamInterrupted,
        Failure::Unsupported,
        Failure::InvalidRequest,
        Failure::Cancelled,
        Failure::ToolFailed,
        Failure::Exhausted,
    ];

    /// The class's name, as users see it: `timeout`, `rate_limited`...
    pub const fn class(self) -> &'static str {
        match self {
            Failure::Timeout(_) => "timeout",
            Failure::Connection(_) => "connection",
            Failure::ServerError => "server_error",
            Failure::Overloaded => "overloaded",
            Failure::RateLimited => "rate_limited",
            Failure::QuotaExhausted => "quota_exhausted",
            Failure::Auth => "auth",
            Failure::ContextExceeded => "context_exceeded",
            Failure::MalformedReply => "malformed_reply",
            Failure::Empty => "empty",
            Failure::SchemaError => "schema_error",
            Failure::Truncated => "truncated",
            Failure::Refusal => "refusal",
            Failure::SafetyBlock => "safety_block",
            Failure::ToolMismatch => "tool_mismatch",
            Failure::Quality => "quality",
            Failure::CostSpike => "cost_spike",
            Failure::AccessDenied => "access_denied",
            Failure::StreamInterrupted => "stream_interrupted",
            Failure::Unsupported => "unsupported",
            Failure::InvalidRequest => "invalid_request",
            Failure::Cancelled => "cancelled",
            Failure::ToolFailed => "tool_failed",
            Failure::Exhausted => "exhausted",
        }
    }

    /// The part after the class, if it has one: `first_token` of `timeout:first_token`.
    pub const fn detail(self) -> Option<&'static str> {
        match self {
            Failure::Timeout(Deadline::Connect) => Some("connect"),
            Failure::Timeout(Deadline::Header) => Some("header"),
            Failure::Timeout(Deadline::FirstToken) => Some("first_token"),
            Failure::Timeout(Deadline::Idle) => Some("idle"),
            Failure::Timeout(Deadline::Total) => Some("total"),
            Failure::Connection(ConnectionFault::Refused) => Some("refused"),
            Failure::Connection(ConnectionFault::Reset) => Some("reset"),
            Failure::Connection(ConnectionFault::Tls) => Some("tls"),
            Failure::Connection(ConnectionFault::Dns) => Some("dns"),
            Failure::ServerError
            | Failure::Overloaded
            | Failure::RateLimited
            | Failure::QuotaExhausted
            | Failure::Auth
            | Failure::ContextExceeded
            | Failure::MalformedReply
            | Failure::Empty
            | Failure::SchemaError
            | Failure::Truncated
            | Failure::Refusal
            | Failure::SafetyBlock
            | Failure::ToolMismatch
            | Failure::Quality
            | Failure::CostSpike
            | Failure::AccessDenied
            | Failure::StreamInterrupted
            | Failure::Unsupported
            | Failure::InvalidRequest
            | Failure::Cancelled
            | Failure::ToolFailed
            | Failure::Exhausted => None,
        }
    }

    /// What the engine does by default.
    pub const fn remedy(self) -> Remedy {
        use {Blame as B, SameTarget as S, Then as T};
        const fn row(then: T, same_target: S, blame: B, alert: bool) -> Remedy {
            Remedy { then, same_target, blame, alert }
        }
        match self {
            Failure::Timeout(Deadline::FirstToken) => row(T::Reroute, S::IfAlone, B::Fault, false),
            Failure::Timeout(Deadline::Connect) => row(T::Reroute, S::IfAlone, B::Fault, false),
            Failure::Timeout(Deadline::Header | Deadline::Idle) => row(T::Reroute, S::Never, B::Fault, false),
            // An attempt's own total; the call's deadline leaves no time for anything and is the engine's affair.
            Failure::Timeout(Deadline::Total) => row(T::Reroute, S::Never, B::None, false),
            Failure::Connection(ConnectionFault::Reset) => row(T::Reroute, S::IfLone, B::Fault, false),
            Failure::Connection(ConnectionFault::Refused) => row(T::Reroute, S::IfAlone, B::Fault, false),
            Failure::Connection(ConnectionFault::Tls | ConnectionFault::Dns) => {
                row(T::Reroute, S::IfAlone, B::Fault, false)
            }
            Failure::ServerError => row(T::Reroute, S::IfLone, B::Fault, false),
            Failure::Overloaded => row(T::Reroute, S::IfAlone, B::Fault, false),
            Failure::RateLimited => row(T::Reroute, S::Never, B::Schedule, false),
            Failure::QuotaExhausted => row(T::Reroute, S::Never, B::KeyOut, true),
            Failure::Auth => row(T::Reroute, S::Never, B::KeyOut, true),
            Failure::ContextExceeded => row(T::RerouteLarger, S::Never, B::None, false),
            Failure::MalformedReply => row(T::Reroute, S::Never, B::Fault, false),
            Failure::Empty => row(T::Reroute, S::First, B::Quality, false),
            Failure::SchemaError => row(T::RerouteStructured, S::Never, B::Quality, false),
            Failure::Truncated => row(T::Reroute, S::Never, B::None, false),
            Failure::Refusal => row(T::IfContractAllows, S::Never, B::Quality, false),
            Failure::SafetyBlock => row(T::ReturnReason, S::Never, B::None, false),
            Failure::ToolMismatch => row(T::RerouteTools, S::Never, B::Quality, false),
            Failure::Quality => row(T::Reroute, S::Never, B::Quality, false),
            Failure::CostSpike => row(T::Reroute, S::Never, B::None, false),
            Failure::AccessDenied => row(T::Reroute, S::Never, B::TargetOut, true),
            Failure::StreamInterrupted => row(T::StreamContract, S::Never, B::Fault, false),
            Failure::Unsupported => row(T::Reroute, S::Never, B::None, false),
            Failure::InvalidRequest => row(T::ReturnReason, S::Never, B::None, false),
            Failure::Cancelled => row(T::Settle, S::Never, B::None, false),
            Failure::ToolFailed => row(T::Backstop, S::Never, B::None, false),
            Failure::Exhausted => row(T::Backstop, S::Never, B::None, false),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail() {
            Some(detail) => write!(f, "{}:{detail}", self.class()),
            None => f.write_str(self.class()),
        }
    }
}

impl Serialize for Failure {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Failure {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<'de, str>::deserialize(deserializer)?;
        Failure::ALL
            .into_iter()
            .find(|failure| failure.to_string() == *name)
            .ok_or_else(|| serde::de::Error::custom(format!("unknown failure `{name}`")))
    }
}

/// One row of the remedy table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// Where the call goes next.
    pub then: Then,
    /// Whether the same target may be asked once more first.
    pub same_target: SameTarget,
    /// What is held against the target or its key.
    pub blame: Blame,
    /// Whether a person is told.
    pub alert: bool,
}

/// Where a call goes after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The next target that fits.
    Reroute,
    /// The next target with a larger context window than the one that failed, or an unknown one.
    RerouteLarger,
    /// The next target that keeps a schema natively.
    RerouteStructured,
    /// The next target that can call tools.
    RerouteTools,
    /// The next target if the contract says so, else the reply is given as it is.
    IfContractAllows,
    /// To the client at once, with the reason; never to another model.
    ReturnReason,
    /// As the route's stream contract says.
    StreamContract,
    /// To the backstop.
    Backstop,
    /// Nowhere: only the bill is settled.
    Settle,
}

/// Whether one more try on the same target is worth it. At most one per call, whatever the causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameTarget {
    /// No.
    Never,
    /// Only if no other healthy target fits.
    IfAlone,
    /// If no other healthy target fits, or the target was blameless until now and the wait is short.
    IfLone,
    /// Yes, before any reroute.
    First,
}

/// What a failure is evidence of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Nothing about the target.
    None,
    /// A fault of the target: breaker evidence.
    Fault,
    /// The key's schedule on this target: not before some time.
    Schedule,
    /// The key is out until it changes or a long pause has passed.
    KeyOut,
    /// The target is out for this account until a long pause has passed.
    TargetOut,
    /// A softer kind of bad: its own detector, which demotes and never opens.
    Quality,
}

/// A classified failure and everything the decision needs to know of it. Holds no payload text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureReport {
    /// The class.
    pub failure: Failure,
    /// The upstream's HTTP status, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The provider's own code, cut to 64 characters of `[A-Za-z0-9_.-]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Box<str>>,
    /// How long the provider asks to be left alone, from any spelling of Retry-After.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
}

impl FailureReport {
    /// A report that knows only the class.
    pub const fn of(failure: Failure) -> Self {
        FailureReport { failure, status: None, code: None, retry_after: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_its_text_form() {
        for failure in Failure::ALL {
            let text = serde_json::to_string(&failure).unwrap();
            assert_eq!(serde_json::from_str::<Failure>(&text).unwrap(), failure, "{text}");
        }
    }

    #[test]
    fn no_remedy_lets_a_safety_block_or_a_clients_fault_reach_another_model() {
        for failure in [Failure::SafetyBlock, Failure::InvalidRequest] {
            let remedy = failure.remedy();
            assert_eq!(
                (remedy.then, remedy.same_target, remedy.blame),
                (Then::ReturnReason, SameTarget::Never, Blame::None)
            );
        }
        assert_eq!(Failure::RateLimited.remedy().blame, Blame::Schedule);
    }
}
