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

/// The targets found so far and what is needed to judge another.
struct Book<'f> {
    /// Every provider the file names, with errors or without: a reference to a broken one is no second error.
    names: BTreeSet<&'f str>,
    providers: &'f BTreeMap<String, Judged>,
    overlays: &'f Named<TargetFile>,
    catalogue: Catalogue,
    specs: BTreeMap<TargetId, TargetSpec>,
}

impl Book<'_> {
    /// Finds or makes a target by its name. `None`: the log has the reason.
    fn target(&mut self, name: &str, place: &Place, log: &mut Log) -> Option<TargetId> {
        let Some((provider, model)) =
            name.split_once('/').filter(|(provider, model)| !provider.is_empty() && !model.is_empty())
        else {
            let remedy = match self.names.first() {
                Some(only) if self.names.len() == 1 => format!("Write \"{only}/{name}\"").replace("//", "/"),
                _ => "Write provider/model".to_owned(),
            };
            log.error(place, format_args!("\"{name}\" is not a target, which is written provider/model"), remedy);
            return None;
        };
        if name.len() > 256 || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            log.error(place, "a target's name has up to 256 characters and no spaces", "Correct the model's name");
            return None;
        }
        if !self.names.contains(provider) {
            let remedy = match did_you_mean(provider, self.names.iter().copied()) {
                Some(near) => format!("Did you mean \"{near}/{model}\"? Otherwise add [providers.{provider}]"),
                None if self.names.is_empty() => format!("Add [providers.{provider}]"),
                None => format!("Add [providers.{provider}] or use one of: {}", join(&self.names)),
            };
            log.error(place, format_args!("there is no provider \"{provider}\""), remedy);
            return None;
        }
        let id = TargetId::from(name);
        if !self.specs.contains_key(&id) {
            let spec = self.spec(&id, place, log)?;
            self.specs.insert(id.clone(), spec);
        }
        Some(id)
    }

    fn spec(&mut self, id: &TargetId, place: &Place, log: &mut Log) -> Option<TargetSpec> {
        let judged = self.providers.get(id.provider())?;
        let known = judged.vendor.and_then(|vendor| self.catalogue.find(vendor, id.model()));
        let overlay = self.overlays.get(id.as_str());
        if let (Some(vendor @ ("openai" | "anthropic")), None, None) = (judged.vendor, known, overlay) {
            let near = did_you_mean(id.model(), self.catalogue.models(vendor));
            let hint = near.map(|near| format!("; did you mean \"{near}\"")).unwrap_or_default();
            log.warn(
                place,
                format_args!(
                    "the catalogue has no model \"{}\" of {vendor}, so its price and context window are unknown{hint}",
                    id.model()
                ),
            );
        }
        Some(merge(id, judged, known, overlay.map(|overlay| &overlay.value), log))
    }

    /// Adds the catalogue's models of every provider. Nobody asked for these by name: they are not probed.
    fn open_catalogue(&mut self, place: &Place, log: &mut Log) {
        for (provider, judged) in self.providers {
            let Some(vendor) = judged.vendor else { continue };
            let names: Vec<String> = self.catalogue.models(vendor).map(str::to_owned).collect();
            if names.len() > CATALOGUE_MODELS_MAX {
                let (many, most) = (names.len(), CATALOGUE_MODELS_MAX);
                let what = format!(
                    "the catalogue knows {many} models of {provider}, more than {most}, so it stays shut for it"
                );
                log.warn(
                    place,
                    format_args!("{what}: name those you want in routes or as [targets.\"{provider}/MODEL\"]"),
                );
                continue;
            }
            for model in names {
                let id = TargetId::of(&judged.provider.id, &model);
                if !self.specs.contains_key(&id) {
                    let known = self.catalogue.find(vendor, &model);
                    let mut quiet = Log::new("", "");
                    let spec = merge(&id, judged, known, None, &mut quiet);
                    self.specs.insert(id, TargetSpec { probes: false, ..spec });
                }
            }
        }
    }

    /// A provider that no target uses would never be called.
    fn idle_providers(&self, log: &mut Log) {
        let used: BTreeSet<&str> = self.specs.keys().map(TargetId::provider).collect();
        for (name, judged) in self.providers.iter().filter(|(name, _)| !used.contains(name.as_str())) {
            // With a broken route about, the target that is missing here may be in it.
            if !log.has_error_under("routes") && !log.has_error_under("targets") {
                let remedy = format!(
                    "Add one of its models to a route, or as [targets.\"{name}/MODEL\"], or set server.direct = \"catalogue\""
                );
                log.error(&judged.place, "nothing can reach this provider: no route and no target names it", remedy);
            }
        }
    }
}

/// A target from what the provider, the catalogue and the config say; the config wins.
fn merge(
    id: &TargetId,
    judged: &Judged,
    known: Option<Known>,
    overlay: Option<&TargetFile>,
    log: &mut Log,
) -> TargetSpec {
    let provider = &judged.provider;
    let said = judged.vendor.map(|vendor| catalogue::capabilities(vendor, id.model())).unwrap_or_default();
    let timeouts = overlay.and_then(|overlay| overlay.timeouts.as_ref());
    let context_window = overlay.and_then(|overlay| overlay.context_window.as_ref()).map(|window| window.value);
    let max_output = overlay.and_then(|overlay| overlay.max_output.as_ref());
    let context_window = context_window.or(known.and_then(|known| known.context_window));
    if let (Some(output), Some(window)) = (max_output, context_window)
        && output.value > window
    {
        log.error(
            &output.place,
            format_args!("it is more than the context window of {window}"),
            "Correct one of the two",
        );
    }
    TargetSpec {
        id: id.clone(),
        provider: provider.id.clone(),
        region: provider.region.clone(),
        dialect: provider.kind.dialect(),
        capabilities: abilities(said, overlay),
        context_window,
        max_output: max_output.map(|output| output.value),
        price: overlay.and_then(|overlay| price(overlay.price.as_ref(), log)).or(known.map(|known| known.price)),
        timeouts: providers::timeouts(timeouts, provider.timeouts, log),
        keys: u8::try_from(provider.keys.len()).unwrap_or(u8::MAX).max(1),
        probes: overlay.and_then(|overlay| overlay.probes.as_ref()).map_or(provider.probes, |probes| probes.value),
    }
}

fn abilities(said: Capabilities, overlay: Option<&TargetFile>) -> Capabilities {
    let Some(file) = overlay.and_then(|overlay| overlay.capabilities.as_ref()) else { return said };
    let one = |setting: &Option<At<bool>>, said| match setting {
        Some(At { value: true, .. }) => Ability::Yes,
        Some(At { value: false, .. }) => Ability::No,
        None => said,
    };
    Capabilities {
        tools: one(&file.value.tools, said.tools),
        images: one(&file.value.images, said.images),
        json_schema: one(&file.value.json_schema, said.json_schema),
    }
}

fn price(file: Option<&At<PriceFile>>, log: &mut Log) -> Option<Price> {
    let At { value: file, place } = file?;
    let (Some(input), Some(output)) = (&file.input, &file.output) else {
        if !log.has_error_under(&place.path) {
            log.error(
                place,
                "a price has both `input` and `output`",
                "Add the missing one, in dollars per million tokens",
            );
        }
        return None;
    };
    let all = [Some(input), Some(output), file.cache_read.as_ref(), file.cache_write.as_ref()];
    for dear in all.into_iter().flatten().filter(|price| price.value > 100_000.0) {
        log.error(&dear.place, "more than $100,000 per million tokens is no price", "Write dollars per million tokens");
    }
    let cache = |setting: &Option<At<f64>>| setting.as_ref().map(|price| price.value);
    Some(Price::per_million(input.value, output.value, cache(&file.cache_read), cache(&file.cache_write)))
}

/// The built-in tiers with the file's over them. A tier of one's own starts from `standard`.
fn tiers(file: Option<&At<Named<TierFile>>>, log: &mut Log) -> BTreeMap<String, Arc<Tier>> {
    let mut tiers: BTreeMap<String, Tier> =
        Tier::built_in().into_iter().map(|tier| (tier.name.to_string(), tier)).collect();
    let standard = tiers["standard"].clone();
    for (name, At { value: file, place }) in file.iter().flat_map(|tiers| &tiers.value) {
        let base = tiers.get(name).unwrap_or(&standard).clone();
        let mut count = |setting: &Option<At<u32>>, base: u8, most: u8| {
            let Some(setting) = setting else { return base };
            u8::try_from(setting.value).ok().filter(|count| *count <= most).unwrap_or_else(|| {
                log.error(
                    &setting.place,
                    format_args!("{} is too many", setting.value),
                    format_args!("Write 1 to {most}"),
                );
                base
            })
        };
        let attempts = count(&file.attempts, base.attempts, 16);
        let distinct_providers = count(&file.distinct_providers, base.distinct_providers, 16);
        let deadline = file.deadline.as_ref().map_or(base.deadline, |deadline| deadline.value.0);
        if distinct_providers > attempts && !log.has_error_under(&place.path) {
            let what = format!("{attempts} attempts can never use {distinct_providers} providers");
            log.error(place, what, "Raise `attempts` or lower `distinct_providers`");
        }
        tiers.insert(
            name.clone(),
            Tier { name: name.as_str().into(), attempts, distinct_providers, deadline, ..base.clone() },
        );
    }
    tiers.into_iter().map(|(name, tier)| (name, Arc::new(tier))).collect()
}

/// A contract under a tier: `hold` is on in `critical` unless the contract says otherwise.
fn contract(name: &str, file: Option<&At<ContractFile>>, tier: &Tier, log: &mut Log) -> Contract {
    let default_stream = if &*tier.name == "critical" { StreamContract::CRITICAL } else { StreamContract::Fail };
    let Some(At { value: file, .. }) = file else {
        return Contract::plain(name, default_stream);
    };
    let holds = match file.stream.as_ref().map(|stream| stream.value) {
        Some(StreamChoice::Hold) => true,
        Some(StreamChoice::Buffer | StreamChoice::Fail) => false,
        None => matches!(default_stream, StreamContract::Hold { .. }),
    };
    if let (Some(hold), false) = (&file.hold, holds)
        && !log.has_error_at(&hold.place.path)
    {
        log.error(&hold.place, "it never takes effect: `stream` is not \"hold\"", "Set stream = \"hold\" or remove it");
    }
    let stream = match file.stream.as_ref().map(|stream| stream.value) {
        Some(StreamChoice::Buffer) => StreamContract::Buffer,
        Some(StreamChoice::Fail) => StreamContract::Fail,
        Some(StreamChoice::Hold) => held(file),
        None if holds => held(file),
        None => default_stream,
    };
    let refusal = match file.refusal.as_ref().map(|refusal| refusal.value) {
        Some(RefusalChoice::Reroute) => RefusalPolicy::Reroute,
        Some(RefusalChoice::Review) => RefusalPolicy::Review,
        Some(RefusalChoice::Deliver) | None => RefusalPolicy::Deliver,
    };
    Contract { refusal, ..Contract::plain(name, stream) }
}

fn held(file: &ContractFile) -> StreamContract {
    let hold = file.hold.as_ref().map(|hold| &hold.value);
    let StreamContract::Hold { tokens, after } = StreamContract::CRITICAL else { return StreamContract::CRITICAL };
    StreamContract::Hold {
        tokens: hold.and_then(|hold| hold.tokens.as_ref()).map_or(tokens, |tokens| tokens.value),
        after: hold.and_then(|hold| hold.after.as_ref()).map_or(after, |after| after.value.0),
    }
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
