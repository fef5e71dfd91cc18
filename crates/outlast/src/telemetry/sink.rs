//! The handle the rest of the server holds.

use super::{
    LogEvent, LogFormat, Metrics,
    ring::Ring,
    writer::{self, Writer},
};
use crate::{clock::Clock, config};
use outlast_engine::TargetView;
use outlast_model::{TargetId, record::CallRecord};
use outlast_store::telemetry::{CallFilter, Counters, Feedback, OpenError, Retention, TelemetryReader};
use std::{
    fmt,
    io::Write,
    mem,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, Thread},
    time::Duration,
};

/// How much is kept and where.
#[derive(Clone, Debug, PartialEq)]
pub struct TelemetryOptions {
    /// The telemetry file; none keeps everything in memory only.
    pub file: Option<PathBuf>,
    /// What the file keeps.
    pub retention: Retention,
    /// The most calls in the ring.
    pub ring_calls: usize,
    /// The most bytes in the ring.
    pub ring_bytes: usize,
    /// The share of plain calls that goes into the file whole, 0 to 1; the others are only counted there.
    pub sample: f64,
    /// How log lines look.
    pub log: LogFormat,
}

impl Default for TelemetryOptions {
    fn default() -> Self {
        TelemetryOptions {
            file: None,
            retention: Retention::default(),
            ring_calls: 4096,
            ring_bytes: 6 << 20,
            sample: 0.01,
            log: LogFormat::detect(),
        }
    }
}

impl From<&config::Telemetry> for TelemetryOptions {
    fn from(config: &config::Telemetry) -> Self {
        let calls = match config.log {
            config::LogFormat::Json => true,
            config::LogFormat::Off => false,
        };
        TelemetryOptions {
            file: config.file.clone(),
            ring_calls: config.ring as usize,
            sample: config.sample,
            log: LogFormat { calls, ..LogFormat::detect() },
            ..TelemetryOptions::default()
        }
    }
}

/// What a log line says beside the record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFields {
    /// The HTTP status the client got; 499 if it left first.
    pub status: u16,
    /// The target that ranks first on the route, where the route has a fixed order.
    pub primary: Option<TargetId>,
}

/// A settled call on its way through telemetry.
#[derive(Debug)]
pub struct Recorded {
    /// The lineage.
    pub call: CallRecord,
    /// The rest of its log line.
    pub fields: LogFields,
}

/// One thing to write.
#[derive(Debug)]
pub(super) enum Item {
    Call(Arc<Recorded>),
    Event(Box<LogEvent>),
    /// For the file alone: a rating is no line of the log.
    Rated(Box<Feedback>),
}

/// The handle. Cheap to clone; when the last clone is dropped the writer thread flushes and ends.
#[derive(Clone, Debug)]
pub struct Telemetry(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    done: Mutex<mpsc::Receiver<()>>,
    file: Option<PathBuf>,
}

/// Who is told when the file makes trouble.
struct TroubleHook(Box<dyn Fn(&str) + Send + Sync>);

impl fmt::Debug for TroubleHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TroubleHook")
    }
}

/// What the handle and the writer thread share. Locks are taken in the order of the fields.
#[derive(Debug)]
pub(super) struct Shared {
    back: Mutex<Back>,
    queue: Mutex<Vec<Item>>,
    pub(super) metrics: Arc<Metrics>,
    trouble: OnceLock<TroubleHook>,
    /// A trouble from before there was a hook.
    early_trouble: Mutex<Option<String>>,
    pub(super) clock: Clock,
    pub(super) asleep: AtomicBool,
    pub(super) closing: AtomicBool,
    writer: OnceLock<Thread>,
}

/// What has been taken off the queue.
#[derive(Debug)]
struct Back {
    ring: Ring,
    counters: Counters,
    lines: Vec<Item>,
    spare: Vec<Item>,
}

/// Items not yet counted. Whoever finds the queue this full empties it into the ring and the counters himself.
const QUEUE_MAX: usize = 1024;
/// At this many the writer is woken before its time.
const QUEUE_WAKE: usize = 512;
/// Items counted but not yet written. Beyond it log lines and lineage are dropped, and that is counted.
const LINES_MAX: usize = 8192;

impl Telemetry {
    /// Opens the file and starts the writer thread, which logs to stderr.
    ///
    /// # Errors
    /// [`OpenError`], if there is to be a file and it cannot be used.
    pub fn start(options: TelemetryOptions, clock: Clock) -> Result<Self, OpenError> {
        Self::start_with(options, clock, Box::new(std::io::stderr()))
    }

    /// As [`Self::start`], logging to `log`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(options: TelemetryOptions, clock: Clock, log: Box<dyn Write + Send>) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared::new(&options, clock));
        let writer = Writer::open(&options, Arc::clone(&shared), log)?;
        let (done_sender, done) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("telemetry".into())
            .spawn(move || {
                writer::run(writer);
                // Nobody may be waiting any more.
                let _ = done_sender.send(());
            })
            .map_err(|error| OpenError::Io(options.file.clone().unwrap_or_default(), error))?;
        let _ = shared.writer.set(thread.thread().clone());
        Ok(Telemetry(Arc::new(Handle { shared, done: Mutex::new(done), file: options.file })))
    }

    /// Hands over a settled call. Never blocks on IO: an append under a short lock.
    pub fn record(&self, call: CallRecord, fields: LogFields) {
        self.0.shared.push(Item::Call(Arc::new(Recorded { call, fields })));
    }

    /// Writes an operational line: start, reload, breaker, alert, drain.
    pub fn event(&self, event: LogEvent) {
        self.0.shared.push(Item::Event(Box::new(event)));
    }

    /// Keeps a caller's rating in the file, if there is one.
    pub fn rated(&self, rating: Feedback) {
        self.0.shared.push(Item::Rated(Box::new(rating)));
    }

    /// The counters and gauges that others keep up: calls in flight, connections, calls shed.
    pub fn metrics(&self) -> &Metrics {
        &self.0.shared.metrics
    }

    /// The same, to be held by a task.
    pub fn shared_metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.0.shared.metrics)
    }

    /// Has `hook` told of the file's troubles, on the writer's thread; it must not block. The first hook stays.
    pub fn on_trouble(&self, hook: impl Fn(&str) + Send + Sync + 'static) {
        let shared = &self.0.shared;
        let _ = shared.trouble.set(TroubleHook(Box::new(hook)));
        if let (Some(why), Some(hook)) = (lock(&shared.early_trouble).take(), shared.trouble.get()) {
            (hook.0)(&why);
        }
    }

    /// The text of `GET /metrics`, every call recorded so far included. `targets` is the engine's view of them now.
    pub fn expose(&self, targets: &[TargetView]) -> String {
        drop(self.0.shared.absorb());
        self.0.shared.metrics.expose(targets)
    }

    /// The lineage of a call from the ring; every call recorded so far is in it, until newer ones push it out.
    pub fn find(&self, request_id: &str) -> Option<Arc<Recorded>> {
        self.0.shared.absorb().ring.find(request_id)
    }

    /// The latest calls in the ring, newest first.
    pub fn latest(&self, limit: usize) -> Vec<Arc<Recorded>> {
        self.0.shared.absorb().ring.newest().take(limit).cloned().collect()
    }

    /// The lineage of a call from the ring, else from the file. Runs the file's part on tokio's blocking threads.
    ///
    /// # Errors
    /// The reason the file could not be read, which is in the log as well.
    pub async fn lookup(&self, request_id: &str) -> Result<Option<CallRecord>, String> {
        if let Some(recorded) = self.find(request_id) {
            return Ok(Some(recorded.call.clone()));
        }
        let id = request_id.to_owned();
        self.read(move |file| file.get(&id)).await.map(Option::flatten)
    }

    /// A caller's rating of a call that the file knows; `tenant` is empty where callers have no key.
    ///
    /// # Errors
    /// The reason the file could not be read, which is in the log as well.
    pub async fn rating(&self, request_id: &str, tenant: &str) -> Result<Option<Feedback>, String> {
        let (id, tenant) = (request_id.to_owned(), tenant.to_owned());
        self.read(move |file| file.feedback(&id, &tenant)).await.map(Option::flatten)
    }

    /// The latest calls kept in the file, newest first; empty without a file.
    ///
    /// # Errors
    /// The reason the file could not be read, which is in the log as well.
    pub async fn stored(&self, filter: CallFilter, limit: u32) -> Result<Vec<CallRecord>, String> {
        self.read(move |file| file.recent(&filter, limit)).await.map(Option::unwrap_or_default)
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&TelemetryReader) -> Result<T, outlast_store::telemetry::ReadError> + Send + 'static,
    ) -> Result<Option<T>, String> {
        let Some(path) = self.0.file.clone() else { return Ok(None) };
        let answer = tokio::task::spawn_blocking(move || query(&TelemetryReader::open(&path)?)).await;
        let answer = match answer {
            Ok(answer) => answer.map(Some).map_err(|error| error.to_string()),
            Err(stopped) => Err(stopped.to_string()),
        };
        if let Err(why) = &answer {
            self.0.shared.metrics.file_errors.add(1);
            let event = LogEvent::error("telemetry_trouble", "The telemetry file cannot be read.");
            self.event(event.with("why", why.as_str()));
        }
        answer
    }

    /// Writes everything recorded so far and ends the writer thread, or gives up after `within`. True if all was
    /// written. Blocks; what is recorded afterwards is lost.
    pub fn shutdown(&self, within: Duration) -> bool {
        self.0.shared.close();
        let done = self.0.done.lock().unwrap_or_else(PoisonError::into_inner);
        // The writer is gone after a first shutdown: that is done, too.
        !matches!(done.recv_timeout(within), Err(mpsc::RecvTimeoutError::Timeout))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    pub(super) fn new(options: &TelemetryOptions, clock: Clock) -> Self {
        Shared {
            back: Mutex::new(Back {
                ring: Ring::new(options.ring_calls, options.ring_bytes),
                counters: Counters::default(),
                lines: Vec::new(),
                spare: Vec::new(),
            }),
            queue: Mutex::new(Vec::new()),
            metrics: Arc::new(Metrics::new(&clock)),
            trouble: OnceLock::new(),
            early_trouble: Mutex::new(None),
            clock,
            asleep: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            writer: OnceLock::new(),
        }
    }

    pub(super) fn push(&self, item: Item) {
        let waiting = {
            let mut queue = lock(&self.queue);
            queue.push(item);
            queue.len()
        };
        // The writer looks at the queue by itself some times a second. It is woken only from the sleep of an idle
        // process or when the queue fills, since waking a thread costs more than all the rest of this function.
        if waiting == QUEUE_WAKE || (self.asleep.load(Ordering::Acquire) && self.asleep.swap(false, Ordering::AcqRel)) {
            self.wake();
        }
        if waiting >= QUEUE_MAX {
            drop(self.absorb());
        }
    }

    /// Empties the queue into the ring, the counters and the metrics, so that what follows sees every call recorded.
    fn absorb(&self) -> MutexGuard<'_, Back> {
        let mut back = lock(&self.back);
        let mut items = mem::take(&mut back.spare);
        mem::swap(&mut *lock(&self.queue), &mut items);
        if !items.is_empty() {
            let mut series = self.metrics.series();
            for item in items.drain(..) {
                if let Item::Call(recorded) = &item {
                    if let Some(route) = series.observe(&recorded.call) {
                        back.counters.add(route, &recorded.call);
                    }
                    back.ring.push(Arc::clone(recorded));
                }
                if back.lines.len() < LINES_MAX {
                    back.lines.push(item);
                } else {
                    self.metrics.lines_dropped.add(1);
                }
            }
        }
        back.spare = items;
        back
    }

    /// Takes what is to be written: the lines, into an empty `lines`, and the counters.
    pub(super) fn take(&self, lines: &mut Vec<Item>) -> Counters {
        let mut back = self.absorb();
        mem::swap(&mut back.lines, lines);
        mem::take(&mut back.counters)
    }

    pub(super) fn is_idle(&self) -> bool {
        lock(&self.queue).is_empty()
    }

    /// Tells the log and the hook that the file makes trouble.
    pub(super) fn trouble(&self, event: LogEvent, why: &str) {
        self.metrics.file_errors.add(1);
        self.push(Item::Event(Box::new(event)));
        match self.trouble.get() {
            Some(hook) => (hook.0)(why),
            None => *lock(&self.early_trouble) = Some(why.to_owned()),
        }
    }

    fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }
}

/// A panic elsewhere must not take telemetry with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
