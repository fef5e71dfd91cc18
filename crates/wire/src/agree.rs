//! When do replies agree? Votes are sorted into classes; the engine counts them without reading any.
//!
//! A reply that is a JSON object or list is compared as JSON, field by field, by the tier's rules; any other as text,
//! equal but for case, punctuation and white space. Where JSON is due, what is no JSON, or names a field twice, is no
//! ballot.
//!
//! A field without a rule has to be equal: in whatever order the fields of an object stand, and a number in whatever
//! form (`1.0` is `1`). A field that one reply has and the other lacks is a difference, unless it is to be ignored. By
//! rule, a number may be off by a tolerance, a text may differ in case, punctuation and white space, and a list may
//! stand in any order: its members are matched by their key field, or by all they say.
//!
//! Agreement within a tolerance is not transitive: 1.0 may agree with 1.4, and 1.4 with 1.8, but not 1.0 with 1.8. So
//! every ballot is compared with the *first* of each class, in the order of the classes, and joins the first class it
//! agrees with. Nothing within a class is further apart than twice the tolerance, and the same ballots in the same
//! order always make the same classes.

use crate::strict;
use outlast_model::policy::{Agree, FieldRule, Votes};
use serde_json::Value;
use std::fmt::Write;

/// The ballots of one vote, sorted into classes of replies that agree. Holds every ballot: as many as the tier has
/// samples, each of which came within the limits of a reply.
#[derive(Debug)]
pub struct Tally {
    rules: Rules,
    json: bool,
    ballots: Vec<Ballot>,
    /// The ballots of each class by number, the first first.
    classes: Vec<Vec<usize>>,
}

#[derive(Debug)]
enum Ballot {
    Json(Value),
    /// In its normal form.
    Text(String),
}

impl Tally {
    /// An empty ballot box under a tier's rules. Rules for fields make JSON due.
    pub fn new(votes: &Votes) -> Tally {
        Tally {
            rules: Rules(votes.fields.clone()),
            json: !votes.fields.is_empty(),
            ballots: Vec::new(),
            classes: Vec::new(),
        }
    }

    /// Ballots have to be JSON if the contract or the request demands it.
    pub fn of_json(mut self, demanded: bool) -> Tally {
        self.json |= demanded;
        self
    }

    /// Adds a ballot. The class it agrees with, or a new one; `None`: it is malformed (nothing at all, or not JSON
    /// where JSON is due) and does not count.
    pub fn add(&mut self, text: &str) -> Option<usize> {
        let ballot = self.read(text)?;
        let class = self.classes.iter().position(|class| self.agree(&self.ballots[class[0]], &ballot));
        Some(self.put(ballot, class))
    }

    /// The classes that a text might still belong to though it uses other words than each of them, with the number of
    /// each one's first ballot: whoever can read may say so. None for JSON, for what is malformed, and for a text whose
    /// words have been heard.
    pub fn other_words(&self, text: &str) -> Vec<(usize, usize)> {
        let Some(ballot @ Ballot::Text(_)) = self.read(text) else { return Vec::new() };
        let firsts = self.classes.iter().enumerate().map(|(class, members)| (class, members[0]));
        let texts = firsts.filter(|(_, first)| matches!(self.ballots[*first], Ballot::Text(_)));
        let texts: Vec<(usize, usize)> = texts.collect();
        if texts.iter().any(|(_, first)| self.agree(&self.ballots[*first], &ballot)) { Vec::new() } else { texts }
    }

    /// Adds a ballot to this class, because somebody says that it means the same. As [`Tally::add`] otherwise.
    pub fn add_to(&mut self, class: usize, text: &str) -> Option<usize> {
        let ballot = self.read(text)?;
        Some(self.put(ballot, Some(class).filter(|class| *class < self.classes.len())))
    }

    fn read(&self, text: &str) -> Option<Ballot> {
        Some(match strict::parse(text) {
            Ok(value) if self.json || value.is_object() || value.is_array() => Ballot::Json(value),
            Err(_) if self.json => return None,
            Ok(_) | Err(_) => Ballot::Text(Some(normal(text)).filter(|text| !text.is_empty())?),
        })
    }

    fn put(&mut self, ballot: Ballot, class: Option<usize>) -> usize {
        self.ballots.push(ballot);
        let number = self.ballots.len() - 1;
        match class {
            Some(class) => {
                self.classes[class].push(number);
                class
            }
            None => {
                self.classes.push(vec![number]);
                self.classes.len() - 1
            }
        }
    }

    /// The ballot that stands for a class, whole: the one that shares the most values with the others of its class, the
    /// earliest of equals. Never a mix of several. Ballots are numbered from 0 in the order in which [`Tally::add`]
    /// took them; malformed ones have no number.
    pub fn whole(&self, class: usize) -> usize {
        let Some(members) = self.classes.get(class) else { return 0 };
        let shared = |number: usize| -> usize {
            members.iter().filter(|other| **other != number).map(|other| self.shared(number, *other)).sum()
        };
        // The last of equal maxima is taken, so the earliest has to come last.
        members.iter().rev().copied().max_by_key(|number| shared(*number)).unwrap_or_default()
    }

    fn agree(&self, one: &Ballot, other: &Ballot) -> bool {
        match (one, other) {
            (Ballot::Json(one), Ballot::Json(other)) => self.rules.agree(one, other, &mut String::new()),
            (Ballot::Text(one), Ballot::Text(other)) => one == other,
            (Ballot::Json(_), Ballot::Text(_)) | (Ballot::Text(_), Ballot::Json(_)) => false,
        }
    }

    fn shared(&self, one: usize, other: usize) -> usize {
        match (&self.ballots[one], &self.ballots[other]) {
            (Ballot::Json(one), Ballot::Json(other)) => shared(one, other),
            (Ballot::Json(_) | Ballot::Text(_), _) => 0,
        }
    }
}

/// The rules of the fields, by path.
#[derive(Debug)]
struct Rules(Vec<FieldRule>);

impl Rules {
    fn of(&self, path: &str) -> &Agree {
        self.0.iter().find(|rule| *rule.path == *path).map_or(&Agree::Exact, |rule| &rule.agree)
    }

    fn agree(&self, one: &Value, other: &Value, path: &mut String) -> bool {
        match (self.of(path), one, other) {
            (Agree::Ignore, ..) => true,
            (Agree::Number(tolerance), Value::Number(one), Value::Number(other)) => {
                let (Some(one), Some(other)) = (one.as_f64(), other.as_f64()) else { return false };
                // 0.3 - 0.2 is a little more than 0.1: the tolerance means what it says in decimals.
                let rounding = f64::EPSILON * 4.0 * one.abs().max(other.abs());
                (one - other).abs() <= tolerance + rounding
            }
            (Agree::Text, Value::String(one), Value::String(other)) => normal(one) == normal(other),
            (Agree::Set(key), Value::Array(one), Value::Array(other)) => {
                let (one, other) = (self.sorted(one, key.as_deref(), path), self.sorted(other, key.as_deref(), path));
                one.len() == other.len() && one.iter().zip(&other).all(|(one, other)| self.agree(one, other, path))
            }
            (_, Value::Array(one), Value::Array(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(one, other)| self.agree(one, other, path))
            }
            (_, Value::Object(one), Value::Object(other)) => {
                let in_one = one.iter().all(|(name, value)| {
                    self.below(path, name, |path| match other.get(name) {
                        Some(other) => self.agree(value, other, path),
                        None => *self.of(path) == Agree::Ignore,
                    })
                });
                let added = |(name, _): (&String, &Value)| {
                    one.contains_key(name) || self.below(path, name, |path| *self.of(path) == Agree::Ignore)
                };
                in_one && other.iter().all(added)
            }
            (_, one, other) => equal(one, other),
        }
    }

    /// Does something at a field's path.
    fn below<T>(&self, path: &mut String, name: &str, mut then: impl FnMut(&mut String) -> T) -> T {
        let length = path.len();
        if length > 0 {
            path.push('.');
        }
        path.push_str(name);
        let result = then(path);
        path.truncate(length);
        result
    }

    /// The members of a list in an order that does not depend on theirs: by key, then by what they say. Numbers that
    /// have a tolerance come last in that, so that a small difference seldom changes the order.
    fn sorted<'v>(&self, items: &'v [Value], key: Option<&str>, path: &mut String) -> Vec<&'v Value> {
        let mut keyed: Vec<(String, &Value)> = items
            .iter()
            .map(|item| {
                let (mut firm, mut loose) = (String::new(), String::new());
                if let Some(value) = key.and_then(|key| item.get(key)) {
                    canonical(value, &mut firm);
                }
                self.describe(item, path, &mut firm, &mut loose);
                (firm + &loose, item)
            })
            .collect();
        keyed.sort_by(|one, other| one.0.cmp(&other.0));
        keyed.into_iter().map(|(_, item)| item).collect()
    }

    fn describe(&self, value: &Value, path: &mut String, firm: &mut String, loose: &mut String) {
        match (self.of(path), value) {
            (Agree::Ignore, _) => {}
            (Agree::Number(_), value) => canonical(value, loose),
            (Agree::Text, Value::String(text)) => firm.push_str(&normal(text)),
            (_, Value::Array(items)) => items.iter().for_each(|item| self.describe(item, path, firm, loose)),
            (_, Value::Object(fields)) => {
                let mut fields: Vec<_> = fields.iter().collect();
                fields.sort_by_key(|(name, _)| *name);
                for (name, value) in fields {
                    firm.push_str(name);
                    firm.push('=');
                    self.below(path, name, |path| self.describe(value, path, firm, loose));
                }
            }
            (_, value) => canonical(value, firm),
        }
        firm.push('\u{1}');
    }
}

/// Equal whatever the order of fields and the form of numbers.
fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one == other || (one.is_f64() || other.is_f64()) && one.as_f64() == other.as_f64()
        }
        (one, other) => one == other,
    }
}

/// How many values two documents share: leaves at the same place that are equal.
fn shared(one: &Value, other: &Value) -> usize {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => one.iter().zip(other).map(|(one, other)| shared(one, other)).sum(),
        (Value::Object(one), Value::Object(other)) => {
            one.iter().filter_map(|(name, value)| Some(shared(value, other.get(name)?))).sum()
        }
        (one, other) => usize::from(equal(one, other)),
    }
}

/// A value as text that is the same for equal values.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Number(number) => {
            // Writing to a string cannot fail.
            let _ = match number.as_f64().filter(|float| number.is_f64() && float.fract() != 0.0) {
                Some(float) => write!(out, "{float:?}"),
                None => match number.as_i64() {
                    Some(whole) => write!(out, "{whole}"),
                    None => write!(out, "{:.0}", number.as_f64().unwrap_or_default()),
                },
            };
        }
        Value::Array(items) => items.iter().for_each(|item| {
            canonical(item, out);
            out.push(',');
        }),
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            for (name, value) in fields {
                out.push_str(name);
                out.push('=');
                canonical(value, out);
                out.push(';');
            }
        }
        Value::String(text) => out.push_str(text),
        Value::Bool(_) | Value::Null => {
            let _ = write!(out, "{value}");
        }
    }
}

/// A text's words in lower case.
fn normal(text: &str) -> String {
    let mut normal = String::with_capacity(text.len());
    for word in text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()) {
        if !normal.is_empty() {
            normal.push(' ');
        }
        normal.extend(word.chars().flat_map(char::to_lowercase));
    }
    // A text of signs alone (`+`, `:-)`) is told by them.
    if normal.is_empty() { text.split_whitespace().collect() } else { normal }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlast_model::policy::{Disagreement, VoteSpread};
    use proptest::prelude::*;
    use serde_json::json;

    fn tally(fields: &[(&str, Agree)]) -> Tally {
        let fields = fields.iter().map(|(path, agree)| FieldRule { path: (*path).into(), agree: agree.clone() });
        Tally::new(&Votes {
            ahead: 2,
            samples: 5,
            spread: VoteSpread::Targets,
            fields: fields.collect(),
            judge: None,
            disagreement: Disagreement::Fail,
        })
    }

    fn agree(rules: &[(&str, Agree)], one: Value, other: Value) -> bool {
        let mut tally = tally(rules);
        let first = tally.add(&one.to_string()).unwrap();
        tally.add(&other.to_string()).unwrap() == first
    }

    #[test]
    fn without_rules_json_has_to_be_equal_but_not_equally_written() {
        assert!(agree(&[], json!({"a": 1, "b": [1, 2]}), json!({"b": [1.0, 2], "a": 1.0})));
        assert!(!agree(&[], json!({"a": 1}), json!({"a": "1"})));
        assert!(!agree(&[], json!({"a": [1, 2]}), json!({"a": [2, 1]})));
        assert!(!agree(&[], json!({"a": 1}), json!({"a": 1, "b": null})));
        assert!(!agree(&[], json!({"n": 9007199254740993_u64}), json!({"n": 9007199254740992_u64})), "no rounding");
    }

    #[test]
    fn each_rule_says_what_agrees() {
        use Agree::{Exact, Ignore, Number, Set, Text};
        let by_id = || Set(Some("id".into()));
        for (rules, one, other, agrees) in [
            (vec![("price", Number(0.1))], json!({"price": 0.2}), json!({"price": 0.3}), true),
            (vec![("price", Number(0.1))], json!({"price": 0.2}), json!({"price": 0.31}), false),
            (vec![("price", Number(0.1))], json!({"price": 0.2}), json!({"price": "0.2"}), false),
            (vec![("why", Text)], json!({"why": "Too late!"}), json!({"why": " too  LATE"}), true),
            (vec![("why", Text)], json!({"why": "Too late"}), json!({"why": "Too later"}), false),
            (vec![("why", Ignore)], json!({"a": 1, "why": "x"}), json!({"a": 1}), true),
            (vec![("why", Ignore)], json!({"a": 1}), json!({"a": 1, "why": {"y": 1}}), true),
            (vec![("id", Exact)], json!({"id": "A"}), json!({"id": "a"}), false),
            (vec![("tags", Set(None))], json!({"tags": ["a", "b", "a"]}), json!({"tags": ["b", "a", "a"]}), true),
            (vec![("tags", Set(None))], json!({"tags": ["a", "b"]}), json!({"tags": ["a", "b", "b"]}), false),
            (
                vec![("items", by_id()), ("items.price", Number(0.5)), ("items.note", Ignore)],
                json!({"items": [{"id": 1, "price": 10.2, "note": "x"}, {"id": 2, "price": 5}]}),
                json!({"items": [{"id": 2, "price": 5.1, "note": "y"}, {"id": 1, "price": 10}]}),
                true,
            ),
            (
                vec![("items", by_id()), ("items.price", Number(0.5))],
                json!({"items": [{"id": 1, "price": 10}, {"id": 2, "price": 5}]}),
                json!({"items": [{"id": 2, "price": 10}, {"id": 1, "price": 5}]}),
                false,
            ),
        ] {
            assert_eq!(agree(&rules, one.clone(), other.clone()), agrees, "{rules:?} {one} {other}");
            assert_eq!(
                agree(&rules, other.clone(), one.clone()),
                agrees,
                "the other way round: {rules:?} {one} {other}"
            );
        }
    }

    #[test]
    fn a_ballot_joins_the_first_class_whose_first_ballot_it_agrees_with() {
        let mut tally = tally(&[("n", Agree::Number(0.5))]);
        let classes: Vec<_> =
            ["1.0", "1.4", "1.8", "1.3", "2.2"].iter().map(|n| tally.add(&format!("{{\"n\":{n}}}"))).collect();
        assert_eq!(classes, [Some(0), Some(0), Some(1), Some(0), Some(1)]);
    }

    #[test]
    fn text_agrees_in_its_words_and_nothing_is_no_ballot() {
        let mut tally = tally(&[]);
        let classes: Vec<_> = ["Paris.", "paris", "It is Paris", "", " \n", "+", "-", "{\"a\":1}"]
            .iter()
            .map(|text| tally.add(text))
            .collect();
        assert_eq!(classes, [Some(0), Some(0), Some(1), None, None, Some(2), Some(3), Some(4)]);
    }

    #[test]
    fn where_json_is_due_anything_else_is_malformed() {
        let mut tally = tally(&[]).of_json(true);
        for malformed in ["Paris", "", "{\"a\":1", "{\"a\":1,\"a\":1}", "{} {}"] {
            assert_eq!(tally.add(malformed), None, "{malformed}");
        }
        assert_eq!(tally.add("7"), Some(0));
    }

    #[test]
    fn the_whole_answer_of_a_class_is_the_one_that_shares_most() {
        let mut tally = tally(&[("n", Agree::Number(1.0)), ("why", Agree::Ignore)]);
        assert_eq!(tally.add("not JSON"), None);
        for text in [r#"{"n":1,"why":"a"}"#, r#"{"n":2,"why":"b"}"#, r#"{"n":2,"why":"b"}"#, r#"{"n":9}"#] {
            assert!(tally.add(text).is_some());
        }
        assert_eq!((tally.whole(0), tally.whole(1), tally.whole(7)), (1, 3, 0));
    }

    #[test]
    fn large_ballots_are_compared_in_reasonable_time() {
        let list = |step: usize| -> Value {
            (0..20_000)
                .map(|n| json!({"id": (n * step) % 20_000, "v": n as f64 / 7.0, "t": "x".repeat(n % 9)}))
                .collect()
        };
        let rules =
            [("items", Agree::Set(Some("id".into()))), ("items.v", Agree::Number(1e9)), ("items.t", Agree::Ignore)];
        assert!(agree(&rules, json!({"items": list(1)}), json!({"items": list(7)})));
    }

    proptest! {
        #[test]
        fn a_reply_agrees_with_itself_in_any_order(seed in prop::collection::vec(0..50i64, 0..12), turn in 0..12usize) {
            let items = |list: &[i64]| json!({"items": list.iter().map(|n| json!({"id": n, "v": n % 3})).collect::<Vec<_>>()});
            let mut turned = seed.clone();
            if !turned.is_empty() {
                let by = turn % turned.len();
                turned.rotate_left(by);
            }
            prop_assert!(agree(&[("items", Agree::Set(Some("id".into())))], items(&seed), items(&turned)));
        }
    }

    #[test]
    fn somebody_who_can_read_may_put_other_words_into_a_class() {
        let mut tally = tally(&[]);
        assert_eq!(tally.other_words("It is Paris."), []);
        assert_eq!(tally.add("It is Paris."), Some(0));
        assert_eq!(tally.add(r#"{"city": "Paris"}"#), Some(1));
        assert_eq!(tally.other_words("it is paris"), [], "those words have been heard");
        assert_eq!(tally.other_words(r#"{"city": "Lyon"}"#), [], "JSON is compared by rules");
        assert_eq!(tally.other_words("Paris, of course"), [(0, 0)]);
        assert_eq!(tally.add_to(0, "Paris, of course"), Some(0));
        assert_eq!(tally.other_words("The capital: Paris"), [(0, 0)], "a class is known by its first");
        assert_eq!(tally.add_to(7, "Lyon"), Some(2), "there is no such class");
        assert_eq!(tally.whole(0), 0);
    }
}
