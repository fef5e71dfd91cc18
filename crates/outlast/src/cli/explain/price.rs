//! What a call of a route costs: for a typical request, at best and at worst. Bounds, from the same prices and limits
//! that the gateway reserves by.

use crate::config::Config;
use outlast_model::{
    Usd,
    policy::{ConfidenceFrom, Judge, Route, TargetSpec, VoteSpread},
    turn::Usage,
};
use serde_json::{Value, json};
use std::fmt::Write;

/// The request that prices are shown for, in tokens.
const TYPICAL: Usage = usage(1000, 300);
/// What a judge reads and writes for it: question, answer and instructions; a score and a sentence.
const VERDICT: Usage = usage(1600, 60);
/// The least output that an attempt under a cap is started for.
const LEAST: Usage = usage(TYPICAL.input_tokens, 64);

const fn usage(input_tokens: u32, output_tokens: u32) -> Usage {
    Usage {
        input_tokens,
        output_tokens,
        cache_read_tokens: 0,
        cache_write_tokens: 0,
        reasoning_tokens: 0,
        estimated: true,
    }
}

/// The price of a route's tier. A figure is absent where a price it needs is unknown.
pub(super) struct TierPrice {
    cap: Option<Usd>,
    first: Option<Usd>,
    attempts: Option<Usd>,
    hedge: Option<(f64, Option<Usd>)>,
    /// The least and the most that votes cost.
    votes: Option<(Option<Usd>, Option<Usd>)>,
    judging: Option<Option<Usd>>,
    /// What telling two texts apart costs, where a judge of the tier does.
    comparing: Option<Option<Usd>>,
    worst: Option<Usd>,
    /// What the cap leaves out, and why.
    left_out: Vec<(String, &'static str)>,
}

/// Computes it for the targets that the contract permits, in their order.
pub(super) fn of(config: &Config, route: &Route, permitted: &[&TargetSpec]) -> TierPrice {
    let (tier, contract) = (&route.tier, &route.contract);
    let mut left_out = Vec::new();
    let asked: Vec<&TargetSpec> = permitted
        .iter()
        .copied()
        .filter(|spec| {
            let Some(cap) = tier.cost_max else { return true };
            let why = match spec.price {
                None => Some("its price is unknown"),
                Some(price) => (price.cost(&LEAST) > cap).then_some("64 tokens of output would cost more than the cap"),
            };
            left_out.extend(why.map(|why| (spec.id.to_string(), why)));
            why.is_none()
        })
        .collect();
    let cost = |spec: &&TargetSpec| spec.price.map(|price| price.cost(&TYPICAL));
    let costs: Option<Vec<Usd>> = asked.iter().map(cost).collect();
    let capped = |cost: Usd| tier.cost_max.map_or(cost, |cap| cost.min(cap));

    let first = asked.first().and_then(cost);
    // Each target is asked once, and once more to mend its reply; one of them again after a fault.
    let times = if contract.repair.model { 2 } else { 1 };
    let attempts = costs.clone().filter(|costs| !costs.is_empty()).map(|mut costs| {
        costs.sort_unstable_by(|a, b| b.cmp(a));
        let again = costs[0];
        let slots = costs.into_iter().flat_map(|cost| std::iter::repeat_n(cost, times));
        std::iter::once(again).chain(slots).take(tier.attempts.into()).sum::<Usd>()
    });
    let hedge = tier.hedge.map(|hedge| (hedge.budget, asked.get(1).and_then(cost)));
    let votes = tier.votes.as_ref().map(|votes| {
        let ballots = |count: u8| {
            let costs = costs.as_ref().filter(|costs| !costs.is_empty())?;
            let spread = match votes.spread {
                VoteSpread::Targets => costs.len(),
                VoteSpread::Samples => 1,
            };
            Some(costs[..spread].iter().copied().cycle().take(count.into()).sum())
        };
        (ballots(votes.ahead), ballots(votes.samples))
    });
    let verdict = |judge: &Judge| {
        let first = config.route(judge.route.as_str()).and_then(|route| route.targets.first());
        let price = first.and_then(|entry| config.target(entry.target.as_str())).and_then(|spec| spec.price);
        let cost = price.map(|price| price.cost(&VERDICT));
        cost.map(|cost| judge.cost_max.map_or(cost, |most| cost.min(most))).or(judge.cost_max)
    };
    let judging = contract.confidence.as_ref().and_then(|confidence| match &confidence.from {
        ConfidenceFrom::Judge(judge) => Some(verdict(judge)),
        ConfidenceFrom::Field(_) | ConfidenceFrom::Votes => None,
    });
    let replies = match &tier.votes {
        Some(_) => votes.and_then(|(_, most)| most),
        None => attempts,
    };
    let judged = match judging {
        None => Some(Usd::ZERO),
        // Every reply that passed everything else is judged.
        Some(verdict) => verdict.map(|cost| std::iter::repeat_n(cost, tier.attempts.into()).sum()),
    };
    let comparing = tier.votes.as_ref().and_then(|votes| votes.judge.as_ref()).map(verdict);
    let compared = match comparing {
        None => Some(Usd::ZERO),
        // Texts that all differ are all compared with each other.
        Some(cost) => {
            let samples = tier.votes.as_ref().map_or(0, |votes| usize::from(votes.samples));
            cost.map(|cost| std::iter::repeat_n(cost, samples * samples.saturating_sub(1) / 2).sum())
        }
    };
    let judged = judged.zip(compared).map(|(judged, compared)| judged + compared);
    let worst = replies.zip(judged).map(|(replies, judged)| capped(replies + judged)).or(tier.cost_max);
    TierPrice { cap: tier.cost_max, first, attempts, hedge, votes, judging, comparing, worst, left_out }
}

impl TierPrice {
    /// What a call may cost at most; none for want of a price.
    pub(super) fn worst(&self) -> Option<Usd> {
        self.worst
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let shown =
            |cost: Option<Usd>| cost.map_or("unknown, for want of a price".to_owned(), |cost| format!("${cost}"));
        let mut text = format!("What a call costs ({} tokens in, {} out)", TYPICAL.input_tokens, TYPICAL.output_tokens);
        let mut row = |name: &str, says: String| {
            let _ = write!(text, "\n  {name:<22}{says}");
        };
        row("first attempt", shown(self.first));
        row("every attempt spent", shown(self.attempts));
        if let Some((share, cost)) = &self.hedge {
            row("a race", format!("{} more, in at most {} % of the calls", shown(*cost), share * 100.0));
        }
        if let Some((least, most)) = &self.votes {
            row("votes", format!("{} to {}", shown(*least), shown(*most)));
        }
        if let Some(cost) = &self.judging {
            row("a verdict", shown(*cost));
        }
        if let Some(cost) = &self.comparing {
            row("a comparison", shown(*cost));
        }
        let cap = self.cap.map(|cap| format!(", capped at ${cap}")).unwrap_or_default();
        row("at worst", format!("{}{cap}", shown(self.worst)));
        for (target, why) in &self.left_out {
            row("left out", format!("{target}: {why}"));
        }
        text
    }

    /// For machines: dollars, null where a price is unknown.
    pub(super) fn json(&self) -> Value {
        let dollars = |cost: Option<Usd>| cost.map(Usd::as_dollars);
        json!({
            "typical": { "input_tokens": TYPICAL.input_tokens, "output_tokens": TYPICAL.output_tokens },
            "cap_usd": dollars(self.cap),
            "first_attempt_usd": dollars(self.first),
            "every_attempt_usd": dollars(self.attempts),
            "hedge": self.hedge.map(|(share, cost)| json!({ "share": share, "usd": dollars(cost) })),
            "votes": self.votes.map(|(least, most)| json!({ "least_usd": dollars(least), "most_usd": dollars(most) })),
            "verdict_usd": self.judging.map(dollars),
            "comparison_usd": self.comparing.map(dollars),
            "worst_usd": dollars(self.worst),
            "left_out": self.left_out.iter().map(|(target, why)| json!({ "target": target, "why": why })).collect::<Vec<_>>(),
        })
    }
}
