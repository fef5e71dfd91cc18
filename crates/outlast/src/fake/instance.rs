//! A minimal valid instance of a JSON Schema: what a model that keeps structured output would write.

use serde_json::{Map, Number, Value, json};

/// Nesting at which optional parts are left out and recursion ends.
const DEPTH_MAX: usize = 32;

/// An instance of `schema` with required properties only; `{}` or a plain value where the schema says too little.
/// Patterns and cross-field conditions are not solved.
pub(super) fn instance(schema: &Value) -> Value {
    build(schema, schema, 0)
}

fn build(schema: &Value, root: &Value, depth: usize) -> Value {
    if depth > DEPTH_MAX {
        return Value::Null;
    }
    if let Some(found) = schema["$ref"].as_str().and_then(|path| root.pointer(path.strip_prefix('#')?)) {
        return build(found, root, depth + 1);
    }
    for fixed in ["const", "default"] {
        if let Some(value) = schema.get(fixed) {
            return value.clone();
        }
    }
    if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
        return first.clone();
    }
    for choice in ["anyOf", "oneOf"] {
        if let Some(first) = schema[choice].as_array().and_then(|options| options.first()) {
            return build(first, root, depth + 1);
        }
    }
    if let Some(parts) = schema["allOf"].as_array() {
        return all_of(schema, parts, root, depth);
    }
    match kind(schema) {
        "string" => Value::String(string(schema)),
        "integer" => integer(schema),
        "number" => number(schema),
        "boolean" => Value::Bool(true),
        "array" => array(schema, root, depth),
        "null" => Value::Null,
        _ => object(schema, root, depth),
    }
}

fn kind(schema: &Value) -> &str {
    let named = schema["type"].as_str().or_else(|| schema["type"].as_array()?.first()?.as_str());
    let implied = [("items", "array"), ("minLength", "string"), ("minimum", "number")];
    named
        .unwrap_or_else(|| implied.iter().find(|(key, _)| schema.get(key).is_some()).map_or("object", |(_, kind)| kind))
}

fn object(schema: &Value, root: &Value, depth: usize) -> Value {
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let fields = required.map(|name| (name.to_owned(), build(&schema["properties"][name], root, depth + 1)));
    Value::Object(fields.collect::<Map<_, _>>())
}

fn all_of(schema: &Value, parts: &[Value], root: &Value, depth: usize) -> Value {
    let mut whole = match object(schema, root, depth) {
        Value::Object(fields) => fields,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    };
    for part in parts {
        match build(part, root, depth + 1) {
            Value::Object(fields) => whole.extend(fields),
            plain @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
                return plain;
            }
        }
    }
    Value::Object(whole)
}

fn array(schema: &Value, root: &Value, depth: usize) -> Value {
    let count = schema["minItems"].as_u64().unwrap_or(0).min(64);
    let prefix = schema["prefixItems"].as_array().map(Vec::as_slice).unwrap_or_default();
    let item = |at: u64| usize::try_from(at).ok().and_then(|at| prefix.get(at)).unwrap_or(&schema["items"]);
    Value::Array((0..count).map(|at| build(item(at), root, depth + 1)).collect())
}

fn string(schema: &Value) -> String {
    let text = match schema["format"].as_str() {
        Some("date-time") => "2026-01-02T03:04:05Z",
        Some("date") => "2026-01-02",
        Some("time") => "03:04:05Z",
        Some("email") => "fake@example.com",
        Some("uri") => "https://example.com/",
        Some("uuid") => "00000000-0000-4000-8000-000000000000",
        Some("ipv4") => "192.0.2.1",
        _ => "text",
    };
    let least = schema["minLength"].as_u64().unwrap_or(0).min(100_000);
    let most = schema["maxLength"].as_u64().unwrap_or(u64::MAX);
    let filled = text.chars().chain(std::iter::repeat('x')).zip(0u64..);
    filled.take_while(|(_, at)| *at < most && (*at < least || *at < text.len() as u64)).map(|(c, _)| c).collect()
}

fn integer(schema: &Value) -> Value {
    let least = schema["minimum"].as_i64().or_else(|| schema["exclusiveMinimum"].as_i64().map(|n| n.saturating_add(1)));
    let step = schema["multipleOf"].as_i64().filter(|step| *step > 0).unwrap_or(1);
    let wanted = least.unwrap_or(1).max(schema["maximum"].as_i64().map_or(i64::MIN, |most| most.min(1)));
    let capped = schema["maximum"].as_i64().map_or(wanted, |most| wanted.min(most));
    let up = capped.rem_euclid(step);
    json!(if up == 0 { capped } else { capped + step - up })
}

fn number(schema: &Value) -> Value {
    let least = schema["minimum"].as_f64().or_else(|| schema["exclusiveMinimum"].as_f64().map(|n| n + 0.5));
    let most = schema["maximum"].as_f64().or_else(|| schema["exclusiveMaximum"].as_f64().map(|n| n - 0.5));
    let value = match (least, most) {
        (Some(least), Some(most)) => least.midpoint(most),
        (Some(least), None) => least,
        (None, Some(most)) => most.min(0.5),
        (None, None) => 0.5,
    };
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_satisfies_its_schema() {
        for schema in [
            json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer", "minimum": 5}}, "required": ["a", "b"], "additionalProperties": false}),
            json!({"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 2}),
            json!({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}}, "required": ["next"]}}}),
            json!({"type": "number", "minimum": 0, "maximum": 1}),
            json!({"type": ["string", "null"], "minLength": 12}),
            json!({"type": "string", "maxLength": 2}),
            json!({"type": "string", "format": "date-time"}),
            json!({"allOf": [{"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}, {"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"]}]}),
            json!({"type": "integer", "multipleOf": 7, "minimum": 15}),
            json!({"type": "integer", "maximum": -3}),
            json!(true),
        ] {
            let value = instance(&schema);
            assert!(jsonschema::is_valid(&schema, &value), "{schema} {value}");
        }
    }

    #[test]
    fn a_schema_that_recurses_for_ever_still_ends() {
        instance(&json!({"$ref": "#"}));
        instance(&json!({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}));
    }
}
