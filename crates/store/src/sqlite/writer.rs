//! The one thread that writes.
//!
//! It takes whatever waits, without waiting for more, carries all of it out in one transaction with a savepoint around
//! each command, commits once, and only then answers. At low load nothing is delayed; at high load many commands share
//! one `fsync`. A command that fails takes back its own savepoint and nothing else.

use super::{
    cx::Cx,
    fault::{Fault, Outcome, of_sqlite},
};
use crate::{Answer, Clock, Limits, Sealer, StoreError};
use rusqlite::{Connection, ErrorCode};
use std::{
    future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};
use tokio::sync::oneshot;

/// At most so many commands share one commit.
const BATCH: usize = 256;
/// At most so many commands wait for the writer.
pub(super) const WAITING: usize = 4096;
/// At most so many bytes of payload wait for the writer.
const WAITING_BYTES: usize = 64 << 20;

/// What both kinds of threads need to carry out a command.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    pub(super) limits: Limits,
    pub(super) sealer: Sealer,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) place: Arc<str>,
}

impl Surroundings {
    pub(super) fn cx<'a>(&'a self, db: &'a Connection) -> Cx<'a> {
        Cx { db, limits: &self.limits, sealer: &self.sealer, place: &self.place, now: self.clock.now() }
    }
}

/// The way to the writer. Dropping it lets the writer finish what waits, and waits for that.
#[derive(Debug)]
pub(super) struct Writer {
    inbox: Option<SyncSender<Box<dyn Job>>>,
    waiting: Arc<Waiting>,
    thread: Option<JoinHandle<()>>,
}

/// What waits for the writer.
#[derive(Debug, Default)]
struct Waiting {
    commands: AtomicUsize,
    bytes: AtomicUsize,
}

impl Writer {
    /// Starts the thread on an open connection.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(db: Connection, around: Surroundings) -> std::io::Result<Self> {
        let (inbox, jobs) = sync_channel(WAITING);
        let waiting = Arc::new(Waiting::default());
        let seen = Arc::clone(&waiting);
        let thread = thread::Builder::new().name("outlast-store".into()).spawn(move || {
            Work { db, around, waiting: seen }.run(&jobs);
        })?;
        Ok(Writer { inbox: Some(inbox), waiting, thread: Some(thread) })
    }

    /// Hands a command over. It may be carried out more than once, but is committed at most once.
    pub(super) fn run<T, F>(&self, bytes: usize, command: F) -> Answer<T>
    where
        T: Send + 'static,
        F: Fn(Cx<'_>) -> Outcome<T> + Send + 'static,
    {
        let Some(inbox) = &self.inbox else { return Box::pin(future::ready(Err(StoreError::Closed))) };
        let overloaded = || Box::pin(future::ready(Err(StoreError::Overloaded { limit: WAITING })));
        if self.waiting.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > WAITING_BYTES {
            self.waiting.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return overloaded();
        }
        let (answer, answered) = oneshot::channel();
        self.waiting.commands.fetch_add(1, Ordering::Relaxed);
        match inbox.try_send(Box::new(Task { bytes, command, result: None, answer })) {
            Ok(()) => Box::pin(async move { answered.await.unwrap_or(Err(StoreError::Closed)) }),
            Err(refused) => {
                self.waiting.commands.fetch_sub(1, Ordering::Relaxed);
                self.waiting.bytes.fetch_sub(bytes, Ordering::Relaxed);
                match refused {
                    TrySendError::Full(_) => overloaded(),
                    TrySendError::Disconnected(_) => Box::pin(future::ready(Err(StoreError::Closed))),
                }
            }
        }
    }

    /// How many commands wait now.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.commands.load(Ordering::Relaxed) as u64
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.inbox.take());
        if let Some(thread) = self.thread.take() {
            // It ends by itself now; a panic in it has been told to everybody who waited.
            let _ = thread.join();
        }
    }
}

/// One command on its way through the writer.
trait Job: Send {
    fn bytes(&self) -> usize;
    /// Carries it out and keeps the result. The error says that its savepoint must be taken back.
    fn run(&mut self, cx: Cx<'_>) -> Result<(), Trouble>;
    /// What was carried out did not last.
    fn fail(&mut self, error: StoreError);
    fn answer(self: Box<Self>);
}

/// A command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// For its own reason.
    Own,
    /// For want of room on the disk, which another one's share of the batch may be the cause of.
    Full,
}

struct Task<T, F> {
    bytes: usize,
    command: F,
    result: Option<Result<T, StoreError>>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for Task<T, F>
where
    T: Send,
    F: Fn(Cx<'_>) -> Outcome<T> + Send,
{
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn run(&mut self, cx: Cx<'_>) -> Result<(), Trouble> {
        // A bug in one command must not close the store to all others.
        let result = catch_unwind(AssertUnwindSafe(|| (self.command)(cx))).unwrap_or_else(|_| {
            let why = "a command panicked; this is a bug in Outlast".into();
            Err(Fault::Store(StoreError::Unavailable { place: cx.place.clone(), why }))
        });
        let keeps = matches!(result, Err(Fault::Refused(_)));
        let result = result.map_err(|fault| fault.into_store_error(cx.place));
        let trouble = match &result {
            Ok(_) => Ok(()),
            Err(_) if keeps => Ok(()),
            Err(StoreError::Full { .. }) => Err(Trouble::Full),
            Err(_) => Err(Trouble::Own),
        };
        self.result = Some(result);
        trouble
    }

    fn fail(&mut self, error: StoreError) {
        self.result = Some(Err(error));
    }

    fn answer(self: Box<Self>) {
        // Nobody may be waiting any more; the command was carried out all the same.
        let _ = self.answer.send(self.result.unwrap_or(Err(StoreError::Closed)));
    }
}

/// The writer's side.
struct Work {
    db: Connection,
    around: Surroundings,
    waiting: Arc<Waiting>,
}

impl Work {
    fn run(&self, jobs: &Receiver<Box<dyn Job>>) {
        while let Ok(first) = jobs.recv() {
            let mut batch = vec![first];
            batch.extend(jobs.try_iter().take(BATCH - 1));
            let bytes = batch.iter().map(|job| job.bytes()).sum();
            self.waiting.commands.fetch_sub(batch.len(), Ordering::Relaxed);
            self.waiting.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.carry_out(&mut batch);
            for job in batch {
                job.answer();
            }
        }
    }

    /// All together if that works. If it does not for want of room, each alone: a large one must not fail the small.
    fn carry_out(&self, batch: &mut [Box<dyn Job>]) {
        match self.together(batch) {
            Ok(()) => {}
            Err(Parted::Over(error)) => batch.iter_mut().for_each(|job| job.fail(error.clone())),
            Err(Parted::Alone) => {
                for job in batch {
                    match self.together(std::slice::from_mut(job)) {
                        Ok(()) | Err(Parted::Alone) => {}
                        Err(Parted::Over(error)) => job.fail(error),
                    }
                }
            }
        }
    }

    fn together(&self, batch: &mut [Box<dyn Job>]) -> Result<(), Parted> {
        let alone = batch.len() == 1;
        let sql = |sql: &str| self.db.prepare_cached(sql).and_then(|mut statement| statement.execute([]));
        sql("BEGIN IMMEDIATE").map_err(|error| self.over(&error))?;
        for job in batch {
            sql("SAVEPOINT command").map_err(|error| self.given_up(&error))?;
            match job.run(self.around.cx(&self.db)) {
                Ok(()) => {}
                // SQLite takes back the whole transaction after some errors.
                Err(_) if self.db.is_autocommit() => return Err(Parted::Alone),
                Err(Trouble::Full) if !alone => {
                    self.roll_back();
                    return Err(Parted::Alone);
                }
                Err(Trouble::Full | Trouble::Own) => {
                    sql("ROLLBACK TO command").map_err(|error| self.given_up(&error))?;
                }
            }
            sql("RELEASE command").map_err(|error| self.given_up(&error))?;
        }
        match sql("COMMIT") {
            Ok(_) => Ok(()),
            Err(error) if !alone && error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                self.roll_back();
                Err(Parted::Alone)
            }
            Err(error) => {
                self.roll_back();
                Err(self.over_at_commit(&error))
            }
        }
    }

    fn over(&self, error: &rusqlite::Error) -> Parted {
        Parted::Over(of_sqlite(error, &self.around.place))
    }

    fn given_up(&self, error: &rusqlite::Error) -> Parted {
        self.roll_back();
        self.over(error)
    }

    /// A commit that failed in the middle of an `fsync` may be found whole by the next recovery.
    fn over_at_commit(&self, error: &rusqlite::Error) -> Parted {
        match error.sqlite_error_code() {
            Some(ErrorCode::SystemIoFailure) => Parted::Over(StoreError::Unknown { place: self.around.place.clone() }),
            Some(_) | None => self.over(error),
        }
    }

    fn roll_back(&self) {
        if !self.db.is_autocommit() {
            // It fails only if SQLite has done it already.
            let _ = self.db.execute_batch("ROLLBACK");
        }
    }
}

/// A transaction that did not commit.
enum Parted {
    /// Nothing of it happened, for this reason.
    Over(StoreError),
    /// Each command is to be tried alone; if it was alone, it keeps its own error.
    Alone,
}
