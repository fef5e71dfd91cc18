//! `outlast demo`: real traffic survives a provider going down.

use super::Exit;
use clap::Args;

/// Arguments of `demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Run the script once and exit non-zero if a request was lost
    #[arg(long)]
    pub once: bool,
    /// Leave it running, to be tried with curl and the SDKs
    #[arg(long)]
    pub serve: bool,
}

/// Runs the command.
pub fn run(_: DemoArgs) -> Exit {
    eprintln!("outlast demo is not part of this build yet");
    Exit::Internal
}
