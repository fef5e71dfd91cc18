//! Where a process can be made to die, for the tests that prove that it may.
//!
//! `OUTLAST_FAILPOINTS=ledger.intent:3,journal.reply:0.01` makes the process abort when it passes `ledger.intent` for the
//! third time, or `journal.reply` with that chance each time. Aborting runs no destructor and flushes nothing: to the
//! disk and to the network it is what `kill -9` is. Unset, a failpoint costs one load.

use std::{
    collections::BTreeMap,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// The variable that is read once, when the first failpoint is passed.
pub const VARIABLE: &str = "OUTLAST_FAILPOINTS";

/// Every failpoint there is, in the order a step passes them.
pub const ALL: &[&str] = &[
    "run.claimed",
    "ledger.intent",
    "tool.sent",
    "ledger.outcome",
    "journal.reply",
    "run.waits",
    "run.finished",
    "escalation.decided",
];

/// Dies here if it was asked to.
///
/// - `run.claimed`: a claim is committed, nothing was done yet.
/// - `ledger.intent`: an intent is committed, nothing was sent yet.
/// - `tool.sent`: a tool has answered, its outcome is not committed yet.
/// - `ledger.outcome`: an outcome is committed, nobody was told yet.
/// - `journal.reply`: a model's reply is committed, the agent has not seen it yet.
/// - `run.waits`, `run.finished`, `escalation.decided`: that is committed, nobody was told yet.
pub fn pass(name: &'static str) {
    static PLAN: OnceLock<BTreeMap<&'static str, Trap>> = OnceLock::new();
    debug_assert!(ALL.contains(&name), "{name} is not in the list");
    let plan = PLAN.get_or_init(|| std::env::var(VARIABLE).map_or_else(|_| BTreeMap::new(), |plan| traps(&plan)));
    if let Some(trap) = plan.get(name)
        && trap.snaps()
    {
        eprintln!("failpoint {name}: aborting, as {VARIABLE} asks");
        std::process::abort();
    }
}

struct Trap {
    /// The pass that is the last; none: each with a chance.
    at: Option<u64>,
    /// In 2^64 parts.
    chance: u64,
    passed: AtomicU64,
}

impl Trap {
    fn snaps(&self) -> bool {
        let passed = self.passed.fetch_add(1, Ordering::Relaxed) + 1;
        match self.at {
            Some(at) => passed == at,
            None => draw(passed) < self.chance,
        }
    }
}

/// What is not understood is said, and left out.
fn traps(plan: &str) -> BTreeMap<&'static str, Trap> {
    let mut traps = BTreeMap::new();
    for part in plan.split(',').filter(|part| !part.trim().is_empty()) {
        let parsed = part.split_once(':').and_then(|(name, when)| {
            let name = ALL.iter().find(|known| **known == name.trim())?;
            let trap = match when.trim().parse::<u64>() {
                Ok(at) => Trap { at: Some(at), chance: 0, passed: AtomicU64::new(0) },
                Err(_) => {
                    let chance = when.trim().parse::<f64>().ok().filter(|chance| (0.0..=1.0).contains(chance))?;
                    // Saturates at the largest number.
                    let chance = (chance * u64::MAX as f64) as u64;
                    Trap { at: None, chance, passed: AtomicU64::new(u64::from(std::process::id())) }
                }
            };
            Some((*name, trap))
        });
        match parsed {
            Some((name, trap)) => drop(traps.insert(name, trap)),
            None => eprintln!("{VARIABLE}: `{part}` is not understood: write NAME:TIMES or NAME:CHANCE of {ALL:?}"),
        }
    }
    traps
}

/// Spreads consecutive numbers over 64 bits: the finaliser of SplitMix64.
fn draw(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trap_snaps_the_time_it_was_set_for_and_never_again() {
        let traps = traps("ledger.intent:3, tool.sent:0.25,nonsense,run.claimed:x");
        assert_eq!(traps.len(), 2);
        let snaps: Vec<bool> = (0..5).map(|_| traps["ledger.intent"].snaps()).collect();
        assert_eq!(snaps, [false, false, true, false, false]);
        let snapped = (0..10_000).filter(|_| traps["tool.sent"].snaps()).count();
        assert!((2_300..2_700).contains(&snapped), "{snapped} of 10,000");
    }
}
