//! What the detectors promise, measured over many seeded runs.

use super::super::quality::{OF_GOLDEN, OF_REPLIES};
use super::*;

const NOW: Mono = Mono::ZERO;

fn at(secs: u64) -> Mono {
    Mono::ZERO + Duration::from_secs(secs)
}

fn observe(detector: &mut Detector, times: u32, bad: impl Fn(u32) -> bool) {
    for i in 0..times {
        let _ = detector.observe(bad(i), NOW);
    }
}

/// Observations at `rate` until it alarms; `None` beyond `most`.
fn until_alarm(detector: &mut Detector, rate: f64, most: u32, rng: &mut fastrand::Rng) -> Option<u32> {
    (1..=most).find(|_| matches!(detector.observe(rng.f64() < rate, NOW), Turn::Alarmed(_)))
}

/// Observations at `rate` until the alarm is over.
fn until_back(detector: &mut Detector, rate: f64, most: u32, rng: &mut fastrand::Rng) -> Option<u32> {
    (1..=most).find(|_| matches!(detector.observe(rng.f64() < rate, NOW), Turn::Over(_)))
}

fn median(mut values: Vec<u32>) -> u32 {
    values.sort_unstable();
    values[values.len() / 2]
}

/// The median delay when the failure rate of golden tasks is `rate` from the first task on, which is the worst moment.
fn delay_from_the_start(rate: f64) -> u32 {
    let mut rng = fastrand::Rng::with_seed(15);
    median((0..2_000).map(|_| until_alarm(&mut Detector::new(&OF_GOLDEN), rate, 100_000, &mut rng).unwrap()).collect())
}

/// The median delay after a long time at 5 %, which the detector has learnt.
fn delay_after_a_long_time(rate: f64) -> u32 {
    let mut rng = fastrand::Rng::with_seed(16);
    let mut delays = Vec::new();
    while delays.len() < 500 {
        let mut detector = Detector::new(&OF_GOLDEN);
        let before = 800 + rng.u32(..400);
        if until_alarm(&mut detector, 0.05, before, &mut rng).is_none() {
            delays.push(until_alarm(&mut detector, rate, 100_000, &mut rng).unwrap());
        }
    }
    median(delays)
}

#[test]
fn golden_tasks_that_usually_fail_5_percent_give_no_more_than_one_false_alarm_in_1000() {
    let mut rng = fastrand::Rng::with_seed(5);
    let runs: Vec<u32> = (0..1_000)
        .map(|_| until_alarm(&mut Detector::new(&OF_GOLDEN), 0.05, 200_000, &mut rng).unwrap_or(200_000))
        .collect();
    let average = runs.iter().map(|run| f64::from(*run)).sum::<f64>() / runs.len() as f64;
    assert!(average >= 1_000.0, "{average}");
}

#[test]
fn a_loss_of_5_10_and_15_points_is_seen_in_124_56_and_35_golden_tasks() {
    let delays = [0.10, 0.15, 0.20, 0.25].map(delay_from_the_start);
    assert!(delays[0] <= 124 && delays[1] <= 56 && delays[2] <= 35 && delays[3] <= 24, "{delays:?}");
    let delays = [0.10, 0.15, 0.20, 0.25].map(delay_after_a_long_time);
    assert!(delays[0] <= 124 && delays[1] <= 56 && delays[2] <= 35 && delays[3] <= 24, "{delays:?}");
}

#[test]
fn a_target_that_fails_everything_is_seen_in_five() {
    for tuning in [&OF_GOLDEN, &OF_REPLIES] {
        let mut detector = Detector::new(tuning);
        let mut rng = fastrand::Rng::with_seed(1);
        assert_eq!(until_alarm(&mut detector, 1.0, 100, &mut rng), Some(5));
        let alarm = detector.alarm().unwrap();
        assert_eq!((alarm.observed, alarm.bad, alarm.baseline), (5, 5, 0.05));
    }
}

#[test]
fn replies_at_their_usual_rate_alarm_less_than_once_in_ten_thousand_even_at_the_bounds() {
    let mut rng = fastrand::Rng::with_seed(6);
    for rate in [0.0, 0.01, 0.025, 0.05, 0.12] {
        let alarms: usize = (0..40)
            .map(|_| {
                let mut detector = Detector::new(&OF_REPLIES);
                // A target at such a rate is not new.
                detector.usual.learnt = Share { all: 1_000.0, bad: 1_000.0 * rate };
                detector.calibrate();
                usize::from(until_alarm(&mut detector, rate, 10_000, &mut rng).is_some())
            })
            .sum();
        assert!(alarms <= 4, "{alarms} of 40 runs of 10,000 replies at {rate}");
    }
}

#[test]
fn what_is_usual_is_learnt_late_and_within_bounds() {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut detector = Detector::new(&OF_REPLIES);
    let _ = until_alarm(&mut detector, 0.04, 499, &mut rng);
    assert_eq!(detector.baseline(), 0.05, "nothing is learnt from the last 250 to 500 observations");
    let _ = until_alarm(&mut detector, 0.04, 3_000, &mut rng);
    assert!((0.07..0.11).contains(&detector.baseline()), "{}", detector.baseline());
    // A rate that crept up unseen for ever would still not pass for usual beyond the bound.
    detector.usual.learnt = Share { all: 10_000.0, bad: 6_000.0 };
    detector.calibrate();
    assert_eq!(detector.baseline(), 0.30);
}

#[test]
fn a_drift_does_not_teach_the_detector_that_it_is_usual() {
    let mut rng = fastrand::Rng::with_seed(8);
    for _ in 0..50 {
        let mut detector = Detector::new(&OF_GOLDEN);
        while until_alarm(&mut detector, 0.05, 2_000, &mut rng).is_some() {
            detector = Detector::new(&OF_GOLDEN);
        }
        let before = detector.baseline();
        let _ = until_alarm(&mut detector, 0.15, 10_000, &mut rng).expect("it is seen");
        assert!(detector.alarm().unwrap().baseline <= before + 0.02);
    }
}

#[test]
fn an_alarm_ends_when_the_rate_is_seen_to_be_back_and_not_before() {
    let mut rng = fastrand::Rng::with_seed(9);
    let (mut healed, mut early) = (Vec::new(), 0);
    for _ in 0..400 {
        let mut detector = Detector::new(&OF_GOLDEN);
        let _ = until_alarm(&mut detector, 0.15, 10_000, &mut rng).unwrap();
        early += u32::from(until_back(&mut detector.clone(), 0.15, 100, &mut rng).is_some());
        healed.push(until_back(&mut detector, 0.02, 10_000, &mut rng).expect("it comes back"));
    }
    let healed = median(healed);
    assert!((20..=90).contains(&healed), "{healed}");
    assert!(early <= 40, "{early} of 400 came back in 100 tasks while still at 15 %");
}

#[test]
fn nobody_flaps_at_the_alarming_rate() {
    let mut rng = fastrand::Rng::with_seed(10);
    for rate in [0.10, 0.15, 0.25] {
        let mut detector = Detector::new(&OF_GOLDEN);
        let turns = (0..10_000).filter(|_| detector.observe(rng.f64() < rate, NOW) != Turn::None).count();
        assert!(turns <= 15, "{turns} turns in 10,000 tasks at {rate}");
    }
}

#[test]
fn an_alarm_that_keeps_everybody_away_ends_on_probation_and_each_relapse_waits_twice_as_long() {
    let mut detector = Detector::new(&OF_REPLIES);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut now = at(0);
    for (relapse, quiet) in [600, 1200, 2400, 4800].into_iter().enumerate() {
        let replies = (1..100).find(|_| matches!(detector.observe(true, now), Turn::Alarmed(_))).unwrap();
        assert_eq!(replies, if relapse == 0 { 5 } else { 3 }, "on probation half the evidence is there already");
        assert_eq!(detector.advance(now + Duration::from_secs(quiet - 1)), Turn::None);
        let until = now + Duration::from_secs(quiet);
        assert_eq!(detector.due(), Some(until));
        assert_eq!(detector.advance(until), Turn::Over(now));
        now = until;
    }
    // A day without an alarm, and it is as if nothing had been.
    now = now + Duration::from_secs(24 * 3600);
    (0..200).for_each(|_| assert_eq!(detector.observe(false, now), Turn::None));
    while !matches!(detector.observe(rng.f64() < 0.9, now), Turn::Alarmed(_)) {}
    assert_eq!(detector.due(), Some(now + Duration::from_secs(600)));
}

#[test]
fn a_reply_during_an_alarm_puts_the_quiet_time_off() {
    let mut detector = Detector::new(&OF_REPLIES);
    observe(&mut detector, 5, |_| true);
    assert_eq!(detector.observe(false, at(500)), Turn::None);
    assert_eq!(detector.advance(at(600)), Turn::None);
    assert_eq!(detector.advance(at(1100)), Turn::Over(at(0)));
}

#[test]
fn the_shown_rate_is_that_of_the_last_observations() {
    let mut detector = Detector::new(&OF_GOLDEN);
    observe(&mut detector, 1_000, |_| false);
    observe(&mut detector, 400, |i| i % 2 == 0);
    assert!((0.4..=0.5).contains(&detector.rate()), "{}", detector.rate());
    assert_eq!(detector.total(), 1_400);
}
