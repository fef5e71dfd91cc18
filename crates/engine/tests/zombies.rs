//! Two holders, one receiver, and everything that can go wrong between them, in every order.
//!
//! A small world of one run with one step is explored move by move: claims, heartbeats, intents, sends, lost answers,
//! crashes, holders that were stopped and wake up long after they lost everything, questions to the receiver, a person.
//! Time goes by in whole leases. What is found is what `docs/runs.md` promises: for `keyed`, `tx` and `once` nothing
//! happens twice, and what is done did happen. And the checker is checked: done blindly, it does happen twice.

mod run_world;

use outlast_engine::run::{Answer, Beat, Claimed, Ended, Entry, Event, Head, Proof, Resolution, transition};
use outlast_model::{
    Usd, Wall,
    run::{EffectClass, EscalationKind, LedgerState, RetryBudget, RunState},
};
use run_world::{Ask, NOW, ask};
use std::{
    collections::{HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

/// One lease.
const TICK: Duration = Duration::from_secs(1);
/// A call may take so long.
const CALL: i64 = 2_000;
/// The receiver remembers a key for so long after it first saw it.
const KEY_TTL: Duration = Duration::from_secs(4);
const KEYED: EffectClass = EffectClass::Keyed { key_ttl: KEY_TTL, verify: None };
const KEYED_ASKABLE: EffectClass = EffectClass::Keyed { key_ttl: KEY_TTL, verify: Some(TICK) };
const VERIFY: EffectClass = EffectClass::Verify { quiet_period: TICK };
/// So many leases are lived through.
const TICKS: i64 = 7;
/// And so many moves are made.
const MOVES: u32 = 12;

/// What a holder is about to do. It does not know what it has lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Phase {
    Idle,
    /// It was told to execute, and has not sent yet.
    Told {
        epoch: i64,
        attempt: u32,
        deadline: i64,
    },
    /// It sent, and it happened; its answer is on its way.
    Sent {
        epoch: i64,
        attempt: u32,
    },
    /// It was told to ask the receiver.
    Asks {
        epoch: i64,
        attempt: u32,
    },
    /// It asked, and this is the answer.
    Heard {
        epoch: i64,
        attempt: u32,
        found: bool,
    },
}

#[derive(Clone, Debug)]
struct World {
    now: Wall,
    head: Head,
    /// Since when it is held by whoever holds it.
    since: Wall,
    entry: Option<Entry>,
    claims: [i64; 2],
    phases: [Phase; 2],
    /// How often it took place, and when the receiver first saw the key.
    happened: u32,
    first_seen: Option<Wall>,
    asked_a_person: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    Tick,
    Claim(usize),
    Beat(usize),
    Begin(usize),
    Send(usize),
    EndWell(usize),
    EndUnknown(usize),
    NeverLeft(usize),
    Look(usize),
    Crash(usize),
    Person,
}

/// Whether those who hold a claim keep what they promised with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// Nothing is sent after the deadline of its attempt.
    Kept,
    /// Something may be: a process that was stopped between looking at its clock and sending.
    Broken,
}

impl World {
    fn new() -> World {
        World {
            now: NOW,
            head: Head::new(NOW, None, None),
            since: NOW,
            entry: None,
            claims: [0; 2],
            phases: [Phase::Idle; 2],
            happened: 0,
            first_seen: None,
            asked_a_person: 0,
        }
    }

    fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let Head { state, epoch, lease_until, barren, .. } = self.head;
        (self.now.0, state, epoch, lease_until.0, barren, self.since.0).hash(&mut hasher);
        if let Some(entry) = &self.entry {
            (entry.state, entry.attempt, entry.forgiven, entry.unclear, entry.epoch).hash(&mut hasher);
            (entry.held_until.0, entry.deadline.0, entry.not_before.0, entry.first_at.0).hash(&mut hasher);
        }
        // It does not matter which of the two is which.
        let mut holders = [(self.claims[0], self.phases[0]), (self.claims[1], self.phases[1])];
        holders.sort_unstable();
        (holders, self.happened, self.first_seen.map(|at| at.0)).hash(&mut hasher);
        self.asked_a_person.hash(&mut hasher);
        hasher.finish()
    }

    /// The world after a move; none if the move cannot be made.
    fn after(&self, class: EffectClass, word: Word, step: Move) -> Option<World> {
        let mut world = self.clone();
        match step {
            Move::Tick => {
                world.now = Wall(self.now.0 + 1_000);
                (world.now.0 - NOW.0 <= TICKS * 1_000).then_some(world)
            }
            Move::Claim(holder) => {
                let epoch = world.head.epoch + 1;
                if world.head.claim(epoch, TICK, world.now) != Claimed::Granted {
                    return None;
                }
                (world.claims[holder], world.since) = (epoch, world.now);
                Some(world)
            }
            Move::Beat(holder) => {
                (world.head.beat(world.claims[holder], TICK, world.now) == Beat::Held).then_some(world)
            }
            Move::Begin(holder) => world.begin(class, holder).then_some(world),
            Move::Send(holder) => world.send(class, word, holder).then_some(world),
            Move::EndWell(holder) => match self.phases[holder] {
                Phase::Sent { epoch, attempt } => world.end(holder, epoch, attempt, Ended::Done),
                Phase::Heard { epoch, attempt, found: true } => world.end(holder, epoch, attempt, Ended::Done),
                Phase::Heard { epoch, attempt, found: false } => {
                    let absent = Ended::Failed(Proof::Again { after: Duration::ZERO });
                    world.end(holder, epoch, attempt, absent)
                }
                Phase::Idle | Phase::Told { .. } | Phase::Asks { .. } => None,
            },
            Move::EndUnknown(holder) => match self.phases[holder] {
                Phase::Sent { epoch, attempt } | Phase::Asks { epoch, attempt } => {
                    world.end(holder, epoch, attempt, Ended::Unknown)
                }
                Phase::Idle | Phase::Told { .. } | Phase::Heard { .. } => None,
            },
            Move::NeverLeft(holder) => match self.phases[holder] {
                Phase::Told { epoch, attempt, .. } => {
                    world.end(holder, epoch, attempt, Ended::Failed(Proof::Again { after: Duration::ZERO }))
                }
                Phase::Idle | Phase::Sent { .. } | Phase::Asks { .. } | Phase::Heard { .. } => None,
            },
            Move::Look(holder) => match self.phases[holder] {
                Phase::Asks { epoch, attempt } => {
                    world.phases[holder] = Phase::Heard { epoch, attempt, found: self.happened > 0 };
                    Some(world)
                }
                Phase::Idle | Phase::Told { .. } | Phase::Sent { .. } | Phase::Heard { .. } => None,
            },
            Move::Crash(holder) => {
                let lives = world.phases[holder] != Phase::Idle || world.claims[holder] != 0;
                (world.phases[holder], world.claims[holder]) = (Phase::Idle, 0);
                lives.then_some(world)
            }
            Move::Person => world.person().then_some(world),
        }
    }

    fn begin(&mut self, class: EffectClass, holder: usize) -> bool {
        let epoch = self.claims[holder];
        if epoch == 0 || self.phases[holder] != Phase::Idle {
            return false;
        }
        if self.head.may_ask(Some(epoch), self.entry.as_ref(), false, self.now).is_err() {
            return false;
        }
        let _ = self.head.beat(epoch, TICK, self.now);
        let budget = RetryBudget { attempts: 3, base: Duration::ZERO, cap: Duration::ZERO, ..RetryBudget::default() };
        let mut asked =
            Ask { budget, held_until: self.head.lease_until, deadline: Wall(self.now.0 + CALL), ..ask(class, epoch) };
        let mut entry = self.entry.clone().unwrap_or_else(|| Entry::new(&asked, self.now));
        asked.takes_over = (entry.attempt > 0 && entry.epoch != epoch).then_some(self.since);
        let answer = transition(&mut entry, Event::Begin(asked), self.now);
        let attempt = entry.attempt;
        match answer {
            Answer::Execute { .. } => {
                self.phases[holder] = Phase::Told { epoch, attempt, deadline: entry.deadline.0 };
            }
            Answer::Verify { .. } => self.phases[holder] = Phase::Asks { epoch, attempt },
            Answer::Parked { .. } => self.head.park(),
            Answer::Replay { .. }
            | Answer::Wait { .. }
            | Answer::InFlight { .. }
            | Answer::Mismatch
            | Answer::Recorded
            | Answer::Stale => {}
        }
        self.entry = Some(entry);
        true
    }

    /// It reaches the receiver and takes place, unless the receiver knows better.
    fn send(&mut self, class: EffectClass, word: Word, holder: usize) -> bool {
        let Phase::Told { epoch, attempt, deadline } = self.phases[holder] else { return false };
        if word == Word::Kept && self.now.0 > deadline {
            return false;
        }
        let first = *self.first_seen.get_or_insert(self.now);
        let known = match class {
            EffectClass::Tx => self.happened > 0,
            EffectClass::Keyed { key_ttl, .. } => {
                let ttl = i64::try_from(key_ttl.as_millis()).unwrap();
                self.happened > 0 && self.now.0 <= first.0 + ttl
            }
            EffectClass::Pure | EffectClass::Verify { .. } | EffectClass::Once => false,
        };
        self.happened += u32::from(!known);
        self.phases[holder] = Phase::Sent { epoch, attempt };
        true
    }

    fn end(mut self, holder: usize, epoch: i64, attempt: u32, ended: Ended) -> Option<World> {
        let entry = self.entry.as_mut()?;
        let event = Event::End { epoch, attempt, ended, cost: Usd::ZERO };
        let answer = transition(entry, event, self.now);
        self.phases[holder] = Phase::Idle;
        if let (Answer::Parked { .. }, RunState::Running | RunState::Ready) = (answer, self.head.state) {
            self.head.park();
        }
        if answer != Answer::Stale {
            self.head.progressed(Usd::ZERO);
        }
        Some(self)
    }

    /// A person looks at the receiver, and decides by what is there.
    fn person(&mut self) -> bool {
        let Some(entry) = self.entry.as_mut().filter(|entry| entry.state == LedgerState::Parked) else { return false };
        if self.asked_a_person >= 2 {
            return false;
        }
        self.asked_a_person += 1;
        let resolution = match entry.why {
            Some(EscalationKind::UnknownEffect) if self.happened > 0 => Resolution::Done,
            _ => Resolution::Try,
        };
        let _ = transition(entry, Event::Decide(resolution), self.now);
        self.head.wake(self.now);
        true
    }
}

const STEPS: [Move; 20] = [
    Move::Tick,
    Move::Claim(0),
    Move::Claim(1),
    Move::Beat(0),
    Move::Beat(1),
    Move::Begin(0),
    Move::Begin(1),
    Move::Send(0),
    Move::Send(1),
    Move::EndWell(0),
    Move::EndWell(1),
    Move::EndUnknown(0),
    Move::EndUnknown(1),
    Move::NeverLeft(0),
    Move::NeverLeft(1),
    Move::Look(0),
    Move::Look(1),
    Move::Crash(0),
    Move::Crash(1),
    Move::Person,
];

/// What is found in all worlds that can be reached.
#[derive(Debug, Default)]
struct Found {
    worlds: usize,
    done: bool,
    parked: bool,
    verified: bool,
    /// The shortest way to something that took place twice.
    twice: Option<Vec<Move>>,
}

/// How a world was reached: from which one, by which move, in how many.
#[derive(Clone, Copy, Debug)]
struct Way {
    from: usize,
    by: Option<Move>,
    moves: u32,
}

fn moves(ways: &[Way], mut at: usize) -> Vec<Move> {
    let mut moves = Vec::new();
    while let Some(by) = ways[at].by {
        moves.push(by);
        at = ways[at].from;
    }
    moves.reverse();
    moves
}

/// Lives through every order of so many moves, the shortest first, until something took place twice.
fn explore(class: EffectClass, word: Word, most: u32) -> Found {
    let mut found = Found::default();
    let mut seen = HashSet::from([World::new().key()]);
    let mut ways = vec![Way { from: 0, by: None, moves: 0 }];
    let mut open = VecDeque::from([World::new()]);
    while let Some(world) = open.pop_front() {
        let at = found.worlds;
        found.worlds += 1;
        if world.happened > 1 {
            found.twice = Some(moves(&ways, at));
            return found;
        }
        if let Some(entry) = &world.entry {
            found.done |= entry.state == LedgerState::Done;
            found.parked |= entry.state == LedgerState::Parked;
            found.verified |= entry.state == LedgerState::Verifying;
            let missing = entry.state == LedgerState::Done && world.happened == 0;
            assert!(!missing, "done and missing: {class:?} {:?}", moves(&ways, at));
        }
        if ways[at].moves >= most {
            continue;
        }
        for step in STEPS {
            if let Some(next) = world.after(class, word, step)
                && seen.insert(next.key())
            {
                ways.push(Way { from: at, by: Some(step), moves: ways[at].moves + 1 });
                open.push_back(next);
            }
        }
    }
    found
}

#[test]
fn keyed_tx_and_once_never_happen_twice_whoever_dies_or_wakes_up_when() {
    for class in [EffectClass::Tx, KEYED, KEYED_ASKABLE, EffectClass::Once] {
        let found = explore(class, Word::Kept, MOVES);
        let undecidable = matches!(class, EffectClass::Once | EffectClass::Keyed { verify: None, .. });
        assert!(found.done && (found.parked || !undecidable), "{class:?}: {found:?}");
        assert_eq!(found.twice, None, "{class:?}");
    }
}

#[test]
fn verify_does_not_happen_twice_while_calls_keep_to_their_deadlines() {
    let found = explore(VERIFY, Word::Kept, MOVES);
    assert!(found.done && found.verified, "{found:?}");
    assert_eq!(found.twice, None);
}

/// The bound that `verify` has, and the reason that it is not called exactly once.
#[test]
fn what_lands_after_its_deadline_can_make_a_verified_effect_happen_twice_but_not_one_in_the_receivers_transaction() {
    assert!(explore(VERIFY, Word::Broken, 15).twice.is_some());
    assert_eq!(explore(EffectClass::Tx, Word::Broken, MOVES).twice, None);
}

/// A checker that never finds anything finds nothing.
#[test]
fn done_blindly_it_happens_twice() {
    let twice = explore(EffectClass::Pure, Word::Kept, MOVES).twice.expect("a way to do it twice");
    assert!(twice.len() <= 10, "{twice:?}");
}
