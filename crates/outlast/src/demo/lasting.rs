//! The second epilogue: work that survives. A program that dies and is run again from the top; effects whose answers are
//! lost.

use super::{
    shop::Shop,
    stage::{Scene, Stage, expect, user},
};
use http::Method;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// The reviewer's key; it is worth nothing outside of the demo.
pub(super) const REVIEWER_KEY: &str = "demo-reviewer-0123456789abcdef";

/// The shop's tools, and who decides what nobody knows.
pub(super) fn config(shop: SocketAddr) -> String {
    format!(
        r#"
[tools.refund]
kind = "http"
url = "http://{shop}/refund"
effect = "keyed"
key_ttl = "24h"
timeout = "2s"
retry = {{ base = "50ms", cap = "200ms" }}

[tools.mail]
kind = "http"
url = "http://{shop}/mail"
effect = "once"
timeout = "2s"

[reviewers.you]
key = "${{DEMO_REVIEWER_KEY}}"
"#
    )
}

/// Plays the scenes.
pub(super) async fn play(stage: &Stage<'_>) -> Vec<Scene> {
    vec![
        Scene { name: "run again", seen: run_again(stage).await },
        Scene { name: "lost answer", seen: lost_answer(stage).await },
        Scene { name: "lost mail", seen: lost_mail(stage).await },
    ]
}

const QUESTIONS: [&str; 4] = ["Read the order.", "Check the policy.", "Draft the reply.", "Shorten it."];

/// A program that dies after three of its four calls.
async fn run_again(stage: &Stage<'_>) -> Result<String, String> {
    pass(stage, 3).await?;
    let (replayed, paid) = pass(stage, 4).await?;
    expect((replayed, paid) == (3, 1), || format!("{replayed} replayed, {paid} paid for"))?;
    Ok("a program died after 3 of 4 model calls; run again from the top, it paid for the 4th alone".into())
}

/// Asks the first questions of the program; how many answers were replayed, and how many were paid for.
async fn pass(stage: &Stage<'_>, questions: usize) -> Result<(usize, usize), String> {
    let (mut replayed, mut paid) = (0, 0);
    for question in &QUESTIONS[..questions] {
        let ask = json!({"model": super::world::ROUTE, "messages": user(question)});
        let heard = stage.chat_with(ask, &[("x-outlast-run", "demo-program")]).await?;
        if heard.is_replay() {
            replayed += 1;
        }
        if heard.header("x-outlast-cost-usd").parse::<f64>().is_ok_and(|cost| cost > 0.0) {
            paid += 1;
        }
    }
    Ok((replayed, paid))
}

/// The shop refunds, and its answer is lost.
async fn lost_answer(stage: &Stage<'_>) -> Result<String, String> {
    let headers = [("idempotency-key", "order-17"), ("content-type", "application/json")];
    let heard = stage.send(Method::POST, "/v1/tools/refund", &headers, r#"{"order": 17}"#).await?;
    expect(heard.status == 200, || format!("status {}: {}", heard.status, heard.body))?;
    let (refunds, requests) = shop(stage).refunds();
    expect((refunds, requests) == (1, 2), || format!("{refunds} refunds after {requests} requests"))?;
    Ok("the shop refunded and its answer was lost; asked again with the same key: one refund".into())
}

/// The shop sends a mail, and nobody can know.
async fn lost_mail(stage: &Stage<'_>) -> Result<String, String> {
    let headers = [("idempotency-key", "order-17/mail"), ("content-type", "application/json")];
    let mail = || stage.send(Method::POST, "/v1/tools/mail", &headers, r#"{"to": "eve@example.com"}"#);
    let parked = mail().await?;
    expect(parked.status == 202, || format!("status {}: {}", parked.status, parked.body))?;
    let path = parked.body["poll_url"].as_str().ok_or("no poll URL")?;
    let shown = stage.send(Method::GET, path, &[], "").await?;
    // The person looked into the outbox.
    let sent = json!({"mail": shop(stage).mails()});
    let decision = json!({"verb": "happened", "shown": shown.body["shown"], "result": sent});
    let key = format!("Bearer {REVIEWER_KEY}");
    let headers = [("authorization", key.as_str()), ("content-type", "application/json")];
    let decided = stage.send(Method::POST, &format!("{path}/decide"), &headers, &decision.to_string()).await?;
    expect(decided.status == 200, || format!("status {}: {}", decided.status, decided.body))?;
    let again = mail().await?;
    let (mails, known): (u32, &Value) = (shop(stage).mails(), &again.body);
    expect(again.is_replay() && mails == 1, || format!("{mails} mails; {known}"))?;
    Ok("whether a mail had gone nobody knew: not sent again but parked; a person said it had: one mail".into())
}

fn shop<'s>(stage: &Stage<'s>) -> &'s Shop {
    stage.world.shop()
}
