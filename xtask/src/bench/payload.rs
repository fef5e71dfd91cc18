//! What travels in a benchmark: the requests, and the upstream's canned replies that each answer
//! is compared with, byte for byte.

use bytes::Bytes;

/// Chunks with text in one streamed reply.
pub(crate) const STREAM_TOKENS: usize = 64;

/// What a request asks the upstream for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One JSON body.
    Whole,
    /// An event stream; `usage`: with the usage chunk, because the request asks for it.
    Stream {
        /// Whether `stream_options.include_usage` is set.
        usage: bool,
    },
}

/// Reads the kind from either end of the body, where a client or a gateway puts these fields: a
/// full parse would make the upstream, not the gateway, the cost of a long request.
pub(crate) fn kind_of(body: &[u8]) -> Kind {
    let (head, tail) = (&body[..body.len().min(512)], &body[body.len().saturating_sub(512)..]);
    let has = |needle: &[u8]| [head, tail].iter().any(|part| part.windows(needle.len()).any(|window| window == needle));
    if has(br#""stream":true"#) { Kind::Stream { usage: has(br#""include_usage":true"#) } } else { Kind::Whole }
}

/// A chat request whose body has about `size` bytes.
pub(crate) fn request(model: &str, stream: bool, size: usize) -> Bytes {
    const TURN: &str = "The delivery of order 4711 was promised for Monday and it is Thursday now. Please look up where it is, \
                        tell me when it arrives, and if it is lost, tell me what my choices are. I would rather wait than cancel. ";
    // A long request is a long conversation of long messages: documents, tool output, code.
    let text = TURN.repeat(if size > 10_000 { 8 } else { 1 });
    let mut turns = String::new();
    let mut role = "user";
    while turns.len() + text.len() + 60 < size {
        turns.push_str(&format!(r#"{{"role":"{role}","content":"{text}"}},"#));
        role = if role == "user" { "assistant" } else { "user" };
    }
    let stream = if stream { r#""stream":true,"# } else { "" };
    Bytes::from(format!(
        r#"{{"model":"{model}",{stream}"temperature":0.2,"max_tokens":400,"messages":[{turns}{{"role":"user","content":"Where is my order?"}}]}}"#
    ))
}

/// The upstream's replies, built once.
pub(crate) struct Replies {
    /// The body of a reply that is not streamed.
    pub(crate) whole: Bytes,
    tokens: Vec<Bytes>,
    usage: Bytes,
    done: Bytes,
}

impl Replies {
    /// Builds them.
    pub(crate) fn new() -> Self {
        let answer = "Your order 4711 left the depot this morning and arrives tomorrow before noon. ".repeat(4);
        let whole = Bytes::from(format!(
            r#"{{"id":"chatcmpl-bench","object":"chat.completion","created":1790000000,"model":"bench-1","choices":[{{"index":0,"message":{{"role":"assistant","content":"{answer}","refusal":null}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":212,"completion_tokens":80,"total_tokens":292,"prompt_tokens_details":{{"cached_tokens":0}}}},"system_fingerprint":"fp_bench"}}"#
        ));
        let chunk = |choices: &str, usage: &str| {
            Bytes::from(format!(
                "data: {{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,\"model\":\"bench-1\",\"system_fingerprint\":\"fp_bench\",\"choices\":[{choices}]{usage}}}\n\n"
            ))
        };
        let mut tokens =
            vec![chunk(r#"{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}"#, "")];
        tokens.extend((0..STREAM_TOKENS).map(|n| {
            chunk(
                &format!(r#"{{"index":0,"delta":{{"content":" word{n}"}},"logprobs":null,"finish_reason":null}}"#),
                "",
            )
        }));
        tokens.push(chunk(r#"{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}"#, ""));
        let usage = chunk("", r#","usage":{"prompt_tokens":212,"completion_tokens":64,"total_tokens":276}"#);
        Self { whole, tokens, usage, done: Bytes::from_static(b"data: [DONE]\n\n") }
    }

    /// The frames of a streamed reply, in order.
    pub(crate) fn frames(&self, usage: bool) -> Vec<Bytes> {
        let usage = usage.then(|| self.usage.clone());
        self.tokens.iter().cloned().chain(usage).chain([self.done.clone()]).collect()
    }

    /// What a client must receive for `kind`: the body, whole.
    pub(crate) fn expected(&self, kind: Kind) -> Bytes {
        match kind {
            Kind::Whole => self.whole.clone(),
            Kind::Stream { usage } => Bytes::from(self.frames(usage).concat()),
        }
    }
}
