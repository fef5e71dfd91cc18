//! `POST /v1/feedback`: what a caller thought of a call. It is joined to the call's record, kept in the telemetry file
//! and shown to the detectors of the target that answered.

use super::{
    Shared,
    admin::Answer,
    body::ReplyBody,
    intake,
    serve::{Denial, caller, unread},
    store::sealing,
};
use crate::config::StoreConfig;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use outlast_engine::FleetEvent;
use outlast_model::{RequestId, record::CallRecord};
use outlast_store::{Sealer, seal::Owner, telemetry::Feedback};
use outlast_wire::error::Refused;
use serde::Deserialize;
use serde_json::json;
use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

/// The longest comment, in characters.
const COMMENT_MAX: usize = 4000;
/// Ratings remembered, so that a caller who rates a call again does not count twice. One that is forgotten is looked
/// up in the telemetry file; without a file it counts again.
const RATED_MAX: usize = 4096;

/// What a caller sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    request_id: String,
    rating: Option<Rating>,
    score: Option<f64>,
    comment: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Rating {
    Good,
    Bad,
}

impl Said {
    /// 0 to 1.
    fn score(&self) -> Result<f64, Denial> {
        match (&self.rating, self.score) {
            (Some(Rating::Good), None) => Ok(1.0),
            (Some(Rating::Bad), None) => Ok(0.0),
            (None, Some(score)) if (0.0..=1.0).contains(&score) => Ok(score),
            (None, Some(_)) => Err(bad("`score` must be a number from 0 to 1.")),
            (None, None) | (Some(_), Some(_)) => {
                Err(bad("Give one of `rating` (\"good\" or \"bad\") and `score` (0 to 1)."))
            }
        }
    }
}

fn bad(message: impl Into<String>) -> Denial {
    Denial::new(Refused::BadRequest, message)
}

/// The latest ratings, by call and caller.
#[derive(Default)]
pub(super) struct Rated(Mutex<Latest>);

#[derive(Default)]
struct Latest {
    known: HashSet<(Box<str>, Box<str>)>,
    order: VecDeque<(Box<str>, Box<str>)>,
}

impl Rated {
    /// Remembers it. True if it was not known.
    fn is_new(&self, request_id: &str, tenant: &str) -> bool {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key: (Box<str>, Box<str>) = (request_id.into(), tenant.into());
        if !latest.known.insert(key.clone()) {
            return false;
        }
        latest.order.push_back(key);
        if latest.order.len() > RATED_MAX
            && let Some(oldest) = latest.order.pop_front()
        {
            latest.known.remove(&oldest);
        }
        true
    }
}

/// Answers the request.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    request_id: &RequestId,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Denial> {
    let (head, body) = request.into_parts();
    let live = shared.live();
    let tenant = caller(&live, &head.headers)?.0.map(|key| key.short());
    let (body, _held) = intake::read(shared, &live.config.server, &head.headers, body).await.map_err(unread)?;
    let said: Said = serde_json::from_slice(&body).map_err(|error| {
        bad(format!("The body is no feedback: {error}. Send `request_id` and `rating` or `score`, as JSON."))
    })?;
    let score = said.score()?;
    if said.comment.as_ref().is_some_and(|comment| comment.chars().count() > COMMENT_MAX) {
        return Err(bad(format!("`comment` is longer than {COMMENT_MAX} characters.")));
    }
    let call = own_call(shared, &said.request_id, tenant.as_deref()).await?;
    let tenant = tenant.unwrap_or_default();
    note(shared, &call, &tenant, score).await;
    let comment = said.comment.as_deref().and_then(|comment| sealed(live.config.store.as_ref(), &call, comment));
    let comment_kept = comment.is_some();
    shared.telemetry.rated(Feedback {
        request_id: call.request_id.clone(),
        tenant_hash: tenant,
        time: shared.clock.wall(),
        route: call.route,
        target: call.served_by.clone(),
        score,
        comment,
    });
    let body = json!({ "request_id": call.request_id, "score": score, "target": call.served_by, "comment_kept": comment_kept });
    Ok(Answer::json(StatusCode::OK, body).respond(request_id))
}

/// The rated call, if it is this caller's and still on record.
async fn own_call(shared: &Shared, id: &str, tenant: Option<&str>) -> Result<CallRecord, Denial> {
    let missing = || {
        let message = "No such request of yours is on record, or it is no longer kept. Rate a call soon after it.";
        Denial::new(Refused::NoSuchPath, message)
    };
    match shared.telemetry.lookup(id).await {
        Ok(Some(call)) if call.tenant_hash.as_deref() == tenant => Ok(call),
        Ok(Some(_) | None) => Err(missing()),
        Err(_) => Err(Denial::new(Refused::Internal, "The telemetry file cannot be read; the log says why.")),
    }
}

/// Counts a rating, and shows it to the detectors if it is the first: a second one corrects a person's word, it is no
/// second evidence.
async fn note(shared: &Shared, call: &CallRecord, tenant: &str, score: f64) {
    let good = score >= 0.5;
    let metrics = shared.telemetry.metrics();
    if good { &metrics.feedback_good } else { &metrics.feedback_bad }.add(1);
    let id = call.request_id.as_str();
    let Some(target) = call.served_by.clone() else { return };
    if !shared.rated.is_new(id, tenant) || matches!(shared.telemetry.rating(id, tenant).await, Ok(Some(_))) {
        return;
    }
    let now = shared.clock.mono();
    let event = FleetEvent::Feedback { route: call.route.clone(), target, good };
    shared.with_fleet(|fleet| fleet.handle(event, now));
}

/// A comment is a payload: it is kept only where the store's payloads are sealed, and sealed with the same key.
fn sealed(store: Option<&StoreConfig>, call: &CallRecord, comment: &str) -> Option<Vec<u8>> {
    let sealer = Sealer::new(sealing(store?));
    let tenant = call.tenant_hash.as_deref().unwrap_or_default();
    let owner = Owner { table: "feedback", tenant, id: call.request_id.as_str(), column: "comment" };
    sealer.seals().then(|| sealer.seal(owner, comment.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_rating_is_no_news_until_it_is_forgotten() {
        let rated = Rated::default();
        assert!(rated.is_new("req_1", "a") && rated.is_new("req_1", "b"));
        assert!(!rated.is_new("req_1", "a"));
        for n in 0..RATED_MAX {
            rated.is_new(&format!("other_{n}"), "a");
        }
        assert!(rated.is_new("req_1", "a"), "it is bounded");
    }

    #[test]
    fn a_rating_or_a_score_but_not_both() {
        let score = |text: &str| serde_json::from_str::<Said>(text).ok().and_then(|said| said.score().ok());
        assert_eq!(score(r#"{"request_id":"r","rating":"good"}"#), Some(1.0));
        assert_eq!(score(r#"{"request_id":"r","rating":"bad"}"#), Some(0.0));
        assert_eq!(score(r#"{"request_id":"r","score":0.25}"#), Some(0.25));
        for wrong in [
            r#"{"request_id":"r"}"#,
            r#"{"request_id":"r","score":1.5}"#,
            r#"{"request_id":"r","score":1,"rating":"good"}"#,
            r#"{"request_id":"r","rating":"great"}"#,
            r#"{"request_id":"r","rating":"good","more":1}"#,
        ] {
            assert_eq!(score(wrong), None, "{wrong}");
        }
    }
}
