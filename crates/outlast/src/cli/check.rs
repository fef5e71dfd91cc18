//! `outlast check`: judges the config, tells every error at once, and shows what a good one amounts to.

use super::{ConfigArg, Exit, out, process_env};
use crate::config::{Config, ConfigErrors, Sealing, show_duration, toml_from_env};
use clap::Args;
use comfy_table::{Table, presets};
use outlast_model::policy::{Route, StreamContract};
use serde_json::{Value, json};
use std::fmt::Write;

const RED: anstyle::Style = anstyle::AnsiColor::Red.on_default().bold();
const YELLOW: anstyle::Style = anstyle::AnsiColor::Yellow.on_default().bold();

/// Arguments of `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Where the config is.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Print the config that the environment makes without a file, as TOML to start from
    #[arg(long, conflicts_with_all = ["json", "config"])]
    pub from_env: bool,
}

/// Runs the command: [`Exit::Ok`], or [`Exit::Config`] with every error on standard error (with `--json`, on standard
/// output).
pub fn run(args: CheckArgs) -> Exit {
    if args.from_env {
        return match toml_from_env(&process_env) {
            Ok(toml) => out(&toml),
            Err(errors) => {
                eprintln!("{errors}");
                Exit::Config
            }
        };
    }
    match args.config.load(&process_env) {
        Ok(config) if args.json => out(&pretty(&good_json(&config))),
        Ok(config) => {
            for warning in &config.warnings {
                anstream::eprintln!("{YELLOW}warning:{YELLOW:#} {warning}");
            }
            out(&summary(&config))
        }
        Err(errors) => {
            if args.json {
                out(&pretty(&bad_json(&errors)));
            } else {
                // The place stands out; what is wrong and the remedy are plain. No colour where no terminal is.
                for error in &errors.0 {
                    let text = error.to_string();
                    let (place, rest) = text.split_once(": ").unwrap_or(("", &text));
                    anstream::eprintln!("{RED}{place}:{RED:#} {rest}");
                }
                eprintln!("{} in this config; nothing was started", count(errors.0.len(), "error"));
            }
            Exit::Config
        }
    }
}

/// What a good config amounts to, as a table.
pub fn summary(config: &Config) -> String {
    let mut text = String::new();
    let routes = if config.routes.is_empty() {
        "no routes: clients name targets".to_owned()
    } else {
        count(config.routes.len(), "route")
    };
    let _ = writeln!(
        text,
        "{}: {}, {}, {}",
        config.source,
        count(config.providers.len(), "provider"),
        count(config.targets.len(), "target"),
        routes
    );
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["route", "tier", "attempts", "deadline", "stream", "targets"]);
    for route in config.routes.values() {
        table.add_row([
            route.id.to_string(),
            route.tier.name.to_string(),
            route.tier.attempts.to_string(),
            show_duration(route.tier.deadline),
            stream(route),
            route.targets.iter().map(|target| target.target.as_str()).collect::<Vec<_>>().join(", "),
        ]);
    }
    if !config.routes.is_empty() {
        let _ = writeln!(text, "{}", trimmed(&table));
    }
    let callers = match config.server.keys.len() {
        0 => "callers need no key".to_owned(),
        1 => "callers need the key".to_owned(),
        keys => format!("callers need one of {keys} keys"),
    };
    let admin = if config.server.admin_token.is_some() {
        "admin endpoints open with the token"
    } else {
        "admin endpoints closed"
    };
    let _ = writeln!(text, "listens on {}; {callers}; {admin}", config.server.listen);
    let _ = writeln!(text, "{}", durability(config));
    for line in work(config) {
        let _ = writeln!(text, "{line}");
    }
    if !config.golden.is_empty() {
        let names: Vec<&str> = config.golden.iter().map(|task| &*task.name).collect();
        let _ = writeln!(text, "golden tasks: {}", names.join(", "));
    }
    text
}

/// What outlives the process, and how it is protected.
fn durability(config: &Config) -> String {
    let Some(store) = &config.store else {
        return "nothing outlives the process: replies under an Idempotency-Key are kept in memory".to_owned();
    };
    let how = match &store.sealing {
        Sealing::Keys(keys) if keys.len() == 1 => "encrypted".to_owned(),
        Sealing::Keys(keys) => format!("encrypted with the first of {} keys", keys.len()),
        Sealing::Plaintext => "prompts and answers in plain text".to_owned(),
    };
    format!("keeps what must outlive the process in {}, {how}", store.file.display())
}

/// What durable work there is, and who decides about it.
fn work(config: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    if !config.tools.is_empty() {
        let effects = config.tools.values().filter(|tool| tool.spec.class.is_effect()).count();
        let servers = match config.mcp.len() {
            0 => String::new(),
            servers => format!("; {}", count(servers, "MCP server")),
        };
        lines.push(format!("{}, {effects} with an effect{servers}", count(config.tools.len(), "tool")));
    }
    if !config.workflows.is_empty() {
        let named = config.workflows.values().map(|plan| {
            let steps = count(plan.spec.steps.len(), "step");
            format!("{} (version {}, {steps})", plan.spec.name, plan.spec.version)
        });
        let all: Vec<String> = named.collect();
        lines.push(format!("{}: {}", count(all.len(), "workflow"), all.join(", ")));
    }
    if !config.reviewers.is_empty() {
        let names: Vec<&str> = config.reviewers.keys().map(|name| &**name).collect();
        let told = match config.escalations.levels.len() {
            0 => "nobody is told when work waits".to_owned(),
            levels => format!("told in {}", count(levels, "level")),
        };
        lines.push(format!("{} may decide: {}; {told}", count(names.len(), "reviewer"), names.join(", ")));
    }
    lines
}

fn stream(route: &Route) -> String {
    match route.contract.stream {
        StreamContract::Hold { tokens, after } => format!("hold {tokens} tokens or {}", show_duration(after)),
        StreamContract::Buffer | StreamContract::Fail => route.contract.stream.name().to_owned(),
    }
}

/// A table without the blanks that its renderer leaves at the ends of lines.
pub(super) fn trimmed(table: &Table) -> String {
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

pub(super) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

pub(super) fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn good_json(config: &Config) -> Value {
    let routes = config.routes.values().map(|route| {
        json!({
            "route": route.id,
            "tier": route.tier.name,
            "attempts": route.tier.attempts,
            "deadline_ms": route.tier.deadline.as_millis() as u64,
            "contract": route.contract.name,
            "stream": route.contract.stream.name(),
            "backstops": route.backstops.iter().map(|backstop| backstop.name.as_ref()).collect::<Vec<_>>(),
            "targets": route.targets.iter().map(|target| target.target.as_str()).collect::<Vec<_>>(),
        })
    });
    json!({
        "ok": true,
        "source": config.source,
        "listen": config.server.listen.to_string(),
        "providers": config.providers.iter().map(|provider| provider.id.as_str()).collect::<Vec<_>>(),
        "targets": config.targets.len(),
        "routes": routes.collect::<Vec<_>>(),
        "store": config.store.as_ref().map(|store| json!({
            "file": store.file,
            "keys": match &store.sealing { Sealing::Keys(keys) => keys.len(), Sealing::Plaintext => 0 },
        })),
        "tools": config.tools.values().map(|tool| json!({
            "tool": tool.spec.name, "kind": tool.spec.kind.name(), "effect": tool.spec.class.name(),
        })).collect::<Vec<_>>(),
        "workflows": config.workflows.values().map(|plan| json!({
            "workflow": plan.spec.name, "version": plan.spec.version, "steps": plan.spec.steps.len(),
        })).collect::<Vec<_>>(),
        "reviewers": config.reviewers.keys().collect::<Vec<_>>(),
        "golden": config.golden.iter().map(|task| &*task.name).collect::<Vec<_>>(),
        "warnings": config.warnings,
    })
}

fn bad_json(errors: &ConfigErrors) -> Value {
    json!({ "ok": false, "errors": errors })
}
