//! Claims the runs of the config's workflows, so many at once, and drives them.

use super::{
    super::super::{Shared, live::Live},
    Drive,
    keeper::Keeper,
};
use crate::{clock, config::WorkflowPlan, failpoint};
use outlast_store::{Accepts, ClaimRun, ClaimedRun, IfParked, JournalPage, Payload, ReleaseRun};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinHandle, task::JoinSet};

/// How often the queues are looked at when nothing wakes the executors: what another process started, or lost, is found
/// by this.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A run that turns out not to be for this config comes back after this.
const NOT_OURS: Duration = Duration::from_secs(30);

/// The task that claims.
pub(in super::super::super) struct Executors {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Executors {
    /// Starts it on the current runtime. Without workflows in the config it only waits for some.
    pub(in super::super::super) fn start(shared: &Arc<Shared>) -> Self {
        let (stop, stopping) = watch::channel(false);
        // Random per process, so that a restarted one is not taken for the one that died.
        let worker: Arc<str> = shared.clock.request_id().as_str().replacen("req_", "server_", 1).into();
        Executors { task: tokio::spawn(execute(shared.clone(), worker, stopping)), stop }
    }

    /// Of a process that is draining: nothing more is claimed. What is under way has until `patience` is over, then its
    /// run is given back.
    pub(in super::super::super) async fn finish(self, patience: Duration) {
        self.stop.send_replace(true);
        let mut task = self.task;
        if clock::timeout(patience, &mut task).await.is_err() {
            // Every drive gives its run back as it is dropped.
            task.abort();
            let _ = task.await;
        }
    }
}

async fn execute(shared: Arc<Shared>, worker: Arc<str>, stopping: watch::Receiver<bool>) {
    let mut driving = JoinSet::new();
    let mut stops = stopping.clone();
    while !*stopping.borrow() {
        let live = shared.live();
        let at_once = usize::try_from(live.config.runs.executors).unwrap_or(usize::MAX).max(1);
        let queues: Vec<Arc<str>> = live.config.workflows.values().map(|plan| plan.spec.queue()).collect();
        let ear = shared.runs.hints.listen(&queues);
        while driving.len() < at_once && !queues.is_empty() && !*stopping.borrow() {
            let Some(claimed) = claim(&shared, &live, &worker, &queues).await else { break };
            driving.spawn(drive(shared.clone(), live.clone(), claimed, stopping.clone()));
        }
        // Jittered: processes that share a store do not all ask at once.
        let jitter = Duration::from_millis(shared.clock.seed() % 250);
        let has_room = driving.len() < at_once;
        tokio::select! {
            Some(_) = driving.join_next() => {}
            () = ear.hinted(), if has_room => {}
            () = clock::sleep(LOOK_EVERY - jitter), if has_room => {}
            _ = async { stops.wait_for(|stops| *stops).await.is_ok() } => {}
        }
    }
    while driving.join_next().await.is_some() {}
}

/// Claims the next run of these workflows, in exactly the versions that the config has. Runs of others stay due, and
/// whoever looks after the runs as a whole tells the operator that nobody accepts them.
async fn claim(shared: &Arc<Shared>, live: &Live, worker: &Arc<str>, queues: &[Arc<str>]) -> Option<ClaimedRun> {
    let accepts = live
        .config
        .workflows
        .values()
        .map(|plan| Accepts { workflow: plan.spec.name.as_str().into(), versions: vec![plan.spec.version.clone()] });
    let question = "A run of a workflow is claimed again and again without getting any further: whoever drives it dies \
                    or gives it back. Let it be tried again, or cancel it?";
    let claim = ClaimRun {
        tenant: None,
        worker: worker.clone(),
        queues: queues.to_vec(),
        accepts: accepts.collect(),
        lease: live.config.runs.lease,
        standby: false,
        journal: JournalPage::LARGEST,
        if_parked: IfParked {
            id: format!("esc_{}", shared.clock.secret()?).into(),
            question: question.into(),
            context: Payload::from(b"{}".to_vec()),
            answer_within: live.config.escalations.answer_within,
        },
    };
    shared.stored(shared.store.claim_run(claim)).await.ok().flatten()
}

async fn drive(shared: Arc<Shared>, live: Arc<Live>, claimed: ClaimedRun, stopping: watch::Receiver<bool>) {
    failpoint::pass("run.claimed");
    let (run, epoch) = (claimed.run.run.clone(), claimed.epoch);
    let keeper = Keeper::start(shared.clone(), run.clone(), epoch, live.config.runs.lease, stopping);
    let Some(plan) = plan_of(&live, &claimed) else {
        // Only if the store gave more than was asked for: no other version ever does a run.
        let release = ReleaseRun { run, epoch, after: NOT_OURS };
        let _ = shared.stored(shared.store.release_run(release)).await;
        return;
    };
    if let Some(drive) = Drive::new(&shared, &live, plan, claimed, keeper).await {
        drive.run().await;
    }
}

fn plan_of(live: &Live, claimed: &ClaimedRun) -> Option<Arc<WorkflowPlan>> {
    let plan = live.config.workflow(&claimed.run.workflow)?;
    (plan.spec.version == claimed.run.version).then(|| plan.clone())
}
