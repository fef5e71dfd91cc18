//! `outlast explain NAME`: what would happen to a call of a route or tool, or to a run of a workflow, and why. Read from the same config and the same remedy table
//! that the gateway runs on, so it cannot promise anything else.

mod price;
mod promise;
mod tool;
mod workflow;

pub use tool::ToolExplanation;
pub use workflow::WorkflowExplanation;

use super::{
    ConfigArg, Exit,
    check::{count, pretty, trimmed},
    out, process_env,
};
use crate::config::{Config, Provider, show_duration};
use clap::Args;
use comfy_table::{Table, presets};
use outlast_model::{
    Failure, Price,
    failure::{Blame, SameTarget, Then},
    policy::{
        Ability, AfterRepair, BackstopKind, Dialect, Ranking, RefusalPolicy, Route, SafetyPolicy, StreamContract,
        TargetSpec,
    },
};
use outlast_wire::crossing::{Fate, TABLE};
use price::TierPrice;
use serde_json::{Value, json};
use std::{collections::BTreeSet, fmt::Write};

/// Arguments of `explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// A route, `provider/model`, a workflow, or a tool
    pub name: String,
    /// What it is the name of, where it names several things
    #[arg(long, value_enum)]
    pub kind: Option<Kind>,
    /// Where the config is.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What can be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// What a client names as `model`
    Route,
    /// What the server runs by itself
    Workflow,
    /// What `/v1/tools` and workflows call
    Tool,
}

/// Runs the command: [`Exit::Ok`], [`Exit::Config`] when the config has errors, [`Exit::Failed`] when it has nothing of
/// that name.
pub fn run(args: ExplainArgs) -> Exit {
    let config = match args.config.load(&process_env) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return Exit::Config;
        }
    };
    match explained(&config, &args.name, args.kind, args.json) {
        Some(text) => out(&text),
        None => {
            eprintln!(
                "{} has no {} \"{}\". {}",
                config.source,
                what(args.kind),
                args.name,
                nearest(&config, &args.name)
            );
            Exit::Failed
        }
    }
}

/// The first thing of that name: a route, then a workflow, then a tool.
fn explained(config: &Config, name: &str, kind: Option<Kind>, json: bool) -> Option<String> {
    let wanted = |one: Kind| kind.is_none_or(|kind| kind == one);
    if let Some(route) = wanted(Kind::Route).then(|| Explanation::of(config, name)).flatten() {
        return Some(if json { pretty(&route.json()) } else { route.text() });
    }
    if let Some(workflow) = wanted(Kind::Workflow).then(|| WorkflowExplanation::of(config, name)).flatten() {
        return Some(if json { pretty(&workflow.json()) } else { workflow.text() });
    }
    let tool = wanted(Kind::Tool).then(|| ToolExplanation::of(config, name)).flatten()?;
    Some(if json { pretty(&tool.json()) } else { tool.text() })
}

fn what(kind: Option<Kind>) -> &'static str {
    match kind {
        None => "route, workflow or tool",
        Some(Kind::Route) => "route",
        Some(Kind::Workflow) => "workflow",
        Some(Kind::Tool) => "tool",
    }
}

fn nearest(config: &Config, name: &str) -> String {
    if let Some(near) = config.did_you_mean(name) {
        return format!("Did you mean \"{near}\"?");
    }
    let list = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let mut text = format!("Its routes: {}.", list(config.routes.keys().map(|id| id.as_str()).collect()));
    if !config.workflows.is_empty() {
        let names = config.workflows.keys().map(|name| name.as_str()).collect();
        let _ = write!(text, " Its workflows: {}.", list(names));
    }
    if !config.tools.is_empty() {
        let _ = write!(text, " Its tools: {}.", list(config.tools.keys().map(|name| name.as_str()).collect()));
    }
    text
}

/// A route with everything that decides about its calls.
pub struct Explanation<'c> {
    route: &'c Route,
    targets: Vec<(&'c TargetSpec, &'c Provider, u32)>,
    price: TierPrice,
    warnings: Vec<String>,
}

impl<'c> Explanation<'c> {
    /// Explains what `name` leads to; `None` when it leads nowhere.
    pub fn of(config: &'c Config, name: &str) -> Option<Self> {
        let route = config.route(name)?;
        let targets = route.targets.iter().filter_map(|entry| {
            let spec = config.target(entry.target.as_str())?;
            Some((spec, config.provider_of(&entry.target)?.as_ref(), entry.weight))
        });
        let targets: Vec<(&TargetSpec, &Provider, u32)> = targets.collect();
        let permitted: Vec<&TargetSpec> =
            targets.iter().map(|(spec, _, _)| *spec).filter(|spec| permits(route, spec)).collect();
        let price = price::of(config, route, &permitted);
        let mut explanation = Explanation { route, targets, price, warnings: Vec::new() };
        explanation.warnings = explanation.find_warnings();
        Some(explanation)
    }

    /// For people.
    pub fn text(&self) -> String {
        let tier = &self.route.tier;
        let mut text = String::new();
        let _ = writeln!(text, "Route {}", self.route.id);
        if let Some(risk) = &self.route.risk {
            let _ = writeln!(text, "  risk: {risk}");
        }
        if let Some(promised) = self.promised() {
            let _ = writeln!(text, "  promised: {promised}");
        }
        let _ = writeln!(text, "  tier {}: {}", tier.name, promise::tier(tier));
        let _ = writeln!(text, "  contract {}: {}", self.route.contract.name, self.stream_rule());
        let _ = writeln!(text, "  order: {}\n", self.ranking_rule());
        for (title, promises) in [
            ("What a reply has to keep", promise::gates(&self.route.contract)),
            ("What else the contract says", promise::terms(&self.route.contract)),
        ] {
            if !promises.is_empty() {
                let _ = writeln!(text, "{title}\n{}\n", promise::list(&promises));
            }
        }
        let _ = writeln!(text, "Targets\n{}\n", self.target_table());
        let _ = writeln!(text, "Deadlines of an attempt\n{}\n", self.deadline_table());
        let _ = writeln!(text, "What a request may ask\n{}\n", self.needs_text());
        let _ = writeln!(text, "When every path is spent\n{}\n", self.end_list());
        let _ = writeln!(text, "{}\n", self.price.text());
        let _ = writeln!(text, "What each failure leads to\n{}", self.failure_table());
        if !self.warnings.is_empty() {
            let _ = writeln!(text, "\nWarnings");
            for warning in &self.warnings {
                let _ = writeln!(text, "  {warning}");
            }
        }
        text
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let targets = self.targets.iter().map(|(spec, provider, weight)| {
            json!({
                "target": spec.id,
                "kind": provider.kind.name(),
                "dialect": spec.dialect.name(),
                "region": spec.region,
                "weight": weight,
                "keys": provider.keys.len(),
                "permitted": permits(self.route, spec),
                "tool_mode": self.tool_mode(spec),
                "capabilities": spec.capabilities,
                "context_window": spec.context_window,
                "max_output": spec.max_output,
                "usd_per_million": spec.price.map(|price| json!({
                    "input": dollars(price.input), "output": dollars(price.output),
                    "cache_read": dollars(price.cache_read), "cache_write": dollars(price.cache_write),
                })),
                "timeouts_ms": {
                    "connect": millis(spec.timeouts.connect), "header": millis(spec.timeouts.header),
                    "first_token": millis(spec.timeouts.first_token), "idle": millis(spec.timeouts.idle),
                    "total": millis(spec.timeouts.total),
                },
                "probes": spec.probes,
            })
        });
        let failures =
            Failure::ALL.iter().map(|failure| json!({ "failure": failure, "then": self.consequence(*failure) }));
        let crossings = Dialect::ALL.iter().filter_map(|dialect| {
            let targets: Vec<_> = self.targets.iter().filter(|(spec, _, _)| spec.dialect != *dialect).collect();
            let targets: Vec<_> = targets.into_iter().map(|(spec, _, _)| spec.id.as_str()).collect();
            (!targets.is_empty()).then(|| {
                json!({
                    "client": dialect.name(), "targets": targets,
                    "dropped": crossing(*dialect, Fate::Dropped), "cannot_carry": crossing(*dialect, Fate::Cannot),
                })
            })
        });
        json!({
            "route": self.route.id,
            "risk": self.route.risk,
            "sla": self.route.sla.map(|sla| json!({ "availability": sla.availability, "p95_ms": sla.p95.map(millis) })),
            "tier": promise::tier_json(&self.route.tier),
            "contract": {
                "name": self.route.contract.name, "stream": self.route.contract.stream.name(),
                "reroute_refusals": self.route.contract.refusal == RefusalPolicy::Reroute,
                "gates": promise::for_machines(&promise::gates(&self.route.contract)),
                "terms": promise::for_machines(&promise::terms(&self.route.contract)),
            },
            "backstops": self.route.backstops.iter().map(|backstop| json!({
                "name": backstop.name, "kind": backstop.kind.name(), "says": promise::end(backstop),
            })).collect::<Vec<_>>(),
            "price": self.price.json(),
            "ranking": self.route.ranking,
            "targets": targets.collect::<Vec<_>>(),
            "failures": failures.collect::<Vec<_>>(),
            "crossings": crossings.collect::<Vec<_>>(),
            "warnings": self.warnings,
        })
    }

    fn promised(&self) -> Option<String> {
        self.route.sla.and_then(promise::sla)
    }

    /// What the model may do with tools on this target; absent where the contract has no policy.
    fn tool_mode(&self, spec: &TargetSpec) -> Option<&'static str> {
        let first = self.route.targets.first().is_some_and(|entry| entry.target == spec.id);
        let policy = self.route.contract.tools.as_ref()?;
        Some(policy.mode(first, spec.capabilities.tools).map_or("left out", |mode| mode.name()))
    }

    /// Which target serves a request with tools, and how.
    fn tool_modes(&self) -> Option<String> {
        let modes = self.targets.iter().map(|(spec, _, _)| {
            Some(format!("{} {}", spec.id, self.tool_mode(spec).filter(|_| permits(self.route, spec))?))
        });
        self.route.contract.tools.as_ref()?;
        Some(format!("  tools: {}", modes.flatten().collect::<Vec<_>>().join(", ")))
    }

    /// The backstops, in their order.
    fn end_list(&self) -> String {
        let ends = self.route.backstops.iter().enumerate();
        let mut lines: Vec<String> =
            ends.map(|(at, backstop)| format!("  {}. {}: {}", at + 1, backstop.name, promise::end(backstop))).collect();
        if !self.route.backstops.iter().any(|backstop| matches!(backstop.kind, BackstopKind::Fail { .. })) {
            lines.push(if lines.is_empty() { "  a typed error" } else { "  then a typed error" }.to_owned());
        }
        lines.join("\n")
    }

    /// Where a failure ends that no target answers: the first backstop, or an error.
    fn end(&self) -> String {
        match self.route.backstops.first() {
            Some(backstop) if !matches!(backstop.kind, BackstopKind::Fail { .. }) => {
                format!("backstop {}", backstop.name)
            }
            Some(_) | None => "a typed error".to_owned(),
        }
    }

    /// Where a person is asked.
    fn review(&self) -> String {
        let escalates = |backstop: &&std::sync::Arc<outlast_model::policy::Backstop>| {
            matches!(backstop.kind, BackstopKind::Escalate { .. })
        };
        match self.route.backstops.iter().find(escalates) {
            Some(backstop) => format!("handed to a person: backstop {}", backstop.name),
            None => "a typed error".to_owned(),
        }
    }

    fn stream_rule(&self) -> String {
        let stream = match self.route.contract.stream {
            StreamContract::Buffer => "a stream shows nothing before the whole reply has passed its checks".to_owned(),
            StreamContract::Hold { tokens, after } => format!(
                "a stream holds back its first {tokens} tokens or {}, whichever ends first; a cut inside them is never seen",
                show_duration(after)
            ),
            StreamContract::Fail => "a stream is shown from its first output on".to_owned(),
        };
        let refusals = match self.route.contract.refusal {
            RefusalPolicy::Deliver => "delivered",
            RefusalPolicy::Reroute => "tried on the next target",
            RefusalPolicy::Review => "handed to a person",
        };
        let shown = match self.route.contract.stream {
            StreamContract::Buffer => "",
            StreamContract::Hold { .. } | StreamContract::Fail => "; a cut after that ends in a typed error event",
        };
        let too_late = match (self.route.contract.stream, self.route.contract.refusal) {
            (StreamContract::Hold { .. } | StreamContract::Fail, RefusalPolicy::Reroute | RefusalPolicy::Review) => {
                ", unless a stream of one has been shown"
            }
            (StreamContract::Buffer | StreamContract::Hold { .. } | StreamContract::Fail, _) => "",
        };
        format!("{stream}{shown}; refusals are {refusals}{too_late}")
    }

    fn ranking_rule(&self) -> &'static str {
        match self.route.ranking {
            Ranking::Order => "as listed; healthy targets before suspect ones, open breakers last",
            Ranking::Weight => "drawn by weight among the healthy ones",
            Ranking::Latency => "the healthy ones by their recent first token, fastest first",
            Ranking::Cost => "the healthy ones by estimated cost, cheapest first; unknown prices last",
        }
    }

    fn target_table(&self) -> String {
        let weighted = self.route.ranking == Ranking::Weight;
        let says_mode =
            self.route.contract.tools.is_some() || self.targets.iter().any(|(spec, _, _)| !permits(self.route, spec));
        let mut header = vec![
            "#",
            "target",
            "speaks",
            "region",
            "keys",
            "context",
            "output",
            "$ per M in/out",
            "tools",
            "images",
            "schema",
        ];
        header.extend(says_mode.then_some("tool mode"));
        let mut table = table(header);
        for (at, (spec, provider, weight)) in self.targets.iter().enumerate() {
            let place = if weighted { format!("x{weight}") } else { (at + 1).to_string() };
            let tokens = |limit: Option<u32>| limit.map_or("?".to_owned(), |limit| limit.to_string());
            let mut row = vec![
                place,
                spec.id.to_string(),
                spec.dialect.name().to_owned(),
                spec.region.as_deref().unwrap_or("-").to_owned(),
                provider.keys.len().to_string(),
                tokens(spec.context_window),
                tokens(spec.max_output),
                spec.price.map_or("?".to_owned(), show_price),
                can(spec.capabilities.tools).to_owned(),
                can(spec.capabilities.images).to_owned(),
                can(spec.capabilities.json_schema).to_owned(),
            ];
            row.extend(says_mode.then(|| match self.tool_mode(spec) {
                _ if !permits(self.route, spec) => "not permitted".to_owned(),
                mode => mode.unwrap_or("-").to_owned(),
            }));
            table.add_row(row);
        }
        trimmed(&table)
    }

    fn deadline_table(&self) -> String {
        let mut table = table(["target", "connect", "head", "first token", "between tokens", "total", "probes"]);
        for (spec, _, _) in &self.targets {
            let of = |limit: std::time::Duration| show_duration(limit.min(self.route.tier.deadline));
            let t = spec.timeouts;
            let probes = if spec.probes { "when idle" } else { "none" }.to_owned();
            table.add_row([
                spec.id.to_string(),
                of(t.connect),
                of(t.header),
                of(t.first_token),
                of(t.idle),
                of(t.total),
                probes,
            ]);
        }
        trimmed(&table)
    }

    fn needs_text(&self) -> String {
        let row = |need: &str, ability: fn(&TargetSpec) -> Ability| {
            let surely = self.list(|spec| ability(spec) == Ability::Yes);
            let perhaps = self.list(|spec| ability(spec) == Ability::Unknown);
            match (surely, perhaps) {
                (None, None) => format!("  {need}: no target can; such a request is refused"),
                (Some(surely), None) => format!("  {need}: {surely}"),
                (None, Some(perhaps)) => format!("  {need}: perhaps {perhaps} (nobody said; they are tried)"),
                (Some(surely), Some(perhaps)) => format!("  {need}: {surely}; then perhaps {perhaps}"),
            }
        };
        let mut lines = vec![
            self.tool_modes().unwrap_or_else(|| row("tools", |spec| spec.capabilities.tools)),
            row("images", |spec| spec.capabilities.images),
            row("a JSON Schema (such streams are buffered and checked)", |spec| spec.capabilities.json_schema),
        ];
        let largest = self.targets.iter().filter_map(|(spec, _, _)| spec.context_window).max();
        let unknown = self.list(|spec| spec.context_window.is_none());
        let largest = largest.map_or("unknown".to_owned(), |largest| format!("{largest} tokens"));
        let unknown = unknown.map(|names| format!(", unknown for {names}")).unwrap_or_default();
        lines.push(format!("  the longest prompt and reply together: {largest}{unknown}"));
        for dialect in Dialect::ALL {
            let Some(names) = self.list(|spec| spec.dialect != dialect) else {
                lines.push(format!("  in {}: passed through as it is", dialect.name()));
                continue;
            };
            lines.push(format!("  in {}: translated for {names}", dialect.name()));
            for (fate, says) in [
                (Fate::Dropped, "hints that are left out there"),
                (Fate::Cannot, "what keeps a request from going there"),
            ] {
                lines.push(format!("    {says}: {}", crossing(dialect, fate).join(", ")));
            }
        }
        lines.join("\n")
    }

    fn failure_table(&self) -> String {
        let mut table = table(["failure", "then"]);
        let mut rows: Vec<(Vec<String>, String)> = Vec::new();
        for failure in Failure::ALL {
            let consequence = self.consequence(failure);
            match rows.iter_mut().find(|(_, known)| *known == consequence) {
                Some((names, _)) => names.push(failure.to_string()),
                None => rows.push((vec![failure.to_string()], consequence)),
            }
        }
        for (names, consequence) in rows {
            // One cause a line, so that the eye finds it; the consequence stands beside the first.
            for (at, name) in names.into_iter().enumerate() {
                table.add_row([name, if at == 0 { consequence.clone() } else { "\"".to_owned() }]);
            }
        }
        trimmed(&table)
    }

    /// What the engine does after a failure of this class, on this route.
    fn consequence(&self, failure: Failure) -> String {
        let remedy = failure.remedy();
        let alone = self.targets.len() == 1 || self.route.tier.attempts == 1;
        let end = self.end();
        let next = |what: &str| if alone { format!("no other target: {end}") } else { what.to_owned() };
        let then = match remedy.then {
            Then::Reroute => next("the next target"),
            Then::RerouteLarger => next("the next target with a larger context window"),
            Then::RerouteStructured => next("the next target that keeps a schema"),
            Then::RerouteTools => next("the next target that can call tools"),
            Then::IfContractAllows => match self.route.contract.refusal {
                RefusalPolicy::Reroute => next("the next target"),
                RefusalPolicy::Review => self.review(),
                RefusalPolicy::Deliver => "delivered as it is".to_owned(),
            },
            Then::ReturnReason if self.route.contract.safety == SafetyPolicy::Review => self.review(),
            Then::ReturnReason => "returned to the client at once, on no other target".to_owned(),
            Then::StreamContract => match self.route.contract.stream {
                StreamContract::Buffer | StreamContract::Hold { .. } => {
                    format!("{} if nothing was shown, else a typed error event", next("the next target"))
                }
                StreamContract::Fail => "a typed error event with the usage so far".to_owned(),
            },
            Then::Backstop => end,
            Then::Settle => "the upstream call is cancelled and the bill settled".to_owned(),
        };
        let then = self.mended(failure, then);
        let same = match remedy.same_target {
            _ if self.route.tier.attempts == 1 => "",
            SameTarget::Never => "",
            SameTarget::IfAlone if alone => "once more on the same target, then ",
            SameTarget::IfAlone => "",
            SameTarget::IfLone => "once more on the same target if no other fits or the wait is short, then ",
            SameTarget::First => "once more on the same target, then ",
        };
        let blame = match remedy.blame {
            Blame::None => "",
            Blame::Fault => "; breaker evidence",
            Blame::Schedule => "; the key waits as long as it was told",
            Blame::KeyOut => "; the key is out",
            Blame::TargetOut => "; the target is out for this account",
            Blame::Quality => "; demotes the target",
        };
        let alert = if remedy.alert { "; an alert" } else { "" };
        format!("{same}{then}{blame}{alert}")
    }

    /// What the contract does with a reply that breaks it, before and instead of the next target.
    fn mended(&self, failure: Failure, then: String) -> String {
        let contract = &self.route.contract;
        let breaks = failure == Failure::SchemaError || failure == Failure::Quality;
        if failure == Failure::ContextExceeded && contract.shorten.is_some() {
            return format!("{then}, else once more without the oldest turns");
        }
        if !breaks {
            return then;
        }
        let then = match contract.repair.then {
            AfterRepair::Reroute => then,
            AfterRepair::Review => self.review(),
            AfterRepair::Stop => "a typed error".to_owned(),
        };
        let fixed = failure == Failure::SchemaError && !contract.repair.fixes.is_empty();
        match (fixed, contract.repair.model) {
            (true, true) => format!("its form is mended, or the model mends it once, else {then}"),
            (true, false) => format!("its form is mended, else {then}"),
            (false, true) => format!("the model mends it once, else {then}"),
            (false, false) => then,
        }
    }

    fn find_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let providers: BTreeSet<&str> = self.targets.iter().map(|(spec, _, _)| spec.provider.as_str()).collect();
        let hosts: BTreeSet<&str> = self.targets.iter().map(|(_, provider, _)| provider.base_url.authority()).collect();
        let tier = &self.route.tier;
        if self.targets.len() == 1 {
            warnings.push("one target only: when it fails, the call fails".to_owned());
        } else if providers.len() == 1 {
            warnings.push(format!(
                "every target is of one provider ({}): its outage is this route's",
                self.route.targets[0].target.provider()
            ));
        } else if hosts.len() == 1 {
            warnings.push("the providers share one host: its outage is this route's".to_owned());
        }
        if self.targets.len() > 1 && usize::from(tier.attempts) < self.targets.len() {
            let what = count(tier.attempts.into(), "attempt");
            warnings.push(format!("{what} for {} targets: one call cannot try them all", self.targets.len()));
        }
        for (need, ability) in [
            ("call tools", (|spec| spec.capabilities.tools) as fn(&TargetSpec) -> Ability),
            ("see images", |spec| spec.capabilities.images),
            ("keep a JSON Schema", |spec| spec.capabilities.json_schema),
        ] {
            let able = self.targets.iter().filter(|(spec, _, _)| ability(spec) != Ability::No).count();
            if able == 1 && self.targets.len() > 1 {
                warnings.push(format!("only one target can {need}: such a call has no fallback"));
            }
        }
        if let Some(names) = self.list(|spec| spec.price.is_none()) {
            warnings.push(if tier.cost_max.is_some() {
                format!("unknown price, so it is left out under the cost cap: {names}")
            } else {
                format!("unknown price, so its cost counts as nothing: {names}")
            });
        }
        if let Some(names) = self.list(|spec| spec.timeouts.first_token >= tier.deadline) {
            let deadline = show_duration(tier.deadline);
            warnings.push(format!("a silent target may use up the whole deadline of {deadline} by itself: {names}"));
        }
        warnings
    }

    fn list(&self, pick: impl Fn(&TargetSpec) -> bool) -> Option<String> {
        let names: Vec<&str> =
            self.targets.iter().filter(|(spec, _, _)| pick(spec)).map(|(spec, _, _)| spec.id.as_str()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }
}

/// Whether the contract lets requests of the route go to a target.
fn permits(route: &Route, spec: &TargetSpec) -> bool {
    let permissions = &route.contract.permissions;
    let region = |all: &Vec<std::sync::Arc<str>>| all.iter().any(|region| Some(&**region) == spec.region.as_deref());
    let provider = |all: &Vec<std::sync::Arc<str>>| all.iter().any(|provider| **provider == *spec.provider.as_str());
    permissions.regions.as_ref().is_none_or(region) && permissions.providers.as_ref().is_none_or(provider)
}

/// The features of a request in this dialect that meet this fate in the other one.
fn crossing(from: Dialect, fate: Fate) -> Vec<&'static str> {
    TABLE.iter().filter(|row| row.from == from && row.fate == fate).map(|row| row.name).collect()
}

fn table<'h>(header: impl IntoIterator<Item = &'h str>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.into_iter().collect::<Vec<_>>());
    table
}

fn can(ability: Ability) -> &'static str {
    match ability {
        Ability::Yes => "yes",
        Ability::No => "no",
        Ability::Unknown => "?",
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn dollars(picos_per_token: u64) -> f64 {
    picos_per_token as f64 / 1e6
}

fn show_price(price: Price) -> String {
    format!("{} / {}", dollars(price.input), dollars(price.output))
}
