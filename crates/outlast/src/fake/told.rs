//! What a request's instructions ask for in words, as Outlast words it: a JSON Schema to keep, actions to plan. A real
//! model reads any wording; the fake knows these two.

use super::asked::Tool;
use serde_json::Value;

/// Before a schema that is to be kept.
const SCHEMA: &str = "keeps this JSON Schema, and nothing else: no code fence, no comment.";
/// Before the actions.
const ACTIONS: &str = "Actions you can plan:";
/// Before an action's arguments.
const ARGUMENTS: &str = "Arguments, as a JSON Schema: ";

/// Whether a raw message may hold such words.
pub(super) fn may_be_in(raw: &str) -> bool {
    raw.contains(SCHEMA) || raw.contains(ACTIONS)
}

/// The schema demanded in words.
pub(super) fn schema(instructions: &str) -> Option<Value> {
    first_value(instructions.split_once(SCHEMA)?.1)
}

/// The actions that may be planned.
pub(super) fn actions(instructions: &str) -> Vec<Tool> {
    let Some((_, list)) = instructions.split_once(ACTIONS) else { return Vec::new() };
    let mut tools: Vec<Tool> = Vec::new();
    for line in list.trim_start().lines() {
        if let Some(action) = line.strip_prefix("- ") {
            let name = action.split_once(": ").map_or(action, |(name, _)| name);
            tools.push(Tool { name: name.trim().to_owned(), schema: Value::Null });
        } else if let (Some(schema), Some(tool)) = (line.trim().strip_prefix(ARGUMENTS), tools.last_mut()) {
            tool.schema = first_value(schema).unwrap_or_default();
        } else if line.is_empty() {
            break;
        }
    }
    tools
}

fn first_value(text: &str) -> Option<Value> {
    serde_json::Deserializer::from_str(text).into_iter::<Value>().next()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_schema_and_actions_are_read_out_of_instructions() {
        let text = format!("Be brief.\nAnswer with one JSON value that {SCHEMA}\n{{\"type\": \"object\"}}\nThank you.");
        assert_eq!(schema(&text), Some(json!({"type": "object"})));
        assert_eq!(schema("Be brief."), None);
        let text = format!(
            "You cannot act.\n\n{ACTIONS}\n- refund: Pays back.\n  {ARGUMENTS}{{\"type\": \"object\"}}\n- note\n\nReply with one JSON object."
        );
        let read: Vec<_> = actions(&text).into_iter().map(|tool| (tool.name, tool.schema)).collect();
        assert_eq!(read, [("refund".to_owned(), json!({"type": "object"})), ("note".to_owned(), Value::Null)]);
    }
}
