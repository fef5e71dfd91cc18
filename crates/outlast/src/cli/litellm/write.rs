//! Writes the plan as TOML.

use super::{
    Notes, Plan,
    deployment::{Deployment, Endpoint, Facts},
};
use crate::config::show_duration;
use std::{collections::BTreeMap, fmt::Write, net::SocketAddr, time::Duration};

/// A route as it will be written.
struct RouteOut {
    name: String,
    /// Target and weight.
    targets: Vec<(String, u32)>,
    ranking: &'static str,
}

/// The whole file.
pub(super) fn toml(plan: &Plan, notes: &mut Notes) -> String {
    let providers = Providers::of(plan);
    let mut facts: BTreeMap<String, &Facts> = BTreeMap::new();
    for deployment in plan.groups.iter().flat_map(|(_, deployments)| deployments) {
        let target = providers.target(deployment);
        if facts.get(&target).is_some_and(|known| *known != &deployment.facts) {
            notes.add(&target, "two groups say different things of it; the first is taken");
        }
        facts.entry(target).or_insert(&deployment.facts);
    }
    let routes = routes(plan, &providers, notes);
    let mut text = String::from("# Imported from a LiteLLM config by `outlast import litellm`.\n");
    server(plan, &mut text, notes);
    for (endpoint, name) in &providers.0 {
        provider(endpoint, name, plan, &mut text);
    }
    for (target, facts) in facts {
        target_facts(&target, facts, plan, &mut text);
    }
    let mut widest = 0;
    for route in &routes {
        write_route(route, &mut text);
        widest = widest.max(route.targets.len());
    }
    if widest > 3 {
        let attempts = widest.min(16);
        let _ = write!(
            text,
            "\n# Routes of more than three targets may try them all.\n[tiers.wide]\nattempts = {attempts}\n"
        );
    }
    text
}

/// Endpoints with the names they get.
struct Providers(Vec<(Endpoint, String)>);

impl Providers {
    /// One provider for each distinct endpoint. A name that a group's own name begins with would clash with routes.
    fn of(plan: &Plan) -> Self {
        let mut named: Vec<(Endpoint, String)> = Vec::new();
        let deployments = plan.groups.iter().flat_map(|(_, deployments)| deployments);
        let endpoints = deployments.map(|deployment| &deployment.endpoint).chain(&plan.wildcards);
        for endpoint in endpoints {
            if named.iter().any(|(known, _)| known == endpoint) {
                continue;
            }
            let clashes = |name: &str| {
                let prefix = format!("{name}/");
                let names = plan.groups.iter().map(|(group, deployments)| (group, deployments.as_slice()));
                let mut names = names.filter(|(group, _)| group.starts_with(&prefix));
                // A group that is just its one target needs no route, so there is nothing to clash with.
                names.any(|(group, deployments)| {
                    !matches!(deployments, [only] if *group == format!("{name}/{}", only.model) && !plan.appended.contains_key(group))
                })
            };
            let base = if clashes(&endpoint.name) { format!("{}-api", endpoint.name) } else { endpoint.name.clone() };
            let taken = |name: &str| named.iter().any(|(_, known)| known == name);
            let numbered = std::iter::once(base.clone()).chain((2..).map(|n| format!("{base}-{n}")));
            let name = numbered.into_iter().find(|name| !taken(name)).unwrap_or(base);
            named.push((endpoint.clone(), name));
        }
        Providers(named)
    }

    fn target(&self, deployment: &Deployment) -> String {
        let named = self.0.iter().find(|(known, _)| *known == deployment.endpoint);
        format!("{}/{}", named.map_or("", |(_, name)| name), deployment.model)
    }
}

fn routes(plan: &Plan, providers: &Providers, notes: &mut Notes) -> Vec<RouteOut> {
    let mut routes: Vec<RouteOut> = Vec::new();
    for (group, deployments) in &plan.groups {
        let mut own: Vec<&Deployment> = deployments.iter().collect();
        own.sort_by_key(|deployment| deployment.order.unwrap_or(i64::MAX));
        let appended: Vec<&Deployment> = plan.appended.get(group).into_iter().flatten().collect();
        let ordered = own.iter().any(|deployment| deployment.order.is_some());
        let balanced = own.len() > 1 && !ordered;
        let ranking = match plan.ranking {
            _ if own.len() + appended.len() == 1 => "order",
            Some(ranking @ ("latency" | "cost")) => ranking,
            _ if balanced && appended.is_empty() => "weight",
            _ => "order",
        };
        if balanced && ranking == "order" {
            let reason = "its deployments are tried in order instead of shared out: a route has one ranking, and this one has fallbacks";
            notes.add(group, reason);
        }
        let mut targets: Vec<(String, u32)> = Vec::new();
        for deployment in own.into_iter().chain(appended) {
            let target = providers.target(deployment);
            if !targets.iter().any(|(known, _)| *known == target) {
                targets.push((target, deployment.weight.unwrap_or(1)));
            }
        }
        // `provider/model` works as a route of one by itself.
        if !matches!(targets.as_slice(), [(only, _)] if only == group) {
            routes.push(RouteOut { name: group.clone(), targets, ranking });
        }
    }
    for (alias, group) in &plan.aliases {
        let known = routes.iter().find(|route| route.name == *group);
        match known.map(|route| (route.targets.clone(), route.ranking)) {
            Some((targets, ranking)) if !routes.iter().any(|route| route.name == *alias) => {
                routes.push(RouteOut { name: alias.clone(), targets, ranking });
            }
            Some(_) => notes.add(&format!("model_group_alias.{alias}"), "a group of that name is there already"),
            None => notes.add(&format!("model_group_alias.{alias}"), format!("the group \"{group}\" is not there")),
        }
    }
    routes
}

fn server(plan: &Plan, text: &mut String, notes: &mut Notes) {
    let host = plan.host.as_deref().unwrap_or("127.0.0.1");
    let address = plan.port.map(|port| format!("{host}:{port}"));
    let address = address.and_then(|address| address.replace("localhost", "127.0.0.1").parse::<SocketAddr>().ok());
    let open = address.is_some_and(|address| plan.caller_key.is_none() && !address.ip().is_loopback());
    if open {
        notes.add(
            "general_settings.host",
            "reachable from other machines without a key: add server.keys, then server.listen",
        );
    }
    let listen = address.filter(|_| !open);
    if plan.caller_key.is_none() && !plan.wildcard && listen.is_none() {
        return;
    }
    text.push_str("\n[server]\n");
    if let Some(listen) = listen {
        let _ = writeln!(text, "listen = \"{listen}\"");
    }
    if let Some(key) = &plan.caller_key {
        let _ = writeln!(text, "keys = [\"${{{key}}}\"]");
    }
    if plan.wildcard {
        text.push_str("direct = \"catalogue\"\n");
    }
}

fn provider(endpoint: &Endpoint, name: &str, plan: &Plan, text: &mut String) {
    let _ = write!(text, "\n[providers.{name}]\nkind = \"{}\"\n", endpoint.kind);
    if let Some(base_url) = &endpoint.base_url {
        let _ = writeln!(text, "base_url = {}", quoted(base_url));
    }
    match endpoint.keys.as_slice() {
        [] => {}
        [only] => drop(writeln!(text, "api_key = \"${{{only}}}\"")),
        keys => {
            let keys: Vec<String> = keys.iter().map(|key| format!("\"${{{key}}}\"")).collect();
            let _ = writeln!(text, "api_keys = [{}]", keys.join(", "));
        }
    }
    if !endpoint.headers.is_empty() {
        let pairs = endpoint.headers.iter().map(|(name, value)| format!("{} = {}", quoted(name), quoted(value)));
        let _ = writeln!(text, "headers = {{ {} }}", pairs.collect::<Vec<_>>().join(", "));
    }
    timeouts(plan.timeout, plan.stream_timeout, text);
}

/// LiteLLM's `timeout` bounds an attempt, its `stream_timeout` the wait for a stream's first chunk.
fn timeouts(total: Option<f64>, first_token: Option<f64>, text: &mut String) {
    let show = |seconds: f64| show_duration(Duration::from_millis((seconds * 1e3).round() as u64));
    let first_token = first_token.map(|first| total.map_or(first, |total| first.min(total)));
    let parts = [("total", total), ("first_token", first_token)];
    let parts = parts.iter().filter_map(|(name, seconds)| seconds.map(|s| format!("{name} = \"{}\"", show(s))));
    let parts: Vec<String> = parts.collect();
    if !parts.is_empty() {
        let _ = writeln!(text, "timeouts = {{ {} }}", parts.join(", "));
    }
}

fn target_facts(target: &str, facts: &Facts, plan: &Plan, text: &mut String) {
    if *facts == Facts::default() {
        return;
    }
    let _ = write!(text, "\n[targets.{}]\n", quoted(target));
    let flags = [("tools", facts.tools), ("images", facts.images), ("json_schema", facts.json_schema)];
    let flags = flags.iter().filter_map(|(name, flag)| flag.map(|flag| format!("{name} = {flag}"))).collect::<Vec<_>>();
    if !flags.is_empty() {
        let _ = writeln!(text, "capabilities = {{ {} }}", flags.join(", "));
    }
    for (name, tokens) in [("context_window", facts.context_window), ("max_output", facts.max_output)] {
        if let Some(tokens) = tokens {
            let _ = writeln!(text, "{name} = {tokens}");
        }
    }
    if let (Some(input), Some(output)) = facts.price {
        // Per token there, per million here; nine digits are beyond any price list.
        let per_million = |dollars: f64| (dollars * 1e15).round() / 1e9;
        let _ = writeln!(text, "price = {{ input = {:?}, output = {:?} }}", per_million(input), per_million(output));
    }
    let first_token = facts.stream_timeout.map(|first| {
        let total = facts.timeout.or(plan.timeout).unwrap_or(600.0);
        first.min(total)
    });
    timeouts(facts.timeout, first_token, text);
}

fn write_route(route: &RouteOut, text: &mut String) {
    let _ = write!(text, "\n[routes.{}]\n", quoted(&route.name));
    let weighted = route.ranking == "weight" && route.targets.iter().any(|(_, weight)| *weight != 1);
    let targets = route.targets.iter().map(|(target, weight)| match weighted {
        true => format!("{{ target = {}, weight = {weight} }}", quoted(target)),
        false => quoted(target),
    });
    let _ = writeln!(text, "targets = [{}]", targets.collect::<Vec<_>>().join(", "));
    if route.ranking != "order" {
        let _ = writeln!(text, "ranking = \"{}\"", route.ranking);
    }
    if route.targets.len() > 3 {
        text.push_str("tier = \"wide\"\n");
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
