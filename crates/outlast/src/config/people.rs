//! `[reviewers.*]`, `[notify.*]`, `[escalations]`: who decides, who is told, and what happens when nobody does.

use super::{
    Escalations, Level, Notify, NotifyKind, Reviewer, SecretKey, Smtp, SmtpTls, Unanswered,
    backstops::wanted,
    contracts::Around,
    file::File,
    read::{At, Log, Named, Place},
    routes::suggest,
    secrets::{expand, key_hash},
    tools,
    work_file::{EscalationsFile, LevelFile, NotifyFile, ReviewerFile},
    work_words::{NotifyChoice, UnansweredChoice},
};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

/// The most levels: each is a group of people.
const LEVELS_MAX: usize = 8;
/// More often is no reminder.
const REMIND_MIN: Duration = Duration::from_secs(60);

/// Who may decide.
pub(super) fn reviewers(
    file: Option<&At<Named<ReviewerFile>>>,
    around: Around<'_>,
    log: &mut Log,
) -> BTreeMap<Arc<str>, Reviewer> {
    let mut reviewers: BTreeMap<Arc<str>, Reviewer> = BTreeMap::new();
    for (name, At { value: file, place }) in file.iter().flat_map(|all| &all.value) {
        named("reviewer", name, place, log);
        let key = wanted(&file.key, "key", "Add key = \"${ANNA_KEY}\"", place, log);
        let key = key.and_then(|key| Some((key, key_hash(key, around.env, log)?)));
        let email = file.email.as_ref().and_then(|email| address(email, log));
        let Some((setting, key)) = key else { continue };
        if let Some(other) = reviewers.values().find(|other| other.key == key) {
            let what = format!("{} has the same key, so nobody could say who decided", other.name);
            log.error(&setting.place, what, "Give each reviewer a key of their own");
        }
        let name: Arc<str> = name.as_str().into();
        reviewers.insert(Arc::clone(&name), Reviewer { name, key, email });
    }
    reviewers
}

/// A reviewer who decides with the key of a caller could be any of its callers.
pub(super) fn keys_differ(file: &File, around: Around<'_>, log: &mut Log) {
    let callers = file.server.iter().flat_map(|server| server.value.keys.iter()).flat_map(|keys| &keys.value);
    // What is wrong with a key has been told where it was read first.
    let mut aside = Log::new("", "");
    let callers: Vec<_> = callers.filter_map(|key| key_hash(key, around.env, &mut aside)).collect();
    for At { value: reviewer, .. } in file.reviewers.iter().flat_map(|all| all.value.values()) {
        let Some(setting) = &reviewer.key else { continue };
        if key_hash(setting, around.env, &mut aside).is_some_and(|key| callers.contains(&key)) {
            let what = "it is a caller's key as well: whoever asks could decide";
            log.error(&setting.place, what, "Give the reviewer a key of their own");
        }
    }
}

fn named(noun: &str, name: &str, place: &Place, log: &mut Log) {
    if name.is_empty() || name.len() > 64 || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        let what = format!("a {noun}'s name has 1 to 64 characters and no spaces: records name it");
        log.error(place, what, "Rename it");
    }
}

/// An address for mail: what could end or add a header line is not one.
fn address(setting: &At<String>, log: &mut Log) -> Option<Arc<str>> {
    let text = setting.value.trim();
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !"<>,;:\"()[]\\".contains(c);
    let fits = text.len() <= 254
        && text.split_once('@').is_some_and(|(local, domain)| {
            let label = |label: &str| {
                !label.is_empty() && label.chars().all(|c| c.is_alphanumeric() || c == '-') && !label.starts_with('-')
            };
            !local.is_empty() && local.len() <= 64 && local.chars().all(plain) && domain.split('.').all(label)
        });
    if !fits {
        let what = format!("{:?} is not an address for mail", setting.value);
        log.error(&setting.place, what, "Write one like \"anna@example.com\"");
    }
    fits.then(|| text.into())
}

/// The ways to tell somebody.
pub(super) fn notify(
    file: Option<&At<Named<NotifyFile>>>,
    around: Around<'_>,
    log: &mut Log,
) -> BTreeMap<Arc<str>, Arc<Notify>> {
    let mut all = BTreeMap::new();
    for (name, At { value: file, place }) in file.iter().flat_map(|all| &all.value) {
        named("notice", name, place, log);
        let remedy = "Add kind = \"webhook\", \"slack\" or \"email\"";
        let Some(kind) = wanted(&file.kind, "kind", remedy, place, log) else { continue };
        belong(file, kind.value, log);
        if let Some(kind) = notify_kind(kind.value, file, place, around, log) {
            let name: Arc<str> = name.as_str().into();
            all.insert(Arc::clone(&name), Arc::new(Notify { name, kind }));
        }
    }
    all
}

const fn word(kind: NotifyChoice) -> &'static str {
    match kind {
        NotifyChoice::Webhook => "webhook",
        NotifyChoice::Slack => "slack",
        NotifyChoice::Email => "email",
    }
}

fn belong(file: &NotifyFile, kind: NotifyChoice, log: &mut Log) {
    use NotifyChoice as K;
    let settings: [(&str, Option<&Place>, &[K]); 5] = [
        ("url", file.url.as_ref().map(|at| &at.place), &[K::Webhook, K::Slack]),
        ("secret", file.secret.as_ref().map(|at| &at.place), &[K::Webhook]),
        ("smtp", file.smtp.as_ref().map(|at| &at.place), &[K::Email]),
        ("from", file.from.as_ref().map(|at| &at.place), &[K::Email]),
        ("to", file.to.as_ref().map(|at| &at.place), &[K::Email]),
    ];
    for (name, place, kinds) in settings.into_iter().filter(|(_, _, kinds)| !kinds.contains(&kind)) {
        if let Some(place) = place {
            let kinds = kinds.iter().map(|kind| format!("\"{}\"", word(*kind))).collect::<Vec<_>>().join(" and ");
            let what = format!("it never takes effect: the kind is \"{}\"", word(kind));
            log.error(place, what, format_args!("Remove `{name}`; it belongs to {kinds}"));
        }
    }
}

fn notify_kind(
    kind: NotifyChoice,
    file: &NotifyFile,
    place: &Place,
    around: Around<'_>,
    log: &mut Log,
) -> Option<NotifyKind> {
    match kind {
        NotifyChoice::Webhook => {
            let url = wanted(&file.url, "url", "Add url = \"https://example.com/outlast\"", place, log);
            let url = url.and_then(|url| tools::endpoint(url, around, log));
            let remedy = "Add secret = \"${NOTIFY_SECRET}\": it signs the POST";
            let secret = wanted(&file.secret, "secret", remedy, place, log);
            let secret = secret.and_then(|secret| secret_of(secret, around, log));
            Some(NotifyKind::Webhook { url: url?, secret: SecretKey::new(secret?) })
        }
        NotifyChoice::Slack => {
            let url = wanted(&file.url, "url", "Add url = \"${SLACK_WEBHOOK}\"", place, log)?;
            secret_of(url, around, log)?;
            Some(NotifyKind::Slack { url: tools::endpoint(url, around, log)? })
        }
        NotifyChoice::Email => {
            let remedy = "Add smtp = \"smtps://user:${SMTP_PASSWORD}@smtp.example.com:465\"";
            let server = wanted(&file.smtp, "smtp", remedy, place, log).and_then(|smtp| self::smtp(smtp, around, log));
            let from = wanted(&file.from, "from", "Add from = \"outlast@example.com\"", place, log);
            let from = from.and_then(|from| address(from, log));
            let to = file.to.iter().flat_map(|list| &list.value);
            let to: Vec<Arc<str>> = to.filter_map(|to| address(to, log)).collect();
            if let Some(list) = file.to.as_ref().filter(|list| list.value.is_empty()) {
                log.error(&list.place, "the list is empty", "Add an address");
            }
            Some(NotifyKind::Email { smtp: server?, from: from?, to })
        }
    }
}

/// A secret stands in the environment and not in the file.
fn secret_of(setting: &At<String>, around: Around<'_>, log: &mut Log) -> Option<String> {
    let expanded = expand(setting, around.env, log)?;
    if !expanded.from_env {
        log.error(&setting.place, "a secret does not belong in the file", "Write ${NAME} and set that variable");
        return None;
    }
    Some(expanded.text)
}

/// `smtps://user:password@host:465`. The password stands as it is: the last `@` ends it.
fn smtp(setting: &At<String>, around: Around<'_>, log: &mut Log) -> Option<Smtp> {
    let expanded = expand(setting, around.env, log)?;
    let mut bad = |why: &str| {
        let remedy = "Write one like \"smtps://user:${SMTP_PASSWORD}@smtp.example.com:465\"";
        log.error(&setting.place, format_args!("it is no address of a mail server: {why}"), remedy);
        None
    };
    let (implicit, rest) = match (expanded.text.strip_prefix("smtps://"), expanded.text.strip_prefix("smtp://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return bad("it begins with neither smtps:// nor smtp://"),
    };
    let (login, host) = match rest.rsplit_once('@') {
        Some((login, host)) => match login.split_once(':') {
            Some((user, password)) if !user.is_empty() && !password.is_empty() => (Some((user, password)), host),
            Some(_) | None => return bad("before the @ there is no user:password"),
        },
        None => (None, rest),
    };
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => match port.parse::<u16>() {
            Ok(port) if port > 0 => (host, Some(port)),
            Ok(_) | Err(_) => return bad("its port is not a number from 1 to 65535"),
        },
        Some(_) | None => (host, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let named = host.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.');
    if host.is_empty() || (!named && host.parse::<IpAddr>().is_err()) {
        return bad("it has no usable host");
    }
    let here = host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if login.is_some() && !expanded.from_env {
        log.error(&setting.place, "a password does not belong in the file", "Write ${NAME} and set that variable");
        return None;
    }
    let tls = match (implicit, here) {
        (true, _) => SmtpTls::Implicit,
        (false, true) => SmtpTls::None,
        (false, false) => SmtpTls::StartTls,
    };
    Some(Smtp {
        host: host.into(),
        port: port.unwrap_or(if implicit { 465 } else { 587 }),
        tls,
        login: login.map(|(user, password)| (Arc::from(user), SecretKey::new(password))),
    })
}

/// What happens to work that waits. Every notice has to be reached by a level.
pub(super) fn escalations(file: &File, log: &mut Log) -> Escalations {
    let levels_of = file.escalations.iter().flat_map(|all| &all.value.levels).flat_map(|levels| &levels.value);
    for (name, notice) in file.notify.iter().flat_map(|all| &all.value) {
        let told = |level: &At<LevelFile>| {
            level.value.notify.iter().flat_map(|list| &list.value).any(|told| told.value == *name)
        };
        let mail = notice.value.kind.as_ref().is_some_and(|kind| kind.value == NotifyChoice::Email);
        let writes = levels_of.clone().any(|level| mail && level.value.reviewers.is_some());
        if !levels_of.clone().any(told) && !writes && !log.has_error_under("escalations") {
            let what = "it never takes effect: no level of [escalations] tells it anything";
            let remedy = format!("Add levels = [{{ notify = [\"{name}\"] }}] to [escalations], or remove it");
            log.error(&notice.place, what, remedy);
        }
    }
    let Some(At { value: section, .. }) = &file.escalations else { return Escalations::default() };
    let mut judged = Escalations {
        answer_within: tools::span(&section.answer_within),
        remind_every: tools::span(&section.remind_every),
        levels: Vec::new(),
        unanswered: match section.unanswered.as_ref().map(|unanswered| unanswered.value) {
            None | Some(UnansweredChoice::Wait) => Unanswered::Wait,
            Some(UnansweredChoice::Deny) => Unanswered::Deny,
        },
    };
    for level in section.levels.iter().flat_map(|levels| &levels.value) {
        let level = judge_level(level, judged.levels.last(), file, log);
        judged.levels.push(level);
    }
    inert(section, log);
    judged
}

fn inert(section: &EscalationsFile, log: &mut Log) {
    if let Some(levels) = &section.levels {
        if levels.value.is_empty() && !log.has_error_under(&levels.place.path) {
            log.error(&levels.place, "the list is empty, so nobody is told", "Add a level, or remove it");
        }
        if let Some(beyond) = levels.value.get(LEVELS_MAX) {
            log.error(&beyond.place, format_args!("there are at most {LEVELS_MAX} levels"), "Join some of them");
        }
    }
    let silent = section.levels.as_ref().is_none_or(|levels| levels.value.is_empty());
    if let Some(remind) = &section.remind_every {
        if silent {
            let what = "it never takes effect: without `levels` nobody is told";
            log.error(&remind.place, what, "Add levels = [{ notify = [\"...\"] }], or remove it");
        } else if remind.value.0 < REMIND_MIN {
            log.error(&remind.place, "more often than every minute is no reminder", "Write \"1m\" or more");
        }
    }
    let denies = section.unanswered.as_ref().filter(|unanswered| unanswered.value == UnansweredChoice::Deny);
    match (&section.answer_within, denies) {
        (None, Some(deny)) => {
            let what = "it never takes effect: there is no `answer_within`";
            log.error(&deny.place, what, "Add answer_within = \"4h\", or remove it");
        }
        (Some(within), Some(_)) => {
            let late = |level: &&At<LevelFile>| {
                level.value.after.as_ref().is_some_and(|after| after.value.0 >= within.value.0)
            };
            for level in section.levels.iter().flat_map(|levels| &levels.value).filter(late) {
                let shown = super::show_duration(within.value.0);
                let what = format!("for approvals it is never reached: they are denied after {shown}");
                log.warn(&level.place, what);
            }
        }
        (None | Some(_), None) => {}
    }
}

fn judge_level(At { value: file, place }: &At<LevelFile>, before: Option<&Level>, all: &File, log: &mut Log) -> Level {
    let after = tools::span(&file.after);
    match (before, &file.after) {
        (Some(_), None) if !log.has_error_under(&place.path) => {
            log.error(place, "it does not say when it is reached", "Add after = \"4h\"");
        }
        (Some(before), Some(after)) if after.value.0 <= before.after => {
            let what = format!("the level before it is reached after {}", super::show_duration(before.after));
            log.error(&after.place, what, "Levels stand in the order of `after`");
        }
        (None | Some(_), None | Some(_)) => {}
    }
    let names = |list: &Option<At<Vec<At<String>>>>| -> Vec<Arc<str>> {
        list.iter().flat_map(|list| &list.value).map(|name| name.value.as_str().into()).collect()
    };
    for to in file.notify.iter().flat_map(|list| &list.value) {
        let known = all.notify.iter().flat_map(|notices| notices.value.keys());
        if !known.clone().any(|known| *known == to.value) {
            let what = format!("there is no notice \"{}\"", to.value);
            log.error(&to.place, what, suggest(&to.value, known, "notify"));
        }
        let notice = all.notify.as_ref().and_then(|notices| notices.value.get(&to.value));
        let mail =
            |notice: &&At<NotifyFile>| notice.value.kind.as_ref().is_some_and(|kind| kind.value == NotifyChoice::Email);
        if let Some(notice) = notice.filter(mail).filter(|notice| notice.value.to.is_none())
            && !log.has_error_under(&notice.place.path)
        {
            log.error(&notice.place, "it has no `to`", "Add to = [\"oncall@example.com\"]");
        }
    }
    reviewers_reached(file, all, log);
    if file.notify.is_none() && file.reviewers.is_none() && !log.has_error_under(&place.path) {
        log.error(place, "it tells nobody", "Add notify = [\"...\"] or reviewers = [\"...\"]");
    }
    Level { after: after.unwrap_or_default(), notify: names(&file.notify), reviewers: names(&file.reviewers) }
}

/// Reviewers are written to by mail, so there must be a way to send one, and an address.
fn reviewers_reached(file: &LevelFile, all: &File, log: &mut Log) {
    let Some(list) = &file.reviewers else { return };
    let mut notices = all.notify.iter().flat_map(|notices| notices.value.values());
    let mail =
        |notice: &At<NotifyFile>| notice.value.kind.as_ref().is_some_and(|kind| kind.value == NotifyChoice::Email);
    if !notices.any(mail) {
        let what = "reviewers are written to by mail, and no notice is of kind \"email\"";
        log.error(&list.place, what, "Add [notify.mail] with kind = \"email\", or tell them through `notify`");
    }
    for to in &list.value {
        let known = all.reviewers.iter().flat_map(|reviewers| reviewers.value.keys());
        let reviewer = all.reviewers.as_ref().and_then(|reviewers| reviewers.value.get(&to.value));
        match reviewer {
            None => {
                let what = format!("there is no reviewer \"{}\"", to.value);
                log.error(&to.place, what, suggest(&to.value, known, "reviewers"));
            }
            Some(reviewer) if reviewer.value.email.is_none() && !log.has_error_under(&reviewer.place.path) => {
                let what = format!("{} has no `email`", to.value);
                log.error(&to.place, what, format_args!("Add it to [reviewers.{}]", to.value));
            }
            Some(_) => {}
        }
    }
}
