//! Waiting: runs for signals and timers, requests for something to happen.

use super::{
    super::Shared,
    Cx, Denial, ReplyBody,
    hints::Waiter,
    lost, may_not, mismatch, no_run,
    read::{self, Fields, bad},
    view,
};
use crate::{clock, failpoint};
use http::{HeaderMap, Response, StatusCode};
use hyper::body::Incoming;
use outlast_model::{Mono, RunId, Wall};
use outlast_store::{Payload, SignalRun, Signalled, Until, WaitRun, Waited};
use outlast_wire::error::Refused;
use serde::Serialize;
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Requests of this process that wait at one time. One more is answered with what there is.
const WAITING_MAX: usize = 1000;
/// The names of signals one wait may have.
const SIGNALS_MAX: usize = 16;

/// `POST /v1/runs/{id}/wait`.
pub(super) async fn wait(
    cx: &Cx,
    id: &RunId,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Response<ReplyBody>, Denial> {
    let known = ["epoch", "key", "signals", "timer_s", "until"];
    let (fields, _held) = Fields::of(&cx.shared, &cx.live, headers, body, &known).await?;
    let key: String = fields.must("key", "the step's key")?;
    let signals = fields.names("signals", SIGNALS_MAX)?;
    let timer = timer(&fields)?;
    if signals.is_empty() && timer.is_none() {
        return Err(bad("signals", "Wait for something: `signals`, `timer_s` or `until`."));
    }
    let run = cx.run(id);
    let command = WaitRun { run: run.clone(), epoch: fields.must_epoch()?, key: read::step_key(&key)?, signals, timer };
    let waited = cx.stored(cx.shared.store.wait_run(command)).await?;
    let metrics = &cx.shared.telemetry.metrics().runs;
    match waited {
        Waited::Signal { name, payload } => {
            #[derive(Serialize)]
            struct Signal<'a> {
                name: &'a str,
                payload: view::Json<'a>,
            }
            #[derive(Serialize)]
            struct Go<'a> {
                r#do: &'static str,
                signal: Signal<'a>,
            }
            Ok(cx.ok(&Go { r#do: "go", signal: Signal { name: &name, payload: view::Json(&payload) } }))
        }
        Waited::Timer => Ok(cx.ok(&json!({ "do": "go", "timer": true }))),
        Waited::Parked => {
            failpoint::pass("run.waits");
            metrics.waits.add(1);
            Ok(cx.ok(&json!({ "do": "parked" })))
        }
        Waited::Mismatch => Err(mismatch()),
        Waited::Refused(outlast_engine::run::MayNotBegin::Lost) => {
            cx.view(&run).await?;
            Err(lost())
        }
        Waited::Refused(why) => Err(may_not(why)),
    }
}

fn timer(fields: &Fields) -> Result<Option<Until>, Denial> {
    let until: Option<String> = fields.maybe("until", "a time like 2026-01-31T12:00:00Z")?;
    match (fields.long("timer_s")?, until) {
        (None, None) => Ok(None),
        (Some(after), None) => Ok(Some(Until::In(after))),
        (None, Some(text)) => match text.parse::<jiff::Timestamp>() {
            Ok(time) => Ok(Some(Until::At(Wall(time.as_millisecond())))),
            Err(_) => Err(bad("until", "`until` must be a time like 2026-01-31T12:00:00Z.")),
        },
        (Some(_), Some(_)) => Err(bad("until", "Give `timer_s` or `until`, not both.")),
    }
}

/// `POST /v1/runs/{id}/signals`.
pub(super) async fn signal(
    cx: &Cx,
    id: &RunId,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Response<ReplyBody>, Denial> {
    let (fields, _held) = Fields::of(&cx.shared, &cx.live, headers, body, &["name", "id", "payload"]).await?;
    let run = cx.run(id);
    let command = SignalRun {
        run: run.clone(),
        dedupe: fields.must_name("id")?,
        name: fields.must_name("name")?,
        payload: fields.payload("payload")?.unwrap_or_else(|| Payload::new("null")),
    };
    let first = match cx.stored(cx.shared.store.signal_run(command)).await? {
        Signalled::Accepted => true,
        Signalled::Before => false,
        Signalled::Over => {
            return Err(Denial::new(Refused::RunOver, "The run has ended; nobody takes this signal any more."));
        }
        Signalled::Unknown => return Err(no_run()),
        Signalled::Full => {
            let message = "Too many signals of this run wait for it. Send this one again when it has taken some.";
            return Err(Denial::new(Refused::SignalsFull, message).retry_after(Duration::from_secs(5)));
        }
    };
    if first {
        cx.shared.telemetry.metrics().runs.signals.add(1);
    }
    cx.nudge_for(&run).await;
    Ok(cx.answer(StatusCode::ACCEPTED, &json!({ "first": first })))
}

impl Cx {
    /// Whoever waits for this run's queue looks. Costs nothing while nobody waits.
    pub(super) async fn nudge_for(&self, run: &outlast_store::RunRef) {
        if self.shared.runs.hints.anybody_waits()
            && let Ok(Some(view)) = self.shared.stored(self.shared.store.run(run.clone())).await
        {
            self.shared.runs.nudge(&view.queue);
            if view.state.is_final() {
                self.shared.runs.ended(run);
            }
        }
    }
}

/// There is no room for another request that waits.
pub(super) struct TooMany;

/// How long a request waits, and for what.
pub(super) struct Patience {
    shared: Arc<Shared>,
    until: Mono,
    waiter: Option<Waiter>,
    _place: Option<Place>,
}

/// A place among those who wait.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Patience {
    /// Listens to hints for so long.
    ///
    /// # Errors
    /// When too many wait already.
    pub(super) fn begin(shared: &Arc<Shared>, queues: &[Arc<str>], wait: Duration) -> Result<Patience, TooMany> {
        if wait.is_zero() {
            return Ok(Patience::none(shared));
        }
        let place = Place(shared.runs.waiting.clone());
        if place.0.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            return Err(TooMany);
        }
        let until = shared.clock.mono() + wait;
        let waiter = shared.runs.hints.listen(queues);
        Ok(Patience { shared: shared.clone(), until, waiter: Some(waiter), _place: Some(place) })
    }

    /// Does not wait at all.
    pub(super) fn none(shared: &Arc<Shared>) -> Patience {
        Patience { shared: shared.clone(), until: Mono::ZERO, waiter: None, _place: None }
    }

    /// There was nothing. Waits for a hint, or about a second; false once it is time to answer.
    pub(super) async fn goes_on(&mut self) -> bool {
        let Some(waiter) = &self.waiter else { return false };
        waiter.pass_on();
        let left = self.until.since(self.shared.clock.mono());
        if left.is_zero() || self.shared.runs.is_closed() {
            return false;
        }
        // Jittered, and less than a second: what no hint tells is found within one.
        let look_again = Duration::from_millis(600 + self.shared.clock.seed() % 300);
        tokio::select! {
            () = waiter.hinted() => {}
            () = clock::sleep(left.min(look_again)) => {}
            () = self.shared.runs.closing() => return false,
        }
        true
    }

    /// There was something: others shall look whether there is more.
    pub(super) fn found(&self) {
        if let Some(waiter) = &self.waiter {
            waiter.found();
        }
    }
}
