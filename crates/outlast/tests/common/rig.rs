//! A gateway in this process.

use super::{Ask, until_some};
use outlast::{
    config::Config,
    fake::{Fake, FakeConfig},
    gateway::{Gateway, StartOptions},
};
use outlast_drill::FaultPlan;
use outlast_model::record::CallRecord;
use outlast_store::Store;
use serde_json::Value;
use std::{net::SocketAddr, sync::Arc};

/// The environment of configs under test.
pub(crate) fn env(name: &str) -> Option<String> {
    let value = match name {
        "CALLER_ONE" => "sk-caller-one-0123456789",
        "CALLER_TWO" => "sk-caller-two-0123456789",
        "ADMIN_TOKEN" => "admin-token-0123456789",
        "KEY_ZERO" => "sk-upstream-zero-0123456789",
        "KEY_ONE" => "sk-upstream-one-0123456789",
        "DATA_KEY" => "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        "SLACK_PATH" => "chat",
        "ANNA_KEY" => "reviewer-anna-0123456789",
        "BOB_KEY" => "reviewer-bob-0123456789",
        "ALERT_SECRET" => "alert-secret-0123456789",
        _ => return None,
    };
    Some(value.to_owned())
}

/// A plan from its text form.
pub(crate) fn plan(text: &str) -> Option<FaultPlan> {
    Some(text.parse().unwrap_or_else(|error| panic!("{text}: {error}")))
}

/// A fake provider.
pub(crate) async fn fake(name: &str) -> Fake {
    Fake::start(FakeConfig::named(name)).await.expect("a free port")
}

/// A running gateway, its config's folder and how to ask it.
pub(crate) struct Rig {
    pub(crate) gateway: Gateway,
    pub(crate) folder: tempfile::TempDir,
}

impl Rig {
    /// Starts a gateway on a config. `[server]`, `[telemetry]` and `[health]` are for the test to write or leave.
    pub(crate) async fn start(toml: &str) -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let gateway = start_in(toml, &folder).await;
        Rig { gateway, folder }
    }

    /// Starts a gateway on a config and a store of the test's own.
    pub(crate) async fn start_on(toml: &str, store: Arc<dyn Store>) -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let gateway = start_with(toml, &folder, Some(store)).await;
        Rig { gateway, folder }
    }

    /// Starts another gateway on the same folder, after this one has stopped.
    pub(crate) async fn restart(self, toml: &str) -> Rig {
        let Rig { gateway, folder } = self;
        assert!(gateway.stop().await);
        let gateway = start_in(toml, &folder).await;
        Rig { gateway, folder }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.gateway.address()
    }

    pub(crate) async fn ask(&self, ask: Ask) -> super::Reply {
        ask.send(self.address()).await
    }

    /// The record of a call, once it is settled.
    pub(crate) async fn record(&self, request_id: &str) -> CallRecord {
        let telemetry = self.gateway.telemetry();
        until_some("the call's record", async || telemetry.find(request_id)).await.call.clone()
    }

    /// The record of the latest call, once there are so many.
    pub(crate) async fn latest_of(&self, count: usize) -> CallRecord {
        let telemetry = self.gateway.telemetry();
        until_some("the calls' records", async || {
            let latest = telemetry.latest(count);
            (latest.len() == count).then(|| latest[0].call.clone())
        })
        .await
    }

    /// The text of `/metrics`.
    pub(crate) fn metrics(&self) -> String {
        self.gateway.telemetry().expose(&self.gateway.targets())
    }
}

async fn start_in(toml: &str, folder: &tempfile::TempDir) -> Gateway {
    start_with(toml, folder, None).await
}

async fn start_with(toml: &str, folder: &tempfile::TempDir, store: Option<Arc<dyn Store>>) -> Gateway {
    let toml = complete(toml);
    let config = Config::from_text(&toml, "outlast.toml", folder.path(), &env)
        .unwrap_or_else(|errors| panic!("{errors}\nin:\n{toml}"));
    let options = StartOptions { workers: Some(2), store, ..StartOptions::default() };
    Gateway::start(config, options).await.expect("the gateway starts")
}

/// Adds what a test's config leaves out: a free port, and silence.
pub(crate) fn complete(toml: &str) -> String {
    let mut toml = toml.to_owned();
    if toml.contains("[server]") {
        toml = toml.replace("[server]", "[server]\nlisten = \"127.0.0.1:0\"");
    } else {
        toml += "\n[server]\nlisten = \"127.0.0.1:0\"\n";
    }
    if !toml.contains("[telemetry]") {
        toml += "\n[telemetry]\nlog = \"off\"\n";
    }
    toml
}

/// A provider section. It is not probed, so that a test may count what its calls cause.
pub(crate) fn provider(name: &str, kind: &str, url: &str, more: &str) -> String {
    format!("[providers.{name}]\nkind = \"{kind}\"\nbase_url = \"{url}/v1\"\nprobes = false\n{more}\n")
}

/// Providers `a` and `b` and a route `main` over both.
pub(crate) fn two(a: &str, b: &str) -> String {
    provider("a", "openai-compatible", a, "")
        + &provider("b", "openai-compatible", b, "")
        + "[routes.main]\ntargets = [\"a/m\", \"b/m\"]\n"
}

/// Two fakes, and a config with a route `main` over both.
pub(crate) async fn two_fakes() -> (Fake, Fake, String) {
    let (a, b) = (fake("alpha").await, fake("beta").await);
    let config = two(&a.url(), &b.url());
    (a, b, config)
}

/// A field of a log line, as text.
pub(crate) fn field(line: &Value, name: &str) -> String {
    line[name].as_str().map_or_else(|| line[name].to_string(), str::to_owned)
}
