//! Reads what a caller sends: bodies field by field, so that an error names the field and says what belongs there; paths
//! and queries.

use super::super::{
    Shared,
    intake::{self, Held},
    live::Live,
    serve::{Denial, unread},
};
use bytes::Bytes;
use http::HeaderMap;
use hyper::body::Incoming;
use outlast_model::{RunId, Usd};
use outlast_store::Payload;
use outlast_wire::{error::Refused, fingerprint};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// The longest name of a worker, queue, workflow, version, signal or scope, in characters.
const NAME_MAX: usize = 128;
/// The longest step key, in bytes.
const KEY_MAX: usize = 256;
/// No time that is asked for is longer: ten years.
const LONGEST_S: f64 = 10.0 * 366.0 * 86_400.0;

pub(super) fn bad(param: &'static str, message: impl Into<String>) -> Denial {
    Denial::new(Refused::BadRequest, message).about(param)
}

/// A body's fields as they were sent. Payloads among them keep every byte.
pub(super) struct Fields {
    given: BTreeMap<String, Box<RawValue>>,
}

impl Fields {
    /// Reads a body that may have these fields and no others. An empty one is `{}`.
    pub(super) async fn of(
        shared: &Arc<Shared>,
        live: &Live,
        headers: &HeaderMap,
        body: Incoming,
        known: &[&str],
    ) -> Result<(Fields, Held), Denial> {
        let (body, held) = intake::read(shared, &live.config.server, headers, body).await.map_err(unread)?;
        Ok((Fields::parse(&body, known)?, held))
    }

    pub(super) fn parse(body: &Bytes, known: &[&str]) -> Result<Fields, Denial> {
        let given: BTreeMap<String, Box<RawValue>> = match body.iter().all(u8::is_ascii_whitespace) {
            true => BTreeMap::new(),
            false => serde_json::from_slice(body).map_err(|error| {
                Denial::new(Refused::BadRequest, format!("The body must be a JSON object: {error}."))
            })?,
        };
        match given.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(Fields { given }),
            Some(name) => {
                let name: String = name.chars().filter(|c| !c.is_control()).take(60).collect();
                let message = format!("There is no field `{name}` here. Known: {}.", known.join(", "));
                Err(Denial::new(Refused::BadRequest, message))
            }
        }
    }

    /// Whether the field is there, be it `null`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// A field that may be left out or `null`. `what` says what belongs there.
    pub(super) fn maybe<T: DeserializeOwned>(&self, name: &'static str, what: &str) -> Result<Option<T>, Denial> {
        let Some(raw) = self.given.get(name) else { return Ok(None) };
        serde_json::from_str(raw.get()).map_err(|_| bad(name, format!("`{name}` must be {what}.")))
    }

    /// A field that has to be there.
    pub(super) fn must<T: DeserializeOwned>(&self, name: &'static str, what: &str) -> Result<T, Denial> {
        self.maybe(name, what)?.ok_or_else(|| bad(name, format!("`{name}` is missing: send {what}.")))
    }

    /// A structure of its own, whose reader says what is wrong in it.
    pub(super) fn nested<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, Denial> {
        let Some(raw) = self.given.get(name) else { return Ok(None) };
        serde_json::from_str(raw.get()).map_err(|error| bad(name, format!("`{name}`: {error}.")))
    }

    pub(super) fn flag(&self, name: &'static str) -> Result<bool, Denial> {
        Ok(self.maybe(name, "true or false")?.unwrap_or(false))
    }

    /// A name, if it is given.
    pub(super) fn name(&self, name: &'static str) -> Result<Option<Arc<str>>, Denial> {
        let what = format!("1 to {NAME_MAX} characters without control characters");
        let given: Option<String> = self.maybe(name, &what)?;
        match given {
            Some(text) if !is_name(&text) => Err(bad(name, format!("`{name}` must be {what}."))),
            given => Ok(given.map(Arc::from)),
        }
    }

    /// A name that has to be there.
    pub(super) fn must_name(&self, name: &'static str) -> Result<Arc<str>, Denial> {
        self.name(name)?.ok_or_else(|| bad(name, format!("`{name}` is missing: send a text.")))
    }

    /// Names, none if the field is left out.
    pub(super) fn names(&self, name: &'static str, at_most: usize) -> Result<Vec<Arc<str>>, Denial> {
        let what = format!("a list of at most {at_most} names of 1 to {NAME_MAX} characters");
        let given: Vec<String> = self.maybe(name, &what)?.unwrap_or_default();
        if given.len() > at_most || !given.iter().all(|text| is_name(text)) {
            return Err(bad(name, format!("`{name}` must be {what}.")));
        }
        Ok(given.into_iter().map(Arc::from).collect())
    }

    /// A time in seconds, fractions allowed, from `least` to `most`.
    pub(super) fn secs(&self, name: &'static str, least: f64, most: f64) -> Result<Option<Duration>, Denial> {
        let what = match most >= LONGEST_S {
            true => format!("a number of seconds of at least {least}"),
            false => format!("a number of seconds from {least} to {most}"),
        };
        match self.maybe::<f64>(name, &what)? {
            None => Ok(None),
            Some(secs) if (least..=most.min(LONGEST_S)).contains(&secs) => Ok(Some(Duration::from_secs_f64(secs))),
            Some(_) => Err(bad(name, format!("`{name}` must be {what}."))),
        }
    }

    /// A time of any length.
    pub(super) fn long(&self, name: &'static str) -> Result<Option<Duration>, Denial> {
        self.secs(name, 0.0, LONGEST_S)
    }

    pub(super) fn usd(&self, name: &'static str) -> Result<Option<Usd>, Denial> {
        let what = "an amount in dollars of at least 0";
        match self.maybe::<f64>(name, what)? {
            None => Ok(None),
            Some(dollars) if dollars >= 0.0 => Ok(Some(Usd::from_dollars(dollars))),
            Some(_) => Err(bad(name, format!("`{name}` must be {what}."))),
        }
    }

    /// A claim's number.
    pub(super) fn epoch(&self) -> Result<Option<outlast_store::Epoch>, Denial> {
        let what = "the claim's number, as `/v1/claim` or `begin` gave it";
        Ok(self.maybe("epoch", what)?.map(outlast_store::Epoch))
    }

    /// A claim's number that has to be there.
    pub(super) fn must_epoch(&self) -> Result<outlast_store::Epoch, Denial> {
        let missing = "`epoch` is missing: send the claim's number, as `/v1/claim` or `begin` gave it.";
        self.epoch()?.ok_or_else(|| bad("epoch", missing))
    }

    /// A payload, byte for byte; none if the field is left out.
    pub(super) fn payload(&self, name: &'static str) -> Result<Option<Payload>, Denial> {
        let Some(raw) = self.given.get(name) else { return Ok(None) };
        self.fingerprint(name)?;
        Ok(Some(Payload::new(raw.get().as_bytes().to_vec())))
    }

    /// The hash of a payload; of `null` if the field is left out.
    pub(super) fn fingerprint(&self, name: &'static str) -> Result<[u8; 32], Denial> {
        let json = self.given.get(name).map_or("null", |raw| raw.get());
        fingerprint::of(json.as_bytes()).ok_or_else(|| bad(name, format!("`{name}` nests deeper than 128 levels.")))
    }

    /// The hash of everything that was sent.
    pub(super) fn whole(&self) -> Result<[u8; 32], Denial> {
        let mut hash = blake3::Hasher::new();
        for (name, raw) in self.given.iter().filter(|(_, raw)| raw.get() != "null") {
            let of = fingerprint::of(raw.get().as_bytes());
            let of =
                of.ok_or_else(|| Denial::new(Refused::BadRequest, format!("`{name}` nests deeper than 128 levels.")))?;
            hash.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes()).update(&of);
        }
        Ok(*hash.finalize().as_bytes())
    }
}

fn is_name(text: &str) -> bool {
    (1..=NAME_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// A run's id.
pub(super) fn run_id(text: &str) -> Option<RunId> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
    ((1..=NAME_MAX).contains(&text.len()) && text.bytes().all(fits)).then(|| RunId::new(text))
}

/// A step's key.
pub(super) fn step_key(text: &str) -> Result<Arc<str>, Denial> {
    if (1..=KEY_MAX).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(text.into());
    }
    let message = format!("A step's key must be 1 to {KEY_MAX} bytes without control characters.");
    Err(Denial::new(Refused::BadRequest, message))
}

/// A part of a path or query without its escapes; none if they are broken.
pub(super) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = rest.get(..2).and_then(|digits| str::from_utf8(digits).ok())?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

/// A query's parameters.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads one that may have these parameters and no others.
    pub(super) fn parse(query: Option<&str>, known: &[&str]) -> Result<Query, Denial> {
        let mut given = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(&value.replace('+', " ")).filter(|_| known.contains(&name));
            let wrong = || {
                let known = if known.is_empty() { "none".into() } else { known.join(", ") };
                Denial::new(Refused::BadRequest, format!("The query is not understood. Known parameters: {known}."))
            };
            given.push((name.to_owned(), value.ok_or_else(wrong)?));
        }
        Ok(Query(given))
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn number(&self, name: &'static str, least: u64, most: u64) -> Result<Option<u64>, Denial> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        number.map(Some).ok_or_else(|| {
            let range =
                if most == u64::MAX { format!("of at least {least}") } else { format!("from {least} to {most}") };
            bad(name, format!("`{name}` must be a whole number {range}."))
        })
    }
}

/// An error as a worker says it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SaidError {
    #[expect(dead_code, reason = "held to its form; the bytes are kept")]
    message: String,
    #[expect(dead_code, reason = "held to its form; the bytes are kept")]
    #[serde(default)]
    failure: Option<String>,
    #[serde(default)]
    pub(super) r#final: bool,
    #[serde(default = "yes")]
    pub(super) sent: bool,
    #[serde(default)]
    pub(super) retry_after_s: Option<f64>,
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(body: &str) -> Fields {
        let known = ["worker", "wait_s", "queues", "ok"];
        Fields::parse(&Bytes::from(body.to_owned()), &known).ok().expect("an object")
    }

    #[test]
    fn an_unknown_field_is_refused_by_name_and_a_payload_keeps_every_byte() {
        assert!(Fields::parse(&Bytes::from_static(br#"{"worker":"w","wait":1}"#), &["worker"]).is_err());
        assert!(Fields::parse(&Bytes::from_static(b"[1]"), &["worker"]).is_err());
        let fields = fields(r#"{"ok": {"n": 98765432109876543210.10, "b":1 ,"a":2}, "wait_s": null}"#);
        let payload = fields.payload("ok").ok().flatten().expect("one");
        assert_eq!(payload.as_bytes(), br#"{"n": 98765432109876543210.10, "b":1 ,"a":2}"#);
        assert!(fields.secs("wait_s", 0.0, 60.0).is_ok_and(|secs| secs.is_none()) && fields.has("wait_s"));
    }

    #[test]
    fn numbers_and_names_are_held_to_their_bounds() {
        assert!(fields(r#"{"wait_s": 60}"#).secs("wait_s", 0.0, 60.0).is_ok());
        for wrong in ["61", "-1", "\"5\"", "[]"] {
            assert!(fields(&format!(r#"{{"wait_s": {wrong}}}"#)).secs("wait_s", 0.0, 60.0).is_err(), "{wrong}");
        }
        assert!(fields(r#"{"worker": ""}"#).name("worker").is_err());
        assert!(fields(r#"{"worker": "a\nb"}"#).name("worker").is_err());
        assert!(fields(r#"{"queues": ["a", "b"]}"#).names("queues", 1).is_err());
    }

    #[test]
    fn paths_are_taken_apart_without_their_escapes() {
        assert_eq!(decoded("tool%2Fx/y%20z").as_deref(), Some("tool/x/y z"));
        assert_eq!((decoded("a%2"), decoded("a%zz"), decoded("%ff")), (None, None, None));
        assert!(run_id("run_1.a:b-c").is_some() && run_id("a/b").is_none() && run_id("").is_none());
    }
}
