//! The epilogue: what a client gets when there is less than everything. One request a scene, and each is judged.

use super::stage::{Heard, Scene, Stage, expect, user};
use crate::clock;
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;

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

/// How long the queued request may take once a vendor is back.
const QUEUE_PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);

/// Plays the scenes.
pub(super) async fn play(stage: &Stage<'_>) -> Vec<Scene> {
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
        Ok(format!(
            "vendor-a wrote other fields; the client got {}, from {}",
            fields.join(", "),
            reply.header("x-outlast-target")
        ))
    }

    async fn slip(&self) -> Result<String, String> {
        let reply = self.chat(json!({"model": "slip", "messages": user("Triage this.")})).await?;
        keys(&reply)?;
        expect(reply.header("x-outlast-attempts") == "1", || {
            format!("{} attempts", reply.header("x-outlast-attempts"))
        })?;
        Ok("vendor-a put its JSON into a code fence; mended, without another call".into())
    }

    async fn citation(&self) -> Result<String, String> {
        let sources = json!({"sources": ["policy-7"]});
        let ask = json!({"model": "cited", "messages": user("May I return it?"), "outlast": sources});
        let reply = self.chat(ask).await?;
        expect(reply.text.contains("[policy-7]"), || format!("it says {:?}", reply.text))?;
        let marked = reply.header("x-outlast-degraded");
        expect(marked == "model", || format!("marked {marked:?}"))?;
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
                let answer = self.send(Method::GET, &poll, &[], "").await?;
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
}

/// The field names of the JSON that was said, sorted.
fn keys(reply: &Heard) -> Result<Vec<String>, String> {
    let said: Value = serde_json::from_str(&reply.text).map_err(|error| format!("not JSON: {error}"))?;
    let mut keys: Vec<String> = said.as_object().into_iter().flat_map(|fields| fields.keys().cloned()).collect();
    keys.sort();
    Ok(keys)
}
