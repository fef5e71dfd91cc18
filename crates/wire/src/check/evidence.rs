//! Citations: a reply names its sources, and only such as it was given.
//!
//! The sources are where the contract says in the request's body: a list of ids, or of objects with an `id`. Without
//! a single one there is nothing to cite, and the reply fails whatever it says. A reply names them
//!
//! - in a field of its JSON, as a list of ids or of objects with an `id`, or one alone; every one has to be known; or
//! - by marks in its text: `[doc-1]`, `[1][2]`, `[doc-1, doc-2]`. Code, links (`[text](...)`) and checkboxes are none.
//!   A mark counts as a citation when it is a known id, when it stands in one bracket with one, or when it is made
//!   like one: beside ids such as `doc-1`, `[doc-9]` names an unknown source, and `[sic]` is a remark.
//!
//! It fails on an id that was not given, on none at all, and on fewer distinct ones than the contract wants.

use super::prose::{self, Line};
use crate::path;
use outlast_model::policy::Evidence;
use serde_json::Value;
use std::collections::BTreeSet;

/// A longer bracket is a remark.
const MARK_LENGTH_MAX: usize = 400;
/// Remarks that an editor makes, whatever the ids look like.
const REMARKS: &[&str] = &["sic", "x", "redacted", "name", "date", "emphasis", "note"];

/// What is wrong with a reply's citations, if anything. `request` is the request's body.
pub(super) fn problem(evidence: &Evidence, request: &Value, text: &str, value: Option<&Value>) -> Option<String> {
    let mut sources = BTreeSet::new();
    path::all(request, &evidence.sources).into_iter().for_each(|found| ids(found, &mut sources));
    if sources.is_empty() {
        return Some("the request gave no sources".into());
    }
    let mut cited = BTreeSet::new();
    match (&evidence.citations, value) {
        (Some(_), None) => return Some("the reply is not JSON, so it names no sources".into()),
        (Some(at), Some(value)) => path::all(value, at).into_iter().for_each(|found| ids(found, &mut cited)),
        (None, Some(value)) => {
            prose::strings(value).into_iter().for_each(|string| marks(string, &sources, &mut cited));
        }
        (None, None) => marks(text, &sources, &mut cited),
    }
    let unknown = cited.difference(&sources).count();
    let known = cited.len() - unknown;
    if unknown > 0 {
        return Some(format!("{unknown} of {} citations name no source that was given", cited.len()));
    }
    if known == 0 && evidence.min > 0 {
        return Some("it names no source".into());
    }
    (known < evidence.min as usize).then(|| format!("it names {known} of the sources, {} are needed", evidence.min))
}

/// The ids in a value: itself, the members of a list, the `id` of an object.
fn ids(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(id) if !id.trim().is_empty() => {
            found.insert(id.trim().to_owned());
        }
        Value::Number(id) => {
            found.insert(id.to_string());
        }
        Value::Array(items) => items.iter().for_each(|item| ids(item, found)),
        Value::Object(fields) => {
            if let Some(id @ (Value::String(_) | Value::Number(_))) = fields.get("id") {
                ids(id, found);
            }
        }
        Value::String(_) | Value::Null | Value::Bool(_) => {}
    }
}

/// The citations marked in a text.
fn marks(text: &str, sources: &BTreeSet<String>, found: &mut BTreeSet<String>) {
    let shapes: BTreeSet<String> = sources.iter().map(|id| shape(id)).collect();
    let is_like_an_id =
        |mark: &str| shapes.contains(&shape(mark)) && !REMARKS.iter().any(|remark| remark.eq_ignore_ascii_case(mark));
    for (line, words) in prose::lines(text) {
        if line == Line::Code {
            continue;
        }
        for bracket in brackets(words) {
            let members: Vec<&str> = bracket.split([',', ';']).map(str::trim).filter(|one| !one.is_empty()).collect();
            let whole = bracket.trim();
            if sources.contains(whole) {
                found.insert(whole.to_owned());
                continue;
            }
            let beside_known = members.iter().any(|member| sources.contains(*member));
            let members = members.into_iter().filter(|member| beside_known || is_like_an_id(member));
            found.extend(members.map(str::to_owned));
        }
    }
}

/// What stands in square brackets, outside inline code, and is not a link's text.
fn brackets(line: &str) -> impl Iterator<Item = &str> {
    let outside_code = line.split('`').step_by(2);
    outside_code.flat_map(|text| {
        let mut rest = text;
        std::iter::from_fn(move || {
            loop {
                let open = rest.find('[')?;
                rest = &rest[open + 1..];
                let end = rest.find(['[', ']'])?;
                if rest[end..].starts_with('[') {
                    // A bracket in a bracket: the inner one is looked at.
                    rest = &rest[end..];
                    continue;
                }
                let inside = rest[..end].trim_start_matches('^');
                rest = &rest[end + 1..];
                if !rest.starts_with('(') && !inside.trim().is_empty() && inside.len() <= MARK_LENGTH_MAX {
                    return Some(inside);
                }
            }
        })
    })
}

/// How an id is made: each run of letters as `a`, each run of digits as `9`, all else as it is.
fn shape(id: &str) -> String {
    let mut shape = String::new();
    for letter in id.chars() {
        let kind = if letter.is_numeric() {
            '9'
        } else if letter.is_alphabetic() {
            'a'
        } else {
            letter
        };
        if !(kind.is_alphanumeric() && shape.ends_with(kind)) {
            shape.push(kind);
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(citations: Option<&str>, min: u32) -> Evidence {
        Evidence { sources: "outlast.sources".into(), citations: citations.map(Into::into), min }
    }

    fn given(sources: Value) -> Value {
        json!({"outlast": {"sources": sources}})
    }

    #[test]
    fn a_field_names_known_sources_only_and_enough_of_them() {
        let request = given(json!([{"id": "doc-1", "text": "..."}, "doc-2", {"id": 3}]));
        for (reply, min, expected) in [
            (json!({"citations": ["doc-1"]}), 1, None),
            (json!({"citations": "doc-2"}), 1, None),
            (json!({"citations": [{"id": "doc-1"}, 3]}), 2, None),
            (json!({"citations": ["doc-1", "doc-1"]}), 2, Some("it names 1 of the sources, 2 are needed")),
            (json!({"citations": ["doc-1", "doc-9"]}), 1, Some("1 of 2 citations name no source that was given")),
            (json!({"citations": []}), 1, Some("it names no source")),
            (json!({"citations": []}), 0, None),
            (json!({"other": ["doc-1"]}), 1, Some("it names no source")),
        ] {
            let found = problem(&rule(Some("citations"), min), &request, "", Some(&reply));
            assert_eq!(found.as_deref(), expected, "{reply}");
        }
        let none = problem(&rule(Some("citations"), 1), &request, "doc-1", None);
        assert_eq!(none.as_deref(), Some("the reply is not JSON, so it names no sources"));
    }

    #[test]
    fn citations_deep_in_the_reply_are_gathered() {
        let request = given(json!(["a", "b"]));
        let reply = json!({"points": [{"cites": ["a"]}, {"cites": ["b", "x"]}]});
        assert!(problem(&rule(Some("points.cites"), 1), &request, "", Some(&reply)).is_some());
        let reply = json!({"points": [{"cites": ["a"]}, {"cites": ["b"]}]});
        assert_eq!(problem(&rule(Some("points.cites"), 2), &request, "", Some(&reply)), None);
    }

    #[test]
    fn marks_in_the_text_are_told_from_remarks_links_and_code() {
        let request = given(json!(["doc-1", "doc-2"]));
        for (text, good) in [
            ("It opens at nine [doc-1].", true),
            ("It opens at nine [doc-1][doc-2] and [doc-1, doc-2].", true),
            ("It opens at nine [^doc-1].", true),
            ("He said [sic] it opens [doc-1]. See [the page](https://x.y) and `a[doc-9]`.\n- [x] done [ ]", true),
            ("It opens at nine.", false),
            ("It opens at nine [doc-9].", false),
            ("It opens at nine [doc-1, the web].", false),
            ("It opens at nine [doc-1](http://doc).", false),
            ("```\n[doc-1]\n```", false),
            ("[[[[doc-1", false),
        ] {
            assert_eq!(problem(&rule(None, 1), &request, text, None).is_none(), good, "{text}");
        }
        let reply = json!({"answer": "At nine [doc-2]."});
        assert_eq!(problem(&rule(None, 1), &request, "", Some(&reply)), None);
    }

    #[test]
    fn beside_ids_that_are_plain_words_a_remark_is_still_one() {
        let request = given(json!(["handbook", "faq"]));
        for (text, good) in [
            ("It says so [handbook]; he wrote \"recieve\" [sic].", true),
            ("It says so [handbook] and so does the rest [wiki].", false),
            ("Dear [Name], it says so [faq].", true),
        ] {
            assert_eq!(problem(&rule(None, 1), &request, text, None).is_none(), good, "{text}");
        }
    }

    #[test]
    fn without_sources_nothing_can_be_cited() {
        for request in [json!({}), given(json!([])), given(json!("")), given(json!([{"text": "no id"}]))] {
            let found = problem(&rule(None, 0), &request, "All good.", None);
            assert_eq!(found.as_deref(), Some("the request gave no sources"), "{request}");
        }
    }

    #[test]
    fn brackets_without_end_cost_nothing_to_speak_of() {
        let request = given(json!(["1"]));
        for text in ["[".repeat(1 << 20), "[1".repeat(1 << 19), "[1]".repeat(1 << 18), "`[".repeat(1 << 19)] {
            let _ = problem(&rule(None, 1), &request, &text, None);
        }
    }
}
