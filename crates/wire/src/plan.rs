//! Tool intents: what a model would have called, as data.

use crate::{said::input_or_empty, strict};
use outlast_model::turn::{Tool, ToolChoice};
use serde::Serialize;
use serde_json::Value;

/// A tool the model would have called. Nothing has been run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Intent {
    /// The tool.
    pub tool: String,
    /// Its arguments: an object.
    pub arguments: Value,
    /// What the model said it was for, cut to [`REASON_CHARS_MAX`] characters.
    pub reason: Option<String>,
    /// What it takes to run it: always `required`.
    pub approval: &'static str,
    /// The sources named for it, of those that the request supplied.
    pub evidence: Vec<String>,
}

/// The most characters of an [`Intent`]'s reason.
pub const REASON_CHARS_MAX: usize = 500;
/// The most intents of one plan. A longer one is not believed.
pub const INTENTS_MAX: usize = 128;
/// What it takes to run an [`Intent`].
const APPROVAL: &str = "required";
/// The most bytes of a notice before arguments are left out of it.
const NOTICE_LEN_MAX: usize = 2000;
/// The most arguments of one action that a notice shows.
const ARGUMENTS_SHOWN: usize = 6;

/// Native tool calls (name and arguments, as JSON text) as intents; `None` when the arguments of one are no object.
/// `text` is what the model said before them; `sources` are the ids of the sources it was given.
pub fn of_calls<'a>(
    calls: impl IntoIterator<Item = (&'a str, &'a str)>,
    text: &str,
    sources: &[Box<str>],
) -> Option<Vec<Intent>> {
    let reason = shortened(text);
    let cited = sources.iter().filter(|id| text.contains(&format!("[{id}]")));
    let evidence: Vec<String> = cited.map(ToString::to_string).collect();
    let intent = |(tool, arguments): (&str, &str)| {
        let arguments = parse(input_or_empty(arguments))?;
        let (reason, evidence) = (reason.clone(), evidence.clone());
        arguments.is_object().then(|| Intent { tool: tool.to_owned(), arguments, reason, approval: APPROVAL, evidence })
    };
    calls.into_iter().map(intent).collect()
}

/// Reads the JSON form that a model without tools is asked for: its text and the intents in it. `offered` are the tools
/// it was told of. `None` when it is not that form: a code fence around it is forgiven, an unknown field, a field given
/// twice, a tool that was not offered or arguments that are no object are not. Evidence that names no source supplied
/// is left out.
pub fn of_text(text: &str, offered: &[Box<str>], sources: &[Box<str>]) -> Option<(String, Vec<Intent>)> {
    let Value::Object(mut form) = parse(unfenced(text))? else { return None };
    let Value::String(said) = form.remove("text")? else { return None };
    let plan = match form.remove("plan") {
        None => Vec::new(),
        Some(Value::Array(plan)) if plan.len() <= INTENTS_MAX => plan,
        Some(_) => return None,
    };
    let intents = plan.into_iter().map(|entry| intent(entry, offered, sources)).collect::<Option<Vec<_>>>()?;
    form.is_empty().then_some((said, intents))
}

fn intent(entry: Value, offered: &[Box<str>], sources: &[Box<str>]) -> Option<Intent> {
    let Value::Object(mut entry) = entry else { return None };
    let Value::String(tool) = entry.remove("tool")? else { return None };
    let arguments = entry.remove("arguments").filter(Value::is_object)?;
    let reason = match entry.remove("reason") {
        None | Some(Value::Null) => None,
        Some(Value::String(reason)) => shortened(&reason),
        Some(_) => return None,
    };
    let evidence = match entry.remove("evidence") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(ids)) => ids,
        Some(_) => return None,
    };
    let supplied =
        |id: &Value| id.as_str().filter(|id| sources.iter().any(|source| **source == **id)).map(str::to_owned);
    let evidence = evidence.iter().filter_map(supplied).collect();
    let known = entry.is_empty() && offered.iter().any(|name| **name == *tool);
    known.then_some(Intent { tool, arguments, reason, approval: APPROVAL, evidence })
}

/// What is inside one code fence around the whole text, or the text itself.
fn unfenced(text: &str) -> &str {
    let text = text.trim();
    let inside = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    inside.map_or(text, |inside| inside.strip_prefix("json").unwrap_or(inside))
}

fn parse(text: &str) -> Option<Value> {
    strict::parse(text).ok()
}

fn shortened(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.chars().take(REASON_CHARS_MAX).collect())
}

/// What a model that is sent no tools is told: what it could do, and how to say that it would. `choice`: whether it must;
/// `form`: the schema its answer has to keep; `records`: earlier calls stand in the conversation as text.
pub(crate) fn description<'a>(
    tools: impl Iterator<Item = &'a Tool>,
    choice: Option<&ToolChoice>,
    form: Option<&str>,
    records: bool,
) -> String {
    let mut text = String::from(
        "You cannot act yourself here. Where an action is needed, plan it: name the action and its arguments, and it is \
         decided on later. Nothing you plan has been done, so never say or suggest that it has.\n\nActions you can plan:\n",
    );
    for tool in tools {
        let Tool::Function(tool) = tool else { continue };
        text += &format!("- {}", tool.name);
        if let Some(description) = &tool.description {
            text += &format!(": {}", description.trim());
        }
        if let Some(parameters) = &tool.parameters {
            text += &format!("\n  Arguments, as a JSON Schema: {}", parameters.get());
        }
        text.push('\n');
    }
    if records {
        text += "\nLines in square brackets in this conversation record actions that were done before, and their results.\n";
    }
    text += "\nReply with one JSON object and nothing else, no code fence and no comment:\n\
             {\"text\": \"what you tell the user\", \"plan\": [{\"tool\": \"an action's name\", \"arguments\": {}, \
             \"reason\": \"why it is needed\", \"evidence\": [\"ids of the sources it rests on\"]}]}\n\
             When no action is needed, `plan` is [].";
    match choice {
        Some(ToolChoice::Required) => text += " Here at least one action is needed.",
        Some(ToolChoice::Named(name)) => text += &format!(" Here the action {name} is needed."),
        Some(ToolChoice::None) => text += " Here no action is wanted.",
        Some(ToolChoice::Auto | ToolChoice::Opaque(_)) | None => {}
    }
    if let Some(form) = form {
        text += &format!(
            "\nWhen `plan` is [], `text` is a string that holds one JSON value which keeps this JSON Schema: {form}"
        );
    }
    text
}

/// One sentence that names every action not taken, with the arguments it would have had:
/// `Not done: refund_order (order_id: 17).` Empty when there are none. Long values are cut, nested ones not shown, and
/// past 2,000 characters only names follow.
pub fn not_done(intents: &[Intent]) -> String {
    let mut named = String::new();
    for intent in intents {
        if !named.is_empty() {
            named += "; ";
        }
        named += &plain(&intent.tool, 64);
        let arguments = intent.arguments.as_object().filter(|_| named.len() < NOTICE_LEN_MAX);
        let shown: Vec<String> = arguments
            .into_iter()
            .flatten()
            .take(ARGUMENTS_SHOWN)
            .filter_map(|(name, value)| shown(name, value))
            .collect();
        if !shown.is_empty() {
            named += &format!(" ({})", shown.join(", "));
        }
    }
    if named.is_empty() { named } else { format!("Not done: {named}.") }
}

fn shown(name: &str, value: &Value) -> Option<String> {
    let value = match value {
        Value::String(text) => plain(text, 60),
        Value::Number(number) => number.to_string(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    Some(format!("{}: {value}", plain(name, 40)))
}

/// A model's words within a sentence of ours: one line, no control characters, at most so many characters.
fn plain(text: &str, chars_max: usize) -> String {
    let one_line = text.split(|letter: char| letter.is_whitespace() || letter.is_control());
    let words: Vec<&str> = one_line.filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    if line.chars().count() <= chars_max {
        return line;
    }
    line.chars().take(chars_max - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ids(names: &[&str]) -> Vec<Box<str>> {
        names.iter().map(|name| (*name).into()).collect()
    }

    #[test]
    fn native_calls_become_intents_with_what_was_said_before_them() {
        let sources = ids(&["doc-1", "doc-2"]);
        let calls = [("refund", r#"{"order":17}"#), ("note", "")];
        let intents = of_calls(calls, " The policy [doc-2] allows it. ", &sources).unwrap();
        assert_eq!(
            serde_json::to_value(&intents).unwrap(),
            json!([
                {"tool": "refund", "arguments": {"order": 17}, "reason": "The policy [doc-2] allows it.", "approval": "required", "evidence": ["doc-2"]},
                {"tool": "note", "arguments": {}, "reason": "The policy [doc-2] allows it.", "approval": "required", "evidence": ["doc-2"]},
            ])
        );
        assert_eq!(of_calls([("refund", "[17]")], "", &[]), None);
        assert_eq!(of_calls([("refund", r#"{"order":17,"order":18}"#)], "", &[]), None);
        let long = of_calls([("a", "{}")], &"é".repeat(9000), &[]).unwrap();
        assert_eq!(long[0].reason.as_ref().unwrap().chars().count(), REASON_CHARS_MAX);
    }

    #[test]
    fn the_described_form_is_read_strictly_but_for_a_fence() {
        let (offered, sources) = (ids(&["refund"]), ids(&["doc-1"]));
        let read = |text: &str| of_text(text, &offered, &sources);
        let whole = r#"{"text":"I plan it.","plan":[{"tool":"refund","arguments":{"order":17},"reason":"asked","evidence":["doc-1","made-up"]}]}"#;
        let (text, plan) = read(whole).unwrap();
        assert_eq!((text.as_str(), plan.len()), ("I plan it.", 1));
        assert_eq!(plan[0].evidence, ["doc-1"]);
        assert_eq!(read(&format!("```json\n{whole}\n```")), read(whole));
        assert_eq!(read(r#"{"text":"Hello."}"#), Some(("Hello.".into(), Vec::new())));
        for broken in [
            "",
            "Hello.",
            r#"{"plan":[]}"#,
            r#"{"text":"x","plan":{}}"#,
            r#"{"text":"x","more":1}"#,
            r#"{"text":"x","text":"y"}"#,
            r#"{"text":"x","plan":[{"tool":"refund","arguments":{"a":1,"a":2}}]}"#,
            r#"{"text":"x","plan":[]} and so on"#,
            r#"{"text":"x","plan":[{"tool":"delete","arguments":{}}]}"#,
            r#"{"text":"x","plan":[{"tool":"refund","arguments":"{}"}]}"#,
            r#"{"text":"x","plan":[{"tool":"refund","arguments":{},"when":"now"}]}"#,
        ] {
            assert_eq!(read(broken), None, "{broken}");
        }
    }

    #[test]
    fn the_notice_names_every_action_and_stays_short() {
        let intent = |tool: &str, arguments: Value| Intent {
            tool: tool.into(),
            arguments,
            reason: None,
            approval: APPROVAL,
            evidence: Vec::new(),
        };
        assert_eq!(not_done(&[]), "");
        assert_eq!(
            not_done(&[
                intent("refund_order", json!({"order_id": 17, "full": true, "items": [1]})),
                intent("send_mail", json!({"to": "a\nb"})),
                intent("sync", json!({})),
            ]),
            "Not done: refund_order (order_id: 17, full: yes); send_mail (to: a b); sync."
        );
        let many: Vec<Intent> = (0..128).map(|_| intent("write_file", json!({"text": "x".repeat(100_000)}))).collect();
        let notice = not_done(&many);
        assert_eq!(notice.matches("write_file").count(), 128);
        assert!(notice.len() < 5000, "{}", notice.len());
    }
}
