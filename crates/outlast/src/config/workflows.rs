//! `[workflows.*]`: what the server runs by itself. Every step is reached, every run ends, and every text finds what it
//! asks for.

use super::{
    StepPlan, Tool, WorkflowPlan,
    contracts::Around,
    facts::{Facts, Reads},
    file::File,
    flow::{Flow, Node},
    hooks,
    read::{At, Log, Named, Place, did_you_mean},
    steps, tools,
    work_file::{BranchFile, StepFile, WorkflowFile},
    work_words::WorkflowSection,
};
use outlast_model::{
    RouteId, StepName, TargetId, ToolName, Usd, WorkflowName,
    policy::{Branch, Goto, Route, Schema, StepSpec, TargetSpec, Workflow, WorkflowStep},
    run::EffectClass,
};
use outlast_wire::{Shape, contract::Gates, template::Expression};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};

/// The most steps of a workflow: beyond, it is a program.
const STEPS_MAX: usize = 256;
/// How often a run may come to a step at most: its journal is read whole.
const VISITS_MAX: u32 = 10_000;

/// What a workflow's steps may name.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    /// Which workflow.
    pub(super) workflow: &'a str,
    pub(super) file: &'a File,
    pub(super) tools: &'a BTreeMap<ToolName, Arc<Tool>>,
    pub(super) routes: &'a BTreeMap<RouteId, Arc<Route>>,
    pub(super) direct: &'a BTreeMap<Box<str>, Arc<Route>>,
    pub(super) gates: &'a BTreeMap<RouteId, Arc<Gates>>,
    pub(super) targets: &'a [TargetSpec],
}

impl Known<'_> {
    /// The route of that name, or the route of one target.
    pub(super) fn route(&self, name: &str) -> Option<&Arc<Route>> {
        self.routes
            .iter()
            .find_map(|(id, route)| (id.as_str() == name).then_some(route))
            .or_else(|| self.direct.get(name))
    }

    /// Whether a route's replies are JSON.
    pub(super) fn gives_json(&self, route: &Route) -> bool {
        self.gates.get(&route.id).is_some_and(|gates| gates.wants_json())
    }

    /// Whether a target's price is known.
    pub(super) fn is_priced(&self, id: &TargetId) -> bool {
        self.targets.iter().any(|target| target.id == *id && target.price.is_some())
    }
}

/// Judges them all.
pub(super) fn judge(
    file: Option<&At<Named<WorkflowSection>>>,
    known: Known<'_>,
    around: Around<'_>,
    log: &mut Log,
) -> BTreeMap<WorkflowName, Arc<WorkflowPlan>> {
    let mut plans = BTreeMap::new();
    for (name, At { value: section, place }) in file.iter().flat_map(|all| &all.value) {
        let known = Known { workflow: name, ..known };
        if let Some(plan) = judge_one(name, section, place, known, around, log) {
            plans.insert(plan.spec.name.clone(), Arc::new(plan));
        }
    }
    plans
}

fn judge_one(
    name: &str,
    section: &WorkflowSection,
    place: &Place,
    known: Known<'_>,
    around: Around<'_>,
    log: &mut Log,
) -> Option<WorkflowPlan> {
    let file = &section.file;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
        log.error(place, "a workflow's name has 1 to 64 letters, digits, `.`, `_` and `-`", "Rename it");
    }
    let version = version(file, place, log);
    let input = tools::schema(file.input.as_ref(), around, log);
    let cost_max = file.cost_max_usd.as_ref().map(|cost| {
        if cost.value == 0.0 {
            log.error(&cost.place, "nothing could be done for nothing", "Write a positive amount, or remove it");
        }
        Usd::from_dollars(cost.value)
    });
    let written = written_steps(file, place, log)?;
    let names: Vec<&str> =
        written.iter().map(|step| step.value.name.as_ref().map_or("", |name| name.value.as_str())).collect();
    let mut specs = Vec::new();
    let mut parts = Vec::new();
    let before = log.has_error_under(&place.path);
    for step in written {
        let branches = branches(&step.value, &names, log);
        if let Some((spec, class, retry, texts)) = steps::judge(step, known, cost_max.is_some(), log) {
            specs.push(spec_of(step, spec, class, retry, branches, log));
            parts.push(texts);
        }
    }
    if specs.len() != written.len() {
        return None;
    }
    let nodes = specs.iter().map(|step| Node { next: &step.next, conditional: step.when.is_some() });
    let flow = Flow::of(&nodes.collect::<Vec<_>>());
    if !before {
        goes_through(&flow, written, place, log);
    }
    bound_loops(&flow, written, &mut specs, log);
    let schema = input.as_ref().map(|(schema, _)| Arc::clone(schema));
    let facts = Facts { flow: &flow, names: &names, written, specs: &specs, input: schema.as_deref(), known };
    let plans: Vec<Option<StepPlan>> =
        parts.into_iter().enumerate().map(|(at, texts)| plan(at, texts, &facts, log)).collect();
    let output = output(file, &facts, log);
    let spec = Workflow {
        name: WorkflowName::from(name),
        version: version?,
        hash: hash(section.written.as_ref()?, schema.as_deref()),
        input: schema,
        deadline: tools::span(&file.deadline),
        cost_max,
        has_output: output.is_some(),
        steps: specs,
    };
    let steps = plans.into_iter().collect::<Option<Vec<_>>>()?;
    Some(WorkflowPlan { spec: Arc::new(spec), input: input.map(|(_, compiled)| compiled), steps, output })
}

fn version(file: &WorkflowFile, place: &Place, log: &mut Log) -> Option<Arc<str>> {
    let Some(setting) = &file.version else {
        if !log.has_error_under(&format!("{}.version", place.path)) {
            let what = "it has no `version`: a run keeps the one it was started with";
            log.error(place, what, "Add version = \"1\", and another one with each change");
        }
        return None;
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    if setting.value.len() > 64 || !setting.value.chars().all(fits) {
        let what = "a version has 1 to 64 letters, digits, `.`, `_`, `-` and `+`";
        log.error(&setting.place, what, "Write one like \"1\" or \"2026-11-21\"");
    }
    Some(setting.value.as_str().into())
}

fn written_steps<'f>(file: &'f WorkflowFile, place: &Place, log: &mut Log) -> Option<&'f [At<StepFile>]> {
    let Some(steps) = file.steps.as_ref().filter(|steps| !steps.value.is_empty()) else {
        if !log.has_error_under(&format!("{}.steps", place.path)) {
            log.error(place, "it has no step", format_args!("Add [[{}.steps]]", place.path));
        }
        return None;
    };
    if let Some(beyond) = steps.value.get(STEPS_MAX) {
        let what = format!("a workflow has at most {STEPS_MAX} steps");
        log.error(&beyond.place, what, "Write it as a program; docs/runs.md shows how");
    }
    let mut seen: Vec<&str> = Vec::new();
    for At { value: step, place } in &steps.value {
        let Some(name) = &step.name else {
            if !log.has_error_under(&place.path) {
                log.error(place, "it has no `name`", "Add name = \"...\": the journal names it");
            }
            continue;
        };
        step_name(name, log);
        if seen.contains(&name.value.as_str()) {
            log.error(&name.place, format_args!("there is another step \"{}\"", name.value), "Rename one of the two");
        }
        seen.push(&name.value);
    }
    Some(&steps.value)
}

/// Expressions say `steps.NAME`, so it has to be a name in them, too.
fn step_name(name: &At<String>, log: &mut Log) {
    let text = &name.value;
    let word =
        text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !text.starts_with(|c: char| c.is_ascii_digit());
    if text.len() > 64 || !word {
        let what = "a step's name has 1 to 64 letters, digits and `_`, and begins with no digit: templates name it";
        log.error(&name.place, what, "Rename it");
    }
    if ["end", "fail"].contains(&text.as_str()) {
        log.error(&name.place, format_args!("\"{text}\" says how a run ends"), "Rename it");
    }
}

fn branches(step: &StepFile, names: &[&str], log: &mut Log) -> Vec<Branch> {
    let Some(list) = &step.next else { return Vec::new() };
    if list.value.is_empty() && !log.has_error_under(&list.place.path) {
        log.error(&list.place, "the list is empty", "Add { to = \"end\" }, or remove it");
    }
    let mut branches: Vec<Branch> = Vec::new();
    let mut always: Option<&Place> = None;
    for At { value: BranchFile { when, to }, place } in &list.value {
        if let Some(earlier) = always {
            let what = format!("it is never taken: {} is taken always", earlier.path);
            log.error(place, what, "Move it before that one, or remove it");
        }
        if when.is_none() {
            always = Some(place);
        }
        let Some(to) = to else {
            if !log.has_error_under(&place.path) {
                log.error(place, "it does not say where it leads", "Add to = a step's name, \"end\" or \"fail\"");
            }
            continue;
        };
        let goto = match to.value.as_str() {
            "end" => Goto::End,
            "fail" => Goto::Fail,
            name => match names.iter().position(|known| *known == name) {
                Some(at) => Goto::Step(at),
                None => {
                    let remedy = match did_you_mean(name, names.iter().copied().chain(["end", "fail"])) {
                        Some(near) => format!("Did you mean \"{near}\"?"),
                        None => format!("The steps are {}", names.join(", ")),
                    };
                    log.error(&to.place, format_args!("there is no step \"{name}\""), remedy);
                    continue;
                }
            },
        };
        branches.push(Branch { when: when.as_ref().map(|when| when.value.trim().into()), to: goto });
    }
    branches
}

fn spec_of(
    At { value: file, place: _ }: &At<StepFile>,
    spec: StepSpec,
    class: EffectClass,
    retry: outlast_model::run::RetryBudget,
    next: Vec<Branch>,
    log: &mut Log,
) -> WorkflowStep {
    WorkflowStep {
        name: StepName::from(file.name.as_ref().map_or("", |name| name.value.as_str())),
        undo: steps::undo(file, class, log),
        risk: steps::risk(file, log),
        sla: steps::sla(file, log),
        when: file.when.as_ref().map(|when| when.value.trim().into()),
        max_visits: 1,
        spec,
        next,
        class,
        retry,
    }
}

/// Every step is reached, and a run can end well.
fn goes_through(flow: &Flow, written: &[At<StepFile>], place: &Place, log: &mut Log) {
    for (at, step) in written.iter().enumerate().filter(|(at, _)| !flow.is_reached(*at)) {
        let name = step.value.name.as_ref().map_or("", |name| name.value.as_str());
        let before = &written[at - 1].value.name.as_ref().map_or("", |name| name.value.as_str());
        let what = format!("no run comes to it: \"{before}\" always leads elsewhere, and no branch leads here");
        log.error(&step.place, what, format_args!("Add {{ to = \"{name}\" }} to a step's `next`, or remove it"));
    }
    if !flow.ends() {
        log.error(
            place,
            "no run of it can end well: every way fails or goes round",
            "Add { to = \"end\" } to a `next`",
        );
    }
}

/// Loops end because a step in each of them is come to so often and no more.
fn bound_loops(flow: &Flow, written: &[At<StepFile>], specs: &mut [WorkflowStep], log: &mut Log) {
    let declared: Vec<Option<u32>> =
        written.iter().map(|step| step.value.max_visits.as_ref().map(|max| max.value)).collect();
    let bounded = |step: usize| declared.get(step).is_some_and(Option::is_some);
    let mut told: Vec<usize> = Vec::new();
    for (at, step) in written.iter().enumerate() {
        if let Some(max) = &step.value.max_visits {
            if !flow.is_in_loop(at) {
                let what = "it never takes effect: no run comes to this step twice";
                log.error(&max.place, what, "Remove it");
            } else if max.value > VISITS_MAX {
                let what = format!("a run may come to a step {VISITS_MAX} times at most");
                log.error(&max.place, what, "Write it as a program; docs/runs.md shows how");
            }
        }
        if flow.is_in_endless_loop(at, &bounded) && !told.contains(&at) {
            let around: Vec<usize> = flow.loop_of(at);
            let names: Vec<&str> = around.iter().map(|step| specs[*step].name.as_str()).collect();
            let what = format!("a run may go round {} for ever", names.join(" -> "));
            log.error(&step.place, what, "Add max_visits = 10 to one of them: a run that comes to it once more fails");
            told.extend(around);
        }
    }
    for (at, spec) in specs.iter_mut().enumerate() {
        spec.max_visits = match declared[at] {
            Some(max) => max,
            None if flow.is_in_loop(at) => {
                // Between two visits a run goes round, and so through a step whose visits are counted.
                let rounds = flow.loop_of(at).into_iter().filter_map(|step| declared[step]);
                rounds.fold(1, u32::saturating_add)
            }
            None => 1,
        };
    }
}

/// A step's texts, with all that they name looked up.
fn plan(at: usize, parts: steps::Parts, facts: &Facts<'_>, log: &mut Log) -> Option<StepPlan> {
    let file = &facts.written[at].value;
    let before = log.has_error_under(&facts.written[at].place.path);
    let when = file.when.as_ref().map(|when| condition(when, at, false, facts, log));
    let branches = file
        .next
        .iter()
        .flat_map(|next| &next.value)
        .map(|branch| branch.value.when.as_ref().map(|when| condition(when, at, true, facts, log)));
    let branches: Vec<Option<Option<Expression>>> = branches.collect();
    for reads in &parts.reads {
        facts.judge(reads, at, log);
    }
    if before {
        return None;
    }
    let when = match when {
        Some(when) => Some(when?),
        None => None,
    };
    let branches = branches.into_iter().map(|branch| match branch {
        Some(compiled) => compiled.map(Some),
        None => Some(None),
    });
    let branches = branches.collect::<Option<Vec<_>>>()?;
    Some(StepPlan { when, branches, key: parts.key, texts: parts.texts?, undo: parts.undo })
}

fn condition(when: &At<String>, at: usize, after: bool, facts: &Facts<'_>, log: &mut Log) -> Option<Expression> {
    match Expression::compile(&when.value) {
        Ok(expression) => {
            facts.judge(&Reads::of(expression.names(), &when.value, &when.place, after), at, log);
            Some(expression)
        }
        Err(why) => {
            log.error(&when.place, format_args!("it is no usable expression: {why}"), "Correct it");
            None
        }
    }
}

fn output(file: &WorkflowFile, facts: &Facts<'_>, log: &mut Log) -> Option<Shape> {
    let setting = file.output.as_ref()?;
    match Shape::compile(&setting.value.0) {
        Ok(shape) => {
            let source = setting.value.0.to_string();
            facts.judge_output(&Reads::of(shape.names(), &source, &setting.place, true), log);
            Some(shape)
        }
        Err(bad) => {
            hooks::told_bad(&bad, &setting.place, log);
            None
        }
    }
}

/// What a workflow does, whatever it is called and whatever the order of its keys.
fn hash(written: &Value, input: Option<&Schema>) -> [u8; 32] {
    let mut text = String::new();
    canonical(written, &mut text);
    let mut hasher = blake3::Hasher::new();
    hasher.update(text.as_bytes());
    if let Some(schema) = input.and_then(|schema| serde_json::from_str::<Value>(&schema.json).ok()) {
        let mut text = String::new();
        canonical(&schema, &mut text);
        hasher.update(text.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort_unstable();
            out.push('{');
            for name in names {
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                canonical(&fields[name], out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => out.push_str(&value.to_string()),
    }
}
