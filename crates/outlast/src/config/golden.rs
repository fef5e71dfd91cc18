//! `[golden.NAME]`: what every target of a route is asked again and again, to see its quality.

use super::{
    contracts::{self, Around},
    file::File,
    promises::GoldenFile,
    read::{At, Log, Place},
    routes::suggest,
    schemas,
    words::{InputSetting, RoleChoice},
};
use outlast_model::{
    RouteId,
    policy::{ConfidenceFrom, Contract, Evidence, Keep, Route, RouteTarget, Schema, StreamContract, TargetSpec},
};
use outlast_wire::contract::Gates;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// How often a target is asked where nothing else is said.
const EVERY: Duration = Duration::from_secs(15 * 60);
/// More often would be traffic of its own.
const EVERY_MIN: Duration = Duration::from_secs(60);

/// An input with checkable properties. DESIGN section 9.
#[derive(Clone, Debug)]
pub struct GoldenTask {
    /// Its name.
    pub name: Arc<str>,
    /// Whose targets are asked, each in turn.
    pub route: RouteId,
    /// How often each of them is.
    pub every: Duration,
    /// The request, as an openai-chat body in JSON. Its `model` is the route.
    pub body: Arc<str>,
    /// What the reply has to keep: what the route's contract checks, and the task's own.
    pub gates: Arc<Gates>,
}

impl PartialEq for GoldenTask {
    fn eq(&self, other: &Self) -> bool {
        let GoldenTask { name, route, every, body, gates } = self;
        (name, route, every, body) == (&other.name, &other.route, &other.every, &other.body)
            && gates.contract() == other.gates.contract()
    }
}

/// A task as a file has it. What drills need beyond it is read and left to them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Task {
    #[serde(rename = "name")]
    _name: Option<String>,
    route: Option<String>,
    input: Option<Value>,
    fixtures: Fixtures,
    must_include: Vec<String>,
    must_not: Vec<String>,
    requires_citation: bool,
    schema: Option<Value>,
    #[serde(rename = "max_latency_ms")]
    _max_latency_ms: Option<u64>,
    #[serde(rename = "max_cost_usd")]
    _max_cost_usd: Option<f64>,
    #[serde(rename = "degraded_ok")]
    _degraded_ok: Option<bool>,
    #[serde(rename = "expect")]
    _expect: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Fixtures {
    /// Ids, or objects with an `id`.
    sources: Vec<Value>,
}

/// Judges them all.
pub(super) fn judge(
    file: &File,
    routes: &BTreeMap<RouteId, Arc<Route>>,
    targets: &[TargetSpec],
    around: Around<'_>,
    log: &mut Log,
) -> Vec<GoldenTask> {
    let names: Vec<String> = file.routes.iter().flat_map(|all| all.value.keys().cloned()).collect();
    let mut tasks = Vec::new();
    for (name, At { value: golden, place }) in file.golden.iter().flat_map(|all| &all.value) {
        let every = golden.every.as_ref().map_or(EVERY, |every| every.value.0);
        if let Some(setting) = golden.every.as_ref().filter(|_| every < EVERY_MIN) {
            log.error(&setting.place, "every target would be asked all the time, and paid for", "Write 1m or more");
        }
        let Some(task) = task(golden, place, around, log) else { continue };
        let route = golden.route.as_ref().map(|route| route.value.clone()).or(task.route.clone());
        let Some(route) = route else {
            if !log.has_error_under(&place.path) {
                log.error(place, "it does not say whose targets are asked", "Add route = \"...\"");
            }
            continue;
        };
        if !names.contains(&route) {
            let place = golden.route.as_ref().map_or(place, |route| &route.place);
            log.error(place, format_args!("there is no route \"{route}\""), suggest(&route, names.iter(), "routes"));
            continue;
        }
        let Some(known) = routes.get(route.as_str()) else { continue };
        let probed = |entry: &RouteTarget| targets.iter().any(|spec| spec.id == entry.target && spec.probes);
        if !known.targets.iter().any(probed) {
            let what = format!("it is never asked: no target of route \"{route}\" may be probed");
            log.error(place, what, "Set probes = true on one of them, or remove it");
        }
        let at = golden.schema.as_ref().map_or(place, |schema| &schema.place);
        if let (Some(body), Some(gates)) = (body(&task, known, place, log), gates(name, &task, known, at, log)) {
            tasks.push(GoldenTask { name: name.as_str().into(), route: known.id.clone(), every, body, gates });
        }
    }
    tasks
}

/// The task, from its file or from the config.
fn task(golden: &GoldenFile, place: &Place, around: Around<'_>, log: &mut Log) -> Option<Task> {
    let Some(path) = &golden.file else { return written(golden, place, around, log) };
    let here = [
        golden.input.as_ref().map(|at| &at.place),
        golden.fixtures.as_ref().map(|at| &at.place),
        golden.must_include.as_ref().map(|at| &at.place),
        golden.must_not.as_ref().map(|at| &at.place),
        golden.schema.as_ref().map(|at| &at.place),
        golden.requires_citation.as_ref().map(|at| &at.place),
    ];
    for place in here.into_iter().flatten() {
        log.error(place, "`file` says it as well", "Keep one of the two");
    }
    let read = schemas::json_file(&path.value, around);
    match read.and_then(|json| serde_json::from_value(json).map_err(|why| format!("is no golden task: {why}"))) {
        Ok(task) => Some(task),
        Err(why) => {
            let remedy = "Paths are relative to the config file; docs/config.md has the task's form";
            log.error(&path.place, format_args!("\"{}\" {why}", path.value), remedy);
            None
        }
    }
}

fn written(golden: &GoldenFile, place: &Place, around: Around<'_>, log: &mut Log) -> Option<Task> {
    let input = match golden.input.as_ref().map(|input| &input.value) {
        None => None,
        Some(InputSetting::Text(text)) => Some(json!(text)),
        Some(InputSetting::Messages(messages)) => Some(messages.iter().filter_map(|at| message(at, log)).collect()),
    };
    if input.is_none() && !log.has_error_under(&place.path) {
        log.error(place, "it asks nothing", "Add input = \"...\", or file = \"evals/failover/NAME.json\"");
    }
    let sources = golden.fixtures.iter().filter_map(|fixtures| fixtures.value.sources.as_ref());
    let texts = |list: Option<Vec<Arc<str>>>| list.unwrap_or_default().iter().map(|text| text.to_string()).collect();
    let schema = match &golden.schema {
        Some(setting) => serde_json::from_str(&schemas::read(setting, around, log)?.json).ok(),
        None => None,
    };
    Some(Task {
        input: Some(input?),
        fixtures: Fixtures {
            sources: sources.flat_map(|list| &list.value).map(|source| json!(source.value)).collect(),
        },
        must_include: texts(contracts::phrases(golden.must_include.as_ref(), log)),
        must_not: texts(contracts::phrases(golden.must_not.as_ref(), log)),
        requires_citation: golden.requires_citation.as_ref().is_some_and(|requires| requires.value),
        schema,
        ..Task::default()
    })
}

fn message(At { value: message, place }: &At<super::promises::MessageFile>, log: &mut Log) -> Option<Value> {
    let (Some(role), Some(content)) = (&message.role, &message.content) else {
        if !log.has_error_under(&place.path) {
            log.error(place, "a message has both `role` and `content`", "Add the missing one");
        }
        return None;
    };
    let role = match role.value {
        RoleChoice::System => "system",
        RoleChoice::User => "user",
        RoleChoice::Assistant => "assistant",
    };
    Some(json!({ "role": role, "content": content.value }))
}

/// The request. It brings the state that the route's contract asks every request for.
fn body(task: &Task, route: &Route, place: &Place, log: &mut Log) -> Option<Arc<str>> {
    let messages = match &task.input {
        Some(Value::String(text)) if !text.trim().is_empty() => json!([{ "role": "user", "content": text }]),
        Some(Value::Array(messages)) if !messages.is_empty() => json!(messages),
        Some(_) | None => {
            if !log.has_error_under(&place.path) {
                log.error(place, "its input is neither a text nor a list of messages", "Correct `input`");
            }
            return None;
        }
    };
    let mut body = json!({ "model": route.id, "messages": messages });
    if !task.fixtures.sources.is_empty() {
        body["outlast"]["sources"] = json!(task.fixtures.sources);
    }
    for keep in &route.contract.keeps {
        let state = match keep {
            Keep::Step => json!("golden"),
            Keep::RetryCount | Keep::BudgetUsed => json!(0),
            Keep::ToolResults => continue,
        };
        body["outlast"]["state"][keep.name()] = state;
    }
    Some(body.to_string().into())
}

/// What the reply has to keep: the route's checks and the task's own. No repair and no judge stand in between, because
/// it is the target that is looked at.
fn gates(name: &str, task: &Task, route: &Route, place: &Place, log: &mut Log) -> Option<Arc<Gates>> {
    let plain = Contract::plain(&format!("golden {name}"), StreamContract::Buffer);
    let confidence = route.contract.confidence.clone().filter(|c| matches!(c.from, ConfidenceFrom::Field(_)));
    let mut contract = Contract {
        checks: route.contract.checks.clone(),
        keeps: route.contract.keeps.clone(),
        permissions: route.contract.permissions.clone(),
        confidence,
        ..plain
    };
    let checks = &mut contract.checks;
    for (list, more) in [(&mut checks.must_include, &task.must_include), (&mut checks.must_not, &task.must_not)] {
        list.extend(more.iter().map(|phrase| Arc::from(phrase.as_str())));
    }
    if let Some(schema) = &task.schema {
        let source = format!("golden {name}").into();
        checks.schema = Some(Arc::new(Schema { source, json: schema.to_string().into() }));
    }
    let cites = !task.fixtures.sources.is_empty();
    if task.requires_citation && !cites {
        log.error(place, "it requires a citation and brings no source", "Add fixtures = { sources = [\"doc-1\"] }");
    } else if cites && !task.requires_citation && checks.evidence.is_none() {
        log.error(place, "its sources never take effect: nothing asks for a citation", "Set requires_citation = true");
    }
    let any = Evidence { sources: "outlast.sources".into(), citations: None, min: 1 };
    checks.evidence = match checks.evidence.take() {
        Some(evidence) => cites.then_some(Evidence { sources: any.sources, ..evidence }),
        None => task.requires_citation.then_some(any),
    };
    match Gates::compile(&Arc::new(contract)) {
        Ok(gates) => Some(Arc::new(gates)),
        Err(bad) => {
            for gate in bad {
                log.error(place, format_args!("its {} cannot be used: {}", gate.setting, gate.why), "Correct it");
            }
            None
        }
    }
}
