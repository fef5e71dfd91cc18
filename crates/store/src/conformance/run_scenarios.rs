//! The promises about runs, one by one.

use super::{
    durable::{
        HOUR, SECOND, acme, asked, begin, claim, claimed, decides, does, done, executes, going, nothing_to_claim, run,
        start, started, step, text, view, wait,
    },
    scenarios::{Bench, Scenario, scenarios},
};
use crate::{
    Accepts, BeatRun, Beaten, Bound, CancelRun, Cancelling, ClaimRun, DrainWorker, Epoch, Fenced, FinishRun, Limits,
    MigrateRun, Page, Payload, ReleaseRun, Room, RunEnd, RunFilter, SeeWorker, SignalRun, Signalled, StartRun, Started,
    StepBegun, StoreError, Waited,
};
use outlast_engine::run::{MayNotBegin, POISON_CLAIMS};
use outlast_model::{
    Usd,
    policy::Priority,
    run::{EffectClass, EscalationKind, RunState, StepKind, Verb},
};
use std::{sync::Arc, time::Duration};

scenarios! {
    RUN_SCENARIOS:
    "to start a run again starts nothing new" => started_once,
    "a run is held by one worker at a time, and by the next once its lease has run out" => one_holder,
    "a heartbeat keeps the lease, and one that comes too late is told so" => heartbeat,
    "runs are claimed by priority and then by how long they have been due, of the asked queues only" => claim_order,
    "a run is pinned to its version, and claimed only by those who accept it, until it is migrated" => pinned,
    "five claims without progress hand a run to a person" => poison,
    "progress is what keeps a run that is claimed often from being poison" => no_poison,
    "a run given back waits out its delay" => given_back,
    "a signal that came before the wait is not missed, and the same one counts once" => early_signal,
    "a signal wakes the run that waits for it, and no other" => late_signal,
    "a timer ends a wait, and what ended it stands" => timer,
    "a run that waits holds no lease" => waits_without_lease,
    "a standby steps in where the others are gone, and for what they lost" => standby,
    "a draining worker claims nothing and is told to" => draining,
    "a run ends once, and its end can be fetched" => ends_once,
    "a cancelled run that did nothing is over at once" => cancelled_at_once,
    "a cancelled run begins nothing new, undoes what it did, and ends" => cancelled_and_undone,
    "a run that is late or out of money begins nothing new, and is still told what is done" => overdue,
    "a program without claims journals, and no worker is given its run" => unclaimed,
    "nothing of a run that was answered is lost in a crash" => nothing_lost,
    "what has not ended is never purged, and what has is kept for as long as was promised" => retention,
    "limits of runs and signals say so and change nothing" => limits,
}

async fn signal(bench: &Bench<'_>, name: &str, dedupe: &str) -> Signalled {
    let command = SignalRun { run: run("r"), dedupe: dedupe.into(), name: name.into(), payload: text(dedupe) };
    bench.signal_run(command).await.expect("an answer")
}

async fn beat(bench: &Bench<'_>, epoch: Epoch) -> Beaten {
    bench.beat_run(BeatRun { run: run("r"), epoch, lease: SECOND }).await.expect("an answer")
}

async fn finish(bench: &Bench<'_>, epoch: Option<Epoch>, state: RunState, output: &str) -> Fenced {
    let command = FinishRun { run: run("r"), epoch, state, output: text(output) };
    bench.finish_run(command).await.expect("an answer")
}

async fn release(bench: &Bench<'_>, epoch: Epoch, after: Duration) -> Fenced {
    bench.release_run(ReleaseRun { run: run("r"), epoch, after }).await.expect("an answer")
}

async fn cancel(bench: &Bench<'_>) -> Cancelling {
    bench.cancel_run(CancelRun { run: run("r"), by: "anna".into() }).await.expect("an answer")
}

fn came(dedupe: &str, name: &str) -> Waited {
    Waited::Signal { name: name.into(), payload: text(dedupe) }
}

async fn started_once(bench: &mut Bench<'_>) {
    let key: Arc<str> = "key".into();
    let keyed = |id, hash| StartRun { key: Some((key.clone(), [hash; 32])), ..start(id) };
    started(bench, keyed("first", 1)).await;
    assert_eq!(bench.start_run(keyed("second", 1)).await, Ok(Started::Before(run("first").id)));
    assert_eq!(bench.start_run(keyed("second", 2)).await, Ok(Started::Mismatch));
    assert_eq!(bench.run(run("second")).await, Ok(None));
    started(bench, start("r")).await;
    assert_eq!(bench.start_run(start("r")).await, Ok(Started::Before(run("r").id)));
    let other = StartRun { input: text("other"), ..start("r") };
    assert_eq!(bench.start_run(other).await, Ok(Started::Mismatch));
    bench.crash();
    assert_eq!(bench.start_run(keyed("third", 1)).await, Ok(Started::Before(run("first").id)));
}

async fn one_holder(bench: &mut Bench<'_>) {
    started(bench, start("r")).await;
    let first = claimed(bench, "a").await;
    assert_eq!((first.input, first.run.state), (text("r"), RunState::Running));
    nothing_to_claim(bench, "b").await;
    bench.pass(999);
    nothing_to_claim(bench, "b").await;
    bench.pass(1);
    let second = claimed(bench, "b").await;
    assert!(second.epoch > first.epoch);
    assert_eq!(second.run.worker.as_deref(), Some("b"));
    assert_eq!(release(bench, first.epoch, Duration::ZERO).await, Fenced::Lost);
    assert_eq!(finish(bench, Some(first.epoch), RunState::Done, "no").await, Fenced::Lost);
    assert_eq!(wait(bench, first.epoch, "wait", &["go"], None).await, Waited::Refused(MayNotBegin::Lost));
    assert_eq!(finish(bench, Some(second.epoch), RunState::Done, "yes").await, Fenced::Held);
}

async fn heartbeat(bench: &mut Bench<'_>) {
    let epoch = going(bench).await;
    for _ in 0..5 {
        bench.pass(900);
        assert_eq!(beat(bench, epoch).await, Beaten::Held);
        nothing_to_claim(bench, "b").await;
    }
    bench.pass(1_000);
    assert_eq!(beat(bench, epoch).await, Beaten::Held, "nobody took it meanwhile");
    bench.pass(1_000);
    claimed(bench, "b").await;
    assert_eq!(beat(bench, epoch).await, Beaten::Lost);
}

async fn claim_order(bench: &mut Bench<'_>) {
    for (id, priority, queue, after) in [
        ("low", Priority::Low, "work", 0),
        ("later", Priority::Normal, "work", 50),
        ("first", Priority::Normal, "work", 0),
        ("second", Priority::Normal, "work", 0),
        ("elsewhere", Priority::Critical, "other", 0),
        ("urgent", Priority::Critical, "work", 0),
    ] {
        let (queue, after) = (queue.into(), Duration::from_millis(after));
        started(bench, StartRun { priority, queue, after, ..start(id) }).await;
        bench.pass(1);
    }
    bench.pass(100);
    let mut order = Vec::new();
    while let Some(claimed) = bench.claim_run(claim(bench, "w")).await.expect("a claim") {
        order.push(claimed.run.run.id.as_str().to_owned());
    }
    assert_eq!(order, ["urgent", "first", "second", "later", "low"]);
}

async fn pinned(bench: &mut Bench<'_>) {
    started(bench, start("r")).await;
    let accepts = |version: &str| vec![Accepts { workflow: "refund".into(), versions: vec![version.into()] }];
    let newer = |bench: &Bench<'_>| ClaimRun { accepts: accepts("2"), ..claim(bench, "new") };
    assert_eq!(bench.claim_run(newer(bench)).await, Ok(None));
    let migrate = MigrateRun { run: run("r"), version: "2".into(), by: "anna".into() };
    let epoch = claimed(bench, "old").await.epoch;
    assert_eq!(bench.migrate_run(migrate.clone()).await, Ok(Fenced::Lost), "it is held");
    bench.pass(1_000);
    assert_eq!(bench.migrate_run(migrate.clone()).await, Ok(Fenced::Held));
    assert_eq!(bench.migrate_run(migrate).await, Ok(Fenced::Held), "said once more");
    assert_eq!(beat(bench, epoch).await, Beaten::Lost, "who held it must not go on in the old version");
    let old = ClaimRun { accepts: accepts("1"), ..claim(bench, "old") };
    assert_eq!(bench.claim_run(old).await, Ok(None));
    let claimed = bench.claim_run(newer(bench)).await.expect("a claim").expect("a run");
    assert_eq!(&*claimed.run.version, "2");
}

async fn poison(bench: &mut Bench<'_>) {
    started(bench, start("r")).await;
    for time in 0..POISON_CLAIMS {
        assert_eq!(claimed(bench, "w").await.run.barren, time + 1);
        bench.pass(1_000);
    }
    nothing_to_claim(bench, "w").await;
    let (why, escalation) = view(bench).await.parked.expect("a person to ask");
    assert_eq!((view(bench).await.state, why), (RunState::Quarantined, EscalationKind::Poison));
    bench.pass(3_600_000);
    nothing_to_claim(bench, "w").await;
    decides(bench, &escalation, Verb::Retry, None).await;
    assert_eq!(claimed(bench, "w").await.run.barren, 1);
}

async fn no_poison(bench: &mut Bench<'_>) {
    started(bench, start("r")).await;
    for time in 0..POISON_CLAIMS * 2 {
        let epoch = claimed(bench, "w").await.epoch;
        does(bench, step(bench, &format!("step {time}"), EffectClass::Pure, epoch), "done").await;
        bench.pass(1_000);
    }
    assert_eq!(claimed(bench, "w").await.run.steps, u64::from(POISON_CLAIMS) * 2);
}

async fn given_back(bench: &mut Bench<'_>) {
    let epoch = going(bench).await;
    assert_eq!(release(bench, epoch, SECOND * 5).await, Fenced::Held);
    assert_eq!(release(bench, epoch, SECOND * 5).await, Fenced::Held, "said once more");
    let refused = StepBegun::Refused(MayNotBegin::Lost);
    assert_eq!(begin(bench, step(bench, "s", EffectClass::Pure, epoch)).await, refused);
    bench.pass(4_999);
    nothing_to_claim(bench, "w").await;
    bench.pass(1);
    claimed(bench, "w").await;
}

async fn early_signal(bench: &mut Bench<'_>) {
    started(bench, start("r")).await;
    assert_eq!(signal(bench, "other", "0").await, Signalled::Accepted);
    assert_eq!(signal(bench, "paid", "1").await, Signalled::Accepted);
    assert_eq!(signal(bench, "paid", "1").await, Signalled::Before);
    assert_eq!(signal(bench, "paid", "2").await, Signalled::Accepted);
    bench.crash();
    let epoch = claimed(bench, "w").await.epoch;
    assert_eq!(wait(bench, epoch, "first", &["paid"], None).await, came("1", "paid"));
    assert_eq!(wait(bench, epoch, "first", &["paid"], None).await, came("1", "paid"), "said once more");
    assert_eq!(wait(bench, epoch, "second", &["paid", "other"], None).await, came("0", "other"), "the oldest first");
    assert_eq!(wait(bench, epoch, "third", &["paid"], None).await, came("2", "paid"));
    assert_eq!(signal(bench, "paid", "1").await, Signalled::Before, "given on, and still the same");
    assert_eq!(wait(bench, epoch, "fourth", &["paid"], None).await, Waited::Parked);
}

async fn late_signal(bench: &mut Bench<'_>) {
    let epoch = going(bench).await;
    started(bench, start("bystander")).await;
    let bystander = claimed(bench, "w").await;
    assert_eq!(wait(bench, epoch, "pay", &["paid"], Some(HOUR)).await, Waited::Parked);
    assert_eq!(signal(bench, "unpaid", "0").await, Signalled::Accepted);
    assert_eq!((view(bench).await.state, view(bench).await.waits_at.as_deref()), (RunState::Waiting, Some("pay")));
    bench.crash();
    assert_eq!(signal(bench, "paid", "1").await, Signalled::Accepted);
    let next = claimed(bench, "w").await;
    assert_eq!(next.run.run, run("r"));
    assert_eq!(next.journal.steps.last().map(|step| step.signal.as_deref()), Some(Some("paid")));
    assert_eq!(wait(bench, next.epoch, "pay", &["paid"], Some(HOUR)).await, came("1", "paid"));
    assert_eq!(bystander.run.run, run("bystander"));
    let unknown = SignalRun { run: run("nobody"), dedupe: "1".into(), name: "paid".into(), payload: text("") };
    assert_eq!(bench.signal_run(unknown).await, Ok(Signalled::Unknown));
}

async fn timer(bench: &mut Bench<'_>) {
    let epoch = going(bench).await;
    assert_eq!(wait(bench, epoch, "nap", &["paid"], Some(SECOND * 60)).await, Waited::Parked);
    bench.pass(59_999);
    nothing_to_claim(bench, "w").await;
    bench.crash();
    bench.pass(1);
    let epoch = claimed(bench, "w").await.epoch;
    assert_eq!(signal(bench, "paid", "1").await, Signalled::Accepted);
    assert_eq!(wait(bench, epoch, "nap", &["paid"], Some(SECOND * 60)).await, Waited::Timer);
    assert_eq!(wait(bench, epoch, "next", &["paid"], Some(SECOND * 60)).await, came("1", "paid"));
    assert_eq!(wait(bench, epoch, "none", &[], Some(Duration::ZERO)).await, Waited::Timer, "it is over already");
}

async fn waits_without_lease(bench: &mut Bench<'_>) {
    let epoch = going(bench).await;
    assert_eq!(wait(bench, epoch, "pay", &["paid"], None).await, Waited::Parked);
    assert_eq!(wait(bench, epoch, "pay", &["paid"], None).await, Waited::Parked, "said once more");
    assert_eq!(view(bench).await.lease_until, None);
    assert_eq!(beat(bench, epoch).await, Beaten::Lost);
    let refused = StepBegun::Refused(MayNotBegin::Lost);
    assert_eq!(begin(bench, step(bench, "s", EffectClass::Pure, epoch)).await, refused);
    bench.pass(30 * 24 * 3_600_000);
    nothing_to_claim(bench, "w").await;
    assert_eq!(view(bench).await.state, RunState::Waiting);
}

async fn standby(bench: &mut Bench<'_>) {
    let gone = Limits::MEMORY.worker_gone.as_millis() as i64;
    let reserve = |bench: &Bench<'_>| ClaimRun { standby: true, ..claim(bench, "reserve") };
    started(bench, start("r")).await;
    started(bench, start("s")).await;
    claimed(bench, "w").await;
    assert_eq!(bench.claim_run(reserve(bench)).await, Ok(None), "somebody is there for it");
    bench.pass(1_000);
    let lost = bench.claim_run(reserve(bench)).await.expect("a claim").expect("the lost run");
    assert_eq!(lost.run.run, run("r"));
    assert_eq!(bench.claim_run(reserve(bench)).await, Ok(None));
    bench.pass(gone - 1_000);
    let left = bench.claim_run(reserve(bench)).await.expect("a claim").expect("a run that nobody is there for");
    assert!([run("r"), run("s")].contains(&left.run.run));
}

async fn draining(bench: &mut Bench<'_>) {
    let see = SeeWorker {
        tenant: None,
        worker: "w".into(),
        label: "blue".into(),
        queues: vec!["work".into()],
        accepts: Vec::new(),
        standby: false,
    };
    bench.see_worker(see).await.expect("an answer");
    let epoch = going(bench).await;
    started(bench, start("s")).await;
    let drain = DrainWorker { tenant: None, worker: "w".into(), gone: false };
    assert_eq!(bench.drain_worker(drain.clone()).await, Ok(true));
    assert_eq!(beat(bench, epoch).await, Beaten::Drain);
    nothing_to_claim(bench, "w").await;
    let workers = bench.workers().await.expect("workers");
    assert_eq!((&*workers[0].label, workers[0].draining, workers[0].holds.len()), ("blue", true, 1));
    assert_eq!(bench.drain_worker(DrainWorker { gone: true, ..drain.clone() }).await, Ok(true));
    assert_eq!(bench.drain_worker(drain).await, Ok(false));
}

async fn ends_once(bench: &mut Bench<'_>) {
    let epoch = going(bench).await;
    assert_eq!(bench.run_end(run("r")).await, Ok(None));
    assert_eq!(finish(bench, Some(epoch), RunState::Done, "result").await, Fenced::Held);
    assert_eq!(finish(bench, Some(epoch), RunState::Done, "result").await, Fenced::Held, "said once more");
    assert_eq!(finish(bench, Some(epoch), RunState::Failed, "no").await, Fenced::Lost);
    assert_eq!(finish(bench, Some(epoch), RunState::Done, "other").await, Fenced::Lost);
    bench.crash();
    let end = RunEnd { state: RunState::Done, output: text("result") };
    assert_eq!(bench.run_end(run("r")).await, Ok(Some(end)));
    assert_eq!(cancel(bench).await, Cancelling::Over(RunState::Done));
    assert_eq!(signal(bench, "late", "1").await, Signalled::Over);
    bench.pass(3_600_000);
    nothing_to_claim(bench, "w").await;
}

async fn cancelled_at_once(bench: &mut Bench<'_>) {
    started(bench, start("r")).await;
    assert_eq!(cancel(bench).await, Cancelling::Cancelled);
    assert_eq!(cancel(bench).await, Cancelling::Over(RunState::Cancelled));
    nothing_to_claim(bench, "w").await;
    let nobody = CancelRun { run: run("nobody"), by: "anna".into() };
    assert_eq!(bench.cancel_run(nobody).await, Ok(Cancelling::Unknown));
}

async fn cancelled_and_undone(bench: &mut Bench<'_>) {
    let epoch = going(bench).await;
    let undoable = crate::BeginStep { undo: Some(text("undo it")), ..step(bench, "charge", EffectClass::Tx, epoch) };
    does(bench, undoable, "charged").await;
    assert_eq!(cancel(bench).await, Cancelling::Asked);
    assert_eq!(cancel(bench).await, Cancelling::Asked, "said once more");
    assert_eq!(beat(bench, epoch).await, Beaten::Cancel);
    let refused = StepBegun::Refused(MayNotBegin::Cancelled);
    assert_eq!(begin(bench, step(bench, "more", EffectClass::Tx, epoch)).await, refused);
    assert_eq!(wait(bench, epoch, "wait", &["go"], None).await, Waited::Refused(MayNotBegin::Cancelled));
    assert_eq!(begin(bench, step(bench, "charge", EffectClass::Tx, epoch)).await, done("charged"));
    bench.pass(1_000);
    let next = claimed(bench, "w").await;
    assert!(next.run.cancelling, "whoever claims it hears of it");
    let undo = crate::BeginStep {
        kind: StepKind::Undo,
        undoes: Some("charge".into()),
        ..step(bench, "undo/charge", EffectClass::Tx, next.epoch)
    };
    does(bench, undo, "uncharged").await;
    assert_eq!(finish(bench, Some(next.epoch), RunState::Cancelled, "").await, Fenced::Held);
    assert_eq!(view(bench).await.state, RunState::Cancelled);
}

async fn overdue(bench: &mut Bench<'_>) {
    let limited = StartRun { deadline: Some(SECOND * 5), cost_max: Some(Usd::from_nanos(1)), ..start("r") };
    started(bench, limited).await;
    let epoch = claimed(bench, "w").await.epoch;
    does(bench, step(bench, "dear", EffectClass::Pure, epoch), "done").await;
    let broke = StepBegun::Refused(MayNotBegin::OverBudget);
    assert_eq!(begin(bench, step(bench, "more", EffectClass::Pure, epoch)).await, broke);
    assert_eq!(begin(bench, step(bench, "dear", EffectClass::Pure, epoch)).await, done("done"));
    bench.pass(5_000);
    let epoch = claimed(bench, "w").await.epoch;
    let late = StepBegun::Refused(MayNotBegin::Overdue);
    assert_eq!(begin(bench, step(bench, "more", EffectClass::Pure, epoch)).await, late);
    assert_eq!(begin(bench, step(bench, "dear", EffectClass::Pure, epoch)).await, done("done"));
    assert_eq!(finish(bench, Some(epoch), RunState::Failed, "late").await, Fenced::Held);
}

async fn unclaimed(bench: &mut Bench<'_>) {
    started(bench, StartRun { unclaimed: true, ..start("r") }).await;
    nothing_to_claim(bench, "w").await;
    let journaled =
        |bench: &Bench<'_>| crate::BeginStep { epoch: None, ..step(bench, "llm/1", EffectClass::Pure, Epoch(0)) };
    does(bench, journaled(bench), "answer").await;
    assert_eq!(begin(bench, journaled(bench)).await, done("answer"));
    bench.pass(3_600_000);
    nothing_to_claim(bench, "w").await;
    assert_eq!(finish(bench, None, RunState::Done, "result").await, Fenced::Held);
    assert_eq!(finish(bench, None, RunState::Done, "result").await, Fenced::Held, "said once more");
    assert_eq!(begin(bench, journaled(bench)).await, done("answer"), "what is done is told for as long as it is kept");
    started(bench, start("claimed")).await;
    let other = FinishRun { run: run("claimed"), epoch: None, state: RunState::Done, output: text("") };
    assert_eq!(bench.finish_run(other).await, Ok(Fenced::Lost));
}

async fn nothing_lost(bench: &mut Bench<'_>) {
    let epoch = going(bench).await;
    does(bench, step(bench, "first", EffectClass::Once, epoch), "done").await;
    let under_way = executes(bench, step(bench, "second", EffectClass::Tx, epoch)).await;
    assert_eq!(signal(bench, "paid", "1").await, Signalled::Accepted);
    bench.crash();
    assert_eq!(beat(bench, epoch).await, Beaten::Held);
    assert_eq!(executes(bench, step(bench, "second", EffectClass::Tx, epoch)).await, under_way);
    assert_eq!(wait(bench, epoch, "pay", &["paid"], None).await, came("1", "paid"));
    bench.pass(1_000);
    let next = claimed(bench, "w").await;
    let keys: Vec<_> = next.journal.steps.iter().map(|step| (step.sequence, &*step.key)).collect();
    assert_eq!(keys, [(1, "first"), (2, "second"), (3, "pay")]);
    assert_eq!(next.journal.steps[0].payload, text("done"));
    let page = bench.journal(run("r"), 1, 1).await.expect("a page");
    assert_eq!((&*page.steps[0].key, page.next), ("second", Some(2)));
}

async fn retention(bench: &mut Bench<'_>) {
    let (payloads, keys) = (Limits::MEMORY.payload_keep.as_millis(), Limits::MEMORY.key_keep.as_millis());
    let epoch = going(bench).await;
    does(bench, step(bench, "s", EffectClass::Once, epoch), "done").await;
    bench.pass(3 * keys as i64);
    bench.sweep(100).await.expect("a sweep");
    let epoch = claimed(bench, "w").await.epoch;
    assert_eq!(begin(bench, step(bench, "s", EffectClass::Once, epoch)).await, done("done"), "years are nothing");
    assert_eq!(finish(bench, Some(epoch), RunState::Done, "result").await, Fenced::Held);
    bench.pass(payloads as i64 - 1);
    bench.sweep(100).await.expect("a sweep");
    assert_eq!(bench.run_input(run("r")).await, Ok(Some(text("r"))));
    bench.pass(1);
    assert_eq!(bench.run_input(run("r")).await, Ok(None));
    let bare = RunEnd { state: RunState::Done, output: Payload::default() };
    assert_eq!(bench.run_end(run("r")).await, Ok(Some(bare)));
    bench.sweep(100).await.expect("a sweep");
    assert_eq!(bench.start_run(start("r")).await, Ok(Started::Before(run("r").id)), "its name is still known");
    bench.pass((keys - payloads) as i64);
    assert_eq!(bench.run(run("r")).await, Ok(None));
    started(bench, start("r")).await;
}

async fn limits(bench: &mut Bench<'_>) {
    let room = Bound { rows: 2, bytes: 1_000 };
    let runs = Room { whole: room, tenant: room };
    bench.begin_anew(Limits { runs, steps: 1, signals: 1, payload_bytes: 100, ..Limits::MEMORY });
    let epoch = going(bench).await;
    started(bench, start("s")).await;
    let full = |what, of_tenant| Err(StoreError::LimitReached { what, of_tenant });
    assert_eq!(bench.start_run(start("t")).await, full("runs", true));
    assert_eq!(bench.run(run("t")).await, Ok(None));
    let large = StartRun { input: Payload::from(vec![0; 101]), ..start("t") };
    assert_eq!(bench.start_run(large).await, Err(StoreError::TooLarge { bytes: 101, limit: 100 }));
    does(bench, step(bench, "one", EffectClass::Pure, epoch), "done").await;
    let two = bench.begin_step(step(bench, "two", EffectClass::Pure, epoch)).await;
    assert_eq!(two, Err(StoreError::LimitReached { what: "steps of this run", of_tenant: false }));
    assert_eq!(begin(bench, step(bench, "one", EffectClass::Pure, epoch)).await, done("done"));
    assert_eq!(signal(bench, "paid", "1").await, Signalled::Accepted);
    assert_eq!(signal(bench, "paid", "2").await, Signalled::Full);
    assert_eq!(signal(bench, "paid", "1").await, Signalled::Before);
    let all = bench.runs(RunFilter { tenant: Some(acme()), ..RunFilter::default() }, Page { after: None, size: 1 });
    let page = all.await.expect("a page");
    assert_eq!((page.runs[0].run.clone(), page.next.is_some()), (run("s"), true), "the newest first");
    assert_eq!(finish(bench, Some(epoch), RunState::Done, "").await, Fenced::Held);
    let _ = asked(bench);
}
