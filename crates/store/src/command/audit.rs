//! The audit log: who decided what, kept for good. Entries are added and never changed or removed; each holds the hash of
//! the one before. An entry is written in the transaction that does what it tells of, never by itself.

use crate::{Cursor, StoreError};
use outlast_model::{TenantId, Wall};
use std::sync::Arc;

/// Something a person, or Outlast in their place, did. No payload: nothing that a request, an answer or a step said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Who: a reviewer's name, a caller's hash, or `outlast`.
    pub who: Arc<str>,
    /// What they did, such as `escalation.approve`.
    pub what: Arc<str>,
    /// To what: an escalation's or a run's id.
    pub subject: Arc<str>,
    /// Whose that is.
    pub tenant: TenantId,
    /// What else there is to say, as JSON. At most [`AuditEntry::DETAILS`] bytes.
    pub details: Arc<str>,
}

impl AuditEntry {
    /// The most bytes of details.
    pub const DETAILS: usize = 4096;
}

/// An entry as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audited {
    /// Its number: 1 for the first, without gaps.
    pub number: i64,
    /// When.
    pub at: Wall,
    /// What.
    pub entry: AuditEntry,
    /// The hash of it and of the hash before.
    pub hash: [u8; 32],
}

/// Which entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// By this person; by any.
    pub who: Option<Arc<str>>,
    /// About this; about anything.
    pub subject: Option<Arc<str>>,
}

/// Part of the log, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditPage {
    /// The entries.
    pub entries: Vec<Audited>,
    /// Where the next page begins, if there is one.
    pub next: Option<Cursor>,
}

/// What a reading of the whole log came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditVerified {
    /// Entries that are what was written, up to the first that is not.
    pub entries: u64,
    /// The last such entry's hash; zeros of an empty log. Written down elsewhere, it shows later whether the log was made anew.
    pub head: [u8; 32],
    /// The first entry that is not what was written, and what is wrong with it.
    pub broken: Option<(i64, Arc<str>)>,
}

impl Audited {
    /// The hash an entry must have after this one before it.
    pub fn chained(before: &[u8; 32], number: i64, at: Wall, entry: &AuditEntry) -> [u8; 32] {
        let AuditEntry { who, what, subject, tenant, details } = entry;
        let mut hasher = blake3::Hasher::new_derive_key("outlast 2026-11-21 chain of the audit log");
        hasher.update(before);
        hasher.update(&number.to_le_bytes());
        hasher.update(&at.0.to_le_bytes());
        for part in [&**who, &**what, &**subject, tenant.as_str(), &**details] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

impl AuditEntry {
    /// Refuses details that are too long.
    pub(crate) fn fits(&self) -> Result<(), StoreError> {
        let bytes = self.details.len();
        if bytes > AuditEntry::DETAILS {
            return Err(StoreError::TooLarge { bytes: bytes as u64, limit: AuditEntry::DETAILS as u64 });
        }
        Ok(())
    }
}
