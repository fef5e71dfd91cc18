//! Counting rows and bytes against a [`Room`].

use crate::{Bound, Room};
use outlast_model::TenantId;
use std::collections::BTreeMap;

/// Which limit a row does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The tenant's share.
    Tenant,
    /// The whole.
    Whole,
}

impl Over {
    pub(super) fn of_tenant(self) -> bool {
        self == Over::Tenant
    }
}

/// What there is of one kind of row.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    whole: Bound,
    tenants: BTreeMap<TenantId, Bound>,
}

impl Default for Tally {
    fn default() -> Self {
        Tally { whole: Bound { rows: 0, bytes: 0 }, tenants: BTreeMap::new() }
    }
}

impl Tally {
    pub(super) fn rows(&self) -> u64 {
        self.whole.rows
    }

    /// The limit that one more row of so many bytes would break.
    pub(super) fn over(&self, tenant: &TenantId, bytes: usize, room: &Room) -> Option<Over> {
        let breaks = |there: Bound, limit: Bound| {
            there.rows + 1 > limit.rows || there.bytes.saturating_add(bytes as u64) > limit.bytes
        };
        let share = self.tenants.get(tenant).copied().unwrap_or(Bound { rows: 0, bytes: 0 });
        if breaks(share, room.tenant) {
            Some(Over::Tenant)
        } else if breaks(self.whole, room.whole) {
            Some(Over::Whole)
        } else {
            None
        }
    }

    pub(super) fn add(&mut self, tenant: &TenantId, bytes: usize) {
        let share = self.tenants.entry(tenant.clone()).or_insert(Bound { rows: 0, bytes: 0 });
        for bound in [share, &mut self.whole] {
            bound.rows += 1;
            bound.bytes += bytes as u64;
        }
    }

    pub(super) fn remove(&mut self, tenant: &TenantId, bytes: usize) {
        let Some(share) = self.tenants.get_mut(tenant) else { return };
        for bound in [&mut *share, &mut self.whole] {
            bound.rows -= 1;
            bound.bytes -= bytes as u64;
        }
        if share.rows == 0 {
            self.tenants.remove(tenant);
        }
    }

    /// A row's bytes changed.
    pub(super) fn resize(&mut self, tenant: &TenantId, before: usize, after: usize) {
        self.remove(tenant, before);
        self.add(tenant, after);
    }
}
