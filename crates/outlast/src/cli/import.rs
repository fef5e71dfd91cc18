//! `outlast import`: turns another gateway's config into this one's.

use super::Exit;
use clap::Subcommand;

/// Arguments of `import`.
#[derive(Clone, Debug, Subcommand)]
pub enum ImportCommand {
    /// A LiteLLM proxy config: prints ours, and on standard error what could not be carried
    Litellm {
        /// The YAML file
        file: std::path::PathBuf,
    },
}

/// Runs the command.
pub fn run(_: ImportCommand) -> Exit {
    eprintln!("outlast import is not part of this build yet");
    Exit::Internal
}
