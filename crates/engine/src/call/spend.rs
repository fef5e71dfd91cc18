//! What a call may cost, and what it has cost: reserved before an attempt, settled when its bill comes.
//!
//! The cap is the tier's or the client's own, whichever is lower. An attempt reserves the price of its whole input and
//! of all the output it may write; what does not fit is clamped, and below a least useful answer it is not started.
//! What is reserved stays reserved until the host says what was used. So spending passes the cap by no more than what an
//! attempt in flight consumes beyond its reservation: an estimate that was too low, or a target that does not keep its
//! limit. A stream that does not is cut.

use super::{Call, Source};
use crate::fleet::Fleet;
use outlast_model::{Price, Usd, record::WhyLeftOut, turn::Usage};

/// A shorter answer than this is not worth paying for, unless the client asks for one.
const LEAST_OUTPUT: u32 = 64;
/// Under a cap, the output limit of a request that names none on a target that states none.
const UNNAMED_OUTPUT: u32 = 8192;
/// Tokens are counted by estimate while a stream runs: it is cut when it is past its limit by a quarter, and by so many.
const ESTIMATE_SLACK: u32 = 16;
/// What a model repair adds to the input beside the broken reply: the violations and the instruction.
const MEND_TOKENS: u32 = 512;

/// The money of one call.
#[derive(Debug)]
pub(super) struct Spend {
    cap: Option<Usd>,
    /// Per attempt what is reserved for it, or its bill once that is known. Empty without a cap.
    ledger: Vec<Usd>,
    /// What judging took, where it took anything, and of whose reply.
    judged: Vec<(Source, Usd)>,
}

/// What an attempt may take under a cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quote {
    reserve: Usd,
    /// The output tokens that are paid for, of each choice.
    pub(super) output: u32,
    /// The same, of all choices together.
    pub(super) paid_for: u32,
    /// The target is to be told this limit, because nobody names one that is as low.
    pub(super) clamp: Option<u32>,
}

impl Spend {
    pub(super) fn new(tier: Option<Usd>, client: Option<Usd>) -> Self {
        let cap = match (tier, client) {
            (Some(tier), Some(client)) => Some(tier.min(client)),
            (one, other) => one.or(other),
        };
        Spend { cap, ledger: Vec::new(), judged: Vec::new() }
    }

    /// What is neither spent nor reserved. `None`: there is no cap.
    pub(super) fn left(&self) -> Option<Usd> {
        let taken: Usd = self.ledger.iter().copied().chain(self.judged.iter().map(|(_, cost)| *cost)).sum();
        self.cap.map(|cap| Usd::from_nanos(cap.as_nanos().saturating_sub(taken.as_nanos())))
    }

    /// What an attempt may take that sends `input` tokens and may write `wanted` for each of so many choices.
    /// `Ok(None)`: there is no cap.
    fn quote(
        &self,
        price: Option<Price>,
        input: u32,
        wanted: Option<u32>,
        choices: u32,
    ) -> Result<Option<Quote>, WhyLeftOut> {
        let Some(left) = self.left() else { return Ok(None) };
        let price = price.ok_or(WhyLeftOut::PriceUnknown)?;
        let cost = |each: u32| {
            let output_tokens = each.saturating_mul(choices);
            price.cost(&Usage { input_tokens: input, output_tokens, ..Usage::default() })
        };
        let limit = wanted.unwrap_or(UNNAMED_OUTPUT);
        let needed = cost(limit.min(LEAST_OUTPUT));
        if needed > left {
            return Err(WhyLeftOut::OverBudget { needed, left });
        }
        let picos = left.as_nanos().saturating_mul(1000).saturating_sub(u64::from(input).saturating_mul(price.input));
        let affordable = picos
            .checked_div(price.output.saturating_mul(u64::from(choices)))
            .map_or(u32::MAX, |it| u32::try_from(it).unwrap_or(u32::MAX));
        let output = limit.min(affordable);
        let clamp = (wanted != Some(output)).then_some(output);
        Ok(Some(Quote { reserve: cost(output), output, paid_for: output.saturating_mul(choices), clamp }))
    }

    /// The next attempt starts.
    pub(super) fn reserve(&mut self, quote: Option<Quote>) {
        if self.cap.is_some() {
            self.ledger.push(quote.map_or(Usd::ZERO, |quote| quote.reserve));
        }
    }

    /// The bill of an attempt has come: it takes the place of what was reserved.
    pub(super) fn bill(&mut self, attempt: u8, cost: Usd) {
        if let Some(entry) = self.ledger.get_mut(usize::from(attempt)) {
            *entry = cost;
        }
    }

    /// Judging a reply took this.
    pub(super) fn judging(&mut self, of: Source, cost: Usd) {
        if cost > Usd::ZERO {
            self.judged.push((of, cost));
        }
    }

    /// What judging took, of the replies that these words fit.
    pub(super) fn judging_of(&self, which: impl Fn(Source) -> bool) -> Usd {
        self.judged.iter().filter(|(of, _)| which(*of)).map(|(_, cost)| *cost).sum()
    }
}

/// So many output tokens, by estimate, are more than a limit of so many allows.
pub(super) fn runaway(limit: u32, tokens: u32) -> bool {
    tokens > limit.saturating_add((limit / 4).max(ESTIMATE_SLACK))
}

impl Call {
    /// What asking this candidate may take. `mending`: the output tokens of the reply that it is to mend.
    pub(super) fn quote(&self, at: usize, mending: Option<u32>, fleet: &Fleet) -> Result<Option<Quote>, WhyLeftOut> {
        if self.spend.cap.is_none() {
            return Ok(None);
        }
        let candidate = &self.candidates[at];
        let spec = &fleet.target(candidate.place.ix).spec;
        let wanted = match (self.needs.max_output_tokens, spec.max_output) {
            (Some(wanted), Some(limit)) => Some(wanted.min(limit)),
            (one, other) => one.or(other),
        };
        let choices = self.needs.more_choices.saturating_add(1);
        let extra = mending.map_or(0, |tokens| tokens.saturating_add(MEND_TOKENS));
        self.spend.quote(spec.price, self.input_on(at, fleet).saturating_add(extra), wanted, choices)
    }

    /// An attempt has written more than it was reserved for: until its bill comes it counts with that.
    pub(super) fn overrun(&mut self, attempt: u8, at: usize, output_tokens: u32, fleet: &Fleet) {
        let input_tokens = self.input_on(at, fleet);
        if let Some(price) = fleet.target(self.candidates[at].place.ix).spec.price {
            self.spend.bill(attempt, price.cost(&Usage { input_tokens, output_tokens, ..Usage::default() }));
        }
    }

    /// The input tokens that this candidate is sent, by its own count.
    fn input_on(&self, at: usize, fleet: &Fleet) -> u32 {
        let candidate = &self.candidates[at];
        let whole = fleet.input_tokens(candidate.place.ix, &self.needs);
        match candidate.shorten_to {
            Some(to) => scaled(to, whole, self.needs.input_tokens).min(whole),
            None => whole,
        }
    }
}

/// So many tokens of one count, in another: `of` of it make `to`.
pub(super) fn scaled(tokens: u32, to: u32, of: u32) -> u32 {
    let exact = u64::from(tokens) * u64::from(to) / u64::from(of.max(1));
    u32::try_from(exact).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// $1 a million in, $10 a million out: a thousand nano-dollars and ten thousand a token.
    const PRICE: Option<Price> =
        Some(Price { input: 1_000_000, output: 10_000_000, cache_read: 1_000_000, cache_write: 1_000_000 });

    fn capped(nanos: u64) -> Spend {
        Spend::new(Some(Usd::from_nanos(nanos)), None)
    }

    #[test]
    fn without_a_cap_nothing_is_asked_and_nothing_kept() {
        let mut spend = Spend::new(None, None);
        assert_eq!(spend.quote(None, 1_000, Some(5), 1), Ok(None));
        spend.reserve(None);
        assert!(spend.ledger.is_empty());
        assert_eq!(spend.left(), None);
    }

    #[test]
    fn the_lower_of_two_caps_holds() {
        let (low, high) = (Usd::from_nanos(5), Usd::from_nanos(9));
        assert_eq!(Spend::new(Some(high), Some(low)).left(), Some(low));
        assert_eq!(Spend::new(Some(low), Some(high)).left(), Some(low));
        assert_eq!(Spend::new(None, Some(high)).left(), Some(high));
    }

    #[test]
    fn output_is_clamped_to_the_money_and_below_a_least_useful_answer_refused() {
        // 100 tokens in cost 100,000; what is left pays for 500 tokens out.
        let spend = capped(5_100_000);
        let quote = spend.quote(PRICE, 100, Some(2_000), 1).unwrap().unwrap();
        assert_eq!((quote.output, quote.clamp, quote.reserve), (500, Some(500), Usd::from_nanos(5_100_000)));
        let quote = spend.quote(PRICE, 100, Some(300), 1).unwrap().unwrap();
        assert_eq!((quote.output, quote.clamp), (300, None), "the client's own limit is low enough");
        let quote = spend.quote(PRICE, 100, None, 1).unwrap().unwrap();
        assert_eq!(quote.clamp, Some(500), "nobody named a limit");
        let (needed, left) = (Usd::from_nanos(740_000), Usd::from_nanos(700_000));
        assert_eq!(capped(700_000).quote(PRICE, 100, None, 1), Err(WhyLeftOut::OverBudget { needed, left }));
        assert!(capped(700_000).quote(PRICE, 100, Some(5), 1).is_ok(), "five tokens are what the client wants");
        assert_eq!(spend.quote(None, 100, None, 1), Err(WhyLeftOut::PriceUnknown));
    }

    #[test]
    fn every_choice_is_paid_for() {
        let spend = capped(5_100_000);
        let quote = spend.quote(PRICE, 100, Some(200), 2).unwrap().unwrap();
        assert_eq!((quote.output, quote.clamp, quote.reserve), (200, None, Usd::from_nanos(4_100_000)));
        let quote = spend.quote(PRICE, 100, Some(200), 5).unwrap().unwrap();
        assert_eq!((quote.output, quote.paid_for, quote.clamp), (100, 500, Some(100)));
        assert!(spend.quote(PRICE, 100, None, 8).is_err(), "eight least answers do not fit");
    }

    #[test]
    fn a_reservation_holds_until_its_bill_comes() {
        let mut spend = capped(5_100_000);
        spend.reserve(spend.quote(PRICE, 100, Some(400), 1).unwrap());
        assert_eq!(spend.left(), Some(Usd::from_nanos(1_000_000)));
        spend.bill(0, Usd::from_nanos(300_000));
        spend.judging(Source::Attempt(0), Usd::from_nanos(800_000));
        assert_eq!(spend.left(), Some(Usd::from_nanos(4_000_000)));
        spend.bill(0, Usd::from_nanos(9_000_000));
        assert_eq!(spend.left(), Some(Usd::ZERO), "an overrun leaves nothing, not less");
    }

    #[test]
    fn free_output_is_not_clamped() {
        let free = Some(Price::default());
        assert_eq!(capped(0).quote(free, 100, Some(2_000), 1).unwrap().unwrap().clamp, None);
    }

    #[test]
    fn a_stream_runs_away_past_its_limit_and_the_slack_of_an_estimate() {
        for (limit, tokens, away) in [(100, 125, false), (100, 126, true), (4, 20, false), (4, 21, true)] {
            assert_eq!(runaway(limit, tokens), away, "{tokens} of {limit}");
        }
    }
}
