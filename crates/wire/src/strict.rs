//! JSON read without benefit of the doubt: an object that names a field twice means something else to every reader,
//! so it means nothing here.

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use std::fmt;

/// Why a text is not one JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotJson {
    /// An object names a field twice.
    Twice,
    /// The syntax is wrong, it nests too deep, or something follows the value.
    At {
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in bytes.
        column: usize,
    },
}

/// Reads a text that must be one JSON value. Depth is bounded by the parser, at 128.
pub(crate) fn parse(text: &str) -> Result<Value, NotJson> {
    match serde_json::from_str::<Strict>(text) {
        Ok(value) => Ok(value.0),
        // The visitor's only message of its own.
        Err(error) if error.is_data() => Err(NotJson::Twice),
        Err(error) => Err(NotJson::At { line: error.line(), column: error.column() }),
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Build)
    }
}

struct Build;

impl<'de> Visitor<'de> for Build {
    type Value = Strict;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Strict, E> {
        Ok(Strict(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Strict, E> {
        Ok(Strict(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Strict, E> {
        Ok(Strict(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Strict, E> {
        Ok(Strict(Value::String(value.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Strict, E> {
        Ok(Strict(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Strict, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Strict(Value::Array(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strict, A::Error> {
        let mut fields = Map::new();
        while let Some((name, Strict(value))) = map.next_entry::<String, Strict>()? {
            if fields.insert(name, value).is_some() {
                return Err(de::Error::custom("twice"));
            }
        }
        Ok(Strict(Value::Object(fields)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_field_given_twice_is_found_at_any_depth_and_however_it_is_spelled() {
        for text in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"c":2,"a":3}}]"#, r#"{"a":1,"\u0061":2}"#] {
            assert_eq!(parse(text), Err(NotJson::Twice), "{text}");
        }
        assert!(parse(r#"{"a":{"a":1},"b":[{"a":1},{"a":2}]}"#).is_ok());
    }

    #[test]
    fn what_is_not_one_value_is_refused_with_its_place() {
        assert_eq!(parse("{} {}"), Err(NotJson::At { line: 1, column: 4 }));
        assert_eq!(parse("{\n\"a\":}"), Err(NotJson::At { line: 2, column: 5 }));
        assert!(matches!(parse(&"[".repeat(100_000)), Err(NotJson::At { .. })));
    }

    proptest! {
        #[test]
        fn everything_else_reads_as_the_usual_reader_reads_it(number: f64, whole: i64, text in ".{0,30}", flag: bool) {
            let value = serde_json::json!({"n": number, "w": [whole, {"t": text, "f": flag, "z": null}]});
            let written = value.to_string();
            prop_assert_eq!(parse(&written).unwrap(), serde_json::from_str::<Value>(&written).unwrap());
        }
    }
}
