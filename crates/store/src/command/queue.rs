//! Queued requests: kept until a target is healthy, done in order of priority and age, expiring honestly.

use crate::{Epoch, Payload};
use outlast_model::{RouteId, TenantId, Wall, policy::Priority};
use std::{sync::Arc, time::Duration};

/// Keep a request for later. Repeated with the same id it keeps nothing new and says where the first one stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enqueue {
    /// The caller's, random: whoever knows it and is the tenant may ask for it.
    pub id: Arc<str>,
    /// Whose it is.
    pub tenant: TenantId,
    /// The route that has to answer.
    pub route: RouteId,
    /// Its place in the order.
    pub priority: Priority,
    /// What is needed to ask again.
    pub payload: Payload,
    /// A request that no claim holds expires after this.
    pub expires_in: Duration,
    /// Whose webhook hears of the end: the name of a backstop.
    pub webhook: Option<Arc<str>>,
}

/// Whether it was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// It is in the queue.
    Queued {
        /// 1 for the next one of the whole queue, [`Enqueued::COUNTED`] for that place or any behind it; 0 if it no
        /// longer waits.
        position: u64,
    },
    /// The queue's limit is reached.
    Full {
        /// Whether it is the tenant's share or the whole.
        of_tenant: bool,
    },
}

impl Enqueued {
    /// Places are counted up to this one, so that a long queue costs a short look.
    pub const COUNTED: u64 = 1_000;
}

/// Claim one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimQueued {
    /// Who claims: random per process, never a host's name.
    pub worker: Arc<str>,
    /// The routes that could be answered now.
    pub routes: Vec<RouteId>,
    /// How long the claim stands unless it is renewed.
    pub lease: Duration,
}

/// A claimed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedItem {
    /// As it was queued.
    pub id: Arc<str>,
    /// As it was queued.
    pub tenant: TenantId,
    /// As it was queued.
    pub route: RouteId,
    /// As it was queued.
    pub priority: Priority,
    /// The claim: what ends it names it.
    pub epoch: Epoch,
    /// How often it was claimed, this time included.
    pub attempts: u32,
    /// As it was queued.
    pub payload: Payload,
    /// When it was queued.
    pub enqueued_at: Wall,
    /// After this it expires, unless a claim holds it.
    pub expires_at: Wall,
}

/// Keep a claim's lease. Repeating it does no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewQueued {
    /// The request.
    pub id: Arc<str>,
    /// The claim.
    pub epoch: Epoch,
    /// How long it stands from now.
    pub lease: Duration,
}

/// A request was answered. The same again is [`crate::Fenced::Held`] and changes nothing: the first reply stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompleteQueued {
    /// The request.
    pub id: Arc<str>,
    /// The claim.
    pub epoch: Epoch,
    /// What its client gets.
    pub reply: Payload,
}

/// A request failed for good. The same again is [`crate::Fenced::Held`] and changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailQueued {
    /// The request.
    pub id: Arc<str>,
    /// The claim.
    pub epoch: Epoch,
    /// What its client gets.
    pub payload: Payload,
}

/// Give a request back, to be claimed again. The same again is [`crate::Fenced::Held`] until somebody claims it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseQueued {
    /// The request.
    pub id: Arc<str>,
    /// The claim.
    pub epoch: Epoch,
    /// Nobody may claim it before this has passed.
    pub after: Duration,
}

/// A queued request as its tenant sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedView {
    /// Where it stands.
    pub state: QueueState,
    /// As it was queued.
    pub route: RouteId,
    /// When it was queued.
    pub enqueued_at: Wall,
    /// After this it expires, unless a claim holds it.
    pub expires_at: Wall,
    /// How often it was claimed.
    pub attempts: u32,
}

/// Where a queued request stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueState {
    /// It waits, or its last claim ran out.
    Waiting {
        /// 1 for the next one of the whole queue, [`Enqueued::COUNTED`] for that place or any behind it.
        position: u64,
    },
    /// Somebody is at it.
    Running,
    /// It was answered.
    Done(Payload),
    /// It failed for good.
    Failed(Payload),
    /// Nobody could answer it in time.
    Expired,
}
