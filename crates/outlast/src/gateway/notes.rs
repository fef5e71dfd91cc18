//! What those are told who get less: plain sentences made of facts. No vendor, model, target or status code is ever in
//! them; the end user could do nothing with one.

use outlast_model::{
    Failure,
    policy::{BackstopName, ToolMode},
    record::{Agreement, CallRecord, Decision, GaveUp},
};
use outlast_wire::{contract::Gates, plan::Intent};
use serde::Serialize;
use serde_json::{Value, json};

/// What is known when a call ends.
#[derive(Clone, Copy)]
pub(super) struct Story<'a> {
    pub(super) record: &'a CallRecord,
    /// The actions that were asked for and not taken.
    pub(super) plan: &'a [Intent],
    /// Where and when there will be an answer: members of the `outlast` object.
    pub(super) promise: Option<&'a Value>,
    /// What the client is told went wrong.
    pub(super) failure: Option<Failure>,
    /// The route's own next step after that.
    pub(super) own_next: Option<&'a str>,
}

impl<'a> Story<'a> {
    /// Of a reply.
    pub(super) fn of(record: &'a CallRecord, plan: &'a [Intent]) -> Self {
        Story { record, plan, promise: None, failure: None, own_next: None }
    }
}

/// The facts of a notice, each a sentence or empty: what the contract's template may use.
#[derive(Debug, Serialize)]
pub(super) struct Sentences {
    /// Whether anything was kept.
    pub(super) saved: String,
    /// What to do next.
    pub(super) next: String,
    /// What was given up.
    pub(super) gave_up: String,
    /// The actions that were not taken.
    pub(super) actions: String,
    /// How old the answer is: `3 minutes`. Empty for a new one.
    pub(super) age: String,
    /// The workflow's step, as the client named it.
    pub(super) step: String,
}

impl Story<'_> {
    /// Whether the request was kept for later.
    fn is_saved(&self) -> bool {
        let kind = self.record.backstop.as_ref().map(|backstop| backstop.kind);
        matches!(kind, Some(BackstopName::Queue | BackstopName::Escalate)) && self.promise.is_some()
    }

    /// The facts of its notice.
    pub(super) fn sentences(&self) -> Sentences {
        let record = self.record;
        let all = |tell: fn(&GaveUp) -> String| record.gave_up.iter().map(tell).collect::<Vec<_>>().join(" ");
        let age = record.gave_up.iter().find_map(|gave_up| match gave_up {
            GaveUp::Freshness { age_s } => Some(age(*age_s)),
            GaveUp::Tools { .. }
            | GaveUp::Schema
            | GaveUp::Input
            | GaveUp::Model
            | GaveUp::Agreement
            | GaveUp::Route { .. }
            | GaveUp::Immediacy => None,
        });
        Sentences {
            saved: saved(self.is_saved()).to_owned(),
            next: self.next(),
            gave_up: all(lost),
            actions: not_taken(self.plan),
            age: age.unwrap_or_default(),
            step: record.workflow_step.as_deref().unwrap_or_default().to_owned(),
        }
    }

    /// What to do next.
    fn next(&self) -> String {
        let record = self.record;
        match (record.backstop.as_ref().map(|backstop| backstop.kind), self.promise) {
            (Some(BackstopName::Queue), Some(_)) => "The answer will follow; look again in a while.".into(),
            (Some(BackstopName::Escalate), Some(_)) => "A person will look at it; look again in a while.".into(),
            (Some(BackstopName::Confirm), Some(_)) => "Say yes to go on that way, or try again later.".into(),
            (Some(_) | None, _) => {
                let failed = self.failure.map(|failure| self.own_next.unwrap_or(after(failure)).to_owned());
                failed.or_else(|| record.gave_up.first().map(|gave_up| then(gave_up).to_owned())).unwrap_or_default()
            }
        }
    }

    /// What the end user is told: in the contract's words, else in ours. Empty when nothing was given up.
    pub(super) fn notice(&self, gates: &Gates) -> String {
        let sentences = self.sentences();
        if self.record.gave_up.is_empty() && self.plan.is_empty() && self.promise.is_none() {
            return String::new();
        }
        let Sentences { saved, next, gave_up, actions, age: _, step: _ } = &sentences;
        match gates.notice(&sentences) {
            // Whatever the template leaves out: that something was not done is always said.
            Some(notice) if notice.contains(actions.as_str()) => notice,
            Some(notice) => format!("{} {actions}", notice.trim_end()),
            None => {
                let told = [gave_up, actions, saved, next].into_iter().filter(|sentence| !sentence.is_empty());
                told.map(String::as_str).collect::<Vec<_>>().join(" ")
            }
        }
    }

    /// The `outlast` object, as JSON.
    pub(super) fn object(&self, gates: &Gates) -> String {
        let record = self.record;
        let attempts: Vec<_> = record
            .attempts
            .iter()
            .map(|attempt| {
                let mut told = json!({
                    "target": attempt.target,
                    "reason": attempt.reason,
                    "failure": attempt.failure.as_ref().map(|report| report.failure),
                    "decision": attempt.decision,
                    "ms": attempt.took_us / 1000,
                });
                if !attempt.problems.is_empty() {
                    told["problems"] = attempt.problems.iter().map(|problem| &*problem.what).collect();
                }
                if !attempt.fixes.is_empty() {
                    told["fixes"] = json!(attempt.fixes);
                }
                told
            })
            .collect();
        let mut object = json!({
            "request_id": record.request_id,
            "route": record.route,
            "target": record.served_by,
            "complete": record.outcome == outlast_model::record::Outcome::Answered,
            "degraded": record.degraded,
            "tool_mode": record.tool_mode,
            "fallback_reason": record.first_failure().map(Failure::class),
            "attempts": attempts,
            "left_out": record.left_out,
            "latency_ms": record.latency_us / 1000,
            "cost_usd": record.cost_is_known().then_some(record.cost),
            "gave_up": record.gave_up.iter().map(GaveUp::name).collect::<Vec<_>>(),
            "still_works": record.gave_up.iter().map(still).collect::<Vec<_>>(),
            "saved": self.is_saved(),
        });
        let mut add = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                object[name] = value;
            }
        };
        let text = |text: String| (!text.is_empty()).then(|| Value::String(text));
        add("next", text(self.next()));
        add("notice", text(self.notice(gates)));
        add("plan", (!self.plan.is_empty()).then(|| json!(self.plan)));
        add("backstop", record.backstop.as_ref().map(|backstop| json!(backstop.kind)));
        add("confidence", record.confidence.map(Value::from));
        add("agreement", record.agreement.map(|agreement| told_of_votes(&agreement, record)));
        add("state", self.state());
        for (name, value) in self.promise.and_then(Value::as_object).into_iter().flatten() {
            object[name] = value.clone();
        }
        object.to_string()
    }

    /// The workflow's state as it is after this call.
    fn state(&self) -> Option<Value> {
        let mut state = self.record.state.clone()?;
        state.budget_used = state.budget_used.map(|used| used + self.record.cost);
        serde_json::to_value(&state).ok()
    }
}

/// How the votes went, and what that is worth.
fn told_of_votes(agreement: &Agreement, record: &CallRecord) -> Value {
    let mut voters: Vec<_> = record.attempts.iter().filter(|it| it.decision == Decision::Deliver).collect();
    voters.sort_by(|one, other| one.target.cmp(&other.target));
    voters.dedup_by(|one, other| one.target == other.target);
    let worth = match voters.len() {
        0 | 1 => "All of them came from one model, which repeats its own mistakes: agreement is no proof.",
        2.. => "Agreement is no proof: models share mistakes.",
    };
    let Agreement { votes_for, votes, dropped } = agreement;
    let meaning = format!("{votes_for} of {votes} answers agreed on this one. {worth}");
    json!({ "votes_for": votes_for, "votes": votes, "dropped": dropped, "meaning": meaning })
}

const fn saved(saved: bool) -> &'static str {
    if saved { "Your request is saved." } else { "Nothing was changed." }
}

/// The actions that were not taken, by name.
fn not_taken(plan: &[Intent]) -> String {
    outlast_wire::plan::not_done(plan)
}

/// A length of time in words.
fn age(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        86_400.. => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// What the reply is without.
fn lost(gave_up: &GaveUp) -> String {
    match gave_up {
        GaveUp::Tools { mode: ToolMode::PlanOnly } => "Actions are planned at the moment, not carried out.".into(),
        GaveUp::Tools { mode: ToolMode::ReadOnly } => {
            "Only look-ups work at the moment; nothing can be changed.".into()
        }
        GaveUp::Tools { mode: ToolMode::None | ToolMode::Full } => "Actions are not available at the moment.".into(),
        GaveUp::Schema => "Some details are left out of this answer.".into(),
        GaveUp::Input => "The oldest part of the conversation was left out.".into(),
        GaveUp::Freshness { age_s } => format!("This is an earlier answer, given {} ago.", age(*age_s)),
        GaveUp::Model => "This is a prepared answer.".into(),
        GaveUp::Agreement => "Several answers were compared, and they did not agree.".into(),
        GaveUp::Route { .. } => "As you agreed, this was answered in another way than usual.".into(),
        GaveUp::Immediacy => "There is no answer yet.".into(),
    }
}

/// What still works.
const fn still(gave_up: &GaveUp) -> &'static str {
    match gave_up {
        GaveUp::Tools { mode: ToolMode::PlanOnly } => "Questions are answered, and actions are planned for approval.",
        GaveUp::Tools { mode: ToolMode::ReadOnly } => "Questions are answered, and look-ups work.",
        GaveUp::Tools { mode: ToolMode::None | ToolMode::Full } => "Questions are answered.",
        GaveUp::Schema => "What the answer says has been checked as usual.",
        GaveUp::Input => "The instructions and the latest messages were taken into account.",
        GaveUp::Freshness { .. } => "The answer was checked when it was given.",
        GaveUp::Model => "General information is available.",
        GaveUp::Agreement => "This is the answer that most of them gave.",
        GaveUp::Route { .. } => "The answer has been checked as usual.",
        GaveUp::Immediacy => "The request is in hand; nothing has to be sent again.",
    }
}

/// What to do about it.
const fn then(gave_up: &GaveUp) -> &'static str {
    match gave_up {
        GaveUp::Tools { mode: ToolMode::PlanOnly } => "Review the plan, and approve it or try again later.",
        GaveUp::Tools { mode: ToolMode::ReadOnly } => "Try again later to change something.",
        GaveUp::Tools { mode: ToolMode::None | ToolMode::Full } => "Try again later for actions.",
        GaveUp::Schema => "Try again later for the full answer.",
        GaveUp::Input => "Repeat what still matters from earlier, or begin a new conversation.",
        GaveUp::Freshness { .. } => "Try again later for a new answer.",
        GaveUp::Model => "Try again later for an answer to your own question.",
        GaveUp::Agreement => "Check it before you rely on it.",
        GaveUp::Route { .. } => "Ask again later for the usual way.",
        GaveUp::Immediacy => "Look again in a while.",
    }
}

/// The safe next step of the end user after a failure.
pub(super) const fn after(failure: Failure) -> &'static str {
    match failure {
        Failure::Timeout(_)
        | Failure::Connection(_)
        | Failure::ServerError
        | Failure::MalformedReply
        | Failure::Empty
        | Failure::StreamInterrupted => "Try again in a moment.",
        Failure::Overloaded | Failure::RateLimited | Failure::Exhausted | Failure::ToolFailed => "Try again later.",
        Failure::QuotaExhausted | Failure::Auth | Failure::AccessDenied => {
            "Try again later; those who run this service have to act first."
        }
        Failure::ContextExceeded => "Shorten the conversation, or begin a new one.",
        Failure::SchemaError | Failure::ToolMismatch | Failure::Quality => "Try again, or ask in simpler words.",
        Failure::Truncated | Failure::CostSpike => "Ask for less at once.",
        Failure::Refusal => "Ask in other words.",
        Failure::SafetyBlock => "Change what is asked for; asking again will not help.",
        Failure::Unsupported | Failure::InvalidRequest => "Change the request; the same one would fail again.",
        Failure::Cancelled => "Send the request again if it still matters.",
    }
}

#[cfg(test)]
mod tests;
