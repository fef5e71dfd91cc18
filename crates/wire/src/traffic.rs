//! Earlier tool calls and their results as text: for a target that is sent no tools and would stumble over them.

use crate::shorten::is_tool_traffic;
use outlast_model::turn::{Extra, Part, Role, Turn};
use std::collections::HashMap;

/// Whether calls or results of tools are among the turns.
pub(crate) fn is_in(turns: &[Turn]) -> bool {
    turns.iter().any(|turn| turn.parts.iter().any(is_tool_traffic))
}

/// Writes every call and result as a line of text in its turn. Neighbours of one role become one turn, because some
/// servers insist that roles take turns.
pub(crate) fn as_text(turns: &mut Vec<Turn>) {
    let mut names = HashMap::new();
    let mut written: Vec<Turn> = Vec::with_capacity(turns.len());
    let mut rendered_before = false;
    for turn in turns.drain(..) {
        let rendered = turn.parts.iter().any(is_tool_traffic);
        let turn = if rendered { in_words(turn, &mut names) } else { turn };
        match written.last_mut() {
            Some(last)
                if (rendered || rendered_before)
                    && last.role == turn.role
                    && matches!(turn.role, Role::User | Role::Assistant) =>
            {
                turn.parts.into_iter().for_each(|part| push(&mut last.parts, part));
            }
            Some(_) | None => written.push(turn),
        }
        rendered_before = rendered;
    }
    *turns = written;
}

fn in_words(turn: Turn, names: &mut HashMap<Box<str>, Box<str>>) -> Turn {
    let mut parts = Vec::with_capacity(turn.parts.len());
    for part in turn.parts {
        match part {
            Part::ToolCall(call) => {
                push(&mut parts, words(format!("[Called {} with {}]", call.name, call.arguments.trim())));
                names.insert(call.id, call.name);
            }
            Part::ToolResult { call_id, content, is_error, .. } => {
                let name = names.get(&call_id).map_or("the tool", |name| name);
                let verb = if is_error { "failed" } else { "returned" };
                let (texts, others): (Vec<Part>, Vec<Part>) =
                    content.into_iter().partition(|part| matches!(part, Part::Text { .. }));
                let text: Vec<&str> = texts.iter().filter_map(text_of).collect();
                push(&mut parts, words(format!("[{name} {verb}: {}]", text.join("\n"))));
                parts.extend(others);
            }
            Part::Opaque { kind, raw } if is_tool_traffic(&Part::Opaque { kind: kind.clone(), raw: raw.clone() }) => {
                push(&mut parts, words(format!("[Tool record: {}]", raw.get())));
            }
            // A thought belongs to the call it led to, and its vendor wants it only there.
            Part::Reasoning { .. } | Part::RedactedReasoning { .. } => {}
            Part::Text { .. } | Part::Image { .. } | Part::Refusal { .. } | Part::Opaque { .. } => {
                push(&mut parts, part)
            }
        }
    }
    let role = if turn.role == Role::Tool { Role::User } else { turn.role };
    Turn { role, parts, extra: Extra::default() }
}

fn words(text: String) -> Part {
    Part::Text { text: text.into(), extra: Extra::default() }
}

fn text_of(part: &Part) -> Option<&str> {
    if let Part::Text { text, .. } = part { Some(text) } else { None }
}

/// Puts a part to the others; plain texts side by side become one, because many servers take content only as a string.
fn push(parts: &mut Vec<Part>, part: Part) {
    if let Part::Text { text: more, extra } = &part
        && extra.is_empty()
        && let Some(Part::Text { text, extra }) = parts.last_mut()
        && extra.is_empty()
    {
        *text = match (text.is_empty(), more.is_empty()) {
            (true, _) => more.clone(),
            (_, true) => return,
            (false, false) => format!("{text}\n{more}").into(),
        };
        return;
    }
    parts.push(part);
}
