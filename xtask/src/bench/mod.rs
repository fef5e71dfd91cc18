//! `cargo xtask bench`: what the gateway costs beside a bare hyper proxy, both before the same
//! upstream, in one run.
//!
//! Every figure is taken from both systems within the same second or two, round after round; a
//! ratio is the median of the rounds' ratios, so that a machine that slows down for a while slows
//! both. The bars are those of DESIGN section 10; only ratios are judged, absolute figures depend
//! on the machine. The gateway runs as users run it: caller keys, breakers, budgets, lineage on.

mod gateway;
mod load;
mod payload;
mod report;
pub(crate) mod servers;

use crate::process::{Running, free_address, target_dir, workspace_root};
use load::{Load, Took};
use payload::{Kind, Replies};
pub(crate) use report::record_between;
use report::{Report, Row};
use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

/// The measured figures, in the order they are printed.
const PHASES: [Phase; 5] = [
    Phase { name: "small", connections: 16, requests: 10_000, stream: false, size: 1_000 },
    Phase { name: "latency", connections: 1, requests: 2_500, stream: false, size: 1_000 },
    Phase { name: "throughput", connections: 64, requests: 25_000, stream: false, size: 1_000 },
    Phase { name: "stream", connections: 32, requests: 640, stream: true, size: 1_000 },
    Phase { name: "large", connections: 8, requests: 1_000, stream: false, size: 200_000 },
];

/// One burst of load, the same for every system.
struct Phase {
    name: &'static str,
    connections: usize,
    requests: usize,
    stream: bool,
    size: usize,
}

struct Options {
    rounds: usize,
    /// Divides the requests of every burst.
    shrink: usize,
    only: Vec<String>,
    record: bool,
    /// A second proxy stands in the gateway's place: shows the noise, every ratio should be 1.
    null: bool,
    /// Measures the binaries that are there.
    no_build: bool,
}

impl Options {
    fn parse(args: &[&str]) -> Result<Self, String> {
        let mut options = Self { rounds: 15, shrink: 1, only: Vec::new(), record: false, null: false, no_build: false };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match *arg {
                "--quick" => (options.rounds, options.shrink) = (3, 4),
                "--no-build" => options.no_build = true,
                "--null" => options.null = true,
                "--record" => options.record = true,
                "--rounds" => {
                    let rounds = args.next().and_then(|n| n.parse().ok()).filter(|rounds| *rounds > 0);
                    options.rounds = rounds.ok_or("--rounds needs a positive number")?;
                }
                "--only" => {
                    let name = args.next().ok_or("--only needs a phase")?;
                    if !PHASES.iter().any(|phase| phase.name == *name) {
                        return Err(format!(
                            "no phase {name}; there are {}",
                            PHASES.map(|phase| phase.name).join(", ")
                        ));
                    }
                    options.only.push((*name).to_owned());
                }
                other => return Err(format!("bench does not know {other}")),
            }
        }
        Ok(options)
    }

    fn wants(&self, phase: &Phase) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == phase.name)
    }
}

/// Builds in release, runs the benchmark, prints the table, writes `bench.json` in the target
/// folder.
///
/// # Errors
/// A build or a process failed, or a reply was not what the upstream sent. A missed bar is
/// reported, not an error: bars are judged by people, on a quiet machine.
pub(crate) fn run(args: &[&str]) -> Result<(), String> {
    let options = Options::parse(args)?;
    if !options.no_build {
        build()?;
    }
    let start = Instant::now();
    let bench = Bench::start(options.null)?;
    let mut report = Report::new();
    report.push_all(bench.startup()?);
    report.push_all(bench.idle_memory()?);
    for phase in PHASES.iter().filter(|phase| options.wants(phase)) {
        eprintln!("{:>7.1} s  {} ({} rounds)", start.elapsed().as_secs_f64(), phase.name, options.rounds);
        report.push_all(bench.measure(phase, &options)?);
    }
    report.push_all(bench.loaded_memory()?);
    eprintln!("{:>7.1} s  done", start.elapsed().as_secs_f64());
    let table = report.table();
    println!("{table}");
    let json = target_dir().join("bench.json");
    fs::write(&json, report.json()).map_err(|error| format!("{}: {error}", json.display()))?;
    if options.record {
        report::record(&workspace_root().join("docs/performance.md"), &table)?;
    }
    Ok(())
}

/// One release build of both binaries: this one again, because the floor must be optimised too.
fn build() -> Result<(), String> {
    eprintln!("    0.0 s  cargo build --release");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--package", "outlast", "--package", "xtask"])
        .current_dir(workspace_root())
        .status()
        .map_err(|error| format!("cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo build --release: {status}")) }
}

/// A system under test.
struct System {
    name: &'static str,
    address: SocketAddr,
    process: Running,
}

/// The three processes and what to compare replies with.
struct Bench {
    upstream: System,
    proxy: System,
    gateway: System,
    replies: Replies,
    starter: Starter,
}

impl Bench {
    fn start(null: bool) -> Result<Self, String> {
        let folder = target_dir().join("bench");
        // Logs and call records of earlier runs.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let address = free_address()?;
        let mut command = Command::new(target_dir().join("release/xtask"));
        command.args(["bench-upstream", &address.to_string()]);
        let mut process = Running::start("upstream", &mut command, &folder.join("upstream.log"))?;
        process.wait_ready(address, "/")?;
        let starter = Starter { folder, upstream: address, null };
        Ok(Self {
            upstream: System { name: "upstream", address, process },
            proxy: starter.proxy()?.0,
            gateway: starter.gateway()?.0,
            replies: Replies::new(),
            starter,
        })
    }

    /// The time from spawn until the first answer, over several starts.
    fn startup(&self) -> Result<Vec<Row>, String> {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..5 {
            times[0].push(self.starter.proxy()?.1);
            times[1].push(self.starter.gateway()?.1);
        }
        let [proxy, gateway] = times.map(|times| median(times.iter().map(Duration::as_secs_f64).collect()) * 1e3);
        Ok(vec![Row::absolute("ready after start", "ms", proxy, gateway, report::Bar::AtMost(50.0))])
    }

    fn idle_memory(&self) -> Result<Vec<Row>, String> {
        self.memory("RSS idle", 25.0)
    }

    fn loaded_memory(&self) -> Result<Vec<Row>, String> {
        self.memory("RSS after load", 45.0)
    }

    fn memory(&self, name: &'static str, bar: f64) -> Result<Vec<Row>, String> {
        // Far below 2^52 bytes.
        #[allow(clippy::cast_precision_loss)]
        let mb = |system: &System| system.process.rss().map(|bytes| bytes as f64 / 1e6);
        Ok(vec![Row::absolute(name, "MB", mb(&self.proxy)?, mb(&self.gateway)?, report::Bar::AtMost(bar))])
    }

    /// All rounds of one phase, and the rows it yields.
    fn measure(&self, phase: &Phase, options: &Options) -> Result<Vec<Row>, String> {
        let mut rounds = Vec::new();
        let order = [&self.proxy, &self.gateway];
        for system in order {
            self.burst(system, phase, options.shrink * 4)?;
        }
        for round in 0..options.rounds {
            let direct =
                if phase.name == "latency" { Some(self.burst(&self.upstream, phase, options.shrink)?) } else { None };
            // Who goes first alternates, so that neither always follows a hot or a cold machine.
            let (proxy, gateway) = if round % 2 == 0 {
                let proxy = self.burst(&self.proxy, phase, options.shrink)?;
                (proxy, self.burst(&self.gateway, phase, options.shrink)?)
            } else {
                let gateway = self.burst(&self.gateway, phase, options.shrink)?;
                (self.burst(&self.proxy, phase, options.shrink)?, gateway)
            };
            rounds.push(Round { direct, proxy, gateway });
        }
        Ok(rows(phase, &rounds))
    }

    fn burst(&self, system: &System, phase: &Phase, shrink: usize) -> Result<Burst, String> {
        let requests = (phase.requests / shrink).max(phase.connections);
        let kind = if phase.stream { Kind::Stream { usage: false } } else { Kind::Whole };
        let load = Load {
            address: system.address,
            connections: phase.connections,
            requests,
            body: payload::request(gateway::ROUTE, phase.stream, phase.size),
            expected: self.replies.expected(kind),
        };
        let before = system.process.cpu()?;
        let took = load::run(&load).map_err(|error| {
            let ended = [&self.upstream, &self.proxy, &self.gateway].map(|one| one.process.end());
            format!("{} through {}: {error}\n{}", phase.name, system.name, ended.concat())
        })?;
        let cpu = system.process.cpu()?.saturating_sub(before);
        Ok(Burst { requests, cpu, took })
    }
}

/// Starts the systems under test; says how long each took until its first answer.
struct Starter {
    folder: PathBuf,
    upstream: SocketAddr,
    null: bool,
}

impl Starter {
    fn proxy(&self) -> Result<(System, Duration), String> {
        let address = free_address()?;
        let mut command = Command::new(target_dir().join("release/xtask"));
        command.args(["bench-proxy", &address.to_string(), &self.upstream.to_string()]);
        self.start("proxy", address, &mut command, "/")
    }

    fn gateway(&self) -> Result<(System, Duration), String> {
        if self.null {
            return self.proxy();
        }
        let address = free_address()?;
        let config = self.folder.join("outlast.toml");
        fs::write(&config, gateway::config(address, self.upstream))
            .map_err(|error| format!("{}: {error}", config.display()))?;
        let mut command = Command::new(target_dir().join("release/outlast"));
        command.arg("serve").arg("--config").arg(&config).current_dir(&self.folder);
        command.env(gateway::KEY_VARIABLE, load::CALLER_KEY);
        self.start("gateway", address, &mut command, "/readyz")
    }

    fn start(
        &self,
        name: &'static str,
        address: SocketAddr,
        command: &mut Command,
        ready_path: &str,
    ) -> Result<(System, Duration), String> {
        let log = self.folder.join(format!("{name}-{}.log", address.port()));
        let mut process = Running::start(name, command, &log)?;
        let ready = process.wait_ready(address, ready_path)?;
        Ok((System { name, address, process }, ready))
    }
}

/// One burst through one system.
struct Burst {
    requests: usize,
    cpu: Duration,
    took: Took,
}

impl Burst {
    fn cpu_per_request(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / count(self.requests)
    }

    fn requests_per_second(&self) -> f64 {
        count(self.requests) / self.took.elapsed.as_secs_f64()
    }

    fn micros(&self, quantile: f64) -> f64 {
        self.took.quantile(quantile).as_secs_f64() * 1e6
    }
}

/// The same burst through every system, one after the other.
struct Round {
    direct: Option<Burst>,
    proxy: Burst,
    gateway: Burst,
}

/// What each phase is measured for, with its bar.
fn rows(phase: &Phase, rounds: &[Round]) -> Vec<Row> {
    use report::Bar::{AtLeast, AtMost};
    let row = |name, unit, bar, figure: &dyn Fn(&Burst) -> f64| {
        let pairs = rounds.iter().map(|round| (figure(&round.proxy), figure(&round.gateway))).collect();
        Row::ratio(name, unit, pairs, bar)
    };
    let added = |name, bar, quantile: f64| {
        let over = |burst: &Burst, direct: &Option<Burst>| {
            burst.micros(quantile) - direct.as_ref().map_or(0.0, |direct| direct.micros(quantile))
        };
        let pairs = rounds
            .iter()
            .map(|round| (over(&round.proxy, &round.direct), over(&round.gateway, &round.direct)))
            .collect();
        Row::ratio(name, "us", pairs, bar)
    };
    match phase.name {
        "small" => vec![row("CPU per 1 KB request", "us", AtMost(1.5), &Burst::cpu_per_request)],
        "latency" => {
            vec![
                added("added p50, concurrency 1", AtMost(2.5), 0.5),
                added("added p99, concurrency 1", AtMost(4.0), 0.99),
            ]
        }
        "throughput" => {
            vec![row("requests per second, 64 connections", "/s", AtLeast(0.7), &Burst::requests_per_second)]
        }
        "stream" => {
            let per_token = |burst: &Burst| burst.cpu_per_request() / count(payload::STREAM_TOKENS);
            vec![row("CPU per streamed token", "us", AtMost(1.3), &per_token)]
        }
        _ => vec![row("CPU per 200 KB request", "us", AtMost(1.6), &Burst::cpu_per_request)],
    }
}

/// A count as a divisor.
#[allow(clippy::cast_precision_loss)] // Far below 2^52.
fn count(n: usize) -> f64 {
    n as f64
}

/// The middle value; of an even number, the lower of the two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}
