//! A disk that is really full, and one that fails in the middle of a commit: the test continues in a child process that
//! gets a small file system of its own, or may not make its files longer.

mod common;

use common::{block_on, open};
use outlast_model::policy::Priority;
use outlast_store::{Enqueue, Enqueued, Payload, Store, StoreError};
use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

const HOME: &str = "OUTLAST_TEST_SMALL_HOME";

fn request(id: &str) -> Enqueue {
    Enqueue {
        id: id.into(),
        tenant: "acme".into(),
        route: "support".into(),
        priority: Priority::Normal,
        payload: Payload::from(vec![7; 20_000]),
        expires_in: Duration::from_secs(3600),
        webhook: None,
    }
}

fn is_there(store: &dyn Store, id: &str) -> bool {
    block_on(store.queued("acme".into(), id.into())).unwrap().is_some()
}

/// Fills the store until three commands in a row were refused; what was acknowledged, and the last refusal.
fn fill(store: &dyn Store) -> (Vec<String>, StoreError) {
    let (mut kept, mut refused) = (Vec::new(), 0);
    for number in 0..1_000 {
        let id = format!("q{number}");
        match block_on(store.enqueue(request(&id))) {
            Ok(Enqueued::Queued { .. }) => kept.push(id),
            Ok(full) => panic!("{full:?}"),
            Err(_) if refused < 2 => refused += 1,
            Err(error) => return (kept, error),
        }
    }
    panic!("it was never full");
}

/// Runs this test in a child of a shell that first narrows the child's world; none if the system does not allow that.
fn continued(test: &str, home: &Path, narrowed: &mut Command) -> Output {
    let mut child = narrowed;
    child = child.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]).env(HOME, home);
    child.output().unwrap()
}

#[test]
fn a_disk_that_is_really_full_loses_nothing_and_serves_again() {
    let test = "a_disk_that_is_really_full_loses_nothing_and_serves_again";
    let Some(home) = std::env::var_os(HOME) else {
        let home = tempfile::tempdir().unwrap();
        let mut unshare = Command::new("unshare");
        unshare.args([
            "-rm",
            "sh",
            "-c",
            "mount -t tmpfs -o size=4m none \"$OUTLAST_TEST_SMALL_HOME\" && exec \"$@\"",
            "sh",
        ]);
        let may = Command::new("unshare").args(["-rm", "true"]).status().is_ok_and(|status| status.success());
        if !may {
            eprintln!("not tested here: this system gives no file system of one's own");
            return;
        }
        let ended = continued(test, home.path(), &mut unshare);
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        return;
    };
    let path = Path::new(&home).join("store.db");
    let ballast = Path::new(&home).join("ballast");
    fs::write(&ballast, vec![0; 800_000]).unwrap();
    let store = open(&path).unwrap();
    let (kept, error) = fill(&store);
    assert!(matches!(error, StoreError::Full { .. }) && kept.len() > 10, "{error}");
    assert!(kept.iter().all(|id| is_there(&store, id)), "reads go on");
    drop(store);
    let store = open(&path).unwrap();
    assert!(kept.iter().all(|id| is_there(&store, id)));
    assert_eq!(block_on(store.check()).unwrap().faults, []);
    fs::remove_file(ballast).unwrap();
    assert!(block_on(store.enqueue(request("after"))).is_ok(), "without being opened again");
}

#[test]
fn a_disk_that_fails_in_a_commit_leaves_it_unknown_and_loses_nothing() {
    let test = "a_disk_that_fails_in_a_commit_leaves_it_unknown_and_loses_nothing";
    let said = "acknowledged ";
    if let Some(home) = std::env::var_os(HOME) {
        let store = open(&Path::new(&home).join("store.db")).unwrap();
        let (kept, error) = fill(&store);
        assert!(matches!(error, StoreError::Unknown { .. }) && error.passes(), "{error}");
        assert!(kept.iter().all(|id| is_there(&store, id)), "reads go on");
        println!("\n{said}{}", kept.join(" "));
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    // Files may not grow over a megabyte; the signal that would end the process is ignored, so that writes fail.
    shell.args(["-c", "trap '' XFSZ; ulimit -f 2000; exec \"$@\"", "sh"]);
    let ended = continued(test, home.path(), &mut shell);
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let output = String::from_utf8(ended.stdout).unwrap();
    let kept: Vec<&str> = output.lines().find_map(|line| line.strip_prefix(said)).unwrap().split(' ').collect();
    assert!(kept.len() > 5);
    let store = open(&home.path().join("store.db")).unwrap();
    assert!(kept.iter().all(|id| is_there(&store, id)));
    assert_eq!(block_on(store.check()).unwrap().faults, []);
    assert!(block_on(store.enqueue(request("after"))).is_ok());
}
