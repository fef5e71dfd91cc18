//! `outlast store` and `outlast escalations`, beside a running gateway and without one.

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

/// Runs the binary in the folder of a config that a server was started on.
fn outlast(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlast"));
    command.args(args).args(["--config", "outlast.toml"]).current_dir(folder);
    command.env("DATA_KEY", env("DATA_KEY").unwrap()).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn ended(folder: &Path, args: &[&str], code: i32) -> String {
    let output = outlast(folder, args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output));
    text(&output)
}

#[tokio::test]
async fn a_store_is_backed_up_in_use_restored_when_closed_and_an_escalation_shown_from_either() {
    let a = fake("alpha").await;
    let config = provider("a", "openai-compatible", &a.url(), "")
        + "[routes.main]\ntargets = [\"a/m\"]\nbackstops = [\"escalate\"]\n"
        + "[store]\nfile = \"store.db\"\ndata_key = \"${DATA_KEY}\"\n";
    let mut server = Server::start(&config).await;
    a.set_fault("*", plan("503")).unwrap();
    let address = server.address;
    let ask = async |text: &str| Ask::chat("main", text).send(address).await;
    assert_eq!(ask("before the backup").await.status(), 202);
    let folder = server.folder.path().to_owned();
    assert!(ended(&folder, &["store", "backup", "--to", "copy.db"], 0).contains("checked"));
    ended(&folder, &["store", "backup", "--to", "copy.db"], 69);
    assert_eq!(ask("after the backup").await.status(), 202);
    assert!(ended(&folder, &["store", "check"], 0).contains("0 faults"));
    assert!(ended(&folder, &["store", "restore", "--from", "copy.db"], 69).contains("another process"));
    ended(&folder, &["store", "restore", "--from", "nowhere.db"], 66);

    let list = |folder: &Path| -> Vec<Value> {
        serde_json::from_str(&ended(folder, &["escalations", "list", "--json"], 0)).unwrap()
    };
    assert_eq!(list(&folder).len(), 2);
    server.signal("TERM");
    server.exit().await;
    ended(&folder, &["store", "restore", "--from", "copy.db"], 0);
    let [only] = &list(&folder)[..] else { panic!("what came after the backup is not in it") };
    let id = only["id"].as_str().unwrap();
    assert!(ended(&folder, &["escalations", "list"], 0).contains(id));
    assert!(ended(&folder, &["escalations", "show", id], 0).contains("before the backup"));
    ended(&folder, &["escalations", "show", "esc_nobody"], 1);
}

#[tokio::test]
async fn a_damaged_store_another_key_and_no_store_have_their_exit_codes() {
    let a = fake("alpha").await;
    let config =
        |store: &str| provider("a", "openai-compatible", &a.url(), "") + "[routes.main]\ntargets = [\"a/m\"]\n" + store;
    let folder = tempfile::tempdir().unwrap();
    let write = |store: &str| std::fs::write(folder.path().join("outlast.toml"), config(store)).unwrap();
    write("");
    assert!(ended(folder.path(), &["store", "check"], 78).contains("[store]"));
    write("[store]\nfile = \"store.db\"\nplaintext_payloads = true\n");
    ended(folder.path(), &["store", "check"], 69);
    std::fs::write(folder.path().join("store.db"), "this is no database, and long enough ".repeat(200)).unwrap();
    ended(folder.path(), &["store", "check"], 1);
    ended(folder.path(), &["store", "restore", "--from", "store.db"], 1);
}
