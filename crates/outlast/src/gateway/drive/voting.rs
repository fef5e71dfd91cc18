//! A call that is decided by a vote: the vote takes the place of the engine's attempts, and what it gives is settled as
//! one call, with the attempts of all votes in its record.

use super::{
    super::{
        inner::Records,
        votes::{self, Elected, Motion, Vote},
    },
    Driver, Ending, Facts,
    beside::{Beside, Prepared, Waiting},
};
use crate::gateway::live::LiveRoute;
use outlast_engine::{Ask, Call, Event, Settlement, Source};
use outlast_model::{
    Failure, FailureReport, Mono, Usd, Wall,
    policy::ConfidenceFrom,
    record::{Agreement, AttemptRecord, CallRecord, Decision, GaveUp, LeftOut, Outcome, Role},
};
use std::sync::PoisonError;

/// A call that is decided by a vote.
pub(super) struct Voting {
    ask: Ask,
    started: Mono,
    records: Records,
    agreement: Option<Agreement>,
    /// What it cost to tell the answers apart.
    judged: Usd,
}

impl Voting {
    /// `None`: the call is an ordinary one. A vote within a vote is never held.
    pub(super) fn of(route: &LiveRoute, facts: &Facts, ask: &Ask, now: Mono) -> Option<Box<Voting>> {
        let is_vote = matches!(facts.parent.as_ref().map(|parent| parent.role), Some(Role::Vote));
        if route.votes.is_empty() || is_vote {
            return None;
        }
        Some(Box::new(Voting {
            ask: ask.clone(),
            started: now,
            records: Records::default(),
            agreement: None,
            judged: Usd::ZERO,
        }))
    }
}

impl Driver {
    /// Begins the call: with a vote if its tier wants one.
    pub(super) fn begin(&mut self) {
        let rules = self.route.route().tier.votes.clone();
        let (Some(voting), Some(rules)) = (&self.voting, rules) else { return self.feed(Event::Admit) };
        let tier = &self.route.route().tier;
        if voting.ask.needs.provider_effects {
            // What the provider itself does must not be done several times over.
            return self.elected(Elected::Lost {
                cause: FailureReport::of(Failure::Unsupported),
                agreement: None,
                judged: Usd::ZERO,
            });
        }
        let motion = Motion {
            cx: self.cx(),
            rules,
            budget: [tier.cost_max, voting.ask.needs.budget].into_iter().flatten().min(),
            deadline: voting.ask.deadline.map_or(tier.deadline, |own| own.min(tier.deadline)),
            records: Records::clone(&voting.records),
        };
        let future = Box::pin(async move { Beside::Elected(votes::elect(motion).await) });
        self.beside = Some(Waiting { attempt: None, future });
    }

    /// The vote is over: its winner is the reply, or the call goes on to its end without one.
    pub(super) fn elected(&mut self, elected: Elected) {
        let Some(voting) = &mut self.voting else { return };
        let now = self.shared.clock.mono();
        match elected {
            Elected::Won { vote, agreement, divided, judged } => {
                (voting.agreement, voting.judged) = (Some(agreement), judged);
                let Vote { said, plan, record } = *vote;
                self.ending = Some(Ending::Deliver(Source::Backstop(0)));
                self.prepared = Some(Box::new(Prepared::Said(said, plan)));
                let settled = self.won(*record, &agreement, divided);
                self.settle(settled);
            }
            Elected::Lost { cause, agreement, judged } => {
                (voting.agreement, voting.judged) = (agreement, judged);
                let attempts = Merged::of(&voting.records, self.facts.started).attempts;
                self.call = Call::ended_elsewhere(voting.ask.clone(), cause, attempts, now);
                self.feed(Event::Admit);
            }
        }
    }

    fn won(&self, winner: CallRecord, agreement: &Agreement, divided: bool) -> Settlement {
        let by_votes = |from: &ConfidenceFrom| *from == ConfidenceFrom::Votes;
        let confidence = self.route.route().contract.confidence.as_ref();
        let mut gave_up = winner.gave_up;
        gave_up.extend(divided.then_some(GaveUp::Agreement));
        Settlement {
            latency_us: 0,
            first_output_us: None,
            planned: Vec::new(),
            left_out: Vec::new(),
            attempts: Vec::new(),
            outcome: Outcome::Answered,
            served_by: winner.served_by,
            degraded: !gave_up.is_empty(),
            gave_up,
            tool_mode: winner.tool_mode,
            backstop: None,
            confidence: match confidence.is_some_and(|confidence| by_votes(&confidence.from)) {
                true => Some(votes::share(agreement)),
                false => winner.confidence,
            },
            schema_status: winner.schema_status,
            cost: Usd::ZERO,
            wasted: Usd::ZERO,
        }
    }

    /// Adds to a settlement what the votes took.
    pub(super) fn with_votes(&self, mut settled: Settlement) -> Settlement {
        let Some(voting) = &self.voting else { return settled };
        let merged = Merged::of(&voting.records, self.facts.started);
        let took = self.shared.clock.mono().since(voting.started);
        settled.latency_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        settled.first_output_us = settled.outcome.failure().is_none().then_some(settled.latency_us);
        settled.attempts = merged.attempts;
        settled.planned = merged.planned;
        settled.left_out = merged.left_out;
        settled.cost = merged.cost + voting.judged;
        settled.wasted = if settled.served_by.is_some() { merged.wasted } else { settled.cost };
        if settled.served_by.is_none() {
            // Each vote had its reply, and the client none of them.
            let end = if settled.outcome == Outcome::Cancelled { Decision::Cancel } else { Decision::GiveUp };
            let delivered = |attempt: &&mut AttemptRecord| attempt.decision == Decision::Deliver;
            settled.attempts.iter_mut().filter(delivered).for_each(|attempt| attempt.decision = end);
        }
        settled
    }

    /// How the vote went, if there was one.
    pub(super) fn agreement(&self) -> Option<Agreement> {
        self.voting.as_ref().and_then(|voting| voting.agreement)
    }
}

/// The votes' records as those of one call.
struct Merged {
    planned: Vec<outlast_model::TargetId>,
    left_out: Vec<LeftOut>,
    attempts: Vec<AttemptRecord>,
    cost: Usd,
    wasted: Usd,
}

impl Merged {
    fn of(records: &Records, started: Wall) -> Merged {
        let records = records.lock().unwrap_or_else(PoisonError::into_inner);
        let mut attempts: Vec<AttemptRecord> = records.iter().flat_map(|record| since(record, started)).collect();
        attempts.sort_by_key(|attempt| attempt.started_us);
        let first = records.iter().min_by_key(|record| record.started);
        Merged {
            planned: first.map(|record| record.planned.clone()).unwrap_or_default(),
            left_out: first.map(|record| record.left_out.clone()).unwrap_or_default(),
            attempts,
            cost: records.iter().map(|record| record.cost).sum(),
            wasted: records.iter().map(|record| record.wasted).sum(),
        }
    }
}

/// A vote's attempts, their starts counted from the whole call's.
fn since(record: &CallRecord, started: Wall) -> impl Iterator<Item = AttemptRecord> + '_ {
    let later = u64::try_from(record.started.0.saturating_sub(started.0)).unwrap_or(0).saturating_mul(1000);
    record
        .attempts
        .iter()
        .cloned()
        .map(move |attempt| AttemptRecord { started_us: attempt.started_us.saturating_add(later), ..attempt })
}
