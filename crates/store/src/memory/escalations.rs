//! Escalations.

use super::{after, fits, tally::Tally};
use crate::{
    Cursor, DecideEscalation, Decided, Decision, Escalation, EscalationFilter, EscalationPage, EscalationState,
    EscalationSummary, Limits, OpenEscalation, Opened, Page, Payload, StoreError,
};
use outlast_model::Wall;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

#[derive(Clone, Debug, Default)]
pub(super) struct Escalations {
    rows: BTreeMap<Arc<str>, Row>,
    tally: Tally,
    sequence: i64,
}

#[derive(Clone, Debug)]
struct Row {
    sequence: i64,
    opened: OpenEscalation,
    opened_at: Wall,
    decision: Option<Decision>,
}

impl Row {
    /// Decided, and so long ago that it is no longer kept.
    fn gone(&self, keep: Duration, now: Wall) -> bool {
        self.decision.as_ref().is_some_and(|decision| after(decision.at, keep) <= now)
    }

    fn bytes(&self) -> usize {
        size(&self.opened) + self.decision.as_ref().map_or(0, |decision| decision.decision.len())
    }

    fn summary(&self) -> EscalationSummary {
        EscalationSummary {
            id: self.opened.id.clone(),
            tenant: self.opened.tenant.clone(),
            route: self.opened.route.clone(),
            request_id: self.opened.request_id.clone(),
            failure: self.opened.failure,
            question: self.opened.question.clone(),
            opened_at: self.opened_at,
            decided_at: self.decision.as_ref().map(|decision| decision.at),
        }
    }
}

fn size(opened: &OpenEscalation) -> usize {
    opened.question.len() + opened.payload.len()
}

impl Escalations {
    pub(super) fn open(&mut self, command: OpenEscalation, limits: &Limits, now: Wall) -> Result<Opened, StoreError> {
        fits(&command.payload, limits)?;
        fits(&Payload::new(command.question.as_bytes().to_vec()), limits)?;
        if let Some(row) = self.rows.get(&command.id).filter(|row| !row.gone(limits.decided_keep, now)) {
            if row.opened.tenant != command.tenant {
                return Err(StoreError::Taken { what: "escalation" });
            }
            return Ok(Opened { first: false });
        }
        let bytes = size(&command);
        if self.tally.over(&command.tenant, bytes, &limits.escalations).is_some() {
            let mut swept = self.clone();
            swept.purge(&mut u32::MAX.clone(), limits, now);
            if let Some(over) = swept.tally.over(&command.tenant, bytes, &limits.escalations) {
                return Err(StoreError::LimitReached { what: "escalations", of_tenant: over.of_tenant() });
            }
            *self = swept;
        }
        self.remove(&command.id);
        self.tally.add(&command.tenant, bytes);
        self.sequence += 1;
        let row = Row { sequence: self.sequence, opened: command, opened_at: now, decision: None };
        self.rows.insert(row.opened.id.clone(), row);
        Ok(Opened { first: true })
    }

    pub(super) fn list(&self, filter: &EscalationFilter, page: Page, limits: &Limits, now: Wall) -> EscalationPage {
        let mut rows: Vec<_> = self
            .rows
            .values()
            .filter(|row| !row.gone(limits.decided_keep, now))
            .filter(|row| filter.tenant.as_ref().is_none_or(|tenant| row.opened.tenant == *tenant))
            .filter(|row| !filter.open_only || row.decision.is_none())
            .filter(|row| page.after.is_none_or(|Cursor(after)| row.sequence < after))
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.sequence));
        let size = page.size.clamp(1, Page::LARGEST) as usize;
        let next = (rows.len() > size).then(|| Cursor(rows[size - 1].sequence));
        EscalationPage { escalations: rows.into_iter().take(size).map(Row::summary).collect(), next }
    }

    pub(super) fn get(&self, id: &str, limits: &Limits, now: Wall) -> Option<Escalation> {
        let row = self.rows.get(id).filter(|row| !row.gone(limits.decided_keep, now))?;
        let state = match &row.decision {
            Some(decision) => EscalationState::Decided(decision.clone()),
            None => EscalationState::Open,
        };
        Some(Escalation { summary: row.summary(), payload: row.opened.payload.clone(), state })
    }

    pub(super) fn decide(
        &mut self,
        command: DecideEscalation,
        limits: &Limits,
        now: Wall,
    ) -> Result<Decided, StoreError> {
        let DecideEscalation { id, by, decision } = command;
        fits(&decision, limits)?;
        let Some(row) = self.rows.get_mut(&id).filter(|row| !row.gone(limits.decided_keep, now)) else {
            return Ok(Decided::Unknown);
        };
        if let Some(first) = &row.decision {
            let repeated = first.by == by && first.decision == decision;
            return Ok(if repeated { Decided::Stands } else { Decided::Already(first.clone()) });
        }
        let before = row.bytes();
        row.decision = Some(Decision { by, at: now, decision });
        self.tally.resize(&row.opened.tenant, before, row.bytes());
        Ok(Decided::Stands)
    }

    pub(super) fn purge(&mut self, left: &mut u32, limits: &Limits, now: Wall) {
        let mut due: Vec<_> = self
            .rows
            .iter()
            .filter(|(_, row)| row.gone(limits.decided_keep, now))
            .map(|(id, row)| (row.decision.as_ref().map(|decision| decision.at), row.sequence, id.clone()))
            .collect();
        due.sort();
        for (_, _, id) in due.into_iter().take(*left as usize) {
            *left -= 1;
            self.remove(&id);
        }
    }

    fn remove(&mut self, id: &str) {
        if let Some(row) = self.rows.remove(id) {
            self.tally.remove(&row.opened.tenant, row.bytes());
        }
    }

    pub(super) fn open_count(&self) -> u64 {
        self.rows.values().filter(|row| row.decision.is_none()).count() as u64
    }
}
