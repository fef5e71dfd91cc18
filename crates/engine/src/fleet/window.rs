//! What a target's latencies look like lately: fixed-size histograms that forget.

use std::time::Duration;

/// Samples below which a quantile is not trusted.
const ENOUGH: u32 = 20;
/// At so many samples every count is halved, so that about the last thousand weigh.
const HALVE_AT: u32 = 2048;
/// How often cached figures are renewed, in samples.
const RENEW_EVERY: u32 = 32;
/// The shortest time told apart, as a power of two in microseconds: 64 us.
const LOWEST_OCTAVE: u32 = 6;
/// Up to 2^31 us, 36 minutes.
const OCTAVES: usize = 25;
/// Steps in an octave: a resolution of 9 to 12 %.
const STEPS: usize = 8;

/// Counts in logarithmic steps.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Box<[u16; OCTAVES * STEPS]>,
    total: u32,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: Box::new([0; OCTAVES * STEPS]), total: 0 }
    }
}

impl Histogram {
    pub(crate) fn record(&mut self, sample: Duration) {
        let micros = u64::try_from(sample.as_micros()).unwrap_or(u64::MAX).max(1 << LOWEST_OCTAVE);
        let octave = micros.ilog2();
        let step = ((micros >> (octave - 3)) & 7) as usize;
        let slot = ((octave - LOWEST_OCTAVE) as usize * STEPS + step).min(OCTAVES * STEPS - 1);
        self.counts[slot] += 1;
        self.total += 1;
        if self.total >= HALVE_AT {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().map(|count| u32::from(*count)).sum();
        }
    }

    pub(crate) fn total(&self) -> u32 {
        self.total
    }

    fn add(&mut self, other: &Histogram) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts.iter()) {
            *mine = mine.saturating_add(*theirs);
        }
        self.total += other.total;
    }

    /// The upper edge of the step that holds the quantile; `None` without samples.
    pub(crate) fn quantile(&self, q: f64) -> Option<Duration> {
        let rank = (f64::from(self.total) * q).ceil().max(1.0) as u32;
        let mut seen = 0;
        let slot = self.counts.iter().position(|count| {
            seen += u32::from(*count);
            seen >= rank
        })?;
        let octave = LOWEST_OCTAVE + (slot / STEPS) as u32;
        let step = 9 + (slot % STEPS) as u64;
        Some(Duration::from_micros(step << (octave - 3)))
    }
}

/// Buckets of input size: below 1 k, 4 k and 16 k tokens, and above. The first output waits for the prompt to be read.
const SIZES: usize = 4;

fn size_bucket(input_tokens: u32) -> usize {
    match input_tokens {
        0..1_000 => 0,
        1_000..4_000 => 1,
        4_000..16_000 => 2,
        16_000.. => 3,
    }
}

/// One kind of latency of one target, by input size, with its derived limits cached.
#[derive(Clone, Debug)]
pub(crate) struct Latency {
    sizes: [(Histogram, Cached); SIZES],
    prior: Cached,
}

#[derive(Clone, Copy, Debug)]
struct Cached {
    p50: Duration,
    p95: Duration,
    p99: Duration,
    renew_at: u32,
}

impl Latency {
    /// Of streams until their first output. Until enough is known: p50 0.8 s, p99 4 s, so overdue at 12 s.
    pub(crate) fn of_first_output() -> Self {
        Latency::with_prior(Duration::from_millis(800), Duration::from_secs(4))
    }

    /// Of whole replies. Until enough is known: p50 4 s, p99 20 s, so overdue at 30 s.
    pub(crate) fn of_whole_reply() -> Self {
        Latency::with_prior(Duration::from_secs(4), Duration::from_secs(20))
    }

    fn with_prior(p50: Duration, p99: Duration) -> Self {
        // Nothing is raced by a guess, so the p95 has no prior of its own.
        let prior = Cached { p50, p95: p99, p99, renew_at: ENOUGH };
        Latency { sizes: std::array::from_fn(|_| (Histogram::default(), prior)), prior }
    }

    pub(crate) fn record(&mut self, input_tokens: u32, sample: Duration) {
        let size = size_bucket(input_tokens);
        self.sizes[size].0.record(sample);
        let (histogram, cached) = &self.sizes[size];
        // After a halving the count is below the mark again; the mark follows it down.
        if histogram.total() >= cached.renew_at || histogram.total() + RENEW_EVERY < cached.renew_at {
            self.renew(size);
        }
    }

    fn renew(&mut self, size: usize) {
        let (histogram, cached) = &mut self.sizes[size];
        cached.p50 = histogram.quantile(0.5).unwrap_or(self.prior.p50);
        cached.p95 = histogram.quantile(0.95).unwrap_or(self.prior.p95);
        cached.p99 = histogram.quantile(0.99).unwrap_or(self.prior.p99);
        cached.renew_at = histogram.total() + RENEW_EVERY;
    }

    /// The typical value, or a prior.
    pub(crate) fn p50(&self, input_tokens: u32) -> Duration {
        self.sizes[size_bucket(input_tokens)].1.p50
    }

    /// The typical value once it is known.
    pub(crate) fn known_p50(&self, input_tokens: u32) -> Option<Duration> {
        let (histogram, cached) = &self.sizes[size_bucket(input_tokens)];
        (histogram.total() >= ENOUGH).then_some(cached.p50)
    }

    /// Slower than nineteen in twenty, once it is known.
    pub(crate) fn known_p95(&self, input_tokens: u32) -> Option<Duration> {
        let (histogram, cached) = &self.sizes[size_bucket(input_tokens)];
        (histogram.total() >= ENOUGH).then_some(cached.p95)
    }

    /// Slower than nearly all, or a prior.
    pub(crate) fn p99(&self, input_tokens: u32) -> Duration {
        self.sizes[size_bucket(input_tokens)].1.p99
    }

    /// A call in flight for longer is evidence: three times the p99, but 4 s at least and 30 s at most.
    pub(crate) fn overdue_after(&self, input_tokens: u32) -> Duration {
        (self.p99(input_tokens) * 3).clamp(Duration::from_secs(4), Duration::from_secs(30))
    }

    /// p50, p95, p99 over all sizes.
    pub(crate) fn summary(&self) -> Option<[Duration; 3]> {
        let mut all = Histogram::default();
        self.sizes.iter().for_each(|(histogram, _)| all.add(histogram));
        Some([all.quantile(0.5)?, all.quantile(0.95)?, all.quantile(0.99)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_an_eighth() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|ms| histogram.record(Duration::from_millis(ms)));
        for (q, ms) in [(0.5, 500.0), (0.95, 950.0), (0.99, 990.0)] {
            let got = histogram.quantile(q).unwrap().as_secs_f64() * 1e3;
            assert!((ms * 0.99..ms * 1.13).contains(&got), "{q}: {got} for {ms}");
        }
    }

    #[test]
    fn old_samples_are_forgotten() {
        let mut histogram = Histogram::default();
        (0..5_000).for_each(|_| histogram.record(Duration::from_secs(9)));
        (0..4_000).for_each(|_| histogram.record(Duration::from_millis(10)));
        assert!(histogram.quantile(0.5).unwrap() < Duration::from_millis(12));
    }

    #[test]
    fn without_samples_a_stream_is_overdue_at_12_s_and_a_whole_reply_at_30_s() {
        assert_eq!(Latency::of_first_output().overdue_after(100), Duration::from_secs(12));
        assert_eq!(Latency::of_whole_reply().overdue_after(100), Duration::from_secs(30));
    }

    #[test]
    fn the_overdue_limit_follows_the_size_bucket_and_stays_within_4_and_30_s() {
        let mut latency = Latency::of_first_output();
        (0..100).for_each(|_| latency.record(100, Duration::from_millis(300)));
        (0..100).for_each(|_| latency.record(50_000, Duration::from_secs(3)));
        (0..100).for_each(|_| latency.record(5_000, Duration::from_secs(40)));
        assert_eq!(latency.overdue_after(100), Duration::from_secs(4));
        let long = latency.overdue_after(50_000);
        assert!(long > Duration::from_secs(9) && long < Duration::from_secs(11), "{long:?}");
        assert_eq!(latency.overdue_after(5_000), Duration::from_secs(30));
    }

    #[test]
    fn extreme_samples_stay_in_range() {
        let mut histogram = Histogram::default();
        [Duration::ZERO, Duration::MAX].into_iter().for_each(|sample| histogram.record(sample));
        assert!(histogram.quantile(1.0).is_some());
    }
}
