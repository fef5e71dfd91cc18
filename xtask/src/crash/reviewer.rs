//! The reviewer: a person by script. It looks at what is asked, asks the world outside what took place, and decides.

use super::{OPERATOR, REVIEWER, downstream::Downstream, http::ask};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// What may still happen after an escalation is opened has happened by then: longer than any lease and call together.
/// A person takes longer than that to read the question.
const SETTLED: Duration = Duration::from_secs(6);

/// Decides until it is over; how often, by verb.
pub(super) fn review(servers: &[SocketAddr], downstream: &Downstream, over: &AtomicBool) -> BTreeMap<String, u32> {
    let mut decided = BTreeMap::new();
    let mut first_seen: BTreeMap<String, Instant> = BTreeMap::new();
    while !over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(300));
        for server in servers {
            for id in open(*server) {
                let seen = *first_seen.entry(id.clone()).or_insert_with(Instant::now);
                if seen.elapsed() < SETTLED {
                    continue;
                }
                if let Some(verb) = decide(*server, downstream, &id) {
                    *decided.entry(verb).or_default() += 1;
                }
            }
        }
    }
    decided
}

fn open(server: SocketAddr) -> Vec<String> {
    let key = format!("Bearer {OPERATOR}");
    let path = "/v1/escalations?open=true&limit=200";
    let answer = ask(server, "GET", path, &[("authorization", &key)], "", Duration::from_secs(3));
    let listed = answer.ok().and_then(|answer| answer.body["escalations"].as_array().cloned()).unwrap_or_default();
    listed.iter().filter_map(|escalation| escalation["id"].as_str().map(str::to_owned)).collect()
}

fn decide(server: SocketAddr, downstream: &Downstream, id: &str) -> Option<String> {
    let key = format!("Bearer {OPERATOR}");
    let path = format!("/v1/escalations/{id}");
    let shown = ask(server, "GET", &path, &[("authorization", &key)], "", Duration::from_secs(3)).ok()?;
    let decision = decision(&shown.body, downstream)?;
    let verb = decision["verb"].as_str()?.to_owned();
    let key = format!("Bearer {REVIEWER}");
    let path = format!("{path}/decide");
    let headers = [("authorization", key.as_str())];
    let answer = ask(server, "POST", &path, &headers, &decision.to_string(), Duration::from_secs(3)).ok()?;
    if answer.status != 200 && answer.status != 409 {
        eprintln!("reviewer: {id}: {} {}", answer.status, answer.body);
    }
    (answer.status == 200).then_some(verb)
}

/// What the world outside says, put into a verb.
fn decision(shown: &Value, downstream: &Downstream) -> Option<Value> {
    let seal = shown["shown"].clone();
    let (tool, order) = about(shown)?;
    match shown["kind"].as_str()? {
        "unknown_effect" => {
            let times = downstream.counts().of(tool, &order);
            Some(match times {
                0 => json!({ "verb": "did_not", "shown": seal }),
                _ => json!({ "verb": "happened", "shown": seal, "result": { "done": format!("{tool}-{order}") } }),
            })
        }
        "approval" => Some(json!({ "verb": "approve", "shown": seal })),
        "exhausted" | "poison" | "low_confidence" | "compensation" => Some(json!({ "verb": "retry", "shown": seal })),
        other => {
            eprintln!("reviewer: what is {other}?");
            None
        }
    }
}

/// Which effect of which order: the names stand in what is shown, wherever that puts them.
fn about(shown: &Value) -> Option<(&'static str, String)> {
    if shown["kind"] == "poison" {
        return Some(("email", String::new()));
    }
    let step = shown["step"].as_str().or_else(|| shown["effect"]["scope"].as_str())?;
    let tool =
        super::downstream::EFFECTS.into_iter().chain(["orders", "order", "decide"]).find(|tool| step.contains(tool))?;
    let tool = super::downstream::EFFECTS.into_iter().find(|effect| *effect == tool).unwrap_or("charge");
    let text = shown.to_string();
    let at = text.find("order_id")?;
    let order: String =
        text[at + 8..].chars().skip_while(|c| *c != 'o').take_while(|c| c.is_ascii_alphanumeric()).collect();
    Some((tool, order))
}
