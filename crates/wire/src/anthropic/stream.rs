//! Streamed messages: one event into deltas.

use super::usage::UsageIn;
use crate::{classify, json::Str, lax::Lax, stream::Broken};
use outlast_model::turn::Delta;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// Rare fields are boxed: the rest is moved with every token.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Str<'a>,
    #[serde(default)]
    index: u32,
    #[serde(borrow, default)]
    delta: Option<DeltaIn<'a>>,
    #[serde(borrow, default)]
    content_block: Option<Box<Block<'a>>>,
    #[serde(borrow, default)]
    message: Option<Box<Head<'a>>>,
    #[serde(default)]
    usage: Option<Box<UsageIn>>,
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    id: Lax<'a>,
    #[serde(borrow, default)]
    model: Lax<'a>,
    #[serde(default)]
    usage: Option<UsageIn>,
}

#[derive(Deserialize)]
pub(super) struct Block<'a> {
    #[serde(borrow, rename = "type")]
    kind: Str<'a>,
    #[serde(borrow, default)]
    text: Lax<'a>,
    #[serde(borrow, default)]
    thinking: Lax<'a>,
    #[serde(borrow, default)]
    data: Lax<'a>,
    #[serde(borrow, default)]
    id: Lax<'a>,
    #[serde(borrow, default)]
    name: Lax<'a>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

#[derive(Default)]
struct DeltaIn<'a> {
    kind: Lax<'a>,
    /// What there is more of; `kind` says of what. One place for all kinds, because every token is moved through it.
    more: Lax<'a>,
    stop_reason: Option<Box<Lax<'a>>>,
    stop_sequence: Option<Box<Lax<'a>>>,
}

impl<'de: 'a, 'a> Deserialize<'de> for DeltaIn<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keep;
        impl<'de> Visitor<'de> for Keep {
            type Value = DeltaIn<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a delta")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DeltaIn<'de>, A::Error> {
                let mut delta = DeltaIn::default();
                while let Some(Str(name)) = map.next_key()? {
                    match &*name {
                        "type" => delta.kind = map.next_value()?,
                        "text" | "partial_json" | "thinking" | "signature" if delta.more.0.is_none() => {
                            delta.more = map.next_value()?;
                        }
                        "stop_reason" => delta.stop_reason = map.next_value()?,
                        "stop_sequence" => delta.stop_sequence = map.next_value()?,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(delta)
            }
        }
        deserializer.deserialize_map(Keep)
    }
}

/// What has to be remembered between events.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    usage: UsageIn,
    started: bool,
    /// The open block is a tool call the client has to run.
    in_tool: bool,
    /// Its input came whole at its start.
    tool_input: bool,
}

/// An event yet to be invented, which may give our names to other things.
fn is_unheard_of(data: &str) -> bool {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(borrow, rename = "type")]
        kind: Str<'a>,
    }
    const KNOWN: [&str; 7] = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "error",
    ];
    serde_json::from_str::<Kind<'_>>(data).is_ok_and(|event| !KNOWN.contains(&&*event.kind.0))
}

impl Decoder {
    /// Turns one event into deltas.
    pub(crate) fn decode<'a>(
        &mut self,
        data: &'a str,
        mut sink: impl FnMut(u32, Delta<'a>) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        let Ok(event) = serde_json::from_str::<Event<'a>>(data) else {
            return if is_unheard_of(data) { Ok(()) } else { Err(Broken::Malformed) };
        };
        match &*event.kind.0 {
            "content_block_delta" => {
                let Some(delta) = event.delta else { return Err(Broken::Malformed) };
                self.delta(event.index, delta, |delta| sink(0, delta))
            }
            "content_block_start" => {
                let Some(block) = event.content_block else { return Err(Broken::Malformed) };
                self.block(event.index, *block, |delta| sink(0, delta))
            }
            "content_block_stop" => {
                self.in_tool = false;
                sink(0, Delta::BlockEnd)
            }
            "message_start" => {
                // A second one is a relay's failed attempt at going on.
                let Some(head) = event.message.filter(|_| !self.started) else { return Err(Broken::Malformed) };
                self.started = true;
                sink(
                    0,
                    Delta::Start {
                        id: head.id.0.unwrap_or_default(),
                        model: head.model.0.unwrap_or_default(),
                        created: None,
                    },
                )?;
                head.usage.map_or(Ok(()), |usage| self.usage(usage, &mut sink))
            }
            "message_delta" => {
                if let Some(usage) = event.usage {
                    self.usage(*usage, &mut sink)?;
                }
                match event
                    .delta
                    .and_then(|delta| Some((delta.stop_reason?.filled()?, delta.stop_sequence.and_then(|stop| stop.0))))
                {
                    Some((word, stop_sequence)) => {
                        sink(0, Delta::Finish { finish: classify::finish(&word), word, stop_sequence })
                    }
                    None => Ok(()),
                }
            }
            "message_stop" => sink(0, Delta::Done),
            "error" => Err(Broken::ErrorInside),
            // Pings, and events yet to be invented, which the documentation asks clients to step over.
            _ => Ok(()),
        }
    }

    fn usage<'a>(
        &mut self,
        piece: UsageIn,
        sink: &mut impl FnMut(u32, Delta<'a>) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        self.usage.update(piece);
        sink(0, Delta::Usage(self.usage.hub()))
    }

    pub(super) fn block<'a>(
        &mut self,
        index: u32,
        block: Block<'a>,
        mut sink: impl FnMut(Delta<'a>) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        self.in_tool = false;
        match &*block.kind.0 {
            "text" => block.text.filled().map_or(Ok(()), |text| sink(Delta::Text(text))),
            "thinking" => block.thinking.filled().map_or(Ok(()), |text| sink(Delta::Reasoning(text))),
            "redacted_thinking" => sink(Delta::RedactedReasoning(block.data.0.unwrap_or_default())),
            "tool_use" => {
                self.in_tool = true;
                let whole = block.input.map_or("{}", RawValue::get);
                self.tool_input = whole.bytes().any(|byte| byte == b'"');
                sink(Delta::ToolCall {
                    index,
                    id: block.id.filled(),
                    name: block.name.filled(),
                    arguments: Cow::Borrowed(if self.tool_input { whole } else { "" }),
                })
            }
            _ => sink(Delta::Opaque),
        }
    }

    fn delta<'a>(
        &mut self,
        index: u32,
        delta: DeltaIn<'a>,
        mut sink: impl FnMut(Delta<'a>) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        match delta.kind.0.as_deref().unwrap_or_default() {
            "text_delta" => delta.more.filled().map_or(Ok(()), |text| sink(Delta::Text(text))),
            "input_json_delta" if self.in_tool => match delta.more.filled() {
                Some(_) if self.tool_input => Ok(()),
                Some(arguments) => sink(Delta::ToolCall { index, id: None, name: None, arguments }),
                None => Ok(()),
            },
            "thinking_delta" => delta.more.filled().map_or(Ok(()), |text| sink(Delta::Reasoning(text))),
            "signature_delta" => delta.more.filled().map_or(Ok(()), |text| sink(Delta::Signature(text))),
            _ => sink(Delta::Opaque),
        }
    }
}
