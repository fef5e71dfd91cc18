//! Questions to users, answered by a token that works once.

use outlast_model::{RouteId, TenantId};
use std::time::Duration;

/// Keep a question. Repeated with the same hash it keeps nothing new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskConfirmation {
    /// The hash of the token. The token itself is never kept.
    pub token_hash: [u8; 32],
    /// Who was asked.
    pub tenant: TenantId,
    /// The hash of the request that a yes belongs to.
    pub fingerprint: [u8; 32],
    /// Who answers after a yes.
    pub route: RouteId,
    /// A yes after this is too late.
    pub expires_in: Duration,
}

/// The question is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked;

/// Answer a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakeConfirmation {
    /// The hash of the token that came.
    pub token_hash: [u8; 32],
    /// Who sent it.
    pub tenant: TenantId,
    /// The hash of the request it came with.
    pub fingerprint: [u8; 32],
}

/// What a token is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A yes, now used up.
    Yes {
        /// Who answers.
        route: RouteId,
    },
    /// There is no such question: never was, is used up, or long expired.
    Unknown,
    /// It came too late.
    Expired,
    /// Another tenant's, or for another request. It is not used up.
    Mismatch,
}
