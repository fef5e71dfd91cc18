//! The log: one line per call and one per operational event, on stderr, so that stdout stays what a command answers.
//!
//! JSON for machines; a short human form when stderr is a terminal. `docs/observability.md` lists the fields.

use super::{CLIENT_TEXT_MAX, Recorded};
use outlast_model::{
    Failure, RunId, TargetId, Wall,
    record::{CallRecord, GaveUp, Outcome, SchemaStatus},
};
use serde_json::Value;
use std::{
    fmt,
    io::{IsTerminal, Write},
};

/// How log lines look, and what has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogFormat {
    /// For a person at a terminal; else one JSON object a line.
    pub human: bool,
    /// Whether there is a line per call.
    pub calls: bool,
    /// Whether operational events have one. Only where something else shows them, as `outlast demo` does, they do not.
    pub events: bool,
}

impl LogFormat {
    /// For people if stderr is a terminal, else JSON; with a line per call.
    pub fn detect() -> Self {
        LogFormat { human: std::io::stderr().is_terminal(), calls: true, events: true }
    }
}

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Info,
    /// Something gave way; the work went on.
    Warn,
    /// A client or an operator was let down.
    Error,
}

impl Level {
    /// The name in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}

/// An operational line. Whoever makes one sees to it that no field holds a payload or a secret.
#[derive(Clone, Debug, PartialEq)]
pub struct LogEvent {
    level: Level,
    name: &'static str,
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl LogEvent {
    /// An event of that level and name (`start`, `reload`, `breaker_opened`...), with a sentence for people.
    pub fn new(level: Level, name: &'static str, message: impl Into<String>) -> Self {
        LogEvent { level, name, message: message.into(), fields: Vec::new() }
    }

    /// [`LogEvent::new`] at [`Level::Info`].
    pub fn info(name: &'static str, message: impl Into<String>) -> Self {
        Self::new(Level::Info, name, message)
    }

    /// [`LogEvent::new`] at [`Level::Warn`].
    pub fn warn(name: &'static str, message: impl Into<String>) -> Self {
        Self::new(Level::Warn, name, message)
    }

    /// [`LogEvent::new`] at [`Level::Error`].
    pub fn error(name: &'static str, message: impl Into<String>) -> Self {
        Self::new(Level::Error, name, message)
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, field: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((field, value.into()));
        self
    }
}

/// Appends a call's line.
pub(super) fn write_call(out: &mut Vec<u8>, recorded: &Recorded, format: LogFormat) {
    match format {
        LogFormat { calls: false, .. } => {}
        LogFormat { human: true, .. } => call_human(out, recorded),
        LogFormat { human: false, .. } => call_json(out, recorded),
    }
}

/// Appends an event's line.
pub(super) fn write_event(out: &mut Vec<u8>, event: &LogEvent, format: LogFormat, now: Wall) {
    if !format.events {
        return;
    }
    if format.human {
        let fields: String = event.fields.iter().map(|(name, value)| format!("  {name}={}", plain(value))).collect();
        human_line(out, now, &format!("{:5} {}{fields}", event.level.name(), event.message));
        return;
    }
    let mut line = Line::begin(out, now, event.level, event.name);
    line.text("message", &event.message);
    for (name, value) in &event.fields {
        line.raw(name, value);
    }
    line.end();
}

/// Where a call was meant to go, and where it went instead, if it did.
fn primary_and_fallback(Recorded { call, fields }: &Recorded) -> (Option<&TargetId>, Option<&TargetId>) {
    let asked_first = || call.attempts.first().map(|attempt| &attempt.target).or(call.planned.first());
    let primary = fields.primary.as_ref().or_else(asked_first);
    let fallback = call.last_target().filter(|last| primary.is_some_and(|primary| *last != primary));
    (primary, fallback)
}

/// Why the call went elsewhere: the first failure, or what kept the primary out of the plan.
fn fallback_reason(call: &CallRecord, primary: Option<&TargetId>) -> Option<&'static str> {
    let left_out = call.left_out.iter().find(|left_out| Some(&left_out.target) == primary);
    left_out.map(|left_out| left_out.why.name()).or(call.first_failure().map(Failure::class))
}

fn level(call: &CallRecord) -> Level {
    match call.outcome {
        Outcome::Answered if call.is_plain() => Level::Info,
        Outcome::Answered | Outcome::Deferred => Level::Warn,
        Outcome::Cancelled => Level::Info,
        Outcome::Failed(Failure::InvalidRequest | Failure::SafetyBlock) => Level::Warn,
        Outcome::Failed(_) | Outcome::Interrupted(_) => Level::Error,
    }
}

/// Whether what was delivered passed its checks; unknown when nothing came to them.
fn quality_gate(outcome: Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Answered => Some("passed"),
        Outcome::Failed(failure) | Outcome::Interrupted(failure) => match failure.remedy().blame {
            outlast_model::failure::Blame::Quality => Some("failed"),
            outlast_model::failure::Blame::None
            | outlast_model::failure::Blame::Fault
            | outlast_model::failure::Blame::Schedule
            | outlast_model::failure::Blame::KeyOut
            | outlast_model::failure::Blame::TargetOut => None,
        },
        Outcome::Cancelled | Outcome::Deferred => None,
    }
}

fn schema_status(status: SchemaStatus) -> &'static str {
    match status {
        SchemaStatus::None => "none",
        SchemaStatus::Valid => "valid",
        SchemaStatus::Invalid => "invalid",
        SchemaStatus::Unverified => "unverified",
    }
}

fn call_json(out: &mut Vec<u8>, recorded: &Recorded) {
    let Recorded { call, fields } = recorded;
    let (primary, fallback) = primary_and_fallback(recorded);
    let reason = fallback.and_then(|_| fallback_reason(call, primary));
    let failure = call.first_failure().or(call.outcome.failure());
    let tokens = |pick: fn(&outlast_model::turn::Usage) -> u32| -> u64 {
        call.attempts.iter().map(|attempt| u64::from(pick(&attempt.usage))).sum()
    };
    let ended = Wall(call.started.0.saturating_add_unsigned(call.latency_us / 1000));
    let mut line = Line::begin(out, ended, level(call), "call");
    line.text("request_id", call.request_id.as_str());
    line.text("trace_id", &call.trace_id);
    line.maybe("task_id", call.task_id.as_deref());
    line.maybe("run", call.run.as_ref().map(RunId::as_str));
    line.maybe("tenant_hash", call.tenant_hash.as_deref());
    line.maybe("workflow_step", call.workflow_step.as_deref());
    line.text("route", cut(call.route.as_str()));
    line.text("dialect", call.dialect.name());
    line.plain("stream", call.stream);
    line.text("outcome", call.outcome.name());
    line.plain("status", fields.status);
    line.maybe("primary_target", primary.map(TargetId::as_str));
    match failure {
        Some(failure) => line.plain("failure", format_args!("\"{failure}\"")),
        None => line.plain("failure", "null"),
    }
    line.maybe("fallback_target", fallback.map(TargetId::as_str));
    line.maybe("fallback_reason", reason);
    line.maybe("target", call.served_by.as_ref().map(TargetId::as_str));
    line.text("tool_mode", call.tool_mode.name());
    line.plain("schema_version", "null");
    line.text("schema_status", schema_status(call.schema_status));
    line.plain("source_ids", "[]");
    line.maybe("quality_gate", quality_gate(call.outcome));
    line.plain("degraded", call.degraded);
    line.names("gave_up", call.gave_up.iter().map(GaveUp::name));
    line.maybe("backstop", call.backstop.as_ref().map(|backstop| backstop.kind.as_str()));
    line.maybe("role", call.parent.as_ref().map(|parent| parent.role.name()));
    line.plain("attempts", call.attempts.len());
    line.millis("latency_ms", call.latency_us);
    match call.first_output_us {
        Some(micros) => line.millis("ttft_ms", micros),
        None => line.plain("ttft_ms", "null"),
    }
    line.plain("input_tokens", tokens(|usage| usage.input_tokens));
    line.plain("output_tokens", tokens(|usage| usage.output_tokens));
    for (name, usd) in [("cost_usd", call.cost), ("wasted_usd", call.wasted)] {
        match call.cost_is_known() {
            true => line.usd(name, usd.as_nanos()),
            false => line.plain(name, "null"),
        }
    }
    line.end();
}

fn call_human(out: &mut Vec<u8>, recorded: &Recorded) {
    let call = &recorded.call;
    let (primary, fallback) = primary_and_fallback(recorded);
    let target = fallback.or(primary).map_or("no target", TargetId::as_str);
    let ended = Wall(call.started.0.saturating_add_unsigned(call.latency_us / 1000));
    let mut text = format!(
        "{:5} {} {} -> {target} in {} ms",
        level(call).name(),
        call.outcome.name(),
        cut(call.route.as_str()),
        call.latency_us / 1000
    );
    if let Some(failure) = call.first_failure().or(call.outcome.failure()) {
        text += &format!(", {} attempts, first {failure}", call.attempts.len());
        if let Some(first) = call.attempts.first() {
            text += &format!(" on {}", first.target);
        }
    } else if let (Some(primary), Some(reason)) = (primary, fallback.and_then(|_| fallback_reason(call, primary))) {
        text += &format!(", {reason}: {primary}");
    }
    if call.degraded {
        let names: Vec<&str> = call.gave_up.iter().map(GaveUp::name).collect();
        text += &format!(", degraded ({})", names.join(", "));
    }
    if let Some(backstop) = &call.backstop {
        text += &format!(", {} backstop", backstop.kind);
    }
    human_line(out, ended, &format!("{text}  {}", call.request_id));
}

/// The client chose this text: it may be of any length.
fn cut(text: &str) -> &str {
    text.char_indices().nth(CLIENT_TEXT_MAX).map_or(text, |(end, _)| &text[..end])
}

/// Control characters would let a client's text forge lines or drive the terminal.
fn human_line(out: &mut Vec<u8>, now: Wall, text: &str) {
    let clean = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    let time = jiff::Timestamp::from_millisecond(now.0).unwrap_or_default();
    out.extend_from_slice(time.strftime("%H:%M:%S%.3f ").to_string().as_bytes());
    out.extend_from_slice(clean.collect::<String>().as_bytes());
    out.push(b'\n');
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// One JSON object on one line, written field by field.
struct Line<'a>(&'a mut Vec<u8>);

impl<'a> Line<'a> {
    fn begin(out: &'a mut Vec<u8>, now: Wall, level: Level, event: &str) -> Self {
        out.extend_from_slice(b"{\"ts\":\"");
        let time = jiff::Timestamp::from_millisecond(now.0).unwrap_or_default();
        let mut line = Line(out);
        line.put(format_args!("{time:.3}\",\"level\":\"{}\",\"event\":\"{event}\"", level.name()));
        line
    }

    fn put(&mut self, text: fmt::Arguments<'_>) {
        // Writing into memory does not fail.
        let _ = self.0.write_fmt(text);
    }

    fn name(&mut self, name: &str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        let _ = serde_json::to_writer(&mut *self.0, text);
    }

    fn maybe(&mut self, name: &str, text: Option<&str>) {
        match text {
            Some(text) => self.text(name, text),
            None => self.plain(name, "null"),
        }
    }

    /// A list of words that need no escaping.
    fn names<'w>(&mut self, name: &str, words: impl Iterator<Item = &'w str>) {
        self.name(name);
        self.0.push(b'[');
        for (at, word) in words.enumerate() {
            self.put(format_args!("{}\"{word}\"", if at > 0 { "," } else { "" }));
        }
        self.0.push(b']');
    }

    fn raw(&mut self, name: &str, value: &Value) {
        self.name(name);
        let _ = serde_json::to_writer(&mut *self.0, value);
    }

    fn plain(&mut self, name: &str, value: impl fmt::Display) {
        self.name(name);
        self.put(format_args!("{value}"));
    }

    /// Milliseconds with microsecond digits.
    fn millis(&mut self, name: &str, micros: u64) {
        self.plain(name, format_args!("{}.{:03}", micros / 1000, micros % 1000));
    }

    /// Dollars with nano-dollar digits.
    fn usd(&mut self, name: &str, nanos: u64) {
        self.plain(name, format_args!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000));
    }

    fn end(self) {
        self.0.extend_from_slice(b"}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{
        LogFields,
        fixture::{NOW, failed, plain, rerouted},
    };

    fn line(call: CallRecord, human: bool) -> String {
        let mut out = Vec::new();
        let recorded = Recorded { call, fields: LogFields { status: 200, ..LogFields::default() } };
        write_call(&mut out, &recorded, LogFormat { human, calls: true, events: true });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_unknown_price_is_not_a_price_of_nothing() {
        let mut call = rerouted("req_1");
        call.attempts[1].cost = None;
        assert!(line(call, false).contains(r#""cost_usd":null,"wasted_usd":null}"#));
    }

    #[test]
    fn a_rerouted_call_tells_its_story_in_one_line() {
        let expected = r#"{"ts":"2027-01-15T08:00:00.812Z","level":"warn","event":"call","request_id":"req_1",
            "trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","task_id":"nightly-7","run":null,"tenant_hash":"12ab34cd56ef",
            "workflow_step":null,"route":"support","dialect":"openai-chat","stream":true,"outcome":"answered",
            "status":200,"primary_target":"openai/small","failure":"overloaded","fallback_target":"anthropic/large",
            "fallback_reason":"overloaded","target":"anthropic/large","tool_mode":"full","schema_version":null,"schema_status":"none",
            "source_ids":[],"quality_gate":"passed","degraded":false,"gave_up":[],"backstop":null,"role":null,"attempts":2,"latency_ms":812.345,
            "ttft_ms":211.002,"input_tokens":120,"output_tokens":40,"cost_usd":0.001250000,"wasted_usd":0.000000000}"#;
        let expected: String = expected.lines().map(str::trim).collect();
        assert_eq!(line(rerouted("req_1"), false), expected + "\n");
    }

    #[test]
    fn every_line_is_json_and_has_every_field() {
        for call in [plain("req_1"), rerouted("req_2"), failed("req_3")] {
            let line: serde_json::Value = serde_json::from_str(&line(call, false)).unwrap();
            for field in [
                "request_id",
                "trace_id",
                "task_id",
                "run",
                "tenant_hash",
                "workflow_step",
                "route",
                "primary_target",
                "failure",
                "fallback_target",
                "tool_mode",
                "schema_version",
                "schema_status",
                "source_ids",
                "quality_gate",
                "degraded",
                "attempts",
                "latency_ms",
                "cost_usd",
            ] {
                assert!(line.get(field).is_some(), "{field} is missing");
            }
        }
    }

    #[test]
    fn a_failed_call_names_its_first_failure_and_no_target() {
        let line: serde_json::Value = serde_json::from_str(&line(failed("req_1"), false)).unwrap();
        assert_eq!(line["level"], "error");
        assert_eq!(line["failure"], "timeout:first_token");
        assert_eq!(line["primary_target"], "openai/small");
        assert!(line["target"].is_null() && line["fallback_target"].is_null() && line["ttft_ms"].is_null());
    }

    #[test]
    fn a_call_that_met_an_open_breaker_names_its_primary_and_why() {
        let mut call = plain("req_1");
        let out = outlast_model::record::LeftOut {
            target: "openai/large".into(),
            why: outlast_model::record::WhyLeftOut::BreakerOpen,
        };
        call.left_out.push(out);
        let mut out = Vec::new();
        let fields = LogFields { status: 200, primary: Some("openai/large".into()) };
        call_json(&mut out, &Recorded { call, fields });
        let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&line["level"], &line["failure"]), (&"info".into(), &serde_json::Value::Null));
        assert_eq!(line["primary_target"], "openai/large");
        assert_eq!(
            (&line["fallback_target"], &line["fallback_reason"]),
            (&"openai/small".into(), &"breaker_open".into())
        );
    }

    #[test]
    fn a_person_at_a_terminal_gets_a_sentence() {
        assert_eq!(
            line(rerouted("req_1"), true),
            "08:00:00.812 warn  answered support -> anthropic/large in 812 ms, 2 attempts, first overloaded on \
             openai/small  req_1\n"
        );
        assert_eq!(
            line(plain("req_2"), true),
            "08:00:00.812 info  answered support -> openai/small in 812 ms  req_2\n"
        );
    }

    #[test]
    fn an_event_cannot_forge_another_line() {
        let event = LogEvent::warn("reload", "refused\n{\"event\":\"start\"}").with("file", "a\nb").with("errors", 2);
        for human in [false, true] {
            let mut out = Vec::new();
            write_event(&mut out, &event, LogFormat { human, calls: true, events: true }, NOW);
            assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
        }
    }
}
