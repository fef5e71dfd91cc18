//! `Idempotency-Key`: a call is executed once, and whoever asks again gets the same end.
//!
//! The key belongs to the caller: two callers' equal keys never meet.

use super::{
    Shared,
    body::ReplyBody,
    serve::Denial,
    store::{down, tenant},
    ticket::{Claim, LEASE, Ticket, replay},
};
use http::{HeaderName, HeaderValue, Response};
use outlast_store::{BeginCall, Begun};
use outlast_wire::{Inbound, error::Refused};
use std::{sync::Arc, time::Duration};

/// The header.
pub(super) const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest key, in characters.
const KEY_MAX: usize = 255;
/// How long an end is replayed.
const KEEP: Duration = Duration::from_secs(24 * 3600);
/// The longest wait a second caller is told while the first is being answered; most calls end before their lease.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// What becomes of a call whose end is kept.
pub(super) enum Entry {
    /// It is executed.
    Go(Ticket),
    /// It was: this is its end.
    Answer(Response<ReplyBody>),
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
    replayable(inbound)?;
    let tenant = tenant(caller);
    let fingerprint = fingerprint(path, inbound);
    let begin = BeginCall { tenant: tenant.clone(), key: key.clone(), fingerprint, lease: LEASE, keep: KEEP };
    let metrics = &shared.telemetry.metrics().idempotency;
    match shared.stored(shared.store.begin_call(begin)).await.map_err(|error| down(&error))? {
        Begun::Execute { epoch } => {
            metrics.executed.add(1);
            Ok(Entry::Go(Ticket::new(shared.clone(), Claim::Call { tenant, key, epoch }, true)))
        }
        Begun::Replay(payload) => {
            metrics.replayed.add(1);
            Ok(Entry::Answer(replay(&payload, inbound)?))
        }
        Begun::InFlight { retry_after } => {
            metrics.in_flight.add(1);
            let message =
                "The first request with this Idempotency-Key is still being answered. Retry to get its answer.";
            Err(Denial::new(Refused::KeyInFlight, message).retry_after(patience(retry_after)))
        }
        Begun::Mismatch => {
            metrics.mismatched.add(1);
            let message = "This Idempotency-Key was used with another request. Send a new key with a new request.";
            Err(Denial::new(Refused::KeyReused, message))
        }
    }
}

/// How long whoever asks for a call in flight is told to wait.
pub(super) fn patience(claim_ends: Duration) -> Duration {
    claim_ends.clamp(Duration::from_millis(500), WAIT_MAX)
}

/// Whether the reply can be given again.
pub(super) fn replayable(inbound: &Inbound) -> Result<(), Denial> {
    if inbound.stream() && inbound.choices() > 1 {
        let message = "A stream of several choices cannot be replayed: leave out `n`, `stream`, or the Idempotency-Key and run it is to be kept under.";
        return Err(Denial::new(Refused::BadRequest, message));
    }
    Ok(())
}

/// A key as the header carries it.
pub(super) fn readable(key: &HeaderValue) -> Result<Arc<str>, Denial> {
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
