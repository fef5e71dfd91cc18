//! The promises about steps and effects, one by one.

use super::{
    durable::{
        AGAIN, HOUR, QUIET, SECOND, VERIFY, acme, alone, asked, begin, claimed, decides, does, done, effect, end,
        executes, going, nothing_to_claim, of, open_escalations, parks, run, start, started, state, step, text, view,
        waits,
    },
    scenarios::{Bench, Scenario, scenarios},
};
use crate::{
    BeginStep, Bound, CancelRun, Cancelling, ClaimUnknown, DecideEscalation, Decided, Epoch, Fenced, FinishRun, Limits,
    Payload, RenewStep, Room, StartRun, StepBegun, StepEnded, StoreError, UnknownEffect,
};
use outlast_engine::run::{Ended, MayNotBegin, Proof};
use outlast_model::run::{EffectClass, EscalationKind, Exhausted, LedgerState, RetryBudget, RunState, Verb};
use std::time::Duration;

scenarios! {
    STEP_SCENARIOS:
    "a step's result is committed once, and then returned forever" => committed_once,
    "a key with another request is a mismatch, and a changed pure step is told and marked" => mismatch,
    "whoever has lost the lease begins nothing" => fenced_begin,
    "a step with a claim of its own may be fenced by its run's claim too" => fenced_own_claim,
    "a zombie's end is refused once another has begun the step" => zombie,
    "a late but true end is taken while nobody has begun the step anew" => late_end,
    "what is said twice is written once and answered alike" => said_twice,
    "an unknown effect of class once waits for a person, who says that it happened" => once_happened,
    "an unknown effect of class once is tried again only when a person says that it did not happen" => once_did_not,
    "nobody is asked about an effect while it can still be on its way" => once_not_too_early,
    "keyed is repeated while its receiver knows the key, and not blindly later" => keyed,
    "verify asks only when lease, deadline and quiet period have passed" => verify,
    "a lease kept by heartbeats counts for the quiet period, too" => verify_after_heartbeats,
    "a step that failed is tried again within its budget, and then waits for a person" => budget,
    "a step that failed for good says so forever" => failed_for_good,
    "an approval comes before the intent, is for what was shown, and is given once" => approval,
    "one business key is one effect, whichever run or program names it" => one_effect,
    "a run that waits for another's effect goes on when a person has decided" => shared_wait,
    "a program's own claim on an effect is kept by heartbeats, and ends" => own_claim,
    "effects with claims of their own are looked after when their holder is gone" => looked_after,
    "an unknown effect is decided before a cancelled run goes on" => cancelled_with_unknown,
    "cancelling closes what waits for a person only as part of the run" => cancel_closes,
    "an effect's key is known for as long as was promised, and while a run that did it goes on" => effect_retention,
    "limits of effects say so and change nothing" => limits,
}

const ONCE: EffectClass = EffectClass::Once;
const TX: EffectClass = EffectClass::Tx;
const PURE: EffectClass = EffectClass::Pure;

async fn committed_once(bench: &mut Bench<'_>) {
    let epoch = going(bench).await;
    for class in [PURE, TX, VERIFY, ONCE] {
        does(bench, step(bench, class.name(), class, epoch), class.name()).await;
    }
    for _ in 0..3 {
        bench.pass(1_000);
        bench.crash();
        let epoch = claimed(bench, "w").await.epoch;
        for class in [PURE, TX, VERIFY, ONCE] {
            assert_eq!(begin(bench, step(bench, class.name(), class, epoch)).await, done(class.name()));
            assert_eq!(end(bench, of(class.name()), (1, epoch), Ended::Done, "other").await, StepEnded::Stale);
        }
    }
    assert_eq!(view(bench).await.steps, 4);
}

async fn mismatch(bench: &mut Bench<'_>) {
    let epoch = going(bench).await;
    let other = |bench: &Bench<'_>, key, class| BeginStep { fingerprint: [2; 32], ..step(bench, key, class, epoch) };
    does(bench, step(bench, "effect", TX, epoch), "done").await;
    assert_eq!(begin(bench, other(bench, "effect", TX)).await, StepBegun::Mismatch);
    does(bench, step(bench, "pure", PURE, epoch), "done").await;
    let told = StepBegun::Done { result: text("done"), diverged: true };
    assert_eq!(begin(bench, other(bench, "pure", PURE)).await, told);
    let strict = BeginStep { strict: true, ..other(bench, "pure", PURE) };
    assert_eq!(begin(bench, strict).await, StepBegun::Mismatch);
    let step = bench.step(of("pure")).await.expect("an answer").expect("a step");
    assert_eq!((step.divergences, step.state), (1, LedgerState::Done));
}

async fn fenced_begin(bench: &mut Bench<'_>) {
    let epoch = going(bench).await;
    bench.pass(1_000);
    let lost = StepBegun::Refused(MayNotBegin::Lost);
    assert_eq!(begin(bench, step(bench, "s", TX, epoch)).await, lost, "the lease has run out");
    let next = claimed(bench, "v").await.epoch;
    assert_eq!(begin(bench, step(bench, "s", TX, epoch)).await, lost, "the run is somebody else's");
    assert_eq!(bench.step(of("s")).await, Ok(None), "nothing was written");
    executes(bench, step(bench, "s", TX, next)).await;
    let nobody =
        BeginStep { place: crate::Place::Step { run: run("nobody"), key: "s".into() }, ..step(bench, "s", TX, next) };
    assert_eq!(begin(bench, nobody).await, StepBegun::NoRun);
}

async fn fenced_own_claim(bench: &mut Bench<'_>) {
    let epoch = going(bench).await;
    let own =
        |bench: &Bench<'_>, key, fence| BeginStep { epoch: None, fence: Some(fence), ..step(bench, key, TX, epoch) };
    let (attempt, claim) = executes(bench, own(bench, "s", epoch)).await;
    assert_ne!(claim, epoch, "its claim is its own");
    assert_eq!(end(bench, of("s"), (attempt, claim), Ended::Done, "result").await, StepEnded::Done);
    bench.pass(1_000);
    let lost = StepBegun::Refused(MayNotBegin::Lost);
    assert_eq!(begin(bench, own(bench, "t", epoch)).await, lost, "the lease has run out: it was not renewed by this");
    let next = claimed(bench, "v").await.epoch;
    assert_eq!(begin(bench, own(bench, "t", epoch)).await, lost, "the run is somebody else's");
    assert_eq!(bench.step(of("t")).await, Ok(None), "nothing was written");
    executes(bench, own(bench, "t", next)).await;
}

async fn zombie(bench: &mut Bench<'_>) {
    let epoch = going(bench).await;
    let first = executes(bench, step(bench, "s", TX, epoch)).await;
    bench.pass(1_000);
    let next = claimed(bench, "v").await.epoch;
    let second = executes(bench, step(bench, "s", TX, next)).await;
    assert_eq!((first.0, second.0), (1, 2));
    assert_eq!(end(bench, of("s"), first, Ended::Done, "zombie").await, StepEnded::Stale);
    assert_eq!(state(bench, of("s")).await, LedgerState::Intent);
    assert_eq!(end(bench, of("s"), second, Ended::Done, "true").await, StepEnded::Done);
    assert_eq!(end(bench, of("s"), first, Ended::Done, "zombie").await, StepEnded::Stale);
    assert_eq!(begin(bench, step(bench, "s", TX, next)).await, done("true"));
}

async fn late_end(bench: &mut Bench<'_>) {
    let epoch = going(bench).await;
    let attempt = executes(bench, step(bench, "s", ONCE, epoch)).await;
    bench.pass(60_000);
    let next = claimed(bench, "v").await.epoch;
    assert_eq!(end(bench, of("s"), attempt, Ended::Done, "late").await, StepEnded::Done);
    assert_eq!(begin(bench, step(bench, "s", ONCE, next)).await, done("late"));
}

async fn said_twice(bench: &mut Bench<'_>) {
    let epoch = going(bench).await;
    let one_attempt = RetryBudget { attempts: 1, ..RetryBudget::default() };
    let ends = [Ended::Done, AGAIN, Ended::Unknown, Ended::Failed(Proof::Final)];
    for (at, ended) in ends.into_iter().enumerate() {
        let key = format!("s{at}");
        let command = step(bench, &key, VERIFY, epoch);
        let attempt = executes(bench, command.clone()).await;
        assert_eq!(executes(bench, command).await, attempt);
        let first = end(bench, of(&key), attempt, ended, "first").await;
        assert_eq!(end(bench, of(&key), attempt, ended, "again").await, first);
        let step = bench.step(of(&key)).await.expect("an answer").expect("a step");
        assert_eq!((step.payload, step.spent.as_nanos()), (text("first"), 1), "{ended:?}");
    }
    let last = BeginStep { budget: one_attempt, ..step(bench, "last", TX, epoch) };
    let attempt = executes(bench, last).await;
    let parked = end(bench, of("last"), attempt, AGAIN, "error").await;
    assert_eq!(end(bench, of("last"), attempt, AGAIN, "error").await, parked);
    assert_eq!((open_escalations(bench).await, view(bench).await.state), (1, RunState::Parked));
}

/// An effect of class once that nobody knows the outcome of.
async fn unknown_once(bench: &Bench<'_>) -> std::sync::Arc<str> {
    let epoch = going(bench).await;
    let attempt = executes(bench, step(bench, "mail", ONCE, epoch)).await;
    let StepEnded::Parked { why, escalation } = end(bench, of("mail"), attempt, Ended::Unknown, "timeout").await else {
        panic!("an unknown effect has to wait for a person");
    };
    assert_eq!(why, EscalationKind::UnknownEffect);
    let run = view(bench).await;
    assert_eq!((run.state, run.lease_until, run.waits_at.as_deref()), (RunState::Parked, None, Some("mail")));
    assert_eq!(run.parked, Some((EscalationKind::UnknownEffect, escalation.clone())));
    escalation
}

async fn once_happened(bench: &mut Bench<'_>) {
    let escalation = unknown_once(bench).await;
    bench.crash();
    bench.pass(30 * 24 * 3_600_000);
    nothing_to_claim(bench, "w").await;
    decides(bench, &escalation, Verb::Happened, Some("message 7")).await;
    let epoch = claimed(bench, "w").await.epoch;
    assert_eq!(begin(bench, step(bench, "mail", ONCE, epoch)).await, done("message 7"));
}

async fn once_did_not(bench: &mut Bench<'_>) {
    let escalation = unknown_once(bench).await;
    decides(bench, &escalation, Verb::DidNot, None).await;
    let epoch = claimed(bench, "w").await.epoch;
    let begun = begin(bench, step(bench, "mail", ONCE, epoch)).await;
    let StepBegun::Execute { attempt: 2, epoch, decision, .. } = begun else { panic!("{begun:?}") };
    assert_eq!(decision, Some(text("because")));
    assert_eq!(end(bench, of("mail"), (2, epoch), Ended::Done, "sent").await, StepEnded::Done);
    assert_eq!(open_escalations(bench).await, 0);
}

async fn once_not_too_early(bench: &mut Bench<'_>) {
    let epoch = going(bench).await;
    let slow = BeginStep { call_deadline: SECOND * 30, ..step(bench, "mail", ONCE, epoch) };
    executes(bench, slow).await;
    bench.pass(1_000);
    let epoch = claimed(bench, "v").await.epoch;
    let (after, unknown) = waits(bench, step(bench, "mail", ONCE, epoch)).await;
    assert_eq!((after, unknown, open_escalations(bench).await), (Duration::from_millis(29_001), true, 0));
    bench.pass(29_001);
    let epoch = claimed(bench, "v").await.epoch;
    parks(bench, step(bench, "mail", ONCE, epoch)).await;
    assert_eq!(open_escalations(bench).await, 1);
}

async fn keyed(bench: &mut Bench<'_>) {
    let class = EffectClass::Keyed { key_ttl: SECOND * 60, verify: None };
    for (key, passes, repeats) in [("young", 57_000, true), ("old", 59_000, false)] {
        bench.begin_anew(Limits::MEMORY);
        let epoch = going(bench).await;
        executes(bench, step(bench, key, class, epoch)).await;
        bench.pass(passes);
        let epoch = claimed(bench, "v").await.epoch;
        if repeats {
            assert_eq!(executes(bench, step(bench, key, class, epoch)).await.0, 2);
        } else {
            parks(bench, step(bench, key, class, epoch)).await;
        }
    }
}

async fn verify(bench: &mut Bench<'_>) {
    let epoch = going(bench).await;
    executes(bench, step(bench, "s", VERIFY, epoch)).await;
    bench.pass(1_000);
    let epoch = claimed(bench, "v").await.epoch;
    // The call may take until 2 s; then 5 s of quiet.
    assert_eq!(waits(bench, step(bench, "s", VERIFY, epoch)).await, (SECOND * 6, true));
    bench.pass(5_999);
    let epoch = claimed(bench, "v").await.epoch;
    assert_eq!(waits(bench, step(bench, "s", VERIFY, epoch)).await.0, Duration::from_millis(1));
    bench.pass(1);
    let begun = begin(bench, step(bench, "s", VERIFY, epoch)).await;
    assert_eq!(begun, StepBegun::Verify { attempt: 1, epoch, input: text("input") });
    let absent = end(bench, of("s"), (1, epoch), AGAIN, "").await;
    assert_eq!(absent, StepEnded::Again { after: Duration::ZERO });
    assert_eq!(executes(bench, step(bench, "s", VERIFY, epoch)).await.0, 2);
}

async fn verify_after_heartbeats(bench: &mut Bench<'_>) {
    let epoch = going(bench).await;
    executes(bench, step(bench, "s", VERIFY, epoch)).await;
    for _ in 0..10 {
        bench.pass(900);
        let beat = crate::BeatRun { run: run("r"), epoch, lease: SECOND };
        assert_eq!(bench.beat_run(beat).await, Ok(crate::Beaten::Held));
    }
    bench.pass(1_000);
    let epoch = claimed(bench, "v").await.epoch;
    assert_eq!(waits(bench, step(bench, "s", VERIFY, epoch)).await, (QUIET, true));
}

async fn budget(bench: &mut Bench<'_>) {
    let epoch = going(bench).await;
    let two = RetryBudget { attempts: 2, ..RetryBudget::default() };
    let command = |bench: &Bench<'_>, epoch| BeginStep { budget: two, ..step(bench, "s", TX, epoch) };
    let attempt = executes(bench, command(bench, epoch)).await;
    let StepEnded::Again { after } = end(bench, of("s"), attempt, AGAIN, "refused").await else { panic!("no retry") };
    assert!(after >= SECOND / 2 && after <= SECOND, "{after:?}");
    assert_eq!(waits(bench, command(bench, epoch)).await, (after, false));
    bench.pass(after.as_millis() as i64);
    let epoch =
        if view(bench).await.lease_until <= Some(bench.time()) { claimed(bench, "w").await.epoch } else { epoch };
    let attempt = executes(bench, command(bench, epoch)).await;
    let StepEnded::Parked { why, escalation } = end(bench, of("s"), attempt, AGAIN, "refused").await else {
        panic!("a budget that never ends");
    };
    assert_eq!(why, EscalationKind::Exhausted);
    decides(bench, &escalation, Verb::Retry, None).await;
    let epoch = claimed(bench, "w").await.epoch;
    assert_eq!(executes(bench, command(bench, epoch)).await.0, 3, "a fresh budget");
}

async fn failed_for_good(bench: &mut Bench<'_>) {
    let epoch = going(bench).await;
    let attempt = executes(bench, step(bench, "s", TX, epoch)).await;
    assert_eq!(end(bench, of("s"), attempt, Ended::Failed(Proof::Final), "no").await, StepEnded::Failed);
    let failed = StepBegun::Failed { error: Some(text("no")), diverged: false };
    assert_eq!(begin(bench, step(bench, "s", TX, epoch)).await, failed);
    let last = RetryBudget { attempts: 1, exhausted: Exhausted::Fail, ..RetryBudget::default() };
    let attempt = executes(bench, BeginStep { budget: last, ..step(bench, "t", TX, epoch) }).await;
    assert_eq!(end(bench, of("t"), attempt, AGAIN, "not now").await, StepEnded::Failed);
    bench.crash();
    let failed = StepBegun::Failed { error: Some(text("not now")), diverged: false };
    assert_eq!(begin(bench, step(bench, "t", TX, epoch)).await, failed);
}

async fn approval(bench: &mut Bench<'_>) {
    let epoch = going(bench).await;
    let wants = |bench: &Bench<'_>, epoch| BeginStep { needs_approval: true, ..step(bench, "pay", TX, epoch) };
    let escalation = parks(bench, wants(bench, epoch)).await;
    let escalated = bench.escalation(escalation.clone()).await.expect("an answer").expect("an escalation");
    assert_eq!((escalated.fingerprint, escalated.attempts), ([1; 32], 0));
    let decide = |shown, verb| DecideEscalation {
        id: escalation.clone(),
        by: "anna".into(),
        verb,
        shown,
        result: None,
        decision: text("fine"),
    };
    let shown = escalated.summary.shown;
    assert_eq!(bench.decide_escalation(decide([0; 32], Verb::Approve)).await, Ok(Decided::Changed));
    assert_eq!(bench.decide_escalation(decide(shown, Verb::Happened)).await, Ok(Decided::NotOffered));
    assert_eq!(bench.decide_escalation(decide(shown, Verb::Approve)).await, Ok(Decided::Stands));
    let second = bench.decide_escalation(decide(shown, Verb::Deny)).await;
    assert!(matches!(second, Ok(Decided::Already(first)) if first.verb == Verb::Approve));
    let epoch = claimed(bench, "w").await.epoch;
    let changed = BeginStep { fingerprint: [2; 32], ..wants(bench, epoch) };
    assert_eq!(begin(bench, changed).await, StepBegun::Mismatch);
    executes(bench, wants(bench, epoch)).await;
}

/// The effect, as a step of this run.
fn shared(bench: &Bench<'_>, id: &str, epoch: Epoch) -> BeginStep {
    let journal = Some((run(id), "charge".into()));
    BeginStep { place: effect("7"), journal, ..step(bench, "charge", ONCE, epoch) }
}

async fn one_effect(bench: &mut Bench<'_>) {
    let first = going(bench).await;
    started(bench, start("other")).await;
    let second = claimed(bench, "v").await.epoch;
    let attempt = executes(bench, shared(bench, "r", first)).await;
    let busy = begin(bench, shared(bench, "other", second)).await;
    assert!(matches!(busy, StepBegun::InFlight { .. }), "{busy:?}");
    assert_eq!(end(bench, effect("7"), attempt, Ended::Done, "charged").await, StepEnded::Done);
    assert_eq!(begin(bench, shared(bench, "other", second)).await, done("charged"));
    assert_eq!(begin(bench, alone(bench, "7", ONCE)).await, done("charged"));
    let changed = BeginStep { fingerprint: [2; 32], ..alone(bench, "7", ONCE) };
    assert_eq!(begin(bench, changed).await, StepBegun::Mismatch);
    let journal = bench.journal(run("other"), 0, 10).await.expect("a page").steps;
    assert_eq!((&*journal[0].key, &journal[0].payload), ("charge", &text("charged")));
    let elsewhere = begin(bench, step(bench, "charge", ONCE, first)).await;
    assert_eq!(elsewhere, StepBegun::Mismatch, "the step is kept in the ledger");
}

async fn shared_wait(bench: &mut Bench<'_>) {
    let first = going(bench).await;
    started(bench, start("other")).await;
    let second = claimed(bench, "v").await.epoch;
    let attempt = executes(bench, shared(bench, "r", first)).await;
    let StepEnded::Parked { escalation, .. } = end(bench, effect("7"), attempt, Ended::Unknown, "").await else {
        panic!("an unknown effect has to wait for a person");
    };
    assert_eq!(parks(bench, shared(bench, "other", second)).await, escalation, "one effect, one question");
    decides(bench, &escalation, Verb::Happened, Some("charged")).await;
    for _ in 0..2 {
        let next = claimed(bench, "w").await;
        assert_eq!(begin(bench, shared(bench, next.run.run.id.as_str(), next.epoch)).await, done("charged"));
    }
}

async fn own_claim(bench: &mut Bench<'_>) {
    let attempt = executes(bench, alone(bench, "7", ONCE)).await;
    for _ in 0..5 {
        bench.pass(900);
        let renew = RenewStep { place: effect("7"), epoch: attempt.1, lease: SECOND };
        assert_eq!(bench.renew_step(renew).await, Ok(Fenced::Held));
        let busy = begin(bench, alone(bench, "7", ONCE)).await;
        assert_eq!(busy, StepBegun::InFlight { after: SECOND });
    }
    bench.crash();
    assert_eq!(end(bench, effect("7"), attempt, Ended::Done, "charged").await, StepEnded::Done);
    let renew = RenewStep { place: effect("7"), epoch: attempt.1, lease: SECOND };
    assert_eq!(bench.renew_step(renew).await, Ok(Fenced::Lost));
    assert_eq!(begin(bench, alone(bench, "7", ONCE)).await, done("charged"));
}

async fn unattended(bench: &Bench<'_>) -> Vec<UnknownEffect> {
    let if_parked = vec![asked(bench), asked(bench)];
    bench.claim_unknown(ClaimUnknown { lease: SECOND, limit: 10, if_parked }).await.expect("an answer")
}

async fn looked_after(bench: &mut Bench<'_>) {
    executes(bench, alone(bench, "asked", VERIFY)).await;
    executes(bench, alone(bench, "parked", ONCE)).await;
    executes(bench, alone(bench, "repeated", TX)).await;
    let epoch = going(bench).await;
    executes(bench, step(bench, "fenced", ONCE, epoch)).await;
    assert_eq!(unattended(bench).await, []);
    bench.pass(2_001);
    assert_eq!(unattended(bench).await, []);
    assert_eq!(state(bench, effect("parked")).await, LedgerState::Parked);
    assert_eq!(open_escalations(bench).await, 1);
    bench.pass(4_998);
    assert_eq!(unattended(bench).await, [], "the quiet period");
    bench.pass(1);
    let given = unattended(bench).await;
    assert_eq!(given.iter().map(|one| (&one.place, one.attempt)).collect::<Vec<_>>(), [(&effect("asked"), 1)]);
    assert_eq!(unattended(bench).await, [], "it is claimed");
    let question = (1, given[0].epoch);
    assert_eq!(end(bench, effect("asked"), question, Ended::Done, "found").await, StepEnded::Done);
    assert_eq!(begin(bench, alone(bench, "asked", VERIFY)).await, done("found"));
    assert_eq!(executes(bench, alone(bench, "repeated", TX)).await.0, 2);
    assert_eq!(state(bench, of("fenced")).await, LedgerState::Intent, "that is its run's next holder's");
}

async fn cancelled_with_unknown(bench: &mut Bench<'_>) {
    let escalation = unknown_once(bench).await;
    let cancel = CancelRun { run: run("r"), by: "anna".into() };
    assert_eq!(bench.cancel_run(cancel).await, Ok(Cancelling::Asked));
    assert_eq!((view(bench).await.state, open_escalations(bench).await), (RunState::Parked, 1));
    nothing_to_claim(bench, "w").await;
    decides(bench, &escalation, Verb::DidNot, None).await;
    assert_eq!(view(bench).await.state, RunState::Cancelled, "nothing to undo");
}

async fn cancel_closes(bench: &mut Bench<'_>) {
    let epoch = going(bench).await;
    let wants = BeginStep { needs_approval: true, ..step(bench, "pay", TX, epoch) };
    parks(bench, wants).await;
    let cancel = CancelRun { run: run("r"), by: "anna".into() };
    assert_eq!(bench.cancel_run(cancel).await, Ok(Cancelling::Cancelled));
    assert_eq!(open_escalations(bench).await, 0);
    assert_eq!(state(bench, of("pay")).await, LedgerState::FailedFinal);
}

async fn effect_retention(bench: &mut Bench<'_>) {
    let keys = Limits::MEMORY.key_keep.as_millis() as i64;
    let payloads = Limits::MEMORY.payload_keep.as_millis() as i64;
    let epoch = going(bench).await;
    does(bench, shared(bench, "r", epoch), "charged").await;
    bench.pass(2 * keys);
    bench.sweep(100).await.expect("a sweep");
    let epoch = claimed(bench, "w").await.epoch;
    assert_eq!(begin(bench, shared(bench, "r", epoch)).await, done("charged"), "its run goes on");
    let finish = FinishRun { run: run("r"), epoch: Some(epoch), state: RunState::Done, output: text("") };
    assert_eq!(bench.finish_run(finish).await, Ok(Fenced::Held));
    bench.pass(payloads);
    bench.sweep(100).await.expect("a sweep");
    assert_eq!(begin(bench, alone(bench, "7", ONCE)).await, done(""), "that it was done is still known");
    bench.pass(keys - payloads);
    bench.sweep(100).await.expect("a sweep");
    assert_eq!(bench.step(effect("7")).await, Ok(None));
    executes(bench, alone(bench, "8", ONCE)).await;
    bench.pass(2 * keys);
    bench.sweep(100).await.expect("a sweep");
    assert_eq!(state(bench, effect("8")).await, LedgerState::Intent, "what has not ended stays");
}

async fn limits(bench: &mut Bench<'_>) {
    let room = Bound { rows: 1, bytes: 1_000 };
    bench.begin_anew(Limits { effects: Room { whole: room, tenant: room }, payload_bytes: 100, ..Limits::MEMORY });
    does(bench, alone(bench, "7", ONCE), "charged").await;
    let full = bench.begin_step(alone(bench, "8", ONCE)).await;
    assert_eq!(full, Err(StoreError::LimitReached { what: "effects", of_tenant: true }));
    assert_eq!(bench.step(effect("8")).await, Ok(None));
    assert_eq!(begin(bench, alone(bench, "7", ONCE)).await, done("charged"));
    let large = BeginStep { input: Payload::from(vec![0; 101]), ..alone(bench, "8", ONCE) };
    assert_eq!(bench.begin_step(large).await, Err(StoreError::TooLarge { bytes: 101, limit: 100 }));
    let unclaimed = StartRun { unclaimed: true, deadline: Some(HOUR), ..start("r") };
    started(bench, unclaimed).await;
    assert_eq!(view(bench).await.run.tenant, acme());
}
