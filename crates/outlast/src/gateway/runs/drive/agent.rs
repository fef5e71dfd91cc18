//! A step in which a model calls tools until it is done.
//!
//! Every turn is written down before its tool calls are made, and every tool call under the id that the turn gave it. So
//! a crash costs neither a turn that was paid for nor a second call of a tool: the loop runs through what is recorded,
//! free, and goes on where it stopped.

use super::{
    super::super::{
        inner::Answered,
        live::LiveRoute,
        tools::{self, Denied, Performed, ToolCall},
    },
    Drive,
    journal::{Begin, less, lost},
    model::{Ask, text_of},
    opened, payload,
    tool::in_words,
};
use outlast_engine::run::{Ended, Proof, flow::Outcome};
use outlast_model::{
    ToolName, Usd,
    policy::{StepSpec, ToolMode, WorkflowStep},
    run::{EscalationKind, Exhausted, StepKind},
};
use outlast_store::Payload;
use outlast_wire::{compose::Said, template::Template};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// The most bytes of one tool's result that the model is given. What is cut is marked.
const RESULT_BYTES_MAX: usize = 32 << 10;
/// The most tool calls of one turn that are made. The others are answered with an error.
const CALLS_MAX: usize = 32;
/// Long enough to write down what the agent came to.
const TO_RECORD: Duration = Duration::from_secs(10);

/// A turn of the model, as it is written down.
struct Turn {
    text: Value,
    calls: Vec<Called>,
    mode: ToolMode,
    cost: Usd,
    /// Tools that it would have called, where it could not.
    planned: bool,
}

/// A tool call of a turn.
struct Called {
    id: Arc<str>,
    name: String,
    arguments: String,
}

/// The agent's settings.
struct Agent<'a> {
    spec: &'a WorkflowStep,
    key: &'a Arc<str>,
    route: &'a outlast_model::RouteId,
    tools: &'a [ToolName],
    turns: u32,
    budget: Option<Usd>,
}

/// How the loop ended.
enum Came {
    /// To its last word.
    To(Value),
    /// To an answer that a person has to look at.
    Short(Value, &'static str),
    /// To the end of what it may spend.
    Spent(&'static str),
}

impl Drive {
    /// Its result is the last reply: JSON if the route's contract demands that, else text.
    ///
    /// # Errors
    /// What became of it, where it is not done.
    pub(super) async fn agent(
        &mut self,
        at: usize,
        spec: &WorkflowStep,
        instructions: Option<&Template>,
        prompt: &Template,
        key: &Arc<str>,
    ) -> Result<Value, Outcome> {
        let StepSpec::Agent { route, tools, max_turns, cost_max } = &spec.spec else { return Err(Outcome::Template) };
        let mut messages = Vec::new();
        for (role, setting, text) in [("system", "instructions", instructions), ("user", "prompt", Some(prompt))] {
            match text.map(|text| text.render_facts(self.facts.get())) {
                None => {}
                Some(Ok(text)) => messages.push(json!({ "role": role, "content": text })),
                Some(Err(why)) => {
                    self.unmakeable(at, setting, &why);
                    return Err(Outcome::Template);
                }
            }
        }
        // A person who says "once more" grants as much again.
        let grants = self.facts.attempts(key).saturating_add(1);
        let agent = Agent {
            spec,
            key,
            route,
            tools,
            turns: max_turns.saturating_mul(grants),
            budget: cost_max.map(|most| Usd::from_nanos(most.as_nanos().saturating_mul(u64::from(grants)))),
        };
        let asked = payload(&json!(messages));
        let came = self.turns(&agent, messages).await?;
        self.record(&agent, asked, came).await
    }

    /// The loop.
    async fn turns(&mut self, agent: &Agent<'_>, mut messages: Vec<Value>) -> Result<Came, Outcome> {
        let offered = self.offered(agent.tools);
        let mut ids = BTreeSet::new();
        let mut spent = Usd::ZERO;
        // What was said since the last turn: the journal keeps each thing once.
        let mut new = 0;
        for number in 1..=agent.turns {
            if agent.budget.is_some_and(|most| spent >= most) {
                return Ok(Came::Spent("it has spent its `cost_max_usd`"));
            }
            self.unless_stopping()?;
            let mut body = json!({ "model": agent.route, "messages": messages });
            if !offered.is_empty() {
                body["tools"] = json!(offered);
            }
            let key: Arc<str> = format!("{}/turn/{number}", agent.key).into();
            let ask = Ask {
                spec: agent.spec,
                route: agent.route,
                key: &key,
                body,
                input: payload(&json!(messages.get(new..))),
                budget: agent.budget.map(|most| less(most, spent)),
            };
            let said = self.ask(ask, |answered, said, route| written(answered, said, route, &ids)).await?;
            let turn = Turn::read(said);
            spent = spent + turn.cost;
            if turn.planned {
                return Ok(Came::Short(turn.text, "the model could only plan its actions, and none was taken"));
            }
            if turn.calls.is_empty() {
                return Ok(Came::To(turn.text));
            }
            new = messages.len();
            messages.push(turn.message());
            for (nth, call) in turn.calls.iter().enumerate() {
                ids.insert(call.id.clone());
                let heard = match nth < CALLS_MAX {
                    true => self.tool_call(agent, call, turn.mode).await?,
                    false => {
                        json!({ "error": format!("Not called: at most {CALLS_MAX} tools are called in one turn.") })
                    }
                };
                messages.push(json!({ "role": "tool", "tool_call_id": call.id, "content": bounded(&heard) }));
            }
        }
        Ok(Came::Spent("it has had its `max_turns`"))
    }

    /// Between two steps of the agent is where a run is given back.
    fn unless_stopping(&self) -> Result<(), Outcome> {
        if self.shared.draining() { Err(Outcome::Again(Duration::ZERO)) } else { Ok(()) }
    }

    /// Calls a tool for the model, or tells the model why not.
    async fn tool_call(&mut self, agent: &Agent<'_>, call: &Called, mode: ToolMode) -> Result<Value, Outcome> {
        self.unless_stopping()?;
        let refused = |why: String| Ok(json!({ "error": why }));
        if !agent.tools.iter().any(|tool| tool.as_str() == call.name) {
            return refused(format!("Not called: there is no tool `{}` here.", call.name));
        }
        let arguments = if call.arguments.trim().is_empty() { "{}" } else { &call.arguments };
        let Ok(arguments) = serde_json::from_str::<Value>(arguments) else {
            return refused("Not called: the arguments are no JSON.".into());
        };
        let key: Arc<str> = format!("{}/tool/{}", agent.key, call.id).into();
        let call = ToolCall { mode, ..self.call(&call.name, arguments, &key, None) };
        let (shared, live) = (self.shared.clone(), self.live.clone());
        match tools::perform(&shared, &live, call).await {
            Performed::Done { result, .. } => Ok(opened(&result)),
            Performed::Failed { error, replayed: _ } => refused(error.message),
            Performed::Denied(denied) => {
                let hint = if matches!(denied, Denied::Arguments(_)) { " Call it again with better ones." } else { "" };
                refused(format!("Not called: {}.{hint}", in_words(&denied)))
            }
            Performed::Parked { .. } => Err(Outcome::Parked),
            Performed::Wait { after, unknown: false, error: _ } => Err(Outcome::Again(after)),
            Performed::Wait { after, unknown: true, error: _ } | Performed::InFlight { after } => {
                Err(Outcome::Unknown(after))
            }
            Performed::Mismatch => Err(Outcome::Mismatch),
            Performed::Refused(why) => Err(Outcome::Refused(why)),
            Performed::NoRun | Performed::Down(_) => Err(lost()),
        }
    }

    /// Writes down what the agent came to, as the step itself.
    async fn record(&mut self, agent: &Agent<'_>, asked: Payload, came: Came) -> Result<Value, Outcome> {
        let spec = agent.spec;
        let text = format!("Step `{}` of run `{}` waits for a decision.", agent.key, self.run.id);
        let mut question = self.question(spec, text);
        let step = Begin {
            key: agent.key,
            kind: StepKind::Model,
            name: agent.route.as_str(),
            fingerprint: *blake3::hash(asked.as_bytes()).as_bytes(),
            input: asked,
            // What it came to is recorded until it stands: what it tries, its turns try.
            budget: outlast_model::run::RetryBudget { attempts: u32::MAX, within: None, cost_max: None, ..spec.retry },
            call_deadline: TO_RECORD,
            undo: None,
            undoes: None,
        };
        let attempt = match self.begin(step, &question).await {
            Ok(attempt) => attempt,
            Err(became) => return became,
        };
        let (ended, result) = match came {
            Came::To(result) => (Ended::Done, result),
            Came::Short(result, why) => {
                question.text = format!(
                    "The agent of step `{}`, run `{}`, came to its end, but {why}. Approve what it said, write the result, \
                     have it tried again, or go on without it.",
                    agent.key, self.run.id
                );
                question.context["answer"] = result.clone();
                (person(spec, EscalationKind::LowConfidence), result)
            }
            Came::Spent(why) => {
                question.text = format!(
                    "The agent of step `{}`, run `{}`, is not done, and {why}. Grant it as much again (retry), write the \
                     result, or go on without it.",
                    agent.key, self.run.id
                );
                let error = json!({ "code": "exhausted", "message": format!("The agent is not done, and {why}.") });
                (person(spec, EscalationKind::Exhausted), error)
            }
        };
        self.end(&attempt, ended, result, Usd::ZERO, &question).await
    }

    /// The agent's tools, as a model is told of them.
    fn offered(&self, tools: &[ToolName]) -> Vec<Value> {
        let specs = tools.iter().filter_map(|name| self.live.config.tool_spec(name));
        let function = |spec: &Arc<outlast_model::policy::ToolSpec>| {
            let schema = spec.input.as_ref().and_then(|schema| serde_json::from_str(&schema.json).ok());
            let parameters: Value = schema.unwrap_or_else(|| json!({ "type": "object" }));
            let mut function = json!({ "name": spec.name, "parameters": parameters });
            if let Some(description) = &spec.description {
                function["description"] = json!(description);
            }
            json!({ "type": "function", "function": function })
        };
        specs.map(function).collect()
    }
}

/// A person decides, unless the step is to fail without one.
fn person(spec: &WorkflowStep, kind: EscalationKind) -> Ended {
    match spec.retry.exhausted {
        Exhausted::Escalate => Ended::Review(kind),
        Exhausted::Fail => Ended::Failed(Proof::Final),
    }
}

/// A turn as it is written down. Its tool calls get ids that no other call of the agent has: they are the keys under
/// which the tools are called.
fn written(answered: &Answered, said: &Said, route: &LiveRoute, known: &BTreeSet<Arc<str>>) -> Value {
    let mut ids = known.clone();
    let mut calls = Vec::with_capacity(said.tool_calls.len());
    for call in &said.tool_calls {
        let given = legible(&call.id);
        let mut id = given.clone();
        let mut nth = 1;
        while id.is_empty() || ids.contains(&*id) {
            nth += 1;
            id = format!("{}~{nth}", if given.is_empty() { "call" } else { &given });
        }
        ids.insert(id.as_str().into());
        calls.push(json!({ "id": id, "name": call.name, "arguments": call.arguments }));
    }
    let text = if calls.is_empty() { text_of(said, route) } else { Value::String(said.text.clone()) };
    json!({
        "text": text,
        "tool_calls": calls,
        "tool_mode": answered.record.tool_mode,
        "planned": !answered.plan.is_empty(),
        "cost_nanos": answered.record.cost.as_nanos(),
    })
}

/// A provider's id as part of a key.
fn legible(id: &str) -> String {
    id.chars().filter(|letter| letter.is_ascii_alphanumeric() || "_-.:".contains(*letter)).take(96).collect()
}

impl Turn {
    /// As it was written down; what a person wrote in its place is the last word.
    fn read(mut said: Value) -> Turn {
        let calls = match said.get_mut("tool_calls").map(Value::take) {
            Some(Value::Array(calls)) if said["cost_nanos"].is_u64() => calls,
            Some(_) | None => {
                return Turn { text: said, calls: Vec::new(), mode: ToolMode::None, cost: Usd::ZERO, planned: false };
            }
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let called = |call: &Value| Called {
            id: text(&call["id"]).into(),
            name: text(&call["name"]),
            arguments: text(&call["arguments"]),
        };
        Turn {
            calls: calls.iter().map(called).collect(),
            mode: serde_json::from_value(said["tool_mode"].take()).unwrap_or(ToolMode::None),
            cost: Usd::from_nanos(said["cost_nanos"].as_u64().unwrap_or(0)),
            planned: said["planned"].as_bool().unwrap_or(false),
            text: said["text"].take(),
        }
    }

    /// As the model is shown what it said.
    fn message(&self) -> Value {
        let call = |call: &Called| {
            json!({
                "id": call.id,
                "type": "function",
                "function": { "name": call.name, "arguments": call.arguments },
            })
        };
        let calls: Vec<Value> = self.calls.iter().map(call).collect();
        let text = self.text.as_str().filter(|text| !text.is_empty());
        json!({ "role": "assistant", "content": text, "tool_calls": calls })
    }
}

/// A tool's result as the model is given it.
fn bounded(result: &Value) -> String {
    let mut text = match result {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => result.to_string(),
    };
    let whole = text.len();
    if whole > RESULT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(RESULT_BYTES_MAX));
        text += &format!("\n[cut: {whole} bytes in all]");
    }
    text
}
