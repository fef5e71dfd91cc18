//! What the commands of a page act on: fake providers, a gateway, a folder, and variables.

use crate::{
    command::{self, Curl},
    common::{Ask, GUARD, until_some},
    page::Step,
    printed,
};
use outlast::{
    config::Config,
    fake::{Fake, FakeConfig},
    gateway::{Gateway, StartOptions},
};
use std::{collections::BTreeMap, net::SocketAddr, process::Command};

/// Where pages say the gateway listens.
const GATEWAY: &str = "127.0.0.1:8080";
/// Where pages say providers listen: 127.0.0.1:9001 and on.
const PROVIDERS: &str = "127.0.0.1:90";

/// The environment of the pages' configs. The data key is 32 bytes of nothing.
fn env(name: &str) -> Option<String> {
    Some(match name {
        "OUTLAST_DATA_KEY" => "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".into(),
        "ADMIN_TOKEN" => "admin-token-0123456789".into(),
        name if name.ends_with("_KEY") || name.ends_with("_SECRET") => format!("sk-{}", name.to_lowercase()),
        _ => return None,
    })
}

pub(crate) struct World {
    folder: tempfile::TempDir,
    fakes: BTreeMap<String, Fake>,
    gateway: Option<Gateway>,
    /// The config of a gateway that is not started yet.
    next: Option<String>,
    variables: BTreeMap<String, String>,
}

impl Default for World {
    fn default() -> Self {
        World {
            folder: tempfile::tempdir().expect("a folder"),
            fakes: BTreeMap::new(),
            gateway: None,
            next: None,
            variables: BTreeMap::new(),
        }
    }
}

impl World {
    /// Writes a file; on an `outlast.toml` a new gateway starts before the next command.
    pub(crate) fn write(&mut self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, text).expect("a file");
        if name == "outlast.toml" {
            self.next = Some(text.to_owned());
        }
    }

    async fn start(&mut self, toml: &str) {
        for address in toml.split('"').filter_map(|part| part.strip_prefix("http://")).map(authority) {
            if address.starts_with(PROVIDERS) && !self.fakes.contains_key(address) {
                let fake = Fake::start(FakeConfig::named("fake")).await.expect("a free port");
                self.fakes.insert(address.to_owned(), fake);
            }
        }
        if let Some(gateway) = self.gateway.take() {
            gateway.stop().await;
        }
        let toml = self.here(&crate::common::rig::complete(toml));
        std::fs::write(self.folder.path().join("outlast.toml"), &toml).expect("a file");
        let config = Config::from_text(&toml, "outlast.toml", self.folder.path(), &env);
        let config = config.unwrap_or_else(|errors| panic!("{errors}\nin:\n{toml}"));
        let options = StartOptions { workers: Some(2), ..StartOptions::default() };
        self.gateway = Some(Gateway::start(config, options).await.expect("the gateway starts"));
    }

    /// Performs a command and returns what it prints.
    pub(crate) async fn perform(&mut self, step: &Step) -> String {
        if let Some(toml) = self.next.take() {
            self.start(&toml).await;
        }
        let mut got = self.once(step.command()).await;
        if step.waits() && !printed::matches(&step.shown, &got) {
            let polling = until_some("what the page shows", async || {
                got = self.once(step.command()).await;
                printed::matches(&step.shown, &got).then_some(())
            });
            // In vain: the page shows what was printed last against what it promised.
            let _ = tokio::time::timeout(GUARD / 2, polling).await;
        }
        got
    }

    async fn once(&mut self, typed: &str) -> String {
        let assigned = typed.split_once("=$(").filter(|(name, _)| name.chars().all(|c| c.is_ascii_lowercase()));
        if let Some((name, command)) = assigned {
            let command = command.trim_end().strip_suffix(')').expect("`)` at the end");
            let value = self.piped(command).await;
            self.variables.insert(name.to_owned(), value);
            return String::new();
        }
        self.piped(typed).await
    }

    async fn piped(&mut self, typed: &str) -> String {
        let (command, filter) = match typed.rsplit_once(" | jq") {
            Some((command, filter)) => (command, Some(format!("jq{filter}"))),
            None => (typed, None),
        };
        let words: Vec<String> = command::words(command).iter().map(|word| self.here(word)).collect();
        let printed = match words[0].as_str() {
            "curl" => self.curl(&Curl::read(&words)).await,
            "outlast" => self.outlast(&words[1..]),
            other => panic!("`{other}` is not understood here"),
        };
        let printed = self.there(&printed);
        match filter {
            Some(filter) => command::jq(&command::words(&filter), &printed),
            None => printed,
        }
    }

    async fn curl(&self, curl: &Curl) -> String {
        let (address, path) = match curl.url.strip_prefix("http://").and_then(|url| url.split_once('/')) {
            Some((address, path)) => (address.parse::<SocketAddr>().expect("an address"), format!("/{path}")),
            None => panic!("no such URL here: {}", curl.url),
        };
        let mut ask = match &curl.body {
            Some(body) => Ask::post(&path, body.clone()),
            None => Ask::get(&path),
        };
        if let Some(method) = curl.method {
            ask = ask.method(method);
        }
        for (name, value) in &curl.headers {
            ask = ask.header(name, value);
        }
        let reply = tokio::time::timeout(GUARD, ask.send(address)).await.expect("an answer in time");
        let mut printed = String::new();
        if curl.head {
            printed += &format!("HTTP/1.1 {}\n", reply.status());
            for (name, value) in reply.head.headers.iter().filter(|(name, _)| name.starts_with("x-outlast")) {
                printed += &format!("{name}: {value}\n");
            }
            printed.push('\n');
        }
        printed + &reply.text()
    }

    fn outlast(&self, words: &[String]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
        command.args(words).current_dir(self.folder.path());
        for name in ["OUTLAST_DATA_KEY", "ADMIN_TOKEN", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "WEBHOOK_SECRET"] {
            command.env(name, env(name).expect("a value"));
        }
        let output = command.output().expect("the binary runs");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    /// The page's addresses and variables as they are here.
    fn here(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in &self.variables {
            text = text.replace(&format!("${name}"), value);
        }
        if let Some(gateway) = &self.gateway {
            text = text.replace(GATEWAY, &gateway.address().to_string());
        }
        self.fakes.iter().fold(text, |text, (page, fake)| text.replace(page.as_str(), &fake.addr().to_string()))
    }

    /// What was printed here as the page says it.
    fn there(&self, text: &str) -> String {
        let text = match &self.gateway {
            Some(gateway) => text.replace(&gateway.address().to_string(), GATEWAY),
            None => text.to_owned(),
        };
        self.fakes.iter().fold(text, |text, (page, fake)| text.replace(&fake.addr().to_string(), page))
    }

    pub(crate) async fn stop(self) {
        if let Some(gateway) = self.gateway {
            gateway.stop().await;
        }
    }
}

fn authority(url: &str) -> &str {
    url.split('/').next().unwrap_or_default()
}
