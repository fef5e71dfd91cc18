//! Child processes: started on free ports, awaited by asking them, measured through `/proc`, and
//! never left behind.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The root of the workspace, wherever the task is called from.
pub(crate) fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Where cargo builds: `CARGO_TARGET_DIR`, or `target` in the workspace.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace_root().join("target"), PathBuf::from)
}

/// A free loopback port. Another process may take it before ours binds it; the caller then fails
/// with a clear message from the process's log.
pub(crate) fn free_address() -> Result<SocketAddr, String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|error| format!("no free loopback port: {error}"))
}

/// A child process that dies with its owner.
pub(crate) struct Running {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts `command` with both its outputs in `log`.
    pub(crate) fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self, String> {
        let open = || fs::File::create(log).map_err(|error| format!("{}: {error}", log.display()));
        let out = open()?;
        let err = out.try_clone().map_err(|error| format!("{}: {error}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|error| format!("cannot start {name} ({command:?}): {error}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Waits until `GET path` answers with any status below 500, and says how long that took.
    ///
    /// # Errors
    /// The process ended, or did not answer within 15 s; the message holds the end of its log.
    pub(crate) fn wait_ready(&mut self, address: SocketAddr, path: &str) -> Result<Duration, String> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(15) {
            if matches!(get_status(address, path), Some(status) if status < 500) {
                return Ok(start.elapsed());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("{} ended at once ({status}):\n{}", self.name, self.log_tail()));
            }
            thread::sleep(Duration::from_micros(500));
        }
        Err(format!("{} did not answer GET {path} within 15 s:\n{}", self.name, self.log_tail()))
    }

    /// Whether it still runs.
    pub(crate) fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// CPU time used so far, user and system.
    pub(crate) fn cpu(&self) -> Result<Duration, String> {
        cpu_of(self.id())
            .ok_or_else(|| format!("{}: no figures in /proc; did it crash?\n{}", self.name, self.log_tail()))
    }

    /// Resident memory in bytes.
    pub(crate) fn rss(&self) -> Result<u64, String> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let kib =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u64>().ok());
        kib.map(|kib| kib * 1024)
            .ok_or_else(|| format!("{}: no VmRSS in /proc; did it crash?\n{}", self.name, self.log_tail()))
    }

    /// Says that the process has ended, if it has, with the end of its log.
    pub(crate) fn end(&self) -> String {
        let state = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        // The state follows the name, which is in brackets; a dead child is a zombie until it is waited for.
        let runs = state.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'));
        if runs { String::new() } else { format!("{} has ended:\n{}\n", self.name, self.log_tail()) }
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU time of a process from its threads' `schedstat` (nanoseconds); `stat` has only 10 ms ticks.
/// Threads that ended are missing, which is why the servers under test keep theirs.
fn cpu_of(process: u32) -> Option<Duration> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let nanos = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    Some(Duration::from_nanos(nanos))
}

/// The status of a plain `GET`, or nothing when nobody answers.
fn get_status(address: SocketAddr, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").ok()?;
    let mut head = [0_u8; 12];
    stream.read_exact(&mut head).ok()?;
    std::str::from_utf8(&head[9..12]).ok()?.parse().ok()
}
