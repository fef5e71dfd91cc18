//! What is printed at the end.

use super::{
    script::Script,
    stage::Scene,
    tally::{Counts, PhaseTally, Tally},
    world::{PRIMARY, ROUTE, World},
};
use std::{fmt::Write as _, time::Duration};

/// What to try after the demo.
pub(super) const NEXT: &str = "\nTry next:\n\
    \x20 outlast demo --serve       the same, left running for curl and the SDKs\n\
    \x20 outlast fake --help        the provider that fails on demand\n\
    \x20 OPENAI_API_KEY=... ANTHROPIC_API_KEY=... outlast serve\n\
    \x20                            the gateway with your own providers: point an SDK's\n\
    \x20                            base URL at http://127.0.0.1:8080\n";

/// A line a phase.
pub(super) fn table(script: &Script, tally: &Tally) -> String {
    let mut out = String::from(
        "\n                                         fail- wasted  calls/    ms    ms\n\
         phase      requests answered  cut lost  overs  calls request   p50   p99 reacted\n",
    );
    for (phase, counted) in script.phases.iter().zip(&tally.phases) {
        if counted.counts.requests() > 0 {
            let _ = writeln!(out, "{}", line(phase.name, &counted.counts, &reacted(counted)));
        }
    }
    let _ = writeln!(out, "{}", line("all", &tally.total(), ""));
    out.push_str(
        "\nreacted: until the failing target was out, or until the healed one answered.\n\
         cut: part of a stream had been shown when its provider failed; it ended in a\n\
         typed error event, which the SDKs raise, not in silence.\n",
    );
    let trimmed: Vec<&str> = out.lines().map(str::trim_end).collect();
    trimmed.join("\n") + "\n"
}

fn line(name: &str, counts: &Counts, reacted: &str) -> String {
    let millis = |time: Option<Duration>| time.map_or("-".into(), |time| time.as_millis().to_string());
    let per_request = if counts.settled == 0 { 0.0 } else { counts.attempts as f64 / counts.settled as f64 };
    format!(
        "{name:<10} {:>8} {:>8} {:>4} {:>4} {:>6} {:>6} {per_request:>7.2} {:>5} {:>5} {reacted:>7}",
        counts.requests(),
        counts.answered,
        counts.cut,
        counts.lost,
        counts.failovers,
        counts.wasted,
        millis(counts.percentile(0.5)),
        millis(counts.percentile(0.99)),
    )
}

fn reacted(phase: &PhaseTally) -> String {
    phase.reacted.map_or_else(String::new, |time| format!("{:.1} s", time.as_secs_f64()))
}

/// The verdict, and the first losses if there were any.
pub(super) fn lost(tally: &Tally) -> String {
    let total = tally.total();
    if total.lost == 0 {
        return format!("\nNo request of {} was lost.\n", total.requests());
    }
    let mut out = format!("\n{} of {} requests were LOST. The first:\n", total.lost, total.requests());
    for loss in tally.losses() {
        let _ = writeln!(out, "  {loss}");
    }
    out
}

/// A line a scene, wrapped.
pub(super) fn scenes(title: &str, scenes: &[Scene]) -> String {
    const INDENT: usize = 18;
    let mut out = format!("\n{title}:\n");
    for scene in scenes {
        let seen = match &scene.seen {
            Ok(seen) => seen.clone(),
            Err(why) => format!("NOT as promised: {why}"),
        };
        let mut line = format!("  {:<width$}", scene.name, width = INDENT - 2);
        for word in seen.split(' ') {
            if line.chars().count() + word.chars().count() >= 79 {
                let _ = writeln!(out, "{}", line.trim_end());
                line = " ".repeat(INDENT);
            }
            line += word;
            line.push(' ');
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// How to use what `--serve` leaves running.
pub(super) fn served(world: &World) -> String {
    let (gateway, primary, file) = (world.address(), world.primary_url(), world.home().join("telemetry.db"));
    format!(
        r#"Three fake providers and a gateway on http://{gateway}. Ctrl-C ends them.

Ask, as an OpenAI client and as an Anthropic one:
  curl -s http://{gateway}/v1/chat/completions -H 'content-type: application/json' \
    -d '{{"model": "{ROUTE}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
  curl -sN http://{gateway}/v1/messages -H 'content-type: application/json' \
    -d '{{"model": "{ROUTE}", "max_tokens": 100, "stream": true, "messages": [{{"role": "user", "content": "Hello"}}]}}'

With an SDK: base URL http://{gateway}/v1 (OpenAI) or http://{gateway} (Anthropic), any key, model "{ROUTE}".

Break {PRIMARY}, ask again, and heal it:
  curl -s {primary}/fake/faults -d '{{"plan": "503"}}'
  curl -s -X DELETE {primary}/fake/faults
  (more faults: hang, 429:retry-after=5, cut:after=10,how=reset, stall:after=40, 500:share=0.25)

See what happened: curl -i shows x-outlast-request-id, -target and -attempts; then
  curl -s http://{gateway}/v1/requests/REQUEST_ID
  curl -s http://{gateway}/metrics
  sqlite3 -readonly {file} 'SELECT request_id, first_failure, served_by FROM calls'
"#,
        file = file.display()
    )
}
