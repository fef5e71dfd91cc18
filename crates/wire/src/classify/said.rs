//! Finds the error in whatever envelope it came in: `{error:{}}`, `{error:"text"}`, flat `{object:"error"}`,
//! `{detail}`, `{message}`, `[{error}]`, an event around any of these, a relay's copy of another's, or no JSON.

use serde_json::Value;
use std::{borrow::Cow, time::Duration};

/// Only so much of a body is parsed; the rest of a longer one cannot matter.
const BODY_MAX: usize = 1 << 20;
/// Only so much of all messages is kept for matching.
const MESSAGE_MAX: usize = 8 << 10;
/// Codes and types kept.
const KINDS_MAX: usize = 16;
/// Envelopes inside envelopes.
const DEPTH_MAX: u8 = 8;
/// A provider's code as `FailureReport` keeps it.
const CODE_MAX: usize = 64;

/// What kind of body it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// Nothing but white space.
    #[default]
    Empty,
    /// JSON, perhaps cut.
    Json,
    /// Words.
    Text,
    /// A web page, from something in front of the API.
    Html,
}

/// What was said, as far as it matters.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// What kind of body it is.
    pub(super) form: Form,
    /// Every code, type, status word and reason, normalised by [`normal`]; the most specific envelope's first.
    kinds: Vec<String>,
    /// The first of them that looks like a code, as it came.
    code: Option<Box<str>>,
    /// A status inside the body.
    pub(super) status: Option<u16>,
    /// All messages, lower case.
    pub(super) message: String,
    /// The parameter at fault, lower case.
    pub(super) param: String,
    /// Google's quota details.
    pub(super) quota: Quota,
    /// A moderation said so.
    pub(super) flagged: bool,
    /// A wait given in its own field.
    pub(super) wait: Option<Duration>,
    /// A reset, as in `x-ratelimit-reset`, inside the body.
    pub(super) reset: Option<Box<str>>,
    /// There is an error, not only fields that look like one.
    error: bool,
}

/// Which quotas were exceeded.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quota {
    /// One that refills within minutes.
    pub(super) per_minute: bool,
    /// One that refills in a day or longer.
    pub(super) per_day: bool,
    /// One of size zero: it never refills.
    pub(super) zero: bool,
}

/// Lower case letters and digits only, so that every spelling of a code compares equal.
pub(super) fn normal(code: &str) -> String {
    code.chars().take(CODE_MAX).filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

impl Said {
    /// Reads a body of any kind.
    pub(super) fn read(body: &[u8]) -> Self {
        let mut said = Said::default();
        let body = &body[..body.len().min(BODY_MAX)];
        let text = String::from_utf8_lossy(body);
        let text = text.trim_start_matches('\u{feff}').trim();
        match text.as_bytes().first() {
            None => {}
            Some(b'{' | b'[') => {
                said.form = Form::Json;
                match serde_json::from_str::<Value>(text) {
                    Ok(value) => said.absorb(&value, 0),
                    Err(_) => said.salvage(text),
                }
            }
            Some(b'<') => said.form = Form::Html,
            Some(_) => {
                said.form = Form::Text;
                said.add_message(text);
            }
        }
        said
    }

    /// There is an error object, message or code, not just any JSON.
    pub(super) fn is_error(&self) -> bool {
        self.error
    }

    /// Every code, type and status word, most specific first.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &str> {
        self.kinds.iter().map(String::as_str)
    }

    /// The provider's own code, fit for a record.
    pub(super) fn code(&self) -> Option<Box<str>> {
        self.code.clone()
    }

    /// A wait told in the body: in a field, or in the message's prose.
    pub(super) fn stated_wait(&self) -> Option<Duration> {
        self.wait.or_else(|| super::wait::in_prose(&self.message))
    }

    /// Adds a code from outside the body. Amazon's is `Name:namespace` or `namespace#Name`.
    pub(super) fn add_kind(&mut self, kind: &str) {
        let kind = kind.split(':').next().unwrap_or(kind);
        let kind = kind.rsplit('#').next().unwrap_or(kind).trim();
        let normalised = normal(kind);
        if normalised.is_empty() || self.kinds.len() >= KINDS_MAX {
            return;
        }
        if self.code.is_none() && is_code(kind) {
            self.code = Some(kind.into());
        }
        self.kinds.push(normalised);
    }

    fn add_message(&mut self, text: &str) {
        let room = MESSAGE_MAX.saturating_sub(self.message.len());
        if room == 0 {
            return;
        }
        if !self.message.is_empty() {
            self.message.push('\n');
        }
        let plain = cut(text, room).replace(['\u{2018}', '\u{2019}'], "'").to_ascii_lowercase();
        self.message.push_str(&without_addresses(&plain));
    }

    fn absorb(&mut self, value: &Value, depth: u8) {
        if depth > DEPTH_MAX {
            return;
        }
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
            Value::String(text) => self.absorb_text(text, depth),
            Value::Array(items) => items.iter().take(8).for_each(|item| self.absorb(item, depth + 1)),
            Value::Object(fields) => {
                // The error proper before what surrounds it, so that its code comes first.
                for name in ["error", "errors", "response", "payload"] {
                    if let Some(inner) = fields.get(name) {
                        self.error |= name.starts_with("error") && !is_nothing(inner);
                        self.absorb(inner, depth + 1);
                    }
                }
                // Some relays put the error beside the choice it ended.
                let choices = fields.get("choices").and_then(Value::as_array);
                for error in choices.into_iter().flatten().take(8).filter_map(|choice| choice.get("error")) {
                    self.error |= !is_nothing(error);
                    self.absorb(error, depth + 1);
                }
                if let Some(Value::String(code)) = fields.get("code") {
                    self.add_code(code);
                }
                for (name, field) in fields {
                    self.absorb_field(name, field, depth);
                }
            }
        }
    }

    fn absorb_field(&mut self, name: &str, field: &Value, depth: u8) {
        match (name, field) {
            ("error" | "errors" | "response" | "payload", _) => {}
            (
                "code" | "type" | "error_type" | "__type" | "error_code" | "errorCode" | "errorType" | "reason"
                | "kind" | ":exception-type",
                Value::String(word),
            ) => self.add_code(word),
            ("status", Value::String(word)) if word != "failed" && word != "error" => self.add_code(word),
            (
                "code" | "status" | "statusCode" | "status_code" | "raw_status_code" | "error_code"
                | "originalStatusCode",
                Value::Number(number),
            ) => self.add_number(number),
            (
                "message" | "Message" | "msg" | "error_message" | "error_description" | "errorMessage" | "title",
                field,
            ) => {
                self.error |= field.is_string();
                self.absorb(field, depth + 1);
            }
            ("detail", field) => {
                self.error = true;
                self.absorb(field, depth + 1);
            }
            ("param", Value::String(param)) => {
                self.param = param.chars().take(200).collect::<String>().to_ascii_lowercase()
            }
            ("raw", field) => self.absorb(field, depth + 1),
            (
                "details" | "innererror" | "inner_error" | "metadata" | "fault" | "cause" | "violations" | "headers",
                field,
            ) => {
                self.absorb(field, depth + 1);
            }
            ("quotaId" | "quota_id", Value::String(id)) => self.add_quota(id),
            ("quotaValue", Value::String(limit)) => self.quota.zero |= limit == "0",
            ("retryDelay", Value::String(delay)) => self.wait = super::wait::duration(delay).or(self.wait),
            ("retry_after" | "retry_after_seconds", Value::Number(seconds)) => {
                self.wait = seconds.as_f64().and_then(super::wait::seconds).or(self.wait);
            }
            ("X-RateLimit-Reset" | "x-ratelimit-reset", Value::String(reset)) => {
                self.reset = Some(reset.as_str().into())
            }
            ("flagged_input", _) => self.flagged = true,
            ("reasons", Value::Array(reasons)) => self.flagged |= !reasons.is_empty(),
            _ => {}
        }
    }

    /// A message; sometimes another's whole error as text.
    fn absorb_text(&mut self, text: &str, depth: u8) {
        let trimmed = text.trim();
        if trimmed.starts_with(['{', '['])
            && let Ok(inner @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str::<Value>(trimmed)
        {
            return self.absorb(&inner, depth + 1);
        }
        self.add_message(text);
    }

    fn add_code(&mut self, word: &str) {
        if let Ok(number) = word.parse::<u16>() {
            self.set_status(number);
        }
        self.add_kind(word);
    }

    fn add_number(&mut self, number: &serde_json::Number) {
        if let Some(number) = number.as_u64().and_then(|n| u16::try_from(n).ok()) {
            self.set_status(number);
        }
    }

    fn set_status(&mut self, number: u16) {
        if self.status.is_none() && (400..600).contains(&number) {
            self.status = Some(number);
        }
    }

    fn add_quota(&mut self, id: &str) {
        let id = normal(id);
        self.quota.per_minute |= id.contains("perminute") || id.contains("persecond");
        self.quota.per_day |= id.contains("perday") || id.contains("permonth") || id.contains("perweek");
    }

    /// JSON that does not parse: cut, or nested too deep. The fields of interest are read where they stand.
    fn salvage(&mut self, text: &str) {
        let text = cut(text, MESSAGE_MAX);
        for name in ["code", "type", "status", "__type"] {
            if let Some(word) = string_after(text, name) {
                self.add_code(word);
            }
        }
        self.error = string_after(text, "message").is_some() || text.contains("\"error\"");
        match string_after(text, "message") {
            Some(message) => self.add_message(message),
            None => self.add_message(text),
        }
    }
}

/// The string member `name`, as written, even if the text ends inside it.
fn string_after<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let quoted: Cow<'_, str> = format!("\"{name}\"").into();
    let at = text.find(&*quoted)? + quoted.len();
    let rest = text[at..].trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    let mut escaped = false;
    let end = rest.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    Some(&rest[..end.unwrap_or(rest.len())])
}

/// Without web addresses: a link to the page about billing or tools says nothing about this error.
fn without_addresses(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return text.into();
    }
    let words = text.split(' ').filter(|word| !word.contains("://"));
    words.collect::<Vec<_>>().join(" ").into()
}

/// The first `max` bytes, cut at a character.
fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Fit for a record: short, and of a code's letters. Anything else might be prose, and prose might be a payload.
fn is_code(word: &str) -> bool {
    !word.is_empty()
        && word.len() <= CODE_MAX
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        && !word.starts_with("sk-")
        && word != "error"
}
