//! `outlast fake`: runs the fault-injecting provider.

use super::Exit;
use clap::Args;

/// Arguments of `fake`.
#[derive(Clone, Debug, Args)]
pub struct FakeArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9900")]
    pub listen: std::net::SocketAddr,
}

/// Runs the command.
pub fn run(_: FakeArgs) -> Exit {
    eprintln!("outlast fake is not part of this build yet");
    Exit::Internal
}
