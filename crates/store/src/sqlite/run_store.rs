//! The part of the contract that runs, steps and effects need, for one SQLite file.

use super::{SqliteStore, claim, effects, inbox, journal, run_views, runs, steps, workers};
use crate::{
    Answer, BeatRun, Beaten, BeginStep, CancelRun, Cancelling, ClaimRun, ClaimUnknown, ClaimedRun, DrainWorker,
    EndStep, Fenced, FinishRun, JournalPage, MigrateRun, Page, Payload, Place, QueueDepth, ReleaseRun, RenewStep,
    RunEnd, RunFilter, RunPage, RunRef, RunStore, RunView, SeeWorker, SignalRun, Signalled, StartRun, Started,
    StepBegun, StepEnded, StepView, UnknownEffect, WaitRun, Waited, WorkerView,
};
use outlast_model::Wall;

impl RunStore for SqliteStore {
    fn start_run(&self, command: StartRun) -> Answer<Started> {
        self.write(command.input.len(), move |cx| runs::start(cx, &command))
    }

    fn claim_run(&self, command: ClaimRun) -> Answer<Option<ClaimedRun>> {
        self.write(command.if_parked.context.len(), move |cx| claim::claim(cx, &command))
    }

    fn beat_run(&self, command: BeatRun) -> Answer<Beaten> {
        self.write(0, move |cx| claim::beat(cx, &command))
    }

    fn wait_run(&self, command: WaitRun) -> Answer<Waited> {
        self.write(0, move |cx| inbox::wait(cx, &command))
    }

    fn signal_run(&self, command: SignalRun) -> Answer<Signalled> {
        self.write(command.payload.len(), move |cx| inbox::signal(cx, &command))
    }

    fn release_run(&self, command: ReleaseRun) -> Answer<Fenced> {
        self.write(0, move |cx| runs::release(cx, &command))
    }

    fn finish_run(&self, command: FinishRun) -> Answer<Fenced> {
        self.write(command.output.len(), move |cx| runs::finish(cx, &command))
    }

    fn cancel_run(&self, command: CancelRun) -> Answer<Cancelling> {
        self.write(0, move |cx| claim::cancel(cx, &command))
    }

    fn migrate_run(&self, command: MigrateRun) -> Answer<Fenced> {
        self.write(0, move |cx| claim::migrate(cx, &command))
    }

    fn run(&self, run: RunRef) -> Answer<Option<RunView>> {
        self.readers.ask(move |cx| run_views::one(cx, &run))
    }

    fn run_input(&self, run: RunRef) -> Answer<Option<Payload>> {
        self.readers.ask(move |cx| run_views::input(cx, &run))
    }

    fn run_end(&self, run: RunRef) -> Answer<Option<RunEnd>> {
        self.readers.ask(move |cx| run_views::end(cx, &run))
    }

    fn runs(&self, filter: RunFilter, page: Page) -> Answer<RunPage> {
        self.readers.ask(move |cx| run_views::list(cx, &filter, page))
    }

    fn journal(&self, run: RunRef, after: i64, limit: u32) -> Answer<JournalPage> {
        self.readers.ask(move |cx| journal::page(cx, &run, after, limit.max(1)))
    }

    fn begin_step(&self, command: BeginStep) -> Answer<StepBegun> {
        let undo = command.undo.as_ref().map_or(0, Payload::len);
        let bytes = command.input.len() + undo + command.if_parked.context.len();
        self.write(bytes, move |cx| steps::begin(cx, &command))
    }

    fn renew_step(&self, command: RenewStep) -> Answer<Fenced> {
        self.write(0, move |cx| steps::renew(cx, &command))
    }

    fn end_step(&self, command: EndStep) -> Answer<StepEnded> {
        let bytes = command.payload.len() + command.if_parked.context.len();
        self.write(bytes, move |cx| steps::end(cx, &command))
    }

    fn step(&self, place: Place) -> Answer<Option<StepView>> {
        self.readers.ask(move |cx| journal::step(cx, &place))
    }

    fn claim_unknown(&self, command: ClaimUnknown) -> Answer<Vec<UnknownEffect>> {
        let bytes = command.if_parked.iter().map(|asked| asked.context.len()).sum();
        self.write(bytes, move |cx| effects::claim_unknown(cx, &command))
    }

    fn see_worker(&self, command: SeeWorker) -> Answer<()> {
        self.write(0, move |cx| workers::see(cx, &command))
    }

    fn drain_worker(&self, command: DrainWorker) -> Answer<bool> {
        self.write(0, move |cx| workers::drain(cx, &command))
    }

    fn workers(&self) -> Answer<Vec<WorkerView>> {
        self.readers.ask(workers::views)
    }

    fn depths(&self) -> Answer<Vec<QueueDepth>> {
        self.readers.ask(workers::depths)
    }

    fn now(&self) -> Answer<Wall> {
        self.readers.ask(|cx| Ok(cx.now))
    }
}
