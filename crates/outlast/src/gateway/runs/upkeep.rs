//! Looks at the runs as a whole, again and again: numbers for `/metrics`, and alerts about what nobody would notice.

use super::{
    super::Shared,
    supervisor::{Standing, looked_at},
    workers::state,
};
use crate::{
    alerts::{Alert, AlertKind},
    clock,
    telemetry::{QueueSeen, RunsSeen},
};
use outlast_model::{Wall, run::RunState};
use outlast_store::{QueueDepth, RunRef, StoreError};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// How often.
const EVERY: Duration = Duration::from_secs(5);
/// Work that nobody takes is an alert once it has waited so long: workers may just be starting.
const GRACE: Duration = Duration::from_secs(10);
/// A look that takes long is made more rarely: no more than this part of the time is spent on looking.
const SHARE: u32 = 20;

/// What was told already.
#[derive(Default)]
struct Told {
    unattended: BTreeSet<String>,
    unaccepted: BTreeSet<String>,
    poison: BTreeSet<RunRef>,
}

/// Until aborted.
pub(in super::super) async fn watch(shared: Arc<Shared>) {
    let mut told = Told::default();
    loop {
        let begun = shared.clock.mono();
        // The store's troubles are counted and told where they are met.
        let _ = look(&shared, &mut told).await;
        clock::sleep(EVERY.max(shared.clock.mono().since(begun) * SHARE)).await;
    }
}

async fn look(shared: &Arc<Shared>, told: &mut Told) -> Result<(), StoreError> {
    let standing = Standing::look(shared).await?;
    let (poison, _) = looked_at(shared, RunState::Quarantined).await?;
    let mut seen = RunsSeen { quarantined: poison.len() as u64, ..RunsSeen::default() };
    for depth in &standing.depths {
        count(&mut seen, depth, standing.now);
    }
    for worker in &standing.workers {
        *seen.workers.entry(state(worker, standing.now)).or_default() += 1;
    }
    shared.telemetry.metrics().runs.are(seen);

    let unattended = standing.unattended();
    let waits_long = |depth: &&QueueDepth| depth.oldest_due.is_some_and(|since| age(since, standing.now) >= GRACE);
    let long: Vec<&QueueDepth> = standing.depths.iter().filter(waits_long).collect();
    let without = long.iter().map(|depth| &*depth.queue).filter(|queue| unattended.contains(queue));
    tell(shared, &mut told.unattended, without.map(str::to_owned).collect(), AlertKind::QueueUnattended, |queue| {
        format!("Runs of queue {queue} wait, and no worker claims from it. Start one.")
    });
    let unaccepted = standing.unaccepted().filter(waits_long);
    let unaccepted = unaccepted.map(|depth| format!("{} {} of queue {}", depth.workflow, depth.version, depth.queue));
    tell(shared, &mut told.unaccepted, unaccepted.collect(), AlertKind::VersionUnaccepted, |what| {
        format!("Runs of {what} wait, and no worker there accepts that version. Start one that does, or migrate them.")
    });
    let poison: BTreeSet<RunRef> = poison.into_iter().map(|run| run.run).collect();
    for run in poison.difference(&told.poison) {
        let message = format!("Run {} was claimed again and again without getting further. A person decides.", run.id);
        shared.alerts.raise(Alert { kind: AlertKind::RunPoison, subject: run.id.to_string(), message });
    }
    told.poison = poison;
    Ok(())
}

/// Raises an alert for each that was not there the last time.
fn tell(
    shared: &Shared,
    told: &mut BTreeSet<String>,
    now: BTreeSet<String>,
    kind: AlertKind,
    message: impl Fn(&str) -> String,
) {
    for subject in now.difference(told) {
        shared.alerts.raise(Alert { kind, subject: subject.clone(), message: message(subject) });
    }
    *told = now;
}

fn age(since: Wall, now: Wall) -> Duration {
    Duration::from_millis(u64::try_from(now.0.saturating_sub(since.0)).unwrap_or(0))
}

/// Adds one row to its queue's numbers, or to those of the queues that have no place of their own.
fn count(seen: &mut RunsSeen, depth: &QueueDepth, now: Wall) {
    let has_place = seen.queues.len() < RunsSeen::QUEUES_MAX || seen.queues.contains_key(&*depth.queue);
    let name = if has_place { &*depth.queue } else { "other" };
    let queue: &mut QueueSeen = seen.queues.entry(name.to_owned()).or_default();
    queue.due += depth.due;
    queue.running += depth.running;
    queue.lost += depth.lost;
    queue.waiting += depth.waiting;
    queue.parked += depth.parked;
    if let Some(since) = depth.oldest_due {
        queue.oldest_due_s = queue.oldest_due_s.max(age(since, now).as_secs_f64());
    }
}
