//! A notice as a mail: plain text, and headers that nothing it quotes can reach.

use super::{Message, Untold, smtp};
use crate::{clock::Clock, config::Smtp};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::{fmt::Write, sync::Arc};

pub(super) async fn send(
    smtp: &Smtp,
    from: &str,
    to: &[Arc<str>],
    message: &Message,
    clock: &Clock,
) -> Result<(), Untold> {
    for address in to.iter().map(|address| &**address).chain([from]) {
        if !is_plain_address(address) {
            return Err("an address is none that mail can be sent to".into());
        }
    }
    let date = jiff::Timestamp::from_millisecond(clock.wall().0).unwrap_or_default();
    let date = jiff::fmt::rfc2822::to_string(&date.to_zoned(jiff::tz::TimeZone::UTC)).unwrap_or_default();
    smtp::send(smtp, from, to, &mail(from, to, &date, message)).await
}

/// `name@host` of printable ASCII, without anything that ends an address or a line.
fn is_plain_address(address: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"' | b',' | b';' | b'\\');
    address.bytes().all(plain)
        && address.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty())
}

fn mail(from: &str, to: &[Arc<str>], date: &str, message: &Message) -> String {
    let host = from.rsplit_once('@').map_or("localhost", |(_, host)| host);
    // The same over all tries of one notice, so that a mail that came twice can be told.
    let name: String = message.at.chars().filter(char::is_ascii_digit).collect();
    let mut mail = String::new();
    for (header, value) in [
        ("From", from.to_owned()),
        ("To", to.join(", ")),
        ("Date", date.to_owned()),
        ("Message-ID", format!("<{}.{}.{name}@{host}>", message.id, message.about.name())),
        ("Subject", encoded(&format!("[Outlast] {}", message.headline()))),
        ("Auto-Submitted", "auto-generated".to_owned()),
        ("MIME-Version", "1.0".to_owned()),
        ("Content-Type", "text/plain; charset=utf-8".to_owned()),
        ("Content-Transfer-Encoding", "base64".to_owned()),
    ] {
        // Whatever a value holds, it is one line.
        let value: String = value.chars().filter(|letter| !letter.is_control()).collect();
        let _ = write!(mail, "{header}: {value}\r\n");
    }
    mail.push_str("\r\n");
    for line in STANDARD.encode(text(message)).as_bytes().chunks(76) {
        mail.push_str(&String::from_utf8_lossy(line));
        mail.push_str("\r\n");
    }
    mail
}

/// A header's value in ASCII: words of RFC 2047, each short enough for its line.
fn encoded(value: &str) -> String {
    if value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') && value.len() <= 200 {
        return value.to_owned();
    }
    let letters: Vec<char> = value.chars().filter(|letter| !letter.is_control()).take(200).collect();
    let words = letters.chunks(10).map(|word| {
        let word: String = word.iter().collect();
        format!("=?utf-8?B?{}?=", STANDARD.encode(word))
    });
    words.collect::<Vec<_>>().join(" ")
}

fn text(message: &Message) -> String {
    let mut text = format!("{}\n\n", message.headline());
    for line in message.question.lines() {
        let _ = writeln!(text, "> {line}");
    }
    text.push('\n');
    for (name, value) in message.fields() {
        let _ = writeln!(text, "{name}: {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlast_model::run::Verb;
    use outlast_store::About;

    #[test]
    fn nothing_that_is_quoted_reaches_the_headers() {
        let message = Message {
            id: "esc_1".into(),
            about: About::Decided,
            at: "2026-11-21T12:00:00.000Z".into(),
            kind: "approval",
            question: "x\r\nBcc: evil@example.com\r\n.\r\nMAIL FROM:<evil@example.com>".into(),
            origin: Vec::new(),
            choices: Vec::new(),
            opened_at: "2026-11-21T11:00:00.000Z".into(),
            answer_by: None,
            link: None,
            decided: Some((Verb::Approve, "Ännà\r\nBcc: evil@example.com".into())),
        };
        let mail = mail("outlast@example.com", &["a@example.com".into()], "Sat, 21 Nov 2026 12:00:00 +0000", &message);
        let (head, body) = mail.split_once("\r\n\r\n").unwrap();
        assert_eq!(head.lines().count(), 9, "{head}");
        assert!(!mail.contains("Bcc:") && !mail.contains("MAIL FROM"), "{mail}");
        let text = STANDARD.decode(body.replace("\r\n", "")).unwrap();
        assert!(String::from_utf8(text).unwrap().contains("> Bcc: evil@example.com"), "it is quoted in the text");
        assert!(mail.contains("Message-ID: <esc_1.decided.20261121120000000@example.com>"), "{mail}");
    }

    #[test]
    fn an_address_that_is_more_than_one_is_refused() {
        for bad in ["", "a", "a@", "a@b>\r\nRCPT TO:<c@d", "a b@c", "a@b,c@d", "<a@b>", "ä@b"] {
            assert!(!is_plain_address(bad), "{bad:?}");
        }
        assert!(is_plain_address("anna+ops@mail.example.com"));
    }
}
