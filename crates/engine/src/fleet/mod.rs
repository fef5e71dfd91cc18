//! The health of all targets: the only decision state that calls share.

use crate::call::CallId;
use outlast_model::{
    Failure, FailureReport, Mono, ProviderId, TargetId,
    policy::{HealthPolicy, Route, TargetSpec},
};
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// The slot of a target in the fleet. It never changes owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetIx(u32);

impl TargetIx {
    /// The slot's number, dense from zero.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A route with its targets resolved to slots. Cheap to clone.
#[derive(Clone, Debug)]
pub struct BoundRoute(Arc<Bound>);

#[derive(Debug)]
struct Bound {
    route: Route,
}

impl BoundRoute {
    /// The route.
    pub fn route(&self) -> &Route {
        &self.0.route
    }
}

/// What happened to the fleet, as the host tells it.
#[derive(Clone, Debug)]
pub enum FleetEvent {
    /// The time of [`Fleet::poll_timeout`] has come.
    Tick,
    /// The answer to [`FleetAction::Probe`].
    Probed {
        /// Which target.
        target: TargetIx,
        /// With which key.
        key: u8,
        /// How long its first output took, or how it failed.
        result: Result<Duration, FailureReport>,
    },
}

/// What the host must do for the fleet.
#[derive(Clone, Debug, PartialEq)]
pub enum FleetAction {
    /// Feed [`Event::Woken`](crate::Event::Woken) to this call, if it is still alive.
    Wake(CallId),
    /// Ask this target for one token and answer [`FleetEvent::Probed`].
    Probe {
        /// Which target.
        target: TargetIx,
        /// Which, by name.
        target_id: TargetId,
        /// With which key.
        key: u8,
    },
    /// Tell a person.
    Alert(Alert),
}

/// What a person may have to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Alert {
    /// A breaker opened.
    BreakerOpened {
        /// Of which target.
        target: TargetId,
        /// The last failure that told.
        cause: Failure,
    },
    /// A breaker closed again.
    BreakerClosed {
        /// Of which target.
        target: TargetId,
        /// How long the target was out or on probation.
        after: Duration,
    },
    /// Half of a provider's targets opened within a minute: it is suspect as a whole.
    ProviderSuspect {
        /// Which.
        provider: ProviderId,
    },
    /// A provider's key was rejected or is out of money, and is not used until it proves itself.
    KeyOut {
        /// Whose.
        provider: ProviderId,
        /// Which, by position.
        key: u8,
        /// `auth` or `quota_exhausted`.
        cause: Failure,
    },
    /// The key works again.
    KeyBack {
        /// Whose.
        provider: ProviderId,
        /// Which, by position.
        key: u8,
    },
    /// The provider denies this model to this account.
    AccessDenied {
        /// Which.
        target: TargetId,
    },
}

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
    /// The evidence against it; the breaker opens at [`HealthPolicy::open_at`].
    pub evidence: f64,
    /// Ranked after the healthy ones, by a soft detector or because its provider is suspect.
    pub demoted: bool,
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

/// The health of all targets, retry budgets and admission. One lock, held for one `handle`.
#[derive(Debug)]
pub struct Fleet {
    policy: HealthPolicy,
    rng: fastrand::Rng,
    actions: VecDeque<FleetAction>,
}

impl Fleet {
    /// An empty fleet. The same seed and events give the same trace.
    pub fn new(policy: HealthPolicy, seed: u64) -> Self {
        Fleet { policy, rng: fastrand::Rng::with_seed(seed), actions: VecDeque::new() }
    }

    /// Installs a (re)loaded set of targets: known ids keep their health, new ones get a slot, missing ones are
    /// retired (calls in flight on them go on). Keys that were out get another chance.
    pub fn install(&mut self, policy: HealthPolicy, _targets: &[TargetSpec], _now: Mono) {
        self.policy = policy;
        self.rng.u64(..);
    }

    /// Resolves a route's targets to slots. Targets that are not installed are left out silently: the config reader
    /// has checked them.
    pub fn bind(&mut self, route: &Route) -> BoundRoute {
        BoundRoute(Arc::new(Bound { route: route.clone() }))
    }

    /// Takes one event. Drain [`Fleet::poll_action`] afterwards, and after every [`Call::handle`](crate::Call::handle).
    pub fn handle(&mut self, _event: FleetEvent, _now: Mono) {}

    /// The next thing to do; `None` when there is nothing more for now.
    pub fn poll_action(&mut self) -> Option<FleetAction> {
        self.actions.pop_front()
    }

    /// When to feed [`FleetEvent::Tick`]. It may move with every call: read it again after each.
    pub fn poll_timeout(&self) -> Option<Mono> {
        None
    }

    /// Every target that is not retired, or is retired with calls in flight, in order of slots.
    pub fn view(&self, _now: Mono) -> Vec<TargetView> {
        Vec::new()
    }
}
