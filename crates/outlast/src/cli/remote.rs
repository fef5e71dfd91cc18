//! A running server, asked over its own HTTP API.

use super::{ConfigArg, Exit, process_env};
use crate::{
    alerts::webhook::{Http, connect},
    clock,
    config::{BaseUrl, Config},
};
use bytes::Bytes;
use clap::Args;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use serde_json::Value;
use std::{path::PathBuf, time::Duration};

/// A server that says nothing for so long is not there.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer that is read, in bytes.
const ANSWER_MAX: usize = 64 << 20;
/// Where the key is, so that it is in no process list and no shell history.
const KEY: &str = "OUTLAST_REVIEWER_KEY";
/// Where a caller's key is, or the admin token.
const CALLER_KEY: &str = "OUTLAST_API_KEY";

/// Which server, and with which key.
#[derive(Clone, Debug, Default, Args)]
pub struct RemoteArgs {
    /// The server's address [default: that of the config]
    #[arg(long, env = "OUTLAST_URL", value_name = "URL")]
    pub url: Option<String>,
    /// The file that holds your key [default: the variable OUTLAST_REVIEWER_KEY for escalations, OUTLAST_API_KEY for
    /// runs and workers]
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

/// A server.
pub(super) struct Remote {
    base: BaseUrl,
    key: Option<String>,
}

impl RemoteArgs {
    /// The server of the arguments, if they name one.
    pub(super) fn named(&self) -> Result<Option<Remote>, Exit> {
        self.url.as_deref().map(|url| self.at(url, KEY)).transpose()
    }

    /// The server of the arguments, else of the config, asked as a reviewer.
    pub(super) fn any(&self, config: &ConfigArg) -> Result<Remote, Exit> {
        self.with_key(config, KEY)
    }

    /// The server of the arguments, else of the config, asked as a caller or as the operator.
    pub(super) fn caller(&self, config: &ConfigArg) -> Result<Remote, Exit> {
        self.with_key(config, CALLER_KEY)
    }

    fn with_key(&self, config: &ConfigArg, variable: &str) -> Result<Remote, Exit> {
        if let Some(url) = &self.url {
            return self.at(url, variable);
        }
        let config = config.load(&process_env).map_err(|errors| {
            eprintln!("{errors}");
            Exit::Config
        })?;
        self.at(&address(&config), variable)
    }

    fn at(&self, url: &str, variable: &str) -> Result<Remote, Exit> {
        let base = BaseUrl::parse(url).map_err(|why| {
            eprintln!("outlast: `{url}` is no server's address: {why}");
            Exit::Usage
        })?;
        let key = match &self.key_file {
            Some(file) => Some(std::fs::read_to_string(file).map_err(|error| {
                eprintln!("outlast: {}: {error}", file.display());
                Exit::NoInput
            })?),
            None => process_env(variable),
        };
        let key = key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
        if key.is_some() && !base.is_https() && !base.is_loopback() {
            eprintln!("outlast: the way to {} is not encrypted: whoever listens has your key", base.host());
        }
        Ok(Remote { base, key })
    }
}

fn address(config: &Config) -> String {
    let server = &config.server;
    if let Some(url) = &server.public_url {
        return url.to_string();
    }
    let scheme = if server.tls.is_some() { "https" } else { "http" };
    let mut listen = server.listen;
    if listen.ip().is_unspecified() {
        let here = if listen.is_ipv4() { "127.0.0.1" } else { "::1" };
        listen.set_ip(here.parse().unwrap_or(listen.ip()));
    }
    format!("{scheme}://{listen}")
}

impl Remote {
    /// Asks, and gives what was answered with 2xx. Anything else is told.
    pub(super) fn get(&self, path: &str) -> Result<Value, Exit> {
        self.ask(Method::GET, path, None).and_then(fine)
    }

    /// Tells, and gives what was answered.
    pub(super) fn post(&self, path: &str, body: &Value) -> Result<(StatusCode, Value), Exit> {
        self.ask(Method::POST, path, Some(body))
    }

    fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Value), Exit> {
        let unreachable = |why: &str| {
            eprintln!("outlast: {}: {why}. Is the server running there? Name another with --url.", self.base);
            Exit::Unavailable
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| unreachable(&error.to_string()))?;
        runtime.block_on(async {
            let client: Http = connect().map_err(|error| unreachable(&error.to_string()))?;
            let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
            let mut request = Request::builder().method(method).uri(self.base.join(path));
            request = request.header(header::CONTENT_TYPE, "application/json");
            if let Some(key) = &self.key {
                request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
            }
            let request = request.body(Full::new(body)).map_err(|_| unreachable("the key cannot be sent"))?;
            let reply = clock::timeout(PATIENCE, client.request(request)).await;
            let reply = reply.map_err(|_| unreachable("it does not answer"))?;
            let reply = reply.map_err(|_| unreachable("the connection failed"))?;
            let status = reply.status();
            let body = clock::timeout(PATIENCE, Limited::new(reply.into_body(), ANSWER_MAX).collect()).await;
            let body = body.map_err(|_| unreachable("it does not end its answer"))?;
            let body = body.map_err(|_| unreachable("its answer broke off"))?.to_bytes();
            let answer = serde_json::from_slice(&body).map_err(|_| unreachable("its answer is no JSON"))?;
            Ok((status, answer))
        })
    }
}

/// The answer, if it is a good one; else its message is told.
pub(super) fn fine((status, answer): (StatusCode, Value)) -> Result<Value, Exit> {
    if status.is_success() {
        return Ok(answer);
    }
    let message = answer["error"]["message"].as_str().unwrap_or("it gives no reason");
    eprintln!("outlast: {} ({})", super::readable(message), status.as_u16());
    Err(Exit::Failed)
}
