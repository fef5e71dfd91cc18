//! `outlast schema`: prints the JSON Schema of the config file.

use super::Exit;
use clap::Args;

/// Arguments of `schema`.
#[derive(Clone, Debug, Args)]
pub struct SchemaArgs {}

/// Runs the command.
pub fn run(_: SchemaArgs) -> Exit {
    eprintln!("outlast schema is not part of this build yet");
    Exit::Internal
}
