//! `outlast fake`: runs the fault-injecting provider.

use super::Exit;
use crate::fake::{Fake, FakeConfig};
use clap::Args;
use outlast_drill::{FaultPlan, fault::parse_time};
use std::{net::SocketAddr, time::Duration};

/// Arguments of `fake`.
#[derive(Clone, Debug, Args)]
pub struct FakeArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9900")]
    pub listen: SocketAddr,
    /// Its name, which its answers give
    #[arg(long, default_value = "fake")]
    pub name: String,
    /// A fault for every model, such as 503:share=0.3 or cut:after=5,how=eof; more in docs/faults.md
    #[arg(long, value_name = "FAULT")]
    pub fault: Option<FaultPlan>,
    /// Before every response head, such as 200ms
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "0")]
    pub latency: Duration,
    /// Between the head and the first output
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "0")]
    pub first_token: Duration,
    /// Between two outputs of a stream
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "0")]
    pub token_gap: Duration,
    /// Chunks of a plain text answer [default: about 16]
    #[arg(long, value_name = "COUNT")]
    pub chunks: Option<u32>,
    /// A model that /v1/models lists; repeatable. Any other is answered too
    #[arg(long = "model", value_name = "NAME")]
    pub models: Vec<String>,
    /// An API key it accepts; repeatable. With none it accepts all
    #[arg(long = "key", value_name = "KEY")]
    pub keys: Vec<String>,
    /// Calls at once beyond which it answers 429
    #[arg(long, value_name = "COUNT")]
    pub capacity: Option<u32>,
    /// Calls kept for GET /fake/log; 0 keeps none
    #[arg(long, value_name = "COUNT", default_value_t = 4096)]
    pub log: usize,
    /// For the lots that faults with a share draw
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Take requests that the vendors would refuse: fields out of range, misplaced roles, empty texts
    #[arg(long)]
    pub lenient: bool,
    /// Threads [default: one per core]
    #[arg(long, value_name = "COUNT")]
    pub threads: Option<usize>,
}

fn time(text: &str) -> Result<Duration, String> {
    parse_time(text).ok_or_else(|| format!("`{text}` is no time; give one such as 250ms, 3s or 2m"))
}

impl FakeArgs {
    fn config(&self) -> FakeConfig {
        let default = FakeConfig::default();
        FakeConfig {
            addr: self.listen,
            name: self.name.clone(),
            models: if self.models.is_empty() { default.models } else { self.models.clone() },
            chunks: self.chunks,
            latency: self.latency,
            first_token: self.first_token,
            token_gap: self.token_gap,
            keys: self.keys.clone(),
            capacity: self.capacity,
            log: self.log,
            seed: self.seed,
            strict: !self.lenient,
        }
    }
}

/// Runs the command until it is interrupted.
pub fn run(args: FakeArgs) -> Exit {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = args.threads {
        runtime.worker_threads(threads.max(1));
    }
    let Ok(runtime) = runtime.enable_all().build() else { return Exit::Internal };
    runtime.block_on(serve(args))
}

async fn serve(args: FakeArgs) -> Exit {
    let fake = match Fake::start(args.config()).await {
        Ok(fake) => fake,
        Err(error) => {
            eprintln!("cannot listen on {}: {error}", args.listen);
            return Exit::Unavailable;
        }
    };
    if let Some(plan) = args.fault
        && let Err(error) = fake.set_fault("*", Some(plan))
    {
        eprintln!("--fault: {error}");
        return Exit::Usage;
    }
    println!(
        "{} listens on {} (OpenAI base URL {}/v1, Anthropic base URL {})",
        args.name,
        fake.addr(),
        fake.url(),
        fake.url()
    );
    // Without the signal there is no other way to end it than to kill it, which works as well.
    let _ = tokio::signal::ctrl_c().await;
    fake.shutdown().await;
    Exit::Ok
}
