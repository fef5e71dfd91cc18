//! `[[workflows.*.steps]]`: each step as it is written. Where it leads and what it may ask for is judged with the whole.

use super::{
    StepTexts, UndoPlan,
    backstops::wanted,
    facts::Reads,
    read::{At, Log, Place, did_you_mean},
    routes, step_routes, tools,
    words::RoleChoice,
    work_file::{StepFile, UndoFile},
    work_words::{Fields, StepChoice},
    workflows::Known,
};
use outlast_model::{
    RouteId, TargetId, ToolName, Usd,
    policy::{Ability, Route, Sla, StepSpec, ToolKind, ToolMode, Undo},
    run::{EffectClass, RetryBudget},
};
use outlast_wire::{Shape, template::Template};
use serde_json::Value;
use std::sync::Arc;

/// The most model calls of an agent where nothing else is said.
const MAX_TURNS: u32 = 20;
/// The most signals one wait listens for.
const SIGNALS_MAX: usize = 16;
/// The longest `risk`, in characters.
const RISK_CHARS_MAX: usize = 500;

/// A step's texts, compiled, and what they read.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) key: Option<Template>,
    pub(super) texts: Option<StepTexts>,
    pub(super) undo: Option<UndoPlan>,
    pub(super) reads: Vec<Reads>,
}

/// Judges one. `None`: it has no kind to be judged by, or names what is not there.
pub(super) fn judge(
    At { value: file, place }: &At<StepFile>,
    known: Known<'_>,
    capped: bool,
    log: &mut Log,
) -> Option<(StepSpec, EffectClass, RetryBudget, Parts)> {
    let remedy = "Add kind = \"model\", \"tool\", \"agent\", \"human\" or \"wait\"";
    let kind = wanted(&file.kind, "kind", remedy, place, log)?;
    belong(file, kind.value, log);
    let mut parts = Parts::default();
    let (spec, class, base) = match kind.value {
        StepChoice::Model => {
            parts.texts = model_texts(file, place, &mut parts.reads, log);
            let route = route(file, place, known, capped, log)?;
            (StepSpec::Model { route }, EffectClass::Pure, RetryBudget::default())
        }
        StepChoice::Tool => {
            let (spec, class, retry) = tool(file, place, known, &mut parts, log)?;
            (spec, class, retry)
        }
        StepChoice::Agent => {
            parts.texts = agent_texts(file, place, &mut parts.reads, log);
            (agent(file, place, known, capped, log)?, EffectClass::Pure, RetryBudget::default())
        }
        StepChoice::Human => {
            parts.texts = human_texts(file, place, &mut parts.reads, log);
            (StepSpec::Human, EffectClass::Pure, RetryBudget::default())
        }
        StepChoice::Wait => {
            parts.texts = Some(StepTexts::Wait);
            (wait(file, place, log), EffectClass::Pure, RetryBudget::default())
        }
    };
    if let Some(undo) = &file.undo {
        parts.undo = undo_texts(undo, known, &mut parts.reads, log);
    }
    let retry = file.retry.as_ref().map_or(base, |retry| tools::retry(retry, base, log));
    Some((spec, class, retry, parts))
}

const fn word(kind: StepChoice) -> &'static str {
    match kind {
        StepChoice::Model => "model",
        StepChoice::Tool => "tool",
        StepChoice::Agent => "agent",
        StepChoice::Human => "human",
        StepChoice::Wait => "wait",
    }
}

/// A setting of one kind says nothing of another.
fn belong(file: &StepFile, kind: StepChoice, log: &mut Log) {
    use StepChoice as K;
    fn at<T>(setting: &Option<At<T>>) -> Option<&Place> {
        setting.as_ref().map(|at| &at.place)
    }
    let settings: [(&str, Option<&Place>, &[K]); 21] = [
        ("route", at(&file.route), &[K::Model, K::Agent]),
        ("contract", at(&file.contract), &[K::Model, K::Agent]),
        ("tier", at(&file.tier), &[K::Model, K::Agent]),
        ("prompt", at(&file.prompt), &[K::Model, K::Agent]),
        ("messages", at(&file.messages), &[K::Model]),
        ("instructions", at(&file.instructions), &[K::Agent]),
        ("tools", at(&file.tools), &[K::Agent]),
        ("max_turns", at(&file.max_turns), &[K::Agent]),
        ("cost_max_usd", at(&file.cost_max_usd), &[K::Agent]),
        ("tool", at(&file.tool), &[K::Tool]),
        ("input", at(&file.input), &[K::Tool]),
        ("key", at(&file.key), &[K::Tool]),
        ("undo", at(&file.undo), &[K::Tool]),
        ("question", at(&file.question), &[K::Human]),
        ("context", at(&file.context), &[K::Human]),
        ("signals", at(&file.signals), &[K::Wait]),
        ("timeout", at(&file.timeout), &[K::Wait]),
        ("for", at(&file.r#for), &[K::Wait]),
        ("retry", at(&file.retry), &[K::Model, K::Tool, K::Agent]),
        ("sla", at(&file.sla), &[K::Model, K::Tool, K::Agent]),
        ("risk", at(&file.risk), &[K::Model, K::Tool, K::Agent, K::Human]),
    ];
    for (name, place, kinds) in settings.into_iter().filter(|(_, _, kinds)| !kinds.contains(&kind)) {
        if let Some(place) = place {
            let kinds = kinds.iter().map(|kind| format!("\"{}\"", word(*kind))).collect::<Vec<_>>().join(" and ");
            let what = format!("it never takes effect: the kind is \"{}\"", word(kind));
            log.error(place, what, format_args!("Remove `{name}`; it belongs to {kinds}"));
        }
    }
}

/// The route of a model or agent: the one it names, or its own over that.
fn route(file: &StepFile, place: &Place, known: Known<'_>, capped: bool, log: &mut Log) -> Option<RouteId> {
    let setting = wanted(&file.route, "route", "Add route = \"...\", of [routes.NAME]", place, log)?;
    let Some(route) = known.route(&setting.value) else {
        let written = known.file.routes.as_ref().is_some_and(|all| all.value.contains_key(&setting.value));
        if !written {
            let names = known.routes.keys().map(|id| id.as_str()).chain(known.direct.keys().map(AsRef::as_ref));
            let remedy = match did_you_mean(&setting.value, names) {
                Some(near) => format!("Did you mean \"{near}\"?"),
                None => format!("Add [routes.{}]", setting.value),
            };
            log.error(&setting.place, format_args!("there is no route \"{}\"", setting.value), remedy);
        }
        return None;
    };
    let route = if step_routes::is_own(file) {
        let name = file.name.as_ref().map_or("", |name| name.value.as_str());
        // One that could not be judged has been told.
        known.route(step_routes::id(&setting.value, known.workflow, name).as_str())?
    } else {
        route
    };
    if let Some(evidence) = &route.contract.checks.evidence {
        let what = format!(
            "contract \"{}\" holds replies to the sources in `{}`, and a step brings none: none would pass",
            route.contract.name, evidence.sources
        );
        log.error(&setting.place, what, "Name a route whose contract has no `evidence`");
    }
    let unpriced = route.targets.iter().map(|target| &target.target).find(|target| !known.is_priced(target));
    if let Some(target) = unpriced.filter(|_| capped || file.cost_max_usd.is_some()) {
        let what = format!(
            "the price of {target} is unknown, so what it answers does not count; [targets.\"{target}\"] may say it"
        );
        log.warn(&setting.place, what);
    }
    Some(route.id.clone())
}

fn model_texts(file: &StepFile, place: &Place, reads: &mut Vec<Reads>, log: &mut Log) -> Option<StepTexts> {
    match (&file.prompt, &file.messages) {
        (Some(prompt), None) => Some(StepTexts::Model(vec![("user", template(prompt, false, reads, log)?)])),
        (None, Some(messages)) => {
            if messages.value.is_empty() && !log.has_error_under(&messages.place.path) {
                log.error(&messages.place, "the list is empty", "Add { role = \"user\", content = \"...\" }");
            }
            let mut texts = Vec::new();
            for At { value: message, place } in &messages.value {
                let role = wanted(&message.role, "role", "Add role = \"user\"", place, log);
                let content = wanted(&message.content, "content", "Add content = \"...\"", place, log);
                let role = match role?.value {
                    RoleChoice::System => "system",
                    RoleChoice::User => "user",
                    RoleChoice::Assistant => "assistant",
                };
                texts.push((role, template(content?, false, reads, log)?));
            }
            Some(StepTexts::Model(texts))
        }
        (Some(_), Some(messages)) => {
            log.error(&messages.place, "`prompt` is there as well", "Keep one of the two");
            None
        }
        (None, None) => {
            if !log.has_error_under(&place.path) {
                log.error(place, "it asks nothing", "Add prompt = \"...\", or `messages`");
            }
            None
        }
    }
}

fn agent_texts(file: &StepFile, place: &Place, reads: &mut Vec<Reads>, log: &mut Log) -> Option<StepTexts> {
    let prompt = wanted(&file.prompt, "prompt", "Add prompt = \"...\": what it is to do", place, log);
    let instructions = match &file.instructions {
        Some(text) => Some(template(text, false, reads, log)?),
        None => None,
    };
    Some(StepTexts::Agent { instructions, prompt: template(prompt?, false, reads, log)? })
}

fn human_texts(file: &StepFile, place: &Place, reads: &mut Vec<Reads>, log: &mut Log) -> Option<StepTexts> {
    let question = wanted(&file.question, "question", "Add question = \"...\"", place, log);
    let context = match &file.context {
        Some(context) => Some(shape(&context.value.0, &context.place, false, reads, log)?),
        None => None,
    };
    Some(StepTexts::Human { question: template(question?, false, reads, log)?, context })
}

fn tool(
    file: &StepFile,
    place: &Place,
    known: Known<'_>,
    parts: &mut Parts,
    log: &mut Log,
) -> Option<(StepSpec, EffectClass, RetryBudget)> {
    let empty = Value::Object(serde_json::Map::new());
    let (input, at) = file.input.as_ref().map_or((&empty, place), |input| (&input.value.0, &input.place));
    parts.texts = shape(input, at, false, &mut parts.reads, log).map(StepTexts::Tool);
    if let Some(key) = &file.key {
        parts.key = template(key, false, &mut parts.reads, log);
    }
    let setting = wanted(&file.tool, "tool", "Add tool = \"...\", of [tools.NAME]", place, log)?;
    tools::known_tool(&setting.value, &setting.place, known.file.tools.as_ref(), log);
    let tool = known.tools.get(setting.value.as_str())?;
    if let Some(key) = file.key.as_ref().filter(|_| !tool.spec.class.is_effect()) {
        let what = format!("it never takes effect: `{}` is \"pure\", and is done again freely", tool.spec.name);
        log.error(&key.place, what, "Remove `key`");
    }
    fixed_arguments(input, at, tool, log);
    let spec = StepSpec::Tool { tool: tool.spec.name.clone(), keyed: file.key.is_some() };
    Some((spec, tool.spec.class, tool.spec.retry))
}

/// Arguments that are the same in every run, and that the tool refuses, would fail on the day they are sent.
fn fixed_arguments(input: &Value, place: &Place, tool: &super::Tool, log: &mut Log) {
    let (Some(schema), Some(fields)) = (&tool.spec.input, input.as_object()) else { return };
    let Ok(json) = serde_json::from_str::<Value>(&schema.json) else { return };
    let required = json.get("required").and_then(Value::as_array);
    let missing = required.into_iter().flatten().filter_map(Value::as_str).find(|name| !fields.contains_key(*name));
    if let Some(name) = missing {
        log.error(place, format_args!("`{}` needs `{name}`", tool.spec.name), format_args!("Add {name} = \"...\""));
    }
    let closed = json.get("additionalProperties") == Some(&Value::Bool(false));
    let open = ["patternProperties", "allOf", "anyOf", "oneOf", "$ref"].iter().any(|word| json.get(word).is_some());
    let properties = json.get("properties").and_then(Value::as_object);
    for name in fields.keys().filter(|_| closed && !open) {
        if !properties.is_some_and(|properties| properties.contains_key(name)) {
            log.error(place, format_args!("`{}` takes no `{name}`", tool.spec.name), "Remove it");
        }
    }
}

fn agent(file: &StepFile, place: &Place, known: Known<'_>, capped: bool, log: &mut Log) -> Option<StepSpec> {
    let route = route(file, place, known, capped, log);
    let list = wanted(&file.tools, "tools", "Add tools = [\"...\"]; without any it is a \"model\"", place, log);
    if let Some(list) = list.filter(|list| list.value.is_empty() && !log.has_error_under(&list.place.path)) {
        log.error(&list.place, "the list is empty", "Add a tool, or use kind = \"model\"");
    }
    let mut names: Vec<ToolName> = Vec::new();
    for At { value: name, place } in list.iter().flat_map(|list| &list.value) {
        tools::known_tool(name, place, known.file.tools.as_ref(), log);
        if names.iter().any(|earlier| earlier.as_str() == name) {
            log.error(place, "it is there twice", "Remove one of the two");
        }
        if let (Some(route), Some(tool)) =
            (route.as_ref().and_then(|id| known.route(id.as_str())), known.tools.get(name.as_str()))
        {
            offered(tool, route, place, log);
        }
        names.push(name.as_str().into());
    }
    if let (Some(route), Some(setting)) = (route.as_ref().and_then(|id| known.route(id.as_str())), &file.route) {
        can_call_tools(route, setting, known, log);
    }
    if let Some(cost) = file.cost_max_usd.as_ref().filter(|cost| cost.value == 0.0) {
        log.error(&cost.place, "nothing could be asked for nothing", "Write a positive amount, or remove it");
    }
    if let Some(turns) = file.max_turns.as_ref().filter(|turns| turns.value > 1000) {
        log.error(&turns.place, "more than 1000 model calls are no step", "Lower it; docs/runs.md shows programs");
    }
    Some(StepSpec::Agent {
        route: route?,
        tools: names,
        max_turns: file.max_turns.as_ref().map_or(MAX_TURNS, |turns| turns.value),
        cost_max: file.cost_max_usd.as_ref().map(|cost| Usd::from_dollars(cost.value)),
    })
}

/// An agent whose models cannot call tools would only ever talk.
fn can_call_tools(route: &Route, setting: &At<String>, known: Known<'_>, log: &mut Log) {
    let cannot =
        |id: &TargetId| known.targets.iter().any(|target| target.id == *id && target.capabilities.tools == Ability::No);
    if !route.targets.is_empty() && route.targets.iter().all(|target| cannot(&target.target)) {
        let what = "none of its targets can call tools";
        log.error(&setting.place, what, "Name a route with a target that can, or use kind = \"model\"");
    }
}

/// A tool that the route's contract withholds would never be called.
fn offered(tool: &super::Tool, route: &Route, place: &Place, log: &mut Log) {
    let (name, contract) = (&tool.spec.name, &route.contract);
    let permitted = contract.permissions.tools.as_ref();
    if permitted.is_some_and(|permitted| !permitted.iter().any(|one| **one == *name.as_str())) {
        let what = format!("contract \"{}\" never offers it: permissions.tools does not name it", contract.name);
        log.error(place, what, "Add it there, or remove it here");
        return;
    }
    let Some(policy) = &contract.tools else { return };
    let listed = policy.read_only.iter().any(|one| **one == *name.as_str());
    let why = match policy.primary {
        ToolMode::Full => None,
        ToolMode::ReadOnly if listed => None,
        ToolMode::ReadOnly => Some("in mode read-only it offers only the tools of `read_only`"),
        ToolMode::PlanOnly => Some("in mode plan-only no tool is called"),
        ToolMode::None => Some("in mode none no tool is offered"),
    };
    if let Some(why) = why {
        let what = format!("contract \"{}\" withholds it: {why}", contract.name);
        log.error(place, what, "Give the route a contract with tools = { primary = \"full\" }");
    }
    if listed && tool.spec.class.is_effect() {
        let what = format!(
            "contract \"{}\" lists it as one that only reads, and its effect is \"{}\"",
            contract.name,
            tool.spec.class.name()
        );
        log.error(place, what, "Remove it from `read_only`");
    }
    if tool.spec.input.is_none() && !matches!(tool.spec.kind, ToolKind::Mcp { .. }) {
        log.warn(place, format_args!("`{name}` has no `input` schema, so a model is not told what it takes"));
    }
}

fn wait(file: &StepFile, place: &Place, log: &mut Log) -> StepSpec {
    let signals: Vec<Arc<str>> =
        file.signals.iter().flat_map(|list| &list.value).map(|name| name.value.as_str().into()).collect();
    if let Some(list) = file.signals.as_ref().filter(|list| list.value.is_empty()) {
        log.error(&list.place, "the list is empty", "Add a signal's name, or use `for`");
    }
    if let Some(beyond) = file.signals.as_ref().and_then(|list| list.value.get(SIGNALS_MAX)) {
        log.error(&beyond.place, format_args!("a wait is for {SIGNALS_MAX} signals at most"), "Use fewer");
    }
    for At { value: name, place } in file.signals.iter().flat_map(|list| &list.value) {
        if name.len() > 128 || name.chars().any(char::is_control) {
            log.error(place, "a signal's name has at most 128 characters", "Shorten it");
        }
    }
    match (&file.signals, &file.timeout, &file.r#for) {
        (Some(_), _, Some(time)) => {
            let what = "with `signals` the longest wait is `timeout`";
            log.error(&time.place, what, "Write `timeout`, or remove `signals`");
        }
        (None, Some(timeout), _) => {
            let what = "it never takes effect: there are no `signals` to wait for";
            log.error(&timeout.place, what, "Write `for`, or add `signals`");
        }
        (None, None, None) if !log.has_error_under(&place.path) => {
            log.error(place, "it waits for nothing", "Add signals = [\"paid\"] or for = \"10m\"");
        }
        (Some(_) | None, Some(_) | None, Some(_) | None) => {}
    }
    let timer = if file.signals.is_some() { tools::span(&file.timeout) } else { tools::span(&file.r#for) };
    StepSpec::Wait { signals, timer }
}

/// What undoes a step, for the spec.
pub(super) fn undo(file: &StepFile, class: EffectClass, log: &mut Log) -> Option<Undo> {
    let At { value: undo, place } = file.undo.as_ref()?;
    let tool = undo.tool.as_ref()?;
    if !class.is_effect() && !log.has_error_under(&place.path) {
        log.error(place, "it never takes effect: the step is \"pure\" and leaves nothing to undo", "Remove it");
    }
    Some(Undo { tool: tool.value.as_str().into(), keyed: undo.key.is_some() })
}

fn undo_texts(
    At { value: file, place }: &At<UndoFile>,
    known: Known<'_>,
    reads: &mut Vec<Reads>,
    log: &mut Log,
) -> Option<UndoPlan> {
    let setting = wanted(&file.tool, "tool", "Add tool = \"...\", of [tools.NAME]", place, log)?;
    tools::known_tool(&setting.value, &setting.place, known.file.tools.as_ref(), log);
    let empty = Value::Object(serde_json::Map::new());
    let (input, at) = file.input.as_ref().map_or((&empty, place), |at| {
        let Fields(input) = &at.value;
        (input, &at.place)
    });
    let input = shape(input, at, true, reads, log);
    let key = match &file.key {
        Some(key) => Some(template(key, true, reads, log)?),
        None => None,
    };
    if let Some(tool) = known.tools.get(setting.value.as_str()).filter(|tool| !tool.spec.class.is_effect()) {
        let what = format!("`{}` is \"pure\": it changes nothing, so it undoes nothing", tool.spec.name);
        log.error(&setting.place, what, "Name a tool with an effect");
    }
    Some(UndoPlan { input: input?, key })
}

/// Compiles a template; what it reads is judged with the whole workflow.
fn template(setting: &At<String>, after: bool, reads: &mut Vec<Reads>, log: &mut Log) -> Option<Template> {
    match Template::compile(&setting.value) {
        Ok(template) => {
            reads.push(Reads::of(template.names(), &setting.value, &setting.place, after));
            Some(template)
        }
        Err(why) => {
            log.error(&setting.place, format_args!("it is no usable template: {why}"), "Correct it");
            None
        }
    }
}

fn shape(json: &Value, place: &Place, after: bool, reads: &mut Vec<Reads>, log: &mut Log) -> Option<Shape> {
    match Shape::compile(json) {
        Ok(shape) => {
            reads.push(Reads::of(shape.names(), &json.to_string(), place, after));
            Some(shape)
        }
        Err(bad) => {
            super::hooks::told_bad(&bad, place, log);
            None
        }
    }
}

/// What a wrong or missing result costs.
pub(super) fn risk(file: &StepFile, log: &mut Log) -> Option<Arc<str>> {
    let At { value, place } = file.risk.as_ref()?;
    if value.chars().count() > RISK_CHARS_MAX {
        let what = format!("it is longer than {RISK_CHARS_MAX} characters");
        log.error(place, what, "Say in a sentence what a wrong or missing result costs");
    }
    Some(value.trim().into())
}

/// What is promised for it.
pub(super) fn sla(file: &StepFile, log: &mut Log) -> Option<Sla> {
    file.sla.as_ref().map(|sla| routes::judge_sla(sla, log))
}
