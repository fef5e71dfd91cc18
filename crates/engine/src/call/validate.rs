//! Does the reply pass? The only place that mints [`Validated`].

use super::{Action, Call, Source};
use crate::fleet::{Fleet, ReplyQuality};
use outlast_model::{
    Failure, FailureReport, Findings, Gate, Mono, Problem,
    failure::Then,
    policy::{OutputNeed, RefusalPolicy},
    record::{AttemptReason, Decision, GaveUp, Outcome, SchemaStatus},
};

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

/// A reply that was checked and broke something, or no reply at all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Broken {
    /// It breaks only the full schema.
    pub(super) keeps_degraded: bool,
    /// The model may be able to mend everything that is wrong with it.
    pub(super) mendable: bool,
}

/// What is known of a checked reply.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Judged {
    pub(super) schema: SchemaStatus,
    pub(super) confidence: Option<f64>,
}

/// A reply that keeps the degraded schema, in the host's keeping while better paths are tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    attempt: u8,
    judged: Judged,
}

impl Call {
    /// Judges a complete reply by what the checks found in it.
    pub(super) fn checked(&mut self, fleet: &mut Fleet, findings: Findings, now: Mono) {
        let Some(flight) = &self.flight else { return };
        let (attempt, at) = (flight.attempt, flight.at);
        self.note_quality(fleet, at, &findings, now);
        self.spend.judging(Source::Attempt(attempt), findings.cost);
        self.judged = Judged { schema: findings.schema, confidence: findings.confidence };
        let leading = self.leading(&findings.problems);
        let alone = findings.problems.len() == 1;
        let broken =
            Broken { keeps_degraded: keeps_degraded(&findings), mendable: findings.problems.iter().all(is_mendable) };
        let record = &mut self.attempts[usize::from(attempt)];
        record.problems = findings.problems;
        record.fixes = findings.fixes;
        match leading {
            None => self.deliver(fleet, attempt, now),
            Some(Failure::Refusal) if alone && !self.refusal_moves_on(fleet, now) => self.deliver(fleet, attempt, now),
            Some(failure) => self.attempt_failed(fleet, FailureReport::of(failure), broken, now),
        }
    }

    /// The failure that decides: a policy reason before anything else, then what no other target would change, then a
    /// refusal that the contract does not take for an answer. One that it does take counts only if nothing else is wrong.
    fn leading(&self, problems: &[Problem]) -> Option<Failure> {
        let refused = match self.route.route().contract.refusal {
            RefusalPolicy::Deliver => 4,
            RefusalPolicy::Reroute | RefusalPolicy::Review => 2,
        };
        let gravity = |failure: &Failure| match failure.remedy().then {
            Then::ReturnReason => 0,
            Then::Backstop | Then::Settle | Then::StreamContract => 1,
            Then::IfContractAllows => refused,
            Then::Reroute | Then::RerouteLarger | Then::RerouteStructured | Then::RerouteTools => 3,
        };
        problems.iter().map(|problem| problem.failure).min_by_key(gravity)
    }

    /// A refusal is the reply, unless the contract wants a person to see it, or lets another target be asked and there is
    /// one.
    fn refusal_moves_on(&mut self, fleet: &mut Fleet, now: Mono) -> bool {
        match self.route.route().contract.refusal {
            RefusalPolicy::Deliver => false,
            RefusalPolicy::Reroute => !self.committed && self.somebody_else(fleet, now),
            RefusalPolicy::Review => !self.committed,
        }
    }

    fn deliver(&mut self, fleet: &mut Fleet, attempt: u8, now: Mono) {
        self.tell_success(fleet, now);
        let gave_up = self.given_up(attempt, false);
        self.mint(fleet, Source::Attempt(attempt), gave_up, now);
    }

    /// Nothing better is left than the reply in hand, which keeps the degraded schema.
    pub(super) fn deliver_degraded(&mut self, fleet: &mut Fleet, attempt: u8, now: Mono) {
        let gave_up = self.given_up(attempt, true);
        self.mint(fleet, Source::Attempt(attempt), gave_up, now);
    }

    /// Nothing better came than the reply that was kept.
    pub(super) fn deliver_kept(&mut self, fleet: &mut Fleet, now: Mono) {
        let Some(Kept { attempt, judged }) = self.kept.take() else { return };
        self.judged = judged;
        let gave_up = self.given_up(attempt, true);
        self.mint(fleet, Source::Kept(attempt), gave_up, now);
    }

    /// Keeps the reply in hand, if it keeps the degraded schema and none is kept yet.
    pub(super) fn keep(&mut self, attempt: u8, broken: Broken) -> bool {
        let keeps = broken.keeps_degraded && self.kept.is_none();
        if keeps {
            self.kept = Some(Kept { attempt, judged: self.judged });
            self.actions.push_back(Action::Keep { attempt });
        }
        keeps
    }

    /// A backstop's reply is held to the same contract. False: it does not pass.
    pub(super) fn deliver_backstop(
        &mut self,
        fleet: &mut Fleet,
        at: usize,
        findings: &Findings,
        without: GaveUp,
        now: Mono,
    ) -> bool {
        let refused = |problem: &Problem| problem.failure == Failure::Refusal;
        let refusal_allowed = self.route.route().contract.refusal == RefusalPolicy::Deliver;
        let passes = findings.problems.iter().all(|problem| refusal_allowed && refused(problem));
        if !passes && !keeps_degraded(findings) {
            return false;
        }
        self.judged = Judged { schema: findings.schema, confidence: findings.confidence };
        let mut gave_up = vec![without];
        gave_up.extend((!passes).then_some(GaveUp::Schema));
        self.mint(fleet, Source::Backstop(at), gave_up, now);
        true
    }

    /// What the reply of an attempt is without.
    fn given_up(&self, attempt: u8, schema: bool) -> Vec<GaveUp> {
        let record = &self.attempts[usize::from(attempt)];
        let primary = self.route.route().contract.tools.as_ref().map(|policy| policy.primary);
        let mode = record.tool_mode;
        let mut gave_up = Vec::new();
        gave_up.extend(primary.is_some_and(|primary| mode > primary).then_some(GaveUp::Tools { mode }));
        gave_up.extend(schema.then_some(GaveUp::Schema));
        gave_up.extend(record.shortened.then_some(GaveUp::Input));
        gave_up
    }

    fn mint(&mut self, fleet: &mut Fleet, source: Source, gave_up: Vec<GaveUp>, now: Mono) {
        self.first_output.get_or_insert(now);
        if let Source::Attempt(attempt) | Source::Kept(attempt) = source {
            self.attempts[usize::from(attempt)].decision = Decision::Deliver;
        }
        self.schema = self.judged.schema;
        self.confidence = self.judged.confidence;
        self.actions.push_back(Action::Deliver { validated: Validated { source, gave_up: gave_up.clone() } });
        self.leave_target(fleet, now);
        self.conclude(fleet, Outcome::Answered, Some(source), gave_up, now);
    }

    /// The detectors of quality hear of every reply, good or bad.
    fn note_quality(&self, fleet: &mut Fleet, at: usize, findings: &Findings, now: Mono) {
        let broke = |failure: Failure| findings.problems.iter().any(|problem| problem.failure == failure);
        let structured =
            self.needs.output != OutputNeed::Text || self.needs.tools || findings.schema != SchemaStatus::None;
        let mended = self.attempts.last().is_some_and(|attempt| attempt.reason == AttemptReason::Repair);
        let quality = ReplyQuality {
            schema: structured.then(|| !broke(Failure::SchemaError) && !broke(Failure::ToolMismatch)),
            refusal: broke(Failure::Refusal),
            empty: broke(Failure::Empty),
            repaired: mended || !findings.fixes.is_empty(),
            citation: findings
                .cites
                .then(|| !findings.problems.iter().any(|problem| problem.gate == Some(Gate::Citation))),
            gate: findings.problems.iter().any(other_gate),
        };
        fleet.note_reply(self.candidates[at].place, quality, now);
    }
}

/// It breaks the full schema, keeps the degraded one, and nothing else is wrong with it.
fn keeps_degraded(findings: &Findings) -> bool {
    findings.keeps_degraded && findings.problems.iter().all(|problem| problem.failure == Failure::SchemaError)
}

/// Whether telling the model what is wrong may help: not with what it did not want to say, with claims and doubts, or
/// with what nobody could judge.
fn is_mendable(problem: &Problem) -> bool {
    match problem.gate {
        Some(
            Gate::Schema
            | Gate::Drift
            | Gate::Citation
            | Gate::MustInclude
            | Gate::MustNot
            | Gate::Language
            | Gate::Length
            | Gate::Expression
            | Gate::Validator,
        ) => true,
        Some(Gate::Duplicate | Gate::Claim | Gate::Confidence | Gate::Unjudged) => false,
        // What the request itself demands is no gate of the contract's.
        None => problem.failure == Failure::SchemaError,
    }
}

/// A gate that has no detector of its own. What nobody judged says nothing about the target.
fn other_gate(problem: &Problem) -> bool {
    problem.failure == Failure::Quality && problem.gate != Some(Gate::Citation)
}
