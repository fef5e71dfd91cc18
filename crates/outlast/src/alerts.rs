//! Telling a person: a signed webhook, and always the log.

pub(crate) mod webhook;

use crate::{
    clock,
    clock::Clock,
    config::{self, AlertEvent},
    telemetry::{Level, LogEvent, Metrics, Telemetry},
};
use outlast_engine::Signal;
use outlast_model::{Failure, Mono, RouteId, TargetId};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
};
use webhook::{Delivery, Patience};

/// What an alert is about. Each kind belongs to a pair or stands alone; `docs/observability.md` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlertKind {
    /// A target's breaker opened.
    BreakerOpened,
    /// It is closed again.
    BreakerClosed,
    /// Half of a provider's targets failed within a minute.
    ProviderSuspect,
    /// A provider rejects a key.
    KeyRejected,
    /// A key is out of money or of a long-term quota.
    QuotaExhausted,
    /// A key that was out works again.
    KeyRestored,
    /// A provider denies a model to this account.
    AccessDenied,
    /// A target's replies, ratings or golden tasks have become worse; it ranks after the healthy ones.
    QualityDropped,
    /// It has its place again.
    QualityBack,
    /// A changed config was refused; the old one stays.
    ReloadRefused,
    /// The telemetry file makes trouble.
    TelemetryTrouble,
    /// The durable store makes trouble.
    StoreTrouble,
    /// Durable runs wait in a queue that no worker claims from.
    QueueUnattended,
    /// Durable runs wait in a version that no worker of their queue accepts.
    VersionUnaccepted,
    /// A durable run was claimed again and again without getting any further.
    RunPoison,
    /// Nobody could be told that work waits for a person.
    NoticeGivenUp,
}

/// Something a person should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// What it is about.
    pub kind: AlertKind,
    /// Whom it concerns: a target, a provider with a key's position, a file.
    pub subject: String,
    /// One sentence with what, why and what to do. No payload, no key.
    pub message: String,
}

impl From<outlast_engine::Alert> for Alert {
    fn from(alert: outlast_engine::Alert) -> Self {
        use outlast_engine::Alert as E;
        let new = |kind, subject: String, message: String| Alert { kind, subject, message };
        match alert {
            E::BreakerOpened { target, cause } => new(
                AlertKind::BreakerOpened,
                target.to_string(),
                format!("{target} is not asked for now; its last failure was {cause}. Calls go to the next target."),
            ),
            E::BreakerClosed { target, after } => new(
                AlertKind::BreakerClosed,
                target.to_string(),
                format!("{target} serves again in full, after {:.0} s.", after.as_secs_f64()),
            ),
            E::ProviderSuspect { provider } => new(
                AlertKind::ProviderSuspect,
                provider.to_string(),
                format!("Half of {provider}'s targets failed within a minute; the others are ranked last."),
            ),
            E::KeyOut { provider, key, cause } => {
                let (kind, why) = if cause == Failure::QuotaExhausted {
                    (AlertKind::QuotaExhausted, "is out of money or of its quota")
                } else {
                    (AlertKind::KeyRejected, "was rejected")
                };
                let message = format!("Key {} of {provider} {why} and is not used until it works again.", key + 1);
                new(kind, format!("{provider} key {}", key + 1), message)
            }
            E::KeyBack { provider, key } => new(
                AlertKind::KeyRestored,
                format!("{provider} key {}", key + 1),
                format!("Key {} of {provider} works again.", key + 1),
            ),
            E::AccessDenied { target } => new(
                AlertKind::AccessDenied,
                target.to_string(),
                format!("The provider denies {target} to this account. Enable the model there, or remove the target."),
            ),
            E::QualityDropped { target, route, signal, observed, bad, baseline } => new(
                AlertKind::QualityDropped,
                quality_subject(&target, route.as_ref(), signal),
                format!(
                    "{target}{} ranks after the healthy targets: {bad} of its last {observed} {} where up to {:.0} % \
                     would be fine.",
                    on(route.as_ref()),
                    worse(signal),
                    baseline * 100.0
                ),
            ),
            E::QualityBack { target, route, signal, after } => new(
                AlertKind::QualityBack,
                quality_subject(&target, route.as_ref(), signal),
                format!("{target}{} has its place again, after {:.0} s.", on(route.as_ref()), after.as_secs_f64()),
            ),
        }
    }
}

fn on(route: Option<&RouteId>) -> String {
    route.map(|route| format!(" on {route}")).unwrap_or_default()
}

fn quality_subject(target: &TargetId, route: Option<&RouteId>, signal: Signal) -> String {
    format!("{target}{} ({})", on(route), signal.name())
}

/// What is wrong with so many replies.
fn worse(signal: Signal) -> &'static str {
    match signal {
        Signal::Schema => "replies broke their structure,",
        Signal::Refusal => "replies were refusals,",
        Signal::Empty => "replies were empty,",
        Signal::Repair => "replies had to be repaired,",
        Signal::Citation => "replies did not name their sources,",
        Signal::Gate => "replies broke their contract,",
        Signal::Feedback => "ratings were bad,",
        Signal::Golden => "golden tasks failed,",
    }
}

/// The handle. Cheap to clone; dropping the last one abandons what is queued.
#[derive(Clone, Debug)]
pub struct Alerts(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    desk: Arc<Desk>,
    telemetry: Telemetry,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// Decides which alerts are told, and queues their deliveries.
#[derive(Debug)]
struct Desk {
    state: Mutex<State>,
    queue: mpsc::Sender<Delivery>,
    closing: Notify,
    metrics: Arc<Metrics>,
    clock: Clock,
}

#[derive(Debug)]
struct State {
    config: config::Alerts,
    /// By family and subject: what was told last, when, and how often it came again since.
    told: BTreeMap<(Family, String), Told>,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    kind: AlertKind,
    at: Mono,
    repeats: u32,
}

/// Alerts of one family about one subject follow each other: only the same one again is a repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    Breaker,
    Provider,
    Key,
    Access,
    Quality,
    Reload,
    Telemetry,
    Store,
    Queue,
    Version,
    Run,
    Notice,
}

/// The same alert about the same subject is told again after so long at the earliest.
const REPEAT_AFTER: Duration = Duration::from_secs(300);
/// Deliveries waiting. Beyond it an alert is only logged, and counted as dropped.
const QUEUE_MAX: usize = 64;
/// Subjects remembered. Beyond it all are forgotten, and some alerts are told once more.
const SUBJECTS_MAX: usize = 4096;

impl Alerts {
    /// Starts delivery on the current tokio runtime. The telemetry file's troubles become alerts from now on.
    pub fn start(config: &config::Alerts, telemetry: Telemetry, clock: Clock) -> Self {
        Self::start_with(config, telemetry, clock, Patience::default())
    }

    fn start_with(config: &config::Alerts, telemetry: Telemetry, clock: Clock, patience: Patience) -> Self {
        let (queue, deliveries) = mpsc::channel(QUEUE_MAX);
        let desk = Arc::new(Desk {
            state: Mutex::new(State { config: config.clone(), told: BTreeMap::new() }),
            queue,
            closing: Notify::new(),
            metrics: telemetry.shared_metrics(),
            clock,
        });
        let task = tokio::spawn(webhook::run(deliveries, Arc::clone(&desk), telemetry.clone(), patience));
        let hook = Arc::clone(&desk);
        telemetry.on_trouble(move |why| {
            // The writer has logged it already.
            hook.admit(&Alert {
                kind: AlertKind::TelemetryTrouble,
                subject: "telemetry file".into(),
                message: why.into(),
            });
        });
        Alerts(Arc::new(Handle { desk, telemetry, task: Mutex::new(Some(task)) }))
    }

    /// Takes the settings of a reloaded config. What is queued is delivered as it was.
    pub fn configure(&self, config: &config::Alerts) {
        self.0.desk.state().config = config.clone();
    }

    /// Logs the alert and queues its delivery. Repetitions within five minutes are counted and told with the next one.
    /// Never blocks.
    pub fn raise(&self, alert: impl Into<Alert>) {
        let alert = alert.into();
        if let Some(repeats) = self.0.desk.admit(&alert) {
            let mut event =
                LogEvent::new(alert.kind.level(), alert.kind.name(), alert.message).with("subject", alert.subject);
            if repeats > 0 {
                event = event.with("repeats", repeats);
            }
            self.0.telemetry.event(event);
        }
    }

    /// Queues the delivery of an alert that the caller logs itself, in more detail.
    pub fn send(&self, alert: &Alert) {
        self.0.desk.admit(alert);
    }

    /// Delivers what is queued, one try each, for at most so long; then delivery ends. True if nothing was abandoned.
    pub async fn shutdown(&self, within: Duration) -> bool {
        let task = self.0.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.0.desk.closing.notify_one();
        match task {
            Some(mut task) => match clock::timeout(within, &mut task).await {
                Ok(_) => true,
                Err(_) => {
                    task.abort();
                    false
                }
            },
            None => true,
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues the delivery of an alert that is not a mere repetition. Returns how often it came unheard since it was
    /// told last, or `None` if it is a repetition.
    fn admit(&self, alert: &Alert) -> Option<u32> {
        let mut state = self.state();
        let repeats = state.tell(alert, self.clock.mono())?;
        if let Some(delivery) = state.delivery(alert, repeats, &self.clock)
            && self.queue.try_send(delivery).is_err()
        {
            self.metrics.alerts_dropped.add(1);
        }
        Some(repeats)
    }
}

impl State {
    fn tell(&mut self, alert: &Alert, now: Mono) -> Option<u32> {
        if self.told.len() >= SUBJECTS_MAX {
            self.told.clear();
        }
        let new = Told { kind: alert.kind, at: now, repeats: 0 };
        match self.told.get_mut(&(alert.kind.family(), alert.subject.clone())) {
            Some(told) if told.kind == alert.kind && now.since(told.at) < REPEAT_AFTER => {
                told.repeats += 1;
                None
            }
            Some(told) => {
                let repeats = if told.kind == alert.kind { told.repeats } else { 0 };
                *told = new;
                Some(repeats)
            }
            None => {
                self.told.insert((alert.kind.family(), alert.subject.clone()), new);
                Some(0)
            }
        }
    }

    fn delivery(&self, alert: &Alert, repeats: u32, clock: &Clock) -> Option<Delivery> {
        let to = self.config.webhook.clone()?;
        alert.kind.wanted(&self.config.events).then(|| Delivery {
            to,
            secret: self.config.secret.clone(),
            body: webhook::body(alert, repeats, clock).into(),
        })
    }
}

impl AlertKind {
    /// The name in the log and in the webhook's body.
    pub const fn name(self) -> &'static str {
        match self {
            AlertKind::BreakerOpened => "breaker_opened",
            AlertKind::BreakerClosed => "breaker_closed",
            AlertKind::ProviderSuspect => "provider_suspect",
            AlertKind::KeyRejected => "key_rejected",
            AlertKind::QuotaExhausted => "quota_exhausted",
            AlertKind::KeyRestored => "key_restored",
            AlertKind::AccessDenied => "access_denied",
            AlertKind::QualityDropped => "quality_dropped",
            AlertKind::QualityBack => "quality_back",
            AlertKind::ReloadRefused => "reload_refused",
            AlertKind::TelemetryTrouble => "telemetry_trouble",
            AlertKind::StoreTrouble => "store_trouble",
            AlertKind::QueueUnattended => "queue_unattended",
            AlertKind::VersionUnaccepted => "version_unaccepted",
            AlertKind::RunPoison => "run_poison",
            AlertKind::NoticeGivenUp => "notice_given_up",
        }
    }

    fn family(self) -> Family {
        match self {
            AlertKind::BreakerOpened | AlertKind::BreakerClosed => Family::Breaker,
            AlertKind::ProviderSuspect => Family::Provider,
            AlertKind::KeyRejected | AlertKind::QuotaExhausted | AlertKind::KeyRestored => Family::Key,
            AlertKind::AccessDenied => Family::Access,
            AlertKind::QualityDropped | AlertKind::QualityBack => Family::Quality,
            AlertKind::ReloadRefused => Family::Reload,
            AlertKind::TelemetryTrouble => Family::Telemetry,
            AlertKind::StoreTrouble => Family::Store,
            AlertKind::QueueUnattended => Family::Queue,
            AlertKind::VersionUnaccepted => Family::Version,
            AlertKind::RunPoison => Family::Run,
            AlertKind::NoticeGivenUp => Family::Notice,
        }
    }

    /// Whether the webhook wants it. What concerns this process itself, or work that nobody does, is always sent.
    fn wanted(self, events: &[AlertEvent]) -> bool {
        let any = |wanted: &[AlertEvent]| events.iter().any(|event| wanted.contains(event));
        match self {
            AlertKind::BreakerOpened | AlertKind::BreakerClosed | AlertKind::ProviderSuspect => {
                any(&[AlertEvent::Breaker])
            }
            AlertKind::KeyRejected | AlertKind::AccessDenied => any(&[AlertEvent::Auth]),
            AlertKind::QuotaExhausted => any(&[AlertEvent::Quota]),
            AlertKind::QualityDropped | AlertKind::QualityBack => any(&[AlertEvent::Quality]),
            AlertKind::KeyRestored => any(&[AlertEvent::Auth, AlertEvent::Quota]),
            AlertKind::ReloadRefused
            | AlertKind::TelemetryTrouble
            | AlertKind::StoreTrouble
            | AlertKind::QueueUnattended
            | AlertKind::VersionUnaccepted
            | AlertKind::RunPoison
            | AlertKind::NoticeGivenUp => true,
        }
    }

    /// How it is logged.
    pub const fn level(self) -> Level {
        match self {
            AlertKind::BreakerClosed | AlertKind::KeyRestored | AlertKind::QualityBack => Level::Info,
            AlertKind::BreakerOpened | AlertKind::ProviderSuspect | AlertKind::QualityDropped => Level::Warn,
            AlertKind::KeyRejected
            | AlertKind::QuotaExhausted
            | AlertKind::AccessDenied
            | AlertKind::ReloadRefused
            | AlertKind::TelemetryTrouble
            | AlertKind::StoreTrouble
            | AlertKind::QueueUnattended
            | AlertKind::VersionUnaccepted
            | AlertKind::RunPoison
            | AlertKind::NoticeGivenUp => Level::Error,
        }
    }
}

#[cfg(test)]
mod tests;
