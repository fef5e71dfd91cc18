//! `outlast import`: turns another gateway's config into this one's.

use super::{Exit, litellm, out};
use clap::Subcommand;
use std::path::PathBuf;

/// Arguments of `import`.
#[derive(Clone, Debug, Subcommand)]
pub enum ImportCommand {
    /// A LiteLLM proxy config: prints ours, and on standard error what could not be carried
    Litellm {
        /// The YAML file
        file: PathBuf,
    },
}

/// Runs the command: [`Exit::Ok`] also when something could not be carried, [`Exit::NoInput`] when the file cannot be
/// read, [`Exit::Failed`] when it is no LiteLLM config or nothing of it could be carried.
pub fn run(command: ImportCommand) -> Exit {
    let ImportCommand::Litellm { file } = command;
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(why) => {
            eprintln!("{}: it cannot be read: {why}", file.display());
            return Exit::NoInput;
        }
    };
    match litellm::import(&text) {
        Ok(imported) => {
            let printed = out(&imported.toml);
            if !imported.notes.is_empty() {
                eprintln!("Not carried, or carried differently:");
            }
            for note in &imported.notes {
                eprintln!("  {note}");
            }
            printed
        }
        Err(why) => {
            eprintln!("{}: {why}", file.display());
            Exit::Failed
        }
    }
}
