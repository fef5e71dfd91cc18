//! May it come in, and who could answer it: what does not change while the call lives.

use super::{Action, Call, RetryAdvice, Stage, plan::Candidate};
use crate::fleet::Fleet;
use outlast_model::{
    Failure, FailureReport, Mono,
    failure::Then,
    policy::{Ability, Contract, Needs, OutputNeed, Ranking, SafetyPolicy, TargetSpec, ToolMode},
    record::{LeftOut, Outcome, WhyLeftOut},
};

impl Call {
    pub(super) fn admit(&mut self, fleet: &mut Fleet, now: Mono) {
        if self.stage != Stage::New {
            return;
        }
        match fleet.admit() {
            Ok(()) if self.first_failure.is_some() => self.spent_elsewhere(fleet, now),
            Ok(()) => {
                self.gather(fleet);
                self.plan(fleet, now);
            }
            Err(again_in) => self.shed(fleet, again_in, now),
        }
    }

    /// Its paths were spent elsewhere. A policy reason is the client's to see, or a person's, and goes no further.
    fn spent_elsewhere(&mut self, fleet: &mut Fleet, now: Mono) {
        self.stage = Stage::Live;
        let Some((attempt, cause)) = self.first_failure.clone() else { return };
        let reviewed = self.route.route().contract.safety == SafetyPolicy::Review;
        match cause.failure.remedy().then {
            Then::ReturnReason if reviewed && cause.failure == Failure::SafetyBlock => {
                self.review(fleet, cause, attempt, now);
            }
            Then::ReturnReason => self.reject(fleet, cause, None, now),
            Then::Reroute
            | Then::RerouteLarger
            | Then::RerouteStructured
            | Then::RerouteTools
            | Then::IfContractAllows
            | Then::StreamContract
            | Then::Backstop
            | Then::Settle => self.give_up(fleet, now),
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
        self.conclude(fleet, Outcome::Failed(Failure::Overloaded), None, Vec::new(), now);
    }

    /// The targets that can answer, and why the others cannot.
    fn gather(&mut self, fleet: &Fleet) {
        let route = self.route.clone();
        let contract = &route.route().contract;
        self.candidates.reserve_exact(route.bound().len());
        for (listed, place) in (0u64..).zip(route.bound()) {
            let target = fleet.target(place.ix);
            let leave_out = |why| LeftOut { target: target.spec.id.clone(), why };
            let (mode, unknown) = match suits(&target.spec, listed == 0, contract, &self.needs) {
                Ok(suits) => suits,
                Err(why) => {
                    self.left_out.push(leave_out(why));
                    continue;
                }
            };
            let rank = match route.route().ranking {
                Ranking::Order => listed,
                Ranking::Weight => drawn(&mut self.rng, place.weight),
                Ranking::Latency => u64::try_from(target.latency(&self.needs).p50(self.needs.input_tokens).as_micros())
                    .unwrap_or(u64::MAX),
                Ranking::Cost => fleet.expected_cost(place.ix, &self.needs).unwrap_or(u64::MAX),
            };
            self.candidates.push(Candidate::new(*place, target.provider, unknown, mode, rank));
            if let Err(why) = self.fits(fleet) {
                let candidate = self.candidates.pop();
                let shorter_fits = matches!(why, WhyLeftOut::ContextTooSmall { .. } | WhyLeftOut::OverBudget { .. });
                self.small.extend(candidate.filter(|_| shorter_fits && contract.shorten.is_some()));
                self.left_out.push(leave_out(why));
            }
        }
        if self.candidates.is_empty() && self.shorten(fleet) {
            let small = self.candidates.iter().map(|candidate| &fleet.target(candidate.place.ix).spec.id);
            let small: Vec<_> = small.collect();
            self.left_out.retain(|left| !small.contains(&&left.target));
        }
    }

    /// Whether the last candidate takes the whole input, and the money what it charges for it.
    fn fits(&self, fleet: &Fleet) -> Result<(), WhyLeftOut> {
        let Some(candidate) = self.candidates.last() else { return Ok(()) };
        let ix = candidate.place.ix;
        // The estimate of the input is rough; what it cannot rule out is tried, and `context_exceeded` moves on.
        let output = self.needs.max_output_tokens.unwrap_or(0);
        let needed = fleet.input_tokens(ix, &self.needs).saturating_add(output);
        match fleet.target(ix).spec.context_window {
            Some(window) if needed > window => return Err(WhyLeftOut::ContextTooSmall { window, needed }),
            Some(_) | None => {}
        }
        self.quote(self.candidates.len() - 1, None, fleet).map(drop)
    }
}

/// A rank that comes first in proportion to the weight: the exponential race of Efraimidis and Spirakis.
fn drawn(rng: &mut fastrand::Rng, weight: u32) -> u64 {
    let arrival = -rng.f64().max(1e-12).ln() / f64::from(weight);
    (arrival * 1e15) as u64
}

/// Whether a target can answer such a request, whatever its size: in which tool mode, and surely (`false`) or only as far
/// as anybody knows (`true`).
fn suits(spec: &TargetSpec, primary: bool, contract: &Contract, needs: &Needs) -> Result<(ToolMode, bool), WhyLeftOut> {
    permitted(spec, contract)?;
    let lost = &needs.cannot_carry[spec.dialect.index()];
    if !lost.is_empty() {
        return Err(WhyLeftOut::CannotCarry(lost.iter().map(|what| (*what).into()).collect()));
    }
    let tools = spec.capabilities.tools;
    let mode = match &contract.tools {
        Some(policy) if needs.tools => policy.mode(primary, tools).ok_or(WhyLeftOut::NoTools)?,
        // What the provider runs takes no ability to call functions.
        Some(policy) if needs.provider_effects => policy.mode(primary, Ability::Unknown).unwrap_or_default(),
        Some(_) | None => ToolMode::Full,
    };
    let calls_tools = needs.tools && matches!(mode, ToolMode::Full | ToolMode::ReadOnly);
    let demanded = [
        (calls_tools || contract.needs.tools, tools, WhyLeftOut::NoTools),
        (needs.images || contract.needs.images, spec.capabilities.images, WhyLeftOut::NoImages),
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
    match (contract.needs.context, spec.context_window) {
        (Some(needed), Some(window)) if window < needed => return Err(WhyLeftOut::ContextTooSmall { window, needed }),
        (Some(_), None) => unknown = true,
        (Some(_) | None, Some(_) | None) => {}
    }
    match (spec.max_output, needs.max_output_tokens) {
        (Some(limit), Some(wanted)) if wanted > limit => Err(WhyLeftOut::OutputTooLong { limit, wanted }),
        (Some(_) | None, Some(_) | None) => Ok((mode, unknown)),
    }
}

/// Whether the contract lets the request go there. A region that nobody states is none of the permitted ones.
fn permitted(spec: &TargetSpec, contract: &Contract) -> Result<(), WhyLeftOut> {
    let permissions = &contract.permissions;
    if let Some(providers) = &permissions.providers
        && !providers.iter().any(|provider| **provider == *spec.provider.as_str())
    {
        return Err(WhyLeftOut::NotPermitted("provider".into()));
    }
    match (&permissions.regions, &spec.region) {
        (None, _) => Ok(()),
        (Some(regions), Some(region)) if regions.contains(region) => Ok(()),
        (Some(_), Some(_) | None) => Err(WhyLeftOut::NotPermitted("region".into())),
    }
}
