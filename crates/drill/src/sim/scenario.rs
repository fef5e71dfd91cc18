//! The scenarios of the fault benchmark that are built so far, each with its fault and its oracle.

use super::model::{self, Exchange, Question};
use outlast_model::{Failure, FailureReport, Mono, policy::Hedge};
use serde::Serialize;
use std::{fmt, str::FromStr, time::Duration};

/// When every fault begins.
pub(super) const ONSET: Mono = Mono::from_millis(120_000);

/// A fault, and what is expected of anybody who meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Scenario {
    /// A answers 503 in 50 ms for 300 s.
    #[serde(rename = "1")]
    Refusing,
    /// A hangs for 300 s.
    #[serde(rename = "2")]
    Hanging,
    /// A fails 25 % of its calls, and its first tokens take four times as long, for 600 s.
    #[serde(rename = "3")]
    Quarter,
    /// The same with 10 %.
    #[serde(rename = "3b")]
    Tenth,
    /// A lone target at 70 % load falls to 20 % of its capacity for 30 s; clients wait 10 s.
    #[serde(rename = "13")]
    CapacityDip,
    /// One in seven of A's replies is wrong where one in twenty was, for 1,200 s, and no check sees it; golden tasks do.
    #[serde(rename = "15")]
    SilentLoss,
    /// The same with one in five.
    #[serde(rename = "15b")]
    LargeSilentLoss,
    /// Nothing is out of the ordinary, and slow first tokens are raced: what hedging brings and costs.
    #[serde(rename = "h")]
    Hedging,
}

/// What a target does to one exchange.
#[derive(Clone, Debug)]
pub(super) enum Reaction {
    /// It answers: first output, then the end.
    Stream {
        first: Duration,
        rest: Duration,
    },
    Fail {
        after: Duration,
        report: FailureReport,
    },
    Hang,
    /// It queues for a place in its capacity.
    Queue,
}

/// How long a healthy target takes to say 500.
const ERROR_AFTER: Duration = Duration::from_millis(200);
/// Often, so that a run sees enough of them: what counts are tasks, not minutes.
const GOLDEN_EVERY: Duration = Duration::from_secs(5);
/// The median number of golden tasks in which an optimal detector sees ten points lost, at one false alarm in 1,000.
const LOSS_SHOWS_IN: u32 = 56;
/// And fifteen points: between those for ten, and the 23 for twenty.
const LARGE_LOSS_SHOWS_IN: u32 = 35;

impl Scenario {
    /// All that are built, in order.
    pub const ALL: [Scenario; 8] = [
        Scenario::Refusing,
        Scenario::Hanging,
        Scenario::Quarter,
        Scenario::Tenth,
        Scenario::CapacityDip,
        Scenario::SilentLoss,
        Scenario::LargeSilentLoss,
        Scenario::Hedging,
    ];

    /// Its number in the fault benchmark.
    pub const fn number(self) -> &'static str {
        match self {
            Scenario::Refusing => "1",
            Scenario::Hanging => "2",
            Scenario::Quarter => "3",
            Scenario::Tenth => "3b",
            Scenario::CapacityDip => "13",
            Scenario::SilentLoss => "15",
            Scenario::LargeSilentLoss => "15b",
            Scenario::Hedging => "h",
        }
    }

    /// What happens in it, for people.
    pub const fn title(self) -> &'static str {
        match self {
            Scenario::Refusing => "A answers 503",
            Scenario::Hanging => "A hangs",
            Scenario::Quarter => "A fails 25 %, slow",
            Scenario::Tenth => "A fails 10 %, slow",
            Scenario::CapacityDip => "capacity dips to 20 %",
            Scenario::SilentLoss => "A wrong 5 % to 15 %",
            Scenario::LargeSilentLoss => "A wrong 5 % to 20 %",
            Scenario::Hedging => "slow tokens are raced",
        }
    }

    /// How long its fault lasts.
    pub const fn lasts(self) -> Duration {
        match self {
            Scenario::Refusing | Scenario::Hanging => Duration::from_secs(300),
            Scenario::Quarter | Scenario::Tenth => Duration::from_secs(600),
            Scenario::CapacityDip => Duration::from_secs(30),
            Scenario::SilentLoss | Scenario::LargeSilentLoss => Duration::from_secs(1200),
            Scenario::Hedging => Duration::from_secs(600),
        }
    }

    /// When the last request comes.
    pub(super) fn ends(self) -> Mono {
        let after = match self {
            Scenario::Refusing | Scenario::Hanging | Scenario::Quarter | Scenario::Tenth | Scenario::Hedging => 180,
            // The capacity dip is judged over 750 s, as in the study it comes from.
            Scenario::CapacityDip => 600,
            // Coming back takes golden tasks too.
            Scenario::SilentLoss | Scenario::LargeSilentLoss => 1200,
        };
        ONSET + self.lasts() + Duration::from_secs(after)
    }

    pub(super) fn in_fault(self, now: Mono) -> bool {
        now >= ONSET && now < ONSET + self.lasts()
    }

    /// How many of A, B and C it has.
    pub(super) const fn targets(self) -> usize {
        match self {
            Scenario::Refusing
            | Scenario::Hanging
            | Scenario::Quarter
            | Scenario::Tenth
            | Scenario::SilentLoss
            | Scenario::LargeSilentLoss
            | Scenario::Hedging => 3,
            Scenario::CapacityDip => 1,
        }
    }

    /// How long a client waits for the end of a reply.
    pub(super) const fn deadline(self) -> Duration {
        match self {
            Scenario::Refusing
            | Scenario::Hanging
            | Scenario::Quarter
            | Scenario::Tenth
            | Scenario::SilentLoss
            | Scenario::LargeSilentLoss
            | Scenario::Hedging => Duration::from_secs(60),
            Scenario::CapacityDip => Duration::from_secs(10),
        }
    }

    /// What may be raced.
    pub(super) const fn hedge(self) -> Option<Hedge> {
        match self {
            Scenario::Hedging => Some(Hedge { budget: 0.05 }),
            Scenario::Refusing
            | Scenario::Hanging
            | Scenario::Quarter
            | Scenario::Tenth
            | Scenario::CapacityDip
            | Scenario::SilentLoss
            | Scenario::LargeSilentLoss => None,
        }
    }

    /// How often each target is given a golden task, if there are any.
    pub(super) const fn golden_every(self) -> Option<Duration> {
        match self {
            Scenario::SilentLoss | Scenario::LargeSilentLoss => Some(GOLDEN_EVERY),
            Scenario::Refusing
            | Scenario::Hanging
            | Scenario::Quarter
            | Scenario::Tenth
            | Scenario::CapacityDip
            | Scenario::Hedging => None,
        }
    }

    /// How many of a target's replies are wrong now, though no check sees it; of golden tasks, how many fail.
    pub(super) fn wrong(self, target: usize, now: Mono) -> f64 {
        match self {
            Scenario::SilentLoss if target == 0 && self.in_fault(now) => 0.15,
            Scenario::LargeSilentLoss if target == 0 && self.in_fault(now) => 0.20,
            Scenario::SilentLoss | Scenario::LargeSilentLoss => 0.05,
            Scenario::Refusing
            | Scenario::Hanging
            | Scenario::Quarter
            | Scenario::Tenth
            | Scenario::CapacityDip
            | Scenario::Hedging => 0.0,
        }
    }

    /// What a target does to an exchange that reaches it now.
    pub(super) fn react(self, target: usize, now: Mono, exchange: Exchange) -> Reaction {
        let hit = target == 0 && self.in_fault(now);
        let failing = |rate: f64, report: Failure| {
            if exchange.luck < rate {
                Some(Reaction::Fail { after: ERROR_AFTER, report: answered(report, 500) })
            } else {
                None
            }
        };
        let usual = |slower: u32| {
            if exchange.error {
                Reaction::Fail { after: ERROR_AFTER, report: answered(Failure::ServerError, 500) }
            } else {
                Reaction::Stream { first: exchange.first * slower, rest: exchange.rest }
            }
        };
        match self {
            Scenario::CapacityDip => Reaction::Queue,
            Scenario::Refusing | Scenario::Hanging | Scenario::Quarter | Scenario::Tenth if !hit => usual(1),
            Scenario::SilentLoss | Scenario::LargeSilentLoss | Scenario::Hedging => usual(1),
            Scenario::Refusing => {
                Reaction::Fail { after: Duration::from_millis(50), report: answered(Failure::Overloaded, 503) }
            }
            Scenario::Hanging => Reaction::Hang,
            Scenario::Quarter => failing(0.25, Failure::ServerError).unwrap_or_else(|| usual(4)),
            Scenario::Tenth => failing(0.10, Failure::ServerError).unwrap_or_else(|| usual(4)),
        }
    }

    /// Requests a second that the capacity dip's lone target can serve.
    pub(super) fn capacity(self, load_per_sec: f64, now: Mono) -> f64 {
        let whole = load_per_sec / 0.7;
        if self.in_fault(now) { 0.2 * whole } else { whole }
    }

    /// When somebody who knows the future, but not before it shows, gives a request its first token, and how many
    /// upstream calls that takes. `turn` counts the requests since the onset.
    ///
    /// A refusal shows at once. A hang does not show before `overdue`: until then even the oracle asks A, and leaves it
    /// when it is overdue. A partial outage cannot be told from bad luck before so many requests of it were seen.
    /// Nor can a silent loss before so many golden tasks have been answered.
    pub(super) fn oracle(self, asked: Asked, turn: u64, seed: u64, overdue: Duration) -> Foretold {
        let Asked { request, question, now } = asked;
        let exchange = |target| model::exchange(seed, request, question, target, 0);
        let answer = |target| exchange(target).first;
        let fails = |rate| exchange(0).luck < rate;
        let unseen = |tasks: u32| now < ONSET + GOLDEN_EVERY * tasks;
        let (first, calls, server) = match self {
            Scenario::Hanging if self.in_fault(now) && now < ONSET + overdue => (overdue + answer(1), 2, 1),
            Scenario::Quarter if self.in_fault(now) && turn < 18 && fails(0.25) => (ERROR_AFTER + answer(1), 2, 1),
            Scenario::Tenth if self.in_fault(now) && turn < 87 && fails(0.10) => (ERROR_AFTER + answer(1), 2, 1),
            Scenario::Quarter if self.in_fault(now) && turn < 18 => (answer(0) * 4, 1, 0),
            Scenario::Tenth if self.in_fault(now) && turn < 87 => (answer(0) * 4, 1, 0),
            Scenario::SilentLoss if unseen(LOSS_SHOWS_IN) => (answer(0), 1, 0),
            Scenario::LargeSilentLoss if unseen(LARGE_LOSS_SHOWS_IN) => (answer(0), 1, 0),
            // Beside it stands the same without hedging.
            Scenario::Hedging => (answer(0), 1, 0),
            Scenario::Refusing
            | Scenario::Hanging
            | Scenario::Quarter
            | Scenario::Tenth
            | Scenario::SilentLoss
            | Scenario::LargeSilentLoss => {
                let server = usize::from(self.in_fault(now));
                (answer(server), 1, server)
            }
            Scenario::CapacityDip => unreachable!("its oracle is a queue of its own"),
        };
        Foretold { first, calls, right: exchange(server).luck >= self.wrong(server, now) }
    }
}

/// How the oracle answers a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Foretold {
    pub(super) first: Duration,
    pub(super) calls: u32,
    /// The reply is as good as it looks.
    pub(super) right: bool,
}

/// A request as the oracle meets it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) request: u64,
    pub(super) question: Question,
    pub(super) now: Mono,
}

fn answered(failure: Failure, status: u16) -> FailureReport {
    FailureReport { status: Some(status), ..FailureReport::of(failure) }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.number())
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(number: &str) -> Result<Self, String> {
        Scenario::ALL.into_iter().find(|scenario| scenario.number() == number).ok_or_else(|| {
            let known = Scenario::ALL.map(Scenario::number).join(", ");
            format!("no scenario `{number}`; there are {known}")
        })
    }
}
