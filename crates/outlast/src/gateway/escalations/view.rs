//! What is shown of an escalation.

use super::super::store::shown;
use outlast_engine::run::{Brings, brings};
use outlast_model::Wall;
use outlast_store::{Decision, Escalation, EscalationState, EscalationSummary, Origin, Payload};
use serde_json::{Value, json};
use std::{fmt::Write, time::Duration};

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn at(time: Wall) -> String {
    shown(time, Duration::ZERO)
}

/// A payload as the JSON it is; `null` if there is none.
pub(super) fn json_of(payload: &Payload) -> Value {
    serde_json::from_slice(payload.as_bytes()).unwrap_or(Value::Null)
}

/// An escalation in a list.
pub(crate) fn summary(escalation: &EscalationSummary) -> Value {
    let EscalationSummary { id, tenant, kind, origin, question, shown: seen, level, opened_at, answer_by, decided } =
        escalation;
    let mut shown = json!({ "id": id, "tenant": tenant, "kind": kind });
    match origin {
        Origin::Call { route, request_id, failure } => {
            shown["route"] = json!(route);
            shown["request_id"] = json!(request_id);
            shown["failure"] = json!(failure);
        }
        Origin::Work { run, step, effect } => {
            shown["run"] = json!(run);
            shown["step"] = json!(step);
            let effect = effect.as_ref().map(|(scope, key)| json!({ "scope": scope, "key": key }));
            shown["effect"] = json!(effect);
        }
    }
    shown["question"] = json!(question);
    shown["state"] = json!(if decided.is_some() { "decided" } else { "open" });
    shown["shown"] = json!(hex(seen));
    shown["choices"] = json!(kind.choices());
    shown["levels_told"] = json!(level.unwrap_or(0));
    shown["opened_at"] = json!(at(*opened_at));
    shown["answer_by"] = json!(answer_by.map(at));
    shown["decided_at"] = json!(decided.map(|(when, _)| at(when)));
    shown["verb"] = json!(decided.map(|(_, verb)| verb));
    shown
}

/// What its caller sees of it; whoever decides, and the operator, sees the context and what the choices take, too.
pub(crate) fn whole(escalation: &Escalation, may_decide: bool) -> Value {
    let mut shown = summary(&escalation.summary);
    if let EscalationState::Decided(first) = &escalation.state {
        shown["decision"] = decision(first);
    }
    if !may_decide {
        if let Some(fields) = shown.as_object_mut() {
            for field in ["tenant", "shown", "choices", "levels_told"] {
                fields.remove(field);
            }
        }
        return shown;
    }
    let kind = escalation.summary.kind;
    let takes = kind.choices().iter().filter_map(|verb| Some((verb.name(), takes(brings(kind, *verb))?)));
    shown["takes"] =
        takes.map(|(verb, takes)| (verb.to_owned(), json!(takes))).collect::<serde_json::Map<_, _>>().into();
    shown["fingerprint"] = json!(hex(&escalation.fingerprint));
    shown["attempts"] = json!(escalation.attempts);
    shown["context"] = json_of(&escalation.payload);
    shown
}

/// Which field of the request a decision takes.
fn takes(brings: Brings) -> Option<&'static str> {
    match brings {
        Brings::Nothing => None,
        Brings::Output => Some("output"),
        Brings::Arguments => Some("arguments"),
        Brings::Result => Some("result"),
        Brings::TargetOrTool => Some("target or tool"),
    }
}

/// A decision, with what it was decided with.
pub(crate) fn decision(decision: &Decision) -> Value {
    let mut shown = json!({ "verb": decision.verb, "by": decision.by, "at": at(decision.at) });
    if let (Some(fields), Value::Object(said)) = (shown.as_object_mut(), json_of(&decision.decision)) {
        for (name, value) in said {
            fields.entry(name).or_insert(value);
        }
    }
    shown
}
