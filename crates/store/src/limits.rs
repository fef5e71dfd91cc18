//! How much a store keeps. Every kind of row has a limit, and each limit says what happens at it.

use std::time::Duration;

/// How many rows and how many bytes of payload there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Rows.
    pub rows: u64,
    /// Bytes of payload in them, before sealing.
    pub bytes: u64,
}

/// The room of one kind of row: in whole, and of it for one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// For all tenants together.
    pub whole: Bound,
    /// For any one of them.
    pub tenant: Bound,
}

impl Room {
    /// Room for so many rows and bytes in whole, a quarter of both for one tenant.
    pub const fn of(rows: u64, bytes: u64) -> Self {
        Room { whole: Bound { rows, bytes }, tenant: Bound { rows: rows.div_ceil(4), bytes: bytes.div_ceil(4) } }
    }
}

/// How much a store keeps, and for how long where a command does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// One payload, in bytes. A larger one is refused with [`crate::StoreError::TooLarge`].
    pub payload_bytes: u64,
    /// Idempotent calls. At the limit a new key is refused with [`crate::StoreError::LimitReached`].
    pub calls: Room,
    /// Queued requests, finished ones that may still be fetched among them. At the limit: [`crate::Enqueued::Full`].
    pub queue: Room,
    /// Good replies. At the limit the oldest go.
    pub cache: Room,
    /// Escalations, decided ones among them. At the limit: [`crate::StoreError::LimitReached`].
    pub escalations: Room,
    /// Entries of the audit log, which are never removed. At the limit what would have to be audited is refused with
    /// [`crate::StoreError::LimitReached`].
    pub audit: u64,
    /// Questions to users. At the limit: [`crate::StoreError::LimitReached`].
    pub confirmations: Room,
    /// How long the end of a queued request can be fetched.
    pub finished_keep: Duration,
    /// How long a decided escalation is kept. An open one is kept until it is decided.
    pub decided_keep: Duration,
    /// How long an expired question is still told from one that never was.
    pub expired_keep: Duration,
    /// A delivery is given up after so many attempts.
    pub delivery_attempts: u32,
    /// Runs, ended ones among them, with the bytes of their inputs, outputs, journals and signals. At the limit a new run is refused with
    /// [`crate::StoreError::LimitReached`]; runs that are there go on.
    pub runs: Room,
    /// Entries of the tenants' ledgers, outside of journals, with the bytes of what was asked, of how it ended, of what
    /// undoes it and of what a person said. At the limit a new key is refused with [`crate::StoreError::LimitReached`].
    pub effects: Room,
    /// Signals of one run that nobody has waited for yet. At the limit: [`crate::Signalled::Full`].
    pub signals: u32,
    /// Steps of one run. At the limit a new step is refused with [`crate::StoreError::LimitReached`]; those that are there
    /// are told and ended as ever.
    pub steps: u64,
    /// Payloads up to so many bytes are kept in their row, larger ones once per tenant and content.
    pub inline_bytes: u64,
    /// A worker not seen for so long is gone: standbys step in for it. After [`crate::WorkerView::KEPT`] times as long it
    /// is forgotten.
    pub worker_gone: Duration,
    /// How long the payloads of an ended run are kept, and those of an ended effect, counted from the end of the last run
    /// whose journal points to it.
    pub payload_keep: Duration,
    /// How long an ended run is still known, and the key of an ended effect, counted alike. What has not ended is kept.
    pub key_keep: Duration,
}

const MIB: u64 = 1 << 20;
const DAY: Duration = Duration::from_secs(24 * 3600);

impl Limits {
    /// For a file: some 13 GB at most.
    pub const FILE: Limits = Limits {
        payload_bytes: 8 * MIB,
        calls: Room::of(1_000_000, 1024 * MIB),
        queue: Room::of(100_000, 1024 * MIB),
        cache: Room::of(100_000, 512 * MIB),
        escalations: Room::of(100_000, 1024 * MIB),
        audit: 10_000_000,
        confirmations: Room::of(100_000, 64 * MIB),
        finished_keep: DAY,
        decided_keep: Duration::from_secs(30 * 24 * 3600),
        expired_keep: DAY,
        delivery_attempts: 12,
        runs: Room::of(1_000_000, 8 * 1024 * MIB),
        effects: Room::of(1_000_000, 1024 * MIB),
        signals: 1_000,
        steps: 100_000,
        inline_bytes: 64 * 1024,
        worker_gone: Duration::from_secs(60),
        payload_keep: Duration::from_secs(7 * 24 * 3600),
        key_keep: Duration::from_secs(90 * 24 * 3600),
    };

    /// For memory: some 140 MB at most.
    pub const MEMORY: Limits = Limits {
        payload_bytes: 8 * MIB,
        calls: Room { whole: Bound { rows: 10_000, bytes: 16 * MIB }, tenant: Bound { rows: 5_000, bytes: 8 * MIB } },
        queue: Room { whole: Bound { rows: 1_000, bytes: 16 * MIB }, tenant: Bound { rows: 500, bytes: 8 * MIB } },
        cache: Room { whole: Bound { rows: 1_000, bytes: 16 * MIB }, tenant: Bound { rows: 500, bytes: 8 * MIB } },
        escalations: Room { whole: Bound { rows: 1_000, bytes: 8 * MIB }, tenant: Bound { rows: 500, bytes: 8 * MIB } },
        audit: 20_000,
        confirmations: Room { whole: Bound { rows: 1_000, bytes: MIB }, tenant: Bound { rows: 500, bytes: MIB } },
        runs: Room { whole: Bound { rows: 10_000, bytes: 64 * MIB }, tenant: Bound { rows: 5_000, bytes: 32 * MIB } },
        effects: Room { whole: Bound { rows: 10_000, bytes: 16 * MIB }, tenant: Bound { rows: 5_000, bytes: 8 * MIB } },
        ..Limits::FILE
    };
}
