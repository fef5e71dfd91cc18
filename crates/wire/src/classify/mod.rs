//! From what a provider said (status, headers, body) to the failure it was.
//!
//! The order of trust: the provider's own code, then what its message says about the request (too long, no tools,
//! no money...), then the status. `docs/errors.md` describes the classes for users.

use outlast_model::{Failure, FailureReport, Wall, policy::Dialect};
use std::time::Duration;

/// The longest wait that is believed. A provider that asks for more is asked again after this.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Classifies a response that is not a success: any status outside 2xx, or a 2xx whose body is an error.
///
/// `header` looks a header up by its lower-case name. `body` may be cut anywhere, empty, or not JSON at all.
/// `now` is only used to turn dates (`Retry-After`, RFC 3339 resets) into waits.
pub fn response<'h>(
    dialect: Dialect,
    status: u16,
    header: impl Fn(&str) -> Option<&'h str>,
    body: &[u8],
    now: Wall,
) -> FailureReport {
    let _ = (dialect, body, now, header("x"));
    FailureReport { status: Some(status), ..FailureReport::of(Failure::ServerError) }
}

/// Classifies an error object inside a success: the `data` of an error event, a chunk with an `error` member, or a
/// whole 200 body that is an error.
pub fn in_band(dialect: Dialect, payload: &[u8]) -> FailureReport {
    let _ = (dialect, payload);
    FailureReport::of(Failure::ServerError)
}

/// What the report becomes when more than splicing was done to the request: a rejection may then be Outlast's doing,
/// so it is no longer the client's fault.
pub fn of_adapted(report: FailureReport) -> FailureReport {
    match report.failure {
        Failure::InvalidRequest => FailureReport { failure: Failure::Unsupported, ..report },
        _ => report,
    }
}
