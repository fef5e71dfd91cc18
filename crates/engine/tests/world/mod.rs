//! A small deterministic world around the engine: targets that behave as scripted, virtual time, and a watch over every
//! action. It panics as soon as a call breaks a rule that holds for every call.

#![allow(dead_code, unreachable_pub)]

use outlast_engine::*;
use outlast_model::{
    Failure, FailureReport, Findings, Mono, Price, Problem, TargetId,
    failure::Deadline,
    policy::*,
    record::{AttemptReason, Outcome},
    turn::{Finish, Usage},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub fn at(secs: f64) -> Mono {
    Mono::ZERO + Duration::from_secs_f64(secs)
}

pub const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    header: Duration::from_secs(60),
    first_token: Duration::from_secs(45),
    idle: Duration::from_secs(30),
    total: Duration::from_secs(600),
};

/// A target that can do everything, without probes.
pub fn target(id: &str) -> TargetSpec {
    TargetSpec {
        id: id.into(),
        provider: TargetId::from(id).provider().into(),
        region: None,
        dialect: Dialect::OpenaiChat,
        capabilities: Capabilities { tools: Ability::Yes, images: Ability::Yes, json_schema: Ability::Yes },
        context_window: None,
        max_output: None,
        price: Some(Price::per_million(3.0, 15.0, None, None)),
        timeouts: TIMEOUTS,
        keys: 1,
        probes: false,
    }
}

pub fn probed(id: &str) -> TargetSpec {
    TargetSpec { probes: true, ..target(id) }
}

pub fn tier(attempts: u8, deadline: Duration) -> Arc<Tier> {
    let [none, ..] = Tier::built_in();
    Arc::new(Tier { name: "test".into(), attempts, deadline, ..none })
}

pub fn route(targets: &[&str]) -> Route {
    Route::plain(
        "route".into(),
        targets.iter().map(|id| RouteTarget { target: (*id).into(), weight: 1 }).collect(),
        tier(3, Duration::from_secs(60)),
        Arc::new(Contract::plain("test", StreamContract::Fail)),
    )
}

pub fn stream() -> Needs {
    Needs { stream: true, input_tokens: 100, ..Needs::default() }
}

pub fn whole() -> Needs {
    Needs { input_tokens: 100, ..Needs::default() }
}

/// How one exchange goes.
#[derive(Clone, Debug)]
pub enum Script {
    /// Head and first output after `first`, then `tokens` outputs `gap` apart, then the end and these findings.
    Answer { first: Duration, tokens: u32, gap: Duration, findings: Findings },
    /// This failure, after so long.
    Fail { after: Duration, report: FailureReport },
    /// So many outputs, then this failure.
    Cut { first: Duration, tokens: u32, gap: Duration, report: FailureReport },
    /// Silence.
    Hang,
}

pub fn ok() -> Script {
    answer(ms(300), Findings::CLEAN)
}

pub fn answer(first: Duration, findings: Findings) -> Script {
    Script::Answer { first, tokens: 5, gap: ms(20), findings }
}

pub fn bad(failure: Failure) -> Script {
    answer(ms(300), found(failure))
}

pub fn found(failure: Failure) -> Findings {
    Findings { problems: vec![Problem::new(failure, "scripted")], ..Findings::CLEAN }
}

pub fn fail(failure: Failure) -> Script {
    fail_after(ms(50), failure, None)
}

pub fn fail_after(after: Duration, failure: Failure, retry_after: Option<Duration>) -> Script {
    let answered = !matches!(failure, Failure::Timeout(_) | Failure::Connection(_));
    let status = answered.then_some(if failure == Failure::RateLimited { 429 } else { 500 });
    Script::Fail { after, report: FailureReport { status, retry_after, ..FailureReport::of(failure) } }
}

/// What is asked of a scripted target.
#[derive(Clone, Debug)]
pub struct Question {
    pub target: TargetId,
    pub key: u8,
    pub now: Mono,
    pub probe: bool,
    /// How many exchanges this target has had before.
    pub earlier: u32,
}

type Behaviour = Box<dyn FnMut(&Question, &mut fastrand::Rng) -> Script>;

enum Todo {
    Arrive(Needs, Option<Duration>),
    Feed(u64, Event),
    Probed(TargetIx, u8, Result<Duration, FailureReport>),
    ClientGone(u64),
}

/// Everything seen of one call.
#[derive(Debug)]
pub struct Seen {
    pub call: Call,
    pub deadline: Mono,
    pub needs: Needs,
    /// (time, target, key) of each start.
    pub starts: Vec<(Mono, TargetId, u8)>,
    pub scripts: Vec<&'static str>,
    live: Option<u8>,
    checked_clean: BTreeSet<u8>,
    refused: BTreeSet<u8>,
    checks: BTreeMap<u8, Findings>,
    pub released: Option<(u8, Mono)>,
    pub delivered: Option<(u8, Mono)>,
    pub rejected: Option<(FailureReport, Option<FailureReport>, RetryAdvice, bool, Mono)>,
    pub settled: Option<Settlement>,
    gone: bool,
}

pub struct World {
    pub fleet: Fleet,
    pub route: BoundRoute,
    pub now: Mono,
    pub calls: Vec<Seen>,
    live: BTreeSet<u64>,
    pub alerts: Vec<(Mono, Alert)>,
    pub probes: Vec<(Mono, TargetId)>,
    pub trace: Vec<String>,
    /// What targets count as a token, against the estimate.
    pub token_scale: f64,
    asked: BTreeMap<TargetId, u32>,
    behaviour: Behaviour,
    rng: fastrand::Rng,
    agenda: BTreeMap<(Mono, u64), Todo>,
    seq: u64,
}

impl World {
    pub fn new(
        targets: &[TargetSpec],
        route: Route,
        behaviour: impl FnMut(&Question, &mut fastrand::Rng) -> Script + 'static,
    ) -> World {
        World::seeded(1, HealthPolicy::default(), targets, route, behaviour)
    }

    pub fn seeded(
        seed: u64,
        policy: HealthPolicy,
        targets: &[TargetSpec],
        route: Route,
        behaviour: impl FnMut(&Question, &mut fastrand::Rng) -> Script + 'static,
    ) -> World {
        let mut fleet = Fleet::new(policy.clone(), seed);
        fleet.install(policy, targets, Mono::ZERO);
        let route = fleet.bind(&route);
        World {
            fleet,
            route,
            now: Mono::ZERO,
            calls: Vec::new(),
            live: BTreeSet::new(),
            alerts: Vec::new(),
            probes: Vec::new(),
            trace: Vec::new(),
            token_scale: 1.0,
            asked: BTreeMap::new(),
            behaviour: Box::new(behaviour),
            rng: fastrand::Rng::with_seed(seed ^ 0x5eed),
            agenda: BTreeMap::new(),
            seq: 0,
        }
    }

    pub fn rebind(&mut self, route: &Route) {
        self.route = self.fleet.bind(route);
    }

    fn plan(&mut self, when: Mono, todo: Todo) {
        self.seq += 1;
        self.agenda.insert((when, self.seq), todo);
    }

    pub fn arrive(&mut self, when: Mono, needs: Needs) {
        self.plan(when, Todo::Arrive(needs, None));
    }

    /// Its client leaves so long after it came.
    pub fn arrive_briefly(&mut self, when: Mono, needs: Needs, stays: Duration) {
        self.plan(when, Todo::Arrive(needs, Some(stays)));
    }

    /// A steady rate of calls in `[from, until)`.
    pub fn arrive_steadily(&mut self, per_sec: f64, from: f64, until: f64, needs: &Needs) {
        let mut when = from;
        while when < until {
            self.arrive(at(when), needs.clone());
            when += 1.0 / per_sec;
        }
    }

    pub fn client_leaves(&mut self, when: Mono, call: u64) {
        self.plan(when, Todo::ClientGone(call));
    }

    /// Runs until nothing is to be done before `until`.
    pub fn run_until(&mut self, until: Mono) {
        loop {
            let agenda = self.agenda.first_key_value().map(|((when, _), _)| *when);
            let fleet = self.fleet.poll_timeout();
            let calls = self.live.iter().filter_map(|id| self.calls[*id as usize].call.poll_timeout());
            let Some(next) = agenda.into_iter().chain(fleet).chain(calls).min().filter(|next| *next <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(next);
            if fleet.is_some_and(|due| due <= self.now) {
                self.fleet.handle(FleetEvent::Tick, self.now);
                assert!(
                    self.fleet.poll_timeout().is_none_or(|due| due > self.now),
                    "the fleet's tick leaves work undone"
                );
                self.drain_fleet();
            }
            let calls = &self.calls;
            let due = |id: &u64| calls[*id as usize].call.poll_timeout().is_some_and(|due| due <= self.now);
            for id in self.live.iter().copied().filter(due).collect::<Vec<_>>() {
                // An earlier one's tick may have settled it.
                if self.live.contains(&id) {
                    self.feed(id, Event::Tick);
                    let due = self.calls[id as usize].call.poll_timeout();
                    assert!(due.is_none_or(|due| due > self.now), "call {id}: a tick leaves work undone: {due:?}");
                }
            }
            while let Some(entry) = self.agenda.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let todo = entry.remove();
                self.perform(todo);
            }
        }
    }

    fn perform(&mut self, todo: Todo) {
        match todo {
            Todo::Arrive(needs, stays) => {
                let id = self.calls.len() as u64;
                let ask = Ask {
                    id: CallId(id),
                    route: self.route.clone(),
                    needs: needs.clone(),
                    deadline: None,
                    seed: self.rng.u64(..),
                };
                let deadline = self.now + self.route.route().tier.deadline;
                self.calls.push(Seen {
                    call: Call::new(ask, self.now),
                    deadline,
                    needs,
                    starts: Vec::new(),
                    scripts: Vec::new(),
                    live: None,
                    checked_clean: BTreeSet::new(),
                    refused: BTreeSet::new(),
                    checks: BTreeMap::new(),
                    released: None,
                    delivered: None,
                    rejected: None,
                    settled: None,
                    gone: false,
                });
                self.live.insert(id);
                if let Some(stays) = stays {
                    self.client_leaves(self.now + stays, id);
                }
                self.feed(id, Event::Admit);
            }
            Todo::Feed(id, event) => {
                let open = &self.calls[id as usize];
                let (Event::Headers { attempt }
                | Event::Output { attempt, .. }
                | Event::Ended { attempt, .. }
                | Event::Failed { attempt, .. }) = event
                else {
                    unreachable!("only exchanges are scripted")
                };
                if open.live == Some(attempt) {
                    if matches!(event, Event::Ended { .. } | Event::Failed { .. }) {
                        self.calls[id as usize].live = None;
                    }
                    self.feed(id, event);
                }
            }
            Todo::Probed(target, key, result) => {
                self.fleet.handle(FleetEvent::Probed { target, key, result }, self.now);
                self.drain_fleet();
            }
            Todo::ClientGone(id) => {
                if self.calls.get(id as usize).is_some_and(|seen| seen.settled.is_none()) {
                    self.calls[id as usize].gone = true;
                    self.feed(id, Event::ClientGone);
                }
            }
        }
    }

    fn feed(&mut self, id: u64, event: Event) {
        let seen = &mut self.calls[id as usize];
        seen.call.handle(&mut self.fleet, event, self.now);
        while let Some(action) = self.calls[id as usize].call.poll_action() {
            self.watch(id, action);
        }
        self.drain_fleet();
    }

    /// Tells the fleet something, now.
    pub fn tell(&mut self, event: FleetEvent) {
        self.fleet.handle(event, self.now);
        self.drain_fleet();
    }

    fn drain_fleet(&mut self) {
        while let Some(action) = self.fleet.poll_action() {
            self.trace.push(format!("{:?} {action:?}", self.now));
            match action {
                FleetAction::Wake(CallId(id)) => {
                    if self.calls[id as usize].settled.is_none() {
                        self.feed(id, Event::Woken);
                    }
                }
                FleetAction::Probe { target, target_id, key, timeout } => {
                    self.probes.push((self.now, target_id.clone()));
                    let earlier = *self.asked.entry(target_id.clone()).and_modify(|n| *n += 1).or_insert(0);
                    let question = Question { target: target_id, key, now: self.now, probe: true, earlier };
                    let (after, result) = match (self.behaviour)(&question, &mut self.rng) {
                        Script::Answer { first, .. } | Script::Cut { first, .. } => (first, Ok(first)),
                        Script::Fail { after, report } => (after, Err(report)),
                        Script::Hang => (timeout, Err(FailureReport::of(Failure::Timeout(Deadline::FirstToken)))),
                    };
                    self.plan(self.now + after, Todo::Probed(target, key, result));
                }
                FleetAction::Alert(alert) => self.alerts.push((self.now, alert)),
            }
        }
    }

    /// Performs an action, and holds it against the rules.
    fn watch(&mut self, id: u64, action: Action) {
        self.trace.push(format!("{:?} {id} {action:?}", self.now));
        let now = self.now;
        let tier = self.route.route().tier.clone();
        let seen = &mut self.calls[id as usize];
        assert!(seen.settled.is_none(), "call {id}: an action after its settlement: {action:?}");
        assert!(now <= seen.deadline, "call {id}: it outlives its deadline");
        match action {
            Action::Start { attempt, target, target_id, key, timeouts, fallback_reason: _, brief: _ } => {
                assert_eq!(usize::from(attempt), seen.starts.len(), "call {id}: attempts are numbered in order");
                assert!(seen.starts.len() < usize::from(tier.attempts), "call {id}: more attempts than its tier has");
                assert!(seen.live.is_none(), "call {id}: two exchanges at once");
                assert!(seen.delivered.is_none() && seen.rejected.is_none(), "call {id}: an attempt after its end");
                assert!(seen.released.is_none(), "call {id}: an attempt after the commit point");
                assert!(timeouts.total <= now.until(seen.deadline), "call {id}: timeouts reach past the deadline");
                seen.starts.push((now, target_id.clone(), key));
                seen.live = Some(attempt);
                let repeated =
                    seen.starts.len() - seen.starts.iter().map(|(_, t, k)| (t, k)).collect::<BTreeSet<_>>().len();
                assert!(repeated <= 1, "call {id}: more than one same-target retry");
                let _ = target;
                let earlier = *self.asked.entry(target_id.clone()).and_modify(|n| *n += 1).or_insert(0);
                let question = Question { target: target_id, key, now, probe: false, earlier };
                let script = (self.behaviour)(&question, &mut self.rng);
                self.play(id, attempt, script);
            }
            Action::Abort { attempt } => {
                assert_eq!(seen.live.take(), Some(attempt), "call {id}: aborts what is not in flight");
                let spent =
                    Spent { usage: Usage { input_tokens: 100, ..Usage::default() }, bytes_out: 400, bytes_in: 0 };
                self.calls[id as usize].call.handle(&mut self.fleet, Event::Aborted { attempt, spent }, now);
            }
            Action::Check { attempt, budget: _ } => {
                let findings = seen.checks.remove(&attempt).expect("only an ended reply is checked");
                match findings.problems.as_slice() {
                    [] => drop(seen.checked_clean.insert(attempt)),
                    [only] if only.failure == Failure::Refusal => drop(seen.refused.insert(attempt)),
                    _ => {}
                }
                self.calls[id as usize].call.handle(&mut self.fleet, Event::Checked { attempt, findings }, now);
            }
            Action::Release { attempt } => {
                assert!(
                    seen.needs.stream && seen.needs.output == OutputNeed::Text,
                    "call {id}: released a buffered reply"
                );
                assert!(seen.released.replace((attempt, now)).is_none(), "call {id}: released twice");
                assert_eq!(seen.live, Some(attempt), "call {id}: released what is not in flight");
            }
            Action::Deliver { validated } => {
                let (Source::Attempt(attempt) | Source::Kept(attempt)) = validated.source() else {
                    unreachable!("no backstop has a reply here")
                };
                let passed = seen.checked_clean.contains(&attempt) || seen.refused.contains(&attempt);
                assert!(passed, "call {id}: delivered what did not pass its checks");
                assert!(seen.released.is_none_or(|(released, _)| released == attempt), "call {id}: mixed two replies");
                assert!(seen.delivered.replace((attempt, now)).is_none() && seen.rejected.is_none());
            }
            Action::Keep { .. } | Action::Backstop { .. } | Action::Defer { .. } => {
                unreachable!("these worlds have no backstops")
            }
            Action::Reject { failure, cause, retry, after_commit, .. } => {
                assert!(seen.delivered.is_none() && seen.rejected.is_none(), "call {id}: rejected twice");
                assert_eq!(after_commit, seen.released.is_some(), "call {id}: after commit or not");
                seen.rejected = Some((failure, cause, retry, after_commit, now));
            }
            Action::Settle(settlement) => {
                assert!(seen.live.is_none(), "call {id}: settled with an exchange in flight");
                assert_eq!(settlement.attempts.len(), seen.starts.len());
                let ended =
                    [seen.delivered.is_some(), seen.rejected.is_some(), settlement.outcome == Outcome::Cancelled];
                assert_eq!(ended.iter().filter(|ended| **ended).count(), 1, "call {id}: one ending: {ended:?}");
                assert!(settlement.wasted <= settlement.cost);
                let same = settlement.attempts.iter().filter(|a| a.reason == AttemptReason::SameTarget).count();
                assert!(same <= 1, "call {id}: more than one same-target retry");
                let block = settlement.attempts.iter().position(|a| {
                    a.failure
                        .as_ref()
                        .is_some_and(|report| matches!(report.failure, Failure::SafetyBlock | Failure::InvalidRequest))
                });
                assert!(block.is_none_or(|at| at + 1 == settlement.attempts.len()), "call {id}: got round a block");
                seen.settled = Some(*settlement);
                self.live.remove(&id);
            }
        }
    }

    /// Puts an exchange's events on the agenda.
    fn play(&mut self, id: u64, attempt: u8, script: Script) {
        let start = self.now;
        let streamed = self.calls[id as usize].needs.stream;
        let input_tokens = (f64::from(self.calls[id as usize].needs.input_tokens) * self.token_scale) as u32;
        let spent = |tokens| Spent {
            usage: Usage { input_tokens, output_tokens: tokens, ..Usage::default() },
            bytes_out: 400,
            bytes_in: 40 * u64::from(tokens),
        };
        let outputs = |world: &mut World, first: Duration, tokens: u32, gap: Duration| {
            world.plan(start + first, Todo::Feed(id, Event::Headers { attempt }));
            let mut when = start + first;
            for _ in 0..tokens {
                if streamed {
                    world.plan(when, Todo::Feed(id, Event::Output { attempt, tokens: 1, releasable: true }));
                }
                when = when + gap;
            }
            when
        };
        match script {
            Script::Answer { first, tokens, gap, findings } => {
                self.calls[id as usize].checks.insert(attempt, findings);
                let end = outputs(self, first, tokens, gap);
                let event = Event::Ended { attempt, finish: Some(Finish::Stop), spent: spent(tokens) };
                self.plan(end, Todo::Feed(id, event));
            }
            Script::Cut { first, tokens, gap, report } => {
                let end = outputs(self, first, tokens, gap);
                self.plan(end, Todo::Feed(id, Event::Failed { attempt, report, spent: spent(tokens) }));
            }
            Script::Fail { after, report } => {
                self.plan(start + after, Todo::Feed(id, Event::Failed { attempt, report, spent: spent(0) }));
            }
            Script::Hang => {}
        }
    }

    pub fn state(&self, id: &str) -> TargetView {
        let view = self.fleet.view(self.now).into_iter().find(|view| view.id.as_str() == id);
        view.expect("the target is installed")
    }

    pub fn asked(&self, id: &str) -> usize {
        self.calls.iter().flat_map(|seen| &seen.starts).filter(|(_, target, _)| target.as_str() == id).count()
    }

    pub fn answered(&self) -> usize {
        self.calls.iter().filter(|seen| seen.delivered.is_some()).count()
    }

    /// The settlement of a call that must have ended.
    pub fn settled(&self, id: usize) -> &Settlement {
        self.calls[id].settled.as_ref().expect("the call has settled")
    }

    pub fn all_settled(&self) -> bool {
        self.calls.iter().all(|seen| seen.settled.is_some())
    }
}
