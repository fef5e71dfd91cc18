//! `outlast schema`: prints the JSON Schema of the config file.

use super::{Exit, check::pretty, out};
use clap::Args;

/// Arguments of `schema`.
#[derive(Clone, Debug, Args)]
pub struct SchemaArgs {}

/// Runs the command.
pub fn run(_: SchemaArgs) -> Exit {
    out(&pretty(&crate::config::schema()))
}
