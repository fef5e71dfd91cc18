//! What a request weighs on a target: tokens and money.
//!
//! The wire estimates tokens without knowing any model's tokenizer. What targets report corrects that, each for itself,
//! so that a prompt that does not fit is found out before it is sent.

use super::Fleet;
use outlast_model::policy::Needs;

/// The correction before anything is known weighs as much as so many tokens.
const PRIOR: f64 = 1000.0;
/// With every report earlier ones lose a twentieth.
const KEEP: f64 = 0.95;
/// One report counts for no more than this: tiny prompts carry a fixed overhead, and a report may be wrong.
const REPORT: (f64, f64) = (0.25, 6.0);
/// The correction stays within this.
const RATIO: (f64, f64) = (0.5, 3.0);

/// How many input tokens a target counts where the estimate says one. Weighed by tokens: long prompts are the ones that
/// have to fit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenScale {
    reported: f64,
    estimated: f64,
}

impl Default for TokenScale {
    fn default() -> Self {
        TokenScale { reported: PRIOR, estimated: PRIOR }
    }
}

impl TokenScale {
    fn learn(&mut self, estimated: u32, reported: u32) {
        if estimated == 0 || reported == 0 {
            return;
        }
        let estimated = f64::from(estimated);
        let reported = f64::from(reported).clamp(estimated * REPORT.0, estimated * REPORT.1);
        self.reported = self.reported * KEEP + reported;
        self.estimated = self.estimated * KEEP + estimated;
    }

    pub(crate) fn ratio(&self) -> f64 {
        (self.reported / self.estimated).clamp(RATIO.0, RATIO.1)
    }

    fn apply(&self, estimated: u32) -> u32 {
        // A float-to-int cast saturates.
        (f64::from(estimated) * self.ratio()).round() as u32
    }
}

impl Fleet {
    /// A target reported how many input tokens a request took that was estimated at so many. Not to be told of usage
    /// that is itself an estimate, nor of requests that were changed on their way.
    pub(crate) fn learn_tokens(&mut self, ix: usize, estimated: u32, reported: u32) {
        self.targets[ix].tokens.learn(estimated, reported);
    }

    /// The input tokens of such a request on this target: the estimate, corrected by what it has reported so far.
    pub(crate) fn input_tokens(&self, ix: usize, needs: &Needs) -> u32 {
        self.targets[ix].tokens.apply(needs.input_tokens)
    }

    /// What such a request is expected to cost on a target, in nano-dollars.
    pub(crate) fn expected_cost(&self, ix: usize, needs: &Needs) -> Option<u64> {
        /// Output of a request that names no limit, or a generous one.
        const TYPICAL_OUTPUT: u32 = 250;
        let usage = outlast_model::turn::Usage {
            input_tokens: self.input_tokens(ix, needs),
            output_tokens: needs.max_output_tokens.map_or(TYPICAL_OUTPUT, |limit| limit.min(TYPICAL_OUTPUT)),
            ..Default::default()
        };
        self.targets[ix].spec.price.map(|price| price.cost(&usage).as_nanos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_30_percent_low_is_corrected_within_a_few_reports() {
        let mut scale = TokenScale::default();
        (0..10).for_each(|_| scale.learn(7_000, 10_000));
        assert!((scale.ratio() - 1.0 / 0.7).abs() < 0.05, "{}", scale.ratio());
        assert!(scale.apply(70_000) > 97_000);
    }

    #[test]
    fn the_overhead_of_tiny_prompts_says_little_about_long_ones() {
        let mut scale = TokenScale::default();
        (0..20).for_each(|_| scale.learn(20_000, 20_000));
        (0..20).for_each(|_| scale.learn(5, 30));
        assert!(scale.ratio() < 1.01, "{}", scale.ratio());
    }

    #[test]
    fn absurd_reports_stay_within_bounds_and_none_changes_nothing() {
        let mut scale = TokenScale::default();
        (0..200).for_each(|_| scale.learn(100_000, u32::MAX));
        assert_eq!(scale.ratio(), 3.0);
        (0..200).for_each(|_| scale.learn(100_000, 1));
        assert_eq!(scale.ratio(), 0.5);
        let before = scale.ratio();
        scale.learn(100, 0);
        scale.learn(0, 100);
        assert_eq!(scale.ratio(), before);
        assert_eq!(scale.apply(u32::MAX), u32::MAX / 2 + 1);
    }
}
