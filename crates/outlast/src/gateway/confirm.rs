//! Asks the user before another route answers that is cheaper, shorter or riskier. The question is a reply like any
//! other; the yes is the same request again with the token that came with the question.

use super::{
    Shared,
    backstops::{Cx, Deferral, Ended},
    serve::{Denial, text, unreadable},
    store::{down, shown, tenant},
};
use http::{HeaderMap, HeaderName};
use outlast_model::{RouteId, policy::Backstop, record::GaveUp};
use outlast_store::{AskConfirmation, TakeConfirmation, Taken};
use outlast_wire::{Inbound, error::Refused};
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// Where a client that cannot change its body puts the token.
const HEADER: HeaderName = HeaderName::from_static("x-outlast-confirm");

/// The backstop.
pub(super) async fn ask(cx: &Cx, backstop: &Backstop, route: &RouteId, expires: Duration) -> Ended {
    let Some(question) = cx.text_of(backstop) else { return Ended::Declined("the question cannot be put") };
    let Some(token) = cx.shared.clock.secret() else { return Ended::Declined("the system gives no entropy") };
    let expires_at = shown(cx.shared.clock.wall(), expires);
    let asked = AskConfirmation {
        token_hash: hash(&token),
        tenant: tenant(cx.tenant.as_deref()),
        fingerprint: cx.inbound.fingerprint(),
        route: route.clone(),
        expires_in: expires,
    };
    match cx.shared.stored(cx.shared.store.ask_confirmation(asked)).await {
        Ok(_) => Ended::Deferred(Deferral {
            said: cx.say(question),
            facts: json!({ "confirm": { "token": token, "route": route, "expires_at": expires_at } }),
            location: None,
            retry_after: None,
            gave_up: GaveUp::Immediacy,
        }),
        Err(_) => Ended::Declined("the store does not answer"),
    }
}

/// The route that answers instead, if the request carries a confirmation.
///
/// # Errors
/// What is wrong with the confirmation. None of them is worth a retry as it is.
pub(super) async fn take(
    shared: &Shared,
    headers: &HeaderMap,
    caller: Option<&str>,
    inbound: &Arc<Inbound>,
) -> Result<Option<RouteId>, Denial> {
    let in_body = inbound.outlast().map_err(unreadable)?.confirm.as_deref();
    let Some(token) = in_body.or_else(|| text(headers, &HEADER)) else { return Ok(None) };
    let take =
        TakeConfirmation { token_hash: hash(token.trim()), tenant: tenant(caller), fingerprint: inbound.fingerprint() };
    let denied = |why, message: &str| Err(Denial::new(why, message));
    match shared.stored(shared.store.take_confirmation(take)).await.map_err(|error| down(&error))? {
        Taken::Yes { route } => Ok(Some(route)),
        Taken::Unknown => denied(
            Refused::Unconfirmed,
            "This confirmation is unknown or was used already. Send the request without it to be asked again.",
        ),
        Taken::Mismatch => denied(
            Refused::Unconfirmed,
            "This confirmation belongs to another request. Send it with the request that was asked about.",
        ),
        Taken::Expired => {
            denied(Refused::Expired, "This confirmation came too late. Send the request without it to be asked again.")
        }
    }
}

fn hash(token: &str) -> [u8; 32] {
    *blake3::hash(token.as_bytes()).as_bytes()
}
