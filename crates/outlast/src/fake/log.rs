//! What the fake saw: a bounded log and counters, without any prompt or key.

use super::Shared;
use outlast_model::policy::Dialect;
use serde::Serialize;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// One model call, as the fake saw it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Seen {
    /// Counts up from 1.
    pub id: u64,
    /// Milliseconds after the fake's start.
    pub at_ms: u64,
    /// The URL's path.
    pub path: String,
    /// The dialect of that path.
    pub dialect: Dialect,
    /// The model asked for, suffixes included; empty when the body could not be read.
    pub model: String,
    /// A stream was asked for.
    pub stream: bool,
    /// The output limit asked for, in tokens. Probes ask for very little.
    pub output_limit: Option<u32>,
    /// How many tools were offered.
    pub tools: usize,
    /// Structured output was demanded.
    pub structured: bool,
    /// Headers of interest. Of keys only the start of a hash, under `key`.
    pub headers: BTreeMap<String, String>,
    /// The start of the BLAKE3 hash of the body, in hex.
    pub body_hash: String,
    /// Bytes of the body.
    pub bytes_in: u64,
    /// The fault it got, in its text form.
    pub fault: Option<String>,
    /// The status answered, if any.
    pub status: Option<u16>,
    /// Bytes of body handed to the connection.
    pub bytes_out: u64,
    /// The input tokens its reply counts; 0 when it is no reply.
    pub input_tokens: u32,
    /// The output tokens its reply counts, sent or not.
    pub output_tokens: u32,
    /// How it ended.
    pub ending: Ending,
}

/// How a call ended, from the fake's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It has not.
    Open,
    /// All that was meant to be sent was handed to the connection, be it a good reply or a fault.
    Sent,
    /// The client left, or the connection was reset by `refuse-connections`, before that.
    ClientLeft,
}

/// Totals since the start or the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// TCP connections accepted.
    pub connections: u64,
    /// Model calls.
    pub calls: u64,
    /// Of those, streams.
    pub streams: u64,
    /// Calls that got a fault, by its text form; at most 256 forms, the rest under `other`.
    pub faults: BTreeMap<String, u64>,
    /// Replies by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Calls whose client left early.
    pub clients_left: u64,
    /// Calls going on.
    pub in_flight: u64,
    /// The most there ever were at once.
    pub in_flight_max: u64,
    /// Bytes of request bodies.
    pub bytes_in: u64,
    /// Bytes of response bodies.
    pub bytes_out: u64,
}

const FAULT_FORMS_MAX: usize = 256;

/// The log's state; the fake keeps it behind a lock.
pub(super) struct Log {
    entries: VecDeque<Seen>,
    max: usize,
    pub(super) stats: Stats,
}

impl Log {
    /// Keeps at most `max` entries; the oldest go first.
    pub(super) fn new(max: usize) -> Self {
        Log { entries: VecDeque::new(), max, stats: Stats::default() }
    }

    pub(super) fn keeps_entries(&self) -> bool {
        self.max > 0
    }

    pub(super) fn entries(&self) -> Vec<Seen> {
        self.entries.iter().cloned().collect()
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        let in_flight = self.stats.in_flight;
        self.stats = Stats { in_flight, in_flight_max: in_flight, ..Stats::default() };
    }

    /// Counts a call in and returns how many are going on, this one included.
    pub(super) fn begin(&mut self, stream: bool, bytes_in: u64, seen: Option<Seen>) -> u64 {
        let stats = &mut self.stats;
        stats.calls += 1;
        stats.streams += u64::from(stream);
        stats.bytes_in += bytes_in;
        stats.in_flight += 1;
        stats.in_flight_max = stats.in_flight_max.max(stats.in_flight);
        let in_flight = stats.in_flight;
        if let Some(seen) = seen {
            if self.entries.len() >= self.max {
                self.entries.pop_front();
            }
            self.entries.push_back(seen);
        }
        in_flight
    }

    fn end(&mut self, call: &OpenCall) {
        let stats = &mut self.stats;
        stats.in_flight = stats.in_flight.saturating_sub(1);
        stats.bytes_out += call.bytes_out;
        stats.clients_left += u64::from(call.ending == Ending::ClientLeft);
        if let Some(seen) = self.entry(call.id) {
            seen.bytes_out = call.bytes_out;
            seen.ending = call.ending;
        }
    }

    fn entry(&mut self, id: u64) -> Option<&mut Seen> {
        let at = self.entries.partition_point(|seen| seen.id < id);
        self.entries.get_mut(at).filter(|seen| seen.id == id)
    }
}

/// A call that is going on. Dropping it ends its log entry, whatever happened.
pub(super) struct OpenCall {
    shared: Arc<Shared>,
    id: u64,
    bytes_out: u64,
    ending: Ending,
}

impl OpenCall {
    pub(super) fn new(shared: Arc<Shared>, id: u64) -> Self {
        OpenCall { shared, id, bytes_out: 0, ending: Ending::ClientLeft }
    }

    /// Notes the fault before it bites, so that a hanging call shows it.
    pub(super) fn got_fault(&self, fault: String) {
        let mut log = self.shared.log();
        let full = log.stats.faults.len() >= FAULT_FORMS_MAX && !log.stats.faults.contains_key(&fault);
        *log.stats.faults.entry(if full { "other".to_owned() } else { fault.clone() }).or_default() += 1;
        if let Some(seen) = log.entry(self.id) {
            seen.fault = Some(fault);
        }
    }

    pub(super) fn answers(&self, status: u16) {
        let mut log = self.shared.log();
        *log.stats.statuses.entry(status).or_default() += 1;
        if let Some(seen) = log.entry(self.id) {
            seen.status = Some(status);
        }
    }

    /// What its reply says that it consumed.
    pub(super) fn counts(&self, input_tokens: u32, output_tokens: u32) {
        if let Some(seen) = self.shared.log().entry(self.id) {
            (seen.input_tokens, seen.output_tokens) = (input_tokens, output_tokens);
        }
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.bytes_out += bytes as u64;
    }

    pub(super) fn all_sent(&mut self) {
        self.ending = Ending::Sent;
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let shared = Arc::clone(&self.shared);
        shared.log().end(self);
        shared.call_counted();
    }
}
