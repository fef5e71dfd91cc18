//! What is known of models without being told: prices and context windows from the embedded catalogue
//! (`cargo xtask vendor-prices`), abilities from the families below. The config wins over all of it.
//!
//! The file stays text until a target asks, only the providers asked for are parsed, and nothing is kept.

use super::{BaseUrl, Kind};
use outlast_model::{
    Price,
    policy::{Ability, Capabilities},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

const PRICES: &str = include_str!("../../data/prices.json");

/// The catalogue's name for the vendor behind a provider, if it knows one.
pub(super) fn vendor(kind: Kind, base_url: &BaseUrl) -> Option<&'static str> {
    const HOSTS: [(&str, &str); 24] = [
        ("api.openai.com", "openai"),
        ("api.anthropic.com", "anthropic"),
        ("googleapis.com", "google"),
        ("api.groq.com", "groq"),
        ("api.mistral.ai", "mistral"),
        ("api.deepseek.com", "deepseek"),
        ("api.x.ai", "x-ai"),
        ("openrouter.ai", "openrouter"),
        ("api.together.xyz", "together"),
        ("api.together.ai", "together"),
        ("api.cerebras.ai", "cerebras"),
        ("api.fireworks.ai", "fireworks"),
        ("api.perplexity.ai", "perplexity"),
        ("api.moonshot.ai", "moonshotai"),
        ("api.moonshot.cn", "moonshotai"),
        ("api.minimax.io", "minimax"),
        ("api.z.ai", "zai"),
        ("inference.baseten.co", "baseten"),
        ("api.cohere.ai", "cohere"),
        ("api.cohere.com", "cohere"),
        ("api.novita.ai", "novita"),
        ("api.meta.ai", "meta"),
        ("openai.azure.com", "azure"),
        ("services.ai.azure.com", "azure"),
    ];
    let host = base_url.host().to_ascii_lowercase();
    let of_domain = |domain: &str| {
        host.strip_suffix(domain).is_some_and(|subdomain| subdomain.is_empty() || subdomain.ends_with('.'))
    };
    let by_host = HOSTS.iter().find(|(domain, _)| of_domain(domain)).map(|(_, vendor)| *vendor);
    by_host.or(match kind {
        Kind::Openai => Some("openai"),
        Kind::Anthropic => Some("anthropic"),
        Kind::OpenaiCompatible => None,
    })
}

/// One row: id, context window, dollars per million tokens (input, output, cache read, cache write), patterns.
#[derive(Deserialize)]
struct Row<'a>(&'a str, Option<u32>, f64, f64, Option<f64>, Option<f64>, #[serde(borrow)] Vec<&'a str>);

/// What the catalogue says of one model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Known {
    pub(super) price: Price,
    pub(super) context_window: Option<u32>,
}

/// The models of the vendors asked for so far. Made for one load and dropped after it.
#[derive(Default)]
pub(super) struct Catalogue {
    vendors: BTreeMap<&'static str, Vec<Row<'static>>>,
}

impl Catalogue {
    /// What is known of a vendor's model: by its exact name, else by a dated form, a prefix or a part of it.
    pub(super) fn find(&mut self, vendor: &'static str, model: &str) -> Option<Known> {
        let name = model.to_lowercase();
        let rows = self.rows(vendor);
        let exact = |row: &&Row<'_>| row.0.to_lowercase() == name || row.6.contains(&name.as_str());
        let row = rows
            .iter()
            .find(exact)
            .or_else(|| rows.iter().find(|row| row.6.iter().any(|pattern| matches_pattern(pattern, &name))))?;
        let price = Price::per_million(row.2, row.3, row.4, row.5);
        Some(Known { price, context_window: row.1 })
    }

    /// The chat models of a vendor by their main names; those whose context window nobody knows are left out, which are
    /// mostly old or no chat models.
    pub(super) fn models(&mut self, vendor: &'static str) -> impl Iterator<Item = &str> {
        const NOT_CHAT: [&str; 6] = ["image", "audio", "realtime", "-tts", "embed", "-live"];
        let is_chat = |row: &&Row<'_>| row.1.is_some() && !NOT_CHAT.iter().any(|part| row.0.contains(part));
        self.rows(vendor).iter().filter(is_chat).map(|row| row.0)
    }

    fn rows(&mut self, vendor: &'static str) -> &[Row<'static>] {
        self.vendors.entry(vendor).or_insert_with(|| {
            let vendors: BTreeMap<&str, &RawValue> = serde_json::from_str(PRICES).expect("a test reads the whole file");
            let rows = vendors.get(vendor).map(|rows| serde_json::from_str(rows.get()));
            rows.transpose().expect("a test reads the whole file").unwrap_or_default()
        })
    }
}

/// `x*`, `*x`, `*x*` match as they look; `x#` wants a date after x. Exact names are found before.
fn matches_pattern(pattern: &str, name: &str) -> bool {
    if let Some(before) = pattern.strip_suffix('#') {
        let date = |rest: &str| rest.len() >= 8 && rest.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        return name.strip_prefix(before).is_some_and(date);
    }
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(_), Some(_)) => name.contains(pattern.trim_matches('*')),
        (Some(after), None) => name.ends_with(after),
        (None, Some(before)) => name.starts_with(before),
        (None, None) => false,
    }
}

/// What a vendor's model can surely do or surely not do. What is not known here is [`Ability::Unknown`]: it is tried
/// after the targets that surely can. Source: the vendors' model pages.
pub(super) fn capabilities(vendor: &str, model: &str) -> Capabilities {
    use Ability::{No, Unknown, Yes};
    const fn can(tools: Ability, images: Ability, json_schema: Ability) -> Capabilities {
        Capabilities { tools, images, json_schema }
    }
    let families: &[(&str, Capabilities)] = match vendor {
        "openai" => &[
            ("gpt-3.5-turbo-instruct", can(No, No, No)),
            ("gpt-3.5", can(Yes, No, No)),
            ("gpt-4o-2024-05-13", can(Yes, Yes, No)),
            ("gpt-4o", can(Yes, Yes, Yes)),
            ("gpt-4.", can(Yes, Yes, Yes)),
            ("gpt-4-turbo", can(Yes, Yes, No)),
            ("gpt-4-vision", can(No, Yes, No)),
            ("gpt-4", can(Yes, No, No)),
            ("gpt-5", can(Yes, Yes, Yes)),
            ("gpt-6", can(Yes, Yes, Yes)),
            ("gpt-oss", can(Yes, No, Unknown)),
            ("o1-mini", can(No, No, No)),
            ("o1-preview", can(No, No, No)),
            ("o3-mini", can(Yes, No, Yes)),
            ("o1", can(Yes, Yes, Yes)),
            ("o3", can(Yes, Yes, Yes)),
            ("o4", can(Yes, Yes, Yes)),
        ],
        "anthropic" => &[
            ("claude-2", can(No, No, No)),
            ("claude-v", can(No, No, No)),
            ("claude-3", can(Yes, Yes, Unknown)),
            ("claude-sonnet-4-0", can(Yes, Yes, Unknown)),
            ("claude-sonnet-4-2025", can(Yes, Yes, Unknown)),
            ("claude-opus-4-0", can(Yes, Yes, Unknown)),
            ("claude-opus-4-2025", can(Yes, Yes, Unknown)),
            ("claude-", can(Yes, Yes, Yes)),
        ],
        "google" => &[("gemini-1.0", can(Unknown, Unknown, Unknown)), ("gemini-", can(Yes, Yes, Yes))],
        "deepseek" => &[("deepseek-reasoner", can(Unknown, No, No)), ("deepseek-", can(Yes, No, No))],
        "mistral" => &[("pixtral", can(Yes, Yes, Yes)), ("mistral-", can(Yes, Unknown, Yes))],
        "x-ai" => &[("grok-", can(Yes, Unknown, Yes))],
        _ => &[],
    };
    let name = model.to_lowercase();
    families.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, known)| *known).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_file_is_whole_and_small() {
        let vendors: BTreeMap<&str, Vec<Row<'_>>> = serde_json::from_str(PRICES).unwrap();
        assert!(vendors.len() >= 15 && vendors["openai"].len() >= 50, "{}", vendors.len());
        assert!(PRICES.len() < 300_000, "{} bytes", PRICES.len());
    }

    #[test]
    fn a_model_is_found_by_name_by_date_and_by_prefix() {
        let mut catalogue = Catalogue::default();
        let sonnet = catalogue.find("anthropic", "claude-sonnet-4-5").unwrap();
        assert_eq!(sonnet.price, Price::per_million(3.0, 15.0, Some(0.3), Some(3.75)));
        assert_eq!(sonnet.context_window, Some(200_000));
        assert_eq!(catalogue.find("anthropic", "claude-sonnet-4-5-20250929"), Some(sonnet));
        assert_eq!(catalogue.find("openai", "GPT-6-sol-2026-09-01"), catalogue.find("openai", "gpt-6-sol"));
        assert_eq!(catalogue.find("openai", "llama-3-8b"), None);
        assert_eq!(catalogue.find("nobody", "gpt-5.2"), None);
    }

    #[test]
    fn the_vendor_is_known_by_host_or_by_kind() {
        for (kind, url, known) in [
            (Kind::OpenaiCompatible, "https://api.groq.com/openai/v1", Some("groq")),
            (Kind::OpenaiCompatible, "https://me.openai.azure.com/openai/v1", Some("azure")),
            (Kind::OpenaiCompatible, "https://notapi.groq.com.evil.example/v1", None),
            (Kind::OpenaiCompatible, "http://gpu1:8000/v1", None),
            (Kind::Openai, "http://127.0.0.1:9900/v1", Some("openai")),
        ] {
            assert_eq!(vendor(kind, &BaseUrl::parse(url).unwrap()), known, "{url}");
        }
    }

    #[test]
    fn abilities_follow_the_longest_family() {
        assert_eq!(capabilities("openai", "gpt-4o-mini").json_schema, Ability::Yes);
        assert_eq!(capabilities("openai", "gpt-4-0613").images, Ability::No);
        assert_eq!(capabilities("anthropic", "claude-opus-5-5").tools, Ability::Yes);
        assert_eq!(capabilities("groq", "llama-3.1-8b-instant"), Capabilities::default());
    }
}
