//! Idempotent calls.

use super::{Epochs, after, age, fits, tally::Tally};
use crate::{BeginCall, Begun, CallEnd, EndCall, Epoch, Fenced, Limits, Payload, RenewCall, StoreError};
use outlast_model::{TenantId, Wall};
use std::{collections::BTreeMap, sync::Arc};

#[derive(Clone, Debug, Default)]
pub(super) struct Calls {
    rows: BTreeMap<(TenantId, Arc<str>), Call>,
    tally: Tally,
}

#[derive(Clone, Debug)]
struct Call {
    fingerprint: [u8; 32],
    epoch: Epoch,
    state: State,
    expires_at: Wall,
}

#[derive(Clone, Debug)]
enum State {
    Running { lease_until: Wall },
    Done(Payload),
    Failed(Payload),
}

impl Call {
    /// The key is no longer kept, and nobody is at it.
    fn gone(&self, now: Wall) -> bool {
        let held = match self.state {
            State::Running { lease_until } => lease_until > now,
            State::Done(_) | State::Failed(_) => false,
        };
        self.expires_at <= now && !held
    }

    fn bytes(&self) -> usize {
        match &self.state {
            State::Running { .. } => 0,
            State::Done(payload) | State::Failed(payload) => payload.len(),
        }
    }
}

impl Calls {
    pub(super) fn begin(
        &mut self,
        command: BeginCall,
        epochs: &mut Epochs,
        limits: &Limits,
        now: Wall,
    ) -> Result<Begun, StoreError> {
        let BeginCall { tenant, key, fingerprint, lease, keep } = command;
        let place = (tenant, key);
        match self.rows.get(&place).filter(|call| !call.gone(now)) {
            Some(call) if call.fingerprint != fingerprint => return Ok(Begun::Mismatch),
            Some(call) => match &call.state {
                State::Done(payload) | State::Failed(payload) => return Ok(Begun::Replay(payload.clone())),
                State::Running { lease_until } if *lease_until > now => {
                    return Ok(Begun::InFlight { retry_after: age(now, *lease_until) });
                }
                State::Running { .. } => {}
            },
            None => {
                self.make_room(&place.0, limits, now)?;
                self.remove(&place);
                self.tally.add(&place.0, 0);
            }
        }
        let epoch = epochs.next();
        let state = State::Running { lease_until: after(now, lease) };
        self.rows.insert(place, Call { fingerprint, epoch, state, expires_at: after(now, keep) });
        Ok(Begun::Execute { epoch })
    }

    pub(super) fn renew(&mut self, command: &RenewCall, now: Wall) -> Fenced {
        match self.rows.get_mut(&(command.tenant.clone(), command.key.clone())) {
            Some(call) if call.epoch == command.epoch && !call.gone(now) => match &mut call.state {
                State::Running { lease_until } => {
                    *lease_until = after(now, command.lease);
                    Fenced::Held
                }
                State::Done(_) | State::Failed(_) => Fenced::Lost,
            },
            Some(_) | None => Fenced::Lost,
        }
    }

    pub(super) fn end(&mut self, command: EndCall, limits: &Limits, now: Wall) -> Result<Fenced, StoreError> {
        let EndCall { tenant, key, epoch, end } = command;
        let state = match end {
            CallEnd::Done(payload) => Some(State::Done(payload)),
            CallEnd::Failed(payload) => Some(State::Failed(payload)),
            CallEnd::Released => None,
        };
        if let Some(State::Done(payload) | State::Failed(payload)) = &state {
            fits(payload, limits)?;
        }
        let place = (tenant, key);
        let Some(call) = self.rows.get_mut(&place).filter(|call| call.epoch == epoch && !call.gone(now)) else {
            return Ok(Fenced::Lost);
        };
        Ok(match (&call.state, state) {
            (State::Running { .. }, Some(state)) => {
                call.state = state;
                self.tally.resize(&place.0, 0, call.bytes());
                Fenced::Held
            }
            (State::Running { .. }, None) => {
                self.remove(&place);
                Fenced::Held
            }
            (State::Done(_), Some(State::Done(_))) | (State::Failed(_), Some(State::Failed(_))) => Fenced::Held,
            (State::Done(_) | State::Failed(_), _) => Fenced::Lost,
        })
    }

    /// Keys no longer kept are swept only when the room is needed, and if it is enough.
    fn make_room(&mut self, tenant: &TenantId, limits: &Limits, now: Wall) -> Result<(), StoreError> {
        if self.tally.over(tenant, 0, &limits.calls).is_none() {
            return Ok(());
        }
        let mut swept = self.clone();
        swept.purge(&mut u32::MAX.clone(), now);
        if let Some(over) = swept.tally.over(tenant, 0, &limits.calls) {
            return Err(StoreError::LimitReached { what: "idempotency keys", of_tenant: over.of_tenant() });
        }
        *self = swept;
        Ok(())
    }

    pub(super) fn purge(&mut self, left: &mut u32, now: Wall) {
        let mut due: Vec<_> =
            self.rows.iter().filter(|(_, call)| call.gone(now)).map(|(place, call)| (call.expires_at, place)).collect();
        due.sort();
        let due: Vec<_> = due.into_iter().take(*left as usize).map(|(_, place)| place.clone()).collect();
        *left -= due.len() as u32;
        for place in due {
            self.remove(&place);
        }
    }

    fn remove(&mut self, place: &(TenantId, Arc<str>)) {
        if let Some(call) = self.rows.remove(place) {
            self.tally.remove(&place.0, call.bytes());
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.tally.rows()
    }
}
