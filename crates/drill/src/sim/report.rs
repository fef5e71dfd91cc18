//! What a benchmark tells: one row per run, and the score of all of them.

use super::scenario::Scenario;
use serde::Serialize;
use std::fmt;

/// One scenario, rate and seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// Which scenario.
    pub scenario: Scenario,
    /// What happens in it.
    pub title: &'static str,
    /// What it was seeded with.
    pub seed: u64,
    /// Requests a second.
    pub per_sec: f64,
    /// How many requests came.
    pub requests: u64,
    /// The share of them that had a valid answer within the deadline; one that is wrong without anybody seeing it is not.
    pub goodput: f64,
    /// The same of the oracle.
    pub goodput_oracle: f64,
    /// Upstream calls per request.
    pub calls: f64,
    /// The same of the oracle.
    pub calls_oracle: f64,
    /// Time to first token of the answered: the median...
    pub first_p50_secs: f64,
    /// ...and the 99th percentile...
    pub first_p99_secs: f64,
    /// ...and that of the oracle.
    pub first_p99_oracle_secs: f64,
    /// Paid for and not delivered.
    pub wasted_usd: f64,
    /// From the fault's onset until A's breaker opened, or golden tasks demoted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detected_secs: Option<f64>,
    /// Calls, or golden tasks, that A was sent in the fault until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detected_calls: Option<u64>,
    /// From the fault's end until A's breaker closed, or the demotion ended; of the capacity dip: until the last lost request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovered_secs: Option<f64>,
    /// How often golden tasks cried wolf, where there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub golden: Option<Golden>,
    /// A hash of everything that happened: the same seed, the same trace.
    pub trace: String,
    /// Every time to first token, in seconds, for figures over several seeds: ours and the oracle's.
    #[serde(skip)]
    pub(super) firsts: [Vec<f32>; 2],
}

/// Golden tasks of targets that were as good as ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Golden {
    /// How many.
    pub well: u64,
    /// Alarms about such targets.
    pub false_alarms: u64,
}

impl Run {
    /// How close it came to the oracle: `G/G* x sqrt(min(1, calls*/calls)) x sqrt(min(1, p99*/p99))`.
    pub fn ratio(&self) -> f64 {
        ratio(
            [self.goodput, self.goodput_oracle],
            [self.calls, self.calls_oracle],
            [self.first_p99_secs, self.first_p99_oracle_secs],
        )
    }

    /// Requests lost that the oracle would have answered.
    pub fn regret_failures(&self) -> f64 {
        ((self.goodput_oracle - self.goodput) * self.requests as f64).max(0.0)
    }

    /// Seconds of p99 that the oracle would have saved.
    pub fn regret_secs(&self) -> f64 {
        (self.first_p99_secs - self.first_p99_oracle_secs).max(0.0)
    }
}

/// Each pair is ours and the oracle's. More than the oracle's goodput, or fewer calls, or faster, is worth no more.
fn ratio(goodput: [f64; 2], calls: [f64; 2], first_p99: [f64; 2]) -> f64 {
    let least = |[ours, oracle]: [f64; 2]| if ours > 0.0 { (oracle / ours).min(1.0) } else { 1.0 };
    let answered = if goodput[1] > 0.0 { (goodput[0] / goodput[1]).min(1.0) } else { 1.0 };
    answered * least(calls).sqrt() * least(first_p99).sqrt()
}

/// The value at a quantile; zero of nothing.
pub(super) fn quantile(values: &mut [f32], q: f64) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let rank = ((values.len() as f64 * q).ceil() as usize).clamp(1, values.len()) - 1;
    f64::from(*values.select_nth_unstable_by(rank, f32::total_cmp).1)
}

/// Every run of a benchmark.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// In order of scenario, rate and seed.
    pub runs: Vec<Run>,
    /// Per scenario and rate, over all its seeds as if they were one long run: a p99 of 300 requests is mostly luck.
    pub scores: Vec<Score>,
    /// The geometric mean of the scores.
    pub suite: f64,
}

/// One scenario at one rate, over all seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Which scenario.
    pub scenario: Scenario,
    /// Requests a second.
    pub per_sec: f64,
    /// The ratio to the oracle; 1 is as good as one who knows the future.
    pub ratio: f64,
    /// The worst of the seeds by itself.
    pub worst: f64,
}

impl Report {
    /// Scores runs that are in order of scenario and rate.
    pub fn of(runs: Vec<Run>) -> Self {
        let same = |a: &Run, b: &Run| a.scenario == b.scenario && a.per_sec == b.per_sec;
        let scores: Vec<_> = runs
            .chunk_by(same)
            .map(|seeds| Score {
                scenario: seeds[0].scenario,
                per_sec: seeds[0].per_sec,
                ratio: pooled(seeds),
                worst: seeds.iter().map(Run::ratio).fold(f64::MAX, f64::min),
            })
            .collect();
        let logs: f64 = scores.iter().map(|score| score.ratio.ln()).sum();
        let suite = (logs / scores.len().max(1) as f64).exp();
        Report { runs, scores, suite }
    }
}

/// The ratio of several seeds together.
fn pooled(seeds: &[Run]) -> f64 {
    let requests: f64 = seeds.iter().map(|run| run.requests as f64).sum();
    let sum = |of: fn(&Run) -> f64| seeds.iter().map(|run| of(run) * run.requests as f64).sum::<f64>() / requests;
    let p99 = |whose: usize| {
        let mut all: Vec<f32> = seeds.iter().flat_map(|run| run.firsts[whose].iter().copied()).collect();
        quantile(&mut all, 0.99)
    };
    ratio(
        [sum(|run| run.goodput), sum(|run| run.goodput_oracle)],
        [sum(|run| run.calls), sum(|run| run.calls_oracle)],
        [p99(0), p99(1)],
    )
}

impl fmt::Display for Report {
    /// A table of the mean figures per scenario and rate.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<4}{:<23}{:>6}{:>10}{:>9}{:>9}{:>8}{:>9}{:>9}{:>10}{:>9}{:>9}{:>9}{:>8}",
            "no.",
            "fault",
            "rps",
            "requests",
            "goodput",
            "oracle",
            "calls",
            "p99 s",
            "oracle",
            "detected",
            "calls",
            "back s",
            "ratio",
            "worst"
        )?;
        let same = |a: &Run, b: &Run| a.scenario == b.scenario && a.per_sec == b.per_sec;
        for (seeds, score) in self.runs.chunk_by(same).zip(&self.scores) {
            let mean = |of: &dyn Fn(&Run) -> f64| seeds.iter().map(of).sum::<f64>() / seeds.len() as f64;
            let mean_known = |of: &dyn Fn(&Run) -> Option<f64>| {
                let known: Vec<f64> = seeds.iter().filter_map(of).collect();
                let mean = known.iter().sum::<f64>() / known.len() as f64;
                if known.is_empty() { "-".to_owned() } else { format!("{mean:.1}") }
            };
            writeln!(
                f,
                "{:<4}{:<23}{:>6}{:>10}{:>9.4}{:>9.4}{:>8.4}{:>9.2}{:>9.2}{:>9}s{:>9}{:>9}{:>9.4}{:>8.4}",
                score.scenario.number(),
                score.scenario.title(),
                score.per_sec,
                seeds.iter().map(|run| run.requests).sum::<u64>(),
                mean(&|run| run.goodput),
                mean(&|run| run.goodput_oracle),
                mean(&|run| run.calls),
                mean(&|run| run.first_p99_secs),
                mean(&|run| run.first_p99_oracle_secs),
                mean_known(&|run| run.detected_secs),
                mean_known(&|run| run.detected_calls.map(|calls| calls as f64)),
                mean_known(&|run| run.recovered_secs),
                score.ratio,
                score.worst,
            )?;
        }
        let golden =
            |of: fn(&Golden) -> u64| self.runs.iter().filter_map(|run| run.golden.as_ref()).map(of).sum::<u64>();
        let (well, false_alarms) = (golden(|golden| golden.well), golden(|golden| golden.false_alarms));
        if well > 0 {
            writeln!(f, "golden tasks: {false_alarms} false alarms in {well} tasks of targets as good as ever")?;
        }
        let requests: u64 = self.runs.iter().map(|run| run.requests).sum();
        let failures: f64 = self.runs.iter().map(Run::regret_failures).sum();
        let wasted: f64 = self.runs.iter().map(|run| run.wasted_usd).sum();
        writeln!(
            f,
            "suite {:.4} over {requests} requests; regret: {failures:.0} answers, ${wasted:.2} wasted",
            self.suite
        )
    }
}
