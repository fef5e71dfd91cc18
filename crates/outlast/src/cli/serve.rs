//! `outlast serve`: runs the gateway.

use super::{ConfigArg, Exit};
use clap::Args;

/// Arguments of `serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Where the config is.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Where to listen, instead of the config's `server.listen`
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<std::net::SocketAddr>,
}

/// Runs the command.
pub fn run(_: ServeArgs) -> Exit {
    eprintln!("outlast serve is not part of this build yet");
    Exit::Internal
}
