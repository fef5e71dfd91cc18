//! A vote: several complete calls for one request, and the first answer that is ahead of every other by enough wins.
//!
//! Each vote is a call of its own, with failover and all gates; the engine counts and says how many are still worth
//! asking for, the wire says which replies agree, and a judge, if the tier names one, which texts mean the same in other
//! words. Whoever is still being asked when it is decided is dropped.

use super::{
    backstops::Cx,
    inner::{self, Answered, Asking, Inner, Records},
};
use crate::clock;
use outlast_engine::vote::{Ballot, Election};
use outlast_model::{
    Failure, FailureReport, Usd,
    failure::Then,
    policy::{ConfidenceFrom, Dialect, Disagreement, Votes},
    record::{Agreement, CallRecord, Role},
    turn::OutputFormat,
};
use outlast_wire::{Inbound, agree::Tally, compose::Said, judge, plan::Intent};
use serde_json::{Value, json};
use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

/// What is to be voted on.
pub(super) struct Motion {
    pub(super) cx: Cx,
    pub(super) rules: Votes,
    /// The most all votes together may cost.
    pub(super) budget: Option<Usd>,
    /// The longest the vote may take.
    pub(super) deadline: Duration,
    /// Where the votes' records go, those cut short included.
    pub(super) records: Records,
}

/// How a vote ended.
pub(super) enum Elected {
    /// An answer won, or leads and may be given though the votes were divided.
    Won { vote: Box<Vote>, agreement: Agreement, divided: bool, judged: Usd },
    /// None did. `judged`: what it cost to tell the answers apart.
    Lost { cause: FailureReport, agreement: Option<Agreement>, judged: Usd },
}

/// A valid vote.
pub(super) struct Vote {
    pub(super) said: Said,
    pub(super) plan: Vec<Intent>,
    pub(super) record: Box<CallRecord>,
}

/// A vote that is being asked for, and the money that is reserved for it.
struct Running {
    asking: Asking,
    reserved: Option<Usd>,
}

/// Holds the vote.
pub(super) async fn elect(motion: Motion) -> Elected {
    let mut booth = Booth::open(&motion);
    let mut election = Election::new(&motion.rules);
    loop {
        match election.next() {
            Ballot::Ask(more) => (0..more).for_each(|_| booth.ask()),
            Ballot::Wait => {
                let Some(answered) = booth.next().await else { return booth.lost(None) };
                if let Err(report) = &answered.result
                    && report.failure.remedy().then == Then::ReturnReason
                {
                    // A policy reason, or the client's own fault: no further vote would change it, and none may.
                    return Elected::Lost { cause: report.clone(), agreement: None, judged: booth.judged };
                }
                election.cast(booth.count(answered).await);
            }
            Ballot::Won(class) => return booth.won(class, election.agreement(class), false),
            Ballot::Undecided { leader } => {
                let agreement = leader.map(|class| election.agreement(class));
                return match (motion.rules.disagreement, leader.zip(agreement)) {
                    (Disagreement::Majority, Some((class, agreement))) => booth.won(class, agreement, true),
                    (Disagreement::Majority | Disagreement::Fail, _) => booth.lost(agreement),
                };
            }
        }
    }
}

/// Where votes are asked for and told apart.
struct Booth<'a> {
    motion: &'a Motion,
    tally: Tally,
    running: Vec<Running>,
    /// The valid votes, in the order of the tally.
    votes: Vec<Vote>,
    asked: u8,
    /// What is neither spent nor reserved.
    left: Option<Usd>,
    /// What it cost to tell texts apart.
    judged: Usd,
    first_failure: Option<FailureReport>,
    ends: clock::Instant,
}

impl<'a> Booth<'a> {
    fn open(motion: &'a Motion) -> Self {
        let demands_json = motion.cx.route.route().contract.checks.schema.is_some()
            || !matches!(motion.cx.inbound.output(), OutputFormat::Text | OutputFormat::Opaque(_));
        Booth {
            motion,
            tally: Tally::new(&motion.rules).of_json(demands_json),
            running: Vec::new(),
            votes: Vec::new(),
            asked: 0,
            left: motion.budget,
            judged: Usd::ZERO,
            first_failure: None,
            ends: clock::now() + motion.deadline,
        }
    }

    fn ask(&mut self) {
        let Motion { cx, rules, records, .. } = self.motion;
        let bindings = &cx.route.votes;
        let Some(bound) = bindings.get(usize::from(self.asked) % bindings.len().max(1)).cloned() else { return };
        // Each sample that may still come gets an equal part of what is left.
        let parts = u64::from(rules.samples.saturating_sub(self.asked).max(1));
        let reserved = self.left.map(|left| Usd::from_nanos(left.as_nanos() / parts));
        self.left = minus(self.left, reserved);
        self.asked += 1;
        let inner = Inner {
            route: Arc::clone(&cx.route),
            inbound: Arc::clone(&cx.inbound),
            budget: reserved,
            deadline: Some(self.ends.saturating_duration_since(clock::now())),
            role: Role::Vote,
            parent: cx.request_id.clone(),
            run: cx.run.clone(),
            tenant: cx.tenant.clone(),
            state: cx.state.clone(),
            passed: cx.passed.clone(),
            depth: cx.depth,
        };
        let asking = inner::vote(&cx.shared, &cx.live, inner, bound, Arc::clone(records));
        self.running.push(Running { asking, reserved });
    }

    /// The next vote that comes back. `None`: nobody is being asked.
    async fn next(&mut self) -> Option<Answered> {
        if self.running.is_empty() {
            return None;
        }
        let running = &mut self.running;
        let (at, answered) = poll_fn(|cx| {
            for (at, vote) in running.iter_mut().enumerate() {
                if let Poll::Ready(answered) = vote.asking.as_mut().poll(cx) {
                    return Poll::Ready((at, answered));
                }
            }
            Poll::Pending
        })
        .await;
        let Running { reserved, .. } = self.running.swap_remove(at);
        // What was reserved and not spent is there for the votes to come.
        let unspent = reserved.map(|reserved| minus(Some(reserved), Some(answered.record.cost)).unwrap_or_default());
        self.left = self.left.map(|left| left + unspent.unwrap_or_default());
        Some(answered)
    }

    /// The class a vote is for; `None` when it does not count.
    async fn count(&mut self, answered: Answered) -> Option<usize> {
        let Answered { result, refused: _, plan, record } = answered;
        match result {
            Ok(said) => {
                let text = ballot(&said, &plan);
                let class = match self.judged_alike(&text).await {
                    Some(class) => self.tally.add_to(class, &text)?,
                    None => self.tally.add(&text)?,
                };
                self.votes.push(Vote { said, plan, record });
                Some(class)
            }
            Err(report) => {
                self.first_failure.get_or_insert(report);
                None
            }
        }
    }

    /// The class that a judge says a text belongs to though its words are others. Whatever the judge does not say is
    /// the same stays different.
    async fn judged_alike(&mut self, text: &str) -> Option<usize> {
        let judge = self.motion.rules.judge.as_ref()?;
        for (class, first) in self.tally.other_words(text) {
            let Motion { cx, .. } = self.motion;
            let route = cx.live.route(judge.route.as_str()).filter(|_| cx.depth < inner::DEPTH_MAX)?;
            let question = judge::comparison(&cx.inbound, [&self.votes[first].said.text, text], judge);
            let left = self.ends.saturating_duration_since(clock::now());
            let inner = Inner {
                route: Arc::clone(route),
                inbound: Arc::new(Inbound::parse(Dialect::OpenaiChat, question).ok()?),
                budget: [judge.cost_max, self.left].into_iter().flatten().min(),
                deadline: Some(judge.timeout.min(left)),
                role: Role::Judge,
                parent: cx.request_id.clone(),
                run: cx.run.clone(),
                tenant: cx.tenant.clone(),
                state: None,
                passed: Vec::new(),
                depth: cx.depth + 1,
            };
            let answered = inner::ask(&cx.shared, &cx.live, inner).await;
            self.judged = self.judged + answered.record.cost;
            self.left = minus(self.left, Some(answered.record.cost));
            if answered.result.ok().and_then(|said| judge::are_same(&said.text)) == Some(true) {
                return Some(class);
            }
        }
        None
    }

    fn won(mut self, class: usize, agreement: Agreement, divided: bool) -> Elected {
        let whole = self.tally.whole(class);
        if whole >= self.votes.len() || !self.is_sure(&agreement) {
            return self.lost(Some(agreement));
        }
        Elected::Won { vote: Box::new(self.votes.swap_remove(whole)), agreement, divided, judged: self.judged }
    }

    /// Whether its share of the votes is as much as the contract demands, if it does.
    fn is_sure(&self, agreement: &Agreement) -> bool {
        match &self.motion.cx.route.route().contract.confidence {
            Some(confidence) if confidence.from == ConfidenceFrom::Votes => share(agreement) >= confidence.min,
            Some(_) | None => true,
        }
    }

    fn lost(self, agreement: Option<Agreement>) -> Elected {
        // Where nobody voted, what kept the first one from it is the reason.
        let cause = self.first_failure.filter(|_| self.votes.is_empty());
        let cause = cause.unwrap_or(FailureReport::of(Failure::Quality));
        Elected::Lost { cause, agreement, judged: self.judged }
    }
}

/// The share of the valid votes that an answer got.
pub(super) fn share(agreement: &Agreement) -> f64 {
    f64::from(agreement.votes_for) / f64::from(agreement.votes.max(1))
}

/// What is compared: the text, or the tool calls where there are any.
fn ballot(said: &Said, plan: &[Intent]) -> String {
    let arguments = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_else(|_| text.into());
    let calls: Vec<Value> = said
        .tool_calls
        .iter()
        .map(|call| json!({ "tool": call.name, "arguments": arguments(&call.arguments) }))
        .collect();
    let intents = plan.iter().map(|intent| json!({ "tool": intent.tool, "arguments": intent.arguments }));
    match calls.into_iter().chain(intents).collect::<Vec<_>>() {
        none if none.is_empty() => said.text.clone(),
        calls => Value::Array(calls).to_string(),
    }
}

fn minus(from: Option<Usd>, taken: Option<Usd>) -> Option<Usd> {
    let taken = taken.unwrap_or_default().as_nanos();
    from.map(|from| Usd::from_nanos(from.as_nanos().saturating_sub(taken)))
}
