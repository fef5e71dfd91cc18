//! What the client is told when there is no reply, in its own dialect.

use bytes::Bytes;
use outlast_model::{FailureReport, policy::Dialect, turn::Usage};
use std::{borrow::Cow, time::Duration};

/// An error response: what to send with `content-type: application/json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorReply {
    /// HTTP status.
    pub status: u16,
    /// JSON in the client's dialect.
    pub body: Bytes,
}

/// What the gateway itself refuses, before any target is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The body is not a request of this dialect.
    BadRequest,
    /// No key, or a wrong one.
    Unauthorized,
    /// The key may not do this.
    Forbidden,
    /// No route has that name.
    NoSuchModel,
    /// Nothing is served at this path.
    NoSuchPath,
    /// The path is served, but not with this method.
    WrongMethod,
    /// The body is larger than the limit.
    TooLarge,
    /// The request was not sent in time.
    TooSlow,
    /// Too many calls are in flight.
    Busy,
    /// The gateway is shutting down.
    Draining,
    /// A bug; it is logged under the request id.
    Internal,
}

/// What to say about a failure: what happened and a safe next step. Names no vendor.
pub fn message(report: &FailureReport, retry_after: Option<Duration>) -> Cow<'static, str> {
    let _ = (report, retry_after);
    Cow::Borrowed("The request failed.")
}

/// The error response for a failed call.
pub fn body(dialect: Dialect, report: &FailureReport, message: &str, request_id: &str) -> ErrorReply {
    let _ = (dialect, report, message, request_id);
    ErrorReply { status: 502, body: Bytes::new() }
}

/// The error response for what the gateway itself refuses. `param` names the field at fault.
pub fn refused(dialect: Dialect, why: Refused, message: &str, param: Option<&str>, request_id: &str) -> ErrorReply {
    let _ = (dialect, why, message, param, request_id);
    ErrorReply { status: 400, body: Bytes::new() }
}

/// The typed error event that ends a stream which had begun: the official SDKs raise on it. Nothing follows it.
pub fn event(
    dialect: Dialect,
    report: &FailureReport,
    message: &str,
    request_id: &str,
    usage: Option<&Usage>,
) -> Bytes {
    let _ = (dialect, report, message, request_id, usage);
    Bytes::new()
}
