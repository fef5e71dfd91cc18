//! `[tools.*]`: what may be called, and what follows from what a second call would do.

use super::{
    Endpoint, Tool, Verify,
    backstops::wanted,
    contracts::{Around, only_facts},
    hooks,
    providers::headers,
    read::{At, Log, Named, Place, Span, did_you_mean},
    routes::suggest,
    schemas,
    secrets::expand,
    url,
    words::JsonSetting,
    work_file::{RetryFile, ToolFile},
    work_words::{ApprovalChoice, ApprovalSetting, EffectChoice, ExhaustedChoice, MethodChoice, ToolKindChoice},
};
use http::{HeaderName, Uri};
use outlast_model::{
    ToolName, Usd,
    policy::{ApprovalPolicy, HttpMethod, Schema, ToolKind, ToolSpec, Workflow},
    run::{EffectClass, Exhausted, RetryBudget},
};
use outlast_wire::{DocumentSchema, template::Expression};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// What a tool may take where nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a receiver is left alone before it is asked whether something happened.
const QUIET_PERIOD: Duration = Duration::from_secs(30);
/// Where our key is sent where nothing else is said.
const KEY_HEADER: &str = "idempotency-key";
/// What the operator's own headers may not be.
const OURS: [&str; 10] = [
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "accept-encoding",
    "traceparent",
    "idempotency-key",
    "x-outlast-epoch",
    "x-outlast-attempt",
];
const OURS_REMEDY: &str = "Remove it; `key_header` says where the key goes";

/// Judges them all; `servers` are the names of `[mcp.*]`.
pub(super) fn judge(
    file: Option<&At<Named<ToolFile>>>,
    servers: &[&String],
    around: Around<'_>,
    log: &mut Log,
) -> BTreeMap<ToolName, Arc<Tool>> {
    let mut tools = BTreeMap::new();
    for (name, written) in file.iter().flat_map(|all| &all.value) {
        if let Some(tool) = judge_one(name, written, servers, around, log) {
            tools.insert(ToolName::from(name.as_str()), Arc::new(tool));
        }
    }
    for (name, written) in file.iter().flat_map(|all| &all.value) {
        hooks::asked_tool(name, written, file, &tools, log);
        alternatives_fit(name, written, file, &tools, log);
    }
    tools
}

fn judge_one(
    name: &str,
    At { value: file, place }: &At<ToolFile>,
    servers: &[&String],
    around: Around<'_>,
    log: &mut Log,
) -> Option<Tool> {
    tool_name(name, place, log);
    let kind = wanted(&file.kind, "kind", "Add kind = \"http\", \"mcp\" or \"worker\"", place, log);
    let class = class(file, place, log);
    let verify = file.verify.as_ref().and_then(|verify| hooks::judge(verify, around, log));
    let timeout = file.timeout.as_ref().map_or(TIMEOUT, |timeout| timeout.value.0);
    let retry = file.retry.as_ref().map_or_else(RetryBudget::default, |file| retry(file, RetryBudget::default(), log));
    if let Some(class) = &class {
        keys_outlive_attempts(file, class, &retry, timeout, log);
    }
    let (approval, compiled) = approval(file.approval.as_ref(), log);
    let input = schema(file.input.as_ref(), around, log);
    let output = schema(file.output.as_ref(), around, log);
    let reached = reached(name, kind?, file, place, servers, around, log);
    let (kind, http) = reached?;
    let class = class?;
    let spec = ToolSpec {
        name: name.into(),
        description: file.description.as_ref().map(|text| text.value.trim().into()),
        kind,
        read_only: !class.is_effect(),
        class,
        timeout,
        retry,
        alternatives: file.alternatives.iter().flat_map(|all| &all.value).map(|at| at.value.as_str().into()).collect(),
        approval,
        verify: verify.as_ref().map(|(hook, _)| hook.clone()),
        input: input.as_ref().map(|(spec, _)| Arc::clone(spec)),
        output: output.as_ref().map(|(spec, _)| Arc::clone(spec)),
    };
    let verify: Option<Verify> = verify.map(|(_, compiled)| compiled);
    Some(Tool {
        spec: Arc::new(spec),
        http,
        input: input.map(|(_, compiled)| compiled),
        output: output.map(|(_, compiled)| compiled),
        approval: compiled,
        verify,
    })
}

/// Models call tools by these names, and providers take no others.
fn tool_name(name: &str, place: &Place, log: &mut Log) {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
        let what = "a tool's name has 1 to 64 letters, digits, `_` and `-`: models call it so";
        log.error(place, what, "Rename it");
    }
}

fn class(file: &ToolFile, place: &Place, log: &mut Log) -> Option<EffectClass> {
    const REMEDY: &str = "Add effect = \"pure\" if it only looks things up; \"tx\", \"keyed\", \"verify\" or \"once\" \
                          if it changes something; docs/config.md tells them apart";
    if file.effect.is_none() && !log.has_error_under(&format!("{}.effect", place.path)) {
        log.error(place, "it does not say what happens when it is called twice", REMEDY);
    }
    let effect = file.effect.as_ref()?;
    belong_to_class(file, effect.value, log);
    let quiet = file.quiet_period.as_ref().map_or(QUIET_PERIOD, |quiet| quiet.value.0);
    match effect.value {
        EffectChoice::Pure => Some(EffectClass::Pure),
        EffectChoice::Tx => Some(EffectClass::Tx),
        EffectChoice::Once => Some(EffectClass::Once),
        EffectChoice::Keyed => {
            if file.key_ttl.is_none() && !log.has_error_under(&format!("{}.key_ttl", place.path)) {
                let what = "it does not say how long the receiver keeps a key: after that a repetition acts again";
                log.error(&effect.place, what, "Add key_ttl = \"24h\", as its documentation says");
            }
            let verify = file.verify.as_ref().map(|_| quiet);
            Some(EffectClass::Keyed { key_ttl: file.key_ttl.as_ref()?.value.0, verify })
        }
        EffectChoice::Verify => {
            if file.verify.is_none() && !log.has_error_under(&format!("{}.verify", place.path)) {
                let what = "it does not say how the receiver is asked whether it happened";
                let remedy = "Add verify = { tool = \"find_it\", done = \"response.found\" }, or effect = \"once\"";
                log.error(&effect.place, what, remedy);
            }
            Some(EffectClass::Verify { quiet_period: quiet })
        }
    }
}

const fn effect_word(effect: EffectChoice) -> &'static str {
    match effect {
        EffectChoice::Pure => "pure",
        EffectChoice::Tx => "tx",
        EffectChoice::Keyed => "keyed",
        EffectChoice::Verify => "verify",
        EffectChoice::Once => "once",
    }
}

/// A setting of one class says nothing of another.
fn belong_to_class(file: &ToolFile, effect: EffectChoice, log: &mut Log) {
    use EffectChoice as E;
    let inert = |place: &Place, name: &str, to: &str, log: &mut Log| {
        let what = format!("it never takes effect: the effect is \"{}\"", effect_word(effect));
        log.error(place, what, format_args!("Remove `{name}`; it belongs to {to}"));
    };
    if let Some(ttl) = file.key_ttl.as_ref().filter(|_| effect != E::Keyed) {
        inert(&ttl.place, "key_ttl", "\"keyed\"", log);
    }
    let asks = matches!(effect, E::Verify | E::Keyed);
    if let Some(hook) = file.verify.as_ref().filter(|_| !asks) {
        inert(&hook.place, "verify", "\"verify\" and \"keyed\"", log);
    }
    match &file.quiet_period {
        Some(quiet) if !asks => inert(&quiet.place, "quiet_period", "\"verify\" and \"keyed\"", log),
        Some(quiet) if file.verify.is_none() && effect == E::Keyed => {
            log.error(&quiet.place, "it never takes effect: there is no `verify`", "Add `verify` or remove it");
        }
        Some(_) | None => {}
    }
}

/// A receiver that forgets a key before the last attempt acts twice.
fn keys_outlive_attempts(file: &ToolFile, class: &EffectClass, retry: &RetryBudget, timeout: Duration, log: &mut Log) {
    let (EffectClass::Keyed { key_ttl, .. }, Some(setting)) = (class, &file.key_ttl) else { return };
    let horizon = horizon(retry, timeout);
    if *key_ttl <= horizon {
        let what = format!(
            "the receiver forgets the key before the last attempt, which may end {} after the first begins",
            super::show_duration(horizon)
        );
        log.error(&setting.place, what, "Shorten `retry` (attempts, within, cap) or `timeout`");
    }
}

/// How long after its first attempt begins the last one may end.
pub(crate) fn horizon(retry: &RetryBudget, timeout: Duration) -> Duration {
    let waits = (1..retry.attempts.min(64)).map(|nth| retry.base.saturating_mul(1 << (nth - 1).min(30)).min(retry.cap));
    let more = retry.cap.saturating_mul(retry.attempts.saturating_sub(64));
    let waits = waits.fold(more, Duration::saturating_add);
    let tries = timeout.saturating_mul(retry.attempts);
    let all = waits.saturating_add(tries);
    retry.within.map_or(all, |within| all.min(within.saturating_add(timeout)))
}

/// A budget over another one.
pub(super) fn retry(At { value: file, place }: &At<RetryFile>, base: RetryBudget, log: &mut Log) -> RetryBudget {
    let cap = file.cap.as_ref().map(|cap| cap.value.0);
    let first = file.base.as_ref().map(|base| base.value.0);
    let budget = RetryBudget {
        attempts: file.attempts.as_ref().map_or(base.attempts, |attempts| attempts.value),
        within: file.within.as_ref().map(|within| within.value.0).or(base.within),
        cost_max: file.cost_max_usd.as_ref().map(|cost| Usd::from_dollars(cost.value)).or(base.cost_max),
        base: first.unwrap_or(base.base),
        cap: cap.unwrap_or(base.cap.max(first.unwrap_or_default())),
        exhausted: match file.exhausted.as_ref().map(|exhausted| exhausted.value) {
            None => base.exhausted,
            Some(ExhaustedChoice::Escalate) => Exhausted::Escalate,
            Some(ExhaustedChoice::Fail) => Exhausted::Fail,
        },
    };
    if let Some(cap) = file.cap.as_ref().filter(|cap| cap.value.0 < budget.base) {
        let what = format!("it is shorter than the first wait, {}", super::show_duration(budget.base));
        log.error(&cap.place, what, "Raise it or lower `base`");
    }
    if let Some(attempts) = file.attempts.as_ref().filter(|attempts| attempts.value > 1000) {
        log.error(&attempts.place, "more than 1000 attempts are no plan", "Use `within` to bound the time");
    }
    if let Some(cost) = file.cost_max_usd.as_ref().filter(|cost| cost.value == 0.0) {
        log.error(&cost.place, "nothing could be tried for nothing", "Write a positive amount, or remove it");
    }
    let waits = [
        ("within", file.within.as_ref().map(|at| &at.place)),
        ("base", file.base.as_ref().map(|at| &at.place)),
        ("cap", file.cap.as_ref().map(|at| &at.place)),
    ];
    for (name, setting) in waits.into_iter().filter(|_| budget.attempts == 1) {
        if let Some(setting) = setting {
            let remedy = format!("Remove `{name}`, or raise `attempts`");
            log.error(setting, "it never takes effect: there is one attempt", remedy);
        }
    }
    if budget == base && !log.has_error_under(&place.path) {
        log.error(place, "it changes nothing", "Remove it");
    }
    budget
}

fn approval(file: Option<&At<ApprovalSetting>>, log: &mut Log) -> (ApprovalPolicy, Option<Arc<Expression>>) {
    let Some(At { value, place }) = file else { return (ApprovalPolicy::Never, None) };
    let table = match value {
        ApprovalSetting::Word(ApprovalChoice::Never) => return (ApprovalPolicy::Never, None),
        ApprovalSetting::Word(ApprovalChoice::Always) => return (ApprovalPolicy::Always, None),
        ApprovalSetting::Table(table) => table,
    };
    let Some(when) = wanted(&table.when, "when", "Add when = \"arguments.amount > 100\"", place, log) else {
        return (ApprovalPolicy::Always, None);
    };
    let compiled = expression(when, &["arguments"], log);
    (ApprovalPolicy::When(when.value.trim().into()), compiled.map(Arc::new))
}

/// Compiles an expression whose facts are known.
pub(super) fn expression(setting: &At<String>, facts: &[&str], log: &mut Log) -> Option<Expression> {
    match Expression::compile(&setting.value) {
        Ok(expression) => {
            only_facts(expression.names(), facts, &setting.place, log);
            Some(expression)
        }
        Err(why) => {
            log.error(&setting.place, format_args!("it is no usable expression: {why}"), "Correct it");
            None
        }
    }
}

/// Reads and compiles a schema of documents.
pub(super) fn schema(
    setting: Option<&At<JsonSetting>>,
    around: Around<'_>,
    log: &mut Log,
) -> Option<(Arc<Schema>, Arc<DocumentSchema>)> {
    let setting = setting?;
    let schema = schemas::read(setting, around, log)?;
    match DocumentSchema::compile(&schema.json) {
        Ok(compiled) => Some((schema, Arc::new(compiled))),
        Err(why) => {
            let remedy = "Correct the schema; https://json-schema.org has its rules";
            log.error(&setting.place, format_args!("it cannot be used: {why}"), remedy);
            None
        }
    }
}

/// How a tool is reached, and where.
fn reached(
    name: &str,
    kind: &At<ToolKindChoice>,
    file: &ToolFile,
    place: &Place,
    servers: &[&String],
    around: Around<'_>,
    log: &mut Log,
) -> Option<(ToolKind, Option<Endpoint>)> {
    belong_to_kind(file, kind.value, log);
    match kind.value {
        ToolKindChoice::Http => {
            let key_header = key_header(file, log);
            let method = file.method.as_ref().map_or(HttpMethod::Post, |method| http_method(method.value));
            let asks_twice = file.effect.as_ref().filter(|effect| effect.value != EffectChoice::Pure);
            if let (Some(method), Some(_)) = (file.method.as_ref().filter(|m| m.value == MethodChoice::Get), asks_twice)
            {
                log.warn(&method.place, "whatever is between here and there may repeat a GET, and it has an effect");
            }
            let url = wanted(&file.url, "url", "Add url = \"https://shop.example.com/refunds\"", place, log);
            let url = url.and_then(|setting| endpoint(setting, around, log));
            let headers = headers(file.headers.as_ref(), &OURS, OURS_REMEDY, around.env, log);
            let http = Endpoint { url: url?, headers: headers? };
            Some((ToolKind::Http { method, key_header: key_header? }, Some(http)))
        }
        ToolKindChoice::Mcp => {
            let server = wanted(&file.server, "server", "Add server = \"...\", of [mcp.NAME]", place, log)?;
            if !servers.iter().any(|known| **known == server.value) {
                let remedy = suggest(&server.value, servers.iter().copied(), "mcp");
                log.error(&server.place, format_args!("there is no MCP server \"{}\"", server.value), remedy);
            }
            let tool = file.tool.as_ref().map_or(name, |tool| tool.value.as_str());
            Some((ToolKind::Mcp { server: server.value.as_str().into(), tool: tool.into() }, None))
        }
        ToolKindChoice::Worker => {
            let queue = wanted(&file.queue, "queue", "Add queue = \"tools\", which a worker serves", place, log)?;
            if queue.value.starts_with(Workflow::QUEUE_PREFIX) {
                let what = format!("queues that begin with \"{}\" are the server's own", Workflow::QUEUE_PREFIX);
                log.error(&queue.place, what, "Name another");
            }
            Some((ToolKind::Worker { queue: queue.value.as_str().into() }, None))
        }
    }
}

/// A setting of one kind says nothing of another.
fn belong_to_kind(file: &ToolFile, kind: ToolKindChoice, log: &mut Log) {
    use ToolKindChoice as K;
    let word = |kind: K| match kind {
        K::Http => "http",
        K::Mcp => "mcp",
        K::Worker => "worker",
    };
    let settings: [(&str, Option<&Place>, K); 7] = [
        ("url", file.url.as_ref().map(|at| &at.place), K::Http),
        ("method", file.method.as_ref().map(|at| &at.place), K::Http),
        ("headers", file.headers.as_ref().map(|at| &at.place), K::Http),
        ("key_header", file.key_header.as_ref().map(|at| &at.place), K::Http),
        ("server", file.server.as_ref().map(|at| &at.place), K::Mcp),
        ("tool", file.tool.as_ref().map(|at| &at.place), K::Mcp),
        ("queue", file.queue.as_ref().map(|at| &at.place), K::Worker),
    ];
    for (name, place, of) in settings.into_iter().filter(|(_, _, of)| *of != kind) {
        if let Some(place) = place {
            let what = format!("it never takes effect: the kind is \"{}\"", word(kind));
            log.error(place, what, format_args!("Remove `{name}`; it belongs to \"{}\"", word(of)));
        }
    }
}

pub(super) const fn http_method(method: MethodChoice) -> HttpMethod {
    match method {
        MethodChoice::Get => HttpMethod::Get,
        MethodChoice::Post => HttpMethod::Post,
        MethodChoice::Put => HttpMethod::Put,
        MethodChoice::Patch => HttpMethod::Patch,
        MethodChoice::Delete => HttpMethod::Delete,
    }
}

fn key_header(file: &ToolFile, log: &mut Log) -> Option<Arc<str>> {
    let Some(setting) = &file.key_header else { return Some(KEY_HEADER.into()) };
    match HeaderName::from_bytes(setting.value.as_bytes()) {
        Ok(name) if !OURS.contains(&name.as_str()) || name.as_str() == KEY_HEADER => Some(name.as_str().into()),
        Ok(name) => {
            log.error(&setting.place, format_args!("Outlast sets `{name}` itself"), "Name another header");
            None
        }
        Err(_) => {
            let what = format!("\"{}\" is not a header's name", setting.value);
            log.error(&setting.place, what, "Use letters, digits and `-`");
            None
        }
    }
}

/// An address of the operator's own.
pub(super) fn endpoint(setting: &At<String>, around: Around<'_>, log: &mut Log) -> Option<Uri> {
    let text = expand(setting, around.env, log)?.text;
    match url::endpoint(&text) {
        Ok(url) => {
            if url.scheme_str() == Some("http") && !url::is_this_machine(&url) {
                log.warn(&setting.place, "what is sent there travels in clear text: it is http and not this machine");
            }
            Some(url)
        }
        Err(why) => {
            log.error(&setting.place, why, "Write one like \"https://shop.example.com/refunds\"");
            None
        }
    }
}

/// The headers of an address that is asked by a hook or an MCP client.
pub(super) fn own_headers(
    file: Option<&At<Named<String>>>,
    around: Around<'_>,
    log: &mut Log,
) -> Option<Vec<(HeaderName, http::HeaderValue)>> {
    headers(file, &OURS, "Remove it", around.env, log)
}

/// What stands in for a tool must not do less, ask less or want other arguments than it does.
fn alternatives_fit(
    name: &str,
    At { value: file, place: _ }: &At<ToolFile>,
    all: Option<&At<Named<ToolFile>>>,
    tools: &BTreeMap<ToolName, Arc<Tool>>,
    log: &mut Log,
) {
    let Some(list) = &file.alternatives else { return };
    if list.value.is_empty() && !log.has_error_under(&list.place.path) {
        log.error(&list.place, "the list is empty", "Name a tool, or remove it");
    }
    let mut seen: Vec<&str> = Vec::new();
    for At { value: other, place } in &list.value {
        if other == name {
            log.error(place, "it is no alternative to itself", "Remove it; `retry` says how often it is tried");
        } else if seen.contains(&other.as_str()) {
            log.error(place, "it is there twice", "Remove one of the two");
        } else {
            known_tool(other, place, all, log);
            if let (Some(tool), Some(stand_in)) = (tools.get(name), tools.get(other.as_str())) {
                fits(tool, stand_in, place, log);
            }
        }
        seen.push(other);
    }
}

fn fits(tool: &Tool, stand_in: &Tool, place: &Place, log: &mut Log) {
    let (first, second) = (&tool.spec, &stand_in.spec);
    if first.class.name() != second.class.name() {
        let what = format!("its effect is \"{}\", and that of `{}` is not", first.class.name(), second.name);
        log.error(place, what, "An alternative has the same class: what one key promises has to hold for both");
    }
    if first.approval != second.approval {
        let what = format!("`{}` asks a person under other conditions", second.name);
        log.error(place, what, "Give both the same `approval`: failing must not be a way round it");
    }
    for (which, one, other) in [("input", &first.input, &second.input), ("output", &first.output, &second.output)] {
        let json = |schema: &Option<Arc<Schema>>| {
            schema.as_ref().and_then(|schema| serde_json::from_str::<serde_json::Value>(&schema.json).ok())
        };
        let narrower = other.is_some() && json(one) != json(other);
        if narrower {
            let what = format!("`{}` has another {which} schema, so what one takes the other may refuse", second.name);
            log.error(place, what, "Give both the same schema");
        }
    }
}

/// Tells of a tool that is not there, unless it could not be judged.
pub(super) fn known_tool(name: &str, place: &Place, all: Option<&At<Named<ToolFile>>>, log: &mut Log) -> bool {
    let written = all.map(|all| &all.value);
    let known = written.is_some_and(|all| all.contains_key(name));
    if !known {
        let names = written.into_iter().flat_map(|all| all.keys());
        let remedy = match did_you_mean(name, names.clone().map(String::as_str)) {
            Some(near) => format!("Did you mean \"{near}\"?"),
            None => format!("Add [tools.{name}]"),
        };
        log.error(place, format_args!("there is no tool \"{name}\""), remedy);
    }
    known
}

/// A span, if it is there.
pub(super) fn span(setting: &Option<At<Span>>) -> Option<Duration> {
    setting.as_ref().map(|span| span.value.0)
}
