//! What is answered: deterministic text, tool calls or structured output, and what a fault does to it.

use super::{
    asked::{Asked, ToolChoice},
    instance::instance,
};
use outlast_drill::{
    Fault,
    fault::{CutAt, Position, Slip},
};
use outlast_model::turn::Finish;
use serde_json::{Value, json};
use std::borrow::Cow;

/// A piece of text that one stream chunk carries: about a token.
pub(super) type Piece = Cow<'static, str>;

/// A reply, before it is put into a dialect.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) reasoning: Vec<Piece>,
    pub(super) content: Content,
    /// `None` when the reply does not say why it ended.
    pub(super) finish: Option<Finish>,
    pub(super) input_tokens: u32,
    pub(super) cached_tokens: u32,
    pub(super) output_tokens: u32,
    /// An unknown field nested this deep goes into the first chunk or body.
    pub(super) deep: Option<u32>,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    Text(Vec<Piece>),
    Tools(Vec<ToolCall>),
    Refusal(Vec<Piece>),
    Nothing,
}

#[derive(Clone, Debug)]
pub(super) struct ToolCall {
    pub(super) name: String,
    /// The arguments, as JSON text in at least two pieces.
    pub(super) arguments: Vec<Piece>,
}

/// Prompts from this size on report half their input as read from the cache, as OpenAI's do.
const CACHED_FROM_TOKENS: u32 = 1024;

/// How many chunks a plain answer has when nobody says.
const CHUNKS: usize = 16;

impl Answer {
    /// The answer of the fake called `name`, bent by `fault` where the fault is one of content.
    pub(super) fn of(asked: &Asked, name: &str, chunks: Option<u32>, fault: Option<&Fault>) -> Answer {
        let content = content(asked, name, chunks, fault);
        let reasoning: Vec<Piece> = if asked.model.name.contains("reason") {
            words("The question is short, so the answer can be.")
        } else {
            Vec::new()
        };
        let finish = match &content {
            Content::Tools(_) => Finish::ToolCalls,
            Content::Refusal(_) => Finish::Refusal,
            Content::Text(_) | Content::Nothing => Finish::Stop,
        };
        let cached_tokens =
            if asked.input_tokens >= CACHED_FROM_TOKENS { asked.input_tokens / 2 / 128 * 128 } else { 0 };
        let mut answer = Answer {
            reasoning,
            content,
            finish: Some(finish),
            input_tokens: asked.input_tokens,
            cached_tokens,
            output_tokens: 0,
            deep: None,
        };
        answer.limit(asked.output_limit);
        if let Some(fault) = fault {
            answer.bend(fault, asked.stream);
        }
        answer.output_tokens = u32::try_from(answer.reasoning.len() + answer.content.pieces()).unwrap_or(u32::MAX);
        answer
    }

    /// A model stops at its output limit, reasoning included.
    fn limit(&mut self, limit: Option<u32>) {
        let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { return };
        if self.reasoning.len() + self.content.pieces() <= limit {
            return;
        }
        self.reasoning.truncate(limit);
        self.content.truncate(limit - self.reasoning.len());
        self.finish = Some(Finish::Length);
    }

    fn bend(&mut self, fault: &Fault, stream: bool) {
        match fault {
            Fault::Empty { body: _ } => {
                self.reasoning.clear();
                self.content = Content::Nothing;
            }
            Fault::ContentFilter => {
                self.content = Content::Nothing;
                self.finish = Some(Finish::ContentFilter);
            }
            Fault::Truncated => {
                self.content.truncate(self.content.pieces() / 2);
                self.finish = Some(Finish::Length);
            }
            Fault::NoTerminal { after_finish: false } if stream => self.finish = None,
            Fault::HugeLine { bytes } => {
                let huge = Cow::Owned("x".repeat(usize::try_from(*bytes).unwrap_or(usize::MAX)));
                match &mut self.content {
                    Content::Text(pieces) | Content::Refusal(pieces) if !pieces.is_empty() => pieces[0] = huge,
                    Content::Text(_) | Content::Refusal(_) | Content::Tools(_) | Content::Nothing => {}
                }
            }
            Fault::DeepJson { depth } => self.deep = Some(*depth),
            Fault::Verbose { times } => self.go_on(usize::try_from(*times).unwrap_or(usize::MAX)),
            Fault::Latency(_)
            | Fault::FirstToken(_)
            | Fault::Hang(Position::BeforeHeaders | Position::AfterHeaders)
            | Fault::RateLimit { .. }
            | Fault::Status { .. }
            | Fault::Reset(_)
            | Fault::Cut { .. }
            | Fault::Stall { .. }
            | Fault::Drip { .. }
            | Fault::MalformedChunk { .. }
            | Fault::NoTerminal { .. }
            | Fault::ErrorEvent { .. }
            | Fault::ErrorIn200
            | Fault::InvalidJson
            | Fault::SchemaDrift
            | Fault::Refusal
            | Fault::ContextExceeded
            | Fault::Auth
            | Fault::Quota
            | Fault::AccessDenied(_)
            | Fault::UnsupportedTools
            | Fault::BadToolArgs
            | Fault::Say(_)
            | Fault::JsonSlip(_)
            | Fault::Wrong
            | Fault::RefuseConnections => {}
        }
    }

    /// Filler after the text; blanks after JSON, which change nothing but the bill.
    fn go_on(&mut self, times: usize) {
        let Content::Text(pieces) = &mut self.content else { return };
        let filler = if pieces.first().is_some_and(|first| first.starts_with('{')) { "    " } else { " and so on" };
        let more = pieces.len().saturating_mul(times);
        pieces.extend(std::iter::repeat_n(Cow::Borrowed(filler), more));
    }
}

impl Content {
    /// Semantic outputs a stream of it has.
    pub(super) fn pieces(&self) -> usize {
        match self {
            Content::Text(pieces) | Content::Refusal(pieces) => pieces.len(),
            Content::Tools(calls) => calls.iter().map(|call| call.arguments.len()).sum(),
            Content::Nothing => 0,
        }
    }

    /// Keeps the first `pieces`. A tool call loses the end of its arguments, later calls vanish.
    fn truncate(&mut self, pieces: usize) {
        match self {
            Content::Text(all) | Content::Refusal(all) => all.truncate(pieces),
            Content::Tools(calls) => {
                let mut left = pieces;
                calls.retain_mut(|call| {
                    call.arguments.truncate(left);
                    left -= call.arguments.len();
                    !call.arguments.is_empty()
                });
                if calls.is_empty() {
                    *self = Content::Nothing;
                }
            }
            Content::Nothing => {}
        }
    }
}

fn content(asked: &Asked, name: &str, chunks: Option<u32>, fault: Option<&Fault>) -> Content {
    if matches!(fault, Some(Fault::Refusal)) {
        return Content::Refusal(words("I'm very sorry, but I can't assist with that request."));
    }
    if let Some(Fault::Say(text)) = fault {
        return Content::Text(words(text));
    }
    let called = tools_to_call(asked, fault.is_some_and(wants_a_tool_call));
    if !called.is_empty() {
        let call = |tool: &str| ToolCall { name: tool.to_owned(), arguments: arguments(asked, tool, fault) };
        return Content::Tools(called.into_iter().map(call).collect());
    }
    if !asked.plannable.is_empty() {
        return Content::Text(split(planned(asked), 8));
    }
    if let Some(schema) = &asked.format {
        return Content::Text(split(structured(schema, fault), 8));
    }
    if matches!(fault, Some(Fault::Wrong)) {
        return Content::Text(words(
            "It is certainly the other way round, and always was; there is no doubt about it.",
        ));
    }
    Content::Text(prose(asked, name, asked.model.chunks.or(chunks)))
}

/// The plan of one who cannot act: the actions named as `tool:NAME`.
fn planned(asked: &Asked) -> String {
    let called = asked.text.split("tool:").skip(1).map(word);
    let known = called.filter_map(|name| asked.plannable.iter().find(|tool| tool.name == name));
    let plan: Vec<Value> = known
        .map(|tool| json!({"tool": tool.name, "arguments": instance(&tool.schema), "reason": "It was asked for.", "evidence": []}))
        .collect();
    json!({"text": if plan.is_empty() { "Nothing needs to be done." } else { "This is what I would do." }, "plan": plan})
        .to_string()
}

/// Faults of tool calls need one to show themselves in.
fn wants_a_tool_call(fault: &Fault) -> bool {
    matches!(fault, Fault::BadToolArgs | Fault::Truncated | Fault::Cut { at: CutAt::InsideTool, how: _ })
}

/// The tools that are called: those the choice forces, those named as `tool:NAME`, or the first when the text asks to
/// "use the tool" or a fault needs a call.
fn tools_to_call<'a>(asked: &'a Asked, needed: bool) -> Vec<&'a str> {
    let offered = || asked.tools.iter().map(|tool| tool.name.as_str());
    let first = || offered().next().into_iter().collect::<Vec<_>>();
    let known = |name: &str| offered().find(|tool| *tool == name);
    match &asked.choice {
        ToolChoice::Never => return Vec::new(),
        ToolChoice::Named(name) => return known(name).into_iter().collect(),
        ToolChoice::Any | ToolChoice::Auto => {}
    }
    let mut named: Vec<&'a str> = Vec::new();
    if !asked.after_tool {
        named = asked.text.split("tool:").skip(1).filter_map(|rest| known(word(rest))).collect();
    }
    if !named.is_empty() {
        named.truncate(if asked.parallel { usize::MAX } else { 1 });
        return named;
    }
    let text = asked.text.to_lowercase();
    let invited = !asked.after_tool && (text.contains("use the tool") || text.contains("call the tool"));
    if invited || needed || asked.choice == ToolChoice::Any { first() } else { Vec::new() }
}

/// The tool name at the start of a text.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).unwrap_or(text.len());
    &text[..end]
}

fn arguments(asked: &Asked, tool: &str, fault: Option<&Fault>) -> Vec<Piece> {
    let schema = asked.tools.iter().find(|offered| offered.name == tool).map_or(&Value::Null, |tool| &tool.schema);
    let forced = asked.choice == ToolChoice::Named(tool.to_owned());
    let text = match fault {
        Some(Fault::BadToolArgs) => r#"{"city": "Par" is, 3"#.to_owned(),
        // A forced tool is how structured output is asked of Anthropic's older models.
        Some(Fault::InvalidJson) if forced => r#"{"status": ok, "items": [1, 2"#.to_owned(),
        Some(Fault::SchemaDrift) if forced => drifted(schema).to_string(),
        Some(_) | None => instance(schema).to_string(),
    };
    split(text, 4)
}

fn structured(schema: &Value, fault: Option<&Fault>) -> String {
    match fault {
        Some(Fault::InvalidJson) => r#"Here is the result you asked for: {"status": ok, "items": [1, 2"#.to_owned(),
        Some(Fault::SchemaDrift) => drifted(schema).to_string(),
        Some(Fault::JsonSlip(slip)) => slipped(&structured(schema, None), *slip),
        Some(Fault::Wrong) => wrong(instance(schema)).to_string(),
        Some(_) | None if *schema == Value::Bool(true) => json!({"status": "ok"}).to_string(),
        Some(_) | None => instance(schema).to_string(),
    }
}

/// Good JSON with a slip of form.
fn slipped(json: &str, slip: Slip) -> String {
    match slip {
        Slip::Fences => format!("```json\n{json}\n```"),
        Slip::TrailingCommas => with_trailing_commas(json),
        Slip::Closers => json.trim_end_matches(['}', ']']).to_owned(),
    }
}

/// The instances hold no brackets in their strings.
fn with_trailing_commas(json: &str) -> String {
    let mut slipped = String::with_capacity(json.len() + 8);
    for letter in json.chars() {
        if matches!(letter, '}' | ']') && !slipped.ends_with(['{', '[']) {
            slipped.push(',');
        }
        slipped.push(letter);
    }
    slipped
}

/// Every free text another one, every number the next: as valid as before, and wrong.
fn wrong(value: Value) -> Value {
    match value {
        Value::String(text) if text.parse::<f64>().is_err() => Value::String(text.chars().rev().collect()),
        Value::Array(all) => Value::Array(all.into_iter().map(wrong).collect()),
        Value::Object(fields) => Value::Object(fields.into_iter().map(|(name, value)| (name, wrong(value))).collect()),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => other,
    }
}

/// An object with other field names; where the schema would take any object, no object at all.
fn drifted(schema: &Value) -> Value {
    let demands = schema["required"].as_array().is_some_and(|fields| !fields.is_empty());
    if demands || schema["additionalProperties"] == false {
        json!({"renamed_by_the_vendor": "text", "version": 2})
    } else {
        json!(["renamed_by_the_vendor"])
    }
}

/// Text that names who answered and echoes a little of what was asked, in exactly `chunks` pieces if given.
fn prose(asked: &Asked, name: &str, chunks: Option<u32>) -> Vec<Piece> {
    const FILLER: [&str; 8] = [" and", " so", " the", " answer", " goes", " on", " for", " long"];
    let heard: String = asked.text.chars().take(48).collect();
    let verb = if asked.after_tool { "read the result" } else { "heard" };
    let mut pieces = words(&format!("{name} answers as {}: {verb} {heard:?}.", asked.model.name));
    let count = chunks.map_or(CHUNKS.max(pieces.len()), |chunks| usize::try_from(chunks).unwrap_or(usize::MAX));
    pieces.truncate(count);
    let filler = FILLER.into_iter().cycle().map(Cow::Borrowed);
    let missing = count - pieces.len();
    pieces.extend(filler.take(missing));
    pieces
}

/// One piece per word, each with the space before it.
fn words(text: &str) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for (at, word) in text.split(' ').enumerate() {
        pieces.push(Cow::Owned(if at == 0 { word.to_owned() } else { format!(" {word}") }));
    }
    pieces
}

/// At most `count` and, for two characters or more, at least two pieces of about equal length.
fn split(text: String, count: usize) -> Vec<Piece> {
    let chars: Vec<char> = text.chars().collect();
    let size = chars.len().div_ceil(count).max(1).min(chars.len().div_ceil(2).max(1));
    chars.chunks(size).map(|piece| Cow::Owned(piece.iter().collect())).collect()
}
