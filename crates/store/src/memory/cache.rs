//! Good replies.

use super::{after, age, fits, tally::Tally};
use crate::{Limits, Payload, Recall, Remember, Remembered, StoreError};
use outlast_model::{RouteId, TenantId, Wall};
use std::collections::BTreeMap;

type Place = (TenantId, RouteId, [u8; 32]);

#[derive(Clone, Debug, Default)]
pub(super) struct Cache {
    rows: BTreeMap<Place, Row>,
    tally: Tally,
    sequence: i64,
}

#[derive(Clone, Debug)]
struct Row {
    sequence: i64,
    payload: Payload,
    stored_at: Wall,
    expires_at: Wall,
}

impl Cache {
    pub(super) fn remember(&mut self, command: Remember, limits: &Limits, now: Wall) -> Result<(), StoreError> {
        let Remember { tenant, route, fingerprint, payload, keep } = command;
        fits(&payload, limits)?;
        // What does not fit an empty cache would empty it for nothing.
        if let Some(over) = Tally::default().over(&tenant, payload.len(), &limits.cache) {
            return Err(StoreError::LimitReached { what: "cached replies", of_tenant: over.of_tenant() });
        }
        let place = (tenant, route, fingerprint);
        self.remove(&place);
        while let Some(over) = self.tally.over(&place.0, payload.len(), &limits.cache) {
            let of_tenant = over.of_tenant();
            let oldest = self
                .rows
                .iter()
                .filter(|((tenant, _, _), _)| !of_tenant || *tenant == place.0)
                .min_by_key(|(_, row)| row.sequence)
                .map(|(place, _)| place.clone());
            let Some(oldest) = oldest else { break };
            self.remove(&oldest);
        }
        self.tally.add(&place.0, payload.len());
        self.sequence += 1;
        let row = Row { sequence: self.sequence, payload, stored_at: now, expires_at: after(now, keep) };
        self.rows.insert(place, row);
        Ok(())
    }

    pub(super) fn recall(&self, question: Recall, now: Wall) -> Option<Remembered> {
        let Recall { tenant, route, fingerprint, max_age } = question;
        let row = self.rows.get(&(tenant, route, fingerprint)).filter(|row| row.expires_at > now)?;
        let age = age(row.stored_at, now);
        (age <= max_age).then(|| Remembered { payload: row.payload.clone(), age })
    }

    pub(super) fn purge(&mut self, left: &mut u32, now: Wall) {
        let mut due: Vec<_> = self
            .rows
            .iter()
            .filter(|(_, row)| row.expires_at <= now)
            .map(|(place, row)| (row.expires_at, row.sequence, place.clone()))
            .collect();
        due.sort();
        for (_, _, place) in due.into_iter().take(*left as usize) {
            *left -= 1;
            self.remove(&place);
        }
    }

    fn remove(&mut self, place: &Place) {
        if let Some(row) = self.rows.remove(place) {
            self.tally.remove(&place.0, row.payload.len());
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.tally.rows()
    }
}
