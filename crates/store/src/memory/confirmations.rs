//! Questions to users.

use super::{after, tally::Tally};
use crate::{AskConfirmation, Asked, Limits, StoreError, TakeConfirmation, Taken};
use outlast_model::{RouteId, TenantId, Wall};
use std::{collections::BTreeMap, time::Duration};

#[derive(Clone, Debug, Default)]
pub(super) struct Confirmations {
    rows: BTreeMap<[u8; 32], Row>,
    tally: Tally,
}

#[derive(Clone, Debug)]
struct Row {
    tenant: TenantId,
    fingerprint: [u8; 32],
    route: RouteId,
    expires_at: Wall,
}

impl Row {
    fn gone(&self, keep: Duration, now: Wall) -> bool {
        after(self.expires_at, keep) <= now
    }
}

impl Confirmations {
    pub(super) fn ask(&mut self, command: AskConfirmation, limits: &Limits, now: Wall) -> Result<Asked, StoreError> {
        let AskConfirmation { token_hash, tenant, fingerprint, route, expires_in } = command;
        if let Some(row) = self.rows.get(&token_hash).filter(|row| !row.gone(limits.expired_keep, now)) {
            let repeated = row.tenant == tenant && row.fingerprint == fingerprint;
            return if repeated { Ok(Asked) } else { Err(StoreError::Taken { what: "question" }) };
        }
        if self.tally.over(&tenant, 0, &limits.confirmations).is_some() {
            let mut swept = self.clone();
            swept.purge(&mut u32::MAX.clone(), limits, now);
            if let Some(over) = swept.tally.over(&tenant, 0, &limits.confirmations) {
                return Err(StoreError::LimitReached { what: "questions to users", of_tenant: over.of_tenant() });
            }
            *self = swept;
        }
        self.remove(token_hash);
        self.tally.add(&tenant, 0);
        self.rows.insert(token_hash, Row { tenant, fingerprint, route, expires_at: after(now, expires_in) });
        Ok(Asked)
    }

    pub(super) fn take(&mut self, command: &TakeConfirmation, limits: &Limits, now: Wall) -> Taken {
        let Some(row) = self.rows.get(&command.token_hash).filter(|row| !row.gone(limits.expired_keep, now)) else {
            return Taken::Unknown;
        };
        if row.tenant != command.tenant || row.fingerprint != command.fingerprint {
            return Taken::Mismatch;
        }
        if row.expires_at <= now {
            return Taken::Expired;
        }
        let route = row.route.clone();
        self.remove(command.token_hash);
        Taken::Yes { route }
    }

    pub(super) fn purge(&mut self, left: &mut u32, limits: &Limits, now: Wall) {
        let mut due: Vec<_> = self
            .rows
            .iter()
            .filter(|(_, row)| row.gone(limits.expired_keep, now))
            .map(|(hash, row)| (row.expires_at, *hash))
            .collect();
        due.sort();
        for (_, hash) in due.into_iter().take(*left as usize) {
            *left -= 1;
            self.remove(hash);
        }
    }

    fn remove(&mut self, hash: [u8; 32]) {
        if let Some(row) = self.rows.remove(&hash) {
            self.tally.remove(&row.tenant, 0);
        }
    }
}
