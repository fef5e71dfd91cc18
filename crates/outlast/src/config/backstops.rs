//! Judges backstops: the deterministic ends of routes.

use super::{
    SecretKey,
    contracts::{Around, only_facts},
    promises::{BackstopFile, RuleFile, WebhookFile},
    read::{At, Log, Named, Place},
    secrets::expand,
    url,
    words::BackstopChoice,
};
use outlast_model::{
    RouteId,
    policy::{Backstop, BackstopKind, Rule, Webhook},
};
use outlast_wire::template::{Expression, Template};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// A queued request is answered within a day, or says that it was not.
const QUEUE_EXPIRES: Duration = Duration::from_secs(24 * 3600);
/// A person answers a question within minutes, or has gone.
const CONFIRM_EXPIRES: Duration = Duration::from_secs(15 * 60);
/// An older reply is no longer the last good one.
const CACHE_MAX_AGE: Duration = Duration::from_secs(3600);
/// What templates and rules may look at: the request's body, its last user turn, the route's name.
const FACTS: [&str; 3] = ["request", "text", "route"];
/// What a person is asked where the config has no words of its own.
const ESCALATE_QUESTION: &str = "No path could answer this request within its contract. How should it go on?";

/// Every backstop a route may name, and what signs their webhooks.
#[derive(Default)]
pub(super) struct Backstops {
    pub(super) all: BTreeMap<String, Arc<Backstop>>,
    pub(super) webhook_secrets: BTreeMap<Arc<str>, SecretKey>,
}

/// The built-in ones, and the file's over them.
pub(super) fn judge(file: Option<&At<Named<BackstopFile>>>, around: Around<'_>, log: &mut Log) -> Backstops {
    let mut backstops = Backstops::default();
    for kind in [
        BackstopKind::Fail { next: None },
        BackstopKind::Queue { expires: QUEUE_EXPIRES, webhook: None },
        BackstopKind::Cache { max_age: CACHE_MAX_AGE },
        BackstopKind::Escalate { question: ESCALATE_QUESTION.into() },
    ] {
        let name = kind.name().as_str();
        backstops.all.insert(name.to_owned(), Arc::new(Backstop { name: name.into(), kind }));
    }
    for (name, written) in file.iter().flat_map(|all| &all.value) {
        judge_name(name, written, log);
        if let Some(kind) = judge_kind(name, written, around, &mut backstops.webhook_secrets, log) {
            backstops.all.insert(name.clone(), Arc::new(Backstop { name: name.as_str().into(), kind }));
        }
    }
    backstops
}

fn judge_name(name: &str, At { value: file, place }: &At<BackstopFile>, log: &mut Log) {
    if name.is_empty() || name.len() > 64 || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        log.error(place, "a backstop's name has 1 to 64 characters and no spaces: records name it", "Rename it");
    }
    let kind = file.kind.as_ref().map(|kind| word(kind.value));
    if let Some(kind) = kind.filter(|kind| *kind != name && CHOICES.iter().any(|choice| word(*choice) == name)) {
        let what = format!("it is called \"{name}\" and does something else: its kind is {kind}");
        log.error(place, what, format_args!("Rename it, or write kind = \"{name}\""));
    }
}

const CHOICES: [BackstopChoice; 7] = [
    BackstopChoice::Static,
    BackstopChoice::Rules,
    BackstopChoice::Cache,
    BackstopChoice::Queue,
    BackstopChoice::Confirm,
    BackstopChoice::Escalate,
    BackstopChoice::Fail,
];

const fn word(kind: BackstopChoice) -> &'static str {
    match kind {
        BackstopChoice::Static => "static",
        BackstopChoice::Rules => "rules",
        BackstopChoice::Cache => "cache",
        BackstopChoice::Queue => "queue",
        BackstopChoice::Confirm => "confirm",
        BackstopChoice::Escalate => "escalate",
        BackstopChoice::Fail => "fail",
    }
}

fn judge_kind(
    name: &str,
    At { value: file, place }: &At<BackstopFile>,
    around: Around<'_>,
    secrets: &mut BTreeMap<Arc<str>, SecretKey>,
    log: &mut Log,
) -> Option<BackstopKind> {
    let Some(kind) = &file.kind else {
        if !log.has_error_under(&place.path) {
            let known = CHOICES.map(|kind| format!("\"{}\"", word(kind))).join(", ");
            log.error(place, "it has no `kind`", format_args!("Add kind = one of {known}"));
        }
        return None;
    };
    belong(file, kind.value, log);
    let expires = |default| file.expires.as_ref().map_or(default, |expires| expires.value.0);
    match kind.value {
        BackstopChoice::Static => {
            let reply = wanted(&file.reply, "reply", "Add reply = \"...\"", place, log)?;
            template(reply, log)?;
            Some(BackstopKind::Static { reply: reply.value.as_str().into() })
        }
        BackstopChoice::Rules => rules(file.rules.as_ref(), place, log).map(BackstopKind::Rules),
        BackstopChoice::Cache => {
            let max_age = file.max_age.as_ref().map_or(CACHE_MAX_AGE, |age| age.value.0);
            Some(BackstopKind::Cache { max_age })
        }
        BackstopChoice::Queue => {
            let webhook = match &file.webhook {
                Some(webhook) => Some(judge_webhook(name, webhook, around, secrets, log)?),
                None => None,
            };
            Some(BackstopKind::Queue { expires: expires(QUEUE_EXPIRES), webhook })
        }
        BackstopChoice::Confirm => {
            let remedy = "Add question = \"This needs a slower way. Go on?\"";
            let question = wanted(&file.question, "question", remedy, place, log);
            let route =
                wanted(&file.route, "route", "Add route = \"...\", the one that answers after a yes", place, log);
            template(question?, log)?;
            Some(BackstopKind::Confirm {
                question: question?.value.as_str().into(),
                route: RouteId::from(route?.value.as_str()),
                expires: expires(CONFIRM_EXPIRES),
            })
        }
        BackstopChoice::Escalate => {
            if let Some(question) = &file.question {
                template(question, log)?;
            }
            let question = file.question.as_ref().map_or(ESCALATE_QUESTION, |question| &question.value);
            Some(BackstopKind::Escalate { question: question.into() })
        }
        BackstopChoice::Fail => {
            if let Some(next) = &file.next {
                template(next, log)?;
            }
            Some(BackstopKind::Fail { next: file.next.as_ref().map(|next| next.value.as_str().into()) })
        }
    }
}

/// A setting that has to be there.
pub(super) fn wanted<'f, T>(
    setting: &'f Option<At<T>>,
    name: &str,
    remedy: &str,
    place: &Place,
    log: &mut Log,
) -> Option<&'f At<T>> {
    if setting.is_none() && !log.has_error_under(&format!("{}.{name}", place.path)) {
        log.error(place, format_args!("it has no `{name}`"), remedy);
    }
    setting.as_ref()
}

/// A setting of one kind says nothing of another.
fn belong(file: &BackstopFile, kind: BackstopChoice, log: &mut Log) {
    use BackstopChoice as K;
    let settings: [(&str, Option<&Place>, &[K]); 8] = [
        ("reply", file.reply.as_ref().map(|at| &at.place), &[K::Static]),
        ("rules", file.rules.as_ref().map(|at| &at.place), &[K::Rules]),
        ("max_age", file.max_age.as_ref().map(|at| &at.place), &[K::Cache]),
        ("expires", file.expires.as_ref().map(|at| &at.place), &[K::Queue, K::Confirm]),
        ("webhook", file.webhook.as_ref().map(|at| &at.place), &[K::Queue]),
        ("question", file.question.as_ref().map(|at| &at.place), &[K::Confirm, K::Escalate]),
        ("route", file.route.as_ref().map(|at| &at.place), &[K::Confirm]),
        ("next", file.next.as_ref().map(|at| &at.place), &[K::Fail]),
    ];
    for (name, place, kinds) in settings.into_iter().filter(|(_, _, kinds)| !kinds.contains(&kind)) {
        if let Some(place) = place {
            let kinds = kinds.iter().map(|kind| format!("\"{}\"", word(*kind))).collect::<Vec<_>>().join(" or ");
            let what = format!("it never takes effect: the kind is \"{}\"", word(kind));
            log.error(place, what, format_args!("Remove `{name}`; it belongs to {kinds}"));
        }
    }
}

/// A template that does not parse, or asks for what nobody fills in, would fail on the day it is needed.
fn template(setting: &At<String>, log: &mut Log) -> Option<()> {
    match Template::compile(&setting.value) {
        Ok(template) => {
            only_facts(template.names(), &FACTS, &setting.place, log);
            Some(())
        }
        Err(why) => {
            log.error(&setting.place, format_args!("it is no usable template: {why}"), "Correct it");
            None
        }
    }
}

fn rules(file: Option<&At<Vec<At<RuleFile>>>>, place: &Place, log: &mut Log) -> Option<Vec<Rule>> {
    let list = match file {
        Some(list) if !list.value.is_empty() => list,
        Some(_) | None => {
            if !log.has_error_under(&place.path) {
                log.error(place, "it has no rule", "Add rules = [{ when = \"'refund' in text\", reply = \"...\" }]");
            }
            return None;
        }
    };
    let mut rules = Vec::new();
    let mut always: Option<&Place> = None;
    for At { value: file, place } in &list.value {
        if let Some(earlier) = always {
            let what = format!("it is never tried: {} is always true", earlier.path);
            log.error(place, what, "Move it before that one, or remove it");
        }
        let when = wanted(&file.when, "when", "Add when = \"'refund' in text\"", place, log);
        let reply = wanted(&file.reply, "reply", "Add reply = \"...\"", place, log);
        let (Some(when), Some(reply)) = (when, reply) else { continue };
        match Expression::compile(&when.value) {
            Ok(expression) => {
                only_facts(expression.names(), &FACTS, &when.place, log);
                if when.value.trim() == "true" {
                    always = Some(place);
                }
            }
            Err(why) => log.error(&when.place, format_args!("it is no usable expression: {why}"), "Correct it"),
        }
        if template(reply, log).is_some() {
            rules.push(Rule { when: when.value.as_str().into(), reply: reply.value.as_str().into() });
        }
    }
    Some(rules)
}

fn judge_webhook(
    backstop: &str,
    At { value: file, place }: &At<WebhookFile>,
    around: Around<'_>,
    secrets: &mut BTreeMap<Arc<str>, SecretKey>,
    log: &mut Log,
) -> Option<Webhook> {
    let url = wanted(&file.url, "url", "Add url = \"https://example.com/outlast\"", place, log);
    let secret =
        wanted(&file.secret, "secret", "Add secret = \"${QUEUE_WEBHOOK_SECRET}\": it signs the POST", place, log);
    let url = url.and_then(|setting| {
        let text = expand(setting, around.env, log)?.text;
        match url::endpoint(&text) {
            Ok(url) => Some(url),
            Err(why) => {
                log.error(&setting.place, why, "Write one like \"https://example.com/outlast\"");
                None
            }
        }
    });
    let secret = secret.and_then(|setting| expand(setting, around.env, log));
    secrets.insert(backstop.into(), SecretKey::new(secret?.text));
    Some(Webhook { url: url?.to_string().into() })
}
