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
        let Some(value) = self.value("outlast").filter(|value| *value != "null") else { return Ok(&NOTHING) };
        let read = || serde_json::from_str(value).map_err(|_| wrong("outlast", "an object")).and_then(read);
        self.outlast_cell().get_or_init(|| Box::new(read())).as_ref().as_ref().map_err(Clone::clone)
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
        Part::Text { text, .. } => Some(&**text).filter(|text| !text.trim().is_empty()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use outlast_model::policy::Dialect;
    use serde_json::json;

    fn asks(outlast: Value) -> Inbound {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "outlast": outlast});
        Inbound::parse(Dialect::OpenaiChat, body.to_string().into()).unwrap()
    }

    #[test]
    fn everything_it_may_hold_is_read() {
        let inbound = asks(json!({
            "sources": ["a", {"id": "b", "text": "whatever"}],
            "state": {"step": "refund", "retry_count": 2, "budget_used_usd": 0.5},
            "budget_usd": 0.01,
            "confirm": "TOKEN",
        }));
        let outlast = inbound.outlast().unwrap();
        assert_eq!(*outlast.sources, ["a".into(), "b".into()]);
        let state = outlast.state.as_ref().unwrap();
        assert_eq!((state.step.as_deref(), state.retry_count), (Some("refund"), Some(2)));
        assert_eq!(state.budget_used, Some(Usd::from_nanos(500_000_000)));
        assert_eq!(outlast.budget, Some(Usd::from_nanos(10_000_000)));
        assert_eq!(outlast.confirm.as_deref(), Some("TOKEN"));
        assert_eq!(inbound.needs().budget, outlast.budget);
        assert_eq!(inbound.at("outlast.sources.1.id"), Some("b".into()));
        for nothing in [json!(null), json!({}), json!({"sources": null, "state": null, "confirm": null})] {
            assert_eq!(asks(nothing).outlast(), Ok(&OutlastObject::default()));
        }
    }

    #[test]
    fn the_documented_request_is_one() {
        let page =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/outlast-object.md")).unwrap();
        let (_, rest) = page.split_once("```json\n").unwrap();
        let (example, rest) = rest.split_once("```").unwrap();
        let inbound = Inbound::parse(Dialect::OpenaiChat, example.to_owned().into()).unwrap();
        assert_eq!(inbound.outlast().unwrap().sources.len(), 2);
        let fields = ["sources", "state.step", "state.retry_count", "state.budget_used_usd", "budget_usd", "confirm"];
        for field in fields {
            assert!(rest.contains(&format!("| `{field}` |")), "{field}");
        }
    }

    #[test]
    fn what_it_may_not_hold_is_refused_with_its_place_and_a_remedy() {
        let many: Vec<String> = (0..=SOURCES_MAX).map(|at| at.to_string()).collect();
        for (outlast, param, says) in [
            (json!(5), "outlast", "`outlast` must be an object."),
            (
                json!({"budget": 1}),
                "outlast",
                "`outlast.budget` is unknown. Give `sources`, `state`, `budget_usd` or `confirm`, or leave it out.",
            ),
            (json!({"state": {"try": 1}}), "outlast.state", "`outlast.state.try` is unknown."),
            (json!({"state": []}), "outlast.state", "must be an object"),
            (json!({"state": {"step": ""}}), "outlast.state.step", "non-empty string"),
            (json!({"state": {"retry_count": -1}}), "outlast.state.retry_count", "a whole number, 0 or more"),
            (json!({"state": {"budget_used_usd": "1"}}), "outlast.state.budget_used_usd", "dollars"),
            (json!({"budget_usd": -0.1}), "outlast.budget_usd", "a number of dollars, 0 or more"),
            (json!({"confirm": 7}), "outlast.confirm", "non-empty string"),
            (json!({"confirm": "x".repeat(513)}), "outlast.confirm", "at most 512 bytes"),
            (json!({"sources": {}}), "outlast.sources", "a list of ids"),
            (json!({"sources": [7]}), "outlast.sources", "a list of ids"),
            (json!({"sources": [{"name": "a"}]}), "outlast.sources", "an `id`"),
            (json!({"sources": ["a", {"id": "a"}]}), "outlast.sources", "twice"),
            (json!({"sources": many}), "outlast.sources", "at most 1000 sources"),
        ] {
            let error = asks(outlast.clone()).outlast().unwrap_err();
            assert_eq!(error.param, Some(param), "{outlast}");
            assert!(error.message.contains(says), "{}", error.message);
        }
        let body = r#"{"model":"m","messages":[{}],"outlast":{"confirm":"a","confirm":"b"}}"#;
        let twice = Inbound::parse(Dialect::OpenaiChat, body.into()).unwrap();
        assert!(twice.outlast().unwrap_err().message.contains("each field once"));
    }

    #[test]
    fn a_path_leads_to_a_value_or_nowhere() {
        let body =
            r#"{"model":"m","messages":[{"role":"user","content":"x"}],"a":{"b":[1,{"c":null,"d":"e"}]},"n":1.2.3}"#;
        let inbound = Inbound::parse(Dialect::OpenaiChat, body.into()).unwrap();
        for (path, value) in [
            ("model", json!("m")),
            ("a.b.0", json!(1)),
            ("a.b.1.d", json!("e")),
            ("a.b.1.c", json!(null)),
            ("a.b.2", json!(null)),
            ("a.x", json!(null)),
            ("a.b.0.c", json!(null)),
            ("n", json!(null)),
            ("", json!(null)),
            ("a..b", json!(null)),
        ] {
            assert_eq!(inbound.at(path).unwrap_or_default(), value, "{path}");
        }
    }

    #[test]
    fn the_last_user_text_is_what_the_user_said_last() {
        for (dialect, messages, text) in [
            (
                Dialect::OpenaiChat,
                json!([{"role": "user", "content": "one"}, {"role": "user", "content": [{"type": "text", "text": "two"}, {"type": "text", "text": "three"}]}, {"role": "assistant", "content": "four"}]),
                Some("two\nthree"),
            ),
            (
                Dialect::Anthropic,
                json!([{"role": "user", "content": "one"}, {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "t", "input": {}}]}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "42"}]}]),
                Some("one"),
            ),
            (Dialect::OpenaiChat, json!([{"role": "system", "content": "one"}]), None),
            (Dialect::OpenaiChat, json!([{"role": "nobody", "content": "one"}]), None),
        ] {
            let body = json!({"model": "m", "max_tokens": 1, "messages": messages});
            let inbound = Inbound::parse(dialect, body.to_string().into()).unwrap();
            assert_eq!(inbound.last_user_text().as_deref(), text);
        }
    }

    #[test]
    fn escapes_and_the_outlast_object_count_for_what_they_are() {
        let tokens = |text: &str, outlast: &str| {
            let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}"}}]{outlast}}}"#);
            Inbound::parse(Dialect::OpenaiChat, body.into()).unwrap().input_tokens()
        };
        let frame = tokens("", "");
        for word in ["Привет", "四文字だ", "🎈", "é"] {
            let escaped: String = word.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            let (plain, escaped) = (tokens(&word.repeat(100), "") - frame, tokens(&escaped.repeat(100), "") - frame);
            assert!(plain.abs_diff(escaped) <= 1, "{word}: {plain} and {escaped}");
        }
        let sources = format!(r#","outlast":{{"sources":["{}"]}}"#, "x".repeat(400));
        assert!(tokens("", &sources) - frame < 5);
    }
}
