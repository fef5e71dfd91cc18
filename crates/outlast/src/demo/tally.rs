//! The numbers. What clients saw is counted here; what it took is read from the gateway's own lineage.

use super::{
    script::Script,
    traffic::{Done, Verdict, task_of},
    world::PRIMARY,
};
use crate::telemetry::Recorded;
use outlast_engine::{TargetState, TargetView};
use outlast_model::TargetId;
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// The most losses that are told one by one.
const LOSSES_TOLD: usize = 5;
/// Seconds of history in the live view.
pub(super) const HISTORY: usize = 24;
/// Over how long a target's share of the traffic is measured.
const SHARE_OVER: Duration = Duration::from_secs(2);

/// What happened to the requests of one phase, or of one second.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) answered: u64,
    /// Streams that ended in a typed error after a part had been shown.
    pub(super) cut: u64,
    pub(super) lost: u64,
    /// Answered by another target than the one asked first.
    pub(super) failovers: u64,
    /// Upstream calls that bought nothing.
    pub(super) wasted: u64,
    /// Upstream calls.
    pub(super) attempts: u64,
    /// Calls with lineage.
    pub(super) settled: u64,
    /// Of answered requests, as their clients saw them.
    pub(super) took: Vec<Duration>,
}

impl Counts {
    pub(super) fn requests(&self) -> u64 {
        self.answered + self.cut + self.lost
    }

    fn done(&mut self, done: &Done) {
        match done.verdict {
            Verdict::Answered => {
                self.answered += 1;
                self.took.push(done.took);
            }
            Verdict::Cut => self.cut += 1,
            Verdict::Lost(_) => self.lost += 1,
        }
    }

    fn settled(&mut self, recorded: &Recorded) {
        self.settled += 1;
        self.failovers += u64::from(recorded.call.failed_over());
        self.wasted += recorded.call.wasted_calls() as u64;
        self.attempts += recorded.call.attempts.len() as u64;
    }

    fn forget_lineage(&mut self) {
        (self.failovers, self.wasted, self.attempts, self.settled) = (0, 0, 0, 0);
    }

    /// The time within which this share of the answered requests was answered.
    pub(super) fn percentile(&self, share: f64) -> Option<Duration> {
        let mut took = self.took.clone();
        took.sort_unstable();
        let last = took.len().checked_sub(1)?;
        took.get((last as f64 * share).round() as usize).copied()
    }
}

/// One phase.
#[derive(Clone, Debug, Default)]
pub(super) struct PhaseTally {
    pub(super) counts: Counts,
    began: Duration,
    entered: bool,
    /// The primary was out already when the phase began: there was nothing to react to.
    was_out: bool,
    /// A fault: until the primary was taken out. Healed: until it answered again.
    pub(super) reacted: Option<Duration>,
    answered_before: u64,
}

/// How one target did, for the live view.
#[derive(Clone, Debug)]
pub(super) struct TargetTally {
    pub(super) id: TargetId,
    /// Attempts at the looks of the last [`SHARE_OVER`].
    looks: VecDeque<(Duration, u64)>,
    /// Its share of each of the last seconds.
    pub(super) history: VecDeque<f64>,
    attempts_at_second: u64,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) phases: Vec<PhaseTally>,
    faulty: Vec<bool>,
    pub(super) targets: Vec<TargetTally>,
    second: Counts,
    pub(super) last_second: Counts,
    seconds: u64,
    losses: Vec<String>,
    /// Lineage already counted, so that a second's difference can be told.
    counted: Counts,
    phase: usize,
}

impl Tally {
    pub(super) fn new(script: &Script) -> Self {
        Tally {
            phases: vec![PhaseTally::default(); script.phases.len()],
            faulty: script.phases.iter().map(|phase| phase.fault.is_some()).collect(),
            targets: Vec::new(),
            second: Counts::default(),
            last_second: Counts::default(),
            seconds: 0,
            losses: Vec::new(),
            counted: Counts::default(),
            phase: 0,
        }
    }

    /// A phase begins.
    pub(super) fn enter(&mut self, index: usize, now: Duration) {
        self.phase = index;
        self.phases[index].began = now;
    }

    /// A client's request ended.
    pub(super) fn done(&mut self, done: &Done, now: Duration) {
        self.second.done(done);
        self.phases[done.phase].counts.done(done);
        if let (Verdict::Lost(why), true) = (&done.verdict, self.losses.len() < LOSSES_TOLD) {
            self.losses.push(format!("{:.1} s: {why}", now.as_secs_f64()));
        }
    }

    /// Requests whose end never came.
    pub(super) fn unanswered(&mut self, open: u64) {
        self.phases[self.phase].counts.lost += open;
        if open > 0 {
            self.losses.push(format!("{open} without any end"));
        }
    }

    /// The first losses, for the end of the transcript.
    pub(super) fn losses(&self) -> &[String] {
        &self.losses
    }

    /// What the engine thinks now.
    pub(super) fn targets(&mut self, index: usize, targets: &[TargetView], now: Duration) {
        if self.targets.is_empty() {
            let new = |target: &TargetView| TargetTally {
                id: target.id.clone(),
                looks: VecDeque::new(),
                history: VecDeque::new(),
                attempts_at_second: target.attempts,
            };
            self.targets = targets.iter().map(new).collect();
        }
        for (tally, target) in self.targets.iter_mut().zip(targets) {
            tally.looks.push_back((now, target.attempts));
            while tally.looks.front().is_some_and(|(at, _)| *at + SHARE_OVER < now) {
                tally.looks.pop_front();
            }
        }
        if let Some(primary) = targets.iter().find(|target| target.id.as_str() == PRIMARY) {
            self.react(index, primary, now);
        }
    }

    fn react(&mut self, index: usize, primary: &TargetView, now: Duration) {
        let faulty = self.faulty[index];
        let phase = &mut self.phases[index];
        if !phase.entered {
            phase.entered = true;
            phase.answered_before = primary.answered;
            phase.was_out = is_out(primary);
        }
        let out = is_out(primary);
        let answers = !out && primary.answered > phase.answered_before;
        let reacted = if faulty { out && !phase.was_out } else { phase.was_out && answers };
        if reacted && phase.reacted.is_none() {
            phase.reacted = Some(now.saturating_sub(phase.began));
        }
    }

    /// Reads all lineage so far: the newest first, each call with the phase it was sent in.
    pub(super) fn lineage(&mut self, records: &[Arc<Recorded>]) {
        for phase in &mut self.phases {
            phase.counts.forget_lineage();
        }
        let tasks: Vec<String> = (0..self.phases.len()).map(task_of).collect();
        for recorded in records {
            let task = recorded.call.task_id.as_deref();
            if let Some(phase) = tasks.iter().position(|name| Some(name.as_str()) == task) {
                self.phases[phase].counts.settled(recorded);
            }
        }
    }

    pub(super) fn second_is_over(&self, now: Duration) -> bool {
        now.as_secs() > self.seconds
    }

    /// Closes the second.
    pub(super) fn next_second(&mut self) -> Counts {
        self.seconds += 1;
        let total = self.total();
        let mut second = std::mem::take(&mut self.second);
        second.failovers = total.failovers.saturating_sub(self.counted.failovers);
        second.wasted = total.wasted.saturating_sub(self.counted.wasted);
        second.attempts = total.attempts.saturating_sub(self.counted.attempts);
        self.counted = total;
        let shares: Vec<f64> = (0..self.targets.len()).map(|target| self.share_of_second(target)).collect();
        for (target, share) in self.targets.iter_mut().zip(shares) {
            target.attempts_at_second = target.looks.back().map_or(0, |(_, attempts)| *attempts);
            target.history.push_back(share);
            if target.history.len() > HISTORY {
                target.history.pop_front();
            }
        }
        self.last_second = second.clone();
        second
    }

    fn share_of_second(&self, target: usize) -> f64 {
        let since = |target: &TargetTally| {
            let now = target.looks.back().map_or(0, |(_, attempts)| *attempts);
            now.saturating_sub(target.attempts_at_second)
        };
        let all: u64 = self.targets.iter().map(since).sum();
        ratio(since(&self.targets[target]), all)
    }

    /// The share of all attempts of the last two seconds that went to this target.
    pub(super) fn share(&self, target: usize) -> f64 {
        let recent = |target: &TargetTally| match (target.looks.front(), target.looks.back()) {
            (Some((_, first)), Some((_, last))) => last.saturating_sub(*first),
            _ => 0,
        };
        let all: u64 = self.targets.iter().map(recent).sum();
        self.targets.get(target).map_or(0.0, |target| ratio(recent(target), all))
    }

    /// Over all phases.
    pub(super) fn total(&self) -> Counts {
        let mut total = Counts::default();
        for PhaseTally { counts, .. } in &self.phases {
            total.answered += counts.answered;
            total.cut += counts.cut;
            total.lost += counts.lost;
            total.failovers += counts.failovers;
            total.wasted += counts.wasted;
            total.attempts += counts.attempts;
            total.settled += counts.settled;
            total.took.extend(&counts.took);
        }
        total
    }
}

/// It takes no ordinary traffic: its breaker is open, or its keys wait for a 429 schedule.
pub(super) fn is_out(target: &TargetView) -> bool {
    let open = match target.state {
        TargetState::Open | TargetState::HalfOpen => true,
        TargetState::Closed | TargetState::Restoring { .. } | TargetState::Retired => false,
    };
    open || target.limited_for.is_some()
}

fn ratio(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { part as f64 / all as f64 }
}
