//! A request made ready for one target: the client's own bytes with the listed edits where the dialect is the same,
//! written anew from the hub form where it is not.

use crate::{
    anthropic, crossing,
    inbound::Inbound,
    json::{Fields, Writer},
    openai_chat,
    put::Changes,
    splice::Splice,
};
use bytes::Bytes;
use outlast_model::{
    Brief, Failure,
    policy::{Ability, Contract, Dialect, StreamContract},
    turn::{Part, Turn},
};
use std::{borrow::Cow, sync::LazyLock};

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

impl Unsupported {
    /// What it is called: an input that cannot be made as short as it has to be is simply too long.
    pub fn failure(&self) -> Failure {
        let too_long = self.features == [crate::put::SHORTEN];
        if too_long { Failure::ContextExceeded } else { Failure::Unsupported }
    }
}

impl Inbound {
    /// Makes it ready for a target.
    /// # Errors
    /// When the target's dialect cannot say what this request says, or it cannot be made as short as the brief wants.
    pub fn adapt(&self, to: &Adapt<'_>) -> Result<Adapted, Unsupported> {
        let changes = (!to.put.is_plain()).then(|| Changes::of(self, to));
        if to.dialect == self.dialect() {
            let rewritten = self.has_unsigned_thoughts() || changes.as_ref().is_some_and(Changes::rewrites_turns);
            let turns = if rewritten { Some(self.turns(changes.as_ref())?) } else { None };
            return Ok(self.splice(to, changes.as_ref(), turns.as_deref()));
        }
        let hub = self.hub().map_err(|_| unreadable())?;
        let features = self.cannot_carry(true);
        if !features.is_empty() {
            return Err(Unsupported { features });
        }
        let mut changed = Cow::Borrowed(hub);
        if let Some(changes) = &changes {
            changes.apply(changed.to_mut())?;
        }
        let body = match to.dialect {
            Dialect::OpenaiChat => openai_chat::encode_request(&changed, to),
            Dialect::Anthropic => anthropic::encode_request(&changed, to),
        };
        Ok(Adapted { body: vec![body.into()], adapted: true, strip_usage: false })
    }

    /// The turns as they become.
    fn turns(&self, changes: Option<&Changes<'_>>) -> Result<Vec<Turn>, Unsupported> {
        let hub = self.hub().map_err(|_| unreadable())?;
        changes.map_or_else(|| Ok(hub.turns.clone()), |changes| changes.turns(hub))
    }

    /// Whether the usage chunk has to be asked for, unasked by the client.
    fn asks_usage_for(&self, to: &Adapt<'_>) -> bool {
        self.dialect() == Dialect::OpenaiChat && self.stream() && to.ask_usage && !self.wants_usage()
    }

    /// The client's own body with the listed edits: `model`, a usage chunk asked for on an OpenAI stream, the `outlast`
    /// object taken out, and what the brief and the contract change. `turns`: they are written anew.
    fn splice(&self, to: &Adapt<'_>, changes: Option<&Changes<'_>>, turns: Option<&[Turn]>) -> Adapted {
        let mut splice = Splice::new(self);
        if to.model != self.model() {
            let mut model = Writer::default();
            model.str(to.model);
            splice.set("model", model.finish());
        }
        let strip_usage = self.asks_usage_for(to);
        if strip_usage {
            match self.value("stream_options") {
                Some(options) => splice.set("stream_options", with_usage(options)),
                None => splice.add(Bytes::from_static(br#","stream_options":{"include_usage":true}"#)),
            }
        }
        splice.remove("outlast");
        let before = splice.len();
        for (name, value) in changes.map(Changes::fields).unwrap_or_default() {
            match value {
                Some(value) => splice.set(name, value.into_bytes()),
                None => splice.remove(name),
            }
        }
        match (turns, self.dialect()) {
            (Some(turns), Dialect::OpenaiChat) => splice.set("messages", openai_chat::encode_turns(turns)),
            (Some(turns), Dialect::Anthropic) => {
                let (system, messages) = anthropic::encode_turns(turns);
                splice.set("messages", messages);
                system.into_iter().for_each(|system| splice.set("system", system));
            }
            (None, _) => {
                if let Some(messages) = changes.and_then(Changes::more_messages) {
                    splice.append_to_list("messages", messages);
                }
            }
        }
        let adapted = splice.len() > before;
        Adapted { body: splice.finish(), adapted, strip_usage }
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

fn unreadable() -> Unsupported {
    Unsupported { features: vec![crossing::UNREADABLE] }
}

/// `stream_options` with `include_usage`, the other options as they are.
fn with_usage(options: &str) -> Vec<u8> {
    let mut options = serde_json::from_str::<Fields<'_>>(options).unwrap_or_default();
    options.raw("include_usage");
    let mut new = Writer::default();
    new.open(b'{').key("include_usage").plain(true).extra(&options.rest()).close(b'}');
    new.finish()
}
