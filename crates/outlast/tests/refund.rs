//! The refund workflow of `examples/refund.toml`, killed at every position of its journal: each time one refund, and at
//! most one e-mail. Where nobody can know whether the e-mail was sent, a scripted reviewer asks the shop and decides, and
//! then there is exactly one.

mod common;

use common::{
    Ask, Server, Step, Upstream, until_some,
    upstream::{completion, json_reply},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
};

const REVIEWER: &str = "reviewer-key-of-the-script-0123456789";

/// What has taken place in the shop.
#[derive(Clone, Default)]
struct Shop(Arc<Mutex<Books>>);

#[derive(Default)]
struct Books {
    /// The first result under each key.
    reversals: BTreeMap<String, Value>,
    calls_to_reverse: usize,
    emails: Vec<Value>,
}

impl Shop {
    /// Opens it for orders of this amount.
    async fn open(&self, amount: f64) -> Upstream {
        let shop = self.clone();
        Upstream::start(move |request| {
            let path = request.head.split(' ').nth(1).unwrap_or_default();
            let answer = match path {
                "/orders/lookup" => {
                    let order = &request.json()["order_id"];
                    json!({ "order_id": order, "charge_id": "ch-1", "amount": amount, "email": "eve@example.com" })
                }
                "/charges/reverse" => shop.reverse(request.header("idempotency-key").expect("a key"), &request.json()),
                "/emails" => shop.send(request.json()),
                other => panic!("the shop has no {other}"),
            };
            vec![Step::Send(json_reply(&answer))]
        })
        .await
    }

    fn reverse(&self, key: &str, asked: &Value) -> Value {
        let mut books = self.0.lock().unwrap();
        books.calls_to_reverse += 1;
        let next = json!({ "reversal": format!("rev-{}", books.reversals.len() + 1), "amount": asked["amount"] });
        books.reversals.entry(key.to_owned()).or_insert(next).clone()
    }

    fn send(&self, email: Value) -> Value {
        let mut books = self.0.lock().unwrap();
        books.emails.push(email);
        json!({ "message_id": format!("m-{}", books.emails.len()) })
    }

    fn refunds(&self) -> usize {
        self.0.lock().unwrap().reversals.len()
    }

    fn emails(&self) -> usize {
        self.0.lock().unwrap().emails.len()
    }
}

/// The example as it stands in the repository, with this test's addresses, and claims that are soon over.
fn example(provider: &Upstream, shop: &Upstream) -> String {
    let text = std::fs::read_to_string(examples().join("refund.toml")).unwrap();
    let hash = format!("blake3:{}", blake3::hash(REVIEWER.as_bytes()).to_hex());
    let schemas = examples().join("schemas");
    let filled = text
        .replace("${PROVIDER_URL}", &(provider.url() + "/v1"))
        .replace("${REFUND_DOWNSTREAM}", &shop.url())
        .replace("${OUTLAST_DATA_KEY}", "${DATA_KEY}")
        .replace("${REVIEWER_KEY}", &hash)
        .replace("timeout = \"10s\"", "timeout = \"1s\"")
        .replace("schemas/", &format!("{}/", schemas.display()));
    filled + "\n[runs]\nlease = \"1s\"\n"
}

fn examples() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").canonicalize().unwrap()
}

async fn decider(amount: f64) -> Upstream {
    let answer = json!({ "refund": true, "amount": amount, "reason": "It arrived broken." });
    Upstream::answering(completion(&answer.to_string())).await
}

/// Starts the run; whoever dies over it has written it down, or is told again: the key is the same.
async fn start(server: &Server) -> Option<String> {
    let body = json!({ "workflow": "refund", "input": { "order_id": "o-1", "reason": "It broke." } });
    let ask = Ask::post("/v1/runs", body.to_string()).header("idempotency-key", "o-1");
    let ask = ask.header("content-type", "application/json");
    let reply = ask.try_send(server.address).await?;
    assert!(matches!(reply.status(), 200 | 201), "{}", reply.text());
    Some(reply.json()["id"].as_str().unwrap().to_owned())
}

async fn get(server: &Server, path: &str) -> Option<Value> {
    let reply = Ask::get(path).try_send(server.address).await?;
    (reply.status() == 200).then(|| reply.json())
}

/// A person by script: approves, and asks the shop about e-mails. Says what it decided, if it did.
async fn review(server: &Server, shop: &Shop) -> Option<String> {
    let open = get(server, "/v1/escalations?open=true").await?;
    let id = open["escalations"].as_array()?.first()?["id"].as_str()?.to_owned();
    let shown = get(server, &format!("/v1/escalations/{id}")).await?;
    let seal = &shown["shown"];
    let decision = match shown["kind"].as_str()? {
        "approval" => json!({ "verb": "approve", "shown": seal }),
        "unknown_effect" if shop.emails() == 0 => json!({ "verb": "did_not", "shown": seal }),
        "unknown_effect" => json!({ "verb": "happened", "shown": seal, "result": { "message_id": "m-1" } }),
        other => panic!("nobody expected {other}: {shown}"),
    };
    let ask = Ask::post(&format!("/v1/escalations/{id}/decide"), decision.to_string());
    let reply = ask.header("content-type", "application/json").bearer(REVIEWER).try_send(server.address).await?;
    assert!(matches!(reply.status(), 200 | 409), "{}", reply.text());
    Some(decision["verb"].as_str()?.to_owned())
}

/// Waits until the run is done, or the server has died over it; reviews meanwhile. True if it is done.
async fn until_done(server: &mut Server, run: &str, shop: &Shop, decided: &mut Vec<String>) -> bool {
    let path = format!("/v1/runs/{run}");
    for _ in 0..200 {
        let done = until_some("the run to move", async || {
            if !server.lives() {
                return Some(None);
            }
            let state = get(server, &path).await?["state"].as_str()?.to_owned();
            matches!(state.as_str(), "done" | "failed" | "parked" | "quarantined").then_some(Some(state))
        })
        .await;
        match done.as_deref() {
            None => return false,
            Some("done") => return true,
            Some("parked") => decided.extend(review(server, shop).await),
            Some(other) => panic!("the run is {other}"),
        }
    }
    panic!("the run never ends");
}

/// Kills the server at the `nth` pass of the failpoint, starts it anew and sees the run to its end. False when the run
/// was done before the failpoint was passed so often.
async fn killed_at(failpoint: &str, nth: usize, amount: f64) -> bool {
    let shop = Shop::default();
    let (provider, downstream) = (decider(amount).await, shop.open(amount).await);
    let config = example(&provider, &downstream);
    let place = format!("{failpoint}:{nth}");
    let mut server = Server::start_failing(tempfile::tempdir().unwrap(), &config, &place).await;
    let mut decided = Vec::new();
    let mut dies = true;
    if let Some(run) = start(&server).await {
        dies = !until_done(&mut server, &run, &shop, &mut decided).await;
    }
    if dies {
        assert!(shop.refunds() <= 1 && shop.emails() <= 1, "{place}: when it died");
        server = server.died_and_restart(&config).await;
        let run = start(&server).await.expect("this one lives");
        assert!(until_done(&mut server, &run, &shop, &mut decided).await, "{place}: it dies no more");
    }
    assert_eq!(shop.refunds(), 1, "{place}: one refund");
    assert_eq!(shop.emails(), 1, "{place}: one e-mail, as decided: {decided:?}");
    let approved = decided.iter().filter(|verb| *verb == "approve").count();
    // Of a decision that the server died over the person was not told; it stands all the same.
    let heard = usize::from(amount > 100.0 && !(dies && failpoint == "escalation.decided"));
    assert_eq!(approved, heard, "{place}: {decided:?}");
    dies
}

async fn killed_everywhere_at(failpoint: &str, amount: f64, at_least: usize) {
    let mut nth = 1;
    while killed_at(failpoint, nth, amount).await {
        nth += 1;
        assert!(nth < 40, "{failpoint} is passed without end");
    }
    assert!(nth > at_least, "{failpoint} was passed {} times, not {at_least}", nth - 1);
}

#[tokio::test]
async fn a_refund_that_nothing_disturbs_is_one_refund_and_one_email() {
    assert!(!killed_at("run.claimed", 1_000, 40.0).await);
}

#[tokio::test]
async fn killed_after_a_claim() {
    killed_everywhere_at("run.claimed", 40.0, 1).await;
}

#[tokio::test]
async fn killed_after_every_intent() {
    killed_everywhere_at("ledger.intent", 40.0, 3).await;
}

#[tokio::test]
async fn killed_after_every_call_of_a_tool_before_its_outcome_is_written() {
    killed_everywhere_at("tool.sent", 40.0, 3).await;
}

#[tokio::test]
async fn killed_after_every_outcome() {
    killed_everywhere_at("ledger.outcome", 40.0, 3).await;
}

#[tokio::test]
async fn killed_after_its_end() {
    killed_everywhere_at("run.finished", 40.0, 1).await;
}

#[tokio::test]
async fn killed_after_a_person_approved_a_refund_above_the_limit() {
    killed_everywhere_at("escalation.decided", 250.0, 1).await;
}

#[tokio::test]
async fn killed_after_every_intent_of_a_refund_that_needs_approval() {
    killed_everywhere_at("ledger.intent", 250.0, 3).await;
}
