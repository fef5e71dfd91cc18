//! `GET /v1/audit`: who decided what.

use super::super::{
    Shared,
    admin::Answer,
    serve::Denial,
    store::{down, shown},
};
use super::view::hex;
use http::StatusCode;
use outlast_store::{AuditFilter, AuditPage, AuditVerified, Audited, Cursor, Page};
use outlast_wire::error::Refused;
use serde_json::{Value, json};
use std::time::Duration;

/// `GET /v1/audit`: the newest first.
pub(super) async fn list(shared: &Shared, query: Option<&str>) -> Result<Answer, Denial> {
    let mut filter = AuditFilter::default();
    let mut page = Page { after: None, size: super::serve::PAGE };
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let wrong = || {
            let message = "Give `who`, `subject` (an escalation's or a run's id), `limit` (1 to 200) or `after` (the \
                           `next` of the page before).";
            Denial::new(Refused::BadRequest, message)
        };
        match pair.split_once('=').ok_or_else(wrong)? {
            ("who", value) => filter.who = Some(value.into()),
            ("subject", value) => filter.subject = Some(value.into()),
            ("limit", value) => {
                page.size = value.parse().ok().filter(|size| (1..=Page::LARGEST).contains(size)).ok_or_else(wrong)?;
            }
            ("after", value) => page.after = Some(Cursor(value.parse().map_err(|_| wrong())?)),
            _ => return Err(wrong()),
        }
    }
    let found = shared.stored(shared.store.audit(filter, page)).await.map_err(|error| down(&error))?;
    Ok(Answer::json(StatusCode::OK, self::page(&found)))
}

/// `GET /v1/audit/verify`: whether it is what was written.
pub(super) async fn verify(shared: &Shared) -> Result<Answer, Denial> {
    // It reads everything: as long as that takes.
    let read = shared.store.verify_audit().await.map_err(|error| down(&error))?;
    Ok(Answer::json(StatusCode::OK, verified(&read)))
}

/// Part of the log.
pub(crate) fn page(page: &AuditPage) -> Value {
    let entries: Vec<Value> = page.entries.iter().map(entry).collect();
    json!({ "entries": entries, "next": page.next.map(|Cursor(next)| next.to_string()) })
}

fn entry(audited: &Audited) -> Value {
    let Audited { number, at, entry, hash } = audited;
    json!({
        "number": number,
        "at": shown(*at, Duration::ZERO),
        "who": entry.who,
        "what": entry.what,
        "subject": entry.subject,
        "tenant": entry.tenant,
        "details": serde_json::from_str::<Value>(&entry.details).unwrap_or(Value::Null),
        "hash": hex(hash),
    })
}

/// What a reading of the whole log came to.
pub(crate) fn verified(verified: &AuditVerified) -> Value {
    let broken = verified.broken.as_ref().map(|(number, why)| json!({ "number": number, "why": why }));
    json!({ "entries": verified.entries, "head": hex(&verified.head), "broken": broken })
}
