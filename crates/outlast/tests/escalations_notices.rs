//! Who hears that work waits: at once, again, and the next level, each once; what nobody agreed to in time is denied.

mod common;

use common::{
    DONE, Does, Downstream, Rig,
    people::{decide, reviewed, waits_for_approval},
    runs::Api,
    until, until_some,
};
use outlast_store::{Limits, MemoryStore, conformance::ManualClock};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

const HOUR: i64 = 3_600_000;

/// A gateway whose store goes by a clock of the test's.
async fn rig(config: &str, limits: Limits) -> (Rig, Arc<ManualClock>) {
    let clock = ManualClock::start();
    let store = Arc::new(MemoryStore::new(limits, clock.clone()));
    (Rig::start_on(&reviewed(config), store).await, clock)
}

fn webhook(at: &Downstream, name: &str) -> String {
    let url = at.url(&format!("/{name}"));
    format!("[notify.{name}]\nkind = \"webhook\"\nurl = \"{url}\"\nsecret = \"${{ALERT_SECRET}}\"\n")
}

/// What this receiver was told, in order.
fn kinds(at: &Downstream, path: &str) -> Vec<String> {
    at.seen(path).iter().map(|request| request.json()["kind"].as_str().unwrap_or("?").to_owned()).collect()
}

/// As much of a mail server as takes mails from one that asks for no TLS.
struct MailServer {
    port: u16,
    mails: Arc<Mutex<Vec<String>>>,
}

impl MailServer {
    async fn start() -> MailServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mails = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn({
            let mails = mails.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(take_mail(stream, mails.clone()));
                }
            }
        });
        MailServer { port, mails }
    }

    fn to(&self, address: &str) -> Vec<String> {
        let rcpt = format!("RCPT TO:<{address}>");
        self.mails.lock().unwrap().iter().filter(|mail| mail.contains(&rcpt)).cloned().collect()
    }
}

async fn take_mail(stream: TcpStream, mails: Arc<Mutex<Vec<String>>>) {
    let mut stream = BufReader::new(stream);
    let (mut heard, mut in_data) = (String::new(), false);
    stream.write_all(b"220 here\r\n").await.unwrap();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.is_ok_and(|read| read == 0) {
            return;
        }
        heard += &line;
        let reply: &[u8] = match line.trim_end() {
            "." if in_data => {
                mails.lock().unwrap().push(std::mem::take(&mut heard));
                in_data = false;
                b"250 taken\r\n"
            }
            _ if in_data => continue,
            "DATA" => {
                in_data = true;
                b"354 go on\r\n"
            }
            "QUIT" => return,
            hello if hello.starts_with("EHLO") => b"250-here\r\n250 8BITMIME\r\n",
            _ => b"250 fine\r\n",
        };
        stream.write_all(reply).await.unwrap();
    }
}

#[tokio::test]
async fn the_first_level_hears_at_once_is_reminded_and_the_next_hears_when_nobody_answers() {
    let at = Downstream::start([("/ops", vec![DONE]), ("/boss", vec![DONE]), ("/chat", vec![DONE])]).await;
    let mail = MailServer::start().await;
    let smtp = format!(
        "[notify.mail]\nkind = \"email\"\nsmtp = \"smtp://127.0.0.1:{}\"\nfrom = \"outlast@example.com\"\nto = [\"ops@example.com\"]\n",
        mail.port
    );
    // The whole address of a Slack webhook is a secret.
    let chat = format!("[notify.chat]\nkind = \"slack\"\nurl = \"{}/${{SLACK_PATH}}\"\n", at.url(""));
    let levels = "[escalations]\nanswer_within = \"8h\"\nremind_every = \"2h\"\nlevels = [\
                  { notify = [\"ops\", \"chat\", \"mail\"], reviewers = [\"anna\"] }, { after = \"4h\", notify = [\"boss\"] }]\n";
    let (rig, clock) =
        rig(&(webhook(&at, "ops") + &webhook(&at, "boss") + &chat + &smtp + levels), Limits::MEMORY).await;
    let (run, id) = waits_for_approval(&rig, json!({ "iban": "DE02" })).await;
    until("the first level to hear", || at.seen("/ops").len() == 1 && at.seen("/chat").len() == 1).await;
    until("the mails", || mail.to("ops@example.com").len() == 1 && mail.to("anna@example.com").len() == 1).await;
    let told = at.seen("/ops")[0].clone();
    assert!(told.header("x-outlast-signature").is_some_and(|signature| signature.starts_with("v1=")));
    let body = told.json();
    assert_eq!((&body["kind"], &body["escalation"]["id"]), (&json!("escalation.opened"), &json!(id)), "{body}");
    assert_eq!(
        (&body["escalation"]["question"], &body["escalation"]["origin"]["run"]),
        (&json!("Refund it?"), &json!(run))
    );
    assert!(!String::from_utf8_lossy(&told.body).contains("DE02"), "never the context");
    assert_eq!(at.seen("/chat")[0].json()["attachments"][0]["text"], "Refund it?");
    let subject = "Subject: [Outlast] Waits for a decision: approval";
    assert!(mail.to("anna@example.com")[0].contains(subject), "{}", mail.to("anna@example.com")[0]);

    clock.advance(2 * HOUR);
    until("a reminder", || kinds(&at, "/ops").len() == 2).await;
    clock.advance(2 * HOUR);
    until("the next level", || kinds(&at, "/boss").len() == 1).await;
    assert_eq!(decide(&rig, "ANNA_KEY", &id, json!({ "verb": "approve" })).await.status(), 200);
    let decided = "escalation.decided".to_owned();
    until("everybody to hear the end", || {
        kinds(&at, "/boss").contains(&decided) && kinds(&at, "/ops").contains(&decided)
    })
    .await;
    assert_eq!(kinds(&at, "/ops"), ["escalation.opened", "escalation.reminder", "escalation.decided"], "each once");
    assert_eq!(kinds(&at, "/boss"), ["escalation.next_level", "escalation.decided"]);
    let last = at.seen("/boss")[1].json();
    assert_eq!(last["decision"], json!({ "verb": "approve", "by": "anna" }), "{last}");
}

#[tokio::test]
async fn what_nobody_agreed_to_in_time_is_denied_and_what_may_have_happened_waits() {
    let (rig, clock) = rig("[escalations]\nanswer_within = \"1h\"\nunanswered = \"deny\"\n", Limits::MEMORY).await;
    let (_, id) = waits_for_approval(&rig, json!(1)).await;
    let api = Api::of(&rig);
    api.start(json!({ "workflow": "w" })).await;
    let claim = api.claim("w", json!({})).await.expect("the run");
    let attempt = claim.execute("send", json!({ "class": "once", "input": 1 })).await;
    let parked = claim.end("send", json!({ "attempt": attempt, "unknown": {} })).await.json();
    let unknown = parked["escalation"]["id"].as_str().expect("an escalation").to_owned();
    clock.advance(HOUR);
    let shown = until_some("the denial", async || {
        let shown = api.get(&format!("/v1/escalations/{id}")).await.json();
        (shown["state"] == "decided").then_some(shown)
    })
    .await;
    assert_eq!((&shown["decision"]["verb"], &shown["decision"]["by"]), (&json!("deny"), &json!("outlast")), "{shown}");
    let overdue = api.get("/v1/escalations?overdue=true").await.json();
    assert_eq!(overdue["escalations"][0]["id"], json!(unknown), "it waits: {overdue}");
    let claim = api.claim("w", json!({})).await.expect("the denied run goes on");
    let told = claim.begin("refund", json!({ "class": "once", "input": 1, "needs_approval": true })).await.json();
    assert_eq!((&told["do"], &told["error"]["code"]), (&json!("replay"), &json!("denied")), "{told}");
}

#[tokio::test]
async fn a_notice_that_nobody_takes_is_given_up_loudly_and_the_work_waits_on() {
    let at = Downstream::start([("/ops", vec![Does::Says(500, "{}")])]).await;
    let config = webhook(&at, "ops") + "[escalations]\nlevels = [{ notify = [\"ops\"] }]\n";
    let (rig, clock) = rig(&config, Limits { delivery_attempts: 2, ..Limits::MEMORY }).await;
    let (_, id) = waits_for_approval(&rig, json!(1)).await;
    let told = async |what: &str| {
        until_some(what, async || {
            let metrics = Api::of(&rig).get("/metrics").await.text();
            metrics.contains(what).then_some(metrics)
        })
        .await
    };
    // The clock is moved only once a try is over: its claim would run out under it otherwise.
    told("outlast_notices_total{result=\"failed\"} 1").await;
    clock.advance(HOUR);
    let given_up = told("outlast_notices_total{result=\"failed\"} 2").await;
    let given_up = match given_up.contains("outlast_notices_given_up 1") {
        true => given_up,
        false => told("outlast_notices_given_up 1").await,
    };
    assert!(given_up.contains("outlast_notices_total{result=\"failed\"} 2"), "{given_up}");
    assert_eq!(at.seen("/ops").len(), 2);
    let open: Value = Api::of(&rig).get(&format!("/v1/escalations/{id}")).await.json();
    assert_eq!(open["state"], "open");
}
