//! `POST /v1/escalations/{id}/decide`: a person decides, once, about what they were shown.

use super::super::{
    Shared,
    admin::Answer,
    intake,
    live::Live,
    serve::{Denial, presented_key, unread},
    store::down,
};
use super::{
    serve::{find, missing, reviewer},
    view, watch,
};
use crate::{
    config::{Reviewer, Tool},
    failpoint,
    telemetry::LogEvent,
};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use outlast_engine::run::{Brings, brings, resolve};
use outlast_model::{
    RequestId,
    policy::Dialect,
    run::{EscalationKind, StepKind, Verb},
};
use outlast_store::{DecideEscalation, Decided, Decision, EscalationSummary, Payload, StepView};
use outlast_wire::error::{self, Refused};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json, value::RawValue};
use std::sync::Arc;

/// The longest note, in characters.
const NOTE_MAX: usize = 4000;

/// What a reviewer sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    verb: Verb,
    shown: String,
    #[serde(default, deserialize_with = "present")]
    result: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "present")]
    output: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "present")]
    arguments: Option<Box<RawValue>>,
    target: Option<String>,
    tool: Option<String>,
    note: Option<String>,
}

/// `null` is a value, too: an effect may have none to show.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

fn bad(message: impl Into<String>) -> Denial {
    Denial::new(Refused::BadRequest, message)
}

/// Decides.
pub(super) async fn decide(
    shared: &Arc<Shared>,
    live: &Live,
    request_id: &RequestId,
    id: &str,
    request: Request<Incoming>,
) -> Result<Answer, Denial> {
    let (head, body) = request.into_parts();
    let by = match reviewer(live, &head.headers) {
        Some(reviewer) => reviewer,
        None => {
            intake::discard(&head.headers, body).await;
            return Err(stranger(live, presented_key(&head.headers)));
        }
    };
    let (body, _held) = intake::read(shared, &live.config.server, &head.headers, body).await.map_err(unread)?;
    let said: Said = serde_json::from_slice(&body).map_err(|error| {
        bad(format!("The body is no decision: {error}. Send `verb` and `shown`, as GET of the escalation gives them."))
    })?;
    let shown = unhex(&said.shown).ok_or_else(|| {
        bad("`shown` must be the 64 hexadecimal digits that GET of the escalation gives.").about("shown")
    })?;
    let escalation = find(shared, id).await?.summary;
    let step = waiting(shared, &escalation).await?;
    judge(live, &escalation, step.as_ref(), &said)?;
    let command = DecideEscalation {
        id: escalation.id.clone(),
        by: by.name.clone(),
        verb: said.verb,
        shown,
        result: result(&escalation, &said, &by),
        decision: payload(&decision(&said)),
    };
    let decided = shared.stored(shared.store.decide_escalation(command)).await.map_err(|error| down(&error))?;
    match decided {
        Decided::Stands => {
            failpoint::pass("escalation.decided");
            let event = LogEvent::info("escalation_decided", "a person decided");
            let event = watch::of(event, &escalation).with("verb", said.verb.name());
            shared.telemetry.event(event.with("by", by.name.to_string()));
            went_on(shared, &escalation).await;
            Ok(Answer::json(StatusCode::OK, view::whole(&find(shared, id).await?, false)))
        }
        Decided::Already(first) => Ok(already(&first, request_id)),
        Decided::Changed => {
            let message = "What you were shown is not what waits. GET the escalation again, look, and decide then.";
            Err(Denial::new(Refused::Changed, message).about("shown"))
        }
        Decided::NotOffered => Err(not_offered(escalation.kind)),
        Decided::Unknown => Err(missing()),
    }
}

fn stranger(live: &Live, key: Option<&str>) -> Denial {
    match key {
        _ if live.config.reviewers.is_empty() => {
            let message = "Nobody may decide here yet: the config names no `[reviewers.NAME]`.";
            Denial::new(Refused::Forbidden, message)
        }
        Some(_) => Denial::new(Refused::Forbidden, "This key is no reviewer's, and only reviewers decide."),
        None => {
            let message = "No key was sent. Send a reviewer's as `Authorization: Bearer KEY`.";
            Denial::new(Refused::Unauthorized, message)
        }
    }
}

fn not_offered(kind: EscalationKind) -> Denial {
    let choices: Vec<&str> = kind.choices().iter().map(|verb| verb.name()).collect();
    let message = format!("This cannot be decided so. The choices are: {}.", choices.join(", "));
    Denial::new(Refused::NotOffered, message).about("verb")
}

/// The 409 of a decision that came second, with the first.
fn already(first: &Decision, request_id: &RequestId) -> Answer {
    let message = format!("{} has decided: {}. That stands.", first.by, first.verb);
    let refused = error::refused(Dialect::OpenaiChat, Refused::AlreadyDecided, &message, None, request_id.as_str());
    let mut body: Value = serde_json::from_slice(&refused.body).unwrap_or(Value::Null);
    body["decision"] = view::decision(first);
    Answer::json(StatusCode::CONFLICT, body)
}

/// The step that waits, if one does.
async fn waiting(shared: &Shared, escalation: &EscalationSummary) -> Result<Option<StepView>, Denial> {
    let Some(place) = escalation.origin.place(&escalation.tenant) else { return Ok(None) };
    shared.stored(shared.store.step(place)).await.map_err(|error| down(&error))
}

/// Whether everything the verb takes is there, is allowed, and nothing else is.
fn judge(live: &Live, escalation: &EscalationSummary, step: Option<&StepView>, said: &Said) -> Result<(), Denial> {
    if resolve(escalation.kind, said.verb).is_none() {
        return Err(not_offered(escalation.kind));
    }
    let brings = brings(escalation.kind, said.verb);
    for (name, is_there, belongs) in [
        ("result", said.result.is_some(), brings == Brings::Result),
        ("output", said.output.is_some(), brings == Brings::Output),
        ("arguments", said.arguments.is_some(), brings == Brings::Arguments),
    ] {
        match (is_there, belongs) {
            (false, true) => {
                return Err(
                    bad(format!("`{}` needs `{name}`, as JSON; `null` if there is none.", said.verb)).about(name)
                );
            }
            (true, false) => return Err(bad(format!("`{}` takes no `{name}`.", said.verb)).about(name)),
            (true, true) | (false, false) => {}
        }
    }
    match (brings == Brings::TargetOrTool, &said.target, &said.tool) {
        (true, Some(target), None) => known_target(live, target)?,
        (true, None, Some(tool)) => known_tool(live, tool)?,
        (true, _, _) => return Err(bad("`choose` needs one of `target` and `tool`.")),
        (false, None, None) => {}
        (false, _, _) => return Err(bad(format!("`{}` takes neither `target` nor `tool`.", said.verb))),
    }
    if said.note.as_ref().is_some_and(|note| note.chars().count() > NOTE_MAX) {
        return Err(bad(format!("`note` is longer than {NOTE_MAX} characters.")).about("note"));
    }
    keeps_schema(live, step, said)
}

fn known_target(live: &Live, target: &str) -> Result<(), Denial> {
    if live.config.targets.iter().any(|known| known.id.to_string() == target) {
        return Ok(());
    }
    Err(bad("No target has that name. GET /v1/models lists them as `provider/model`.").about("target"))
}

fn known_tool(live: &Live, tool: &str) -> Result<(), Denial> {
    match live.config.tool(tool) {
        Some(_) => Ok(()),
        None => Err(bad("No tool has that name. GET /v1/tools lists them.").about("tool")),
    }
}

/// What a person puts in a tool's place has to be what the tool would have given, or been given.
fn keeps_schema(live: &Live, step: Option<&StepView>, said: &Said) -> Result<(), Denial> {
    let tool = step.filter(|step| step.kind == StepKind::Tool).and_then(|step| live.config.tool(&step.name));
    let Some(tool) = tool else { return Ok(()) };
    let Tool { input, output, .. } = &**tool;
    for (name, schema, given) in
        [("result", output, &said.result), ("output", output, &said.output), ("arguments", input, &said.arguments)]
    {
        let (Some(schema), Some(given)) = (schema, given) else { continue };
        let value: Value = serde_json::from_str(given.get()).map_err(|_| bad("It is no JSON.").about(name))?;
        schema.keeps(&value).map_err(|problems| {
            let message = format!("`{name}` does not keep the tool's schema: {}.", problems.join("; "));
            bad(message).about(name)
        })?;
    }
    Ok(())
}

/// What the step ends with; none where what it has stays, and where it is tried.
fn result(escalation: &EscalationSummary, said: &Said, by: &Reviewer) -> Option<Payload> {
    let given = match brings(escalation.kind, said.verb) {
        Brings::Output => said.output.as_ref(),
        Brings::Result => said.result.as_ref(),
        Brings::Nothing | Brings::Arguments | Brings::TargetOrTool => None,
    };
    if let Some(given) = given {
        return Some(Payload::from(given.get().as_bytes().to_vec()));
    }
    let refused = |code: &str, message: String| {
        let mut error = json!({ "message": message, "code": code });
        if let Some(note) = &said.note {
            error["note"] = json!(note);
        }
        Some(payload(&error))
    };
    match said.verb {
        Verb::Skip => Some(Payload::from(b"null".to_vec())),
        Verb::Deny => refused("denied", format!("Denied by {}.", by.name)),
        Verb::Cancel if escalation.kind == EscalationKind::UnknownEffect => {
            refused("cancelled", format!("Cancelled by {}; whether it took place was not decided.", by.name))
        }
        Verb::Cancel => refused("cancelled", format!("Cancelled by {}.", by.name)),
        Verb::Approve | Verb::Edit | Verb::Retry | Verb::Choose | Verb::Happened | Verb::DidNot => None,
    }
}

/// All that was said, but for who said it and when, which the store keeps.
fn decision(said: &Said) -> Value {
    let Said { verb, shown: _, result, output, arguments, target, tool, note } = said;
    let mut kept = Map::new();
    kept.insert("verb".into(), json!(verb));
    for (name, given) in [("result", result), ("output", output), ("arguments", arguments)] {
        if let Some(value) = given.as_ref().and_then(|given| serde_json::from_str(given.get()).ok()) {
            kept.insert(name.into(), value);
        }
    }
    for (name, given) in [("target", target), ("tool", tool), ("note", note)] {
        if let Some(text) = given {
            kept.insert(name.into(), json!(text));
        }
    }
    Value::Object(kept)
}

fn payload(value: &Value) -> Payload {
    Payload::from(value.to_string().into_bytes())
}

/// What waited can go on: whoever waits for it hears of that, and so do those who were told.
pub(super) async fn went_on(shared: &Shared, escalation: &EscalationSummary) {
    shared.people.told.notify_one();
    let Some(run) = escalation.origin.run(&escalation.tenant) else { return };
    if let Ok(Some(view)) = shared.stored(shared.store.run(run.clone())).await {
        if view.state.is_final() {
            shared.runs.ended(&run);
        }
        shared.runs.nudge(&view.queue);
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}
