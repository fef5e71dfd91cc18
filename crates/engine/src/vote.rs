//! Voting: several replies to one request, and the first answer that is ahead of every other by enough wins.
//!
//! The engine counts ballots without reading them: the wire says which earlier answer a ballot agrees with (its
//! *class*), or that it is no ballot at all. Ballots are asked for as late as possible: as many at once as it takes to
//! win without a dissenting vote, and then only as many as could still decide. Correlated mistakes are common (models
//! that both err agree 60 % of the time), so agreement is a reason for confidence, never a proof.

use outlast_model::{
    policy::{Disagreement, Votes},
    record::Agreement,
};

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
    /// With nobody far enough ahead, the leader answers.
    leader_answers: bool,
    /// Ballots asked for, in flight or cast.
    asked: u8,
    /// Of those, the ones that came back, valid or not.
    back: u8,
    dropped: u8,
    /// Each class that has votes, in the order of its first, with their number. At most `samples` of them.
    votes: Vec<(usize, u8)>,
}

impl Election {
    /// An election by these rules. A lead of zero is read as one, and there are at least as many samples as the lead.
    pub fn new(votes: &Votes) -> Self {
        let ahead = votes.ahead.max(1);
        let leader_answers = match votes.disagreement {
            Disagreement::Majority => true,
            Disagreement::Fail => false,
        };
        Election {
            ahead,
            samples: votes.samples.max(ahead),
            leader_answers,
            asked: 0,
            back: 0,
            dropped: 0,
            votes: Vec::new(),
        }
    }

    /// The next step. Read it after construction and after every [`Election::cast`]; each `Ask` counts as done.
    #[expect(clippy::should_implement_trait, reason = "an election is no iterator: it waits for its ballots")]
    pub fn next(&mut self) -> Ballot {
        let (leader, lead) = self.lead();
        if let Some(leader) = leader
            && lead >= self.ahead
        {
            return Ballot::Won(leader);
        }
        let (in_flight, left) = (self.asked - self.back, self.samples - self.asked);
        // What the front runner lacks if every further ballot is for it; of a tie, anybody in it.
        let lacking = self.ahead - lead;
        if lacking > in_flight + left {
            return self.without_winner(leader, lead);
        }
        match lacking.saturating_sub(in_flight) {
            0 => Ballot::Wait,
            more => {
                self.asked += more;
                Ballot::Ask(more)
            }
        }
    }

    /// Nobody can win. The ballots in flight can still make or unmake the leader; and where the leader is to answer, one
    /// more breaks a tie.
    fn without_winner(&mut self, leader: Option<usize>, lead: u8) -> Ballot {
        let in_flight = self.asked - self.back;
        if in_flight > 0 && lead <= in_flight {
            return Ballot::Wait;
        }
        if leader.is_none() && self.leader_answers && self.asked < self.samples {
            self.asked += 1;
            return Ballot::Ask(1);
        }
        Ballot::Undecided { leader }
    }

    /// A ballot came back: for this class, or `None` when it is malformed, broke the contract or never came. One that
    /// was not asked for does not count.
    pub fn cast(&mut self, class: Option<usize>) {
        if self.back >= self.asked {
            return;
        }
        self.back += 1;
        let Some(class) = class else {
            self.dropped += 1;
            return;
        };
        match self.votes.iter_mut().find(|(known, _)| *known == class) {
            Some((_, votes)) => *votes += 1,
            None => self.votes.push((class, 1)),
        }
    }

    /// How the vote stands for this class.
    pub fn agreement(&self, class: usize) -> Agreement {
        let votes_for = self.votes.iter().find(|(known, _)| *known == class).map_or(0, |(_, votes)| *votes);
        Agreement { votes_for, votes: self.votes.iter().map(|(_, votes)| votes).sum(), dropped: self.dropped }
    }

    /// The sole leader, and by how many votes the front runner leads the second.
    fn lead(&self) -> (Option<usize>, u8) {
        let (mut leader, mut best, mut second) = (None, 0, 0);
        for (class, votes) in self.votes.iter().copied() {
            if votes > best {
                (leader, best, second) = (Some(class), votes, best);
            } else {
                second = second.max(votes);
            }
        }
        let lead = best - second;
        (leader.filter(|_| lead > 0), lead)
    }
}
