//! How much work it is to hold a document to a schema, before it is done: a schema that refers to itself can make a
//! validator take twice as long for each level of the document, and a chain of definitions that each name the next
//! one twice needs no document at all.
//!
//! The walk goes where a validator that never stops early would go, and counts. It is given up at a bound.

use serde_json::{Map, Value};
use std::collections::HashMap;

/// The most steps. A step takes some tens of nanoseconds, here and in the validator: about 50 ms in all.
const STEPS_MAX: u32 = 1_000_000;
const METASCHEMAS: [&str; 2] = ["http://json-schema.org/", "https://json-schema.org/"];
/// How deep schema and document together are followed.
const DEPTH_MAX: u32 = 1_000;

/// The places of a schema that a reference may name otherwise than by a pointer.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<String, String>);

impl Names {
    /// Finds them; `None` when the schema has no references, so that its work is bounded by its size times the
    /// document's.
    pub(super) fn of(schema: &Value) -> Option<Names> {
        let mut names = Names::default();
        let mut refers = false;
        names.gather(schema, &mut String::new(), &mut refers);
        refers.then_some(names)
    }

    fn gather(&mut self, schema: &Value, at: &mut String, refers: &mut bool) {
        let length = at.len();
        match schema {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match (name.as_str(), value) {
                        ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(_)) => *refers = true,
                        ("$anchor" | "$dynamicAnchor", Value::String(anchor)) => {
                            self.0.insert(format!("#{anchor}"), at.clone());
                        }
                        ("$id" | "id", Value::String(id)) => {
                            self.0.insert(id.clone(), at.clone());
                        }
                        (name, value) => {
                            at.push('/');
                            at.push_str(&name.replace('~', "~0").replace('/', "~1"));
                            self.gather(value, at, refers);
                            at.truncate(length);
                        }
                    }
                }
            }
            Value::Array(items) => {
                for (n, item) in items.iter().enumerate() {
                    at.push_str(&format!("/{n}"));
                    self.gather(item, at, refers);
                    at.truncate(length);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// Whether a document can be held to a schema within bounds.
pub(super) fn is_bounded(schema: &Value, names: &Names, document: &Value) -> bool {
    let mut walk = Walk { root: schema, names, steps: 0, resolved: HashMap::new() };
    walk.visit(schema, document, 0).is_some()
}

struct Walk<'a> {
    root: &'a Value,
    names: &'a Names,
    steps: u32,
    resolved: HashMap<&'a str, Option<&'a Value>>,
}

impl<'a> Walk<'a> {
    /// `None`: given up.
    fn visit(&mut self, schema: &'a Value, document: &Value, depth: u32) -> Option<()> {
        self.steps += 1;
        if self.steps > STEPS_MAX || depth > DEPTH_MAX {
            return None;
        }
        let Value::Object(schema) = schema else { return Some(()) };
        for (keyword, value) in schema {
            match keyword.as_str() {
                "$ref" | "$dynamicRef" | "$recursiveRef" => {
                    if let Value::String(to) = value
                        && let Some(target) = self.resolve(to)
                    {
                        self.visit(target, document, depth + 1)?;
                    }
                }
                "allOf" | "anyOf" | "oneOf" => {
                    for inner in value.as_array().into_iter().flatten() {
                        self.visit(inner, document, depth + 1)?;
                    }
                }
                "not" | "if" | "then" | "else" => self.visit(value, document, depth + 1)?,
                "dependentSchemas" | "dependencies" => {
                    for inner in value.as_object().into_iter().flat_map(Map::values) {
                        self.visit(inner, document, depth + 1)?;
                    }
                }
                _ => self.visit_members(keyword, value, document, depth + 1)?,
            }
        }
        Some(())
    }

    fn visit_members(&mut self, keyword: &str, value: &'a Value, document: &Value, depth: u32) -> Option<()> {
        match (keyword, document) {
            ("properties", Value::Object(members)) => {
                for (name, inner) in value.as_object().into_iter().flatten() {
                    self.steps += 1;
                    if let Some(member) = members.get(name) {
                        self.visit(inner, member, depth)?;
                    }
                }
            }
            ("patternProperties", Value::Object(members)) => {
                for inner in value.as_object().into_iter().flat_map(Map::values) {
                    for member in members.values() {
                        self.visit(inner, member, depth)?;
                    }
                }
            }
            ("additionalProperties" | "unevaluatedProperties", Value::Object(members)) => {
                for member in members.values() {
                    self.visit(value, member, depth)?;
                }
            }
            ("items" | "additionalItems" | "unevaluatedItems" | "contains" | "prefixItems", Value::Array(items)) => {
                let mut schemas = value.as_array().into_iter().flatten();
                for item in items {
                    // One schema for all, or one each.
                    let inner = if value.is_array() { schemas.next() } else { Some(value) };
                    if let Some(inner) = inner {
                        self.visit(inner, item, depth)?;
                    }
                }
            }
            _ => {}
        }
        Some(())
    }

    fn resolve(&mut self, to: &'a str) -> Option<&'a Value> {
        if let Some(known) = self.resolved.get(to) {
            return *known;
        }
        let (root, names) = (self.root, self.names);
        let found = match to.strip_prefix('#') {
            Some("") => Some(root),
            Some(pointer) if pointer.starts_with('/') => root.pointer(&unescaped(pointer)),
            // The drafts' own schemas come with the validator; they are held to no bound but are no loop either.
            None if METASCHEMAS.iter().any(|prefix| to.starts_with(prefix)) => None,
            // A reference that is spelled in another way is taken for one to the whole: the most it can be.
            Some(_) | None => names.0.get(to).map_or(Some(root), |pointer| root.pointer(pointer)),
        };
        self.resolved.insert(to, found);
        found
    }
}

/// A pointer in a URI has its odd characters in percent form.
fn unescaped(pointer: &str) -> String {
    let mut bytes = Vec::with_capacity(pointer.len());
    let mut rest = pointer.as_bytes();
    while let Some((&byte, later)) = rest.split_first() {
        let hex = |at: usize| later.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        rest = match (byte, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                &later[2..]
            }
            _ => {
                bytes.push(byte);
                later
            }
        };
    }
    String::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bounded(schema: &Value, document: &Value) -> bool {
        Names::of(schema).is_none_or(|names| is_bounded(schema, &names, document))
    }

    fn nested(levels: usize) -> Value {
        (0..levels).fold(json!({"v": 1}), |inner, _| json!({"v": 1, "next": inner, "other": [1, 2]}))
    }

    #[test]
    fn ordinary_schemas_that_refer_to_themselves_are_bounded() {
        let list = json!({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "required": ["v"],
            "properties": {"v": {"type": "number"}, "next": {"$ref": "#/$defs/node"}}}}});
        assert!(bounded(&list, &nested(100)));
        let tree = json!({"$dynamicAnchor": "node", "properties": {"children": {"type": "array",
            "items": {"$dynamicRef": "#node"}}}});
        let wide = json!({"children": vec![json!({"children": vec![json!({}); 100]}); 100]});
        assert!(bounded(&tree, &wide));
        let own = json!({"properties": {"a%b": {"type": "string"}, "c": {"$ref": "#/properties/a%25b"}}});
        assert!(bounded(&own, &json!({"c": "x"})));
    }

    #[test]
    fn a_schema_that_doubles_the_work_at_each_level_is_not() {
        let twice = json!({"$ref": "#/$defs/node", "$defs": {"node": {"anyOf": [
            {"properties": {"next": {"$ref": "#/$defs/node"}}, "required": ["x"]},
            {"properties": {"next": {"$ref": "#/$defs/node"}}, "required": ["y"]}]}}});
        assert!(bounded(&twice, &nested(8)));
        assert!(!bounded(&twice, &nested(100)));
    }

    #[test]
    fn a_chain_that_doubles_without_any_document_is_not() {
        let defs: Map<String, Value> = (0..60)
            .map(|n| (format!("d{n}"), json!({"anyOf": [{"$ref": format!("#/$defs/d{}", n + 1)}, {"$ref": format!("#/$defs/d{}", n + 1)}]})))
            .chain([("d60".to_owned(), json!({"type": "string"}))])
            .collect();
        assert!(!bounded(&json!({"$ref": "#/$defs/d0", "$defs": defs}), &json!(1)));
    }

    #[test]
    fn a_reference_to_itself_alone_ends() {
        assert!(!bounded(&json!({"$ref": "#"}), &json!(1)));
        assert!(!bounded(&json!({"allOf": [{"$ref": "https://example.com/elsewhere"}]}), &json!(1)));
    }
}
