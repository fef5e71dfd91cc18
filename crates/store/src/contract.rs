//! The contract of a store: domain commands, not tables.
//!
//! Rules that hold for every command of every back end:
//!
//! - A command is one transaction: all of it happened, or none of it. Its answer comes after the commit.
//! - It is handed over when the method is called; the future only carries the answer. A caller that drops the future
//!   gives up the answer, not the command.
//! - It may be repeated when its answer was lost, with the same ids and epochs, and then does nothing a second time.
//! - Nothing assumes that this process is the only one. Who holds what is decided by leases and epochs: every claim
//!   draws an [`Epoch`] that no claim ever had before, and what a claim ends names it. A lease that ran out lets others
//!   claim; until somebody does, its holder may still renew or end.
//! - What has expired is gone at that instant for every answer. [`Store::sweep`] only gives the room back.
//! - Ids, worker ids and token hashes are the caller's, and random. Times are the clock's that the back end was opened
//!   with, or its database's.

mod people;
mod runs;

pub use people::PeopleStore;
pub use runs::RunStore;

use crate::{
    AskConfirmation, Asked, BackedUp, BeginCall, Begun, Checked, ClaimQueued, ClaimedItem, CompleteQueued, Delivered,
    Delivery, DueDeliveries, EndCall, Enqueue, Enqueued, FailQueued, QueuedView, Recall, ReleaseQueued, Remember,
    Remembered, RenewCall, RenewQueued, Retried, RetryDelivery, StoreError, StoreHealth, Swept, TakeConfirmation,
    Taken,
};
use bytes::Bytes;
use outlast_model::{TenantId, Wall};
use std::{fmt, future::Future, path::PathBuf, pin::Pin, sync::Arc};

/// A command's answer, which comes after its commit.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'static>>;

/// Where a back end without a clock of its own reads the time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The wall clock. If it jumps, leases and expiries run out early or late by as much; epochs still fence.
    fn now(&self) -> Wall;
}

/// The number of one claim. Later claims of the same store have higher numbers; none is ever given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub i64);

/// Whether a claim still stood when its holder spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Fenced {
    /// It did, and what was said holds.
    Held,
    /// It did not: somebody else has it, it was ended otherwise, or it expired. Nothing was changed.
    Lost,
}

/// Bytes that the store keeps and never reads. Cheap to clone; printed as their number only.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Payload(Bytes);

impl Payload {
    /// Wraps bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Payload(bytes.into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, for keeping.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Payload(bytes.into())
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Payload(bytes)
    }
}

/// What Outlast must not forget. The rules that hold for every command are those of [the module](self).
///
/// Every command fails with [`StoreError`] when the back end cannot do it at all, and then nothing was changed.
pub trait Store: PeopleStore + RunStore + Send + Sync + fmt::Debug {
    /// Begins a call under an idempotency key, or says what became of it.
    ///
    /// # Errors
    /// [`StoreError::LimitReached`] when there is no room for another key.
    fn begin_call(&self, command: BeginCall) -> Answer<Begun>;
    /// Keeps a call's lease. A heartbeat.
    fn renew_call(&self, command: RenewCall) -> Answer<Fenced>;
    /// Ends a call: its reply is kept, or its key is free again.
    fn end_call(&self, command: EndCall) -> Answer<Fenced>;

    /// Keeps a request for later.
    fn enqueue(&self, command: Enqueue) -> Answer<Enqueued>;
    /// Claims the most urgent, then oldest request that is due on one of the routes; none if there is none.
    fn claim_queued(&self, command: ClaimQueued) -> Answer<Option<ClaimedItem>>;
    /// Keeps a claim's lease. A heartbeat.
    fn renew_queued(&self, command: RenewQueued) -> Answer<Fenced>;
    /// Keeps the reply in place of the request and, in the same transaction, the webhook's delivery.
    fn complete_queued(&self, command: CompleteQueued) -> Answer<Fenced>;
    /// Keeps the final failure in place of the request and, in the same transaction, the webhook's delivery.
    fn fail_queued(&self, command: FailQueued) -> Answer<Fenced>;
    /// Gives a claimed request back.
    fn release_queued(&self, command: ReleaseQueued) -> Answer<Fenced>;
    /// What became of a queued request of this tenant.
    fn queued(&self, tenant: TenantId, id: Arc<str>) -> Answer<Option<QueuedView>>;

    /// Keeps a good reply; one that was kept for the same question before is replaced. The oldest make room.
    fn remember(&self, command: Remember) -> Answer<()>;
    /// The good reply to the same question, if it is young enough.
    fn recall(&self, question: Recall) -> Answer<Option<Remembered>>;

    /// Keeps a question to the user, by the hash of the token that answers it.
    ///
    /// # Errors
    /// [`StoreError::LimitReached`] when there is no room for another one.
    fn ask_confirmation(&self, command: AskConfirmation) -> Answer<Asked>;
    /// Takes the answer: a token that fits is used up by this.
    fn take_confirmation(&self, command: TakeConfirmation) -> Answer<Taken>;

    /// Claims webhook deliveries that are due, the oldest first.
    fn due_deliveries(&self, command: DueDeliveries) -> Answer<Vec<Delivery>>;
    /// A delivery arrived.
    fn delivered(&self, command: Delivered) -> Answer<Fenced>;
    /// A delivery did not arrive: it is tried again later, or given up after [`crate::Limits::delivery_attempts`].
    fn retry_delivery(&self, command: RetryDelivery) -> Answer<Retried>;

    /// Removes what has expired, at most `limit` rows. Call again while there is more.
    fn sweep(&self, limit: u32) -> Answer<Swept>;
    /// How the store is, cheaply.
    fn health(&self) -> Answer<StoreHealth>;
    /// Copies the store to a file that does not exist yet, while it is in use.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] of a back end that has its own tools for it, or nothing to copy.
    fn backup(&self, path: PathBuf) -> Answer<BackedUp>;
    /// Reads everything and says what is damaged. Slow on a large store.
    fn check(&self) -> Answer<Checked>;
}
