//! Judges tiers: the built-in ones with the file's over them. A tier of one's own starts from `standard`.

use super::{
    confidence::JUDGE_TIMEOUT,
    promises::{HedgeFile, TierFile, VotesFile, VotesJudgeFile},
    read::{At, Log, Named, Place},
    words::{AgreeChoice, AgreeSetting, DisagreementChoice, HedgeSetting, Names, SpreadChoice},
};
use outlast_model::{
    RouteId, Usd,
    policy::{Agree, Disagreement, FieldRule, Hedge, Judge, Tier, VoteSpread, Votes},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The share of calls that may be hedged where nothing else is said.
const HEDGE_BUDGET: f64 = 0.05;

/// The most votes of one call: more cost more than they settle.
const SAMPLES_MAX: u8 = 5;

/// Judges them all.
pub(super) fn judge(file: Option<&At<Named<TierFile>>>, log: &mut Log) -> BTreeMap<String, Arc<Tier>> {
    let mut tiers: BTreeMap<String, Tier> =
        Tier::built_in().into_iter().map(|tier| (tier.name.to_string(), tier)).collect();
    let standard = tiers["standard"].clone();
    for (name, written) in file.iter().flat_map(|tiers| &tiers.value) {
        let base = tiers.get(name).unwrap_or(&standard).clone();
        tiers.insert(name.clone(), judge_one(name, written, base, log));
    }
    tiers.into_iter().map(|(name, tier)| (name, Arc::new(tier))).collect()
}

fn judge_one(name: &str, At { value: file, place }: &At<TierFile>, base: Tier, log: &mut Log) -> Tier {
    let attempts = count(&file.attempts, base.attempts, 16, log);
    let distinct_providers = count(&file.distinct_providers, base.distinct_providers, 16, log);
    if distinct_providers > attempts && !log.has_error_under(&place.path) {
        let what = format!("{attempts} attempts can never use {distinct_providers} providers");
        log.error(place, what, "Raise `attempts` or lower `distinct_providers`");
    }
    let hedge = match &file.hedge {
        Some(setting) => hedge(setting, log),
        None => base.hedge,
    };
    if let Some(setting) = file.hedge.as_ref().filter(|_| hedge.is_some() && attempts == 1) {
        let what = "it never takes effect: a hedge is a second attempt, and the tier has one";
        log.error(&setting.place, what, "Raise `attempts` or remove `hedge`");
    }
    Tier {
        name: name.into(),
        attempts,
        distinct_providers,
        deadline: file.deadline.as_ref().map_or(base.deadline, |deadline| deadline.value.0),
        cost_max: file.cost_max_usd.as_ref().map(|cost| cost_max(cost, log)).or(base.cost_max),
        hedge,
        votes: file.votes.as_ref().map(|file| votes(file, log)).or(base.votes),
        exhausted: match &file.exhausted {
            Some(names) => exhausted(names, log),
            None => base.exhausted,
        },
    }
}

fn count(setting: &Option<At<u32>>, base: u8, most: u8, log: &mut Log) -> u8 {
    let Some(setting) = setting else { return base };
    u8::try_from(setting.value).ok().filter(|count| *count <= most).unwrap_or_else(|| {
        log.error(&setting.place, format_args!("{} is too many", setting.value), format_args!("Write 1 to {most}"));
        base
    })
}

fn cost_max(cost: &At<f64>, log: &mut Log) -> Usd {
    if cost.value == 0.0 {
        log.error(&cost.place, "with nothing to spend no attempt can start", "Write dollars, like 0.05, or remove it");
    } else if cost.value > 100_000.0 {
        log.error(&cost.place, "more than $100,000 for one call is no limit", "Write dollars, like 0.05");
    }
    Usd::from_dollars(cost.value)
}

fn hedge(At { value, .. }: &At<HedgeSetting>, log: &mut Log) -> Option<Hedge> {
    match value {
        HedgeSetting::On(false) => None,
        HedgeSetting::On(true) => Some(Hedge { budget: HEDGE_BUDGET }),
        HedgeSetting::Table(HedgeFile { budget }) => {
            let Some(budget) = budget else { return Some(Hedge { budget: HEDGE_BUDGET }) };
            if budget.value == 0.0 || budget.value > 1.0 {
                let what = format!("{} is no share of calls that could be hedged", budget.value);
                log.error(&budget.place, what, "Write more than 0 and at most 1, like 0.05; or hedge = false");
            }
            Some(Hedge { budget: budget.value })
        }
    }
}

fn votes(At { value: file, place }: &At<VotesFile>, log: &mut Log) -> Votes {
    let samples = count(&file.samples, SAMPLES_MAX, SAMPLES_MAX, log);
    let ahead = count(&file.ahead, 2.min(samples), SAMPLES_MAX, log);
    if ahead > samples && !log.has_error_under(&place.path) {
        let place = file.ahead.as_ref().map_or(place, |ahead| &ahead.place);
        log.error(
            place,
            format_args!("no answer can lead by {ahead} of {samples} votes"),
            "Lower it, or raise `samples`",
        );
    } else if samples == 1 && !log.has_error_under(&place.path) {
        log.error(place, "one reply is no vote", "Raise `samples`, or remove `votes`");
    }
    let fields = file.fields.iter().flat_map(|fields| &fields.value);
    Votes {
        ahead,
        samples,
        spread: match file.spread.as_ref().map(|spread| spread.value) {
            None | Some(SpreadChoice::Targets) => VoteSpread::Targets,
            Some(SpreadChoice::Samples) => VoteSpread::Samples,
        },
        fields: fields.filter_map(|(path, agree)| field_rule(path, agree, log)).collect(),
        judge: file.judge.as_ref().and_then(|judge| votes_judge(judge, file.fields.is_some(), log)),
        disagreement: match file.disagreement.as_ref().map(|disagreement| disagreement.value) {
            None | Some(DisagreementChoice::Fail) => Disagreement::Fail,
            Some(DisagreementChoice::Majority) => Disagreement::Majority,
        },
    }
}

fn votes_judge(At { value: file, place }: &At<VotesJudgeFile>, fields: bool, log: &mut Log) -> Option<Judge> {
    if fields {
        log.error(
            place,
            "it never takes effect: `fields` makes JSON due, and JSON is compared by rules",
            "Remove one of them",
        );
    }
    let cost_max = file.cost_max_usd.as_ref().map(|cost| cost_max(cost, log));
    let Some(route) = &file.route else {
        if !log.has_error_under(&place.path) {
            log.error(place, "it does not say which route judges", "Add route = \"judge\" and that route");
        }
        return None;
    };
    Some(Judge {
        route: RouteId::from(route.value.as_str()),
        instructions: file.instructions.as_ref().map(|text| text.value.as_str().into()),
        cost_max,
        timeout: file.timeout.as_ref().map_or(JUDGE_TIMEOUT, |timeout| timeout.value.0),
    })
}

fn field_rule(path: &str, At { value, place }: &At<AgreeSetting>, log: &mut Log) -> Option<FieldRule> {
    let agree = match value {
        AgreeSetting::Word(AgreeChoice::Exact) => Agree::Exact,
        AgreeSetting::Word(AgreeChoice::Text) => Agree::Text,
        AgreeSetting::Word(AgreeChoice::Set) => Agree::Set(None),
        AgreeSetting::Word(AgreeChoice::Ignore) => Agree::Ignore,
        AgreeSetting::Table(file) => match (&file.number, &file.set) {
            (Some(number), None) => Agree::Number(number.value),
            (None, Some(key)) => Agree::Set(Some(key.value.as_str().into())),
            (None, None) | (Some(_), Some(_)) => {
                if !log.has_error_under(&place.path) {
                    let what = "either `number` or `set` says how two values are compared";
                    log.error(place, what, "Write { number = 0.01 } or { set = \"id\" }");
                }
                return None;
            }
        },
    };
    Some(FieldRule { path: path.into(), agree })
}

fn exhausted(At { value, place }: &At<Names>, log: &mut Log) -> Vec<Arc<str>> {
    match value {
        Names::One(name) => vec![name.as_str().into()],
        Names::Many(names) => {
            if names.is_empty() && !log.has_error_under(&place.path) {
                log.error(place, "the list is empty", "Name a backstop like \"queue\", or remove it");
            }
            names.iter().map(|name| name.value.as_str().into()).collect()
        }
    }
}

/// Where a tier of the file names its backstops.
pub(super) fn exhausted_places<'f>(file: Option<&'f At<Named<TierFile>>>, tier: &str) -> Vec<&'f Place> {
    let setting = file.and_then(|tiers| tiers.value.get(tier)).and_then(|tier| tier.value.exhausted.as_ref());
    match setting.map(|setting| (&setting.value, &setting.place)) {
        None => Vec::new(),
        Some((Names::One(_), place)) => vec![place],
        Some((Names::Many(names), _)) => names.iter().map(|name| &name.place).collect(),
    }
}

/// A tier's backstops that every route of the tier has replaced would never be tried.
pub(super) fn idle_exhausted(
    file: Option<&At<Named<TierFile>>>,
    tried: &BTreeSet<&str>,
    used: &BTreeSet<&str>,
    log: &mut Log,
) {
    for (name, tier) in file.iter().flat_map(|tiers| &tiers.value) {
        if let Some(setting) = &tier.value.exhausted
            && used.contains(name.as_str())
            && !tried.contains(name.as_str())
        {
            let what = "it never takes effect: every route of this tier names `backstops` of its own";
            log.error(&setting.place, what, "Remove it, or `backstops` from a route");
        }
    }
}
