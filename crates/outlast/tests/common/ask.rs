//! A request and its reply, in either dialect.

use super::conn::{BodyEnd, Conn, Head};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// A request in the making.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    None,
    Json(Value),
    Raw(Vec<u8>),
}

impl Ask {
    pub(crate) fn get(path: &str) -> Ask {
        Ask { method: "GET", path: path.into(), headers: Vec::new(), body: Body::None }
    }

    pub(crate) fn post(path: &str, body: impl Into<Vec<u8>>) -> Ask {
        Ask { method: "POST", path: path.into(), headers: Vec::new(), body: Body::Raw(body.into()) }
    }

    /// A chat completion in OpenAI's dialect.
    pub(crate) fn chat(model: &str, text: &str) -> Ask {
        let body = json!({ "model": model, "messages": [{ "role": "user", "content": text }] });
        Ask { method: "POST", path: "/v1/chat/completions".into(), headers: Vec::new(), body: Body::Json(body) }
    }

    /// A message in Anthropic's dialect.
    pub(crate) fn message(model: &str, text: &str) -> Ask {
        let body = json!({ "model": model, "max_tokens": 512, "messages": [{ "role": "user", "content": text }] });
        let headers = vec![("anthropic-version".into(), "2023-06-01".into())];
        Ask { method: "POST", path: "/v1/messages".into(), headers, body: Body::Json(body) }
    }

    /// In the dialect of that name.
    pub(crate) fn either(dialect: &str, model: &str, text: &str) -> Ask {
        match dialect {
            "openai" => Ask::chat(model, text),
            "anthropic" => Ask::message(model, text),
            other => panic!("no dialect {other}"),
        }
    }

    pub(crate) fn method(mut self, method: &'static str) -> Ask {
        self.method = method;
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Ask {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn bearer(self, key: &str) -> Ask {
        self.header("authorization", &format!("Bearer {key}"))
    }

    /// Sets a field of the JSON body.
    pub(crate) fn with(mut self, field: &str, value: Value) -> Ask {
        if let Body::Json(body) = &mut self.body {
            body[field] = value;
        }
        self
    }

    pub(crate) fn streamed(self) -> Ask {
        self.with("stream", json!(true))
    }

    /// Demands an answer of the shape `{"city": "..."}`.
    pub(crate) fn with_schema(self) -> Ask {
        let schema = json!({
            "type": "object", "properties": { "city": { "type": "string" } },
            "required": ["city"], "additionalProperties": false,
        });
        let format = json!({ "name": "place", "strict": true, "schema": schema });
        self.with("response_format", json!({ "type": "json_schema", "json_schema": format }))
    }

    /// As it goes over the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let body = match &self.body {
            Body::None => Vec::new(),
            Body::Json(value) => value.to_string().into_bytes(),
            Body::Raw(bytes) => bytes.clone(),
        };
        let mut head = format!("{} {} HTTP/1.1\r\nhost: outlast.test\r\n", self.method, self.path);
        if !matches!(self.body, Body::None) {
            head += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        [head.into_bytes(), body].concat()
    }

    /// Sends it on a connection of its own and reads the whole reply.
    pub(crate) async fn send(&self, address: SocketAddr) -> Reply {
        self.try_send(address).await.expect("the gateway answers")
    }

    /// As [`Ask::send`]; `None` if nobody listens, or the connection ended without an answer.
    pub(crate) async fn try_send(&self, address: SocketAddr) -> Option<Reply> {
        self.clone().send_over(&mut Conn::try_open(address).await?).await
    }

    /// Sends it on this connection and reads the whole reply.
    pub(crate) async fn send_over(&self, conn: &mut Conn) -> Option<Reply> {
        // The answer may come, and the connection end, before all was written.
        let _ = conn.write(&self.bytes()).await;
        let head = conn.head().await?;
        let (body, end) = if self.method == "HEAD" { (Vec::new(), BodyEnd::Whole) } else { conn.body().await };
        Some(Reply { head, body, end })
    }

    /// Sends it and reads only the head, so that the test may watch the body come.
    pub(crate) async fn open(&self, address: SocketAddr) -> (Head, Conn) {
        let mut conn = Conn::open(address).await;
        conn.write(&self.bytes()).await.expect("the gateway reads");
        let head = conn.head().await.expect("the gateway answers");
        (head, conn)
    }
}

/// A reply, as far as it came.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) end: BodyEnd,
}

/// One event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: Option<String>,
    pub(crate) data: String,
}

impl Event {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or(Value::Null)
    }
}

impl Reply {
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub(crate) fn request_id(&self) -> &str {
        self.header("x-outlast-request-id").expect("every answer has an id")
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"))
    }

    /// The stream's events; comments are none.
    pub(crate) fn events(&self) -> Vec<Event> {
        let text = self.text();
        let mut events = Vec::new();
        for frame in text.split("\n\n") {
            let field = |name: &str| -> Vec<&str> {
                frame.lines().filter_map(|line| line.strip_prefix(name).map(str::trim_start)).collect()
            };
            let data = field("data:").join("\n");
            if !data.is_empty() {
                events.push(Event { name: field("event:").first().map(|name| (*name).to_owned()), data });
            }
        }
        events
    }

    /// The text the model said, whichever dialect and form the reply has.
    pub(crate) fn said(&self) -> String {
        let pieces = |values: &[Value]| -> String {
            let whole = |value: &Value| -> Option<String> {
                let openai = value["choices"][0]["delta"]["content"]
                    .as_str()
                    .or_else(|| value["choices"][0]["message"]["content"].as_str());
                let delta = value["delta"]["text"].as_str();
                let blocks = value["content"].as_array().map(|blocks| {
                    blocks.iter().filter_map(|block| block["text"].as_str()).collect::<Vec<_>>().concat()
                });
                openai.or(delta).map(str::to_owned).or(blocks)
            };
            values.iter().filter_map(whole).collect()
        };
        if self.is_stream() {
            let events: Vec<Value> = self.events().iter().map(Event::json).collect();
            pieces(&events)
        } else {
            pieces(&[self.json()])
        }
    }

    /// The stream ended as its dialect ends a whole one.
    pub(crate) fn says_it_is_complete(&self) -> bool {
        self.events().iter().any(|event| event.data == "[DONE]" || event.json()["type"] == "message_stop")
    }

    /// The error a stream ended in, if any.
    pub(crate) fn error_event(&self) -> Option<Value> {
        self.events().iter().map(Event::json).find(|event| event["error"].is_object())
    }

    /// A good, complete answer.
    pub(crate) fn assert_answered(&self) {
        assert_eq!(self.status(), 200, "{}", self.text());
        assert_eq!(self.end, BodyEnd::Whole, "{}", self.text());
        assert!(!self.said().is_empty(), "{}", self.text());
        if self.is_stream() {
            assert!(self.says_it_is_complete() && self.error_event().is_none(), "{}", self.text());
        }
    }
}
