//! The part of the contract that runs, steps and effects need, for one SQLite file.

use super::SqliteStore;
use crate::{
    Answer, BeatRun, Beaten, BeginStep, CancelRun, Cancelling, ClaimRun, ClaimUnknown, ClaimedRun, DrainWorker,
    EndStep, Fenced, FinishRun, JournalPage, MigrateRun, Page, Payload, Place, QueueDepth, ReleaseRun, RenewStep,
    RunEnd, RunFilter, RunPage, RunRef, RunStore, RunView, SeeWorker, SignalRun, Signalled, StartRun, Started,
    StepBegun, StepEnded, StepView, StoreError, UnknownEffect, WaitRun, Waited, WorkerView,
};
use outlast_model::Wall;
use std::future;

impl RunStore for SqliteStore {
    fn start_run(&self, _command: StartRun) -> Answer<Started> {
        not_yet("start_run")
    }

    fn claim_run(&self, _command: ClaimRun) -> Answer<Option<ClaimedRun>> {
        not_yet("claim_run")
    }

    fn beat_run(&self, _command: BeatRun) -> Answer<Beaten> {
        not_yet("beat_run")
    }

    fn wait_run(&self, _command: WaitRun) -> Answer<Waited> {
        not_yet("wait_run")
    }

    fn signal_run(&self, _command: SignalRun) -> Answer<Signalled> {
        not_yet("signal_run")
    }

    fn release_run(&self, _command: ReleaseRun) -> Answer<Fenced> {
        not_yet("release_run")
    }

    fn finish_run(&self, _command: FinishRun) -> Answer<Fenced> {
        not_yet("finish_run")
    }

    fn cancel_run(&self, _command: CancelRun) -> Answer<Cancelling> {
        not_yet("cancel_run")
    }

    fn migrate_run(&self, _command: MigrateRun) -> Answer<Fenced> {
        not_yet("migrate_run")
    }

    fn run(&self, _run: RunRef) -> Answer<Option<RunView>> {
        not_yet("run")
    }

    fn run_input(&self, _run: RunRef) -> Answer<Option<Payload>> {
        not_yet("run_input")
    }

    fn run_end(&self, _run: RunRef) -> Answer<Option<RunEnd>> {
        not_yet("run_end")
    }

    fn runs(&self, _filter: RunFilter, _page: Page) -> Answer<RunPage> {
        not_yet("runs")
    }

    fn journal(&self, _run: RunRef, _after: i64, _limit: u32) -> Answer<JournalPage> {
        not_yet("journal")
    }

    fn begin_step(&self, _command: BeginStep) -> Answer<StepBegun> {
        not_yet("begin_step")
    }

    fn renew_step(&self, _command: RenewStep) -> Answer<Fenced> {
        not_yet("renew_step")
    }

    fn end_step(&self, _command: EndStep) -> Answer<StepEnded> {
        not_yet("end_step")
    }

    fn step(&self, _place: Place) -> Answer<Option<StepView>> {
        not_yet("step")
    }

    fn claim_unknown(&self, _command: ClaimUnknown) -> Answer<Vec<UnknownEffect>> {
        not_yet("claim_unknown")
    }

    fn see_worker(&self, _command: SeeWorker) -> Answer<()> {
        not_yet("see_worker")
    }

    fn drain_worker(&self, _command: DrainWorker) -> Answer<bool> {
        not_yet("drain_worker")
    }

    fn workers(&self) -> Answer<Vec<WorkerView>> {
        not_yet("workers")
    }

    fn depths(&self) -> Answer<Vec<QueueDepth>> {
        not_yet("depths")
    }

    fn now(&self) -> Answer<Wall> {
        not_yet("now")
    }
}

fn not_yet<T: Send + 'static>(what: &'static str) -> Answer<T> {
    Box::pin(future::ready(Err(StoreError::Unsupported { what })))
}
