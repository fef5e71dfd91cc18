//! A request as it came in: read once at its top level, decoded whole only when that is needed, and made ready for
//! any target.

use crate::{
    OutlastObject, anthropic,
    crossing::{self, Fate},
    json::{Unreadable, parse},
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
    outlast: OnceLock<Box<Told>>,
}

/// The `outlast` object, or what is wrong with it.
pub(crate) type Told = Result<OutlastObject, RequestError>;

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
            outlast: OnceLock::new(),
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
            .map(|mut request| {
                request.extra.0.retain(|(name, _)| &**name != "outlast");
                Box::new(request)
            })
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
            more_choices: self.choices() - 1,
            provider_effects: self.has_provider_effects(hub),
            budget: self.outlast().ok().and_then(|outlast| outlast.budget),
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
        // It goes nowhere.
        let own = self.value("outlast").map_or(0, object_estimate);
        input_estimate(&self.body, &self.scan).saturating_sub(own)
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

    /// What the pass over the body found.
    pub(crate) fn scan(&self) -> &Scan {
        &self.scan
    }

    /// Where the `outlast` object is kept once it has been read.
    pub(crate) fn outlast_cell(&self) -> &OnceLock<Box<Told>> {
        &self.outlast
    }

    /// When the request came, in seconds since the Unix epoch; 0 when nobody said.
    pub(crate) fn received_secs(&self) -> u64 {
        self.received_at
    }

    /// What of this request the other dialect cannot carry. `deep`: look into the messages too.
    pub(crate) fn cannot_carry(&self, deep: bool) -> Vec<&'static str> {
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

    pub(crate) fn text(&self) -> &str {
        // Checked on entry; a slice of the same bytes cannot have changed.
        std::str::from_utf8(&self.body).unwrap_or_default()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&scan::Field> {
        self.scan.fields.iter().find(|field| self.body[field.key.clone()] == *name.as_bytes())
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.field(name).and_then(|field| std::str::from_utf8(&self.body[field.value.clone()]).ok())
    }

    pub(crate) fn raw(&self, name: &str) -> Option<&RawValue> {
        self.value(name).filter(|value| *value != "null").and_then(|value| serde_json::from_str(value).ok())
    }

    pub(crate) fn number(&self, name: &str) -> Option<u32> {
        self.value(name).and_then(|value| value.parse().ok())
    }
}

/// The estimated tokens of some JSON: text by script, attachments as images, escapes as what they stand for.
fn input_estimate(json: &[u8], scan: &Scan) -> u32 {
    let attached = u32::try_from(scan.attachment_bytes / 4).unwrap_or(u32::MAX);
    let images = scan.images.max(u32::from(attached > 0)).saturating_mul(tokens::IMAGE_TOKENS);
    tokens::estimate(json)
        .saturating_sub(scan.escape_savings.div_ceil(60))
        .saturating_sub(attached)
        .saturating_add(images)
}

/// The estimated tokens of one JSON object of a body, as they count in the whole body's estimate.
pub(crate) fn object_estimate(object: &str) -> u32 {
    scan::scan(object).map_or(0, |scan| input_estimate(object.as_bytes(), &scan))
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
