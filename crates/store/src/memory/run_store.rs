//! Durable runs: the commands, each carried out under the lock.

use super::MemoryStore;
use crate::{
    Answer, BeatRun, Beaten, BeginStep, CancelRun, Cancelling, ClaimRun, ClaimUnknown, ClaimedRun, DrainWorker,
    EndStep, Fenced, FinishRun, JournalPage, MigrateRun, Page, Payload, Place, QueueDepth, ReleaseRun, RenewStep,
    RunEnd, RunFilter, RunPage, RunRef, RunStore, RunView, SeeWorker, SignalRun, Signalled, StartRun, Started,
    StepBegun, StepEnded, StepView, UnknownEffect, WaitRun, Waited, WorkerView,
};
use outlast_model::Wall;

impl RunStore for MemoryStore {
    fn start_run(&self, command: StartRun) -> Answer<Started> {
        self.transact(|facts, limits, now| facts.runs.start(command, limits, now))
    }

    fn claim_run(&self, command: ClaimRun) -> Answer<Option<ClaimedRun>> {
        self.transact(|facts, limits, now| facts.claim_run(&command, limits, now))
    }

    fn beat_run(&self, command: BeatRun) -> Answer<Beaten> {
        self.transact(|facts, limits, now| Ok(facts.beat_run(&command, limits, now)))
    }

    fn wait_run(&self, command: WaitRun) -> Answer<Waited> {
        self.transact(|facts, limits, now| facts.wait_run(command, limits, now))
    }

    fn signal_run(&self, command: SignalRun) -> Answer<Signalled> {
        self.transact(|facts, limits, now| facts.signal_run(command, limits, now))
    }

    fn release_run(&self, command: ReleaseRun) -> Answer<Fenced> {
        self.transact(|facts, limits, now| Ok(facts.runs.release(&command, limits, now)))
    }

    fn finish_run(&self, command: FinishRun) -> Answer<Fenced> {
        self.transact(|facts, limits, now| facts.runs.finish(command, limits, now))
    }

    fn cancel_run(&self, command: CancelRun) -> Answer<Cancelling> {
        self.transact(|facts, limits, now| facts.cancel_run(&command, limits, now))
    }

    fn migrate_run(&self, command: MigrateRun) -> Answer<Fenced> {
        self.transact(|facts, limits, now| facts.migrate_run(&command, limits, now))
    }

    fn run(&self, run: RunRef) -> Answer<Option<RunView>> {
        self.transact(|facts, limits, now| Ok(facts.runs.view(&run, limits, now)))
    }

    fn run_input(&self, run: RunRef) -> Answer<Option<Payload>> {
        self.transact(|facts, limits, now| Ok(facts.runs.input(&run, limits, now)))
    }

    fn run_end(&self, run: RunRef) -> Answer<Option<RunEnd>> {
        self.transact(|facts, limits, now| Ok(facts.runs.end(&run, limits, now)))
    }

    fn runs(&self, filter: RunFilter, page: Page) -> Answer<RunPage> {
        self.transact(|facts, limits, now| Ok(facts.runs.list(&filter, page, limits, now)))
    }

    fn journal(&self, run: RunRef, after: i64, limit: u32) -> Answer<JournalPage> {
        self.transact(|facts, limits, now| Ok(facts.journal(&run, after, limit.max(1), limits, now)))
    }

    fn begin_step(&self, command: BeginStep) -> Answer<StepBegun> {
        self.transact(|facts, limits, now| facts.begin_step(command, limits, now))
    }

    fn renew_step(&self, command: RenewStep) -> Answer<Fenced> {
        self.transact(|facts, limits, now| Ok(facts.renew_step(&command, limits, now)))
    }

    fn end_step(&self, command: EndStep) -> Answer<StepEnded> {
        self.transact(|facts, limits, now| facts.end_step(command, limits, now))
    }

    fn step(&self, place: Place) -> Answer<Option<StepView>> {
        self.transact(|facts, limits, now| Ok(facts.step(&place, limits, now)))
    }

    fn claim_unknown(&self, command: ClaimUnknown) -> Answer<Vec<UnknownEffect>> {
        self.transact(|facts, limits, now| facts.claim_unknown(&command, limits, now))
    }

    fn see_worker(&self, command: SeeWorker) -> Answer<()> {
        self.transact(|facts, limits, now| facts.workers.see(command, limits, now))
    }

    fn drain_worker(&self, command: DrainWorker) -> Answer<bool> {
        self.transact(|facts, limits, now| Ok(facts.workers.drain(&command, limits, now)))
    }

    fn workers(&self) -> Answer<Vec<WorkerView>> {
        self.transact(|facts, limits, now| Ok(facts.worker_views(limits, now)))
    }

    fn depths(&self) -> Answer<Vec<QueueDepth>> {
        self.transact(|facts, _, now| Ok(facts.depths(now)))
    }

    fn now(&self) -> Answer<Wall> {
        self.transact(|_, _, now| Ok(now))
    }
}
