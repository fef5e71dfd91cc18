//! No acknowledged fact of a run is lost and no run is held twice: killed processes, and several at once.

mod common;

use common::{block_on, open, options, runs::*};
use outlast_model::run::{EffectClass, LedgerState};
use outlast_store::{
    ClaimedRun, Limits, Payload, RunStore, Signalled, SqliteStore, Started, StepBegun, StepEnded, Store, Waited,
    conformance::ManualClock,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

const KILLED: &str = "OUTLAST_TEST_KILLED_RUNS";

/// The child's life: it starts, claims, begins, ends, waits and signals in a loop and says what was acknowledged, until
/// it is killed.
fn work_until_killed(path: &Path, name: &str) {
    let store = open(path).unwrap();
    for number in 0.. {
        let id = format!("{name}-{number}");
        if block_on(store.start_run(started(&id, bytes(&id)))) == Ok(Started::New) {
            println!("started {id}");
        }
        let Ok(Some(run)) = block_on(store.claim_run(claim(name, HOUR))) else { continue };
        let id = run.run.run.id.clone();
        println!("claimed {id} {}", run.epoch.0);
        advance(&store, &run, id.as_str());
    }
}

/// Takes a run as far as it goes: two steps at once, then a wait that is ended by a signal.
fn advance(store: &SqliteStore, run: &ClaimedRun, id: &str) {
    let begin = |key: &str| begun(step_of(id, key), Some(run.epoch), EffectClass::Once, bytes(key));
    let answers: Vec<_> = ["one", "two"].map(|key| (key, store.begin_step(begin(key)))).into();
    for (key, answer) in answers {
        if let Ok(StepBegun::Execute { attempt, .. }) = block_on(answer) {
            println!("intended {id} {key}");
            let result = bytes(&format!("{id} {key}"));
            let end = ended(step_of(id, key), run.epoch, attempt, result);
            if block_on(store.end_step(end)) == Ok(StepEnded::Done) {
                println!("done {id} {key}");
            }
        }
    }
    if block_on(store.wait_run(waits(id, run.epoch, "paid"))) == Ok(Waited::Parked) {
        println!("waits {id} paid");
        if block_on(store.signal_run(signal(id, "s", bytes(id)))) == Ok(Signalled::Accepted) {
            println!("signalled {id} paid");
        }
    }
}

fn working_child(path: &Path, name: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed_processes_lose_no_acknowledged_fact_of_a_run", "--nocapture"])
        .env(KILLED, path)
        .env("OUTLAST_TEST_NAME", name)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Lets the child say so much, kills it without warning, and returns everything it had said by then.
fn kill_after(mut child: Child, lines: usize) -> Vec<String> {
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged: Vec<String> = said.by_ref().take(lines).map(Result::unwrap).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    acknowledged.extend(said.map_while(Result::ok));
    acknowledged
}

/// Holds what is in the store to one line that was said.
fn hold(store: &SqliteStore, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let step = |id: &str, key: &str| block_on(store.step(step_of(id, key))).unwrap().expect(line);
    match words[..] {
        ["started", id] => {
            let input = block_on(store.run_input(named(id))).unwrap();
            assert_eq!(input, Some(bytes(id)), "{line}");
        }
        ["claimed", id, epoch] => {
            let view = block_on(store.run(named(id))).unwrap().expect(line);
            assert!(view.epoch.0 >= epoch.parse().unwrap(), "{line}");
        }
        ["intended", id, key] => assert_eq!(step(id, key).input, bytes(key), "{line}"),
        ["done", id, key] => {
            let step = step(id, key);
            assert_eq!((step.state, step.payload), (LedgerState::Done, bytes(&format!("{id} {key}"))), "{line}");
        }
        ["waits", id, key] => assert_eq!(step(id, key).key, key.into(), "{line}"),
        ["signalled", id, key] => {
            let step = step(id, key);
            assert_eq!((step.state, step.payload), (LedgerState::Done, bytes(id)), "{line}");
        }
        _ => {}
    }
}

#[test]
fn killed_processes_lose_no_acknowledged_fact_of_a_run() {
    if let Some(path) = std::env::var_os(KILLED) {
        return work_until_killed(Path::new(&path), &std::env::var("OUTLAST_TEST_NAME").unwrap());
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    drop(open(&path).unwrap());
    let mut said = Vec::new();
    for round in 0..4 {
        // Two processes at once on the same file, killed at different points of their work.
        let children = [working_child(&path, &format!("a{round}")), working_child(&path, &format!("b{round}"))];
        for (number, child) in children.into_iter().enumerate() {
            said.extend(kill_after(child, 31 + 17 * round + 5 * number));
        }
        let store = open(&path).unwrap();
        assert_eq!(block_on(store.check()).unwrap().faults, []);
        said.iter().for_each(|line| hold(&store, line));
    }
    let claims: Vec<&str> = said.iter().filter_map(|line| line.strip_prefix("claimed ")).collect();
    let epochs: BTreeSet<&str> = claims.iter().filter_map(|claim| claim.rsplit(' ').next()).collect();
    assert_eq!((claims.len() > 20, epochs.len()), (true, claims.len()), "no epoch was ever given twice");
    assert!(said.iter().any(|line| line.starts_with("signalled ")));
}

/// Every claim as long as it stood: of one run, no two may overlap.
#[test]
fn two_processes_never_hold_the_same_run_at_once() {
    const RUNS: usize = 40;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store.db");
    let clock = ManualClock::start();
    let handle = || Arc::new(SqliteStore::open(&path, options(Limits::FILE), clock.clone()).unwrap());
    let handles = [handle(), handle()];
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    let held = runtime.block_on(async {
        for number in 0..RUNS {
            let started = handles[number % 2].start_run(started(&format!("r{number}"), Payload::default())).await;
            assert_eq!(started, Ok(Started::New));
        }
        let mut held = BTreeMap::new();
        for round in 0..3 {
            let mut tasks = tokio::task::JoinSet::new();
            for task in 0..16 {
                let store = Arc::clone(&handles[task % 2]);
                tasks.spawn(async move {
                    let mut mine = Vec::new();
                    let lease = Duration::from_secs(10);
                    while let Some(run) = store.claim_run(claim(&format!("w{task}"), lease)).await.unwrap() {
                        mine.push((run.run.run, run.epoch));
                    }
                    mine
                });
            }
            while let Some(mine) = tasks.join_next().await {
                for (run, epoch) in mine.unwrap() {
                    held.entry((round, run)).or_insert_with(Vec::new).push(epoch);
                }
            }
            // All leases run out, and nobody wrote anything.
            clock.advance(10_000);
        }
        held
    });
    assert_eq!(held.len(), 3 * RUNS);
    assert!(held.values().all(|epochs| epochs.len() == 1), "a run was given twice within one lease");
    let epochs: BTreeSet<_> = held.values().flatten().collect();
    assert_eq!(epochs.len(), 3 * RUNS);
}
