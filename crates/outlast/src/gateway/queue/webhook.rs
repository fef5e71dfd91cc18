//! Announces the end of queued requests. What is to be announced was written with the end itself, so that none is
//! lost; a receiver may hear one more than once and tells repetitions by the request's id.

use super::{
    super::{Shared, live::Live, store::shown},
    poll_url,
};
use crate::{
    alerts::webhook::{Delivery, Postman},
    clock,
    telemetry::LogEvent,
};
use outlast_model::policy::{BackstopKind, Webhook};
use outlast_store::{self as store, Delivered, DueDeliveries, Occasion, Retried, RetryDelivery};
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// Messages of one look.
const BATCH: u32 = 16;
/// How long a claim of a message stands: longer than a batch takes when nobody answers in time.
const LEASE: Duration = Duration::from_secs(300);
/// For one try.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often due messages are looked for when nothing ends here: those of other processes, and retries.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The wait after a first failed try; it doubles with each. The store gives up after some tries.
const BACKOFF: Duration = Duration::from_secs(2);
/// The longest wait between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(3600);

/// Runs until it is aborted.
pub(super) async fn announce(shared: Arc<Shared>, worker: Arc<str>) {
    let mut postman = Postman::default();
    loop {
        let due = DueDeliveries { worker: worker.clone(), lease: LEASE, limit: BATCH };
        let due = shared.stored(shared.store.due_deliveries(due)).await.unwrap_or_default();
        let is_all = due.len() < BATCH as usize;
        for message in due {
            deliver(&shared, &message, &mut postman).await;
        }
        if is_all {
            tokio::select! {
                () = shared.queue.ended.notified() => {}
                () = clock::sleep(LOOK_EVERY) => {}
            }
        }
    }
}

async fn deliver(shared: &Arc<Shared>, message: &store::Delivery, postman: &mut Postman) {
    let live = shared.live();
    let (id, epoch) = (message.id.clone(), message.epoch);
    let durable = &shared.telemetry.metrics().durable;
    let why = match delivery(&live, message) {
        Some(delivery) => match postman.post(&delivery, &shared.clock, TIMEOUT).await {
            Ok(()) => {
                durable.webhooks_delivered.add(1);
                let _ = shared.stored(shared.store.delivered(Delivered { id, epoch })).await;
                return;
            }
            Err(undelivered) => undelivered.why,
        },
        None => "the config has no such webhook any more".into(),
    };
    durable.webhooks_failed.add(1);
    let retry = RetryDelivery { id, epoch, after: backoff(message.attempts) };
    if let Ok(Retried::GivenUp) = shared.stored(shared.store.retry_delivery(retry)).await {
        let event = LogEvent::warn("queue_webhook_given_up", format!("A webhook of the queue failed for good: {why}"));
        shared.telemetry.event(event.with("id", message.id.to_string()).with("backstop", message.webhook.to_string()));
    }
}

fn delivery(live: &Live, message: &store::Delivery) -> Option<Delivery> {
    let backstops = live.config.routes.values().chain(live.config.direct.values()).flat_map(|route| &route.backstops);
    let webhook: &Webhook =
        backstops.filter(|backstop| backstop.name == message.webhook).find_map(|backstop| match &backstop.kind {
            BackstopKind::Queue { webhook, .. } => webhook.as_ref(),
            BackstopKind::Static { .. }
            | BackstopKind::Rules(_)
            | BackstopKind::Cache { .. }
            | BackstopKind::Confirm { .. }
            | BackstopKind::Escalate { .. }
            | BackstopKind::Fail { .. } => None,
        })?;
    Some(Delivery {
        to: webhook.url.parse().ok()?,
        secret: live.config.webhook_secret(&message.webhook).cloned(),
        body: body(message).into(),
    })
}

/// No payload: whoever may read the reply fetches it.
fn body(message: &store::Delivery) -> Vec<u8> {
    let kind = match message.occasion {
        Occasion::Done(_) => "queue.done",
        Occasion::Failed(_) => "queue.failed",
        Occasion::Expired => "queue.expired",
    };
    let body = json!({
        "version": 1,
        "id": message.id,
        "kind": kind,
        "poll_url": poll_url(&message.id),
        "at": shown(message.at, Duration::ZERO),
    });
    body.to_string().into_bytes()
}

fn backoff(tries: u32) -> Duration {
    BACKOFF.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(BACKOFF_MAX)
}
