//! Judges targets, contracts, tiers and routes: every reference must lead somewhere, and everything must be reachable.

use super::{
    catalogue::{self, Catalogue, Known},
    file::{Direct, File, PriceFile, RankingChoice, RouteFile, RouteTargetFile, TargetFile},
    promises::{ContractFile, TierFile},
    providers::{self, Judged},
    read::{At, Log, Named, Place, did_you_mean},
    words::{RefusalChoice, StreamChoice},
};
use outlast_model::{
    Price, RouteId, TargetId,
    policy::{
        Ability, Capabilities, Contract, Ranking, RefusalPolicy, Route, RouteTarget, StreamContract, TargetSpec, Tier,
    },
};
use outlast_wire::contract::Gates;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The most models of one provider that `direct = "catalogue"` opens: each is a target that the fleet keeps state for,
/// and a line in every list of targets.
const CATALOGUE_MODELS_MAX: usize = 128;

/// What comes out.
#[derive(Default)]
pub(super) struct Routing {
    pub(super) targets: Vec<TargetSpec>,
    pub(super) routes: BTreeMap<RouteId, Arc<Route>>,
    pub(super) gates: BTreeMap<RouteId, Arc<Gates>>,
    pub(super) direct: BTreeMap<Box<str>, Arc<Route>>,
}

/// Judges them all.
pub(super) fn judge(file: &File, providers: &BTreeMap<String, Judged>, log: &mut Log) -> Routing {
    let names: BTreeSet<&str> = file.providers.iter().flat_map(|all| all.value.keys().map(String::as_str)).collect();
    let empty = Named::new();
    let overlays = file.targets.as_ref().map_or(&empty, |targets| &targets.value);
    let mut book = Book { names, providers, overlays, catalogue: Catalogue::default(), specs: BTreeMap::new() };
    let tiers = tiers(file.tiers.as_ref(), log);
    let contracts = file.contracts.as_ref().map(|contracts| &contracts.value);
    let mut used = Used::default();

    let mut routes = BTreeMap::new();
    for (name, route) in file.routes.iter().flat_map(|routes| &routes.value) {
        let route = judge_route(name, route, &tiers, contracts, &mut book, &mut used, log);
        routes.extend(route.map(|route| (route.id.clone(), Arc::new(route))));
    }
    unused(file, &used, log);

    let setting = file.server.as_ref().and_then(|server| server.value.direct.as_ref());
    let direct = setting.map_or(Direct::Named, |direct| direct.value);
    for (name, overlay) in overlays {
        let known = book.target(name, &overlay.place, log).is_some();
        if known && direct == Direct::Off && !used.targets.contains(name.as_str()) {
            let what = "nothing can reach this target: no route uses it and server.direct is \"off\"";
            log.error(&overlay.place, what, "Add it to a route or remove it");
        }
    }
    if let (Direct::Catalogue, Some(At { place, .. })) = (direct, setting) {
        book.open_catalogue(place, log);
    }
    book.idle_providers(log);
    let direct = if direct == Direct::Off { BTreeMap::new() } else { direct_routes(&book.specs, &tiers["basic"]) };
    let targets = book.specs.into_values().collect();
    let gates = routes
        .iter()
        .filter_map(|(id, route): (&RouteId, &Arc<Route>)| {
            Some((id.clone(), Arc::new(Gates::compile(&route.contract).ok()?)))
        })
        .collect();
    Routing { targets, routes, gates, direct }
}

/// Which names a route used.
#[derive(Default)]
struct Used<'f> {
    targets: BTreeSet<&'f str>,
    tiers: BTreeSet<&'f str>,
    contracts: BTreeSet<&'f str>,
}

fn judge_route<'f>(
    name: &str,
    route: &'f At<RouteFile>,
    tiers: &BTreeMap<String, Arc<Tier>>,
    contracts: Option<&'f Named<ContractFile>>,
    book: &mut Book<'_>,
    used: &mut Used<'f>,
    log: &mut Log,
) -> Option<Route> {
    let (place, file) = (&route.place, &route.value);
    route_name(name, place, book, log);
    let ranking = match file.ranking.as_ref().map(|ranking| ranking.value) {
        None | Some(RankingChoice::Order) => Ranking::Order,
        Some(RankingChoice::Weight) => Ranking::Weight,
        Some(RankingChoice::Latency) => Ranking::Latency,
        Some(RankingChoice::Cost) => Ranking::Cost,
    };
    let targets = route_targets(file, place, ranking, book, used, log);
    let tier_name = file.tier.as_ref().map_or("standard", |tier| tier.value.as_str());
    used.tiers.insert(tier_name);
    let tier = tiers.get(tier_name);
    if tier.is_none() {
        let place = file.tier.as_ref().map_or(place, |tier| &tier.place);
        log.error(place, format_args!("there is no tier \"{tier_name}\""), suggest(tier_name, tiers.keys(), "tiers"));
    }
    let contract_name = file.contract.as_ref();
    used.contracts.extend(contract_name.map(|contract| contract.value.as_str()));
    let contract_file = contract_name.and_then(|name| contracts?.get(&name.value));
    if let (Some(name), None) = (contract_name, contract_file)
        && !log.has_error_at(&format!("contracts.{}", name.value))
    {
        let known = contracts.into_iter().flat_map(Named::keys);
        log.error(
            &name.place,
            format_args!("there is no contract \"{}\"", name.value),
            suggest(&name.value, known, "contracts"),
        );
    }
    let tier = tier?;
    let contract = contract(contract_name.map_or("default", |name| &name.value), contract_file, tier, log);
    let targets = targets?;
    distinct_providers(file, place, &targets, tier, tiers, log);
    if ranking == Ranking::Cost {
        for target in
            targets.iter().filter(|target| book.specs.get(&target.target).is_some_and(|spec| spec.price.is_none()))
        {
            let place = file.ranking.as_ref().map_or(place, |ranking| &ranking.place);
            log.warn(
                place,
                format_args!(
                    "the price of {} is unknown, so it comes last; [targets.\"{}\"] may say it",
                    target.target, target.target
                ),
            );
        }
    }
    Some(Route {
        id: RouteId::from(name),
        targets,
        ranking,
        tier: Arc::clone(tier),
        contract: Arc::new(contract),
        backstops: Vec::new(),
        risk: None,
        sla: None,
    })
}

fn route_name(name: &str, place: &Place, book: &Book<'_>, log: &mut Log) {
    if name.is_empty() || name.len() > 128 || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        log.error(place, "a route's name has 1 to 128 characters and no spaces", "Rename it");
    }
    if let Some((provider, _)) = name.split_once('/').filter(|(provider, _)| book.names.contains(provider)) {
        let what = format!("a route of this name would hide the target of that name: {provider} is a provider");
        log.error(place, what, "Rename the route; the target itself already works as a route of one");
    }
}

fn route_targets<'f>(
    file: &'f RouteFile,
    place: &Place,
    ranking: Ranking,
    book: &mut Book<'_>,
    used: &mut Used<'f>,
    log: &mut Log,
) -> Option<Vec<RouteTarget>> {
    let list = match &file.targets {
        Some(list) if !list.value.is_empty() => list,
        _ if log.has_error_under(&format!("{}.targets", place.path)) => return None,
        Some(list) => {
            log.error(
                &list.place,
                "a route without targets can answer nothing",
                "Add a target, written provider/model",
            );
            return None;
        }
        None => {
            log.error(place, "it has no `targets`", "Add targets = [\"provider/model\"]");
            return None;
        }
    };
    let mut targets: Vec<RouteTarget> = Vec::new();
    let mut complete = true;
    for entry in &list.value {
        let (name, at, weight) = match &entry.value {
            RouteTargetFile::Name(name) => (name, &entry.place, None),
            RouteTargetFile::Weighted(weighted) => {
                let Some(target) = &weighted.target else {
                    if !log.has_error_under(&entry.place.path) {
                        log.error(&entry.place, "it has no `target`", "Add target = \"provider/model\"");
                    }
                    complete = false;
                    continue;
                };
                (&target.value, &target.place, weighted.weight.as_ref())
            }
        };
        used.targets.insert(name);
        if let Some(weight) = weight.filter(|_| ranking != Ranking::Weight) {
            log.error(
                &weight.place,
                "it never takes effect: `ranking` is not \"weight\"",
                "Set ranking = \"weight\" or remove it",
            );
        }
        let Some(target) = book.target(name, at, log) else {
            complete = false;
            continue;
        };
        if targets.iter().any(|earlier| earlier.target == target) {
            log.error(at, format_args!("{target} is in this route twice"), "Remove one of the two");
            complete = false;
            continue;
        }
        targets.push(RouteTarget { target, weight: weight.map_or(1, |weight| weight.value) });
    }
    complete.then_some(targets)
}

fn distinct_providers(
    file: &RouteFile,
    place: &Place,
    targets: &[RouteTarget],
    tier: &Tier,
    tiers: &BTreeMap<String, Arc<Tier>>,
    log: &mut Log,
) {
    let providers: BTreeSet<&str> = targets.iter().map(|target| target.target.provider()).collect();
    let needed = usize::from(tier.distinct_providers);
    if providers.len() >= needed {
        return;
    }
    let lesser = ["standard", "basic", "none"]
        .into_iter()
        .find(|lesser| tiers.get(*lesser).is_some_and(|tier| usize::from(tier.distinct_providers) <= providers.len()));
    let or_else = lesser.map(|lesser| format!(", or use tier \"{lesser}\"")).unwrap_or_default();
    let place = file.tier.as_ref().map_or(place, |tier| &tier.place);
    let what =
        format!("tier \"{}\" needs {needed} providers, found {} ({})", tier.name, providers.len(), join(&providers));
    log.error(place, what, format_args!("Add a target of another provider{or_else}"));
}

/// What no route uses has no effect. With a misspelt reference about, what looks unused is probably what was meant.
fn unused(file: &File, used: &Used<'_>, log: &mut Log) {
    let dangling = |section: Option<Vec<&String>>, used: &BTreeSet<&str>, built_in: &[&str]| {
        let known = |name: &str| built_in.contains(&name) || section.iter().flatten().any(|known| *known == name);
        used.iter().any(|name| !known(name))
    };
    let contract_names = file.contracts.as_ref().map(|all| all.value.keys().collect());
    let tier_names = file.tiers.as_ref().map(|all| all.value.keys().collect());
    let contracts_dangle = dangling(contract_names, &used.contracts, &[]);
    let tiers_dangle = dangling(tier_names, &used.tiers, &["none", "basic", "standard", "critical"]);

    let contracts = file.contracts.iter().flat_map(|all| &all.value).map(|(name, at)| ("contract", name, &at.place));
    let contracts = contracts.filter(|(_, name, _)| !contracts_dangle && !used.contracts.contains(name.as_str()));
    let tiers = file.tiers.iter().flat_map(|all| &all.value).map(|(name, at)| ("tier", name, &at.place));
    let tiers = tiers.filter(|(_, name, _)| !tiers_dangle && !used.tiers.contains(name.as_str()));
    for (kind, name, place) in contracts.chain(tiers) {
        log.error(
            place,
            "it never takes effect: no route uses it",
            format_args!("Add {kind} = \"{name}\" to a route or remove it"),
        );
    }
}

/// A route of one for every target, by its full name, and by its bare model name where that is unique.
fn direct_routes(specs: &BTreeMap<TargetId, TargetSpec>, tier: &Arc<Tier>) -> BTreeMap<Box<str>, Arc<Route>> {
    let contract = Arc::new(Contract::plain("default", StreamContract::Fail));
    let mut by_model: BTreeMap<&str, Option<&TargetId>> = BTreeMap::new();
    for id in specs.keys() {
        by_model.entry(id.model()).and_modify(|only| *only = None).or_insert(Some(id));
    }
    let mut direct = BTreeMap::new();
    for id in specs.keys() {
        let target = RouteTarget { target: id.clone(), weight: 1 };
        let (tier, contract) = (Arc::clone(tier), Arc::clone(&contract));
        let route = Arc::new(Route::plain(RouteId::from(id.as_str()), vec![target], tier, contract));
        if by_model.get(id.model()).copied().flatten() == Some(id) {
            direct.entry(id.model().into()).or_insert_with(|| Arc::clone(&route));
        }
        // A full name always wins over a bare one that happens to look like it.
        direct.insert(id.as_str().into(), route);
    }
    direct
}

fn suggest<'n>(name: &str, known: impl Iterator<Item = &'n String> + Clone, section: &str) -> String {
    match did_you_mean(name, known.clone().map(String::as_str)) {
        Some(near) => format!("Did you mean \"{near}\"? Otherwise add [{section}.{name}]"),
        None => {
            let known: BTreeSet<&str> = known.map(String::as_str).collect();
            let or_else = if known.is_empty() { String::new() } else { format!(" or use one of: {}", join(&known)) };
            format!("Add [{section}.{name}]{or_else}")
        }
    }
}

fn join(names: &BTreeSet<&str>) -> String {
    names.iter().copied().collect::<Vec<_>>().join(", ")
}
