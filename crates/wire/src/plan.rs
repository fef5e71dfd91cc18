//! Tool intents: what a model would have called, as data.

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

/// Native tool calls (name and arguments, as JSON text) as intents; `None` when the arguments of one are no object.
/// `text` is what the model said before them; `sources` are the ids of the sources it was given.
pub fn of_calls<'a>(
    calls: impl IntoIterator<Item = (&'a str, &'a str)>,
    text: &str,
    sources: &[Box<str>],
) -> Option<Vec<Intent>> {
    let reason = text.trim();
    let reason = (!reason.is_empty()).then(|| reason.chars().take(REASON_CHARS_MAX).collect::<String>());
    let evidence: Vec<String> =
        sources.iter().filter(|id| text.contains(&format!("[{id}]"))).map(ToString::to_string).collect();
    calls
        .into_iter()
        .map(|(tool, arguments)| {
            let arguments = if arguments.trim().is_empty() { "{}" } else { arguments };
            let arguments = serde_json::from_str::<Value>(arguments).ok().filter(Value::is_object)?;
            Some(Intent {
                tool: tool.to_owned(),
                arguments,
                reason: reason.clone(),
                approval: "required",
                evidence: evidence.clone(),
            })
        })
        .collect()
}

/// Reads the JSON form that a model without tools is asked for: its text and the intents in it. `offered` are the tools
/// it was told of. `None` when it is not that form.
pub fn of_text(_text: &str, _offered: &[Box<str>], _sources: &[Box<str>]) -> Option<(String, Vec<Intent>)> {
    None
}

/// One sentence that names every action not taken; empty when there are none.
pub fn not_done(intents: &[Intent]) -> String {
    let names: Vec<&str> = intents.iter().map(|intent| intent.tool.as_str()).collect();
    if names.is_empty() { String::new() } else { format!("Not done: {}.", names.join("; ")) }
}
