//! The gates of a contract, one by one, on one text.
//!
//! - `schema`, `drift`: the JSON keeps the contract's schema. Drift is valid JSON of another shape: a required field is
//!   missing in an object that has fields the schema does not name. When a reply breaks nothing else and keeps the
//!   degraded schema, the findings say so. A document that cannot be held to the schema within bounds breaks it.
//! - `citation`: see [`evidence`]. `must_include`, `must_not`: see [`super::phrases`]. `language`: see [`language`].
//! - `length`: the text, without white space at its ends, has at least and at most so many characters; of a JSON reply,
//!   its JSON.
//! - `duplicate`: see [`duplicates`].
//! - `expression`: over `reply` (the JSON; the text where it is none), `text` and `request` (the body). One that cannot
//!   be evaluated is not true.
//! - `confidence`: a number from 0 to 1 at the field's path, and not less than the contract's. Anything else there, or
//!   nothing, fails. (What votes or a judge say is not seen here.)
//! - `claim`: see [`claims`].

use super::{Choice, Found, claims, duplicates, evidence, language, phrases::Searched, prose, schema::Verdict};
use crate::{path, tools::Offer};
use outlast_model::{
    Gate,
    policy::{Contract, ToolMode},
    record::SchemaStatus,
};
use serde_json::{Value, json};

/// Judges a text that owes everything the contract says; `value` is its JSON where JSON is due.
pub(super) fn judge(choice: &Choice<'_>, text: &str, value: Option<&Value>, found: &mut Found) {
    let gates = choice.asked.gates;
    let contract = gates.contract();
    let checks = &contract.checks;
    if let (Some(_), Some(value)) = (&gates.schema, value) {
        schema(choice, value, found);
    }
    if let Some(rule) = &checks.evidence {
        found.findings.cites = true;
        let (first, _) = rule.sources.split_once('.').unwrap_or((&rule.sources, ""));
        let request = choice.asked.inbound.at(first).map_or(Value::Null, |given| json!({ first: given }));
        if let Some(problem) = evidence::problem(rule, &request, text, value) {
            found.gate(Gate::Citation, format!("citation: {problem}"));
        }
    }
    if !gates.must_include.is_empty() || !gates.must_not.is_empty() {
        let searched = Searched::of(text, value);
        for (at, _) in gates.must_include.iter().enumerate().filter(|(_, phrase)| !searched.has(phrase)) {
            found.gate(Gate::MustInclude, format!("must_include[{at}]: not in the text"));
        }
        forbidden(choice, &searched, found);
    }
    if let Some(wanted) = gates.language
        && language::differs(text, value, wanted)
    {
        let code = checks.language.as_deref().unwrap_or_default();
        found.gate(Gate::Language, format!("language: the text is not in `{code}`"));
    }
    length(contract, text, found);
    if checks.reject_duplicates {
        let repeats = match value {
            Some(value) => prose::strings(value).into_iter().find_map(duplicates::find),
            None => duplicates::find(text),
        };
        if let Some(how) = repeats {
            found.gate(Gate::Duplicate, format!("duplicates: {how}"));
        }
    }
    expressions(choice, text, value, found);
    confidence(choice, value, found);
    claim(choice, text, value, found);
    if !found.is_clean()
        && !found.beyond_full_schema
        && choice.alone
        && let (Some(degraded), Some(value)) = (&gates.degraded, value)
    {
        found.findings.keeps_degraded = degraded.judge(value) == Verdict::Valid;
    }
}

/// Judges a text beside tool calls or a plan: it must not say what is forbidden or did not happen.
pub(super) fn judge_aside(choice: &Choice<'_>, text: &str, found: &mut Found) {
    if text.is_empty() {
        return;
    }
    if !choice.asked.gates.must_not.is_empty() {
        forbidden(choice, &Searched::of(text, None), found);
    }
    claim(choice, text, None, found);
}

fn schema(choice: &Choice<'_>, value: &Value, found: &mut Found) {
    let Some(compiled) = &choice.asked.gates.schema else { return };
    match compiled.judge(value) {
        Verdict::Valid => found.structure(SchemaStatus::Valid),
        Verdict::Unverified => {
            found.structure(SchemaStatus::Invalid);
            found.gate(Gate::Schema, "schema: it takes too much work to tell whether it is kept");
        }
        Verdict::Invalid(violations) => {
            found.structure(SchemaStatus::Invalid);
            let missing: Vec<&str> = violations.iter().filter_map(|one| one.drifted.as_deref()).collect();
            if !missing.is_empty() {
                let names = missing.join(", ");
                found.gate(Gate::Drift, format!("schema: missing where other fields stand: {names}"));
            }
            for violation in violations.iter().filter(|one| one.drifted.is_none()) {
                found.gate(Gate::Schema, &violation.place);
            }
        }
    }
}

fn forbidden(choice: &Choice<'_>, searched: &Searched, found: &mut Found) {
    let phrases = choice.asked.gates.must_not.iter().enumerate();
    for (at, _) in phrases.filter(|(_, phrase)| searched.has(phrase)) {
        found.gate(Gate::MustNot, format!("must_not[{at}]: in the text"));
    }
}

fn length(contract: &Contract, text: &str, found: &mut Found) {
    let Some(length) = contract.checks.length else { return };
    let count = text.trim().chars().count();
    if let Some(min) = length.min.filter(|min| count < *min as usize) {
        found.gate(Gate::Length, format!("length: {count} characters, at least {min} are needed"));
    }
    if let Some(max) = length.max.filter(|max| count > *max as usize) {
        found.gate(Gate::Length, format!("length: {count} characters, at most {max} are allowed"));
    }
}

fn expressions(choice: &Choice<'_>, text: &str, value: Option<&Value>, found: &mut Found) {
    let expressions = &choice.asked.gates.expressions;
    if expressions.is_empty() {
        return;
    }
    let reads = |fact: &str| {
        let mut names = expressions.iter().flat_map(|(_, expression)| expression.names());
        names.any(|name| name.split('.').next() == Some(fact))
    };
    // Each fact is made only if some expression reads it.
    let mut facts = serde_json::Map::new();
    if reads("reply") {
        let reply = value.cloned().or_else(|| serde_json::from_str(text).ok());
        facts.insert("reply".into(), reply.unwrap_or_else(|| text.into()));
    }
    if reads("text") {
        facts.insert("text".into(), text.into());
    }
    if reads("request") {
        facts.insert("request".into(), choice.asked.inbound.as_value());
    }
    let facts = crate::template::facts(&facts);
    for (name, expression) in expressions {
        match expression.of(facts.clone()) {
            Ok(true) => {}
            Ok(false) => found.gate(Gate::Expression, format!("expression {name}: not true")),
            Err(why) => found.gate(Gate::Expression, format!("expression {name}: {why}")),
        }
    }
}

fn confidence(choice: &Choice<'_>, value: Option<&Value>, found: &mut Found) {
    let Some((field, min)) = choice.asked.gates.confidence_field() else { return };
    let said = value.and_then(|value| path::one(value, field)).and_then(Value::as_f64);
    match said.filter(|said| (0.0..=1.0).contains(said)) {
        None => found.gate(Gate::Confidence, format!("confidence: no number from 0 to 1 at `{field}`")),
        Some(said) => {
            found.findings.confidence = Some(said);
            if said < min {
                found.gate(Gate::Confidence, format!("confidence: less than {min}"));
            }
        }
    }
}

fn claim(choice: &Choice<'_>, text: &str, value: Option<&Value>, found: &mut Found) {
    if choice.asked.brief.tool_mode == ToolMode::Full {
        return;
    }
    // What may only be planned has not been done either.
    let plans = choice.asked.brief.tool_mode == ToolMode::PlanOnly;
    let Some(Offer { offered, withheld, .. }) = choice.demand.offer() else { return };
    let names: Vec<&str> = withheld.iter().chain(offered.iter().filter(|_| plans)).map(AsRef::as_ref).collect();
    let claimed = match value {
        Some(value) => prose::strings(value).into_iter().find_map(|text| claims::claimed(text, &names)),
        None => claims::claimed(text, &names),
    };
    if let Some(name) = claimed {
        found.gate(Gate::Claim, format!("claim: the reply says it used {name}, which was withheld"));
    }
}
