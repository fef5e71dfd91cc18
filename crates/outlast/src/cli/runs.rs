//! `outlast runs`: durable runs of a running server, looked at and acted upon over its API.

use super::{
    ConfigArg, Exit, out, readable,
    remote::{Remote, RemoteArgs, fine},
};
use crate::clock::Clock;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// The longest one request waits for a result, in seconds.
const WAIT_AT_ONCE: u64 = 20;

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum RunsCommand {
    /// The latest runs, the newest first
    List(ListArgs),
    /// One run: where it stands, who holds it, what it waits for
    Show(OneArgs),
    /// What a run has done, step by step
    Journal(JournalArgs),
    /// Start a run
    Start(Box<StartArgs>),
    /// Tell a run something it waits for, or will
    Signal(SignalArgs),
    /// How a run ended, once it has
    Result(ResultArgs),
    /// End a run; what it did is undone first
    Cancel(OneArgs),
    /// Move a run that nobody holds to another version of its workflow
    Migrate(MigrateArgs),
}

/// Which server, and how to answer.
#[derive(Clone, Debug, Args)]
pub struct AskArgs {
    /// Where the config is.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Which server.
    #[command(flatten)]
    pub remote: RemoteArgs,
    /// With the admin token: whose runs
    #[arg(long)]
    pub tenant: Option<String>,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `runs list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Which server.
    #[command(flatten)]
    pub ask: AskArgs,
    /// Only those in this state: ready, running, waiting, parked, quarantined, done, failed or cancelled
    #[arg(long)]
    pub state: Option<String>,
    /// Only those of this queue
    #[arg(long)]
    pub queue: Option<String>,
    /// Only those of this workflow
    #[arg(long)]
    pub workflow: Option<String>,
    /// At most so many
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub limit: u32,
}

/// Arguments of commands about one run.
#[derive(Clone, Debug, Args)]
pub struct OneArgs {
    /// Which run
    pub id: String,
    /// Which server.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Arguments of `runs journal`.
#[derive(Clone, Debug, Args)]
pub struct JournalArgs {
    /// Which run.
    #[command(flatten)]
    pub one: OneArgs,
    /// Only what follows the step of this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub after: u64,
    /// At most so many
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub limit: u32,
}

/// Arguments of `runs start`.
#[derive(Clone, Debug, Args)]
pub struct StartArgs {
    /// What is to be done: a workflow of the config, or one that workers know
    pub workflow: String,
    /// Which server.
    #[command(flatten)]
    pub ask: AskArgs,
    /// What it works on
    #[arg(long, value_name = "JSON", value_parser = document, conflicts_with = "input_file")]
    pub input: Option<Value>,
    /// A file with what it works on, as JSON
    #[arg(long, value_name = "FILE")]
    pub input_file: Option<PathBuf>,
    /// Its name; starting it again under the same name starts nothing new [default: the server chooses one]
    #[arg(long)]
    pub id: Option<String>,
    /// Whose workers do it
    #[arg(long)]
    pub queue: Option<String>,
    /// Of which version
    #[arg(long = "at-version", value_name = "VERSION")]
    pub version: Option<String>,
    /// critical, high, normal or low
    #[arg(long)]
    pub priority: Option<String>,
    /// Nobody claims it before this has passed, in seconds
    #[arg(long, value_name = "SECONDS")]
    pub after: Option<f64>,
    /// Nothing begins later than this after its start, in seconds
    #[arg(long, value_name = "SECONDS")]
    pub deadline: Option<f64>,
    /// Nothing begins once it has spent so much
    #[arg(long, value_name = "USD")]
    pub cost_max: Option<f64>,
}

/// Arguments of `runs signal`.
#[derive(Clone, Debug, Args)]
pub struct SignalArgs {
    /// Which run.
    #[command(flatten)]
    pub one: OneArgs,
    /// What the run waits for
    pub name: String,
    /// What it carries
    #[arg(long, value_name = "JSON", value_parser = document)]
    pub payload: Option<Value>,
    /// The signal's own name: the same again is the same signal [default: a new one]
    #[arg(long, value_name = "ID")]
    pub dedupe: Option<String>,
}

/// Arguments of `runs result`.
#[derive(Clone, Debug, Args)]
pub struct ResultArgs {
    /// Which run.
    #[command(flatten)]
    pub one: OneArgs,
    /// Wait for its end, so many seconds at most
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub wait: u64,
}

/// Arguments of `runs migrate`.
#[derive(Clone, Debug, Args)]
pub struct MigrateArgs {
    /// Which run.
    #[command(flatten)]
    pub one: OneArgs,
    /// To which version
    pub version: String,
}

fn document(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))
}

/// Runs the command.
pub fn run(command: RunsCommand) -> Exit {
    let done = match command {
        RunsCommand::List(args) => list(&args),
        RunsCommand::Show(args) => show(&args),
        RunsCommand::Journal(args) => journal(&args),
        RunsCommand::Start(args) => start(&args),
        RunsCommand::Signal(args) => signal(&args),
        RunsCommand::Result(args) => result(&args),
        RunsCommand::Cancel(args) => act(&args, "cancel", &json!({}), |answer| text(&answer["state"])),
        RunsCommand::Migrate(args) => {
            let said =
                |answer: &Value| format!("{} is of version {} now", text(&answer["id"]), text(&answer["version"]));
            act(&args.one, "migrate", &json!({ "version": args.version }), said)
        }
    };
    done.unwrap_or_else(|exit| exit)
}

impl AskArgs {
    pub(super) fn server(&self) -> Result<Remote, Exit> {
        self.remote.caller(&self.config)
    }

    /// A path with these parameters.
    pub(super) fn path(&self, path: &str, parameters: &[(&str, Option<String>)]) -> String {
        let tenant = [("tenant", self.tenant.clone())];
        let given = parameters.iter().chain(&tenant).filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let query: Vec<String> = given.map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
    }
}

impl OneArgs {
    fn path(&self, under: &str, parameters: &[(&str, Option<String>)]) -> String {
        self.ask.path(&format!("/v1/runs/{}{under}", escaped(&self.id)), parameters)
    }
}

/// Text as a part of a path or query.
pub(super) fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// A field as a cell; empty if there is nothing.
pub(super) fn text(value: &Value) -> String {
    match value.as_str() {
        Some(text) => readable(text),
        None if value.is_null() => String::new(),
        None => value.to_string(),
    }
}

pub(super) fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    format!("{table}\n")
}

pub(super) fn whole(answer: &Value) -> Exit {
    out(&format!("{answer:#}\n"))
}

fn list(args: &ListArgs) -> Result<Exit, Exit> {
    let path = args.ask.path(
        "/v1/runs",
        &[
            ("state", args.state.clone()),
            ("queue", args.queue.clone()),
            ("workflow", args.workflow.clone()),
            ("limit", Some(args.limit.to_string())),
        ],
    );
    let answer = args.ask.server()?.get(&path)?;
    if args.ask.json {
        return Ok(whole(&answer));
    }
    let runs = answer["runs"].as_array().cloned().unwrap_or_default();
    let header = ["ID", "WORKFLOW", "VERSION", "QUEUE", "STATE", "STEPS", "AT", "WORKER", "UPDATED"];
    let row = |run: &Value| {
        let fields = ["id", "workflow", "version", "queue", "state", "steps", "at", "worker", "updated_at"];
        let cell = |field: &&str| match *field {
            // Where it is: what it waits at, else what it did last.
            "at" => text(if run["waits_at"].is_null() { &run["last_step"] } else { &run["waits_at"] }),
            field => text(&run[field]),
        };
        fields.iter().map(cell).collect()
    };
    Ok(out(&table(&header, runs.iter().map(row))))
}

fn show(args: &OneArgs) -> Result<Exit, Exit> {
    let answer = args.ask.server()?.get(&args.path("", &[]))?;
    if args.ask.json {
        return Ok(whole(&answer));
    }
    let fields = answer.as_object().cloned().unwrap_or_default();
    let told = fields.iter().filter(|(_, value)| !value.is_null() && **value != json!([]) && **value != json!(false));
    Ok(out(&table(&["FIELD", "VALUE"], told.map(|(name, value)| vec![name.clone(), text(value)]))))
}

fn journal(args: &JournalArgs) -> Result<Exit, Exit> {
    let parameters = [("after", Some(args.after.to_string())), ("limit", Some(args.limit.to_string()))];
    let answer = args.one.ask.server()?.get(&args.one.path("/journal", &parameters))?;
    if args.one.ask.json {
        return Ok(whole(&answer));
    }
    let steps = answer["steps"].as_array().cloned().unwrap_or_default();
    let row = |step: &Value| {
        // A class with settings is an object of one field.
        let settings = step["class"].as_object().and_then(|class| class.keys().next());
        let class = settings.map_or_else(|| text(&step["class"]), Clone::clone);
        let told = ["sequence", "key", "kind", "name", "class", "state", "attempts", "spent_usd", "begun_at"];
        told.iter().map(|field| if *field == "class" { class.clone() } else { text(&step[*field]) }).collect()
    };
    let header = ["#", "KEY", "KIND", "NAME", "CLASS", "STATE", "ATTEMPTS", "USD", "BEGUN"];
    let more = answer["next"].as_i64().map_or_else(String::new, |next| format!("There is more: --after {next}\n"));
    Ok(out(&(table(&header, steps.iter().map(row)) + &more)))
}

fn start(args: &StartArgs) -> Result<Exit, Exit> {
    let mut body = Map::new();
    body.insert("workflow".into(), json!(args.workflow));
    let mut put = |name: &str, value: Option<Value>| {
        value.into_iter().for_each(|value| {
            body.insert(name.into(), value);
        });
    };
    put("input", input(args)?);
    put("id", args.id.as_ref().map(|id| json!(id)));
    put("queue", args.queue.as_ref().map(|queue| json!(queue)));
    put("version", args.version.as_ref().map(|version| json!(version)));
    put("priority", args.priority.as_ref().map(|priority| json!(priority)));
    put("after_s", args.after.map(|after| json!(after)));
    put("deadline_s", args.deadline.map(|deadline| json!(deadline)));
    put("cost_max_usd", args.cost_max.map(|cost| json!(cost)));
    let path = args.ask.path("/v1/runs", &[]);
    let answer = args.ask.server()?.post(&path, &Value::Object(body)).and_then(fine)?;
    Ok(if args.ask.json { whole(&answer) } else { out(&format!("{}\n", text(&answer["id"]))) })
}

fn input(args: &StartArgs) -> Result<Option<Value>, Exit> {
    let Some(file) = &args.input_file else { return Ok(args.input.clone()) };
    let text = std::fs::read_to_string(file).map_err(|error| {
        eprintln!("outlast: {}: {error}", file.display());
        Exit::NoInput
    })?;
    document(&text).map(Some).map_err(|why| {
        eprintln!("outlast: {}: {why}", file.display());
        Exit::NoInput
    })
}

fn signal(args: &SignalArgs) -> Result<Exit, Exit> {
    let dedupe = match &args.dedupe {
        Some(dedupe) => dedupe.clone(),
        None => Clock::start().secret().ok_or(Exit::Internal)?,
    };
    let body = json!({ "name": args.name, "id": dedupe, "payload": args.payload });
    let said = |answer: &Value| match answer["first"].as_bool() {
        Some(true) => "taken".to_owned(),
        Some(false) | None => "it had been taken before".to_owned(),
    };
    act(&args.one, "signals", &body, said)
}

fn act(args: &OneArgs, what: &str, body: &Value, said: impl Fn(&Value) -> String) -> Result<Exit, Exit> {
    let answer = args.ask.server()?.post(&args.path(&format!("/{what}"), &[]), body).and_then(fine)?;
    Ok(if args.ask.json { whole(&answer) } else { out(&format!("{}\n", said(&answer))) })
}

fn result(args: &ResultArgs) -> Result<Exit, Exit> {
    let server = args.one.ask.server()?;
    let mut left = args.wait;
    let answer = loop {
        let wait = left.min(WAIT_AT_ONCE);
        left -= wait;
        let answer = server.get(&args.one.path("/result", &[("wait_s", Some(wait.to_string()))]))?;
        let has_ended = answer.get("output").is_some() || answer.get("error").is_some();
        if has_ended || left == 0 {
            break answer;
        }
    };
    let printed = whole(&answer);
    Ok(if answer["state"] == "done" || printed != Exit::Ok { printed } else { Exit::Failed })
}
