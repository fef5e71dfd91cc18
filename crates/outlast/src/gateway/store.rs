//! The durable store as the gateway uses it: opened at the start, its troubles counted, swept and looked after.

use super::{Shared, serve::Denial};
use crate::{
    alerts::{Alert, AlertKind},
    clock::{self, Clock},
    config::{self, StoreConfig},
};
use outlast_model::{TenantId, Wall};
use outlast_store::{
    Answer, DataKey, Limits, MemoryStore, Sealing, SqliteOptions, SqliteStore, Store, StoreError, StoreHealth,
};
use outlast_wire::error::Refused;
use std::{sync::Arc, time::Duration};

/// How often the store is swept and asked how it is.
const UPKEEP_EVERY: Duration = Duration::from_secs(15);
/// Rows of one sweep: some milliseconds of the writer's time, so that no command waits long behind it.
const SWEEP_ROWS: u32 = 500;
/// A store that takes longer to answer is as good as down.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The tenant of callers without a key. No hash of a key is spelled so.
pub(super) const NOBODY: &str = "-";

/// Whose rows a caller's are.
pub(super) fn tenant(hash: Option<&str>) -> TenantId {
    TenantId::new(hash.unwrap_or(NOBODY))
}

/// A time and what is added to it, as the log writes times.
pub(crate) fn shown(at: Wall, later: Duration) -> String {
    let later = i64::try_from(later.as_millis()).unwrap_or(i64::MAX);
    format!("{:.3}", jiff::Timestamp::from_millisecond(at.0.saturating_add(later)).unwrap_or_default())
}

/// The system's clock, as the store reads it.
#[derive(Debug)]
pub(crate) struct WallClock(pub(crate) Clock);

impl outlast_store::Clock for WallClock {
    fn now(&self) -> Wall {
        self.0.wall()
    }
}

/// What the config says of payloads, as the store takes it.
pub(crate) fn sealing(config: &StoreConfig) -> Sealing {
    match &config.sealing {
        config::Sealing::Keys(keys) => Sealing::Keys(keys.iter().map(|key| DataKey::new(key.expose())).collect()),
        config::Sealing::Plaintext => Sealing::Plaintext,
    }
}

/// The store of a config, or one in memory.
///
/// # Errors
/// Why the file cannot be used, with what to do.
pub(super) fn open(config: Option<&StoreConfig>, clock: &Clock) -> Result<Arc<dyn Store>, StoreError> {
    let clock = Arc::new(WallClock(clock.clone()));
    match config {
        Some(config) => Ok(Arc::new(SqliteStore::open(&config.file, SqliteOptions::new(sealing(config)), clock)?)),
        None => Ok(Arc::new(MemoryStore::new(Limits::MEMORY, clock))),
    }
}

impl Shared {
    /// Waits for the store's answer, within bounds. Troubles are counted, and told once.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn stored<T>(&self, answer: Answer<T>) -> Result<T, StoreError> {
        let late = || StoreError::Unavailable { place: "store".into(), why: "it did not answer in time".into() };
        let answer = clock::timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(late()));
        if let Err(error) = &answer {
            self.telemetry.metrics().store.trouble(error.name());
            if !error.passes() && !error.of_command() {
                let message = format!("The store refuses: {error}");
                self.alerts.raise(Alert { kind: AlertKind::StoreTrouble, subject: "store".into(), message });
            }
        }
        answer
    }
}

/// What a client is told whose request cannot go on without the store.
pub(super) fn down(error: &StoreError) -> Denial {
    match error {
        StoreError::TooLarge { .. } => {
            Denial::new(Refused::TooLarge, "The request is larger than what can be kept durably. Send a smaller one.")
        }
        StoreError::LimitReached { .. } => {
            let message = "There is no room to keep another request now. Nothing was done. Retry later.";
            Denial::new(Refused::StoreDown, message).retry_after(Duration::from_secs(30))
        }
        StoreError::Full { .. }
        | StoreError::ReadOnly { .. }
        | StoreError::Corrupt { .. }
        | StoreError::TooNew { .. }
        | StoreError::Foreign { .. }
        | StoreError::KeyMissing { .. }
        | StoreError::NotSealed { .. }
        | StoreError::Busy { .. }
        | StoreError::Overloaded { .. }
        | StoreError::Unavailable { .. }
        | StoreError::Unknown { .. }
        | StoreError::Taken { .. }
        | StoreError::Unsupported { .. }
        | StoreError::Closed => {
            let message = "What this request asks for has to be written down first, which does not work now. Nothing was done. Retry later.";
            Denial::new(Refused::StoreDown, message).retry_after(Duration::from_secs(2))
        }
    }
}

/// Sweeps the store and asks how it is, until aborted.
pub(super) async fn look_after(shared: Arc<Shared>) {
    loop {
        while let Ok(swept) = shared.stored(shared.store.sweep(SWEEP_ROWS)).await {
            if !swept.more {
                break;
            }
        }
        refresh(&shared).await;
        clock::sleep(UPKEEP_EVERY).await;
    }
}

/// Asks the store how it is, for readiness and metrics.
pub(super) async fn refresh(shared: &Shared) -> Option<StoreHealth> {
    let health = shared.stored(shared.store.health()).await.ok();
    shared.telemetry.metrics().store.is(health.clone());
    health
}
