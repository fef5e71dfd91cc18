//! `outlast explain`: says what would happen to a call, and why.

use super::{ConfigArg, Exit};
use clap::Args;

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

/// Runs the command.
pub fn run(_: ExplainArgs) -> Exit {
    eprintln!("outlast explain is not part of this build yet");
    Exit::Internal
}
