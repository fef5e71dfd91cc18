//! Calls for the tests of this folder.

use super::{LogFields, LogFormat, Recorded, TelemetryOptions};
use outlast_model::{
    Failure, FailureReport, TargetId, Usd, Wall,
    policy::{Dialect, ToolMode},
    record::{AttemptReason, AttemptRecord, CALL_RECORD_VERSION, CallRecord, Decision, Outcome, SchemaStatus},
    turn::{Finish, Usage},
};
use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

/// 2027-01-15 08:00:00 UTC.
pub(super) const NOW: Wall = Wall(1_800_000_000_000);

pub(super) fn plain(id: &str) -> CallRecord {
    CallRecord {
        version: CALL_RECORD_VERSION,
        request_id: id.into(),
        trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
        task_id: Some("nightly-7".into()),
        run: None,
        tenant_hash: Some("12ab34cd56ef".into()),
        workflow_step: None,
        route: "support".into(),
        dialect: Dialect::OpenaiChat,
        stream: true,
        started: NOW,
        latency_us: 812_345,
        first_output_us: Some(211_002),
        planned: vec!["openai/small".into(), "anthropic/large".into()],
        left_out: Vec::new(),
        attempts: vec![attempt("openai/small", None)],
        outcome: Outcome::Answered,
        served_by: Some("openai/small".into()),
        degraded: false,
        gave_up: Vec::new(),
        tool_mode: ToolMode::Full,
        backstop: None,
        confidence: None,
        agreement: None,
        tier: None,
        risk: None,
        state: None,
        parent: None,
        schema_status: SchemaStatus::None,
        cost: Usd::from_nanos(1_250_000),
        wasted: Usd::ZERO,
    }
}

pub(super) fn rerouted(id: &str) -> CallRecord {
    CallRecord {
        attempts: vec![attempt("openai/small", Some(Failure::Overloaded)), attempt("anthropic/large", None)],
        served_by: Some("anthropic/large".into()),
        ..plain(id)
    }
}

pub(super) fn failed(id: &str) -> CallRecord {
    CallRecord {
        attempts: vec![AttemptRecord {
            decision: Decision::GiveUp,
            ..attempt("openai/small", Some(Failure::Timeout(outlast_model::failure::Deadline::FirstToken)))
        }],
        outcome: Outcome::Failed(Failure::Exhausted),
        served_by: None,
        first_output_us: None,
        cost: Usd::ZERO,
        ..plain(id)
    }
}

pub(super) fn attempt(target: &str, failure: Option<Failure>) -> AttemptRecord {
    AttemptRecord {
        target: TargetId::from(target),
        key: 0,
        reason: AttemptReason::First,
        started_us: 10,
        first_output_us: failure.is_none().then_some(200_000),
        took_us: 800_000,
        failure: failure.map(FailureReport::of),
        problems: Vec::new(),
        fixes: Vec::new(),
        tool_mode: ToolMode::Full,
        shortened: false,
        finish: failure.is_none().then_some(Finish::Stop),
        bytes_out: 900,
        bytes_in: 700,
        usage: if failure.is_none() {
            Usage { input_tokens: 120, output_tokens: 40, ..Usage::default() }
        } else {
            Usage::default()
        },
        cost: failure.is_none().then_some(Usd::from_nanos(1_250_000)),
        decision: if failure.is_some() { Decision::Reroute } else { Decision::Deliver },
    }
}

pub(super) fn recorded(call: CallRecord) -> Arc<Recorded> {
    Arc::new(Recorded { call, fields: LogFields { status: 200, ..LogFields::default() } })
}

pub(super) fn options() -> TelemetryOptions {
    TelemetryOptions { log: LogFormat { human: false, calls: true, events: true }, ..TelemetryOptions::default() }
}

/// A log that can be read back.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    pub(super) fn lines(&self) -> Vec<serde_json::Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
