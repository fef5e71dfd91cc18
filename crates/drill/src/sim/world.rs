//! The world of one run: the real [`Fleet`] and real [`Call`]s in virtual time, among simulated clients and targets.
//!
//! One heap of events drives everything. Nothing is drawn outside seeded generators and nothing is iterated in an order
//! that a hash decides, so the same seed gives the same trace, whose hash every run reports.

use super::{
    capacity::{Job, Server},
    cast,
    model::{self, Question},
    scenario::{ONSET, Reaction, Scenario},
    tally::Tally,
};
use outlast_engine::*;
use outlast_model::{
    Failure, FailureReport, Findings, Mono,
    failure::Deadline,
    policy::*,
    turn::{Finish, Usage},
};
use std::{cmp::Ordering, collections::BinaryHeap, time::Duration};

/// The official SDKs retry twice, after half a second and then about 0.8, unless told otherwise.
const SDK_RETRIES: u8 = 2;
const SDK_WAITS: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(800)];

/// One thing that will happen.
struct Entry {
    at: Mono,
    /// Orders what happens at the same time.
    turn: u64,
    what: What,
}

enum What {
    Arrive,
    /// The first output of an exchange; the rest follows after so long.
    First(Slot, u8, Duration),
    End(Slot, u8),
    Fail(Slot, u8, FailureReport),
    /// The lone server of the capacity dip is done with a job.
    Served(Job),
    Timer(Slot),
    FleetTick,
    Probed(TargetIx, u8, Result<Duration, FailureReport>),
    /// Each target is given a golden task.
    Golden,
    /// A client's SDK tries again.
    Again(Request),
}

/// A call's place; the generation tells it from earlier calls in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    place: u32,
    generation: u32,
}

impl Slot {
    fn id(self) -> CallId {
        CallId(u64::from(self.generation) << 32 | u64::from(self.place))
    }

    fn of(CallId(id): CallId) -> Self {
        Slot { place: id as u32, generation: (id >> 32) as u32 }
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.turn) == (other.at, other.turn)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest, because the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.turn).cmp(&(self.at, self.turn))
    }
}

/// What a client wants, over all its SDK's tries.
#[derive(Clone, Copy)]
struct Request {
    number: u64,
    question: Question,
    arrived: Mono,
    deadline: Mono,
    tries: u8,
    first_output: Option<Mono>,
    /// Exchanges so far, by target: each draws anew.
    turns: [u8; 3],
}

/// A call in flight.
struct Flying {
    call: Call,
    request: Request,
    /// Two while they race.
    live: [Option<Lane>; 2],
    /// Attempts whose replies are not as good as they look, as bits.
    wrong: u32,
    /// The reply that was delivered is as good as it looks.
    right: bool,
    /// The earliest timer on the heap.
    armed: Mono,
}

/// An exchange in flight.
#[derive(Clone, Copy)]
struct Lane {
    attempt: u8,
    /// Its tokens are flowing. They are not events of their own, so a timer that comes due finds them first.
    flowing: bool,
}

impl Flying {
    fn lane(&mut self, attempt: u8) -> Option<&mut Lane> {
        self.live.iter_mut().flatten().find(|lane| lane.attempt == attempt)
    }

    fn leave(&mut self, attempt: u8) {
        self.live.iter_mut().for_each(|lane| *lane = lane.filter(|lane| lane.attempt != attempt));
    }
}

pub(super) struct World {
    scenario: Scenario,
    seed: u64,
    per_sec: f64,
    fleet: Fleet,
    route: BoundRoute,
    now: Mono,
    heap: BinaryHeap<Entry>,
    turn: u64,
    flying: Vec<Option<Flying>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    fleet_armed: Mono,
    arrivals: fastrand::Rng,
    requests: u64,
    probes: u64,
    goldens: u64,
    server: Server,
    pub(super) tally: Tally,
}

impl World {
    pub(super) fn new(scenario: Scenario, seed: u64, per_sec: f64) -> Self {
        let targets = cast::specs(scenario);
        let mut fleet = Fleet::new(HealthPolicy::default(), seed);
        fleet.install(HealthPolicy::default(), &targets, Mono::ZERO);
        let route = fleet.bind(&cast::route(scenario, &targets));
        let mut world = World {
            scenario,
            seed,
            per_sec,
            fleet,
            route,
            now: Mono::ZERO,
            heap: BinaryHeap::new(),
            turn: 0,
            flying: Vec::new(),
            generations: Vec::new(),
            free: Vec::new(),
            fleet_armed: Mono::FAR,
            arrivals: fastrand::Rng::with_seed(seed ^ 0xa221_7a15),
            requests: 0,
            probes: 0,
            goldens: 0,
            server: Server::new(seed),
            tally: Tally::new(scenario, seed),
        };
        world.next_arrival();
        if let Some(every) = scenario.golden_every() {
            world.plan(Mono::ZERO + every, What::Golden);
        }
        world.after_fleet();
        world
    }

    /// Runs until the last client has its answer.
    pub(super) fn run(mut self) -> Tally {
        while let Some(Entry { at, what, .. }) = self.heap.pop() {
            self.now = at;
            self.happen(what);
            // Probes go on for ever; the run ends with its last client.
            if at > self.scenario.ends() && self.free.len() == self.flying.len() {
                let waiting = self.heap.iter().any(|entry| matches!(entry.what, What::Again(_)));
                if !waiting {
                    break;
                }
            }
        }
        self.tally
    }

    fn plan(&mut self, at: Mono, what: What) {
        self.turn += 1;
        self.heap.push(Entry { at, turn: self.turn, what });
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Arrive => self.arrive(),
            What::First(slot, attempt, rest) if self.live(slot, attempt) => {
                self.feed(slot, Event::Headers { attempt });
                self.feed(slot, Event::Output { attempt, tokens: 1, releasable: true });
                if let Some(lane) = self.flying(slot).and_then(|flying| flying.lane(attempt)) {
                    lane.flowing = true;
                }
                self.plan(self.now + rest, What::End(slot, attempt));
            }
            What::End(slot, attempt) if self.live(slot, attempt) => self.end(slot, attempt),
            What::Fail(slot, attempt, report) if self.live(slot, attempt) => {
                self.leave(slot, attempt);
                self.feed(slot, Event::Failed { attempt, report, spent: Spent::default() });
            }
            // Of an exchange that was aborted.
            What::First(..) | What::End(..) | What::Fail(..) => {}
            What::Served(job) => self.served(job),
            What::Timer(slot) => self.timer(slot),
            What::FleetTick => {
                if self.fleet_armed <= self.now {
                    self.fleet_armed = Mono::FAR;
                    self.fleet.handle(FleetEvent::Tick, self.now);
                    self.after_fleet();
                }
            }
            What::Probed(target, key, result) => {
                self.fleet.handle(FleetEvent::Probed { target, key, result }, self.now);
                self.after_fleet();
            }
            What::Golden => self.golden(),
            What::Again(request) => self.ask(request),
        }
    }

    fn next_arrival(&mut self) {
        let gap = model::arrival_gap(&mut self.arrivals, self.per_sec);
        if self.now + gap < self.scenario.ends() {
            self.plan(self.now + gap, What::Arrive);
        }
    }

    fn arrive(&mut self) {
        let number = self.requests;
        self.requests += 1;
        let question = model::question(self.seed, number);
        self.tally.arrived(number, question, self.now);
        self.ask(Request {
            number,
            question,
            arrived: self.now,
            deadline: self.now + self.scenario.deadline(),
            tries: 0,
            first_output: None,
            turns: [0; 3],
        });
        self.next_arrival();
    }

    /// One try of the client's SDK.
    fn ask(&mut self, request: Request) {
        if request.deadline <= self.now {
            self.tally.lost(request.arrived);
            return;
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.flying.push(None);
            self.generations.push(0);
            u32::try_from(self.flying.len() - 1).expect("fewer calls than that")
        });
        self.generations[place as usize] += 1;
        let slot = Slot { place, generation: self.generations[place as usize] };
        let ask = Ask {
            id: slot.id(),
            route: self.route.clone(),
            needs: Needs { stream: true, input_tokens: request.question.input_tokens, ..Needs::default() },
            deadline: Some(self.now.until(request.deadline)),
            seed: self.seed ^ (request.number * 4 + u64::from(request.tries)),
        };
        let call = Call::new(ask, self.now);
        self.flying[place as usize] =
            Some(Flying { call, request, live: [None; 2], wrong: 0, right: true, armed: Mono::FAR });
        self.feed(slot, Event::Admit);
    }

    fn flying(&mut self, slot: Slot) -> Option<&mut Flying> {
        if self.generations[slot.place as usize] != slot.generation {
            return None;
        }
        self.flying[slot.place as usize].as_mut()
    }

    fn live(&mut self, slot: Slot, attempt: u8) -> bool {
        self.flying(slot).is_some_and(|flying| flying.lane(attempt).is_some())
    }

    fn leave(&mut self, slot: Slot, attempt: u8) {
        if let Some(flying) = self.flying(slot) {
            flying.leave(attempt);
        }
    }

    /// One event for one call, and everything that follows from it at once.
    fn feed(&mut self, slot: Slot, event: Event) {
        let now = self.now;
        let Some(flying) = &mut self.flying[slot.place as usize] else { return };
        flying.call.handle(&mut self.fleet, event, now);
        while let Some(action) = self.flying(slot).and_then(|flying| flying.call.poll_action()) {
            self.perform(slot, action);
        }
        self.arm(slot);
        self.after_fleet();
    }

    /// Keeps the earliest timer of a call on the heap; a later one replaces it when it fires.
    fn arm(&mut self, slot: Slot) {
        let Some(flying) = self.flying(slot) else { return };
        if let Some(due) = flying.call.poll_timeout()
            && due < flying.armed
        {
            flying.armed = due;
            self.plan(due, What::Timer(slot));
        }
    }

    fn timer(&mut self, slot: Slot) {
        let now = self.now;
        let Some(flying) = self.flying(slot) else { return };
        if flying.armed > now {
            return;
        }
        flying.armed = Mono::FAR;
        if let Some(Lane { attempt, .. }) = flying.live.into_iter().flatten().find(|lane| lane.flowing) {
            self.feed(slot, Event::Output { attempt, tokens: 0, releasable: true });
        }
        let Some(flying) = self.flying(slot) else { return };
        if flying.call.poll_timeout().is_some_and(|due| due <= now) {
            self.feed(slot, Event::Tick);
        } else {
            self.arm(slot);
        }
    }

    fn perform(&mut self, slot: Slot, action: Action) {
        let now = self.now;
        match action {
            Action::Start { attempt, target, .. } => self.start(slot, attempt, target),
            Action::Abort { attempt } => {
                self.leave(slot, attempt);
                let event = Event::Aborted { attempt, spent: Spent::default() };
                if let Some(flying) = &mut self.flying[slot.place as usize] {
                    flying.call.handle(&mut self.fleet, event, now);
                }
            }
            Action::Check { attempt, budget: _ } => {
                let event = Event::Checked { attempt, findings: Findings::CLEAN };
                if let Some(flying) = &mut self.flying[slot.place as usize] {
                    flying.call.handle(&mut self.fleet, event, now);
                }
            }
            // The route of the simulator has no backstops and no degraded schema.
            Action::Keep { .. } | Action::Defer { .. } => {}
            Action::Backstop { at, cause: _ } => {
                if let Some(flying) = &mut self.flying[slot.place as usize] {
                    let event = Event::Backstopped { at, outcome: Backstopped::Declined };
                    flying.call.handle(&mut self.fleet, event, now);
                }
            }
            Action::Release { .. } => {
                if let Some(flying) = self.flying(slot) {
                    flying.request.first_output.get_or_insert(now);
                }
            }
            Action::Deliver { validated } => {
                if let Some(flying) = self.flying(slot) {
                    flying.right = match validated.source() {
                        Source::Attempt(attempt) | Source::Kept(attempt) => flying.wrong & (1 << attempt) == 0,
                        Source::Backstop(_) => true,
                    };
                    let (arrived, first) = (flying.request.arrived, flying.request.first_output.unwrap_or(now));
                    let right = flying.right;
                    self.tally.answered(arrived, first, right, now);
                }
            }
            Action::Reject { retry, after_commit, .. } => self.rejected(slot, retry, after_commit),
            Action::Settle(settlement) => {
                self.tally.settled(&settlement, slot.id().0);
                self.rate(slot, &settlement);
                if self.flying[slot.place as usize].take().is_some() {
                    self.free.push(slot.place);
                }
            }
        }
        self.tally.trace(now, slot.id().0);
    }

    fn start(&mut self, slot: Slot, attempt: u8, target: TargetIx) {
        let (now, scenario, seed) = (self.now, self.scenario, self.seed);
        let at = target.index();
        self.tally.asked(at, now);
        let Some(flying) = self.flying(slot) else { return };
        let lane = flying.live.iter_mut().find(|lane| lane.is_none()).expect("no more than two exchanges at once");
        *lane = Some(Lane { attempt, flowing: false });
        let turn = u32::from(flying.request.turns[at]);
        flying.request.turns[at] += 1;
        let exchange = model::exchange(seed, flying.request.number, flying.request.question, at, turn);
        flying.wrong |= u32::from(exchange.luck < scenario.wrong(at, now)) << attempt;
        match scenario.react(at, now, exchange) {
            Reaction::Stream { first, rest } => self.plan(now + first, What::First(slot, attempt, rest)),
            Reaction::Fail { after, report } => self.plan(now + after, What::Fail(slot, attempt, report)),
            Reaction::Hang => {}
            Reaction::Queue => self.enqueue(Job::Call(slot, attempt)),
        }
    }

    fn end(&mut self, slot: Slot, attempt: u8) {
        let Some(flying) = self.flying(slot) else { return };
        flying.leave(attempt);
        let Question { input_tokens, output_tokens } = flying.request.question;
        let usage = Usage { input_tokens, output_tokens, ..Usage::default() };
        let spent = Spent { usage, ..Spent::default() };
        self.feed(slot, Event::Output { attempt, tokens: output_tokens.saturating_sub(1), releasable: true });
        self.feed(slot, Event::Ended { attempt, finish: Some(Finish::Stop), spent });
    }

    /// The client has an error: its SDK tries again if the headers say so, and its person gives up if not.
    fn rejected(&mut self, slot: Slot, retry: RetryAdvice, after_commit: bool) {
        let Some(flying) = self.flying(slot) else { return };
        let mut request = flying.request;
        if retry.should_retry && !after_commit && request.tries < SDK_RETRIES {
            let wait = retry.retry_after.unwrap_or(SDK_WAITS[usize::from(request.tries)]);
            request.tries += 1;
            self.plan(self.now + wait, What::Again(request));
        } else {
            self.tally.lost(request.arrived);
        }
    }

    /// Some users say what a reply was worth.
    fn rate(&mut self, slot: Slot, settlement: &Settlement) {
        let Some(target) = &settlement.served_by else { return };
        let Some((request, right)) = self.flying(slot).map(|flying| (flying.request.number, flying.right)) else {
            return;
        };
        if self.scenario.golden_every().is_some() && model::rates(self.seed, request) {
            let route = self.route.route().id.clone();
            let rating = FleetEvent::Feedback { route, target: target.clone(), good: right };
            self.fleet.handle(rating, self.now);
        }
    }

    fn golden(&mut self) {
        let task = self.goldens;
        self.goldens += 1;
        for (at, target) in self.route.targets().enumerate() {
            let passed = model::golden(self.seed, task, at) >= self.scenario.wrong(at, self.now);
            self.tally.golden(at, self.now);
            self.fleet.handle(FleetEvent::Golden { target, passed }, self.now);
        }
        self.after_fleet();
        if let Some(every) = self.scenario.golden_every()
            && self.now + every < self.scenario.ends()
        {
            self.plan(self.now + every, What::Golden);
        }
    }

    fn enqueue(&mut self, job: Job) {
        self.server.push(job);
        self.serve();
    }

    /// Starts the next job that somebody still waits for: a closed connection costs the server nothing.
    fn serve(&mut self) {
        while !self.server.busy() {
            let Some(job) = self.server.pop() else { return };
            let wanted = match job {
                Job::Call(slot, attempt) => self.live(slot, attempt),
                Job::Probe { .. } => true,
            };
            if wanted {
                let took = self.server.start(self.scenario.capacity(self.per_sec, self.now));
                self.plan(self.now + took, What::Served(job));
            }
        }
    }

    fn served(&mut self, job: Job) {
        self.server.done();
        match job {
            Job::Call(slot, attempt) if self.live(slot, attempt) => {
                self.feed(slot, Event::Headers { attempt });
                self.feed(slot, Event::Output { attempt, tokens: 1, releasable: true });
                self.end(slot, attempt);
            }
            Job::Call(..) => {}
            Job::Probe { target, key, sent, timeout } => {
                let took = self.now.since(sent);
                let result = if took < timeout { Ok(took) } else { Err(silent()) };
                self.plan(self.now, What::Probed(target, key, result));
            }
        }
        self.serve();
    }

    /// What the fleet wants done.
    fn after_fleet(&mut self) {
        while let Some(action) = self.fleet.poll_action() {
            self.tally.trace(self.now, 1 << 63);
            match action {
                FleetAction::Wake(id) => {
                    let slot = Slot::of(id);
                    if self.flying(slot).is_some() {
                        self.feed(slot, Event::Woken);
                    }
                }
                FleetAction::Probe { target, key, timeout, .. } => self.probe(target, key, timeout),
                FleetAction::Alert(alert) => self.tally.alerted(&alert, self.now),
            }
        }
        if let Some(due) = self.fleet.poll_timeout()
            && due < self.fleet_armed
        {
            self.fleet_armed = due;
            self.plan(due.max(self.now), What::FleetTick);
        }
    }

    fn probe(&mut self, target: TargetIx, key: u8, timeout: Duration) {
        self.probes += 1;
        let question = Question { input_tokens: 8, output_tokens: 1 };
        let exchange = model::exchange(self.seed, u64::MAX - self.probes, question, target.index(), 0);
        let (after, result) = match self.scenario.react(target.index(), self.now, exchange) {
            Reaction::Stream { first, .. } if first < timeout => (first, Ok(first)),
            Reaction::Fail { after, report } => (after, Err(report)),
            Reaction::Stream { .. } | Reaction::Hang => (timeout, Err(silent())),
            Reaction::Queue => {
                self.enqueue(Job::Probe { target, key, sent: self.now, timeout });
                return;
            }
        };
        self.plan(self.now + after, What::Probed(target, key, result));
    }
}

fn silent() -> FailureReport {
    FailureReport::of(Failure::Timeout(Deadline::FirstToken))
}

/// The onset is part of the trace's frame; named here so that a changed frame changes every hash.
pub(super) const FRAME: u64 = ONSET.as_nanos();
