//! One target's whole health, and the keys of its provider.

use super::{
    breaker::{Breaker, State},
    cusum::SoftDetectors,
    limiter::Limiter,
    probe::Probing,
    quality::Quality,
    tokens::TokenScale,
    window::{Histogram, Latency},
};
use crate::call::CallId;
use outlast_model::{
    Failure, Mono, ProviderId,
    policy::{Needs, TargetSpec},
};
use std::{collections::BTreeMap, time::Duration};

/// Keys beyond these are never used; nobody has so many.
pub(crate) const KEYS_AT_MOST: u8 = 64;

/// A stream that is silent for so long, and for twenty of its usual gaps, is stalled.
const STALL_AT_LEAST: Duration = Duration::from_secs(5);
const STALL_GAPS: u32 = 20;

#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) spec: TargetSpec,
    /// Its provider's place in the fleet.
    pub(crate) provider: usize,
    pub(crate) retired: bool,
    pub(crate) breaker: Breaker,
    pub(crate) soft: SoftDetectors,
    /// Until the first output of streams.
    pub(crate) first_output: Latency,
    /// Until whole replies that are not streamed.
    pub(crate) whole_reply: Latency,
    /// Mean gaps between the tokens of a stream.
    pub(crate) gaps: Histogram,
    /// How it does at golden tasks.
    pub(crate) golden: Quality,
    /// What it counts as a token.
    pub(crate) tokens: TokenScale,
    pub(crate) limiters: Vec<Limiter>,
    /// The provider denies this model to this account: not asked before then.
    pub(crate) denied_until: Mono,
    pub(crate) probing: Probing,
    pub(crate) in_flight: u32,
    /// Calls in flight for longer than they should be, and whether that was given as evidence; woken when the breaker
    /// opens. Bounded by the calls in flight.
    pub(crate) late: BTreeMap<CallId, bool>,
    /// When anybody last had an output of it.
    pub(crate) answered_at: Mono,
    /// Calls that wait for it, in order of arrival. Bounded by the calls in flight.
    pub(crate) parked: BTreeMap<u64, CallId>,
    /// When the next parked call may be let through.
    pub(crate) wake_at: Mono,
    /// The last answered poison request was forgiven, and nobody has been answered since.
    pub(crate) forgiven: bool,
    pub(crate) counts: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) attempts: u64,
    pub(crate) answered: u64,
    pub(crate) faults: u64,
    pub(crate) rate_limits: u64,
    pub(crate) probes: u64,
}

impl Target {
    pub(crate) fn new(spec: TargetSpec, provider: usize, probing: Probing) -> Self {
        let limiters = vec![Limiter::default(); usize::from(spec.keys.clamp(1, KEYS_AT_MOST))];
        Target {
            spec,
            provider,
            retired: false,
            breaker: Breaker::default(),
            soft: SoftDetectors::default(),
            first_output: Latency::of_first_output(),
            whole_reply: Latency::of_whole_reply(),
            gaps: Histogram::default(),
            golden: Quality::default(),
            tokens: TokenScale::default(),
            limiters,
            denied_until: Mono::ZERO,
            probing,
            in_flight: 0,
            late: BTreeMap::new(),
            answered_at: Mono::ZERO,
            parked: BTreeMap::new(),
            wake_at: Mono::FAR,
            forgiven: false,
            counts: Counts::default(),
        }
    }

    /// What its speed is measured by for such a request.
    pub(crate) fn latency(&self, needs: &Needs) -> &Latency {
        if needs.stream { &self.first_output } else { &self.whole_reply }
    }

    pub(crate) fn latency_mut(&mut self, needs: &Needs) -> &mut Latency {
        if needs.stream { &mut self.first_output } else { &mut self.whole_reply }
    }

    /// How long a stream may be silent before that is evidence.
    pub(crate) fn stalled_after(&self) -> Duration {
        self.gaps.quantile(0.5).map_or(STALL_AT_LEAST, |gap| (gap * STALL_GAPS).max(STALL_AT_LEAST))
    }

    /// On trial by live calls: half-open, and not by probes.
    pub(crate) fn wants_live_trial(&self, now: Mono) -> bool {
        match self.breaker.state() {
            State::HalfOpen => !self.spec.probes && self.breaker.permit_free(now),
            State::Closed | State::Open { .. } | State::Restoring(_) => false,
        }
    }
}

/// A provider: what its targets share.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) id: ProviderId,
    pub(crate) targets: Vec<usize>,
    pub(crate) keys: Vec<KeyState>,
    /// Half of its targets opened within a minute, and none has recovered yet.
    pub(crate) suspect: bool,
}

/// Whether a key may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum KeyState {
    #[default]
    Good,
    /// Rejected or out of money: not used before `until`, and then by one call or probe first.
    Out { cause: Failure, until: Mono, pauses: u32 },
}

const KEY_PAUSE: Duration = Duration::from_secs(60);
const KEY_PAUSE_AT_MOST: Duration = Duration::from_secs(3600);
/// How long one call may try a key that was out before another may.
pub(crate) const KEY_TRIAL: Duration = Duration::from_secs(30);

impl KeyState {
    /// A call may use it: it is good, or no probes will try it and its pause is over.
    pub(crate) fn usable(&self, probes: bool, now: Mono) -> bool {
        match self {
            KeyState::Good => true,
            KeyState::Out { until, .. } => !probes && *until <= now,
        }
    }

    /// Out (again): a minute, doubling to an hour. A failure of a call that left before the key went out changes nothing.
    pub(crate) fn out(self, cause: Failure, sent: Mono, now: Mono) -> KeyState {
        match self {
            KeyState::Good => KeyState::Out { cause, until: now + KEY_PAUSE, pauses: 1 },
            KeyState::Out { until, pauses, .. } => {
                let pause = KEY_PAUSE.saturating_mul(1 << pauses.min(10)).min(KEY_PAUSE_AT_MOST);
                // The trial itself moved `until` to its own deadline, so a trial's failure is one before that.
                let is_trial = until.since(sent) <= KEY_TRIAL && sent <= until;
                if is_trial { KeyState::Out { cause, until: now + pause, pauses: pauses + 1 } } else { self }
            }
        }
    }
}
