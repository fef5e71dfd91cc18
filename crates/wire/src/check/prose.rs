//! What of a reply was written for people, told apart from code, tables, lists and quotations.

use serde_json::Value;

/// What a line is, as Markdown goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Running text, headings included.
    Prose,
    /// An item of a list.
    Item,
    /// A row of a table.
    Row,
    /// In a code fence, or the fence itself.
    Code,
    /// A quotation: `> ...`.
    Quote,
    /// Nothing, or nothing but rules and dashes.
    Blank,
}

/// The lines of a text with what they are, trimmed; items without their marker.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (Line, &str)> {
    let mut fence: Option<char> = None;
    text.lines().map(move |line| {
        let line = line.trim();
        let mark = [("```", '`'), ("~~~", '~')].into_iter().find(|(fence, _)| line.starts_with(fence));
        let mark = mark.map(|(_, mark)| mark);
        match (fence, mark) {
            (Some(open), Some(mark)) if open == mark && line.trim_start_matches(mark).is_empty() => {
                fence = None;
                return (Line::Code, line);
            }
            (Some(_), _) => return (Line::Code, line),
            (None, Some(mark)) => {
                fence = Some(mark);
                return (Line::Code, line);
            }
            (None, None) => {}
        }
        if !line.contains(|letter: char| letter.is_alphanumeric()) {
            (Line::Blank, line)
        } else if line.starts_with('|') || line.matches('|').nth(1).is_some() || line.matches('\t').nth(1).is_some() {
            (Line::Row, line)
        } else if line.starts_with('>') {
            (Line::Quote, line)
        } else if let Some(item) = item(line) {
            (Line::Item, item)
        } else {
            (Line::Prose, line)
        }
    })
}

/// What follows a list marker: `- `, `* `, `+ `, `• `, `1. `, `2) `, `a) `, with a checkbox or without.
fn item(line: &str) -> Option<&str> {
    let rest = match line.split_once(' ')? {
        ("-" | "*" | "+" | "•" | "–" | "—", rest) => rest,
        (marker, rest) => {
            let number = marker.strip_suffix(['.', ')'])?;
            let counts = number.len() <= 4 && number.bytes().all(|byte| byte.is_ascii_digit());
            let letter = number.len() == 1 && marker.ends_with(')') && number.is_ascii();
            if number.is_empty() || !(counts || letter) {
                return None;
            }
            rest
        }
    };
    let rest = rest.trim_start();
    let unboxed = ["[ ]", "[x]", "[X]"].into_iter().find_map(|checkbox| rest.strip_prefix(checkbox));
    Some(unboxed.unwrap_or(rest).trim_start())
}

/// Every string value of a document, in its order. Field names are the schema's words, not the model's.
pub(super) fn strings(value: &Value) -> Vec<&str> {
    fn gather<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::String(text) => found.push(text),
            Value::Array(items) => items.iter().for_each(|item| gather(item, found)),
            Value::Object(fields) => fields.values().for_each(|field| gather(field, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut found = Vec::new();
    gather(value, &mut found);
    found
}

/// The sentences of some text: they end at a full stop, question or exclamation mark before white space, at a CJK
/// one anywhere, and at the end of a line.
pub(super) fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let mut ends = rest.char_indices().filter(|(at, letter)| match letter {
                '.' | '!' | '?' => rest[at + 1..].chars().next().is_none_or(char::is_whitespace),
                '。' | '！' | '？' | '\n' => true,
                _ => false,
            });
            let end = ends.next().map_or(rest.len(), |(at, letter)| at + letter.len_utf8());
            let (sentence, later) = rest.split_at(end);
            rest = later;
            let sentence = sentence.trim();
            if !sentence.is_empty() {
                return Some(sentence);
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart_as_markdown_does() {
        let text = "# Head\nSome prose.\n- one\n2. two\n- [x] three\na) four\n| a | b |\n|---|---|\n> quoted\n```rust\n- code\n~~~\n```\n---\nMr. B. agreed - mostly.";
        let found: Vec<_> = lines(text).collect();
        use Line::{Blank, Code, Item, Prose, Quote, Row};
        assert_eq!(
            found,
            [
                (Prose, "# Head"),
                (Prose, "Some prose."),
                (Item, "one"),
                (Item, "two"),
                (Item, "three"),
                (Item, "four"),
                (Row, "| a | b |"),
                (Blank, "|---|---|"),
                (Quote, "> quoted"),
                (Code, "```rust"),
                (Code, "- code"),
                (Code, "~~~"),
                (Code, "```"),
                (Blank, "---"),
                (Prose, "Mr. B. agreed - mostly."),
            ]
        );
    }

    #[test]
    fn sentences_end_where_they_do() {
        let found: Vec<_> = sentences("It is 3.5 now. Really?! Yes\nNo。もう一つ。").collect();
        assert_eq!(found, ["It is 3.5 now.", "Really?!", "Yes", "No。", "もう一つ。"]);
    }
}
