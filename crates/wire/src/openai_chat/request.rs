//! Chat completion requests into the hub form.

use crate::json::{Fields, Read, Unreadable, own, parse};
use outlast_model::{
    policy::Dialect,
    turn::{Extra, FunctionTool, ImageSource, OutputFormat, Part, Request, Role, Tool, ToolCall, ToolChoice, Turn},
};
use serde_json::value::RawValue;

/// Reads a request.
pub(crate) fn decode_request(body: &str) -> Read<Request> {
    let mut f: Fields<'_> = serde_json::from_str(body).map_err(|_| Unreadable("request"))?;
    let stop = f.raw("stop").map(stop).transpose()?.unwrap_or_default();
    let mut options =
        f.raw("stream_options").map(|raw| Fields::of(raw, "stream_options")).transpose()?.unwrap_or_default();
    let max_tokens = f.count("max_tokens")?;
    Ok(Request {
        origin: Dialect::OpenaiChat,
        model: f.need("model")?.into(),
        turns: f.list("messages")?.into_iter().map(turn).collect::<Read<_>>()?,
        tools: f.list("tools")?.into_iter().map(tool).collect::<Read<_>>()?,
        tool_choice: f.raw("tool_choice").map(tool_choice).transpose()?,
        parallel_tool_calls: f.get("parallel_tool_calls")?,
        output: f.raw("response_format").map(output_format).transpose()?.unwrap_or_default(),
        // The newer name wins; the older one is an alias that some servers still want.
        max_output_tokens: f.count("max_completion_tokens")?.or(max_tokens),
        temperature: f.get("temperature")?,
        top_p: f.get("top_p")?,
        stop,
        stream: f.get("stream")?.unwrap_or(false),
        include_usage: options.get("include_usage")?.unwrap_or(false),
        user: f.text("user")?.map(Into::into),
        extra: f.rest(),
    })
}

/// Reads `response_format`.
pub(crate) fn output_format(raw: &RawValue) -> Read<OutputFormat> {
    let mut f = Fields::of(raw, "response_format")?;
    Ok(match &*f.need("type")? {
        "text" => OutputFormat::Text,
        "json_object" => OutputFormat::Json,
        "json_schema" => {
            let mut f = Fields::of(f.raw("json_schema").ok_or(Unreadable("json_schema"))?, "json_schema")?;
            OutputFormat::JsonSchema {
                name: f.text("name")?.map(Into::into),
                description: f.text("description")?.map(Into::into),
                schema: own(f.raw("schema").ok_or(Unreadable("schema"))?),
                strict: f.get("strict")?,
                extra: f.rest(),
            }
        }
        _ => OutputFormat::Opaque(own(raw)),
    })
}

fn stop(raw: &RawValue) -> Read<Vec<Box<str>>> {
    if raw.get().starts_with('[') { parse(raw, "stop") } else { Ok(vec![parse(raw, "stop")?]) }
}

fn turn(raw: &RawValue) -> Read<Turn> {
    let mut f = Fields::of(raw, "message")?;
    let role = match &*f.need("role")? {
        "system" => Role::System,
        "developer" => Role::Developer,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        _ => return Err(Unreadable("role")),
    };
    let mut parts = Vec::new();
    if role == Role::Assistant {
        let thought = f.text("reasoning_content")?;
        if let Some(text) = thought.or(text_if_text(&mut f, "reasoning")).filter(|text| !text.is_empty()) {
            parts.push(Part::Reasoning { text: text.into(), signature: None, extra: Extra::default() });
        }
    }
    let content = f.raw("content").map(content).transpose()?.unwrap_or_default();
    if role == Role::Tool {
        let call_id = f.need("tool_call_id")?.into();
        parts.push(Part::ToolResult { call_id, content, is_error: false, extra: Extra::default() });
    } else {
        parts.extend(content);
    }
    if role == Role::Assistant {
        if let Some(text) = f.text("refusal")?.filter(|text| !text.is_empty()) {
            parts.push(Part::Refusal { text: text.into() });
        }
        for call in f.list("tool_calls")? {
            parts.push(tool_call(call)?);
        }
        // The former way to call a function, and a reference to spoken output: this form has no words for them.
        for name in ["function_call", "audio"] {
            if let Some(raw) = f.raw(name) {
                parts.push(Part::Opaque { kind: name.into(), raw: own(raw) });
            }
        }
    }
    Ok(Turn { role, parts, extra: f.rest() })
}

/// A field that some providers fill with something else than text, which then stays among the rest.
fn text_if_text<'a>(f: &mut Fields<'a>, name: &'static str) -> Option<std::borrow::Cow<'a, str>> {
    if f.peek(name).is_some_and(|value| value.starts_with('"')) { f.text(name).ok().flatten() } else { None }
}

/// Message content: a string or a list of parts.
pub(super) fn content(raw: &RawValue) -> Read<Vec<Part>> {
    match raw.get().as_bytes().first() {
        Some(b'"') => Ok(vec![Part::Text { text: parse(raw, "content")?, extra: Extra::default() }]),
        Some(b'[') => parse::<Vec<&RawValue>>(raw, "content")?.into_iter().map(part).collect(),
        Some(_) | None => Err(Unreadable("content")),
    }
}

fn part(raw: &RawValue) -> Read<Part> {
    if raw.get().starts_with('"') {
        return Ok(Part::Text { text: parse(raw, "content part")?, extra: Extra::default() });
    }
    let mut f = Fields::of(raw, "content part")?;
    Ok(match &*f.need("type")? {
        "text" => Part::Text { text: f.need("text")?.into(), extra: f.rest() },
        "refusal" => Part::Refusal { text: f.need("refusal")?.into() },
        "image_url" => {
            let url = f.raw("image_url").ok_or(Unreadable("image_url"))?;
            if url.get().starts_with('"') {
                let source = image_source(&parse::<Box<str>>(url, "image_url")?);
                Part::Image { source, detail: None, extra: f.rest() }
            } else {
                let mut inner = Fields::of(url, "image_url")?;
                let source = image_source(&inner.need("url")?);
                Part::Image { source, detail: inner.text("detail")?.map(Into::into), extra: f.rest() }
            }
        }
        kind => Part::Opaque { kind: kind.into(), raw: own(raw) },
    })
}

fn image_source(url: &str) -> ImageSource {
    // data:image/png;base64,AAAA
    let inline = url.strip_prefix("data:").and_then(|rest| rest.split_once(','));
    match inline.and_then(|(head, data)| Some((head.strip_suffix(";base64")?, data))) {
        Some((media_type, data)) => ImageSource::Base64 { media_type: media_type.into(), data: data.into() },
        None => ImageSource::Url(url.into()),
    }
}

/// One entry of `tool_calls`.
pub(super) fn tool_call(raw: &RawValue) -> Read<Part> {
    let mut f = Fields::of(raw, "tool_calls")?;
    let kind = f.text("type")?.unwrap_or("function".into());
    if kind != "function" {
        return Ok(Part::Opaque { kind: kind.into(), raw: own(raw) });
    }
    let mut function = Fields::of(f.raw("function").ok_or(Unreadable("function"))?, "function")?;
    let arguments = function.text("arguments")?.unwrap_or_default();
    Ok(Part::ToolCall(ToolCall {
        id: f.text("id")?.unwrap_or_default().into(),
        name: function.need("name")?.into(),
        arguments: if arguments.trim().is_empty() { "{}".into() } else { arguments.into() },
        extra: f.rest(),
    }))
}

fn tool(raw: &RawValue) -> Read<Tool> {
    let mut f = Fields::of(raw, "tools")?;
    let kind = f.text("type")?.unwrap_or("function".into());
    if kind != "function" {
        return Ok(Tool::Opaque { kind: kind.into(), raw: own(raw) });
    }
    let Some(function) = f.raw("function") else {
        return Ok(Tool::Opaque { kind: "function without `function`".into(), raw: own(raw) });
    };
    let mut function = Fields::of(function, "function")?;
    Ok(Tool::Function(FunctionTool {
        name: function.need("name")?.into(),
        description: function.text("description")?.map(Into::into),
        parameters: function.raw("parameters").map(own),
        strict: function.get("strict")?,
        extra: f.rest(),
    }))
}

fn tool_choice(raw: &RawValue) -> Read<ToolChoice> {
    if raw.get().starts_with('"') {
        return Ok(match &*parse::<Box<str>>(raw, "tool_choice")? {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::None,
            "required" | "any" => ToolChoice::Required,
            _ => ToolChoice::Opaque(own(raw)),
        });
    }
    let mut f = Fields::of(raw, "tool_choice")?;
    if f.text("type")?.as_deref() != Some("function") {
        return Ok(ToolChoice::Opaque(own(raw)));
    }
    let mut function = Fields::of(f.raw("function").ok_or(Unreadable("tool_choice"))?, "tool_choice")?;
    Ok(ToolChoice::Named(function.need("name")?.into()))
}
