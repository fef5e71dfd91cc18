//! Tools on MCP servers: one client for each server of the config, kept as long as the config is.
//!
//! Our own client, because what has to be known of a call is whether it left: see `docs/decisions/`. [`session`] is
//! what is said, [`stdio`] and [`streamable`] how it gets there.

mod session;
mod stdio;
mod streamable;

use super::{
    super::Shared,
    ToolError,
    attempt::{Errand, Outcome},
};
use crate::config::{McpServer, McpTransport};
use outlast_engine::run::Proof;
use outlast_model::policy::ToolKind;
use serde_json::Value;
use session::{Listed, Lost};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The clients.
#[derive(Default)]
pub(super) struct Servers(Mutex<BTreeMap<Arc<str>, Arc<Client>>>);

/// A client of one server.
struct Client {
    config: Arc<McpServer>,
    way: Way,
}

enum Way {
    Stdio(stdio::Process),
    Http(streamable::Remote),
}

/// What a server says of a tool.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) description: Option<String>,
    pub(super) input: Option<Value>,
}

impl Servers {
    /// Lets go of every server that is not configured so any more. What is under way there goes on to its end.
    pub(super) fn keep(&self, servers: &BTreeMap<Arc<str>, Arc<McpServer>>) {
        self.lock().retain(|name, client| servers.get(name).is_some_and(|server| **server == *client.config));
    }

    /// What the server has said of a tool, if it was asked before.
    pub(super) fn told(&self, kind: &ToolKind) -> Option<Told> {
        let ToolKind::Mcp { server, tool } = kind else { return None };
        let client = self.lock().get(server).cloned()?;
        let listed = match &client.way {
            Way::Stdio(process) => process.listed(),
            Way::Http(remote) => remote.listed(),
        }?;
        listed.get(&**tool).cloned()
    }

    /// Calls a tool there.
    pub(super) async fn call(
        &self,
        shared: &Arc<Shared>,
        server: &Arc<McpServer>,
        tool: &str,
        errand: &Errand<'_>,
    ) -> Outcome {
        let client = self.client(server);
        let params = session::call_params(tool, errand);
        let result = match &client.way {
            Way::Stdio(process) => process.call(shared, tool, params, errand.timeout).await,
            Way::Http(remote) => remote.call(tool, params, errand).await,
        };
        match result {
            Ok(result) => session::outcome(&result),
            Err(lost) => lost.outcome(),
        }
    }

    fn client(&self, server: &Arc<McpServer>) -> Arc<Client> {
        let mut clients = self.lock();
        if let Some(client) = clients.get(&server.name).filter(|client| *client.config == **server) {
            return client.clone();
        }
        let way = match &server.transport {
            McpTransport::Command { .. } => Way::Stdio(stdio::Process::new(server.clone())),
            McpTransport::Http(endpoint) => Way::Http(streamable::Remote::new(endpoint.clone())),
        };
        let client = Arc::new(Client { config: server.clone(), way });
        clients.insert(server.name.clone(), client.clone());
        client
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<Client>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lost {
    fn outcome(self) -> Outcome {
        match self {
            Lost::Unsent(why) => {
                Outcome::away(ToolError::new("unreachable", format!("The MCP server cannot be used: {why}.")))
            }
            Lost::Resting(after) => {
                let error = ToolError::new("unreachable", "The MCP server keeps ending, and is started again later.");
                Outcome::Failed { error, proof: Proof::Again { after }, fault: true }
            }
            Lost::Refused(error) => Outcome::refused(error),
            Lost::Http(lost) => lost.outcome(),
            Lost::Answered(outcome) => *outcome,
            Lost::Died => Outcome::Unknown(ToolError::new("broken", "The MCP server ended after the call was sent.")),
            Lost::Late => Outcome::Unknown(ToolError::new("timeout", "The MCP server did not answer in time.")),
        }
    }
}

/// What is listed, by the tool's name.
type Tools = BTreeMap<String, Told>;

fn unknown_tool(listed: &Listed, tool: &str) -> Option<Lost> {
    let known = listed.contains_key(tool);
    let error = || ToolError::new("no_such_tool", "The MCP server has no such tool.");
    (!known).then(|| Lost::Refused(error()))
}
