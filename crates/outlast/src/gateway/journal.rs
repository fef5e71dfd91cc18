//! `x-outlast-run`: a model call becomes a step of a run's journal.
//!
//! A program that is run again from the top asks the same questions in the same order; every answer that was written
//! down is replayed, free, up to where it died. No claim is needed for that: a run named here for the first time is begun
//! by it, and whoever knows its name (and the caller's key) goes on with it. A worker that holds the run's claim names
//! its epoch too, and is fenced by it.
//!
//! The answer is written down before the agent sees its tool calls: their ids are the same ever after, and no failover
//! can fork what the agent does.

use super::{
    Shared,
    body::ReplyBody,
    idempotency::{self, Entry, fingerprint, patience, replayable},
    serve::{Denial, text},
    store::{down, tenant},
    ticket::{Claim, LEASE, Ticket, never_parked, replay},
};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use outlast_engine::run::MayNotBegin;
use outlast_model::{
    RunId,
    policy::Priority,
    run::{EffectClass, Exhausted, RetryBudget, StepKind},
};
use outlast_store::{BeginStep, Epoch, Payload, Place, RunRef, StartRun, Started, StepBegun};
use outlast_wire::{Inbound, error::Refused};
use std::{sync::Arc, time::Duration};

/// The run. Its presence is what makes a call a step.
pub(super) const RUN: HeaderName = HeaderName::from_static("x-outlast-run");
const STEP: HeaderName = HeaderName::from_static("x-outlast-step");
/// The claim of a worker that holds the run.
const EPOCH: HeaderName = HeaderName::from_static("x-outlast-epoch");
/// The how many-th time the program asks this very question, 1 for the first.
const OCCURRENCE: HeaderName = HeaderName::from_static("x-outlast-occurrence");
/// `true`: a named step asked in other words is refused instead of replayed.
const STRICT: HeaderName = HeaderName::from_static("x-outlast-strict");
const DIVERGED: HeaderName = HeaderName::from_static("x-outlast-diverged");
/// The journal's key of the step.
const JOURNALED: HeaderName = HeaderName::from_static("x-outlast-step-key");

/// The longest name of a run.
const RUN_MAX: usize = 128;
/// The longest key of a step, in bytes.
const KEY_MAX: usize = 256;
/// Of a run that a program begins by naming it.
const QUEUE: &str = "outlast:programs";
const WORKFLOW: &str = "program";

/// A model call is tried as often as the program asks for it; the route's own tier bounds each.
const BUDGET: RetryBudget = RetryBudget {
    attempts: u32::MAX,
    within: None,
    cost_max: None,
    base: Duration::ZERO,
    cap: Duration::ZERO,
    exhausted: Exhausted::Fail,
};

/// Looks the call up in its run's journal, and begins it there if it is new. `path` tells endpoints apart.
pub(super) async fn enter(
    shared: &Arc<Shared>,
    caller: Option<&str>,
    headers: &HeaderMap,
    path: &str,
    inbound: &Inbound,
) -> Result<Entry, Denial> {
    replayable(inbound)?;
    let run = RunRef { tenant: tenant(caller), id: run_id(headers)? };
    let fingerprint = fingerprint(path, inbound);
    let key = step_key(headers, &fingerprint)?;
    let epoch = epoch(headers)?;
    let place = Place::Step { run: run.clone(), key: key.clone() };
    let begin = BeginStep {
        place: place.clone(),
        journal: None,
        epoch,
        fence: None,
        // A worker's own heartbeats keep its run; a call must not stretch a lease that is meant to be short.
        lease: if epoch.is_some() { Duration::ZERO } else { LEASE },
        kind: StepKind::Model,
        name: inbound.model().into(),
        class: EffectClass::Pure,
        fingerprint,
        // The program has the question; what is kept is the answer.
        input: Payload::default(),
        budget: BUDGET,
        call_deadline: LEASE,
        needs_approval: false,
        strict: text(headers, &STRICT) == Some("true"),
        undo: None,
        undoes: None,
        if_parked: never_parked(),
    };
    let mut begun = stored(shared, begin.clone()).await?;
    if begun == StepBegun::NoRun && epoch.is_none() {
        start(shared, &run).await?;
        begun = stored(shared, begin).await?;
    }
    answer(shared, begun, place, &key, inbound, epoch.is_none())
}

async fn stored(shared: &Shared, begin: BeginStep) -> Result<StepBegun, Denial> {
    shared.stored(shared.store.begin_step(begin)).await.map_err(|error| down(&error))
}

/// A program's run: nobody is given it.
pub(super) async fn start(shared: &Shared, run: &RunRef) -> Result<(), Denial> {
    let start = StartRun {
        run: run.clone(),
        key: None,
        queue: QUEUE.into(),
        workflow: WORKFLOW.into(),
        version: "1".into(),
        priority: Priority::default(),
        after: Duration::ZERO,
        deadline: None,
        cost_max: None,
        unclaimed: true,
        input: Payload::default(),
    };
    match shared.stored(shared.store.start_run(start)).await.map_err(|error| down(&error))? {
        // Another call of the same program may have been faster.
        Started::New | Started::Before(_) => Ok(()),
        Started::Mismatch => Err(Denial::new(Refused::StepMismatch, "This run was started as something else.")),
    }
}

fn answer(
    shared: &Arc<Shared>,
    begun: StepBegun,
    place: Place,
    key: &str,
    inbound: &Inbound,
    renews: bool,
) -> Result<Entry, Denial> {
    let metrics = &shared.telemetry.metrics().journal;
    let replayed = |payload: &Payload, diverged: bool| {
        metrics.replayed.add(1);
        Ok(Entry::Answer(marked(replay(payload, inbound)?, key, diverged)))
    };
    match begun {
        StepBegun::Execute { attempt, epoch, .. } => {
            metrics.executed.add(1);
            Ok(Entry::Go(Ticket::new(shared.clone(), Claim::Step { place, epoch, attempt }, renews)))
        }
        StepBegun::Done { result, diverged } => replayed(&result, diverged),
        StepBegun::Failed { error: Some(error), diverged } => replayed(&error, diverged),
        StepBegun::InFlight { after } | StepBegun::Wait { after, .. } => {
            metrics.in_flight.add(1);
            let message = "This step of the run is still being answered. Retry to get its answer.";
            Err(Denial::new(Refused::StepInFlight, message).retry_after(patience(after)))
        }
        StepBegun::Mismatch => {
            metrics.mismatched.add(1);
            let message =
                "This step of the run was another question. Name the new one otherwise, or leave `x-outlast-step` out.";
            Err(Denial::new(Refused::StepMismatch, message))
        }
        StepBegun::Refused(why) => Err(refused(why)),
        StepBegun::NoRun => Err(Denial::new(Refused::NoSuchRun, "There is no such run.")),
        // A model's call is neither verified nor parked by itself; only another kind of step under its key is.
        StepBegun::Failed { error: None, .. } | StepBegun::Verify { .. } | StepBegun::Parked { .. } => {
            let message = "This key of the run's journal belongs to a step that is no model call.";
            Err(Denial::new(Refused::StepMismatch, message))
        }
    }
}

fn marked(mut response: Response<ReplyBody>, key: &str, diverged: bool) -> Response<ReplyBody> {
    if diverged {
        response.headers_mut().insert(DIVERGED, HeaderValue::from_static("true"));
    }
    if let Ok(key) = HeaderValue::from_str(key) {
        response.headers_mut().insert(JOURNALED, key);
    }
    response
}

/// Why a run takes no new step.
pub(super) fn refused(why: MayNotBegin) -> Denial {
    match why {
        MayNotBegin::Lost => {
            let message = "The run is over, or its claim is somebody else's by now. Stop working on it.";
            Denial::new(Refused::LeaseLost, message)
        }
        MayNotBegin::Cancelled => Denial::new(Refused::RunCancelled, "The run is to be cancelled: undo, then finish."),
        MayNotBegin::Overdue => Denial::new(Refused::RunOverdue, "The run's deadline has passed."),
        MayNotBegin::OverBudget => Denial::new(Refused::RunOverBudget, "The run's money is spent."),
    }
}

/// The run's name.
pub(super) fn run_id(headers: &HeaderMap) -> Result<RunId, Denial> {
    named(headers).ok_or_else(|| {
        let message = format!("Header `x-outlast-run` must be 1 to {RUN_MAX} characters of A-Z a-z 0-9 . _ : -");
        Denial::new(Refused::BadRequest, message)
    })
}

/// The run a request names, for its record.
pub(super) fn named(headers: &HeaderMap) -> Option<RunId> {
    text(headers, &RUN).map(str::trim).filter(|name| is_run_id(name)).map(RunId::from)
}

/// Whether it may name a run.
pub(super) fn is_run_id(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    (1..=RUN_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

/// The step's key: what the program calls it, else what it asks; and the how many-th time.
fn step_key(headers: &HeaderMap, fingerprint: &[u8; 32]) -> Result<Arc<str>, Denial> {
    let occurrence = match text(headers, &OCCURRENCE).map(|value| value.trim().parse::<u32>()) {
        None => 1,
        Some(Ok(occurrence)) if occurrence > 0 => occurrence,
        Some(Ok(_) | Err(_)) => {
            let message = "Header `x-outlast-occurrence` must be a whole number above zero.";
            return Err(Denial::new(Refused::BadRequest, message));
        }
    };
    let named = match (text(headers, &STEP), headers.get(&idempotency::KEY)) {
        (Some(step), _) => Some(Arc::from(step.trim())),
        (None, Some(key)) => Some(idempotency::readable(key)?),
        (None, None) => None,
    };
    let key = match named {
        Some(name) if (1..=KEY_MAX - 16).contains(&name.len()) => format!("llm/{name}#{occurrence}"),
        Some(_) => {
            let message = format!("Header `x-outlast-step` must be 1 to {} characters.", KEY_MAX - 16);
            return Err(Denial::new(Refused::BadRequest, message));
        }
        None => {
            let digits: String = fingerprint[..16].iter().map(|byte| format!("{byte:02x}")).collect();
            format!("llm/{digits}#{occurrence}")
        }
    };
    Ok(key.into())
}

/// The claim of whoever holds the run, if it says so.
pub(super) fn epoch(headers: &HeaderMap) -> Result<Option<Epoch>, Denial> {
    let Some(value) = headers.get(&EPOCH) else { return Ok(None) };
    let epoch = value.to_str().ok().and_then(|value| value.trim().parse::<i64>().ok()).filter(|epoch| *epoch > 0);
    let wrong = || Denial::new(Refused::BadRequest, "Header `x-outlast-epoch` must be the number the claim gave.");
    epoch.map(|epoch| Some(Epoch(epoch))).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect()
    }

    fn key(pairs: &[(&'static str, &'static str)]) -> Option<String> {
        step_key(&headers(pairs), &[0xab; 32]).ok().map(|key| key.to_string())
    }

    #[test]
    fn a_step_is_named_by_the_program_or_by_what_it_asks() {
        assert_eq!(key(&[]).unwrap(), "llm/abababababababababababababababab#1");
        assert_eq!(key(&[("x-outlast-occurrence", "3")]).unwrap(), "llm/abababababababababababababababab#3");
        assert_eq!(key(&[("x-outlast-step", "plan"), ("idempotency-key", "k")]).unwrap(), "llm/plan#1");
        assert_eq!(key(&[("idempotency-key", "k")]).unwrap(), "llm/k#1");
        assert_eq!(key(&[("x-outlast-occurrence", "0")]), None);
        assert_eq!(key(&[("x-outlast-step", "")]), None);
    }

    #[test]
    fn a_run_has_a_plain_name() {
        for (name, holds) in
            [("run_1", true), ("nightly:2026-11-21.a", true), ("", false), ("a/b", false), ("ä", false)]
        {
            assert_eq!(is_run_id(name), holds, "{name}");
        }
        assert!(!is_run_id(&"x".repeat(129)));
    }

    #[test]
    fn an_epoch_is_a_number_a_claim_can_have() {
        assert_eq!(epoch(&headers(&[])).ok().flatten(), None);
        assert_eq!(epoch(&headers(&[("x-outlast-epoch", "17")])).ok().flatten(), Some(Epoch(17)));
        assert!(epoch(&headers(&[("x-outlast-epoch", "-1")])).is_err());
    }
}
