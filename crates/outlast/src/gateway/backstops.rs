//! What is tried when every path is spent: the route's backstops, in order.

use super::{
    Shared, cache, confirm, escalations,
    live::{Live, LiveRoute},
    queue,
};
use crate::{config::Config, telemetry::LogEvent};
use http::{HeaderName, HeaderValue};
use outlast_model::{
    FailureReport, RequestId,
    policy::{Backstop, BackstopKind, Priority},
    record::{GaveUp, WorkflowState},
};
use outlast_wire::{
    Inbound,
    compose::Said,
    template::{Expression, Template},
};
use serde_json::{Value, json};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// The call that a backstop works for.
#[derive(Clone)]
pub(super) struct Cx {
    pub(super) shared: Arc<Shared>,
    pub(super) live: Arc<Live>,
    pub(super) route: Arc<LiveRoute>,
    pub(super) inbound: Arc<Inbound>,
    pub(super) request_id: RequestId,
    /// The hash of the caller's key.
    pub(super) tenant: Option<Box<str>>,
    /// The run it is a step of.
    pub(super) run: Option<outlast_model::RunId>,
    pub(super) state: Option<WorkflowState>,
    /// Its place in the queue, should it come to that.
    pub(super) priority: Priority,
    /// Headers of the client's that same-dialect targets are given too.
    pub(super) passed: Vec<(HeaderName, HeaderValue)>,
    /// Of how many calls it is on behalf.
    pub(super) depth: u8,
}

/// What a backstop came to.
pub(super) enum Ended {
    /// It has a reply, which is checked like any other.
    Said { said: Said, gave_up: GaveUp },
    /// The answer comes later, or from a person.
    Deferred(Deferral),
    /// It has nothing to give; why, for the log.
    Declined(&'static str),
}

/// What a client is told whose answer comes later: a 202, or a stream's end where its head was sent.
pub(super) struct Deferral {
    /// A valid reply that says so.
    pub(super) said: Said,
    /// Members of the `outlast` object: `queue`, `escalation` or `confirm`.
    pub(super) facts: Value,
    /// Where to look for the answer: `Location`. A question to the user has none: the client asks again.
    pub(super) location: Option<String>,
    /// When to look first: `Retry-After`.
    pub(super) retry_after: Option<Duration>,
    pub(super) gave_up: GaveUp,
}

/// The templates and expressions of every backstop, by the backstop's name. Compiled once per config.
#[derive(Default)]
pub(crate) struct Scripts(HashMap<Arc<str>, Script>);

enum Script {
    /// The reply or the question.
    Text(Box<Template>),
    Rules(Vec<(Expression, Template)>),
}

impl Scripts {
    /// Of a config, which has compiled them once already: one that fails here is left out, and its backstop declines.
    pub(crate) fn compile(config: &Config) -> Self {
        let backstops = config.routes.values().chain(config.direct.values()).flat_map(|route| &route.backstops);
        Scripts(backstops.filter_map(|backstop| Some((backstop.name.clone(), script(&backstop.kind)?))).collect())
    }

    /// Fills in the template of a backstop. `None` where it has none, or it fails on this request.
    pub(super) fn text(&self, name: &str, facts: &Value) -> Option<String> {
        match self.0.get(name)? {
            Script::Text(template) => template.render(facts).ok(),
            Script::Rules(rules) => {
                let (_, reply) = rules.iter().find(|(when, _)| when.holds(facts).unwrap_or(false))?;
                reply.render(facts).ok()
            }
        }
    }
}

fn script(kind: &BackstopKind) -> Option<Script> {
    let text = |source: &str| Template::compile(source).ok().map(Box::new).map(Script::Text);
    match kind {
        BackstopKind::Static { reply } => text(reply),
        BackstopKind::Rules(rules) => {
            let rule = |rule: &outlast_model::policy::Rule| {
                Some((Expression::compile(&rule.when).ok()?, Template::compile(&rule.reply).ok()?))
            };
            rules.iter().map(rule).collect::<Option<_>>().map(Script::Rules)
        }
        BackstopKind::Confirm { question, .. } | BackstopKind::Escalate { question } => text(question),
        BackstopKind::Cache { .. } | BackstopKind::Queue { .. } | BackstopKind::Fail { .. } => None,
    }
}

impl Cx {
    /// What templates and rules may look at.
    pub(super) fn facts(&self) -> Value {
        json!({
            "request": self.inbound.as_value(),
            "text": self.inbound.last_user_text().unwrap_or_default(),
            "route": self.route.id(),
        })
    }

    /// The text of a backstop's template for this request.
    pub(super) fn text_of(&self, backstop: &Backstop) -> Option<String> {
        self.live.scripts.text(&backstop.name, &self.facts())
    }

    /// A reply of the gateway's own.
    pub(super) fn say(&self, text: impl Into<String>) -> Said {
        Said::text(self.request_id.as_str(), self.inbound.model(), text)
    }
}

/// Runs a backstop. Dropping the future leaves nothing half done: what was written down by then stays and ends by itself.
pub(super) async fn run(cx: &Cx, backstop: &Backstop, cause: &FailureReport) -> Ended {
    let ended = match &backstop.kind {
        BackstopKind::Static { .. } | BackstopKind::Rules(_) => match cx.text_of(backstop) {
            Some(text) => Ended::Said { said: cx.say(text), gave_up: GaveUp::Model },
            None => Ended::Declined("no template fits this request"),
        },
        BackstopKind::Cache { max_age } => cache::recall(cx, *max_age).await,
        BackstopKind::Queue { expires, webhook } => {
            queue::enqueue(cx, *expires, webhook.as_ref().map(|_| backstop.name.clone())).await
        }
        BackstopKind::Confirm { route, expires, .. } => confirm::ask(cx, backstop, route, *expires).await,
        BackstopKind::Escalate { .. } => escalations::open(cx, backstop, cause).await,
        // Where the route ends, which is no news.
        BackstopKind::Fail { .. } => return Ended::Declined("it gives no reply"),
    };
    if let Ended::Declined(why) = ended {
        let event = LogEvent::info("backstop_declined", why).with("backstop", &*backstop.name);
        let event = event.with("route", cx.route.id().as_str()).with("request_id", cx.request_id.as_str());
        cx.shared.telemetry.event(event);
    }
    ended
}
