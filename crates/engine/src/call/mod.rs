//! One request, from admission to settlement.
//!
//! The files follow its journey: `admit` (may it come in), `plan` (who can answer, who is to be asked next), `attempt`
//! (one exchange and its deadlines), `validate` (does the reply pass), `settle` (what a failure leads to, how it ends).
//!
//! ```text
//!   Admit --> Live <-----------------------------+
//!              | Ended          | failed         | next target, same target, schedule over
//!              v                v                |
//!           Checking --bad--> decide --------> Waiting
//!              | clean          | no way on, the client's fault, after commit, deadline, client gone
//!              v                v
//!           Deliver           Reject ----------> Over --every abort answered--> Settle
//! ```

mod admit;
mod attempt;
mod plan;
mod settle;
mod validate;

pub use validate::{Source, Validated};

use crate::fleet::{BoundRoute, Fleet, Receipt, TargetIx};
use attempt::Flight;
use outlast_model::{
    Brief, Failure, FailureReport, Findings, Mono, TargetId, Usd,
    policy::{Needs, OutputNeed, StreamContract, Timeouts, ToolMode},
    record::{AttemptRecord, BackstopUse, GaveUp, LeftOut, Outcome, SchemaStatus},
    turn::{Finish, Usage},
};
use plan::Candidate;
use settle::Ending;
use std::{collections::VecDeque, time::Duration};

/// Names a call within this process. The host gives it; the fleet uses it to wake calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// One request, as the engine needs to know it.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Unique among the calls alive in this process.
    pub id: CallId,
    /// The route it named, bound by [`Fleet::bind`].
    pub route: BoundRoute,
    /// What it needs of a target.
    pub needs: Needs,
    /// The client's own deadline, from admission on; the tier's holds if it is shorter.
    pub deadline: Option<Duration>,
    /// For jitter and draws. The same seed and events give the same trace.
    pub seed: u64,
}

/// What happened, as the host tells it. Events about an attempt that is no longer the current one are ignored,
/// [`Event::Aborted`] excepted.
#[derive(Clone, Debug)]
pub enum Event {
    /// The first event.
    Admit,
    /// The head of a successful response arrived.
    Headers {
        /// Of which attempt.
        attempt: u8,
    },
    /// Semantic output arrived. For a reply that is not streamed: part of the body did (`tokens: 0`).
    Output {
        /// Of which attempt.
        attempt: u8,
        /// How many tokens, by estimate.
        tokens: u32,
        /// False while what came cannot be shown yet: a tool call that is not whole.
        releasable: bool,
    },
    /// The whole reply arrived, its terminal event included.
    Ended {
        /// Of which attempt.
        attempt: u8,
        /// Why the model stopped.
        finish: Option<Finish>,
        /// What it took.
        spent: Spent,
    },
    /// The attempt failed. The host reports what it or the wire saw: any HTTP error, a broken connection, a connect
    /// timeout, an undecodable or cut reply. The other deadlines are the engine's.
    Failed {
        /// Of which attempt.
        attempt: u8,
        /// How.
        report: FailureReport,
        /// What it took until then.
        spent: Spent,
    },
    /// The answer to [`Action::Check`].
    Checked {
        /// Of which attempt.
        attempt: u8,
        /// What was found.
        findings: Findings,
    },
    /// The answer to [`Action::Backstop`].
    Backstopped {
        /// Which, by its place in the route.
        at: usize,
        /// What it came to.
        outcome: Backstopped,
    },
    /// The answer to [`Action::Abort`], owed at once: the exchange is closed.
    Aborted {
        /// Of which attempt.
        attempt: u8,
        /// What it took until then.
        spent: Spent,
    },
    /// The client went away.
    ClientGone,
    /// The fleet named this call in [`FleetAction::Wake`](crate::FleetAction::Wake).
    Woken,
    /// The time of [`Call::poll_timeout`] has come.
    Tick,
}

/// What a backstop came to.
#[derive(Clone, Debug)]
pub enum Backstopped {
    /// It has a reply.
    Said {
        /// What the same checks found in it that judge every reply.
        findings: Findings,
        /// What such a reply is without.
        gave_up: GaveUp,
    },
    /// It keeps the request, or hands it to somebody: the answer comes later. It holds the 202 until
    /// [`Action::Defer`].
    Deferred {
        /// What the client goes without.
        gave_up: GaveUp,
    },
    /// It has nothing to give: no rule held, nothing fresh enough was kept, the store is down.
    Declined,
}

/// What one attempt took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Tokens, as reported or estimated.
    pub usage: Usage,
    /// Bytes of the request body sent.
    pub bytes_out: u64,
    /// Bytes of the response body read.
    pub bytes_in: u64,
}

/// What the host must do, in order.
#[derive(Debug)]
pub enum Action {
    /// Ask this target.
    Start {
        /// Names the attempt: 0, 1, 2...
        attempt: u8,
        /// Whom.
        target: TargetIx,
        /// Whom, by name.
        target_id: TargetId,
        /// With which of the provider's keys.
        key: u8,
        /// Already cut to what is left of the call's deadline. The host enforces `connect` alone.
        timeouts: Timeouts,
        /// The call's first failure, which is why this is not the first attempt.
        fallback_reason: Option<Failure>,
        /// How the request is to be put to it. The exchange that `brief.mend` names is still held by the host when this
        /// action is performed.
        brief: Brief,
    },
    /// Drop that exchange now and answer [`Event::Aborted`].
    Abort {
        /// Which.
        attempt: u8,
    },
    /// Check the complete reply and answer [`Event::Checked`], once validators and judges have answered too. An
    /// [`Action::Abort`] may come first.
    Check {
        /// Which.
        attempt: u8,
        /// What judges may spend on it; absent when there is no cap.
        budget: Option<Usd>,
    },
    /// Hold on to that attempt's checked reply, beside whatever is asked next: an [`Action::Deliver`] may name it. Only
    /// one is held at a time.
    Keep {
        /// Which.
        attempt: u8,
    },
    /// Run the route's backstop of this number and answer [`Event::Backstopped`].
    Backstop {
        /// Its place in the route.
        at: usize,
        /// Why it has come to this.
        cause: FailureReport,
    },
    /// The commit point: show the client what has come of this attempt, and from now on whatever comes as it comes.
    /// The terminal part waits for [`Action::Deliver`].
    Release {
        /// Which.
        attempt: u8,
    },
    /// The reply is complete and passed: give it, or the rest of it, to the client.
    Deliver {
        /// The proof that it passed.
        validated: Validated,
    },
    /// Give the client what the backstop prepared: not an answer, but where and when there will be one.
    Defer {
        /// The backstop's place in the route.
        at: usize,
    },
    /// Give the client an error.
    Reject {
        /// What it is told. `Failure::Exhausted` when every path was spent.
        failure: FailureReport,
        /// The first real failure behind it, when `failure` is not that itself.
        cause: Option<FailureReport>,
        /// The attempt whose error body is the client's to read (its own fault), if there is one.
        attempt: Option<u8>,
        /// What its SDK should do.
        retry: RetryAdvice,
        /// The client has already seen output: end the stream with a typed error event, never with a terminal one.
        after_commit: bool,
    },
    /// The last action of every call, exactly once: what to write down.
    Settle(Box<Settlement>),
}

/// What the client's SDK is told about retrying.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryAdvice {
    /// `x-should-retry`. False once the engine has spent the paths itself, true when it shed the call.
    pub should_retry: bool,
    /// `retry-after`.
    pub retry_after: Option<Duration>,
}

/// All of the call's record that the engine knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Settlement {
    /// From admission until now, in microseconds.
    pub latency_us: u64,
    /// Until the client's first output, in microseconds.
    pub first_output_us: Option<u64>,
    /// The targets that fitted, best first, as planned on admission.
    pub planned: Vec<TargetId>,
    /// The targets that did not, each with its reason.
    pub left_out: Vec<LeftOut>,
    /// Every try, in order.
    pub attempts: Vec<AttemptRecord>,
    /// How it ended.
    pub outcome: Outcome,
    /// Which target answered.
    pub served_by: Option<TargetId>,
    /// Served, but less than the contract: something was given up.
    pub degraded: bool,
    /// What was given up.
    pub gave_up: Vec<GaveUp>,
    /// What the model could do with tools in the reply that was served.
    pub tool_mode: ToolMode,
    /// The backstop that ended the call, if one did.
    pub backstop: Option<BackstopUse>,
    /// How sure the reply is, 0 to 1, if anybody said.
    pub confidence: Option<f64>,
    /// How the reply's structure was judged.
    pub schema_status: SchemaStatus,
    /// Everything that was paid for, failed attempts included.
    pub cost: Usd,
    /// Of that, what bought nothing.
    pub wasted: Usd,
}

/// One request in the making.
#[derive(Debug)]
pub struct Call {
    id: CallId,
    route: BoundRoute,
    needs: Needs,
    /// The route's, or `buffer` when the reply has to be checked whole.
    stream: StreamContract,
    rng: fastrand::Rng,
    /// Drawn once: decides whether it has a place in the share of a target that is being restored.
    chance: f64,
    started: Mono,
    deadline: Mono,
    stage: Stage,
    /// The exchange in flight, or the one whose reply is being checked.
    flight: Option<Flight>,
    /// The targets that can answer it.
    candidates: Vec<Candidate>,
    planned: Vec<TargetId>,
    left_out: Vec<LeftOut>,
    attempts: Vec<AttemptRecord>,
    /// The evidence it gave: once per target.
    told: Vec<Told>,
    /// The one retry on the same target is used up.
    repeated: bool,
    /// The prompt did not fit a window of so many tokens.
    larger_than: u32,
    /// Providers that failed as a whole; their other targets come last.
    shunned: Vec<usize>,
    /// The first failure, and the attempt that met it.
    first_failure: Option<(u8, FailureReport)>,
    /// The client has seen output.
    committed: bool,
    first_output: Option<Mono>,
    /// Waiting for a schedule or a recovery ends then.
    patience: Option<Mono>,
    /// Its place in the line of those who wait.
    ticket: Option<u64>,
    /// Aborts that have not been answered.
    owed: u8,
    ending: Option<Ending>,
    schema: SchemaStatus,
    actions: VecDeque<Action>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    /// Not admitted yet.
    New,
    /// An exchange is in flight.
    Live,
    /// A complete reply is being checked.
    Checking,
    /// Nothing is in flight.
    Waiting(Wait),
    /// Decided; the aborts are still to be answered.
    Over,
    /// Nothing more comes.
    Settled,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Wait {
    until: Mono,
    then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    /// The same candidate once more, if it still may be asked.
    Repeat(usize),
    /// Whoever may be asked by then.
    Plan,
}

/// Evidence this call gave against a target.
#[derive(Debug)]
struct Told {
    ix: usize,
    failure: Failure,
    /// Absent when another call spoke for it.
    receipt: Option<Receipt>,
    /// Given for being overdue only: taken back if it succeeds after all.
    suspicion: bool,
}

impl Call {
    /// A call that came in `now`. Feed [`Event::Admit`] next.
    pub fn new(ask: Ask, now: Mono) -> Call {
        let Ask { id, route, needs, deadline, seed } = ask;
        let tier = &route.route().tier;
        let deadline = now + deadline.unwrap_or(Duration::MAX).min(tier.deadline);
        let stream = match needs.output {
            OutputNeed::Text => route.route().contract.stream,
            OutputNeed::Json | OutputNeed::JsonSchema => StreamContract::Buffer,
        };
        let mut rng = fastrand::Rng::with_seed(seed);
        let chance = rng.f64();
        Call {
            id,
            route,
            needs,
            stream,
            rng,
            chance,
            started: now,
            deadline,
            stage: Stage::New,
            flight: None,
            candidates: Vec::new(),
            planned: Vec::new(),
            left_out: Vec::new(),
            attempts: Vec::new(),
            told: Vec::new(),
            repeated: false,
            larger_than: 0,
            shunned: Vec::new(),
            first_failure: None,
            committed: false,
            first_output: None,
            patience: None,
            ticket: None,
            owed: 0,
            ending: None,
            schema: SchemaStatus::None,
            actions: VecDeque::with_capacity(4),
        }
    }

    /// A call whose paths have been spent already, for this cause and with these attempts: a vote that nobody won. Fed
    /// [`Event::Admit`] like any other, it goes to the backstops at once.
    pub fn ended_elsewhere(ask: Ask, cause: FailureReport, attempts: Vec<AttemptRecord>, now: Mono) -> Call {
        Call { first_failure: Some((0, cause)), attempts, ..Call::new(ask, now) }
    }

    /// Takes one event. Drain [`Call::poll_action`] afterwards. Events that come too late are ignored.
    pub fn handle(&mut self, fleet: &mut Fleet, event: Event, now: Mono) {
        match event {
            Event::Admit => self.admit(fleet, now),
            Event::Headers { attempt } if self.live(attempt) => self.headers(fleet, now),
            Event::Output { attempt, tokens, releasable } if self.live(attempt) => {
                self.output(fleet, tokens, releasable, now);
            }
            Event::Ended { attempt, finish, spent } if self.live(attempt) => self.ended(fleet, finish, spent, now),
            Event::Failed { attempt, report, spent } if self.live(attempt) => self.reported(fleet, report, spent, now),
            Event::Checked { attempt, findings } if self.checking(attempt) => self.checked(fleet, findings, now),
            // Skeleton: no backstop is run yet, so there is nothing to answer.
            Event::Backstopped { .. } => {}
            Event::Aborted { attempt, spent } => self.aborted(fleet, attempt, spent),
            Event::ClientGone => self.client_gone(fleet, now),
            Event::Woken => self.woken(fleet, now),
            Event::Tick => self.tick(fleet, now),
            // Of an attempt that is no longer the current one.
            Event::Headers { .. }
            | Event::Output { .. }
            | Event::Ended { .. }
            | Event::Failed { .. }
            | Event::Checked { .. } => {}
        }
    }

    /// The next thing to do; `None` when there is nothing more for now.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to feed [`Event::Tick`], at the latest; earlier does no harm.
    pub fn poll_timeout(&self) -> Option<Mono> {
        match self.stage {
            Stage::New | Stage::Over | Stage::Settled => None,
            Stage::Checking => Some(self.deadline),
            Stage::Waiting(wait) => Some(wait.until.min(self.deadline)),
            Stage::Live => self.flight.as_ref().map(|flight| flight.due().min(self.deadline)),
        }
    }

    fn current(&self, attempt: u8) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.attempt == attempt)
    }

    fn live(&self, attempt: u8) -> bool {
        self.stage == Stage::Live && self.current(attempt)
    }

    fn checking(&self, attempt: u8) -> bool {
        self.stage == Stage::Checking && self.current(attempt)
    }

    fn woken(&mut self, fleet: &mut Fleet, now: Mono) {
        match self.stage {
            Stage::Live => self.leave_if_open(fleet, now),
            Stage::Waiting(Wait { then: Then::Plan, .. }) => self.go_on(fleet, now),
            Stage::Waiting(Wait { then: Then::Repeat(_), .. })
            | Stage::New
            | Stage::Checking
            | Stage::Over
            | Stage::Settled => {}
        }
    }

    fn tick(&mut self, fleet: &mut Fleet, now: Mono) {
        match self.stage {
            Stage::New | Stage::Over | Stage::Settled => {}
            Stage::Live | Stage::Checking | Stage::Waiting(_) if now >= self.deadline => self.out_of_time(fleet, now),
            Stage::Live => self.tick_flight(fleet, now),
            Stage::Waiting(wait) if now >= wait.until => self.go_on(fleet, now),
            Stage::Waiting(_) | Stage::Checking => {}
        }
    }
}
