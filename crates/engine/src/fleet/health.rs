//! What calls and probes tell about targets and keys, and what follows from it for everybody else.

use super::{
    Alert, Fleet, FleetAction,
    breaker::{Receipt, Shift, State},
    cusum::Soft,
    target::{KEY_TRIAL, KeyState},
};
use crate::call::CallId;
use outlast_model::{Failure, Mono, policy::Needs};
use std::time::Duration;

/// Openings of one provider's targets so close together are one event.
const TOGETHER: Duration = Duration::from_secs(60);
/// How long a target is left alone that the provider denies to this account.
const DENIED_FOR: Duration = Duration::from_secs(600);
/// A first output of more than so many times the usual is slow, if it is also longer than [`NEVER_SLOW`].
const SLOW_TIMES: u32 = 3;
const NEVER_SLOW: Duration = Duration::from_millis(500);
/// How many late calls one overdue call can speak for: enough to open a breaker that had nothing against it.
const VOICES: usize = 4;
/// 429s that persist although obeyed are half an evidence each, and only a soft one.
const PERSISTENT_LIMIT_WEIGHT: f64 = 0.5;

impl Fleet {
    /// A fault of a target. `trial`: of the one call or probe that tries it.
    pub(crate) fn fault(
        &mut self,
        ix: usize,
        trial: bool,
        failure: Failure,
        retry_after: Option<Duration>,
        now: Mono,
    ) -> Receipt {
        let floor = if failure == Failure::Overloaded { retry_after } else { None };
        let target = &mut self.targets[ix];
        target.counts.faults += 1;
        target.probing.heard = now;
        let was_closed = matches!(target.breaker.state(), State::Closed);
        let (receipt, shift) = target.breaker.fault(trial, floor, now, &self.policy, &mut self.rng);
        if shift == Shift::Opened && was_closed {
            self.alert(Alert::BreakerOpened { target: self.targets[ix].spec.id.clone(), cause: failure });
        }
        if was_closed && shift == Shift::Same {
            self.probe_as_suspect(ix, now);
        }
        self.shifted(ix, shift, now);
        receipt
    }

    /// A reply of a target. `trial`: of the one call or probe that tries it.
    pub(crate) fn success(&mut self, ix: usize, trial: bool, now: Mono) {
        let target = &mut self.targets[ix];
        target.probing.heard = now;
        target.forgiven = false;
        let shift = target.breaker.success(trial, now, &self.policy);
        self.shifted(ix, shift, now);
    }

    /// Evidence that turned out to be wrong.
    pub(crate) fn take_back(&mut self, ix: usize, receipt: Receipt, now: Mono) {
        let target = &mut self.targets[ix];
        target.counts.faults = target.counts.faults.saturating_sub(1);
        let shift = target.breaker.take_back(receipt, now, &self.policy);
        self.shifted(ix, shift, now);
    }

    /// Takes back the evidence of a request that failed the same way on two targets, unless the target has answered
    /// nobody since it was last forgiven: two targets that are both down fail every request the same way.
    pub(crate) fn forgive(&mut self, ix: usize, receipt: Receipt, now: Mono) {
        if !std::mem::replace(&mut self.targets[ix].forgiven, true) {
            self.take_back(ix, receipt, now);
        }
    }

    /// A call takes longer than it should. It is named when the breaker opens.
    pub(crate) fn late(&mut self, ix: usize, call: CallId) {
        self.targets[ix].late.entry(call).or_insert(false);
    }

    /// A late call's output has begun.
    pub(crate) fn punctual(&mut self, ix: usize, call: CallId) {
        self.targets[ix].late.remove(&call);
    }

    /// A call is overdue: evidence, unless another one has spoken for it. If nobody was answered since it left, its
    /// silence is everybody's, and it speaks for the other late calls as well, up to four in all.
    pub(crate) fn overdue(
        &mut self,
        ix: usize,
        call: CallId,
        sent: Mono,
        trial: bool,
        failure: Failure,
        now: Mono,
    ) -> Option<Receipt> {
        let target = &mut self.targets[ix];
        if target.late.insert(call, true) == Some(true) {
            return None;
        }
        let silent = target.answered_at < sent;
        let others = target.late.values_mut().filter(|spoken| silent && !**spoken).take(VOICES - 1);
        let voices = 1 + others.map(|spoken| *spoken = true).count();
        let receipt = self.fault(ix, trial, failure, None, now);
        Some((1..voices).fold(receipt, |receipt, _| receipt.and(self.fault(ix, trial, failure, None, now))))
    }

    /// How fast it was: of a call with these needs, or of a probe, which is compared but not learnt from.
    pub(crate) fn judge_speed(&mut self, ix: usize, needs: Option<&Needs>, took: Duration, now: Mono) {
        let target = &mut self.targets[ix];
        let usual = match needs {
            Some(needs) => target.latency(needs).known_p50(needs.input_tokens),
            None => target.first_output.known_p50(0),
        };
        if let Some(usual) = usual {
            let slow = took > usual * SLOW_TIMES && took > NEVER_SLOW;
            target.soft.count(Soft::Slow, slow, 1.0, now);
        }
        if let Some(needs) = needs {
            target.answered_at = now;
            target.latency_mut(needs).record(needs.input_tokens, took);
        }
    }

    /// Its call was answered by another target first: its own output would have come later than this. Learnt as if it had
    /// come now, or only its quick replies would count and make every other one look slow.
    pub(crate) fn outrun(&mut self, ix: usize, needs: &Needs, at_least: Duration, now: Mono) {
        let target = &mut self.targets[ix];
        let usual = target.latency(needs).known_p50(needs.input_tokens);
        if usual.is_some_and(|usual| at_least > usual * SLOW_TIMES && at_least > NEVER_SLOW) {
            target.soft.count(Soft::Slow, true, 1.0, now);
        }
        target.latency_mut(needs).record(needs.input_tokens, at_least);
    }

    /// A 429 to a call that left at `sent`.
    pub(crate) fn rate_limited(&mut self, ix: usize, key: u8, sent: Mono, retry_after: Option<Duration>, now: Mono) {
        let target = &mut self.targets[ix];
        target.counts.rate_limits += 1;
        target.probing.heard = now;
        let Some(limiter) = target.limiters.get_mut(usize::from(key)) else { return };
        if limiter.limited(sent, retry_after, now, &mut self.rng) {
            target.soft.count(Soft::Limited, true, PERSISTENT_LIMIT_WEIGHT, now);
        }
    }

    /// The provider let the key through, whatever became of the call.
    pub(crate) fn key_passed(&mut self, ix: usize, key: u8, sent: Mono, now: Mono) {
        let target = &mut self.targets[ix];
        if let Some(limiter) = target.limiters.get_mut(usize::from(key)) {
            limiter.passed(sent);
            target.soft.count(Soft::Limited, false, 1.0, now);
        }
        let provider = &mut self.providers[target.provider];
        let Some(state) = provider.keys.get_mut(usize::from(key)) else { return };
        if *state != KeyState::Good {
            *state = KeyState::Good;
            let provider_id = provider.id.clone();
            self.alert(Alert::KeyBack { provider: provider_id, key });
            self.wake_provider(ix, now);
        }
    }

    /// The provider rejected the key, or it is out of money.
    pub(crate) fn key_out(&mut self, ix: usize, key: u8, cause: Failure, sent: Mono, now: Mono) {
        let target = &mut self.targets[ix];
        target.probing.heard = now;
        let provider = &mut self.providers[target.provider];
        let Some(state) = provider.keys.get_mut(usize::from(key)) else { return };
        let was_good = *state == KeyState::Good;
        *state = state.out(cause, sent, now);
        if let KeyState::Out { until, .. } = *state {
            // One probe tries the key for all of the provider's targets.
            self.probe_by(ix, until);
        }
        if was_good {
            let provider = self.providers[self.targets[ix].provider].id.clone();
            self.alert(Alert::KeyOut { provider, key, cause });
        }
    }

    /// A call tries a key that was out.
    pub(crate) fn try_key(&mut self, ix: usize, key: u8, now: Mono) {
        let provider = self.targets[ix].provider;
        if let Some(KeyState::Out { until, .. }) = self.providers[provider].keys.get_mut(usize::from(key)) {
            *until = now + KEY_TRIAL;
        }
    }

    /// The provider denies the model to this account.
    pub(crate) fn deny(&mut self, ix: usize, now: Mono) {
        let target = &mut self.targets[ix];
        let known = target.denied_until > now;
        target.probing.heard = now;
        target.denied_until = now + DENIED_FOR;
        if !known {
            let id = target.spec.id.clone();
            self.alert(Alert::AccessDenied { target: id });
        }
    }

    /// What time alone changes in a breaker.
    pub(crate) fn advance(&mut self, ix: usize, now: Mono) {
        let shift = self.targets[ix].breaker.advance(now);
        self.shifted(ix, shift, now);
    }

    /// What a breaker's shift means for everybody else.
    fn shifted(&mut self, ix: usize, shift: Shift, now: Mono) {
        match shift {
            Shift::Same => return,
            Shift::Opened => {
                self.actions.extend(self.targets[ix].late.keys().copied().map(FleetAction::Wake));
                self.suspect_provider(ix, now);
            }
            Shift::HalfOpened => {
                if !self.targets[ix].spec.probes {
                    self.wake_parked(ix, now);
                }
            }
            Shift::Restoring | Shift::Closed => {
                let provider = self.targets[ix].provider;
                self.providers[provider].suspect = false;
                self.wake_parked(ix, now);
            }
        }
        if shift == Shift::Closed {
            let target = &self.targets[ix];
            let after = now.since(target.breaker.out_since());
            self.alert(Alert::BreakerClosed { target: target.spec.id.clone(), after });
        }
        self.probe_after_shift(ix, now);
        if let Some(due) = self.targets[ix].breaker.due() {
            self.schedule(due);
        }
    }

    /// At least two of a provider's targets, and at least half, opened within a minute: its other targets rank after
    /// the healthy ones of other providers until one of those recovers.
    fn suspect_provider(&mut self, ix: usize, now: Mono) {
        let place = self.targets[ix].provider;
        let provider = &self.providers[place];
        let siblings = || provider.targets.iter().map(|ix| &self.targets[*ix]).filter(|target| !target.retired);
        let opened = siblings()
            .filter(|target| !target.breaker.serving() && now.since(target.breaker.out_since()) <= TOGETHER)
            .count();
        if !provider.suspect && opened >= 2 && opened * 2 >= siblings().count() {
            let provider_id = provider.id.clone();
            self.providers[place].suspect = true;
            self.alert(Alert::ProviderSuspect { provider: provider_id });
        }
    }

    fn wake_provider(&mut self, ix: usize, now: Mono) {
        let siblings = self.providers[self.targets[ix].provider].targets.clone();
        siblings.into_iter().for_each(|ix| self.wake_parked(ix, now));
    }

    fn alert(&mut self, alert: Alert) {
        self.actions.push_back(FleetAction::Alert(alert));
    }
}
