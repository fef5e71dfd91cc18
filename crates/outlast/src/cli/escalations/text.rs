//! An escalation for a person's eyes. It quotes strangers: nothing in it may steer the terminal.

use super::super::readable;
use serde_json::Value;
use std::fmt::Write;

/// The longest payload that is printed of each step of a journal, in characters.
const STEP_MAX: usize = 100;

fn word(value: &Value) -> String {
    match value.as_str() {
        Some(text) => readable(text),
        None if value.is_null() => String::new(),
        None => readable(&value.to_string()),
    }
}

/// A list. Questions are cut: they may quote a whole request.
pub(super) fn table(all: &Value) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["ID", "OPENED", "KIND", "STATE", "OF", "QUESTION"]);
    for one in all.as_array().into_iter().flatten() {
        let of = ["run", "route", "effect"].iter().map(|name| word(&one[name])).find(|of| !of.is_empty());
        let state = one["verb"].as_str().unwrap_or("open").to_owned();
        let question: String = word(&one["question"]).replace('\n', " ").chars().take(60).collect();
        table.add_row([
            word(&one["id"]),
            word(&one["opened_at"]),
            word(&one["kind"]),
            state,
            of.unwrap_or_default(),
            question,
        ]);
    }
    format!("{table}\n")
}

/// One, with all there is to decide it by.
pub(super) fn whole(one: &Value) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}  {}  {}", word(&one["id"]), word(&one["kind"]), word(&one["state"]));
    for name in ["run", "step", "effect", "route", "request_id", "failure", "opened_at", "answer_by", "attempts"] {
        let value = word(&one[name]);
        if !value.is_empty() {
            let _ = writeln!(text, "{name}: {value}");
        }
    }
    text.push('\n');
    for line in word(&one["question"]).lines() {
        let _ = writeln!(text, "  {line}");
    }
    section(&mut text, "context", &one["context"]);
    let lineage = &one["lineage"];
    effect(&mut text, &lineage["effect"]);
    journal(&mut text, lineage);
    if !one["decision"].is_null() {
        section(&mut text, "decision", &one["decision"]);
    }
    choices(&mut text, one);
    text
}

fn section(text: &mut String, name: &str, value: &Value) {
    if !value.is_null() {
        let _ = writeln!(text, "\n{name}:\n{}", readable(&format!("{value:#}")));
    }
}

fn effect(text: &mut String, effect: &Value) {
    if effect.is_null() {
        return;
    }
    let class = effect["class"].as_str().map(readable).unwrap_or_else(|| word(&effect["class"]));
    let _ = writeln!(
        text,
        "\nwhat waits: {} ({}), {class}, {}, {} attempts, {} verifications without an answer",
        word(&effect["name"]),
        word(&effect["key"]),
        word(&effect["state"]),
        word(&effect["attempts"]),
        word(&effect["verifications"]),
    );
    for name in ["input", "output", "last_error", "error", "result"] {
        section(text, name, &effect[name]);
    }
}

fn journal(text: &mut String, lineage: &Value) {
    let run = &lineage["run"];
    if run.is_null() {
        return;
    }
    let _ = writeln!(
        text,
        "\nrun {}: {} version {}, {}, {} steps, ${} spent",
        word(&run["id"]),
        word(&run["workflow"]),
        word(&run["version"]),
        word(&run["state"]),
        word(&run["steps"]),
        word(&run["spent_usd"]),
    );
    for step in lineage["journal"].as_array().into_iter().flatten() {
        let came_of = ["result", "error", "last_error", "output"].iter().map(|name| word(&step[name]));
        let came_of: String =
            came_of.filter(|text| !text.is_empty()).collect::<String>().chars().take(STEP_MAX).collect();
        let _ = writeln!(text, "  {}  {}  {came_of}", word(&step["key"]), word(&step["state"]));
    }
    for before in lineage["earlier"].as_array().into_iter().flatten() {
        let decision = &before["decision"];
        let how = if decision.is_null() {
            "open".to_owned()
        } else {
            format!("{} by {}", word(&decision["verb"]), word(&decision["by"]))
        };
        let _ = writeln!(text, "  earlier: {} {}: {how}", word(&before["id"]), word(&before["kind"]));
    }
}

fn choices(text: &mut String, one: &Value) {
    if one["state"] != "open" {
        return;
    }
    text.push_str("\nchoices:\n");
    for verb in one["choices"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let takes = match one["takes"][verb].as_str() {
            Some("output") => "--output JSON",
            Some("arguments") => "--arguments JSON",
            Some("result") => "--result JSON",
            Some(_) => "--target PROVIDER/MODEL or --tool NAME",
            None => "",
        };
        let _ = writeln!(text, "  {verb:<10}{takes}");
    }
    let _ = writeln!(text, "shown: {}", word(&one["shown"]));
}
