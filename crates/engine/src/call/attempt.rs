//! One exchange with one target: its deadlines, its first output, the commit point, and being overdue.
//!
//! An exchange is *late* once it takes longer than nearly all do (the p99), and *overdue* at three times that. An overdue
//! exchange is evidence at once, long before its deadline passes; if nobody at all has been answered since it left, it
//! speaks for the other late ones too. If that opens the breaker, or it is open already, the late calls leave for the
//! next target; if not, they wait on, and what was said is taken back should an output come after all.

use super::{Action, Call, Spent, Stage, Told, plan::Choice, spend::runaway, validate::Broken};
use crate::fleet::{Fleet, TargetIx};
use outlast_model::{
    Brief, Failure, FailureReport, Mend, Mono,
    failure::Deadline,
    policy::{StreamContract, Timeouts, ToolMode},
    record::{AttemptReason, AttemptRecord, Decision},
    turn::{Finish, Usage},
};
use std::time::Duration;

/// What a permit holder gets beyond the time at which it is overdue.
const PERMIT_GRACE: Duration = Duration::from_secs(5);

/// An attempt to be made.
#[derive(Debug)]
pub(super) struct Step {
    /// The candidate to be asked.
    pub(super) at: usize,
    pub(super) reason: AttemptReason,
    /// With its target's permit.
    pub(super) trial: bool,
    pub(super) mend: Option<Mend>,
}

/// How an exchange stands against what its target usually takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Punctuality {
    InTime,
    Late,
    /// Late enough to be evidence, which has been given.
    Overdue,
}

/// The exchange in flight.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) attempt: u8,
    /// The candidate that is asked.
    pub(super) at: usize,
    pub(super) ix: usize,
    pub(super) key: u8,
    /// It holds its target's permit.
    pub(super) trial: bool,
    pub(super) started: Mono,
    pub(super) headers: bool,
    pub(super) first_output: Option<Mono>,
    pub(super) streamed: bool,
    pub(super) input_tokens: u32,
    /// It is to mend the reply before.
    pub(super) mends: bool,
    /// The output limit it was given, where the client's own is none.
    pub(super) output_limit: Option<u32>,
    /// The output tokens that are paid for, under a cap.
    paid_for: Option<u32>,
    /// What its stream promises.
    stream: StreamContract,
    /// The last sign of life after the head.
    pub(super) last: Mono,
    tokens: u32,
    releasable: bool,
    limits: Timeouts,
    late_at: Mono,
    overdue_at: Mono,
    stalled_after: Duration,
    punctuality: Punctuality,
    /// It is raced then, if nothing has come of it.
    pub(super) hedge_at: Mono,
    /// The hold ends then.
    hold_until: Mono,
}

impl Flight {
    /// The deadline that comes first, and what passing it is called.
    fn limit(&self) -> (Mono, Failure) {
        let total = (self.started + self.limits.total, Deadline::Total);
        let header = (self.started + self.limits.header, Deadline::Header);
        let first = (self.started + self.limits.first_token, Deadline::FirstToken);
        let idle = (self.last + self.limits.idle, Deadline::Idle);
        let next = match (self.streamed, self.headers, self.first_output) {
            (true, false, _) => header.min(first),
            (true, true, None) => first,
            (false, false, _) => header,
            (false, true, _) | (true, true, Some(_)) => idle,
        };
        let (at, deadline) = total.min(next);
        (at, Failure::Timeout(deadline))
    }

    /// When it becomes less punctual, and what it will be then.
    fn next_mark(&self) -> (Mono, Punctuality) {
        match (self.punctuality, self.first_output) {
            (Punctuality::Overdue, _) => (Mono::FAR, Punctuality::Overdue),
            (_, Some(_)) => (self.last + self.stalled_after, Punctuality::Overdue),
            (Punctuality::Late, None) => (self.overdue_at, Punctuality::Overdue),
            (Punctuality::InTime, None) => (self.late_at, Punctuality::Late),
        }
    }

    /// What being late is called.
    fn lateness(&self) -> Failure {
        Failure::Timeout(match (self.streamed, self.first_output) {
            (true, Some(_)) => Deadline::Idle,
            (true, None) => Deadline::FirstToken,
            (false, _) => Deadline::Header,
        })
    }

    /// When it next needs a tick.
    pub(super) fn due(&self) -> Mono {
        self.limit().0.min(self.next_mark().0).min(self.hold_until).min(self.hedge_at)
    }
}

impl Call {
    /// Asks a candidate.
    pub(super) fn start(&mut self, step: Step, fleet: &mut Fleet, now: Mono) {
        let Step { at, reason, trial, mend } = step;
        let (brief, paid_for) = self.put(at, mend, fleet);
        let candidate = &self.candidates[at];
        let (ix, budget) = (candidate.place.ix, candidate.place.budget);
        // An open target's key was not looked at by the plan; its first key serves then.
        let key = fleet.pick_key(ix, candidate.used_keys, now).unwrap_or(0);
        let target = fleet.target(ix);
        let overdue_after = target.latency(&self.needs).overdue_after(self.needs.input_tokens);
        let overdue_at = now + overdue_after;
        let limits = clipped(&target.spec.timeouts, now.until(self.deadline));
        let target_id = target.spec.id.clone();
        let stalled_after = target.stalled_after();
        let own_limit = self.needs.max_output_tokens.is_some();
        let output_limit = brief.max_output_tokens.or(target.spec.max_output.filter(|_| !own_limit));
        if brief.mend.is_none() {
            let same = |earlier: &AttemptRecord| earlier.target == target_id && earlier.key == key;
            self.repeated |= self.attempts.iter().any(same);
        }
        fleet.begin(ix, key, self.id, trial.then(|| overdue_at + PERMIT_GRACE), now);
        let hedge_at = self.hedge_at(ix, fleet, now);
        if self.attempts.is_empty() {
            fleet.earn(budget, &self.route);
        }
        let attempt = u8::try_from(self.attempts.len()).expect("a tier has at most 255 attempts");
        self.attempts.push(AttemptRecord {
            target: target_id.clone(),
            key,
            reason,
            started_us: micros(now.since(self.started)),
            first_output_us: None,
            took_us: 0,
            failure: None,
            problems: Vec::new(),
            fixes: Vec::new(),
            tool_mode: brief.tool_mode,
            shortened: brief.shorten_to.is_some(),
            finish: None,
            bytes_out: 0,
            bytes_in: 0,
            usage: Usage::default(),
            cost: None,
            decision: Decision::Cancel,
        });
        self.flight = Some(Flight {
            attempt,
            at,
            ix,
            key,
            trial,
            started: now,
            headers: false,
            first_output: None,
            streamed: self.needs.stream,
            input_tokens: self.needs.input_tokens,
            mends: brief.mend.is_some(),
            output_limit,
            paid_for,
            // What a lesser tool mode makes of the reply is only known at its end.
            stream: if brief.tool_mode == ToolMode::Full { self.stream } else { StreamContract::Buffer },
            last: now,
            tokens: 0,
            releasable: false,
            limits,
            late_at: now + overdue_after / 3,
            overdue_at,
            stalled_after,
            punctuality: Punctuality::InTime,
            hedge_at,
            hold_until: Mono::FAR,
        });
        self.stage = Stage::Live;
        let fallback_reason = self.first_failure.as_ref().map(|(_, report)| report.failure);
        let target = TargetIx::of(ix);
        self.actions.push_back(Action::Start {
            attempt,
            target,
            target_id,
            key,
            timeouts: limits,
            fallback_reason,
            brief,
        });
    }

    /// How the request is to be put to a candidate, and what that may cost: reserved from here on.
    fn put(&mut self, at: usize, mend: Option<Mend>, fleet: &Fleet) -> (Brief, Option<u32>) {
        let mending = mend.as_ref().map(|mend| self.attempts[usize::from(mend.attempt)].usage.output_tokens);
        // Nobody is asked who has not been found to fit.
        let quote = self.quote(at, mending, fleet).ok().flatten();
        self.spend.reserve(quote);
        self.mended |= mend.is_some();
        let candidate = &self.candidates[at];
        let brief = Brief {
            tool_mode: candidate.mode,
            max_output_tokens: quote.and_then(|quote| quote.clamp),
            shorten_to: candidate.shorten_to,
            mend,
        };
        (brief, quote.map(|quote| quote.paid_for))
    }

    pub(super) fn headers(&mut self, fleet: &mut Fleet, now: Mono) {
        let Some(flight) = &mut self.flight else { return };
        flight.headers = true;
        flight.last = now;
        fleet.key_passed(flight.ix, flight.key, flight.started, now);
    }

    pub(super) fn output(&mut self, fleet: &mut Fleet, tokens: u32, releasable: bool, now: Mono) {
        let Some(flight) = &mut self.flight else { return };
        flight.last = now;
        if !flight.streamed {
            return;
        }
        flight.hedge_at = Mono::FAR;
        flight.tokens = flight.tokens.saturating_add(tokens);
        flight.releasable |= releasable;
        if flight.punctuality != Punctuality::InTime {
            self.speak_again(fleet, now);
        }
        self.win(fleet, now);
        self.note_first_output(fleet, now);
        let Some(flight) = &self.flight else { return };
        if flight.paid_for.is_some_and(|limit| runaway(limit, flight.tokens)) {
            let (attempt, at, tokens) = (flight.attempt, flight.at, flight.tokens);
            self.abort(attempt);
            self.overrun(attempt, at, tokens, fleet);
            self.attempt_failed(fleet, FailureReport::of(Failure::CostSpike), Broken::default(), now);
            return;
        }
        self.release_if_due(now);
    }

    /// The silence is over: what was said of it is taken back.
    fn speak_again(&mut self, fleet: &mut Fleet, now: Mono) {
        let Some(flight) = &mut self.flight else { return };
        flight.punctuality = Punctuality::InTime;
        let ix = flight.ix;
        fleet.punctual(ix, self.id);
        self.absolve(fleet, ix, now);
    }

    fn note_first_output(&mut self, fleet: &mut Fleet, now: Mono) {
        let Some(flight) = self.flight.as_mut().filter(|flight| flight.first_output.is_none()) else { return };
        flight.first_output = Some(now);
        let took = now.since(flight.started);
        self.attempts[usize::from(flight.attempt)].first_output_us = Some(micros(took));
        fleet.judge_speed(flight.ix, Some(&self.needs), took, now);
        if let StreamContract::Hold { after, .. } = flight.stream {
            flight.hold_until = now + after;
        }
    }

    /// The commit point, when the stream contract has come to it.
    fn release_if_due(&mut self, now: Mono) {
        let Some(flight) = &mut self.flight else { return };
        let due = match flight.stream {
            StreamContract::Buffer => false,
            StreamContract::Fail => true,
            StreamContract::Hold { tokens, .. } => flight.tokens >= tokens || now >= flight.hold_until,
        };
        if now >= flight.hold_until {
            flight.hold_until = Mono::FAR;
            // The time is up for whatever becomes releasable later, too.
            flight.stream = StreamContract::Fail;
        }
        if due && flight.releasable && !self.committed {
            flight.hold_until = Mono::FAR;
            self.committed = true;
            self.first_output = Some(now);
            self.actions.push_back(Action::Release { attempt: flight.attempt });
        }
    }

    /// The whole reply is here.
    pub(super) fn ended(&mut self, fleet: &mut Fleet, finish: Option<Finish>, spent: Spent, now: Mono) {
        self.win(fleet, now);
        let Some(flight) = &self.flight else { return };
        let attempt = flight.attempt;
        let took = now.since(flight.started);
        if !flight.streamed {
            fleet.judge_speed(flight.ix, Some(&self.needs), took, now);
        } else if let Some(first) = flight.first_output
            && flight.tokens > 1
        {
            fleet.learn_gap(flight.ix, flight.last.since(first) / (flight.tokens - 1));
        }
        let record = &mut self.attempts[usize::from(attempt)];
        record.took_us = micros(took);
        record.finish = finish;
        self.spent(fleet, attempt, spent);
        self.stage = Stage::Checking;
        self.actions.push_back(Action::Check { attempt, budget: self.spend.left() });
    }

    /// The host's account of a failure.
    pub(super) fn reported(&mut self, fleet: &mut Fleet, report: FailureReport, spent: Spent, now: Mono) {
        let Some(flight) = &self.flight else { return };
        self.spent(fleet, flight.attempt, spent);
        if report.failure == Failure::Cancelled {
            self.client_gone(fleet, now);
        } else {
            self.attempt_failed(fleet, report, Broken::default(), now);
        }
    }

    /// Closes the exchange in flight.
    pub(super) fn abort(&mut self, attempt: u8) {
        self.owed += 1;
        self.actions.push_back(Action::Abort { attempt });
    }

    /// A deadline of the exchange, its overdue mark, or the end of its hold.
    pub(super) fn tick_flight(&mut self, fleet: &mut Fleet, now: Mono) {
        self.release_if_due(now);
        let Some(flight) = &mut self.flight else { return };
        let (limit, failure) = flight.limit();
        if now >= limit {
            let attempt = flight.attempt;
            self.abort(attempt);
            self.attempt_failed(fleet, FailureReport::of(failure), Broken::default(), now);
            return;
        }
        let (due, mark) = flight.next_mark();
        if now >= due {
            flight.punctuality = mark;
            let (ix, sent, trial, failure) = (flight.ix, flight.started, flight.trial, flight.lateness());
            fleet.late(ix, self.id);
            if mark == Punctuality::Overdue && !self.told.iter().any(|told| told.ix == ix) {
                let receipt = fleet.overdue(ix, self.id, sent, trial, failure, now);
                self.told.push(Told { ix, failure, receipt, suspicion: true });
            }
            self.leave_if_open(fleet, now);
        }
        self.hedge(fleet, now);
    }

    /// Leaves a late exchange whose target's breaker is open, if somebody else can be asked at once. The one that tries
    /// the target stays until it is overdue.
    pub(super) fn leave_if_open(&mut self, fleet: &mut Fleet, now: Mono) {
        let Some(flight) = &self.flight else { return };
        let bearable = match flight.punctuality {
            Punctuality::InTime => true,
            Punctuality::Late => flight.trial,
            Punctuality::Overdue => false,
        };
        if bearable || self.committed || fleet.target(flight.ix).breaker.serving() {
            return;
        }
        let (at, attempt, failure) = (flight.at, flight.attempt, flight.lateness());
        if self.rival.is_some() {
            self.abort(attempt);
            self.close_attempt(fleet, FailureReport::of(failure), Decision::Reroute, now);
            return;
        }
        if self.attempts_spent() {
            return;
        }
        let was_tried = std::mem::replace(&mut self.candidates[at].tried, true);
        match self.choose(fleet, now) {
            Choice::Ask { at: next, trial: None } => {
                self.abort(attempt);
                self.close_attempt(fleet, FailureReport::of(failure), Decision::Reroute, now);
                self.start(self.step(next, AttemptReason::Reroute, None), fleet, now);
            }
            // Nobody better: a slow answer beats none.
            Choice::Ask { trial: Some(_), .. } | Choice::Wait(_) | Choice::Nobody => {
                self.candidates[at].tried = was_tried;
            }
        }
    }

    /// Enters what an attempt took.
    pub(super) fn spent(&mut self, fleet: &mut Fleet, attempt: u8, spent: Spent) {
        let record = &mut self.attempts[usize::from(attempt)];
        (record.usage, record.bytes_out, record.bytes_in) = (spent.usage, spent.bytes_out, spent.bytes_in);
        let mut places = self.candidates.iter().map(|candidate| candidate.place.ix);
        let Some(ix) = places.find(|ix| fleet.target(*ix).spec.id == record.target) else { return };
        record.cost = fleet.target(ix).spec.price.map(|price| price.cost(&spent.usage));
        self.spend.bill(attempt, record.cost.unwrap_or_default());
        // Only what was sent as it came says how the target counts.
        let as_it_came =
            record.tool_mode == ToolMode::Full && !record.shortened && record.reason != AttemptReason::Repair;
        if !spent.usage.estimated && as_it_came {
            fleet.learn_tokens(ix, self.needs.input_tokens, spent.usage.input_tokens);
        }
    }
}

/// Cuts every deadline to what is left of the call's.
fn clipped(limits: &Timeouts, left: Duration) -> Timeouts {
    Timeouts {
        connect: limits.connect.min(left),
        header: limits.header.min(left),
        first_token: limits.first_token.min(left),
        idle: limits.idle.min(left),
        total: limits.total.min(left),
    }
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
