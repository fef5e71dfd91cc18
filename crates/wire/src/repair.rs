//! The syntactic repairs: few, listed, bounded, and never of a value.
//!
//! A repaired text has exactly the tokens of the original, less what a fix takes away and plus what it adds, all of
//! it punctuation. Whatever comes out is judged by every gate like any other reply.
//!
//! - `fences`: the text is one Markdown code fence and nothing else. The fence is taken off. Prose around a fence is
//!   not taken off: it may say that the JSON is only an example. A fence that was opened and not closed counts, if
//!   what is in it is whole.
//! - `trailing_commas`: a comma that follows a value and precedes a closing bracket is taken out.
//! - `closers`: the text ends right after a whole value, with brackets open: they are closed. Not after a comma, a
//!   colon, a field's name, an opening bracket or a number, nor inside anything: there something was cut. The caller
//!   allows it only when the model ended by itself and a schema confirms that nothing required is missing.
//!
//! Two values, stray closing brackets, single quotes, comments, missing commas and everything else stays broken: what
//! it means would be a guess.

use outlast_model::policy::Fix;
use serde::de::IgnoredAny;
use std::borrow::Cow;

/// The deepest nesting that is closed; the JSON reader stops there too.
const DEPTH_MAX: usize = 128;

/// A text that is JSON now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repaired {
    /// The text.
    pub(crate) text: String,
    /// What it took, in order.
    pub(crate) fixes: Vec<Fix>,
}

/// Makes JSON of a text that is not, by the fixes allowed. `None` when they do not suffice, or none was needed.
pub(crate) fn repair(text: &str, allowed: &[Fix], ended_by_itself: bool) -> Option<Repaired> {
    let mut text = Cow::Borrowed(text.trim());
    let mut fixes = Vec::new();
    for fix in Fix::ALL {
        if !allowed.contains(&fix) {
            continue;
        }
        let fixed = match fix {
            Fix::Fences => unfenced(&text).map(str::to_owned),
            Fix::TrailingCommas => without_trailing_commas(&text),
            Fix::Closers if ended_by_itself => closed(&text),
            Fix::Closers => None,
        };
        if let Some(fixed) = fixed {
            text = Cow::Owned(fixed);
            fixes.push(fix);
        }
        if serde_json::from_str::<IgnoredAny>(&text).is_ok() {
            return (!fixes.is_empty()).then(|| Repaired { text: text.into_owned(), fixes });
        }
    }
    None
}

/// What is in a fence that is the whole text.
fn unfenced(text: &str) -> Option<&str> {
    let mark = if text.starts_with("```") { '`' } else { '~' };
    let inside = text.trim_start_matches(mark);
    let ticks = text.len() - inside.len();
    if ticks < 3 {
        return None;
    }
    let (language, inside) = inside.split_once('\n')?;
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '+');
    if !language.trim().chars().all(is_name) {
        return None;
    }
    let before = inside.trim_end_matches(mark);
    let closed = inside.len() - before.len();
    // Longer or shorter than the opening one it is not the fence's end but something else.
    match closed {
        0 => Some(inside.trim()),
        _ if closed == ticks && before.ends_with(['\n', '}', ']']) => Some(before.trim()),
        _ => None,
    }
}

/// A piece of JSON text, as far as the fixes need to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Open(u8),
    Close(u8),
    Comma,
    Colon,
    String,
    /// A number, which may go on.
    Number,
    /// `true`, `false`, `null`.
    Literal,
}

/// The tokens of a text, each with its place. `Err` once, where it ends inside one or has what is not JSON.
struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

struct NoToken;

impl Iterator for Tokens<'_> {
    type Item = Result<(Token, usize), NoToken>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.text.as_bytes();
        let space = |byte: &u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
        self.at += bytes[self.at..].iter().position(|byte| !space(byte)).unwrap_or(bytes.len() - self.at);
        let byte = *bytes.get(self.at)?;
        let (token, length) = match byte {
            b'{' | b'[' => (Token::Open(byte), 1),
            b'}' | b']' => (Token::Close(byte), 1),
            b',' => (Token::Comma, 1),
            b':' => (Token::Colon, 1),
            b'"' => match string_length(&bytes[self.at..]) {
                Some(length) => (Token::String, length),
                None => return self.fail(),
            },
            b'-' | b'0'..=b'9' => {
                let ends = |byte: &u8| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                (Token::Number, bytes[self.at..].iter().position(ends).unwrap_or(bytes.len() - self.at))
            }
            _ => match ["true", "false", "null"].into_iter().find(|word| self.text[self.at..].starts_with(word)) {
                Some(word) => (Token::Literal, word.len()),
                None => return self.fail(),
            },
        };
        let at = self.at;
        self.at += length;
        Some(Ok((token, at)))
    }
}

impl Tokens<'_> {
    fn of(text: &str) -> Tokens<'_> {
        Tokens { text, at: 0 }
    }

    fn fail(&mut self) -> Option<Result<(Token, usize), NoToken>> {
        self.at = self.text.len();
        Some(Err(NoToken))
    }
}

/// The length of the string that begins here, with its quotes.
fn string_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        let hit = at + memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[hit] == b'"' {
            return Some(hit + 1);
        }
        at = hit + 2;
    }
}

fn without_trailing_commas(text: &str) -> Option<String> {
    let is_value = |token: Token| matches!(token, Token::String | Token::Number | Token::Literal | Token::Close(_));
    let mut out = String::new();
    let mut from = 0;
    // The token before, and the comma after a value that may turn out to be trailing.
    let mut before = None;
    let mut comma = None;
    // What comes after a cut is not looked at: it is for the closers, who refuse it.
    for (token, at) in Tokens::of(text).map_while(Result::ok) {
        if let Some(comma) = comma.take()
            && matches!(token, Token::Close(_))
        {
            out.push_str(&text[from..comma]);
            from = comma + 1;
        }
        if token == Token::Comma && before.is_some_and(is_value) {
            comma = Some(at);
        }
        before = Some(token);
    }
    (from > 0).then(|| out + &text[from..])
}

/// The text with its open brackets closed.
fn closed(text: &str) -> Option<String> {
    let mut open = Vec::new();
    let mut is_key = false;
    let mut before = None;
    for token in Tokens::of(text) {
        let (token, _) = token.ok()?;
        match token {
            Token::Open(bracket) => {
                if open.len() == DEPTH_MAX {
                    return None;
                }
                open.push(if bracket == b'{' { '}' } else { ']' });
            }
            Token::Close(bracket) => {
                if open.pop() != Some(char::from(bracket)) {
                    return None;
                }
            }
            Token::Comma | Token::Colon | Token::Number | Token::Literal => {}
            Token::String => {
                is_key = open.last() == Some(&'}') && matches!(before, Some(Token::Comma | Token::Open(_)));
            }
        }
        before = Some(token);
    }
    let ends_whole = match before? {
        Token::String => !is_key,
        Token::Literal | Token::Close(_) => true,
        // After a number more digits may have been due, after the others something certainly was.
        Token::Number | Token::Open(_) | Token::Comma | Token::Colon => false,
    };
    if !ends_whole || open.is_empty() {
        return None;
    }
    Some(text.chars().chain(open.into_iter().rev()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn fixed(text: &str) -> Option<(String, Vec<Fix>)> {
        repair(text, &Fix::ALL, true).map(|repaired| (repaired.text, repaired.fixes))
    }

    #[test]
    fn each_fix_does_what_its_name_says() {
        for (text, json, fixes) in [
            ("```json\n{\"a\":1}\n```", "{\"a\":1}", &[Fix::Fences][..]),
            ("  ```\n[1]\n```  ", "[1]", &[Fix::Fences]),
            ("~~~JSON\n{\"a\":\"```\"}\n~~~", "{\"a\":\"```\"}", &[Fix::Fences]),
            ("````json\n{}\n````", "{}", &[Fix::Fences]),
            ("```json\n{\"a\":1}", "{\"a\":1}", &[Fix::Fences]),
            ("{\"a\":[1,2,],}", "{\"a\":[1,2]}", &[Fix::TrailingCommas]),
            ("{\"a\":\",]\",\n}", "{\"a\":\",]\"\n}", &[Fix::TrailingCommas]),
            ("{\"a\":{\"b\":[true", "{\"a\":{\"b\":[true]}}", &[Fix::Closers]),
            ("{\"a\":\"b\"", "{\"a\":\"b\"}", &[Fix::Closers]),
            ("[{\"a\":1}", "[{\"a\":1}]", &[Fix::Closers]),
            ("```json\n{\"a\":[1,],\n\"b\":null", "{\"a\":[1],\n\"b\":null}", &Fix::ALL),
        ] {
            assert_eq!(fixed(text), Some((json.to_owned(), fixes.to_vec())), "{text}");
        }
    }

    #[test]
    fn what_would_be_a_guess_stays_broken() {
        for text in [
            "Here you are:\n```json\n{\"a\":1}\n```",
            "```json\n{\"a\":1}\n```\nThis is only an example.",
            "```json\n{\"a\":1}\n```\n```json\n{\"a\":2}\n```",
            "```{\"a\":1}```",
            "{\"a\":1} {\"a\":2}",
            "{\"a\":1}}",
            "{\"a\":[1}",
            "{\"a\":1 \"b\":2}",
            "{'a':1}",
            "{\"a\":1 /* one */}",
            "{a:1}",
            "{\"a\":,}",
            "[,]",
            "[1,,]",
            "{\"a\":12",
            "{\"a\":tru",
            "{\"a\":\"b",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1,",
            "{\"a\":[",
            "{",
            "{\"a\":\"b\",\"c\"",
            "",
            "no JSON",
        ] {
            assert_eq!(fixed(text), None, "{text}");
        }
        assert_eq!(fixed("{\"a\":1}"), None, "nothing to repair");
    }

    #[test]
    fn only_what_is_allowed_is_done() {
        assert_eq!(repair("{\"a\":[1,]}", &[Fix::Fences], true), None);
        assert_eq!(repair("```\n{\"a\":[1,]}\n```", &[Fix::Fences], true), None);
        assert_eq!(repair("{\"a\":\"b\"", &Fix::ALL, false), None, "cut by the limit");
    }

    #[test]
    fn a_hostile_text_costs_no_more_than_reading_it() {
        for text in ["[".repeat(1 << 20), "{\"a\":[".repeat(1 << 18), "[1,]".repeat(1 << 18), "```\n".repeat(1 << 18)] {
            assert_eq!(fixed(&text), None);
        }
        let long = format!("[{}]", "1,".repeat(1 << 19));
        assert!(fixed(&long).is_some());
    }

    /// The tokens of a JSON text as they are spelled.
    fn spelled(text: &str) -> Vec<&str> {
        let places: Vec<usize> = Tokens::of(text).map_while(Result::ok).map(|(_, at)| at).collect();
        let ends = places.iter().skip(1).copied().chain([text.len()]);
        places.iter().zip(ends).map(|(at, end)| text[*at..end].trim()).collect()
    }

    fn documents() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            any::<f32>().prop_filter("finite", |number| number.is_finite()).prop_map(|number| json!(number)),
            "[a-z\"\\\\{}\\[\\],:` \n]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z\"]{1,3}", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    /// Every member that is there is as it was in the original, and lists keep their order.
    fn is_part_of(part: &Value, whole: &Value) -> bool {
        match (part, whole) {
            (Value::Object(part), Value::Object(whole)) => {
                part.iter().all(|(name, value)| whole.get(name).is_some_and(|original| is_part_of(value, original)))
            }
            (Value::Array(part), Value::Array(whole)) => {
                part.len() <= whole.len() && part.iter().zip(whole).all(|(value, original)| is_part_of(value, original))
            }
            (part, whole) => part == whole,
        }
    }

    proptest! {
        #[test]
        fn any_cut_of_a_document_fails_or_keeps_what_it_has_as_it_was(document in documents(), cut in 0.0..1.0_f64, pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&document).unwrap() } else { document.to_string() };
            let mut at = (text.len() as f64 * cut) as usize;
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            if let Some(repaired) = repair(&text[..at], &Fix::ALL, true) {
                let value: Value = serde_json::from_str(&repaired.text).unwrap();
                prop_assert!(is_part_of(&value, &document), "{} from {}", repaired.text, &text[..at]);
            }
        }

        #[test]
        fn a_repair_only_adds_and_takes_punctuation(document in documents(), cut in 0.0..1.0_f64) {
            let text = document.to_string().replace(']', ",]");
            let mut at = (text.len() as f64 * cut) as usize;
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            let text = format!("```json\n{}", &text[..at]);
            if let Some(repaired) = repair(&text, &Fix::ALL, true) {
                let is_content = |token: &&str| !matches!(*token, "{" | "}" | "[" | "]" | "," | ":");
                let before: Vec<&str> = spelled(&text["```json\n".len()..]).into_iter().filter(is_content).collect();
                let after: Vec<&str> = spelled(&repaired.text).into_iter().filter(is_content).collect();
                prop_assert_eq!(before, after);
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text in "[`~{}\\[\\],:\"\\\\ \n0-9a-zä]{0,60}") {
            if let Some(repaired) = fixed(&text) {
                prop_assert!(serde_json::from_str::<Value>(&repaired.0).is_ok());
            }
        }
    }
}
