//! The gateway: listen, drive, answer.
//!
//! Read in the order of a request's journey: [`listen`] (connections), [`serve`] (endpoints, keys),
//! [`intake`] (the body), [`drive`] (THE loop), [`exchange`] (one attempt), [`upstream`] and [`pool`]
//! (the wire to a provider), [`validators`] (who else is asked about a reply), [`backstops`] (when no path is left),
//! [`reply_head`] and [`notes`] (what the client is told). [`inner`] makes calls on behalf of others, [`votes`] has
//! several of them decide one. [`fleet_task`] drives what the calls share.

mod admin;
mod backstops;
mod body;
mod cache;
mod confirm;
mod drive;
pub(crate) mod escalations;
mod exchange;
mod feedback;
mod fleet_task;
mod golden;
mod idempotency;
mod inner;
mod intake;
mod journal;
mod lanes;
mod listen;
mod live;
mod notes;
mod pool;
mod queue;
mod reply_head;
pub(crate) mod runs;
mod serve;
pub(crate) mod store;
mod ticket;
pub(crate) mod tools;
mod upstream;
mod validators;
mod votes;
mod wakes;

use crate::{
    alerts::{Alert, AlertKind, Alerts},
    clock::Clock,
    config::{Changes, Config, ConfigErrors, Reload},
    telemetry::{LogEvent, Telemetry, TelemetryOptions},
};
use arc_swap::ArcSwap;
use listen::{Door, Phase, Workers};
pub(crate) use live::Live;
use outlast_engine::{CallId, Fleet, FleetAction, TargetView};
use outlast_model::Mono;
use outlast_store::{Store, StoreError};
use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::TcpSocket,
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
};

/// Fleet actions on their way to the fleet's task. A probe or alert beyond it is dropped: the fleet's permits expire
/// and the next probe follows.
const FLEET_ACTIONS_MAX: usize = 1024;
/// How long alerts still queued may take at the end.
const ALERTS_FLUSH: Duration = Duration::from_secs(2);
/// The kernel's queue of connections not yet accepted.
const BACKLOG: u32 = 4096;

/// Where the config came from, to load it again.
pub trait ConfigSource: Send {
    /// Whether what is there differs from what was last judged, good or bad.
    fn is_changed(&self) -> bool;

    /// Loads it again and compares it with what is running.
    ///
    /// # Errors
    /// Every problem of the config; what is running goes on.
    fn reload(&mut self, running: &Config) -> Result<Reload, ConfigErrors>;
}

/// What all connections share.
pub(crate) struct Shared {
    /// Time and entropy.
    pub(crate) clock: Clock,
    /// Records, log and metrics.
    pub(crate) telemetry: Telemetry,
    alerts: Alerts,
    live: ArcSwap<Live>,
    fleet: Mutex<Fleet>,
    fleet_actions: mpsc::Sender<FleetAction>,
    /// When the fleet's task will next wake, and how to wake it earlier.
    fleet_wakes_at: AtomicU64,
    fleet_moved: Notify,
    wakes: wakes::Wakes,
    calls: AtomicU64,
    /// What must not be forgotten.
    store: Arc<dyn Store>,
    queue: queue::Queue,
    /// Who waits for a durable run.
    pub(crate) runs: runs::Runs,
    tools: tools::Tools,
    /// Who looks after what waits for a person.
    pub(crate) people: escalations::People,
    rated: feedback::Rated,
    caching: cache::OnTheWay,
    held_bytes: intake::HeldBytes,
    draining: AtomicBool,
    /// Locked for a whole reload: there is one at a time.
    source: Option<Mutex<Box<dyn ConfigSource>>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared(..)")
    }
}

impl Shared {
    /// What must not be forgotten.
    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Tells the operator what the caller has logged.
    pub(crate) fn alert(&self, alert: &Alert) {
        self.alerts.send(alert);
    }

    /// The generation in force.
    pub(crate) fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// Whether the process is on its way out.
    pub(crate) fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    fn next_call_id(&self) -> CallId {
        CallId(self.calls.fetch_add(1, Ordering::Relaxed))
    }

    /// Holds the fleet for one decision, then passes its actions on.
    fn with_fleet<T>(&self, decide: impl FnOnce(&mut Fleet) -> T) -> T {
        let mut fleet = self.lock_fleet();
        let decided = decide(&mut fleet);
        while let Some(action) = fleet.poll_action() {
            match action {
                FleetAction::Wake(call) => self.wakes.wake(call),
                FleetAction::Alert(alert) => {
                    // Whatever changed with a target may be what the queue waits for.
                    self.queue.wake();
                    self.alerts.raise(alert);
                }
                FleetAction::Probe { .. } => {
                    let _ = self.fleet_actions.try_send(action);
                }
            }
        }
        let next = fleet.poll_timeout();
        drop(fleet);
        if next.is_some_and(|at| at.as_nanos() < self.fleet_wakes_at.load(Ordering::Relaxed)) {
            self.fleet_moved.notify_one();
        }
        decided
    }

    fn lock_fleet(&self) -> MutexGuard<'_, Fleet> {
        // A panic inside one call's decision must not take the gateway down with it.
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every target as the operator sees it.
    pub(crate) fn view(&self) -> Vec<TargetView> {
        let now = self.clock.mono();
        self.lock_fleet().view(now)
    }

    /// Loads the config again and swaps it in whole; a bad one changes nothing. With `only_if_changed`, `None` when
    /// there is nothing new to judge.
    ///
    /// # Errors
    /// Every problem of the config, a line each.
    pub(crate) async fn reload(self: &Arc<Self>, only_if_changed: bool) -> Option<Result<Changes, Vec<String>>> {
        let shared = self.clone();
        let reloading = tokio::task::spawn_blocking(move || shared.reload_blocking(only_if_changed));
        reloading.await.unwrap_or_else(|error| Some(Err(vec![format!("loading the config failed: {error}")])))
    }

    fn reload_blocking(&self, only_if_changed: bool) -> Option<Result<Changes, Vec<String>>> {
        let Some(source) = &self.source else {
            return Some(Err(vec!["this gateway was started without a config to load again".into()]));
        };
        let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
        if only_if_changed && !source.is_changed() {
            return None;
        }
        Some(match source.reload(&self.live().config) {
            Ok(reload) => Ok(self.swap_in(reload)),
            Err(errors) => {
                let errors: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
                self.telemetry.metrics().reloads_refused.add(1);
                let event = LogEvent::error("reload_refused", "the new config has errors; the old one stays in force");
                self.telemetry.event(event.with("errors", errors.clone()));
                self.alerts.send(&reload_refused(&self.live().config.source, &errors));
                Err(errors)
            }
        })
    }

    fn swap_in(&self, Reload { config, changes }: Reload) -> Changes {
        let now = self.clock.mono();
        self.alerts.configure(&config.alerts);
        declare(&self.telemetry, &config);
        self.tools.configure(&config);
        let warnings = config.warnings.clone();
        let next = self.with_fleet(|fleet| Live::install(config, fleet, now));
        self.live.store(Arc::new(next));
        self.telemetry.metrics().reloads_applied.add(1);
        let event = LogEvent::info("reload", "the new config is in force");
        self.telemetry.event(event.with("changes", changes.to_string()));
        warn(&self.telemetry, &warnings);
        changes
    }
}

/// The log has all the errors; whoever reads the alert needs the first to know which.
fn reload_refused(source: &str, errors: &[String]) -> Alert {
    let first = errors.first().map_or("", String::as_str);
    let message = format!("The new config has errors ({}); the old one stays in force. First: {first}", errors.len());
    Alert { kind: AlertKind::ReloadRefused, subject: source.to_owned(), message }
}

/// Logs what works and is probably not meant.
fn warn(telemetry: &Telemetry, warnings: &[Box<str>]) {
    for warning in warnings {
        telemetry.event(LogEvent::warn("config_warning", &**warning));
    }
}

/// Tells the metrics which routes and targets there are.
fn declare(telemetry: &Telemetry, config: &Config) {
    telemetry.metrics().install(config.routes.keys(), config.targets.iter().map(|target| &target.id));
}

/// Why the gateway did not start.
#[derive(Debug)]
pub enum StartError {
    /// The address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// The certificate or its key cannot be used.
    Tls(String),
    /// The telemetry file cannot be used.
    Telemetry(String),
    /// The durable store cannot be used.
    Store(StoreError),
    /// The system refused a thread.
    Threads(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Listen(address, error) => {
                write!(f, "cannot listen on {address}: {error}. Stop what listens there, or change `server.listen`.")
            }
            StartError::Tls(why) => write!(f, "cannot use `server.tls`: {why}"),
            StartError::Telemetry(why) => write!(f, "cannot use `telemetry.file`: {why}"),
            StartError::Store(why) => write!(f, "cannot use `store.file`: {why}"),
            StartError::Threads(error) => write!(f, "cannot start worker threads: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// How to start a gateway, beside its config.
#[derive(Default)]
pub struct StartOptions {
    /// How to load the config again.
    pub source: Option<Box<dyn ConfigSource>>,
    /// Worker threads; the machine's parallelism if absent.
    pub workers: Option<usize>,
    /// What must not be forgotten is kept here instead of where the config says.
    pub store: Option<Arc<dyn Store>>,
    /// Where log lines go and how they look; as the config and the terminal say if absent.
    pub telemetry: Option<TelemetryOptions>,
}

/// A running gateway.
pub struct Gateway {
    shared: Arc<Shared>,
    address: SocketAddr,
    phase: watch::Sender<Phase>,
    accepting: JoinHandle<Workers>,
    fleet_task: JoinHandle<()>,
    store_task: JoinHandle<()>,
    golden_task: JoinHandle<()>,
    verifying_task: JoinHandle<()>,
    runs_task: JoinHandle<()>,
    queue_workers: queue::Workers,
    executors: runs::Executors,
    watchers: escalations::Watchers,
}

impl Gateway {
    /// Binds the address and starts serving. Call from a tokio runtime, which then runs the accept loop and the
    /// fleet's task; requests run on worker threads of their own.
    ///
    /// # Errors
    /// When the address, the certificate, the telemetry file or the threads cannot be had.
    pub async fn start(config: Config, options: StartOptions) -> Result<Gateway, StartError> {
        let clock = Clock::start();
        let listener = bind(config.server.listen)?;
        let address = listener.local_addr().map_err(|error| StartError::Listen(config.server.listen, error))?;
        let door = Arc::new(door(&config)?);
        let telemetry_options = options.telemetry.unwrap_or_else(|| TelemetryOptions::from(&config.telemetry));
        let telemetry = Telemetry::start(telemetry_options, clock.clone())
            .map_err(|error| StartError::Telemetry(error.to_string()))?;
        declare(&telemetry, &config);
        let started = LogEvent::info("start", format!("listening on {address}"));
        telemetry.event(started.with("config", &*config.source).with("version", env!("CARGO_PKG_VERSION")));
        warn(&telemetry, &config.warnings);
        let store = match options.store {
            Some(store) => store,
            None => store::open(config.store.as_ref(), &clock).map_err(StartError::Store)?,
        };
        let alerts = Alerts::start(&config.alerts, telemetry.clone(), clock.clone());
        let mut fleet = Fleet::new(config.health.clone(), clock.seed());
        let live = Live::install(config, &mut fleet, clock.mono());
        let tools = tools::Tools::new(clock.seed());
        let (fleet_actions, actions) = mpsc::channel(FLEET_ACTIONS_MAX);
        let shared = Arc::new(Shared {
            clock,
            telemetry,
            alerts,
            live: ArcSwap::from_pointee(live),
            fleet: Mutex::new(fleet),
            fleet_actions,
            fleet_wakes_at: AtomicU64::new(Mono::FAR.as_nanos()),
            fleet_moved: Notify::new(),
            wakes: wakes::Wakes::default(),
            calls: AtomicU64::new(0),
            store,
            queue: queue::Queue::default(),
            runs: runs::Runs::default(),
            tools,
            people: escalations::People::default(),
            rated: feedback::Rated::default(),
            caching: cache::OnTheWay::default(),
            held_bytes: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            source: options.source.map(Mutex::new),
        });
        let (phase, watching) = watch::channel(Phase::Serving);
        let count = options.workers.or_else(|| std::thread::available_parallelism().ok().map(usize::from));
        let workers = Workers::start(count.unwrap_or(1), &shared, &door, &watching).map_err(StartError::Threads)?;
        let fleet_task = tokio::spawn(fleet_task::run(shared.clone(), actions));
        let store_task = tokio::spawn(store::look_after(shared.clone()));
        let golden_task = tokio::spawn(golden::watch(shared.clone()));
        let verifying_task = tokio::spawn(tools::look_after(shared.clone()));
        let runs_task = tokio::spawn(runs::watch(shared.clone()));
        let queue_workers = queue::Workers::start(&shared);
        let executors = runs::Executors::start(&shared);
        let watchers = escalations::Watchers::start(&shared);
        store::refresh(&shared).await;
        let accepting = tokio::spawn(listen::accept(listener, workers, shared.clone(), door, watching));
        Ok(Gateway {
            shared,
            address,
            phase,
            accepting,
            fleet_task,
            store_task,
            golden_task,
            verifying_task,
            runs_task,
            queue_workers,
            executors,
            watchers,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every target as the operator sees it.
    pub fn targets(&self) -> Vec<TargetView> {
        self.shared.view()
    }

    /// Its records, log and metrics.
    pub fn telemetry(&self) -> &Telemetry {
        &self.shared.telemetry
    }

    /// Loads the config again and swaps it in whole; a bad one changes nothing.
    ///
    /// # Errors
    /// Every problem of the config, a line each.
    pub async fn reload(&self) -> Result<Changes, Vec<String>> {
        self.shared.reload(false).await.unwrap_or_else(|| Ok(Changes::default()))
    }

    /// As [`Gateway::reload`], if what is there differs from what was last judged. The log tells the outcome.
    pub async fn reload_if_changed(&self) {
        if self.shared.source.is_some() {
            let _ = self.shared.reload(true).await;
        }
    }

    /// Stops: new connections and calls are refused, calls in flight finish, then records are flushed. Returns whether
    /// all of them finished within the config's `drain_timeout`.
    pub async fn stop(self) -> bool {
        let Gateway {
            shared,
            phase,
            accepting,
            fleet_task,
            store_task,
            golden_task,
            verifying_task,
            runs_task,
            queue_workers,
            executors,
            watchers,
            address: _,
        } = self;
        let patience = shared.live().config.server.drain_timeout;
        let begun = shared.clock.mono();
        shared.draining.store(true, Ordering::Relaxed);
        shared.queue.wake();
        shared.runs.close();
        shared.telemetry.event(LogEvent::info("drain", "stopping: calls in flight finish, new ones are refused"));
        phase.send_replace(Phase::Draining);
        let finished = match accepting.await {
            Ok(workers) => listen::drain(workers, &phase, patience).await,
            Err(_) => false,
        };
        golden_task.abort();
        runs_task.abort();
        drop(watchers);
        let left = patience.saturating_sub(shared.clock.mono().since(begun));
        tokio::join!(queue_workers.finish(left), executors.finish(left));
        verifying_task.abort();
        // Attempts whose callers have left are still written down.
        shared.tools.finish(patience.saturating_sub(shared.clock.mono().since(begun))).await;
        fleet_task.abort();
        store_task.abort();
        // Whatever was handed over before is carried out before this.
        let _ = shared.stored(shared.store.sweep(1)).await;
        shared.alerts.shutdown(ALERTS_FLUSH).await;
        let end = if finished {
            LogEvent::info("stop", "every call finished")
        } else {
            LogEvent::warn("stop", "the drain timeout passed with calls in flight; they are cut")
        };
        shared.telemetry.event(end);
        let telemetry = shared.telemetry.clone();
        let flushed = tokio::task::spawn_blocking(move || telemetry.shutdown(Duration::from_secs(5))).await;
        finished && flushed.unwrap_or(false)
    }
}

fn bind(address: SocketAddr) -> Result<tokio::net::TcpListener, StartError> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|error| StartError::Listen(address, error))
}

fn door(config: &Config) -> Result<Door, StartError> {
    let server = &config.server;
    let tls = server.tls.as_ref().map(listen::tls_acceptor).transpose().map_err(StartError::Tls)?;
    let connections_max = usize::try_from(server.max_connections).unwrap_or(usize::MAX);
    Ok(Door { connections_max, header_timeout: server.header_timeout, tls })
}
