//! The promises one by one.

use super::{ManualClock, NARROW, Subject};
use crate::{
    AskConfirmation, BeginCall, Begun, CallEnd, ClaimQueued, ClaimedItem, Clock, CompleteQueued, DecideEscalation,
    Decided, Delivered, DueDeliveries, EndCall, Enqueue, Enqueued, Epoch, EscalationState, Fenced, Limits, Occasion,
    OpenEscalation, Payload, QueueState, Recall, ReleaseQueued, Remember, RenewQueued, Retried, RetryDelivery, Store,
    StoreError, TakeConfirmation, Taken,
};
use outlast_model::{Failure, RouteId, TenantId, Wall, policy::Priority, run::Verb};
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

/// One promise: its sentence, and a check that panics where it is broken.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// The promise.
    pub promise: &'static str,
    /// Holds a back end to it.
    pub check: Check,
}

/// Runs on a store that is fresh and empty.
pub type Check = for<'a> fn(&'a mut Bench<'_>) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// A back end under test, its clock in hand.
pub struct Bench<'s> {
    subject: &'s mut dyn Subject,
    /// None only while it reopens.
    store: Option<Box<dyn Store>>,
    clock: Arc<ManualClock>,
    ids: AtomicU32,
}

impl<'s> Bench<'s> {
    /// A fresh store with roomy limits.
    pub fn new(subject: &'s mut dyn Subject) -> Self {
        let clock = ManualClock::start();
        let store = Some(subject.fresh(Limits::MEMORY, clock.clone()));
        Bench { subject, store, clock, ids: AtomicU32::new(0) }
    }

    /// A fresh store with other limits in place of the one before.
    pub(super) fn begin_anew(&mut self, limits: Limits) {
        drop(self.store.take());
        self.store = Some(self.subject.fresh(limits, self.clock.clone()));
    }

    pub(super) fn crash(&mut self) {
        self.store = self.store.take().map(|store| self.subject.reopen(store));
    }

    pub(super) fn time(&self) -> Wall {
        self.clock.now()
    }

    /// An id that no other has.
    pub(super) fn fresh_id(&self) -> Arc<str> {
        format!("id-{}", self.ids.fetch_add(1, Ordering::Relaxed)).into()
    }

    pub(super) fn pass(&self, millis: i64) {
        self.clock.advance(millis);
    }
}

impl std::ops::Deref for Bench<'_> {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        &**self.store.as_ref().expect("a bench has its store")
    }
}

macro_rules! scenarios {
    ($name:ident: $($promise:literal => $check:ident),* $(,)?) => {
        /// Promises that are checked one by one.
        pub const $name: &[Scenario] =
            &[$(Scenario { promise: $promise, check: |bench| Box::pin($check(bench)) }),*];
    };
}

pub(super) use scenarios;

scenarios! {
    SCENARIOS:
    "a key is executed once and then replayed" => executed_once,
    "a key with another question is a mismatch" => mismatch,
    "a call whose holder vanished is executed by the next, and its late end is fenced off" => vanished_call,
    "a released key is free" => released_key,
    "requests are claimed by priority and then by age, of the asked routes only" => claim_order,
    "a fenced worker can neither complete nor renew nor release" => fenced_worker,
    "a request is claimed by one worker at a time" => one_claim,
    "a released request waits out its back-off" => back_off,
    "a request that nobody could answer expires, and its webhook hears of it" => expiry,
    "a request that is being answered does not expire under the hands of its worker" => no_expiry_in_hand,
    "the delivery is written with the completion, and only with one that holds" => outbox,
    "a delivery is retried, and given up in the end" => delivery_given_up,
    "what was answered is still there after a crash" => nothing_lost,
    "the second decision loses, and learns of the first" => second_decision,
    "an escalation stays until it is decided" => escalation_stays,
    "a token answers once, for its tenant and its request, in time" => token_once,
    "the cache forgets the oldest first, and what is too old" => cache_bounds,
    "a full queue says so, and has room again once requests are gone" => queue_bounds,
    "one tenant's share is not another's" => shares,
    "a payload that is too large is refused and changes nothing" => too_large,
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn acme() -> TenantId {
    TenantId::new("acme")
}

fn other() -> TenantId {
    TenantId::new("other")
}

fn text(text: &str) -> Payload {
    Payload::new(text.as_bytes().to_vec())
}

fn begin(fingerprint: u8) -> BeginCall {
    BeginCall { tenant: acme(), key: "key".into(), fingerprint: [fingerprint; 32], lease: SECOND, keep: HOUR }
}

fn end(epoch: Epoch, end: CallEnd) -> EndCall {
    EndCall { tenant: acme(), key: "key".into(), epoch, end }
}

async fn executed(bench: &Bench<'_>) -> Epoch {
    match bench.begin_call(begin(1)).await {
        Ok(Begun::Execute { epoch }) => epoch,
        other => panic!("expected a claim, got {other:?}"),
    }
}

fn request(id: &str) -> Enqueue {
    Enqueue {
        id: id.into(),
        tenant: acme(),
        route: "support".into(),
        priority: Priority::Normal,
        payload: text(id),
        expires_in: HOUR,
        webhook: None,
    }
}

async fn enqueue(bench: &Bench<'_>, request: Enqueue) -> u64 {
    match bench.enqueue(request).await {
        Ok(Enqueued::Queued { position }) => position,
        other => panic!("expected a place in the queue, got {other:?}"),
    }
}

async fn claim(bench: &Bench<'_>) -> Option<ClaimedItem> {
    let routes: Vec<RouteId> = vec!["support".into()];
    bench.claim_queued(ClaimQueued { worker: "w".into(), routes, lease: SECOND }).await.expect("a claim")
}

async fn claimed(bench: &Bench<'_>) -> ClaimedItem {
    claim(bench).await.expect("a request to claim")
}

async fn complete(bench: &Bench<'_>, id: &str, epoch: Epoch) -> Fenced {
    bench.complete_queued(CompleteQueued { id: id.into(), epoch, reply: text("reply") }).await.expect("an end")
}

async fn state(bench: &Bench<'_>, id: &str) -> Option<QueueState> {
    bench.queued(acme(), id.into()).await.expect("a view").map(|view| view.state)
}

async fn due(bench: &Bench<'_>) -> Vec<crate::Delivery> {
    bench.due_deliveries(DueDeliveries { worker: "w".into(), lease: SECOND, limit: 10 }).await.expect("deliveries")
}

fn escalation(id: &str) -> OpenEscalation {
    OpenEscalation {
        id: id.into(),
        tenant: acme(),
        route: "support".into(),
        request_id: "req_1".into(),
        failure: Failure::Refusal,
        question: "May it?".into(),
        payload: text("context"),
        answer_within: None,
    }
}

/// A decision by somebody who was shown what there is.
async fn decision(bench: &Bench<'_>, by: &str, what: &str) -> DecideEscalation {
    let found = bench.escalation("esc".into()).await.expect("the inbox");
    let shown = found.map_or([0; 32], |found| found.summary.shown);
    let (id, by, decision) = ("esc".into(), by.into(), text(what));
    DecideEscalation { id, by, verb: Verb::Edit, shown, result: None, decision }
}

async fn executed_once(bench: &mut Bench<'_>) {
    let epoch = executed(bench).await;
    assert_eq!(bench.begin_call(begin(1)).await, Ok(Begun::InFlight { retry_after: SECOND }));
    assert_eq!(bench.end_call(end(epoch, CallEnd::Done(text("reply")))).await, Ok(Fenced::Held));
    assert_eq!(bench.begin_call(begin(1)).await, Ok(Begun::Replay(text("reply"))));
    assert_eq!(bench.end_call(end(epoch, CallEnd::Done(text("again")))).await, Ok(Fenced::Held));
    assert_eq!(bench.end_call(end(epoch, CallEnd::Failed(text("no")))).await, Ok(Fenced::Lost));
    assert_eq!(bench.begin_call(begin(1)).await, Ok(Begun::Replay(text("reply"))));
    bench.pass(3_600_000);
    assert!(executed(bench).await > epoch, "a key that is no longer kept begins anew, with a new epoch");
}

async fn mismatch(bench: &mut Bench<'_>) {
    let epoch = executed(bench).await;
    assert_eq!(bench.begin_call(begin(2)).await, Ok(Begun::Mismatch));
    assert_eq!(bench.end_call(end(epoch, CallEnd::Failed(text("no")))).await, Ok(Fenced::Held));
    assert_eq!(bench.begin_call(begin(2)).await, Ok(Begun::Mismatch));
    let of_another_tenant = BeginCall { tenant: other(), ..begin(2) };
    assert!(matches!(bench.begin_call(of_another_tenant).await, Ok(Begun::Execute { .. })));
}

async fn vanished_call(bench: &mut Bench<'_>) {
    let first = executed(bench).await;
    bench.pass(1_000);
    let second = executed(bench).await;
    assert!(second > first);
    assert_eq!(bench.end_call(end(first, CallEnd::Done(text("late")))).await, Ok(Fenced::Lost));
    assert_eq!(bench.end_call(end(second, CallEnd::Done(text("good")))).await, Ok(Fenced::Held));
    assert_eq!(bench.begin_call(begin(1)).await, Ok(Begun::Replay(text("good"))));
}

async fn released_key(bench: &mut Bench<'_>) {
    let first = executed(bench).await;
    assert_eq!(bench.end_call(end(first, CallEnd::Released)).await, Ok(Fenced::Held));
    let Ok(Begun::Execute { epoch }) = bench.begin_call(begin(2)).await else { panic!("the key is not free") };
    assert!(epoch > first);
    assert_eq!(bench.end_call(end(first, CallEnd::Released)).await, Ok(Fenced::Lost));
}

async fn claim_order(bench: &mut Bench<'_>) {
    for (id, priority, route) in [
        ("low", Priority::Low, "support"),
        ("first", Priority::Normal, "support"),
        ("second", Priority::Normal, "support"),
        ("elsewhere", Priority::Critical, "sales"),
        ("urgent", Priority::Critical, "support"),
    ] {
        enqueue(bench, Enqueue { priority, route: route.into(), ..request(id) }).await;
        bench.pass(1);
    }
    assert_eq!(state(bench, "second").await, Some(QueueState::Waiting { position: 4 }));
    let mut order = Vec::new();
    while let Some(item) = claim(bench).await {
        assert_eq!(item.payload, text(&item.id));
        order.push(item.id);
    }
    assert_eq!(order.iter().map(|id| &**id).collect::<Vec<_>>(), ["urgent", "first", "second", "low"]);
}

async fn fenced_worker(bench: &mut Bench<'_>) {
    enqueue(bench, request("q")).await;
    let zombie = claimed(bench).await.epoch;
    bench.pass(1_000);
    let item = claimed(bench).await;
    assert!(item.epoch > zombie && item.attempts == 2);
    assert_eq!(complete(bench, "q", zombie).await, Fenced::Lost);
    let renew = RenewQueued { id: "q".into(), epoch: zombie, lease: HOUR };
    assert_eq!(bench.renew_queued(renew).await, Ok(Fenced::Lost));
    let release = ReleaseQueued { id: "q".into(), epoch: zombie, after: SECOND };
    assert_eq!(bench.release_queued(release).await, Ok(Fenced::Lost));
    assert_eq!(state(bench, "q").await, Some(QueueState::Running));
    assert_eq!(complete(bench, "q", item.epoch).await, Fenced::Held);
    assert_eq!(complete(bench, "q", zombie).await, Fenced::Lost);
    assert_eq!(state(bench, "q").await, Some(QueueState::Done(text("reply"))));
}

async fn one_claim(bench: &mut Bench<'_>) {
    enqueue(bench, request("q")).await;
    let item = claimed(bench).await;
    assert_eq!(claim(bench).await, None);
    bench.pass(999);
    let renew = RenewQueued { id: "q".into(), epoch: item.epoch, lease: SECOND };
    assert_eq!(bench.renew_queued(renew).await, Ok(Fenced::Held));
    bench.pass(999);
    assert_eq!(claim(bench).await, None);
    bench.pass(1);
    assert_eq!(complete(bench, "q", item.epoch).await, Fenced::Held, "nobody took it meanwhile");
}

async fn back_off(bench: &mut Bench<'_>) {
    enqueue(bench, request("q")).await;
    let item = claimed(bench).await;
    let release = ReleaseQueued { id: "q".into(), epoch: item.epoch, after: SECOND };
    assert_eq!(bench.release_queued(release.clone()).await, Ok(Fenced::Held));
    assert_eq!(bench.release_queued(release).await, Ok(Fenced::Held), "repeated");
    assert_eq!(state(bench, "q").await, Some(QueueState::Waiting { position: 1 }));
    bench.pass(999);
    assert_eq!(claim(bench).await, None);
    bench.pass(1);
    assert_eq!(claimed(bench).await.attempts, 2);
}

async fn expiry(bench: &mut Bench<'_>) {
    enqueue(bench, Enqueue { expires_in: SECOND, webhook: Some("later".into()), ..request("q") }).await;
    bench.pass(1_000);
    assert_eq!(state(bench, "q").await, Some(QueueState::Expired));
    assert_eq!(claim(bench).await, None);
    assert_eq!(bench.sweep(10).await.expect("a sweep").expired, 1);
    let deliveries = due(bench).await;
    assert_eq!(deliveries.len(), 1);
    assert_eq!((&*deliveries[0].id, &deliveries[0].occasion), ("q", &Occasion::Expired));
    assert_eq!(state(bench, "q").await, Some(QueueState::Expired));
}

async fn no_expiry_in_hand(bench: &mut Bench<'_>) {
    enqueue(bench, Enqueue { expires_in: SECOND / 2, ..request("q") }).await;
    let item = claimed(bench).await;
    bench.pass(999);
    assert_eq!(state(bench, "q").await, Some(QueueState::Running));
    assert_eq!(bench.sweep(10).await.expect("a sweep").expired, 0);
    assert_eq!(complete(bench, "q", item.epoch).await, Fenced::Held);
}

async fn outbox(bench: &mut Bench<'_>) {
    enqueue(bench, Enqueue { webhook: Some("later".into()), ..request("q") }).await;
    let zombie = claimed(bench).await.epoch;
    bench.pass(1_000);
    let epoch = claimed(bench).await.epoch;
    assert_eq!(complete(bench, "q", zombie).await, Fenced::Lost);
    assert_eq!(due(bench).await, [], "nothing held, nothing to tell");
    assert_eq!(complete(bench, "q", epoch).await, Fenced::Held);
    assert_eq!(complete(bench, "q", epoch).await, Fenced::Held);
    bench.crash();
    let deliveries = due(bench).await;
    assert_eq!(deliveries.len(), 1, "one completion, one delivery");
    assert_eq!(deliveries[0].occasion, Occasion::Done(text("reply")));
    assert_eq!(due(bench).await, [], "it is claimed");
    let delivered = Delivered { id: "q".into(), epoch: deliveries[0].epoch };
    assert_eq!(bench.delivered(delivered.clone()).await, Ok(Fenced::Held));
    assert_eq!(bench.delivered(delivered).await, Ok(Fenced::Lost));
    bench.pass(5_000);
    assert_eq!(due(bench).await, []);
}

async fn delivery_given_up(bench: &mut Bench<'_>) {
    enqueue(bench, Enqueue { webhook: Some("later".into()), ..request("q") }).await;
    let epoch = claimed(bench).await.epoch;
    assert_eq!(complete(bench, "q", epoch).await, Fenced::Held);
    let most = Limits::MEMORY.delivery_attempts;
    for attempt in 1..=most {
        let deliveries = due(bench).await;
        assert_eq!(deliveries.iter().map(|delivery| delivery.attempts).collect::<Vec<_>>(), [attempt]);
        let retry = RetryDelivery { id: "q".into(), epoch: deliveries[0].epoch, after: SECOND };
        let expected = if attempt == most { Retried::GivenUp } else { Retried::Later };
        assert_eq!(bench.retry_delivery(retry).await, Ok(expected));
        assert_eq!(due(bench).await, [], "not before its time");
        bench.pass(1_000);
    }
    assert_eq!(due(bench).await, []);
    assert_eq!(bench.health().await.expect("health").deliveries_given_up, 1);
}

async fn nothing_lost(bench: &mut Bench<'_>) {
    let call = executed(bench).await;
    assert_eq!(bench.end_call(end(call, CallEnd::Done(text("kept")))).await, Ok(Fenced::Held));
    enqueue(bench, request("waiting")).await;
    enqueue(bench, Enqueue { priority: Priority::High, ..request("running") }).await;
    let item = claimed(bench).await;
    let (tenant, route, fingerprint) = (acme(), RouteId::new("support"), [1; 32]);
    let reply = Remember { tenant, route, fingerprint, payload: text("good"), keep: HOUR };
    bench.remember(reply).await.expect("a cached reply");
    bench.open_escalation(escalation("esc")).await.expect("an escalation");
    let ask = AskConfirmation {
        token_hash: [9; 32],
        tenant: acme(),
        fingerprint: [1; 32],
        route: "cheap".into(),
        expires_in: HOUR,
    };
    bench.ask_confirmation(ask).await.expect("a question");
    bench.crash();
    assert_eq!(bench.begin_call(begin(1)).await, Ok(Begun::Replay(text("kept"))));
    assert_eq!(state(bench, "waiting").await, Some(QueueState::Waiting { position: 1 }));
    assert_eq!(state(bench, "running").await, Some(QueueState::Running));
    assert_eq!(complete(bench, "running", item.epoch).await, Fenced::Held, "a claim outlives the store's process");
    let (tenant, route) = (acme(), RouteId::new("support"));
    let question = Recall { tenant, route, fingerprint: [1; 32], max_age: HOUR };
    assert_eq!(bench.recall(question).await.expect("the cache").map(|reply| reply.payload), Some(text("good")));
    let opened = bench.escalation("esc".into()).await.expect("the inbox").expect("the escalation");
    assert_eq!((opened.payload, opened.state), (text("context"), EscalationState::Open));
    assert!(claimed(bench).await.epoch > item.epoch, "epochs go on");
    let take = TakeConfirmation { token_hash: [9; 32], tenant: acme(), fingerprint: [1; 32] };
    assert_eq!(bench.take_confirmation(take).await, Ok(Taken::Yes { route: "cheap".into() }));
}

async fn second_decision(bench: &mut Bench<'_>) {
    bench.open_escalation(escalation("esc")).await.expect("an escalation");
    let first = decision(bench, "ann", "yes").await;
    assert_eq!(bench.decide_escalation(first.clone()).await, Ok(Decided::Stands));
    assert_eq!(bench.decide_escalation(first.clone()).await, Ok(Decided::Stands), "repeated");
    for (by, what) in [("bob", "no"), ("bob", "yes"), ("ann", "no")] {
        let late = decision(bench, by, what).await;
        let Ok(Decided::Already(first)) = bench.decide_escalation(late).await else { panic!("two decisions stand") };
        assert_eq!((&*first.by, first.decision), ("ann", text("yes")));
    }
    let unknown = DecideEscalation { id: "none".into(), ..first };
    assert_eq!(bench.decide_escalation(unknown).await, Ok(Decided::Unknown));
}

async fn escalation_stays(bench: &mut Bench<'_>) {
    assert!(bench.open_escalation(escalation("esc")).await.expect("an escalation").first);
    assert!(!bench.open_escalation(escalation("esc")).await.expect("an escalation").first);
    let of_another = OpenEscalation { tenant: other(), ..escalation("esc") };
    assert_eq!(bench.open_escalation(of_another).await, Err(StoreError::Taken { what: "escalation" }));
    bench.pass(1_000 * 24 * 3_600_000);
    assert_eq!(bench.sweep(10).await.expect("a sweep").removed, 0);
    assert_eq!(bench.health().await.expect("health").escalations_open, 1);
    let decide = decision(bench, "ann", "yes").await;
    assert_eq!(bench.decide_escalation(decide).await, Ok(Decided::Stands));
    bench.pass(30 * 24 * 3_600_000);
    assert_eq!(bench.escalation("esc".into()).await, Ok(None));
    assert_eq!(bench.sweep(10).await.expect("a sweep").removed, 1);
}

async fn token_once(bench: &mut Bench<'_>) {
    let ask = |token: u8| AskConfirmation {
        token_hash: [token; 32],
        tenant: acme(),
        fingerprint: [1; 32],
        route: "cheap".into(),
        expires_in: SECOND,
    };
    let take = |token: u8| TakeConfirmation { token_hash: [token; 32], tenant: acme(), fingerprint: [1; 32] };
    for token in [1, 2] {
        bench.ask_confirmation(ask(token)).await.expect("a question");
    }
    let of_another = TakeConfirmation { tenant: other(), ..take(1) };
    assert_eq!(bench.take_confirmation(of_another).await, Ok(Taken::Mismatch));
    let for_another = TakeConfirmation { fingerprint: [2; 32], ..take(1) };
    assert_eq!(bench.take_confirmation(for_another).await, Ok(Taken::Mismatch));
    assert_eq!(bench.take_confirmation(take(1)).await, Ok(Taken::Yes { route: "cheap".into() }));
    assert_eq!(bench.take_confirmation(take(1)).await, Ok(Taken::Unknown));
    bench.pass(1_000);
    assert_eq!(bench.take_confirmation(take(2)).await, Ok(Taken::Expired));
    assert_eq!(bench.take_confirmation(take(3)).await, Ok(Taken::Unknown));
}

async fn cache_bounds(bench: &mut Bench<'_>) {
    bench.begin_anew(NARROW);
    let remember = |question: u8| Remember {
        tenant: acme(),
        route: "support".into(),
        fingerprint: [question; 32],
        payload: text(&question.to_string()),
        keep: HOUR,
    };
    for question in 1..=4 {
        bench.remember(remember(question)).await.expect("a cached reply");
        bench.pass(1_000);
    }
    let recall = |question: u8, max_age| Recall {
        tenant: acme(),
        route: "support".into(),
        fingerprint: [question; 32],
        max_age,
    };
    assert_eq!(bench.recall(recall(1, HOUR)).await, Ok(None), "three is a tenant's share");
    let reply = bench.recall(recall(2, HOUR)).await.expect("the cache").expect("the second");
    assert_eq!((reply.payload, reply.age), (text("2"), SECOND * 3));
    assert_eq!(bench.recall(recall(2, SECOND * 2)).await, Ok(None));
    let of_another = Recall { tenant: other(), ..recall(2, HOUR) };
    assert_eq!(bench.recall(of_another).await, Ok(None));
}

async fn queue_bounds(bench: &mut Bench<'_>) {
    bench.begin_anew(NARROW);
    for number in 1..=5 {
        assert_eq!(enqueue(bench, request(&format!("q{number}"))).await, number);
    }
    assert_eq!(bench.enqueue(request("q6")).await, Ok(Enqueued::Full { of_tenant: true }));
    assert_eq!(enqueue(bench, request("q5")).await, 5, "one that is in stays in");
    for number in 6..=8 {
        enqueue(bench, Enqueue { tenant: other(), ..request(&format!("q{number}")) }).await;
    }
    let one_more = Enqueue { tenant: other(), ..request("q9") };
    assert_eq!(bench.enqueue(one_more).await, Ok(Enqueued::Full { of_tenant: false }));
    let item = claimed(bench).await;
    assert_eq!(complete(bench, &item.id, item.epoch).await, Fenced::Held);
    assert_eq!(bench.enqueue(request("q10")).await, Ok(Enqueued::Full { of_tenant: true }), "its answer is still kept");
    bench.pass(5_000);
    enqueue(bench, request("q10")).await;
}

async fn shares(bench: &mut Bench<'_>) {
    bench.begin_anew(NARROW);
    let key = |tenant: TenantId, number: u8| BeginCall { tenant, key: format!("key-{number}").into(), ..begin(1) };
    for number in 0..4 {
        assert!(matches!(bench.begin_call(key(acme(), number)).await, Ok(Begun::Execute { .. })));
    }
    let error = bench.begin_call(key(acme(), 4)).await.unwrap_err();
    assert_eq!(error, StoreError::LimitReached { what: "idempotency keys", of_tenant: true });
    assert!(matches!(bench.begin_call(key(other(), 4)).await, Ok(Begun::Execute { .. })));
    bench.pass(3_600_000);
    assert!(matches!(bench.begin_call(key(acme(), 4)).await, Ok(Begun::Execute { .. })), "the old ones made room");
}

async fn too_large(bench: &mut Bench<'_>) {
    bench.begin_anew(NARROW);
    let large = || Payload::from(vec![0; 65]);
    let refused = StoreError::TooLarge { bytes: 65, limit: 64 };
    assert_eq!(bench.enqueue(Enqueue { payload: large(), ..request("q") }).await, Err(refused.clone()));
    assert_eq!(state(bench, "q").await, None);
    let epoch = executed(bench).await;
    assert_eq!(bench.end_call(end(epoch, CallEnd::Done(large()))).await, Err(refused));
    assert_eq!(bench.end_call(end(epoch, CallEnd::Done(text("small")))).await, Ok(Fenced::Held));
}
