//! What the config says about tools, workflows and people, after it has been judged.

use super::{KeyHash, SecretKey};
use http::{HeaderName, HeaderValue, Uri};
use outlast_model::{
    ToolName,
    policy::{ToolSpec, Workflow},
};
use outlast_wire::{
    DocumentSchema, Shape,
    template::{Expression, Template},
};
use std::{fmt, sync::Arc, time::Duration};

/// A tool, ready to be called.
#[derive(Clone, Debug)]
pub struct Tool {
    /// What decides about it.
    pub spec: Arc<ToolSpec>,
    /// Where it is, if it is called by HTTP.
    pub http: Option<Endpoint>,
    /// What its arguments have to be.
    pub input: Option<Arc<DocumentSchema>>,
    /// What its result has to be.
    pub output: Option<Arc<DocumentSchema>>,
    /// Compiled from the approval policy: over `arguments`.
    pub approval: Option<Arc<Expression>>,
    /// How the receiver is asked whether it happened. There if the spec has one.
    pub verify: Option<Verify>,
}

/// Compiled things come from the spec, so they are equal if it is.
impl PartialEq for Tool {
    fn eq(&self, other: &Self) -> bool {
        let Tool { spec, http, input: _, output: _, approval: _, verify } = self;
        (spec, http) == (&other.spec, &other.http)
            && verify.as_ref().map(|verify| (&verify.http, &verify.written))
                == other.verify.as_ref().map(|verify| (&verify.http, &verify.written))
    }
}

/// An address that is asked by HTTP. It is the operator's own; nothing that a model or a caller says leads elsewhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where. Never shown: its path or query may be a credential.
    pub url: Uri,
    /// Sent with every request. Marked sensitive when they came from the environment.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("host", &self.url.host()).finish_non_exhaustive()
    }
}

/// How a receiver is asked whether an effect took place.
#[derive(Clone, Debug)]
pub struct Verify {
    /// Where, unless a tool is asked.
    pub http: Option<Endpoint>,
    /// What it is asked: over `key` (the idempotency key that was sent) and `arguments`. Without one, these two.
    pub input: Option<Arc<Shape>>,
    /// Whether it took place: over `response`, `arguments` and `key`.
    pub done: Arc<Expression>,
    /// Its result, over the same; without one it is the response.
    pub result: Option<Arc<Expression>>,
    /// What is asked, as it was written, for comparing.
    pub(super) written: Option<serde_json::Value>,
}

/// An MCP server.
#[derive(Clone, Debug, PartialEq)]
pub struct McpServer {
    /// Its name: of `[mcp.NAME]`.
    pub name: Arc<str>,
    /// How it is reached.
    pub transport: McpTransport,
}

/// How an MCP server is reached.
#[derive(Clone, Debug, PartialEq)]
pub enum McpTransport {
    /// As a child process, over its standard input and output.
    Command {
        /// The program.
        program: Arc<str>,
        /// What it is started with.
        args: Vec<Arc<str>>,
        /// What is set in its environment. It inherits nothing but `PATH` and `HOME`.
        env: Vec<(Arc<str>, SecretKey)>,
    },
    /// Over streamable HTTP.
    Http(Endpoint),
}

/// A workflow, ready to be run. Its parts stand in the order of the spec's.
#[derive(Debug)]
pub struct WorkflowPlan {
    /// What decides about it.
    pub spec: Arc<Workflow>,
    /// What a run's input has to be.
    pub input: Option<Arc<DocumentSchema>>,
    /// The steps' texts.
    pub steps: Vec<StepPlan>,
    /// What a run results in: over `input`, `steps` and `run`.
    pub output: Option<Shape>,
}

/// Everything a plan is made of is in the spec's hash.
impl PartialEq for WorkflowPlan {
    fn eq(&self, other: &Self) -> bool {
        self.spec == other.spec
    }
}

/// What a step says and sends. Its facts are `input`, `steps` (results by step) and `run` (`id`, `workflow`, `version`).
#[derive(Debug)]
pub struct StepPlan {
    /// Whether it is done.
    pub when: Option<Expression>,
    /// Whether each branch holds; none: always.
    pub branches: Vec<Option<Expression>>,
    /// The business key of its effect, if it is a tool that has one.
    pub key: Option<Template>,
    /// What it says and sends.
    pub texts: StepTexts,
    /// What undoes it. Its facts hold the step's own result, too.
    pub undo: Option<UndoPlan>,
}

/// What a step says and sends.
#[derive(Debug)]
pub enum StepTexts {
    /// The conversation a model is asked with: each message's role (`system`, `user`, `assistant`) and text.
    Model(Vec<(&'static str, Template)>),
    /// A tool's arguments.
    Tool(Shape),
    /// What an agent is told.
    Agent {
        /// As the system message.
        instructions: Option<Template>,
        /// As the first user message.
        prompt: Template,
    },
    /// What a person is asked.
    Human {
        /// The question.
        question: Template,
        /// What is shown with it.
        context: Option<Shape>,
    },
    /// Nothing.
    Wait,
}

/// What undoes a step.
#[derive(Debug)]
pub struct UndoPlan {
    /// The tool's arguments.
    pub input: Shape,
    /// The business key, if it has one.
    pub key: Option<Template>,
}

/// Somebody who may decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reviewer {
    /// Under which name decisions are recorded.
    pub name: Arc<str>,
    /// The hash of their key.
    pub key: KeyHash,
    /// Where they are written to.
    pub email: Option<Arc<str>>,
}

/// A way to tell somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// Its name: of `[notify.NAME]`.
    pub name: Arc<str>,
    /// How.
    pub kind: NotifyKind,
}

/// How somebody is told.
#[derive(Clone, PartialEq, Eq)]
pub enum NotifyKind {
    /// A POST with a signature.
    Webhook {
        /// Where. Never shown.
        url: Uri,
        /// Signs it: HMAC-SHA256 of the body.
        secret: SecretKey,
    },
    /// A POST that Slack's incoming webhooks understand, and others that copy them.
    Slack {
        /// Where. Never shown: it is a credential.
        url: Uri,
    },
    /// A mail.
    Email {
        /// Through this server.
        smtp: Smtp,
        /// From this address.
        from: Arc<str>,
        /// To these.
        to: Vec<Arc<str>>,
    },
}

impl NotifyKind {
    /// The name used in config and docs.
    pub const fn name(&self) -> &'static str {
        match self {
            NotifyKind::Webhook { .. } => "webhook",
            NotifyKind::Slack { .. } => "slack",
            NotifyKind::Email { .. } => "email",
        }
    }
}

impl fmt::Debug for NotifyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NotifyKind::{}(..)", self.name())
    }
}

/// A mail server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smtp {
    /// Its name or address; an IPv6 address without brackets.
    pub host: Arc<str>,
    /// Its port.
    pub port: u16,
    /// Whether, and when, TLS is spoken.
    pub tls: SmtpTls,
    /// User and password, if it asks for them. Never with [`SmtpTls::None`] beyond this machine.
    pub login: Option<(Arc<str>, SecretKey)>,
}

/// When TLS is spoken with a mail server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpTls {
    /// From the first byte: `smtps://`, port 465.
    Implicit,
    /// After STARTTLS, which has to succeed: `smtp://`, port 587.
    StartTls,
    /// Never: `smtp://` to this machine.
    None,
}

/// What happens to work that waits for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Escalations {
    /// Nobody decided by then: `unanswered` says what follows. None: it waits.
    pub answer_within: Option<Duration>,
    /// How often the levels reached so far are told again.
    pub remind_every: Option<Duration>,
    /// Who is told, and when. In the order of `after`.
    pub levels: Vec<Level>,
    /// What follows when nobody decided.
    pub unanswered: Unanswered,
}

impl Default for Escalations {
    fn default() -> Self {
        Escalations { answer_within: None, remind_every: None, levels: Vec::new(), unanswered: Unanswered::Wait }
    }
}

/// Who is told of work that waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// How long it has waited by then. The first level's is zero unless it says otherwise.
    pub after: Duration,
    /// Through these ways, `[notify.NAME]`.
    pub notify: Vec<Arc<str>>,
    /// These reviewers, by mail.
    pub reviewers: Vec<Arc<str>>,
}

/// What follows when nobody decided in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unanswered {
    /// It goes on waiting, and everybody is told again.
    #[default]
    Wait,
    /// What waits for an approval is denied. Everything else goes on waiting: nothing is guessed.
    Deny,
}

impl Unanswered {
    /// The name used in config and docs.
    pub const fn name(self) -> &'static str {
        match self {
            Unanswered::Wait => "wait",
            Unanswered::Deny => "deny",
        }
    }
}

/// How the server runs workflows by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunsConfig {
    /// How many runs it works on at once.
    pub executors: u32,
    /// How long a claim of its own stands unless it is renewed.
    pub lease: Duration,
}

impl Default for RunsConfig {
    fn default() -> Self {
        RunsConfig { executors: 64, lease: Duration::from_secs(30) }
    }
}

impl super::Config {
    /// The tool of that name.
    pub fn tool(&self, name: &str) -> Option<&Arc<Tool>> {
        self.tools.get(name)
    }

    /// The tool that stands under that name, as models call it.
    pub fn tool_spec(&self, name: &ToolName) -> Option<&Arc<ToolSpec>> {
        self.tools.get(name).map(|tool| &tool.spec)
    }

    /// The workflow of that name.
    pub fn workflow(&self, name: &str) -> Option<&Arc<WorkflowPlan>> {
        self.workflows.get(name)
    }

    /// Whose key this is, in a time that does not depend on whose.
    pub fn reviewer(&self, presented: &KeyHash) -> Option<&Reviewer> {
        self.reviewers.values().fold(None, |found, one| if one.key.same(presented) { Some(one) } else { found })
    }
}
