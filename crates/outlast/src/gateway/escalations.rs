//! Hands a request to a person: kept with the question and its context until somebody decides. Deciding comes with
//! durable runs; until then an escalation is read here and answered outside.

use super::{
    Shared,
    admin::{Answer, operator},
    backstops::{Cx, Deferral, Ended},
    live::Live,
    serve::{Denial, caller},
    store::{down, shown, tenant},
};
use http::{HeaderMap, StatusCode};
use outlast_model::{FailureReport, policy::Backstop, record::GaveUp};
use outlast_store::{
    Cursor, Escalation, EscalationFilter, EscalationState, EscalationSummary, OpenEscalation, Origin, Page, Payload,
};
use outlast_wire::error::Refused;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};
use std::time::Duration;

/// When a client may look for the first time: a person takes a while.
const LOOK_AFTER: Duration = Duration::from_secs(60);
/// Entries of one page of the list, if the request does not say.
const PAGE: u32 = 50;

/// What a person needs beside the question. The attempts are in the call's record.
#[derive(Serialize, Deserialize)]
struct Context {
    request: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<outlast_model::record::WorkflowState>,
    cause: FailureReport,
}

/// The backstop.
pub(super) async fn open(cx: &Cx, backstop: &Backstop, cause: &FailureReport) -> Ended {
    let Some(question) = cx.text_of(backstop) else { return Ended::Declined("the question cannot be put") };
    let Some(secret) = cx.shared.clock.secret() else { return Ended::Declined("the system gives no entropy") };
    let Ok(request) = serde_json::from_slice(cx.inbound.body()) else { return Ended::Declined("no context") };
    let id = format!("esc_{secret}");
    let context = Context { request, state: cx.state.clone(), cause: cause.clone() };
    let opened = OpenEscalation {
        id: id.as_str().into(),
        tenant: tenant(cx.tenant.as_deref()),
        route: cx.route.id().clone(),
        request_id: cx.request_id.clone(),
        failure: cause.failure,
        question: question.into(),
        payload: Payload::from(serde_json::to_vec(&context).unwrap_or_default()),
        answer_within: None,
    };
    match cx.shared.stored(cx.shared.store.open_escalation(opened)).await {
        Ok(_) => {
            let poll_url = format!("/v1/escalations/{id}");
            Ended::Deferred(Deferral {
                // The text is the notice: the contract may word it.
                said: cx.say(""),
                facts: json!({ "escalation": { "id": id, "poll_url": poll_url } }),
                location: Some(poll_url),
                retry_after: Some(LOOK_AFTER),
                gave_up: GaveUp::Immediacy,
            })
        }
        Err(_) => Ended::Declined("the store does not answer"),
    }
}

/// `GET /v1/escalations`: the operator's list, the newest first.
pub(super) async fn list(shared: &Shared, query: Option<&str>) -> Result<Answer, Denial> {
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
            let message = "Give `open=true`, `limit` (1 to 200) or `after` (the `next` of the page before).";
            Denial::new(Refused::BadRequest, message)
        };
        match pair.split_once('=').ok_or_else(wrong)? {
            ("open", value) => filter.open_only = value.parse().map_err(|_| wrong())?,
            ("limit", value) => {
                page.size = value.parse().ok().filter(|size| (1..=Page::LARGEST).contains(size)).ok_or_else(wrong)?;
            }
            ("after", value) => page.after = Some(Cursor(value.parse().map_err(|_| wrong())?)),
            _ => return Err(wrong()),
        }
    }
    Ok((filter, page))
}

/// `GET /v1/escalations/{id}`: for the operator, and for the caller whose request it was.
pub(super) async fn show(shared: &Shared, live: &Live, headers: &HeaderMap, id: &str) -> Result<Answer, Denial> {
    let asker = match operator(live, headers) {
        Ok(()) if live.config.server.admin_token.is_some() || live.config.server.keys.is_empty() => None,
        Ok(()) | Err(_) => Some(tenant(caller(live, headers)?.0.map(|key| key.short()).as_deref())),
    };
    let found = shared.stored(shared.store.escalation(id.into())).await.map_err(|error| down(&error))?;
    let found = found.filter(|found| asker.as_ref().is_none_or(|asker| *asker == found.summary.tenant));
    let missing = || Denial::new(Refused::NoSuchPath, "No such escalation is known, or it is no longer kept.");
    let found = found.ok_or_else(missing)?;
    Ok(Answer::json(StatusCode::OK, whole(&found, asker.is_none())))
}

/// An escalation in a list.
pub(crate) fn summary(escalation: &EscalationSummary) -> Value {
    let (route, request_id, failure) = match &escalation.origin {
        Origin::Call { route, request_id, failure } => (Some(route), Some(request_id), Some(failure)),
        Origin::Work { .. } => (None, None, None),
    };
    json!({
        "id": escalation.id,
        "tenant": escalation.tenant,
        "route": route,
        "request_id": request_id,
        "failure": failure,
        "question": escalation.question,
        "state": if escalation.decided.is_some() { "decided" } else { "open" },
        "opened_at": shown(escalation.opened_at, Duration::ZERO),
        "decided_at": escalation.decided.map(|(at, _)| shown(at, Duration::ZERO)),
    })
}

/// What the caller sees of it; the operator sees the request and its state too.
pub(crate) fn whole(escalation: &Escalation, for_operator: bool) -> Value {
    let mut shown = summary(&escalation.summary);
    if let EscalationState::Decided(decision) = &escalation.state {
        shown["decision"] = serde_json::from_slice(decision.decision.as_bytes()).unwrap_or(Value::Null);
    }
    if for_operator {
        shown["context"] = serde_json::from_slice(escalation.payload.as_bytes()).unwrap_or(Value::Null);
    } else if let Some(fields) = shown.as_object_mut() {
        fields.remove("tenant");
    }
    shown
}
