//! A workflow's walk, step by step: what is asked for, in which order, after which outcome.

use outlast_engine::run::{
    MayNotBegin,
    flow::{Action, End, Event, Flow, Known, Outcome, Plan, PlanBranch, PlanStep, To},
};
use outlast_model::{Mono, run::LedgerState};
use std::{sync::Arc, time::Duration};

const SECOND: Duration = Duration::from_secs(1);

fn step(name: &str) -> PlanStep {
    PlanStep { name: name.into(), conditional: false, next: Vec::new(), undo: false, max_visits: 1 }
}

fn undoable(name: &str) -> PlanStep {
    PlanStep { undo: true, ..step(name) }
}

fn plan(steps: impl Into<Vec<PlanStep>>) -> Arc<Plan> {
    Arc::new(Plan { steps: steps.into() })
}

fn known(key: &str, state: LedgerState, order: i64) -> Known {
    Known { key: key.into(), state, effect: true, order, undoable: false }
}

fn done(key: &str, order: i64) -> Known {
    known(key, LedgerState::Done, order)
}

fn can_be_undone(known: Known) -> Known {
    Known { undoable: true, ..known }
}

/// What is asked for, in words.
fn asked(flow: &mut Flow) -> String {
    match flow.poll_action() {
        None => "nothing".into(),
        Some(Action::Test { step, branch: None }) => format!("test {step}"),
        Some(Action::Test { step, branch: Some(branch) }) => format!("test {step}/{branch}"),
        Some(Action::Recall { key, .. }) => format!("recall {key}"),
        Some(Action::Perform { key, .. }) => format!("perform {key}"),
        Some(Action::Settle { key }) => format!("settle {key}"),
        Some(Action::Undo { key, of }) => format!("undo {of} as {key}"),
        Some(Action::Conclude) => "conclude".into(),
        Some(Action::Release { after }) => format!("release {}", after.as_secs()),
        Some(Action::Finish(End::Done)) => "done".into(),
        Some(Action::Finish(End::Cancelled)) => "cancelled".into(),
        Some(Action::Finish(End::Failed(cause))) => format!("failed {cause:?}"),
        Some(Action::Leave) => "leave".into(),
    }
}

/// Answers with each event in turn, and tells what was asked for before, between and after.
fn walk(mut flow: Flow, events: &[Event]) -> Vec<String> {
    let mut told = vec![asked(&mut flow)];
    for event in events {
        flow.handle(*event, Mono::from_millis(1));
        told.push(asked(&mut flow));
    }
    told
}

fn new(plan: &Arc<Plan>) -> Flow {
    Flow::new(plan, [], false)
}

const DONE: Event = Event::Ended(Outcome::Done);
const FAILED: Event = Event::Ended(Outcome::Failed);
const YES: Event = Event::Tested(Some(true));
const NO: Event = Event::Tested(Some(false));

fn again(after: Duration) -> Event {
    Event::Ended(Outcome::Again(after))
}

#[test]
fn steps_are_done_in_order_and_the_run_ends() {
    let plan = plan([step("a"), step("b")]);
    assert_eq!(walk(new(&plan), &[DONE, DONE, YES]), ["perform a", "perform b", "conclude", "done"]);
}

#[test]
fn what_the_journal_knows_is_recalled_and_only_the_rest_is_done() {
    let plan = plan([step("a"), step("b"), step("c")]);
    let flow = Flow::new(&plan, [done("a", 0), done("b", 1), known("c", LedgerState::Intent, 2)], false);
    assert_eq!(
        walk(flow, &[Event::Recalled, Event::Recalled, DONE]),
        ["recall a", "recall b", "perform c", "conclude"]
    );
}

#[test]
fn a_step_whose_condition_does_not_hold_is_skipped_with_its_branches() {
    let branch = PlanBranch { conditional: false, to: To::End };
    let plan = plan([step("a"), PlanStep { conditional: true, next: vec![branch], ..step("b") }, step("c")]);
    assert_eq!(walk(new(&plan), &[DONE, NO, DONE]), ["perform a", "test 1", "perform c", "conclude"]);
    assert_eq!(walk(new(&plan), &[DONE, YES, DONE]), ["perform a", "test 1", "perform b", "conclude"]);
}

#[test]
fn the_first_branch_that_holds_is_taken_and_without_one_the_next_step_follows() {
    let to = |to| PlanBranch { conditional: true, to };
    let plan =
        plan([PlanStep { next: vec![to(To::Step(2)), to(To::End), to(To::Fail)], ..step("a") }, step("b"), step("c")]);
    assert_eq!(walk(new(&plan), &[DONE, YES]), ["perform a", "test 0/0", "perform c"]);
    assert_eq!(walk(new(&plan), &[DONE, NO, YES]), ["perform a", "test 0/0", "test 0/1", "conclude"]);
    assert_eq!(walk(new(&plan), &[DONE, NO, NO, YES])[3..], ["test 0/2", "failed Branch(0)"]);
    assert_eq!(walk(new(&plan), &[DONE, NO, NO, NO])[3..], ["test 0/2", "perform b"]);
}

#[test]
fn a_result_that_cannot_be_made_fails_the_run() {
    let plan = plan([undoable("a")]);
    let told = walk(new(&plan), &[DONE, NO, DONE]);
    assert_eq!(told, ["perform a", "conclude", "undo a as undo/a", "failed Output"]);
}

#[test]
fn a_loop_gets_new_keys_and_ends_where_its_visits_are_spent() {
    let back = PlanBranch { conditional: true, to: To::Step(0) };
    let plan = plan([PlanStep { next: vec![back], max_visits: 3, ..step("a") }]);
    let told = walk(new(&plan), &[DONE, YES, DONE, YES, DONE, YES]);
    assert_eq!(
        told,
        ["perform a", "test 0/0", "perform a#2", "test 0/0", "perform a#3", "test 0/0", "failed Visits(0)"]
    );
    let again = Flow::new(&plan, [done("a", 0), done("a#2", 1)], false);
    let told = walk(again, &[Event::Recalled, YES, Event::Recalled, YES, DONE, NO]);
    assert_eq!(told, ["recall a", "test 0/0", "recall a#2", "test 0/0", "perform a#3", "test 0/0", "conclude"]);
}

#[test]
fn a_short_wait_is_waited_out_and_before_a_long_one_the_run_is_given_back() {
    let plan = plan([step("a")]);
    let mut flow = new(&plan);
    assert_eq!(asked(&mut flow), "perform a");
    flow.handle(again(SECOND), Mono::ZERO);
    assert_eq!((asked(&mut flow).as_str(), flow.poll_timeout()), ("nothing", Some(Mono::from_millis(1000))));
    flow.handle(Event::Tick, Mono::from_millis(999));
    assert_eq!(asked(&mut flow), "nothing", "too early");
    flow.handle(Event::Tick, Mono::from_millis(1000));
    assert_eq!((asked(&mut flow).as_str(), flow.poll_timeout()), ("perform a", None));
    flow.handle(again(30 * SECOND), Mono::from_millis(1000));
    assert_eq!(asked(&mut flow), "release 30");
    flow.handle(DONE, Mono::from_millis(1001));
    assert_eq!(asked(&mut flow), "nothing", "it is over");
}

#[test]
fn who_lost_the_claim_or_waits_for_somebody_leaves_the_run_alone() {
    let plan = plan([step("a")]);
    assert_eq!(walk(new(&plan), &[Event::Ended(Outcome::Parked), DONE]), ["perform a", "leave", "nothing"]);
    assert_eq!(walk(new(&plan), &[Event::Lost, DONE]), ["perform a", "leave", "nothing"]);
    let lost = Event::Ended(Outcome::Refused(MayNotBegin::Lost));
    assert_eq!(walk(new(&plan), &[lost]), ["perform a", "leave"]);
}

#[test]
fn a_failed_step_has_what_was_done_before_it_undone_the_last_first() {
    let plan = plan([undoable("a"), step("b"), undoable("c"), step("d")]);
    let told = walk(new(&plan), &[DONE, DONE, DONE, FAILED, DONE, DONE]);
    assert_eq!(told[3..], ["perform d", "undo c as undo/c", "undo a as undo/a", "failed Step(\"d\")"]);
}

#[test]
fn an_undo_goes_on_where_it_stopped() {
    let plan = plan([undoable("a"), undoable("b"), step("c")]);
    let journal = [
        can_be_undone(done("a", 0)),
        can_be_undone(done("b", 1)),
        known("c", LedgerState::FailedFinal, 2),
        done("undo/b", 3),
        known("undo/a", LedgerState::Intent, 4),
    ];
    let told = walk(Flow::new(&plan, journal, false), &[Event::Recalled, Event::Recalled, DONE]);
    assert_eq!(told, ["recall a", "recall b", "undo a as undo/a", "failed Step(\"c\")"]);
}

#[test]
fn a_cancelled_run_learns_what_became_of_its_effects_before_it_undoes_them() {
    let plan = plan([undoable("a"), undoable("b"), step("c")]);
    let journal = || [can_be_undone(done("a", 0)), can_be_undone(known("b", LedgerState::Unknown, 1))];
    let told = walk(Flow::new(&plan, journal(), true), &[Event::Recalled, DONE, DONE, DONE]);
    assert_eq!(told, ["recall a", "settle b", "undo b as undo/b", "undo a as undo/a", "cancelled"]);
    let told = walk(Flow::new(&plan, journal(), true), &[Event::Recalled, again(SECOND), DONE]);
    assert_eq!(told, ["recall a", "settle b", "undo a as undo/a", "cancelled"], "it did not take place");
    let told = walk(Flow::new(&plan, journal(), true), &[Event::Recalled, Event::Ended(Outcome::Parked)]);
    assert_eq!(told, ["recall a", "settle b", "leave"], "a person is asked first");
}

#[test]
fn a_run_that_is_cancelled_while_a_step_is_under_way_hears_its_end_first() {
    let plan = plan([undoable("a"), step("b")]);
    let told = walk(new(&plan), &[Event::Cancel, DONE, DONE]);
    assert_eq!(told, ["perform a", "nothing", "undo a as undo/a", "cancelled"]);
    let told = walk(new(&plan), &[again(SECOND), Event::Cancel]);
    assert_eq!(told, ["perform a", "nothing", "cancelled"]);
    let unknown = Event::Ended(Outcome::Unknown(SECOND));
    let told = walk(new(&plan), &[Event::Cancel, unknown, DONE, DONE]);
    assert_eq!(told, ["perform a", "nothing", "settle a", "undo a as undo/a", "cancelled"]);
}

#[test]
fn a_refusal_ends_the_run_as_what_it_is() {
    let plan = plan([undoable("a"), step("b")]);
    for (why, end) in [
        (MayNotBegin::Cancelled, "cancelled"),
        (MayNotBegin::Overdue, "failed Overdue"),
        (MayNotBegin::OverBudget, "failed OverBudget"),
    ] {
        let told = walk(new(&plan), &[DONE, Event::Ended(Outcome::Refused(why)), DONE]);
        assert_eq!(told, ["perform a", "perform b", "undo a as undo/a", end]);
    }
    let told = walk(new(&plan), &[Event::Ended(Outcome::Mismatch)]);
    assert_eq!(told, ["perform a", "failed Mismatch(\"a\")"]);
    let told = walk(new(&plan), &[Event::Ended(Outcome::Template)]);
    assert_eq!(told, ["perform a", "failed Template(0)"]);
}

#[test]
fn a_run_is_given_back_between_two_steps_when_the_process_stops() {
    let plan = plan([step("a"), step("b")]);
    assert_eq!(walk(new(&plan), &[Event::Drain, DONE]), ["perform a", "nothing", "release 0"]);
    assert_eq!(walk(new(&plan), &[again(SECOND), Event::Drain])[1..], ["nothing", "release 1"]);
    let told = walk(new(&plan), &[Event::Drain, again(30 * SECOND)]);
    assert_eq!(told, ["perform a", "nothing", "release 30"]);
}

#[test]
fn an_undo_that_a_person_gave_up_on_does_not_hold_up_the_others() {
    let plan = plan([undoable("a"), undoable("b"), step("c")]);
    let told = walk(new(&plan), &[DONE, DONE, FAILED, FAILED, DONE]);
    assert_eq!(told[2..], ["perform c", "undo b as undo/b", "undo a as undo/a", "failed Step(\"c\")"]);
}
