//! The simulator: the real engine in virtual time, against faults, measured by what an oracle would have done.
//!
//! A run is a [`Scenario`] at a rate with a seed. [`model`](self) draws clients and healthy targets, `scenario` breaks
//! one of them, `world` drives the same [`Fleet`](outlast_engine::Fleet) and [`Call`](outlast_engine::Call) as the
//! gateway does, `tally` counts, and `report` scores. The same seed gives the same trace, and every run names its hash.

mod capacity;
mod cast;
mod model;
mod report;
mod scenario;
mod tally;
mod world;

pub use report::{Report, Run, Score};
pub use scenario::Scenario;

use world::World;

/// What to simulate.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which scenarios, in order.
    pub scenarios: Vec<Scenario>,
    /// Requests a second, in order.
    pub rates: Vec<f64>,
    /// The first seed.
    pub seed: u64,
    /// How many seeds from there on.
    pub seeds: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options { scenarios: Scenario::ALL.to_vec(), rates: vec![0.5, 5.0, 50.0], seed: 1, seeds: 1 }
    }
}

/// Simulates every scenario at every rate with every seed.
pub fn run(options: &Options) -> Report {
    let mut runs = Vec::new();
    for scenario in &options.scenarios {
        for per_sec in &options.rates {
            for seed in options.seed..options.seed + u64::from(options.seeds) {
                runs.push(run_one(*scenario, *per_sec, seed));
            }
        }
    }
    Report::of(runs)
}

/// Simulates one scenario once.
pub fn run_one(scenario: Scenario, per_sec: f64, seed: u64) -> Run {
    World::new(scenario, seed, per_sec).run().finish(per_sec)
}
