//! Tools: what may be called, what happens in the world when it is called twice, and what follows from that.
//!
//! Addresses, headers and credentials stay with the host: they may hold secrets, and no decision needs them.

use super::Schema;
use crate::{
    id::ToolName,
    run::{EffectClass, RetryBudget},
};
use std::{sync::Arc, time::Duration};

/// One tool, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolSpec {
    /// Its name: of `[tools.NAME]`, in `/v1/tools/NAME`, and what a model calls it.
    pub name: ToolName,
    /// What it does, for models and people.
    pub description: Option<Arc<str>>,
    /// How it is reached.
    pub kind: ToolKind,
    /// What happens in the world when it is called twice.
    pub class: EffectClass,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How often, how long and for how much it is tried.
    pub retry: RetryBudget,
    /// What is tried next once it surely did not happen and the tool is away, in this order. They have the
    /// same class and take the same arguments.
    pub alternatives: Vec<ToolName>,
    /// Whether a person has to agree before it is called.
    pub approval: ApprovalPolicy,
    /// Whether it may be called in tool mode `read-only`: it changes nothing.
    pub read_only: bool,
    /// How the receiver is asked whether it happened. Every tool of class `verify` has one.
    pub verify: Option<VerifyHook>,
    /// What its arguments have to be.
    pub input: Option<Arc<Schema>>,
    /// What its result has to be.
    pub output: Option<Arc<Schema>>,
}

/// How a tool is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolKind {
    /// By HTTP.
    Http {
        /// How.
        method: HttpMethod,
        /// The header that carries our key.
        key_header: Arc<str>,
    },
    /// By MCP.
    Mcp {
        /// The server: `[mcp.NAME]`.
        server: Arc<str>,
        /// What the tool is called there.
        tool: Arc<str>,
    },
    /// A worker does it.
    Worker {
        /// Of this queue.
        queue: Arc<str>,
    },
}

impl ToolKind {
    /// The name used in config and docs.
    pub const fn name(&self) -> &'static str {
        match self {
            ToolKind::Http { .. } => "http",
            ToolKind::Mcp { .. } => "mcp",
            ToolKind::Worker { .. } => "worker",
        }
    }
}

/// How a tool is asked over HTTP. With `get`, arguments go into the query; otherwise they are the JSON body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpMethod {
    /// `GET`.
    Get,
    /// `POST`.
    Post,
    /// `PUT`.
    Put,
    /// `PATCH`.
    Patch,
    /// `DELETE`.
    Delete,
}

impl HttpMethod {
    /// As it stands in a request and in the config.
    pub const fn name(self) -> &'static str {
        match self {
            HttpMethod::Get => "GET",
            HttpMethod::Post => "POST",
            HttpMethod::Put => "PUT",
            HttpMethod::Patch => "PATCH",
            HttpMethod::Delete => "DELETE",
        }
    }
}

/// Whether a person has to agree before a tool is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ApprovalPolicy {
    /// No.
    #[default]
    Never,
    /// Yes.
    Always,
    /// If this expression is true of `arguments`. If it cannot be told, a person has to.
    When(Arc<str>),
}

impl ApprovalPolicy {
    /// Whether it can ever ask.
    pub const fn may_ask(&self) -> bool {
        match self {
            ApprovalPolicy::Never => false,
            ApprovalPolicy::Always | ApprovalPolicy::When(_) => true,
        }
    }
}

/// How a receiver is asked whether an effect took place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyHook {
    /// Who is asked.
    pub by: VerifyBy,
    /// The expression over `response`, `arguments` and `key` that is true if it took place. False: it did not. If it
    /// cannot be told, nothing is known.
    pub done: Arc<str>,
    /// The expression over the same facts that gives the effect's result; without one it is the response.
    pub result: Option<Arc<str>>,
}

/// Who is asked whether an effect took place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyBy {
    /// An address, which the host keeps. A 404 means that it did not take place.
    Http {
        /// How.
        method: HttpMethod,
    },
    /// Another tool, of class `pure`.
    Tool(ToolName),
}
