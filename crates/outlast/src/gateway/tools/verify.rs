//! What became of an effect that nobody answered for: the receiver is asked, by the next call of the same effect or,
//! when none comes, by a task of this process.

use super::{
    super::{Shared, live::Live, store::PATIENCE},
    ToolError,
    approval::Asking,
    attempt::{self, Errand, Outcome},
    http,
    ledger::{Claim, Decision, End, Kept, end_place, pointer},
};
use crate::{
    clock,
    config::{Tool, Verify},
    telemetry::LogEvent,
};
use outlast_engine::run::Proof;
use outlast_model::{
    TenantId, ToolName,
    policy::{HttpMethod, VerifyBy},
    run::EffectClass,
};
use outlast_store::{ClaimUnknown, Place, StepEnded, UnknownEffect};
use outlast_wire::template::Facts;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// How often the ledger is looked through for what nobody looks after.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Effects claimed at one time.
const BATCH: u32 = 16;
/// How long a question to a receiver may take, whatever its tool's timeout is.
const QUESTION_MAX: Duration = Duration::from_secs(20);

/// Asks the receiver: it took place, it did not, or nobody can tell.
pub(super) async fn ask(
    shared: &Arc<Shared>,
    live: &Live,
    tool: &Tool,
    arguments: &Value,
    key: &str,
    tenant: &TenantId,
) -> Outcome {
    let unclear = |why: String| Outcome::Unknown(ToolError::new("unverified", why));
    let (Some(hook), Some(spec)) = (&tool.verify, &tool.spec.verify) else {
        return unclear("Nothing says how to ask whether it took place.".into());
    };
    let question = match question(hook, arguments, key) {
        Ok(question) => question,
        Err(why) => return unclear(format!("The question cannot be put: {why}.")),
    };
    let answered = match &spec.by {
        VerifyBy::Http { method } => ask_http(hook, *method, &question, key, tool.spec.timeout).await,
        VerifyBy::Tool(name) => match live.config.tool(name.as_str()) {
            Some(asked) => ask_tool(shared, live, asked, &question, tenant).await,
            None => Answered::Unclear("the tool that is to be asked is not configured".into()),
        },
    };
    match answered {
        Answered::Response(response) => judge(hook, response, arguments, key),
        Answered::Absent => absent(),
        Answered::Unclear(why) => unclear(format!("The receiver could not be asked: {why}.")),
    }
}

enum Answered {
    Response(Value),
    Absent,
    Unclear(String),
}

fn question(hook: &Verify, arguments: &Value, key: &str) -> Result<Value, String> {
    let facts = json!({ "key": key, "arguments": arguments });
    match &hook.input {
        Some(shape) => shape.fill(&Facts::of(&facts)),
        None => Ok(facts),
    }
}

async fn ask_http(hook: &Verify, method: HttpMethod, question: &Value, key: &str, timeout: Duration) -> Answered {
    let Some(at) = &hook.http else { return Answered::Unclear("it has no address".into()) };
    let mut request = match http::request(at, method, question) {
        Ok(request) => request,
        Err(error) => return Answered::Unclear(error.message),
    };
    if let Ok(key) = ::http::HeaderValue::from_str(key) {
        request.headers_mut().insert("x-outlast-verify", key);
    }
    match http::exchange(at, request, timeout.min(QUESTION_MAX)).await {
        Ok(answer) if answer.status == ::http::StatusCode::NOT_FOUND => Answered::Absent,
        Ok(answer) => match http::judge(&answer, EffectClass::Pure) {
            Outcome::Done(response) => Answered::Response(response),
            Outcome::Failed { error, .. } | Outcome::Unknown(error) => Answered::Unclear(error.message),
        },
        Err(_) => Answered::Unclear("it did not answer".into()),
    }
}

async fn ask_tool(shared: &Arc<Shared>, live: &Live, asked: &Tool, question: &Value, tenant: &TenantId) -> Answered {
    let errand = Errand {
        tenant,
        tool: asked,
        class: EffectClass::Pure,
        arguments: question,
        key: None,
        epoch: None,
        attempt: 1,
        timeout: asked.spec.timeout.min(QUESTION_MAX),
        traceparent: None,
    };
    match Box::pin(attempt::send(shared, live, &errand)).await {
        Outcome::Done(response) => Answered::Response(response),
        Outcome::Failed { error, .. } if error.code.as_deref() == Some("http_404") => Answered::Absent,
        Outcome::Failed { error, .. } | Outcome::Unknown(error) => Answered::Unclear(error.message),
    }
}

fn judge(hook: &Verify, response: Value, arguments: &Value, key: &str) -> Outcome {
    let unclear = |why: String| {
        let message = format!("The receiver's answer does not tell whether it took place: {why}.");
        Outcome::Unknown(ToolError::new("unverified", message))
    };
    let facts = Facts::of(&json!({ "response": response, "arguments": arguments, "key": key }));
    match hook.done.holds_of(&facts) {
        Ok(false) => absent(),
        Ok(true) => match &hook.result {
            None => Outcome::Done(response),
            Some(result) => match result.value(&facts) {
                Ok(result) => Outcome::Done(result),
                Err(why) => unclear(why),
            },
        },
        Err(why) => unclear(why),
    }
}

fn absent() -> Outcome {
    let error = ToolError::new("absent", "The receiver knows nothing of it: it did not take place.");
    Outcome::Failed { error, proof: Proof::Again { after: Duration::ZERO }, fault: false }
}

/// Looks after effects of unknown outcome that nobody asks for any more, until aborted.
pub(in super::super) async fn look_after(shared: Arc<Shared>) {
    loop {
        let jitter = Duration::from_millis(shared.clock.seed() % 500);
        clock::sleep(LOOK_EVERY + jitter).await;
        while claim(&shared).await == BATCH as usize {}
    }
}

/// Claims some and asks about each; how many.
async fn claim(shared: &Arc<Shared>) -> usize {
    let live = shared.live();
    if live.config.tools.is_empty() {
        return 0;
    }
    let answer_within = live.config.escalations.answer_within;
    let nobody = Asking::of_name(ToolName::new("an effect"), answer_within);
    // Longer than the question may take: it is not renewed.
    let lease = QUESTION_MAX + PATIENCE;
    let question = "It may have taken place, and nobody can tell. Did it?";
    let if_parked = (0..BATCH).map(|_| nobody.if_parked(shared, Some(question))).collect();
    let claim = ClaimUnknown { lease, limit: BATCH, if_parked };
    let claimed = shared.stored(shared.store.claim_unknown(claim)).await.unwrap_or_default();
    let count = claimed.len();
    let mut asking = tokio::task::JoinSet::new();
    for effect in claimed {
        let (shared, live) = (shared.clone(), live.clone());
        asking.spawn(async move { look_into(&shared, &live, &effect).await });
    }
    while asking.join_next().await.is_some() {}
    count
}

async fn look_into(shared: &Arc<Shared>, live: &Live, effect: &UnknownEffect) {
    let UnknownEffect { place, epoch, attempt, name, input } = effect;
    let (epoch, attempt) = (*epoch, *attempt);
    let view = shared.stored(shared.store.step(place.clone())).await.ok().flatten();
    let decision = Decision::read(view.as_ref().and_then(|view| view.decision.as_ref()));
    let kept = serde_json::from_slice::<Kept>(input.as_bytes()).ok();
    let first = kept.as_ref().map_or_else(|| ToolName::new(name.clone()), |kept| kept.tool.clone());
    let whom = decision.whom(view.as_ref().and_then(pointer), &first);
    let tenant = match place {
        Place::Step { run, .. } => &run.tenant,
        Place::Effect { tenant, .. } => tenant,
    };
    let key = super::idempotency_key(place);
    let answer_within = live.config.escalations.answer_within;
    let (outcome, asking) = match (live.config.tool(whom.as_str()), kept) {
        (Some(tool), Some(kept)) => {
            let arguments = decision.arguments.as_ref().unwrap_or(&kept.arguments);
            let outcome = ask(shared, live, tool, arguments, &key, tenant).await;
            (outcome, Asking::about(tool, arguments, &key, answer_within))
        }
        // A program's own step, or a tool that is not configured any more.
        (Some(_) | None, _) => {
            let error = ToolError::new("unverified", "Nobody here can ask whether it took place.");
            (Outcome::Unknown(error), Asking::of_name(whom.clone(), answer_within))
        }
    };
    let result = outcome.name();
    let end = match (&outcome, live.config.tool(whom.as_str())) {
        (Outcome::Done(result), Some(tool))
            if tool.output.as_ref().is_some_and(|schema| schema.keeps(result).is_err()) =>
        {
            End::review(result)
        }
        (Outcome::Done(_) | Outcome::Failed { .. } | Outcome::Unknown(_), _) => {
            End::of(&outcome.named(&whom), decision.then(whom.clone()))
        }
    };
    let lease = Duration::from_secs(1);
    let ended = end_place(shared, place, Claim { epoch, attempt }, end, lease, &asking).await;
    let event = LogEvent::info("effect_verified", "an effect of unknown outcome was looked into");
    let parked = matches!(ended, Ok(StepEnded::Parked { .. }));
    shared.telemetry.event(event.with("tool", whom.to_string()).with("result", result).with("parked", parked));
    shared.telemetry.metrics().tools.verified(&whom, result);
}
