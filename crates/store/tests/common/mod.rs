//! What the tests of several back ends share.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod runs;

use outlast_store::{
    Clock, DataKey, Limits, MemoryStore, Sealing, SqliteOptions, SqliteStore, Store, StoreError,
    conformance::{ManualClock, Subject},
};
use std::{
    fs,
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempDir;

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

pub(crate) fn sealed() -> Sealing {
    Sealing::Keys(vec![DataKey::new(&[1; 32])])
}

pub(crate) fn options(limits: Limits) -> SqliteOptions {
    SqliteOptions { limits, ..SqliteOptions::new(sealed()) }
}

pub(crate) fn open(path: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(path, options(Limits::FILE), ManualClock::start())
}

/// The memory store, which does not outlive a crash and therefore does not crash.
#[derive(Debug)]
pub(crate) struct Memory;

impl Subject for Memory {
    fn fresh(&mut self, limits: Limits, clock: Arc<dyn Clock>) -> Box<dyn Store> {
        Box::new(MemoryStore::new(limits, clock))
    }

    fn reopen(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
        store
    }
}

/// The SQLite store. Every other crash is a clean end; the others are what a killed process leaves: the file and its
/// log as they were, with no closing done.
#[derive(Debug)]
pub(crate) struct Sqlite {
    home: TempDir,
    files: u32,
    crashes: u32,
    limits: Limits,
    clock: Arc<dyn Clock>,
}

impl Sqlite {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        Sqlite { home, files: 0, crashes: 0, limits: Limits::FILE, clock: ManualClock::start() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.home.path().join(format!("store-{}.db", self.files))
    }

    fn open(&self) -> Box<dyn Store> {
        let opened = SqliteStore::open(&self.path(), options(self.limits), Arc::clone(&self.clock));
        Box::new(opened.expect("an open store"))
    }
}

impl Subject for Sqlite {
    fn fresh(&mut self, limits: Limits, clock: Arc<dyn Clock>) -> Box<dyn Store> {
        self.files += 1;
        self.limits = limits;
        self.clock = clock;
        self.open()
    }

    fn reopen(&mut self, store: Box<dyn Store>) -> Box<dyn Store> {
        self.crashes += 1;
        if self.crashes.is_multiple_of(2) {
            let left = self.path();
            self.files += 1;
            for suffix in ["", "-wal"] {
                let name = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
                fs::copy(name(&left), name(&self.path())).expect("what the process left");
            }
        }
        drop(store);
        self.open()
    }
}
