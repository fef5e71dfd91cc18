//! `outlast escalations`: what waits for a person, read from the store's file. Deciding comes with durable runs.

use super::{ConfigArg, Exit, out, store};
use crate::gateway::escalations::{summary, whole};
use clap::{Args, Subcommand};
use outlast_store::{EscalationFilter, EscalationSummary, Page, Store, StoreError};
use serde_json::Value;

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum EscalationsCommand {
    /// The latest escalations, the newest first
    List(ListArgs),
    /// One escalation with its request, its state and why it came
    Show(ShowArgs),
}

/// Arguments of `escalations list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Where the config is.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Decided ones too
    #[arg(long)]
    pub all: bool,
    /// At most so many
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub limit: u32,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `escalations show`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// Which, as the list names it
    pub id: String,
    /// Where the config is.
    #[command(flatten)]
    pub config: ConfigArg,
}

/// Runs the command.
pub fn run(command: EscalationsCommand) -> Exit {
    let config = match &command {
        EscalationsCommand::List(args) => &args.config,
        EscalationsCommand::Show(args) => &args.config,
    };
    let opened = match store::configured(config) {
        Ok(config) => store::open(&config),
        Err(exit) => return exit,
    };
    let done = opened.and_then(|opened| match &command {
        EscalationsCommand::List(args) => list(&opened, args),
        EscalationsCommand::Show(args) => show(&opened, &args.id),
    });
    done.unwrap_or_else(|error| store::refused(&error))
}

fn list(from: &dyn Store, args: &ListArgs) -> Result<Exit, StoreError> {
    let filter = EscalationFilter { open_only: !args.all, ..EscalationFilter::default() };
    let page = store::wait(from.escalations(filter, Page { after: None, size: args.limit }))?;
    if args.json {
        let all: Vec<Value> = page.escalations.iter().map(summary).collect();
        return Ok(out(&format!("{}\n", Value::Array(all))));
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["ID", "OPENED", "ROUTE", "FAILURE", "QUESTION"]);
    for escalation in &page.escalations {
        table.add_row(row(escalation));
    }
    Ok(out(&format!("{table}\n")))
}

/// The question is cut: it may quote a whole request.
fn row(escalation: &EscalationSummary) -> [String; 5] {
    let shown = summary(escalation);
    let text = |field: &str| shown[field].as_str().unwrap_or_default().to_owned();
    let question: String = escalation.question.chars().filter(|letter| !letter.is_control()).take(60).collect();
    [escalation.id.to_string(), text("opened_at"), text("route"), text("failure"), question]
}

fn show(from: &dyn Store, id: &str) -> Result<Exit, StoreError> {
    let Some(found) = store::wait(from.escalation(id.into()))? else {
        eprintln!("outlast: there is no escalation {id}, or it is no longer kept");
        return Ok(Exit::Failed);
    };
    Ok(out(&format!("{:#}\n", whole(&found, true))))
}
