//! Every back end is held to the contract, and the suite that holds them is held to finding faults.

mod common;

use common::{Memory, Sqlite, block_on};
use outlast_store::{
    StoreError,
    conformance::{
        Bench, Divergence, PEOPLE_SCENARIOS, RUN_SCENARIOS, SCENARIOS, STEP_SCENARIOS, Subject, Theme, answers, compare,
    },
};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use std::collections::BTreeSet;

/// Every promise, all broken ones at once.
fn hold_to_promises(subject: &mut dyn Subject) {
    for scenario in SCENARIOS.iter().chain(PEOPLE_SCENARIOS) {
        eprintln!("{}", scenario.promise);
        block_on((scenario.check)(&mut Bench::new(subject)));
    }
}

fn hold_to_promises_about_runs(subject: &mut dyn Subject) {
    for scenario in RUN_SCENARIOS.iter().chain(STEP_SCENARIOS) {
        eprintln!("{}", scenario.promise);
        block_on((scenario.check)(&mut Bench::new(subject)));
    }
}

#[test]
fn the_memory_store_keeps_every_promise() {
    hold_to_promises(&mut Memory);
}

#[test]
fn the_memory_store_keeps_every_promise_about_runs_and_steps() {
    hold_to_promises_about_runs(&mut Memory);
}

#[test]
fn the_sqlite_store_keeps_every_promise_about_runs_and_steps() {
    hold_to_promises_about_runs(&mut Sqlite::new());
}

#[test]
fn the_sqlite_store_keeps_every_promise() {
    hold_to_promises(&mut Sqlite::new());
}

#[test]
fn the_sqlite_store_answers_as_the_model_does() {
    let mut sqlite = Sqlite::new();
    for seed in 0..24 {
        if let Err(difference) = block_on(compare(&mut sqlite, Theme::Gateway, seed, 250)) {
            panic!("{difference}");
        }
    }
}

#[test]
fn runs_in_the_sqlite_store_answer_as_the_model_does() {
    let mut sqlite = Sqlite::new();
    for seed in 0..24 {
        if let Err(difference) = block_on(compare(&mut sqlite, Theme::Runs, seed, 300)) {
            panic!("{difference}");
        }
    }
}

/// Other seeds on every machine and day: proptest draws them, prints the one that failed and keeps it.
#[test]
fn the_sqlite_store_answers_as_the_model_does_on_drawn_seeds() {
    let mut runner = TestRunner::new(Config { cases: 8, failure_persistence: None, ..Config::default() });
    let drawn = runner.run(&proptest::prelude::any::<u64>(), |seed| {
        let failed = |error: Box<Divergence>| TestCaseError::fail(error.to_string());
        block_on(compare(&mut Sqlite::new(), Theme::Gateway, seed, 250)).map_err(failed)?;
        block_on(compare(&mut Sqlite::new(), Theme::Runs, seed, 300)).map_err(failed)
    });
    drawn.unwrap();
}

/// A suite that never meets a limit, a lost claim or a mismatch would find nothing.
#[test]
fn histories_meet_every_kind_of_answer() {
    let seen: BTreeSet<String> = (0..60)
        .flat_map(|seed| block_on(answers(Theme::Gateway, seed, 250)))
        .flat_map(|answer| words(&format!("{answer:?}")))
        .collect();
    let expected = "Execute Replay InFlight Mismatch Held Lost Queued Full Waiting Running Done Failed Expired \
                    Remembered Open Decided Stands Already Changed NotOffered Unknown \
                    Overdue Notices Opened Reminder NextLevel Audited Verified Yes Later GivenUp limit_reached too_large taken";
    let missing: Vec<_> = expected.split_whitespace().filter(|word| !seen.contains(*word)).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn histories_of_runs_meet_every_kind_of_answer() {
    let seen: BTreeSet<String> = (0..150)
        .flat_map(|seed| block_on(answers(Theme::Runs, seed, 300)))
        .flat_map(|answer| words(&format!("{answer:?}")))
        .collect();
    let expected = "New Before Mismatch ClaimedRun Held Cancel Drain Lost Signal Timer Parked Refused Cancelled Overdue \
                    OverBudget Accepted Over Full Asked Ready Running Waiting Quarantined Done Failed Execute Verify \
                    Wait InFlight NoRun Again Unknown Stale Approval UnknownEffect Exhausted LowConfidence Human Poison \
                    DecidedAbout Stands Changed NotOffered Absent Verifying FailedFinal Intent limit_reached too_large";
    let missing: Vec<_> = expected.split_whitespace().filter(|word| !seen.contains(*word)).collect();
    assert_eq!(missing, [""; 0]);
}

fn words(text: &str) -> Vec<String> {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').map(str::to_owned).collect()
}

#[test]
fn errors_say_what_where_and_what_to_do() {
    let place: std::sync::Arc<str> = "state/store.db".into();
    for error in [
        StoreError::Full { place: place.clone() },
        StoreError::ReadOnly { place: place.clone() },
        StoreError::Corrupt { place: place.clone(), why: "page 3".into() },
        StoreError::TooNew { place: place.clone(), found: 9, known: 1 },
        StoreError::Foreign { place: place.clone() },
        StoreError::KeyMissing { place: place.clone(), key: "0a1b2c3d".into() },
        StoreError::NotSealed { place: place.clone() },
        StoreError::Busy { place: place.clone() },
        StoreError::Unknown { place: place.clone() },
        StoreError::Unavailable { place, why: "disk I/O error".into() },
    ] {
        let said = error.to_string();
        assert!(said.starts_with("state/store.db: ") && said.ends_with('.'), "{said}");
        assert!(said.matches(". ").count() >= 1, "no remedy: {said}");
    }
}
