//! W3C Trace Context: `traceparent` is honoured, checked and passed on with a span of our own per attempt.

use crate::clock::Clock;

/// The trace a call belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    /// The caller's span, if it sent one.
    parent: Option<u64>,
    flags: u8,
}

/// The longest `tracestate` passed on, in bytes; the standard asks for at least 512 to be carried.
pub const TRACESTATE_BYTES_MAX: usize = 1024;

impl TraceContext {
    /// Continues the trace of a `traceparent` header, or begins one where there is none or it is malformed.
    ///
    /// Source: W3C Trace Context, level 1, section 3.2: unknown versions are read by the known prefix, zero ids and
    /// version `ff` are malformed.
    pub fn accept(traceparent: Option<&str>, clock: &Clock) -> Self {
        traceparent.and_then(Self::parse).unwrap_or_else(|| TraceContext {
            trace_id: (u128::from(clock.seed()) << 64 | u128::from(clock.seed())).max(1),
            parent: None,
            flags: 0,
        })
    }

    fn parse(header: &str) -> Option<Self> {
        let header = header.trim();
        let (version, rest) = (header.get(..2)?, header.get(2..)?);
        let known = version == "00";
        if version == "ff" || lower_hex(version).is_none() || (known && rest.len() != 53) {
            return None;
        }
        let rest = rest.strip_prefix('-')?;
        let trace_id = lower_hex(rest.get(..32)?)?;
        let parent = lower_hex(rest.get(32..)?.strip_prefix('-')?.get(..16)?)?;
        let tail = rest.get(49..)?.strip_prefix('-')?;
        let flags = lower_hex(tail.get(..2)?)?;
        let more = tail.get(2..)?;
        let ids_are_set = trace_id != 0 && parent != 0;
        // Flags this standard does not know are not passed on.
        (ids_are_set && (more.is_empty() || more.starts_with('-'))).then_some(TraceContext {
            trace_id,
            parent: Some(parent as u64),
            flags: (flags as u8) & 1,
        })
    }

    /// The trace id as 32 hexadecimal digits.
    pub fn trace_id(&self) -> Box<str> {
        let mut text = String::with_capacity(32);
        push_hex(&mut text, &self.trace_id.to_be_bytes());
        text.into()
    }

    /// True if the caller sent a valid `traceparent`; only then may its `tracestate` be passed on.
    pub fn continued(&self) -> bool {
        self.parent.is_some()
    }

    /// The `traceparent` to send upstream: the same trace, a new span.
    pub fn child(&self, clock: &Clock) -> String {
        let mut text = String::with_capacity(55);
        text.push_str("00-");
        push_hex(&mut text, &self.trace_id.to_be_bytes());
        text.push('-');
        push_hex(&mut text, &clock.seed().max(1).to_be_bytes());
        text.push('-');
        push_hex(&mut text, &[self.flags]);
        text
    }

    /// The caller's `tracestate`, if it may be passed on: the trace is the caller's and the header is not too long.
    pub fn tracestate<'a>(&self, header: Option<&'a str>) -> Option<&'a str> {
        header.filter(|state| self.continued() && !state.is_empty() && state.len() <= TRACESTATE_BYTES_MAX)
    }
}

/// By hand: every attempt makes one of these, and the formatting machinery takes three times as long.
fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)]);
        text.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// At most 32 lower-case hexadecimal digits; the standard forbids upper case.
fn lower_hex(digits: &str) -> Option<u128> {
    let all_lower = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    all_lower.then(|| u128::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_callers_trace_goes_on_under_a_new_span() {
        let clock = Clock::seeded(1);
        let trace = TraceContext::accept(Some(CALLER), &clock);
        assert_eq!(&*trace.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(trace.child(&clock).len(), CALLER.len());
        let [first, second] = [trace.child(&clock), trace.child(&clock)];
        assert_ne!(first, second);
        for child in [first, second] {
            assert!(child.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && child.ends_with("-01"), "{child}");
            assert!(!child.contains("00f067aa0ba902b7"));
            assert!(TraceContext::accept(Some(&child), &clock).continued());
        }
        assert_eq!(trace.tracestate(Some("vendor=1")), Some("vendor=1"));
        assert_eq!(trace.tracestate(Some(&"x".repeat(TRACESTATE_BYTES_MAX + 1))), None);
    }

    #[test]
    fn a_malformed_header_begins_a_new_trace() {
        let clock = Clock::seeded(1);
        for header in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "00-4bf92f3577b34da6a3ce929d0e0e473\u{e9}-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
        ] {
            let trace = TraceContext::accept(Some(header), &clock);
            assert!(!trace.continued(), "{header}");
            assert_eq!(trace.tracestate(Some("vendor=1")), None);
            assert_eq!(trace.trace_id().len(), 32);
        }
    }

    #[test]
    fn a_later_version_is_read_by_its_known_prefix() {
        let clock = Clock::seeded(1);
        let trace = TraceContext::accept(Some("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03-new"), &clock);
        assert!(trace.continued());
        assert!(trace.child(&clock).ends_with("-01"));
    }
}
