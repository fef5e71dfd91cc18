//! The fault-injecting provider: speaks OpenAI chat completions and Anthropic messages, and breaks as told.
//!
//! Without a fault it answers at once with deterministic text, so that it also serves as a bench's upstream. A fault is
//! chosen per call by header, by the model's name or by rules set while it runs; `docs/faults.md` has the words and the
//! ways. Resets are real TCP resets, early ends are real early ends.

mod admin;
mod answer;
mod anthropic;
mod asked;
mod choose;
mod frames;
mod instance;
mod log;
mod openai;
mod problem;
mod rules;
mod script;
mod serve;
mod server;
mod told;

pub use log::{Ending, Seen, Stats};

use crate::clock::Clock;
use choose::Rules;
use log::Log;
use outlast_drill::{Fault, FaultPlan};
use outlast_model::Mono;
use server::Port;
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

/// How a fake behaves.
#[derive(Clone, Debug)]
pub struct FakeConfig {
    /// Where to listen; port 0 takes a free one.
    pub addr: SocketAddr,
    /// Its name, which its answers give.
    pub name: String,
    /// What `/v1/models` lists. Any other model is answered too.
    pub models: Vec<String>,
    /// How many chunks a plain text answer has; by default about 16. A model's suffix `~chunks=N` goes first.
    pub chunks: Option<u32>,
    /// Before every response head.
    pub latency: Duration,
    /// Between the head and the first output.
    pub first_token: Duration,
    /// Between two outputs of a stream. A model's suffix `~gap=TIME` goes first.
    pub token_gap: Duration,
    /// The API keys it accepts; with none it accepts all.
    pub keys: Vec<String>,
    /// Calls at once beyond which it answers 429.
    pub capacity: Option<u32>,
    /// Calls kept in the log; the oldest go first. With 0 nothing is kept and nothing is hashed.
    pub log: usize,
    /// For the lots that plans with a share draw.
    pub seed: u64,
    /// Whether it refuses what the vendors refuse beyond what it must read itself: fields out of range, unknown
    /// fields (Anthropic's side), misplaced roles, empty texts...
    pub strict: bool,
}

impl Default for FakeConfig {
    fn default() -> Self {
        FakeConfig {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            name: "fake".into(),
            models: vec!["fake-large".into(), "fake-small".into(), "fake-reason".into()],
            chunks: None,
            latency: Duration::ZERO,
            first_token: Duration::ZERO,
            token_gap: Duration::ZERO,
            keys: Vec::new(),
            capacity: None,
            log: 4096,
            seed: 1,
            strict: true,
        }
    }
}

impl FakeConfig {
    /// A fake of that name, otherwise as by default.
    pub fn named(name: &str) -> Self {
        FakeConfig { name: name.into(), ..FakeConfig::default() }
    }
}

/// A running fake. Dropping it closes its port and every connection.
pub struct Fake {
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Fake {
    /// Starts listening; calls are answered on the current tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(config: FakeConfig) -> io::Result<Fake> {
        let shared = Arc::new(Shared {
            port: Port::bind(config.addr)?,
            rules: Rules::new(config.seed),
            log: Mutex::new(Log::new(config.log)),
            clock: Clock::seeded(config.seed),
            ids: AtomicU64::new(0),
            refusal: Mutex::new(None),
            refusal_changed: Notify::new(),
            resets: watch::Sender::new(0),
            counted: Notify::new(),
            config,
        });
        let accepting = tokio::spawn(server::accept(Arc::clone(&shared)));
        Ok(Fake { shared, accepting })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.shared.port.addr()
    }

    /// Its URL without any path: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// Sets, or with `None` lifts, the fault of the models a glob names. Calls from now on feel it.
    ///
    /// # Errors
    /// A text for people: `refuse-connections` must be for all models, without `share` or `first`; or the port could not
    /// be taken again.
    pub fn set_fault(&self, model_glob: &str, plan: Option<FaultPlan>) -> Result<(), String> {
        self.shared.set_fault(model_glob, plan)
    }

    /// Lifts every fault.
    ///
    /// # Errors
    /// A text for people: the port could not be taken again.
    pub fn heal(&self) -> Result<(), String> {
        self.shared.heal()
    }

    /// The calls it saw, oldest first, as far as the log reaches back.
    pub fn log(&self) -> Vec<Seen> {
        self.shared.log().entries()
    }

    /// Forgets the calls and counters.
    pub fn clear_log(&self) {
        self.shared.log().clear();
    }

    /// How many model calls it saw.
    pub fn count(&self) -> u64 {
        self.shared.log().stats.calls
    }

    /// Its counters.
    pub fn stats(&self) -> Stats {
        self.shared.log().stats.clone()
    }

    /// Waits until no call is going on, so that the log is final.
    pub async fn quiet(&self) {
        self.until(|stats| stats.in_flight == 0).await;
    }

    /// Waits until the counters satisfy `wanted`: so many calls seen, one client gone...
    pub async fn until(&self, wanted: impl Fn(&Stats) -> bool) {
        loop {
            let changed = self.shared.counted.notified();
            if wanted(&self.shared.log().stats) {
                return;
            }
            changed.await;
        }
    }

    /// Closes its port and every connection, and returns when they are closed.
    pub async fn shutdown(mut self) {
        self.accepting.abort();
        // Its only possible error is the abort itself.
        let _ = (&mut self.accepting).await;
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The start of a key's BLAKE3 hash in hex, as the log shows it.
pub fn key_hash(key: &str) -> String {
    blake3::hash(key.as_bytes()).to_hex()[..8].to_owned()
}

/// What all connections share.
struct Shared {
    config: FakeConfig,
    clock: Clock,
    port: Port,
    rules: Rules,
    log: Mutex<Log>,
    ids: AtomicU64,
    /// From when until when connections are refused.
    refusal: Mutex<Option<(Mono, Mono)>>,
    refusal_changed: Notify,
    /// Each change resets all open connections.
    resets: watch::Sender<u64>,
    /// A call has begun or ended.
    counted: Notify,
}

impl Shared {
    fn set_fault(&self, glob: &str, plan: Option<FaultPlan>) -> Result<(), String> {
        match plan {
            Some(plan) if plan.fault == Fault::RefuseConnections => {
                if glob != "*" || plan.share < 1.0 || plan.first.is_some() {
                    return Err(
                        "refuse-connections is for all models, every time: use model `*`, and from and until".into()
                    );
                }
                let now = self.clock.mono();
                let until = plan.until.map_or(Mono::FAR, |until| now + until);
                self.refuse(Some((now + plan.from, until)))
            }
            Some(plan) => {
                self.rules.set(glob, Some(plan), self.uptime());
                Ok(())
            }
            None => {
                self.rules.set(glob, None, self.uptime());
                if glob == "*" { self.refuse(None) } else { Ok(()) }
            }
        }
    }

    fn heal(&self) -> Result<(), String> {
        self.rules.clear();
        self.refuse(None)
    }

    fn refuse(&self, refusal: Option<(Mono, Mono)>) -> Result<(), String> {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
        let done = self.put_refusal_into_force();
        self.refusal_changed.notify_one();
        done.map(|_| ()).map_err(|error| format!("cannot change the listening port: {error}"))
    }

    /// Whether connections are refused now.
    fn refusal(&self) -> bool {
        let refusal = *self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.mono();
        refusal.is_some_and(|(from, until)| from <= now && now < until)
    }

    /// Opens or closes the port as the plan says, and returns when it must be looked at again. A port that cannot be
    /// opened stays closed until the next change: whoever set the plan has been told.
    fn apply_refusal(&self) -> Option<Mono> {
        self.put_refusal_into_force().unwrap_or_default()
    }

    fn put_refusal_into_force(&self) -> io::Result<Option<Mono>> {
        let refusal = *self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.mono();
        match refusal {
            Some((from, _)) if now < from => self.port.open().map(|()| Some(from)),
            Some((_, until)) if now < until => {
                if self.port.close()? {
                    self.resets.send_modify(|resets| *resets += 1);
                }
                Ok((until != Mono::FAR).then_some(until))
            }
            Some(_) | None => self.port.open().map(|()| None),
        }
    }

    fn uptime(&self) -> Duration {
        self.clock.mono().since(Mono::ZERO)
    }

    fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call_counted(&self) {
        self.counted.notify_waiters();
    }
}
