//! The command line: the tree of commands and their exit codes. Each command is one function in its own file.

pub mod audit;
pub mod check;
pub mod demo;
pub mod drill;
pub mod escalations;
pub mod explain;
pub mod fake;
pub mod import;
pub mod litellm;
pub mod remote;
pub mod runs;
pub mod schema;
pub mod serve;
pub mod store;
pub mod workers;

use crate::config::{Config, ConfigErrors, Env};
use clap::{Args, Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};

/// How a command ended, as the shell sees it. `docs/cli.md` lists the codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok,
    /// The command ran and what it checks did not hold.
    Failed,
    /// The arguments are wrong (clap's own code as well).
    Usage,
    /// A file named on the command line cannot be read: `EX_NOINPUT`.
    NoInput,
    /// A port is taken, a file cannot be written, a service cannot be reached: `EX_UNAVAILABLE`.
    Unavailable,
    /// A bug in Outlast: `EX_SOFTWARE`.
    Internal,
    /// The config has errors: `EX_CONFIG`.
    Config,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NoInput => 66,
            Exit::Unavailable => 69,
            Exit::Internal => 70,
            Exit::Config => 78,
        })
    }
}

/// A gateway that outlives its providers.
#[derive(Debug, Parser)]
#[command(name = "outlast", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway
    Serve(serve::ServeArgs),
    /// Watch real traffic survive a provider going down: three fake providers, a gateway, and faults
    Demo(demo::DemoArgs),
    /// Judge the config: every error at once, with file, line and remedy
    Check(check::CheckArgs),
    /// Say what would happen to a call of a route or tool, or to a run of a workflow, and why
    Explain(explain::ExplainArgs),
    /// Print the JSON Schema of the config file, for editors
    Schema(schema::SchemaArgs),
    /// Turn another gateway's config into this one's
    #[command(subcommand)]
    Import(import::ImportCommand),
    /// Run the fault-injecting provider
    Fake(Box<fake::FakeArgs>),
    /// List what waits for a person, show one with all that led to it, decide it
    #[command(subcommand)]
    Escalations(escalations::EscalationsCommand),
    /// Say who decided what, and whether the log of it is what was written
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Start durable runs, look at them, signal, cancel and migrate them
    #[command(subcommand)]
    Runs(runs::RunsCommand),
    /// Say who works on durable runs, and tell a worker to leave
    #[command(subcommand)]
    Workers(workers::WorkersCommand),
    /// Back up, restore and check the durable store
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Rehearse failures
    #[command(subcommand)]
    Drill(drill::DrillCommand),
}

/// Where the config is.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArg {
    /// The config file [default: ./outlast.toml if there is one, else the API keys found in the environment]
    #[arg(long, short, env = "OUTLAST_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl ConfigArg {
    /// The file to read, or `None` for the environment.
    pub fn file(&self) -> Option<PathBuf> {
        let default = || Some(PathBuf::from("outlast.toml")).filter(|path| path.exists());
        self.config.clone().or_else(default)
    }

    /// Loads what the arguments point to.
    ///
    /// # Errors
    /// Every problem of the config.
    pub fn load(&self, env: Env<'_>) -> Result<Config, ConfigErrors> {
        match self.file() {
            Some(path) => Config::load(&path, env),
            None => Config::from_env(env),
        }
    }
}

/// The process's own environment: the only place that reads it.
pub fn process_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Prints to standard output. A reader that has seen enough (`| head`) is no failure.
pub(crate) fn out(text: &str) -> Exit {
    use std::io::Write;
    match anstream::stdout().write_all(text.as_bytes()) {
        Ok(()) => Exit::Ok,
        Err(why) if why.kind() == std::io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(_) => Exit::Unavailable,
    }
}

/// Somebody's words without what steers a terminal.
pub(crate) fn readable(text: &str) -> String {
    text.chars().filter(|letter| *letter == '\n' || !letter.is_control()).collect()
}

/// Runs the command named on the command line.
pub fn main() -> ExitCode {
    let exit = match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Check(args) => check::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Schema(args) => schema::run(args),
        Command::Import(command) => import::run(command),
        Command::Fake(args) => fake::run(*args),
        Command::Escalations(command) => escalations::run(command),
        Command::Audit(command) => audit::run(command),
        Command::Runs(command) => runs::run(command),
        Command::Workers(command) => workers::run(command),
        Command::Store(command) => store::run(command),
        Command::Drill(command) => drill::run(command),
    };
    exit.into()
}
