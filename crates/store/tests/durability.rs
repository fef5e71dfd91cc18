//! Nothing answered is lost and nothing is claimed twice: killed processes, several at once, backups and restores.

mod common;

use common::{block_on, open, options, sealed};
use outlast_model::policy::Priority;
use outlast_store::{
    BeginCall, Begun, CallEnd, ClaimQueued, CompleteQueued, EndCall, Enqueue, Enqueued, Fenced, Limits, Payload,
    QueueState, SqliteOptions, SqliteStore, Store, StoreError,
    conformance::ManualClock,
    sqlite::{Restored, restore},
};
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

const HOUR: Duration = Duration::from_secs(3600);

fn request(id: &str) -> Enqueue {
    Enqueue {
        id: id.into(),
        tenant: "acme".into(),
        route: "support".into(),
        priority: Priority::Normal,
        payload: Payload::from(id.as_bytes().to_vec()),
        expires_in: HOUR,
        webhook: Some("later".into()),
    }
}

fn claim() -> ClaimQueued {
    ClaimQueued { worker: "w".into(), routes: vec!["support".into()], lease: HOUR }
}

fn state(store: &dyn Store, id: &str) -> Option<QueueState> {
    block_on(store.queued("acme".into(), id.into())).unwrap().map(|view| view.state)
}

const KILLED: &str = "OUTLAST_TEST_KILLED_STORE";

/// The child's life: it writes in a loop and says what was acknowledged, until it is killed.
fn write_until_killed(path: &Path, name: &str) {
    let store = open(path).unwrap();
    for number in 0.. {
        // Several at once, so that they share commits.
        let ids: Vec<String> = (0..7).map(|lane| format!("{name}-{number}-{lane}")).collect();
        let answers: Vec<_> = ids.iter().map(|id| store.enqueue(request(id))).collect();
        for (id, answer) in ids.iter().zip(answers) {
            if matches!(block_on(answer), Ok(Enqueued::Queued { .. })) {
                println!("acknowledged {id}");
            }
        }
        if let Some(item) = block_on(store.claim_queued(claim())).unwrap() {
            let done = CompleteQueued { id: item.id.clone(), epoch: item.epoch, reply: item.payload };
            if block_on(store.complete_queued(done)) == Ok(Fenced::Held) {
                println!("completed {}", item.id);
            }
        }
    }
}

fn writing_child(path: &Path, name: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_process_loses_nothing_that_was_acknowledged", "--nocapture"])
        .env(KILLED, path)
        .env("OUTLAST_TEST_NAME", name)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Lets the child acknowledge some rows, kills it without warning, and returns everything it had said by then.
fn kill_after(mut child: Child, lines: usize) -> Vec<String> {
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged: Vec<String> = said.by_ref().take(lines).map(Result::unwrap).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    acknowledged.extend(said.map_while(Result::ok));
    acknowledged
}

#[test]
fn a_killed_process_loses_nothing_that_was_acknowledged() {
    if let Some(path) = std::env::var_os(KILLED) {
        return write_until_killed(Path::new(&path), &std::env::var("OUTLAST_TEST_NAME").unwrap());
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    drop(open(&path).unwrap());
    let mut said = Vec::new();
    for round in 0..4 {
        // Two processes at once on the same file, killed at different points of their work.
        let children = [writing_child(&path, &format!("a{round}")), writing_child(&path, &format!("b{round}"))];
        for (number, child) in children.into_iter().enumerate() {
            said.extend(kill_after(child, 20 + 17 * round + 5 * number));
        }
        let store = open(&path).unwrap();
        assert_eq!(block_on(store.check()).unwrap().faults, []);
        let mut rows = 0;
        for line in &said {
            if let Some(id) = line.strip_prefix("acknowledged ") {
                assert!(state(&store, id).is_some(), "{id} was acknowledged and is lost");
                rows += 1;
            }
            if let Some(id) = line.strip_prefix("completed ") {
                let reply = Payload::from(id.as_bytes().to_vec());
                assert_eq!(state(&store, id), Some(QueueState::Done(reply)), "{id} was completed");
            }
        }
        assert!(rows > 20);
    }
}

#[test]
fn two_processes_with_many_tasks_never_claim_the_same_request() {
    const ITEMS: usize = 300;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    let clock = ManualClock::start();
    let handle = || Arc::new(SqliteStore::open(&path, options(Limits::FILE), clock.clone()).unwrap());
    let handles = [handle(), handle()];
    let claimed = Mutex::new(Vec::new());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    runtime.block_on(async {
        let filled = (0..ITEMS).map(|number| handles[number % 2].enqueue(request(&format!("q{number}"))));
        for answer in filled.collect::<Vec<_>>() {
            assert!(matches!(answer.await, Ok(Enqueued::Queued { .. })));
        }
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..24 {
            let store = Arc::clone(&handles[task % 2]);
            tasks.spawn(async move {
                let mut mine = Vec::new();
                while let Some(item) = store.claim_queued(claim()).await.unwrap() {
                    let done = CompleteQueued { id: item.id.clone(), epoch: item.epoch, reply: Payload::default() };
                    assert_eq!(store.complete_queued(done).await, Ok(Fenced::Held));
                    mine.push((item.id, item.epoch));
                }
                mine
            });
        }
        while let Some(mine) = tasks.join_next().await {
            claimed.lock().unwrap().extend(mine.unwrap());
        }
    });
    let claimed = claimed.into_inner().unwrap();
    let ids: BTreeSet<_> = claimed.iter().map(|(id, _)| id.clone()).collect();
    let epochs: BTreeSet<_> = claimed.iter().map(|(_, epoch)| *epoch).collect();
    assert_eq!((claimed.len(), ids.len(), epochs.len()), (ITEMS, ITEMS, ITEMS));
}

#[test]
fn one_key_asked_by_many_tasks_at_once_is_executed_once() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    let handles = [open(&path).unwrap(), open(&path).unwrap()];
    let begin = || BeginCall { tenant: "acme".into(), key: "k".into(), fingerprint: [1; 32], lease: HOUR, keep: HOUR };
    let answers: Vec<_> = (0..60).map(|number| handles[number % 2].begin_call(begin())).collect();
    let begun: Vec<_> = answers.into_iter().map(|answer| block_on(answer).unwrap()).collect();
    let executed = begun.iter().filter(|begun| matches!(begun, Begun::Execute { .. })).count();
    let in_flight = begun.iter().filter(|begun| matches!(begun, Begun::InFlight { .. })).count();
    assert_eq!((executed, in_flight), (1, 59));
}

#[test]
fn a_backup_taken_under_load_is_whole_and_of_one_instant() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    let store = open(&path).unwrap();
    for number in 0..200 {
        assert!(block_on(store.enqueue(request(&format!("before{number}")))).is_ok());
    }
    let load: Vec<_> = (0..300).map(|number| store.enqueue(request(&format!("during{number}")))).collect();
    let copy = home.path().join("backup.db");
    let backed_up = block_on(store.backup(copy.clone())).unwrap();
    assert_eq!(backed_up.bytes, fs::metadata(&copy).unwrap().len());
    assert!(load.into_iter().all(|answer| block_on(answer).is_ok()));

    let error = block_on(store.backup(copy.clone())).unwrap_err();
    assert!(matches!(error, StoreError::Taken { .. }), "a backup overwrites nothing: {error}");
    let copied = open(&copy).unwrap();
    assert_eq!(block_on(copied.check()).unwrap().faults, []);
    let there: Vec<bool> = (0..300).map(|number| state(&copied, &format!("during{number}")).is_some()).collect();
    assert!((0..200).all(|number| state(&copied, &format!("before{number}")).is_some()));
    assert!(there.is_sorted_by(|earlier, later| earlier >= later), "a later row without an earlier one");
}

#[test]
fn a_restored_store_is_the_backup_and_fences_whoever_was_at_work() {
    let home = tempfile::tempdir().unwrap();
    let (path, copy) = (home.path().join("store.db"), home.path().join("backup.db"));
    let store = open(&path).unwrap();
    assert!(block_on(store.enqueue(request("kept"))).is_ok());
    block_on(store.backup(copy.clone())).unwrap();
    let worker = block_on(store.claim_queued(claim())).unwrap().unwrap();
    assert!(block_on(store.enqueue(request("since"))).is_ok());

    let error = restore(&copy, &path).unwrap_err();
    assert!(matches!(error, StoreError::Busy { .. }), "never over an open store: {error}");
    drop(store);
    let aside = home.path().join("store.db.before-restore-1");
    assert_eq!(restore(&copy, &path), Ok(Restored { set_aside: Some(aside.clone()) }));

    let store = open(&path).unwrap();
    assert!(state(&store, "kept").is_some() && state(&store, "since").is_none());
    let again = block_on(store.claim_queued(claim())).unwrap().unwrap();
    assert!(again.epoch > worker.epoch);
    let late = CompleteQueued { id: worker.id, epoch: worker.epoch, reply: Payload::default() };
    assert_eq!(block_on(store.complete_queued(late)), Ok(Fenced::Lost));
    assert!(state(&open(&aside).unwrap(), "since").is_some(), "what was there before is still to be had");
}

#[test]
fn a_log_that_a_killed_process_left_never_meets_the_restored_file() {
    let home = tempfile::tempdir().unwrap();
    let (path, copy) = (home.path().join("store.db"), home.path().join("backup.db"));
    let store = open(&path).unwrap();
    block_on(store.backup(copy.clone())).unwrap();
    assert!(block_on(store.enqueue(request("in the log"))).is_ok());
    // What a killed process leaves: a file and a log that was never brought into it.
    let left = home.path().join("left.db");
    for suffix in ["", "-wal"] {
        fs::copy(format!("{}{suffix}", path.display()), format!("{}{suffix}", left.display())).unwrap();
    }
    let restored = restore(&copy, &left).unwrap();
    assert!(state(&open(&left).unwrap(), "in the log").is_none());
    assert!(state(&open(&restored.set_aside.unwrap()).unwrap(), "in the log").is_some());
}

#[test]
fn a_damaged_backup_is_refused_before_anything_is_touched() {
    let home = tempfile::tempdir().unwrap();
    let (path, copy) = (home.path().join("store.db"), home.path().join("backup.db"));
    let store = open(&path).unwrap();
    for number in 0..100 {
        assert!(block_on(store.enqueue(request(&format!("q{number}")))).is_ok());
    }
    block_on(store.backup(copy.clone())).unwrap();
    drop(store);
    let mut bytes = fs::read(&copy).unwrap();
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..middle + 4096] {
        *byte = !*byte;
    }
    fs::write(&copy, bytes).unwrap();
    let before = fs::read(&path).unwrap();
    let error = restore(&copy, &path).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(restore(&home.path().join("none.db"), &path).is_err());
    assert_eq!(fs::read(&path).unwrap(), before);
    let names: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("restor")), "{names:?}");
}

#[test]
fn a_store_is_restored_where_there_was_none() {
    let home = tempfile::tempdir().unwrap();
    let (path, copy) = (home.path().join("store.db"), home.path().join("backup.db"));
    let store = open(&path).unwrap();
    let epoch = match block_on(store.begin_call(BeginCall {
        tenant: "acme".into(),
        key: "k".into(),
        fingerprint: [1; 32],
        lease: HOUR,
        keep: HOUR,
    })) {
        Ok(Begun::Execute { epoch }) => epoch,
        other => panic!("{other:?}"),
    };
    let end = CallEnd::Done(Payload::from(b"reply".to_vec()));
    let end = EndCall { tenant: "acme".into(), key: "k".into(), epoch, end };
    assert_eq!(block_on(store.end_call(end)), Ok(Fenced::Held));
    block_on(store.backup(copy.clone())).unwrap();
    let elsewhere = home.path().join("new/place/store.db");
    assert_eq!(restore(&copy, &elsewhere), Ok(Restored { set_aside: None }));
    let restored = SqliteStore::open(&elsewhere, SqliteOptions::new(sealed()), ManualClock::start()).unwrap();
    assert_eq!(block_on(restored.health()).unwrap().calls, 1);
}
