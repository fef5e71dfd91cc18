//! `outlast check`: judges the config.

use super::{ConfigArg, Exit};
use clap::Args;

/// Arguments of `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Where the config is.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(_: CheckArgs) -> Exit {
    eprintln!("outlast check is not part of this build yet");
    Exit::Internal
}
