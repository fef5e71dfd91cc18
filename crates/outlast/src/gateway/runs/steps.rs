//! Begin a step, end it: the ledger over HTTP.

use super::{
    super::{body::ReplyBody, tools},
    Cx, Denial, LEASE, LEASE_MAX_S, in_flight, lost, may_not, mismatch, no_run, not_yet,
    read::{Fields, SaidError, bad, step_key},
    view,
};
use crate::{failpoint, telemetry::LogEvent};
use http::{HeaderMap, Response};
use hyper::body::Incoming;
use outlast_engine::run::{Ended, Proof};
use outlast_model::{
    RunId, Wall,
    run::{EffectClass, EscalationKind, RetryBudget, StepKind},
};
use outlast_store::{BeginStep, EndStep, Payload, Place, RunRef, StepBegun, StepEnded};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};
use std::{sync::Arc, time::Duration};

/// How long one attempt may take where the request does not say, and at most, in seconds.
const TIMEOUT: Duration = Duration::from_secs(60);
const TIMEOUT_MAX_S: f64 = 86_400.0;

/// Where a step is kept: in the journal, or under its business key in the tenant's ledger.
struct Where {
    place: Place,
    journal: Option<(RunRef, Arc<str>)>,
}

impl Where {
    fn of(cx: &Cx, id: &RunId, key: Arc<str>, fields: &Fields) -> Result<Where, Denial> {
        let run = cx.run(id);
        let business: Option<String> = fields.maybe("key", "the business key, a text")?;
        match (fields.name("scope")?, business) {
            (None, None) => Ok(Where { place: Place::Step { run, key }, journal: None }),
            (Some(scope), Some(business)) => {
                let place = Place::Effect { tenant: run.tenant.clone(), scope, key: step_key(&business)? };
                Ok(Where { place, journal: Some((run, key)) })
            }
            (None, Some(_)) => Err(bad("scope", "`key` needs a `scope`: the name of what the key belongs to.")),
            (Some(_), None) => Err(bad("key", "`scope` needs a `key`: the business key within it.")),
        }
    }
}

/// `POST /v1/runs/{id}/steps/{key}/begin`.
pub(super) async fn begin(
    cx: &Cx,
    id: &RunId,
    key: Arc<str>,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Response<ReplyBody>, Denial> {
    let known = [
        "epoch",
        "kind",
        "name",
        "class",
        "input",
        "fingerprint",
        "scope",
        "key",
        "retry",
        "timeout_s",
        "needs_approval",
        "question",
        "strict",
        "undo",
        "undoes",
        "lease_s",
    ];
    let (fields, _held) = Fields::of(&cx.shared, &cx.live, headers, body, &known).await?;
    let at = Where::of(cx, id, key.clone(), &fields)?;
    let command = command(cx, &key, &at, &fields)?;
    let (is_fenced, timeout) = (command.epoch.is_some(), command.call_deadline);
    let begun = cx.stored(cx.shared.store.begin_step(command)).await?;
    cx.shared.telemetry.metrics().runs.begun(&begun);
    if let StepBegun::Parked { why, escalation } = &begun {
        cx.tell_parked(id, &key, *why, escalation);
    }
    if is_fenced && matches!(begun, StepBegun::Execute { .. }) {
        failpoint::pass("ledger.intent");
    }
    told(cx, &at.place, timeout, begun)
}

fn command(cx: &Cx, key: &Arc<str>, at: &Where, fields: &Fields) -> Result<BeginStep, Denial> {
    let epoch = fields.epoch()?;
    let call_deadline = fields.secs("timeout_s", 0.001, TIMEOUT_MAX_S)?.unwrap_or(TIMEOUT);
    let lease = match fields.secs("lease_s", 1.0, LEASE_MAX_S)? {
        Some(lease) => lease,
        None if epoch.is_some() => LEASE,
        // Nobody renews it: it stands as long as the attempt may take.
        None => call_deadline.clamp(LEASE, Duration::from_secs_f64(LEASE_MAX_S)),
    };
    let budget: RetryBudget = fields.nested("retry")?.unwrap_or_default();
    if budget.attempts == 0 {
        return Err(bad("retry", "`retry.attempts` counts the first one, too: it must be at least 1."));
    }
    let name = fields.name("name")?.unwrap_or_else(|| key.chars().take(128).collect::<String>().into());
    let question: Option<String> = fields.maybe("question", "a text")?;
    let question =
        question.unwrap_or_else(|| format!("Step `{name}` cannot go on by itself. What shall become of it?"));
    Ok(BeginStep {
        place: at.place.clone(),
        journal: at.journal.clone(),
        epoch,
        fence: None,
        lease,
        kind: kind(fields)?,
        name,
        class: class(fields)?,
        fingerprint: fingerprint(fields)?,
        input: fields.payload("input")?.unwrap_or_default(),
        budget,
        call_deadline,
        needs_approval: fields.flag("needs_approval")?,
        strict: fields.flag("strict")?,
        undo: fields.payload("undo")?,
        undoes: fields.maybe::<String>("undoes", "a step's key")?.map(|key| step_key(&key)).transpose()?,
        if_parked: cx.if_parked(question)?,
    })
}

fn kind(fields: &Fields) -> Result<StepKind, Denial> {
    let what = "code, model, tool, human or undo";
    let kind: Option<StepKind> = fields.maybe("kind", what)?;
    match kind {
        Some(StepKind::Wait) => Err(bad("kind", format!("`kind` must be {what}: a wait is begun with POST /wait."))),
        Some(kind) => Ok(kind),
        None if fields.has("undoes") => Ok(StepKind::Undo),
        None => Ok(StepKind::Code),
    }
}

fn class(fields: &Fields) -> Result<EffectClass, Denial> {
    let what = "\"pure\", \"once\", \"tx\", {\"keyed\": {\"key_ttl_ms\": N, \"verify_ms\": N}} or {\"verify\": {\"quiet_period_ms\": N}}";
    Ok(fields.maybe("class", what)?.unwrap_or(EffectClass::Pure))
}

fn fingerprint(fields: &Fields) -> Result<[u8; 32], Denial> {
    let what = "64 hexadecimal digits";
    let Some(text) = fields.maybe::<String>("fingerprint", what)? else { return fields.fingerprint("input") };
    let mut bytes = [0; 32];
    let digits = text.as_bytes().as_chunks::<2>();
    let is_whole = text.len() == 64
        && digits.0.iter().zip(&mut bytes).all(|(pair, byte)| {
            let parsed = str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
            parsed.map(|parsed| *byte = parsed).is_some()
        });
    if is_whole { Ok(bytes) } else { Err(bad("fingerprint", format!("`fingerprint` must be {what}."))) }
}

/// What the answer of the store reads like.
fn told(cx: &Cx, place: &Place, timeout: Duration, begun: StepBegun) -> Result<Response<ReplyBody>, Denial> {
    match begun {
        StepBegun::Execute { attempt, epoch, deadline, decision } => Ok(cx.ok(&Execute {
            r#do: "execute",
            attempt,
            epoch: epoch.0,
            idempotency_key: tools::idempotency_key(place),
            deadline_ms: left(cx, deadline, timeout),
            decision: decision.as_ref().map(view::Json),
        })),
        StepBegun::Verify { attempt, epoch, input } => Ok(cx.ok(&Verify {
            r#do: "verify",
            attempt,
            epoch: epoch.0,
            idempotency_key: tools::idempotency_key(place),
            input: view::Json(&input),
        })),
        StepBegun::Done { result, diverged } => {
            Ok(cx.ok(&Replay { r#do: "replay", end: End::Ok(view::Json(&result)), diverged }))
        }
        StepBegun::Failed { error, diverged } => {
            let spent = Payload::new(r#"{"message":"its retry budget was spent","failure":"exhausted"}"#);
            let error = error.unwrap_or(spent);
            Ok(cx.ok(&Replay { r#do: "replay", end: End::Error(view::Json(&error)), diverged }))
        }
        StepBegun::Parked { why, escalation } => Ok(cx.ok(&parked("do", why, &escalation))),
        StepBegun::Wait { after, unknown } => Err(not_yet(after, unknown)),
        StepBegun::InFlight { after } => Err(in_flight(after)),
        StepBegun::Mismatch => Err(mismatch()),
        StepBegun::Refused(why) => Err(may_not(why)),
        StepBegun::NoRun => Err(no_run()),
    }
}

/// How long the attempt may still go on, by this host's clock.
fn left(cx: &Cx, deadline: Wall, timeout: Duration) -> u64 {
    let left = u64::try_from(deadline.0.saturating_sub(cx.shared.clock.wall().0)).unwrap_or(0);
    left.min(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX))
}

impl Cx {
    /// Logs that a run waits for a person from now on.
    fn tell_parked(&self, run: &RunId, step: &str, why: EscalationKind, escalation: &Arc<str>) {
        let event = LogEvent::info("run_parked", "a run waits for a person");
        let event = event.with("run", run.as_str()).with("step", step).with("why", why.name());
        self.shared.telemetry.event(event.with("escalation", &**escalation));
    }
}

fn parked(field: &str, why: EscalationKind, escalation: &Arc<str>) -> Value {
    json!({ field: "parked", "why": why.name(), "escalation": view::escalation_link(escalation) })
}

#[derive(Serialize)]
struct Execute<'a> {
    r#do: &'static str,
    attempt: u32,
    epoch: i64,
    idempotency_key: String,
    deadline_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<view::Json<'a>>,
}

#[derive(Serialize)]
struct Verify<'a> {
    r#do: &'static str,
    attempt: u32,
    epoch: i64,
    idempotency_key: String,
    input: view::Json<'a>,
}

#[derive(Serialize)]
struct Replay<'a> {
    r#do: &'static str,
    #[serde(flatten)]
    end: End<'a>,
    diverged: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum End<'a> {
    Ok(view::Json<'a>),
    Error(view::Json<'a>),
}

/// How a worker says that an attempt or a verification ended.
struct Said {
    ended: Ended,
    payload: Payload,
}

/// `POST /v1/runs/{id}/steps/{key}/end`.
pub(super) async fn end(
    cx: &Cx,
    id: &RunId,
    key: Arc<str>,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Response<ReplyBody>, Denial> {
    let known = [
        "epoch", "attempt", "ok", "error", "unknown", "absent", "review", "cost_usd", "scope", "key", "lease_s",
        "question",
    ];
    let (fields, _held) = Fields::of(&cx.shared, &cx.live, headers, body, &known).await?;
    let at = Where::of(cx, id, key.clone(), &fields)?;
    let Said { ended, payload } = said(&fields)?;
    let question: Option<String> = fields.maybe("question", "a text")?;
    let question = question.unwrap_or_else(|| format!("Step `{key}` cannot go on by itself. What shall become of it?"));
    let command = EndStep {
        place: at.place,
        epoch: fields.must_epoch()?,
        attempt: fields.must("attempt", "the attempt's number, as `begin` gave it")?,
        ended,
        payload,
        cost: fields.usd("cost_usd")?.unwrap_or_default(),
        lease: fields.secs("lease_s", 1.0, LEASE_MAX_S)?.unwrap_or(LEASE),
        if_parked: cx.if_parked(question)?,
    };
    let ended = cx.stored(cx.shared.store.end_step(command)).await?;
    failpoint::pass("ledger.outcome");
    cx.shared.telemetry.metrics().runs.step_ended(&ended);
    if let StepEnded::Parked { why, escalation } = &ended {
        cx.tell_parked(id, &key, *why, escalation);
    }
    let millis = |after: Duration| u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    match ended {
        StepEnded::Done => Ok(cx.ok(&json!({ "step": "done" }))),
        StepEnded::Failed => Ok(cx.ok(&json!({ "step": "failed" }))),
        StepEnded::Again { after } => Ok(cx.ok(&json!({ "step": "again", "after_ms": millis(after) }))),
        StepEnded::Unknown { after } => Ok(cx.ok(&json!({ "step": "unknown", "after_ms": millis(after) }))),
        StepEnded::Parked { why, escalation } => Ok(cx.ok(&parked("step", why, &escalation))),
        StepEnded::Stale => {
            cx.view(&cx.run(id)).await?;
            Err(lost())
        }
    }
}

fn said(fields: &Fields) -> Result<Said, Denial> {
    let ways = ["ok", "error", "unknown", "absent", "review"];
    let given: Vec<&str> = ways.into_iter().filter(|way| fields.has(way)).collect();
    match given[..] {
        ["ok"] => Ok(Said { ended: Ended::Done, payload: fields.payload("ok")?.unwrap_or_default() }),
        ["error"] => failed(fields),
        ["unknown"] => Ok(Said { ended: Ended::Unknown, payload: fields.payload("unknown")?.unwrap_or_default() }),
        ["absent"] if fields.flag("absent")? => {
            Ok(Said { ended: Ended::Failed(Proof::Again { after: Duration::ZERO }), payload: Payload::default() })
        }
        ["review"] => review(fields),
        _ => Err(bad("ok", "Say how it ended with one of `ok`, `error`, `unknown`, `absent` (true) and `review`.")),
    }
}

fn failed(fields: &Fields) -> Result<Said, Denial> {
    let missing = || bad("error", "`error` must be an object with a `message`.");
    let error: SaidError = fields.nested("error")?.ok_or_else(missing)?;
    let after = error.retry_after_s.map(|after| after.clamp(0.0, 31.0 * 86_400.0));
    let ended = match (error.r#final, after) {
        (true, _) => Ended::Failed(Proof::Final),
        // The receiver asked for patience, so it did nothing.
        (false, Some(after)) => Ended::Failed(Proof::Again { after: Duration::from_secs_f64(after) }),
        (false, None) if !error.sent => Ended::Failed(Proof::Again { after: Duration::ZERO }),
        // No proof. Of a pure step that is as good as one.
        (false, None) => Ended::Unknown,
    };
    Ok(Said { ended, payload: fields.payload("error")?.unwrap_or_default() })
}

fn review(fields: &Fields) -> Result<Said, Denial> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Review {
        why: String,
        #[serde(default)]
        output: Option<Box<RawValue>>,
    }
    let what =
        || bad("review", "`review` must be an object: {\"why\": \"low_confidence\" or \"human\", \"output\": ANY}.");
    let review: Review = fields.nested("review")?.ok_or_else(what)?;
    let why = match review.why.as_str() {
        "low_confidence" => EscalationKind::LowConfidence,
        "human" => EscalationKind::Human,
        _ => return Err(what()),
    };
    let output = review.output.map_or_else(|| "null".to_owned(), |output| output.get().to_owned());
    Ok(Said { ended: Ended::Review(why), payload: Payload::new(output) })
}
