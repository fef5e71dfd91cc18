//! What every command is carried out with, and the small conversions all of them need.

use super::fault::{Fault, Outcome};
use crate::{Epoch, Limits, Payload, Room, Sealer, StoreError, seal::Owner};
use outlast_model::Wall;
use rusqlite::{Connection, OptionalExtension};
use std::{sync::Arc, time::Duration};

/// The surroundings of one command, inside its transaction.
#[derive(Clone, Copy)]
pub(super) struct Cx<'a> {
    pub(super) db: &'a Connection,
    pub(super) limits: &'a Limits,
    pub(super) sealer: &'a Sealer,
    pub(super) place: &'a Arc<str>,
    pub(super) now: Wall,
}

impl Cx<'_> {
    /// The next claim's number.
    pub(super) fn next_epoch(&self) -> Outcome<Epoch> {
        let mut next = self.db.prepare_cached("UPDATE epochs SET last = last + 1 RETURNING last")?;
        Ok(Epoch(next.query_row([], |row| row.get(0))?))
    }

    /// So long after now.
    pub(super) fn after(&self, duration: Duration) -> i64 {
        self.now.0.saturating_add(millis(duration))
    }

    /// So long before now.
    pub(super) fn before(&self, duration: Duration) -> i64 {
        self.now.0.saturating_sub(millis(duration))
    }

    /// How long ago `then` was; nothing if the clock went back.
    pub(super) fn age(&self, then: i64) -> Duration {
        Duration::from_millis(u64::try_from(self.now.0.saturating_sub(then)).unwrap_or(0))
    }

    /// Refuses a payload that is larger than any may be.
    pub(super) fn fits(&self, bytes: usize) -> Outcome<()> {
        let (bytes, limit) = (bytes as u64, self.limits.payload_bytes);
        if bytes > limit { Err(StoreError::TooLarge { bytes, limit }.into()) } else { Ok(()) }
    }

    /// Opens a stored payload.
    pub(super) fn open(&self, owner: Owner<'_>, stored: Option<Vec<u8>>) -> Outcome<Payload> {
        let Some(stored) = stored else {
            let why = format!("a {} of {} is missing", owner.column, owner.table).into();
            return Err(StoreError::Corrupt { place: self.place.clone(), why }.into());
        };
        self.sealer.open(self.place, owner, stored).map_err(Fault::Store)
    }

    /// Which limit one more row of so many bytes would break: the tenant's share (true) or the whole (false).
    pub(super) fn over(&self, kind: Kind, tenant: &str, bytes: usize) -> Outcome<Option<bool>> {
        let room = kind.room(self.limits);
        let breaks = |(rows, held): (i64, i64), bound: crate::Bound| {
            let held = held.unsigned_abs().saturating_add(bytes as u64);
            rows.unsigned_abs() + 1 > bound.rows || held > bound.bytes
        };
        let mut share = self.db.prepare_cached("SELECT rows, bytes FROM shares WHERE kind = ?1 AND tenant = ?2")?;
        let share = share.query_row([kind.name(), tenant], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        if breaks(share.unwrap_or((0, 0)), room.tenant) {
            return Ok(Some(true));
        }
        let mut whole = self.db.prepare_cached("SELECT rows, bytes FROM totals WHERE kind = ?1")?;
        let whole = whole.query_row([kind.name()], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(breaks(whole, room.whole).then_some(false))
    }

    /// How many rows of a kind there are.
    pub(super) fn rows(&self, kind: Kind) -> Outcome<u64> {
        let mut rows = self.db.prepare_cached("SELECT rows FROM totals WHERE kind = ?1")?;
        Ok(rows.query_row([kind.name()], |row| row.get::<_, i64>(0))?.unsigned_abs())
    }
}

/// What there are limits of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Calls,
    Queue,
    Cache,
    Escalations,
    Confirmations,
    Runs,
    Effects,
}

impl Kind {
    pub(super) const ALL: [Kind; 7] =
        [Kind::Calls, Kind::Queue, Kind::Cache, Kind::Escalations, Kind::Confirmations, Kind::Runs, Kind::Effects];

    /// Its table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Calls => "calls",
            Kind::Queue => "queue",
            Kind::Cache => "cache",
            Kind::Escalations => "escalations",
            Kind::Confirmations => "confirmations",
            Kind::Runs => "runs",
            Kind::Effects => "effects",
        }
    }

    pub(super) fn room(self, limits: &Limits) -> Room {
        match self {
            Kind::Calls => limits.calls,
            Kind::Queue => limits.queue,
            Kind::Cache => limits.cache,
            Kind::Escalations => limits.escalations,
            Kind::Confirmations => limits.confirmations,
            Kind::Runs => limits.runs,
            Kind::Effects => limits.effects,
        }
    }

    /// What there is too much of, at the limit.
    pub(super) fn too_many(self, of_tenant: bool) -> StoreError {
        let what = match self {
            Kind::Calls => "idempotency keys",
            Kind::Queue => "queued requests",
            Kind::Cache => "cached replies",
            Kind::Escalations => "escalations",
            Kind::Confirmations => "questions to users",
            Kind::Runs => "runs",
            Kind::Effects => "effects",
        };
        StoreError::LimitReached { what, of_tenant }
    }
}

/// Whole milliseconds.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
