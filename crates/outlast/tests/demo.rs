//! The demo as a stranger runs it.

use std::process::{Command, Output};

/// The script for tests has three of the faults, for a shorter time.
fn demo(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_outlast")).arg("demo").args(args).env_clear().output().unwrap()
}

#[test]
fn the_demo_loses_no_request_and_says_so() {
    let output = demo(&["--once", "--fast"]);
    let transcript = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{}\n{transcript}\n{errors}", output.status);
    assert_eq!(errors, "");
    assert!(transcript.contains(" was lost.") && transcript.contains("Try next:"), "{transcript}");
    let wide: Vec<&str> = transcript.lines().filter(|line| line.chars().count() > 80).collect();
    assert_eq!(wide, [""; 0]);

    let rows = rows(&transcript);
    let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["healthy", "503", "healed", "cut early", "healed", "hang", "healed", "all"], "{transcript}");
    for row in &rows {
        assert!(row.requests > 20, "{transcript}");
        assert_eq!((row.lost, row.answered + row.cut), (0, row.requests), "{}\n{transcript}", row.name);
    }
    let lesser: Vec<&str> = transcript.lines().skip_while(|line| !line.starts_with("When there is less")).collect();
    for scene in ["other fields", "slip of form", "false citation", "no tools", "all down"] {
        assert!(lesser.iter().any(|line| line.trim_start().starts_with(scene)), "{scene}\n{transcript}");
    }
    assert!(!transcript.contains("NOT as promised"), "{transcript}");
    let total = rows.last().unwrap();
    assert_eq!(total.requests, rows[..rows.len() - 1].iter().map(|row| row.requests).sum::<u64>());
    for outage in ["503", "hang"] {
        let row = rows.iter().find(|row| row.name == outage).unwrap();
        assert!(row.failovers > 0, "nothing failed over during {outage}\n{transcript}");
    }
}

#[test]
fn contradicting_arguments_are_refused() {
    assert_eq!(demo(&["--once", "--serve"]).status.code(), Some(2));
}

struct Row {
    name: String,
    requests: u64,
    answered: u64,
    cut: u64,
    lost: u64,
    failovers: u64,
}

/// The lines of the table: a name of 10 characters, then numbers.
fn rows(transcript: &str) -> Vec<Row> {
    let table = transcript.lines().skip_while(|line| !line.starts_with("phase ")).skip(1);
    table
        .take_while(|line| !line.is_empty())
        .map(|line| {
            let (name, numbers) = line.split_at(10);
            let mut numbers = numbers.split_whitespace().map(|number| number.parse::<f64>().unwrap_or(0.0) as u64);
            let mut next = || numbers.next().unwrap();
            let [requests, answered, cut, lost, failovers] = [next(), next(), next(), next(), next()];
            Row { name: name.trim().into(), requests, answered, cut, lost, failovers }
        })
        .collect()
}
