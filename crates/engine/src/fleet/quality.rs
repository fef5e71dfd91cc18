//! Quality over time: how often a target's replies are bad, and what follows when that rises.
//!
//! Every signal has a detector of its own ([`drift`](super::drift)): those of traffic and of its users per route and
//! target, that of golden tasks per target. An alarm ranks the target after the healthy ones, on that route or
//! everywhere, tells a person, and is shown with its evidence until it is over. It never opens a breaker, and nothing is
//! dropped: if nobody better is there, the target still answers.

use super::{
    Alert, BoundTarget, Fleet, FleetAction,
    drift::{Detector, Tuning, Turn},
};
use outlast_model::{Failure, Mono, RouteId, TargetId};
use std::time::Duration;

/// What one checked reply says about the target's quality on its route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyQuality {
    /// Whether the structure that was demanded is kept; `None` when none was.
    pub schema: Option<bool>,
    /// The model declined.
    pub refusal: bool,
    /// There is nothing in it.
    pub empty: bool,
    /// It took a repair, by fixes or by the model.
    pub repaired: bool,
    /// Whether it names its sources as it has to; `None` when it need not.
    pub citation: Option<bool>,
    /// It broke another gate of its contract: a phrase, the language, an expression, a validator...
    pub gate: bool,
}

impl ReplyQuality {
    /// Of an exchange that already failed this way before its reply could be checked.
    pub(crate) fn of_failure(failure: Failure) -> Self {
        ReplyQuality {
            schema: matches!(failure, Failure::SchemaError | Failure::ToolMismatch).then_some(false),
            refusal: failure == Failure::Refusal,
            empty: failure == Failure::Empty,
            gate: failure == Failure::Quality,
            ..ReplyQuality::default()
        }
    }
}

/// What is watched over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Replies that break the structure demanded, tool arguments included.
    Schema,
    /// Replies in which the model declines.
    Refusal,
    /// Replies with nothing in them.
    Empty,
    /// Replies that had to be repaired.
    Repair,
    /// Replies that do not name their sources as they have to.
    Citation,
    /// Replies that break another gate of their contract.
    Gate,
    /// Replies that users call bad.
    Feedback,
    /// Golden tasks that are answered wrong.
    Golden,
}

/// Replies come by the thousand, so a false alarm has to be rarer than one in ten thousand, and twice the usual rate is
/// still fine. The fourth alternative sees a target that is bad throughout in five replies.
pub(super) const OF_REPLIES: Tuning = Tuning {
    alternatives: &[2.0, 3.0, 5.0, 10.0],
    alarm_at: 10_000.0,
    margin: 2.0,
    p0: (0.05, 0.30),
    warm_up: 0,
    quiet: Duration::from_secs(600),
    forgive: Duration::from_secs(3600),
};

/// Some models put every JSON into a code fence: that is mended for nothing, and only more repairs than ever tell.
const OF_REPAIRS: Tuning = Tuning { p0: (0.05, 0.90), warm_up: 100, ..OF_REPLIES };

/// Users complain more readily than they praise.
const OF_FEEDBACK: Tuning = Tuning { p0: (0.20, 0.40), ..OF_REPLIES };

/// Golden tasks are few and chosen to pass.
pub(super) const OF_GOLDEN: Tuning = Tuning {
    alternatives: &[2.0, 3.0, 5.0],
    alarm_at: 1_000.0,
    margin: 1.0,
    p0: (0.05, 0.20),
    warm_up: 0,
    quiet: Duration::from_secs(24 * 3600),
    forgive: Duration::from_secs(7 * 24 * 3600),
};

impl Signal {
    /// The name used in alerts, metrics and the admin API.
    pub const fn name(self) -> &'static str {
        match self {
            Signal::Schema => "schema",
            Signal::Refusal => "refusal",
            Signal::Empty => "empty",
            Signal::Repair => "repair",
            Signal::Citation => "citation",
            Signal::Gate => "gate",
            Signal::Feedback => "feedback",
            Signal::Golden => "golden",
        }
    }

    fn tuning(self) -> &'static Tuning {
        match self {
            Signal::Schema | Signal::Refusal | Signal::Empty | Signal::Citation | Signal::Gate => &OF_REPLIES,
            Signal::Repair => &OF_REPAIRS,
            Signal::Feedback => &OF_FEEDBACK,
            Signal::Golden => &OF_GOLDEN,
        }
    }
}

/// The detectors of one place or one target, made when they are first needed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quality {
    detectors: Vec<(Signal, Detector)>,
    /// How many of them alarm.
    alarms: u32,
}

impl Quality {
    fn observe(&mut self, signal: Signal, bad: bool, now: Mono) -> Turn {
        let at = match self.detectors.iter().position(|(watched, _)| *watched == signal) {
            Some(at) => at,
            None => {
                self.detectors.push((signal, Detector::new(signal.tuning())));
                self.detectors.len() - 1
            }
        };
        let turn = self.detectors[at].1.observe(bad, now);
        self.count(turn);
        turn
    }

    fn count(&mut self, turn: Turn) {
        match turn {
            Turn::None => {}
            Turn::Alarmed(_) => self.alarms += 1,
            Turn::Over(_) => self.alarms -= 1,
        }
    }

    /// Ranked after the healthy ones.
    pub(crate) fn demoted(&self) -> bool {
        self.alarms > 0
    }

    fn due(&self) -> Option<Mono> {
        if self.alarms == 0 {
            return None;
        }
        self.detectors.iter().filter_map(|(_, detector)| detector.due()).min()
    }

    pub(super) fn view(&self, now: Mono) -> Vec<SignalView> {
        let mut seen: Vec<_> = self.detectors.iter().map(|(signal, detector)| view(*signal, detector, now)).collect();
        seen.sort_by_key(|view| view.signal);
        seen
    }
}

/// One signal as the operator sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct SignalView {
    /// Which.
    pub signal: Signal,
    /// Observations since the process began.
    pub observed: u64,
    /// The share of bad ones among about the last two hundred, 0 to 1.
    pub rate: f64,
    /// The highest share that is still fine, 0 to 1: learnt, within bounds.
    pub baseline: f64,
    /// The evidence for more than that; it alarms at `alarm_at`.
    pub evidence: f64,
    /// See `evidence`.
    pub alarm_at: f64,
    /// The alarm, while there is one.
    pub alarm: Option<AlarmView>,
}

/// Why a signal alarms.
#[derive(Clone, Debug, PartialEq)]
pub struct AlarmView {
    /// How long it has been alarming.
    pub since: Duration,
    /// Observations from where the change most likely began until it alarmed...
    pub observed: u32,
    /// ...and how many of them were bad.
    pub bad: u32,
    /// The highest share that would have been fine, 0 to 1.
    pub baseline: f64,
}

/// The signals of one target on one route.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteQuality {
    /// The route.
    pub route: RouteId,
    /// What has been observed there.
    pub signals: Vec<SignalView>,
}

/// A target's quality as the operator sees it. Only what has been observed is listed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QualityView {
    /// Golden tasks.
    pub golden: Option<SignalView>,
    /// Replies and ratings, by route.
    pub routes: Vec<RouteQuality>,
}

impl QualityView {
    /// Every signal, with its route if it has one.
    pub fn signals(&self) -> impl Iterator<Item = (Option<&RouteId>, &SignalView)> {
        let of_routes = self.routes.iter().flat_map(|on| on.signals.iter().map(|signal| (Some(&on.route), signal)));
        self.golden.iter().map(|signal| (None, signal)).chain(of_routes)
    }
}

fn view(signal: Signal, detector: &Detector, now: Mono) -> SignalView {
    SignalView {
        signal,
        observed: detector.total(),
        rate: detector.rate(),
        baseline: detector.baseline(),
        evidence: detector.evidence(),
        alarm_at: signal.tuning().alarm_at,
        alarm: detector.alarm().map(|alarm| AlarmView {
            since: now.since(alarm.since),
            observed: alarm.observed,
            bad: alarm.bad,
            baseline: alarm.baseline,
        }),
    }
}

/// Whose quality it is: a target's on a route, or a target's everywhere.
#[derive(Clone, Copy, Debug)]
enum Whose {
    Place(usize),
    Target(usize),
}

/// A place of a route, for what is learnt about it.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    route: RouteId,
    target: usize,
    pub(crate) quality: Quality,
}

impl Watched {
    pub(super) fn new(route: RouteId, target: usize) -> Self {
        Watched { route, target, quality: Quality::default() }
    }
}

impl Fleet {
    /// A complete reply was checked.
    pub(crate) fn note_reply(&mut self, place: BoundTarget, reply: ReplyQuality, now: Mono) {
        let said = [
            (Signal::Schema, reply.schema.map(|kept| !kept)),
            (Signal::Refusal, Some(reply.refusal)),
            (Signal::Empty, Some(reply.empty)),
            (Signal::Repair, Some(reply.repaired)),
            (Signal::Citation, reply.citation.map(|right| !right)),
            (Signal::Gate, Some(reply.gate)),
        ];
        for (signal, bad) in said {
            if let Some(bad) = bad {
                self.observe(Whose::Place(place.budget), signal, bad, now);
            }
        }
    }

    pub(super) fn note_golden(&mut self, ix: usize, passed: bool, now: Mono) {
        if ix < self.targets.len() {
            self.observe(Whose::Target(ix), Signal::Golden, !passed, now);
        }
    }

    /// Of a route or target that is unknown: nobody's.
    pub(super) fn note_feedback(&mut self, route: &RouteId, target: &TargetId, good: bool, now: Mono) {
        if let Some(place) = self.budget_of.get(&(route.clone(), target.clone())) {
            self.observe(Whose::Place(*place), Signal::Feedback, !good, now);
        }
    }

    fn observe(&mut self, whose: Whose, signal: Signal, bad: bool, now: Mono) {
        let turn = self.quality_of(whose).observe(signal, bad, now);
        self.turned(whose, signal, turn, now);
    }

    fn quality_of(&mut self, whose: Whose) -> &mut Quality {
        match whose {
            Whose::Place(at) => &mut self.places[at].quality,
            Whose::Target(ix) => &mut self.targets[ix].golden,
        }
    }

    /// Tells a person, and comes back when the alarm may be over.
    fn turned(&mut self, whose: Whose, signal: Signal, turn: Turn, now: Mono) {
        let (route, ix) = match whose {
            Whose::Place(at) => (Some(self.places[at].route.clone()), self.places[at].target),
            Whose::Target(ix) => (None, ix),
        };
        let target = || self.targets[ix].spec.id.clone();
        let alert = match turn {
            Turn::None => return,
            Turn::Alarmed(alarm) => Alert::QualityDropped {
                target: target(),
                route,
                signal,
                observed: alarm.observed,
                bad: alarm.bad,
                baseline: alarm.baseline,
            },
            Turn::Over(since) => Alert::QualityBack { target: target(), route, signal, after: now.since(since) },
        };
        self.actions.push_back(FleetAction::Alert(alert));
        if let Some(due) = self.quality_of(whose).due() {
            self.schedule(due);
        }
    }

    /// Alarms that have kept everybody away for long enough end on probation.
    pub(super) fn tick_quality(&mut self, now: Mono) {
        let places = (0..self.places.len()).map(Whose::Place);
        for whose in places.chain((0..self.targets.len()).map(Whose::Target)) {
            if self.quality_of(whose).due().is_none_or(|due| now < due) {
                continue;
            }
            for at in 0..self.quality_of(whose).detectors.len() {
                let quality = self.quality_of(whose);
                let (signal, detector) = &mut quality.detectors[at];
                let (signal, turn) = (*signal, detector.advance(now));
                quality.count(turn);
                self.turned(whose, signal, turn, now);
            }
        }
    }

    /// When [`Fleet::tick_quality`] has something to do.
    pub(super) fn quality_due(&self) -> Option<Mono> {
        let places = self.places.iter().filter_map(|place| place.quality.due());
        places.chain(self.targets.iter().filter_map(|target| target.golden.due())).min()
    }

    /// Replies on this route or golden tasks tell that the target's quality has dropped.
    pub(super) fn quality_demotes(&self, place: BoundTarget) -> bool {
        self.targets[place.ix].golden.demoted() || self.places[place.budget].quality.demoted()
    }

    pub(super) fn quality_view(&self, ix: usize, now: Mono) -> QualityView {
        let watched = self.places.iter().filter(|place| place.target == ix);
        let seen = watched.map(|place| RouteQuality { route: place.route.clone(), signals: place.quality.view(now) });
        QualityView {
            golden: self.targets[ix].golden.view(now).pop(),
            routes: seen.filter(|on| !on.signals.is_empty()).collect(),
        }
    }
}
