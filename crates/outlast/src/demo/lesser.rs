//! The epilogue: what a client gets when there is less than everything. One request a scene, and each is judged.

use super::world::World;
use crate::clock::{self, Clock};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};

/// Routes of the scenes, over the demo's own three vendors. The model names carry the fault.
pub(super) const CONFIG: &str = r#"
[store]
file = "outlast.db"
data_key = "${DEMO_DATA_KEY}"

[contracts.triage]
schema = { type = "object", required = ["summary", "risk", "next_action"], properties = { summary = { type = "string" }, risk = { enum = ["low", "high"] }, next_action = { type = "string" } } }
repair = { fixes = ["fences"] }

[contracts.cited]
evidence = { sources = "outlast.sources" }

[contracts.acting]
tools = { primary = "full", fallback = "plan-only" }

[backstops.prepared]
kind = "static"
reply = "The policy is here: [policy-7]. A person answers what it leaves open."

[targets."vendor-a/triage~schema-drift"]
capabilities = { json_schema = true }
[targets."vendor-a/triage~json-slip:fences"]
capabilities = { json_schema = true }
[targets."local/words-only"]
capabilities = { tools = false }

[routes.other-fields]
targets = ["vendor-a/triage~schema-drift", "vendor-b/large"]
contract = "triage"
[routes.slip]
targets = ["vendor-a/triage~json-slip:fences"]
contract = "triage"
[routes.plan]
targets = ["local/words-only"]
contract = "acting"
[routes.cited]
targets = ["vendor-a/cites~say:See%20%5Bpolicy-9%5D.", "vendor-b/cites~say:Trust%20me."]
contract = "cited"
backstops = ["prepared"]
[routes.later]
targets = ["vendor-a/later", "vendor-b/later"]
backstops = ["queue"]
"#;

/// One scene's end.
pub(super) struct Scene {
    pub(super) name: &'static str,
    /// What was seen, or why it is not what was promised.
    pub(super) seen: Result<String, String>,
}

type Http = Client<HttpConnector, Full<Bytes>>;

/// How long the queued request may take once a vendor is back.
const QUEUE_PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);

struct Stage<'w> {
    world: &'w World,
    http: Http,
    clock: Clock,
}

/// Plays the scenes.
pub(super) async fn play(world: &World, clock: Clock) -> Vec<Scene> {
    let stage = Stage { world, http: Client::builder(TokioExecutor::new()).build_http(), clock };
    vec![
        Scene { name: "other fields", seen: stage.other_fields().await },
        Scene { name: "slip of form", seen: stage.slip().await },
        Scene { name: "false citation", seen: stage.citation().await },
        Scene { name: "no tools", seen: stage.plan().await },
        Scene { name: "all down", seen: stage.later().await },
    ]
}

impl Stage<'_> {
    async fn other_fields(&self) -> Result<String, String> {
        let reply = self.chat(json!({"model": "other-fields", "messages": user("Triage this.")})).await?;
        let fields = keys(&reply)?;
        expect(fields == ["next_action", "risk", "summary"], || format!("fields {fields:?}"))?;
        Ok(format!("vendor-a wrote other fields; the client got {}, from {}", fields.join(", "), reply.target))
    }

    async fn slip(&self) -> Result<String, String> {
        let reply = self.chat(json!({"model": "slip", "messages": user("Triage this.")})).await?;
        keys(&reply)?;
        expect(reply.attempts == "1", || format!("{} attempts", reply.attempts))?;
        Ok("vendor-a put its JSON into a code fence; mended, without another call".into())
    }

    async fn citation(&self) -> Result<String, String> {
        let sources = json!({"sources": ["policy-7"]});
        let ask = json!({"model": "cited", "messages": user("May I return it?"), "outlast": sources});
        let reply = self.chat(ask).await?;
        expect(reply.text.contains("[policy-7]"), || format!("it says {:?}", reply.text))?;
        expect(reply.degraded == "model", || format!("marked {:?}", reply.degraded))?;
        Ok("one cited what nobody gave it, one cited nothing: a prepared answer, marked".into())
    }

    async fn plan(&self) -> Result<String, String> {
        let parameters = json!({"type": "object", "required": ["order"], "properties": {"order": {"const": "17"}}});
        let tools = json!([{"type": "function", "function": {"name": "refund_order", "parameters": parameters}}]);
        let ask = json!({"model": "plan", "messages": user("tool:refund_order please"), "tools": tools});
        let reply = self.chat(ask).await?;
        let intent = &reply.body["outlast"]["plan"][0];
        expect(intent["tool"] == "refund_order", || format!("no plan: {}", reply.body["outlast"]))?;
        expect(reply.text.contains("Not done: refund_order"), || format!("it says {:?}", reply.text))?;
        Ok("a model that cannot act gave a plan: \"Not done: refund_order (order: 17).\"".into())
    }

    async fn later(&self) -> Result<String, String> {
        self.world.break_both("503")?;
        let reply = self.chat(json!({"model": "later", "messages": user("Where is my order?")})).await?;
        expect(reply.status == 202, || format!("status {}: {}", reply.status, reply.body))?;
        let poll = reply.body["outlast"]["queue"]["poll_url"].as_str().ok_or("no poll URL")?.to_owned();
        self.world.heal_both()?;
        let healed = self.clock.mono();
        let polling = async {
            loop {
                let answer = self.send(Method::GET, &poll, Bytes::new()).await?;
                if answer.status != 202 {
                    return Ok::<Heard, String>(answer);
                }
                clock::sleep(POLL).await;
            }
        };
        let answer = clock::timeout(QUEUE_PATIENCE, polling).await.map_err(|_| "it stayed in the queue")??;
        expect(answer.status == 200 && answer.text.contains("Where is my order?"), || format!("{}", answer.body))?;
        let took = self.clock.mono().since(healed).as_secs_f64();
        Ok(format!("kept on disk, 202; answered {took:.1} s after the vendors were back"))
    }

    async fn chat(&self, body: Value) -> Result<Heard, String> {
        let heard = self.send(Method::POST, "/v1/chat/completions", body.to_string().into()).await?;
        expect(heard.status < 300, || format!("status {}: {}", heard.status, heard.body["error"]["message"]))?;
        Ok(heard)
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Heard, String> {
        let gateway: SocketAddr = self.world.address();
        let request = Request::builder().method(method).uri(format!("http://{gateway}{path}"));
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        let reply = self.http.request(request).await.map_err(|error| format!("no reply: {error}"))?;
        Heard::read(reply).await
    }
}

/// A reply of the OpenAI dialect.
struct Heard {
    status: u16,
    text: String,
    target: String,
    attempts: String,
    degraded: String,
    body: Value,
}

impl Heard {
    async fn read(reply: Response<hyper::body::Incoming>) -> Result<Heard, String> {
        let header = |name: &str| reply.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let [target, attempts, degraded] =
            ["x-outlast-target", "x-outlast-attempts", "x-outlast-degraded"].map(|name| header(name).to_owned());
        let status = reply.status().as_u16();
        let body = reply.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        let body: Value = serde_json::from_slice(&body).map_err(|error| format!("not JSON: {error}"))?;
        let text = body["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned();
        Ok(Heard { status, text, target, attempts, degraded, body })
    }
}

fn user(text: &str) -> Value {
    json!([{"role": "user", "content": text}])
}

/// The field names of the JSON that was said, sorted.
fn keys(reply: &Heard) -> Result<Vec<String>, String> {
    let said: Value = serde_json::from_str(&reply.text).map_err(|error| format!("not JSON: {error}"))?;
    let mut keys: Vec<String> = said.as_object().into_iter().flat_map(|fields| fields.keys().cloned()).collect();
    keys.sort();
    Ok(keys)
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
