//! A step that asks a model: a complete call with failover and gates, written down before anything follows from it.

use super::{
    super::super::{
        inner::{self, Answered, Inner},
        live::LiveRoute,
    },
    Drive,
    journal::{Attempt, Begin, Question, lost},
    payload,
};
use crate::failpoint;
use bytes::Bytes;
use outlast_engine::run::{Ended, Proof, flow::Outcome};
use outlast_model::{
    Failure, FailureReport, RequestId, RouteId, TargetId, Usd, Wall,
    policy::{Dialect, StepSpec, WorkflowStep},
    record::{Role, WorkflowState},
    run::{EscalationKind, Exhausted, StepKind},
};
use outlast_store::Payload;
use outlast_wire::{Inbound, compose::Said, template::Template};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// A question to a model as a step of the run.
pub(super) struct Ask<'a> {
    pub(super) spec: &'a WorkflowStep,
    pub(super) route: &'a RouteId,
    pub(super) key: &'a Arc<str>,
    /// In the OpenAI dialect.
    pub(super) body: Value,
    /// What is kept of the question.
    pub(super) input: Payload,
    /// The most it may cost, beside what the run has left.
    pub(super) budget: Option<Usd>,
}

impl Drive {
    /// Its result is the reply: JSON if the route's contract demands that, else text.
    ///
    /// # Errors
    /// What became of it, where there is none.
    pub(super) async fn model(
        &mut self,
        at: usize,
        spec: &WorkflowStep,
        messages: &[(&'static str, Template)],
        key: &Arc<str>,
    ) -> Result<Value, Outcome> {
        let StepSpec::Model { route } = &spec.spec else { return Err(Outcome::Template) };
        let mut said = Vec::with_capacity(messages.len());
        for (role, text) in messages {
            match text.render_facts(self.facts.get()) {
                Ok(text) => said.push(json!({ "role": role, "content": text })),
                Err(why) => {
                    self.unmakeable(at, "prompt", &why);
                    return Err(Outcome::Template);
                }
            }
        }
        let body = json!({ "model": route, "messages": said });
        let input = payload(&body["messages"]);
        let ask = Ask { spec, route, key, body, input, budget: None };
        self.ask(ask, |_, said, route| text_of(said, route)).await
    }

    /// Asks, unless it was asked before, and writes down what came of it.
    ///
    /// # Errors
    /// What became of it, where there is no answer that stands.
    pub(super) async fn ask(
        &mut self,
        ask: Ask<'_>,
        result: impl FnOnce(&Answered, &Said, &LiveRoute) -> Value,
    ) -> Result<Value, Outcome> {
        let text = format!("Step `{}` of run `{}` waits for a decision.", ask.key, self.run.id);
        let question = self.question(ask.spec, text);
        let Some(route) = self.live.route(ask.route.as_str()).cloned() else { return Err(lost()) };
        let secs = u64::try_from(self.shared.clock.wall().0 / 1000).unwrap_or_default();
        let body = Bytes::from(serde_json::to_vec(&ask.body).unwrap_or_default());
        let Ok(inbound) = Inbound::parse(Dialect::OpenaiChat, body) else { return Err(Outcome::Template) };
        let step = Begin {
            key: ask.key,
            kind: StepKind::Model,
            name: ask.route.as_str(),
            fingerprint: inbound.fingerprint(),
            input: ask.input.clone(),
            budget: ask.spec.retry,
            call_deadline: route.route().tier.deadline,
            undo: None,
            undoes: None,
        };
        let attempt = match self.begin(step, &question).await {
            Ok(attempt) => attempt,
            Err(became) => return became,
        };
        let route = self.chosen(&attempt, &route).unwrap_or(route);
        let inner = self.inner(&ask, &attempt, route.clone(), Arc::new(inbound.received_at(secs)));
        let answered = inner::ask(&self.shared, &self.live, inner).await;
        let cost = answered.record.cost;
        let ended = match &answered.result {
            Ok(said) => {
                let result = result(&answered, said, &route);
                self.end(&attempt, Ended::Done, result, cost, &question).await
            }
            Err(report) => self.unanswered(&ask, &attempt, &answered, report, &route, question).await,
        };
        failpoint::pass("journal.reply");
        ended
    }

    fn inner(&self, ask: &Ask<'_>, attempt: &Attempt, route: Arc<LiveRoute>, inbound: Arc<Inbound>) -> Inner {
        let tenant = self.run.tenant.as_str();
        Inner {
            route,
            inbound,
            budget: [self.budget, ask.budget].into_iter().flatten().min(),
            deadline: self.deadline.map(|deadline| until(self.shared.clock.wall(), deadline)),
            role: Role::Step,
            // It is on behalf of a run, not of a call: its own record is where the story ends.
            parent: RequestId::new(self.run.id.as_str()),
            run: Some(self.run.id.clone()),
            tenant: (tenant != super::super::super::store::NOBODY).then(|| tenant.into()),
            state: Some(WorkflowState {
                step: Some((&**ask.key).into()),
                retry_count: Some(attempt.number.saturating_sub(1)),
                budget_used: None,
            }),
            passed: Vec::new(),
            depth: 1,
        }
    }

    /// The route with the target alone that a person chose for this attempt.
    fn chosen(&self, attempt: &Attempt, route: &LiveRoute) -> Option<Arc<LiveRoute>> {
        let target = TargetId::new(attempt.decision.as_ref()?["target"].as_str()?);
        self.live.target(&target)?;
        Some(Arc::new(self.shared.with_fleet(|fleet| route.only(&target, fleet))))
    }

    /// No path answered, or none well enough.
    async fn unanswered(
        &mut self,
        ask: &Ask<'_>,
        attempt: &Attempt,
        answered: &Answered,
        report: &FailureReport,
        route: &LiveRoute,
        mut question: Question,
    ) -> Result<Value, Outcome> {
        let failure = report.failure;
        let refused = answered.refused.as_ref().map(|said| text_of(said, route));
        let ended = ended(report, ask.spec.retry.exhausted, refused.is_some());
        let (step, run) = (ask.key, &self.run.id);
        question.text = match ended {
            Ended::Review(EscalationKind::LowConfidence) => format!(
                "The best answer to step `{step}` of run `{run}` did not pass its contract ({failure}). Approve it, write a \
                 better one, have it tried again or by another target, or go on without it."
            ),
            Ended::Review(_) | Ended::Done | Ended::Failed(_) | Ended::Unknown => format!(
                "Step `{step}` of run `{run}` got no answer ({failure}), and its retries are spent or would not help. Have \
                 it tried again or by another target, write the answer, or go on without it."
            ),
        };
        question.context["failure"] = json!(failure.class());
        question.context["request_id"] = json!(answered.record.request_id);
        let error = || {
            let message = outlast_wire::error::message(report, None).to_string();
            json!({ "code": failure.class(), "failure": failure.class(), "message": message })
        };
        let kept = match (&ended, refused) {
            (Ended::Review(EscalationKind::LowConfidence), Some(refused)) => {
                question.context["answer"] = refused.clone();
                refused
            }
            (_, _) => error(),
        };
        self.end(attempt, ended, kept, answered.record.cost, &question).await
    }
}

/// The text of a reply: JSON if the route's contract demands that.
pub(super) fn text_of(said: &Said, route: &LiveRoute) -> Value {
    let json = route.gates.wants_json().then(|| serde_json::from_str(&said.text).ok()).flatten();
    json.unwrap_or_else(|| Value::String(said.text.clone()))
}

/// What a call that failed means for its step. Every path of its route was tried, so the same again at once is of use
/// only where the failure passes with time.
fn ended(report: &FailureReport, exhausted: Exhausted, has_answer: bool) -> Ended {
    let again = Ended::Failed(Proof::Again { after: report.retry_after.unwrap_or_default() });
    let person = |kind| match exhausted {
        Exhausted::Escalate => Ended::Review(kind),
        Exhausted::Fail => Ended::Failed(Proof::Final),
    };
    match report.failure {
        Failure::Quality | Failure::Refusal | Failure::SchemaError if has_answer => {
            person(EscalationKind::LowConfidence)
        }
        Failure::Quality
        | Failure::Refusal
        | Failure::InvalidRequest
        | Failure::SafetyBlock
        | Failure::ContextExceeded
        | Failure::Unsupported
        | Failure::CostSpike
        | Failure::AccessDenied => person(EscalationKind::Exhausted),
        Failure::SchemaError
        | Failure::ToolMismatch
        | Failure::Timeout(_)
        | Failure::Connection(_)
        | Failure::ServerError
        | Failure::Overloaded
        | Failure::RateLimited
        | Failure::QuotaExhausted
        | Failure::Auth
        | Failure::MalformedReply
        | Failure::Empty
        | Failure::Truncated
        | Failure::StreamInterrupted
        | Failure::Cancelled
        | Failure::ToolFailed
        | Failure::Exhausted => again,
    }
}

/// The time between two moments.
fn until(now: Wall, then: Wall) -> Duration {
    Duration::from_millis(u64::try_from(then.0.saturating_sub(now.0)).unwrap_or(0))
}
