//! Judges how routes end and whom they ask: backstops in their order, and routes that lead to other routes.

use super::{
    backstops::Backstops,
    file::{File, RouteFile},
    read::{At, Log, Place},
    routes::suggest,
    tiers,
};
use outlast_model::{
    Brief, RouteId, TargetId,
    finding::Gate,
    policy::{Backstop, BackstopKind, ConfidenceFrom, Contract, Dialect, Judge, Route, TargetSpec, Tier},
    turn::{Finish, Usage},
};
use outlast_wire::{
    Inbound,
    check::{self, Asked},
    compose::Said,
    contract::Gates,
    template::Template,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The backstops of a route: its own, or those of its tier. `used` learns their names.
pub(super) fn of_route<'f>(
    file: &'f File,
    At { value: route, place }: &'f At<RouteFile>,
    tier: &'f Tier,
    contract: &Contract,
    known: &Backstops,
    used: &mut BTreeSet<String>,
    log: &mut Log,
) -> Vec<Arc<Backstop>> {
    let entries: Vec<(&str, &Place)> = match &route.backstops {
        Some(list) => {
            if list.value.is_empty() && !log.has_error_under(&list.place.path) {
                log.error(&list.place, "the list is empty", "Write [\"fail\"] for a plain error, or remove it");
            }
            list.value.iter().map(|name| (name.value.as_str(), &name.place)).collect()
        }
        None => {
            let places = tiers::exhausted_places(file.tiers.as_ref(), &tier.name);
            let names = tier.exhausted.iter().enumerate();
            names.map(|(at, name)| (&**name, places.get(at).copied().unwrap_or(place))).collect()
        }
    };
    let mut chain: Vec<Arc<Backstop>> = Vec::new();
    for (name, place) in entries {
        used.insert(name.to_owned());
        let Some(backstop) = known.all.get(name) else {
            if !log.has_error_under(&place.path) && !log.has_error_under(&format!("backstops.{name}")) {
                log.error(
                    place,
                    format_args!("there is no backstop \"{name}\""),
                    suggest(name, known.all.keys(), "backstops"),
                );
            }
            continue;
        };
        if log.has_error_at(&place.path) {
            continue;
        }
        if chain.contains(backstop) {
            log.error(place, format_args!("\"{name}\" is there twice"), "Remove one of the two");
        } else if let Some(earlier) = chain.iter().find(|earlier| always_ends(earlier, backstop, contract)) {
            let what = format!("it is never tried: \"{}\" before it always ends the call", earlier.name);
            log.error(place, what, "Move it before that one, or remove it");
        }
        if file.store.is_none() && needs_store(backstop) {
            let what = format!("\"{name}\" keeps what must outlive the process, and there is no [store]");
            let remedy = "Add [store] with file = \"outlast-store.db\" and data_key = \"${OUTLAST_DATA_KEY}\"";
            log.error(place, what, remedy);
        }
        chain.push(Arc::clone(backstop));
    }
    chain
}

/// Whether a backstop leaves nothing to a later one. A contract's gates hold for a template's reply too, so only a
/// contract without gates lets it always pass.
fn always_ends(earlier: &Backstop, later: &Backstop, contract: &Contract) -> bool {
    match &earlier.kind {
        BackstopKind::Fail { .. } => true,
        BackstopKind::Static { .. } => {
            !contract.judges_whole_replies() || matches!(later.kind, BackstopKind::Static { .. })
        }
        BackstopKind::Rules(_)
        | BackstopKind::Cache { .. }
        | BackstopKind::Queue { .. }
        | BackstopKind::Confirm { .. }
        | BackstopKind::Escalate { .. } => false,
    }
}

/// What was acknowledged must not be lost with the process.
fn needs_store(backstop: &Backstop) -> bool {
    match backstop.kind {
        BackstopKind::Queue { .. } | BackstopKind::Escalate { .. } => true,
        BackstopKind::Static { .. }
        | BackstopKind::Rules(_)
        | BackstopKind::Cache { .. }
        | BackstopKind::Confirm { .. }
        | BackstopKind::Fail { .. } => false,
    }
}

/// A reply that is the same for every request, and breaks the contract, would be withheld on the day it is needed.
pub(super) fn fixed_replies(file: &File, route: &Route, gates: &Gates, log: &mut Log) {
    for backstop in &route.backstops {
        let written = file.backstops.as_ref().and_then(|all| all.value.get(&*backstop.name));
        let Some(written) = written.map(|written| &written.value) else { continue };
        let replies: Vec<&At<String>> = match &backstop.kind {
            BackstopKind::Static { .. } => written.reply.iter().collect(),
            BackstopKind::Rules(_) => {
                let rules = written.rules.iter().flat_map(|rules| &rules.value);
                rules.filter_map(|rule| rule.value.reply.as_ref()).collect()
            }
            BackstopKind::Cache { .. }
            | BackstopKind::Queue { .. }
            | BackstopKind::Confirm { .. }
            | BackstopKind::Escalate { .. }
            | BackstopKind::Fail { .. } => Vec::new(),
        };
        for reply in replies {
            if !log.has_error_under(&reply.place.path)
                && let Some(why) = breaks(&reply.value, route, gates)
            {
                let what = format!("as a reply of route \"{}\" it would be withheld: {why}", route.id);
                let remedy = format!("Make it keep contract \"{}\", or its degraded schema", route.contract.name);
                log.error(&reply.place, what, remedy);
            }
        }
    }
}

/// What a reply that needs no facts breaks of what can be said without a request.
fn breaks(template: &str, route: &Route, gates: &Gates) -> Option<String> {
    let template = Template::compile(template).ok().filter(|template| template.names().is_empty())?;
    let text = template.render(&()).ok()?;
    let body = serde_json::json!({ "model": route.id, "messages": [{ "role": "user", "content": "?" }] });
    let inbound = Inbound::parse(Dialect::OpenaiChat, body.to_string().into()).ok()?;
    let said = Said {
        id: String::new(),
        model: String::new(),
        text,
        tool_calls: Vec::new(),
        finish: Finish::Stop,
        usage: Usage::default(),
    };
    let findings = check::said(&Asked { inbound: &inbound, gates, brief: &Brief::default() }, &said).findings;
    if findings.keeps_degraded {
        return None;
    }
    let of_the_text = |gate: Gate| match gate {
        Gate::Schema | Gate::Drift | Gate::MustInclude | Gate::MustNot | Gate::Language | Gate::Length => true,
        Gate::Citation
        | Gate::Duplicate
        | Gate::Expression
        | Gate::Claim
        | Gate::Confidence
        | Gate::Validator
        | Gate::Unjudged => false,
    };
    let broken = findings.problems.into_iter().find(|problem| problem.gate.is_some_and(of_the_text))?;
    Some(format!("{} ({})", broken.what, broken.gate.map_or("", Gate::name)))
}

/// Judges and confirmations lead to other routes: they must be there, and must not lead back.
pub(super) fn links(file: &File, routes: &BTreeMap<RouteId, Arc<Route>>, log: &mut Log) {
    let names: Vec<String> = file.routes.iter().flat_map(|all| all.value.keys().cloned()).collect();
    let judges = file.contracts.iter().flat_map(|all| all.value.values());
    let judges = judges.filter_map(|contract| contract.value.confidence.as_ref()?.value.route.as_ref());
    let tiers = file.tiers.iter().flat_map(|all| all.value.values());
    let comparing = tiers.filter_map(|tier| tier.value.votes.as_ref()?.value.judge.as_ref()?.value.route.as_ref());
    let judges = judges.chain(comparing);
    let confirms = file.backstops.iter().flat_map(|all| all.value.values());
    let confirms = confirms.filter_map(|backstop| backstop.value.route.as_ref());
    for to in judges.chain(confirms).filter(|to| !names.contains(&to.value)) {
        if !log.has_error_under(&to.place.path) {
            let what = format!("there is no route \"{}\"", to.value);
            log.error(&to.place, what, suggest(&to.value, names.iter(), "routes"));
        }
    }
    for (id, route) in routes {
        if leads_back(id, routes, judged_by)
            && let Some(place) = judge_place(file, &route.contract).or_else(|| comparing_place(file, &route.tier))
            && !log.has_error_under(&place.path)
        {
            let what = format!("route \"{id}\" would be its own judge, directly or through others");
            log.error(place, what, "Name a route whose contract asks no judge");
        }
        if leads_back(id, routes, confirmed_by) {
            for place in confirm_places(file, route) {
                if !log.has_error_under(&place.path) {
                    let what = format!("route \"{id}\" would lead back to itself, one question after the other");
                    log.error(place, what, "Name a route that does not ask, or another backstop");
                }
            }
        }
    }
}

/// A judge whose verdict is capped has to have a price: without one it could never be asked, and nothing would pass.
pub(super) fn judges_prices(file: &File, routes: &Routes, specs: &BTreeMap<TargetId, TargetSpec>, log: &mut Log) {
    for route in routes.values() {
        let of_contract = judge_of(&route.contract).map(|judge| (judge, judge_place(file, &route.contract)));
        let of_tier = route.tier.votes.as_ref().and_then(|votes| votes.judge.as_ref());
        let of_tier = of_tier.map(|judge| (judge, comparing_place(file, &route.tier)));
        for (judge, place) in of_contract.into_iter().chain(of_tier) {
            let (Some(judging), Some(place)) = (routes.get(&judge.route), place) else { continue };
            let capped = judge.cost_max.or(route.tier.cost_max).is_some();
            let priced = |id: &TargetId| specs.get(id).is_some_and(|spec| spec.price.is_some());
            let can_be_paid = judging.targets.iter().any(|target| priced(&target.target));
            if capped && !can_be_paid && !log.has_error_under(&place.path) {
                let first = &judging.targets[0].target;
                let what = format!("what a verdict costs is capped, and no price of route \"{}\" is known", judging.id);
                log.error(place, what, format_args!("Add [targets.\"{first}\"] price = {{ input = .., output = .. }}"));
            }
        }
    }
}

type Routes = BTreeMap<RouteId, Arc<Route>>;

fn judged_by(route: &Route) -> Vec<&RouteId> {
    let comparing = route.tier.votes.as_ref().and_then(|votes| votes.judge.as_ref());
    judge_of(&route.contract).into_iter().chain(comparing).map(|judge| &judge.route).collect()
}

fn judge_of(contract: &Contract) -> Option<&Judge> {
    match contract.confidence.as_ref().map(|confidence| &confidence.from) {
        Some(ConfidenceFrom::Judge(judge)) => Some(judge),
        Some(ConfidenceFrom::Field(_) | ConfidenceFrom::Votes) | None => None,
    }
}

fn confirmed_by(route: &Route) -> Vec<&RouteId> {
    let to = route.backstops.iter().filter_map(|backstop| match &backstop.kind {
        BackstopKind::Confirm { route, .. } => Some(route),
        BackstopKind::Static { .. }
        | BackstopKind::Rules(_)
        | BackstopKind::Cache { .. }
        | BackstopKind::Queue { .. }
        | BackstopKind::Escalate { .. }
        | BackstopKind::Fail { .. } => None,
    });
    to.collect()
}

/// Whether following `next` from a route ever comes back to it.
fn leads_back(start: &RouteId, routes: &Routes, next: fn(&Route) -> Vec<&RouteId>) -> bool {
    let mut seen: BTreeSet<&RouteId> = BTreeSet::new();
    let mut open: Vec<&RouteId> = routes.get(start).map(|route| next(route)).unwrap_or_default();
    while let Some(id) = open.pop() {
        if id == start {
            return true;
        }
        if seen.insert(id) {
            open.extend(routes.get(id).map(|route| next(route)).unwrap_or_default());
        }
    }
    false
}

fn judge_place<'f>(file: &'f File, contract: &Contract) -> Option<&'f Place> {
    let written = file.contracts.as_ref()?.value.get(&*contract.name)?;
    let confidence = written.value.confidence.as_ref()?;
    confidence.value.route.as_ref().map(|route| &route.place)
}

fn comparing_place<'f>(file: &'f File, tier: &Tier) -> Option<&'f Place> {
    let written = file.tiers.as_ref()?.value.get(&*tier.name)?;
    let judge = written.value.votes.as_ref()?.value.judge.as_ref()?;
    judge.value.route.as_ref().map(|route| &route.place)
}

fn confirm_places<'f>(file: &'f File, route: &Route) -> Vec<&'f Place> {
    let written = route.backstops.iter().filter_map(|backstop| file.backstops.as_ref()?.value.get(&*backstop.name));
    written.filter_map(|written| written.value.route.as_ref()).map(|route| &route.place).collect()
}
