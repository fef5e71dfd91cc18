//! Dotted paths into JSON: `items.price`. Lists on the way are gone through; a list at the end is the value.

use serde_json::Value;

/// The most values one path may lead to.
const VALUES_MAX: usize = 100_000;

/// The values a path leads to, in order.
pub(crate) fn all<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = Vec::new();
    follow(value, path, &mut found);
    found
}

/// The only value a path leads to; `None` if there is none, or more than one.
pub(crate) fn one<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let found = all(value, path);
    if let [only] = found[..] { Some(only) } else { None }
}

fn follow<'a>(value: &'a Value, path: &str, found: &mut Vec<&'a Value>) {
    if found.len() >= VALUES_MAX {
        return;
    }
    if path.is_empty() {
        return found.push(value);
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| follow(item, path, found)),
        Value::Object(fields) => {
            let (name, rest) = path.split_once('.').unwrap_or((path, ""));
            if let Some(inner) = fields.get(name) {
                follow(inner, rest, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_path_goes_through_lists_and_ends_anywhere() {
        let value = json!({"items": [{"price": 1, "tags": ["a", "b"]}, {"price": 2}], "total": 3});
        assert_eq!(all(&value, "items.price"), [&json!(1), &json!(2)]);
        assert_eq!(all(&value, "items.tags"), [&json!(["a", "b"])]);
        assert_eq!(one(&value, "total"), Some(&json!(3)));
        assert_eq!(one(&value, "items.price"), None, "two of them");
        assert_eq!(one(&value, "total.cents"), None);
        assert_eq!(one(&value, "nothing"), None);
    }
}
