//! Reads TOML into the sections of [`super::file`]. Nothing here stops at the first problem: each one goes into the
//! [`Log`] with its place, and reading goes on with what is left.

use super::{ConfigError, ConfigErrors, units};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    time::Duration,
};
use toml::de::{DeTable, DeValue};

/// Where a value stands: its dotted path, and its byte in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: String,
    pub(super) offset: usize,
}

impl Place {
    fn key(&self, key: &str, offset: usize) -> Place {
        let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let key = if bare { Cow::Borrowed(key) } else { Cow::Owned(format!("\"{key}\"")) };
        let path = if self.path.is_empty() { key.into_owned() } else { format!("{}.{key}", self.path) };
        Place { path, offset }
    }

    fn index(&self, index: usize, offset: usize) -> Place {
        Place { path: format!("{}[{index}]", self.path), offset }
    }
}

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// What is wrong so far.
pub(super) struct Log {
    file: Box<str>,
    lines: Vec<usize>,
    found: Vec<(usize, ConfigError)>,
    /// Sentences about what works and is probably not meant.
    pub(super) warnings: Vec<Box<str>>,
}

impl Log {
    pub(super) fn new(file: &str, text: &str) -> Self {
        let lines = memchr::memchr_iter(b'\n', text.as_bytes()).collect();
        Log { file: file.into(), lines, found: Vec::new(), warnings: Vec::new() }
    }

    /// A problem at a place of the file.
    pub(super) fn error(&mut self, place: &Place, what: impl Display, remedy: impl Display) {
        let line = self.line(place.offset);
        self.push(place.offset, Some(line), &place.path, what, remedy);
    }

    /// A problem of the file as a whole. Told last.
    pub(super) fn whole(&mut self, what: impl Display, remedy: impl Display) {
        self.push(usize::MAX, None, "", what, remedy);
    }

    /// Something that works and is probably not meant.
    pub(super) fn warn(&mut self, place: &Place, what: impl Display) {
        let warning = format!("{}:{} {}: {what}.", self.file, self.line(place.offset), place.path);
        self.warnings.push(warning.into());
    }

    /// Whether nothing is wrong so far.
    pub(super) fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    /// Whether a problem was already told of this very setting.
    pub(super) fn has_error_at(&self, path: &str) -> bool {
        self.found.iter().any(|(_, error)| &*error.path == path)
    }

    /// Whether a problem was already told of this setting or of something in it.
    pub(super) fn has_error_under(&self, path: &str) -> bool {
        let inside = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
        self.found.iter().any(|(_, error)| error.path.strip_prefix(path).is_some_and(inside))
    }

    /// Every problem, in the order of the file.
    pub(super) fn into_errors(mut self) -> ConfigErrors {
        self.found.sort_by_key(|(offset, _)| *offset);
        ConfigErrors(self.found.into_iter().map(|(_, error)| error).collect())
    }

    fn line(&self, offset: usize) -> u32 {
        let before = self.lines.partition_point(|end| *end < offset);
        u32::try_from(before + 1).unwrap_or(u32::MAX)
    }

    fn push(&mut self, offset: usize, line: Option<u32>, path: &str, what: impl Display, remedy: impl Display) {
        let (what, remedy) = (what.to_string().into(), remedy.to_string().into());
        self.found.push((offset, ConfigError { file: self.file.clone(), line, path: path.into(), what, remedy }));
    }
}

/// Parses a file and reads its sections; syntax errors are in the log with the rest.
pub(super) fn parse<T: FromToml + Default>(text: &str, log: &mut Log) -> T {
    let (table, errors) = DeTable::parse_recoverable(text);
    let broken = !errors.is_empty();
    let mut told = BTreeSet::new();
    for error in errors {
        let place = Place { path: String::new(), offset: error.span().map_or(0, |span| span.start) };
        // What follows on the same line is mostly the parser finding its feet again.
        if !told.insert(log.line(place.offset)) {
            continue;
        }
        let remedy = match error.message() {
            "duplicate key" => "Keep one of the two",
            _ => "Correct the syntax (texts stand in quotes); https://toml.io/en/v1.0.0 has its rules",
        };
        log.error(&place, format_args!("this is not valid TOML: {}", error.message().replace('\n', ", ")), remedy);
    }
    if broken {
        // What a parser recovers after a syntax error is a guess; judging it would bury the real error.
        return T::default();
    }
    let root = Place { path: String::new(), offset: 0 };
    T::from_toml(&DeValue::Table(table.into_inner()), &root, log).unwrap_or_default()
}

/// A value that TOML can be read into. `None` means that the log has the reason.
pub(super) trait FromToml: Sized {
    fn from_toml(value: &DeValue<'_>, place: &Place, log: &mut Log) -> Option<Self>;
}

/// What a setting wants, and how that is written.
struct Wanted(&'static str, &'static str);

const TEXT: Wanted = Wanted("a text", "Write it in quotes");
const BOOL: Wanted = Wanted("true or false", "Write true or false, without quotes");
const WHOLE: Wanted = Wanted("a whole number", "Write it in digits, without quotes or a decimal point");
const NUMBER: Wanted = Wanted("a number", "Write it in digits, without quotes");
const TIME: Wanted = Wanted("a duration", "Write one like \"500ms\" or \"20s\", in quotes");
const SIZE: Wanted = Wanted("a size", "Write one like \"10MB\", in quotes");
const LIST: Wanted = Wanted("a list", "Write it in brackets: [...]");
const TABLE: Wanted = Wanted("a table", "Write it in braces, { ... }, or as a [section] of its own");

fn wrong_type<T>(value: &DeValue<'_>, place: &Place, log: &mut Log, wanted: Wanted) -> Option<T> {
    let found = match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    log.error(place, format_args!("{} is wanted here, not {found}", wanted.0), wanted.1);
    None
}

/// Text.
impl FromToml for String {
    fn from_toml(value: &DeValue<'_>, place: &Place, log: &mut Log) -> Option<Self> {
        match value.as_str() {
            Some(text) if text.trim().is_empty() => {
                log.error(place, "it is empty", "Write a value or remove the setting");
                None
            }
            Some(text) => Some(text.to_owned()),
            None => wrong_type(value, place, log, TEXT),
        }
    }
}

impl FromToml for bool {
    fn from_toml(value: &DeValue<'_>, place: &Place, log: &mut Log) -> Option<Self> {
        value.as_bool().or_else(|| wrong_type(value, place, log, BOOL))
    }
}

/// A whole number, 1 or more.
impl FromToml for u32 {
    fn from_toml(value: &DeValue<'_>, place: &Place, log: &mut Log) -> Option<Self> {
        let Some(integer) = value.as_integer() else {
            return wrong_type(value, place, log, WHOLE);
        };
        match i128::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number @ 1..=0xffff_ffff) => u32::try_from(number).ok(),
            Ok(number) => {
                log.error(place, format_args!("{number} is out of range"), "Write a whole number from 1 to 4294967295");
                None
            }
            Err(_) => wrong_type(value, place, log, WHOLE),
        }
    }
}

/// A number, zero or more.
impl FromToml for f64 {
    fn from_toml(value: &DeValue<'_>, place: &Place, log: &mut Log) -> Option<Self> {
        let text = value.as_float().map(|float| float.as_str());
        let text = text.or_else(|| value.as_integer().filter(|integer| integer.radix() == 10).map(|i| i.as_str()));
        let Some(number) = text.and_then(|text| text.parse::<f64>().ok()) else {
            return wrong_type(value, place, log, NUMBER);
        };
        if number.is_finite() && number >= 0.0 {
            return Some(number);
        }
        log.error(place, format_args!("{number} is out of range"), "Write a number that is zero or more");
        None
    }
}

/// A duration as text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Time(pub(super) Duration);

impl FromToml for Time {
    fn from_toml(value: &DeValue<'_>, place: &Place, log: &mut Log) -> Option<Self> {
        let Some(text) = value.as_str() else {
            return wrong_type(value, place, log, TIME);
        };
        match units::duration(text) {
            Ok(duration) => Some(Time(duration)),
            Err(why) => {
                log.error(
                    place,
                    format_args!("\"{text}\" is not a usable duration: {why}"),
                    "Write one like \"500ms\" or \"20s\"",
                );
                None
            }
        }
    }
}

/// A duration as text, up to a year: how long a run, or a person, may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span(pub(super) Duration);

impl FromToml for Span {
    fn from_toml(value: &DeValue<'_>, place: &Place, log: &mut Log) -> Option<Self> {
        let Some(text) = value.as_str() else {
            return wrong_type(value, place, log, TIME);
        };
        match units::span(text) {
            Ok(duration) => Some(Span(duration)),
            Err(why) => {
                let what = format!("\"{text}\" is not a usable duration: {why}");
                log.error(place, what, "Write one like \"10m\", \"4h\" or \"2d\"");
                None
            }
        }
    }
}

/// A number of bytes as text, or as a plain number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Size(pub(super) u64);

impl FromToml for Size {
    fn from_toml(value: &DeValue<'_>, place: &Place, log: &mut Log) -> Option<Self> {
        if value.is_integer() {
            return u32::from_toml(value, place, log).map(|bytes| Size(bytes.into()));
        }
        let Some(text) = value.as_str() else {
            return wrong_type(value, place, log, SIZE);
        };
        match units::size(text) {
            Ok(bytes) => Some(Size(bytes)),
            Err(why) => {
                log.error(place, format_args!("\"{text}\" is not a usable size: {why}"), "Write one like \"10MB\"");
                None
            }
        }
    }
}

impl<T: FromToml> FromToml for Vec<At<T>> {
    fn from_toml(value: &DeValue<'_>, place: &Place, log: &mut Log) -> Option<Self> {
        let Some(array) = value.as_array() else {
            return wrong_type(value, place, log, LIST);
        };
        let items = array.iter().enumerate().filter_map(|(index, item)| {
            let place = place.index(index, item.span().start);
            T::from_toml(item.get_ref(), &place, log).map(|value| At { value, place })
        });
        Some(items.collect())
    }
}

/// TOML as JSON; `None` where JSON has no form for it.
pub(super) fn json(value: &DeValue<'_>) -> Option<serde_json::Value> {
    use serde_json::Value;
    match value {
        DeValue::String(text) => Some(Value::String(text.to_string())),
        DeValue::Boolean(truth) => Some(Value::Bool(*truth)),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(Value::from),
        DeValue::Float(float) => float.as_str().parse().ok().and_then(serde_json::Number::from_f64).map(Value::Number),
        DeValue::Datetime(_) => None,
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(table) => {
            let fields = table.iter().map(|(key, item)| Some((key.get_ref().to_string(), json(item.get_ref())?)));
            fields.collect::<Option<serde_json::Map<_, _>>>().map(Value::Object)
        }
    }
}

/// Tables by name.
pub(super) type Named<T> = BTreeMap<String, At<T>>;

impl<T: FromToml> FromToml for Named<T> {
    fn from_toml(value: &DeValue<'_>, place: &Place, log: &mut Log) -> Option<Self> {
        let Some(table) = value.as_table() else {
            return wrong_type(value, place, log, TABLE);
        };
        let items = table.iter().filter_map(|(key, item)| {
            let place = place.key(key.get_ref(), key.span().start);
            let value = T::from_toml(item.get_ref(), &place, log)?;
            Some((key.get_ref().to_string(), At { value, place }))
        });
        Some(items.collect())
    }
}

/// Reads one field of a section, if it is there.
pub(super) fn field<T: FromToml>(table: &DeTable<'_>, name: &str, place: &Place, log: &mut Log) -> Option<At<T>> {
    let (key, item) = table.get_key_value(name)?;
    let place = place.key(name, key.span().start);
    T::from_toml(item.get_ref(), &place, log).map(|value| At { value, place })
}

/// The table of a section, its unknown fields already told.
pub(super) fn section<'v, 'i>(
    value: &'v DeValue<'i>,
    place: &Place,
    fields: &[&str],
    log: &mut Log,
) -> Option<&'v DeTable<'i>> {
    let Some(table) = value.as_table() else {
        return wrong_type(value, place, log, TABLE);
    };
    for (key, _) in table.iter().filter(|(key, _)| !fields.contains(&key.get_ref().as_ref())) {
        let name = key.get_ref();
        let place = place.key(name, key.span().start);
        let remedy = match did_you_mean(name, fields.iter().copied()) {
            Some(near) => format!("Did you mean `{near}`?"),
            None => format!("Remove it; known here: {}", fields.join(", ")),
        };
        log.error(&place, format_args!("`{name}` is not a setting"), remedy);
    }
    Some(table)
}

/// The nearest known name, if it is near enough to be a slip of the hand.
pub(super) fn did_you_mean<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let lower = name.to_lowercase();
    let near =
        known.map(|known| (distance(&lower, &known.to_lowercase()), known)).min_by_key(|(distance, _)| *distance);
    let limit = (name.chars().count() / 3).max(1);
    near.filter(|(distance, _)| *distance <= limit).map(|(_, known)| known)
}

/// Edits (insert, delete, replace, swap of neighbours) from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl JsonSchema for Time {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": r"^\s*[0-9][0-9_]*(\.[0-9]+)?\s*(ms|s|m|min|h|d)\s*$" })
    }
}

impl JsonSchema for Span {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Time::json_schema(generator)
    }
}

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 1 },
            { "type": "string", "pattern": r"^\s*[0-9][0-9_]*(\.[0-9]+)?\s*([kKmMgG][iI]?)?[bB]?\s*$" },
        ] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_hand_finds_the_name_and_nonsense_does_not() {
        let known = ["targets", "ranking", "tier", "contract"];
        for (name, near) in [
            ("target", Some("targets")),
            ("tragets", Some("targets")),
            ("Tier", Some("tier")),
            ("rank", None),
            ("temperature", None),
        ] {
            assert_eq!(did_you_mean(name, known.into_iter()), near, "{name}");
        }
    }
}
