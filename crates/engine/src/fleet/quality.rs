//! Quality over time: how often a target's replies are bad, per route.

use super::{BoundRoute, BoundTarget, Fleet, Soft, target::KeyState};
use outlast_model::{Mono, RouteId, TargetId};

/// What one checked reply says about the target's quality on its route. `None`: it was not asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyQuality {
    /// Whether the structure that was demanded is kept.
    pub schema: Option<bool>,
    /// The model declined.
    pub refusal: bool,
    /// There is nothing in it.
    pub empty: bool,
    /// It took a repair, by fixes or by the model.
    pub repaired: bool,
    /// Whether it names its sources as it has to.
    pub citation: Option<bool>,
}

impl Fleet {
    /// A complete reply was checked.
    pub(crate) fn note_reply(&mut self, place: BoundTarget, quality: ReplyQuality, now: Mono) {
        self.judge(place.ix, Soft::Empty, quality.empty, now);
        self.judge(place.ix, Soft::Refusal, quality.refusal, now);
        if let Some(kept) = quality.schema {
            self.judge(place.ix, Soft::Structure, !kept, now);
        }
    }

    pub(super) fn note_golden(&mut self, _ix: usize, _passed: bool, _now: Mono) {}

    pub(super) fn note_feedback(&mut self, _route: &RouteId, _target: &TargetId, _good: bool, _now: Mono) {}

    /// Whether some target of the route could be asked now: its breaker serves, one of its keys may be used, and nobody
    /// denies it. A queued request is worth trying then.
    pub fn ready(&self, route: &BoundRoute, now: Mono) -> bool {
        route.bound().iter().any(|place| self.askable(place.ix, now))
    }

    fn askable(&self, ix: usize, now: Mono) -> bool {
        let target = self.target(ix);
        let keys = &self.providers[target.provider].keys;
        let key_good = |key: usize| keys.get(key).is_none_or(|state| *state == KeyState::Good);
        let key_free =
            target.limiters.iter().enumerate().any(|(key, limiter)| key_good(key) && limiter.scheduled_at() <= now);
        !target.retired && target.breaker.serving() && target.denied_until <= now && key_free
    }
}
