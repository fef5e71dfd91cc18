//! `outlast escalations`: what waits for a person, and deciding it.

mod text;

use super::{
    ConfigArg, Exit, out,
    remote::{RemoteArgs, fine},
    store,
};
use crate::{
    config::StoreConfig,
    gateway::escalations::{lineage, summary, whole},
};
use clap::{Args, Subcommand};
use outlast_model::run::{EscalationKind, Verb};
use outlast_store::{EscalationFilter, Page, PeopleStore, StoreError};
use serde_json::{Value, json};

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum EscalationsCommand {
    /// The latest escalations, the newest first
    List(ListArgs),
    /// One escalation with its context, all that led to it, and the choices
    Show(ShowArgs),
    /// Decide one, with a reviewer's key
    Decide(Box<DecideArgs>),
}

/// Arguments of `escalations list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Where the config is.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Which server to ask; without one, the store's file is read.
    #[command(flatten)]
    pub remote: RemoteArgs,
    /// Decided ones too
    #[arg(long)]
    pub all: bool,
    /// Only those that should have been answered by now
    #[arg(long)]
    pub overdue: bool,
    /// Only of this kind, such as approval
    #[arg(long, value_parser = kind)]
    pub kind: Option<EscalationKind>,
    /// Only of this run
    #[arg(long, value_name = "ID")]
    pub run: Option<String>,
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
    /// Which server to ask; without one, the store's file is read.
    #[command(flatten)]
    pub remote: RemoteArgs,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `escalations decide`.
#[derive(Clone, Debug, Args)]
pub struct DecideArgs {
    /// Which, as the list names it
    pub id: String,
    /// How, as `show` offers it: approve, edit, deny, retry, choose, happened, did_not, skip or cancel
    #[arg(value_parser = verb)]
    pub verb: Verb,
    /// happened: what came of it
    #[arg(long, value_name = "JSON", value_parser = document)]
    pub result: Option<Value>,
    /// edit: what is to be taken as the output
    #[arg(long, value_name = "JSON", value_parser = document)]
    pub output: Option<Value>,
    /// edit of an approval: what it is to be done with
    #[arg(long, value_name = "JSON", value_parser = document)]
    pub arguments: Option<Value>,
    /// choose: the target that is to answer, as provider/model
    #[arg(long)]
    pub target: Option<String>,
    /// choose: the tool that is to do it
    #[arg(long)]
    pub tool: Option<String>,
    /// Why, for whoever reads it later
    #[arg(long)]
    pub note: Option<String>,
    /// Decide only if this is what waits: the `shown` of what you looked at
    #[arg(long, value_name = "HEX")]
    pub shown: Option<String>,
    /// Where the config is.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Which server to tell.
    #[command(flatten)]
    pub remote: RemoteArgs,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

fn verb(name: &str) -> Result<Verb, String> {
    let names = || Verb::ALL.map(Verb::name).join(", ");
    Verb::ALL.into_iter().find(|verb| verb.name() == name).ok_or_else(|| format!("it is none of {}", names()))
}

fn kind(name: &str) -> Result<EscalationKind, String> {
    let names = || EscalationKind::ALL.map(EscalationKind::name).join(", ");
    EscalationKind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| format!("it is none of {}", names()))
}

fn document(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}. Text needs quotes: '\"yes\"'"))
}

/// Runs the command.
pub fn run(command: EscalationsCommand) -> Exit {
    let done = match command {
        EscalationsCommand::List(args) => list(&args),
        EscalationsCommand::Show(args) => show(&args),
        EscalationsCommand::Decide(args) => decide(&args),
    };
    done.unwrap_or_else(|exit| exit)
}

fn list(args: &ListArgs) -> Result<Exit, Exit> {
    let all = match args.remote.named()? {
        Some(remote) => {
            let mut path = format!("/v1/escalations?open={}&overdue={}&limit={}", !args.all, args.overdue, args.limit);
            if let Some(kind) = args.kind {
                path += &format!("&kind={}", kind.name());
            }
            if let Some(run) = &args.run {
                path += &format!("&run={run}");
            }
            remote.get(&path)?["escalations"].take()
        }
        None => {
            let config = store::configured(&args.config)?;
            listed(&config, args).map_err(|error| store::refused(&error))?
        }
    };
    if args.json {
        return Ok(out(&format!("{all}\n")));
    }
    Ok(out(&text::table(&all)))
}

fn listed(config: &StoreConfig, args: &ListArgs) -> Result<Value, StoreError> {
    let from = store::open(config)?;
    let filter = EscalationFilter {
        tenant: None,
        open_only: !args.all,
        kind: args.kind,
        run: args.run.as_deref().map(Into::into),
        overdue_only: args.overdue,
    };
    let page = store::wait(from.escalations(filter, Page { after: None, size: args.limit }))?;
    Ok(page.escalations.iter().map(summary).collect())
}

fn show(args: &ShowArgs) -> Result<Exit, Exit> {
    let shown = match args.remote.named()? {
        Some(remote) => remote.get(&format!("/v1/escalations/{}", args.id))?,
        None => {
            let config = store::configured(&args.config)?;
            let found = found(&config, &args.id).map_err(|error| store::refused(&error))?;
            found.ok_or_else(|| {
                eprintln!("outlast: there is no escalation {}, or it is no longer kept", args.id);
                Exit::Failed
            })?
        }
    };
    Ok(out(&if args.json { format!("{shown:#}\n") } else { text::whole(&shown) }))
}

fn found(config: &StoreConfig, id: &str) -> Result<Option<Value>, StoreError> {
    let from = store::open(config)?;
    let Some(found) = store::wait(from.escalation(id.into()))? else { return Ok(None) };
    let mut shown = whole(&found, true);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let why = |error: std::io::Error| StoreError::Unavailable { place: "store".into(), why: error.to_string().into() };
    shown["lineage"] = runtime.map_err(why)?.block_on(lineage(&from, &found.summary))?;
    Ok(Some(shown))
}

/// Looks at it first, so that what is decided is what was printed.
fn decide(args: &DecideArgs) -> Result<Exit, Exit> {
    let remote = args.remote.any(&args.config)?;
    let path = format!("/v1/escalations/{}", args.id);
    let seen = remote.get(&path)?;
    if !args.json {
        out(&text::whole(&seen));
    }
    let shown = args.shown.clone().or_else(|| seen["shown"].as_str().map(str::to_owned));
    let mut body = json!({ "verb": args.verb, "shown": shown });
    for (name, given) in [("result", &args.result), ("output", &args.output), ("arguments", &args.arguments)] {
        if let Some(value) = given {
            body[name] = value.clone();
        }
    }
    for (name, given) in [("target", &args.target), ("tool", &args.tool), ("note", &args.note)] {
        if let Some(text) = given {
            body[name] = json!(text);
        }
    }
    let (status, answer) = remote.post(&format!("{path}/decide"), &body)?;
    if args.json {
        let printed = out(&format!("{answer}\n"));
        return Ok(if status.is_success() { printed } else { Exit::Failed });
    }
    let decided = fine((status, answer))?;
    let by = decided["decision"]["by"].as_str().unwrap_or_default();
    Ok(out(&format!("\n{} decided by {}: {}\n", args.id, super::readable(by), args.verb)))
}
