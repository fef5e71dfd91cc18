//! Durable runs: the commands, each carried out under the lock.

use super::MemoryStore;
use crate::{
    Answer, BeatRun, Beaten, BeginStep, CancelRun, Cancelling, ClaimRun, ClaimUnknown, ClaimedRun, DrainWorker,
    EndStep, Fenced, FinishRun, JournalPage, MigrateRun, Page, Payload, Place, QueueDepth, ReleaseRun, RenewStep,
    RunEnd, RunFilter, RunPage, RunRef, RunStore, RunView, SeeWorker, SignalRun, Signalled, StartRun, Started,
    StepBegun, StepEnded, StepView, StoreError, UnknownEffect, WaitRun, Waited, WorkerView,
};
use outlast_model::Wall;

fn not_yet<T: Send + 'static>() -> Answer<T> {
    Box::pin(std::future::ready(Err(StoreError::Unsupported { what: "keep runs yet" })))
}

impl RunStore for MemoryStore {
    fn start_run(&self, _: StartRun) -> Answer<Started> {
        not_yet()
    }

    fn claim_run(&self, _: ClaimRun) -> Answer<Option<ClaimedRun>> {
        not_yet()
    }

    fn beat_run(&self, _: BeatRun) -> Answer<Beaten> {
        not_yet()
    }

    fn wait_run(&self, _: WaitRun) -> Answer<Waited> {
        not_yet()
    }

    fn signal_run(&self, _: SignalRun) -> Answer<Signalled> {
        not_yet()
    }

    fn release_run(&self, _: ReleaseRun) -> Answer<Fenced> {
        not_yet()
    }

    fn finish_run(&self, _: FinishRun) -> Answer<Fenced> {
        not_yet()
    }

    fn cancel_run(&self, _: CancelRun) -> Answer<Cancelling> {
        not_yet()
    }

    fn migrate_run(&self, _: MigrateRun) -> Answer<Fenced> {
        not_yet()
    }

    fn run(&self, _: RunRef) -> Answer<Option<RunView>> {
        not_yet()
    }

    fn run_input(&self, _: RunRef) -> Answer<Option<Payload>> {
        not_yet()
    }

    fn run_end(&self, _: RunRef) -> Answer<Option<RunEnd>> {
        not_yet()
    }

    fn runs(&self, _: RunFilter, _: Page) -> Answer<RunPage> {
        not_yet()
    }

    fn journal(&self, _: RunRef, _: i64, _: u32) -> Answer<JournalPage> {
        not_yet()
    }

    fn begin_step(&self, _: BeginStep) -> Answer<StepBegun> {
        not_yet()
    }

    fn renew_step(&self, _: RenewStep) -> Answer<Fenced> {
        not_yet()
    }

    fn end_step(&self, _: EndStep) -> Answer<StepEnded> {
        not_yet()
    }

    fn step(&self, _: Place) -> Answer<Option<StepView>> {
        not_yet()
    }

    fn claim_unknown(&self, _: ClaimUnknown) -> Answer<Vec<UnknownEffect>> {
        not_yet()
    }

    fn see_worker(&self, _: SeeWorker) -> Answer<()> {
        not_yet()
    }

    fn drain_worker(&self, _: DrainWorker) -> Answer<bool> {
        not_yet()
    }

    fn workers(&self) -> Answer<Vec<WorkerView>> {
        not_yet()
    }

    fn depths(&self) -> Answer<Vec<QueueDepth>> {
        not_yet()
    }

    fn now(&self) -> Answer<Wall> {
        not_yet()
    }
}
