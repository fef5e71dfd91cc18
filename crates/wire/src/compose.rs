//! A reply of our own, in the client's dialect: what a backstop says, what the store kept, what was repaired.

use crate::{
    Inbound, anthropic, openai_chat,
    said::{ToolSlot, input_or_empty},
};
use bytes::Bytes;
use outlast_model::{
    policy::Dialect,
    turn::{Delta, Extra, Finish, Part, Reply, ToolCall, Usage},
};
use serde::{Deserialize, Serialize};

/// A whole reply of one choice, in no dialect. Serialised into the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// The provider's id of it, or the maker's.
    pub id: String,
    /// The model that answered, in the provider's words; what the client named, where none did.
    pub model: String,
    /// The text.
    pub text: String,
    /// The tool calls, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<Called>,
    /// Why it ended.
    pub finish: Finish,
    /// What it consumed.
    pub usage: Usage,
}

/// A tool call of a reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Called {
    /// Pairs it with its result. Empty: one is made up where the dialect wants one.
    pub id: String,
    /// The tool.
    pub name: String,
    /// The arguments, as JSON text.
    pub arguments: String,
}

impl Said {
    /// A reply of this text and nothing else, which cost nothing.
    pub fn text(id: impl Into<String>, model: impl Into<String>, text: impl Into<String>) -> Self {
        Said {
            id: id.into(),
            model: model.into(),
            text: text.into(),
            tool_calls: Vec::new(),
            finish: Finish::Stop,
            usage: Usage::default(),
        }
    }

    /// Takes in one delta of a whole reply.
    pub(crate) fn hear(&mut self, delta: Delta<'_>, refusal: &mut String) {
        match delta {
            Delta::Start { id, model, .. } => (self.id, self.model) = (id.into_owned(), model.into_owned()),
            Delta::Text(text) => self.text.push_str(&text),
            Delta::Refusal(text) => refusal.push_str(&text),
            Delta::ToolCall { id, name, arguments, .. } => self.tool_calls.push(Called {
                id: id.unwrap_or_default().into_owned(),
                name: name.unwrap_or_default().into_owned(),
                arguments: input_or_empty(&arguments).to_owned(),
            }),
            Delta::Reasoning(_)
            | Delta::Signature(_)
            | Delta::RedactedReasoning(_)
            | Delta::Opaque
            | Delta::BlockEnd
            | Delta::Finish { .. }
            | Delta::Usage(_)
            | Delta::Done => {}
        }
    }
}

/// The body of a reply that is not streamed.
pub fn whole(client: &Inbound, said: &Said) -> Bytes {
    let mut parts = Vec::with_capacity(1 + said.tool_calls.len());
    if !said.text.is_empty() || said.tool_calls.is_empty() {
        parts.push(Part::Text { text: said.text.as_str().into(), extra: Extra::default() });
    }
    parts.extend(said.tool_calls.iter().map(|call| {
        Part::ToolCall(ToolCall {
            id: call.id.as_str().into(),
            name: call.name.as_str().into(),
            arguments: call.arguments.as_str().into(),
            extra: Extra::default(),
        })
    }));
    let reply = Reply {
        origin: client.dialect(),
        id: said.id.as_str().into(),
        model: said.model.as_str().into(),
        created: None,
        parts,
        finish: Some(said.finish),
        finish_word: None,
        stop_sequence: None,
        usage: Some(said.usage),
        extra: Extra::default(),
    };
    match client.dialect() {
        Dialect::OpenaiChat => openai_chat::encode_reply(&reply, client.received_secs()),
        Dialect::Anthropic => anthropic::encode_reply(&reply, false),
    }
    .into()
}

/// The frames of a streamed reply: those up to its end, and those that end it ([`crate::note::in_terminal`] adds to
/// them).
pub fn stream(client: &Inbound, said: &Said) -> (Bytes, Bytes) {
    let start = Delta::Start { id: said.id.as_str().into(), model: said.model.as_str().into(), created: None };
    let text = Delta::Text(said.text.as_str().into());
    let mut deltas = vec![start];
    if !said.text.is_empty() {
        deltas.push(text);
    }
    let calls = said.tool_calls.iter().map(|call| ToolSlot::whole(&call.id, &call.name, &call.arguments));
    let (mut frames, mut end) = (Vec::new(), Vec::new());
    match client.dialect() {
        Dialect::OpenaiChat => {
            let mut encoder = openai_chat::Encoder::new(client);
            deltas.iter().for_each(|delta| encoder.delta(delta, &mut frames));
            calls.for_each(|call| encoder.tool_call(&call, &mut frames));
            encoder.close(&said.usage, Some(said.finish), &mut end);
        }
        Dialect::Anthropic => {
            let mut encoder = anthropic::Encoder::new(client);
            deltas.iter().for_each(|delta| encoder.delta(delta, &mut frames));
            calls.for_each(|call| encoder.tool_call(&call, &mut frames));
            encoder.close(&said.usage, Some(said.finish), &mut end);
        }
    }
    (frames.into(), end.into())
}
