//! Steps, effects and what people decide about them, in histories.

use super::{
    history::{recent, short, size},
    runs::{self, run, step_without_epoch},
    see::{Seen, ago, name, payload, tenant},
};
use crate::{
    BeginStep, ClaimUnknown, DecideEscalation, EndStep, Epoch, EscalationFilter, IfParked, Page, Place, RenewStep,
    StepBegun, Store, StoreError,
};
use fastrand::Rng;
use outlast_engine::run::{Ended, Proof};
use outlast_model::{
    Usd,
    run::{EffectClass, EscalationKind, Exhausted, RetryBudget, StepKind, Verb},
};
use std::time::Duration;

/// Steps and effects.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is the command of its name")]
pub enum StepOp {
    Begin(Begins),
    Renew { attempt: u8, lease: Duration },
    End { attempt: u8, ended: u8, size: u8, cost: u8, lease: Duration },
    View { tenant: u8, run: u8, key: u8 },
    ViewEffect { tenant: u8, scope: u8, key: u8 },
    ClaimUnknown { lease: Duration, limit: u32, asked: u8 },
    Decide { ago: u8, by: u8, verb: u8, any_verb: bool, stale: bool, result: bool, size: u8 },
}

/// What a step is begun with.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is the field of its name")]
pub struct Begins {
    pub by: By,
    pub key: u8,
    pub effect: Option<(u8, u8)>,
    pub class: u8,
    pub fingerprint: u8,
    pub budget: u8,
    pub lease: Duration,
    pub deadline: Duration,
    pub needs_approval: bool,
    pub strict: bool,
    pub size: u8,
    pub undo: bool,
    pub undoes: Option<u8>,
}

/// Who begins a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum By {
    /// The holder of the claim made so many claims ago.
    Claim(u8),
    /// A program that journals without a claim.
    Run {
        /// Whose run.
        tenant: u8,
        /// Which.
        id: u8,
    },
    /// A program without a run.
    Nobody {
        /// Whose program.
        tenant: u8,
    },
}

pub(super) fn step_op(rng: &mut Rng) -> StepOp {
    match rng.u8(..50) {
        0..19 => StepOp::Begin(begins(rng)),
        19..21 => StepOp::Renew { attempt: recent(rng), lease: short(rng) },
        21..36 => StepOp::End {
            attempt: recent(rng),
            ended: [0, 0, 0, 1, 2, 2, 3, 3, 3, 4, 5][rng.usize(..11)],
            size: size(rng),
            cost: rng.u8(..3),
            lease: short(rng),
        },
        36..38 => StepOp::View { tenant: rng.u8(..2), run: rng.u8(..5), key: rng.u8(..8) },
        38..40 => StepOp::ViewEffect { tenant: rng.u8(..2), scope: rng.u8(..2), key: rng.u8(..3) },
        40..43 => StepOp::ClaimUnknown { lease: short(rng), limit: rng.u32(..4), asked: rng.u8(..3) },
        _ => StepOp::Decide {
            ago: rng.u8(..3),
            by: rng.u8(..2),
            verb: rng.u8(..9),
            any_verb: rng.u8(..6) == 0,
            stale: rng.u8(..8) == 0,
            result: rng.bool(),
            size: rng.u8(..20),
        },
    }
}

fn begins(rng: &mut Rng) -> Begins {
    let key = rng.u8(..7);
    let by = match rng.u8(..12) {
        0..7 => By::Claim(recent(rng)),
        7..10 => By::Run { tenant: rng.u8(..2), id: rng.u8(..5) },
        _ => By::Nobody { tenant: rng.u8(..2) },
    };
    // Mostly the same for the same key, so that it can be repeated.
    let (scope, under) = (key % 2, key % 3);
    Begins {
        by,
        key,
        effect: (key < 3).then_some((scope, if rng.u8(..9) == 0 { rng.u8(..3) } else { under })),
        class: if rng.u8(..5) == 0 { rng.u8(..6) } else { (key + 5) % 6 },
        fingerprint: u8::from(rng.u8(..9) == 0),
        budget: rng.u8(..4),
        lease: short(rng),
        deadline: short(rng),
        needs_approval: rng.u8(..9) == 0,
        strict: rng.u8(..3) == 0,
        size: if rng.bool() { 5 } else { size(rng) },
        undo: rng.u8(..4) == 0,
        undoes: (rng.u8(..8) == 0).then(|| rng.u8(..7)),
    }
}

/// The attempts begun so far.
#[derive(Debug, Default)]
pub(super) struct Attempts(Vec<(Place, Epoch, u32)>);

impl Attempts {
    /// The answer, and the epochs that were drawn for it, in order. `number` is that of the command.
    pub(super) async fn play(
        &mut self,
        store: &dyn Store,
        claims: &runs::Claims,
        op: &StepOp,
        number: u32,
    ) -> Result<(Seen, Vec<Epoch>), StoreError> {
        let mut drawn = Vec::new();
        let seen = match op {
            StepOp::Begin(begins) => {
                let Some(command) = begin(begins, claims, number) else { return Ok((Seen::Nothing, drawn)) };
                let (place, claim) = (command.place.clone(), command.epoch);
                let mut begun = store.begin_step(command).await?;
                if let StepBegun::Execute { attempt, epoch, .. } | StepBegun::Verify { attempt, epoch, .. } = &mut begun
                {
                    let epoch = std::mem::replace(epoch, Epoch(0));
                    self.0.push((place, epoch, *attempt));
                    // Of a run's claim: its own. Of nobody's: a new one.
                    match claim {
                        Some(claim) if claim == epoch => {}
                        Some(_) => return Ok((Seen::StaleEpoch, drawn)),
                        None => drawn.push(epoch),
                    }
                }
                Seen::StepBegun(Box::new(begun))
            }
            StepOp::Renew { attempt, lease } => {
                let Some((place, epoch, _)) = ago(&self.0, *attempt) else { return Ok((Seen::Nothing, drawn)) };
                Seen::Fenced(store.renew_step(RenewStep { place, epoch, lease: *lease }).await?)
            }
            StepOp::End { attempt, ended, size, cost, lease } => {
                let Some((place, epoch, attempt)) = ago(&self.0, *attempt) else { return Ok((Seen::Nothing, drawn)) };
                let command = EndStep {
                    place,
                    epoch,
                    attempt,
                    ended: self::ended(*ended),
                    payload: payload(*size),
                    cost: Usd::from_nanos((*cost).into()),
                    lease: *lease,
                    if_parked: asked(number),
                };
                Seen::StepEnded(store.end_step(command).await?)
            }
            StepOp::View { tenant, run: id, key } => {
                let place = Place::Step { run: run(*tenant, *id), key: name("step", *key) };
                Seen::Step(store.step(place).await?.map(|view| Box::new(step_without_epoch(view))))
            }
            StepOp::ViewEffect { tenant: who, scope, key } => {
                let place = effect(*who, (*scope, *key));
                Seen::Step(store.step(place).await?.map(|view| Box::new(step_without_epoch(view))))
            }
            StepOp::ClaimUnknown { lease, limit, asked: many } => {
                let if_parked = (0..*many).map(|at| asked(number * 10 + 1_000_000 + u32::from(at))).collect();
                let mut given = store.claim_unknown(ClaimUnknown { lease: *lease, limit: *limit, if_parked }).await?;
                for one in &mut given {
                    let epoch = std::mem::replace(&mut one.epoch, Epoch(0));
                    self.0.push((one.place.clone(), epoch, one.attempt));
                    drawn.push(epoch);
                }
                Seen::UnknownEffects(given)
            }
            StepOp::Decide { .. } => decide(store, op).await?,
        };
        Ok((seen, drawn))
    }
}

fn begin(begins: &Begins, claims: &runs::Claims, number: u32) -> Option<BeginStep> {
    let (tenant, of, epoch) = match begins.by {
        By::Claim(claim) => {
            let (run, epoch) = claims.ago(claim)?;
            (run.tenant.clone(), Some(run), Some(epoch))
        }
        By::Run { tenant: who, id } => (tenant(who), Some(run(who, id)), None),
        By::Nobody { tenant: who } => (tenant(who), None, None),
    };
    let key = name("step", begins.key);
    let (place, journal) = match (begins.effect, of) {
        (Some((scope, under)), of) => {
            let (scope, under) = (name("scope", scope), name("key", under));
            (Place::Effect { tenant, scope, key: under }, of.map(|run| (run, key)))
        }
        (None, Some(run)) => (Place::Step { run, key }, None),
        // Nobody's step is an effect.
        (None, None) => (Place::Effect { tenant, scope: "scope-0".into(), key: name("key", begins.key % 3) }, None),
    };
    Some(BeginStep {
        place,
        journal,
        epoch,
        fence: None,
        lease: begins.lease,
        kind: StepKind::Tool,
        name: name("tool", begins.key),
        class: class(begins.class),
        fingerprint: [begins.fingerprint; 32],
        input: payload(begins.size),
        budget: budget(begins.budget),
        call_deadline: begins.deadline,
        needs_approval: begins.needs_approval,
        strict: begins.strict,
        undo: begins.undo.then(|| payload(4)),
        undoes: begins.undoes.map(|key| name("step", key)),
        if_parked: asked(number),
    })
}

/// Decides about one of the escalations that are open, the newest first.
async fn decide(store: &dyn Store, op: &StepOp) -> Result<Seen, StoreError> {
    let StepOp::Decide { ago: which, by, verb, any_verb, stale, result, size } = op else { return Ok(Seen::Nothing) };
    let filter = EscalationFilter { open_only: true, ..EscalationFilter::default() };
    let open = store.escalations(filter, Page { after: None, size: Page::LARGEST }).await?.escalations;
    let work = open.iter().filter(|one| one.kind != EscalationKind::Call).nth(usize::from(*which));
    let Some(escalation) = work else { return Ok(Seen::Escalations(open)) };
    let choices = if *any_verb { &Verb::ALL[..] } else { escalation.kind.choices() };
    let command = DecideEscalation {
        id: escalation.id.clone(),
        by: name("person", *by),
        verb: choices[usize::from(*verb) % choices.len()],
        shown: if *stale { [7; 32] } else { escalation.shown },
        result: result.then(|| payload(*size)),
        decision: payload(2),
    };
    Ok(Seen::DecidedAbout(escalation.id.clone(), store.decide_escalation(command).await?))
}

/// What the command of this number asks a person, if it has to.
pub(super) fn asked(number: u32) -> IfParked {
    IfParked {
        id: format!("asked-{number}").into(),
        question: "?".into(),
        context: payload(3),
        answer_within: (number.is_multiple_of(2)).then(|| Duration::from_secs(1)),
    }
}

fn effect(who: u8, (scope, key): (u8, u8)) -> Place {
    Place::Effect { tenant: tenant(who), scope: name("scope", scope), key: name("key", key) }
}

fn class(number: u8) -> EffectClass {
    let key_ttl = Duration::from_millis(1_500);
    match number {
        0 => EffectClass::Pure,
        1 => EffectClass::Tx,
        2 => EffectClass::Keyed { key_ttl, verify: None },
        3 => EffectClass::Keyed { key_ttl, verify: Some(Duration::from_millis(400)) },
        4 => EffectClass::Verify { quiet_period: Duration::from_millis(300) },
        _ => EffectClass::Once,
    }
}

fn budget(number: u8) -> RetryBudget {
    let usual = RetryBudget {
        attempts: 2,
        base: Duration::from_millis(50),
        cap: Duration::from_millis(400),
        ..RetryBudget::default()
    };
    match number {
        0 => RetryBudget { exhausted: Exhausted::Fail, ..usual },
        1 => RetryBudget { attempts: 4, within: Some(Duration::from_millis(2_000)), ..usual },
        2 => RetryBudget { attempts: 5, cost_max: Some(Usd::from_nanos(3)), exhausted: Exhausted::Fail, ..usual },
        _ => usual,
    }
}

fn ended(number: u8) -> Ended {
    match number {
        0 => Ended::Done,
        1 => Ended::Failed(Proof::Final),
        2 => Ended::Failed(Proof::Again { after: Duration::from_millis(120) }),
        3 => Ended::Unknown,
        4 => Ended::Review(EscalationKind::LowConfidence),
        _ => Ended::Review(EscalationKind::Human),
    }
}
