//! A notice as Slack's incoming webhooks take it, and others that copy them.

use super::{Message, TIMEOUT, Untold};
use crate::{
    alerts::webhook::{Delivery, Postman},
    clock::Clock,
};
use http::Uri;
use serde_json::{Value, json};

pub(super) async fn post(url: &Uri, message: &Message, postman: &mut Postman, clock: &Clock) -> Result<(), Untold> {
    let delivery = Delivery { to: url.clone(), secret: None, body: body(message).to_string().into() };
    postman.post(&delivery, clock, TIMEOUT).await.map_err(|undelivered| Untold { why: undelivered.why })
}

/// The question quotes whoever asked: nothing in it may become a link, a mention or a format.
fn body(message: &Message) -> Value {
    let fields: Vec<Value> = message
        .fields()
        .into_iter()
        .map(|(title, value)| json!({ "title": title, "value": escaped(&value), "short": value.len() <= 40 }))
        .collect();
    let headline = escaped(&message.headline());
    json!({
        "text": headline,
        "mrkdwn": false,
        "attachments": [{
            "fallback": headline,
            "text": escaped(&message.question),
            "fields": fields,
            "mrkdwn_in": [],
        }],
    })
}

/// Slack's three characters. With them gone no `<!channel>`, `<@user>` or `<url|text>` is left.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlast_store::About;

    #[test]
    fn a_hostile_question_mentions_nobody_and_links_nowhere() {
        let message = Message {
            id: "esc_1".into(),
            about: About::Opened,
            at: "2026-11-21T12:00:00.000Z".into(),
            kind: "approval",
            question: "<!channel> pay <https://evil.example|your bank> & *now*".into(),
            origin: vec![("Run", "run_1".into())],
            choices: vec!["approve", "deny"],
            opened_at: "2026-11-21T12:00:00.000Z".into(),
            answer_by: None,
            link: None,
            decided: None,
        };
        let body = body(&message);
        let text = body["attachments"][0]["text"].as_str().unwrap();
        assert_eq!(text, "&lt;!channel&gt; pay &lt;https://evil.example|your bank&gt; &amp; *now*");
        assert_eq!(body["mrkdwn"], false);
        assert_eq!(body["text"], "Waits for a decision: approval");
    }
}
