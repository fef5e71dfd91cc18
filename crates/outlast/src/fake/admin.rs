//! `/fake/...`: change the faults while it runs, read what it saw.

use super::{Shared, script::Play, serve::plain};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use outlast_drill::FaultPlan;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

const BODY_BYTES_MAX: usize = 64 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetFault {
    #[serde(default = "every_model")]
    model: String,
    plan: FaultPlan,
}

fn every_model() -> String {
    "*".into()
}

pub(super) async fn serve(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Play> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let query = request.uri().query().unwrap_or_default().to_owned();
    let done = match (method, path.as_str()) {
        (Method::POST, "/fake/faults") => set_fault(shared, request).await,
        (Method::DELETE, "/fake/faults") => match query.split('&').find_map(|pair| pair.strip_prefix("model=")) {
            Some(glob) => shared.set_fault(&percent_decoded(glob), None).map(|()| faults(shared)),
            None => shared.heal().map(|()| faults(shared)),
        },
        (Method::GET, "/fake/faults") => Ok(faults(shared)),
        (Method::GET, "/fake/log") => Ok(json!({"calls": shared.log().entries()})),
        (Method::GET, "/fake/stats") => Ok(json!(shared.log().stats)),
        (Method::POST, "/fake/reset") => shared.heal().map(|()| {
            shared.log().clear();
            json!({"reset": true})
        }),
        _ => return reply(404, &json!({"error": "known are /fake/faults, /fake/log, /fake/stats and /fake/reset"})),
    };
    match done {
        Ok(body) => reply(200, &body),
        Err(error) => reply(400, &json!({"error": error})),
    }
}

async fn set_fault(shared: &Arc<Shared>, request: Request<Incoming>) -> Result<Value, String> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
    let wanted: SetFault = serde_json::from_slice(&body.to_bytes()).map_err(|error| error.to_string())?;
    shared.set_fault(&wanted.model, Some(wanted.plan))?;
    Ok(faults(shared))
}

fn faults(shared: &Shared) -> Value {
    let rules = shared.rules.list();
    let rules = rules.iter().map(|rule| json!({"model": rule.glob, "plan": rule.plan, "bitten": rule.bitten}));
    json!({"faults": rules.collect::<Vec<_>>(), "refuses_connections": shared.refusal()})
}

fn reply(status: u16, body: &Value) -> Response<Play> {
    plain(status, HeaderMap::new(), Play::bytes(format!("{body}\n")))
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let hex = more.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &more[2..];
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
