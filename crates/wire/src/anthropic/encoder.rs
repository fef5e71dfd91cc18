//! Deltas of another dialect into message events.

use super::{stop_reason, usage};
use crate::{Inbound, json::Writer, said::ToolSlot};
use outlast_model::turn::{Delta, Finish, Usage};

/// Writes one stream of events.
#[derive(Debug)]
pub(crate) struct Encoder {
    /// The client asked to see the model think; to others a thinking block would be a surprise.
    wants_thoughts: bool,
    /// What `message_start` says of the input, before the provider has said.
    input_estimate: u32,
    started: bool,
    id: String,
    block: Option<Block>,
    blocks: u32,
    calls: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Text,
    Thinking,
}

impl Encoder {
    pub(crate) fn new(client: &Inbound) -> Self {
        Encoder {
            wants_thoughts: client.wants_thoughts(),
            input_estimate: client.input_tokens(),
            started: false,
            id: String::new(),
            block: None,
            blocks: 0,
            calls: 0,
        }
    }

    /// Writes what one delta says. Tool calls come whole through [`Encoder::tool_call`].
    pub(crate) fn delta(&mut self, delta: &Delta<'_>, out: &mut Vec<u8>) {
        match delta {
            Delta::Start { id, model, .. } => self.start(id, model, out),
            Delta::Text(text) | Delta::Refusal(text) => {
                self.block(Block::Text, out);
                self.block_delta("text_delta", "text", text, out);
            }
            Delta::Reasoning(text) if self.wants_thoughts => {
                self.block(Block::Thinking, out);
                self.block_delta("thinking_delta", "thinking", text, out);
            }
            Delta::Reasoning(_)
            | Delta::Signature(_)
            | Delta::RedactedReasoning(_)
            | Delta::ToolCall { .. }
            | Delta::Opaque
            | Delta::BlockEnd
            | Delta::Finish { .. }
            | Delta::Usage(_)
            | Delta::Done => {}
        }
    }

    /// Writes one whole tool call as a block of its own.
    pub(crate) fn tool_call(&mut self, call: &ToolSlot, out: &mut Vec<u8>) {
        self.close_block(out);
        let index = self.blocks;
        event(out, "content_block_start", |w| {
            w.key("index").plain(index).key("content_block").open(b'{').key("type").str("tool_use");
            if call.id.is_empty() {
                w.key("id").str(&format!("toolu_{}_{index}", self.id));
            } else {
                w.key("id").str(&call.id);
            }
            w.key("name").str(&call.name).key("input").open(b'{').close(b'}').close(b'}');
        });
        self.block_delta("input_json_delta", "partial_json", &call.arguments, out);
        self.stop_block(out);
        self.calls += 1;
    }

    /// Writes the end: stop reason with usage, `message_stop`.
    pub(crate) fn close(&mut self, usage: &Usage, finish: Option<Finish>, out: &mut Vec<u8>) {
        self.close_block(out);
        let reason = stop_reason(finish.unwrap_or(Finish::Other), self.calls > 0);
        event(out, "message_delta", |w| {
            w.key("delta").open(b'{').key("stop_reason").str(reason).key("stop_sequence").raw("null").close(b'}');
            w.key("usage");
            usage::write(usage, w);
        });
        event(out, "message_stop", |_| {});
    }

    fn start(&mut self, id: &str, model: &str, out: &mut Vec<u8>) {
        if self.started {
            return;
        }
        self.started = true;
        id.clone_into(&mut self.id);
        let usage = Usage { input_tokens: self.input_estimate, ..Usage::default() };
        event(out, "message_start", |w| {
            w.key("message").open(b'{').key("id").str(id).key("type").str("message").key("role").str("assistant");
            w.key("model").str(model).key("content").open(b'[').close(b']');
            w.key("stop_reason").raw("null").key("stop_sequence").raw("null").key("usage");
            usage::write(&usage, w);
            w.close(b'}');
        });
    }

    /// Makes sure that a block of this kind is open.
    fn block(&mut self, kind: Block, out: &mut Vec<u8>) {
        if self.block == Some(kind) {
            return;
        }
        self.close_block(out);
        self.block = Some(kind);
        event(out, "content_block_start", |w| {
            w.key("index").plain(self.blocks).key("content_block").open(b'{');
            match kind {
                Block::Text => w.key("type").str("text").key("text").str(""),
                // Nobody has signed it. `Inbound` takes such blocks out again before Anthropic sees them.
                Block::Thinking => w.key("type").str("thinking").key("thinking").str("").key("signature").str(""),
            };
            w.close(b'}');
        });
    }

    fn block_delta(&self, kind: &str, field: &str, text: &str, out: &mut Vec<u8>) {
        event(out, "content_block_delta", |w| {
            w.key("index").plain(self.blocks).key("delta").open(b'{');
            w.key("type").str(kind).key(field).str(text).close(b'}');
        });
    }

    fn close_block(&mut self, out: &mut Vec<u8>) {
        if self.block.take().is_some() {
            self.stop_block(out);
        }
    }

    fn stop_block(&mut self, out: &mut Vec<u8>) {
        event(out, "content_block_stop", |w| {
            w.key("index").plain(self.blocks);
        });
        self.blocks += 1;
    }
}

/// One event. The official SDKs skip events without an `event:` line.
fn event(out: &mut Vec<u8>, kind: &str, fields: impl FnOnce(&mut Writer)) {
    let mut w = Writer::onto(std::mem::take(out));
    w.verbatim("event: ").verbatim(kind).verbatim("\ndata: ");
    w.open(b'{').key("type").str(kind);
    fields(&mut w);
    w.close(b'}').verbatim("\n\n");
    *out = w.finish();
}
