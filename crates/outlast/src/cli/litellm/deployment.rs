//! One entry of `model_list`.

use super::{
    Notes, Plan, seconds, variable,
    vendors::{self, Vendor},
};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Where a deployment's calls go: what makes two deployments share a provider.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Endpoint {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) base_url: Option<String>,
    /// Variables with the keys.
    pub(super) keys: Vec<String>,
    pub(super) headers: BTreeMap<String, String>,
}

/// What a group's name may lead to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Deployment {
    pub(super) endpoint: Endpoint,
    pub(super) model: String,
    pub(super) weight: Option<u32>,
    pub(super) order: Option<i64>,
    pub(super) facts: Facts,
}

/// What becomes `[targets."provider/model"]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Facts {
    pub(super) tools: Option<bool>,
    pub(super) images: Option<bool>,
    pub(super) json_schema: Option<bool>,
    pub(super) context_window: Option<u32>,
    pub(super) max_output: Option<u32>,
    /// Dollars per token, input and output.
    pub(super) price: (Option<f64>, Option<f64>),
    pub(super) timeout: Option<f64>,
    pub(super) stream_timeout: Option<f64>,
}

/// Reads an entry into the plan; what is left out is in the notes.
pub(super) fn read(entry: &Value, place: &str, plan: &mut Plan, notes: &mut Notes) {
    let Some(group) = entry.get("model_name").and_then(Value::as_str) else {
        return notes.add(place, "left out: it has no `model_name`");
    };
    let Some(params) = entry.get("litellm_params").and_then(Value::as_object) else {
        return notes.add(place, "left out: it has no `litellm_params`");
    };
    let Some(model) = params.get("model").and_then(Value::as_str) else {
        return notes.add(place, "left out: it has no `model`");
    };
    let empty = Map::new();
    let info = entry.get("model_info").and_then(Value::as_object).unwrap_or(&empty);
    if let Some(mode) = info.get("mode").and_then(Value::as_str).filter(|mode| !matches!(*mode, "chat" | "responses")) {
        return notes.add(place, format!("left out: only chat models are served, and its mode is \"{mode}\""));
    }
    let based = params.contains_key("api_base") || params.contains_key("base_url");
    let Some((prefix, vendor, name)) = vendors::split(model).or_else(|| vendors::unknown(model).filter(|_| based))
    else {
        return notes.add(place, format!("left out: \"{model}\" does not say which vendor it is of"));
    };
    if let Some(part) = NOT_CHAT.iter().find(|part| name.to_lowercase().contains(*part)) {
        return notes
            .add(place, format!("left out: only chat models are served, and this one's name has \"{part}\" in it"));
    }
    if name.is_empty() {
        return notes.add(place, "left out: the model has no name");
    }
    if vendor == vendors::UNKNOWN {
        notes.add(place, format!("{prefix} is taken to speak OpenAI's chat completions at its `api_base`"));
    }
    let Some(endpoint) = endpoint(prefix, vendor, params, place, plan, notes) else { return };
    for key in entry.as_object().into_iter().flat_map(Map::keys) {
        if !["model_name", "litellm_params", "model_info"].contains(&key.as_str()) {
            notes.add(&format!("{place}.{key}"), param_reason(key));
        }
    }
    if group.contains('*') || name.contains('*') {
        plan.wildcard = true;
        plan.wildcards.push(endpoint);
        return notes
            .add(place, "wildcard: server.direct = \"catalogue\" lets clients name the provider's known models");
    }
    if group.chars().any(|c| c.is_whitespace() || c.is_control())
        || name.chars().any(|c| c.is_whitespace() || c.is_control())
    {
        return notes.add(place, "left out: a name here has no spaces");
    }
    let facts = facts(params, info, place, notes);
    for key in params.keys().filter(|key| !PARAMS.contains(&key.as_str())) {
        notes.add(&format!("{place}.litellm_params.{key}"), param_reason(key));
    }
    let whole = |key: &str| params.get(key).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
    let deployment = Deployment {
        endpoint,
        model: name.to_owned(),
        weight: whole("weight").filter(|weight| *weight > 0),
        order: params.get("order").and_then(Value::as_i64),
        facts,
    };
    add(plan.group(group), deployment, place, notes);
}

/// What names of models that do not chat have in them.
const NOT_CHAT: [&str; 8] = ["embed", "whisper", "dall-e", "tts", "rerank", "moderation", "transcribe", "-image-"];

/// What [`read`] reads itself.
const PARAMS: [&str; 18] = [
    "model",
    "api_key",
    "api_base",
    "base_url",
    "api_version",
    "organization",
    "extra_headers",
    "headers",
    "weight",
    "order",
    "timeout",
    "stream_timeout",
    "input_cost_per_token",
    "output_cost_per_token",
    "max_input_tokens",
    "max_output_tokens",
    "custom_llm_provider",
    "mode",
];

fn param_reason(key: &str) -> &'static str {
    match key {
        "rpm" | "tpm" | "max_parallel_requests" => "a provider's own 429s and reset headers schedule its calls",
        "temperature"
        | "max_tokens"
        | "top_p"
        | "top_k"
        | "stop"
        | "seed"
        | "n"
        | "presence_penalty"
        | "frequency_penalty"
        | "reasoning_effort"
        | "max_completion_tokens"
        | "thinking" => "requests are passed on as the client wrote them",
        "max_retries" | "num_retries" => {
            "the tier's `attempts` bounds all tries of a call together, with at most one on the same target"
        }
        "drop_params" => "not needed: what a target cannot carry is not sent to it",
        _ => "there is nothing like it here",
    }
}

/// A second deployment of the same model at the same place with another key is one target with two keys.
fn add(group: &mut Vec<Deployment>, new: Deployment, place: &str, notes: &mut Notes) {
    let same_place = |known: &&mut Deployment| {
        known.model == new.model
            && (known.endpoint.kind, &known.endpoint.base_url, &known.endpoint.headers)
                == (new.endpoint.kind, &new.endpoint.base_url, &new.endpoint.headers)
    };
    match group.iter_mut().find(same_place) {
        Some(known) => {
            let fresh: Vec<String> =
                new.endpoint.keys.into_iter().filter(|key| !known.endpoint.keys.contains(key)).collect();
            if fresh.is_empty() {
                notes.add(place, "the same deployment is there twice in this group; once is enough");
            }
            known.endpoint.keys.extend(fresh);
        }
        None => group.push(new),
    }
}

fn endpoint(
    prefix: &str,
    vendor: Vendor,
    params: &Map<String, Value>,
    place: &str,
    plan: &mut Plan,
    notes: &mut Notes,
) -> Option<Endpoint> {
    let Vendor::Known { name, kind, base_url, variable: mut key_variable } = vendor else {
        notes.add(place, format!("left out: {prefix} speaks a dialect that Outlast does not have"));
        return None;
    };
    let given = params.get("api_base").or_else(|| params.get("base_url")).and_then(Value::as_str);
    let given = given.map(|base| match variable(base) {
        Some(variable) => format!("${{{variable}}}"),
        None => base.trim_end_matches('/').to_owned(),
    });
    let (mut name, mut kind) = (name.to_owned(), kind);
    let base_url = match (given, base_url) {
        (Some(base), _) if prefix == "azure" => Some(azure(base)),
        (Some(base), _) => {
            let vendors_own = base.contains("api.openai.com") || base.contains("api.anthropic.com");
            if kind == "openai" && !vendors_own {
                kind = "openai-compatible";
                key_variable = None;
                name = host_name(&base).unwrap_or(name);
            } else if vendor == vendors::UNKNOWN {
                name = prefix.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
            } else if name == "vllm" || name == "hosted" {
                name = host_name(&base).unwrap_or(name);
            }
            Some(endpoint_root(base, prefix)).filter(|_| !vendors_own)
        }
        (None, Some(base)) => Some(base.to_owned()),
        (None, None) if kind == "openai-compatible" => {
            notes.add(place, format!("left out: {prefix} needs an `api_base` and there is none"));
            return None;
        }
        (None, None) => None,
    };
    if params.contains_key("api_version") {
        let reason = "not needed: Azure's v1 endpoint has no dated versions";
        notes.add(&format!("{place}.litellm_params.api_version"), reason);
    }
    let keys = key(params, &name, key_variable, place, plan, notes).into_iter().collect();
    Some(Endpoint { name, kind, base_url, keys, headers: headers(params, place, notes) })
}

/// Azure's OpenAI-compatible endpoint, whatever path the file has after the host.
fn azure(base: String) -> String {
    let (scheme, rest) = base.split_once("://").unwrap_or(("", &base));
    match rest.split('/').next() {
        Some(host) if !scheme.is_empty() => format!("{scheme}://{host}/openai/v1"),
        _ => format!("{base}/openai/v1"),
    }
}

/// Ollama's address stands without the `/v1` of its OpenAI-compatible endpoint; full endpoints lose their last part.
fn endpoint_root(base: String, prefix: &str) -> String {
    let base =
        base.trim_end_matches("/chat/completions").trim_end_matches("/messages").trim_end_matches('/').to_owned();
    if prefix.starts_with("ollama") && !base.ends_with("/v1") { format!("{base}/v1") } else { base }
}

/// A provider's name from its host: `http://gpu1.lan:8000/v1` is `gpu1`.
fn host_name(base: &str) -> Option<String> {
    let host = base.split_once("://")?.1.split(['/', ':']).next()?;
    let first = if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') { "local" } else { host.split('.').next()? };
    let named = !first.is_empty() && first.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    named.then(|| first.to_lowercase())
}

fn key(
    params: &Map<String, Value>,
    name: &str,
    key_variable: Option<&'static str>,
    place: &str,
    plan: &mut Plan,
    notes: &mut Notes,
) -> Option<String> {
    let Some(text) = params.get("api_key").and_then(Value::as_str) else {
        return key_variable.map(str::to_owned);
    };
    if let Some(variable) = variable(text) {
        return Some(variable.to_owned());
    }
    // Local servers are given "none", "EMPTY", "fake-key" because the SDKs insist on one.
    if key_variable.is_none() && text.len() < 16 {
        return None;
    }
    let made_up = format!("{}_API_KEY", name.to_uppercase().replace(['-', '.'], "_"));
    let variable = plan.variable_for(text, &key_variable.map_or(made_up, str::to_owned));
    let reason = format!("the key stands in the file: set it as {variable} where Outlast starts");
    notes.add(&format!("{place}.litellm_params.api_key"), reason);
    Some(variable)
}

fn headers(params: &Map<String, Value>, place: &str, notes: &mut Notes) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    let organization = params.get("organization").map(|value| ("OpenAI-Organization".to_owned(), value));
    let extra = ["extra_headers", "headers"].into_iter().filter_map(|key| params.get(key)?.as_object()).flatten();
    for (name, value) in organization.into_iter().chain(extra.map(|(name, value)| (name.clone(), value))) {
        let ours = ["authorization", "x-api-key", "content-type", "host"].contains(&name.to_lowercase().as_str());
        match value.as_str().map(|text| (variable(text), text)) {
            _ if ours => notes.add(&format!("{place}.litellm_params.{name}"), "Outlast sets this header itself"),
            Some((Some(variable), _)) => drop(headers.insert(name, format!("${{{variable}}}"))),
            Some((None, text)) if text.is_ascii() && !text.contains("${") => {
                drop(headers.insert(name, text.to_owned()))
            }
            _ => notes.add(&format!("{place}.litellm_params.{name}"), "this is not the text of a header"),
        }
    }
    headers
}

fn facts(params: &Map<String, Value>, info: &Map<String, Value>, place: &str, notes: &mut Notes) -> Facts {
    let either = |key: &str| info.get(key).or_else(|| params.get(key));
    let tokens = |key: &str| either(key).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
    let flag = |key: &str| info.get(key).and_then(Value::as_bool);
    let dollars = |key: &str| {
        let number = either(key).and_then(|value| value.as_f64().or_else(|| value.as_str()?.parse().ok()));
        number.filter(|dollars| (0.0..=0.1).contains(dollars))
    };
    for key in info.keys() {
        const READ: [&str; 9] = [
            "mode",
            "max_input_tokens",
            "max_output_tokens",
            "supports_function_calling",
            "supports_vision",
            "supports_response_schema",
            "input_cost_per_token",
            "output_cost_per_token",
            "max_tokens",
        ];
        match key.as_str() {
            key if READ.contains(&key) => {}
            "id" | "base_model" | "metadata" | "description" | "tags" | "db_model" => {
                notes.add(
                    &format!("{place}.model_info.{key}"),
                    "targets are named provider/model and need no other facts",
                );
            }
            _ => notes.add(&format!("{place}.model_info.{key}"), "there is nothing like it here"),
        }
    }
    let (context_window, max_output) = (tokens("max_input_tokens"), tokens("max_output_tokens"));
    Facts {
        tools: flag("supports_function_calling"),
        images: flag("supports_vision"),
        json_schema: flag("supports_response_schema"),
        context_window,
        max_output: max_output.filter(|output| context_window.is_none_or(|window| *output <= window)),
        price: (dollars("input_cost_per_token"), dollars("output_cost_per_token")),
        timeout: params.get("timeout").and_then(seconds),
        stream_timeout: params.get("stream_timeout").and_then(seconds),
    }
}
