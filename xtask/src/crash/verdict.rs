//! What came of it, held against what is promised.

use super::downstream::{Counts, EFFECTS};
use std::{collections::BTreeMap, fmt};

/// What was done to them, and decided for them.
#[derive(Clone, Debug, Default)]
pub(super) struct Bill {
    pub(super) kills: u32,
    pub(super) stops: u32,
    pub(super) restarts: u32,
    pub(super) decided: BTreeMap<String, u32>,
}

/// What came of the runs.
pub(super) struct Verdict {
    runs: usize,
    /// Not known any more, or not done when everything had been quiet for long.
    lost: Vec<String>,
    /// Done without an effect that has to be there.
    missing: Vec<String>,
    /// By effect: what took place more than once.
    twice: BTreeMap<&'static str, Vec<String>>,
    calls: u64,
    spoilt: u64,
    bill: Bill,
}

/// Counts it out.
pub(super) fn judge(runs: Vec<(String, Option<String>)>, counts: &Counts, bill: Bill) -> Verdict {
    let mut verdict = Verdict {
        runs: runs.len(),
        lost: Vec::new(),
        missing: Vec::new(),
        twice: BTreeMap::new(),
        calls: counts.calls,
        spoilt: counts.spoilt,
        bill,
    };
    for (order, state) in runs {
        if state.as_deref() != Some("done") {
            verdict.lost.push(format!("{order} ({})", state.as_deref().unwrap_or("unknown")));
        }
        for effect in EFFECTS {
            match counts.of(effect, &order) {
                0 if state.as_deref() == Some("done") => verdict.missing.push(format!("{effect} of {order}")),
                0 | 1 => {}
                times => verdict.twice.entry(effect).or_default().push(format!("{order} ({times})")),
            }
        }
    }
    verdict
}

impl Verdict {
    /// Whether every promise was kept.
    ///
    /// # Errors
    /// The first that was not.
    pub(super) fn holds(&self) -> Result<(), String> {
        let shown = |list: &[String]| list.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
        if !self.lost.is_empty() {
            return Err(format!("{} runs are not done: {}", self.lost.len(), shown(&self.lost)));
        }
        if !self.missing.is_empty() {
            return Err(format!("{} effects are missing: {}", self.missing.len(), shown(&self.missing)));
        }
        for effect in EFFECTS {
            let twice = self.twice.get(effect).map_or(&[][..], Vec::as_slice);
            // A process that was stopped may send once more than it should have; whoever asked meanwhile was told that
            // nothing had happened. One for each stop is what the class `verify` admits to.
            let bound = if effect == "ticket" { self.bill.stops as usize } else { 0 };
            if twice.len() > bound {
                return Err(format!("{effect}: {} took place more than once: {}", twice.len(), shown(twice)));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bill { kills, stops, restarts, decided } = &self.bill;
        writeln!(
            f,
            "{} runs, {} calls of the world outside, {} of them answered badly",
            self.runs, self.calls, self.spoilt
        )?;
        writeln!(f, "{kills} killed, {stops} stopped for a while, {restarts} started again")?;
        writeln!(f, "lost {}, done but missing {}", self.lost.len(), self.missing.len())?;
        for (effect, class) in EFFECTS.into_iter().zip(["keyed", "tx", "verify", "once"]) {
            let twice = self.twice.get(effect).map_or(&[][..], Vec::as_slice);
            writeln!(f, "more than once, {class}: {} {}", twice.len(), twice.join(", "))?;
        }
        let decided: Vec<String> = decided.iter().map(|(verb, times)| format!("{verb} {times}")).collect();
        write!(f, "decided by the reviewer: {}", if decided.is_empty() { "nothing".into() } else { decided.join(", ") })
    }
}
