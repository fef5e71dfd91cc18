//! The targets of a run and the route over them.

use super::{model, scenario::Scenario};
use outlast_model::{TargetId, policy::*};
use std::{sync::Arc, time::Duration};

/// A, B and C, of three providers.
pub(super) fn specs(scenario: Scenario) -> Vec<TargetSpec> {
    let secs = Duration::from_secs;
    let names = ["a/model", "b/model", "c/model"];
    let spec = |(name, price): (&str, _)| {
        let id = TargetId::from(name);
        TargetSpec {
            provider: id.provider().into(),
            id,
            region: None,
            dialect: Dialect::OpenaiChat,
            capabilities: Capabilities { tools: Ability::Yes, images: Ability::Yes, json_schema: Ability::Yes },
            context_window: None,
            max_output: None,
            price: Some(price),
            timeouts: Timeouts {
                connect: secs(5),
                header: secs(60),
                first_token: secs(45),
                idle: secs(30),
                total: secs(600),
            },
            keys: 1,
            probes: true,
        }
    };
    names.into_iter().zip(model::prices()).map(spec).take(scenario.targets()).collect()
}

/// The one route, with the tier that the scenario wants.
pub(super) fn route(scenario: Scenario, targets: &[TargetSpec]) -> Route {
    let [.., standard, _] = Tier::built_in();
    Route::plain(
        "benchmark".into(),
        targets.iter().map(|spec| RouteTarget { target: spec.id.clone(), weight: 1 }).collect(),
        Arc::new(Tier { name: "benchmark".into(), deadline: scenario.deadline(), hedge: scenario.hedge(), ..standard }),
        Arc::new(Contract::plain("benchmark", StreamContract::Fail)),
    )
}
