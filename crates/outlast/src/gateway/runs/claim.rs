//! Who advances a run: claims, and the heartbeats that keep them.

use super::{
    super::{Shared, body::ReplyBody, body::Unsent, serve::spoken},
    Cx, Denial, LEASE, LEASE_MAX_S,
    api::reserved,
    no_run,
    read::{Fields, bad},
    view,
    waits::{Patience, TooMany},
};
use crate::{failpoint, telemetry::LogEvent};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::body::Incoming;
use outlast_model::RunId;
use outlast_store::{Accepts, BeatRun, Beaten, ClaimRun, ClaimedRun, JournalPage, ReleaseRun, SeeWorker};
use outlast_wire::error::{self, Refused};
use serde::Serialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// The longest time a claim waits, in seconds, and that of one that does not say.
const WAIT_MAX_S: f64 = 60.0;
const WAIT: Duration = Duration::from_secs(25);
/// Queues of one claim.
const QUEUES_MAX: usize = 32;
/// Workflows and versions that one worker names.
const ACCEPTS_MAX: usize = 256;

/// `POST /v1/claim`: waits for a run if there is none.
pub(super) async fn claim(cx: &Cx, headers: &HeaderMap, body: Incoming) -> Result<Response<ReplyBody>, Denial> {
    let known = ["worker", "label", "queues", "accepts", "wait_s", "lease_s", "standby", "journal"];
    let (fields, held) = Fields::of(&cx.shared, &cx.live, headers, body, &known).await?;
    if cx.shared.draining() {
        let message = "This server is shutting down. Claim again; another one will answer.";
        return Err(Denial::new(Refused::Draining, message).retry_after(Duration::from_secs(1)));
    }
    let lease = fields.secs("lease_s", 1.0, LEASE_MAX_S)?.unwrap_or(LEASE);
    let wait = fields.secs("wait_s", 0.0, WAIT_MAX_S)?.unwrap_or(WAIT);
    let journal: Option<u32> = fields.maybe("journal", "a whole number of entries, 0 to 500")?;
    let command = ClaimRun {
        tenant: Some(cx.asker.tenant.clone()),
        worker: fields.must_name("worker")?,
        queues: queues(&fields)?,
        accepts: accepts(&fields)?,
        lease,
        standby: fields.flag("standby")?,
        journal: journal.unwrap_or(100).min(JournalPage::LARGEST),
        if_parked: cx.if_parked(poison())?,
    };
    if let Some(label) = fields.name("label")? {
        named(cx, &command, label).await?;
    }
    drop((fields, held));
    let (mut patience, full) = match Patience::begin(&cx.shared, &command.queues, wait) {
        Ok(patience) => (patience, false),
        Err(TooMany) => (Patience::none(&cx.shared), true),
    };
    loop {
        // A poison run met by an earlier try has used its escalation's id.
        let command = ClaimRun { if_parked: cx.if_parked(poison())?, ..command.clone() };
        if let Some(claimed) = try_claim(cx, command).await? {
            patience.found();
            return Ok(given(cx, claimed, lease));
        }
        if !patience.goes_on().await {
            return Ok(nothing(cx, full));
        }
    }
}

/// The claim registers its worker, but under no name for people.
async fn named(cx: &Cx, claim: &ClaimRun, label: Arc<str>) -> Result<(), Denial> {
    let ClaimRun { tenant, worker, queues, accepts, standby, .. } = claim.clone();
    cx.stored(cx.shared.store.see_worker(SeeWorker { tenant, worker, label, queues, accepts, standby })).await
}

fn poison() -> String {
    "Workers claim this run and get no further: it was claimed five times in a row without a new entry in its journal. \
     Retry it once its cause is mended, or cancel it."
        .to_owned()
}

fn queues(fields: &Fields) -> Result<Vec<Arc<str>>, Denial> {
    let queues = fields.names("queues", QUEUES_MAX)?;
    if queues.is_empty() {
        return Err(bad("queues", "`queues` is missing: name at least one, such as [\"default\"]."));
    }
    queues.iter().try_for_each(|queue| reserved(queue, "queues"))?;
    Ok(queues)
}

/// What a worker can do: `{"workflow": ["version", ...]}`.
pub(super) fn accepts(fields: &Fields) -> Result<Vec<Accepts>, Denial> {
    let what = "an object of workflow names, each with a list of versions, empty for all";
    let given: BTreeMap<String, Vec<String>> = fields.maybe("accepts", what)?.unwrap_or_default();
    if given.values().map(|versions| 1 + versions.len()).sum::<usize>() > ACCEPTS_MAX {
        return Err(bad("accepts", format!("`accepts` names more than {ACCEPTS_MAX} workflows and versions.")));
    }
    let of = |(workflow, versions): (String, Vec<String>)| Accepts {
        workflow: workflow.into(),
        versions: versions.into_iter().map(Arc::from).collect(),
    };
    Ok(given.into_iter().map(of).collect())
}

/// A claimed run that nobody has been told of. Dropped, it is given back at once instead of when its lease ends.
struct Untold {
    shared: Arc<Shared>,
    claimed: Option<Box<ClaimedRun>>,
}

impl Drop for Untold {
    fn drop(&mut self) {
        if let Some(claimed) = self.claimed.take() {
            give_back(&self.shared, &claimed);
        }
    }
}

fn give_back(shared: &Arc<Shared>, claimed: &ClaimedRun) {
    let release = ReleaseRun { run: claimed.run.run.clone(), epoch: claimed.epoch, after: Duration::ZERO };
    // Handed over by the call itself; if it is lost, the lease runs out.
    drop(shared.store.release_run(release));
    shared.runs.nudge(&claimed.run.queue);
    shared.telemetry.metrics().runs.untold.add(1);
}

/// The claim itself, in a task of its own: if the client goes away meanwhile, what comes of it is still looked after.
async fn try_claim(cx: &Cx, command: ClaimRun) -> Result<Option<Box<ClaimedRun>>, Denial> {
    let shared = cx.shared.clone();
    let claiming = tokio::spawn(async move {
        let claimed = shared.stored(shared.store.claim_run(command)).await?;
        Ok(claimed.map(|claimed| Untold { shared: shared.clone(), claimed: Some(Box::new(claimed)) }))
    });
    match claiming.await {
        Ok(Ok(untold)) => Ok(untold.and_then(|mut untold| untold.claimed.take())),
        Ok(Err(error)) => Err(super::store::down(&error)),
        Err(_) => Err(Denial::new(Refused::Internal, "The claim failed.")),
    }
}

/// The answer; if it cannot be handed to the client's connection, the run is given back.
fn given(cx: &Cx, claimed: Box<ClaimedRun>, lease: Duration) -> Response<ReplyBody> {
    #[derive(Serialize)]
    struct Shown<'a> {
        run: Value,
        epoch: i64,
        lease_s: f64,
        input: view::Json<'a>,
        journal: view::Journal<'a>,
    }
    failpoint::pass("run.claimed");
    cx.shared.telemetry.metrics().runs.claimed.add(1);
    let shown = Shown {
        run: view::run(&claimed.run, cx.asker.is_operator),
        epoch: claimed.epoch.0,
        lease_s: lease.as_secs_f64(),
        input: view::Json(&claimed.input),
        journal: view::journal(&claimed.journal),
    };
    let (head, body) = cx.ok(&shown).into_parts();
    let shared = cx.shared.clone();
    // The journal can be large, and is not needed to give the run back.
    let bare = ClaimedRun { journal: JournalPage::default(), input: outlast_store::Payload::default(), ..*claimed };
    let unsent = Unsent::new(move || give_back(&shared, &bare));
    Response::from_parts(head, body.guarded(unsent))
}

fn nothing(cx: &Cx, full: bool) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::Whole(None));
    *response.status_mut() = StatusCode::NO_CONTENT;
    *response.headers_mut() = super::reply_head::common(&cx.request_id, 0);
    response.headers_mut().remove(header::CONTENT_TYPE);
    if full {
        // Too many wait already, so this one did not.
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if cx.shared.draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// `POST /v1/runs/{id}/heartbeat`.
pub(super) async fn heartbeat(
    cx: &Cx,
    id: &RunId,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Response<ReplyBody>, Denial> {
    let (fields, _held) = Fields::of(&cx.shared, &cx.live, headers, body, &["epoch", "lease_s"]).await?;
    let lease = fields.secs("lease_s", 1.0, LEASE_MAX_S)?.unwrap_or(LEASE);
    let run = cx.run(id);
    let beat = BeatRun { run: run.clone(), epoch: fields.must_epoch()?, lease };
    let said = match cx.stored(cx.shared.store.beat_run(beat)).await? {
        Beaten::Held => "held",
        Beaten::Cancel => "cancel",
        Beaten::Drain => "drain",
        Beaten::Lost => {
            if cx.stored(cx.shared.store.run(run)).await?.is_none() {
                return Err(no_run());
            }
            cx.shared.telemetry.metrics().runs.lost.add(1);
            let event = LogEvent::info("run_lease_lost", "a worker beat for a claim that is over; it is told to stop");
            cx.shared.telemetry.event(event.with("run", id.as_str()));
            return Ok(lost(cx, headers));
        }
    };
    Ok(cx.ok(&json!({ "lease": said })))
}

/// 410 with both: what a heartbeat always says, and the error.
fn lost(cx: &Cx, headers: &HeaderMap) -> Response<ReplyBody> {
    let message = "This claim is somebody else's by now, or over. Stop working on the run and claim again.";
    let dialect = spoken("", headers);
    let reply = error::refused(dialect, Refused::LeaseLost, message, None, cx.request_id.as_str());
    let mut body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    body["lease"] = json!("lost");
    cx.answer(StatusCode::GONE, &body)
}
