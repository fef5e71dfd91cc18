//! The ledger under any history: what it must never do.

mod run_world;

use outlast_engine::run::{Answer, Ended, Entry, Event, Proof, Resolution, transition};
use outlast_model::{
    Usd, Wall,
    run::{EffectClass, EscalationKind, Exhausted, LedgerState, RetryBudget},
};
use proptest::prelude::*;
use run_world::{Ask, KEYED, KEYED_ASKABLE, ONCE, PURE, QUIET, TTL, TX, VERIFY, ask, at, ms};
use std::time::Duration;

#[derive(Clone, Debug)]
enum Happens {
    Passes(i64),
    /// Somebody with a new claim, or the last one, begins it; a new one may know that the last one is gone.
    Begins {
        anew: bool,
        knows: bool,
        lease: i64,
        call: i64,
        changed: bool,
        needs_approval: bool,
    },
    /// Whoever began so many attempts ago says how it ended.
    Ends {
        ago: usize,
        ended: Ended,
    },
    Renews {
        lease: i64,
    },
    Lapses,
    Decides(Resolution),
}

fn happens() -> impl Strategy<Value = Happens> {
    let ended = prop_oneof![
        Just(Ended::Done),
        Just(Ended::Unknown),
        Just(Ended::Unknown),
        Just(Ended::Failed(Proof::Final)),
        (0..5_000_u64).prop_map(|after| Ended::Failed(Proof::Again { after: Duration::from_millis(after) })),
        Just(Ended::Review(EscalationKind::LowConfidence)),
    ];
    let resolution = prop_oneof![Just(Resolution::Try), Just(Resolution::Done), Just(Resolution::Failed)];
    prop_oneof![
        4 => prop_oneof![0..2_000_i64, 0..20_000_i64].prop_map(Happens::Passes),
        6 => (any::<bool>(), any::<bool>(), 1..3_000_i64, 1..5_000_i64, prop::bool::weighted(0.1), prop::bool::weighted(0.1))
            .prop_map(|(anew, knows, lease, call, changed, needs_approval)| {
                Happens::Begins { anew, knows, lease, call, changed, needs_approval }
            }),
        4 => (0..3_usize, ended).prop_map(|(ago, ended)| Happens::Ends { ago, ended }),
        1 => (1..3_000_i64).prop_map(|lease| Happens::Renews { lease }),
        1 => Just(Happens::Lapses),
        2 => resolution.prop_map(Happens::Decides),
    ]
}

fn class() -> impl Strategy<Value = EffectClass> {
    prop::sample::select(vec![PURE, TX, KEYED, KEYED_ASKABLE, VERIFY, ONCE])
}

fn budget() -> impl Strategy<Value = RetryBudget> {
    (1..5_u32, any::<bool>(), prop::option::of(1..4_u64)).prop_map(|(attempts, fails, cost)| RetryBudget {
        attempts,
        cost_max: cost.map(Usd::from_nanos),
        exhausted: if fails { Exhausted::Fail } else { Exhausted::Escalate },
        ..RetryBudget::default()
    })
}

/// What an onlooker remembers of a history.
struct Onlooker {
    entry: Entry,
    now: Wall,
    claims: i64,
    /// Claims and attempts that were to be executed or asked about, the last one last.
    told: Vec<(i64, u32)>,
    /// When nothing of the last attempt can happen any more.
    over: Wall,
    /// Its holder said that it does not know.
    confessed: Option<Wall>,
    since_a_person: u32,
    /// Of the last attempt it is known that it did not take place.
    absent: bool,
}

impl Onlooker {
    fn sees(&mut self, class: EffectClass, budget: RetryBudget, what: &Happens) -> Result<(), TestCaseError> {
        let before = self.entry.clone();
        let answer = match *what {
            Happens::Passes(millis) => {
                self.now = Wall(self.now.0 + millis);
                return Ok(());
            }
            Happens::Begins { .. } => self.begins(class, budget, what)?,
            Happens::Ends { ago, ended } => {
                let Some((epoch, attempt)) = self.told.iter().rev().nth(ago).copied() else { return Ok(()) };
                let event = Event::End { epoch, attempt, ended, cost: Usd::from_nanos(1) };
                let answer = transition(&mut self.entry, event, self.now);
                self.ended(&before, (epoch, attempt), ended, answer)?;
                answer
            }
            Happens::Renews { lease } => {
                let until = Wall(self.now.0 + lease);
                if self.entry.renew(self.entry.epoch, until) {
                    self.over = self.over.max(until);
                }
                return Ok(());
            }
            Happens::Lapses => transition(&mut self.entry, Event::Lapse, self.now),
            Happens::Decides(resolution) => {
                let answer = transition(&mut self.entry, Event::Decide(resolution), self.now);
                if answer == Answer::Recorded {
                    (self.since_a_person, self.absent) = (0, true);
                }
                answer
            }
        };
        if before.state.is_final() {
            prop_assert_eq!(&self.entry, &before, "what ended changed");
        }
        if let (
            Answer::Parked { why: EscalationKind::UnknownEffect, newly: true },
            Happens::Begins { .. } | Happens::Lapses,
        ) = (answer, what)
            && class == ONCE
        {
            prop_assert!(self.confessed.is_some() || self.now > before.deadline, "asked a person too early");
        }
        Ok(())
    }

    fn begins(&mut self, class: EffectClass, budget: RetryBudget, what: &Happens) -> Result<Answer, TestCaseError> {
        let Happens::Begins { anew, knows, lease, call, changed, needs_approval } = *what else {
            return Ok(Answer::Stale);
        };
        self.claims += i64::from(anew || self.claims == 0);
        let asked = Ask {
            budget,
            held_until: Wall(self.now.0 + lease),
            deadline: Wall(self.now.0 + call),
            needs_approval,
            takes_over: (knows && anew).then_some(self.now),
            fingerprint: if changed { [9; 32] } else { [1; 32] },
            ..ask(class, self.claims)
        };
        let before = self.entry.clone();
        let answer = transition(&mut self.entry, Event::Begin(asked), self.now);
        match answer {
            Answer::Execute { attempt } if attempt > before.attempt => {
                self.executes(class, &before, &asked)?;
                prop_assert_eq!(attempt, before.attempt + 1);
                prop_assert!(self.since_a_person < budget.attempts, "beyond its budget");
                // What may have happened is found out without one.
                let agreed = !needs_approval || self.entry.approved || before.state != LedgerState::Absent;
                prop_assert!(agreed, "before a person agreed");
                self.since_a_person += 1;
                self.told.push((self.claims, attempt));
                (self.over, self.confessed, self.absent) = (asked.deadline.max(asked.held_until), None, false);
            }
            // Said once more; of what changes nothing, perhaps in other words.
            Answer::Execute { .. } => {
                let reworded = class == PURE && self.entry.fingerprint == asked.fingerprint;
                let same = if reworded {
                    Entry { fingerprint: before.fingerprint, ..self.entry.clone() }
                } else {
                    self.entry.clone()
                };
                prop_assert_eq!(Entry { approved: before.approved, ..same }, before.clone(), "said once more");
            }
            Answer::Verify { attempt } if before.state != LedgerState::Verifying || before.epoch != self.claims => {
                let quiet = ms(QUIET);
                let from = self.confessed.unwrap_or(self.over).0 + quiet;
                prop_assert!(self.now.0 >= from, "asked the receiver too early: {} before {from}", self.now.0);
                self.told.push((self.claims, attempt));
                self.over = self.over.max(asked.held_until);
            }
            Answer::Mismatch => prop_assert_eq!(&self.entry, &before),
            Answer::Verify { .. }
            | Answer::Replay { .. }
            | Answer::Wait { .. }
            | Answer::InFlight { .. }
            | Answer::Parked { .. }
            | Answer::Recorded
            | Answer::Stale => {}
        }
        let goes_on = matches!(answer, Answer::Execute { .. } | Answer::Verify { .. });
        prop_assert!(!before.state.is_final() || !goes_on, "what ended was begun");
        Ok(answer)
    }

    /// An attempt after the first needs a reason.
    fn executes(&self, class: EffectClass, before: &Entry, asked: &Ask) -> Result<(), TestCaseError> {
        let unknown = before.attempt > 0 && !self.absent;
        match class {
            EffectClass::Pure | EffectClass::Tx => {}
            EffectClass::Keyed { .. } => {
                let forgotten = before.first_at.0 + ms(TTL);
                prop_assert!(!unknown || asked.deadline.0 <= forgotten, "repeated past its key");
            }
            EffectClass::Verify { .. } | EffectClass::Once => prop_assert!(!unknown, "repeated blindly"),
        }
        Ok(())
    }

    fn ended(
        &mut self,
        before: &Entry,
        (epoch, attempt): (i64, u32),
        ended: Ended,
        answer: Answer,
    ) -> Result<(), TestCaseError> {
        if answer == Answer::Stale {
            prop_assert_eq!(&self.entry, before, "refused, and yet something changed");
        }
        let last = (epoch, attempt) == (before.epoch, before.attempt);
        prop_assert!(last || answer == Answer::Stale, "a zombie was believed");
        if self.entry != *before {
            match ended {
                Ended::Unknown => self.confessed = Some(self.now),
                Ended::Failed(_) => self.absent = true,
                Ended::Done | Ended::Review(_) => {}
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_ledger_keeps_its_promises(
        class in class(),
        budget in budget(),
        history in prop::collection::vec(happens(), 1..60),
    ) {
        let first = Ask { budget, ..ask(class, 0) };
        let mut onlooker = Onlooker {
            entry: Entry::new(&first, at(0)),
            now: at(0),
            claims: 0,
            told: Vec::new(),
            over: at(0),
            confessed: None,
            since_a_person: 0,
            absent: true,
        };
        for what in &history {
            onlooker.sees(class, budget, what)?;
        }
    }
}
