//! Anthropic's messages: `POST /v1/messages`.

mod encoder;
mod reply;
mod request;
mod request_out;
mod stream;
mod usage;

pub(crate) use encoder::Encoder;
pub(crate) use reply::{decode_reply, encode_reply};
pub(crate) use request::{decode_request, output_format};
pub use request_out::MAX_TOKENS_DEFAULT;
pub(crate) use request_out::{encode_request, encode_turns};
pub(crate) use stream::Decoder;

use outlast_model::turn::Finish;

/// The word for why a reply ended. A content filter of another vendor is told as `refusal`, the only word that says
/// that this is not the answer.
fn stop_reason(finish: Finish, calls_tools: bool) -> &'static str {
    match finish {
        // Some servers say `stop` after a tool call; clients act on the word.
        Finish::Stop | Finish::Other if calls_tools => "tool_use",
        Finish::Stop | Finish::Other => "end_turn",
        Finish::Length => "max_tokens",
        Finish::ToolCalls => "tool_use",
        Finish::ContentFilter | Finish::Refusal => "refusal",
    }
}
