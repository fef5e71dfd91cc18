//! A notice as a signed POST.

use super::{Message, TIMEOUT, Untold};
use crate::{
    alerts::webhook::{Delivery, Postman},
    clock::Clock,
    config::SecretKey,
};
use http::Uri;
use serde_json::{Value, json};

pub(super) async fn post(
    url: &Uri,
    secret: &SecretKey,
    message: &Message,
    postman: &mut Postman,
    clock: &Clock,
) -> Result<(), Untold> {
    let body = body(message).to_string().into();
    let delivery = Delivery { to: url.clone(), secret: Some(secret.clone()), body };
    postman.post(&delivery, clock, TIMEOUT).await.map_err(|undelivered| Untold { why: undelivered.why })
}

fn body(message: &Message) -> Value {
    let origin: serde_json::Map<_, _> =
        message.origin.iter().map(|(name, value)| (name.to_lowercase(), json!(value))).collect();
    json!({
        "version": 1,
        "kind": format!("escalation.{}", message.about.name()),
        "at": message.at,
        "escalation": {
            "id": message.id,
            "kind": message.kind,
            "question": message.question,
            "origin": origin,
            "choices": message.choices,
            "opened_at": message.opened_at,
            "answer_by": message.answer_by,
            "url": message.link,
        },
        "decision": message.decided.as_ref().map(|(verb, by)| json!({ "verb": verb, "by": by })),
    })
}
