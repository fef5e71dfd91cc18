//! Good replies, kept for the same question of the same tenant.

use crate::Payload;
use outlast_model::{RouteId, TenantId};
use std::time::Duration;

/// Keep a good reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remember {
    /// Whose question it was.
    pub tenant: TenantId,
    /// The route that answered.
    pub route: RouteId,
    /// The hash of the question.
    pub fingerprint: [u8; 32],
    /// The reply.
    pub payload: Payload,
    /// How long it is kept.
    pub keep: Duration,
}

/// Ask for a good reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recall {
    /// Whose question it is.
    pub tenant: TenantId,
    /// The route that should have answered.
    pub route: RouteId,
    /// The hash of the question.
    pub fingerprint: [u8; 32],
    /// An older one is not given.
    pub max_age: Duration,
}

/// A good reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The reply.
    pub payload: Payload,
    /// How long ago it was kept.
    pub age: Duration,
}
