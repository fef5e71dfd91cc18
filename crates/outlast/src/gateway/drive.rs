//! THE loop: performs a call's actions and feeds it what happened, until it is settled.
//!
//! The call's task owns the [`Driver`]; dropping the driver at any point cancels the upstream exchange
//! and still settles the call. What the client is given goes through an [`Outlet`].

mod beside;
mod deliver;
mod voting;

use super::{
    Shared,
    body::{Out, Outlet},
    exchange::{Exchange, Order, Seen},
    inner::{Answered, Records},
    lanes::Lanes,
    live::{Live, LiveRoute},
    reply_head::Told,
    ticket::Ticket,
};
use crate::{
    clock::{self, Sleep},
    telemetry::TraceContext,
};
use beside::{Beside, Prepared, Waiting};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use outlast_engine::{Action, Ask, Call, Event, RetryAdvice, Settlement, Source};
use outlast_model::{
    Brief, Failure, FailureReport, Mono, RequestId, RunId, TargetId, Wall,
    policy::{BackstopKind, Priority, RefusalPolicy, ToolMode},
    record::{CALL_RECORD_VERSION, CallRecord, GaveUp, Outcome, Parent, Role, WorkflowState},
};
use outlast_wire::Inbound;
use std::{pin::Pin, sync::Arc, time::Duration};
use tokio::sync::Notify;
use voting::Voting;

/// While a stream's client waits for its first output, a comment is sent this often, so that proxies between do not
/// cut the connection. The first one commits the status line: errors after it travel inside the stream.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What the host knows of a call beside the engine's [`Ask`].
pub(super) struct Facts {
    pub(super) request_id: RequestId,
    pub(super) trace: TraceContext,
    pub(super) tracestate: Option<HeaderValue>,
    pub(super) task_id: Option<Box<str>>,
    /// The run it is a step of.
    pub(super) run: Option<RunId>,
    pub(super) workflow_step: Option<Box<str>>,
    pub(super) tenant_hash: Option<Box<str>>,
    pub(super) started: Wall,
    /// The route's first target, where its order is fixed.
    pub(super) primary: Option<TargetId>,
    /// The client asked for the `outlast` object.
    pub(super) trace_full: bool,
    /// Headers of the client's that same-dialect targets are given too.
    pub(super) passed: Vec<(HeaderName, HeaderValue)>,
    /// Its place in the queue, should it come to that.
    pub(super) priority: Priority,
    /// The workflow state that came with the request.
    pub(super) state: Option<WorkflowState>,
    /// What was given up before the call began: with the user's consent another route answers.
    pub(super) gave_up: Option<GaveUp>,
    /// On whose behalf it is made, if no client made it.
    pub(super) parent: Option<Parent>,
    /// Of how many calls it is on behalf.
    pub(super) depth: u8,
}

impl Facts {
    /// Whether it is a part of another call's work, not an errand of its own.
    fn is_part(&self) -> bool {
        matches!(self.parent.as_ref().map(|parent| parent.role), Some(Role::Judge | Role::Vote))
    }
}

/// One call being driven.
pub(super) struct Driver {
    shared: Arc<Shared>,
    live: Arc<Live>,
    route: Arc<LiveRoute>,
    call: Call,
    wake: Arc<Notify>,
    ask_id: outlast_engine::CallId,
    inbound: Arc<Inbound>,
    facts: Facts,
    lanes: Lanes,
    /// What the call waits for beside its exchanges.
    beside: Option<Waiting>,
    /// The vote that decides it, if one does.
    voting: Option<Box<Voting>>,
    /// What a backstop or a vote has ready.
    prepared: Option<Box<Prepared>>,
    /// The right to execute the call of an idempotency key.
    ticket: Option<Ticket>,
    timer: Option<Pin<Box<Sleep>>>,
    timer_at: Mono,
    /// The attempt whose output the client is shown as it comes.
    released: Option<u8>,
    head_sent: bool,
    told: Told,
    ending: Option<Ending>,
    settled: bool,
    record: Option<Box<CallRecord>>,
    /// Where and when a deferred answer is to be had.
    promised: Option<(Option<String>, Option<Duration>)>,
    /// Where the record goes when it is part of another's.
    records: Option<Records>,
}

/// How the client's side of the call ends; performed once the call is settled, so that its facts are final.
enum Ending {
    Deliver(Source),
    Defer,
    Reject { failure: FailureReport, cause: Option<FailureReport>, attempt: Option<u8>, retry: RetryAdvice },
}

impl Driver {
    /// Admits the call.
    pub(super) fn new(
        shared: Arc<Shared>,
        live: Arc<Live>,
        route: Arc<LiveRoute>,
        ask: Ask,
        inbound: Arc<Inbound>,
        facts: Facts,
    ) -> Self {
        let wake = Arc::new(Notify::new());
        shared.wakes.insert(ask.id, wake.clone());
        if !facts.is_part() {
            shared.telemetry.metrics().calls_in_flight.add(1);
        }
        let now = shared.clock.mono();
        let voting = Voting::of(&route, &facts, &ask, now);
        let ask_id = ask.id;
        let call = Call::new(ask, now);
        Driver {
            shared,
            live,
            route,
            call,
            wake,
            ask_id,
            inbound,
            facts,
            lanes: Lanes::default(),
            beside: None,
            voting,
            prepared: None,
            ticket: None,
            timer: None,
            timer_at: Mono::FAR,
            released: None,
            head_sent: false,
            told: Told::default(),
            ending: None,
            settled: false,
            record: None,
            promised: None,
            records: None,
        }
    }

    /// Executes the call of an idempotency key: its end is kept before the client sees it.
    pub(super) fn hold(&mut self, ticket: Option<Ticket>) {
        self.ticket = ticket;
    }

    /// Adds its record to these: it is a part of another's.
    pub(super) fn collect_in(&mut self, records: Records) {
        self.records = Some(records);
    }

    /// Drives a client's call to its end.
    pub(super) async fn run(&mut self, outlet: &Outlet<Out>) {
        self.begin();
        let mut keep_alive = self.inbound.stream().then(|| Box::pin(clock::sleep(KEEP_ALIVE)));
        loop {
            self.perform();
            if self.record.is_some() {
                return self.finish(outlet).await;
            }
            if self.released.is_some() {
                self.pass_on(outlet).await;
            }
            self.arm_timer();
            tokio::select! {
                // Output first: a deadline that passed while the client was slow to read is not the target's.
                biased;
                (attempt, seen) = self.lanes.next() => self.report(attempt, seen),
                beside = done(&mut self.beside) => self.hear(beside),
                () = self.wake.notified() => self.feed(Event::Woken),
                () = expired(&mut self.timer) => {
                    self.timer_at = Mono::FAR;
                    self.feed(Event::Tick);
                }
                () = expired(&mut keep_alive), if self.released.is_none() => {
                    let next = self.shared.clock.mono() + KEEP_ALIVE;
                    keep_alive = Some(Box::pin(clock::sleep_until(self.shared.clock.instant(next))));
                    self.send_head(outlet).await;
                    outlet.put(Out::Data(Bytes::from_static(b": keep-alive\n\n"))).await;
                }
            }
        }
    }

    /// Drives a call that no client waits for to its end.
    pub(super) async fn answer(&mut self) -> Answered {
        self.begin();
        loop {
            self.perform();
            if let Some(answered) = self.answered() {
                return answered;
            }
            self.arm_timer();
            tokio::select! {
                biased;
                (attempt, seen) = self.lanes.next() => self.report(attempt, seen),
                beside = done(&mut self.beside) => self.hear(beside),
                () = self.wake.notified() => self.feed(Event::Woken),
                () = expired(&mut self.timer) => {
                    self.timer_at = Mono::FAR;
                    self.feed(Event::Tick);
                }
            }
        }
    }

    fn feed(&mut self, event: Event) {
        let now = self.shared.clock.mono();
        self.shared.with_fleet(|fleet| self.call.handle(fleet, event, now));
    }

    fn report(&mut self, attempt: u8, seen: Seen) {
        let Some(exchange) = self.lanes.get(attempt) else { return };
        let event = match seen {
            Seen::Headers => Event::Headers { attempt },
            Seen::Output { tokens, releasable } => Event::Output { attempt, tokens, releasable },
            Seen::Ended { finish } => Event::Ended { attempt, finish, spent: exchange.spent() },
            Seen::Failed(report) => Event::Failed { attempt, report, spent: exchange.spent() },
        };
        self.feed(event);
    }

    /// Performs what the engine wants, until it wants nothing more.
    fn perform(&mut self) {
        while let Some(action) = self.call.poll_action() {
            match action {
                Action::Start { attempt, target_id, key, fallback_reason, brief, .. } => {
                    let full_tools =
                        self.route.route().contract.tools.as_ref().map_or(ToolMode::Full, |tools| tools.primary);
                    self.told.begin(attempt, target_id.clone(), fallback_reason, &brief, full_tools);
                    self.start(attempt, &target_id, key, brief);
                }
                Action::Abort { attempt } => self.abort(attempt),
                Action::Check { attempt, budget } => self.check(attempt, budget),
                Action::Keep { attempt } => self.lanes.keep(attempt),
                Action::Backstop { at, cause } => self.backstop(at, cause),
                Action::Release { attempt } => {
                    self.told.show(attempt);
                    self.released = Some(attempt);
                }
                Action::Deliver { validated } => self.ending = Some(Ending::Deliver(validated.source())),
                Action::Defer { at: _ } => self.ending = Some(Ending::Defer),
                Action::Reject { failure, cause, attempt, retry, after_commit: _ } => {
                    // Only a call that nobody was asked for is told to come back for want of room.
                    if failure.failure == Failure::Overloaded && retry.should_retry {
                        self.shared.telemetry.metrics().shed_overload.add(1);
                    }
                    self.ending = Some(Ending::Reject { failure, cause, attempt, retry });
                }
                Action::Settle(settlement) => self.settle(*settlement),
            }
        }
    }

    fn start(&mut self, attempt: u8, target_id: &TargetId, key: u8, brief: Brief) {
        let Some(target) = self.live.target(target_id).cloned() else {
            // Only a target removed between planning and now; the engine goes on to the next.
            let report = FailureReport::of(Failure::AccessDenied);
            return self.feed(Event::Failed { attempt, report, spent: Default::default() });
        };
        let same_dialect = target.spec.dialect == self.inbound.dialect();
        let headers = self.headers(same_dialect);
        let broken = brief.mend.as_ref().and_then(|mend| self.lanes.get(mend.attempt)?.said()).map(|said| said.text);
        let withhold_tools = self.ticket.as_ref().is_some_and(Ticket::is_step);
        let order = Order { attempt, key, headers, brief, mend: broken, collect: self.collects(), withhold_tools };
        match Exchange::start(self.shared.clone(), target, self.inbound.clone(), &self.route.gates, order) {
            Ok(exchange) => self.lanes.add(exchange),
            Err(report) => self.feed(Event::Failed { attempt, report, spent: Default::default() }),
        }
    }

    /// Whether a stream's text is needed once it is whole, beside what the request itself demands.
    fn collects(&self) -> bool {
        let route = self.route.route();
        let contract = &route.contract;
        let keeps_replies = |kind: &BackstopKind| matches!(kind, BackstopKind::Cache { .. });
        contract.judges_whole_replies()
            || contract.tools.is_some()
            || contract.refusal != RefusalPolicy::Deliver
            || self.facts.parent.is_some()
            || self.ticket.is_some()
            || route.backstops.iter().any(|backstop| keeps_replies(&backstop.kind))
    }

    fn headers(&self, same_dialect: bool) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::with_capacity(4);
        if let Ok(parent) = HeaderValue::from_str(&self.facts.trace.child(&self.shared.clock)) {
            headers.push((HeaderName::from_static("traceparent"), parent));
        }
        if let Some(state) = &self.facts.tracestate {
            headers.push((HeaderName::from_static("tracestate"), state.clone()));
        }
        if same_dialect {
            headers.extend(self.facts.passed.iter().cloned());
        }
        headers
    }

    fn abort(&mut self, attempt: u8) {
        // A reply that is being judged is not judged on; dropping the judge's call cancels that, too.
        self.beside.take_if(|waiting| waiting.attempt == Some(attempt));
        // Dropping the exchange closes its connection: the provider sees the cancellation.
        let spent = self.lanes.take(attempt).map(|exchange| exchange.spent()).unwrap_or_default();
        self.feed(Event::Aborted { attempt, spent });
    }

    fn settle(&mut self, settled: Settlement) {
        let settled = self.with_votes(settled);
        self.record = Some(Box::new(self.written(settled)));
        self.settled = true;
    }

    /// The lineage of a call that ended so.
    fn written(&self, settled: Settlement) -> CallRecord {
        let facts = &self.facts;
        let route = self.route.route();
        let gave_up: Vec<GaveUp> = facts.gave_up.iter().cloned().chain(settled.gave_up).collect();
        let served = matches!(settled.outcome, Outcome::Answered | Outcome::Deferred);
        CallRecord {
            version: CALL_RECORD_VERSION,
            request_id: facts.request_id.clone(),
            trace_id: facts.trace.trace_id(),
            task_id: facts.task_id.clone(),
            run: facts.run.clone(),
            tenant_hash: facts.tenant_hash.clone(),
            workflow_step: facts.workflow_step.clone(),
            route: route.id.clone(),
            dialect: self.inbound.dialect(),
            stream: self.inbound.stream(),
            started: facts.started,
            latency_us: settled.latency_us,
            first_output_us: settled.first_output_us,
            planned: settled.planned,
            left_out: settled.left_out,
            attempts: settled.attempts,
            outcome: settled.outcome,
            served_by: settled.served_by,
            degraded: settled.degraded || (served && !gave_up.is_empty()),
            gave_up,
            tool_mode: settled.tool_mode,
            backstop: settled.backstop,
            confidence: settled.confidence,
            agreement: self.agreement(),
            tier: Some(route.tier.name.clone()),
            risk: route.risk.clone(),
            state: facts.state.clone(),
            parent: facts.parent.clone(),
            schema_status: settled.schema_status,
            cost: settled.cost,
            wasted: settled.wasted,
        }
    }

    fn arm_timer(&mut self) {
        let Some(at) = self.call.poll_timeout() else {
            self.timer = None;
            self.timer_at = Mono::FAR;
            return;
        };
        // A timer that fires early only costs a tick; moving it with every token would cost more.
        if self.timer.is_some() && self.timer_at <= at {
            return;
        }
        let instant = self.shared.clock.instant(at);
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(instant),
            None => self.timer = Some(Box::pin(clock::sleep_until(instant))),
        }
        self.timer_at = at;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.wakes.remove(self.ask_id);
        if !self.facts.is_part() {
            self.shared.telemetry.metrics().calls_in_flight.add(-1);
        }
        // Judges and votes settle first: they are part of what this call took.
        self.beside = None;
        if !self.settled {
            self.feed(Event::ClientGone);
            self.perform();
        }
        // 499 is what nginx writes for a client that closed the request.
        self.keep(StatusCode::from_u16(499).unwrap_or_default());
    }
}

async fn done(beside: &mut Option<Waiting>) -> Beside {
    match beside {
        Some(waiting) => {
            let heard = waiting.future.as_mut().await;
            *beside = None;
            heard
        }
        None => std::future::pending().await,
    }
}

async fn expired(timer: &mut Option<Pin<Box<Sleep>>>) {
    match timer {
        Some(timer) => timer.as_mut().await,
        None => std::future::pending().await,
    }
}
