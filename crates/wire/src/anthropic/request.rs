//! Message requests into the hub form.

use crate::json::{Fields, Read, Unreadable, own, parse};
use outlast_model::{
    policy::Dialect,
    turn::{Extra, FunctionTool, ImageSource, OutputFormat, Part, Request, Role, Tool, ToolCall, ToolChoice, Turn},
};
use serde_json::value::RawValue;

/// Reads a request. What it only looks into (`output_config`, `metadata`) stays among the rest, so that writing it
/// back to the same dialect loses nothing.
pub(crate) fn decode_request(body: &str) -> Read<Request> {
    let mut f: Fields<'_> = serde_json::from_str(body).map_err(|_| Unreadable("request"))?;
    let mut turns = Vec::new();
    if let Some(system) = f.raw("system") {
        turns.push(Turn { role: Role::System, parts: content(system)?, extra: Extra::default() });
    }
    for message in f.list("messages")? {
        turns.push(turn(message)?);
    }
    let (tool_choice, parallel_tool_calls) = f.raw("tool_choice").map(tool_choice).transpose()?.unwrap_or_default();
    Ok(Request {
        origin: Dialect::Anthropic,
        model: f.need("model")?.into(),
        turns,
        tools: f.list("tools")?.into_iter().map(tool).collect::<Read<_>>()?,
        tool_choice,
        parallel_tool_calls,
        output: output_format(f.look("output_config"), f.look("output_format"))?,
        max_output_tokens: f.count("max_tokens")?,
        temperature: f.get("temperature")?,
        top_p: f.get("top_p")?,
        stop: f.get("stop_sequences")?.unwrap_or_default(),
        stream: f.get("stream")?.unwrap_or(false),
        include_usage: false,
        user: f
            .look("metadata")
            .and_then(|raw| Fields::of(raw, "metadata").ok()?.text("user_id").ok()?)
            .map(Into::into),
        extra: f.rest(),
    })
}

/// Reads `output_config.format`, or `output_format` as its beta called it.
pub(crate) fn output_format(config: Option<&RawValue>, former: Option<&RawValue>) -> Read<OutputFormat> {
    let format = match config {
        Some(config) => Fields::of(config, "output_config")?.raw("format"),
        None => None,
    };
    let Some(raw) = format.or(former) else { return Ok(OutputFormat::Text) };
    let mut f = Fields::of(raw, "format")?;
    Ok(match &*f.need("type")? {
        "json_schema" => OutputFormat::JsonSchema {
            name: f.text("name")?.map(Into::into),
            description: None,
            schema: own(f.raw("schema").ok_or(Unreadable("schema"))?),
            strict: None,
            extra: Extra::default(),
        },
        _ => OutputFormat::Opaque(own(raw)),
    })
}

fn turn(raw: &RawValue) -> Read<Turn> {
    let mut f = Fields::of(raw, "message")?;
    let role = match &*f.need("role")? {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "system" => Role::System,
        _ => return Err(Unreadable("role")),
    };
    let parts = content(f.raw("content").ok_or(Unreadable("content"))?)?;
    Ok(Turn { role, parts, extra: f.rest() })
}

/// Content: a string or a list of blocks.
pub(super) fn content(raw: &RawValue) -> Read<Vec<Part>> {
    match raw.get().as_bytes().first() {
        Some(b'"') => Ok(vec![Part::Text { text: parse(raw, "content")?, extra: Extra::default() }]),
        Some(b'[') => parse::<Vec<&RawValue>>(raw, "content")?.into_iter().map(block).collect(),
        Some(_) | None => Err(Unreadable("content")),
    }
}

/// One content block.
fn block(raw: &RawValue) -> Read<Part> {
    let mut f = Fields::of(raw, "content block")?;
    Ok(match &*f.need("type")? {
        "text" => Part::Text { text: f.need("text")?.into(), extra: f.rest() },
        "image" => match image_source(f.raw("source").ok_or(Unreadable("source"))?)? {
            Some(source) => Part::Image { source, detail: None, extra: f.rest() },
            None => Part::Opaque { kind: "image".into(), raw: own(raw) },
        },
        "tool_use" => Part::ToolCall(ToolCall {
            id: f.need("id")?.into(),
            name: f.need("name")?.into(),
            arguments: f.raw("input").map_or("{}", RawValue::get).into(),
            extra: f.rest(),
        }),
        "tool_result" => Part::ToolResult {
            call_id: f.need("tool_use_id")?.into(),
            content: f.raw("content").map(content).transpose()?.unwrap_or_default(),
            is_error: f.get("is_error")?.unwrap_or(false),
            extra: f.rest(),
        },
        "thinking" => Part::Reasoning {
            text: f.text("thinking")?.unwrap_or_default().into(),
            signature: f.text("signature")?.map(Into::into),
            extra: f.rest(),
        },
        "redacted_thinking" => Part::RedactedReasoning { data: f.need("data")?.into(), extra: f.rest() },
        kind => Part::Opaque { kind: kind.into(), raw: own(raw) },
    })
}

fn image_source(raw: &RawValue) -> Read<Option<ImageSource>> {
    let mut f = Fields::of(raw, "source")?;
    Ok(match &*f.need("type")? {
        "base64" => {
            Some(ImageSource::Base64 { media_type: f.need("media_type")?.into(), data: f.need("data")?.into() })
        }
        "url" => Some(ImageSource::Url(f.need("url")?.into())),
        "file" => Some(ImageSource::File(f.need("file_id")?.into())),
        _ => None,
    })
}

fn tool(raw: &RawValue) -> Read<Tool> {
    let mut f = Fields::of(raw, "tools")?;
    if let Some(kind) = f.text("type")?.filter(|kind| kind != "custom") {
        return Ok(Tool::Opaque { kind: kind.into(), raw: own(raw) });
    }
    Ok(Tool::Function(FunctionTool {
        name: f.need("name")?.into(),
        description: f.text("description")?.map(Into::into),
        parameters: f.raw("input_schema").map(own),
        strict: f.get("strict")?,
        extra: f.rest(),
    }))
}

fn tool_choice(raw: &RawValue) -> Read<(Option<ToolChoice>, Option<bool>)> {
    let mut f = Fields::of(raw, "tool_choice")?;
    let parallel = f.get::<bool>("disable_parallel_tool_use")?.map(|disabled| !disabled);
    let choice = match &*f.need("type")? {
        "auto" => ToolChoice::Auto,
        "any" => ToolChoice::Required,
        "none" => ToolChoice::None,
        "tool" => ToolChoice::Named(f.need("name")?.into()),
        _ => ToolChoice::Opaque(own(raw)),
    };
    Ok((Some(choice), parallel))
}
