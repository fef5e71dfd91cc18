//! The text form of faults: `name[:argument,argument...]`, an argument being `key=value` or a bare word.

use super::{CutAt, CutHow, Denied, Fault, Position, Slip};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

/// Why a text is no fault: what was wrong and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseFaultError(pub(super) String);

impl fmt::Display for ParseFaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParseFaultError {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let retry = |f: &mut fmt::Formatter<'_>, after: &Option<Duration>| match after {
            Some(after) => write!(f, ":retry-after={}", Time(*after)),
            None => Ok(()),
        };
        match self {
            Fault::Latency(time) => write!(f, "latency:{}", Time(*time)),
            Fault::FirstToken(time) => write!(f, "first-token:{}", Time(*time)),
            Fault::Hang(Position::BeforeHeaders) => f.write_str("hang"),
            Fault::Hang(Position::AfterHeaders) => f.write_str("hang:after-headers"),
            Fault::RateLimit { retry_after } => {
                f.write_str("429")?;
                retry(f, retry_after)
            }
            Fault::Status { status, retry_after } => {
                write!(f, "{status}")?;
                retry(f, retry_after)
            }
            Fault::Reset(Position::BeforeHeaders) => f.write_str("reset:before-headers"),
            Fault::Reset(Position::AfterHeaders) => f.write_str("reset:after-headers"),
            Fault::Cut { at, how } => {
                match at {
                    CutAt::Chunk(after) => write!(f, "cut:after={after}")?,
                    CutAt::InsideTool => f.write_str("cut:inside-tool")?,
                }
                f.write_str(match how {
                    CutHow::Reset => ",how=reset",
                    CutHow::Close => ",how=close",
                    CutHow::Eof => ",how=eof",
                })
            }
            Fault::Stall { after } => write!(f, "stall:after={after}"),
            Fault::Drip { gap } => write!(f, "drip:gap={}", Time(*gap)),
            Fault::MalformedChunk { after } => write!(f, "malformed-chunk:after={after}"),
            Fault::NoTerminal { after_finish: false } => f.write_str("no-terminal"),
            Fault::NoTerminal { after_finish: true } => f.write_str("no-terminal:after-finish"),
            Fault::ErrorEvent { after } => write!(f, "error-event:after={after}"),
            Fault::ErrorIn200 => f.write_str("error-in-200"),
            Fault::Empty { body: false } => f.write_str("empty"),
            Fault::Empty { body: true } => f.write_str("empty:body"),
            Fault::InvalidJson => f.write_str("invalid-json"),
            Fault::SchemaDrift => f.write_str("schema-drift"),
            Fault::Refusal => f.write_str("refusal"),
            Fault::ContentFilter => f.write_str("content-filter"),
            Fault::ContextExceeded => f.write_str("context-exceeded"),
            Fault::Truncated => f.write_str("truncated"),
            Fault::Auth => f.write_str("auth"),
            Fault::Quota => f.write_str("quota"),
            Fault::AccessDenied(Denied::Region) => f.write_str("access-denied:region"),
            Fault::AccessDenied(Denied::Model) => f.write_str("access-denied:model"),
            Fault::UnsupportedTools => f.write_str("unsupported-tools"),
            Fault::BadToolArgs => f.write_str("bad-tool-args"),
            Fault::HugeLine { bytes } => write!(f, "huge-line:bytes={}", Size(*bytes)),
            Fault::DeepJson { depth } => write!(f, "deep-json:depth={depth}"),
            Fault::Say(text) => write!(f, "say:{}", Encoded(text)),
            Fault::JsonSlip(Slip::Fences) => f.write_str("json-slip:fences"),
            Fault::JsonSlip(Slip::TrailingCommas) => f.write_str("json-slip:trailing-commas"),
            Fault::JsonSlip(Slip::Closers) => f.write_str("json-slip:closers"),
            Fault::Wrong => f.write_str("wrong"),
            Fault::Verbose { times } => write!(f, "verbose:times={times}"),
            Fault::RefuseConnections => f.write_str("refuse-connections"),
        }
    }
}

impl FromStr for Fault {
    type Err = ParseFaultError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut args = Args::split(text)?;
        let fault = Fault::take(&mut args)?;
        args.end()?;
        Ok(fault)
    }
}

impl Fault {
    /// Takes the fault's own arguments out of `args`; what is left belongs to the plan, or to nobody.
    pub(super) fn take(args: &mut Args<'_>) -> Result<Self, ParseFaultError> {
        Ok(match args.name {
            "latency" => Fault::Latency(args.only_time()?),
            "first-token" => Fault::FirstToken(args.only_time()?),
            "hang" => Fault::Hang(args.position(Position::BeforeHeaders)),
            "429" => Fault::RateLimit { retry_after: args.time("retry-after")? },
            "reset" => Fault::Reset(args.position(Position::BeforeHeaders)),
            "cut" => {
                let at =
                    if args.word("inside-tool") { CutAt::InsideTool } else { CutAt::Chunk(args.count("after", 1)?) };
                let how = match args.value("how") {
                    None | Some("reset") => CutHow::Reset,
                    Some("close") => CutHow::Close,
                    Some("eof") => CutHow::Eof,
                    Some(other) => return Err(args.error(format!("how={other}: give reset, close or eof"))),
                };
                Fault::Cut { at, how }
            }
            "stall" => Fault::Stall { after: args.count("after", 1)? },
            "drip" => match args.time("gap")? {
                Some(gap) => Fault::Drip { gap },
                None => return Err(args.error("give the gap between chunks, as in drip:gap=3s".into())),
            },
            "malformed-chunk" => Fault::MalformedChunk { after: args.count("after", 0)? },
            "no-terminal" => Fault::NoTerminal { after_finish: args.word("after-finish") },
            "error-event" => Fault::ErrorEvent { after: args.count("after", 0)? },
            "error-in-200" => Fault::ErrorIn200,
            "empty" => Fault::Empty { body: args.word("body") },
            "invalid-json" => Fault::InvalidJson,
            "schema-drift" => Fault::SchemaDrift,
            "refusal" => Fault::Refusal,
            "content-filter" => Fault::ContentFilter,
            "context-exceeded" => Fault::ContextExceeded,
            "truncated" => Fault::Truncated,
            "auth" => Fault::Auth,
            "quota" => Fault::Quota,
            "access-denied" => {
                let model = args.word("model");
                if !model {
                    args.word("region");
                }
                Fault::AccessDenied(if model { Denied::Model } else { Denied::Region })
            }
            "unsupported-tools" => Fault::UnsupportedTools,
            "bad-tool-args" => Fault::BadToolArgs,
            "huge-line" => Fault::HugeLine { bytes: args.size("bytes", 1_000_000)? },
            "deep-json" => Fault::DeepJson { depth: args.count("depth", 1_000)? },
            "say" => Fault::Say(args.text()?.into()),
            "json-slip" => {
                let slips =
                    [("fences", Slip::Fences), ("trailing-commas", Slip::TrailingCommas), ("closers", Slip::Closers)];
                let slip = slips.into_iter().find(|(word, _)| args.word(word)).map(|(_, slip)| slip);
                Fault::JsonSlip(slip.ok_or_else(|| args.error("give fences, trailing-commas or closers".into()))?)
            }
            "wrong" => Fault::Wrong,
            "verbose" => Fault::Verbose { times: args.count("times", 20)?.clamp(1, TIMES_MAX) },
            "refuse-connections" => Fault::RefuseConnections,
            name => match name.parse::<u16>() {
                Ok(status @ 500..=599) => Fault::Status { status, retry_after: args.time("retry-after")? },
                Ok(_) | Err(_) => {
                    let known: Vec<&str> = KNOWN.to_vec();
                    return Err(ParseFaultError(format!("unknown fault `{name}`; known are {}", known.join(", "))));
                }
            },
        })
    }
}

/// The longest filler, in lengths of the reply.
const TIMES_MAX: u32 = 10_000;

const KNOWN: [&str; 32] = [
    "latency",
    "first-token",
    "hang",
    "429",
    "500 to 599",
    "reset",
    "cut",
    "stall",
    "drip",
    "malformed-chunk",
    "no-terminal",
    "error-event",
    "error-in-200",
    "empty",
    "invalid-json",
    "schema-drift",
    "refusal",
    "content-filter",
    "context-exceeded",
    "truncated",
    "auth",
    "quota",
    "access-denied",
    "unsupported-tools",
    "bad-tool-args",
    "huge-line",
    "deep-json",
    "say",
    "json-slip",
    "wrong",
    "verbose",
    "refuse-connections",
];

/// A fault's text, taken apart.
pub(super) struct Args<'a> {
    name: &'a str,
    /// `key=value` or, with an empty value, a bare word; taken ones are removed.
    rest: Vec<(&'a str, Option<&'a str>)>,
}

impl<'a> Args<'a> {
    pub(super) fn split(text: &'a str) -> Result<Self, ParseFaultError> {
        let (name, list) = text.trim().split_once(':').map_or((text.trim(), None), |(name, list)| (name, Some(list)));
        let mut rest: Vec<(&str, Option<&str>)> = Vec::new();
        for part in list.into_iter().flat_map(|list| list.split(',')) {
            let (key, value) = part.split_once('=').map_or((part, None), |(key, value)| (key, Some(value)));
            if key.is_empty() || value == Some("") {
                return Err(ParseFaultError(format!("`{text}`: an argument is empty")));
            }
            if rest.iter().any(|(known, _)| *known == key) {
                return Err(ParseFaultError(format!("`{text}`: `{key}` is given twice")));
            }
            rest.push((key, value));
        }
        Ok(Args { name, rest })
    }

    /// Refuses what nobody took.
    pub(super) fn end(&self) -> Result<(), ParseFaultError> {
        match self.rest.first() {
            None => Ok(()),
            Some((key, _)) => Err(self.error(format!("does not take `{key}`"))),
        }
    }

    pub(super) fn value(&mut self, key: &str) -> Option<&'a str> {
        let at = self.rest.iter().position(|(known, value)| *known == key && value.is_some())?;
        self.rest.remove(at).1
    }

    pub(super) fn time(&mut self, key: &str) -> Result<Option<Duration>, ParseFaultError> {
        self.value(key).map(|value| self.parse_time(value)).transpose()
    }

    pub(super) fn error(&self, what: String) -> ParseFaultError {
        ParseFaultError(format!("fault `{}`: {what}", self.name))
    }

    fn word(&mut self, word: &str) -> bool {
        match self.rest.iter().position(|(key, value)| *key == word && value.is_none()) {
            Some(at) => {
                self.rest.remove(at);
                true
            }
            None => false,
        }
    }

    /// The one bare argument, percent-decoded.
    fn text(&mut self) -> Result<String, ParseFaultError> {
        let at = self.rest.iter().position(|(_, value)| value.is_none());
        let Some(encoded) = at.map(|at| self.rest.remove(at).0) else {
            return Err(self.error("give the text, percent-encoded, as in say:No%20way".into()));
        };
        decoded(encoded).ok_or_else(|| self.error(format!("`{encoded}` is not percent-encoded UTF-8")))
    }

    fn position(&mut self, default: Position) -> Position {
        if self.word("after-headers") {
            return Position::AfterHeaders;
        }
        if self.word("before-headers") {
            return Position::BeforeHeaders;
        }
        default
    }

    fn only_time(&mut self) -> Result<Duration, ParseFaultError> {
        let at =
            self.rest.iter().position(|(key, value)| value.is_none() && key.starts_with(|c: char| c.is_ascii_digit()));
        match at.map(|at| self.rest.remove(at).0) {
            Some(time) => self.parse_time(time),
            None => Err(self.error(format!("give a time, as in {}:250ms", self.name))),
        }
    }

    fn count(&mut self, key: &str, default: u32) -> Result<u32, ParseFaultError> {
        match self.value(key) {
            None => Ok(default),
            Some(value) => value.parse().map_err(|_| self.error(format!("{key}={value}: give a whole number"))),
        }
    }

    fn size(&mut self, key: &str, default: u32) -> Result<u32, ParseFaultError> {
        let Some(value) = self.value(key) else { return Ok(default) };
        let (digits, unit) = value.split_at(value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len()));
        let factor = match unit {
            "" => Some(1),
            "KB" => Some(1_000),
            "MB" => Some(1_000_000),
            _ => None,
        };
        let bytes = digits.parse::<u32>().ok().zip(factor).and_then(|(n, factor)| n.checked_mul(factor));
        bytes.ok_or_else(|| self.error(format!("{key}={value}: give bytes, as in 1000, 64KB or 1MB")))
    }

    fn parse_time(&self, text: &str) -> Result<Duration, ParseFaultError> {
        parse_time(text).ok_or_else(|| self.error(format!("`{text}` is no time; give one such as 250ms, 3s or 2m")))
    }
}

/// Reads `250ms`, `3s`, `1.5s`, `2m`, `1h`; a bare number is seconds. To the microsecond; `None` for anything else.
pub fn parse_time(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()));
    let unit_micros: u64 = match unit {
        "us" => 1,
        "ms" => 1_000,
        "" | "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        _ => return None,
    };
    let micros = match digits.parse::<u64>() {
        Ok(whole) => whole.checked_mul(unit_micros)?,
        Err(_) => {
            let fraction = digits.parse::<f64>().ok().filter(|n| n.is_finite())? * unit_micros as f64;
            (fraction < 1e15).then_some(fraction.round() as u64)?
        }
    };
    Some(Duration::from_micros(micros))
}

/// A time in its largest exact unit, to the microsecond.
pub(super) struct Time(pub(super) Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        let units = [(3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms")];
        match units.into_iter().find(|(unit, _)| micros > 0 && micros.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{}{name}", micros / unit),
            None => write!(f, "{micros}us"),
        }
    }
}

/// Percent-encoded: nothing that separates arguments or breaks a header is left.
struct Encoded<'a>(&'a str);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => write!(f, "{}", char::from(byte))?,
                _ => write!(f, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let (digits, tail) = tail.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = tail;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

struct Size(u32);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes > 0 && bytes.is_multiple_of(1_000_000) => write!(f, "{}MB", bytes / 1_000_000),
            bytes if bytes > 0 && bytes.is_multiple_of(1_000) => write!(f, "{}KB", bytes / 1_000),
            bytes => write!(f, "{bytes}"),
        }
    }
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fault {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_example_survives_its_text_and_its_json_form() {
        for fault in Fault::EXAMPLES {
            let text = fault.to_string();
            assert_eq!(text.parse::<Fault>().as_ref(), Ok(&fault), "{text}");
            let json = serde_json::to_string(&fault).unwrap();
            assert_eq!(serde_json::from_str::<Fault>(&json).unwrap(), fault, "{json}");
        }
    }

    #[test]
    fn short_and_long_spellings_mean_the_same() {
        for (short, long) in [
            ("429:retry-after=5", "429:retry-after=5s"),
            ("latency:1.5s", "latency:1500ms"),
            ("reset", "reset:before-headers"),
            ("hang:before-headers", "hang"),
            ("cut", "cut:after=1,how=reset"),
            ("cut:how=eof,after=2", "cut:after=2,how=eof"),
            ("access-denied", "access-denied:region"),
            ("huge-line:bytes=1000KB", "huge-line"),
        ] {
            assert_eq!(short.parse::<Fault>().unwrap(), long.parse::<Fault>().unwrap(), "{short}");
        }
    }

    #[test]
    fn a_wrong_text_says_what_is_wrong_and_what_would_be_right() {
        for (text, says) in [
            ("lag", "known are latency"),
            ("499", "unknown fault `499`"),
            ("latency", "give a time"),
            ("latency:fast", "give a time"),
            ("latency:2x", "`2x` is no time"),
            ("hang:4s", "does not take `4s`"),
            ("cut:how=snip", "reset, close or eof"),
            ("cut:after=5,after=6", "given twice"),
            ("cut:after=", "an argument is empty"),
            ("stall:after=-1", "whole number"),
            ("drip", "drip:gap=3s"),
            ("huge-line:bytes=9999MB", "give bytes"),
            ("auth:now", "does not take `now`"),
        ] {
            let error = text.parse::<Fault>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_fault_survives_its_text_form(fault in any_fault()) {
            prop_assert_eq!(fault.to_string().parse::<Fault>(), Ok(fault));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[a-z0-9:=,.-]{0,40}") {
            let _ = text.parse::<Fault>();
        }
    }

    fn any_fault() -> impl Strategy<Value = Fault> {
        let time = || (0u64..10_000_000_000).prop_map(Duration::from_micros);
        let position = prop_oneof![Just(Position::BeforeHeaders), Just(Position::AfterHeaders)];
        let how = prop_oneof![Just(CutHow::Reset), Just(CutHow::Close), Just(CutHow::Eof)];
        let at = prop_oneof![any::<u32>().prop_map(CutAt::Chunk), Just(CutAt::InsideTool)];
        prop_oneof![
            proptest::sample::select(Fault::EXAMPLES.to_vec()),
            time().prop_map(Fault::Latency),
            time().prop_map(Fault::FirstToken),
            time().prop_map(|gap| Fault::Drip { gap }),
            position.clone().prop_map(Fault::Hang),
            position.prop_map(Fault::Reset),
            proptest::option::of(time()).prop_map(|retry_after| Fault::RateLimit { retry_after }),
            (500u16..600, proptest::option::of(time()))
                .prop_map(|(status, retry_after)| Fault::Status { status, retry_after }),
            (at, how).prop_map(|(at, how)| Fault::Cut { at, how }),
            any::<u32>().prop_map(|after| Fault::Stall { after }),
            any::<u32>().prop_map(|bytes| Fault::HugeLine { bytes }),
            any::<u32>().prop_map(|depth| Fault::DeepJson { depth }),
        ]
    }
}
