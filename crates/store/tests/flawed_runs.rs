//! Checks of the checker: back ends with one flaw each in how they keep runs, which the conformance suite has to find.

mod common;

use common::{Sqlite, block_on};
use outlast_engine::run::{Ended, MayNotBegin};
use outlast_model::{
    TenantId, Wall,
    run::{EffectClass, RunState},
};
use outlast_store::{
    conformance::{Bench, Check, RUN_SCENARIOS, STEP_SCENARIOS, Subject, Theme, compare, first_difference},
    *,
};
use rusqlite::Connection;
use std::{
    collections::BTreeMap,
    future::ready,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

/// What is wrong with a back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// Whoever once held a run may go on with it.
    NoFenceOnBegin,
    /// Any end is taken for the end of what was begun last.
    NoFenceOnEnd,
    /// A step that is done is done again.
    DoneAgain,
    /// An effect of class once is repeated when nobody knows.
    OnceAgain,
    /// The receiver is asked while it may still happen.
    VerifyTooEarly,
    /// A key is taken to be known forever.
    KeyedForever,
    /// A changed request is not noticed.
    AnyRequest,
    /// A heartbeat is answered and keeps nothing.
    DeafHeartbeat,
    /// A signal that comes before it is waited for is lost.
    EarlySignalLost,
    /// The same signal counts every time.
    SignalTwice,
    /// A wait forgets its timer.
    NoTimer,
    /// An end is answered before it is written, and then it is not.
    EndLost,
    /// An approval is not waited for.
    NoApproval,
    /// Cancelling is heard and forgotten.
    DeafCancel,
    /// Every run is given to whoever comes.
    AnyVersion,
    /// Standby workers are as good as any.
    EagerStandby,
    /// A run may cost what it likes.
    NoBudget,
    /// A run that is given back is due at once.
    NoDelay,
}

impl Flaw {
    const ALL: [Flaw; 18] = [
        Flaw::NoFenceOnBegin,
        Flaw::NoFenceOnEnd,
        Flaw::DoneAgain,
        Flaw::OnceAgain,
        Flaw::VerifyTooEarly,
        Flaw::KeyedForever,
        Flaw::AnyRequest,
        Flaw::DeafHeartbeat,
        Flaw::EarlySignalLost,
        Flaw::SignalTwice,
        Flaw::NoTimer,
        Flaw::EndLost,
        Flaw::NoApproval,
        Flaw::DeafCancel,
        Flaw::AnyVersion,
        Flaw::EagerStandby,
        Flaw::NoBudget,
        Flaw::NoDelay,
    ];
}

/// A store that passes everything on, but for its flaw.
#[derive(Debug)]
struct Flawed {
    flaw: Flaw,
    inner: MemoryStore,
    claims: Mutex<BTreeMap<RunRef, Epoch>>,
    attempts: Mutex<BTreeMap<Place, (Epoch, u32)>>,
    signals: AtomicU32,
}

macro_rules! pass_on {
    ($($command:ident($($name:ident: $kind:ty),*) -> $answer:ty;)*) => {
        $(fn $command(&self, $($name: $kind),*) -> Answer<$answer> {
            self.inner.$command($($name),*)
        })*
    };
}

/// The memory store has its answers ready.
fn now<T>(mut answer: Answer<T>) -> Result<T, StoreError> {
    match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => unreachable!("the memory store never waits"),
    }
}

fn say<T: Send + 'static>(answer: Result<T, StoreError>) -> Answer<T> {
    Box::pin(ready(answer))
}

impl RunStore for Flawed {
    pass_on! {
        finish_run(command: FinishRun) -> Fenced;
        migrate_run(command: MigrateRun) -> Fenced;
        run(run: RunRef) -> Option<RunView>;
        run_input(run: RunRef) -> Option<Payload>;
        run_end(run: RunRef) -> Option<RunEnd>;
        runs(filter: RunFilter, page: Page) -> RunPage;
        journal(run: RunRef, after: i64, limit: u32) -> JournalPage;
        renew_step(command: RenewStep) -> Fenced;
        step(place: Place) -> Option<StepView>;
        claim_unknown(command: ClaimUnknown) -> Vec<UnknownEffect>;
        see_worker(command: SeeWorker) -> ();
        drain_worker(command: DrainWorker) -> bool;
        workers() -> Vec<WorkerView>;
        depths() -> Vec<QueueDepth>;
        now() -> Wall;
    }

    fn start_run(&self, mut command: StartRun) -> Answer<Started> {
        if self.flaw == Flaw::NoBudget {
            command.cost_max = None;
        }
        self.inner.start_run(command)
    }

    fn claim_run(&self, mut command: ClaimRun) -> Answer<Option<ClaimedRun>> {
        if self.flaw == Flaw::AnyVersion {
            command.accepts.clear();
        }
        if self.flaw == Flaw::EagerStandby {
            command.standby = false;
        }
        let claimed = now(self.inner.claim_run(command));
        if let Ok(Some(claimed)) = &claimed {
            self.claims.lock().unwrap().insert(claimed.run.run.clone(), claimed.epoch);
        }
        say(claimed)
    }

    fn beat_run(&self, command: BeatRun) -> Answer<Beaten> {
        if self.flaw == Flaw::DeafHeartbeat {
            return say(Ok(Beaten::Held));
        }
        self.inner.beat_run(command)
    }

    fn wait_run(&self, mut command: WaitRun) -> Answer<Waited> {
        if self.flaw == Flaw::NoTimer {
            command.timer = None;
        }
        self.inner.wait_run(command)
    }

    fn signal_run(&self, mut command: SignalRun) -> Answer<Signalled> {
        let waits = now(self.inner.run(command.run.clone()))
            .ok()
            .flatten()
            .is_some_and(|run| run.state == RunState::Waiting && run.waits_for.contains(&command.name));
        if self.flaw == Flaw::EarlySignalLost && !waits {
            return say(Ok(Signalled::Accepted));
        }
        if self.flaw == Flaw::SignalTwice {
            command.dedupe = self.signals.fetch_add(1, Ordering::Relaxed).to_string().into();
        }
        self.inner.signal_run(command)
    }

    fn release_run(&self, mut command: ReleaseRun) -> Answer<Fenced> {
        if self.flaw == Flaw::NoDelay {
            command.after = Duration::ZERO;
        }
        self.inner.release_run(command)
    }

    fn cancel_run(&self, command: CancelRun) -> Answer<Cancelling> {
        if self.flaw == Flaw::DeafCancel {
            return say(Ok(Cancelling::Asked));
        }
        self.inner.cancel_run(command)
    }

    fn begin_step(&self, mut command: BeginStep) -> Answer<StepBegun> {
        let place = command.place.clone();
        match (self.flaw, command.class) {
            (Flaw::OnceAgain, EffectClass::Once) => command.class = EffectClass::Tx,
            (Flaw::VerifyTooEarly, EffectClass::Verify { .. }) => {
                command.class = EffectClass::Verify { quiet_period: Duration::ZERO };
            }
            (Flaw::KeyedForever, EffectClass::Keyed { .. }) => command.class = EffectClass::Tx,
            (Flaw::AnyRequest, _) => command.fingerprint = [0; 32],
            (Flaw::NoApproval, _) => command.needs_approval = false,
            (_, _) => {}
        }
        let begun = now(self.inner.begin_step(command.clone()));
        if let Ok(StepBegun::Execute { attempt, epoch, .. } | StepBegun::Verify { attempt, epoch, .. }) = &begun {
            self.attempts.lock().unwrap().insert(place.clone(), (*epoch, *attempt));
        }
        match (self.flaw, &begun) {
            (Flaw::NoFenceOnBegin, Ok(StepBegun::Refused(MayNotBegin::Lost))) => self.begin_anyway(command),
            (Flaw::DoneAgain, Ok(StepBegun::Done { .. })) => {
                let (epoch, attempt) = (command.epoch.unwrap_or(Epoch(i64::MAX)), 9);
                say(Ok(StepBegun::Execute { attempt, epoch, deadline: Wall(0), decision: None }))
            }
            (_, _) => say(begun),
        }
    }

    fn end_step(&self, mut command: EndStep) -> Answer<StepEnded> {
        if self.flaw == Flaw::EndLost && command.ended == Ended::Done {
            return say(Ok(StepEnded::Done));
        }
        if self.flaw == Flaw::NoFenceOnEnd
            && let Some((epoch, attempt)) = self.attempts.lock().unwrap().get(&command.place)
        {
            (command.epoch, command.attempt) = (*epoch, *attempt);
        }
        self.inner.end_step(command)
    }
}

impl Flawed {
    /// With whatever claim the run has, or had last.
    fn begin_anyway(&self, mut command: BeginStep) -> Answer<StepBegun> {
        let Place::Step { run, .. } = &command.place else { return self.inner.begin_step(command) };
        let Some(epoch) = self.claims.lock().unwrap().get(run).copied() else { return self.inner.begin_step(command) };
        let _ = now(self.inner.beat_run(BeatRun { run: run.clone(), epoch, lease: Duration::from_secs(1) }));
        command.epoch = Some(epoch);
        self.inner.begin_step(command)
    }
}

impl PeopleStore for Flawed {
    pass_on! {
        open_escalation(command: OpenEscalation) -> Opened;
        escalations(filter: EscalationFilter, page: Page) -> EscalationPage;
        escalation(id: Arc<str>) -> Option<Escalation>;
        decide_escalation(command: DecideEscalation) -> Decided;
        due_escalations(command: DueEscalations) -> Vec<DueEscalation>;
        escalation_moved(command: EscalationMoved) -> Fenced;
        due_notices(command: DueNotices) -> Vec<Notice>;
        noticed(command: Noticed) -> Fenced;
        retry_notice(command: RetryNotice) -> Retried;
        audit(filter: AuditFilter, page: Page) -> AuditPage;
        verify_audit() -> AuditVerified;
    }
}

impl Store for Flawed {
    pass_on! {
        begin_call(command: BeginCall) -> Begun;
        renew_call(command: RenewCall) -> Fenced;
        end_call(command: EndCall) -> Fenced;
        enqueue(command: Enqueue) -> Enqueued;
        claim_queued(command: ClaimQueued) -> Option<ClaimedItem>;
        renew_queued(command: RenewQueued) -> Fenced;
        complete_queued(command: CompleteQueued) -> Fenced;
        fail_queued(command: FailQueued) -> Fenced;
        release_queued(command: ReleaseQueued) -> Fenced;
        queued(tenant: TenantId, id: Arc<str>) -> Option<QueuedView>;
        remember(command: Remember) -> ();
        recall(question: Recall) -> Option<Remembered>;
        ask_confirmation(command: AskConfirmation) -> Asked;
        take_confirmation(command: TakeConfirmation) -> Taken;
        due_deliveries(command: DueDeliveries) -> Vec<Delivery>;
        delivered(command: Delivered) -> Fenced;
        retry_delivery(command: RetryDelivery) -> Retried;
        sweep(limit: u32) -> Swept;
        health() -> StoreHealth;
        backup(path: PathBuf) -> BackedUp;
        check() -> Checked;
    }
}

impl Subject for Flaw {
    fn fresh(&mut self, limits: Limits, clock: Arc<dyn Clock>) -> Box<dyn Store> {
        let inner = MemoryStore::new(limits, clock);
        let (claims, attempts, signals) = (Mutex::default(), Mutex::default(), AtomicU32::new(1_000));
        Box::new(Flawed { flaw: *self, inner, claims, attempts, signals })
    }

    fn reopen(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
        store
    }
}

/// How short the first history that shows a difference could be made.
fn found_by_histories(subject: &mut dyn Subject) -> Option<usize> {
    (0..80).find_map(|seed| Some(block_on(compare(subject, Theme::Runs, seed, 300)).err()?.history.len()))
}

fn broken_promises(subject: &mut dyn Subject) -> Vec<&'static str> {
    let broken = |check: &Check, subject: &mut dyn Subject| {
        catch_unwind(AssertUnwindSafe(|| block_on(check(&mut Bench::new(subject))))).is_err()
    };
    let promises = RUN_SCENARIOS.iter().chain(STEP_SCENARIOS);
    promises.filter(|scenario| broken(&scenario.check, subject)).map(|scenario| scenario.promise).collect()
}

#[test]
fn a_back_end_without_a_flaw_passes() {
    assert_eq!(found_by_histories(&mut Flaw::None), None);
    assert_eq!(broken_promises(&mut Flaw::None), [""; 0]);
}

#[test]
fn every_flaw_in_keeping_runs_is_found_by_histories() {
    for mut flaw in Flaw::ALL {
        let length = found_by_histories(&mut flaw).unwrap_or_else(|| panic!("no history shows {flaw:?}"));
        assert!(length <= 25, "{flaw:?} needs {length} commands to be seen");
    }
}

#[test]
fn every_flaw_in_keeping_runs_breaks_a_promise() {
    for mut flaw in Flaw::ALL {
        assert_ne!(broken_promises(&mut flaw), [""; 0], "{flaw:?}");
    }
}

/// A SQLite store that loses something of its runs whenever it is reopened.
#[derive(Debug)]
struct Forgetful {
    inner: Sqlite,
    lost: &'static str,
}

impl Subject for Forgetful {
    fn fresh(&mut self, limits: Limits, clock: Arc<dyn Clock>) -> Box<dyn Store> {
        self.inner.fresh(limits, clock)
    }

    fn reopen(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
        let store = self.inner.reopen(store);
        Connection::open(self.inner.path()).unwrap().execute_batch(self.lost).unwrap();
        store
    }
}

#[test]
fn what_is_lost_of_a_run_when_the_store_reopens_is_found() {
    for lost in [
        "DELETE FROM steps WHERE step = (SELECT max(step) FROM steps)",
        "UPDATE steps SET state = 5 WHERE state = 0",
        "DELETE FROM effects WHERE effect = (SELECT max(effect) FROM effects)",
        "DELETE FROM inbox WHERE signal = (SELECT max(signal) FROM inbox)",
        "DELETE FROM ready",
        "UPDATE runs SET lease_until = 0 WHERE state = 1",
        "UPDATE runs SET barren = 0",
        "DELETE FROM workers",
    ] {
        let mut forgetful = Forgetful { inner: Sqlite::new(), lost };
        let found = (0..20).any(|seed| block_on(first_difference(&mut forgetful, Theme::Runs, seed, 200)).is_some());
        assert!(found, "{lost}");
    }
}
