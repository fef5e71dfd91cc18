//! The config after it has been read and judged: what the rest of the program trusts.

use super::{
    BaseUrl, Escalations, GoldenTask, KeyHash, McpServer, Notify, Reviewer, RunsConfig, SecretKey, StoreConfig, Tool,
    WorkflowPlan, read,
};
use http::{HeaderName, HeaderValue, Uri};
use outlast_model::{
    ProviderId, RouteId, TargetId, ToolName, WorkflowName,
    policy::{Contract, Dialect, HealthPolicy, Route, StreamContract, TargetSpec, Timeouts},
};
use outlast_wire::contract::Gates;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
};

/// Everything a gateway runs on. Immutable: a reload makes a new one and swaps it in whole.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it came from: the file as it was named, or `environment`.
    pub source: Box<str>,
    /// BLAKE3 of the bytes of the file and of those it names in `files`. The environment has none.
    pub hash: Option<[u8; 32]>,
    /// The files that were read beside it, sorted: schemas, golden tasks.
    pub files: Vec<PathBuf>,
    /// The listener and its limits. A reload cannot change `listen` and `tls`; see [`super::Reload`].
    pub server: Server,
    /// Vendor accounts, sorted by id. Look them up with [`Config::provider`].
    pub providers: Vec<Arc<Provider>>,
    /// Every target that a route or a direct `provider/model` may use, sorted by id: what the fleet installs.
    pub targets: Vec<TargetSpec>,
    /// The named routes. Look routes up with [`Config::route`], which also knows `provider/model`.
    pub routes: BTreeMap<RouteId, Arc<Route>>,
    /// A route of one target for every target, by the name a client may use; and the routes of workflows' steps that have
    /// a contract or tier of their own.
    pub(crate) direct: BTreeMap<Box<str>, Arc<Route>>,
    /// Breakers, probes, the limit of calls in flight.
    pub health: HealthPolicy,
    /// Who is told, and of what.
    pub alerts: Alerts,
    /// Lineage and log.
    pub telemetry: Telemetry,
    /// Where what has to outlive a request is kept; without one, in memory and gone with the process. A reload cannot
    /// change it.
    pub store: Option<StoreConfig>,
    /// What every target of a route is asked again and again, to see its quality.
    pub golden: Vec<GoldenTask>,
    /// What may be called through `/v1/tools` and by workflows.
    pub tools: BTreeMap<ToolName, Arc<Tool>>,
    /// The MCP servers that tools are on.
    pub mcp: BTreeMap<Arc<str>, Arc<McpServer>>,
    /// What the server runs by itself.
    pub workflows: BTreeMap<WorkflowName, Arc<WorkflowPlan>>,
    /// Who may decide, by name. Look a key up with [`Config::reviewer`].
    pub reviewers: BTreeMap<Arc<str>, Reviewer>,
    /// The ways to tell somebody.
    pub notify: BTreeMap<Arc<str>, Arc<Notify>>,
    /// What happens to work that waits for a person.
    pub escalations: Escalations,
    /// How the server runs workflows by itself.
    pub runs: RunsConfig,
    /// The contracts of the named routes, compiled.
    pub(crate) gates: BTreeMap<RouteId, Arc<Gates>>,
    /// What signs the webhooks of `queue` backstops, by the backstop's name.
    pub(crate) webhook_secrets: BTreeMap<Arc<str>, SecretKey>,
    /// Things that work and are probably not meant, for the log and `check`.
    pub warnings: Vec<Box<str>>,
}

impl Config {
    /// The route a client named: a named route first, then `provider/model` of a known target, then a bare model name
    /// that exactly one known target has. Unknown names are `None`: a client cannot make this process remember one.
    pub fn route(&self, name: &str) -> Option<&Arc<Route>> {
        self.routes
            .iter()
            .find_map(|(id, route)| (id.as_str() == name).then_some(route))
            .or_else(|| self.direct.get(name))
    }

    /// The name that a client probably meant by one that [`Config::route`] does not know.
    pub fn did_you_mean(&self, name: &str) -> Option<&str> {
        let names = self.routes.keys().map(|id| id.as_str()).chain(self.direct.keys().map(AsRef::as_ref));
        // The routes of single steps are nobody else's; their names have spaces.
        read::did_you_mean(name, names.filter(|name| !name.contains(' ')))
    }

    /// The provider of that name.
    pub fn provider(&self, id: &str) -> Option<&Arc<Provider>> {
        let at = self.providers.binary_search_by(|provider| provider.id.as_str().cmp(id)).ok()?;
        self.providers.get(at)
    }

    /// The provider of a target of this config.
    pub fn provider_of(&self, target: &TargetId) -> Option<&Arc<Provider>> {
        self.provider(target.provider())
    }

    /// The contract of a route of this config, compiled. A route of one target has the plain contract.
    pub fn gates(&self, route: &RouteId) -> Arc<Gates> {
        static PLAIN: LazyLock<Arc<Gates>> = LazyLock::new(|| {
            let plain = Arc::new(Contract::plain("default", StreamContract::Fail));
            Arc::new(Gates::compile(&plain).expect("a contract without gates compiles"))
        });
        Arc::clone(self.gates.get(route).unwrap_or(&PLAIN))
    }

    /// What signs the webhook of that `queue` backstop: every backstop with a webhook has one.
    pub fn webhook_secret(&self, backstop: &str) -> Option<&SecretKey> {
        self.webhook_secrets.get(backstop)
    }

    /// The target of that id.
    pub fn target(&self, id: &str) -> Option<&TargetSpec> {
        let at = self.targets.binary_search_by(|target| target.id.as_str().cmp(id)).ok()?;
        self.targets.get(at)
    }
}

/// The deadlines of an attempt where nothing else is said. `docs/defaults.md` has the reasons.
pub const DEFAULT_TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    header: Duration::from_secs(300),
    first_token: Duration::from_secs(60),
    idle: Duration::from_secs(60),
    total: Duration::from_secs(600),
};

/// A vendor account and endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its name.
    pub id: ProviderId,
    /// What it speaks and how it authenticates.
    pub kind: Kind,
    /// Where; request paths (`/chat/completions`, `/messages`) are appended.
    pub base_url: BaseUrl,
    /// Its keys; empty when it needs none. The engine counts "no key" as one: see [`TargetSpec::keys`].
    pub keys: Vec<SecretKey>,
    /// Where the provider runs it, if the config says.
    pub region: Option<Arc<str>>,
    /// Sent with every request, after the standard ones. Marked sensitive when they came from the environment.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The deadlines of its targets, unless a target says otherwise.
    pub timeouts: Timeouts,
    /// Whether Outlast may send one-token probes of its own.
    pub probes: bool,
}

impl Provider {
    /// The key in that position.
    pub fn key(&self, index: u8) -> Option<&SecretKey> {
        self.keys.get(usize::from(index))
    }
}

/// A kind of provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// api.openai.com, or what stands in for it.
    Openai,
    /// api.anthropic.com, or what stands in for it.
    Anthropic,
    /// Whatever else speaks OpenAI's chat completions.
    OpenaiCompatible,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 3] = [Kind::Openai, Kind::Anthropic, Kind::OpenaiCompatible];

    /// The name used in config and docs.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Openai => "openai",
            Kind::Anthropic => "anthropic",
            Kind::OpenaiCompatible => "openai-compatible",
        }
    }

    /// What it speaks.
    pub const fn dialect(self) -> Dialect {
        match self {
            Kind::Openai | Kind::OpenaiCompatible => Dialect::OpenaiChat,
            Kind::Anthropic => Dialect::Anthropic,
        }
    }
}

/// The listener and its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Certificate and key, if it speaks TLS itself.
    pub tls: Option<TlsFiles>,
    /// What admin endpoints ask for; without one they are closed.
    pub admin_token: Option<KeyHash>,
    /// Hashes of the callers' keys, sorted; empty: callers need none.
    pub keys: Vec<KeyHash>,
    /// A connection beyond this gets a 503 with a retry hint and is closed.
    pub max_connections: u32,
    /// A longer request body gets 413.
    pub max_body_bytes: u64,
    /// From the first byte of a request's head to its last; slower clients are dropped.
    pub header_timeout: Duration,
    /// Between two reads of a request's body; slower clients are dropped.
    pub body_timeout: Duration,
    /// How long SIGTERM waits for calls in flight.
    pub drain_timeout: Duration,
    /// Whether JSON replies may carry the `outlast` object.
    pub body_notes: bool,
    /// Whether it may listen beyond loopback without callers' keys.
    pub allow_open: bool,
    /// Where people and programs reach it, for links in what they are sent.
    pub public_url: Option<BaseUrl>,
}

impl Default for Server {
    fn default() -> Self {
        Server {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            tls: None,
            admin_token: None,
            keys: Vec::new(),
            max_connections: 12_000,
            max_body_bytes: 32_000_000,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
            body_notes: true,
            allow_open: false,
            public_url: None,
        }
    }
}

impl Server {
    /// Why it must not listen on this address, if it must not: everybody could spend the operator's money.
    pub fn refuses(&self, listen: SocketAddr) -> Option<String> {
        let open = self.keys.is_empty() && !self.allow_open && !listen.ip().is_loopback();
        open.then(|| format!("{listen} is reachable from other machines and callers need no key"))
    }

    /// Whether the key of this hash opens the gateway.
    pub fn admits(&self, presented: Option<&KeyHash>) -> bool {
        let known = |hash: &KeyHash| self.keys.iter().fold(false, |found, key| found | key.same(hash));
        self.keys.is_empty() || presented.is_some_and(known)
    }
}

/// PEM files of the listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Who is told, and of what. The log is always told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alerts {
    /// Gets a POST for each alert. Never shown: its path or query may be a credential.
    pub webhook: Option<Uri>,
    /// Signs the POST: HMAC-SHA256 of the body.
    pub secret: Option<SecretKey>,
    /// Which kinds are sent.
    pub events: Vec<AlertEvent>,
}

/// A kind of alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertEvent {
    /// A breaker opened, or closed again.
    Breaker,
    /// A key was rejected, or an account was denied a model.
    Auth,
    /// An account ran out of money or of a long-term quota.
    Quota,
    /// A target's quality dropped, or is back.
    Quality,
}

impl AlertEvent {
    /// Every kind.
    pub const ALL: [AlertEvent; 4] = [AlertEvent::Breaker, AlertEvent::Auth, AlertEvent::Quota, AlertEvent::Quality];

    /// The name used in config and docs.
    pub const fn name(self) -> &'static str {
        match self {
            AlertEvent::Breaker => "breaker",
            AlertEvent::Auth => "auth",
            AlertEvent::Quota => "quota",
            AlertEvent::Quality => "quality",
        }
    }
}

/// Lineage and log.
#[derive(Clone, Debug, PartialEq)]
pub struct Telemetry {
    /// The SQLite file that call records are written to; none: only the ring in memory.
    pub file: Option<PathBuf>,
    /// The share of plain successes that is kept whole, 0 to 1; everything else always is.
    pub sample: f64,
    /// How many records the ring in memory holds.
    pub ring: u32,
    /// The log line of each call.
    pub log: LogFormat,
}

impl Default for Telemetry {
    fn default() -> Self {
        Telemetry { file: None, sample: 0.01, ring: 1024, log: LogFormat::Json }
    }
}

/// The log line of each call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line on standard error.
    Json,
    /// None.
    Off,
}

impl LogFormat {
    /// Every format.
    pub const ALL: [LogFormat; 2] = [LogFormat::Json, LogFormat::Off];

    /// The name used in config and docs.
    pub const fn name(self) -> &'static str {
        match self {
            LogFormat::Json => "json",
            LogFormat::Off => "off",
        }
    }
}
