//! An MCP server behind a URL: each message is a POST, each answer JSON or a stream of events.
//!
//! A session that the server has forgotten (404) is begun anew, and the call is sent again: the server has said that it
//! did nothing with it. A stream that ends without the answer leaves the outcome unknown; it is not resumed.

use super::{
    super::{
        super::upstream::media_type,
        ToolError,
        attempt::{Errand, Outcome},
        http,
    },
    Tools,
    session::{self, Listed, Lost},
    unknown_tool,
};
use crate::{clock, config::Endpoint};
use ::http::{HeaderName, HeaderValue, StatusCode, header};
use outlast_model::{policy::HttpMethod, run::EffectClass};
use serde_json::Value;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const PROTOCOL: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// A server elsewhere.
pub(super) struct Remote {
    at: Endpoint,
    /// Held while a session is begun: there is one beginning at a time.
    beginning: tokio::sync::Mutex<()>,
    session: Mutex<Option<Arc<Session>>>,
    ids: AtomicU64,
}

struct Session {
    id: Option<HeaderValue>,
    version: HeaderValue,
    listed: Listed,
}

impl Remote {
    pub(super) fn new(at: Endpoint) -> Self {
        Remote { at, beginning: tokio::sync::Mutex::default(), session: Mutex::new(None), ids: AtomicU64::new(1) }
    }

    pub(super) fn listed(&self) -> Option<Listed> {
        self.current().map(|session| session.listed.clone())
    }

    /// Calls a tool, in a session that is begun first if there is none.
    pub(super) async fn call(&self, tool: &str, params: Value, errand: &Errand<'_>) -> Result<Value, Lost> {
        let begun = clock::now();
        let left = || errand.timeout.saturating_sub(clock::now().duration_since(begun));
        for last in [false, true] {
            let session = match clock::timeout(left().mul_f64(0.75), self.session(errand.timeout)).await {
                Ok(session) => session.map_err(Lost::Unsent)?,
                Err(_) => return Err(Lost::Unsent("no session could be begun in time".into())),
            };
            if let Some(lost) = unknown_tool(&session.listed, tool) {
                return Err(lost);
            }
            match self.post(Some(&session), "tools/call", params.clone(), Some(errand), left()).await? {
                Posted::Answer(result, _) => return result.map_err(|error| session::refused(&error)),
                Posted::Forgotten(_) if !last => self.forget(&session),
                Posted::Forgotten(answer) => return Err(Lost::Answered(answer)),
            }
        }
        Err(Lost::Unsent("its sessions end at once".into()))
    }

    async fn session(&self, timeout: Duration) -> Result<Arc<Session>, String> {
        if let Some(session) = self.current() {
            return Ok(session);
        }
        let _one_at_a_time = self.beginning.lock().await;
        if let Some(session) = self.current() {
            return Ok(session);
        }
        let session = Arc::new(self.begin(timeout).await?);
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(session.clone());
        Ok(session)
    }

    async fn begin(&self, timeout: Duration) -> Result<Session, String> {
        let params = session::initialize_params();
        let (hello, headers) = self.ask(None, "initialize", params, timeout).await?;
        let version = session::agreed(&hello)?;
        let version = HeaderValue::from_str(&version).map_err(|_| "its version is unreadable".to_owned())?;
        let mut session = Session { id: headers, version, listed: Arc::default() };
        self.announce(&session, timeout).await?;
        let mut listed = Tools::new();
        let mut cursor = None;
        for _ in 0..session::PAGES_MAX {
            let params = session::list_params(cursor.as_deref());
            let (page, _) = self.ask(Some(&session), "tools/list", params, timeout).await?;
            cursor = session::take_page(&page, &mut listed);
            if cursor.is_none() {
                break;
            }
        }
        session.listed = Arc::new(listed);
        Ok(session)
    }

    async fn ask(
        &self,
        session: Option<&Session>,
        method: &str,
        params: Value,
        timeout: Duration,
    ) -> Result<(Value, Option<HeaderValue>), String> {
        match self.post(session, method, params, None, timeout).await {
            Ok(Posted::Answer(Ok(result), id)) => Ok((result, id)),
            Ok(Posted::Answer(Err(_), _) | Posted::Forgotten(_)) | Err(Lost::Refused(_) | Lost::Answered(_)) => {
                Err(format!("it refuses `{method}`"))
            }
            Err(Lost::Unsent(_) | Lost::Resting(_) | Lost::Http(http::Lost::Unsent)) => {
                Err("it cannot be reached".into())
            }
            Err(Lost::Http(http::Lost::Broke) | Lost::Died) => Err("the connection broke".into()),
            Err(Lost::Http(http::Lost::Late) | Lost::Late) => Err(format!("it does not answer `{method}`")),
        }
    }

    async fn announce(&self, session: &Session, timeout: Duration) -> Result<(), String> {
        let message = session::notification("notifications/initialized");
        let request = self.request(Some(session), &message, None)?;
        match http::exchange(&self.at, request, timeout).await {
            Ok(answer) if answer.status.is_success() => Ok(()),
            Ok(_) => Err("it refuses to be initialized".into()),
            Err(_) => Err("the connection broke".into()),
        }
    }

    async fn post(
        &self,
        session: Option<&Session>,
        method: &str,
        params: Value,
        errand: Option<&Errand<'_>>,
        timeout: Duration,
    ) -> Result<Posted, Lost> {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let message = session::request(id, method, params);
        let request = self.request(session, &message, errand).map_err(Lost::Unsent)?;
        let answer = http::exchange(&self.at, request, timeout).await.map_err(Lost::Http)?;
        if !answer.status.is_success() {
            let outcome = Box::new(http::judge(&answer, EffectClass::Once));
            let forgotten = answer.status == StatusCode::NOT_FOUND && session.is_some_and(|s| s.id.is_some());
            return if forgotten { Ok(Posted::Forgotten(outcome)) } else { Err(Lost::Answered(outcome)) };
        }
        let found = answer.body.as_deref().and_then(|body| match media_type(&answer.headers) {
            "text/event-stream" => events(body).into_iter().find(|message| is_answer(message, id)),
            _ => serde_json::from_slice(body).ok().filter(|message| is_answer(message, id)),
        });
        let Some(mut found) = found else {
            let error = ToolError::new("undecodable", "The MCP server's answer ended without the call's result.");
            return Err(Lost::Answered(Box::new(Outcome::Unknown(error))));
        };
        let result = match found.get_mut("error").map(Value::take) {
            Some(error) => Err(error),
            None => Ok(found["result"].take()),
        };
        Ok(Posted::Answer(result, answer.headers.get(&SESSION).cloned()))
    }

    fn request(
        &self,
        session: Option<&Session>,
        message: &Value,
        errand: Option<&Errand<'_>>,
    ) -> Result<::http::Request<super::super::super::body::Pieces>, String> {
        let mut request = http::request(&self.at, HttpMethod::Post, message).map_err(|error| error.message)?;
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        if let Some(session) = session {
            headers.insert(PROTOCOL, session.version.clone());
            if let Some(id) = &session.id {
                headers.insert(SESSION, id.clone());
            }
        }
        if let Some(errand) = errand {
            http::identify(headers, errand, "idempotency-key");
        }
        Ok(request)
    }

    fn current(&self) -> Option<Arc<Session>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn forget(&self, session: &Arc<Session>) {
        let mut current = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|known| Arc::ptr_eq(known, session)) {
            *current = None;
        }
    }
}

enum Posted {
    /// A result or an error, and the session it began.
    Answer(Result<Value, Value>, Option<HeaderValue>),
    /// The server does not know the session.
    Forgotten(Box<Outcome>),
}

fn is_answer(message: &Value, id: u64) -> bool {
    message.get("method").is_none() && message["id"] == id
}

/// The JSON of a stream's events.
fn events(stream: &[u8]) -> Vec<Value> {
    let mut events = Vec::new();
    let mut data = String::new();
    let text = String::from_utf8_lossy(stream);
    for line in text.split('\n').map(|line| line.trim_end_matches('\r')).chain([""]) {
        if let Some(value) = line.strip_prefix("data:") {
            data.push_str(value.strip_prefix(' ').unwrap_or(value));
            data.push('\n');
        } else if line.is_empty() && !data.is_empty() {
            events.extend(serde_json::from_str(&data));
            data.clear();
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_answer_is_found_among_a_streams_events() {
        let stream = b": hi\r\nevent: message\r\ndata: {\"method\":\"notifications/progress\"}\r\n\r\ndata: {\"id\": 7,\ndata: \"result\": {}}\n\n";
        let events = events(stream);
        assert_eq!(events.len(), 2);
        assert!(!is_answer(&events[0], 7) && is_answer(&events[1], 7));
        assert_eq!(events[1]["result"], json!({}));
    }
}
