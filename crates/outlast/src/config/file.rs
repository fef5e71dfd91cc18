//! The grammar of `outlast.toml`: each section once, for the reader, for the editors' schema and for people.

use super::{
    promises::{BackstopFile, ContractFile, GoldenFile, StoreFile, TierFile},
    read::{At, FromToml, Log, Named, Place, Size, Time},
    work_file::{EscalationsFile, McpFile, NotifyFile, ReviewerFile, RunsFile, ToolFile},
    work_words::WorkflowSection,
};
use schemars::JsonSchema;
use toml::de::DeValue;

sections! {
    /// The config of Outlast.
    File {
        /// The listener, who may call, and the limits.
        server: ServerFile,
        /// Vendor accounts and endpoints, by name.
        providers: Named<ProviderFile>,
        /// What is to be known of single targets, by `provider/model`; wins over the embedded catalogue.
        targets: Named<TargetFile>,
        /// What a client may name as `model`.
        routes: Named<RouteFile>,
        /// What must stay true whichever target answers, by name.
        contracts: Named<ContractFile>,
        /// How much redundancy a route may spend, by name. Built in: none, basic, standard, critical.
        tiers: Named<TierFile>,
        /// The deterministic ends of routes, by name. Built in: fail, queue, cache, escalate.
        backstops: Named<BackstopFile>,
        /// Where what has to outlive a request is kept: queued requests, escalations, replies under an Idempotency-Key.
        store: StoreFile,
        /// Inputs with checkable properties, by name: every target of a route is asked again and again.
        golden: Named<GoldenFile>,
        /// What may be called through `/v1/tools/NAME` and by workflows, by name.
        tools: Named<ToolFile>,
        /// The MCP servers that tools are on, by name.
        mcp: Named<McpFile>,
        /// What the server runs by itself, step by step, by name.
        workflows: Named<WorkflowSection>,
        /// Who may decide, by name.
        reviewers: Named<ReviewerFile>,
        /// The ways to tell somebody of work that waits for a person, by name.
        notify: Named<NotifyFile>,
        /// What happens to work that waits for a person.
        escalations: EscalationsFile,
        /// How the server runs workflows by itself.
        runs: RunsFile,
        /// Breakers and probes.
        health: HealthFile,
        /// Who is told, and of what.
        alerts: AlertsFile,
        /// Lineage and log.
        telemetry: TelemetryFile,
    }

    /// The listener, who may call, and the limits.
    ServerFile {
        /// Address and port to listen on. Default: 127.0.0.1:8080.
        listen: String,
        /// Certificate and key, to speak TLS.
        tls: TlsFile,
        /// What admin endpoints ask for, as `${ENV}` or `blake3:` and 64 hexadecimal digits. Without it they are closed.
        admin_token: String,
        /// The callers' keys, each as `${ENV}` or `blake3:` and 64 hexadecimal digits. Without any, callers need none.
        keys: Vec<At<String>>,
        /// Listen beyond loopback without callers' keys. Default: false.
        allow_open: bool,
        /// Which targets a client may name as `provider/model`: those the config names, those and the catalogue's, or none. Default: named.
        direct: Direct,
        /// Connections beyond this get a 503 and are closed. Default: 12000.
        max_connections: u32,
        /// Calls in flight beyond this are shed with 503 and Retry-After. Default: 4096.
        max_in_flight: u32,
        /// A longer request body gets 413. Default: 32MB.
        max_body: Size,
        /// From the first byte of a request's head to its last. Default: 10s.
        header_timeout: Time,
        /// Between two reads of a request's body. Default: 30s.
        body_timeout: Time,
        /// How long SIGTERM waits for calls in flight. Default: 30s.
        drain_timeout: Time,
        /// Whether JSON replies may carry the `outlast` object. Default: true.
        body_notes: bool,
        /// Where people and programs reach it, for links in what they are sent. Default: none, paths without a host.
        public_url: String,
    }

    /// PEM files, relative to the config file.
    TlsFile {
        /// The certificate chain.
        #[schemars(required)]
        cert: String,
        /// Its private key.
        #[schemars(required)]
        key: String,
    }

    /// A vendor account and endpoint.
    ProviderFile {
        /// What it speaks.
        #[schemars(required)]
        kind: KindChoice,
        /// Where; request paths are appended. Default: the vendor's own for openai and anthropic.
        base_url: String,
        /// Its key, best as `${ENV}`.
        api_key: String,
        /// Several keys of the account; a key that is rejected or rate-limited is left out while the others serve.
        api_keys: Vec<At<String>>,
        /// Where the provider runs it.
        region: String,
        /// Sent with every request.
        headers: Named<String>,
        /// The deadlines of its targets.
        timeouts: TimeoutsFile,
        /// Whether Outlast may send idle targets one-token probes. Default: true.
        probes: bool,
    }

    /// The five deadlines of an attempt. All of them are always on.
    TimeoutsFile {
        /// Until the connection stands. Default: 5s.
        connect: Time,
        /// Until the response head; for a reply that is not streamed, the whole reply. Default: 300s.
        header: Time,
        /// Until the first output of a stream. Default: 60s.
        first_token: Time,
        /// Between two outputs of a stream. Default: 60s.
        idle: Time,
        /// For one attempt as a whole. Default: 600s.
        total: Time,
    }

    /// What is to be known of one target.
    TargetFile {
        /// What it can do.
        capabilities: CapabilitiesFile,
        /// The most tokens of input and output together.
        context_window: u32,
        /// The most output tokens.
        max_output: u32,
        /// What it charges, in dollars per million tokens.
        price: PriceFile,
        /// Its deadlines, where they differ from the provider's.
        timeouts: TimeoutsFile,
        /// Whether Outlast may send it one-token probes. Default: the provider's.
        probes: bool,
    }

    /// What a target can do. What is not said here or in the catalogue is tried, after the targets that surely can.
    CapabilitiesFile {
        /// Function tools.
        tools: bool,
        /// Image input.
        images: bool,
        /// Output held to a JSON Schema by the provider.
        json_schema: bool,
    }

    /// Dollars per million tokens.
    PriceFile {
        /// Input tokens that were not cached.
        #[schemars(required)]
        input: f64,
        /// Output tokens.
        #[schemars(required)]
        output: f64,
        /// Input tokens read from the provider's cache. Default: the input price.
        cache_read: f64,
        /// Input tokens written to the provider's cache. Default: the input price.
        cache_write: f64,
    }

    /// What a client names as `model`.
    RouteFile {
        /// The targets, best first.
        #[schemars(required)]
        targets: Vec<At<RouteTargetFile>>,
        /// How targets that are equally healthy are ordered. Default: order.
        ranking: RankingChoice,
        /// How much redundancy it may spend. Default: standard.
        tier: String,
        /// What must stay true: a contract, or a preset's name. Default: the built-in one.
        contract: String,
        /// What a wrong or missing answer costs, in your words: why this tier was chosen. Up to 500 characters.
        risk: String,
        /// What is promised to the route's users.
        sla: SlaFile,
        /// What is tried, in order, when every path is spent. Default: the tier's `exhausted`.
        backstops: Vec<At<String>>,
    }

    /// A target and its weight.
    WeightedFile {
        /// `provider/model`.
        #[schemars(required)]
        target: String,
        /// Its share under `ranking = "weight"`. Default: 1.
        weight: u32,
    }

    /// What is promised to a route's users.
    SlaFile {
        /// The share of requests answered, less than 1: 0.999.
        availability: f64,
        /// The time in which 95 of 100 requests are answered.
        p95: Time,
    }

    /// Breakers and probes.
    HealthFile {
        /// The evidence at which a breaker opens. Default: 8.
        open_at: f64,
        /// First open period; doubles with each reopening. Default: 5s.
        open_base: Time,
        /// Longest open period. Default: 300s.
        open_cap: Time,
        /// How long a restored target takes from 5 % of its calls to all of them. Default: 47.5s.
        restore_over: Time,
        /// Each stretch of this length without an opening takes one doubling of the open period back. Default: 600s.
        forgive_every: Time,
        /// How often an idle healthy target is probed. Default: 60s.
        probe_idle: Time,
        /// How often a suspect idle target is probed. Default: 10s.
        probe_suspect: Time,
        /// The largest share of a route's targets that breakers may take out at once. Default: 1.0.
        max_ejected: f64,
    }

    /// Who is told, and of what.
    AlertsFile {
        /// Gets a POST for each alert.
        #[schemars(required)]
        webhook: String,
        /// Signs the POST with HMAC-SHA256, as `${ENV}`.
        #[schemars(required)]
        secret: String,
        /// Which kinds are sent. Default: all.
        events: Vec<At<EventChoice>>,
    }

    /// Lineage and log.
    TelemetryFile {
        /// The SQLite file for call records, relative to the config file. Default: none, only the ring in memory.
        file: String,
        /// The share of plain successes that is kept whole, 0 to 1. Default: 0.01.
        sample: f64,
        /// How many call records are kept in memory. Default: 1024.
        ring: u32,
        /// The log line of each call. Default: json.
        log: LogChoice,
    }
}

choices! {
    /// A kind of provider.
    KindChoice {
        /// api.openai.com, or what stands in for it.
        "openai" => Openai,
        /// api.anthropic.com, or what stands in for it.
        "anthropic" => Anthropic,
        /// Whatever else speaks OpenAI's chat completions.
        "openai-compatible" => OpenaiCompatible,
    }

    /// Which targets a client may name as `provider/model`.
    Direct {
        /// Those in routes and `[targets]`.
        "named" => Named,
        /// Those, and every model the embedded catalogue has for the provider.
        "catalogue" => Catalogue,
        /// None: only routes.
        "off" => Off,
    }

    /// How equals are ordered.
    RankingChoice {
        /// As listed.
        "order" => Order,
        /// At random, in proportion to the weights.
        "weight" => Weight,
        /// Fastest recent first token first.
        "latency" => Latency,
        /// Lowest estimated cost first.
        "cost" => Cost,
    }

    /// A kind of alert.
    EventChoice {
        /// A breaker opened, or closed again.
        "breaker" => Breaker,
        /// A key was rejected, or an account was denied a model.
        "auth" => Auth,
        /// An account ran out of money or of a long-term quota.
        "quota" => Quota,
        /// A target's quality dropped, or is back.
        "quality" => Quality,
    }

    /// The log line of each call.
    LogChoice {
        /// One JSON object a line on standard error.
        "json" => Json,
        /// None.
        "off" => Off,
    }
}

/// A target of a route: a name, or a name and a weight.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub(super) enum RouteTargetFile {
    /// `provider/model`.
    Name(String),
    /// A target and its weight.
    Weighted(WeightedFile),
}

impl FromToml for RouteTargetFile {
    fn from_toml(value: &DeValue<'_>, place: &Place, log: &mut Log) -> Option<Self> {
        if value.is_table() {
            return WeightedFile::from_toml(value, place, log).map(RouteTargetFile::Weighted);
        }
        String::from_toml(value, place, log).map(RouteTargetFile::Name)
    }
}
