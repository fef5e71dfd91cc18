//! A small deterministic world around the engine: targets that behave as scripted, virtual time, and a watch over every
//! action. It panics as soon as a call breaks a rule that holds for every call.

#![allow(dead_code, unreachable_pub)]

mod rules;
mod scripts;

pub use rules::Seen;
pub use scripts::*;

use outlast_engine::*;
use outlast_model::{
    Brief, Failure, FailureReport, Findings, Mono, TargetId,
    failure::Deadline,
    policy::*,
    turn::{Finish, Usage},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What is asked of a scripted target.
#[derive(Clone, Debug)]
pub struct Question {
    pub target: TargetId,
    pub key: u8,
    pub now: Mono,
    pub probe: bool,
    /// How many exchanges this target has had before.
    pub earlier: u32,
    /// How it is put.
    pub brief: Brief,
}

type Behaviour = Box<dyn FnMut(&Question, &mut fastrand::Rng) -> Script>;
/// What a backstop comes to, and after how long; `None`: it never answers.
type Backstops = Box<dyn FnMut(usize, &FailureReport) -> Option<(Duration, Backstopped)>>;

enum Todo {
    Arrive(Needs, Option<Duration>),
    Feed(u64, Event),
    Probed(TargetIx, u8, Result<Duration, FailureReport>),
    ClientGone(u64),
    Checked(u64, u8, Findings),
    Backstopped(u64, usize, Backstopped),
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
    /// How long validators and judges take.
    pub judging: Duration,
    specs: BTreeMap<TargetId, TargetSpec>,
    backstops: Backstops,
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
            judging: Duration::ZERO,
            specs: targets.iter().map(|spec| (spec.id.clone(), spec.clone())).collect(),
            backstops: Box::new(|_, _| Some((Duration::ZERO, Backstopped::Declined))),
            asked: BTreeMap::new(),
            behaviour: Box::new(behaviour),
            rng: fastrand::Rng::with_seed(seed ^ 0x5eed),
            agenda: BTreeMap::new(),
            seq: 0,
        }
    }

    pub fn with_backstops(
        mut self,
        backstops: impl FnMut(usize, &FailureReport) -> Option<(Duration, Backstopped)> + 'static,
    ) -> World {
        self.backstops = Box::new(backstops);
        self
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
                let seen = Seen::new(Call::new(ask, self.now), self.route.clone(), needs, self.now);
                self.calls.push(seen);
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
                if open.live.contains_key(&attempt) {
                    if let Event::Ended { spent, .. } | Event::Failed { spent, .. } = &event {
                        let usage = spent.usage;
                        self.bill(id, attempt, &usage);
                        self.calls[id as usize].live.remove(&attempt);
                    }
                    if let Event::Output { tokens, .. } = event {
                        *self.calls[id as usize].live.entry(attempt).or_default() += tokens;
                    }
                    self.feed(id, event);
                }
            }
            Todo::Checked(id, attempt, findings) => {
                let seen = &mut self.calls[id as usize];
                if seen.checking == Some(attempt) {
                    seen.checking = None;
                    seen.was_checked(attempt, &findings);
                    self.feed(id, Event::Checked { attempt, findings });
                }
            }
            Todo::Backstopped(id, at, outcome) => {
                if self.calls[id as usize].settled.is_none() {
                    self.feed(id, Event::Backstopped { at, outcome });
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
                    let question = Question {
                        target: target_id,
                        key,
                        now: self.now,
                        probe: true,
                        earlier,
                        brief: Brief::default(),
                    };
                    let (after, result) = match (self.behaviour)(&question, &mut self.rng) {
                        Script::Answer { first, .. } | Script::Cut { first, .. } | Script::RunAway { first, .. } => {
                            (first, Ok(first))
                        }
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
        let seen = &mut self.calls[id as usize];
        seen.watch_time(id, &action, now);
        match action {
            Action::Start { attempt, target: _, target_id, key, timeouts, fallback_reason: _, brief } => {
                assert!(timeouts.total <= now.until(seen.deadline), "call {id}: timeouts reach past the deadline");
                // A target that a reload brought is as usual.
                let spec = self.specs.entry(target_id.clone()).or_insert_with(|| target(target_id.as_str()));
                seen.watch_start(id, attempt, spec, key, &brief, now);
                let earlier = *self.asked.entry(target_id.clone()).and_modify(|n| *n += 1).or_insert(0);
                let question = Question { target: target_id, key, now, probe: false, earlier, brief };
                let script = (self.behaviour)(&question, &mut self.rng);
                self.play(id, attempt, &question.brief, script);
            }
            Action::Abort { attempt } => {
                let heard = seen.live.remove(&attempt);
                if heard.is_none() {
                    assert_eq!(seen.checking.take(), Some(attempt), "call {id}: aborts what is not in flight");
                }
                let brief = &seen.briefs[usize::from(attempt)];
                let input_tokens = brief.shorten_to.unwrap_or(seen.needs.input_tokens);
                let output_tokens = heard.unwrap_or_default();
                let usage = Usage { input_tokens, output_tokens, ..Usage::default() };
                self.bill(id, attempt, &usage);
                let spent = Spent { usage, bytes_out: 400, bytes_in: 0 };
                self.calls[id as usize].call.handle(&mut self.fleet, Event::Aborted { attempt, spent }, now);
            }
            Action::Check { attempt, budget } => {
                let findings = seen.answer_check(attempt, budget);
                if self.judging > Duration::ZERO {
                    seen.checking = Some(attempt);
                    self.plan(now + self.judging, Todo::Checked(id, attempt, findings));
                } else {
                    seen.was_checked(attempt, &findings);
                    seen.call.handle(&mut self.fleet, Event::Checked { attempt, findings }, now);
                }
            }
            Action::Release { attempt } => seen.watch_release(id, attempt, now),
            Action::Keep { attempt } => seen.watch_keep(id, attempt),
            Action::Backstop { at, cause } => {
                let answer = (self.backstops)(at, &cause);
                if let Some((_, Backstopped::Said { findings, .. })) = &answer {
                    seen.said = Some((at, findings.clone()));
                }
                seen.watch_backstop(id, at, cause);
                if let Some((after, outcome)) = answer {
                    self.plan(now + after, Todo::Backstopped(id, at, outcome));
                }
            }
            Action::Deliver { validated } => seen.watch_delivery(id, &validated, now),
            Action::Defer { at } => seen.watch_deferral(id, at),
            Action::Reject { failure, cause, retry, after_commit, .. } => {
                assert!(seen.delivered.is_none() && seen.rejected.is_none(), "call {id}: rejected twice");
                assert_eq!(after_commit, seen.released.is_some(), "call {id}: after commit or not");
                seen.rejected = Some((failure, cause, retry, after_commit, now));
            }
            Action::Settle(settlement) => {
                seen.watch_settlement(id, *settlement);
                self.live.remove(&id);
            }
        }
    }

    fn bill(&mut self, id: u64, attempt: u8, usage: &Usage) {
        let seen = &mut self.calls[id as usize];
        let target = &seen.starts[usize::from(attempt)].1;
        seen.bill(attempt, &self.specs[target], usage);
    }

    /// Puts an exchange's events on the agenda.
    fn play(&mut self, id: u64, attempt: u8, brief: &Brief, script: Script) {
        let start = self.now;
        let seen = &self.calls[id as usize];
        let streamed = seen.needs.stream;
        let limit = brief.max_output_tokens.or(seen.needs.max_output_tokens).unwrap_or(u32::MAX);
        let sent = brief.shorten_to.unwrap_or(seen.needs.input_tokens);
        let input_tokens = (f64::from(sent) * self.token_scale) as u32;
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
                let tokens = tokens.min(limit);
                self.calls[id as usize].checks.insert(attempt, findings);
                let end = outputs(self, first, tokens, gap);
                let event = Event::Ended { attempt, finish: Some(Finish::Stop), spent: spent(tokens) };
                self.plan(end, Todo::Feed(id, event));
            }
            Script::RunAway { first, gap } => {
                const FOR_EVER: u32 = 1000;
                self.calls[id as usize].checks.insert(attempt, Findings::CLEAN);
                let end = outputs(self, first, FOR_EVER, gap);
                let event = Event::Ended { attempt, finish: Some(Finish::Stop), spent: spent(FOR_EVER) };
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
