//! May it come in, and who could answer it: what does not change while the call lives.

use super::{Action, Call, RetryAdvice, Stage, plan::Candidate};
use crate::fleet::Fleet;
use outlast_model::{
    Failure, FailureReport, Mono,
    policy::{Ability, Needs, OutputNeed, Ranking, TargetSpec},
    record::{LeftOut, Outcome, WhyLeftOut},
};

impl Call {
    pub(super) fn admit(&mut self, fleet: &mut Fleet, now: Mono) {
        if self.stage != Stage::New {
            return;
        }
        match fleet.admit() {
            // Its paths were spent elsewhere.
            Ok(()) if self.first_failure.is_some() => {
                self.stage = Stage::Live;
                self.give_up(fleet, now);
            }
            Ok(()) => {
                self.gather(fleet);
                self.plan(fleet, now);
            }
            Err(again_in) => self.shed(fleet, again_in, now),
        }
    }

    /// Full: the client's SDK is asked to come back.
    fn shed(&mut self, fleet: &mut Fleet, again_in: std::time::Duration, now: Mono) {
        let report = FailureReport { retry_after: Some(again_in), ..FailureReport::of(Failure::Overloaded) };
        self.actions.push_back(Action::Reject {
            failure: report,
            cause: None,
            attempt: None,
            retry: RetryAdvice { should_retry: true, retry_after: Some(again_in) },
            after_commit: false,
        });
        self.conclude(fleet, Outcome::Failed(Failure::Overloaded), None, now);
    }

    /// The targets that can answer, and why the others cannot.
    fn gather(&mut self, fleet: &Fleet) {
        let route = self.route.clone();
        let ranking = route.route().ranking;
        self.candidates.reserve_exact(route.bound().len());
        for (listed, place) in (0u64..).zip(route.bound()) {
            let target = fleet.target(place.ix);
            match fits(&target.spec, &self.needs, fleet.input_tokens(place.ix, &self.needs)) {
                Ok(unknown) => {
                    let rank = match ranking {
                        Ranking::Order => listed,
                        Ranking::Weight => drawn(&mut self.rng, place.weight),
                        Ranking::Latency => {
                            u64::try_from(target.latency(&self.needs).p50(self.needs.input_tokens).as_micros())
                                .unwrap_or(u64::MAX)
                        }
                        Ranking::Cost => fleet.expected_cost(place.ix, &self.needs).unwrap_or(u64::MAX),
                    };
                    self.candidates.push(Candidate::new(*place, target.provider, unknown, rank));
                }
                Err(why) => self.left_out.push(LeftOut { target: target.spec.id.clone(), why }),
            }
        }
    }
}

/// A rank that comes first in proportion to the weight: the exponential race of Efraimidis and Spirakis.
fn drawn(rng: &mut fastrand::Rng, weight: u32) -> u64 {
    let arrival = -rng.f64().max(1e-12).ln() / f64::from(weight);
    (arrival * 1e15) as u64
}

/// Whether a target can answer a request of so many tokens, by its own count: surely (`Ok(false)`), or as far as anybody
/// knows (`Ok(true)`).
fn fits(spec: &TargetSpec, needs: &Needs, input_tokens: u32) -> Result<bool, WhyLeftOut> {
    let lost = &needs.cannot_carry[spec.dialect.index()];
    if !lost.is_empty() {
        return Err(WhyLeftOut::CannotCarry(lost.iter().map(|what| (*what).into()).collect()));
    }
    let demanded = [
        (needs.tools, spec.capabilities.tools, WhyLeftOut::NoTools),
        (needs.images, spec.capabilities.images, WhyLeftOut::NoImages),
        (needs.output == OutputNeed::JsonSchema, spec.capabilities.json_schema, WhyLeftOut::NoSchema),
    ];
    let mut unknown = false;
    for (needed, ability, why) in demanded {
        match ability {
            Ability::No if needed => return Err(why),
            Ability::Unknown if needed => unknown = true,
            Ability::Yes | Ability::No | Ability::Unknown => {}
        }
    }
    if let (Some(limit), Some(wanted)) = (spec.max_output, needs.max_output_tokens)
        && wanted > limit
    {
        return Err(WhyLeftOut::OutputTooLong { limit, wanted });
    }
    // The estimate of the input is rough; what it cannot rule out is tried, and `context_exceeded` moves on.
    let needed = input_tokens.saturating_add(needs.max_output_tokens.unwrap_or(0));
    match spec.context_window {
        Some(window) if needed > window => Err(WhyLeftOut::ContextTooSmall { window, needed }),
        Some(_) | None => Ok(unknown),
    }
}
