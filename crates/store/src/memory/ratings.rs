//! What callers thought of replies.

use super::{after, fits, tally::Tally};
use crate::{Limits, Rate, Rated, Rating, StoreError};
use outlast_model::{RequestId, TenantId, Wall};
use std::collections::BTreeMap;

type Place = (TenantId, RequestId);

#[derive(Clone, Debug, Default)]
pub(super) struct Ratings {
    rows: BTreeMap<Place, Row>,
    tally: Tally,
    sequence: i64,
}

#[derive(Clone, Debug)]
struct Row {
    sequence: i64,
    rating: Rating,
    expires_at: Wall,
}

impl Row {
    fn bytes(&self) -> usize {
        self.rating.comment.as_ref().map_or(0, |comment| comment.len())
    }
}

impl Ratings {
    pub(super) fn rate(&mut self, command: Rate, limits: &Limits, now: Wall) -> Result<Rated, StoreError> {
        let Rate { tenant, request_id, score, comment, keep } = command;
        let bytes = match &comment {
            Some(comment) => {
                fits(comment, limits)?;
                comment.len()
            }
            None => 0,
        };
        if let Some(over) = Tally::default().over(&tenant, bytes, &limits.ratings) {
            return Err(StoreError::LimitReached { what: "ratings", of_tenant: over.of_tenant() });
        }
        let place = (tenant, request_id);
        let before = self.rows.get(&place).filter(|row| row.expires_at > now).map(|row| row.rating.score);
        self.remove(&place);
        while let Some(over) = self.tally.over(&place.0, bytes, &limits.ratings) {
            let of_tenant = over.of_tenant();
            let oldest = self
                .rows
                .iter()
                .filter(|((tenant, _), _)| !of_tenant || *tenant == place.0)
                .min_by_key(|(_, row)| row.sequence)
                .map(|(place, _)| place.clone());
            let Some(oldest) = oldest else { break };
            self.remove(&oldest);
        }
        self.tally.add(&place.0, bytes);
        self.sequence += 1;
        let rating = Rating { score, comment, at: now };
        self.rows.insert(place, Row { sequence: self.sequence, rating, expires_at: after(now, keep) });
        Ok(before.map_or(Rated::First, |before| Rated::Replaced { before }))
    }

    pub(super) fn get(&self, tenant: TenantId, request_id: RequestId, now: Wall) -> Option<Rating> {
        self.rows.get(&(tenant, request_id)).filter(|row| row.expires_at > now).map(|row| row.rating.clone())
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
            self.tally.remove(&place.0, row.bytes());
        }
    }
}
