//! Every fault of the vocabulary, in both client dialects, to the same and to the other dialect's upstream, streamed and
//! not, with a healthy fallback and alone: what the client gets, how often the upstreams are called, and what the lineage
//! says, held to the failure table.

mod support;

use outlast::{
    config::Config,
    fake::{Fake, FakeConfig, Seen},
    gateway::{Gateway, StartOptions},
};
use outlast_drill::{
    Fault, FaultPlan,
    fault::{Bites, CutAt, Position},
};
use outlast_model::{Failure, policy::Dialect};
use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};
use support::{Reply, receive};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};

/// What a busy machine may add to a deadline.
const SLACK: Duration = Duration::from_secs(3);
/// Faults tried at the same time: most of the test is waiting.
const ABREAST: usize = 3;
const PIECES: usize = 16;

/// How long a faulty target may take, and how long the call.
#[derive(Clone, Copy)]
struct Patience {
    /// Each of the target's deadlines.
    target: Duration,
    call: Duration,
}

impl Patience {
    /// Little where the fault is one of silence. Much elsewhere, so that a busy machine is not taken for a fault.
    fn with(fault: &Fault) -> Patience {
        let is_silent =
            fault.facts().bites == Bites::PastDeadline || matches!(fault, Fault::Hang(_) | Fault::Stall { .. });
        match is_silent {
            true => Patience { target: Duration::from_millis(1500), call: Duration::from_secs(8) },
            false => Patience { target: Duration::from_secs(20), call: Duration::from_secs(40) },
        }
    }

    /// When a call counts as hanging.
    fn end(self) -> Duration {
        self.call + SLACK
    }
}

/// One way to meet a fault.
#[derive(Clone, Copy, Debug)]
struct Meeting {
    client: Dialect,
    upstream: Dialect,
    mode: Mode,
    shape: Shape,
    /// Nobody else can answer.
    alone: bool,
}

/// Whether the client wants a stream, and what its contract says of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Whole,
    /// Shown from the first output on.
    Stream,
    /// The first outputs are held back, longer than a good answer of these tests takes.
    Held,
    Buffered,
}

/// What kind of answer is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Text,
    Tools,
    Structured,
}

impl Meeting {
    fn all(fault: &Fault) -> Vec<Meeting> {
        let mut all = Vec::new();
        for client in Dialect::ALL {
            for upstream in Dialect::ALL {
                for alone in [false, true] {
                    for mode in [Mode::Whole, Mode::Stream, Mode::Held, Mode::Buffered] {
                        let meeting = |shape| Meeting { client, upstream, mode, shape, alone };
                        all.extend(shapes(fault).iter().copied().map(meeting));
                    }
                }
            }
        }
        all
    }

    fn stream(self) -> bool {
        self.mode != Mode::Whole
    }
}

/// The kinds of answer in which the fault bites, and bites differently.
fn shapes(fault: &Fault) -> &'static [Shape] {
    match fault.facts().bites {
        Bites::WithTools => return &[Shape::Tools],
        Bites::WithSchema => return &[Shape::Structured],
        Bites::WithForm => return &[Shape::Tools, Shape::Structured],
        Bites::Always
        | Bites::PastDeadline
        | Bites::PastLimit
        | Bites::StrictReaders
        | Bites::Streams
        | Bites::UnderContract => {}
    }
    match fault {
        Fault::Cut { at: CutAt::InsideTool, .. } => &[Shape::Tools],
        Fault::Cut { at: CutAt::Chunk(_), .. }
        | Fault::Stall { .. }
        | Fault::Drip { .. }
        | Fault::MalformedChunk { .. }
        | Fault::NoTerminal { .. }
        | Fault::ErrorEvent { .. }
        | Fault::Empty { .. }
        | Fault::Refusal
        | Fault::ContentFilter
        | Fault::DeepJson { .. } => &[Shape::Text, Shape::Tools, Shape::Structured],
        Fault::Latency(_)
        | Fault::FirstToken(_)
        | Fault::Hang(Position::BeforeHeaders | Position::AfterHeaders)
        | Fault::RateLimit { .. }
        | Fault::Status { .. }
        | Fault::Reset(_)
        | Fault::ErrorIn200
        | Fault::InvalidJson
        | Fault::SchemaDrift
        | Fault::ContextExceeded
        | Fault::Truncated
        | Fault::Auth
        | Fault::Quota
        | Fault::AccessDenied(_)
        | Fault::UnsupportedTools
        | Fault::BadToolArgs
        | Fault::HugeLine { .. }
        | Fault::Say(_)
        | Fault::JsonSlip(_)
        | Fault::Wrong
        | Fault::Verbose { .. }
        | Fault::RefuseConnections => &[Shape::Text],
    }
}

/// What the client must get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// The faulty target's reply is good after all.
    Primary,
    /// A good reply, whoever gave it.
    Anyone,
    /// The healthy target's reply.
    Fallback,
    /// A typed error.
    Error,
    /// Some output, then a typed error event and no terminal one.
    Interrupted,
    /// The reason, as a reply or as a typed error, and no other model was asked.
    Reason,
}

#[test]
fn every_fault_ends_as_the_failure_table_promises() {
    // One fault, of the examples or any other: OUTLAST_FAULT=cut:after=9,how=close
    let faults = match std::env::var("OUTLAST_FAULT") {
        Ok(only) => vec![only.parse().unwrap()],
        Err(_) => Fault::EXAMPLES.into_iter().map(bearable).collect(),
    };
    let faults = Mutex::new(faults.into_iter());
    // A runtime for each: judging a large reply must not keep another fault's upstream from answering.
    let meet_all = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let next = || faults.lock().unwrap().next();
        std::iter::from_fn(next).flat_map(|fault| runtime.block_on(meet(fault))).collect::<Vec<String>>()
    };
    let broken: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..ABREAST).map(|_| scope.spawn(meet_all)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(broken.is_empty(), "{} broken promises:\n{}", broken.len(), broken.join("\n"));
}

/// A megabyte for each of so many calls at once is a test of the machine.
fn bearable(fault: Fault) -> Fault {
    if matches!(fault, Fault::HugeLine { .. }) { Fault::HugeLine { bytes: 100_000 } } else { fault }
}

/// Meets one fault in every way, each with targets and a route of its own, and says which promises were broken.
async fn meet(fault: Fault) -> Vec<String> {
    let meetings = Meeting::all(&fault);
    let primary = Fake::start(FakeConfig::named("primary")).await.unwrap();
    let fallback = Fake::start(FakeConfig::named("fallback")).await.unwrap();
    primary.set_fault("*", Some(FaultPlan::always(fault.clone()))).unwrap();
    let patience = Patience::with(&fault);
    let config = config(&meetings, patience, primary.addr(), fallback.addr());
    let env = |name: &str| (name == "ADMIN").then(|| "admin-token-for-tests".to_owned());
    let config =
        Config::from_text(&config, "matrix.toml", Path::new(""), &env).unwrap_or_else(|errors| panic!("{errors}"));
    let options = StartOptions { workers: Some(1), ..StartOptions::default() };
    let gateway = Gateway::start(config, options).await.unwrap_or_else(|error| panic!("{error}"));
    let address = gateway.address();

    let mut calls = JoinSet::new();
    for (at, meeting) in meetings.iter().copied().enumerate() {
        let request = request(meeting, at);
        calls.spawn(async move {
            let start = Instant::now();
            let reply = ask(address, meeting.client, &request, patience).await;
            (at, reply, start.elapsed())
        });
    }
    let mut answered = calls.join_all().await;
    answered.sort_by_key(|(at, ..)| *at);
    let mut broken = Vec::new();
    let quiet = async { tokio::join!(primary.quiet(), fallback.quiet()) };
    if tokio::time::timeout(SLACK, quiet).await.is_err() {
        broken.push(format!("{fault}: upstream calls went on after their clients had been answered"));
    }
    for (at, reply, took) in answered {
        let id = reply.headers.get("x-outlast-request-id").cloned().unwrap_or_default();
        let record = lineage(address, &id).await;
        let seen = |fake: &Fake| -> Vec<Seen> {
            fake.log().into_iter().filter(|seen| seen.model == format!("m{at}")).collect()
        };
        let case = Case {
            at,
            fault: &fault,
            meeting: meetings[at],
            reply,
            took,
            record,
            primary: seen(&primary),
            fallback: seen(&fallback),
        };
        broken
            .extend(case.broken_promises().into_iter().map(|promise| format!("{fault} {:?}: {promise}", case.meeting)));
    }
    if !tokio::time::timeout(patience.end(), gateway.stop()).await.unwrap_or(false) {
        broken.push(format!("{fault}: calls were still in flight at the end"));
    }
    broken
}

struct Case<'a> {
    /// Which of the meetings: its number is in the names of its models.
    at: usize,
    fault: &'a Fault,
    meeting: Meeting,
    reply: Reply,
    took: Duration,
    record: Value,
    primary: Vec<Seen>,
    fallback: Vec<Seen>,
}

impl Case<'_> {
    fn broken_promises(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut promise = |kept: bool, what: String| {
            if !kept {
                broken.push(what);
            }
        };
        let expected = self.expected();
        let got = self.got();
        let is_kept = match expected {
            Expected::Anyone => matches!(got, Expected::Primary | Expected::Fallback),
            Expected::Reason => matches!(got, Expected::Primary | Expected::Error),
            Expected::Primary | Expected::Fallback | Expected::Error | Expected::Interrupted => got == expected,
        };
        promise(is_kept, format!("wanted {expected:?}, got {got:?}: {}", self.summary()));
        promise(self.took < Patience::with(self.fault).end(), format!("took {:?}", self.took));
        promise(self.primary.len() <= 2, format!("{} calls of the faulty target", self.primary.len()));
        promise(self.fallback.len() <= 1, format!("{} calls of the healthy target", self.fallback.len()));
        if expected == Expected::Reason {
            promise(self.primary.len() == 1 && self.fallback.is_empty(), "another model was asked".into());
        }
        for problem in self.lineage_problems(got).into_iter().chain(self.reply_problems(got)) {
            promise(false, problem);
        }
        broken
    }

    /// What section 5 of the design promises for this fault met in this way.
    fn expected(&self) -> Expected {
        let (alone, stream) = (self.meeting.alone, self.meeting.stream());
        let facts = self.fault.facts();
        match facts.bites {
            Bites::PastLimit => return if alone { self.lenient() } else { Expected::Anyone },
            // A finish reason is enough in the dialects whose last marker says nothing more.
            Bites::StrictReaders | Bites::Streams if !stream => return Expected::Primary,
            Bites::StrictReaders => return self.lenient(),
            // No contract forbids it here.
            Bites::UnderContract => return Expected::Primary,
            Bites::Always
            | Bites::WithTools
            | Bites::WithSchema
            | Bites::WithForm
            | Bites::PastDeadline
            | Bites::Streams => {}
        }
        let is_a_reason = matches!(self.fault, Fault::ContentFilter | Fault::Refusal);
        let shows_output_first = breaks_after_output(self.fault, self.meeting);
        match (is_a_reason, shows_output_first, alone) {
            (true, _, _) => Expected::Reason,
            (false, true, _) => Expected::Interrupted,
            (false, false, true) => Expected::Error,
            (false, false, false) => Expected::Fallback,
        }
    }

    /// A reader may take it or not; either is honest as long as the reply is whole or an error.
    fn lenient(&self) -> Expected {
        match self.got() {
            honest @ (Expected::Primary | Expected::Fallback | Expected::Error | Expected::Interrupted) => honest,
            Expected::Anyone | Expected::Reason => Expected::Primary,
        }
    }

    /// What the client got. A reply that is neither whole nor an error is told as [`Expected::Anyone`], which nothing
    /// expects alone.
    fn got(&self) -> Expected {
        let reply = &self.reply;
        if reply.status >= 400 && reply.complete && is_typed_error(self.meeting.client, &json_of(reply)) {
            return Expected::Error;
        }
        if reply.status != 200 || !reply.complete {
            return Expected::Anyone;
        }
        if self.meeting.stream() && ends_in_error_event(self.meeting.client, reply) {
            return Expected::Interrupted;
        }
        // What no contract forbids is another answer than the usual one, and an answer.
        match self.answers_whole() || self.fault.facts().bites == Bites::UnderContract {
            true if self.answered_by("fallback") => Expected::Fallback,
            true => Expected::Primary,
            false => Expected::Anyone,
        }
    }

    fn answered_by(&self, name: &str) -> bool {
        self.record["served_by"].as_str().is_some_and(|target| target.starts_with(name))
    }

    /// The reply says that it is complete, and it is.
    fn answers_whole(&self) -> bool {
        let said = said(self.meeting.client, self.meeting.stream(), &self.reply);
        let whole = match self.meeting.shape {
            Shape::Tools => {
                said.tools.as_deref().is_some_and(|arguments| serde_json::from_str::<Value>(arguments).is_ok())
            }
            Shape::Structured => {
                serde_json::from_str::<Value>(&said.text).is_ok_and(|value| value["answer"].is_string())
            }
            Shape::Text => said.text.split(' ').count() == PIECES,
        };
        (whole || said.declined) && said.finish.is_some()
    }

    /// What is wrong with how the reply is put.
    fn reply_problems(&self, got: Expected) -> Vec<String> {
        let mut problems = Vec::new();
        let reply = &self.reply;
        let text = said(self.meeting.client, self.meeting.stream(), reply).text;
        let of_primary = format!("primary answers as m{}: heard", self.at);
        match got {
            Expected::Error => {
                let advice = reply.headers.get("x-should-retry").map_or("", String::as_str);
                if !matches!(advice, "true" | "false") {
                    problems.push("an error without advice on retrying".into());
                }
                if ["primary", "fallback", "org-fake"].iter().any(|name| reply.text().contains(name)) {
                    problems.push(format!("the error names an upstream: {}", reply.text()));
                }
                let after = reply.headers.get("retry-after").map_or(Ok(0), |after| after.parse::<u64>());
                if !after.is_ok_and(|secs| secs <= 60) {
                    problems.push("a retry-after that nobody would wait for".into());
                }
            }
            Expected::Interrupted if self.meeting.shape == Shape::Text => {
                let whole_words = text.split(' ').all(|word| !word.is_empty());
                if !(of_primary.starts_with(&text) || text.starts_with(&of_primary)) || !whole_words {
                    problems.push(format!("what was shown is no beginning of the answer: {text}"));
                }
            }
            Expected::Fallback if self.meeting.shape == Shape::Text => {
                if !text.starts_with(&format!("fallback answers as m{}: heard", self.at)) {
                    problems.push(format!("two answers in one: {text}"));
                }
            }
            Expected::Primary | Expected::Anyone | Expected::Fallback | Expected::Reason | Expected::Interrupted => {}
        }
        if self.meeting.mode == Mode::Whole || got == Expected::Error {
            let attempts = self.record["attempts"].as_array().map_or(0, Vec::len).to_string();
            let told = reply.headers.get("x-outlast-attempts").cloned().unwrap_or_default();
            if told != attempts {
                problems.push(format!("the head tells of {told} attempts, the lineage of {attempts}"));
            }
            let reason = self.record["attempts"][0]["failure"]["failure"].as_str().unwrap_or_default();
            let told = reply.headers.get("x-outlast-fallback-reason").map_or("", String::as_str);
            if reason.split(':').next() != Some(told) {
                problems.push(format!("the head tells of `{told}`, the lineage of `{reason}`"));
            }
        }
        if self.record["degraded"] != false || reply.headers.contains_key("x-outlast-degraded") {
            problems.push("marked as degraded".into());
        }
        problems
    }

    /// What the lineage record gets wrong.
    fn lineage_problems(&self, got: Expected) -> Vec<String> {
        let mut problems = Vec::new();
        let attempts = self.record["attempts"].as_array().cloned().unwrap_or_default();
        if attempts.is_empty() {
            return vec![format!("no lineage: {}", self.record)];
        }
        let refused = *self.fault == Fault::RefuseConnections;
        let calls = self.primary.len() + self.fallback.len();
        if !refused && attempts.len() != calls {
            problems.push(format!("{} attempts recorded, {calls} seen upstream", attempts.len()));
        }
        let same_target = attempts.iter().filter(|attempt| attempt["reason"] == "same_target").count();
        if same_target > 1 {
            problems.push(format!("{same_target} retries on the same target"));
        }
        let failure = attempts[0]["failure"]["failure"].as_str().unwrap_or_default();
        let facts = self.fault.facts();
        let right = if self.meeting.stream() { facts.streamed } else { facts.whole };
        let first_failed = got != Expected::Primary || !failure.is_empty();
        if first_failed && !right.iter().any(|class| class.to_string() == failure) {
            let right: Vec<String> = right.iter().map(Failure::to_string).collect();
            problems.push(format!("classified as `{failure}`, should be one of {}", right.join(", ")));
        }
        let ended = self.record["outcome"]["ended"].as_str().unwrap_or_default();
        let right = match got {
            Expected::Primary | Expected::Fallback | Expected::Anyone | Expected::Reason => "answered",
            Expected::Error => "failed",
            Expected::Interrupted => "interrupted",
        };
        if ended != right {
            problems.push(format!("recorded as `{ended}`, was {got:?}"));
        }
        problems
    }

    fn summary(&self) -> String {
        let text = self.reply.text();
        let tail = text.char_indices().rev().nth(600).map_or(text.as_str(), |(at, _)| &text[at..]);
        let mut trail = String::new();
        for attempt in self.record["attempts"].as_array().into_iter().flatten() {
            let _ = write!(trail, "{} {} {}; ", attempt["target"], attempt["failure"]["failure"], attempt["decision"]);
        }
        format!("status {} close {:?} [{trail}] ...{tail}", self.reply.status, self.reply.close)
    }
}

/// Whether the client has seen output when this fault breaks the stream. Structured output is never shown before it has
/// been checked, and a tool call never before it is whole.
fn breaks_after_output(fault: &Fault, meeting: Meeting) -> bool {
    /// Pieces of the fake's tool call.
    const CALL_PIECES: u32 = 4;
    let (breaks_after, takes_long) = match fault {
        Fault::Cut { at: CutAt::Chunk(after), .. } | Fault::MalformedChunk { after } | Fault::ErrorEvent { after } => {
            (*after, false)
        }
        Fault::Stall { after } => (*after, true),
        Fault::Drip { .. } => (1, true),
        Fault::NoTerminal { .. } => (u32::MAX, false),
        Fault::Latency(_)
        | Fault::FirstToken(_)
        | Fault::Hang(Position::BeforeHeaders | Position::AfterHeaders)
        | Fault::RateLimit { .. }
        | Fault::Status { .. }
        | Fault::Reset(_)
        | Fault::Cut { at: CutAt::InsideTool, .. }
        | Fault::ErrorIn200
        | Fault::Empty { .. }
        | Fault::InvalidJson
        | Fault::SchemaDrift
        | Fault::Refusal
        | Fault::ContentFilter
        | Fault::ContextExceeded
        | Fault::Truncated
        | Fault::Auth
        | Fault::Quota
        | Fault::AccessDenied(_)
        | Fault::UnsupportedTools
        | Fault::BadToolArgs
        | Fault::HugeLine { .. }
        | Fault::DeepJson { .. }
        | Fault::Say(_)
        | Fault::JsonSlip(_)
        | Fault::Wrong
        | Fault::Verbose { .. }
        | Fault::RefuseConnections => (0, false),
    };
    let something_to_show = match meeting.shape {
        Shape::Text => breaks_after > 0,
        // Only Anthropic's stream says that a call is whole before it says why the reply ended.
        Shape::Tools => {
            let says_so = meeting.upstream == Dialect::Anthropic && !matches!(fault, Fault::NoTerminal { .. });
            says_so && breaks_after >= CALL_PIECES
        }
        Shape::Structured => false,
    };
    let shown = match meeting.mode {
        Mode::Whole | Mode::Buffered => false,
        Mode::Stream => true,
        Mode::Held => takes_long,
    };
    something_to_show && shown
}

fn config(meetings: &[Meeting], patience: Patience, primary: SocketAddr, fallback: SocketAddr) -> String {
    let kind = |dialect| match dialect {
        Dialect::OpenaiChat => "openai-compatible",
        Dialect::Anthropic => "anthropic",
    };
    let mut text = format!(
        r#"
[server]
listen = "127.0.0.1:0"
admin_token = "${{ADMIN}}"
[telemetry]
sample = 1.0
log = "off"
[tiers.short]
attempts = 3
deadline = "{}ms"
[contracts.buffered]
stream = "buffer"
[contracts.held]
stream = "hold"
hold = {{ tokens = 32, after = "{}ms" }}
"#,
        patience.call.as_millis(),
        (patience.target / 3).as_millis()
    );
    for (at, meeting) in meetings.iter().enumerate() {
        // A provider of its own for each, so that no meeting's key or breaker touches another's.
        let upstreams = [("primary", meeting.upstream, primary), ("fallback", meeting.client, fallback)];
        for (name, dialect, address) in upstreams {
            let target = if name == "primary" { patience.target } else { Duration::from_secs(20) };
            let target = format!("{}ms", target.as_millis());
            let _ = write!(
                text,
                r#"
[providers.{name}{at}]
kind = "{}"
base_url = "http://{address}/v1"
api_key = "sk-{name}"
probes = false
timeouts = {{ connect = "20s", header = "{target}", first_token = "{target}", idle = "{target}", total = "30s" }}
[targets."{name}{at}/m{at}"]
capabilities = {{ tools = true, images = true, json_schema = true }}
"#,
                kind(dialect)
            );
        }
        let fallback = if meeting.alone { String::new() } else { format!(", \"fallback{at}/m{at}\"") };
        let contract = match meeting.mode {
            Mode::Whole | Mode::Stream => "",
            Mode::Held => "contract = \"held\"",
            Mode::Buffered => "contract = \"buffered\"",
        };
        let _ =
            write!(text, "[routes.r{at}]\ntargets = [\"primary{at}/m{at}\"{fallback}]\ntier = \"short\"\n{contract}\n");
    }
    text
}

fn request(meeting: Meeting, at: usize) -> Value {
    let mut body = json!({"model": format!("r{at}"), "stream": meeting.stream(), "max_tokens": 500});
    let content = match meeting.shape {
        Shape::Tools => "tool:weather",
        Shape::Text | Shape::Structured => "Hello",
    };
    body["messages"] = json!([{"role": "user", "content": content}]);
    let schema = json!({"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"], "additionalProperties": false});
    match (meeting.shape, meeting.client) {
        (Shape::Text, _) => {}
        (Shape::Tools, Dialect::OpenaiChat) => {
            body["tools"] = json!([{"type": "function", "function": {"name": "weather", "parameters": schema}}]);
        }
        (Shape::Tools, Dialect::Anthropic) => body["tools"] = json!([{"name": "weather", "input_schema": schema}]),
        (Shape::Structured, Dialect::OpenaiChat) => {
            body["response_format"] =
                json!({"type": "json_schema", "json_schema": {"name": "a", "strict": true, "schema": schema}});
        }
        (Shape::Structured, Dialect::Anthropic) => {
            body["output_config"] = json!({"format": {"type": "json_schema", "schema": schema}});
        }
    }
    body
}

async fn ask(address: SocketAddr, dialect: Dialect, body: &Value, patience: Patience) -> Reply {
    let path = match dialect {
        Dialect::OpenaiChat => "/v1/chat/completions",
        Dialect::Anthropic => "/v1/messages",
    };
    let head = format!("POST {path} HTTP/1.1\r\nanthropic-version: 2023-06-01");
    let body = body.to_string();
    let asked = exchange(address, &head, &body);
    // A gateway that hangs has answered nothing: status 0, which no promise allows.
    tokio::time::timeout(patience.end(), asked).await.unwrap_or_default()
}

async fn lineage(address: SocketAddr, id: &str) -> Value {
    let head = format!("GET /v1/requests/{id} HTTP/1.1\r\nauthorization: Bearer admin-token-for-tests");
    let reply = exchange(address, &head, "").await;
    if reply.status == 200 { reply.json() } else { Value::String(reply.text()) }
}

async fn exchange(address: SocketAddr, head: &str, body: &str) -> Reply {
    let mut client = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{head}\r\nhost: gateway\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    client.write_all(request.as_bytes()).await.unwrap();
    receive(client).await
}

/// The body as JSON; null when it is none, which no check takes for anything good. A deeply nested unknown field survives
/// to the client byte for byte; this reader would not take it.
fn json_of(reply: &Reply) -> Value {
    let text = reply.text();
    let shallow = match text.split_once("\"x_deep\":") {
        Some((before, deep)) => format!("{before}{}", deep.trim_start_matches(['[', ']']).trim_start_matches(',')),
        None => text,
    };
    serde_json::from_str(&shallow).unwrap_or_default()
}

fn is_typed_error(dialect: Dialect, body: &Value) -> bool {
    let error = &body["error"];
    let typed = error["type"].is_string() && error["message"].is_string();
    typed && (dialect == Dialect::OpenaiChat || body["type"] == "error")
}

fn ends_in_error_event(dialect: Dialect, reply: &Reply) -> bool {
    let events = reply.events();
    let said = said(dialect, true, reply);
    let shown = !said.text.is_empty() || said.tools.is_some();
    let terminals = ["data: [DONE]", "event: message_stop"];
    let last = events.last().is_some_and(|(name, data)| {
        is_typed_error(dialect, data) && (dialect == Dialect::OpenaiChat || name == "error")
    });
    last && shown && !terminals.iter().any(|terminal| reply.text().contains(terminal))
}

/// What a reply says.
#[derive(Debug, Default)]
struct Said {
    text: String,
    /// All tool calls' arguments, joined.
    tools: Option<String>,
    /// A stream's only counts together with its terminal event.
    finish: Option<String>,
    /// The model declined, or a filter did.
    declined: bool,
}

fn said(dialect: Dialect, stream: bool, reply: &Reply) -> Said {
    match (dialect, stream) {
        (Dialect::OpenaiChat, false) => openai_whole(&json_of(reply)),
        (Dialect::OpenaiChat, true) => openai_stream(reply),
        (Dialect::Anthropic, false) => anthropic_whole(&json_of(reply)),
        (Dialect::Anthropic, true) => anthropic_stream(reply),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn openai_whole(body: &Value) -> Said {
    let choice = &body["choices"][0];
    let message = &choice["message"];
    let calls = message["tool_calls"].as_array();
    Said {
        text: text(&message["content"]).into(),
        tools: calls.map(|calls| calls.iter().map(|call| text(&call["function"]["arguments"])).collect()),
        finish: choice["finish_reason"].as_str().map(str::to_owned),
        declined: message["refusal"].is_string() || choice["finish_reason"] == "content_filter",
    }
}

fn openai_stream(reply: &Reply) -> Said {
    let mut said = Said::default();
    let events = reply.events();
    for (_, data) in &events {
        let choice = &data["choices"][0];
        said.text.push_str(text(&choice["delta"]["content"]));
        for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            said.tools.get_or_insert_default().push_str(text(&call["function"]["arguments"]));
        }
        said.declined |= !text(&choice["delta"]["refusal"]).is_empty() || choice["finish_reason"] == "content_filter";
        said.finish = choice["finish_reason"].as_str().map(str::to_owned).or(said.finish);
    }
    let is_done = events.last().is_some_and(|(_, data)| data == "[DONE]");
    Said { finish: said.finish.filter(|_| is_done), ..said }
}

fn anthropic_whole(body: &Value) -> Said {
    let mut said = Said { finish: body["stop_reason"].as_str().map(str::to_owned), ..Said::default() };
    for block in body["content"].as_array().into_iter().flatten() {
        said.text.push_str(text(&block["text"]));
        if block["type"] == "tool_use" {
            said.tools.get_or_insert_default().push_str(&block["input"].to_string());
        }
    }
    Said { declined: body["stop_reason"] == "refusal", ..said }
}

fn anthropic_stream(reply: &Reply) -> Said {
    let mut said = Said::default();
    let events = reply.events();
    for (_, data) in &events {
        said.text.push_str(text(&data["delta"]["text"]));
        if data["content_block"]["type"] == "tool_use" {
            said.tools.get_or_insert_default();
        }
        if let Some(piece) = data["delta"]["partial_json"].as_str() {
            said.tools.get_or_insert_default().push_str(piece);
        }
        said.declined |= data["delta"]["stop_reason"] == "refusal";
        said.finish = data["delta"]["stop_reason"].as_str().map(str::to_owned).or(said.finish);
    }
    let is_done = events.last().is_some_and(|(name, _)| name == "message_stop");
    Said { finish: said.finish.filter(|_| is_done), ..said }
}
