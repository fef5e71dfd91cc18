//! Runs in the SQLite store: its file taken forward, large payloads, what was moved in the file, long journals, retention.

mod common;

use common::{block_on, open, options, runs::*};
use outlast_model::run::{EffectClass, RunState};
use outlast_store::{
    Fenced, FinishRun, JournalPage, Limits, Payload, QueueState, RunStore, Sealing, SqliteOptions, SqliteStore,
    StepBegun, StepEnded, Store, StoreError, conformance::ManualClock, sqlite::SCHEMA_VERSION,
};
use rusqlite::Connection;
use std::{path::Path, sync::Arc};

const FIRST_SCHEMA: &str = include_str!("../src/sqlite/migrations/0001.sql");

/// A file as the first version of the schema left it, with a request in its queue.
fn file_of_the_first_version(path: &Path) {
    let db = Connection::open(path).unwrap();
    db.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;").unwrap();
    db.execute_batch(
        "CREATE TABLE migrations (version INTEGER PRIMARY KEY, checksum TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT;",
    )
    .unwrap();
    db.execute_batch(FIRST_SCHEMA).unwrap();
    let checksum = blake3::hash(FIRST_SCHEMA.as_bytes()).to_hex().to_string();
    db.execute("INSERT INTO migrations VALUES (1, ?1, 0)", [checksum]).unwrap();
    db.execute_batch(
        "PRAGMA application_id = 0x4f757453; PRAGMA user_version = 1;
         INSERT INTO meta VALUES ('sealing', CAST('plaintext' AS BLOB));
         INSERT INTO queue (id, tenant, route, priority, enqueued_at, expires_at, attempts, epoch, state, not_before,
             lease_until, bytes, payload)
         VALUES ('q1', 'acme', 'support', 2, 1, 9000000000000, 0, 0, 0, 0, 0, 8, x'007175657374696f6e');
         UPDATE epochs SET last = 41;",
    )
    .unwrap();
}

#[test]
fn a_file_of_the_first_version_is_taken_forward_with_its_rows() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    file_of_the_first_version(&path);
    let store = SqliteStore::open(&path, SqliteOptions::new(Sealing::Plaintext), ManualClock::start()).unwrap();
    assert_eq!(block_on(store.health()).unwrap().schema, SCHEMA_VERSION);
    let view = block_on(store.queued("acme".into(), "q1".into())).unwrap().unwrap();
    assert!(matches!(view.state, QueueState::Waiting { position: 1 }), "{:?}", view.state);
    block_on(store.start_run(started("r", bytes("work")))).unwrap();
    assert_eq!(claimed(&store).epoch.0, 42, "claims go on where the file was");
    assert_eq!(block_on(store.check()).unwrap().faults, []);
}

fn blobs(path: &Path) -> Vec<(String, i64)> {
    let db = Connection::open(path).unwrap();
    let mut find = db.prepare("SELECT tenant, refs FROM blobs ORDER BY blob").unwrap();
    find.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

/// Ends a step of a run with this result.
fn done(store: &SqliteStore, run: &outlast_store::ClaimedRun, key: &str, result: &Payload) {
    let place = step_of(run.run.run.id.as_str(), key);
    let begin = begun(place.clone(), Some(run.epoch), EffectClass::Pure, Payload::default());
    assert!(matches!(block_on(store.begin_step(begin)), Ok(StepBegun::Execute { attempt: 1, .. })));
    assert_eq!(block_on(store.end_step(ended(place, run.epoch, 1, result.clone()))), Ok(StepEnded::Done));
}

#[test]
fn a_large_payload_is_kept_once_per_tenant_and_goes_with_the_last_that_refers_to_it() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    let clock = ManualClock::start();
    let store = SqliteStore::open(&path, options(Limits::FILE), clock.clone()).unwrap();
    let large = Payload::from(vec![b'x'; 70_000]);
    block_on(store.start_run(started("a", large.clone()))).unwrap();
    let mut theirs = started("a", large.clone());
    theirs.run.tenant = "other".into();
    block_on(store.start_run(theirs)).unwrap();
    let run = claimed(&store);
    for key in ["one", "two", "three"] {
        done(&store, &run, key, &large);
    }
    assert_eq!(blobs(&path), [("acme".into(), 4), ("other".into(), 1)]);
    let file = std::fs::read(&path).unwrap();
    assert!(!file.windows(64).any(|window| window == [b'x'; 64]), "what is large is sealed too");
    let page = block_on(store.journal(run.run.run.clone(), 0, 10)).unwrap();
    assert!(page.steps.iter().all(|step| step.payload == large));
    assert_eq!(block_on(store.check()).unwrap().faults, []);

    let finish =
        FinishRun { run: run.run.run.clone(), epoch: Some(run.epoch), state: RunState::Done, output: large.clone() };
    assert_eq!(block_on(store.finish_run(finish)), Ok(Fenced::Held));
    clock.advance(8 * 24 * 3600 * 1000);
    let swept = block_on(store.sweep(100)).unwrap();
    assert!(swept.removed > 0 && !swept.more, "{swept:?}");
    assert_eq!(blobs(&path), [("other".into(), 1)], "and nothing of the run that is not over was touched");
    assert_eq!(block_on(store.check()).unwrap().faults, []);
    let end = block_on(store.run_end(run.run.run.clone())).unwrap().unwrap();
    assert_eq!((end.state, end.output), (RunState::Done, Payload::default()));
    clock.advance(90 * 24 * 3600 * 1000);
    block_on(store.sweep(100)).unwrap();
    assert_eq!(block_on(store.run(run.run.run)).unwrap(), None);
    assert_eq!(block_on(store.health()).unwrap().runs, 1);
}

#[test]
fn a_payload_beyond_the_limit_is_refused_before_anything_begins() {
    let home = tempfile::tempdir().unwrap();
    let store = open(&home.path().join("store.db")).unwrap();
    block_on(store.start_run(started("a", Payload::default()))).unwrap();
    let run = claimed(&store);
    let huge = Payload::from(vec![0; (8 << 20) + 1]);
    let begin = begun(step_of("a", "k"), Some(run.epoch), EffectClass::Once, huge.clone());
    assert!(matches!(block_on(store.begin_step(begin)), Err(StoreError::TooLarge { .. })));
    assert_eq!(block_on(store.step(step_of("a", "k"))).unwrap(), None);
    assert!(matches!(block_on(store.start_run(started("b", huge))), Err(StoreError::TooLarge { .. })));
    assert_eq!(block_on(store.run(named("b"))).unwrap(), None);
}

#[test]
fn what_was_moved_to_another_row_does_not_open() {
    for moved in [
        "UPDATE steps SET payload = (SELECT payload FROM steps WHERE key = 'small') WHERE key = 'other'",
        "UPDATE steps SET payload_blob = (SELECT payload_blob FROM steps WHERE key = 'large') WHERE key = 'larger'",
        "UPDATE steps SET payload = (SELECT payload FROM steps WHERE key = 'large'),
             payload_blob = (SELECT payload_blob FROM steps WHERE key = 'large') WHERE key = 'larger'",
        "UPDATE blobs SET payload = (SELECT payload FROM blobs ORDER BY blob LIMIT 1)",
        "UPDATE effects SET input = (SELECT payload FROM steps WHERE key = 'small')",
        "UPDATE run_payloads SET payload = (SELECT payload FROM steps WHERE key = 'small')",
    ] {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("store.db");
        let store = open(&path).unwrap();
        block_on(store.start_run(started("a", bytes("work")))).unwrap();
        let run = claimed(&store);
        for (key, payload) in [("small", vec![1; 10]), ("other", vec![2; 10]), ("large", vec![3; 70_000])] {
            done(&store, &run, key, &Payload::from(payload));
        }
        done(&store, &run, "larger", &Payload::from(vec![4; 80_000]));
        let begin = begun(effect("mail", "m"), None, EffectClass::Once, bytes("to whom"));
        assert!(matches!(block_on(store.begin_step(begin)), Ok(StepBegun::Execute { .. })));
        assert_eq!(block_on(store.check()).unwrap().faults, []);
        Connection::open(&path).unwrap().execute_batch(moved).unwrap();
        assert_ne!(block_on(store.check()).unwrap().faults, [], "{moved}");
    }
}

#[test]
fn a_check_finds_a_run_that_lost_its_place_and_a_count_that_is_off() {
    for (spoilt, said) in [
        ("DELETE FROM ready", "no place among those to be claimed"),
        ("UPDATE ready SET claimable_from = claimable_from + 1", "not its own"),
        ("UPDATE lanes SET runs = 7", "counts of lanes"),
        ("UPDATE blobs SET refs = 7", "references of blobs"),
        ("UPDATE totals SET bytes = 7 WHERE kind = 'runs'", "counts of runs"),
    ] {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("store.db");
        let store = open(&path).unwrap();
        block_on(store.start_run(started("a", Payload::from(vec![3; 70_000])))).unwrap();
        assert_eq!(block_on(store.check()).unwrap().faults, []);
        Connection::open(&path).unwrap().execute_batch(spoilt).unwrap();
        let faults = block_on(store.check()).unwrap().faults;
        assert!(faults.iter().any(|fault| fault.contains(said)), "{spoilt}: {faults:?}");
    }
}

#[test]
fn a_run_of_thousands_of_steps_is_read_in_pages_and_ends_at_the_limit() {
    const STEPS: usize = 1_500;
    let home = tempfile::tempdir().unwrap();
    let limits = Limits { steps: STEPS as u64, ..Limits::FILE };
    let path = home.path().join("store.db");
    let store = SqliteStore::open(&path, options(limits), ManualClock::start()).unwrap();
    block_on(store.start_run(started("long", bytes("work")))).unwrap();
    let run = claimed(&store);
    let place = |number: usize| step_of("long", &format!("step-{number}"));
    let begin = |number: usize| begun(place(number), Some(run.epoch), EffectClass::Pure, bytes("asked"));
    let answers: Vec<_> = (0..STEPS).map(|number| store.begin_step(begin(number))).collect();
    assert!(answers.into_iter().all(|answer| matches!(block_on(answer), Ok(StepBegun::Execute { .. }))));
    let end = |number: usize| ended(place(number), run.epoch, 1, bytes(&format!("result {number}")));
    let answers: Vec<_> = (0..STEPS).map(|number| store.end_step(end(number))).collect();
    assert!(answers.into_iter().all(|answer| block_on(answer) == Ok(StepEnded::Done)));

    let refused = block_on(store.begin_step(begin(STEPS))).unwrap_err();
    assert!(matches!(refused, StoreError::LimitReached { .. }), "{refused}");
    let again = block_on(store.begin_step(begin(3))).unwrap();
    assert_eq!(again, StepBegun::Done { result: bytes("result 3"), diverged: false });
    let (mut after, mut read) = (Some(0), Vec::new());
    while let Some(from) = after {
        let page = block_on(store.journal(named("long"), from, JournalPage::LARGEST)).unwrap();
        read.extend(page.steps);
        after = page.next;
    }
    assert_eq!(read.len(), STEPS);
    let in_order = read.iter().zip(0..).all(|(step, number)| {
        (step.sequence, &step.payload) == (number as i64 + 1, &bytes(&format!("result {number}")))
    });
    assert!(in_order);
}

#[test]
fn a_large_run_is_forgotten_part_by_part() {
    const STEPS: usize = 10_500;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    let clock = ManualClock::start();
    let store = SqliteStore::open(&path, options(Limits::FILE), clock.clone()).unwrap();
    block_on(store.start_run(started("long", bytes("work")))).unwrap();
    let run = claimed(&store);
    done(&store, &run, "first", &bytes("one"));
    // What that many commands would leave.
    let db = Connection::open(&path).unwrap();
    db.execute(
        "INSERT INTO steps (run, sequence, key, kind, name, divergences, state, fingerprint, attempt, forgiven, unclear,
             epoch, fenced, held_until, deadline, not_before, first_at, budget_from, spent, approved, begun_at, ended_at,
             bytes)
         SELECT run, value, 'k' || value, kind, name, 0, 1, fingerprint, 1, 0, 0, epoch, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
         FROM steps, (WITH RECURSIVE n(value) AS (VALUES (2) UNION ALL SELECT value + 1 FROM n WHERE value < ?1)
             SELECT value FROM n)",
        [STEPS as i64],
    )
    .unwrap();
    let finish =
        FinishRun { run: run.run.run, epoch: Some(run.epoch), state: RunState::Done, output: Payload::default() };
    assert_eq!(block_on(store.finish_run(finish)), Ok(Fenced::Held));
    clock.advance(91 * 24 * 3600 * 1000);
    assert_eq!(block_on(store.run(named("long"))).unwrap(), None, "gone at that instant");
    let left = || db.query_row("SELECT count(*) FROM steps", [], |row| row.get::<_, i64>(0)).unwrap();
    assert!(block_on(store.sweep(100)).unwrap().more);
    assert_eq!(left(), STEPS as i64 - 10_000, "so many at once, as the writer is held up by it");
    assert!(!block_on(store.sweep(100)).unwrap().more);
    assert_eq!((left(), block_on(store.health()).unwrap().runs), (0, 0));
    assert_eq!(block_on(store.check()).unwrap().faults, []);
}

#[test]
fn idle_runs_have_no_place_among_those_to_be_claimed() {
    const IDLE: usize = 300;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    let store = Arc::new(open(&path).unwrap());
    for number in 0..IDLE {
        drop(store.start_run(started(&format!("idle-{number}"), Payload::default())));
    }
    let claims: Vec<_> = (0..IDLE).map(|_| store.claim_run(claim("w", HOUR))).collect();
    let waits: Vec<_> = claims
        .into_iter()
        .map(|claim| block_on(claim).unwrap().unwrap())
        .map(|run| store.wait_run(waits(run.run.run.id.as_str(), run.epoch, "paid")))
        .collect();
    assert!(waits.into_iter().all(|wait| block_on(wait) == Ok(outlast_store::Waited::Parked)));
    let db = Connection::open(&path).unwrap();
    let ready = || db.query_row("SELECT count(*) FROM ready", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(ready(), 0);
    assert_eq!(block_on(store.claim_run(claim("w", HOUR))).unwrap(), None);
    let told = block_on(store.signal_run(signal("idle-7", "s", bytes("yes"))));
    assert_eq!(told, Ok(outlast_store::Signalled::Accepted));
    assert_eq!(ready(), 1);
    assert_eq!(claimed(&*store).run.run, named("idle-7"));
    let health = block_on(store.health()).unwrap();
    assert_eq!((health.runs, health.runs_running, health.runs_waiting), (IDLE as u64, 1, IDLE as u64 - 1));
}
