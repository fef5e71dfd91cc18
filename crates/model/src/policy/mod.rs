//! Targets, routes, tiers and contracts after the config has been read and judged. Valid by
//! construction: what the config reader lets through, the engine may trust.

mod backstop;
mod contract;
mod priority;
mod tier;
mod tool;
mod workflow;

pub use backstop::{Backstop, BackstopKind, BackstopName, Rule, Webhook};
pub use contract::{
    AfterRepair, Checks, Confidence, ConfidenceFrom, Contract, ContractNeeds, Evidence, Expression, Fix, HttpValidator,
    Judge, Keep, Length, Permissions, RefusalPolicy, Repair, SafetyPolicy, Schema, Shorten, StreamContract, ToolMode,
    ToolPolicy,
};
pub use priority::Priority;
pub use tier::{Agree, Disagreement, FieldRule, Hedge, Tier, VoteSpread, Votes};
pub use tool::{ApprovalPolicy, HttpMethod, ToolKind, ToolSpec, VerifyBy, VerifyHook};
pub use workflow::{Branch, Goto, StepSpec, Undo, Workflow, WorkflowStep};

use crate::{Price, ProviderId, RouteId, TargetId, Usd};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// A wire format for model calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// `POST /v1/chat/completions`.
    OpenaiChat,
    /// `POST /v1/messages`.
    Anthropic,
}

impl Dialect {
    /// Every dialect, in the order of [`Dialect::index`].
    pub const ALL: [Dialect; 2] = [Dialect::OpenaiChat, Dialect::Anthropic];

    /// A dense index for tables.
    pub const fn index(self) -> usize {
        match self {
            Dialect::OpenaiChat => 0,
            Dialect::Anthropic => 1,
        }
    }

    /// The name used in config, logs and docs.
    pub const fn name(self) -> &'static str {
        match self {
            Dialect::OpenaiChat => "openai-chat",
            Dialect::Anthropic => "anthropic",
        }
    }
}

/// How sure we are that a target can do something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ability {
    /// Stated by config or catalogue.
    Yes,
    /// Stated by config or catalogue.
    No,
    /// Nobody said; it is tried, after the targets that surely can.
    #[default]
    Unknown,
}

/// What a target can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Function tools.
    pub tools: Ability,
    /// Image input.
    pub images: Ability,
    /// Output held to a JSON Schema by the provider.
    pub json_schema: Ability,
}

/// The five deadlines of an attempt. All of them are always on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// Until the connection stands.
    pub connect: Duration,
    /// Until the response head. For a reply that is not streamed the head comes with the whole reply.
    pub header: Duration,
    /// Until the first semantic output of a stream.
    pub first_token: Duration,
    /// Between two outputs of a stream, and between two reads of a body.
    pub idle: Duration,
    /// For one attempt as a whole. The call's own deadline is its tier's.
    pub total: Duration,
}

/// One way to get an answer, as the engine sees it: no URL, no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetSpec {
    /// `provider/model`.
    pub id: TargetId,
    /// The provider part.
    pub provider: ProviderId,
    /// Where the provider runs it, if the config says.
    pub region: Option<Arc<str>>,
    /// What it speaks.
    pub dialect: Dialect,
    /// What it can do.
    pub capabilities: Capabilities,
    /// The most tokens of input and output together, if known.
    pub context_window: Option<u32>,
    /// The most output tokens, if known.
    pub max_output: Option<u32>,
    /// What it charges; absent when neither config nor catalogue knows.
    pub price: Option<Price>,
    /// Its deadlines.
    pub timeouts: Timeouts,
    /// How many API keys the provider has; at least one, which may be "no key".
    pub keys: u8,
    /// Whether Outlast may send it one-token probes of its own.
    pub probes: bool,
}

/// Engine-wide numbers. `docs/defaults.md` has the reason for each default.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthPolicy {
    /// CUSUM threshold at which a breaker opens.
    pub open_at: f64,
    /// First open period; doubles with each reopening.
    pub open_base: Duration,
    /// Longest open period.
    pub open_cap: Duration,
    /// How long a restored target takes from its first share, 5 %, to its full one; not zero.
    pub restore_over: Duration,
    /// Each stretch of this length without an opening takes one doubling of the open period back; not zero.
    pub forgive_every: Duration,
    /// How often an idle healthy target is probed.
    pub probe_idle: Duration,
    /// How often a suspect idle target is probed.
    pub probe_suspect: Duration,
    /// The largest share of a route's targets that breakers may take out at once; when more are open, the least bad
    /// ones serve again. 1.0 never re-admits beyond the trickle.
    pub max_ejected: f64,
    /// The most calls in flight in this process; the next one is shed with `Retry-After`.
    pub max_in_flight: u32,
}

impl Default for HealthPolicy {
    fn default() -> Self {
        HealthPolicy {
            open_at: 8.0,
            open_base: Duration::from_secs(5),
            open_cap: Duration::from_secs(300),
            restore_over: Duration::from_millis(47_500),
            forgive_every: Duration::from_secs(600),
            probe_idle: Duration::from_secs(60),
            probe_suspect: Duration::from_secs(10),
            max_ejected: 1.0,
            max_in_flight: 4096,
        }
    }
}

/// How a route orders targets that are equally healthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ranking {
    /// As the config lists them.
    #[default]
    Order,
    /// At random, in proportion to the weights.
    Weight,
    /// Fastest recent first token (or whole reply) first.
    Latency,
    /// Lowest estimated cost first; a target of unknown price comes last.
    Cost,
}

/// A target's place in a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTarget {
    /// Which.
    pub target: TargetId,
    /// Its weight under [`Ranking::Weight`]; at least 1.
    pub weight: u32,
}

/// What a client names as `model`.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Its name.
    pub id: RouteId,
    /// Ranked targets; never empty.
    pub targets: Vec<RouteTarget>,
    /// How equals are ordered.
    pub ranking: Ranking,
    /// How much redundancy it may spend.
    pub tier: Arc<Tier>,
    /// What must stay true.
    pub contract: Arc<Contract>,
    /// What is tried, in order, when every path is spent; the tier's `exhausted` where the route names none. A typed
    /// error comes after the last one, listed or not.
    pub backstops: Vec<Arc<Backstop>>,
    /// What a wrong or missing answer costs, in the operator's words: why this tier was chosen.
    pub risk: Option<Arc<str>>,
    /// What is promised to the route's users.
    pub sla: Option<Sla>,
}

impl Route {
    /// A route that orders by list, has no backstop of its own and promises nothing.
    pub fn plain(id: RouteId, targets: Vec<RouteTarget>, tier: Arc<Tier>, contract: Arc<Contract>) -> Self {
        Route { id, targets, ranking: Ranking::Order, tier, contract, backstops: Vec::new(), risk: None, sla: None }
    }
}

/// What is promised to a route's users.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sla {
    /// The share of requests answered, 0 to 1.
    pub availability: Option<f64>,
    /// The time in which 95 % of requests are answered.
    pub p95: Option<Duration>,
}

/// What structure the request demands of the reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputNeed {
    /// None.
    #[default]
    Text,
    /// Any JSON.
    Json,
    /// JSON that keeps a schema.
    JsonSchema,
}

/// What one request needs of a target. Made by the wire, read by the engine: no payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The client asked for a stream.
    pub stream: bool,
    /// The request offers tools or carries tool results.
    pub tools: bool,
    /// The request carries images.
    pub images: bool,
    /// The structure it demands.
    pub output: OutputNeed,
    /// Estimated input tokens.
    pub input_tokens: u32,
    /// The request's own output limit.
    pub max_output_tokens: Option<u32>,
    /// How many replies beyond the first it asks for (OpenAI's `n`). Each may be as long as the limit, and each is paid.
    pub more_choices: u32,
    /// The request names tools that the provider itself runs: it may not be sent twice at once.
    pub provider_effects: bool,
    /// The most the client lets this call cost; the tier's cap holds if it is lower.
    pub budget: Option<Usd>,
    /// Per dialect ([`Dialect::index`]): what of this request it cannot carry. Empty: all of it.
    pub cannot_carry: [Vec<&'static str>; Dialect::ALL.len()],
}
