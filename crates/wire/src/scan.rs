//! One pass over a request: where its top-level fields are, and signs of anything unusual deeper down.
//!
//! A conversation is mostly long strings, and `memchr` leaps over those; a 200 KB body costs little more than being
//! read once. The grammar of numbers and escapes is left to whoever parses the value: a body that is broken only
//! there goes to the provider as it is, who says so.

use crate::tokens;
use memchr::memchr2;
use std::ops::Range;

/// The deepest nesting of a request. What is deeper is refused, so that no later parser can be made to recurse.
pub(crate) const DEPTH_MAX: usize = 128;
/// The most top-level fields of a request.
const FIELDS_MAX: usize = 512;
/// A string longer than this may be an attachment rather than text.
const ATTACHMENT_LEN_MIN: usize = 2048;

/// What one pass found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) fields: Vec<Field>,
    pub(crate) signs: Signs,
    /// Bytes of base64 that is not text, and in how many strings.
    pub(crate) attachment_bytes: usize,
    /// Images, by URL or in base64, as far as their `type` tells.
    pub(crate) images: u32,
    /// Sixtieths of a token by which `\uXXXX` escapes weigh less than their bytes.
    pub(crate) escape_savings: u32,
    /// The role of the last message.
    pub(crate) last_role: Option<Range<usize>>,
}

/// A top-level field. Both spans are of the body; the key's is without its quotes.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) key: Range<usize>,
    pub(crate) value: Range<usize>,
}

/// Whether a closer look is needed. A sign may be false (it could stand in a tool's schema); its absence is exact,
/// because a whole JSON string token cannot occur inside an escaped string and escaped spellings set `unusual`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Signs {
    /// `"type": "image_url"` or `"image"`.
    pub(crate) images: bool,
    /// Calls or results of tools.
    pub(crate) tool_traffic: bool,
    /// A `type`, a role or a field outside the plainly known ones, or one spelled with escapes.
    pub(crate) unusual: bool,
    /// A `signature` key: signed thoughts.
    pub(crate) signatures: bool,
}

/// Where and why a body is not one JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScanError {
    pub(crate) at: usize,
    pub(crate) why: &'static str,
}

/// Scans a body that must be one JSON object.
pub(crate) fn scan(body: &str) -> Result<Scan, ScanError> {
    let mut scanner = Scanner { body: body.as_bytes(), at: 0, scan: Scan::default() };
    scanner.top()?;
    Ok(scanner.scan)
}

struct Scanner<'a> {
    body: &'a [u8],
    at: usize,
    scan: Scan,
}

/// What the scanner was told about the key it last read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Type,
    Role,
    Other,
}

impl Scanner<'_> {
    fn fail<T>(&self, why: &'static str) -> Result<T, ScanError> {
        Err(ScanError { at: self.at, why })
    }

    fn peek(&mut self) -> Option<u8> {
        while let Some(&byte) = self.body.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    fn top(&mut self) -> Result<(), ScanError> {
        if self.peek() != Some(b'{') {
            return self.fail("it is not a JSON object");
        }
        self.at += 1;
        if self.peek() == Some(b'}') {
            self.at += 1;
        } else {
            loop {
                let key = self.key_then_colon()?;
                if self.body[key.clone()].contains(&b'\\') {
                    // Two spellings of one name would let a field pass unseen.
                    return self.fail("a top-level field's name is escaped");
                }
                let in_messages = &self.body[key.clone()] == b"messages";
                let start = self.at;
                self.value(in_messages)?;
                if self.scan.fields.len() == FIELDS_MAX {
                    return self.fail("it has more than 512 top-level fields");
                }
                self.scan.fields.push(Field { key, value: start..self.at });
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(b'}') => {
                        self.at += 1;
                        break;
                    }
                    Some(_) | None => return self.fail("a `,` or `}` is missing"),
                }
            }
        }
        if self.peek().is_some() {
            return self.fail("something follows the JSON object");
        }
        Ok(())
    }

    fn key_then_colon(&mut self) -> Result<Range<usize>, ScanError> {
        if self.peek() != Some(b'"') {
            return self.fail("a field name in quotes is missing");
        }
        let key = self.string()?;
        if self.peek() != Some(b':') {
            return self.fail("a `:` is missing after a field name");
        }
        self.at += 1;
        if self.peek().is_none() {
            return self.fail("it ends inside a value");
        }
        Ok(key)
    }

    /// One value, without recursion: a bit per open bracket says whether it is an object.
    fn value(&mut self, in_messages: bool) -> Result<(), ScanError> {
        let mut objects: u128 = 0;
        let mut depth = 0usize;
        let mut key = Key::Other;
        loop {
            match self.peek() {
                Some(open @ (b'{' | b'[')) => {
                    if depth + 2 > DEPTH_MAX {
                        return self.fail("it nests deeper than 128 levels");
                    }
                    self.at += 1;
                    depth += 1;
                    objects = objects << 1 | u128::from(open == b'{');
                    let close = if open == b'{' { b'}' } else { b']' };
                    if self.peek() != Some(close) {
                        if open == b'{' {
                            key = self.inner_key(in_messages && depth == 2)?;
                        } else {
                            key = Key::Other;
                        }
                        continue;
                    }
                    self.at += 1;
                    depth -= 1;
                    objects >>= 1;
                }
                Some(b'"') => {
                    let span = self.string()?;
                    self.note_value(key, span);
                }
                Some(b'-' | b'0'..=b'9') => self.number(),
                Some(b't') => self.literal(b"true")?,
                Some(b'f') => self.literal(b"false")?,
                Some(b'n') => self.literal(b"null")?,
                Some(_) => return self.fail("a value is malformed"),
                None => return self.fail("it ends inside a value"),
            }
            // A value has ended: close what closes with it, then go on to the next one.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let object = objects & 1 == 1;
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        key = if object { self.inner_key(in_messages && depth == 2)? } else { Key::Other };
                        break;
                    }
                    Some(b'}') if object => self.at += 1,
                    Some(b']') if !object => self.at += 1,
                    Some(_) => return self.fail("a `,` or a closing bracket is missing"),
                    None => return self.fail("it ends inside an object or a list"),
                }
                depth -= 1;
                objects >>= 1;
            }
        }
    }

    fn inner_key(&mut self, of_message: bool) -> Result<Key, ScanError> {
        let span = self.key_then_colon()?;
        Ok(match &self.body[span] {
            b"type" => Key::Type,
            b"role" if of_message => Key::Role,
            b"tool_calls" | b"tool_call_id" => {
                self.scan.signs.tool_traffic = true;
                Key::Other
            }
            b"signature" => {
                self.scan.signs.signatures = true;
                Key::Other
            }
            // Whole ways of speaking that the dialects have given up, or that only one vendor has.
            b"function_call" | b"prefix" | b"audio" => {
                self.scan.signs.unusual = true;
                Key::Other
            }
            // An escaped name may be any of the above.
            name => {
                self.scan.signs.unusual |= name.contains(&b'\\');
                Key::Other
            }
        })
    }

    fn note_value(&mut self, key: Key, span: Range<usize>) {
        let text = &self.body[span.clone()];
        match key {
            Key::Type => match text {
                b"image_url" | b"image" => {
                    self.scan.signs.images = true;
                    self.scan.images += 1;
                }
                b"tool_use" | b"tool_result" => self.scan.signs.tool_traffic = true,
                b"text" | b"function" | b"string" | b"object" | b"array" | b"integer" | b"number" | b"boolean"
                | b"null" | b"json_schema" | b"json_object" | b"enabled" | b"disabled" | b"adaptive" | b"any"
                | b"tool" | b"none" | b"thinking" | b"redacted_thinking" | b"ephemeral" | b"base64" | b"url"
                | b"auto" => {}
                _ => self.scan.signs.unusual = true,
            },
            Key::Role => {
                match text {
                    b"system" | b"developer" | b"user" | b"assistant" | b"tool" => {}
                    _ => self.scan.signs.unusual = true,
                }
                self.scan.last_role = Some(span);
            }
            Key::Other => {
                if text.len() >= ATTACHMENT_LEN_MIN && is_attachment(text) {
                    self.scan.attachment_bytes += text.len();
                }
            }
        }
    }

    /// Steps over a string; returns its span without the quotes.
    fn string(&mut self) -> Result<Range<usize>, ScanError> {
        let start = self.at + 1;
        let mut at = start;
        loop {
            let Some(hit) = quote_or_escape(self.body, at) else { return self.fail("it ends inside a string") };
            if self.body[hit] == b'"' {
                self.at = hit + 1;
                return Ok(start..hit);
            }
            if self.body.get(hit + 1) == Some(&b'u') {
                self.note_escape(hit + 2);
            }
            at = self.body.len().min(hit + 2);
        }
    }

    /// Notes an escape of a character; clients that send plain UTF-8 have next to none.
    #[cold]
    fn note_escape(&mut self, digits: usize) {
        let saved = tokens::escape_saving(self.body.get(digits).copied().unwrap_or_default());
        self.scan.escape_savings = self.scan.escape_savings.saturating_add(saved);
    }

    fn number(&mut self) {
        let rest = &self.body[self.at..];
        let ends = |byte: &u8| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        self.at += rest.iter().position(ends).unwrap_or(rest.len());
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), ScanError> {
        if !self.body[self.at..].starts_with(word) {
            return self.fail("a value is malformed");
        }
        self.at += word.len();
        Ok(())
    }
}

/// Where the next quote or backslash is. Most are near: eight bytes at a time find those without the price of a call;
/// `memchr` is faster from then on.
fn quote_or_escape(body: &[u8], from: usize) -> Option<usize> {
    const LOW: u64 = 0x0101_0101_0101_0101;
    // Nonzero where a byte of `word` is `byte`; exact up to the first such byte, which is the one wanted.
    let hits = |word: u64, byte: u8| {
        let differs = word ^ (LOW * u64::from(byte));
        differs.wrapping_sub(LOW) & !differs & (LOW << 7)
    };
    let mut at = from;
    for word in body.get(from..)?.as_chunks::<8>().0.iter().take(8) {
        let word = u64::from_le_bytes(*word);
        let hit = hits(word, b'"') | hits(word, b'\\');
        if hit != 0 {
            return Some(at + hit.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    memchr2(b'"', b'\\', &body[at..]).map(|ahead| at + ahead)
}

/// Base64 rather than text: a data URL, or a long run without a space.
fn is_attachment(text: &[u8]) -> bool {
    text.starts_with(b"data:")
        || text[..1024]
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(body: &str) -> Vec<(&str, &str)> {
        let found = scan(body).unwrap();
        found.fields.iter().map(|field| (&body[field.key.clone()], &body[field.value.clone()])).collect()
    }

    #[test]
    fn top_level_fields_come_with_their_spans() {
        let body = r#" { "a" : [1,{"b":"}\""}] ,"c":"d\\", "e":-1.5e3,"f":null,"g":{},"h":[] } "#;
        assert_eq!(
            keys(body),
            [("a", r#"[1,{"b":"}\""}]"#), ("c", r#""d\\""#), ("e", "-1.5e3"), ("f", "null"), ("g", "{}"), ("h", "[]")]
                .map(|(key, value)| (key, value))
        );
    }

    #[test]
    fn what_is_not_one_object_is_refused_with_its_place() {
        for (body, at) in [
            ("", 0),
            ("[]", 0),
            ("{", 1),
            ("{\"a\"}", 4),
            ("{\"a\":}", 5),
            ("{\"a\":1,}", 7),
            ("{\"a\":[1}", 7),
            ("{\"a\":{]}", 6),
            ("{\"a\":\"b}", 5),
            ("{\"a\":\"b\\\"}", 5),
            ("{\"a\":tru}", 5),
            ("{} {}", 3),
        ] {
            assert_eq!(scan(body).unwrap_err().at, at, "{body}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error_not_a_stack_overflow() {
        let deep = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(scan(&deep(127)).is_ok());
        assert_eq!(scan(&deep(128)).unwrap_err().why, "it nests deeper than 128 levels");
        assert!(scan(&deep(1_000_000)).is_err());
    }

    #[test]
    fn signs_are_seen_in_tokens_and_not_inside_strings() {
        let signs = |body: &str| scan(body).unwrap().signs;
        assert!(signs(r#"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#).images);
        assert_eq!(
            signs(r#"{"messages":[{"role":"user","content":"{\"type\":\"image_url\",\"tool_calls\":1}"}]}"#),
            Signs::default()
        );
        assert!(signs(r#"{"messages":[{"role":"user","content":[{"type":"image\u005furl"}]}]}"#).unusual);
        assert!(signs(r#"{"messages":[{"role":"user","content":[{"type":"video_url"}]}]}"#).unusual);
        assert!(signs(r#"{"messages":[{"role":"function","content":""}]}"#).unusual);
        assert!(signs(r#"{"messages":[{"role":"tool","tool_call_id":""}]}"#).tool_traffic);
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(body in ".{0,200}") {
            let _ = scan(&body);
            let _ = scan(&format!("{{{body}"));
        }

        #[test]
        fn whatever_serde_json_accepts_is_accepted(text in ".{0,60}", number: f64, list in prop::collection::vec(any::<i32>(), 0..9)) {
            let body = serde_json::json!({"a": text.clone(), "b": {text.clone(): list}, "n": {"number": number, "s": [text]}}).to_string();
            let found = scan(&body).unwrap();
            for field in found.fields {
                serde_json::from_str::<serde_json::Value>(&body[field.value]).unwrap();
            }
        }
    }
}
