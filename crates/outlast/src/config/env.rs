//! A config from the API keys in the environment, for `outlast serve` without a file. It is written as TOML and read
//! like any other, so it can be shown, saved and edited.

use super::{Config, ConfigError, ConfigErrors, Env};
use std::{fmt::Write, path::Path};

/// A vendor that is recognised by its key's variable.
struct Vendor {
    variable: &'static str,
    provider: &'static str,
    kind: &'static str,
    base_url: Option<&'static str>,
    /// Its models for the routes `smart`, `default` and `fast`. Names the catalogue knows: a test holds it.
    models: [&'static str; 3],
    /// It resells everybody's models: too many to open its catalogue.
    aggregator: bool,
}

const fn vendor(
    variable: &'static str,
    provider: &'static str,
    base_url: Option<&'static str>,
    models: [&'static str; 3],
) -> Vendor {
    Vendor { variable, provider, kind: "openai-compatible", base_url, models, aggregator: false }
}

/// In the order in which the routes try them.
const VENDORS: [Vendor; 9] = [
    Vendor {
        kind: "openai",
        ..vendor("OPENAI_API_KEY", "openai", None, ["gpt-6.1-sol", "gpt-6.1-terra", "gpt-6-luna"])
    },
    Vendor {
        kind: "anthropic",
        ..vendor("ANTHROPIC_API_KEY", "anthropic", None, ["claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5"])
    },
    vendor(
        "GEMINI_API_KEY",
        "gemini",
        Some("https://generativelanguage.googleapis.com/v1beta/openai"),
        ["gemini-4-argon", "gemini-3.8-flash", "gemini-3.5-flash-lite"],
    ),
    vendor(
        "MISTRAL_API_KEY",
        "mistral",
        Some("https://api.mistral.ai/v1"),
        ["mistral-large-latest", "mistral-medium-latest", "mistral-small-latest"],
    ),
    vendor("XAI_API_KEY", "xai", Some("https://api.x.ai/v1"), ["grok-4.7", "grok-4.7", "grok-4-1-fast-non-reasoning"]),
    vendor(
        "DEEPSEEK_API_KEY",
        "deepseek",
        Some("https://api.deepseek.com/v1"),
        ["deepseek-v4-pro", "deepseek-v4-pro", "deepseek-v4-flash"],
    ),
    vendor(
        "GROQ_API_KEY",
        "groq",
        Some("https://api.groq.com/openai/v1"),
        ["openai/gpt-oss-120b", "openai/gpt-oss-120b", "llama-3.1-8b-instant"],
    ),
    vendor(
        "TOGETHER_API_KEY",
        "together",
        Some("https://api.together.xyz/v1"),
        ["openai/gpt-oss-120b", "openai/gpt-oss-120b", "meta-llama/Llama-3.3-70B-Instruct-Turbo"],
    ),
    Vendor {
        aggregator: true,
        ..vendor(
            "OPENROUTER_API_KEY",
            "openrouter",
            Some("https://openrouter.ai/api/v1"),
            ["openai/gpt-6.1-sol", "openai/gpt-6.1-terra", "openai/gpt-6-luna"],
        )
    },
];

const ROUTES: [&str; 3] = ["smart", "default", "fast"];

impl Config {
    /// Builds providers and routes from the API keys in the environment. Also read: `OLLAMA_HOST` with `OLLAMA_MODEL`,
    /// `OUTLAST_LISTEN`, `OUTLAST_API_KEY` (what callers must present) and `OUTLAST_ADMIN_TOKEN`.
    ///
    /// # Errors
    /// When no key of a known vendor is set, or a value cannot be used.
    pub fn from_env(env: Env<'_>) -> Result<Config, ConfigErrors> {
        let text = toml_from_env(env)?;
        Config::from_text(&text, "environment", Path::new(""), env)
    }
}

/// The config that [`Config::from_env`] reads, as TOML. It names variables and holds no value of a secret one.
///
/// # Errors
/// When no key of a known vendor is set.
pub fn toml_from_env(env: Env<'_>) -> Result<String, ConfigErrors> {
    let set = |name: &str| env(name).filter(|value| !value.trim().is_empty());
    let found: Vec<&Vendor> = VENDORS.iter().filter(|vendor| set(vendor.variable).is_some()).collect();
    let ollama = set("OLLAMA_HOST").zip(set("OLLAMA_MODEL"));
    if found.is_empty() && ollama.is_none() {
        return Err(nothing_found(set("OLLAMA_HOST").is_some()));
    }
    let mut text = String::from("[server]\n");
    if found.iter().any(|vendor| !vendor.aggregator) {
        text.push_str("direct = \"catalogue\"\n");
    }
    for (variable, line) in [
        ("OUTLAST_LISTEN", "listen = \"${OUTLAST_LISTEN}\"\n"),
        ("OUTLAST_API_KEY", "keys = [\"${OUTLAST_API_KEY}\"]\n"),
        ("OUTLAST_ADMIN_TOKEN", "admin_token = \"${OUTLAST_ADMIN_TOKEN}\"\n"),
    ] {
        if set(variable).is_some() {
            text.push_str(line);
        }
    }
    for vendor in &found {
        let _ = write!(text, "\n[providers.{}]\nkind = \"{}\"\n", vendor.provider, vendor.kind);
        if let Some(base_url) = vendor.base_url {
            let _ = writeln!(text, "base_url = \"{base_url}\"");
        }
        let _ = writeln!(text, "api_key = \"${{{}}}\"", vendor.variable);
    }
    if let Some((host, _)) = &ollama {
        let _ = write!(text, "\n[providers.ollama]\nkind = \"openai-compatible\"\nbase_url = {:?}\n", ollama_url(host));
    }
    for (at, route) in ROUTES.iter().enumerate() {
        let targets = found.iter().map(|vendor| format!("{}/{}", vendor.provider, vendor.models[at]));
        let local = ollama.iter().map(|(_, model)| format!("ollama/{}", model.trim()));
        let targets: Vec<String> = targets.chain(local).map(|target| format!("{target:?}")).collect();
        let _ = write!(text, "\n[routes.{route}]\ntargets = [{}]\n", targets.join(", "));
    }
    Ok(text)
}

/// Ollama's own variable may be `host`, `host:port`, a URL, or the address it listens on.
fn ollama_url(host: &str) -> String {
    let host = host.trim().trim_end_matches('/');
    let (scheme, rest) = host.split_once("://").unwrap_or(("http", host));
    let rest = rest.replacen("0.0.0.0", "127.0.0.1", 1);
    let port = if rest.contains(':') || host.contains("://") { "" } else { ":11434" };
    let path = if rest.ends_with("/v1") { "" } else { "/v1" };
    format!("{scheme}://{rest}{port}{path}")
}

fn nothing_found(ollama_host: bool) -> ConfigErrors {
    let variables: Vec<&str> = VENDORS.iter().map(|vendor| vendor.variable).collect();
    let (what, remedy) = if ollama_host {
        ("OLLAMA_HOST is set, but not which model to ask".into(), "Set OLLAMA_MODEL, or write an outlast.toml".into())
    } else {
        let what = "there is no config file, and no API key of a known vendor is set".into();
        (
            what,
            format!("Set one of {}, or OLLAMA_HOST and OLLAMA_MODEL, or write an outlast.toml", variables.join(", ")),
        )
    };
    let remedy: Box<str> = remedy.into();
    ConfigErrors(vec![ConfigError { file: "environment".into(), line: None, path: "".into(), what, remedy }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BaseUrl, Kind, catalogue};

    #[test]
    fn the_catalogue_knows_the_price_of_every_model_the_routes_name() {
        let mut known = catalogue::Catalogue::default();
        for vendor in VENDORS {
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == vendor.kind).unwrap();
            let url = BaseUrl::parse(vendor.base_url.unwrap_or("https://api.invalid/v1")).unwrap();
            let name = catalogue::vendor(kind, &url).unwrap();
            for model in vendor.models {
                assert!(known.find(name, model).is_some(), "{name} {model}");
            }
        }
    }

    #[test]
    fn ollamas_host_becomes_a_url_in_every_spelling() {
        for (host, url) in [
            ("localhost", "http://localhost:11434/v1"),
            ("0.0.0.0:11434", "http://127.0.0.1:11434/v1"),
            ("http://gpu1:11434/", "http://gpu1:11434/v1"),
            ("https://ollama.example.com", "https://ollama.example.com/v1"),
        ] {
            assert_eq!(ollama_url(host), url);
        }
    }
}
