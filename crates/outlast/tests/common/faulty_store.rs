//! A store in memory that can be broken: every command then fails as one of a file that cannot be written.

use outlast_model::{TenantId, Wall};
use outlast_store::{
    Answer, AskConfirmation, Asked, AuditFilter, AuditPage, AuditVerified, BackedUp, BeatRun, Beaten, BeginCall,
    BeginStep, Begun, CancelRun, Cancelling, Checked, ClaimQueued, ClaimRun, ClaimUnknown, ClaimedItem, ClaimedRun,
    Clock, CompleteQueued, DecideEscalation, Decided, Delivered, Delivery, DrainWorker, DueDeliveries, DueEscalation,
    DueEscalations, DueNotices, EndCall, EndStep, Enqueue, Enqueued, Escalation, EscalationFilter, EscalationMoved,
    EscalationPage, FailQueued, Fenced, FinishRun, JournalPage, Limits, MemoryStore, MigrateRun, Notice, Noticed,
    OpenEscalation, Opened, Page, Payload, PeopleStore, Place, QueueDepth, QueuedView, Recall, ReleaseQueued,
    ReleaseRun, Remember, Remembered, RenewCall, RenewQueued, RenewStep, Retried, RetryDelivery, RetryNotice, RunEnd,
    RunFilter, RunPage, RunRef, RunStore, RunView, SeeWorker, SignalRun, Signalled, StartRun, Started, StepBegun,
    StepEnded, StepView, Store, StoreError, StoreHealth, Swept, TakeConfirmation, Taken, UnknownEffect, WaitRun,
    Waited, WorkerView,
};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

#[derive(Debug)]
pub(crate) struct FaultyStore {
    store: MemoryStore,
    broken: AtomicBool,
}

#[derive(Debug)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Wall {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Wall(i64::try_from(since.as_millis()).unwrap())
    }
}

impl Default for FaultyStore {
    fn default() -> Self {
        let store = MemoryStore::new(Limits::MEMORY, Arc::new(SystemClock));
        FaultyStore { store, broken: AtomicBool::new(false) }
    }
}

impl FaultyStore {
    pub(crate) fn break_down(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    pub(crate) fn heal(&self) {
        self.broken.store(false, Ordering::Relaxed);
    }

    fn or_fail<T: Send + 'static>(&self, command: impl FnOnce(&MemoryStore) -> Answer<T>) -> Answer<T> {
        if self.broken.load(Ordering::Relaxed) {
            return Box::pin(std::future::ready(Err(StoreError::ReadOnly { place: "store.db".into() })));
        }
        command(&self.store)
    }
}

impl PeopleStore for FaultyStore {
    fn open_escalation(&self, command: OpenEscalation) -> Answer<Opened> {
        self.or_fail(|store| store.open_escalation(command))
    }

    fn escalations(&self, filter: EscalationFilter, page: Page) -> Answer<EscalationPage> {
        self.or_fail(|store| store.escalations(filter, page))
    }

    fn escalation(&self, id: Arc<str>) -> Answer<Option<Escalation>> {
        self.or_fail(|store| store.escalation(id))
    }

    fn decide_escalation(&self, command: DecideEscalation) -> Answer<Decided> {
        self.or_fail(|store| store.decide_escalation(command))
    }

    fn due_escalations(&self, command: DueEscalations) -> Answer<Vec<DueEscalation>> {
        self.or_fail(|store| store.due_escalations(command))
    }

    fn escalation_moved(&self, command: EscalationMoved) -> Answer<Fenced> {
        self.or_fail(|store| store.escalation_moved(command))
    }

    fn due_notices(&self, command: DueNotices) -> Answer<Vec<Notice>> {
        self.or_fail(|store| store.due_notices(command))
    }

    fn noticed(&self, command: Noticed) -> Answer<Fenced> {
        self.or_fail(|store| store.noticed(command))
    }

    fn retry_notice(&self, command: RetryNotice) -> Answer<Retried> {
        self.or_fail(|store| store.retry_notice(command))
    }

    fn audit(&self, filter: AuditFilter, page: Page) -> Answer<AuditPage> {
        self.or_fail(|store| store.audit(filter, page))
    }

    fn verify_audit(&self) -> Answer<AuditVerified> {
        self.or_fail(|store| store.verify_audit())
    }
}

macro_rules! or_fail {
    ($($command:ident($($name:ident: $kind:ty),*) -> $answer:ty;)*) => {
        $(fn $command(&self, $($name: $kind),*) -> Answer<$answer> {
            self.or_fail(|store| store.$command($($name),*))
        })*
    };
}

impl RunStore for FaultyStore {
    or_fail! {
        start_run(command: StartRun) -> Started;
        claim_run(command: ClaimRun) -> Option<ClaimedRun>;
        beat_run(command: BeatRun) -> Beaten;
        wait_run(command: WaitRun) -> Waited;
        signal_run(command: SignalRun) -> Signalled;
        release_run(command: ReleaseRun) -> Fenced;
        finish_run(command: FinishRun) -> Fenced;
        cancel_run(command: CancelRun) -> Cancelling;
        migrate_run(command: MigrateRun) -> Fenced;
        run(run: RunRef) -> Option<RunView>;
        run_input(run: RunRef) -> Option<Payload>;
        run_end(run: RunRef) -> Option<RunEnd>;
        runs(filter: RunFilter, page: Page) -> RunPage;
        journal(run: RunRef, after: i64, limit: u32) -> JournalPage;
        begin_step(command: BeginStep) -> StepBegun;
        renew_step(command: RenewStep) -> Fenced;
        end_step(command: EndStep) -> StepEnded;
        step(place: Place) -> Option<StepView>;
        claim_unknown(command: ClaimUnknown) -> Vec<UnknownEffect>;
        see_worker(command: SeeWorker) -> ();
        drain_worker(command: DrainWorker) -> bool;
        workers() -> Vec<WorkerView>;
        depths() -> Vec<QueueDepth>;
        now() -> Wall;
    }
}

impl Store for FaultyStore {
    fn begin_call(&self, command: BeginCall) -> Answer<Begun> {
        self.or_fail(|store| store.begin_call(command))
    }

    fn renew_call(&self, command: RenewCall) -> Answer<Fenced> {
        self.or_fail(|store| store.renew_call(command))
    }

    fn end_call(&self, command: EndCall) -> Answer<Fenced> {
        self.or_fail(|store| store.end_call(command))
    }

    fn enqueue(&self, command: Enqueue) -> Answer<Enqueued> {
        self.or_fail(|store| store.enqueue(command))
    }

    fn claim_queued(&self, command: ClaimQueued) -> Answer<Option<ClaimedItem>> {
        self.or_fail(|store| store.claim_queued(command))
    }

    fn renew_queued(&self, command: RenewQueued) -> Answer<Fenced> {
        self.or_fail(|store| store.renew_queued(command))
    }

    fn complete_queued(&self, command: CompleteQueued) -> Answer<Fenced> {
        self.or_fail(|store| store.complete_queued(command))
    }

    fn fail_queued(&self, command: FailQueued) -> Answer<Fenced> {
        self.or_fail(|store| store.fail_queued(command))
    }

    fn release_queued(&self, command: ReleaseQueued) -> Answer<Fenced> {
        self.or_fail(|store| store.release_queued(command))
    }

    fn queued(&self, tenant: TenantId, id: Arc<str>) -> Answer<Option<QueuedView>> {
        self.or_fail(|store| store.queued(tenant, id))
    }

    fn remember(&self, command: Remember) -> Answer<()> {
        self.or_fail(|store| store.remember(command))
    }

    fn recall(&self, question: Recall) -> Answer<Option<Remembered>> {
        self.or_fail(|store| store.recall(question))
    }

    fn ask_confirmation(&self, command: AskConfirmation) -> Answer<Asked> {
        self.or_fail(|store| store.ask_confirmation(command))
    }

    fn take_confirmation(&self, command: TakeConfirmation) -> Answer<Taken> {
        self.or_fail(|store| store.take_confirmation(command))
    }

    fn due_deliveries(&self, command: DueDeliveries) -> Answer<Vec<Delivery>> {
        self.or_fail(|store| store.due_deliveries(command))
    }

    fn delivered(&self, command: Delivered) -> Answer<Fenced> {
        self.or_fail(|store| store.delivered(command))
    }

    fn retry_delivery(&self, command: RetryDelivery) -> Answer<Retried> {
        self.or_fail(|store| store.retry_delivery(command))
    }

    fn sweep(&self, limit: u32) -> Answer<Swept> {
        self.or_fail(|store| store.sweep(limit))
    }

    fn health(&self) -> Answer<StoreHealth> {
        self.or_fail(|store| store.health())
    }

    fn backup(&self, path: PathBuf) -> Answer<BackedUp> {
        self.or_fail(|store| store.backup(path))
    }

    fn check(&self) -> Answer<Checked> {
        self.or_fail(|store| store.check())
    }
}
