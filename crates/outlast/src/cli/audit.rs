//! `outlast audit`: who decided what, and whether the log is what was written.

use super::{ConfigArg, Exit, out, readable, remote::RemoteArgs, store};
use crate::gateway::escalations::{audit_page, audit_verified};
use clap::{Args, Subcommand};
use outlast_store::{AuditFilter, Page, PeopleStore, StoreError};

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum AuditCommand {
    /// The latest entries, the newest first
    List(ListArgs),
    /// Read the whole log and say whether anything in it was changed, removed or slipped in
    Verify(VerifyArgs),
}

/// Arguments of `audit list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Where the config is.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Which server to ask; without one, the store's file is read.
    #[command(flatten)]
    pub remote: RemoteArgs,
    /// Only what this person did
    #[arg(long, value_name = "NAME")]
    pub who: Option<String>,
    /// Only about this escalation or run
    #[arg(long, value_name = "ID")]
    pub subject: Option<String>,
    /// At most so many
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub limit: u32,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `audit verify`.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
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

/// Runs the command.
pub fn run(command: AuditCommand) -> Exit {
    let done = match command {
        AuditCommand::List(args) => list(&args),
        AuditCommand::Verify(args) => verify(&args),
    };
    done.unwrap_or_else(|exit| exit)
}

/// Asks the store's file.
fn of_file<T>(config: &ConfigArg, ask: impl FnOnce(&dyn PeopleStore) -> outlast_store::Answer<T>) -> Result<T, Exit> {
    let config = store::configured(config)?;
    let asked = || -> Result<T, StoreError> {
        let opened = store::open(&config)?;
        store::wait(ask(&opened))
    };
    asked().map_err(|error| store::refused(&error))
}

fn list(args: &ListArgs) -> Result<Exit, Exit> {
    let page = match args.remote.named()? {
        Some(remote) => {
            let mut path = format!("/v1/audit?limit={}", args.limit);
            for (name, given) in [("who", &args.who), ("subject", &args.subject)] {
                if let Some(value) = given {
                    path += &format!("&{name}={value}");
                }
            }
            remote.get(&path)?
        }
        None => {
            let filter = AuditFilter {
                who: args.who.as_deref().map(Into::into),
                subject: args.subject.as_deref().map(Into::into),
            };
            audit_page(&of_file(&args.config, |store| store.audit(filter, Page { after: None, size: args.limit }))?)
        }
    };
    let entries = &page["entries"];
    if args.json {
        return Ok(out(&format!("{entries}\n")));
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["NUMBER", "AT", "WHO", "WHAT", "SUBJECT"]);
    for entry in entries.as_array().into_iter().flatten() {
        let word = |name: &str| entry[name].as_str().map_or_else(|| entry[name].to_string(), readable);
        table.add_row(["number", "at", "who", "what", "subject"].map(word));
    }
    Ok(out(&format!("{table}\n")))
}

fn verify(args: &VerifyArgs) -> Result<Exit, Exit> {
    let read = match args.remote.named()? {
        Some(remote) => remote.get("/v1/audit/verify")?,
        None => audit_verified(&of_file(&args.config, |store| store.verify_audit())?),
    };
    let broken = &read["broken"];
    let printed = if args.json {
        out(&format!("{read}\n"))
    } else {
        let head = read["head"].as_str().unwrap_or_default();
        let mut text = format!("{} entries are what was written; the last one's hash is {head}\n", read["entries"]);
        if !broken.is_null() {
            let why = readable(broken["why"].as_str().unwrap_or_default());
            text = format!(
                "entry {}: {why}. {} entries before it are what was written.\n",
                broken["number"], read["entries"]
            );
        }
        out(&text)
    };
    Ok(if broken.is_null() { printed } else { Exit::Failed })
}
