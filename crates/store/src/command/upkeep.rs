//! Upkeep: what a store says of itself and what is done for it.

use std::{path::PathBuf, sync::Arc, time::Duration};

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Queued requests that became expired, webhook deliveries for them written along.
    pub expired: u64,
    /// Rows removed.
    pub removed: u64,
    /// True if the limit ended it: call again.
    pub more: bool,
}

/// How a store is. Cheap to ask for, and for metrics: numbers and names only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// `memory` or `sqlite`.
    pub backend: &'static str,
    /// False if it only reads.
    pub writable: bool,
    /// The schema's version; 0 where there is none.
    pub schema: i64,
    /// True if payloads are sealed.
    pub sealed: bool,
    /// Bytes on disk; 0 where there is none.
    pub disk_bytes: u64,
    /// Commands waiting for the writer now.
    pub waiting_commands: u64,
    /// Idempotency keys, expired ones not yet swept among them.
    pub calls: u64,
    /// Queued requests that wait, or whose claim ran out.
    pub queue_waiting: u64,
    /// Queued requests somebody is at.
    pub queue_running: u64,
    /// How long the oldest waiting request has waited.
    pub queue_oldest: Option<Duration>,
    /// Good replies, expired ones not yet swept among them.
    pub cached: u64,
    /// Escalations that wait for a person.
    pub escalations_open: u64,
    /// Webhook deliveries to be made.
    pub deliveries_pending: u64,
    /// Webhook deliveries given up, of requests still kept.
    pub deliveries_given_up: u64,
    /// Notices of escalations to be sent.
    pub notices_pending: u64,
    /// Notices given up, of escalations still kept.
    pub notices_given_up: u64,
    /// Runs, ended ones still known among them.
    pub runs: u64,
    /// Runs that are ready to be claimed, at once or later, and those that are journaled to without claims.
    pub runs_ready: u64,
    /// Runs that are claimed, those whose lease ran out among them.
    pub runs_running: u64,
    /// Runs that wait for a timer or a signal.
    pub runs_waiting: u64,
    /// Runs that wait for a person, quarantined ones among them.
    pub runs_parked: u64,
    /// Entries of the tenants' ledgers.
    pub effects: u64,
}

/// A backup was made and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackedUp {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// What a full check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Rows whose payloads were opened.
    pub rows: u64,
    /// What is damaged, in words, without payload; at most 100 entries. Empty: all is well.
    pub faults: Vec<Arc<str>>,
}
