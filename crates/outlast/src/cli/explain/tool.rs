//! A tool in words: what a second call would do, how it is tried, and what becomes of an outcome nobody knows.

use crate::{
    cli::check::count,
    config::{Config, Tool, show_duration},
};
use outlast_model::{
    policy::{ApprovalPolicy, ToolKind, ToolSpec, VerifyBy},
    run::{EffectClass, Exhausted, RetryBudget},
};
use serde_json::{Value, json};
use std::{fmt::Write, time::Duration};

/// A tool with everything that decides about its calls.
pub struct ToolExplanation<'c> {
    config: &'c Config,
    tool: &'c Tool,
}

impl<'c> ToolExplanation<'c> {
    /// Explains the tool of that name; `None` when there is none.
    pub fn of(config: &'c Config, name: &str) -> Option<Self> {
        Some(ToolExplanation { config, tool: config.tool(name)? })
    }

    /// For people.
    pub fn text(&self) -> String {
        let spec = &self.tool.spec;
        let mut text = format!("Tool {}\n", spec.name);
        let mut line = |says: String| {
            let _ = writeln!(text, "  {says}");
        };
        if let Some(description) = &spec.description {
            line(description.to_string());
        }
        line(reached(self.tool));
        line(format!("effect {}: {}", spec.class.name(), class(spec.class)));
        let schema = |schema: &Option<std::sync::Arc<outlast_model::policy::Schema>>| {
            schema.as_ref().map_or("anything".to_owned(), |schema| format!("what keeps {}", schema.source))
        };
        line(format!("takes {}; gives {}", schema(&spec.input), schema(&spec.output)));
        if let Some(approval) = approval(&spec.approval) {
            line(approval);
        }
        line(if spec.read_only {
            "in tool mode read-only it is called: it changes nothing".to_owned()
        } else {
            "in tool mode read-only it is not called: it changes something".to_owned()
        });
        let _ = write!(text, "\nHow it is tried\n");
        for says in self.tries() {
            let _ = writeln!(text, "  {says}");
        }
        let _ = write!(text, "\nWhat each outcome leads to\n");
        for (outcome, then) in outcomes(spec) {
            let _ = writeln!(text, "  {outcome:<28}{then}");
        }
        text
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let spec = &self.tool.spec;
        json!({
            "tool": spec.name,
            "description": spec.description,
            "kind": spec.kind.name(),
            "reached": reached(self.tool),
            "effect": spec.class,
            "read_only": spec.read_only,
            "approval": match &spec.approval {
                ApprovalPolicy::Never => json!("never"),
                ApprovalPolicy::Always => json!("always"),
                ApprovalPolicy::When(when) => json!({ "when": when }),
            },
            "timeout_ms": millis(spec.timeout),
            "retry": spec.retry,
            "longest_ms": millis(horizon(&spec.retry, spec.timeout)),
            "alternatives": spec.alternatives,
            "tries": self.tries(),
            "outcomes": outcomes(spec).into_iter()
                .map(|(outcome, then)| json!({ "outcome": outcome, "then": then })).collect::<Vec<_>>(),
            "workflows": self.workflows(),
        })
    }

    fn tries(&self) -> Vec<String> {
        let spec = &self.tool.spec;
        let mut tries = vec![budget(&spec.retry, spec.timeout)];
        if !spec.alternatives.is_empty() {
            let names: Vec<&str> = spec.alternatives.iter().map(|name| name.as_str()).collect();
            tries.push(format!(
                "instead of it, once it surely did not happen: {}, under the same key",
                names.join(", ")
            ));
        }
        tries.push(format!("when nothing of this is left, {}", end(&spec.retry)));
        tries.push("it has a breaker of its own: while that is open, nothing is sent".to_owned());
        let used = self.workflows();
        if !used.is_empty() {
            tries.push(format!("used by {}: {}", count(used.len(), "workflow"), used.join(", ")));
        }
        tries
    }

    /// The workflows that call it.
    fn workflows(&self) -> Vec<&'c str> {
        use outlast_model::policy::StepSpec;
        let name = &self.tool.spec.name;
        let calls = |step: &outlast_model::policy::WorkflowStep| {
            let called = match &step.spec {
                StepSpec::Tool { tool, .. } => tool == name,
                StepSpec::Agent { tools, .. } => tools.contains(name),
                StepSpec::Model { .. } | StepSpec::Human | StepSpec::Wait { .. } => false,
            };
            called || step.undo.as_ref().is_some_and(|undo| undo.tool == *name)
        };
        let plans = self.config.workflows.iter().filter(|(_, plan)| plan.spec.steps.iter().any(calls));
        plans.map(|(name, _)| name.as_str()).collect()
    }
}

/// How it is reached. Paths and queries may hold a secret, so only the host is shown.
pub(super) fn reached(tool: &Tool) -> String {
    match &tool.spec.kind {
        ToolKind::Http { method, key_header } => {
            let host = tool.http.as_ref().and_then(|http| http.url.authority()).map(ToString::to_string);
            let key = if tool.spec.class.is_effect() { format!(", our key in `{key_header}`") } else { String::new() };
            format!("by http: {} {}{key}", method.name(), host.unwrap_or_default())
        }
        ToolKind::Mcp { server, tool } => format!("by mcp: {tool} on server {server}"),
        ToolKind::Worker { queue } => format!("by a worker of queue {queue}"),
    }
}

/// What a class promises.
pub(super) fn class(class: EffectClass) -> String {
    match class {
        EffectClass::Pure => "a second call changes nothing".to_owned(),
        EffectClass::Tx => "it commits with our key, so a second call finds the first. Exactly once".to_owned(),
        EffectClass::Keyed { key_ttl, .. } => format!(
            "the receiver keeps our key for {} and answers a repetition with the first result. Exactly once, so long",
            show_duration(key_ttl)
        ),
        EffectClass::Verify { .. } => {
            "the receiver can be asked whether it happened. Bounded, not exactly once: a call may arrive after the question"
                .to_owned()
        }
        EffectClass::Once => "nobody can tell whether it happened. At most once".to_owned(),
    }
}

pub(super) fn approval(approval: &ApprovalPolicy) -> Option<String> {
    match approval {
        ApprovalPolicy::Never => None,
        ApprovalPolicy::Always => Some("a person has to agree before each call".to_owned()),
        ApprovalPolicy::When(when) => Some(format!("a person has to agree if {when}")),
    }
}

/// A budget in words.
pub(super) fn budget(retry: &RetryBudget, timeout: Duration) -> String {
    let mut text = format!(
        "{} of at most {}",
        count(retry.attempts as usize, "try").replace("trys", "tries"),
        show_duration(timeout)
    );
    if retry.attempts > 1 {
        let _ = write!(text, ", {} to {} apart", show_duration(retry.base), show_duration(retry.cap));
        if let Some(within) = retry.within {
            let _ = write!(text, ", none later than {}", show_duration(within));
        }
        let _ = write!(text, ": {} at most", show_duration(horizon(retry, timeout)));
    }
    if let Some(cost) = retry.cost_max {
        let _ = write!(text, ", none once ${cost} is spent");
    }
    text
}

/// What becomes of something whose budget is spent.
pub(super) fn end(retry: &RetryBudget) -> &'static str {
    match retry.exhausted {
        Exhausted::Escalate => "a person decides",
        Exhausted::Fail => "it has failed",
    }
}

/// How long after its first try begins the last one may end. Jitter only shortens the waits.
pub(super) fn horizon(retry: &RetryBudget, timeout: Duration) -> Duration {
    crate::config::horizon(retry, timeout)
}

/// What becomes of an outcome nobody knows.
pub(super) fn unknown(spec: &ToolSpec) -> String {
    let asks = match spec.verify.as_ref().map(|hook| &hook.by) {
        Some(VerifyBy::Http { .. }) => "the receiver is asked".to_owned(),
        Some(VerifyBy::Tool(tool)) => format!("`{tool}` is asked"),
        None => String::new(),
    };
    match spec.class {
        EffectClass::Pure => "tried again".to_owned(),
        EffectClass::Tx => "sent again with the same key: a second one finds the first".to_owned(),
        EffectClass::Keyed { key_ttl, verify } => {
            let ttl = show_duration(key_ttl);
            let later = match verify {
                Some(quiet) => format!("{asks} {} after it could last have happened", show_duration(quiet)),
                None => "a person decides".to_owned(),
            };
            format!("sent again with the same key, up to {ttl} after the first try; later {later}")
        }
        EffectClass::Verify { quiet_period } => format!(
            "{asks} {} after it could last have happened; if that does not tell, a person decides",
            show_duration(quiet_period)
        ),
        EffectClass::Once => "a person decides: it happened, or it did not".to_owned(),
    }
}

fn outcomes(spec: &ToolSpec) -> Vec<(&'static str, String)> {
    let http = matches!(spec.kind, ToolKind::Http { .. });
    let name = |over_http, otherwise| if http { over_http } else { otherwise };
    let recorded = if spec.class.is_effect() { "recorded; a repetition gets the same result" } else { "recorded" };
    let mut rows = vec![
        (name("a result (2xx)", "a result"), recorded.to_owned()),
        (name("refused (most 4xx)", "refused"), "it has failed for good; a repetition gets the same error".to_owned()),
        (name("not taken (408 429 503)", "not taken, not sent"), "tried again: it surely did not happen".to_owned()),
    ];
    if http {
        rows.push(("never sent (no connection)", "tried again: it surely did not happen".to_owned()));
    }
    rows.push((name("nobody knows (5xx, cut off)", "nobody knows"), unknown(spec)));
    rows
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
