//! Who may advance a run: events and times in, answers out.

mod run_world;

use outlast_engine::run::{Answer, Beat, Claimed, Ended, Head, MayNotBegin, POISON_CLAIMS};
use outlast_model::{
    Usd, Wall,
    run::{EffectClass, RunState},
};
use run_world::{NOW, ONCE, PURE, TX, ask, at, begin, end, entry};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn head() -> Head {
    Head::new(NOW, None, None)
}

/// Claimed at 0 with epoch 1, for 1 s.
fn held() -> Head {
    let mut head = head();
    assert_eq!(head.claim(1, SECOND, at(0)), Claimed::Granted);
    head
}

#[test]
fn a_run_is_claimed_when_it_is_due_and_not_while_it_is_held() {
    let mut head = Head::new(at(100), None, None);
    assert_eq!(head.claim(1, SECOND, at(99)), Claimed::NotDue);
    assert_eq!(head.claim(1, SECOND, at(100)), Claimed::Granted);
    assert_eq!(head.claim(2, SECOND, at(1_099)), Claimed::NotDue);
    assert_eq!(head.claim(2, SECOND, at(1_100)), Claimed::Granted);
    assert_eq!((head.epoch, head.claimable_from()), (2, Some(at(2_100))));
}

#[test]
fn to_begin_needs_the_epoch_and_a_lease_that_has_not_run_out() {
    let mut head = held();
    assert_eq!(head.may_begin(1, false, at(999)), Ok(()));
    assert_eq!(head.may_begin(2, false, at(0)), Err(MayNotBegin::Lost));
    assert_eq!(head.may_begin(1, false, at(1_000)), Err(MayNotBegin::Lost));
    assert_eq!(head.beat(1, SECOND, at(1_000)), Beat::Held, "nobody took it meanwhile");
    assert_eq!(head.may_begin(1, false, at(1_999)), Ok(()));
    assert_eq!(head.claim(2, SECOND, at(2_000)), Claimed::Granted);
    assert_eq!(head.beat(1, SECOND, at(2_000)), Beat::Lost);
}

#[test]
fn a_heartbeat_never_shortens_a_lease() {
    let mut head = held();
    assert_eq!(head.beat(1, Duration::from_secs(9), at(0)), Beat::Held);
    assert_eq!(head.beat(1, SECOND, at(0)), Beat::Held);
    assert_eq!(head.lease_until, at(9_000));
}

#[test]
fn every_way_to_let_go_ends_the_claim() {
    let ways: [fn(&mut Head); 4] = [
        |head| head.release(Duration::ZERO, NOW),
        |head| head.wait(None),
        Head::park,
        |head| head.finish(RunState::Done),
    ];
    for way in ways {
        let mut head = held();
        way(&mut head);
        assert!(!head.is_held_by(1));
        assert_eq!(head.beat(1, SECOND, at(0)), Beat::Lost);
        assert_eq!(head.may_begin(1, true, at(0)), Err(MayNotBegin::Lost));
    }
}

#[test]
fn what_waits_comes_back_by_its_timer_or_when_it_is_woken_and_what_is_over_never_does() {
    let mut head = held();
    head.wait(Some(at(5_000)));
    assert_eq!(head.claim(2, SECOND, at(4_999)), Claimed::NotDue);
    head.wake(at(100));
    assert_eq!(head.claim(2, SECOND, at(100)), Claimed::Granted);
    head.wait(Some(at(5_000)));
    assert_eq!(head.claim(3, SECOND, at(5_000)), Claimed::Granted);
    head.park();
    assert_eq!(head.claim(4, SECOND, at(99_000)), Claimed::NotDue);
    head.wake(at(99_000));
    assert_eq!(head.claim(4, SECOND, at(99_000)), Claimed::Granted);
    for over in [RunState::Done, RunState::Failed, RunState::Cancelled] {
        let mut head = head;
        head.finish(over);
        head.wake(at(99_000));
        head.cancel(true, at(99_000));
        assert_eq!((head.state, head.claim(5, SECOND, at(999_000))), (over, Claimed::NotDue));
    }
}

#[test]
fn claims_without_progress_come_to_an_end_and_progress_or_news_count_anew() {
    let mut head = head();
    let mut now = 0;
    for _ in 0..3 {
        for epoch in 1..=i64::from(POISON_CLAIMS) {
            assert_eq!(head.claim(epoch, SECOND, at(now)), Claimed::Granted);
            now += 1_000;
        }
        head.progressed(Usd::ZERO);
    }
    for epoch in 1..=i64::from(POISON_CLAIMS) {
        assert_eq!(head.claim(epoch, SECOND, at(now)), Claimed::Granted);
        head.release(Duration::ZERO, at(now));
    }
    let mut patient = head;
    patient.progressed(Usd::ZERO);
    for epoch in 1..=3 * i64::from(POISON_CLAIMS) {
        assert_eq!(patient.claim(epoch, SECOND, at(now)), Claimed::Granted, "it was only given back for a while");
        patient.release(SECOND, at(now));
        now += 1_000;
    }
    let mut waiting = head;
    waiting.wait(Some(at(now)));
    assert_eq!(waiting.claim(9, SECOND, at(now)), Claimed::Granted, "a timer is news");
    assert_eq!(head.claim(9, SECOND, at(now)), Claimed::Poison);
    assert_eq!((head.state, head.claim(9, SECOND, at(now))), (RunState::Quarantined, Claimed::NotDue));
    head.wake(at(now));
    assert_eq!(head.claim(9, SECOND, at(now)), Claimed::Granted);
}

#[test]
fn to_cancel_ends_a_run_that_has_nothing_to_undo_and_else_gives_it_to_who_undoes() {
    for (has_undo, then) in [(false, RunState::Cancelled), (true, RunState::Ready)] {
        let mut waiting = held();
        waiting.wait(None);
        let mut parked = held();
        parked.park();
        for mut head in [head(), waiting, parked] {
            head.cancel(has_undo, at(0));
            assert_eq!((head.state, head.cancelling), (then, true));
        }
        let mut head = held();
        head.cancel(has_undo, at(0));
        assert_eq!(head.beat(1, SECOND, at(0)), Beat::Cancel, "its holder is at it");
        let mut lost = held();
        lost.cancel(has_undo, at(1_000));
        assert_eq!(lost.state, then);
    }
}

#[test]
fn what_is_cancelled_late_or_out_of_money_begins_nothing_new_but_undoes() {
    let mut cancelled = held();
    cancelled.cancel(false, at(0));
    let mut late = Head::new(NOW, Some(at(500)), None);
    assert_eq!(late.claim(1, SECOND, at(0)), Claimed::Granted);
    let mut broke = Head::new(NOW, None, Some(Usd::from_nanos(5)));
    assert_eq!(broke.claim(1, SECOND, at(0)), Claimed::Granted);
    broke.progressed(Usd::from_nanos(5));
    let why = [MayNotBegin::Cancelled, MayNotBegin::Overdue, MayNotBegin::OverBudget];
    for (head, why) in [cancelled, late, broke].into_iter().zip(why) {
        assert_eq!(head.may_begin(1, false, at(500)), Err(why));
        assert_eq!(head.may_begin(1, true, at(500)), Ok(()));
        assert_eq!(head.may_go_on(false, at(500)), Err(why));
        assert_eq!(head.may_go_on(true, at(500)), Ok(()));
    }
}

/// To hear what is done, or to find out what may have happened, is not to begin anything.
#[test]
fn what_is_done_is_told_and_what_is_unknown_looked_into_in_a_run_that_begins_nothing_new() {
    let mut head = held();
    head.cancel(false, at(0));
    let begun = |class: EffectClass| {
        let mut entry = entry(class);
        assert_eq!(begin(&mut entry, ask(class, 1), at(0)), Answer::Execute { attempt: 1 });
        entry
    };
    let mut done = begun(TX);
    assert_eq!(end(&mut done, 1, 1, Ended::Done, at(1)), Answer::Recorded);
    let mut parked = begun(ONCE);
    assert!(matches!(end(&mut parked, 1, 1, Ended::Unknown, at(1)), Answer::Parked { .. }));
    let mut unknown = begun(TX);
    assert_eq!(end(&mut unknown, 1, 1, Ended::Unknown, at(1)), Answer::Recorded);
    let asks = |entry, epoch, now: Wall| head.may_ask(epoch, entry, false, now);
    let under_way = begun(TX);
    for entry in [&done, &parked, &unknown, &under_way] {
        assert_eq!(asks(Some(entry), Some(1), at(10)), Ok(()), "{:?}", entry.state);
        assert_eq!(asks(Some(entry), Some(1), at(1_000)), Err(MayNotBegin::Lost));
        assert_eq!(asks(Some(entry), Some(2), at(10)), Err(MayNotBegin::Lost));
        assert_eq!(asks(Some(entry), None, at(10)), Ok(()));
    }
    let (absent, pure) = (entry(TX), begun(PURE));
    for entry in [None, Some(&absent), Some(&pure)] {
        assert_eq!(asks(entry, Some(1), at(10)), Err(MayNotBegin::Cancelled));
        assert_eq!(asks(entry, None, at(10)), Err(MayNotBegin::Cancelled));
    }
    head.finish(RunState::Cancelled);
    assert_eq!(head.may_ask(None, Some(&done), false, at(10)), Ok(()));
    assert_eq!(head.may_ask(None, Some(&unknown), false, at(10)), Err(MayNotBegin::Lost));
}
