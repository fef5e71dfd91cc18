//! `cargo xtask crash`: hundreds of runs, several servers on one file, several workers, and somebody who kills and stops
//! them at random, while the world outside answers badly.
//!
//! What must come out: every run done, every effect there, none twice where that is promised. And the checker is
//! checked: with blind retry in place of the ledger the same harness has to find duplicates.

mod downstream;
mod http;
mod reviewer;
mod verdict;
mod worker;

pub(crate) use worker::work;

use crate::process::{Running, free_address, target_dir, workspace_root};
use downstream::Downstream;
use http::ask;
use serde_json::json;
use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use verdict::{Bill, Verdict};

const CALLER: &str = "sk-crash-caller-0000000000000000000000001";
const OPERATOR: &str = "crash-operator-00000000000000000000000001";
const REVIEWER: &str = "rk-crash-reviewer-000000000000000000000001";
/// When nothing more is disturbed, everything has to be done within this.
const PATIENCE: Duration = Duration::from_secs(180);

struct Options {
    /// Runs that workers do; half as many more are done by the servers.
    runs: usize,
    servers: usize,
    workers: usize,
    /// How long it goes on.
    trouble: Duration,
    seed: u64,
    /// What is built is there already.
    no_build: bool,
    /// Only with the ledger; without the check of the checker.
    ledger_only: bool,
}

impl Options {
    fn parse(args: &[&str]) -> Result<Self, String> {
        let mut options = Options {
            runs: 200,
            servers: 3,
            workers: 4,
            trouble: Duration::from_secs(60),
            seed: 1,
            no_build: false,
            ledger_only: false,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut number = || {
                let number = args.next().and_then(|number| number.parse::<u64>().ok()).filter(|number| *number > 0);
                number.ok_or(format!("{arg} needs a positive number"))
            };
            match *arg {
                "--runs" => options.runs = number()? as usize,
                "--servers" => options.servers = number()? as usize,
                "--workers" => options.workers = number()? as usize,
                "--seconds" => options.trouble = Duration::from_secs(number()?),
                "--seed" => options.seed = number()?,
                "--no-build" => options.no_build = true,
                "--ledger-only" => options.ledger_only = true,
                other => return Err(format!("crash: {other} is not known")),
            }
        }
        Ok(options)
    }
}

/// Runs the harness with the ledger, then with blind retry.
///
/// # Errors
/// A promise that was broken; or a checker that finds nothing where there is something to be found.
pub(crate) fn run(args: &[&str]) -> Result<(), String> {
    let options = Options::parse(args)?;
    if !options.no_build {
        build()?;
    }
    let verdict = disturb(&options, false)?;
    println!("{verdict}");
    verdict.holds()?;
    if options.ledger_only {
        return Ok(());
    }
    println!("\nThe same with blind retry, which has to be found out:");
    let blind = disturb(&options, true)?;
    println!("{blind}");
    match blind.holds() {
        Err(found) => {
            println!("\nFound out, as it has to be: {found}");
            Ok(())
        }
        Ok(()) => Err("blind retry was not found out: the harness proves nothing".into()),
    }
}

fn build() -> Result<(), String> {
    let built = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args(["build", "--package", "outlast"])
        .current_dir(workspace_root())
        .status();
    match built {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("cargo build: {status}")),
        Err(error) => Err(format!("cargo build: {error}")),
    }
}

/// The servers and workers of one round, each of which may be replaced at any time.
struct Troupe {
    outlast: PathBuf,
    folder: PathBuf,
    servers: Vec<Player>,
    workers: Vec<Player>,
    downstream: SocketAddr,
    blind: bool,
    rng: Rng,
    bill: Bill,
}

struct Player {
    /// Where a server listens.
    address: SocketAddr,
    running: Option<Running>,
    /// It is stopped until then.
    stopped: Option<Instant>,
    lives: u32,
}

fn disturb(options: &Options, blind: bool) -> Result<Verdict, String> {
    let folder = target_dir().join(if blind { "crash-blind" } else { "crash" });
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let downstream = Downstream::start(options.seed)?;
    let outlast = target_dir().join("debug").join("outlast");
    let provider = free_address()?;
    let mut fake = Command::new(&outlast);
    fake.args(["fake", "--listen", &provider.to_string()]);
    let mut fake = Running::start("fake", &mut fake, &folder.join("fake.log"))?;
    fake.wait_ready(provider, "/fake/log")?;
    fs::write(folder.join("outlast.toml"), config(provider, downstream.address, blind))
        .map_err(|error| format!("outlast.toml: {error}"))?;
    let mut troupe = Troupe::gather(options, outlast, folder, downstream.address, blind)?;
    let orders = troupe.start_runs(options.runs)?;
    let over = Arc::new(AtomicBool::new(false));
    let reviewing = {
        let (servers, downstream, over) = (troupe.addresses(), downstream.clone(), over.clone());
        thread::spawn(move || reviewer::review(&servers, &downstream, &over))
    };
    let since = Instant::now();
    while since.elapsed() < options.trouble && !orders.all_done(&troupe.awake()) {
        troupe.hurt_somebody()?;
    }
    troupe.heal()?;
    let healed = Instant::now();
    while healed.elapsed() < PATIENCE && !orders.all_done(&troupe.awake()) {
        troupe.mind()?;
        thread::sleep(Duration::from_millis(200));
    }
    over.store(true, Ordering::Relaxed);
    troupe.bill.decided = reviewing.join().unwrap_or_default();
    Ok(orders.judge(&troupe.awake(), &downstream, troupe.bill.clone()))
}

/// The runs of one round, by what they are about.
struct Orders(Vec<(String, String)>);

impl Orders {
    fn all_done(&self, servers: &[SocketAddr]) -> bool {
        self.0.iter().all(|(run, _)| state(servers, run).as_deref() == Some("done"))
    }

    fn judge(&self, servers: &[SocketAddr], downstream: &Downstream, bill: Bill) -> Verdict {
        let states = self.0.iter().map(|(run, order)| (order.clone(), state(servers, run))).collect();
        verdict::judge(states, &downstream.counts(), bill)
    }
}

fn state(servers: &[SocketAddr], run: &str) -> Option<String> {
    let key = format!("Bearer {CALLER}");
    for server in servers {
        let path = format!("/v1/runs/{run}");
        if let Ok(answer) = ask(*server, "GET", &path, &[("authorization", &key)], "", Duration::from_secs(3))
            && answer.status == 200
        {
            return answer.body["state"].as_str().map(str::to_owned);
        }
    }
    None
}

impl Troupe {
    fn gather(
        options: &Options,
        outlast: PathBuf,
        folder: PathBuf,
        downstream: SocketAddr,
        blind: bool,
    ) -> Result<Self, String> {
        let player = |address| Player { address, running: None, stopped: None, lives: 0 };
        let servers = (0..options.servers).map(|_| free_address().map(player)).collect::<Result<_, _>>()?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let workers = (0..options.workers).map(|_| player(nowhere)).collect();
        let mut troupe = Troupe {
            outlast,
            folder,
            servers,
            workers,
            downstream,
            blind,
            rng: Rng(options.seed),
            bill: Bill::default(),
        };
        // One after the other: the first makes the file.
        for at in 0..troupe.servers.len() {
            troupe.start_server(at)?;
            let Player { address, running, .. } = &mut troupe.servers[at];
            running.as_mut().map_or(Ok(Duration::ZERO), |running| running.wait_ready(*address, "/readyz"))?;
        }
        for at in 0..troupe.workers.len() {
            troupe.start_worker(at)?;
        }
        Ok(troupe)
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|server| server.address).collect()
    }

    /// The servers that are not stopped: asking the others takes until somebody wakes them.
    fn awake(&self) -> Vec<SocketAddr> {
        self.servers.iter().filter(|server| server.stopped.is_none()).map(|server| server.address).collect()
    }

    fn start_server(&mut self, at: usize) -> Result<(), String> {
        let folder = &self.folder;
        let server = &mut self.servers[at];
        server.lives += 1;
        let mut command = Command::new(&self.outlast);
        command
            .args(["serve", "--listen", &server.address.to_string(), "--config", "outlast.toml"])
            .current_dir(folder);
        for (name, value) in [("CRASH_CALLER", CALLER), ("CRASH_OPERATOR", OPERATOR), ("CRASH_REVIEWER", REVIEWER)] {
            command.env(name, value);
        }
        // Around every commit and every send, besides whatever kills it from outside.
        if !self.blind || server.lives > 1 {
            let chance = "0.002";
            let points = ["run.claimed", "ledger.intent", "tool.sent", "ledger.outcome", "run.waits", "run.finished"];
            let points: Vec<String> = points.iter().map(|point| format!("{point}:{chance}")).collect();
            command.env("OUTLAST_FAILPOINTS", points.join(","));
        }
        let log = folder.join(format!("server-{at}-{}.log", server.lives));
        server.running = Some(Running::start(&format!("server {at}"), &mut command, &log)?);
        server.stopped = None;
        Ok(())
    }

    fn start_worker(&mut self, at: usize) -> Result<(), String> {
        let servers: Vec<String> = self.addresses().iter().map(ToString::to_string).collect();
        let worker = &mut self.workers[at];
        worker.lives += 1;
        // Built anew beside a running one, this file is another by now; it speaks the same protocol.
        let mut command = Command::new(target_dir().join("debug/xtask"));
        // Random per process, never a host's name.
        let name = format!("w-{}-{at}-{}", self.rng.next(), worker.lives);
        let policy = if self.blind { "blind" } else { "ledger" };
        command.args(["crash-worker", &servers.join(","), &self.downstream.to_string(), CALLER, &name, policy]);
        let log = self.folder.join(format!("worker-{at}-{}.log", worker.lives));
        worker.running = Some(Running::start(&format!("worker {at}"), &mut command, &log)?);
        worker.stopped = None;
        Ok(())
    }

    /// Starts every run, whatever happens to the servers meanwhile.
    fn start_runs(&mut self, runs: usize) -> Result<Orders, String> {
        let key = format!("Bearer {CALLER}");
        let mut orders = Vec::new();
        for at in 0..runs + runs / 2 {
            let (order, by_worker) = (format!("o{at}"), at < runs);
            let body = if by_worker {
                json!({ "workflow": "crash", "queue": worker::QUEUE, "input": { "order_id": order } })
            } else {
                json!({ "workflow": "served", "input": { "order_id": order } })
            };
            let since = Instant::now();
            let run = loop {
                let server = self.servers[at % self.servers.len()].address;
                let headers = [("authorization", key.as_str()), ("idempotency-key", order.as_str())];
                match ask(server, "POST", "/v1/runs", &headers, &body.to_string(), Duration::from_secs(5)) {
                    Ok(answer) if matches!(answer.status, 200 | 201) => {
                        break answer.body["id"].as_str().map(str::to_owned);
                    }
                    Ok(answer) if answer.status < 500 => return Err(format!("a run was refused: {answer:?}")),
                    Ok(_) | Err(_) if since.elapsed() < PATIENCE => self.mind()?,
                    Ok(answer) => return Err(format!("a run could not be started: {answer:?}")),
                    Err(why) => return Err(format!("a run could not be started: {why}")),
                }
            };
            orders.push((run.ok_or("a run was started without a name")?, order));
        }
        Ok(Orders(orders))
    }

    /// Kills or stops one of them, at random, and starts again what is dead.
    fn hurt_somebody(&mut self) -> Result<(), String> {
        thread::sleep(Duration::from_millis(200 + self.rng.below(500)));
        self.mind()?;
        let victim = self.rng.below((self.servers.len() + self.workers.len()) as u64) as usize;
        let stops = self.rng.below(3) == 0;
        let pause = Duration::from_millis(500 + self.rng.below(5_000));
        let player = match victim.checked_sub(self.servers.len()) {
            None => &mut self.servers[victim],
            Some(at) => &mut self.workers[at],
        };
        if player.stopped.is_some() {
            return Ok(());
        }
        let Some(running) = &player.running else { return Ok(()) };
        if stops {
            signal(running.id(), "STOP");
            player.stopped = Some(Instant::now() + pause);
            self.bill.stops += 1;
        } else {
            // Dropping kills: SIGKILL.
            player.running = None;
            self.bill.kills += 1;
        }
        Ok(())
    }

    /// Wakes who has been stopped long enough, and replaces the dead.
    fn mind(&mut self) -> Result<(), String> {
        for at in 0..self.servers.len() {
            if self.servers[at].wakes_or_lives() {
                continue;
            }
            self.bill.restarts += 1;
            self.start_server(at)?;
        }
        for at in 0..self.workers.len() {
            if self.workers[at].wakes_or_lives() {
                continue;
            }
            self.bill.restarts += 1;
            self.start_worker(at)?;
        }
        Ok(())
    }

    fn heal(&mut self) -> Result<(), String> {
        for player in self.servers.iter_mut().chain(&mut self.workers) {
            player.stopped = player.stopped.map(|_| Instant::now());
        }
        self.mind()
    }
}

impl Player {
    /// True if it is alive, or stopped and not yet to be woken.
    fn wakes_or_lives(&mut self) -> bool {
        let Some(running) = &mut self.running else { return false };
        if self.stopped.is_some_and(|until| until <= Instant::now()) {
            signal(running.id(), "CONT");
            self.stopped = None;
        }
        running.lives()
    }
}

fn signal(process: u32, name: &str) {
    // A process that ended meanwhile is found to be dead by its owner.
    let _ = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status();
}

/// SplitMix64, so that a seed repeats the order of blows, if not their moments.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

/// One workflow that the servers do themselves, with a tool of every class.
fn config(provider: SocketAddr, downstream: SocketAddr, blind: bool) -> String {
    let class = |class: &str| if blind { "effect = \"pure\"".to_owned() } else { class.to_owned() };
    let tool = |name: &str, class: String, more: &str| {
        format!(
            "\n[tools.{name}]\nkind = \"http\"\nurl = \"http://{downstream}/{name}\"\n{class}\ntimeout = \"2s\"\n\
             retry = {{ attempts = 6, base = \"50ms\", cap = \"500ms\" }}\n{more}"
        )
    };
    let verify = format!(
        "verify = {{ url = \"http://{downstream}/tickets/find\", input = {{ order_id = \"{{{{ arguments.order_id }}}}\" }}, done = \"response.found\", result = \"response\" }}\n"
    );
    let mut text = format!(
        r#"
[server]
keys = ["${{CRASH_CALLER}}"]
admin_token = "${{CRASH_OPERATOR}}"

[store]
file = "outlast.db"
plaintext_payloads = true

[runs]
lease = "2s"

[reviewers.script]
key = "${{CRASH_REVIEWER}}"

[providers.openai]
kind = "openai"
base_url = "http://{provider}/v1"
api_key = "sk-crash"
probes = false

[routes.decider]
targets = ["openai/gpt-5.2"]
"#
    );
    text += &tool("orders", "effect = \"pure\"".into(), "");
    text += &tool("charge", class("effect = \"keyed\"\nkey_ttl = \"1h\""), "");
    text += &tool("record", class("effect = \"tx\""), "");
    text += &tool("ticket", class("effect = \"verify\"\nquiet_period = \"1s\""), if blind { "" } else { &verify });
    text += &tool("email", class("effect = \"once\""), "");
    text += "\n[workflows.served]\nversion = \"1\"\n";
    for (at, name) in ["orders", "charge", "record", "ticket", "email"].into_iter().enumerate() {
        if at == 1 {
            text += "\n[[workflows.served.steps]]\nname = \"decide\"\nkind = \"model\"\nroute = \"decider\"\n\
                     prompt = \"Refund {{ input.order_id }}?\"\n";
        }
        text += &format!(
            "\n[[workflows.served.steps]]\nname = \"{name}\"\nkind = \"tool\"\ntool = \"{name}\"\n\
             input = {{ order_id = \"{{{{ input.order_id }}}}\" }}\n"
        );
    }
    text
}
