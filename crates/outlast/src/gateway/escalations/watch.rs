//! Sees to it that somebody hears of what waits: at once, again and again, and the next level when nobody answers. What is
//! claimed here is told by [`crate::notify`]; several processes share the work.

use super::super::{Shared, live::Live};
use crate::{clock, config::Unanswered, telemetry::LogEvent};
use outlast_engine::run::{Look, Patience, Tell, Waiting, look};
use outlast_model::{Wall, run::Verb};
use outlast_store::{
    About, DecideEscalation, DueEscalation, DueEscalations, EscalationMoved, EscalationSummary, Payload,
};
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// Escalations of one look.
const BATCH: u32 = 32;
/// How long a claim of one stands: nothing but the store is waited for.
const LEASE: Duration = Duration::from_secs(60);
/// How often is looked when nothing is opened here: for what other processes left, and what has come due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a store that makes trouble is left alone.
const TROUBLED: Duration = Duration::from_secs(15);
/// How long one that nobody has to hear of is left alone. The config may change meanwhile.
const REST: Duration = Duration::from_secs(3600);
/// Who decides when nobody does.
const NOBODY: &str = "outlast";

/// Runs until it is aborted.
pub(super) async fn watch(shared: Arc<Shared>) {
    loop {
        let due = shared.store.due_escalations(DueEscalations { lease: LEASE, limit: BATCH });
        let Ok(due) = shared.stored(due).await else {
            clock::sleep(TROUBLED).await;
            continue;
        };
        let is_all = due.len() < BATCH as usize;
        for one in due {
            attend(&shared, one).await;
        }
        if is_all {
            tokio::select! {
                () = shared.people.opened.notified() => {}
                () = clock::sleep(LOOK_EVERY) => {}
            }
        }
    }
}

async fn attend(shared: &Arc<Shared>, due: DueEscalation) {
    let live = shared.live();
    let Ok(now) = shared.stored(shared.store.now()).await else { return };
    let escalation = &due.escalation;
    let answer_by = deadline(&live, escalation);
    let after: Vec<Duration> = live.config.escalations.levels.iter().map(|level| level.after).collect();
    let patience = Patience {
        levels: &after,
        remind_every: live.config.escalations.remind_every,
        deny: live.config.escalations.unanswered == Unanswered::Deny,
    };
    let EscalationSummary { kind, opened_at, level, .. } = *escalation;
    let waiting = Waiting { kind, since: opened_at, answer_by, told: level };
    if level.is_none() {
        shared.telemetry.event(of(LogEvent::info("escalation_opened", "work waits for a person"), escalation));
    }
    if answer_by.is_some_and(|by| by <= now) {
        shared.telemetry.event(of(LogEvent::warn("escalation_overdue", "nobody has decided in time"), escalation));
    }
    match look(&waiting, &patience, now) {
        Look::Deny => deny(shared, escalation).await,
        Look::Tell { levels, what, told, next_in } => {
            let notify = channels(&live, levels);
            let about = match what {
                Tell::Opened => About::Opened,
                Tell::NextLevel => About::NextLevel,
                Tell::Reminder => About::Reminder,
            };
            let next_in = next_in.or_else(|| (told == 0).then_some(REST));
            let id = escalation.id.clone();
            let moved = EscalationMoved { id, epoch: due.epoch, level: told, about, notify, next_in };
            if shared.stored(shared.store.escalation_moved(moved)).await.is_ok() {
                shared.people.told.notify_one();
            }
        }
    }
}

/// When an answer is wanted: as it was opened, else as the config says.
fn deadline(live: &Live, escalation: &EscalationSummary) -> Option<Wall> {
    let within = live.config.escalations.answer_within?;
    let by = escalation.opened_at.0.saturating_add(i64::try_from(within.as_millis()).unwrap_or(i64::MAX));
    Some(escalation.answer_by.unwrap_or(Wall(by)))
}

/// The channels of some levels, each once: ways of the config by name, reviewers as [`crate::notify::of_reviewer`] says.
fn channels(live: &Live, levels: std::ops::Range<usize>) -> Vec<Arc<str>> {
    let mut channels: Vec<Arc<str>> = Vec::new();
    for level in live.config.escalations.levels.get(levels).unwrap_or_default() {
        let reviewers = level.reviewers.iter().map(|name| crate::notify::of_reviewer(name));
        for channel in level.notify.iter().cloned().chain(reviewers) {
            if !channels.contains(&channel) {
                channels.push(channel);
            }
        }
    }
    channels
}

/// Nobody agreed in time.
async fn deny(shared: &Arc<Shared>, escalation: &EscalationSummary) {
    let note = "Nobody agreed in time.";
    let result = json!({ "message": note, "code": "denied" });
    let command = DecideEscalation {
        id: escalation.id.clone(),
        by: NOBODY.into(),
        verb: Verb::Deny,
        shown: escalation.shown,
        result: Some(Payload::from(result.to_string().into_bytes())),
        decision: Payload::from(json!({ "verb": Verb::Deny, "note": note }).to_string().into_bytes()),
    };
    if shared.stored(shared.store.decide_escalation(command)).await.is_ok() {
        let event = LogEvent::warn("escalation_decided", "denied: nobody agreed in time");
        shared.telemetry.event(of(event, escalation).with("verb", "deny").with("by", NOBODY));
        super::decide::went_on(shared, escalation).await;
    }
}

/// Says which escalation it is about: never its question, which quotes the work.
pub(super) fn of(event: LogEvent, escalation: &EscalationSummary) -> LogEvent {
    event.with("id", escalation.id.to_string()).with("kind", escalation.kind.name())
}
