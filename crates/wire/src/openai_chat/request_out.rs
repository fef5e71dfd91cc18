//! The hub form into a chat completion request.

use crate::{adapt::Adapt, json::Writer, schema};
use outlast_model::{
    policy::Dialect,
    turn::{ImageSource, OutputFormat, Part, Request, Role, Tool, ToolCall, ToolChoice, Turn},
};

/// Writes a request for a target. What the dialect cannot say has been refused before.
pub(crate) fn encode_request(request: &Request, to: &Adapt<'_>) -> Vec<u8> {
    let own = request.origin == Dialect::OpenaiChat;
    let mut w = Writer::default();
    w.open(b'{').key("model").str(to.model);
    w.key("messages").open(b'[');
    for turn in &request.turns {
        messages(turn, own, &mut w);
    }
    w.close(b']');
    if let Some(tokens) = request.max_output_tokens {
        w.key(limit_name(to.model)).plain(tokens);
    }
    for (name, value) in [("temperature", request.temperature), ("top_p", request.top_p)] {
        if let Some(value) = value {
            w.key(name).float(value);
        }
    }
    if !request.stop.is_empty() {
        w.key("stop").open(b'[');
        for stop in &request.stop {
            w.str(stop);
        }
        w.close(b']');
    }
    tools(request, own, &mut w);
    output(&request.output, own, &mut w);
    if let Some(user) = &request.user {
        w.key("user").str(user);
    }
    if request.stream {
        w.key("stream").plain(true);
        if to.ask_usage || (own && request.include_usage) {
            w.key("stream_options").open(b'{').key("include_usage").plain(true).close(b'}');
        }
    }
    if own {
        w.extra(&request.extra);
    }
    w.close(b'}');
    w.finish()
}

/// Writes the messages of a request that came in this dialect.
pub(crate) fn encode_turns(turns: &[Turn]) -> Vec<u8> {
    let mut w = Writer::default();
    w.open(b'[');
    turns.iter().for_each(|turn| messages(turn, true, &mut w));
    w.close(b']');
    w.finish()
}

/// OpenAI's reasoning models know only the new name of the limit and most imitators only the old one; all of OpenAI's
/// own models take the new one, so its model names decide.
pub(crate) fn limit_name(model: &str) -> &'static str {
    let name = model.rsplit('/').next().unwrap_or(model);
    let reasoning = name.strip_prefix('o').is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit()));
    let gpt = (name.starts_with("gpt-") && !name.starts_with("gpt-oss")) || name.starts_with("chatgpt-");
    if reasoning || gpt { "max_completion_tokens" } else { "max_tokens" }
}

fn messages(turn: &Turn, own: bool, w: &mut Writer) {
    // Results of tools are messages of their own, and come before what the user adds.
    for part in &turn.parts {
        if let Part::ToolResult { call_id, content, is_error, .. } = part {
            w.open(b'{').key("role").str("tool").key("tool_call_id").str(call_id).key("content");
            let prefix = if *is_error && !own { "Error: " } else { "" };
            if own {
                self::content(content.iter().collect(), w);
            } else {
                w.str(&format!("{prefix}{}", joined(content, "\n")));
            }
            if own {
                w.extra(&turn.extra);
            }
            w.close(b'}');
        }
    }
    let said = |part: &&Part| !matches!(part, Part::ToolResult { .. });
    let parts: Vec<&Part> = turn.parts.iter().filter(said).collect();
    if parts.is_empty() && turn.parts.iter().any(|part| matches!(part, Part::ToolResult { .. })) {
        return;
    }
    match turn.role {
        Role::Assistant => assistant(&parts, turn, own, w),
        Role::System | Role::Developer | Role::User | Role::Tool => {
            let role = match turn.role {
                Role::System => "system",
                Role::Developer => "developer",
                Role::User | Role::Tool | Role::Assistant => "user",
            };
            w.open(b'{').key("role").str(role).key("content");
            if !own && matches!(turn.role, Role::System | Role::Developer) {
                // Many OpenAI-compatible servers take a system prompt only as one string.
                w.str(&joined(&turn.parts, "\n\n"));
            } else {
                content(parts, w);
            }
            if own {
                w.extra(&turn.extra);
            }
            w.close(b'}');
        }
    }
}

fn assistant(parts: &[&Part], turn: &Turn, own: bool, w: &mut Writer) {
    w.open(b'{').key("role").str("assistant");
    let words: Vec<&Part> = parts
        .iter()
        .copied()
        .filter(|part| matches!(part, Part::Text { .. } | Part::Image { .. }) || (own && is_content(part)))
        .collect();
    w.key("content");
    if words.is_empty() {
        w.raw("null");
    } else if own {
        content(words, w);
    } else {
        // What one turn said is continuous; lists are poorly supported here.
        w.str(&joined_refs(&words, ""));
    }
    let calls: Vec<&ToolCall> =
        parts.iter().filter_map(|part| if let Part::ToolCall(call) = part { Some(call) } else { None }).collect();
    for part in parts {
        match part {
            Part::Reasoning { text, .. } if own => {
                w.key("reasoning_content").str(text);
            }
            Part::Refusal { text } => {
                w.key("refusal").str(text);
            }
            Part::Opaque { kind, raw } if own && matches!(&**kind, "function_call" | "audio") => {
                w.key(kind).raw(raw.get());
            }
            Part::Text { .. }
            | Part::Image { .. }
            | Part::ToolCall(_)
            | Part::ToolResult { .. }
            | Part::Reasoning { .. }
            | Part::RedactedReasoning { .. }
            | Part::Opaque { .. } => {}
        }
    }
    let custom: Vec<&str> = parts
        .iter()
        .filter_map(|part| match part {
            Part::Opaque { kind, raw } if own && &**kind == "custom" => Some(raw.get()),
            Part::Opaque { .. }
            | Part::Text { .. }
            | Part::Image { .. }
            | Part::ToolCall(_)
            | Part::ToolResult { .. }
            | Part::Reasoning { .. }
            | Part::RedactedReasoning { .. }
            | Part::Refusal { .. } => None,
        })
        .collect();
    if !calls.is_empty() || !custom.is_empty() {
        w.key("tool_calls").open(b'[');
        for call in calls {
            tool_call(call, own, w);
        }
        for raw in custom {
            w.raw(raw);
        }
        w.close(b']');
    }
    if own {
        w.extra(&turn.extra);
    }
    w.close(b'}');
}

/// Whether an opaque part came from the content list.
fn is_content(part: &Part) -> bool {
    matches!(part, Part::Opaque { kind, .. } if !matches!(&**kind, "function_call" | "audio" | "custom"))
}

/// Writes one entry of `tool_calls`.
pub(super) fn tool_call(call: &ToolCall, own: bool, w: &mut Writer) {
    w.open(b'{').key("id").str(&call.id).key("type").str("function").key("function").open(b'{');
    w.key("name").str(&call.name).key("arguments").str(&call.arguments).close(b'}');
    if own {
        w.extra(&call.extra);
    }
    w.close(b'}');
}

/// Message content: a plain string if it is nothing but one text.
fn content(parts: Vec<&Part>, w: &mut Writer) {
    if let [Part::Text { text, extra }] = &parts[..]
        && extra.is_empty()
    {
        w.str(text);
        return;
    }
    w.open(b'[');
    for part in parts {
        match part {
            Part::Text { text, extra } => {
                w.open(b'{').key("type").str("text").key("text").str(text).extra(extra).close(b'}');
            }
            Part::Image { source, detail, extra } => {
                w.open(b'{').key("type").str("image_url").key("image_url").open(b'{').key("url");
                match source {
                    ImageSource::Url(url) | ImageSource::File(url) => w.str(url),
                    ImageSource::Base64 { media_type, data } => w.str(&format!("data:{media_type};base64,{data}")),
                };
                if let Some(detail) = detail {
                    w.key("detail").str(detail);
                }
                w.close(b'}').extra(extra).close(b'}');
            }
            Part::Refusal { text } => {
                w.open(b'{').key("type").str("refusal").key("refusal").str(text).close(b'}');
            }
            Part::Opaque { raw, .. } => {
                w.raw(raw.get());
            }
            Part::ToolCall(_) | Part::ToolResult { .. } | Part::Reasoning { .. } | Part::RedactedReasoning { .. } => {}
        }
    }
    w.close(b']');
}

/// The texts of some parts, joined.
pub(crate) fn joined(parts: &[Part], with: &str) -> String {
    joined_refs(&parts.iter().collect::<Vec<_>>(), with)
}

fn joined_refs(parts: &[&Part], with: &str) -> String {
    let texts: Vec<&str> = parts
        .iter()
        .filter_map(|part| match part {
            Part::Text { text, .. } | Part::Refusal { text } => Some(&**text),
            Part::Image { .. }
            | Part::ToolCall(_)
            | Part::ToolResult { .. }
            | Part::Reasoning { .. }
            | Part::RedactedReasoning { .. }
            | Part::Opaque { .. } => None,
        })
        .collect();
    texts.join(with)
}

fn tools(request: &Request, own: bool, w: &mut Writer) {
    if !request.tools.is_empty() {
        w.key("tools").open(b'[');
        for tool in &request.tools {
            match tool {
                Tool::Function(function) => {
                    w.open(b'{').key("type").str("function").key("function").open(b'{').key("name").str(&function.name);
                    if let Some(description) = &function.description {
                        w.key("description").str(description);
                    }
                    if let Some(parameters) = &function.parameters {
                        w.key("parameters").raw(parameters.get());
                    }
                    if let Some(strict) = function.strict {
                        w.key("strict").plain(strict);
                    }
                    w.close(b'}');
                    if own {
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
    match &request.tool_choice {
        Some(ToolChoice::Auto) => {
            w.key("tool_choice").str("auto");
        }
        Some(ToolChoice::None) => {
            w.key("tool_choice").str("none");
        }
        Some(ToolChoice::Required) => {
            w.key("tool_choice").str("required");
        }
        Some(ToolChoice::Named(name)) => {
            w.key("tool_choice").open(b'{').key("type").str("function");
            w.key("function").open(b'{').key("name").str(name).close(b'}').close(b'}');
        }
        Some(ToolChoice::Opaque(raw)) => {
            w.key("tool_choice").raw(raw.get());
        }
        None => {}
    }
    if let Some(parallel) = request.parallel_tool_calls
        && (own || !request.tools.is_empty())
    {
        w.key("parallel_tool_calls").plain(parallel);
    }
}

fn output(format: &OutputFormat, own: bool, w: &mut Writer) {
    match format {
        OutputFormat::Text => {}
        OutputFormat::Json => {
            w.key("response_format").open(b'{').key("type").str("json_object").close(b'}');
        }
        OutputFormat::JsonSchema { name, description, schema, strict, extra } => {
            w.key("response_format").open(b'{').key("type").str("json_schema").key("json_schema").open(b'{');
            w.key("name").str(name.as_deref().unwrap_or("output"));
            if let Some(description) = description {
                w.key("description").str(description);
            }
            w.key("schema").raw(schema.get());
            // OpenAI's strict mode refuses schemas with optional fields; the reply is validated here in any case.
            let strict = strict.or_else(|| (!own && schema::is_openai_strict(schema.get())).then_some(true));
            if let Some(strict) = strict {
                w.key("strict").plain(strict);
            }
            w.extra(extra).close(b'}').close(b'}');
        }
        OutputFormat::Opaque(raw) => {
            w.key("response_format").raw(raw.get());
        }
    }
}
