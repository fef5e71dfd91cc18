//! The outbox of notices.

use super::{Epochs, after};
use crate::{About, DueNotices, Epoch, Fenced, Limits, Noticed, Retried, RetryNotice};
use outlast_model::Wall;
use std::{collections::BTreeMap, sync::Arc};

/// At most so many are given at once.
const AT_ONCE: usize = 100;

#[derive(Clone, Debug, Default)]
pub(super) struct Notices {
    /// By escalation and channel.
    rows: BTreeMap<(Arc<str>, Arc<str>), Row>,
    sequence: i64,
}

#[derive(Clone, Debug)]
struct Row {
    sequence: i64,
    about: About,
    at: Wall,
    attempts: u32,
    epoch: Option<Epoch>,
    /// 0 unless it is claimed.
    lease_until: Wall,
    not_before: Wall,
}

/// A claimed notice, without what it tells of.
pub(super) struct Claimed {
    pub(super) escalation: Arc<str>,
    pub(super) channel: Arc<str>,
    pub(super) about: About,
    pub(super) at: Wall,
    pub(super) epoch: Epoch,
    pub(super) attempts: u32,
}

impl Row {
    fn claimed(&self) -> bool {
        self.lease_until > Wall(0)
    }

    fn given_up(&self, limits: &Limits, now: Wall) -> bool {
        self.attempts >= limits.delivery_attempts && self.lease_until <= now
    }

    fn due(&self, limits: &Limits, now: Wall) -> bool {
        self.lease_until <= now && self.not_before <= now && self.attempts < limits.delivery_attempts
    }
}

impl Notices {
    /// Somebody is to hear of it. What the same channel has not been told yet of the same escalation is not told any more.
    pub(super) fn put(&mut self, escalation: &Arc<str>, channel: &Arc<str>, about: About, now: Wall) {
        self.sequence += 1;
        let row = Row {
            sequence: self.sequence,
            about,
            at: now,
            attempts: 0,
            epoch: None,
            lease_until: Wall(0),
            not_before: now,
        };
        self.rows.insert((escalation.clone(), channel.clone()), row);
    }

    pub(super) fn due(
        &mut self,
        command: &DueNotices,
        epochs: &mut Epochs,
        limits: &Limits,
        now: Wall,
    ) -> Vec<Claimed> {
        let mut due: Vec<_> = self.rows.iter_mut().filter(|(_, row)| row.due(limits, now)).collect();
        due.sort_by_key(|(_, row)| row.sequence);
        let claim = |((escalation, channel), row): (&(Arc<str>, Arc<str>), &mut Row)| {
            let epoch = epochs.next();
            row.attempts += 1;
            row.epoch = Some(epoch);
            row.lease_until = after(now, command.lease);
            Claimed {
                escalation: escalation.clone(),
                channel: channel.clone(),
                about: row.about,
                at: row.at,
                epoch,
                attempts: row.attempts,
            }
        };
        due.into_iter().take(AT_ONCE.min(command.limit as usize)).map(claim).collect()
    }

    pub(super) fn noticed(&mut self, command: &Noticed) -> Fenced {
        let key = (command.escalation.clone(), command.channel.clone());
        if self.rows.get(&key).is_some_and(|row| row.epoch == Some(command.epoch) && row.claimed()) {
            self.rows.remove(&key);
            return Fenced::Held;
        }
        Fenced::Lost
    }

    pub(super) fn retry(&mut self, command: &RetryNotice, limits: &Limits, now: Wall) -> Retried {
        let key = (command.escalation.clone(), command.channel.clone());
        let Some(row) = self.rows.get_mut(&key).filter(|row| row.epoch == Some(command.epoch)) else {
            return Retried::Lost;
        };
        if row.claimed() {
            row.lease_until = Wall(0);
            row.not_before = after(now, command.after);
        }
        if row.given_up(limits, now) { Retried::GivenUp } else { Retried::Later }
    }

    /// The escalation is no longer kept.
    pub(super) fn forget(&mut self, escalation: &str) {
        self.rows.retain(|(of, _), _| **of != *escalation);
    }

    /// How many are pending, and how many given up.
    pub(super) fn counts(&self, limits: &Limits, now: Wall) -> (u64, u64) {
        let given_up = self.rows.values().filter(|row| row.given_up(limits, now)).count() as u64;
        (self.rows.len() as u64 - given_up, given_up)
    }
}
