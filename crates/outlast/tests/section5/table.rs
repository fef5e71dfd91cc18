//! What a row is, and how a gateway is held to it.

use crate::common::{Ask, Reply, Rig, Upstream, guarded, model, plan, rig};
use outlast::fake::{Ending, Fake};
use outlast_model::record::{AttemptReason, AttemptRecord, CallRecord, Outcome};
use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
};

/// Rows met at the same time: most of a row is waiting.
const ABREAST: usize = 3;

/// One promise.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    /// The failure's class: the row of section 5.
    pub(crate) class: &'static str,
    pub(crate) what: &'static str,
    /// The route's targets, of `a`, `b` and `c`. `a` and `c` speak the client's dialect, `b` the other one.
    pub(crate) targets: &'static str,
    /// More settings of the route.
    pub(crate) route: &'static str,
    /// More of the config. `{deaf}`, `{nobody}` and `{refuser}` are URLs: of a listener that accepts nobody, of no
    /// listener at all, of a provider that answers 400 to everything.
    pub(crate) config: &'static str,
    /// Which fake gets which fault.
    pub(crate) faults: &'static [(&'static str, &'static str)],
    pub(crate) asks: Asks,
    pub(crate) ways: Ways,
    /// The same was answered well once, before the faults.
    pub(crate) before: bool,
    pub(crate) gets: Gets,
    /// Every attempt of the record, as `target[+reason] failure[(gate)] decision`, `ok` for no failure. The fakes have
    /// to have seen as many calls.
    pub(crate) trail: &'static str,
    /// Calls of `c` beside those: verdicts, or what a consent or a queue caused.
    pub(crate) judged: usize,
    /// Part of what the client is told, as text.
    pub(crate) says: &'static str,
    /// What the client must not see, in any part of the body.
    pub(crate) hides: &'static str,
}

/// A row to start from.
pub(crate) const ROW: Row = Row {
    class: "",
    what: "",
    targets: "a b",
    route: "",
    config: "",
    faults: &[],
    asks: Asks::Hello,
    ways: Ways::Both,
    before: false,
    gets: Gets::Full("b"),
    trail: "",
    judged: 0,
    says: "",
    hides: "",
};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    Hello,
    /// Eight rounds of some 250 tokens each, and a question.
    Long,
    /// Two tools; the model wants to call the one that writes.
    Tools,
    /// With two sources.
    Sources,
    /// With a field out of range.
    Wrongly,
    /// With a limit of 2,000 output tokens.
    AtLength,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ways {
    Both,
    Whole,
    Streamed,
}

/// What the client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gets {
    /// The reply of that target, in full.
    Full(&'static str),
    /// The reply of that target, without this.
    Less(&'static str, &'static str),
    /// That backstop's reply.
    Backstop(&'static str, &'static str),
    /// The model's own declining, as its reply.
    Declined(&'static str),
    /// 202, or a question: not answered now.
    Later(&'static str),
    /// A typed error of this code.
    Error(&'static str),
    /// Some output, then a typed error event of this code and no terminal one.
    Interrupted(&'static str),
}

/// Holds a gateway to these rows, each in every way it is for.
pub(crate) fn hold_to(rows: &[Row]) {
    // One row by a part of its text: OUTLAST_ROW=shortened
    let only = std::env::var("OUTLAST_ROW").unwrap_or_default();
    let meetings = rows.iter().filter(|row| row.what.contains(&only)).flat_map(|row| {
        let streamed: &[bool] = match row.ways {
            Ways::Both => &[false, true],
            Ways::Whole => &[false],
            Ways::Streamed => &[true],
        };
        let ways =
            ["openai", "anthropic"].into_iter().flat_map(move |dialect| streamed.iter().map(move |it| (dialect, *it)));
        ways.map(move |(dialect, streamed)| (row, dialect, streamed))
    });
    let meetings = Mutex::new(meetings);
    let meet_all = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let next = || meetings.lock().unwrap().next();
        let (mut broken, mut stopping) = (Vec::new(), Vec::new());
        while let Some((row, dialect, streamed)) = next() {
            let how = if streamed { "streamed" } else { "whole" };
            let name = format!("[{}: {}] {dialect}, {how}", row.class, row.what);
            let meeting = Meeting { row, dialect, streamed };
            match catch_unwind(AssertUnwindSafe(|| runtime.block_on(meeting.broken_promises()))) {
                Ok((promises, stops)) => {
                    broken.extend(promises.into_iter().map(|promise| format!("{name}: {promise}")));
                    stopping.push((name, stops));
                }
                Err(_) => broken.push(format!("{name}: the test panicked, see above")),
            }
        }
        for (name, stops) in stopping {
            if !runtime.block_on(stops).unwrap() {
                broken.push(format!("{name}: calls were still in flight at the end"));
            }
        }
        broken
    };
    let broken: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..ABREAST).map(|_| scope.spawn(meet_all)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(broken.is_empty(), "{} broken promises:\n{}", broken.len(), broken.join("\n"));
}

/// A row, met in one way.
struct Meeting<'a> {
    row: &'a Row,
    dialect: &'static str,
    streamed: bool,
}

/// The fakes, and what else a row speaks of.
struct Upstreams {
    a: Fake,
    b: Fake,
    c: Fake,
    refuser: Upstream,
    /// Full, so that it accepts nobody; closed with the test.
    _deaf: Option<(TcpListener, Vec<TcpStream>)>,
}

impl Upstreams {
    fn named(&self) -> [(&'static str, &Fake); 3] {
        [("a", &self.a), ("b", &self.b), ("c", &self.c)]
    }
}

impl Meeting<'_> {
    async fn broken_promises(&self) -> (Vec<String>, JoinHandle<bool>) {
        let (upstreams, config) = self.upstreams().await;
        let rig = Rig::start(&config).await;
        let ask = self.ask();
        if self.row.before {
            let good = rig.ask(ask.clone()).await;
            good.assert_answered();
            crate::common::until("it to be kept", || {
                rig.metrics().contains("outlast_cache_stored_total{result=\"kept\"} 1")
            })
            .await;
        }
        for (name, fake) in upstreams.named() {
            fake.clear_log();
            for (_, fault) in self.row.faults.iter().filter(|(of, _)| *of == name) {
                fake.set_fault("*", plan(fault)).unwrap();
            }
        }
        let reply = rig.ask(ask).await;
        let record = rig.record(reply.request_id()).await;
        let mut broken = self.of_the_reply(&reply, &record);
        broken.extend(self.of_the_record(&record));
        for (name, fake) in upstreams.named() {
            guarded("the upstream calls to end", fake.quiet()).await;
            broken.extend(self.of_the_calls(name, fake));
        }
        if !broken.is_empty() {
            broken.push(format!("    {} {}", reply.status(), reply.text()));
        }
        // It waits a moment for clients that might still come: not for those who test.
        let stopping = tokio::spawn(rig.gateway.stop());
        (broken, stopping)
    }

    async fn upstreams(&self) -> (Upstreams, String) {
        let deaf = if self.row.config.contains("{deaf}") { Some(deaf().await) } else { None };
        let upstreams = Upstreams {
            a: rig::fake("alpha").await,
            b: rig::fake("beta").await,
            c: rig::fake("gamma").await,
            refuser: model(|_| crate::common::Act::Fails(400)).await,
            _deaf: deaf,
        };
        let (same, other) = match self.dialect {
            "openai" => ("openai-compatible", "anthropic"),
            _ => ("anthropic", "openai-compatible"),
        };
        let mut config = String::new();
        for (name, fake) in upstreams.named() {
            let kind = if name == "b" { other } else { same };
            let region = if name == "a" { "region = \"us\"" } else { "region = \"eu\"" };
            config += &rig::provider(name, kind, &fake.url(), region);
        }
        // A provider that no route names is an error.
        config += "[routes.others]\ntargets = [\"a/m\", \"b/m\", \"c/m\"]\n";
        let targets: Vec<String> = self.row.targets.split(' ').map(|name| format!("\"{name}/m\"")).collect();
        let _ = write!(
            config,
            "[routes.main]\ntargets = [{}]\n{}\n{}\n",
            targets.join(", "),
            self.row.route,
            self.row.config
        );
        if let Some((listener, _)) = &upstreams._deaf {
            config = config.replace("{deaf}", &format!("http://{}", listener.local_addr().unwrap()));
        }
        if config.contains("{nobody}") {
            let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
            config = config.replace("{nobody}", &format!("http://{address}"));
        }
        config = config.replace("{refuser}", &upstreams.refuser.url());
        (upstreams, config)
    }

    fn ask(&self) -> Ask {
        let text = match self.row.asks {
            Asks::Tools => "Refund order 7, please: tool:refund_order",
            Asks::Hello | Asks::Long | Asks::Sources | Asks::Wrongly | Asks::AtLength => "Hello",
        };
        let ask = Ask::either(self.dialect, "main", text).with("stream", json!(self.streamed));
        match self.row.asks {
            Asks::Hello => ask,
            Asks::Long => ask.with("messages", conversation()).with("max_tokens", json!(100)),
            Asks::Tools => ask.with("tools", tools(self.dialect)),
            Asks::Sources => ask.with("outlast", json!({"sources": ["doc-1", {"id": "doc-2"}]})),
            Asks::Wrongly => ask.with("temperature", json!(9)),
            Asks::AtLength => ask.with("max_tokens", json!(2000)),
        }
    }

    fn of_the_reply(&self, reply: &Reply, record: &CallRecord) -> Vec<String> {
        let mut broken = Vec::new();
        let mut promise = |kept: bool, what: String| {
            if !kept {
                broken.push(what);
            }
        };
        let row = self.row;
        let told = notes(reply);
        let degraded = reply.header("x-outlast-degraded").unwrap_or("");
        let served = record.served_by.as_ref().map_or("", |target| &target.as_str()[..1]);
        let ended = record.outcome.name();
        let is_whole = if self.streamed { reply.says_it_is_complete() && reply.error_event().is_none() } else { true };
        match row.gets {
            Gets::Full(who) | Gets::Declined(who) => {
                let declines = [r#""refusal":"I"#, r#"_reason":"content_filter""#, r#""stop_reason":"refusal""#];
                let declined = declines.iter().any(|word| reply.text().contains(word));
                promise(declined == matches!(row.gets, Gets::Declined(_)), "a refusal is not told as one".into());
                promise(reply.status() == 200 && is_whole, format!("{who} should have answered"));
                promise(
                    (served, degraded, ended) == (who, "", "answered"),
                    format!("served by `{served}`, degraded `{degraded}`, {ended}"),
                );
                promise(!record.degraded && told.is_null(), format!("marked: {told}"));
            }
            Gets::Less(who, what) => {
                promise(reply.status() == 200 && is_whole, format!("{who} should have answered"));
                promise(
                    (served, degraded, ended) == (who, what, "answered"),
                    format!("served by `{served}`, degraded `{degraded}`, {ended}"),
                );
                promise(record.degraded, "not recorded as degraded".into());
                broken.extend(of_the_notes(&told, what));
            }
            Gets::Backstop(name, what) => {
                promise(reply.status() == 200 && is_whole, format!("{name} should have answered"));
                let by = record.backstop.as_ref().map_or("", |it| &it.name);
                promise(
                    (by, served, degraded, ended) == (name, "", what, "answered"),
                    format!("by `{by}`, served `{served}`, degraded `{degraded}`, {ended}"),
                );
                broken.extend(of_the_notes(&told, what));
            }
            Gets::Later(name) => {
                let by = record.backstop.as_ref().map_or("", |it| &it.name);
                let status = if told["confirm"].is_object() { 200 } else { 202 };
                promise(reply.status() == status && is_whole, format!("status {}", reply.status()));
                promise(
                    (by, served, ended) == (name, "", "deferred"),
                    format!("by `{by}`, served `{served}`, {ended}"),
                );
                promise(status == 200 || reply.header("location").is_some(), "no place to look".into());
            }
            Gets::Error(code) => {
                promise(ended == "failed", format!("recorded as {ended}"));
                promise(
                    degraded.is_empty() && served.is_empty(),
                    format!("served by `{served}`, degraded `{degraded}`"),
                );
                broken.extend(self.of_the_error(reply, code));
            }
            Gets::Interrupted(code) => {
                let event = reply.error_event().unwrap_or_default();
                promise(reply.status() == 200 && !reply.said().is_empty(), "nothing was shown".into());
                promise(!reply.says_it_is_complete(), "it says that it is complete".into());
                let (_, kind, _, anthropic) = typed(code);
                let right = if self.dialect == "openai" { kind } else { anthropic };
                promise(event["error"]["type"] == right, format!("ends in {event}"));
                promise(matches!(record.outcome, Outcome::Interrupted(_)), format!("recorded as {ended}"));
            }
        }
        let mode = if matches!(row.gets, Gets::Less(_, "tools")) { "plan-only" } else { "full" };
        let is_told = reply.header("x-outlast-tool-mode").is_none_or(|told| told == mode || row.config.contains(told));
        if !is_told {
            broken.push(format!("tool mode {:?}", reply.header("x-outlast-tool-mode")));
        }
        broken.extend(self.of_the_words(reply));
        broken
    }

    /// What may be read in the body, and what may not.
    fn of_the_words(&self, reply: &Reply) -> Vec<String> {
        let mut broken = Vec::new();
        let (row, text) = (self.row, reply.text());
        if !row.says.is_empty() && !reply.said().contains(row.says) && !text.contains(row.says) {
            broken.push(format!("does not say `{}`", row.says));
        }
        if !row.hides.is_empty() && text.contains(row.hides) {
            broken.push(format!("shows `{}`", row.hides));
        }
        let speaker = match row.gets {
            Gets::Full(who) | Gets::Declined(who) | Gets::Less(who, _) => who,
            Gets::Interrupted(_) => "a",
            Gets::Backstop(..) if row.before => "a",
            Gets::Backstop(..) | Gets::Later(_) | Gets::Error(_) => "",
        };
        for (who, name) in [("a", "alpha"), ("b", "beta"), ("c", "gamma"), ("", "org-fake")] {
            if (who != speaker || who.is_empty()) && text.contains(name) {
                broken.push(format!("{name} is heard in it"));
            }
        }
        let reason = reply.header("x-outlast-fallback-reason").unwrap_or("");
        let first =
            row.trail.split("; ").map(|it| it.split(' ').nth(1).unwrap_or("ok")).find(|it| *it != "ok").unwrap_or("");
        let first = first.split([':', '(']).next().unwrap_or("");
        if !matches!(row.gets, Gets::Interrupted(_)) && reason != first {
            broken.push(format!("the fallback reason is `{reason}`"));
        }
        broken
    }

    fn of_the_error(&self, reply: &Reply, code: &str) -> Vec<String> {
        let mut broken = Vec::new();
        let (openai, kind, status, anthropic) = typed(code);
        let right = if self.dialect == "openai" { (openai, kind) } else { (status, anthropic) };
        let body = serde_json::from_slice::<Value>(&reply.body).unwrap_or_default();
        let got = (reply.status(), body["error"]["type"].as_str().unwrap_or(""));
        if got != right {
            broken.push(format!("an error of {right:?} is due, not {got:?}"));
        }
        if self.dialect == "openai" && body["error"]["code"] != code && self.row.asks != Asks::Wrongly {
            broken.push(format!("code {}", body["error"]["code"]));
        }
        if self.dialect == "anthropic" && body["type"] != "error" {
            broken.push("not an error of that dialect".into());
        }
        if !matches!(reply.header("x-should-retry"), Some("true" | "false")) {
            broken.push("no advice on retrying".into());
        }
        broken
    }

    fn of_the_record(&self, record: &CallRecord) -> Vec<String> {
        let mut trail: Vec<String> = record.attempts.iter().map(attempt).collect();
        if self.row.config.contains("votes =") {
            // Who votes first is nobody's concern.
            trail.sort();
        }
        let trail = trail.join("; ");
        if trail == self.row.trail {
            Vec::new()
        } else {
            vec![format!("the record says `{trail}`, not `{}`", self.row.trail)]
        }
    }

    /// As many calls as attempts, and none unfinished.
    fn of_the_calls(&self, name: &str, fake: &Fake) -> Vec<String> {
        let refused = self.row.faults.iter().any(|(of, fault)| *of == name && fault.starts_with("refuse-connections"));
        let attempts = self.row.trail.split("; ").filter(|attempt| attempt.starts_with(name)).count();
        let expected = if refused { 0 } else { attempts } + if name == "c" { self.row.judged } else { 0 };
        let seen = fake.log();
        let mut broken = Vec::new();
        // What is queued is asked again, by and by.
        let as_many = seen.len() == expected || (self.row.gets == Gets::Later("queue") && seen.len() > expected);
        if !as_many {
            broken.push(format!("{name} was called {} times, not {expected}", seen.len()));
        }
        if seen.iter().any(|call| call.ending == Ending::Open) {
            broken.push(format!("a call of {name} is still open"));
        }
        broken
    }
}

fn attempt(record: &AttemptRecord) -> String {
    let mut text = record.target.as_str()[..1].to_owned();
    match record.reason {
        AttemptReason::First | AttemptReason::Reroute => {}
        AttemptReason::SameTarget
        | AttemptReason::HalfOpenTrial
        | AttemptReason::Trickle
        | AttemptReason::AfterWait
        | AttemptReason::Repair
        | AttemptReason::Hedge
        | AttemptReason::Shorten => {
            let _ = write!(text, "+{}", name_of(&json!(record.reason)));
        }
    }
    let failure = record.failure.as_ref().map_or("ok".to_owned(), |report| report.failure.to_string());
    let gate = record.problems.first().and_then(|problem| problem.gate).map(|gate| format!("({})", gate.name()));
    let gate = gate.filter(|_| failure != "ok").unwrap_or_default();
    text + &format!(" {failure}{gate} {}", name_of(&json!(record.decision)))
}

fn name_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The `outlast` object of a reply, wherever it is.
pub(crate) fn notes(reply: &Reply) -> Value {
    if reply.is_stream() {
        let events = reply.events();
        let noted = events.iter().map(|event| event.json()["outlast"].clone()).find(Value::is_object);
        return noted.unwrap_or_default();
    }
    serde_json::from_slice::<Value>(&reply.body).map(|body| body["outlast"].clone()).unwrap_or_default()
}

/// A degraded reply says what was given up, whether anything is kept and what comes next, in words for its user.
fn of_the_notes(told: &Value, what: &str) -> Vec<String> {
    let mut broken = Vec::new();
    if told["gave_up"] != json!([what]) || told["degraded"] != true {
        broken.push(format!("the body does not say that {what} was given up: {told}"));
    }
    if !told["saved"].is_boolean() || told["notice"].as_str().is_none_or(str::is_empty) {
        broken.push(format!("no notice for the user: {told}"));
    }
    for word in ["alpha", "beta", "a/m", "b/m", "503", "openai", "anthropic"] {
        if told["notice"].as_str().is_some_and(|notice| notice.contains(word)) {
            broken.push(format!("the notice speaks of {word}"));
        }
    }
    broken
}

/// Status and type of an error by its code, `OpenAI / Anthropic`, as `docs/errors.md` has them.
fn typed(code: &str) -> (u16, &'static str, u16, &'static str) {
    let (bad, server) = ("invalid_request_error", "server_error");
    match code {
        "timeout" => (504, server, 504, "timeout_error"),
        "overloaded" => (503, server, 529, "overloaded_error"),
        "rate_limit_exceeded" => (429, "rate_limit_error", 429, "rate_limit_error"),
        "quota_exhausted" | "auth" | "access_denied" | "exhausted" => (503, server, 503, "api_error"),
        "context_length_exceeded" | "refusal" | "content_filter" | "cost_spike" | "unsupported" | "invalid_request" => {
            (400, bad, 400, bad)
        }
        _ => (502, server, 502, "api_error"),
    }
}

fn conversation() -> Value {
    let mut messages = Vec::new();
    for round in 0..8 {
        messages.push(json!({"role": "user", "content": format!("question {round} {}", "word ".repeat(200))}));
        messages.push(json!({"role": "assistant", "content": "Yes."}));
    }
    messages.push(json!({"role": "user", "content": "the last question"}));
    Value::Array(messages)
}

/// One that looks up and one that writes.
pub(crate) fn tools(dialect: &str) -> Value {
    let schema = json!({ "type": "object", "properties": { "order": { "type": "string" } }, "required": ["order"] });
    let tool = |name: &&str| match dialect {
        "openai" => json!({ "type": "function", "function": { "name": name, "parameters": schema } }),
        _ => json!({ "name": name, "input_schema": schema }),
    };
    ["lookup_order", "refund_order"].iter().map(tool).collect()
}

/// A listener whose queue is full: the kernel drops further connection requests.
async fn deaf() -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        waiting.push(stream);
    }
    (listener, waiting)
}
