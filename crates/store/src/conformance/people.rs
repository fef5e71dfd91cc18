//! What waits for a person, in histories.

use super::{
    history::{long, recent, short, size},
    see::{Seen, ago, name, payload, route, tenant},
};
use crate::{
    About, AuditFilter, DecideEscalation, DueEscalations, DueNotices, Epoch, EscalationFilter, EscalationMoved,
    EscalationSummary, Noticed, OpenEscalation, Page, RetryNotice, Store, StoreError,
};
use fastrand::Rng;
use outlast_model::{
    Failure,
    run::{EscalationKind, Verb},
};
use std::{sync::Arc, time::Duration};

/// Escalations, notices and the audit log.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is the command of its name")]
pub enum EscalationOp {
    Open { tenant: u8, id: u8, size: u8, within: Option<Duration> },
    List { tenant: Option<u8>, open_only: bool, overdue_only: bool, kind: Option<u8>, size: u32 },
    Get { id: u8 },
    Decide { id: u8, by: u8, verb: u8, stale: bool, size: u8 },
    Due { lease: Duration, limit: u32 },
    Moved { claim: u8, level: u32, about: About, channels: u8, next_in: Option<Duration> },
    DueNotices { lease: Duration, limit: u32 },
    Noticed { claim: u8 },
    Retry { claim: u8, after: Duration },
    Audit { who: Option<u8>, subject: Option<u8>, size: u32 },
    Verify,
}

pub(super) fn escalation_op(rng: &mut Rng) -> EscalationOp {
    match rng.u8(..26) {
        0..5 => EscalationOp::Open {
            tenant: rng.u8(..3),
            id: rng.u8(..5),
            size: size(rng),
            within: rng.bool().then(|| long(rng)),
        },
        5..7 => EscalationOp::List {
            tenant: rng.bool().then(|| rng.u8(..3)),
            open_only: rng.bool(),
            overdue_only: rng.u8(..3) == 0,
            kind: (rng.u8(..4) == 0).then(|| rng.u8(..2)),
            size: rng.u32(..4),
        },
        7..9 => EscalationOp::Get { id: rng.u8(..5) },
        9..13 => EscalationOp::Decide {
            id: rng.u8(..5),
            by: rng.u8(..2),
            verb: [1, 1, 1, 8, 8, 4][rng.usize(..6)],
            stale: rng.u8(..8) == 0,
            size: rng.u8(..3),
        },
        13..16 => EscalationOp::Due { lease: short(rng), limit: rng.u32(..3) },
        16..20 => EscalationOp::Moved {
            claim: recent(rng),
            level: rng.u32(..3),
            about: [About::Opened, About::Reminder, About::NextLevel][rng.usize(..3)],
            channels: rng.u8(..8),
            next_in: (rng.u8(..4) != 0).then(|| short(rng)),
        },
        20..22 => EscalationOp::DueNotices { lease: short(rng), limit: rng.u32(..4) },
        22 => EscalationOp::Noticed { claim: recent(rng) },
        23 => EscalationOp::Retry { claim: recent(rng), after: short(rng) },
        24 => EscalationOp::Audit {
            who: rng.bool().then(|| rng.u8(..2)),
            subject: rng.bool().then(|| rng.u8(..5)),
            size: rng.u32(..4),
        },
        _ => EscalationOp::Verify,
    }
}

/// The claims made so far.
#[derive(Debug, Default)]
pub(super) struct Claims {
    watched: Vec<(Arc<str>, Epoch)>,
    notices: Vec<(Arc<str>, Arc<str>, Epoch)>,
}

impl Claims {
    /// The answer, and the epochs that were drawn for it, in order.
    pub(super) async fn play(
        &mut self,
        store: &dyn Store,
        op: &EscalationOp,
    ) -> Result<(Seen, Vec<Epoch>), StoreError> {
        let mut drawn = Vec::new();
        let seen = match op {
            EscalationOp::Open { tenant: who, id, size, within } => {
                let command = OpenEscalation {
                    id: name("esc", *id),
                    tenant: tenant(*who),
                    route: route(*id),
                    request_id: (&*name("req", *id)).into(),
                    failure: Failure::Refusal,
                    question: name("May it go on?", *size),
                    payload: payload(*size),
                    answer_within: *within,
                };
                Seen::Opened(store.open_escalation(command).await?)
            }
            EscalationOp::List { tenant: who, open_only, overdue_only, kind, size } => {
                let filter = EscalationFilter {
                    tenant: who.map(tenant),
                    open_only: *open_only,
                    overdue_only: *overdue_only,
                    kind: kind.map(|kind| EscalationKind::ALL[usize::from(kind)]),
                    run: None,
                };
                Seen::Escalations(every_page(store, filter, *size).await?)
            }
            EscalationOp::Get { id } => Seen::Escalation(store.escalation(name("esc", *id)).await?.map(Box::new)),
            EscalationOp::Decide { id, by, verb, stale, size } => {
                let (id, by) = (name("esc", *id), name("person", *by));
                let shown = store.escalation(id.clone()).await?.map_or([0; 32], |found| found.summary.shown);
                let shown = if *stale { [7; 32] } else { shown };
                let (verb, decision) = (Verb::ALL[usize::from(*verb)], payload(*size));
                let command = DecideEscalation { id, by, verb, shown, result: None, decision };
                Seen::Decided(store.decide_escalation(command).await?)
            }
            EscalationOp::Due { lease, limit } => {
                let mut due = store.due_escalations(DueEscalations { lease: *lease, limit: *limit }).await?;
                for one in &mut due {
                    let epoch = std::mem::replace(&mut one.epoch, Epoch(0));
                    self.watched.push((one.escalation.id.clone(), epoch));
                    drawn.push(epoch);
                }
                Seen::Overdue(due)
            }
            EscalationOp::Moved { claim, level, about, channels, next_in } => {
                let Some((id, epoch)) = ago(&self.watched, *claim) else { return Ok((Seen::Nothing, drawn)) };
                let notify = (0..3).filter(|bit| channels & (1 << bit) != 0).map(|bit| name("channel", bit)).collect();
                let (level, about, next_in) = (*level, *about, *next_in);
                let command = EscalationMoved { id, epoch, level, about, notify, next_in };
                Seen::Fenced(store.escalation_moved(command).await?)
            }
            EscalationOp::DueNotices { lease, limit } => {
                let mut due = store.due_notices(DueNotices { lease: *lease, limit: *limit }).await?;
                for one in &mut due {
                    let epoch = std::mem::replace(&mut one.epoch, Epoch(0));
                    self.notices.push((one.escalation.id.clone(), one.channel.clone(), epoch));
                    drawn.push(epoch);
                }
                Seen::Notices(due)
            }
            EscalationOp::Noticed { claim } => {
                let Some((escalation, channel, epoch)) = ago(&self.notices, *claim) else {
                    return Ok((Seen::Nothing, drawn));
                };
                Seen::Fenced(store.noticed(Noticed { escalation, channel, epoch }).await?)
            }
            EscalationOp::Retry { claim, after } => {
                let Some((escalation, channel, epoch)) = ago(&self.notices, *claim) else {
                    return Ok((Seen::Nothing, drawn));
                };
                let command = RetryNotice { escalation, channel, epoch, after: *after };
                Seen::Retried(store.retry_notice(command).await?)
            }
            EscalationOp::Audit { who, subject, size } => {
                let who = who.map(|who| name("person", who));
                let filter = AuditFilter { who, subject: subject.map(|id| name("esc", id)) };
                Seen::Audit(store.audit(filter, Page { after: None, size: *size }).await?)
            }
            EscalationOp::Verify => Seen::Verified(store.verify_audit().await?),
        };
        Ok((seen, drawn))
    }
}

/// All pages, one after the other.
async fn every_page(
    store: &dyn Store,
    filter: EscalationFilter,
    size: u32,
) -> Result<Vec<EscalationSummary>, StoreError> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = store.escalations(filter.clone(), Page { after, size }).await?;
        all.extend(page.escalations);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(all),
        }
    }
}
