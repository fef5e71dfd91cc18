//! `outlast demo`: real traffic survives a provider going down.

use super::Exit;
use crate::demo::{self, Ended, Options};
use clap::Args;
use std::net::SocketAddr;

/// Arguments of `demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Run the script once with a line a second, and exit 1 if a request was lost; for scripts and CI
    #[arg(long)]
    pub once: bool,
    /// Leave it running, to be tried with curl and the SDKs
    #[arg(long, conflicts_with = "once")]
    pub serve: bool,
    /// Where the gateway listens [default: a free port; 127.0.0.1:8080 with --serve]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// A shorter script, for tests
    #[arg(long, hide = true)]
    pub fast: bool,
}

/// Runs the command.
pub fn run(args: DemoArgs) -> Exit {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("outlast: cannot start: {error}");
            return Exit::Unavailable;
        }
    };
    let ended = runtime.block_on(async {
        if args.serve {
            let listen = args.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080)));
            return demo::serve(listen).await.map(|()| Ended::Kept);
        }
        demo::play(Options { plain: args.once, fast: args.fast, listen: args.listen }).await
    });
    match ended {
        Ok(Ended::Kept) => Exit::Ok,
        Ok(Ended::Lost | Ended::Interrupted) => Exit::Failed,
        Err(error) => {
            eprintln!("outlast demo: {error}");
            Exit::Unavailable
        }
    }
}
