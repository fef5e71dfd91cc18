//! The right to execute a call whose end is kept: under an idempotency key, or as a step of a run.
//!
//! What is kept is the end as the client got it, and it is kept before the client sees it. Whoever asks again gets the
//! same end. A call has no effect beyond its reply and its price, so one whose holder died is executed again.

use super::{Shared, body::ReplyBody, serve::Denial};
use crate::{clock, failpoint};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use outlast_engine::run::{Ended, Proof};
use outlast_model::{TenantId, Usd};
use outlast_store::{
    CallEnd, EndCall, EndStep, Epoch, Fenced, IfParked, Payload, Place, RenewCall, RenewStep, StepEnded, StoreError,
};
use outlast_wire::{Inbound, compose, compose::Said, error::Refused, note, reply};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tokio::task::AbortHandle;

const REPLAYED: HeaderName = HeaderName::from_static("x-outlast-replayed");
/// How long a claim stands unless it is renewed: a crashed holder's call is executed again after this.
pub(super) const LEASE: Duration = Duration::from_secs(15);

/// The right to execute one call, renewed while it lives. Dropping it makes the call anybody's again.
pub(super) struct Ticket(Option<Held>);

struct Held {
    shared: Arc<Shared>,
    claim: Claim,
    /// Absent where somebody else keeps the claim: a run's worker.
    renewing: Option<AbortHandle>,
}

/// What is held.
#[derive(Clone)]
pub(super) enum Claim {
    /// The call of an idempotency key.
    Call { tenant: TenantId, key: Arc<str>, epoch: Epoch },
    /// A step of a run.
    Step { place: Place, epoch: Epoch, attempt: u32 },
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

impl Ticket {
    /// For a claim that was given just now. `renews`: nobody else keeps it.
    pub(super) fn new(shared: Arc<Shared>, claim: Claim, renews: bool) -> Self {
        // A task of its own: a call is not polled while its client does not read.
        let renewing = renews.then(|| tokio::spawn(renew(shared.clone(), claim.clone())).abort_handle());
        Ticket(Some(Held { shared, claim, renewing }))
    }

    /// Whether it is a step of a run: its tool calls are the agent's only once they are written down, and a promise of a
    /// later reply is no result.
    pub(super) fn is_step(&self) -> bool {
        match self.0.as_ref().map(|held| &held.claim) {
            Some(Claim::Step { .. }) => true,
            Some(Claim::Call { .. }) | None => false,
        }
    }

    /// Keeps the end. The client must not see it before.
    ///
    /// # Errors
    /// It is not kept: the client must get this error instead of an end that a retry would not see again.
    pub(super) async fn done(mut self, end: End<'_>, cost: Usd) -> Result<(), Denial> {
        let Some(mut held) = self.0.take() else { return Ok(()) };
        held.stop_renewing();
        let (kept, is_error) = keep(end);
        let payload = Payload::from(serde_json::to_vec(&kept).unwrap_or_default());
        match held.end(payload, is_error, cost).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                let message = "Another request took this call over. Retry to get its answer.";
                Err(Denial::new(Refused::KeyInFlight, message).retry_after(Duration::from_secs(1)))
            }
            Err(StoreError::TooLarge { .. }) => {
                held.release();
                let message =
                    "The answer is larger than what can be kept. Ask for less, or without `Idempotency-Key` and run.";
                Err(Denial::new(Refused::StoreDown, message))
            }
            Err(_) => {
                // It may be free again for the retry that follows, if the store can do that much.
                held.release();
                let message = "There is an answer, but it could not be kept, as the request demands. Retry later.";
                Err(Denial::new(Refused::StoreDown, message).retry_after(Duration::from_secs(2)))
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(mut held) = self.0.take() {
            held.stop_renewing();
            held.release();
        }
    }
}

impl Held {
    fn stop_renewing(&mut self) {
        if let Some(renewing) = self.renewing.take() {
            renewing.abort();
        }
    }

    /// True if the claim still stood.
    async fn end(&self, payload: Payload, is_error: bool, cost: Usd) -> Result<bool, StoreError> {
        let store = &self.shared.store;
        match &self.claim {
            Claim::Call { tenant, key, epoch } => {
                let end = if is_error { CallEnd::Failed(payload) } else { CallEnd::Done(payload) };
                let end = EndCall { tenant: tenant.clone(), key: key.clone(), epoch: *epoch, end };
                Ok(self.shared.stored(store.end_call(end)).await? == Fenced::Held)
            }
            Claim::Step { .. } => {
                let ended = if is_error { Ended::Failed(Proof::Final) } else { Ended::Done };
                let Some(end) = self.end_step(ended, payload, cost) else { return Ok(false) };
                let stood = match self.shared.stored(store.end_step(end)).await? {
                    StepEnded::Done | StepEnded::Failed => true,
                    StepEnded::Again { .. }
                    | StepEnded::Unknown { .. }
                    | StepEnded::Parked { .. }
                    | StepEnded::Stale => false,
                };
                failpoint::pass("journal.reply");
                Ok(stood)
            }
        }
    }

    /// Handed over by the call itself; nobody waits for the answer. If it is lost, the lease runs out.
    fn release(&self) {
        match &self.claim {
            Claim::Call { tenant, key, epoch } => {
                let end = EndCall { tenant: tenant.clone(), key: key.clone(), epoch: *epoch, end: CallEnd::Released };
                drop(self.shared.store.end_call(end));
            }
            Claim::Step { .. } => {
                let again = Ended::Failed(Proof::Again { after: Duration::ZERO });
                if let Some(end) = self.end_step(again, Payload::default(), Usd::ZERO) {
                    drop(self.shared.store.end_step(end));
                }
            }
        }
    }

    fn end_step(&self, ended: Ended, payload: Payload, cost: Usd) -> Option<EndStep> {
        let Claim::Step { place, epoch, attempt } = &self.claim else { return None };
        Some(EndStep {
            place: place.clone(),
            epoch: *epoch,
            attempt: *attempt,
            ended,
            payload,
            cost,
            lease: Duration::ZERO,
            if_parked: never_parked(),
        })
    }
}

/// A model's call is done again rather than left to a person, so that none is ever told.
pub(super) fn never_parked() -> IfParked {
    IfParked { id: "".into(), question: "".into(), context: Payload::default(), answer_within: None }
}

/// Runs until it is aborted or the claim is lost.
async fn renew(shared: Arc<Shared>, claim: Claim) {
    loop {
        clock::sleep(LEASE / 3).await;
        let renewed = match &claim {
            Claim::Call { tenant, key, epoch } => {
                let (tenant, key, epoch) = (tenant.clone(), key.clone(), *epoch);
                shared.store.renew_call(RenewCall { tenant, key, epoch, lease: LEASE })
            }
            Claim::Step { place, epoch, .. } => {
                shared.store.renew_step(RenewStep { place: place.clone(), epoch: *epoch, lease: LEASE })
            }
        };
        if let Ok(Fenced::Lost) = shared.stored(renewed).await {
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

/// The kept end in the form that is asked for now: a stream may be replayed whole, and the other way round.
///
/// # Errors
/// What was kept cannot be read.
pub(super) fn replay(kept: &Payload, inbound: &Inbound) -> Result<Response<ReplyBody>, Denial> {
    let unreadable = || Denial::new(Refused::Internal, "What was kept of this call's first end cannot be read.");
    let kept: Kept = serde_json::from_slice(kept.as_bytes()).map_err(|_| unreadable())?;
    replayed(kept, inbound).ok_or_else(unreadable)
}

fn replayed(kept: Kept, inbound: &Inbound) -> Option<Response<ReplyBody>> {
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
