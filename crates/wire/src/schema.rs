//! What the vendors' structured outputs ask of a JSON Schema. The reply is always checked against the client's own
//! schema, so a schema sent upstream may say less than it. It says more in one thing: Anthropic wants
//! objects closed.

use serde_json::{Map, Value};

/// The schema of a tool without arguments.
pub(crate) const NO_ARGUMENTS: &str = r#"{"type":"object","properties":{}}"#;

/// A tool's schema with the `type` that Anthropic insists on.
pub(crate) fn object(schema: &str) -> String {
    match serde_json::from_str::<Map<String, Value>>(schema) {
        Ok(fields) if fields.contains_key("type") => schema.to_owned(),
        Ok(mut fields) => {
            fields.insert("type".into(), "object".into());
            Value::Object(fields).to_string()
        }
        Err(_) => NO_ARGUMENTS.to_owned(),
    }
}

/// Whether OpenAI's strict mode would take it: every object closed and every property required.
pub(crate) fn is_openai_strict(schema: &str) -> bool {
    fn strict(value: &Value) -> bool {
        match value {
            Value::Object(fields) => {
                let closed = fields.get("additionalProperties") == Some(&Value::Bool(false));
                let all_required = match (fields.get("properties"), fields.get("required")) {
                    (Some(Value::Object(properties)), Some(Value::Array(required))) => {
                        properties.keys().all(|name| required.iter().any(|one| one == name))
                    }
                    (Some(Value::Object(properties)), _) => properties.is_empty(),
                    _ => true,
                };
                let is_object = fields.get("type").is_some_and(|kind| kind == "object");
                (!is_object || (closed && all_required)) && fields.values().all(strict)
            }
            Value::Array(items) => items.iter().all(strict),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        }
    }
    serde_json::from_str::<Value>(schema).is_ok_and(|value| strict(&value))
}

/// The schema as Anthropic's structured outputs take it: objects closed, and the constraints it does not know moved
/// into the description, as its own SDKs do.
/// Source: Anthropic, "Structured outputs", JSON Schema limitations.
pub(crate) fn for_anthropic(schema: &str) -> String {
    match serde_json::from_str::<Value>(schema) {
        Ok(mut value) => {
            adapt(&mut value);
            value.to_string()
        }
        Err(_) => schema.to_owned(),
    }
}

/// Constraints that Anthropic's structured outputs reject.
const UNKNOWN: [&str; 16] = [
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "patternProperties",
    "propertyNames",
    "contains",
    "$schema",
    "$id",
];

fn adapt(value: &mut Value) {
    let Value::Object(fields) = value else { return };
    let mut said = Vec::new();
    for name in UNKNOWN {
        if let Some(constraint) = fields.shift_remove(name)
            && !name.starts_with('$')
        {
            said.push(format!("{name}: {constraint}"));
        }
    }
    // Only "at least none" and "at least one" are known.
    if fields.get("minItems").and_then(Value::as_u64).is_some_and(|least| least > 1)
        && let Some(least) = fields.shift_remove("minItems")
    {
        said.push(format!("minItems: {least}"));
    }
    if !said.is_empty() {
        let before = fields.get("description").and_then(Value::as_str).map(|text| format!("{text} "));
        let text = format!("{}{{{}}}", before.unwrap_or_default(), said.join(", "));
        fields.insert("description".into(), text.into());
    }
    if fields.get("type").is_some_and(|kind| kind == "object") {
        fields.insert("additionalProperties".into(), false.into());
    }
    if let Some(one_of) = fields.shift_remove("oneOf") {
        fields.insert("anyOf".into(), one_of);
    }
    for name in ["properties", "$defs", "definitions"] {
        if let Some(Value::Object(inner)) = fields.get_mut(name) {
            inner.values_mut().for_each(adapt);
        }
    }
    for name in ["anyOf", "allOf"] {
        if let Some(Value::Array(inner)) = fields.get_mut(name) {
            inner.iter_mut().for_each(adapt);
        }
    }
    if let Some(items) = fields.get_mut("items") {
        adapt(items);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anthropic_gets_closed_objects_and_constraints_in_words() {
        let schema = r#"{"type":"object","properties":{"n":{"type":"integer","description":"Count.","minimum":1},"tags":{"type":"array","items":{"type":"object"},"minItems":2}}}"#;
        assert_eq!(
            for_anthropic(schema),
            r#"{"type":"object","properties":{"n":{"type":"integer","description":"Count. {minimum: 1}"},"tags":{"type":"array","items":{"type":"object","additionalProperties":false},"description":"{minItems: 2}"}},"additionalProperties":false}"#
        );
    }

    #[test]
    fn strict_means_closed_and_all_required() {
        assert!(is_openai_strict(
            r#"{"type":"object","properties":{"a":{}},"required":["a"],"additionalProperties":false}"#
        ));
        assert!(!is_openai_strict(r#"{"type":"object","properties":{"a":{}},"additionalProperties":false}"#));
        assert!(!is_openai_strict(
            r#"{"type":"object","properties":{"a":{"type":"object"}},"required":["a"],"additionalProperties":false}"#
        ));
    }
}
