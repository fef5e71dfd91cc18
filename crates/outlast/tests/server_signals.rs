//! The real process: reload and stop under load, idle connections in their thousands.

mod common;

use common::{
    Ask, Conn, GUARD, Reply, Server, guarded, plan,
    rig::{fake, field, provider},
    until,
};
use outlast::fake::{Fake, FakeConfig};
use serde_json::json;
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinSet;

/// Clients that ask one call after the other, streamed and not, in both dialects, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    replies: Arc<Mutex<Vec<Option<Reply>>>>,
    clients: JoinSet<()>,
}

impl Load {
    fn start(address: SocketAddr, clients: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let replies = Arc::new(Mutex::new(Vec::new()));
        let mut set = JoinSet::new();
        for client in 0..clients {
            let (stop, replies) = (stop.clone(), replies.clone());
            set.spawn(async move {
                let mut conn = Conn::open(address).await;
                for turn in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let dialect = if (client + turn) % 2 == 0 { "openai" } else { "anthropic" };
                    let ask = Ask::either(dialect, "main", "hello").with("stream", json!(turn % 3 != 0));
                    let reply = ask.send_over(&mut conn).await;
                    let over = reply.is_none();
                    replies.lock().unwrap().push(reply);
                    if over {
                        return;
                    }
                }
            });
        }
        Load { stop, replies, clients: set }
    }

    fn count(&self) -> usize {
        self.replies.lock().unwrap().len()
    }

    /// Waits until so many more calls have been answered.
    async fn more(&self, calls: usize) {
        let goal = self.count() + calls;
        until("the load to go on", || self.count() >= goal).await;
    }

    async fn end(self) -> Vec<Option<Reply>> {
        self.stop.store(true, Ordering::Relaxed);
        guarded("the clients to end", self.clients.join_all()).await;
        Arc::try_unwrap(self.replies).expect("the clients have ended").into_inner().unwrap()
    }
}

async fn model_names(server: &Server) -> Vec<String> {
    let models = Ask::get("/v1/models").send(server.address).await.json();
    models["data"].as_array().unwrap().iter().map(|model| field(model, "id")).collect()
}

fn config(a: &Fake, routes: &[&str]) -> String {
    let routes: String = routes.iter().map(|name| format!("[routes.{name}]\ntargets = [\"a/m\"]\n")).collect();
    provider("a", "openai-compatible", &a.url(), "") + &routes
}

#[tokio::test]
async fn reloads_under_load_fail_no_request_and_a_broken_config_is_refused_with_all_its_errors() {
    let a = fake("alpha").await;
    let server = Server::start(&config(&a, &["main"])).await;
    let load = Load::start(server.address, 8);
    load.more(50).await;

    server.write_config(&config(&a, &["main", "second"]));
    server.signal("HUP");
    let reloads = server.until_events("reload", 1).await;
    assert!(field(&reloads[0], "changes").contains("second"), "{}", reloads[0]);
    assert_eq!(model_names(&server).await, ["main", "second", "a/m"]);
    load.more(50).await;

    let broken = config(&a, &["main", "second"]) + "[routes.third]\ntargets = [\"nobody/m\"]\nteir = \"basic\"\n";
    server.write_config(&broken);
    server.signal("HUP");
    let refused = server.until_events("reload_refused", 1).await;
    let errors = refused[0]["errors"].to_string();
    assert!(errors.contains("nobody") && errors.contains("teir"), "both are told: {errors}");
    assert!(errors.contains("outlast.toml:"), "with file and line: {errors}");
    assert_eq!(model_names(&server).await, ["main", "second", "a/m"], "the old one stays in force");
    load.more(50).await;

    // Without a signal: the file's content is watched.
    server.write_config(&config(&a, &["main", "third"]));
    server.until_events("reload", 2).await;
    assert_eq!(model_names(&server).await, ["main", "third", "a/m"]);
    assert_eq!(Ask::chat("second", "hello").send(server.address).await.status(), 404, "it is gone");
    Ask::chat("third", "hello").send(server.address).await.assert_answered();
    load.more(50).await;

    for reply in load.end().await {
        reply.expect("no connection is cut").assert_answered();
    }
    assert_eq!(server.events("reload_refused").len(), 1, "a bad file is told once, not at every look");
}

#[tokio::test]
async fn a_call_that_began_before_a_reload_ends_as_it_began() {
    let a = fake("alpha").await;
    let model = "m~chunks=40~gap=20ms";
    let before =
        provider("a", "openai-compatible", &a.url(), "") + &format!("[routes.main]\ntargets = [\"a/{model}\"]\n");
    let server = Server::start(&before).await;
    let (head, mut conn) = Ask::chat("main", "hello").streamed().open(server.address).await;
    assert_eq!(head.status, 200);
    conn.piece().await.unwrap();
    let b = fake("beta").await;
    server.write_config(&(provider("b", "openai-compatible", &b.url(), "") + "[routes.other]\ntargets = [\"b/m\"]\n"));
    server.signal("HUP");
    server.until_events("reload", 1).await;
    let (rest, _) = conn.body().await;
    assert!(String::from_utf8_lossy(&rest).contains("[DONE]"));
    assert_eq!(Ask::chat("main", "hello").send(server.address).await.status(), 404);
    Ask::chat("other", "hello").send(server.address).await.assert_answered();
}

#[tokio::test]
async fn sigterm_under_load_lets_every_call_in_flight_finish_and_refuses_new_ones_honestly() {
    let slow = FakeConfig {
        first_token: Duration::from_millis(300),
        token_gap: Duration::from_millis(20),
        ..FakeConfig::named("alpha")
    };
    let a = Fake::start(slow).await.unwrap();
    let mut server = Server::start(&config(&a, &["main"])).await;
    let load = Load::start(server.address, 16);
    load.more(20).await;
    until("all clients are in flight", || a.stats().in_flight >= 14).await;
    // Streams that have begun, whose calls will take longer than the grace of the connections.
    let mut long = JoinSet::new();
    for _ in 0..4 {
        let (_, mut conn) = Ask::chat("main", "long").streamed().open(server.address).await;
        conn.piece().await.unwrap();
        long.spawn(async move { conn.body().await });
    }
    server.signal("TERM");
    server.until_events("drain", 1).await;
    let exit = server.exit().await;
    assert!(exit.success(), "{exit}: {}", server.log_text());

    for (body, end) in guarded("the streams to end", long.join_all()).await {
        let body = String::from_utf8_lossy(&body);
        assert!(body.contains("[DONE]") && end == common::conn::BodyEnd::Whole, "cut: {body}");
    }
    let (mut answered, mut refused) = (0, 0);
    for reply in load.end().await {
        match reply {
            // 529 is how Anthropic's dialect says it.
            Some(reply) if [503, 529].contains(&reply.status()) => {
                assert_eq!(reply.header("x-should-retry"), Some("true"));
                assert_eq!(reply.header("connection"), Some("close"));
                assert!(reply.header("retry-after").is_some());
                refused += 1;
            }
            Some(reply) => {
                reply.assert_answered();
                answered += 1;
            }
            // The connection was idle when it was closed: no call was lost.
            None => {}
        }
    }
    assert!(answered >= 30 && refused >= 1, "{answered} answered, {refused} refused");
    let connecting = tokio::net::TcpStream::connect(server.address).await;
    assert!(connecting.is_err(), "nothing listens any more");
    assert_eq!(server.events("stop").len(), 1);
    assert!(server.events("call").len() >= answered, "every call is in the log");
}

#[tokio::test]
async fn a_drain_that_takes_too_long_ends_with_a_failure_and_says_so() {
    let a = fake("alpha").await;
    a.set_fault("*", plan("hang")).unwrap();
    let mut server = Server::start(&(config(&a, &["main"]) + "[server]\ndrain_timeout = \"500ms\"\n")).await;
    let mut conn = Conn::open(server.address).await;
    conn.write(&Ask::chat("main", "for ever").bytes()).await.unwrap();
    until("it is in flight", || a.count() == 1).await;
    server.signal("TERM");
    let exit = server.exit().await;
    assert_eq!(exit.code(), Some(1), "{}", server.log_text());
    let stop = server.until_events("stop", 1).await;
    assert_eq!(field(&stop[0], "level"), "warn");
    let calls = server.until_events("call", 1).await;
    assert_eq!(field(&calls[0], "outcome"), "cancelled", "what is cut is settled all the same");
    assert!(conn.head().await.is_none(), "there was nothing to say");
}

#[tokio::test]
async fn a_config_that_is_broken_at_the_start_is_refused_with_all_its_errors_and_exit_code_78() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("outlast.toml"), "[routes.main]\ntargets = [\"a/m\"]\n[sever]\n").unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_outlast"));
    let output = command.arg("serve").current_dir(folder.path()).env_remove("OUTLAST_CONFIG").output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("sever") && told.contains("\"a\""), "{told}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_with_a_remedy_and_exit_code_69() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let a = fake("alpha").await;
    let config = config(&a, &["main"]) + &format!("[server]\nlisten = \"{address}\"\n");
    std::fs::write(folder.path().join("outlast.toml"), config).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_outlast"));
    let output = command.arg("serve").current_dir(folder.path()).env_remove("OUTLAST_CONFIG").output().unwrap();
    assert_eq!(output.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&output.stderr).contains("server.listen"));
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_no_call_and_no_stop() {
    let a = fake("alpha").await;
    let mut server = Server::start_unread(&config(&a, &["main"])).await;
    // A line is more than half a kilobyte, and a pipe holds 64.
    let load = Load::start(server.address, 4);
    load.more(600).await;
    for reply in load.end().await {
        reply.expect("no connection is cut").assert_answered();
    }
    server.signal("TERM");
    assert_eq!(server.exit().await.code(), Some(1), "what was not written is not called a success");
}

/// What an idle connection may cost the server, beside the process itself.
const RESIDENT_PER_CONNECTION: u64 = 24 << 10;
const RESIDENT_IDLE: u64 = 45 << 20;

/// How many files this process may open: its share of the limit, or less where the limit is low.
fn descriptors() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("Linux tells");
    line.split_whitespace().nth(3).and_then(|soft| soft.parse().ok()).unwrap_or(usize::MAX)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_cost_little_memory_and_nobody_else_anything() {
    let a = fake("alpha").await;
    let server = Server::start(&(config(&a, &["main"]) + "[server]\nheader_timeout = \"120s\"\n")).await;
    let wanted = 10_000.min(descriptors().saturating_sub(200));
    if wanted < 10_000 {
        eprintln!("only {wanted} connections: this process may open no more files");
    }
    Ask::chat("main", "warm up").send(server.address).await.assert_answered();
    let before = server.resident();
    // Half have asked something and are kept open, half have never said a word.
    let mut idle = Vec::with_capacity(wanted);
    let connecting = async {
        while idle.len() < wanted {
            let mut conn = Conn::open(server.address).await;
            if idle.len() % 2 == 0 {
                assert_eq!(Ask::get("/healthz").send_over(&mut conn).await.unwrap().status(), 200);
            }
            idle.push(conn);
        }
    };
    tokio::time::timeout(GUARD, connecting).await.expect("they connect in time");
    let metrics = common::until_some("all are accepted", async || {
        let metrics = Ask::get("/metrics").send(server.address).await.text();
        let line = metrics.lines().find(|line| line.starts_with("outlast_connections "))?.to_owned();
        let accepted: f64 = line.rsplit(' ').next()?.parse().ok()?;
        (accepted as usize >= wanted).then_some(metrics)
    })
    .await;
    assert!(!metrics.is_empty());
    for _ in 0..20 {
        Ask::chat("main", "in between").send(server.address).await.assert_answered();
    }
    let resident = server.resident();
    let allowed = RESIDENT_IDLE + RESIDENT_PER_CONNECTION * wanted as u64;
    eprintln!(
        "{wanted} idle connections: {} MiB resident, {} bytes each",
        resident >> 20,
        resident.saturating_sub(before) / wanted as u64
    );
    assert!(resident < allowed, "{} MiB resident, {} allowed", resident >> 20, allowed >> 20);
    drop(idle);
    Ask::chat("main", "afterwards").send(server.address).await.assert_answered();
}
