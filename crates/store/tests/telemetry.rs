//! The telemetry file, seen from outside.

use outlast_model::{
    Failure, FailureReport, TargetId, Usd, Wall,
    policy::{Dialect, ToolMode},
    record::{AttemptReason, AttemptRecord, CALL_RECORD_VERSION, CallRecord, Decision, Outcome, SchemaStatus},
    turn::Usage,
};
use outlast_store::telemetry::{
    CallFilter, Counters, Feedback, OpenError, Opened, Retention, TelemetryFile, TelemetryReader, WriteError,
};
use std::{fs, path::Path, time::Duration};

const NOW: Wall = Wall(1_800_000_000_000);

#[test]
fn a_call_comes_back_as_it_was_written() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("deep/down/telemetry.db");
    let (mut file, opened) = open(&path);
    assert_eq!(opened, Opened::Fresh);
    let call = rerouted("req_1", NOW);
    file.write_batch([&call], &counted([&call])).unwrap();

    let reader = TelemetryReader::open(&path).unwrap();
    assert_eq!(reader.get("req_1").unwrap(), Some(call));
    assert_eq!(reader.get("req_2").unwrap(), None);
    drop(file);
    assert_eq!(open(&path).1, Opened::Existing);
}

#[test]
fn counters_add_up_over_batches_and_processes() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("telemetry.db");
    for _ in 0..3 {
        let (mut file, _) = open(&path);
        let calls = [plain("req_a", NOW), rerouted("req_b", NOW), plain("req_c", Wall(NOW.0 + 60_000))];
        file.write_batch([], &counted(&calls)).unwrap();
    }
    let rows = TelemetryReader::open(&path).unwrap().counters(Wall(0)).unwrap();
    let summary: Vec<_> = rows
        .iter()
        .map(|row| (row.minute - NOW.0 / 60_000, row.target.as_str(), row.counts.calls, row.counts.wasted_calls))
        .collect();
    assert_eq!(summary, [(0, "a/small", 3, 0), (0, "b/large", 3, 3), (1, "a/small", 3, 0)]);
    assert_eq!(rows[1].counts.failovers, 3);
    assert_eq!(rows[1].counts.attempts, 6);
    assert_eq!(rows[1].counts.output_tokens, 3 * 20);
    assert_eq!(rows[1].counts.cost_nanos, 3 * 500);
}

#[test]
fn a_batch_given_twice_stores_each_call_once() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("telemetry.db");
    let (mut file, _) = open(&path);
    let call = plain("req_1", NOW);
    file.write_batch([&call, &call], &Counters::default()).unwrap();
    file.write_batch([&call], &Counters::default()).unwrap();
    let reader = TelemetryReader::open(&path).unwrap();
    assert_eq!(reader.recent(&CallFilter::default(), 10).unwrap().len(), 1);
}

#[test]
fn calls_are_found_by_what_they_were() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("telemetry.db");
    let (mut file, _) = open(&path);
    let mut failed = rerouted("req_3", Wall(NOW.0 + 2));
    failed.outcome = Outcome::Failed(Failure::Exhausted);
    failed.served_by = None;
    failed.task_id = Some("nightly".into());
    let calls = [plain("req_1", NOW), rerouted("req_2", Wall(NOW.0 + 1)), failed];
    file.write_batch(&calls, &Counters::default()).unwrap();

    let reader = TelemetryReader::open(&path).unwrap();
    let ids = |filter: CallFilter| -> Vec<String> {
        let found = reader.recent(&filter, 10).unwrap();
        found.iter().map(|call| call.request_id.to_string()).collect()
    };
    assert_eq!(ids(CallFilter::default()), ["req_3", "req_2", "req_1"]);
    assert_eq!(ids(CallFilter { troubled: true, ..CallFilter::default() }), ["req_3", "req_2"]);
    assert_eq!(ids(CallFilter { outcome: Some("failed".into()), ..CallFilter::default() }), ["req_3"]);
    assert_eq!(ids(CallFilter { served_by: Some("b/large".into()), ..CallFilter::default() }), ["req_2"]);
    assert_eq!(ids(CallFilter { task_id: Some("nightly".into()), ..CallFilter::default() }), ["req_3"]);
    let window = CallFilter { since: Some(Wall(NOW.0 + 1)), before: Some(Wall(NOW.0 + 2)), ..CallFilter::default() };
    assert_eq!(ids(window), ["req_2"]);
    assert_eq!(ids(CallFilter { route: Some("nothing".into()), ..CallFilter::default() }), [""; 0]);
    assert_eq!(reader.recent(&CallFilter::default(), 2).unwrap().len(), 2);
}

#[test]
fn what_is_too_old_or_too_much_goes_the_oldest_first() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("telemetry.db");
    let retention =
        Retention { calls_age: Duration::from_secs(3600), calls_max: 5, counters_age: Duration::from_secs(7200) };
    let (mut file, _) = TelemetryFile::open(&path, retention, NOW).unwrap();
    assert_eq!(file.retain(NOW).unwrap(), 0);
    let hour = 3_600_000;
    let calls: Vec<_> = (0..10).map(|n| plain(&format!("req_{n}"), Wall(NOW.0 + n * 1000))).collect();
    let mut all = vec![plain("req_old", Wall(NOW.0 - hour - 1)), plain("req_older", Wall(NOW.0 - 3 * hour))];
    all.extend(calls);
    file.write_batch(&all, &counted(&all)).unwrap();
    while file.retain(NOW).unwrap() > 0 {}

    let reader = TelemetryReader::open(&path).unwrap();
    let left: Vec<_> = reader.recent(&CallFilter::default(), 100).unwrap();
    let left: Vec<_> = left.iter().map(|call| call.request_id.as_str()).collect();
    assert_eq!(left, ["req_9", "req_8", "req_7", "req_6", "req_5"]);
    let counted: u64 = reader.counters(Wall(0)).unwrap().iter().map(|row| row.counts.calls).sum();
    assert_eq!(counted, 11, "only the counter of three hours ago is gone");
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("telemetry.db");
    drop(open(&path));
    rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 7").unwrap();
    let before = fs::read(&path).unwrap();

    let error = TelemetryFile::open(&path, Retention::default(), NOW).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 7, .. }));
    let text = error.to_string();
    assert!(text.contains("telemetry.db") && text.contains("schema 7") && text.contains("Upgrade"), "{text}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn another_programs_database_is_refused_and_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("other.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE customers (id)").unwrap();
    assert!(matches!(TelemetryFile::open(&path, Retention::default(), NOW), Err(OpenError::Foreign(_))));
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
}

#[test]
fn a_damaged_file_is_set_aside_and_a_new_one_begun() {
    let garbage = b"this is not a database, and it is long enough to have a header of its own ".repeat(40);
    let half = |path: &Path| {
        let (mut file, _) = open(path);
        let calls: Vec<_> = (0..200).map(|n| rerouted(&format!("req_{n}"), NOW)).collect();
        file.write_batch(&calls, &counted(&calls)).unwrap();
        drop(file);
        let whole = fs::read(path).unwrap();
        [&whole[..4096], &vec![0x5a; whole.len() - 4096][..]].concat()
    };
    for (n, damage) in [garbage, half(&tempfile::tempdir().unwrap().path().join("t.db"))].into_iter().enumerate() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("telemetry.db");
        fs::write(&path, &damage).unwrap();
        let (mut file, opened) = open(&path);
        let Opened::Replaced { moved_to, why } = opened else { panic!("case {n}: {opened:?}") };
        assert!(!why.is_empty());
        assert_eq!(fs::read(moved_to).unwrap(), damage, "the damaged file is kept as it was");
        file.write_batch([&plain("req_1", NOW)], &Counters::default()).unwrap();
        assert!(TelemetryReader::open(&path).unwrap().get("req_1").unwrap().is_some());
    }
}

#[test]
fn damage_met_while_writing_is_told_and_the_file_can_be_replaced() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("telemetry.db");
    let (mut file, _) = open(&path);
    let calls: Vec<_> = (0..2000).map(|n| rerouted(&format!("req_{n}"), NOW)).collect();
    file.write_batch(&calls, &counted(&calls)).unwrap();
    // Another connection's change makes the writer read its pages again, and they are nonsense by then.
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("DELETE FROM counters; PRAGMA wal_checkpoint(TRUNCATE);").unwrap();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, [&whole[..4096], &vec![0x5a; whole.len() - 4096][..]].concat()).unwrap();

    let error = file.write_batch([&plain("req_next", NOW)], &Counters::default()).unwrap_err();
    assert!(matches!(error, WriteError::Corrupt(_)), "{error}");
    let (mut file, opened) = file.replace(error.to_string(), NOW).unwrap();
    assert!(matches!(opened, Opened::Replaced { .. }));
    file.write_batch([&plain("req_next", NOW)], &Counters::default()).unwrap();
    assert!(TelemetryReader::open(&path).unwrap().get("req_next").unwrap().is_some());
}

#[test]
fn a_schema_that_is_not_what_its_version_says_is_set_aside() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("telemetry.db");
    drop(open(&path));
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("UPDATE schema_meta SET checksum = 'edited'").unwrap();
    drop(db);
    let Opened::Replaced { why, .. } = open(&path).1 else { panic!("not replaced") };
    assert!(why.contains("checksum"), "{why}");
}

#[test]
fn a_file_of_version_1_is_brought_up_to_date_and_keeps_its_calls() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("telemetry.db");
    let (mut file, _) = open(&path);
    let call = rerouted("req_1", NOW);
    file.write_batch([&call], &Counters::default()).unwrap();
    drop(file);
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch("DROP TABLE feedback; DELETE FROM schema_meta WHERE version = 2; PRAGMA user_version = 1")
        .unwrap();
    drop(db);

    let (mut file, opened) = open(&path);
    assert_eq!(opened, Opened::Existing);
    let rating = rating("req_1", 0.0);
    file.write_feedback([&rating]).unwrap();
    let reader = TelemetryReader::open(&path).unwrap();
    assert_eq!(reader.get("req_1").unwrap(), Some(call));
    assert_eq!(reader.feedback("req_1", "12ab34cd56ef").unwrap(), Some(rating));
}

#[test]
fn a_second_rating_replaces_the_first_and_old_ones_go_with_the_calls() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("telemetry.db");
    let (mut file, _) = open(&path);
    file.write_feedback([&rating("req_1", 1.0), &rating("req_1", 0.25), &rating("req_2", 1.0)]).unwrap();
    let reader = TelemetryReader::open(&path).unwrap();
    let score = |id: &str| reader.feedback(id, "12ab34cd56ef").unwrap().map(|rating| rating.score);
    assert_eq!((score("req_1"), score("req_2"), score("req_3")), (Some(0.25), Some(1.0), None));
    assert_eq!(reader.feedback("req_1", "another").unwrap(), None, "each caller's own");
    while file.retain(Wall(NOW.0 + 31 * 24 * 3_600_000)).unwrap() > 0 {}
    assert_eq!(score("req_1"), None);
}

fn rating(id: &str, score: f64) -> Feedback {
    Feedback {
        request_id: id.into(),
        tenant_hash: "12ab34cd56ef".into(),
        time: NOW,
        route: "support".into(),
        target: Some("a/small".into()),
        score,
        comment: None,
    }
}

#[test]
fn a_reader_of_another_process_sees_commits_while_the_writer_works() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("telemetry.db");
    let (mut file, _) = open(&path);
    let reader = TelemetryReader::open(&path).unwrap();
    for n in 0..20 {
        file.write_batch([&plain(&format!("req_{n}"), NOW)], &Counters::default()).unwrap();
        assert_eq!(reader.recent(&CallFilter::default(), 100).unwrap().len(), n + 1);
    }
}

fn open(path: &Path) -> (TelemetryFile, Opened) {
    TelemetryFile::open(path, Retention::default(), NOW).unwrap()
}

fn counted<'a>(calls: impl IntoIterator<Item = &'a CallRecord>) -> Counters {
    let mut counters = Counters::default();
    for call in calls {
        counters.add(call.route.clone(), call);
    }
    counters
}

fn plain(id: &str, started: Wall) -> CallRecord {
    CallRecord {
        version: CALL_RECORD_VERSION,
        request_id: id.into(),
        trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
        task_id: None,
        run: None,
        tenant_hash: Some("12ab34cd56ef".into()),
        workflow_step: None,
        route: "support".into(),
        dialect: Dialect::OpenaiChat,
        stream: false,
        started,
        latency_us: 1500,
        first_output_us: None,
        planned: vec!["a/small".into(), "b/large".into()],
        left_out: Vec::new(),
        attempts: vec![attempt("a/small", None)],
        outcome: Outcome::Answered,
        served_by: Some("a/small".into()),
        degraded: false,
        gave_up: Vec::new(),
        tool_mode: ToolMode::Full,
        backstop: None,
        confidence: None,
        agreement: None,
        tier: None,
        risk: None,
        state: None,
        parent: None,
        schema_status: SchemaStatus::None,
        cost: Usd::from_nanos(500),
        wasted: Usd::ZERO,
    }
}

fn rerouted(id: &str, started: Wall) -> CallRecord {
    CallRecord {
        attempts: vec![attempt("a/small", Some(Failure::Overloaded)), attempt("b/large", None)],
        served_by: Some("b/large".into()),
        ..plain(id, started)
    }
}

fn attempt(target: &str, failure: Option<Failure>) -> AttemptRecord {
    AttemptRecord {
        target: TargetId::from(target),
        key: 0,
        reason: AttemptReason::First,
        started_us: 0,
        first_output_us: None,
        took_us: 1200,
        failure: failure.map(FailureReport::of),
        problems: Vec::new(),
        fixes: Vec::new(),
        tool_mode: ToolMode::Full,
        shortened: false,
        finish: None,
        bytes_out: 900,
        bytes_in: 700,
        usage: Usage { input_tokens: 5, output_tokens: 10, ..Usage::default() },
        cost: Some(Usd::from_nanos(250)),
        decision: if failure.is_some() { Decision::Reroute } else { Decision::Deliver },
    }
}
