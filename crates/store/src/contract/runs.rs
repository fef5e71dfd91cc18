//! The part of the contract that runs, steps and effects need.

use super::{Answer, Fenced};
use crate::{
    BeatRun, Beaten, BeginStep, CancelRun, Cancelling, ClaimRun, ClaimUnknown, ClaimedRun, DrainWorker, EndStep,
    FinishRun, JournalPage, MigrateRun, Page, Payload, Place, QueueDepth, ReleaseRun, RenewStep, RunEnd, RunFilter,
    RunPage, RunRef, RunView, SeeWorker, SignalRun, Signalled, StartRun, Started, StepBegun, StepEnded, StepView,
    UnknownEffect, WaitRun, Waited, WorkerView,
};

/// Durable runs. The rules that hold for every command are those of [the contract](super); what decides is
/// [`outlast_engine::run`].
pub trait RunStore {
    /// Starts a run.
    ///
    /// # Errors
    /// [`crate::StoreError::LimitReached`] when there is no room for another one.
    fn start_run(&self, command: StartRun) -> Answer<Started>;
    /// Claims a run that is due; none if there is none. One that turns out to be poison is quarantined by this, and the
    /// next one is looked at.
    fn claim_run(&self, command: ClaimRun) -> Answer<Option<ClaimedRun>>;
    /// Keeps a run's lease. A heartbeat.
    fn beat_run(&self, command: BeatRun) -> Answer<Beaten>;
    /// Waits for a signal or a timer.
    fn wait_run(&self, command: WaitRun) -> Answer<Waited>;
    /// Tells a run something.
    fn signal_run(&self, command: SignalRun) -> Answer<Signalled>;
    /// Gives a claimed run back.
    fn release_run(&self, command: ReleaseRun) -> Answer<Fenced>;
    /// Ends a run.
    fn finish_run(&self, command: FinishRun) -> Answer<Fenced>;
    /// Cancels a run.
    fn cancel_run(&self, command: CancelRun) -> Answer<Cancelling>;
    /// Pins a run to another version; lost if it is held or over.
    fn migrate_run(&self, command: MigrateRun) -> Answer<Fenced>;

    /// One run.
    fn run(&self, run: RunRef) -> Answer<Option<RunView>>;
    /// What it works on; none once it is no longer kept.
    fn run_input(&self, run: RunRef) -> Answer<Option<Payload>>;
    /// How it ended; none while it has not.
    fn run_end(&self, run: RunRef) -> Answer<Option<RunEnd>>;
    /// Runs, the newest first.
    fn runs(&self, filter: RunFilter, page: Page) -> Answer<RunPage>;
    /// Its journal, after the entry of that number; at most so many entries, at most [`JournalPage::LARGEST`].
    fn journal(&self, run: RunRef, after: i64, limit: u32) -> Answer<JournalPage>;

    /// Begins a step.
    ///
    /// # Errors
    /// [`crate::StoreError::LimitReached`] when there is no room for another one; [`crate::StoreError::TooLarge`] of its
    /// input.
    fn begin_step(&self, command: BeginStep) -> Answer<StepBegun>;
    /// Keeps an entry's own claim. A heartbeat.
    fn renew_step(&self, command: RenewStep) -> Answer<Fenced>;
    /// Ends an attempt or a verification.
    fn end_step(&self, command: EndStep) -> Answer<StepEnded>;
    /// One step or effect.
    fn step(&self, place: Place) -> Answer<Option<StepView>>;
    /// Claims effects of unknown outcome that nobody looks after.
    fn claim_unknown(&self, command: ClaimUnknown) -> Answer<Vec<UnknownEffect>>;

    /// A worker says that it is there.
    fn see_worker(&self, command: SeeWorker) -> Answer<()>;
    /// Tells a worker to claim nothing more, or forgets it. False if there is no such worker.
    fn drain_worker(&self, command: DrainWorker) -> Answer<bool>;
    /// The workers, those seen last first; at most 1,000.
    fn workers(&self) -> Answer<Vec<WorkerView>>;
    /// What waits where, by queue, workflow and version; at most 1,000.
    fn depths(&self) -> Answer<Vec<QueueDepth>>;
    /// The time by the clock that leases and timers go by.
    fn now(&self) -> Answer<outlast_model::Wall>;
}
