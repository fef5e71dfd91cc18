//! Durable runs over HTTP: the worker protocol of `docs/worker-protocol.md`, and what looks after it.
//!
//! Read in the order of a run: [`api`] (start, list, look), [`claim`] (who advances it), [`steps`] (begin, end),
//! [`waits`] (signals and timers), [`ends`] (finish, release, cancel, migrate), [`workers`], [`supervisor`] (who does
//! what, and what is late), [`upkeep`] (alerts). [`read`] is how a request is read, [`view`] what is shown, [`hints`]
//! how those who wait hear of news. What decides is the store's, by `outlast_engine::run`.

mod api;
mod claim;
mod drive;
mod ends;
mod hints;
mod read;
mod steps;
mod supervisor;
mod upkeep;
mod view;
mod waits;
mod workers;

pub(super) use drive::Executors;
pub(super) use upkeep::watch;

use super::{
    Shared,
    admin::operator,
    body::ReplyBody,
    live::Live,
    reply_head,
    serve::{Denial, caller, presented_key},
    store,
};
use crate::config::KeyHash;
use bytes::Bytes;
use hints::Hints;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use outlast_engine::run::MayNotBegin;
use outlast_model::{RequestId, RunId, TenantId};
use outlast_store::{IfParked, Payload, RunRef};
use outlast_wire::error::Refused;
use serde::Serialize;
use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};
use tokio::sync::watch;

/// A lease, where a request does not say.
const LEASE: Duration = Duration::from_secs(30);
/// The longest lease, in seconds.
const LEASE_MAX_S: f64 = 600.0;

/// What concerns runs in this process; part of [`super::Shared`].
#[derive(Default)]
pub(crate) struct Runs {
    hints: Arc<Hints>,
    /// Requests that wait for something to happen.
    waiting: Arc<AtomicUsize>,
    /// The process is on its way out: nobody waits any longer.
    closed: watch::Sender<bool>,
}

impl Runs {
    /// There may be a run to be claimed in this queue: said after whatever makes one ready. A hint only: a claim that
    /// waits asks the store again about every second.
    pub(crate) fn nudge(&self, queue: &str) {
        self.hints.nudge(queue);
    }

    /// The run has ended: whoever waits for its result looks.
    pub(crate) fn ended(&self, run: &RunRef) {
        self.hints.nudge_all(&ending(run));
    }

    /// The process is on its way out: whoever waits is answered now.
    pub(super) fn close(&self) {
        self.closed.send_replace(true);
    }

    fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    async fn closing(&self) {
        // It lives as long as the process: it never ends otherwise.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }
}

/// What those who wait for a run's end listen to. No queue is called so.
fn ending(run: &RunRef) -> Arc<str> {
    format!("\n{}/{}", run.tenant, run.id).into()
}

/// Whether a path belongs here.
pub(super) fn serves(path: &str) -> bool {
    let Some(rest) = path.strip_prefix("/v1/") else { return false };
    let first = rest.split('/').next().unwrap_or_default();
    matches!(first, "runs" | "claim" | "workers" | "supervisor")
}

/// One request, as far as every endpoint needs it.
struct Cx {
    shared: Arc<Shared>,
    live: Arc<Live>,
    request_id: RequestId,
    asker: Asker,
}

/// Who asks.
struct Asker {
    /// Whose runs it sees; of an operator those of the tenant it names.
    tenant: TenantId,
    /// It presented the admin token, or came without a key where none is needed.
    is_operator: bool,
    /// An operator that named no tenant: lists show all.
    sees_all: bool,
}

impl Asker {
    /// A caller by its key, else the operator by its token, which may name a tenant: `?tenant=`.
    fn of(live: &Live, headers: &HeaderMap, named: Option<&str>) -> Result<Asker, Denial> {
        let server = &live.config.server;
        let has_token = server
            .admin_token
            .as_ref()
            .is_some_and(|token| presented_key(headers).is_some_and(|presented| KeyHash::of(presented).same(token)));
        let needs_none = server.admin_token.is_none()
            && (server.keys.is_empty() || presented_key(headers).is_none())
            && operator(live, headers).is_ok();
        if has_token || needs_none {
            let tenant = store::tenant(named.filter(|name| !name.is_empty()));
            return Ok(Asker { tenant, is_operator: true, sees_all: named.is_none() });
        }
        let caller = caller(live, headers)?;
        if named.is_some() {
            let message = "Only the operator may name a tenant. Leave `tenant` out: you see your own runs.";
            return Err(Denial::new(Refused::Forbidden, message));
        }
        let tenant = store::tenant(caller.0.map(|key| key.short()).as_deref());
        Ok(Asker { tenant, is_operator: false, sees_all: false })
    }

    /// Who acted, for the audit.
    fn name(&self) -> Arc<str> {
        if self.is_operator { "operator".into() } else { format!("key {}", self.tenant).into() }
    }
}

impl Cx {
    fn run(&self, id: &RunId) -> RunRef {
        RunRef { tenant: self.asker.tenant.clone(), id: id.clone() }
    }

    /// Waits for the store.
    async fn stored<T>(&self, answer: outlast_store::Answer<T>) -> Result<T, Denial> {
        self.shared.stored(answer).await.map_err(|error| store::down(&error))
    }

    fn answer(&self, status: StatusCode, body: &impl Serialize) -> Response<ReplyBody> {
        let body = serde_json::to_vec(body).unwrap_or_default();
        let mut response = Response::new(ReplyBody::from(Bytes::from(body)));
        *response.status_mut() = status;
        *response.headers_mut() = reply_head::common(&self.request_id, 0);
        response
    }

    fn ok(&self, body: &impl Serialize) -> Response<ReplyBody> {
        self.answer(StatusCode::OK, body)
    }

    /// What a person is asked if this command leads to one.
    ///
    /// # Errors
    /// When the system gives no entropy for its id.
    fn if_parked(&self, question: String) -> Result<IfParked, Denial> {
        let no_entropy = || Denial::new(Refused::Internal, "The system gives no entropy.");
        let secret = self.shared.clock.secret().ok_or_else(no_entropy)?;
        Ok(IfParked {
            id: format!("esc_{secret}").into(),
            question: question.into(),
            context: Payload::default(),
            answer_within: self.live.config.escalations.answer_within,
        })
    }
}

/// Answers a request of this protocol.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    request_id: &RequestId,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Denial> {
    let (head, body) = request.into_parts();
    let live = shared.live();
    let path = head.uri.path();
    let target = Target::of(path).ok_or_else(|| nothing_at(path))?;
    let known = target.parameters(&head.method);
    let query = read::Query::parse(head.uri.query(), known)?;
    let asker = match Asker::of(&live, &head.headers, query.text("tenant")) {
        Ok(asker) => asker,
        Err(denial) => {
            super::intake::discard(&head.headers, body).await;
            return Err(denial);
        }
    };
    let cx = Cx { shared: shared.clone(), live, request_id: request_id.clone(), asker };
    let is_get = matches!(head.method, Method::GET | Method::HEAD);
    let is_post = head.method == Method::POST;
    match target {
        Target::Runs if is_get => api::list(&cx, &query).await,
        Target::Runs if is_post => api::start(&cx, &head.headers, body).await,
        Target::Run(id) if is_get => api::show(&cx, &id).await,
        Target::Under(id, Part::Journal) if is_get => api::journal(&cx, &id, &query).await,
        Target::Under(id, Part::Result) if is_get => api::result(&cx, &id, &query).await,
        Target::Under(id, Part::Heartbeat) if is_post => claim::heartbeat(&cx, &id, &head.headers, body).await,
        Target::Under(id, Part::Wait) if is_post => waits::wait(&cx, &id, &head.headers, body).await,
        Target::Under(id, Part::Signals) if is_post => waits::signal(&cx, &id, &head.headers, body).await,
        Target::Under(id, Part::Finish) if is_post => ends::finish(&cx, &id, &head.headers, body).await,
        Target::Under(id, Part::Release) if is_post => ends::release(&cx, &id, &head.headers, body).await,
        Target::Under(id, Part::Cancel) if is_post => ends::cancel(&cx, &id, &head.headers, body).await,
        Target::Under(id, Part::Migrate) if is_post => ends::migrate(&cx, &id, &head.headers, body).await,
        Target::Step(id, key) if is_get => api::step(&cx, &id, &key).await,
        Target::Begin(id, key) if is_post => steps::begin(&cx, &id, key, &head.headers, body).await,
        Target::End(id, key) if is_post => steps::end(&cx, &id, key, &head.headers, body).await,
        Target::Claim if is_post => claim::claim(&cx, &head.headers, body).await,
        Target::Workers if is_get => workers::list(&cx).await,
        Target::Workers if is_post => workers::register(&cx, &head.headers, body).await,
        Target::Worker(id) if head.method == Method::DELETE => workers::drain(&cx, id, true).await,
        Target::Drain(id) if is_post => workers::drain(&cx, id, false).await,
        Target::Supervisor if is_get => supervisor::show(&cx, &head.headers).await,
        other @ (Target::Runs
        | Target::Run(_)
        | Target::Under(..)
        | Target::Step(..)
        | Target::Begin(..)
        | Target::End(..)
        | Target::Claim
        | Target::Workers
        | Target::Worker(_)
        | Target::Drain(_)
        | Target::Supervisor) => {
            super::intake::discard(&head.headers, body).await;
            let message = format!("{} takes {}.", shown_path(path), other.methods());
            Err(Denial::new(Refused::WrongMethod, message))
        }
    }
}

fn shown_path(path: &str) -> String {
    path.chars().take(120).collect()
}

fn nothing_at(path: &str) -> Denial {
    Denial::new(Refused::NoSuchPath, format!("Nothing is served at {}.", shown_path(path)))
}

/// What a path names.
enum Target {
    Runs,
    Run(RunId),
    Under(RunId, Part),
    Step(RunId, Arc<str>),
    Begin(RunId, Arc<str>),
    End(RunId, Arc<str>),
    Claim,
    Workers,
    Worker(Arc<str>),
    Drain(Arc<str>),
    Supervisor,
}

/// A part of a run.
#[derive(Clone, Copy)]
enum Part {
    Journal,
    Result,
    Heartbeat,
    Wait,
    Signals,
    Finish,
    Release,
    Cancel,
    Migrate,
}

impl Target {
    fn of(path: &str) -> Option<Target> {
        let rest = path.strip_prefix("/v1/")?;
        match rest {
            "runs" => return Some(Target::Runs),
            "claim" => return Some(Target::Claim),
            "workers" => return Some(Target::Workers),
            "supervisor" => return Some(Target::Supervisor),
            _ => {}
        }
        if let Some(worker) = rest.strip_prefix("workers/") {
            return Some(match worker.strip_suffix("/drain") {
                Some(worker) => Target::Drain(read::decoded(worker)?.into()),
                None => Target::Worker(read::decoded(worker)?.into()),
            });
        }
        let (id, part) = match rest.strip_prefix("runs/")?.split_once('/') {
            None => return Some(Target::Run(read::run_id(&read::decoded(rest.strip_prefix("runs/")?)?)?)),
            Some((id, part)) => (read::run_id(&read::decoded(id)?)?, part),
        };
        let part = match part {
            "journal" => Part::Journal,
            "result" => Part::Result,
            "heartbeat" => Part::Heartbeat,
            "wait" => Part::Wait,
            "signals" => Part::Signals,
            "finish" => Part::Finish,
            "release" => Part::Release,
            "cancel" => Part::Cancel,
            "migrate" => Part::Migrate,
            _ => return Target::of_step(id, part.strip_prefix("steps/")?),
        };
        Some(Target::Under(id, part))
    }

    /// A key's slashes need no escapes, unless it ends in `/begin` or `/end` itself.
    fn of_step(id: RunId, rest: &str) -> Option<Target> {
        let key = |key: &str| read::step_key(&read::decoded(key)?).ok();
        if let Some(begun) = rest.strip_suffix("/begin") {
            return Some(Target::Begin(id, key(begun)?));
        }
        match rest.strip_suffix("/end") {
            Some(ended) => Some(Target::End(id, key(ended)?)),
            None => Some(Target::Step(id, key(rest)?)),
        }
    }

    /// The query's parameters.
    fn parameters(&self, method: &Method) -> &'static [&'static str] {
        match self {
            Target::Runs if *method == Method::GET => &["tenant", "state", "queue", "workflow", "limit", "after"],
            Target::Under(_, Part::Journal) => &["tenant", "after", "limit"],
            Target::Under(_, Part::Result) => &["tenant", "wait_s"],
            Target::Runs
            | Target::Run(_)
            | Target::Under(..)
            | Target::Step(..)
            | Target::Begin(..)
            | Target::End(..)
            | Target::Claim
            | Target::Workers
            | Target::Worker(_)
            | Target::Drain(_)
            | Target::Supervisor => &["tenant"],
        }
    }

    fn methods(&self) -> &'static str {
        match self {
            Target::Runs | Target::Workers => "GET or POST",
            Target::Run(_) | Target::Step(..) | Target::Supervisor | Target::Under(_, Part::Journal | Part::Result) => {
                "GET"
            }
            Target::Worker(_) => "DELETE",
            Target::Under(..) | Target::Begin(..) | Target::End(..) | Target::Claim | Target::Drain(_) => "POST",
        }
    }
}

/// There is no such run for this caller.
pub(super) fn no_run() -> Denial {
    let message = "You have no such run, or it is no longer kept. The operator names a tenant with `?tenant=`.";
    Denial::new(Refused::NoSuchRun, message)
}

/// The claim is over.
pub(super) fn lost() -> Denial {
    let message = "This claim is somebody else's by now, or over. Stop working on it and claim again.";
    Denial::new(Refused::LeaseLost, message)
}

/// Why nothing may begin in a run.
pub(super) fn may_not(why: MayNotBegin) -> Denial {
    match why {
        MayNotBegin::Lost => lost(),
        MayNotBegin::Cancelled => {
            let message = "The run is to be cancelled: only steps with `undoes` begin. Undo what has to be, then finish it with `cancelled`.";
            Denial::new(Refused::RunCancelled, message)
        }
        MayNotBegin::Overdue => {
            let message = "The run's deadline has passed: only steps with `undoes` begin. Finish it.";
            Denial::new(Refused::RunOverdue, message)
        }
        MayNotBegin::OverBudget => {
            let message = "The run's money is spent: only steps with `undoes` begin. Finish it.";
            Denial::new(Refused::RunOverBudget, message)
        }
    }
}

/// Somebody is at this step.
pub(super) fn in_flight(after: Duration) -> Denial {
    let message = "Somebody is at this step, or was and its lease still stands. Begin it again to get its end.";
    Denial::new(Refused::StepInFlight, message).retry_after(after.max(Duration::from_millis(100)))
}

/// A step cannot be begun yet.
pub(super) fn not_yet(after: Duration, unknown: bool) -> Denial {
    let message = match unknown {
        true => {
            "Whether this step took place is not known; it is looked into after its quiet period. Begin it again then."
        }
        false => "This step surely did not take place, and is not tried again yet. Begin it again then.",
    };
    Denial::new(Refused::StepNotYet, message).retry_after(after)
}

/// A key that stands for something else.
pub(super) fn mismatch() -> Denial {
    let message =
        "This key stands for a step with another input, or of another kind. Give what is different another key.";
    Denial::new(Refused::StepMismatch, message)
}
