//! What tools are at: a server that does as it is told, path by path, and counts the keys it is given.

use super::{
    Rig,
    faulty_store::SystemClock,
    upstream::{Request, Step, Upstream},
};
use outlast_store::{Limits, MemoryStore};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};
use tokio::sync::Notify;

/// How a request is answered.
#[derive(Clone, Debug)]
pub(crate) enum Does {
    /// With this status and this JSON.
    Says(u16, &'static str),
    /// With a 200 that is not JSON.
    Garbage,
    /// Not at all: the connection stays open.
    Hangs,
    /// Not at all: the connection ends.
    Breaks,
    /// With `{"ok": true}`, once the test says so.
    Awaits(Arc<Notify>),
}

/// What is done well.
pub(crate) const DONE: Does = Does::Says(200, r#"{"ok": true}"#);

/// A running one. Every path has a script of its own: its acts in their order, the last one again and again.
pub(crate) struct Downstream {
    upstream: Upstream,
}

impl Downstream {
    pub(crate) async fn start<const N: usize>(scripts: [(&str, Vec<Does>); N]) -> Downstream {
        Downstream::acting(scripts.into_iter().map(|(path, acts)| (path.to_owned(), acts)).collect()).await
    }

    pub(crate) async fn acting(scripts: HashMap<String, Vec<Does>>) -> Downstream {
        let counts = Mutex::new(HashMap::<String, usize>::new());
        let upstream = Upstream::start(move |request| {
            let path = path_of(request);
            let mut counts = counts.lock().unwrap();
            let count = counts.entry(path.clone()).or_default();
            let act = scripts.get(&path).and_then(|acts| acts.get(*count).or_else(|| acts.last()));
            *count += 1;
            steps(act.unwrap_or(&Does::Says(404, r#"{"error": "no such path"}"#)))
        });
        Downstream { upstream: upstream.await }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        self.upstream.url() + path
    }

    /// Requests for this path.
    pub(crate) fn seen(&self, path: &str) -> Vec<Request> {
        self.upstream.seen().into_iter().filter(|request| path_of(request) == path).collect()
    }

    /// How often each key was seen at this path.
    pub(crate) fn keys(&self, path: &str) -> BTreeMap<String, usize> {
        let mut keys = BTreeMap::new();
        for request in self.seen(path) {
            *keys.entry(request.header("idempotency-key").unwrap_or("none").to_owned()).or_default() += 1;
        }
        keys
    }
}

fn path_of(request: &Request) -> String {
    let target = request.head.split_whitespace().nth(1).unwrap_or_default();
    target.split('?').next().unwrap_or_default().to_owned()
}

fn steps(act: &Does) -> Vec<Step> {
    match act {
        Does::Says(status, body) => vec![Step::Send(answer(*status, "application/json", body))],
        Does::Garbage => vec![Step::Send(answer(200, "text/html", "<p>done?</p>"))],
        Does::Hangs => vec![Step::Hang],
        Does::Breaks => vec![Step::Close],
        Does::Awaits(go) => {
            vec![Step::Await(go.clone()), Step::Send(answer(200, "application/json", r#"{"ok": true}"#))]
        }
    }
}

pub(crate) fn answer(status: u16, media: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\ncontent-type: {media}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// An address where nobody listens.
pub(crate) async fn nowhere() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    format!("http://{address}")
}

/// A tool at a URL. `more` is whatever else its section holds.
pub(crate) fn tool(name: &str, url: &str, effect: &str, more: &str) -> String {
    let effect = match effect {
        "keyed" => "effect = \"keyed\"\nkey_ttl = \"1d\"".to_owned(),
        other => format!("effect = \"{other}\""),
    };
    let retry = if more.contains("retry") { "" } else { RETRY };
    format!("[tools.{name}]\nkind = \"http\"\nurl = \"{url}\"\n{effect}\n{retry}\n{more}\n")
}

/// Quick enough for a test.
pub(crate) const RETRY: &str = r#"retry = { attempts = 3, base = "10ms", cap = "20ms" }"#;

/// What a config with tools needs beside them: a file for the ledger, and a provider, which nobody asks.
pub(crate) fn around(tools: &str) -> String {
    let provider = super::rig::provider("p", "openai-compatible", "http://127.0.0.1:9", "")
        + "[routes.main]\ntargets = [\"p/m\"]\n";
    format!("{tools}\n{provider}\n[store]\nfile = \"store.db\"\nplaintext_payloads = true\n")
}

/// A gateway with these tools and a ledger in memory.
pub(crate) async fn rig(tools: &str) -> Rig {
    Rig::start_on(&around(tools), Arc::new(MemoryStore::new(Limits::MEMORY, Arc::new(SystemClock)))).await
}
