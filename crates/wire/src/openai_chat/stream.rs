//! Streamed chat completions: one chunk into deltas.

use super::usage::UsageIn;
use crate::{
    classify,
    json::Str,
    lax::{Content, Count, Lax, Strict},
    stream::Broken,
};
use outlast_model::turn::{Delta, Finish};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use std::{borrow::Cow, fmt, mem::take};

#[derive(Deserialize)]
struct Groq {
    usage: Option<UsageIn>,
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

/// What a choice of a chunk says. Filled in place: moving it from level to level would cost more than reading it.
#[derive(Default)]
struct Choice<'a> {
    index: Count,
    delta: DeltaIn<'a>,
    finish_reason: Strict<'a>,
}

/// What a delta or a whole message says.
#[derive(Default)]
pub(super) struct DeltaIn<'a> {
    content: Content<'a>,
    reasoning_content: Lax<'a>,
    reasoning: Lax<'a>,
    /// OpenRouter's list, which some send without the above.
    reasoning_details: Option<Vec<DetailIn<'a>>>,
    refusal: Lax<'a>,
    tool_calls: Option<Vec<CallIn<'a>>>,
    /// The former way to call a function, or sound.
    opaque: bool,
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
        if self.wants_head
            && let Ok(head) = serde_json::from_str::<Head<'a>>(data)
        {
            self.wants_head = false;
            sink(0, head.delta())?;
        }
        self.bare = true;
        let (mut rest, mut broken) = (Rest::default(), None);
        // Half a chunk must not end a reply: finish reasons count once it is known to be whole.
        let mut finishes = Vec::new();
        let mut each = |choice: &mut Choice<'a>| {
            self.bare = false;
            let index = choice.index.0;
            if let Some(Str(word)) = choice.finish_reason.take().filter(|word| !word.0.is_empty()) {
                finishes.push((index, word));
            }
            let read = self.delta(&mut choice.delta, false, |delta| sink(index, delta));
            read.map_err(|reason| broken = Some(reason)).is_ok()
        };
        let mut input = serde_json::Deserializer::from_str(data);
        let read = InChunk { each: &mut each, rest: &mut rest }.deserialize(&mut input).and_then(|()| input.end());
        if rest.error {
            return Err(Broken::ErrorInside);
        }
        if let Some(reason) = broken {
            return Err(reason);
        }
        read.map_err(|_| Broken::Malformed)?;
        for (index, word) in finishes {
            let finish = finish_of(&word)?;
            sink(index, Delta::Finish { finish, word, stop_sequence: None })?;
        }
        rest.usage.map_or(Ok(()), |usage| sink(0, Delta::Usage(usage.hub())))
    }

    /// `whole`: this is a whole message, whose calls are all different ones.
    pub(super) fn delta<'a>(
        &mut self,
        delta: &mut DeltaIn<'a>,
        whole: bool,
        mut sink: impl FnMut(Delta<'a>) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        // Some providers say the same thought under both names.
        if let Some(thought) = take(&mut delta.reasoning_content).filled().or(take(&mut delta.reasoning).filled()) {
            sink(Delta::Reasoning(thought))?;
        } else {
            for detail in delta.reasoning_details.take().into_iter().flatten() {
                detail
                    .text
                    .filled()
                    .or(detail.summary.filled())
                    .map_or(Ok(()), |thought| sink(Delta::Reasoning(thought)))?;
            }
        }
        content(take(&mut delta.content), &mut sink)?;
        if let Some(refusal) = take(&mut delta.refusal).filled() {
            sink(Delta::Refusal(refusal))?;
        }
        if delta.opaque {
            sink(Delta::Opaque)?;
        }
        for call in delta.tool_calls.take().into_iter().flatten() {
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

/// What stands beside the choices.
#[derive(Default)]
struct Rest {
    usage: Option<UsageIn>,
    error: bool,
}

/// Reads a chunk and gives each of its choices to `each`, which tells whether to go on.
struct InChunk<'s, F> {
    each: &'s mut F,
    rest: &'s mut Rest,
}

/// Reads its list of choices.
struct InChoices<'s, F>(&'s mut F);

/// Fills one of them.
struct InChoice<'s, 'a>(&'s mut Choice<'a>);

/// Fills its delta.
struct InDelta<'s, 'a>(&'s mut DeltaIn<'a>);

macro_rules! seed {
    ([$($generics:tt)*] $name:ty, $call:ident) => {
        impl<'a, $($generics)*> DeserializeSeed<'a> for $name {
            type Value = ();

            fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
                deserializer.$call(self)
            }
        }
    };
}

seed!(['s, F: FnMut(&mut Choice<'a>) -> bool] InChunk<'s, F>, deserialize_map);
seed!(['s, F: FnMut(&mut Choice<'a>) -> bool] InChoices<'s, F>, deserialize_any);
seed!(['s] InChoice<'s, 'a>, deserialize_map);
seed!(['s] InDelta<'s, 'a>, deserialize_any);

impl<'a, F: FnMut(&mut Choice<'a>) -> bool> Visitor<'a> for InChunk<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a chunk")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Str(name)) = map.next_key()? {
            match &*name {
                "choices" => map.next_value_seed(InChoices(&mut *self.each))?,
                "usage" => self.rest.usage = map.next_value::<Option<UsageIn>>()?.or(self.rest.usage),
                "x_groq" => {
                    let groq: Option<Groq> = map.next_value()?;
                    self.rest.usage = self.rest.usage.or(groq.and_then(|groq| groq.usage));
                }
                "error" => self.rest.error |= map.next_value::<Option<IgnoredAny>>()?.is_some(),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

impl<'a, F: FnMut(&mut Choice<'a>) -> bool> Visitor<'a> for InChoices<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of choices or null")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        loop {
            let mut choice = Choice::default();
            if seq.next_element_seed(InChoice(&mut choice))?.is_none() {
                return Ok(());
            }
            if !(self.0)(&mut choice) {
                return Err(A::Error::custom("broken"));
            }
        }
    }
}

impl<'a> Visitor<'a> for InChoice<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a choice")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Str(name)) = map.next_key()? {
            match &*name {
                "index" => self.0.index = map.next_value()?,
                "delta" => map.next_value_seed(InDelta(&mut self.0.delta))?,
                "finish_reason" => self.0.finish_reason = map.next_value()?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

impl<'a> Visitor<'a> for InDelta<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a delta or null")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Str(name)) = map.next_key()? {
            match &*name {
                "content" => self.0.content = map.next_value()?,
                "reasoning_content" => self.0.reasoning_content = map.next_value()?,
                "reasoning" => self.0.reasoning = map.next_value()?,
                "reasoning_details" => self.0.reasoning_details = map.next_value()?,
                "refusal" => self.0.refusal = map.next_value()?,
                "tool_calls" => self.0.tool_calls = map.next_value()?,
                "function_call" | "audio" => self.0.opaque |= map.next_value::<Option<IgnoredAny>>()?.is_some(),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for DeltaIn<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut delta = DeltaIn::default();
        InDelta(&mut delta).deserialize(deserializer)?;
        Ok(delta)
    }
}
