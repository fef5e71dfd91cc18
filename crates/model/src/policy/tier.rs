//! Tiers: how much redundancy a route or step may spend.

use super::Judge;
use crate::Usd;
use std::{sync::Arc, time::Duration};

/// How much redundancy a route may spend.
#[derive(Clone, Debug, PartialEq)]
pub struct Tier {
    /// Its name.
    pub name: Arc<str>,
    /// The most attempts of one call, the first included; at least 1.
    pub attempts: u8,
    /// How many distinct providers a route of this tier must be able to use; checked at load.
    pub distinct_providers: u8,
    /// From admission to the end of the reply.
    pub deadline: Duration,
    /// The most one call may cost, everything included. An attempt that cannot fit is not started.
    pub cost_max: Option<Usd>,
    /// Whether a slow first output is raced by another target.
    pub hedge: Option<Hedge>,
    /// Whether several replies vote.
    pub votes: Option<Votes>,
    /// The backstops, by name, of routes that name none of their own.
    pub exhausted: Vec<Arc<str>>,
}

impl Tier {
    /// The built-in tiers: `none`, `basic`, `standard`, `critical`.
    pub fn built_in() -> [Tier; 4] {
        let tier = |name: &str, attempts, distinct_providers, secs| Tier {
            name: name.into(),
            attempts,
            distinct_providers,
            deadline: Duration::from_secs(secs),
            cost_max: None,
            hedge: None,
            votes: None,
            exhausted: Vec::new(),
        };
        [tier("none", 1, 1, 600), tier("basic", 2, 1, 600), tier("standard", 3, 1, 600), tier("critical", 4, 2, 120)]
    }
}

/// A second target is asked when the first is slower than 95 of 100 replies; who speaks first wins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hedge {
    /// The largest share of calls that may be hedged, 0 to 1.
    pub budget: f64,
}

/// Several replies vote: the first answer that is `ahead` of every other one wins.
#[derive(Clone, Debug, PartialEq)]
pub struct Votes {
    /// By how many votes the winner must lead; at least 1.
    pub ahead: u8,
    /// The most replies asked for.
    pub samples: u8,
    /// Where they come from.
    pub spread: VoteSpread,
    /// When two JSON replies agree, field by field; a field without a rule is compared exactly.
    pub fields: Vec<FieldRule>,
    /// Who says whether two texts mean the same that do not use the same words; without one they differ. JSON is never
    /// put to it. A judge that gives no verdict leaves them different.
    pub judge: Option<Judge>,
    /// What comes when nobody wins.
    pub disagreement: Disagreement,
}

/// Where the votes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteSpread {
    /// A different target each, as long as there are any.
    Targets,
    /// The best target each time.
    Samples,
}

/// How one field of two replies is compared.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldRule {
    /// Its path in the reply's JSON, such as `items.price`; lists are gone through.
    pub path: Arc<str>,
    /// How.
    pub agree: Agree,
}

/// When two values agree.
#[derive(Clone, Debug, PartialEq)]
pub enum Agree {
    /// Equal.
    Exact,
    /// Numbers no further apart than this.
    Number(f64),
    /// Texts equal but for case, punctuation and white space.
    Text,
    /// Lists with the same members in any order; objects in them are matched by this key.
    Set(Option<Arc<str>>),
    /// Always: the field does not matter.
    Ignore,
}

/// What comes when the votes disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disagreement {
    /// The backstops, as for any quality failure.
    Fail,
    /// The answer with the most votes, marked degraded. A tie fails.
    Majority,
}
