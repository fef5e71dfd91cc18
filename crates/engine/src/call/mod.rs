//! One request, from admission to settlement.
//!
//! The files follow its journey: `protocol` (what is said to and by it), `admit` (may it come in, and who could answer),
//! `plan` (who is to be asked next), `shorten` (with less to read), `spend` (for how much), `attempt` (one exchange and
//! its deadlines), `hedge` (two that race), `validate` (does the reply pass), `evidence` (what a failure tells the
//! fleet), `remedy` (what it leads to), `backstop` (when no path is left), `settle` (how it ends).
//!
//! ```text
//!   Admit --> Live <-----------------------------+
//!              | Ended          | failed         | mend, next target, same target, schedule over
//!              v                v                |
//!           Checking --bad--> decide --------> Waiting
//!              |                | no way on, deadline     | the client's fault, after commit, client gone
//!              | clean          v                         v
//!              |             Backstop --all declined--> Reject
//!              v                | has a reply, or defers  |
//!           Deliver <-----------+                         +--> Over --every abort answered--> Settle
//! ```

mod admit;
mod attempt;
mod backstop;
mod evidence;
mod hedge;
mod plan;
mod protocol;
mod remedy;
mod settle;
mod shorten;
mod spend;
mod validate;

pub use protocol::{Action, Ask, Backstopped, CallId, Event, RetryAdvice, Settlement, Source, Spent};
pub use validate::Validated;

use crate::fleet::{BoundRoute, Fleet, Receipt};
use attempt::Flight;
use backstop::Last;
use outlast_model::{
    Failure, FailureReport, Mono, TargetId,
    policy::{Needs, OutputNeed, StreamContract},
    record::{AttemptRecord, LeftOut, SchemaStatus},
};
use plan::{Candidate, Want};
use settle::Ending;
use spend::Spend;
use std::{collections::VecDeque, time::Duration};
use validate::{Judged, Kept};

/// One request in the making.
#[derive(Debug)]
pub struct Call {
    id: CallId,
    route: BoundRoute,
    needs: Needs,
    /// The route's, or `buffer` when the reply has to be checked whole, whoever answers.
    stream: StreamContract,
    rng: fastrand::Rng,
    /// Drawn once: decides whether it has a place in the share of a target that is being restored.
    chance: f64,
    started: Mono,
    deadline: Mono,
    stage: Stage,
    /// The exchange in flight, or the one whose reply is being checked.
    flight: Option<Flight>,
    /// The other exchange of a race, which has said nothing either.
    rival: Option<Box<Flight>>,
    /// The targets that can answer it.
    candidates: Vec<Candidate>,
    /// Those that could answer it with a shorter input, where the contract allows that.
    small: Vec<Candidate>,
    spend: Spend,
    planned: Vec<TargetId>,
    left_out: Vec<LeftOut>,
    attempts: Vec<AttemptRecord>,
    /// The evidence it gave: once per target.
    told: Vec<Told>,
    /// The one retry on the same target is used up.
    repeated: bool,
    /// The prompt did not fit a window of so many tokens.
    larger_than: u32,
    /// The reply did not fit an output limit of so many tokens, which was not the client's own.
    longer_than: u32,
    /// The input has been shortened for whoever is asked from now on.
    shortened: bool,
    /// The one model repair is used up.
    mended: bool,
    /// What the next target had better be.
    want: Option<Want>,
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
    /// A reply that may still be served.
    kept: Option<Kept>,
    /// What the client is told if no backstop helps.
    last: Option<Box<Last>>,
    /// A backstop that has not answered by then has declined.
    backstop_until: Mono,
    ending: Option<Ending>,
    /// Of the reply that was checked last.
    judged: Judged,
    /// Of the reply that was served.
    schema: SchemaStatus,
    confidence: Option<f64>,
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
    /// This backstop of the route is running.
    Backstop(usize),
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
        let contract = &route.route().contract;
        let stream = match needs.output {
            OutputNeed::Text if !contract.judges_whole_replies() => contract.stream,
            OutputNeed::Text | OutputNeed::Json | OutputNeed::JsonSchema => StreamContract::Buffer,
        };
        let spend = Spend::new(tier.cost_max, needs.budget);
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
            rival: None,
            candidates: Vec::new(),
            small: Vec::new(),
            spend,
            planned: Vec::new(),
            left_out: Vec::new(),
            attempts: Vec::new(),
            told: Vec::new(),
            repeated: false,
            larger_than: 0,
            longer_than: 0,
            shortened: false,
            mended: false,
            want: None,
            shunned: Vec::new(),
            first_failure: None,
            committed: false,
            first_output: None,
            patience: None,
            ticket: None,
            owed: 0,
            kept: None,
            last: None,
            backstop_until: Mono::FAR,
            ending: None,
            judged: Judged::default(),
            schema: SchemaStatus::None,
            confidence: None,
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
            Event::Headers { attempt } if self.turn_to(attempt) => self.headers(fleet, now),
            Event::Output { attempt, tokens, releasable } if self.turn_to(attempt) => {
                self.output(fleet, tokens, releasable, now);
            }
            Event::Ended { attempt, finish, spent } if self.turn_to(attempt) => self.ended(fleet, finish, spent, now),
            Event::Failed { attempt, report, spent } if self.turn_to(attempt) => {
                self.reported(fleet, report, spent, now)
            }
            Event::Checked { attempt, findings } if self.checking(attempt) => self.checked(fleet, findings, now),
            Event::Backstopped { at, outcome } if self.stage == Stage::Backstop(at) => {
                self.backstopped(fleet, at, outcome, now);
            }
            Event::Aborted { attempt, spent } => self.aborted(fleet, attempt, spent),
            Event::ClientGone => self.client_gone(fleet, now),
            Event::Woken => self.woken(fleet, now),
            Event::Tick => self.tick(fleet, now),
            // Of an attempt that is no longer the current one, or a backstop that took too long.
            Event::Backstopped { .. }
            | Event::Headers { .. }
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
            Stage::Backstop(_) => Some(self.backstop_until),
            Stage::Waiting(wait) => Some(wait.until.min(self.deadline)),
            Stage::Live => {
                let flights = self.flight.iter().chain(self.rival.as_deref());
                flights.map(|flight| flight.due().min(self.deadline)).min()
            }
        }
    }

    fn current(&self, attempt: u8) -> bool {
        self.flight.as_ref().is_some_and(|flight| flight.attempt == attempt)
    }

    /// Takes the exchange of this attempt in hand, if it is in flight.
    fn turn_to(&mut self, attempt: u8) -> bool {
        self.stage == Stage::Live && self.take_up(attempt)
    }

    fn checking(&self, attempt: u8) -> bool {
        self.stage == Stage::Checking && self.current(attempt)
    }

    fn woken(&mut self, fleet: &mut Fleet, now: Mono) {
        match self.stage {
            Stage::Live => self.for_each_flight(|call| call.leave_if_open(fleet, now)),
            Stage::Waiting(Wait { then: Then::Plan, .. }) => self.go_on(fleet, now),
            Stage::Waiting(Wait { then: Then::Repeat(_), .. })
            | Stage::New
            | Stage::Checking
            | Stage::Backstop(_)
            | Stage::Over
            | Stage::Settled => {}
        }
    }

    fn tick(&mut self, fleet: &mut Fleet, now: Mono) {
        match self.stage {
            Stage::New | Stage::Over | Stage::Settled => {}
            Stage::Live | Stage::Checking | Stage::Waiting(_) if now >= self.deadline => self.out_of_time(fleet, now),
            Stage::Live => self.for_each_flight(|call| call.tick_flight(fleet, now)),
            Stage::Waiting(wait) if now >= wait.until => self.go_on(fleet, now),
            Stage::Backstop(at) if now >= self.backstop_until => self.backstop_declined(fleet, at, now),
            Stage::Waiting(_) | Stage::Checking | Stage::Backstop(_) => {}
        }
    }
}
