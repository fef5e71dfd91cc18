//! `outlast serve`: runs the gateway until it is told to stop.

use super::{ConfigArg, Exit, check::summary, process_env};
use crate::{
    clock,
    config::{Config, ConfigErrors, Reload, Reloader},
    gateway::{ConfigSource, Gateway, StartError, StartOptions},
};
use clap::Args;
use std::{io::IsTerminal, net::SocketAddr, time::Duration};
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

/// A panic is told by its place alone: its message may quote what it was working on, which may be a prompt.
fn hide_panic_messages() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, ToString::to_string);
        eprintln!(
            r#"{{"level":"error","event":"panic","message":"a bug in Outlast; please report it","at":"{place}"}}"#
        );
    }));
}

/// Runs the command.
pub fn run(args: ServeArgs) -> Exit {
    hide_panic_messages();
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
        config.listen_on(listen)?;
    }
    // For people only: what goes to a file or a collector is the log's own form.
    if std::io::stderr().is_terminal() {
        eprint!("{}", summary(&config));
    }
    Ok(config)
}

async fn serve(config: Config, args: ServeArgs) -> Exit {
    let source: Box<dyn ConfigSource> = match args.config.file() {
        Some(file) => Box::new(FromFile(Reloader::new(file, &config))),
        None => Box::new(FromEnvironment),
    };
    let options = StartOptions { source: Some(source), ..StartOptions::default() };
    let gateway = match Gateway::start(config, options).await {
        Ok(gateway) => gateway,
        Err(error) => {
            eprintln!("outlast: {error}");
            return match error {
                StartError::Listen(..) | StartError::Telemetry(_) | StartError::Store(_) | StartError::Threads(_) => {
                    Exit::Unavailable
                }
                StartError::Tls(_) => Exit::Config,
            };
        }
    };
    match Signals::listen() {
        Ok(signals) => until_stopped(&gateway, signals).await,
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
async fn until_stopped(gateway: &Gateway, mut signals: Signals) {
    let mut poll = clock::interval(CONFIG_POLL);
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return,
            _ = signals.interrupt.recv() => return,
            // Both outcomes are in the log and the metrics.
            _ = signals.hang_up.recv() => {
                let _ = gateway.reload().await;
            }
            _ = poll.tick() => gateway.reload_if_changed().await,
        }
    }
}

struct FromFile(Reloader);

impl ConfigSource for FromFile {
    fn is_changed(&self) -> bool {
        self.0.is_changed()
    }

    fn reload(&mut self, running: &Config) -> Result<Reload, ConfigErrors> {
        self.0.reload(running, &process_env)
    }
}

/// A process's environment does not change from outside: only what was misread could.
struct FromEnvironment;

impl ConfigSource for FromEnvironment {
    fn is_changed(&self) -> bool {
        false
    }

    fn reload(&mut self, running: &Config) -> Result<Reload, ConfigErrors> {
        Reload::of(running, Config::from_env(&process_env)?)
    }
}
