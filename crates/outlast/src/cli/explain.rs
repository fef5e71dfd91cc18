//! `outlast explain ROUTE`: what would happen to a call, and why. Read from the same config and the same remedy table
//! that the gateway runs on, so it cannot promise anything else.

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
    policy::{Ability, Dialect, Ranking, RefusalPolicy, Route, StreamContract, TargetSpec},
};
use outlast_wire::crossing::{Fate, TABLE};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fmt::Write};

/// Arguments of `explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// A route, or `provider/model`
    pub route: String,
    /// Where the config is.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the command: [`Exit::Ok`], [`Exit::Config`] when the config has errors, [`Exit::Failed`] when it has no such
/// route.
pub fn run(args: ExplainArgs) -> Exit {
    let config = match args.config.load(&process_env) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return Exit::Config;
        }
    };
    let Some(explanation) = Explanation::of(&config, &args.route) else {
        let remedy = match config.did_you_mean(&args.route) {
            Some(near) => format!("Did you mean \"{near}\"?"),
            None => {
                format!("Its routes: {}.", config.routes.keys().map(|id| id.as_str()).collect::<Vec<_>>().join(", "))
            }
        };
        eprintln!("{} has no route \"{}\". {remedy}", config.source, args.route);
        return Exit::Failed;
    };
    out(&if args.json { pretty(&explanation.json()) } else { explanation.text() })
}

/// A route with everything that decides about its calls.
pub struct Explanation<'c> {
    route: &'c Route,
    targets: Vec<(&'c TargetSpec, &'c Provider, u32)>,
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
        let targets = targets.collect();
        let mut explanation = Explanation { route, targets, warnings: Vec::new() };
        explanation.warnings = explanation.find_warnings();
        Some(explanation)
    }

    /// For people.
    pub fn text(&self) -> String {
        let tier = &self.route.tier;
        let mut text = String::new();
        let _ = writeln!(text, "Route {}", self.route.id);
        let _ = writeln!(
            text,
            "  tier {}: at most {}, all within {}",
            tier.name,
            count(tier.attempts.into(), "attempt"),
            show_duration(tier.deadline)
        );
        let _ = writeln!(text, "  contract {}: {}", self.route.contract.name, self.stream_rule());
        let _ = writeln!(text, "  order: {}\n", self.ranking_rule());
        let _ = writeln!(text, "Targets\n{}\n", self.target_table());
        let _ = writeln!(text, "Deadlines of an attempt\n{}\n", self.deadline_table());
        let _ = writeln!(text, "What a request may ask\n{}\n", self.needs_text());
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
            "tier": { "name": self.route.tier.name, "attempts": self.route.tier.attempts, "deadline_ms": millis(self.route.tier.deadline) },
            "contract": { "name": self.route.contract.name, "stream": self.route.contract.stream.name(), "reroute_refusals": self.route.contract.refusal == RefusalPolicy::Reroute },
            "ranking": self.route.ranking,
            "targets": targets.collect::<Vec<_>>(),
            "failures": failures.collect::<Vec<_>>(),
            "crossings": crossings.collect::<Vec<_>>(),
            "warnings": self.warnings,
        })
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
        let refusals = if self.route.contract.refusal == RefusalPolicy::Reroute {
            "tried on the next target"
        } else {
            "delivered"
        };
        format!("{stream}; a cut after that ends in a typed error event; refusals are {refusals}")
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
        let mut table = table([
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
        ]);
        for (at, (spec, provider, weight)) in self.targets.iter().enumerate() {
            let place = if weighted { format!("x{weight}") } else { (at + 1).to_string() };
            let tokens = |limit: Option<u32>| limit.map_or("?".to_owned(), |limit| limit.to_string());
            table.add_row([
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
            ]);
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
            row("tools", |spec| spec.capabilities.tools),
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
        let next = |what: &str| if alone { "no other target: a typed error".to_owned() } else { what.to_owned() };
        let then = match remedy.then {
            Then::Reroute => next("the next target"),
            Then::RerouteLarger => next("the next target with a larger context window"),
            Then::RerouteStructured => next("the next target that keeps a schema"),
            Then::RerouteTools => next("the next target that can call tools"),
            Then::IfContractAllows if self.route.contract.refusal == RefusalPolicy::Reroute => next("the next target"),
            Then::IfContractAllows => "delivered as it is".to_owned(),
            Then::ReturnReason => "returned to the client at once, on no other target".to_owned(),
            Then::StreamContract => match self.route.contract.stream {
                StreamContract::Buffer | StreamContract::Hold { .. } => {
                    format!("{} if nothing was shown, else a typed error event", next("the next target"))
                }
                StreamContract::Fail => "a typed error event with the usage so far".to_owned(),
            },
            Then::Backstop => "a typed error".to_owned(),
            Then::Settle => "the upstream call is cancelled and the bill settled".to_owned(),
        };
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
            warnings.push(format!("unknown price, so its cost counts as nothing: {names}"));
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

/// The features of a request in this dialect that meet this fate in the other one.
fn crossing(from: Dialect, fate: Fate) -> Vec<&'static str> {
    TABLE.iter().filter(|row| row.from == from && row.fate == fate).map(|row| row.name).collect()
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
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
