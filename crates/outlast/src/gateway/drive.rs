//! THE loop: performs a call's actions and feeds it what happened, until it is settled.
//!
//! The call's task owns the [`Driver`]; dropping the driver at any point cancels the upstream exchange
//! and still settles the call. What the client is given goes through an [`Outlet`].

use super::{
    Shared,
    body::{Out, Outlet},
    exchange::{Exchange, Seen},
    lanes::Lanes,
    live::Live,
    reply_head::{self, Told},
};
use crate::{
    clock::{self, Sleep},
    telemetry::{LogFields, TraceContext},
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use outlast_engine::{Action, Ask, Backstopped, Call, Event, RetryAdvice, Settlement, Source};
use outlast_model::{
    Failure, FailureReport, Mono, RequestId, RouteId, TargetId, Wall,
    record::{CALL_RECORD_VERSION, CallRecord},
};
use outlast_wire::{Inbound, error, note};
use std::{pin::Pin, sync::Arc, time::Duration};
use tokio::sync::Notify;

/// While a stream's client waits for its first output, a comment is sent this often, so that proxies between do not
/// cut the connection. The first one commits the status line: errors after it travel inside the stream.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What the host knows of a call beside the engine's [`Ask`].
pub(super) struct Facts {
    pub(super) request_id: RequestId,
    pub(super) route: RouteId,
    pub(super) trace: TraceContext,
    pub(super) tracestate: Option<HeaderValue>,
    pub(super) task_id: Option<Box<str>>,
    pub(super) workflow_step: Option<Box<str>>,
    pub(super) tenant_hash: Option<Box<str>>,
    pub(super) started: Wall,
    /// The route's first target, where its order is fixed.
    pub(super) primary: Option<TargetId>,
    /// The client asked for the `outlast` object.
    pub(super) trace_full: bool,
    /// Headers of the client's that same-dialect targets are given too.
    pub(super) passed: Vec<(HeaderName, HeaderValue)>,
}

/// One call being driven.
pub(super) struct Driver {
    shared: Arc<Shared>,
    live: Arc<Live>,
    call: Call,
    wake: Arc<Notify>,
    ask_id: outlast_engine::CallId,
    inbound: Arc<Inbound>,
    facts: Facts,
    lanes: Lanes,
    timer: Option<Pin<Box<Sleep>>>,
    timer_at: Mono,
    /// The attempt whose output the client is shown as it comes.
    released: Option<u8>,
    head_sent: bool,
    told: Told,
    ending: Option<Ending>,
    settled: bool,
    record: Option<Box<CallRecord>>,
}

/// How the client's side of the call ends; performed once the call is settled, so that its facts are final.
enum Ending {
    Deliver { attempt: u8, degraded: bool },
    Reject { failure: FailureReport, cause: Option<FailureReport>, attempt: Option<u8>, retry: RetryAdvice },
}

impl Driver {
    /// Admits the call.
    pub(super) fn new(shared: Arc<Shared>, live: Arc<Live>, ask: Ask, inbound: Arc<Inbound>, facts: Facts) -> Self {
        let wake = Arc::new(Notify::new());
        shared.wakes.insert(ask.id, wake.clone());
        shared.telemetry.metrics().calls_in_flight.add(1);
        let ask_id = ask.id;
        let call = Call::new(ask, shared.clock.mono());
        Driver {
            shared,
            live,
            call,
            wake,
            ask_id,
            inbound,
            facts,
            lanes: Lanes::default(),
            timer: None,
            timer_at: Mono::FAR,
            released: None,
            head_sent: false,
            told: Told::default(),
            ending: None,
            settled: false,
            record: None,
        }
    }

    /// Drives the call to its end.
    pub(super) async fn run(&mut self, outlet: &Outlet<Out>) {
        self.feed(Event::Admit);
        let mut keep_alive = self.inbound.stream().then(|| Box::pin(clock::sleep(KEEP_ALIVE)));
        loop {
            self.perform();
            if let Some(record) = self.record.take() {
                return self.finish(record, outlet).await;
            }
            if self.released.is_some() {
                self.pass_on(outlet).await;
            }
            self.arm_timer();
            tokio::select! {
                // Output first: a deadline that passed while the client was slow to read is not the target's.
                biased;
                (attempt, seen) = self.lanes.next() => self.report(attempt, seen),
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
                Action::Start { attempt, target_id, key, fallback_reason, .. } => {
                    self.told =
                        Told { attempts: attempt.saturating_add(1), target: Some(target_id.clone()), fallback_reason };
                    self.start(attempt, &target_id, key);
                }
                Action::Abort { attempt } => self.abort(attempt),
                Action::Check { attempt, budget: _ } => {
                    let findings = self.lanes.get(attempt).map(|exchange| exchange.check()).unwrap_or_default();
                    self.feed(Event::Checked { attempt, findings });
                }
                Action::Keep { attempt } => self.lanes.keep(attempt),
                // A backstop that cannot be run declines.
                Action::Backstop { at, cause: _ } => {
                    self.feed(Event::Backstopped { at, outcome: Backstopped::Declined });
                }
                Action::Defer { .. } => {}
                Action::Release { attempt } => self.released = Some(attempt),
                Action::Deliver { validated } => {
                    self.ending = Some(Ending::Deliver {
                        attempt: attempt_of(validated.source()),
                        degraded: validated.degraded(),
                    });
                }
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

    fn start(&mut self, attempt: u8, target_id: &TargetId, key: u8) {
        let Some(target) = self.live.target(target_id).cloned() else {
            // Only a target removed between planning and now; the engine goes on to the next.
            let report = FailureReport::of(Failure::AccessDenied);
            return self.feed(Event::Failed { attempt, report, spent: Default::default() });
        };
        let same_dialect = target.spec.dialect == self.inbound.dialect();
        let headers = self.headers(same_dialect);
        match Exchange::start(self.shared.clone(), target, self.inbound.clone(), attempt, key, headers) {
            Ok(exchange) => self.lanes.add(exchange),
            Err(report) => self.feed(Event::Failed { attempt, report, spent: Default::default() }),
        }
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
        // Dropping the exchange closes its connection: the provider sees the cancellation.
        let spent = self.lanes.take(attempt).map(|exchange| exchange.spent()).unwrap_or_default();
        self.feed(Event::Aborted { attempt, spent });
    }

    /// Gives the client what has come since the last time.
    async fn pass_on(&mut self, outlet: &Outlet<Out>) {
        let showing = self.released.and_then(|attempt| self.lanes.get(attempt));
        let ready = showing.map(Exchange::take_ready).unwrap_or_default();
        if ready.is_empty() {
            return;
        }
        self.send_head(outlet).await;
        outlet.put(Out::Data(ready)).await;
    }

    async fn send_head(&mut self, outlet: &Outlet<Out>) {
        if !self.head_sent {
            self.head_sent = true;
            let head = reply_head::stream(&self.facts.request_id, &self.told);
            outlet.put(Out::Head(head)).await;
        }
    }

    /// Everything is known now: the client gets its ending and the record is kept. The record goes first, because the
    /// client may leave while its ending is on the way.
    async fn finish(&mut self, record: Box<CallRecord>, outlet: &Outlet<Out>) {
        match self.ending.take() {
            Some(Ending::Deliver { attempt, degraded }) if self.inbound.stream() => {
                self.deliver_stream(record, attempt, degraded, outlet).await;
            }
            Some(Ending::Deliver { attempt, degraded }) => {
                let reply = self.lanes.get(attempt).and_then(Exchange::take_reply).unwrap_or_default();
                let body = match self.notes(&record, degraded) {
                    Some(notes) => note::in_body(reply, &notes),
                    None => reply,
                };
                let response = reply_head::whole(&record, body);
                self.keep(record, response.status());
                outlet.put(Out::Whole(response)).await;
            }
            Some(Ending::Reject { failure, .. }) if self.head_sent => {
                self.interrupt(record, &failure, outlet).await;
            }
            Some(Ending::Reject { failure, cause, attempt, retry }) => {
                // That every path was spent helps nobody; what the first one failed of does.
                let told = cause.filter(|_| failure.failure == Failure::Exhausted).unwrap_or(failure);
                let response = self.error_response(&record, &told, attempt, retry);
                self.keep(record, response.status());
                outlet.put(Out::Whole(response)).await;
            }
            // The client left: there is nobody to tell.
            None => self.keep(record, StatusCode::OK),
        }
    }

    fn keep(&self, record: Box<CallRecord>, status: StatusCode) {
        let fields = LogFields { status: status.as_u16(), primary: self.facts.primary.clone() };
        self.shared.telemetry.record(*record, fields);
    }

    async fn deliver_stream(&mut self, record: Box<CallRecord>, attempt: u8, degraded: bool, outlet: &Outlet<Out>) {
        let notes = self.notes(&record, degraded);
        self.keep(record, StatusCode::OK);
        let Some(mut exchange) = self.lanes.take(attempt) else { return };
        self.send_head(outlet).await;
        let mut terminal = exchange.take_terminal();
        if let Some(notes) = notes {
            terminal = note::in_terminal(self.inbound.dialect(), terminal, &notes);
        }
        for part in [exchange.take_ready(), terminal] {
            if !part.is_empty() {
                outlet.put(Out::Data(part)).await;
            }
        }
        exchange.finish_body().await;
    }

    /// Ends a stream that has begun, with what came before the failure and a typed error event.
    async fn interrupt(&mut self, record: Box<CallRecord>, failure: &FailureReport, outlet: &Outlet<Out>) {
        let message = error::message(failure, None);
        let usage = record.attempts.last().map(|attempt| attempt.usage);
        let event = error::event(self.inbound.dialect(), failure, &message, record.request_id.as_str(), usage.as_ref());
        self.keep(record, StatusCode::OK);
        if self.released.is_some() {
            self.pass_on(outlet).await;
        }
        outlet.put(Out::Data(event)).await;
    }

    fn error_response(
        &mut self,
        record: &CallRecord,
        failure: &FailureReport,
        attempt: Option<u8>,
        retry: RetryAdvice,
    ) -> http::Response<Bytes> {
        let dialect = self.inbound.dialect();
        // The client's own fault, as the provider put it: untouched when it speaks the client's dialect.
        let own = attempt.and_then(|attempt| self.lanes.get(attempt));
        let (status, body) = own.and_then(Exchange::take_refused).unwrap_or_else(|| {
            let message = error::message(failure, retry.retry_after);
            let reply = error::body(dialect, failure, &message, record.request_id.as_str());
            (StatusCode::from_u16(reply.status).unwrap_or(StatusCode::BAD_GATEWAY), reply.body)
        });
        reply_head::error(record, status, retry, body)
    }

    /// The `outlast` object, when the reply is degraded or the client asked.
    fn notes(&self, record: &CallRecord, degraded: bool) -> Option<String> {
        let wanted = self.facts.trace_full || degraded;
        (wanted && self.live.config.server.body_notes).then(|| reply_head::notes(record))
    }

    fn settle(&mut self, settled: Settlement) {
        let facts = &self.facts;
        let record = CallRecord {
            version: CALL_RECORD_VERSION,
            request_id: facts.request_id.clone(),
            trace_id: facts.trace.trace_id(),
            task_id: facts.task_id.clone(),
            tenant_hash: facts.tenant_hash.clone(),
            workflow_step: facts.workflow_step.clone(),
            route: facts.route.clone(),
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
            degraded: settled.degraded,
            gave_up: settled.gave_up,
            tool_mode: settled.tool_mode,
            backstop: settled.backstop,
            confidence: settled.confidence,
            agreement: None,
            tier: None,
            risk: None,
            state: None,
            parent: None,
            schema_status: settled.schema_status,
            cost: settled.cost,
            wasted: settled.wasted,
        };
        self.settled = true;
        self.record = Some(Box::new(record));
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
        self.shared.telemetry.metrics().calls_in_flight.add(-1);
        if !self.settled {
            self.feed(Event::ClientGone);
            self.perform();
        }
        if let Some(record) = self.record.take() {
            // 499 is what nginx writes for a client that closed the request.
            self.keep(record, StatusCode::from_u16(499).unwrap_or_default());
        }
    }
}

async fn expired(timer: &mut Option<Pin<Box<Sleep>>>) {
    match timer {
        Some(timer) => timer.as_mut().await,
        None => std::future::pending().await,
    }
}

fn attempt_of(source: Source) -> u8 {
    match source {
        Source::Attempt(attempt) | Source::Kept(attempt) => attempt,
        // None has a reply yet.
        Source::Backstop(_) => 0,
    }
}
