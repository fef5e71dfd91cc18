//! The health of all targets: the only decision state that calls share.
//!
//! Calls tell it what they met (`health`), ask it whom they may ask (here), and wait in it (`admission`). It probes
//! (`probe`), and answers with wake-ups, probes and alerts. Everything a target is judged by is in `target`, and each
//! kind of judgement has its file: faults in `breaker` on `cusum`, 429s in `limiter`, speed in `window`, how good replies
//! are in `quality` on `drift`, what a token is in `tokens`. The operator sees it through `view`.
//!
//! Slots are never reused, so that a call of an older config can never reach another target's health. A fleet thus
//! grows by a few kilobytes with each target id and route id that any reload ever named.

mod admission;
mod breaker;
mod cusum;
mod drift;
mod health;
mod limiter;
mod probe;
mod quality;
mod target;
mod tokens;
mod view;
mod window;

pub(crate) use breaker::Receipt;
pub use quality::{AlarmView, QualityView, ReplyQuality, RouteQuality, Signal, SignalView};
pub use view::{TargetState, TargetView};

use crate::{
    budget::{HedgeBudget, Price, RetryBudget},
    call::CallId,
};
use admission::Admission;
use outlast_model::{
    Failure, FailureReport, Mono, ProviderId, RouteId, TargetId,
    policy::{HealthPolicy, Route, TargetSpec},
};
use probe::Probing;
use quality::Watched;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use target::{KEYS_AT_MOST, KeyState, Provider, Target};

/// The slot of a target in the fleet. It never changes owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetIx(u32);

impl TargetIx {
    pub(crate) fn of(index: usize) -> Self {
        TargetIx(u32::try_from(index).expect("fewer than four billion targets"))
    }

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
    targets: Vec<BoundTarget>,
    /// The slot of the route's hedging budget.
    hedges: usize,
}

/// A target's place in a bound route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoundTarget {
    pub(crate) ix: usize,
    pub(crate) weight: u32,
    /// The slot of what this route and target have together: the retry budget, and the quality of replies.
    pub(crate) budget: usize,
}

impl BoundRoute {
    /// The route.
    pub fn route(&self) -> &Route {
        &self.0.route
    }

    /// Its targets' slots, as listed.
    pub fn targets(&self) -> impl Iterator<Item = TargetIx> + '_ {
        self.0.targets.iter().map(|target| TargetIx::of(target.ix))
    }

    pub(crate) fn bound(&self) -> &[BoundTarget] {
        &self.0.targets
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
    /// A golden task was answered by this target.
    Golden {
        /// Which target.
        target: TargetIx,
        /// Its answer has every property it had to have.
        passed: bool,
    },
    /// A user said what a delivered reply was worth.
    Feedback {
        /// The route that was asked.
        route: RouteId,
        /// The target that answered.
        target: TargetId,
        /// It was good.
        good: bool,
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
        /// Without a first output after so long, the answer is `timeout:first_token`.
        timeout: Duration,
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
    /// A target's quality dropped: it ranks after the healthy ones, on this route or everywhere.
    QualityDropped {
        /// Of which target.
        target: TargetId,
        /// On which route; absent: everywhere.
        route: Option<RouteId>,
        /// What told.
        signal: Signal,
        /// Observations since the change most likely began...
        observed: u32,
        /// ...and how many of them were bad.
        bad: u32,
        /// The highest share of bad ones that would have been fine, 0 to 1.
        baseline: f64,
    },
    /// It is in its place again: its quality was seen to be back, or nobody has asked it for so long that it is tried.
    QualityBack {
        /// Of which target.
        target: TargetId,
        /// On which route; absent: everywhere.
        route: Option<RouteId>,
        /// What had told.
        signal: Signal,
        /// How long it was ranked down.
        after: Duration,
    },
}

/// The health of all targets, retry budgets and admission. One lock, held for one `handle`.
#[derive(Debug)]
pub struct Fleet {
    policy: HealthPolicy,
    rng: fastrand::Rng,
    targets: Vec<Target>,
    by_id: BTreeMap<TargetId, usize>,
    providers: Vec<Provider>,
    budgets: Vec<RetryBudget>,
    /// Beside the budgets: the quality of each target on each route.
    places: Vec<Watched>,
    budget_of: BTreeMap<(RouteId, TargetId), usize>,
    hedges: Vec<HedgeBudget>,
    hedges_of: BTreeMap<RouteId, usize>,
    admission: Admission,
    actions: VecDeque<FleetAction>,
    /// No later than the first thing to do.
    due: Mono,
}

/// Whether a target may be asked, before what else is known against it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Standing {
    /// Yes.
    Healthy,
    /// Yes, after the healthy ones.
    Demoted,
    /// Yes, after those: it is being restored and this call has not drawn a place in its share.
    Undrawn,
    /// Half-open, and a live call may try it now.
    Trial,
    /// Its breaker is open, or half-open with somebody else on trial.
    Open,
    /// All its keys are on a schedule until then.
    Limited(Mono),
    /// All its keys are out.
    NoKey,
    /// The provider denies the model to this account.
    Denied,
}

/// Why no key can be used now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Unready {
    Limited(Mono),
    NoKey,
}

impl Fleet {
    /// An empty fleet. The same seed and events give the same trace.
    pub fn new(policy: HealthPolicy, seed: u64) -> Self {
        Fleet {
            policy,
            rng: fastrand::Rng::with_seed(seed),
            targets: Vec::new(),
            by_id: BTreeMap::new(),
            providers: Vec::new(),
            budgets: Vec::new(),
            places: Vec::new(),
            budget_of: BTreeMap::new(),
            hedges: Vec::new(),
            hedges_of: BTreeMap::new(),
            admission: Admission::default(),
            actions: VecDeque::new(),
            due: Mono::FAR,
        }
    }

    /// Installs a (re)loaded set of targets: known ids keep their health, new ones get a slot, missing ones are
    /// retired (calls in flight on them go on). Keys that were out and targets that were denied get another chance.
    pub fn install(&mut self, policy: HealthPolicy, targets: &[TargetSpec], now: Mono) {
        self.policy = policy;
        self.targets.iter_mut().for_each(|target| target.retired = true);
        self.providers.iter_mut().for_each(|provider| provider.keys.clear());
        for spec in targets {
            let provider = self.provider_slot(&spec.provider);
            let keys = usize::from(spec.keys.clamp(1, KEYS_AT_MOST));
            let known = &mut self.providers[provider].keys;
            known.resize(known.len().max(keys), KeyState::Good);
            match self.by_id.get(&spec.id) {
                Some(ix) => {
                    let target = &mut self.targets[*ix];
                    target.spec = spec.clone();
                    target.retired = false;
                    target.denied_until = Mono::ZERO;
                    target.limiters.resize_with(keys, Default::default);
                }
                None => {
                    let ix = self.targets.len();
                    let first_probe = self.spread(self.policy.probe_idle);
                    self.targets.push(Target::new(spec.clone(), provider, Probing::first(now + first_probe, now)));
                    self.by_id.insert(spec.id.clone(), ix);
                    self.providers[provider].targets.push(ix);
                }
            }
        }
        self.schedule(now);
    }

    fn provider_slot(&mut self, id: &ProviderId) -> usize {
        self.providers.iter().position(|provider| provider.id == *id).unwrap_or_else(|| {
            let provider = Provider { id: id.clone(), targets: Vec::new(), keys: Vec::new(), suspect: false };
            self.providers.push(provider);
            self.providers.len() - 1
        })
    }

    /// Resolves a route's targets to slots. Targets that are not installed are left out silently: the config reader
    /// has checked them.
    pub fn bind(&mut self, route: &Route) -> BoundRoute {
        let mut targets = Vec::with_capacity(route.targets.len());
        for place in &route.targets {
            let Some(ix) = self.by_id.get(&place.target).copied() else { continue };
            let (budgets, places) = (&mut self.budgets, &mut self.places);
            let budget = *self.budget_of.entry((route.id.clone(), place.target.clone())).or_insert_with(|| {
                budgets.push(RetryBudget::new(Mono::ZERO));
                places.push(Watched::new(route.id.clone(), ix));
                budgets.len() - 1
            });
            targets.push(BoundTarget { ix, weight: place.weight.max(1), budget });
        }
        let hedges = &mut self.hedges;
        let hedges = *self.hedges_of.entry(route.id.clone()).or_insert_with(|| {
            hedges.push(HedgeBudget::default());
            hedges.len() - 1
        });
        BoundRoute(Arc::new(Bound { route: route.clone(), targets, hedges }))
    }

    /// Takes one event. Drain [`Fleet::poll_action`] afterwards, and after every [`Call::handle`](crate::Call::handle).
    pub fn handle(&mut self, event: FleetEvent, now: Mono) {
        match event {
            FleetEvent::Tick => self.tick(now),
            FleetEvent::Probed { target, key, result } => self.probed(target.index(), Some(key), result, now),
            FleetEvent::Golden { target, passed } => self.note_golden(target.index(), passed, now),
            FleetEvent::Feedback { route, target, good } => self.note_feedback(&route, &target, good, now),
        }
    }

    fn tick(&mut self, now: Mono) {
        for ix in 0..self.targets.len() {
            self.advance(ix, now);
            self.targets[ix].soft.tidy(now);
            if self.targets[ix].wake_at <= now {
                self.wake_parked(ix, now);
            }
            self.tick_probes(ix, now);
        }
        self.tick_quality(now);
        let targets = (0..self.targets.len()).filter_map(|ix| self.target_due(ix));
        self.due = targets.chain(self.quality_due()).min().unwrap_or(Mono::FAR);
    }

    /// When a target next needs a tick.
    fn target_due(&self, ix: usize) -> Option<Mono> {
        let target = &self.targets[ix];
        let waking = (target.wake_at != Mono::FAR).then_some(target.wake_at);
        [target.breaker.due(), waking, self.probe_due(ix)].into_iter().flatten().min()
    }

    /// Makes sure a tick comes by then.
    pub(crate) fn schedule(&mut self, at: Mono) {
        self.due = self.due.min(at);
    }

    /// The next thing to do; `None` when there is nothing more for now.
    pub fn poll_action(&mut self) -> Option<FleetAction> {
        self.actions.pop_front()
    }

    /// When to feed [`FleetEvent::Tick`]. It may move with every call: read it again after each.
    pub fn poll_timeout(&self) -> Option<Mono> {
        (self.due != Mono::FAR).then_some(self.due)
    }

    pub(crate) fn policy(&self) -> &HealthPolicy {
        &self.policy
    }

    pub(crate) fn target(&self, ix: usize) -> &Target {
        &self.targets[ix]
    }

    /// Where a target stands for a call that has used these keys on it (a bit mask) and has drawn this chance.
    pub(crate) fn standing(&mut self, place: BoundTarget, used_keys: u64, chance: f64, now: Mono) -> Standing {
        let ix = place.ix;
        if self.targets[ix].denied_until > now {
            return Standing::Denied;
        }
        match self.pick_key(ix, used_keys, now) {
            Err(Unready::Limited(at)) => return Standing::Limited(at),
            Err(Unready::NoKey) => return Standing::NoKey,
            Ok(_) => {}
        }
        let target = &mut self.targets[ix];
        if !target.breaker.serving() {
            return if target.wants_live_trial(now) { Standing::Trial } else { Standing::Open };
        }
        if !target.breaker.draw(chance, now) {
            Standing::Undrawn
        } else if self.providers[target.provider].suspect || target.soft.demoted(now) || self.quality_demotes(place) {
            Standing::Demoted
        } else {
            Standing::Healthy
        }
    }

    /// The first key, in order, that may be used now and has not been used by this call. In order, so that a provider's
    /// prompt cache stays warm and a spare key stays spare.
    pub(crate) fn pick_key(&mut self, ix: usize, used_keys: u64, now: Mono) -> Result<u8, Unready> {
        let target = &mut self.targets[ix];
        let keys = &self.providers[target.provider].keys;
        let mut soonest = None;
        for (key, limiter) in (0u8..).zip(target.limiters.iter_mut()) {
            let out = keys.get(usize::from(key)).is_some_and(|state| !state.usable(target.spec.probes, now));
            if out || used_keys & (1 << key) != 0 {
                continue;
            }
            let ready = limiter.ready_at(now);
            if ready <= now {
                return Ok(key);
            }
            soonest = Some(soonest.map_or(ready, |at: Mono| at.min(ready)));
        }
        Err(soonest.map_or(Unready::NoKey, Unready::Limited))
    }

    /// An attempt leaves. `trial`: it holds the target's permit until it ends, or until `permit_until`.
    pub(crate) fn begin(&mut self, ix: usize, key: u8, call: CallId, trial: Option<Mono>, now: Mono) {
        self.try_key(ix, key, now);
        let target = &mut self.targets[ix];
        target.in_flight += 1;
        target.counts.attempts += 1;
        target.limiters[usize::from(key)].sent(now);
        if let Some(permit_until) = trial {
            target.breaker.take_permit(call, permit_until);
        }
    }

    /// An attempt has ended, however. Its evidence has been given already.
    pub(crate) fn end(&mut self, ix: usize, call: CallId, answered: bool, now: Mono) {
        let target = &mut self.targets[ix];
        target.in_flight -= 1;
        target.counts.answered += u64::from(answered);
        if !target.late.is_empty() {
            target.late.remove(&call);
        }
        if target.breaker.return_permit(call) && !target.breaker.serving() {
            if answered {
                self.wake_parked(ix, now);
            } else {
                self.trickle_again(ix, now);
            }
        }
    }

    pub(crate) fn learn_gap(&mut self, ix: usize, gap: Duration) {
        self.targets[ix].gaps.record(gap);
    }

    /// A first attempt is made on this target of the route.
    pub(crate) fn earn(&mut self, budget: usize, route: &BoundRoute) {
        self.budgets[budget].earn();
        if let Some(hedge) = route.route().tier.hedge {
            self.hedges[route.0.hedges].earn(hedge.budget);
        }
    }

    /// Takes what a hedge costs the route, and the target that is slow; or nothing and says no.
    pub(crate) fn spend_hedge(&mut self, route: &BoundRoute, slow: usize, now: Mono) -> bool {
        let hedges = &mut self.hedges[route.0.hedges];
        hedges.affords() && self.budgets[slow].spend(Price::Hedge, now) && hedges.spend()
    }

    pub(crate) fn spend(&mut self, budget: usize, price: Price, now: Mono) -> bool {
        self.budgets[budget].spend(price, now)
    }
}
