//! The ledger: intent, effect, outcome.
//!
//! An intent commits before anything is sent. What is sent and not answered is `unknown`, never `failed`: its class says
//! whether it is sent again, asked about, or left to a person. [`transition`] is the whole of it.
//!
//! ```text
//!              +--------------------- ended: done, failed for good ---------------------> Done | FailedFinal
//!   begin -> Intent -- proven not to have happened --> Absent -- begin --> Intent
//!              | holder gone, or outcome unclear          ^
//!              |   pure, tx, keyed: Intent again          | absent, or a person: it did not, retry
//!              |   verify: Unknown -- begin, after the quiet period --> Verifying -- done --> Done
//!              |   once: Parked, when it can no longer happen              | unclear too often
//!              +----------------------------------------------------> Parked -- a person --> Done | FailedFinal | Absent
//! ```

use outlast_model::{
    Usd, Wall,
    run::{EffectClass, EscalationKind, Exhausted, LedgerState, RetryBudget},
};
use std::time::Duration;

/// A question whether something happened that came to nothing is asked so often, then a person is.
const VERIFICATIONS: u32 = 3;

/// What the ledger knows of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What a repetition would do.
    pub class: EffectClass,
    /// Where it stands.
    pub state: LedgerState,
    /// The hash of what is asked.
    pub fingerprint: [u8; 32],
    /// How often it may be tried.
    pub budget: RetryBudget,
    /// Attempts begun. Verifications are none.
    pub attempt: u32,
    /// Attempts begun before the budget was last renewed by a person.
    pub forgiven: u32,
    /// Verifications that came to nothing.
    pub unclear: u32,
    /// The claim of whoever began the last attempt or verification.
    pub epoch: i64,
    /// That claim stood until then, as far as is known here.
    pub held_until: Wall,
    /// Nothing of the last attempt may happen later than this, unless its holder breaks its word.
    pub deadline: Wall,
    /// Neither attempt nor verification begins before.
    pub not_before: Wall,
    /// When the first attempt began: since then the receiver may know the key.
    pub first_at: Wall,
    /// When the budget was last new.
    pub budget_from: Wall,
    /// What was spent on it since then.
    pub spent: Usd,
    /// Why it is parked.
    pub why: Option<EscalationKind>,
    /// A person agreed to it as it stands.
    pub approved: bool,
}

/// A step that is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What a repetition would do. Of a step that is known, the first one's class stays.
    pub class: EffectClass,
    /// The hash of what is asked.
    pub fingerprint: [u8; 32],
    /// How often it may be tried.
    pub budget: RetryBudget,
    /// The asker's claim.
    pub epoch: i64,
    /// The asker's claim stands until then.
    pub held_until: Wall,
    /// Nothing of this attempt will happen later than this.
    pub deadline: Wall,
    /// A person must agree first.
    pub needs_approval: bool,
    /// A changed pure step is a mismatch too, where it is otherwise only marked.
    pub strict: bool,
    /// The holder of the last attempt's claim is known to be gone, and by when: its run was claimed anew then, or ended.
    pub takes_over: Option<Wall>,
}

/// What happens to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is to be done.
    Begin(Ask),
    /// An attempt or verification ended.
    End {
        /// The claim it was begun with.
        epoch: i64,
        /// Its number.
        attempt: u32,
        /// How.
        ended: Ended,
        /// What it cost.
        cost: Usd,
    },
    /// Its holder's claim has run out, and nobody has begun it anew.
    Lapse,
    /// A person decided. Only a parked entry hears it.
    Decide(Resolution),
}

/// How an attempt or verification ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It took place; there is a result.
    Done,
    /// It did not take place.
    Failed(Proof),
    /// Nobody knows: it was sent and not answered.
    Unknown,
    /// There is an answer that a person has to look at first.
    Review(EscalationKind),
}

/// How it is known that an attempt did not take place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It was refused, and would be again.
    Final,
    /// It never left, was refused for now, or, of a verification, the receiver knows nothing of it. Not to be tried
    /// again before this has passed; the budget's backoff if that is longer.
    Again {
        /// What the receiver asked for.
        after: Duration,
    },
}

/// A person's decision, as the ledger takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// It has a result: it happened, the person gave one, or it is done without.
    Done,
    /// It is not to happen.
    Failed,
    /// It may be tried, with a fresh budget.
    Try,
}

/// Whether, and as what, a step may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Answer {
    /// Do it.
    Execute {
        /// The attempt's number, 1 for the first.
        attempt: u32,
    },
    /// Ask the receiver whether it was done.
    Verify {
        /// The attempt that is asked about.
        attempt: u32,
    },
    /// It was done, or failed for good: this is its end.
    Replay {
        /// It was asked for in other words then.
        diverged: bool,
    },
    /// Not yet.
    Wait {
        /// When.
        until: Wall,
    },
    /// Somebody is at it.
    InFlight {
        /// That claim stands until then, unless it is renewed.
        until: Wall,
    },
    /// It waits for a person.
    Parked {
        /// Why.
        why: EscalationKind,
        /// Since just now.
        newly: bool,
    },
    /// The key stands for something else.
    Mismatch,
    /// Its end is written down.
    Recorded,
    /// Who says so has no say in it any more. Nothing was changed.
    Stale,
}

/// What is done about a step of which nobody knows whether it took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfUnknown {
    /// It is done again: that changes nothing, or the receiver tells that it is the same.
    Repeat,
    /// The receiver is asked.
    Verify {
        /// Not before so much has passed since it could last have happened.
        quiet: Duration,
    },
    /// A person is asked.
    Person,
}

/// Why a step may not be tried again. For the escalation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// So many attempts.
    Attempts,
    /// So much time.
    Time,
    /// So much money.
    Cost,
}

impl Entry {
    /// The entry of a step that was never asked for. Give it [`Event::Begin`] next.
    pub fn new(ask: &Ask, now: Wall) -> Entry {
        Entry {
            class: ask.class,
            state: LedgerState::Absent,
            fingerprint: ask.fingerprint,
            budget: ask.budget,
            attempt: 0,
            forgiven: 0,
            unclear: 0,
            epoch: 0,
            held_until: Wall(0),
            deadline: Wall(0),
            not_before: now,
            first_at: now,
            budget_from: now,
            spent: Usd::ZERO,
            why: None,
            approved: false,
        }
    }

    /// Whether to begin it would be new work, and not to hear of, or look into, what was begun.
    pub fn is_new_work(&self) -> bool {
        match self.state {
            LedgerState::Done | LedgerState::FailedFinal | LedgerState::Parked => false,
            LedgerState::Intent | LedgerState::Unknown | LedgerState::Verifying => !self.class.is_effect(),
            LedgerState::Absent => true,
        }
    }

    /// Whether it may have taken place, and nobody knows.
    pub fn is_unresolved(&self) -> bool {
        self.class.is_effect()
            && match self.state {
                LedgerState::Intent | LedgerState::Unknown | LedgerState::Verifying => true,
                LedgerState::Parked => self.why == Some(EscalationKind::UnknownEffect),
                LedgerState::Done | LedgerState::FailedFinal | LedgerState::Absent => false,
            }
    }

    /// What is done about it once its outcome is unknown, if a repetition would be over by then: the receiver has to know
    /// the key for as long.
    pub fn if_unknown(&self, over_by: Wall) -> IfUnknown {
        match self.class {
            EffectClass::Pure | EffectClass::Tx => IfUnknown::Repeat,
            EffectClass::Keyed { key_ttl, .. } if over_by <= later(self.first_at, key_ttl) => IfUnknown::Repeat,
            EffectClass::Keyed { verify: Some(quiet), .. } | EffectClass::Verify { quiet_period: quiet } => {
                IfUnknown::Verify { quiet }
            }
            EffectClass::Keyed { verify: None, .. } | EffectClass::Once => IfUnknown::Person,
        }
    }

    /// Keeps a claim of its own. False if it is somebody else's by now, or nothing is under way.
    #[must_use]
    pub fn renew(&mut self, epoch: i64, until: Wall) -> bool {
        let under_way = match self.state {
            LedgerState::Intent | LedgerState::Verifying => self.epoch == epoch,
            LedgerState::Done
            | LedgerState::FailedFinal
            | LedgerState::Unknown
            | LedgerState::Absent
            | LedgerState::Parked => false,
        };
        if under_way {
            self.held_until = self.held_until.max(until);
        }
        under_way
    }

    /// Whether somebody else is at it.
    fn is_held_against(&self, ask: &Ask, now: Wall) -> bool {
        ask.epoch != self.epoch && self.held_until > now && ask.takes_over.is_none()
    }

    /// What of the budget is spent, if any of it is.
    pub fn spent_up(&self, now: Wall) -> Option<Why> {
        let RetryBudget { attempts, within, cost_max, .. } = self.budget;
        if self.attempt.saturating_sub(self.forgiven) >= attempts.max(1) {
            return Some(Why::Attempts);
        }
        if self.attempt > self.forgiven && within.is_some_and(|within| now.0 > later(self.budget_from, within).0) {
            return Some(Why::Time);
        }
        cost_max.is_some_and(|most| self.spent >= most).then_some(Why::Cost)
    }

    /// When the receiver may be asked about the last attempt: nothing of it can still be on its way, and the quiet
    /// period has passed.
    fn verifiable(&self, quiet: Duration) -> Wall {
        later(self.deadline.max(self.held_until), quiet)
    }

    /// The wait before the next attempt: half of it fixed, half drawn from what the step is, so that steps that failed
    /// together do not come back together, and the same history decides alike everywhere.
    fn backoff(&self) -> Duration {
        let tries = self.attempt.saturating_sub(self.forgiven).saturating_sub(1).min(20);
        let ceiling = self.budget.base.saturating_mul(1 << tries).min(self.budget.cap);
        let [a, b, ..] = self.fingerprint;
        let draw = f64::from(u16::from_le_bytes([a, b]).wrapping_add((self.attempt as u16).wrapping_mul(40_503)));
        ceiling.mul_f64(0.5 + draw / f64::from(u16::MAX) / 2.0)
    }
}

/// The whole ledger: what becomes of an entry, and what is answered. Nothing else changes one.
pub fn transition(entry: &mut Entry, event: Event, now: Wall) -> Answer {
    use LedgerState as S;
    match (entry.state, event) {
        // To begin what was asked for in other words.
        (_, Event::Begin(ask)) if ask.fingerprint != entry.fingerprint => {
            let lenient = !entry.class.is_effect() && !ask.strict;
            match entry.state {
                S::Done | S::FailedFinal if lenient => Answer::Replay { diverged: true },
                S::Intent if lenient && entry.is_held_against(&ask, now) => {
                    Answer::InFlight { until: entry.held_until }
                }
                // Of what changes nothing only an end counts: what is asked now is what is done. Nobody has agreed to it.
                S::Intent | S::Unknown | S::Absent if lenient => {
                    entry.fingerprint = ask.fingerprint;
                    entry.approved = false;
                    transition(entry, Event::Begin(ask), now)
                }
                S::Intent | S::Done | S::FailedFinal | S::Unknown | S::Verifying | S::Absent | S::Parked => {
                    Answer::Mismatch
                }
            }
        }
        (S::Done | S::FailedFinal, Event::Begin(_)) => Answer::Replay { diverged: false },
        (S::Parked, Event::Begin(_)) => parked(entry, false),
        (S::Absent, Event::Begin(ask)) => begin(entry, &ask, now),
        (S::Unknown, Event::Begin(ask)) => settle_unknown(entry, Some(&ask), now),
        // The answer to the same begin was lost.
        (S::Intent, Event::Begin(ask)) if ask.epoch == entry.epoch => Answer::Execute { attempt: entry.attempt },
        (S::Verifying, Event::Begin(ask)) if ask.epoch == entry.epoch => Answer::Verify { attempt: entry.attempt },
        (S::Intent | S::Verifying, Event::Begin(ask)) if entry.is_held_against(&ask, now) => {
            Answer::InFlight { until: entry.held_until }
        }
        (S::Intent | S::Verifying, Event::Begin(ask)) => {
            // Its holder may have believed in its claim until then, whatever was known of it here.
            entry.held_until = entry.held_until.max(ask.takes_over.unwrap_or(entry.held_until));
            settle_unknown(entry, Some(&ask), now)
        }

        // Said once more. What it came to may be more than it said: a spent budget, a person.
        (S::Done, Event::End { epoch, attempt, ended: Ended::Done, .. })
        | (S::FailedFinal, Event::End { epoch, attempt, ended: Ended::Failed(_) | Ended::Unknown, .. })
        | (S::Absent, Event::End { epoch, attempt, ended: Ended::Failed(Proof::Again { .. }) | Ended::Unknown, .. })
        | (S::Unknown, Event::End { epoch, attempt, ended: Ended::Unknown, .. })
        | (
            S::Parked,
            Event::End {
                epoch,
                attempt,
                ended: Ended::Failed(Proof::Again { .. }) | Ended::Unknown | Ended::Review(_),
                ..
            },
        ) if (epoch, attempt) == (entry.epoch, entry.attempt) => Answer::Recorded,
        // An end counts if it is the end of what was begun last.
        (S::Intent | S::Unknown | S::Verifying, Event::End { epoch, attempt, ended, cost })
            if (epoch, attempt) == (entry.epoch, entry.attempt) =>
        {
            entry.spent = entry.spent + cost;
            end(entry, ended, now)
        }
        (
            S::Intent | S::Done | S::FailedFinal | S::Unknown | S::Verifying | S::Absent | S::Parked,
            Event::End { .. },
        ) => Answer::Stale,

        (S::Intent | S::Verifying, Event::Lapse) if entry.held_until > now => {
            Answer::InFlight { until: entry.held_until }
        }
        (S::Intent | S::Verifying | S::Unknown, Event::Lapse) => settle_unknown(entry, None, now),
        (S::Done | S::FailedFinal | S::Absent | S::Parked, Event::Lapse) => Answer::Recorded,

        (S::Parked, Event::Decide(resolution)) => decide(entry, resolution, now),
        (S::Intent | S::Done | S::FailedFinal | S::Unknown | S::Verifying | S::Absent, Event::Decide(_)) => {
            Answer::Stale
        }
    }
}

/// A first attempt, or one after it is known that none took place.
fn begin(entry: &mut Entry, ask: &Ask, now: Wall) -> Answer {
    if ask.needs_approval && !entry.approved {
        return park(entry, EscalationKind::Approval);
    }
    if entry.not_before > now {
        return Answer::Wait { until: entry.not_before };
    }
    attempt(entry, ask, now)
}

fn attempt(entry: &mut Entry, ask: &Ask, now: Wall) -> Answer {
    if entry.spent_up(now).is_some() {
        let given_up = give_up(entry);
        // Failed for good, just now: there is an end to be told.
        return if given_up == Answer::Recorded { Answer::Replay { diverged: false } } else { given_up };
    }
    if entry.attempt == 0 {
        entry.first_at = now;
    }
    if entry.attempt == entry.forgiven {
        entry.budget_from = now;
    }
    entry.attempt += 1;
    entry.unclear = 0;
    hold(entry, LedgerState::Intent, ask);
    Answer::Execute { attempt: entry.attempt }
}

fn hold(entry: &mut Entry, state: LedgerState, ask: &Ask) {
    entry.state = state;
    entry.epoch = ask.epoch;
    entry.held_until = ask.held_until;
    entry.deadline = ask.deadline;
}

/// The last attempt may have taken place. What the class says is done about it: now if somebody asks, else as far as
/// nobody is needed.
fn settle_unknown(entry: &mut Entry, ask: Option<&Ask>, now: Wall) -> Answer {
    let remedy = entry.if_unknown(ask.map_or(now, |ask| ask.deadline));
    match remedy {
        IfUnknown::Repeat => {}
        IfUnknown::Verify { quiet } => entry.not_before = entry.verifiable(quiet).max(entry.not_before),
        // A person who looked while it may still happen would decide on what is not yet true.
        IfUnknown::Person => {
            let over = later(entry.deadline, Duration::from_millis(1)).max(entry.held_until);
            entry.not_before = over.max(entry.not_before);
        }
    }
    entry.state = LedgerState::Unknown;
    match ask {
        _ if entry.not_before > now => Answer::Wait { until: entry.not_before },
        _ if remedy == IfUnknown::Person => park(entry, EscalationKind::UnknownEffect),
        None => Answer::Recorded,
        Some(ask) if remedy == IfUnknown::Repeat => attempt(entry, ask, now),
        Some(ask) => {
            // The deadline stays the attempt's: a question sends nothing that could take place.
            let deadline = entry.deadline;
            hold(entry, LedgerState::Verifying, ask);
            entry.deadline = deadline;
            Answer::Verify { attempt: entry.attempt }
        }
    }
}

fn end(entry: &mut Entry, ended: Ended, now: Wall) -> Answer {
    match ended {
        Ended::Done => entry.state = LedgerState::Done,
        Ended::Failed(Proof::Final) => entry.state = LedgerState::FailedFinal,
        Ended::Failed(Proof::Again { after }) => {
            // A verification found nothing: the way is free at once.
            let wait = if entry.state == LedgerState::Verifying { after } else { entry.backoff().max(after) };
            entry.state = LedgerState::Absent;
            entry.not_before = later(now, wait);
            if entry.spent_up(entry.not_before).is_some() {
                return give_up(entry);
            }
        }
        Ended::Review(why) => return park(entry, why),
        Ended::Unknown => return unclear(entry, now),
    }
    Answer::Recorded
}

fn unclear(entry: &mut Entry, now: Wall) -> Answer {
    let quiet = match entry.class {
        // Doing it again is as good as knowing.
        EffectClass::Pure => return end(entry, Ended::Failed(Proof::Again { after: Duration::ZERO }), now),
        EffectClass::Once => return park(entry, EscalationKind::UnknownEffect),
        EffectClass::Tx | EffectClass::Keyed { .. } if entry.state != LedgerState::Verifying => entry.backoff(),
        EffectClass::Tx => entry.backoff(),
        EffectClass::Keyed { verify, .. } => verify.unwrap_or_default(),
        EffectClass::Verify { quiet_period } => quiet_period,
    };
    if entry.state == LedgerState::Verifying {
        entry.unclear += 1;
        if entry.unclear >= VERIFICATIONS {
            return park(entry, EscalationKind::UnknownEffect);
        }
    }
    entry.state = LedgerState::Unknown;
    // Its holder has spoken and is not at it any more.
    entry.held_until = now;
    entry.deadline = entry.deadline.min(now);
    entry.not_before = later(now, quiet);
    Answer::Recorded
}

fn give_up(entry: &mut Entry) -> Answer {
    match (entry.budget.exhausted, entry.state) {
        // What may have happened is never called a failure.
        (Exhausted::Fail | Exhausted::Escalate, LedgerState::Unknown | LedgerState::Intent)
            if entry.class.is_effect() =>
        {
            park(entry, EscalationKind::UnknownEffect)
        }
        (Exhausted::Escalate, _) => park(entry, EscalationKind::Exhausted),
        (Exhausted::Fail, _) => {
            entry.state = LedgerState::FailedFinal;
            Answer::Recorded
        }
    }
}

fn park(entry: &mut Entry, why: EscalationKind) -> Answer {
    entry.state = LedgerState::Parked;
    entry.why = Some(why);
    parked(entry, true)
}

fn parked(entry: &Entry, newly: bool) -> Answer {
    Answer::Parked { why: entry.why.unwrap_or(EscalationKind::UnknownEffect), newly }
}

fn decide(entry: &mut Entry, resolution: Resolution, now: Wall) -> Answer {
    entry.why = None;
    entry.state = match resolution {
        Resolution::Done => LedgerState::Done,
        Resolution::Failed => LedgerState::FailedFinal,
        Resolution::Try => {
            entry.approved = true;
            entry.forgiven = entry.attempt;
            entry.unclear = 0;
            entry.spent = Usd::ZERO;
            entry.not_before = now;
            LedgerState::Absent
        }
    };
    Answer::Recorded
}

fn later(at: Wall, by: Duration) -> Wall {
    Wall(at.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
}
