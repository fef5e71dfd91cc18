//! The fault benchmark, small enough for every test run: detection, waste, and the score beside the oracle.

use outlast_drill::sim::{Options, Run, Scenario, run, run_one};

fn runs(scenario: Scenario, per_sec: f64) -> Vec<Run> {
    (1..=2).map(|seed| run_one(scenario, per_sec, seed)).collect()
}

fn score(scenario: Scenario, rates: &[f64], seeds: u32) -> f64 {
    let options = Options { scenarios: vec![scenario], rates: rates.to_vec(), seed: 1, seeds };
    run(&options).suite
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    for scenario in Scenario::ALL {
        let (one, two, other) = (run_one(scenario, 2.0, 7), run_one(scenario, 2.0, 7), run_one(scenario, 2.0, 8));
        assert_eq!(one, two, "scenario {scenario}");
        assert_ne!(one.trace, other.trace, "scenario {scenario}");
    }
}

#[test]
fn a_503_is_detected_in_4_calls_and_those_in_flight_and_nobody_notices() {
    for run in runs(Scenario::Refusing, 5.0) {
        assert!(run.goodput >= 0.999, "{run:#?}");
        assert!(run.detected_calls.unwrap() <= 4 + 4, "{run:#?}");
        assert!(run.calls <= 1.01, "{run:#?}");
        assert!(run.recovered_secs.unwrap() <= 80.0, "{run:#?}");
    }
    assert!(score(Scenario::Refusing, &[5.0], 3) >= 0.95);
}

#[test]
fn a_hang_costs_no_more_calls_than_come_in_the_overdue_time() {
    for run in runs(Scenario::Hanging, 5.0) {
        assert!(run.goodput >= 0.999, "{run:#?}");
        // Requests of all sizes; the largest have the longest patience, 30 s.
        assert!(run.detected_secs.unwrap() <= 30.0, "{run:#?}");
        assert!(run.calls <= 1.04, "{run:#?}");
    }
    assert!(score(Scenario::Hanging, &[5.0], 3) >= 0.95);
}

#[test]
fn a_quarter_failing_is_left_in_about_18_calls_and_a_tenth_in_about_87() {
    for (scenario, at_most) in [(Scenario::Quarter, 60), (Scenario::Tenth, 250)] {
        for run in runs(scenario, 5.0) {
            assert!(run.goodput >= 0.999, "{run:#?}");
            // Slowness demotes A before its errors open the breaker, or the errors do; the count is until the latter.
            assert!(run.detected_calls.is_none_or(|calls| calls <= at_most), "{run:#?}");
        }
        assert!(score(scenario, &[5.0], 3) >= 0.95, "scenario {scenario}");
    }
}

#[test]
fn a_dip_of_capacity_ends_when_it_ends() {
    for run in runs(Scenario::CapacityDip, 20.0) {
        assert!(run.recovered_secs.unwrap() <= 3.0, "{run:#?}");
        assert!(run.calls <= 1.1, "{run:#?}");
    }
    assert!(score(Scenario::CapacityDip, &[20.0], 2) >= 0.95);
}

#[test]
fn points_lost_in_silence_demote_the_primary_within_the_median_golden_tasks_and_their_return_brings_it_back() {
    for (scenario, most) in [(Scenario::SilentLoss, 56), (Scenario::LargeSilentLoss, 35)] {
        let runs: Vec<Run> = (1..=20).map(|seed| run_one(scenario, 0.5, seed)).collect();
        let mut tasks: Vec<u64> = runs.iter().filter_map(|run| run.detected_calls).collect();
        tasks.sort_unstable();
        assert!(tasks.len() >= 19 && tasks[tasks.len() / 2] <= most, "scenario {scenario}: {tasks:?}");
        let back = runs.iter().filter(|run| run.recovered_secs.is_some()).count();
        assert!(back >= 15, "{back} of 20 came back within 240 golden tasks");
        // Some 1,300 golden tasks of healthy targets a run.
        let golden = || runs.iter().filter_map(|run| run.golden);
        let (well, wolf) = (golden().map(|g| g.well).sum::<u64>(), golden().map(|g| g.false_alarms).sum::<u64>());
        assert!(wolf * 1_000 <= well, "{wolf} false alarms in {well} golden tasks");
        assert!(score(scenario, &[0.5], 5) >= 0.95, "scenario {scenario}");
    }
}

#[test]
fn hedging_shortens_the_longest_waits_by_a_third_for_one_call_in_twenty() {
    for run in runs(Scenario::Hedging, 10.0) {
        assert!(run.goodput >= 0.999, "{run:#?}");
        assert!(run.first_p99_secs <= run.first_p99_oracle_secs * 0.67, "{run:#?}");
        assert!(run.calls <= 1.05 + 0.004, "5 % and the usual errors: {run:#?}");
    }
}

#[test]
fn a_report_is_a_table_with_a_score() {
    let options = Options { scenarios: vec![Scenario::Refusing], rates: vec![0.5], seed: 1, seeds: 1 };
    let table = run(&options).to_string();
    assert!(table.contains("A answers 503") && table.contains("suite "), "{table}");
}
