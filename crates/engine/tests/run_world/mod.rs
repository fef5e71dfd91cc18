//! What the tests of runs and of the ledger share.
#![allow(dead_code, reason = "each test uses its part")]

pub(crate) use outlast_engine::run::Ask;
use outlast_engine::run::{Answer, Ended, Entry, Event, Proof, transition};
use outlast_model::{
    Usd, Wall,
    run::{EffectClass, RetryBudget},
};
use std::time::Duration;

pub(crate) const NOW: Wall = Wall(1_800_000_000_000);
pub(crate) const QUIET: Duration = Duration::from_secs(3);
pub(crate) const TTL: Duration = Duration::from_secs(60);
pub(crate) const PURE: EffectClass = EffectClass::Pure;
pub(crate) const TX: EffectClass = EffectClass::Tx;
pub(crate) const KEYED: EffectClass = EffectClass::Keyed { key_ttl: TTL, verify: None };
pub(crate) const KEYED_ASKABLE: EffectClass = EffectClass::Keyed { key_ttl: TTL, verify: Some(QUIET) };
pub(crate) const VERIFY: EffectClass = EffectClass::Verify { quiet_period: QUIET };
pub(crate) const ONCE: EffectClass = EffectClass::Once;
pub(crate) const AGAIN: Proof = Proof::Again { after: Duration::ZERO };

/// So many milliseconds after [`NOW`].
pub(crate) fn at(millis: i64) -> Wall {
    Wall(NOW.0 + millis)
}

pub(crate) fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap()
}

/// Asked with this claim. [`begin`] sets the times.
pub(crate) fn ask(class: EffectClass, epoch: i64) -> Ask {
    Ask {
        class,
        fingerprint: [1; 32],
        budget: RetryBudget::default(),
        epoch,
        held_until: Wall(0),
        deadline: Wall(0),
        needs_approval: false,
        strict: false,
        takes_over: None,
    }
}

/// One that was never asked for. Its budget is that of the first [`begin`].
pub(crate) fn entry(class: EffectClass) -> Entry {
    Entry::new(&ask(class, 0), NOW)
}

/// Begins with a claim that stands for 1 s and a call that takes at most 2 s, unless the asker says otherwise.
pub(crate) fn begin(entry: &mut Entry, mut ask: Ask, now: Wall) -> Answer {
    if entry.attempt == 0 {
        entry.budget = ask.budget;
    }
    if ask.held_until == Wall(0) {
        ask.held_until = Wall(now.0 + 1_000);
    }
    if ask.deadline == Wall(0) {
        ask.deadline = Wall(now.0 + 2_000);
    }
    transition(entry, Event::Begin(ask), now)
}

pub(crate) fn end(entry: &mut Entry, epoch: i64, attempt: u32, ended: Ended, now: Wall) -> Answer {
    transition(entry, Event::End { epoch, attempt, ended, cost: Usd::from_nanos(1) }, now)
}
