//! Workflows on a server: a shop whose tools it calls, runs to start and to watch.

use super::{
    Rig, Upstream, until_some,
    upstream::{Request, Step, json_reply},
};
use outlast_model::{
    RunId, TenantId, Wall,
    policy::Priority,
    run::{EscalationKind, LedgerState, RunState, Verb},
};
use outlast_store::{
    CancelRun, DecideEscalation, Decided, Limits, MemoryStore, Payload, PeopleStore, RunRef, RunStore, RunView,
    SignalRun, StartRun, StepView,
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

/// What the shop does with a call of one of its tools.
#[derive(Clone, Debug)]
pub(crate) enum Deal {
    /// It is done.
    Answers(Value),
    /// It is refused with this status.
    Refuses(u16),
    /// It is done, and the answer is lost.
    Loses,
    /// It never answers.
    Hangs,
}

/// A loopback downstream that keeps a book of every call.
pub(crate) struct Shop(Upstream);

impl Shop {
    /// The script is given the tool, its arguments and how many calls of it came before.
    pub(crate) async fn open(script: impl Fn(&str, &Value, usize) -> Deal + Send + Sync + 'static) -> Shop {
        let counts: Mutex<HashMap<String, usize>> = Mutex::default();
        let upstream = Upstream::start(move |request: &Request| {
            let tool = tool_of(request);
            let mut counts = counts.lock().unwrap();
            let before = counts.entry(tool.clone()).or_default();
            *before += 1;
            match script(&tool, &request.json(), *before - 1) {
                Deal::Answers(result) => vec![Step::Send(json_reply(&result))],
                Deal::Refuses(status) => {
                    vec![Step::Send(format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n").into_bytes())]
                }
                Deal::Loses => vec![Step::Close],
                Deal::Hangs => vec![Step::Hang],
            }
        });
        Shop(upstream.await)
    }

    pub(crate) fn url(&self) -> String {
        self.0.url()
    }

    /// The tools that were called, in order.
    pub(crate) fn called(&self) -> Vec<String> {
        self.0.seen().iter().map(tool_of).collect()
    }

    /// The arguments of each call of a tool, in order.
    pub(crate) fn calls(&self, tool: &str) -> Vec<Value> {
        self.0.seen().iter().filter(|request| tool_of(request) == tool).map(Request::json).collect()
    }

    /// The idempotency key of each call of a tool, in order.
    pub(crate) fn keys(&self, tool: &str) -> Vec<String> {
        let of_tool = |request: &&Request| tool_of(request) == tool;
        let key = |request: &Request| request.header("idempotency-key").unwrap_or_default().to_owned();
        self.0.seen().iter().filter(of_tool).map(key).collect()
    }

    /// A tool of the shop, of this class, for the config.
    pub(crate) fn tool(&self, name: &str, effect: &str, more: &str) -> String {
        let url = self.url();
        let key_ttl = if effect == "keyed" { "key_ttl = \"24h\"\n" } else { "" };
        format!(
            "[tools.{name}]\nkind = \"http\"\nurl = \"{url}/{name}\"\neffect = \"{effect}\"\ntimeout = \"5s\"\n{key_ttl}\
             {more}\n"
        )
    }
}

fn tool_of(request: &Request) -> String {
    request.head.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned()
}

/// A server with workflows over a store of the test's own.
pub(crate) struct Desk {
    pub(crate) rig: Rig,
    pub(crate) store: Arc<MemoryStore>,
}

impl Desk {
    pub(crate) async fn open(toml: &str) -> Desk {
        Desk::over(toml, memory()).await
    }

    pub(crate) async fn over(toml: &str, store: Arc<MemoryStore>) -> Desk {
        Desk { rig: Rig::start_on(&whole(toml), store.clone()).await, store }
    }

    /// Starts a run of a workflow in version 1.
    pub(crate) async fn start(&self, workflow: &str, input: Value) -> RunRef {
        self.start_as(workflow, "1", input).await
    }

    pub(crate) async fn start_as(&self, workflow: &str, version: &str, input: Value) -> RunRef {
        self.start_with(workflow, input, |start| start.version = version.into()).await
    }

    /// Starts a run of a workflow, changed like this.
    pub(crate) async fn start_with(&self, workflow: &str, input: Value, change: impl FnOnce(&mut StartRun)) -> RunRef {
        let id = format!("run-{workflow}-{}", fastrand::u64(..));
        let run = RunRef { tenant: TenantId::new("-"), id: RunId::new(id) };
        let mut start = StartRun {
            run: run.clone(),
            key: None,
            queue: format!("outlast:{workflow}").into(),
            workflow: workflow.into(),
            version: "1".into(),
            priority: Priority::default(),
            after: Duration::ZERO,
            deadline: None,
            cost_max: None,
            unclaimed: false,
            input: payload(&input),
        };
        change(&mut start);
        self.store.start_run(start).await.unwrap();
        run
    }

    pub(crate) async fn view(&self, run: &RunRef) -> RunView {
        self.store.run(run.clone()).await.unwrap().expect("the run")
    }

    /// How it ended, once it has.
    pub(crate) async fn end(&self, run: &RunRef) -> (RunState, Value) {
        let end = until_some("the run to end", async || self.store.run_end(run.clone()).await.unwrap()).await;
        (end.state, opened(&end.output))
    }

    /// That it is done, and its output.
    pub(crate) async fn done(&self, run: &RunRef) -> Value {
        let (state, output) = self.end(run).await;
        assert_eq!(state, RunState::Done, "{output}");
        output
    }

    /// Waits until it is in this state.
    pub(crate) async fn until(&self, run: &RunRef, state: RunState) -> RunView {
        until_some(&format!("the run to be {}", state.name()), async || {
            let view = self.view(run).await;
            assert!(view.state == state || !view.state.is_final(), "it ended as {}", view.state.name());
            (view.state == state).then_some(view)
        })
        .await
    }

    /// Why it waits for a person, once it does, and what they are shown.
    pub(crate) async fn parked(&self, run: &RunRef) -> (EscalationKind, String, Value) {
        let view = self.until(run, RunState::Parked).await;
        let (kind, id) = view.parked.expect("why it is parked");
        let escalation = self.store.escalation(id).await.unwrap().expect("the escalation");
        (kind, escalation.summary.question.to_string(), opened(&escalation.payload))
    }

    /// A person decides what the run waits for. `result` is what they give, if they do.
    pub(crate) async fn decide(&self, run: &RunRef, verb: Verb, result: Option<Value>, said: Value) {
        let view = self.until(run, RunState::Parked).await;
        let (_, id) = view.parked.expect("why it is parked");
        let escalation = self.store.escalation(id.clone()).await.unwrap().expect("the escalation");
        let mut decision = said;
        decision["verb"] = json!(verb.name());
        let decide = DecideEscalation {
            id,
            by: "anna".into(),
            verb,
            shown: escalation.summary.shown,
            result: result.as_ref().map(payload),
            decision: payload(&decision),
        };
        assert_eq!(self.store.decide_escalation(decide).await.unwrap(), Decided::Stands);
    }

    pub(crate) async fn signal(&self, run: &RunRef, name: &str, value: Value) {
        let signal = SignalRun { run: run.clone(), dedupe: name.into(), name: name.into(), payload: payload(&value) };
        self.store.signal_run(signal).await.unwrap();
    }

    pub(crate) async fn cancel(&self, run: &RunRef) {
        self.store.cancel_run(CancelRun { run: run.clone(), by: "anna".into() }).await.unwrap();
    }

    pub(crate) async fn journal(&self, run: &RunRef) -> Vec<StepView> {
        self.store.journal(run.clone(), 0, 500).await.unwrap().steps
    }

    /// The keys of the journal, in order, with where each stands.
    pub(crate) async fn steps(&self, run: &RunRef) -> Vec<(String, LedgerState)> {
        self.journal(run).await.into_iter().map(|step| (step.key.to_string(), step.state)).collect()
    }
}

/// Adds what a config with workflows has to have.
pub(crate) fn whole(toml: &str) -> String {
    let mut toml = toml.to_owned();
    if !toml.contains("[providers.") {
        toml += &super::rig::provider("nobody", "openai-compatible", "http://127.0.0.1:9", "");
        toml += "[routes.nobody]\ntargets = [\"nobody/m\"]\n";
    }
    toml + "[store]\nfile = \"store.db\"\ndata_key = \"${DATA_KEY}\"\n"
}

/// A workflow for the config, of version 1.
pub(crate) fn workflow(name: &str, head: &str, steps: &[&str]) -> String {
    let mut text = format!("[workflows.{name}]\nversion = \"1\"\n{head}\n");
    for step in steps {
        text += &format!("[[workflows.{name}.steps]]\n{step}\n");
    }
    text
}

/// A store in memory, by the system's clock.
pub(crate) fn memory() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(Limits::MEMORY, Arc::new(SystemClock)))
}

#[derive(Debug)]
struct SystemClock;

impl outlast_store::Clock for SystemClock {
    fn now(&self) -> Wall {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Wall(i64::try_from(since.as_millis()).unwrap())
    }
}

fn payload(value: &Value) -> Payload {
    Payload::from(serde_json::to_vec(value).unwrap())
}

fn opened(payload: &Payload) -> Value {
    serde_json::from_slice(payload.as_bytes()).unwrap_or(Value::Null)
}

/// Retries that a test need not wait for.
pub(crate) const QUICK: &str = "retry = { attempts = 3, base = \"5ms\", cap = \"20ms\" }";
