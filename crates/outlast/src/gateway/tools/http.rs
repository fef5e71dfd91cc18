//! A tool behind a URL: JSON in, JSON out, one exchange, no redirects. What its answer proves is decided here.

use super::{
    super::{
        body::Pieces,
        pool::{self, PoolKey, SendError},
        upstream::media_type,
    },
    ToolError,
    attempt::{Errand, Outcome},
};
use crate::{clock, config::Endpoint};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version, header};
use http_body_util::{BodyExt, Limited};
use outlast_engine::run::Proof;
use outlast_model::{policy::HttpMethod, run::EffectClass};
use serde_json::Value;
use std::{fmt::Write as _, time::Duration};

/// The longest answer that is read: half of what the store takes as one payload.
pub(super) const ANSWER_MAX: usize = 4 << 20;
/// The longest a connection may take to stand, where the timeout leaves as much.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// The longest query that arguments become; longer ones are refused before anything is sent.
const QUERY_MAX: usize = 8 << 10;

const EPOCH: HeaderName = HeaderName::from_static("x-outlast-epoch");
const ATTEMPT: HeaderName = HeaderName::from_static("x-outlast-attempt");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Calls the tool.
pub(super) async fn call(errand: &Errand<'_>, at: &Endpoint, method: HttpMethod, key_header: &str) -> Outcome {
    let mut request = match request(at, method, errand.arguments) {
        Ok(request) => request,
        Err(error) => return Outcome::refused(*error),
    };
    identify(request.headers_mut(), errand, key_header);
    match exchange(at, request, errand.timeout).await {
        Ok(answer) => judge(&answer, errand.class),
        Err(lost) => lost.outcome(),
    }
}

/// The same key for all attempts; who holds the claim; which attempt it is.
pub(super) fn identify(headers: &mut HeaderMap, errand: &Errand<'_>, key_header: &str) {
    if let Some(key) = errand.key
        && let (Ok(name), Ok(value)) = (key_header.parse::<HeaderName>(), HeaderValue::from_str(key))
    {
        headers.insert(name, value);
    }
    if let Some(epoch) = errand.epoch {
        headers.insert(EPOCH, HeaderValue::from(epoch));
        headers.insert(ATTEMPT, HeaderValue::from(errand.attempt));
    }
    if let Some(trace) = errand.traceparent {
        headers.insert(TRACEPARENT, trace.clone());
    }
}

/// A request with a JSON body; with `get`, arguments are the query.
///
/// # Errors
/// They cannot be put so.
pub(super) fn request(at: &Endpoint, method: HttpMethod, arguments: &Value) -> Result<Request<Pieces>, Box<ToolError>> {
    let mut path = at.url.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let (verb, body) = match method {
        HttpMethod::Get => {
            ask(&mut path, arguments)?;
            (Method::GET, Bytes::new())
        }
        HttpMethod::Post => (Method::POST, arguments.to_string().into()),
        HttpMethod::Put => (Method::PUT, arguments.to_string().into()),
        HttpMethod::Patch => (Method::PATCH, arguments.to_string().into()),
        HttpMethod::Delete => (Method::DELETE, arguments.to_string().into()),
    };
    let unusable = || Box::new(ToolError::new("config", "The tool's address cannot be used."));
    let mut request = Request::new(Pieces::of([body.clone()]));
    *request.method_mut() = verb;
    *request.version_mut() = Version::HTTP_11;
    *request.uri_mut() = path.parse::<Uri>().map_err(|_| unusable())?;
    let headers = request.headers_mut();
    let authority = at.url.authority().ok_or_else(unusable)?;
    headers.insert(header::HOST, HeaderValue::from_str(authority.as_str()).map_err(|_| unusable())?);
    headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("outlast/", env!("CARGO_PKG_VERSION"))));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    if !body.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    headers.extend(at.headers.iter().cloned());
    Ok(request)
}

/// Adds arguments to a query: one pair for each, text as it is, everything else as JSON.
fn ask(path: &mut String, arguments: &Value) -> Result<(), Box<ToolError>> {
    let fields = match arguments {
        Value::Object(fields) => fields,
        Value::Null => return Ok(()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            let message = "Arguments of a tool that is asked with GET are a JSON object.";
            return Err(Box::new(ToolError::new("arguments", message)));
        }
    };
    for (name, value) in fields {
        path.push(if path.contains('?') { '&' } else { '?' });
        encode(path, name);
        path.push('=');
        match value {
            Value::String(text) => encode(path, text),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                encode(path, &value.to_string());
            }
        }
    }
    if path.len() > QUERY_MAX {
        return Err(Box::new(ToolError::new("arguments", "The arguments are too long for a query.")));
    }
    Ok(())
}

fn encode(path: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            path.push(char::from(byte));
        } else {
            let _ = write!(path, "%{byte:02X}");
        }
    }
}

/// An answer, read to its end.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// None: it broke off, or is longer than [`ANSWER_MAX`].
    pub(super) body: Option<Bytes>,
}

/// Why there is no answer.
pub(super) enum Lost {
    /// No connection stood: nothing was sent.
    Unsent,
    /// It broke after something was sent.
    Broke,
    /// Nothing came in time.
    Late,
}

impl Lost {
    pub(super) fn outcome(self) -> Outcome {
        match self {
            Lost::Unsent => {
                Outcome::away(ToolError::new("unreachable", "The tool could not be reached. Nothing was sent."))
            }
            Lost::Broke => {
                Outcome::Unknown(ToolError::new("broken", "The connection broke after the request was sent."))
            }
            Lost::Late => Outcome::Unknown(ToolError::new("timeout", "The tool did not answer in time.")),
        }
    }
}

/// One exchange, its answer read to the end, within `timeout`.
pub(super) async fn exchange(at: &Endpoint, request: Request<Pieces>, timeout: Duration) -> Result<Answer, Lost> {
    let key = PoolKey {
        authority: at.url.authority().map_or("", |authority| authority.as_str()).into(),
        tls: at.url.scheme_str() == Some("https"),
        // Over before the whole is: what was not sent is known as not sent.
        connect: CONNECT_MAX.min(timeout.mul_f64(0.75)),
    };
    let exchanging = async {
        let response = pool::send(key, at.url.clone(), request).await.map_err(|error| match error {
            SendError::Dial(_) => Lost::Unsent,
            SendError::Http(_) => Lost::Broke,
        })?;
        let (head, body) = response.into_parts();
        let body = read(Limited::new(body, ANSWER_MAX)).await;
        Ok(Answer { status: head.status, headers: head.headers, body })
    };
    // The time first: a process that was stopped in between must not send what is too late when it wakes.
    tokio::select! {
        biased;
        () = clock::sleep(timeout) => Err(Lost::Late),
        exchanged = exchanging => exchanged,
    }
}

async fn read<B: http_body::Body<Data = Bytes> + Unpin>(mut body: B) -> Option<Bytes> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.ok()?.into_data() {
            read.extend_from_slice(&data);
        }
    }
    Some(read.freeze())
}

/// What an answer proves.
pub(super) fn judge(answer: &Answer, class: EffectClass) -> Outcome {
    let status = answer.status;
    let error = |message: &str| {
        let said = answer.body.as_deref().unwrap_or_default();
        ToolError::new(&format!("http_{}", status.as_u16()), message).saying(said)
    };
    match status.as_u16() {
        200..=299 => match answer.body.as_deref().map(|body| decode(body, &answer.headers)) {
            Some(Some(result)) => Outcome::Done(result),
            Some(None) => Outcome::Unknown(ToolError::new("undecodable", "The tool's answer is not JSON.")),
            None => Outcome::Unknown(ToolError::new("undecodable", "The tool's answer is cut off or too long.")),
        },
        // The receiver is still at the first request with this key.
        409 if matches!(class, EffectClass::Keyed { .. } | EffectClass::Tx) => {
            Outcome::Unknown(error("The tool is still at an earlier request with the same key."))
        }
        408 | 425 | 429 | 503 => Outcome::Failed {
            error: error("The tool could not take the request now."),
            proof: Proof::Again { after: retry_after(&answer.headers) },
            fault: status == StatusCode::SERVICE_UNAVAILABLE,
        },
        // Sent on elsewhere, which is not followed: nothing took place here.
        301 | 307 | 308 | 400..=499 => Outcome::refused(error("The tool refused the request.")),
        _ => Outcome::Unknown(error("The tool failed, and does not say whether anything took place.")),
    }
}

/// A result; nothing at all is `null`.
fn decode(body: &[u8], headers: &HeaderMap) -> Option<Value> {
    if body.is_empty() {
        return Some(Value::Null);
    }
    let media = media_type(headers);
    let is_json = media.is_empty() || media == "application/json" || media.ends_with("+json");
    is_json.then(|| serde_json::from_slice(body).ok())?
}

/// In seconds; a date is not read, and the budget's backoff holds.
fn retry_after(headers: &HeaderMap) -> Duration {
    let secs = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    Duration::from_secs(secs.unwrap_or_default().min(3600))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn arguments_become_a_query_that_reads_back_as_they_were() {
        let mut path = "/find?v=1".to_owned();
        ask(&mut path, &json!({ "name": "Ann & Co", "n": 7, "tags": ["a"] })).unwrap();
        assert_eq!(path, "/find?v=1&name=Ann%20%26%20Co&n=7&tags=%5B%22a%22%5D");
        assert!(ask(&mut String::new(), &json!([1])).is_err());
        assert!(ask(&mut String::new(), &json!({ "a": "x".repeat(QUERY_MAX) })).is_err());
    }
}
