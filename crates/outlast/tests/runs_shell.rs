//! A worker in `sh` and `curl`, as `examples/worker.sh` shows it, and the `outlast runs` commands, against the real
//! server.

mod common;

use common::{
    Server,
    runs::{Api, config},
    until_some,
};
use serde_json::{Value, json};
use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

fn worker(server: &Server, folder: &Path) -> Command {
    let mut command = Command::new("sh");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/worker.sh"));
    command.env("OUTLAST_URL", format!("http://{}", server.address)).env("NOTES", folder.join("notes.txt"));
    // What it started may outlive it by a moment.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[tokio::test]
async fn a_worker_of_sh_and_curl_does_each_run_once_beside_another_one() {
    let server = Server::start(&config("")).await;
    let api = Api::at(server.address);
    let folder = tempfile::tempdir().unwrap();
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(api.start(json!({ "workflow": "greet" })).await);
    }
    let mut workers: Vec<_> =
        (0..2).map(|_| worker(&server, folder.path()).env("ONCE", "1").spawn().unwrap()).collect();
    for worker in &mut workers {
        let ended = until_some("the worker to leave", async || worker.try_wait().unwrap()).await;
        assert!(ended.success());
    }
    for id in &ids {
        let result = api.get(&format!("/v1/runs/{id}/result")).await.json();
        assert_eq!(result, json!({ "state": "done", "output": format!("{id} is done") }));
    }
    let notes = std::fs::read_to_string(folder.path().join("notes.txt")).unwrap();
    let mut noted: Vec<&str> = notes.lines().map(|line| line.split(' ').next().unwrap()).collect();
    noted.sort_unstable();
    assert_eq!(noted, ids, "each once");
}

#[tokio::test]
async fn what_a_worker_that_was_killed_had_written_down_is_not_done_again() {
    let server = Server::start(&config("")).await;
    let api = Api::at(server.address);
    let folder = tempfile::tempdir().unwrap();
    let id = api.start(json!({ "workflow": "greet" })).await;
    // The first one did the mail, and was killed before it could end the run.
    let dead = api.claim("w-dead", json!({ "lease_s": 1 })).await.unwrap();
    dead.execute("note", json!({ "class": "once", "lease_s": 1 })).await;
    dead.end("note", json!({ "attempt": 1, "ok": "noted", "lease_s": 1 })).await;
    let mut heir = worker(&server, folder.path()).spawn().unwrap();
    let result = until_some("the run to end", async || {
        Some(api.get(&format!("/v1/runs/{id}/result")).await).filter(|reply| reply.status() == 200)
    })
    .await;
    heir.kill().unwrap();
    heir.wait().unwrap();
    assert_eq!(result.json()["state"], "done");
    assert!(!folder.path().join("notes.txt").exists(), "it was not noted again");
}

fn outlast(server: &Server, words: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
    command.args(words).env("OUTLAST_URL", format!("http://{}", server.address)).current_dir(server.folder.path());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_starts_looks_signals_ends_and_migrates() {
    let server = Server::start(&config("")).await;
    let api = Api::at(server.address);
    let done = |words: &[&str]| -> String {
        let (code, out, err) = outlast(&server, words);
        assert_eq!(code, Some(0), "{words:?}: {out}{err}");
        out
    };
    assert_eq!(done(&["runs", "start", "refund", "--id", "r-1", "--input", r#"{"order":7}"#]), "r-1\n");
    assert_eq!(done(&["runs", "start", "refund", "--id", "r-1", "--input", r#"{"order":7}"#]), "r-1\n");
    let (code, _, err) = outlast(&server, &["runs", "start", "other", "--id", "r-1"]);
    assert!(code == Some(1) && err.contains("(422)"), "{err}");
    let listed = done(&["runs", "list", "--state", "ready"]);
    assert!(listed.contains("r-1") && listed.contains("refund") && listed.contains("STATE"), "{listed}");
    assert_eq!(done(&["runs", "migrate", "r-1", "2"]), "r-1 is of version 2 now\n");

    let claim = api.claim("w-1", json!({ "label": "blue" })).await.unwrap();
    claim.step("order", json!(1)).await;
    let journal = done(&["runs", "journal", "r-1"]);
    assert!(journal.contains("order") && journal.contains("done"), "{journal}");
    let shown: Value = serde_json::from_str(&done(&["runs", "show", "r-1", "--json"])).unwrap();
    assert_eq!((&shown["worker"], &shown["input"]["order"]), (&json!("w-1"), &json!(7)));
    assert!(done(&["runs", "show", "r-1"]).contains("running"));
    let workers = done(&["workers", "list"]);
    assert!(workers.contains("blue") && workers.contains("busy") && workers.contains("r-1 order"), "{workers}");
    assert_eq!(done(&["workers", "drain", "w-1"]), "draining\n");
    assert_eq!(outlast(&server, &["workers", "drain", "w-9"]).0, Some(1));

    assert_eq!(done(&["runs", "signal", "r-1", "paid", "--payload", "7", "--dedupe", "s"]), "taken\n");
    assert_eq!(done(&["runs", "signal", "r-1", "paid", "--dedupe", "s"]), "it had been taken before\n");
    assert_eq!(outlast(&server, &["runs", "result", "r-1"]).0, Some(1), "it goes on");
    claim.post("finish", json!({ "ok": "fine" })).await;
    let result: Value = serde_json::from_str(&done(&["runs", "result", "r-1", "--wait", "5"])).unwrap();
    assert_eq!(result, json!({ "state": "done", "output": "fine" }));
    assert_eq!(done(&["runs", "cancel", "r-1"]), "done\n", "it was over");
    done(&["runs", "start", "w", "--id", "r-2"]);
    assert_eq!(done(&["runs", "cancel", "r-2"]), "cancelled\n");
    assert_eq!(outlast(&server, &["runs", "result", "r-2"]).0, Some(1));
    let (code, _, err) = outlast(&server, &["runs", "show", "none"]);
    assert!(code == Some(1) && err.contains("no such run"), "{err}");
    assert_eq!(outlast(&server, &["runs", "list", "--url", "http://127.0.0.1:1"]).0, Some(69));
    assert_eq!(outlast(&server, &["runs", "start", "w", "--input", "{"]).0, Some(2));
}
