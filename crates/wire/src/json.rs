//! Small tools for reading and writing JSON: fields taken by name with the rest kept, and a writer that copies raw
//! values.

use outlast_model::turn::Extra;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// A value is not what its place demands. Says where, never what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable(pub(crate) &'static str);

/// The result of reading.
pub(crate) type Read<T> = Result<T, Unreadable>;

/// The fields of one JSON object, in order, borrowed. Reading takes fields out; what is left is [`Extra`].
#[derive(Debug, Default)]
pub(crate) struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keep;
        impl<'de> Visitor<'de> for Keep {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some((key, value)) = map.next_entry::<Str<'de>, &'de RawValue>()? {
                    fields.push((key.0, value));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Keep)
    }
}

/// A string borrowed where it has no escapes. (Serde's own `Cow` always copies.)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Str<'a>(pub(crate) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Str<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keep;
        impl<'de> Visitor<'de> for Keep {
            type Value = Str<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Str<'de>, E> {
                Ok(Str(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Str<'de>, E> {
                Ok(Str(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Keep)
    }
}

/// Reads one value, or says which one could not be read.
pub(crate) fn parse<'a, T: Deserialize<'a>>(raw: &'a RawValue, what: &'static str) -> Read<T> {
    serde_json::from_str(raw.get()).map_err(|_| Unreadable(what))
}

/// Owns a raw value.
pub(crate) fn own(raw: &RawValue) -> Box<RawValue> {
    raw.to_owned()
}

impl<'a> Fields<'a> {
    /// Reads an object.
    pub(crate) fn of(raw: &'a RawValue, what: &'static str) -> Read<Fields<'a>> {
        parse(raw, what)
    }

    /// A field that stays; `null` counts as absent.
    pub(crate) fn look(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(key, value)| key == name && value.get() != "null").map(|(_, value)| *value)
    }

    /// A field stands there more than once.
    pub(crate) fn gives_twice(&self, name: &str) -> bool {
        self.0.iter().filter(|(key, _)| key == name).count() > 1
    }

    /// The JSON text of a field that stays.
    pub(crate) fn peek(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.get())
    }

    /// Takes a field out; `null` counts as absent.
    pub(crate) fn raw(&mut self, name: &str) -> Option<&'a RawValue> {
        let at = self.0.iter().position(|(key, _)| key == name)?;
        let (_, value) = self.0.remove(at);
        (value.get() != "null").then_some(value)
    }

    /// Takes a field out and reads it.
    pub(crate) fn get<T: DeserializeOwned>(&mut self, name: &'static str) -> Read<Option<T>> {
        self.raw(name).map(|raw| parse(raw, name)).transpose()
    }

    /// Takes an optional string out.
    pub(crate) fn text(&mut self, name: &'static str) -> Read<Option<Cow<'a, str>>> {
        Ok(self.raw(name).map(|raw| parse::<Str<'a>>(raw, name)).transpose()?.map(|text| text.0))
    }

    /// Takes a string out that must be there.
    pub(crate) fn need(&mut self, name: &'static str) -> Read<Cow<'a, str>> {
        self.text(name)?.ok_or(Unreadable(name))
    }

    /// Takes a list out; absent is empty.
    pub(crate) fn list(&mut self, name: &'static str) -> Read<Vec<&'a RawValue>> {
        Ok(self.raw(name).map(|raw| parse(raw, name)).transpose()?.unwrap_or_default())
    }

    /// Takes a whole number out.
    pub(crate) fn count(&mut self, name: &'static str) -> Read<Option<u32>> {
        Ok(self.get::<u64>(name)?.map(|count| u32::try_from(count).unwrap_or(u32::MAX)))
    }

    /// Every field that has not been taken, in order.
    pub(crate) fn pairs(self) -> Vec<(Cow<'a, str>, &'a RawValue)> {
        self.0
    }

    /// What has not been taken.
    pub(crate) fn rest(self) -> Extra {
        Extra(self.0.into_iter().map(|(key, value)| (key.into(), own(value))).collect())
    }
}

/// Writes JSON. The caller keeps the brackets balanced; commas come by themselves.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// Writes on after what is there, which must end in a whole line.
    pub(crate) fn onto(out: Vec<u8>) -> Self {
        Writer { out }
    }

    /// Opens an object or, with `[`, a list, as the next value.
    pub(crate) fn open(&mut self, bracket: u8) -> &mut Self {
        self.comma();
        self.out.push(bracket);
        self
    }

    /// Closes it.
    pub(crate) fn close(&mut self, bracket: u8) -> &mut Self {
        self.out.push(bracket);
        self
    }

    /// A field's name; its value must follow.
    pub(crate) fn key(&mut self, name: &str) -> &mut Self {
        self.str(name);
        self.out.push(b':');
        self
    }

    /// A string value.
    pub(crate) fn str(&mut self, text: &str) -> &mut Self {
        self.comma();
        // Writing to a Vec cannot fail, and a str is always a JSON string.
        let _ = serde_json::to_writer(&mut self.out, text);
        self
    }

    /// A value that is JSON already.
    pub(crate) fn raw(&mut self, json: &str) -> &mut Self {
        self.comma();
        self.out.extend_from_slice(json.as_bytes());
        self
    }

    /// A number, a flag, or anything else whose text is its JSON.
    pub(crate) fn plain(&mut self, value: impl fmt::Display) -> &mut Self {
        self.comma();
        let _ = std::io::Write::write_fmt(&mut self.out, format_args!("{value}"));
        self
    }

    /// A floating number, whole ones without a fraction.
    pub(crate) fn float(&mut self, value: f64) -> &mut Self {
        self.comma();
        let _ = serde_json::to_writer(&mut self.out, &value);
        self
    }

    /// Fields that were kept.
    pub(crate) fn extra(&mut self, extra: &Extra) -> &mut Self {
        for (name, value) in &extra.0 {
            self.key(name).raw(value.get());
        }
        self
    }

    /// Bytes that are not JSON, such as an SSE field name. The next value gets no comma.
    pub(crate) fn verbatim(&mut self, text: &str) -> &mut Self {
        self.out.extend_from_slice(text.as_bytes());
        self
    }

    /// What was written.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.out
    }

    /// What was written, as text.
    pub(crate) fn text(self) -> String {
        String::from_utf8(self.out).unwrap_or_default()
    }

    fn comma(&mut self) {
        // After a bracket, a colon, an SSE field's space or nothing, a value stands alone.
        if !matches!(self.out.last(), None | Some(b'{' | b'[' | b':' | b' ' | b'\n')) {
            self.out.push(b',');
        }
    }
}
