//! Money and windows: what is reserved, clamped, cut and shortened so that a call costs and weighs no more than it may.

mod world;

use outlast_model::{
    Failure, Findings, Gate, Price, Usd,
    policy::*,
    record::{AttemptReason as R, Decision as D, GaveUp, Outcome, WhyLeftOut},
};
use std::sync::Arc;
use world::*;

/// A cent.
const CENT: Usd = Usd::from_nanos(10_000_000);

/// $1 a million in, and this out.
fn priced(id: &str, out: f64) -> TargetSpec {
    TargetSpec { price: Some(Price::per_million(1.0, out, None, None)), ..target(id) }
}

fn capped(cap: Usd, route: Route) -> Route {
    let tier = Tier { cost_max: Some(cap), ..(*route.tier).clone() };
    Route { tier: Arc::new(tier), ..route }
}

fn ask(route: Route, targets: &[TargetSpec], needs: Needs, script: impl Fn(&Question) -> Script + 'static) -> World {
    let mut world = World::new(targets, route, move |q, _| script(q)).with_backstops(|_, _| Some((ms(5), deferred())));
    world.arrive(at(1.0), needs);
    world.run_until(at(200.0));
    assert!(world.all_settled());
    world
}

fn asked(world: &World) -> Vec<&str> {
    world.settled(0).attempts.iter().map(|it| it.target.as_str()).collect()
}

fn why(world: &World) -> Vec<(&str, WhyLeftOut)> {
    world.settled(0).left_out.iter().map(|it| (it.target.as_str(), it.why.clone())).collect()
}

#[test]
fn without_a_cap_no_limit_is_set_and_an_unknown_price_is_no_obstacle() {
    let targets = [TargetSpec { price: None, ..target("a/m") }];
    let world = ask(route(&["a/m"]), &targets, stream(), |_| ok());
    assert!(world.calls[0].briefs[0].is_plain());
    assert_eq!(world.settled(0).outcome, Outcome::Answered);
}

#[test]
fn under_a_cap_the_output_is_limited_to_what_the_money_buys() {
    // A cent less the input's 0.0001 dollars buys 990 tokens at $10 a million.
    for (wanted, limit) in [(None, Some(990)), (Some(2_000), Some(990)), (Some(500), None)] {
        let needs = Needs { max_output_tokens: wanted, ..stream() };
        let world = ask(capped(CENT, route(&["a/m"])), &[priced("a/m", 10.0)], needs, |_| ok());
        assert_eq!(world.calls[0].briefs[0].max_output_tokens, limit, "{wanted:?}");
    }
    let rich = Usd::from_dollars(1.0);
    let world = ask(capped(rich, route(&["a/m"])), &[priced("a/m", 10.0)], stream(), |_| ok());
    assert_eq!(world.calls[0].briefs[0].max_output_tokens, Some(8192), "there has to be a limit to reserve for");
    let stated = TargetSpec { max_output: Some(4_000), ..priced("a/m", 10.0) };
    let world = ask(capped(rich, route(&["a/m"])), &[stated], stream(), |_| ok());
    assert_eq!(world.calls[0].briefs[0].max_output_tokens, None, "the target's own limit is one");
}

#[test]
fn every_choice_is_paid_so_all_of_them_have_to_fit() {
    for (choices, limit) in [(1, None), (2, Some(495)), (3, Some(330))] {
        let needs = Needs { max_output_tokens: Some(600), more_choices: choices - 1, ..stream() };
        let world = ask(capped(CENT, route(&["a/m"])), &[priced("a/m", 10.0)], needs, |_| ok());
        assert_eq!(world.calls[0].briefs[0].max_output_tokens, limit, "{choices}");
    }
}

#[test]
fn the_clients_own_budget_holds_where_it_is_lower_than_the_tiers() {
    let needs = Needs { budget: Some(Usd::from_nanos(1_100_000)), ..stream() };
    let world = ask(capped(CENT, route(&["a/m"])), &[priced("a/m", 10.0)], needs.clone(), |_| ok());
    assert_eq!(world.calls[0].briefs[0].max_output_tokens, Some(100));
    let world = ask(route(&["a/m"]), &[priced("a/m", 10.0)], needs, |_| ok());
    assert_eq!(world.calls[0].briefs[0].max_output_tokens, Some(100));
}

#[test]
fn a_target_that_costs_too_much_or_nobody_knows_what_is_left_out() {
    let targets = [priced("dear/m", 1_000.0), TargetSpec { price: None, ..target("dark/m") }, priced("cheap/m", 1.0)];
    let world = ask(capped(CENT, route(&["dear/m", "dark/m", "cheap/m"])), &targets, stream(), |_| ok());
    assert_eq!(asked(&world), ["cheap/m"]);
    let needed = Usd::from_nanos(100_000 + 64_000_000);
    assert_eq!(
        why(&world),
        [("dear/m", WhyLeftOut::OverBudget { needed, left: CENT }), ("dark/m", WhyLeftOut::PriceUnknown)]
    );
    let world = ask(capped(CENT, route(&["dear/m"])), &targets[..1], stream(), |_| ok());
    let (failure, cause, ..) = world.calls[0].rejected.clone().unwrap();
    assert_eq!((failure.failure, cause.unwrap().failure), (Failure::Exhausted, Failure::CostSpike));
}

#[test]
fn what_an_attempt_has_cost_is_not_there_for_the_next_one() {
    // Each consumes 5 tokens out of 0.11 cents: 100 in and 100 out.
    let cap = Usd::from_nanos(1_100_000);
    let targets = [priced("a/m", 10.0), priced("b/m", 10.0), priced("c/m", 10.0)];
    let broken = |q: &Question| if q.target.as_str() == "c/m" { ok() } else { breaks(&[Gate::Schema]) };
    let world = ask(capped(cap, under(gated(), &["a/m", "b/m", "c/m"])), &targets, whole(), broken);
    let limits: Vec<_> = world.calls[0].briefs.iter().map(|brief| brief.max_output_tokens).collect();
    assert_eq!(limits, [Some(100), Some(85), Some(70)], "each bill was 15 tokens' worth");
    assert!(world.settled(0).cost <= cap);
}

#[test]
fn a_runaway_stream_is_cut_at_its_reservation_and_the_next_cheaper_target_is_asked() {
    let buffered = Contract::plain("buffered", StreamContract::Buffer);
    let targets = [priced("a/m", 10.0), priced("b/m", 10.0), priced("c/m", 5.0)];
    let script = |q: &Question| match q.target.as_str() {
        "a/m" => Script::RunAway { first: ms(100), gap: ms(5) },
        _ => ok(),
    };
    let cap = Usd::from_nanos(3_000_000);
    let needs = Needs { max_output_tokens: Some(100), ..stream() };
    let world = ask(capped(cap, under(buffered, &["a/m", "b/m", "c/m"])), &targets, needs.clone(), script);
    assert_eq!(asked(&world), ["a/m", "c/m"], "the cheapest first now");
    let first = &world.settled(0).attempts[0];
    assert_eq!(first.failure.as_ref().unwrap().failure, Failure::CostSpike);
    assert_eq!(first.usage.output_tokens, 126, "a quarter beyond the 100 that were paid for");
    assert!(world.settled(0).cost <= cap);

    let open = Contract::plain("open", StreamContract::Fail);
    let world = ask(capped(cap, under(open, &["a/m", "c/m"])), &targets, needs, script);
    assert_eq!(world.settled(0).outcome, Outcome::Interrupted(Failure::CostSpike), "the client has seen output");
    let world = ask(route(&["a/m"]), &targets[..1], Needs { max_output_tokens: Some(100), ..stream() }, script);
    assert_eq!(world.settled(0).outcome, Outcome::Answered, "without a cap nobody counts");
}

#[test]
fn a_cap_of_one_cent_is_never_passed_by_more_than_the_in_flight_reservation() {
    let targets = [priced("a/m", 10.0), priced("b/m", 10.0)];
    let buffered = || Contract::plain("buffered", StreamContract::Buffer);
    let runaway = |_: &Question| Script::RunAway { first: ms(100), gap: ms(5) };
    for needs in [stream(), whole()] {
        let world = ask(capped(CENT, under(buffered(), &["a/m", "b/m"])), &targets, needs, runaway);
        let spent = world.settled(0).cost.as_nanos();
        assert!(spent <= 2 * CENT.as_nanos(), "{spent}");
    }
}

#[test]
fn what_judges_cost_counts_and_their_budget_is_what_is_left() {
    let judged = || answer(ms(300), Findings { cost: Usd::from_nanos(400_000), ..Findings::CLEAN });
    let world = ask(capped(CENT, under(gated(), &["a/m"])), &[priced("a/m", 10.0)], whole(), move |_| judged());
    // 100 in, 5 out, and the judge.
    assert_eq!(world.settled(0).cost, Usd::from_nanos(100_000 + 50_000 + 400_000));
    assert_eq!(world.settled(0).wasted, Usd::ZERO);
    let check = world.trace.iter().find(|line| line.contains("Check")).unwrap();
    assert!(check.contains("budget: Some(Usd(9850000))"), "{check}");
    let doubted = || Findings { cost: Usd::from_nanos(400_000), ..found(Failure::Quality) };
    let script = move |q: &Question| if q.target.as_str() == "a/m" { answer(ms(300), doubted()) } else { ok() };
    let targets = [priced("a/m", 10.0), priced("b/m", 10.0)];
    let world = ask(under(gated(), &["a/m", "b/m"]), &targets, whole(), script);
    assert_eq!(world.settled(0).wasted, Usd::from_nanos(100_000 + 50_000 + 400_000), "it judged what was not served");
}

#[test]
fn a_repair_that_does_not_fit_the_money_is_not_made() {
    let repairing = Contract { repair: Repair { model: true, ..Repair::default() }, ..gated() };
    let broken = |q: &Question| if q.target.as_str() == "a/m" { breaks(&[Gate::Schema]) } else { ok() };
    let targets = [priced("a/m", 10.0), priced("b/m", 10.0)];
    // What is left after the first attempt pays for another like it, but not for 517 tokens more.
    let poor = capped(Usd::from_nanos(1_100_000), under(repairing.clone(), &["a/m", "b/m"]));
    assert_eq!(asked(&ask(poor, &targets, whole(), broken)), ["a/m", "b/m"]);
    let rich = capped(CENT, under(repairing, &["a/m", "b/m"]));
    assert_eq!(asked(&ask(rich, &targets, whole(), broken)), ["a/m", "a/m", "b/m"]);
}

#[test]
fn an_answer_cut_by_the_targets_limit_goes_to_one_with_a_higher_limit() {
    let limited = |id, limit| TargetSpec { max_output: limit, ..target(id) };
    let targets = [limited("a/m", Some(4_000)), limited("b/m", Some(2_000)), limited("c/m", Some(8_000))];
    let script = |q: &Question| if q.target.as_str() == "c/m" { ok() } else { bad(Failure::Truncated) };
    let world = ask(under(gated(), &["a/m", "b/m", "c/m"]), &targets, whole(), script);
    assert_eq!(asked(&world), ["a/m", "c/m"], "what was cut at 4,000 would be cut at 2,000");
    let own = Needs { max_output_tokens: Some(100), ..whole() };
    let world = ask(under(gated(), &["a/m", "b/m", "c/m"]), &targets, own, script);
    assert_eq!(asked(&world), ["a/m", "b/m", "c/m"], "the client's own limit is not raised; another may need less");
}

#[test]
fn an_answer_cut_by_the_money_goes_to_one_that_writes_more_for_it() {
    let targets = [priced("a/m", 10.0), priced("b/m", 10.0), priced("c/m", 2.0)];
    let script = |q: &Question| if q.target.as_str() == "c/m" { ok() } else { bad(Failure::Truncated) };
    let cap = Usd::from_nanos(1_100_000);
    let needs = Needs { max_output_tokens: Some(300), ..whole() };
    let world = ask(capped(cap, under(gated(), &["a/m", "b/m", "c/m"])), &targets, needs, script);
    assert_eq!(asked(&world), ["a/m", "c/m"], "what is left buys less than 100 tokens of b, and all 300 of c");
    assert_eq!(world.calls[0].briefs[1].max_output_tokens, None);
}

fn windowed(id: &str, window: u32) -> TargetSpec {
    TargetSpec { context_window: Some(window), ..target(id) }
}

fn shortening() -> Contract {
    Contract { shorten: Some(Shorten::DropOldestTurns), ..Contract::plain("short", StreamContract::Fail) }
}

fn long() -> Needs {
    Needs { input_tokens: 50_000, max_output_tokens: Some(1_000), ..stream() }
}

#[test]
fn an_input_that_fits_nowhere_is_shortened_for_the_largest_window_and_marked() {
    let targets = [windowed("a/m", 8_000), windowed("b/m", 32_000)];
    let world = ask(under(shortening(), &["a/m", "b/m"]), &targets, long(), |_| ok());
    let settled = world.settled(0);
    assert_eq!(asked(&world), ["b/m"]);
    assert_eq!(world.calls[0].briefs[0].shorten_to, Some(31_000), "room for the output is left");
    assert_eq!((settled.attempts[0].reason, settled.attempts[0].shortened), (R::Shorten, true));
    assert_eq!(settled.gave_up, [GaveUp::Input]);
    assert!(settled.left_out.is_empty() && settled.planned.len() == 2, "both are asked in this way");
    let strict = Contract::plain("strict", StreamContract::Fail);
    let world = ask(under(strict, &["a/m", "b/m"]), &targets, long(), |_| ok());
    let (failure, cause, ..) = world.calls[0].rejected.clone().unwrap();
    assert_eq!((failure.failure, cause.unwrap().failure), (Failure::Exhausted, Failure::ContextExceeded));
}

#[test]
fn who_takes_the_whole_input_comes_before_any_shortening() {
    let targets = [windowed("a/m", 8_000), windowed("b/m", 100_000)];
    let world = ask(under(shortening(), &["a/m", "b/m"]), &targets, long(), |_| ok());
    assert_eq!((asked(&world), world.settled(0).degraded), (vec!["b/m"], false));
    assert_eq!(why(&world), [("a/m", WhyLeftOut::ContextTooSmall { window: 8_000, needed: 51_000 })]);
    let down = |q: &Question| if q.target.as_str() == "b/m" { fail(Failure::MalformedReply) } else { ok() };
    let world = ask(under(shortening(), &["a/m", "b/m"]), &targets, long(), down);
    assert_eq!(asked(&world), ["b/m", "a/m"], "and when it fails, a shortened answer is better than none");
    assert_eq!(world.settled(0).gave_up, [GaveUp::Input]);
}

#[test]
fn a_prompt_that_turned_out_too_long_is_shortened_when_no_larger_window_is_left() {
    let exceeded = |q: &Question| match q.brief.shorten_to {
        None => fail(Failure::ContextExceeded),
        Some(_) => ok(),
    };
    let needs = Needs { input_tokens: 6_000, max_output_tokens: Some(1_000), ..stream() };
    let world = ask(under(shortening(), &["a/m"]), &[windowed("a/m", 8_000)], needs.clone(), exceeded);
    let reasons: Vec<_> = world.settled(0).attempts.iter().map(|it| (it.reason, it.decision)).collect();
    assert_eq!(reasons, [(R::First, D::Reroute), (R::Shorten, D::Deliver)]);
    assert_eq!(world.calls[0].briefs[1].shorten_to, Some(4_500), "three quarters of what should have fitted");
    let world = ask(under(shortening(), &["a/m"]), &[target("a/m")], needs.clone(), exceeded);
    assert_eq!(world.calls[0].briefs[1].shorten_to, Some(3_000), "half, of an unknown window");
    let larger = [windowed("a/m", 8_000), windowed("b/m", 32_000)];
    let world = ask(under(shortening(), &["a/m", "b/m"]), &larger, needs, |q| match q.target.as_str() {
        "a/m" => fail(Failure::ContextExceeded),
        _ => ok(),
    });
    assert_eq!((asked(&world), world.settled(0).degraded), (vec!["a/m", "b/m"], false));
}

#[test]
fn still_too_long_after_shortening_is_the_clients_to_hear() {
    let needs = Needs { input_tokens: 6_000, ..stream() };
    let world = ask(under(shortening(), &["a/m"]), &[target("a/m")], needs, |_| fail(Failure::ContextExceeded));
    assert_eq!(asked(&world).len(), 2);
    let (failure, cause, ..) = world.calls[0].rejected.clone().unwrap();
    assert_eq!((failure.failure, cause.unwrap().failure), (Failure::Exhausted, Failure::ContextExceeded));
}

#[test]
fn an_input_that_costs_too_much_is_shortened_where_the_contract_allows_it() {
    // 50,000 tokens cost five cents; half of the one cent is for what comes back.
    let world = ask(capped(CENT, under(shortening(), &["a/m"])), &[priced("a/m", 10.0)], long(), |_| ok());
    assert_eq!(world.calls[0].briefs[0].shorten_to, Some(5_000));
    assert_eq!(world.calls[0].briefs[0].max_output_tokens, Some(500));
    assert_eq!(world.settled(0).gave_up, [GaveUp::Input]);
}

#[test]
fn an_expected_overflow_is_known_before_sending_once_the_target_has_shown_how_it_counts() {
    let targets = [windowed("a/m", 10_000), windowed("b/m", 100_000)];
    let mut world = World::new(&targets, route(&["a/m", "b/m"]), |_, _| ok());
    world.token_scale = 1.5;
    let needs = Needs { input_tokens: 6_000, ..stream() };
    world.arrive_steadily(1.0, 1.0, 30.0, &needs);
    world.arrive(at(60.0), Needs { input_tokens: 8_000, ..stream() });
    world.run_until(at(90.0));
    let last = world.calls.last().unwrap().settled.as_ref().unwrap();
    assert_eq!(last.served_by.as_ref().unwrap().as_str(), "b/m");
    let WhyLeftOut::ContextTooSmall { window: 10_000, needed } = last.left_out[0].why else {
        panic!("{:?}", last.left_out)
    };
    assert!((11_500..=12_000).contains(&needed), "{needed}");
}
