//! Reads JSON Schemas: from files beside the config, or from tables in it.

use super::{
    contracts::Around,
    read::{At, Log},
    words::JsonSetting,
};
use outlast_model::policy::Schema;
use serde_json::Value;
use std::{io::Read, sync::Arc};

/// The longest JSON file that is read.
const JSON_BYTES_MAX: u64 = 1 << 20;

/// Reads one; compiling it is the wire's. `None`: the log has the reason.
pub(super) fn read(setting: &At<JsonSetting>, around: Around<'_>, log: &mut Log) -> Option<Arc<Schema>> {
    let (source, value) = match &setting.value {
        JsonSetting::Inline(json) => (setting.place.path.as_str(), json.0.clone()),
        JsonSetting::File(path) => match json_file(path, around) {
            Ok(value) => (path.as_str(), value),
            Err(why) => {
                log.error(&setting.place, format_args!("\"{path}\" {why}"), "Paths are relative to the config file");
                return None;
            }
        },
    };
    if !value.is_object() && !value.is_boolean() {
        log.error(&setting.place, "a JSON Schema is an object", "Write one like { \"type\": \"object\" }");
        return None;
    }
    if let Some(remote) = remote_reference(&value) {
        let what = format!("it refers to {remote}, and nothing is fetched from elsewhere");
        log.error(&setting.place, what, "Put that schema under $defs and refer to \"#/$defs/NAME\"");
        return None;
    }
    Some(Arc::new(Schema { source: source.into(), json: value.to_string().into() }))
}

/// Reads a JSON file beside the config.
///
/// # Errors
/// A clause that goes on after the file's name.
pub(super) fn json_file(name: &str, around: Around<'_>) -> Result<Value, String> {
    let path = around.base.join(name);
    let mut bytes = Vec::new();
    let read = std::fs::File::open(&path).and_then(|file| file.take(JSON_BYTES_MAX + 1).read_to_end(&mut bytes));
    around.files.borrow_mut().insert(path);
    read.map_err(|why| format!("cannot be read: {why}"))?;
    if bytes.len() as u64 > JSON_BYTES_MAX {
        return Err("is longer than 1 MiB".to_owned());
    }
    serde_json::from_slice(&bytes).map_err(|why| format!("is not JSON: {why}"))
}

fn remote_reference(schema: &Value) -> Option<&str> {
    match schema {
        Value::Object(fields) => fields.iter().find_map(|(name, value)| match (name.as_str(), value.as_str()) {
            ("$ref" | "$dynamicRef", Some(reference)) => (!reference.starts_with('#')).then_some(reference),
            // What stands under these is data, not a schema.
            ("const" | "enum" | "default" | "examples", _) => None,
            (_, _) => remote_reference(value),
        }),
        Value::Array(items) => items.iter().find_map(remote_reference),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Whether a schema surely has no place for a path. Where it combines or refers, nothing is sure.
pub(super) fn lacks(schema: &Schema, path: &str) -> bool {
    let Ok(value) = serde_json::from_str::<Value>(&schema.json) else { return false };
    let mut at = &value;
    for part in path.split('.') {
        while let Some(items) = at.get("items") {
            at = items;
        }
        let open = ["$ref", "allOf", "anyOf", "oneOf", "if", "patternProperties", "$dynamicRef"];
        let Some(fields) = at.get("properties").and_then(Value::as_object) else { return false };
        match fields.get(part) {
            Some(field) => at = field,
            None => return !open.iter().any(|word| at.get(word).is_some()),
        }
    }
    false
}
