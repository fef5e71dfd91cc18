//! From the file's sections to a [`Config`]: the parts that are neither providers nor routes, and the whole.

use super::{
    AlertEvent, Alerts, BaseUrl, Config, ConfigErrors, Env, LogFormat, SecretKey, Server, Telemetry, TlsFiles,
    contracts::Around,
    file::{AlertsFile, EventChoice, File, HealthFile, LogChoice, ServerFile, TelemetryFile},
    golden, mcp, people, providers,
    read::{self, At, Log},
    routes, runs,
    secrets::{expand, key_hash},
    store, tools, url, workflows,
};
use outlast_model::policy::HealthPolicy;
use std::{net::SocketAddr, path::Path};

/// Reads and judges a config's text.
///
/// `source` names it in errors; relative paths in it are relative to `base`.
///
/// # Errors
/// Every problem, in the order of the lines.
pub(super) fn config(text: &str, source: &str, base: &Path, env: Env<'_>) -> Result<Config, ConfigErrors> {
    let mut log = Log::new(source, text);
    let file: File = read::parse(text, &mut log);
    if log.has_error_at("") {
        // Not TOML: there is nothing to judge.
        return Err(log.into_errors());
    }
    let server = server(file.server.as_ref(), base, env, &mut log);
    let health = health(file.health.as_ref(), file.server.as_ref(), &mut log);
    let alerts = alerts(file.alerts.as_ref(), env, &mut log);
    let telemetry = telemetry(file.telemetry.as_ref(), base, &mut log);
    if file.providers.as_ref().is_none_or(|all| all.value.is_empty()) && !log.has_error_under("providers") {
        log.whole(
            "it has no provider, so nothing can be called",
            "Add [providers.openai] or another; see docs/config.md",
        );
    }
    let no_providers = Default::default();
    let judged = providers::judge(file.providers.as_ref().map_or(&no_providers, |all| &all.value), env, &mut log);
    let files = Default::default();
    let around = Around { base, env, files: &files };
    let routing = routes::judge(&file, &judged, around, &mut log);
    let store = store::judge(file.store.as_ref(), around, &mut log);
    let golden = golden::judge(&file, &routing.routes, &routing.targets, around, &mut log);
    let servers: Vec<&String> = file.mcp.iter().flat_map(|all| all.value.keys()).collect();
    let tools = tools::judge(file.tools.as_ref(), &servers, around, &mut log);
    let mcp = mcp::judge(file.mcp.as_ref(), file.tools.as_ref(), around, &mut log);
    let known = workflows::Known {
        workflow: "",
        file: &file,
        tools: &tools,
        routes: &routing.routes,
        direct: &routing.direct,
        gates: &routing.gates,
        targets: &routing.targets,
    };
    let workflows = workflows::judge(file.workflows.as_ref(), known, around, &mut log);
    let reviewers = people::reviewers(file.reviewers.as_ref(), around, &mut log);
    people::keys_differ(&file, around, &mut log);
    let notify = people::notify(file.notify.as_ref(), around, &mut log);
    let escalations = people::escalations(&file, &mut log);
    let runs = runs::judge(&file, &mut log);
    runs::durable(&file, &tools, &mut log);
    if !log.is_clean() {
        return Err(log.into_errors());
    }
    Ok(Config {
        source: source.into(),
        hash: None,
        files: files.take().into_iter().collect(),
        server,
        providers: judged.into_values().map(|judged| judged.provider).collect(),
        targets: routing.targets,
        routes: routing.routes,
        direct: routing.direct,
        health,
        alerts,
        telemetry,
        store,
        golden,
        tools,
        mcp,
        workflows,
        reviewers,
        notify,
        escalations,
        runs,
        gates: routing.gates,
        webhook_secrets: routing.webhook_secrets,
        warnings: log.warnings,
    })
}

fn server(file: Option<&At<ServerFile>>, base: &Path, env: Env<'_>, log: &mut Log) -> Server {
    let mut server = Server::default();
    let Some(At { value: file, place }) = file else { return server };
    if let Some(setting) = &file.listen
        && let Some(text) = expand(setting, env, log)
    {
        match text.text.replace("localhost:", "127.0.0.1:").parse::<SocketAddr>() {
            Ok(listen) => server.listen = listen,
            Err(_) => {
                let remedy = "Write one like \"127.0.0.1:8080\" or \"0.0.0.0:8080\"";
                log.error(&setting.place, format_args!("\"{}\" is not an address and port", setting.value), remedy);
            }
        }
    }
    server.tls = file.tls.as_ref().and_then(|tls| match (&tls.value.cert, &tls.value.key) {
        (Some(cert), Some(key)) => Some(TlsFiles { cert: base.join(&cert.value), key: base.join(&key.value) }),
        _ => {
            if !log.has_error_under(&tls.place.path) {
                log.error(&tls.place, "TLS needs both `cert` and `key`", "Add the missing one");
            }
            None
        }
    });
    server.admin_token = file.admin_token.as_ref().and_then(|token| key_hash(token, env, log));
    for key in file.keys.iter().flat_map(|keys| &keys.value) {
        let Some(hash) = key_hash(key, env, log) else { continue };
        if server.keys.contains(&hash) {
            log.error(&key.place, "this key is there twice", "Remove one of the two");
        }
        server.keys.push(hash);
    }
    server.keys.sort_unstable();
    if let Some(keys) =
        file.keys.as_ref().filter(|keys| keys.value.is_empty() && !log.has_error_under(&keys.place.path))
    {
        log.error(&keys.place, "the list is empty", "Add a key, or remove `keys` to let every caller in");
    }
    server.public_url = file.public_url.as_ref().and_then(|url| public_url(url, env, log));
    server.allow_open = file.allow_open.as_ref().is_some_and(|open| open.value);
    if let Some(open) = file.allow_open.as_ref().filter(|open| open.value && file.keys.is_some()) {
        log.error(&open.place, "it never takes effect: callers need a key", "Remove `allow_open` or `keys`");
    }
    server.max_connections = file.max_connections.as_ref().map_or(server.max_connections, |max| max.value);
    server.max_body_bytes = file.max_body.as_ref().map_or(server.max_body_bytes, |max| max.value.0);
    server.header_timeout = file.header_timeout.as_ref().map_or(server.header_timeout, |time| time.value.0);
    server.body_timeout = file.body_timeout.as_ref().map_or(server.body_timeout, |time| time.value.0);
    server.drain_timeout = file.drain_timeout.as_ref().map_or(server.drain_timeout, |time| time.value.0);
    server.body_notes = file.body_notes.as_ref().map_or(server.body_notes, |notes| notes.value);
    let listen = file.listen.as_ref().map_or(place, |listen| &listen.place);
    if let Some(why) = server.refuses(server.listen).filter(|_| file.keys.is_none()) {
        log.error(
            listen,
            why,
            "Add `keys` to [server], listen on 127.0.0.1, or set allow_open = true if that is meant",
        );
    }
    if server.tls.is_none() && !server.keys.is_empty() && !server.listen.ip().is_loopback() {
        log.warn(listen, "callers' keys travel in clear text unless something in front of it speaks TLS");
    }
    server
}

fn public_url(setting: &At<String>, env: Env<'_>, log: &mut Log) -> Option<BaseUrl> {
    let text = expand(setting, env, log)?.text;
    BaseUrl::parse(&text)
        .map_err(|why| {
            let what = format!("it is no usable URL: {why}");
            log.error(&setting.place, what, "Write one like \"https://outlast.example.com\"");
        })
        .ok()
}

fn health(file: Option<&At<HealthFile>>, server: Option<&At<ServerFile>>, log: &mut Log) -> HealthPolicy {
    let mut health = HealthPolicy::default();
    if let Some(max) = server.and_then(|server| server.value.max_in_flight.as_ref()) {
        health.max_in_flight = max.value;
    }
    let Some(At { value: file, .. }) = file else { return health };
    if let Some(open_at) = &file.open_at {
        health.open_at = open_at.value;
        if !(1.0..=1000.0).contains(&open_at.value) {
            log.error(
                &open_at.place,
                format_args!("{} is out of range", open_at.value),
                "Write 1 to 1000; one fault weighs about 2.5",
            );
        }
    }
    health.open_base = file.open_base.as_ref().map_or(health.open_base, |time| time.value.0);
    health.open_cap = file.open_cap.as_ref().map_or(health.open_cap.max(health.open_base), |time| time.value.0);
    health.restore_over = file.restore_over.as_ref().map_or(health.restore_over, |time| time.value.0);
    health.forgive_every = file.forgive_every.as_ref().map_or(health.forgive_every, |time| time.value.0);
    health.probe_idle = file.probe_idle.as_ref().map_or(health.probe_idle, |time| time.value.0);
    health.probe_suspect = file.probe_suspect.as_ref().map_or(health.probe_suspect, |time| time.value.0);
    if let Some(cap) = file.open_cap.as_ref().filter(|cap| cap.value.0 < health.open_base) {
        let what = format!("it is shorter than open_base, {}", super::show_duration(health.open_base));
        log.error(&cap.place, what, "Raise it or lower open_base");
    }
    if let Some(share) = &file.max_ejected {
        health.max_ejected = share.value;
        if share.value <= 0.0 || share.value > 1.0 {
            log.error(
                &share.place,
                format_args!("{} is no share of the targets", share.value),
                "Write more than 0 and at most 1",
            );
        }
    }
    health
}

fn alerts(file: Option<&At<AlertsFile>>, env: Env<'_>, log: &mut Log) -> Alerts {
    let Some(At { value: file, place }) = file else { return Alerts::default() };
    let before = log.has_error_under(&place.path);
    for (name, missing) in [("webhook", file.webhook.is_none()), ("secret", file.secret.is_none())] {
        if missing && !before {
            log.error(
                place,
                format_args!("it has no `{name}`"),
                format_args!(
                    "Add {name} = \"${{ALERT_{}}}\", or remove [alerts]: the log is told in any case",
                    name.to_uppercase()
                ),
            );
        }
    }
    let webhook = file.webhook.as_ref().and_then(|setting| {
        let text = expand(setting, env, log)?.text;
        match url::endpoint(&text) {
            Ok(uri) => Some(uri),
            Err(why) => {
                log.error(&setting.place, why, "Write one like \"https://hooks.example.com/outlast\"");
                None
            }
        }
    });
    let secret =
        file.secret.as_ref().and_then(|setting| expand(setting, env, log)).map(|secret| SecretKey::new(secret.text));
    let mut events: Vec<AlertEvent> = match &file.events {
        Some(events) => events
            .value
            .iter()
            .map(|event| match event.value {
                EventChoice::Breaker => AlertEvent::Breaker,
                EventChoice::Auth => AlertEvent::Auth,
                EventChoice::Quota => AlertEvent::Quota,
                EventChoice::Quality => AlertEvent::Quality,
            })
            .collect(),
        None => AlertEvent::ALL.to_vec(),
    };
    if let Some(list) =
        file.events.as_ref().filter(|list| list.value.is_empty() && !log.has_error_under(&list.place.path))
    {
        log.error(&list.place, "with no event the webhook is never called", "Add an event or remove [alerts]");
    }
    events.sort_unstable();
    events.dedup();
    Alerts { webhook, secret, events }
}

fn telemetry(file: Option<&At<TelemetryFile>>, base: &Path, log: &mut Log) -> Telemetry {
    let mut telemetry = Telemetry::default();
    let Some(At { value: file, .. }) = file else { return telemetry };
    telemetry.file = file.file.as_ref().map(|file| base.join(&file.value));
    if let Some(sample) = &file.sample {
        telemetry.sample = sample.value;
        if sample.value > 1.0 {
            log.error(
                &sample.place,
                format_args!("{} is more than everything", sample.value),
                "Write a share from 0 to 1",
            );
        }
    }
    if let Some(ring) = &file.ring {
        telemetry.ring = ring.value;
        if ring.value > 100_000 {
            log.error(&ring.place, "more than 100000 records are too many for memory", "Keep history in `file`");
        }
    }
    telemetry.log = match file.log.as_ref().map(|log| log.value) {
        None | Some(LogChoice::Json) => LogFormat::Json,
        Some(LogChoice::Off) => LogFormat::Off,
    };
    telemetry
}
