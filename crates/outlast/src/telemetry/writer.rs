//! The writer thread: formats log lines, samples plain calls, commits batches. Its steps take the time as an
//! argument, so that the loss bound can be tested without a thread.

use super::{
    LogEvent, LogFormat, Recorded, TelemetryOptions, log,
    sink::{Item, Shared},
};
use crate::clock;
use outlast_model::{Mono, Wall};
use outlast_store::telemetry::{Counters, Feedback, OpenError, Opened, TelemetryFile, WriteError};
use std::{
    collections::VecDeque,
    io::Write,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// How long a record may wait for the writer to look.
const TICK: Duration = Duration::from_millis(50);
/// How long a record may wait for its commit. With [`TICK`] and the commit itself it stays below a second.
const COMMIT_WITHIN: Duration = Duration::from_millis(500);
/// So many records are committed without waiting.
const COMMIT_AT: usize = 256;
/// Records waiting for a file that refuses them. Beyond it the oldest are dropped, and that is counted.
const KEPT_MAX: usize = 4096;
/// Distinct counters waiting for a file that refuses them.
const COUNTERS_MAX: usize = 65_536;
/// How often retention is looked after.
const RETAIN_EVERY: Duration = Duration::from_secs(60);
/// How long a damaged file's successor must have lived before it may be replaced in turn.
const REPLACE_EVERY: Duration = Duration::from_secs(600);
/// The pause after a refused batch.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The writer's state.
pub(super) struct Writer {
    shared: Arc<Shared>,
    log: Box<dyn Write + Send>,
    format: LogFormat,
    file: Option<TelemetryFile>,
    sampler: Sampler,
    lines: Vec<Item>,
    text: Vec<u8>,
    kept: VecDeque<Arc<Recorded>>,
    counters: Counters,
    /// As `kept`, and with the same limit.
    ratings: VecDeque<Feedback>,
    /// When the oldest uncommitted record came.
    pending_since: Option<Mono>,
    not_before: Mono,
    retain_at: Mono,
    replaced_at: Option<Mono>,
    troubled: bool,
}

/// Runs the writer until it is told to close; then everything is written.
pub(super) fn run(mut writer: Writer) {
    loop {
        let closing = writer.shared.closing.load(Ordering::Acquire);
        let (now, wall) = (writer.shared.clock.mono(), writer.shared.clock.wall());
        let busy = writer.turn(now, wall);
        if closing {
            writer.commit(now, wall);
            return;
        }
        if busy {
            clock::park(TICK);
            continue;
        }
        writer.shared.asleep.store(true, Ordering::Release);
        if writer.shared.is_idle() && !writer.shared.closing.load(Ordering::Acquire) {
            clock::park(RETAIN_EVERY);
        }
        writer.shared.asleep.store(false, Ordering::Release);
    }
}

impl Writer {
    /// Opens the file, if there is to be one.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(super) fn open(
        options: &TelemetryOptions,
        shared: Arc<Shared>,
        log: Box<dyn Write + Send>,
    ) -> Result<Self, OpenError> {
        let file = match &options.file {
            Some(path) => {
                let (file, opened) = TelemetryFile::open(path, options.retention, shared.clock.wall())?;
                announce(&shared, opened);
                Some(file)
            }
            None => None,
        };
        Ok(Writer {
            shared,
            log,
            format: options.log,
            file,
            sampler: Sampler { share: options.sample.clamp(0.0, 1.0), due: 0.0 },
            lines: Vec::new(),
            text: Vec::new(),
            kept: VecDeque::new(),
            counters: Counters::default(),
            ratings: VecDeque::new(),
            pending_since: None,
            not_before: Mono::ZERO,
            retain_at: Mono::ZERO,
            replaced_at: None,
            troubled: false,
        })
    }

    /// Takes what came, writes the log, and commits what is due. True if there was anything or something still waits.
    pub(super) fn turn(&mut self, now: Mono, wall: Wall) -> bool {
        let mut lines = std::mem::take(&mut self.lines);
        let counters = self.shared.take(&mut lines);
        let came = !lines.is_empty() || !counters.is_empty();
        self.write_log(&lines);
        if self.file.is_some() {
            self.keep(&lines, counters);
        }
        lines.clear();
        self.lines = lines;

        let waits = !self.nothing_waits();
        let since = *self.pending_since.get_or_insert(now);
        if !waits {
            self.pending_since = None;
        } else if now >= self.not_before && (self.kept.len() >= COMMIT_AT || now.since(since) >= COMMIT_WITHIN) {
            self.commit(now, wall);
        }
        if now >= self.retain_at {
            self.retain(now, wall);
        }
        came || self.pending_since.is_some()
    }

    fn write_log(&mut self, lines: &[Item]) {
        for item in lines {
            match item {
                Item::Call(recorded) => log::write_call(&mut self.text, recorded, self.format),
                Item::Event(event) => log::write_event(&mut self.text, event, self.format, self.shared.clock.wall()),
                Item::Rated(_) => {}
            }
        }
        if !self.text.is_empty() {
            // Nowhere is left to complain to when the log itself is gone.
            if self.log.write_all(&self.text).and_then(|()| self.log.flush()).is_err() {
                self.shared.metrics.lines_dropped.add(lines.len() as u64);
            }
            self.text.clear();
            self.text.shrink_to(1 << 20);
        }
    }

    fn keep(&mut self, lines: &[Item], counters: Counters) {
        for item in lines {
            match item {
                Item::Call(recorded) if !recorded.call.is_plain() || self.sampler.take() => {
                    self.kept.push_back(Arc::clone(recorded));
                }
                Item::Rated(rating) => self.ratings.push_back(Feedback::clone(rating)),
                Item::Call(_) | Item::Event(_) => {}
            }
        }
        let over = self.kept.len().saturating_sub(KEPT_MAX);
        self.kept.drain(..over);
        let unrated = self.ratings.len().saturating_sub(KEPT_MAX);
        self.ratings.drain(..unrated);
        self.shared.metrics.lineage_dropped.add((over + unrated) as u64);
        if self.counters.len() < COUNTERS_MAX {
            self.counters.merge(counters);
        }
    }

    /// Commits everything that waits; on trouble it goes on waiting.
    fn commit(&mut self, now: Mono, wall: Wall) {
        if self.nothing_waits() {
            return;
        }
        let Some(file) = &mut self.file else { return };
        let calls = self.kept.iter().map(|recorded| &recorded.call);
        // Ratings are replaced, never added up: one batch of the two may be written twice.
        let rated = if self.ratings.is_empty() { Ok(()) } else { file.write_feedback(&self.ratings) };
        match rated.and_then(|()| file.write_batch(calls, &self.counters)) {
            Ok(()) => {
                self.ratings.clear();
                self.kept.clear();
                self.counters = Counters::default();
                self.pending_since = None;
                self.not_before = Mono::ZERO;
                self.troubled = false;
            }
            Err(WriteError::Corrupt(why)) => self.replace(why, now, wall),
            Err(WriteError::Refused(why)) => {
                self.not_before = now + RETRY_AFTER;
                self.complain(why);
            }
        }
    }

    fn nothing_waits(&self) -> bool {
        self.kept.is_empty() && self.counters.is_empty() && self.ratings.is_empty()
    }

    pub(super) fn replace(&mut self, why: String, now: Mono, wall: Wall) {
        let Some(file) = self.file.take() else { return };
        if self.replaced_at.is_some_and(|at| now.since(at) < REPLACE_EVERY) {
            self.complain(format!("{why}; it was replaced a short while ago, so that none is written any more"));
            return;
        }
        self.replaced_at = Some(now);
        self.not_before = now;
        match file.replace(why, wall) {
            Ok((file, opened)) => {
                announce(&self.shared, opened);
                self.file = Some(file);
            }
            Err(error) => self.complain(error.to_string()),
        }
    }

    fn retain(&mut self, now: Mono, wall: Wall) {
        let Some(file) = &mut self.file else {
            self.retain_at = Mono::FAR;
            return;
        };
        match file.retain(wall) {
            Ok(0) => self.retain_at = now + RETAIN_EVERY,
            Ok(_) => self.retain_at = now,
            Err(WriteError::Corrupt(why)) => self.replace(why, now, wall),
            Err(WriteError::Refused(why)) => {
                self.retain_at = now + RETAIN_EVERY;
                self.complain(why);
            }
        }
    }

    /// Says once that the file makes trouble, until it works again.
    fn complain(&mut self, why: String) {
        if !self.troubled {
            self.troubled = true;
            self.shared.trouble(LogEvent::error("telemetry_trouble", why.clone()), &why);
        }
    }
}

fn announce(shared: &Shared, opened: Opened) {
    match opened {
        Opened::Fresh | Opened::Existing => {}
        Opened::Replaced { moved_to, why } => {
            let message = "The telemetry file was damaged; it was set aside and a new one begun.";
            let event = LogEvent::error("telemetry_trouble", message)
                .with("moved_to", moved_to.display().to_string())
                .with("why", why);
            shared.trouble(event, message);
        }
    }
}

/// Keeps an even share of the plain calls: of 0.01, every hundredth.
struct Sampler {
    share: f64,
    due: f64,
}

impl Sampler {
    fn take(&mut self) -> bool {
        self.due += self.share;
        // A tenth added ten times is a little less than one.
        let taken = self.due > 1.0 - 1e-9;
        if taken {
            self.due -= 1.0;
        }
        taken
    }
}
