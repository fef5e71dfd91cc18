//! Who may advance a run, and until when.
//!
//! A claim gives a lease and an epoch that no claim ever had before. To begin anything needs both: the epoch, and a
//! lease that has not run out. A holder that is late finds the run claimed anew, whatever it believes.

use super::ledger::Entry;
use outlast_model::{Usd, Wall, run::RunState};
use std::time::Duration;

/// A run that was claimed so often in a row without anything new in its journal goes to a person.
pub const POISON_CLAIMS: u32 = 5;
/// Who gives a run back for so long does not die of it.
const A_WHILE: Duration = Duration::from_secs(1);

/// What decides about a run as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Where it stands.
    pub state: RunState,
    /// The number of its last claim; 0 before the first.
    pub epoch: i64,
    /// That claim stands until then.
    pub lease_until: Wall,
    /// [`RunState::Ready`]: nobody claims it before. [`RunState::Waiting`]: its timer.
    pub due: Option<Wall>,
    /// Claims since anything new was written to its journal.
    pub barren: u32,
    /// It is to be cancelled: nothing new begins, what was done is undone.
    pub cancelling: bool,
    /// Nothing begins later.
    pub deadline: Option<Wall>,
    /// What its steps cost.
    pub spent: Usd,
    /// Nothing begins once so much is spent.
    pub cost_max: Option<Usd>,
}

/// Whether a claim was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Claimed {
    /// It was.
    Granted,
    /// It is quarantined now: a person decides.
    Poison,
    /// It is not there to be claimed.
    NotDue,
}

/// The answer to a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Beat {
    /// The lease goes on.
    Held,
    /// It does, and the run is to be cancelled: undo, then finish.
    Cancel,
    /// It is somebody else's, or over. Stop.
    Lost,
}

/// Why nothing may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayNotBegin {
    /// The claim is somebody else's, or the lease ran out.
    Lost,
    /// The run is to be cancelled.
    Cancelled,
    /// Its deadline has passed.
    Overdue,
    /// Its money is spent.
    OverBudget,
}

impl Head {
    /// A run that can be claimed from `due` on.
    pub fn new(due: Wall, deadline: Option<Wall>, cost_max: Option<Usd>) -> Head {
        Head {
            state: RunState::Ready,
            epoch: 0,
            lease_until: Wall(0),
            due: Some(due),
            barren: 0,
            cancelling: false,
            deadline,
            spent: Usd::ZERO,
            cost_max,
        }
    }

    /// From when on it can be claimed, if nothing else happens: when it is ready, when its timer is due, when its
    /// holder's lease runs out.
    pub fn claimable_from(&self) -> Option<Wall> {
        match self.state {
            RunState::Ready | RunState::Waiting => self.due,
            RunState::Running => Some(self.lease_until),
            RunState::Parked | RunState::Quarantined | RunState::Done | RunState::Failed | RunState::Cancelled => None,
        }
    }

    /// Gives it to a new holder.
    pub fn claim(&mut self, epoch: i64, lease: Duration, now: Wall) -> Claimed {
        if self.claimable_from().is_none_or(|from| from > now) {
            return Claimed::NotDue;
        }
        // A timer that went off, or a signal, is news.
        if self.state == RunState::Waiting {
            self.barren = 0;
        }
        if self.barren >= POISON_CLAIMS {
            self.state = RunState::Quarantined;
            self.due = None;
            self.lease_until = Wall(0);
            return Claimed::Poison;
        }
        self.state = RunState::Running;
        self.epoch = epoch;
        self.lease_until = later(now, lease);
        self.due = None;
        self.barren += 1;
        Claimed::Granted
    }

    /// Whether this claim still stands: nobody has claimed it since. The lease may have run out.
    pub fn is_held_by(&self, epoch: i64) -> bool {
        self.state == RunState::Running && self.epoch == epoch
    }

    /// Keeps the lease.
    pub fn beat(&mut self, epoch: i64, lease: Duration, now: Wall) -> Beat {
        if !self.is_held_by(epoch) {
            return Beat::Lost;
        }
        self.lease_until = self.lease_until.max(later(now, lease));
        if self.cancelling { Beat::Cancel } else { Beat::Held }
    }

    /// Whether the holder of this claim may begin a step. Undoing goes on in a run that is cancelled, late or out of
    /// money.
    ///
    /// # Errors
    /// Why not.
    pub fn may_begin(&self, epoch: i64, undoes: bool, now: Wall) -> Result<(), MayNotBegin> {
        if !self.is_held_by(epoch) || self.lease_until <= now {
            return Err(MayNotBegin::Lost);
        }
        self.may_go_on(undoes, now)
    }

    /// Whether anybody may begin a step: for programs that journal without a claim.
    ///
    /// # Errors
    /// Why not.
    pub fn may_go_on(&self, undoes: bool, now: Wall) -> Result<(), MayNotBegin> {
        if self.state.is_final() {
            return Err(MayNotBegin::Lost);
        }
        if undoes {
            return Ok(());
        }
        if self.cancelling {
            return Err(MayNotBegin::Cancelled);
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(MayNotBegin::Overdue);
        }
        if self.cost_max.is_some_and(|most| self.spent >= most) {
            return Err(MayNotBegin::OverBudget);
        }
        Ok(())
    }

    /// Whether a step may be asked for: by the holder of this claim, or by a program that journals without one. What
    /// ended is told, and what may have happened is looked into, in a run that is cancelled, late or out of money too;
    /// only what would be new work is not begun in it.
    ///
    /// # Errors
    /// Why not.
    pub fn may_ask(
        &self,
        epoch: Option<i64>,
        entry: Option<&Entry>,
        undoes: bool,
        now: Wall,
    ) -> Result<(), MayNotBegin> {
        if epoch.is_some_and(|epoch| !self.is_held_by(epoch) || self.lease_until <= now) {
            return Err(MayNotBegin::Lost);
        }
        if entry.is_some_and(|entry| !entry.is_new_work() && (entry.state.is_final() || !self.state.is_final())) {
            return Ok(());
        }
        self.may_go_on(undoes, now)
    }

    /// Something new stands in the journal.
    pub fn progressed(&mut self, cost: Usd) {
        self.barren = 0;
        self.spent = self.spent + cost;
    }

    /// Gives it back: whoever comes may claim it after this. To give it back for a while, as until a tool that is down is
    /// asked again, is no claim in vain: that cannot go round in a hurry.
    pub fn release(&mut self, after: Duration, now: Wall) {
        if after >= A_WHILE {
            self.barren = self.barren.saturating_sub(1);
        }
        self.rest(RunState::Ready, Some(later(now, after)));
    }

    /// It waits for its timer, if it has one, or for [`Head::wake`].
    pub fn wait(&mut self, timer: Option<Wall>) {
        self.rest(RunState::Waiting, timer);
    }

    /// It waits for a person.
    pub fn park(&mut self) {
        self.rest(RunState::Parked, None);
    }

    /// What it waited for is there.
    pub fn wake(&mut self, now: Wall) {
        match self.state {
            RunState::Waiting | RunState::Parked | RunState::Quarantined => {
                self.barren = 0;
                self.rest(RunState::Ready, Some(now));
            }
            RunState::Ready | RunState::Running | RunState::Done | RunState::Failed | RunState::Cancelled => {}
        }
    }

    /// It is to be cancelled. If anything may have to be undone, whoever claims it next does that; if its holder is at
    /// it, its next heartbeat says so; else it is over.
    pub fn cancel(&mut self, has_undo: bool, now: Wall) {
        if self.state.is_final() {
            return;
        }
        self.cancelling = true;
        match self.state {
            RunState::Running if self.lease_until > now => {}
            RunState::Ready | RunState::Running | RunState::Waiting | RunState::Parked | RunState::Quarantined => {
                if has_undo {
                    self.barren = 0;
                    self.rest(RunState::Ready, Some(now));
                } else {
                    self.rest(RunState::Cancelled, None);
                }
            }
            RunState::Done | RunState::Failed | RunState::Cancelled => {}
        }
    }

    /// It is over. `state` is final.
    pub fn finish(&mut self, state: RunState) {
        debug_assert!(state.is_final());
        self.rest(state, None);
    }

    fn rest(&mut self, state: RunState, due: Option<Wall>) {
        self.state = state;
        self.due = due;
        self.lease_until = Wall(0);
    }
}

fn later(at: Wall, by: Duration) -> Wall {
    Wall(at.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
}
