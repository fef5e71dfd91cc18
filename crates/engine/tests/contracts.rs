//! What becomes of a reply that breaks its contract: mended, rerouted, degraded, reviewed or stopped; and of tools that
//! a target may not use as it likes.

mod world;

use outlast_engine::*;
use outlast_model::{
    Failure, FailureReport, Findings, Gate, Problem,
    policy::*,
    record::{AttemptReason as R, Decision as D, GaveUp, Outcome, SchemaStatus, WhyLeftOut},
};
use std::time::Duration;
use world::*;

/// One call over `a/m` and `b/m`; `a/m` behaves as scripted, by how often it was asked, the second is well.
fn one_call(contract: Contract, script: impl Fn(&Question) -> Script + 'static) -> World {
    ask(under(contract, &["a/m", "b/m"]), &[target("a/m"), target("b/m")], whole(), move |q| match q.target.as_str() {
        "a/m" => script(q),
        _ => ok(),
    })
}

fn ask(route: Route, targets: &[TargetSpec], needs: Needs, script: impl Fn(&Question) -> Script + 'static) -> World {
    let mut world = World::new(targets, route, move |q, _| script(q)).with_backstops(|_, _| Some((ms(5), deferred())));
    world.arrive(at(1.0), needs);
    world.run_until(at(200.0));
    assert!(world.all_settled());
    world
}

fn path(world: &World) -> Vec<(&str, R, D)> {
    world.settled(0).attempts.iter().map(|it| (it.target.as_str(), it.reason, it.decision)).collect()
}

fn repairing(then: AfterRepair) -> Contract {
    Contract { repair: Repair { fixes: Vec::new(), model: true, then }, ..gated() }
}

#[test]
fn a_broken_reply_is_mended_once_by_the_same_model_with_its_violations_named() {
    let world = one_call(repairing(AfterRepair::Reroute), |q| match q.brief.mend {
        None => breaks(&[Gate::Schema, Gate::Citation]),
        Some(_) => ok(),
    });
    assert_eq!(path(&world), [("a/m", R::First, D::Repair), ("a/m", R::Repair, D::Deliver)]);
    let mend = world.calls[0].briefs[1].mend.clone().unwrap();
    assert_eq!(mend.attempt, 0);
    assert_eq!(mend.problems, world.settled(0).attempts[0].problems);
    assert_eq!(mend.problems.len(), 2);
    assert!(!world.settled(0).degraded, "a mended reply is a full one");
}

#[test]
fn after_a_repair_that_did_not_help_comes_what_the_contract_says() {
    let mended = ("a/m", R::First, D::Repair);
    for (then, expected, outcome) in [
        (
            AfterRepair::Reroute,
            vec![mended, ("a/m", R::Repair, D::Reroute), ("b/m", R::Reroute, D::Deliver)],
            Outcome::Answered,
        ),
        (AfterRepair::Review, vec![mended, ("a/m", R::Repair, D::GiveUp)], Outcome::Deferred),
        (AfterRepair::Stop, vec![mended, ("a/m", R::Repair, D::GiveUp)], Outcome::Failed(Failure::SchemaError)),
    ] {
        let route = Route { backstops: vec![a_static(), an_escalation()], ..under(repairing(then), &["a/m", "b/m"]) };
        let targets = [target("a/m"), target("b/m")];
        let world = ask(route, &targets, whole(), |q| match q.target.as_str() {
            "a/m" => breaks(&[Gate::Schema]),
            _ => ok(),
        });
        assert_eq!(path(&world), expected, "{then:?}");
        assert_eq!(world.settled(0).outcome, outcome, "{then:?}");
        let asked: Vec<_> = world.calls[0].backstops.iter().map(|(at, _)| *at).collect();
        assert_eq!(asked, if then == AfterRepair::Review { vec![1] } else { vec![] }, "a person, and nobody else");
    }
}

#[test]
fn an_attempt_at_repair_that_never_came_counts_as_one_that_did_not_help() {
    let world = one_call(repairing(AfterRepair::Stop), |q| match q.brief.mend {
        None => breaks(&[Gate::Schema]),
        Some(_) => fail(Failure::Overloaded),
    });
    assert_eq!(world.settled(0).outcome, Outcome::Failed(Failure::Overloaded));
    let (_, cause, ..) = world.calls[0].rejected.clone().unwrap();
    assert_eq!(cause.unwrap().failure, Failure::SchemaError);
}

#[test]
fn only_what_a_model_can_mend_is_sent_back_to_it() {
    let all = [
        (Gate::Schema, true),
        (Gate::Drift, true),
        (Gate::Citation, true),
        (Gate::MustInclude, true),
        (Gate::MustNot, true),
        (Gate::Language, true),
        (Gate::Length, true),
        (Gate::Duplicate, false),
        (Gate::Expression, true),
        (Gate::Claim, false),
        (Gate::Confidence, false),
        (Gate::Validator, true),
    ];
    for (gate, mends) in all {
        let world = one_call(repairing(AfterRepair::Reroute), move |_| breaks(&[gate]));
        assert_eq!(path(&world)[1].1 == R::Repair, mends, "{}", gate.name());
        assert_eq!(world.settled(0).served_by.as_ref().unwrap().as_str(), "b/m");
        let both = one_call(repairing(AfterRepair::Reroute), move |_| breaks(&[Gate::Schema, gate]));
        assert_eq!(path(&both)[1].1 == R::Repair, mends, "schema and {}", gate.name());
    }
    for failure in [Failure::Refusal, Failure::Empty, Failure::Truncated, Failure::ToolMismatch] {
        let refusing = Contract { refusal: RefusalPolicy::Reroute, ..repairing(AfterRepair::Reroute) };
        let world = one_call(refusing, move |_| bad(failure));
        assert!(path(&world).iter().all(|(_, reason, _)| *reason != R::Repair), "{failure}");
    }
}

#[test]
fn a_repair_counts_as_an_attempt_and_a_second_target_is_not_mended_too() {
    let mut two = under(repairing(AfterRepair::Reroute), &["a/m", "b/m"]);
    two.tier = tier(2, Duration::from_secs(60));
    let targets = [target("a/m"), target("b/m")];
    let world = ask(two.clone(), &targets, whole(), |_| breaks(&[Gate::Schema]));
    assert_eq!(path(&world), [("a/m", R::First, D::Repair), ("a/m", R::Repair, D::GiveUp)]);
    two.tier = tier(4, Duration::from_secs(60));
    let world = ask(two, &targets, whole(), |_| breaks(&[Gate::Schema]));
    let reasons: Vec<_> = path(&world).iter().map(|(.., reason, _)| *reason).collect();
    assert_eq!(reasons, [R::First, R::Repair, R::Reroute]);
}

#[test]
fn after_a_schema_error_the_targets_that_keep_a_schema_natively_come_first() {
    let plain = |id| TargetSpec {
        capabilities: Capabilities { json_schema: Ability::Unknown, ..target(id).capabilities },
        ..target(id)
    };
    let targets = [plain("a/m"), plain("b/m"), target("c/m")];
    let broken = |_: &Question| breaks(&[Gate::Schema]);
    let world = ask(under(gated(), &["a/m", "b/m", "c/m"]), &targets, whole(), broken);
    let asked: Vec<_> = path(&world).iter().map(|(target, ..)| *target).collect();
    assert_eq!(asked, ["a/m", "c/m", "b/m"]);
    let world = ask(under(gated(), &["a/m", "b/m", "c/m"]), &targets, whole(), |_| breaks(&[Gate::Citation]));
    let asked: Vec<_> = path(&world).iter().map(|(target, ..)| *target).collect();
    assert_eq!(asked, ["a/m", "b/m", "c/m"], "a schema helps no citation");
}

#[test]
fn what_nobody_could_judge_goes_to_no_other_target() {
    let world = one_call(gated(), |_| breaks(&[Gate::Unjudged]));
    assert_eq!(path(&world), [("a/m", R::First, D::GiveUp)]);
    let (failure, cause, ..) = world.calls[0].rejected.clone().unwrap();
    assert_eq!((failure.failure, cause.unwrap().failure), (Failure::Exhausted, Failure::ToolFailed));
}

#[test]
fn a_reply_that_keeps_the_degraded_schema_is_kept_while_better_ones_are_sought() {
    let world = one_call(gated(), |_| keeps_degraded());
    assert_eq!(path(&world), [("a/m", R::First, D::Keep), ("b/m", R::Reroute, D::Deliver)]);
    assert_eq!(world.calls[0].delivered.unwrap().0, Source::Attempt(1));
    assert!(!world.settled(0).degraded);
}

#[test]
fn the_kept_reply_is_served_and_marked_when_nothing_better_comes_before_any_backstop() {
    for better in [fail(Failure::ServerError), breaks(&[Gate::Unjudged]), keeps_degraded(), bad(Failure::Refusal)] {
        let refusing = Contract { refusal: RefusalPolicy::Review, ..gated() };
        let route = Route { backstops: vec![an_escalation()], ..under(refusing, &["a/m", "b/m"]) };
        let shown = format!("{better:?}");
        let script = move |q: &Question| if q.target.as_str() == "a/m" { keeps_degraded() } else { better.clone() };
        let world = ask(route, &[target("a/m"), target("b/m")], whole(), script);
        let settled = world.settled(0);
        assert_eq!(world.calls[0].delivered.unwrap().0, Source::Kept(0), "{shown}");
        assert_eq!((settled.outcome, settled.degraded), (Outcome::Answered, true), "{shown}");
        assert_eq!(settled.gave_up, [GaveUp::Schema], "{shown}");
        assert_eq!(settled.served_by.as_ref().unwrap().as_str(), "a/m", "{shown}");
        assert_eq!(settled.attempts[0].decision, D::Deliver, "{shown}");
        assert!(settled.wasted < settled.cost, "{shown}");
    }
}

#[test]
fn the_only_reply_is_served_at_once_if_it_keeps_the_degraded_schema() {
    let world = ask(under(gated(), &["a/m"]), &[target("a/m")], whole(), |_| keeps_degraded());
    assert_eq!(world.calls[0].delivered.unwrap().0, Source::Attempt(0));
    assert_eq!(world.calls[0].kept, None, "there is nothing to wait for");
    assert_eq!(world.settled(0).gave_up, [GaveUp::Schema]);
}

#[test]
fn a_reply_that_keeps_the_degraded_schema_is_kept_while_it_is_mended() {
    let world = one_call(repairing(AfterRepair::Stop), |q| match q.brief.mend {
        None => keeps_degraded(),
        Some(_) => ok(),
    });
    assert_eq!(path(&world), [("a/m", R::First, D::Keep), ("a/m", R::Repair, D::Deliver)]);
    assert!(!world.settled(0).degraded);
    let world = one_call(repairing(AfterRepair::Stop), |q| match q.brief.mend {
        None => keeps_degraded(),
        Some(_) => breaks(&[Gate::Schema]),
    });
    assert_eq!(world.calls[0].delivered.unwrap().0, Source::Kept(0), "stop is for when nothing can be served");
}

#[test]
fn the_kept_reply_is_served_at_the_deadline() {
    let mut route = under(gated(), &["a/m", "b/m"]);
    route.tier = tier(3, Duration::from_secs(5));
    let script = |q: &Question| if q.target.as_str() == "a/m" { keeps_degraded() } else { Script::Hang };
    let world = ask(route, &[target("a/m"), target("b/m")], whole(), script);
    assert_eq!(world.calls[0].delivered, Some((Source::Kept(0), at(6.0))));
}

#[test]
fn a_kept_reply_does_not_answer_for_a_safety_block() {
    let script = |q: &Question| if q.target.as_str() == "a/m" { keeps_degraded() } else { bad(Failure::SafetyBlock) };
    let world = ask(under(gated(), &["a/m", "b/m"]), &[target("a/m"), target("b/m")], whole(), script);
    assert_eq!(world.settled(0).outcome, Outcome::Failed(Failure::SafetyBlock));
}

#[test]
fn a_refusal_goes_to_a_person_if_the_contract_says_so() {
    for refusal in [bad(Failure::Refusal), fail(Failure::Refusal)] {
        let contract = Contract { refusal: RefusalPolicy::Review, ..gated() };
        let route = Route { backstops: vec![a_cache(), an_escalation()], ..under(contract, &["a/m", "b/m"]) };
        let world = ask(route, &[target("a/m"), target("b/m")], whole(), move |_| refusal.clone());
        assert_eq!(world.settled(0).outcome, Outcome::Deferred);
        assert_eq!(
            world.calls[0].backstops,
            [(
                1,
                FailureReport { status: world.calls[0].backstops[0].1.status, ..FailureReport::of(Failure::Refusal) }
            )]
        );
        assert_eq!(world.calls[0].starts.len(), 1);
    }
}

#[test]
fn a_refusal_among_other_breaches_is_not_the_reply() {
    let both = || {
        let mut findings = found(Failure::Refusal);
        findings.problems.push(Problem::at(Gate::Schema, "scripted"));
        answer(ms(300), findings)
    };
    for (refusal, expected) in
        [(RefusalPolicy::Deliver, Failure::SchemaError), (RefusalPolicy::Reroute, Failure::Refusal)]
    {
        let contract = Contract { refusal, ..gated() };
        let world = one_call(contract, move |_| both());
        assert_eq!(world.settled(0).served_by.as_ref().unwrap().as_str(), "b/m");
        assert_eq!(world.settled(0).attempts[0].failure.as_ref().unwrap().failure, expected);
    }
}

#[test]
fn a_safety_block_goes_to_a_person_if_the_contract_says_so_and_never_further() {
    let contract = Contract { safety: SafetyPolicy::Review, ..gated() };
    for (answer, outcome) in
        [(deferred(), Outcome::Deferred), (Backstopped::Declined, Outcome::Failed(Failure::SafetyBlock))]
    {
        let route = Route {
            backstops: vec![a_static(), an_escalation(), a_queue()],
            ..under(contract.clone(), &["a/m", "b/m"])
        };
        let mut world = World::new(&[target("a/m"), target("b/m")], route, |_, _| bad(Failure::SafetyBlock))
            .with_backstops(move |_, _| Some((ms(5), answer.clone())));
        world.arrive(at(1.0), whole());
        world.run_until(at(60.0));
        assert_eq!(world.settled(0).outcome, outcome);
        assert_eq!(world.calls[0].backstops.len(), 1);
        assert_eq!(world.calls[0].backstops[0].0, 1);
    }
}

#[test]
fn a_contract_that_judges_whole_replies_is_never_streamed_before_its_end() {
    let world = ask(under(gated(), &["a/m"]), &[target("a/m")], stream(), |_| ok());
    assert_eq!((world.calls[0].released, world.calls[0].delivered.is_some()), (None, true));
}

#[test]
fn the_record_tells_what_was_found_and_how_sure_the_reply_is() {
    let world = one_call(gated(), |_| {
        let problems = vec![Problem::at(Gate::Confidence, "scripted")];
        answer(ms(300), Findings { problems, fixes: vec![Fix::Fences], confidence: Some(0.2), ..Findings::CLEAN })
    });
    let first = &world.settled(0).attempts[0];
    assert_eq!((first.problems[0].gate, first.fixes.as_slice()), (Some(Gate::Confidence), [Fix::Fences].as_slice()));
    assert_eq!(world.settled(0).confidence, None, "the second target's reply was served, and nobody said of it");
    let valid = || Findings { confidence: Some(0.9), schema: SchemaStatus::Valid, ..Findings::CLEAN };
    let world = one_call(gated(), move |_| answer(ms(300), valid()));
    assert_eq!((world.settled(0).confidence, world.settled(0).schema_status), (Some(0.9), SchemaStatus::Valid));
}

/// A policy of full tools on the first target and this mode on the others.
fn with_tools(fallback: ToolMode) -> Contract {
    let tools = ToolPolicy { primary: ToolMode::Full, fallback, read_only: Vec::new() };
    Contract { tools: Some(tools), ..Contract::plain("tools", StreamContract::Fail) }
}

fn able(id: &str, tools: Ability) -> TargetSpec {
    TargetSpec { capabilities: Capabilities { tools, ..target(id).capabilities }, ..target(id) }
}

fn tools() -> Needs {
    Needs { tools: true, ..stream() }
}

#[test]
fn a_target_without_tools_plans_what_it_may_not_do_and_the_reply_says_so() {
    let targets = [target("a/m"), able("b/m", Ability::No)];
    let script = |q: &Question| if q.target.as_str() == "a/m" { fail(Failure::Overloaded) } else { ok() };
    let world = ask(under(with_tools(ToolMode::PlanOnly), &["a/m", "b/m"]), &targets, tools(), script);
    let settled = world.settled(0);
    assert_eq!(settled.gave_up, [GaveUp::Tools { mode: ToolMode::PlanOnly }]);
    assert_eq!((settled.tool_mode, settled.attempts[1].tool_mode), (ToolMode::PlanOnly, ToolMode::PlanOnly));
    assert_eq!(world.calls[0].released, None, "a plan is only known at its end");
    let world = ask(under(with_tools(ToolMode::Full), &["a/m", "b/m"]), &targets, tools(), script);
    assert_eq!(world.settled(0).left_out[0].why, WhyLeftOut::NoTools, "the fallback has to call tools here");
}

#[test]
fn a_request_without_tools_has_no_tool_mode() {
    let targets = [able("a/m", Ability::No)];
    let world = ask(under(with_tools(ToolMode::PlanOnly), &["a/m"]), &targets, stream(), |_| ok());
    assert_eq!(world.settled(0).tool_mode, ToolMode::Full);
    assert!(!world.settled(0).degraded && world.calls[0].released.is_some());
}

#[test]
fn the_mode_that_the_policy_wants_is_no_degradation() {
    let policy = ToolPolicy { primary: ToolMode::PlanOnly, fallback: ToolMode::PlanOnly, read_only: Vec::new() };
    let contract = Contract { tools: Some(policy), ..Contract::plain("plans", StreamContract::Fail) };
    let world = ask(under(contract, &["a/m"]), &[target("a/m")], tools(), |_| ok());
    assert_eq!((world.settled(0).tool_mode, world.settled(0).degraded), (ToolMode::PlanOnly, false));
}

#[test]
fn a_tool_policy_holds_for_what_the_provider_runs_too() {
    let policy = ToolPolicy { primary: ToolMode::ReadOnly, fallback: ToolMode::None, read_only: Vec::new() };
    let contract = Contract { tools: Some(policy), ..Contract::plain("reads", StreamContract::Fail) };
    let needs = Needs { provider_effects: true, ..stream() };
    let world = ask(under(contract, &["a/m"]), &[able("a/m", Ability::No)], needs, |_| ok());
    assert_eq!((world.settled(0).tool_mode, world.settled(0).outcome), (ToolMode::ReadOnly, Outcome::Answered));
}

#[test]
fn a_ranking_never_puts_a_lesser_tool_mode_before_the_full_one() {
    let cheap = TargetSpec { price: Some(outlast_model::Price::per_million(0.1, 0.1, None, None)), ..target("b/m") };
    let mut route = under(with_tools(ToolMode::PlanOnly), &["a/m", "b/m"]);
    route.ranking = Ranking::Cost;
    let world = ask(route, &[target("a/m"), cheap], tools(), |_| ok());
    assert_eq!(path(&world), [("a/m", R::First, D::Deliver)]);
}

#[test]
fn after_a_tool_mismatch_come_able_targets_and_then_the_same_one_in_a_lesser_mode() {
    let failing = |q: &Question| {
        if q.brief.tool_mode == ToolMode::Full { fail(Failure::ToolMismatch) } else { ok() }
    };
    let no_policy = Contract::plain("plain", StreamContract::Fail);
    let targets = [target("a/m"), able("b/m", Ability::Unknown), able("c/m", Ability::Yes)];
    let world = ask(under(no_policy, &["a/m", "b/m", "c/m"]), &targets, tools(), failing);
    let asked: Vec<_> = path(&world).iter().map(|(target, ..)| *target).collect();
    assert_eq!(asked, ["a/m", "c/m", "b/m"], "who surely can call tools comes first");

    let world = ask(under(with_tools(ToolMode::PlanOnly), &["a/m"]), &targets[..1], tools(), failing);
    assert_eq!(path(&world), [("a/m", R::First, D::Reroute), ("a/m", R::SameTarget, D::Deliver)]);
    assert_eq!(world.settled(0).gave_up, [GaveUp::Tools { mode: ToolMode::PlanOnly }]);
    let world = ask(under(with_tools(ToolMode::Full), &["a/m"]), &targets[..1], tools(), failing);
    assert_eq!(path(&world), [("a/m", R::First, D::GiveUp)], "no lesser mode is allowed");
}

#[test]
fn a_contract_lets_the_request_go_only_where_it_permits_and_only_to_who_can_take_it() {
    let placed = |id, region: Option<&str>| TargetSpec { region: region.map(Into::into), ..target(id) };
    let small = TargetSpec { context_window: Some(4_000), ..placed("a/small", Some("eu")) };
    let blind = TargetSpec {
        capabilities: Capabilities { images: Ability::No, ..target("a/m").capabilities },
        ..placed("a/blind", Some("eu"))
    };
    let targets = [
        placed("a/m", Some("us")),
        placed("b/m", Some("eu")),
        placed("a/nowhere", None),
        small,
        blind,
        placed("a/here", Some("eu")),
    ];
    let ids: Vec<_> = targets.iter().map(|it| it.id.to_string()).collect();
    let contract = Contract {
        permissions: Permissions { regions: Some(vec!["eu".into()]), providers: Some(vec!["a".into()]), tools: None },
        needs: ContractNeeds { context: Some(8_000), tools: false, images: true },
        ..Contract::plain("strict", StreamContract::Fail)
    };
    let listed: Vec<_> = ids.iter().map(String::as_str).collect();
    let world = ask(under(contract, &listed), &targets, whole(), |_| ok());
    let why: Vec<_> = world.settled(0).left_out.iter().map(|it| (it.target.as_str(), it.why.clone())).collect();
    assert_eq!(
        why,
        [
            ("a/m", WhyLeftOut::NotPermitted("region".into())),
            ("b/m", WhyLeftOut::NotPermitted("provider".into())),
            ("a/nowhere", WhyLeftOut::NotPermitted("region".into())),
            ("a/small", WhyLeftOut::ContextTooSmall { window: 4_000, needed: 8_000 }),
            ("a/blind", WhyLeftOut::NoImages),
        ]
    );
    assert_eq!(world.settled(0).served_by.as_ref().unwrap().as_str(), "a/here");
}
