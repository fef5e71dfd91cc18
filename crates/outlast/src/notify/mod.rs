//! Telling people that work waits for them. What is to be told was written with what it tells of, so that none is lost; a
//! receiver may hear one more than once. The question goes out, the context never does.

mod email;
mod slack;
mod smtp;
mod webhook;

use crate::{
    alerts::{Alert, AlertKind, webhook::Postman},
    clock::{self, Clock},
    config::NotifyKind,
    gateway::{Live, Shared},
    telemetry::LogEvent,
};
use outlast_model::run::Verb;
use outlast_store::{About, DueNotices, EscalationSummary, Notice, Noticed, Origin, Retried, RetryNotice};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::task::JoinSet;

/// Notices of one look.
const BATCH: u32 = 16;
/// How long a claim of a notice stands: longer than a batch takes when nobody answers in time.
const LEASE: Duration = Duration::from_secs(300);
/// For one try.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often due notices are looked for when nothing happens here: those of other processes, and retries.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a store that makes trouble is left alone.
const TROUBLED: Duration = Duration::from_secs(15);
/// The wait after a first failed try; it doubles with each. The store gives up after some tries.
const BACKOFF: Duration = Duration::from_secs(2);
/// The longest wait between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(3600);
/// The most of a question that is told, in characters: it may quote a whole request.
const QUESTION_MAX: usize = 1500;

/// Marks a channel that is a reviewer and no `[notify.NAME]`.
const REVIEWER: &str = "reviewer/";

/// The channel that leads to a reviewer.
pub(crate) fn of_reviewer(name: &str) -> Arc<str> {
    format!("{REVIEWER}{name}").into()
}

/// What is told, in no form yet.
struct Message {
    id: Arc<str>,
    about: About,
    at: String,
    kind: &'static str,
    question: String,
    /// What it came from: names and their values.
    origin: Vec<(&'static str, String)>,
    choices: Vec<&'static str>,
    opened_at: String,
    answer_by: Option<String>,
    link: Option<String>,
    decided: Option<(Verb, Arc<str>)>,
}

/// Why somebody was not told: in words, without address, login or what was to be told.
struct Untold {
    why: String,
}

impl From<&str> for Untold {
    fn from(why: &str) -> Self {
        Untold { why: why.into() }
    }
}

/// A channel of the config, or a reviewer's mail.
enum Way {
    Of(NotifyKind),
    Nowhere(&'static str),
}

/// Runs until it is aborted.
pub(crate) async fn tell(shared: Arc<Shared>) {
    loop {
        let due = shared.store().due_notices(DueNotices { lease: LEASE, limit: BATCH });
        let Ok(due) = shared.stored(due).await else {
            clock::sleep(TROUBLED).await;
            continue;
        };
        let is_all = due.len() < BATCH as usize;
        // One channel that hangs holds up itself only.
        let mut channels: BTreeMap<Arc<str>, Vec<Notice>> = BTreeMap::new();
        for notice in due {
            channels.entry(notice.channel.clone()).or_default().push(notice);
        }
        let mut tasks: JoinSet<()> =
            channels.into_values().map(|notices| tell_channel(shared.clone(), notices)).collect();
        while tasks.join_next().await.is_some() {}
        if is_all {
            tokio::select! {
                () = shared.people.told.notified() => {}
                () = clock::sleep(LOOK_EVERY) => {}
            }
        }
    }
}

async fn tell_channel(shared: Arc<Shared>, notices: Vec<Notice>) {
    let mut postman = Postman::default();
    for notice in notices {
        let live = shared.live();
        let message = Message::new(&live, &notice);
        let told = match way(&live, &notice.channel) {
            Way::Of(kind) => deliver(&kind, &message, &mut postman, &shared.clock).await,
            Way::Nowhere(why) => Err(why.into()),
        };
        settle(&shared, notice, told).await;
    }
}

async fn deliver(kind: &NotifyKind, message: &Message, postman: &mut Postman, clock: &Clock) -> Result<(), Untold> {
    match kind {
        NotifyKind::Webhook { url, secret } => webhook::post(url, secret, message, postman, clock).await,
        NotifyKind::Slack { url } => slack::post(url, message, postman, clock).await,
        NotifyKind::Email { smtp, from, to } => {
            let sent = email::send(smtp, from, to, message, clock);
            clock::timeout(TIMEOUT, sent).await.unwrap_or_else(|_| Err("the mail server did not answer in time".into()))
        }
    }
}

async fn settle(shared: &Shared, notice: Notice, told: Result<(), Untold>) {
    let (escalation, channel, epoch) = (notice.escalation.id, notice.channel, notice.epoch);
    let durable = &shared.telemetry.metrics().durable;
    let Err(Untold { why }) = told else {
        durable.notices_sent.add(1);
        let _ = shared.stored(shared.store().noticed(Noticed { escalation, channel, epoch })).await;
        return;
    };
    durable.notices_failed.add(1);
    let after = BACKOFF.saturating_mul(1 << notice.attempts.saturating_sub(1).min(16)).min(BACKOFF_MAX);
    let retry = RetryNotice { escalation: escalation.clone(), channel: channel.clone(), epoch, after };
    if let Ok(Retried::GivenUp) = shared.stored(shared.store().retry_notice(retry)).await {
        let message =
            format!("Nobody could be told through {channel} that {escalation} waits: {why}. It goes on waiting.");
        let event = LogEvent::error("notice_given_up", message.clone());
        shared.telemetry.event(event.with("escalation", escalation.to_string()).with("channel", channel.to_string()));
        shared.alert(&Alert { kind: AlertKind::NoticeGivenUp, subject: channel.to_string(), message });
    }
}

/// The way to a channel, as the config has it now.
fn way(live: &Live, channel: &str) -> Way {
    let config = &live.config;
    let Some(reviewer) = channel.strip_prefix(REVIEWER) else {
        return match config.notify.get(channel) {
            Some(notify) => Way::Of(notify.kind.clone()),
            None => Way::Nowhere("the config has no such way any more"),
        };
    };
    let Some(to) = config.reviewers.get(reviewer).and_then(|reviewer| reviewer.email.clone()) else {
        return Way::Nowhere("the config has no address of this reviewer any more");
    };
    let mail = config.notify.values().find_map(|notify| match &notify.kind {
        NotifyKind::Email { smtp, from, to: _ } => Some((smtp.clone(), from.clone())),
        NotifyKind::Webhook { .. } | NotifyKind::Slack { .. } => None,
    });
    match mail {
        Some((smtp, from)) => Way::Of(NotifyKind::Email { smtp, from, to: vec![to] }),
        None => Way::Nowhere("the config has no mail server any more"),
    }
}

impl Message {
    fn new(live: &Live, notice: &Notice) -> Message {
        let EscalationSummary { id, kind, origin, question, opened_at, answer_by, decided, .. } = &notice.escalation;
        let at = |time| crate::gateway::store::shown(time, Duration::ZERO);
        let base = live.config.server.public_url.as_ref();
        Message {
            id: id.clone(),
            about: notice.about,
            at: at(notice.at),
            kind: kind.name(),
            question: cut(question),
            origin: named(origin),
            choices: kind.choices().iter().map(|verb| verb.name()).collect(),
            opened_at: at(*opened_at),
            answer_by: answer_by.map(at),
            link: base.map(|base| base.join(&format!("/v1/escalations/{id}")).to_string()),
            decided: decided.zip(notice.by.clone()).map(|((_, verb), by)| (verb, by)),
        }
    }

    /// What it is about, in one line.
    fn headline(&self) -> String {
        let kind = self.kind.replace('_', " ");
        match (self.about, &self.decided) {
            (_, Some((verb, by))) => format!("Decided by {by}: {verb} ({kind})"),
            (About::Opened, None) => format!("Waits for a decision: {kind}"),
            (About::NextLevel, None) => format!("Still undecided, and now yours: {kind}"),
            (About::Reminder | About::Decided, None) => format!("Still waits for a decision: {kind}"),
        }
    }

    /// Names and values, for the forms that have fields.
    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![("Escalation", self.id.to_string())];
        fields.extend(self.origin.iter().cloned());
        fields.push(("Opened", self.opened_at.clone()));
        fields.extend(self.answer_by.clone().map(|by| ("Answer by", by)));
        if self.decided.is_none() {
            fields.push(("Choices", self.choices.join(", ")));
        }
        fields.extend(self.link.clone().map(|link| ("Look", link)));
        fields
    }
}

fn named(origin: &Origin) -> Vec<(&'static str, String)> {
    match origin {
        Origin::Call { route, request_id, failure } => {
            vec![("Route", route.to_string()), ("Request", request_id.to_string()), ("Failure", failure.to_string())]
        }
        Origin::Work { run, step, effect } => {
            let run = run.as_ref().map(|run| ("Run", run.to_string()));
            let step = step.as_ref().map(|step| ("Step", step.to_string()));
            let effect = effect.as_ref().map(|(scope, key)| ("Effect", format!("{scope} {key}")));
            [run, step, effect].into_iter().flatten().collect()
        }
    }
}

/// The beginning of a question, and no control characters but line ends.
fn cut(question: &str) -> String {
    let clean = |letter: &char| *letter == '\n' || !letter.is_control();
    let mut text: String = question.chars().filter(clean).take(QUESTION_MAX).collect();
    if question.chars().filter(clean).count() > QUESTION_MAX {
        text.push_str(" [...]");
    }
    text
}
