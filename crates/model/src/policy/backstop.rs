//! Backstops: the deterministic ends of a route.

use crate::RouteId;
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc, time::Duration};

/// One deterministic end of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backstop {
    /// Its name: of `[backstops.NAME]`, or the kind's own for one without settings.
    pub name: Arc<str>,
    /// What it does.
    pub kind: BackstopKind,
}

/// What a backstop does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackstopKind {
    /// Gives a reply made from a template.
    Static {
        /// The template of its text, over `request`.
        reply: Arc<str>,
    },
    /// Gives the reply of the first rule whose expression is true; if none is, the next backstop is tried.
    Rules(Vec<Rule>),
    /// Gives the last good reply to the same request of the same tenant, marked with its age.
    Cache {
        /// An older one is not given.
        max_age: Duration,
    },
    /// Keeps the request and answers it when a target is healthy: 202 and a URL to poll.
    Queue {
        /// A request that has not been answered by then expires, and says so.
        expires: Duration,
        /// Told when it is done or expired. Its secret stays in the config.
        webhook: Option<Webhook>,
    },
    /// Asks the user, before another route answers that is cheaper, shorter or riskier.
    Confirm {
        /// The template of the question.
        question: Arc<str>,
        /// Who answers after a yes.
        route: RouteId,
        /// The question is void after this.
        expires: Duration,
    },
    /// Hands the request to a person: 202 and a URL to poll.
    Escalate {
        /// The template of the question the person is asked.
        question: Arc<str>,
    },
    /// A typed error.
    Fail {
        /// The template of the safe next step it names.
        next: Option<Arc<str>>,
    },
}

impl BackstopKind {
    /// The name used in config, headers and records.
    pub const fn name(&self) -> BackstopName {
        match self {
            BackstopKind::Static { .. } => BackstopName::Static,
            BackstopKind::Rules(_) => BackstopName::Rules,
            BackstopKind::Cache { .. } => BackstopName::Cache,
            BackstopKind::Queue { .. } => BackstopName::Queue,
            BackstopKind::Confirm { .. } => BackstopName::Confirm,
            BackstopKind::Escalate { .. } => BackstopName::Escalate,
            BackstopKind::Fail { .. } => BackstopName::Fail,
        }
    }
}

/// A kind of backstop, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackstopName {
    /// A templated reply.
    Static,
    /// The first matching rule's reply.
    Rules,
    /// The last good reply.
    Cache,
    /// Kept for later.
    Queue,
    /// A question to the user.
    Confirm,
    /// A person.
    Escalate,
    /// A typed error.
    Fail,
}

impl BackstopName {
    /// As users write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            BackstopName::Static => "static",
            BackstopName::Rules => "rules",
            BackstopName::Cache => "cache",
            BackstopName::Queue => "queue",
            BackstopName::Confirm => "confirm",
            BackstopName::Escalate => "escalate",
            BackstopName::Fail => "fail",
        }
    }
}

impl fmt::Display for BackstopName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One rule of a `rules` backstop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The expression over `request` (its JSON) and `text` (the last user turn) that has to be true.
    pub when: Arc<str>,
    /// The template of the reply's text.
    pub reply: Arc<str>,
}

/// Where a finished queued request is announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Gets the POST.
    pub url: Arc<str>,
}
