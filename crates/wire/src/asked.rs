//! What a request tells Outlast itself, the `outlast` object, and what templates and rules may look at.

use crate::{
    Inbound, RequestError,
    json::{Fields, Str},
};
use outlast_model::{
    Usd,
    record::WorkflowState,
    turn::{Part, Role},
};
use serde_json::{Value, value::RawValue};
use std::collections::HashSet;

/// The most sources of one request.
pub const SOURCES_MAX: usize = 1000;
/// The longest id of a source, step or confirmation, in bytes.
const NAME_LEN_MAX: usize = 512;

/// The request's `outlast` object. It is for Outlast only and never goes upstream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutlastObject {
    /// The ids of the sources it supplies, each once.
    pub sources: Vec<Box<str>>,
    /// Where the workflow stands.
    pub state: Option<WorkflowState>,
    /// The most this call may cost; a lower cap of the tier holds.
    pub budget: Option<Usd>,
    /// The token with which the user confirms what a `confirm` backstop asked.
    pub confirm: Option<Box<str>>,
}

impl Inbound {
    /// What the request tells Outlast itself; read on first use.
    /// # Errors
    /// When the object has an unknown field or a value of the wrong form. The client's fault.
    pub fn outlast(&self) -> Result<&OutlastObject, RequestError> {
        static NOTHING: OutlastObject = OutlastObject { sources: Vec::new(), state: None, budget: None, confirm: None };
        let Some(raw) = self.raw("outlast") else {
            return match self.value("outlast") {
                None | Some("null") => Ok(&NOTHING),
                Some(_) => Err(wrong("outlast", "an object")),
            };
        };
        self.outlast_cell().get_or_init(|| read(raw)).as_ref().map_err(Clone::clone)
    }

    /// The value at a dotted path of the body, such as `outlast.sources` or `metadata.ids.0`; numbers count list items.
    /// Absent where the path leads nowhere or to `null`.
    pub fn at(&self, path: &str) -> Option<Value> {
        let mut names = path.split('.');
        let mut value: Value = serde_json::from_str(self.value(names.next()?)?).ok()?;
        for name in names {
            value = match value {
                Value::Object(mut fields) => fields.remove(name)?,
                Value::Array(mut items) => {
                    let at: usize = name.parse().ok()?;
                    (at < items.len()).then(|| items.swap_remove(at))?
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
            };
        }
        (!value.is_null()).then_some(value)
    }

    /// What the user said last: the text of the last user turn that has any. `None` when there is none or the messages
    /// cannot be read.
    pub fn last_user_text(&self) -> Option<String> {
        let turns = &self.hub().ok()?.turns;
        turns.iter().rev().filter(|turn| turn.role == Role::User).find_map(|turn| {
            let texts: Vec<&str> = turn.parts.iter().filter_map(text).collect();
            (!texts.is_empty()).then(|| texts.join("\n"))
        })
    }

    /// The whole body as a value, for templates and expressions; `null` when something deep in it is broken.
    pub fn as_value(&self) -> Value {
        serde_json::from_slice(self.body()).unwrap_or_default()
    }
}

fn text(part: &Part) -> Option<&str> {
    match part {
        Part::Text { text, .. } => Some(text).map(AsRef::as_ref).filter(|text: &&str| !text.trim().is_empty()),
        Part::Image { .. }
        | Part::ToolCall(_)
        | Part::ToolResult { .. }
        | Part::Reasoning { .. }
        | Part::RedactedReasoning { .. }
        | Part::Refusal { .. }
        | Part::Opaque { .. } => None,
    }
}

fn read(raw: &RawValue) -> Result<OutlastObject, RequestError> {
    let mut object = OutlastObject::default();
    for (name, raw) in fields(raw, "outlast")? {
        match &*name {
            "sources" => object.sources = sources(raw)?,
            "state" => object.state = Some(state(raw)?),
            "budget_usd" => object.budget = Some(dollars(raw, "outlast.budget_usd")?),
            "confirm" => object.confirm = Some(name_in(raw, "outlast.confirm")?),
            other => return Err(unknown("outlast", other, "`sources`, `state`, `budget_usd` or `confirm`")),
        }
    }
    Ok(object)
}

fn state(raw: &RawValue) -> Result<WorkflowState, RequestError> {
    let mut state = WorkflowState::default();
    for (name, raw) in fields(raw, "outlast.state")? {
        match &*name {
            "step" => state.step = Some(name_in(raw, "outlast.state.step")?),
            "retry_count" => {
                let count = serde_json::from_str::<u32>(raw.get());
                let count = count.map_err(|_| wrong("outlast.state.retry_count", "a whole number, 0 or more"))?;
                state.retry_count = Some(count);
            }
            "budget_used_usd" => state.budget_used = Some(dollars(raw, "outlast.state.budget_used_usd")?),
            other => {
                return Err(unknown("outlast.state", other, "`step`, `retry_count` or `budget_used_usd`"));
            }
        }
    }
    Ok(state)
}

fn sources(raw: &RawValue) -> Result<Vec<Box<str>>, RequestError> {
    const PARAM: &str = "outlast.sources";
    const FORM: &str = "a list of ids, or of objects with an `id`; an id is a non-empty string of at most 512 bytes";
    let items: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_| wrong(PARAM, FORM))?;
    if items.len() > SOURCES_MAX {
        return Err(wrong(PARAM, &format!("a list of at most {SOURCES_MAX} sources")));
    }
    let mut ids: Vec<Box<str>> = Vec::with_capacity(items.len());
    for item in items {
        let id = match Fields::of(item, PARAM) {
            Ok(fields) => fields.look("id"),
            Err(_) => Some(item),
        };
        ids.push(id.and_then(|id| name_in(id, PARAM).ok()).ok_or_else(|| wrong(PARAM, FORM))?);
    }
    let mut seen = HashSet::with_capacity(ids.len());
    if ids.iter().any(|id| !seen.insert(&**id)) {
        return Err(RequestError {
            message: "`outlast.sources` gives an id twice, so a citation of it would be ambiguous. Give each once."
                .into(),
            param: Some(PARAM),
        });
    }
    Ok(ids)
}

/// The fields of an object, `null` ones left out.
fn fields<'a>(
    raw: &'a RawValue,
    param: &'static str,
) -> Result<Vec<(std::borrow::Cow<'a, str>, &'a RawValue)>, RequestError> {
    let mut fields = Fields::of(raw, param).map_err(|_| wrong(param, "an object"))?.pairs();
    fields.retain(|(_, value)| value.get() != "null");
    for (at, (name, _)) in fields.iter().enumerate() {
        if fields[..at].iter().any(|(earlier, _)| earlier == name) {
            return Err(wrong(param, "an object that gives each field once"));
        }
    }
    Ok(fields)
}

fn name_in(raw: &RawValue, param: &'static str) -> Result<Box<str>, RequestError> {
    match serde_json::from_str::<Str<'_>>(raw.get()) {
        Ok(Str(name)) if !name.is_empty() && name.len() <= NAME_LEN_MAX => Ok(name.into()),
        Ok(_) | Err(_) => Err(wrong(param, &format!("a non-empty string of at most {NAME_LEN_MAX} bytes"))),
    }
}

fn dollars(raw: &RawValue, param: &'static str) -> Result<Usd, RequestError> {
    match serde_json::from_str::<f64>(raw.get()) {
        Ok(amount) if amount >= 0.0 => Ok(Usd::from_dollars(amount)),
        Ok(_) | Err(_) => Err(wrong(param, "a number of dollars, 0 or more")),
    }
}

fn wrong(param: &'static str, must_be: &str) -> RequestError {
    RequestError { message: format!("`{param}` must be {must_be}."), param: Some(param) }
}

fn unknown(param: &'static str, name: &str, known: &str) -> RequestError {
    // A name is not a value, but an absurd one is not repeated to the log either.
    let name: String = name.chars().filter(|letter| !letter.is_control()).take(64).collect();
    RequestError { message: format!("`{param}.{name}` is unknown. Give {known}, or leave it out."), param: Some(param) }
}
