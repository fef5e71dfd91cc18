//! The outbox of notices: who is to hear that an escalation waits, or was decided. Written with what they tell; delivered
//! at least once or given up. One channel has at most one notice of an escalation: a later one takes its place.

use crate::{About, Epoch, EscalationSummary};
use outlast_model::Wall;
use std::{sync::Arc, time::Duration};

/// Claim notices that are due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueNotices {
    /// How long the claims stand.
    pub lease: Duration,
    /// At most so many; at most 100 are given.
    pub limit: u32,
}

/// What is to be told to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Who: the name of a channel of the config.
    pub channel: Arc<str>,
    /// What happened.
    pub about: About,
    /// When it happened.
    pub at: Wall,
    /// The escalation as it stands now.
    pub escalation: EscalationSummary,
    /// Who decided, if it was.
    pub by: Option<Arc<str>>,
    /// The claim: what ends it names it.
    pub epoch: Epoch,
    /// How often it was claimed, this time included.
    pub attempts: u32,
}

/// A notice arrived. Repeated, it is `Lost`: there is no row left to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noticed {
    /// The escalation.
    pub escalation: Arc<str>,
    /// The channel.
    pub channel: Arc<str>,
    /// The claim.
    pub epoch: Epoch,
}

/// A notice did not arrive: it is tried again later, or given up after [`crate::Limits::delivery_attempts`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryNotice {
    /// The escalation.
    pub escalation: Arc<str>,
    /// The channel.
    pub channel: Arc<str>,
    /// The claim.
    pub epoch: Epoch,
    /// It is not tried again before this has passed.
    pub after: Duration,
}
