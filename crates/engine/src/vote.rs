//! Voting: several replies to one request, and the first answer that is ahead of every other by enough wins.
//!
//! The engine counts ballots without reading them: the wire says which earlier answer a ballot agrees with (its
//! *class*), or that it is no ballot at all. Ballots are asked for as late as possible: as many at once as it takes to
//! win without a dissenting vote, and then only as many as could still decide. Correlated mistakes are common (models
//! that both err agree 60 % of the time), so agreement is a reason for confidence, never a proof.

use outlast_model::{policy::Votes, record::Agreement};

/// What an election needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ballot {
    /// Ask for so many more ballots, at once. They count as in flight from now on.
    Ask(u8),
    /// Nothing: ballots that were asked for may still decide. Cast them as they come.
    Wait,
    /// This class leads every other by enough. Ballots in flight may be dropped.
    Won(usize),
    /// No class can win any more.
    Undecided {
        /// The class with the most votes; `None` when the first place is shared, or nobody voted.
        leader: Option<usize>,
    },
}

/// One vote, from the first ballot asked for to the outcome.
#[derive(Clone, Debug)]
pub struct Election {
    ahead: u8,
    samples: u8,
    /// Ballots asked for, in flight or cast.
    asked: u8,
    /// Of those, the ones that came back, valid or not.
    back: u8,
    dropped: u8,
    /// Votes by class.
    classes: Vec<u8>,
}

impl Election {
    /// An election by these rules. A lead of zero is read as one, and there are at least as many samples as the lead.
    pub fn new(votes: &Votes) -> Self {
        let ahead = votes.ahead.max(1);
        Election { ahead, samples: votes.samples.max(ahead), asked: 0, back: 0, dropped: 0, classes: Vec::new() }
    }

    /// The next step. Read it after construction and after every [`Election::cast`], until it is `Wait` or an outcome.
    pub fn next(&mut self) -> Ballot {
        let (leader, lead) = self.lead();
        if lead >= self.ahead
            && let Some(leader) = leader
        {
            return Ballot::Won(leader);
        }
        let (in_flight, left) = (self.asked - self.back, self.samples - self.asked);
        // What the front runner lacks; every vote for it may come from one ballot.
        let lacking = self.ahead - lead;
        if lacking > in_flight + left {
            // The ballots in flight cannot make a winner, but they can still make or unmake the leader.
            return if in_flight > 0 { Ballot::Wait } else { Ballot::Undecided { leader } };
        }
        match lacking.saturating_sub(in_flight) {
            0 => Ballot::Wait,
            more => {
                self.asked += more;
                Ballot::Ask(more)
            }
        }
    }

    /// A ballot came back: for this class, or `None` when it is malformed, broke the contract or never came.
    pub fn cast(&mut self, class: Option<usize>) {
        if self.back >= self.asked {
            return;
        }
        self.back += 1;
        match class {
            Some(class) => {
                if class >= self.classes.len() {
                    self.classes.resize(class + 1, 0);
                }
                self.classes[class] += 1;
            }
            None => self.dropped += 1,
        }
    }

    /// How the vote stands for this class.
    pub fn agreement(&self, class: usize) -> Agreement {
        Agreement {
            votes_for: self.classes.get(class).copied().unwrap_or(0),
            votes: self.classes.iter().sum(),
            dropped: self.dropped,
        }
    }

    /// The sole leader, and by how many votes the front runner leads the second.
    fn lead(&self) -> (Option<usize>, u8) {
        let best = self.classes.iter().copied().max().unwrap_or(0);
        let leader = self.classes.iter().position(|votes| *votes == best);
        let second = self.classes.iter().enumerate().filter(|(at, _)| Some(*at) != leader);
        let second = second.map(|(_, votes)| *votes).max().unwrap_or(0);
        let lead = best - second;
        (leader.filter(|_| lead > 0), lead)
    }
}
