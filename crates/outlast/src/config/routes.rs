//! Judges routes: every reference must lead somewhere, and everything must be reachable.

use super::{
    SecretKey,
    backstops::{self, Backstops},
    catalogue::Catalogue,
    contracts::{self, Around},
    ends,
    file::{Direct, File, RankingChoice, RouteFile, RouteTargetFile, SlaFile},
    fit::Fit,
    providers::Judged,
    read::{At, Log, Named, Place, did_you_mean},
    step_routes,
    targets::Book,
    tiers,
    words::PresetChoice,
};
use outlast_model::{
    RouteId, TargetId,
    policy::{Contract, Ranking, Route, RouteTarget, Sla, StreamContract, TargetSpec, Tier},
};
use outlast_wire::contract::Gates;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The longest `risk`, in characters: it is a sentence, and stands in tables.
const RISK_CHARS_MAX: usize = 500;

/// What comes out.
#[derive(Default)]
pub(super) struct Routing {
    pub(super) targets: Vec<TargetSpec>,
    pub(super) routes: BTreeMap<RouteId, Arc<Route>>,
    pub(super) gates: BTreeMap<RouteId, Arc<Gates>>,
    pub(super) direct: BTreeMap<Box<str>, Arc<Route>>,
    pub(super) webhook_secrets: BTreeMap<Arc<str>, SecretKey>,
}

/// What routes are made of.
pub(super) struct Parts<'f> {
    pub(super) file: &'f File,
    pub(super) tiers: BTreeMap<String, Arc<Tier>>,
    contracts: BTreeMap<String, Contract>,
    pub(super) backstops: Backstops,
}

/// Judges them all.
pub(super) fn judge(file: &File, providers: &BTreeMap<String, Judged>, around: Around<'_>, log: &mut Log) -> Routing {
    let names: BTreeSet<&str> = file.providers.iter().flat_map(|all| all.value.keys().map(String::as_str)).collect();
    let empty = Named::new();
    let overlays = file.targets.as_ref().map_or(&empty, |targets| &targets.value);
    let mut book = Book { names, providers, overlays, catalogue: Catalogue::default(), specs: BTreeMap::new() };
    let parts = Parts {
        file,
        tiers: tiers::judge(file.tiers.as_ref(), log),
        contracts: contracts::judge(file, around, log),
        backstops: backstops::judge(file.backstops.as_ref(), around, log),
    };
    let mut used = Used::default();

    let mut routes = BTreeMap::new();
    let mut gates = BTreeMap::new();
    for (name, route) in file.routes.iter().flat_map(|routes| &routes.value) {
        let Some(route) = judge_route(name, route, &parts, &mut book, &mut used, log) else { continue };
        // A contract that does not compile has been told.
        if let Ok(compiled) = Gates::compile(&route.contract) {
            ends::fixed_replies(file, &route, &compiled, log);
            gates.insert(route.id.clone(), Arc::new(compiled));
        }
        routes.insert(route.id.clone(), Arc::new(route));
    }
    let of_steps = step_routes::judge(file, &routes, &parts, &mut book, &mut used, log);
    unused(file, &used, log);
    tiers::idle_exhausted(file.tiers.as_ref(), &used.exhausted, &used.tiers, log);
    ends::links(file, &routes, log);
    ends::judges_prices(file, &routes, &book.specs, log);

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
    let mut direct =
        if direct == Direct::Off { BTreeMap::new() } else { direct_routes(&book.specs, &parts.tiers["basic"]) };
    for (route, compiled) in of_steps {
        gates.extend(compiled.map(|compiled| (route.id.clone(), compiled)));
        direct.insert(route.id.as_str().into(), route);
    }
    let targets = book.specs.into_values().collect();
    Routing { targets, routes, gates, direct, webhook_secrets: parts.backstops.webhook_secrets }
}

/// Which names a route used.
#[derive(Default)]
pub(super) struct Used<'f> {
    targets: BTreeSet<&'f str>,
    tiers: BTreeSet<&'f str>,
    /// The tiers whose own backstops some route takes.
    exhausted: BTreeSet<&'f str>,
    contracts: BTreeSet<&'f str>,
    pub(super) backstops: BTreeSet<String>,
}

fn judge_route<'f>(
    name: &str,
    route: &'f At<RouteFile>,
    parts: &Parts<'f>,
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
    let tier = tier(file.tier.as_ref(), place, file.backstops.is_some(), parts, used, log);
    let contract = contract(file.contract.as_ref(), parts, used, log);
    let (risk, sla) = (risk(file, log), file.sla.as_ref().map(|sla| judge_sla(sla, log)));
    let tier = tier?;
    let backstops = ends::of_route(parts.file, route, tier, &contract, &parts.backstops, &mut used.backstops, log);
    let written = parts.file.contracts.as_ref().and_then(|all| all.value.get(&*contract.name));
    let fit = Fit {
        file,
        place,
        contract: &contract,
        written: written.map(|written| &written.value),
        tier,
        // Half of the targets would make for guesses: without all of them, nothing is said that depends on them.
        targets: targets.as_deref().unwrap_or_default(),
        specs: &book.specs,
    };
    let permitted = fit.judge(log);
    fit.distinct_providers(&permitted, &parts.tiers, log);
    fit.reviews(&backstops, log);
    let stream = fit.stream(log);
    if ranking == Ranking::Cost {
        unpriced(file, place, &permitted, log);
    }
    Some(Route {
        id: RouteId::from(name),
        ranking,
        tier: Arc::clone(tier),
        contract: Arc::new(Contract { stream, ..contract }),
        targets: targets?,
        backstops,
        risk,
        sla,
    })
}

/// The tier of that name, or the one of a route that names none. `own_ends`: its backstops are not the tier's.
pub(super) fn tier<'f, 'p>(
    setting: Option<&'f At<String>>,
    place: &Place,
    own_ends: bool,
    parts: &'p Parts<'f>,
    used: &mut Used<'f>,
    log: &mut Log,
) -> Option<&'p Arc<Tier>> {
    let name = setting.map_or("standard", |tier| tier.value.as_str());
    used.tiers.insert(name);
    if !own_ends {
        used.exhausted.insert(name);
    }
    let tier = parts.tiers.get(name);
    if tier.is_none() {
        let place = setting.map_or(place, |tier| &tier.place);
        let remedy = suggest(name, parts.tiers.keys(), "tiers");
        log.error(place, format_args!("there is no tier \"{name}\""), remedy);
    }
    tier
}

/// The contract of that name; the plain one where none is named, or none that is there.
pub(super) fn contract<'f>(
    name: Option<&'f At<String>>,
    parts: &Parts<'f>,
    used: &mut Used<'f>,
    log: &mut Log,
) -> Contract {
    let Some(name) = name else { return Contract::plain("default", StreamContract::Fail) };
    used.contracts.insert(&name.value);
    if let Some(contract) = parts.contracts.get(&name.value) {
        return contract.clone();
    }
    if !log.has_error_at(&format!("contracts.{}", name.value)) {
        let remedy = suggest(&name.value, parts.contracts.keys(), "contracts");
        log.error(&name.place, format_args!("there is no contract \"{}\"", name.value), remedy);
    }
    Contract::plain(&name.value, StreamContract::Fail)
}

fn risk(file: &RouteFile, log: &mut Log) -> Option<Arc<str>> {
    let At { value, place } = file.risk.as_ref()?;
    if value.chars().count() > RISK_CHARS_MAX {
        let what = format!("it is longer than {RISK_CHARS_MAX} characters");
        log.error(place, what, "Say in a sentence what a wrong or missing answer costs");
    }
    Some(value.trim().into())
}

/// What is promised, of a route or a step.
pub(super) fn judge_sla(At { value: file, place }: &At<SlaFile>, log: &mut Log) -> Sla {
    let sla = Sla {
        availability: file.availability.as_ref().map(|availability| availability.value),
        p95: file.p95.as_ref().map(|p95| p95.value.0),
    };
    if sla.availability.is_none() && sla.p95.is_none() && !log.has_error_under(&place.path) {
        log.error(place, "it promises nothing", "Add availability = 0.999 or p95 = \"8s\"");
    }
    if let Some(setting) = file.availability.as_ref().filter(|share| share.value <= 0.0 || share.value >= 1.0) {
        let what = format!("{} is no share that could be promised", setting.value);
        log.error(&setting.place, what, "Write more than 0 and less than 1, like 0.999");
    }
    sla
}

fn unpriced(file: &RouteFile, place: &Place, permitted: &[&TargetSpec], log: &mut Log) {
    let place = file.ranking.as_ref().map_or(place, |ranking| &ranking.place);
    for spec in permitted.iter().filter(|spec| spec.price.is_none()) {
        let id = &spec.id;
        log.warn(place, format_args!("the price of {id} is unknown, so it comes last; [targets.\"{id}\"] may say it"));
    }
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

/// What no route uses has no effect. With a misspelt reference about, what looks unused is probably what was meant.
fn unused(file: &File, used: &Used<'_>, log: &mut Log) {
    let dangling = |section: Option<Vec<&String>>, used: &BTreeSet<&str>, built_in: &[&str]| {
        let known = |name: &str| built_in.contains(&name) || section.iter().flatten().any(|known| *known == name);
        used.iter().any(|name| !known(name))
    };
    let presets = PresetChoice::ALL.map(PresetChoice::name);
    let contract_names = file.contracts.as_ref().map(|all| all.value.keys().collect());
    let tier_names = file.tiers.as_ref().map(|all| all.value.keys().collect());
    let backstop_names = file.backstops.as_ref().map(|all| all.value.keys().collect());
    let backstops_used: BTreeSet<&str> = used.backstops.iter().map(String::as_str).collect();
    let contracts_dangle = dangling(contract_names, &used.contracts, &presets);
    let tiers_dangle = dangling(tier_names, &used.tiers, &["none", "basic", "standard", "critical"]);
    let backstops_dangle = dangling(backstop_names, &backstops_used, &["fail", "queue", "cache", "escalate"]);

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
    // A route that could not be judged has named no backstops.
    let routes_broken = log.has_error_under("routes") || log.has_error_under("tiers");
    for (name, at) in file.backstops.iter().flat_map(|all| &all.value) {
        if !backstops_dangle && !routes_broken && !used.backstops.contains(name) {
            let remedy = format!("Add \"{name}\" to a route's `backstops` or a tier's `exhausted`, or remove it");
            log.error(&at.place, "it never takes effect: no route ends in it", remedy);
        }
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

pub(super) fn suggest<'n>(name: &str, known: impl Iterator<Item = &'n String> + Clone, section: &str) -> String {
    match did_you_mean(name, known.clone().map(String::as_str)) {
        Some(near) => format!("Did you mean \"{near}\"? Otherwise add [{section}.{name}]"),
        None => {
            let known: BTreeSet<&str> = known.map(String::as_str).collect();
            let or_else = if known.is_empty() { String::new() } else { format!(" or use one of: {}", join(&known)) };
            format!("Add [{section}.{name}]{or_else}")
        }
    }
}

pub(super) fn join(names: &BTreeSet<&str>) -> String {
    names.iter().copied().collect::<Vec<_>>().join(", ")
}
