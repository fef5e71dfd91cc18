//! An MCP server as a child process: one JSON-RPC message a line.
//!
//! It is started by the first call, and again by the next one after it has ended; with growing pauses if it keeps ending.
//! A message counts as sent once its line end is: without it the server has no whole message to act upon.

use super::{
    super::super::Shared,
    Tools,
    session::{self, Listed, Lost},
    unknown_tool,
};
use crate::{
    clock::{self, Instant},
    config::{McpServer, McpTransport},
    telemetry::LogEvent,
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    process::Stdio,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::oneshot,
};

/// The longest message that is read. A server that says more at once is ended.
const LINE_MAX: usize = 4 << 20;
/// How long a server may take to start.
const START_MAX: Duration = Duration::from_secs(30);
/// What is kept of what it writes to standard error until it has started.
const STDERR_MAX: usize = 4 << 10;
/// The pause before a third start in a row; it doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// One that has lived so long is started again at once.
const SETTLED: Duration = Duration::from_secs(60);

/// A server's process, as often as it takes one.
pub(super) struct Process {
    config: Arc<McpServer>,
    /// Held while it is started: there is one start at a time.
    starting: tokio::sync::Mutex<Starts>,
    running: Mutex<Option<Arc<Running>>>,
}

#[derive(Default)]
struct Starts {
    /// In a row, of processes that did not live long.
    failed: u32,
    /// When the last one began.
    last: Option<Instant>,
}

/// One process that has said hello.
struct Running {
    pipe: Arc<Pipe>,
    listed: Listed,
    /// Killed when dropped.
    _child: Child,
}

impl Process {
    pub(super) fn new(config: Arc<McpServer>) -> Self {
        Process { config, starting: tokio::sync::Mutex::default(), running: Mutex::new(None) }
    }

    pub(super) fn listed(&self) -> Option<Listed> {
        self.lock().as_ref().map(|running| running.listed.clone())
    }

    /// Calls a tool, and starts the server first if it does not run.
    pub(super) async fn call(
        &self,
        shared: &Shared,
        tool: &str,
        params: Value,
        timeout: Duration,
    ) -> Result<Value, Lost> {
        let begun = clock::now();
        let starting = clock::timeout(timeout.mul_f64(0.75).min(START_MAX), self.running(shared));
        let running = match starting.await {
            Ok(started) => started?,
            Err(_) => return Err(Lost::Unsent("it did not start in time".into())),
        };
        if let Some(lost) = unknown_tool(&running.listed, tool) {
            return Err(lost);
        }
        let left = timeout.saturating_sub(clock::now().duration_since(begun));
        running.pipe.ask("tools/call", params, left).await
    }

    async fn running(&self, shared: &Shared) -> Result<Arc<Running>, Lost> {
        if let Some(running) = self.alive() {
            return Ok(running);
        }
        let mut starts = self.starting.lock().await;
        if let Some(running) = self.alive() {
            return Ok(running);
        }
        let since = starts.last.map(|last| clock::now().duration_since(last));
        if since.is_some_and(|since| since >= SETTLED) {
            starts.failed = 0;
        }
        // The first one that ends is started again at once.
        let pause = match starts.failed.checked_sub(2) {
            None => Duration::ZERO,
            Some(doubled) => PAUSE.saturating_mul(1 << doubled.min(8)).min(PAUSE_MAX),
        };
        if let Some(left) = since.and_then(|since| pause.checked_sub(since)).filter(|left| !left.is_zero()) {
            return Err(Lost::Resting(left));
        }
        starts.last = Some(clock::now());
        // Given back when it has lived for a while.
        starts.failed += 1;
        *self.lock() = None;
        let started = start(&self.config).await;
        let event = match &started {
            Ok(_) => LogEvent::info("mcp_started", "an MCP server was started"),
            Err(why) => LogEvent::warn("mcp_not_started", format!("an MCP server does not start: {why}")),
        };
        shared.telemetry.event(event.with("server", self.config.name.to_string()));
        let running = Arc::new(started.map_err(Lost::Unsent)?);
        *self.lock() = Some(running.clone());
        Ok(running)
    }

    fn alive(&self) -> Option<Arc<Running>> {
        self.lock().clone().filter(|running| !running.pipe.is_over())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts a process and says hello.
async fn start(config: &McpServer) -> Result<Running, String> {
    let McpTransport::Command { program, args, env } = &config.transport else {
        return Err("it is not a command".into());
    };
    let mut command = Command::new(&**program);
    command.args(args.iter().map(|arg| &**arg)).env_clear();
    for name in ["PATH", "HOME"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.envs(env.iter().map(|(name, value)| (&**name, value.expose())));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("it cannot be run: {}", error.kind()))?;
    let (Some(stdin), Some(stdout), Some(mut stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err("it has no standard input and output".into());
    };
    // What it complains of before it was given anything cannot quote a payload, and helps whoever configured it. Later
    // output is read and thrown away: an unread pipe would stop the server.
    let complaint = Arc::new(Mutex::new(Some(Vec::new())));
    tokio::spawn({
        let complaint = complaint.clone();
        async move {
            let mut some = [0; 1024];
            while let Ok(count @ 1..) = stderr.read(&mut some).await {
                if let Some(kept) = &mut *complaint.lock().unwrap_or_else(PoisonError::into_inner) {
                    let room = STDERR_MAX.saturating_sub(kept.len()).min(count);
                    kept.extend_from_slice(&some[..room]);
                }
            }
        }
    });
    let pipe = Pipe::new(stdin);
    tokio::spawn(pipe.clone().read(stdout));
    let hello = clock::timeout(START_MAX, hello(&pipe)).await.unwrap_or_else(|_| Err("it did not answer".into()));
    let complaint = complaint.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
    let listed = hello.map_err(|why| {
        let complaint = String::from_utf8_lossy(&complaint).trim().replace('\n', " | ");
        if complaint.is_empty() { why } else { format!("{why}; it wrote: {complaint}") }
    })?;
    Ok(Running { pipe, listed: Arc::new(listed), _child: child })
}

async fn hello(pipe: &Pipe) -> Result<Tools, String> {
    let ask = async |method: &str, params: Value| match pipe.ask(method, params, START_MAX).await {
        Ok(result) => Ok(result),
        Err(Lost::Refused(_) | Lost::Answered(_)) => Err(format!("it refuses `{method}`")),
        Err(Lost::Unsent(_) | Lost::Resting(_) | Lost::Died | Lost::Http(_)) => Err("it ended".to_owned()),
        Err(Lost::Late) => Err(format!("it does not answer `{method}`")),
    };
    session::agreed(&ask("initialize", session::initialize_params()).await?)?;
    pipe.send(&session::notification("notifications/initialized")).await.map_err(|()| "it ended".to_owned())?;
    let mut listed = Tools::new();
    let mut cursor = None;
    for _ in 0..session::PAGES_MAX {
        let page = ask("tools/list", session::list_params(cursor.as_deref())).await?;
        cursor = session::take_page(&page, &mut listed);
        if cursor.is_none() {
            break;
        }
    }
    Ok(listed)
}

/// Who waits for which answer: a result, or an error.
type Waiting = HashMap<u64, oneshot::Sender<Result<Value, Value>>>;

/// Requests on their way to a process.
struct Pipe {
    stdin: tokio::sync::Mutex<ChildStdin>,
    /// None once the process has ended.
    waiting: Mutex<Option<Waiting>>,
    ids: AtomicU64,
}

impl Pipe {
    fn new(stdin: ChildStdin) -> Arc<Self> {
        Arc::new(Pipe {
            stdin: tokio::sync::Mutex::new(stdin),
            waiting: Mutex::new(Some(HashMap::new())),
            ids: AtomicU64::new(1),
        })
    }

    fn is_over(&self) -> bool {
        self.lock().is_none()
    }

    /// Sends a request and waits for its answer. An answer that comes later is thrown away; nothing is cancelled.
    async fn ask(&self, method: &str, params: Value, timeout: Duration) -> Result<Value, Lost> {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        match &mut *self.lock() {
            Some(waiting) => drop(waiting.insert(id, tell)),
            None => return Err(Lost::Unsent("it ended".into())),
        }
        let mut sent = false;
        let asking = async {
            self.send(&session::request(id, method, params)).await.map_err(|()| Lost::Unsent("it ended".into()))?;
            sent = true;
            match told.await {
                Ok(Ok(result)) => Ok(result),
                Ok(Err(error)) => Err(session::refused(&error)),
                Err(_) => Err(Lost::Died),
            }
        };
        let asked = clock::timeout(timeout, asking).await;
        if let Some(waiting) = &mut *self.lock() {
            waiting.remove(&id);
        }
        match asked {
            Ok(asked) => asked,
            Err(_) if sent => Err(Lost::Late),
            Err(_) => {
                // Half a line may stand in the pipe: nobody can write after it.
                self.over();
                Err(Lost::Unsent("it does not read".into()))
            }
        }
    }

    async fn send(&self, message: &Value) -> Result<(), ()> {
        let mut line = serde_json::to_vec(message).unwrap_or_default();
        line.push(b'\n');
        let mut stdin = self.stdin.lock().await;
        let written = async {
            stdin.write_all(&line).await?;
            stdin.flush().await
        };
        written.await.map_err(|_| self.over())
    }

    /// Whoever waits learns that nothing comes any more.
    fn over(&self) {
        *self.lock() = None;
    }

    async fn read(self: Arc<Self>, stdout: ChildStdout) {
        let mut stdout = BufReader::new(stdout);
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut bounded = (&mut stdout).take(LINE_MAX as u64);
            match bounded.read_until(b'\n', &mut line).await {
                Ok(1..) if line.ends_with(b"\n") => {}
                Ok(_) | Err(_) => break,
            }
            if let Ok(message) = serde_json::from_slice::<Value>(&line) {
                self.take(message).await;
            }
        }
        self.over();
    }

    async fn take(&self, mut message: Value) {
        match (message.get("method").is_some(), message.get("id").cloned()) {
            (false, Some(id)) => {
                let answer = match message.get_mut("error").map(Value::take) {
                    Some(error) => Err(error),
                    None => Ok(message["result"].take()),
                };
                let waiting = self.lock().as_mut().and_then(|waiting| waiting.remove(&id.as_u64()?));
                if let Some(waiting) = waiting {
                    let _ = waiting.send(answer);
                }
            }
            // It asks us: we are there, and offer nothing.
            (true, Some(id)) => {
                let answer = match message["method"] == "ping" {
                    true => json!({ "jsonrpc": "2.0", "id": id, "result": {} }),
                    false => {
                        let error = json!({ "code": -32601, "message": "this client offers nothing" });
                        json!({ "jsonrpc": "2.0", "id": id, "error": error })
                    }
                };
                let _ = self.send(&answer).await;
            }
            (_, None) => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
