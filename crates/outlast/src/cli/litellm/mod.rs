//! From a LiteLLM proxy config to ours. What cannot be carried is named with its reason; nothing is dropped silently,
//! and a key that stands in the file is never printed.

mod deployment;
mod vendors;
mod write;

use crate::config::Config;
use deployment::{Deployment, Endpoint};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, path::Path};

/// The result.
#[derive(Debug)]
pub struct Imported {
    /// A config that passes `check` once its variables are set.
    pub toml: String,
    /// What was not carried, or carried differently: one sentence each, with the place in the YAML.
    pub notes: Vec<String>,
}

/// Converts the text of a LiteLLM proxy config.
///
/// # Errors
/// When it is not YAML, has no `model_list`, or nothing of it can be carried.
pub fn import(yaml: &str) -> Result<Imported, String> {
    let root: Value = serde_saphyr::from_str(yaml).map_err(|why| format!("this is not the YAML of a config: {why}"))?;
    let Value::Object(root) = root else { return Err("this is not a LiteLLM config: it is no mapping".into()) };
    let Some(Value::Array(list)) = root.get("model_list") else {
        return Err("this is not a LiteLLM config: it has no `model_list`".into());
    };
    let mut notes = Notes::default();
    let mut plan = Plan::default();
    for (at, entry) in list.iter().enumerate() {
        deployment::read(entry, &format!("model_list[{at}]"), &mut plan, &mut notes);
    }
    settings(&root, &mut plan, &mut notes);
    plan.add_fallbacks(&mut notes);
    let toml = write::toml(&plan, &mut notes);
    if plan.groups.is_empty() && !plan.wildcard {
        return Err(format!("nothing of it can be carried:\n  {}", notes.into_lines().join("\n  ")));
    }
    // The promise is a config that passes `check`; the reader itself is asked, with every variable set.
    // A variable may hold a key or an address, and an address can pass for a key.
    let set = |name: &str| Some(format!("https://{}.example.com", name.to_lowercase().replace('_', "-")));
    match Config::from_text(&toml, "imported.toml", Path::new(""), &set) {
        Ok(_) => Ok(Imported { toml, notes: notes.into_lines() }),
        Err(errors) => {
            Err(format!("what came out does not pass `check`; please report this with the file:\n{errors}\n{toml}"))
        }
    }
}

/// What was not carried. The same reason at many places is told once.
#[derive(Default)]
struct Notes {
    /// Reason, with its places, in order of appearance.
    reasons: Vec<(String, Vec<String>)>,
}

impl Notes {
    fn add(&mut self, place: &str, reason: impl Into<String>) {
        let reason = reason.into();
        match self.reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, places)) => places.push(place.to_owned()),
            None => self.reasons.push((reason, vec![place.to_owned()])),
        }
    }

    fn into_lines(self) -> Vec<String> {
        let line = |(reason, places): (String, Vec<String>)| format!("{}: {reason}", together(&places).join(", "));
        self.reasons.into_iter().map(line).collect()
    }
}

/// Places that differ only in their position in a list are told together: `model_list[0, 3].model_info.id`.
fn together(places: &[String]) -> Vec<String> {
    let mut groups: Vec<(&str, &str, Vec<&str>)> = Vec::new();
    for place in places {
        let parts = place.split_once('[').and_then(|(before, rest)| Some((before, rest.split_once(']')?)));
        let (before, index, after) =
            parts.map_or((place.as_str(), "", ""), |(before, (index, after))| (before, index, after));
        match groups.iter_mut().find(|(known, ending, _)| (*known, *ending) == (before, after)) {
            Some((_, _, indexes)) if !indexes.contains(&index) => indexes.push(index),
            Some(_) => {}
            None => groups.push((before, after, vec![index])),
        }
    }
    let show = |(before, after, indexes): (&str, &str, Vec<&str>)| match indexes.as_slice() {
        [""] => before.to_owned(),
        indexes => format!("{before}[{}]{after}", indexes.join(", ")),
    };
    groups.into_iter().map(show).collect()
}

/// What is to be written.
#[derive(Default)]
struct Plan {
    /// Model groups in the order of the file, each with its deployments.
    groups: Vec<(String, Vec<Deployment>)>,
    /// Groups a group falls back to, in order.
    fallbacks: BTreeMap<String, Vec<String>>,
    /// Groups every group falls back to.
    default_fallbacks: Vec<String>,
    /// Deployments appended to a group by its fallbacks.
    appended: BTreeMap<String, Vec<Deployment>>,
    /// Other names of groups.
    aliases: Vec<(String, String)>,
    /// Some group was `*`: any known model of these providers may be named.
    wildcard: bool,
    wildcards: Vec<Endpoint>,
    ranking: Option<&'static str>,
    /// Seconds an attempt may take.
    timeout: Option<f64>,
    /// Seconds until the first token.
    stream_timeout: Option<f64>,
    /// The callers' key, as a variable's name.
    caller_key: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    /// Keys that stand in the file, each with the variable it is to be set as. Never printed.
    literals: Vec<(String, String)>,
}

impl Plan {
    fn group(&mut self, name: &str) -> &mut Vec<Deployment> {
        let at = self.groups.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            self.groups.push((name.to_owned(), Vec::new()));
            self.groups.len() - 1
        });
        &mut self.groups[at].1
    }

    /// The variable for a key that stands in the file: another key gets another variable.
    fn variable_for(&mut self, key: &str, wanted: &str) -> String {
        if let Some((_, variable)) =
            self.literals.iter().find(|(known, variable)| known == key && variable.starts_with(wanted))
        {
            return variable.clone();
        }
        let taken = |name: &String| self.literals.iter().any(|(_, variable)| variable == name);
        let numbered = std::iter::once(wanted.to_owned()).chain((2..).map(|n| format!("{wanted}_{n}")));
        let variable = numbered.into_iter().find(|name| !taken(name)).unwrap_or_else(|| wanted.to_owned());
        self.literals.push((key.to_owned(), variable.clone()));
        variable
    }

    /// Turns fallbacks between groups into targets at the end of a route.
    fn add_fallbacks(&mut self, notes: &mut Notes) {
        for (name, own) in &self.groups {
            let named = self.fallbacks.get(name).into_iter().flatten();
            let defaults = self.default_fallbacks.iter().filter(|fallback| *fallback != name);
            let mut appended: Vec<Deployment> = Vec::new();
            for fallback in named.chain(defaults) {
                let Some((_, deployments)) = self.groups.iter().find(|(known, _)| known == fallback) else {
                    notes.add(&format!("fallbacks of {name}"), format!("the group \"{fallback}\" is not there"));
                    continue;
                };
                let new = deployments.iter().filter(|d| !own.contains(d) && !appended.contains(d)).cloned();
                let new: Vec<Deployment> = new.collect();
                appended.extend(new);
            }
            if !appended.is_empty() {
                self.appended.insert(name.clone(), appended);
            }
        }
        for name in self.fallbacks.keys().filter(|name| !self.groups.iter().any(|(known, _)| known == *name)) {
            notes.add("fallbacks", format!("the group \"{name}\" is not there"));
        }
    }
}

/// Reads `router_settings`, `litellm_settings`, `general_settings` and what else stands at the top.
fn settings(root: &Map<String, Value>, plan: &mut Plan, notes: &mut Notes) {
    for (section, value) in root {
        match (section.as_str(), value) {
            ("model_list", _) => {}
            ("router_settings" | "litellm_settings", Value::Object(fields)) => {
                for (key, value) in fields {
                    router_setting(&format!("{section}.{key}"), key, value, plan, notes);
                }
            }
            ("general_settings", Value::Object(fields)) => {
                for (key, value) in fields {
                    general_setting(&format!("{section}.{key}"), key, value, plan, notes);
                }
            }
            ("environment_variables", _) => {
                notes.add(section, "Outlast sets no variables: set them where it starts");
            }
            (_, Value::Null) => {}
            _ => notes.add(section, "there is nothing like it here"),
        }
    }
}

fn router_setting(place: &str, key: &str, value: &Value, plan: &mut Plan, notes: &mut Notes) {
    match key {
        "fallbacks" => fallbacks(place, value, plan, notes),
        "context_window_fallbacks" => {
            fallbacks(place, value, plan, notes);
            notes.add(
                place,
                "became targets of the route: a prompt that is too long goes to one with a larger window by itself",
            );
        }
        "content_policy_fallbacks" => {
            notes.add(place, "a safety block is returned with its reason and never tried on another model");
        }
        "default_fallbacks" => plan.default_fallbacks = texts(value),
        "model_group_alias" => aliases(place, value, plan, notes),
        "timeout" | "request_timeout" => match seconds(value) {
            Some(timeout) => plan.timeout = Some(timeout),
            None => notes.add(place, "it is not a number of seconds"),
        },
        "stream_timeout" => match seconds(value) {
            Some(timeout) => plan.stream_timeout = Some(timeout),
            None => notes.add(place, "it is not a number of seconds"),
        },
        "num_retries"
        | "max_retries"
        | "max_fallbacks"
        | "retry_after"
        | "retry_policy"
        | "model_group_retry_policy" => {
            let reason =
                "the tier's `attempts` bounds all tries of a call together, with at most one on the same target";
            notes.add(place, reason);
        }
        "allowed_fails" | "allowed_fails_policy" | "cooldown_time" | "disable_cooldowns" => {
            notes.add(place, "breakers weigh evidence instead of counting; see [health]");
        }
        "routing_strategy" => match value.as_str() {
            Some("simple-shuffle") => plan.ranking = Some("weight"),
            Some("latency-based-routing") => plan.ranking = Some("latency"),
            Some("cost-based-routing") => plan.ranking = Some("cost"),
            other => notes.add(
                place,
                format!(
                    "\"{}\" has no counterpart; a group's deployments are drawn by weight",
                    other.unwrap_or("this")
                ),
            ),
        },
        "enable_pre_call_checks" => notes.add(place, "it is always on: targets that do not fit a request are left out"),
        "set_verbose" | "json_logs" | "drop_params" | "turn_off_message_logging" => {
            notes.add(
                place,
                "not needed: logs are JSON without payloads, and what a target cannot carry is not sent to it",
            );
        }
        "cache" | "cache_params" | "cache_responses" | "caching_groups" => notes.add(place, "there is no reply cache"),
        _ if key.starts_with("redis") => notes.add(place, "not needed: a gateway keeps its state itself"),
        _ if key.contains("callback") => notes.add(place, "there are no callbacks; see [telemetry] and [alerts]"),
        _ => notes.add(place, "there is nothing like it here"),
    }
}

fn general_setting(place: &str, key: &str, value: &Value, plan: &mut Plan, notes: &mut Notes) {
    match (key, value.as_str()) {
        ("master_key", Some(text)) => {
            plan.caller_key = Some(variable(text).map(str::to_owned).unwrap_or_else(|| {
                notes.add(place, "the key stands in the file: set it as OUTLAST_API_KEY where Outlast starts");
                "OUTLAST_API_KEY".to_owned()
            }));
            notes.add(
                place,
                "callers present it as before; it does not open admin endpoints: set server.admin_token for those",
            );
        }
        ("host", Some(host)) => plan.host = Some(host.to_owned()),
        ("port", _) if value.as_u64().is_some_and(|port| (1..=65535).contains(&port)) => {
            plan.port = value.as_u64().and_then(|port| u16::try_from(port).ok());
        }
        ("database_url" | "store_model_in_db" | "database_connection_pool_limit", _) => {
            notes.add(place, "there is no database to install, and the file is the only source of the config");
        }
        _ if key.starts_with("alert") => notes.add(place, "see [alerts]: one signed webhook"),
        _ => notes.add(place, "there is nothing like it here"),
    }
}

/// `[{a: [b, c]}, ...]`, as both kinds of fallbacks are written.
fn fallbacks(place: &str, value: &Value, plan: &mut Plan, notes: &mut Notes) {
    let entries = value.as_array().into_iter().flatten().filter_map(Value::as_object).flatten();
    let mut any = false;
    for (from, to) in entries {
        any = true;
        if from == "*" {
            plan.default_fallbacks.extend(texts(to));
            continue;
        }
        let list = plan.fallbacks.entry(from.clone()).or_default();
        for name in texts(to) {
            if !list.contains(&name) {
                list.push(name);
            }
        }
    }
    if !any && !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()) {
        notes.add(place, "it is not a list of `group: [groups]`");
    }
}

fn aliases(place: &str, value: &Value, plan: &mut Plan, notes: &mut Notes) {
    for (alias, group) in value.as_object().into_iter().flatten() {
        match group.as_str().or_else(|| group.get("model").and_then(Value::as_str)) {
            Some(group) => plan.aliases.push((alias.clone(), group.to_owned())),
            None => notes.add(&format!("{place}.{alias}"), "it does not name a group"),
        }
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn seconds(value: &Value) -> Option<f64> {
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
    number.filter(|seconds| (0.001..=604_800.0).contains(seconds))
}

/// The variable of `os.environ/X`.
fn variable(text: &str) -> Option<&str> {
    let name = text.strip_prefix("os.environ/")?;
    let well_formed = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    well_formed.then_some(name)
}

#[cfg(test)]
mod tests;
