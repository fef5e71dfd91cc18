//! A request made ready for one target: the client's own bytes with the listed edits where the dialect is the same,
//! written anew from the hub form where it is not.

use crate::{anthropic, crossing, inbound::Inbound, json::Writer, openai_chat};
use bytes::Bytes;
use outlast_model::{
    Brief,
    policy::{Ability, Contract, Dialect, StreamContract},
    turn::Part,
};
use std::sync::LazyLock;

/// What an adaptation is for.
#[derive(Clone, Copy, Debug)]
pub struct Adapt<'a> {
    /// What the target speaks.
    pub dialect: Dialect,
    /// The target's name of the model.
    pub model: &'a str,
    /// The most output tokens the target can write, if known. Anthropic demands a limit; see `docs/crossings.md`.
    pub max_output: Option<u32>,
    /// Whether `stream_options.include_usage` may be added to an OpenAI stream. False for servers that reject it.
    pub ask_usage: bool,
    /// How the request is to be put.
    pub put: Put<'a>,
}

/// How a request is to be put to a target: what the engine decided, and what of the contract the target has to be told.
#[derive(Clone, Copy, Debug)]
pub struct Put<'a> {
    /// What the engine decided.
    pub brief: &'a Brief,
    /// What has to stay true.
    pub contract: &'a Contract,
    /// Whether the target itself holds its output to a schema.
    pub native_schema: Ability,
    /// Whether the target can call tools.
    pub can_call_tools: Ability,
    /// The text of the reply that is to be mended, when [`Brief::mend`] is set.
    pub mend: Option<&'a str>,
}

impl Put<'_> {
    /// As the client said it: no contract beyond the request, no limit, every tool.
    pub fn plain() -> Put<'static> {
        static PLAIN: LazyLock<(Brief, Contract)> =
            LazyLock::new(|| (Brief::default(), Contract::plain("plain", StreamContract::Fail)));
        let (brief, contract) = &*PLAIN;
        Put { brief, contract, native_schema: Ability::Unknown, can_call_tools: Ability::Unknown, mend: None }
    }
}

/// A request ready for a target.
#[derive(Clone, Debug)]
pub struct Adapted {
    /// The body, in order. Same dialect: slices of the client's body around the edits.
    pub body: Vec<Bytes>,
    /// More than splicing was done: what the target rejects may be our doing.
    pub adapted: bool,
    /// The usage chunk was not asked for by the client: give this to [`crate::StreamReader::new`].
    pub strip_usage: bool,
}

impl Adapted {
    /// The body's length, for `content-length`.
    pub fn len(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }

    /// True when there is no body; it never is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What this request says that the target's dialect cannot. Never sent; the plan leaves such targets out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// Names of [`crate::crossing`]'s features.
    pub features: Vec<&'static str>,
}

/// An edit of the body: these bytes are replaced by those.
type Edit = (std::ops::Range<usize>, Bytes);

impl Inbound {
    /// Makes it ready for a target.
    /// # Errors
    /// When the target's dialect cannot say what this request says.
    pub fn adapt(&self, to: &Adapt<'_>) -> Result<Adapted, Unsupported> {
        if to.dialect == self.dialect() && !self.has_unsigned_thoughts() {
            return Ok(self.splice(to));
        }
        let hub = self.hub().map_err(|_| Unsupported { features: vec![crossing::UNREADABLE] })?;
        if to.dialect != self.dialect() {
            let features = self.cannot_carry(true);
            if !features.is_empty() {
                return Err(Unsupported { features });
            }
        }
        let body = match to.dialect {
            Dialect::OpenaiChat => openai_chat::encode_request(hub, to),
            Dialect::Anthropic => anthropic::encode_request(hub, to),
        };
        let strip_usage = to.dialect == Dialect::OpenaiChat
            && self.dialect() == Dialect::OpenaiChat
            && self.stream()
            && to.ask_usage
            && !self.wants_usage();
        Ok(Adapted { body: vec![body.into()], adapted: true, strip_usage })
    }

    /// The client's own body with the listed edits: `model`, and a usage chunk asked for on an OpenAI stream.
    fn splice(&self, to: &Adapt<'_>) -> Adapted {
        let mut edits: Vec<Edit> = Vec::with_capacity(2);
        if to.model != self.model()
            && let Some(field) = self.field("model")
        {
            let mut model = Writer::default();
            model.str(to.model);
            edits.push((field.value.clone(), model.finish().into()));
        }
        let strip_usage = self.dialect() == Dialect::OpenaiChat && self.stream() && to.ask_usage && !self.wants_usage();
        if strip_usage && let Some(edit) = self.ask_usage() {
            edits.push(edit);
        }
        edits.sort_by_key(|(span, _)| span.start);
        let mut body = Vec::with_capacity(2 * edits.len() + 1);
        let mut from = 0;
        for (span, new) in edits {
            body.push(self.body().slice(from..span.start));
            body.push(new);
            from = span.end;
        }
        body.push(self.body().slice(from..));
        Adapted { body, adapted: false, strip_usage }
    }

    /// The edit that adds `stream_options.include_usage`, keeping the other options as they are.
    fn ask_usage(&self) -> Option<Edit> {
        let mut new = Writer::default();
        match self.field("stream_options") {
            Some(field) if self.body()[field.value.clone()].starts_with(b"{") => {
                let mut options =
                    serde_json::from_slice::<crate::json::Fields<'_>>(&self.body()[field.value.clone()]).ok()?;
                options.raw("include_usage");
                new.open(b'{').key("include_usage").plain(true).extra(&options.rest()).close(b'}');
                Some((field.value.clone(), new.finish().into()))
            }
            Some(field) => {
                new.raw(r#"{"include_usage":true}"#);
                Some((field.value.clone(), new.finish().into()))
            }
            None => {
                // The object is not empty (it has a model), so a comma is right before its closing brace.
                let end = self.body().iter().rposition(|&byte| byte == b'}')?;
                Some((end..end, Bytes::from_static(br#","stream_options":{"include_usage":true}"#)))
            }
        }
    }

    /// Thoughts without a signature can only be ones we made of another vendor's reasoning in an earlier reply.
    /// Anthropic refuses them, so such a request is re-encoded without them.
    fn has_unsigned_thoughts(&self) -> bool {
        self.dialect() == Dialect::Anthropic
            && self.scan().signs.signatures
            && [&br#""signature":"""#[..], br#""signature": """#]
                .iter()
                .any(|needle| memchr::memmem::find(self.body(), needle).is_some())
            && self.hub().is_ok_and(|hub| {
                let mut parts = hub.turns.iter().flat_map(|turn| &turn.parts);
                parts.any(|part| matches!(part, Part::Reasoning { signature, .. } if signature.as_deref().is_none_or(str::is_empty)))
            })
    }
}
