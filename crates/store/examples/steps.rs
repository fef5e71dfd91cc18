//! What durable steps cost: `cargo run --release -p outlast-store --example steps`.
//!
//! Prints one line of JSON. A step is its begin and its end, each answered after its commit.
//!
//! ```text
//! steps [steps|long|idle] [--memory] [--runs N] [--steps N] [--bytes N] [--dir PATH] [--plaintext]
//!   steps   many runs side by side (64 x 200 steps of 1 KB): steps/s, p50 and p99 of a step
//!   long    one run of many steps (10,000): the same, and what reading its journal takes
//!   idle    many runs that wait (100,000): what a claim takes beside them, and the memory
//! ```

use outlast_engine::run::Ended;
use outlast_model::{
    Usd, Wall,
    policy::Priority,
    run::{EffectClass, RetryBudget, StepKind},
};
use outlast_store::{
    BeginStep, ClaimRun, ClaimedRun, Clock, DataKey, EndStep, IfParked, JournalPage, Limits, MemoryStore, Payload,
    Place, RunRef, Sealing, SqliteOptions, SqliteStore, StartRun, StepBegun, StepEnded, Store, WaitRun, Waited,
};
use std::{
    env, fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const LEASE: Duration = Duration::from_secs(600);

#[derive(Debug)]
struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Wall {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Wall(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

struct Options {
    mode: String,
    memory: bool,
    plaintext: bool,
    runs: Option<usize>,
    steps: Option<usize>,
    bytes: usize,
    dir: PathBuf,
}

impl Options {
    fn parse() -> Result<Self, Failure> {
        let mut options = Options {
            mode: "steps".into(),
            memory: false,
            plaintext: false,
            runs: None,
            steps: None,
            bytes: 1024,
            dir: env::temp_dir(),
        };
        let mut args = env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| Failure::from(format!("{arg} needs a value")));
            match arg.as_str() {
                "steps" | "long" | "idle" => options.mode = arg,
                "--memory" => options.memory = true,
                "--plaintext" => options.plaintext = true,
                "--runs" => options.runs = Some(value()?.parse()?),
                "--steps" => options.steps = Some(value()?.parse()?),
                "--bytes" => options.bytes = value()?.parse()?,
                "--dir" => options.dir = value()?.into(),
                other => return Err(format!("no such argument: {other}").into()),
            }
        }
        Ok(options)
    }
}

fn main() -> Result<(), Failure> {
    let options = Options::parse()?;
    let home = options.dir.join(format!("outlast-steps-{}", std::process::id()));
    fs::create_dir_all(&home)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    let measured = open(&options, &home).and_then(|store| match options.mode.as_str() {
        "long" => runtime.block_on(long(store, &options)),
        "idle" => runtime.block_on(idle(store, &options)),
        _ => runtime.block_on(many(store, &options)),
    });
    fs::remove_dir_all(&home)?;
    println!("{}", measured?);
    Ok(())
}

fn open(options: &Options, home: &std::path::Path) -> Result<Arc<dyn Store>, Failure> {
    let clock = Arc::new(SystemClock);
    if options.memory {
        return Ok(Arc::new(MemoryStore::new(Limits::FILE, clock)));
    }
    let sealing = match options.plaintext {
        true => Sealing::Plaintext,
        false => Sealing::Keys(vec![DataKey::new(&[7; 32])]),
    };
    Ok(Arc::new(SqliteStore::open(&home.join("store.db"), SqliteOptions::new(sealing), clock)?))
}

fn name(id: &str) -> RunRef {
    RunRef { tenant: "bench".into(), id: outlast_model::RunId::new(id) }
}

async fn start(store: &dyn Store, id: &str, queue: &str, bytes: usize) -> Result<(), Failure> {
    let run = StartRun {
        run: name(id),
        key: None,
        queue: queue.into(),
        workflow: "bench".into(),
        version: "1".into(),
        priority: Priority::Normal,
        after: Duration::ZERO,
        deadline: None,
        cost_max: None,
        unclaimed: false,
        input: Payload::from(vec![b'i'; bytes]),
    };
    store.start_run(run).await?;
    Ok(())
}

async fn claim(store: &dyn Store, queue: &str) -> Result<Option<ClaimedRun>, Failure> {
    let claim = ClaimRun {
        tenant: None,
        worker: "bench".into(),
        queues: vec![queue.into()],
        accepts: Vec::new(),
        lease: LEASE,
        standby: false,
        journal: 100,
        if_parked: if_parked("poison"),
    };
    Ok(store.claim_run(claim).await?)
}

fn if_parked(id: &str) -> IfParked {
    IfParked { id: id.into(), question: "?".into(), context: Payload::default(), answer_within: None }
}

/// One step, begun and ended. How long that took.
async fn step(store: &dyn Store, run: &ClaimedRun, number: usize, bytes: usize) -> Result<Duration, Failure> {
    let place = Place::Step { run: run.run.run.clone(), key: format!("step-{number}").into() };
    let begin = BeginStep {
        place: place.clone(),
        journal: None,
        epoch: Some(run.epoch),
        fence: None,
        lease: LEASE,
        kind: StepKind::Code,
        name: "bench".into(),
        class: EffectClass::Pure,
        fingerprint: [number as u8; 32],
        input: Payload::from(vec![b'q'; bytes / 4]),
        budget: RetryBudget::default(),
        call_deadline: Duration::from_secs(60),
        needs_approval: false,
        strict: false,
        undo: None,
        undoes: None,
        if_parked: if_parked("never"),
    };
    let begun = Instant::now();
    let StepBegun::Execute { attempt, epoch, .. } = store.begin_step(begin).await? else {
        return Err("a step was not begun".into());
    };
    let end = EndStep {
        place,
        epoch,
        attempt,
        ended: Ended::Done,
        payload: Payload::from(vec![b'a'; bytes]),
        cost: Usd::ZERO,
        lease: LEASE,
        if_parked: if_parked("never"),
    };
    match store.end_step(end).await? {
        StepEnded::Done => Ok(begun.elapsed()),
        other @ (StepEnded::Failed
        | StepEnded::Again { .. }
        | StepEnded::Unknown { .. }
        | StepEnded::Parked { .. }
        | StepEnded::Stale) => Err(format!("a step did not end: {other:?}").into()),
    }
}

/// Many runs side by side.
async fn many(store: Arc<dyn Store>, options: &Options) -> Result<String, Failure> {
    let (runs, steps, bytes) = (options.runs.unwrap_or(64), options.steps.unwrap_or(200), options.bytes);
    for run in 0..runs {
        start(&*store, &format!("run-{run}"), "bench", bytes).await?;
    }
    let mut claimed = Vec::new();
    while let Some(run) = claim(&*store, "bench").await? {
        claimed.push(run);
    }
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for run in claimed {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let mut took = Vec::with_capacity(steps);
            for number in 0..steps {
                took.push(step(&*store, &run, number, bytes).await?);
            }
            Ok::<_, Failure>(took)
        });
    }
    let mut took = Vec::with_capacity(runs * steps);
    while let Some(done) = tasks.join_next().await {
        took.extend(done??);
    }
    let wall = begun.elapsed();
    Ok(told(options, runs, &mut took, wall, ""))
}

/// One run of many steps.
async fn long(store: Arc<dyn Store>, options: &Options) -> Result<String, Failure> {
    let (steps, bytes) = (options.steps.unwrap_or(10_000), options.bytes);
    start(&*store, "long", "bench", bytes).await?;
    let run = claim(&*store, "bench").await?.ok_or("nothing to claim")?;
    let begun = Instant::now();
    let mut took = Vec::with_capacity(steps);
    for number in 0..steps {
        took.push(step(&*store, &run, number, bytes).await?);
    }
    let wall = begun.elapsed();
    let late = median(&mut took[steps - steps.div_ceil(10)..].to_vec());
    let early = median(&mut took[..steps.div_ceil(10)].to_vec());
    let reading = Instant::now();
    let (mut after, mut read) = (Some(0), 0);
    while let Some(from) = after {
        let page = store.journal(run.run.run.clone(), from, JournalPage::LARGEST).await?;
        read += page.steps.len();
        after = page.next;
    }
    let more = format!(
        r#","first_tenth_p50_us":{},"last_tenth_p50_us":{},"journal_steps":{read},"journal_ms":{}"#,
        early.as_micros(),
        late.as_micros(),
        reading.elapsed().as_millis()
    );
    Ok(told(options, 1, &mut took, wall, &more))
}

/// Many runs that wait for a signal, and a few that can be claimed.
async fn idle(store: Arc<dyn Store>, options: &Options) -> Result<String, Failure> {
    let (runs, claims) = (options.runs.unwrap_or(100_000), 500);
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for lane in 0..64 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for run in (lane..runs).step_by(64) {
                park(&*store, run, lane).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let filled = begun.elapsed();
    for run in 0..claims {
        start(&*store, &format!("due-{run}"), "idle-0", 0).await?;
    }
    let mut took = Vec::with_capacity(claims);
    for _ in 0..claims {
        let begun = Instant::now();
        claim(&*store, "idle-0").await?.ok_or("nothing to claim")?;
        took.push(begun.elapsed());
    }
    let nothing = Instant::now();
    if claim(&*store, "idle-0").await?.is_some() {
        return Err("an idle run was claimed".into());
    }
    let nothing = nothing.elapsed();
    took.sort_unstable();
    Ok(format!(
        r#"{{"mode":"idle","store":"{}","runs":{runs},"fill_s":{:.1},"claim_p50_us":{},"claim_p99_us":{},"claim_of_nothing_us":{},"rss_mb":{:.1}}}"#,
        backend(options),
        filled.as_secs_f64(),
        at(&took, 0.5).as_micros(),
        at(&took, 0.99).as_micros(),
        nothing.as_micros(),
        rss_mb()
    ))
}

/// Starts a run, claims one of the same lane, and lets it wait.
async fn park(store: &dyn Store, run: usize, lane: usize) -> Result<(), Failure> {
    let queue = format!("idle-{lane}");
    start(store, &format!("idle-{run}"), &queue, 0).await?;
    let claimed = claim(store, &queue).await?.ok_or("nothing to claim")?;
    let wait = WaitRun {
        run: claimed.run.run,
        epoch: claimed.epoch,
        key: "paid".into(),
        signals: vec!["paid".into()],
        timer: None,
    };
    match store.wait_run(wait).await? {
        Waited::Parked => Ok(()),
        other @ (Waited::Signal { .. } | Waited::Timer | Waited::Mismatch | Waited::Refused(_)) => {
            Err(format!("a run does not wait: {other:?}").into())
        }
    }
}

fn backend(options: &Options) -> &'static str {
    if options.memory { "memory" } else { "sqlite" }
}

fn told(options: &Options, runs: usize, took: &mut [Duration], wall: Duration, more: &str) -> String {
    took.sort_unstable();
    format!(
        r#"{{"mode":"{}","store":"{}","runs":{runs},"steps":{},"bytes":{},"steps_per_s":{:.0},"step_p50_us":{},"step_p99_us":{},"rss_mb":{:.1}{more}}}"#,
        options.mode,
        backend(options),
        took.len(),
        options.bytes,
        took.len() as f64 / wall.as_secs_f64(),
        at(took, 0.5).as_micros(),
        at(took, 0.99).as_micros(),
        rss_mb()
    )
}

fn median(took: &mut [Duration]) -> Duration {
    took.sort_unstable();
    at(took, 0.5)
}

/// The value below which this share of the sorted ones lies.
fn at(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get(((last as f64) * share).round() as usize).copied().unwrap_or_default()
}

/// What the process holds in memory, where the system tells.
fn rss_mb() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").trim().parse::<f64>().unwrap_or_default() / 1024.0
}
