//! Whole chat completions.

use super::{
    finish_word,
    stream::{Decoder, DeltaIn, Head, finish_of},
    usage::{self, UsageIn},
};
use crate::{
    classify,
    json::{Str, Writer},
    lax::Strict,
    said::input_or_empty,
    stream::Broken,
};
use outlast_model::turn::{Delta, Finish, Part, Reply};
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Whole<'a> {
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(default)]
    usage: Option<UsageIn>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: Option<u32>,
    #[serde(borrow, default)]
    message: Option<DeltaIn<'a>>,
    #[serde(borrow, default)]
    finish_reason: Strict<'a>,
}

/// Reads a whole reply as the deltas it could have been streamed in; `start`: with the one that only a reply in another
/// dialect needs.
pub(crate) fn decode_reply<'a>(
    body: &'a [u8],
    start: bool,
    mut sink: impl FnMut(u32, Delta<'a>) -> Result<(), Broken>,
) -> Result<(), Broken> {
    let whole: Whole<'a> = serde_json::from_slice(body).map_err(|_| Broken::Malformed)?;
    let failed = whole.error.is_some_and(|error| error.get() != "null");
    let Some(choices) = whole.choices.filter(|_| !failed) else {
        return Err(if failed { Broken::ErrorInside } else { Broken::Malformed });
    };
    if start && let Ok(head) = serde_json::from_slice::<Head<'a>>(body) {
        sink(0, head.delta())?;
    }
    for (at, choice) in choices.into_iter().enumerate() {
        let index = choice.index.unwrap_or(u32::try_from(at).unwrap_or(u32::MAX));
        let word = choice.finish_reason.filter(|word| !word.0.is_empty());
        match choice.message {
            Some(mut message) => Decoder::new(false).delta(&mut message, true, |delta| sink(index, delta))?,
            // Azure leaves the message out where its filter withheld it.
            None if word.as_ref().is_some_and(|word| classify::finish(&word.0) == Finish::ContentFilter) => {}
            None => return Err(Broken::Malformed),
        }
        match word {
            Some(Str(word)) => {
                let finish = finish_of(&word)?;
                sink(index, Delta::Finish { finish, word, stop_sequence: None })?;
            }
            None => sink(index, Delta::BlockEnd)?,
        }
    }
    if let Some(usage) = whole.usage {
        sink(0, Delta::Usage(usage.hub()))?;
    }
    Ok(())
}

/// Writes a reply of another dialect. `received` stands for its time, which other dialects do not tell.
pub(crate) fn encode_reply(reply: &Reply, received: u64) -> Vec<u8> {
    let mut w = Writer::default();
    w.open(b'{').key("id").str(&reply.id).key("object").str("chat.completion");
    w.key("created").plain(reply.created.unwrap_or(received)).key("model").str(&reply.model);
    w.key("choices").open(b'[').open(b'{').key("index").plain(0).key("message").open(b'{').key("role").str("assistant");
    let (mut text, mut refusal, mut thought, mut calls) = (None, None, None, Vec::new());
    for part in &reply.parts {
        let (to, more) = match part {
            Part::Text { text: more, .. } => (&mut text, more),
            Part::Refusal { text: more } => (&mut refusal, more),
            Part::Reasoning { text: more, .. } => (&mut thought, more),
            Part::ToolCall(call) => {
                calls.push(call);
                continue;
            }
            Part::Image { .. } | Part::ToolResult { .. } | Part::RedactedReasoning { .. } | Part::Opaque { .. } => {
                continue;
            }
        };
        to.get_or_insert_with(String::new).push_str(more);
    }
    for (name, value) in [("content", text), ("refusal", refusal)] {
        w.key(name);
        match value {
            Some(value) => w.str(&value),
            None => w.raw("null"),
        };
    }
    if let Some(thought) = thought {
        w.key("reasoning_content").str(&thought);
    }
    if !calls.is_empty() {
        w.key("tool_calls").open(b'[');
        for call in &calls {
            w.open(b'{').key("id").str(&call.id).key("type").str("function").key("function").open(b'{');
            w.key("name").str(&call.name).key("arguments").str(input_or_empty(&call.arguments));
            w.close(b'}').close(b'}');
        }
        w.close(b']');
    }
    w.close(b'}').key("logprobs").raw("null").key("finish_reason");
    match reply.finish {
        Some(finish) => w.str(finish_word(finish, !calls.is_empty())),
        None => w.str("stop"),
    };
    w.close(b'}').close(b']');
    if let Some(usage) = &reply.usage {
        w.key("usage");
        usage::write(usage, &mut w);
    }
    w.close(b'}');
    w.finish()
}
