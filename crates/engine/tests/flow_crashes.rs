//! A workflow under crashes: whatever is lost between two transactions, the walk over the journal is the same walk.

use outlast_engine::run::flow::{Action, End, Event, Flow, Known, Outcome, Plan, PlanBranch, PlanStep, To};
use outlast_model::{Mono, run::LedgerState};
use proptest::prelude::*;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// A world that decides alike each time it is asked the same: conditions and ends follow from the key alone.
#[derive(Clone, Debug)]
struct World {
    seed: u64,
    journal: BTreeMap<Arc<str>, Known>,
    order: i64,
    /// The keys of first attempts, in order.
    begun: Vec<Arc<str>>,
    tries: BTreeMap<Arc<str>, u32>,
    cancelling: bool,
}

#[derive(Debug, PartialEq)]
enum Claim {
    Crashed,
    GivenBack,
    Parked,
    Ended(End),
}

impl World {
    fn new(seed: u64) -> World {
        let (journal, begun, tries) = Default::default();
        World { seed, journal, order: 0, begun, tries, cancelling: false }
    }

    fn draw(&self, of: &str) -> u64 {
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        let hash = of.bytes().fold(self.seed ^ 0xcbf2_9ce4_8422_2325, mix);
        (hash ^ (hash >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33
    }

    fn write(&mut self, key: &Arc<str>, state: LedgerState, undoable: bool) {
        self.order += 1;
        let order = self.order;
        let known = Known { key: key.clone(), state, effect: self.draw(key) & 1 == 0, order, undoable };
        self.journal.insert(key.clone(), known);
    }

    fn begin(&mut self, key: &Arc<str>, undoable: bool) {
        let state = self.journal.get(key).map(|known| known.state);
        assert!(!state.is_some_and(LedgerState::is_final), "{key} is finished, and begun once more");
        if state.is_none() {
            self.begun.push(key.clone());
        }
        self.write(key, LedgerState::Intent, undoable);
    }

    /// How it ends: some need another try, some fail, a person decides some.
    fn end(&mut self, key: &Arc<str>, undoable: bool) -> Outcome {
        let tries = self.tries.entry(key.clone()).or_default();
        *tries += 1;
        let tries = *tries;
        let (outcome, state) = match self.draw(key) % 16 {
            0 | 1 if tries == 1 => (Outcome::Again(Duration::from_secs(1)), LedgerState::Absent),
            2 if tries == 1 => (Outcome::Unknown(Duration::from_secs(30)), LedgerState::Unknown),
            3 if tries == 1 => (Outcome::Parked, LedgerState::Parked),
            4 => (Outcome::Failed, LedgerState::FailedFinal),
            _ => (Outcome::Done, LedgerState::Done),
        };
        self.write(key, state, undoable);
        outcome
    }

    /// One claim, which dies after so many transactions.
    fn claim(&mut self, plan: &Arc<Plan>, mut life: u32) -> Claim {
        let mut dies = || {
            life = life.saturating_sub(1);
            life == 0
        };
        let mut flow = Flow::new(plan, self.journal.values().cloned(), self.cancelling);
        let mut now = Mono::ZERO;
        let mut tests = 0;
        loop {
            let Some(action) = flow.poll_action() else {
                let due = flow.poll_timeout().expect("nothing to do, and nothing to wait for");
                now = now.max(due);
                flow.handle(Event::Tick, now);
                continue;
            };
            let event = match action {
                Action::Test { step, branch } => {
                    // The facts differ from visit to visit, and so may the answer.
                    tests += 1;
                    Event::Tested(Some(self.draw(&format!("{step}/{branch:?}/{tests}")) & 1 == 0))
                }
                Action::Recall { key, .. } => {
                    assert_eq!(self.journal[&key].state, LedgerState::Done);
                    Event::Recalled
                }
                Action::Perform { key, .. } | Action::Settle { key } | Action::Undo { key, .. } => {
                    let undoable = undoes(plan, &key);
                    self.begin(&key, undoable);
                    if dies() {
                        return Claim::Crashed;
                    }
                    let outcome = self.end(&key, undoable);
                    if dies() {
                        return Claim::Crashed;
                    }
                    Event::Ended(outcome)
                }
                Action::Conclude => Event::Tested(Some(!self.draw("conclude").is_multiple_of(4))),
                Action::Release { .. } => return Claim::GivenBack,
                Action::Finish(end) => return Claim::Ended(end),
                Action::Leave => return Claim::Parked,
            };
            flow.handle(event, now);
        }
    }

    /// A person has what is parked tried once more.
    fn decide(&mut self) {
        for known in self.journal.values_mut().filter(|known| known.state == LedgerState::Parked) {
            known.state = LedgerState::Absent;
        }
    }

    /// Claims it until it ends; each claim lives as long as its number says, the last of them forever.
    fn run_to_the_end(&mut self, plan: &Arc<Plan>, lives: &[u32]) -> End {
        let mut lives = lives.iter().copied();
        for _ in 0..1000 {
            match self.claim(plan, lives.next().unwrap_or(u32::MAX)) {
                Claim::Ended(end) => return end,
                Claim::Parked => self.decide(),
                Claim::Crashed | Claim::GivenBack => {}
            }
        }
        panic!("it never ends");
    }

    fn state(&self, key: &str) -> Option<LedgerState> {
        self.journal.get(key).map(|known| known.state)
    }
}

fn undoes(plan: &Plan, key: &str) -> bool {
    let name = key.split('#').next().unwrap_or(key);
    plan.steps.iter().any(|step| &*step.name == name && step.undo)
}

fn plans() -> impl Strategy<Value = Arc<Plan>> {
    (1usize..7).prop_flat_map(|count| {
        let to = prop_oneof![4 => (0..count).prop_map(To::Step), 1 => Just(To::End), 1 => Just(To::Fail)];
        let branch = (any::<bool>(), to).prop_map(|(conditional, to)| PlanBranch { conditional, to });
        let step = (any::<bool>(), proptest::collection::vec(branch, 0..3), any::<bool>(), 1u32..4);
        proptest::collection::vec(step, count).prop_map(|steps| {
            let named = |(at, (conditional, next, undo, max_visits)): (usize, (bool, Vec<_>, bool, u32))| PlanStep {
                name: format!("s{at}").into(),
                conditional,
                next,
                undo,
                max_visits,
            };
            Arc::new(Plan { steps: steps.into_iter().enumerate().map(named).collect() })
        })
    })
}

proptest! {
    #[test]
    fn crashes_change_neither_the_order_of_the_steps_nor_the_end(
        plan in plans(),
        seed in any::<u64>(),
        lives in proptest::collection::vec(1u32..6, 0..12),
    ) {
        let (mut quiet, mut stormy) = (World::new(seed), World::new(seed));
        let end = quiet.run_to_the_end(&plan, &[]);
        prop_assert_eq!(stormy.run_to_the_end(&plan, &lives), end);
        prop_assert_eq!(&stormy.begun, &quiet.begun);
    }

    #[test]
    fn a_run_that_fails_or_is_cancelled_has_all_of_it_undone_the_last_first(
        plan in plans(),
        seed in any::<u64>(),
        lives in proptest::collection::vec(1u32..6, 0..12),
        cancelled_at in 0usize..8,
    ) {
        let mut world = World::new(seed);
        let mut ended = None;
        for life in lives.iter().take(cancelled_at) {
            match world.claim(&plan, *life) {
                Claim::Ended(end) => { ended = Some(end); break; }
                Claim::Parked => world.decide(),
                Claim::Crashed | Claim::GivenBack => {}
            }
        }
        world.cancelling = ended.is_none();
        let end = ended.unwrap_or_else(|| world.run_to_the_end(&plan, &lives));
        if end == End::Done {
            return Ok(());
        }
        let open = world.journal.values().find(|known| known.effect && matches!(known.state, LedgerState::Intent | LedgerState::Unknown | LedgerState::Verifying));
        prop_assert_eq!(open, None);
        for known in world.journal.values().filter(|known| known.undoable && known.state == LedgerState::Done) {
            let undo = world.state(&format!("undo/{}", known.key));
            prop_assert!(undo.is_some_and(LedgerState::is_final), "{} was never undone: {undo:?}", known.key);
        }
        let undone: Vec<i64> = world.begun.iter().filter_map(|key| key.strip_prefix("undo/")).map(|of| world.journal[of].order).collect();
        prop_assert!(undone.is_sorted_by(|before, after| before > after), "{undone:?}");
    }
}
