//! A worker as any language could write one: it claims runs over HTTP and does their steps, each an effect of another
//! class. A process of its own, because it is killed and stopped at random.

use super::http::{Answer, ask};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// The claims' lease, in seconds. Short, so that the dead are soon missed.
const LEASE_S: u64 = 2;
/// For one call of the downstream.
const CALL_S: u64 = 2;
/// A server that is down is asked again so long, then the run is left to whoever claims it next.
const SERVERS_DOWN: Duration = Duration::from_secs(20);
/// A wait longer than this is not sat out with the run in hand.
const SHORT_WAIT: Duration = Duration::from_secs(4);

/// The queue of the harness's runs.
pub(super) const QUEUE: &str = "crash";

/// What a run does, in order: step, class, and the downstream's path.
fn steps(blind: bool) -> [(&'static str, Value, &'static str); 5] {
    let class = |class: Value| if blind { json!("pure") } else { class };
    [
        ("order", json!("pure"), "/orders"),
        ("charge", class(json!({ "keyed": { "key_ttl_ms": 3_600_000 } })), "/charge"),
        ("record", class(json!("tx")), "/record"),
        ("ticket", class(json!({ "verify": { "quiet_period_ms": 1_000 } })), "/ticket"),
        ("email", class(json!("once")), "/email"),
    ]
}

/// Where everybody is.
struct World {
    servers: Vec<SocketAddr>,
    downstream: SocketAddr,
    key: String,
    name: String,
    blind: bool,
    turn: std::sync::atomic::AtomicUsize,
}

/// The run is somebody else's, or waits: nothing more is to be done about it here.
struct Stop;

/// Works until it is killed. `args`: servers (with commas), downstream, caller's key, the worker's name, `blind` or
/// `ledger`.
pub(crate) fn work(args: &[&str]) -> Result<(), String> {
    let [servers, downstream, key, name, policy] = args else { return Err("crash-worker is not for you".into()) };
    let address = |text: &str| text.parse::<SocketAddr>().map_err(|error| format!("{text}: {error}"));
    let world = Arc::new(World {
        servers: servers.split(',').map(address).collect::<Result<_, _>>()?,
        downstream: address(downstream)?,
        key: (*key).to_owned(),
        name: (*name).to_owned(),
        blind: *policy == "blind",
        turn: std::sync::atomic::AtomicUsize::new(name.len()),
    });
    loop {
        let claim = json!({ "worker": world.name, "queues": [QUEUE], "wait_s": 2, "lease_s": LEASE_S });
        match world.once("POST", "/v1/claim", &claim) {
            Ok(Answer { status: 200, body }) => {
                let world = world.clone();
                // One thread a run, a few at a time: the claim that follows waits for work anyway.
                thread::spawn(move || drop(run(&world, &body)));
            }
            Ok(_) => {}
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn run(world: &Arc<World>, claimed: &Value) -> Result<(), Stop> {
    let id = claimed["run"]["id"].as_str().ok_or(Stop)?.to_owned();
    let epoch = claimed["epoch"].as_i64().ok_or(Stop)?;
    let order = claimed["input"]["order_id"].as_str().ok_or(Stop)?.to_owned();
    let lost = Arc::new(AtomicBool::new(false));
    let _beating = Beating::start(world.clone(), id.clone(), epoch, lost.clone());
    for (key, class, path) in steps(world.blind) {
        let step = Step { world, run: &id, epoch, key, class, path, order: &order, lost: &lost };
        step.get_done()?;
    }
    world.until_answered(&format!("/v1/runs/{id}/finish"), &json!({ "epoch": epoch, "ok": { "order": order } }))?;
    Ok(())
}

/// Heartbeats, in a thread of their own, while it lives.
struct Beating(Arc<AtomicBool>);

impl Beating {
    fn start(world: Arc<World>, run: String, epoch: i64, lost: Arc<AtomicBool>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let stop = over.clone();
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let beat = json!({ "epoch": epoch, "lease_s": LEASE_S });
                if let Ok(answer) = world.once("POST", &format!("/v1/runs/{run}/heartbeat"), &beat)
                    && answer.status == 410
                {
                    lost.store(true, Ordering::Relaxed);
                    return;
                }
                thread::sleep(Duration::from_millis(LEASE_S * 1000 / 3));
            }
        });
        Beating(over)
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Step<'a> {
    world: &'a World,
    run: &'a str,
    epoch: i64,
    key: &'static str,
    class: Value,
    path: &'static str,
    order: &'a str,
    lost: &'a AtomicBool,
}

impl Step<'_> {
    fn get_done(&self) -> Result<(), Stop> {
        loop {
            if self.lost.load(Ordering::Relaxed) {
                return Err(Stop);
            }
            let input = json!({ "order_id": self.order });
            let begin = json!({
                "epoch": self.epoch, "kind": "tool", "name": self.key, "class": self.class, "input": input,
                "timeout_s": CALL_S, "lease_s": LEASE_S, "question": format!("{} of {}", self.key, self.order),
                "retry": { "attempts": 6, "base_ms": 50, "cap_ms": 500 },
            });
            // The attempt's time runs from before it was asked for: the answer may have been long in coming.
            let asked_at = Instant::now();
            let begun = self.world.until_answered(&self.at("begin"), &begin)?;
            let ended = match (begun.status, begun.body["do"].as_str()) {
                (200, Some("replay")) => return Ok(()),
                (200, Some("execute")) => self.execute(&begun.body, asked_at)?,
                (200, Some("verify")) => self.verify(&begun.body)?,
                (409, _) => {
                    thread::sleep(Duration::from_millis(200));
                    continue;
                }
                _ => return Err(Stop),
            };
            match ended["step"].as_str() {
                Some("done") => return Ok(()),
                Some("again" | "unknown") => self.sit_out(&ended)?,
                _ => return Err(Stop),
            }
        }
    }

    fn at(&self, what: &str) -> String {
        format!("/v1/runs/{}/steps/{}/{what}", self.run, self.key)
    }

    fn execute(&self, begun: &Value, asked_at: Instant) -> Result<Value, Stop> {
        let deadline = Duration::from_millis(begun["deadline_ms"].as_u64().unwrap_or(0));
        let key = begun["idempotency_key"].as_str().unwrap_or_default();
        let headers: Vec<(&str, &str)> = if self.world.blind { vec![] } else { vec![("idempotency-key", key)] };
        let body = json!({ "order_id": self.order }).to_string();
        // What was stopped in between must not send what nobody waits for any more.
        if asked_at.elapsed() >= deadline {
            return self.end(begun, json!({ "error": { "message": "too late to send", "sent": false } }));
        }
        let patience = deadline.saturating_sub(asked_at.elapsed()).min(Duration::from_secs(CALL_S));
        let said = ask(self.world.downstream, "POST", self.path, &headers, &body, patience);
        let outcome = match said {
            Ok(Answer { status: 200, body }) => json!({ "ok": body }),
            Ok(Answer { status: 503, .. }) => json!({ "error": { "message": "busy", "sent": false } }),
            Ok(Answer { status, .. }) => json!({ "unknown": { "message": format!("it answered {status}") } }),
            Err(why) => json!({ "unknown": { "message": why } }),
        };
        self.end(begun, outcome)
    }

    fn verify(&self, begun: &Value) -> Result<Value, Stop> {
        let body = json!({ "order_id": self.order }).to_string();
        let said = ask(self.world.downstream, "POST", "/tickets/find", &[], &body, Duration::from_secs(CALL_S));
        let outcome = match said {
            Ok(Answer { status: 200, body }) if body["found"] == true => json!({ "ok": body }),
            Ok(Answer { status: 200, .. }) => json!({ "absent": true }),
            Ok(_) | Err(_) => json!({ "unknown": {} }),
        };
        self.end(begun, outcome)
    }

    fn end(&self, begun: &Value, mut outcome: Value) -> Result<Value, Stop> {
        outcome["epoch"] = begun["epoch"].clone();
        outcome["attempt"] = begun["attempt"].clone();
        outcome["lease_s"] = json!(LEASE_S);
        let ended = self.world.until_answered(&self.at("end"), &outcome)?;
        if ended.status == 200 { Ok(ended.body) } else { Err(Stop) }
    }

    fn sit_out(&self, ended: &Value) -> Result<(), Stop> {
        let wait = Duration::from_millis(ended["after_ms"].as_u64().unwrap_or(200));
        if wait > SHORT_WAIT {
            let release = json!({ "epoch": self.epoch, "after_s": wait.as_secs_f64() });
            self.world.until_answered(&format!("/v1/runs/{}/release", self.run), &release)?;
            return Err(Stop);
        }
        thread::sleep(wait + Duration::from_millis(5));
        Ok(())
    }
}

impl World {
    /// Asks the next server, once.
    fn once(&self, method: &str, path: &str, body: &Value) -> Result<Answer, String> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let server = self.servers[turn % self.servers.len()];
        let key = format!("Bearer {}", self.key);
        ask(server, method, path, &[("authorization", &key)], &body.to_string(), Duration::from_secs(8))
    }

    /// Repeats a call until some server answers it: every call is safe to repeat.
    fn until_answered(&self, path: &str, body: &Value) -> Result<Answer, Stop> {
        let since = Instant::now();
        while since.elapsed() < SERVERS_DOWN {
            match self.once("POST", path, body) {
                Ok(answer) if answer.status < 500 && answer.status != 429 => return Ok(answer),
                Ok(_) | Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
        Err(Stop)
    }
}
