//! A workflow drawn: its steps in order, where each one leads, where it may wait for a person, what is undone, and what
//! a run may take at worst.

use super::{permits, price, promise, tool};
use crate::{
    cli::check::count,
    config::{Config, WorkflowPlan, show_duration},
};
use outlast_model::{
    Usd,
    policy::{Branch, Goto, Route, StepSpec, ToolSpec, WorkflowStep},
    run::{EffectClass, Exhausted},
};
use serde_json::{Value, json};
use std::{fmt::Write, time::Duration};

const BOLD: anstyle::Style = anstyle::Style::new().bold();
const DIM: anstyle::Style = anstyle::Style::new().dimmed();
const CYAN: anstyle::Style = anstyle::AnsiColor::Cyan.on_default();
const YELLOW: anstyle::Style = anstyle::AnsiColor::Yellow.on_default();

/// A workflow with everything that decides about its runs.
pub struct WorkflowExplanation<'c> {
    config: &'c Config,
    plan: &'c WorkflowPlan,
}

/// What a step, or a run, may come to. A figure is absent where nothing bounds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Worst {
    attempts: u64,
    cost: Option<Usd>,
    time: Option<Duration>,
}

impl<'c> WorkflowExplanation<'c> {
    /// Explains the workflow of that name; `None` when there is none.
    pub fn of(config: &'c Config, name: &str) -> Option<Self> {
        Some(WorkflowExplanation { config, plan: config.workflow(name)? })
    }

    /// For people, with the codes of a terminal's colours; whoever prints it takes them out where no terminal is.
    pub fn text(&self) -> String {
        let spec = &self.plan.spec;
        let mut text = format!("{BOLD}Workflow {}{BOLD:#}, version {}\n", spec.name, spec.version);
        let input = spec.input.as_ref().map_or("anything".to_owned(), |schema| format!("what keeps {}", schema.source));
        let output = if spec.has_output { "what `output` makes of it" } else { "the result of the last step" };
        let _ = writeln!(text, "  takes {input}; gives {output}");
        let _ = writeln!(text, "  {}\n", self.limits());
        let widest = spec.steps.iter().map(|step| step.name.as_str().len()).max().unwrap_or_default();
        for (at, step) in spec.steps.iter().enumerate() {
            self.draw(at, step, widest, &mut text);
        }
        self.list("Where it may wait for a person", self.parks(), &mut text);
        self.list("What is undone when a later step fails", self.undone(), &mut text);
        self.list("At worst, if every step is done", self.at_worst(), &mut text);
        text
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let spec = &self.plan.spec;
        let steps = spec.steps.iter().enumerate().map(|(at, step)| {
            let worst = self.worst_of(step);
            json!({
                "name": step.name,
                "kind": step.spec.name(),
                "does": self.does(step),
                "effect": step.class,
                "when": step.when,
                "says": self.says(step),
                "next": self.ways(at, step).into_iter()
                    .map(|(to, when)| json!({ "to": to, "when": when })).collect::<Vec<_>>(),
                "max_visits": step.max_visits,
                "risk": step.risk,
                "retry": step.retry,
                "undo": step.undo.as_ref().map(|undo| &undo.tool),
                "worst": worst_json(worst),
            })
        });
        json!({
            "workflow": spec.name,
            "version": spec.version,
            "hash": spec.hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
            "input": spec.input.as_ref().map(|schema| &schema.source),
            "deadline_ms": spec.deadline.map(millis),
            "cost_max_usd": spec.cost_max.map(Usd::as_dollars),
            "steps": steps.collect::<Vec<_>>(),
            "parks": self.parks().into_iter().map(|(step, why)| json!({ "step": step, "why": why })).collect::<Vec<_>>(),
            "undone": self.undone().into_iter().map(|(step, how)| json!({ "step": step, "how": how })).collect::<Vec<_>>(),
            "worst": worst_json(self.worst()),
        })
    }

    fn limits(&self) -> String {
        let spec = &self.plan.spec;
        let deadline = match spec.deadline {
            Some(deadline) => format!("nothing begins later than {} after the start", show_duration(deadline)),
            None => "it may take as long as it takes".to_owned(),
        };
        let cost = match spec.cost_max {
            Some(cost) => format!("or once ${cost} is spent"),
            None => "whatever it costs".to_owned(),
        };
        format!("{deadline}, {cost}")
    }

    fn draw(&self, at: usize, step: &WorkflowStep, widest: usize, text: &mut String) {
        let number = at + 1;
        let name = step.name.as_str();
        let _ = writeln!(text, "{number:>3} {CYAN}{name:<widest$}{CYAN:#}  {BOLD}{}{BOLD:#}", self.does(step));
        let indent = " ".repeat(widest + 6);
        for says in self.says(step) {
            let _ = writeln!(text, "{indent}{DIM}{says}{DIM:#}");
        }
        let ways = self.ways(at, step);
        let plain = ways.len() == 1 && ways[0].1.is_none();
        for (to, when) in ways {
            let on = to == self.following(at);
            match when {
                _ if plain && on && at + 1 < self.plan.spec.steps.len() => {
                    let _ = writeln!(text, "{indent}|");
                }
                Some(when) => {
                    let _ = writeln!(text, "{indent}-> {CYAN}{to}{CYAN:#} {when}");
                }
                None => {
                    let _ = writeln!(text, "{indent}-> {CYAN}{to}{CYAN:#}");
                }
            }
        }
    }

    /// Where a step leads, and when.
    fn ways(&self, at: usize, step: &WorkflowStep) -> Vec<(String, Option<String>)> {
        let name = |branch: &Branch| match branch.to {
            Goto::Step(to) => self.plan.spec.steps[to].name.to_string(),
            Goto::End => "end".to_owned(),
            Goto::Fail => "fail".to_owned(),
        };
        let mut ways: Vec<(String, Option<String>)> = Vec::new();
        for branch in &step.next {
            let otherwise = if ways.is_empty() { None } else { Some("otherwise".to_owned()) };
            ways.push((name(branch), branch.when.as_ref().map(|when| format!("if {when}")).or(otherwise)));
        }
        if step.next.last().is_none_or(|last| last.when.is_some()) {
            let otherwise = if ways.is_empty() { None } else { Some("otherwise".to_owned()) };
            ways.push((self.following(at), otherwise));
        }
        if step.when.is_some() && !ways.iter().any(|(to, _)| *to == self.following(at)) {
            ways.push((self.following(at), Some("if it is skipped".to_owned())));
        }
        ways
    }

    fn following(&self, at: usize) -> String {
        self.plan.spec.steps.get(at + 1).map_or("end".to_owned(), |next| next.name.to_string())
    }

    /// What a step does, in a few words.
    fn does(&self, step: &WorkflowStep) -> String {
        match &step.spec {
            StepSpec::Model { route } => format!("asks route {route}"),
            StepSpec::Tool { tool, .. } => format!("calls {tool}, {}", step.class.name()),
            StepSpec::Agent { route, tools, .. } => {
                let names: Vec<&str> = tools.iter().map(|name| name.as_str()).collect();
                format!("lets route {route} call {}", names.join(", "))
            }
            StepSpec::Human => "asks a person".to_owned(),
            StepSpec::Wait { signals, timer } => {
                let names = signals.iter().map(|name| &**name).collect::<Vec<_>>().join(" or ");
                match (signals.is_empty(), timer) {
                    (true, Some(time)) => format!("waits {}", show_duration(*time)),
                    (true, None) => "waits".to_owned(),
                    (false, Some(time)) => format!("waits for {names}, {} at most", show_duration(*time)),
                    (false, None) => format!("waits for {names}"),
                }
            }
        }
    }

    /// What else there is to say of a step.
    fn says(&self, step: &WorkflowStep) -> Vec<String> {
        let mut says = Vec::new();
        if let Some(when) = &step.when {
            says.push(format!("only if {when}"));
        }
        if step.max_visits > 1 {
            says.push(format!("a run comes to it {} times at most, then it fails", step.max_visits));
        }
        match &step.spec {
            StepSpec::Model { route } => self.says_route(route.as_str(), &mut says),
            StepSpec::Agent { route, tools, max_turns, cost_max } => {
                self.says_route(route.as_str(), &mut says);
                let cost = cost_max.map(|cost| format!(", ${cost}")).unwrap_or_default();
                says.push(format!("at most {}{cost}", count(*max_turns as usize, "model call")));
                for name in tools {
                    if let Some(tool) = self.config.tool_spec(name) {
                        says.push(format!("{name}, {}", tool.class.name()));
                    }
                }
            }
            StepSpec::Tool { tool, keyed } => self.says_tool(tool.as_str(), *keyed, step, &mut says),
            StepSpec::Human | StepSpec::Wait { .. } => {}
        }
        let risk = step.risk.as_ref().map(|risk| format!("risk: {risk}"));
        let sla = step.sla.and_then(promise::sla).map(|sla| format!("promised: {sla}"));
        let undo = step.undo.as_ref().map(|undo| format!("undone by {}", undo.tool));
        says.extend([risk, sla, undo].into_iter().flatten());
        says
    }

    fn says_route(&self, route: &str, says: &mut Vec<String>) {
        let Some(route) = self.config.route(route) else { return };
        let tier = &route.tier;
        let attempts = count(tier.attempts.into(), "attempt");
        let cost = self.call_cost(route).map_or("an unknown sum".to_owned(), |cost| format!("${cost}"));
        says.push(format!("contract {}", route.contract.name));
        let deadline = show_duration(tier.deadline);
        says.push(format!("tier {}: {attempts} within {deadline}, {cost} at most", tier.name));
    }

    fn says_tool(&self, name: &str, keyed: bool, step: &WorkflowStep, says: &mut Vec<String>) {
        let Some(tool) = self.config.tool(name) else { return };
        let spec = &tool.spec;
        says.push(tool::reached(tool));
        says.push(format!("{}, then {}", tool::budget(&step.retry, spec.timeout), tool::end(&step.retry)));
        if keyed {
            says.push("its business key holds across runs: the same key is done once".to_owned());
        }
        says.extend(tool::approval(&spec.approval));
        if spec.class.is_effect() {
            says.push(format!("if nobody knows whether it happened: {}", tool::unknown(spec)));
        }
        if !spec.alternatives.is_empty() {
            let names: Vec<&str> = spec.alternatives.iter().map(|name| name.as_str()).collect();
            says.push(format!("once it surely did not happen: {}", names.join(", ")));
        }
    }

    /// Where a run may wait for a person, and why.
    fn parks(&self) -> Vec<(String, String)> {
        let mut parks = Vec::new();
        for step in &self.plan.spec.steps {
            let mut why: Vec<String> = Vec::new();
            match &step.spec {
                StepSpec::Human => why.push("a person is asked".to_owned()),
                StepSpec::Tool { tool, .. } => {
                    why.extend(self.config.tool_spec(tool).map(|tool| waits(tool)).unwrap_or_default());
                }
                StepSpec::Agent { tools, .. } => {
                    for name in tools {
                        let waits = self.config.tool_spec(name).map(|tool| waits(tool)).unwrap_or_default();
                        why.extend(waits.into_iter().map(|why| format!("{name}: {why}")));
                    }
                }
                StepSpec::Model { .. } | StepSpec::Wait { .. } => {}
            }
            let tried = !matches!(step.spec, StepSpec::Human | StepSpec::Wait { .. });
            if tried && step.retry.exhausted == Exhausted::Escalate {
                why.push("every try failed".to_owned());
            }
            if let Some(undo) = &step.undo {
                why.push(format!("{} failed to undo it", undo.tool));
            }
            if !why.is_empty() {
                parks.push((step.name.to_string(), why.join("; ")));
            }
        }
        parks
    }

    /// What becomes of each effect when the run fails or is cancelled later, in the order of undoing.
    fn undone(&self) -> Vec<(String, String)> {
        let effects = self.plan.spec.steps.iter().rev().filter(|step| match &step.spec {
            StepSpec::Tool { .. } => step.class.is_effect(),
            StepSpec::Agent { tools, .. } => {
                tools.iter().any(|name| self.config.tool_spec(name).is_some_and(|tool| tool.class.is_effect()))
            }
            StepSpec::Model { .. } | StepSpec::Human | StepSpec::Wait { .. } => false,
        });
        let effects = effects.map(|step| {
            let how = match &step.undo {
                Some(undo) => format!("{} undoes it", undo.tool),
                None => "stays as it is: it has no `undo`".to_owned(),
            };
            (step.name.to_string(), how)
        });
        effects.collect()
    }

    fn at_worst(&self) -> Vec<(String, String)> {
        let worst = self.worst();
        let spec = &self.plan.spec;
        let capped = spec.cost_max.map(|cap| format!(", and nothing begins once ${cap} is spent")).unwrap_or_default();
        let cost = worst.cost.map_or("unknown, for want of a price".to_owned(), |cost| format!("${cost}"));
        let time = match worst.time {
            Some(time) => round(time),
            None => "as long as a person or a signal takes".to_owned(),
        };
        let deadline = spec
            .deadline
            .map(|end| format!(", and nothing begins later than {}", show_duration(end)))
            .unwrap_or_default();
        vec![
            ("tries".to_owned(), worst.attempts.to_string()),
            ("cost".to_owned(), format!("{cost}{capped}")),
            ("time".to_owned(), format!("{time}{deadline}")),
        ]
    }

    fn worst(&self) -> Worst {
        let none = Worst { attempts: 0, cost: Some(Usd::ZERO), time: Some(Duration::ZERO) };
        self.plan.spec.steps.iter().map(|step| self.worst_of(step)).fold(none, |all, one| Worst {
            attempts: all.attempts.saturating_add(one.attempts),
            cost: all.cost.zip(one.cost).map(|(all, one)| all + one),
            time: all.time.zip(one.time).map(|(all, one)| all.saturating_add(one)),
        })
    }

    /// What one step may come to, with all its visits. Work that waits for a person has no longest time.
    fn worst_of(&self, step: &WorkflowStep) -> Worst {
        let once = match &step.spec {
            StepSpec::Model { route } => self.worst_calls(route.as_str(), step, 1, None),
            StepSpec::Agent { route, max_turns, cost_max, .. } => {
                let mut worst = self.worst_calls(route.as_str(), step, *max_turns, *cost_max);
                // What its tools take is theirs to say, and may be a person's time.
                worst.time = None;
                worst
            }
            StepSpec::Tool { tool, .. } => match self.config.tool_spec(tool) {
                Some(tool) => self.worst_tool(tool, step),
                None => Worst::default(),
            },
            StepSpec::Human => Worst { attempts: 0, cost: Some(Usd::ZERO), time: None },
            StepSpec::Wait { timer, .. } => Worst { attempts: 0, cost: Some(Usd::ZERO), time: *timer },
        };
        let visits = step.max_visits;
        Worst {
            attempts: once.attempts.saturating_mul(visits.into()),
            cost: once.cost.map(|cost| times(cost, visits.into())),
            time: once.time.map(|time| time.saturating_mul(visits)),
        }
    }

    fn worst_calls(&self, route: &str, step: &WorkflowStep, turns: u32, cap: Option<Usd>) -> Worst {
        let Some(route) = self.config.route(route) else { return Worst::default() };
        let calls = u64::from(step.retry.attempts).saturating_mul(turns.into());
        let cost = self.call_cost(route).map(|cost| times(cost, calls));
        let cost = match (cost, cap) {
            (Some(cost), Some(cap)) => Some(cost.min(cap)),
            (cost, cap) => cost.or(cap),
        };
        let time = Some(tool::horizon(&step.retry, route.tier.deadline).saturating_mul(turns));
        Worst { attempts: calls.saturating_mul(route.tier.attempts.into()), cost, time }
    }

    fn worst_tool(&self, tool: &ToolSpec, step: &WorkflowStep) -> Worst {
        let stand_ins = tool.alternatives.iter().filter_map(|name| self.config.tool_spec(name));
        let attempts = stand_ins
            .clone()
            .fold(u64::from(step.retry.attempts), |sum, tool| sum.saturating_add(tool.retry.attempts.into()));
        let waits = stand_ins.clone().any(|tool| tool.approval.may_ask()) || tool.approval.may_ask();
        let time = stand_ins.fold(tool::horizon(&step.retry, tool.timeout), |sum, tool| {
            sum.saturating_add(tool::horizon(&tool.retry, tool.timeout))
        });
        Worst { attempts, cost: Some(Usd::ZERO), time: (!waits).then_some(time) }
    }

    fn call_cost(&self, route: &Route) -> Option<Usd> {
        let targets = route.targets.iter().filter_map(|entry| self.config.target(entry.target.as_str()));
        let permitted: Vec<_> = targets.filter(|spec| permits(route, spec)).collect();
        price::of(self.config, route, &permitted).worst()
    }

    fn list(&self, title: &str, rows: Vec<(String, String)>, text: &mut String) {
        if rows.is_empty() {
            return;
        }
        let widest = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        let _ = writeln!(text, "\n{BOLD}{title}{BOLD:#}");
        for (name, says) in rows {
            let _ = writeln!(text, "  {YELLOW}{name:<widest$}{YELLOW:#}  {says}");
        }
    }
}

/// Why a tool may leave a run to a person.
fn waits(tool: &ToolSpec) -> Vec<String> {
    let unclear = match tool.class {
        EffectClass::Pure | EffectClass::Tx => None,
        EffectClass::Keyed { verify: Some(_), .. } => None,
        EffectClass::Keyed { key_ttl, verify: None } => {
            Some(format!("nobody knows whether it happened, {} later", show_duration(key_ttl)))
        }
        EffectClass::Verify { .. } => Some("the receiver does not say whether it happened".to_owned()),
        EffectClass::Once => Some("nobody knows whether it happened".to_owned()),
    };
    tool::approval(&tool.approval).into_iter().chain(unclear).collect()
}

fn times(cost: Usd, count: u64) -> Usd {
    Usd::from_nanos(cost.as_nanos().saturating_mul(count))
}

/// A bound in words: to the second it would promise too much.
fn round(time: Duration) -> String {
    let seconds = time.as_secs().max(1);
    let seconds = if seconds >= 300 { seconds.div_ceil(60).saturating_mul(60) } else { seconds };
    show_duration(Duration::from_secs(seconds))
}

fn worst_json(worst: Worst) -> Value {
    json!({
        "attempts": worst.attempts,
        "cost_usd": worst.cost.map(Usd::as_dollars),
        "time_ms": worst.time.map(millis),
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
