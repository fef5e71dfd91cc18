//! A cap of one cent, and everything that spends: retries, repairs, votes, races, judges, models that ignore their limit.

use crate::common::{Ask, Rig, guarded, plan, rig};
use outlast::fake::{Ending, Fake, Seen};
use outlast_model::{
    Failure, Usd,
    record::{AttemptReason, AttemptRecord, CallRecord, Outcome},
};
use serde_json::json;
use std::{collections::BTreeMap, fmt::Write as _};

const CENT: u64 = 10_000_000;
/// $1 and $20 a million tokens: a cent is some 500 tokens of output, for each of five voters 100.
const INPUT: u64 = 1_000;
const OUTPUT: u64 = 20_000;
/// Calls per way of spending.
const CALLS: usize = 80;

/// What may happen to a call, to each fake on its own; drawn with the fake's seed.
const TROUBLE: [(&str, &str); 4] = [
    ("*", "verbose:times=60,share=0.15"),
    ("m*", "schema-drift:share=0.2"),
    ("*m", "empty:share=0.05"),
    ("m", "truncated:share=0.05"),
];
/// The ways to spend: a route's settings and its tier's.
const WAYS: [(&str, &str, &str); 4] = [
    ("plain", "", "attempts = 4\nhedge = { budget = 1.0 }"),
    ("repaired", "contract = \"mended\"", "attempts = 4"),
    ("judged", "contract = \"judged\"", "attempts = 4"),
    ("voted", "contract = \"mended\"", "attempts = 1\nvotes = { ahead = 2, samples = 5 }"),
];

async fn world() -> ([Fake; 3], Rig) {
    let fakes = [rig::fake("alpha").await, rig::fake("beta").await, rig::fake("gamma").await];
    let mut config = String::new();
    for ((name, kind), fake) in
        [("a", "openai-compatible"), ("b", "anthropic"), ("c", "openai-compatible")].into_iter().zip(&fakes)
    {
        config += &rig::provider(name, kind, &fake.url(), "");
        let _ = write!(config, "[targets.\"{name}/m\"]\nprice = {{ input = 1.0, output = 20.0 }}\n");
        config += "capabilities = { json_schema = true }\n";
    }
    for (name, route, tier) in WAYS {
        let _ = write!(
            config,
            "[routes.{name}]\ntargets = [\"a/m\", \"b/m\", \"c/m\"]\ntier = \"{name}\"\n{route}\n\
             [tiers.{name}]\ncost_max_usd = 0.01\n{tier}\n"
        );
    }
    let schema = "schema = { type = \"object\", required = [\"score\"], properties = { score = { type = \"number\", maximum = 1 } } }";
    let _ = write!(
        config,
        "[contracts.mended]\nrepair = 1\n{schema}\n\
         [contracts.judged]\nconfidence = {{ from = \"judge\", route = \"judge\", min = 0.1 }}\n\
         [routes.judge]\ntargets = [\"c/m\", \"a/m\"]\ntier = \"none\"\n\
         [health]\nopen_base = \"10ms\"\nopen_cap = \"20ms\"\nrestore_over = \"10ms\"\n"
    );
    let rig = Rig::start(&config).await;
    (fakes, rig)
}

/// What a call's upstream calls were, once all of them have ended, each with its provider's name.
async fn seen(fakes: &[Fake; 3]) -> Vec<(char, Seen)> {
    let mut all = Vec::new();
    for (name, fake) in ['a', 'b', 'c'].into_iter().zip(fakes) {
        guarded("the upstream calls to end", fake.quiet()).await;
        all.extend(fake.log().into_iter().map(|call| (name, call)));
        fake.clear_log();
    }
    all
}

/// The declared overrun of one upstream call: what it wrote beyond the limit it was given, and its input, which is an
/// estimate until the bill comes.
fn overrun(call: &Seen) -> u64 {
    let limit = call.output_limit.expect("under a cap every call has a limit");
    let beyond = call.output_tokens.saturating_sub(limit);
    u64::from(beyond) * OUTPUT + u64::from(call.input_tokens) * INPUT
}

fn bill(call: &Seen) -> u64 {
    u64::from(call.input_tokens) * INPUT + u64::from(call.output_tokens) * OUTPUT
}

/// All of its upstream calls were heard to their end, so that each one's usage is known.
fn all_reported(record: &CallRecord, calls: &[(char, Seen)]) -> bool {
    let estimated = record.attempts.iter().any(|attempt| attempt.usage.estimated);
    !estimated && calls.iter().all(|(_, call)| call.ending == Ending::Sent)
}

/// A stream that runs past its limit is cut a quarter beyond it, give or take the last piece.
fn cut_in_time(record: &CallRecord, calls: &[(char, Seen)]) -> bool {
    let limit = calls.iter().filter_map(|(_, call)| call.output_limit).max().unwrap_or(0);
    let cut = record.attempts.iter().filter(|attempt| failed(attempt, Failure::CostSpike) && attempt.usage.estimated);
    cut.map(|attempt| attempt.usage.output_tokens).all(|tokens| tokens <= limit + (limit / 4).max(16) + 8)
}

/// Each attempt was promised no more than was left when it started. Races and votes share what is left: there the sum
/// alone can be held to it.
fn fits(record: &CallRecord, calls: &[(char, Seen)]) -> bool {
    let alone = record.attempts.iter().all(|attempt| attempt.reason != AttemptReason::Hedge);
    if !alone || record.agreement.is_some() || record.attempts.len() != calls.len() {
        return true;
    }
    let mut calls: Vec<&(char, Seen)> = calls.iter().collect();
    let mut spent = 0;
    record.attempts.iter().all(|attempt| {
        let Some(at) = calls.iter().position(|(name, _)| attempt.target.as_str().starts_with(*name)) else {
            return false;
        };
        let promised = u64::from(calls.remove(at).1.output_limit.unwrap_or(u32::MAX)) * OUTPUT;
        let fits = spent + promised <= CENT;
        spent += attempt.cost.unwrap_or_default().as_nanos();
        fits
    })
}

fn failed(attempt: &AttemptRecord, failure: Failure) -> bool {
    attempt.failure.as_ref().is_some_and(|report| report.failure == failure)
}

#[derive(Default, Debug)]
struct Tally {
    answered: usize,
    over: usize,
    exact: usize,
    happened: BTreeMap<&'static str, usize>,
}

impl Tally {
    fn happened(&mut self, what: &'static str, times: usize) {
        *self.happened.entry(what).or_default() += times;
    }

    fn count(&mut self, record: &CallRecord) {
        self.answered += usize::from(record.outcome == Outcome::Answered);
        self.over += usize::from(record.cost > Usd::from_nanos(CENT));
        let reasons = |reason| record.attempts.iter().filter(|attempt| attempt.reason == reason).count();
        self.happened("repairs", reasons(AttemptReason::Repair));
        self.happened("races", reasons(AttemptReason::Hedge));
        self.happened("reroutes", reasons(AttemptReason::Reroute));
        let cuts = record.attempts.iter().filter(|attempt| failed(attempt, Failure::CostSpike)).count();
        self.happened("cuts", cuts);
        self.happened("votes", record.agreement.map_or(0, |agreement| usize::from(agreement.votes)));
    }
}

impl Tally {
    /// Holds one call to what it may cost.
    fn hold(&mut self, record: &CallRecord, calls: &[(char, Seen)]) {
        let told = || format!("{record:#?}\n{calls:#?}");
        let declared: u64 = calls.iter().map(|(_, call)| overrun(call)).sum();
        assert!(record.cost.as_nanos() <= CENT + declared, "{}", told());
        for (_, call) in calls {
            let promised = u64::from(call.output_limit.unwrap_or(u32::MAX)) * OUTPUT;
            assert!(promised <= CENT, "no call is promised more than the cap: {}", told());
        }
        assert!(fits(record, calls), "an attempt was started that did not fit: {}", told());
        let attempts: Usd = record.attempts.iter().filter_map(|attempt| attempt.cost).sum();
        assert!(record.cost >= attempts, "the call's cost has all its attempts': {}", told());
        assert!(cut_in_time(record, calls), "{}", told());
        if all_reported(record, calls) {
            let billed: u64 = calls.iter().map(|(_, call)| bill(call)).sum();
            assert_eq!(record.cost.as_nanos(), billed, "{}", told());
            self.exact += 1;
        }
        self.count(record);
    }
}

#[tokio::test]
async fn a_cap_of_one_cent_is_never_passed_by_more_than_what_was_in_flight() {
    let (fakes, rig) = world().await;
    for fake in &fakes {
        for (glob, fault) in TROUBLE {
            fake.set_fault(glob, plan(fault)).unwrap();
        }
    }
    let mut tally = Tally::default();
    for n in 0..CALLS {
        for (route, _, _) in WAYS {
            let dialect = if n % 2 == 0 { "openai" } else { "anthropic" };
            let ask = Ask::either(dialect, route, "How sure are you? Answer in JSON.").with("max_tokens", json!(4096));
            let reply = rig.ask(ask.with("stream", json!(n % 4 < 2))).await;
            let record = rig.record(reply.request_id()).await;
            tally.hold(&record, &seen(&fakes).await);
        }
    }
    // The mix is what it says it is.
    assert!(tally.answered > CALLS && tally.exact > CALLS && tally.over > 0, "{tally:?}");
    for what in ["repairs", "reroutes", "cuts", "votes"] {
        assert!(tally.happened[what] > 0, "no {what}: {tally:?}");
    }
}

#[tokio::test]
async fn a_race_is_paid_for_out_of_the_same_cent() {
    for verbose in ["none", "verbose:times=60"] {
        let (fakes, rig) = world().await;
        let ask = || Ask::chat("plain", "Hello").with("max_tokens", json!(150)).streamed();
        // The usual speed is known after twenty replies.
        for _ in 0..25 {
            rig.ask(ask()).await.assert_answered();
        }
        seen(&fakes).await;
        fakes[0].set_fault("*", plan("hang")).unwrap();
        if verbose != "none" {
            fakes[1].set_fault("*", plan(verbose)).unwrap();
        }
        let mut tally = Tally::default();
        for _ in 0..3 {
            let reply = rig.ask(ask()).await;
            let record = rig.record(reply.request_id()).await;
            tally.hold(&record, &seen(&fakes).await);
        }
        assert!(tally.happened["races"] > 0, "{tally:?}");
        assert_eq!(tally.happened["cuts"] > 0, verbose != "none", "{tally:?}");
    }
}
