//! `cargo xtask test`: every test there is, in one command, the same here and in the CI.
//!
//! All steps run even after one failed, so that one run tells everything; a step that cannot run
//! because a program is missing fails and says what to install. Nothing is skipped silently.

use crate::{
    clients, crash,
    process::{target_dir, workspace_root},
};
use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// One part of the whole.
struct Step {
    name: &'static str,
    run: fn(&mut Context) -> Result<(), String>,
    /// Whether `--quick` runs it.
    quick: bool,
}

const STEPS: &[Step] = &[
    Step { name: "format", run: format, quick: true },
    Step { name: "lint", run: lint, quick: true },
    Step { name: "tests", run: tests, quick: true },
    Step { name: "doc-tests", run: doc_tests, quick: true },
    Step { name: "docs", run: docs, quick: false },
    Step { name: "deny", run: deny, quick: false },
    Step { name: "build", run: build, quick: false },
    Step { name: "clients", run: client_suites, quick: false },
    Step { name: "crash", run: crash, quick: false },
    Step { name: "demo", run: demo, quick: false },
];

/// What the steps know and find out.
struct Context {
    quick: bool,
    clients: clients::Tally,
    notes: Vec<String>,
}

/// Runs the steps and prints a summary.
///
/// # Errors
/// A step failed, or the arguments are not understood.
pub(crate) fn run(args: &[&str]) -> Result<(), String> {
    let (quick, only) = parse(args)?;
    let wanted = |step: &&Step| (!quick || step.quick) && (only.is_empty() || only.contains(&step.name));
    let steps: Vec<&Step> = STEPS.iter().filter(wanted).collect();
    let mut context = Context { quick, clients: clients::Tally::default(), notes: Vec::new() };
    let start = Instant::now();
    let mut results = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        println!("==> [{}/{}] {} (at {})", index + 1, steps.len(), step.name, seconds(start.elapsed()));
        let began = Instant::now();
        let result = (step.run)(&mut context);
        let took = began.elapsed();
        match &result {
            Ok(()) => println!("<== {} ok, {}", step.name, seconds(took)),
            Err(why) => println!("<== {} FAILED, {}: {why}", step.name, seconds(took)),
        }
        results.push((step.name, took, result));
    }
    summarise(&results, &context, start.elapsed())
}

fn parse<'a>(args: &[&'a str]) -> Result<(bool, Vec<&'a str>), String> {
    let (mut quick, mut only) = (false, Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match *arg {
            "--quick" => quick = true,
            "--only" => {
                let name = args.next().filter(|name| STEPS.iter().any(|step| step.name == **name));
                let names = || STEPS.iter().map(|step| step.name).collect::<Vec<_>>().join(", ");
                only.push(*name.ok_or_else(|| format!("--only needs one of {}", names()))?);
            }
            other => return Err(format!("test does not know {other}")),
        }
    }
    Ok((quick, only))
}

fn summarise(
    results: &[(&str, Duration, Result<(), String>)],
    context: &Context,
    took: Duration,
) -> Result<(), String> {
    println!("\nsummary, {} in all", seconds(took));
    for (name, took, result) in results {
        let (word, why) = match result {
            Ok(()) => ("ok", ""),
            Err(why) => ("FAILED", why.lines().next().unwrap_or_default()),
        };
        println!("  {name:<10} {:>8}  {word:<6} {why}", seconds(*took));
    }
    for note in &context.notes {
        println!("  note: {note}");
    }
    if results.iter().any(|(name, ..)| *name == "clients") {
        println!("client suites: {}", context.clients);
    }
    let failed: Vec<&str> = results.iter().filter(|(.., result)| result.is_err()).map(|(name, ..)| *name).collect();
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

fn format(_: &mut Context) -> Result<(), String> {
    cargo(&["fmt", "--all", "--check"])
}

fn lint(context: &mut Context) -> Result<(), String> {
    cargo(&[&["clippy", "--locked", "--all-targets"], packages(context), &["--", "-D", "warnings"]].concat())
}

/// Unit and integration tests, the house rules (`xtask/tests`) among them.
fn tests(context: &mut Context) -> Result<(), String> {
    if installed("cargo-nextest") {
        return cargo(&[&["nextest", "run", "--locked", "--no-fail-fast"], packages(context)].concat());
    }
    let note = "cargo-nextest is not installed: `cargo install --locked cargo-nextest` makes the tests faster";
    context.notes.push(note.to_owned());
    cargo(
        &[&["test", "--locked", "--no-fail-fast", "--lib", "--bins", "--tests", "--examples"], packages(context)]
            .concat(),
    )
}

fn doc_tests(context: &mut Context) -> Result<(), String> {
    cargo(&[&["test", "--locked", "--doc"], packages(context)].concat())
}

/// The API's pages, whose links between items must resolve. They are for those who work on it, so private items are
/// among them and may be linked to.
fn docs(_: &mut Context) -> Result<(), String> {
    let mut command = cargo_command(&["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"]);
    run_command(command.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links"))
}

/// Licences, bans and sources on every platform. The house rules hold the same lists on this one.
fn deny(context: &mut Context) -> Result<(), String> {
    if installed("cargo-deny") {
        return cargo(&["deny", "--offline", "check", "bans", "licenses", "sources"]);
    }
    let note = "cargo-deny is not installed (`cargo install --locked cargo-deny`); the house rules held deny.toml's lists for this platform";
    context.notes.push(note.to_owned());
    Ok(())
}

/// The binary that the next steps start, with the very features and profile of the tests: built
/// alone it would compile half its dependencies again.
fn build(_: &mut Context) -> Result<(), String> {
    cargo(&["build", "--locked", "--workspace", "--all-targets"])
}

/// The official client packages against real processes.
fn client_suites(context: &mut Context) -> Result<(), String> {
    context.clients = clients::run_all(&target_dir().join("debug/outlast"), clients::Suite::ALL)?;
    if context.clients.all_passed() { Ok(()) } else { Err(context.clients.to_string()) }
}

/// Durable runs under SIGKILL, SIGSTOP and failpoints, shorter than `cargo xtask crash` does it by itself; and the same
/// with blind retry, which has to be found out.
fn crash(_: &mut Context) -> Result<(), String> {
    crash::run(&["--no-build", "--runs", "60", "--servers", "2", "--workers", "3", "--seconds", "25"])
}

/// The demo's script: a provider dies and heals under traffic, and no request may be lost. What the README shows of it
/// must still be what it prints.
fn demo(_: &mut Context) -> Result<(), String> {
    println!("    $ outlast demo --once");
    let mut command = Command::new(target_dir().join("debug/outlast"));
    let mut child = command
        .args(["demo", "--once"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("outlast demo: {error}"))?;
    let mut printed = Vec::new();
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()).map_while(Result::ok) {
        println!("{line}");
        printed.push(shape(&line));
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(status.to_string());
    }
    let readme =
        fs::read_to_string(workspace_root().join("README.md")).map_err(|error| format!("README.md: {error}"))?;
    let shown = readme.split("```\n").find(|block| block.contains("fake providers and a gateway on"));
    let stale: Vec<&str> = shown
        .ok_or("README.md does not show what the demo prints")?
        .lines()
        .filter(|line| *line != "..." && !printed.contains(&shape(line)))
        .collect();
    if stale.is_empty() {
        Ok(())
    } else {
        Err(format!("README.md shows what the demo does not print:\n{}", stale.join("\n")))
    }
}

/// A line without what differs from run to run: figures, spacing, who served how much, how long a reaction took.
fn shape(line: &str) -> String {
    let words: Vec<String> = line.split_whitespace().map(masked).collect();
    let text = words.join(" ");
    if text.starts_with("# answered") {
        return "# answered".to_owned();
    }
    text.strip_suffix(" # s").map_or(text.clone(), str::to_owned)
}

fn masked(word: &str) -> String {
    let figure = word.trim_end_matches([',', '.', ';', 's']).parse::<f64>().is_ok();
    if figure {
        return "#".to_owned() + word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    }
    // An address: the port is another each time.
    word.split_once("127.0.0.1:").map_or_else(|| word.to_owned(), |(before, _)| format!("{before}ADDRESS"))
}

fn packages(context: &Context) -> &'static [&'static str] {
    if context.quick { &["--package", "outlast-engine", "--package", "outlast-wire"] } else { &["--workspace"] }
}

fn cargo(args: &[&str]) -> Result<(), String> {
    run_command(&mut cargo_command(args))
}

fn cargo_command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(args).current_dir(workspace_root());
    command
}

fn run_command(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
    println!("    $ {} {}", program.rsplit('/').next().unwrap_or_default(), args.join(" "));
    let status = command.status().map_err(|error| format!("{program}: {error}"))?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}

/// Whether a program is on the path (or beside cargo's own subcommands).
pub(crate) fn installed(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .stdin(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_differ_in_figures_only_have_one_shape() {
        for (one, other) in [
            ("       20 answered; vendor-a 100 %", "18 answered, 4 failovers; vendor-b 83 %"),
            ("503   120  120  0  4 1.03 204 654   0.3 s", "503   99 99 1 4 1.0 2 6"),
            ("a gateway on http://127.0.0.1:37837.", "a gateway on http://127.0.0.1:1."),
        ] {
            assert_eq!(shape(one), shape(other));
        }
        assert_ne!(shape("healed 120 120"), shape("hang 120 120"));
        assert_ne!(shape("== 503: vendor-a is down"), shape("== 429: vendor-a is down"));
    }
}
