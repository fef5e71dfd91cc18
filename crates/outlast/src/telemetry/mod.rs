//! What is kept and told of each call: a ring in memory, a line in the log, numbers for `/metrics`, lineage in the
//! telemetry file. No prompt, answer or key passes through here: the types have no place for one.
//!
//! The request's task only appends a finished record to a short queue ([`Telemetry::record`]). One writer thread does
//! the rest: counting, formatting, writing.

#[cfg(test)]
mod fixture;
pub mod log;
pub mod metrics;
mod process;
pub mod ring;
pub mod sink;
#[cfg(test)]
mod tests;
pub mod trace;
mod writer;

pub use log::{Level, LogEvent, LogFormat};
pub use metrics::{Metrics, QueueSeen, RunMetrics, Seen as RunsSeen, ToolState};
pub use sink::{LogFields, Recorded, Telemetry, TelemetryOptions};
pub use trace::TraceContext;

/// The longest text a client may put into records and logs through a header or a model name, in characters.
pub const CLIENT_TEXT_MAX: usize = 128;

/// Cuts a client's header value to what a record may hold: [`CLIENT_TEXT_MAX`] printable ASCII characters. Empty
/// text is no text.
pub fn client_text(value: &str) -> Option<Box<str>> {
    let text: String = value.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(CLIENT_TEXT_MAX).collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.into())
}
