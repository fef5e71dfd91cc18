//! A request as it came in: read once at its top level, decoded whole only when that is needed, and made ready for
//! any target.

use crate::{
    anthropic,
    crossing::{self, Fate},
    json::{Unreadable, Writer, parse},
    openai_chat,
    scan::{self, Scan, ScanError},
    tokens,
};
use bytes::Bytes;
use outlast_model::{
    policy::{Dialect, Needs, OutputNeed},
    turn::{OutputFormat, Part, Request},
};
use serde_json::value::RawValue;
use std::{fmt, sync::OnceLock};

/// A client's request, read once at its top level. Immutable, cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Inbound {
    dialect: Dialect,
    body: Bytes,
    scan: Scan,
    model: Box<str>,
    stream: bool,
    received_at: u64,
    input_tokens: OnceLock<u32>,
    output: OnceLock<OutputFormat>,
    hub: OnceLock<Result<Box<Request>, Unreadable>>,
}

/// Why a request cannot be read. The client's fault: an `invalid_request`, HTTP 400.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestError {
    /// What, where, why and what to do, in one line. Holds field names and positions, never values.
    pub message: String,
    /// The field at fault, if one is.
    pub param: Option<&'static str>,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RequestError {}

/// What an adaptation is for.
#[derive(Clone, Copy, Debug)]
pub struct Adapt<'a> {
    /// What the target speaks.
    pub dialect: Dialect,
    /// The target's name of the model.
    pub model: &'a str,
    /// The most output tokens the target can write, if known. Anthropic demands a limit; see `docs/crossings.md`.
    pub max_output: Option<u32>,
    /// Whether `stream_options.include_usage` may be added to an OpenAI stream. False for servers that reject it.
    pub ask_usage: bool,
}

/// A request ready for a target.
#[derive(Clone, Debug)]
pub struct Adapted {
    /// The body, in order. Same dialect: slices of the client's body around the edits.
    pub body: Vec<Bytes>,
    /// More than splicing was done: what the target rejects may be our doing.
    pub adapted: bool,
    /// The usage chunk was not asked for by the client: give this to [`crate::StreamReader::new`].
    pub strip_usage: bool,
}

impl Adapted {
    /// The body's length, for `content-length`.
    pub fn len(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }

    /// True when there is no body; it never is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What this request says that the target's dialect cannot. Never sent; the plan leaves such targets out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// Names of [`crate::crossing`]'s features.
    pub features: Vec<&'static str>,
}

/// An edit of the body: these bytes are replaced by those.
type Edit = (std::ops::Range<usize>, Bytes);

impl Inbound {
    /// Reads a request's top level.
    /// # Errors
    /// When it is not one JSON object with a `model` and `messages`, nests too deep, or says a field twice.
    pub fn parse(dialect: Dialect, body: Bytes) -> Result<Inbound, RequestError> {
        let text = std::str::from_utf8(&body).map_err(|error| RequestError {
            message: format!(
                "The request body is not UTF-8 (byte {}). Send JSON encoded as UTF-8.",
                error.valid_up_to()
            ),
            param: None,
        })?;
        let scan = scan::scan(text).map_err(not_json)?;
        for (at, field) in scan.fields.iter().enumerate() {
            let name = &text[field.key.clone()];
            if scan.fields[..at].iter().any(|earlier| text[earlier.key.clone()] == *name) {
                return Err(twice(name));
            }
        }
        let model = match value_in(&scan, text, "model").map(serde_json::from_str::<Box<str>>) {
            Some(Ok(model)) if !model.is_empty() => model,
            Some(Ok(_) | Err(_)) => {
                return Err(wrong("model", "a non-empty string: the name of a route or of a target"));
            }
            None => {
                return Err(RequestError {
                    message: "`model` is missing. Name a route or a `provider/model`; GET /v1/models lists them."
                        .into(),
                    param: Some("model"),
                });
            }
        };
        let stream = match value_in(&scan, text, "stream") {
            None | Some("false" | "null") => false,
            Some("true") => true,
            Some(_) => return Err(wrong("stream", "true or false")),
        };
        match value_in(&scan, text, "messages") {
            Some(list) if list.starts_with('[') && list != "[]" => {}
            Some(_) => return Err(wrong("messages", "a list with at least one message")),
            None => {
                return Err(RequestError {
                    message: "`messages` is missing. Give the conversation as a list of messages.".into(),
                    param: Some("messages"),
                });
            }
        }
        Ok(Inbound {
            dialect,
            model,
            stream,
            scan,
            received_at: 0,
            input_tokens: OnceLock::new(),
            output: OnceLock::new(),
            hub: OnceLock::new(),
            body,
        })
    }

    /// Notes when the request came, in seconds since the Unix epoch; replies that must carry a time carry this one.
    pub fn received_at(mut self, unix_secs: u64) -> Self {
        self.received_at = unix_secs;
        self
    }

    /// What the client speaks.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The body as it came.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// What the client named as `model`.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Whether the client wants a stream.
    pub fn stream(&self) -> bool {
        self.stream
    }

    /// How many choices it asks for; OpenAI's `n`. At least 1, at most 128.
    pub fn choices(&self) -> u32 {
        match self.dialect {
            Dialect::OpenaiChat => self.number("n").unwrap_or(1).clamp(1, 128),
            Dialect::Anthropic => 1,
        }
    }

    /// The structure it demands of the reply's text. A demand that cannot be read is left to the provider to judge.
    pub fn output(&self) -> &OutputFormat {
        self.output.get_or_init(|| {
            match self.dialect {
                Dialect::OpenaiChat => {
                    self.raw("response_format").map_or(Ok(OutputFormat::Text), openai_chat::output_format)
                }
                Dialect::Anthropic => anthropic::output_format(self.raw("output_config"), self.raw("output_format")),
            }
            .unwrap_or_default()
        })
    }

    /// The whole request in the hub form, decoded on first use.
    /// # Errors
    /// When it says something in a form that neither dialect's documentation knows.
    pub(crate) fn hub(&self) -> Result<&Request, Unreadable> {
        let hub = self.hub.get_or_init(|| {
            match self.dialect {
                Dialect::OpenaiChat => openai_chat::decode_request(self.text()),
                Dialect::Anthropic => anthropic::decode_request(self.text()),
            }
            .map(Box::new)
        });
        hub.as_deref().map_err(|unreadable| *unreadable)
    }

    /// What it needs of a target.
    pub fn needs(&self) -> Needs {
        let signs = self.scan.signs;
        let offers_tools = self.value("tools").is_some_and(|tools| !matches!(tools, "[]" | "null"));
        let deep = signs.unusual || signs.images || (signs.tool_traffic && !offers_tools);
        let hub = if deep { self.hub().ok() } else { None };
        let mut needs = Needs {
            stream: self.stream,
            tools: offers_tools || (deep && hub.is_none_or(has_tool_traffic)),
            images: signs.images && hub.is_none_or(has_images),
            output: match self.output() {
                OutputFormat::Text | OutputFormat::Opaque(_) => OutputNeed::Text,
                OutputFormat::Json => OutputNeed::Json,
                OutputFormat::JsonSchema { .. } => OutputNeed::JsonSchema,
            },
            input_tokens: self.input_tokens(),
            max_output_tokens: self.number("max_completion_tokens").or_else(|| self.number("max_tokens")),
            provider_effects: false,
            budget: None,
            cannot_carry: Default::default(),
        };
        for to in Dialect::ALL {
            if to != self.dialect {
                needs.cannot_carry[to.index()] = self.cannot_carry(deep);
            }
        }
        needs
    }

    /// The estimated input, in tokens: text by script, attachments as images.
    pub fn input_tokens(&self) -> u32 {
        *self.input_tokens.get_or_init(|| self.estimate_input())
    }

    fn estimate_input(&self) -> u32 {
        let attached = u32::try_from(self.scan.attachment_bytes / 4).unwrap_or(u32::MAX);
        let images = self.scan.images.max(u32::from(attached > 0)).saturating_mul(tokens::IMAGE_TOKENS);
        tokens::estimate(&self.body).saturating_sub(attached).saturating_add(images)
    }

    /// Makes it ready for a target.
    /// # Errors
    /// When the target's dialect cannot say what this request says.
    pub fn adapt(&self, to: &Adapt<'_>) -> Result<Adapted, Unsupported> {
        if to.dialect == self.dialect && !self.has_unsigned_thoughts() {
            return Ok(self.splice(to));
        }
        let hub = self.hub().map_err(|_| Unsupported { features: vec![crossing::UNREADABLE] })?;
        if to.dialect != self.dialect {
            let features = self.cannot_carry(true);
            if !features.is_empty() {
                return Err(Unsupported { features });
            }
        }
        let body = match to.dialect {
            Dialect::OpenaiChat => openai_chat::encode_request(hub, to),
            Dialect::Anthropic => anthropic::encode_request(hub, to),
        };
        let strip_usage = to.dialect == Dialect::OpenaiChat
            && self.dialect == Dialect::OpenaiChat
            && self.stream
            && to.ask_usage
            && !self.wants_usage();
        Ok(Adapted { body: vec![body.into()], adapted: true, strip_usage })
    }

    /// Whether an OpenAI client asked for the usage chunk.
    pub(crate) fn wants_usage(&self) -> bool {
        #[derive(serde::Deserialize)]
        struct Options {
            include_usage: Option<bool>,
        }
        let options = self.raw("stream_options").and_then(|raw| parse::<Options>(raw, "stream_options").ok());
        options.and_then(|options| options.include_usage).unwrap_or(false)
    }

    /// Whether an Anthropic client asked to see the model think.
    pub(crate) fn wants_thoughts(&self) -> bool {
        self.dialect == Dialect::Anthropic
            && self.value("thinking").is_some_and(|thinking| !thinking.contains("\"disabled\"") && thinking != "null")
    }

    /// When the request came, in seconds since the Unix epoch; 0 when nobody said.
    pub(crate) fn received_secs(&self) -> u64 {
        self.received_at
    }

    /// The client's own body with the listed edits: `model`, and a usage chunk asked for on an OpenAI stream.
    fn splice(&self, to: &Adapt<'_>) -> Adapted {
        let mut edits: Vec<Edit> = Vec::with_capacity(2);
        if to.model != &*self.model
            && let Some(field) = self.field("model")
        {
            let mut model = Writer::default();
            model.str(to.model);
            edits.push((field.value.clone(), model.finish().into()));
        }
        let strip_usage = self.dialect == Dialect::OpenaiChat && self.stream && to.ask_usage && !self.wants_usage();
        if strip_usage && let Some(edit) = self.ask_usage() {
            edits.push(edit);
        }
        edits.sort_by_key(|(span, _)| span.start);
        let mut body = Vec::with_capacity(2 * edits.len() + 1);
        let mut from = 0;
        for (span, new) in edits {
            body.push(self.body.slice(from..span.start));
            body.push(new);
            from = span.end;
        }
        body.push(self.body.slice(from..));
        Adapted { body, adapted: false, strip_usage }
    }

    /// The edit that adds `stream_options.include_usage`, keeping the other options as they are.
    fn ask_usage(&self) -> Option<Edit> {
        let mut new = Writer::default();
        match self.field("stream_options") {
            Some(field) if self.body[field.value.clone()].starts_with(b"{") => {
                let mut options =
                    serde_json::from_slice::<crate::json::Fields<'_>>(&self.body[field.value.clone()]).ok()?;
                options.raw("include_usage");
                new.open(b'{').key("include_usage").plain(true).extra(&options.rest()).close(b'}');
                Some((field.value.clone(), new.finish().into()))
            }
            Some(field) => {
                new.raw(r#"{"include_usage":true}"#);
                Some((field.value.clone(), new.finish().into()))
            }
            None => {
                // The object is not empty (it has a model), so a comma is right before its closing brace.
                let end = self.body.iter().rposition(|&byte| byte == b'}')?;
                Some((end..end, Bytes::from_static(br#","stream_options":{"include_usage":true}"#)))
            }
        }
    }

    /// Thoughts without a signature can only be ones we made of another vendor's reasoning in an earlier reply.
    /// Anthropic refuses them, so such a request is re-encoded without them.
    fn has_unsigned_thoughts(&self) -> bool {
        self.dialect == Dialect::Anthropic
            && self.scan.signs.signatures
            && [&br#""signature":"""#[..], br#""signature": """#]
                .iter()
                .any(|needle| memchr::memmem::find(&self.body, needle).is_some())
            && self.hub().is_ok_and(|hub| {
                let mut parts = hub.turns.iter().flat_map(|turn| &turn.parts);
                parts.any(|part| matches!(part, Part::Reasoning { signature, .. } if signature.as_deref().is_none_or(str::is_empty)))
            })
    }

    /// What of this request the other dialect cannot carry. `deep`: look into the messages too.
    fn cannot_carry(&self, deep: bool) -> Vec<&'static str> {
        let body = &self.body[..];
        let mut found = Vec::new();
        for field in &self.scan.fields {
            let (name, fate) = crossing::of_field(self.dialect, &body[field.key.clone()], &body[field.value.clone()]);
            if fate == Fate::Cannot {
                found.push(name);
            }
        }
        if self.scan.last_role.clone().is_some_and(|span| body[span] == *b"assistant") {
            found.push(crossing::PREFILL);
        }
        if deep {
            match self.hub() {
                Ok(hub) => crossing::of_request(hub, &mut found),
                Err(_) => found.push(crossing::UNREADABLE),
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    fn text(&self) -> &str {
        // Checked on entry; a slice of the same bytes cannot have changed.
        std::str::from_utf8(&self.body).unwrap_or_default()
    }

    fn field(&self, name: &str) -> Option<&scan::Field> {
        self.scan.fields.iter().find(|field| self.body[field.key.clone()] == *name.as_bytes())
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.field(name).and_then(|field| std::str::from_utf8(&self.body[field.value.clone()]).ok())
    }

    fn raw(&self, name: &str) -> Option<&RawValue> {
        self.value(name).filter(|value| *value != "null").and_then(|value| serde_json::from_str(value).ok())
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.value(name).and_then(|value| value.parse().ok())
    }
}

fn has_images(hub: &Request) -> bool {
    fn among(parts: &[Part]) -> bool {
        parts.iter().any(|part| match part {
            Part::Image { .. } => true,
            Part::ToolResult { content, .. } => among(content),
            Part::Text { .. }
            | Part::ToolCall(_)
            | Part::Reasoning { .. }
            | Part::RedactedReasoning { .. }
            | Part::Refusal { .. }
            | Part::Opaque { .. } => false,
        })
    }
    hub.turns.iter().any(|turn| among(&turn.parts))
}

fn has_tool_traffic(hub: &Request) -> bool {
    let mut parts = hub.turns.iter().flat_map(|turn| &turn.parts);
    !hub.tools.is_empty() || parts.any(|part| matches!(part, Part::ToolCall(_) | Part::ToolResult { .. }))
}

fn value_in<'a>(scan: &Scan, text: &'a str, name: &str) -> Option<&'a str> {
    let field = scan.fields.iter().find(|field| text[field.key.clone()] == *name)?;
    Some(&text[field.value.clone()])
}

fn not_json(error: ScanError) -> RequestError {
    RequestError {
        message: format!(
            "The request body cannot be read: at byte {} {}. Send one JSON object, nested at most {} deep.",
            error.at,
            error.why,
            scan::DEPTH_MAX
        ),
        param: None,
    }
}

fn wrong(param: &'static str, must_be: &str) -> RequestError {
    RequestError { message: format!("`{param}` must be {must_be}."), param: Some(param) }
}

fn twice(name: &str) -> RequestError {
    // A name is not a value, but an absurd one is not repeated to the log either.
    let name: String = name.chars().filter(|letter| !letter.is_control()).take(64).collect();
    RequestError {
        message: format!("`{name}` is given twice, so it is ambiguous which one counts. Give it once."),
        param: None,
    }
}
