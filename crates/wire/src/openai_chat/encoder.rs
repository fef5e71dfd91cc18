//! Deltas of another dialect into chat completion chunks.

use super::{finish_word, usage};
use crate::{Inbound, json::Writer, said::ToolSlot};
use outlast_model::turn::{Delta, Finish, Usage};

/// Writes one stream of chunks.
#[derive(Debug)]
pub(crate) struct Encoder {
    /// `"id":…,"object":…,"created":…,"model":…`, the same in every chunk.
    head: String,
    started: bool,
    created: u64,
    wants_usage: bool,
    calls: u32,
}

impl Encoder {
    pub(crate) fn new(client: &Inbound) -> Self {
        let created = client.received_secs();
        Encoder { head: head("", "", created), started: false, created, wants_usage: client.wants_usage(), calls: 0 }
    }

    /// Writes what one delta says. Tool calls come whole through [`Encoder::tool_call`].
    pub(crate) fn delta(&mut self, delta: &Delta<'_>, out: &mut Vec<u8>) {
        match delta {
            Delta::Start { id, model, created } if !self.started => {
                self.started = true;
                self.head = head(id, model, created.unwrap_or(self.created));
                // The official helpers need `role` in the first delta.
                self.chunk(out, |w| {
                    w.key("role").str("assistant").key("content").str("");
                });
            }
            Delta::Text(text) => self.text("content", text, out),
            Delta::Reasoning(text) => self.text("reasoning_content", text, out),
            Delta::Refusal(text) => self.text("refusal", text, out),
            Delta::Start { .. }
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

    /// Writes one whole tool call.
    pub(crate) fn tool_call(&mut self, call: &ToolSlot, out: &mut Vec<u8>) {
        let index = self.calls;
        self.calls += 1;
        self.chunk(out, |w| {
            w.key("tool_calls").open(b'[').open(b'{').key("index").plain(index);
            w.key("id").str(&call.id).key("type").str("function").key("function").open(b'{');
            w.key("name").str(&call.name).key("arguments").str(&call.arguments).close(b'}').close(b'}').close(b']');
        });
    }

    /// Writes the end: finish reason, usage if the client asked for it, `[DONE]`.
    pub(crate) fn close(&mut self, usage: &Usage, finish: Option<Finish>, out: &mut Vec<u8>) {
        let word = finish_word(finish.unwrap_or(Finish::Other), self.calls > 0);
        self.frame(out, |w| {
            w.key("choices").open(b'[').open(b'{').key("index").plain(0);
            w.key("delta").open(b'{').close(b'}').key("finish_reason").str(word).close(b'}').close(b']');
        });
        if self.wants_usage {
            self.frame(out, |w| {
                w.key("choices").open(b'[').close(b']').key("usage");
                usage::write(usage, w);
            });
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn text(&self, field: &str, text: &str, out: &mut Vec<u8>) {
        self.chunk(out, |w| {
            w.key(field).str(text);
        });
    }

    /// One chunk with one choice whose delta `fields` writes.
    fn chunk(&self, out: &mut Vec<u8>, fields: impl FnOnce(&mut Writer)) {
        self.frame(out, |w| {
            w.key("choices").open(b'[').open(b'{').key("index").plain(0).key("delta").open(b'{');
            fields(w);
            w.close(b'}').key("finish_reason").raw("null").close(b'}').close(b']');
        });
    }

    fn frame(&self, out: &mut Vec<u8>, fields: impl FnOnce(&mut Writer)) {
        let mut w = Writer::onto(std::mem::take(out));
        w.verbatim("data: ").verbatim(&self.head);
        fields(&mut w);
        w.close(b'}').verbatim("\n\n");
        *out = w.finish();
    }
}

fn head(id: &str, model: &str, created: u64) -> String {
    let mut w = Writer::default();
    w.open(b'{').key("id").str(id).key("object").str("chat.completion.chunk");
    w.key("created").plain(created).key("model").str(model);
    w.text()
}
