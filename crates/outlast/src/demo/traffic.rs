//! The clients: steady mixed traffic in both dialects, streaming and not, and a strict judge of every reply.

use super::world::{ROUTE, WORDS};
use crate::clock::{self, Clock, MissedTickBehavior};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

/// What a client got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A whole and valid answer.
    Answered,
    /// Part of a stream, then a typed error event: the client knows that it was cut.
    Cut,
    /// Anything else, and what.
    Lost(String),
}

/// One request's end.
#[derive(Clone, Debug)]
pub(super) struct Done {
    /// The phase in which it was sent.
    pub(super) phase: usize,
    /// From sending to the reply's last byte.
    pub(super) took: Duration,
    pub(super) verdict: Verdict,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Tools,
    Structured,
}

struct Ask {
    path: &'static str,
    kind: Kind,
    stream: bool,
    body: Bytes,
}

/// A client that waits longer gives up.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(25);
/// Results not yet looked at; far more than come between two looks.
const RESULTS_MAX: usize = 65_536;

/// The traffic while it flows.
pub(super) struct Traffic {
    phase: watch::Sender<Option<usize>>,
    results: mpsc::Receiver<Done>,
    sent: Arc<std::sync::atomic::AtomicU64>,
    taken: u64,
    task: JoinHandle<()>,
}

impl Traffic {
    /// Starts it; nothing is sent before the first phase is entered.
    pub(super) fn start(gateway: SocketAddr, per_second: u32, clock: Clock) -> Self {
        let (phase, phases) = watch::channel(None);
        let (sender, results) = mpsc::channel(RESULTS_MAX);
        let sent = Arc::default();
        let task = tokio::spawn(flow(gateway, per_second, phases, sender, Arc::clone(&sent), clock));
        Traffic { phase, results, sent, taken: 0, task }
    }

    /// From now on requests belong to this phase.
    pub(super) fn enter(&self, phase: usize) {
        self.phase.send_replace(Some(phase));
    }

    /// The results that came since the last look.
    pub(super) fn take(&mut self) -> Vec<Done> {
        let done: Vec<Done> = std::iter::from_fn(|| self.results.try_recv().ok()).collect();
        self.taken += done.len() as u64;
        done
    }

    /// Requests sent whose end has not been taken.
    pub(super) fn open(&self) -> u64 {
        self.sent.load(std::sync::atomic::Ordering::Relaxed).saturating_sub(self.taken)
    }

    /// Sends no more, and waits for the answers of those under way.
    pub(super) async fn finish(&mut self, within: Duration) {
        self.phase.send_replace(None);
        if clock::timeout(within, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Http = Client<HttpConnector, Full<Bytes>>;

/// Sends at a steady pace until the phase is taken away, then waits for the last answers.
async fn flow(
    gateway: SocketAddr,
    per_second: u32,
    mut phases: watch::Receiver<Option<usize>>,
    results: mpsc::Sender<Done>,
    sent: Arc<std::sync::atomic::AtomicU64>,
    clock: Clock,
) {
    let http: Http = Client::builder(TokioExecutor::new()).build_http();
    let asks: Vec<Arc<Ask>> = asks().into_iter().map(Arc::new).collect();
    let mut clients = tokio::task::JoinSet::new();
    if phases.wait_for(Option::is_some).await.is_err() {
        return;
    }
    // Half a beat after the phases, which change at whole seconds: a request meets the phase it belongs to.
    let beat = Duration::from_secs(1) / per_second;
    clock::sleep(beat / 2).await;
    let mut pace = clock::interval(beat);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for ask in asks.iter().cycle() {
        pace.tick().await;
        let Some(phase) = *phases.borrow() else { break };
        let (http, ask, results, clock) = (http.clone(), Arc::clone(ask), results.clone(), clock.clone());
        sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        clients.spawn(async move {
            let began = clock.mono();
            let exchange = clock::timeout(CLIENT_TIMEOUT, exchange(&http, gateway, &ask, phase));
            let verdict = exchange.await.unwrap_or_else(|_| Verdict::Lost("no answer within 25 s".into()));
            let _ = results.try_send(Done { phase, took: clock.mono().since(began), verdict });
        });
        while clients.try_join_next().is_some() {}
    }
    while clients.join_next().await.is_some() {}
}

async fn exchange(http: &Http, gateway: SocketAddr, ask: &Ask, phase: usize) -> Verdict {
    let request = Request::post(format!("http://{gateway}{}", ask.path))
        .header(header::CONTENT_TYPE, "application/json")
        .header("x-outlast-task", task_of(phase))
        .body(Full::new(ask.body.clone()));
    let Ok(request) = request else { return Verdict::Lost("the request could not be made".into()) };
    let reply = match http.request(request).await {
        Ok(reply) => reply,
        Err(error) => return Verdict::Lost(format!("no reply: {error}")),
    };
    let status = reply.status();
    let body = match reply.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Verdict::Lost(format!("the reply broke off: {error}")),
    };
    if !status.is_success() {
        return Verdict::Lost(format!("{status}: {}", message_of(&body)));
    }
    let judged = if ask.stream { read_stream(ask, &body) } else { read_whole(ask, &body) };
    match judged {
        Ok(Read::Whole(content)) => judge(ask.kind, &content).map_or_else(Verdict::Lost, |()| Verdict::Answered),
        Ok(Read::Cut) => Verdict::Cut,
        Err(why) => Verdict::Lost(why),
    }
}

/// How lineage names the phase.
pub(super) fn task_of(phase: usize) -> String {
    format!("phase-{phase}")
}

fn message_of(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    body["error"]["message"].as_str().unwrap_or("no message").chars().take(120).collect()
}

/// The text of a reply, or the arguments of its tool call.
#[derive(Debug, Default)]
struct Content {
    text: String,
    arguments: String,
}

#[derive(Debug)]
enum Read {
    Whole(Content),
    Cut,
}

fn judge(kind: Kind, content: &Content) -> Result<(), String> {
    match kind {
        Kind::Text => {
            let words = content.text.split(' ').count();
            let known = ["vendor-a answers", "vendor-b answers", "local answers"];
            let whole = words == WORDS && known.iter().any(|name| content.text.starts_with(name));
            whole.then_some(()).ok_or_else(|| format!("a text of {words} words, not of {WORDS}"))
        }
        Kind::Tools => has(&content.arguments, "city"),
        Kind::Structured => has(&content.text, "answer"),
    }
}

fn has(text: &str, field: &str) -> Result<(), String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    value.get(field).map(|_| ()).ok_or_else(|| format!("JSON without `{field}`"))
}

fn read_whole(ask: &Ask, body: &[u8]) -> Result<Read, String> {
    let body: Value = serde_json::from_slice(body).map_err(|error| format!("not JSON: {error}"))?;
    let mut content = Content::default();
    if ask.path == MESSAGES {
        body["stop_reason"].as_str().ok_or("no stop reason")?;
        for block in body["content"].as_array().into_iter().flatten() {
            content.text += block["text"].as_str().unwrap_or_default();
            if block["type"] == "tool_use" {
                content.arguments = block["input"].to_string();
            }
        }
    } else {
        let choice = &body["choices"][0];
        choice["finish_reason"].as_str().ok_or("no finish reason")?;
        content.text += choice["message"]["content"].as_str().unwrap_or_default();
        let call = &choice["message"]["tool_calls"][0]["function"]["arguments"];
        content.arguments += call.as_str().unwrap_or_default();
    }
    Ok(Read::Whole(content))
}

/// Reads a stream to its end as an SDK would: without the terminal marker it is not an answer.
fn read_stream(ask: &Ask, body: &[u8]) -> Result<Read, String> {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    let mut content = Content::default();
    let (mut finished, mut terminal) = (false, false);
    for data in text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim_start) {
        if data == "[DONE]" {
            terminal = true;
            continue;
        }
        let event: Value = serde_json::from_str(data).map_err(|error| format!("an event is not JSON: {error}"))?;
        if event.get("error").is_some() {
            return Ok(Read::Cut);
        }
        if ask.path == MESSAGES {
            let delta = &event["delta"];
            content.text += delta["text"].as_str().unwrap_or_default();
            content.arguments += delta["partial_json"].as_str().unwrap_or_default();
            finished |= delta["stop_reason"].is_string();
            terminal |= event["type"] == "message_stop";
        } else {
            let choice = &event["choices"][0];
            content.text += choice["delta"]["content"].as_str().unwrap_or_default();
            let call = &choice["delta"]["tool_calls"][0]["function"]["arguments"];
            content.arguments += call.as_str().unwrap_or_default();
            finished |= choice["finish_reason"].is_string();
        }
    }
    match (finished, terminal) {
        (true, true) => Ok(Read::Whole(content)),
        (false, _) => Err("a stream without a finish reason".into()),
        (true, false) => Err("a stream without its last event".into()),
    }
}

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";

/// One round of requests: both dialects, streaming and not, text, tools and structured output.
fn asks() -> [Ask; 10] {
    use Kind::{Structured, Text, Tools};
    [
        ask(CHAT, Text, true),
        ask(MESSAGES, Text, true),
        ask(CHAT, Text, false),
        ask(CHAT, Tools, true),
        ask(MESSAGES, Text, false),
        ask(CHAT, Text, true),
        ask(CHAT, Structured, false),
        ask(MESSAGES, Tools, false),
        ask(MESSAGES, Text, true),
        ask(CHAT, Structured, true),
    ]
}

fn ask(path: &'static str, kind: Kind, stream: bool) -> Ask {
    let city = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    let mut body = json!({
        "model": ROUTE,
        "stream": stream,
        "max_tokens": 1000,
        "messages": [{"role": "user", "content": "What should I know before I travel?"}],
    });
    match (kind, path == MESSAGES) {
        (Kind::Text, _) => {}
        (Kind::Tools, true) => {
            body["tools"] = json!([{"name": "weather", "description": "The weather", "input_schema": city}]);
            body["tool_choice"] = json!({"type": "tool", "name": "weather"});
        }
        (Kind::Tools, false) => {
            let function = json!({"name": "weather", "description": "The weather", "parameters": city});
            body["tools"] = json!([{"type": "function", "function": function}]);
            body["tool_choice"] = json!({"type": "function", "function": {"name": "weather"}});
        }
        (Kind::Structured, _) => {
            let schema = json!({
                "type": "object",
                "properties": {"answer": {"type": "string"}, "sure": {"type": "boolean"}},
                "required": ["answer", "sure"],
                "additionalProperties": false,
            });
            let format = json!({"name": "reply", "strict": true, "schema": schema});
            body["response_format"] = json!({"type": "json_schema", "json_schema": format});
        }
    }
    Ask { path, kind, stream, body: Bytes::from(body.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(words: usize) -> String {
        let filler = vec!["word"; words - 2].join(" ");
        format!("vendor-a answers {filler}")
    }

    fn stream(events: &[&str]) -> Result<Read, String> {
        let body: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
        read_stream(&ask(CHAT, Kind::Text, true), body.as_bytes())
    }

    #[test]
    fn only_a_stream_with_its_finish_reason_and_its_last_event_is_an_answer() {
        let delta = r#"{"choices":[{"delta":{"content":"Hello"},"finish_reason":null}]}"#;
        let finish = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
        assert!(matches!(stream(&[delta, finish, "[DONE]"]), Ok(Read::Whole(_))));
        assert!(stream(&[delta, finish]).is_err());
        assert!(stream(&[delta, "[DONE]"]).is_err());
        assert!(stream(&[]).is_err());
        let error = r#"{"error":{"message":"cut","type":"server_error"}}"#;
        assert!(matches!(stream(&[delta, error]), Ok(Read::Cut)));
    }

    #[test]
    fn a_text_that_is_not_whole_is_lost_whatever_its_stream_says() {
        let whole = Content { text: text(WORDS), ..Content::default() };
        assert_eq!(judge(Kind::Text, &whole), Ok(()));
        for text in [text(WORDS - 1), text(WORDS + 1), text(WORDS).replace("vendor-a", "nobody"), String::new()] {
            assert!(judge(Kind::Text, &Content { text, ..Content::default() }).is_err());
        }
        let half = Content { arguments: r#"{"city": "Pa"#.into(), ..Content::default() };
        assert!(judge(Kind::Tools, &half).is_err());
    }
}
