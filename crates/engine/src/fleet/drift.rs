//! Has the rate of something bad risen? And has it come back? Two e-detectors, one for each way.
//!
//! The detector is Shiryaev and Roberts', for a mixture of alternatives: one sum per alternative, `R <- (R + 1) x L`
//! with `L` the likelihood ratio of the observation under "now `k` times the usual rate" against "no more than usual".
//! As long as that holds, the mean of the sums grows by at most one with each observation, whatever their order and
//! dependence, so an alarm at 1,000 comes after 1,000 observations at the earliest on average. That needs no window, no
//! least volume and no tuning, and sees a loss of ten points in about fifty observations.
//!
//! The usual rate is learnt, slowly and late: an observation counts only after some hundreds more have passed without an
//! alarm, so that a drift cannot teach the detector that it is usual, and within bounds, so that it never learns that
//! bad is good. Where any constant rate is fine and only a change is not, the first observations are learnt at once.
//!
//! **Coming back.** After an alarm the same detector is run the other way: "the rate is at least twice what may be" is
//! tested against "it is what may be", and when *that* is refuted the alarm ends. Or nobody asks any more, because of
//! the alarm: then it ends after a quiet time, on probation, half-way to the next alarm. Each relapse asks for four
//! times the evidence and twice the quiet time, so that it does not flap.

use super::cusum::Weights;
use outlast_model::Mono;
use std::time::Duration;

/// The most alternatives of a mixture.
const ALTERNATIVES: usize = 4;
/// No rate is taken for higher than this.
const CERTAIN: f64 = 0.9;
/// The evidence that ends a first alarm: one in so many observations at the alarming rate, at most.
const RETURN_AT: f64 = 300.0;
/// Each relapse asks for so many times more, up to four times over.
const RELAPSE: f64 = 4.0;
/// Relapses counted at most.
const LEVELS: u32 = 6;
/// The longest quiet time.
const QUIET_AT_MOST: Duration = Duration::from_secs(48 * 3600);
/// The size of the blocks in which the usual rate is learnt.
const BLOCK: u32 = 250;
/// Of the usual rate, older blocks count less once it rests on so many observations.
const MEMORY: f64 = 20_000.0;
/// The shown rate is of about so many of the last observations.
const RECENT: f64 = 200.0;

/// What a detector takes for usual, and how sure it has to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    /// The alternatives, as multiples of `p0`.
    pub(crate) alternatives: &'static [f64],
    /// The evidence at which it alarms.
    pub(crate) alarm_at: f64,
    /// `p0`, the highest rate that is still fine, is so many times the usual rate...
    pub(crate) margin: f64,
    /// ...within these bounds. The lower one holds until something is learnt.
    pub(crate) p0: (f64, f64),
    /// The first observations only teach what is usual: where any constant rate is fine, and only a change is not.
    pub(crate) warm_up: u32,
    /// An alarm about something nobody observes any more ends after so long, the first time.
    pub(crate) quiet: Duration,
    /// A relapse is forgotten after so long without an alarm.
    pub(crate) forgive: Duration,
}

/// The sums of one test, as evidence against "no more than usual".
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    sums: [f64; ALTERNATIVES],
}

impl Sums {
    fn add(&mut self, ratios: &[[f64; 2]], bad: bool) {
        for (sum, ratio) in self.sums.iter_mut().zip(ratios) {
            // Beyond any threshold there is nothing more to know; infinity would never come down.
            *sum = ((*sum + 1.0) * ratio[usize::from(bad)]).min(1e12);
        }
    }

    fn evidence(&self, among: usize) -> f64 {
        self.sums[..among].iter().sum::<f64>() / among as f64
    }
}

/// Counts that are halved when they weigh too much.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    all: f64,
    bad: f64,
}

impl Share {
    fn add(&mut self, other: Share, most: f64) {
        self.all += other.all;
        self.bad += other.bad;
        if self.all > most {
            self.all /= 2.0;
            self.bad /= 2.0;
        }
    }

    fn of(bad: bool) -> Share {
        Share { all: 1.0, bad: f64::from(u8::from(bad)) }
    }

    fn rate(self) -> f64 {
        if self.all > 0.0 { self.bad / self.all } else { 0.0 }
    }
}

/// The usual rate, learnt late.
#[derive(Clone, Copy, Debug, Default)]
struct Usual {
    learnt: Share,
    /// Waits to be learnt until the block after it is full too.
    before: Share,
    block: Share,
}

impl Usual {
    /// True when something was learnt.
    fn observe(&mut self, bad: bool) -> bool {
        self.block.add(Share::of(bad), f64::MAX);
        if self.block.all < f64::from(BLOCK) {
            return false;
        }
        self.learnt.add(std::mem::take(&mut self.before), MEMORY);
        self.before = std::mem::take(&mut self.block);
        true
    }

    /// What was seen lately led to an alarm, and is not usual.
    fn forget_lately(&mut self) {
        (self.before, self.block) = Default::default();
    }

    /// The rate, and a standard error more: a target that is usually at some rate must not alarm by having been lucky.
    fn upper(&self) -> f64 {
        let Share { all, .. } = self.learnt;
        if all == 0.0 {
            return 0.0;
        }
        let rate = self.learnt.rate();
        rate + (rate * (1.0 - rate) / all).sqrt()
    }
}

/// Why it alarms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Alarm {
    pub(crate) since: Mono,
    /// Observations since the change most likely began, when it told...
    pub(crate) observed: u32,
    /// ...and how many of those were bad.
    pub(crate) bad: u32,
    /// The highest rate that would have been fine.
    pub(crate) baseline: f64,
    /// When the last observation was made.
    heard: Mono,
    /// The evidence that it is over.
    back: f64,
}

/// What an observation or the passing of time changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Turn {
    None,
    Alarmed(Alarm),
    /// The alarm that began then is over.
    Over(Mono),
}

/// One signal of one target.
#[derive(Clone, Debug)]
pub(crate) struct Detector {
    tuning: &'static Tuning,
    p0: f64,
    /// Per alternative: the likelihood ratios of a good and of a bad observation.
    ratios: [[f64; 2]; ALTERNATIVES],
    sums: Sums,
    usual: Usual,
    recent: Share,
    total: u64,
    /// Tells when the change most likely began: a CUSUM against three times `p0`, and its weights.
    weights: Weights,
    excursion: f64,
    observed: u32,
    bad: u32,
    alarm: Option<Alarm>,
    level: u32,
    ended: Mono,
}

impl Detector {
    pub(crate) fn new(tuning: &'static Tuning) -> Self {
        debug_assert!(tuning.alternatives.len() <= ALTERNATIVES);
        let mut detector = Detector {
            tuning,
            p0: tuning.p0.0,
            ratios: [[1.0; 2]; ALTERNATIVES],
            sums: Sums::default(),
            usual: Usual::default(),
            recent: Share::default(),
            total: 0,
            weights: Weights::of(0.1, 0.3),
            excursion: 0.0,
            observed: 0,
            bad: 0,
            alarm: None,
            level: 0,
            ended: Mono::ZERO,
        };
        detector.calibrate();
        detector
    }

    fn calibrate(&mut self) {
        self.p0 = (self.tuning.margin * self.usual.upper()).clamp(self.tuning.p0.0, self.tuning.p0.1);
        for (ratio, times) in self.ratios.iter_mut().zip(self.tuning.alternatives) {
            let p1 = (times * self.p0).min(CERTAIN);
            *ratio = [(1.0 - p1) / (1.0 - self.p0), p1 / self.p0];
        }
        self.weights = Weights::of(self.p0, (3.0 * self.p0).min(CERTAIN));
    }

    /// One observation.
    pub(crate) fn observe(&mut self, bad: bool, now: Mono) -> Turn {
        self.total += 1;
        self.recent.add(Share::of(bad), RECENT);
        if self.alarm.is_some() {
            return self.observe_alarmed(bad, now);
        }
        if self.warming_up(bad) {
            return Turn::None;
        }
        self.follow(bad);
        self.sums.add(&self.ratios[..self.tuning.alternatives.len()], bad);
        if self.evidence() >= self.tuning.alarm_at {
            return self.tell(now);
        }
        if self.usual.observe(bad) {
            self.calibrate();
        }
        Turn::None
    }

    fn warming_up(&mut self, bad: bool) -> bool {
        let enough = f64::from(self.tuning.warm_up);
        if self.usual.learnt.all >= enough {
            return false;
        }
        self.usual.learnt.add(Share::of(bad), MEMORY);
        if self.usual.learnt.all >= enough {
            self.calibrate();
        }
        true
    }

    /// When did it begin? At the last observation after which nothing spoke for a change.
    fn follow(&mut self, bad: bool) {
        self.excursion += if bad { self.weights.fault } else { self.weights.success };
        if self.excursion <= 0.0 {
            (self.excursion, self.observed, self.bad) = (0.0, 0, 0);
        } else {
            self.observed = self.observed.saturating_add(1);
            self.bad = self.bad.saturating_add(u32::from(bad));
        }
    }

    fn tell(&mut self, now: Mono) -> Turn {
        let forgiven = now.since(self.ended).as_nanos() / self.tuning.forgive.as_nanos().max(1);
        self.level = self.level.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX)) + 1;
        self.level = self.level.min(LEVELS);
        let alarm =
            Alarm { since: now, observed: self.observed, bad: self.bad, baseline: self.p0, heard: now, back: 0.0 };
        self.alarm = Some(alarm);
        self.usual.forget_lately();
        Turn::Alarmed(alarm)
    }

    fn observe_alarmed(&mut self, bad: bool, now: Mono) -> Turn {
        let still = (2.0 * self.p0).min(CERTAIN);
        let ratio = if bad { self.p0 / still } else { (1.0 - self.p0) / (1.0 - still) };
        let enough = RETURN_AT * RELAPSE.powi(self.level.saturating_sub(1).min(4) as i32);
        let Some(alarm) = &mut self.alarm else { return Turn::None };
        alarm.heard = now;
        alarm.back = (alarm.back + 1.0) * ratio;
        if alarm.back < enough {
            return Turn::None;
        }
        // It was seen to be well: the next alarm starts from nothing.
        self.end(Sums::default(), now)
    }

    fn end(&mut self, sums: Sums, now: Mono) -> Turn {
        let Some(alarm) = self.alarm.take() else { return Turn::None };
        (self.excursion, self.observed, self.bad) = (0.0, 0, 0);
        self.sums = sums;
        self.ended = now;
        Turn::Over(alarm.since)
    }

    /// What time alone changes: an alarm that has kept everybody away ends on probation.
    pub(crate) fn advance(&mut self, now: Mono) -> Turn {
        if self.due().is_none_or(|due| now < due) {
            return Turn::None;
        }
        let half_way = Sums { sums: [self.tuning.alarm_at.sqrt(); ALTERNATIVES] };
        self.end(half_way, now)
    }

    /// When [`Detector::advance`] has something to do.
    pub(crate) fn due(&self) -> Option<Mono> {
        let quiet = self.tuning.quiet.saturating_mul(1 << self.level.saturating_sub(1).min(LEVELS)).min(QUIET_AT_MOST);
        self.alarm.map(|alarm| alarm.heard + quiet)
    }

    pub(crate) fn alarm(&self) -> Option<Alarm> {
        self.alarm
    }

    /// Against "no more than usual"; it alarms at its threshold.
    pub(crate) fn evidence(&self) -> f64 {
        self.sums.evidence(self.tuning.alternatives.len())
    }

    /// Of about the last two hundred observations, the share that was bad.
    pub(crate) fn rate(&self) -> f64 {
        self.recent.rate()
    }

    /// The highest rate that is still fine.
    pub(crate) fn baseline(&self) -> f64 {
        self.p0
    }

    /// Observations since the process began.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests;
