//! Drives what the calls share: the fleet's timers, and the probes it asks for.

use super::{Shared, body::Pieces, live::Target, upstream};
use crate::clock;
use bytes::BytesMut;
use http_body_util::{BodyExt, Limited};
use outlast_engine::{FleetAction, FleetEvent};
use outlast_model::{Failure, FailureReport, Mono, failure::Deadline};
use outlast_wire::probe;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinSet};

/// The most of a probe's reply that is read.
const PROBE_REPLY_MAX: usize = 64 << 10;

/// Runs until it is aborted. Probes end with it.
pub(super) async fn run(shared: Arc<Shared>, mut actions: mpsc::Receiver<FleetAction>) {
    // The fleet allows one probe per target at a time, so there are never more than targets.
    let mut probes = JoinSet::new();
    loop {
        let now = shared.clock.mono();
        shared.with_fleet(|fleet| fleet.handle(FleetEvent::Tick, now));
        let at = shared.lock_fleet().poll_timeout().unwrap_or(Mono::FAR);
        shared.fleet_wakes_at.store(at.as_nanos(), Ordering::Relaxed);
        tokio::select! {
            action = actions.recv() => match action {
                Some(FleetAction::Probe { target, target_id, key, timeout }) => {
                    let shared = shared.clone();
                    probes.spawn(async move {
                        let result = match shared.live().target(&target_id).cloned() {
                            Some(known) => ask(&shared, &known, key, timeout).await,
                            None => Err(FailureReport::of(Failure::AccessDenied)),
                        };
                        let now = shared.clock.mono();
                        shared.with_fleet(|fleet| fleet.handle(FleetEvent::Probed { target, key, result }, now));
                    });
                }
                // Those two are performed where they arise.
                Some(FleetAction::Wake(_) | FleetAction::Alert(_)) => {}
                None => return,
            },
            () = shared.fleet_moved.notified() => {}
            () = clock::sleep_until(shared.clock.instant(at)) => {}
            Some(_) = probes.join_next() => {}
        }
    }
}

/// Asks a target for one token.
async fn ask(shared: &Shared, target: &Target, key: u8, timeout: Duration) -> Result<Duration, FailureReport> {
    let started = shared.clock.mono();
    match clock::timeout(timeout, exchange(shared, target, key)).await {
        Ok(Ok(())) => Ok(shared.clock.mono().since(started)),
        Ok(Err(report)) => Err(report),
        Err(_) => Err(FailureReport::of(Failure::Timeout(Deadline::FirstToken))),
    }
}

async fn exchange(shared: &Shared, target: &Target, key: u8) -> Result<(), FailureReport> {
    let dialect = target.spec.dialect;
    let body = Pieces::of([probe::body(dialect, target.spec.id.model())]);
    let response = target.endpoint.send(key, [], body).await.map_err(|error| upstream::report(&error))?;
    let (head, body) = response.into_parts();
    let mut read = BytesMut::new();
    let mut body = Limited::new(body, PROBE_REPLY_MAX);
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            read.extend_from_slice(&data);
        }
    }
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    probe::judge(dialect, head.status.as_u16(), header, &read, shared.clock.wall())
}
