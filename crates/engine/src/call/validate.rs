//! Does the reply pass? The only place that mints [`Validated`].

use super::{Action, Call};
use crate::fleet::{Fleet, ReplyQuality};
use outlast_model::{
    Failure, FailureReport, Findings, Gate, Mono, Problem,
    failure::Then,
    policy::{OutputNeed, RefusalPolicy},
    record::{Decision, GaveUp, SchemaStatus},
};

/// Where a reply comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The exchange of this attempt, which has just ended.
    Attempt(u8),
    /// The reply of this attempt that was kept by [`Action::Keep`].
    Kept(u8),
    /// The route's backstop of this number.
    Backstop(usize),
}

/// The proof that a complete reply passed its checks. Nothing outside this file can make one.
#[derive(Debug)]
pub struct Validated {
    source: Source,
    gave_up: Vec<GaveUp>,
}

impl Validated {
    /// Whose reply passed.
    pub fn source(&self) -> Source {
        self.source
    }

    /// What the reply is without.
    pub fn gave_up(&self) -> &[GaveUp] {
        &self.gave_up
    }

    /// It is less than the full contract, and must be marked so.
    pub fn degraded(&self) -> bool {
        !self.gave_up.is_empty()
    }
}

impl Call {
    /// Judges a complete reply by what the checks found in it.
    pub(super) fn checked(&mut self, fleet: &mut Fleet, findings: Findings, now: Mono) {
        let Some(flight) = &self.flight else { return };
        let (attempt, at) = (flight.attempt, flight.at);
        self.schema = findings.schema;
        let worst = worst(&findings.problems).map(|problem| problem.failure);
        self.note_quality(fleet, at, &findings, now);
        match worst {
            None => self.deliver(fleet, attempt, now),
            Some(Failure::Refusal) if !self.refusal_moves_on(fleet, now) => self.deliver(fleet, attempt, now),
            Some(failure) => self.attempt_failed(fleet, FailureReport::of(failure), now),
        }
    }

    fn deliver(&mut self, fleet: &mut Fleet, attempt: u8, now: Mono) {
        self.first_output.get_or_insert(now);
        self.attempts[usize::from(attempt)].decision = Decision::Deliver;
        self.actions.push_back(Action::Deliver {
            validated: Validated { source: Source::Attempt(attempt), gave_up: Vec::new() },
        });
        self.answered(fleet, attempt, now);
    }

    /// A refusal is the reply, unless the contract lets another target be asked and there is one.
    fn refusal_moves_on(&mut self, fleet: &mut Fleet, now: Mono) -> bool {
        let contract_allows = match Failure::Refusal.remedy().then {
            Then::IfContractAllows => self.reroutes_refusals(),
            Then::Reroute
            | Then::RerouteLarger
            | Then::RerouteStructured
            | Then::RerouteTools
            | Then::ReturnReason
            | Then::StreamContract
            | Then::Backstop
            | Then::Settle => false,
        };
        contract_allows && !self.committed && self.somebody_else(fleet, now)
    }

    pub(super) fn reroutes_refusals(&self) -> bool {
        self.route.route().contract.refusal == RefusalPolicy::Reroute
    }

    /// The detectors of quality hear of every reply, good or bad.
    fn note_quality(&self, fleet: &mut Fleet, at: usize, findings: &Findings, now: Mono) {
        let broke = |failure: Failure| findings.problems.iter().any(|problem| problem.failure == failure);
        let structured =
            self.needs.output != OutputNeed::Text || self.needs.tools || findings.schema != SchemaStatus::None;
        let quality = ReplyQuality {
            schema: structured.then(|| !broke(Failure::SchemaError) && !broke(Failure::ToolMismatch)),
            refusal: broke(Failure::Refusal),
            empty: broke(Failure::Empty),
            repaired: !findings.fixes.is_empty(),
            citation: findings
                .cites
                .then(|| !findings.problems.iter().any(|problem| problem.gate == Some(Gate::Citation))),
            gate: findings.problems.iter().any(other_gate),
        };
        fleet.note_reply(self.candidates[at].place, quality, now);
    }
}

/// A gate that has no detector of its own. What nobody judged says nothing about the target.
fn other_gate(problem: &Problem) -> bool {
    problem.failure == Failure::Quality && problem.gate != Some(Gate::Citation)
}

/// The problem that decides: a policy reason before anything else, a refusal only if nothing else is wrong.
fn worst(problems: &[Problem]) -> Option<&Problem> {
    let gravity = |problem: &&Problem| match problem.failure.remedy().then {
        Then::ReturnReason => 0,
        Then::Backstop | Then::Settle | Then::StreamContract => 1,
        Then::Reroute | Then::RerouteLarger | Then::RerouteStructured | Then::RerouteTools => 2,
        Then::IfContractAllows => 3,
    };
    problems.iter().min_by_key(gravity)
}
