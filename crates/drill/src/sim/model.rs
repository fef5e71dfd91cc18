//! The base model: who asks what, and how fast a healthy target answers.
//!
//! Every draw of a request comes from its own small generator, seeded by the run's seed, the request's number and what
//! the draw is for. So the engine and the oracle meet exactly the same world, whatever else either of them does.

use outlast_model::Price;
use std::time::Duration;

/// Coefficient of variation of the gaps between arrivals: 2, so bursts are common. Gamma shape 1 / CV^2.
const ARRIVAL_SHAPE: f64 = 0.25;
/// Input tokens: mostly lognormal, one in twenty from a heavy tail.
const INPUT_MEDIAN: f64 = 800.0;
const INPUT_SIGMA: f64 = 1.1;
const INPUT_TAIL_SHARE: f64 = 0.05;
const INPUT_TAIL_FROM: f64 = 8_000.0;
const INPUT_TAIL_SHAPE: f64 = 1.5;
const INPUT_MOST: f64 = 128_000.0;
/// Output tokens: exponential.
const OUTPUT_MEAN: f64 = 250.0;
const OUTPUT_MOST: f64 = 2_000.0;
/// Time to first token: lognormal, plus reading the prompt, and one in fifty eight times as slow.
const FIRST_MEDIAN: f64 = 0.6;
const FIRST_SIGMA: f64 = 0.6;
const FIRST_PER_INPUT_TOKEN: f64 = 40e-6;
const SLOW_SHARE: f64 = 0.02;
const SLOW_TIMES: f64 = 8.0;
/// Mean gap between tokens, and how it varies from stream to stream. Single gaps are not simulated: a stream is two
/// events.
const GAP_MEAN: f64 = 0.015;
const GAP_SIGMA: f64 = 0.25;
/// One reply in fifty is rated by its user, who is right about it.
const RATED_SHARE: f64 = 0.02;
/// Errors of a healthy target.
pub(super) const BASE_ERROR: f64 = 0.003;

/// Prices of A, B and C, in dollars per million tokens.
pub(super) fn prices() -> [Price; 3] {
    [(3.0, 15.0), (3.0, 15.0), (0.3, 1.2)].map(|(input, output)| Price::per_million(input, output, None, None))
}

/// What a request asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) input_tokens: u32,
    pub(super) output_tokens: u32,
}

/// How one healthy exchange goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchange {
    /// It meets one of the usual errors.
    pub(super) error: bool,
    /// A number in [0, 1) for the scenario's own draw.
    pub(super) luck: f64,
    pub(super) first: Duration,
    /// From the first output to the end.
    pub(super) rest: Duration,
}

/// A generator for one purpose of one request.
fn generator(seed: u64, request: u64, purpose: u64) -> fastrand::Rng {
    // SplitMix64's finaliser: neighbouring numbers give unrelated generators.
    let mut mixed = seed ^ request.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ purpose.wrapping_mul(0xd1b5_4a32_d192_ed03);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    fastrand::Rng::with_seed(mixed ^ (mixed >> 31))
}

pub(super) fn question(seed: u64, request: u64) -> Question {
    let rng = &mut generator(seed, request, 0);
    let input = if rng.f64() < INPUT_TAIL_SHARE {
        INPUT_TAIL_FROM * unit(rng).powf(-1.0 / INPUT_TAIL_SHAPE)
    } else {
        INPUT_MEDIAN * (INPUT_SIGMA * normal(rng)).exp()
    };
    let output = -OUTPUT_MEAN * unit(rng).ln();
    Question { input_tokens: input.clamp(1.0, INPUT_MOST) as u32, output_tokens: output.clamp(1.0, OUTPUT_MOST) as u32 }
}

/// The exchange of a request with a target; `turn` tells its repetitions on the same target apart.
pub(super) fn exchange(seed: u64, request: u64, question: Question, target: usize, turn: u32) -> Exchange {
    let rng = &mut generator(seed, request, 1 + target as u64 + 16 * u64::from(turn));
    let error = rng.f64() < BASE_ERROR;
    let luck = rng.f64();
    let slow = if rng.f64() < SLOW_SHARE { SLOW_TIMES } else { 1.0 };
    let first = slow * FIRST_MEDIAN * (FIRST_SIGMA * normal(rng)).exp()
        + FIRST_PER_INPUT_TOKEN * f64::from(question.input_tokens);
    let gap = GAP_MEAN * (GAP_SIGMA * normal(rng)).exp();
    let rest = gap * f64::from(question.output_tokens - 1);
    Exchange { error, luck, first: Duration::from_secs_f64(first), rest: Duration::from_secs_f64(rest) }
}

/// A number in [0, 1) that decides a target's golden task.
pub(super) fn golden(seed: u64, task: u64, target: usize) -> f64 {
    generator(seed, task, 1_000 + target as u64).f64()
}

/// Whether a request's user rates the reply.
pub(super) fn rates(seed: u64, request: u64) -> bool {
    generator(seed, request, 2_000).f64() < RATED_SHARE
}

/// The gap before the next arrival: gamma renewal.
pub(super) fn arrival_gap(rng: &mut fastrand::Rng, per_sec: f64) -> Duration {
    Duration::from_secs_f64(gamma(rng, ARRIVAL_SHAPE) / ARRIVAL_SHAPE / per_sec)
}

pub(super) fn exponential(rng: &mut fastrand::Rng, mean: f64) -> Duration {
    Duration::from_secs_f64(-mean * unit(rng).ln())
}

/// In (0, 1].
fn unit(rng: &mut fastrand::Rng) -> f64 {
    1.0 - rng.f64()
}

/// Standard normal, by Box and Muller.
fn normal(rng: &mut fastrand::Rng) -> f64 {
    (-2.0 * unit(rng).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos()
}

/// Standard gamma of a shape below one, by Marsaglia and Tsang with Johnk's boost.
fn gamma(rng: &mut fastrand::Rng, shape: f64) -> f64 {
    let boost = unit(rng).powf(1.0 / shape);
    let d = shape + 1.0 - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(rng);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && unit(rng).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v * boost;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_have_their_rate_and_a_variation_of_two() {
        let mut rng = fastrand::Rng::with_seed(1);
        let gaps: Vec<f64> = (0..200_000).map(|_| arrival_gap(&mut rng, 5.0).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean - 0.2).abs() < 0.01, "{mean}");
        assert!((variance.sqrt() / mean - 2.0).abs() < 0.1, "{}", variance.sqrt() / mean);
    }

    #[test]
    fn requests_and_exchanges_have_the_models_medians() {
        let median = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let questions: Vec<_> = (0..20_000).map(|n| question(7, n)).collect();
        let inputs = median(questions.iter().map(|q| f64::from(q.input_tokens)).collect());
        assert!((800.0..950.0).contains(&inputs), "{inputs}");
        let exchanges: Vec<_> = (0u64..20_000).map(|n| exchange(7, n, questions[n as usize], 0, 0)).collect();
        let first = median(exchanges.iter().map(|exchange| exchange.first.as_secs_f64()).collect());
        assert!((0.6..0.75).contains(&first), "{first}");
        let errors = exchanges.iter().filter(|exchange| exchange.error).count();
        assert!((30..100).contains(&errors), "{errors}");
    }
}
