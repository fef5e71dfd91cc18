//! `/v1/escalations...` and `/v1/audit...`.

use super::super::{
    Shared,
    admin::{Answer, operator},
    body::ReplyBody,
    live::Live,
    serve::{Denial, caller, presented_key, text},
    store::{down, tenant},
};
use super::{
    audit, decide, lineage,
    view::{summary, whole},
};
use crate::config::{KeyHash, Reviewer};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use outlast_model::{
    RequestId, RunId, TenantId,
    policy::Dialect,
    run::{EscalationKind, Verb},
};
use outlast_store::{Cursor, Escalation, EscalationFilter, EscalationState, Origin, Page};
use outlast_wire::{compose::Said, error::Refused};
use serde_json::{Value, json};
use std::sync::Arc;

/// Entries of one page of a list, if the request does not say.
pub(super) const PAGE: u32 = 50;

/// Who looks at escalations.
enum Asker {
    /// May see everything.
    Trusted,
    /// Whose requests and runs these are.
    Caller(TenantId),
}

/// Answers a request to one of the paths.
pub(in super::super) async fn answer(
    shared: &Arc<Shared>,
    request_id: &RequestId,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Denial> {
    let live = shared.live();
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.split('/').skip(2).collect();
    let query = request.uri().query();
    let headers = request.headers();
    let takes = |method: &str| Denial::new(Refused::WrongMethod, format!("{path} takes {method}."));
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let answer = match parts.as_slice() {
        ["escalations"] if reads => {
            trusted(&live, headers)?;
            list(shared, query).await?
        }
        ["escalations", id] if reads => show(shared, &live, headers, id).await?,
        ["escalations", id, "decide"] if *request.method() == Method::POST => {
            let id = (*id).to_owned();
            decide::decide(shared, &live, request_id, &id, request).await?
        }
        ["audit"] if reads => {
            operator(&live, headers)?;
            audit::list(shared, query).await?
        }
        ["audit", "verify"] if reads => {
            operator(&live, headers)?;
            audit::verify(shared).await?
        }
        ["escalations", _, "decide"] => return Err(takes("POST")),
        ["escalations"] | ["escalations", _] | ["audit"] | ["audit", "verify"] => return Err(takes("GET")),
        _ => return Err(Denial::new(Refused::NoSuchPath, "Nothing is served at this path.")),
    };
    Ok(answer.respond(request_id))
}

/// The reviewer whose key this is.
pub(super) fn reviewer(live: &Live, headers: &HeaderMap) -> Option<Reviewer> {
    live.config.reviewer(&KeyHash::of(presented_key(headers)?)).cloned()
}

/// Lets reviewers and the operator in.
fn trusted(live: &Live, headers: &HeaderMap) -> Result<(), Denial> {
    match reviewer(live, headers) {
        Some(_) => Ok(()),
        None => operator(live, headers),
    }
}

fn asker(live: &Live, headers: &HeaderMap) -> Result<Asker, Denial> {
    // Being on this machine makes nobody the operator where callers are told apart.
    let anonymous = live.config.server.admin_token.is_none() && !live.config.server.keys.is_empty();
    match (reviewer(live, headers), operator(live, headers)) {
        (Some(_), _) => Ok(Asker::Trusted),
        (None, Ok(())) if !anonymous => Ok(Asker::Trusted),
        (None, Ok(()) | Err(_)) => {
            Ok(Asker::Caller(tenant(caller(live, headers)?.0.map(|key| key.short()).as_deref())))
        }
    }
}

/// `GET /v1/escalations`: the newest first.
async fn list(shared: &Shared, query: Option<&str>) -> Result<Answer, Denial> {
    let (filter, page) = asked_for(query.unwrap_or_default())?;
    let page = shared.stored(shared.store.escalations(filter, page)).await.map_err(|error| down(&error))?;
    let escalations: Vec<Value> = page.escalations.iter().map(summary).collect();
    let next = page.next.map(|cursor| cursor.0.to_string());
    Ok(Answer::json(StatusCode::OK, json!({ "escalations": escalations, "next": next })))
}

fn asked_for(query: &str) -> Result<(EscalationFilter, Page), Denial> {
    let mut filter = EscalationFilter::default();
    let mut page = Page { after: None, size: PAGE };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let wrong = || {
            let message = "Give `open=true`, `overdue=true`, `kind` (such as `approval`), `run` (its id), `limit` (1 to \
                           200) or `after` (the `next` of the page before).";
            Denial::new(Refused::BadRequest, message)
        };
        match pair.split_once('=').ok_or_else(wrong)? {
            ("open", value) => filter.open_only = value.parse().map_err(|_| wrong())?,
            ("overdue", value) => filter.overdue_only = value.parse().map_err(|_| wrong())?,
            ("kind", value) => {
                let kind = EscalationKind::ALL.into_iter().find(|kind| kind.name() == value);
                filter.kind = Some(kind.ok_or_else(wrong)?);
            }
            ("run", value) => filter.run = Some(RunId::new(value)),
            ("limit", value) => {
                page.size = value.parse().ok().filter(|size| (1..=Page::LARGEST).contains(size)).ok_or_else(wrong)?;
            }
            ("after", value) => page.after = Some(Cursor(value.parse().map_err(|_| wrong())?)),
            _ => return Err(wrong()),
        }
    }
    Ok((filter, page))
}

/// `GET /v1/escalations/{id}`: for those who may decide, and for the caller whose request it was.
async fn show(shared: &Shared, live: &Live, headers: &HeaderMap, id: &str) -> Result<Answer, Denial> {
    let asker = asker(live, headers)?;
    let found = find(shared, id).await?;
    let shown = match asker {
        Asker::Trusted => {
            let mut shown = whole(&found, true);
            let lineage = lineage(&*shared.store, &found.summary).await;
            shown["lineage"] = lineage.map_err(|error| down(&error))?;
            shown
        }
        // Another caller's is as good as unknown.
        Asker::Caller(tenant) if tenant != found.summary.tenant => return Err(missing()),
        Asker::Caller(_) => {
            let mut shown = whole(&found, false);
            if let Some(reply) = reply(&found, headers) {
                shown["reply"] = reply;
            }
            shown
        }
    };
    Ok(Answer::json(StatusCode::OK, shown))
}

/// The escalation, if it is still kept.
pub(super) async fn find(shared: &Shared, id: &str) -> Result<Escalation, Denial> {
    let found = shared.stored(shared.store.escalation(id.into())).await.map_err(|error| down(&error))?;
    found.ok_or_else(missing)
}

pub(super) fn missing() -> Denial {
    Denial::new(Refused::NoSuchPath, "No such escalation is known, or it is no longer kept.")
}

/// A person's answer to a request, as a reply in the client's dialect: what it would have been given.
fn reply(found: &Escalation, headers: &HeaderMap) -> Option<Value> {
    let EscalationState::Decided(decision) = &found.state else { return None };
    let Origin::Call { request_id, route, .. } = &found.summary.origin else { return None };
    if decision.verb != Verb::Edit {
        return None;
    }
    let said: Value = serde_json::from_slice(decision.decision.as_bytes()).ok()?;
    let output = said.get("output")?;
    let answer = output.as_str().map_or_else(|| output.to_string(), str::to_owned);
    let anthropic = text(headers, &http::HeaderName::from_static("anthropic-version")).is_some();
    let dialect = if anthropic { Dialect::Anthropic } else { Dialect::OpenaiChat };
    let said = Said::text(request_id.as_str(), route.as_str(), answer);
    let created = u64::try_from(decision.at.0.div_euclid(1000)).unwrap_or(0);
    serde_json::from_slice(&outlast_wire::compose::plain(dialect, created, &said)).ok()
}
