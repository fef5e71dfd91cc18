//! OpenAI's chat completions: `POST /v1/chat/completions`, as OpenAI speaks it and as its many imitators do.

mod encoder;
mod reply;
mod request;
mod request_out;
mod stream;
mod usage;

pub(crate) use encoder::Encoder;
pub(crate) use reply::{decode_reply, encode_reply};
pub(crate) use request::{decode_request, output_format};
pub(crate) use request_out::{encode_request, encode_turns, joined, limit_name};
pub(crate) use stream::Decoder;

use outlast_model::turn::Finish;

/// The word for why a reply ended. OpenAI has none for a refusal of another vendor's model: `content_filter` is the
/// one that tells a client that this is not the answer.
fn finish_word(finish: Finish, calls_tools: bool) -> &'static str {
    match finish {
        // Some servers say `stop` after a tool call; clients act on the word.
        Finish::Stop | Finish::Other if calls_tools => "tool_calls",
        Finish::Stop | Finish::Other => "stop",
        Finish::Length => "length",
        Finish::ToolCalls => "tool_calls",
        Finish::ContentFilter | Finish::Refusal => "content_filter",
    }
}
