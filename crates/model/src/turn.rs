//! One hub form for requests, replies and stream deltas, whatever the dialect.

use crate::policy::Dialect;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// What a reply consumed, as the provider reported it or as estimated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// All input tokens, cached ones included.
    pub input_tokens: u32,
    /// All output tokens, reasoning included.
    pub output_tokens: u32,
    /// Of the input, read from the provider's cache.
    pub cache_read_tokens: u32,
    /// Of the input, written to the provider's cache.
    pub cache_write_tokens: u32,
    /// Of the output, spent on reasoning.
    pub reasoning_tokens: u32,
    /// True when the numbers are our estimate, not the provider's word.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
}

/// Why a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model was done, or met a stop sequence.
    Stop,
    /// The output limit was reached.
    Length,
    /// The model wants tools run.
    ToolCalls,
    /// A content filter cut or withheld the reply.
    ContentFilter,
    /// The model declined.
    Refusal,
    /// A reason only that provider knows; passed on as it is.
    Other,
}

/// Fields this form has no word for, in their order and with their JSON untouched. They mean something only to
/// the dialect they came from and are written back only to it.
#[derive(Clone, Debug, Default)]
pub struct Extra(pub Vec<(Box<str>, Box<RawValue>)>);

impl Extra {
    /// The JSON text of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| &**key == name).map(|(_, value)| value.get())
    }

    /// True when nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One request to a model, whatever the dialect it came in.
#[derive(Clone, Debug)]
pub struct Request {
    /// The dialect it was read from; [`Extra`] and opaque parts belong to it.
    pub origin: Dialect,
    /// What the client named.
    pub model: Box<str>,
    /// The conversation, system prompts included, in order.
    pub turns: Vec<Turn>,
    /// What the model may call.
    pub tools: Vec<Tool>,
    /// Whether it must.
    pub tool_choice: Option<ToolChoice>,
    /// Whether it may call several at once; `None`: the provider's default, which is yes.
    pub parallel_tool_calls: Option<bool>,
    /// The structure demanded of the text.
    pub output: OutputFormat,
    /// Output limit, in tokens.
    pub max_output_tokens: Option<u32>,
    /// Sampling temperature, in the origin's range.
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    pub top_p: Option<f64>,
    /// Stop sequences.
    pub stop: Vec<Box<str>>,
    /// The client wants a stream.
    pub stream: bool,
    /// The client wants the usage at the end of an OpenAI stream.
    pub include_usage: bool,
    /// The end user, as the client names them to the provider.
    pub user: Option<Box<str>>,
    /// Everything else.
    pub extra: Extra,
}

/// One message.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Who speaks.
    pub role: Role,
    /// What is said, in order.
    pub parts: Vec<Part>,
    /// Everything else.
    pub extra: Extra,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The operator's instructions.
    System,
    /// The same, as OpenAI calls it for its reasoning models.
    Developer,
    /// The user, and tool results in dialects that put them there.
    User,
    /// The model.
    Assistant,
    /// Results of tools.
    Tool,
}

/// A piece of a message.
#[derive(Clone, Debug)]
pub enum Part {
    /// Text.
    Text {
        /// The text.
        text: Box<str>,
        /// Everything else.
        extra: Extra,
    },
    /// An image.
    Image {
        /// Where its bytes are.
        source: ImageSource,
        /// How closely to look: OpenAI's `detail`.
        detail: Option<Box<str>>,
        /// Everything else.
        extra: Extra,
    },
    /// The model calls a tool.
    ToolCall(ToolCall),
    /// What a tool answered.
    ToolResult {
        /// The id of the call it answers.
        call_id: Box<str>,
        /// The answer.
        content: Vec<Part>,
        /// The tool failed.
        is_error: bool,
        /// Everything else.
        extra: Extra,
    },
    /// What the model thought.
    Reasoning {
        /// The thought, or its summary.
        text: Box<str>,
        /// The vendor's proof that it wrote it; worthless to any other vendor.
        signature: Option<Box<str>>,
        /// Everything else.
        extra: Extra,
    },
    /// A thought only its vendor can read.
    RedactedReasoning {
        /// The sealed thought.
        data: Box<str>,
        /// Everything else.
        extra: Extra,
    },
    /// The model declines.
    Refusal {
        /// How it says so.
        text: Box<str>,
    },
    /// Something only the origin's dialect can say.
    Opaque {
        /// Its `type`.
        kind: Box<str>,
        /// Its JSON, whole.
        raw: Box<RawValue>,
    },
}

/// A call of a function tool.
#[derive(Clone, Debug)]
pub struct ToolCall {
    /// Pairs it with its result.
    pub id: Box<str>,
    /// The tool.
    pub name: Box<str>,
    /// The arguments as JSON text; `{}` when the model gave none.
    pub arguments: Box<str>,
    /// Everything else.
    pub extra: Extra,
}

/// Where an image's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// To be fetched by the provider.
    Url(Box<str>),
    /// Here.
    Base64 {
        /// Such as `image/png`.
        media_type: Box<str>,
        /// The bytes, in base64.
        data: Box<str>,
    },
    /// A file stored at the origin's vendor, by id.
    File(Box<str>),
}

/// Something the model may call.
#[derive(Clone, Debug)]
pub enum Tool {
    /// A function the client runs.
    Function(FunctionTool),
    /// Something only the origin's dialect has: a tool the provider runs, a grammar...
    Opaque {
        /// Its `type`.
        kind: Box<str>,
        /// Its JSON, whole.
        raw: Box<RawValue>,
    },
}

/// A function the client runs.
#[derive(Clone, Debug)]
pub struct FunctionTool {
    /// Its name.
    pub name: Box<str>,
    /// What it does.
    pub description: Option<Box<str>>,
    /// JSON Schema of its arguments; absent: it takes none.
    pub parameters: Option<Box<RawValue>>,
    /// The provider must hold the arguments to the schema.
    pub strict: Option<bool>,
    /// Everything else.
    pub extra: Extra,
}

/// Whether the model must call a tool.
#[derive(Clone, Debug)]
pub enum ToolChoice {
    /// As it likes.
    Auto,
    /// It must not.
    None,
    /// It must call one.
    Required,
    /// It must call this one.
    Named(Box<str>),
    /// Something only the origin's dialect can say.
    Opaque(Box<RawValue>),
}

/// The structure demanded of the reply's text.
#[derive(Clone, Debug, Default)]
pub enum OutputFormat {
    /// None.
    #[default]
    Text,
    /// One JSON value.
    Json,
    /// One JSON value that keeps a schema.
    JsonSchema {
        /// OpenAI's name for it.
        name: Option<Box<str>>,
        /// What it is for.
        description: Option<Box<str>>,
        /// The JSON Schema.
        schema: Box<RawValue>,
        /// The provider must hold the output to it.
        strict: Option<bool>,
        /// Everything else.
        extra: Extra,
    },
    /// Something only the origin's dialect can say.
    Opaque(Box<RawValue>),
}

/// One whole reply, whatever the dialect it came in.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The dialect it was read from.
    pub origin: Dialect,
    /// The provider's id of it.
    pub id: Box<str>,
    /// The model that answered, in the provider's words.
    pub model: Box<str>,
    /// When, in seconds since the Unix epoch, if the provider says.
    pub created: Option<u64>,
    /// What was said.
    pub parts: Vec<Part>,
    /// Why it ended.
    pub finish: Option<Finish>,
    /// Why it ended, in the provider's word.
    pub finish_word: Option<Box<str>>,
    /// The stop sequence that ended it.
    pub stop_sequence: Option<Box<str>>,
    /// What it consumed.
    pub usage: Option<Usage>,
    /// Everything else.
    pub extra: Extra,
}

/// One step of a streamed reply, borrowed from the frame it came in where possible.
#[derive(Clone, Debug, PartialEq)]
pub enum Delta<'a> {
    /// The reply begins. May come with every frame; only the first counts.
    Start {
        /// The provider's id of it.
        id: Cow<'a, str>,
        /// The model that answers.
        model: Cow<'a, str>,
        /// When, in seconds since the Unix epoch.
        created: Option<u64>,
    },
    /// More text.
    Text(Cow<'a, str>),
    /// More of what the model thinks.
    Reasoning(Cow<'a, str>),
    /// The vendor's proof of the thought that ends here.
    Signature(Cow<'a, str>),
    /// A thought only its vendor can read.
    RedactedReasoning(Cow<'a, str>),
    /// More of how the model declines.
    Refusal(Cow<'a, str>),
    /// A tool call begins or goes on. `id` and `name` come once.
    ToolCall {
        /// Which call of this reply, from 0 in the provider's counting.
        index: u32,
        /// Pairs it with its result.
        id: Option<Cow<'a, str>>,
        /// The tool.
        name: Option<Cow<'a, str>>,
        /// More of the arguments' JSON text.
        arguments: Cow<'a, str>,
    },
    /// A part only the upstream's dialect has goes on or ends; it carries output but no words for it.
    Opaque,
    /// A block ended; a tool call in it is whole.
    BlockEnd,
    /// The reply ended for this reason.
    Finish {
        /// Why.
        finish: Finish,
        /// In the provider's word.
        word: Cow<'a, str>,
        /// The stop sequence that ended it.
        stop_sequence: Option<Cow<'a, str>>,
    },
    /// What was consumed so far. A later one replaces an earlier one.
    Usage(Usage),
    /// The dialect's terminal mark: `[DONE]`, `message_stop`.
    Done,
}
