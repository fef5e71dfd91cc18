//! The ledger at the level of what its callers see: events and times in, answers out.

mod run_world;

use outlast_engine::run::{Answer, Ended, Entry, Event, Proof, Resolution, transition};
use outlast_model::{
    Usd, Wall,
    run::{EffectClass, EscalationKind, Exhausted, LedgerState, RetryBudget},
};
use run_world::{AGAIN, KEYED, KEYED_ASKABLE, NOW, ONCE, PURE, QUIET, TTL, TX, VERIFY, ask, at, begin, end, entry, ms};
use std::time::Duration;

const EFFECTS: [EffectClass; 5] = [TX, KEYED, KEYED_ASKABLE, VERIFY, ONCE];
const CLASSES: [EffectClass; 6] = [PURE, TX, KEYED, KEYED_ASKABLE, VERIFY, ONCE];

/// An entry whose first attempt is under way: begun at 0 with claim 1, which stands for 1 s; its call for 2 s.
fn begun(class: EffectClass) -> Entry {
    let mut entry = entry(class);
    assert_eq!(begin(&mut entry, ask(class, 1), at(0)), Answer::Execute { attempt: 1 });
    entry
}

fn after(entry: &mut Entry, epoch: i64, ended: Ended, now: Wall) -> Answer {
    let attempt = entry.attempt;
    end(entry, epoch, attempt, ended, now)
}

#[test]
fn what_is_done_is_replayed_and_nothing_changes_it() {
    for class in CLASSES {
        let mut entry = begun(class);
        assert_eq!(after(&mut entry, 1, Ended::Done, at(10)), Answer::Recorded);
        let done = entry.clone();
        assert_eq!(begin(&mut entry, ask(class, 2), at(99_000)), Answer::Replay { diverged: false });
        assert_eq!(after(&mut entry, 1, Ended::Done, at(20)), Answer::Recorded, "said once more");
        assert_eq!(after(&mut entry, 1, Ended::Failed(Proof::Final), at(20)), Answer::Stale);
        assert_eq!(after(&mut entry, 1, Ended::Unknown, at(20)), Answer::Stale);
        assert_eq!(transition(&mut entry, Event::Lapse, at(99_000)), Answer::Recorded);
        assert_eq!(transition(&mut entry, Event::Decide(Resolution::Try), at(99_000)), Answer::Stale);
        assert_eq!(entry, done, "{class:?}");
    }
}

#[test]
fn what_failed_for_good_is_replayed() {
    let mut entry = begun(ONCE);
    assert_eq!(after(&mut entry, 1, Ended::Failed(Proof::Final), at(10)), Answer::Recorded);
    assert_eq!(begin(&mut entry, ask(ONCE, 2), at(99_000)), Answer::Replay { diverged: false });
    assert_eq!(entry.state, LedgerState::FailedFinal);
}

#[test]
fn a_changed_effect_is_a_mismatch_and_a_changed_pure_step_is_replayed_and_marked_unless_strict() {
    for class in CLASSES {
        let other = run_world::Ask { fingerprint: [9; 32], ..ask(class, 2) };
        let strict = run_world::Ask { strict: true, ..other };
        for done in [false, true] {
            let mut entry = begun(class);
            if done {
                assert_eq!(after(&mut entry, 1, Ended::Done, at(10)), Answer::Recorded);
            }
            let expected = match (done, class) {
                (true, PURE) => Answer::Replay { diverged: true },
                (false, PURE) => Answer::InFlight { until: at(1_000) },
                _ => Answer::Mismatch,
            };
            let before = entry.clone();
            assert_eq!(begin(&mut entry, other, at(20)), expected, "{class:?} {done}");
            assert_eq!(begin(&mut entry, strict, at(20)), Answer::Mismatch);
            assert_eq!(entry, before);
        }
    }
}

#[test]
fn of_a_pure_step_that_never_ended_what_is_asked_now_is_what_is_done_and_nobody_has_agreed_to_it() {
    let other = |epoch| run_world::Ask { fingerprint: [9; 32], ..ask(PURE, epoch) };
    let mut lost = begun(PURE);
    assert_eq!(begin(&mut lost, other(2), at(5_000)), Answer::Execute { attempt: 2 }, "its holder is gone");
    let mut absent = begun(PURE);
    assert_eq!(after(&mut absent, 1, Ended::Failed(AGAIN), at(10)), Answer::Recorded);
    assert_eq!(begin(&mut absent, other(2), at(99_000)), Answer::Execute { attempt: 2 });
    assert_eq!((lost.fingerprint, absent.fingerprint), ([9; 32], [9; 32]));

    let wants = |ask| run_world::Ask { needs_approval: true, ..ask };
    let mut approved = entry(PURE);
    assert!(matches!(begin(&mut approved, wants(ask(PURE, 1)), at(0)), Answer::Parked { .. }));
    assert_eq!(transition(&mut approved, Event::Decide(Resolution::Try), at(20)), Answer::Recorded);
    let parked = Answer::Parked { why: EscalationKind::Approval, newly: true };
    assert_eq!(begin(&mut approved, wants(other(2)), at(30)), parked, "what was approved was something else");
}

#[test]
fn the_same_begin_again_is_the_same_attempt() {
    for class in CLASSES {
        let mut entry = begun(class);
        let before = entry.clone();
        assert_eq!(begin(&mut entry, ask(class, 1), at(500)), Answer::Execute { attempt: 1 });
        assert_eq!(entry, before);
    }
}

/// The acknowledgement of an end may be lost, so it is said again; and then it must be answered alike and count once.
#[test]
fn the_same_end_again_changes_nothing_and_is_answered_alike() {
    let fail = RetryBudget { attempts: 1, exhausted: Exhausted::Fail, ..RetryBudget::default() };
    let escalate = RetryBudget { attempts: 1, ..RetryBudget::default() };
    let ends = [
        Ended::Done,
        Ended::Unknown,
        Ended::Failed(Proof::Final),
        Ended::Failed(AGAIN),
        Ended::Review(EscalationKind::LowConfidence),
    ];
    for class in CLASSES {
        for budget in [RetryBudget::default(), fail, escalate] {
            for ended in ends {
                let mut entry = entry(class);
                let first = run_world::Ask { budget, ..ask(class, 1) };
                assert_eq!(begin(&mut entry, first, at(0)), Answer::Execute { attempt: 1 });
                assert_ne!(after(&mut entry, 1, ended, at(10)), Answer::Stale);
                let before = entry.clone();
                let again = after(&mut entry, 1, ended, at(20));
                assert_eq!(entry, before, "{class:?} {ended:?}");
                let told = again == Answer::Recorded || matches!(again, Answer::Parked { newly: false, .. });
                assert!(told, "{class:?} {ended:?} {again:?}");
            }
        }
    }
}

#[test]
fn an_attempt_that_is_under_way_is_left_alone_until_its_claim_has_run_out() {
    for class in EFFECTS {
        let mut entry = begun(class);
        let before = entry.clone();
        assert_eq!(begin(&mut entry, ask(class, 2), at(999)), Answer::InFlight { until: at(1_000) });
        assert_eq!(transition(&mut entry, Event::Lapse, at(999)), Answer::InFlight { until: at(1_000) });
        assert_eq!(entry, before);
    }
}

#[test]
fn after_a_lost_holder_pure_tx_and_keyed_are_done_again() {
    for class in [PURE, TX, KEYED, KEYED_ASKABLE] {
        let mut entry = begun(class);
        assert_eq!(begin(&mut entry, ask(class, 2), at(1_000)), Answer::Execute { attempt: 2 }, "{class:?}");
        assert_eq!(end(&mut entry, 1, 1, Ended::Done, at(1_001)), Answer::Stale, "a zombie");
        assert_eq!(end(&mut entry, 2, 2, Ended::Done, at(1_002)), Answer::Recorded);
    }
}

#[test]
fn a_late_end_is_taken_while_nobody_has_begun_anew() {
    for class in CLASSES {
        let mut entry = begun(class);
        assert_eq!(end(&mut entry, 1, 1, Ended::Done, at(90_000)), Answer::Recorded);
        assert_eq!(entry.state, LedgerState::Done);
    }
    let mut entry = begun(VERIFY);
    assert!(matches!(begin(&mut entry, ask(VERIFY, 2), at(1_000)), Answer::Wait { .. }));
    assert_eq!(end(&mut entry, 1, 1, Ended::Done, at(1_500)), Answer::Recorded, "nobody has asked yet");
}

#[test]
fn after_a_lost_holder_verify_waits_out_lease_deadline_and_quiet_period_and_then_asks() {
    let mut entry = begun(VERIFY);
    let from = at(2_000 + ms(QUIET));
    assert_eq!(begin(&mut entry, ask(VERIFY, 2), at(1_000)), Answer::Wait { until: from });
    assert_eq!(begin(&mut entry, ask(VERIFY, 3), Wall(from.0 - 1)), Answer::Wait { until: from });
    assert_eq!(begin(&mut entry, ask(VERIFY, 3), from), Answer::Verify { attempt: 1 });
    let absent = Ended::Failed(Proof::Again { after: Duration::ZERO });
    assert_eq!(end(&mut entry, 3, 1, absent, Wall(from.0 + 1)), Answer::Recorded);
    assert_eq!(begin(&mut entry, ask(VERIFY, 3), Wall(from.0 + 1)), Answer::Execute { attempt: 2 });
}

#[test]
fn a_lease_that_outlasted_the_deadline_counts_and_so_does_one_renewed_behind_the_ledgers_back() {
    let long = run_world::Ask { held_until: at(9_000), ..ask(VERIFY, 1) };
    let mut entry = entry(VERIFY);
    assert_eq!(begin(&mut entry, long, at(0)), Answer::Execute { attempt: 1 });
    assert_eq!(begin(&mut entry, ask(VERIFY, 2), at(9_000)), Answer::Wait { until: at(9_000 + ms(QUIET)) });
    let mut entry = begun(VERIFY);
    let since = run_world::Ask { takes_over: Some(at(7_000)), ..ask(VERIFY, 2) };
    assert_eq!(begin(&mut entry, since, at(7_500)), Answer::Wait { until: at(7_000 + ms(QUIET)) });
}

#[test]
fn a_holder_known_to_be_gone_is_not_waited_for() {
    let mut entry = begun(TX);
    let anew = run_world::Ask { takes_over: Some(at(10)), ..ask(TX, 2) };
    assert_eq!(begin(&mut entry, anew, at(20)), Answer::Execute { attempt: 2 });
}

#[test]
fn a_question_that_comes_to_nothing_too_often_goes_to_a_person() {
    let mut entry = begun(VERIFY);
    assert_eq!(after(&mut entry, 1, Ended::Unknown, at(100)), Answer::Recorded);
    let mut now = at(100 + ms(QUIET));
    for last in [false, false, true] {
        assert_eq!(begin(&mut entry, ask(VERIFY, 1), now), Answer::Verify { attempt: 1 });
        let unclear = after(&mut entry, 1, Ended::Unknown, now);
        let parked = Answer::Parked { why: EscalationKind::UnknownEffect, newly: true };
        assert_eq!(unclear, if last { parked } else { Answer::Recorded });
        now = Wall(now.0 + ms(QUIET));
    }
}

/// Whoever vanished may still be about to send it. A person who looked before that would decide on what is not yet true.
#[test]
fn after_a_lost_holder_once_goes_to_a_person_as_soon_as_nothing_of_it_can_still_happen() {
    let mut entry = begun(ONCE);
    assert_eq!(begin(&mut entry, ask(ONCE, 2), at(1_000)), Answer::Wait { until: at(2_001) });
    assert_eq!(transition(&mut entry, Event::Lapse, at(2_000)), Answer::Wait { until: at(2_001) });
    let parked = |newly| Answer::Parked { why: EscalationKind::UnknownEffect, newly };
    assert_eq!(begin(&mut entry, ask(ONCE, 2), at(2_001)), parked(true));
    assert_eq!(begin(&mut entry, ask(ONCE, 3), at(9_000)), parked(false));
    assert_eq!(transition(&mut entry, Event::Decide(Resolution::Try), at(9_000)), Answer::Recorded);
    assert_eq!(begin(&mut entry, ask(ONCE, 3), at(9_000)), Answer::Execute { attempt: 2 });
}

#[test]
fn a_holder_that_cannot_tell_leaves_once_to_a_person_at_once() {
    let mut entry = begun(ONCE);
    let parked = Answer::Parked { why: EscalationKind::UnknownEffect, newly: true };
    assert_eq!(after(&mut entry, 1, Ended::Unknown, at(100)), parked);
    assert_eq!(transition(&mut entry, Event::Decide(Resolution::Try), at(200)), Answer::Recorded);
    assert_eq!(begin(&mut entry, ask(ONCE, 1), at(200)), Answer::Execute { attempt: 2 });
}

/// The receiver may have forgotten the key by the time the repetition arrives.
#[test]
fn keyed_is_not_done_again_when_the_repetition_could_arrive_after_the_key_is_forgotten() {
    let last_safe = at(ms(TTL) - 2_000);
    let mut entry = begun(KEYED);
    assert_eq!(begin(&mut entry, ask(KEYED, 2), last_safe), Answer::Execute { attempt: 2 });
    let mut entry = begun(KEYED);
    let late = Wall(last_safe.0 + 1);
    let parked = Answer::Parked { why: EscalationKind::UnknownEffect, newly: true };
    assert_eq!(begin(&mut entry, ask(KEYED, 2), late), parked);
    let mut entry = begun(KEYED_ASKABLE);
    assert_eq!(begin(&mut entry, ask(KEYED_ASKABLE, 2), late), Answer::Verify { attempt: 1 });
}

#[test]
fn keyed_that_is_known_not_to_have_happened_is_tried_however_old_its_key_is() {
    let mut entry = begun(KEYED);
    assert_eq!(after(&mut entry, 1, Ended::Failed(AGAIN), at(100)), Answer::Recorded);
    assert_eq!(begin(&mut entry, ask(KEYED, 2), at(10 * ms(TTL))), Answer::Execute { attempt: 2 });
}

#[test]
fn what_did_not_happen_is_tried_again_after_a_wait_that_grows_and_has_an_end() {
    let budget = RetryBudget { attempts: 9, ..RetryBudget::default() };
    let mut entry = entry(ONCE);
    let mut now = at(0);
    let mut waits = Vec::new();
    for attempt in 1..=9 {
        let next = run_world::Ask { budget, ..ask(ONCE, 1) };
        assert_eq!(begin(&mut entry, next, now), Answer::Execute { attempt });
        let ended = after(&mut entry, 1, Ended::Failed(Proof::Again { after: Duration::ZERO }), now);
        assert_eq!(ended == Answer::Recorded, attempt < 9, "{ended:?}");
        waits.push(entry.not_before.0 - now.0);
        now = entry.not_before;
    }
    let ceilings = [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000];
    for (wait, ceiling) in waits.iter().zip(ceilings) {
        assert!(*wait >= ceiling / 2 && *wait <= ceiling, "{waits:?}");
    }
    assert_eq!(entry.why, Some(EscalationKind::Exhausted));
}

#[test]
fn the_receivers_own_wait_counts_when_it_is_longer() {
    let mut entry = begun(TX);
    let asked = Proof::Again { after: Duration::from_secs(30) };
    assert_eq!(after(&mut entry, 1, Ended::Failed(asked), at(0)), Answer::Recorded);
    assert_eq!(begin(&mut entry, ask(TX, 1), at(29_999)), Answer::Wait { until: at(30_000) });
}

#[test]
fn a_spent_budget_ends_or_asks_a_person_and_never_calls_an_unknown_effect_failed() {
    for exhausted in [Exhausted::Fail, Exhausted::Escalate] {
        for class in CLASSES {
            let budget = RetryBudget { attempts: 1, exhausted, ..RetryBudget::default() };
            let mut entry = entry(class);
            let first = run_world::Ask { budget, ..ask(class, 1) };
            assert_eq!(begin(&mut entry, first, at(0)), Answer::Execute { attempt: 1 });
            let mut now = at(5_000);
            let mut answer = begin(&mut entry, ask(class, 2), now);
            while let Answer::Wait { until } = answer {
                now = until;
                answer = begin(&mut entry, ask(class, 2), now);
            }
            let expected = match (class, exhausted) {
                (VERIFY, _) => Answer::Verify { attempt: 1 },
                (PURE, Exhausted::Fail) => Answer::Replay { diverged: false },
                (PURE, Exhausted::Escalate) => Answer::Parked { why: EscalationKind::Exhausted, newly: true },
                (_, _) => Answer::Parked { why: EscalationKind::UnknownEffect, newly: true },
            };
            assert_eq!(answer, expected, "{class:?} {exhausted:?}");
        }
    }
}

#[test]
fn money_and_time_are_budgets_too() {
    let (within, cost_max) = (Some(Duration::from_secs(5)), Some(Usd::from_nanos(10)));
    let timed = RetryBudget { within, ..RetryBudget::default() };
    let mut entry = entry(TX);
    assert_eq!(
        begin(&mut entry, run_world::Ask { budget: timed, ..ask(TX, 1) }, at(0)),
        Answer::Execute { attempt: 1 }
    );
    assert_eq!(after(&mut entry, 1, Ended::Failed(AGAIN), at(0)), Answer::Recorded);
    let exhausted = Answer::Parked { why: EscalationKind::Exhausted, newly: true };
    assert_eq!(begin(&mut entry, ask(TX, 1), at(5_001)), exhausted);

    let paid = RetryBudget { cost_max, ..RetryBudget::default() };
    let mut entry = run_world::entry(TX);
    assert_eq!(begin(&mut entry, run_world::Ask { budget: paid, ..ask(TX, 1) }, at(0)), Answer::Execute { attempt: 1 });
    let event = Event::End { epoch: 1, attempt: 1, ended: Ended::Failed(AGAIN), cost: Usd::from_nanos(10) };
    assert_eq!(transition(&mut entry, event, at(10)), exhausted);
    assert_eq!(transition(&mut entry, Event::Decide(Resolution::Try), at(20)), Answer::Recorded);
    assert_eq!(begin(&mut entry, ask(TX, 1), at(20)), Answer::Execute { attempt: 2 }, "a fresh budget");
}

#[test]
fn an_approval_comes_first_and_is_for_what_was_shown() {
    let mut entry = entry(KEYED);
    let wants = run_world::Ask { needs_approval: true, ..ask(KEYED, 1) };
    let parked = |newly| Answer::Parked { why: EscalationKind::Approval, newly };
    assert_eq!(begin(&mut entry, wants, at(0)), parked(true));
    assert_eq!(begin(&mut entry, wants, at(10)), parked(false));
    assert_eq!(transition(&mut entry, Event::Decide(Resolution::Try), at(20)), Answer::Recorded);
    let other = run_world::Ask { fingerprint: [9; 32], ..wants };
    assert_eq!(begin(&mut entry, other, at(30)), Answer::Mismatch, "not what was approved");
    assert_eq!(begin(&mut entry, wants, at(30)), Answer::Execute { attempt: 1 });
}

#[test]
fn a_refused_approval_is_an_end() {
    let mut entry = entry(ONCE);
    let wants = run_world::Ask { needs_approval: true, ..ask(ONCE, 1) };
    assert!(matches!(begin(&mut entry, wants, at(0)), Answer::Parked { .. }));
    assert_eq!(transition(&mut entry, Event::Decide(Resolution::Failed), at(20)), Answer::Recorded);
    assert_eq!(begin(&mut entry, wants, at(30)), Answer::Replay { diverged: false });
    assert_eq!(entry.attempt, 0);
}

#[test]
fn an_answer_to_be_looked_at_waits_for_a_person_and_then_stands() {
    let mut entry = begun(PURE);
    let why = EscalationKind::LowConfidence;
    assert_eq!(after(&mut entry, 1, Ended::Review(why), at(10)), Answer::Parked { why, newly: true });
    assert_eq!(transition(&mut entry, Event::Decide(Resolution::Done), at(20)), Answer::Recorded);
    assert_eq!(begin(&mut entry, ask(PURE, 2), at(30)), Answer::Replay { diverged: false });
}

#[test]
fn a_claim_of_its_own_is_kept_by_its_holder_only_and_never_made_shorter() {
    let mut entry = begun(ONCE);
    assert!(!entry.renew(2, at(5_000)));
    assert!(entry.renew(1, at(5_000)));
    assert!(entry.renew(1, at(3_000)));
    assert_eq!(begin(&mut entry, ask(ONCE, 2), at(4_999)), Answer::InFlight { until: at(5_000) });
    assert_eq!(after(&mut entry, 1, Ended::Done, at(6_000)), Answer::Recorded);
    assert!(!entry.renew(1, at(9_000)), "nothing is under way");
    assert_eq!(NOW, at(0));
}
