//! `outlast drill`: rehearses failures.

use super::Exit;
use clap::Subcommand;

/// Arguments of `drill`.
#[derive(Clone, Debug, Subcommand)]
pub enum DrillCommand {
    /// Run fault scenarios in virtual time
    Sim {
        /// The same seed gives the same trace
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

/// Runs the command.
pub fn run(_: DrillCommand) -> Exit {
    eprintln!("outlast drill is not part of this build yet");
    Exit::Internal
}
