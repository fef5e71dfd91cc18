//! `POST /v1/feedback`: what a caller thought of a call. It is joined to the call's record, kept in the telemetry file
//! and shown to the detectors of the target that answered.

use super::{
    Shared,
    admin::Answer,
    body::ReplyBody,
    intake,
    serve::{Denial, caller, unread},
    store,
};
use crate::config::Sealing;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use outlast_engine::FleetEvent;
use outlast_model::{RequestId, record::CallRecord};
use outlast_store::{Payload, Rate, Rated, telemetry::Feedback};
use outlast_wire::error::Refused;
use serde::Deserialize;
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// The longest comment, in characters.
const COMMENT_MAX: usize = 4000;
/// How long the store keeps a rating: as long as telemetry keeps the call.
const KEEP: Duration = Duration::from_secs(30 * 24 * 3600);

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
    // A comment is a payload: it is kept only where payloads are sealed.
    let sealed = live.config.store.as_ref().is_some_and(|store| matches!(store.sealing, Sealing::Keys(_)));
    let comment = said.comment.filter(|_| sealed).map(|comment| Payload::from(comment.into_bytes()));
    let comment_kept = comment.is_some();
    let rate = Rate {
        tenant: store::tenant(tenant.as_deref()),
        request_id: call.request_id.clone(),
        score,
        comment,
        keep: KEEP,
    };
    let rated = shared.stored(shared.store.rate(rate)).await.map_err(|error| store::down(&error))?;
    note(shared, &call, score, rated);
    shared.telemetry.rated(Feedback {
        request_id: call.request_id.clone(),
        tenant_hash: tenant.unwrap_or_default(),
        time: shared.clock.wall(),
        route: call.route,
        target: call.served_by.clone(),
        score,
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
fn note(shared: &Shared, call: &CallRecord, score: f64, rated: Rated) {
    let good = score >= 0.5;
    let metrics = shared.telemetry.metrics();
    if good { &metrics.feedback_good } else { &metrics.feedback_bad }.add(1);
    match (rated, call.served_by.clone()) {
        (Rated::First, Some(target)) => {
            let now = shared.clock.mono();
            let event = FleetEvent::Feedback { route: call.route.clone(), target, good };
            shared.with_fleet(|fleet| fleet.handle(event, now));
        }
        (Rated::First, None) | (Rated::Replaced { .. }, _) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
