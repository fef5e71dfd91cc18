//! Queued requests.

use super::{Epochs, after, deliveries::Deliveries, fits, tally::Tally};
use crate::{
    ClaimQueued, ClaimedItem, Enqueue, Enqueued, Epoch, Fenced, Limits, Occasion, Payload, QueueState, QueuedView,
    ReleaseQueued, RenewQueued, StoreError,
};
use outlast_model::{RouteId, TenantId, Wall, policy::Priority};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    rows: BTreeMap<Arc<str>, Item>,
    tally: Tally,
    sequence: i64,
}

#[derive(Clone, Debug)]
struct Item {
    sequence: i64,
    tenant: TenantId,
    route: RouteId,
    priority: Priority,
    webhook: Option<Arc<str>>,
    enqueued_at: Wall,
    expires_at: Wall,
    attempts: u32,
    /// The last claim; none yet.
    epoch: Option<Epoch>,
    /// The request; once it ended, what its client gets.
    payload: Payload,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting { not_before: Wall },
    Running { lease_until: Wall },
    Ended { end: End, at: Wall },
}

/// How an item ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Done,
    Failed,
    Expired,
}

/// How much there is to do.
#[derive(Debug, Default)]
pub(super) struct Depth {
    pub(super) waiting: u64,
    pub(super) running: u64,
    pub(super) oldest: Option<Wall>,
}

impl Item {
    /// When it ended or, whether or not a sweep has said so, expired.
    fn ended(&self, now: Wall) -> Option<(End, Wall)> {
        let expired_at = match self.state {
            State::Waiting { .. } => self.expires_at,
            State::Running { lease_until } => self.expires_at.max(lease_until),
            State::Ended { end, at } => return Some((end, at)),
        };
        (expired_at <= now).then_some((End::Expired, expired_at))
    }

    /// It ended so long ago that it can no longer be fetched.
    fn gone(&self, keep: Duration, now: Wall) -> bool {
        self.ended(now).is_some_and(|(_, at)| after(at, keep) <= now)
    }

    /// Nobody is at it, and it has not ended.
    fn waits(&self, now: Wall) -> bool {
        let free = match self.state {
            State::Waiting { .. } => true,
            State::Running { lease_until } => lease_until <= now,
            State::Ended { .. } => false,
        };
        free && self.ended(now).is_none()
    }

    fn claimable(&self, now: Wall) -> bool {
        let due = match self.state {
            State::Waiting { not_before } => not_before <= now,
            State::Running { .. } | State::Ended { .. } => true,
        };
        due && self.waits(now)
    }

    /// The claim of this epoch still stands.
    fn held(&self, epoch: Epoch, now: Wall) -> bool {
        let running = match self.state {
            State::Running { .. } => true,
            State::Waiting { .. } | State::Ended { .. } => false,
        };
        running && self.epoch == Some(epoch) && self.ended(now).is_none()
    }
}

impl Queue {
    pub(super) fn enqueue(
        &mut self,
        command: Enqueue,
        deliveries: &mut Deliveries,
        limits: &Limits,
        now: Wall,
    ) -> Result<Enqueued, StoreError> {
        let Enqueue { id, tenant, route, priority, payload, expires_in, webhook } = command;
        fits(&payload, limits)?;
        if let Some(item) = self.rows.get(&id).filter(|item| !item.gone(limits.finished_keep, now)) {
            if item.tenant != tenant {
                return Err(StoreError::Taken { what: "queued request" });
            }
            return Ok(Enqueued::Queued { position: self.position(item, now) });
        }
        if self.tally.over(&tenant, payload.len(), &limits.queue).is_some() {
            self.purge(&mut u32::MAX.clone(), deliveries, limits, now);
        }
        if let Some(over) = self.tally.over(&tenant, payload.len(), &limits.queue) {
            return Ok(Enqueued::Full { of_tenant: over.of_tenant() });
        }
        self.remove(&id, deliveries);
        self.tally.add(&tenant, payload.len());
        self.sequence += 1;
        let item = Item {
            sequence: self.sequence,
            tenant,
            route,
            priority,
            webhook,
            enqueued_at: now,
            expires_at: after(now, expires_in),
            attempts: 0,
            epoch: None,
            payload,
            state: State::Waiting { not_before: now },
        };
        let position = self.position(&item, now);
        self.rows.insert(id, item);
        Ok(Enqueued::Queued { position })
    }

    /// 1 for the next one, 0 if it does not wait.
    fn position(&self, item: &Item, now: Wall) -> u64 {
        if !item.waits(now) {
            return 0;
        }
        let place = (item.priority, item.sequence);
        let before = self.rows.values().filter(|other| other.waits(now) && (other.priority, other.sequence) < place);
        (before.count() as u64 + 1).min(Enqueued::COUNTED)
    }

    pub(super) fn claim(&mut self, command: &ClaimQueued, epochs: &mut Epochs, now: Wall) -> Option<ClaimedItem> {
        let (id, item) = self
            .rows
            .iter_mut()
            .filter(|(_, item)| item.claimable(now) && command.routes.contains(&item.route))
            .min_by_key(|(_, item)| (item.priority, item.sequence))?;
        let epoch = epochs.next();
        item.state = State::Running { lease_until: after(now, command.lease) };
        item.epoch = Some(epoch);
        item.attempts += 1;
        Some(ClaimedItem {
            id: id.clone(),
            tenant: item.tenant.clone(),
            route: item.route.clone(),
            priority: item.priority,
            epoch,
            attempts: item.attempts,
            payload: item.payload.clone(),
            enqueued_at: item.enqueued_at,
            expires_at: item.expires_at,
        })
    }

    pub(super) fn renew(&mut self, command: &RenewQueued, now: Wall) -> Fenced {
        match self.rows.get_mut(&command.id) {
            Some(item) if item.held(command.epoch, now) => {
                item.state = State::Running { lease_until: after(now, command.lease) };
                Fenced::Held
            }
            Some(_) | None => Fenced::Lost,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "an end is all of this at once")]
    pub(super) fn finish(
        &mut self,
        id: &Arc<str>,
        epoch: Epoch,
        end: End,
        payload: Payload,
        deliveries: &mut Deliveries,
        limits: &Limits,
        now: Wall,
    ) -> Result<Fenced, StoreError> {
        fits(&payload, limits)?;
        let Some(item) = self.rows.get_mut(id).filter(|item| item.epoch == Some(epoch)) else {
            return Ok(Fenced::Lost);
        };
        if item.held(epoch, now) {
            self.tally.resize(&item.tenant, item.payload.len(), payload.len());
            item.payload = payload;
            item.state = State::Ended { end, at: now };
            deliveries.announce(id, &item.tenant, item.webhook.as_ref(), now);
            return Ok(Fenced::Held);
        }
        let repeated = item.ended(now).is_some_and(|(was, _)| was == end) && !item.gone(limits.finished_keep, now);
        Ok(if repeated { Fenced::Held } else { Fenced::Lost })
    }

    pub(super) fn release(&mut self, command: &ReleaseQueued, now: Wall) -> Fenced {
        let Some(item) = self.rows.get_mut(&command.id).filter(|item| item.epoch == Some(command.epoch)) else {
            return Fenced::Lost;
        };
        if item.ended(now).is_some() {
            return Fenced::Lost;
        }
        match item.state {
            State::Running { .. } => item.state = State::Waiting { not_before: after(now, command.after) },
            State::Waiting { .. } | State::Ended { .. } => {}
        }
        Fenced::Held
    }

    pub(super) fn view(&self, tenant: &TenantId, id: &str, limits: &Limits, now: Wall) -> Option<QueuedView> {
        let item = self.rows.get(id).filter(|item| item.tenant == *tenant && !item.gone(limits.finished_keep, now))?;
        let state = match item.ended(now) {
            Some((End::Done, _)) => QueueState::Done(item.payload.clone()),
            Some((End::Failed, _)) => QueueState::Failed(item.payload.clone()),
            Some((End::Expired, _)) => QueueState::Expired,
            None if item.waits(now) => QueueState::Waiting { position: self.position(item, now) },
            None => QueueState::Running,
        };
        Some(QueuedView {
            state,
            route: item.route.clone(),
            enqueued_at: item.enqueued_at,
            expires_at: item.expires_at,
            attempts: item.attempts,
        })
    }

    /// How the item ended, for its delivery.
    pub(super) fn occasion(&self, id: &str) -> Option<Occasion> {
        let item = self.rows.get(id)?;
        match item.state {
            State::Ended { end: End::Done, .. } => Some(Occasion::Done(item.payload.clone())),
            State::Ended { end: End::Failed, .. } => Some(Occasion::Failed(item.payload.clone())),
            State::Ended { end: End::Expired, .. } => Some(Occasion::Expired),
            State::Waiting { .. } | State::Running { .. } => None,
        }
    }

    /// Says of what has expired that it has: the request is forgotten and the webhook hears of it.
    pub(super) fn expire(&mut self, left: &mut u32, deliveries: &mut Deliveries, now: Wall) {
        let mut due: Vec<_> = self
            .rows
            .iter()
            .filter_map(|(id, item)| {
                let (_, at) = item.ended(now)?;
                let open = !matches!(item.state, State::Ended { .. });
                open.then(|| (item.expires_at, item.sequence, at, id.clone()))
            })
            .collect();
        due.sort();
        for (_, _, at, id) in due.into_iter().take(*left as usize) {
            let Some(item) = self.rows.get_mut(&id) else { continue };
            *left -= 1;
            self.tally.resize(&item.tenant, item.payload.len(), 0);
            item.payload = Payload::default();
            item.state = State::Ended { end: End::Expired, at };
            deliveries.announce(&id, &item.tenant, item.webhook.as_ref(), now);
        }
    }

    /// Removes what can no longer be fetched and has nothing left to deliver.
    pub(super) fn purge(&mut self, left: &mut u32, deliveries: &mut Deliveries, limits: &Limits, now: Wall) {
        let mut due: Vec<_> = self
            .rows
            .iter()
            .filter_map(|(id, item)| match item.state {
                State::Ended { at, .. } => Some((at, item.sequence, id.clone())),
                State::Waiting { .. } | State::Running { .. } => None,
            })
            .filter(|(at, _, id)| after(*at, limits.finished_keep) <= now && !deliveries.pending(id, limits, now))
            .collect();
        due.sort();
        for (_, _, id) in due.into_iter().take(*left as usize) {
            *left -= 1;
            self.remove(&id, deliveries);
        }
    }

    fn remove(&mut self, id: &str, deliveries: &mut Deliveries) {
        if let Some(item) = self.rows.remove(id) {
            self.tally.remove(&item.tenant, item.payload.len());
            deliveries.forget(id);
        }
    }

    pub(super) fn depth(&self, now: Wall) -> Depth {
        let mut depth = Depth::default();
        for item in self.rows.values().filter(|item| item.ended(now).is_none()) {
            if item.waits(now) {
                depth.waiting += 1;
                depth.oldest = Some(depth.oldest.map_or(item.enqueued_at, |oldest| oldest.min(item.enqueued_at)));
            } else {
                depth.running += 1;
            }
        }
        depth
    }
}
