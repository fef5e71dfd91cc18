//! What a person's decision comes to, and who hears, and when, that one is waited for.

use super::Resolution;
use outlast_model::{
    Wall,
    run::{EscalationKind, Verb},
};
use std::{ops::Range, time::Duration};

/// What a decision does to the work that waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    /// The parked step or effect hears it, and its run goes on.
    Step(Resolution),
    /// The quarantined run can be claimed again.
    WakeRun,
    /// The parked step or effect, if there is one, is not to happen, and its run is cancelled.
    CancelRun,
    /// Nothing waits but whoever asked: the decision is their answer.
    Answer,
}

/// What a decision has to bring along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brings {
    /// Nothing.
    Nothing,
    /// What is to be taken as the step's output.
    Output,
    /// What the step is to be done with.
    Arguments,
    /// What came of it when it happened.
    Result,
    /// The target or the tool that is to do it.
    TargetOrTool,
}

/// What becomes of work that waits for a person when one decides; none where the verb is not offered.
pub fn resolve(kind: EscalationKind, verb: Verb) -> Option<Decided> {
    use EscalationKind as K;
    use Resolution as R;
    if !kind.choices().contains(&verb) {
        return None;
    }
    Some(match (kind, verb) {
        (K::Call, _) => Decided::Answer,
        (K::Poison, Verb::Retry) => Decided::WakeRun,
        (_, Verb::Cancel) => Decided::CancelRun,
        // What has not been done yet may be done; what was said or done stands.
        (K::Approval, Verb::Approve | Verb::Edit) => Decided::Step(R::Try),
        (_, Verb::Approve | Verb::Edit | Verb::Happened | Verb::Skip) => Decided::Step(R::Done),
        (_, Verb::Retry | Verb::Choose | Verb::DidNot) => Decided::Step(R::Try),
        (_, Verb::Deny) => Decided::Step(R::Failed),
    })
}

/// What a person who decides so has to give.
pub fn brings(kind: EscalationKind, verb: Verb) -> Brings {
    match (kind, verb) {
        (EscalationKind::Approval, Verb::Edit) => Brings::Arguments,
        (_, Verb::Edit) => Brings::Output,
        (_, Verb::Happened) => Brings::Result,
        (_, Verb::Choose) => Brings::TargetOrTool,
        (_, Verb::Approve | Verb::Deny | Verb::Retry | Verb::DidNot | Verb::Skip | Verb::Cancel) => Brings::Nothing,
    }
}

/// An undecided escalation, as far as it decides who hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Why it waits.
    pub kind: EscalationKind,
    /// Since when.
    pub since: Wall,
    /// An answer is wanted by then.
    pub answer_by: Option<Wall>,
    /// How many levels have heard of it; none before it was first looked at.
    pub told: Option<u32>,
}

/// Who is told, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience<'a> {
    /// How long it has waited when each level is told, in rising order.
    pub levels: &'a [Duration],
    /// How often those who were told are told again.
    pub remind_every: Option<Duration>,
    /// What nobody agreed to in time is denied.
    pub deny: bool,
}

/// What is to be done about it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// The time to agree has passed: it is denied.
    Deny,
    /// These levels are told, if there are any.
    Tell {
        /// By their places in [`Patience::levels`].
        levels: Range<usize>,
        /// What they are told.
        what: Tell,
        /// How many levels have heard of it then.
        told: u32,
        /// When it is looked at again; none: nothing changes before it is decided.
        next_in: Option<Duration>,
    },
}

/// What a level is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// That it waits.
    Opened,
    /// That it still does, and those who were asked first have not answered.
    NextLevel,
    /// That it still does.
    Reminder,
}

/// Never looked at more often than this, whatever the config says.
const SOONEST: Duration = Duration::from_secs(1);

/// Looks at an undecided escalation whose time has come. Once its answer is late everybody is told, and nothing but an
/// approval is ever decided for want of an answer: that would be a guess.
pub fn look(waiting: &Waiting, patience: &Patience<'_>, now: Wall) -> Look {
    let Waiting { kind, since, answer_by, told } = *waiting;
    let late = answer_by.is_some_and(|by| by <= now);
    if late && patience.deny && kind == EscalationKind::Approval {
        return Look::Deny;
    }
    let waited = Duration::from_millis(u64::try_from(now.0.saturating_sub(since.0)).unwrap_or(0));
    let all = patience.levels.len();
    let reached = if late { all } else { patience.levels.iter().take_while(|after| **after <= waited).count() };
    // The config may have had more levels when they were told.
    let before = told.map_or(0, |told| (told as usize).min(all));
    let (levels, what) = if reached > before {
        (before..reached, if before == 0 { Tell::Opened } else { Tell::NextLevel })
    } else {
        (0..before, Tell::Reminder)
    };
    let next_level = patience.levels.get(reached).map(|after| after.saturating_sub(waited));
    let deadline = answer_by.filter(|_| !late);
    let deadline = deadline.map(|by| Duration::from_millis(u64::try_from(by.0.saturating_sub(now.0)).unwrap_or(0)));
    let reminder = patience.remind_every.filter(|_| reached.max(before) > 0);
    let next_in = [next_level, deadline, reminder].into_iter().flatten().min().map(|next| next.max(SOONEST));
    Look::Tell { levels, what, told: reached.max(before) as u32, next_in }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const LEVELS: &[Duration] = &[Duration::ZERO, Duration::from_secs(4 * 3600)];

    fn at(hours: i64) -> Wall {
        Wall(1_000_000 + hours * 3_600_000)
    }

    fn waiting(told: Option<u32>) -> Waiting {
        Waiting { kind: EscalationKind::Approval, since: at(0), answer_by: Some(at(8)), told }
    }

    #[test]
    fn a_verb_comes_to_something_exactly_where_it_is_offered() {
        for kind in EscalationKind::ALL {
            for verb in Verb::ALL {
                assert_eq!(resolve(kind, verb).is_some(), kind.choices().contains(&verb), "{kind:?} {verb}");
            }
        }
    }

    #[test]
    fn what_may_have_happened_is_only_tried_again_when_a_person_says_that_it_did_not() {
        let tries: Vec<Verb> = Verb::ALL
            .into_iter()
            .filter(|verb| resolve(EscalationKind::UnknownEffect, *verb) == Some(Decided::Step(Resolution::Try)))
            .collect();
        assert_eq!(tries, [Verb::DidNot]);
    }

    #[test]
    fn an_approval_lets_it_be_done_and_an_agreed_answer_stands() {
        assert_eq!(resolve(EscalationKind::Approval, Verb::Approve), Some(Decided::Step(Resolution::Try)));
        assert_eq!(resolve(EscalationKind::LowConfidence, Verb::Approve), Some(Decided::Step(Resolution::Done)));
        assert_eq!(resolve(EscalationKind::Poison, Verb::Retry), Some(Decided::WakeRun));
        assert_eq!(resolve(EscalationKind::Call, Verb::Edit), Some(Decided::Answer));
    }

    #[test]
    fn the_first_level_hears_at_once_the_next_in_its_time_and_both_are_reminded() {
        let patience = Patience { levels: LEVELS, remind_every: Some(2 * HOUR), deny: false };
        let opened = look(&waiting(None), &patience, at(0));
        let tell = |levels, what, told, next| Look::Tell { levels, what, told, next_in: Some(next) };
        assert_eq!(opened, tell(0..1, Tell::Opened, 1, 2 * HOUR));
        assert_eq!(look(&waiting(Some(1)), &patience, at(2)), tell(0..1, Tell::Reminder, 1, 2 * HOUR));
        assert_eq!(look(&waiting(Some(1)), &patience, at(4)), tell(1..2, Tell::NextLevel, 2, 2 * HOUR));
        assert_eq!(look(&waiting(Some(2)), &patience, at(6)), tell(0..2, Tell::Reminder, 2, 2 * HOUR));
    }

    #[test]
    fn a_late_answer_is_told_to_everybody() {
        let patience = Patience { levels: &[Duration::ZERO, 24 * HOUR], remind_every: None, deny: false };
        let late = look(&waiting(Some(1)), &patience, at(8));
        assert_eq!(late, Look::Tell { levels: 1..2, what: Tell::NextLevel, told: 2, next_in: None });
    }

    #[test]
    fn only_an_approval_is_denied_for_want_of_an_answer() {
        let patience = Patience { levels: LEVELS, remind_every: None, deny: true };
        assert_ne!(look(&waiting(Some(1)), &patience, at(7)), Look::Deny);
        assert_eq!(look(&waiting(Some(1)), &patience, at(8)), Look::Deny);
        let unknown = Waiting { kind: EscalationKind::UnknownEffect, ..waiting(Some(1)) };
        assert_ne!(look(&unknown, &patience, at(8)), Look::Deny);
    }

    #[test]
    fn nobody_to_tell_is_looked_at_again_only_for_its_deadline() {
        let nobody = Patience::default();
        let look_at = |answer_by| look(&Waiting { answer_by, ..waiting(None) }, &nobody, at(0));
        let nothing = |next_in| Look::Tell { levels: 0..0, what: Tell::Reminder, told: 0, next_in };
        assert_eq!(look_at(Some(at(8))), nothing(Some(8 * HOUR)));
        assert_eq!(look_at(None), nothing(None));
    }
}
