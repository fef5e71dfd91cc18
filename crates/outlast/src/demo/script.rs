//! What is broken when. Faults are written in the words of `docs/faults.md`.

use std::time::Duration;

/// One phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Phase {
    /// For the table.
    pub(super) name: &'static str,
    /// For the banner: what happens and what to look for.
    pub(super) story: &'static str,
    /// What the primary does wrong; none heals it.
    pub(super) fault: Option<&'static str>,
    /// For how long.
    pub(super) lasts: Duration,
}

/// The whole.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) phases: Vec<Phase>,
    pub(super) requests_per_second: u32,
}

impl Script {
    /// A little more than a minute.
    pub(super) fn full() -> Self {
        let phases = vec![
            phase("healthy", "vendor-a serves everything", None, 5),
            phase("503", "vendor-a is down: 503 at once", Some("503"), 6),
            phase("healed", "vendor-a works again: probes, then its share grows", None, 6),
            phase("hang", "vendor-a takes requests and never answers", Some("hang"), 7),
            phase("healed", "vendor-a works again", None, 6),
            phase("429", "vendor-a says: too many requests, come back in 3 s", Some("429:retry-after=3"), 6),
            phase("healed", "its schedule is over; no breaker was moved", None, 4),
            phase("cut early", "vendor-a's streams break off after 10 of 48 chunks", Some("cut:after=10,how=reset"), 5),
            phase("healed", "vendor-a works again", None, 6),
            phase("stall late", "vendor-a's streams stop after 40 of 48 chunks", Some("stall:after=40"), 5),
            phase("healed", "vendor-a works again", None, 6),
            phase("1 in 4", "every fourth call to vendor-a fails", Some("500:share=0.25"), 8),
            phase("healed", "and it ends as it began", None, 5),
        ];
        Script { phases, requests_per_second: 20 }
    }

    /// Three of the faults, for a shorter time.
    pub(super) fn fast() -> Self {
        let phases = vec![
            phase("healthy", "vendor-a serves everything", None, 2),
            phase("503", "vendor-a is down: 503 at once", Some("503"), 3),
            phase("healed", "vendor-a works again: probes, then its share grows", None, 4),
            phase("cut early", "vendor-a's streams break off after 10 of 48 chunks", Some("cut:after=10,how=reset"), 3),
            phase("healed", "vendor-a works again", None, 4),
            phase("hang", "vendor-a takes requests and never answers", Some("hang"), 4),
            phase("healed", "and it ends as it began", None, 3),
        ];
        Script { phases, requests_per_second: 20 }
    }
}

fn phase(name: &'static str, story: &'static str, fault: Option<&'static str>, secs: u64) -> Phase {
    Phase { name, story, fault, lasts: Duration::from_secs(secs) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlast_drill::FaultPlan;

    #[test]
    fn every_fault_of_the_script_is_in_the_vocabulary_and_is_healed() {
        for script in [Script::full(), Script::fast()] {
            check(&script);
        }
    }

    fn check(script: &Script) {
        for pair in script.phases.windows(2) {
            let [phase, next] = pair else { continue };
            if let Some(fault) = phase.fault {
                assert!(fault.parse::<FaultPlan>().is_ok(), "{fault}");
                assert_eq!(next.fault, None, "after {}", phase.name);
            }
        }
        assert_eq!(script.phases.last().unwrap().fault, None);
        assert!(script.phases.iter().map(|phase| phase.lasts).sum::<Duration>() < Duration::from_secs(90));
    }
}
