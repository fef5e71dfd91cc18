//! `outlast serve`: runs the gateway until it is told to stop.

use super::{ConfigArg, Exit, process_env};
use crate::{
    clock,
    config::{Config, ConfigErrors},
    gateway::{Gateway, StartError, StartOptions},
    telemetry::LogEvent,
};
use clap::Args;
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How often the config file's content is compared with what is in force. Reading it finds replaced symlinks and bind
/// mounts too, where file events do not.
const CONFIG_POLL: Duration = Duration::from_secs(2);

/// Arguments of `serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Where the config is.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Where to listen, instead of the config's `server.listen`
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
}

/// Runs the command.
pub fn run(args: ServeArgs) -> Exit {
    let config = match load(&args.config, args.listen) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return Exit::Config;
        }
    };
    // Requests run on worker threads of their own; this one accepts, probes and watches.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("outlast: cannot start: {error}");
            return Exit::Unavailable;
        }
    };
    runtime.block_on(serve(config, args))
}

fn load(from: &ConfigArg, listen: Option<SocketAddr>) -> Result<Config, ConfigErrors> {
    let mut config = from.load(&process_env)?;
    if let Some(listen) = listen {
        config.server.listen = listen;
    }
    Ok(config)
}

async fn serve(config: Config, args: ServeArgs) -> Exit {
    let file = args.config.file();
    let warnings = config.warnings.clone();
    let source = config.source.clone();
    let (from, listen) = (args.config, args.listen);
    let loader = Box::new(move || load(&from, listen));
    let options = StartOptions { loader: Some(loader), ..StartOptions::default() };
    let gateway = match Gateway::start(config, options).await {
        Ok(gateway) => gateway,
        Err(error) => {
            eprintln!("outlast: {error}");
            return match error {
                StartError::Listen(..) | StartError::Telemetry(_) | StartError::Threads(_) => Exit::Unavailable,
                StartError::Tls(_) => Exit::Config,
            };
        }
    };
    let started = LogEvent::info("start", format!("listening on {}", gateway.address()));
    gateway.telemetry().event(started.with("config", &*source).with("version", env!("CARGO_PKG_VERSION")));
    for warning in &warnings {
        gateway.telemetry().event(LogEvent::warn("config_warning", &**warning));
    }
    match Signals::listen() {
        Ok(signals) => until_stopped(&gateway, signals, file).await,
        Err(error) => {
            eprintln!("outlast: cannot listen for signals: {error}");
            gateway.stop().await;
            return Exit::Unavailable;
        }
    }
    if gateway.stop().await { Exit::Ok } else { Exit::Failed }
}

struct Signals {
    hang_up: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Signals {
            hang_up: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// Reloads on SIGHUP and when the file's content changes; returns on SIGTERM and SIGINT.
async fn until_stopped(gateway: &Gateway, mut signals: Signals, file: Option<PathBuf>) {
    let mut poll = clock::interval(CONFIG_POLL);
    // A bad file is told once, not at every poll.
    let mut judged = gateway.config_hash();
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return,
            _ = signals.interrupt.recv() => return,
            _ = signals.hang_up.recv() => {}
            _ = poll.tick() => {
                let now = hash(file.as_ref()).await;
                // A file that cannot be read may be in the middle of being replaced.
                if now.is_none() || now == judged {
                    continue;
                }
                judged = now;
            }
        }
        // Both outcomes are in the log and the metrics.
        let _ = gateway.reload().await;
        judged = hash(file.as_ref()).await.or(judged);
    }
}

async fn hash(file: Option<&PathBuf>) -> Option<[u8; 32]> {
    let file = file?.clone();
    let bytes = tokio::task::spawn_blocking(move || std::fs::read(file)).await.ok()?.ok()?;
    Some(*blake3::hash(&bytes).as_bytes())
}
