//! One generation of the config, ready to serve: routes bound to the fleet, targets with their
//! endpoints. Immutable; a reload builds the next one and swaps it in whole. A call keeps the
//! generation it began with.

use super::{backstops::Scripts, golden::Trial, upstream::Endpoint, validators::Validator};
use crate::config::{Config, Kind, Provider};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use outlast_engine::{BoundRoute, Fleet};
use outlast_model::{
    Mono, RouteId, TargetId,
    policy::{Contract, Dialect, Ranking, Route, RouteTarget, StreamContract, TargetSpec, Tier, VoteSpread},
};
use outlast_wire::{Adapt, Put, contract::Gates};
use std::{collections::HashMap, sync::Arc};

/// One generation.
pub(crate) struct Live {
    /// What it was made from.
    pub(crate) config: Config,
    routes: HashMap<Box<str>, Arc<LiveRoute>>,
    targets: HashMap<TargetId, Arc<Target>>,
    /// The templates of its backstops.
    pub(super) scripts: Scripts,
    /// Its golden tasks, target by target.
    pub(super) golden: Vec<Trial>,
}

/// A route, bound to the fleet in each way it is called.
pub(crate) struct LiveRoute {
    /// As a client calls it.
    pub(crate) bound: BoundRoute,
    /// As a call on behalf of another calls it: nobody watches the reply come, so it is always buffered, and what comes
    /// when every path is spent is decided by whoever asked.
    pub(super) inner: BoundRoute,
    /// As each vote of its tier calls it: no votes within a vote, and each begins with another target if the tier spreads
    /// them. Empty if the tier does not vote.
    pub(super) votes: Vec<BoundRoute>,
    /// Its contract, compiled.
    pub(crate) gates: Arc<Gates>,
    /// The validators its contract asks over HTTP.
    pub(super) validators: Vec<Validator>,
}

impl LiveRoute {
    fn bind(route: &Route, gates: Arc<Gates>, fleet: &mut Fleet) -> Self {
        let contract = Arc::new(Contract { stream: StreamContract::Buffer, ..(*route.contract).clone() });
        let inner = Route { contract, backstops: Vec::new(), ..route.clone() };
        let votes = route.tier.votes.as_ref().map_or(0, |votes| usize::from(votes.samples));
        let tier = Arc::new(Tier { votes: None, ..(*route.tier).clone() });
        let vote = |at: usize| {
            let mut route = Route { tier: tier.clone(), ..inner.clone() };
            if let Some(VoteSpread::Targets) = inner.tier.votes.as_ref().map(|votes| votes.spread) {
                let targets = route.targets.len();
                route.targets.rotate_left(at % targets.max(1));
                route.ranking = Ranking::Order;
            }
            route
        };
        let votes = (0..votes).map(|at| fleet.bind(&vote(at))).collect();
        let validators = route.contract.validators.iter().filter_map(Validator::new).collect();
        LiveRoute { bound: fleet.bind(route), inner: fleet.bind(&inner), votes, gates, validators }
    }

    /// With this target alone, as a person chose it.
    pub(super) fn only(&self, target: &TargetId, fleet: &mut Fleet) -> LiveRoute {
        let targets = vec![RouteTarget { target: target.clone(), weight: 1 }];
        LiveRoute::bind(&Route { targets, ..self.route().clone() }, self.gates.clone(), fleet)
    }

    /// As configured.
    pub(crate) fn route(&self) -> &Route {
        self.bound.route()
    }

    /// Its name.
    pub(crate) fn id(&self) -> &RouteId {
        &self.route().id
    }
}

/// A target as the host needs it.
pub(crate) struct Target {
    /// As configured.
    pub(crate) spec: TargetSpec,
    /// Where its requests go.
    pub(crate) endpoint: Endpoint,
    ask_usage: bool,
}

impl Live {
    /// Installs the config's targets in the fleet and binds its routes to them.
    pub(crate) fn install(config: Config, fleet: &mut Fleet, now: Mono) -> Self {
        fleet.install(config.health.clone(), &config.targets, now);
        let named = config.routes.iter().map(|(id, route)| (id.as_str().into(), route));
        let direct = config.direct.iter().map(|(name, route)| (name.clone(), route));
        // A named route wins over a direct one of the same name, so it comes last.
        let bound = |(name, route): (Box<str>, &Arc<Route>)| {
            (name, Arc::new(LiveRoute::bind(route, config.gates(&route.id), fleet)))
        };
        let routes = direct.chain(named).map(bound).collect();
        let targets = config
            .targets
            .iter()
            .filter_map(|spec| {
                let provider = config.provider_of(&spec.id)?;
                Some((spec.id.clone(), Arc::new(Target::new(spec.clone(), provider))))
            })
            .collect();
        let scripts = Scripts::compile(&config);
        let golden = trials(&config, fleet);
        Live { config, routes, targets, scripts, golden }
    }

    /// The route a client named.
    pub(crate) fn route(&self, name: &str) -> Option<&Arc<LiveRoute>> {
        self.routes.get(name)
    }

    /// Every named route.
    pub(super) fn named_routes(&self) -> impl Iterator<Item = &Arc<LiveRoute>> {
        self.config.routes.keys().filter_map(|id| self.routes.get(id.as_str()))
    }

    /// Every name a client may use, sorted: named routes first, then direct ones.
    pub(crate) fn route_names(&self) -> Vec<&str> {
        let named = self.config.routes.keys().map(|id| id.as_str());
        let direct = self.config.targets.iter().map(|target| target.id.as_str());
        named.chain(direct).collect()
    }

    /// The target of that id.
    pub(crate) fn target(&self, id: &TargetId) -> Option<&Arc<Target>> {
        self.targets.get(id)
    }
}

impl Target {
    fn new(spec: TargetSpec, provider: &Provider) -> Self {
        let path = match spec.dialect {
            Dialect::OpenaiChat => "/chat/completions",
            Dialect::Anthropic => "/messages",
        };
        let endpoint = Endpoint::new(
            provider.base_url.join(path),
            fixed_headers(&spec, provider),
            &credentials(provider),
            spec.timeouts.connect,
        );
        // Mistral answers 422 to a field it does not know, and reports usage unasked.
        let ask_usage = !provider.base_url.host().ends_with("mistral.ai");
        Target { spec, endpoint, ask_usage }
    }

    /// What the wire needs to adapt a request for it.
    pub(crate) fn adapt<'a>(&'a self, put: Put<'a>) -> Adapt<'a> {
        Adapt {
            dialect: self.spec.dialect,
            model: self.spec.id.model(),
            max_output: self.spec.max_output,
            ask_usage: self.ask_usage,
            put,
        }
    }
}

fn fixed_headers(spec: &TargetSpec, provider: &Provider) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8 + provider.headers.len());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("outlast/", env!("CARGO_PKG_VERSION"))));
    if let Ok(host) = HeaderValue::from_str(provider.base_url.authority()) {
        headers.insert(header::HOST, host);
    }
    match spec.dialect {
        Dialect::OpenaiChat => {}
        Dialect::Anthropic => {
            headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
        }
    }
    headers.extend(provider.headers.iter().cloned());
    headers
}

fn credentials(provider: &Provider) -> Vec<(HeaderName, HeaderValue)> {
    let api_key = match provider.kind {
        Kind::Anthropic => Some(HeaderName::from_static("x-api-key")),
        // Azure takes keys in a header of its own; a bearer token there is an identity's.
        Kind::Openai | Kind::OpenaiCompatible if provider.base_url.host().ends_with(".azure.com") => {
            Some(HeaderName::from_static("api-key"))
        }
        Kind::Openai | Kind::OpenaiCompatible => None,
    };
    let header = |key: &crate::config::SecretKey| match &api_key {
        Some(name) => Some((name.clone(), HeaderValue::from_str(key.expose()).ok()?)),
        None => Some((header::AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {}", key.expose())).ok()?)),
    };
    provider.keys.iter().filter_map(header).collect()
}

/// Every golden task on every target of its route that may be asked unasked.
fn trials(config: &Config, fleet: &mut Fleet) -> Vec<Trial> {
    let mut trials = Vec::new();
    for task in &config.golden {
        let Some(route) = config.routes.get(&task.route) else { continue };
        let task = Arc::new(task.clone());
        let tier =
            Arc::new(Tier { attempts: 1, hedge: None, votes: None, exhausted: Vec::new(), ..(*route.tier).clone() });
        for place in &route.targets {
            if !config.target(place.target.as_str()).is_some_and(|target| target.probes) {
                continue;
            }
            let id = RouteId::new(format!("golden:{}", task.name));
            let alone = Route::plain(id, vec![place.clone()], tier.clone(), task.gates.contract().clone());
            let bound = Arc::new(LiveRoute::bind(&alone, task.gates.clone(), fleet));
            trials.extend(Trial::new(task.clone(), place.target.clone(), bound));
        }
    }
    trials
}
