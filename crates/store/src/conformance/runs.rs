//! Runs and workers, in histories.

use super::{
    history::{long, recent, short, size},
    see::{Seen, ago, name, payload, tenant},
    steps::asked,
};
use crate::{
    Accepts, BeatRun, CancelRun, ClaimRun, DrainWorker, Epoch, FinishRun, MigrateRun, Page, ReleaseRun, RunFilter,
    RunRef, RunView, SeeWorker, SignalRun, StartRun, StepView, Store, StoreError, Until, WaitRun,
};
use fastrand::Rng;
use outlast_model::{Usd, Wall, policy::Priority, run::RunState};
use std::time::Duration;

/// Runs, from their start to long after their end.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is the command of its name")]
pub enum RunOp {
    Start(Starts),
    Claim { tenant: Option<u8>, worker: u8, queues: Vec<u8>, versions: Vec<u8>, lease: Duration, standby: bool },
    Beat { claim: u8, lease: Duration },
    Wait { claim: u8, key: u8, signals: Vec<u8>, timer: Option<i64> },
    Signal { tenant: u8, id: u8, dedupe: u8, name: u8, size: u8 },
    Release { claim: u8, after: Duration },
    Finish { claim: u8, state: u8, size: u8 },
    FinishUnclaimed { tenant: u8, id: u8, state: u8 },
    Cancel { tenant: u8, id: u8 },
    Migrate { tenant: u8, id: u8, version: u8 },
    View { tenant: u8, id: u8 },
    Payloads { tenant: u8, id: u8 },
    List { tenant: Option<u8>, state: Option<u8>, queue: Option<u8>, size: u32 },
    Journal { tenant: u8, id: u8, limit: u32 },
}

/// What a run is started with.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is the field of its name")]
pub struct Starts {
    pub tenant: u8,
    pub id: u8,
    pub key: Option<(u8, u8)>,
    pub queue: u8,
    pub version: u8,
    pub priority: u8,
    pub after: Duration,
    pub deadline: Option<Duration>,
    pub cost_max: Option<u8>,
    pub unclaimed: bool,
    pub size: u8,
}

/// Workers.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is the command of its name")]
pub enum WorkerOp {
    See { tenant: Option<u8>, worker: u8, queues: Vec<u8>, standby: bool },
    Drain { tenant: Option<u8>, worker: u8, gone: bool },
    List,
    Depths,
}

pub(super) fn run_op(rng: &mut Rng) -> RunOp {
    let (tenant, id) = (rng.u8(..2), rng.u8(..5));
    match rng.u8(..64) {
        0..10 => RunOp::Start(starts(rng)),
        10..24 => RunOp::Claim {
            tenant: (rng.u8(..4) == 0).then_some(tenant),
            worker: rng.u8(..3),
            queues: (0..2).filter(|_| rng.u8(..5) != 0).collect(),
            versions: if rng.u8(..4) == 0 { vec![rng.u8(..2)] } else { Vec::new() },
            lease: short(rng),
            standby: rng.u8(..6) == 0,
        },
        24..28 => RunOp::Beat { claim: recent(rng), lease: short(rng) },
        28..34 => RunOp::Wait {
            claim: recent(rng),
            key: 6 + rng.u8(..2) - u8::from(rng.u8(..9) == 0),
            signals: (0..3).filter(|_| rng.bool()).collect(),
            timer: (rng.u8(..3) != 0).then(|| rng.i64(-300..2_500)),
        },
        34..40 => RunOp::Signal { tenant, id, dedupe: rng.u8(..9), name: rng.u8(..3), size: size(rng) },
        40..43 => RunOp::Release { claim: recent(rng), after: short(rng) },
        43..46 => RunOp::Finish { claim: recent(rng), state: 5 + rng.u8(..3), size: size(rng) },
        46 => RunOp::FinishUnclaimed { tenant, id, state: 5 + rng.u8(..3) },
        47..50 => RunOp::Cancel { tenant, id },
        50 => RunOp::Migrate { tenant, id, version: rng.u8(..2) },
        51..57 => RunOp::View { tenant, id },
        57..59 => RunOp::Payloads { tenant, id },
        59..61 => RunOp::List {
            tenant: rng.bool().then_some(tenant),
            state: (rng.u8(..3) == 0).then(|| rng.u8(..8)),
            queue: (rng.u8(..3) == 0).then(|| rng.u8(..2)),
            size: rng.u32(..4),
        },
        _ => RunOp::Journal { tenant, id, limit: rng.u32(..5) },
    }
}

fn starts(rng: &mut Rng) -> Starts {
    Starts {
        tenant: rng.u8(..2),
        id: rng.u8(..5),
        key: (rng.u8(..3) == 0).then(|| (rng.u8(..4), u8::from(rng.u8(..4) == 0))),
        queue: rng.u8(..2),
        version: rng.u8(..2),
        priority: rng.u8(..4),
        after: if rng.bool() { Duration::ZERO } else { short(rng) },
        deadline: (rng.u8(..5) == 0).then(|| long(rng)),
        cost_max: (rng.u8(..5) == 0).then(|| rng.u8(..4)),
        unclaimed: rng.u8(..6) == 0,
        size: if rng.bool() { 7 } else { size(rng) },
    }
}

pub(super) fn worker_op(rng: &mut Rng) -> WorkerOp {
    let tenant = (rng.u8(..4) == 0).then(|| rng.u8(..2));
    match rng.u8(..6) {
        0 => WorkerOp::See {
            tenant,
            worker: rng.u8(..4),
            queues: (0..2).filter(|_| rng.u8(..3) != 0).collect(),
            standby: rng.u8(..3) == 0,
        },
        1 => WorkerOp::Drain { tenant, worker: rng.u8(..4), gone: rng.bool() },
        2..4 => WorkerOp::List,
        _ => WorkerOp::Depths,
    }
}

/// The claims made so far.
#[derive(Debug, Default)]
pub(super) struct Claims(Vec<(RunRef, Epoch)>);

impl Claims {
    pub(super) fn ago(&self, claim: u8) -> Option<(RunRef, Epoch)> {
        ago(&self.0, claim)
    }

    /// The answer, and the epoch that was drawn for it. `number` is that of the command.
    pub(super) async fn play(
        &mut self,
        store: &dyn Store,
        op: &RunOp,
        number: u32,
    ) -> Result<(Seen, Option<Epoch>), StoreError> {
        let seen = match op {
            RunOp::Start(starts) => Seen::Started(store.start_run(start(starts)).await?),
            RunOp::Claim { .. } => return self.claim(store, op, number).await,
            RunOp::Beat { claim, lease } => {
                let Some((run, epoch)) = self.ago(*claim) else { return Ok((Seen::Nothing, None)) };
                Seen::Beaten(store.beat_run(BeatRun { run, epoch, lease: *lease }).await?)
            }
            RunOp::Wait { claim, key, signals, timer } => {
                let Some((run, epoch)) = self.ago(*claim) else { return Ok((Seen::Nothing, None)) };
                let signals = signals.iter().map(|number| name("signal", *number)).collect();
                let timer = timer.map(|millis| match u64::try_from(millis) {
                    Ok(millis) => Until::In(Duration::from_millis(millis)),
                    Err(_) => Until::At(Wall(1_800_000_000_000 - millis * 40)),
                });
                Seen::Waited(store.wait_run(WaitRun { run, epoch, key: name("step", *key), signals, timer }).await?)
            }
            RunOp::Signal { tenant, id, dedupe, name: called, size } => {
                let (dedupe, name) = (name("once", *dedupe), name("signal", *called));
                let command = SignalRun { run: run(*tenant, *id), dedupe, name, payload: payload(*size) };
                Seen::Signalled(store.signal_run(command).await?)
            }
            RunOp::Release { claim, after } => {
                let Some((run, epoch)) = self.ago(*claim) else { return Ok((Seen::Nothing, None)) };
                Seen::Fenced(store.release_run(ReleaseRun { run, epoch, after: *after }).await?)
            }
            RunOp::Finish { claim, state, size } => {
                let Some((run, epoch)) = self.ago(*claim) else { return Ok((Seen::Nothing, None)) };
                let (epoch, state, output) = (Some(epoch), RunState::ALL[usize::from(*state)], payload(*size));
                Seen::Fenced(store.finish_run(FinishRun { run, epoch, state, output }).await?)
            }
            RunOp::FinishUnclaimed { tenant, id, state } => {
                let (state, output) = (RunState::ALL[usize::from(*state)], payload(3));
                Seen::Fenced(store.finish_run(FinishRun { run: run(*tenant, *id), epoch: None, state, output }).await?)
            }
            RunOp::Cancel { tenant, id } => {
                let command = CancelRun { run: run(*tenant, *id), by: "person-0".into() };
                Seen::Cancelling(store.cancel_run(command).await?)
            }
            RunOp::Migrate { tenant, id, version } => {
                let version = name("version", *version);
                let command = MigrateRun { run: run(*tenant, *id), version, by: "person-1".into() };
                Seen::Fenced(store.migrate_run(command).await?)
            }
            RunOp::View { tenant, id } => {
                Seen::Run(store.run(run(*tenant, *id)).await?.map(|view| Box::new(without_epoch(view))))
            }
            RunOp::Payloads { tenant, id } => {
                let run = run(*tenant, *id);
                Seen::RunPayloads(store.run_input(run.clone()).await?, store.run_end(run).await?)
            }
            RunOp::List { tenant: who, state, queue, size } => {
                let filter = RunFilter {
                    tenant: who.map(tenant),
                    state: state.map(|state| RunState::ALL[usize::from(state)]),
                    queue: queue.map(|queue| name("queue", queue)),
                    workflow: None,
                };
                Seen::Runs(every_run(store, filter, *size).await?)
            }
            RunOp::Journal { tenant, id, limit } => Seen::Journal(every_step(store, run(*tenant, *id), *limit).await?),
        };
        Ok((seen, None))
    }

    async fn claim(&mut self, store: &dyn Store, op: &RunOp, number: u32) -> Result<(Seen, Option<Epoch>), StoreError> {
        let RunOp::Claim { tenant: who, worker, queues, versions, lease, standby } = op else {
            return Ok((Seen::Nothing, None));
        };
        let versions: Vec<_> = versions.iter().map(|version| name("version", *version)).collect();
        let accepts = Accepts { workflow: "work".into(), versions: versions.clone() };
        let command = ClaimRun {
            tenant: who.map(tenant),
            worker: name("worker", *worker),
            queues: queues.iter().map(|queue| name("queue", *queue)).collect(),
            accepts: if versions.is_empty() { Vec::new() } else { vec![accepts] },
            lease: *lease,
            standby: *standby,
            journal: 3,
            if_parked: asked(number),
        };
        let Some(mut claimed) = store.claim_run(command).await? else { return Ok((Seen::ClaimedRun(None), None)) };
        let epoch = std::mem::replace(&mut claimed.epoch, Epoch(0));
        self.0.push((claimed.run.run.clone(), epoch));
        claimed.run = without_epoch(claimed.run);
        claimed.journal.steps = claimed.journal.steps.into_iter().map(step_without_epoch).collect();
        Ok((Seen::ClaimedRun(Some(Box::new(claimed))), Some(epoch)))
    }
}

pub(super) async fn work(store: &dyn Store, op: &WorkerOp) -> Result<Seen, StoreError> {
    Ok(match op {
        WorkerOp::See { tenant: who, worker, queues, standby } => {
            let command = SeeWorker {
                tenant: who.map(tenant),
                worker: name("worker", *worker),
                label: name("label", *worker),
                queues: queues.iter().map(|queue| name("queue", *queue)).collect(),
                accepts: Vec::new(),
                standby: *standby,
            };
            store.see_worker(command).await?;
            Seen::Nothing
        }
        WorkerOp::Drain { tenant: who, worker, gone } => {
            let command = DrainWorker { tenant: who.map(tenant), worker: name("worker", *worker), gone: *gone };
            Seen::Drained(store.drain_worker(command).await?)
        }
        WorkerOp::List => Seen::Workers(store.workers().await?),
        WorkerOp::Depths => Seen::Depths(store.depths().await?),
    })
}

fn start(starts: &Starts) -> StartRun {
    StartRun {
        run: run(starts.tenant, starts.id),
        key: starts.key.map(|(key, hash)| (name("key", key), [hash; 32])),
        queue: name("queue", starts.queue),
        workflow: "work".into(),
        version: name("version", starts.version),
        priority: Priority::ALL[usize::from(starts.priority)],
        after: starts.after,
        deadline: starts.deadline,
        cost_max: starts.cost_max.map(|cost| Usd::from_nanos(cost.into())),
        unclaimed: starts.unclaimed,
        input: payload(starts.size),
    }
}

pub(super) fn run(of: u8, id: u8) -> RunRef {
    RunRef { tenant: tenant(of), id: (&*name("run", id)).into() }
}

/// Back ends number their claims as they like.
fn without_epoch(view: RunView) -> RunView {
    RunView { epoch: Epoch(0), ..view }
}

pub(super) fn step_without_epoch(view: StepView) -> StepView {
    StepView { epoch: Epoch(0), ..view }
}

/// All pages, one after the other.
async fn every_run(store: &dyn Store, filter: RunFilter, size: u32) -> Result<Vec<RunView>, StoreError> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = store.runs(filter.clone(), Page { after, size }).await?;
        all.extend(page.runs.into_iter().map(without_epoch));
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(all),
        }
    }
}

/// All pages, one after the other.
async fn every_step(store: &dyn Store, run: RunRef, limit: u32) -> Result<Vec<StepView>, StoreError> {
    let mut all = Vec::new();
    let mut after = 0;
    loop {
        let page = store.journal(run.clone(), after, limit).await?;
        all.extend(page.steps.into_iter().map(step_without_epoch));
        match page.next {
            Some(next) => after = next,
            None => return Ok(all),
        }
    }
}
