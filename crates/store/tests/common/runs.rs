//! Commands of durable runs, with all that a test does not care about filled in.
#![allow(dead_code, reason = "each test binary uses its part")]

use super::block_on;
use outlast_engine::run::Ended;
use outlast_model::{
    Usd,
    policy::Priority,
    run::{EffectClass, RetryBudget, StepKind},
};
use outlast_store::{
    BeginStep, ClaimRun, ClaimedRun, EndStep, Epoch, IfParked, Payload, Place, RunRef, SignalRun, StartRun, Store,
    WaitRun,
};
use std::time::Duration;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn named(id: &str) -> RunRef {
    RunRef { tenant: "acme".into(), id: id.into() }
}

pub(crate) fn bytes(text: &str) -> Payload {
    Payload::from(text.as_bytes().to_vec())
}

pub(crate) fn started(id: &str, input: Payload) -> StartRun {
    StartRun {
        run: named(id),
        key: None,
        queue: "default".into(),
        workflow: "refund".into(),
        version: "1".into(),
        priority: Priority::Normal,
        after: Duration::ZERO,
        deadline: None,
        cost_max: None,
        unclaimed: false,
        input,
    }
}

pub(crate) fn asked(id: &str) -> IfParked {
    IfParked { id: id.into(), question: "What now?".into(), context: Payload::default(), answer_within: None }
}

pub(crate) fn claim(worker: &str, lease: Duration) -> ClaimRun {
    ClaimRun {
        tenant: None,
        worker: worker.into(),
        queues: vec!["default".into()],
        accepts: Vec::new(),
        lease,
        standby: false,
        journal: 100,
        if_parked: asked(&format!("poison-{worker}")),
    }
}

pub(crate) fn claimed(store: &dyn Store) -> ClaimedRun {
    block_on(store.claim_run(claim("w", HOUR))).unwrap().expect("a run to claim")
}

pub(crate) fn begun(place: Place, epoch: Option<Epoch>, class: EffectClass, input: Payload) -> BeginStep {
    let (Place::Step { key, .. } | Place::Effect { key, .. }) = &place;
    BeginStep {
        if_parked: asked(&format!("parked-{key}")),
        place,
        journal: None,
        epoch,
        fence: None,
        lease: HOUR,
        kind: StepKind::Tool,
        name: "tool".into(),
        class,
        fingerprint: [7; 32],
        input,
        budget: RetryBudget::default(),
        call_deadline: Duration::from_secs(60),
        needs_approval: false,
        strict: false,
        undo: None,
        undoes: None,
    }
}

pub(crate) fn step_of(id: &str, key: &str) -> Place {
    Place::Step { run: named(id), key: key.into() }
}

pub(crate) fn effect(scope: &str, key: &str) -> Place {
    Place::Effect { tenant: "acme".into(), scope: scope.into(), key: key.into() }
}

pub(crate) fn ended(place: Place, epoch: Epoch, attempt: u32, payload: Payload) -> EndStep {
    let (Place::Step { key, .. } | Place::Effect { key, .. }) = &place;
    let if_parked = asked(&format!("parked-{key}"));
    EndStep { place, epoch, attempt, ended: Ended::Done, payload, cost: Usd::ZERO, lease: HOUR, if_parked }
}

pub(crate) fn waits(id: &str, epoch: Epoch, key: &str) -> WaitRun {
    WaitRun { run: named(id), epoch, key: key.into(), signals: vec!["paid".into()], timer: None }
}

pub(crate) fn signal(id: &str, dedupe: &str, payload: Payload) -> SignalRun {
    SignalRun { run: named(id), dedupe: dedupe.into(), name: "paid".into(), payload }
}
