//! Whole messages.

use super::{
    request_out::input,
    stop_reason,
    stream::{Block, Decoder},
    usage::{self, UsageIn},
};
use crate::{
    classify,
    json::{Str, Writer},
    lax::Lax,
    stream::Broken,
};
use outlast_model::turn::{Delta, Part, Reply};
use serde::Deserialize;

#[derive(Deserialize)]
struct Whole<'a> {
    #[serde(borrow, rename = "type")]
    kind: Str<'a>,
    #[serde(borrow, default)]
    id: Lax<'a>,
    #[serde(borrow, default)]
    model: Lax<'a>,
    #[serde(borrow, default)]
    content: Option<Vec<Block<'a>>>,
    #[serde(borrow, default)]
    stop_reason: Lax<'a>,
    #[serde(borrow, default)]
    stop_sequence: Lax<'a>,
    #[serde(default)]
    usage: Option<UsageIn>,
}

/// Reads a whole reply as the deltas it could have been streamed in.
pub(crate) fn decode_reply<'a>(
    body: &'a [u8],
    mut sink: impl FnMut(u32, Delta<'a>) -> Result<(), Broken>,
) -> Result<(), Broken> {
    let whole: Whole<'a> = serde_json::from_slice(body).map_err(|_| Broken::Malformed)?;
    match &*whole.kind.0 {
        "message" => {}
        "error" => return Err(Broken::ErrorInside),
        _ => return Err(Broken::Malformed),
    }
    sink(
        0,
        Delta::Start { id: whole.id.0.unwrap_or_default(), model: whole.model.0.unwrap_or_default(), created: None },
    )?;
    let mut decoder = Decoder::default();
    for (index, block) in (0..).zip(whole.content.ok_or(Broken::Malformed)?) {
        decoder.block(index, block, |delta| sink(0, delta))?;
        sink(0, Delta::BlockEnd)?;
    }
    if let Some(word) = whole.stop_reason.filled() {
        sink(0, Delta::Finish { finish: classify::finish(&word), word, stop_sequence: whole.stop_sequence.0 })?;
    }
    if let Some(usage) = whole.usage {
        sink(0, Delta::Usage(usage.hub()))?;
    }
    Ok(())
}

/// Writes a reply of another dialect. `thoughts`: the client asked to see the model think.
pub(crate) fn encode_reply(reply: &Reply, thoughts: bool) -> Vec<u8> {
    let mut w = Writer::default();
    w.open(b'{').key("id").str(&reply.id).key("type").str("message").key("role").str("assistant");
    w.key("model").str(&reply.model).key("content").open(b'[');
    let mut calls = 0;
    for part in &reply.parts {
        match part {
            Part::Text { text, .. } | Part::Refusal { text } => {
                w.open(b'{').key("type").str("text").key("text").str(text).close(b'}');
            }
            Part::Reasoning { text, .. } if thoughts => {
                // Unsigned; `Inbound` takes such blocks out again before Anthropic sees them.
                w.open(b'{').key("type").str("thinking").key("thinking").str(text).key("signature").str("").close(b'}');
            }
            Part::ToolCall(call) => {
                w.open(b'{').key("type").str("tool_use");
                if call.id.is_empty() {
                    w.key("id").str(&format!("toolu_{}_{calls}", reply.id));
                } else {
                    w.key("id").str(&call.id);
                }
                w.key("name").str(&call.name).key("input").raw(&input(call)).close(b'}');
                calls += 1;
            }
            Part::Reasoning { .. }
            | Part::Image { .. }
            | Part::ToolResult { .. }
            | Part::RedactedReasoning { .. }
            | Part::Opaque { .. } => {}
        }
    }
    w.close(b']').key("stop_reason");
    match reply.finish {
        Some(finish) => w.str(stop_reason(finish, calls > 0)),
        None => w.str("end_turn"),
    };
    w.key("stop_sequence").raw("null").key("usage");
    usage::write(&reply.usage.unwrap_or_default(), &mut w);
    w.close(b'}');
    w.finish()
}
