//! What is asked, whether it may be, whether it was done before, and how long it is tried.

use super::{
    super::{Shared, live::Live},
    By, Denied, Performed, ToolCall, ToolError,
    approval::{self, Asking},
    attempt::{self, Errand, Outcome},
    ledger::{Claim, Decision, End, Entry, pointer},
    verify,
};
use crate::{clock, config::Tool, failpoint, telemetry::LogEvent};
use ::http::HeaderValue;
use outlast_engine::run::Proof;
use outlast_model::{
    TenantId, ToolName,
    policy::{ToolMode, ToolSpec},
    run::{EffectClass, LedgerState, StepKind},
};
use outlast_store::{Payload, Place, StepBegun, StepEnded, StepView, StoreError};
use serde_json::Value;
use std::{sync::Arc, time::Duration};

/// When to come again while there is no room for another attempt.
const NO_ROOM: Duration = Duration::from_secs(1);

/// Calls a tool, or says what became of the same call before. Dropping it gives up the answer; an attempt under way goes
/// on to its end, which is written down.
pub(crate) async fn perform(shared: &Arc<Shared>, live: &Arc<Live>, call: ToolCall) -> Performed {
    let performed = match judge(live, call) {
        Ok(Asked::Written(job)) => written(shared, live, *job).await,
        Ok(Asked::Alone(lone)) => alone(shared, live, &lone).await,
        Err((name, denied)) => {
            if denied != Denied::NoSuchTool {
                shared.telemetry.metrics().tools.call(&name, "denied");
            }
            return Performed::Denied(denied);
        }
    };
    let (name, performed) = performed;
    shared.telemetry.metrics().tools.call(&name, performed.name());
    tell(shared, &name, &performed);
    performed
}

/// What an operator may want to know of: a call that waits for a person, failed for good or may have happened.
fn tell(shared: &Shared, name: &ToolName, performed: &Performed) {
    let event = match performed {
        Performed::Parked { why, escalation } => {
            let event = LogEvent::warn("tool_parked", "a tool's call waits for a person");
            event.with("why", why.name()).with("escalation", escalation.to_string())
        }
        Performed::Failed { error, replayed: false } => {
            let event = LogEvent::warn("tool_failed", "a tool's call failed for good");
            event.with("code", error.code.as_deref().unwrap_or_default().to_owned())
        }
        Performed::Wait { unknown: true, error: Some(error), .. } => {
            let event = LogEvent::warn("tool_unknown", "nobody knows yet whether a tool's call took place");
            event.with("code", error.code.as_deref().unwrap_or_default().to_owned())
        }
        Performed::Done { .. }
        | Performed::Failed { replayed: true, .. }
        | Performed::Wait { .. }
        | Performed::InFlight { .. }
        | Performed::Mismatch
        | Performed::Refused(_)
        | Performed::NoRun
        | Performed::Denied(_)
        | Performed::Down(_) => return,
    };
    shared.telemetry.event(event.with("tool", name.to_string()));
}

/// What is to be done.
enum Asked {
    /// With an entry of the ledger.
    Written(Box<Job>),
    /// Without one.
    Alone(Box<Lone>),
}

/// A pure call that nothing names: it is done, and forgotten.
struct Lone {
    tools: Vec<Arc<Tool>>,
    call: ToolCall,
}

/// A call with an entry of the ledger.
struct Job {
    /// The tool that was asked for, then its alternatives. Not empty.
    tools: Vec<Arc<Tool>>,
    entry: Entry,
    tenant: TenantId,
    traceparent: Option<HeaderValue>,
    patience: Duration,
}

/// Whether it may be called, before anything is written down.
fn judge(live: &Live, call: ToolCall) -> Result<Asked, (ToolName, Denied)> {
    let denied = |denied| Err((call.tool.clone(), denied));
    let Some(tool) = live.config.tool(call.tool.as_str()) else { return denied(Denied::NoSuchTool) };
    if !allows(call.mode, &tool.spec) {
        return denied(Denied::Mode(call.mode));
    }
    if let Some(Err(problems)) = tool.input.as_ref().map(|schema| schema.keeps(&call.arguments)) {
        return denied(Denied::Arguments(problems));
    }
    let others = tool.spec.alternatives.iter().filter_map(|name| live.config.tool(name.as_str()));
    let tools: Vec<_> = [tool].into_iter().chain(others).cloned().collect();
    let needs_approval = approval::needed(tool, &call.arguments);
    let Some(place) = place(&call) else {
        return match tool.spec.class.is_effect() || needs_approval {
            true => denied(Denied::NoKey),
            false => Ok(Asked::Alone(Box::new(Lone { tools, call }))),
        };
    };
    let answer_within = live.config.escalations.answer_within;
    let asking = Asking::about(tool, &call.arguments, &super::idempotency_key(&place), answer_within);
    let timeouts = tools.iter().map(|tool| tool.spec.timeout);
    let class = class(&tool.spec);
    let (journal, fence) = match &call.by {
        By::Step { run, key, epoch, business } => {
            (business.as_ref().map(|_| (run.clone(), key.clone())), epoch.map(|epoch| (run.clone(), epoch)))
        }
        By::Standalone { .. } => (None, None),
    };
    let entry = Entry {
        fingerprint: fingerprint(&tool.spec.name, &call.arguments),
        place,
        journal,
        fence,
        kind: if call.undoes.is_some() { StepKind::Undo } else { StepKind::Tool },
        tool: tool.spec.name.clone(),
        class,
        budget: call.retry.unwrap_or(tool.spec.retry),
        // Of an effect one tool is asked in an attempt, of what changes nothing one after the other.
        timeout: if class.is_effect() { timeouts.max().unwrap_or_default() } else { timeouts.sum() },
        arguments: call.arguments,
        needs_approval,
        undo: call.undo,
        undoes: call.undoes,
        asking,
    };
    let ToolCall { tenant, traceparent, patience, .. } = call;
    Ok(Asked::Written(Box::new(Job { tools, entry, tenant, traceparent, patience })))
}

fn allows(mode: ToolMode, spec: &ToolSpec) -> bool {
    match mode {
        ToolMode::Full => true,
        ToolMode::ReadOnly => spec.read_only || !spec.class.is_effect(),
        ToolMode::PlanOnly | ToolMode::None => false,
    }
}

/// The class an entry is kept with. What a worker does it does as a run that is started once under the effect's key:
/// asking again finds the same run, so that any effect is as good as in a transaction with its key.
fn class(spec: &ToolSpec) -> EffectClass {
    match spec.kind {
        outlast_model::policy::ToolKind::Worker { .. } if spec.class.is_effect() => EffectClass::Tx,
        outlast_model::policy::ToolKind::Worker { .. }
        | outlast_model::policy::ToolKind::Http { .. }
        | outlast_model::policy::ToolKind::Mcp { .. } => spec.class,
    }
}

fn place(call: &ToolCall) -> Option<Place> {
    let effect = |key: &Arc<str>| Place::Effect {
        tenant: call.tenant.clone(),
        scope: call.tool.as_str().into(),
        key: key.clone(),
    };
    match &call.by {
        By::Standalone { key } => key.as_ref().map(effect),
        By::Step { business: Some(key), .. } => Some(effect(key)),
        By::Step { run, key, business: None, .. } => Some(Place::Step { run: run.clone(), key: key.clone() }),
    }
}

/// What is asked: the tool and its arguments, however their fields are ordered.
fn fingerprint(tool: &ToolName, arguments: &Value) -> [u8; 32] {
    fn absorb(hash: &mut blake3::Hasher, value: &Value) {
        match value {
            Value::Object(fields) => {
                let mut fields: Vec<_> = fields.iter().collect();
                fields.sort_unstable_by_key(|(name, _)| *name);
                hash.update(b"{").update(&(fields.len() as u64).to_le_bytes());
                for (name, value) in fields {
                    hash.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
                    absorb(hash, value);
                }
            }
            Value::Array(items) => {
                hash.update(b"[").update(&(items.len() as u64).to_le_bytes());
                items.iter().for_each(|item| absorb(hash, item));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                let text = value.to_string();
                hash.update(b"=").update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
            }
        }
    }
    let mut hash = blake3::Hasher::new();
    hash.update(b"tool\0").update(tool.as_str().as_bytes()).update(&[0]);
    absorb(&mut hash, arguments);
    *hash.finalize().as_bytes()
}

/// What one look at an entry came to.
enum Round {
    Over(Performed),
    /// It is to be looked at again after this.
    Pause {
        after: Duration,
        unknown: bool,
        error: Option<ToolError>,
    },
}

/// Looks at the entry, and tries, until it is over or the next look is too far away.
async fn written(shared: &Arc<Shared>, live: &Arc<Live>, job: Job) -> (ToolName, Performed) {
    let name = job.entry.tool.clone();
    let mut patience = job.patience;
    let job = Arc::new(job);
    loop {
        let Some(permit) = shared.tools.room() else {
            return (name, Performed::Wait { after: NO_ROOM, unknown: false, error: None });
        };
        let round = round(shared.clone(), live.clone(), job.clone());
        let round = match shared.tools.go(permit, round).await {
            Ok(Ok(round)) => round,
            Ok(Err(error)) => Round::Over(Performed::Down(error)),
            // It was cut off or has panicked: what the entry says is what is known.
            Err(_) => Round::Over(Performed::Down(StoreError::Unknown { place: "tool".into() })),
        };
        match round {
            Round::Over(performed) => return (name, performed),
            Round::Pause { after, unknown, error } => {
                if after > patience {
                    return (name, Performed::Wait { after, unknown, error });
                }
                patience -= after;
                clock::sleep(after).await;
            }
        }
    }
}

/// One look: it was done, it is done now, or not yet.
async fn round(shared: Arc<Shared>, live: Arc<Live>, job: Arc<Job>) -> Result<Round, StoreError> {
    let entry = &job.entry;
    let before = entry.view(&shared).await?;
    let cx = Cx { shared: &shared, live: &live, job: &job, before: before.as_ref() };
    if let Some(pause) = cx.nobody_to_ask() {
        return Ok(pause);
    }
    Ok(Round::Over(match entry.begin(&shared).await? {
        StepBegun::Execute { attempt, epoch, deadline, decision } => {
            let claim = Claim { epoch, attempt };
            // Somebody was at it between the look and the begin: who was asked last stands in the entry as it is now.
            let moved = attempt > 1 && before.as_ref().is_none_or(|view| view.attempts + 1 != attempt);
            let before = if moved { entry.view(&shared).await? } else { before.clone() };
            let cx = Cx { before: before.as_ref(), ..cx };
            return cx.execute(claim, deadline, &Decision::read(decision.as_ref())).await;
        }
        StepBegun::Verify { attempt, epoch, input: _ } => return cx.verify(Claim { epoch, attempt }).await,
        StepBegun::Done { result, diverged: _ } => Performed::Done { result, replayed: true, tool: None, attempts: 0 },
        StepBegun::Failed { error, diverged: _ } => {
            let error = match error.filter(|error| !error.is_empty()) {
                Some(kept) => ToolError::read(kept.as_bytes()),
                None => ToolError::new("exhausted", "Every try that its budget allows has failed."),
            };
            Performed::Failed { error, replayed: true }
        }
        StepBegun::Wait { after, unknown } => return Ok(Round::Pause { after, unknown, error: cx.last_error() }),
        StepBegun::InFlight { after } => Performed::InFlight { after },
        StepBegun::Parked { why, escalation } => Performed::Parked { why, escalation },
        StepBegun::Mismatch => Performed::Mismatch,
        StepBegun::Refused(why) => Performed::Refused(why),
        StepBegun::NoRun => Performed::NoRun,
    }))
}

/// What a round needs.
struct Cx<'a> {
    shared: &'a Arc<Shared>,
    live: &'a Live,
    job: &'a Job,
    /// The entry before this round.
    before: Option<&'a StepView>,
}

impl Cx<'_> {
    /// With every breaker open nothing is begun, so that no try of the budget is spent on it. What is over is still told,
    /// and what may have happened is still verified.
    fn nobody_to_ask(&self) -> Option<Round> {
        let unknown = match self.before.map(|view| view.state) {
            None | Some(LedgerState::Absent) => false,
            Some(LedgerState::Intent | LedgerState::Unknown) => match self.job.entry.class {
                EffectClass::Verify { .. } | EffectClass::Once => return None,
                EffectClass::Pure | EffectClass::Tx | EffectClass::Keyed { .. } => true,
            },
            Some(LedgerState::Verifying | LedgerState::Done | LedgerState::FailedFinal | LedgerState::Parked) => {
                return None;
            }
        };
        let now = self.shared.clock.mono();
        let open = |tool: &Arc<Tool>| self.shared.tools.health.is_open(&tool.spec.name, now);
        let waits: Option<Vec<Duration>> = self.job.tools.iter().map(open).collect();
        Some(Round::Pause { after: waits?.into_iter().min()?, unknown, error: Some(resting()) })
    }

    fn last_error(&self) -> Option<ToolError> {
        let view = self.before.filter(|view| !view.payload.is_empty())?;
        Some(ToolError::read(view.payload.as_bytes()))
    }

    /// Whether it is known that no attempt before this one took place.
    fn is_clean(&self, claim: Claim) -> bool {
        let absent = |view: &StepView| view.state == LedgerState::Absent && view.attempts + 1 == claim.attempt;
        claim.attempt == 1 || self.before.is_some_and(absent)
    }

    fn tool(&self, name: &ToolName) -> Option<&Arc<Tool>> {
        let known = self.job.tools.iter().find(|tool| tool.spec.name == *name);
        // A person may name another one of the same class.
        let like = |tool: &&Arc<Tool>| std::mem::discriminant(&tool.spec.class) == self.discriminant();
        known.or_else(|| self.live.config.tool(name.as_str()).filter(like))
    }

    fn discriminant(&self) -> std::mem::Discriminant<EffectClass> {
        std::mem::discriminant(&self.job.tools[0].spec.class)
    }

    async fn execute(
        &self,
        claim: Claim,
        deadline: outlast_model::Wall,
        decision: &Decision,
    ) -> Result<Round, StoreError> {
        let Job { entry, tools, .. } = self.job;
        let name = decision.whom(self.before.and_then(pointer), &tools[0].spec.name);
        let first = self.tool(&name).unwrap_or(&tools[0]).clone();
        let arguments = decision.arguments.as_ref().unwrap_or(&entry.arguments);
        let clean = self.is_clean(claim);
        let working = async {
            if self.shared.clock.wall() >= deadline {
                let error = ToolError::new("late", "The time of this attempt was over before anything was sent.");
                let proof = Proof::Again { after: Duration::ZERO };
                return (first.clone(), Outcome::Failed { error, proof, fault: false });
            }
            if entry.class.is_effect() {
                (first.clone(), self.send_effect(&first, arguments, claim).await)
            } else {
                self.send_pure(&first, arguments, claim).await
            }
        };
        let (who, outcome) = entry.holding(self.shared, claim, working).await;
        failpoint::pass("tool.sent");
        self.settle(claim, &who, outcome, clean, decision).await
    }

    /// Sends an effect to the tool whose turn it is, unless that rests.
    async fn send_effect(&self, tool: &Arc<Tool>, arguments: &Value, claim: Claim) -> Outcome {
        if let Some(Err(problems)) = tool.input.as_ref().map(|schema| schema.keeps(arguments)) {
            // A person's own arguments: the call's have been judged.
            let message = format!("These arguments break the tool's schema: {}.", problems.join("; "));
            return Outcome::refused(ToolError::new("arguments", message));
        }
        let now = self.shared.clock.mono();
        match self.shared.tools.health.admit(&tool.spec.name, tool.spec.timeout, now) {
            Ok(()) => self.send(tool, arguments, claim).await,
            Err(after) => Outcome::Failed { error: resting(), proof: Proof::Again { after }, fault: false },
        }
    }

    /// Asks one after the other until one answers: nothing is lost by it.
    async fn send_pure(&self, first: &Arc<Tool>, arguments: &Value, claim: Claim) -> (Arc<Tool>, Outcome) {
        let mut last = None;
        for tool in turns(&self.job.tools, first) {
            let now = self.shared.clock.mono();
            if let Err(after) = self.shared.tools.health.admit(&tool.spec.name, tool.spec.timeout, now) {
                let outcome = Outcome::Failed { error: resting(), proof: Proof::Again { after }, fault: false };
                last.get_or_insert((tool.clone(), outcome));
                continue;
            }
            let outcome = valid(tool, self.send(tool, arguments, claim).await);
            if outcome.is_an_answer() {
                return (tool.clone(), outcome);
            }
            last = Some((tool.clone(), outcome));
        }
        last.unwrap_or_else(|| (first.clone(), Outcome::away(resting())))
    }

    async fn send(&self, tool: &Arc<Tool>, arguments: &Value, claim: Claim) -> Outcome {
        let key = self.job.entry.key();
        let errand = Errand {
            tenant: &self.job.tenant,
            tool,
            class: self.job.entry.class,
            arguments,
            key: Some(&key),
            epoch: Some(claim.epoch.0),
            attempt: claim.attempt,
            timeout: tool.spec.timeout,
            traceparent: self.job.traceparent.as_ref(),
        };
        attempt::send(self.shared, self.live, &errand).await
    }

    /// Asks the receiver whether it took place.
    async fn verify(&self, claim: Claim) -> Result<Round, StoreError> {
        let Job { entry, tools, .. } = self.job;
        let decision = Decision::read(self.before.and_then(|view| view.decision.as_ref()));
        let name = decision.whom(self.before.and_then(pointer), &tools[0].spec.name);
        let tool = self.tool(&name).unwrap_or(&tools[0]);
        let arguments = decision.arguments.as_ref().unwrap_or(&entry.arguments);
        let key = entry.key();
        let asking = verify::ask(self.shared, self.live, tool, arguments, &key, &self.job.tenant);
        let outcome = entry.holding(self.shared, claim, asking).await;
        // The receiver has spoken for all attempts.
        self.settle(claim, &tool.clone(), outcome, true, &decision).await
    }

    /// Writes down what came of an attempt or a verification.
    async fn settle(
        &self,
        claim: Claim,
        who: &Arc<Tool>,
        outcome: Outcome,
        clean: bool,
        decision: &Decision,
    ) -> Result<Round, StoreError> {
        let Job { entry, .. } = self.job;
        let outcome = self.proven(outcome, clean).named(&who.spec.name);
        let next = decision.then(self.next(who, &outcome, decision));
        let end = match &outcome {
            Outcome::Done(result) if !keeps(who, result) => End::review(result),
            Outcome::Done(_) | Outcome::Failed { .. } | Outcome::Unknown(_) => End::of(&outcome, next),
        };
        let end = match entry.undoes {
            Some(_) => end.of_undo(claim.attempt >= entry.budget.attempts),
            None => end,
        };
        let payload = end.payload.clone();
        let ended = entry.end(self.shared, claim, end).await?;
        Ok(self.told(ended, claim, who, outcome, payload))
    }

    /// What an attempt proves of the effect as a whole: if an earlier one may have taken place, that this one did not is
    /// no proof.
    fn proven(&self, outcome: Outcome, clean: bool) -> Outcome {
        match outcome {
            Outcome::Failed { error, .. } if !clean && self.job.entry.class.is_effect() => Outcome::Unknown(error),
            Outcome::Done(_) | Outcome::Failed { .. } | Outcome::Unknown(_) => outcome,
        }
    }

    /// Whose turn it is after this. Another tool is asked for an effect only when it surely has not taken place.
    /// The one that a person named stays.
    fn next(&self, who: &Arc<Tool>, outcome: &Outcome, decision: &Decision) -> ToolName {
        let now = self.shared.clock.mono();
        match outcome {
            Outcome::Failed { proof: Proof::Again { .. }, .. } if decision.tool.is_none() => {
                let mut others = turns(&self.job.tools, who).skip(1);
                let rested = others.find(|tool| self.shared.tools.health.is_open(&tool.spec.name, now).is_none());
                rested.unwrap_or(who).spec.name.clone()
            }
            Outcome::Done(_) | Outcome::Failed { .. } | Outcome::Unknown(_) => who.spec.name.clone(),
        }
    }

    fn told(&self, ended: StepEnded, claim: Claim, who: &Arc<Tool>, outcome: Outcome, payload: Payload) -> Round {
        let error = match outcome {
            Outcome::Done(_) => None,
            Outcome::Failed { error, .. } | Outcome::Unknown(error) => Some(error),
        };
        match ended {
            StepEnded::Done => Round::Over(Performed::Done {
                result: payload,
                replayed: false,
                tool: Some(who.spec.name.clone()),
                attempts: claim.attempt,
            }),
            StepEnded::Failed => {
                let gone = || ToolError::new("error", "The tool failed.");
                Round::Over(Performed::Failed { error: error.unwrap_or_else(gone), replayed: false })
            }
            StepEnded::Again { after } => Round::Pause { after, unknown: false, error },
            StepEnded::Unknown { after } => Round::Pause { after, unknown: true, error },
            StepEnded::Parked { why, escalation } => Round::Over(Performed::Parked { why, escalation }),
            // Somebody else has begun it anew: what they come to is what it comes to.
            StepEnded::Stale => Round::Pause { after: Duration::ZERO, unknown: true, error },
        }
    }
}

/// The tools in their order, from this one on, then from the beginning.
fn turns<'a>(tools: &'a [Arc<Tool>], first: &'a Arc<Tool>) -> impl Iterator<Item = &'a Arc<Tool>> {
    let at = tools.iter().position(|tool| tool.spec.name == first.spec.name);
    let (before, from) = tools.split_at(at.unwrap_or(0));
    let outside = at.is_none().then_some(first);
    outside.into_iter().chain(from).chain(before)
}

/// Of a tool that changes nothing a result that breaks its schema is no answer.
fn valid(tool: &Tool, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Done(result) if !keeps(tool, &result) => {
            Outcome::away(ToolError::new("result_schema", "The tool's result breaks its schema."))
        }
        Outcome::Done(_) | Outcome::Failed { .. } | Outcome::Unknown(_) => outcome,
    }
}

fn keeps(tool: &Tool, result: &Value) -> bool {
    tool.output.as_ref().is_none_or(|schema| schema.keeps(result).is_ok())
}

fn resting() -> ToolError {
    ToolError::new("breaker_open", "The tool has failed too often in a row and is not asked for now.")
}

/// Calls a pure tool that nothing names.
async fn alone(shared: &Arc<Shared>, live: &Live, lone: &Lone) -> (ToolName, Performed) {
    let Lone { tools, call } = lone;
    let budget = call.retry.unwrap_or(tools[0].spec.retry);
    let mut patience = call.patience;
    let mut attempt = 0;
    let performed = loop {
        attempt += 1;
        let (who, outcome) = ask_all(shared, live, lone, attempt).await;
        let (error, after) = match outcome.named(&who.spec.name) {
            Outcome::Done(result) => {
                let result = Payload::from(serde_json::to_vec(&result).unwrap_or_default());
                let tool = Some(who.spec.name.clone());
                break Performed::Done { result, replayed: false, tool, attempts: attempt };
            }
            Outcome::Failed { error, proof: Proof::Final, .. } => {
                break Performed::Failed { error, replayed: false };
            }
            Outcome::Failed { error, proof: Proof::Again { after }, .. } => (error, after),
            Outcome::Unknown(error) => (error, Duration::ZERO),
        };
        if attempt >= budget.attempts {
            break Performed::Failed { error, replayed: false };
        }
        let step = budget.base.saturating_mul(1 << (attempt - 1).min(20)).min(budget.cap);
        let after = step.mul_f64(0.5 + (shared.clock.seed() % 1000) as f64 / 2000.0).max(after);
        if after > patience {
            break Performed::Wait { after, unknown: false, error: Some(error) };
        }
        patience -= after;
        clock::sleep(after).await;
    };
    (call.tool.clone(), performed)
}

async fn ask_all(shared: &Arc<Shared>, live: &Live, lone: &Lone, attempt: u32) -> (Arc<Tool>, Outcome) {
    let Lone { tools, call } = lone;
    let mut last = None;
    for tool in tools {
        let now = shared.clock.mono();
        if let Err(after) = shared.tools.health.admit(&tool.spec.name, tool.spec.timeout, now) {
            let outcome = Outcome::Failed { error: resting(), proof: Proof::Again { after }, fault: false };
            last.get_or_insert((tool.clone(), outcome));
            continue;
        }
        let errand = Errand {
            tenant: &call.tenant,
            tool,
            class: tool.spec.class,
            arguments: &call.arguments,
            key: None,
            epoch: None,
            attempt,
            timeout: tool.spec.timeout,
            traceparent: call.traceparent.as_ref(),
        };
        let outcome = valid(tool, attempt::send(shared, live, &errand).await);
        if outcome.is_an_answer() {
            return (tool.clone(), outcome);
        }
        last = Some((tool.clone(), outcome));
    }
    last.unwrap_or_else(|| (tools[0].clone(), Outcome::away(resting())))
}
