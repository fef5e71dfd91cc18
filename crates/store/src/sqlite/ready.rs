//! The runs that can be claimed by and by, in the order in which they are claimed.
//!
//! The table is one narrow tree whose key is the whole row, so a run's place in it is found by what was read of the run,
//! and a claim's candidates are the front of a range, whatever waits behind.

use super::{cx::Cx, fault::Outcome, words::unreadable};
use outlast_engine::run::Head;
use outlast_model::{Wall, run::RunState};
use rusqlite::{OptionalExtension, params};

/// A run's place, while it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) lane: i64,
    /// Somebody holds it until it can be claimed.
    pub(super) held: bool,
    pub(super) priority: i64,
    pub(super) from: Wall,
}

impl Turn {
    /// None: it waits for a signal or a person, is over, or is journaled to without claims.
    pub(super) fn of(head: &Head, lane: i64, priority: i64, unclaimed: bool) -> Option<Turn> {
        let from = head.claimable_from().filter(|_| !unclaimed)?;
        Some(Turn { lane, held: head.state == RunState::Running, priority, from })
    }
}

/// Moves a run from one place to another, out of the table, or into it.
pub(super) fn turn(cx: Cx<'_>, run: i64, from: Option<Turn>, to: Option<Turn>) -> Outcome<()> {
    let moved = match (from, to) {
        (from, to) if from == to => return Ok(()),
        (Some(from), Some(to)) => cx
            .db
            .prepare_cached(
                "UPDATE ready SET lane = ?1, held = ?2, priority = ?3, claimable_from = ?4
                 WHERE lane = ?5 AND held = ?6 AND priority = ?7 AND claimable_from = ?8 AND run = ?9",
            )?
            .execute(params![
                to.lane, to.held, to.priority, to.from.0, from.lane, from.held, from.priority, from.from.0, run
            ])?,
        (Some(from), None) => cx
            .db
            .prepare_cached(
                "DELETE FROM ready WHERE lane = ?1 AND held = ?2 AND priority = ?3 AND claimable_from = ?4 AND run = ?5",
            )?
            .execute(params![from.lane, from.held, from.priority, from.from.0, run])?,
        (None, Some(to)) => cx
            .db
            .prepare_cached("INSERT INTO ready VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![to.lane, to.held, to.priority, to.from.0, run])?,
        (None, None) => return Ok(()),
    };
    // A run that lost its place would never be claimed again, and nobody would know.
    if moved == 1 { Ok(()) } else { Err(unreadable(cx, "place in the ready table")) }
}

/// The first run of a lane that can be claimed now, after this one if one is named.
pub(super) fn first(
    cx: Cx<'_>,
    (lane, held, priority): (i64, bool, i64),
    after: Option<(Wall, i64)>,
) -> Outcome<Option<(Wall, i64)>> {
    let (from, run) = after.map_or((i64::MIN, i64::MIN), |(from, run)| (from.0, run));
    let mut first = cx.db.prepare_cached(FIRST)?;
    let found =
        first.query_row(params![lane, held, priority, from, run, cx.now.0], |row| Ok((Wall(row.get(0)?), row.get(1)?)));
    Ok(found.optional()?)
}

pub(super) const FIRST: &str = "SELECT claimable_from, run FROM ready
    WHERE lane = ?1 AND held = ?2 AND priority = ?3 AND (claimable_from, run) > (?4, ?5) AND claimable_from <= ?6
    ORDER BY claimable_from, run LIMIT 1";
