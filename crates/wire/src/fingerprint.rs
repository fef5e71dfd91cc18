//! A request's fingerprint: equal for bodies that ask the same thing, however they are spelled.
//!
//! Every value has a digest of its own and a container's is made of its members', so that a body is read once, whatever
//! its nesting, and no two different bodies share a text. The scanner has held the body to brackets, strings and 128
//! levels before.

use crate::{Inbound, json::Str};
use blake3::{Hash, Hasher};

/// The deepest nesting a payload of a durable step may have.
const DEPTH_MAX: usize = 128;

/// The fingerprint of any JSON: field order, white space and the spelling of strings and numbers do not count. `None` of
/// what nests deeper than 128 levels. What is no JSON has a fingerprint without a meaning.
pub fn of(json: &[u8]) -> Option<[u8; 32]> {
    let mut cursor = Cursor { body: json, at: 0 };
    shallow(json).then(|| *cursor.value(Place::Elsewhere).as_bytes())
}

fn shallow(json: &[u8]) -> bool {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in json {
        match (quoted, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => quoted = !quoted,
            (false, b'{' | b'[') => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return false;
                }
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            (true | false, _) => {}
        }
    }
    true
}

impl Inbound {
    /// The fingerprint of what is asked. Field order, white space and the spelling of strings and numbers do not count,
    /// nor does what may change when the same thing is asked again: `stream`, `stream_options`, `outlast.confirm`,
    /// and of `outlast.state` the `retry_count` and `budget_used_usd`. The path asked is not in it.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut cursor = Cursor { body: self.body(), at: 0 };
        *cursor.value(Place::Body).as_bytes()
    }
}

/// Where a value stands, as far as that decides which of its fields count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Body,
    Outlast,
    State,
    Elsewhere,
}

impl Place {
    /// Where a field leads; `None`: it does not count.
    fn of(self, field: &str) -> Option<Place> {
        match (self, field) {
            (Place::Body, "stream" | "stream_options") => None,
            (Place::Body, "outlast") => Some(Place::Outlast),
            (Place::Outlast, "confirm") => None,
            (Place::Outlast, "state") => Some(Place::State),
            (Place::State, "retry_count" | "budget_used_usd") => None,
            (Place::Body | Place::Outlast | Place::State | Place::Elsewhere, _) => Some(Place::Elsewhere),
        }
    }
}

/// Reads a body whose brackets and strings are known to be whole.
struct Cursor<'a> {
    body: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&mut self) -> u8 {
        while let Some(&byte) = self.body.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return byte;
            }
            self.at += 1;
        }
        0
    }

    /// The digest of the value that comes next.
    fn value(&mut self, place: Place) -> Hash {
        match self.peek() {
            b'{' => self.object(place),
            b'[' => self.list(),
            b'"' => tagged(b's', self.string().as_bytes()),
            _ => {
                let start = self.at;
                let rest = &self.body[start..];
                let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t');
                self.at += rest.iter().position(ends).unwrap_or(rest.len());
                tagged(b'n', number(&self.body[start..self.at]).as_bytes())
            }
        }
    }

    fn object(&mut self, place: Place) -> Hash {
        let mut members: Vec<(String, Hash)> = Vec::new();
        self.at += 1;
        while !matches!(self.peek(), b'}' | 0) {
            if self.peek() == b',' {
                self.at += 1;
                continue;
            }
            let name = self.string();
            self.peek();
            self.at += 1;
            let inner = place.of(&name);
            let value = self.value(inner.unwrap_or(Place::Elsewhere));
            let empty = matches!(inner, Some(Place::Outlast | Place::State)) && value == tagged(b'o', b"");
            if inner.is_some() && !empty {
                members.push((name, value));
            }
        }
        self.at += 1;
        members.sort_by(|one, other| one.0.cmp(&other.0));
        let mut hasher = Hasher::new();
        hasher.update(b"o");
        for (name, value) in members {
            hasher.update(tagged(b's', name.as_bytes()).as_bytes()).update(value.as_bytes());
        }
        hasher.finalize()
    }

    fn list(&mut self) -> Hash {
        let mut hasher = Hasher::new();
        hasher.update(b"l");
        self.at += 1;
        while !matches!(self.peek(), b']' | 0) {
            if self.peek() == b',' {
                self.at += 1;
                continue;
            }
            hasher.update(self.value(Place::Elsewhere).as_bytes());
        }
        self.at += 1;
        hasher.finalize()
    }

    /// A string without its escapes; one whose escapes are broken stays as it is.
    fn string(&mut self) -> String {
        let start = self.at;
        let mut at = start + 1;
        while let Some(hit) = self.body.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
            at += hit;
            if self.body[at] == b'"' {
                break;
            }
            at += 2;
        }
        self.at = self.body.len().min(at + 1);
        let text = &self.body[start..self.at];
        serde_json::from_slice::<Str<'_>>(text)
            .map_or_else(|_| String::from_utf8_lossy(text).into_owned(), |text| text.0.into_owned())
    }
}

fn tagged(tag: u8, text: &[u8]) -> Hash {
    let mut hasher = Hasher::new();
    hasher.update(&[tag]).update(text);
    hasher.finalize()
}

/// A number in one spelling: its sign, its digits without outer zeros, and a power of ten. Exact for any length, as a
/// floating number would not be. What is no number (`true`, `null`, a broken one) stays as it is.
fn number(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    normal(&text).unwrap_or_else(|| text.into_owned())
}

fn normal(text: &str) -> Option<String> {
    let (sign, rest) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    let dropped = i64::try_from(digits.len() - significant.len()).ok()?;
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        return Some("0".into());
    }
    let exponent = exponent.strip_prefix('+').unwrap_or(exponent).parse::<i64>().ok()?;
    let exponent = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(dropped)?;
    Some(format!("{sign}{significant}e{exponent}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlast_model::policy::Dialect;
    use proptest::prelude::*;

    fn of(body: &str) -> [u8; 32] {
        Inbound::parse(Dialect::OpenaiChat, body.to_owned().into()).unwrap().fingerprint()
    }

    fn asks(more: &str) -> String {
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"café"}}]{more}}}"#)
    }

    #[test]
    fn spelling_and_what_changes_when_the_same_is_asked_again_do_not_count() {
        let plain = of(&asks(""));
        for same in [
            asks(r#","stream":true,"stream_options":{"include_usage":true}"#),
            asks(r#","outlast":{"confirm":"t"}"#),
            asks(r#","outlast":{"state":{"retry_count":2,"budget_used_usd":0.1}}"#),
            r#" { "messages" : [ {"content":"caf\u00e9", "role":"user"} ], "model":"m" } "#.into(),
        ] {
            assert_eq!(of(&same), plain, "{same}");
        }
        let many = asks(r#","a":[1,-2.5,1e3,0,{"x":1,"y":[]}]"#);
        assert_eq!(of(&many), of(&asks(r#","a":[1.0,-25E-1,1000,-0.0e9,{"y":[ ],"x":10e-1}]"#)));
    }

    #[test]
    fn what_is_asked_counts_to_the_last_digit() {
        let bodies = [
            "",
            r#","a":1"#,
            r#","a":"1""#,
            r#","a":10"#,
            r#","a":-1"#,
            r#","a":98765432109876543210"#,
            r#","a":98765432109876543211"#,
            r#","a":null"#,
            r#","a":"null""#,
            r#","a":[]"#,
            r#","a":{}"#,
            r#","a":[[]]"#,
            r#","a":[1,2]"#,
            r#","a":[[1],2]"#,
            r#","a":[2,1]"#,
            r#","a":["1,2"]"#,
            r#","a":{"stream":true}"#,
            r#","a":{"stream":false}"#,
            r#","outlast":{"sources":["x"]}"#,
            r#","outlast":{"state":{"step":"a"}}"#,
            r#","outlast":{"state":{"step":"b"}}"#,
        ];
        let mut seen: Vec<[u8; 32]> = bodies.iter().map(|more| of(&asks(more))).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), bodies.len());
    }

    #[test]
    fn any_json_has_one_that_its_spelling_does_not_change_unless_it_nests_too_deep() {
        let plain = super::of(br#"{"stream":true,"b":[1,"x"],"a":null}"#);
        assert_eq!(plain, super::of(br#" { "a":null, "b":[1.0,"\u0078"], "stream":true } "#));
        assert_ne!(plain, super::of(br#"{"stream":false,"b":[1,"x"],"a":null}"#));
        let nested = |depth: usize| super::of(("[".repeat(depth) + "\"[[\\\"[\"" + &"]".repeat(depth)).as_bytes());
        assert!(nested(128).is_some() && nested(129).is_none());
    }

    proptest! {
        #[test]
        fn any_accepted_body_has_one_and_white_space_never_counts(
            text in ".{0,40}", number: f64, list in prop::collection::vec(any::<i64>(), 0..5), spoil in ".{0,8}",
        ) {
            let value = serde_json::json!({"model": "m", "messages": [{"content": text}], "x": {"n": number, "l": list}});
            prop_assert_eq!(of(&value.to_string()), of(&serde_json::to_string_pretty(&value).unwrap()));
            // Broken deep inside, which the scanner lets through: still an answer, and no panic.
            let broken = asks(&format!(r#","a":"\q{}","b":1.2.3"#, spoil.replace(['"', '\\'], "")));
            if let Ok(inbound) = Inbound::parse(Dialect::OpenaiChat, broken.into()) {
                inbound.fingerprint();
            }
        }
    }
}
