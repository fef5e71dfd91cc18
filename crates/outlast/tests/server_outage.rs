//! A total outage of the primary under steady traffic: nobody loses a request, little is wasted, and the way back is
//! gradual. Arrivals are open-loop: a slow answer does not slow the next request down.

mod common;

use common::{
    Ask, Reply, Rig, plan,
    rig::{fake, provider},
};
use outlast::fake::{Fake, FakeConfig, Seen};
use outlast_model::record::CallRecord;
use serde_json::json;
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

const PER_SEC: u32 = 50;
/// When a call without a first output is overdue: the least there is, for targets as fast as these.
const OVERDUE: Duration = Duration::from_secs(4);

/// One request of the traffic.
struct Asked {
    /// When, after the traffic began.
    at: Duration,
    took: Duration,
    reply: Reply,
}

impl Asked {
    fn target(&self) -> &str {
        self.reply.header("x-outlast-target").unwrap_or_default()
    }
}

/// Sends steady traffic in both dialects, streamed and not, for `length`; `each` is called with every arrival.
async fn traffic(address: SocketAddr, length: Duration, mut each: impl FnMut(Duration)) -> Vec<Asked> {
    let begin = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / PER_SEC);
    let mut requests = JoinSet::new();
    let mut number = 0u32;
    while begin.elapsed() < length {
        ticks.tick().await;
        each(begin.elapsed());
        number += 1;
        requests.spawn(async move {
            let dialect = if number.is_multiple_of(2) { "openai" } else { "anthropic" };
            let ask = Ask::either(dialect, "main", "hello").with("stream", json!(number % 4 < 2));
            let at = begin.elapsed();
            let reply = ask.send(address).await;
            Asked { at, took: begin.elapsed() - at, reply }
        });
    }
    let mut asked = requests.join_all().await;
    asked.sort_by_key(|asked| asked.at);
    asked
}

/// A primary with probes, a fallback of the other dialect, and a way back that fits into a test.
async fn rig() -> (Fake, Fake, Rig) {
    let quick = |name| FakeConfig { first_token: Duration::from_millis(20), ..FakeConfig::named(name) };
    let a = Fake::start(quick("alpha")).await.unwrap();
    let b = fake("beta").await;
    let config = provider("a", "openai-compatible", &a.url(), "").replace("probes = false", "probes = true")
        + &provider("b", "anthropic", &b.url(), "api_key = \"k\"")
        + "[routes.main]\ntargets = [\"a/m\", \"b/m\"]\n"
        + "[health]\nopen_base = \"1s\"\nprobe_suspect = \"500ms\"\nrestore_over = \"10s\"\n"
        + "[telemetry]\nlog = \"off\"\nring = 8192\n";
    let rig = Rig::start(&config).await;
    (a, b, rig)
}

fn assert_all_answered(asked: &[Asked]) {
    asked.iter().for_each(|asked| asked.reply.assert_answered());
}

/// The records of the traffic, and how many upstream calls bought nothing.
async fn wasted(rig: &Rig, calls: usize) -> (Vec<CallRecord>, usize) {
    rig.latest_of(calls).await;
    let records: Vec<CallRecord> =
        rig.gateway.telemetry().latest(calls).iter().map(|recorded| recorded.call.clone()).collect();
    let wasted = records.iter().map(CallRecord::wasted_calls).sum();
    (records, wasted)
}

/// The primary's share of the requests that arrived in a stretch of time.
fn share(asked: &[Asked], from: Duration, until: Duration) -> f64 {
    let within: Vec<&Asked> = asked.iter().filter(|asked| (from..until).contains(&asked.at)).collect();
    within.iter().filter(|asked| asked.target() == "a/m").count() as f64 / within.len().max(1) as f64
}

fn assert_back_gradually(asked: &[Asked], healed: Duration, within: Duration) {
    let back = asked.iter().find(|asked| asked.at > healed && asked.target() == "a/m").expect("the primary is back").at;
    assert!(back - healed < within, "back {:?} after it healed", back - healed);
    let secs = Duration::from_secs;
    let ramp: Vec<f64> = (0..3).map(|part| share(asked, back + secs(2 * part), back + secs(2 * part + 2))).collect();
    assert!(ramp[0] < 0.45, "no stampede: {ramp:?}");
    assert!(ramp[2] > ramp[0] + 0.1, "its share grows: {ramp:?}");
    eprintln!("back after {:?}, then by shares of {ramp:.2?}", back - healed);
}

/// A probe asks for next to nothing.
fn is_probe(seen: &Seen) -> bool {
    seen.output_limit.is_some_and(|limit| limit <= 16)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_answers_503_wastes_four_calls_and_comes_back_gradually() {
    let (a, _b, rig) = rig().await;
    let (down, up, end) = (Duration::from_secs(2), Duration::from_secs(6), Duration::from_secs(14));
    let (mut is_down, mut is_up) = (false, false);
    let asked = traffic(rig.address(), end, |at| {
        if at >= down && !is_down {
            is_down = true;
            a.clear_log();
            a.set_fault("*", plan("503")).unwrap();
        }
        if at >= up && !is_up {
            is_up = true;
            a.heal().unwrap();
        }
    })
    .await;
    assert_all_answered(&asked);
    assert!(share(&asked, Duration::ZERO, down) > 0.99, "the primary served while it could");

    let failed: Vec<Seen> = a.log().into_iter().filter(|seen| seen.fault.is_some()).collect();
    let (trials, calls): (Vec<&Seen>, Vec<&Seen>) = failed.iter().partition(|seen| is_probe(seen));
    let (_, wasted) = wasted(&rig, asked.len()).await;
    eprintln!("{wasted} wasted calls, {} probes while it was down", trials.len());
    // Four to find out, and those in flight by then: one at most, since a 503 comes at once. Then only probes ask.
    assert!(calls.len() <= 4 + 1, "{} calls met the outage", calls.len());
    assert!(wasted <= calls.len());
    assert!((2..=20).contains(&trials.len()), "{} probes in 4 s, one every half second or so", trials.len());
    assert_back_gradually(&asked, up, Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_hangs_wastes_the_calls_of_the_overdue_time_and_they_are_rerouted_at_once() {
    let (a, _b, rig) = rig().await;
    let (down, up, end) = (Duration::from_secs(2), Duration::from_secs(9), Duration::from_secs(19));
    let (mut is_down, mut is_up) = (false, false);
    let mut in_flight_after_trip = 0;
    let asked = traffic(rig.address(), end, |at| {
        if at >= down && !is_down {
            is_down = true;
            a.clear_log();
            a.set_fault("*", plan("hang")).unwrap();
        }
        if at >= down + OVERDUE + Duration::from_millis(1500) && at < up {
            in_flight_after_trip = in_flight_after_trip.max(a.stats().in_flight);
        }
        if at >= up && !is_up {
            is_up = true;
            a.heal().unwrap();
        }
    })
    .await;
    assert_all_answered(&asked);

    let (records, wasted) = wasted(&rig, asked.len()).await;
    let bound = PER_SEC as usize * OVERDUE.as_secs() as usize + 4;
    let slowest = asked.iter().map(|asked| asked.took).max().unwrap();
    eprintln!("{wasted} wasted calls of {bound}, the slowest answer after {slowest:?}, {in_flight_after_trip} at once");
    // A tenth of a second for the timers of a busy machine.
    assert!(wasted <= bound + PER_SEC as usize / 10, "{wasted} wasted calls, {bound} allowed");
    assert!(slowest < OVERDUE + Duration::from_millis(1500), "rerouted at once when overdue: {slowest:?}");
    assert!(records.iter().all(|record| record.attempts.len() <= 2), "no call is tried more than once anywhere");
    let after_trip = asked.iter().filter(|asked| (down + OVERDUE + Duration::from_secs(1)..up).contains(&asked.at));
    let slow = after_trip.filter(|asked| asked.took > Duration::from_secs(1)).count();
    assert_eq!(slow, 0, "after the trip answers are as fast as ever");
    assert_eq!(in_flight_after_trip, 1, "one probe at a time");
    // A probe that was sent before it healed has to be given up first.
    assert_back_gradually(&asked, up, OVERDUE + Duration::from_secs(3));
}
