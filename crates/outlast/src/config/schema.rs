//! The JSON Schema of the config file, for completion and checking in editors.

use super::file::File;
use schemars::{Schema, generate::SchemaSettings, transform::transform_subschemas};
use serde_json::Value;

/// The schema, draft 7: what the editors' TOML plug-ins read.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft07().with_transform(without_null as fn(&mut Schema));
    let mut schema = settings.into_generator().into_root_schema_for::<File>();
    schema.insert("title".to_owned(), "outlast.toml".into());
    schema.to_value()
}

/// TOML has no null: a setting is there or not.
fn without_null(schema: &mut Schema) {
    transform_subschemas(&mut without_null, schema);
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    // The reader's numbers: whole ones begin at 1, others at 0. `format` would only repeat Rust's name for the type.
    if let Some(format) = object.remove("format") {
        object.insert("minimum".to_owned(), i32::from(format == "uint32").into());
    }
    let is_null = |schema: &Value| schema.get("type").is_some_and(|kind| kind == "null");
    let Some(Value::Array(options)) = object.get_mut("anyOf") else { return };
    options.retain(|option| !is_null(option));
    if let [only] = options.as_slice() {
        let only = only.clone();
        object.remove("anyOf");
        match only {
            // Draft 7 ignores what stands beside a `$ref`, so the description would be lost.
            Value::Object(only) if only.contains_key("$ref") && !object.is_empty() => {
                object.insert("allOf".to_owned(), Value::Array(vec![Value::Object(only)]));
            }
            Value::Object(only) => only.into_iter().for_each(|(key, value)| {
                object.entry(key).or_insert(value);
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {}
        }
    }
}
