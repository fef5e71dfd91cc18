//! Telemetry as a whole: what is kept, told, counted and lost.

use super::{
    LogEvent, LogFields, Telemetry, TelemetryOptions, client_text,
    fixture::{Log, NOW, failed, options, plain, rerouted},
    sink::Shared,
    writer::Writer,
};
use crate::clock::Clock;
use outlast_model::{Mono, RouteId, TargetId, Wall};
use outlast_store::telemetry::{CallFilter, TelemetryReader};
use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Write},
    mem,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

const LONG: Duration = Duration::from_secs(30);

#[test]
fn a_call_is_found_at_once_and_after_shutdown_it_is_in_the_file_and_the_log() {
    let home = tempfile::tempdir().unwrap();
    let log = Log::default();
    let file = home.path().join("telemetry.db");
    let telemetry = start(TelemetryOptions { file: Some(file.clone()), sample: 1.0, ..options() }, &log);
    for call in [plain("req_1"), rerouted("req_2"), failed("req_3")] {
        let id = call.request_id.clone();
        telemetry.record(call, LogFields { status: 200, ..LogFields::default() });
        assert!(telemetry.find(id.as_str()).is_some());
    }
    assert!(telemetry.find("req_4").is_none());
    assert!(telemetry.shutdown(LONG));
    assert!(telemetry.shutdown(LONG), "a second shutdown is nothing");

    assert_eq!(kept(&file), ["req_1", "req_2", "req_3"]);
    let ids: Vec<_> = log.lines().iter().map(|line| line["request_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, ["req_1", "req_2", "req_3"]);
}

#[tokio::test]
async fn a_call_that_left_the_ring_is_read_from_the_file() {
    let home = tempfile::tempdir().unwrap();
    let options = TelemetryOptions { file: Some(home.path().join("telemetry.db")), ring_calls: 2, ..options() };
    let telemetry = start(options, &Log::default());
    for n in 0..5 {
        telemetry.record(rerouted(&format!("req_{n}")), LogFields::default());
    }
    assert!(telemetry.find("req_0").is_none());
    assert_eq!(telemetry.latest(10).len(), 2);
    assert!(telemetry.shutdown(LONG));
    assert_eq!(telemetry.lookup("req_0").await.unwrap(), Some(rerouted("req_0")));
    assert_eq!(telemetry.lookup("req_4").await.unwrap(), Some(rerouted("req_4")));
    assert_eq!(telemetry.lookup("req_9").await.unwrap(), None);
    assert_eq!(telemetry.stored(CallFilter::default(), 3).await.unwrap().len(), 3);
}

#[test]
fn plain_calls_are_sampled_and_all_are_counted() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("telemetry.db");
    let telemetry = start(TelemetryOptions { file: Some(file.clone()), sample: 0.1, ..options() }, &Log::default());
    install(&telemetry);
    for n in 0..100 {
        telemetry.record(plain(&format!("req_plain_{n}")), LogFields::default());
        telemetry.record(rerouted(&format!("req_rerouted_{n}")), LogFields::default());
    }
    assert!(telemetry.shutdown(LONG));
    let kept = kept(&file);
    assert_eq!(kept.iter().filter(|id| id.starts_with("req_rerouted")).count(), 100);
    assert_eq!(kept.iter().filter(|id| id.starts_with("req_plain")).count(), 10);
    let counters = TelemetryReader::open(&file).unwrap().counters(Wall(0)).unwrap();
    let calls: Vec<_> = counters.iter().map(|row| (row.target.as_str(), row.counts.calls)).collect();
    assert_eq!(calls, [("anthropic/large", 100), ("openai/small", 100)]);
}

/// The promise: at most a second is lost in a crash. Whenever the process dies, what was recorded a second before is
/// in the file, at any rate of calls.
#[test]
fn dying_at_any_moment_loses_less_than_a_second() {
    for every_millis in [1, 7, 130, 400, 900] {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("telemetry.db");
        let options = TelemetryOptions { file: Some(file.clone()), ..options() };
        let shared = Arc::new(Shared::new(&options, Clock::seeded(1)));
        let mut writer = Writer::open(&options, Arc::clone(&shared), Box::new(Log::default())).unwrap();
        let mut due = VecDeque::new();
        for millis in 0..4000u64 {
            if millis % every_millis == 0 {
                let id = format!("req_{millis}");
                shared.push(super::sink::Item::Call(super::fixture::recorded(rerouted(&id))));
                due.push_back((millis, id));
            }
            // The writer looks every 50 ms.
            if millis % 50 == 49 {
                writer.turn(Mono::from_millis(millis), Wall(NOW.0 + millis as i64));
            }
            if millis % 500 == 250 {
                let reader = TelemetryReader::open(&file).unwrap();
                while let Some((_, id)) = due.pop_front_if(|(at, _)| *at + 1000 <= millis) {
                    let kept = reader.get(&id).unwrap();
                    assert!(kept.is_some(), "{id} missing at {millis}, every {every_millis}");
                }
            }
        }
        mem::forget(writer);
    }
}

/// The same with a real process and a real kill.
#[test]
fn a_killed_process_loses_less_than_a_second() {
    const CHILD: &str = "OUTLAST_TEST_TELEMETRY_CHILD";
    if let Ok(file) = std::env::var(CHILD) {
        let telemetry = start(TelemetryOptions { file: Some(file.into()), ..options() }, &Log::default());
        let clock = Clock::start();
        for n in 0.. {
            let now = clock.mono().as_nanos() / 1_000_000;
            telemetry.record(rerouted(&format!("req_{n}")), LogFields::default());
            println!("recorded req_{n} {now}");
            thread::park_timeout(Duration::from_millis(2));
        }
    }
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("telemetry.db");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "telemetry::tests::a_killed_process_loses_less_than_a_second"])
        .env(CHILD, &file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut records: Vec<(u64, String)> = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let mut words = line.split(' ').skip_while(|word| !word.ends_with("recorded")).skip(1);
        if let (Some(id), Some(millis)) = (words.next(), words.next()) {
            records.push((millis.parse().unwrap(), id.to_owned()));
        }
        if records.last().is_some_and(|(millis, _)| *millis > 1700) {
            child.kill().unwrap();
            break;
        }
    }
    child.wait().unwrap();
    let died_at = records.last().unwrap().0;
    let due: Vec<_> = records.iter().filter(|(at, _)| at + 1000 <= died_at).collect();
    assert!(due.len() > 10, "the child recorded too little to tell");
    let reader = TelemetryReader::open(&file).unwrap();
    assert!(due.iter().all(|(_, id)| reader.get(id).unwrap().is_some()));
}

#[test]
fn a_log_that_hangs_blocks_nobody_and_every_call_is_still_counted() {
    let (open, gate) = mpsc::channel();
    let telemetry = Telemetry::start_with(options(), Clock::seeded(1), Box::new(Gate(gate))).unwrap();
    install(&telemetry);
    for n in 0..20_000 {
        telemetry.record(plain(&format!("req_{n}")), LogFields::default());
    }
    let text = telemetry.expose(&[]);
    let calls = "outlast_calls_total{route=\"support\",target=\"openai/small\",outcome=\"answered\"} 20000";
    assert!(text.contains(calls), "{text}");
    let dropped = telemetry.metrics().lines_dropped.get();
    assert!(dropped > 0 && dropped < 20_000, "{dropped}");
    assert!(telemetry.find("req_19999").is_some());
    assert!(!telemetry.shutdown(Duration::from_millis(1)), "the log still hangs");
    drop(open);
    assert!(telemetry.shutdown(LONG));
}

#[test]
fn a_file_damaged_while_in_use_is_set_aside_and_telemetry_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("telemetry.db");
    let options = TelemetryOptions { file: Some(file.clone()), ..options() };
    let log = Log::default();
    let shared = Arc::new(Shared::new(&options, Clock::seeded(1)));
    let mut writer = Writer::open(&options, Arc::clone(&shared), Box::new(log.clone())).unwrap();
    let mut at = 0;
    let mut record = |writer: &mut Writer, id: &str| {
        shared.push(super::sink::Item::Call(super::fixture::recorded(rerouted(id))));
        for _ in 0..30 {
            at += 50;
            writer.turn(Mono::from_millis(at), NOW);
        }
    };
    record(&mut writer, "req_before");
    writer.replace("database disk image is malformed".into(), Mono::from_millis(2000), NOW);
    record(&mut writer, "req_after");

    assert_eq!(kept(&file), ["req_after"]);
    let events: Vec<_> = log.lines().into_iter().filter(|line| line["event"] == "telemetry_trouble").collect();
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(Path::new(events[0]["moved_to"].as_str().unwrap()).exists());
    assert_eq!(shared.metrics.file_errors.get(), 1);
}

#[test]
fn no_secret_given_to_any_part_comes_out_anywhere() {
    // Prompts, answers and keys have no field to travel in; what a client can put into the others is cut to names.
    let prompt = "Patient Jane Doe\u{1b}[31m, born 1980-01-01,\nneeds ".repeat(40);
    let mut call = rerouted("req_1");
    call.task_id = client_text(&prompt);
    call.route = RouteId::new(prompt.as_str());
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("telemetry.db");
    for human in [false, true] {
        let log = Log::default();
        let mut options = TelemetryOptions { file: Some(file.clone()), ..options() };
        options.log.human = human;
        let telemetry = start(options, &log);
        install(&telemetry);
        telemetry.record(call.clone(), LogFields { status: 200, ..LogFields::default() });
        telemetry.event(LogEvent::info("start", "listening").with("listen", "127.0.0.1:8080"));
        assert!(!telemetry.expose(&[]).contains("Jane"), "a client's text is not a label");
        assert!(telemetry.shutdown(LONG));
        let text = log.text();
        assert_eq!(text.lines().count(), 2, "a client's text cannot forge a line: {text}");
        assert!(!text.contains('\u{1b}'));
        assert!(text.len() < 2000);
    }
    let counters = TelemetryReader::open(&file).unwrap().counters(Wall(0)).unwrap();
    assert!(counters.iter().all(|row| row.route == "other"));
}

#[test]
fn client_text_is_short_and_printable() {
    assert_eq!(client_text("nightly \u{7}build\n"), Some("nightly build".into()));
    assert_eq!(client_text(" \n"), None);
    assert_eq!(client_text(&"x".repeat(500)).unwrap().len(), super::CLIENT_TEXT_MAX);
}

fn start(options: TelemetryOptions, log: &Log) -> Telemetry {
    Telemetry::start_with(options, Clock::seeded(1), Box::new(log.clone())).unwrap()
}

fn install(telemetry: &Telemetry) {
    let targets = [TargetId::from("openai/small"), TargetId::from("anthropic/large")];
    telemetry.metrics().install(&[RouteId::from("support")], &targets);
}

/// The ids in the file, oldest first.
fn kept(file: &Path) -> Vec<String> {
    let reader = TelemetryReader::open(file).unwrap();
    let calls = reader.recent(&CallFilter::default(), TelemetryReader::LIMIT_MAX).unwrap();
    calls.iter().rev().map(|call| call.request_id.to_string()).collect()
}

/// A log that takes nothing until its gate is dropped.
struct Gate(mpsc::Receiver<()>);

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
