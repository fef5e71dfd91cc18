//! The audit log.

use crate::{AuditEntry, AuditFilter, AuditPage, AuditVerified, Audited, Cursor, Limits, Page, StoreError};
use outlast_model::Wall;

#[derive(Clone, Debug, Default)]
pub(super) struct Audit {
    entries: Vec<Audited>,
}

impl Audit {
    /// Whether another entry fits. Ask before anything is changed that has to be audited.
    pub(super) fn has_room(&self, limits: &Limits) -> Result<(), StoreError> {
        self.has_room_for(1, limits)
    }

    /// Whether so many more entries fit.
    pub(super) fn has_room_for(&self, entries: u64, limits: &Limits) -> Result<(), StoreError> {
        if self.entries.len() as u64 + entries > limits.audit {
            return Err(StoreError::LimitReached { what: "audit entries", of_tenant: false });
        }
        Ok(())
    }

    /// Adds an entry, in the transaction that does what it tells of.
    pub(super) fn append(&mut self, entry: AuditEntry, limits: &Limits, now: Wall) -> Result<(), StoreError> {
        entry.fits()?;
        self.has_room(limits)?;
        let before = self.entries.last().map_or([0; 32], |last| last.hash);
        let number = self.entries.len() as i64 + 1;
        let hash = Audited::chained(&before, number, now, &entry);
        self.entries.push(Audited { number, at: now, entry, hash });
        Ok(())
    }

    pub(super) fn list(&self, filter: &AuditFilter, page: Page) -> AuditPage {
        let size = page.size.clamp(1, Page::LARGEST) as usize;
        let mut found = self
            .entries
            .iter()
            .rev()
            .filter(|entry| page.after.is_none_or(|Cursor(after)| entry.number < after))
            .filter(|entry| filter.who.as_ref().is_none_or(|who| entry.entry.who == *who))
            .filter(|entry| filter.subject.as_ref().is_none_or(|subject| entry.entry.subject == *subject))
            .take(size + 1)
            .cloned()
            .collect::<Vec<_>>();
        let more = found.len() > size;
        found.truncate(size);
        let next = found.last().filter(|_| more).map(|last| Cursor(last.number));
        AuditPage { entries: found, next }
    }

    pub(super) fn verify(&self) -> AuditVerified {
        let mut verified = AuditVerified::default();
        for entry in &self.entries {
            if Audited::chained(&verified.head, entry.number, entry.at, &entry.entry) != entry.hash {
                verified.broken = Some((entry.number, "it is not what was written".into()));
                break;
            }
            verified.entries += 1;
            verified.head = entry.hash;
        }
        verified
    }
}
