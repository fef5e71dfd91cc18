//! Why a command was not carried out.

use std::{fmt, sync::Arc};

/// Why a command was not carried out. Nothing of it was, except after [`StoreError::Unknown`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The disk, or the file's own limit, has no room.
    Full {
        /// The file or database.
        place: Arc<str>,
    },
    /// A declared limit of [`crate::Limits`] is reached.
    LimitReached {
        /// What there is too much of.
        what: &'static str,
        /// Whether it is the tenant's share or the whole.
        of_tenant: bool,
    },
    /// One payload is larger than any may be.
    TooLarge {
        /// Its size in bytes.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The file or its directory cannot be written.
    ReadOnly {
        /// The file or database.
        place: Arc<str>,
    },
    /// The data is damaged, or is not what was written.
    Corrupt {
        /// The file or database, and the row where one is known.
        place: Arc<str>,
        /// What is wrong with it.
        why: Arc<str>,
    },
    /// A later build wrote it.
    TooNew {
        /// The file or database.
        place: Arc<str>,
        /// Its schema version.
        found: i64,
        /// The highest version this build knows.
        known: i64,
    },
    /// Another program's data.
    Foreign {
        /// The file or database.
        place: Arc<str>,
    },
    /// A payload was sealed with a key that was not given.
    KeyMissing {
        /// The file or database.
        place: Arc<str>,
        /// Which key: the first eight hexadecimal digits of its hash, or what was given instead of keys.
        key: Arc<str>,
    },
    /// The store was begun with plaintext payloads and was now opened with keys.
    NotSealed {
        /// The file or database.
        place: Arc<str>,
    },
    /// Somebody else holds it: another process writes for too long, or has the store open where nobody may.
    Busy {
        /// The file or database.
        place: Arc<str>,
    },
    /// More commands wait than may.
    Overloaded {
        /// How many may wait.
        limit: usize,
    },
    /// The back end cannot be reached or used now.
    Unavailable {
        /// The file or database.
        place: Arc<str>,
        /// What it said.
        why: Arc<str>,
    },
    /// Whether the command was carried out is not known. Repeat it: every command is safe to repeat.
    Unknown {
        /// The file or database.
        place: Arc<str>,
    },
    /// Another row has this id.
    Taken {
        /// What the id is of.
        what: &'static str,
    },
    /// This back end has no such thing.
    Unsupported {
        /// What was asked of it.
        what: &'static str,
    },
    /// The store was closed.
    Closed,
}

impl StoreError {
    /// True if the same command may work later without anybody doing anything.
    pub const fn passes(&self) -> bool {
        match self {
            StoreError::Busy { .. }
            | StoreError::Overloaded { .. }
            | StoreError::Unavailable { .. }
            | StoreError::Unknown { .. }
            | StoreError::LimitReached { .. } => true,
            StoreError::Full { .. }
            | StoreError::TooLarge { .. }
            | StoreError::ReadOnly { .. }
            | StoreError::Corrupt { .. }
            | StoreError::TooNew { .. }
            | StoreError::Foreign { .. }
            | StoreError::KeyMissing { .. }
            | StoreError::NotSealed { .. }
            | StoreError::Taken { .. }
            | StoreError::Unsupported { .. }
            | StoreError::Closed => false,
        }
    }

    /// True if the command itself is at fault (too large, an id that is taken, over a declared limit, not offered) and
    /// the store is well.
    pub const fn of_command(&self) -> bool {
        match self {
            StoreError::LimitReached { .. }
            | StoreError::TooLarge { .. }
            | StoreError::Taken { .. }
            | StoreError::Unsupported { .. } => true,
            StoreError::Full { .. }
            | StoreError::ReadOnly { .. }
            | StoreError::Corrupt { .. }
            | StoreError::TooNew { .. }
            | StoreError::Foreign { .. }
            | StoreError::KeyMissing { .. }
            | StoreError::NotSealed { .. }
            | StoreError::Busy { .. }
            | StoreError::Overloaded { .. }
            | StoreError::Unavailable { .. }
            | StoreError::Unknown { .. }
            | StoreError::Closed => false,
        }
    }

    /// A name for metrics and tests.
    pub const fn name(&self) -> &'static str {
        match self {
            StoreError::Full { .. } => "full",
            StoreError::LimitReached { .. } => "limit_reached",
            StoreError::TooLarge { .. } => "too_large",
            StoreError::ReadOnly { .. } => "read_only",
            StoreError::Corrupt { .. } => "corrupt",
            StoreError::TooNew { .. } => "too_new",
            StoreError::Foreign { .. } => "foreign",
            StoreError::KeyMissing { .. } => "key_missing",
            StoreError::NotSealed { .. } => "not_sealed",
            StoreError::Busy { .. } => "busy",
            StoreError::Overloaded { .. } => "overloaded",
            StoreError::Unavailable { .. } => "unavailable",
            StoreError::Unknown { .. } => "unknown",
            StoreError::Taken { .. } => "taken",
            StoreError::Unsupported { .. } => "unsupported",
            StoreError::Closed => "closed",
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Full { place } => {
                write!(f, "{place}: no room left. Free space on its disk, or raise the store's size limit.")
            }
            StoreError::LimitReached { what, of_tenant } => {
                let whose = if *of_tenant { "this tenant's share" } else { "the store's limit" };
                write!(f, "{what}: {whose} is reached. Room comes back as older ones finish or expire.")
            }
            StoreError::TooLarge { bytes, limit } => {
                write!(f, "a payload of {bytes} bytes is larger than the store takes ({limit}). Send a smaller one.")
            }
            StoreError::ReadOnly { place } => {
                write!(f, "{place}: cannot be written. Make the file and its directory writable for Outlast.")
            }
            StoreError::Corrupt { place, why } => {
                write!(f, "{place}: damaged: {why}. Restore the last backup, or move the file away and begin anew.")
            }
            StoreError::TooNew { place, found, known } => write!(
                f,
                "{place}: written by a newer Outlast (schema {found}; this one knows {known}). Upgrade Outlast, or \
                 name another file."
            ),
            StoreError::Foreign { place } => write!(f, "{place}: another program's data. Name another file."),
            StoreError::KeyMissing { place, key } => {
                write!(f, "{place}: sealed with data key {key}, which was not given. Add it to the store's data keys.")
            }
            StoreError::NotSealed { place } => write!(
                f,
                "{place}: begun with plaintext payloads, but now data keys are given. Name another file for sealed \
                 payloads, or keep plaintext_payloads."
            ),
            StoreError::Busy { place } => {
                write!(f, "{place}: held by another process. Try again, or stop the process that has it open.")
            }
            StoreError::Overloaded { limit } => {
                write!(f, "the store has more than {limit} commands waiting. Try again; if it stays, its disk is slow.")
            }
            StoreError::Unavailable { place, why } => write!(f, "{place}: {why}. Look after the disk or the database."),
            StoreError::Unknown { place } => {
                write!(f, "{place}: it is not known whether the command was carried out. Repeat it.")
            }
            StoreError::Taken { what } => write!(f, "another {what} has this id. Choose a random one."),
            StoreError::Unsupported { what } => {
                write!(f, "this store cannot {what}. Use a file store, or the database's own tools.")
            }
            StoreError::Closed => write!(f, "the store was closed. Open it again."),
        }
    }
}

impl std::error::Error for StoreError {}
