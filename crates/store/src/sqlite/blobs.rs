//! Payloads of runs and steps: small ones in their row, large ones once for each tenant and content.
//!
//! Where a payload is large, its row keeps its sealed address in place of it, and the number of the blob's row, by which
//! triggers count the references. The address is sealed for the row that refers to it, so that a number that is moved to
//! another row is found out as a payload would be.

use super::{
    cx::Cx,
    fault::{Fault, Outcome},
};
use crate::{Payload, StoreError, seal::Owner};
use rusqlite::{OptionalExtension, params};

/// What a row keeps of a payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    /// The sealed payload, or its sealed address.
    pub(super) inline: Option<Vec<u8>>,
    /// The row of its blob.
    pub(super) blob: Option<i64>,
}

impl Stored {
    /// From two columns beside each other.
    pub(super) fn read(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Self> {
        Ok(Stored { inline: row.get(column)?, blob: row.get(column + 1)? })
    }
}

/// Seals a payload for its row; a large one is put with the blobs, unless its like is there. Write what this gives in
/// the same command: only a row's reference keeps a blob.
pub(super) fn keep(cx: Cx<'_>, owner: Owner<'_>, payload: &Payload) -> Outcome<Stored> {
    if payload.len() as u64 <= cx.limits.inline_bytes {
        return Ok(Stored { inline: Some(cx.sealer.seal(owner, payload.as_bytes())), blob: None });
    }
    cx.fits(payload.len())?;
    let address = cx.sealer.address(payload.as_bytes());
    let mut find = cx.db.prepare_cached("SELECT blob FROM blobs WHERE tenant = ?1 AND address = ?2")?;
    let blob = match find.query_row(params![owner.tenant, address], |row| row.get(0)).optional()? {
        Some(blob) => blob,
        None => {
            let sealed = cx.sealer.seal(of_blob(owner.tenant, &hex(&address)), payload.as_bytes());
            cx.db
                .prepare_cached("INSERT INTO blobs (tenant, address, refs, bytes, payload) VALUES (?1, ?2, 0, ?3, ?4)")?
                .execute(params![owner.tenant, address, payload.len() as i64, sealed])?;
            cx.db.last_insert_rowid()
        }
    };
    Ok(Stored { inline: Some(cx.sealer.seal(owner, &address)), blob: Some(blob) })
}

/// [`keep`], where an empty payload is none.
pub(super) fn keep_some(cx: Cx<'_>, owner: Owner<'_>, payload: &Payload) -> Outcome<Stored> {
    if payload.is_empty() { Ok(Stored::default()) } else { keep(cx, owner, payload) }
}

/// Opens what a row keeps; none if it keeps nothing.
pub(super) fn open(cx: Cx<'_>, owner: Owner<'_>, stored: Stored) -> Outcome<Option<Payload>> {
    let Stored { inline: Some(inline), blob } = stored else { return Ok(None) };
    let opened = cx.sealer.open(cx.place, owner, inline)?;
    let Some(blob) = blob else { return Ok(Some(opened)) };
    let mut find = cx.db.prepare_cached("SELECT payload FROM blobs WHERE blob = ?1 AND address = ?2")?;
    let sealed: Option<Vec<u8>> = find.query_row(params![blob, opened.as_bytes()], |row| row.get(0)).optional()?;
    let Some(sealed) = sealed else {
        let why = format!("a {} of {} is not where its row says", owner.column, owner.table).into();
        return Err(Fault::Store(StoreError::Corrupt { place: cx.place.clone(), why }));
    };
    Ok(Some(cx.sealer.open(cx.place, of_blob(owner.tenant, &hex(opened.as_bytes())), sealed)?))
}

fn of_blob<'a>(tenant: &'a str, address: &'a str) -> Owner<'a> {
    Owner { table: "blobs", tenant, id: address, column: "payload" }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A name of two parts that no other two read the same as.
pub(super) fn joined(first: &str, second: &str) -> String {
    format!("{}:{first}/{second}", first.len())
}
