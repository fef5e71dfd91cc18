//! Judges providers: URLs, keys, headers, deadlines.

use super::{
    BaseUrl, Env, Kind, Provider, SecretKey, catalogue,
    file::{KindChoice, ProviderFile, TimeoutsFile},
    read::{At, Log, Named, Place, Time},
    secrets::expand,
    settings::DEFAULT_TIMEOUTS,
};
use http::{HeaderName, HeaderValue};
use outlast_model::{ProviderId, policy::Timeouts};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// The most keys of one provider; the engine counts them in a byte and tries them in turn.
const KEYS_MAX: usize = 32;

/// A provider that passed, and where it stands in the file.
pub(super) struct Judged {
    pub(super) provider: Arc<Provider>,
    /// The catalogue's name for the vendor.
    pub(super) vendor: Option<&'static str>,
    pub(super) place: Place,
}

/// Judges them all; those with errors are left out.
pub(super) fn judge(file: &Named<ProviderFile>, env: Env<'_>, log: &mut Log) -> BTreeMap<String, Judged> {
    let judged = file.iter().filter_map(|(name, provider)| {
        let vendor_and_provider = judge_one(name, provider, env, log)?;
        Some((name.clone(), vendor_and_provider))
    });
    judged.collect()
}

fn judge_one(name: &str, file: &At<ProviderFile>, env: Env<'_>, log: &mut Log) -> Option<Judged> {
    let (place, file) = (&file.place, &file.value);
    let named =
        !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !named {
        let what = "a provider's name is part of its targets' names and of metrics";
        log.error(place, what, "Use up to 64 letters, digits, `-`, `_` and `.`");
    }
    let kind = match &file.kind {
        Some(kind) => Some(match kind.value {
            KindChoice::Openai => Kind::Openai,
            KindChoice::Anthropic => Kind::Anthropic,
            KindChoice::OpenaiCompatible => Kind::OpenaiCompatible,
        }),
        None => {
            let unreadable = log.has_error_at(&format!("{}.kind", place.path));
            if !unreadable {
                log.error(place, "it has no `kind`", "Add kind = \"openai\", \"anthropic\" or \"openai-compatible\"");
            }
            None
        }
    };
    let keys = keys(file, env, log);
    let headers = headers(file.headers.as_ref(), &OURS, "Remove it; keys go into `api_key`", env, log);
    let timeouts = timeouts(file.timeouts.as_ref(), DEFAULT_TIMEOUTS, log);
    let kind = kind?;
    let base_url = base_url(kind, file, place, env, log)?;
    needs_key(kind, file, place, log);
    let keys = keys?;
    if !base_url.is_https() && !keys.is_empty() && !base_url.is_loopback() {
        let what = "its key travels in clear text: base_url is http and not this machine";
        log.warn(file.base_url.as_ref().map_or(place, |url| &url.place), what);
    }
    let vendor = catalogue::vendor(kind, &base_url);
    let provider = Provider {
        id: ProviderId::new(name),
        kind,
        base_url,
        keys,
        region: file.region.as_ref().map(|region| Arc::from(region.value.as_str())),
        headers: headers?,
        timeouts,
        probes: file.probes.as_ref().is_none_or(|probes| probes.value),
    };
    named.then(|| Judged { provider: Arc::new(provider), vendor, place: place.clone() })
}

fn keys(file: &ProviderFile, env: Env<'_>, log: &mut Log) -> Option<Vec<SecretKey>> {
    if let (Some(_), Some(many)) = (&file.api_key, &file.api_keys) {
        log.error(&many.place, "`api_key` is there as well", "Keep one of the two");
        return None;
    }
    let many = file.api_keys.iter().flat_map(|keys| &keys.value);
    let settings: Vec<&At<String>> = file.api_key.iter().chain(many).collect();
    if let Some(list) =
        file.api_keys.as_ref().filter(|list| list.value.is_empty() && !log.has_error_under(&list.place.path))
    {
        log.error(&list.place, "the list is empty", "Add a key or remove `api_keys`");
        return None;
    }
    if settings.len() > KEYS_MAX {
        let place = &settings[KEYS_MAX].place;
        log.error(place, format_args!("a provider has at most {KEYS_MAX} keys"), "Split it into two providers");
        return None;
    }
    let mut keys: Vec<SecretKey> = Vec::new();
    let mut complete = true;
    for setting in settings {
        let Some(key) = expand(setting, env, log) else {
            complete = false;
            continue;
        };
        if !key.from_env && key.text.len() >= 20 {
            log.warn(
                &setting.place,
                "a key in the file is seen by whoever sees the file; ${NAME} keeps it in the environment",
            );
        }
        let unsendable = HeaderValue::from_str(&key.text).is_err();
        let key = SecretKey::new(key.text);
        if unsendable {
            log.error(
                &setting.place,
                "the key has a character that no HTTP header may carry",
                "Check how the variable is set",
            );
            complete = false;
        } else if keys.contains(&key) {
            log.error(&setting.place, "this key is there twice, which is no second key", "Remove one of the two");
            complete = false;
        } else {
            keys.push(key);
        }
    }
    complete.then_some(keys)
}

/// A vendor's own endpoint always asks for a key; a stand-in may not.
fn needs_key(kind: Kind, file: &ProviderFile, place: &Place, log: &mut Log) {
    let vendors_own = file.base_url.is_none() && kind != Kind::OpenaiCompatible;
    let unreadable = log.has_error_under(&place.path);
    if vendors_own && file.api_key.is_none() && file.api_keys.is_none() && !unreadable {
        let variable = if kind == Kind::Openai { "OPENAI_API_KEY" } else { "ANTHROPIC_API_KEY" };
        log.error(
            place,
            format_args!("{} asks for a key and there is none", kind.name()),
            format_args!("Add api_key = \"${{{variable}}}\""),
        );
    }
}

fn base_url(kind: Kind, file: &ProviderFile, place: &Place, env: Env<'_>, log: &mut Log) -> Option<BaseUrl> {
    let Some(setting) = &file.base_url else {
        let vendors_own = match kind {
            Kind::Openai => "https://api.openai.com/v1",
            Kind::Anthropic => "https://api.anthropic.com/v1",
            Kind::OpenaiCompatible => {
                if !log.has_error_at(&format!("{}.base_url", place.path)) {
                    let remedy = "Add one, like base_url = \"http://gpu1:8000/v1\"";
                    log.error(place, "an openai-compatible provider has no base_url of its own", remedy);
                }
                return None;
            }
        };
        return BaseUrl::parse(vendors_own).ok();
    };
    let text = expand(setting, env, log)?.text;
    let url = match BaseUrl::parse(&text) {
        Ok(url) => url,
        Err(why) => {
            // A URL with a user in it may hold a password, and a filled-in one a secret: those are not shown.
            let shown = if setting.value.contains('@') { "this" } else { &format!("\"{}\"", setting.value) };
            let remedy = "Write it like \"https://api.example.com/v1\"";
            log.error(&setting.place, format_args!("{shown} is not a usable URL: {why}"), remedy);
            return None;
        }
    };
    let endpoint = ["/chat/completions", "/messages"].into_iter().find(|end| url.path().ends_with(end));
    if let Some(end) = endpoint {
        log.error(
            &setting.place,
            format_args!("it ends in {end}, which Outlast appends itself"),
            format_args!("Remove {end}"),
        );
        return None;
    }
    // The official SDKs write the bare host of these two, and their APIs live under /v1.
    match kind {
        Kind::Openai | Kind::Anthropic if url.path().is_empty() => BaseUrl::parse(&format!("{url}/v1")).ok(),
        Kind::Openai | Kind::Anthropic | Kind::OpenaiCompatible => Some(url),
    }
}

/// What no header of a provider may be: Outlast sets these itself.
const OURS: [&str; 9] = [
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "authorization",
    "x-api-key",
    "accept-encoding",
    "traceparent",
];

/// Headers of the operator's own. `ours` are refused, with `remedy`.
pub(super) fn headers(
    file: Option<&At<Named<String>>>,
    ours: &[&str],
    remedy: &str,
    env: Env<'_>,
    log: &mut Log,
) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let mut headers = Vec::new();
    let mut complete = true;
    for (name, setting) in file.iter().flat_map(|headers| &headers.value) {
        let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
            log.error(&setting.place, format_args!("\"{name}\" is not a header's name"), "Use letters, digits and `-`");
            complete = false;
            continue;
        };
        if ours.contains(&header.as_str()) {
            log.error(&setting.place, format_args!("Outlast sets `{header}` itself"), remedy);
            complete = false;
            continue;
        }
        let Some(text) = expand(setting, env, log) else {
            complete = false;
            continue;
        };
        let Ok(mut value) = HeaderValue::from_str(&text.text) else {
            log.error(&setting.place, "it has a character that no HTTP header may carry", "Use printable ASCII");
            complete = false;
            continue;
        };
        value.set_sensitive(text.from_env);
        headers.push((header, value));
    }
    complete.then_some(headers)
}

/// Deadlines over those they inherit. A single deadline beyond the total would never take effect.
pub(super) fn timeouts(file: Option<&At<TimeoutsFile>>, inherited: Timeouts, log: &mut Log) -> Timeouts {
    let Some(file) = file.map(|file| &file.value) else { return inherited };
    let total = file.total.as_ref().map_or(inherited.total, |total| total.value.0);
    let mut one = |setting: &Option<At<Time>>, inherited: Duration| {
        let Some(setting) = setting else { return inherited.min(total) };
        if setting.value.0 > total {
            let what = format!(
                "it is longer than the attempt's total of {}, so it would never pass",
                super::show_duration(total)
            );
            log.error(&setting.place, what, "Shorten it or raise `total`");
        }
        setting.value.0
    };
    Timeouts {
        connect: one(&file.connect, inherited.connect),
        header: one(&file.header, inherited.header),
        first_token: one(&file.first_token, inherited.first_token),
        idle: one(&file.idle, inherited.idle),
        total,
    }
}
