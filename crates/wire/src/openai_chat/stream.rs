//! Streamed chat completions: one chunk into deltas.

use super::usage::UsageIn;
use crate::{
    classify,
    json::Str,
    lax::{Content, Count, Lax, OneOrMore, Strict},
    stream::Broken,
};
use outlast_model::turn::{Delta, Finish};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Rare fields are boxed: the rest is moved with every token.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    choices: OneOrMore<Choice<'a>>,
    #[serde(default)]
    usage: Option<Box<UsageIn>>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(default)]
    x_groq: Option<Box<Groq>>,
}

#[derive(Deserialize)]
struct Groq {
    usage: Option<Box<UsageIn>>,
}

/// Read only once per stream, and only when another dialect must be told.
#[derive(Deserialize)]
pub(super) struct Head<'a> {
    #[serde(borrow, default)]
    id: Lax<'a>,
    #[serde(borrow, default)]
    model: Lax<'a>,
    #[serde(default)]
    created: Count,
}

impl<'a> Head<'a> {
    pub(super) fn delta(self) -> Delta<'a> {
        Delta::Start {
            id: self.id.0.unwrap_or_default(),
            model: self.model.0.unwrap_or_default(),
            created: Some(u64::from(self.created.0)).filter(|secs| *secs > 0),
        }
    }
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: Count,
    #[serde(borrow, default)]
    delta: Option<DeltaIn<'a>>,
    #[serde(borrow, default)]
    finish_reason: Strict<'a>,
}

#[derive(Deserialize)]
pub(super) struct DeltaIn<'a> {
    #[serde(borrow, default)]
    content: Content<'a>,
    #[serde(borrow, default)]
    reasoning_content: Lax<'a>,
    #[serde(borrow, default)]
    reasoning: Lax<'a>,
    /// OpenRouter's list, which some send without the above.
    #[serde(borrow, default)]
    reasoning_details: Option<Box<[DetailIn<'a>]>>,
    #[serde(borrow, default)]
    refusal: Option<Box<Lax<'a>>>,
    #[serde(borrow, default)]
    tool_calls: Option<Box<[CallIn<'a>]>>,
    #[serde(default)]
    function_call: Option<IgnoredAny>,
    #[serde(default)]
    audio: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct DetailIn<'a> {
    #[serde(borrow, default)]
    text: Lax<'a>,
    #[serde(borrow, default)]
    summary: Lax<'a>,
}

#[derive(Deserialize)]
struct CallIn<'a> {
    #[serde(default)]
    index: Option<u32>,
    #[serde(borrow, default)]
    id: Lax<'a>,
    #[serde(borrow, default)]
    function: Option<FunctionIn<'a>>,
    #[serde(default)]
    custom: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct FunctionIn<'a> {
    #[serde(borrow, default)]
    name: Lax<'a>,
    #[serde(borrow, default)]
    arguments: Strict<'a>,
}

/// What has to be remembered between chunks.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// Whether anybody wants to know id and model, and does not yet.
    wants_head: bool,
    /// Calls seen so far, for providers that leave out `index`.
    calls: u32,
    /// The last chunk had no choices: it is there for its usage.
    pub(crate) bare: bool,
}

impl Decoder {
    /// `wants_head`: whether id and model are of interest.
    pub(crate) fn new(wants_head: bool) -> Self {
        Decoder { wants_head, calls: 0, bare: false }
    }

    /// Turns one chunk into deltas, each with its choice.
    pub(crate) fn decode<'a>(
        &mut self,
        data: &'a str,
        mut sink: impl FnMut(u32, Delta<'a>) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        if data == "[DONE]" {
            return sink(0, Delta::Done);
        }
        let chunk: Chunk<'a> = serde_json::from_str(data).map_err(|_| Broken::Malformed)?;
        if chunk.error.is_some_and(|error| error.get() != "null") {
            return Err(Broken::ErrorInside);
        }
        if self.wants_head
            && let Ok(head) = serde_json::from_str::<Head<'a>>(data)
        {
            self.wants_head = false;
            sink(0, head.delta())?;
        }
        self.bare = chunk.choices.0.is_none();
        for choice in chunk.choices.0.into_iter().chain(chunk.choices.1) {
            if let Some(delta) = choice.delta {
                self.delta(delta, false, |delta| sink(choice.index.0, delta))?;
            }
            if let Some(Str(word)) = choice.finish_reason.filter(|word| !word.0.is_empty()) {
                let finish = finish_of(&word)?;
                sink(choice.index.0, Delta::Finish { finish, word, stop_sequence: None })?;
            }
        }
        if let Some(usage) = chunk.usage.or(chunk.x_groq.and_then(|groq| groq.usage)) {
            sink(0, Delta::Usage(usage.hub()))?;
        }
        Ok(())
    }

    /// `whole`: this is a whole message, whose calls are all different ones.
    pub(super) fn delta<'a>(
        &mut self,
        delta: DeltaIn<'a>,
        whole: bool,
        mut sink: impl FnMut(Delta<'a>) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        // Some providers say the same thought under both names.
        if let Some(thought) = delta.reasoning_content.filled().or(delta.reasoning.filled()) {
            sink(Delta::Reasoning(thought))?;
        } else {
            for detail in delta.reasoning_details.into_iter().flatten() {
                detail
                    .text
                    .filled()
                    .or(detail.summary.filled())
                    .map_or(Ok(()), |thought| sink(Delta::Reasoning(thought)))?;
            }
        }
        content(delta.content, &mut sink)?;
        if let Some(refusal) = delta.refusal.and_then(|refusal| refusal.filled()) {
            sink(Delta::Refusal(refusal))?;
        }
        if delta.function_call.is_some() || delta.audio.is_some() {
            sink(Delta::Opaque)?;
        }
        for call in delta.tool_calls.into_iter().flatten() {
            if call.custom.is_some() {
                sink(Delta::Opaque)?;
                continue;
            }
            let id = call.id.filled();
            let next = if id.is_some() || whole { self.calls } else { self.calls.saturating_sub(1) };
            let index = if whole { next } else { call.index.unwrap_or(next) };
            self.calls = self.calls.max(index.saturating_add(1));
            let (name, arguments) =
                call.function.map_or((None, None), |function| (function.name.filled(), function.arguments));
            sink(Delta::ToolCall { index, id, name, arguments: arguments.map_or(Cow::Borrowed(""), |text| text.0) })?;
        }
        Ok(())
    }
}

fn content<'a>(content: Content<'a>, sink: &mut impl FnMut(Delta<'a>) -> Result<(), Broken>) -> Result<(), Broken> {
    match content {
        Content::None => Ok(()),
        Content::Text(text) if text.is_empty() => Ok(()),
        Content::Text(text) => sink(Delta::Text(text)),
        Content::Parts(parts) => {
            for part in parts {
                for thought in thoughts(part.thinking) {
                    sink(Delta::Reasoning(thought))?;
                }
                if let Some(text) = part.text.filled() {
                    sink(Delta::Text(text))?;
                }
                if let Some(text) = part.refusal.filled() {
                    sink(Delta::Refusal(text))?;
                }
            }
            Ok(())
        }
    }
}

/// The texts of a thinking part.
pub(super) fn thoughts(content: Content<'_>) -> Vec<Cow<'_, str>> {
    match content {
        Content::None => Vec::new(),
        Content::Text(text) => vec![text],
        Content::Parts(parts) => parts.into_iter().filter_map(|part| part.text.filled()).collect(),
    }
}

/// What a finish reason means.
pub(super) fn finish_of(word: &str) -> Result<Finish, Broken> {
    match classify::broken_finish(word) {
        // OpenRouter's word; what it means stands beside it.
        Some(_) if word == "error" => Err(Broken::ErrorInside),
        Some(failure) => Err(Broken::Ended(failure)),
        None => Ok(classify::finish(word)),
    }
}
