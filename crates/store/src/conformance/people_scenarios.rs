//! The promises about what waits for a person, one by one.

use super::scenarios::{Bench, Scenario, scenarios};
use crate::{
    About, AuditFilter, DecideEscalation, Decided, DueEscalation, DueEscalations, DueNotices, EscalationFilter,
    EscalationMoved, Fenced, Notice, Noticed, OpenEscalation, Page, Payload, Retried, RetryNotice,
};
use outlast_model::{Failure, run::Verb};
use std::{sync::Arc, time::Duration};

scenarios! {
    PEOPLE_SCENARIOS:
    "a decision about something else than what waits changes nothing" => bound_to_what_was_shown,
    "a choice that is not offered changes nothing" => not_offered,
    "what is opened is due at once, by one claim at a time, and then when it was said" => due_at_once,
    "a notice is told once, and a later one takes the place of one that was not" => told_once,
    "those who were told of an escalation hear how it was decided" => decision_told,
    "a notice that nobody takes is given up in the end" => given_up,
    "an escalation that nobody answered in time is overdue, and stays" => overdue,
    "every decision stands in the audit log, once, in order" => audited,
}

const SECOND: Duration = Duration::from_secs(1);

async fn open(bench: &Bench<'_>) {
    let command = OpenEscalation {
        id: "esc".into(),
        tenant: "acme".into(),
        route: "support".into(),
        request_id: "req_1".into(),
        failure: Failure::Refusal,
        question: "May it?".into(),
        payload: Payload::from(b"context".to_vec()),
        answer_within: Some(60 * SECOND),
    };
    assert!(bench.open_escalation(command).await.expect("an escalation").first);
}

async fn decision(bench: &Bench<'_>, verb: Verb) -> DecideEscalation {
    let shown = bench.escalation("esc".into()).await.expect("the inbox").expect("one").summary.shown;
    let (id, by, decision) = ("esc".into(), "anna".into(), Payload::from(b"yes".to_vec()));
    DecideEscalation { id, by, verb, shown, result: None, decision }
}

async fn due(bench: &Bench<'_>) -> Vec<DueEscalation> {
    bench.due_escalations(DueEscalations { lease: SECOND, limit: 10 }).await.expect("what is due")
}

async fn notices(bench: &Bench<'_>) -> Vec<Notice> {
    bench.due_notices(DueNotices { lease: SECOND, limit: 10 }).await.expect("the outbox")
}

fn moved(due: &DueEscalation, about: About, notify: &[&str], next_in: Option<Duration>) -> EscalationMoved {
    let notify = notify.iter().map(|name| Arc::from(*name)).collect();
    EscalationMoved { id: due.escalation.id.clone(), epoch: due.epoch, level: 1, about, notify, next_in }
}

fn noticed(notice: &Notice) -> Noticed {
    let (escalation, channel) = (notice.escalation.id.clone(), notice.channel.clone());
    Noticed { escalation, channel, epoch: notice.epoch }
}

/// Opens one and tells these channels.
async fn told(bench: &Bench<'_>, notify: &[&str], next_in: Option<Duration>) {
    open(bench).await;
    let due = due(bench).await;
    let moved = moved(&due[0], About::Opened, notify, next_in);
    assert_eq!(bench.escalation_moved(moved).await, Ok(Fenced::Held));
}

async fn bound_to_what_was_shown(bench: &mut Bench<'_>) {
    open(bench).await;
    let stale = DecideEscalation { shown: [7; 32], ..decision(bench, Verb::Edit).await };
    assert_eq!(bench.decide_escalation(stale).await, Ok(Decided::Changed));
    let decision = decision(bench, Verb::Edit).await;
    assert_eq!(bench.decide_escalation(decision).await, Ok(Decided::Stands));
}

async fn not_offered(bench: &mut Bench<'_>) {
    open(bench).await;
    let guess = decision(bench, Verb::Happened).await;
    assert_eq!(bench.decide_escalation(guess).await, Ok(Decided::NotOffered));
    assert_eq!(bench.health().await.expect("health").escalations_open, 1);
}

async fn due_at_once(bench: &mut Bench<'_>) {
    open(bench).await;
    let first = due(bench).await;
    assert_eq!((first.len(), first[0].escalation.level), (1, None));
    assert_eq!(due(bench).await, [], "somebody is at it");
    bench.pass(1_000);
    let second = due(bench).await;
    assert_eq!(second.len(), 1, "nobody is any more");
    let late = moved(&first[0], About::Opened, &["ops"], None);
    assert_eq!(bench.escalation_moved(late).await, Ok(Fenced::Lost));
    let moved = moved(&second[0], About::Opened, &["ops"], Some(5 * SECOND));
    for _ in 0..2 {
        assert_eq!(bench.escalation_moved(moved.clone()).await, Ok(Fenced::Held));
    }
    bench.pass(4_000);
    assert_eq!(due(bench).await, []);
    bench.pass(1_000);
    assert_eq!(due(bench).await[0].escalation.level, Some(1));
    let decision = decision(bench, Verb::Edit).await;
    assert_eq!(bench.decide_escalation(decision).await, Ok(Decided::Stands));
    bench.pass(10_000);
    assert_eq!(due(bench).await, []);
}

async fn told_once(bench: &mut Bench<'_>) {
    told(bench, &["chat", "ops"], Some(SECOND)).await;
    let first = notices(bench).await;
    assert_eq!(first.iter().map(|notice| &*notice.channel).collect::<Vec<_>>(), ["chat", "ops"]);
    assert_eq!(bench.noticed(noticed(&first[0])).await, Ok(Fenced::Held));
    assert_eq!(bench.noticed(noticed(&first[0])).await, Ok(Fenced::Lost));
    bench.pass(1_000);
    let due = due(bench).await;
    let reminder = moved(&due[0], About::Reminder, &["chat", "ops"], None);
    assert_eq!(bench.escalation_moved(reminder).await, Ok(Fenced::Held));
    assert_eq!(bench.noticed(noticed(&first[1])).await, Ok(Fenced::Lost), "another has its place");
    let again = notices(bench).await;
    assert_eq!(again.iter().map(|notice| notice.about).collect::<Vec<_>>(), [About::Reminder; 2]);
    bench.crash();
    bench.pass(1_000);
    assert_eq!(notices(bench).await.len(), 2, "nobody was told before the crash");
}

async fn decision_told(bench: &mut Bench<'_>) {
    told(bench, &["ops"], None).await;
    let first = notices(bench).await;
    assert_eq!(bench.noticed(noticed(&first[0])).await, Ok(Fenced::Held));
    let decision = decision(bench, Verb::Cancel).await;
    assert_eq!(bench.decide_escalation(decision).await, Ok(Decided::Stands));
    let [notice] = &notices(bench).await[..] else { panic!("one was told") };
    assert_eq!((notice.about, notice.by.as_deref()), (About::Decided, Some("anna")));
    assert_eq!(notice.escalation.decided.map(|(_, verb)| verb), Some(Verb::Cancel));
}

async fn given_up(bench: &mut Bench<'_>) {
    told(bench, &["ops"], None).await;
    let mut tries = 0;
    let given_up = loop {
        let [notice] = &notices(bench).await[..] else { panic!("it is tried again") };
        tries += 1;
        let Noticed { escalation, channel, epoch } = noticed(notice);
        let retry = RetryNotice { escalation, channel, epoch, after: SECOND };
        match bench.retry_notice(retry).await.expect("the outbox") {
            Retried::Later => bench.pass(1_000),
            end @ (Retried::GivenUp | Retried::Lost) => break end,
        }
    };
    assert_eq!((given_up, tries), (Retried::GivenUp, crate::Limits::FILE.delivery_attempts));
    bench.pass(100_000);
    assert_eq!(notices(bench).await, []);
    let health = bench.health().await.expect("health");
    assert_eq!((health.notices_pending, health.notices_given_up), (0, 1));
}

async fn overdue(bench: &mut Bench<'_>) {
    open(bench).await;
    let filter = EscalationFilter { overdue_only: true, ..EscalationFilter::default() };
    let page = Page { after: None, size: 10 };
    assert_eq!(bench.escalations(filter.clone(), page).await.expect("the inbox").escalations, []);
    bench.pass(60_000);
    assert_eq!(bench.escalations(filter, page).await.expect("the inbox").escalations.len(), 1);
}

async fn audited(bench: &mut Bench<'_>) {
    open(bench).await;
    let decision = decision(bench, Verb::Edit).await;
    for _ in 0..2 {
        assert_eq!(bench.decide_escalation(decision.clone()).await, Ok(Decided::Stands));
    }
    bench.crash();
    let page = bench.audit(AuditFilter::default(), Page { after: None, size: 10 }).await.expect("the log");
    let [entry] = &page.entries[..] else { panic!("it stands there {} times", page.entries.len()) };
    assert_eq!((entry.number, &*entry.entry.who, &*entry.entry.what), (1, "anna", "escalation.edit"));
    let verified = bench.verify_audit().await.expect("the log");
    assert_eq!((verified.entries, verified.head, verified.broken), (1, entry.hash, None));
}
