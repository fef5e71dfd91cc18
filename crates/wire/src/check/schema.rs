//! JSON Schema validation that cannot leave the process, cannot backtrack and remembers what it compiled.
//!
//! A client's schema that cannot be checked here (it does not compile, refers to another document, uses a regular
//! expression outside the linear engine, or is too large) makes the reply *unverified*. It is not the model's fault,
//! and not a reason to refuse the request either: providers accept schemas that this validator does not. The same
//! holds for a document that it would take too much work to hold to the schema ([`work`]).

use super::{PROBLEMS_MAX, work};
use jsonschema::{PatternOptions, ValidationError, Validator, error::ValidationErrorKind};
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};

/// A longer schema is not checked. Providers stop far below: OpenAI at 120,000 characters of names and values.
const SCHEMA_BYTES_MAX: usize = 256 << 10;
/// A longer schema is compiled anew for each reply (some ten microseconds per KB) rather than remembered.
const CACHED_SCHEMA_BYTES_MAX: usize = 16 << 10;
/// Schemas remembered; beyond them the least recently used goes. A megabyte of schemas at most, and some ten of
/// compiled ones.
const CACHED_MAX: usize = 64;
/// A regular expression's compiled size; a larger one does not compile.
const REGEX_BYTES_MAX: usize = 1 << 20;
/// Length of one finding.
const PLACE_MAX: usize = 200;

/// How a document stands to a schema.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It keeps it.
    Valid,
    /// It breaks it: how, at most [`PROBLEMS_MAX`] of them.
    Invalid(Vec<Violation>),
    /// The schema cannot be checked.
    Unverified,
}

/// One way in which a document breaks a schema.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// Where, in the schema's own words.
    pub(super) place: String,
    /// A required field is missing where one stands that the schema does not know: the field's name, from the schema.
    pub(super) drifted: Option<String>,
}

/// A compiled schema.
#[derive(Debug)]
pub(crate) struct Compiled {
    validator: Validator,
    json: Value,
    /// It has references: the work has to be measured first.
    names: Option<work::Names>,
}

impl Compiled {
    /// Compiles a schema.
    /// # Errors
    /// Why it cannot be checked here, in plain English.
    pub(crate) fn new(schema: &str) -> Result<Compiled, String> {
        if schema.len() > SCHEMA_BYTES_MAX {
            return Err(format!("it is longer than {SCHEMA_BYTES_MAX} bytes"));
        }
        let json: Value = serde_json::from_str(schema)
            .map_err(|error| format!("it is not JSON (line {}, column {})", error.line(), error.column()))?;
        if !json.is_object() && !json.is_boolean() {
            return Err("it is neither a JSON object nor true or false".into());
        }
        let patterns = PatternOptions::regex().size_limit(REGEX_BYTES_MAX).dfa_size_limit(REGEX_BYTES_MAX);
        let validator =
            jsonschema::options().offline().with_pattern_options(patterns).build(&json).map_err(|error| {
                format!("it is no JSON Schema that can be checked here: {}", short(&error.to_string()))
            })?;
        let names = work::Names::of(&json);
        Ok(Compiled { validator, json, names })
    }

    /// Judges a document.
    pub(super) fn judge(&self, document: &Value) -> Verdict {
        if self.names.as_ref().is_some_and(|names| !work::is_bounded(&self.json, names, document)) {
            return Verdict::Unverified;
        }
        if self.validator.is_valid(document) {
            return Verdict::Valid;
        }
        let errors: Vec<_> = self.validator.iter_errors(document).take(PROBLEMS_MAX).collect();
        if errors.iter().all(is_our_own) {
            Verdict::Unverified
        } else {
            Verdict::Invalid(errors.iter().map(|error| self.violation(error)).collect())
        }
    }

    /// How a document breaks it, in its own words; empty: it does not.
    pub(crate) fn problems(&self, document: &Value) -> Vec<String> {
        match self.judge(document) {
            Verdict::Valid => Vec::new(),
            Verdict::Invalid(violations) => violations.into_iter().map(|violation| violation.place).collect(),
            Verdict::Unverified => vec!["it would take too much work to hold it to its schema".to_owned()],
        }
    }

    fn violation(&self, error: &ValidationError<'_>) -> Violation {
        let mut place = format!("schema {}", error.schema_path());
        let mut drifted = None;
        if let ValidationErrorKind::Required { property } = error.kind() {
            place.push_str(&format!(": {property} is missing"));
            drifted = property.as_str().filter(|_| self.has_strangers(error)).map(short);
        }
        Violation { place: short(&place), drifted }
    }

    /// Whether the object that lacks a field has one that the schema does not name there.
    fn has_strangers(&self, error: &ValidationError<'_>) -> bool {
        let at = error.schema_path().as_str();
        let known =
            at.rsplit_once('/').and_then(|(object, _)| self.json.pointer(object)?.get("properties")?.as_object());
        let is_known = |name: &String| known.is_some_and(|known| known.contains_key(name));
        error.instance().as_object().is_some_and(|fields| !fields.keys().all(is_known))
    }
}

/// Judges a document by a client's schema.
pub(super) fn validate(schema: &str, document: &Value) -> Verdict {
    validator(schema).map_or(Verdict::Unverified, |compiled| compiled.judge(document))
}

/// The validator failed, not the document.
fn is_our_own(error: &ValidationError<'_>) -> bool {
    matches!(
        error.kind(),
        ValidationErrorKind::BacktrackLimitExceeded { .. }
            | ValidationErrorKind::RegexEngineFailure { .. }
            | ValidationErrorKind::Referencing(_)
    )
}

fn short(text: &str) -> String {
    match text.char_indices().nth(PLACE_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// The validator of a schema, from memory or new. Absent when the schema cannot be checked.
fn validator(schema: &str) -> Option<Arc<Compiled>> {
    if schema.len() > SCHEMA_BYTES_MAX {
        return None;
    }
    if schema.len() > CACHED_SCHEMA_BYTES_MAX {
        return compile(schema);
    }
    if let Some(known) = lock().get(schema) {
        return known;
    }
    // Compiled outside the lock: others go on, and two that compile the same at once do no harm.
    let validator = compile(schema);
    lock().put(schema, validator.clone());
    validator
}

fn compile(schema: &str) -> Option<Arc<Compiled>> {
    Compiled::new(schema).ok().map(Arc::new)
}

/// A pure memo of [`compile`], the same for every call: the one global of this crate.
static CACHE: Mutex<Cache> = Mutex::new(Cache { entries: Vec::new() });

fn lock() -> std::sync::MutexGuard<'static, Cache> {
    CACHE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Least recently used first. A linear search: the lengths differ, so nearly every comparison ends at once.
struct Cache {
    entries: Vec<(Box<str>, Option<Arc<Compiled>>)>,
}

impl Cache {
    fn get(&mut self, schema: &str) -> Option<Option<Arc<Compiled>>> {
        let at = self.entries.iter().rposition(|(key, _)| **key == *schema)?;
        let entry = self.entries.remove(at);
        let validator = entry.1.clone();
        self.entries.push(entry);
        Some(validator)
    }

    fn put(&mut self, schema: &str, validator: Option<Arc<Compiled>>) {
        if self.get(schema).is_some() {
            return;
        }
        if self.entries.len() >= CACHED_MAX {
            self.entries.remove(0);
        }
        self.entries.push((schema.into(), validator));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_violation_names_the_place_in_the_schema_and_no_word_of_the_reply() {
        let schema = r#"{"type":"object","properties":{"price":{"type":"number"}},"required":["price","id"],"additionalProperties":false}"#;
        let Verdict::Invalid(found) = validate(schema, &json!({"price": "SECRET", "SECRET_KEY": 1})) else {
            panic!("must be invalid")
        };
        let all = format!("{found:?}").replace('\\', "");
        assert!(all.contains("schema /properties/price/type"), "{all}");
        assert!(all.contains("\"id\" is missing"), "{all}");
        assert!(!all.contains("SECRET"), "{all}");
    }

    #[test]
    fn violations_are_listed_up_to_a_limit() {
        let schema = r#"{"type":"array","items":{"type":"string"}}"#;
        let Verdict::Invalid(places) = validate(schema, &json!(vec![1; 1000])) else { panic!("must be invalid") };
        assert_eq!(places.len(), PROBLEMS_MAX);
    }

    #[test]
    fn a_schema_that_cannot_be_checked_leaves_the_reply_unverified() {
        let too_large = format!(r#"{{"enum":["{}"]}}"#, "x".repeat(SCHEMA_BYTES_MAX));
        for schema in [
            r#"{"$ref":"http://127.0.0.1:1/schema.json"}"#,
            r#"{"$ref":"file:///etc/passwd"}"#,
            r##"{"$ref":"#/$defs/missing"}"##,
            r#"{"type":"objekt"}"#,
            r#"{"pattern":"^(?!a)b$"}"#,
            r#"{"pattern":"((a{1000}){1000}){1000}"}"#,
            r#"{"$schema":"https://example.com/my-own-draft","type":"object"}"#,
            "7",
            &too_large,
        ] {
            assert_eq!(
                validate(schema, &json!({"a": "ab"})),
                Verdict::Unverified,
                "{}",
                &schema[..schema.len().min(80)]
            );
        }
    }

    #[test]
    fn drift_is_a_field_missing_where_an_unknown_one_stands() {
        let schema = r##"{"type":"object","properties":{"summary":{"type":"string"},"steps":{"type":"array","items":{"$ref":"#/$defs/step"}}},
            "required":["summary"],"$defs":{"step":{"type":"object","properties":{"do":{"type":"string"}},"required":["do"]}}}"##;
        for (document, expected) in [
            (json!({"message": "SECRET"}), Some("summary")),
            (json!({"steps": []}), None),
            (json!({"summary": "x", "steps": [{"SECRET": 1}]}), Some("do")),
            (json!({"summary": 7}), None),
        ] {
            let Verdict::Invalid(found) = validate(schema, &document) else { panic!("must be invalid: {document}") };
            assert_eq!(found[0].drifted.as_deref(), expected, "{document} {found:?}");
            assert!(!format!("{found:?}").contains("SECRET"));
        }
    }

    #[test]
    fn a_schema_that_would_take_for_ever_leaves_the_reply_unverified() {
        let schema = r##"{"$ref":"#/$defs/n","$defs":{"n":{"anyOf":[{"properties":{"a":{"$ref":"#/$defs/n"}},"required":["x"]},
            {"properties":{"a":{"$ref":"#/$defs/n"}},"required":["y"]}]}}}"##;
        let deep = (0..100).fold(json!({}), |inner, _| json!({ "a": inner }));
        assert_eq!(validate(schema, &deep), Verdict::Unverified);
    }

    #[test]
    fn definitions_that_name_each_other_twice_compile_in_no_time() {
        let twice = |n: usize| {
            format!(r##""d{n}":{{"anyOf":[{{"$ref":"#/$defs/d{m}"}},{{"$ref":"#/$defs/d{m}"}}]}},"##, m = n + 1)
        };
        let defs: String = (0..64).map(twice).collect();
        let schema = format!(r##"{{"$ref":"#/$defs/d0","$defs":{{{defs}"d64":{{"type":"string"}}}}}}"##);
        assert_eq!(validate(&schema, &json!(1)), Verdict::Unverified);
    }

    #[test]
    fn references_inside_the_schema_are_followed() {
        let schema = r##"{"$defs":{"node":{"type":"object","properties":{"next":{"$ref":"#/$defs/node"}},"required":["v"]}},"$ref":"#/$defs/node"}"##;
        assert_eq!(validate(schema, &json!({"v": 1, "next": {"v": 2}})), Verdict::Valid);
        assert!(matches!(validate(schema, &json!({"v": 1, "next": {}})), Verdict::Invalid(_)));
    }

    #[test]
    fn the_memory_of_compiled_schemas_is_bounded() {
        for n in 0..2 * CACHED_MAX {
            assert_eq!(validate(&format!(r#"{{"const":{n}}}"#), &json!(n)), Verdict::Valid);
        }
        assert!(lock().entries.len() <= CACHED_MAX);
    }

    #[test]
    fn a_hostile_pattern_is_matched_in_linear_time() {
        let text = json!("a".repeat(100_000));
        assert!(matches!(validate(r#"{"pattern":"^(a+)+$b"}"#, &text), Verdict::Invalid(_)));
    }
}
