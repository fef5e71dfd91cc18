//! Who is to be asked next, and why not the others: what changes while the call lives.
//!
//! The order: healthy targets, then the demoted (a soft detector told, or the provider is suspect or failed this very
//! call as a whole), then those being restored whose share this call has not drawn, then open ones that the route's
//! `max_ejected` calls back. Within each, a target that may do less with tools than the contract's first choice comes
//! after those that may do all, then what the last failure asks for counts (a schema kept natively, tools, a low price),
//! abilities nobody vouched for come after those that are sure, and then the route's own ranking holds. A half-open target takes its ranked place for one call at a time, and only if a fallback
//! stands ready. If every breaker is open, the least blamed target gets a trickle of one call, and the others wait.

use super::{Call, Stage, Then, Wait, attempt::Step};
use crate::fleet::{BoundTarget, Fleet, Standing};
use outlast_model::{
    Failure, FailureReport, Mono,
    policy::{Ability, ToolMode},
    record::{AttemptReason, LeftOut, WhyLeftOut},
};
use std::time::Duration;

/// The longest a call waits for a schedule or a recovery; never more than half of what is left of its deadline.
const PATIENCE: Duration = Duration::from_secs(30);

/// No hedge is sent to a target with more evidence against it than this: half-way to opening.
const CALM: f64 = 4.0;

/// A target that can answer this call.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) place: BoundTarget,
    pub(super) provider: usize,
    unknown: bool,
    /// What the model may do with tools there.
    pub(super) mode: ToolMode,
    /// Less is better.
    pub(super) rank: u64,
    /// Not to be asked again.
    pub(super) tried: bool,
    /// Keys that met a 429 or a rejection in this call, as bits.
    pub(super) used_keys: u64,
    /// It has been asked, and this call's one repetition may be spent here: after a schedule, in a lesser tool mode, or
    /// with a shorter input.
    pub(super) again: bool,
    /// It said that the input is too long.
    pub(super) exceeded: bool,
    /// The input tokens it is to be sent, by the wire's estimate; absent: all of them.
    pub(super) shorten_to: Option<u32>,
}

impl Candidate {
    pub(super) fn new(place: BoundTarget, provider: usize, unknown: bool, mode: ToolMode, rank: u64) -> Self {
        Candidate {
            place,
            provider,
            unknown,
            mode,
            rank,
            tried: false,
            used_keys: 0,
            again: false,
            exceeded: false,
            shorten_to: None,
        }
    }
}

/// What the last failure makes of use in the next target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// It holds its output to a schema.
    Structured,
    /// It surely can call tools.
    Tools,
    /// It costs little.
    Cheap,
}

/// How good a choice is; less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Healthy,
    Demoted,
    Undrawn,
    CalledBack,
}

/// How good a candidate is, in the order of what counts; less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Merit {
    class: Class,
    /// It may do less with tools than the contract's first choice.
    lesser: bool,
    /// How far it is from what the last failure asks for.
    aside: u64,
    unknown: bool,
    rank: u64,
    at: usize,
}

/// A candidate as it stands now.
struct Seen {
    at: usize,
    standing: Standing,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Choice {
    /// This candidate, now. `trial`: with its breaker's permit.
    Ask { at: usize, trial: Option<AttemptReason> },
    /// Nobody now; somebody perhaps then, or when the fleet wakes it.
    Wait(Mono),
    /// Nobody.
    Nobody,
}

impl Call {
    /// The first plan: recorded, and acted on.
    pub(super) fn plan(&mut self, fleet: &mut Fleet, now: Mono) {
        let seen = self.survey(fleet, now);
        let choice = self.choose_among(&seen, fleet, now);
        self.record_plan(&seen, fleet);
        self.act(choice, fleet, now);
    }

    /// Goes on from waiting.
    pub(super) fn go_on(&mut self, fleet: &mut Fleet, now: Mono) {
        let Stage::Waiting(wait) = self.stage else { return };
        self.leave_line(fleet);
        if let Then::Repeat(at) = wait.then {
            let candidate = &self.candidates[at];
            match fleet.standing(candidate.place, candidate.used_keys, self.chance, now) {
                Standing::Healthy | Standing::Demoted | Standing::Undrawn if self.quote(at, None, fleet).is_ok() => {
                    self.start(self.step(at, AttemptReason::SameTarget, None), fleet, now);
                    return;
                }
                Standing::Healthy
                | Standing::Demoted
                | Standing::Undrawn
                | Standing::Trial
                | Standing::Open
                | Standing::Limited(_)
                | Standing::NoKey
                | Standing::Denied => self.candidates[at].tried = true,
            }
        }
        let choice = self.choose(fleet, now);
        self.act(choice, fleet, now);
    }

    /// Who is to be asked next, as things stand.
    pub(super) fn choose(&mut self, fleet: &mut Fleet, now: Mono) -> Choice {
        let seen = self.survey(fleet, now);
        self.choose_among(&seen, fleet, now)
    }

    /// Every candidate that this call may still ask.
    fn survey(&mut self, fleet: &mut Fleet, now: Mono) -> Vec<Seen> {
        let left = now.until(self.deadline);
        let mut seen = Vec::with_capacity(self.candidates.len());
        for at in 0..self.candidates.len() {
            let candidate = &self.candidates[at];
            let target = fleet.target(candidate.place.ix);
            let shortened = candidate.shorten_to.is_some();
            let too_small = !shortened && target.spec.context_window.is_some_and(|window| window <= self.larger_than);
            let Ok(quote) = self.quote(at, None, fleet) else { continue };
            // What was cut off there would be cut off here.
            let limit = quote.map(|quote| quote.output).or(target.spec.max_output);
            let too_short = self.longer_than > 0 && limit.is_some_and(|limit| limit <= self.longer_than);
            // A further attempt that would most likely run out of time is not worth its price. A first one is, and so is
            // one on a target whose speed is only guessed: a guess must not leave a short deadline without a fallback.
            let known = target.latency(&self.needs).known_p50(self.needs.input_tokens);
            let too_late = !self.attempts.is_empty() && known.is_some_and(|p50| p50 > left);
            let repeats = candidate.again && self.repeated;
            if candidate.tried || repeats || too_small || too_short || too_late || self.quote(at, None, fleet).is_err()
            {
                continue;
            }
            seen.push(Seen { at, standing: fleet.standing(candidate.place, candidate.used_keys, self.chance, now) });
        }
        seen
    }

    /// Who may race a candidate whose first output is late: another target that is well and would answer no worse; of
    /// another provider, if there is one.
    pub(super) fn rival_of(&mut self, from: usize, fleet: &mut Fleet, now: Mono) -> Option<usize> {
        let was_tried = std::mem::replace(&mut self.candidates[from].tried, true);
        let seen = self.survey(fleet, now);
        self.candidates[from].tried = was_tried;
        let slow = &self.candidates[from];
        let may_race = |seen: &&Seen| {
            let other = &self.candidates[seen.at];
            let well = fleet.target(other.place.ix).breaker.evidence(now) <= CALM;
            let no_worse = other.mode == slow.mode && other.shorten_to == slow.shorten_to;
            well && no_worse && other.place.ix != slow.place.ix && self.class(seen) == Some(Class::Healthy)
        };
        let order = |seen: &Seen| {
            let same_provider = self.candidates[seen.at].provider == slow.provider;
            (same_provider, self.merit(Class::Healthy, seen.at, fleet))
        };
        seen.iter().filter(may_race).map(order).min().map(|(_, merit)| merit.at)
    }

    /// How many other candidates it may still ask whose breakers let it.
    pub(super) fn others_serving(&self, fleet: &Fleet) -> usize {
        let untried = self.candidates.iter().filter(|candidate| !candidate.tried);
        untried.filter(|candidate| fleet.target(candidate.place.ix).breaker.serving()).count()
    }

    fn class(&self, seen: &Seen) -> Option<Class> {
        match seen.standing {
            Standing::Healthy if self.shunned.contains(&self.candidates[seen.at].provider) => Some(Class::Demoted),
            Standing::Healthy => Some(Class::Healthy),
            Standing::Demoted => Some(Class::Demoted),
            Standing::Undrawn => Some(Class::Undrawn),
            Standing::Trial | Standing::Open | Standing::Limited(_) | Standing::NoKey | Standing::Denied => None,
        }
    }

    fn merit(&self, class: Class, at: usize, fleet: &Fleet) -> Merit {
        let candidate = &self.candidates[at];
        let able = |ability: Ability| u64::from(ability != Ability::Yes);
        let capabilities = || fleet.target(candidate.place.ix).spec.capabilities;
        let aside = match self.want {
            None => 0,
            Some(Want::Structured) => able(capabilities().json_schema),
            Some(Want::Tools) => able(capabilities().tools),
            Some(Want::Cheap) => fleet.expected_cost(candidate.place.ix, &self.needs).unwrap_or(u64::MAX),
        };
        let tools = self.route.route().contract.tools.as_ref();
        let lesser = tools.is_some_and(|policy| self.needs.tools && candidate.mode > policy.primary);
        Merit { class, lesser, aside, unknown: candidate.unknown, rank: candidate.rank, at }
    }

    fn choose_among(&self, seen: &[Seen], fleet: &Fleet, now: Mono) -> Choice {
        let best = seen.iter().filter_map(|seen| Some(self.merit(self.class(seen)?, seen.at, fleet))).min();
        let Some(best) = best.or_else(|| self.called_back(seen, fleet, now)) else {
            return self.for_want_of_better(seen, fleet, now);
        };
        // A live trial needs a fallback, which `best` is, and an attempt to spend on it.
        let spare = self.attempts.len() + 2 <= usize::from(self.route.route().tier.attempts);
        let trial = seen
            .iter()
            .filter(|seen| spare && seen.standing == Standing::Trial)
            .map(|seen| self.merit(Class::Healthy, seen.at, fleet))
            .min()
            .filter(|trial| *trial < best);
        match trial {
            Some(trial) => Choice::Ask { at: trial.at, trial: Some(AttemptReason::HalfOpenTrial) },
            None => Choice::Ask { at: best.at, trial: None },
        }
    }

    /// More targets are out than the policy allows: the least blamed of them serve again.
    fn called_back(&self, seen: &[Seen], fleet: &Fleet, now: Mono) -> Option<Merit> {
        let allowed = (fleet.policy().max_ejected * self.candidates.len() as f64).floor() as usize;
        let open = self.open_by_blame(seen, fleet, now);
        let too_many = open.len().saturating_sub(allowed);
        open.into_iter().take(too_many).map(|(_, at)| self.merit(Class::CalledBack, at, fleet)).min()
    }

    /// Candidates whose breaker is open or half-open, the least blamed first.
    fn open_by_blame(&self, seen: &[Seen], fleet: &Fleet, now: Mono) -> Vec<(f64, usize)> {
        let mut open: Vec<_> = seen
            .iter()
            .filter(|seen| matches!(seen.standing, Standing::Open | Standing::Trial))
            .map(|seen| (fleet.target(self.candidates[seen.at].place.ix).breaker.evidence(now), seen.at))
            .collect();
        open.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        open
    }

    /// Nobody serves: a trickle to the least blamed, or wait.
    fn for_want_of_better(&self, seen: &[Seen], fleet: &Fleet, now: Mono) -> Choice {
        let open = self.open_by_blame(seen, fleet, now);
        if let Some((_, at)) = open.first()
            && fleet.trickle_free(self.candidates[*at].place.ix, now)
        {
            return Choice::Ask { at: *at, trial: Some(AttemptReason::Trickle) };
        }
        let scheduled = seen.iter().filter_map(|seen| match seen.standing {
            Standing::Limited(at) => Some(at),
            Standing::Healthy
            | Standing::Demoted
            | Standing::Undrawn
            | Standing::Trial
            | Standing::Open
            | Standing::NoKey
            | Standing::Denied => None,
        });
        match (scheduled.min(), open.is_empty()) {
            (Some(at), _) => Choice::Wait(at),
            (None, false) => Choice::Wait(Mono::FAR),
            (None, true) => Choice::Nobody,
        }
    }

    /// Does it: for a first attempt, or after waiting. Moves after a failure are decided, and paid for, in `remedy`.
    pub(super) fn act(&mut self, choice: Choice, fleet: &mut Fleet, now: Mono) {
        match choice {
            Choice::Ask { at, trial } => {
                let reason = match (self.patience.is_some(), self.attempts.is_empty()) {
                    (true, _) => AttemptReason::AfterWait,
                    (false, true) => AttemptReason::First,
                    (false, false) => AttemptReason::Reroute,
                };
                self.start(self.step(at, reason, trial), fleet, now);
            }
            Choice::Wait(until) if self.wait(until, fleet, now) => {}
            Choice::Wait(_) | Choice::Nobody if !self.attempts_spent() && self.shorten(fleet) => {
                let choice = self.choose(fleet, now);
                self.act(choice, fleet, now);
            }
            Choice::Wait(_) | Choice::Nobody => self.give_up(fleet, now),
        }
    }

    /// Asking a candidate, for the reason that tells most.
    pub(super) fn step(&self, at: usize, otherwise: AttemptReason, trial: Option<AttemptReason>) -> Step {
        let candidate = &self.candidates[at];
        let waited = otherwise == AttemptReason::AfterWait;
        let reason = match (trial, candidate.shorten_to) {
            (Some(trial), _) => trial,
            (None, Some(_)) => AttemptReason::Shorten,
            (None, None) if candidate.again && !waited => AttemptReason::SameTarget,
            (None, None) => otherwise,
        };
        Step { at, reason, trial: trial.is_some(), mend: None }
    }

    /// Whether the call would wait until then. FAR means until the fleet wakes it.
    pub(super) fn patient(&mut self, until: Mono, now: Mono) -> bool {
        let patience = *self.patience.get_or_insert(now + PATIENCE.min(now.until(self.deadline) / 2));
        now < patience && (until <= patience || until == Mono::FAR)
    }

    /// Waits in line, if patience lasts until then. False: it does not.
    pub(super) fn wait(&mut self, until: Mono, fleet: &mut Fleet, now: Mono) -> bool {
        if !self.patient(until, now) {
            return false;
        }
        let until = until.min(self.patience.unwrap_or(until));
        let line = self.candidates.iter().filter(|candidate| !candidate.tried).map(|candidate| candidate.place.ix);
        self.ticket = Some(fleet.park(self.id, line));
        self.stage = Stage::Waiting(Wait { until, then: Then::Plan });
        true
    }

    pub(super) fn leave_line(&mut self, fleet: &mut Fleet) {
        if let Some(ticket) = self.ticket.take() {
            fleet.unpark(ticket, self.candidates.iter().map(|candidate| candidate.place.ix));
        }
    }

    /// Writes down who fitted and who did not.
    fn record_plan(&mut self, seen: &[Seen], fleet: &Fleet) {
        let id = |at: usize| fleet.target(self.candidates[at].place.ix).spec.id.clone();
        let mut order: Vec<_> =
            seen.iter().filter_map(|seen| Some(self.merit(self.class(seen)?, seen.at, fleet))).collect();
        order.sort_unstable();
        let serving = order.iter().any(|merit| merit.class < Class::Undrawn);
        let drawn = |merit: &Merit| !serving || merit.class < Class::Undrawn;
        self.planned = order.into_iter().filter(drawn).map(|merit| id(merit.at)).collect();
        for seen in seen {
            let why = match seen.standing {
                Standing::Healthy | Standing::Demoted => continue,
                Standing::Undrawn if !serving => continue,
                Standing::Undrawn => WhyLeftOut::Restoring,
                Standing::Trial | Standing::Open => WhyLeftOut::BreakerOpen,
                Standing::Limited(_) => WhyLeftOut::RateLimited,
                Standing::NoKey => WhyLeftOut::NoKey,
                Standing::Denied => WhyLeftOut::AccessDenied,
            };
            self.left_out.push(LeftOut { target: id(seen.at), why });
        }
    }

    /// What a call that could ask nobody tells its client: the nearest miss among the targets left out.
    pub(super) fn why_nobody(&self) -> Option<FailureReport> {
        /// A target that will recover tells more than one that never could.
        fn nearness(why: &WhyLeftOut) -> (u8, Failure) {
            match why {
                WhyLeftOut::RateLimited => (0, Failure::RateLimited),
                WhyLeftOut::BreakerOpen | WhyLeftOut::Restoring => (1, Failure::Overloaded),
                WhyLeftOut::NoKey => (2, Failure::Auth),
                WhyLeftOut::AccessDenied => (3, Failure::AccessDenied),
                WhyLeftOut::ContextTooSmall { .. } | WhyLeftOut::OutputTooLong { .. } => (4, Failure::ContextExceeded),
                WhyLeftOut::NoTools => (5, Failure::ToolMismatch),
                WhyLeftOut::NoImages | WhyLeftOut::NoSchema | WhyLeftOut::CannotCarry(_) => (6, Failure::Unsupported),
                WhyLeftOut::OverBudget { .. } | WhyLeftOut::PriceUnknown => (7, Failure::CostSpike),
                WhyLeftOut::NotPermitted(_) => (8, Failure::AccessDenied),
            }
        }
        let nearest = self.left_out.iter().map(|left| nearness(&left.why)).min_by_key(|(distance, _)| *distance)?;
        Some(FailureReport::of(nearest.1))
    }
}
