//! A contract in words: what a reply has to keep, how it may be mended, what may be given up, and how a route ends.

use crate::{cli::check::count, config::show_duration};
use http::Uri;
use outlast_model::policy::{
    AfterRepair, Backstop, BackstopKind, ConfidenceFrom, Contract, Evidence, Fix, Keep, Length, RefusalPolicy, Repair,
    SafetyPolicy, Shorten, Sla, Tier, ToolPolicy, VoteSpread,
};
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;

/// One promise: its setting, and what it means.
pub(super) struct Promise {
    pub(super) setting: &'static str,
    pub(super) says: String,
}

/// What is promised to whoever waits.
pub(super) fn sla(sla: Sla) -> Option<String> {
    let share = sla.availability.map(|share| format!("{} % of requests answered", trim(share * 100.0)));
    let p95 = sla.p95.map(|p95| format!("95 of 100 within {}", show_duration(p95)));
    let both: Vec<String> = [share, p95].into_iter().flatten().collect();
    (!both.is_empty()).then(|| both.join(", "))
}

/// What a reply has to keep, gate by gate. Empty: only what the request itself demands.
pub(super) fn gates(contract: &Contract) -> Vec<Promise> {
    let checks = &contract.checks;
    let mut gates = Vec::new();
    let mut add = |setting, says: Option<String>| gates.extend(says.map(|says| Promise { setting, says }));
    add("schema", checks.schema.as_ref().map(|schema| format!("JSON that keeps {}", schema.source)));
    add("evidence", checks.evidence.as_ref().map(evidence));
    add("must_include", phrases("has", &checks.must_include));
    add("must_not", phrases("does not have", &checks.must_not));
    add(
        "language",
        checks.language.as_ref().map(|language| format!("is in language {language}, where it can be told")),
    );
    add("length", checks.length.map(length));
    add("duplicates", checks.reject_duplicates.then(|| "does not repeat itself".to_owned()));
    for expression in &checks.expressions {
        add("expressions", Some(format!("{}: {}", expression.name, expression.expression)));
    }
    add(
        "confidence",
        contract.confidence.as_ref().map(|confidence| {
            let min = confidence.min;
            match &confidence.from {
                ConfidenceFrom::Field(path) => format!("says in `{path}` that it is at least {min} sure"),
                ConfidenceFrom::Votes => format!("wins at least {min} of the votes"),
                ConfidenceFrom::Judge(judge) => {
                    let cost = judge.cost_max.map(|cost| format!(", for at most ${cost}")).unwrap_or_default();
                    let within = show_duration(judge.timeout);
                    format!(
                        "gets at least {min} from route {}, within {within}{cost}; without a verdict it does not pass",
                        judge.route
                    )
                }
            }
        }),
    );
    for validator in &contract.validators {
        // Paths and queries may hold a secret.
        let host = validator.url.parse::<Uri>().ok().and_then(|url| url.authority().map(ToString::to_string));
        let within = show_duration(validator.timeout);
        add("validators", Some(format!("{}: {} says yes within {within}", validator.name, host.unwrap_or_default())));
    }
    gates
}

fn evidence(evidence: &Evidence) -> String {
    let sources = count(usize::try_from(evidence.min).unwrap_or(usize::MAX), "source");
    let place = match &evidence.citations {
        Some(path) => format!("in `{path}`"),
        None => "by marks like [id]".to_owned(),
    };
    format!("names at least {sources} of the request's `{}` {place}, and none that is not there", evidence.sources)
}

fn phrases(verb: &str, phrases: &[Arc<str>]) -> Option<String> {
    let quoted: Vec<String> = phrases.iter().map(|phrase| format!("\"{phrase}\"")).collect();
    (!quoted.is_empty()).then(|| format!("{verb} {}", quoted.join(", ")))
}

fn length(length: Length) -> String {
    match (length.min, length.max) {
        (Some(min), Some(max)) => format!("has {min} to {max} characters"),
        (Some(min), None) => format!("has at least {min} characters"),
        (None, Some(max)) => format!("has at most {max} characters"),
        (None, None) => "has any length".to_owned(),
    }
}

/// The rest of a contract: needs, permissions, repair, tools, and what may be given up.
pub(super) fn terms(contract: &Contract) -> Vec<Promise> {
    let mut terms = Vec::new();
    let mut add = |setting, says: Option<String>| terms.extend(says.map(|says| Promise { setting, says }));
    add("needs", needs(contract));
    let list = |names: &Option<Vec<Arc<str>>>| names.as_ref().map(|names| names.join(", "));
    let permissions = &contract.permissions;
    add("permissions", list(&permissions.regions).map(|names| format!("goes only to regions {names}")));
    add("permissions", list(&permissions.providers).map(|names| format!("goes only to providers {names}")));
    add("permissions", list(&permissions.tools).map(|names| format!("offers only the tools {names}")));
    let keeps: Vec<&str> = contract.keeps.iter().copied().map(Keep::name).collect();
    add("keeps", (!keeps.is_empty()).then(|| format!("no path loses {}", keeps.join(", "))));
    add("repair", repair(&contract.repair));
    add("tools", contract.tools.as_ref().map(tools));
    add(
        "shorten",
        contract.shorten.map(|Shorten::DropOldestTurns| {
            "when no target takes all of the input, its oldest turns are left out, and that is marked".to_owned()
        }),
    );
    add(
        "degraded",
        contract.degraded_schema.as_ref().map(|schema| {
            format!("when no path keeps the schema, JSON that keeps {} is served, and marked", schema.source)
        }),
    );
    add(
        "refusal",
        match contract.refusal {
            RefusalPolicy::Deliver => None,
            RefusalPolicy::Reroute => Some("tried on the next target".to_owned()),
            RefusalPolicy::Review => Some("handed to a person".to_owned()),
        },
    );
    add(
        "safety",
        match contract.safety {
            SafetyPolicy::Return => None,
            SafetyPolicy::Review => Some("a safety block is handed to a person, and reaches no other model".to_owned()),
        },
    );
    add("notice", contract.notice.as_ref().map(|_| "end users are told what was given up".to_owned()));
    add(
        "body_notes",
        (!contract.body_notes).then(|| "bodies stay untouched; headers say what was given up".to_owned()),
    );
    terms
}

fn needs(contract: &Contract) -> Option<String> {
    let needs = contract.needs;
    let mut parts = Vec::new();
    parts.extend(needs.context.map(|least| format!("a context window of {least} tokens")));
    parts.extend(needs.tools.then(|| "tools".to_owned()));
    parts.extend(needs.images.then(|| "images".to_owned()));
    (!parts.is_empty()).then(|| format!("only targets that take {}", parts.join(", ")))
}

fn repair(repair: &Repair) -> Option<String> {
    let fixes: Vec<&str> = repair.fixes.iter().copied().map(Fix::name).collect();
    let mut steps = Vec::new();
    if !fixes.is_empty() {
        steps.push(format!("its JSON's form is mended ({})", fixes.join(", ")));
    }
    if repair.model {
        steps.push("the model is asked once to mend it".to_owned());
    }
    if steps.is_empty() && repair.then == AfterRepair::Reroute {
        return None;
    }
    steps.push(match repair.then {
        AfterRepair::Reroute => "the next target is asked".to_owned(),
        AfterRepair::Review => "it goes to a person".to_owned(),
        AfterRepair::Stop => "a typed error ends the call".to_owned(),
    });
    Some(format!("what breaks the contract: {}", steps.join(", then ")))
}

fn tools(policy: &ToolPolicy) -> String {
    let reads = if policy.read_only.is_empty() {
        "every tool counts as writing".to_owned()
    } else {
        format!("only {} count as reading", policy.read_only.join(", "))
    };
    format!("{} on the first target, {} on the others; {reads}", policy.primary, policy.fallback)
}

/// What a backstop does, in words.
pub(super) fn end(backstop: &Backstop) -> String {
    match &backstop.kind {
        BackstopKind::Static { .. } => "a reply made from a template, if it keeps the contract".to_owned(),
        BackstopKind::Rules(rules) => {
            format!("the reply of the first of {} that holds, if it keeps the contract", count(rules.len(), "rule"))
        }
        BackstopKind::Cache { max_age } => {
            format!(
                "the last good reply to the same request of the same caller, at most {} old",
                show_duration(*max_age)
            )
        }
        BackstopKind::Queue { expires, webhook } => {
            let told = if webhook.is_some() { ", and a webhook told" } else { "" };
            format!(
                "kept, and answered when a target is healthy, within {}{told}: 202 and a URL to poll",
                show_duration(*expires)
            )
        }
        BackstopKind::Confirm { route, expires, .. } => {
            format!("the user is asked; after a yes within {} route {route} answers", show_duration(*expires))
        }
        BackstopKind::Escalate { .. } => "handed to a person: 202 and a URL to poll".to_owned(),
        BackstopKind::Fail { .. } => "a typed error".to_owned(),
    }
}

/// A tier in words.
pub(super) fn tier(tier: &Tier) -> String {
    let mut rule =
        format!("at most {}, all within {}", count(tier.attempts.into(), "attempt"), show_duration(tier.deadline));
    if let Some(cost) = tier.cost_max {
        let _ = write!(rule, ", for at most ${cost}");
    }
    if let Some(hedge) = tier.hedge {
        let _ = write!(
            rule,
            "; a slow first output is raced by another target, in at most {} % of calls",
            trim(hedge.budget * 100.0)
        );
    }
    if let Some(votes) = &tier.votes {
        let from = match votes.spread {
            VoteSpread::Targets => "different targets",
            VoteSpread::Samples => "the best target",
        };
        let _ = write!(
            rule,
            "; up to {} replies of {from} vote, and one that leads by {} wins",
            votes.samples, votes.ahead
        );
    }
    rule
}

/// A tier for machines.
pub(super) fn tier_json(tier: &Tier) -> Value {
    json!({
        "name": tier.name, "attempts": tier.attempts, "deadline_ms": super::millis(tier.deadline),
        "cost_max_usd": tier.cost_max, "hedge_budget": tier.hedge.map(|hedge| hedge.budget),
        "votes": tier.votes.as_ref().map(|votes| json!({ "ahead": votes.ahead, "samples": votes.samples })),
    })
}

/// Promises, one a line.
pub(super) fn list(promises: &[Promise]) -> String {
    let lines: Vec<String> =
        promises.iter().map(|promise| format!("  {:<13}{}", promise.setting, promise.says)).collect();
    lines.join("\n")
}

/// Promises for machines.
pub(super) fn for_machines(promises: &[Promise]) -> Vec<Value> {
    promises.iter().map(|promise| json!({ "setting": promise.setting, "says": promise.says })).collect()
}

/// A number without the noise of its last bits.
pub(super) fn trim(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}
