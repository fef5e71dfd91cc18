//! The outbox of notices.
//!
//! A row is given up if it was tried too often and nobody is trying.

use super::{cx::Cx, escalations, fault::Outcome};
use crate::{About, DueNotices, Fenced, Notice, Noticed, Retried, RetryNotice};
use outlast_model::Wall;
use rusqlite::{OptionalExtension, params};

/// At most so many are given at once.
const AT_ONCE: u32 = 100;

fn number(about: About) -> i64 {
    match about {
        About::Opened => 0,
        About::Reminder => 1,
        About::NextLevel => 2,
        About::Decided => 3,
    }
}

fn about(number: i64) -> About {
    match number {
        0 => About::Opened,
        1 => About::Reminder,
        2 => About::NextLevel,
        _ => About::Decided,
    }
}

/// Somebody is to hear of it. What the same channel has not been told yet of the same escalation is not told any more.
pub(super) fn put(cx: Cx<'_>, escalation: &str, channel: &str, about: About) -> Outcome<()> {
    cx.db
        .prepare_cached(
            "INSERT OR REPLACE INTO notices
             (escalation, channel, about, at, told, attempts, epoch, not_before, lease_until)
             VALUES (?1, ?2, ?3, ?4, 0, 0, 0, ?4, 0)",
        )?
        .execute(params![escalation, channel, number(about), cx.now.0])?;
    Ok(())
}

/// All who were told of it, or were to be, hear how it was decided.
pub(super) fn decided(cx: Cx<'_>, escalation: &str) -> Outcome<()> {
    let mut told = cx.db.prepare_cached("SELECT channel FROM notices WHERE escalation = ?1 ORDER BY channel")?;
    let told: Vec<String> = told.query_map([escalation], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    told.iter().try_for_each(|channel| put(cx, escalation, channel, About::Decided))
}

pub(super) fn due(cx: Cx<'_>, command: &DueNotices) -> Outcome<Vec<Notice>> {
    type Due = (i64, String, String, i64, i64, u32);
    let due: Vec<Due> = cx
        .db
        .prepare_cached(
            "SELECT sequence, escalation, channel, about, at, attempts FROM notices
             WHERE told = 0 AND lease_until <= ?1 AND not_before <= ?1 AND attempts < ?2 ORDER BY sequence LIMIT ?3",
        )?
        .query_map(params![cx.now.0, cx.limits.delivery_attempts, command.limit.min(AT_ONCE)], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut notices = Vec::with_capacity(due.len());
    for (sequence, escalation, channel, what, at, attempts) in due {
        let epoch = cx.next_epoch()?;
        cx.db
            .prepare_cached(
                "UPDATE notices SET attempts = attempts + 1, epoch = ?1, lease_until = ?2 WHERE sequence = ?3",
            )?
            .execute(params![epoch.0, cx.after(command.lease), sequence])?;
        let Some((escalation, by)) = escalations::noticed(cx, &escalation)? else { continue };
        notices.push(Notice {
            channel: channel.into(),
            about: about(what),
            at: Wall(at),
            escalation,
            by,
            epoch,
            attempts: attempts + 1,
        });
    }
    Ok(notices)
}

pub(super) fn noticed(cx: Cx<'_>, command: &Noticed) -> Outcome<Fenced> {
    let Noticed { escalation, channel, epoch } = command;
    let told = cx
        .db
        .prepare_cached(
            "UPDATE notices SET told = 1, lease_until = 0
             WHERE escalation = ?1 AND channel = ?2 AND epoch = ?3 AND told = 0 AND lease_until > 0",
        )?
        .execute(params![escalation, channel, epoch.0])?;
    Ok(if told > 0 { Fenced::Held } else { Fenced::Lost })
}

pub(super) fn retry(cx: Cx<'_>, command: &RetryNotice) -> Outcome<Retried> {
    let RetryNotice { escalation, channel, epoch, after } = command;
    cx.db
        .prepare_cached(
            "UPDATE notices SET lease_until = 0, not_before = ?1
             WHERE escalation = ?2 AND channel = ?3 AND epoch = ?4 AND told = 0 AND lease_until > 0",
        )?
        .execute(params![cx.after(*after), escalation, channel, epoch.0])?;
    let attempts: Option<u32> = cx
        .db
        .prepare_cached(
            "SELECT attempts FROM notices WHERE escalation = ?1 AND channel = ?2 AND epoch = ?3 AND told = 0",
        )?
        .query_row(params![escalation, channel, epoch.0], |row| row.get(0))
        .optional()?;
    Ok(match attempts {
        Some(attempts) if attempts >= cx.limits.delivery_attempts => Retried::GivenUp,
        Some(_) => Retried::Later,
        None => Retried::Lost,
    })
}

/// How many are pending, and how many given up.
pub(super) fn counts(cx: Cx<'_>) -> Outcome<(u64, u64)> {
    let mut counts = cx.db.prepare_cached(
        "SELECT count(*), count(*) FILTER (WHERE attempts >= ?1 AND lease_until <= ?2) FROM notices WHERE told = 0",
    )?;
    let (all, given_up): (i64, i64) =
        counts.query_row(params![cx.limits.delivery_attempts, cx.now.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(((all - given_up).unsigned_abs(), given_up.unsigned_abs()))
}
