//! Idempotent calls: one row per tenant and key, from its beginning until it is no longer kept.

use crate::{Epoch, Payload};
use outlast_model::TenantId;
use std::{sync::Arc, time::Duration};

/// Begin a call, or learn what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeginCall {
    /// Whose key it is.
    pub tenant: TenantId,
    /// The client's `Idempotency-Key`.
    pub key: Arc<str>,
    /// The hash of what is asked: the same key with another one is a mismatch.
    pub fingerprint: [u8; 32],
    /// How long the claim stands unless it is renewed.
    pub lease: Duration,
    /// How long the key is kept, from now.
    pub keep: Duration,
}

/// What became of the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Nobody has it: do it, and end it with this epoch.
    Execute {
        /// The claim.
        epoch: Epoch,
    },
    /// It was done, or failed for good: this is what its client got.
    Replay(Payload),
    /// Somebody is at it.
    InFlight {
        /// How long that claim stands unless it is renewed.
        retry_after: Duration,
    },
    /// The key stands for another question.
    Mismatch,
}

/// Keep a call's lease. Repeating it does no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewCall {
    /// As it began.
    pub tenant: TenantId,
    /// As it began.
    pub key: Arc<str>,
    /// The claim.
    pub epoch: Epoch,
    /// How long it stands from now.
    pub lease: Duration,
}

/// End a call. The same kind of end again is [`crate::Fenced::Held`] and changes nothing: the first payload stands.
/// Another kind after it is [`crate::Fenced::Lost`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndCall {
    /// As it began.
    pub tenant: TenantId,
    /// As it began.
    pub key: Arc<str>,
    /// The claim.
    pub epoch: Epoch,
    /// How it ended.
    pub end: CallEnd,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// With a reply. It is replayed until the key is no longer kept.
    Done(Payload),
    /// For good: asking again would end the same. It is replayed likewise.
    Failed(Payload),
    /// With nothing worth keeping: the key is free. (Repeated, it is `Lost`: there is no row left to compare.)
    Released,
}
