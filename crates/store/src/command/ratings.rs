//! What callers thought of replies.

use crate::Payload;
use outlast_model::{RequestId, TenantId, Wall};
use std::time::Duration;

/// Keep a rating.
#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    /// Who rates.
    pub tenant: TenantId,
    /// What is rated.
    pub request_id: RequestId,
    /// From 0 (bad) to 1 (good).
    pub score: f64,
    /// In the caller's words.
    pub comment: Option<Payload>,
    /// How long it is kept.
    pub keep: Duration,
}

/// The rating is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rated {
    /// It is the first one.
    First,
    /// It replaced one.
    Replaced {
        /// The score before.
        before: f64,
    },
}

/// A rating.
#[derive(Clone, Debug, PartialEq)]
pub struct Rating {
    /// From 0 (bad) to 1 (good).
    pub score: f64,
    /// In the caller's words.
    pub comment: Option<Payload>,
    /// When it was given.
    pub at: Wall,
}
