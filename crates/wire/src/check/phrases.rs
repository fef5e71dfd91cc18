//! Phrases that have to be in a reply, or must not be: where case and white space do not count, nor whether an
//! apostrophe or a quotation mark is straight or curved. A phrase is found inside words too: `refund` is in
//! `refunded`.
//!
//! Of a JSON reply the text as it came is searched and every string of it with its escapes resolved, so that no
//! spelling hides a phrase.

use super::prose;
use memchr::memmem;
use serde_json::Value;

/// A phrase ready to be looked for.
#[derive(Debug)]
pub(crate) struct Phrase(Box<str>);

impl Phrase {
    /// `None`: nothing is left of it in its normal form.
    pub(crate) fn of(text: &str) -> Option<Phrase> {
        let mut normal = String::new();
        normalise(text, &mut normal);
        (!normal.is_empty()).then(|| Phrase(normal.into()))
    }
}

/// A reply ready to be searched.
pub(super) struct Searched(String);

impl Searched {
    pub(super) fn of(text: &str, value: Option<&Value>) -> Searched {
        let mut normal = String::with_capacity(text.len());
        normalise(text, &mut normal);
        // In JSON only an escape makes a string's text other than its spelling.
        if let Some(value) = value.filter(|_| text.contains('\\')) {
            for string in prose::strings(value) {
                normal.push('\n');
                normalise(string, &mut normal);
            }
        }
        Searched(normal)
    }

    pub(super) fn has(&self, phrase: &Phrase) -> bool {
        memmem::find(self.0.as_bytes(), phrase.0.as_bytes()).is_some()
    }
}

/// Adds a text in lower case, each run of white space as one space, none at its ends.
fn normalise(text: &str, out: &mut String) {
    for (at, word) in text.split_whitespace().enumerate() {
        if at > 0 {
            out.push(' ');
        }
        for letter in word.chars() {
            match letter {
                '’' | '‘' | '`' => out.push('\''),
                '“' | '”' | '„' => out.push('"'),
                '\u{ad}' | '\u{200b}' => {}
                letter => out.extend(letter.to_lowercase()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(text: &str, phrase: &str) -> bool {
        Searched::of(text, serde_json::from_str(text).ok().as_ref()).has(&Phrase::of(phrase).unwrap())
    }

    #[test]
    fn case_white_space_and_the_shape_of_quotes_do_not_count() {
        assert!(has("We  cannot\n\tguarantee it.", "cannot guarantee"));
        assert!(has("DON\u{2019}T PANIC", "don't panic"));
        assert!(has("GROSSE STRASSE", "grosse strasse"));
        assert!(has("soft\u{ad}hyphen", "SoftHyphen"));
        assert!(!has("guarantee", "guarantee it"));
        assert!(Phrase::of(" \n").is_none());
    }

    #[test]
    fn an_escape_hides_nothing() {
        assert!(has(r#"{"a":"risk\u002dfree"}"#, "risk-free"));
        assert!(has(r#"{"a":"no\nrisk"}"#, "no risk"));
        assert!(has(r#"{"a":"x"}"#, r#""a":"x""#), "the text itself is searched too");
    }
}
