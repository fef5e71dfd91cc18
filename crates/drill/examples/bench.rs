//! Runs the whole benchmark: `cargo run --release -p outlast-drill --example bench -- [seeds] [scenario] [rate]`.

use outlast_drill::sim::{Options, run};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut options = Options::default();
    if let Some(seeds) = arguments.next() {
        options.seeds = seeds.parse().expect("a number of seeds");
    }
    if let Some(scenario) = arguments.next() {
        options.scenarios = vec![scenario.parse().expect("a scenario")];
    }
    if let Some(rate) = arguments.next() {
        options.rates = vec![rate.parse().expect("requests a second")];
    }
    print!("{}", run(&options));
}
