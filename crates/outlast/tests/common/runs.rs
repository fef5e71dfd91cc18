//! The worker protocol, as a worker speaks it.

use super::{Ask, Reply, Rig, rig::provider};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// A config that serves runs; nothing asks its model.
pub(crate) fn config(more: &str) -> String {
    provider("a", "openai-compatible", "http://127.0.0.1:9", "") + "[routes.main]\ntargets = [\"a/m\"]\n" + more
}

/// Whoever speaks to a server about runs.
#[derive(Clone)]
pub(crate) struct Api {
    address: SocketAddr,
    key: Option<String>,
}

impl Api {
    pub(crate) fn of(rig: &Rig) -> Api {
        Api::at(rig.address())
    }

    pub(crate) fn at(address: SocketAddr) -> Api {
        Api { address, key: None }
    }

    /// With a caller's key, or the admin token.
    pub(crate) fn with_key(&self, key: &str) -> Api {
        Api { key: Some(key.into()), ..self.clone() }
    }

    pub(crate) fn ask(&self, ask: Ask) -> Ask {
        match &self.key {
            Some(key) => ask.bearer(key),
            None => ask,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.ask(Ask::get(path)).send(self.address).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.ask(Ask::post(path, body.to_string())).send(self.address).await
    }

    /// Starts a run and gives its id.
    pub(crate) async fn start(&self, body: Value) -> String {
        let reply = self.post("/v1/runs", body).await;
        assert_eq!(reply.status(), 201, "{}", reply.text());
        reply.json()["id"].as_str().expect("an id").to_owned()
    }

    /// Claims at once, without waiting; none if there is nothing.
    pub(crate) async fn claim(&self, worker: &str, more: Value) -> Option<Claim> {
        let mut body = json!({ "worker": worker, "queues": ["default"], "wait_s": 0 });
        body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        let reply = self.post("/v1/claim", body).await;
        match reply.status() {
            204 => None,
            200 => Some(Claim::new(self, reply.json())),
            other => panic!("{other}: {}", reply.text()),
        }
    }
}

/// A claimed run.
#[derive(Clone)]
pub(crate) struct Claim {
    api: Api,
    pub(crate) id: String,
    pub(crate) epoch: i64,
    pub(crate) told: Value,
}

impl Claim {
    fn new(api: &Api, told: Value) -> Claim {
        let id = told["run"]["id"].as_str().expect("an id").to_owned();
        Claim { api: api.clone(), id, epoch: told["epoch"].as_i64().expect("an epoch"), told }
    }

    /// The same claim, told to another server.
    pub(crate) fn at(&self, api: &Api) -> Claim {
        Claim { api: api.clone(), ..self.clone() }
    }

    pub(crate) async fn post(&self, path: &str, mut body: Value) -> Reply {
        if body.get("epoch").is_none() {
            body["epoch"] = json!(self.epoch);
        }
        self.api.post(&format!("/v1/runs/{}/{path}", self.id), body).await
    }

    pub(crate) async fn begin(&self, key: &str, body: Value) -> Reply {
        self.post(&format!("steps/{key}/begin"), body).await
    }

    pub(crate) async fn end(&self, key: &str, body: Value) -> Reply {
        self.post(&format!("steps/{key}/end"), body).await
    }

    /// Begins a step that has to be executed; gives its attempt.
    pub(crate) async fn execute(&self, key: &str, body: Value) -> i64 {
        let reply = self.begin(key, body).await;
        let told = reply.json();
        assert_eq!((reply.status(), &told["do"]), (200, &json!("execute")), "{told}");
        told["attempt"].as_i64().expect("an attempt")
    }

    /// Does a step with this result.
    pub(crate) async fn step(&self, key: &str, result: Value) {
        let attempt = self.execute(key, json!({})).await;
        let reply = self.end(key, json!({ "attempt": attempt, "ok": result })).await;
        assert_eq!(reply.json(), json!({ "step": "done" }));
    }

    pub(crate) async fn heartbeat(&self, lease_s: f64) -> Reply {
        self.post("heartbeat", json!({ "lease_s": lease_s })).await
    }
}

/// The status, and the code of an error.
pub(crate) fn refused(reply: &Reply) -> (u16, String) {
    (reply.status(), reply.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
}
