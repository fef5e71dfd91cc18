//! Escalations, and what follows from deciding one.

use super::{Epochs, after, audit::Audit, fits, notices::Notices, tally::Tally};
use crate::{
    About, Cursor, DecideEscalation, Decided, Decision, DueEscalation, DueEscalations, DueNotices, Epoch, Escalation,
    EscalationFilter, EscalationMoved, EscalationPage, EscalationState, EscalationSummary, Fenced, IfParked, Limits,
    Notice, OpenEscalation, Opened, Origin, Page, Parking, Payload, StoreError, command::escalations::audited,
};
use outlast_engine::run::{escalate, resolve};
use outlast_model::{
    Wall,
    run::{EscalationKind, Verb},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// At most so many are given at once.
const AT_ONCE: usize = 100;

#[derive(Clone, Debug, Default)]
pub(super) struct Escalations {
    rows: BTreeMap<Arc<str>, Row>,
    tally: Tally,
    sequence: i64,
    pub(super) notices: Notices,
    pub(super) audit: Audit,
}

#[derive(Clone, Debug)]
struct Row {
    sequence: i64,
    summary: EscalationSummary,
    fingerprint: [u8; 32],
    attempts: u32,
    payload: Payload,
    /// When somebody has to hear of it next.
    next_at: Option<Wall>,
    /// Who looks after that now, until when; none any more once they have.
    watch: Option<(Epoch, Option<Wall>)>,
    /// The channels that have heard of it.
    told: BTreeSet<Arc<str>>,
    decision: Option<Decision>,
}

/// What waits for a decision that can be made.
pub(super) struct Waits {
    pub(super) escalation: EscalationSummary,
    pub(super) comes_to: escalate::Decided,
}

impl Row {
    /// Decided, and so long ago that it is no longer kept.
    fn gone(&self, limits: &Limits, now: Wall) -> bool {
        self.decision.as_ref().is_some_and(|decision| after(decision.at, limits.decided_keep) <= now)
    }

    fn bytes(&self) -> usize {
        let decision = self.decision.as_ref().map_or(0, |decision| decision.decision.len());
        self.summary.question.len() + self.payload.len() + decision
    }

    fn due(&self, now: Wall) -> bool {
        let watched = self.watch.is_some_and(|(_, until)| until.is_some_and(|until| until > now));
        self.decision.is_none() && !watched && self.next_at.is_some_and(|at| at <= now)
    }

    fn is_overdue(&self, now: Wall) -> bool {
        self.decision.is_none() && self.summary.answer_by.is_some_and(|by| by <= now)
    }
}

impl Escalations {
    pub(super) fn open(&mut self, command: OpenEscalation, limits: &Limits, now: Wall) -> Result<Opened, StoreError> {
        fits(&command.payload, limits)?;
        fits(&Payload::new(command.question.as_bytes().to_vec()), limits)?;
        if let Some(row) = self.rows.get(&command.id).filter(|row| !row.gone(limits, now)) {
            if row.summary.tenant != command.tenant {
                return Err(StoreError::Taken { what: "escalation" });
            }
            return Ok(Opened { first: false });
        }
        let shown = command.shown();
        let OpenEscalation { id, tenant, route, request_id, failure, question, payload, answer_within } = command;
        let summary = EscalationSummary {
            id,
            tenant,
            kind: EscalationKind::Call,
            origin: Origin::Call { route, request_id, failure },
            question,
            shown,
            level: None,
            opened_at: now,
            answer_by: answer_within.map(|within| after(now, within)),
            decided: None,
        };
        self.insert(summary, [0; 32], 0, payload, limits, now)?;
        Ok(Opened { first: true })
    }

    /// Opens the escalation of what comes to wait for a person, in the transaction that parks it. Changes nothing if it
    /// fails.
    pub(super) fn open_parked(
        &mut self,
        parking: Parking<'_>,
        limits: &Limits,
        now: Wall,
    ) -> Result<Arc<str>, StoreError> {
        let IfParked { id, question, context, answer_within } = parking.asked;
        fits(context, limits)?;
        fits(&Payload::new(question.as_bytes().to_vec()), limits)?;
        if self.rows.get(id).is_some_and(|row| !row.gone(limits, now)) {
            return Err(StoreError::Taken { what: "escalation" });
        }
        let summary = EscalationSummary {
            id: id.clone(),
            tenant: parking.tenant.clone(),
            kind: parking.kind,
            origin: parking.origin(),
            question: question.clone(),
            shown: parking.shown(),
            level: None,
            opened_at: now,
            answer_by: answer_within.map(|within| after(now, within)),
            decided: None,
        };
        self.insert(summary, parking.fingerprint, parking.attempts, context.clone(), limits, now)?;
        Ok(id.clone())
    }

    fn insert(
        &mut self,
        summary: EscalationSummary,
        fingerprint: [u8; 32],
        attempts: u32,
        payload: Payload,
        limits: &Limits,
        now: Wall,
    ) -> Result<(), StoreError> {
        let bytes = summary.question.len() + payload.len();
        if self.tally.over(&summary.tenant, bytes, &limits.escalations).is_some() {
            let mut swept = self.clone();
            swept.purge(&mut u32::MAX.clone(), limits, now);
            if let Some(over) = swept.tally.over(&summary.tenant, bytes, &limits.escalations) {
                return Err(StoreError::LimitReached { what: "escalations", of_tenant: over.of_tenant() });
            }
            *self = swept;
        }
        self.remove(&summary.id);
        self.tally.add(&summary.tenant, bytes);
        self.sequence += 1;
        let row = Row {
            sequence: self.sequence,
            fingerprint,
            attempts,
            payload,
            next_at: Some(now),
            watch: None,
            told: BTreeSet::new(),
            decision: None,
            summary,
        };
        self.rows.insert(row.summary.id.clone(), row);
        Ok(())
    }

    pub(super) fn list(&self, filter: &EscalationFilter, page: Page, limits: &Limits, now: Wall) -> EscalationPage {
        let EscalationFilter { tenant, open_only, kind, run, overdue_only } = filter;
        let mut rows: Vec<_> = self
            .rows
            .values()
            .filter(|row| !row.gone(limits, now))
            .filter(|row| tenant.as_ref().is_none_or(|tenant| row.summary.tenant == *tenant))
            .filter(|row| kind.is_none_or(|kind| row.summary.kind == kind))
            .filter(|row| run.as_ref().is_none_or(|run| row.summary.origin.is_of(run)))
            .filter(|row| !open_only || row.decision.is_none())
            .filter(|row| !overdue_only || row.is_overdue(now))
            .filter(|row| page.after.is_none_or(|Cursor(after)| row.sequence < after))
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.sequence));
        let size = page.size.clamp(1, Page::LARGEST) as usize;
        let next = (rows.len() > size).then(|| Cursor(rows[size - 1].sequence));
        EscalationPage { escalations: rows.into_iter().take(size).map(|row| row.summary.clone()).collect(), next }
    }

    pub(super) fn get(&self, id: &str, limits: &Limits, now: Wall) -> Option<Escalation> {
        let row = self.rows.get(id).filter(|row| !row.gone(limits, now))?;
        let state = match &row.decision {
            Some(decision) => EscalationState::Decided(decision.clone()),
            None => EscalationState::Open,
        };
        let (fingerprint, attempts) = (row.fingerprint, row.attempts);
        Some(Escalation { summary: row.summary.clone(), fingerprint, attempts, payload: row.payload.clone(), state })
    }

    /// Whether a decision can be made, and what it comes to. Changes nothing.
    pub(super) fn weigh(
        &self,
        command: &DecideEscalation,
        limits: &Limits,
        now: Wall,
    ) -> Result<Result<Waits, Decided>, StoreError> {
        let DecideEscalation { id, by, verb, shown, result, decision } = command;
        fits(decision, limits)?;
        if let Some(result) = result {
            fits(result, limits)?;
        }
        let Some(row) = self.rows.get(id).filter(|row| !row.gone(limits, now)) else {
            return Ok(Err(Decided::Unknown));
        };
        if let Some(first) = &row.decision {
            let repeated = first.by == *by && first.verb == *verb && first.decision == *decision;
            return Ok(Err(if repeated { Decided::Stands } else { Decided::Already(first.clone()) }));
        }
        if row.summary.shown != *shown {
            return Ok(Err(Decided::Changed));
        }
        let Some(comes_to) = resolve(row.summary.kind, *verb) else { return Ok(Err(Decided::NotOffered)) };
        self.audit.has_room(limits)?;
        Ok(Ok(Waits { escalation: row.summary.clone(), comes_to }))
    }

    /// Writes down the decision of an open escalation: the log has it, and those who were told hear of it. In the
    /// transaction that lets what waits go on, or that ends it.
    pub(super) fn close(
        &mut self,
        id: &str,
        by: &Arc<str>,
        verb: Verb,
        decision: Payload,
        limits: &Limits,
        now: Wall,
    ) -> Result<(), StoreError> {
        let Some(row) = self.rows.get_mut(id).filter(|row| row.decision.is_none()) else { return Ok(()) };
        self.audit.append(audited(&row.summary, by, verb, &decision), limits, now)?;
        let before = row.bytes();
        row.decision = Some(Decision { by: by.clone(), at: now, verb, decision });
        row.summary.decided = Some((now, verb));
        self.tally.resize(&row.summary.tenant, before, row.bytes());
        for channel in &row.told {
            self.notices.put(&row.summary.id, channel, About::Decided, now);
        }
        Ok(())
    }

    pub(super) fn due(&mut self, command: &DueEscalations, epochs: &mut Epochs, now: Wall) -> Vec<DueEscalation> {
        let mut due: Vec<_> = self.rows.values_mut().filter(|row| row.due(now)).collect();
        due.sort_by_key(|row| (row.next_at, row.sequence));
        let claim = |row: &mut Row| {
            let epoch = epochs.next();
            row.watch = Some((epoch, Some(after(now, command.lease))));
            DueEscalation { escalation: row.summary.clone(), epoch }
        };
        due.into_iter().take(AT_ONCE.min(command.limit as usize)).map(claim).collect()
    }

    pub(super) fn moved(&mut self, command: &EscalationMoved, now: Wall) -> Fenced {
        let EscalationMoved { id, epoch, level, about, notify, next_in } = command;
        let Some(row) = self.rows.get_mut(id).filter(|row| row.decision.is_none()) else { return Fenced::Lost };
        match row.watch {
            Some((claim, _)) if claim != *epoch => return Fenced::Lost,
            None => return Fenced::Lost,
            // Said once more.
            Some((_, None)) => return Fenced::Held,
            Some((_, Some(_))) => {}
        }
        row.watch = Some((*epoch, None));
        row.summary.level = Some(*level);
        row.next_at = next_in.map(|next| after(now, next));
        for channel in notify {
            row.told.insert(channel.clone());
            self.notices.put(id, channel, *about, now);
        }
        Fenced::Held
    }

    pub(super) fn due_notices(
        &mut self,
        command: &DueNotices,
        epochs: &mut Epochs,
        limits: &Limits,
        now: Wall,
    ) -> Vec<Notice> {
        let claimed = self.notices.due(command, epochs, limits, now);
        let notice = |claimed: super::notices::Claimed| {
            let row = self.rows.get(&claimed.escalation).filter(|row| !row.gone(limits, now))?;
            Some(Notice {
                channel: claimed.channel,
                about: claimed.about,
                at: claimed.at,
                escalation: row.summary.clone(),
                by: row.decision.as_ref().map(|decision| decision.by.clone()),
                epoch: claimed.epoch,
                attempts: claimed.attempts,
            })
        };
        claimed.into_iter().filter_map(notice).collect()
    }

    pub(super) fn purge(&mut self, left: &mut u32, limits: &Limits, now: Wall) {
        let mut due: Vec<_> = self
            .rows
            .iter()
            .filter(|(_, row)| row.gone(limits, now))
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
            self.tally.remove(&row.summary.tenant, row.bytes());
            self.notices.forget(id);
        }
    }

    pub(super) fn open_count(&self) -> u64 {
        self.rows.values().filter(|row| row.decision.is_none()).count() as u64
    }
}
