//! `cargo xtask steps`: what a durable step costs, in process, on SQLite with `synchronous=FULL` and sealed payloads.
//!
//! The figures are absolute and this machine's: there is nothing to take a ratio to. The bar is DESIGN section 10's.

use crate::{
    bench,
    process::{target_dir, workspace_root},
};
use serde_json::Value;
use std::{fmt::Write, process::Command};

/// The least durable steps a second.
const BAR: f64 = 3_000.0;
/// Of `steps`, the median is taken of so many rounds.
const ROUNDS: usize = 5;

/// Measures, prints, and with `--record` writes docs/performance.md.
///
/// # Errors
/// The build or a measurement failed. A missed bar is reported, not an error.
pub(crate) fn run(args: &[&str]) -> Result<(), String> {
    let record = match args {
        [] => false,
        ["--record"] => true,
        other => return Err(format!("steps does not know {}", other.join(" "))),
    };
    build()?;
    let mut rounds = (0..ROUNDS).map(|_| measure(&["steps"])).collect::<Result<Vec<_>, _>>()?;
    rounds.sort_by(|one, other| number(one, "steps_per_s").total_cmp(&number(other, "steps_per_s")));
    let steps = &rounds[ROUNDS / 2];
    let table = table(steps, &measure(&["long"])?, &measure(&["idle"])?);
    println!("{table}");
    if record {
        let page = workspace_root().join("docs/performance.md");
        bench::record_between(&page, &table, "<!-- steps table -->\n", "<!-- end of steps table -->")?;
    }
    Ok(())
}

fn build() -> Result<(), String> {
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--package", "outlast-store", "--example", "steps"])
        .current_dir(workspace_root())
        .status()
        .map_err(|error| format!("cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo build --release: {status}")) }
}

fn measure(args: &[&str]) -> Result<Value, String> {
    eprintln!("    steps {}", args.join(" "));
    let output = Command::new(target_dir().join("release/examples/steps"))
        .args(args)
        .output()
        .map_err(|error| format!("steps: {error}"))?;
    if !output.status.success() {
        return Err(format!("steps {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("steps: {error}"))
}

fn number(measured: &Value, name: &str) -> f64 {
    measured[name].as_f64().unwrap_or(f64::NAN)
}

fn table(steps: &Value, long: &Value, idle: &Value) -> String {
    let per_second = number(steps, "steps_per_s");
    let held = if per_second >= BAR { "held" } else { "MISSED" };
    let mut text = String::from("| figure | measured | bar |\n|---|---:|---|\n");
    let mut row = |figure: &str, measured: String, bar: &str| {
        let _ = writeln!(text, "| {figure} | {measured} | {bar} |");
    };
    let micros = |measured: &Value, name: &str| format!("{:.0} us", number(measured, name));
    let mb = |measured: &Value| format!("{:.0} MB", number(measured, "rss_mb"));
    row("64 runs side by side: steps a second", format!("{per_second:.0}"), &format!(">= 3,000, {held}"));
    row("a step among them, p50", micros(steps, "step_p50_us"), "");
    row("a step among them, p99", micros(steps, "step_p99_us"), "");
    row("one run of 10,000 steps: steps a second", format!("{:.0}", number(long, "steps_per_s")), "");
    row("its first thousand steps, p50", micros(long, "first_tenth_p50_us"), "");
    row("its last thousand steps, p50", micros(long, "last_tenth_p50_us"), "");
    row("reading its journal", format!("{:.0} ms", number(long, "journal_ms")), "");
    row("memory of the process after it", mb(long), "");
    row("a claim beside 100,000 runs that wait, p50", micros(idle, "claim_p50_us"), "");
    row("a claim beside them, p99", micros(idle, "claim_p99_us"), "");
    row("a claim that finds nothing", micros(idle, "claim_of_nothing_us"), "");
    row("memory of the process with them", mb(idle), "");
    text
}
