//! The real binary, with its log.

use super::{rig, until, until_some};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
};

/// A running `outlast serve`. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    pub(crate) folder: tempfile::TempDir,
    /// Dropping it lets the reader of the log go.
    _log_open: std::sync::mpsc::Sender<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts it on a config, with the test environment's keys, and waits until it listens.
    pub(crate) async fn start(toml: &str) -> Server {
        Server::start_in(tempfile::tempdir().unwrap(), toml).await
    }

    /// The same, in a folder that an earlier one may have used.
    pub(crate) async fn start_in(folder: tempfile::TempDir, toml: &str) -> Server {
        Server::launch(folder, toml, usize::MAX, None).await
    }

    /// The same, but nobody reads its log after the first line.
    pub(crate) async fn start_unread(toml: &str) -> Server {
        Server::launch(tempfile::tempdir().unwrap(), toml, 1, None).await
    }

    /// The same as [`Server::start_in`], but it aborts at these failpoints: `ledger.intent:2,tool.sent:0.1`.
    pub(crate) async fn start_failing(folder: tempfile::TempDir, toml: &str, failpoints: &str) -> Server {
        Server::launch(folder, toml, usize::MAX, Some(failpoints)).await
    }

    async fn launch(folder: tempfile::TempDir, toml: &str, lines: usize, failpoints: Option<&str>) -> Server {
        let file = folder.path().join("outlast.toml");
        std::fs::write(&file, complete(toml)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
        command.arg("serve").arg("--config").arg(&file).current_dir(folder.path());
        for name in [
            "CALLER_ONE",
            "CALLER_TWO",
            "ADMIN_TOKEN",
            "KEY_ZERO",
            "KEY_ONE",
            "ALERT_SECRET",
            "DATA_KEY",
            "ANNA_KEY",
            "BOB_KEY",
        ] {
            command.env(name, rig::env(name).unwrap());
        }
        if let Some(failpoints) = failpoints {
            command.env(outlast::failpoint::VARIABLE, failpoints);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let (keep_open, held_open) = std::sync::mpsc::channel::<()>();
        std::thread::spawn({
            let log = log.clone();
            move || {
                let reading = stderr.by_ref().lines().map_while(Result::ok).take(lines);
                reading.for_each(|line| log.lock().unwrap().push(line));
                // Unread is not closed: the pipe stays until the test ends.
                let _ = held_open.recv();
            }
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Server { child, address: nowhere, log, folder, _log_open: keep_open };
        let started = until_some("the server to listen", async || {
            let exited = server.child.try_wait().unwrap();
            assert!(exited.is_none(), "it ended with {exited:?}:\n{}", server.log_text());
            server.events("start").into_iter().next()
        })
        .await;
        let address = started["message"].as_str().and_then(|text| text.strip_prefix("listening on ")).unwrap();
        server.address = address.parse().unwrap();
        server
    }

    /// Kills it as a power cut would, and starts another one on the same folder.
    pub(crate) async fn kill_and_restart(mut self, toml: &str) -> Server {
        self.signal("KILL");
        self.exit().await;
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        Server::start_in(folder, toml).await
    }

    /// Waits until it has died by itself, as at a failpoint, and starts another one on the same folder.
    pub(crate) async fn died_and_restart(mut self, toml: &str) -> Server {
        self.exit().await;
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        Server::start_in(folder, toml).await
    }

    /// Whether it still lives.
    pub(crate) fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.folder.path().join("outlast.toml")
    }

    /// Replaces the config file as editors do: a new file, moved over the old one.
    pub(crate) fn write_config(&self, toml: &str) {
        let next = self.folder.path().join("next.toml");
        std::fs::write(&next, complete(toml)).unwrap();
        std::fs::rename(next, self.config_file()).unwrap();
    }

    /// Sends a signal: `HUP`, `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        // The shell has it built in; not every system has the program.
        let status = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.child.id())).status().unwrap();
        assert!(status.success());
    }

    /// All it has written to stderr.
    pub(crate) fn log_text(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// The log lines of that event.
    pub(crate) fn events(&self, name: &str) -> Vec<Value> {
        let log = self.log.lock().unwrap();
        let lines = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["event"] == name).collect()
    }

    /// Waits until there are so many lines of that event.
    pub(crate) async fn until_events(&self, name: &str, count: usize) -> Vec<Value> {
        until(&format!("{count} log lines of {name}"), || self.events(name).len() >= count).await;
        self.events(name)
    }

    /// Waits for its end.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until_some("the server to end", async || child.try_wait().unwrap()).await
    }

    /// Its resident memory, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(Path::new("/proc").join(self.child.id().to_string()).join("status"));
        let status = status.expect("the process lives");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux tells");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap() * 1024
    }
}

/// Adds what a test's config leaves out: a free port.
fn complete(toml: &str) -> String {
    if toml.contains("[telemetry]") {
        rig::complete(toml)
    } else {
        rig::complete(&(toml.to_owned() + "\n[telemetry]\n"))
    }
}
