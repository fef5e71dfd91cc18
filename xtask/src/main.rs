//! The project's own tasks: `cargo xtask test`, `bench`, `crash` and so on.
//!
//! Everything a contributor or the CI runs goes through here, so that both run the same thing.

mod bench;
mod clients;
mod crash;
mod prices;
mod process;
mod steps;
mod test;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <task>

  test [--quick] [--only STEP]...   every test; --quick: only the engine and the wire
  clients [python|node]...          only the suites of the official client packages
  bench [--quick] [--rounds N] [--only PHASE]... [--null] [--no-build] [--record]
                                    the gateway against a bare hyper proxy; --null: a second proxy instead of the
                                    gateway, to see the noise; --record writes docs/performance.md
  steps [--record]                  what a durable step costs on SQLite, many idle runs, one long one
  crash [--runs N] [--servers N] [--workers N] [--seconds N] [--seed N] [--ledger-only] [--no-build]
                                    durable runs under SIGKILL, SIGSTOP and failpoints, counted by the world outside;
                                    then the same with blind retry, which has to be found out
  vendor-prices [--check]           prices and context windows of the embedded catalogue, from genai-prices
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["test", rest @ ..] => test::run(rest),
        ["clients", rest @ ..] => clients::run_alone(rest),
        ["bench", rest @ ..] => bench::run(rest),
        ["steps", rest @ ..] => steps::run(rest),
        ["crash", rest @ ..] => crash::run(rest),
        ["vendor-prices", rest @ ..] => prices::run(rest),
        // Hidden: the processes that `bench` and `crash` start.
        ["crash-worker", rest @ ..] => crash::work(rest),
        ["bench-upstream", address] => bench::servers::upstream(address),
        ["bench-proxy", address, upstream] => bench::servers::proxy(address, upstream),
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
