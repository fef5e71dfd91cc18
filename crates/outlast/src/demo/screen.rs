//! The live view: redrawn in place on a terminal of 80 columns, a line a second elsewhere.

use super::{
    script::Script,
    tally::{Counts, Tally, is_out},
    world::World,
};
use crate::cli::process_env;
use outlast_engine::{TargetState, TargetView};
use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
    time::Duration,
};

/// What one frame shows.
pub(super) struct View<'a> {
    pub(super) script: &'a Script,
    pub(super) phase: usize,
    pub(super) left: Duration,
    pub(super) elapsed: Duration,
    pub(super) targets: &'a [TargetView],
    pub(super) tally: &'a Tally,
}

/// Where it is shown.
pub(super) struct Screen {
    live: bool,
    paint: Paint,
    /// Lines of the frame that stands on the terminal.
    drawn: usize,
}

impl Screen {
    /// Live on a terminal, unless plain lines are wanted.
    pub(super) fn open(plain: bool) -> Self {
        let dumb = process_env("TERM").is_some_and(|term| term == "dumb");
        let live = !plain && !dumb && io::stdout().is_terminal();
        let colour = live && anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never;
        if live {
            put("\x1b[?25l");
        }
        Screen { live, paint: Paint(colour), drawn: 0 }
    }

    /// What is about to be seen.
    pub(super) fn intro(&self, world: &World, script: &Script) {
        put(&format!(
            "Three fake providers and a gateway on http://{}.\n\
             {} requests a second, OpenAI and Anthropic clients: streams, tools, JSON.\n\
             vendor-a serves first. Watch what its failures do to the clients.\n\
             To fit into a minute, breakers open for 1 s (default 5 s) and a healed target is\n\
             restored over 2 s (default 47.5 s).\n\n",
            world.address(),
            script.requests_per_second
        ));
    }

    /// A phase begins.
    pub(super) fn banner(&self, index: usize, script: &Script, elapsed: Duration) {
        if !self.live {
            let phase = script.phases[index];
            put(&format!("{:>3}s  == {}: {}\n", elapsed.as_secs(), phase.name, phase.story));
        }
    }

    /// A second is over.
    pub(super) fn second(&self, second: &Counts, tally: &Tally) {
        if self.live {
            return;
        }
        let counts = [
            (second.cut, "cut"),
            (second.lost, "LOST"),
            (second.failovers, "failovers"),
            (second.wasted, "wasted calls"),
        ];
        let mut line = format!("      {:>3} answered", second.answered);
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            let _ = write!(line, ", {count} {what}");
        }
        let shares = tally.targets.iter().filter_map(|target| {
            let share = target.history.back().copied().filter(|share| *share > 0.0)?;
            Some(format!("{} {:.0} %", target.id.provider(), share * 100.0))
        });
        put(&format!("{line}; {}\n", shares.collect::<Vec<_>>().join(", ")));
    }

    /// Redraws the frame, in one write, so that nothing flickers.
    pub(super) fn draw(&mut self, view: &View<'_>) {
        if !self.live {
            return;
        }
        let lines = frame(view, self.paint);
        let mut out = String::from("\x1b[?2026h");
        if self.drawn > 0 {
            let _ = write!(out, "\x1b[{}A", self.drawn);
        }
        for line in &lines {
            let _ = write!(out, "\r{line}\x1b[K\n");
        }
        out.push_str("\x1b[?2026l");
        self.drawn = lines.len();
        put(&out);
    }

    /// Gives the terminal back; the last frame stays.
    pub(super) fn close(&mut self) {
        if self.live {
            self.live = false;
            put("\x1b[?25h\n");
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.close();
    }
}

/// A closed pipe ends the view, not the demo.
fn put(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Colours, or none.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    fn warn(self, text: &str) -> String {
        self.with("33", text)
    }

    fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    fn strong(self, text: &str) -> String {
        self.with("1", text)
    }

    fn faint(self, text: &str) -> String {
        self.with("2", text)
    }
}

fn frame(view: &View<'_>, paint: Paint) -> Vec<String> {
    let phase = view.script.phases[view.phase];
    let banner = format!(" {:<11}{}", phase.name, phase.story);
    let banner = match phase.fault {
        Some(_) => paint.bad(&banner),
        None => paint.good(&banner),
    };
    let mut lines = vec![
        paint.strong(&format!(
            " phase {:>2} of {}   {:>2} s left   {:>3} s since the start",
            view.phase + 1,
            view.script.phases.len(),
            view.left.as_secs_f64().ceil(),
            view.elapsed.as_secs()
        )),
        banner,
        String::new(),
        paint.faint(" target           state        traffic                            ttft   errors"),
    ];
    lines.extend(view.targets.iter().enumerate().map(|(index, target)| target_line(index, target, view.tally, paint)));
    let (second, total) = (&view.tally.last_second, view.tally.total());
    lines.push(String::new());
    lines.push(paint.faint("              answered    cut    lost   failovers  wasted calls"));
    lines.push(counts_line("last second", second, paint));
    lines.push(counts_line("all", &total, paint));
    lines
}

fn target_line(index: usize, target: &TargetView, tally: &Tally, paint: Paint) -> String {
    let state = match target.state {
        _ if target.limited_for.is_some() => "rate limit".to_owned(),
        TargetState::Closed => "closed".to_owned(),
        TargetState::Open => "open".to_owned(),
        TargetState::HalfOpen => "half-open".to_owned(),
        TargetState::Restoring { share } => format!("back {:.0} %", share * 100.0),
        TargetState::Retired => "retired".to_owned(),
    };
    let state = format!("{state:<12}");
    let state = match target.state {
        _ if is_out(target) => paint.bad(&state),
        TargetState::Restoring { .. } => paint.warn(&state),
        TargetState::Closed | TargetState::Open | TargetState::HalfOpen | TargetState::Retired => paint.good(&state),
    };
    let ttft = target.first_output.map_or("-".into(), |[p50, ..]| format!("{} ms", p50.as_millis()));
    let bars: String = tally
        .targets
        .get(index)
        .map_or_else(String::new, |target| target.history.iter().map(|share| bar(*share)).collect());
    format!(
        " {:<17}{state} {:>3.0} %  {bars:<24} {ttft:>8} {:>8}",
        target.id.as_str(),
        tally.share(index) * 100.0,
        target.faults + target.rate_limits
    )
}

fn bar(share: f64) -> char {
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    BARS[((share * 8.0).ceil() as usize).min(8)]
}

fn counts_line(name: &str, counts: &Counts, paint: Paint) -> String {
    let flagged = |count: u64, width: usize| {
        let text = format!("{count:>width$}");
        if count > 0 { paint.bad(&text) } else { text }
    };
    let cut = format!("{:>7}", counts.cut);
    let cut = if counts.cut > 0 { paint.warn(&cut) } else { cut };
    format!(
        " {name:<13}{}{cut}{}{:>12}{:>14}",
        paint.good(&format!("{:>8}", counts.answered)),
        flagged(counts.lost, 8),
        counts.failovers,
        counts.wasted
    )
}
