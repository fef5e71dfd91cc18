//! The store in one SQLite file.
//!
//! [`writer`] is the one thread that writes, with one commit for all that waits; [`readers`] read beside it. The
//! domains' statements are in the files of their names. Several processes may have the same file open.

mod audit;
mod backup;
mod blobs;
mod cache;
mod calls;
mod claim;
mod confirmations;
mod cx;
mod deliveries;
mod effects;
mod entries;
mod escalations;
mod fault;
mod inbox;
mod journal;
mod migrate;
mod notices;
mod open;
mod people;
#[cfg(test)]
mod plans;
mod queue;
mod readers;
mod ready;
mod retention;
mod run_checks;
mod run_store;
mod run_views;
mod runs;
mod steps;
mod upkeep;
mod words;
mod workers;
mod writer;

pub use backup::{Restored, restore};
pub use migrate::SCHEMA_VERSION;

use crate::{
    Answer, AskConfirmation, Asked, BackedUp, BeginCall, Begun, CallEnd, Checked, ClaimQueued, ClaimedItem, Clock,
    CompleteQueued, Delivered, Delivery, DueDeliveries, EndCall, Enqueue, Enqueued, FailQueued, Fenced, Limits,
    QueuedView, Recall, ReleaseQueued, Remember, Remembered, RenewCall, RenewQueued, Retried, RetryDelivery, Sealer,
    Sealing, Store, StoreError, StoreHealth, Swept, TakeConfirmation, Taken,
};
use cx::Cx;
use fault::Outcome;
use open::Opening;
use outlast_model::TenantId;
use readers::Readers;
use std::{
    fs::{self, File},
    future,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::sync::oneshot;
use writer::{Surroundings, Writer};

/// What a store may do with its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Read and write; a file that cannot be written is an error.
    #[default]
    Write,
    /// Read and write; a file that cannot be written is only read, and every command that writes fails with
    /// [`StoreError::ReadOnly`].
    WriteIfPossible,
    /// Only read.
    Read,
}

/// How a file is opened.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// What happens to payloads.
    pub sealing: Sealing,
    /// How much is kept.
    pub limits: Limits,
    /// What may be done.
    pub access: Access,
    /// The file's largest size in bytes, its log apart. At it, commands that need room fail with [`StoreError::Full`].
    pub max_bytes: Option<u64>,
    /// How long another process's transaction is waited for.
    pub busy: Duration,
}

impl SqliteOptions {
    /// For reading and writing, with the limits of a file and no limit to its size.
    pub fn new(sealing: Sealing) -> Self {
        SqliteOptions {
            sealing,
            limits: Limits::FILE,
            access: Access::Write,
            max_bytes: None,
            busy: Duration::from_secs(3),
        }
    }
}

/// Facts kept in one file. Dropping it carries out what was handed over and closes the file.
#[derive(Debug)]
pub struct SqliteStore {
    // In this order: the writer's connection is the last to close, so that it can bring the log into the file; then the
    // lock is given back.
    readers: Readers,
    writer: Option<Writer>,
    around: Surroundings,
    path: PathBuf,
    busy: Duration,
    /// One backup or check at a time.
    at_work: Arc<AtomicBool>,
    _lock: Option<File>,
}

impl SqliteStore {
    /// Opens the file, making it and its directory as needed, taking its schema forward and checking that it is sound.
    /// Blocks for as long as that takes: tens of milliseconds for a small file, longer for a large one.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`], [`StoreError::Foreign`], [`StoreError::TooNew`], [`StoreError::Corrupt`],
    /// [`StoreError::KeyMissing`], [`StoreError::NotSealed`]; [`StoreError::Busy`] while it is being restored.
    pub fn open(path: &Path, options: SqliteOptions, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let place: Arc<str> = path.display().to_string().into();
        let sealer = Sealer::new(options.sealing);
        let opening = Opening {
            path,
            place: &place,
            sealer: &sealer,
            now: clock.now(),
            busy: options.busy,
            max_bytes: options.max_bytes,
            readers: readers::THREADS,
        };
        let opened = match options.access {
            Access::Write => opening.write()?,
            Access::Read => opening.read()?,
            Access::WriteIfPossible => match opening.write() {
                Err(StoreError::ReadOnly { .. }) => opening.read()?,
                other => other?,
            },
        };
        let around = Surroundings { limits: options.limits, sealer, clock, place: place.clone() };
        let no_thread = |error| open::refused(&error, &place);
        let writer = opened.writer.map(|db| Writer::start(db, around.clone())).transpose().map_err(no_thread)?;
        let readers = Readers::start(opened.readers, around.clone()).map_err(no_thread)?;
        let at_work = Arc::new(AtomicBool::new(false));
        Ok(SqliteStore { readers, writer, around, path: path.into(), busy: options.busy, at_work, _lock: opened.lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// False if it only reads.
    pub fn writable(&self) -> bool {
        self.writer.is_some()
    }

    fn write<T, F>(&self, bytes: usize, command: F) -> Answer<T>
    where
        T: Send + 'static,
        F: Fn(Cx<'_>) -> Outcome<T> + Send + 'static,
    {
        match &self.writer {
            Some(writer) => writer.run(bytes, command),
            None => Box::pin(future::ready(Err(StoreError::ReadOnly { place: self.around.place.clone() }))),
        }
    }

    /// Long work on a connection and a thread of its own; a second one at the same time is refused.
    fn work<T, F>(&self, work: F) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Connection, &Surroundings) -> Result<T, StoreError> + Send + 'static,
    {
        let place = self.around.place.clone();
        let Some(turn) = Turn::take(&self.at_work) else {
            return Box::pin(future::ready(Err(StoreError::Busy { place })));
        };
        let (answer, answered) = oneshot::channel();
        let (around, path, busy, alone) = (self.around.clone(), self.path.clone(), self.busy, !self.writable());
        let thread = thread::Builder::new().name("outlast-store-work".into()).spawn(move || {
            let db = open::connect_reader(&path, &around.place, busy, alone);
            let done = db.and_then(|db| work(&db, &around));
            drop(turn);
            // Nobody may be waiting any more.
            let _ = answer.send(done);
        });
        if let Err(error) = thread {
            return Box::pin(future::ready(Err(open::refused(&error, &place))));
        }
        Box::pin(async move { answered.await.unwrap_or(Err(StoreError::Closed)) })
    }
}

/// The one turn at long work. Dropping it gives it back, also when the work panics.
struct Turn(Arc<AtomicBool>);

impl Turn {
    fn take(at_work: &Arc<AtomicBool>) -> Option<Self> {
        (!at_work.swap(true, Ordering::AcqRel)).then(|| Turn(Arc::clone(at_work)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Store for SqliteStore {
    fn begin_call(&self, command: BeginCall) -> Answer<Begun> {
        self.write(0, move |cx| calls::begin(cx, &command))
    }

    fn renew_call(&self, command: RenewCall) -> Answer<Fenced> {
        self.write(0, move |cx| calls::renew(cx, &command))
    }

    fn end_call(&self, command: EndCall) -> Answer<Fenced> {
        let bytes = match &command.end {
            CallEnd::Done(payload) | CallEnd::Failed(payload) => payload.len(),
            CallEnd::Released => 0,
        };
        self.write(bytes, move |cx| calls::end(cx, &command))
    }

    fn enqueue(&self, command: Enqueue) -> Answer<Enqueued> {
        self.write(command.payload.len(), move |cx| queue::enqueue(cx, &command))
    }

    fn claim_queued(&self, command: ClaimQueued) -> Answer<Option<ClaimedItem>> {
        self.write(0, move |cx| queue::claim(cx, &command))
    }

    fn renew_queued(&self, command: RenewQueued) -> Answer<Fenced> {
        self.write(0, move |cx| queue::renew(cx, &command))
    }

    fn complete_queued(&self, command: CompleteQueued) -> Answer<Fenced> {
        self.write(command.reply.len(), move |cx| queue::complete(cx, &command))
    }

    fn fail_queued(&self, command: FailQueued) -> Answer<Fenced> {
        self.write(command.payload.len(), move |cx| queue::fail(cx, &command))
    }

    fn release_queued(&self, command: ReleaseQueued) -> Answer<Fenced> {
        self.write(0, move |cx| queue::release(cx, &command))
    }

    fn queued(&self, tenant: TenantId, id: Arc<str>) -> Answer<Option<QueuedView>> {
        self.readers.ask(move |cx| queue::view(cx, &tenant, &id))
    }

    fn remember(&self, command: Remember) -> Answer<()> {
        self.write(command.payload.len(), move |cx| cache::remember(cx, &command))
    }

    fn recall(&self, question: Recall) -> Answer<Option<Remembered>> {
        self.readers.ask(move |cx| cache::recall(cx, &question))
    }

    fn ask_confirmation(&self, command: AskConfirmation) -> Answer<Asked> {
        self.write(0, move |cx| confirmations::ask(cx, &command))
    }

    fn take_confirmation(&self, command: TakeConfirmation) -> Answer<Taken> {
        self.write(0, move |cx| confirmations::take(cx, &command))
    }

    fn due_deliveries(&self, command: DueDeliveries) -> Answer<Vec<Delivery>> {
        self.write(0, move |cx| deliveries::due(cx, &command))
    }

    fn delivered(&self, command: Delivered) -> Answer<Fenced> {
        self.write(0, move |cx| deliveries::delivered(cx, &command))
    }

    fn retry_delivery(&self, command: RetryDelivery) -> Answer<Retried> {
        self.write(0, move |cx| deliveries::retry(cx, &command))
    }

    fn sweep(&self, limit: u32) -> Answer<Swept> {
        self.write(0, move |cx| upkeep::sweep(cx, limit))
    }

    fn health(&self) -> Answer<StoreHealth> {
        let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
        let disk_bytes = size(&self.path) + size(&open::log_path(&self.path));
        let (writable, waiting_commands) = (self.writable(), self.writer.as_ref().map_or(0, Writer::waiting));
        self.readers.ask(move |cx| Ok(StoreHealth { writable, disk_bytes, waiting_commands, ..upkeep::health(cx)? }))
    }

    fn backup(&self, path: PathBuf) -> Answer<BackedUp> {
        self.work(move |db, _| backup::back_up(db, &path))
    }

    fn check(&self) -> Answer<Checked> {
        self.work(|db, around| readers::read(db, around, upkeep::check))
    }
}
