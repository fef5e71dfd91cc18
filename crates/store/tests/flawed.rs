//! Checks of the checker: back ends with one flaw each, which the conformance suite has to find.

mod common;

use common::{Sqlite, block_on};
use outlast_store::{
    conformance::{Bench, Check, PEOPLE_SCENARIOS, SCENARIOS, Subject, Theme, compare, first_difference},
    *,
};
use rusqlite::Connection;
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

/// What is wrong with a back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// A late worker's end is taken for the present one's.
    NoFence,
    /// A confirmation's token works twice.
    TokenTwice,
    /// A completion keeps a reply of its own in place of the one it was given.
    OtherReply,
    /// Renewing a lease does nothing.
    DeafHeartbeat,
    /// Everybody's cache is everybody's.
    SharedCache,
    /// A decision holds whatever its person was shown.
    BlindDecision,
}

/// A store that passes everything on, but for its flaw.
#[derive(Debug)]
struct Flawed {
    flaw: Flaw,
    inner: Box<dyn Store>,
    claims: Mutex<BTreeMap<Arc<str>, Epoch>>,
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

impl PeopleStore for Flawed {
    pass_on! {
        open_escalation(command: OpenEscalation) -> Opened;
        escalations(filter: EscalationFilter, page: Page) -> EscalationPage;
        escalation(id: Arc<str>) -> Option<Escalation>;
        due_escalations(command: DueEscalations) -> Vec<DueEscalation>;
        escalation_moved(command: EscalationMoved) -> Fenced;
        due_notices(command: DueNotices) -> Vec<Notice>;
        noticed(command: Noticed) -> Fenced;
        retry_notice(command: RetryNotice) -> Retried;
        audit(filter: AuditFilter, page: Page) -> AuditPage;
        verify_audit() -> AuditVerified;
    }

    fn decide_escalation(&self, mut command: DecideEscalation) -> Answer<Decided> {
        if self.flaw == Flaw::BlindDecision
            && let Ok(Some(found)) = now(self.inner.escalation(command.id.clone()))
        {
            command.shown = found.summary.shown;
        }
        self.inner.decide_escalation(command)
    }
}

impl RunStore for Flawed {
    pass_on! {
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
        now() -> outlast_model::Wall;
    }
}

impl Store for Flawed {
    pass_on! {
        begin_call(command: BeginCall) -> Begun;
        renew_call(command: RenewCall) -> Fenced;
        end_call(command: EndCall) -> Fenced;
        enqueue(command: Enqueue) -> Enqueued;
        fail_queued(command: FailQueued) -> Fenced;
        release_queued(command: ReleaseQueued) -> Fenced;
        queued(tenant: outlast_model::TenantId, id: Arc<str>) -> Option<QueuedView>;
        ask_confirmation(command: AskConfirmation) -> Asked;
        due_deliveries(command: DueDeliveries) -> Vec<Delivery>;
        delivered(command: Delivered) -> Fenced;
        retry_delivery(command: RetryDelivery) -> Retried;
        sweep(limit: u32) -> Swept;
        health() -> StoreHealth;
        backup(path: PathBuf) -> BackedUp;
        check() -> Checked;
    }

    fn claim_queued(&self, command: ClaimQueued) -> Answer<Option<ClaimedItem>> {
        let claimed = now(self.inner.claim_queued(command));
        if let Ok(Some(item)) = &claimed {
            self.claims.lock().unwrap().insert(item.id.clone(), item.epoch);
        }
        Box::pin(std::future::ready(claimed))
    }

    fn renew_queued(&self, command: RenewQueued) -> Answer<Fenced> {
        if self.flaw == Flaw::DeafHeartbeat {
            return Box::pin(std::future::ready(Ok(Fenced::Held)));
        }
        self.inner.renew_queued(command)
    }

    fn complete_queued(&self, mut command: CompleteQueued) -> Answer<Fenced> {
        if self.flaw == Flaw::NoFence
            && let Some(epoch) = self.claims.lock().unwrap().get(&command.id)
        {
            command.epoch = *epoch;
        }
        if self.flaw == Flaw::OtherReply {
            let again = CompleteQueued { reply: Payload::from(b"late".to_vec()), ..command.clone() };
            let _ = now(self.inner.complete_queued(again));
        }
        self.inner.complete_queued(command)
    }

    fn remember(&self, mut command: Remember) -> Answer<()> {
        if self.flaw == Flaw::SharedCache {
            command.tenant = "everybody".into();
        }
        self.inner.remember(command)
    }

    fn recall(&self, mut question: Recall) -> Answer<Option<Remembered>> {
        if self.flaw == Flaw::SharedCache {
            question.tenant = "everybody".into();
        }
        self.inner.recall(question)
    }

    fn take_confirmation(&self, command: TakeConfirmation) -> Answer<Taken> {
        let taken = now(self.inner.take_confirmation(command.clone()));
        if self.flaw == Flaw::TokenTwice
            && let Ok(Taken::Yes { route }) = &taken
        {
            let TakeConfirmation { token_hash, tenant, fingerprint } = command;
            let expires_in = std::time::Duration::from_secs(60);
            let again = AskConfirmation { token_hash, tenant, fingerprint, route: route.clone(), expires_in };
            let _ = now(self.inner.ask_confirmation(again));
        }
        Box::pin(std::future::ready(taken))
    }
}

impl Subject for Flaw {
    fn fresh(&mut self, limits: Limits, clock: Arc<dyn Clock>) -> Box<dyn Store> {
        let inner = Box::new(MemoryStore::new(limits, clock));
        Box::new(Flawed { flaw: *self, inner, claims: Mutex::default() })
    }

    fn reopen(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
        store
    }
}

/// A SQLite store that loses the newest row of one kind whenever it is reopened.
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

/// The seed of the first history that shows a difference, and how short it could be made.
fn found_by_histories(subject: &mut dyn Subject) -> Option<(u64, usize)> {
    (0..60).find_map(|seed| {
        let difference = block_on(compare(subject, Theme::Gateway, seed, 250)).err()?;
        Some((seed, difference.history.len()))
    })
}

fn broken_promises(subject: &mut dyn Subject) -> Vec<&'static str> {
    let broken = |check: &Check, subject: &mut dyn Subject| {
        catch_unwind(AssertUnwindSafe(|| block_on(check(&mut Bench::new(subject))))).is_err()
    };
    let promises = SCENARIOS.iter().chain(PEOPLE_SCENARIOS);
    promises.filter(|scenario| broken(&scenario.check, subject)).map(|scenario| scenario.promise).collect()
}

#[test]
fn a_back_end_without_a_flaw_passes() {
    assert_eq!(found_by_histories(&mut Flaw::None), None);
    assert_eq!(broken_promises(&mut Flaw::None), [""; 0]);
}

#[test]
fn every_flaw_is_found_by_histories_and_by_a_promise() {
    for mut flaw in
        [Flaw::NoFence, Flaw::TokenTwice, Flaw::OtherReply, Flaw::DeafHeartbeat, Flaw::SharedCache, Flaw::BlindDecision]
    {
        let found = found_by_histories(&mut flaw);
        let (_, length) = found.unwrap_or_else(|| panic!("no history shows {flaw:?}"));
        assert!(length <= 20, "{flaw:?} needs {length} commands to be seen");
        assert_ne!(broken_promises(&mut flaw), [""; 0], "{flaw:?}");
    }
}

#[test]
fn a_row_that_is_lost_when_the_store_reopens_is_found() {
    for lost in [
        "DELETE FROM calls WHERE rowid = (SELECT max(rowid) FROM calls)",
        "DELETE FROM queue WHERE sequence = (SELECT max(sequence) FROM queue)",
        "DELETE FROM deliveries",
        "UPDATE epochs SET last = last - 1",
    ] {
        let mut forgetful = Forgetful { inner: Sqlite::new(), lost };
        let found = (0..10).any(|seed| block_on(first_difference(&mut forgetful, Theme::Gateway, seed, 150)).is_some());
        assert!(found, "{lost}");
    }
}
