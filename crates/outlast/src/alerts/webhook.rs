//! Delivery: one POST after the other, each signed, each tried a few times.
//!
//! The address comes from the operator's config, never from a client, so that it may name any host.

use super::{Alert, Desk};
use crate::{
    clock,
    clock::Clock,
    config::SecretKey,
    telemetry::{LogEvent, Telemetry},
};
use aws_lc_rs::hmac;
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// One message on its way.
pub(crate) struct Delivery {
    pub(crate) to: Uri,
    pub(crate) secret: Option<SecretKey>,
    pub(crate) body: Bytes,
}

/// Why a message did not arrive.
pub(crate) struct Undelivered {
    /// The receiver will not change its mind.
    pub(crate) is_final: bool,
    /// In words, without the address: it may be a credential.
    pub(crate) why: String,
}

/// Who delivers: a client of its own, made on first use.
#[derive(Default)]
pub(crate) struct Postman(Option<Http>);

impl Postman {
    /// One signed POST. Anything but a 2xx within `timeout` is not delivered.
    ///
    /// # Errors
    /// [`Undelivered`].
    pub(crate) async fn post(
        &mut self,
        delivery: &Delivery,
        clock: &Clock,
        timeout: Duration,
    ) -> Result<(), Undelivered> {
        let passing = |why: String| Undelivered { is_final: false, why };
        let client = match &self.0 {
            Some(client) => client,
            None => {
                let client = connect().map_err(|error| Undelivered { is_final: true, why: error.to_string() })?;
                self.0.insert(client)
            }
        };
        let request = request(delivery, clock).map_err(|why| Undelivered { is_final: true, why })?;
        match clock::timeout(timeout, client.request(request)).await {
            Ok(Ok(reply)) if reply.status().is_success() => Ok(()),
            Ok(Ok(reply)) => {
                let status = reply.status();
                Err(Undelivered { is_final: is_final(status), why: format!("it answered {status}") })
            }
            Ok(Err(error)) if error.is_connect() => Err(passing("the connection failed".into())),
            Ok(Err(_)) => Err(passing("the exchange broke".into())),
            Err(_) => Err(passing("it did not answer in time".into())),
        }
    }
}

/// How long delivery keeps trying.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Tries of one alert.
    pub(super) tries: u32,
    /// The wait after the first failed try; it doubles with each.
    pub(super) backoff: Duration,
    /// For one try.
    pub(super) timeout: Duration,
}

impl Default for Patience {
    /// Five tries within some 15 s of waiting: longer than a receiver's restart, shorter than an alert stays news.
    fn default() -> Self {
        Patience { tries: 5, backoff: Duration::from_secs(1), timeout: Duration::from_secs(10) }
    }
}

/// A client for whatever the operator names.
pub(crate) type Http = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Delivers until the queue is closed. Once closing, each alert left has one try.
pub(super) async fn run(
    mut deliveries: mpsc::Receiver<Delivery>,
    desk: Arc<Desk>,
    telemetry: Telemetry,
    patience: Patience,
) {
    let mut http = Postman::default();
    let mut patience = patience;
    loop {
        let delivery = tokio::select! {
            biased;
            () = desk.closing.notified() => {
                deliveries.close();
                patience.tries = 1;
                continue;
            }
            delivery = deliveries.recv() => delivery,
        };
        let Some(delivery) = delivery else { return };
        match deliver(&delivery, &mut http, &desk, patience).await {
            Ok(()) => desk.metrics.alerts_delivered.add(1),
            Err(why) => {
                desk.metrics.alerts_dropped.add(1);
                // Not an alert itself: it would follow the same way.
                telemetry.event(LogEvent::warn("alert_undelivered", format!("The alert webhook failed: {why}")));
            }
        }
    }
}

async fn deliver(delivery: &Delivery, http: &mut Postman, desk: &Desk, patience: Patience) -> Result<(), String> {
    let mut try_number = 1;
    loop {
        let Err(undelivered) = http.post(delivery, &desk.clock, patience.timeout).await else { return Ok(()) };
        let why = undelivered.why;
        if undelivered.is_final {
            return Err(why);
        }
        if try_number >= patience.tries {
            return Err(format!("{why}, after {try_number} tries"));
        }
        let wait = patience.backoff.saturating_mul(1 << (try_number - 1).min(16));
        tokio::select! {
            () = clock::sleep(wait) => {}
            () = desk.closing.notified() => {
                desk.closing.notify_one();
                return Err(format!("{why}, and this process ends"));
            }
        }
        try_number += 1;
    }
}

/// The receiver will not change its mind.
fn is_final(status: StatusCode) -> bool {
    status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT && status != StatusCode::TOO_MANY_REQUESTS
}

pub(crate) fn connect() -> std::io::Result<Http> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_platform_verifier(provider)?
        .https_or_http()
        .enable_http1()
        .build();
    Ok(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector))
}

fn request(delivery: &Delivery, clock: &Clock) -> Result<Request<Full<Bytes>>, String> {
    let timestamp = clock.wall().0.div_euclid(1000).to_string();
    let mut request = Request::post(delivery.to.clone())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("outlast/", env!("CARGO_PKG_VERSION")));
    if let Some(secret) = &delivery.secret {
        request = request
            .header("x-outlast-signature", format!("v1={}", signature(secret, &timestamp, &delivery.body)))
            .header("x-outlast-timestamp", timestamp);
    }
    request.body(Full::new(delivery.body.clone())).map_err(|_| "the address cannot be used".into())
}

/// HMAC-SHA256 over the timestamp, a full stop and the body, in hexadecimal. The timestamp is signed so that an old
/// delivery cannot be played again.
fn signature(secret: &SecretKey, timestamp: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let mut signing = hmac::Context::with_key(&key);
    signing.update(timestamp.as_bytes());
    signing.update(b".");
    signing.update(body);
    signing.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The body of a delivery. The id stays the same over all tries.
pub(super) fn body(alert: &Alert, repeats: u32, clock: &Clock) -> Vec<u8> {
    let at = jiff::Timestamp::from_millisecond(clock.wall().0).unwrap_or_default();
    let body = serde_json::json!({
        "version": 1,
        "id": format!("alert_{:016x}", clock.seed()),
        "kind": alert.kind.name(),
        "level": alert.kind.level().name(),
        "subject": alert.subject,
        "message": alert.message,
        "at": format!("{at:.3}"),
        "repeats": repeats,
    });
    body.to_string().into_bytes()
}
