//! What the promises about runs and about steps share.

use super::scenarios::Bench;
use crate::{
    BeginStep, ClaimRun, ClaimedRun, DecideEscalation, Decided, EndStep, Epoch, EscalationFilter, IfParked, Page,
    Payload, Place, RunRef, RunView, StartRun, Started, StepBegun, StepEnded, WaitRun, Waited,
};
use outlast_engine::run::{Ended, Proof};
use outlast_model::{
    RunId, TenantId, Usd,
    policy::Priority,
    run::{EffectClass, LedgerState, RetryBudget, StepKind, Verb},
};
use std::{sync::Arc, time::Duration};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const QUIET: Duration = Duration::from_secs(5);
pub(super) const VERIFY: EffectClass = EffectClass::Verify { quiet_period: QUIET };
/// Proven not to have happened, and no reason to wait longer than the back-off.
pub(super) const AGAIN: Ended = Ended::Failed(Proof::Again { after: Duration::ZERO });

pub(super) fn acme() -> TenantId {
    TenantId::new("acme")
}

pub(super) fn text(text: &str) -> Payload {
    Payload::new(text.as_bytes().to_vec())
}

pub(super) fn run(id: &str) -> RunRef {
    RunRef { tenant: acme(), id: RunId::new(id) }
}

/// What a person is asked; every one has an id of its own.
pub(super) fn asked(bench: &Bench<'_>) -> IfParked {
    IfParked { id: bench.fresh_id(), question: "May it?".into(), context: text("context"), answer_within: None }
}

pub(super) fn start(id: &str) -> StartRun {
    StartRun {
        run: run(id),
        key: None,
        queue: "work".into(),
        workflow: "refund".into(),
        version: "1".into(),
        priority: Priority::Normal,
        after: Duration::ZERO,
        deadline: None,
        cost_max: None,
        unclaimed: false,
        input: text(id),
    }
}

pub(super) async fn started(bench: &Bench<'_>, command: StartRun) {
    assert_eq!(bench.start_run(command).await, Ok(Started::New));
}

pub(super) fn claim(bench: &Bench<'_>, worker: &str) -> ClaimRun {
    ClaimRun {
        tenant: None,
        worker: worker.into(),
        queues: vec!["work".into()],
        accepts: Vec::new(),
        lease: SECOND,
        standby: false,
        journal: 100,
        if_parked: asked(bench),
    }
}

pub(super) async fn claimed(bench: &Bench<'_>, worker: &str) -> ClaimedRun {
    let claimed = bench.claim_run(claim(bench, worker)).await.expect("a claim");
    claimed.expect("a run to claim")
}

pub(super) async fn nothing_to_claim(bench: &Bench<'_>, worker: &str) {
    assert_eq!(bench.claim_run(claim(bench, worker)).await, Ok(None));
}

/// A run, started and claimed.
pub(super) async fn going(bench: &Bench<'_>) -> Epoch {
    started(bench, start("r")).await;
    claimed(bench, "w").await.epoch
}

pub(super) async fn view(bench: &Bench<'_>) -> RunView {
    bench.run(run("r")).await.expect("an answer").expect("a run")
}

/// A step of run `r`, begun with this claim.
pub(super) fn step(bench: &Bench<'_>, key: &str, class: EffectClass, epoch: Epoch) -> BeginStep {
    BeginStep {
        place: Place::Step { run: run("r"), key: key.into() },
        journal: None,
        epoch: Some(epoch),
        fence: None,
        lease: SECOND,
        kind: StepKind::Tool,
        name: "tool".into(),
        class,
        fingerprint: [1; 32],
        input: text("input"),
        budget: RetryBudget::default(),
        call_deadline: SECOND * 2,
        needs_approval: false,
        strict: false,
        undo: None,
        undoes: None,
        if_parked: asked(bench),
    }
}

/// An effect of no run, with a claim of its own.
pub(super) fn alone(bench: &Bench<'_>, key: &str, class: EffectClass) -> BeginStep {
    BeginStep { place: effect(key), epoch: None, ..step(bench, key, class, Epoch(0)) }
}

pub(super) fn effect(key: &str) -> Place {
    Place::Effect { tenant: acme(), scope: "charge".into(), key: key.into() }
}

pub(super) async fn begin(bench: &Bench<'_>, command: BeginStep) -> StepBegun {
    bench.begin_step(command).await.expect("an answer")
}

/// Begins it and is to do it: the attempt's number and the claim.
pub(super) async fn executes(bench: &Bench<'_>, command: BeginStep) -> (u32, Epoch) {
    let begun = begin(bench, command).await;
    let StepBegun::Execute { attempt, epoch, .. } = begun else { panic!("expected to execute, got {begun:?}") };
    (attempt, epoch)
}

pub(super) async fn parks(bench: &Bench<'_>, command: BeginStep) -> Arc<str> {
    let begun = begin(bench, command).await;
    let StepBegun::Parked { escalation, .. } = begun else { panic!("expected it to wait for a person, got {begun:?}") };
    escalation
}

pub(super) async fn waits(bench: &Bench<'_>, command: BeginStep) -> (Duration, bool) {
    let begun = begin(bench, command).await;
    let StepBegun::Wait { after, unknown } = begun else { panic!("expected to wait, got {begun:?}") };
    (after, unknown)
}

pub(super) async fn end(
    bench: &Bench<'_>,
    place: Place,
    (attempt, epoch): (u32, Epoch),
    ended: Ended,
    said: &str,
) -> StepEnded {
    let (payload, cost, if_parked) = (text(said), Usd::from_nanos(1), asked(bench));
    let command = EndStep { place, epoch, attempt, ended, payload, cost, lease: SECOND, if_parked };
    bench.end_step(command).await.expect("an answer")
}

pub(super) fn of(key: &str) -> Place {
    Place::Step { run: run("r"), key: key.into() }
}

/// Does a step of run `r`, whole.
pub(super) async fn does(bench: &Bench<'_>, command: BeginStep, result: &str) {
    let place = command.place.clone();
    let attempt = executes(bench, command).await;
    assert_eq!(end(bench, place, attempt, Ended::Done, result).await, StepEnded::Done);
}

pub(super) fn done(result: &str) -> StepBegun {
    StepBegun::Done { result: text(result), diverged: false }
}

pub(super) async fn state(bench: &Bench<'_>, place: Place) -> LedgerState {
    bench.step(place).await.expect("an answer").expect("a step").state
}

pub(super) async fn wait(
    bench: &Bench<'_>,
    epoch: Epoch,
    key: &str,
    signals: &[&str],
    timer: Option<Duration>,
) -> Waited {
    let signals = signals.iter().map(|name| Arc::from(*name)).collect();
    let timer = timer.map(crate::Until::In);
    let command = WaitRun { run: run("r"), epoch, key: key.into(), signals, timer };
    bench.wait_run(command).await.expect("an answer")
}

/// Decides the escalation as it is shown.
pub(super) async fn decides(bench: &Bench<'_>, id: &Arc<str>, verb: Verb, result: Option<&str>) {
    let shown = bench.escalation(id.clone()).await.expect("an answer").expect("an escalation").summary.shown;
    let (result, decision) = (result.map(text), text("because"));
    let command = DecideEscalation { id: id.clone(), by: "anna".into(), verb, shown, result, decision };
    assert_eq!(bench.decide_escalation(command).await, Ok(Decided::Stands));
}

pub(super) async fn open_escalations(bench: &Bench<'_>) -> usize {
    let filter = EscalationFilter { open_only: true, ..EscalationFilter::default() };
    bench.escalations(filter, Page { after: None, size: 100 }).await.expect("a page").escalations.len()
}
