//! `Idempotency-Key`: a call is executed once, and whoever asks again gets the same end.
//!
//! The key belongs to the caller: two callers' equal keys never meet. What is kept is the end as the client got it, and it
//! is kept before the client sees it. A call has no effect beyond its reply and its price, so one whose holder died is
//! executed again once its lease has run out.

use super::{
    Shared,
    body::ReplyBody,
    serve::Denial,
    store::{down, tenant},
};
use crate::clock;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use outlast_model::TenantId;
use outlast_store::{BeginCall, Begun, CallEnd, EndCall, Epoch, Fenced, Payload, RenewCall, StoreError};
use outlast_wire::{Inbound, compose, compose::Said, error::Refused, note, reply};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tokio::task::AbortHandle;

/// The header.
pub(super) const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("x-outlast-replayed");
/// The longest key, in characters.
const KEY_MAX: usize = 255;
/// How long a claim stands unless it is renewed: a crashed holder's call is executed again after this.
const LEASE: Duration = Duration::from_secs(15);
/// How long an end is replayed.
const KEEP: Duration = Duration::from_secs(24 * 3600);
/// The longest wait a second caller is told while the first is being answered; most calls end before their lease.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// What becomes of a call with a key.
pub(super) enum Entry {
    /// It is executed.
    Go(Ticket),
    /// It was: this is its end.
    Answer(Response<ReplyBody>),
}

/// The right to execute the call of one key, renewed while it lives. Dropping it frees the key.
pub(super) struct Ticket(Option<Claim>);

struct Claim {
    shared: Arc<Shared>,
    tenant: TenantId,
    key: Arc<str>,
    epoch: Epoch,
    renewing: AbortHandle,
}

/// How a call that holds a [`Ticket`] ended, if it ended for good.
pub(super) enum End<'a> {
    /// With a whole response: a reply, a 202, or an error that would come again.
    Whole(&'a Response<Bytes>),
    /// With a stream whose last part has not been sent yet.
    Stream {
        /// What it said in sum.
        said: &'a Said,
        /// The head of a whole reply of the same call.
        head: &'a Response<Bytes>,
        /// The `outlast` object of its last part.
        notes: Option<&'a str>,
    },
}

/// An end as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    status: u16,
    headers: Vec<(String, String)>,
    ended: KeptEnd,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KeptEnd {
    Whole { body: String },
    Stream { said: Said, notes: Option<String> },
}

/// Looks the call's key up, and claims it if it is new. `path` tells endpoints apart.
pub(super) async fn enter(
    shared: &Arc<Shared>,
    caller: Option<&str>,
    key: &HeaderValue,
    path: &str,
    inbound: &Inbound,
) -> Result<Entry, Denial> {
    let key = readable(key)?;
    if inbound.stream() && inbound.choices() > 1 {
        let message = "A stream of several choices cannot be replayed: leave out `n`, `stream` or the Idempotency-Key.";
        return Err(Denial::new(Refused::BadRequest, message));
    }
    let tenant = tenant(caller);
    let fingerprint = fingerprint(path, inbound);
    let begin = BeginCall { tenant: tenant.clone(), key: key.clone(), fingerprint, lease: LEASE, keep: KEEP };
    let metrics = &shared.telemetry.metrics().idempotency;
    match shared.stored(shared.store.begin_call(begin)).await.map_err(|error| down(&error))? {
        Begun::Execute { epoch } => {
            metrics.executed.add(1);
            Ok(Entry::Go(Ticket::new(shared.clone(), tenant, key, epoch)))
        }
        Begun::Replay(payload) => {
            metrics.replayed.add(1);
            let kept = serde_json::from_slice(payload.as_bytes()).ok();
            let answer = kept.and_then(|kept| replay(kept, inbound));
            let denial = || Denial::new(Refused::Internal, "What was kept under this Idempotency-Key cannot be read.");
            Ok(Entry::Answer(answer.ok_or_else(denial)?))
        }
        Begun::InFlight { retry_after } => {
            metrics.in_flight.add(1);
            let message =
                "The first request with this Idempotency-Key is still being answered. Retry to get its answer.";
            let wait = retry_after.clamp(Duration::from_millis(500), WAIT_MAX);
            Err(Denial::new(Refused::KeyInFlight, message).retry_after(wait))
        }
        Begun::Mismatch => {
            metrics.mismatched.add(1);
            let message = "This Idempotency-Key was used with another request. Send a new key with a new request.";
            Err(Denial::new(Refused::KeyReused, message))
        }
    }
}

fn readable(key: &HeaderValue) -> Result<Arc<str>, Denial> {
    let text = key.to_str().ok().map(str::trim).filter(|key| (1..=KEY_MAX).contains(&key.len()));
    text.map(Arc::from).ok_or_else(|| {
        let message = format!("Header `idempotency-key` must be 1 to {KEY_MAX} printable ASCII characters.");
        Denial::new(Refused::BadRequest, message)
    })
}

/// What is asked, and at which endpoint.
pub(super) fn fingerprint(path: &str, inbound: &Inbound) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    hash.update(path.as_bytes());
    hash.update(&[0]);
    hash.update(&inbound.fingerprint());
    *hash.finalize().as_bytes()
}

/// The kept end in the form that is asked for now: a stream may be replayed whole, and the other way round.
fn replay(kept: Kept, inbound: &Inbound) -> Option<Response<ReplyBody>> {
    // A promise of a reply is one, too; an error is never a stream.
    let is_reply = matches!(kept.status, 200 | 202);
    let (body, streamed) = match kept.ended {
        KeptEnd::Whole { body } if inbound.stream() && is_reply => {
            let said = reply::read(inbound.dialect(), inbound, Bytes::from(body.clone())).ok()?.said();
            let notes = serde_json::from_str::<Noted>(&body).ok().and_then(|noted| noted.outlast);
            (stream(inbound, &said, notes.as_ref().map(|notes| notes.get())), true)
        }
        KeptEnd::Whole { body } => (Bytes::from(body), false),
        KeptEnd::Stream { said, notes } if inbound.stream() => (stream(inbound, &said, notes.as_deref()), true),
        KeptEnd::Stream { said, notes } => {
            let body = compose::whole(inbound, &said);
            (notes.iter().fold(body, |body, notes| note::in_body(body, notes)), false)
        }
    };
    let mut response = Response::new(ReplyBody::from(body));
    *response.status_mut() = StatusCode::from_u16(kept.status).ok()?;
    for (name, value) in kept.headers {
        let (name, value) = (name.parse::<HeaderName>().ok()?, HeaderValue::from_str(&value).ok()?);
        response.headers_mut().insert(name, value);
    }
    let headers = response.headers_mut();
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    // Nobody was asked, and nothing was paid for.
    headers.insert("x-outlast-attempts", HeaderValue::from_static("0"));
    headers.insert("x-outlast-cost-usd", HeaderValue::from_static("0.000000000"));
    headers.insert(header::CONTENT_TYPE, if streamed { STREAM } else { JSON });
    Some(response)
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const STREAM: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");

/// The `outlast` object of a whole reply.
#[derive(Deserialize)]
struct Noted {
    outlast: Option<Box<serde_json::value::RawValue>>,
}

fn stream(inbound: &Inbound, said: &Said, notes: Option<&str>) -> Bytes {
    let (frames, end) = compose::stream(inbound, said);
    let end = match notes {
        Some(notes) => note::in_terminal(inbound.dialect(), end, notes),
        None => end,
    };
    [frames, end].concat().into()
}

impl Ticket {
    fn new(shared: Arc<Shared>, tenant: TenantId, key: Arc<str>, epoch: Epoch) -> Self {
        // A task of its own: a call is not polled while its client does not read.
        let renewing = tokio::spawn(renew(shared.clone(), tenant.clone(), key.clone(), epoch)).abort_handle();
        Ticket(Some(Claim { shared, tenant, key, epoch, renewing }))
    }

    /// Keeps the end. The client must not see it before.
    ///
    /// # Errors
    /// It is not kept: the client must get this error instead of an end that a retry would not see again.
    pub(super) async fn done(mut self, end: End<'_>) -> Result<(), Denial> {
        let Some(claim) = self.0.take() else { return Ok(()) };
        claim.renewing.abort();
        let (kept, is_error) = keep(end);
        let payload = Payload::from(serde_json::to_vec(&kept).unwrap_or_default());
        let end = if is_error { CallEnd::Failed(payload) } else { CallEnd::Done(payload) };
        match claim.shared.stored(claim.end(end)).await {
            Ok(Fenced::Held) => Ok(()),
            Ok(Fenced::Lost) => {
                let message = "Another request took this Idempotency-Key over. Retry to get its answer.";
                Err(Denial::new(Refused::KeyInFlight, message).retry_after(Duration::from_secs(1)))
            }
            Err(error) => {
                // It may be free again for the retry that follows, if the store can do that much.
                drop(claim.end(CallEnd::Released));
                let message = "There is an answer, but it could not be kept under its Idempotency-Key. Retry later.";
                let denial = Denial::new(Refused::StoreDown, message).retry_after(Duration::from_secs(2));
                if let StoreError::TooLarge { .. } = error {
                    let message = "The answer is larger than what can be kept under an Idempotency-Key. Ask for less, or send no key.";
                    return Err(Denial::new(Refused::StoreDown, message));
                }
                Err(denial)
            }
        }
    }
}

impl Claim {
    fn end(&self, end: CallEnd) -> outlast_store::Answer<Fenced> {
        let Claim { tenant, key, epoch, .. } = self;
        self.shared.store.end_call(EndCall { tenant: tenant.clone(), key: key.clone(), epoch: *epoch, end })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(claim) = self.0.take() {
            claim.renewing.abort();
            // Handed over by the call itself; nobody waits for the answer. If it is lost, the lease runs out.
            drop(claim.end(CallEnd::Released));
        }
    }
}

/// Runs until it is aborted or the claim is lost.
async fn renew(shared: Arc<Shared>, tenant: TenantId, key: Arc<str>, epoch: Epoch) {
    loop {
        clock::sleep(LEASE / 3).await;
        let renew = RenewCall { tenant: tenant.clone(), key: key.clone(), epoch, lease: LEASE };
        if let Ok(Fenced::Lost) = shared.stored(shared.store.renew_call(renew)).await {
            return;
        }
    }
}

/// The end as it is kept, and whether it is an error.
fn keep(end: End<'_>) -> (Kept, bool) {
    let (status, headers, ended) = match end {
        End::Whole(response) => {
            let body = String::from_utf8_lossy(response.body()).into_owned();
            (response.status().as_u16(), response.headers(), KeptEnd::Whole { body })
        }
        End::Stream { said, head, notes } => (
            head.status().as_u16(),
            head.headers(),
            KeptEnd::Stream { said: said.clone(), notes: notes.map(str::to_owned) },
        ),
    };
    let headers = headers.iter().filter(|(name, _)| **name != header::CONTENT_LENGTH);
    let headers = headers.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
    (Kept { status, headers: headers.collect(), ended }, status >= 400)
}
