//! Two vendors, one local model, and the gateway before them; all in this process, on the loopback.

use super::{lasting, lesser, shop::Shop};
use crate::{
    config::Config,
    fake::{Fake, FakeConfig},
    gateway::{Gateway, StartOptions},
    telemetry::{LogFormat, Recorded, TelemetryOptions},
};
use outlast_engine::TargetView;
use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};
use tempfile::TempDir;

/// What the clients name as `model`.
pub(super) const ROUTE: &str = "assistant";
/// The route's targets, the best first.
const TARGETS: [&str; 3] = [PRIMARY, "vendor-b/large", "local/small"];
/// The target that is broken.
pub(super) const PRIMARY: &str = "vendor-a/large";
/// Words of every text answer, so that a client sees whether one is whole.
pub(super) const WORDS: usize = 48;
/// More calls than the script makes.
const RECORDS: usize = 8192;

/// Everything the demo runs.
pub(super) struct World {
    vendor_a: Fake,
    vendor_b: Fake,
    local: Fake,
    shop: Shop,
    gateway: Gateway,
    home: TempDir,
}

impl World {
    /// Starts all of it.
    ///
    /// # Errors
    /// What could not be started.
    pub(super) async fn start(listen: Option<SocketAddr>) -> Result<Self, String> {
        let home = TempDir::with_prefix("outlast-demo-").map_err(|error| format!("no temporary directory: {error}"))?;
        let vendor_a = fake("vendor-a", 40, 60, 8).await?;
        let vendor_b = fake("vendor-b", 50, 80, 9).await?;
        let local = fake("local", 10, 150, 20).await?;
        let shop = Shop::open().await?;
        let listen = listen.map_or_else(|| "127.0.0.1:0".into(), |listen| listen.to_string());
        let text = config(&listen, [&vendor_a, &vendor_b, &local], shop.address);
        let config = load(&text, home.path())?;
        let telemetry = TelemetryOptions {
            ring_calls: RECORDS,
            ring_bytes: 32 << 20,
            log: LogFormat { human: true, calls: false, events: false },
            ..TelemetryOptions::from(&config.telemetry)
        };
        let options = StartOptions { telemetry: Some(telemetry), ..StartOptions::default() };
        let gateway = Gateway::start(config, options).await.map_err(|error| error.to_string())?;
        Ok(World { vendor_a, vendor_b, local, shop, gateway, home })
    }

    /// Where the gateway listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.gateway.address()
    }

    /// The shop that tools act on.
    pub(super) fn shop(&self) -> &Shop {
        &self.shop
    }

    /// Where the fake of the primary listens.
    pub(super) fn primary_url(&self) -> String {
        self.vendor_a.url()
    }

    /// Where the telemetry file is.
    pub(super) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Makes the primary do this, or heals it.
    ///
    /// # Errors
    /// The fault is not one.
    pub(super) fn break_primary(&self, fault: Option<&str>) -> Result<(), String> {
        match fault {
            Some(fault) => {
                let plan = fault.parse().map_err(|error| format!("{fault}: {error}"))?;
                self.vendor_a.set_fault("*", Some(plan))
            }
            None => self.heal(),
        }
    }

    /// Heals the primary.
    ///
    /// # Errors
    /// As [`Fake::heal`].
    pub(super) fn heal(&self) -> Result<(), String> {
        self.vendor_a.heal()
    }

    /// Makes both vendors do this.
    ///
    /// # Errors
    /// The fault is not one.
    pub(super) fn break_both(&self, fault: &str) -> Result<(), String> {
        let plan = || fault.parse().map_err(|error| format!("{fault}: {error}"));
        self.vendor_a.set_fault("*", Some(plan()?))?;
        self.vendor_b.set_fault("*", Some(plan()?))
    }

    /// Heals both vendors.
    ///
    /// # Errors
    /// As [`Fake::heal`].
    pub(super) fn heal_both(&self) -> Result<(), String> {
        self.vendor_a.heal()?;
        self.vendor_b.heal()
    }

    /// What the engine thinks of each target, in the route's order.
    pub(super) fn targets(&self) -> Vec<TargetView> {
        let mut targets = self.gateway.targets();
        targets.retain(|target| TARGETS.contains(&target.id.as_str()));
        targets.sort_by_key(|target| TARGETS.iter().position(|id| *id == target.id.as_str()));
        targets
    }

    /// The lineage of every call so far, newest first.
    pub(super) fn records(&self) -> Vec<Arc<Recorded>> {
        self.gateway.telemetry().latest(RECORDS)
    }

    /// Stops the gateway, then the fakes.
    pub(super) async fn stop(self) {
        self.gateway.stop().await;
        for fake in [self.vendor_a, self.vendor_b, self.local] {
            fake.shutdown().await;
        }
    }
}

async fn fake(name: &str, latency: u64, first_token: u64, gap: u64) -> Result<Fake, String> {
    let config = FakeConfig {
        chunks: u32::try_from(WORDS).ok(),
        latency: Duration::from_millis(latency),
        first_token: Duration::from_millis(first_token),
        token_gap: Duration::from_millis(gap),
        ..FakeConfig::named(name)
    };
    Fake::start(config).await.map_err(|error| format!("{name} cannot listen: {error}"))
}

fn load(text: &str, home: &Path) -> Result<Config, String> {
    // The store lives as long as the demo; so does the key that seals it.
    let env = |name: &str| match name {
        "DEMO_REVIEWER_KEY" => Some(lasting::REVIEWER_KEY.to_owned()),
        "DEMO_KEY" => Some("demo".to_owned()),
        "DEMO_DATA_KEY" => Some("b3V0bGFzdC1kZW1vLW91dGxhc3QtZGVtby1vdXRsYXM=".to_owned()),
        _ => None,
    };
    Config::from_text(text, "demo.toml", home, &env).map_err(|errors| errors.to_string())
}

/// Deadlines and open periods are shorter than the defaults, so that a minute is enough to see them at work.
fn config(listen: &str, [vendor_a, vendor_b, local]: [&Fake; 3], shop: SocketAddr) -> String {
    let (a, b, local) = (vendor_a.url(), vendor_b.url(), local.url());
    format!(
        r#"
[server]
listen = "{listen}"
drain_timeout = "2s"

[providers.vendor-a]
kind = "openai"
base_url = "{a}/v1"
api_key = "${{DEMO_KEY}}"
timeouts = {{ connect = "1s", header = "2s", first_token = "2s", idle = "1s" }}

[providers.vendor-b]
kind = "anthropic"
base_url = "{b}/v1"
api_key = "${{DEMO_KEY}}"
timeouts = {{ connect = "1s", header = "2s", first_token = "2s", idle = "1s" }}

[providers.local]
kind = "openai-compatible"
base_url = "{local}/v1"
timeouts = {{ connect = "1s", header = "3s", first_token = "3s", idle = "1s" }}

[targets."vendor-a/large"]
capabilities = {{ tools = true, images = true, json_schema = true }}
context_window = 200000
price = {{ input = 3.0, output = 15.0 }}

[targets."vendor-b/large"]
capabilities = {{ tools = true, images = true, json_schema = true }}
context_window = 200000
price = {{ input = 3.0, output = 15.0 }}

[targets."local/small"]
capabilities = {{ tools = true, images = false, json_schema = true }}
context_window = 32000
price = {{ input = 0.0, output = 0.0 }}

[routes.{ROUTE}]
targets = {TARGETS:?}
tier = "critical"
contract = "held"

[contracts.held]
stream = "hold"
hold = {{ tokens = 24, after = "400ms" }}

[health]
open_base = "1s"
open_cap = "2s"
restore_over = "2s"
forgive_every = "500ms"
probe_suspect = "500ms"

[telemetry]
file = "telemetry.db"
sample = 1.0
ring = {RECORDS}
log = "off"
{}
{}
"#,
        lesser::CONFIG,
        lasting::config(shop)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_demos_config_is_valid_and_nothing_in_it_is_doubtful() {
        let [a, b, c] =
            [fake("a", 0, 0, 0).await.unwrap(), fake("b", 0, 0, 0).await.unwrap(), fake("c", 0, 0, 0).await.unwrap()];
        let home = tempfile::tempdir().unwrap();
        let config =
            load(&config("127.0.0.1:0", [&a, &b, &c], SocketAddr::from(([127, 0, 0, 1], 9))), home.path()).unwrap();
        // The catalogue knows none of the demo's models.
        let doubts: Vec<_> =
            config.warnings.iter().filter(|warning| !warning.contains("the catalogue has no model")).collect();
        assert_eq!(doubts, Vec::<&Box<str>>::new());
        assert!(TARGETS.iter().all(|id| config.target(id).is_some()));
    }
}
