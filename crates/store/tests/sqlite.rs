//! The SQLite store where its file is in trouble: full, read-only, damaged, shared, sealed with another key.

mod common;

use common::{block_on, open, options, sealed};
use outlast_store::{
    Access, BeginCall, Begun, CallEnd, DataKey, DecideEscalation, Decided, Delivered, EndCall, Enqueue, Enqueued,
    Epoch, Fenced, Limits, OpenEscalation, Payload, PeopleStore, QueueState, Sealing, SqliteOptions, SqliteStore,
    Store, StoreError, conformance::ManualClock,
};
use rusqlite::Connection;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

const HOUR: Duration = Duration::from_secs(3600);

fn request(id: &str, payload: impl Into<Vec<u8>>) -> Enqueue {
    Enqueue {
        id: id.into(),
        tenant: "acme".into(),
        route: "support".into(),
        priority: outlast_model::policy::Priority::Normal,
        payload: Payload::new(payload.into()),
        expires_in: HOUR,
        webhook: None,
    }
}

fn enqueue(store: &dyn Store, id: &str) {
    let queued = block_on(store.enqueue(request(id, "a question nobody else may read")));
    assert!(matches!(queued, Ok(Enqueued::Queued { .. })), "{queued:?}");
}

fn waits(store: &dyn Store, id: &str) -> bool {
    let view = block_on(store.queued("acme".into(), id.into())).unwrap();
    matches!(view.map(|view| view.state), Some(QueueState::Waiting { .. }))
}

fn with_keys(path: &Path, keys: &[u8]) -> Result<SqliteStore, StoreError> {
    let keys = keys.iter().map(|number| DataKey::new(&[*number; 32])).collect();
    SqliteStore::open(path, SqliteOptions::new(Sealing::Keys(keys)), ManualClock::start())
}

fn in_plaintext(path: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(path, SqliteOptions::new(Sealing::Plaintext), ManualClock::start())
}

#[test]
fn a_full_disk_fails_the_command_that_needs_room_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    let options = SqliteOptions { max_bytes: Some(400_000), ..options(Limits::FILE) };
    let store = SqliteStore::open(&path, options, ManualClock::start()).unwrap();
    enqueue(&store, "before");
    let epoch = match block_on(store.begin_call(call("key"))) {
        Ok(Begun::Execute { epoch }) => epoch,
        other => panic!("{other:?}"),
    };

    // Handed over while the writer waits, so that they share a transaction: the large one alone must fail.
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let first = store.enqueue(request("first", "f"));
    let small = store.enqueue(request("small", "s"));
    let large = store.enqueue(request("large", vec![7; 1 << 20]));
    let last = store.enqueue(request("last", "o"));
    other.execute_batch("COMMIT").unwrap();
    assert!(matches!(block_on(first), Ok(Enqueued::Queued { .. })));
    assert!(matches!(block_on(large), Err(StoreError::Full { .. })));
    assert!(matches!(block_on(small), Ok(Enqueued::Queued { .. })));
    assert!(matches!(block_on(last), Ok(Enqueued::Queued { .. })));
    assert!(!waits(&store, "large") && waits(&store, "small") && waits(&store, "before"));

    let end = |bytes: usize| EndCall {
        tenant: "acme".into(),
        key: "key".into(),
        epoch,
        end: CallEnd::Done(Payload::from(vec![1; bytes])),
    };
    assert!(matches!(block_on(store.end_call(end(1 << 20))), Err(StoreError::Full { .. })));
    assert_eq!(block_on(store.end_call(end(10))), Ok(Fenced::Held), "the claim was not lost with the room");
    assert_eq!(block_on(store.check()).unwrap().faults, []);
}

#[test]
fn a_disk_that_was_full_serves_again_once_there_is_room() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    let options = SqliteOptions { max_bytes: Some(600_000), ..options(Limits::FILE) };
    let clock = ManualClock::start();
    let store = SqliteStore::open(&path, options, clock.clone()).unwrap();
    let mut kept = 0;
    while let Ok(Enqueued::Queued { .. }) = block_on(store.enqueue(request(&format!("q{kept}"), vec![3; 20_000]))) {
        kept += 1;
    }
    assert!(kept > 3);
    // They expire, are forgotten, and their room can be used again.
    clock.advance(3_600_000);
    assert_eq!(block_on(store.sweep(1_000)).unwrap().expired, kept);
    assert!(matches!(block_on(store.enqueue(request("again", vec![3; 20_000]))), Ok(Enqueued::Queued { .. })));
}

#[test]
fn what_is_swept_gives_its_room_back_to_the_disk() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    let clock = ManualClock::start();
    let store = SqliteStore::open(&path, options(Limits::FILE), clock.clone()).unwrap();
    for number in 0..60 {
        assert!(block_on(store.enqueue(request(&format!("q{number}"), vec![5; 100_000]))).is_ok());
    }
    clock.advance(3_600_000);
    assert_eq!(block_on(store.sweep(1_000)).unwrap().expired, 60);
    for _ in 0..10 {
        assert_eq!(block_on(store.sweep(1_000)).unwrap().removed, 0);
    }
    drop(store);
    let size = fs::metadata(&path).unwrap().len();
    assert!(size < 1_500_000, "{size} bytes for sixty tombstones");
}

#[test]
fn several_processes_may_begin_the_same_store_at_once() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    std::thread::scope(|scope| {
        let openings: Vec<_> = (0..8).map(|_| scope.spawn(|| open(&path))).collect();
        let stores: Vec<_> = openings.into_iter().map(|opening| opening.join().unwrap().unwrap()).collect();
        for (number, store) in stores.iter().enumerate() {
            enqueue(store, &format!("q{number}"));
        }
        assert_eq!(block_on(stores[0].health()).unwrap().queue_waiting, 8);
    });
}

fn call(key: &str) -> BeginCall {
    BeginCall { tenant: "acme".into(), key: key.into(), fingerprint: [1; 32], lease: HOUR, keep: HOUR }
}

#[test]
fn a_store_opened_for_reading_reads_and_refuses_to_write() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    let read = SqliteOptions { access: Access::Read, ..options(Limits::FILE) };
    assert!(SqliteStore::open(&path, read.clone(), ManualClock::start()).is_err(), "there is nothing to read");
    assert!(!path.exists(), "and nothing was made");
    enqueue(&open(&path).unwrap(), "kept");

    let store = SqliteStore::open(&path, read, ManualClock::start()).unwrap();
    assert!(waits(&store, "kept"));
    assert!(!block_on(store.health()).unwrap().writable);
    let error = block_on(store.enqueue(request("new", "n"))).unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
    let backup = home.path().join("backup.db");
    assert!(block_on(store.backup(backup)).unwrap().bytes > 0);
}

#[test]
fn a_directory_that_cannot_be_written_is_said_or_read() {
    const STEP: &str = "OUTLAST_TEST_READ_ONLY_HOME";
    if let Some(home) = std::env::var_os(STEP) {
        let path = Path::new(&home).join("store.db");
        let error = open(&path).unwrap_err();
        assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
        let degraded = SqliteOptions { access: Access::WriteIfPossible, ..options(Limits::FILE) };
        let store = SqliteStore::open(&path, degraded, ManualClock::start()).unwrap();
        assert!(waits(&store, "kept"));
        assert!(matches!(block_on(store.enqueue(request("new", "n"))), Err(StoreError::ReadOnly { .. })));
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    enqueue(&open(&path).unwrap(), "kept");
    let modes = |file: u32, directory: u32| {
        for entry in fs::read_dir(home.path()).unwrap() {
            fs::set_permissions(entry.unwrap().path(), fs::Permissions::from_mode(file)).unwrap();
        }
        fs::set_permissions(home.path(), fs::Permissions::from_mode(directory)).unwrap();
    };
    modes(0o444, 0o555);
    // The superuser may write anything, so its test continues as somebody else.
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "a_directory_that_cannot_be_written_is_said_or_read", "--nocapture"]).env(STEP, home.path());
    if fs::metadata(home.path()).unwrap().uid() == 0 {
        use std::os::unix::process::CommandExt;
        child.uid(65534).gid(65534).current_dir("/");
    }
    let ended = child.output().unwrap();
    modes(0o644, 0o755);
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn nobody_but_the_owner_may_read_the_file_and_nobody_finds_a_payload_in_it() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state/store.db");
    let store = open(&path).unwrap();
    enqueue(&store, "q");
    let mut files = 0;
    for entry in fs::read_dir(path.parent().unwrap()).unwrap() {
        let file = entry.unwrap().path();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600, "{}", file.display());
        let bytes = fs::read(&file).unwrap();
        assert!(!bytes.windows(11).any(|window| window == b"nobody else"), "{}", file.display());
        files += 1;
    }
    assert!(files >= 3, "the file, its log and its lock at least");
}

#[test]
fn a_missing_key_is_named_and_a_rotated_one_opens_both() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    enqueue(&with_keys(&path, &[1]).unwrap(), "old");
    let error = with_keys(&path, &[2]).unwrap_err();
    assert!(error.to_string().contains(&DataKey::new(&[1; 32]).id()), "{error}");

    enqueue(&with_keys(&path, &[2, 1]).unwrap(), "new");
    let error = with_keys(&path, &[1]).unwrap_err();
    assert!(error.to_string().contains(&DataKey::new(&[2; 32]).id()), "{error}");

    // The old key was dropped too early: what it sealed says so, the rest works.
    let store = with_keys(&path, &[2]).unwrap();
    let claim = || outlast_store::ClaimQueued { worker: "w".into(), routes: vec!["support".into()], lease: HOUR };
    let error = block_on(store.claim_queued(claim())).unwrap_err();
    assert!(matches!(&error, StoreError::KeyMissing { key, .. } if **key == DataKey::new(&[1; 32]).id()), "{error}");
    assert!(waits(&store, "old"), "the claim was taken back with it");
    assert_eq!(block_on(store.check()).unwrap().faults.len(), 1);
    drop(store);
    let store = with_keys(&path, &[2, 1]).unwrap();
    assert_eq!(&*block_on(store.claim_queued(claim())).unwrap().unwrap().id, "old");
    assert_eq!(&*block_on(store.claim_queued(claim())).unwrap().unwrap().id, "new");
}

#[test]
fn plaintext_and_sealed_payloads_are_never_mixed() {
    let home = tempfile::tempdir().unwrap();
    let (one, two) = (home.path().join("sealed.db"), home.path().join("plain.db"));
    enqueue(&open(&one).unwrap(), "q");
    assert!(matches!(in_plaintext(&one), Err(StoreError::KeyMissing { .. })));
    enqueue(&in_plaintext(&two).unwrap(), "q");
    assert!(matches!(open(&two), Err(StoreError::NotSealed { .. })));
    assert!(waits(&in_plaintext(&two).unwrap(), "q"));
}

#[test]
fn a_damaged_file_is_refused_and_left_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    let store = open(&path).unwrap();
    for number in 0..50 {
        enqueue(&store, &format!("q{number}"));
    }
    drop(store);
    let whole = fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    for byte in &mut damaged[8192..40_960] {
        *byte ^= 0x55;
    }
    for (what, bytes) in
        [("overwritten", &damaged[..]), ("no database", b"hello, this is no database at all"), ("cut", &whole[..5000])]
    {
        fs::write(&path, bytes).unwrap();
        let error = open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{what}: {error}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "{what}: not touched");
    }
    fs::write(&path, whole).unwrap();
    assert!(waits(&open(&path).unwrap(), "q49"));
}

#[test]
fn a_file_of_another_program_or_of_a_later_outlast_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("other.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    let before = fs::read(&path).unwrap();
    assert!(matches!(open(&path), Err(StoreError::Foreign { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);

    let path = home.path().join("later.db");
    drop(open(&path).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, StoreError::TooNew { found: 99, .. }), "{error}");
}

#[test]
fn a_check_finds_payloads_that_changed_places_and_counts_that_are_wrong() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    let store = open(&path).unwrap();
    for id in ["a", "b", "c"] {
        enqueue(&store, id);
    }
    let checked = block_on(store.check()).unwrap();
    assert_eq!((checked.rows, checked.faults.len()), (3, 0));
    let thief = Connection::open(&path).unwrap();
    thief
        .execute_batch("UPDATE queue SET payload = (SELECT payload FROM queue WHERE id = 'b') WHERE id = 'a'")
        .unwrap();
    thief.execute_batch("UPDATE totals SET rows = 7 WHERE kind = 'queue'").unwrap();
    let faults = block_on(store.check()).unwrap().faults;
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].contains("counts of queue") && faults[1].contains("payload of queue"), "{faults:?}");
}

#[test]
fn a_foreign_writer_is_waited_for_and_then_named() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    let options = SqliteOptions { busy: Duration::from_millis(50), ..options(Limits::FILE) };
    let store = SqliteStore::open(&path, options, ManualClock::start()).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = block_on(store.enqueue(request("q", "x"))).unwrap_err();
    assert!(matches!(error, StoreError::Busy { .. }) && error.passes(), "{error}");
    assert!(!waits(&store, "q"), "reads do not wait for anybody");
    other.execute_batch("COMMIT").unwrap();
    enqueue(&store, "q");
}

#[test]
fn too_many_waiting_commands_are_refused_at_once() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    let store = open(&path).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let look = || Delivered { id: "none".into(), epoch: Epoch(1) };
    let handed_over: Vec<_> = (0..5_000).map(|_| store.delivered(look())).collect();
    let by_bytes: Vec<_> =
        (0..20).map(|number| store.enqueue(request(&format!("b{number}"), vec![0; 4 << 20]))).collect();
    other.execute_batch("COMMIT").unwrap();
    let results: Vec<_> = handed_over.into_iter().map(block_on).collect();
    let refused = results.iter().filter(|result| matches!(result, Err(StoreError::Overloaded { .. }))).count();
    let done = results.iter().filter(|result| **result == Ok(Fenced::Lost)).count();
    assert!(refused > 0 && done >= 4_096 && refused + done == 5_000, "{done} done, {refused} refused");
    assert!(by_bytes.into_iter().map(block_on).any(|result| matches!(result, Err(StoreError::Overloaded { .. }))));
}

#[test]
fn a_command_whose_caller_left_is_carried_out_before_the_store_closes() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    let store = open(&path).unwrap();
    for number in 0..100 {
        drop(store.enqueue(request(&format!("q{number}"), "x")));
    }
    drop(store);
    let store = open(&path).unwrap();
    assert_eq!(block_on(store.health()).unwrap().queue_waiting, 100);
}

#[test]
fn one_command_that_fails_takes_nothing_of_the_others_back() {
    let home = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&home.path().join("store.db")).unwrap());
    let mut theirs = request("taken", "x");
    theirs.tenant = "other".into();
    assert!(block_on(store.enqueue(theirs)).is_ok());
    let handed_over: Vec<_> = (0..30)
        .map(|number| store.enqueue(request(&if number % 3 == 0 { "taken".into() } else { format!("q{number}") }, "x")))
        .collect();
    for (number, answer) in handed_over.into_iter().enumerate() {
        let failed = matches!(block_on(answer), Err(StoreError::Taken { .. }));
        assert_eq!(failed, number % 3 == 0, "{number}");
    }
    assert_eq!(block_on(store.health()).unwrap().queue_waiting, 21);
}

/// Earlier ones may corrupt a file when its log is begun anew while another process reads.
#[test]
fn the_sqlite_that_is_built_in_is_new_enough() {
    assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
}

#[test]
fn health_tells_what_there_is() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    let clock = ManualClock::start();
    let options = SqliteOptions::new(sealed());
    let store = SqliteStore::open(&path, options, clock.clone()).unwrap();
    enqueue(&store, "q");
    clock.advance(5_000);
    let health = block_on(store.health()).unwrap();
    assert_eq!((health.backend, health.writable, health.sealed), ("sqlite", true, true));
    assert_eq!((health.queue_waiting, health.queue_oldest), (1, Some(Duration::from_secs(5))));
    assert!(health.disk_bytes > 0);
}

#[test]
fn an_audit_log_is_only_added_to_and_one_that_was_forged_is_told() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    let store = in_plaintext(&path).unwrap();
    for number in 0..3 {
        let id: Arc<str> = format!("esc_{number}").into();
        let opened = OpenEscalation {
            id: id.clone(),
            tenant: "acme".into(),
            route: "support".into(),
            request_id: "req".into(),
            failure: outlast_model::Failure::Refusal,
            question: "May it?".into(),
            payload: Payload::default(),
            answer_within: None,
        };
        block_on(store.open_escalation(opened)).unwrap();
        let shown = block_on(store.escalation(id.clone())).unwrap().unwrap().summary.shown;
        let verb = outlast_model::run::Verb::Cancel;
        let decision = Payload::from(b"no".to_vec());
        let decide = DecideEscalation { id, by: "anna".into(), verb, shown, result: None, decision };
        assert_eq!(block_on(store.decide_escalation(decide)), Ok(Decided::Stands));
    }
    let whole = block_on(store.verify_audit()).unwrap();
    assert_eq!((whole.entries, whole.broken), (3, None));
    let forger = Connection::open(&path).unwrap();
    for forbidden in [
        "UPDATE audit SET who = 'bob' WHERE number = 2",
        "DELETE FROM audit WHERE number = 3",
        "INSERT OR REPLACE INTO audit SELECT 2, at, 'bob', what, subject, tenant, details, hash FROM audit LIMIT 1",
    ] {
        assert!(forger.execute_batch(forbidden).is_err(), "{forbidden}");
    }
    // Whoever may write the file may also drop its triggers.
    let forge = |sql: &str| {
        forger.execute_batch("DROP TRIGGER audit_is_not_changed; DROP TRIGGER audit_is_not_removed").ok();
        forger.execute_batch(sql).unwrap();
        block_on(store.verify_audit()).unwrap().broken.map(|(number, _)| number)
    };
    assert_eq!(forge("UPDATE audit SET who = 'bob' WHERE number = 2"), Some(2));
    assert_eq!(forge("UPDATE audit SET who = 'anna' WHERE number = 2"), None);
    assert_eq!(forge("DELETE FROM audit WHERE number = 3"), Some(3), "the end is missing");
    assert_eq!(forge("DELETE FROM audit WHERE number = 1"), Some(1));
    assert_eq!(block_on(store.check()).unwrap().faults.len(), 1);
}
