//! The `outlast` object: added to a reply without re-encoding it. Used only when a reply is degraded
//! or the client asked; other bodies stay byte for byte.

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memmem;
use outlast_model::policy::Dialect;

/// Adds `"outlast": notes` as the last member of a whole reply. `notes` is JSON. A body that is not an object is
/// given back as it is.
pub fn in_body(body: Bytes, notes: &str) -> Bytes {
    let trimmed = body.trim_ascii_end();
    let Some(inside) = trimmed.strip_suffix(b"}") else { return body };
    let empty = inside.trim_ascii_end().ends_with(b"{");
    let mut whole = BytesMut::with_capacity(body.len() + notes.len() + 16);
    whole.put_slice(inside);
    if !empty {
        whole.put_u8(b',');
    }
    whole.put_slice(br#""outlast":"#);
    whole.put_slice(notes.as_bytes());
    whole.put_u8(b'}');
    whole.freeze()
}

/// Adds the notes to the end of a stream: to Anthropic's `message_stop`, and as a chunk without choices before OpenAI's
/// `[DONE]`. A terminal part of another shape is given back as it is.
pub fn in_terminal(dialect: Dialect, terminal: Bytes, notes: &str) -> Bytes {
    match dialect {
        Dialect::OpenaiChat => {
            let Some(at) = memmem::rfind(&terminal, b"data: [DONE]") else { return terminal };
            let chunk =
                format!("data: {{\"object\":\"chat.completion.chunk\",\"choices\":[],\"outlast\":{notes}}}\n\n");
            splice(&terminal, at, chunk.as_bytes())
        }
        Dialect::Anthropic => {
            let Some(stop) = memmem::rfind(&terminal, br#""message_stop""#) else { return terminal };
            let line_end = memchr::memchr2(b'\r', b'\n', &terminal[stop..]).map_or(terminal.len(), |at| stop + at);
            let Some(brace) = memchr::memrchr(b'}', &terminal[stop..line_end]) else { return terminal };
            splice(&terminal, stop + brace, format!(",\"outlast\":{notes}").as_bytes())
        }
    }
}

fn splice(bytes: &[u8], at: usize, insert: &[u8]) -> Bytes {
    let mut whole = BytesMut::with_capacity(bytes.len() + insert.len());
    whole.put_slice(&bytes[..at]);
    whole.put_slice(insert);
    whole.put_slice(&bytes[at..]);
    whole.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notes_become_the_last_member_and_the_rest_stays() {
        for (body, noted) in [
            ("{\"id\":1} \n", r#"{"id":1,"outlast":{"x":2}}"#),
            ("{ }", r#"{ "outlast":{"x":2}}"#),
            ("[1]", "[1]"),
            ("", ""),
        ] {
            assert_eq!(in_body(Bytes::copy_from_slice(body.as_bytes()), r#"{"x":2}"#), noted, "{body}");
        }
    }

    #[test]
    fn a_streams_notes_ride_on_its_last_event() {
        let openai = Bytes::from_static(b"data: {\"choices\":[]}\n\ndata: [DONE]\n\n");
        assert_eq!(
            in_terminal(Dialect::OpenaiChat, openai, "{}"),
            "data: {\"choices\":[]}\n\ndata: {\"object\":\"chat.completion.chunk\",\"choices\":[],\"outlast\":{}}\n\n\
             data: [DONE]\n\n"
        );
        let anthropic = Bytes::from_static(b"event: message_stop\r\ndata: {\"type\":\"message_stop\"}\r\n\r\n");
        assert_eq!(
            in_terminal(Dialect::Anthropic, anthropic, "{}"),
            "event: message_stop\r\ndata: {\"type\":\"message_stop\",\"outlast\":{}}\r\n\r\n"
        );
    }
}
