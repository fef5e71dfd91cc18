//! The threads that read, each with a connection that cannot write. They never wait for the writer, and see whatever
//! was committed before they were asked.

use super::{
    cx::Cx,
    fault::{Outcome, of_sqlite},
    writer::Surroundings,
};
use crate::{Answer, StoreError};
use rusqlite::Connection;
use std::{
    future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};
use tokio::sync::oneshot;

/// So many connections read at once.
pub(super) const THREADS: usize = 2;
/// At most so many questions wait for a reader.
const WAITING: usize = 1024;

type Question = Box<dyn FnOnce(&Connection) + Send>;

/// The way to the readers. Dropping it lets them finish what waits, and waits for that.
#[derive(Debug)]
pub(super) struct Readers {
    inbox: Option<SyncSender<Question>>,
    around: Surroundings,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    /// Starts a thread on each of the connections.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(connections: Vec<Connection>, around: Surroundings) -> std::io::Result<Self> {
        let (inbox, questions) = sync_channel::<Question>(WAITING);
        let questions = Arc::new(Mutex::new(questions));
        let mut readers = Readers { inbox: Some(inbox), around, threads: Vec::new() };
        for db in connections {
            let questions = Arc::clone(&questions);
            let thread = thread::Builder::new().name("outlast-reader".into());
            readers.threads.push(thread.spawn(move || answer_all(&db, &questions))?);
        }
        Ok(readers)
    }

    /// Asks in one read transaction.
    pub(super) fn ask<T, F>(&self, question: F) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce(Cx<'_>) -> Outcome<T> + Send + 'static,
    {
        let Some(inbox) = &self.inbox else { return Box::pin(future::ready(Err(StoreError::Closed))) };
        let (answer, answered) = oneshot::channel();
        let around = self.around.clone();
        let asked = inbox.try_send(Box::new(move |db: &Connection| {
            // Nobody may be waiting any more.
            let _ = answer.send(read(db, &around, question));
        }));
        match asked {
            Ok(()) => Box::pin(async move { answered.await.unwrap_or(Err(StoreError::Closed)) }),
            Err(TrySendError::Full(_)) => Box::pin(future::ready(Err(StoreError::Overloaded { limit: WAITING }))),
            Err(TrySendError::Disconnected(_)) => Box::pin(future::ready(Err(StoreError::Closed))),
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        drop(self.inbox.take());
        for thread in self.threads.drain(..) {
            // It ends by itself now; a panic in it has been told to whoever waited.
            let _ = thread.join();
        }
    }
}

/// Asks one question in one read transaction.
pub(super) fn read<T>(
    db: &Connection,
    around: &Surroundings,
    question: impl FnOnce(Cx<'_>) -> Outcome<T>,
) -> Result<T, StoreError> {
    let view = db.unchecked_transaction().map_err(|error| of_sqlite(&error, &around.place))?;
    question(around.cx(&view)).map_err(|fault| fault.into_store_error(&around.place))
}

fn answer_all(db: &Connection, questions: &Mutex<Receiver<Question>>) {
    loop {
        let next = questions.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(question) = next else { return };
        // A question that panics answers nobody, which its asker is told; the next one is read as before.
        let _ = catch_unwind(AssertUnwindSafe(|| question(db)));
    }
}
