//! When a fault is injected: how often, how many times, and in which stretch of time.

use super::{
    Fault, ParseFaultError,
    text::{Args, Time},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

/// A fault on a schedule. Its text form adds arguments to the fault's own:
/// `503:retry-after=1,share=0.3,first=20,from=10s,until=40s`. JSON carries the same text.
///
/// The plan is data: the host counts calls and time and draws the lot.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultPlan {
    /// What is injected.
    pub fault: Fault,
    /// The share of calls it bites, above 0 and at most 1.
    pub share: f64,
    /// Only this many calls, counted from the first bitten; `None` is no limit.
    pub first: Option<u32>,
    /// Not before this long after the plan was set.
    pub from: Duration,
    /// Not from this long after the plan was set; `None` is for ever.
    pub until: Option<Duration>,
}

impl FaultPlan {
    /// Every call, for ever.
    pub fn always(fault: Fault) -> Self {
        FaultPlan { fault, share: 1.0, first: None, from: Duration::ZERO, until: None }
    }

    /// Only the first `count` calls.
    pub fn first(fault: Fault, count: u32) -> Self {
        FaultPlan { first: Some(count), ..FaultPlan::always(fault) }
    }

    /// Whether it bites a call now: `since_set` after the plan was set, `bitten` calls bitten before, and
    /// `draw` uniform in `[0, 1)`.
    pub fn bites(&self, since_set: Duration, bitten: u32, draw: f64) -> bool {
        since_set >= self.from
            && self.until.is_none_or(|until| since_set < until)
            && self.first.is_none_or(|first| bitten < first)
            && draw < self.share
    }
}

impl From<Fault> for FaultPlan {
    fn from(fault: Fault) -> Self {
        FaultPlan::always(fault)
    }
}

impl fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = self.fault.to_string();
        let mut joint = if fault.contains(':') { ',' } else { ':' };
        f.write_str(&fault)?;
        let mut put = |f: &mut fmt::Formatter<'_>, key: &str, value: &dyn fmt::Display| {
            write!(f, "{joint}{key}={value}")?;
            joint = ',';
            Ok(())
        };
        if self.share < 1.0 {
            put(f, "share", &self.share)?;
        }
        if let Some(first) = self.first {
            put(f, "first", &first)?;
        }
        if !self.from.is_zero() {
            put(f, "from", &Time(self.from))?;
        }
        if let Some(until) = self.until {
            put(f, "until", &Time(until))?;
        }
        Ok(())
    }
}

impl FromStr for FaultPlan {
    type Err = ParseFaultError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut args = Args::split(text)?;
        let fault = Fault::take(&mut args)?;
        let share = match args.value("share") {
            None => 1.0,
            Some(value) => match value.parse::<f64>() {
                Ok(share) if share > 0.0 && share <= 1.0 => share,
                Ok(_) | Err(_) => return Err(args.error(format!("share={value}: give more than 0 and at most 1"))),
            },
        };
        let first = match args.value("first") {
            None => None,
            Some(value) => {
                Some(value.parse::<u32>().map_err(|_| args.error(format!("first={value}: give a whole number")))?)
            }
        };
        let from = args.time("from")?.unwrap_or_default();
        let until = args.time("until")?;
        if until.is_some_and(|until| until <= from) {
            return Err(args.error("`until` must be later than `from`".into()));
        }
        args.end()?;
        Ok(FaultPlan { fault, share, first, from, until })
    }
}

impl Serialize for FaultPlan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FaultPlan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_plan_bites_within_its_time_its_count_and_its_share() {
        let plan: FaultPlan = "503:retry-after=1,share=0.5,first=2,from=10s,until=20s".parse().unwrap();
        let at = Duration::from_secs;
        assert!(plan.bites(at(10), 0, 0.49));
        assert!(!plan.bites(at(10), 0, 0.5), "outside its share");
        assert!(!plan.bites(at(9), 0, 0.0), "too early");
        assert!(!plan.bites(at(20), 0, 0.0), "too late");
        assert!(!plan.bites(at(10), 2, 0.0), "it has bitten its two");
    }

    #[test]
    fn a_plan_without_a_schedule_reads_as_its_fault() {
        assert_eq!(
            "hang".parse::<FaultPlan>().unwrap(),
            FaultPlan::always(Fault::Hang(super::super::Position::BeforeHeaders))
        );
        assert_eq!(FaultPlan::first(Fault::Auth, 3).to_string(), "auth:first=3");
    }

    #[test]
    fn a_schedule_that_can_never_bite_is_refused() {
        for text in ["500:share=0", "500:share=1.1", "500:share=x", "500:from=9s,until=3s", "500:first=x", "500:day=1"]
        {
            assert!(text.parse::<FaultPlan>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_plan_survives_its_text_form(
            fault in proptest::sample::select(Fault::EXAMPLES.to_vec()),
            share in prop_oneof![Just(1.0), 0.001..1.0f64],
            first in proptest::option::of(any::<u32>()),
            from in 0u64..100_000,
            length in proptest::option::of(1u64..100_000),
        ) {
            let plan = FaultPlan {
                fault, share, first,
                from: Duration::from_millis(from),
                until: length.map(|length| Duration::from_millis(from + length)),
            };
            prop_assert_eq!(plan.to_string().parse::<FaultPlan>(), Ok(plan));
        }
    }
}
