//! Routes of single steps: a route's targets, under the contract or the tier that a step of a workflow names.

use super::{
    ends,
    file::{File, RouteFile},
    fit::Fit,
    read::{At, Log, Place},
    routes::{self, Parts, Used},
    targets::Book,
    work_file::StepFile,
    work_words::StepChoice,
};
use outlast_model::{
    RouteId,
    policy::{Contract, Ranking, Route, RouteTarget},
};
use outlast_wire::contract::Gates;
use std::{collections::BTreeMap, sync::Arc};

/// What such a route is called, in records and drawings. No route of the file has a space in its name.
pub(super) fn id(base: &str, workflow: &str, step: &str) -> RouteId {
    RouteId::new(format!("{base} for {workflow}/{step}"))
}

/// Whether a step has a route of its own.
pub(super) fn is_own(step: &StepFile) -> bool {
    let asks = matches!(step.kind.as_ref().map(|kind| kind.value), Some(StepChoice::Model | StepChoice::Agent));
    asks && (step.contract.is_some() || step.tier.is_some())
}

/// Judges them all.
pub(super) fn judge<'f>(
    file: &'f File,
    known: &BTreeMap<RouteId, Arc<Route>>,
    parts: &Parts<'f>,
    book: &mut Book<'_>,
    used: &mut Used<'f>,
    log: &mut Log,
) -> Vec<(Arc<Route>, Option<Arc<Gates>>)> {
    let mut own = Vec::new();
    for (workflow, section) in file.workflows.iter().flat_map(|all| &all.value) {
        for step in section.value.file.steps.iter().flat_map(|steps| &steps.value) {
            let (Some(base), Some(name)) = (&step.value.route, &step.value.name) else { continue };
            if !is_own(&step.value) {
                continue;
            }
            let id = id(&base.value, workflow, &name.value);
            if let Some(route) = judge_one(id, base, step, known, parts, book, used, log) {
                let gates = Gates::compile(&route.contract).ok().map(Arc::new);
                if let Some(gates) = &gates {
                    ends::fixed_replies(file, &route, gates, log);
                }
                own.push((Arc::new(route), gates));
            }
        }
    }
    own
}

/// What a step's route starts from.
struct Base {
    targets: Vec<RouteTarget>,
    ranking: Ranking,
    contract: Contract,
}

fn base_of(
    At { value: name, place }: &At<String>,
    known: &BTreeMap<RouteId, Arc<Route>>,
    parts: &Parts<'_>,
    book: &mut Book<'_>,
    log: &mut Log,
) -> Option<Base> {
    if parts.file.routes.as_ref().is_some_and(|all| all.value.contains_key(name)) {
        let route = known.get(name.as_str())?;
        let contract = Contract::clone(&route.contract);
        return Some(Base { targets: route.targets.clone(), ranking: route.ranking, contract });
    }
    let (provider, _) = name.split_once('/')?;
    if !book.names.contains(provider) {
        return None;
    }
    let targets = vec![RouteTarget { target: book.target(name, place, log)?, weight: 1 }];
    let contract = Contract::plain("default", outlast_model::policy::StreamContract::Fail);
    Some(Base { targets, ranking: Ranking::Order, contract })
}

#[expect(clippy::too_many_arguments, reason = "what a route is judged by")]
fn judge_one<'f>(
    id: RouteId,
    base_name: &'f At<String>,
    At { value: step, place }: &'f At<StepFile>,
    known: &BTreeMap<RouteId, Arc<Route>>,
    parts: &Parts<'f>,
    book: &mut Book<'_>,
    used: &mut Used<'f>,
    log: &mut Log,
) -> Option<Route> {
    let written = parts.file.routes.as_ref().and_then(|all| all.value.get(&base_name.value)).map(|at| &at.value);
    let tier_setting = step.tier.as_ref().or(written.and_then(|route| route.tier.as_ref()));
    let own_ends = written.is_some_and(|route| route.backstops.is_some());
    let tier = routes::tier(tier_setting, place, own_ends, parts, used, log);
    let contract = step.contract.as_ref().map(|name| routes::contract(Some(name), parts, used, log));
    let base = base_of(base_name, known, parts, book, log)?;
    inert(step, &base, written, log);
    let tier = tier?;
    let contract = contract.unwrap_or(base.contract);
    let own = At {
        place: Place::clone(place),
        value: RouteFile {
            contract: step.contract.clone().or_else(|| written.and_then(|route| route.contract.clone())),
            tier: step.tier.clone().or_else(|| written.and_then(|route| route.tier.clone())),
            backstops: written.and_then(|route| route.backstops.clone()),
            ..RouteFile::default()
        },
    };
    let backstops = ends::of_route(parts.file, &own, tier, &contract, &parts.backstops, &mut used.backstops, log);
    let of_contract = parts.file.contracts.as_ref().and_then(|all| all.value.get(&*contract.name));
    let fit = Fit {
        file: &own.value,
        place,
        contract: &contract,
        written: of_contract.map(|written| &written.value),
        tier,
        targets: &base.targets,
        specs: &book.specs,
    };
    let permitted = fit.judge(log);
    fit.distinct_providers(&permitted, &parts.tiers, log);
    fit.reviews(&backstops, log);
    let stream = fit.stream(log);
    Some(Route {
        id,
        ranking: base.ranking,
        tier: Arc::clone(tier),
        contract: Arc::new(Contract { stream, ..contract }),
        targets: base.targets,
        backstops,
        risk: None,
        sla: None,
    })
}

/// What the route has already need not be said again.
fn inert(step: &StepFile, base: &Base, written: Option<&RouteFile>, log: &mut Log) {
    if let Some(contract) = step.contract.as_ref().filter(|contract| *contract.value == *base.contract.name) {
        log.error(&contract.place, "it changes nothing: the route has this contract", "Remove it");
    }
    let tier = written.map_or("basic", |route| route.tier.as_ref().map_or("standard", |tier| tier.value.as_str()));
    if let Some(setting) = step.tier.as_ref().filter(|setting| setting.value == tier) {
        log.error(&setting.place, "it changes nothing: the route has this tier", "Remove it");
    }
}
