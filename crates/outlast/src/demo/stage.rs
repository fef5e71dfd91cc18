//! What the scenes of the epilogue share: one client, and what it heard.

use super::world::World;
use crate::clock::Clock;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// One scene's end.
pub(super) struct Scene {
    pub(super) name: &'static str,
    /// What was seen, or why it is not what was promised.
    pub(super) seen: Result<String, String>,
}

/// Where the scenes are played.
pub(super) struct Stage<'w> {
    pub(super) world: &'w World,
    http: Client<HttpConnector, Full<Bytes>>,
    pub(super) clock: Clock,
}

impl<'w> Stage<'w> {
    pub(super) fn new(world: &'w World, clock: Clock) -> Self {
        Stage { world, http: Client::builder(TokioExecutor::new()).build_http(), clock }
    }

    pub(super) async fn chat(&self, body: Value) -> Result<Heard, String> {
        self.chat_with(body, &[]).await
    }

    pub(super) async fn chat_with(&self, body: Value, headers: &[(&str, &str)]) -> Result<Heard, String> {
        let heard = self.send(Method::POST, "/v1/chat/completions", headers, &body.to_string()).await?;
        expect(heard.status < 300, || format!("status {}: {}", heard.status, heard.body["error"]["message"]))?;
        Ok(heard)
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Heard, String> {
        let gateway: SocketAddr = self.world.address();
        let mut request = Request::builder().method(method).uri(format!("http://{gateway}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).map_err(|error| error.to_string())?;
        let reply = self.http.request(request).await.map_err(|error| format!("no reply: {error}"))?;
        Heard::read(reply).await
    }
}

/// A reply.
pub(super) struct Heard {
    pub(super) status: u16,
    /// Of the OpenAI dialect.
    pub(super) text: String,
    headers: HeaderMap,
    pub(super) body: Value,
}

impl Heard {
    async fn read(reply: Response<hyper::body::Incoming>) -> Result<Heard, String> {
        let (head, body) = reply.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        let body: Value = serde_json::from_slice(&body).map_err(|error| format!("not JSON: {error}"))?;
        let text = body["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned();
        Ok(Heard { status: head.status.as_u16(), text, headers: head.headers, body })
    }

    /// A header's value; nothing if it is not there.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub(super) fn is_replay(&self) -> bool {
        self.header("x-outlast-replayed") == "true"
    }
}

/// What a user says.
pub(super) fn user(text: &str) -> Value {
    json!([{"role": "user", "content": text}])
}

pub(super) fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
