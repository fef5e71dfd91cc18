//! Is a target alive? One token tells.

use bytes::Bytes;
use outlast_model::{FailureReport, Wall, policy::Dialect};

/// The smallest generation a target can be asked for, not streamed.
pub fn body(dialect: Dialect, model: &str) -> Bytes {
    let _ = (dialect, model);
    Bytes::new()
}

/// Judges a probe's response.
/// # Errors
/// What the response is classified as.
pub fn judge<'h>(
    _dialect: Dialect,
    status: u16,
    header: impl Fn(&str) -> Option<&'h str>,
    body: &[u8],
    now: Wall,
) -> Result<(), FailureReport> {
    match status {
        200..300 => Ok(()),
        _ => Err(crate::classify::response(status, header, body, now)),
    }
}
