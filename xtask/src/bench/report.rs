//! The benchmark's table and JSON.

use super::median;
use std::{fmt::Write, fs, path::Path};

/// What a figure must not cross.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bar {
    /// The smaller the better.
    AtMost(f64),
    /// The larger the better.
    AtLeast(f64),
}

impl Bar {
    fn holds(self, value: f64) -> bool {
        match self {
            Bar::AtMost(bar) => value <= bar,
            Bar::AtLeast(bar) => value >= bar,
        }
    }

    fn text(self, unit: &str) -> String {
        match self {
            Bar::AtMost(bar) => format!("<= {bar}{unit}"),
            Bar::AtLeast(bar) => format!(">= {bar}{unit}"),
        }
    }
}

/// One line of the table.
pub(crate) struct Row {
    name: &'static str,
    unit: &'static str,
    proxy: f64,
    gateway: f64,
    /// The rounds' ratios; empty when the absolute figure is judged.
    ratios: Vec<f64>,
    bar: Bar,
}

impl Row {
    /// Judged by the median of the rounds' ratios gateway / proxy.
    pub(crate) fn ratio(name: &'static str, unit: &'static str, rounds: Vec<(f64, f64)>, bar: Bar) -> Self {
        let (proxies, gateways): (Vec<f64>, Vec<f64>) = rounds.iter().copied().unzip();
        let ratios = rounds.iter().map(|(proxy, gateway)| gateway / proxy).collect();
        Self { name, unit, proxy: median(proxies), gateway: median(gateways), ratios, bar }
    }

    /// Judged by the gateway's own figure.
    pub(crate) fn absolute(name: &'static str, unit: &'static str, proxy: f64, gateway: f64, bar: Bar) -> Self {
        Self { name, unit, proxy, gateway, ratios: Vec::new(), bar }
    }

    fn judged(&self) -> f64 {
        if self.ratios.is_empty() { self.gateway } else { median(self.ratios.clone()) }
    }

    fn bar(&self) -> String {
        if self.ratios.is_empty() { self.bar.text(&format!(" {}", self.unit)) } else { self.bar.text("x") }
    }

    fn ratio_text(&self) -> String {
        if self.ratios.is_empty() { String::new() } else { format!("{:.2}x", self.judged()) }
    }

    fn verdict(&self) -> &'static str {
        if self.bar.holds(self.judged()) { "held" } else { "MISSED" }
    }
}

/// All lines.
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// An empty report.
    pub(crate) fn new() -> Self {
        Self { rows: Vec::new() }
    }

    /// Adds lines.
    pub(crate) fn push_all(&mut self, rows: Vec<Row>) {
        self.rows.extend(rows);
    }

    /// A Markdown table that also reads well in a terminal.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "| {:<35} | {:>12} | {:>12} | {:>7} | {:>8} | {:<6} |",
            "figure", "bare proxy", "gateway", "ratio", "bar", ""
        );
        let _ =
            writeln!(text, "|:{:-<35}-|-{:->11}-:|-{:->11}-:|-{:->6}-:|-{:->7}-:|:{:-<6}-|", "", "", "", "", "", "");
        for row in &self.rows {
            let figure = |value: f64| format!("{} {}", significant(value), row.unit);
            let _ = writeln!(
                text,
                "| {:<35} | {:>12} | {:>12} | {:>7} | {:>8} | {:<6} |",
                row.name,
                figure(row.proxy),
                figure(row.gateway),
                row.ratio_text(),
                row.bar(),
                row.verdict()
            );
        }
        text
    }

    /// The same for programs, each round's ratio included.
    pub(crate) fn json(&self) -> String {
        let rows: Vec<serde_json::Value> = self
            .rows
            .iter()
            .map(|row| {
                serde_json::json!({
                    "figure": row.name, "unit": row.unit, "proxy": row.proxy, "gateway": row.gateway,
                    "ratios": row.ratios, "judged": row.judged(), "bar": row.bar(), "held": row.bar.holds(row.judged()),
                })
            })
            .collect();
        serde_json::json!({ "machine": "2 cores", "rows": rows }).to_string()
    }
}

/// About three significant digits.
fn significant(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

const BEGIN: &str = "<!-- bench table -->\n";
const END: &str = "<!-- end of bench table -->";

/// Puts the table into the page, between its two markers.
///
/// # Errors
/// The page or one of its markers is missing.
pub(crate) fn record(page: &Path, table: &str) -> Result<(), String> {
    record_between(page, table, BEGIN, END)
}

/// Puts a table into a page, between these markers.
///
/// # Errors
/// The page or one of the markers is missing.
pub(crate) fn record_between(page: &Path, table: &str, begin: &str, end: &str) -> Result<(), String> {
    let text = fs::read_to_string(page).map_err(|error| format!("{}: {error}", page.display()))?;
    let missing = |marker: &str| format!("{}: no {}", page.display(), marker.trim());
    let (before, rest) = text.split_once(begin).ok_or_else(|| missing(begin))?;
    let (_, after) = rest.split_once(end).ok_or_else(|| missing(end))?;
    fs::write(page, format!("{before}{begin}{table}{end}{after}"))
        .map_err(|error| format!("{}: {error}", page.display()))
}
