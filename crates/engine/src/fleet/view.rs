//! The fleet as the operator sees it.

use super::{
    Fleet, QualityView, TargetIx,
    breaker::State,
    target::{KeyState, Target},
};
use outlast_model::{Mono, TargetId};
use std::time::Duration;

/// Where a target's breaker stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TargetState {
    /// Serving.
    Closed,
    /// Not asked until the time is up.
    Open,
    /// One probe or one live call at a time tries it.
    HalfOpen,
    /// Serving this share of the traffic it would have.
    Restoring {
        /// Between 0 and 1.
        share: f64,
    },
    /// No longer in the config; calls in flight go on.
    Retired,
}

/// One target as the operator sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetView {
    /// Its slot.
    pub target: TargetIx,
    /// Its name.
    pub id: TargetId,
    /// Its breaker.
    pub state: TargetState,
    /// The evidence against it; the breaker opens at [`HealthPolicy::open_at`](outlast_model::policy::HealthPolicy::open_at).
    pub evidence: f64,
    /// Ranked after the healthy ones on every route: by a soft detector, by golden tasks, or because its provider is
    /// suspect. A single route's alarms are in `quality`.
    pub demoted: bool,
    /// How good its replies have been lately.
    pub quality: QualityView,
    /// Until an open breaker lets a trial through.
    pub reopens_in: Option<Duration>,
    /// Attempts in flight.
    pub in_flight: u32,
    /// Attempts in flight for longer than they should be.
    pub overdue: u32,
    /// Until the last of its keys' 429 schedules lets a call through again; absent when one does now.
    pub limited_for: Option<Duration>,
    /// Keys that were rejected or are out of money, by position.
    pub keys_out: Vec<u8>,
    /// The provider denies this model to this account.
    pub access_denied: bool,
    /// First output of streams: p50, p95, p99. Absent without samples.
    pub first_output: Option<[Duration; 3]>,
    /// Whole replies that are not streamed: p50, p95, p99. Absent without samples.
    pub whole_reply: Option<[Duration; 3]>,
    /// Attempts started since the process began.
    pub attempts: u64,
    /// Attempts that ended in a reply.
    pub answered: u64,
    /// Attempts that were held against it.
    pub faults: u64,
    /// 429s.
    pub rate_limits: u64,
    /// Probes sent.
    pub probes: u64,
}

impl Fleet {
    /// Every target that is not retired, or is retired with calls in flight, in order of slots.
    pub fn view(&self, now: Mono) -> Vec<TargetView> {
        let shown = |target: &&Target| !target.retired || target.in_flight > 0;
        let slots = self.targets.iter().enumerate();
        slots.filter(|(_, target)| shown(target)).map(|(ix, target)| self.view_of(ix, target, now)).collect()
    }

    fn view_of(&self, ix: usize, target: &Target, now: Mono) -> TargetView {
        let provider = &self.providers[target.provider];
        let state = match target.breaker.state() {
            _ if target.retired => TargetState::Retired,
            State::Closed => TargetState::Closed,
            State::Open { .. } => TargetState::Open,
            State::HalfOpen => TargetState::HalfOpen,
            State::Restoring(ramp) => TargetState::Restoring { share: ramp.share(now) },
        };
        let reopens_in = match target.breaker.state() {
            State::Open { until } => Some(now.until(until)),
            State::Closed | State::HalfOpen | State::Restoring(_) => None,
        };
        let ready_at = target.limiters.iter().map(|limiter| limiter.scheduled_at()).min().unwrap_or_default();
        let keys_out = (0u8..).zip(&provider.keys).filter(|(_, key)| **key != KeyState::Good).map(|(at, _)| at);
        TargetView {
            target: TargetIx::of(ix),
            id: target.spec.id.clone(),
            state,
            evidence: target.breaker.evidence(now),
            demoted: provider.suspect || target.soft.demoted(now) || target.golden.demoted(),
            quality: self.quality_view(ix, now),
            reopens_in,
            in_flight: target.in_flight,
            overdue: u32::try_from(target.late.values().filter(|overdue| **overdue).count()).unwrap_or(u32::MAX),
            limited_for: (ready_at > now).then(|| now.until(ready_at)),
            keys_out: keys_out.collect(),
            access_denied: target.denied_until > now,
            first_output: target.first_output.summary(),
            whole_reply: target.whole_reply.summary(),
            attempts: target.counts.attempts,
            answered: target.counts.answered,
            faults: target.counts.faults,
            rate_limits: target.counts.rate_limits,
            probes: target.counts.probes,
        }
    }
}
