//! 429s: a schedule to keep, not a fault. One limiter per target and key.
//!
//! A 429 says "not before then": Retry-After if the provider names it, else full jitter from 1 to 60 s that grows with
//! each one in a row. A schedule is never shortened. Beside it a send rate follows AIMD: each 429 (at most one a
//! second) cuts it to 0.7 of what was being sent, and it grows by 5 % a second until it no longer matters. If more
//! than a fifth of the calls still meet a 429 although both were obeyed, the limit is not ours to pace (someone else
//! shares the account) and the target is demoted: half a soft evidence each, never a breaker's.

use crate::backoff::full_jitter;
use outlast_model::Mono;
use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// A Retry-After beyond this is cut: a mistyped header must not take a key away for a year.
const BELIEVED_AT_MOST: Duration = Duration::from_secs(3600);
const CUT: f64 = 0.7;
const GROWTH_PER_SEC: f64 = 1.05;
/// At this multiple of the rate before the first cut, pacing ends.
const LIFTED_AT: f64 = 2.0;
const CUT_AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// Over which the send rate is measured.
const SPAN: Duration = Duration::from_secs(10);
/// Weight of one call in the share of 429s.
const SHARE_WEIGHT: f64 = 0.05;
/// More 429s than this, although obeyed, demote.
const PERSISTENT: f64 = 0.2;
/// Answers needed before the share means anything.
const ENOUGH: u32 = 20;

/// The schedule and pace of one key on one target.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limiter {
    not_before: Mono,
    in_a_row: u32,
    limited_at: Mono,
    pace: Option<Pace>,
    sends: SendRate,
    share: f64,
    answers: u32,
}

#[derive(Clone, Debug)]
struct Pace {
    per_sec: f64,
    lift_at: f64,
    tokens: f64,
    at: Mono,
    cut_at: Mono,
}

/// Counts in two windows of [`SPAN`].
#[derive(Clone, Debug, Default)]
struct SendRate {
    since: Mono,
    now: u32,
    before: u32,
}

impl SendRate {
    fn count(&mut self, now: Mono) {
        let age = now.since(self.since);
        if age >= SPAN {
            self.before = if age < SPAN * 2 { self.now } else { 0 };
            self.now = 0;
            self.since = now;
        }
        self.now += 1;
    }

    fn per_sec(&self, now: Mono) -> f64 {
        let age = now.since(self.since).min(SPAN).as_secs_f64();
        let span = SPAN.as_secs_f64();
        (f64::from(self.now) + f64::from(self.before) * (1.0 - age / span)) / span
    }
}

impl Pace {
    fn refill(&mut self, now: Mono) {
        let secs = now.since(self.at).as_secs_f64();
        self.per_sec *= GROWTH_PER_SEC.powf(secs.min(600.0));
        // A burst of a second, or of one call where a second holds less.
        self.tokens = (self.tokens + secs * self.per_sec).min(self.per_sec.max(1.0));
        self.at = now;
    }
}

impl Limiter {
    /// When the key may be used on this target: `now` or earlier means at once.
    pub(crate) fn ready_at(&mut self, now: Mono) -> Mono {
        let mut ready = self.not_before;
        if let Some(pace) = &mut self.pace {
            pace.refill(now);
            if pace.per_sec >= pace.lift_at {
                self.pace = None;
            } else if pace.tokens < 1.0 {
                ready = ready.max(now + Duration::from_secs_f64((1.0 - pace.tokens) / pace.per_sec));
            }
        }
        ready
    }

    /// Like [`Limiter::ready_at`], for showing: the schedule alone.
    pub(crate) fn scheduled_at(&self) -> Mono {
        self.not_before
    }

    pub(crate) fn sent(&mut self, now: Mono) {
        self.sends.count(now);
        if let Some(pace) = &mut self.pace {
            pace.tokens -= 1.0;
        }
    }

    /// The key was let through.
    pub(crate) fn passed(&mut self, sent: Mono) {
        if sent >= self.limited_at {
            self.in_a_row = 0;
            self.share -= self.share * SHARE_WEIGHT;
            self.answers = self.answers.saturating_add(1);
        }
    }

    /// A 429 to a call that was `sent` then. True when 429s persist although the schedule was obeyed.
    pub(crate) fn limited(
        &mut self,
        sent: Mono,
        retry_after: Option<Duration>,
        now: Mono,
        rng: &mut fastrand::Rng,
    ) -> bool {
        // A call that left before the last 429 came says nothing about how well the schedule works.
        let obeyed = sent >= self.limited_at;
        if obeyed {
            self.in_a_row = self.in_a_row.saturating_add(1);
            self.share += (1.0 - self.share) * SHARE_WEIGHT;
            self.answers = self.answers.saturating_add(1);
        }
        let pause = match retry_after {
            Some(asked) => asked.min(BELIEVED_AT_MOST),
            None => full_jitter(rng, FIRST, LONGEST, self.in_a_row),
        };
        self.not_before = self.not_before.max(now + pause);
        self.slow_down(now);
        self.limited_at = now;
        obeyed && self.answers >= ENOUGH && self.share > PERSISTENT
    }

    fn slow_down(&mut self, now: Mono) {
        let observed = self.sends.per_sec(now).max(0.1);
        let pace = self.pace.get_or_insert(Pace {
            per_sec: observed,
            lift_at: observed * LIFTED_AT,
            tokens: 1.0,
            at: now,
            cut_at: Mono::ZERO,
        });
        pace.refill(now);
        if pace.cut_at == Mono::ZERO || now.since(pace.cut_at) >= CUT_AT_MOST_EVERY {
            pace.per_sec = (pace.per_sec * CUT).max(0.1);
            pace.cut_at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: f64) -> Mono {
        Mono::ZERO + Duration::from_secs_f64(secs)
    }

    #[test]
    fn a_schedule_is_never_shortened() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut limiter = Limiter::default();
        limiter.sent(at(1.0));
        limiter.limited(at(1.0), Some(Duration::from_secs(20)), at(1.1), &mut rng);
        limiter.limited(at(1.0), Some(Duration::from_secs(2)), at(1.2), &mut rng);
        assert_eq!(limiter.ready_at(at(1.3)), at(21.1));
    }

    #[test]
    fn without_a_header_the_pause_grows_to_a_minute_and_a_pass_resets_it() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut limiter = Limiter::default();
        let mut now = at(1.0);
        let mut longest = Duration::ZERO;
        for _ in 0..12 {
            limiter.limited(now, None, now, &mut rng);
            let pause = now.until(limiter.scheduled_at());
            assert!(pause <= LONGEST);
            longest = longest.max(pause);
            now = limiter.scheduled_at() + Duration::from_millis(1);
        }
        assert!(longest > Duration::from_secs(10), "{longest:?}");
        limiter.passed(now);
        limiter.limited(now, None, now, &mut rng);
        assert!(now.until(limiter.scheduled_at()) <= FIRST);
    }

    #[test]
    fn after_a_429_calls_are_paced_to_less_than_was_sent_and_slowly_to_more() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut limiter = Limiter::default();
        (0..200).for_each(|i| limiter.sent(at(f64::from(i) * 0.1)));
        limiter.limited(at(19.9), Some(Duration::ZERO), at(20.0), &mut rng);
        let through = |limiter: &mut Limiter, from: f64, until: f64| {
            let steps = ((until - from) * 100.0) as u32;
            (0..steps)
                .map(|i| at(from + f64::from(i) / 100.0))
                .filter(|now| {
                    let ready = limiter.ready_at(*now) <= *now;
                    ready.then(|| limiter.sent(*now)).is_some()
                })
                .count()
        };
        let first = through(&mut limiter, 20.0, 22.0);
        assert!((12..=18).contains(&first), "10 a second were sent, 7 are allowed: {first} in 2 s");
        let later = through(&mut limiter, 34.0, 36.0);
        assert!((35..=50).contains(&later), "{later}");
        through(&mut limiter, 60.0, 61.0);
        assert!(limiter.pace.is_none(), "lifted at twice the old rate");
    }

    #[test]
    fn only_429s_that_persist_after_obeying_tell() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut limiter = Limiter::default();
        // A burst in flight when the limit struck: all 429, none of them after the schedule.
        let told =
            (0..100).filter(|_| limiter.limited(at(1.0), Some(Duration::from_secs(1)), at(1.5), &mut rng)).count();
        assert_eq!(told, 0);
        let told = (0..100)
            .filter(|i| {
                let now = at(10.0 + f64::from(*i) * 5.0);
                if i % 2 == 0 {
                    limiter.limited(now, Some(Duration::from_secs(1)), now, &mut rng)
                } else {
                    limiter.passed(now);
                    false
                }
            })
            .count();
        assert!(told > 20, "{told}");
    }
}
