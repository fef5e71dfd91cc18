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
    plain(client.dialect(), client.received_secs(), said)
}

/// The same where the request is not at hand: in this dialect, made at this time, in seconds since 1970.
pub fn plain(dialect: Dialect, created: u64, said: &Said) -> Bytes {
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
        origin: dialect,
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
    match dialect {
        Dialect::OpenaiChat => openai_chat::encode_reply(&reply, created),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{StreamReader, note, reply};
    use serde_json::Value;

    fn client(dialect: Dialect, stream: bool) -> Inbound {
        let more = if stream { r#","stream":true,"stream_options":{"include_usage":true}"# } else { "" };
        let body = format!(r#"{{"model":"route","max_tokens":9,"messages":[{{"role":"user","content":"x"}}]{more}}}"#);
        Inbound::parse(dialect, body.into()).unwrap().received_at(1_790_000_000)
    }

    fn said(text: &str, tools: &[&str], finish: Finish) -> Said {
        let usage = Usage { input_tokens: 12, output_tokens: 3, ..Usage::default() };
        let called = |name: &&str| Called {
            id: format!("id_{name}"),
            name: name.to_string(),
            arguments: r#"{"a":"\n"}"#.into(),
        };
        Said { tool_calls: tools.iter().map(called).collect(), finish, usage, ..Said::text("msg_1", "route", text) }
    }

    fn examples() -> Vec<Said> {
        vec![
            said("Hello \"there\".\n", &[], Finish::Stop),
            said("", &[], Finish::Stop),
            said("Let me see.", &["search", "refund"], Finish::ToolCalls),
            said("", &["search"], Finish::ToolCalls),
            said("cut", &[], Finish::Length),
        ]
    }

    #[test]
    fn a_composed_reply_reads_back_as_what_was_said() {
        for dialect in Dialect::ALL {
            for said in examples() {
                let client = client(dialect, false);
                let body = whole(&client, &said);
                assert_eq!(reply::read(dialect, &client, body.clone()).unwrap().said(), said, "{dialect:?}");
                let noted = note::in_body(body, r#"{"saved":true}"#);
                assert_eq!(reply::read(dialect, &client, noted.clone()).unwrap().said(), said);
                assert_eq!(serde_json::from_slice::<Value>(&noted).unwrap()["outlast"]["saved"], true);
            }
        }
    }

    #[test]
    fn a_composed_stream_reads_back_as_what_was_said_and_ends_in_its_terminal_part() {
        for dialect in Dialect::ALL {
            for said in examples() {
                let client = client(dialect, true);
                let (frames, end) = stream(&client, &said);
                let noted = note::in_terminal(dialect, end.clone(), r#"{"saved":true}"#);
                assert_ne!(noted, end);
                for end in [end, noted] {
                    let mut reader = StreamReader::new(dialect, &client, false, true);
                    let mut pieces = Vec::new();
                    reader.push(frames.clone(), &mut pieces).unwrap();
                    assert!(!reader.terminal_seen());
                    reader.push(end, &mut pieces).unwrap();
                    reader.end(&mut pieces).unwrap();
                    assert_eq!(reader.said(), said, "{dialect:?}");
                }
            }
        }
    }

    #[test]
    fn a_reply_of_the_other_dialect_is_told_as_it_was_said() {
        for (upstream, dialect) in
            [(Dialect::OpenaiChat, Dialect::Anthropic), (Dialect::Anthropic, Dialect::OpenaiChat)]
        {
            for said in examples() {
                let asks = client(dialect, false);
                let body = whole(&client(upstream, false), &said);
                assert_eq!(reply::read(upstream, &asks, body).unwrap().said(), said);
                let asks = client(dialect, true);
                let (frames, end) = stream(&client(upstream, true), &said);
                let mut reader = StreamReader::new(upstream, &asks, false, true);
                let mut pieces = Vec::new();
                reader.push(frames, &mut pieces).unwrap();
                reader.push(end, &mut pieces).unwrap();
                assert_eq!(reader.said(), said);
            }
        }
    }

    #[test]
    fn a_stored_reply_is_the_same_when_it_comes_back() {
        for said in examples() {
            assert_eq!(serde_json::from_str::<Said>(&serde_json::to_string(&said).unwrap()).unwrap(), said);
        }
    }

    #[test]
    fn the_frames_are_those_the_official_clients_wait_for() {
        let events = |bytes: &[u8], start: &str| {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            text.lines().filter_map(|line| Some(line.strip_prefix(start)?.to_owned())).collect::<Vec<_>>()
        };
        let said = said("Hello.", &["search"], Finish::ToolCalls);
        let (frames, end) = stream(&client(Dialect::Anthropic, true), &said);
        assert_eq!(
            events(&[frames, end].concat(), "event: "),
            [
                "message_start",
                "content_block_start",
                "content_block_delta",
                "content_block_stop",
                "content_block_start",
                "content_block_delta",
                "content_block_stop",
                "message_delta",
                "message_stop"
            ]
        );
        let unasked =
            Inbound::parse(Dialect::OpenaiChat, r#"{"model":"m","stream":true,"messages":[{}]}"#.into()).unwrap();
        for (client, usage_chunks) in [(client(Dialect::OpenaiChat, true), 1), (unasked, 0)] {
            let (frames, end) = stream(&client, &said);
            let data = events(&[frames, end].concat(), "data: ");
            assert!(data[0].contains(r#""role":"assistant""#) && data.last().unwrap() == "[DONE]");
            assert_eq!(data.iter().filter(|chunk| chunk.contains(r#""choices":[],"usage""#)).count(), usage_chunks);
            assert_eq!(data.iter().filter(|chunk| chunk.contains(r#""finish_reason":"tool_calls""#)).count(), 1);
        }
    }
}
