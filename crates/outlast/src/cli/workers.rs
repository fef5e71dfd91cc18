//! `outlast workers`: who works for a running server.

use super::{
    Exit, out,
    remote::fine,
    runs::{AskArgs, escaped, table, text, whole},
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum WorkersCommand {
    /// The workers, those seen last first, with what each is at
    List(AskArgs),
    /// Tell a worker to claim nothing more: its runs go on, and it leaves when they are done
    Drain(DrainArgs),
}

/// Arguments of `workers drain`.
#[derive(Clone, Debug, Args)]
pub struct DrainArgs {
    /// Which worker
    pub id: String,
    /// Which server.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Runs the command.
pub fn run(command: WorkersCommand) -> Exit {
    let done = match command {
        WorkersCommand::List(args) => list(&args),
        WorkersCommand::Drain(args) => drain(&args),
    };
    done.unwrap_or_else(|exit| exit)
}

fn list(args: &AskArgs) -> Result<Exit, Exit> {
    let answer = args.server()?.get(&args.path("/v1/workers", &[]))?;
    if args.json {
        return Ok(whole(&answer));
    }
    let workers = answer["workers"].as_array().cloned().unwrap_or_default();
    let row = |worker: &Value| {
        let queues = worker["queues"].as_array().cloned().unwrap_or_default();
        let queues: Vec<String> = queues.iter().map(text).collect();
        let holds = worker["holds"].as_array().cloned().unwrap_or_default();
        let at =
            holds.first().map_or_else(String::new, |held| format!("{} {}", text(&held["run"]), text(&held["step"])));
        vec![
            text(&worker["id"]),
            text(&worker["label"]),
            text(&worker["state"]),
            queues.join(" "),
            holds.len().to_string(),
            at,
            text(&worker["seen_at"]),
        ]
    };
    Ok(out(&table(&["ID", "LABEL", "STATE", "QUEUES", "RUNS", "AT", "SEEN"], workers.iter().map(row))))
}

fn drain(args: &DrainArgs) -> Result<Exit, Exit> {
    let path = args.ask.path(&format!("/v1/workers/{}/drain", escaped(&args.id)), &[]);
    let answer = args.ask.server()?.post(&path, &json!({})).and_then(fine)?;
    Ok(if args.ask.json { whole(&answer) } else { out(&format!("{}\n", text(&answer["state"]))) })
}
