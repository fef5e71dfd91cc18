//! Whole replies.

use crate::{
    Inbound, anthropic, classify, compose, openai_chat,
    said::{Said, Seen},
    stream::Broken,
};
use bytes::Bytes;
use outlast_model::{
    Failure, FailureReport,
    policy::Dialect,
    turn::{self, Delta, Extra, Finish, Part, ToolCall, Usage},
};
use std::borrow::Cow;

/// What a reply said, for the checks. One per choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The text, all text parts joined. Empty in a stream that does not collect.
    pub text: String,
    /// There was text that is not blank, collected or not.
    pub spoke: bool,
    /// How the model declined, in its own field.
    pub refusal: String,
    /// There was reasoning.
    pub reasoned: bool,
    /// The tool calls: name and arguments (JSON text that has been parsed once).
    pub tool_calls: Vec<(String, String)>,
    /// There was output this form has no word for: audio, a server tool's result...
    pub opaque: bool,
    /// Why it ended.
    pub finish: Option<Finish>,
}

/// A whole reply, ready for the client.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The client's dialect.
    dialect: Dialect,
    /// In the client's dialect; same dialect: as it came.
    pub body: Bytes,
    /// What it consumed; estimated when the provider does not say.
    pub usage: Usage,
    /// Why it ended.
    pub finish: Option<Finish>,
    /// What it said.
    pub answers: Vec<Answer>,
    /// Text was left out of the answers because it passed [`crate::COLLECT_BYTES_MAX`].
    pub overflowed: bool,
}

impl Reply {
    /// What its first choice said, in no dialect. Reads the body once more: only who keeps or compares replies asks.
    pub fn said(&self) -> compose::Said {
        let mut told = compose::Said::text("", "", "");
        let mut refusal = String::new();
        let sink = |choice: u32, delta: Delta<'_>| {
            if choice == 0 {
                told.hear(delta, &mut refusal);
            }
            Ok(())
        };
        // It has been read before, so it can be read.
        let _ = match self.dialect {
            Dialect::OpenaiChat => openai_chat::decode_reply(&self.body, true, sink),
            Dialect::Anthropic => anthropic::decode_reply(&self.body, sink),
        };
        if told.text.is_empty() {
            told.text = refusal;
        }
        compose::Said { finish: self.finish.unwrap_or(Finish::Other), usage: self.usage, ..told }
    }
}

/// Reads the body of a 2xx response that is not a stream.
/// # Errors
/// `malformed_reply` when it is not a reply of that dialect, `empty` when there is no body or no choice in it,
/// `tool_mismatch` when a tool call's arguments are not JSON (`truncated` when the output limit cut them), or what the
/// error inside it is classified as.
pub fn read(upstream: Dialect, client: &Inbound, body: Bytes) -> Result<Reply, FailureReport> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(FailureReport::of(Failure::Empty));
    }
    let mut said = Said::new(client.choices(), true);
    let mut seen = Seen::default();
    let mut hub = Builder::new(upstream);
    let crosses = upstream != client.dialect();
    let sink = |choice: u32, delta: Delta<'_>| {
        said.note(choice, &delta, &mut seen, |_| {})?;
        if crosses {
            hub.add(delta);
        }
        Ok(())
    };
    let read = match upstream {
        Dialect::OpenaiChat => openai_chat::decode_reply(&body, crosses, sink),
        Dialect::Anthropic => anthropic::decode_reply(&body, sink),
    };
    read.map_err(|broken| report(broken, &body))?;
    if !said.begun() {
        return Err(FailureReport::of(Failure::Empty));
    }
    said.counted(&seen);
    let usage = said.usage(client.input_tokens());
    let finish = said.finish();
    let body = if crosses {
        hub.reply.usage = Some(usage);
        hub.reply.finish = finish;
        match client.dialect() {
            Dialect::OpenaiChat => openai_chat::encode_reply(&hub.reply, client.received_secs()),
            Dialect::Anthropic => anthropic::encode_reply(&hub.reply, client.wants_thoughts()),
        }
        .into()
    } else {
        body
    };
    let overflowed = said.overflowed();
    Ok(Reply { dialect: client.dialect(), body, usage, finish, answers: said.into_answers(), overflowed })
}

/// What a broken frame or body is for the call.
pub(crate) fn report(broken: Broken, payload: &[u8]) -> FailureReport {
    match broken {
        Broken::Malformed => FailureReport::of(Failure::MalformedReply),
        Broken::Tool => FailureReport::of(Failure::ToolMismatch),
        Broken::Truncated => FailureReport::of(Failure::Truncated),
        Broken::Filtered => FailureReport::of(Failure::SafetyBlock),
        Broken::Ended(failure) => FailureReport::of(failure),
        Broken::Unfinished => FailureReport::of(Failure::StreamInterrupted),
        Broken::ErrorInside => classify::in_band(payload),
    }
}

/// Puts the deltas of a whole reply together again.
struct Builder {
    reply: turn::Reply,
}

impl Builder {
    fn new(origin: Dialect) -> Self {
        let reply = turn::Reply {
            origin,
            id: "".into(),
            model: "".into(),
            created: None,
            parts: Vec::new(),
            finish: None,
            finish_word: None,
            stop_sequence: None,
            usage: None,
            extra: Extra::default(),
        };
        Builder { reply }
    }

    fn add(&mut self, delta: Delta<'_>) {
        let extra = Extra::default();
        let part = match delta {
            Delta::Start { id, model, created } => {
                (self.reply.id, self.reply.model, self.reply.created) = (id.into(), model.into(), created);
                return;
            }
            Delta::Finish { word, stop_sequence, .. } => {
                self.reply.finish_word = Some(word.into());
                self.reply.stop_sequence = stop_sequence.map(Cow::into);
                return;
            }
            Delta::Text(text) => Part::Text { text: text.into(), extra },
            Delta::Reasoning(text) => Part::Reasoning { text: text.into(), signature: None, extra },
            Delta::Refusal(text) => Part::Refusal { text: text.into() },
            Delta::RedactedReasoning(data) => Part::RedactedReasoning { data: data.into(), extra },
            Delta::ToolCall { id, name, arguments, .. } => Part::ToolCall(ToolCall {
                id: id.unwrap_or_default().into(),
                name: name.unwrap_or_default().into(),
                arguments: arguments.into(),
                extra,
            }),
            Delta::Signature(_) | Delta::Opaque | Delta::BlockEnd | Delta::Usage(_) | Delta::Done => return,
        };
        self.reply.parts.push(part);
    }
}
