//! `outlast escalations` and `outlast audit`, over HTTP and on the store's file.

mod common;

use common::{
    Ask, Server, plan,
    rig::{env, fake, provider},
};
use serde_json::Value;
use std::{
    path::Path,
    process::{Command, Output},
};

struct Cli<'a> {
    folder: &'a Path,
    url: Option<String>,
    key: Option<&'static str>,
}

impl Cli<'_> {
    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
        command.args(args).args(["--config", "outlast.toml"]).current_dir(self.folder);
        for name in ["DATA_KEY", "ANNA_KEY", "BOB_KEY"] {
            command.env(name, env(name).unwrap());
        }
        if let Some(url) = &self.url {
            command.args(["--url", url]);
        }
        if let Some(key) = self.key {
            command.env("OUTLAST_REVIEWER_KEY", env(key).unwrap());
        }
        command.output().unwrap()
    }

    fn ended(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(!text.contains("0123456789"), "a key is printed: {text}");
        text
    }
}

#[tokio::test]
async fn a_reviewer_lists_looks_and_decides_and_the_log_has_it() {
    let a = fake("alpha").await;
    let config = provider("a", "openai-compatible", &a.url(), "")
        + "[routes.main]\ntargets = [\"a/m\"]\nbackstops = [\"person\"]\n"
        + "[backstops.person]\nkind = \"escalate\"\nquestion = \"What of {{ text }}?\"\n"
        + "[store]\nfile = \"store.db\"\ndata_key = \"${DATA_KEY}\"\n"
        + "[reviewers.anna]\nkey = \"${ANNA_KEY}\"\n[reviewers.bob]\nkey = \"${BOB_KEY}\"\n";
    let mut server = Server::start(&config).await;
    a.set_fault("*", plan("503")).unwrap();
    let deferred = Ask::chat("main", "my \u{1b}[31morder").send(server.address).await.json();
    let id = deferred["outlast"]["escalation"]["id"].as_str().expect("an escalation").to_owned();
    let folder = server.folder.path().to_owned();
    let url = Some(format!("http://{}", server.address));
    let anna = Cli { folder: &folder, url: url.clone(), key: Some("ANNA_KEY") };
    let bob = Cli { folder: &folder, url, key: Some("BOB_KEY") };
    let file = Cli { folder: &folder, url: None, key: None };

    assert!(anna.ended(&["escalations", "list"], 0).contains(&id));
    let shown = anna.ended(&["escalations", "show", &id], 0);
    assert!(shown.contains("What of my [31morder?") && !shown.contains('\u{1b}'), "{shown:?}");
    assert!(shown.contains("edit      --output JSON"), "{shown}");
    assert_eq!(file.ended(&["escalations", "show", &id], 0), shown, "the file says the same");
    let json: Value = serde_json::from_str(&anna.ended(&["escalations", "show", &id, "--json"], 0)).unwrap();
    assert_eq!(json["choices"], serde_json::json!(["edit", "cancel"]));

    let stale = "00".repeat(32);
    let decide = ["escalations", "decide", &id, "edit", "--output", "\"It left today.\""];
    assert!(anna.ended(&[&decide[..], &["--shown", &stale]].concat(), 1).contains("look, and decide then"));
    assert!(anna.ended(&["escalations", "decide", &id, "edit"], 1).contains("`edit` needs `output`"));
    anna.ended(&["escalations", "decide", &id, "perhaps"], 2);
    assert!(anna.ended(&decide, 0).contains(&format!("{id} decided by anna: edit")));
    assert!(bob.ended(&["escalations", "decide", &id, "cancel"], 1).contains("anna has decided: edit. That stands."));
    assert!(!file.ended(&["escalations", "list"], 0).contains(&id));
    assert!(file.ended(&["escalations", "list", "--all"], 0).contains(&id));

    for cli in [&anna, &file] {
        assert!(cli.ended(&["audit", "list"], 0).contains("escalation.edit"), "loopback is the operator's");
        assert!(cli.ended(&["audit", "verify"], 0).starts_with("1 entries are what was written"));
    }
    let log: Value = serde_json::from_str(&file.ended(&["audit", "list", "--json", "--subject", &id], 0)).unwrap();
    assert_eq!(log[0]["who"], "anna", "{log}");
    server.signal("TERM");
    server.exit().await;
    anna.ended(&["escalations", "list"], 69);
    assert!(file.ended(&["audit", "verify"], 0).contains("1 entries"));
}
