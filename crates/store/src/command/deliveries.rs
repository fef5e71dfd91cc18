//! The webhook outbox: written with the end of a queued request, delivered at least once or given up.

use crate::{Epoch, Payload};
use outlast_model::{TenantId, Wall};
use std::{sync::Arc, time::Duration};

/// Claim deliveries that are due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueDeliveries {
    /// Who claims: random per process, never a host's name.
    pub worker: Arc<str>,
    /// How long the claims stand.
    pub lease: Duration,
    /// At most so many; at most 100 are given.
    pub limit: u32,
}

/// What is to be delivered: the end of a queued request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The queued request. A receiver tells repetitions by it.
    pub id: Arc<str>,
    /// Whose it is.
    pub tenant: TenantId,
    /// Whose webhook: the name of a backstop.
    pub webhook: Arc<str>,
    /// What happened.
    pub occasion: Occasion,
    /// When it happened.
    pub at: Wall,
    /// The claim: what ends it names it.
    pub epoch: Epoch,
    /// How often it was claimed, this time included.
    pub attempts: u32,
}

/// What a delivery tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// The request was answered.
    Done(Payload),
    /// It failed for good.
    Failed(Payload),
    /// Nobody could answer it in time.
    Expired,
}

/// A delivery arrived. Repeated, it is `Lost`: there is no row left to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The queued request.
    pub id: Arc<str>,
    /// The claim.
    pub epoch: Epoch,
}

/// A delivery did not arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryDelivery {
    /// The queued request.
    pub id: Arc<str>,
    /// The claim.
    pub epoch: Epoch,
    /// It is not tried again before this has passed.
    pub after: Duration,
}

/// What becomes of a delivery that did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retried {
    /// It is tried again.
    Later,
    /// It was tried too often. It is counted until the request itself is no longer kept, and never tried again.
    GivenUp,
    /// The claim no longer stands. Nothing was changed.
    Lost,
}
