//! How the client's side of a call ends: with a reply, with a promise of one, or with a typed error.

use super::{
    super::{
        backstops::Deferral,
        body::{Out, Outlet},
        cache,
        exchange::Exchange,
        inner::Answered,
        notes::{self, Story},
        reply_head,
        serve::{self, Denial},
        ticket::{End, Ticket},
    },
    Driver, Ending,
    beside::Prepared,
};
use crate::telemetry::LogFields;
use bytes::Bytes;
use http::{Response, StatusCode};
use outlast_engine::{RetryAdvice, Source};
use outlast_model::{
    Failure, FailureReport, Usd,
    policy::{BackstopKind, BackstopName},
    record::Role,
};
use outlast_wire::{compose, compose::Said, error, note, plan::Intent, template::Template};
use serde_json::{Value, json};
use std::sync::PoisonError;

/// A reply on its way to the client.
enum Given {
    /// As it came from a target.
    Own(u8),
    /// Composed: it was repaired, became a plan, or no target gave it.
    Composed(Said),
}

impl Driver {
    /// Everything is known now: the client gets its ending and the record is kept. The record goes first, because the
    /// client may leave while its ending is on the way.
    pub(super) async fn finish(&mut self, outlet: &Outlet<Out>) {
        self.beside = None;
        match self.ending.take() {
            Some(Ending::Deliver(source)) => self.deliver(source, outlet).await,
            Some(Ending::Defer) => self.defer(outlet).await,
            Some(Ending::Reject { failure, cause, attempt, retry }) => {
                let failure = told(failure, cause);
                match self.head_sent {
                    true => self.interrupt(&failure, outlet).await,
                    false => self.reject(&failure, attempt, retry, outlet).await,
                }
            }
            // The client left: there is nobody to tell.
            None => self.keep(StatusCode::OK),
        }
    }

    async fn deliver(&mut self, source: Source, outlet: &Outlet<Out>) {
        self.remember(source);
        let (given, plan) = self.given(source);
        let Some(record) = self.record.as_deref() else { return };
        let story = Story::of(record, &plan);
        // A plan is the answer itself, where planning is all that was ever promised too.
        let notes = self.noted(record.degraded || !plan.is_empty()).then(|| story.object(&self.route.gates));
        match given {
            Given::Own(attempt) if self.inbound.stream() => self.end_stream(attempt, notes, outlet).await,
            Given::Own(attempt) => {
                let body = self.lanes.get(attempt).and_then(Exchange::take_reply).unwrap_or_default();
                self.give(StatusCode::OK, body, notes, outlet).await;
            }
            Given::Composed(mut said) => {
                if !plan.is_empty() {
                    said.text = self.text_of_plan(&story, &plan);
                }
                self.compose(StatusCode::OK, &said, notes, outlet).await;
            }
        }
    }

    /// Keeps a full reply for the route's cache, if it has one.
    fn remember(&mut self, source: Source) {
        let is_full = self.record.as_ref().is_some_and(|record| !record.degraded && record.backstop.is_none());
        if is_full
            && cache::has(self.route.route())
            && let Some(said) = self.said(source)
        {
            cache::remember(&self.cx(), &said);
        }
    }

    /// The reply that passed, and the actions in it that were not taken.
    fn given(&mut self, source: Source) -> (Given, Vec<Intent>) {
        match source {
            Source::Attempt(attempt) | Source::Kept(attempt) => {
                let Some(exchange) = self.lanes.get(attempt) else { return (Given::Own(attempt), Vec::new()) };
                let plan = exchange.take_plan().unwrap_or_default();
                match exchange.take_instead() {
                    // What the client has seen of a stream is not taken back; a contract that may repair is buffered.
                    Some(said) if self.released.is_none() => (Given::Composed(*said), plan),
                    Some(_) | None => (Given::Own(attempt), plan),
                }
            }
            Source::Backstop(_) => {
                let (said, plan) = match self.prepared.take().map(|prepared| *prepared) {
                    Some(Prepared::Said(said, plan)) => (said, plan),
                    Some(Prepared::Deferred(Deferral { said, .. })) => (said, Vec::new()),
                    None => (Said::text("", "", ""), Vec::new()),
                };
                (Given::Composed(said), plan)
            }
        }
    }

    /// What a plan says as text: the notice, which names every action not taken. Where bodies carry no notes the plan is
    /// in the text, too.
    fn text_of_plan(&self, story: &Story<'_>, plan: &[Intent]) -> String {
        let notice = story.notice(&self.route.gates);
        match self.may_note() {
            true => notice,
            false => json!({ "notice": notice, "plan": plan }).to_string(),
        }
    }

    /// Tells the client where and when there will be an answer.
    async fn defer(&mut self, outlet: &Outlet<Out>) {
        let Some(Prepared::Deferred(mut deferral)) = self.prepared.take().map(|prepared| *prepared) else {
            let report = FailureReport::of(Failure::Exhausted);
            return self.reject(&report, None, RetryAdvice::default(), outlet).await;
        };
        let Some(record) = self.record.as_deref() else { return };
        let story = Story { promise: Some(&deferral.facts), ..Story::of(record, &[]) };
        if deferral.said.text.is_empty() {
            deferral.said.text = story.notice(&self.route.gates);
        }
        let notes = self.may_note().then(|| story.object(&self.route.gates));
        if notes.is_none() {
            deferral.said.text = with_facts(&deferral.said.text, &deferral.facts);
        }
        // A run's journal keeps answers: the step is asked again until there is one.
        if self.ticket.as_ref().is_some_and(Ticket::is_step) {
            self.ticket = None;
        }
        // A question is an answer to the client; a promise is none yet.
        let status = match record.backstop.as_ref().map(|backstop| backstop.kind) {
            Some(BackstopName::Confirm) => {
                // The yes comes with the same key, and has to be executed.
                self.ticket = None;
                StatusCode::OK
            }
            Some(
                BackstopName::Static
                | BackstopName::Rules
                | BackstopName::Cache
                | BackstopName::Queue
                | BackstopName::Escalate
                | BackstopName::Fail,
            )
            | None => StatusCode::ACCEPTED,
        };
        self.promised = Some((deferral.location, deferral.retry_after));
        self.compose(status, &deferral.said, notes, outlet).await;
    }

    /// Gives a reply that no target's bytes are kept of.
    async fn compose(&mut self, status: StatusCode, said: &Said, notes: Option<String>, outlet: &Outlet<Out>) {
        if !self.inbound.stream() {
            return self.give(status, compose::whole(&self.inbound, said), notes, outlet).await;
        }
        let (ready, terminal) = compose::stream(&self.inbound, said);
        self.give_stream(status, (ready, terminal), said, notes, outlet).await;
    }

    /// Gives a whole reply.
    async fn give(&mut self, status: StatusCode, body: Bytes, notes: Option<String>, outlet: &Outlet<Out>) {
        let body = notes.iter().fold(body, |body, notes| note::in_body(body, notes));
        let Some(record) = self.record.as_deref() else { return };
        let mut response = reply_head::whole(record, status, body);
        if let Some((location, retry_after)) = &self.promised {
            reply_head::promise(response.headers_mut(), location.as_deref(), *retry_after);
        }
        self.conclude(response, outlet).await;
    }

    /// The last thing a client gets that has got nothing yet.
    async fn conclude(&mut self, response: Response<Bytes>, outlet: &Outlet<Out>) {
        let response = match self.ticket.take() {
            Some(ticket) => match ticket.done(End::Whole(&response), self.cost()).await {
                Ok(()) => response,
                Err(denial) => self.denied(denial),
            },
            None => response,
        };
        self.keep(response.status());
        outlet.put(Out::Whole(response)).await;
    }

    /// What the call has cost.
    fn cost(&self) -> Usd {
        self.record.as_deref().map_or(Usd::ZERO, |record| record.cost)
    }

    fn denied(&self, denial: Denial) -> Response<Bytes> {
        serve::refusal(&self.shared, self.inbound.dialect(), &self.facts.request_id, denial)
    }

    /// Gives the rest of a target's own stream, and its end.
    async fn end_stream(&mut self, attempt: u8, notes: Option<String>, outlet: &Outlet<Out>) {
        let Some(mut exchange) = self.lanes.take(attempt) else { return self.keep(StatusCode::OK) };
        let parts = (exchange.take_rest(), exchange.take_terminal());
        match &self.ticket {
            Some(_) => {
                let said = exchange.said().unwrap_or_else(|| Said::text("", "", ""));
                self.give_stream(StatusCode::OK, parts, &said, notes, outlet).await;
            }
            None => {
                self.keep_whole_head(StatusCode::OK, outlet).await;
                self.put_stream(parts, notes, outlet).await;
            }
        }
        exchange.finish_body().await;
    }

    /// Gives a stream's rest and end, which are kept first for whoever asks again with the same key.
    async fn give_stream(
        &mut self,
        status: StatusCode,
        parts: (Bytes, Bytes),
        said: &Said,
        notes: Option<String>,
        outlet: &Outlet<Out>,
    ) {
        if let (Some(ticket), Some(record)) = (self.ticket.take(), self.record.as_deref()) {
            let mut whole = reply_head::whole(record, status, Bytes::new());
            if let Some((location, retry_after)) = &self.promised {
                reply_head::promise(whole.headers_mut(), location.as_deref(), *retry_after);
            }
            let end = End::Stream { said, head: &whole, notes: notes.as_deref() };
            if let Err(denial) = ticket.done(end, record.cost).await {
                return self.undone(denial, outlet).await;
            }
        }
        self.keep_whole_head(status, outlet).await;
        self.put_stream(parts, notes, outlet).await;
    }

    /// The end could not be kept, so the client must not see it.
    async fn undone(&mut self, denial: Denial, outlet: &Outlet<Out>) {
        let response = self.denied(denial);
        self.keep(response.status());
        if !self.head_sent {
            return outlet.put(Out::Whole(response)).await;
        }
        let report = FailureReport::of(Failure::StreamInterrupted);
        let message = error::message(&report, None);
        let event = error::event(self.inbound.dialect(), &report, &message, self.facts.request_id.as_str(), None);
        outlet.put(Out::Data(event)).await;
    }

    /// Keeps the record and sends a stream's head, of which all is known by now.
    async fn keep_whole_head(&mut self, status: StatusCode, outlet: &Outlet<Out>) {
        let head = self.record.as_deref().filter(|_| !self.head_sent).map(|record| {
            let mut head = reply_head::whole_stream(record, status);
            if let Some((location, retry_after)) = &self.promised {
                reply_head::promise(&mut head.headers, location.as_deref(), *retry_after);
            }
            head
        });
        self.keep(status);
        if let Some(head) = head {
            self.head_sent = true;
            outlet.put(Out::Head(head)).await;
        }
    }

    async fn put_stream(&mut self, (ready, terminal): (Bytes, Bytes), notes: Option<String>, outlet: &Outlet<Out>) {
        let dialect = self.inbound.dialect();
        let terminal = notes.iter().fold(terminal, |end, notes| note::in_terminal(dialect, end, notes));
        for part in [ready, terminal] {
            if !part.is_empty() {
                outlet.put(Out::Data(part)).await;
            }
        }
    }

    /// Gives the client what has come since the last time.
    pub(super) async fn pass_on(&mut self, outlet: &Outlet<Out>) {
        let showing = self.released.and_then(|attempt| self.lanes.get(attempt));
        let ready = showing.map(Exchange::take_ready).unwrap_or_default();
        if ready.is_empty() {
            return;
        }
        self.send_head(outlet).await;
        outlet.put(Out::Data(ready)).await;
    }

    pub(super) async fn send_head(&mut self, outlet: &Outlet<Out>) {
        if !self.head_sent {
            self.head_sent = true;
            let head = reply_head::stream(&self.facts.request_id, &self.told);
            outlet.put(Out::Head(head)).await;
        }
    }

    /// Ends a stream that has begun, with what came before the failure and a typed error event.
    async fn interrupt(&mut self, failure: &FailureReport, outlet: &Outlet<Out>) {
        let message = message(failure, RetryAdvice::default(), self.own_next(failure).as_deref());
        let usage = self.record.as_ref().and_then(|record| record.attempts.last()).map(|attempt| attempt.usage);
        let id = self.facts.request_id.as_str();
        let event = error::event(self.inbound.dialect(), failure, &message, id, usage.as_ref());
        self.keep(StatusCode::OK);
        if self.released.is_some() {
            self.pass_on(outlet).await;
        }
        outlet.put(Out::Data(event)).await;
    }

    async fn reject(&mut self, failure: &FailureReport, attempt: Option<u8>, retry: RetryAdvice, outlet: &Outlet<Out>) {
        // The client's own fault, as the provider put it: untouched when it speaks the client's dialect.
        let own = attempt.and_then(|attempt| self.lanes.get(attempt)).and_then(Exchange::take_refused);
        let Some(record) = self.record.as_deref() else { return };
        let (status, body) = own.unwrap_or_else(|| {
            let next = self.own_next(failure);
            let message = message(failure, retry, next.as_deref());
            let reply = error::body(self.inbound.dialect(), failure, &message, record.request_id.as_str());
            let story = Story { failure: Some(failure.failure), own_next: next.as_deref(), ..Story::of(record, &[]) };
            let notes = self.noted(false).then(|| story.object(&self.route.gates));
            let body = notes.iter().fold(reply.body, |body, notes| note::in_body(body, notes));
            (StatusCode::from_u16(reply.status).unwrap_or(StatusCode::BAD_GATEWAY), body)
        });
        let response = reply_head::error(record, status, retry, body);
        // Only what would fail the same way again is kept for whoever asks again; other keys are free at once.
        if !matches!(failure.failure, Failure::InvalidRequest | Failure::SafetyBlock) {
            self.ticket = None;
        }
        self.conclude(response, outlet).await;
    }

    /// The route's own next step after a failure: of its `fail` backstop.
    fn own_next(&self, failure: &FailureReport) -> Option<String> {
        let next = self.route.route().backstops.iter().find_map(|backstop| match &backstop.kind {
            BackstopKind::Fail { next } => next.as_deref(),
            BackstopKind::Static { .. }
            | BackstopKind::Rules(_)
            | BackstopKind::Cache { .. }
            | BackstopKind::Queue { .. }
            | BackstopKind::Confirm { .. }
            | BackstopKind::Escalate { .. } => None,
        })?;
        let facts = json!({
            "request": self.inbound.as_value(),
            "text": self.inbound.last_user_text().unwrap_or_default(),
            "route": self.route.id(),
            "next": notes::after(failure.failure),
            "step": self.facts.workflow_step.as_deref().unwrap_or_default(),
        });
        Template::compile(next).ok()?.render(&facts).ok()
    }

    /// Whether bodies may carry what the client did not ask for.
    fn may_note(&self) -> bool {
        self.live.config.server.body_notes && self.route.route().contract.body_notes
    }

    /// Whether this one carries the `outlast` object: it has something to say, or the client asked.
    fn noted(&self, tells: bool) -> bool {
        (self.facts.trace_full || tells) && self.may_note()
    }

    /// How a call ended that no client waited for; `None` while it goes on.
    pub(super) fn answered(&mut self) -> Option<Answered> {
        let record = self.record.clone()?;
        self.beside = None;
        let (mut plan, mut refused) = (Vec::new(), None);
        let result = match self.ending.take() {
            Some(Ending::Deliver(source)) => {
                plan = self.plan(source);
                let said = self.said(source);
                said.ok_or_else(|| FailureReport::of(Failure::MalformedReply))
            }
            Some(Ending::Reject { failure, cause, .. }) => {
                refused = self.lanes.last_said();
                Err(told(failure, cause))
            }
            Some(Ending::Defer) => Err(FailureReport::of(Failure::Exhausted)),
            None => Err(FailureReport::of(Failure::Cancelled)),
        };
        let status = match &result {
            Ok(_) => StatusCode::OK,
            Err(report) => {
                let reply = error::body(self.inbound.dialect(), report, "", "");
                StatusCode::from_u16(reply.status).unwrap_or(StatusCode::BAD_GATEWAY)
            }
        };
        self.keep(status);
        Some(Answered { result, refused, plan, record })
    }

    /// Keeps the record, once.
    pub(super) fn keep(&mut self, status: StatusCode) {
        let Some(record) = self.record.take() else { return };
        match (&self.records, self.facts.parent.as_ref().map(|parent| parent.role)) {
            (Some(records), Some(Role::Vote)) => {
                records.lock().unwrap_or_else(PoisonError::into_inner).push(*record);
            }
            (Some(_) | None, _) => {
                let fields = LogFields { status: status.as_u16(), primary: self.facts.primary.clone() };
                self.shared.telemetry.record(*record, fields);
            }
        }
    }

    /// The actions in a validated reply that were not taken.
    fn plan(&mut self, source: Source) -> Vec<Intent> {
        let plan = match source {
            Source::Attempt(attempt) | Source::Kept(attempt) => self.lanes.get(attempt).and_then(Exchange::take_plan),
            Source::Backstop(_) => match self.prepared.as_deref_mut() {
                Some(Prepared::Said(_, plan)) => Some(std::mem::take(plan)),
                Some(Prepared::Deferred(_)) | None => None,
            },
        };
        plan.unwrap_or_default()
    }

    /// What a validated reply says.
    fn said(&mut self, source: Source) -> Option<Said> {
        match source {
            Source::Attempt(attempt) | Source::Kept(attempt) => self.lanes.get(attempt)?.said(),
            Source::Backstop(_) => match self.prepared.as_deref() {
                Some(Prepared::Said(said, _)) => Some(said.clone()),
                Some(Prepared::Deferred(_)) | None => None,
            },
        }
    }
}

/// What the client is told of. That every path was spent helps nobody; what the first one failed of does.
fn told(failure: FailureReport, cause: Option<FailureReport>) -> FailureReport {
    cause.filter(|_| failure.failure == Failure::Exhausted).unwrap_or(failure)
}

/// A text that says itself what would else be in the `outlast` object.
fn with_facts(text: &str, facts: &Value) -> String {
    let mut whole = json!({ "notice": text });
    for (name, value) in facts.as_object().into_iter().flatten() {
        whole[name] = value.clone();
    }
    whole.to_string()
}

/// What the client is told of a failure: what happened, and a safe next step.
fn message(failure: &FailureReport, retry: RetryAdvice, own_next: Option<&str>) -> String {
    let message = error::message(failure, retry.retry_after);
    own_next.map_or_else(|| message.to_string(), |next| format!("{message} {next}"))
}
