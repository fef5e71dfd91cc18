//! The hub form into a message request.

use crate::{adapt::Adapt, json::Writer, schema};
use outlast_model::{
    policy::Dialect,
    turn::{Extra, ImageSource, OutputFormat, Part, Request, Role, Tool, ToolCall, ToolChoice, Turn},
};

/// The output limit asked for when the client gave none and the target's own is unknown: Anthropic demands one.
pub const MAX_TOKENS_DEFAULT: u32 = 8192;

/// What stands for OpenAI's `json_object`, which Anthropic has no field for. The reply is checked all the same.
const JSON_INSTRUCTION: &str = "Reply with one JSON value and nothing else: no code fence, no comment.";

/// Writes a request for a target. What the dialect cannot say has been refused before.
pub(crate) fn encode_request(request: &Request, to: &Adapt<'_>) -> Vec<u8> {
    let own = request.origin == Dialect::Anthropic;
    let mut w = Writer::default();
    w.open(b'{').key("model").str(to.model);
    let limit = request.max_output_tokens.or(to.max_output).unwrap_or(MAX_TOKENS_DEFAULT);
    w.key("max_tokens").plain(limit);
    if own {
        own_turns(&request.turns, &mut w);
    } else {
        crossed_turns(request, &mut w);
    }
    if let Some(temperature) = request.temperature {
        // OpenAI's range ends at 2, Anthropic's at 1.
        w.key("temperature").float(if own { temperature } else { temperature.min(1.0) });
    }
    if let Some(top_p) = request.top_p
        && (own || request.temperature.is_none())
    {
        // Current models refuse both at once.
        w.key("top_p").float(top_p);
    }
    if !request.stop.is_empty() {
        w.key("stop_sequences").open(b'[');
        for stop in &request.stop {
            w.str(stop);
        }
        w.close(b']');
    }
    tools(request, own, &mut w);
    if request.stream {
        w.key("stream").plain(true);
    }
    if own {
        w.extra(&request.extra);
    } else {
        if let OutputFormat::JsonSchema { schema, .. } = &request.output {
            w.key("output_config").open(b'{').key("format").open(b'{').key("type").str("json_schema");
            w.key("schema").raw(&schema::for_anthropic(schema.get())).close(b'}').close(b'}');
        }
        if let Some(user) = &request.user {
            w.key("metadata").open(b'{').key("user_id").str(user).close(b'}');
        }
        if let Some(top_k) = request.extra.get("top_k") {
            w.key("top_k").raw(top_k);
        }
    }
    w.close(b'}');
    w.finish()
}

/// Turns that came from this dialect, one message each.
fn own_turns(turns: &[Turn], w: &mut Writer) {
    let (system, messages) = encode_turns(turns);
    let text = |json: &[u8]| String::from_utf8_lossy(json).into_owned();
    if let Some(system) = system {
        w.key("system").raw(&text(&system));
    }
    w.key("messages").raw(&text(&messages));
}

/// Writes the `system` field and the messages of a request that came in this dialect.
pub(crate) fn encode_turns(turns: &[Turn]) -> (Option<Vec<u8>>, Vec<u8>) {
    let (system, messages) = match turns {
        [first, rest @ ..] if first.role == Role::System => (Some(first), rest),
        _ => (None, turns),
    };
    let system = system.map(|system| {
        let mut w = Writer::default();
        content(&system.parts.iter().collect::<Vec<_>>(), true, &mut w);
        w.finish()
    });
    let mut w = Writer::default();
    w.open(b'[');
    for turn in messages {
        message(role_word(turn.role), &turn.parts.iter().collect::<Vec<_>>(), true, &turn.extra, &mut w);
    }
    w.close(b']');
    (system, w.finish())
}

/// Turns of another dialect: system prompts move to the top, neighbours of one role become one message, and results
/// of tools come first in theirs.
fn crossed_turns(request: &Request, w: &mut Writer) {
    let mut system: Vec<String> = Vec::new();
    let mut messages: Vec<(&'static str, Vec<&Part>)> = Vec::new();
    for turn in &request.turns {
        match turn.role {
            Role::System | Role::Developer => system.extend(turn.parts.iter().filter_map(text_of)),
            Role::User | Role::Assistant | Role::Tool => {
                let role = role_word(turn.role);
                let parts = turn.parts.iter().filter(|part| can_say(part));
                match messages.last_mut() {
                    Some((last, said)) if *last == role => said.extend(parts),
                    Some(_) | None => messages.push((role, parts.collect())),
                }
            }
        }
    }
    messages.retain(|(_, parts)| !parts.is_empty());
    let none = Extra::default();
    if request.turns.iter().all(|turn| matches!(turn.role, Role::System | Role::Developer)) {
        // Somebody must have asked something.
        let text = Part::Text { text: std::mem::take(&mut system).join("\n\n").into(), extra: Extra::default() };
        w.key("messages").open(b'[');
        message("user", &[&text], false, &none, w);
        w.close(b']');
    } else {
        w.key("messages").open(b'[');
        for (role, mut parts) in messages {
            parts.sort_by_key(|part| !matches!(part, Part::ToolResult { .. }));
            message(role, &parts, false, &none, w);
        }
        w.close(b']');
    }
    if matches!(request.output, OutputFormat::Json) {
        system.push(JSON_INSTRUCTION.into());
    }
    if !system.is_empty() {
        w.key("system").str(&system.join("\n\n"));
    }
}

fn role_word(role: Role) -> &'static str {
    match role {
        Role::Assistant => "assistant",
        Role::System => "system",
        Role::Developer | Role::User | Role::Tool => "user",
    }
}

/// Whether a part of another dialect has a place here. Empty texts are refused by Anthropic; another vendor's
/// thoughts carry no proof it would accept.
fn can_say(part: &Part) -> bool {
    match part {
        Part::Text { text, .. } | Part::Refusal { text } => !text.trim().is_empty(),
        Part::Image { .. } | Part::ToolCall(_) | Part::ToolResult { .. } => true,
        Part::Reasoning { .. } | Part::RedactedReasoning { .. } | Part::Opaque { .. } => false,
    }
}

fn text_of(part: &Part) -> Option<String> {
    match part {
        Part::Text { text, .. } | Part::Refusal { text } => {
            Some(text.to_string()).filter(|text| !text.trim().is_empty())
        }
        Part::Image { .. }
        | Part::ToolCall(_)
        | Part::ToolResult { .. }
        | Part::Reasoning { .. }
        | Part::RedactedReasoning { .. }
        | Part::Opaque { .. } => None,
    }
}

fn message(role: &str, parts: &[&Part], own: bool, extra: &Extra, w: &mut Writer) {
    w.open(b'{').key("role").str(role).key("content");
    content(parts, own, w);
    w.extra(extra).close(b'}');
}

/// Content: a plain string if it is nothing but one text.
fn content(parts: &[&Part], own: bool, w: &mut Writer) {
    if let [Part::Text { text, extra }] = parts
        && (extra.is_empty() || !own)
    {
        w.str(text);
        return;
    }
    w.open(b'[');
    for part in parts {
        block(part, own, w);
    }
    w.close(b']');
}

/// Writes one content block.
pub(super) fn block(part: &Part, own: bool, w: &mut Writer) {
    let none = Extra::default();
    let kept = |extra| if own { extra } else { &none };
    match part {
        Part::Text { text, extra } => {
            w.open(b'{').key("type").str("text").key("text").str(text).extra(kept(extra)).close(b'}');
        }
        Part::Refusal { text } => {
            w.open(b'{').key("type").str("text").key("text").str(text).close(b'}');
        }
        Part::Image { source, extra, .. } => {
            w.open(b'{').key("type").str("image").key("source").open(b'{').key("type");
            match source {
                ImageSource::Url(url) => w.str("url").key("url").str(url),
                ImageSource::Base64 { media_type, data } => {
                    w.str("base64").key("media_type").str(media_type).key("data").str(data)
                }
                ImageSource::File(id) => w.str("file").key("file_id").str(id),
            };
            w.close(b'}').extra(kept(extra)).close(b'}');
        }
        Part::ToolCall(call) => {
            w.open(b'{').key("type").str("tool_use").key("id").str(&call_id(&call.id, own)).key("name").str(&call.name);
            w.key("input").raw(&input(call)).extra(kept(&call.extra)).close(b'}');
        }
        Part::ToolResult { call_id: id, content: parts, is_error, extra } => {
            w.open(b'{').key("type").str("tool_result").key("tool_use_id").str(&call_id(id, own));
            let parts: Vec<&Part> = parts.iter().filter(|part| own || can_say(part)).collect();
            if !parts.is_empty() {
                w.key("content");
                content(&parts, own, w);
            }
            if *is_error {
                w.key("is_error").plain(true);
            }
            w.extra(kept(extra)).close(b'}');
        }
        Part::Reasoning { text, signature, extra } => {
            // An unsigned thought is one that we made of another vendor's: Anthropic would refuse it.
            if let Some(signature) = signature.as_deref().filter(|signature| own && !signature.is_empty()) {
                w.open(b'{').key("type").str("thinking").key("thinking").str(text);
                w.key("signature").str(signature).extra(extra).close(b'}');
            }
        }
        Part::RedactedReasoning { data, extra } => {
            if own {
                w.open(b'{').key("type").str("redacted_thinking").key("data").str(data).extra(extra).close(b'}');
            }
        }
        Part::Opaque { raw, .. } => {
            if own {
                w.raw(raw.get());
            }
        }
    }
}

/// Anthropic's ids are letters, digits, `_` and `-`; some vendors' are not. The same id always becomes the same one.
fn call_id(id: &str, own: bool) -> String {
    if own {
        return id.to_owned();
    }
    let fits = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    let id: String = id.chars().map(|letter| if fits(letter) { letter } else { '_' }).collect();
    if id.is_empty() { "call".into() } else { id }
}

/// A tool's input must be an object here. What a model wrote that is none is kept as text within one.
pub(super) fn input(call: &ToolCall) -> String {
    let arguments = call.arguments.trim();
    if arguments.starts_with('{') && crate::said::is_json(arguments) {
        return arguments.to_owned();
    }
    let mut w = Writer::default();
    w.open(b'{');
    if !matches!(arguments, "" | "null") {
        w.key("arguments").str(arguments);
    }
    w.close(b'}');
    w.text()
}

fn tools(request: &Request, own: bool, w: &mut Writer) {
    if !request.tools.is_empty() {
        w.key("tools").open(b'[');
        for tool in &request.tools {
            match tool {
                Tool::Function(function) => {
                    w.open(b'{').key("name").str(&function.name);
                    if let Some(description) = &function.description {
                        w.key("description").str(description);
                    }
                    match &function.parameters {
                        Some(parameters) if own => w.key("input_schema").raw(parameters.get()),
                        Some(parameters) => w.key("input_schema").raw(&schema::object(parameters.get())),
                        None => w.key("input_schema").raw(schema::NO_ARGUMENTS),
                    };
                    if own {
                        if let Some(strict) = function.strict {
                            w.key("strict").plain(strict);
                        }
                        w.extra(&function.extra);
                    }
                    w.close(b'}');
                }
                Tool::Opaque { raw, .. } => {
                    w.raw(raw.get());
                }
            }
        }
        w.close(b']');
    }
    if !own && request.tools.is_empty() {
        return;
    }
    let choice = match (&request.tool_choice, request.parallel_tool_calls) {
        (None, None | Some(true)) => return,
        // Only a choice can carry the wish.
        (None, Some(false)) => &ToolChoice::Auto,
        (Some(choice), _) => choice,
    };
    w.key("tool_choice");
    if let ToolChoice::Opaque(raw) = choice {
        w.raw(raw.get());
        return;
    }
    w.open(b'{').key("type");
    match choice {
        ToolChoice::Auto | ToolChoice::Opaque(_) => w.str("auto"),
        ToolChoice::None => w.str("none"),
        ToolChoice::Required => w.str("any"),
        ToolChoice::Named(name) => w.str("tool").key("name").str(name),
    };
    if let Some(parallel) = request.parallel_tool_calls
        && (own || (!parallel && !matches!(choice, ToolChoice::None)))
    {
        w.key("disable_parallel_tool_use").plain(!parallel);
    }
    w.close(b'}');
}
