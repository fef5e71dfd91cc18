//! `outlast drill`: rehearses failures.

use super::Exit;
use clap::{Args, Subcommand};
use outlast_drill::sim::{self, Options, Report, Scenario};

/// Arguments of `drill`.
#[derive(Clone, Debug, Subcommand)]
pub enum DrillCommand {
    /// Run fault scenarios in virtual time, and score the engine beside an oracle
    Sim(SimArgs),
}

/// Arguments of `drill sim`.
#[derive(Clone, Debug, Args)]
pub struct SimArgs {
    /// The same seed gives the same trace
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// So many seeds, from --seed on
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub seeds: u32,
    /// Only this scenario: 1, 2, 3, 3b, 13, 15, 15b or h; may be repeated [default: all]
    #[arg(long, value_name = "NUMBER")]
    pub scenario: Vec<Scenario>,
    /// Only this many requests a second; may be repeated [default: 0.5, 5, 50]
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    pub rate: Vec<f64>,
    /// Exit 1 if a scenario's ratio to the oracle is lower
    #[arg(long, value_name = "RATIO")]
    pub at_least: Option<f64>,
    /// Every run as JSON
    #[arg(long)]
    pub json: bool,
}

/// A rate that ends within reason: the simulator makes some hundred thousand requests a second.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.01..=10_000.0).contains(&rate) => Ok(rate),
        Ok(_) | Err(_) => Err("a number from 0.01 to 10000".to_owned()),
    }
}

/// Runs the command.
pub fn run(command: DrillCommand) -> Exit {
    match command {
        DrillCommand::Sim(args) => simulate(args),
    }
}

fn simulate(args: SimArgs) -> Exit {
    let mut options = Options { seed: args.seed, seeds: args.seeds, ..Options::default() };
    if !args.scenario.is_empty() {
        options.scenarios = args.scenario;
    }
    if !args.rate.is_empty() {
        options.rates = args.rate;
    }
    let report = sim::run(&options);
    if let Err(exit) = print(&report, args.json) {
        return exit;
    }
    let short = report.scores.iter().filter(|score| args.at_least.is_some_and(|bar| score.ratio < bar));
    let short: Vec<_> =
        short.map(|score| format!("{} at {} rps: {:.4}", score.scenario, score.per_sec, score.ratio)).collect();
    if short.is_empty() {
        return Exit::Ok;
    }
    eprintln!("outlast drill: below the bar: {}", short.join("; "));
    Exit::Failed
}

fn print(report: &Report, json: bool) -> Result<(), Exit> {
    if !json {
        anstream::print!("{report}");
        return Ok(());
    }
    match serde_json::to_string_pretty(report) {
        Ok(text) => anstream::println!("{text}"),
        Err(error) => {
            eprintln!("outlast drill: the report cannot be written as JSON: {error}");
            return Err(Exit::Internal);
        }
    }
    Ok(())
}
