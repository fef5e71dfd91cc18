//! `outlast store`: the durable store, seen to while the gateway runs (backup, check) or does not (restore).

use super::{ConfigArg, Exit, out, process_env};
use crate::{
    clock::Clock,
    config::StoreConfig,
    gateway::store::{WallClock, sealing},
};
use clap::{Args, Subcommand};
use outlast_store::{Access, SqliteOptions, SqliteStore, Store, StoreError, sqlite};
use std::{path::PathBuf, sync::Arc};

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum StoreCommand {
    /// Copy the store into a new file, while it is in use
    Backup(BackupArgs),
    /// Put a backup in place of the store of a gateway that is stopped
    Restore(RestoreArgs),
    /// Read everything in the store and say what is damaged
    Check(CheckArgs),
}

/// Arguments of `store backup`.
#[derive(Clone, Debug, Args)]
pub struct BackupArgs {
    /// Where the config is.
    #[command(flatten)]
    pub config: ConfigArg,
    /// The file to make; it must not exist
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
}

/// Arguments of `store restore`.
#[derive(Clone, Debug, Args)]
pub struct RestoreArgs {
    /// Where the config is.
    #[command(flatten)]
    pub config: ConfigArg,
    /// The backup
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
}

/// Arguments of `store check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Where the config is.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(command: StoreCommand) -> Exit {
    let config = match &command {
        StoreCommand::Backup(args) => &args.config,
        StoreCommand::Restore(args) => &args.config,
        StoreCommand::Check(args) => &args.config,
    };
    let store = match configured(config) {
        Ok(store) => store,
        Err(exit) => return exit,
    };
    let done = match command {
        StoreCommand::Backup(args) => backup(&store, args.to),
        StoreCommand::Restore(args) => restore(&store, &args),
        StoreCommand::Check(args) => check(&store, args.json),
    };
    done.unwrap_or_else(|error| refused(&error))
}

/// The store of the config. What is wrong has been told.
pub(super) fn configured(config: &ConfigArg) -> Result<StoreConfig, Exit> {
    let config = config.load(&process_env).map_err(|errors| {
        eprintln!("{errors}");
        Exit::Config
    })?;
    config.store.ok_or_else(|| {
        eprintln!("outlast: the config has no [store]: what the gateway keeps is in memory and gone with the process");
        Exit::Config
    })
}

/// Tells why the store did not do it.
pub(super) fn refused(error: &StoreError) -> Exit {
    eprintln!("outlast: {error}");
    exit_of(error)
}

/// Opens the file for reading, beside a gateway that may be running.
pub(super) fn open(config: &StoreConfig) -> Result<SqliteStore, StoreError> {
    if !config.file.exists() {
        let why = "there is no such file; the gateway makes it when it starts".into();
        return Err(StoreError::Unavailable { place: config.file.display().to_string().into(), why });
    }
    let options = SqliteOptions { access: Access::Read, ..SqliteOptions::new(sealing(config)) };
    SqliteStore::open(&config.file, options, Arc::new(WallClock(Clock::start())))
}

/// Waits for one answer of the store, which is given by a thread of its own.
pub(super) fn wait<T>(answer: outlast_store::Answer<T>) -> Result<T, StoreError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let why = |error: std::io::Error| StoreError::Unavailable { place: "store".into(), why: error.to_string().into() };
    runtime.map_err(why)?.block_on(answer)
}

fn backup(config: &StoreConfig, to: PathBuf) -> Result<Exit, StoreError> {
    let made = wait(open(config)?.backup(to))?;
    Ok(out(&format!("{}: {} bytes, checked\n", made.path.display(), made.bytes)))
}

fn restore(config: &StoreConfig, args: &RestoreArgs) -> Result<Exit, StoreError> {
    if !args.from.exists() {
        eprintln!("outlast: {}: there is no such file", args.from.display());
        return Ok(Exit::NoInput);
    }
    let restored = sqlite::restore(&args.from, &config.file)?;
    let mut text = format!("{}: restored from {}\n", config.file.display(), args.from.display());
    if let Some(aside) = restored.set_aside {
        text += &format!("{}: what was there before\n", aside.display());
    }
    Ok(out(&text))
}

fn check(config: &StoreConfig, json: bool) -> Result<Exit, StoreError> {
    let checked = wait(open(config)?.check())?;
    let text = match json {
        true => serde_json::json!({ "rows": checked.rows, "faults": checked.faults }).to_string() + "\n",
        false => {
            let faults: String = checked.faults.iter().map(|fault| format!("{fault}\n")).collect();
            let place = config.file.display();
            format!("{faults}{place}: {} rows read, {} faults\n", checked.rows, checked.faults.len())
        }
    };
    let printed = out(&text);
    Ok(if checked.faults.is_empty() { printed } else { Exit::Failed })
}

/// `docs/cli.md` lists the codes.
fn exit_of(error: &StoreError) -> Exit {
    match error {
        // What is there is not what it should be.
        StoreError::Corrupt { .. } | StoreError::TooNew { .. } | StoreError::Foreign { .. } => Exit::Failed,
        StoreError::KeyMissing { .. } | StoreError::NotSealed { .. } => Exit::Config,
        StoreError::Full { .. }
        | StoreError::LimitReached { .. }
        | StoreError::TooLarge { .. }
        | StoreError::ReadOnly { .. }
        | StoreError::Busy { .. }
        | StoreError::Overloaded { .. }
        | StoreError::Unavailable { .. }
        | StoreError::Unknown { .. }
        | StoreError::Taken { .. }
        | StoreError::Unsupported { .. }
        | StoreError::Closed => Exit::Unavailable,
    }
}
