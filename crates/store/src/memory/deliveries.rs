//! The webhook outbox.

use super::{Epochs, after, queue::Queue};
use crate::{Delivered, Delivery, DueDeliveries, Epoch, Fenced, Limits, Retried, RetryDelivery};
use outlast_model::{TenantId, Wall};
use std::{collections::BTreeMap, sync::Arc};

/// At most so many are given at once.
const AT_ONCE: usize = 100;

#[derive(Clone, Debug, Default)]
pub(super) struct Deliveries {
    rows: BTreeMap<Arc<str>, Row>,
    sequence: i64,
}

#[derive(Clone, Debug)]
struct Row {
    sequence: i64,
    tenant: TenantId,
    webhook: Arc<str>,
    at: Wall,
    attempts: u32,
    epoch: Option<Epoch>,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Waiting { not_before: Wall },
    Claimed { lease_until: Wall },
}

impl Row {
    /// Tried too often, and nobody is trying.
    fn given_up(&self, limits: &Limits, now: Wall) -> bool {
        let held = match self.state {
            State::Waiting { .. } => false,
            State::Claimed { lease_until } => lease_until > now,
        };
        self.attempts >= limits.delivery_attempts && !held
    }

    fn due(&self, limits: &Limits, now: Wall) -> bool {
        let free = match self.state {
            State::Waiting { not_before } => not_before <= now,
            State::Claimed { lease_until } => lease_until <= now,
        };
        free && !self.given_up(limits, now)
    }
}

impl Deliveries {
    /// An item ended: its webhook, if it has one, is to hear of it.
    pub(super) fn announce(&mut self, id: &Arc<str>, tenant: &TenantId, webhook: Option<&Arc<str>>, now: Wall) {
        let Some(webhook) = webhook.cloned() else { return };
        self.sequence += 1;
        let row = Row {
            sequence: self.sequence,
            tenant: tenant.clone(),
            webhook,
            at: now,
            attempts: 0,
            epoch: None,
            state: State::Waiting { not_before: now },
        };
        self.rows.insert(id.clone(), row);
    }

    pub(super) fn due(
        &mut self,
        command: &DueDeliveries,
        queue: &Queue,
        epochs: &mut Epochs,
        limits: &Limits,
        now: Wall,
    ) -> Vec<Delivery> {
        let mut due: Vec<_> = self.rows.iter_mut().filter(|(_, row)| row.due(limits, now)).collect();
        due.sort_by_key(|(_, row)| row.sequence);
        due.into_iter()
            .take(AT_ONCE.min(command.limit as usize))
            .filter_map(|(id, row)| {
                let occasion = queue.occasion(id)?;
                let epoch = epochs.next();
                row.attempts += 1;
                row.epoch = Some(epoch);
                row.state = State::Claimed { lease_until: after(now, command.lease) };
                Some(Delivery {
                    id: id.clone(),
                    tenant: row.tenant.clone(),
                    webhook: row.webhook.clone(),
                    occasion,
                    at: row.at,
                    epoch,
                    attempts: row.attempts,
                })
            })
            .collect()
    }

    pub(super) fn delivered(&mut self, command: &Delivered) -> Fenced {
        let claimed = self.rows.get(&command.id).is_some_and(|row| {
            row.epoch == Some(command.epoch)
                && match row.state {
                    State::Claimed { .. } => true,
                    State::Waiting { .. } => false,
                }
        });
        if claimed {
            self.rows.remove(&command.id);
            Fenced::Held
        } else {
            Fenced::Lost
        }
    }

    pub(super) fn retry(&mut self, command: &RetryDelivery, limits: &Limits, now: Wall) -> Retried {
        let Some(row) = self.rows.get_mut(&command.id).filter(|row| row.epoch == Some(command.epoch)) else {
            return Retried::Lost;
        };
        match row.state {
            State::Claimed { .. } => row.state = State::Waiting { not_before: after(now, command.after) },
            State::Waiting { .. } => {}
        }
        if row.given_up(limits, now) { Retried::GivenUp } else { Retried::Later }
    }

    /// The item has a delivery that is not given up.
    pub(super) fn pending(&self, id: &str, limits: &Limits, now: Wall) -> bool {
        self.rows.get(id).is_some_and(|row| !row.given_up(limits, now))
    }

    pub(super) fn forget(&mut self, id: &str) {
        self.rows.remove(id);
    }

    /// How many are pending, and how many given up.
    pub(super) fn counts(&self, limits: &Limits, now: Wall) -> (u64, u64) {
        let given_up = self.rows.values().filter(|row| row.given_up(limits, now)).count() as u64;
        (self.rows.len() as u64 - given_up, given_up)
    }
}
