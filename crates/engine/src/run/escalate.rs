//! What a person's decision comes to.

use super::Resolution;
use outlast_model::run::{EscalationKind, Verb};

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
        // As it was shown: what has not been done may be, what has been said stands.
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
